//! The `pc` and `q35` machines: what both have, and `pc`: an i440FX host bridge, a PIIX3 with its ISA devices, PIIX4 power
//! management. What `q35` has instead is in [`super::q35`].
//!
//! One readable list of what is wired to what. Addresses are the PC's; PCI slots are QEMU's: 0 host bridge, 1 PIIX
//! (functions: 0 ISA bridge, 1 IDE, 3 power management), 2 VGA.

use std::sync::{Arc, Weak};

use crate::block::BlockQueue;
use crate::bus::{
    A20Gate, Board, BoardCell, Decode, DeviceId, DeviceRef, IrqLine, LineSink, MsiSink, PciAddress, PirqWiring,
    PostedRange, PowerSink, RegionHandle, Token, Width,
};
use crate::event::{Clock, ClockKind, LoopHandle, NS_PER_SEC, Timer, realtime_ns};
use crate::hw::ahci::Ahci;
use crate::hw::chipset::dma8237::{self, Dma8237};
use crate::hw::chipset::fw_cfg::{self, FwCfg};
use crate::hw::chipset::i440fx::{I440fx, PAM_SEGMENTS, PamSegment, SMRAM_WINDOW};
use crate::hw::chipset::piix3::{self, Piix3};
use crate::hw::chipset::piix4_pm::{self, Piix4Pm};
use crate::hw::chipset::port92::{self, Port92};
use crate::hw::chipset::q35::lpc::Ich9Lpc;
use crate::hw::chipset::q35::mch::EcamBase;
use crate::hw::flash::{self, Pflash};
use crate::hw::ide::{self, Chip, DriveInfo, DriveOptions, EjectError, FaultSink, PiixIde, TraySink};
use crate::hw::input::i8042::{self, I8042};
use crate::hw::timer::hpet::{self, Hpet, LegacyGate};
use crate::hw::timer::i8254::{self, I8254};
use crate::hw::timer::mc146818::{self, Mc146818, TimeSource};
use crate::mem::{Backing, GuestRam, RamBlock, RomWrites};

use super::build::BuildError;
use super::chips::ChipOptions;
use super::config::{Chipset, Config, RtcBase, RtcClock, RtcSpec};
use super::fabric::IrqFabric;
use super::flash::{FlashUnit, PlacedFlash};
use super::intc::Controllers;
use super::layout::{RamLayout, boot_order_cmos};
use super::objects::Objects;
use super::q35;

/// Priorities of overlapping mappings, lowest first. PCI base address registers have -1.
pub(super) mod priority {
    pub const RAM: i32 = 0;
    pub const ROM: i32 = 1;

    pub const PAM: i32 = 4;
    pub const SMRAM: i32 = 5;
    pub const A20: i32 = 6;
}

/// ISA serial ports: base and interrupt.
pub const SERIAL_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// A0000h to FFFFFh: display window, option ROMs, BIOS.
const LEGACY_HOLE: (u64, u64) = (0xa_0000, 0x10_0000);

/// ISA parallel ports: base and interrupt.
pub const PARALLEL_PORTS: [(u16, u8); 3] = [(0x378, 7), (0x278, 5), (0x3bc, 7)];

/// Comparators of the HPET.
const HPET_TIMERS: u8 = 3;

/// How the board's PCI slots are wired.
#[must_use]
pub fn pci_wiring(config: &Config) -> PirqWiring {
    match config.machine.chipset() {
        Chipset::Q35 => PirqWiring::Ich9,
        Chipset::I440fx => PirqWiring::I440fx,
    }
}

const HOST_BRIDGE: PciAddress = PciAddress::new(0, 0);
const ISA_BRIDGE: PciAddress = PciAddress::new(1, 0);
const IDE: PciAddress = PciAddress::new(1, 1);
const POWER_MANAGEMENT: PciAddress = PciAddress::new(1, 3);

