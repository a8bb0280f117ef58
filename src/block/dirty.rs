//! Dirty bitmaps: which parts of a disk were written.

/// One bit for each `granularity` bytes of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirtyBits {
    size: u64,
    shift: u32,
    words: Vec<u64>,
}

impl DirtyBits {
    /// All clean. `granularity` is a power of two.
    #[must_use]
    pub fn new(size: u64, granularity: u64) -> Self {
        let shift = granularity.trailing_zeros();
        let bits = size.div_ceil(1 << shift);
        Self { size, shift, words: vec![0; usize::try_from(bits.div_ceil(64)).unwrap_or(0)] }
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that one bit stands for.
    #[must_use]
    pub fn granularity(&self) -> u64 {
        1 << self.shift
    }

    /// Marks a range of bytes as written.
    pub fn set(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        let (first, last) = (offset >> self.shift, (end - 1) >> self.shift);
        let (first_word, last_word) = (first / 64, last / 64);
        for word in first_word..=last_word {
            let from = if word == first_word { first % 64 } else { 0 };
            let to = if word == last_word { last % 64 } else { 63 };
            let mask = u64::MAX >> (63 - (to - from)) << from;
            if let Some(word) = usize::try_from(word).ok().and_then(|word| self.words.get_mut(word)) {
                *word |= mask;
            }
        }
    }

    /// Whether the byte at `offset` is in a part that was written, and up to where that holds.
    #[must_use]
    pub fn run(&self, offset: u64) -> (bool, u64) {
        let bits = self.size.div_ceil(1 << self.shift);
        let first = offset >> self.shift;
        let dirty = self.bit(first);
        let mut bit = first + 1;
        while bit < bits {
            let word = self.words.get(usize::try_from(bit / 64).unwrap_or(usize::MAX)).copied().unwrap_or(0);
            let other = if dirty { !word } else { word } >> (bit % 64);
            if other != 0 {
                bit += u64::from(other.trailing_zeros());
                break;
            }
            bit = (bit / 64 + 1) * 64;
        }
        (dirty, (bit << self.shift).min(self.size))
    }

    fn bit(&self, bit: u64) -> bool {
        let word = self.words.get(usize::try_from(bit / 64).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        word >> (bit % 64) & 1 != 0
    }

    /// Bytes that are dirty.
    #[must_use]
    pub fn count(&self) -> u64 {
        let bits: u64 = self.words.iter().map(|word| u64::from(word.count_ones())).sum();
        (bits << self.shift).min(self.size)
    }

    /// Everything is clean.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds what is dirty in another, of whatever granularity.
    pub fn merge(&mut self, other: &Self) {
        let mut at = 0;
        while at < other.size.min(self.size) {
            let (dirty, end) = other.run(at);
            if dirty {
                self.set(at, end - at);
            }
            at = end;
        }
    }

    /// The disk has another length now; what is new is clean.
    pub fn resize(&mut self, size: u64) {
        self.size = size;
        let bits = size.div_ceil(1 << self.shift);
        self.words.resize(usize::try_from(bits.div_ceil(64)).unwrap_or(0), 0);
        if let Some(last) = self.words.last_mut()
            && !bits.is_multiple_of(64)
        {
            *last &= u64::MAX >> (64 - bits % 64);
        }
    }

    /// The bits, least significant first, as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = usize::try_from(self.size.div_ceil(1 << self.shift).div_ceil(8)).unwrap_or(0);
        let mut all: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        all.truncate(bytes);
        all
    }

    /// Adds bits, stored as by [`DirtyBits::to_bytes`], from byte number `at` on.
    pub fn add_bytes(&mut self, at: usize, bytes: &[u8]) {
        let bits = self.size.div_ceil(1 << self.shift);
        for (index, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            let first = (at + index) as u64 * 8;
            if first >= bits {
                break;
            }
            let valid = if bits - first < 8 { byte & ((1 << (bits - first)) - 1) } else { *byte };
            if let Some(word) = self.words.get_mut((at + index) / 8) {
                *word |= u64::from(valid) << (first % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_again() {
        let mut bits = DirtyBits::new(10 << 20, 65536);
        bits.set(100_000, 1);
        bits.set(5 << 20, 5 << 20);
        assert_eq!(bits.run(0), (false, 65536));
        assert_eq!(bits.run(65536), (true, 131_072));
        assert_eq!(bits.run(131_072), (false, 5 << 20));
        assert_eq!(bits.run(6 << 20), (true, 10 << 20));
        assert_eq!(bits.count(), 65536 + (5 << 20));
    }

    #[test]
    fn other_granularities_are_merged() {
        let mut fine = DirtyBits::new(1 << 20, 512);
        fine.set(70_000, 600);
        let mut coarse = DirtyBits::new(1 << 20, 65536);
        coarse.merge(&fine);
        assert_eq!(coarse.run(0), (false, 65536));
        assert_eq!(coarse.run(65536), (true, 131_072));
        fine.merge(&coarse);
        assert_eq!(fine.count(), 65536);
    }

    #[test]
    fn bytes_come_back_and_what_is_past_the_end_is_ignored() {
        let mut bits = DirtyBits::new(9 * 512, 512);
        bits.set(0, 512);
        bits.set(8 * 512, 512);
        let bytes = bits.to_bytes();
        assert_eq!(bytes, [1, 1]);
        let mut back = DirtyBits::new(9 * 512, 512);
        back.add_bytes(0, &[1, 0xff, 0xff]);
        assert_eq!(back, bits);
    }

    #[test]
    fn a_longer_disk_is_clean_at_its_end_and_a_shorter_one_forgets() {
        let mut bits = DirtyBits::new(1 << 20, 512);
        bits.set(0, 1 << 20);
        bits.resize(1000);
        assert_eq!(bits.count(), 1000);
        bits.resize(1 << 20);
        assert_eq!(bits.run(0), (true, 1024));
        assert_eq!(bits.run(1024), (false, 1 << 20));
    }
}
