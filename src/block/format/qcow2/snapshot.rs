//! Internal snapshots: taken, applied, deleted and read (qcow2.rst, "Snapshots").
//!
//! Each operation is one step (`switch`): references are counted anew for what the tables of the active disk and of the
//! snapshot lead to, and the flags of the active tables follow from the counts.

use std::io;

use super::Image;
use super::meta::{Meta, read_l1};
use super::snapshot_table::{Stored, encode_table, read_table};
use super::switch::{By, Freed, Next};
use crate::block::error::OpenError;
use crate::block::image::SnapshotInfo;
use crate::block::lock;
use crate::block::node::IoResult;
use std::sync::atomic::Ordering;

/// QEMU refuses more snapshots.
const MAX_SNAPSHOTS: usize = 65536;

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn find(snapshots: &[Stored], id_or_name: &str) -> Option<usize> {
    let by_id = snapshots.iter().position(|snapshot| snapshot.id == id_or_name);
    by_id.or_else(|| snapshots.iter().position(|snapshot| snapshot.name == id_or_name))
}

/// The number after the largest one in use.
fn next_id(snapshots: &[Stored]) -> String {
    let largest = snapshots.iter().filter_map(|snapshot| snapshot.id.parse::<u64>().ok()).max();
    (largest.unwrap_or(0).saturating_add(1)).to_string()
}

impl Next<'_> {
    /// Replaces the snapshot table, whose length was `old_len`.
    fn set_snapshots(&mut self, snapshots: &[Stored], old_len: u64) -> IoResult<()> {
        self.count(self.header.snapshots_offset, old_len, By::MinusOne)?;
        self.header.snapshots_offset = self.store(&encode_table(snapshots))?;
        self.header.snapshots = u32::try_from(snapshots.len()).map_err(|_| errno(27))?; // EFBIG
        Ok(())
    }
}

impl Image {
    /// The internal snapshots.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn snapshots(&self) -> IoResult<Vec<SnapshotInfo>> {
        let header = self.header();
        Ok(read_table(self.file.as_ref(), &header)?.0.into_iter().map(|stored| stored.info).collect())
    }

    fn writable_snapshots(&self) -> IoResult<()> {
        if self.data.is_some() {
            return Err(errno(95)); // ENOTSUP
        }
        self.check_writable(0, 0)
    }

    pub(super) fn take_snapshot(&self, wanted: &SnapshotInfo) -> IoResult<SnapshotInfo> {
        self.writable_snapshots()?;
        self.exclusively(|meta| {
            let (mut snapshots, old_len) = read_table(self.file.as_ref(), &meta.header)?;
            if snapshots.len() >= MAX_SNAPSHOTS {
                return Err(errno(27)); // EFBIG
            }
            let mut next = Next::of(self, meta)?;
            next.count_tree(&meta.l1, By::One)?;
            let l1: Vec<u8> =
                meta.l1.iter().flat_map(|entry| (entry & !super::meta::L1_COPIED).to_be_bytes()).collect();
            let info = SnapshotInfo {
                id: next_id(&snapshots),
                l1_offset: next.store(&l1)?,
                l1_size: meta.header.l1_size,
                ..wanted.clone()
            };
            snapshots.push(Stored::new(info.clone(), meta.header.size));
            next.set_snapshots(&snapshots, old_len)?;
            next.set_flags()?;
            next.move_l1()?;
            next.enter(meta)?;
            Ok(info)
        })
    }

    fn snapshot_l1(&self, snapshot: &Stored) -> IoResult<Vec<u64>> {
        if snapshot.l1_offset & (self.fixed.cluster() - 1) != 0 {
            return Err(super::corrupt(format!("Snapshot L1 table offset {:#x} invalid", snapshot.l1_offset)));
        }
        read_l1(self.file.as_ref(), snapshot.l1_offset, snapshot.l1_size)
    }

    pub(super) fn go_to_snapshot(&self, id_or_name: &str) -> Result<(), OpenError> {
        let failed = OpenError::io("Failed to load snapshot");
        let applied = self.writable_snapshots().and_then(|()| {
            self.exclusively(|meta| {
                let (snapshots, _) = read_table(self.file.as_ref(), &meta.header)?;
                let snapshot = find(&snapshots, id_or_name).and_then(|index| snapshots.get(index));
                let snapshot = snapshot.ok_or_else(|| errno(2))?; // ENOENT
                let l1 = self.snapshot_l1(snapshot)?;
                let mut next = Next::of(self, meta)?;
                // Up before down: no count falls to zero in between.
                next.count_tree(&l1, By::One)?;
                next.count_tree(&meta.l1, By::MinusOne)?;
                next.header.size = snapshot.disk_size.unwrap_or(meta.header.size);
                next.l1 = l1;
                next.set_flags()?;
                next.move_l1()?;
                let freed = next.enter(meta)?;
                self.forget_freed(meta, &freed)
            })
        });
        applied.map_err(failed)
    }

    pub(super) fn drop_snapshot(&self, id_or_name: &str) -> Result<(), OpenError> {
        self.writable_snapshots().map_err(OpenError::io("Failed to remove the snapshot"))?;
        let (snapshots, _) = read_table(self.file.as_ref(), &self.header())
            .map_err(OpenError::io("Failed to read the snapshot table"))?;
        if find(&snapshots, id_or_name).is_none() {
            return Err(OpenError::Image("Can't find the snapshot".to_owned()));
        }
        let deleted = self.exclusively(|meta| {
            let (mut snapshots, old_len) = read_table(self.file.as_ref(), &meta.header)?;
            let index = find(&snapshots, id_or_name).ok_or_else(|| errno(2))?; // ENOENT
            let snapshot = snapshots.remove(index);
            let l1 = self.snapshot_l1(&snapshot)?;
            let mut next = Next::of(self, meta)?;
            next.count_tree(&l1, By::MinusOne)?;
            next.count(snapshot.l1_offset, u64::from(snapshot.l1_size) * 8, By::MinusOne)?;
            next.set_snapshots(&snapshots, old_len)?;
            next.set_flags()?;
            next.move_l1()?;
            let freed = next.enter(meta)?;
            self.forget_freed(meta, &freed)
        });
        deleted.map_err(OpenError::io("Failed to remove the snapshot"))
    }

    /// Tells the file what is not used any more (`pass-discard-snapshot`).
    pub(super) fn forget_freed(&self, _meta: &mut Meta, freed: &Freed) -> IoResult<()> {
        if self.options.pass_discard.snapshot {
            for range in freed.ranges() {
                self.file.discard(range.start, range.end - range.start)?;
            }
        }
        Ok(())
    }

    /// Makes an image that is open for reading read as it was at a snapshot.
    pub(super) fn read_snapshot(&self, id_or_name: &str) -> Result<(), OpenError> {
        let failed = || OpenError::io("Failed to load snapshot");
        if !self.options.read_only {
            return Err(OpenError::Invalid("Device is not readonly".to_owned()));
        }
        let (snapshots, _) = read_table(self.file.as_ref(), &self.header()).map_err(failed())?;
        let snapshot = find(&snapshots, id_or_name).and_then(|index| snapshots.get(index));
        let snapshot = snapshot.ok_or_else(|| failed()(errno(2)))?; // ENOENT
        let l1 = self.snapshot_l1(snapshot).map_err(failed())?;
        let mut meta = lock(&self.meta);
        meta.l1 = l1;
        if let Some(size) = snapshot.disk_size {
            self.size.store(size, Ordering::Release);
        }
        Ok(())
    }
}
