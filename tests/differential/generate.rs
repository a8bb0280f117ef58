//! Random instructions and register values that are likely to be interesting.

use iced_x86::{
    ConstantOffsets, Decoder, DecoderOptions, Formatter, GasFormatter, Instruction, Mnemonic, OpKind, Register,
};

use crate::native::{CODE, CODE_OFFSET, DATA, DATA_LEN, GS_BASE, READ_ONLY, Registers};

/// xorshift64*, so that a seed names a case.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1 | 1)
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// One case: an instruction and the state before it.
pub struct Case {
    /// The instruction's bytes.
    pub bytes: Vec<u8>,
    /// Its decoding; invalid ones are cases too.
    pub instruction: Instruction,
    /// 32-bit code in compatibility mode.
    pub compat: bool,
    /// Registers before.
    pub before: Box<Registers>,
    /// What the data pages hold.
    pub data: Vec<u8>,
}

/// MOV or POP to a segment register.
fn is_segment_load(instruction: &Instruction) -> bool {
    instruction.op_count() > 0
        && instruction.op_kind(0) == OpKind::Register
        && instruction.op_register(0).is_segment_register()
        && matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
}

/// INT with a vector that Linux opens to programs.
fn is_system_call(instruction: &Instruction) -> bool {
    matches!(instruction.immediate8(), 3 | 4) || instruction.immediate8() == 0x80
}

/// A selector that names no descriptor of the host: null, in a local table (there is none), or beyond the global one.
fn selector(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.below(4),
        1 => random.below(0x10000) | 4,
        2 => random.next() | 0x1000,
        _ => 0x100 + random.below(0xff00),
    }
}

/// What the test cannot run natively in a process, or what is not the same twice.
pub fn is_excluded(instruction: &Instruction, compat: bool) -> bool {
    use Mnemonic::*;
    // FS is the C library's; GS has no descriptor in compatibility mode.
    let segment = instruction.segment_prefix();
    if segment == Register::FS || segment == Register::GS && compat {
        return true;
    }
    if is_segment_load(instruction) {
        // FS and GS hold the process's bases. Selectors are chosen so that no descriptor of the host is found.
        let number = instruction.op_register(0);
        let register = instruction.op1_kind() == OpKind::Register && instruction.op1_register().is_gpr();
        return !register || matches!(number, Register::FS | Register::GS);
    }
    instruction.is_jmp_far()
        || instruction.is_call_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
        || instruction.mnemonic() == Int && is_system_call(instruction)
        || instruction.mnemonic() == Rdgsbase && compat
        || matches!(
            instruction.mnemonic(),
            // The kernel answers them, or reports a trap as it likes.
            Syscall | Sysenter | Into | Int1 | Int3
            // Far transfers and selectors: what they find is in the host's descriptor tables.
            | Retf | Iret | Iretd | Iretq | Lds | Les | Lfs | Lgs | Lss | Lar | Lsl | Verr | Verw
            // Linux answers them in the processor's place (UMIP).
            | Sgdt | Sidt | Sldt | Str | Smsw
            // FS is the C library's; GS_BASE would have to be put back by a system call.
            | Rdfsbase | Wrfsbase | Wrgsbase
            // Not the same twice.
            | Rdtsc | Rdtscp | Rdpmc | Rdrand | Rdseed | Cpuid | Rdpid | Rdpru
            // Which components are in their initial state, and so what XSAVE writes, is the processor's to track; it has
            // components that the software CPU has not. vector/tests/saves.rs tests these.
            | Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xsaves | Xsaves64 | Xrstor | Xrstor64
            | Xrstors | Xrstors64
            // Would take the process's own memory from it.
            | Wrpkru
            // Extensions that the software CPU never shows.
            | Xbegin | Xabort | Xend | Xtest | Enqcmd | Enqcmds | Umonitor | Umwait | Tpause | Monitorx | Mwaitx | Clzero
            | Senduipi | Uiret | Clui | Stui | Testui | Ldtilecfg | Sttilecfg | Tilerelease | Tileloadd | Tileloaddt1
            | Tilestored | Tilezero | Tdpbf16ps | Tdpbssd | Tdpbsud | Tdpbusd | Tdpbuud | Serialize | Ptwrite | Cldemote
            | Movdiri | Movdir64b | Rdsspd | Rdsspq | Incsspd | Incsspq | Saveprevssp | Rstorssp | Wrssd | Wrssq
            | Vmcall | Vmmcall | Vmlaunch | Vmfunc | Vmrun | Pconfig | Encls | Enclu | Enclv
        )
}

const LEGACY_PREFIXES: [u8; 6] = [0x66, 0x66, 0xf2, 0xf3, 0xf0, 0x67];

