use std::sync::atomic::AtomicBool;

use super::*;
use crate::bus::Width;
use crate::hw::bench::{Random, TimeBench};

mod timers;

/// Register offsets.
mod at {
    pub const ID: u16 = 0x20;
    pub const VERSION: u16 = 0x30;
    pub const TPR: u16 = 0x80;
    pub const PPR: u16 = 0xa0;
    pub const EOI: u16 = 0xb0;
    pub const LDR: u16 = 0xd0;
    pub const DFR: u16 = 0xe0;
    pub const SVR: u16 = 0xf0;
    pub const ISR: u16 = 0x100;
    pub const TMR: u16 = 0x180;
    pub const IRR: u16 = 0x200;
    pub const ESR: u16 = 0x280;
    pub const ICR: u16 = 0x300;
    pub const ICR_HIGH: u16 = 0x310;
    pub const LVT_TIMER: u16 = 0x320;
    pub const LVT_LINT0: u16 = 0x350;
    pub const LVT_LINT1: u16 = 0x360;
    pub const LVT_ERROR: u16 = 0x370;
    pub const INITIAL: u16 = 0x380;
    pub const CURRENT: u16 = 0x390;
    pub const DIVIDE: u16 = 0x3e0;
}

/// A processor that notes what its pins were told.
#[derive(Default)]
struct Cpu {
    waiting: AtomicBool,
    calls: Mutex<Vec<String>>,
}

impl Cpu {
    fn note(&self, call: &str) {
        self.calls.lock().unwrap().push(call.to_owned());
    }
}

impl CpuPins for Cpu {
    fn set_interrupt(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    fn nmi(&self) {
        self.note("nmi");
    }

    fn smi(&self) {
        self.note("smi");
    }

    fn init(&self) {
        self.note("init");
    }

    fn start_up(&self, vector: u8) {
        self.note(&format!("start-up {vector:02x}"));
    }
}

#[derive(Default)]
struct Chips {
    /// Vectors that the I/O APIC heard the end of.
    ended: Mutex<Vec<u8>>,
    /// What the 8259s have for the next acknowledge cycle.
    external: Mutex<Option<u8>>,
}

struct Bench {
    time: TimeBench,
    apics: Arc<Apics>,
    cpus: Vec<Arc<Cpu>>,
    local: Vec<Arc<dyn LocalApic>>,
    chips: Arc<Chips>,
}

impl Bench {
    fn with_ids(ids: &[u32]) -> Self {
        let time = TimeBench::new();
        let cpus: Vec<Arc<Cpu>> = ids.iter().map(|_| Arc::default()).collect();
        let processors = ids
            .iter()
            .zip(&cpus)
            .map(|(id, cpu)| {
                let options = ApicOptions { id: *id, present: true, x2apic: true, physical_bits: 40 };
                (options, Arc::clone(cpu) as Arc<dyn CpuPins>)
            })
            .collect();
        let apics = Apics::new(&time.handle(), processors);
        let chips = Arc::new(Chips::default());
        let (io, pic) = (Arc::clone(&chips), Arc::clone(&chips));
        apics.connect(
            Box::new(move |vector| io.ended.lock().unwrap().push(vector)),
            Box::new(move || pic.external.lock().unwrap().take()),
        );
        let local = (0..ids.len()).map(|index| apics.local(index)).collect();
        Self { time, apics, cpus, local, chips }
    }

    /// APICs with ids from 0, as a reset leaves them.
    fn cold(count: u32) -> Self {
        Self::with_ids(&(0..count).collect::<Vec<_>>())
    }

    /// The same, enabled by software, with logical ids 1, 2, 4...
    fn ready(count: u32) -> Self {
        let b = Self::cold(count);
        for (index, apic) in b.local.iter().enumerate() {
            apic.write(at::SVR, 0x1ff);
            apic.write(at::LDR, 1 << (24 + index % 8));
        }
        b
    }

    fn read(&self, offset: u16) -> u32 {
        self.local[0].read(offset)
    }

    fn write(&self, offset: u16, value: u32) {
        self.local[0].write(offset, value);
    }

    fn command(&self, destination: u32, low: u32) {
        self.write(at::ICR_HIGH, destination << 24);
        self.write(at::ICR, low);
    }

    fn waiting(&self, cpu: usize) -> bool {
        self.cpus[cpu].waiting.load(Ordering::Relaxed)
    }

