//! The Bochs display interface: linear modes beside the VGA's own (*VBE display hardware*, Bochs).

use super::regs::Regs;
use super::spec::{attr, crtc, dispi, gfx, seq};

/// The interface's registers and what they come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Vbe {
    pub index: u16,
    /// Registers 0-9.
    regs: [u16; 10],
    /// Bytes of display memory.
    memory: u32,
}

/// What [`Vbe::write`] asks the adapter to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    /// Clear this many bytes from the start of the display memory.
    pub clear: u64,
}

impl Vbe {
    /// Power-on.
    pub fn cold(memory: u32) -> Self {
        let mut regs = [0; 10];
        regs[usize::from(dispi::ID)] = dispi::ID5;
        Self { index: 0, regs, memory }
    }

    fn get(&self, index: u16) -> u32 {
        u32::from(self.regs[usize::from(index)])
    }

    fn set(&mut self, index: u16, value: u32) {
        self.regs[usize::from(index)] = u16::try_from(value).unwrap_or(u16::MAX);
    }

    /// Whether the interface shows its mode rather than the VGA's.
    pub fn is_enabled(&self) -> bool {
        self.regs[usize::from(dispi::ENABLE)] & dispi::ENABLED != 0
    }

    /// Whether the palette has 8 bits a colour, not 6.
    pub fn has_8_bit_dac(&self) -> bool {
        self.regs[usize::from(dispi::ENABLE)] & dispi::DAC_8_BIT != 0
    }

    /// Byte offset of the 64 KiB that the window at A0000h shows.
    pub fn bank(&self) -> u64 {
        u64::from(self.regs[usize::from(dispi::BANK)]) << 16
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.get(dispi::XRES)
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.get(dispi::YRES)
    }

    /// Bits a pixel: 4, 8, 15, 16, 24 or 32.
    pub fn bits(&self) -> u32 {
        self.get(dispi::BPP)
    }

    /// Bits that a pixel takes in memory.
    fn storage_bits(&self) -> u32 {
        if self.bits() == 15 { 16 } else { self.bits() }
    }

    /// Bytes of a line; of each plane, in 4-bit modes.
    fn line_bytes(&self) -> u32 {
        let bits = if self.bits() == 4 { 1 } else { self.storage_bits() };
        self.get(dispi::VIRT_WIDTH) * bits / 8
    }

    /// Bytes of display memory from one line to the next.
    pub fn pitch(&self) -> u64 {
        u64::from(self.line_bytes()) * self.planes()
    }

    fn planes(&self) -> u64 {
        if self.bits() == 4 { 4 } else { 1 }
    }

    /// The byte of display memory that the picture starts at. The CRTC counts words of 32 bits, so the horizontal
    /// offset moves the picture by whole ones.
    pub fn start(&self) -> u64 {
        let bits = if self.bits() == 4 { 1 } else { self.storage_bits() };
        let in_line = u64::from(self.get(dispi::X_OFFSET)) * u64::from(bits) / 8 * self.planes();
        (in_line + u64::from(self.get(dispi::Y_OFFSET)) * self.pitch()) & !3
    }

    /// A read of register `index`.
    pub fn read(&self, index: u16) -> u16 {
        let capabilities = self.regs[usize::from(dispi::ENABLE)] & dispi::GET_CAPABILITIES != 0;
        match index {
            dispi::XRES if capabilities => dispi::MAX_XRES,
            dispi::YRES if capabilities => dispi::MAX_YRES,
            dispi::BPP if capabilities => dispi::MAX_BPP,
            dispi::ID..=dispi::Y_OFFSET => self.regs[usize::from(index)],
            dispi::VIDEO_MEMORY_64K => u16::try_from(self.memory >> 16).unwrap_or(u16::MAX),
            _ => 0,
        }
    }