/// VEX with a random opcode; `map` 0F, 0F38 or 0F3A.
fn vex(random: &mut Random, compat: bool, bytes: &mut Vec<u8>) {
    bytes.retain(|byte| *byte == 0x67);
    // Most instructions of two operands want vvvv to be 1111.
    let free = if random.one_in(3) { 0x78 } else { 0 };
    let at = bytes.len() + 1;
    if random.one_in(4) {
        bytes.extend([0xc5, random.next() as u8 | free]);
    } else {
        let map = 1 + random.below(3) as u8;
        bytes.extend([0xc4, random.next() as u8 & 0xe0 | map, random.next() as u8 | free]);
    }
    if compat {
        bytes[at] |= 0xc0;
    }
    bytes.push(random.next() as u8);
}

/// The three bytes of an EVEX prefix after 62h.
fn evex_payload(random: &mut Random, compat: bool, map: u8) -> [u8; 3] {
    let mut p0 = random.next() as u8 & 0xf0 | map;
    if compat {
        p0 |= 0xf0;
    }
    let free = if random.one_in(3) { 0x78 } else { 0 };
    let mut p2 = random.next() as u8;
    if free != 0 {
        p2 |= 8;
    }
    if !random.one_in(3) {
        // No broadcast, rounding or zeroing.
        p2 &= 0x6f;
    }
    [p0, random.next() as u8 | 4 | free, p2]
}

fn evex(random: &mut Random, compat: bool, bytes: &mut Vec<u8>) {
    bytes.retain(|byte| *byte == 0x67);
    let map = random.pick(&[1u8, 1, 2, 2, 3, 5, 6]);
    bytes.push(0x62);
    bytes.extend(evex_payload(random, compat, map));
    bytes.push(random.next() as u8);
}

/// Gathers, scatters, masked moves, compressed ones: what accesses memory element by element.
fn by_element(random: &mut Random, compat: bool, bytes: &mut Vec<u8>) {
    bytes.retain(|byte| *byte == 0x67);
    let indexed = random.one_in(2);
    let reg = random.next() as u8 & 0x38;
    if random.one_in(2) {
        let opcode = if indexed {
            random.pick(&[0x90u8, 0x91, 0x92, 0x93])
        } else {
            random.pick(&[0x2cu8, 0x2d, 0x2e, 0x2f, 0x8c, 0x8e])
        };
        let p0 = random.next() as u8 & 0xe0 | if compat { 0xe2 } else { 2 };
        bytes.extend([0xc4, p0, random.next() as u8 & 0xfc | if compat { 0x41 } else { 1 }, opcode]);
    } else {
        let opcode = if indexed {
            random.pick(&[0x90u8, 0x91, 0x92, 0x93, 0xa0, 0xa1, 0xa2, 0xa3])
        } else {
            random.pick(&[0x88u8, 0x89, 0x8a, 0x8b, 0x62, 0x63])
        };
        let [p0, p1, p2] = evex_payload(random, compat, 2);
        bytes.extend([0x62, p0, p1 & 0xfc | 0x7d, p2 & 0x6f, opcode]);
    }
    let form = random.pick(&[0u8, 0x40, 0x80]);
    bytes.push(form | reg | if indexed { 4 } else { random.next() as u8 & 7 });
}

/// What can be locked, with a memory operand.
fn locked(random: &mut Random, compat: bool, bytes: &mut Vec<u8>) {
    bytes.retain(|byte| matches!(byte, 0x66 | 0x67));
    bytes.push(0xf0);
    if !compat && random.one_in(2) {
        bytes.push(0x40 | random.next() as u8 & 15);
    }
    if random.one_in(2) {
        let first = random.next() as u8 & 0x38;
        bytes.push(random.pick(&[first, first | 1, 0x80, 0x81, 0x83, 0x86, 0x87, 0xf6, 0xf7, 0xfe, 0xff]));
    } else {
        bytes.extend([0x0f, random.pick(&[0xb0u8, 0xb1, 0xc0, 0xc1, 0xc7, 0xc7, 0xab, 0xb3, 0xbb, 0xba])]);
    }
    bytes.push(random.next() as u8 & 0x3f | random.pick(&[0u8, 0x40, 0x80]));
}

fn rex(random: &mut Random, compat: bool, bytes: &mut Vec<u8>) {
    if !compat && random.one_in(2) {
        bytes.push(0x40 | random.next() as u8 & 15);
    }
}

