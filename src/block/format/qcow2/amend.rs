//! Changes to what an image is: its version, counts, features, length and backing file.

use std::io;

use super::Image;
use super::entry::{COPIED, Entry, OFFSET, ZERO};
use super::header::{Header, compatible, extension, feature_names, incompatible};
use super::meta::{L1_COPIED, Meta};
use super::snapshot_table::read_table;
use super::switch::{By, Next};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::error::OpenError;
use crate::block::node::IoResult;

/// The longest name of a backing file.
const MAX_NAME: usize = 1023;

/// What `amend` takes.
pub(super) const OPTIONS: &[CreateOption] = &[
    create::BACKING_FILE,
    CreateOption::new("backing_fmt", OptionKind::Text, "Image format of the base image"),
    CreateOption::new("compat", OptionKind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    CreateOption::new("data_file", OptionKind::Text, "File name of an external data file"),
    CreateOption::new("data_file_raw", OptionKind::Switch, "The external data file must stay valid as a raw image"),
    CreateOption::new("lazy_refcounts", OptionKind::Switch, "Postpone refcount updates"),
    CreateOption::new("refcount_bits", OptionKind::Number, "Width of a reference count entry in bits"),
    create::SIZE,
];

fn invalid<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Invalid(text.into()))
}

impl Image {
    pub(super) fn amend_by(
        &self,
        options: &CreateOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), OpenError> {
        self.check_writable(0, 0).map_err(OpenError::io("Could not amend image"))?;
        let header = self.header();
        let version = match options.given("compat") {
            None => header.version,
            Some("0.10" | "v2") => 2,
            Some("1.1" | "v3") => 3,
            Some(other) => return invalid(format!("Unknown compatibility level {other}")),
        };
        self.check_external(options)?;
        let order = wanted_order(options)?;
        let lazy = options.given("lazy_refcounts").map(|value| value == "on");
        progress(0, 1);
        if version > header.version {
            self.upgrade()?;
        }
        if let Some(order) = order.filter(|order| *order != header.refcount_order) {
            if version < 3 {
                return invalid(
                    "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or \
                     greater)",
                );
            }
            self.set_refcount_order(order)?;
        }
        if options.given("backing_file").is_some() || options.given("backing_fmt").is_some() {
            self.amend_backing(options, &header)?;
        }
        if let Some(on) = lazy.filter(|on| *on != (header.compatible & compatible::LAZY_REFCOUNTS != 0)) {
            self.set_lazy(on, version)?;
        }
        if let Some(size) = options.given("size").and(options.size()) {
            self.resize_to(size, Preallocation::Off)?;
        }
        if version < header.version {
            self.downgrade()?;
        }
        progress(1, 1);
        Ok(())
    }

    fn check_external(&self, options: &CreateOptions) -> Result<(), OpenError> {
        if let Some(raw) = options.given("data_file_raw")
            && (raw == "on") != self.data_is_raw
        {
            return invalid(if raw == "on" {
                "data-file-raw cannot be set on existing images"
            } else {
                "data-file-raw cannot be cleared on existing images" // the tables would not know what the file holds
            });
        }
        if let Some(name) = options.given("data_file") {
            if self.data.is_none() {
                return invalid("data-file can only be set for images that use an external data file");
            }
            return self.set_data_file(name).map_err(OpenError::io("Could not write the header"));
        }
        Ok(())
    }

    fn set_data_file(&self, name: &str) -> IoResult<()> {
        let name = (!name.is_empty()).then(|| name.to_owned());
        self.exclusively(|meta| {
            let header = Header { data_file: name, ..meta.header.clone() };
            self.write_header(meta, header)
        })
    }

    fn amend_backing(&self, options: &CreateOptions, header: &Header) -> Result<(), OpenError> {
        let name = options.given("backing_file").map(str::to_owned).or_else(|| header.backing_file.clone());
        let format = options.given("backing_fmt").map(str::to_owned).or_else(|| header.backing_format.clone());
        self.record_backing(name.as_deref(), format.as_deref())
            .map_err(OpenError::io("Failed to change the backing file"))
    }

