//! FXSAVE, the XSAVE family, XGETBV and XSETBV, LDMXCSR and STMXCSR (SDM volume 1, chapters 10.5 and 13).

use iced_x86::{Code, Instruction, Mnemonic};

use crate::cpu::Mode;

use super::super::cpu::{Cpu, Exception, Fault, Flow, Step, gpr};
use super::super::op::{Handler, Op};
use super::host;
use super::layout::{HEADER_END, Part};
use super::run::{CR0_EM, CR0_TS, CR4_OSXSAVE};
use super::state::{LastX87, MXCSR_DEFAULT, ST};

/// Longest area: header, and the standard form of all components that there are.
const AREA: usize = 4096;
/// XCOMP_BV: the compacted form.
const COMPACTED: u64 = 1 << 63;
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const ZMM: u64 = 7 << 5;
/// EFER: FXSAVE and FXRSTOR leave out the XMM registers in 64-bit mode at privilege level 0.
const EFER_FFXSR: u64 = 1 << 14;

/// What executes an instruction of this module.
pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let wide = matches!(
        instruction.code(),
        Code::Fxsave64_m512byte
            | Code::Fxrstor64_m512byte
            | Code::Xsave64_mem
            | Code::Xsaveopt64_mem
            | Code::Xsavec64_mem
            | Code::Xsaves64_mem
            | Code::Xrstor64_mem
            | Code::Xrstors64_mem
    );
    let pick = |narrow: Handler, broad: Handler| if wide { broad } else { narrow };
    Some(match instruction.mnemonic() {
        M::Fxsave | M::Fxsave64 => pick(fxsave::<false>, fxsave::<true>),
        M::Fxrstor | M::Fxrstor64 => pick(fxrstor::<false>, fxrstor::<true>),
        M::Xsave | M::Xsave64 => pick(save::<false, PLAIN>, save::<true, PLAIN>),
        M::Xsaveopt | M::Xsaveopt64 => pick(save::<false, OPTIMIZED>, save::<true, OPTIMIZED>),
        M::Xsavec | M::Xsavec64 => pick(save::<false, COMPACT>, save::<true, COMPACT>),
        M::Xsaves | M::Xsaves64 => pick(save::<false, SUPERVISOR>, save::<true, SUPERVISOR>),
        M::Xrstor | M::Xrstor64 => pick(restore::<false, PLAIN>, restore::<true, PLAIN>),
        M::Xrstors | M::Xrstors64 => pick(restore::<false, SUPERVISOR>, restore::<true, SUPERVISOR>),
        M::Xgetbv => xgetbv,
        M::Xsetbv => xsetbv,
        M::Ldmxcsr | M::Vldmxcsr => ldmxcsr,
        M::Stmxcsr | M::Vstmxcsr => stmxcsr,
        _ => return None,
    })
}

/// Which registers an area holds, and how.
#[derive(Clone, Copy)]
struct Shape {
    /// FIP and FDP of 64 bits, without selectors.
    wide: bool,
    /// XMM8-XMM15, ZMM8 and up.
    long: bool,
}

fn shape(cpu: &Cpu, wide: bool) -> Shape {
    Shape { wide, long: cpu.mode == Mode::Long64 }
}

