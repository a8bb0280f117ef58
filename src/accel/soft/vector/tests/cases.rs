//! Instructions with known results.

use super::*;

#[test]
fn sse_arithmetic_uses_registers_and_memory() {
    let mut b = long();
    b.cpu.vector.set_xmm(0, doubles(1.5, 2.5));
    b.load(DATA, &doubles(10.0, 20.0).to_le_bytes());
    // addpd xmm0,[rbx]
    run(&mut b, &[0x66, 0x0f, 0x58, 0x03]).unwrap();
    assert_eq!(b.cpu.vector.xmm(0), doubles(11.5, 22.5));
    b.cpu.vector.set_xmm(1, doubles(2.0, 4.0));
    // mulpd xmm0,xmm1
    run(&mut b, &[0x66, 0x0f, 0x59, 0xc1]).unwrap();
    assert_eq!(b.cpu.vector.xmm(0), doubles(23.0, 90.0));
}

#[test]
fn legacy_instructions_leave_the_upper_bits_and_vex_clears_them() {
    let mut b = long();
    b.cpu.vector.zmm[0] = [7; 8];
    b.cpu.vector.zmm[1] = [1, 2, 3, 4, 5, 6, 7, 8];
    // pmullw xmm0,xmm1
    run(&mut b, &[0x66, 0x0f, 0xd5, 0xc1]).unwrap();
    assert_eq!(b.cpu.vector.zmm[0], [7, 14, 7, 7, 7, 7, 7, 7]);
    // vpaddq xmm0,xmm1,xmm1
    run(&mut b, &[0xc5, 0xf1, 0xd4, 0xc1]).unwrap();
    assert_eq!(b.cpu.vector.zmm[0], [2, 4, 0, 0, 0, 0, 0, 0]);
    // vpaddq ymm0,ymm1,ymm1
    run(&mut b, &[0xc5, 0xf5, 0xd4, 0xc1]).unwrap();
    assert_eq!(b.cpu.vector.zmm[0], [2, 4, 6, 8, 0, 0, 0, 0]);
}

#[test]
fn general_registers_are_mapped() {
    let mut b = long();
    b.cpu.gpr[7] = 1234; // the stub's own base register
    // cvtsi2sd xmm3,rdi
    run(&mut b, &[0xf2, 0x48, 0x0f, 0x2a, 0xdf]).unwrap();
    assert_eq!(b.cpu.vector.xmm(3) as u64, 1234f64.to_bits());
    b.cpu.gpr[4] = u64::MAX;
    // cvttsd2si esp,xmm3
    run(&mut b, &[0xf2, 0x0f, 0x2c, 0xe3]).unwrap();
    assert_eq!(b.cpu.gpr[4], 1234);
    b.cpu.vector.set_xmm(3, u128::from_le_bytes([0x80; 16]));
    // pmovmskb r15d,xmm3
    run(&mut b, &[0x66, 0x44, 0x0f, 0xd7, 0xfb]).unwrap();
    assert_eq!(b.cpu.gpr[15], 0xffff);
}

#[test]
fn comparisons_set_the_flags() {
    let mut b = long();
    b.cpu.set_rflags(0x8d5);
    b.cpu.vector.set_xmm(1, doubles(1.0, 0.0));
    // comisd xmm0,xmm1: 0 < 1
    run(&mut b, &[0x66, 0x0f, 0x2f, 0xc1]).unwrap();
    assert_eq!(b.cpu.rflags() & 0x8d5, 1);
    // ptest xmm0,xmm0
    run(&mut b, &[0x66, 0x0f, 0x38, 0x17, 0xc0]).unwrap();
    assert_eq!(b.cpu.rflags() & 0x8d5, 0x41);
}

#[test]
fn string_comparison_uses_its_implicit_registers() {
    let mut b = long();
    b.cpu.vector.set_xmm(1, u128::from_le_bytes(*b"abcdefghijklmnop"));
    b.cpu.vector.set_xmm(2, u128::from_le_bytes(*b"abcdeXghijklmnop"));
    (b.cpu.gpr[0], b.cpu.gpr[2]) = (16, 16);
    // pcmpestri xmm1,xmm2,18h: equal each, negated: the first difference
    run(&mut b, &[0x66, 0x0f, 0x3a, 0x61, 0xca, 0x18]).unwrap();
    assert_eq!(b.cpu.gpr[1], 5);
    assert!(b.cpu.status.cf());
}

