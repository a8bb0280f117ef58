//! The qcow2 header, its extensions and the backing file's name (QEMU docs/interop/qcow2.rst, "Header").
//!
//! [`Header::parse`] is the one place that looks at raw header bytes; what it returns is in range.

use super::super::super::error::OpenError;

/// "QFI\xfb".
pub const MAGIC: u32 = 0x5146_49fb;
/// Bytes of a version 2 header.
pub const V2_BYTES: usize = 72;
/// Bytes of a version 3 header without optional fields.
const V3_BYTES: usize = 104;

const MAX_L1_BYTES: u64 = 32 << 20;
/// QEMU opens no larger table.
pub(super) const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65536;
const MAX_BACKING_NAME: u32 = 1023;

/// Incompatible feature bits.
pub mod incompatible {
    /// Refcounts may be wrong: the image was not closed.
    pub const DIRTY: u64 = 1;
    /// The image is damaged.
    pub const CORRUPT: u64 = 2;
    /// Data is in another file.
    pub const DATA_FILE: u64 = 4;
    /// The compression type field is in use.
    pub const COMPRESSION: u64 = 8;
    /// L2 entries have a subcluster bitmap.
    pub const EXTENDED_L2: u64 = 16;
    /// All that are known.
    pub const KNOWN: u64 = 31;
}

/// Compatible feature bits.
pub mod compatible {
    /// Refcounts may be written late.
    pub const LAZY_REFCOUNTS: u64 = 1;
}

/// Autoclear feature bits.
pub mod autoclear {
    /// The bitmaps extension is consistent.
    pub const BITMAPS: u64 = 1;
    /// The external data file is raw.
    pub const RAW_DATA: u64 = 2;
}

/// Header extension types.
pub mod extension {
    /// No more of them.
    pub const END: u32 = 0;
    /// Format of the backing file.
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    /// Names of feature bits.
    pub const FEATURE_NAMES: u32 = 0x6803_f857;
    /// Persistent dirty bitmaps.
    pub const BITMAPS: u32 = 0x2385_2875;
    /// Where the encryption header is.
    pub const ENCRYPTION: u32 = 0x0537_be77;
    /// Name of the external data file.
    pub const DATA_FILE: u32 = 0x4441_5441;
}

/// How compressed clusters are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// Raw deflate with a 12-bit window.
    #[default]
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// QEMU's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// A header extension that is kept as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// Its type.
    pub kind: u32,
    /// Its content.
    pub data: Vec<u8>,
}

