//! `-dfilter`: the addresses of guest code that the items about code are for.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::keyval::value::parse_number;

/// Whether there is a filter at all: the one load that an item costs without one.
static FILTERED: AtomicBool = AtomicBool::new(false);
static FILTER: RwLock<Vec<RangeInclusive<u64>>> = RwLock::new(Vec::new());

/// Whether code at a linear address is wanted: in a range of `-dfilter`, or there is none.
#[must_use]
pub fn in_filter(gva: u64) -> bool {
    if !FILTERED.load(Ordering::Relaxed) {
        return true;
    }
    FILTER.read().unwrap_or_else(PoisonError::into_inner).iter().any(|range| range.contains(&gva))
}

pub(super) fn set(ranges: &[RangeInclusive<u64>]) {
    *FILTER.write().unwrap_or_else(PoisonError::into_inner) = ranges.to_vec();
    FILTERED.store(!ranges.is_empty(), Ordering::Relaxed);
}

/// Reads `-dfilter`: `first..last`, `first+length` or `last-length`, with commas between.
///
/// # Errors
/// QEMU's text.
pub fn parse_filter(text: &str) -> Result<Vec<RangeInclusive<u64>>, String> {
    text.split(',').map(range).collect()
}

fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let mut found = ["-", "+", ".."].into_iter().filter_map(|operator| Some((operator, text.split_once(operator)?)));
    let Some((operator, (left, right))) = found.next() else { return Err("Bad range specifier".to_owned()) };
    let number = |text| parse_number("", text);
    let left = number(left).map_err(|_| format!("Invalid number to the left of {operator}"))?;
    let right = number(right).map_err(|_| format!("Invalid number to the right of {operator}"))?;
    // A length of zero is no range.
    let length = right.checked_sub(1);
    let ends = match operator {
        "+" => length.and_then(|more| Some((left, left.checked_add(more)?))),
        "-" => length.and_then(|more| Some((left.checked_sub(more)?, left))),
        _ => (left <= right).then_some((left, right)),
    };
    ends.map(|(first, last)| first..=last).ok_or_else(|| "Invalid range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_in_three_ways() {
        let ranges = parse_filter("0x1000+0x10,0x2000..0x2000,0x3000-020").unwrap();
        assert_eq!(ranges, [0x1000..=0x100f, 0x2000..=0x2000, 0x2ff1..=0x3000]);
        assert_eq!(parse_filter("0..0xffffffffffffffff").unwrap(), [0..=u64::MAX]);
    }

    #[test]
    fn refusals_read_as_qemus() {
        // From QEMU 10.0.2.
        let error = |text| parse_filter(text).unwrap_err();
        assert_eq!(error("0x1000"), "Bad range specifier");
        assert_eq!(error("1+2,"), "Bad range specifier");
        assert_eq!(error("0x1000+"), "Invalid number to the right of +");
        assert_eq!(error("foo+1"), "Invalid number to the left of +");
        assert_eq!(error("0x10..zz"), "Invalid number to the right of ..");
        assert_eq!(error("1..2..3"), "Invalid number to the right of ..");
        assert_eq!(error("0x1000+0"), "Invalid range");
        assert_eq!(error("0x5-0x10"), "Invalid range");
        assert_eq!(error("0x2..0x1"), "Invalid range");
        assert_eq!(error("0xffffffffffffffff+2"), "Invalid range");
    }
}