    /// Records another backing file; what was written before is on stable storage by then.
    pub(super) fn record_backing(&self, name: Option<&str>, format: Option<&str>) -> IoResult<()> {
        self.check_writable(0, 0)?;
        let name = name.filter(|name| !name.is_empty());
        if name.is_some_and(|name| name.len() > MAX_NAME) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if self.data_is_raw && name.is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.exclusively(|meta| {
            let header = Header {
                backing_file: name.map(str::to_owned),
                backing_format: name.and(format).filter(|format| !format.is_empty()).map(str::to_owned),
                ..meta.header.clone()
            };
            self.write_header(meta, header)
        })
    }

    /// Replaces the header; everything before is on stable storage.
    pub(super) fn write_header(&self, meta: &mut Meta, header: Header) -> IoResult<()> {
        let mut head = header.encode().ok_or(io::ErrorKind::StorageFull)?;
        head.resize(usize::try_from(self.fixed.cluster()).unwrap_or(0), 0);
        self.file.flush()?;
        self.file.write_at(0, &head, true)?;
        self.version.store(header.version, std::sync::atomic::Ordering::Relaxed);
        meta.geometry.version = header.version;
        meta.header = header;
        Ok(())
    }

    fn upgrade(&self) -> Result<(), OpenError> {
        let upgraded = self.exclusively(|meta| {
            let mut header = Header { version: 3, header_length: 112, ..meta.header.clone() };
            if !header.extensions.iter().any(|known| known.kind == extension::FEATURE_NAMES) {
                header.extensions.insert(0, feature_names());
            }
            self.write_header(meta, header)
        });
        upgraded.map_err(OpenError::io("Failed to upgrade the image"))
    }

    fn set_lazy(&self, on: bool, version: u32) -> Result<(), OpenError> {
        if on && version < 3 {
            return invalid(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
            );
        }
        let set = self.exclusively(|meta| {
            self.mark_clean(meta)?;
            meta.header.compatible &= !compatible::LAZY_REFCOUNTS;
            meta.header.compatible |= if on { compatible::LAZY_REFCOUNTS } else { 0 };
            self.write_features(meta)
        });
        set.map_err(OpenError::io("Failed to update the image header"))
    }

    fn set_refcount_order(&self, order: u32) -> Result<(), OpenError> {
        let mut too_large = None;
        let changed = self.exclusively(|meta| {
            let mut next = Next::of(self, meta)?;
            if let Err(cluster) = next.widen(order) {
                too_large = Some((cluster << self.fixed.cluster_bits, next.new.get(cluster)));
                return Err(io::ErrorKind::InvalidInput.into());
            }
            next.enter(meta).map(|_| ())
        });
        match too_large {
            Some((offset, count)) => invalid(format!(
                "Cannot decrease refcount entry width to {} bits: Cluster at offset {offset:#x} has a refcount of {count}",
                1 << order
            )),
            None => changed.map_err(OpenError::io("Failed to change the refcount width")),
        }
    }

