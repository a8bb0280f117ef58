//! x87 control instructions: environment, initialization, status. The others run natively.

use iced_x86::{Code, Instruction, Mnemonic};

use crate::cpu::Mode;

use super::super::cpu::{Cpu, Fault, Flow, Step};
use super::super::op::{Handler, Op};
use super::classify;
use super::state::{LastX87, VectorState};
use super::{native, run};

/// What executes an x87 instruction that is handled here.
pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    if instruction.mnemonic() == M::Wait {
        return Some(run::wait);
    }
    if instruction.mnemonic() == M::Emms {
        return Some(emms);
    }
    if !classify::is_x87(instruction) {
        return None;
    }
    Some(match instruction.mnemonic() {
        M::Fninit => fninit,
        M::Fnclex => fnclex,
        M::Fnstcw => fnstcw,
        M::Fnstsw if instruction.code() == Code::Fnstsw_AX => fnstsw_ax,
        M::Fnstsw => fnstsw,
        M::Fldcw => fldcw,
        M::Fneni | M::Fndisi | M::Fnsetpm => nothing,
        M::Fnstenv => match instruction.code() {
            Code::Fnstenv_m14byte => fnstenv::<false>,
            _ => fnstenv::<true>,
        },
        M::Fldenv => match instruction.code() {
            Code::Fldenv_m14byte => fldenv::<false>,
            _ => fldenv::<true>,
        },
        M::Fnsave => match instruction.code() {
            Code::Fnsave_m94byte => fnsave::<false>,
            _ => fnsave::<true>,
        },
        M::Frstor => match instruction.code() {
            Code::Frstor_m94byte => frstor::<false>,
            _ => frstor::<true>,
        },
        _ => return None,
    })
}

impl VectorState {
    /// What every MMX instruction does to x87: TOP becomes 0 and no register is empty (SDM volume 1, 9.5).
    pub(super) fn enter_mmx(&mut self) {
        self.set_top(0);
        self.x87.set_used(0xff);
    }

    /// Changes which physical register is ST(0); registers keep their values.
    fn set_top(&mut self, top: u16) {
        let turn = usize::from(top + 8 - self.x87.top());
        let old: [[u8; 10]; 8] = std::array::from_fn(|i| self.x87.register(i));
        for i in 0..8 {
            self.x87.set_register(i, &old[(i + turn) & 7]);
        }
        self.x87.set_fsw(self.x87.fsw() & !0x3800 | (top & 7) << 11);
    }

    /// The tag word of FSTENV: two bits for each physical register (SDM volume 1, 8.1.7).
    pub(super) fn tags(&self) -> u16 {
        (0..8u16).fold(0, |tags, physical| {
            let relative = usize::from((physical + 8 - self.x87.top()) & 7);
            let tag = match self.x87.used() >> physical & 1 {
                0 => 3,
                _ => content_tag(&self.x87.register(relative)),
            };
            tags | tag << (physical * 2)
        })
    }

    /// Takes over a tag word: only whether a register is empty matters.
    fn set_tags(&mut self, tags: u16) {
        let used = (0..8).fold(0, |used, i| used | u8::from(tags >> (i * 2) & 3 != 3) << i);
        self.x87.set_used(used);
    }
}

/// 0 valid, 1 zero, 2 special.
fn content_tag(register: &[u8; 10]) -> u16 {
    let significand = u64::from_le_bytes(std::array::from_fn(|i| register[i]));
    let exponent = u16::from_le_bytes([register[8], register[9]]) & 0x7fff;
    match (exponent, significand) {
        (0, 0) => 1,
        (0x7fff | 0, _) => 2,
        _ if significand >> 63 == 0 => 2,
        _ => 0,
    }
}

/// FNINIT.
fn fninit(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.check_x87_present()?;
    cpu.sync_x87();
    // Data registers keep their places: only TOP changes.
    cpu.vector.set_top(0);
    cpu.vector.init_x87();
    Ok(Flow::Next)
}

/// FNCLEX: clears the exception flags, SF, ES and B.
fn fnclex(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.check_x87_present()?;
    if cpu.vector.resident {
        native::clear_exceptions();
        return Ok(Flow::Next);
    }
    let fsw = cpu.vector.x87.fsw() & 0x7f00;
    cpu.vector.x87.set_fsw(fsw);
    Ok(Flow::Next)
}

