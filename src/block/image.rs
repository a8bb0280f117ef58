//! What image formats can do beyond reading and writing: what `qemu-img` and the monitors ask of them.

use std::io;

use serde_json::Value;

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
}
