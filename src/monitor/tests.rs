//! Sessions against a machine that only remembers: golden texts of QEMU 10.0.2.

mod hostile;
mod human;
mod program;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::control::{
    CommandError, CommandResult, Control, DriveName, IfConnected, NewMedium, PortWidth, ReadOnlyMode,
};
use super::info::{
    AddressSpace, BlockDevice, BlockStats, CpuDefinition, CpuInfo, CurrentMachine, FlatView, HotpluggableCpu,
    InsertedMedium, InterruptController, IrqStatistics, KvmInfo, MachineInfo, MemorySize, Mouse, PciDevice, QtreeBus,
    Rom, RunState, VncServer,
};
use super::sessions::{Mode, Monitors};
use crate::chardev::{CharOutput, Chardevs, Hooks, Spec, VcRequest};
use crate::cpu::CpuState;
use crate::event::{Clock, EventLoop};
use crate::net::Networks;
use crate::ui::{Display, InputEvent};

/// A machine that remembers what it was asked.
struct Sample {
    chardevs: Arc<Chardevs>,
    calls: Mutex<Vec<String>>,
    state: Mutex<RunState>,
}

impl Sample {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }
}

impl Control for Sample {
    fn name(&self) -> Option<String> {
        Some("test".to_owned())
    }
    fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid[0] = 0xab;
        uuid
    }
    fn kvm(&self) -> KvmInfo {
        KvmInfo { enabled: true, present: true }
    }
    fn run_state(&self) -> RunState {
        *self.state.lock().unwrap()
    }
    fn current_machine(&self) -> CurrentMachine {
        CurrentMachine { kind: "pc-i440fx-10.0".to_owned(), wakeup_suspend_support: true }
    }
    fn machines(&self) -> Vec<MachineInfo> {
        Vec::new()
    }
    fn cpu_definitions(&self) -> Vec<CpuDefinition> {
        Vec::new()
    }
    fn cpus(&self) -> Vec<CpuInfo> {
        (0..2)
            .map(|index| CpuInfo {
                index,
                thread_id: 100 + i64::from(index),
                qom_path: format!("/machine/unattached/device[{}]", index * 2),
                ..CpuInfo::default()
            })
            .collect()
    }
    fn hotpluggable_cpus(&self) -> Vec<HotpluggableCpu> {
        Vec::new()
    }
    fn cpu_state(&self, index: u32) -> CommandResult<CpuState> {
        match index {
            0 => Ok(super::registers::tests::power_on()),
            1 => Ok(super::registers::tests::long()),
            _ => Err(CommandError::new("no such CPU")),
        }
    }
    fn memory_size(&self) -> MemorySize {
        MemorySize { base: 128 << 20, plugged: 0 }
    }
    fn read_physical(&self, gpa: u64, buf: &mut [u8]) -> bool {
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = (gpa + i as u64).to_le_bytes()[0];
        }
        gpa < 1 << 32
    }
    fn port_read(&self, port: u16, width: PortWidth) -> u32 {
        self.note(format!("in {port:#x} {width:?}"));
        0x18
    }
    fn port_write(&self, port: u16, width: PortWidth, value: u32) {
        self.note(format!("out {port:#x} {width:?} {value:#x}"));
    }
    fn memory_tree(&self) -> Vec<AddressSpace> {
        Vec::new()
    }
    fn flat_views(&self) -> Vec<FlatView> {
        Vec::new()
    }
    fn irq_statistics(&self) -> Vec<IrqStatistics> {
        Vec::new()
    }
    fn interrupt_controllers(&self) -> Vec<InterruptController> {
        Vec::new()
    }
    fn pci_devices(&self) -> Vec<PciDevice> {
        Vec::new()
    }
    fn qtree(&self) -> QtreeBus {
        QtreeBus { name: "main-system-bus".to_owned(), kind: "System".to_owned(), devices: Vec::new() }
    }
    fn roms(&self) -> Vec<Rom> {
        Vec::new()
    }
    fn mice(&self) -> Vec<Mouse> {
        vec![Mouse { index: 2, name: "QEMU PS/2 Mouse".to_owned(), current: true, absolute: false }]
    }
    fn block_devices(&self) -> Vec<BlockDevice> {
        let medium = InsertedMedium {
            node_name: "#block129".to_owned(),
            file: "d.qcow2".to_owned(),
            driver: "qcow2".to_owned(),
            writeback: true,
            detect_zeroes: "off",
            image: serde_json::json!({"filename": "d.qcow2"}),
            ..InsertedMedium::default()
        };
        let disk = BlockDevice {
            device: "ide0-hd0".to_owned(),
            qdev: Some("/machine/unattached/device[6]".to_owned()),
            io_status: Some("ok"),
            inserted: Some(medium),
            ..BlockDevice::default()
        };
        let cdrom = BlockDevice {
            device: "ide1-cd0".to_owned(),
            qdev: Some("/machine/unattached/device[7]".to_owned()),
            io_status: Some("ok"),
            removable: true,
            tray_open: Some(false),
            ..BlockDevice::default()
        };
        vec![disk, cdrom]
    }
    fn block_stats(&self) -> Vec<BlockStats> {
        Vec::new()
    }
    fn vnc_servers(&self) -> Vec<VncServer> {
        Vec::new()
    }
    fn chardevs(&self) -> Arc<Chardevs> {
        Arc::clone(&self.chardevs)
    }
    fn networks(&self) -> Arc<Networks> {
        Networks::new()
    }
    fn netdev_add(&self, options: &str) -> CommandResult {
        self.note(format!("netdev_add {options}"));
        Ok(())
    }
    fn display(&self) -> Option<Arc<Display>> {
        None
    }
    fn stop(&self) {
        *self.state.lock().unwrap() = RunState::Paused;
        self.note("stop");
    }
    fn cont(&self) -> CommandResult {
        *self.state.lock().unwrap() = RunState::Running;
        self.note("cont");
        Ok(())
    }
    fn system_reset(&self) {
        self.note("reset");
    }
    fn system_powerdown(&self) {
        self.note("powerdown");
    }
    fn system_wakeup(&self) -> CommandResult {
        Err(CommandError::new("Unable to wake up: guest is not in suspended state"))
    }
    fn quit(&self) {
        self.note("quit");
    }
    fn nmi(&self) -> CommandResult {
        self.note("nmi");
        Ok(())
    }
    fn input(&self, event: InputEvent) {
        self.note(match event {
            InputEvent::Key(key) => {
                format!("key {:#x} {}", key.code.unwrap().0, if key.down { "down" } else { "up" })
            }
            other => format!("{other:?}"),
        });
    }
    fn mouse_set(&self, index: u32) -> CommandResult {
        Err(CommandError::new(format!("Mouse at index '{index}' not found")))
    }
    fn eject(&self, drive: DriveName<'_>, force: bool) -> CommandResult {
        match drive.text() {
            "ide1-cd0" => {
                self.note(format!("eject {force}"));
                Ok(())
            }
            other => Err(CommandError::device_not_found(other)),
        }
    }
    fn change_medium(&self, drive: DriveName<'_>, medium: NewMedium<'_>) -> CommandResult {
        let read_only = medium.read_only == ReadOnlyMode::ReadOnly;
        self.note(format!("change {} {} {:?} {read_only}", drive.text(), medium.filename, medium.format));
        Ok(())
    }
    fn boot_set(&self, order: &str) -> CommandResult {
        match order {
            "c" => Ok(()),
            _ => Err(CommandError::new(format!("Invalid boot device '{order}'"))),
        }
    }
    fn gdb_server(&self, device: &str) -> String {
        format!("Waiting for gdb connection on device '{device}'\n")
    }
    fn set_log_items(&self, items: &str) -> CommandResult {
        if items == "none" { Ok(()) } else { Err(CommandError::new("unknown")) }
    }
    fn log_items(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    fn set_log_file(&self, path: &str) -> CommandResult {
        Err(CommandError::new(format!("Error opening logfile {path}: No such file or directory")))
    }
    fn set_vnc_password(&self, _server: Option<&str>, password: &str, _connected: IfConnected) -> CommandResult {
        self.note(format!("password {password}"));
        Ok(())
    }
    fn expire_vnc_password(&self, _server: Option<&str>, time: &str) -> CommandResult {
        self.note(format!("expire {time}"));
        Ok(())
    }
}

