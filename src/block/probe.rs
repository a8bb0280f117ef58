//! Which format an image is in, judged by its first bytes (each format's own magic number).

/// What the first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guess {
    /// Nothing that is known: a raw disk.
    Raw,
    /// qcow2, version 2 or later.
    Qcow2,
    /// A format that QEMU has and this program does not.
    Other(&'static str),
}

/// How many bytes [`guess`] wants to see.
pub const PROBE_BYTES: usize = 2048;

/// Magic numbers and where they are.
const MAGICS: [(usize, &[u8], &str); 13] = [
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"LUKS\xba\xbe", "luks"),
    (0, b"QED\0", "qed"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"conectix", "vpc"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
    (0, b"QFI\xfb\0\0\0\x01", "qcow"),
    (0, b"# Disk DescriptorFile", "vmdk"),
];

/// Judges the first bytes of a file.
#[must_use]
pub fn guess(head: &[u8]) -> Guess {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((_, _, name)) = MAGICS.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return Guess::Other(name);
    }
    let version = head.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    if at(0, b"QFI\xfb") && version >= 2 { Guess::Qcow2 } else { Guess::Raw }
}

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
        assert_eq!(guess(b"QFI\xfb\0\0\0\x03"), Guess::Qcow2);
        assert_eq!(guess(b"QFI\xfb\0\0\0\x01"), Guess::Other("qcow"));
        assert_eq!(guess(b"KDMV\0"), Guess::Other("vmdk"));
        assert_eq!(guess(b""), Guess::Raw);
        assert_eq!(guess(&[0; 512]), Guess::Raw);
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
