//! Execution of an instruction by its native stub.

use crate::cpu::Mode;
use crate::host::trap;

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, segment};
use super::super::op::{Handler, Op};
use super::classify::{Access, Class};
use super::stub::{self, Stub, StubCall};
use super::{masked, native};

/// CR0: monitor coprocessor, emulation, task switched, numeric error.
const CR0_MP: u64 = 1 << 1;
pub(super) const CR0_EM: u64 = 1 << 2;
pub(super) const CR0_TS: u64 = 1 << 3;
const CR0_NE: u64 = 1 << 5;
/// CR4: FXSAVE and SSE, SIMD floating-point exceptions, XSAVE.
pub(super) const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
/// XCR0: SSE and AVX; opmasks and both parts of the ZMM registers.
const XCR0_AVX: u64 = 6;
const XCR0_AVX512: u64 = 0xe6;

/// Keeps a stub in [`super::super::op::Cold::extra`] and says what executes it.
pub(super) fn handler(call: &StubCall, extra: &mut u64) -> Handler {
    let StubCall::Shared(stub) = call else {
        return once;
    };
    *extra = native::keep(stub);
    match (stub.access, stub.class, stub.align, stub.element) {
        (Access::None, Class::Sse, ..) => no_memory::<SSE>,
        (Access::None, Class::Avx, ..) => no_memory::<AVX>,
        (_, Class::X87 | Class::Mmx, ..) => x87,
        (Access::None, ..) => no_memory::<OTHER>,
        (Access::Read, Class::Sse, ..) if stub.size == 16 && stub.align == 16 => read_aligned,
        _ => with_memory,
    }
}

const SSE: u8 = 0;
const AVX: u8 = 1;
const OTHER: u8 = 2;

impl Cpu {
    /// Whether instructions of a class can be used now.
    #[inline(always)]
    pub(super) fn check_vector(&mut self, class: Class) -> Result<(), Fault> {
        match class {
            Class::Sse => self.check_sse(),
            Class::Avx => self.check_avx(XCR0_AVX),
            Class::Avx512 => self.check_avx(XCR0_AVX512),
            Class::X87 => self.check_x87(),
            Class::Mmx => self.check_mmx(),
            Class::SseMmx => {
                self.check_sse()?;
                self.check_mmx()
            }
        }
    }

    /// SSE: CR0.EM, CR4.OSFXSR, CR0.TS.
    #[inline(always)]
    pub(super) fn check_sse(&mut self) -> Result<(), Fault> {
        if self.cr0 & (CR0_EM | CR0_TS) == 0 && self.cr4 & CR4_OSFXSR != 0 {
            return Ok(());
        }
        let undefined = self.cr0 & CR0_EM != 0 || self.cr4 & CR4_OSFXSR == 0;
        Err(self.raise(if undefined { Exception::UD } else { Exception::NM }))
    }

    /// AVX and AVX-512: protected mode, CR4.OSXSAVE, the components in XCR0, CR0.TS.
    #[inline(always)]
    fn check_avx(&mut self, components: u64) -> Result<(), Fault> {
        let enabled = self.cr4 & CR4_OSXSAVE != 0 && self.vector.xcr0 & components == components;
        if enabled && self.cr0 & CR0_TS == 0 && !matches!(self.mode, Mode::Real | Mode::Virtual8086) {
            return Ok(());
        }
        let undefined = !enabled || matches!(self.mode, Mode::Real | Mode::Virtual8086);
        Err(self.raise(if undefined { Exception::UD } else { Exception::NM }))
    }

    /// MMX: CR0.EM, CR0.TS, a pending x87 exception.
    fn check_mmx(&mut self) -> Result<(), Fault> {
        if self.cr0 & CR0_EM != 0 {
            return Err(self.raise(Exception::UD));
        }
        self.check_x87()
    }

    /// CR0.EM and CR0.TS for all x87 instructions but WAIT.
    pub(super) fn check_x87_present(&mut self) -> Result<(), Fault> {
        if self.cr0 & (CR0_EM | CR0_TS) == 0 { Ok(()) } else { Err(self.raise(Exception::NM)) }
    }

    /// A waiting x87 instruction.
    fn check_x87(&mut self) -> Result<(), Fault> {
        self.check_x87_present()?;
        self.check_x87_pending()
    }

    /// #MF, if an unmasked x87 exception is pending. With CR0.NE clear the processor asserts FERR# instead and stands
    /// still until an interrupt ([`super::VectorState::ferr`]): the fault then is none that is delivered, see
    /// [`waiting`].
    ///
    /// With the registers in the host, the host's own #MF tells ([`Cpu::trapped`]).
    fn check_x87_pending(&mut self) -> Result<(), Fault> {
        if self.vector.resident || !self.vector.x87.is_pending() {
            return Ok(());
        }
        self.vector.ferr |= self.cr0 & CR0_NE == 0;
        Err(self.raise(Exception::MF))
    }

