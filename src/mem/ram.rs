//! The host pages behind guest memory, and the view of guest memory that devices have.
#![expect(unsafe_code)] // UNSAFE: aliases of one mapping at several guest addresses, and madvise on it

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use vm_memory::bitmap::BS;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice};

use super::code::{self, CodeState};
use super::dirty::DirtyPages;

/// A block of host memory that a guest can see: RAM, a ROM, or a display's memory.
///
/// Guests change it at any time, so it is never a `&[u8]`; copies in and out only.
pub struct RamBlock {
    name: String,
    region: MmapRegion,
    dirty: DirtyPages,
    log_dirty: bool,
    /// Made when a software CPU first uses the block.
    code: OnceLock<&'static [CodeState]>,
}

impl fmt::Debug for RamBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RamBlock({}, {:#x} bytes)", self.name, self.len())
    }
}

impl RamBlock {
    /// `len` bytes of zeros (a multiple of the page size) that take host memory only where they are touched.
    ///
    /// # Errors
    /// The host has no address space or memory left.
    pub fn anonymous(name: &str, len: u64) -> io::Result<Arc<Self>> {
        Self::build(name, len, false)
    }

    /// As [`RamBlock::anonymous`], and the accelerator tracks which pages the guest writes ([`RamBlock::dirty`]).
    ///
    /// # Errors
    /// As [`RamBlock::anonymous`].
    pub fn tracked(name: &str, len: u64) -> io::Result<Arc<Self>> {
        Self::build(name, len, true)
    }

    fn build(name: &str, len: u64, log_dirty: bool) -> io::Result<Arc<Self>> {
        let size = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let region =
            MmapRegion::build(None, size, prot_read_write(), map_anonymous()).map_err(|error| match error {
                MmapRegionError::Mmap(error) => error,
                other => io::Error::new(io::ErrorKind::OutOfMemory, other),
            })?;
        let dirty = DirtyPages::new(len);
        Ok(Arc::new(Self { name: name.to_owned(), region, dirty, log_dirty, code: OnceLock::new() }))
    }

    /// Asks the host for huge pages; a hint, and worth it for system RAM only.
    pub fn advise_huge_pages(&self) {
        // SAFETY: the range is this block's own mapping; the advice changes no content.
        let advised = unsafe {
            rustix::mm::madvise(self.region.as_ptr().cast(), self.region.size(), rustix::mm::Advice::LinuxHugepage)
        };
        // A kernel without transparent huge pages refuses; small pages work as well.
        let _ = advised;
    }

    /// Lets the host share pages of equal content between machines (KSM).
    ///
    /// # Errors
    /// The host's kernel has no KSM.
    pub fn advise_mergeable(&self) -> io::Result<()> {
        // SAFETY: the range is this block's own mapping; pages stay private to whoever writes them.
        let advised = unsafe {
            rustix::mm::madvise(self.region.as_ptr().cast(), self.region.size(), rustix::mm::Advice::LinuxMergeable)
        };
        advised.map_err(io::Error::from)
    }

    /// The name that monitors show ("pc.ram").
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.region.size() as u64
    }

    /// Never: a mapping has at least a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.size() == 0
    }

    /// Where the block is in this process, for an accelerator's memory slots.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.region.as_ptr() as u64
    }

    /// Which pages were written. Complete only for [`RamBlock::tracked`] blocks after the accelerator's
    /// `sync_dirty`; writes through this type and through [`GuestRam`] mark at once.
    #[must_use]
    pub fn dirty(&self) -> &DirtyPages {
        &self.dirty
    }

    /// Whether the accelerator shall log the guest's writes.
    #[must_use]
    pub fn logs_dirty(&self) -> bool {
        self.log_dirty
    }

    /// Which parts of each page hold code that a software CPU decoded. From the first call on, writes through this type
    /// look after it.
    #[must_use]
    pub fn code(&self) -> &'static [CodeState] {
        self.code.get_or_init(|| code::states(self.len()))
    }

    fn slice(&self, offset: u64, len: usize) -> Option<VolatileSlice<'_, BS<'_, ()>>> {
        self.region.get_slice(usize::try_from(offset).ok()?, len).ok()
    }

    /// Copies out of the block. Bytes past its end read as zero.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        let inside = self.clip(offset, buf.len());
        let (head, tail) = buf.split_at_mut(inside);
        if let Some(slice) = self.slice(offset, inside) {
            slice.copy_to(head);
        }
        tail.fill(0);
    }

    /// Copies into the block and marks the pages. Bytes past its end are lost.
    pub fn write(&self, offset: u64, buf: &[u8]) {
        let inside = self.clip(offset, buf.len());
        if let Some(slice) = self.slice(offset, inside) {
            slice.copy_from(&buf[..inside]);
            self.wrote(offset, inside as u64);
        }
    }

    fn wrote(&self, offset: u64, len: u64) {
        if self.log_dirty {
            self.dirty.mark(offset, len);
        }
        if let Some(states) = self.code.get() {
            code::device_wrote(states, offset, len);
        }
    }

    fn clip(&self, offset: u64, len: usize) -> usize {
        usize::try_from(self.len().saturating_sub(offset)).map_or(len, |left| left.min(len))
    }

    /// The byte at `offset`, 0 past the end.
    #[must_use]
    pub fn byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.read(offset, &mut byte);
        byte[0]
    }

    /// Stores a byte and marks its page.
    pub fn set_byte(&self, offset: u64, value: u8) {
        self.write(offset, &[value]);
    }
}