fn put(area: &mut [u8], at: usize, bytes: &[u8]) {
    area[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(area: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([area[at], area[at + 1]])
}

fn double(area: &[u8], at: usize) -> u32 {
    u32::from(word(area, at)) | u32::from(word(area, at + 2)) << 16
}

fn quad(area: &[u8], at: usize) -> u64 {
    u64::from(double(area, at)) | u64::from(double(area, at + 4)) << 32
}

impl Cpu {
    /// x87 as FXSAVE stores it, bytes 0-23 and 32-159.
    fn store_x87(&self, area: &mut [u8], shape: Shape) {
        let (x87, last) = (&self.vector.x87, &self.vector.last);
        put(area, 0, &x87.fcw().to_le_bytes());
        put(area, 2, &x87.fsw().to_le_bytes());
        area[4] = x87.used();
        area[5] = 0;
        put(area, 6, &(last.fop & 0x7ff).to_le_bytes());
        put(area, 8, &last.fip.to_le_bytes());
        put(area, 16, &last.fdp.to_le_bytes());
        if !shape.wide {
            let none = self.vector.layout.zero_selectors;
            put(area, 12, &u32::from(if none { 0 } else { last.fcs }).to_le_bytes());
            put(area, 20, &u32::from(if none { 0 } else { last.fds }).to_le_bytes());
        }
        put(area, ST, &x87.0[ST..ST + 128]);
        for register in area[ST..ST + 128].chunks_exact_mut(16) {
            register[10..].fill(0);
        }
    }

    fn load_x87(&mut self, area: &[u8], shape: Shape) {
        let x87 = &mut self.vector.x87;
        for (i, register) in area[ST..ST + 128].chunks_exact(16).enumerate() {
            x87.set_register(i, register);
        }
        x87.set_used(area[4]);
        x87.set_fcw(word(area, 0));
        x87.set_fsw(word(area, 2));
        let fop = word(area, 6) & 0x7ff;
        self.vector.last = if shape.wide {
            LastX87 { fip: quad(area, 8), fdp: quad(area, 16), fcs: 0, fds: 0, fop }
        } else {
            let (fip, fdp) = (double(area, 8).into(), double(area, 16).into());
            LastX87 { fip, fdp, fcs: word(area, 12), fds: word(area, 20), fop }
        };
    }

    fn init_x87_state(&mut self) {
        self.vector.x87 = super::state::X87::default();
        self.vector.last = LastX87::default();
    }

    fn store_mxcsr(&self, area: &mut [u8]) {
        put(area, 24, &self.vector.mxcsr.to_le_bytes());
        put(area, 28, &host::features().mxcsr_mask.to_le_bytes());
    }

    fn store_xmm(&self, area: &mut [u8], shape: Shape) {
        for number in 0..if shape.long { 16 } else { 8 } {
            put(area, 160 + usize::from(number) * 16, &self.vector.xmm(number).to_le_bytes());
        }
    }

    fn load_xmm(&mut self, area: &[u8], shape: Shape) {
        for number in 0..if shape.long { 16 } else { 8 } {
            let at = 160 + usize::from(number) * 16;
            let value = u128::from(quad(area, at)) | u128::from(quad(area, at + 8)) << 64;
            self.vector.set_xmm(number, value);
        }
    }

    /// #GP(0) for bits that MXCSR does not have.
    fn check_mxcsr(&mut self, value: u32) -> Result<(), Fault> {
        if value & !host::features().mxcsr_mask == 0 { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    /// Bytes of a component beyond SSE.
    fn store_part(&self, part: &Part, area: &mut [u8], shape: Shape) {
        let zmm = &self.vector.zmm;
        let low = if shape.long { 16 } else { 8 };
        match part.number {
            2 => (0..low).for_each(|i| put_words(area, i * 16, &zmm[i][2..4])),
            5 => put_words(area, 0, &self.vector.k),
            6 => (0..low).for_each(|i| put_words(area, i * 32, &zmm[i][4..8])),
            7 if shape.long => (0..16).for_each(|i| put_words(area, i * 64, &zmm[i + 16])),
            9 => put(area, 0, &pkru(self).to_le_bytes()),
            _ => {}
        }
    }

    fn load_part(&mut self, part: &Part, area: &[u8], shape: Shape) {
        let zmm = &mut self.vector.zmm;
        let low = if shape.long { 16 } else { 8 };
        let words = |to: &mut [u64], at: usize| {
            to.iter_mut().enumerate().for_each(|(i, word)| *word = quad(area, at + i * 8));
        };
        match part.number {
            2 => (0..low).for_each(|i| words(&mut zmm[i][2..4], i * 16)),
            5 => words(&mut self.vector.k, 0),
            6 => (0..low).for_each(|i| words(&mut zmm[i][4..8], i * 32)),
            7 if shape.long => (0..16).for_each(|i| words(&mut zmm[i + 16], i * 64)),
            9 => set_pkru(self, double(area, 0)),
            _ => {}
        }
    }

    fn init_part(&mut self, part: &Part, shape: Shape) {
        let zeros = [0; 1024];
        self.load_part(part, &zeros, shape);
    }

    /// The components that are not in their initial state (SDM volume 1, 13.6). Registers that a mode cannot name do
    /// not count in it.
    fn in_use(&self) -> u64 {
        let long = self.mode == Mode::Long64;
        let low = if long { 16 } else { 8 };
        let zmm = &self.vector.zmm;
        let set = |words: std::ops::Range<usize>| zmm[..low].iter().any(|r| r[words.clone()].iter().any(|w| *w != 0));
        let x87 = &self.vector.x87;
        let x87_used = x87.fcw() != 0x37f
            || x87.fsw() != 0
            || x87.used() != 0
            || self.vector.last != LastX87::default()
            || x87.0[ST..ST + 128].iter().any(|byte| *byte != 0);
        let high = long && zmm[16..].iter().any(|register| *register != [0; 8]);
        u64::from(x87_used)
            | u64::from(set(0..2)) << 1
            | u64::from(set(2..4)) << 2
            | u64::from(self.vector.k != [0; 8]) << 5
            | u64::from(set(4..8)) << 6
            | u64::from(high) << 7
            | u64::from(pkru(self) != 0) << 9
    }

    /// #UD and #NM of the XSAVE family.
    fn check_xsave(&mut self) -> Result<(), Fault> {
        self.sync_x87();
        if self.cr4 & CR4_OSXSAVE == 0 {
            return Err(self.raise(Exception::UD));
        }
        if self.cr0 & CR0_TS != 0 { Err(self.raise(Exception::NM)) } else { Ok(()) }
    }

    /// EDX:EAX and XCR0.
    fn requested(&self) -> u64 {
        let mask = u64::from(self.reg32(gpr::RAX as u8)) | u64::from(self.reg32(gpr::RDX as u8)) << 32;
        mask & self.vector.xcr0
    }

    fn require(&mut self, condition: bool) -> Result<(), Fault> {
        if condition { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    /// The XSAVE area in standard form with all components of the processor, whatever XCR0 says. Not between
    /// [`Cpu::enter_x87`] and [`Cpu::leave_x87`].
    #[must_use]
    pub fn save_xsave(&self) -> Vec<u8> {
        let shape = Shape { wide: true, long: true };
        let layout = &self.vector.layout;
        let mut area = vec![0; layout.standard_len(layout.supported)];
        self.store_x87(&mut area, shape);
        self.store_mxcsr(&mut area);
        self.store_xmm(&mut area, shape);
        put(&mut area, 512, &layout.supported.to_le_bytes());
        for (part, at) in layout.standard(layout.supported) {
            self.store_part(&part, &mut area[at..at + part.size], shape);
        }
        area
    }

    /// Takes the registers of an XSAVE area in standard form. Components that it does not name, or that are beyond its
    /// end, get their initial state.
    pub fn load_xsave(&mut self, xsave: &[u8]) {
        self.sync_x87();
        let shape = Shape { wide: true, long: true };
        let layout = std::sync::Arc::clone(&self.vector.layout);
        let mut area = vec![0; layout.standard_len(layout.supported).max(HEADER_END)];
        let len = xsave.len().min(area.len());
        area[..len].copy_from_slice(&xsave[..len]);
        // An area without a header word is a plain FXSAVE area (what machines have at power-on).
        let present = quad(&area, 512) | X87 | SSE;
        self.load_x87(&area, shape);
        self.vector.mxcsr = double(&area, 24) & host::features().mxcsr_mask;
        self.load_xmm(&area, shape);
        for (part, at) in layout.standard(layout.supported) {
            match present >> part.number & 1 {
                0 => self.init_part(&part, shape),
                _ => self.load_part(&part, &area[at..at + part.size], shape),
            }
        }
    }
}

fn put_words(area: &mut [u8], at: usize, words: &[u64]) {
    words.iter().enumerate().for_each(|(i, word)| put(area, at + i * 8, &word.to_le_bytes()));
}

fn pkru(cpu: &Cpu) -> u32 {
    cpu.mmu.pkru()
}

fn set_pkru(cpu: &mut Cpu, value: u32) {
    cpu.mmu.set_pkru(value);
}

/// Where the operand is, if it is aligned.
fn place(cpu: &mut Cpu, op: &Op, align: u8) -> Result<u64, Fault> {
    let offset = cpu.effective_address(&op.mem);
    cpu.check_vector_alignment(op.mem.segment, offset, align)?;
    Ok(offset)
}

/// #NM of FXSAVE and FXRSTOR.
fn check_fxsave(cpu: &mut Cpu) -> Result<(), Fault> {
    cpu.sync_x87();
    if cpu.cr0 & (CR0_EM | CR0_TS) == 0 { Ok(()) } else { Err(cpu.raise(Exception::NM)) }
}

/// Whether FXSAVE and FXRSTOR leave out the XMM registers.
fn is_fast(cpu: &Cpu) -> bool {
    cpu.efer & EFER_FFXSR != 0 && cpu.mode == Mode::Long64 && cpu.cpl == 0
}

fn fxsave<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    check_fxsave(cpu)?;
    let offset = place(cpu, op, 16)?;
    let shape = shape(cpu, WIDE);
    let mut area = [0; 512];
    cpu.probe_write(op.mem.segment, offset, 512)?;
    // What is not stored keeps its value.
    cpu.read_bytes(op.mem.segment, offset, &mut area)?;
    cpu.store_x87(&mut area, shape);
    cpu.store_mxcsr(&mut area);
    if !is_fast(cpu) {
        cpu.store_xmm(&mut area, shape);
    }
    cpu.write_bytes(op.mem.segment, offset, &area)?;
    Ok(Flow::Next)
}

fn fxrstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    check_fxsave(cpu)?;
    let offset = place(cpu, op, 16)?;
    let mut area = [0; 512];
    cpu.read_bytes(op.mem.segment, offset, &mut area)?;
    cpu.check_mxcsr(double(&area, 24))?;
    let shape = shape(cpu, WIDE);
    cpu.load_x87(&area, shape);
    cpu.vector.mxcsr = double(&area, 24);
    if !is_fast(cpu) {
        cpu.load_xmm(&area, shape);
    }
    Ok(Flow::Next)
}

fn ldmxcsr(cpu: &mut Cpu, op: &Op) -> Step {
    check_mxcsr_access(cpu, op)?;
    let offset = cpu.effective_address(&op.mem);
    let value: u32 = cpu.read(op.mem.segment, offset)?;
    cpu.check_mxcsr(value)?;
    cpu.vector.mxcsr = value;
    Ok(Flow::Next)
}

fn stmxcsr(cpu: &mut Cpu, op: &Op) -> Step {
    check_mxcsr_access(cpu, op)?;
    let offset = cpu.effective_address(&op.mem);
    cpu.write(op.mem.segment, offset, cpu.vector.mxcsr)?;
    Ok(Flow::Next)
}

fn check_mxcsr_access(cpu: &mut Cpu, op: &Op) -> Result<(), Fault> {
    let vex = op.cold.as_ref().is_some_and(|cold| cold.instruction.encoding() == iced_x86::EncodingKind::VEX);
    cpu.check_vector(if vex { super::classify::Class::Avx } else { super::classify::Class::Sse })
}

const PLAIN: u8 = 0;
const OPTIMIZED: u8 = 1;
const COMPACT: u8 = 2;
const SUPERVISOR: u8 = 3;

/// XSAVE, XSAVEOPT, XSAVEC, XSAVES (13.7 to 13.11). There are no supervisor components, so IA32_XSS is 0.
fn save<const WIDE: bool, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_xsave()?;
    if KIND == SUPERVISOR {
        cpu.require(cpu.cpl == 0)?;
    }
    let offset = place(cpu, op, 64)?;
    let (requested, shape) = (cpu.requested(), shape(cpu, WIDE));
    let mut used = cpu.in_use() & requested;
    let compacted = KIND == COMPACT || KIND == SUPERVISOR;
    if compacted && requested & SSE != 0 && cpu.vector.mxcsr != MXCSR_DEFAULT {
        used |= SSE;
    }
    let layout = std::sync::Arc::clone(&cpu.vector.layout);
    let (places, len) = if compacted {
        layout.compacted(requested)
    } else {
        (layout.standard(requested), layout.standard_len(requested))
    };
    let mut area = [0; AREA];
    let area = &mut area[..len.min(AREA)];
    cpu.probe_write(op.mem.segment, offset, 512)?;
    // What is not stored keeps its value. and all of it must be there to be written.
    cpu.read_bytes(op.mem.segment, offset, area)?;
    let written = if KIND == PLAIN { requested } else { used };
    store_legacy(cpu, area, shape, requested, written);
    for (part, at) in places.iter().filter(|(part, _)| written >> part.number & 1 != 0) {
        area[*at..at + part.size].fill(0);
        cpu.store_part(part, &mut area[*at..at + part.size], shape);
    }
    let header = if compacted { used } else { quad(area, 512) & !requested | used };
    put(area, 512, &header.to_le_bytes());
    if compacted {
        put(area, 520, &(COMPACTED | requested).to_le_bytes());
    }
    cpu.write_bytes(op.mem.segment, offset, area)?;
    Ok(Flow::Next)
}

/// The legacy region. MXCSR belongs to SSE and to AVX.
fn store_legacy(cpu: &Cpu, area: &mut [u8], shape: Shape, requested: u64, written: u64) {
    if written & X87 != 0 {
        cpu.store_x87(area, shape);
    }
    if requested & (SSE | AVX) != 0 {
        cpu.store_mxcsr(area);
    }
    if written & SSE != 0 {
        cpu.store_xmm(area, shape);
    }
}

/// XRSTOR and XRSTORS (13.8, 13.12).
fn restore<const WIDE: bool, const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_xsave()?;
    if KIND == SUPERVISOR {
        cpu.require(cpu.cpl == 0)?;
    }
    let offset = place(cpu, op, 64)?;
    let mut area = [0; AREA];
    cpu.read_bytes(op.mem.segment, offset, &mut area[..HEADER_END])?;
    let (present, form) = (quad(&area, 512), quad(&area, 520));
    let compacted = form & COMPACTED != 0;
    let (requested, xcr0) = (cpu.requested(), cpu.vector.xcr0);
    check_header::<KIND>(cpu, &area, xcr0)?;
    let layout = std::sync::Arc::clone(&cpu.vector.layout);
    let (places, _) = if compacted { layout.compacted(form & !COMPACTED) } else { (layout.standard(requested), 0) };
    let wanted = |number: u32| requested & present & if compacted { form } else { u64::MAX } & 1 << number != 0;
    let needed = places.iter().filter(|(part, _)| wanted(part.number)).map(|(part, at)| at + part.size).max();
    let len = needed.unwrap_or(HEADER_END).min(AREA);
    cpu.read_bytes(op.mem.segment, offset, &mut area[..len])?;
    let with_mxcsr = restores_mxcsr(requested, present, compacted);
    if with_mxcsr {
        cpu.check_mxcsr(double(&area, 24))?;
    }
    let shape = shape(cpu, WIDE);
    load_legacy(cpu, &area, shape, requested, present);
    if with_mxcsr {
        cpu.vector.mxcsr = double(&area, 24);
    } else if compacted && requested & SSE != 0 {
        cpu.vector.mxcsr = MXCSR_DEFAULT;
    }
    for part in layout.parts.iter().filter(|part| requested >> part.number & 1 != 0) {
        match places.iter().find(|(place, _)| place.number == part.number && wanted(part.number)) {
            Some((_, at)) => cpu.load_part(part, &area[*at..at + part.size], shape),
            None => cpu.init_part(part, shape),
        }
    }
    Ok(Flow::Next)
}

/// In the standard form MXCSR is loaded with SSE or AVX whether they are present or not; in the compacted form, with
/// SSE if it is present.
fn restores_mxcsr(requested: u64, present: u64, compacted: bool) -> bool {
    if compacted { requested & present & SSE != 0 } else { requested & (SSE | AVX) != 0 }
}

fn load_legacy(cpu: &mut Cpu, area: &[u8], shape: Shape, requested: u64, present: u64) {
    if requested & X87 != 0 {
        if present & X87 != 0 {
            cpu.load_x87(area, shape);
        } else {
            cpu.init_x87_state();
        }
    }
    if requested & SSE != 0 {
        if present & SSE != 0 {
            cpu.load_xmm(area, shape);
        } else {
            cpu.load_xmm(&[0; 512], shape);
        }
    }
}

/// #GP conditions of the header.
fn check_header<const KIND: u8>(cpu: &mut Cpu, area: &[u8], xcr0: u64) -> Result<(), Fault> {
    let (present, form) = (quad(area, 512), quad(area, 520));
    let zero = |range: std::ops::Range<usize>| area[range].iter().all(|byte| *byte == 0);
    if form & COMPACTED != 0 {
        let named = form & !COMPACTED;
        let offers = cpu.vector.layout.compacts;
        return cpu.require(offers && named & !xcr0 == 0 && present & !named == 0 && zero(528..576));
    }
    cpu.require(KIND != SUPERVISOR && form == 0 && present & !xcr0 == 0 && zero(528..536))
}

/// XGETBV: XCR0, or with ECX 1 the components of XCR0 that are in use.
fn xgetbv(cpu: &mut Cpu, _op: &Op) -> Step {
    if cpu.cr4 & CR4_OSXSAVE == 0 {
        return Err(cpu.raise(Exception::UD));
    }
    let value = match cpu.reg32(gpr::RCX as u8) {
        0 => cpu.vector.xcr0,
        1 if cpu.vector.layout.tells_use => {
            cpu.sync_x87();
            let mxcsr = u64::from(cpu.vector.mxcsr != MXCSR_DEFAULT) << 1;
            (cpu.in_use() | mxcsr) & cpu.vector.xcr0
        }
        _ => return Err(cpu.raise(Exception::gp(0))),
    };
    cpu.set_reg32(gpr::RAX as u8, value as u32);
    cpu.set_reg32(gpr::RDX as u8, (value >> 32) as u32);
    Ok(Flow::Next)
}

/// XSETBV.
fn xsetbv(cpu: &mut Cpu, _op: &Op) -> Step {
    if cpu.cr4 & CR4_OSXSAVE == 0 {
        return Err(cpu.raise(Exception::UD));
    }
    let value = u64::from(cpu.reg32(gpr::RAX as u8)) | u64::from(cpu.reg32(gpr::RDX as u8)) << 32;
    let valid = value & X87 != 0
        && value & !cpu.vector.layout.supported == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (value & ZMM == 0 || value & (ZMM | AVX) == ZMM | AVX);
    cpu.require(cpu.cpl == 0 && cpu.reg32(gpr::RCX as u8) == 0 && valid)?;
    cpu.vector.xcr0 = value;
    Ok(Flow::End)
}
