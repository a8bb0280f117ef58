//! The KVM accelerator on the real `/dev/kvm`, with guests of a few 16-bit instructions. Where there is no KVM these
//! tests say so and pass.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dromaius::accel::{AccelRequest, Accelerator, Exit, IoEvent, Vcpu, choose};
use dromaius::bus::{At, Board, BoardCell, Decode, Device, GuestBus, PostedRange, Region, Reset, Width};
use dromaius::cpu::{self, MpState, Topology};
use dromaius::mem::{RamBlock, RamRange};
use rustix::event::{EventfdFlags, eventfd};

/// Where the guests' code starts: the segment of the reset vector's page is a ROM of one page.
const ROM: u64 = 0xffff_f000;

/// One access that a guest made.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Access {
    In(u16, Width),
    Out(u16, Width, u32),
    InString(u16, Width, usize),
    OutString(u16, Width, Vec<u8>),
    Read(u64, usize),
    Write(u64, Vec<u8>),
}

/// Remembers accesses. Port reads return the port's number plus 1, memory reads 0x5a; a write to port 0xf4 sets
/// `done` and kicks, one to port 0x98 calls `ready`.
#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Access>>,
    done: AtomicBool,
    kick: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    /// What a write to port 0x98 does.
    ready: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Log {
    fn note(&self, access: Access) {
        self.seen.lock().unwrap().push(access);
    }
}

impl GuestBus for Log {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.note(Access::In(port, width));
        u32::from(port) + 1
    }
    fn port_write(&self, port: u16, width: Width, value: u32) {
        if port == 0xf4 {
            self.done.store(true, Ordering::SeqCst);
            if let Some(kick) = self.kick.lock().unwrap().as_ref() {
                kick();
            }
            return;
        }
        self.note(Access::Out(port, width, value));
        if port == 0x98
            && let Some(ready) = self.ready.lock().unwrap().as_ref()
        {
            ready();
        }
    }
    fn port_read_string(&self, port: u16, width: Width, data: &mut [u8]) {
        self.note(Access::InString(port, width, data.len()));
        for (byte, value) in data.iter_mut().zip(1..) {
            *byte = value;
        }
    }
    fn port_write_string(&self, port: u16, width: Width, data: &[u8]) {
        self.note(Access::OutString(port, width, data.to_vec()));
    }
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.note(Access::Read(gpa, data.len()));
        data.fill(0x5a);
    }
    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.note(Access::Write(gpa, data.to_vec()));
    }
}

/// A virtual machine with RAM at 0, a ROM below 4 GiB that holds the guest, and a block whose writes are logged.
struct Bench {
    kvm: Arc<dyn Accelerator>,
    ram: Arc<RamBlock>,
    screen: Arc<RamBlock>,
    log: Arc<Log>,
}

const SCREEN: u64 = 0x8_0000;

/// Whether the host has KVM; says so if not.
fn have_kvm() -> bool {
    let have = std::path::Path::new("/dev/kvm").exists();
    if !have {
        eprintln!("skipped: this host has no /dev/kvm");
    }
    have
}

/// A reset vector that jumps to the start of the page, where `code` is.
fn rom_image(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0xf4; 0x1000];
    image[..code.len()].copy_from_slice(code);
    // jmp rel16 from 0xfff0 (next instruction at 0xfff3) to 0xf000
    image[0xff0..0xff3].copy_from_slice(&[0xe9, 0x0d, 0xf0]);
    image
}

