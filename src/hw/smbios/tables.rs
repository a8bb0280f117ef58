//! The structures and the entry point.

use super::fields::{Fields, SmbiosError, parse_number};

/// What the tables describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmbiosConfig {
    /// "Standard PC (i440FX + PIIX, 1996)".
    pub product: String,
    /// The machine type's full name.
    pub machine: String,
    /// `-uuid`.
    pub uuid: Option<[u8; 16]>,
    /// The processors.
    pub processors: Processors,
    /// RAM: (first address, bytes) of each piece.
    pub ram: Vec<(u64, u64)>,
    /// `-smbios`.
    pub options: Vec<Vec<(String, String)>>,
}

/// The processors that the tables describe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processors {
    /// Sockets.
    pub sockets: u32,
    /// Cores a socket.
    pub cores: u32,
    /// Threads a socket.
    pub threads: u32,
    /// CPUID leaf 1: EAX and EDX.
    pub signature: (u32, u32),
}

/// The fw_cfg files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmbiosBlobs {
    /// `etc/smbios/smbios-anchor`.
    pub anchor: Vec<u8>,
    /// `etc/smbios/smbios-tables`.
    pub tables: Vec<u8>,
}

const MAKER: &str = "QEMU";

/// A structure under construction (6.1): formatted part, then its strings.
struct Structure {
    bytes: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    fn new(kind: u8, handle: u16) -> Self {
        let [low, high] = handle.to_le_bytes();
        Self { bytes: vec![kind, 0, low, high], strings: Vec::new() }
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A string's number; 0 for an empty one.
    fn text(&mut self, text: &str) -> &mut Self {
        if text.is_empty() {
            return self.u8(0);
        }
        self.strings.push(text.replace('\0', " "));
        let number = u8::try_from(self.strings.len()).unwrap_or(0);
        self.u8(number)
    }
}

struct Tables {
    bytes: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Tables {
    fn push(&mut self, structure: Structure) {
        let Structure { mut bytes, strings } = structure;
        bytes[1] = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        for text in &strings {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        if strings.is_empty() {
            bytes.push(0);
        }
        bytes.push(0);
        self.push_bytes(&bytes);
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.largest = self.largest.max(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
    }
}

/// Builds the tables.
///
/// # Errors
/// A `-smbios` option cannot be used.
pub fn build(config: &SmbiosConfig) -> Result<SmbiosBlobs, SmbiosError> {
    let fields = Fields::parse(&config.options)?;
    let mut tables = Tables { bytes: Vec::new(), count: 0, largest: 0 };
    for file in &fields.files {
        tables.push_bytes(file);
    }
    if fields.has(0) {
        tables.push(bios(&fields)?);
    }
    tables.push(system(config, &fields)?);
    if fields.has(2) {
        tables.push(base_board(config, &fields));
    }
    tables.push(chassis(config, &fields));
    for socket in 0..config.processors.sockets {
        tables.push(processor(config, &fields, socket)?);
    }
    for (index, connector) in (0u16..).zip(fields.each(8)) {
        tables.push(port_connector(connector, index)?);
    }
    for strings in fields.each(11) {
        tables.push(oem_strings(strings)?);
    }
    memory(config, &fields, &mut tables)?;
    let mut boot = Structure::new(32, 0x2000);
    boot.u16(0).u32(0).u8(0);
    tables.push(boot);
    tables.push(Structure::new(127, 0x7f00));
    Ok(SmbiosBlobs { anchor: entry_point(&tables), tables: tables.bytes })
}

/// BIOS information (7.1).
fn bios(fields: &Fields) -> Result<Structure, SmbiosError> {
    let get = |field| fields.get(0, field).unwrap_or("");
    let mut s = Structure::new(0, 0);
    s.text(get("vendor")).text(get("version")).u16(0xe800).text(get("date")).u8(0);
    let uefi = matches!(get("uefi"), "on" | "yes" | "true");
    s.u64(8).u8(0).u8(0x14 | if uefi { 8 } else { 0 });
    let (major, minor) = match fields.get(0, "release") {
        None => (0, 0),
        Some(text) => text
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or(SmbiosError::BadRelease)?,
    };
    s.u8(major).u8(minor).u8(0xff).u8(0xff);
    Ok(s)
}

/// System information (7.2).
fn system(config: &SmbiosConfig, fields: &Fields) -> Result<Structure, SmbiosError> {
    let get = |field, default| fields.get(1, field).unwrap_or(default);
    let uuid = match fields.get(1, "uuid") {
        Some(text) => uuid::Uuid::parse_str(text).map_err(|_| SmbiosError::BadUuid)?.into_bytes(),
        None => config.uuid.unwrap_or_default(),
    };
    let mut s = Structure::new(1, 0x100);
    s.text(get("manufacturer", MAKER)).text(get("product", &config.product)).text(get("version", &config.machine));
    s.text(get("serial", ""));
    // The first three fields are little-endian (7.2.1).
    for index in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
        s.u8(uuid[index]);
    }
    s.u8(6).text(get("sku", "")).text(get("family", "")); // woken by the power switch
    Ok(s)
}

/// Base board (7.3).
fn base_board(config: &SmbiosConfig, fields: &Fields) -> Structure {
    let get = |field, default| fields.get(2, field).unwrap_or(default);
    let mut s = Structure::new(2, 0x200);
    s.text(get("manufacturer", MAKER)).text(get("product", &config.product)).text(get("version", &config.machine));
    s.text(get("serial", "")).text(get("asset", "")).u8(1).text(get("location", "")).u16(0x300).u8(0x0a).u8(0);
    s
}

/// Enclosure (7.4).
fn chassis(config: &SmbiosConfig, fields: &Fields) -> Structure {
    let get = |field, default| fields.get(3, field).unwrap_or(default);
    let mut s = Structure::new(3, 0x300);
    s.text(get("manufacturer", MAKER)).u8(1).text(get("version", &config.machine)).text(get("serial", ""));
    s.text(get("asset", "")).u8(3).u8(3).u8(3).u8(2).u32(0).u8(0).u8(0).u8(0).u8(0).text(get("sku", ""));
    s
}

/// Processor (7.5).
fn processor(config: &SmbiosConfig, fields: &Fields, socket: u32) -> Result<Structure, SmbiosError> {
    let get = |field, default| fields.get(4, field).unwrap_or(default);
    let family = fields.number(4, "processor-family", 0xfe, 0xffff)?;
    let handle = 0x400u16.wrapping_add(u16::try_from(socket).unwrap_or(0));
    let mut s = Structure::new(4, handle);
    s.text(&format!("{}{socket:2x}", get("sock_pfx", "CPU"))).u8(3);
    s.u8(u8::try_from(family).unwrap_or(0xfe)).text(get("manufacturer", MAKER));
    let (eax, edx) = config.processors.signature;
    let id = u64::from(eax) | u64::from(edx) << 32;
    s.u64(fields.number(4, "processor-id", id, u64::MAX)?).text(get("version", &config.machine)).u8(0).u16(0);
    let max_speed = fields.number(4, "max-speed", 2000, 0xffff)?;
    let speed = fields.number(4, "current-speed", 2000, 0xffff)?;
    s.u16(u16::try_from(max_speed).unwrap_or(0)).u16(u16::try_from(speed).unwrap_or(0));
    s.u8(0x41).u8(1).u16(0xffff).u16(0xffff).u16(0xffff);
    s.text(get("serial", "")).text(get("asset", "")).text(get("part", ""));
    let count = |n: u32| u8::try_from(n).unwrap_or(0xff);
    let Processors { cores, threads, .. } = config.processors;
    s.u8(count(cores)).u8(count(cores)).u8(count(threads)).u16(2); // 64-bit status is unknown
    s.u16(u16::try_from(family).unwrap_or(0xfe));
    let wide = |n: u32| u16::try_from(n).unwrap_or(0xffff);
    s.u16(wide(cores)).u16(wide(cores)).u16(wide(threads));
    Ok(s)
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Port connector (7.9).
fn port_connector(fields: &[(String, String)], index: u16) -> Result<Structure, SmbiosError> {
    let number = |name: &str| match field(fields, name) {
        None => Ok(0),
        Some(text) => parse_number(text)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(|| SmbiosError::BadValue { field: name.to_owned(), expected: "a number" }),
    };
    let mut s = Structure::new(8, 0x800 + index);
    s.text(field(fields, "internal_reference").unwrap_or("")).u8(0);
    s.text(field(fields, "external_reference").unwrap_or("")).u8(number("connector_type")?).u8(number("port_type")?);
    Ok(s)
}

/// OEM strings (7.12).
fn oem_strings(fields: &[(String, String)]) -> Result<Structure, SmbiosError> {
    let mut s = Structure::new(11, 0xe00);
    let mut strings = Vec::new();
    for (key, value) in fields {
        if key == "path" {
            let bytes = std::fs::read(value).map_err(|_| SmbiosError::BadFile(value.into()))?;
            strings.push(String::from_utf8_lossy(&bytes).into_owned());
        } else {
            strings.push(value.clone());
        }
    }
    s.u8(u8::try_from(strings.len()).unwrap_or(u8::MAX));
    s.strings = strings.into_iter().map(|text| text.replace('\0', " ")).collect();
    Ok(s)
}

/// Memory array (7.17), devices of up to 16 GiB (7.18), mapped addresses (7.20).
fn memory(config: &SmbiosConfig, fields: &Fields, tables: &mut Tables) -> Result<(), SmbiosError> {
    const DEVICE: u64 = 16 << 30;
    let total: u64 = config.ram.iter().map(|(_, len)| len).sum();
    let devices = u16::try_from(total.div_ceil(DEVICE)).unwrap_or(u16::MAX);
    let kib = total / 1024;
    let mut s = Structure::new(16, 0x1000);
    s.u8(1).u8(3).u8(6); // other location, system memory, multi-bit ECC
    match u32::try_from(kib) {
        Ok(kib) if kib < 0x8000_0000 => s.u32(kib).u16(0xfffe).u16(devices).u64(0),
        _ => s.u32(0x8000_0000).u16(0xfffe).u16(devices).u64(total),
    };
    tables.push(s);
    let get = |field, default| fields.get(17, field).unwrap_or(default);
    let speed = u16::try_from(fields.number(17, "speed", 0, 0xffff)?).unwrap_or(0);
    for index in 0..devices {
        let size = (total - u64::from(index) * DEVICE).min(DEVICE);
        let mib = size >> 20;
        let mut s = Structure::new(17, 0x1100 + index);
        s.u16(0x1000).u16(0xfffe).u16(0xffff).u16(0xffff);
        let (short, extended) = if mib < 0x7fff { (u16::try_from(mib).unwrap_or(0), 0) } else { (0x7fff, mib) };
        s.u16(short).u8(9).u8(0).text(&format!("{} {index}", get("loc_pfx", "DIMM"))).text(get("bank", ""));
        s.u8(7).u16(2).u16(speed).text(get("manufacturer", MAKER)).text(get("serial", "")).text(get("asset", ""));
        s.text(get("part", "")).u8(0).u32(u32::try_from(extended).unwrap_or(0)).u16(speed).u16(0).u16(0).u16(0);
        tables.push(s);
    }
    for (index, (start, len)) in (0u16..).zip(&config.ram) {
        let (first, last) = (start / 1024, (start + len - 1) / 1024);
        let mut s = Structure::new(19, 0x1300 + index);
        match (u32::try_from(first), u32::try_from(last)) {
            (Ok(first), Ok(last)) if last < u32::MAX => s.u32(first).u32(last).u16(0x1000).u8(1).u64(0).u64(0),
            _ => s.u32(u32::MAX).u32(u32::MAX).u16(0x1000).u8(1).u64(*start).u64(start + len - 1),
        };
        tables.push(s);
    }
    Ok(())
}

/// The 2.1 entry point (5.2.1). The firmware puts the tables' address in.
fn entry_point(tables: &Tables) -> Vec<u8> {
    let mut anchor = Vec::from(*b"_SM_");
    anchor.extend_from_slice(&[0, 0x1f, 2, 8]);
    anchor.extend_from_slice(&tables.largest.to_le_bytes());
    anchor.extend_from_slice(&[0; 6]);
    anchor.extend_from_slice(b"_DMI_\0");
    anchor.extend_from_slice(&u16::try_from(tables.bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
    anchor.extend_from_slice(&0u32.to_le_bytes());
    anchor.extend_from_slice(&tables.count.to_le_bytes());
    anchor.push(0x28);
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
    anchor[21] = sum(&anchor[16..]);
    anchor[4] = sum(&anchor);
    anchor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[&[(&str, &str)]]) -> SmbiosConfig {
        let own = |list: &&[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        SmbiosConfig {
            product: "Standard PC (i440FX + PIIX, 1996)".into(),
            machine: "pc-i440fx-10.0".into(),
            uuid: None,
            processors: Processors { sockets: 2, cores: 1, threads: 1, signature: (0x663, 0x078b_fbfd) },
            ram: vec![(0, 128 << 20)],
            options: options.iter().map(own).collect(),
        }
    }

    /// (type, length of the formatted part, strings) of each structure.
    fn parse(tables: &[u8]) -> Vec<(u8, usize, Vec<String>)> {
        let mut structures = Vec::new();
        let mut at = 0;
        while at < tables.len() {
            let (kind, len) = (tables[at], usize::from(tables[at + 1]));
            at += len;
            let mut strings = Vec::new();
            while tables[at] != 0 {
                let end = at + tables[at..].iter().position(|b| *b == 0).unwrap();
                strings.push(String::from_utf8(tables[at..end].to_vec()).unwrap());
                at = end + 1;
            }
            at += if strings.is_empty() { 2 } else { 1 };
            structures.push((kind, len, strings));
        }
        structures
    }

    #[test]
    fn the_default_tables_are_those_of_a_pc() {
        let blobs = build(&config(&[])).unwrap();
        let structures = parse(&blobs.tables);
        let kinds: Vec<_> = structures.iter().map(|(kind, len, _)| (*kind, *len)).collect();
        let expected = [(1, 27), (3, 22), (4, 48), (4, 48), (16, 23), (17, 40), (19, 31), (32, 11), (127, 4)];
        assert_eq!(kinds, expected);
        assert_eq!(structures[0].2, ["QEMU", "Standard PC (i440FX + PIIX, 1996)", "pc-i440fx-10.0"]);
        assert_eq!(blobs.anchor.len(), 31);
        assert_eq!(blobs.anchor.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    }

    #[test]
    fn fields_of_the_command_line_are_used() {
        let blobs = build(&config(&[&[("type", "1"), ("serial", "X1")], &[("type", "0"), ("vendor", "V")]])).unwrap();
        let structures = parse(&blobs.tables);
        assert_eq!((structures[0].0, &structures[0].2[..]), (0, &["V".to_owned()][..]));
        assert_eq!(structures[1].2[3], "X1");
    }

    #[test]
    fn mistakes_have_qemus_texts() {
        let text = |options: &[(&str, &str)]| build(&config(&[options])).unwrap_err().to_string();
        assert_eq!(text(&[("foo", "1")]), "Must specify type= or file=");
        assert_eq!(text(&[("type", "99")]), "Don't know how to build fields for SMBIOS type 99");
        assert_eq!(text(&[("type", "1"), ("foo", "bar")]), "Invalid parameter 'foo'");
        assert_eq!(text(&[("type", "1"), ("uuid", "xx")]), "Invalid UUID");
        assert_eq!(text(&[("file", "/nonexist")]), "Cannot read SMBIOS file /nonexist");
    }
}
