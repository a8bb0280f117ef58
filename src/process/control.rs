//! What monitors ask of the machine, answered from its parts.

use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use crate::block::{Image, Kind};
use crate::bus::PciAddress;
use crate::chardev::Chardevs;
use crate::cpu::{CpuState, MpState};
use crate::hw::ide::{DriveInfo, DriveKind, EjectError};
use crate::img;
use crate::machine::config::Config;
use crate::machine::{
    Assembled, Cause, Drive, Drives, Machine, PlacedDrive, RunState as MachineState, effective_order, open_another,
};
use crate::mem::{Backing, RomWrites};
use crate::monitor::info::{
    AddressSpace, BlockDevice, BlockStats, CpuDefinition, CpuInfo, CpuPlace, CurrentMachine, FlatNode, FlatView,
    HotpluggableCpu, InsertedMedium, InterruptController, IrqStatistics, KvmInfo, MachineInfo, MemoryNode, MemorySize,
    Mouse, PciBar, PciDevice, QtreeBus, Rom, RunState, VncAddress, VncServer,
};
use crate::monitor::{
    CommandError, CommandResult, Control, DriveName, IfConnected, NewMedium, PortWidth, ReadOnlyMode,
};
use crate::net::Networks;
use crate::trace;
use crate::ui::vnc;
use crate::ui::{Display, InputEvent};

use super::debugger::Debugger;

/// A machine and everything around it that monitors may ask for.
pub struct Session {
    /// The machine.
    pub machine: Arc<Machine>,
    /// Its chips and devices.
    pub pc: Option<Arc<Assembled>>,
    /// Its drives.
    pub drives: Arc<Drives>,
    /// Its character devices.
    pub chardevs: Arc<Chardevs>,
    /// Its display.
    pub display: Arc<Display>,
    /// Its networks.
    pub networks: Arc<Networks>,
    /// Its VNC servers, once they run.
    pub servers: OnceLock<Vec<Arc<vnc::Server>>>,
    /// The gdb server, once there can be one.
    pub(super) debugger: OnceLock<Weak<Debugger>>,
    /// What it was built from.
    pub config: Config,
}

impl Session {
    fn smp_place(&self, index: u32) -> CpuPlace {
        let smp = self.config.smp.levels;
        let thread = index % smp.threads.max(1);
        let rest = index / smp.threads.max(1);
        let core = rest % smp.cores.max(1);
        let rest = rest / smp.cores.max(1);
        let module = rest % smp.modules.max(1);
        let rest = rest / smp.modules.max(1);
        CpuPlace {
            socket: rest / smp.dies.max(1),
            die: (smp.dies > 1).then_some(rest % smp.dies.max(1)),
            module: (smp.modules > 1).then_some(module),
            core,
            thread,
        }
    }

    fn cpu_type(&self) -> String {
        format!("{}-x86_64-cpu", self.config.cpu.model.as_deref().unwrap_or("qemu64"))
    }

    pub(super) fn ide_drives(&self) -> Vec<DriveInfo> {
        let Some(pc) = &self.pc else { return Vec::new() };
        pc.pc.drives(&mut self.machine.board().lock())
    }

    /// The drives that belong to a device, with their place on the IDE controller.
    fn placed_drives(&self) -> Vec<(usize, &PlacedDrive)> {
        let Some(pc) = &self.pc else { return Vec::new() };
        pc.placed.ide.iter().map(|(number, placed)| (*number, placed)).collect()
    }

    /// How monitors name the device of a drive that is not on the IDE controller.
    fn device_path(&self, drive: &str) -> Option<String> {
        let pc = self.pc.as_ref()?;
        let disk = pc.placed.disks.iter().find(|disk| disk.drive == drive);
        let chip = || pc.pc.flash.iter().find(|chip| chip.drive == drive).map(|chip| format!("/machine/{}", chip.name));
        disk.map(|disk| disk.qdev.clone()).or_else(chip)
    }

