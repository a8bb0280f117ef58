//! The XSAVE family.

use super::*;

/// Something in every component.
fn filled() -> Bench {
    let mut b = long();
    run(&mut b, &[0xd9, 0xeb]).unwrap(); // fldpi
    for (i, register) in b.cpu.vector.zmm.iter_mut().enumerate() {
        *register = std::array::from_fn(|word| (i as u64) << 8 | word as u64 | 1 << 63);
    }
    b.cpu.vector.k = [1, 2, 3, 4, 5, 6, 7, 8];
    b.cpu.vector.mxcsr = 0x1fa0;
    b
}

fn registers(b: &Bench) -> ([[u64; 8]; 32], [u64; 8], u32, [u8; 10]) {
    let v = &b.cpu.vector;
    (v.zmm, v.k, v.mxcsr, v.x87.register(0))
}

fn request(b: &mut Bench, mask: u32) {
    (b.cpu.gpr[0], b.cpu.gpr[2]) = (u64::from(mask), 0);
}

/// What registers hold that XCR0 covers.
fn covered(b: &Bench) -> bool {
    b.cpu.vector.layout.supported & 0xe6 == 0xe6
}

#[test]
fn standard_and_compacted_areas_bring_everything_back() {
    // xsave64 [rbx], xsaveopt64 [rbx], xsavec64 [rbx], xsaves64 [rbx]
    let saves: [&[u8]; 4] =
        [&[0x48, 0x0f, 0xae, 0x23], &[0x48, 0x0f, 0xae, 0x33], &[0x48, 0x0f, 0xc7, 0x23], &[0x48, 0x0f, 0xc7, 0x2b]];
    for save in saves {
        let mut b = filled();
        if !covered(&b) {
            return;
        }
        let before = registers(&b);
        request(&mut b, u32::MAX);
        run(&mut b, save).unwrap();
        b.cpu.vector.reset(&b.cpu.model.clone());
        b.cpu.vector.xcr0 = b.cpu.vector.layout.supported;
        // xrstor64 [rbx]
        run(&mut b, &[0x48, 0x0f, 0xae, 0x2b]).unwrap();
        assert_eq!(registers(&b), before, "{save:x?}");
    }
}

#[test]
fn the_initial_state_is_not_stored() {
    let mut b = long();
    b.load(DATA, &[0x55; 0x240]);
    b.load(DATA + 512, &[0; 64]);
    request(&mut b, 7);
    // xsavec [rbx]
    run(&mut b, &[0x0f, 0xc7, 0x23]).unwrap();
    let header: [u8; 16] = memory(&b, DATA + 512);
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!(memory::<4>(&b, DATA + 160), [0x55; 4]);
    assert_eq!(memory::<4>(&b, DATA + 24), 0x1f80u32.to_le_bytes());
}

#[test]
fn bad_headers_are_refused() {
    let xrstor = [0x0f, 0xae, 0x2b];
    let mut b = long();
    b.load(DATA + 24, &0x1f80u32.to_le_bytes());
    request(&mut b, u32::MAX);
    assert_eq!(run(&mut b, &xrstor), Ok(()));
    b.load(DATA + 512, &(1u64 << 40).to_le_bytes());
    assert_eq!(run(&mut b, &xrstor), Err(13));
    b.load(DATA + 512, &0u64.to_le_bytes());
    b.load(DATA + 528, &[1]);
    assert_eq!(run(&mut b, &xrstor), Err(13));
    b.load(DATA + 528, &[0]);
    b.load(DATA + 24, &0xffff_ffffu32.to_le_bytes());
    assert_eq!(run(&mut b, &xrstor), Err(13));
    b.cpu.gpr[3] = DATA + 8;
    assert_eq!(run(&mut b, &xrstor), Err(13));
}

#[test]
fn fxsave_keeps_what_its_mode_cannot_name() {
    let mut b = filled();
    let before = registers(&b);
    // fxsave64 [rbx]
    run(&mut b, &[0x48, 0x0f, 0xae, 0x03]).unwrap();
    let area: [u8; 512] = memory(&b, DATA);
    assert_eq!(area[4], 0x80);
    assert_eq!(area[160 + 15 * 16 + 1], 15);
    assert_eq!(u64::from_le_bytes(std::array::from_fn(|i| area[8 + i])), CODE);
    b.cpu.vector.reset(&b.cpu.model.clone());
    // fxrstor64 [rbx]
    run(&mut b, &[0x48, 0x0f, 0xae, 0x0b]).unwrap();
    assert_eq!(b.cpu.vector.xmm(15), u128::from(before.0[15][0]) | u128::from(before.0[15][1]) << 64);
    assert_eq!((b.cpu.vector.mxcsr, b.cpu.vector.x87.register(0)), (before.2, before.3));
}

#[test]
fn xsetbv_refuses_combinations_that_make_no_sense() {
    let mut b = long();
    let xsetbv = [0x0f, 0x01, 0xd1];
    b.cpu.gpr[1] = 0;
    for (value, result) in [(1, Ok(())), (7, Ok(())), (6, Err(13)), (5, Err(13)), (0x27, Err(13)), (1 << 31, Err(13))] {
        request(&mut b, value);
        assert_eq!(run(&mut b, &xsetbv), result, "{value:x}");
    }
    assert_eq!(b.cpu.vector.xcr0(), 7);
    // xgetbv
    run(&mut b, &[0x0f, 0x01, 0xd0]).unwrap();
    assert_eq!((b.cpu.gpr[0], b.cpu.gpr[2]), (7, 0));
}

#[test]
fn mxcsr_refuses_bits_that_it_does_not_have() {
    let mut b = long();
    b.load(DATA, &0x1f80_0000u32.to_le_bytes());
    // ldmxcsr [rbx]
    assert_eq!(run(&mut b, &[0x0f, 0xae, 0x13]), Err(13));
    b.load(DATA, &0x9fc0u32.to_le_bytes());
    assert_eq!(run(&mut b, &[0x0f, 0xae, 0x13]), Ok(()));
    // stmxcsr [rbx+8]
    run(&mut b, &[0x0f, 0xae, 0x5b, 8]).unwrap();
    assert_eq!(memory::<4>(&b, DATA + 8), 0x9fc0u32.to_le_bytes());
}

#[test]
fn whole_states_are_exchanged() {
    let b = filled();
    let area = b.cpu.save_xsave();
    let mut other = long();
    other.cpu.load_xsave(&area);
    let (zmm, k, ..) = registers(&other);
    assert_eq!(zmm[3][0], registers(&b).0[3][0]);
    if covered(&b) {
        assert_eq!((zmm, k), (registers(&b).0, registers(&b).1));
    }
    assert_eq!(other.cpu.save_xsave(), area);
    other.cpu.load_xsave(&area[..30]);
    assert_eq!(other.cpu.vector.xmm(3), 0);
}
