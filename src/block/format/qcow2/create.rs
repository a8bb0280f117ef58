//! Makes empty images, laid out as QEMU does: header, refcount table, first refcount block, L1 table.

use super::crypt::Encryption;
use super::header::{Compression, Extension, Header, autoclear, compatible, extension, feature_names, incompatible};
use crate::block::error::OpenError;
use crate::block::node::{BlockNode, IoResult};

/// What an image is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateOptions {
    /// Virtual size in bytes, a multiple of 512.
    pub size: u64,
    /// 2 or 3.
    pub version: u32,
    /// Bytes of a cluster, a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// Bits of a refcount, a power of two up to 64.
    pub refcount_bits: u32,
    /// `lazy_refcounts`.
    pub lazy_refcounts: bool,
    /// `extended_l2`.
    pub extended_l2: bool,
    /// `compression_type`.
    pub compression: Compression,
    /// Name and format of the backing file.
    pub backing: Option<(String, Option<String>)>,
    /// Name of the external data file.
    pub data_file: Option<String>,
    /// It is a raw image by itself.
    pub data_file_raw: bool,
    /// `encrypt.format` and what it takes.
    pub encryption: Option<Encryption>,
}

impl CreateOptions {
    /// QEMU's defaults.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            version: 3,
            cluster_size: 65536,
            refcount_bits: 16,
            lazy_refcounts: false,
            extended_l2: false,
            compression: Compression::Zlib,
            backing: None,
            data_file: None,
            data_file_raw: false,
            encryption: None,
        }
    }

    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn validate(&self) -> Result<(), OpenError> {
        let invalid = |text: &str| Err(OpenError::Invalid(text.to_owned()));
        if !self.cluster_size.is_power_of_two() || !(512..=2 << 20).contains(&self.cluster_size) {
            return invalid("Cluster size must be a power of two between 512 and 2048k");
        }
        if self.extended_l2 && self.cluster_size < 16384 {
            return invalid("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return invalid("Refcount width must be a power of two and may not exceed 64 bits");
        }
        if self.version < 3 {
            if self.refcount_bits != 16 {
                return invalid(
                    "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 \
                     or greater)",
                );
            }
            if self.lazy_refcounts {
                return invalid(
                    "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
                );
            }
            if self.extended_l2 {
                return invalid(
                    "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or \
                     greater)",
                );
            }
            if self.compression != Compression::Zlib {
                return invalid(
                    "Non-zlib compression type is only supported with compatibility level 1.1 and above (use \
                     version=v3 or greater)",
                );
            }
        }
        if self.data_file_raw && self.data_file.is_none() {
            return invalid("data-file-raw requires data-file");
        }
        if self.data_file_raw && self.backing.is_some() {
            return invalid("Backing file and data-file-raw cannot be used at the same time");
        }
        if self.data_file.is_some() && self.version < 3 {
            return invalid(
                "External data files are only supported with compatibility level 1.1 and above (use version=v3 or \
                 greater)",
            );
        }
        if self.backing.as_ref().is_some_and(|(name, _)| name.len() > 1023) {
            return invalid("Backing file name is too long");
        }
        Ok(())
    }

    pub(super) fn header(&self) -> Header {
        let cluster_bits = self.cluster_size.trailing_zeros();
        let mut incompatible_bits = 0;
        if self.compression != Compression::Zlib {
            incompatible_bits |= incompatible::COMPRESSION;
        }
        if self.data_file.is_some() {
            incompatible_bits |= incompatible::DATA_FILE;
        }
        if self.extended_l2 {
            incompatible_bits |= incompatible::EXTENDED_L2;
        }
        let (backing_file, backing_format) = match &self.backing {
            Some((name, format)) => (Some(name.clone()), format.clone()),
            None => (None, None),
        };
        Header {
            version: self.version,
            cluster_bits,
            size: self.size,
            crypt_method: match &self.encryption {
                None => 0,
                Some(Encryption::Aes) => 1,
                Some(Encryption::Luks { .. }) => 2,
            },
            l1_size: 0,
            l1_offset: 3 << cluster_bits,
            refcount_table_offset: 1 << cluster_bits,
            refcount_table_clusters: 1,
            snapshots: 0,
            snapshots_offset: 0,
            incompatible: incompatible_bits,
            compatible: if self.lazy_refcounts { compatible::LAZY_REFCOUNTS } else { 0 },
            autoclear: if self.data_file_raw { autoclear::RAW_DATA } else { 0 },
            refcount_order: self.refcount_bits.trailing_zeros(),
            header_length: if self.version >= 3 { 112 } else { 72 },
            compression: self.compression,
            backing_file,
            backing_format,
            data_file: self.data_file.clone(),
            extensions: if self.version >= 3 { vec![feature_names()] } else { Vec::new() },
        }
    }
}

