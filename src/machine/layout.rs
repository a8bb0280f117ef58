//! Where a PC's memory is, and how its firmware is told: CMOS bytes and the E820 map.

use super::config::{BootSpec, Chipset, Smp};

/// Where 32-bit device memory begins on a machine with little memory. QEMU's i440FX machines keep 512 MiB below
/// 4 GiB for it, and a whole gigabyte once RAM reaches that far.
const HOLE_START: u64 = 0xe000_0000;
const HOLE_START_LARGE: u64 = 0xc000_0000;
/// QEMU's Q35 machines have the memory window on configuration space there, and round RAM to 2 GiB below.
const Q35_HOLE_START: u64 = 0xb000_0000;
const Q35_HOLE_START_LARGE: u64 = 0x8000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// RAM of a PC, split around the hole for devices below 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RamLayout {
    /// Bytes from address 0.
    pub below_4g: u64,
    /// Bytes from 4 GiB on.
    pub above_4g: u64,
}

impl RamLayout {
    /// The split of `size` bytes.
    #[must_use]
    pub fn new(size: u64, chipset: Chipset) -> Self {
        let (start, large) = match chipset {
            Chipset::I440fx => (HOLE_START, HOLE_START_LARGE),
            Chipset::Q35 => (Q35_HOLE_START, Q35_HOLE_START_LARGE),
        };
        if size >= start {
            Self { below_4g: large, above_4g: size - large }
        } else {
            Self { below_4g: size, above_4g: 0 }
        }
    }

    /// The address after the last byte of RAM.
    #[must_use]
    pub fn end(self) -> u64 {
        if self.above_4g > 0 { FOUR_GIB + self.above_4g } else { self.below_4g }
    }

    /// The map as `etc/e820` has it: records of address, length (64 bits each) and type (32 bits, 1 = RAM, 2 =
    /// reserved), little-endian. The firmware cuts the legacy hole and its own tables out by itself.
    #[must_use]
    pub fn e820(self) -> Vec<u8> {
        let mut table = Vec::new();
        // Pages that KVM uses on some hosts (accel::kvm::IDENTITY_MAP_ADDRESS); QEMU reserves them on all.
        let kvm = (0xfeff_c000, 0x4000);
        let mut entry = |start: u64, len: u64, kind: u32| {
            table.extend_from_slice(&start.to_le_bytes());
            table.extend_from_slice(&len.to_le_bytes());
            table.extend_from_slice(&kind.to_le_bytes());
        };
        entry(0, self.below_4g, 1);
        entry(kvm.0, kvm.1, 2);
        if self.above_4g > 0 {
            entry(FOUR_GIB, self.above_4g, 1);
        }
        table
    }

    /// The CMOS bytes that describe memory (offset, value): base memory in KiB (15h), extended memory in KiB (17h,
    /// 30h), memory above 16 MiB in 64-KiB units (34h), above 4 GiB likewise (5Bh).
    #[must_use]
    pub fn cmos(self) -> Vec<(u8, u8)> {
        let mut bytes = Vec::new();
        let mut word = |at: u8, value: u64| {
            let [low, high, ..] = value.min(0xffff).to_le_bytes();
            bytes.extend([(at, low), (at + 1, high)]);
        };
        word(0x15, 640.min(self.below_4g / 1024));
        let extended = self.below_4g.saturating_sub(1 << 20) / 1024;
        word(0x17, extended);
        word(0x30, extended);
        word(0x34, self.below_4g.saturating_sub(16 << 20) / 65536);
        let high = self.above_4g / 65536;
        word(0x5b, high & 0xffff);
        bytes.push((0x5d, u8::try_from(high >> 16 & 0xff).unwrap_or(0)));
        bytes
    }
}

/// The boot device nibble of a drive letter: floppy, hard disk, CD-ROM, network.
fn boot_nibble(letter: char) -> u8 {
    match letter {
        'a' | 'b' => 1,
        'c' => 2,
        'd' => 3,
        'n'..='p' => 4,
        _ => 0,
    }
}

/// The CMOS bytes for the boot order (3Dh, 38h): three nibbles, first boot device lowest, and bit 0 of 38h to skip
/// the floppy signature check.
#[must_use]
pub fn boot_order_cmos(order: &str) -> [(u8, u8); 2] {
    let mut nibbles = order.chars().map(boot_nibble);
    let mut next = || nibbles.next().unwrap_or(0);
    let (first, second, third) = (next(), next(), next());
    [(0x3d, first | second << 4), (0x38, third << 4)]
}

