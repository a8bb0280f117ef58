//! The VGA's own registers, behind ports 3B0h-3DFh.

use super::spec::{attr, crtc, gfx, misc, port, seq, status1};

/// Everything a guest can see of the registers; reset restores [`Regs::COLD`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Regs {
    pub misc: u8,
    pub feature: u8,
    pub seq_index: u8,
    pub seq: [u8; 8],
    pub gfx_index: u8,
    pub gfx: [u8; 16],
    pub crtc_index: u8,
    pub crtc: [u8; 256],
    pub attr_index: u8,
    /// The next write to 3C0h is data.
    pub attr_data_next: bool,
    pub attr: [u8; attr::COUNT],
    pub pel_mask: u8,
    /// Red, green and blue of 256 colours.
    pub dac: [u8; 768],
    pub dac_read: u8,
    pub dac_write: u8,
    /// Which of red, green and blue is next.
    pub dac_component: u8,
    /// Red and green wait for blue.
    pub dac_pending: [u8; 3],
    /// What the state register shows: 3 after the read address was set, 0 after the write address.
    pub dac_state: u8,
    /// One byte of each plane, plane 0 lowest.
    pub latch: u32,
    /// Input status 1 when the CRTC's timing makes no sense: its bits alternate.
    pub status_toggle: u8,
}

/// What a register write may have changed besides the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// How the CPU reaches the memory.
    Window,
}

impl Regs {
    /// Power-on.
    pub const COLD: Self = Self {
        misc: 0,
        feature: 0,
        seq_index: 0,
        seq: [0; 8],
        gfx_index: 0,
        gfx: [0; 16],
        crtc_index: 0,
        crtc: [0; 256],
        attr_index: 0,
        attr_data_next: false,
        attr: [0; attr::COUNT],
        pel_mask: 0xff,
        dac: [0; 768],
        dac_read: 0,
        dac_write: 0,
        dac_component: 0,
        dac_pending: [0; 3],
        dac_state: 0,
        latch: 0,
        status_toggle: 0,
    };

    /// Whether the CRTC and status ports of the other emulation (monochrome or colour) were meant.
    fn is_hidden(&self, port: u16) -> bool {
        match port {
            0x3b0..=0x3bf => self.misc & misc::COLOR != 0,
            0x3d0..=0x3df => self.misc & misc::COLOR == 0,
            _ => false,
        }
    }

    /// A read of a port of 3B0h-3DFh.
    pub fn read(&mut self, port: u16, now_ns: u64) -> u8 {
        if self.is_hidden(port) {
            return 0xff;
        }
        match port {
            port::ATTR_INDEX if self.attr_data_next => 0,
            port::ATTR_INDEX => self.attr_index,
            port::ATTR_DATA => self.attr.get(usize::from(self.attr_index & 0x1f)).copied().unwrap_or(0),
            port::SEQ_INDEX => self.seq_index,
            port::SEQ_DATA => self.seq[usize::from(self.seq_index & 7)],
            port::PEL_MASK => self.pel_mask,
            port::DAC_READ => self.dac_state,
            port::DAC_WRITE => self.dac_write,
            port::DAC_DATA => self.read_dac(),
            port::FEATURE_READ => self.feature,
            port::MISC_READ => self.misc,
            port::GFX_INDEX => self.gfx_index,
            port::GFX_DATA => self.gfx[usize::from(self.gfx_index & 15)],
            port::CRTC_INDEX | port::CRTC_INDEX_MONO => self.crtc_index,
            port::CRTC_DATA | port::CRTC_DATA_MONO => self.crtc[usize::from(self.crtc_index)],
            port::STATUS1 | port::STATUS1_MONO => {
                self.attr_data_next = false;
                self.read_status1(now_ns)
            }
            // Input status 0: no interrupt pending, no switch closed.
            _ => 0,
        }
    }