/// A valid header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of the cluster size: 9 to 21.
    pub cluster_bits: u32,
    /// Virtual disk size in bytes.
    pub size: u64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: u32,
    /// Entries of the active L1 table.
    pub l1_size: u32,
    /// Where it is.
    pub l1_offset: u64,
    /// Where the refcount table is.
    pub refcount_table_offset: u64,
    /// Its length.
    pub refcount_table_clusters: u32,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Where their table is.
    pub snapshots_offset: u64,
    /// [`incompatible`].
    pub incompatible: u64,
    /// [`compatible`].
    pub compatible: u64,
    /// [`autoclear`].
    pub autoclear: u64,
    /// log2 of the width of a refcount in bits: 0 to 6.
    pub refcount_order: u32,
    /// Bytes of the header proper.
    pub header_length: u32,
    /// How compressed clusters are packed.
    pub compression: Compression,
    /// The backing file's name.
    pub backing_file: Option<String>,
    /// Its format.
    pub backing_format: Option<String>,
    /// The external data file's name.
    pub data_file: Option<String>,
    /// All other extensions, in order.
    pub extensions: Vec<Extension>,
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
    }

    fn text(&self, at: usize, len: usize) -> Option<String> {
        let bytes = self.0.get(at..at.checked_add(len)?)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

fn fail(text: impl Into<String>) -> OpenError {
    OpenError::Image(text.into())
}

/// log2 of the cluster size that a header claims, if it is one that could be valid: how much to read for
/// [`Header::parse`].
#[must_use]
pub fn claimed_cluster_bits(head: &[u8]) -> Option<u32> {
    let bits = Bytes(head).u32(20);
    (head.len() >= V2_BYTES && (9..=21).contains(&bits)).then_some(bits)
}

impl Header {
    /// Reads a header from the first cluster of a file (or all of a shorter file).
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn parse(head: &[u8]) -> Result<Self, OpenError> {
        let bytes = Bytes(head);
        if head.len() < 4 || bytes.u32(0) != MAGIC {
            return Err(OpenError::WrongFormat("qcow2"));
        }
        if head.len() < V2_BYTES {
            return Err(fail("qcow2 header too short"));
        }
        let version = bytes.u32(4);
        if !(2..=3).contains(&version) {
            return Err(fail(format!("Unsupported qcow2 version {version}")));
        }
        let cluster_bits = bytes.u32(20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(fail(format!("Unsupported cluster size: 2^{cluster_bits}")));
        }
        let mut header = Self {
            version,
            cluster_bits,
            size: bytes.u64(24),
            crypt_method: bytes.u32(32),
            l1_size: bytes.u32(36),
            l1_offset: bytes.u64(40),
            refcount_table_offset: bytes.u64(48),
            refcount_table_clusters: bytes.u32(56),
            snapshots: bytes.u32(60),
            snapshots_offset: bytes.u64(64),
            incompatible: 0,
            compatible: 0,
            autoclear: 0,
            refcount_order: 4,
            header_length: 72,
            compression: Compression::Zlib,
            backing_file: None,
            backing_format: None,
            data_file: None,
            extensions: Vec::new(),
        };
        if version >= 3 {
            header.parse_v3(&bytes)?;
        }
        if u64::from(header.header_length) > 1 << cluster_bits {
            return Err(fail("qcow2 header exceeds cluster size"));
        }
        header.parse_names(&bytes)?;
        header.check_features()?;
        header.check_tables()?;
        Ok(header)
    }

    fn parse_v3(&mut self, bytes: &Bytes<'_>) -> Result<(), OpenError> {
        self.incompatible = bytes.u64(72);
        self.compatible = bytes.u64(80);
        self.autoclear = bytes.u64(88);
        self.refcount_order = bytes.u32(96);
        self.header_length = bytes.u32(100);
        if (self.header_length as usize) < V3_BYTES || bytes.0.len() < V3_BYTES {
            return Err(fail("qcow2 header too short"));
        }
        let compression = if self.header_length > 104 { bytes.0.get(104).copied().unwrap_or(0) } else { 0 };
        self.compression = match compression {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => return Err(fail(format!("qcow2: unknown compression type: {other}"))),
        };
        let flagged = self.incompatible & incompatible::COMPRESSION != 0;
        if flagged != (compression != 0) {
            return Err(fail(if flagged {
                "qcow2: Compression type incompatible feature bit must not be set"
            } else {
                "qcow2: Compression type incompatible feature bit must be set"
            }));
        }
        Ok(())
    }

    /// The extensions, up to the backing file's name or the end of the cluster, and that name.
    fn parse_names(&mut self, bytes: &Bytes<'_>) -> Result<(), OpenError> {
        let cluster = 1_u64 << self.cluster_bits;
        let (name_at, name_len) = (bytes.u64(8), bytes.u32(16));
        if name_at > cluster {
            return Err(fail("Invalid backing file offset"));
        }
        let end = if name_at != 0 { name_at } else { cluster };
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let mut at = self.header_length as usize;
        while at + 8 <= end && at + 8 <= bytes.0.len() {
            let (kind, len) = (bytes.u32(at), bytes.u32(at + 4) as usize);
            at += 8;
            if kind == extension::END {
                break;
            }
            if len > end - at {
                return Err(fail("Header extension too large"));
            }
            let data = bytes.0.get(at..at + len).ok_or_else(|| fail("Header extension too large"))?;
            self.add_extension(kind, data)?;
            at += len.next_multiple_of(8);
        }
        if name_at != 0 && name_len != 0 {
            if name_len > MAX_BACKING_NAME || name_at + u64::from(name_len) > cluster {
                return Err(fail("Backing file name too long"));
            }
            let name_at = usize::try_from(name_at).unwrap_or(usize::MAX);
            self.backing_file = bytes.text(name_at, name_len as usize);
            if self.backing_file.is_none() {
                return Err(fail("Could not read backing file name"));
            }
        }
        Ok(())
    }

    fn add_extension(&mut self, kind: u32, data: &[u8]) -> Result<(), OpenError> {
        let text = || String::from_utf8_lossy(data).into_owned();
        match kind {
            extension::BACKING_FORMAT if data.len() >= 16 => {
                return Err(fail(format!("ERROR: ext_backing_format: len={} too large (>=16)", data.len())));
            }
            extension::BACKING_FORMAT => self.backing_format = Some(text()),
            extension::DATA_FILE => self.data_file = Some(text()),
            _ => self.extensions.push(Extension { kind, data: data.to_vec() }),
        }
        Ok(())
    }

    /// QEMU's names of incompatible bits that nobody knows, from the image's own table.
    fn unknown_feature_names(&self, unknown: u64) -> String {
        let table = self.extensions.iter().find(|e| e.kind == extension::FEATURE_NAMES);
        let mut rest = unknown;
        let mut names = Vec::new();
        for entry in table.map_or(&[][..], |e| &e.data).chunks_exact(48) {
            let bit = 1_u64.checked_shl(u32::from(entry[1])).unwrap_or(0);
            if entry[0] == 0 && rest & bit != 0 {
                let text = String::from_utf8_lossy(&entry[2..]);
                names.push(text.trim_end_matches('\0').to_owned());
                rest &= !bit;
            }
        }
        if rest != 0 {
            names.push(format!("Unknown incompatible feature: {rest:x}"));
        }
        names.join(", ")
    }

    fn check_features(&self) -> Result<(), OpenError> {
        let unknown = self.incompatible & !incompatible::KNOWN;
        if unknown != 0 {
            return Err(fail(format!("Unsupported qcow2 feature(s): {}", self.unknown_feature_names(unknown))));
        }
        if self.refcount_order > 6 {
            return Err(fail("Reference count entry width too large; may not exceed 64 bits"));
        }
        if self.crypt_method > 2 {
            return Err(fail(format!("Unsupported encryption method {}", self.crypt_method)));
        }
        if self.extended_l2() && self.cluster_bits < 14 {
            return Err(fail("Unsupported cluster size: extended L2 entries need at least 16 KiB"));
        }
        Ok(())
    }

    fn check_tables(&self) -> Result<(), OpenError> {
        let cluster = 1_u64 << self.cluster_bits;
        let table = |name: &str, offset: u64, bytes: u64, limit: u64| {
            if bytes > limit {
                return Err(fail(format!("{name} too large")));
            }
            let fits = offset.checked_add(bytes).is_some_and(|end| end <= i64::MAX as u64);
            if !fits || !offset.is_multiple_of(cluster) {
                return Err(fail(format!("{name} offset invalid")));
            }
            Ok(())
        };
        if self.refcount_table_clusters == 0 {
            return Err(fail("Image does not contain a reference count table"));
        }
        let refcount_bytes = u64::from(self.refcount_table_clusters) * cluster;
        table("Reference count table", self.refcount_table_offset, refcount_bytes, MAX_REFCOUNT_TABLE_BYTES)?;
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(fail("Snapshot table too large"));
        }
        table("Snapshot table", self.snapshots_offset, 0, 0)?;
        table("Active L1 table", self.l1_offset, u64::from(self.l1_size) * 8, MAX_L1_BYTES)?;
        match self.l1_entries_needed(self.size) {
            Some(needed) if u64::from(needed) * 8 <= MAX_L1_BYTES => {
                if self.l1_size < needed {
                    return Err(fail("L1 table is too small"));
                }
                Ok(())
            }
            _ => Err(fail("Image is too big")),
        }
    }

    /// L1 entries that a disk of `size` bytes takes; `None` if it cannot be.
    #[must_use]
    pub fn l1_entries_needed(&self, size: u64) -> Option<u32> {
        let covered = 1_u64 << (self.cluster_bits + self.l2_bits());
        u32::try_from(size.div_ceil(covered)).ok().filter(|_| size <= i64::MAX as u64)
    }

    /// Whether L2 entries have subcluster bitmaps.
    #[must_use]
    pub fn extended_l2(&self) -> bool {
        self.incompatible & incompatible::EXTENDED_L2 != 0
    }

    /// log2 of the entries of an L2 table.
    #[must_use]
    pub fn l2_bits(&self) -> u32 {
        self.cluster_bits - if self.extended_l2() { 4 } else { 3 }
    }

    /// The first cluster as bytes, header, extensions and backing file name; `None` if it does not fit. The names of
    /// features go first when room is short.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let whole = self.encode_all();
        if whole.is_some() || !self.extensions.iter().any(|known| known.kind == extension::FEATURE_NAMES) {
            return whole;
        }
        let mut less = self.clone();
        less.extensions.retain(|known| known.kind != extension::FEATURE_NAMES);
        less.encode_all()
    }

    fn encode_all(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(512);
        for word in [MAGIC, self.version] {
            out.extend(word.to_be_bytes());
        }
        out.extend([0; 12]); // the backing file's name is placed below
        out.extend(self.cluster_bits.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.extend(self.crypt_method.to_be_bytes());
        out.extend(self.l1_size.to_be_bytes());
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.refcount_table_offset.to_be_bytes());
        out.extend(self.refcount_table_clusters.to_be_bytes());
        out.extend(self.snapshots.to_be_bytes());
        out.extend(self.snapshots_offset.to_be_bytes());
        if self.version >= 3 {
            for word in [self.incompatible, self.compatible, self.autoclear] {
                out.extend(word.to_be_bytes());
            }
            out.extend(self.refcount_order.to_be_bytes());
            out.extend(112_u32.to_be_bytes());
            out.push(u8::from(self.compression == Compression::Zstd));
            out.extend([0; 7]);
        }
        let mut extend = |kind: u32, data: &[u8]| {
            out.extend(kind.to_be_bytes());
            out.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
            out.extend(data);
            out.resize(out.len().next_multiple_of(8), 0);
        };
        if let Some(format) = &self.backing_format {
            extend(extension::BACKING_FORMAT, format.as_bytes());
        }
        if let Some(name) = &self.data_file {
            extend(extension::DATA_FILE, name.as_bytes());
        }
        for known in &self.extensions {
            extend(known.kind, &known.data);
        }
        extend(extension::END, &[]);
        if let Some(name) = &self.backing_file {
            let at = out.len() as u64;
            out[8..16].copy_from_slice(&at.to_be_bytes());
            out[16..20].copy_from_slice(&u32::try_from(name.len()).ok()?.to_be_bytes());
            out.extend(name.as_bytes());
        }
        (out.len() as u64 <= 1 << self.cluster_bits).then_some(out)
    }
}

/// The feature name table that QEMU writes, so that older programs can say what they lack.
#[must_use]
pub fn feature_names() -> Extension {
    let names: [(u8, u8, &str); 8] = [
        (0, 0, "dirty bit"),
        (0, 1, "corrupt bit"),
        (0, 2, "external data file"),
        (0, 3, "compression type"),
        (0, 4, "extended L2 entries"),
        (1, 0, "lazy refcounts"),
        (2, 0, "bitmaps"),
        (2, 1, "raw external data"),
    ];
    let mut data = Vec::with_capacity(48 * names.len());
    for (kind, bit, name) in names {
        data.extend([kind, bit]);
        data.extend(name.as_bytes());
        data.resize(data.len().next_multiple_of(48), 0);
    }
    Extension { kind: extension::FEATURE_NAMES, data }
}
