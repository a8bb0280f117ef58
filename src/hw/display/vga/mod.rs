//! The standard VGA: a VGA with the Bochs display interface, as a PCI function (`VGA`) and on the ISA bus
//! (`isa-vga`).
//!
//! Documents: *IBM VGA/XGA Technical Reference* (1992); FreeVGA's hardware pages; *VBE display hardware* (Bochs); *QEMU Standard
//! VGA* (docs/specs/standard-vga); VESA E-EDID 1.4.
//!
//! The PCI function has its display memory in BAR 0 and 4 KiB of registers in BAR 2: EDID at 0, the ports 3C0h-3DFh
//! at 400h, the Bochs registers at 500h and QEMU's own at 600h. The ports, the window at A0000h and the Bochs ports
//! answer whatever the command register says.
//!
//! Guests rely on: the window being mapped as plain memory in chain-4 modes (DOS, boot loaders' VESA banks), dirty
//! pages for the linear modes, and a retrace bit that changes.
//!
//! Compared with QEMU 10.0: `qemu-system-x86_64 -accel tcg -trace vga_std_write_io -trace vga_std_read_io -trace
//! vga_vbe_write -D TRACE` with a boot sector that sets a BIOS mode and fills it, `pmemsave 0xfd000000 0x1000000 VRAM`
//! and `screendump PPM` in the monitor, then `cargo run --example vga-replay TRACE VRAM OUT PPM`. The BIOS's VGA modes
//! 3-7 and Dh-13h and its VESA modes of 4 to 32 bits come out the same. Three differences are meant: attribute bit 7
//! blinks (QEMU never blinks text), only characters C0h-DFh repeat their eighth column (QEMU: B0h on), and cells of
//! 40-column modes are 18 dots wide (QEMU: 16).
//!
//! Not modelled: the vertical retrace interrupt (not wired on PCI), the memory enable bit of the miscellaneous output
//! register and of port 46E8h (memory always answers), the sequencer's reset, interlace, the overscan border, light
//! pen, and the vertical counter's divide-by-two. They read back as written and do nothing.

mod planar;
mod regs;
mod render;
mod spec;
mod text;
mod vbe;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::bus::{
    At, Bar, BarKind, Board, ConfigSpace, Decode, Device, DeviceRef, PciAddress, PciFunction, PostedRange, Region,
    RegionHandle, Reset,
};
use crate::event::Clock;
use crate::mem::{Backing, RamBlock};
use crate::ui::{Refresh, Surface};

use super::edid::{self, Monitor};
use planar::Access;
use regs::{Effect, Regs};
use render::Painter;
use spec::port;
use vbe::Vbe;

/// Ports from 3B0h.
pub const PORTS: Region = Region(0);
/// The Bochs index and data registers: offset 0 is the index, 2 and 4 the data.
pub const DISPI_PORTS: Region = Region(1);
/// 128 KiB at A0000h.
pub const WINDOW: Region = Region(2);
/// BAR 0: RAM, mapped by the board.
const FRAME_BUFFER: Region = Region(3);
/// BAR 2.
const MMIO: Region = Region(4);
/// The expansion ROM: RAM, mapped by the board.
const ROM: Region = Region(5);

/// Where the ISA variant's linear frame buffer is.
const ISA_FRAME_BUFFER: u64 = 0xe000_0000;

/// The device's properties.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// `edid`: whether there is a monitor description, and which.
    pub edid: Option<Monitor>,
    /// `mmio`: whether there is BAR 2.
    pub mmio: bool,
    /// `qemu-extended-regs`: whether BAR 2 has them.
    pub extended_registers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { edid: Some(Monitor::default()), mmio: true, extended_registers: true }
    }
}

/// Bytes of display memory for the property `vgamem_mb`: 1-256 MiB, a power of two.
#[must_use]
pub fn vram_len(vgamem_mb: u32) -> u64 {
    u64::from(vgamem_mb.clamp(1, 256).next_power_of_two()) << 20
}

/// A standard VGA.
pub struct Vga {
    // Wires, given at construction.
    vram: Arc<RamBlock>,
    clock: Clock,
    direct_window: RegionHandle,
    // Options.
    edid: Vec<u8>,
    has_mmio: bool,
    extended_registers: bool,
    is_pci: bool,
    // Guest-visible state.
    config: ConfigSpace,
    regs: Regs,
    vbe: Vbe,
    // What is mapped and what is shown.
    direct: Option<u64>,
    painter: Painter,
}

