//! References to clusters as a check counts them: sparse, bounded.

use std::collections::BTreeMap;
use std::io;

use super::counts::{self, Counts};
use crate::block::node::IoResult;

/// Clusters in one piece.
const PIECE: u64 = 4096;

/// Pieces at most: a GiB of memory.
const MAX_PIECES: usize = 65536;

/// How often each cluster of a file is used.
#[derive(Default)]
pub(super) struct References {
    pieces: BTreeMap<u64, Box<[u32]>>,
}

impl References {
    /// `times` more references to a cluster.
    ///
    /// # Errors
    /// There are too many far apart.
    pub(super) fn add(&mut self, cluster: u64, times: u32) -> IoResult<()> {
        let key = cluster / PIECE;
        if self.pieces.len() >= MAX_PIECES && !self.pieces.contains_key(&key) {
            return Err(io::Error::from_raw_os_error(27)); // EFBIG
        }
        let piece = self.pieces.entry(key).or_insert_with(|| vec![0; 4096].into_boxed_slice());
        if let Some(count) = piece.get_mut(usize::try_from(cluster % PIECE).unwrap_or(0)) {
            *count = count.saturating_add(times);
        }
        Ok(())
    }

    pub(super) fn get(&self, cluster: u64) -> u64 {
        let piece = self.pieces.get(&(cluster / PIECE));
        piece.and_then(|piece| piece.get(usize::try_from(cluster % PIECE).ok()?)).copied().map_or(0, u64::from)
    }

    /// The cluster behind the last one that may have references.
    pub(super) fn end(&self) -> u64 {
        self.pieces.last_key_value().map_or(0, |(key, _)| (key + 1) * PIECE)
    }

    /// The first cluster from `from` on that may have references.
    pub(super) fn next(&self, from: u64) -> u64 {
        match self.pieces.range(from / PIECE..).next() {
            Some((key, _)) => from.max(key * PIECE),
            None => u64::MAX,
        }
    }

    /// As packed counts; what is too large becomes the largest, and is reported.
    pub(super) fn packed(&self, order: u32) -> (Counts, Vec<u64>) {
        let mut packed = Counts::new(order);
        let mut clamped = Vec::new();
        for (key, piece) in &self.pieces {
            for (index, count) in piece.iter().enumerate().filter(|(_, count)| **count > 0) {
                let cluster = key * PIECE + index as u64;
                if u64::from(*count) > counts::max(order) {
                    clamped.push(cluster);
                }
                packed.set(cluster, u64::from(*count));
            }
        }
        (packed, clamped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_counted_and_bounded() {
        let mut references = References::default();
        references.add(5, 1).unwrap();
        references.add(5, 2).unwrap();
        references.add(1 << 40, 1).unwrap();
        assert_eq!((references.get(5), references.get(6), references.get(1 << 40)), (3, 0, 1));
        assert_eq!((references.next(0), references.next(5000)), (0, 1 << 40));
        let far = (0..MAX_PIECES as u64 + 1).find(|n| references.add(n * PIECE * 2, 1).is_err());
        assert!(far.is_some());
    }

    #[test]
    fn counts_that_do_not_fit_are_named() {
        let mut references = References::default();
        references.add(5, 3).unwrap();
        let (packed, clamped) = references.packed(1);
        assert_eq!((packed.get(5), clamped), (3, vec![]));
        let (packed, clamped) = references.packed(0);
        assert_eq!((packed.get(5), clamped), (1, vec![5]));
    }
}