    /// #GP(0), if the operand is not aligned as the instruction needs it.
    #[inline(always)]
    pub(super) fn check_vector_alignment(&mut self, segment: u8, offset: u64, align: u8) -> Result<(), Fault> {
        let base = self.segments[usize::from(segment & 7)].base;
        if base.wrapping_add(offset) & u64::from(align - 1) == 0 {
            return Ok(());
        }
        Err(self.raise(Exception::gp(0)))
    }

    /// Executes a stub with the operand in the scratch slot.
    #[inline(always)]
    fn run_stub(&mut self, stub: &Stub) -> Result<(), Fault> {
        let result = native::call(self, stub.entry);
        if stub.flags || result & trap::TRAPPED != 0 {
            if result & trap::TRAPPED != 0 {
                return Err(self.trapped(result, stub.class));
            }
            self.status = native::status(result);
        }
        Ok(())
    }

    /// Executes a stub of x87 or MMX, in the host's registers if they may stay there. The result: whether a store has
    /// reached memory.
    fn run_x87(&mut self, stub: &Stub) -> Result<bool, Fault> {
        if !self.vector.may_stay {
            self.run_stub(stub)?;
            return Ok(stores(self));
        }
        if !self.vector.resident {
            native::load_x87(&mut self.vector.x87);
            self.vector.resident = true;
        }
        let result = native::call(self, stub.resident);
        if result & trap::TRAPPED != 0 {
            return Err(self.trapped(result, stub.class));
        }
        if stub.flags {
            self.status = native::status(result);
        }
        if stub.access == Access::Write && result & 0x80 != 0 {
            self.sync_x87();
            return Ok(stores(self));
        }
        Ok(true)
    }

    /// Lets x87 and MMX registers stay in the host's between instructions, until [`Cpu::leave_x87`]. In between, this
    /// thread must use neither for anything else, nor another processor.
    pub fn enter_x87(&mut self) {
        self.vector.may_stay = true;
    }

    /// Ends what [`Cpu::enter_x87`] began.
    pub fn leave_x87(&mut self) {
        self.sync_x87();
        self.vector.may_stay = false;
    }

    /// Brings the image of x87 and MMX up to date.
    #[inline(always)]
    pub(super) fn sync_x87(&mut self) {
        if self.vector.resident {
            native::save_x87(&mut self.vector.x87);
            self.vector.resident = false;
        }
        self.settle_pointers();
    }

    /// Does so if an unmasked exception is pending, so that [`Cpu::check_x87_pending`] sees it.
    pub(super) fn sync_x87_if_pending(&mut self) {
        if self.vector.resident && native::fsw() & 0x80 != 0 {
            self.sync_x87();
        }
    }

    /// FDP follows the instruction that raised an unmasked exception: no other one can have come after it.
    fn settle_pointers(&mut self) {
        if self.vector.x87.is_pending()
            && let Some((offset, selector)) = self.vector.recent.take()
        {
            (self.vector.last.fdp, self.vector.last.fds) = (offset, selector);
        }
    }

    /// What the guest sees of an exception in a stub.
    #[cold]
    fn trapped(&mut self, result: u32, class: Class) -> Fault {
        if matches!(class, Class::X87 | Class::Mmx) && result & !trap::TRAPPED == trap::SIGFPE {
            // Pending since an earlier instruction.
            self.sync_x87();
            self.vector.ferr |= self.cr0 & CR0_NE == 0;
            return self.raise(Exception::MF);
        }
        if result & !trap::TRAPPED != trap::SIGFPE {
            // The host refuses the encoding.
            return self.raise(Exception::UD);
        }
        self.vector.mxcsr = self.vector.fault_mxcsr;
        if class == Class::SseMmx {
            // The registers are MMX registers before the operation begins.
            self.vector.enter_mmx();
        }
        self.raise(if self.cr4 & CR4_OSXMMEXCPT != 0 { Exception::XM } else { Exception::UD })
    }

    /// Notes where the last x87 instruction was.
    fn move_pointers(&mut self, op: &Op, memory: Option<(u8, u64)>) {
        let selector = |cpu: &Self, number: usize| cpu.segments[number & 7].loaded.selector;
        let fip = self.rip_at(u64::from(op.at));
        let fcs = selector(self, segment::CS);
        let opcode = op.cold.as_ref().map_or(0, |cold| x87_opcode(&cold.bytes));
        let operand = memory.map(|(number, offset)| (offset, selector(self, usize::from(number))));
        let on_exception = self.vector.layout.fdp_on_exception;
        let last = &mut self.vector.last;
        (last.fip, last.fcs, last.fop) = (fip, fcs, opcode);
        if on_exception {
            self.vector.recent = operand;
            if !self.vector.resident {
                self.settle_pointers();
            }
        } else if let Some(operand) = operand {
            (last.fdp, last.fds) = operand;
        }
    }
}