/// What a board is built from and connected to.
pub struct Wiring {
    /// The board.
    pub cell: Arc<BoardCell>,
    /// Guest memory as DMA sees it.
    pub ram: GuestRam,
    /// The main loop.
    pub handle: LoopHandle,
    /// Machine time.
    pub clock: Clock,
    /// Interrupt lines.
    pub irqs: IrqFabric,
    /// What `-object` made.
    pub objects: Objects,
    /// Where message-signalled interrupts go.
    pub messages: Arc<dyn MsiSink>,
    /// The power switch.
    pub power: PowerSink,
    /// Takes the PIT's interrupt away, or gives it back: the HPET replaces it.
    pub replace_pit: Arc<dyn Fn(bool) + Send + Sync>,
    /// The interrupt controllers, where the accelerator has none.
    pub controllers: Option<Arc<Controllers>>,
    /// The way of our own PIT's interrupt 0, where the accelerator has no PIT.
    pub timer_gate: Option<Arc<LegacyGate>>,
}

impl Wiring {
    /// A timer whose deadline raises a device's event.
    #[must_use]
    pub fn timer(&self, device: DeviceId, token: Token) -> Timer {
        let board: Weak<BoardCell> = Arc::downgrade(&self.cell);
        self.handle.timer(ClockKind::Virtual, move || {
            if let Some(board) = board.upgrade() {
                board.lock().event(device, token);
            }
        })
    }

    /// The line of a function's interrupt pin (0 is INTA#), through the bridges above it.
    #[must_use]
    pub fn pci_line(&self, board: &Board, address: PciAddress, pin: u8) -> IrqLine {
        let (slot, pin) = board.pci_root_pin(address, pin);
        self.irqs.router().line(slot, pin)
    }

    /// What a disk queue calls when requests ended.
    #[must_use]
    pub fn notifier(&self, device: DeviceId, token: Token) -> Arc<dyn Fn() + Send + Sync> {
        let board: Weak<BoardCell> = Arc::downgrade(&self.cell);
        Arc::new(move || {
            if let Some(board) = board.upgrade() {
                board.lock().event(device, token);
            }
        })
    }
}

/// The chips that others need to know by name.
#[derive(Debug)]
pub struct Pc {
    /// Keyboard controller.
    pub i8042: DeviceRef<I8042>,
    /// Real-time clock and CMOS.
    pub rtc: DeviceRef<Mc146818>,
    /// The chipset's south side: power management and disks.
    pub south: South,
    /// System RAM.
    pub system_ram: Arc<RamBlock>,
    /// Its layout.
    pub layout: RamLayout,
    /// Flash chips, unit 0 first.
    pub flash: Vec<PlacedFlash>,
    /// Where the memory window on configuration space is now, on a Q35 board.
    pub ecam_base: EcamBase,
}

/// The chips that differ between chipsets.
#[derive(Clone, Copy, Debug)]
pub enum South {
    /// PIIX3, with PIIX4's power management.
    Piix {
        /// Power management.
        pm: DeviceRef<Piix4Pm>,
        /// IDE controller.
        ide: DeviceRef<PiixIde>,
    },
    /// ICH9.
    Ich9 {
        /// The LPC bridge with its power management.
        lpc: DeviceRef<Ich9Lpc>,
        /// SATA controller.
        ahci: DeviceRef<Ahci>,
    },
}

/// Options of the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PcOptions {
    /// Which board it is.
    pub chipset: Chipset,
    /// `-global mch.extended-tseg-mbytes=`.
    pub extended_tseg_mib: u16,
    /// Bytes of RAM.
    pub ram_size: u64,
    /// `-machine mem-merge=`: the host may share equal pages of RAM.
    pub mem_merge: bool,
    /// `-machine hpet=`.
    pub hpet: bool,
    /// `-rtc`.
    pub rtc: RtcSpec,
    /// `-global` for chips of the board.
    pub chips: ChipOptions,
    /// Serial ports of the board.
    pub serial_ports: u8,
    /// Whether it has a parallel port.
    pub parallel_port: bool,
}

