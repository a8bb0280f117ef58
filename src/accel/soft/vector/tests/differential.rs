//! Random instructions, compared with the same bytes executed by the host on all of its registers.
#![expect(unsafe_code)] // UNSAFE: generated code is called

use std::arch::asm;
use std::time::{Duration, Instant};

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, MemoryOperand, Mnemonic, OpKind, Register};

use crate::host::trap;

use super::super::stub;
use super::fuzz::{Random, instruction};
use super::*;

/// What the native code finds at RDI.
#[repr(C, align(64))]
struct Machine {
    /// Where `stub`'s recovery looks for MXCSR.
    vector: VectorState,
    area: [u8; 4096],
    gpr: [u64; 16],
    flags: u64,
}

const AREA_AT: i64 = std::mem::offset_of!(Machine, area) as i64;
const GPR_AT: i64 = std::mem::offset_of!(Machine, gpr) as i64;
const FLAGS_AT: i64 = std::mem::offset_of!(Machine, flags) as i64;
/// x87, SSE, AVX, AVX-512.
const COMPONENTS: u32 = 0xe7;

/// Guest memory, and where its middle is.
#[repr(C, align(64))]
#[derive(Clone, PartialEq, Debug)]
struct Memory([u8; 256]);
const MIDDLE: u64 = 128;

const GENERAL: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

fn at(displacement: i64) -> MemoryOperand {
    MemoryOperand::with_base_displ_size(Register::RDI, displacement, 1)
}

fn encode(list: &[Instruction]) -> Vec<u8> {
    let mut encoder = Encoder::new(64);
    for instruction in list {
        encoder.encode(instruction, 0).unwrap();
    }
    encoder.take_buffer()
}

/// Registers from the machine, the instruction, registers back.
fn program(bytes: &[u8]) -> Vec<u8> {
    let usable = |i: &usize| *i != 4 && *i != 7;
    let mask = [
        Instruction::with2(Code::Mov_r32_imm32, Register::EAX, COMPONENTS).unwrap(),
        Instruction::with2(Code::Mov_r32_imm32, Register::EDX, 0u32).unwrap(),
    ];
    let mut before = mask.to_vec();
    before.push(Instruction::with1(Code::Xrstor64_mem, at(AREA_AT)).unwrap());
    before.push(Instruction::with1(Code::Push_rm64, at(FLAGS_AT)).unwrap());
    before.push(Instruction::with(Code::Popfq));
    for i in (0..16).filter(usable) {
        before.push(Instruction::with2(Code::Mov_r64_rm64, GENERAL[i], at(GPR_AT + i as i64 * 8)).unwrap());
    }
    let mut after = Vec::new();
    for i in (0..16).filter(usable) {
        after.push(Instruction::with2(Code::Mov_rm64_r64, at(GPR_AT + i as i64 * 8), GENERAL[i]).unwrap());
    }
    after.push(Instruction::with(Code::Pushfq));
    after.push(Instruction::with1(Code::Pop_rm64, at(FLAGS_AT)).unwrap());
    after.extend(mask);
    after.push(Instruction::with1(Code::Xsave64_mem, at(AREA_AT)).unwrap());
    after.push(Instruction::with1(Code::Ldmxcsr_m32, at(super::super::state::HOST_MXCSR_AT)).unwrap());
    after.push(Instruction::with(Code::VEX_Vzeroupper));
    after.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, 0u32).unwrap());
    after.push(Instruction::with(Code::Retnq));
    [encode(&before), bytes.to_vec(), encode(&after)].concat()
}

/// Executes the instruction on the machine; the signal, if there is one.
fn native(bytes: &[u8], machine: &mut Machine) -> Option<u32> {
    let code = program(bytes);
    let entry = stub::slot_address().unwrap();
    let result = stub::with_slot(&code, || {
        let mut result: u64 = entry as u64;
        // SAFETY: the code in the slot keeps RSP and RDI, and all other registers are saved or declared.
        unsafe {
            asm!(
                "push rbx", "push rbp", "sub rsp, 8", "call rax", "add rsp, 8", "pop rbp", "pop rbx",
                inout("rax") result, in("rdi") machine, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                clobber_abi("sysv64"),
            );
        }
        result as u32
    });
    result.filter(|result| result & trap::TRAPPED != 0).map(|result| result & !trap::TRAPPED)
}