    /// A write to a port of 3B0h-3DFh.
    pub fn write(&mut self, port: u16, value: u8) -> Effect {
        if self.is_hidden(port) {
            return Effect::None;
        }
        match port {
            port::ATTR_INDEX => self.write_attr(value),
            port::MISC_WRITE => self.misc = value & misc::WRITABLE,
            port::SEQ_INDEX => self.seq_index = value & 7,
            port::SEQ_DATA => {
                let index = usize::from(self.seq_index & 7);
                self.seq[index] = value & seq::WRITABLE[index];
                return Effect::Window;
            }
            port::PEL_MASK => self.pel_mask = value,
            port::DAC_READ => {
                self.dac_read = value;
                self.dac_component = 0;
                self.dac_state = 3;
            }
            port::DAC_WRITE => {
                self.dac_write = value;
                self.dac_component = 0;
                self.dac_state = 0;
            }
            port::DAC_DATA => self.write_dac(value),
            port::GFX_INDEX => self.gfx_index = value & 15,
            port::GFX_DATA => {
                let index = usize::from(self.gfx_index & 15);
                self.gfx[index] = value & gfx::WRITABLE[index];
                return Effect::Window;
            }
            port::CRTC_INDEX | port::CRTC_INDEX_MONO => self.crtc_index = value,
            port::CRTC_DATA | port::CRTC_DATA_MONO => self.write_crtc(value),
            port::STATUS1 | port::STATUS1_MONO => self.feature = value & 0x10,
            _ => {}
        }
        Effect::None
    }

    fn write_attr(&mut self, value: u8) {
        if !self.attr_data_next {
            self.attr_index = value & 0x3f;
            self.attr_data_next = true;
            return;
        }
        self.attr_data_next = false;
        let index = usize::from(self.attr_index & 0x1f);
        let writable = match index {
            0x00..=0x0f | attr::PLANE_ENABLE => 0x3f,
            attr::MODE => 0xef,
            attr::OVERSCAN => 0xff,
            attr::PANNING | attr::COLOR_SELECT => 0x0f,
            _ => return,
        };
        self.attr[index] = value & writable;
    }

    fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        if self.crtc[crtc::VERTICAL_RETRACE_END] & crtc::PROTECT != 0 && index <= crtc::OVERFLOW {
            if index == crtc::OVERFLOW {
                let bit = crtc::OVERFLOW_LINE_COMPARE;
                self.crtc[index] = self.crtc[index] & !bit | value & bit;
            }
            return;
        }
        self.crtc[index] = value;
    }

    fn read_dac(&mut self) -> u8 {
        let value = self.dac[usize::from(self.dac_read) * 3 + usize::from(self.dac_component % 3)];
        self.dac_component += 1;
        if self.dac_component >= 3 {
            self.dac_component = 0;
            self.dac_read = self.dac_read.wrapping_add(1);
        }
        value
    }

    fn write_dac(&mut self, value: u8) {
        self.dac_pending[usize::from(self.dac_component % 3)] = value;
        self.dac_component += 1;
        if self.dac_component >= 3 {
            self.dac_component = 0;
            let at = usize::from(self.dac_write) * 3;
            self.dac[at..at + 3].copy_from_slice(&self.dac_pending);
            self.dac_write = self.dac_write.wrapping_add(1);
        }
    }

    /// Input status 1: where the beam is at `now_ns`.
    fn read_status1(&mut self, now_ns: u64) -> u8 {
        match Timing::of(self) {
            Some(timing) => timing.status1(now_ns),
            None => {
                self.status_toggle ^= status1::DISPLAY_DISABLED | status1::VERTICAL_RETRACE;
                self.status_toggle
            }
        }
    }

    /// A 10-bit vertical register: its low byte and its bits of the overflow register.
    fn vertical(&self, low: usize, bit_8: u8, bit_9: u8) -> u32 {
        let overflow = u32::from(self.crtc[crtc::OVERFLOW]);
        u32::from(self.crtc[low]) | (overflow >> bit_8 & 1) << 8 | (overflow >> bit_9 & 1) << 9
    }

    /// Characters a line.
    pub fn columns(&self) -> u32 {
        u32::from(self.crtc[crtc::HORIZONTAL_DISPLAY_END]) + 1
    }

    /// Scan lines of the picture.
    pub fn lines(&self) -> u32 {
        self.vertical(crtc::VERTICAL_DISPLAY_END, 1, 6) + 1
    }

    /// The scan line after which the address counter starts again from 0.
    pub fn line_compare(&self) -> u32 {
        let bit_8 = u32::from(self.crtc[crtc::OVERFLOW] >> 4 & 1);
        let bit_9 = u32::from(self.crtc[crtc::MAXIMUM_SCAN_LINE] >> 6 & 1);
        u32::from(self.crtc[crtc::LINE_COMPARE]) | bit_8 << 8 | bit_9 << 9
    }

    /// The address counter's start, in characters.
    pub fn start(&self) -> u32 {
        u32::from(self.crtc[crtc::START_HIGH]) << 8 | u32::from(self.crtc[crtc::START_LOW])
    }

    /// The address counter at the cursor.
    pub fn cursor(&self) -> u32 {
        u32::from(self.crtc[crtc::CURSOR_HIGH]) << 8 | u32::from(self.crtc[crtc::CURSOR_LOW])
    }

    /// Whether the picture is off: palette unreachable, or the sequencer's screen-off bit.
    pub fn is_blank(&self) -> bool {
        self.attr_index & attr::PALETTE_ADDRESS_SOURCE == 0 || self.seq[seq::CLOCKING_MODE] & seq::SCREEN_OFF != 0
    }
}

