//! The registers of one local APIC and what accesses and messages do to them. Nothing here calls anybody: what an
//! access causes outside comes back as [`Effects`].

use super::spec::{Addressing, Delivery, Destination, Lvt, Message, Reg, VERSION, Vectors, base, esr, icr, lvt, svr};
use super::timer::TimerRegs;

/// A request to the processor other than an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CpuCall {
    Nmi,
    Smi,
    Init,
    StartUp(u8),
}

/// What is to be done once the lock is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Effects {
    /// A message to send.
    pub(super) message: Option<Message>,
    /// A level-triggered vector whose end the I/O APICs hear of.
    pub(super) eoi: Option<u8>,
    /// A request to the processor.
    pub(super) call: Option<CpuCall>,
    /// Set the timer anew.
    pub(super) timer: bool,
}

/// What an APIC is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// Position among the APICs.
    pub(super) index: usize,
    /// Its id, all 32 bits.
    pub(super) id: u32,
    /// The processor has an APIC at all; without, LINT0 is its INTR pin for ever.
    pub(super) present: bool,
    /// It has x2APIC mode.
    pub(super) x2apic: bool,
    /// Bits of IA32_APIC_BASE that must be zero.
    pub(super) reserved_base: u64,
}

impl Identity {
    fn is_bootstrap(&self) -> bool {
        self.index == 0
    }

    /// The logical id in x2APIC mode: cluster and bit (11.12.10.2).
    fn x2apic_ldr(&self) -> u32 {
        self.id >> 4 << 16 | 1 << (self.id & 0xf)
    }
}

/// All state of a local APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) identity: Identity,
    pub(super) regs: Regs,
    // Wires.
    /// INTR of the 8259s, which LINT0 is connected to.
    intr: bool,
    /// The level that the processor was told last.
    pub(super) driven: bool,
    /// What IA32_TSC_DEADLINE is compared with is machine time plus this.
    pub(super) tsc_offset: u64,
}

/// What INIT and power-on set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Regs {
    pub(super) base: u64,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    /// The error status register as read.
    esr: u32,
    /// Errors since it was last written.
    errors: u32,
    icr: u64,
    lvt: [u32; Lvt::COUNT],
    pub(super) timer: TimerRegs,
    /// An ExtINT message waits for its acknowledge cycle.
    extint: bool,
}

impl Regs {
    /// After power-on (11.4.7.1). Firmware opens LINT0 for the 8259s.
    fn cold(identity: &Identity) -> Self {
        let bsp = if identity.is_bootstrap() { base::BSP } else { 0 };
        let enable = if identity.present { base::ENABLE } else { 0 };
        Self {
            base: base::DEFAULT_ADDRESS | enable | bsp,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: Vectors::NONE,
            tmr: Vectors::NONE,
            irr: Vectors::NONE,
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [lvt::MASKED; Lvt::COUNT],
            timer: TimerRegs::COLD,
            extint: false,
        }
    }
}

/// Why an MSR access is a general protection fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fault;

