//! What image formats can do beyond reading and writing: what `qemu-img` and the monitors ask of them.

use std::io;

use serde_json::Value;

use super::create::{CreateOption, CreateOptions, Preallocation};
use super::dirty::DirtyBits;
use super::error::OpenError;
use super::node::IoResult;

/// What to repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Repair {
    /// Counts that are too high, and flags.
    Leaks,
    /// All that can be.
    All,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Counts too low, tables that contradict themselves.
    pub corruptions: u64,
    /// Clusters that are counted and not used.
    pub leaks: u64,
    /// What could not be checked.
    pub check_errors: u64,
    /// Repaired.
    pub corruptions_fixed: u64,
    /// Repaired.
    pub leaks_fixed: u64,
    /// The end of the last cluster in use.
    pub image_end_offset: u64,
    /// Clusters of the virtual disk.
    pub total_clusters: u64,
    /// Of these have a place.
    pub allocated_clusters: u64,
    /// Of these do not follow their neighbour.
    pub fragmented_clusters: u64,
    /// Of these are packed.
    pub compressed_clusters: u64,
    /// A line for each thing found, as QEMU prints them to standard error.
    pub messages: Vec<String>,
}

/// Why a repair was not tried, with what the check had found.
#[derive(Debug, thiserror::Error)]
#[error("Input/output error")]
pub struct CheckFailed(pub Vec<String>);

/// An internal snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotInfo {
    /// Its number, as text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Bytes of machine state in it.
    pub vm_state_size: u64,
    /// When it was taken: seconds since 1970.
    pub date_sec: u32,
    /// The rest, in nanoseconds.
    pub date_nsec: u32,
    /// How long the machine had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Instructions that it had run, if that was counted.
    pub icount: Option<u64>,
    /// Where its L1 table is.
    pub l1_offset: u64,
    /// The table's entries.
    pub l1_size: u32,
}

impl SnapshotInfo {
    /// Whether a name that people type means this one: an exact number, or a name.
    #[must_use]
    pub fn is_called(&self, id_or_name: &str) -> bool {
        self.id == id_or_name || self.name == id_or_name
    }
}

/// What compression made of a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packed {
    /// It does not get smaller: it is written as it is.
    Plain,
    /// The compressed bytes.
    Bytes(Vec<u8>),
}

/// A persistent dirty bitmap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BitmapInfo {
    /// Its name.
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// Someone did not store it after using it: it is inconsistent.
    pub in_use: bool,
    /// It records writes.
    pub auto: bool,
}

/// What a new image would take, in bytes (`qemu-img measure`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Measure {
    /// For the data that there is.
    pub required: u64,
    /// Once all of the disk is written.
    pub fully_allocated: u64,
    /// For the source's persistent bitmaps; `None`: it can have none.
    pub bitmaps: Option<u64>,
}

/// What [`super::driver::Creation::measure`] looks at.
pub struct MeasureSource<'a> {
    /// Bytes of the disk.
    pub size: u64,
    /// Whether there is data at an offset that would be copied, and for how many of at most that many bytes that holds;
    /// `None`: there is no source, only a size.
    #[expect(clippy::type_complexity, reason = "one function")]
    pub is_data: Option<&'a mut dyn FnMut(u64, u64) -> IoResult<(bool, u64)>>,
    /// The source's persistent bitmaps.
    pub bitmaps: Option<Vec<BitmapInfo>>,
}

fn unsupported<T>() -> Result<T, OpenError> {
    Err(OpenError::Io { what: String::new(), error: io::Error::from_raw_os_error(95) }) // ENOTSUP
}

/// What `qemu-img info` says of an image.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Details {
    /// Bytes of a cluster, if it has such.
    pub cluster_size: Option<u64>,
    /// It was not closed.
    pub dirty: bool,
    /// Its content is encrypted.
    pub encrypted: bool,
    /// It holds compressed data only ("compressed: true"), as streamOptimized vmdk.
    pub compressed: bool,
    /// The backing file's format as the image names it.
    pub backing_format: Option<String>,
    /// Format specific information: name as in JSON, and value; in the human text dashes are spaces.
    pub specific: Vec<(&'static str, Value)>,
    /// Internal snapshots.
    pub snapshots: Vec<SnapshotInfo>,
    /// Where in the image's own address space the machine's state is, if it can hold one.
    pub vm_state_offset: Option<u64>,
}

/// An image of a format. What a format cannot do is `Unsupported`.
pub trait ImageOps: Send + Sync {
    /// What there is to say about it.
    ///
    /// # Errors
    /// The image cannot be read.
    fn details(&self) -> IoResult<Details>;

    /// Whether [`ImageOps::check`] does something.
    fn can_check(&self) -> bool {
        false
    }

    /// Counts and compares everything; repairs what was asked for.
    ///
    /// # Errors
    /// The image cannot be read; [`CheckFailed`] inside says what had been found.
    fn check(&self, _repair: Option<Repair>) -> IoResult<CheckReport> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Bytes that [`ImageOps::write_compressed`] takes at a time; `None`: the format has no compression.
    fn compressed_unit(&self) -> Option<u64> {
        None
    }

    /// Writes one unit (shorter at the end of the disk only), compressed where that saves something.
    ///
    /// # Errors
    /// As for writes.
    fn write_compressed(&self, _offset: u64, _data: &[u8]) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Packs one unit, so that several threads pack while one writes in order; `None`: the format packs as it writes.
    ///
    /// # Errors
    /// The compression's.
    fn pack(&self, _data: &[u8]) -> IoResult<Option<Packed>> {
        Ok(None)
    }

