//! Vector and floating-point instructions, one at a time.

use super::super::bench::Bench;
use super::super::cpu::{Exception, attributes, segment};
use super::*;

mod cases;
mod differential;
mod fuzz;
mod saves;
mod speed;

/// Where instructions are executed, and where their memory operands are.
const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;

/// A processor in 64-bit mode with everything enabled; RBX points to [`DATA`].
fn long() -> Bench {
    with_model("max")
}

fn with_model(model: &str) -> Bench {
    let mut bench = Bench::with_model(model);
    let cpu = &mut bench.cpu;
    cpu.cr0 = 1 | 1 << 1 | 1 << 5;
    cpu.cr4 = 1 << 9 | 1 << 10 | 1 << 18;
    cpu.efer = 1 << 10 | 1 << 8;
    for number in 0..6 {
        cpu.segments[number].loaded = crate::cpu::Segment {
            selector: 8,
            base: 0,
            limit: u32::MAX,
            attributes: attributes::PRESENT | attributes::APPLICATION | attributes::READ_WRITE | attributes::ACCESSED,
        };
    }
    cpu.segments[segment::CS].loaded.attributes |= attributes::CODE | attributes::LONG;
    cpu.vector.xcr0 = cpu.vector.layout.supported;
    cpu.gpr[3] = DATA;
    cpu.mode_changed();
    bench
}

/// Executes one instruction; the exception's vector if it raises one.
fn run(bench: &mut Bench, bytes: &[u8]) -> Result<(), u8> {
    bench.load(CODE, bytes);
    bench.cpu.rip = CODE;
    bench.cpu.try_step().map(|_| ()).map_err(|_| bench.cpu.exception.vector)
}

fn memory<const N: usize>(bench: &Bench, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    bench.ram.read(at, &mut bytes);
    bytes
}

/// Two doubles in a register.
fn doubles(low: f64, high: f64) -> u128 {
    u128::from(low.to_bits()) | u128::from(high.to_bits()) << 64
}

fn vector(exception: Exception) -> u8 {
    exception.vector
}