    /// The drive that a command names: its place, and its host side.
    fn find_drive(&self, name: DriveName<'_>) -> CommandResult<(usize, &Drive)> {
        let text = name.text();
        let found = self.placed_drives().into_iter().find(|(number, placed)| match name {
            DriveName::Device(device) => placed.drive == device || placed.id == device,
            DriveName::Id(id) => placed.id == id || placed.qdev(*number) == id,
        });
        let drive = found.and_then(|(number, placed)| Some((number, self.drives.get(&placed.drive)?)));
        drive.ok_or_else(|| CommandError::device_not_found(text))
    }

    /// Opens the tray of a CD-ROM drive.
    fn open_tray(&self, number: usize, name: &str, force: bool) -> CommandResult {
        let Some(pc) = &self.pc else { return Err(CommandError::device_not_found(name)) };
        let ejected = pc.pc.eject(&mut self.machine.board().lock(), number, force);
        match ejected {
            Ok(()) => Ok(()),
            Err(EjectError::NotRemovable) => Err(CommandError::new(format!("Device '{name}' is not removable"))),
            Err(EjectError::Locked) => Err(CommandError::new(format!(
                "Device '{name}' is locked and force was not specified, wait for tray to open and try again"
            ))),
        }
    }

    fn vnc_server(&self, id: Option<&str>) -> Option<&Arc<vnc::Server>> {
        let servers = self.servers.get()?;
        match id {
            None => servers.first(),
            Some(id) => servers.iter().find(|server| server.info().id == id),
        }
    }

    pub(super) fn pci_device(&self, address: PciAddress) -> PciDevice {
        let mut board = self.machine.board().lock();
        let bus = board.pci_bus_number(address.bus);
        let mut read = |offset: u16, len: u16| board.pci_config_read(address, offset, len);
        let word = |value: u32| u16::try_from(value & 0xffff).unwrap_or(0);
        let byte = |value: u32| u8::try_from(value & 0xff).unwrap_or(0);
        let class = word(read(0x0a, 2));
        let is_bridge = byte(read(0x0e, 1)) & 0x7f == 1;
        let mut device = PciDevice {
            bus,
            slot: address.device,
            function: address.function,
            class,
            vendor: word(read(0, 2)),
            device: word(read(2, 2)),
            subsystem: (!is_bridge).then(|| (word(read(0x2c, 2)), word(read(0x2e, 2)))),
            irq_pin: byte(read(0x3d, 1)),
            irq_line: byte(read(0x3c, 1)),
            id: String::new(),
            bars: Vec::new(),
        };
        device.bars = board.pci_bars(address).into_iter().map(bar_info).collect();
        device
    }
}

fn bar_info((index, bar, address): (usize, crate::bus::Bar, Option<u64>)) -> PciBar {
    use crate::bus::BarKind;
    let (io, wide, prefetch) = match bar.kind {
        BarKind::Io => (true, false, false),
        BarKind::Memory32 { prefetchable } => (false, false, prefetchable),
        BarKind::Memory64 { prefetchable } => (false, true, prefetchable),
        BarKind::Rom => (false, false, false),
    };
    PciBar { index: u8::try_from(index).unwrap_or(0), io, wide, prefetch, address, len: bar.len }
}

fn medium(image: &Image) -> InsertedMedium {
    let (mut json, text) = img::info::describe(image).unwrap_or_default();
    // Monitors show the image alone; the nodes below it are for `qemu-img info`.
    remove_children(&mut json);
    let text = text.find("Child node '/").map_or(text.as_str(), |at| &text[..at]).to_owned();
    InsertedMedium {
        node_name: image.node_name.clone(),
        file: image.filename.clone(),
        driver: image.driver.to_owned(),
        read_only: image.read_only,
        encrypted: false,
        backing_file: image.backing_name.clone(),
        backing_depth: u32::try_from(image.chain().count().saturating_sub(1)).unwrap_or(u32::MAX),
        writeback: image.cache.writeback,
        direct: image.cache.direct,
        no_flush: image.cache.no_flush,
        detect_zeroes: image.detect_zeroes,
        image: json,
        image_text: text,
    }
}