fn nothing(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.check_x87_present()?;
    Ok(Flow::Next)
}

fn fnstcw(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_x87_present()?;
    let offset = cpu.effective_address(&op.mem);
    let fcw = if cpu.vector.resident { native::fcw() } else { cpu.vector.x87.fcw() };
    cpu.write(op.mem.segment, offset, fcw)?;
    Ok(Flow::Next)
}

/// The status word.
fn fsw(cpu: &Cpu) -> u16 {
    if cpu.vector.resident { native::fsw() } else { cpu.vector.x87.fsw() }
}

fn fnstsw(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_x87_present()?;
    let offset = cpu.effective_address(&op.mem);
    let fsw = fsw(cpu);
    cpu.write(op.mem.segment, offset, fsw)?;
    Ok(Flow::Next)
}

fn fnstsw_ax(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.check_x87_present()?;
    cpu.set_reg16(0, fsw(cpu));
    Ok(Flow::Next)
}

fn fldcw(cpu: &mut Cpu, op: &Op) -> Step {
    if let Some(step) = waits(cpu) {
        return step;
    }
    let offset = cpu.effective_address(&op.mem);
    let value: u16 = cpu.read(op.mem.segment, offset)?;
    if cpu.vector.resident {
        native::set_fcw(value);
    } else {
        cpu.vector.x87.set_fcw(value);
    }
    Ok(Flow::Next)
}

/// What a waiting instruction gives, if it cannot go on.
fn waits(cpu: &mut Cpu) -> Option<Step> {
    cpu.sync_x87_if_pending();
    let checked = cpu.check_vector(classify::Class::X87).map(|()| Flow::Next);
    checked.is_err().then(|| run::waiting(cpu, checked))
}

/// EMMS: all registers empty, and TOP 0 as after every MMX instruction.
fn emms(cpu: &mut Cpu, _op: &Op) -> Step {
    cpu.sync_x87();
    let checked = cpu.check_vector(classify::Class::Mmx).map(|()| Flow::Next);
    if checked.is_err() {
        return run::waiting(cpu, checked);
    }
    cpu.vector.set_top(0);
    cpu.vector.x87.set_used(0);
    Ok(Flow::Next)
}

/// Bytes of an environment.
const fn environment_len(wide: bool) -> usize {
    if wide { 28 } else { 14 }
}

/// Whether environments have the layout of real mode (linear addresses and FOP).
fn is_real_layout(cpu: &Cpu) -> bool {
    matches!(cpu.mode, Mode::Real | Mode::Virtual8086)
}

/// FSTENV's image (SDM volume 1, figures 8-9 to 8-12).
fn environment<const WIDE: bool>(cpu: &Cpu) -> [u8; 28] {
    let vector = &cpu.vector;
    let last = &vector.last;
    let (fcs, fds) = if vector.layout.zero_selectors { (0, 0) } else { (last.fcs, last.fds) };
    let words = [vector.x87.fcw(), vector.x87.fsw(), vector.tags()].map(u32::from);
    let (ip, dp) = if is_real_layout(cpu) {
        (last.fip.wrapping_add(u64::from(last.fcs) << 4), last.fdp.wrapping_add(u64::from(last.fds) << 4))
    } else {
        (last.fip, last.fdp)
    };
    let (ip, dp, fop) = (ip as u32, dp as u32, u32::from(last.fop & 0x7ff));
    let mut area = [0; 28];
    if WIDE {
        let (pointers, high) = if is_real_layout(cpu) {
            ([ip & 0xffff, (ip >> 16) << 12 | fop, dp & 0xffff, (dp >> 16) << 12], 0xffff_0000)
        } else {
            ([ip, fop << 16 | u32::from(fcs), dp, 0xffff_0000 | u32::from(fds)], 0xffff_0000)
        };
        let all = words.iter().map(|word| word | high).chain(pointers);
        area.chunks_exact_mut(4).zip(all).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    } else {
        let pointers = if is_real_layout(cpu) {
            [ip, (ip >> 16) << 12 | fop, dp, (dp >> 16) << 12]
        } else {
            [ip, u32::from(fcs), dp, u32::from(fds)]
        };
        let all = words.into_iter().chain(pointers);
        area.chunks_exact_mut(2).zip(all).for_each(|(to, word)| to.copy_from_slice(&(word as u16).to_le_bytes()));
    }
    area
}

