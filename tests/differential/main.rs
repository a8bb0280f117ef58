//! Compares the software CPU with the host's processor, instruction by instruction.
//!
//! Random instructions and states run natively in this process (signals catch what they do) and in the software CPU;
//! registers, flags, the xsave image, memory and the fault must be the same. `DROMAIUS_DIFFERENTIAL_CASES` and
//! `DROMAIUS_DIFFERENTIAL_SEED` make longer or other runs, and `DROMAIUS_DIFFERENTIAL_ONLY=TEXT` one of the
//! instructions whose disassembly contains a text; `scripts/differential` is the long one. What is left out is
//! `generate::is_excluded`, and instructions that the guest's CPUID does not show.
//!
//! The native side can kill its process, so the cases run in a child of the test.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

mod emulator;
mod generate;
mod latitude;
mod native;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};

use dromaius::accel::soft::vector;
use iced_x86::Register;

use emulator::{Emulator, End};
use generate::{Case, Generator, Layout};
use native::{CODE_OFFSET, DATA, DATA_LEN, Registers, Stop};

const CHILD: &str = "DROMAIUS_DIFFERENTIAL_CHILD";
const CASES: &str = "DROMAIUS_DIFFERENTIAL_CASES";
const SEED: &str = "DROMAIUS_DIFFERENTIAL_SEED";
const ONLY: &str = "DROMAIUS_DIFFERENTIAL_ONLY";
/// Cases of the run in the test suite.
const DEFAULT_CASES: u64 = 300_000;
/// RF is set in the image that a fault saves and by nothing else here; bit 1 is always set.
const FLAGS: u64 = 0x0025_0dd5 & !(1 << 16) & !(1 << 8);

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    if env::args().any(|argument| argument == "--list") {
        println!("differential: test");
        return ExitCode::SUCCESS;
    }
    let seed = number(SEED, 1);
    let cases = number(CASES, DEFAULT_CASES);
    if env::var_os(CHILD).is_some() {
        return child(seed, cases);
    }
    let status = Command::new(env::current_exe().unwrap()).env(CHILD, "1").stdin(Stdio::null()).status().unwrap();
    if status.success() {
        ExitCode::SUCCESS
    } else {
        println!("differential: the child ended with {status}");
        ExitCode::FAILURE
    }
}

/// Standard-format offsets of this host's components (CPUID leaf 0Dh).
fn layout() -> Layout {
    let cpuid = |leaf, sub| std::arch::x86_64::__cpuid_count(leaf, sub);
    let xcr0 = cpuid(0xd, 0).eax;
    (2..10)
        .filter(|component| xcr0 >> component & 1 != 0)
        .map(|component| {
            let answer = cpuid(0xd, component);
            (component, answer.ebx as usize, answer.eax as usize)
        })
        .collect()
}

struct Outcome {
    after: Box<Registers>,
    data: Vec<u8>,
    fault: Option<Stop>,
}

fn run_native(case: &Case) -> Outcome {
    native::set_code(&case.bytes);
    native::memory(DATA, DATA_LEN).copy_from_slice(&case.data);
    let mut after = Registers::zero();
    let stop = native::run(&case.before, &mut after, case.compat);
    let data = native::memory(DATA, DATA_LEN).to_vec();
    let fetch =
        stop.vector == 14 && stop.error & 0x10 != 0 && stop.address == after.rip && after.rip != case.before.rip;
    let mut fault = Some(stop);
    if stop.vector == 3 {
        after.rip -= 1;
        fault = None;
    } else if fetch {
        fault = None;
    }
    Outcome { after, data, fault }
}

fn run_emulated(emulator: &mut Emulator, case: &Case) -> Outcome {
    let mut code = [0xcc; 0x1000];
    let at = CODE_OFFSET as usize;
    code[at..at + case.bytes.len()].copy_from_slice(&case.bytes);
    let mut after = Registers::zero();
    let mut data = case.data.clone();
    let end = emulator.run(&case.before, &code, case.compat, &mut data, &mut after);
    let fault = match end {
        End::Done => None,
        End::Fault(stop) => Some(stop),
    };
    Outcome { after, data, fault }
}

/// Differences, as text; empty if there are none.
fn compare(case: &Case, native: &Outcome, ours: &Outcome, layout: &Layout) -> String {
    let mut text = String::new();
    let faults = |outcome: &Outcome| {
        outcome.fault.map(|stop| {
            // CR2 and the error code mean something for some vectors only.
            let mut error = if matches!(stop.vector, 10..=14 | 17) { stop.error } else { 0 };
            // Linux does not tell programs which addresses of its own half are mapped.
            if stop.vector == 14 && stop.address >= 0x7fff_ffff_f000 {
                error &= !1;
            }
            (stop.vector, error, if stop.vector == 14 { stop.address } else { 0 })
        })
    };
    if native.fault.is_some() && ours.fault.is_none() && latitude::may_fault(case) {
        return text;
    }
    let both_right = match (&native.fault, &ours.fault) {
        (Some(native), Some(ours)) => latitude::both_right(case, native, ours),
        _ => false,
    };
    if faults(native) != faults(ours) && !both_right {
        let _ = write!(text, " fault {:x?} not {:x?};", faults(ours), faults(native));
        return text;
    }
    if native.after.rip != ours.after.rip {
        let _ = write!(text, " rip {:#x} not {:#x};", ours.after.rip, native.after.rip);
    }
    let count = if case.compat { 8 } else { 16 };
    let left = native.fault.is_some() && latitude::leaves_registers(case);
    for register in (0..count).filter(|register| !left || *register == 4) {
        let (a, b) = (ours.after.gpr[register], native.after.gpr[register]);
        if a != b {
            let _ = write!(text, " r{register} {a:#x} not {b:#x} was {:#x};", case.before.gpr[register]);
        }
    }
    let mask = FLAGS & !latitude::undefined_flags(&case.instruction);
    let (a, b) = (ours.after.flags & mask, native.after.flags & mask);
    if a != b {
        let _ = write!(text, " flags {a:#x} not {b:#x};");
    }
    compare_xsave(&mut text, case, native, ours, layout);
    if ours.fault.is_some_and(|stop| latitude::leaves_memory(case, &stop)) {
        return text;
    }
    if native.data != ours.data
        && let Some(at) = (0..DATA_LEN).find(|at| native.data[*at] != ours.data[*at])
    {
        let _ = write!(
            text,
            " memory at {:#x}: {:02x?} not {:02x?};",
            DATA + at as u64,
            &ours.data[at..(at + 8).min(DATA_LEN)],
            &native.data[at..(at + 8).min(DATA_LEN)]
        );
    }
    text
}