fn remove_children(info: &mut serde_json::Value) {
    let Some(map) = info.as_object_mut() else { return };
    map.remove("children");
    if let Some(backing) = map.get_mut("backing-image") {
        remove_children(backing);
    }
}

fn backing_kind<D>(backing: &Backing<D>) -> &'static str {
    match backing {
        Backing::Ram { .. } => "ram",
        Backing::Rom { writes: RomWrites::Device { .. }, .. } => "romd",
        Backing::Rom { .. } => "rom",
        Backing::Device { .. } => "i/o",
    }
}

fn endpoint(endpoint: &vnc::Endpoint) -> VncAddress {
    VncAddress { host: endpoint.host(), service: endpoint.service(), family: endpoint.family(), websocket: false }
}

impl Control for Session {
    fn name(&self) -> Option<String> {
        self.config.name.clone()
    }

    fn uuid(&self) -> [u8; 16] {
        self.config.uuid.unwrap_or_default()
    }

    fn kvm(&self) -> KvmInfo {
        KvmInfo { enabled: self.machine.accelerator().name() == "kvm", present: true }
    }

    fn run_state(&self) -> RunState {
        match self.machine.state() {
            MachineState::Prelaunch => RunState::Prelaunch,
            MachineState::Running => RunState::Running,
            MachineState::Paused => RunState::Paused,
            MachineState::Shutdown => RunState::Shutdown,
            MachineState::Suspended => RunState::Suspended,
            MachineState::IoError => RunState::IoError,
            MachineState::InternalError => RunState::InternalError,
            MachineState::GuestPanicked => RunState::GuestPanicked,
            MachineState::Debug => RunState::Debug,
            MachineState::Watchdog => RunState::Watchdog,
        }
    }

    fn current_machine(&self) -> CurrentMachine {
        CurrentMachine { kind: self.config.machine.kind.clone(), wakeup_suspend_support: self.pc.is_some() }
    }

    fn machines(&self) -> Vec<MachineInfo> {
        crate::options::machine_types()
            .into_iter()
            .map(|(name, alias, is_default)| {
                let is_pc = name != "none";
                MachineInfo {
                    alias,
                    is_default,
                    cpu_max: if is_pc { 255 } else { 1 },
                    hotpluggable_cpus: false,
                    numa_mem_supported: false,
                    deprecated: false,
                    default_cpu_type: is_pc.then(|| "qemu64-x86_64-cpu".to_owned()),
                    default_ram_id: is_pc.then(|| "pc.ram".to_owned()),
                    acpi: is_pc,
                    name,
                }
            })
            .collect()
    }

    fn cpu_definitions(&self) -> Vec<CpuDefinition> {
        crate::cpu::model_names()
            .into_iter()
            .map(|(name, _)| CpuDefinition {
                type_name: format!("{name}-x86_64-cpu"),
                is_static: name == "base",
                migration_safe: !matches!(name.as_str(), "host" | "max"),
                unavailable_features: None,
                alias_of: None,
                deprecated: false,
                name,
            })
            .collect()
    }

    fn cpus(&self) -> Vec<CpuInfo> {
        let Some(vcpus) = self.machine.vcpus() else { return Vec::new() };
        (0u32..)
            .zip(vcpus.thread_ids())
            .map(|(index, thread_id)| {
                let halted = vcpus.with(index, |vcpu| vcpu.state().is_ok_and(|s| s.mp_state != MpState::Runnable));
                CpuInfo {
                    index,
                    thread_id: thread_id.into(),
                    halted: halted.unwrap_or(false),
                    place: self.smp_place(index),
                    qom_path: format!("/machine/unattached/device[{index}]"),
                }
            })
            .collect()
    }