fn opcode(random: &mut Random, compat: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(15);
    for _ in 0..4 {
        if random.one_in(4) {
            bytes.push(random.pick(&LEGACY_PREFIXES));
        }
    }
    if !compat && random.one_in(24) {
        // GS.
        bytes.push(0x65);
    }
    match random.below(32) {
        0..=4 => vex(random, compat, &mut bytes),
        5..=8 => evex(random, compat, &mut bytes),
        9 => by_element(random, compat, &mut bytes),
        10 => locked(random, compat, &mut bytes),
        kind => {
            if kind == 11 {
                bytes.push(random.pick(&[0xf2, 0xf3]));
            }
            rex(random, compat, &mut bytes);
            match kind {
                11 => bytes.push(random.pick(&[0xa4u8, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf])),
                12..=13 => bytes.push(0xd8 + random.below(8) as u8),
                14..=19 => bytes.push(random.next() as u8),
                20..=27 => bytes.extend([0x0f, random.next() as u8]),
                28..=29 => bytes.extend([0x0f, 0x38, random.next() as u8]),
                _ => bytes.extend([0x0f, 0x3a, random.next() as u8]),
            }
        }
    }
    while bytes.len() < 15 {
        bytes.push(random.next() as u8);
    }
    bytes.truncate(15);
    bytes
}

fn value(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => 1 << random.below(64),
        4 => random.pick(&[
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0x8000,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            i64::MAX as u64,
        ]),
        5 => random.below(64),
        6 => DATA + random.below(DATA_LEN as u64),
        7 => random.next() & 0xffff_ffff,
        _ => random.next(),
    }
}

fn float32(random: &mut Random) -> u32 {
    match random.below(12) {
        0 => 0,
        1 => 0x8000_0000,
        2 => 0x7f80_0000,
        3 => 0xff80_0000,
        4 => 0x7fc0_0000,
        5 => 0x7fa0_0001,
        6 => random.below(0x80_0000) as u32,
        7 => (random.below(1000) as f32 - 500.0).to_bits(),
        8 => 0x7f7f_ffff,
        _ => random.next() as u32,
    }
}

fn float64(random: &mut Random) -> u64 {
    match random.below(12) {
        0 => 0,
        1 => 1 << 63,
        2 => 0x7ff0_0000_0000_0000,
        3 => 0x7ff8_0000_0000_0000,
        4 => 0x7ff4_0000_0000_0001,
        5 => random.next() & 0x800f_ffff_ffff_ffff,
        6 => (random.below(100_000) as f64 / 7.0 - 5000.0).to_bits(),
        _ => random.next(),
    }
}

/// Fills bytes with floats, integers or noise.
fn fill(random: &mut Random, bytes: &mut [u8]) {
    for chunk in bytes.chunks_exact_mut(8) {
        let value = match random.below(4) {
            0 => float64(random),
            1 => u64::from(float32(random)) | u64::from(float32(random)) << 32,
            2 => value(random),
            _ => random.next(),
        };
        chunk.copy_from_slice(&value.to_le_bytes());
    }
}

fn float80(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    let exponent: u16 = match random.below(8) {
        0 => 0,
        1 => 0x7fff,
        2 => 0x3fff,
        3..=5 => 0x3fff - 70 + random.below(140) as u16,
        _ => random.next() as u16 & 0x7fff,
    };
    let mut mantissa = random.next();
    match random.below(8) {
        0 => mantissa = 1 << 63,
        1 => mantissa = 0,
        2 => mantissa &= !(1 << 63),
        _ => mantissa |= 1 << 63,
    }
    let sign = (random.next() as u16) & 0x8000;
    bytes[..8].copy_from_slice(&mantissa.to_le_bytes());
    bytes[8..10].copy_from_slice(&(exponent | sign).to_le_bytes());
    bytes
}

/// Offsets of standard XSAVE components on this host: (component, offset, length).
pub type Layout = Vec<(u32, usize, usize)>;

fn xsave(random: &mut Random, image: &mut [u8], layout: &Layout) {
    let fcw: u16 = if random.one_in(4) { random.next() as u16 & 0x0f3f | 0x40 } else { 0x37f };
    let top = random.below(8) as u16;
    let fsw: u16 = top << 11 | (random.next() as u16 & 0x4700);
    image[0..2].copy_from_slice(&fcw.to_le_bytes());
    image[2..4].copy_from_slice(&fsw.to_le_bytes());
    image[4] = if random.one_in(2) { 0xff } else { random.next() as u8 };
    let mxcsr: u32 = match random.below(4) {
        0 => random.next() as u32 & 0xffff,
        1 => random.next() as u32 & 0xe040 | 0x1f80,
        _ => 0x1f80,
    };
    image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    for register in 0..8 {
        image[32 + 16 * register..48 + 16 * register].copy_from_slice(&float80(random));
    }
    fill(random, &mut image[160..416]);
    let mut features = 3u64;
    for &(component, offset, len) in layout {
        if matches!(component, 2 | 5 | 6 | 7) {
            fill(random, &mut image[offset..offset + len]);
            features |= 1 << component;
        } else if component == 9 {
            // Linux's default: all keys but 0 are off.
            image[offset..offset + 4].copy_from_slice(&0x5555_5554u32.to_le_bytes());
            features |= 1 << 9;
        }
    }
    image[512..520].copy_from_slice(&features.to_le_bytes());
}