/// The 11 bits of FOP: the low three of the first opcode byte, and the second.
fn x87_opcode(bytes: &[u8; 15]) -> u16 {
    let at = bytes.iter().position(|byte| byte & 0xf8 == 0xd8).unwrap_or(0);
    let second = bytes.get(at + 1).copied().unwrap_or(0);
    u16::from(bytes[at] & 7) << 8 | u16::from(second)
}

/// With CR0.NE clear an instruction that would raise #MF waits for an interrupt instead.
pub(super) fn waiting(cpu: &mut Cpu, step: Step) -> Step {
    if step.is_err() && cpu.exception == Exception::MF && cpu.cr0 & CR0_NE == 0 { Ok(Flow::Again) } else { step }
}

fn shared(op: &Op) -> &'static Stub {
    native::kept(op.cold.as_ref().map_or(0, |cold| cold.extra))
}

fn no_memory<const CLASS: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let stub = shared(op);
    match CLASS {
        SSE => cpu.check_sse()?,
        AVX => cpu.check_avx(XCR0_AVX)?,
        _ => return with_stub(cpu, op, stub),
    }
    cpu.run_stub(stub)?;
    Ok(Flow::Next)
}

/// Legacy SSE with 16 bytes of memory, the commonest form with memory.
fn read_aligned(cpu: &mut Cpu, op: &Op) -> Step {
    let stub = shared(op);
    cpu.check_sse()?;
    let offset = cpu.effective_address(&op.mem);
    cpu.check_vector_alignment(op.mem.segment, offset, 16)?;
    let value = cpu.read::<u128>(op.mem.segment, offset)?;
    cpu.vector.scratch[..16].copy_from_slice(&value.to_le_bytes());
    cpu.run_stub(stub)?;
    Ok(Flow::Next)
}

/// x87 and MMX, in the order of [`with_stub`].
fn x87(cpu: &mut Cpu, op: &Op) -> Step {
    let stub = shared(op);
    let checked = cpu.check_vector(stub.class).map(|()| Flow::Next);
    if checked.is_err() {
        return waiting(cpu, checked);
    }
    let (number, offset) = (op.mem.segment, cpu.effective_address(&op.mem));
    match stub.access {
        Access::None => {}
        Access::Read => load(cpu, stub, number, offset)?,
        Access::Write => {
            if let Err(fault) = probe(cpu, stub, number, offset) {
                return store_fails(cpu, op, stub, fault);
            }
        }
    }
    let stored = match cpu.run_x87(stub) {
        Ok(stored) => stored,
        Err(fault) => return waiting(cpu, Err(fault)),
    };
    if stub.access == Access::Write && stored {
        store(cpu, stub, number, offset)?;
    }
    if stub.pointers {
        cpu.move_pointers(op, (stub.access != Access::None).then_some((number, offset)));
    }
    Ok(Flow::Next)
}

/// Checks that a whole operand can be stored.
fn probe(cpu: &mut Cpu, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    cpu.check_operand_alignment(number, offset, natural_alignment(stub))?;
    cpu.probe_write(number, offset, u64::from(stub.size))
}

/// A store of x87 or MMX to memory that cannot be written: that is a fault, unless an unmasked exception keeps the
/// store from happening.
#[cold]
fn store_fails(cpu: &mut Cpu, op: &Op, stub: &Stub, fault: Fault) -> Step {
    let exception = cpu.exception;
    cpu.sync_x87();
    let checked = cpu.check_vector(stub.class).map(|()| Flow::Next);
    if checked.is_err() {
        return waiting(cpu, checked);
    }
    let before = cpu.vector.x87.clone();
    cpu.run_stub(stub)?;
    if stub.class != Class::X87 || stores(cpu) {
        cpu.vector.x87 = before;
        cpu.exception = exception;
        return Err(fault);
    }
    let operand = (op.mem.segment, cpu.effective_address(&op.mem));
    cpu.move_pointers(op, Some(operand));
    Ok(Flow::Next)
}

/// What an operand's address must be a multiple of where #AC is enabled (Intel SDM volume 3, table 7-7); vectors may be
/// anywhere.
fn natural_alignment(stub: &Stub) -> usize {
    match stub.size {
        size @ (2 | 4 | 8) => usize::from(size),
        10 => 8,
        _ => 1,
    }
}

