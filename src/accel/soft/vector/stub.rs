//! Native stubs: host code that loads registers from the image, executes one of the guest's instructions with its
//! memory operand moved to the scratch slot, and stores the registers back.
//!
//! A stub depends on the instruction only, so all processors share them. The memory for them is bounded; when it is
//! full, instructions are assembled anew each time into a slot at its end ([`StubCall::Once`]).
//!
//! Registers in a stub: RDI the image, RSI the general registers, EDX the arithmetic flags as `lahf; seto al` leaves
//! them; R8 and up stand for general registers that the instruction names. EAX is the result: the flags likewise.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use iced_x86::{
    Code, CodeSize, Encoder, IcedError, Instruction, InstructionInfoFactory, MemoryOperand, OpAccess, OpKind, Register,
    RflagsBits,
};

use crate::host::code::CodeMemory;
use crate::host::trap;

use super::classify::{self, Access, Class};
use super::host::{Width, features};
use super::state::{FAULT_MXCSR_AT, HOST_MXCSR_AT, K_AT, MXCSR_AT, SCRATCH_AT, X87_AT};

/// Bytes for stubs.
const REGION: usize = 32 << 20;
/// The last bytes: the slot for instructions that have no stub of their own.
const SLOT: usize = REGION - 4096;
/// Where traps resume: at the region's beginning.
const RESUME_LEN: usize = 64;

/// What a native stub does to memory and flags, and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stub {
    pub(super) entry: usize,
    /// The entry for x87 and MMX registers that are in the host's already; 0: there is none. The result of a store is
    /// the status word.
    pub(super) resident: usize,
    pub(super) class: Class,
    pub(super) access: Access,
    /// Bytes of the memory operand, at most 64.
    pub(super) size: u8,
    /// What its address must be a multiple of.
    pub(super) align: u8,
    /// The result is the new arithmetic flags.
    pub(super) flags: bool,
    /// It may raise SIMD floating-point exceptions.
    pub(super) float: bool,
    /// It moves the x87 instruction pointer.
    pub(super) pointers: bool,
    /// Fault suppression of EVEX: masked by this opmask register...
    pub(super) mask: u8,
    /// ...element by element of so many bytes; 0: not masked, or each byte is needed.
    pub(super) element: u8,
    /// A masked store that faults also for what it does not write.
    pub(super) checks_all: bool,
    /// How many times a broadcast repeats the operand: mask bits stand for its elements as often.
    pub(super) repeats: u8,
}

/// How to execute an instruction natively.
pub(super) enum StubCall {
    /// By a stub.
    Shared(&'static Stub),
    /// In the slot; there was no room.
    Once(Box<Stub>, Vec<u8>),
}

/// What a stub depends on: the relocated instruction, and which general registers its own stand for.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    instruction: Instruction,
    general: Vec<(Register, u32)>,
}

struct Region {
    memory: CodeMemory,
    used: usize,
    stubs: HashMap<Key, &'static Stub>,
}

fn region() -> Option<&'static Mutex<Region>> {
    static REGION_LOCK: OnceLock<Option<Mutex<Region>>> = OnceLock::new();
    REGION_LOCK.get_or_init(|| new_region().map(Mutex::new)).as_ref()
}

fn new_region() -> Option<Region> {
    let mut memory = CodeMemory::new(REGION).ok()?;
    let exit = resume_code().ok().filter(|code| code.len() <= RESUME_LEN)?;
    memory.write(0, &exit);
    let start = memory.address();
    trap::recover(start + RESUME_LEN..start + REGION, start).ok()?;
    Some(Region { memory, used: RESUME_LEN, stubs: HashMap::new() })
}

/// The stub of an instruction; `None`: it has no native form, or the host refuses memory for code.
pub(super) fn stub(instruction: &Instruction, class: Class) -> Option<StubCall> {
    let (moved, renamed) = relocate(instruction)?;
    let key = Key { instruction: moved, general: renamed };
    let mut region = region()?.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = region.stubs.get(&key) {
        return Some(StubCall::Shared(known));
    }
    let (mut stub, code, resident) = assemble(instruction, &key, class)?;
    let at = region.used;
    let end = (at + code.len()).next_multiple_of(64);
    if end > SLOT {
        stub.entry = region.memory.address() + SLOT;
        return Some(StubCall::Once(Box::new(stub), code));
    }
    if !region.memory.write(at, &code) {
        return None;
    }
    region.used = end;
    stub.entry = region.memory.address() + at;
    stub.resident = resident.map_or(0, |offset| stub.entry + offset);
    // Bounded by the region's length.
    let stub: &'static Stub = Box::leak(Box::new(stub));
    region.stubs.insert(key, stub);
    Some(StubCall::Shared(stub))
}