/// The instruction with a memory operand that both sides have.
fn comparable(random: &mut Random) -> Option<(Instruction, Vec<u8>)> {
    use Mnemonic as M;
    let bytes = instruction(random);
    let mut decoded = Decoder::with_ip(64, &bytes[..15], 0, DecoderOptions::NONE).decode();
    if decoded.is_invalid() || handler(&decoded, &mut 0).is_none() {
        return None;
    }
    // The rest have pointers in memory, or do not say where they write.
    let system = xsave::handler(&decoded).is_some()
        || matches!(decoded.mnemonic(), M::Fnstenv | M::Fldenv | M::Fnsave | M::Frstor | M::Wait);
    let moving = (0..decoded.op_count())
        .any(|i| matches!(decoded.op_kind(i), OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI));
    let taken = |register: Register| matches!(register.full_register(), Register::RSP | Register::RDI | Register::RBX);
    if system || moving || classify::registers(&decoded).any(taken) {
        return None;
    }
    if (0..decoded.op_count()).any(|i| decoded.op_kind(i) == OpKind::Memory) {
        decoded.set_segment_prefix(Register::None);
        decoded.set_memory_base(Register::RBX);
        if !decoded.memory_index().is_vector_register() {
            decoded.set_memory_index(Register::None);
            decoded.set_memory_index_scale(1);
        }
        decoded.set_memory_displ_size(1);
        let displacement = [0i64, 0, 0, 32, -64, 1][random.next() as usize % 6];
        decoded.set_memory_displacement64(displacement as u64);
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&decoded, 0).ok()?;
    let bytes = encoder.take_buffer();
    let decoded = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode();
    (!decoded.is_invalid()).then_some((decoded, bytes))
}

/// Numbers that floating point finds interesting now and then.
fn value(random: &mut Random) -> u64 {
    let special = [0, 1, 0x3ff0_0000_0000_0000, 0x7ff0_0000_3f80_0000, 0x4059_0000_42c8_0000, 0x8000_0000_8000_0000];
    match random.next() % 3 {
        0 => special[random.next() as usize % special.len()],
        1 => random.next() & 0x0007_0007_0007_0007,
        _ => random.next(),
    }
}

fn area(random: &mut Random, decoded: &Instruction) -> [u8; 4096] {
    let mut area = [0; 4096];
    for word in area[..0xa80].chunks_exact_mut(8) {
        word.copy_from_slice(&value(random).to_le_bytes());
    }
    let put = |area: &mut [u8], at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    let masks = [0x3f, 0x3f, 0x3f, 0][random.next() as usize % 4];
    let mut x87 = super::super::state::X87::default();
    x87.set_fcw(random.next() as u16 & 0x1f40 | masks);
    x87.set_fsw(random.next() as u16 & 0x7f00);
    put(&mut area, 0, &x87.fcw().to_le_bytes());
    put(&mut area, 2, &x87.fsw().to_le_bytes());
    area[5..24].fill(0);
    for register in area[32..160].chunks_exact_mut(16) {
        register[10..].fill(0);
    }
    let masked = if random.next() & 3 == 0 { 0 } else { 0x1f80 };
    let mxcsr = (random.next() as u32 & 0xffc0 | masked) & host::features().mxcsr_mask;
    put(&mut area, 24, &mxcsr.to_le_bytes());
    area[512..576].fill(0);
    area[512] = COMPONENTS as u8;
    if decoded.memory_index().is_vector_register() {
        // Indices that stay near the base.
        let number = decoded.memory_index().number();
        let mut small = [0u8; 64];
        small.chunks_exact_mut(8).for_each(|word| word[0] = random.next() as u8 & 7);
        if number < 16 {
            put(&mut area, 160 + number * 16, &small[..16]);
            put(&mut area, 0x240 + number * 16, &small[16..32]);
            put(&mut area, 0x480 + number * 32, &small[32..]);
        } else {
            put(&mut area, 0x680 + (number - 16) * 64, &small);
        }
    }
    area
}