/// The boot order to use now: `once` counts for the first boot only.
#[must_use]
pub fn effective_order(boot: &BootSpec, first_boot: bool) -> &str {
    let normal = if boot.order.is_empty() { "cad" } else { &boot.order };
    match &boot.once {
        Some(once) if first_boot => once,
        _ => normal,
    }
}

/// The CMOS byte for the number of CPUs at start, less one (5Fh).
#[must_use]
pub fn cpus_cmos(smp: Smp) -> (u8, u8) {
    (0x5f, u8::try_from(smp.cpus.saturating_sub(1)).unwrap_or(u8::MAX))
}

/// A hard disk's geometry as CMOS has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskGeometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads.
    pub heads: u8,
    /// Sectors a track.
    pub sectors: u8,
    /// The BIOS's translation: 0 none, 1 LBA, 2 large, 3 "r-echs".
    pub translation: u8,
}

/// The CMOS bytes of up to four IDE disks: types (12h, 19h, 1Ah), parameters of the first two (1Bh, 24h), and the
/// translation of all four (39h, two bits each).
#[must_use]
pub fn disks_cmos(disks: &[Option<DiskGeometry>; 4]) -> Vec<(u8, u8)> {
    let mut bytes = Vec::new();
    let mut types = 0;
    for ((disk, nibble), (type_at, at)) in disks.iter().zip([4, 0]).zip([(0x19, 0x1b), (0x1a, 0x24)]) {
        let Some(disk) = disk else { continue };
        types |= 0xf << nibble;
        let [low, high] = disk.cylinders.to_le_bytes();
        let control = 0xc0 | u8::from(disk.heads > 8) << 3;
        bytes.extend([(type_at, 47), (at, low), (at + 1, high), (at + 2, disk.heads), (at + 3, 0xff), (at + 4, 0xff)]);
        bytes.extend([(at + 5, control), (at + 6, low), (at + 7, high), (at + 8, disk.sectors)]);
    }
    bytes.push((0x12, types));
    let translation = disks
        .iter()
        .enumerate()
        .fold(0, |bits, (index, disk)| bits | disk.map_or(0, |disk| (disk.translation & 3) << (2 * index)));
    bytes.push((0x39, translation));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[(u8, u8)], at: u8) -> u8 {
        bytes.iter().find(|(offset, _)| *offset == at).map_or(0, |(_, value)| *value)
    }

    #[test]
    fn memory_below_the_hole_is_one_piece() {
        let layout = RamLayout::new(128 << 20, Chipset::I440fx);
        assert_eq!(layout, RamLayout { below_4g: 128 << 20, above_4g: 0 });
        assert_eq!(layout.e820().len(), 40);
        let cmos = layout.cmos();
        assert_eq!(u16::from_le_bytes([value(&cmos, 0x34), value(&cmos, 0x35)]), 0x700);
    }

    #[test]
    fn memory_that_reaches_the_hole_goes_above_4_gib() {
        let layout = RamLayout::new(4 << 30, Chipset::I440fx);
        assert_eq!(layout, RamLayout { below_4g: 3 << 30, above_4g: 1 << 30 });
        assert_eq!(layout.end(), 5 << 30);
        assert_eq!(value(&layout.cmos(), 0x5c), 0x40);
    }

    #[test]
    fn q35_leaves_room_for_its_window() {
        let below = RamLayout::new(0xafff_f000, Chipset::Q35);
        assert_eq!((below.below_4g, below.above_4g), (0xafff_f000, 0));
        let layout = RamLayout::new(3 << 30, Chipset::Q35);
        assert_eq!(layout, RamLayout { below_4g: 2 << 30, above_4g: 1 << 30 });
    }

    #[test]
    fn the_boot_order_is_nibbles() {
        assert_eq!(boot_order_cmos("cad"), [(0x3d, 0x12), (0x38, 0x30)]);
        let boot = BootSpec { once: Some("d".into()), ..BootSpec::default() };
        assert_eq!((effective_order(&boot, true), effective_order(&boot, false)), ("d", "cad"));
    }
}