/// What the processors start from.
pub enum Firmware {
    /// A ROM's content.
    Bios(Vec<u8>),
    /// Flash chips, unit 0 first; at least one.
    Flash(Vec<FlashUnit>),
}

/// Maps RAM.
fn map_memory(board: &mut Board, layout: RamLayout, mem_merge: bool) -> Result<Arc<RamBlock>, BuildError> {
    let size = layout.below_4g + layout.above_4g;
    let ram = RamBlock::anonymous("pc.ram", size).map_err(|source| BuildError::Memory { name: "pc.ram", source })?;
    ram.advise_huge_pages();
    if mem_merge && let Err(error) = ram.advise_mergeable() {
        log::debug!("mem-merge: {error}");
    }
    let backing = |offset| Backing::Ram { block: Arc::clone(&ram), offset };
    // From A0000h to FFFFFh the PCI bus answers, until PAM or SMRAM say otherwise.
    board.map_memory("pc.ram", 0, layout.below_4g.min(LEGACY_HOLE.0), priority::RAM, backing(0));
    if layout.below_4g > LEGACY_HOLE.1 {
        let len = layout.below_4g - LEGACY_HOLE.1;
        board.map_memory("pc.ram", LEGACY_HOLE.1, len, priority::RAM, backing(LEGACY_HOLE.1));
    }
    if layout.above_4g > 0 {
        let above = backing(layout.below_4g);
        board.map_memory("ram-above-4g", 1 << 32, layout.above_4g, priority::RAM, above);
    }
    Ok(ram)
}

const FOUR_GIB: u64 = 1 << 32;

/// Maps the firmware: it ends at 4 GiB, and the last 128 KiB also lie below 1 MiB, read-only.
fn map_firmware(
    board: &mut Board,
    wiring: &Wiring,
    firmware: Firmware,
) -> Result<(Arc<RamBlock>, Vec<PlacedFlash>), BuildError> {
    let (rom, placed) = match firmware {
        Firmware::Bios(bytes) => (map_bios(board, &bytes)?, Vec::new()),
        Firmware::Flash(units) => {
            let first = units.first().map(|unit| Arc::clone(&unit.memory));
            let rom = first.ok_or_else(|| BuildError::Text("pflash1 requires pflash0".to_owned()))?;
            (rom, add_flash(board, wiring, units))
        }
    };
    let len = rom.len();
    let low = len.min(0x2_0000);
    let backing = Backing::Rom { block: Arc::clone(&rom), offset: len - low, writes: RomWrites::Lost };
    board.map_memory("isa-bios", 0x10_0000 - low, low, priority::ROM, backing);
    Ok((rom, placed))
}

fn map_bios(board: &mut Board, bytes: &[u8]) -> Result<Arc<RamBlock>, BuildError> {
    let len = bytes.len() as u64;
    let rom = RamBlock::anonymous("pc.bios", len).map_err(|source| BuildError::Memory { name: "pc.bios", source })?;
    rom.write(0, bytes);
    let backing = Backing::Rom { block: Arc::clone(&rom), offset: 0, writes: RomWrites::Lost };
    board.map_memory("pc.bios", FOUR_GIB - len, len, priority::ROM, backing);
    Ok(rom)
}

/// Puts the chips below each other, the first one on top.
fn add_flash(board: &mut Board, wiring: &Wiring, units: Vec<FlashUnit>) -> Vec<PlacedFlash> {
    let mut base = FOUR_GIB;
    let mut placed = Vec::new();
    for FlashUnit { name, drive, memory, disk } in units {
        let len = memory.len();
        base -= len;
        let id = board.reserve(name);
        let queue = disk.queue(wiring.notifier(id, flash::WRITTEN));
        Pflash::add(board, id, flash::Wires { base, priority: priority::ROM, memory, queue });
        placed.push(PlacedFlash { name, drive, base, len });
    }
    placed
}