fn with_memory(cpu: &mut Cpu, op: &Op) -> Step {
    with_stub(cpu, op, shared(op))
}

/// Assembles the instruction for this one execution: there is no more room for stubs.
fn once(cpu: &mut Cpu, op: &Op) -> Step {
    let undefined = |cpu: &mut Cpu| Err(cpu.raise(Exception::UD));
    let Some(cold) = &op.cold else { return undefined(cpu) };
    let Some(class) = super::classify::class(&cold.instruction) else { return undefined(cpu) };
    match stub::stub(&cold.instruction, class) {
        Some(StubCall::Shared(stub)) => with_stub(cpu, op, stub),
        Some(StubCall::Once(stub, code)) => {
            stub::with_slot(&code, || with_stub(cpu, op, &stub)).unwrap_or_else(|| undefined(cpu))
        }
        None => undefined(cpu),
    }
}

/// Any instruction, in the order: can it be used, its operand's alignment and protection, execution, the store.
fn with_stub(cpu: &mut Cpu, op: &Op, stub: &Stub) -> Step {
    if matches!(stub.class, Class::X87 | Class::Mmx | Class::SseMmx) {
        cpu.sync_x87();
    }
    let checked = cpu.check_vector(stub.class).map(|()| Flow::Next);
    if checked.is_err() {
        return waiting(cpu, checked);
    }
    if stub.access == Access::None {
        cpu.run_stub(stub)?;
        if stub.pointers {
            cpu.move_pointers(op, None);
        }
        return Ok(Flow::Next);
    }
    let (number, offset) = (op.mem.segment, cpu.effective_address(&op.mem));
    if stub.align > 1 && masked::is_wanted(cpu, stub) {
        cpu.check_vector_alignment(number, offset, stub.align)?;
    }
    if stub.access == Access::Read {
        load(cpu, stub, number, offset)?;
        cpu.run_stub(stub)?;
    } else {
        if stub.float || stub.class == Class::X87 {
            masked::probe(cpu, stub, number, offset)?;
        }
        cpu.run_stub(stub)?;
        if stub.class != Class::X87 || stores(cpu) {
            store(cpu, stub, number, offset)?;
        }
    }
    if stub.pointers {
        cpu.move_pointers(op, Some((number, offset)));
    }
    Ok(Flow::Next)
}

/// Whether the x87 store that was just executed reached memory: not if an exception other than a loss of precision
/// was unmasked.
fn stores(cpu: &Cpu) -> bool {
    let x87 = &cpu.vector.x87;
    x87.fsw() & !x87.fcw() & 0x1f == 0
}

fn load(cpu: &mut Cpu, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    if stub.element != 0 {
        return masked::load(cpu, stub, number, offset);
    }
    let place = usize::from(stub.size);
    match stub.size {
        4 => {
            let value = cpu.read::<u32>(number, offset)?;
            cpu.vector.scratch[..4].copy_from_slice(&value.to_le_bytes());
        }
        8 => {
            let value = cpu.read::<u64>(number, offset)?;
            cpu.vector.scratch[..8].copy_from_slice(&value.to_le_bytes());
        }
        16 => {
            let value = cpu.read::<u128>(number, offset)?;
            cpu.vector.scratch[..16].copy_from_slice(&value.to_le_bytes());
        }
        _ => {
            let mut bytes = [0; 64];
            cpu.check_operand_alignment(number, offset, natural_alignment(stub))?;
            cpu.read_bytes(number, offset, &mut bytes[..place])?;
            cpu.vector.scratch = bytes;
        }
    }
    Ok(())
}

fn store(cpu: &mut Cpu, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    if stub.element != 0 {
        return masked::store(cpu, stub, number, offset);
    }
    let bytes = cpu.vector.scratch;
    let wide = u128::from_le_bytes(std::array::from_fn(|i| bytes[i]));
    match stub.size {
        2 => cpu.write(number, offset, wide as u16),
        4 => cpu.write(number, offset, wide as u32),
        8 => cpu.write(number, offset, wide as u64),
        16 => cpu.write(number, offset, wide),
        size => {
            cpu.check_operand_alignment(number, offset, natural_alignment(stub))?;
            cpu.write_bytes(number, offset, &bytes[..usize::from(size)])
        }
    }
}

/// WAIT: #NM with CR0.MP and CR0.TS, #MF.
pub(super) fn wait(cpu: &mut Cpu, _op: &Op) -> Step {
    if cpu.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
        return Err(cpu.raise(Exception::NM));
    }
    cpu.sync_x87_if_pending();
    let step = cpu.check_x87_pending().map(|()| Flow::Next);
    waiting(cpu, step)
}
