//! Register numbers and bits of the VGA and of the Bochs display interface, in data-sheet order.
//!
//! Chapters in parentheses are those of *IBM VGA/XGA Technical Reference* (1992), section 2; FreeVGA's hardware pages
//! describe the same registers.

/// I/O ports, as offsets from 3B0h.
pub(super) mod port {
    /// First port of the region.
    pub const BASE: u16 = 0x3b0;
    pub const CRTC_INDEX_MONO: u16 = 0x3b4;
    pub const CRTC_DATA_MONO: u16 = 0x3b5;
    pub const STATUS1_MONO: u16 = 0x3ba;
    pub const ATTR_INDEX: u16 = 0x3c0;
    pub const ATTR_DATA: u16 = 0x3c1;
    /// Miscellaneous output (write), input status 0 (read).
    pub const MISC_WRITE: u16 = 0x3c2;
    pub const SEQ_INDEX: u16 = 0x3c4;
    pub const SEQ_DATA: u16 = 0x3c5;
    pub const PEL_MASK: u16 = 0x3c6;
    /// DAC read address (write), DAC state (read).
    pub const DAC_READ: u16 = 0x3c7;
    pub const DAC_WRITE: u16 = 0x3c8;
    pub const DAC_DATA: u16 = 0x3c9;
    pub const FEATURE_READ: u16 = 0x3ca;
    pub const MISC_READ: u16 = 0x3cc;
    pub const GFX_INDEX: u16 = 0x3ce;
    pub const GFX_DATA: u16 = 0x3cf;
    pub const CRTC_INDEX: u16 = 0x3d4;
    pub const CRTC_DATA: u16 = 0x3d5;
    /// Input status 1 (read), feature control (write).
    pub const STATUS1: u16 = 0x3da;
}

/// Miscellaneous output register.
pub(super) mod misc {
    /// The CRTC is at 3Dxh rather than 3Bxh.
    pub const COLOR: u8 = 1 << 0;
    /// Bits that exist.
    pub const WRITABLE: u8 = 0xef;
}

/// Sequencer registers.
pub(super) mod seq {
    pub const CLOCKING_MODE: usize = 1;
    pub const MAP_MASK: usize = 2;
    pub const CHARACTER_MAP: usize = 3;
    pub const MEMORY_MODE: usize = 4;

    /// Clocking mode: characters are 8 dots wide, not 9.
    pub const DOTS_8: u8 = 1 << 0;
    /// Clocking mode: the dot clock is halved.
    pub const DOT_CLOCK_HALF: u8 = 1 << 3;
    /// Clocking mode: the screen is off.
    pub const SCREEN_OFF: u8 = 1 << 5;
    /// Memory mode: even and odd addresses do *not* select planes.
    pub const SEQUENTIAL: u8 = 1 << 2;
    /// Memory mode: the two lowest address bits select the plane.
    pub const CHAIN_4: u8 = 1 << 3;

    /// Bits that exist, by register.
    pub const WRITABLE: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
}

/// Graphics controller registers.
pub(super) mod gfx {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COLOR_COMPARE: usize = 2;
    pub const DATA_ROTATE: usize = 3;
    pub const READ_MAP: usize = 4;
    pub const MODE: usize = 5;
    pub const MISC: usize = 6;
    pub const COLOR_DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;

    /// Mode: reads compare colours.
    pub const READ_COMPARE: u8 = 1 << 3;
    /// Mode: reads select planes by odd and even addresses.
    pub const HOST_ODD_EVEN: u8 = 1 << 4;
    /// Mode: two bits of a pixel are neighbours in a plane (CGA).
    pub const SHIFT_INTERLEAVE: u8 = 1 << 5;
    /// Mode: a pixel takes a byte.
    pub const SHIFT_256: u8 = 1 << 6;
    /// Miscellaneous: graphics, not text.
    pub const GRAPHICS: u8 = 1 << 0;

    /// Bits that exist, by register.
    pub const WRITABLE: [u8; 16] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0];
}