impl Bench {
    fn new(code: &[u8]) -> Self {
        let requests = [AccelRequest { name: "kvm".to_owned(), ..AccelRequest::default() }];
        let kvm = choose(&requests).unwrap().accelerator;
        let topology = Topology { sockets: 2, ..Topology::default() };
        let model = cpu::resolve(None, &[], topology, &kvm.host_cpu().unwrap()).unwrap().model;
        kvm.set_cpu_model(Arc::new(model));
        let ram = RamBlock::anonymous("ram", 0x8_0000).unwrap();
        let rom = RamBlock::anonymous("rom", 0x1000).unwrap();
        let screen = RamBlock::tracked("screen", 0x4000).unwrap();
        rom.write(0, &rom_image(code));
        let bench = Self { kvm, ram, screen, log: Arc::default() };
        let range = |gpa, block: &Arc<RamBlock>, read_only| RamRange {
            gpa,
            len: block.len(),
            block: Arc::clone(block),
            offset: 0,
            read_only,
        };
        // Interrupts in real mode load a code segment below 1 MiB: the ROM is there, too.
        let ranges = [
            range(0, &bench.ram, false),
            range(SCREEN, &bench.screen, false),
            range(0xf_f000, &rom, true),
            range(ROM, &rom, true),
        ];
        bench.kvm.set_memory(&ranges).unwrap();
        bench
    }

    fn vcpu(&self) -> Box<dyn Vcpu> {
        let vcpu = self.kvm.create_vcpu(0).unwrap();
        *self.log.kick.lock().unwrap() = Some(vcpu.kicker());
        vcpu
    }

