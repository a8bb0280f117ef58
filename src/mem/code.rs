//! Which parts of a block hold code that a software CPU decoded, so that a store into it is noticed.
//!
//! Each page has one word: a version, and a bit for each 128 bytes ("chunk") that holds decoded code. Whoever decodes
//! marks the chunks first and reads the bytes then; whoever stores writes first and looks at the word then, and if its
//! chunk is marked takes all marks away and counts the version up, in one step. Decodings remember the version; they
//! hold for as long as the page still has it.
//!
//! The store and the look at the word must not change places. Devices put a fence between them. A processor's stores
//! are too many for that, so another processor that decodes has them all pass a barrier between its marks and its reads
//! (membarrier(2)); the armed bit says that this was done for all marks of the page.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use zerocopy::{FromZeros, KnownLayout};

use super::dirty::PAGE_SIZE;

/// Bytes that one mark stands for.
const CHUNK: u64 = 128;
/// Bits 31-0: the marks.
const MARKS: u64 = 0xffff_ffff;
/// Bit 32: a barrier came after the marks.
const ARMED: u64 = 1 << 32;
/// Bits 63-33: the version.
const VERSION: u64 = 1 << 33;

/// The state of one page.
#[derive(Debug, Default, FromZeros, KnownLayout)]
#[repr(transparent)]
pub struct CodeState {
    word: AtomicU64,
}

/// The marks of the chunks that `offset .. offset + len` (bytes within the page, `len` not 0) touches.
fn marks(offset: u64, len: u64) -> u64 {
    let first = (offset % PAGE_SIZE) / CHUNK;
    let last = ((offset % PAGE_SIZE + len.max(1) - 1) / CHUNK).min(31);
    (MARKS << first) & (MARKS >> (31 - last))
}

impl CodeState {
    /// A page that is never without marks: what makes each store look closer.
    #[must_use]
    pub const fn always_marked() -> Self {
        Self { word: AtomicU64::new(MARKS) }
    }

    /// What decodings remember; 31 bits.
    #[must_use]
    #[inline(always)]
    pub fn version(&self) -> u32 {
        (self.word.load(Ordering::Acquire) >> 33) as u32
    }

    /// Whether any chunk is marked: the quick question after each store.
    #[must_use]
    #[inline(always)]
    pub fn is_marked(&self) -> bool {
        self.word.load(Ordering::Relaxed) as u32 != 0
    }

    /// Marks what `offset .. offset + len` touches, before its bytes are read. `barrier` is called if other
    /// processors' stores must be waited for. Returns the version that the decoding has.
    pub fn mark(&self, offset: u64, len: u64, barrier: impl FnOnce()) -> u32 {
        let wanted = marks(offset, len);
        let word = self.word.load(Ordering::Acquire);
        if word & wanted == wanted && word & ARMED != 0 {
            return (word >> 33) as u32;
        }
        let mut word = word;
        let marked = loop {
            let new = (word | wanted) & !ARMED;
            match self.word.compare_exchange_weak(word, new, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => break new,
                Err(now) => word = now,
            }
        };
        barrier();
        // If the word has changed meanwhile, whoever changed it sees to the rest.
        let _ = self.word.compare_exchange(marked, marked | ARMED, Ordering::SeqCst, Ordering::Relaxed);
        (marked >> 33) as u32
    }

    /// After a store to `offset .. offset + len` of the page: whether decoded code was there. Then all of the page's
    /// decodings are out of date.
    pub fn written(&self, offset: u64, len: u64) -> bool {
        let touched = marks(offset, len);
        let mut word = self.word.load(Ordering::SeqCst);
        while word & touched != 0 {
            let new = (word & !(MARKS | ARMED)).wrapping_add(VERSION);
            match self.word.compare_exchange_weak(word, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }
}

/// The states of all pages of a block of `len` bytes. It takes host memory only where it is touched. It is never given
/// back: decodings point to it for as long as they like, and blocks live as long as their machine.
#[must_use]
pub(super) fn states(len: u64) -> &'static [CodeState] {
    let pages = usize::try_from(len.div_ceil(PAGE_SIZE)).unwrap_or(usize::MAX);
    let states = <[CodeState]>::new_box_zeroed_with_elems(pages);
    Box::leak(states.expect("a block's states are 512 times smaller than the block, which is mapped"))
}

/// After a device's store to `offset .. offset + len` of a block.
pub(super) fn device_wrote(states: &[CodeState], offset: u64, len: u64) {
    // The store is visible before the words are looked at.
    fence(Ordering::SeqCst);
    let mut at = offset;
    let end = offset.saturating_add(len);
    while at < end {
        let step = (PAGE_SIZE - at % PAGE_SIZE).min(end - at);
        let state = usize::try_from(at / PAGE_SIZE).ok().and_then(|page| states.get(page));
        if let Some(state) = state
            && state.is_marked()
        {
            state.written(at, step);
        }
        at += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_into_a_marked_chunk_counts_the_version_up_once() {
        let state = CodeState::default();
        let version = state.mark(0x100, 0x10, || ());
        assert!(!state.written(0x180, 8));
        assert!(!state.written(0xfc, 4));
        assert_eq!(state.version(), version);
        assert!(state.written(0xfc, 5));
        assert_eq!(state.version(), version + 1);
        assert!(!state.written(0x100, 1));
        assert!(!state.is_marked());
    }

    #[test]
    fn the_barrier_comes_once_for_each_new_mark() {
        let state = CodeState::default();
        let mut barriers = 0;
        state.mark(0, 1, || barriers += 1);
        state.mark(0, 1, || barriers += 1);
        assert_eq!(barriers, 1);
        state.mark(0xfff, 1, || barriers += 1);
        assert_eq!(barriers, 2);
        state.written(0, 1);
        state.mark(0xfff, 1, || barriers += 1);
        assert_eq!(barriers, 3);
    }

    #[test]
    fn a_store_between_mark_and_read_makes_the_decoding_out_of_date() {
        let state = CodeState::default();
        let version = state.mark(0, 1, || assert!(state.written(0, 1)));
        assert_ne!(version, state.version());
    }

    #[test]
    fn a_device_may_store_across_pages_and_past_the_end() {
        let states = states(2 * PAGE_SIZE);
        let before = states[1].mark(0, 1, || ());
        device_wrote(states, PAGE_SIZE - 1, 2);
        assert_eq!(states[1].version(), before + 1);
        assert_eq!(states[0].version(), 0);
        device_wrote(states, u64::MAX - 1, 2);
    }
}
