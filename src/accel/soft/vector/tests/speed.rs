//! How long instructions take (`cargo test --release -- --ignored --nocapture speed`). Nothing is asserted.

use std::time::Instant;

use iced_x86::{Decoder, DecoderOptions};

use super::super::super::interp::lower;
use super::*;

#[test]
#[ignore = "measures"]
fn speed_of_instructions() {
    let cases: &[(&str, &[u8])] = &[
        ("movups xmm0,[rbx]", &[0x0f, 0x10, 0x03]),
        ("movups [rbx],xmm0", &[0x0f, 0x11, 0x03]),
        ("vmovdqu ymm0,[rbx]", &[0xc5, 0xfe, 0x6f, 0x03]),
        ("pxor xmm0,xmm1", &[0x66, 0x0f, 0xef, 0xc1]),
        ("pshufd xmm0,xmm1,1", &[0x66, 0x0f, 0x70, 0xc1, 1]),
        ("addsd xmm0,xmm1", &[0xf2, 0x0f, 0x58, 0xc1]),
        ("addsd xmm0,[rbx]", &[0xf2, 0x0f, 0x58, 0x03]),
        ("ucomisd xmm0,xmm1", &[0x66, 0x0f, 0x2e, 0xc1]),
        ("cvtsi2sd xmm0,rax", &[0xf2, 0x48, 0x0f, 0x2a, 0xc0]),
        ("vaddps ymm0,ymm1,ymm2", &[0xc5, 0xf4, 0x58, 0xc2]),
        ("vpcmpeqb ymm0,ymm1,[rbx]", &[0xc5, 0xf5, 0x74, 0x03]),
        ("vpmovmskb eax,ymm0", &[0xc5, 0xfd, 0xd7, 0xc0]),
        ("aesenc xmm0,xmm1", &[0x66, 0x0f, 0x38, 0xdc, 0xc1]),
        ("fadd st0,st0", &[0xd8, 0xc0]),
        ("fmul dword [rbx]", &[0xd8, 0x0b]),
        ("fnstsw ax", &[0xdf, 0xe0]),
    ];
    let mut b = long();
    for resident in [false, true] {
        if resident {
            b.cpu.enter_x87();
        }
        run(&mut b, &[0xd9, 0xe8]).unwrap(); // fld1
        for (name, code) in cases {
            let mut bytes = [0x90; 15];
            bytes[..code.len()].copy_from_slice(code);
            let decoded = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode();
            let op = lower(&decoded, &bytes, 0);
            let start = Instant::now();
            for _ in 0..1_000_000 {
                (op.handler)(&mut b.cpu, &op).unwrap();
            }
            println!("{name:28} {:6.1} ns", start.elapsed().as_nanos() as f64 / 1e6);
        }
    }
    b.cpu.leave_x87();
}
