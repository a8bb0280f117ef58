//! The 440FX host bridge (82441FX): PAM and SMRAM decide what answers between A0000h and FFFFFh.
//!
//! Documents: Intel 82441FX (PMC) and 82442FX (DBX) data sheet, section 3.2.
//!
//! DRAM timing, ECC and the like are registers without effect. System management mode is not modelled: SMRAM can be
//! opened (D_OPEN) and locked, and that is all.

use std::sync::Arc;

use crate::bus::{At, ConfigChange, ConfigSpace, Device, MmioTarget, PciFunction, RegionHandle, Reset};
use crate::mem::{Backing, RamBlock, RomWrites};

/// Where the 13 segments of [`I440fx::new`] are: (start, length).
pub const PAM_SEGMENTS: [(u64, u64); 13] = [
    (0xf_0000, 0x1_0000),
    (0xc_0000, 0x4000),
    (0xc_4000, 0x4000),
    (0xc_8000, 0x4000),
    (0xc_c000, 0x4000),
    (0xd_0000, 0x4000),
    (0xd_4000, 0x4000),
    (0xd_8000, 0x4000),
    (0xd_c000, 0x4000),
    (0xe_0000, 0x4000),
    (0xe_4000, 0x4000),
    (0xe_8000, 0x4000),
    (0xe_c000, 0x4000),
];

/// SMRAM's window for [`I440fx::new`]: (start, length).
pub const SMRAM_WINDOW: (u64, u64) = (0xa_0000, 0x2_0000);

/// PAM0-PAM6 (3.2.18).
const PAM: usize = 0x59;
/// System management RAM control (3.2.26).
const SMRAM: usize = 0x72;
/// DRAM row boundaries end here; firmware without fw_cfg reads the RAM size, in units of 8 MiB, from byte 57h.
const RAM_SIZE_8_MIB: usize = 0x57;

mod pam {
    pub const READ: u8 = 1 << 0;
    pub const WRITE: u8 = 1 << 1;
}

mod smram {
    pub const GLOBAL_ENABLE: u8 = 1 << 3;
    pub const LOCK: u8 = 1 << 4;
    pub const OPEN: u8 = 1 << 6;
    /// The base segment, A0000h, is hard-wired.
    pub const BASE_A0000: u8 = 2;
}

/// One of [`PAM_SEGMENTS`] as the machine maps it.
#[derive(Debug)]
pub struct PamSegment {
    /// A mapping over the segment, above what the PCI bus has there (ROM, option ROMs). While the segment's attributes
    /// say "PCI" it is hidden; it starts hidden.
    pub region: RegionHandle,
    /// The RAM of the segment: block and offset.
    pub ram: (Arc<RamBlock>, u64),
    /// What reads see while only writes go to RAM: the ROM that lies on the PCI bus there. Without one, such reads
    /// see the RAM.
    pub rom: Option<(Arc<RamBlock>, u64)>,
}

impl PamSegment {
    pub(super) fn apply(&self, attributes: u8) {
        let (block, offset) = (Arc::clone(&self.ram.0), self.ram.1);
        let backing: Backing<MmioTarget> = match (attributes & pam::READ != 0, attributes & pam::WRITE != 0, &self.rom)
        {
            (false, false, _) => return self.region.set_enabled(false),
            (true, false, _) => Backing::Rom { block, offset, writes: RomWrites::Lost },
            (false, true, Some((rom, rom_offset))) => {
                Backing::Rom { block: Arc::clone(rom), offset: *rom_offset, writes: RomWrites::Ram { block, offset } }
            }
            (true, true, _) | (false, true, None) => Backing::Ram { block, offset },
        };
        self.region.set_backing(backing);
        self.region.set_enabled(true);
    }
}

/// The host bridge, function 00:00.0.
#[derive(Debug)]
pub struct I440fx {
    // Wires.
    segments: [PamSegment; 13],
    smram: RegionHandle,
    // Guest-visible state.
    config: ConfigSpace,
    // Derived from it.
    applied: [u8; 13],
    smram_open: bool,
}