/// A piece of RAM or ROM as accelerators and DMA see it.
#[derive(Clone, Debug)]
pub struct RamRange {
    /// First guest physical address, page aligned.
    pub gpa: u64,
    /// Length in bytes, a multiple of the page size.
    pub len: u64,
    /// The host memory.
    pub block: Arc<RamBlock>,
    /// Offset in the block.
    pub offset: u64,
    /// The guest cannot write it directly.
    pub read_only: bool,
}

impl PartialEq for RamRange {
    fn eq(&self, other: &Self) -> bool {
        self.gpa == other.gpa
            && self.len == other.len
            && Arc::ptr_eq(&self.block, &other.block)
            && self.offset == other.offset
            && self.read_only == other.read_only
    }
}

/// A device's access went outside RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("DMA outside of RAM at {gpa:#x}")]
pub struct DmaError {
    /// The first address that is not RAM.
    pub gpa: u64,
}

/// Guest memory by guest physical address, for DMA. Clones see the same memory and follow each change of the map.
#[derive(Clone)]
pub struct GuestRam {
    shared: Arc<SharedView>,
}

#[derive(Default)]
struct SharedView {
    view: RwLock<Arc<View>>,
    /// Blocks outlive every view that points into them: a block that was ever mapped stays for the machine's life.
    keep: Mutex<Vec<Arc<RamBlock>>>,
}

#[derive(Default)]
struct View {
    memory: GuestMemoryMmap<()>,
    ranges: Vec<RamRange>,
}

/// The map of guest memory at one moment, as the rust-vmm crates take it.
#[derive(Clone)]
pub struct MemoryView(Arc<View>);

impl fmt::Debug for MemoryView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryView({} ranges)", self.0.ranges.len())
    }
}

impl std::ops::Deref for MemoryView {
    type Target = GuestMemoryMmap<()>;

    fn deref(&self) -> &Self::Target {
        &self.0.memory
    }
}

impl fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuestRam")
    }
}

impl Default for GuestRam {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestRam {
    /// A view without memory.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(SharedView::default()) }
    }

    /// A view of `len` bytes of RAM at address 0, for tests of devices.
    ///
    /// # Errors
    /// The host has no memory.
    pub fn for_test(len: u64) -> io::Result<Self> {
        let block = RamBlock::anonymous("test", len)?;
        let ram = Self::new();
        ram.set_ranges(vec![RamRange { gpa: 0, len, block, offset: 0, read_only: false }]);
        Ok(ram)
    }

    /// Replaces the map. `ranges` are sorted and do not overlap.
    pub fn set_ranges(&self, ranges: Vec<RamRange>) {
        let mut keep = self.shared.keep.lock().unwrap_or_else(PoisonError::into_inner);
        let mut regions = Vec::with_capacity(ranges.len());
        for range in &ranges {
            if !keep.iter().any(|block| Arc::ptr_eq(block, &range.block)) {
                keep.push(Arc::clone(&range.block));
            }
            let Some(slice) = usize::try_from(range.len).ok().and_then(|len| range.block.slice(range.offset, len))
            else {
                continue;
            };
            // SAFETY: the pointer and length are those of a valid slice of the block's mapping, which `keep` holds
            // for as long as any clone of this view lives; the builder does not take ownership of it.
            let raw = unsafe {
                MmapRegionBuilder::<()>::new(slice.len()).with_raw_mmap_pointer(slice.ptr_guard_mut().as_ptr())
            };
            let region = raw
                .with_mmap_prot(prot_read_write())
                .with_mmap_flags(map_private())
                .build()
                .ok()
                .and_then(|region| GuestRegionMmap::new(region, GuestAddress(range.gpa)));
            if let Some(region) = region {
                regions.push(region);
            }
        }
        let memory = GuestMemoryMmap::from_regions(regions).unwrap_or_default();
        *self.shared.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(View { memory, ranges });
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.shared.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The memory as the rust-vmm crates want it (virtio-queue, linux-loader). It is the map of this moment.
    #[must_use]
    pub fn memory(&self) -> GuestMemoryMmap<()> {
        self.view().memory.clone()
    }

    /// As [`GuestRam::memory`], without a copy of the list of regions.
    #[must_use]
    pub fn snapshot(&self) -> MemoryView {
        MemoryView(self.view())
    }

    /// Notes that `len` bytes at `gpa` were written through [`GuestRam::memory`] or [`GuestRam::snapshot`], which do not
    /// do so themselves: dirty pages, and code that a software CPU decoded. What is not RAM is skipped.
    pub fn wrote(&self, gpa: u64, len: usize) {
        // Only the part before the first hole counts; the writer could not go beyond it either.
        let _ = self.view().walk(gpa, len, true, |range, offset, _, len| range.block.wrote(offset, len as u64));
    }

    /// Bytes of RAM and ROM in the map.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.view().ranges.iter().map(|range| range.len).sum()
    }

