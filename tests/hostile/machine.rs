//! A complete machine on an accelerator that executes nothing, with a clock that the test moves.

use std::fs;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use dromaius::accel::{AccelError, Accelerator, Exit, IoEvent, Vcpu};
use dromaius::bus::{Board, CpuPins, GuestBus, LineSink, LocalApic, Width};
use dromaius::chardev::{Chardevs, Hooks, Spec};
use dromaius::cpu::CpuState;
use dromaius::event::{Clock, EventLoop};
use dromaius::machine::{self, Built, Cause, RunState, Surroundings};
use dromaius::mem::{Backing, PAGE_SIZE, RamRange, RomWrites};
use dromaius::net::Networks;
use dromaius::options::{self, Parsed, Tables};
use dromaius::ui::Display;
use tempfile::TempDir;

/// A processor's inputs as the interrupt controllers drive them.
#[derive(Default)]
pub struct Pins {
    waiting: AtomicBool,
    calls: AtomicU32,
}

impl Pins {
    /// Whether an interrupt waits.
    pub fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// NMI, SMI, INIT and start-up interrupts so far.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl CpuPins for Pins {
    fn set_interrupt(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    fn nmi(&self) {
        self.count();
    }

    fn smi(&self) {
        self.count();
    }

    fn init(&self) {
        self.count();
    }

    fn start_up(&self, _vector: u8) {
        self.count();
    }
}

/// A processor and the APIC that the machine gave it.
#[derive(Default)]
pub struct Processor {
    pub pins: Arc<Pins>,
    apic: OnceLock<Arc<dyn LocalApic>>,
}

impl Processor {
    /// Its local APIC.
    pub fn apic(&self) -> &dyn LocalApic {
        &**self.apic.get().unwrap()
    }
}

/// Executes nothing, and checks every memory map that it is given. The machine has the interrupt controllers.
struct Idle {
    processors: Arc<[Processor; CPUS]>,
}

/// Processors of the machine.
pub const CPUS: usize = 2;

fn nothing<T>() -> Result<T, AccelError> {
    Err(AccelError::Unsupported("this accelerator executes nothing".to_owned()))
}

impl Accelerator for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn set_memory(&self, ranges: &[RamRange]) -> Result<(), AccelError> {
        for range in ranges {
            assert_eq!([range.gpa % PAGE_SIZE, range.len % PAGE_SIZE, range.offset % PAGE_SIZE], [0; 3], "{range:x?}");
            let end = range.offset.checked_add(range.len).unwrap();
            assert!(range.len > 0 && end <= range.block.len(), "past the end of its block: {range:x?}");
        }
        for pair in ranges.windows(2) {
            assert!(pair[0].gpa + pair[0].len <= pair[1].gpa, "{pair:x?}");
        }
        Ok(())
    }

    fn sync_dirty(&self) {}

    fn create_vcpu(&self, _index: u32) -> Result<Box<dyn Vcpu>, AccelError> {
        Ok(Box::new(IdleVcpu::default()))
    }

    fn irqchip(&self) -> Option<Arc<dyn LineSink>> {
        None
    }

    fn cpu_pins(&self, index: u32) -> Option<Arc<dyn CpuPins>> {
        let processor = self.processors.get(index as usize)?;
        Some(Arc::clone(&processor.pins) as Arc<dyn CpuPins>)
    }

    fn attach_local_apic(&self, index: u32, apic: Arc<dyn LocalApic>) {
        assert!(self.processors[index as usize].apic.set(apic).is_ok(), "attached twice");
    }

    fn add_ioevent(&self, _event: IoEvent, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        nothing()
    }

    fn remove_ioevent(&self, _event: IoEvent, _fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        nothing()
    }

    fn add_irqfd(&self, _gsi: u32, _fd: BorrowedFd<'_>, _resample: Option<BorrowedFd<'_>>) -> Result<(), AccelError> {
        nothing()
    }
}

/// "Runs" until it is kicked.
#[derive(Default)]
struct IdleVcpu {
    kicked: Arc<(Mutex<bool>, Condvar)>,
}