    fn hotpluggable_cpus(&self) -> Vec<HotpluggableCpu> {
        let present = self.machine.vcpus().map_or(0, crate::machine::Vcpus::count);
        (0..self.config.smp.max_cpus)
            .rev()
            .map(|index| HotpluggableCpu {
                kind: self.cpu_type(),
                place: self.smp_place(index),
                qom_path: (index < present).then(|| format!("/machine/unattached/device[{index}]")),
            })
            .collect()
    }

    fn cpu_state(&self, index: u32) -> CommandResult<CpuState> {
        let state = self.machine.vcpus().and_then(|vcpus| vcpus.with(index, |vcpu| vcpu.state()));
        match state {
            None => Err(CommandError::new("Invalid CPU index")),
            Some(Err(error)) => Err(CommandError::new(error.to_string())),
            Some(Ok(state)) => Ok(state),
        }
    }

    fn memory_size(&self) -> MemorySize {
        MemorySize { base: self.config.memory.size, plugged: 0 }
    }

    fn read_physical(&self, gpa: u64, buf: &mut [u8]) -> bool {
        self.machine.board().lock().mmio_read(gpa, buf);
        true
    }

    fn port_read(&self, port: u16, width: PortWidth) -> u32 {
        self.machine.board().lock().port_read(port, bus_width(width))
    }

    fn port_write(&self, port: u16, width: PortWidth, value: u32) {
        self.machine.board().lock().port_write(port, bus_width(width), value);
    }

    fn memory_tree(&self) -> Vec<AddressSpace> {
        let board = self.machine.board().lock();
        let children = board
            .memory_map()
            .mappings()
            .filter(|(_, _, len, _, enabled, _)| *enabled && *len > 0)
            .map(|(name, start, len, priority, _, backing)| MemoryNode {
                name: name.to_owned(),
                first: start,
                last: start + (len - 1),
                priority,
                kind: backing_kind(backing),
                alias: None,
                children: Vec::new(),
            })
            .collect();
        let memory = MemoryNode {
            name: "system".to_owned(),
            first: 0,
            last: u64::MAX,
            priority: 0,
            kind: "i/o",
            alias: None,
            children,
        };
        let ports = board
            .port_ranges()
            .into_iter()
            .map(|(name, first, last)| MemoryNode {
                name,
                first: first.into(),
                last: last.into(),
                priority: 0,
                kind: "i/o",
                alias: None,
                children: Vec::new(),
            })
            .collect();
        let io = MemoryNode {
            name: "io".to_owned(),
            first: 0,
            last: 0xffff,
            priority: 0,
            kind: "i/o",
            alias: None,
            children: ports,
        };
        vec![
            AddressSpace { name: "memory".to_owned(), root: memory },
            AddressSpace { name: "I/O".to_owned(), root: io },
        ]
    }

    fn flat_views(&self) -> Vec<FlatView> {
        let board = self.machine.board().lock();
        let kvm = self.machine.accelerator().name() == "kvm";
        let ranges = board
            .flat_memory()
            .into_iter()
            .map(|(name, range)| {
                let offset = match &range.backing {
                    Backing::Ram { offset, .. } | Backing::Rom { offset, .. } | Backing::Device { offset, .. } => {
                        *offset
                    }
                };
                FlatNode {
                    first: range.start,
                    last: range.last(),
                    priority: 0,
                    kind: backing_kind(&range.backing),
                    kvm: kvm && !matches!(range.backing, Backing::Device { .. }),
                    name,
                    offset,
                }
            })
            .collect();
        let memory = FlatView { spaces: vec![("memory".into(), "system".into())], root: Some("system".into()), ranges };
        let ranges = board
            .port_ranges()
            .into_iter()
            .map(|(name, first, last)| FlatNode {
                first: first.into(),
                last: last.into(),
                priority: 0,
                kind: "i/o",
                name,
                offset: 0,
                kvm: false,
            })
            .collect();
        let io = FlatView { spaces: vec![("I/O".into(), "io".into())], root: Some("io".into()), ranges };
        vec![io, memory]
    }