impl I440fx {
    /// A bridge for `ram_size` bytes. `smram` is a mapping of RAM over [`SMRAM_WINDOW`], above the VGA's, and hidden.
    #[must_use]
    pub fn new(ram_size: u64, segments: [PamSegment; 13], smram: RegionHandle) -> Self {
        let mut config = ConfigSpace::new(0x8086, 0x1237, 2, 0x06_0000)
            .with_subsystem(0x1af4, 0x1100)
            .with_resume_well(PAM..PAM + 7);
        config.allow_write(0x40, &[0xff; 0xc0]);
        config.set_u8(RAM_SIZE_8_MIB, u8::try_from(ram_size >> 23).unwrap_or(u8::MAX));
        config.set_u8(SMRAM, smram::BASE_A0000);
        Self { segments, smram, config, applied: [0; 13], smram_open: false }
    }

    /// The attributes (read and write enable) of segment `index` of [`PAM_SEGMENTS`].
    fn attributes(&self, index: usize) -> u8 {
        // Segment 0 is the upper half of PAM0, 1 and 2 the halves of PAM1, and so on.
        let byte = self.config.u8(PAM + index.div_ceil(2));
        if index.is_multiple_of(2) { byte >> 4 & 3 } else { byte & 3 }
    }

    /// Makes the memory map follow the registers.
    fn update_memory(&mut self) {
        for index in 0..self.segments.len() {
            let attributes = self.attributes(index);
            if self.applied[index] != attributes {
                self.applied[index] = attributes;
                self.segments[index].apply(attributes);
            }
        }
        let control = self.config.u8(SMRAM);
        let open = control & smram::OPEN != 0 && control & smram::GLOBAL_ENABLE != 0;
        if self.smram_open != open {
            self.smram_open = open;
            self.smram.set_enabled(open);
        }
    }
}

impl Device for I440fx {
    fn read(&mut self, at: At) -> u64 {
        at.width.ones()
    }

    fn write(&mut self, _at: At, _value: u64) {}