impl Vcpu for IdleVcpu {
    fn run(&mut self, _bus: &dyn GuestBus) -> Result<Exit, AccelError> {
        let (kicked, changed) = &*self.kicked;
        let mut kicked = kicked.lock().unwrap();
        while !std::mem::take(&mut *kicked) {
            kicked = changed.wait(kicked).unwrap();
        }
        Ok(Exit::Kicked)
    }

    fn state(&mut self) -> Result<CpuState, AccelError> {
        nothing()
    }

    fn set_state(&mut self, _state: &CpuState) -> Result<(), AccelError> {
        nothing()
    }

    fn reset(&mut self) -> Result<(), AccelError> {
        Ok(())
    }

    fn inject_nmi(&mut self) -> Result<(), AccelError> {
        nothing()
    }

    fn translate(&mut self, _gva: u64) -> Option<u64> {
        None
    }

    fn kicker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let shared = Arc::clone(&self.kicked);
        Arc::new(move || {
            *shared.0.lock().unwrap() = true;
            shared.1.notify_all();
        })
    }
}

/// A machine with every device that there is.
pub struct Bench {
    pub built: Built,
    pub processors: Arc<[Processor; CPUS]>,
    pub clock: Clock,
    event_loop: EventLoop,
    display: Arc<Display>,
    _folder: TempDir,
}

impl Bench {
    /// A `pc` with `memory` (as `-m` has it), two disks, a CD, a VGA, a serial and a parallel port and a debug
    /// console. Firmware and media are made up; nothing executes or boots from them.
    pub fn new(memory: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("bios-256k.bin"), vec![0xf4; 0x4_0000]).unwrap();
        fs::write(path("vgabios-stdvga.bin"), vec![0x55; 0x8000]).unwrap();
        fs::write(path("a.raw"), vec![0xa5; 3 << 20]).unwrap();
        fs::write(path("c.iso"), vec![0xc5; 1 << 20]).unwrap();
        let disk = path("b.qcow2");
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_qemu-img"))
            .args(["create", "-q", "-f", "qcow2", &disk, "8M"])
            .status();
        assert!(made.unwrap().success());
        let raw = path("a.raw");
        let words = [
            "qemu-kvm -nodefaults -no-shutdown -display none -smp 2 -vga std -L",
            folder.path().to_str().unwrap(),
            &format!("-m {memory} -drive file={raw},format=raw,if=ide,index=0 -hdb {disk}"),
            &format!("-cdrom {} -serial null -chardev ringbuf,id=r,size=4096", path("c.iso")),
            "-device isa-serial,chardev=r -parallel null -chardev ringbuf,id=d,size=4096 -device isa-debugcon,chardev=d",
            "-device isa-debug-exit",
        ]
        .join(" ");
        let parsed = options::parse(words.split(' ').map(Into::into), &Tables::of_this_build());
        let Ok(Parsed::Run(config)) = parsed else { panic!("{parsed:?}") };

