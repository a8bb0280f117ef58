//! The `pc` machine with everything that the command line puts into it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::hw::ide::{DriveKind, FaultSink, IoFault};

use crate::accel::Accelerator;
use crate::bus::{BoardCell, DeviceRef};
use crate::hw::display::vga::Vga;
use crate::ui::{ConsoleKind, ConsoleSource, Refresh, Surface};

use super::build::{BuildError, Surroundings};
use super::chips::ChipOptions;
use super::config::Config;
use super::devices::{Placed, Site};
use super::drives::Drives;
use super::fabric::IrqCounter;
use super::firmware::{self, Facts};
use super::flash;
use super::input::Ps2Input;
use super::intc::Controllers;
use super::layout::{DiskGeometry, cpus_cmos, disks_cmos, effective_order};
use super::pc::{self, Firmware, Pc, PcOptions, Wiring};
use super::rom::RomSearch;

/// What the processors are, for the firmware.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Boot {
    /// APIC id of each possible CPU, and whether it is there.
    pub cpus: Vec<(u32, bool)>,
    /// CPUID leaf 1: EAX and EDX.
    pub signature: (u32, u32),
}

/// A `pc` machine's chips and devices.
#[derive(Debug)]
pub struct Assembled {
    /// The board's own chips.
    pub pc: Pc,
    /// Their options.
    pub chips: ChipOptions,
    /// What the command line added.
    pub placed: Placed,
    /// The BIOS file's name and length in bytes; `None` with firmware in flash memory.
    pub bios: Option<(String, u64)>,
    /// How often each interrupt was raised.
    pub interrupts: Arc<IrqCounter>,
    /// The interrupt controllers, where the accelerator has none.
    pub controllers: Option<Arc<Controllers>>,
    /// Length in bytes of each fw_cfg file.
    pub fw_cfg_files: Vec<(String, u64)>,
}

/// Hears of failed disk requests; the machine does not exist yet when the controller is built.
#[derive(Clone, Default)]
pub struct LateFaults(Arc<Mutex<Option<FaultSink>>>);

impl LateFaults {
    /// What the controller is given.
    #[must_use]
    pub fn sink(&self) -> FaultSink {
        let late = self.clone();
        Arc::new(move |fault: IoFault| {
            let sink = late.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(sink) = sink {
                sink(fault);
            }
        })
    }

    /// From now on `sink` hears.
    pub fn set(&self, sink: FaultSink) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }
}

const DEFAULT_BIOS: &str = "bios-256k.bin";

fn load_bios(config: &Config, roms: &RomSearch) -> Result<(String, Vec<u8>), BuildError> {
    let name = config.bios.as_deref().unwrap_or(DEFAULT_BIOS);
    let bytes = roms.load(name)?;
    if !bytes.len().is_multiple_of(65536) {
        return Err(BuildError::Text(format!(
            "could not load PC BIOS '{name}': it has {} bytes, and a BIOS is a multiple of 65536",
            bytes.len()
        )));
    }
    Ok((name.to_owned(), bytes))
}

fn machine_flag(config: &Config, name: &str, default: bool) -> bool {
    let value = config.machine.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    value.map_or(default, |value| matches!(value, "on" | "yes" | "true" | "y"))
}

