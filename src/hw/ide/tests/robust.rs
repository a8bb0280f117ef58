//! Hostile guests, and the reset.

use super::*;

#[test]
fn a_system_reset_is_the_power_on_state() {
    let mut b = Bench::new();
    b.command(cmd::READ_SECTORS, 2, 0);
    b.ide.reset(Reset::System);
    assert_eq!(b.disk.with(|s| s.cancelled), 1);
    b.run();
    assert_eq!(b.regs(), Bench::new().regs());
    assert!(!b.irq());
}
