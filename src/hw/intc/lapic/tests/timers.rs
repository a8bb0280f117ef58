use super::*;

/// A processor whose timer interrupts with vector 40h in this mode (bits 18-17), dividing by 1.
fn timer(mode: u32) -> Bench {
    let b = Bench::ready(1);
    b.write(at::DIVIDE, 0xb);
    b.write(at::LVT_TIMER, 0x40 | mode << 17);
    b
}

fn fired(b: &Bench) -> bool {
    let vector = b.local[0].acknowledge();
    if vector.is_some() {
        assert_eq!(vector, Some(0x40));
        b.write(at::EOI, 0);
    }
    vector.is_some()
}

#[test]
fn a_one_shot_ends_once_and_never_early() {
    let b = timer(0);
    b.write(at::INITIAL, 1000);
    b.pass(999);
    assert_eq!((fired(&b), b.read(at::CURRENT)), (false, 1));
    b.pass(1);
    assert_eq!((fired(&b), b.read(at::CURRENT)), (true, 0));
    b.pass(10_000);
    assert!(!fired(&b));
    assert_eq!(b.read(at::INITIAL), 1000);
}

#[test]
fn the_divisor_slows_it_down() {
    let b = timer(0);
    let divisors = [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];
    for (code, divisor) in divisors {
        b.write(at::DIVIDE, code);
        b.write(at::INITIAL, 100);
        b.pass(100 * divisor - 1);
        assert_eq!((fired(&b), b.read(at::CURRENT)), (false, 1), "divided by {divisor}");
        b.pass(1);
        assert!(fired(&b));
    }
    b.write(at::DIVIDE, 0xffff_ffff);
    assert_eq!(b.read(at::DIVIDE), 0xb);
}

#[test]
fn a_new_divisor_keeps_the_count() {
    let b = timer(0);
    b.write(at::INITIAL, 1000);
    b.pass(400);
    b.write(at::DIVIDE, 0);
    assert_eq!(b.read(at::CURRENT), 600);
    b.pass(1199);
    assert!(!fired(&b));
    b.pass(1);
    assert!(fired(&b));
}

#[test]
fn a_periodic_timer_keeps_its_phase() {
    let b = timer(1);
    b.write(at::INITIAL, 1_000_000);
    b.pass(1_300_000);
    assert!(fired(&b));
    assert_eq!(b.read(at::CURRENT), 700_000);
    b.pass(699_999);
    assert!(!fired(&b), "the second match is at 2 ms, however late the first was served");
    b.pass(1);
    assert!(fired(&b));
    b.pass(5_500_000);
    assert!(fired(&b), "missed matches are one interrupt");
    b.pass(499_999);
    assert!(!fired(&b));
    b.pass(1);
    assert!(fired(&b));
}

#[test]
fn a_count_of_zero_stops_it() {
    let b = timer(1);
    b.write(at::INITIAL, 1_000_000);
    b.pass(500_000);
    b.write(at::INITIAL, 0);
    assert_eq!(b.read(at::CURRENT), 0);
    b.pass(5_000_000);
    assert!(!fired(&b));
}

#[test]
fn a_short_period_cannot_drown_the_host() {
    let b = timer(1);
    b.write(at::INITIAL, 1);
    let ticks = (0..10_000)
        .filter(|_| {
            b.pass(100);
            fired(&b)
        })
        .count();
    assert!((9..=11).contains(&ticks), "{ticks} interrupts in 1 ms");
}

#[test]
fn a_masked_timer_counts_silently() {
    let b = timer(1);
    b.write(at::LVT_TIMER, 0x3_0040);
    b.write(at::INITIAL, 1_000_000);
    b.pass(1_500_000);
    assert_eq!((fired(&b), b.read(at::CURRENT)), (false, 500_000));
    b.write(at::LVT_TIMER, 0x2_0040);
    b.pass(500_000);
    assert!(fired(&b));
}

#[test]
fn the_deadline_is_compared_with_the_time_stamp_counter() {
    let b = timer(2);
    let apic = &b.local[0];
    apic.set_tsc_offset(1_000_000);
    assert!(apic.write_msr(0x6e0, 1_000_500));
    assert_eq!(apic.read_msr(0x6e0), Some(1_000_500));
    b.pass(499);
    assert!(!fired(&b));
    b.pass(1);
    assert!(fired(&b));
    assert_eq!(apic.read_msr(0x6e0), Some(0));
    assert!(apic.write_msr(0x6e0, 1_000_001));
    assert!(fired(&b), "a deadline that has passed");
    assert!(apic.write_msr(0x6e0, 1_002_000));
    apic.set_tsc_offset(2_000_000);
    assert!(fired(&b), "the counter was set past it");
    assert!(apic.write_msr(0x6e0, 3_000_000));
    assert!(apic.write_msr(0x6e0, 0));
    b.pass(2_000_000);
    assert!(!fired(&b));
    assert!(apic.write_msr(0x6e0, u64::MAX));
    b.pass(1 << 40);
    assert!(!fired(&b));
}

#[test]
fn the_deadline_belongs_to_its_mode() {
    let b = timer(2);
    let apic = &b.local[0];
    b.write(at::INITIAL, 100);
    assert_eq!((b.read(at::INITIAL), b.read(at::CURRENT)), (0, 0));
    assert!(apic.write_msr(0x6e0, 500));
    b.write(at::LVT_TIMER, 0x40);
    assert_eq!(apic.read_msr(0x6e0), Some(0));
    assert!(apic.write_msr(0x6e0, 500));
    assert_eq!(apic.read_msr(0x6e0), Some(0));
    b.pass(1000);
    assert!(!fired(&b));
    b.write(at::INITIAL, 100);
    b.write(at::LVT_TIMER, 0x4_0040);
    b.pass(1000);
    assert!(!fired(&b));
}

#[test]
fn init_and_disabling_stop_the_timer() {
    let b = timer(1);
    b.write(at::INITIAL, 1_000_000);
    b.local[0].init();
    assert_eq!(b.read(at::INITIAL), 0);
    b.write(at::SVR, 0x1ff);
    b.write(at::LVT_TIMER, 0x2_0040);
    b.write(at::INITIAL, 1_000_000);
    assert!(b.local[0].set_base(0xfee0_0100));
    assert!(b.local[0].set_base(0xfee0_0900));
    b.write(at::SVR, 0x1ff);
    b.write(at::LVT_TIMER, 0x2_0040);
    b.pass(3_000_000);
    assert!(!fired(&b));
}