    /// The board has reset the configuration space.
    fn reset(&mut self, _kind: Reset) {
        self.config.allow_write(SMRAM, &[0xff]);
        self.update_memory();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for I440fx {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, change: ConfigChange) {
        if change.touches(0x72) {
            let value = self.config.u8(SMRAM) & 0x78 | smram::BASE_A0000;
            let locked = value & smram::LOCK != 0;
            self.config.set_u8(SMRAM, if locked { value & !smram::OPEN } else { value });
            // D_LCK stays until reset, and with it D_OPEN off and the enable as it is (3.2.26).
            self.config.allow_write(SMRAM, &[if locked { 0 } else { 0xff }]);
        }
        self.update_memory();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Board, Decode, DeviceRef, PciAddress};

    const HOST: PciAddress = PciAddress::new(0, 0);

    struct Bench {
        board: Board,
        _bridge: DeviceRef<I440fx>,
    }

    impl Bench {
        /// RAM holds 11h everywhere, the ROM at F0000h 22h.
        fn new() -> Self {
            let mut board = Board::new();
            let ram = RamBlock::anonymous("ram", 0x10_0000).unwrap();
            let rom = RamBlock::anonymous("rom", 0x1_0000).unwrap();
            ram.write(0, &vec![0x11; 0x10_0000]);
            rom.write(0, &vec![0x22; 0x1_0000]);
            let bios = Backing::Rom { block: Arc::clone(&rom), offset: 0, writes: RomWrites::Lost };
            board.map_memory("bios", 0xf_0000, 0x1_0000, 0, bios);
            let segments = PAM_SEGMENTS.map(|(start, len)| {
                let backing = Backing::Ram { block: Arc::clone(&ram), offset: start };
                let region = board.map_memory("pam", start, len, 1, backing);
                region.set_enabled(false);
                let rom = (start == 0xf_0000).then(|| (Arc::clone(&rom), 0));
                PamSegment { region, ram: (Arc::clone(&ram), start), rom }
            });
            let (start, len) = SMRAM_WINDOW;
            let backing = Backing::Ram { block: Arc::clone(&ram), offset: start };
            let smram = board.map_memory("smram", start, len, 2, backing);
            smram.set_enabled(false);
            let bridge = board.add("i440FX", I440fx::new(128 << 20, segments, smram));
            board.plug_pci(HOST, bridge.id(), Decode::UP_TO_4, &[]);
            board.set_memory_listener(Box::new(|_| ()));
            Self { board, _bridge: bridge }
        }

        fn set(&mut self, register: u16, value: u32) {
            self.board.pci_config_write(HOST, register, 1, value);
        }

        fn get(&mut self, gpa: u64) -> u8 {
            let mut byte = [0];
            self.board.mmio_read(gpa, &mut byte);
            byte[0]
        }
    }

    #[test]
    fn identification_and_power_on_registers_are_qemus() {
        let mut b = Bench::new();
        assert_eq!(b.board.pci_config_read(HOST, 0, 4), 0x1237_8086);
        assert_eq!(b.board.pci_config_read(HOST, 8, 4), 0x0600_0002);
        assert_eq!(b.board.pci_config_read(HOST, 0x2c, 4), 0x1100_1af4);
        assert_eq!(b.board.pci_config_read(HOST, 0x54, 4), 0x1000_0000);
        assert_eq!(b.board.pci_config_read(HOST, 0x70, 4), 0x0002_0000);
    }

    #[test]
    fn the_bios_segment_goes_through_all_four_states() {
        let mut b = Bench::new();
        assert_eq!(b.get(0xf_0000), 0x22);
        b.set(0x59, 0x20); // writes to RAM, reads from ROM
        b.board.mmio_write(0xf_0000, &[0x33]);
        assert_eq!(b.get(0xf_0000), 0x22);
        b.set(0x59, 0x30);
        assert_eq!(b.get(0xf_0000), 0x33);
        b.set(0x59, 0x10); // RAM, read only
        b.board.mmio_write(0xf_0000, &[0x44]);
        assert_eq!(b.get(0xf_0000), 0x33);
        b.set(0x59, 0x00);
        assert_eq!(b.get(0xf_0000), 0x22);
    }

    #[test]
    fn each_pam_nibble_has_its_segment() {
        let mut b = Bench::new();
        b.set(0x5a, 0x03);
        assert_eq!((b.get(0xc_0000), b.get(0xc_4000)), (0x11, 0xff));
        b.set(0x5f, 0x30);
        assert_eq!((b.get(0xe_8000), b.get(0xe_c000)), (0xff, 0x11));
    }

    #[test]
    fn smram_opens_and_locks_shut() {
        let mut b = Bench::new();
        b.set(0x72, 0x48);
        assert_eq!(b.get(0xa_0000), 0x11);
        b.set(0x72, 0x58);
        assert_eq!(b.board.pci_config_read(HOST, 0x72, 1), 0x1a);
        assert_eq!(b.get(0xa_0000), 0xff);
        b.set(0x72, 0x48);
        assert_eq!(b.get(0xa_0000), 0xff);
    }

    #[test]
    fn a_wake_up_keeps_the_shadowed_firmware() {
        let mut b = Bench::new();
        b.set(0x59, 0x30);
        b.board.reset(Reset::Wakeup);
        assert_eq!(b.get(0xf_0000), 0x11);
    }

    #[test]
    fn reset_hides_all_segments_and_unlocks_smram() {
        let mut b = Bench::new();
        b.set(0x59, 0x30);
        b.set(0x72, 0x58);
        b.board.reset(Reset::System);
        assert_eq!(b.get(0xf_0000), 0x22);
        b.set(0x72, 0x48);
        assert_eq!(b.get(0xa_0000), 0x11);
    }
}