    /// To version 2, which has neither feature bits nor zero clusters.
    fn downgrade(&self) -> Result<(), OpenError> {
        let header = self.header();
        if header.incompatible & incompatible::DATA_FILE != 0 {
            return invalid("Cannot downgrade an image with a data file");
        }
        let others = header.incompatible & !incompatible::DIRTY;
        if others != 0 {
            return invalid(format!("Cannot downgrade an image with incompatible features {others:#x} set"));
        }
        if header.refcount_order != 4 {
            return invalid("compat=0.10 requires refcount_bits=16");
        }
        let failed = || OpenError::io("Failed to downgrade the image");
        let (snapshots, _) = read_table(self.file.as_ref(), &header).map_err(failed())?;
        let is_new = |size: Option<u64>, state: u64| size != Some(header.size) || state > u64::from(u32::MAX);
        if snapshots.iter().any(|snapshot| is_new(snapshot.disk_size, snapshot.vm_state_size)) {
            return invalid("Internal snapshots prevent downgrade of image");
        }
        if !snapshots.is_empty() {
            return Err(OpenError::Unsupported("compat=0.10 for an image with internal snapshots".to_owned()));
        }
        if !self.bitmap_infos().is_empty() {
            return invalid("Cannot downgrade an image with persistent bitmaps");
        }
        self.exclusively(|meta| {
            self.mark_clean(meta)?;
            let mut next = Next::of(self, meta)?;
            self.expand_zeros(&mut next)?;
            next.header.version = 2;
            next.header.header_length = 72;
            (next.header.incompatible, next.header.compatible, next.header.autoclear) = (0, 0, 0);
            next.header.extensions.retain(|known| known.kind != extension::FEATURE_NAMES);
            next.move_l1()?;
            next.enter(meta).map(|_| ())
        })
        .map_err(failed())
    }

    /// Zero clusters become unallocated, or clusters of zeros where a backing file would show.
    fn expand_zeros(&self, next: &mut Next<'_>) -> IoResult<()> {
        let g = self.geometry();
        for index in 0..next.l1.len() {
            let table = next.l1[index] & OFFSET;
            if table == 0 {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(g.cluster()).unwrap_or(0)];
            self.file.read_at(table, &mut bytes)?;
            let before = bytes.clone();
            for raw in bytes.chunks_exact_mut(8) {
                let entry = Entry { word: raw[..8].try_into().map_or(0, u64::from_be_bytes), bitmap: 0 };
                if entry.compressed() || entry.word & ZERO == 0 {
                    continue;
                }
                next.count_entry(entry, By::MinusOne)?;
                let word = if self.backing.is_some() {
                    let place = next.take(1)?;
                    self.file.zero(place, g.cluster(), false)?;
                    place | COPIED
                } else {
                    0
                };
                raw.copy_from_slice(&word.to_be_bytes());
            }
            if bytes != before {
                next.l1[index] = next.replace_table(table, &bytes)? | L1_COPIED;
            }
        }
        Ok(())
    }

    /// Drops all data, so that the backing file shows.
    pub(super) fn drop_all(&self) -> IoResult<()> {
        self.check_writable(0, 0)?;
        if self.header().snapshots > 0 || self.data.is_some() {
            // Slower, and snapshots keep their clusters.
            return self.drop_each();
        }
        let end = self.exclusively(|meta| {
            let mut next = Next::of(self, meta)?;
            next.count_tree(&meta.l1, By::MinusOne)?;
            next.l1.fill(0);
            next.move_l1()?;
            next.enter(meta).map(|freed| freed.end())
        })?;
        if self.file.info().driver != "host_device" && self.file.len()? > end {
            self.file.truncate(end)?;
            crate::block::lock(&self.meta).note_end(end);
        }
        Ok(())
    }

    fn drop_each(&self) -> IoResult<()> {
        let freed = self.exclusively(|meta| {
            let mut next = Next::of(self, meta)?;
            next.count_tree(&meta.l1, By::MinusOne)?;
            next.l1.fill(0);
            next.move_l1()?;
            next.enter(meta)
        })?;
        for range in freed.ranges() {
            self.file.discard(range.start, range.end - range.start)?;
        }
        if self.data_is_raw && self.backing.is_none() {
            // The tables of a raw data file are never empty.
            self.data().zero(0, self.disk_size(), true)?;
            self.preallocate_all(Preallocation::Metadata)?;
        }
        Ok(())
    }
}

fn wanted_order(options: &CreateOptions) -> Result<Option<u32>, OpenError> {
    let Some(bits) = options.given("refcount_bits").and(options.number("refcount_bits")) else { return Ok(None) };
    if !bits.is_power_of_two() || bits > 64 {
        return invalid("Refcount width must be a power of two and may not exceed 64 bits");
    }
    let order = bits.trailing_zeros();
    Ok(Some(order))
}