/// Writes an empty image to an empty file.
///
/// # Errors
/// The options contradict each other, the size is too large, or the host fails.
pub fn create(file: &dyn BlockNode, options: &CreateOptions) -> Result<(), OpenError> {
    options.validate()?;
    let mut header = options.header();
    let too_big = || OpenError::Invalid("Image is too big".to_owned());
    let needed = header.l1_entries_needed(options.size).filter(|n| *n <= 4 << 20).ok_or_else(too_big)?;
    header.l1_size = needed;
    let encryption_bytes = options.encryption.as_ref().map_or(0, Encryption::header_bytes);
    let layout = Layout::of(&header, encryption_bytes);
    header.l1_offset = layout.l1 << header.cluster_bits;
    header.refcount_table_clusters = u32::try_from(layout.table_clusters).map_err(|_| too_big())?;
    let encryption = layout.l1 + layout.l1_clusters;
    let luks = match &options.encryption {
        Some(Encryption::Luks { volume, password }) => Some(volume.make(password)?.0),
        _ => None,
    };
    if let Some(luks) = &luks {
        let mut data = (encryption << header.cluster_bits).to_be_bytes().to_vec();
        data.extend((luks.len() as u64).to_be_bytes());
        header.extensions.push(Extension { kind: extension::ENCRYPTION, data });
    }
    let first = header
        .encode()
        .ok_or_else(|| OpenError::Invalid("Could not write backing file name: it does not fit".to_owned()))?;
    let failed = || OpenError::io("Could not write qcow2 metadata");
    if let Some(mut luks) = luks {
        luks.resize(luks.len().next_multiple_of(1 << header.cluster_bits), 0);
        file.write_at(encryption << header.cluster_bits, &luks, false).map_err(failed())?;
    }
    layout.write(file, &header, &first).map_err(failed())
}

/// Where the first tables are, in clusters.
struct Layout {
    table_clusters: u64,
    blocks: u64,
    l1: u64,
    l1_clusters: u64,
    /// Of the encryption header, behind everything else.
    encryption_clusters: u64,
}

impl Layout {
    /// As few refcount blocks as count themselves and all tables.
    fn of(header: &Header, encryption_bytes: u64) -> Self {
        let cluster = 1_u64 << header.cluster_bits;
        let per_block = (cluster * 8) >> header.refcount_order;
        let l1_clusters = (u64::from(header.l1_size) * 8).div_ceil(cluster);
        let encryption_clusters = encryption_bytes.div_ceil(cluster);
        let (mut blocks, mut table_clusters) = (1_u64, 1_u64);
        loop {
            let used = 1 + table_clusters + blocks + l1_clusters + encryption_clusters;
            let (need_blocks, need_table) = (used.div_ceil(per_block), (blocks * 8).div_ceil(cluster));
            if need_blocks <= blocks && need_table <= table_clusters {
                break;
            }
            (blocks, table_clusters) = (need_blocks.max(blocks), need_table.max(table_clusters));
        }
        Self { table_clusters, blocks, l1: 1 + table_clusters + blocks, l1_clusters, encryption_clusters }
    }

    fn write(&self, file: &dyn BlockNode, header: &Header, first: &[u8]) -> IoResult<()> {
        let bits = header.cluster_bits;
        let cluster = 1_u64 << bits;
        let used = self.l1 + self.l1_clusters + self.encryption_clusters;
        let first_block = 1 + self.table_clusters;
        let mut table = Vec::new();
        for block in 0..self.blocks {
            table.extend(((first_block + block) << bits).to_be_bytes());
        }
        table.resize(usize::try_from(self.table_clusters * cluster).unwrap_or(0), 0);
        let mut counts = vec![0_u8; usize::try_from(self.blocks * cluster).unwrap_or(0)];
        for index in 0..usize::try_from(used).unwrap_or(0) {
            set_one(&mut counts, header.refcount_order, index);
        }
        file.write_at(first_block << bits, &counts, false)?;
        file.write_at(cluster, &table, false)?;
        let l1_bytes = u64::from(header.l1_size) * 8;
        if l1_bytes > 0 {
            file.write_at(self.l1 << bits, &vec![0; usize::try_from(l1_bytes).unwrap_or(0)], false)?;
        }
        let mut head = first.to_vec();
        head.resize(usize::try_from(cluster).unwrap_or(0), 0);
        file.write_at(0, &head, false)
    }
}

/// Sets a count of 1 in an array of counts that were 0.
fn set_one(counts: &mut [u8], order: u32, index: usize) {
    if order >= 3 {
        let width = 1 << (order - 3);
        counts[index * width + width - 1] = 1;
    } else {
        let bit = index << order;
        counts[bit / 8] |= 1 << (bit % 8);
    }
}
