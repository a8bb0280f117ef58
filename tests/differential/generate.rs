//! Random instructions and register values that are likely to be interesting.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::native::{CODE, CODE_OFFSET, DATA, DATA_LEN, READ_ONLY, Registers};

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

/// What the test cannot run natively in a process, or what is not the same twice.
pub fn is_excluded(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let segments = [Register::FS, Register::GS];
    if instruction.has_segment_prefix_to(&segments) {
        return true;
    }
    let writes_segment = instruction.op_count() > 0
        && instruction.op_kind(0) == OpKind::Register
        && instruction.op_register(0).is_segment_register()
        && matches!(instruction.mnemonic(), Mov | Pop);
    writes_segment
        || instruction.is_jmp_far()
        || instruction.is_call_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far_indirect()
        || matches!(
            instruction.mnemonic(),
            // The kernel's business.
            Syscall | Sysenter | Sysexit | Sysret | Sysexitq | Sysretq | Int | Into | Int1 | Int3 | Retf | Iret | Iretd | Iretq
            // Segments and tables of the host.
            | Lds | Les | Lfs | Lgs | Lss | Lar | Lsl | Verr | Verw | Sgdt | Sidt | Sldt | Str | Smsw
            | Rdfsbase | Rdgsbase | Wrfsbase | Wrgsbase
            // Not the same twice.
            | Rdtsc | Rdtscp | Rdpmc | Rdrand | Rdseed | Cpuid | Rdpid | Xgetbv | Rdpru
            // State that the process or its kernel depends on.
            | Xsave | Xsave64 | Xsaveopt | Xsaveopt64 | Xsavec | Xsavec64 | Xsaves | Xsaves64 | Xrstor | Xrstor64
            | Xrstors | Xrstors64 | Wrpkru | Rdpkru
            // Extensions that the software CPU never shows.
            | Xbegin | Xabort | Xend | Xtest | Enqcmd | Enqcmds | Umonitor | Umwait | Tpause | Monitorx | Mwaitx | Clzero
            | Senduipi | Uiret | Clui | Stui | Testui | Ldtilecfg | Sttilecfg | Tilerelease | Tileloadd | Tileloaddt1
            | Tilestored | Tilezero | Tdpbf16ps | Tdpbssd | Tdpbsud | Tdpbusd | Tdpbuud | Serialize | Ptwrite | Cldemote
            | Movdiri | Movdir64b | Rdsspd | Rdsspq | Incsspd | Incsspq | Saveprevssp | Rstorssp | Wrssd | Wrssq
            | Vmcall | Vmmcall | Vmlaunch | Vmfunc | Vmrun | Pconfig | Encls | Enclu | Enclv
        )
}

trait SegmentPrefix {
    fn has_segment_prefix_to(&self, segments: &[Register]) -> bool;
}

impl SegmentPrefix for Instruction {
    fn has_segment_prefix_to(&self, segments: &[Register]) -> bool {
        segments.contains(&self.segment_prefix())
    }
}

const LEGACY_PREFIXES: [u8; 6] = [0x66, 0x66, 0xf2, 0xf3, 0xf0, 0x67];