    /// Which processors have an interrupt waiting.
    fn receivers(&self) -> Vec<usize> {
        (0..self.cpus.len()).filter(|cpu| self.waiting(*cpu)).collect()
    }

    fn calls(&self, cpu: usize) -> Vec<String> {
        std::mem::take(&mut *self.cpus[cpu].calls.lock().unwrap())
    }

    /// A message-signalled interrupt with a physical destination.
    fn msi(&self, id: u64, data: u32) {
        self.apics.send(0xfee0_0000 | id << 12, data);
    }

    fn ended(&self) -> Vec<u8> {
        std::mem::take(&mut *self.chips.ended.lock().unwrap())
    }

    fn pass(&self, ns: u64) {
        self.time.pass(ns);
    }

    fn enter_x2apic(&self, cpu: usize) {
        let apic = &self.local[cpu];
        assert!(apic.set_base(apic.base() | base::EXTD));
        assert!(apic.write_msr(0x80f, 0x1ff));
    }
}

#[test]
fn power_on_state() {
    let b = Bench::cold(2);
    assert_eq!((b.local[0].base(), b.local[1].base()), (0xfee0_0900, 0xfee0_0800));
    let registers = [at::ID, at::VERSION, at::TPR, at::LDR, at::DFR, at::SVR, at::ESR, at::ICR, at::DIVIDE];
    assert_eq!(
        registers.map(|offset| b.local[1].read(offset)),
        [0x0100_0000, 0x0105_0014, 0, 0, 0xffff_ffff, 0xff, 0, 0, 0]
    );
    let local = |apic: &Arc<dyn LocalApic>| (0..6).map(|n| apic.read(at::LVT_TIMER + 16 * n)).collect::<Vec<_>>();
    assert_eq!([local(&b.local[0]), local(&b.local[1])], [[0x1_0000; 6]; 2]);
}

#[test]
fn an_interrupt_is_requested_then_in_service_then_gone() {
    let b = Bench::ready(1);
    b.msi(0, 0x41);
    assert!(b.waiting(0));
    assert_eq!((b.read(at::IRR + 0x20), b.read(at::ISR + 0x20)), (2, 0));
    assert_eq!(b.local[0].acknowledge(), Some(0x41));
    assert!(!b.waiting(0));
    assert_eq!((b.read(at::IRR + 0x20), b.read(at::ISR + 0x20), b.read(at::PPR)), (0, 2, 0x40));
    b.write(at::EOI, 0);
    assert_eq!((b.read(at::ISR + 0x20), b.read(at::PPR)), (0, 0));
    assert_eq!(b.local[0].acknowledge(), None);
    assert_eq!(b.ended(), [0; 0], "an edge is not the I/O APIC's business");
}

#[test]
fn priorities_decide() {
    let b = Bench::ready(1);
    b.msi(0, 0x41);
    b.msi(0, 0x93);
    assert_eq!(b.local[0].acknowledge(), Some(0x93));
    assert!(!b.waiting(0));
    b.msi(0, 0x9f);
    assert!(!b.waiting(0), "the same class waits");
    b.msi(0, 0xa0);
    assert_eq!(b.local[0].acknowledge(), Some(0xa0));
    b.write(at::EOI, 0);
    b.write(at::EOI, 0);
    assert_eq!(b.local[0].acknowledge(), Some(0x9f));
    b.write(at::EOI, 0);
    assert_eq!(b.local[0].acknowledge(), Some(0x41));
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    let b = Bench::ready(1);
    b.local[0].set_task_priority(4);
    assert_eq!((b.read(at::TPR), b.read(at::PPR), b.local[0].task_priority()), (0x40, 0x40, 4));
    b.msi(0, 0x4f);
    assert!(!b.waiting(0));
    assert_eq!(b.local[0].acknowledge(), None);
    b.write(at::TPR, 0x3f);
    assert!(b.waiting(0));
    b.write(at::TPR, 0xff);
    assert!(!b.waiting(0));
    b.local[0].set_task_priority(0xf0);
    assert!(b.waiting(0), "CR8 has four bits");
}

#[test]
fn a_level_ends_at_the_io_apic_unless_suppressed() {
    let b = Bench::ready(1);
    b.msi(0, 0xc052);
    assert_eq!(b.read(at::TMR + 0x20), 1 << 18);
    b.local[0].acknowledge();
    b.write(at::EOI, 0);
    assert_eq!(b.ended(), [0x52]);
    b.write(at::SVR, 0x11ff);
    b.msi(0, 0xc052);
    b.local[0].acknowledge();
    b.write(at::EOI, 0);
    assert_eq!(b.ended(), [0; 0]);
    b.msi(0, 0x8052);
    assert!(!b.waiting(0), "a level message that is not asserted");
}

#[test]
fn a_disabled_apic_takes_no_interrupts_but_nmi_and_init() {
    let b = Bench::cold(2);
    b.msi(1, 0x41);
    assert!(!b.waiting(1));
    b.msi(1, 0x400);
    b.msi(1, 0x500);
    b.msi(1, 0x200);
    assert_eq!(b.calls(1), ["nmi", "init", "smi"]);
    assert!(b.local[1].set_base(0xfee0_0000));
    b.msi(1, 0x400);
    assert_eq!(b.calls(1), [""; 0]);
}

#[test]
fn vectors_below_16_are_errors() {
    let b = Bench::ready(2);
    b.local[1].write(at::LVT_ERROR, 0xfe);
    b.msi(1, 0x0f);
    assert_eq!(b.local[1].acknowledge(), Some(0xfe));
    b.local[1].write(at::EOI, 0);
    assert_eq!(b.local[1].read(at::ESR), 0);
    b.local[1].write(at::ESR, 0);
    assert_eq!(b.local[1].read(at::ESR), 0x40);
    b.local[1].write(at::ESR, 0);
    assert_eq!(b.local[1].read(at::ESR), 0);
    b.command(1, 0x05);
    b.write(at::ESR, 0);
    assert_eq!(b.read(at::ESR), 0x20);
    assert!(!b.waiting(1));
    b.read(0x40);
    b.write(0x3f0, 0);
    b.write(at::ESR, 0);
    assert_eq!(b.read(at::ESR), 0x80);
}

#[test]
fn an_illegal_error_vector_does_not_report_itself() {
    let b = Bench::ready(1);
    b.write(at::LVT_ERROR, 0x03);
    b.read(0x40);
    b.write(at::ESR, 0);
    assert_eq!(b.read(at::ESR), 0x80);
}

#[test]
fn messages_between_processors_go_where_they_are_sent() {
    let b = Bench::ready(4);
    b.command(2, 0x41);
    assert_eq!(b.receivers(), [2]);
    b.local[2].acknowledge();
    b.command(0x0a, 0x842); // logical, flat: 2 and 8
    assert_eq!(b.receivers(), [1, 3]);
    b.local[1].acknowledge();
    b.local[3].acknowledge();
    b.command(0xff, 0x53);
    assert_eq!(b.receivers(), [0, 1, 2, 3]);
    assert_eq!(b.read(at::ICR), 0x53);
    assert_eq!(b.read(at::ICR_HIGH), 0xff00_0000);
}

#[test]
fn shorthands_need_no_destination() {
    let b = Bench::ready(3);
    b.command(2, 0x4_0041);
    assert_eq!(b.receivers(), [0]);
    b.local[0].acknowledge();
    b.write(at::EOI, 0);
    b.command(0, 0xc_0041);
    assert_eq!(b.receivers(), [1, 2]);
    b.local[1].acknowledge();
    b.local[2].acknowledge();
    b.command(0, 0x8_0051);
    assert_eq!(b.receivers(), [0, 1, 2]);
}

#[test]
fn clusters_have_four_processors() {
    let b = Bench::ready(3);
    for (apic, ldr) in b.local.iter().zip([0x1100_0000, 0x1200_0000, 0x2100_0000]) {
        apic.write(at::DFR, 0);
        apic.write(at::LDR, ldr);
    }
    assert_eq!(b.read(at::DFR), 0x0fff_ffff);
    b.command(0x13, 0x841);
    assert_eq!(b.receivers(), [0, 1]);
    b.local[0].acknowledge();
    b.local[1].acknowledge();
    b.command(0xf1, 0x842);
    assert_eq!(b.receivers(), [2], "the first one's 41h is of the same class");
    assert_eq!(b.read(at::IRR + 0x20), 1 << 2);
}

#[test]
fn lowest_priority_picks_one_in_turn() {
    let b = Bench::ready(3);
    b.local[1].set_task_priority(2);
    let next = |b: &Bench| {
        b.command(0xff, 0x941);
        let found = b.receivers();
        for cpu in &found {
            b.local[*cpu].acknowledge();
            b.local[*cpu].write(at::EOI, 0);
        }
        found
    };
    assert_eq!([next(&b), next(&b), next(&b)], [[0], [2], [0]]);
    b.local[0].write(at::SVR, 0xff);
    assert_eq!([next(&b), next(&b)], [[2], [2]]);
    b.local[1].write(at::SVR, 0xff);
    b.local[2].write(at::SVR, 0xff);
    assert_eq!(next(&b), [0; 0]);
}

#[test]
fn init_and_start_up_wake_a_processor() {
    let b = Bench::cold(2);
    b.command(1, 0x4500);
    b.command(1, 0x4608);
    assert_eq!(b.calls(1), ["init", "start-up 08"]);
    b.command(1, 0x8500);
    assert_eq!(b.calls(1), [""; 0], "level de-assert");
    b.command(0, 0xc_4400);
    assert_eq!((b.calls(0), b.calls(1)), (vec![], vec!["nmi".to_owned()]));
}

#[test]
fn ids_need_not_be_indices() {
    let b = Bench::with_ids(&[0, 4, 1, 300]);
    b.local.iter().for_each(|apic| apic.write(at::SVR, 0x1ff));
    b.command(1, 0x41);
    assert_eq!(b.receivers(), [2]);
    b.command(4, 0x41);
    assert_eq!(b.receivers(), [1, 2]);
    b.enter_x2apic(0);
    b.enter_x2apic(3);
    assert!(b.local[0].write_msr(0x830, 300 << 32 | 0x41));
    assert_eq!(b.receivers(), [1, 2, 3]);
}

#[test]
fn external_interrupts_come_through_lint0() {
    let b = Bench::ready(2);
    *b.chips.external.lock().unwrap() = Some(0x08);
    b.apics.set_intr(true);
    assert_eq!(b.receivers(), [0; 0], "power-on masks LINT0");
    b.write(at::LVT_LINT0, 0x700);
    assert_eq!(b.receivers(), [0]);
    assert_eq!(b.local[0].acknowledge(), Some(0x08));
    assert_eq!(b.local[0].acknowledge(), None, "the 8259s had nothing more");
    b.write(at::LVT_LINT0, 0x1_0700);
    assert!(!b.waiting(0));
    b.write(at::LVT_LINT0, 0x700);
    assert!(b.waiting(0));
    b.apics.set_intr(false);
    assert!(!b.waiting(0));
}

#[test]
fn without_an_apic_lint0_is_the_interrupt_pin() {
    let b = Bench::cold(2);
    assert!(b.local[1].set_base(0xfee0_0000));
    b.apics.set_intr(true);
    assert!(b.waiting(1));
    *b.chips.external.lock().unwrap() = Some(0x0b);
    assert_eq!(b.local[1].acknowledge(), Some(0x0b));
}

#[test]
fn an_extint_message_is_an_acknowledge_cycle() {
    let b = Bench::ready(2);
    *b.chips.external.lock().unwrap() = Some(0x72);
    b.msi(1, 0x700);
    assert!(b.waiting(1));
    assert_eq!(b.local[1].acknowledge(), Some(0x72));
    assert!(!b.waiting(1));
}

#[test]
fn lint0_can_be_a_fixed_vector() {
    let b = Bench::ready(1);
    b.write(at::LVT_LINT0, 0x31);
    b.apics.set_intr(true);
    assert_eq!(b.local[0].acknowledge(), Some(0x31));
    b.write(at::EOI, 0);
    assert!(!b.waiting(0), "an edge");
    b.write(at::LVT_LINT0, 0x8031);
    assert_eq!(b.read(at::LVT_LINT0), 0xc031, "a level, with remote IRR");
    assert_eq!(b.local[0].acknowledge(), Some(0x31));
    b.write(at::EOI, 0);
    assert!(b.waiting(0), "the level is still there");
    b.apics.set_intr(false);
    b.local[0].acknowledge();
    b.write(at::EOI, 0);
    assert_eq!((b.waiting(0), b.read(at::LVT_LINT0)), (false, 0x8031));
}

#[test]
fn the_boards_nmi_goes_through_lint1() {
    let b = Bench::ready(2);
    b.apics.pulse_nmi();
    assert_eq!((b.calls(0).len(), b.calls(1).len()), (0, 0));
    b.local[1].write(at::LVT_LINT1, 0x400);
    b.apics.pulse_nmi();
    assert_eq!((b.calls(0).len(), b.calls(1)), (0, vec!["nmi".to_owned()]));
    assert!(b.local[0].set_base(0xfee0_0100));
    b.apics.pulse_nmi();
    assert_eq!(b.calls(0), ["nmi"]);
}

#[test]
fn disabling_by_software_masks_the_local_vectors() {
    let b = Bench::ready(1);
    b.write(at::LVT_TIMER, 0x31);
    b.msi(0, 0x41);
    b.write(at::SVR, 0xff);
    assert_eq!(b.read(at::LVT_TIMER), 0x1_0031);
    assert!(!b.waiting(0));
    b.write(at::LVT_TIMER, 0x31);
    assert_eq!(b.read(at::LVT_TIMER), 0x1_0031, "and keeps them masked");
    b.write(at::SVR, 0x1ff);
    assert!(b.waiting(0), "what was requested stays");
}

#[test]
fn only_the_defined_bits_of_local_vectors_are_kept() {
    let b = Bench::ready(1);
    let kept = (0..6).map(|n| {
        b.write(at::LVT_TIMER + 16 * n, u32::MAX);
        b.read(at::LVT_TIMER + 16 * n)
    });
    assert_eq!(kept.collect::<Vec<_>>(), [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff]);
}

#[test]
fn apic_base_changes_modes_in_order() {
    let b = Bench::cold(1);
    let apic = &b.local[0];
    assert!(!apic.set_base(0xfee0_0400), "x2APIC without enable");
    assert!(!apic.set_base(0xfee0_0901), "reserved");
    assert!(!apic.set_base(1 << 40 | 0x900), "beyond the physical addresses");
    assert!(apic.set_base(0xfee0_0d00));
    assert!(!apic.set_base(0xfee0_0900), "from x2APIC to xAPIC");
    assert!(apic.set_base(0xfee0_0100));
    assert!(!apic.set_base(0xfee0_0d00), "from disabled to x2APIC");
    assert!(apic.set_base(0xffff_f900));
    assert_eq!(apic.base(), 0xffff_f900);
}

#[test]
fn a_processor_without_x2apic_cannot_enter_it() {
    let time = TimeBench::new();
    let options = ApicOptions { id: 0, present: true, x2apic: false, physical_bits: 36 };
    let apics = Apics::new(&time.handle(), vec![(options, Arc::new(Cpu::default()))]);
    assert!(!apics.local(0).set_base(0xfee0_0d00));
}

#[test]
fn a_processor_without_an_apic_has_pins() {
    let time = TimeBench::new();
    let cpu = Arc::new(Cpu::default());
    let options = ApicOptions { id: 0, present: false, x2apic: false, physical_bits: 36 };
    let apics = Apics::new(&time.handle(), vec![(options, Arc::clone(&cpu) as Arc<dyn CpuPins>)]);
    assert!(!apics.local(0).set_base(0xfee0_0900));
    apics.set_intr(true);
    apics.pulse_nmi();
    assert!(cpu.waiting.load(Ordering::Relaxed));
    assert_eq!(*cpu.calls.lock().unwrap(), ["nmi"]);
}

#[test]
fn x2apic_registers_are_msrs() {
    let b = Bench::with_ids(&[0, 0x123]);
    let apic = &b.local[1];
    assert_eq!(apic.read_msr(0x802), None, "not in xAPIC mode");
    assert!(!apic.write_msr(0x808, 0));
    b.enter_x2apic(1);
    assert_eq!(apic.read_msr(0x802), Some(0x123));
    assert_eq!(apic.read_msr(0x80d), Some(0x12_0008));
    assert_eq!(apic.read_msr(0x803), Some(0x0105_0014));
    assert_eq!([0x80b, 0x80e, 0x831, 0x83f, 0x809, 0x800, 0x8ff, 0x900].map(|msr| apic.read_msr(msr)), [None; 8]);
    assert_eq!([0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810, 0x831, 0x839].map(|msr| apic.write_msr(msr, 0)), [false; 8]);
    assert_eq!(
        [(0x808, 0x100), (0x80b, 1), (0x828, 1), (0x83f, 0x100), (0x83e, 4)]
            .map(|(msr, value)| { apic.write_msr(msr, value) }),
        [false; 5]
    );
    assert!(apic.write_msr(0x808, 0x20));
    assert_eq!(apic.read_msr(0x808), Some(0x20));
    assert_eq!(apic.registers()[0x20..0x24], 0x123u32.to_le_bytes());
}

#[test]
fn x2apic_commands_and_self_interrupts() {
    let b = Bench::with_ids(&[0, 1, 17]);
    (0..3).for_each(|cpu| b.enter_x2apic(cpu));
    let apic = &b.local[0];
    assert!(apic.write_msr(0x83f, 0x41));
    assert_eq!(b.receivers(), [0]);
    apic.acknowledge();
    assert!(apic.write_msr(0x80b, 0));
    assert!(apic.write_msr(0x830, 0x1_0002 << 32 | 0x842)); // logical: cluster 1, bit 1
    assert_eq!(b.receivers(), [2]);
    assert_eq!(apic.read_msr(0x830), Some(0x1_0002 << 32 | 0x842));
    assert!(apic.write_msr(0x830, 0xffff_ffff << 32 | 0x43));
    assert_eq!(b.receivers(), [0, 1, 2]);
    assert!(!apic.write_msr(0x830, 1 << 20));
}

#[test]
fn init_keeps_the_base_and_the_mode() {
    let b = Bench::with_ids(&[0, 5]);
    b.enter_x2apic(1);
    let apic = &b.local[1];
    assert!(apic.write_msr(0x808, 0x50));
    b.msi(5, 0x41);
    apic.init();
    assert_eq!(apic.base(), 0xfee0_0c00);
    assert_eq!([0x802, 0x808, 0x80d, 0x80f].map(|msr| apic.read_msr(msr)), [5, 0, 1 << 5, 0xff].map(Some));
    assert!(!b.waiting(1));
}

#[test]
fn the_msi_window_takes_messages_and_brings_the_reset() {
    let b = Bench::ready(2);
    let mut window = MsiWindow::new(Arc::clone(&b.apics));
    let at = At { region: MSI_WINDOW, offset: 0x1000, width: Width::B4 };
    window.write(at, 0x41);
    assert_eq!((b.receivers(), window.read(at)), (vec![1], 0));
    window.reset(Reset::System);
    assert_eq!((b.receivers(), b.local[1].read(at::SVR)), (vec![], 0xff));
}

#[test]
fn the_page_has_registers_every_16_bytes() {
    let b = Bench::ready(2);
    let apic = &b.local[1];
    assert_eq!((apic.read(0x21), apic.read(0x23), apic.read(0x24), apic.read(0x2c)), (0x1_0000, 1, 0, 0));
    apic.write(at::TPR + 4, 0x40);
    assert_eq!(apic.read(at::TPR), 0);
    let page = apic.registers();
    assert_eq!((page.len(), &page[0x20..0x24], &page[0xf0..0xf4]), (1024, &[0, 0, 0, 1][..], &[0xff, 1, 0, 0][..]));
}

#[test]
fn rubbish_never_panics_and_the_pin_tells_the_truth() {
    let b = Bench::with_ids(&[0, 1, 7, 300]);
    let mut random = Random(0xa91c);
    for _ in 0..60_000 {
        let word = random.next();
        let [cpu, what, register, low, ..] = word.to_le_bytes();
        let value = u32::try_from(word >> 32).unwrap();
        let apic = &b.local[usize::from(cpu) % 4];
        match what % 16 {
            0..=4 => apic.write(u16::from(register) << 4, value),
            5 => apic.write(u16::from(register) << 4 | u16::from(low & 0xf), value),
            6 => {
                apic.read(u16::from(register) << 4 | u16::from(low & 0xf));
            }
            7 => {
                apic.write_msr(0x800 + u32::from(register), random.next() >> (low % 64));
            }
            8 => {
                apic.read_msr(0x800 + u32::from(register));
            }
            9 => {
                apic.set_base(u64::from(value & 0xf00) | 0xfee0_0000);
            }
            10 => {
                apic.write_msr(0x6e0, random.next() >> (low % 64));
            }
            11 => b.pass(u64::from(value) >> (low % 32)),
            12 => b.apics.set_intr(low & 1 != 0),
            13 => b.apics.send(0xfee0_0000 | u64::from(value & 0xf_fffc), value >> 8),
            14 if low < 16 => apic.init(),
            _ => {
                let waits = b.waiting(usize::from(cpu) % 4);
                *b.chips.external.lock().unwrap() = Some(0x20);
                assert_eq!(apic.acknowledge().is_some(), waits);
            }
        }
    }
}
