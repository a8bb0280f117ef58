//! Segment checks that the quick comparison of [`Cpu::linear`] does not settle (Intel SDM volume 3, 5.3 and 5.5).

use crate::cpu::Mode;

use super::super::cpu::{Cpu, Exception, Fault, attributes, segment};

impl Cpu {
    /// What [`Cpu::linear`] does when the quick check does not suffice.
    #[cold]
    pub(in super::super) fn linear_slow(
        &mut self,
        number: u8,
        offset: u64,
        len: u64,
        write: bool,
    ) -> Result<u64, Fault> {
        if self.reaches(number, offset, len, write) {
            let base = self.segments[usize::from(number & 7)].base;
            return Ok(base.wrapping_add(offset) & self.linear_mask);
        }
        let stack = usize::from(number) == segment::SS;
        Err(self.raise(if stack { Exception::ss(0) } else { Exception::gp(0) }))
    }

    fn reaches(&self, number: u8, offset: u64, len: u64, write: bool) -> bool {
        if self.mode == Mode::Long64 {
            // The access goes around the end of the address space; whether it is canonical the MMU looks at.
            return true;
        }
        let loaded = &self.segments[usize::from(number & 7)].loaded;
        let (code, read_write) =
            (loaded.attributes & attributes::CODE != 0, loaded.attributes & attributes::READ_WRITE != 0);
        if !matches!(self.mode, Mode::Real | Mode::Virtual8086) {
            let usable = loaded.attributes & (attributes::PRESENT | attributes::UNUSABLE) == attributes::PRESENT;
            let right = if write { !code && read_write } else { !code || read_write };
            if !usable || !right {
                return false;
            }
        }
        let limit = u64::from(loaded.limit);
        let last = offset.wrapping_add(len - 1);
        if !code && loaded.attributes & attributes::EXPAND_DOWN != 0 {
            let highest = if loaded.attributes & attributes::BIG != 0 { 0xffff_ffff } else { 0xffff };
            return offset > limit && last >= offset && last <= highest;
        }
        // A segment of 4 GiB has no end: processors differ about accesses around it (5.3); most let them pass.
        last >= offset && last <= limit || limit == 0xffff_ffff && offset <= 0xffff_ffff
    }
}