fn opcode(random: &mut Random, compat: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(15);
    for _ in 0..4 {
        if random.one_in(4) {
            bytes.push(random.pick(&LEGACY_PREFIXES));
        }
    }
    match random.below(16) {
        // VEX
        0..=2 => {
            bytes.retain(|byte| *byte == 0x67);
            if random.one_in(3) {
                bytes.extend([0xc5, random.next() as u8]);
            } else {
                let map = 1 + random.below(3) as u8;
                bytes.extend([0xc4, random.next() as u8 & 0xe0 | map, random.next() as u8]);
            }
            if compat {
                let at = bytes.iter().position(|byte| *byte >= 0xc4).unwrap_or(0) + 1;
                bytes[at] |= 0xc0;
            }
            bytes.push(random.next() as u8);
        }
        // EVEX
        3..=4 => {
            bytes.retain(|byte| *byte == 0x67);
            let map = random.pick(&[1u8, 2, 3, 5, 6]);
            let mut p0 = random.next() as u8 & 0xf0 | map;
            if compat {
                p0 |= 0xf0;
            }
            bytes.extend([0x62, p0, random.next() as u8 | 4, random.next() as u8]);
            bytes.push(random.next() as u8);
        }
        kind => {
            if !compat && random.one_in(2) {
                bytes.push(0x40 | random.next() as u8 & 15);
            }
            match kind {
                5..=8 => bytes.push(random.next() as u8),
                9..=12 => bytes.extend([0x0f, random.next() as u8]),
                13 => bytes.extend([0x0f, 0x38, random.next() as u8]),
                14 => bytes.extend([0x0f, 0x3a, random.next() as u8]),
                _ => bytes.push(0xd8 + random.below(8) as u8),
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

/// Sets base and index registers so that the memory operand most often meets the data pages.
fn aim(random: &mut Random, instruction: &Instruction, registers: &mut Registers, compat: bool) {
    let target = match random.below(40) {
        0 => READ_ONLY + random.below(0xff0),
        1 => DATA + DATA_LEN as u64 - random.below(64),
        2 => random.next(),
        3..=20 => DATA + random.below(DATA_LEN as u64 - 64) / 64 * 64,
        _ => DATA + random.below(DATA_LEN as u64 - 64),
    };
    let displacement = instruction.memory_displacement64();
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    if index.is_gpr() && index != base {
        registers.gpr[index.number()] = random.below(64);
    }
    let scaled = if index.is_gpr() && index != base {
        registers.gpr[index.number()] * u64::from(instruction.memory_index_scale())
    } else {
        0
    };
    if base.is_gpr() {
        let mut address = target.wrapping_sub(displacement).wrapping_sub(scaled);
        if compat || base.size() == 4 {
            address &= 0xffff_ffff;
        }
        registers.gpr[base.number()] = address;
    }
}

/// A random case; `None`: the bytes drawn are excluded.
pub fn case(random: &mut Random, layout: &Layout) -> Option<Case> {
    let compat = random.one_in(4);
    let bytes = opcode(random, compat);
    let bits = if compat { 32 } else { 64 };
    let mut decoder = Decoder::with_ip(bits, &bytes, CODE + CODE_OFFSET, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if is_excluded(&instruction) {
        return None;
    }
    // A branch into itself might never end.
    let target = instruction.near_branch_target().wrapping_sub(CODE + CODE_OFFSET);
    if instruction.op_count() == 1
        && instruction.op0_kind() <= OpKind::NearBranch64
        && instruction.op0_kind() >= OpKind::NearBranch16
        && target < 15
    {
        return None;
    }
    let mut before = Registers::zero();
    for register in 0..16 {
        before.gpr[register] = value(random);
    }
    before.gpr[4] = DATA + 0x1000 + random.below(64) * 8;
    before.flags = random.next() & 0x8d5 | 0x202;
    if random.one_in(4) {
        before.flags |= 0x400;
    }
    if random.one_in(16) {
        before.flags |= 1 << 18;
    }
    xsave(random, &mut before.xsave, layout);
    let string = instruction.is_string_instruction();
    if string {
        before.gpr[6] = DATA + random.below(DATA_LEN as u64);
        before.gpr[7] = DATA + random.below(DATA_LEN as u64);
        before.gpr[1] = random.below(200);
    }
    if !instruction.is_invalid() && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory) {
        aim(random, &instruction, &mut before, compat);
    }
    if matches!(instruction.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu) {
        before.gpr[7] = DATA + random.below(DATA_LEN as u64);
    }
    if compat {
        for register in &mut before.gpr {
            *register &= 0xffff_ffff;
        }
    }
    before.rip = CODE + CODE_OFFSET;
    let mut data = vec![0; DATA_LEN];
    fill(random, &mut data);
    let len = if instruction.is_invalid() { 15 } else { instruction.len() };
    Some(Case { bytes: bytes[..len].to_vec(), instruction, compat, before, data })
}