#[test]
fn alignment_is_checked_where_the_architecture_wants_it() {
    let mut b = long();
    // movaps xmm0,[rbx+1]; addps xmm0,[rbx+1]; movups xmm0,[rbx+1]; vaddps xmm0,xmm0,[rbx+1]; vmovaps ymm0,[rbx+16]
    assert_eq!(run(&mut b, &[0x0f, 0x28, 0x43, 1]), Err(13));
    assert_eq!(run(&mut b, &[0x0f, 0x58, 0x43, 1]), Err(13));
    assert_eq!(run(&mut b, &[0x0f, 0x10, 0x43, 1]), Ok(()));
    assert_eq!(run(&mut b, &[0xc5, 0xf8, 0x58, 0x43, 1]), Ok(()));
    assert_eq!(run(&mut b, &[0xc5, 0xfc, 0x28, 0x43, 16]), Err(13));
}

#[test]
fn controls_make_instructions_unavailable() {
    let addps: &[u8] = &[0x0f, 0x58, 0xc1];
    let vaddps: &[u8] = &[0xc5, 0xf8, 0x58, 0xc1];
    let fld1: &[u8] = &[0xd9, 0xe8];
    let mut b = long();
    b.cpu.cr0 |= 1 << 3;
    for code in [addps, vaddps, fld1] {
        assert_eq!(run(&mut b, code), Err(vector(Exception::NM)));
    }
    b.cpu.cr0 = b.cpu.cr0 & !(1 << 3) | 1 << 2;
    assert_eq!(run(&mut b, addps), Err(vector(Exception::UD)));
    assert_eq!(run(&mut b, vaddps), Ok(()));
    assert_eq!(run(&mut b, fld1), Err(vector(Exception::NM)));
    b.cpu.cr0 &= !(1 << 2);
    b.cpu.cr4 &= !(1 << 9);
    assert_eq!(run(&mut b, addps), Err(vector(Exception::UD)));
    b.cpu.vector.xcr0 = 3;
    assert_eq!(run(&mut b, vaddps), Err(vector(Exception::UD)));
}

#[test]
fn a_masked_exception_sets_its_flag_and_an_unmasked_one_faults() {
    let mut b = long();
    b.cpu.vector.set_xmm(0, doubles(1.0, 1.0));
    b.cpu.vector.set_xmm(1, doubles(0.0, 1.0));
    // divpd xmm0,xmm1
    let divpd = [0x66, 0x0f, 0x5e, 0xc1];
    run(&mut b, &divpd).unwrap();
    assert_eq!(b.cpu.vector.xmm(0), doubles(f64::INFINITY, 1.0));
    assert_eq!(b.cpu.vector.mxcsr, 0x1f84);
    b.cpu.vector.mxcsr = 0x1d80;
    b.cpu.vector.set_xmm(0, doubles(1.0, 1.0));
    assert_eq!(run(&mut b, &divpd), Err(19));
    assert_eq!(b.cpu.vector.xmm(0), doubles(1.0, 1.0));
    assert_eq!(b.cpu.vector.mxcsr, 0x1d84);
    b.cpu.cr4 &= !(1 << 10);
    assert_eq!(run(&mut b, &divpd), Err(6));
}

#[test]
fn rounding_follows_the_guests_mxcsr() {
    let mut b = long();
    b.cpu.vector.set_xmm(1, doubles(2.5, 0.0));
    b.cpu.vector.mxcsr = 0x5f80; // upwards
    // cvtsd2si eax,xmm1
    run(&mut b, &[0xf2, 0x0f, 0x2d, 0xc1]).unwrap();
    assert_eq!(b.cpu.gpr[0], 3);
    b.cpu.vector.mxcsr = 0x3f80; // downwards
    run(&mut b, &[0xf2, 0x0f, 0x2d, 0xc1]).unwrap();
    assert_eq!(b.cpu.gpr[0], 2);
}

