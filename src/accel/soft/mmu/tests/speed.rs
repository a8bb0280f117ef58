//! How fast it is: prints nanoseconds. `cargo test --release --lib mmu::tests::speed -- --ignored --nocapture`

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

use super::*;

const DS: u8 = segment::DS as u8;
const PAGES: u64 = 512;

fn measure(name: &str, times: u64, mut act: impl FnMut(u64)) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    (0..times).for_each(&mut act);
    println!("{name}: {:.2} ns", (now() - start) / times as f64);
}

#[test]
#[ignore = "prints times; asserts nothing"]
fn accesses() {
    let mut p = Paged::long();
    for page in 0..PAGES {
        p.map(0x40_0000 + page * 0x1000, (0x80_0000 + page * 0x1000) | ALL);
    }
    let cpu = &mut p.b.cpu;
    measure("read hit", 100_000_000, |n| {
        black_box(cpu.read::<u64>(DS, black_box(0x40_0000 + ((n * 8) & 0xff8))).unwrap());
    });
    measure("write hit", 100_000_000, |n| {
        cpu.write::<u64>(DS, black_box(0x40_0000 + ((n * 8) & 0xff8)), n).unwrap();
    });
    measure("update hit", 100_000_000, |n| {
        cpu.update::<u64, false>(DS, black_box(0x40_0000 + ((n * 8) & 0xff8)), |x| x + n).unwrap();
    });
    measure("locked update hit", 20_000_000, |n| {
        cpu.update::<u64, true>(DS, black_box(0x40_0000 + ((n * 8) & 0xff8)), |x| x + n).unwrap();
    });
    measure("code page", 100_000_000, |n| {
        black_box(cpu.code_page(black_box(0x40_0000 + ((n * 8) & 0xff8))).unwrap());
    });
    measure("read hit, a page after the other", 50_000_000, |n| {
        black_box(cpu.read::<u64>(DS, black_box(0x40_0000 + n % PAGES * 0x1000)).unwrap());
    });
    measure("read across pages", 20_000_000, |_| {
        black_box(cpu.read::<u64>(DS, black_box(0x40_0ffc)).unwrap());
    });
    measure("read miss", 5_000_000, |n| {
        if n % PAGES == 0 {
            cpu.switch_cr3(false);
        }
        black_box(cpu.read::<u64>(DS, black_box(0x40_0000 + n % PAGES * 0x1000)).unwrap());
    });
    measure("switch of CR3", 5_000_000, |_| cpu.switch_cr3(false));
    measure("change of rights", 50_000_000, |n| {
        cpu.cpl = if n & 1 == 0 { 3 } else { 0 };
        cpu.rights_changed();
    });
}