/// The 13 PAM segments, hidden: reads and writes go to the PCI bus at power-on.
fn map_pam(board: &mut Board, ram: &Arc<RamBlock>, rom: &Arc<RamBlock>) -> [PamSegment; 13] {
    PAM_SEGMENTS.map(|(start, len)| {
        let backing = Backing::Ram { block: Arc::clone(ram), offset: start };
        let region = board.map_memory("pam", start, len, priority::PAM, backing);
        region.set_enabled(false);
        let rom_low = 0x10_0000 - rom.len().min(0x2_0000);
        let rom = (start >= rom_low).then(|| (Arc::clone(rom), rom.len() - (0x10_0000 - start)));
        PamSegment { region, ram: (Arc::clone(ram), start), rom }
    })
}

/// Builds the board's fixed chips. `faults` hears of disk requests that failed.
///
/// # Errors
/// The host has not enough memory.
pub fn build(wiring: &Wiring, options: &PcOptions, firmware: Firmware, faults: FaultSink) -> Result<Pc, BuildError> {
    let mut guard = wiring.cell.lock();
    let board = &mut *guard;
    let layout = RamLayout::new(options.ram_size, options.chipset);
    let ram = map_memory(board, layout, options.mem_merge)?;
    let (rom, flash) = map_firmware(board, wiring, firmware)?;

    // PCI configuration, PAM, SMRAM.
    board.map_pci_config_ports();
    let segments = map_pam(board, &ram, &rom);
    let (start, len) = SMRAM_WINDOW;
    let backing = Backing::Ram { block: Arc::clone(&ram), offset: start };
    let smram = board.map_memory("smram", start, len, priority::SMRAM, backing);
    smram.set_enabled(false);
    let ecam_base = EcamBase::default();
    match options.chipset {
        Chipset::I440fx => add_i440fx(board, wiring, options, segments, smram),
        Chipset::Q35 => q35::add_mch(board, options, layout, segments, smram, &ecam_base),
    }

    // A20: with the gate closed, the second megabyte is the first.
    let backing = Backing::Ram { block: Arc::clone(&ram), offset: 0 };
    let wrap = board.map_memory("a20-wrap", 0x10_0000, 0x10_0000, priority::A20, backing);
    wrap.set_enabled(false);
    let a20 = A20Gate::new(move |enabled| wrap.set_enabled(!enabled));

    // Interrupt controllers and timer, unless the kernel has them.
    if let Some(controllers) = &wiring.controllers {
        controllers.map(board, priority::ROM);
    }
    if let Some(gate) = &wiring.timer_gate {
        add_pit(board, wiring, gate);
    }

    // Keyboard controller, port 92h.
    let keyboard = I8042::new(wiring.irqs.isa(1), wiring.irqs.isa(12), Arc::clone(&a20), Arc::clone(&wiring.power));
    let i8042 = board.add("i8042", keyboard);
    board.map_ports(i8042.id(), i8042::DATA, Decode::BYTES, 0x60, 1);
    board.map_ports(i8042.id(), i8042::COMMAND, Decode::BYTES, 0x64, 1);
    let port = board.add("port92", Port92::new(a20, Arc::clone(&wiring.power)));
    board.map_ports(port.id(), port92::PORT, Decode::BYTES, 0x92, 1);

    // The DMA controllers and their page registers.
    let dma = board.add("i8257", Dma8237::new());
    board.map_ports(dma.id(), dma8237::CONTROLLER1, Decode::BYTES, 0x00, 16);
    board.map_ports(dma.id(), dma8237::CONTROLLER2, Decode::BYTES, 0xc0, 32);
    board.map_ports(dma.id(), dma8237::PAGES, Decode::BYTES, 0x80, 16);

    let rtc_gate = LegacyGate::new(wiring.irqs.sink());
    let rtc_irq = IrqLine::new(Arc::clone(&rtc_gate) as Arc<dyn LineSink>, 8);
    let rtc = add_rtc(board, wiring, options, rtc_irq);
    if options.hpet {
        add_hpet(
            board,
            wiring,
            rtc_gate,
            match options.chipset {
                Chipset::I440fx => hpet::ROUTES_I440FX,
                Chipset::Q35 => hpet::ROUTES_Q35,
            },
        );
    }
    let south = match options.chipset {
        Chipset::I440fx => {
            let pm = add_power_management(board, wiring, options);
            South::Piix { pm, ide: add_ide(board, wiring, faults) }
        }
        Chipset::Q35 => q35::add_south(board, wiring, options, faults),
    };
    Ok(Pc { i8042, rtc, south, system_ram: ram, layout, flash, ecam_base })
}