    /// Runs vCPU 0 until the guest writes port 0xf4.
    fn run(&self) -> Box<dyn Vcpu> {
        let mut vcpu = self.vcpu();
        let kicker = vcpu.kicker();
        let (ended, watch) = mpsc::channel::<()>();
        let watchdog = thread::spawn(move || {
            if watch.recv_timeout(Duration::from_secs(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
                kicker();
            }
        });
        assert_eq!(vcpu.run(&*self.log).unwrap(), Exit::Kicked);
        drop(ended);
        watchdog.join().unwrap();
        assert!(self.log.done.load(Ordering::SeqCst), "{:?}", self.seen());
        vcpu
    }

    fn seen(&self) -> Vec<Access> {
        self.log.seen.lock().unwrap().clone()
    }
}

/// A chip with registers in memory, a posted and an ordinary port, and one that ends the run.
#[derive(Default)]
struct Recorder {
    seen: Vec<(Region, u64)>,
    kick: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Recorder {
    const MEMORY: Region = Region(0);
    const POSTED_PORT: Region = Region(1);
    const PORT: Region = Region(2);
    const DONE: Region = Region(3);
}

impl Device for Recorder {
    fn read(&mut self, _at: At) -> u64 {
        0
    }
    fn write(&mut self, at: At, value: u64) {
        if at.region == Self::DONE
            && let Some(kick) = &self.kick
        {
            kick();
        }
        self.seen.push((at.region, value));
    }
    fn reset(&mut self, _kind: Reset) {}
}

/// out 0xf4, al
const DONE: [u8; 2] = [0xe6, 0xf4];

fn guest(parts: &[&[u8]]) -> Vec<u8> {
    [parts.concat().as_slice(), &DONE, &[0xf4]].concat()
}

#[test]
fn port_accesses_reach_the_bus_with_their_width() {
    if !have_kvm() {
        return;
    }
    let code = guest(&[
        &[0xe4, 0x10],       // in al, 0x10
        &[0xe7, 0x30],       // out 0x30, ax
        &[0xba, 0x34, 0x12], // mov dx, 0x1234
        &[0x66, 0xed],       // in eax, dx
        &[0x66, 0xef],       // out dx, eax
    ]);
    let bench = Bench::new(&code);
    bench.run();
    let expected = [
        Access::In(0x10, Width::B1),
        Access::Out(0x30, Width::B2, 0x11),
        Access::In(0x1234, Width::B4),
        Access::Out(0x1234, Width::B4, 0x1235),
    ];
    assert_eq!(bench.seen(), expected);
}

#[test]
fn string_io_moves_whole_blocks() {
    if !have_kvm() {
        return;
    }
    let code = guest(&[
        &[0xfc, 0xbf, 0x00, 0x10], // cld; mov di, 0x1000
        &[0xb9, 0x04, 0x00],       // mov cx, 4
        &[0xba, 0xf0, 0x01],       // mov dx, 0x1f0
        &[0xf3, 0x6d],             // rep insw
        &[0xbe, 0x00, 0x10],       // mov si, 0x1000
        &[0xb9, 0x08, 0x00],       // mov cx, 8
        &[0xf3, 0x6e],             // rep outsb
    ]);
    let bench = Bench::new(&code);
    bench.run();
    let mut bytes = [0; 8];
    bench.ram.read(0x1000, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    let seen = bench.seen();
    assert_eq!(seen[0], Access::InString(0x1f0, Width::B2, 8));
    // KVM hands out strings over in pieces of its own choice.
    let out: Vec<u8> = seen[1..]
        .iter()
        .flat_map(|access| match access {
            Access::OutString(0x1f0, Width::B1, data) => data.clone(),
            Access::Out(0x1f0, Width::B1, value) => vec![*value as u8],
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn memory_without_a_slot_and_writes_to_rom_reach_the_bus() {
    if !have_kvm() {
        return;
    }
    let code = guest(&[
        &[0xb8, 0x00, 0xb0, 0x8e, 0xd8],       // mov ax, 0xb000; mov ds, ax
        &[0xa0, 0x02, 0x00],                   // mov al, [2]
        &[0x66, 0xa3, 0x08, 0x00],             // mov [8], eax
        &[0x2e, 0xc6, 0x06, 0x00, 0xf8, 0x77], // mov byte cs:[0xf800], 0x77
    ]);
    let bench = Bench::new(&code);
    bench.run();
    let expected = [
        Access::Read(0xb_0002, 1),
        Access::Write(0xb_0008, vec![0x5a, 0xb0, 0, 0]),
        Access::Write(0xffff_f800, vec![0x77]),
    ];
    assert_eq!(bench.seen(), expected);
}

#[test]
fn written_pages_of_a_tracked_block_are_found() {
    if !have_kvm() {
        return;
    }
    let code = guest(&[
        &[0xb8, 0x00, 0x80, 0x8e, 0xd8], // mov ax, 0x8000; mov ds, ax
        &[0xa2, 0x05, 0x20],             // mov [0x2005], al
    ]);
    let bench = Bench::new(&code);
    bench.run();
    bench.kvm.sync_dirty();
    let mut pages = Vec::new();
    bench.screen.dirty().take_each(0, 0x4000, |offset| pages.push(offset));
    assert_eq!(pages, [0x2000]);
    bench.kvm.sync_dirty();
    assert!(!bench.screen.dirty().take(0, 0x4000));
}

#[test]
fn memory_can_go_and_come_back_while_the_guest_runs() {
    if !have_kvm() {
        return;
    }
    // loop: inc word [0x500]; jmp loop
    let bench = Bench::new(&[0xff, 0x06, 0x00, 0x05, 0xeb, 0xfa]);
    let kicker = Arc::new(Mutex::new(None));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = bench.vcpu();
            *kicker.lock().unwrap() = Some(vcpu.kicker());
            assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
        });
        let rom = RamBlock::anonymous("rom", 0x1000).unwrap();
        rom.write(0, &rom_image(&[0xff, 0x06, 0x00, 0x05, 0xeb, 0xfa]));
        for round in 0..20 {
            let ram = &bench.ram;
            let whole = RamRange { gpa: 0, len: ram.len(), block: Arc::clone(ram), offset: 0, read_only: false };
            let half = RamRange { len: 0x4_0000, ..whole.clone() };
            let rom = RamRange { gpa: ROM, len: 0x1000, block: Arc::clone(&rom), offset: 0, read_only: true };
            let first = if round % 2 == 0 { half } else { whole };
            bench.kvm.set_memory(&[first, rom]).unwrap();
        }
        while kicker.lock().unwrap().is_none() {
            thread::yield_now();
        }
        while bench.ram.byte(0x501) == 0 {
            thread::yield_now();
        }
        kicker.lock().unwrap().take().unwrap()();
    });
    assert_eq!(bench.seen(), []);
}

#[test]
fn an_ioeventfd_takes_matching_port_writes() {
    if !have_kvm() {
        return;
    }
    let code = guest(&[
        &[0xba, 0x00, 0x30], // mov dx, 0x3000
        &[0xb0, 0x01, 0xee], // mov al, 1; out dx, al
        &[0xb0, 0x02, 0xee], // mov al, 2; out dx, al
    ]);
    let bench = Bench::new(&code);
    let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let event = IoEvent::Port { port: 0x3000, len: 1, value: Some(1) };
    bench.kvm.add_ioevent(event, fd.as_fd()).unwrap();
    bench.run();
    assert_eq!(bench.seen(), [Access::Out(0x3000, Width::B1, 2)]);
    let mut count = [0; 8];
    rustix::io::read(&fd, &mut count).unwrap();
    assert_eq!(u64::from_le_bytes(count), 1);
    bench.kvm.remove_ioevent(event, fd.as_fd()).unwrap();
    assert!(bench.kvm.remove_ioevent(event, fd.as_fd()).is_err());
}

/// Real-mode code that sets vector `vector` to 0xf000:0xf080 and the PICs to base 8 and 0x70 with all but `mask` open.
fn irq_prologue(vector: u8, mask: u8) -> Vec<u8> {
    let entry = u16::from(vector) * 4;
    let [low, high] = entry.to_le_bytes();
    let [low2, high2] = (entry + 2).to_le_bytes();
    [
        [0xc7, 0x06, low, high, 0x80, 0xf0].as_slice(), // mov word [4 * vector], 0xf080
        &[0xc7, 0x06, low2, high2, 0x00, 0xf0],         // mov word [4 * vector + 2], 0xf000
        &[0xbc, 0x00, 0x70],                            // mov sp, 0x7000
        &[0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x08, 0xe6, 0x21], // ICW1, ICW2
        &[0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21], // ICW3, ICW4
        &[0xb0, mask, 0xe6, 0x21],                      // OCW1
    ]
    .concat()
}

/// A guest that waits in HLT for IRQ 5 (vector 0x0d), whose handler writes port 0x99, ends the interrupt and then
/// port 0xf4.
fn irq_guest() -> Vec<u8> {
    let mut code = irq_prologue(0x0d, 0xdf);
    code.extend([0xe6, 0x98]); // out 0x98, al: ready
    code.extend([0xfb, 0xf4, 0xeb, 0xfd]); // sti; hlt; jmp to hlt
    code.resize(0x80, 0x90);
    code.extend([0xe6, 0x99, 0xb0, 0x20, 0xe6, 0x20, 0xe6, 0xf4, 0xcf]); // out 0x99, al; EOI; out 0xf4, al; iret
    code
}

fn ready_and_served(seen: &[Access]) -> bool {
    matches!(seen, [Access::Out(0x98, ..), Access::Out(0x99, ..)])
}

#[test]
fn an_interrupt_line_wakes_a_halted_guest() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&irq_guest());
    let chip = bench.kvm.irqchip().unwrap();
    let line = Arc::clone(&chip);
    *bench.log.ready.lock().unwrap() = Some(Box::new(move || line.set_level(5, true)));
    bench.run();
    chip.set_level(5, false);
    assert!(ready_and_served(&bench.seen()), "{:?}", bench.seen());
}