/// The registers in an area: without pointers, MXCSR_MASK and the header.
fn registers(area: &[u8]) -> Vec<u8> {
    [&area[0..6], &area[24..28], &area[32..416], &area[0x240..0x340], &area[0x440..0xa80]].concat()
}

fn compare(random: &mut Random, b: &mut Bench) -> Option<Mnemonic> {
    let (decoded, bytes) = comparable(random)?;
    let area = area(random, &decoded);
    let mut gpr: [u64; 16] = std::array::from_fn(|_| value(random));
    (gpr[0], gpr[2]) = (gpr[0] & 31, gpr[2] & 31);
    let mut memory = Memory(std::array::from_fn(|_| 0));
    memory.0.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&value(random).to_le_bytes()));
    b.load(DATA - MIDDLE, &memory.0);
    b.cpu.load_xsave(&area);
    b.cpu.gpr[..16].copy_from_slice(&gpr);
    b.cpu.gpr[3] = DATA;
    let flags = random.next() & 0x8d5 | 2;
    b.cpu.set_rflags(flags);
    let resident = random.next() & 1 != 0;
    if resident {
        b.cpu.enter_x87();
    }
    let ours = run(b, &bytes);
    b.cpu.leave_x87();

    gpr[3] = memory.0.as_mut_ptr() as u64 + MIDDLE;
    let mut machine = Machine { vector: VectorState::default(), area, gpr, flags };
    let theirs = match native(&bytes, &mut machine) {
        None => Ok(()),
        Some(trap::SIGFPE) if classify::is_x87(&decoded) => Err(16),
        Some(trap::SIGFPE) => Err(19),
        Some(trap::SIGILL) => Err(6),
        Some(_) => Err(13),
    };
    let what = format!("{decoded} {bytes:02x?} fcw {:x?} mxcsr {:x?}", &area[..4], &area[24..28]);
    assert_eq!(ours, theirs, "{what}");
    if theirs.is_err() {
        if theirs == Err(19) {
            assert_eq!(b.cpu.vector.mxcsr, machine.vector.fault_mxcsr, "{what}");
        }
        return Some(decoded.mnemonic());
    }
    let compared = |all: &[u64]| -> Vec<u64> { [&all[..3], &all[5..7], &all[8..16]].concat() };
    assert_eq!(compared(&b.cpu.gpr), compared(&machine.gpr), "{what}");
    assert_eq!(b.cpu.rflags() & 0x8d5, machine.flags & 0x8d5, "{what}");
    let saved = b.cpu.save_xsave();
    let (found, wanted) = (registers(&saved), registers(&machine.area));
    if let Some(place) = found.iter().zip(&wanted).position(|(a, b)| a != b) {
        let near = place / 16 * 16..(place / 16 * 16 + 32).min(found.len());
        panic!("{what}: at {place}: {:02x?}, not {:02x?}", &found[near.clone()], &wanted[near]);
    }
    let mut after = Memory([0; 256]);
    b.ram.read(DATA - MIDDLE, &mut after.0);
    assert_eq!(after, memory, "{what}");
    Some(decoded.mnemonic())
}

fn differ(duration: Duration, seed: u64) -> usize {
    let mut random = Random(seed);
    let mut b = long();
    let start = Instant::now();
    let mut seen = std::collections::HashSet::new();
    while start.elapsed() < duration {
        seen.extend(compare(&mut random, &mut b).map(|mnemonic| mnemonic as u32));
    }
    seen.len()
}

#[test]
fn random_instructions_do_what_the_host_does() {
    if host::features().width == host::Width::Zmm {
        let seen = differ(Duration::from_secs(3), 0x0dd_ba11);
        assert!(seen > 50, "{seen}");
    }
}

/// The same for longer, with a seed from the environment (`SEED`).
#[test]
#[ignore = "takes a minute"]
fn random_instructions_do_what_the_host_does_for_a_minute() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    println!("{} mnemonics", differ(Duration::from_secs(60), seed));
}
