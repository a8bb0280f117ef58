//! Bytes without sense in the opcode spaces of vector and floating-point instructions.

use std::time::{Duration, Instant};

use super::*;

/// xorshift64*.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self) -> [u8; 16] {
        let (a, b) = (self.next(), self.next());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a.to_le_bytes());
        bytes[8..].copy_from_slice(&b.to_le_bytes());
        bytes
    }
}

/// An instruction that likely is of this module.
pub(super) fn instruction(random: &mut Random) -> [u8; 16] {
    let mut bytes = random.bytes();
    let prefixes: &[&[u8]] = &[
        &[0x0f],
        &[0x66, 0x0f],
        &[0xf3, 0x0f],
        &[0xf2, 0x0f],
        &[0x0f, 0x38],
        &[0x66, 0x0f, 0x38],
        &[0x66, 0x0f, 0x3a],
        &[0x0f, 0xae],
        &[0x0f, 0xc7],
        &[0xc5],
        &[0xc4, 0xe2],
        &[0xc4, 0xe3],
        &[0x62, 0xf1],
        &[0x62, 0xf2],
        &[0x62, 0xf3],
        &[0x62],
    ];
    let choice = random.next() as usize % (prefixes.len() + 4);
    match prefixes.get(choice) {
        Some(prefix) => bytes[..prefix.len()].copy_from_slice(prefix),
        None => bytes[0] = 0xd8 | bytes[0] & 7,
    }
    bytes
}

fn scramble(b: &mut Bench, random: &mut Random) {
    for register in &mut b.cpu.vector.zmm {
        register.iter_mut().for_each(|word| *word = random.next());
    }
    b.cpu.vector.k.iter_mut().for_each(|word| *word = random.next());
    b.cpu.gpr[..16].iter_mut().for_each(|register| *register = DATA + random.next() % 0x8000 * 8);
    b.cpu.vector.mxcsr = random.next() as u32 & 0xffff & host::features().mxcsr_mask;
    b.cpu.vector.x87.set_fcw(random.next() as u16);
    b.cpu.vector.xcr0 = b.cpu.vector.layout.supported;
    b.cpu.cr4 |= 1 << 18;
}

fn fuzz(duration: Duration, seed: u64) -> (u64, u64) {
    let mut random = Random(seed);
    let (mut executed, mut refused) = (0, 0);
    let mut b = long();
    let start = Instant::now();
    while start.elapsed() < duration {
        scramble(&mut b, &mut random);
        for _ in 0..64 {
            let bytes = instruction(&mut random);
            let decoded = iced_x86::Decoder::with_ip(64, &bytes[..15], 0, iced_x86::DecoderOptions::NONE).decode();
            let mut extra = 0;
            if decoded.is_invalid() || handler(&decoded, &mut extra).is_none() {
                continue;
            }
            match run(&mut b, &bytes) {
                Ok(()) => executed += 1,
                Err(_) => refused += 1,
            }
        }
    }
    (executed, refused)
}

#[test]
fn random_instructions_neither_panic_nor_reach_the_host() {
    let (executed, refused) = fuzz(Duration::from_secs(2), 0x1234_5678_9abc_def1);
    assert!(executed > 100 && refused > 10, "{executed} {refused}");
}

/// A minute of the same, with a seed from the environment (`SEED`).
#[test]
#[ignore = "takes a minute"]
fn random_instructions_for_a_minute() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x9e37_79b9_7f4a_7c15);
    let (executed, refused) = fuzz(Duration::from_secs(60), seed);
    println!("{executed} executed, {refused} refused");
}
