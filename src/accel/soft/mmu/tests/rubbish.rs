//! Page tables of a hostile guest.

use super::super::InvPcid;
use super::*;

/// Marsaglia's xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// An entry that mostly points to the few pages that are tables, RAM and devices at once.
    fn entry(&mut self) -> u64 {
        let bits = self.next() & 0xfff | P;
        let address = match self.next() % 32 {
            0 => self.next() & 0x000f_ffff_ffff_f000,
            1 => 0xf000_0000,
            _ => ROOT + self.next() % 8 * 0x1000,
        };
        let high = if self.next().is_multiple_of(32) { self.next() & 0xfff0_0000_0000_0000 } else { 0 };
        // Mostly not large, and open to everybody.
        let keep = if self.next().is_multiple_of(16) { 0xfff } else { !PS };
        (bits & keep | ALL) & !(self.next() & self.next() & self.next() & 7) | address | high
    }

    fn linear(&mut self) -> u64 {
        let table = self.next() & self.next() & 0x0000_8080_8080_7fff | self.next() & 0xfff;
        match self.next() % 8 {
            0 => self.next(),
            1 => table | 0xffff_8000_0000_0000,
            2 => table & !0xfff | 0xffc | self.next() & 3,
            _ => table & 0x7fff_ffff_ffff,
        }
    }
}

fn act(p: &mut Paged, random: &mut Random) {
    let (linear, other) = (random.linear(), random.linear());
    let ds = segment::DS as u8;
    match random.next() % 16 {
        0 => drop(p.write::<u64>(linear, random.entry())),
        1 => drop(p.write::<u16>(linear, 7)),
        2 => drop(p.b.cpu.update::<u32, true>(ds, linear, |x| x ^ 0x20)),
        3 => drop(p.b.cpu.update::<u128, false>(ds, linear, |x| x)),
        4 => drop(p.b.cpu.write_bytes(ds, linear, &[0x27; 4096])),
        5 => drop(p.b.cpu.read_bytes(ds, linear, &mut [0; 100])),
        6 => drop(p.fetch(linear)),
        7 => drop(p.b.cpu.copy_units((ds, linear), (ds, other), 8, random.next())),
        8 => drop(p.b.cpu.fill_units((ds, linear), random.entry(), 8, random.next() % 100)),
        9 => p.b.cpu.mmu.flush_page(linear),
        10 => p.b.cpu.mmu.invpcid(InvPcid::Address { pcid: (random.next() & 0xfff) as u16, linear }),
        11 => {
            p.b.cpu.cr3 = ROOT + random.next() % 8 * 0x1000 + random.next() % 20;
            p.b.cpu.switch_cr3(random.next().is_multiple_of(2));
        }
        12 => p.level(if random.next().is_multiple_of(2) { 3 } else { 0 }),
        13 => p.set_word(ROOT + random.next() % 0x8000 / 8 * 8, random.entry()),
        _ => drop(p.read::<u64>(linear)),
    }
}

fn run(seed: u64, mut p: Paged) {
    let mut random = Random(seed);
    let _notes = with_notes(&mut p.b);
    for place in (ROOT..ROOT + 0x8000).step_by(8) {
        p.set_word(place, random.entry());
    }
    let mut read = 0;
    for _ in 0..30_000 {
        act(&mut p, &mut random);
        let linear = random.linear();
        p.b.cpu.mmu.flush_all();
        if let Ok(value) = p.read::<u8>(linear) {
            // A table may change what it is itself: its accessed bits are there now.
            let gpa = p.b.cpu.translate(linear).unwrap();
            let expected = if gpa < Bench::RAM { p.b.ram.byte(gpa) } else { gpa as u8 };
            assert!(value == expected || value | 0x60 == expected, "{linear:#x}");
            read += 1;
        }
    }
    assert!(read > 100, "{read}");
}

#[test]
fn four_levels_of_rubbish() {
    run(0x1234_5678_9abc_def1, Paged::new(4, CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_PKE, LMA | NXE));
}

#[test]
fn five_levels_of_rubbish() {
    run(0x2468_ace0_1357_9bdf, Paged::new(5, CR4_PAE | CR4_LA57 | CR4_SMAP | CR4_SMEP, LMA));
}

#[test]
fn two_levels_of_rubbish() {
    run(0x1111_2222_3333_4447, narrow());
}

fn narrow() -> Paged {
    Paged::new(2, CR4_PSE, 0)
}
