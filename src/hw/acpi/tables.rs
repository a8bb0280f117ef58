//! The tables and how they are linked.

use super::dsdt;
use super::loader::{Script, Zone};

/// What the tables describe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcpiConfig {
    /// APIC id of each possible CPU, and whether it is there at start.
    pub cpus: Vec<(u32, bool)>,
    /// An HPET at FED00000h.
    pub hpet: bool,
    /// Port and IRQ of each serial port.
    pub serial_ports: Vec<(u16, u8)>,
    /// Port and IRQ of each parallel port.
    pub parallel_ports: Vec<(u16, u8)>,
    /// The chipset.
    pub chipset: AcpiChipset,
    /// First and last address of each piece of PCI memory below 4 GiB.
    pub pci_holes: Vec<(u32, u32)>,
    /// First and last address for PCI memory above RAM.
    pub pci_hole_64: Option<(u64, u64)>,
    /// Suspend to RAM is offered.
    pub s3: bool,
    /// The sleep type of suspend to disk, if that is offered.
    pub s4: Option<u8>,
    /// There is an 8042 (FADT boot architecture flags).
    pub i8042: bool,
    /// `-acpitable`: whole tables, header included.
    pub extra: Vec<ExtraTable>,
    /// `-machine x-oem-id=`, padded with spaces.
    pub oem_id: [u8; 6],
    /// `-machine x-oem-table-id=`, padded with spaces.
    pub oem_table_id: [u8; 8],
}

/// What of the tables depends on the chipset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcpiChipset {
    /// PIIX3 with PIIX4's power management.
    Piix,
    /// ICH9, with the memory window on configuration space at this address; 0 without.
    Ich9 {
        /// The window's address.
        ecam: u64,
    },
}

/// Length of the memory window on configuration space: 256 buses.
pub const ECAM_LEN: u32 = 256 << 20;

/// A table of the user's, header included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtraTable(pub Vec<u8>);

