//! From a configuration to a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, OnceLock, Weak};

use crate::accel::{self, AccelRequest, Accelerator};
use crate::bus::{BoardCell, MsiSink, PowerRequest, PowerSink};
use crate::chardev::Chardevs;
use crate::cpu;
use crate::event::{Clock, LoopHandle};
use crate::host::reason;
use crate::hw::firmware::KernelError;
use crate::hw::ide::{ErrorAction, TraySink};
use crate::hw::storage::RESUME;
use crate::hw::timer::hpet::LegacyGate;
use crate::mem::GuestRam;
use crate::net::Networks;
use crate::ui::Display;

use super::assemble::{self, Assembled, Boot, LateFaults, VgaConsole};
use super::chips::ChipOptions;
use super::config::Config;
use super::control::{Machine, MachineEvent, Parts, RunState};
use super::disks::PlacedDisk;
use super::drives::Drives;
use super::fabric::IrqFabric;
use super::intc::Controllers;
use super::objects::Objects;
use super::pc::Wiring;
use super::rom::RomError;
use super::vcpu::{self, VcpuListener, Vcpus};

/// A machine that cannot be built. The text is what people see after the program's name.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An option's content cannot be used.
    #[error("{origin}: {text}")]
    Option {
        /// The option as typed ("-drive file=x").
        origin: String,
        /// What is wrong.
        text: String,
    },
    /// Anything else.
    #[error("{0}")]
    Text(String),
    /// The host has not enough memory.
    #[error("cannot set up guest memory '{name}': {}", reason(source))]
    Memory {
        /// The block's name ("pc.ram").
        name: &'static str,
        /// The host's reason.
        #[source]
        source: io::Error,
    },
    /// Firmware is missing.
    #[error("{0}")]
    Rom(#[from] RomError),
    /// The kernel cannot be used.
    #[error("{0}")]
    Kernel(KernelError),
}

impl BuildError {
    /// An error of an option; one without an origin stands alone.
    #[must_use]
    pub fn option(origin: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        if origin.is_empty() { Self::Text(text) } else { Self::Option { origin: origin.to_owned(), text } }
    }
}

/// A machine and what its surroundings need to know of it.
#[derive(Debug)]
pub struct Built {
    /// The machine.
    pub machine: Arc<Machine>,
    /// Its chips and devices; `None` for the machine `none`.
    pub pc: Option<Arc<Assembled>>,
    /// Its drives.
    pub drives: Arc<Drives>,
    /// Lines for standard error, without the program's name.
    pub warnings: Vec<String>,
}

/// What a machine is built with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The main loop, with the machine's clock.
    pub handle: LoopHandle,
    /// The character devices, opened.
    pub chardevs: Arc<Chardevs>,
    /// The display.
    pub display: Arc<Display>,
    /// The networks, opened.
    pub networks: Arc<Networks>,
}

/// The power switch of a machine that does not exist yet.
#[derive(Clone, Default)]
struct LateMachine(Arc<OnceLock<Weak<Machine>>>);

impl LateMachine {
    fn get(&self) -> Option<Arc<Machine>> {
        self.0.get()?.upgrade()
    }

    fn power_sink(&self) -> PowerSink {
        let late = self.clone();
        Arc::new(move |request: PowerRequest| {
            if let Some(machine) = late.get() {
                machine.request(request);
            }
        })
    }
}

/// Builds the machine. Its vCPUs stand at the reset vector; [`Machine::resume`] lets them go.
///
/// # Errors
/// Something that the configuration names cannot be had; the text says what.
pub fn build(config: &Config, surroundings: &Surroundings) -> Result<Built, BuildError> {
    let requests: Vec<AccelRequest> = config
        .accelerators
        .iter()
        .map(|spec| AccelRequest {
            name: spec.name.clone(),
            properties: spec.properties.clone(),
            icount: config.icount,
        })
        .collect();
    let chosen = accel::choose(&requests).map_err(|error| BuildError::Text(error.to_string()))?;
    build_on(chosen.accelerator, chosen.warnings, config, surroundings)
}