/// Where code in the slot is executed.
#[cfg(test)]
pub(super) fn slot_address() -> Option<usize> {
    Some(region()?.lock().unwrap_or_else(PoisonError::into_inner).memory.address() + SLOT)
}

/// Puts code into the slot and calls `run` while nobody else can change it.
pub(super) fn with_slot<T>(code: &[u8], run: impl FnOnce() -> T) -> Option<T> {
    let mut region = region()?.lock().unwrap_or_else(PoisonError::into_inner);
    region.memory.write(SLOT, code).then(run)
}

/// The assembler: instructions encoded one after the other.
struct Assembler {
    encoder: Encoder,
    offset: u64,
}

impl Assembler {
    fn new() -> Self {
        Self { encoder: Encoder::new(64), offset: 0 }
    }

    fn put(&mut self, instruction: &Instruction) -> Result<(), IcedError> {
        self.offset += self.encoder.encode(instruction, self.offset)? as u64;
        Ok(())
    }

    fn plain(&mut self, code: Code) -> Result<(), IcedError> {
        self.put(&Instruction::with(code))
    }

    fn load(&mut self, code: Code, register: Register, at: i64) -> Result<(), IcedError> {
        self.put(&Instruction::with2(code, register, slot(Register::RDI, at))?)
    }

    fn store(&mut self, code: Code, at: i64, register: Register) -> Result<(), IcedError> {
        self.put(&Instruction::with2(code, slot(Register::RDI, at), register)?)
    }

    /// The arithmetic flags from EDX.
    fn load_flags(&mut self) -> Result<(), IcedError> {
        self.put(&Instruction::with2(Code::Mov_r32_rm32, Register::EAX, Register::EDX)?)?;
        self.put(&Instruction::with2(Code::Add_AL_imm8, Register::AL, 0x7f)?)?;
        self.plain(Code::Sahf)
    }

    /// The result in EAX.
    fn result(&mut self, stub: &Stub) -> Result<(), IcedError> {
        if !stub.flags {
            return self.put(&Instruction::with2(Code::Mov_r32_imm32, Register::EAX, 0u32)?);
        }
        self.plain(Code::Lahf)?;
        self.put(&Instruction::with1(Code::Seto_rm8, Register::AL)?)?;
        self.put(&Instruction::with2(Code::Movzx_r32_rm16, Register::EAX, Register::AX)?)
    }

    fn load_general(&mut self, uses: &Uses) -> Result<(), IcedError> {
        for (host, guest, _) in &uses.general {
            let place = slot(Register::RSI, i64::from(*guest) * 8);
            self.put(&Instruction::with2(Code::Mov_r64_rm64, *host, place)?)?;
        }
        Ok(())
    }

    fn store_general(&mut self, uses: &Uses) -> Result<(), IcedError> {
        for (host, guest, _) in uses.general.iter().filter(|(.., written)| *written) {
            let place = slot(Register::RSI, i64::from(*guest) * 8);
            self.put(&Instruction::with2(Code::Mov_rm64_r64, place, *host)?)?;
        }
        Ok(())
    }

    fn control(&mut self, code: Code, at: i64) -> Result<(), IcedError> {
        self.put(&Instruction::with1(code, slot(Register::RDI, at))?)
    }
}

fn slot(base: Register, at: i64) -> MemoryOperand {
    MemoryOperand::with_base_displ_size(base, at, 1)
}

/// Where traps resume: the result is in RAX already.
fn resume_code() -> Result<Vec<u8>, IcedError> {
    let mut a = Assembler::new();
    a.control(Code::Stmxcsr_m32, FAULT_MXCSR_AT)?;
    a.control(Code::Ldmxcsr_m32, HOST_MXCSR_AT)?;
    if features().width > Width::Xmm {
        a.plain(Code::VEX_Vzeroupper)?;
    }
    a.plain(Code::Retnq)?;
    Ok(a.encoder.take_buffer())
}

/// A register of the image that the instruction uses.
struct Used {
    register: Register,
    /// The bytes that it is used with.
    size: usize,
    written: bool,
}

/// What a stub must load and store.
#[derive(Default)]
struct Uses {
    vectors: Vec<Used>,
    masks: Vec<Used>,
    /// The host's register, the guest's number, whether it is written.
    general: Vec<(Register, u32, bool)>,
}