/// The 440FX host bridge and PIIX3, the ISA bridge with the interrupt router.
fn add_i440fx(
    board: &mut Board,
    wiring: &Wiring,
    options: &PcOptions,
    segments: [PamSegment; 13],
    smram: RegionHandle,
) {
    let host = board.add("i440FX", I440fx::new(options.ram_size, segments, smram));
    board.plug_pci(HOST_BRIDGE, host.id(), Decode::UP_TO_4, &[]);
    let bridge = Piix3::new(Arc::clone(wiring.irqs.router()), Arc::clone(&wiring.power));
    let bridge = board.add("PIIX3", bridge);
    board.plug_pci(ISA_BRIDGE, bridge.id(), Decode::BYTES, &[]);
    board.map_ports(bridge.id(), piix3::RESET_CONTROL, Decode::BYTES, 0xcf9, 1);
}

/// Nanoseconds since 1970 that the clock shows at power-on: local time counts as if it were UTC.
fn rtc_start_ns(base: RtcBase) -> i64 {
    let now = i64::try_from(realtime_ns()).unwrap_or(i64::MAX);
    let second = i64::try_from(NS_PER_SEC).unwrap_or(i64::MAX);
    match base {
        RtcBase::Utc => now,
        RtcBase::LocalTime => now.saturating_add(ahead_of_utc_seconds(now / second).saturating_mul(second)),
        RtcBase::Date(seconds) => seconds.saturating_mul(second),
    }
}

fn ahead_of_utc_seconds(now_seconds: i64) -> i64 {
    crate::host::zone::local_time(now_seconds).map_or(0, |local| local.ahead_seconds)
}

fn add_rtc(board: &mut Board, wiring: &Wiring, options: &PcOptions, irq: IrqLine) -> DeviceRef<Mc146818> {
    let spec = options.rtc;
    let id = board.reserve("mc146818rtc");
    let source = match spec.clock {
        RtcClock::Host => TimeSource::Host,
        RtcClock::Rt => TimeSource::Monotonic,
        RtcClock::Vm => TimeSource::Virtual,
    };
    let timer = wiring.timer(id, mc146818::TIMER_TOKEN);
    let start = rtc_start_ns(spec.base);
    let rtc =
        board.install(id, Mc146818::new(irq, wiring.clock.clone(), timer, source, start, options.chips.rtc_lost_ticks));
    board.map_ports(id, mc146818::PORTS, Decode::BYTES, 0x70, 2);
    // The index register does nothing by itself.
    board.allow_posting(PostedRange::Ports { base: 0x70, len: 1 });
    rtc
}

fn add_pit(board: &mut Board, wiring: &Wiring, gate: &Arc<LegacyGate>) {
    let id = board.reserve("isa-pit");
    let irq = IrqLine::new(Arc::clone(gate) as Arc<dyn LineSink>, 0);
    let timer = wiring.timer(id, i8254::TIMER_TOKEN);
    board.install(id, I8254::new(irq, wiring.clock.clone(), timer));
    board.map_ports(id, i8254::COUNTERS, Decode::BYTES, 0x40, 4);
    board.map_ports(id, i8254::SYSTEM_CONTROL, Decode::BYTES, 0x61, 1);
}

