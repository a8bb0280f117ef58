//! `qed`: QEMU's enhanced disk (QEMU docs/interop/qed_spec.rst).
//!
//! A header, one L1 table, L2 tables and clusters. Data and tables reach the disk before what points at them, so the
//! "need check" bit is never set here; an image that has it set is checked and repaired before it is written to.

use std::io;
use std::sync::Arc;

use super::blocks::levels::{Levels, Shape};
use super::blocks::parts::{Space, corrupt, head, inside, le32, le64, no_preallocation, set, while_creating};
use super::blocks::{Blocks, Map, Parts, Place};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{CheckReport, Details, Repair};
use crate::block::keys::{self, Keys};
use crate::block::node::{BlockNode, IoResult};

const MAGIC: &[u8; 4] = b"QED\0";
/// An L2 entry: zeros.
const ZERO_CLUSTER: u64 = 1;
/// Images with more clusters in the file are not checked: 128 MiB of notes.
const MAX_CHECKED_CLUSTERS: u64 = 1 << 30;

/// Bits of `features`.
mod feature {
    pub(super) const BACKING_FILE: u64 = 1;
    pub(super) const NEED_CHECK: u64 = 2;
    pub(super) const BACKING_RAW: u64 = 4;
    pub(super) const KNOWN: u64 = 7;
}

/// Offset of `features`.
const FEATURES: u64 = 16;
/// Offset of `image_size`.
const IMAGE_SIZE: u64 = 48;

/// The header, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Header {
    cluster: u64,
    table: u64,
    features: u64,
    autoclear: u64,
    l1: u64,
    size: u64,
    header: u64,
    backing: Option<String>,
}

fn cluster_is_valid(cluster: u64) -> bool {
    cluster.is_power_of_two() && (4096..=64 << 20).contains(&cluster)
}

fn table_is_valid(table: u64) -> bool {
    table.is_power_of_two() && (1..=16).contains(&table)
}

/// The longest disk of these sizes; `None`: longer than a file can be.
fn max_size(cluster: u64, table: u64) -> Option<u64> {
    let entries = cluster * table / 8;
    entries.checked_mul(entries)?.checked_mul(cluster).filter(|size| i64::try_from(*size).is_ok())
}

impl Header {
    fn read(file: &dyn BlockNode) -> Result<Self, OpenError> {
        let bad = |text: &str| Err(OpenError::Image(text.to_owned()));
        let head = head::<64>(file)?;
        if !head.starts_with(MAGIC) {
            return bad("Image not in QED format");
        }
        let header = Self {
            cluster: le32(&head, 4).into(),
            table: le32(&head, 8).into(),
            header: le32(&head, 12).into(),
            features: le64(&head, 16),
            autoclear: le64(&head, 32),
            l1: le64(&head, 40),
            size: le64(&head, 48),
            backing: None,
        };
        if header.features & !feature::KNOWN != 0 {
            let unknown = header.features & !feature::KNOWN;
            return Err(OpenError::Image(format!("Unsupported QED features: {unknown:x}")));
        }
        if !cluster_is_valid(header.cluster) {
            return bad("QED cluster size is invalid");
        }
        if !table_is_valid(header.table) {
            return bad("QED table size is invalid");
        }
        if !header.size.is_multiple_of(512)
            || max_size(header.cluster, header.table).is_some_and(|max| header.size > max)
            || i64::try_from(header.size).is_err()
        {
            return bad("QED image size is invalid");
        }
        let header_bytes = header.header.saturating_mul(header.cluster);
        if header_bytes == 0 || !header.l1.is_multiple_of(header.cluster) || header.l1 < header_bytes {
            return bad("QED table offset is invalid");
        }
        if inside(file, "The L1 table", header.l1, header.table * header.cluster).is_err() {
            return bad("QED table offset is invalid");
        }
        header.with_backing(file, &head, header_bytes)
    }