impl std::fmt::Debug for Vga {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vga({:?})", self.vram)
    }
}

/// QEMU's identity of the PCI function.
mod id {
    pub const VENDOR: u16 = 0x1234;
    pub const DEVICE: u16 = 0x1111;
    pub const REVISION: u8 = 2;
    pub const CLASS: u32 = 0x03_0000;
    pub const SUBSYSTEM_VENDOR: u16 = 0x1af4;
    pub const SUBSYSTEM: u16 = 0x1100;
    pub const MMIO_LEN: u64 = 4096;
}

impl Vga {
    /// The PCI function. `vram` is a tracked block of [`vram_len`] bytes; `rom` is the expansion ROM (a power of two
    /// long), which whoever plugs the function in maps at BAR 6; `direct_window` is a hidden mapping of 64 KiB at
    /// A0000h above [`WINDOW`].
    #[must_use]
    pub fn new_pci(
        vram: Arc<RamBlock>,
        clock: Clock,
        direct_window: RegionHandle,
        options: Options,
        rom: Option<&RamBlock>,
    ) -> Self {
        let memory = |len, region, prefetchable| Bar { kind: BarKind::Memory32 { prefetchable }, len, region };
        let mut config = ConfigSpace::new(id::VENDOR, id::DEVICE, id::REVISION, id::CLASS)
            .with_subsystem(id::SUBSYSTEM_VENDOR, id::SUBSYSTEM)
            .with_bar(0, memory(vram.len(), FRAME_BUFFER, true));
        if options.mmio {
            config = config.with_bar(2, memory(id::MMIO_LEN, MMIO, false));
        }
        if let Some(rom) = rom {
            config = config.with_bar(6, Bar { kind: BarKind::Rom, len: rom.len(), region: ROM });
        }
        Self::build(vram, clock, direct_window, options, Some(config))
    }

    /// The ISA card.
    #[must_use]
    pub fn new_isa(vram: Arc<RamBlock>, clock: Clock, direct_window: RegionHandle) -> Self {
        let options = Options { edid: None, mmio: false, extended_registers: false };
        Self::build(vram, clock, direct_window, options, None)
    }

    fn build(
        vram: Arc<RamBlock>,
        clock: Clock,
        direct_window: RegionHandle,
        options: Options,
        config: Option<ConfigSpace>,
    ) -> Self {
        let memory = u32::try_from(vram.len()).unwrap_or(u32::MAX);
        Self {
            vram,
            clock,
            direct_window,
            edid: options.edid.map(edid::blob).unwrap_or_default(),
            has_mmio: options.mmio,
            extended_registers: options.extended_registers,
            is_pci: config.is_some(),
            // An ISA card has none; this one is reachable by nobody.
            config: config.unwrap_or_else(|| ConfigSpace::new(0xffff, 0xffff, 0, 0)),
            regs: Regs::COLD,
            vbe: Vbe::cold(memory),
            direct: None,
            painter: Painter::default(),
        }
    }

    /// Puts a PCI VGA on a board: the function itself with its BARs, the VGA's and the Bochs ports, and the window
    /// at A0000h with `window_priority`.
    pub fn add_pci(
        board: &mut Board,
        name: &str,
        address: PciAddress,
        wiring: Wiring,
        options: Options,
        rom: Option<Arc<RamBlock>>,
    ) -> DeviceRef<Self> {
        let id = board.reserve(name);
        let Wiring { vram, clock, window_priority } = wiring;
        let direct = map_direct_window(board, &vram, window_priority + 1);
        let vga = Self::new_pci(Arc::clone(&vram), clock, direct, options, rom.as_deref());
        let device = board.install(id, vga);
        map_legacy(board, &device, window_priority);
        let mut blocks = vec![(0, vram)];
        blocks.extend(rom.map(|rom| (6, rom)));
        board.plug_pci(address, device.id(), Decode::UP_TO_4, &blocks);
        device
    }

    /// Puts an ISA VGA on a board. Its firmware is the machine's business (a ROM at C0000h).
    pub fn add_isa(board: &mut Board, name: &str, wiring: Wiring) -> DeviceRef<Self> {
        let id = board.reserve(name);
        let Wiring { vram, clock, window_priority } = wiring;
        let direct = map_direct_window(board, &vram, window_priority + 1);
        let device = board.install(id, Self::new_isa(Arc::clone(&vram), clock, direct));
        map_legacy(board, &device, window_priority);
        let len = vram.len();
        board.map_memory("vga.vram", ISA_FRAME_BUFFER, len, window_priority, Backing::Ram { block: vram, offset: 0 });
        device
    }