/// The fw_cfg files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcpiBlobs {
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/table-loader`.
    pub loader: Vec<u8>,
}

const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";

/// The local and I/O APIC.
const LAPIC_BASE: u32 = 0xfee0_0000;
const IOAPIC_BASE: u32 = 0xfec0_0000;
/// PIIX4's power management ports as the firmware places them (82371AB 7.2).
const PM_BASE: u16 = 0x600;
const GPE0_BASE: u16 = 0xafe0;
/// The same of the ICH9 (13.8.3).
const ICH9_GPE0_BASE: u16 = PM_BASE + 0x20;
/// The system control interrupt.
const SCI: u8 = 9;

struct Builder<'a> {
    config: &'a AcpiConfig,
    tables: Vec<u8>,
    script: Script,
    /// Offsets of the tables that the root table lists.
    listed: Vec<u32>,
}

impl Builder<'_> {
    fn offset(&self) -> u32 {
        u32::try_from(self.tables.len()).expect("the tables are far smaller than 4 GiB")
    }

    /// Appends a table with the standard header (ACPI 5.2.6) and returns its offset.
    fn table(&mut self, signature: &[u8; 4], revision: u8, body: &[u8]) -> u32 {
        while !self.tables.len().is_multiple_of(8) {
            self.tables.push(0);
        }
        let at = self.offset();
        let len = u32::try_from(36 + body.len()).expect("a table is far smaller than 4 GiB");
        self.tables.extend_from_slice(signature);
        self.tables.extend_from_slice(&len.to_le_bytes());
        self.tables.extend_from_slice(&[revision, 0]);
        self.tables.extend_from_slice(&self.config.oem_id);
        self.tables.extend_from_slice(&self.config.oem_table_id);
        self.tables.extend_from_slice(&1u32.to_le_bytes());
        self.tables.extend_from_slice(b"DROM");
        self.tables.extend_from_slice(&1u32.to_le_bytes());
        self.tables.extend_from_slice(body);
        self.script.checksum(TABLES, at + 9, at, len);
        at
    }

    fn listed_table(&mut self, signature: &[u8; 4], revision: u8, body: &[u8]) -> u32 {
        let at = self.table(signature, revision, body);
        self.listed.push(at);
        at
    }

    /// A pointer to offset `value` of the tables, at `offset` of them. Its checksum must be made afterwards.
    fn pointer(&mut self, offset: u32, value: u32) {
        let at = offset as usize;
        self.tables[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self.script.add_pointer(TABLES, TABLES, offset, 4);
    }
}

/// Builds all tables.
#[must_use]
pub fn build(config: &AcpiConfig) -> AcpiBlobs {
    let mut script = Script::default();
    script.allocate(RSDP, 16, Zone::FSegment);
    script.allocate(TABLES, 64, Zone::High);
    let mut builder = Builder { config, tables: Vec::new(), script, listed: Vec::new() };
    let facs = builder.offset();
    builder.tables.extend_from_slice(&facs_bytes());
    let dsdt = builder.table(b"DSDT", 1, &dsdt::body(config));
    fadt(&mut builder, facs, dsdt);
    let madt = madt_body(config);
    builder.listed_table(b"APIC", 3, &madt);
    if config.hpet {
        builder.listed_table(b"HPET", 1, &hpet_body());
    }
    if let AcpiChipset::Ich9 { ecam } = config.chipset
        && ecam != 0
    {
        builder.listed_table(b"MCFG", 1, &mcfg_body(ecam));
    }
    // Windows: the RTC and the PM timer need no workarounds (Windows ACPI Emulated Devices Table).
    builder.listed_table(b"WAET", 1, &2u32.to_le_bytes());
    for ExtraTable(bytes) in &config.extra {
        while !builder.tables.len().is_multiple_of(8) {
            builder.tables.push(0);
        }
        let at = builder.offset();
        builder.tables.extend_from_slice(bytes);
        builder.listed.push(at);
        builder.script.checksum(TABLES, at + 9, at, u32::try_from(bytes.len()).unwrap_or(0));
    }
    let rsdt = rsdt(&mut builder);
    let rsdp = rsdp(&mut builder.script, rsdt);
    AcpiBlobs { tables: builder.tables, rsdp, loader: builder.script.finish() }
}

/// Firmware ACPI control structure (ACPI 5.2.10).
fn facs_bytes() -> [u8; 64] {
    let mut facs = [0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4..8].copy_from_slice(&64u32.to_le_bytes());
    facs
}

/// Fixed description table, revision 3 (ACPI 5.2.9). Offsets are those of the table.
fn fadt(builder: &mut Builder<'_>, facs: u32, dsdt: u32) {
    let config = builder.config;
    let mut table = [0u8; 244];
    let mut put = |at: usize, bytes: &[u8]| table[at..at + bytes.len()].copy_from_slice(bytes);
    put(44, &[1]); // interrupt model of ACPI 1.0
    put(46, &u16::from(SCI).to_le_bytes());
    put(48, &0xb2u32.to_le_bytes()); // SMI command port
    // ACPI enable and disable values
    put(52, if config.chipset == AcpiChipset::Piix { &[0xf1, 0xf0] } else { &[2, 3] });
    put(56, &u32::from(PM_BASE).to_le_bytes());
    put(64, &u32::from(PM_BASE + 4).to_le_bytes());
    put(76, &u32::from(PM_BASE + 8).to_le_bytes());
    let (gpe0, gpe0_len) = match config.chipset {
        AcpiChipset::Piix => (GPE0_BASE, 4),
        AcpiChipset::Ich9 { .. } => (ICH9_GPE0_BASE, 16),
    };
    put(80, &u32::from(gpe0).to_le_bytes());
    put(88, &[4, 2, 0, 4, gpe0_len]); // lengths of PM1 event, control, PM2, timer, GPE0
    put(96, &0xfffu16.to_le_bytes()); // no C2
    put(98, &0xfffu16.to_le_bytes()); // no C3
    put(108, &[0x32]); // the RTC's century register
    let boot_architecture = 1 | u16::from(config.i8042) << 1;
    put(109, &boot_architecture.to_le_bytes());
    // WBINVD works, C1 on all CPUs, no sleep button, RTC wakes from S4, reset register.
    let mut flags = 1u32 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 10;
    if config.cpus.len() > 8 {
        flags |= 1 << 18; // logical destination mode cannot reach them all
    }
    put(112, &flags.to_le_bytes());
    let port = |width: u8, access: u8, address: u16| {
        let mut gas = [1, width, 0, access, 0, 0, 0, 0, 0, 0, 0, 0];
        gas[4..6].copy_from_slice(&address.to_le_bytes());
        gas
    };
    put(116, &port(8, 1, 0xcf9));
    put(128, &[0x0f]); // full reset (82371SB 2.5.7)
    put(148, &port(32, 2, PM_BASE));
    put(172, &port(16, 2, PM_BASE + 4));
    put(208, &port(32, 3, PM_BASE + 8));
    put(220, &port(gpe0_len * 8, 1, gpe0));
    let at = builder.listed_table(b"FACP", 3, &table[36..]);
    builder.pointer(at + 36, facs);
    builder.pointer(at + 40, dsdt);
    // The pointers changed the sum: make it again.
    builder.script.checksum(TABLES, at + 9, at, 244);
}

/// Multiple APIC description table (ACPI 5.2.12).
fn madt_body(config: &AcpiConfig) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&LAPIC_BASE.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes()); // there is also a pair of 8259s
    let mut x2apic = false;
    for (uid, (apic_id, enabled)) in (0u32..).zip(&config.cpus) {
        let flags = u32::from(*enabled);
        if let (Ok(id @ 0..=254), Ok(uid)) = (u8::try_from(*apic_id), u8::try_from(uid)) {
            body.extend_from_slice(&[0, 8, uid, id]);
            body.extend_from_slice(&flags.to_le_bytes());
        } else {
            x2apic = true;
            body.extend_from_slice(&[9, 16, 0, 0]);
            for word in [*apic_id, flags, uid] {
                body.extend_from_slice(&word.to_le_bytes());
            }
        }
    }
    body.extend_from_slice(&[1, 12, 0, 0]);
    body.extend_from_slice(&IOAPIC_BASE.to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    let mut overrides = |source: u8, gsi: u32, flags: u16| {
        body.extend_from_slice(&[2, 10, 0, source]);
        body.extend_from_slice(&gsi.to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
    };
    overrides(0, 2, 0);
    for irq in [5, 9, 10, 11] {
        overrides(irq, u32::from(irq), 0xd); // active high, level: PCI links and the SCI
    }
    if x2apic {
        body.extend_from_slice(&[0xa, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    } else {
        body.extend_from_slice(&[4, 6, 0xff, 0, 0, 1]); // LINT1 of every CPU is NMI
    }
    body
}

/// Memory-mapped configuration space (PCI Firmware 3.0, 4.1.2): segment 0, buses 0-255.
fn mcfg_body(ecam: u64) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(&ecam.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, 255, 0, 0, 0, 0]);
    body
}

/// IA-PC HPET 1.0a, 3.2.4: the block at FED00000h.
fn hpet_body() -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&0x8086_a201u32.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, 0]);
    body.extend_from_slice(&0xfed0_0000u64.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, 0]);
    body
}

fn rsdt(builder: &mut Builder<'_>) -> u32 {
    let listed = std::mem::take(&mut builder.listed);
    let at = builder.table(b"RSDT", 1, &vec![0; 4 * listed.len()]);
    for (index, target) in (0u32..).zip(&listed) {
        builder.pointer(at + 36 + 4 * index, *target);
    }
    let len = 36 + 4 * u32::try_from(listed.len()).unwrap_or(0);
    builder.script.checksum(TABLES, at + 9, at, len);
    at
}

/// Root pointer, revision 0 (ACPI 5.2.5).
fn rsdp(script: &mut Script, rsdt: u32) -> Vec<u8> {
    let mut rsdp = Vec::new();
    rsdp.extend_from_slice(b"RSD PTR \0DROMAI\0");
    rsdp.extend_from_slice(&rsdt.to_le_bytes());
    script.add_pointer(RSDP, TABLES, 16, 4);
    script.checksum(RSDP, 8, 0, 20);
    rsdp
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AcpiConfig {
        AcpiConfig {
            cpus: vec![(0, true), (1, true), (2, false)],
            hpet: true,
            serial_ports: vec![(0x3f8, 4)],
            parallel_ports: vec![(0x378, 7)],
            chipset: AcpiChipset::Piix,
            pci_holes: vec![(0x0800_0000, 0xfebf_ffff)],
            pci_hole_64: None,
            s3: true,
            s4: Some(2),
            i8042: true,
            extra: vec![],
            oem_id: *b"DROMAI",
            oem_table_id: *b"DROMAIUS",
        }
    }

    /// Follows the script as firmware does, with the blobs at these addresses.
    fn follow(blobs: &AcpiBlobs, tables_at: u32, rsdp_at: u32) -> (Vec<u8>, Vec<u8>) {
        let (mut tables, mut rsdp) = (blobs.tables.clone(), blobs.rsdp.clone());
        for record in blobs.loader.chunks(128) {
            let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
            let name = |at: usize| String::from_utf8(record[at..at + 56].to_vec()).unwrap();
            let is_rsdp = |at: usize| name(at).starts_with(RSDP);
            match word(0) {
                2 => {
                    let address = if is_rsdp(60) { rsdp_at } else { tables_at };
                    let blob = if is_rsdp(4) { &mut rsdp } else { &mut tables };
                    let at = word(116) as usize;
                    let value = u32::from_le_bytes(blob[at..at + 4].try_into().unwrap()) + address;
                    blob[at..at + 4].copy_from_slice(&value.to_le_bytes());
                }
                3 => {
                    let blob = if is_rsdp(4) { &mut rsdp } else { &mut tables };
                    let (at, start, len) = (word(60) as usize, word(64) as usize, word(68) as usize);
                    let sum = blob[start..start + len].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
                    blob[at] = blob[at].wrapping_sub(sum);
                }
                _ => {}
            }
        }
        (tables, rsdp)
    }

    #[test]
    fn every_listed_table_is_linked_and_sums_to_zero() {
        let blobs = build(&config());
        let base = 0x7f0_0000;
        let (tables, rsdp) = follow(&blobs, base, 0xf_5a00);
        assert_eq!(rsdp[..20].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
        let word = |at: usize| u32::from_le_bytes(tables[at..at + 4].try_into().unwrap());
        let rsdt = (u32::from_le_bytes(rsdp[16..20].try_into().unwrap()) - base) as usize;
        assert_eq!(&tables[rsdt..rsdt + 4], b"RSDT");
        let count = (word(rsdt + 4) as usize - 36) / 4;
        let mut signatures = Vec::new();
        for index in 0..count {
            let at = (word(rsdt + 36 + 4 * index) - base) as usize;
            let len = word(at + 4) as usize;
            signatures.push(String::from_utf8(tables[at..at + 4].to_vec()).unwrap());
            assert_eq!(tables[at..at + len].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0, "{signatures:?}");
        }
        assert_eq!(signatures, ["FACP", "APIC", "HPET", "WAET"]);
    }

    #[test]
    fn ich9_has_a_window_on_configuration_space() {
        let ich9 = AcpiConfig { chipset: AcpiChipset::Ich9 { ecam: 0xb000_0000 }, ..config() };
        let (tables, _) = follow(&build(&ich9), 0x7f0_0000, 0xf_5a00);
        let at = tables.windows(4).position(|name| name == b"MCFG").unwrap();
        assert_eq!(tables[at + 4..at + 8], 60u32.to_le_bytes());
        assert_eq!(tables[at + 44..at + 52], 0xb000_0000u64.to_le_bytes());
        let fadt = tables.windows(4).position(|name| name == b"FACP").unwrap();
        assert_eq!(tables[fadt + 80..fadt + 84], 0x620u32.to_le_bytes());
        let without = AcpiConfig { chipset: AcpiChipset::Ich9 { ecam: 0 }, ..config() };
        assert!(!build(&without).tables.windows(4).any(|name| name == b"MCFG"));
    }

    #[test]
    fn the_madt_lists_possible_cpus_as_disabled() {
        let body = madt_body(&config());
        assert_eq!(body[8..16], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(body[24..32], [0, 8, 2, 2, 0, 0, 0, 0]);
    }
}
