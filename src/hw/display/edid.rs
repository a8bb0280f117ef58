//! The description of a monitor that a guest reads to choose its mode.
//!
//! Document: VESA *Enhanced EDID Standard* 1.4; CTA-861 for the first extension and VESA *DisplayID* 1.3 for the
//! second. The content is QEMU's, byte for byte (`the_default_monitor_is_qemus` and its neighbours).

/// A monitor.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Monitor {
    /// Preferred width (`xres`), 0 for QEMU's default.
    pub width: u32,
    /// Preferred height (`yres`), 0 for QEMU's default.
    pub height: u32,
    /// Widest mode offered (`xmax`), 0 for no limit.
    pub max_width: u32,
    /// Highest mode offered (`ymax`), 0 for no limit.
    pub max_height: u32,
    /// Frames in 1000 seconds (`refresh_rate`), 0 for 75 a second.
    pub refresh_mhz: u32,
}

const DEFAULT_WIDTH: u32 = 1280;
const DEFAULT_HEIGHT: u32 = 800;
const DEFAULT_REFRESH_MHZ: u32 = 75_000;
const DOTS_PER_INCH: u64 = 100;
const BLOCK: usize = 128;

/// Established timings I and II (3.8): width, height, byte and bit.
const ESTABLISHED: [(u32, u32, usize, u8); 3] = [(640, 480, 35, 5), (800, 600, 35, 0), (1024, 768, 36, 3)];

/// Standard timings (3.9): width and height.
const STANDARD: [(u32, u32); 8] =
    [(2048, 1152), (1920, 1080), (1920, 1200), (1600, 1200), (1680, 1050), (1440, 900), (1280, 1024), (1280, 960)];

/// Established timings III (3.10.3.9): width, height, byte of the descriptor and bit.
const ESTABLISHED_III: [(u32, u32, usize, u8); 6] = [
    (1920, 1440, 11, 5),
    (1856, 1392, 10, 3),
    (1792, 1344, 10, 5),
    (1400, 1050, 8, 1),
    (1360, 768, 8, 7),
    (1280, 768, 7, 6),
];

/// Video identification codes (CTA-861): width, height, code.
const VIDEO_CODES: [(u32, u32, u8); 6] =
    [(5120, 2160, 125), (4096, 2160, 101), (3840, 2160, 96), (2560, 1080, 89), (1920, 1080, 31), (3840, 2160, 97)];

impl Monitor {
    fn resolved(self) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            width: or(self.width, DEFAULT_WIDTH),
            height: or(self.height, DEFAULT_HEIGHT),
            refresh_mhz: or(self.refresh_mhz, DEFAULT_REFRESH_MHZ),
            ..self
        }
    }

    fn offers(self, width: u32, height: u32) -> bool {
        (self.max_width == 0 || width <= self.max_width) && (self.max_height == 0 || height <= self.max_height)
    }
}

/// A detailed timing; blanking is a share of the picture, as QEMU has it.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// In units of 10 kHz.
    clock: u64,
    width: u64,
    horizontal_blank: u64,
    horizontal_front: u64,
    horizontal_sync: u64,
    height: u64,
    vertical_blank: u64,
    vertical_front: u64,
    vertical_sync: u64,
}

impl Timing {
    fn of(monitor: Monitor) -> Self {
        let (width, height) = (u64::from(monitor.width), u64::from(monitor.height));
        let (horizontal_blank, vertical_blank) = (width * 35 / 100, height * 35 / 1000);
        let frame = (width + horizontal_blank).saturating_mul(height + vertical_blank);
        Self {
            clock: frame.saturating_mul(monitor.refresh_mhz.into()) / 10_000_000,
            width,
            horizontal_blank,
            horizontal_front: width * 25 / 100,
            horizontal_sync: width * 3 / 100,
            height,
            vertical_blank,
            vertical_front: height * 5 / 1000,
            vertical_sync: height * 5 / 1000,
        }
    }

    /// Whether the fields of a detailed timing descriptor hold it.
    fn fits_descriptor(self) -> bool {
        self.clock < 65536 && self.width < 4096 && self.height < 4096
    }

    /// Detailed timing descriptor (3.10.2).
    fn descriptor(self, size_mm: (u64, u64)) -> [u8; 18] {
        let [clock_low, clock_high, ..] = self.clock.to_le_bytes();
        let (width_mm, height_mm) = (size_mm.0.min(4095), size_mm.1.min(4095));
        [
            clock_low,
            clock_high,
            low(self.width),
            low(self.horizontal_blank),
            high_nibbles(self.width, self.horizontal_blank),
            low(self.height),
            low(self.vertical_blank),
            high_nibbles(self.height, self.vertical_blank),
            low(self.horizontal_front),
            low(self.horizontal_sync),
            low((self.vertical_front & 15) << 4 | self.vertical_sync & 15),
            low((self.horizontal_front >> 8 & 3) << 6
                | (self.horizontal_sync >> 8 & 3) << 4
                | (self.vertical_front >> 4 & 3) << 2
                | self.vertical_sync >> 4 & 3),
            low(width_mm),
            low(height_mm),
            high_nibbles(width_mm, height_mm),
            0,
            0,
            // Digital, separate synchronisation.
            0x18,
        ]
    }