impl State {
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, regs: Regs::cold(&identity), intr: false, driven: false, tsc_offset: 0 }
    }

    /// Power-on. Wires stay as they are.
    pub(super) fn reset(&mut self) {
        let Self { identity, regs, intr: _, driven: _, tsc_offset: _ } = self;
        *regs = Regs::cold(identity);
    }

    /// INIT (11.4.7.3): as power-on, but for IA32_APIC_BASE.
    pub(super) fn init(&mut self) {
        let kept = self.regs.base;
        self.reset();
        self.regs.base = kept;
        if self.is_x2apic() {
            self.regs.ldr = self.identity.x2apic_ldr();
        }
    }

    pub(super) fn addressing(&self) -> Addressing {
        Addressing::new(self.regs.base, self.regs.ldr, self.regs.dfr, self.regs.svr)
    }

    fn is_enabled(&self) -> bool {
        self.regs.base & base::ENABLE != 0
    }

    pub(super) fn is_x2apic(&self) -> bool {
        self.regs.base & base::EXTD != 0
    }

    fn is_software_enabled(&self) -> bool {
        self.regs.svr & svr::ENABLE != 0
    }

    fn lvt(&self, entry: Lvt) -> u32 {
        self.regs.lvt[entry as usize]
    }

    pub(super) fn timer_mode(&self) -> u32 {
        self.lvt(Lvt::Timer) & lvt::TIMER_MODE
    }

    // -- priorities (11.8.3) -------------------------------------------------------------------------------------

    /// The processor priority register.
    pub(super) fn processor_priority(&self) -> u8 {
        let in_service = self.regs.isr.highest().unwrap_or(0) & 0xf0;
        if self.regs.tpr & 0xf0 >= in_service { self.regs.tpr } else { in_service }
    }

    /// The vector that the processor would take now.
    fn deliverable(&self) -> Option<u8> {
        let vector = self.regs.irr.highest()?;
        (vector & 0xf0 > self.processor_priority() & 0xf0).then_some(vector)
    }

    /// Whether an external interrupt waits for its acknowledge cycle. Without a local APIC, LINT0 is the processor's
    /// INTR pin.
    pub(super) fn external_waits(&self) -> bool {
        let lint0 = self.lvt(Lvt::Lint0);
        let open = lint0 & lvt::MASKED == 0 && Delivery::decode(lint0) == Some(Delivery::ExtInt);
        self.regs.extint || self.intr && (open || !self.is_enabled())
    }

    /// The level of the processor's interrupt input.
    pub(super) fn wants_interrupt(&self) -> bool {
        self.external_waits() || self.is_enabled() && self.is_software_enabled() && self.deliverable().is_some()
    }

    /// The processor takes the highest vector.
    pub(super) fn take_vector(&mut self) -> Option<u8> {
        if !self.is_enabled() || !self.is_software_enabled() {
            return None;
        }
        let vector = self.deliverable()?;
        self.regs.irr.assign(vector, false);
        self.regs.isr.assign(vector, true);
        Some(vector)
    }

    /// An acknowledge cycle to the 8259s begins.
    pub(super) fn take_external(&mut self) {
        self.regs.extint = false;
    }

    fn end_of_interrupt(&mut self, effects: &mut Effects) {
        let Some(vector) = self.regs.isr.highest() else { return };
        self.regs.isr.assign(vector, false);
        if !self.regs.tmr.has(vector) {
            return;
        }
        let lint0 = &mut self.regs.lvt[Lvt::Lint0 as usize];
        if *lint0 & lvt::REMOTE_IRR != 0 && lint0.to_le_bytes()[0] == vector {
            *lint0 &= !lvt::REMOTE_IRR;
            self.update_lint0(false, effects);
        }
        if self.regs.svr & svr::SUPPRESS_EOI_BROADCAST == 0 {
            effects.eoi = Some(vector);
        }
    }

    // -- what arrives --------------------------------------------------------------------------------------------

    /// A message that is for this APIC.
    pub(super) fn accept(&mut self, delivery: Delivery, vector: u8, level: bool, effects: &mut Effects) {
        match delivery {
            Delivery::Fixed | Delivery::LowestPriority => self.request(vector, level),
            Delivery::Smi => effects.call = Some(CpuCall::Smi),
            Delivery::Nmi => effects.call = Some(CpuCall::Nmi),
            Delivery::Init => effects.call = Some(CpuCall::Init),
            Delivery::StartUp => effects.call = Some(CpuCall::StartUp(vector)),
            Delivery::ExtInt => self.regs.extint = true,
        }
    }

    fn request(&mut self, vector: u8, level: bool) {
        if !self.is_enabled() || !self.is_software_enabled() {
            return;
        }
        if vector < 16 {
            self.error(esr::RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.regs.irr.assign(vector, true);
        self.regs.tmr.assign(vector, level);
    }

    /// An error (11.5.3): a new one raises the error vector.
    fn error(&mut self, bit: u32) {
        if self.regs.errors & bit != 0 {
            return;
        }
        self.regs.errors |= bit;
        let entry = self.lvt(Lvt::Error);
        let [vector, ..] = entry.to_le_bytes();
        // An illegal error vector must not report itself for ever.
        if entry & lvt::MASKED == 0 && vector >= 16 {
            self.request(vector, false);
        }
    }

    /// A source of the local vector table fires.
    fn fire(&mut self, entry: Lvt, level: bool, effects: &mut Effects) {
        let value = self.lvt(entry);
        if value & lvt::MASKED != 0 || !self.is_enabled() {
            return;
        }
        let [vector, ..] = value.to_le_bytes();
        // ExtINT is a level that `external_waits` looks at; the other modes are reserved here.
        if let Some(delivery @ (Delivery::Fixed | Delivery::Smi | Delivery::Nmi | Delivery::Init)) =
            Delivery::decode(value)
        {
            self.accept(delivery, vector, level, effects);
        }
    }

    /// The 8259s drive INTR.
    pub(super) fn set_intr(&mut self, high: bool, effects: &mut Effects) {
        let rises = high && !self.intr;
        self.intr = high;
        self.update_lint0(rises, effects);
    }

    /// LINT0 in a mode other than ExtINT: an edge fires once, a level until its EOI.
    fn update_lint0(&mut self, rises: bool, effects: &mut Effects) {
        let entry = self.lvt(Lvt::Lint0);
        let fixed = Delivery::decode(entry) == Some(Delivery::Fixed);
        if fixed && entry & lvt::LEVEL != 0 {
            let open = entry & (lvt::MASKED | lvt::REMOTE_IRR) == 0;
            if self.intr && open && self.is_enabled() && self.is_software_enabled() {
                self.regs.lvt[Lvt::Lint0 as usize] |= lvt::REMOTE_IRR;
                self.fire(Lvt::Lint0, true, effects);
            }
        } else if rises {
            self.fire(Lvt::Lint0, false, effects);
        }
    }

    /// An edge on LINT1, the board's NMI.
    pub(super) fn pulse_lint1(&mut self, effects: &mut Effects) {
        if self.is_enabled() {
            self.fire(Lvt::Lint1, false, effects);
        } else {
            effects.call = Some(CpuCall::Nmi);
        }
    }

    /// The host's timer is due, or late, or was set anew meanwhile.
    pub(super) fn timer_due(&mut self, now: u64, effects: &mut Effects) {
        effects.timer = true;
        if self.regs.timer.expire(self.timer_mode(), now) {
            self.fire_timer();
        }
    }

    fn fire_timer(&mut self) {
        let entry = self.lvt(Lvt::Timer);
        if entry & lvt::MASKED == 0 {
            self.request(entry.to_le_bytes()[0], false);
        }
    }

    // -- IA32_APIC_BASE and the deadline -------------------------------------------------------------------------

    /// Writes IA32_APIC_BASE (11.4.4, 11.12.5): `false` for an illegal transition.
    pub(super) fn set_base(&mut self, value: u64, effects: &mut Effects) -> bool {
        let mode = |value: u64| (value & base::ENABLE != 0, value & base::EXTD != 0);
        let legal = match (mode(self.regs.base), mode(value)) {
            (_, (false, true)) | ((true, true), (true, false)) | ((false, _), (true, true)) => false,
            (_, (_, true)) => self.identity.x2apic,
            _ => true,
        };
        if !legal || value & self.identity.reserved_base != 0 {
            return false;
        }
        let was = mode(self.regs.base);
        if was.0 && !mode(value).0 {
            // Disabled: the registers are lost (11.4.3).
            self.reset();
            effects.timer = true;
        }
        self.regs.base = value;
        if mode(value).1 && !was.1 {
            self.regs.ldr = self.identity.x2apic_ldr();
            self.regs.dfr = u32::MAX;
            self.regs.icr &= 0xffff_ffff;
        }
        true
    }

    pub(super) fn set_tsc_deadline(&mut self, deadline: u64, now: u64, effects: &mut Effects) {
        if self.timer_mode() != lvt::TIMER_TSC_DEADLINE {
            return;
        }
        effects.timer = true;
        let tsc = now.wrapping_add(self.tsc_offset);
        if self.regs.timer.set_tsc_deadline(deadline, tsc, now) {
            self.fire_timer();
        }
    }

    /// The guest's time-stamp counter was set.
    pub(super) fn set_tsc_offset(&mut self, offset: u64, now: u64, effects: &mut Effects) {
        self.tsc_offset = offset;
        let deadline = self.regs.timer.tsc_deadline;
        if deadline != 0 {
            self.set_tsc_deadline(deadline, now, effects);
        }
    }

    // -- registers -----------------------------------------------------------------------------------------------

    /// Reads a register; `now` is asked for machine time only where it matters.
    pub(super) fn read(&mut self, reg: Reg, now: impl FnOnce() -> u64) -> u32 {
        let regs = &self.regs;
        match reg {
            Reg::Id if self.is_x2apic() => self.identity.id,
            Reg::Id => self.identity.id << 24,
            Reg::Version => VERSION,
            Reg::Tpr => regs.tpr.into(),
            Reg::Ppr => self.processor_priority().into(),
            Reg::Ldr => regs.ldr,
            Reg::Dfr => regs.dfr,
            Reg::Svr => regs.svr,
            Reg::Isr(word) => regs.isr.word(word),
            Reg::Tmr(word) => regs.tmr.word(word),
            Reg::Irr(word) => regs.irr.word(word),
            Reg::Esr => regs.esr,
            Reg::IcrLow => (regs.icr & 0xffff_ffff) as u32,
            Reg::IcrHigh => (regs.icr >> 32) as u32,
            Reg::Lvt(entry) => self.lvt(entry),
            Reg::InitialCount => regs.timer.initial,
            Reg::CurrentCount => regs.timer.current(self.timer_mode(), now()),
            Reg::DivideConfig => regs.timer.divide,
            // Write-only, or gone since the Pentium 4 (arbitration priority, remote read).
            Reg::Eoi | Reg::SelfIpi | Reg::Apr | Reg::Rrd => 0,
        }
    }

    /// Reads a register of the memory-mapped page.
    pub(super) fn read_page(&mut self, offset: u16, now: impl FnOnce() -> u64) -> u32 {
        match Reg::decode(u32::from(offset >> 4)) {
            Some(Reg::SelfIpi) | None => {
                self.error(esr::ILLEGAL_REGISTER);
                0
            }
            // Registers are 32 bits wide on 16-byte boundaries; what lies between reads as zero.
            Some(_) if offset & 0xc != 0 => 0,
            Some(reg) => self.read(reg, now) >> (8 * (offset & 3)),
        }
    }

    /// Writes a register of the memory-mapped page.
    pub(super) fn write_page(&mut self, offset: u16, value: u32, now: impl FnOnce() -> u64, effects: &mut Effects) {
        if offset & 0xf != 0 {
            return;
        }
        match Reg::decode(u32::from(offset >> 4)) {
            None | Some(Reg::SelfIpi) => self.error(esr::ILLEGAL_REGISTER),
            Some(Reg::Ldr) => self.regs.ldr = value & 0xff00_0000,
            Some(Reg::Dfr) => self.regs.dfr = value | 0x0fff_ffff,
            Some(Reg::IcrHigh) => self.regs.icr = self.regs.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32,
            Some(Reg::IcrLow) => {
                self.regs.icr = self.regs.icr & !0xffff_ffff | u64::from(value & icr::WRITABLE);
                self.send(effects);
            }
            Some(reg) => self.write(reg, value, now, effects),
        }
    }

    /// Writes what both modes have in the same way.
    fn write(&mut self, reg: Reg, value: u32, now: impl FnOnce() -> u64, effects: &mut Effects) {
        match reg {
            Reg::Tpr => self.regs.tpr = value.to_le_bytes()[0],
            Reg::Eoi => self.end_of_interrupt(effects),
            Reg::Svr => self.write_svr(value & svr::WRITABLE),
            Reg::Esr => {
                self.regs.esr = self.regs.errors;
                self.regs.errors = 0;
            }
            Reg::Lvt(entry) => self.write_lvt(entry, value, now, effects),
            Reg::InitialCount => {
                effects.timer = true;
                let mode = self.timer_mode();
                self.regs.timer.start(value, mode, now());
            }
            Reg::DivideConfig => {
                effects.timer = true;
                let mode = self.timer_mode();
                self.regs.timer.set_divide(value, mode, now());
            }
            // Read-only, or written by the caller.
            _ => {}
        }
    }

    /// While the APIC is disabled by software, all local vectors are masked (11.4.7.2).
    fn write_svr(&mut self, value: u32) {
        self.regs.svr = value;
        if !self.is_software_enabled() {
            self.regs.lvt.iter_mut().for_each(|entry| *entry |= lvt::MASKED);
        }
    }

    fn write_lvt(&mut self, entry: Lvt, value: u32, now: impl FnOnce() -> u64, effects: &mut Effects) {
        let old = self.lvt(entry);
        let mut new = value & entry.writable();
        if !self.is_software_enabled() {
            new |= lvt::MASKED;
        }
        if matches!(entry, Lvt::Lint0 | Lvt::Lint1) && new & lvt::LEVEL != 0 {
            new |= old & lvt::REMOTE_IRR;
        }
        self.regs.lvt[entry as usize] = new;
        match entry {
            Lvt::Timer if (old ^ new) & lvt::TIMER_MODE != 0 => {
                effects.timer = true;
                self.regs.timer.change_mode(old & lvt::TIMER_MODE, new & lvt::TIMER_MODE, now());
            }
            Lvt::Lint0 => self.update_lint0(false, effects),
            _ => {}
        }
    }

    /// The command register was written (11.6.1): what it sends.
    fn send(&mut self, effects: &mut Effects) {
        let command = (self.regs.icr & 0xffff_ffff) as u32;
        let high = (self.regs.icr >> 32) as u32;
        let Some(delivery) = Delivery::decode(command).filter(|d| *d != Delivery::ExtInt) else { return };
        let vector = command.to_le_bytes()[0];
        if matches!(delivery, Delivery::Fixed | Delivery::LowestPriority) && vector < 16 {
            self.error(esr::SEND_ILLEGAL_VECTOR);
            return;
        }
        // INIT level de-assert set arbitration ids on old buses and does nothing now.
        if delivery == Delivery::Init && command & icr::LEVEL != 0 && command & icr::ASSERT == 0 {
            return;
        }
        let (id, broadcast) = if self.is_x2apic() { (high, u32::MAX) } else { (high >> 24, 0xff) };
        let index = self.identity.index;
        let destination = match command >> icr::SHORTHAND_SHIFT & 3 {
            1 => Destination::Only(index),
            2 => Destination::All,
            3 => Destination::AllBut(index),
            _ if id == broadcast => Destination::All,
            _ if command & icr::LOGICAL != 0 => Destination::Logical(id),
            _ => Destination::Physical(id),
        };
        // Messages between processors are edges, whatever the trigger mode says.
        effects.message = Some(Message { destination, delivery, vector, level: false });
    }

    // -- x2APIC --------------------------------------------------------------------------------------------------

    /// Reads register `number` as an MSR (table 11-6).
    pub(super) fn read_x2apic(&mut self, number: u32, now: impl FnOnce() -> u64) -> Result<u64, Fault> {
        match Reg::decode(number).ok_or(Fault)? {
            _ if !self.is_x2apic() => Err(Fault),
            Reg::Eoi | Reg::SelfIpi | Reg::Apr | Reg::Rrd | Reg::Dfr | Reg::IcrHigh => Err(Fault),
            Reg::IcrLow => Ok(self.regs.icr),
            reg => Ok(self.read(reg, now).into()),
        }
    }

    /// Writes register `number` as an MSR.
    pub(super) fn write_x2apic(
        &mut self,
        number: u32,
        value: u64,
        now: impl FnOnce() -> u64,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let reg = Reg::decode(number).filter(|_| self.is_x2apic()).ok_or(Fault)?;
        let allowed = match reg {
            Reg::Tpr | Reg::SelfIpi => 0xff,
            Reg::Eoi | Reg::Esr => 0,
            Reg::Svr => svr::WRITABLE.into(),
            Reg::IcrLow => 0xffff_ffff_0000_0000 | u64::from(icr::WRITABLE),
            Reg::Lvt(entry) => entry.defined().into(),
            Reg::InitialCount => 0xffff_ffff,
            Reg::DivideConfig => 0xb,
            _ => return Err(Fault),
        };
        if value & !allowed != 0 {
            return Err(Fault);
        }
        let low = (value & 0xffff_ffff) as u32;
        match reg {
            Reg::IcrLow => {
                self.regs.icr = value;
                self.send(effects);
            }
            Reg::SelfIpi => {
                let vector = low.to_le_bytes()[0];
                if vector < 16 {
                    self.error(esr::SEND_ILLEGAL_VECTOR);
                } else {
                    self.request(vector, false);
                }
            }
            reg => self.write(reg, low, now, effects),
        }
        Ok(())
    }

    pub(super) fn task_priority(&self) -> u8 {
        self.regs.tpr >> 4
    }

    pub(super) fn set_task_priority(&mut self, priority: u8) {
        self.regs.tpr = priority << 4;
    }
}
