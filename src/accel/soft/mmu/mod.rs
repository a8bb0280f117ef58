//! Memory as a processor sees it: segment and linear addresses to physical ones to host memory or devices.

use std::sync::Arc;

use crate::bus::GuestBus;
use crate::mem::RamRange;

use super::cpu::{Cpu, Exception, Fault, segment};

/// An integer that the processor reads or writes in one access.
pub trait Value: Copy + Eq + std::fmt::Debug {
    /// Length in bytes.
    const LEN: usize;
    /// From the low bytes.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// Into the low bytes.
    fn to_bytes(self) -> [u8; 16];
}

macro_rules! value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const LEN: usize = size_of::<$type>();
            fn from_bytes(bytes: [u8; 16]) -> Self {
                u128::from_le_bytes(bytes) as $type
            }
            fn to_bytes(self) -> [u8; 16] {
                (self as u128).to_le_bytes()
            }
        }
    )*};
}

value!(u8, u16, u32, u64, u128);

/// Who accesses memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// The program at its privilege level.
    Current,
    /// The processor itself: descriptor tables, task state, interrupt stacks.
    System,
}

/// The guest's physical memory as all processors share it.
#[derive(Debug, Default)]
pub struct PhysicalMap {
    /// RAM and ROM, sorted and disjoint.
    pub ranges: Vec<RamRange>,
}

/// One processor's view of memory.
#[derive(Default)]
pub struct Mmu {
    /// The present map.
    pub map: Arc<PhysicalMap>,
    /// Where accesses outside RAM go; set while the processor runs.
    pub bus: Option<Arc<dyn GuestBus>>,
}

impl Cpu {
    /// What [`Cpu::linear`] does when the quick check does not suffice.
    #[cold]
    pub(super) fn linear_slow(&mut self, number: u8, offset: u64, len: u64, write: bool) -> Result<u64, Fault> {
        let _ = (len, write, offset);
        let fault = if usize::from(number) == segment::SS { Exception::ss(0) } else { Exception::gp(0) };
        Err(self.raise(fault))
    }

    fn physical_read(&mut self, gpa: u64, buf: &mut [u8]) {
        let range = self.mmu.map.ranges.iter().find(|r| gpa >= r.gpa && gpa - r.gpa < r.len).cloned();
        match (range, &self.mmu.bus) {
            (Some(range), _) => range.block.read(range.offset + (gpa - range.gpa), buf),
            (None, Some(bus)) => bus.mmio_read(gpa, buf),
            (None, None) => buf.fill(0xff),
        }
    }

    fn physical_write(&mut self, gpa: u64, buf: &[u8]) {
        let range = self.mmu.map.ranges.iter().find(|r| gpa >= r.gpa && gpa - r.gpa < r.len).cloned();
        match (range, &self.mmu.bus) {
            (Some(range), _) if !range.read_only => range.block.write(range.offset + (gpa - range.gpa), buf),
            (_, Some(bus)) => bus.mmio_write(gpa, buf),
            _ => {}
        }
    }

    /// Reads memory at an offset in a segment.
    ///
    /// # Errors
    /// The exception of the segment's or the page's protection.
    pub fn read<T: Value>(&mut self, number: u8, offset: u64) -> Result<T, Fault> {
        let linear = self.linear::<false>(number, offset, T::LEN as u64)?;
        self.read_linear(linear, Privilege::Current)
    }

    /// Writes memory at an offset in a segment.
    ///
    /// # Errors
    /// As [`Cpu::read`]; then nothing is written.
    pub fn write<T: Value>(&mut self, number: u8, offset: u64, value: T) -> Result<(), Fault> {
        let linear = self.linear::<true>(number, offset, T::LEN as u64)?;
        self.write_linear(linear, value, Privilege::Current)
    }

    /// Reads memory at a linear address.
    ///
    /// # Errors
    /// A page fault.
    pub fn read_linear<T: Value>(&mut self, linear: u64, _privilege: Privilege) -> Result<T, Fault> {
        let mut bytes = [0; 16];
        self.physical_read(linear, &mut bytes[..T::LEN]);
        Ok(T::from_bytes(bytes))
    }

    /// Writes memory at a linear address.
    ///
    /// # Errors
    /// A page fault; then nothing is written.
    pub fn write_linear<T: Value>(&mut self, linear: u64, value: T, _privilege: Privilege) -> Result<(), Fault> {
        self.physical_write(linear, &value.to_bytes()[..T::LEN]);
        Ok(())
    }

    /// Replaces a value in memory by `change` of it, and returns the old one. The whole place is checked for writing
    /// before `change` is called. With `LOCK` no other processor or device sees anything in between; `change` may then be
    /// called more than once.
    ///
    /// # Errors
    /// As [`Cpu::write`].
    pub fn update<T: Value, const LOCK: bool>(
        &mut self,
        number: u8,
        offset: u64,
        mut change: impl FnMut(T) -> T,
    ) -> Result<T, Fault> {
        let linear = self.linear::<true>(number, offset, T::LEN as u64)?;
        let old: T = self.read_linear(linear, Privilege::Current)?;
        self.write_linear(linear, change(old), Privilege::Current)?;
        Ok(old)
    }

    /// Reads `buf.len()` bytes (at most 4096) at an offset in a segment; not one access, but checked as one.
    ///
    /// # Errors
    /// As [`Cpu::read`].
    pub fn read_bytes(&mut self, number: u8, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let linear = self.linear::<false>(number, offset, buf.len() as u64)?;
        self.physical_read(linear, buf);
        Ok(())
    }

    /// Writes bytes (at most 4096) at an offset in a segment.
    ///
    /// # Errors
    /// As [`Cpu::read`]; then nothing is written.
    pub fn write_bytes(&mut self, number: u8, offset: u64, buf: &[u8]) -> Result<(), Fault> {
        let linear = self.linear::<true>(number, offset, buf.len() as u64)?;
        self.physical_write(linear, buf);
        Ok(())
    }

    /// Checks that `len` bytes (1 to 4096) can be written, without writing.
    ///
    /// # Errors
    /// As [`Cpu::read`].
    pub fn probe_write(&mut self, number: u8, offset: u64, len: u64) -> Result<(), Fault> {
        self.linear::<true>(number, offset, len).map(|_| ())
    }

    /// Fetches instruction bytes at a linear address: as many of `buf` as there are before the end of the page, at
    /// least one. Marks the page as holding code.
    ///
    /// # Errors
    /// A page fault of an instruction fetch.
    pub fn fetch(&mut self, linear: u64, buf: &mut [u8]) -> Result<usize, Fault> {
        let room = usize::try_from(0x1000 - (linear & 0xfff)).unwrap_or(1).min(buf.len());
        self.physical_read(linear, &mut buf[..room]);
        Ok(room)
    }
}