#[test]
fn x87_computes_and_stores() {
    let mut b = long();
    b.load(DATA, &2.0f64.to_bits().to_le_bytes());
    // fld qword [rbx]; fsqrt; fld1; faddp; fstp qword [rbx+8]
    for code in [&[0xdd, 0x03][..], &[0xd9, 0xfa], &[0xd9, 0xe8], &[0xde, 0xc1], &[0xdd, 0x5b, 8]] {
        run(&mut b, code).unwrap();
    }
    let sum = f64::from_bits(u64::from_le_bytes(memory(&b, DATA + 8)));
    assert!((sum - (2f64.sqrt() + 1.0)).abs() < 1e-15, "{sum}");
    assert_eq!(b.cpu.vector.x87.used(), 0);
}

#[test]
fn an_unmasked_x87_exception_comes_with_the_next_waiting_instruction() {
    let mut b = long();
    b.load(DATA, &0x37bu16.to_le_bytes());
    // fldcw [rbx]; fldz; fld1; fdivrp (1/0); fnstsw ax; fld1
    for code in [&[0xd9, 0x2b][..], &[0xd9, 0xee], &[0xd9, 0xe8], &[0xde, 0xf1], &[0xdf, 0xe0]] {
        run(&mut b, code).unwrap();
    }
    assert_eq!(b.cpu.gpr[0] & 0x80ff, 0x8084);
    assert_eq!(run(&mut b, &[0xd9, 0xe8]), Err(16));
    assert_eq!(run(&mut b, &[0x9b]), Err(16));
    // fnclex; fld1
    run(&mut b, &[0xdb, 0xe2]).unwrap();
    run(&mut b, &[0xd9, 0xe8]).unwrap();
}

#[test]
fn without_numeric_error_reporting_the_processor_waits_and_asserts_ferr() {
    let mut b = long();
    b.cpu.cr0 &= !(1 << 5);
    b.cpu.vector.x87.set_fcw(0x37b);
    b.cpu.vector.x87.set_fsw(4);
    b.load(CODE, &[0xd9, 0xe8]);
    b.cpu.rip = CODE;
    assert_eq!(b.cpu.try_step(), Ok(Flow::Again));
    assert!(b.cpu.vector.ferr);
    assert_eq!(b.cpu.rip, CODE);
}

#[test]
fn mmx_lies_over_the_x87_registers() {
    let mut b = long();
    b.cpu.gpr[0] = 0x0102_0304_0506_0708;
    // fld1; movq mm0,rax; paddb mm0,mm0; movq rcx,mm0
    for code in [&[0xd9, 0xe8][..], &[0x48, 0x0f, 0x6e, 0xc0], &[0x0f, 0xfc, 0xc0], &[0x48, 0x0f, 0x7e, 0xc1]] {
        run(&mut b, code).unwrap();
    }
    assert_eq!(b.cpu.gpr[1], 0x0204_0608_0a0c_0e10);
    assert_eq!((b.cpu.vector.x87.top(), b.cpu.vector.x87.used()), (0, 0xff));
    // emms
    run(&mut b, &[0x0f, 0x77]).unwrap();
    assert_eq!(b.cpu.vector.x87.used(), 0);
}

#[test]
fn fcmov_reads_the_guests_flags() {
    let mut b = long();
    // fld1; fldz; fcmovb st0,st1
    for carry in [0u64, 1] {
        b.cpu.vector.init_x87();
        run(&mut b, &[0xd9, 0xe8]).unwrap();
        run(&mut b, &[0xd9, 0xee]).unwrap();
        b.cpu.set_rflags(carry);
        run(&mut b, &[0xda, 0xc1]).unwrap();
        assert_eq!(b.cpu.vector.x87.register(0)[9] != 0, carry != 0);
        assert_eq!(b.cpu.rflags() & 1, carry);
    }
}