    fn irq_statistics(&self) -> Vec<IrqStatistics> {
        let Some(pc) = &self.pc else { return Vec::new() };
        let counts = pc.interrupts.counts();
        let isa = counts.iter().copied().filter(|(input, _)| *input < 16).collect();
        let (ioapic, pic) = match pc.controllers {
            None => ("kvm-ioapic", "kvm-i8259"),
            Some(_) => ("ioapic", "isa-i8259"),
        };
        vec![
            IrqStatistics { controller: ioapic.to_owned(), counts },
            IrqStatistics { controller: pic.to_owned(), counts: isa },
        ]
    }

    fn interrupt_controllers(&self) -> Vec<InterruptController> {
        let own = self.pc.as_ref().and_then(|pc| pc.controllers.as_ref()).map(|chips| chips.state());
        let Some(state) = own.or_else(|| self.machine.accelerator().irqchip_state()) else { return Vec::new() };
        let [master, slave] = state.pics;
        // QEMU shows the slave first.
        vec![
            InterruptController::IoApic(0, state.ioapic),
            InterruptController::Pic(1, slave),
            InterruptController::Pic(0, master),
        ]
    }

    fn pci_devices(&self) -> Vec<PciDevice> {
        let functions = self.machine.board().lock().pci_functions();
        functions.into_iter().map(|(address, _)| self.pci_device(address)).collect()
    }

    fn qtree(&self) -> QtreeBus {
        super::qtree::tree(self)
    }

    fn roms(&self) -> Vec<Rom> {
        let Some(pc) = &self.pc else { return Vec::new() };
        let bios = pc.bios.iter().cloned();
        let mut roms: Vec<_> =
            bios.map(|(name, len)| Rom::Mapped { address: (1 << 32) - len, len, read_only: true, name }).collect();
        for (name, len) in &pc.placed.roms {
            roms.push(Rom::Region { region: name.clone(), len: *len, name: name.clone() });
        }
        for (name, len) in &pc.fw_cfg_files {
            if let Some((folder, file)) = name.split_once('/').filter(|(folder, _)| folder.ends_with("roms")) {
                roms.push(Rom::FwCfg { folder: folder.into(), file: file.into(), len: *len, name: file.into() });
            } else if name.starts_with("etc/acpi/") || name == "etc/table-loader" {
                roms.push(Rom::Region { region: format!("/rom@{name}"), len: *len, name: name.clone() });
            }
        }
        roms
    }

    fn mice(&self) -> Vec<Mouse> {
        if self.pc.is_none() {
            return Vec::new();
        }
        vec![Mouse { index: 2, name: "QEMU PS/2 Mouse".to_owned(), current: true, absolute: false }]
    }

    fn block_devices(&self) -> Vec<BlockDevice> {
        let infos = self.ide_drives();
        let placed = self.placed_drives();
        let mut devices = Vec::new();
        for drive in self.drives.list() {
            let place = placed.iter().find(|(_, placed)| placed.drive == drive.id);
            let info = place.and_then(|(number, _)| infos.iter().find(|info| info.number == *number));
            let removable = info.is_some_and(|info| info.kind == DriveKind::Cdrom) || drive.cdrom;
            devices.push(BlockDevice {
                device: drive.id.clone(),
                qdev: place.map(|(number, placed)| placed.qdev(*number)).or_else(|| self.device_path(&drive.id)),
                removable,
                locked: info.is_some_and(|info| info.locked),
                tray_open: removable.then(|| info.is_some_and(|info| info.tray_open)),
                io_status: Some(if info.is_some_and(|info| info.holds_request) { "failed" } else { "ok" }),
                inserted: drive.disk.0.image().as_ref().map(medium),
            });
        }
        devices
    }