    fn with_backing(mut self, file: &dyn BlockNode, head: &[u8], header_bytes: u64) -> Result<Self, OpenError> {
        if self.features & feature::BACKING_FILE == 0 {
            return Ok(self);
        }
        let (at, len) = (u64::from(le32(head, 56)), u64::from(le32(head, 60)));
        if at + len > header_bytes || len > 1023 {
            return Err(OpenError::Image("QED backing filename offset is invalid".to_owned()));
        }
        let mut name = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_at(at, &mut name).map_err(OpenError::io("Could not read backing filename"))?;
        self.backing = Some(String::from_utf8_lossy(&name).into_owned());
        Ok(self)
    }

    /// "raw" where the header says that it must not be probed.
    fn backing_format(&self) -> Option<&'static str> {
        (self.backing.is_some() && self.features & feature::BACKING_RAW != 0).then_some("raw")
    }
}

struct QedMap {
    file: Arc<dyn BlockNode>,
    header: Header,
    levels: Levels,
}

impl QedMap {
    fn open(file: &Arc<dyn BlockNode>) -> Result<Self, OpenError> {
        let header = Header::read(file.as_ref())?;
        let entries = header.cluster * header.table / 8;
        let shape = Shape {
            driver: "qed",
            l1_offset: header.l1,
            l1_entries: entries,
            l2_entries: entries,
            cluster: header.cluster,
            big_endian: false,
        };
        let space = Space::new(Arc::clone(file), header.l1 + entries * 8)?;
        Ok(Self { file: Arc::clone(file), levels: Levels::new(file, shape, space), header })
    }

    /// What must be put right before the first write.
    fn prepare(&mut self) -> Result<(), OpenError> {
        let failed = || OpenError::io("Could not repair QED image");
        if self.header.features & feature::NEED_CHECK != 0 {
            let report = self.check(Some(Repair::All)).map_err(failed())?;
            self.levels.store().map_err(failed())?;
            if report.corruptions > report.corruptions_fixed {
                return Err(OpenError::Image("QED image is corrupt and cannot be repaired".to_owned()));
            }
        }
        if self.header.features & feature::NEED_CHECK != 0 || self.header.autoclear != 0 {
            self.file.flush().map_err(failed())?;
            self.header.features &= !feature::NEED_CHECK;
            self.header.autoclear = 0;
            self.write_features().map_err(failed())?;
        }
        Ok(())
    }

    fn write_features(&self) -> IoResult<()> {
        self.file.write_at(FEATURES, &self.header.features.to_le_bytes(), false)?;
        self.file.write_at(FEATURES + 16, &self.header.autoclear.to_le_bytes(), true)
    }

    fn entry_is_valid(&self, offset: u64) -> bool {
        let low = self.header.l1 + self.header.cluster * self.header.table;
        offset.is_multiple_of(self.header.cluster) && offset >= low && offset < self.levels.space.end()
    }

    fn used(&self) -> IoResult<Used> {
        let clusters = self.levels.space.end() / self.header.cluster;
        if clusters > MAX_CHECKED_CLUSTERS {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Used {
            bits: vec![0; usize::try_from(clusters.div_ceil(64)).unwrap_or(0)],
            cluster: self.header.cluster,
            clusters,
        })
    }

    fn check_table(
        &mut self,
        table: u64,
        used: &mut Used,
        last: &mut u64,
        fix: bool,
        report: &mut CheckReport,
    ) -> IoResult<()> {
        for index in 0..self.levels.shape.l2_entries {
            let entry = self.levels.l2_entry(table, index)?;
            if entry <= ZERO_CLUSTER {
                continue;
            }
            if !self.entry_is_valid(entry) || !used.take(entry, 1) {
                let place = table + index * 8;
                report.corruptions += 1;
                report.messages.push(format!(
                    "ERROR: cluster offset {entry} (L2 entry at offset {place}) is invalid or used twice"
                ));
                if fix {
                    self.levels.set_l2_entry(table, index, 0)?;
                    report.corruptions_fixed += 1;
                }
                continue;
            }
            report.allocated_clusters += 1;
            report.fragmented_clusters += u64::from(*last != 0 && entry != *last + self.header.cluster);
            *last = entry;
        }
        Ok(())
    }
}