fn component(image: &[u8], number: u32, offset: usize, len: usize) -> &[u8] {
    static ZERO: [u8; 4096] = [0; 4096];
    let present = image[512 + number as usize / 8] >> (number % 8) & 1 != 0;
    if present { &image[offset..offset + len] } else { &ZERO[..len] }
}

fn compare_xsave(text: &mut String, case: &Case, native: &Outcome, ours: &Outcome, layout: &Layout) {
    let (theirs, mine) = (&native.after.xsave, &ours.after.xsave);
    let mut part = |name: &str, a: &[u8], b: &[u8], before: &[u8]| {
        if a != b {
            let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(0) / 8 * 8;
            let end = (at + 16).min(a.len());
            let _ = write!(
                text,
                " {name}+{at:#x} {:02x?} not {:02x?} was {:02x?};",
                &a[at..end],
                &b[at..end],
                &before[at..end]
            );
        }
    };
    let before = &case.before.xsave;
    if native.fault.is_none() || !latitude::leaves_mxcsr(case) {
        part("mxcsr", &mine[24..28], &theirs[24..28], &before[24..28]);
    }
    if native.fault.is_none() || !latitude::leaves_x87(case) {
        part("x87 control", &mine[0..6], &theirs[0..6], &before[0..6]);
        for register in 0..8 {
            let at = 32 + 16 * register;
            part(&format!("st{register}"), &mine[at..at + 10], &theirs[at..at + 10], &before[at..at + 10]);
        }
    }
    for register in 0..16 {
        let at = 160 + 16 * register;
        part(&format!("xmm{register}"), &mine[at..at + 16], &theirs[at..at + 16], &before[at..at + 16]);
    }
    for &(number, offset, len) in layout {
        let name = format!("component{number}");
        let pick = |image| component(image, number, offset, len);
        part(&name, pick(mine), pick(theirs), pick(before));
    }
}

fn describe(case: &Case) -> String {
    let mut text = generate::disassembly(&case.instruction);
    let bits = if case.compat { 32 } else { 64 };
    let mask = case.instruction.op_mask();
    if mask != Register::None {
        let at = 1088 + mask.number() * 8;
        let _ = write!(text, " [mask {:02x?}]", &case.before.xsave[at..at + 8]);
    }
    let base = case.instruction.memory_base();
    if base.is_gpr() {
        let _ = write!(text, " [base {:x}]", case.before.gpr[base.number()]);
    }
    format!("{bits}-bit {:02x?} {text}", case.bytes)
}

fn child(seed: u64, cases: u64) -> ExitCode {
    let layout = layout();
    native::set_up();
    // SAFETY-free: XCR0 as CPUID reports it, restricted to what signals save and the software CPU has.
    let xcr0 = u64::from(std::arch::x86_64::__cpuid_count(0xd, 0).eax) & 0x2e7;
    let mut emulator = Emulator::new(xcr0);
    let mut generator = Generator::new(seed, layout.clone(), env::var(ONLY).ok());
    let (mut ran, mut excluded, mut not_shown) = (0u64, 0u64, 0u64);
    let mut wrong: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let trace = env::var_os("DROMAIUS_DIFFERENTIAL_TRACE").is_some();
    while ran < cases {
        let Some(case) = generator.case() else {
            excluded += 1;
            continue;
        };
        if !case.instruction.is_invalid() && !vector::allowed(&case.instruction, &emulator.model) {
            not_shown += 1;
            continue;
        }
        if latitude::is_unspecified(&case) {
            excluded += 1;
            continue;
        }
        if trace {
            eprintln!("{ran}: {}", describe(&case));
        }
        ran += 1;
        let native = run_native(&case);
        let ours = run_emulated(&mut emulator, &case);
        let difference = compare(&case, &native, &ours, &layout);
        if !difference.is_empty() {
            let key = format!("{:?}", case.instruction.code());
            let entry = wrong.entry(key).or_insert_with(|| (0, format!("{}:{difference}", describe(&case))));
            entry.0 += 1;
        }
    }
    let total: u64 = wrong.values().map(|(count, _)| count).sum();
    println!(
        "differential: seed {seed}, {ran} cases, {total} differ, {excluded} excluded, {not_shown} not shown by CPUID"
    );
    for (code, (count, example)) in &wrong {
        println!("  {code} x{count}: {example}");
    }
    if total == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