        let clock = Clock::manual();
        let event_loop = EventLoop::new(clock.clone()).unwrap();
        let handle = event_loop.handle();
        let chardevs = Chardevs::new(handle.clone(), Hooks::default());
        for spec in &config.chardevs {
            let (id, backend, options) = (spec.id.clone(), spec.backend.clone(), spec.options.clone());
            let spec = Spec { id, backend, options, mux: spec.mux, logfile: None, logappend: false };
            chardevs.open(&spec).unwrap();
        }
        let display = Arc::new(Display::new());
        let surroundings = Surroundings { handle, chardevs, display: Arc::clone(&display), networks: Networks::new() };
        let processors: Arc<[Processor; CPUS]> = Arc::default();
        let idle = Arc::new(Idle { processors: Arc::clone(&processors) });
        let built = machine::build_on(idle, Vec::new(), &config, &surroundings).unwrap();
        built.machine.resume().unwrap();
        Self { built, processors, clock, event_loop, display, _folder: folder }
    }

    pub fn bus(&self) -> &dyn GuestBus {
        &**self.built.machine.board()
    }

    /// Serves what is due: timers, posted power requests, finished disk requests.
    pub fn serve(&self) {
        self.event_loop.run_pending().unwrap();
    }

    /// A reset as a person asks for it; a machine that had ended or slept runs again.
    pub fn reset(&self) {
        self.built.machine.reset(Cause::HostQmpSystemReset);
        if self.built.machine.state() != RunState::Running {
            self.built.machine.resume().unwrap();
        }
    }

    /// Draws every console as a viewer would see it.
    pub fn draw(&self) {
        self.display.wake();
        self.serve();
    }

    /// Checks what must hold of the maps at any time.
    pub fn check_maps(&self) {
        let mut board = self.built.machine.board().lock();
        let flat = board.flat_memory();
        for (name, range) in &flat {
            assert!(range.len > 0 && range.start.checked_add(range.len).is_some(), "{name}: {range:x?}");
        }
        for pair in flat.windows(2) {
            assert!(pair[0].1.last() < pair[1].1.start, "{} overlaps {}", pair[0].0, pair[1].0);
        }
        assert!(flat.len() < 200 && board.port_ranges().len() < 100, "{:?}", board.map_stats());
        let functions = board.pci_functions();
        for (address, _) in functions {
            for (_, bar, decodes_at) in board.pci_bars(address) {
                assert!(decodes_at.is_none_or(|at| at % bar.len == 0), "{address} {bar:?} {decodes_at:x?}");
            }
        }
    }

    /// What a reset must restore.
    pub fn power_on_state(&self) -> Vec<String> {
        let mut board = self.built.machine.board().lock();
        let mut lines = Vec::new();
        for (address, _) in board.pci_functions() {
            let words: Vec<u32> = (0..64).map(|word| board.pci_config_read(address, word * 4, 4)).collect();
            lines.push(format!("pci {address} {words:x?}"));
        }
        for (name, range) in board.flat_memory() {
            let backing = match &range.backing {
                Backing::Ram { block, offset } => format!("ram {}+{offset:x}", block.name()),
                Backing::Rom { block, offset, writes } => {
                    let writes = match writes {
                        RomWrites::Lost => "lost".to_owned(),
                        RomWrites::Ram { block, offset } => format!("{}+{offset:x}", block.name()),
                        RomWrites::Device { target, offset } => format!("{target:?}+{offset:x}"),
                    };
                    format!("rom {}+{offset:x} {writes}", block.name())
                }
                Backing::Device { target, offset } => format!("{target:?}+{offset:x}"),
            };
            lines.push(format!("memory {:x}+{:x} {name} {backing}", range.start, range.len));
        }
        lines.extend(board.port_ranges().iter().map(|range| format!("ports {range:x?}")));
        lines.extend(registers(&mut board));
        drop(board);
        for processor in self.processors.iter() {
            lines.push(format!("apic {:x} {:x?}", processor.apic().base(), processor.apic().registers()));
        }
        lines
    }
}

/// Registers whose power-on content does not depend on the time.
fn registers(board: &mut Board) -> Vec<String> {
    const STEADY: &[u16] = &[
        0x64, 0x92, 0xcf9, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3ff, 0x2f9, 0x2fa, 0x2fb, 0x2fc, 0x2fd, 0x2ff, 0x378,
        0x37a, 0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f6, 0x1f7, 0x171, 0x172, 0x173, 0x174, 0x175, 0x176, 0x177, 0x1ce,
        0xb2, 0xb3, 0x21, 0xa1, 0x4d0, 0x4d1, 0x3cc, 0x3c4, 0x3ce, 0x3d4, 0x08, 0xd0, 0x81, 0x82, 0x83, 0x87,
    ];
    let mut lines: Vec<String> =
        STEADY.iter().map(|port| format!("port {port:x}: {:x}", board.port_read(*port, Width::B1))).collect();
    lines.push(format!("port cf8: {:x}", board.port_read(0xcf8, Width::B4)));
    let mut entries = Vec::new();
    for register in 0..0x40u8 {
        let mut word = [0; 4];
        board.mmio_write(0xfec0_0000, &[register, 0, 0, 0]);
        board.mmio_read(0xfec0_0010, &mut word);
        entries.push(u32::from_le_bytes(word));
    }
    board.mmio_write(0xfec0_0000, &[0; 4]);
    lines.push(format!("ioapic {entries:x?}"));
    let mut hpet = [0; 0x160];
    board.mmio_read(0xfed0_0000, &mut hpet[..0xf0]);
    lines.push(format!("hpet {hpet:x?}"));
    lines
}