/// Which clusters of the file something points at.
struct Used {
    bits: Vec<u64>,
    cluster: u64,
    clusters: u64,
}

impl Used {
    /// Notes clusters; whether none of them was taken.
    fn take(&mut self, offset: u64, count: u64) -> bool {
        let first = offset / self.cluster;
        let mut fresh = true;
        for number in first..(first + count).min(self.clusters) {
            let word = usize::try_from(number / 64).unwrap_or(0);
            fresh &= self.bits[word] & 1 << (number % 64) == 0;
            self.bits[word] |= 1 << (number % 64);
        }
        fresh
    }

    fn free(&self) -> u64 {
        self.clusters - self.bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>()
    }
}

impl Map for QedMap {
    fn driver(&self) -> &'static str {
        "qed"
    }

    fn place(&mut self, cluster: u64, count: u64) -> IoResult<(Place, u64)> {
        let place = match self.levels.entry(cluster)? {
            Err(run) => return Ok((Place::Absent, run.min(count))),
            Ok(0) => Place::Absent,
            Ok(ZERO_CLUSTER) => Place::Zero,
            Ok(entry) if self.entry_is_valid(entry) => Place::At(entry),
            Ok(entry) => {
                let what = format!("the offset {entry} of cluster {cluster} is not inside the file");
                return Err(corrupt("qed", self.file.as_ref(), &what));
            }
        };
        Ok((place, 1))
    }

    fn reserve(&mut self, _cluster: u64, count: u64) -> IoResult<(u64, u64)> {
        let size = self.header.cluster;
        Ok((self.levels.space.take(count * size, 0, size)?, count))
    }

    fn point(&mut self, cluster: u64, place: Place) -> IoResult<()> {
        let value = match place {
            Place::At(at) => at,
            Place::Zero => ZERO_CLUSTER,
            _ => 0,
        };
        self.levels.set(cluster, value)
    }

    fn has_zero(&self) -> bool {
        true
    }

    fn is_dirty(&self) -> bool {
        self.levels.is_dirty()
    }

    fn is_full(&self) -> bool {
        self.levels.is_full()
    }

    fn store(&mut self) -> IoResult<()> {
        self.levels.store()
    }

    /// Grows only, as QEMU.
    fn resize(&mut self, size: u64) -> IoResult<()> {
        if size < self.header.size {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !size.is_multiple_of(512) || max_size(self.header.cluster, self.header.table).is_some_and(|max| size > max) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.write_at(IMAGE_SIZE, &size.to_le_bytes(), true)?;
        self.header.size = size;
        Ok(())
    }

    fn details(&mut self) -> IoResult<Details> {
        Ok(Details {
            cluster_size: Some(self.header.cluster),
            dirty: self.header.features & feature::NEED_CHECK != 0,
            backing_format: self.header.backing_format().map(str::to_owned),
            ..Details::default()
        })
    }

    fn can_check(&self) -> bool {
        true
    }

    /// Every offset is a cluster of the file and used once. What is wrong is forgotten by a repair; what leaked stays.
    fn check(&mut self, repair: Option<Repair>) -> IoResult<CheckReport> {
        let fix = repair == Some(Repair::All);
        let mut used = self.used()?;
        let mut report =
            CheckReport { total_clusters: self.header.size.div_ceil(self.header.cluster), ..CheckReport::default() };
        used.take(0, self.header.header);
        used.take(self.header.l1, self.header.table);
        let mut last = 0;
        // Entries past the end of the disk are never looked at: the largest tables have 134 million.
        let reach = self.header.cluster.saturating_mul(self.levels.shape.l2_entries);
        for index in 0..self.levels.shape.l1_entries.min(self.header.size.div_ceil(reach)) {
            let table = self.levels.l1_entry(index)?;
            if table == 0 {
                continue;
            }
            let end = table.saturating_add(self.header.table * self.header.cluster);
            if !self.entry_is_valid(table) || end > self.levels.space.end() || !used.take(table, self.header.table) {
                let place = self.header.l1 + index * 8;
                report.corruptions += 1;
                report
                    .messages
                    .push(format!("ERROR: table offset {table} (L1 entry at offset {place}) is invalid or used twice"));
                if fix {
                    self.levels.set_l1_entry(index, 0)?;
                    report.corruptions_fixed += 1;
                }
                continue;
            }
            self.check_table(table, &mut used, &mut last, fix, &mut report)?;
            if fix && self.levels.is_full() {
                self.levels.store()?;
            }
        }
        report.leaks = used.free();
        Ok(report)
    }
}

