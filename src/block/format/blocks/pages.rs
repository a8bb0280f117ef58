//! A format's tables, seen through a bounded cache of the file's pages. Changes stay in memory until they are stored,
//! so that a format decides what is on the disk before what.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::block::node::{BlockNode, IoResult};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// What is written at least: tables and data share pages, never sectors.
const SECTOR: u64 = 512;
/// Pages in memory: 16 MiB.
const MAX_PAGES: usize = 4096;
/// Changed pages in memory.
const MAX_DIRTY: usize = MAX_PAGES / 4;
/// The longest single write.
const MAX_WRITE: usize = 1 << 20;

struct Page {
    bytes: Vec<u8>,
    /// A bit for each changed sector.
    dirty: u8,
}

/// Pages of a file that hold tables.
pub(in crate::block::format) struct Pages {
    file: Arc<dyn BlockNode>,
    pages: BTreeMap<u64, Page>,
    dirty: usize,
}

impl Pages {
    /// Nothing cached yet.
    pub(in crate::block::format) fn new(file: Arc<dyn BlockNode>) -> Self {
        Self { file, pages: BTreeMap::new(), dirty: 0 }
    }

    fn load(&mut self, number: u64) -> IoResult<()> {
        if self.pages.contains_key(&number) {
            return Ok(());
        }
        if self.pages.len() >= MAX_PAGES {
            self.pages.retain(|_, page| page.dirty != 0);
        }
        let mut bytes = vec![0; PAGE as usize];
        self.file.read_at(number * PAGE, &mut bytes)?;
        self.pages.insert(number, Page { bytes, dirty: 0 });
        Ok(())
    }

    /// Runs `piece(page, place in the page, length, done before)` over what a range touches.
    fn each(&mut self, offset: u64, len: usize, mut piece: impl FnMut(&mut Page, usize, usize, usize)) -> IoResult<()> {
        let mut done = 0;
        while done < len {
            let at = offset.saturating_add(done as u64);
            self.load(at / PAGE)?;
            let inside = usize::try_from(at % PAGE).unwrap_or(0);
            let step = (PAGE as usize - inside).min(len - done);
            if let Some(page) = self.pages.get_mut(&(at / PAGE)) {
                piece(page, inside, step, done);
            }
            done += step;
        }
        Ok(())
    }

    /// Fills `buf`; past the end of the file are zeros.
    pub(in crate::block::format) fn read(&mut self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.each(offset, buf.len(), |page, inside, step, done| {
            buf[done..done + step].copy_from_slice(&page.bytes[inside..inside + step]);
        })
    }

    /// A few bytes.
    pub(in crate::block::format) fn get<const N: usize>(&mut self, offset: u64) -> IoResult<[u8; N]> {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Changes bytes in memory.
    pub(in crate::block::format) fn put(&mut self, offset: u64, bytes: &[u8]) -> IoResult<()> {
        let mut more = 0;
        self.each(offset, bytes.len(), |page, inside, step, done| {
            page.bytes[inside..inside + step].copy_from_slice(&bytes[done..done + step]);
            more += usize::from(page.dirty == 0);
            let sector = SECTOR as usize;
            for number in inside / sector..(inside + step).div_ceil(sector) {
                page.dirty |= 1 << number;
            }
        })?;
        self.dirty += more;
        Ok(())
    }

    /// Whether something waits to be stored.
    pub(in crate::block::format) fn is_dirty(&self) -> bool {
        self.dirty > 0
    }

    /// Whether so much waits that it should be stored now.
    pub(in crate::block::format) fn is_full(&self) -> bool {
        self.dirty >= MAX_DIRTY
    }

    /// The changed sectors, with their places, in order.
    pub(in crate::block::format) fn changes(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().filter(|(_, page)| page.dirty != 0).flat_map(|(number, page)| {
            let sectors = page.bytes.chunks(SECTOR as usize).enumerate();
            let changed = sectors.filter(|(index, _)| page.dirty & 1 << index != 0);
            changed.map(move |(index, bytes)| (number * PAGE + index as u64 * SECTOR, bytes))
        })
    }

    /// The changed pages, 4096 bytes each, with their places, in order.
    pub(in crate::block::format) fn changed_pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let changed = self.pages.iter().filter(|(_, page)| page.dirty != 0);
        changed.map(|(number, page)| (number * PAGE, page.bytes.as_slice()))
    }

    /// Writes what was changed. If that fails it stays changed.
    pub(in crate::block::format) fn store(&mut self) -> IoResult<()> {
        if self.dirty == 0 {
            return Ok(());
        }
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for (at, bytes) in self.changes() {
            if run.0 + run.1.len() as u64 != at || run.1.len() >= MAX_WRITE {
                if !run.1.is_empty() {
                    self.file.write_at(run.0, &run.1, false)?;
                }
                run = (at, Vec::new());
            }
            run.1.extend_from_slice(bytes);
        }
        self.file.write_at(run.0, &run.1, false)?;
        self.mark_stored();
        Ok(())
    }

    /// The changes are on the disk.
    pub(in crate::block::format) fn mark_stored(&mut self) {
        self.pages.values_mut().for_each(|page| page.dirty = 0);
        self.dirty = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::{LogEntry, MemoryNode};

    #[test]
    fn only_changed_sectors_are_written_and_neighbours_in_one_go() {
        let file = MemoryNode::from_bytes(vec![7; 16384]);
        let mut pages = Pages::new(Arc::<MemoryNode>::clone(&file));
        pages.put(4090, &[1; 12]).unwrap();
        pages.put(600, &[2]).unwrap();
        assert_eq!(pages.get::<2>(4095).unwrap(), [1, 1]);
        file.start_log();
        pages.store().unwrap();
        assert!(!pages.is_dirty());
        let places: Vec<(u64, usize)> = file
            .take_log()
            .iter()
            .map(|entry| match entry {
                LogEntry::Write(at, bytes) => (*at, bytes.len()),
                _ => (0, 0),
            })
            .collect();
        assert_eq!(places, [(512, 512), (3584, 1024)]);
        assert_eq!(file.bytes()[4090..4102], [1; 12]);
    }

    #[test]
    fn a_full_cache_keeps_what_was_changed() {
        let file = MemoryNode::new(4096 * 5000);
        let mut pages = Pages::new(Arc::<MemoryNode>::clone(&file));
        pages.put(0, &[9]).unwrap();
        for page in 1..5000 {
            pages.get::<1>(page * PAGE).unwrap();
        }
        assert!(pages.pages.len() <= MAX_PAGES);
        assert_eq!(pages.get::<1>(0).unwrap(), [9]);
    }
}