    /// A write of register `index`. The VGA's registers follow the mode.
    pub fn write(&mut self, index: u16, value: u16, vga: &mut Regs) -> Request {
        let mut request = Request { clear: 0 };
        match index {
            dispi::ID if (dispi::ID0..=dispi::ID5).contains(&value) => self.set(index, value.into()),
            dispi::XRES | dispi::YRES | dispi::BPP | dispi::VIRT_WIDTH | dispi::X_OFFSET | dispi::Y_OFFSET => {
                self.set(index, value.into());
                self.settle();
                self.show(vga);
            }
            dispi::BANK => {
                let banks = self.memory >> 16;
                self.set(index, u32::from(value) & banks.next_power_of_two().saturating_sub(1));
                if self.get(index) >= banks {
                    self.set(index, 0);
                }
            }
            dispi::ENABLE => {
                let starts = value & dispi::ENABLED != 0 && !self.is_enabled();
                self.set(index, value.into());
                if starts {
                    self.set(dispi::VIRT_WIDTH, 0);
                    self.set(dispi::X_OFFSET, 0);
                    self.set(dispi::Y_OFFSET, 0);
                    self.settle();
                    self.show(vga);
                    if value & dispi::NO_CLEAR == 0 {
                        request.clear = self.pitch() * u64::from(self.height());
                    }
                } else if value & dispi::ENABLED == 0 {
                    self.set(dispi::BANK, 0);
                }
            }
            _ => {}
        }
        request
    }

    /// Makes the registers agree with each other and with the memory, while the interface is on.
    fn settle(&mut self) {
        if !self.is_enabled() {
            return;
        }
        if !matches!(self.bits(), 4 | 8 | 15 | 16 | 24 | 32) {
            self.set(dispi::BPP, 8);
        }
        let memory = u64::from(self.memory);
        let width = (self.width() & !7).clamp(8, dispi::MAX_XRES.into());
        self.set(dispi::XRES, width);
        let virtual_width = (self.get(dispi::VIRT_WIDTH) & !7).min(dispi::MAX_XRES.into()).max(width);
        self.set(dispi::VIRT_WIDTH, virtual_width);
        let fits = u32::try_from(memory / self.pitch().max(1)).unwrap_or(u32::MAX);
        let height = self.height().clamp(1, dispi::MAX_YRES.into()).min(fits.max(1));
        self.set(dispi::YRES, height);
        self.set(dispi::VIRT_HEIGHT, fits);
        // An offset that would show what is not there is as if it were 0: the lines' first, then the columns'.
        let shown = self.pitch() * u64::from(height);
        if self.start() + shown > memory {
            self.set(dispi::Y_OFFSET, 0);
        }
        if self.start() + shown > memory {
            self.set(dispi::X_OFFSET, 0);
        }
    }

    /// Sets those VGA registers that a mode of this interface stands for, so that their reader sees a VGA in such a
    /// mode.
    fn show(&self, vga: &mut Regs) {
        if !self.is_enabled() {
            return;
        }
        // 64 KiB at A0000h, graphics.
        vga.gfx[gfx::MISC] = vga.gfx[gfx::MISC] & !0x0c | 0x04 | gfx::GRAPHICS;
        let byte = |value: u32| value.to_le_bytes()[0];
        let last_line = self.height() - 1;
        let c = &mut vga.crtc;
        c[crtc::MODE] |= crtc::MAP_13 | crtc::MAP_14;
        c[crtc::OFFSET] = byte((self.pitch() >> 3).try_into().unwrap_or(0));
        c[crtc::HORIZONTAL_DISPLAY_END] = byte((self.width() >> 3) - 1);
        c[crtc::VERTICAL_DISPLAY_END] = byte(last_line);
        let high = byte(last_line >> 8 & 1) << 1 | byte(last_line >> 9 & 1) << 6;
        c[crtc::OVERFLOW] = c[crtc::OVERFLOW] & !0x42 | high | crtc::OVERFLOW_LINE_COMPARE;
        // No split screen, every line once.
        c[crtc::LINE_COMPARE] = 0xff;
        c[crtc::MAXIMUM_SCAN_LINE] = c[crtc::MAXIMUM_SCAN_LINE] & !0x9f | 0x40;
        let start = self.start() / 4;
        c[crtc::START_LOW] = byte(u32::try_from(start & 0xff).unwrap_or(0));
        c[crtc::START_HIGH] = byte(u32::try_from(start >> 8 & 0xff).unwrap_or(0));
        let shift = gfx::SHIFT_256 | gfx::SHIFT_INTERLEAVE;
        if self.bits() == 4 {
            vga.gfx[gfx::MODE] &= !shift;
            vga.seq[seq::CLOCKING_MODE] &= !seq::DOT_CLOCK_HALF;
        } else {
            vga.gfx[gfx::MODE] = vga.gfx[gfx::MODE] & !shift | gfx::SHIFT_256;
            vga.seq[seq::MEMORY_MODE] |= seq::CHAIN_4;
            vga.seq[seq::MAP_MASK] |= 0x0f;
        }
        vga.attr[attr::PANNING] = 0;
    }
}