/// `qed`.
pub struct Qed;

impl Driver for Qed {
    fn name(&self) -> &'static str {
        "qed"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn keys(&self) -> Keys {
        keys::FILE_AND_BACKING
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(MAGIC) { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        let read_only = context.read_only() || file.node.info().read_only;
        let mut map = QedMap::open(&file.node)?;
        context.share(&file.node, true)?;
        let name = map.header.backing.clone();
        let backing = context.backing(&file.filename, name.as_deref(), map.header.backing_format())?;
        context.finish()?;
        if !read_only && !context.for_check() {
            map.prepare()?;
        }
        let (size, block) = (map.header.size, map.header.cluster);
        let parts = Parts::new(&file.node, map, size, block, read_only)
            .over(backing.as_ref().map(|image| Arc::clone(&image.node)));
        let mut opened = Opened::new(Arc::new(Blocks::new(parts)), file.filename).over(file.node);
        (opened.backing, opened.backing_name) = (backing, name);
        Ok(opened)
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

impl Creation for Qed {
    fn options(&self) -> &'static [CreateOption] {
        const {
            &[
                create::SIZE,
                create::BACKING_FILE,
                create::BACKING_FMT,
                CreateOption::new("cluster_size", OptionKind::Size, "Cluster size (in bytes)").default("65536"),
                CreateOption::new("table_size", OptionKind::Size, "L1/L2 table size (in clusters)"),
            ]
        }
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let invalid = |text: String| Err(OpenError::Invalid(text));
        let cluster = options.number("cluster_size").unwrap_or(65536);
        let table = options.number("table_size").unwrap_or(4);
        if !cluster_is_valid(cluster) {
            return invalid("QED cluster size must be within range [4096, 67108864] and power of 2".to_owned());
        }
        if !table_is_valid(table) {
            return invalid("QED table size must be within range [1, 16] and power of 2".to_owned());
        }
        let size = options.whole_sectors()?;
        let max = max_size(cluster, table).unwrap_or(i64::MAX.cast_unsigned());
        if size > max {
            return invalid(format!(
                "QED image size must be a non-zero multiple of cluster size and less than {max} bytes"
            ));
        }
        no_preallocation(options)?;
        let head = new_header(size, cluster, table, options)?;
        let file = place.file(filename, options)?;
        let make = || {
            file.truncate(cluster * (1 + table))?;
            if file.info().driver != "file" {
                file.zero(cluster, cluster * table, false)?;
            }
            file.write_at(0, &head, false)
        };
        make().map_err(while_creating())
    }
}

fn new_header(size: u64, cluster: u64, table: u64, options: &CreateOptions) -> Result<Vec<u8>, OpenError> {
    let backing = options.get("backing_file").filter(|name| !name.is_empty());
    let mut head = vec![0; 64];
    let small = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let mut features = 0;
    if let Some(name) = backing {
        if name.len() > 1023 {
            return Err(OpenError::Invalid("Backing file name is too long".to_owned()));
        }
        features |= feature::BACKING_FILE;
        if options.get("backing_fmt") == Some("raw") {
            features |= feature::BACKING_RAW;
        }
        set(&mut head, 56, &small(64));
        set(&mut head, 60, &small(name.len() as u64));
        head.extend(name.as_bytes());
    }
    set(&mut head, 0, MAGIC);
    set(&mut head, 4, &small(cluster));
    set(&mut head, 8, &small(table));
    set(&mut head, 12, &small(1));
    set(&mut head, 16, &u64::to_le_bytes(features));
    set(&mut head, 40, &cluster.to_le_bytes());
    set(&mut head, 48, &size.to_le_bytes());
    Ok(head)
}
