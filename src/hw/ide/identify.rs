//! IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA8-ACS 7.16 and 7.17, ATA/ATAPI-6 8.15 and 8.16).

use super::drive::{Drive, DriveKind, Geometry, Settings};

/// Sectors of a READ MULTIPLE block at most; also the value at power-on.
pub(super) const MAX_MULTIPLE: u8 = 16;
/// Ultra DMA mode 5, as SET FEATURES 03h takes it (ATA8-ACS 7.48.7).
pub(super) const DEFAULT_MODE: u8 = 0x45;

/// Sectors that cylinder, head and sector reach (ATA/ATAPI-5 annex B).
const MAX_CHS_SECTORS: u64 = 16383 * 16 * 63;

/// 256 words in the making.
struct Words([u16; 256]);

impl Words {
    fn set32(&mut self, at: usize, value: u32) {
        self.0[at] = (value & 0xffff) as u16;
        self.0[at + 1] = (value >> 16) as u16;
    }

    fn set64(&mut self, at: usize, value: u64) {
        self.set32(at, (value & 0xffff_ffff) as u32);
        self.set32(at + 2, (value >> 32) as u32);
    }

    /// ASCII, first character in the high byte, padded with blanks.
    fn set_text(&mut self, first: usize, words: usize, text: &str) {
        let padded = padded(text, words * 2);
        for (word, pair) in self.0[first..first + words].iter_mut().zip(padded.chunks_exact(2)) {
            *word = u16::from_be_bytes([pair[0], pair[1]]);
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// Printable ASCII of exactly `len` bytes, padded with blanks.
pub(super) fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = text.bytes().take(len).collect();
    bytes.resize(len, b' ');
    bytes
}

/// The serial number of a drive whose user gave none, by its place: channel * 2 + unit.
fn default_serial(number: usize) -> String {
    format!("QM{:05}", number + 1)
}

impl Drive {
    pub fn serial(&self) -> String {
        self.options.serial.clone().unwrap_or_else(|| default_serial(self.number))
    }

    pub fn model(&self) -> &str {
        match (&self.options.model, self.options.kind) {
            (Some(model), _) => model,
            (None, DriveKind::Disk) => "QEMU HARDDISK",
            (None, DriveKind::Cdrom) => "QEMU DVD-ROM",
            (None, DriveKind::CompactFlash) => "QEMU MICRODRIVE",
        }
    }

    pub fn version(&self) -> &str {
        self.options.version.as_deref().unwrap_or("2.5+")
    }

    fn words(&self) -> Words {
        let mut words = Words([0; 256]);
        words.set_text(10, 10, &self.serial());
        words.0[20] = 3; // dual-ported buffer with caching
        words.0[21] = 512;
        words.0[22] = 4;
        words.set_text(23, 4, self.version());
        words.set_text(27, 20, self.model());
        words.0[48] = 1; // 32-bit data port accesses
        words.0[53] = 7; // words 54-58, 64-70 and 88 are valid
        let (multiword, ultra) = selected_modes(self.settings);
        words.0[62] = 7;
        words.0[63] = 7 | multiword << 8;
        words.0[64] = 3; // PIO modes 3 and 4
        words.0[88] = 0x3f | ultra << 8;
        words
    }

    /// IDENTIFY DEVICE.
    pub fn identify(&self) -> Vec<u8> {
        let mut words = self.words();
        let sectors = self.sectors();
        let Geometry { cyls, heads, secs } = self.geometry();
        words.0[0] = if self.options.kind == DriveKind::CompactFlash { 0x848a } else { 0x0040 };
        words.0[1] = cyls;
        words.0[3] = u16::from(heads);
        words.0[4] = 512 * u16::from(secs);
        words.0[5] = 512;
        words.0[6] = u16::from(secs);
        words.0[47] = 0x8000 | u16::from(MAX_MULTIPLE);
        words.0[49] = 1 << 11 | 1 << 9 | 1 << 8; // IORDY, LBA, DMA
        words.0[51] = 0x200; // PIO and DMA timing, modes 2
        words.0[52] = 0x200;
        let Settings { multiple, heads, secs, write_cache, .. } = self.settings;
        let cylinder = (u64::from(heads) * u64::from(secs)).max(1);
        let cyls = match self.geometry() {
            Geometry { cyls, heads: h, secs: s } if (h, s) == (heads, secs) => cyls,
            _ => u16::try_from(sectors.min(MAX_CHS_SECTORS) / cylinder).unwrap_or(u16::MAX),
        };
        words.0[54] = cyls;
        words.0[55] = u16::from(heads);
        words.0[56] = u16::from(secs);
        words.set32(57, u32::try_from(u64::from(cyls) * cylinder).unwrap_or(u32::MAX));
        words.0[59] = if multiple == 0 { 0 } else { 0x100 | u16::from(multiple) };
        words.set32(60, sectors.min(0x0fff_ffff) as u32);
        words.0[65..69].fill(120); // ns of a DMA or PIO cycle
        if self.options.trim {
            words.0[69] = 1 << 14; // reads after it are deterministic
            words.0[169] = 1;
        }
        self.set_serial_link(&mut words);
        words.0[80] = 0xf0; // ATA/ATAPI-4 to -7
        words.0[81] = 0x16; // ATA/ATAPI-5 T13/1321D revision 2
        words.0[82] = 1 << 14 | 1 << 5 | 1; // NOP, write cache, SMART
        words.0[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10; // FLUSH CACHE EXT, FLUSH CACHE, 48-bit
        let wwn = u16::from(self.options.wwn != 0) << 8;
        words.0[84] = 1 << 14 | wwn;
        words.0[85] = 1 << 14 | u16::from(write_cache) << 5 | u16::from(self.smart.enabled);
        words.0[86] = 1 << 13 | 1 << 12 | 1 << 10;
        words.0[87] = 1 << 14 | wwn;
        if self.sata {
            words.0[84] |= 1 << 5; // READ LOG EXT
            words.0[87] |= 1 << 5;
        } else {
            words.0[93] = 1 << 14 | 1 << 13 | 1; // 80-conductor cable; device 0 passed
        }
        words.set64(100, sectors);
        let exponent = (self.options.physical_block_size / 512).max(1).ilog2().min(15);
        words.0[106] = 1 << 14 | 1 << 13 | exponent as u16;
        self.set_wwn(&mut words);
        words.0[217] = self.options.rotation_rate;
        words.bytes()
    }

    /// IDENTIFY PACKET DEVICE.
    pub fn identify_packet(&self) -> Vec<u8> {
        let mut words = self.words();
        words.0[0] = 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5; // CD-ROM, removable, DRQ in 50 µs, 12-byte packets
        words.0[49] = 1 << 9 | 1 << 8;
        words.0[65] = 180;
        words.0[66] = 180;
        words.0[67] = 300;
        words.0[68] = 180;
        words.0[71] = 30; // ns typical until the bus is released, and until SERVICE
        words.0[72] = 30;
        words.0[80] = 0x1e; // to ATA/ATAPI-4
        if self.options.wwn != 0 {
            words.0[84] = 1 << 14 | 1 << 8;
            words.0[87] = 1 << 14 | 1 << 8;
        }
        self.set_wwn(&mut words);
        words.bytes()
    }

    /// What a drive on a serial link tells of it (Serial ATA 3.0, 13.2.1).
    fn set_serial_link(&self, words: &mut Words) {
        if self.sata {
            words.0[75] = 31; // queue depth, less one
            words.0[76] = 1 << 8 | 1 << 1; // queued commands, first generation
            words.0[222] = 1 << 12 | 0x1f; // serial transport, up to ATA8-AST
        }
    }

    fn set_wwn(&self, words: &mut Words) {
        for (word, shift) in words.0[108..112].iter_mut().zip([48, 32, 16, 0]) {
            *word = (self.options.wwn >> shift & 0xffff) as u16;
        }
    }
}

/// The selected multiword and Ultra DMA modes as one bit each (words 63 and 88, high bytes).
fn selected_modes(settings: Settings) -> (u16, u16) {
    let bit = 1 << (settings.mode & 7);
    match settings.mode >> 3 {
        4 => (bit, 0),
        8 => (0, bit),
        _ => (0, 0),
    }
}