/// As [`build`], on this accelerator.
///
/// # Errors
/// As [`build`].
pub fn build_on(
    accelerator: Arc<dyn Accelerator>,
    mut warnings: Vec<String>,
    config: &Config,
    surroundings: &Surroundings,
) -> Result<Built, BuildError> {
    let ram = GuestRam::new();
    let (drives, drive_warnings) = Drives::open(config, &ram)?;
    warnings.extend(drive_warnings);
    warnings.extend(super::flash::warning(config));
    let cell = Arc::<BoardCell>::default();
    let late = LateMachine::default();
    let faults = LateFaults::default();
    let clock: Clock = surroundings.handle.clock();

    let topology = config.smp.levels;
    let mut signature = (0, 0);
    let mut apic_ids = Vec::new();
    let mut model = None;
    let has_cpus = config.machine.kind != "none" || config.cpu.model.is_some();
    if has_cpus {
        warnings.extend(accelerator.check_cpu_count(config.smp.cpus, config.smp.max_cpus).map_err(text_of)?);
        let host = accelerator.host_cpu().map_err(|error| BuildError::Text(error.to_string()))?;
        let resolved = cpu::resolve(config.cpu.model.as_deref(), &config.cpu.properties, topology, &host)
            .map_err(|error| BuildError::Text(error.to_string()))?;
        warnings.extend(resolved.warnings.iter().map(|text| format!("warning: {text}")));
        signature = signature_of(&resolved.model);
        apic_ids =
            (0..config.smp.max_cpus).map(|index| (resolved.model.apic_id(index), index < config.smp.cpus)).collect();
        let resolved = Arc::new(resolved.model);
        accelerator.set_cpu_model(Arc::clone(&resolved));
        model = Some(resolved);
    }

    if let Some(discards) = ChipOptions::read(config)?.pit_discards
        && !accelerator.set_pit_discards_lost_ticks(discards).map_err(text_of)?
    {
        let policy = if discards { "discard" } else { "delay" };
        warnings.push(format!("warning: global kvm-pit.lost_tick_policy={policy} not used"));
    }
    let mut pc = None;
    if config.machine.kind != "none" {
        let (lines, controllers) = match (accelerator.irqchip(), &model) {
            (Some(lines), _) => (lines, None),
            (None, Some(model)) => {
                let chips = Controllers::new(&*accelerator, model, config.smp.cpus, &surroundings.handle)?;
                (chips.lines(), Some(Arc::new(chips)))
            }
            (None, None) => return Err(BuildError::Text("a machine without processors has no interrupts".to_owned())),
        };
        let irqs = IrqFabric::new(&lines, super::pc::pci_wiring(config));
        let own_apics = || controllers.as_ref()?.apics.clone().map(|apics| apics as Arc<dyn MsiSink>);
        let messages = accelerator
            .message_sink()
            .or_else(own_apics)
            .ok_or_else(|| BuildError::Text("nothing takes message-signalled interrupts".to_owned()))?;
        let timer_gate = controllers.is_some().then(|| LegacyGate::new(irqs.sink()));
        let wiring = Wiring {
            cell: Arc::clone(&cell),
            ram: ram.clone(),
            handle: surroundings.handle.clone(),
            clock: clock.clone(),
            irqs,
            objects: Objects::make(config, &clock)?,
            messages,
            power: late.power_sink(),
            replace_pit: match &timer_gate {
                Some(gate) => replace_own_pit(gate),
                None => replace_pit(&accelerator),
            },
            controllers,
            timer_gate,
        };
        let boot = Boot { cpus: apic_ids, signature };
        let assembled = assemble::assemble(config, surroundings, &wiring, &drives, &boot, &faults)?;
        for (index, vga) in assembled.placed.vgas.iter().enumerate() {
            let console = VgaConsole::new(Arc::clone(&cell), Arc::clone(&accelerator), *vga);
            let name = if index == 0 { "VGA".to_owned() } else { format!("VGA {index}") };
            surroundings.display.add_console(&name, Arc::new(console));
        }
        warnings.extend(surroundings.networks.complaints().into_iter().map(|text| format!("warning: {text}")));
        warnings.extend(assembled.placed.warnings.iter().map(|text| format!("warning: {text}")));
        pc = Some(Arc::new(assembled));
    }
    listen_to_memory(&cell, &ram, &accelerator)?;
    let posted = cell.lock().posted_ranges();
    if let Some(queue) = accelerator.post_writes(&posted).map_err(text_of)? {
        cell.set_posted_writes(queue);
    }

    let machine = Machine::new(parts(config, surroundings, &cell, &ram, &accelerator, &drives, pc.clone()));
    // Only this call ever sets it.
    let _ = late.0.set(Arc::downgrade(&machine));
    if let Some(pc) = &pc {
        report_drives(&machine, pc, &cell, &faults);
    }
    cell.lock().reset(crate::bus::Reset::System);
    if has_cpus {
        let weak = Arc::downgrade(&machine);
        let listener: VcpuListener = Arc::new(move |index, event| {
            if let Some(machine) = weak.upgrade() {
                machine.vcpu_event(index, event);
            }
        });
        let vcpus = Vcpus::start(&accelerator, &cell, config.smp.cpus, &listener)
            .map_err(|error| BuildError::Text(vcpu::describe(&error)))?;
        machine.set_vcpus(vcpus);
    }
    Ok(Built { machine, pc, drives, warnings })
}