#[test]
fn the_environment_has_tags_and_pointers() {
    let mut b = long();
    b.load(DATA + 64, &1.0f32.to_bits().to_le_bytes());
    // fld dword [rbx+40h]; fldz; fnstenv [rbx]
    for code in [&[0xd9, 0x43, 0x40][..], &[0xd9, 0xee], &[0xd9, 0x33]] {
        run(&mut b, code).unwrap();
    }
    let area: [u8; 28] = memory(&b, DATA);
    let word = |at: usize| u32::from_le_bytes([area[at], area[at + 1], area[at + 2], area[at + 3]]);
    assert_eq!(word(0), 0xffff_037f);
    assert_eq!(word(4), 0xffff_3000);
    assert_eq!(word(8), 0xffff_1fff); // valid in register 7, zero in register 6
    assert_eq!(u64::from(word(12)), CODE);
    assert_eq!(word(16) >> 16, 0x1ee);
    if !b.cpu.vector.layout.fdp_on_exception {
        assert_eq!(u64::from(word(20)), DATA + 64);
    }
}

#[test]
fn state_saved_by_fnsave_comes_back() {
    let mut b = long();
    // fldpi; fldz; fnsave [rbx]
    for code in [&[0xd9, 0xeb][..], &[0xd9, 0xee]] {
        run(&mut b, code).unwrap();
    }
    let before = b.cpu.vector.x87.clone();
    run(&mut b, &[0xdd, 0x33]).unwrap();
    assert_eq!((b.cpu.vector.x87.used(), b.cpu.vector.x87.fsw()), (0, 0));
    // frstor [rbx]
    run(&mut b, &[0xdd, 0x23]).unwrap();
    assert_eq!(b.cpu.vector.x87.used(), before.used());
    assert_eq!(b.cpu.vector.x87.fsw(), before.fsw());
    assert_eq!(b.cpu.vector.x87.register(1), before.register(1));
}

fn has_zmm() -> bool {
    host::features().width == host::Width::Zmm
}

#[test]
fn evex_displacements_masks_and_high_registers() {
    if !has_zmm() {
        return;
    }
    let mut b = long();
    let data: Vec<u8> = (0..64).collect();
    b.load(DATA + 64, &data);
    // vmovdqu64 zmm17,[rbx+40h] (disp8*64: 1)
    run(&mut b, &[0x62, 0xe1, 0xfe, 0x48, 0x6f, 0x4b, 0x01]).unwrap();
    assert_eq!(b.cpu.vector.zmm[17][0], 0x0706_0504_0302_0100);
    assert_eq!(b.cpu.vector.zmm[17][7], 0x3f3e_3d3c_3b3a_3938);
    b.cpu.vector.k[1] = 0b1010;
    b.cpu.vector.zmm[20] = [5; 8];
    // vpaddq zmm20{k1},zmm17,[rbx+40h]
    run(&mut b, &[0x62, 0xe1, 0xf5, 0x41, 0xd4, 0x63, 0x01]).unwrap();
    assert_eq!(b.cpu.vector.zmm[20][0], 5);
    assert_eq!(b.cpu.vector.zmm[20][1], 0x0f0e_0d0c_0b0a_0908 * 2);
    // vpaddq zmm20{k1}{z},zmm17,[rbx+40h]{1to8}: disp8*8
    run(&mut b, &[0x62, 0xe1, 0xf5, 0xd1, 0xd4, 0x63, 0x08]).unwrap();
    assert_eq!(b.cpu.vector.zmm[20][0], 0);
    assert_eq!(b.cpu.vector.zmm[20][1], 0x0f0e_0d0c_0b0a_0908 + 0x0706_0504_0302_0100);
}