    /// Display memory, for the accelerator's dirty log.
    #[must_use]
    pub fn vram(&self) -> &Arc<RamBlock> {
        &self.vram
    }

    /// Draws what changed since the last call into `surface`; everything if `all`. The accelerator's dirty log has
    /// been fetched before.
    pub fn refresh(&mut self, surface: &mut Surface, all: bool) -> Refresh {
        self.painter.paint(&self.regs, &self.vbe, &self.vram, self.clock.now_ns(), surface, all)
    }

    fn access(&self) -> Access<'_> {
        Access { regs: &self.regs, bank: self.vbe.bank() }
    }

    /// The only place that shows or hides the plain mapping of the window; call it after any change of how the CPU
    /// reaches the memory.
    fn update_window(&mut self) {
        let direct = self.access().direct_window();
        if direct == self.direct {
            return;
        }
        self.direct = direct;
        if let Some(offset) = direct {
            self.direct_window.set_backing(Backing::Ram { block: Arc::clone(&self.vram), offset });
        }
        self.direct_window.set_enabled(direct.is_some());
    }

    fn read_port(&mut self, port: u16) -> u8 {
        let now = if matches!(port, port::STATUS1 | port::STATUS1_MONO) { self.clock.now_ns() } else { 0 };
        self.regs.read(port, now)
    }

    fn write_port(&mut self, port: u16, value: u8) {
        if self.regs.write(port, value) == Effect::Window {
            self.update_window();
        }
    }

    fn write_dispi(&mut self, index: u16, value: u16) {
        let request = self.vbe.write(index, value, &mut self.regs);
        let zeros = [0; 4096];
        let mut at = 0;
        let end = request.clear.min(self.vram.len());
        while at < end {
            let step = usize::try_from(end - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.vram.write(at, &zeros[..step]);
            at += step as u64;
        }
        self.update_window();
    }

    fn read_window(&mut self, offset: u64, bytes: u64) -> u64 {
        if let Some(at) = self.access().direct(offset) {
            let mut data = [0; 8];
            self.vram.read(at, &mut data[..usize::try_from(bytes).unwrap_or(8).min(8)]);
            return u64::from_le_bytes(data);
        }
        let mut value = 0;
        for i in 0..bytes {
            let (byte, latch) = planar::read(self.access(), &self.vram, offset + i);
            self.regs.latch = latch;
            value |= u64::from(byte) << (8 * i);
        }
        value
    }

    fn write_window(&mut self, offset: u64, bytes: u64, value: u64) {
        let data = value.to_le_bytes();
        if let Some(at) = self.access().direct(offset) {
            self.vram.write(at, &data[..usize::try_from(bytes).unwrap_or(8).min(8)]);
            return;
        }
        for (i, byte) in (0..bytes).zip(data) {
            planar::write(self.access(), &self.vram, offset + i, byte);
        }
    }

    /// A byte or word of BAR 2 (QEMU Standard VGA, "MMIO area spec").
    fn read_mmio(&mut self, offset: u64, bytes: u64) -> u64 {
        match offset {
            0..0x180 if !self.edid.is_empty() => {
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                (0..bytes).zip(self.edid.iter().skip(at)).fold(0, |v, (i, byte)| v | u64::from(*byte) << (8 * i))
            }
            0x400..0x420 => {
                (0..bytes).fold(0, |value, i| value | u64::from(self.read_port(mmio_port(offset + i))) << (8 * i))
            }
            0x500..0x516 => {
                let index = |i| u16::try_from((offset - 0x500 + i) / 2).unwrap_or(u16::MAX);
                let words = u64::from(self.vbe.read(index(0))) | u64::from(self.vbe.read(index(2))) << 16;
                words >> (8 * (offset & 1))
            }
            0x600..0x608 if self.extended_registers => {
                // The region's length, then the frame buffer's byte order, which is always little-endian.
                let words: u64 = if offset < 0x604 { 8 } else { 0x1e1e_1e1e };
                words >> (8 * (offset & 3))
            }
            _ => u64::MAX,
        }
    }

    fn write_mmio(&mut self, offset: u64, bytes: u64, value: u64) {
        match offset {
            0x400..0x420 => {
                for (i, byte) in (0..bytes).zip(value.to_le_bytes()) {
                    self.write_port(mmio_port(offset + i), byte);
                }
            }
            0x500..0x516 if offset & 1 == 0 => {
                let [a, b, c, d, ..] = value.to_le_bytes();
                let index = u16::try_from((offset - 0x500) / 2).unwrap_or(u16::MAX);
                self.write_dispi(index, u16::from_le_bytes([a, b]));
                if bytes > 2 {
                    self.write_dispi(index + 1, u16::from_le_bytes([c, d]));
                }
            }
            _ => {}
        }
    }
}

