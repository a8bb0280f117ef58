//! Reference counts packed as refcount blocks hold them (qcow2.rst, "Host cluster management").

/// Where the count number `index` is in packed counts: byte offset of its word, width of the word in bytes, shift.
pub(super) fn place(order: u32, index: u64) -> (u64, usize, u32) {
    if order >= 3 {
        let width = 1 << (order - 3);
        return (index * width, usize::try_from(width).unwrap_or(8), 0);
    }
    let per_byte_bits = 3 - order;
    let within = (index & ((1 << per_byte_bits) - 1)) as u32;
    (index >> per_byte_bits, 1, within << order)
}

/// The largest count of a width.
pub(super) fn max(order: u32) -> u64 {
    if order >= 6 { u64::MAX } else { (1 << (1 << order)) - 1 }
}

/// The counts of all clusters of a file, as long as needed; what is behind its end is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    order: u32,
    bytes: Vec<u8>,
}

impl Counts {
    pub(super) fn new(order: u32) -> Self {
        Self { order, bytes: Vec::new() }
    }

    pub(super) fn order(&self) -> u32 {
        self.order
    }

    pub(super) fn get(&self, index: u64) -> u64 {
        let (at, width, shift) = place(self.order, index);
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let Some(bytes) = at.checked_add(width).and_then(|end| self.bytes.get(at..end)) else { return 0 };
        bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)) >> shift & max(self.order)
    }

    /// Stores a count; the array grows if it must. Counts that are too large become the largest.
    pub(super) fn set(&mut self, index: u64, count: u64) {
        let (at, width, shift) = place(self.order, index);
        let at = usize::try_from(at).unwrap_or(usize::MAX - 8);
        if at + width > self.bytes.len() {
            if count == 0 {
                return;
            }
            self.bytes.resize((at + width).next_multiple_of(512), 0);
        }
        let word = &mut self.bytes[at..at + width];
        let count = count.min(max(self.order));
        if self.order >= 3 {
            word.copy_from_slice(&count.to_be_bytes()[8 - width..]);
        } else {
            let mask = u8::try_from(max(self.order) << shift).unwrap_or(u8::MAX);
            word[0] = word[0] & !mask | u8::try_from(count << shift).unwrap_or(0);
        }
    }

    /// Appends what a refcount block holds, at the place of block number `index`.
    pub(super) fn put_block(&mut self, index: usize, block: &[u8]) {
        let at = index * block.len();
        if self.bytes.len() < at + block.len() {
            self.bytes.resize(at + block.len(), 0);
        }
        self.bytes[at..at + block.len()].copy_from_slice(block);
    }

    /// Block number `index` of `len` bytes; `None` if all its counts are 0.
    pub(super) fn block(&self, index: usize, len: usize) -> Option<Vec<u8>> {
        let bytes = self.bytes.get(index * len..)?;
        let bytes = &bytes[..bytes.len().min(len)];
        if bytes.iter().all(|byte| *byte == 0) {
            return None;
        }
        let mut block = bytes.to_vec();
        block.resize(len, 0);
        Some(block)
    }

    /// The cluster behind the last one with a count.
    pub(super) fn end(&self) -> u64 {
        let Some(last) = self.bytes.iter().rposition(|byte| *byte != 0) else { return 0 };
        let mut index = ((last as u64 + 1) * 8).div_ceil(1 << self.order);
        while index > 0 && self.get(index - 1) == 0 {
            index -= 1;
        }
        index
    }

    /// The same counts in another width, and the first cluster whose count does not fit.
    pub(super) fn widened(&self, order: u32) -> Result<Self, u64> {
        let mut other = Self::new(order);
        for index in 0..self.end() {
            let count = self.get(index);
            if count > max(order) {
                return Err(index);
            }
            other.set(index, count);
        }
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_widths_come_back() {
        for order in 0..=6 {
            let mut counts = Counts::new(order);
            for index in 0..1000 {
                counts.set(index * 3, index & max(order));
            }
            assert!((0..1000).all(|index| counts.get(index * 3) == index & max(order)), "order {order}");
            assert!((0..999).all(|index| counts.get(index * 3 + 1) == 0), "order {order}");
            assert_eq!(counts.end(), 999 * 3 + 1);
        }
    }

    #[test]
    fn blocks_are_cut_out_and_put_back() {
        let mut counts = Counts::new(4);
        counts.set(300, 7);
        assert_eq!(counts.block(0, 512), None);
        let block = counts.block(1, 512).unwrap();
        let mut copy = Counts::new(4);
        copy.put_block(1, &block);
        assert_eq!((copy.get(300), copy.end()), (7, 301));
    }

    #[test]
    fn a_count_that_does_not_fit_is_named() {
        let mut counts = Counts::new(4);
        counts.set(5, 2);
        assert_eq!(counts.widened(0), Err(5));
        assert_eq!(counts.widened(6).unwrap().get(5), 2);
    }
}