/// Where a memory operand shall be: most often in the data pages, now and then across an edge.
fn target(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => READ_ONLY + random.below(0x1000),
        1..=2 => DATA + DATA_LEN as u64 - random.below(128),
        3..=5 => DATA + 0x1000 - random.below(64),
        6 => DATA - random.below(64),
        7 => random.next(),
        8..=22 => DATA + random.below(DATA_LEN as u64 - 64) / 64 * 64,
        _ => DATA + random.below(DATA_LEN as u64 - 64),
    }
}

/// Changes the 512 bits of a vector register, as far as the host has them.
fn set_vector(image: &mut [u8], layout: &Layout, number: usize, value: &[u8; 64]) {
    let place = |component| layout.iter().find(|part| part.0 == component).map(|part| part.1);
    if number < 16 {
        image[160 + 16 * number..176 + 16 * number].copy_from_slice(&value[..16]);
        if let Some(at) = place(2) {
            image[at + 16 * number..at + 16 + 16 * number].copy_from_slice(&value[16..32]);
        }
        if let Some(at) = place(6) {
            image[at + 32 * number..at + 32 + 32 * number].copy_from_slice(&value[32..]);
        }
    } else if let Some(at) = place(7) {
        image[at + 64 * (number - 16)..at + 64 * (number - 15)].copy_from_slice(value);
    }
}

/// Indices of a gather or scatter.
fn indices(random: &mut Random, instruction: &Instruction, registers: &mut Registers, layout: &Layout) {
    let mut value = [0; 64];
    let wide = instruction.is_vsib64();
    for chunk in value.chunks_exact_mut(if wide { 8 } else { 4 }) {
        let index: u64 = match random.below(24) {
            0 => random.next(),
            1 => random.below(4096),
            2..=5 => random.below(64).wrapping_neg(),
            _ => random.below(64),
        };
        chunk.copy_from_slice(&index.to_le_bytes()[..chunk.len()]);
    }
    set_vector(&mut registers.xsave, layout, instruction.memory_index().number(), &value);
}

/// Sets base and index registers so that the memory operand most often meets the data pages.
fn aim(random: &mut Random, instruction: &Instruction, registers: &mut Registers, compat: bool, target: u64) {
    let displacement = instruction.memory_displacement64();
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let separate = index.is_gpr() && index != base;
    let scaled = if separate {
        registers.gpr[index.number()] = random.below(64);
        registers.gpr[index.number()] * u64::from(instruction.memory_index_scale())
    } else {
        0
    };
    if base.is_gpr() {
        let mut address = target.wrapping_sub(displacement).wrapping_sub(scaled).wrapping_sub(gs(instruction));
        if compat || base.size() == 4 {
            address &= 0xffff_ffff;
        }
        registers.gpr[base.number()] = address;
    }
}

/// What the segment adds to an address.
fn gs(instruction: &Instruction) -> u64 {
    if instruction.memory_segment() == Register::GS { GS_BASE } else { 0 }
}

/// Moves an operand without base register to `target`, by its displacement.
fn aim_displacement(bytes: &mut [u8], instruction: &Instruction, offsets: &ConstantOffsets, target: u64) {
    let base = instruction.memory_base();
    if base.is_gpr() || !offsets.has_displacement() || offsets.displacement_size() < 4 {
        return;
    }
    let next = if base == Register::None { 0 } else { instruction.next_ip() };
    let displacement = target.wrapping_sub(next).wrapping_sub(gs(instruction)).to_le_bytes();
    let (at, len) = (offsets.displacement_offset(), offsets.displacement_size());
    bytes[at..at + len].copy_from_slice(&displacement[..len]);
}

fn has_memory(instruction: &Instruction) -> bool {
    !instruction.is_invalid() && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
}