#[test]
fn an_irqfd_wakes_a_halted_guest_and_its_end_is_signalled() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&irq_guest());
    let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let resample = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    bench.kvm.add_irqfd(5, fd.as_fd(), Some(resample.as_fd())).unwrap();
    let line = fd.try_clone().unwrap();
    *bench.log.ready.lock().unwrap() = Some(Box::new(move || {
        rustix::io::write(&line, &1u64.to_ne_bytes()).unwrap();
    }));
    bench.run();
    assert!(ready_and_served(&bench.seen()), "{:?}", bench.seen());
    let mut count = [0; 8];
    rustix::io::read(&resample, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    bench.kvm.remove_irqfd(5, fd.as_fd()).unwrap();
}

#[test]
fn reset_chips_forgets_how_a_guest_set_them() {
    if !have_kvm() {
        return;
    }
    // Port 0x97 gets the master PIC's mask, before and after it is set to 0xaa.
    let bench = Bench::new(&guest(&[&[0xe4, 0x21, 0xe6, 0x97, 0xb0, 0xaa, 0xe6, 0x21, 0xe4, 0x21, 0xe6, 0x97]]));
    let mut vcpu = bench.run();
    bench.kvm.reset_chips().unwrap();
    vcpu.reset().unwrap();
    vcpu.run(&*bench.log).unwrap();
    let masks: Vec<_> = [0, 0xaa, 0, 0xaa].map(|mask| Access::Out(0x97, Width::B1, mask)).into();
    assert_eq!(bench.seen(), masks);
}

