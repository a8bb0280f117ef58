//! Finding zeros in buffers.

use std::ops::Range;

/// Bytes that one step looks at: the compiler turns a step into a few vector instructions.
const STEP: usize = 128;

/// Whether all bytes are zero.
pub(super) fn is_zero(buf: &[u8]) -> bool {
    let (steps, rest) = buf.as_chunks::<STEP>();
    steps.iter().all(|step| step.iter().fold(0, |all, byte| all | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Splits a buffer into runs that are zero throughout and runs that are not, at multiples of `unit` bytes (at least 1);
/// calls `run(zero, range)` for each in order until one fails.
pub(super) fn runs<E>(
    buf: &[u8],
    unit: usize,
    mut run: impl FnMut(bool, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let unit = unit.max(1);
    let mut start = 0;
    let mut state = None;
    for (index, chunk) in buf.chunks(unit).enumerate() {
        let zero = is_zero(chunk);
        match state {
            Some(before) if before != zero => {
                run(before, start..index * unit)?;
                start = index * unit;
                state = Some(zero);
            }
            _ => state = Some(zero),
        }
    }
    state.map_or(Ok(()), |zero| run(zero, start..buf.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_byte_counts() {
        let mut buf = vec![0; 1000];
        assert!(is_zero(&buf) && is_zero(&[]));
        buf[999] = 1;
        assert!(!is_zero(&buf));
        buf[999] = 0;
        buf[127] = 0x80;
        assert!(!is_zero(&buf));
    }

    #[test]
    fn runs_cover_the_buffer_in_order() {
        let mut buf = vec![0; 1000];
        buf[100..300].fill(1);
        let mut found = Vec::new();
        runs(&buf, 100, |zero, range| {
            found.push((zero, range));
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!(found, [(true, 0..100), (false, 100..300), (true, 300..1000)]);
        runs(&[], 100, |_, _| Err(())).unwrap();
    }
}