/// Tells the machine's listeners of failed requests and moving trays.
fn report_drives(machine: &Arc<Machine>, pc: &Arc<Assembled>, cell: &Arc<BoardCell>, faults: &LateFaults) {
    let on_board = pc.placed.ide.iter().map(|(number, placed)| (*number, (placed.drive.clone(), placed.qdev(*number))));
    let elsewhere = pc.placed.disks.iter().map(|disk| (disk.drive.clone(), disk.qdev.clone()));
    let names: BTreeMap<usize, (String, String)> =
        on_board.chain((PlacedDisk::FIRST_NUMBER..).zip(elsewhere)).collect();
    let (weak, drives) = (Arc::downgrade(machine), names.clone());
    faults.set(Arc::new(move |fault| {
        let Some(machine) = weak.upgrade() else { return };
        let stops = fault.action == ErrorAction::Stop;
        let (device, qdev) = drives.get(&fault.drive).cloned().unwrap_or_default();
        machine.report(MachineEvent::DiskFault { device, qdev, fault });
        if stops {
            machine.request_stop(RunState::IoError);
        }
    }));
    let weak = Arc::downgrade(machine);
    let sink: TraySink = Arc::new(move |drive: usize, open: bool| {
        let Some(machine) = weak.upgrade() else { return };
        let (device, qdev) = names.get(&drive).cloned().unwrap_or_default();
        // At once: QEMU tells it before the answer to the command that moved the tray.
        machine.emit(&MachineEvent::TrayMoved { device, qdev, open });
    });
    pc.pc.on_tray_moved(&mut cell.lock(), &sink);
}

/// The in-kernel PIT keeps its interrupt to itself while the HPET stands in for it.
fn replace_pit(accelerator: &Arc<dyn Accelerator>) -> Arc<dyn Fn(bool) + Send + Sync> {
    let accelerator = Arc::clone(accelerator);
    Arc::new(move |replaced| {
        if let Err(error) = accelerator.set_pit_replaced(replaced) {
            log::warn!("HPET legacy replacement: {}", vcpu::describe(&error));
        }
    })
}

/// The same for our own.
fn replace_own_pit(gate: &Arc<LegacyGate>) -> Arc<dyn Fn(bool) + Send + Sync> {
    let gate = Arc::clone(gate);
    Arc::new(move |replaced| gate.set_blocked(replaced))
}

fn text_of(error: accel::AccelError) -> BuildError {
    BuildError::Text(vcpu::describe(&error))
}

fn signature_of(model: &cpu::CpuModel) -> (u32, u32) {
    model.cpuid(0, 0).iter().find(|leaf| leaf.function == 1).map_or((0, 0), |leaf| (leaf.eax, leaf.edx))
}

/// Lets DMA and the accelerator follow the map.
fn listen_to_memory(
    cell: &Arc<BoardCell>,
    ram: &GuestRam,
    accelerator: &Arc<dyn Accelerator>,
) -> Result<(), BuildError> {
    let (ram, accelerator) = (ram.clone(), Arc::clone(accelerator));
    let failed = Arc::new(OnceLock::new());
    let failure = Arc::clone(&failed);
    cell.lock().set_memory_listener(Box::new(move |ranges| {
        ram.set_ranges(ranges.to_vec());
        if let Err(error) = accelerator.set_memory(ranges) {
            let text = format!("guest memory: {}", vcpu::describe(&error));
            if failure.set(text.clone()).is_ok() {
                log::warn!("{text}");
            }
        }
    }));
    match failed.get() {
        None => Ok(()),
        Some(text) => Err(BuildError::Text(text.clone())),
    }
}

fn parts(
    config: &Config,
    surroundings: &Surroundings,
    cell: &Arc<BoardCell>,
    ram: &GuestRam,
    accelerator: &Arc<dyn Accelerator>,
    drives: &Arc<Drives>,
    pc: Option<Arc<Assembled>>,
) -> Parts {
    let (button_board, button_pc) = (Arc::clone(cell), pc.clone());
    let (wake_board, wake_pc) = (Arc::clone(cell), pc.clone());
    let (reset_board, reset_pc, boot) = (Arc::clone(cell), pc.clone(), config.boot.clone());
    let (resume_board, resume_pc) = (Arc::clone(cell), pc);
    let drives = Arc::clone(drives);
    Parts {
        handle: surroundings.handle.clone(),
        clock: surroundings.handle.clock(),
        board: Arc::clone(cell),
        ram: ram.clone(),
        accelerator: Arc::clone(accelerator),
        actions: config.actions,
        power_button: Box::new(move || {
            if let Some(pc) = &button_pc {
                pc.pc.press_power_button(&mut button_board.lock());
            }
        }),
        wake: Box::new(move || {
            if let Some(pc) = &wake_pc {
                pc.pc.wake(&mut wake_board.lock());
            }
        }),
        before_reset: Box::new(move || {
            if let Some(pc) = &reset_pc {
                pc.pc.set_boot_order(&mut reset_board.lock(), super::effective_order(&boot, false));
            }
        }),
        before_resume: Box::new(move || {
            if let Some(pc) = &resume_pc {
                let mut board = resume_board.lock();
                pc.pc.retry_disk_requests(&mut board);
                let controllers: BTreeSet<_> = pc.placed.disks.iter().map(|disk| disk.controller).collect();
                for controller in controllers {
                    board.event(controller, RESUME);
                }
            }
        }),
        flush_disks: Box::new(move || {
            for failure in drives.flush() {
                eprintln!("{}", super::message(&format!("flushing {failure}")));
            }
        }),
    }
}
