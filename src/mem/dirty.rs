//! Which pages of a block were written since somebody last looked.

use std::sync::atomic::{AtomicU64, Ordering};

/// The granularity of dirty tracking and of accelerator memory slots, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// One bit a page; set by whoever writes the block, taken by whoever draws or copies it.
#[derive(Debug)]
pub struct DirtyPages {
    words: Vec<AtomicU64>,
}

impl DirtyPages {
    /// All pages of a block of `len` bytes, clean.
    #[must_use]
    pub fn new(len: u64) -> Self {
        let words = len.div_ceil(PAGE_SIZE).div_ceil(64);
        let words = usize::try_from(words).expect("the bitmap is smaller than the block, which is mapped");
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Marks the pages that `offset .. offset + len` (bytes) touches. What lies outside the block is ignored.
    pub fn mark(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = offset.saturating_add(len - 1) / PAGE_SIZE;
        let mut page = offset / PAGE_SIZE;
        while page <= last {
            let Some(word) = usize::try_from(page / 64).ok().and_then(|i| self.words.get(i)) else { return };
            let first_bit = page % 64;
            let last_bit = if last / 64 == page / 64 { last % 64 } else { 63 };
            let mask = (u64::MAX << first_bit) & (u64::MAX >> (63 - last_bit));
            word.fetch_or(mask, Ordering::Release);
            page = (page / 64 + 1) * 64;
        }
    }

    /// Marks the pages of a bitmap that starts at page `first_page`, as `KVM_GET_DIRTY_LOG` returns it.
    pub fn mark_bitmap(&self, first_page: u64, bitmap: &[u64]) {
        for (index, word) in (0u64..).zip(bitmap) {
            let mut left = *word;
            while left != 0 {
                let page = first_page + index * 64 + u64::from(left.trailing_zeros());
                self.mark(page * PAGE_SIZE, 1);
                left &= left - 1;
            }
        }
    }

    /// Whether any page of `offset .. offset + len` is marked; unmarks them all.
    pub fn take(&self, offset: u64, len: u64) -> bool {
        let mut dirty = false;
        self.take_each(offset, len, |_| dirty = true);
        dirty
    }

    /// Unmarks the pages that `offset .. offset + len` touches and calls `dirty` with the byte offset of each that
    /// was marked, in order.
    pub fn take_each(&self, offset: u64, len: u64, mut dirty: impl FnMut(u64)) {
        if len == 0 {
            return;
        }
        let last = offset.saturating_add(len - 1) / PAGE_SIZE;
        let mut page = offset / PAGE_SIZE;
        while page <= last {
            let Some(word) = usize::try_from(page / 64).ok().and_then(|i| self.words.get(i)) else { return };
            let last_bit = if last / 64 == page / 64 { last % 64 } else { 63 };
            let mask = (u64::MAX << (page % 64)) & (u64::MAX >> (63 - last_bit));
            let mut taken = if word.load(Ordering::Relaxed) & mask == 0 {
                0
            } else {
                word.fetch_and(!mask, Ordering::Acquire) & mask
            };
            let base = page / 64 * 64;
            while taken != 0 {
                dirty((base + u64::from(taken.trailing_zeros())) * PAGE_SIZE);
                taken &= taken - 1;
            }
            page = base + 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_takes_ranges_across_words() {
        let pages = DirtyPages::new(200 * PAGE_SIZE);
        pages.mark(60 * PAGE_SIZE + 5, 70 * PAGE_SIZE);
        let mut seen = Vec::new();
        pages.take_each(0, 200 * PAGE_SIZE, |offset| seen.push(offset / PAGE_SIZE));
        assert_eq!(seen, (60..=130).collect::<Vec<_>>());
        assert!(!pages.take(0, 200 * PAGE_SIZE));
    }

    #[test]
    fn what_lies_outside_the_block_is_ignored() {
        let pages = DirtyPages::new(PAGE_SIZE);
        pages.mark(u64::MAX - 3, 10);
        pages.mark_bitmap(1 << 40, &[u64::MAX]);
        assert!(!pages.take(0, u64::MAX));
    }
}