/// Takes over an environment.
fn set_environment<const WIDE: bool>(cpu: &mut Cpu, area: &[u8]) {
    let word = |i: usize| {
        let at = if WIDE { i * 4 } else { i * 2 };
        let high = if WIDE { u32::from(area[at + 2]) << 16 | u32::from(area[at + 3]) << 24 } else { 0 };
        u32::from(area[at]) | u32::from(area[at + 1]) << 8 | high
    };
    let last = if is_real_layout(cpu) {
        let linear = |low: u32, high: u32| u64::from(low & 0xffff) | u64::from(high >> 12) << 16;
        LastX87 {
            fip: linear(word(3), word(4)),
            fdp: linear(word(5), word(6)),
            fcs: 0,
            fds: 0,
            fop: word(4) as u16 & 0x7ff,
        }
    } else {
        let fop = if WIDE { (word(4) >> 16) as u16 & 0x7ff } else { 0 };
        LastX87 { fip: u64::from(word(3)), fdp: u64::from(word(5)), fcs: word(4) as u16, fds: word(6) as u16, fop }
    };
    cpu.vector.last = last;
    // Registers stay in their physical places.
    let (fcw, fsw, tags) = (word(0) as u16, word(1) as u16, word(2) as u16);
    cpu.vector.set_top(fsw >> 11 & 7);
    cpu.vector.x87.set_fcw(fcw);
    cpu.vector.x87.set_fsw(fsw);
    cpu.vector.set_tags(tags);
}

fn fnstenv<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_x87_present()?;
    cpu.sync_x87();
    let area = environment::<WIDE>(cpu);
    let offset = cpu.effective_address(&op.mem);
    cpu.check_operand_alignment(op.mem.segment, offset, if WIDE { 4 } else { 2 })?;
    cpu.write_bytes(op.mem.segment, offset, &area[..environment_len(WIDE)])?;
    let masked = cpu.vector.x87.fcw() | 0x3f;
    cpu.vector.x87.set_fcw(masked);
    Ok(Flow::Next)
}

fn fldenv<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    if let Some(step) = waits(cpu) {
        return step;
    }
    cpu.sync_x87();
    let mut area = [0; 28];
    read_area::<WIDE>(cpu, op, &mut area[..environment_len(WIDE)])?;
    set_environment::<WIDE>(cpu, &area);
    Ok(Flow::Next)
}

fn read_area<const WIDE: bool>(cpu: &mut Cpu, op: &Op, area: &mut [u8]) -> Result<(), Fault> {
    let offset = cpu.effective_address(&op.mem);
    cpu.check_operand_alignment(op.mem.segment, offset, if WIDE { 4 } else { 2 })?;
    cpu.read_bytes(op.mem.segment, offset, area)
}

fn fnsave<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.check_x87_present()?;
    cpu.sync_x87();
    let len = environment_len(WIDE);
    let mut area = [0; 108];
    area[..len].copy_from_slice(&environment::<WIDE>(cpu)[..len]);
    for (i, to) in area[len..len + 80].chunks_exact_mut(10).enumerate() {
        to.copy_from_slice(&cpu.vector.x87.register(i));
    }
    let offset = cpu.effective_address(&op.mem);
    cpu.check_operand_alignment(op.mem.segment, offset, if WIDE { 4 } else { 2 })?;
    cpu.write_bytes(op.mem.segment, offset, &area[..len + 80])?;
    cpu.vector.set_top(0);
    cpu.vector.init_x87();
    Ok(Flow::Next)
}

fn frstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Step {
    if let Some(step) = waits(cpu) {
        return step;
    }
    cpu.sync_x87();
    let len = environment_len(WIDE);
    let mut area = [0; 108];
    read_area::<WIDE>(cpu, op, &mut area[..len + 80])?;
    set_environment::<WIDE>(cpu, &area[..len]);
    for (i, from) in area[len..len + 80].chunks_exact(10).enumerate() {
        cpu.vector.x87.set_register(i, from);
    }
    Ok(Flow::Next)
}