/// Gives the instruction registers and memory of the stub's.
fn relocate(instruction: &Instruction) -> Option<(Instruction, Vec<(Register, u32)>)> {
    let mut moved = *instruction;
    let mut renamed: Vec<(Register, u32)> = Vec::new();
    for operand in 0..moved.op_count() {
        match moved.op_kind(operand) {
            OpKind::Register if moved.op_register(operand).is_gpr() => {
                let register = moved.op_register(operand);
                let number = u32::try_from(register.full_register().number()).ok()?;
                let place = renamed.iter().position(|(_, known)| *known == number).unwrap_or_else(|| {
                    renamed.push((Register::R8, number));
                    renamed.len() - 1
                });
                let host = Register::R8 + u32::try_from(place).ok()?;
                renamed[place].0 = host;
                let sized = match register.size() {
                    4 => host.full_register32(),
                    8 => host,
                    _ => return None,
                };
                moved.set_op_register(operand, sized);
            }
            OpKind::Memory => {
                moved.set_segment_prefix(Register::None);
                moved.set_memory_base(Register::RDI);
                moved.set_memory_index(Register::None);
                moved.set_memory_index_scale(1);
                moved.set_memory_displ_size(1);
                moved.set_memory_displacement64(SCRATCH_AT as u64);
            }
            OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI => return None,
            _ => {}
        }
    }
    moved.set_code_size(CodeSize::Code64);
    Some((moved, renamed))
}

/// What the relocated instruction uses.
fn uses(moved: &Instruction, renamed: &[(Register, u32)]) -> Option<Uses> {
    let mut factory = InstructionInfoFactory::new();
    let mut uses = Uses::default();
    let widest = classify::registers(moved).filter(|r| r.is_vector_register()).map(Register::size).max().unwrap_or(16);
    for used in factory.info(moved).used_registers() {
        let register = used.register();
        let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None);
        let note = |list: &mut Vec<Used>, register: Register, size: usize| match list
            .iter_mut()
            .find(|known| known.register == register)
        {
            Some(known) => known.written |= written,
            None => list.push(Used { register, size, written }),
        };
        if register.is_vector_register() {
            let number = u32::try_from(register.number()).ok()?;
            let same = classify::registers(moved).filter(|r| r.is_vector_register() && r.number() == register.number());
            note(&mut uses.vectors, Register::XMM0 + number, same.map(Register::size).max().unwrap_or(widest));
        } else if register.is_k() {
            note(&mut uses.masks, register, 8);
        } else if register.is_gpr() {
            let full = register.full_register();
            if full == Register::RDI {
                continue;
            }
            let guest = match renamed.iter().find(|(host, _)| *host == full) {
                Some((_, number)) => *number,
                None if matches!(full, Register::RAX | Register::RCX | Register::RDX) => {
                    u32::try_from(full.number()).ok()?
                }
                None => return None,
            };
            match uses.general.iter_mut().find(|(host, ..)| *host == full) {
                Some((.., known)) => *known |= written,
                None => uses.general.push((full, guest, written)),
            }
        }
    }
    Some(uses)
}

fn load_code(size: usize, number: usize, legacy: bool) -> (Code, Register) {
    match (size, number) {
        (64, _) => (Code::EVEX_Vmovups_zmm_k1z_zmmm512, Register::ZMM0),
        (32, 16..) => (Code::EVEX_Vmovups_ymm_k1z_ymmm256, Register::YMM0),
        (32, _) => (Code::VEX_Vmovups_ymm_ymmm256, Register::YMM0),
        (_, 16..) => (Code::EVEX_Vmovups_xmm_k1z_xmmm128, Register::XMM0),
        _ if legacy => (Code::Movups_xmm_xmmm128, Register::XMM0),
        _ => (Code::VEX_Vmovups_xmm_xmmm128, Register::XMM0),
    }
}

/// Legacy instructions leave the bits above 127 alone, all others clear what they do not write.
fn store_code(legacy: bool) -> (Code, Register) {
    match features().width {
        _ if legacy => (Code::Movups_xmmm128_xmm, Register::XMM0),
        Width::Zmm => (Code::EVEX_Vmovups_zmmm512_k1z_zmm, Register::ZMM0),
        _ => (Code::VEX_Vmovups_ymmm256_ymm, Register::YMM0),
    }
}

