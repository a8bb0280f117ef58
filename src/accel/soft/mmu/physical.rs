//! Guest RAM by physical address: what the processor shares with a paravirtual guest.
#![expect(unsafe_code)] // UNSAFE: guest memory by host address

use super::super::cpu::Cpu;
use super::map::HostPage;
use super::value::{copy_in, copy_out};

impl Cpu {
    /// Copies RAM at a guest-physical address. `false`: not all of it is RAM, and `buf` may hold a part.
    pub fn read_ram(&mut self, gpa: u64, buf: &mut [u8]) -> bool {
        ram_pieces(gpa, buf.len()).all(|(at, start, len)| match self.mmu.ranges.page(at) {
            None => false,
            Some(page) => {
                // SAFETY: the page is of the map in use, which keeps it mapped; the piece ends within it.
                unsafe { copy_out(page.host + (at & 0xfff), &mut buf[start..start + len]) };
                true
            }
        })
    }

    /// Writes RAM at a guest-physical address. `false`: not all of it is writable RAM, and nothing was written.
    pub fn write_ram(&mut self, gpa: u64, buf: &[u8]) -> bool {
        let writable = |at| self.mmu.ranges.page(at).is_some_and(|page| !page.read_only);
        if !ram_pieces(gpa, buf.len()).all(|(at, ..)| writable(at)) {
            return false;
        }
        for (at, start, len) in ram_pieces(gpa, buf.len()) {
            let Some(page) = self.mmu.ranges.page(at) else { return false };
            // SAFETY: the page is writable and of the map in use, which keeps it mapped; the piece ends within it.
            unsafe { copy_in(page.host + (at & 0xfff), &buf[start..start + len]) };
            self.page_stored(&page, at, len as u64);
        }
        true
    }

    /// After a store of `len` bytes at `gpa` in a page.
    pub(super) fn page_stored(&mut self, page: &HostPage, gpa: u64, len: u64) {
        if page.code.is_marked() {
            self.code_written(page.code, gpa, len);
        }
        if page.logged {
            self.mmu.ranges.log(gpa, len);
        }
    }
}

/// The pieces of `len` bytes at `gpa` that lie in one page each: address, place and length.
fn ram_pieces(gpa: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = gpa.wrapping_add(done as u64);
        let room = usize::try_from(0x1000 - (at & 0xfff)).unwrap_or(1);
        let piece = (len - done).min(room);
        (piece != 0).then(|| {
            done += piece;
            (at, done - piece, piece)
        })
    })
}