#[test]
fn masked_elements_beyond_the_memory_do_not_fault() {
    if !has_zmm() {
        return;
    }
    let mut b = long();
    b.cpu.efer = 0;
    b.cpu.segments[segment::CS].loaded.attributes = 0xc09b;
    b.cpu.segments[segment::DS].loaded.limit = DATA as u32 + 15;
    b.cpu.mode_changed();
    b.cpu.vector.k[1] = 0b11;
    b.cpu.vector.zmm[1] = [9; 8];
    b.load(DATA, &[1; 16]);
    // vmovdqu64 zmm1{k1}{z},[ebx]
    let load = [0x62, 0xf1, 0xfe, 0xc9, 0x6f, 0x0b];
    run(&mut b, &load).unwrap();
    assert_eq!(b.cpu.vector.zmm[1], [0x0101_0101_0101_0101, 0x0101_0101_0101_0101, 0, 0, 0, 0, 0, 0]);
    b.cpu.vector.zmm[2] = [7; 8];
    // vmovdqu64 [ebx]{k1},zmm2
    run(&mut b, &[0x62, 0xf1, 0xfe, 0x49, 0x7f, 0x13]).unwrap();
    assert_eq!(memory::<24>(&b, DATA)[8..], [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    b.cpu.vector.k[1] = 0b111;
    assert_eq!(run(&mut b, &load), Err(13));
}

#[test]
fn a_gather_that_faults_has_done_what_came_before() {
    let mut b = long();
    b.cpu.efer = 0;
    b.cpu.segments[segment::CS].loaded.attributes = 0xc09b;
    b.cpu.segments[segment::DS].loaded.limit = DATA as u32 + 15;
    b.cpu.mode_changed();
    b.load(DATA, &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    b.cpu.vector.zmm[1] = [3 | 1 << 32, 100, 0, 0, 0, 0, 0, 0];
    b.cpu.vector.zmm[2] = [u64::MAX; 8];
    // vpgatherdd xmm0,[ebx+xmm1*4],xmm2
    let gather = [0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8b];
    assert_eq!(run(&mut b, &gather), Err(13));
    assert_eq!(b.cpu.vector.zmm[0][0], 4 | 2 << 32);
    assert_eq!(b.cpu.vector.zmm[2][..2], [0, u64::MAX]);
    b.cpu.vector.zmm[1][1] = 2;
    run(&mut b, &gather).unwrap();
    assert_eq!(b.cpu.vector.zmm[0], [4 | 2 << 32, 3 | 1 << 32, 0, 0, 0, 0, 0, 0]);
    assert_eq!(b.cpu.vector.zmm[2], [0; 8]);
}

#[test]
fn bytes_are_stored_by_mask() {
    let mut b = long();
    b.cpu.gpr[7] = DATA;
    b.load(DATA, &[0xff; 16]);
    b.cpu.vector.set_xmm(1, u128::from_le_bytes(*b"abcdefghijklmnop"));
    b.cpu.vector.set_xmm(2, 0x80_0000_8000 | 0x80 << 120);
    // maskmovdqu xmm1,xmm2
    run(&mut b, &[0x66, 0x0f, 0xf7, 0xca]).unwrap();
    let mut expected = [0xff; 16];
    (expected[1], expected[4], expected[15]) = (b'b', b'e', b'p');
    assert_eq!(memory::<16>(&b, DATA), expected);
}

#[test]
fn compressed_stores_and_expanding_loads() {
    if !has_zmm() {
        return;
    }
    let mut b = long();
    b.cpu.vector.zmm[1] = [10, 11, 12, 13, 14, 15, 16, 17];
    b.cpu.vector.k[2] = 0b1001_0010;
    // vpcompressq [rbx]{k2},zmm1
    run(&mut b, &[0x62, 0xf2, 0xfd, 0x4a, 0x8b, 0x0b]).unwrap();
    let stored: [u8; 32] = memory(&b, DATA);
    assert_eq!([stored[0], stored[8], stored[16], stored[24]], [11, 14, 17, 0]);
    // vpexpandq zmm3{k2}{z},[rbx]
    run(&mut b, &[0x62, 0xf2, 0xfd, 0xca, 0x89, 0x1b]).unwrap();
    assert_eq!(b.cpu.vector.zmm[3], [0, 11, 0, 0, 14, 0, 0, 17]);
}

#[test]
fn sixteen_bit_addressing_and_32_bit_code_reach_the_stubs() {
    let mut b = long();
    b.cpu.efer = 0;
    b.cpu.segments[segment::CS].loaded.attributes = 0xc09b;
    b.cpu.mode_changed();
    b.load(0x1234, &doubles(3.0, 4.0).to_le_bytes());
    b.cpu.gpr[3] = 0x1230;
    // sqrtsd xmm2,[bx+4]
    run(&mut b, &[0x67, 0xf2, 0x0f, 0x51, 0x57, 4]).unwrap();
    assert_eq!(b.cpu.vector.xmm(2) as u64, 3f64.sqrt().to_bits());
    b.cpu.cr0 &= !1;
    b.cpu.mode_changed();
    // vaddps xmm0,xmm0,xmm1 in real mode
    assert_eq!(run(&mut b, &[0xc5, 0xf8, 0x58, 0xc1]), Err(6));
}

#[test]
fn an_x87_store_that_faults_changes_nothing() {
    let mut b = long();
    b.cpu.efer = 0;
    b.cpu.segments[segment::CS].loaded.attributes = 0xc09b;
    b.cpu.segments[segment::DS].loaded.limit = 0xfff;
    b.cpu.mode_changed();
    run(&mut b, &[0xd9, 0xe8]).unwrap();
    // fstp qword [ebx]
    assert_eq!(run(&mut b, &[0xdd, 0x1b]), Err(13));
    assert_eq!(b.cpu.vector.x87.used(), 0x80);
}

#[test]
fn x87_may_stay_in_the_hosts_registers() {
    let mut b = long();
    b.load(DATA, &2.0f64.to_bits().to_le_bytes());
    b.cpu.enter_x87();
    // fld qword [rbx]; fsqrt; fld1; fcomi st0,st1; faddp; fst qword [rbx+8]
    for code in [&[0xdd, 0x03][..], &[0xd9, 0xfa], &[0xd9, 0xe8], &[0xdb, 0xf1], &[0xde, 0xc1], &[0xdd, 0x53, 8]] {
        run(&mut b, code).unwrap();
    }
    assert!(b.cpu.vector.resident);
    assert!(b.cpu.status.cf());
    let sum = f64::from_bits(u64::from_le_bytes(memory(&b, DATA + 8)));
    assert!((sum - (2f64.sqrt() + 1.0)).abs() < 1e-15, "{sum}");
    // fnstsw ax
    run(&mut b, &[0xdf, 0xe0]).unwrap();
    assert_eq!(b.cpu.gpr[0] & 0x3800, 0x3800);
    b.cpu.leave_x87();
    assert_eq!((b.cpu.vector.x87.used(), b.cpu.vector.x87.top()), (0x80, 7));
}

#[test]
fn pending_exceptions_are_found_in_the_hosts_registers() {
    let mut b = long();
    b.load(DATA, &0x37bu16.to_le_bytes());
    b.cpu.enter_x87();
    // fld1; fldcw [rbx]; fidiv dword [rbx+8] (1/0)
    for code in [&[0xd9, 0xe8][..], &[0xd9, 0x2b], &[0xda, 0x73, 8]] {
        run(&mut b, code).unwrap();
    }
    assert!(b.cpu.vector.resident);
    // fld1; wait; fldcw [rbx]; emms
    for code in [&[0xd9, 0xe8][..], &[0x9b], &[0xd9, 0x2b], &[0x0f, 0x77]] {
        assert_eq!(run(&mut b, code), Err(16), "{code:x?}");
    }
    // fnclex; fld1
    run(&mut b, &[0xdb, 0xe2]).unwrap();
    run(&mut b, &[0xd9, 0xe8]).unwrap();
    b.cpu.leave_x87();
    assert_eq!(b.cpu.vector.last.fdp, DATA + 8);
}

#[test]
fn an_unmasked_x87_store_does_not_reach_memory() {
    for resident in [false, true] {
        let mut b = long();
        b.load(DATA, &0x37eu16.to_le_bytes());
        b.load(DATA + 8, &[0x55; 8]);
        if resident {
            b.cpu.enter_x87();
        }
        // fldcw [rbx]; fld1; fldz; fdivp (infinity, as division by zero is masked); fistp qword [rbx+8]
        for code in [&[0xd9, 0x2b][..], &[0xd9, 0xe8], &[0xd9, 0xee], &[0xde, 0xf9], &[0xdf, 0x7b, 8]] {
            run(&mut b, code).unwrap();
        }
        assert_eq!(memory::<8>(&b, DATA + 8), [0x55; 8]);
        assert_eq!(run(&mut b, &[0x9b]), Err(16));
        b.cpu.leave_x87();
        assert_eq!(b.cpu.vector.x87.used(), 0x80);
    }
}