    /// Detailed timing of DisplayID (4.4.1): every size is stored less one.
    fn display_id(self) -> [u8; 20] {
        let mut timing = [0; 20];
        timing[..3].copy_from_slice(&self.clock.to_le_bytes()[..3]);
        timing[3] = 0x88;
        let sizes = [
            self.width,
            self.horizontal_blank,
            self.horizontal_front,
            self.horizontal_sync,
            self.height,
            self.vertical_blank,
            self.vertical_front,
            self.vertical_sync,
        ];
        for (field, size) in timing[4..].as_chunks_mut::<2>().0.iter_mut().zip(sizes) {
            let [a, b, ..] = size.saturating_sub(1).to_le_bytes();
            *field = [a, b];
        }
        timing
    }
}

fn low(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

fn high_nibbles(upper: u64, lower: u64) -> u8 {
    low((upper >> 8 & 15) << 4 | lower >> 8 & 15)
}

/// The byte that makes all of them add up to 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// Display descriptor (3.10.3) with text or other content.
fn descriptor(tag: u8, content: &[u8]) -> [u8; 18] {
    let mut bytes = [0; 18];
    bytes[3] = tag;
    for (to, from) in bytes[5..].iter_mut().zip(content) {
        *to = *from;
    }
    bytes
}

/// The monitor as its guest reads it: two blocks, and a third for sizes that the first cannot hold.
#[must_use]
pub fn blob(monitor: Monitor) -> Vec<u8> {
    let monitor = monitor.resolved();
    let timing = Timing::of(monitor);
    let is_large = !timing.fits_descriptor();
    let mut edid = vec![0; if is_large { 3 } else { 2 } * BLOCK];
    base_block(&mut edid[..BLOCK], monitor, timing, is_large);
    video_block(&mut edid[BLOCK..2 * BLOCK], monitor);
    if is_large {
        display_id_block(&mut edid[2 * BLOCK..], timing);
    }
    for block in edid.chunks_exact_mut(BLOCK) {
        block[BLOCK - 1] = checksum(&block[..BLOCK - 1]);
    }
    edid
}

/// A standard timing (3.9) of 60 frames a second, if the mode has one of its four aspects.
fn standard_timing(width: u32, height: u32) -> Option<[u8; 2]> {
    let aspects = [(16, 10), (4, 3), (5, 4), (16, 9)];
    let aspect = aspects.into_iter().position(|(x, y)| width * y == height * x)?;
    // QEMU leaves 1400 pixels out.
    width.is_multiple_of(16).then(|| [low(u64::from(width / 8 - 31)), low(aspect as u64) << 6])
}

fn base_block(edid: &mut [u8], monitor: Monitor, timing: Timing, is_large: bool) {
    edid[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // Manufacturer "RHT", product 1234h, no serial number, week 42 of 2014, EDID 1.4.
    edid[8..20].copy_from_slice(&[0x49, 0x14, 0x34, 0x12, 0, 0, 0, 0, 42, 24, 1, 4]);
    let millimetres = |pixels: u32| u64::from(pixels) * 254 / (10 * DOTS_PER_INCH);
    let size_mm = (millimetres(monitor.width), millimetres(monitor.height));
    // Digital input, 8 bits a colour, DisplayPort; size in centimetres; gamma 2.2; sRGB, preferred timing first.
    edid[20..25].copy_from_slice(&[0xa5, low(size_mm.0 / 10), low(size_mm.1 / 10), 120, 0x06]);
    // Chromaticity of sRGB's primaries and D65.
    edid[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    for (_, _, byte, bit) in ESTABLISHED.into_iter().filter(|mode| monitor.offers(mode.0, mode.1)) {
        edid[byte] |= 1 << bit;
    }
    edid[38..54].fill(1);
    // As QEMU has it, modes of established timings III take the standard timings that larger modes left free.
    let mut more = [0x0a, 0, 0, 0, 0, 0, 0];
    let mut slots = edid[38..54].chunks_exact_mut(2);
    for (width, height, byte, bit) in STANDARD.into_iter().map(|(w, h)| (w, h, 0, 0)).chain(ESTABLISHED_III) {
        if !monitor.offers(width, height) {
            continue;
        }
        if slots.len() == 0 {
            if byte != 0 {
                more[byte - 5] |= 1 << bit;
            }
        } else if let Some(timing) = standard_timing(width, height)
            && let Some(slot) = slots.next()
        {
            slot.copy_from_slice(&timing);
        }
    }
    let mut descriptors = Vec::with_capacity(4);
    if !is_large {
        descriptors.push(timing.descriptor(size_mm));
    }
    descriptors.push(descriptor(0xf7, &more));
    // Range limits: 50-125 Hz vertical, 30-160 kHz horizontal, 2550 MHz.
    descriptors.push(descriptor(0xfd, &[50, 125, 30, 160, 255, 1, 10, 32, 32, 32, 32, 32, 32]));
    descriptors.push(descriptor(0xfc, b"QEMU Monitor\n"));
    descriptors.resize(4, descriptor(0x10, &[]));
    for (field, content) in edid[54..126].chunks_exact_mut(18).zip(descriptors) {
        field.copy_from_slice(&content);
    }
    edid[126] = if is_large { 2 } else { 1 };
}

/// CTA-861 extension: a video data block, then dummy descriptors.
fn video_block(block: &mut [u8], monitor: Monitor) {
    let codes: Vec<u8> =
        VIDEO_CODES.into_iter().filter(|mode| monitor.offers(mode.0, mode.1)).map(|(_, _, code)| code).collect();
    let end = 5 + codes.len();
    block[0] = 0x02;
    block[1] = 0x03;
    block[2] = low(end as u64);
    block[4] = 0x40 | low(codes.len() as u64);
    block[5..end].copy_from_slice(&codes);
    for field in block[end..BLOCK - 1].chunks_exact_mut(18) {
        field.copy_from_slice(&descriptor(0x10, &[]));
    }
}

/// DisplayID extension with one detailed timing block.
fn display_id_block(block: &mut [u8], timing: Timing) {
    // Extension tag; version 1.3, 23 bytes, a stand-alone display, no further section; block 3 with 20 bytes.
    block[..8].copy_from_slice(&[0x70, 0x13, 23, 3, 0, 3, 0, 20]);
    block[8..28].copy_from_slice(&timing.display_id());
    block[28] = checksum(&block[1..28]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_default_monitor_is_qemus() {
        let edid = blob(Monitor::default());
        assert_eq!(edid.len(), 256);
        assert_eq!(
            hex(&edid[..128]),
            "00ffffffffffff004914341200000000\
             2a180104a520147806ee91a3544c9926\
             0f5054210800e1c0d1c0d100a940b300\
             950081808140ea2900c051201c304026\
             444045cb10000018000000f7000a0040\
             82002820000000000000000000fd0032\
             7d1ea0ff010a202020202020000000fc\
             0051454d55204d6f6e69746f720a013a"
        );
        assert_eq!(hex(&edid[128..144]), "02030b00467d6560591f610000001000");
        assert_eq!(edid[255], 0x2f);
    }

    #[test]
    fn a_mode_too_large_for_the_first_block_goes_to_a_third() {
        let edid = blob(Monitor { width: 3840, height: 2160, ..Monitor::default() });
        assert_eq!(edid.len(), 384);
        assert_eq!((edid[126], edid[127]), (2, 0x78));
        assert_eq!(hex(&edid[256..285]), "701317030003001470530188ff0e3f05bf0372006f084a000900090018");
        assert_eq!(edid[383], 0x90);
    }

    #[test]
    fn a_limit_leaves_larger_modes_out() {
        let edid = blob(Monitor { max_width: 1920, max_height: 1200, ..Monitor::default() });
        assert_eq!(hex(&edid[35..54]), "210800d1c0d100a940b3009500818081400101");
        assert_eq!(edid[127], 0xe3);
        assert_eq!(hex(&edid[128..134]), "02030600411f");
        assert_eq!(edid[255], 0x35);
    }

    #[test]
    fn free_standard_timings_take_more_modes() {
        let edid = blob(Monitor { max_width: 1920, max_height: 1440, ..Monitor::default() });
        assert_eq!(hex(&edid[35..54]), "210800d1c0d100a940b300950081808140d140");
        assert_eq!(hex(&edid[77..84]), "0a004082002800");
        let edid = blob(Monitor { max_width: 1900, max_height: 1400, ..Monitor::default() });
        assert_eq!(hex(&edid[35..54]), "210800a940b300950081808140c940c1400101");
        assert_eq!(edid[127], 0x3b);
    }

    #[test]
    fn a_slow_large_mode_stays_in_the_first_block() {
        let edid = blob(Monitor { width: 3840, height: 2160, refresh_mhz: 30_000, ..Monitor::default() });
        assert_eq!(hex(&edid[54..72]), "c6870040f5704b80c073aac0cf2432000018");
        assert_eq!(edid[127], 0xf2);
    }

    #[test]
    fn no_size_is_too_strange() {
        let most = Monitor { width: u32::MAX, height: u32::MAX, refresh_mhz: u32::MAX, ..Monitor::default() };
        assert_eq!(blob(most).len(), 384);
        assert_eq!(blob(Monitor { width: 1, height: 1, ..Monitor::default() }).len(), 256);
    }
}