/// The far end of the monitor's stream: takes as much as it has room for.
struct Terminal {
    seen: Mutex<Vec<u8>>,
    room: AtomicUsize,
}

impl CharOutput for Terminal {
    fn write(&self, data: &[u8]) -> usize {
        let count = data.len().min(self.room.load(Ordering::Relaxed));
        self.room.fetch_sub(count, Ordering::Relaxed);
        self.seen.lock().unwrap().extend(&data[..count]);
        count
    }

    fn accept_input(&self) {}
}

struct Bench {
    event_loop: EventLoop,
    clock: Clock,
    machine: Arc<Sample>,
    monitors: Arc<Monitors>,
    terminal: Arc<Terminal>,
    request: VcRequest,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        let clock = Clock::manual();
        let event_loop = EventLoop::new(clock.clone()).unwrap();
        let terminal = Arc::new(Terminal { seen: Mutex::default(), room: AtomicUsize::new(usize::MAX) });
        let requests = Arc::new(Mutex::new(None));
        let (made, output) = (Arc::clone(&requests), Arc::clone(&terminal));
        let hooks = Hooks {
            vc: Some(Arc::new(move |request| {
                *made.lock().unwrap() = Some(request);
                Arc::clone(&output) as Arc<dyn CharOutput>
            })),
            ..Hooks::default()
        };
        let chardevs = Chardevs::new(event_loop.handle(), hooks);
        chardevs.open(&Spec::new("mon", "vc", &[])).unwrap();
        let request = requests.lock().unwrap().take().unwrap();
        let machine = Arc::new(Sample { chardevs, calls: Mutex::default(), state: Mutex::new(RunState::Prelaunch) });
        let monitors = Monitors::new(event_loop.handle(), Arc::clone(&machine) as Arc<dyn Control>);
        monitors.open("mon", mode).unwrap();
        let bench = Self { event_loop, clock, machine, monitors, terminal, request };
        bench.turn();
        bench
    }

    fn turn(&self) {
        for _ in 0..4 {
            self.event_loop.run_pending().unwrap();
        }
    }

    /// What was printed since the last call.
    fn seen(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.terminal.seen.lock().unwrap())).unwrap()
    }

    fn send(&self, text: &str) -> String {
        assert_eq!(self.request.input.push(text.as_bytes()), text.len());
        self.turn();
        self.seen()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.machine.calls.lock().unwrap())
    }
}