/// The beam's course as the CRTC is programmed, in dots of the dot clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Timing {
    dots_per_second: u64,
    line_dots: u64,
    shown_dots: u64,
    frame_lines: u64,
    shown_lines: u64,
    retrace_start: u64,
    retrace_lines: u64,
}

impl Timing {
    /// `None` where the registers leave no blanking or never start the vertical retrace.
    fn of(regs: &Regs) -> Option<Self> {
        let clocking = regs.seq[seq::CLOCKING_MODE];
        let char_dots = if clocking & seq::DOTS_8 != 0 { 8 } else { 9 };
        let dot_clock = if regs.misc >> 2 & 3 == 0 { 25_175_000 } else { 28_322_000 };
        let columns = u64::from(regs.columns());
        let total_columns = u64::from(regs.crtc[crtc::HORIZONTAL_TOTAL]) + 5;
        let frame_lines = u64::from(regs.vertical(crtc::VERTICAL_TOTAL, 0, 5)) + 2;
        let shown_lines = u64::from(regs.lines());
        let retrace_start = u64::from(regs.vertical(crtc::VERTICAL_RETRACE_START, 2, 7));
        let retrace_end = u64::from(regs.crtc[crtc::VERTICAL_RETRACE_END] & 15);
        let retrace_lines = match retrace_end.wrapping_sub(retrace_start) & 15 {
            0 => 16,
            lines => lines,
        };
        (columns < total_columns && shown_lines < frame_lines && retrace_start < frame_lines).then_some(Self {
            dots_per_second: if clocking & seq::DOT_CLOCK_HALF != 0 { dot_clock / 2 } else { dot_clock },
            line_dots: total_columns * char_dots,
            shown_dots: columns * char_dots,
            frame_lines,
            shown_lines,
            retrace_start,
            retrace_lines,
        })
    }

    fn status1(self, now_ns: u64) -> u8 {
        let frame_dots = u128::from(self.line_dots * self.frame_lines);
        let dots = u128::from(now_ns) * u128::from(self.dots_per_second) / 1_000_000_000;
        let in_frame = u64::try_from(dots % frame_dots).unwrap_or(0);
        let (line, dot) = (in_frame / self.line_dots, in_frame % self.line_dots);
        let mut status = 0;
        if line >= self.shown_lines || dot >= self.shown_dots {
            status |= status1::DISPLAY_DISABLED;
        }
        if line >= self.retrace_start && line - self.retrace_start < self.retrace_lines {
            status |= status1::VERTICAL_RETRACE;
        }
        status
    }
}