fn mmio_port(offset: u64) -> u16 {
    port::ATTR_INDEX + u16::try_from(offset & 0x1f).unwrap_or(0)
}

/// What a VGA on a board is connected to.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// Display memory: a tracked block of [`vram_len`] bytes.
    pub vram: Arc<RamBlock>,
    /// The machine's clock, for the retrace bits and blinking.
    pub clock: Clock,
    /// Priority of the window at A0000h among the board's mappings; its plain-memory variant is one above.
    pub window_priority: i32,
}

fn map_direct_window(board: &mut Board, vram: &Arc<RamBlock>, priority: i32) -> RegionHandle {
    let backing = Backing::Ram { block: Arc::clone(vram), offset: 0 };
    let handle = board.map_memory("vga.chain4", 0xa0000, 0x1_0000, priority, backing);
    handle.set_enabled(false);
    handle
}

/// Maps the ports and the window that every VGA has.
fn map_legacy(board: &mut Board, device: &DeviceRef<Vga>, window_priority: i32) {
    let id = device.id();
    for (base, len) in [(0x3b4, 2), (0x3ba, 1), (0x3c0, 16), (0x3d4, 2), (0x3da, 1)] {
        board.map_ports_at(id, PORTS, Decode::BYTES, base, len, u64::from(base - port::BASE));
    }
    // Words at consecutive ports: the later range wins where two overlap, so each port starts its own word.
    let words = Decode { min: crate::bus::Width::B2, max: crate::bus::Width::B2 };
    for (base, offset) in [(0x1ce, 0), (0x1cf, 2), (0x1d0, 4)] {
        board.map_ports_at(id, DISPI_PORTS, words, base, 2, offset);
    }
    board.map_mmio(id, WINDOW, Decode::UP_TO_8, 0xa0000, 0x2_0000, window_priority);
    // Writes show no effect before something else is accessed or the picture is drawn.
    board.allow_posting(PostedRange::Memory { gpa: 0xa0000, len: 0x2_0000 });
}

impl Device for Vga {
    fn read(&mut self, at: At) -> u64 {
        let bytes = at.width.bytes();
        match at.region {
            PORTS => self.read_port(port_at(at.offset)).into(),
            DISPI_PORTS if at.offset < 2 => self.vbe.index.into(),
            DISPI_PORTS => self.vbe.read(self.vbe.index).into(),
            WINDOW => self.read_window(at.offset, bytes),
            MMIO if self.has_mmio => self.read_mmio(at.offset, bytes),
            _ => u64::MAX,
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let bytes = at.width.bytes();
        let [low, high, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes([low, high]);
        match at.region {
            PORTS => self.write_port(port_at(at.offset), low),
            DISPI_PORTS if at.offset < 2 => self.vbe.index = word,
            DISPI_PORTS => self.write_dispi(self.vbe.index, word),
            WINDOW => self.write_window(at.offset, bytes, value),
            MMIO if self.has_mmio => self.write_mmio(at.offset, bytes, value),
            _ => {}
        }
    }

    fn reset(&mut self, _kind: Reset) {
        // Exhaustive: a new field must choose. Configuration space is reset by the board; the display memory keeps
        // its content; the painter sees by itself what changed.
        let Self {
            vram: _,
            clock: _,
            direct_window: _,
            edid: _,
            has_mmio: _,
            extended_registers: _,
            is_pci: _,
            config: _,
            regs,
            vbe,
            direct: _,
            painter: _,
        } = self;
        *regs = Regs::COLD;
        *vbe = Vbe::cold(u32::try_from(self.vram.len()).unwrap_or(u32::MAX));
        self.update_window();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        if self.is_pci { Some(self) } else { None }
    }
}

impl PciFunction for Vga {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

fn port_at(offset: u64) -> u16 {
    port::BASE.wrapping_add(u16::try_from(offset).unwrap_or(0))
}