    fn block_stats(&self) -> Vec<BlockStats> {
        let placed = self.placed_drives();
        self.drives
            .list()
            .iter()
            .map(|drive| {
                let place = placed.iter().find(|(_, placed)| placed.drive == drive.id);
                let image = drive.disk.0.image();
                let stats = drive.disk.0.stats();
                BlockStats {
                    device: drive.id.clone(),
                    qdev: place.map(|(number, placed)| placed.qdev(*number)).or_else(|| self.device_path(&drive.id)),
                    node_name: image.as_ref().map(|image| image.node_name.clone()),
                    parent: image
                        .filter(|image| image.kind != Kind::Protocol)
                        .map(|image| (image.file.info().driver.to_owned(), stats)),
                    counters: stats,
                }
            })
            .collect()
    }

    fn vnc_servers(&self) -> Vec<VncServer> {
        let servers = self.servers.get().map(Vec::as_slice).unwrap_or_default();
        servers
            .iter()
            .map(|server| {
                let info = server.info();
                VncServer {
                    id: info.id,
                    auth: info.auth,
                    listeners: info.listeners.iter().map(endpoint).collect(),
                    clients: info.clients.iter().map(|client| endpoint(&client.peer)).collect(),
                }
            })
            .collect()
    }

    fn chardevs(&self) -> Arc<Chardevs> {
        Arc::clone(&self.chardevs)
    }

    fn networks(&self) -> Arc<Networks> {
        Arc::clone(&self.networks)
    }

    fn netdev_add(&self, options: &str) -> CommandResult {
        let netdev = crate::options::parse_netdev(options).map_err(CommandError::new)?;
        self.networks.open(&crate::machine::network_spec(&netdev)).map_err(CommandError::new)
    }

    fn display(&self) -> Option<Arc<Display>> {
        (!self.display.console_names().is_empty()).then(|| Arc::clone(&self.display))
    }

    fn stop(&self) {
        self.machine.stop();
    }

    fn cont(&self) -> CommandResult {
        self.machine.resume().map_err(|error| CommandError::new(error.to_string()))
    }

    fn system_reset(&self) {
        self.machine.reset(Cause::HostQmpSystemReset);
    }

    fn system_powerdown(&self) {
        self.machine.powerdown();
    }

    fn system_wakeup(&self) -> CommandResult {
        self.machine.wakeup().map_err(|error| CommandError::new(error.to_string()))
    }

    fn quit(&self) {
        self.machine.quit(Cause::HostQmpQuit);
    }

    fn nmi(&self) -> CommandResult {
        if let Some(apics) = self.pc.as_ref().and_then(|pc| pc.controllers.as_ref()?.apics.as_ref()) {
            apics.pulse_nmi();
            return Ok(());
        }
        let Some(vcpus) = self.machine.vcpus() else { return Err(CommandError::new("machine does not provide NMIs")) };
        for index in 0..vcpus.count() {
            if let Some(Err(error)) = vcpus.with(index, |vcpu| vcpu.inject_nmi()) {
                return Err(CommandError::new(error.to_string()));
            }
        }
        Ok(())
    }

    fn input(&self, event: InputEvent) {
        self.display.guest_input(event);
    }

    fn mouse_set(&self, index: u32) -> CommandResult {
        if self.mice().iter().any(|mouse| mouse.index == index) {
            return Ok(());
        }
        Err(CommandError::new(format!("Mouse at index '{index}' not found")))
    }

    fn eject(&self, drive: DriveName<'_>, force: bool) -> CommandResult {
        let (number, found) = self.find_drive(drive)?;
        self.open_tray(number, drive.text(), force)?;
        found.disk.0.eject().map_err(|error| CommandError::new(error.to_string()))
    }

