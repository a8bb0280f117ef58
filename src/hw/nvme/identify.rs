//! What IDENTIFY returns (NVMe 1.4 5.15.2).

use super::admin::{ABORTS, EVENT_REQUESTS};
use super::controller::Namespace;
use super::spec::{VENDOR, VERSION};
use super::{MAX_NAMESPACES, Options};

/// Text in a field, filled with blanks.
fn text(bytes: &mut [u8], text: &str) {
    bytes.fill(b' ');
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

/// The controller (figure 247).
pub(super) fn controller(options: &Options, write_cache: bool) -> Vec<u8> {
    // Compare, dataset management, write zeroes.
    const ONCS: u16 = 1 << 0 | 1 << 2 | 1 << 3;
    let mut bytes = vec![0; 4096];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &VENDOR.to_le_bytes());
    put(2, &0x1af4u16.to_le_bytes());
    put(72, &[6]); // RAB: 2^6 commands
    put(73, &[0x00, 0x54, 0x52]); // IEEE OUI
    put(77, &[options.mdts]);
    put(80, &VERSION.to_le_bytes());
    put(100, &0u16.to_le_bytes());
    put(111, &[1]); // an I/O controller
    put(258, &[ABORTS, EVENT_REQUESTS]);
    put(260, &[3]); // one firmware slot, read-only
    put(261, &[1 << 1 | 1 << 2]); // effects page, offsets in log pages
    put(266, &0x157u16.to_le_bytes());
    put(268, &0x175u16.to_le_bytes());
    put(512, &[0x66, 0x44]); // 64-byte commands, 16-byte completions
    put(516, &MAX_NAMESPACES.to_le_bytes());
    put(520, &ONCS.to_le_bytes());
    // A write cache that may be there, and FLUSH for all namespaces at once.
    put(525, &[if write_cache { 7 } else { 6 }]);
    put(536, &1u32.to_le_bytes()); // SGLs, any alignment
    let name = format!("nqn.2019-08.org.qemu:{}", options.serial);
    let name = &name.as_bytes()[..name.len().min(223)];
    put(768, name);
    // Power state 0: 25 W, 16 us in, 4 us out.
    put(2048, &0x9c4u16.to_le_bytes());
    put(2052, &0x10u32.to_le_bytes());
    put(2056, &4u32.to_le_bytes());
    text(&mut bytes[4..24], &options.serial);
    text(&mut bytes[24..64], "QEMU NVMe Ctrl");
    text(&mut bytes[64..72], "10.0.2");
    bytes
}

/// A namespace (figure 245): one format, no metadata.
pub(super) fn namespace(namespace: &Namespace) -> Vec<u8> {
    // Thin; deallocated blocks read as zeros, WRITE ZEROES may deallocate.
    const NSFEAT_THIN: u8 = 1;
    const DLFEAT: u8 = 1 | 1 << 3;
    let mut bytes = vec![0; 4096];
    let blocks = namespace.blocks().to_le_bytes();
    for at in [0, 8, 16] {
        bytes[at..at + 8].copy_from_slice(&blocks);
    }
    bytes[24] = NSFEAT_THIN;
    bytes[33] = DLFEAT;
    bytes[120..128].copy_from_slice(&namespace.options.eui64.to_be_bytes());
    bytes[99] = u8::from(namespace.port.read_only());
    bytes[128 + 2] = u8::try_from(namespace.options.block_size.trailing_zeros()).unwrap_or(9);
    bytes
}

/// Namespace identification descriptors (figure 246): type, length, value.
pub(super) fn descriptors(namespace: &Namespace) -> Vec<u8> {
    let mut bytes = Vec::new();
    let options = &namespace.options;
    if options.eui64 != 0 {
        bytes.extend_from_slice(&[1, 8, 0, 0]);
        bytes.extend_from_slice(&options.eui64.to_be_bytes());
    }
    if options.uuid != [0; 16] {
        bytes.extend_from_slice(&[3, 16, 0, 0]);
        bytes.extend_from_slice(&options.uuid);
    }
    bytes.resize(4096, 0);
    bytes
}
