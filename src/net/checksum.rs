//! The Internet checksum (RFC 1071).

/// A running one's-complement sum over bytes in network order.
///
/// Pieces of odd length may be added; what follows continues at the odd byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    /// An empty sum.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, mut data: &[u8]) -> Self {
        if self.odd
            && let Some((first, rest)) = data.split_first()
        {
            self.total += u64::from(*first);
            self.odd = false;
            data = rest;
        }
        // RFC 1071 2(C): sums of wider words fold to the same result; 32-bit lanes in 64-bit sums cannot overflow
        // below 2^32 words.
        let (words, rest) = data.as_chunks::<4>();
        let wide: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
        self.total = fold32(self.total) + fold32(wide);
        let (pairs, rest) = rest.as_chunks::<2>();
        self.total += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        if let [last] = rest {
            self.total += u64::from(*last) << 8;
            self.odd = true;
        }
        self
    }

    /// Adds a 16-bit number; no odd piece may come before it.
    #[must_use]
    pub fn word(mut self, word: u16) -> Self {
        self.total += u64::from(word);
        self
    }

    /// The sum in 16 bits, not complemented: what partial checksums start from.
    #[must_use]
    pub fn folded(self) -> u16 {
        let mut total = fold32(self.total);
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap_or(u16::MAX)
    }

    /// The checksum: the complement of the sum.
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.folded()
    }
}

fn fold32(total: u64) -> u64 {
    (total & 0xffff_ffff) + (total >> 32)
}

/// The checksum of `data`.
#[must_use]
pub fn of(data: &[u8]) -> u16 {
    Sum::new().bytes(data).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&data).folded(), 0xddf2);
    }

    #[test]
    fn pieces_of_any_length_give_the_sum_of_the_whole() {
        let data: Vec<u8> = (0..101u8).map(|i| i.wrapping_mul(37)).collect();
        let whole = Sum::new().bytes(&data).folded();
        for cut in 0..data.len() {
            let (a, b) = data.split_at(cut);
            assert_eq!(Sum::new().bytes(a).bytes(b).folded(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_widest_carries_fold() {
        assert_eq!(Sum::new().bytes(&[0xff; 65536]).folded(), 0xffff);
        assert_eq!(of(&[]), 0xffff);
    }
}