/// The stub, its code, and where in it the entry for resident registers is.
fn assemble(instruction: &Instruction, key: &Key, class: Class) -> Option<(Stub, Vec<u8>, Option<usize>)> {
    let uses = uses(&key.instruction, &key.general)?;
    let (access, size) = memory(instruction)?;
    // iced counts x87's condition codes among them.
    let status = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;
    let flags_read = instruction.rflags_read() & status;
    let flags_changed = instruction.rflags_modified() & status;
    let stub = Stub {
        entry: 0,
        resident: 0,
        class,
        access,
        size: u8::try_from(size).ok()?,
        align: classify::alignment(instruction, class, size),
        flags: flags_changed != 0,
        float: classify::uses_mxcsr(instruction, class),
        pointers: classify::moves_pointers(instruction, class),
        mask: u8::try_from(instruction.op_mask().number()).ok().filter(|_| instruction.has_op_mask()).unwrap_or(0),
        element: super::masked::suppressed_element(instruction),
        checks_all: super::masked::checks_all(instruction),
        repeats: super::masked::repeats(instruction),
    };
    let flags = flags_read != 0 || flags_changed != 0;
    let mut code = emit(&key.instruction, &uses, &stub, flags).ok()?;
    let resident = matches!(class, Class::X87 | Class::Mmx).then_some(code.len());
    if resident.is_some() {
        code.extend(emit_resident(&key.instruction, &uses, &stub, flags).ok()?);
    }
    Some((stub, code, resident))
}

/// The instruction on registers that are in the host's already.
fn emit_resident(moved: &Instruction, uses: &Uses, stub: &Stub, flags_in: bool) -> Result<Vec<u8>, IcedError> {
    let mut a = Assembler::new();
    if flags_in {
        a.load_flags()?;
    }
    a.load_general(uses)?;
    a.put(moved)?;
    if stub.class == Class::X87 && stub.access == Access::Write {
        a.put(&Instruction::with1(Code::Fnstsw_AX, Register::AX)?)?;
        a.put(&Instruction::with2(Code::Movzx_r32_rm16, Register::EAX, Register::AX)?)?;
    } else {
        a.result(stub)?;
    }
    a.store_general(uses)?;
    a.plain(Code::Retnq)?;
    Ok(a.encoder.take_buffer())
}

/// Access and size of the memory operand.
fn memory(instruction: &Instruction) -> Option<(Access, usize)> {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(instruction);
    let Some(used) = info.used_memory().first() else { return Some((Access::None, 0)) };
    let size = instruction.memory_size().size();
    if size == 0 || size > 64 {
        return None;
    }
    Some((classify::access(used.access()), size)).filter(|(access, _)| *access != Access::None)
}

fn emit(moved: &Instruction, uses: &Uses, stub: &Stub, flags_in: bool) -> Result<Vec<u8>, IcedError> {
    let mut a = Assembler::new();
    let legacy = !matches!(stub.class, Class::Avx | Class::Avx512);
    let x87 = matches!(stub.class, Class::X87 | Class::Mmx | Class::SseMmx);
    if flags_in {
        a.load_flags()?;
    }
    if x87 {
        a.control(Code::Fxrstor64_m512byte, X87_AT)?;
    }
    for Used { register, size, .. } in &uses.vectors {
        let (code, first) = load_code(*size, register.number(), legacy);
        a.load(code, first + register.number() as u32, register.number() as i64 * 64)?;
    }
    for Used { register, .. } in &uses.masks {
        a.load(Code::VEX_Kmovq_kr_km64, *register, K_AT + register.number() as i64 * 8)?;
    }
    a.load_general(uses)?;
    if stub.float {
        a.control(Code::Ldmxcsr_m32, MXCSR_AT)?;
    }
    a.put(moved)?;
    a.result(stub)?;
    a.store_general(uses)?;
    for Used { register, .. } in uses.masks.iter().filter(|used| used.written) {
        a.store(Code::VEX_Kmovq_m64_kr, K_AT + register.number() as i64 * 8, *register)?;
    }
    for Used { register, .. } in uses.vectors.iter().filter(|used| used.written) {
        let (code, first) = store_code(legacy);
        a.store(code, register.number() as i64 * 64, first + register.number() as u32)?;
    }
    if stub.float {
        a.control(Code::Stmxcsr_m32, MXCSR_AT)?;
    }
    if x87 {
        a.control(Code::Fxsave64_m512byte, X87_AT)?;
    }
    if stub.float || x87 {
        a.control(Code::Ldmxcsr_m32, HOST_MXCSR_AT)?;
    }
    if !legacy {
        a.plain(Code::VEX_Vzeroupper)?;
    }
    a.plain(Code::Retnq)?;
    Ok(a.encoder.take_buffer())
}