    /// The ranges of the map, in order.
    #[must_use]
    pub fn ranges(&self) -> Vec<RamRange> {
        self.view().ranges.clone()
    }

    /// Reads guest memory.
    ///
    /// # Errors
    /// Part of the range is not RAM or ROM; `buf` is then partly filled.
    pub fn read(&self, gpa: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        self.view().walk(gpa, buf.len(), false, |range, offset, at, len| {
            range.block.read(offset, &mut buf[at..at + len]);
        })
    }

    /// Writes guest memory. Writes to ROM are lost, as on the real bus.
    ///
    /// # Errors
    /// Part of the range is not RAM or ROM; what comes before it is written.
    pub fn write(&self, gpa: u64, buf: &[u8]) -> Result<(), DmaError> {
        self.view().walk(gpa, buf.len(), true, |range, offset, at, len| {
            if !range.read_only {
                range.block.write(offset, &buf[at..at + len]);
            }
        })
    }

    /// A little-endian 32-bit word.
    ///
    /// # Errors
    /// As [`GuestRam::read`].
    pub fn read_u32(&self, gpa: u64) -> Result<u32, DmaError> {
        let mut bytes = [0; 4];
        self.read(gpa, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A little-endian 64-bit word.
    ///
    /// # Errors
    /// As [`GuestRam::read`].
    pub fn read_u64(&self, gpa: u64) -> Result<u64, DmaError> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Whether all of `gpa .. gpa + len` is RAM or ROM.
    #[must_use]
    pub fn contains(&self, gpa: u64, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.view().walk(gpa, len, false, |_, _, _, _| ()).is_ok())
    }
}

impl View {
    /// Calls `piece(range, offset in its block, offset in the buffer, length)` for each range that
    /// `gpa .. gpa + len` touches.
    fn walk(
        &self,
        gpa: u64,
        len: usize,
        _write: bool,
        mut piece: impl FnMut(&RamRange, u64, usize, usize),
    ) -> Result<(), DmaError> {
        let mut done = 0;
        while done < len {
            let at = gpa.checked_add(done as u64).ok_or(DmaError { gpa: u64::MAX })?;
            let index = self.ranges.partition_point(|range| range.gpa <= at);
            let range = index
                .checked_sub(1)
                .and_then(|index| self.ranges.get(index))
                .filter(|range| at - range.gpa < range.len)
                .ok_or(DmaError { gpa: at })?;
            let inside = at - range.gpa;
            let step = usize::try_from(range.len - inside).unwrap_or(usize::MAX).min(len - done);
            piece(range, range.offset + inside, done, step);
            done += step;
        }
        Ok(())
    }
}

fn prot_read_write() -> i32 {
    (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE).bits() as i32
}

/// Without MAP_NORESERVE: memory that the host cannot have is refused at the start, not when the guest touches it.
fn map_anonymous() -> i32 {
    (rustix::mm::MapFlags::PRIVATE).bits() as i32 | MAP_ANONYMOUS
}

/// mmap(2); rustix offers anonymous mappings by a function of their own only.
const MAP_ANONYMOUS: i32 = 0x20;

fn map_private() -> i32 {
    (rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE).bits() as i32
}

/// A scatter-gather list of guest memory: what a DMA engine's descriptors come to.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Sg {
    pieces: Vec<(u64, u32)>,
    len: u64,
}