/// CRT controller registers.
pub(super) mod crtc {
    pub const HORIZONTAL_TOTAL: usize = 0x00;
    pub const HORIZONTAL_DISPLAY_END: usize = 0x01;
    pub const VERTICAL_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW_SCAN: usize = 0x08;
    pub const MAXIMUM_SCAN_LINE: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_HIGH: usize = 0x0c;
    pub const START_LOW: usize = 0x0d;
    pub const CURSOR_HIGH: usize = 0x0e;
    pub const CURSOR_LOW: usize = 0x0f;
    pub const VERTICAL_RETRACE_START: usize = 0x10;
    pub const VERTICAL_RETRACE_END: usize = 0x11;
    pub const VERTICAL_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const UNDERLINE: usize = 0x14;
    pub const MODE: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;

    /// Vertical retrace end: registers 0-7 are protected.
    pub const PROTECT: u8 = 1 << 7;
    /// Overflow: the bit of line compare that protection leaves writable.
    pub const OVERFLOW_LINE_COMPARE: u8 = 1 << 4;
    /// Maximum scan line: each scan line is shown twice.
    pub const DOUBLE_SCAN: u8 = 1 << 7;
    /// Cursor start: no cursor.
    pub const CURSOR_OFF: u8 = 1 << 5;
    /// Mode: address bit 13 is the address counter's, not row scan bit 0.
    pub const MAP_13: u8 = 1 << 0;
    /// Mode: address bit 14 is the address counter's, not row scan bit 1.
    pub const MAP_14: u8 = 1 << 1;
    /// Mode: addresses count bytes, not words.
    pub const BYTE_MODE: u8 = 1 << 6;
    /// Underline: addresses count double words.
    pub const DWORD_MODE: u8 = 1 << 6;
}

/// Attribute controller registers.
pub(super) mod attr {
    pub const MODE: usize = 0x10;
    pub const OVERSCAN: usize = 0x11;
    pub const PLANE_ENABLE: usize = 0x12;
    pub const PANNING: usize = 0x13;
    pub const COLOR_SELECT: usize = 0x14;
    /// How many there are.
    pub const COUNT: usize = 0x15;

    /// Index: the display shows the palette's colours rather than the overscan colour.
    pub const PALETTE_ADDRESS_SOURCE: u8 = 1 << 5;
    /// Mode: the ninth column of characters C0h-DFh repeats the eighth.
    pub const LINE_GRAPHICS: u8 = 1 << 2;
    /// Mode: attribute bit 7 blinks.
    pub const BLINK: u8 = 1 << 3;
    /// Mode: below line compare there is no panning.
    pub const PANNING_COMPATIBILITY: u8 = 1 << 5;
    /// Mode: colour bits 5-4 come from the colour select register.
    pub const PALETTE_SIZE: u8 = 1 << 7;
}

/// Input status 1.
pub(super) mod status1 {
    /// Nothing is displayed at this moment: horizontal or vertical blanking.
    pub const DISPLAY_DISABLED: u8 = 1 << 0;
    /// Vertical retrace.
    pub const VERTICAL_RETRACE: u8 = 1 << 3;
}

/// The Bochs display interface (*VBE display hardware*, Bochs and LGPL VGABIOS projects).
pub(super) mod dispi {
    pub const ID: u16 = 0;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5;
    pub const VIRT_WIDTH: u16 = 6;
    pub const VIRT_HEIGHT: u16 = 7;
    pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9;
    pub const VIDEO_MEMORY_64K: u16 = 10;

    /// The oldest and the newest version.
    pub const ID0: u16 = 0xb0c0;
    pub const ID5: u16 = 0xb0c5;

    pub const ENABLED: u16 = 1 << 0;
    pub const GET_CAPABILITIES: u16 = 1 << 1;
    pub const DAC_8_BIT: u16 = 1 << 5;
    pub const NO_CLEAR: u16 = 1 << 7;

    pub const MAX_XRES: u16 = 16000;
    pub const MAX_YRES: u16 = 12000;
    pub const MAX_BPP: u16 = 32;
}
