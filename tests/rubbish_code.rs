//! Rubbish as code, registers and tables of the software CPU: it neither panics nor touches host memory outside guest
//! RAM. The same guests as the fuzz target's (`fuzz/`), from a fixed seed; `scripts/fuzz` runs longer.
#![expect(clippy::expect_used, reason = "a test panics to fail")]

#[path = "../fuzz/rubbish.rs"]
mod rubbish;

#[test]
fn rubbish_neither_panics_nor_leaves_guest_memory() {
    let mut seed = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..2000 {
        let len = 300 + next() as usize % 1500;
        let mut data: Vec<u8> = (0..len).map(|_| next() as u8).collect();
        // Opcodes that a random byte seldom makes.
        for _ in 0..len / 16 {
            let at = next() as usize % len;
            data[at] = [0x0f, 0x66, 0xf3, 0xf0, 0xc4, 0x62, 0x48][next() as usize % 7];
        }
        rubbish::run(&data);
    }
}