impl Sg {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `len` bytes at `gpa`; adjacent pieces merge.
    pub fn push(&mut self, gpa: u64, len: u32) {
        if len == 0 {
            return;
        }
        self.len += u64::from(len);
        if let Some((start, last)) = self.pieces.last_mut()
            && start.checked_add(u64::from(*last)) == Some(gpa)
            && let Some(sum) = last.checked_add(len)
        {
            *last = sum;
            return;
        }
        self.pieces.push((gpa, len));
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces: guest physical address and length in bytes.
    #[must_use]
    pub fn pieces(&self) -> &[(u64, u32)] {
        &self.pieces
    }

    /// The part of `len` bytes from byte `skip` on, or what there is of it.
    #[must_use]
    pub fn slice(&self, mut skip: u64, mut len: u64) -> Self {
        let mut part = Self::new();
        for &(gpa, piece) in &self.pieces {
            let piece = u64::from(piece);
            if skip >= piece {
                skip -= piece;
                continue;
            }
            let take = (piece - skip).min(len);
            part.push(gpa.wrapping_add(skip), u32::try_from(take).unwrap_or(u32::MAX));
            len -= take;
            skip = 0;
            if len == 0 {
                break;
            }
        }
        part
    }

    /// Copies guest memory, from `skip` bytes into the list on, into `buf`.
    ///
    /// # Errors
    /// A piece is not RAM, or the list is shorter than `skip + buf.len()`.
    pub fn read(&self, ram: &GuestRam, skip: u64, buf: &mut [u8]) -> Result<(), DmaError> {
        let len = buf.len();
        self.walk(skip, len, |gpa, at, step| ram.read(gpa, &mut buf[at..at + step]))
    }

    /// Copies `buf` to guest memory, from `skip` bytes into the list on.
    ///
    /// # Errors
    /// As [`Sg::read`].
    pub fn write(&self, ram: &GuestRam, skip: u64, buf: &[u8]) -> Result<(), DmaError> {
        self.walk(skip, buf.len(), |gpa, at, step| ram.write(gpa, &buf[at..at + step]))
    }

    fn walk(
        &self,
        mut skip: u64,
        len: usize,
        mut piece: impl FnMut(u64, usize, usize) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        let mut done = 0;
        for &(gpa, piece_len) in &self.pieces {
            let piece_len = u64::from(piece_len);
            if skip >= piece_len {
                skip -= piece_len;
                continue;
            }
            if done == len {
                break;
            }
            let room = usize::try_from(piece_len - skip).unwrap_or(usize::MAX);
            let step = room.min(len - done);
            piece(gpa.wrapping_add(skip), done, step)?;
            done += step;
            skip = 0;
        }
        if done < len { Err(DmaError { gpa: u64::MAX }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn reads_and_writes_cross_adjacent_ranges() {
        let (a, b) = (RamBlock::anonymous("a", 4096).unwrap(), RamBlock::anonymous("b", 4096).unwrap());
        let ram = GuestRam::new();
        ram.set_ranges(vec![
            RamRange { gpa: 0x1000, len: 4096, block: Arc::clone(&a), offset: 0, read_only: false },
            RamRange { gpa: 0x2000, len: 4096, block: Arc::clone(&b), offset: 0, read_only: false },
        ]);
        ram.write(0x1ffe, &[1, 2, 3, 4]).unwrap();
        assert_eq!((a.byte(0xfff), b.byte(0), b.byte(1)), (2, 3, 4));
        assert_eq!(ram.read_u32(0x1ffe), Ok(0x0403_0201));
        assert_eq!(ram.write(0x2ffe, &[0; 4]), Err(DmaError { gpa: 0x3000 }));
        let mut byte = [0];
        ram.memory().read_slice(&mut byte, GuestAddress(0x1fff)).unwrap();
        assert_eq!(byte, [2]);
    }

    #[test]
    fn rom_cannot_be_written_by_dma() {
        let rom = RamBlock::anonymous("rom", 4096).unwrap();
        let ram = GuestRam::new();
        ram.set_ranges(vec![RamRange { gpa: 0, len: 4096, block: rom, offset: 0, read_only: true }]);
        ram.write(0, &[9]).unwrap();
        assert_eq!(ram.read_u32(0), Ok(0));
    }

    #[test]
    fn a_scatter_list_copies_piecewise_and_refuses_to_run_short() {
        let ram = GuestRam::for_test(0x4000).unwrap();
        let mut sg = Sg::new();
        sg.push(0x1000, 2);
        sg.push(0x1002, 2);
        sg.push(0x3000, 4);
        assert_eq!(sg.pieces(), [(0x1000, 4), (0x3000, 4)]);
        sg.write(&ram, 2, &[1, 2, 3]).unwrap();
        assert_eq!(ram.read_u32(0x1000), Ok(0x0201_0000));
        assert_eq!(ram.read_u32(0x3000), Ok(3));
        assert!(sg.write(&ram, 6, &[0; 3]).is_err());
        assert_eq!(sg.slice(3, 2).pieces(), [(0x1003, 1), (0x3000, 1)]);
        assert_eq!(sg.slice(4, 100).pieces(), [(0x3000, 4)]);
    }
}