    /// Writes one unit that [`ImageOps::pack`] looked at, as [`ImageOps::write_compressed`] does.
    ///
    /// # Errors
    /// As for writes.
    fn write_packed(&self, offset: u64, data: &[u8], _packed: &Packed) -> IoResult<()> {
        self.write_compressed(offset, data)
    }

    /// Takes an internal snapshot: name, date, clock and size of the machine state are used, the rest is chosen. Returns
    /// it as it is stored.
    ///
    /// # Errors
    /// The host's, with QEMU's errno.
    fn create_snapshot(&self, _wanted: &SnapshotInfo) -> IoResult<SnapshotInfo> {
        Err(io::Error::from_raw_os_error(95)) // ENOTSUP
    }

    /// Makes the disk what it was at a snapshot (`qemu-img snapshot -a`).
    ///
    /// # Errors
    /// There is none of that id or name, or the host fails; QEMU's text without "Could not apply snapshot".
    fn apply_snapshot(&self, _id_or_name: &str) -> Result<(), OpenError> {
        unsupported()
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// As [`ImageOps::apply_snapshot`].
    fn delete_snapshot(&self, _id_or_name: &str) -> Result<(), OpenError> {
        unsupported()
    }

    /// Makes this image, which is open for reading only, read as it was at a snapshot (`qemu-img convert -l`).
    ///
    /// # Errors
    /// As [`ImageOps::apply_snapshot`].
    fn load_snapshot(&self, _id_or_name: &str) -> Result<(), OpenError> {
        unsupported()
    }

    /// Changes the length of the disk and gives what is new storage as `how` says. A shorter length is refused unless
    /// `shrink` allows it.
    ///
    /// # Errors
    /// QEMU's text.
    fn resize(&self, _size: u64, _how: Preallocation, _shrink: bool) -> Result<(), OpenError> {
        unsupported()
    }

    /// Drops all data of this image, so that its backing file shows through (after `commit`).
    ///
    /// # Errors
    /// The host's.
    fn make_empty(&self) -> IoResult<()> {
        Err(io::Error::from_raw_os_error(95)) // ENOTSUP
    }

    /// Records another backing file, or none, after everything written before is on stable storage.
    ///
    /// # Errors
    /// The host's; `InvalidInput` or `StorageFull` if it cannot be recorded.
    fn change_backing_file(&self, _name: Option<&str>, _format: Option<&str>) -> IoResult<()> {
        Err(io::Error::from_raw_os_error(95)) // ENOTSUP
    }

    /// The options that [`ImageOps::amend`] takes.
    fn amend_options(&self) -> &'static [CreateOption] {
        &[]
    }

    /// Changes options of the image as it is; calls `progress(done, total)` on the way.
    ///
    /// # Errors
    /// QEMU's text; the image is as before, or partly changed and valid.
    fn amend(
        &self,
        _options: &CreateOptions,
        _force: bool,
        _progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), OpenError> {
        unsupported()
    }

    /// Whether it can have persistent bitmaps.
    fn can_have_bitmaps(&self) -> bool {
        false
    }

    /// The persistent bitmaps.
    ///
    /// # Errors
    /// Their directory cannot be read.
    fn bitmaps(&self) -> IoResult<Vec<BitmapInfo>> {
        Ok(Vec::new())
    }

    /// Makes an empty bitmap; granularity 0: the default.
    ///
    /// # Errors
    /// QEMU's text.
    fn add_bitmap(&self, _name: &str, _granularity: u64, _enabled: bool) -> Result<(), OpenError> {
        unsupported()
    }

    /// Removes a bitmap.
    ///
    /// # Errors
    /// QEMU's text.
    fn remove_bitmap(&self, _name: &str) -> Result<(), OpenError> {
        unsupported()
    }

    /// Makes a bitmap empty.
    ///
    /// # Errors
    /// QEMU's text.
    fn clear_bitmap(&self, _name: &str) -> Result<(), OpenError> {
        unsupported()
    }

    /// Lets a bitmap record writes, or not.
    ///
    /// # Errors
    /// QEMU's text.
    fn enable_bitmap(&self, _name: &str, _on: bool) -> Result<(), OpenError> {
        unsupported()
    }

    /// A copy of a bitmap's content.
    ///
    /// # Errors
    /// QEMU's text: there is none, or it is inconsistent.
    fn bitmap_bits(&self, _name: &str) -> Result<DirtyBits, OpenError> {
        unsupported()
    }

    /// Adds what is dirty in `bits`, of whatever granularity, to a bitmap.
    ///
    /// # Errors
    /// QEMU's text.
    fn merge_bitmap(&self, _name: &str, _bits: &DirtyBits) -> Result<(), OpenError> {
        unsupported()
    }

    /// Reads the machine's state, from its own beginning; what is not there reads as zeros.
    ///
    /// # Errors
    /// As for reads; `Unsupported` where there can be none.
    fn read_vm_state(&self, _offset: u64, _buf: &mut [u8]) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes the machine's state.
    ///
    /// # Errors
    /// As for writes; `Unsupported` where there can be none.
    fn write_vm_state(&self, _offset: u64, _data: &[u8]) -> IoResult<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
