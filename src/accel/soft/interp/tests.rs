use std::time::Instant;

use super::super::bench::Bench;
use super::super::cpu::{attributes, segment};

/// Where test programs are.
const CODE: u64 = 0x1000;

fn real_mode(code: &[u8]) -> Bench {
    let mut b = Bench::max();
    b.load(CODE, code);
    b.cpu.segments[segment::CS].loaded.base = 0;
    b.cpu.mode_changed();
    b.cpu.rip = CODE;
    b
}

/// 64-bit code at level 0 without paging, which real processors cannot have, but which tests nothing less.
fn long_mode(code: &[u8]) -> Bench {
    let mut b = Bench::max();
    b.load(CODE, code);
    b.cpu.cr0 |= 1;
    b.cpu.efer = 1 << 10;
    let data = attributes::PRESENT | attributes::APPLICATION | attributes::READ_WRITE | attributes::BIG;
    for register in &mut b.cpu.segments {
        (register.loaded.base, register.loaded.limit, register.loaded.attributes) = (0, u32::MAX, data);
    }
    b.cpu.segments[segment::CS].loaded.attributes = data & !attributes::BIG | attributes::CODE | attributes::LONG;
    b.cpu.mode_changed();
    b.cpu.rip = CODE;
    b.cpu.gpr[4] = 0x20_0000;
    b
}

/// 20 million rounds of add, imul, xor, shr, lea, cmp, cmovb, dec, jnz; then a loop forever.
const INTEGERS: &[u8] = &[
    0xb9, 0x00, 0x2d, 0x31, 0x01, 0x31, 0xc0, 0x31, 0xdb, 0x48, 0x01, 0xc8, 0x48, 0x6b, 0xd8, 0x1f, 0x48, 0x31, 0xc3,
    0x48, 0xd1, 0xe8, 0x48, 0x8d, 0x54, 0x83, 0x07, 0x48, 0x39, 0xda, 0x48, 0x0f, 0x42, 0xc2, 0xff, 0xc9, 0x75, 0xe3,
    0xeb, 0xfe,
];

/// Fills 3000 words at 100000h with numbers and sorts them by exchanging neighbours; then a loop forever.
const SORT: &[u8] = &[
    0xbf, 0x00, 0x00, 0x10, 0x00, 0xb8, 0x39, 0x30, 0x00, 0x00, 0x31, 0xc9, 0x69, 0xc0, 0x6d, 0x4e, 0xc6, 0x41, 0x05,
    0x39, 0x30, 0x00, 0x00, 0x89, 0x04, 0x8f, 0xff, 0xc1, 0x81, 0xf9, 0xb8, 0x0b, 0x00, 0x00, 0x72, 0xe8, 0x31, 0xc9,
    0x31, 0xd2, 0x8b, 0x04, 0x8f, 0x8b, 0x5c, 0x8f, 0x04, 0x39, 0xd8, 0x76, 0x0c, 0x89, 0x1c, 0x8f, 0x89, 0x44, 0x8f,
    0x04, 0xba, 0x01, 0x00, 0x00, 0x00, 0xff, 0xc1, 0x81, 0xf9, 0xb7, 0x0b, 0x00, 0x00, 0x72, 0xdf, 0x85, 0xd2, 0x75,
    0xd7, 0xeb, 0xfe,
];

/// The Fibonacci number of EDI by calling itself; then a loop forever.
const FIBONACCI: &[u8] = &[
    0xe8, 0x02, 0x00, 0x00, 0x00, 0xeb, 0xfe, 0x83, 0xff, 0x02, 0x72, 0x1a, 0x53, 0x57, 0xff, 0xcf, 0xe8, 0xf2, 0xff,
    0xff, 0xff, 0x48, 0x89, 0xc3, 0x5f, 0x83, 0xef, 0x02, 0xe8, 0xe6, 0xff, 0xff, 0xff, 0x48, 0x01, 0xd8, 0x5b, 0xc3,
    0x89, 0xf8, 0xc3,
];

#[test]
fn a_loop_adds_numbers() {
    // mov cx, 10; xor ax, ax; l: add ax, cx; loop l; jmp $
    let mut b = real_mode(&[0xb9, 10, 0, 0x31, 0xc0, 0x01, 0xc8, 0xe2, 0xfc, 0xeb, 0xfe]);
    b.cpu.budget = 40;
    b.cpu.execute();
    assert_eq!(b.cpu.gpr[0], 55);
    assert_eq!(b.cpu.rip, 0x1009);
    assert_eq!(b.cpu.executed, 40);
}

#[test]
fn calls_and_returns_nest() {
    let mut b = long_mode(FIBONACCI);
    b.cpu.gpr[7] = 20;
    b.cpu.budget = 400_000;
    b.cpu.execute();
    assert_eq!(b.cpu.gpr[0], 6765);
    assert_eq!(b.cpu.gpr[4], 0x20_0000);
    assert_eq!(b.cpu.rip, CODE + 5);
}

#[test]
#[ignore = "measures speed; run with --release --nocapture"]
fn speed() {
    let measure = |name: &str, code: &[u8]| {
        let mut b = long_mode(code);
        b.cpu.gpr[7] = 40;
        b.cpu.budget = 1000;
        b.cpu.execute();
        b.cpu.budget = 100_000_000;
        let start = Instant::now();
        b.cpu.execute();
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {:.0} million instructions a second", 100.0 / seconds);
    };
    measure("integers", INTEGERS);
    measure("sort", SORT);
    measure("calls", FIBONACCI);
}
