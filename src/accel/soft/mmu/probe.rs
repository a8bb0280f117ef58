//! Questions about memory that touch none of it.

use super::super::cpu::{Cpu, Fault};
use super::{Access, Who};

impl Cpu {
    /// Whether `len` bytes (1 to 4096) at an offset in a segment are plain memory in one page that is in the TLB.
    #[inline]
    pub fn is_memory<const WRITE: bool>(&mut self, number: u8, offset: u64, len: u64) -> bool {
        let Ok(linear) = self.linear::<WRITE>(number, offset, len) else { return false };
        if WRITE {
            return self.mmu.write_hit(linear, len, self.mmu.tag).is_some();
        }
        self.mmu.read_hit(linear, len, self.mmu.tag).is_some()
    }

    /// Checks that a byte can be read, without reading it.
    ///
    /// # Errors
    /// As [`Cpu::read`].
    pub fn probe_read(&mut self, number: u8, offset: u64) -> Result<(), Fault> {
        let linear = self.linear::<false>(number, offset, 1)?;
        self.translation(linear, Access::Read, Who::segment(number)).map(|_| ())
    }
}