/// Builds the board, populates it, and tells the firmware.
///
/// # Errors
/// Something cannot be had as asked.
pub fn assemble(
    config: &Config,
    surroundings: &Surroundings,
    wiring: &Wiring,
    drives: &Arc<Drives>,
    boot: &Boot,
    faults: &LateFaults,
) -> Result<Assembled, BuildError> {
    let roms = RomSearch::new(&config.data_dirs);
    let units = flash::load(config, drives)?;
    let (bios, firmware) = match units.is_empty() {
        false => (None, Firmware::Flash(units)),
        true => {
            let (name, bytes) = load_bios(config, &roms)?;
            (Some((name, bytes.len() as u64)), Firmware::Bios(bytes))
        }
    };
    let present = |list: &[Option<String>]| u8::try_from(list.iter().flatten().count()).unwrap_or(u8::MAX);
    let chips = ChipOptions::read(config)?;
    let options = PcOptions {
        chipset: config.machine.chipset(),
        extended_tseg_mib: chips.extended_tseg_mib,
        mem_merge: config.machine.switch("mem-merge", true),
        ram_size: config.memory.size,
        hpet: machine_flag(config, "hpet", true),
        rtc: config.rtc,
        chips,
        serial_ports: present(&config.serials),
        parallel_port: present(&config.parallels) > 0,
    };
    let pc = pc::build(wiring, &options, firmware, faults.sink())?;
    let mut site = Site {
        config,
        wiring,
        chardevs: &surroundings.chardevs,
        drives,
        roms: &roms,
        pc: &pc,
        networks: &surroundings.networks,
        faults,
        placed: Placed::default(),
    };
    site.populate()?;
    let placed = site.placed;
    let facts = Facts {
        layout: pc.layout,
        cpus: boot.cpus.clone(),
        signature: boot.signature,
        hpet: options.hpet,
        serial_ports: placed.serial_ports.clone(),
        parallel_ports: placed.parallel_ports.clone(),
        boot_paths: placed.boot.iter().map(|(_, path)| path.clone()).collect(),
        nographic: config.machine.property("graphics") == Some("off"),
    };
    let mut fw_cfg = firmware::fill(config, &facts)?.build(wiring.ram.clone());
    firmware::follow_window(&mut fw_cfg, config, &facts, &pc.ecam_base)?;
    let fw_cfg_files = fw_cfg.files().map(|(name, _, len)| (name.to_owned(), len as u64)).collect();
    let mut board = wiring.cell.lock();
    pc::add_fw_cfg(&mut board, fw_cfg);
    let drives_info = pc.drives(&mut board);
    let mut geometries = [None; 4];
    for drive in drives_info.iter().filter(|drive| drive.kind != DriveKind::Cdrom) {
        let geometry = drive.geometry;
        // The BIOS translates what has more than 1024 cylinders.
        let large = geometry.cyls > 1024 || geometry.heads > 16 || geometry.secs > 63;
        if let Some(place) = geometries.get_mut(drive.number) {
            *place = Some(DiskGeometry {
                cylinders: geometry.cyls,
                heads: geometry.heads,
                sectors: geometry.secs,
                translation: u8::from(large),
            });
        }
    }
    let mut cmos = pc.layout.cmos();
    cmos.push(cpus_cmos(config.smp));
    cmos.extend(disks_cmos(&geometries));
    // Equipment (14h): mathematics coprocessor, PS/2 mouse.
    cmos.push((0x14, 0x06));
    pc.set_cmos(&mut board, &cmos);
    pc.set_boot_order(&mut board, effective_order(&config.boot, true));
    drop(board);
    surroundings.display.set_guest_input(Arc::new(Ps2Input::new(Arc::clone(&wiring.cell), pc.i8042)));
    let controllers = wiring.controllers.clone();
    Ok(Assembled { pc, chips, placed, bios, interrupts: wiring.irqs.counter(), controllers, fw_cfg_files })
}

/// A display adapter as a console.
pub struct VgaConsole {
    board: Arc<BoardCell>,
    accelerator: Arc<dyn Accelerator>,
    vga: DeviceRef<Vga>,
}

impl VgaConsole {
    /// The console of `vga`.
    #[must_use]
    pub fn new(board: Arc<BoardCell>, accelerator: Arc<dyn Accelerator>, vga: DeviceRef<Vga>) -> Self {
        Self { board, accelerator, vga }
    }
}

impl ConsoleSource for VgaConsole {
    fn kind(&self) -> ConsoleKind {
        ConsoleKind::Graphic
    }

    fn refresh(&self, surface: &mut Surface, all: bool) -> Refresh {
        self.accelerator.sync_dirty();
        let refreshed = self.board.lock().with(&self.vga, |vga| vga.refresh(surface, all));
        refreshed.unwrap_or(Refresh::Changed(Vec::new()))
    }
}