/// While the HPET stands in for them, the PIT and the RTC interrupt nobody (IA-PC HPET 1.0a, 2.3.5).
fn add_hpet(board: &mut Board, wiring: &Wiring, rtc_gate: Arc<LegacyGate>, routes: u32) {
    let id = board.reserve("hpet");
    let timers = (0..HPET_TIMERS).map(|index| wiring.timer(id, hpet::timer_token(index))).collect();
    let replace_pit = Arc::clone(&wiring.replace_pit);
    let legacy = Box::new(move |on: bool| {
        rtc_gate.set_blocked(on);
        replace_pit(on);
    });
    let chip = Hpet::new(wiring.irqs.sink(), wiring.clock.clone(), timers, routes, legacy);
    board.install(id, chip);
    let decode = Decode { min: Width::B4, max: Width::B8 };
    board.map_mmio(id, hpet::REGISTERS, decode, hpet::BASE, hpet::LEN, priority::ROM);
}

fn add_power_management(board: &mut Board, wiring: &Wiring, options: &PcOptions) -> DeviceRef<Piix4Pm> {
    let id = board.reserve("PIIX4_PM");
    let pm_ports = board.map_ports(id, piix4_pm::PM, Decode::UP_TO_4, 0, 64);
    pm_ports.set_enabled(false);
    let smbus_ports = board.map_ports(id, piix4_pm::SMBUS, Decode::BYTES, 0, 64);
    smbus_ports.set_enabled(false);
    board.map_ports(id, piix4_pm::GPE0, Decode::UP_TO_4, 0xafe0, 4);
    board.map_ports(id, piix4_pm::APM, Decode::BYTES, 0xb2, 2);
    let wires = piix4_pm::Wires {
        sci: wiring.irqs.isa(9),
        clock: wiring.clock.clone(),
        timer: wiring.timer(id, piix4_pm::PM_TIMER_TOKEN),
        pm_ports,
        smbus_ports,
    };
    let chip = piix4_pm::Options {
        serial_ports: options.serial_ports,
        parallel_port: options.parallel_port,
        disable_s3: options.chips.disable_s3 != 0,
        disable_s4: options.chips.disable_s4 != 0,
        s4_type: options.chips.s4_type,
        ..piix4_pm::Options::default()
    };
    let pm = Piix4Pm::new(wires, Arc::clone(&wiring.power), chip, vec![[0; 256]; 8]);
    let pm = board.install(id, pm);
    board.plug_pci(POWER_MANAGEMENT, id, Decode::BYTES, &[]);
    pm
}

fn add_ide(board: &mut Board, wiring: &Wiring, faults: FaultSink) -> DeviceRef<PiixIde> {
    let irqs = ide::LEGACY_IRQS.map(|irq| wiring.irqs.isa(irq));
    let ide = board.add("piix3-ide", PiixIde::new(Chip::Piix3, irqs, wiring.ram.clone(), faults));
    for (region, base, len) in ide::LEGACY_PORTS {
        board.map_ports(ide.id(), region, ide::DECODE, base, len);
    }
    board.plug_pci(IDE, ide.id(), ide::DECODE, &[]);
    ide
}

/// Puts fw_cfg on the board, once all that it tells is known.
pub fn add_fw_cfg(board: &mut Board, device: FwCfg) -> DeviceRef<FwCfg> {
    let device = board.add("fw_cfg", device);
    board.map_ports(device.id(), fw_cfg::PORTS, Decode { min: Width::B1, max: Width::B2 }, 0x510, 2);
    board.map_ports(device.id(), fw_cfg::DMA_PORTS, Decode::UP_TO_4, 0x514, 8);
    device
}

impl Pc {
    /// Sets bytes of the CMOS RAM.
    pub fn set_cmos(&self, board: &mut Board, bytes: &[(u8, u8)]) {
        board.with(&self.rtc, |rtc| {
            for (index, value) in bytes {
                rtc.set_cmos(*index, *value);
            }
        });
    }

    /// Tells the firmware where to boot from, from the next start on.
    pub fn set_boot_order(&self, board: &mut Board, order: &str) {
        let mut bytes = boot_order_cmos(order).to_vec();
        let flags = board.with(&self.rtc, |rtc| rtc.cmos(0x38) & 1).unwrap_or(0);
        for (index, value) in &mut bytes {
            if *index == 0x38 {
                *value |= flags;
            }
        }
        self.set_cmos(board, &bytes);
    }