    fn change_medium(&self, drive: DriveName<'_>, medium: NewMedium<'_>) -> CommandResult {
        let (number, found) = self.find_drive(drive)?;
        let read_only = match medium.read_only {
            ReadOnlyMode::Retain => found.read_only || found.disk.0.image().is_some_and(|image| image.read_only),
            ReadOnlyMode::ReadOnly => true,
            ReadOnlyMode::ReadWrite => false,
        };
        let removable = self.ide_drives().iter().any(|info| info.number == number && info.kind == DriveKind::Cdrom);
        if !removable {
            return Err(CommandError::new(format!("Device '{}' is not removable", drive.text())));
        }
        let (image, warnings) = open_another(medium.filename, medium.format, read_only).map_err(CommandError::new)?;
        for warning in warnings {
            eprintln!("{}", crate::machine::message(&warning));
        }
        self.open_tray(number, drive.text(), medium.force)?;
        let result = found.disk.0.insert(image);
        if let Some(pc) = &self.pc {
            pc.pc.medium_changed(&mut self.machine.board().lock(), number);
        }
        result.map_err(|error| CommandError::new(error.to_string()))
    }

    fn boot_set(&self, order: &str) -> CommandResult {
        let mut seen = String::new();
        for letter in order.chars() {
            if !letter.is_ascii_lowercase() || letter > 'p' {
                return Err(CommandError::new(format!("Invalid boot device '{letter}'")));
            }
            if seen.contains(letter) {
                return Err(CommandError::new(format!("Boot device '{letter}' was given twice")));
            }
            seen.push(letter);
        }
        let Some(pc) = &self.pc else {
            return Err(CommandError::new("no function defined to set boot device list for this architecture"));
        };
        let order = if order.is_empty() { effective_order(&self.config.boot, false) } else { order };
        pc.pc.set_boot_order(&mut self.machine.board().lock(), order);
        Ok(())
    }

    fn gdb_server(&self, device: &str) -> String {
        let debugger = self.debugger.get().and_then(Weak::upgrade);
        debugger.map_or_else(String::new, |debugger| debugger.serve(device))
    }

    fn set_log_items(&self, items: &str) -> CommandResult {
        let items: Vec<String> =
            if items == "none" { Vec::new() } else { items.split(',').map(str::to_owned).collect() };
        trace::set_items(&items).map_err(|error| CommandError::new(error.to_string()))
    }

    fn log_items(&self) -> Vec<(String, String)> {
        trace::ITEMS.iter().map(|item| (item.name.to_owned(), item.about.to_owned())).collect()
    }

    fn set_log_file(&self, path: &str) -> CommandResult {
        trace::set_file(std::path::Path::new(path)).map_err(|error| CommandError::new(error.to_string()))
    }

    fn set_vnc_password(&self, server: Option<&str>, password: &str, connected: IfConnected) -> CommandResult {
        let server = self.vnc_server(server).ok_or_else(|| CommandError::new("Could not set password"))?;
        match connected {
            IfConnected::Keep => {}
            IfConnected::Fail if server.info().clients.is_empty() => {}
            IfConnected::Fail => return Err(CommandError::new("Could not set password")),
            IfConnected::Disconnect => server.disconnect_all(),
        }
        server.set_password(Some(password)).map_err(|error| CommandError::new(error.to_string()))
    }

    fn expire_vnc_password(&self, server: Option<&str>, time: &str) -> CommandResult {
        let fail = || CommandError::new("Could not set password expire time");
        let server = self.vnc_server(server).ok_or_else(fail)?;
        let at = vnc::parse_expiry(time, SystemTime::now()).map_err(|error| CommandError::new(error.to_string()))?;
        server.expire_password(at);
        Ok(())
    }
}

fn bus_width(width: PortWidth) -> crate::bus::Width {
    match width {
        PortWidth::Byte => crate::bus::Width::B1,
        PortWidth::Word => crate::bus::Width::B2,
        PortWidth::Long => crate::bus::Width::B4,
    }
}