/// Bytes and their decoding; most of what is no instruction is drawn again.
fn draw(random: &mut Random, compat: bool, target: u64) -> (Vec<u8>, Instruction) {
    let bits = if compat { 32 } else { 64 };
    let mut bytes = opcode(random, compat);
    for _ in 0..20 {
        let mut decoder = Decoder::with_ip(bits, &bytes, CODE + CODE_OFFSET, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() && !random.one_in(20) {
            bytes = opcode(random, compat);
            continue;
        }
        if has_memory(&instruction) && !random.one_in(8) {
            let offsets = decoder.get_constant_offsets(&instruction);
            aim_displacement(&mut bytes, &instruction, &offsets, target);
        }
        break;
    }
    let instruction = Decoder::with_ip(bits, &bytes, CODE + CODE_OFFSET, DecoderOptions::NONE).decode();
    (bytes, instruction)
}

/// Cases with the same memory before them.
const CASES_PER_FILL: u64 = 16;

/// Draws cases.
pub struct Generator {
    random: Random,
    layout: Layout,
    data: Vec<u8>,
    drawn: u64,
    only: Option<String>,
}

impl Generator {
    /// A generator; equal seeds give equal cases. `only`: of instructions whose disassembly contains this text.
    pub fn new(seed: u64, layout: Layout, only: Option<String>) -> Self {
        Self { random: Random::new(seed), layout, data: vec![0; DATA_LEN], drawn: 0, only }
    }

    /// A random case; `None`: the bytes drawn are excluded.
    pub fn case(&mut self) -> Option<Case> {
        if self.drawn.is_multiple_of(CASES_PER_FILL) {
            fill(&mut self.random, &mut self.data);
        }
        self.drawn += 1;
        case(&mut self.random, &self.layout, &self.data, self.only.as_deref())
    }
}

/// The instruction in AT&T's syntax.
pub fn disassembly(instruction: &Instruction) -> String {
    if instruction.is_invalid() {
        return "(invalid)".to_owned();
    }
    let mut text = String::new();
    GasFormatter::new().format(instruction, &mut text);
    text
}

fn case(random: &mut Random, layout: &Layout, data: &[u8], only: Option<&str>) -> Option<Case> {
    let compat = random.one_in(4);
    let target = target(random);
    let (bytes, instruction) = draw(random, compat, target);
    if only.is_some_and(|only| !disassembly(&instruction).contains(only)) {
        return None;
    }
    if is_excluded(&instruction, compat) {
        return None;
    }
    // A branch into itself might never end.
    let destination = instruction.near_branch_target().wrapping_sub(CODE + CODE_OFFSET);
    if instruction.op_count() == 1
        && instruction.op0_kind() <= OpKind::NearBranch64
        && instruction.op0_kind() >= OpKind::NearBranch16
        && destination < 15
    {
        return None;
    }
    let mut before = Registers::zero();
    for register in 0..16 {
        before.gpr[register] = value(random);
    }
    before.gpr[4] = DATA + 0x1000 + random.below(64) * 8;
    if random.one_in(32) {
        before.gpr[4] = DATA + random.below(DATA_LEN as u64 + 16);
    }
    before.flags = random.next() & 0x8d5 | 0x202;
    if random.one_in(4) {
        before.flags |= 0x400;
    }
    if random.one_in(16) {
        before.flags |= 1 << 18;
    }
    xsave(random, &mut before.xsave, layout);
    if instruction.is_string_instruction() {
        before.gpr[6] = string_pointer(random).wrapping_sub(gs(&instruction));
        before.gpr[7] = string_pointer(random);
        before.gpr[1] = random.below(200);
    }
    if has_memory(&instruction) {
        aim(random, &instruction, &mut before, compat, target);
        if instruction.is_vsib() {
            indices(random, &instruction, &mut before, layout);
        }
    }
    if is_segment_load(&instruction) {
        before.gpr[instruction.op1_register().full_register().number()] = selector(random);
    }
    if instruction.mnemonic() == Mnemonic::Xgetbv && before.gpr[1] as u32 == 1 {
        // The components in use are the processor's to track.
        before.gpr[1] = 0;
    }
    if matches!(instruction.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu) {
        before.gpr[7] = target.wrapping_sub(gs(&instruction));
    }
    if compat {
        for register in &mut before.gpr {
            *register &= 0xffff_ffff;
        }
    }
    before.rip = CODE + CODE_OFFSET;
    let len = if instruction.is_invalid() { 15 } else { instruction.len() };
    Some(Case { bytes: bytes[..len].to_vec(), instruction, compat, before, data: data.to_vec() })
}

/// Where a string begins: near an edge now and then.
fn string_pointer(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => DATA + DATA_LEN as u64 - random.below(256),
        1 => DATA + random.below(256),
        2 => DATA + 0x1000 - random.below(256),
        _ => DATA + random.below(DATA_LEN as u64),
    }
}
