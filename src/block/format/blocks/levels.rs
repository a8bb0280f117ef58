//! Two levels of tables with 64-bit entries: what qcow and qed have in common.

use std::io;
use std::sync::Arc;

use super::pages::Pages;
use super::parts::{Space, corrupt};
use crate::block::node::{BlockNode, IoResult};

/// Where the tables are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::block::format) struct Shape {
    pub(in crate::block::format) driver: &'static str,
    pub(in crate::block::format) l1_offset: u64,
    pub(in crate::block::format) l1_entries: u64,
    pub(in crate::block::format) l2_entries: u64,
    /// Bytes of a cluster.
    pub(in crate::block::format) cluster: u64,
    pub(in crate::block::format) big_endian: bool,
}

/// The tables of an image.
pub(in crate::block::format) struct Levels {
    file: Arc<dyn BlockNode>,
    pub(in crate::block::format) shape: Shape,
    pub(in crate::block::format) space: Space,
    l1: Pages,
    l2: Pages,
}

impl Levels {
    pub(in crate::block::format) fn new(file: &Arc<dyn BlockNode>, shape: Shape, space: Space) -> Self {
        let pages = || Pages::new(Arc::clone(file));
        Self { file: Arc::clone(file), shape, space, l1: pages(), l2: pages() }
    }

    fn decode(&self, bytes: [u8; 8]) -> u64 {
        if self.shape.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }

    fn encode(&self, value: u64) -> [u8; 8] {
        if self.shape.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// What the first level says, 0 is no table.
    pub(in crate::block::format) fn l1_entry(&mut self, index: u64) -> IoResult<u64> {
        let bytes = self.l1.get(self.shape.l1_offset + index * 8)?;
        Ok(self.decode(bytes))
    }

    pub(in crate::block::format) fn set_l1_entry(&mut self, index: u64, table: u64) -> IoResult<()> {
        let bytes = self.encode(table);
        self.l1.put(self.shape.l1_offset + index * 8, &bytes)
    }

    /// What a table says.
    pub(in crate::block::format) fn l2_entry(&mut self, table: u64, index: u64) -> IoResult<u64> {
        let bytes = self.l2.get(table + index * 8)?;
        Ok(self.decode(bytes))
    }

    pub(in crate::block::format) fn set_l2_entry(&mut self, table: u64, index: u64, value: u64) -> IoResult<()> {
        let bytes = self.encode(value);
        self.l2.put(table + index * 8, &bytes)
    }

    /// The table for a cluster, checked; `None`: there is none.
    fn table(&mut self, cluster: u64) -> IoResult<Option<u64>> {
        let index = cluster / self.shape.l2_entries;
        if index >= self.shape.l1_entries {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let table = self.l1_entry(index)?;
        if table == 0 {
            return Ok(None);
        }
        let end = table.checked_add(self.shape.l2_entries * 8);
        let low = self.shape.l1_offset + self.shape.l1_entries * 8;
        if table < low || end.is_none_or(|end| end > self.space.end()) {
            let place = self.shape.l1_offset + index * 8;
            let what = format!("the L2 table at offset {table} (L1 entry at offset {place}) is not inside the file");
            return Err(corrupt(self.shape.driver, self.file.as_ref(), &what));
        }
        Ok(Some(table))
    }

    /// The entry of a cluster, and for how many clusters there is no table if there is none.
    pub(in crate::block::format) fn entry(&mut self, cluster: u64) -> IoResult<Result<u64, u64>> {
        let index = cluster % self.shape.l2_entries;
        match self.table(cluster)? {
            Some(table) => self.l2_entry(table, index).map(Ok),
            None => Ok(Err(self.shape.l2_entries - index)),
        }
    }

    /// Changes the entry of a cluster; makes the table if there is none.
    pub(in crate::block::format) fn set(&mut self, cluster: u64, value: u64) -> IoResult<()> {
        let table = match self.table(cluster)? {
            Some(table) => table,
            None => self.new_table(cluster / self.shape.l2_entries)?,
        };
        self.set_l2_entry(table, cluster % self.shape.l2_entries, value)
    }

    fn new_table(&mut self, index: u64) -> IoResult<u64> {
        let len = self.shape.l2_entries * 8;
        let table = self.space.take(len, 0, self.shape.cluster)?;
        if self.file.info().driver == "file" {
            self.space.settle()?;
        } else {
            self.file.zero(table, len, false)?;
        }
        self.set_l1_entry(index, table)?;
        Ok(table)
    }

    pub(in crate::block::format) fn is_dirty(&self) -> bool {
        self.l1.is_dirty() || self.l2.is_dirty()
    }

    pub(in crate::block::format) fn is_full(&self) -> bool {
        self.l1.is_full() || self.l2.is_full()
    }

    /// The second level first: the first one points at it.
    pub(in crate::block::format) fn store(&mut self) -> IoResult<()> {
        self.space.settle()?;
        self.l2.store()?;
        if self.l1.is_dirty() {
            self.file.flush()?;
            self.l1.store()?;
        }
        Ok(())
    }
}
