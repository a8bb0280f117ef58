//! Which format an image is in, judged by its first bytes.

use super::driver::{DRIVERS, Driver};

/// How many bytes [`guess`] wants to see.
pub const PROBE_BYTES: usize = 2048;

/// The format that is surest of the first bytes of a file; `None`: nothing that is known, a raw disk.
#[must_use]
pub fn guess(head: &[u8], filename: &str) -> Option<&'static dyn Driver> {
    let scores = DRIVERS.iter().map(|driver| (driver.probe(head, filename), *driver));
    let best = scores.filter(|(score, _)| *score > 0).reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, driver)| driver)
}

/// A format of QEMU's that this program does not have, by the magic number.
#[must_use]
pub fn other(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    OTHER_MAGICS.iter().find(|(offset, magic, _)| at(*offset, magic)).map(|(_, _, name)| *name)
}

/// Magic numbers and where they are.
const OTHER_MAGICS: [(usize, &[u8], &str); 1] = [(0, b"LUKS\xba\xbe", "luks")];

/// QEMU's warning when a format was not named and nothing was recognised.
#[must_use]
pub fn raw_warning(filename: &str) -> String {
    format!(
        "WARNING: Image format was not specified for '{filename}' and probing guessed raw.\n         \
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be \
         restricted.\n         Specify the 'raw' format explicitly to remove the restrictions."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_numbers_decide() {
        let name = |head: &[u8]| guess(head, "x").map(Driver::name);
        assert_eq!(name(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(name(b""), None);
        assert_eq!(name(&[0; 512]), None);
    }

    #[test]
    fn the_warning_is_that_of_qemu() {
        assert_eq!(
            raw_warning("r.raw"),
            "WARNING: Image format was not specified for 'r.raw' and probing guessed raw.\n\
             \x20        Automatically detecting the format is dangerous for raw images, write operations on block 0 \
             will be restricted.\n\
             \x20        Specify the 'raw' format explicitly to remove the restrictions."
        );
    }
}