#[test]
fn a_non_maskable_interrupt_wakes_a_halted_guest() {
    if !have_kvm() {
        return;
    }
    let mut code = irq_prologue(2, 0xff);
    code.extend([0xe6, 0x98, 0xf4, 0xeb, 0xfd]); // out 0x98, al: ready; hlt; jmp to hlt
    code.resize(0x80, 0x90);
    code.extend([0xe6, 0x99, 0xe6, 0xf4, 0xcf]); // out 0x99, al; out 0xf4, al; iret
    let bench = Bench::new(&code);
    let mut vcpu = bench.vcpu();
    *bench.log.ready.lock().unwrap() = Some(Box::new({
        let kicker = vcpu.kicker();
        move || kicker()
    }));
    assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
    vcpu.inject_nmi().unwrap();
    assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
    assert!(ready_and_served(&bench.seen()), "{:?}", bench.seen());
}

#[test]
fn the_guest_clock_stands_while_the_machine_is_stopped() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&guest(&[]));
    bench.kvm.machine_started();
    bench.kvm.machine_stopped();
    bench.kvm.machine_stopped();
    bench.kvm.machine_started();
    bench.run();
}

#[test]
fn a_kick_before_run_is_not_lost() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&[0xeb, 0xfe]);
    let mut vcpu = bench.vcpu();
    let kicker = vcpu.kicker();
    kicker();
    assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
    kicker();
    kicker();
    assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
    drop(vcpu);
    kicker();
}

#[test]
fn kicks_at_any_moment_end_run() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&[0xeb, 0xfe]);
    let rounds = AtomicU32::new(0);
    let kicker = Mutex::new(None);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = bench.vcpu();
            *kicker.lock().unwrap() = Some(vcpu.kicker());
            for _ in 0..500 {
                assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Each kick comes when the last one was seen, that is while the vCPU is anywhere on its way into the guest.
        let mut kicked = 0;
        while kicked < 500 {
            let kick = kicker.lock().unwrap().clone();
            let Some(kick) = kick else { continue };
            kick();
            kicked += 1;
            while rounds.load(Ordering::SeqCst) < kicked {
                thread::yield_now();
            }
        }
    });
    assert_eq!(rounds.into_inner(), 500);
}

#[test]
fn a_triple_fault_is_a_shutdown() {
    if !have_kvm() {
        return;
    }
    // lidt cs:[0xf020]; mov eax, cr0; or al, 1; mov cr0, eax; div cl: without a table no exception can be delivered
    let mut code = vec![0x2e, 0x0f, 0x01, 0x1e, 0x20, 0xf0, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xf6, 0xf1];
    code.resize(0x20, 0x90);
    code.extend([0; 6]);
    let bench = Bench::new(&code);
    assert_eq!(bench.vcpu().run(&*bench.log).unwrap(), Exit::Shutdown);
}

#[test]
fn reset_restores_the_power_on_state() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&guest(&[&[0xb8, 0x34, 0x12], &[0x8e, 0xd8]]));
    let mut vcpu = bench.vcpu();
    let before = vcpu.state().unwrap();
    assert_eq!((before.segments[1].base, before.rip, before.mp_state), (0xffff_0000, 0xfff0, MpState::Runnable));
    assert_eq!(before.gpr[2], 0x60fb1);
    vcpu.run(&*bench.log).unwrap();
    assert_eq!(vcpu.state().unwrap().segments[3].selector, 0x1234);
    vcpu.reset().unwrap();
    let after = vcpu.state().unwrap();
    assert_eq!(after.summary(), before.summary());
    assert_eq!((after.events, after.xcr0), (before.events, before.xcr0));
    for offset in (0..1024).step_by(4) {
        assert_eq!(after.lapic[offset..offset + 4], before.lapic[offset..offset + 4], "APIC register {offset:#x}");
    }
    bench.log.done.store(false, Ordering::SeqCst);
    assert_eq!(vcpu.run(&*bench.log).unwrap(), Exit::Kicked);
    assert!(bench.log.done.load(Ordering::SeqCst));
}