    /// The event that a drive's queue raises, and whose it is: `number` is channel * 2 + unit.
    #[must_use]
    pub fn drive_event(&self, number: usize) -> (DeviceId, Token) {
        match self.south {
            South::Piix { ide, .. } => (ide.id(), PiixIde::token(number)),
            South::Ich9 { ahci, .. } => (ahci.id(), Ahci::token(number / 2)),
        }
    }

    /// Connects a drive: `number` is channel * 2 + unit.
    pub fn attach_drive(&self, board: &mut Board, number: usize, options: DriveOptions, queue: Box<dyn BlockQueue>) {
        match self.south {
            South::Piix { ide, .. } => board.with(&ide, |ide| ide.attach(number, options, queue)),
            South::Ich9 { ahci, .. } => board.with(&ahci, |ahci| ahci.attach(number / 2, number, options, queue)),
        };
    }

    /// The drives of the board's own controller.
    #[must_use]
    pub fn drives(&self, board: &mut Board) -> Vec<DriveInfo> {
        let drives = match self.south {
            South::Piix { ide, .. } => board.with(&ide, |ide| ide.drives()),
            South::Ich9 { ahci, .. } => board.with(&ahci, |ahci| ahci.drives()),
        };
        drives.unwrap_or_default()
    }

    /// Opens the tray of a CD-ROM drive.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn eject(&self, board: &mut Board, number: usize, force: bool) -> Result<(), EjectError> {
        let ejected = match self.south {
            South::Piix { ide, .. } => board.with(&ide, |ide| ide.eject(number, force)),
            South::Ich9 { ahci, .. } => board.with(&ahci, |ahci| ahci.eject(number, force)),
        };
        ejected.unwrap_or(Err(EjectError::NotRemovable))
    }

    /// The medium of a CD-ROM drive was exchanged.
    pub fn medium_changed(&self, board: &mut Board, number: usize) {
        match self.south {
            South::Piix { ide, .. } => board.with(&ide, |ide| ide.medium_changed(number)),
            South::Ich9 { ahci, .. } => board.with(&ahci, |ahci| ahci.medium_changed(number)),
        };
    }

    /// Tells `sink` of moving trays.
    pub fn on_tray_moved(&self, board: &mut Board, sink: &TraySink) {
        match self.south {
            South::Piix { ide, .. } => board.with(&ide, |ide| ide.on_tray_moved(sink)),
            South::Ich9 { ahci, .. } => board.with(&ahci, |ahci| ahci.on_tray_moved(sink)),
        };
    }

    /// Presses the power button.
    pub fn press_power_button(&self, board: &mut Board) {
        match self.south {
            South::Piix { pm, .. } => board.with(&pm, Piix4Pm::press_power_button),
            South::Ich9 { lpc, .. } => board.with(&lpc, Ich9Lpc::press_power_button),
        };
    }

    /// Wakes the machine from suspend to RAM.
    pub fn wake(&self, board: &mut Board) {
        // Shutdown status byte (MC146818 in the PC/AT): FEh lets SeaBIOS resume instead of starting afresh.
        self.set_cmos(board, &[(0x0f, 0xfe)]);
        match self.south {
            South::Piix { pm, .. } => board.with(&pm, |pm| pm.wake(piix4_pm::WakeCause::Other)),
            South::Ich9 { lpc, .. } => board.with(&lpc, |lpc| lpc.wake(piix4_pm::WakeCause::Other)),
        };
    }

    /// Tries disk requests again that an error policy held.
    pub fn retry_disk_requests(&self, board: &mut Board) {
        match self.south {
            South::Piix { ide, .. } => board.with(&ide, PiixIde::retry_held),
            South::Ich9 { ahci, .. } => board.with(&ahci, Ahci::retry_held),
        };
    }
}