#[test]
fn registers_survive_a_round_trip() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&[0xeb, 0xfe]);
    let mut vcpu = bench.vcpu();
    let mut state = vcpu.state().unwrap();
    state.gpr[3] = 0x1122_3344;
    state.cr2 = 0x5000;
    state.dr[0] = 0x1000;
    vcpu.set_state(&state).unwrap();
    let back = vcpu.state().unwrap();
    assert_eq!((back.gpr, back.cr2, back.dr), (state.gpr, 0x5000, state.dr));
    assert_eq!(vcpu.translate(0x1234), Some(0x1234));
}

#[test]
fn an_instruction_that_kvm_cannot_emulate_is_reported_with_its_bytes() {
    if !have_kvm() {
        return;
    }
    // mov ax, 0xb000; mov ds, ax; fld dword [0]: no KVM emulates x87 loads from device memory
    let bench = Bench::new(&[0xb8, 0x00, 0xb0, 0x8e, 0xd8, 0xd9, 0x06, 0x00, 0x00]);
    match bench.vcpu().run(&*bench.log).unwrap() {
        Exit::InternalError(text) => {
            assert!(text.contains("Suberror: 1 (emulation failure)"), "{text}");
            assert!(text.contains("CPU 0: real mode, CPL 0"), "{text}");
            assert!(text.contains(": d9 06 00 00"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_processors_run_at_once() {
    if !have_kvm() {
        return;
    }
    // The bootstrap processor copies an AP program to 0x8000, sends INIT and two start-up IPIs through the local APIC
    // (reached by 32-bit addresses from "unreal" mode, which KVM's 64 KiB limits refuse: so by a 32-bit data segment)
    // and waits for the AP's mark.
    let bench = Bench::new(&smp_guest());
    thread::scope(|scope| {
        let stop = Arc::new(Mutex::new(None));
        let ap_stop = Arc::clone(&stop);
        let (bench, log) = (&bench, &bench.log);
        let ap = scope.spawn(move || {
            let mut vcpu = bench.kvm.create_vcpu(1).unwrap();
            assert_eq!(vcpu.state().unwrap().mp_state, MpState::Uninitialized);
            *ap_stop.lock().unwrap() = Some(vcpu.kicker());
            vcpu.run(&**log).unwrap()
        });
        while stop.lock().unwrap().is_none() {
            thread::yield_now();
        }
        bench.run();
        stop.lock().unwrap().take().unwrap()();
        assert_eq!(ap.join().unwrap(), Exit::Kicked);
    });
    assert_eq!(bench.ram.byte(0x600), 0x42);
    assert!(bench.seen().contains(&Access::Out(0x97, Width::B1, 0x42)));
}

fn smp_guest() -> Vec<u8> {
    let mut code = Vec::new();
    // lgdt cs:[0xf0c0]; mov eax, cr0; or al, 1; mov cr0, eax; mov bx, 8; mov ds, bx; mov es, bx; and al, 0xfe; mov cr0, eax
    code.extend([0x2e, 0x66, 0x0f, 0x01, 0x16, 0xc0, 0xf0]);
    code.extend([0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]);
    code.extend([0xbb, 0x08, 0x00, 0x8e, 0xdb, 0x24, 0xfe, 0x0f, 0x22, 0xc0]);
    // The AP's program, byte by byte: mov al, 0x42; mov cs:[0x600 - 0x8000 ...] via ds = 0; out 0x97, al; hlt; jmp
    let ap = [0x31, 0xdb, 0x8e, 0xdb, 0xb0, 0x42, 0xa2, 0x00, 0x06, 0xe6, 0x97, 0xf4, 0xeb, 0xfd];
    for (offset, byte) in (0x8000u16..).zip(ap) {
        let [low, high] = offset.to_le_bytes();
        code.extend([0xc6, 0x06, low, high, byte]); // mov byte [offset], byte
    }
    // mov dword [0xfee000f0], 0x1ff: software enable
    code.extend([0x67, 0x66, 0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00]);
    // INIT, then start-up at page 8, to all others
    for command in [0x000c_4500u32, 0x000c_4608, 0x000c_4608] {
        code.extend([0x67, 0x66, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe]);
        code.extend(command.to_le_bytes());
    }
    // wait: cmp byte [0x600], 0x42; jne wait
    code.extend([0x80, 0x3e, 0x00, 0x06, 0x42, 0x75, 0xf9]);
    // delay: the AP's port write follows its mark; mov cx, 0xffff; loop $
    code.extend([0xb9, 0xff, 0xff, 0xe2, 0xfe]);
    code.extend(DONE);
    code.push(0xf4);
    assert!(code.len() <= 0xc0);
    code.resize(0xc0, 0x90);
    code.extend([0x0f, 0x00, 0xd0, 0xf0, 0xff, 0xff]); // limit, base 0xfffff0d0
    code.resize(0xd0, 0);
    code.extend([0; 8]);
    code.extend([0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]); // flat data
    code
}

/// Counts down 200 from in memory at B0000h, tells a posted port, then an ordinary one, twice.
fn posting_guest() -> Vec<u8> {
    let count_down: &[u8] = &[
        0xb9, 0xc8, 0x00, // mov cx, 200
        0x88, 0x0e, 0x00, 0x00, // again: mov [0], cl
        0xe2, 0xfa, // loop again
        0xe6, 0x70, // out 0x70, al
        0xe7, 0x98, // out 0x98, ax
    ];
    guest(&[&[0xb8, 0x00, 0xb0, 0x8e, 0xd8], count_down, count_down]) // mov ax, 0xb000; mov ds, ax
}

#[test]
fn posted_writes_arrive_in_order_and_before_what_follows_them() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&posting_guest());
    let mut board = Board::new();
    let recorder = board.add("recorder", Recorder::default());
    board.map_mmio(recorder.id(), Recorder::MEMORY, Decode::UP_TO_8, 0xb_0000, 0x1000, 0);
    for (region, port) in [(Recorder::POSTED_PORT, 0x70), (Recorder::PORT, 0x98), (Recorder::DONE, 0xf4)] {
        board.map_ports(recorder.id(), region, Decode::UP_TO_4, port, 1);
    }
    board.set_memory_listener(Box::new(|_| ()));
    let ranges = [PostedRange::Memory { gpa: 0xb_0000, len: 0x1000 }, PostedRange::Ports { base: 0x70, len: 1 }];
    let queue = bench.kvm.post_writes(&ranges).unwrap().unwrap();
    let cell = BoardCell::new(board);
    cell.set_posted_writes(Arc::clone(&queue));
    let mut vcpu = bench.vcpu();
    let kick = vcpu.kicker();
    cell.lock().with(&recorder, |recorder| recorder.kick = Some(kick)).unwrap();
    assert_eq!(vcpu.run(&*cell).unwrap(), Exit::Kicked);
    let seen = cell.lock().with(&recorder, |recorder| std::mem::take(&mut recorder.seen)).unwrap();
    let round: Vec<(Region, u64)> = (1..=200)
        .rev()
        .map(|count| (Recorder::MEMORY, count))
        .chain([(Recorder::POSTED_PORT, 0), (Recorder::PORT, 0)])
        .collect();
    let expected = [round.clone(), round, vec![(Recorder::DONE, 0)]].concat();
    assert_eq!(seen, expected);
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn posted_writes_cause_no_exits_but_the_first() {
    if !have_kvm() {
        return;
    }
    let bench = Bench::new(&guest(&[&[0xe6, 0x70, 0xe6, 0x70, 0xe6, 0x70]])); // out 0x70, al, three times
    let queue = bench.kvm.post_writes(&[PostedRange::Ports { base: 0x70, len: 1 }]).unwrap().unwrap();
    bench.run();
    assert_eq!((bench.seen().len(), queue.waiting()), (1, 2));
}
