//! The Q35 board's own chips.

use std::process::Command;

use crate::client::Qtest;
use crate::pci::Function;
use crate::random::Random;

const LPC: (u8, u8) = (31, 0);

fn lpc(m: &Qtest) -> Function<'_> {
    Function::new(m, LPC.0, LPC.1)
}

/// Puts the power management ports to 600h.
fn enable_pm(m: &Qtest) {
    lpc(m).write32(0x40, 0x601);
    lpc(m).write8(0x44, 0x80);
}

#[test]
fn functions_are_qemus() {
    let m = Qtest::start("-M q35");
    let ids: Vec<(u8, u8, u32)> = (0..32)
        .flat_map(|slot| (0..8).map(move |function| (slot, function)))
        .map(|(slot, function)| (slot, function, Function::new(&m, slot, function).read32(0)))
        .filter(|(_, _, id)| *id != u32::MAX)
        .collect();
    let expected = [(0, 0, 0x29c0_8086), (31, 0, 0x2918_8086), (31, 2, 0x2922_8086), (31, 3, 0x2930_8086)];
    assert_eq!(ids, expected);
}

#[test]
fn the_memory_window_shows_configuration_space() {
    let m = Qtest::start("-M q35");
    let host = Function::new(&m, 0, 0);
    let base = 0xb000_0000u64;
    host.write32(0x64, 0);
    host.write32(0x60, base as u32 | 1);
    assert_eq!(m.readl(base), 0x29c0_8086);
    assert_eq!(m.readl(base + (31 << 15)), 0x2918_8086);
    m.writew(base + (31 << 15) + 0x40, 0x0b01);
    assert_eq!(lpc(&m).read16(0x40), 0x0b01);
    // No bus 1, and nothing behind byte 255 of a conventional function.
    assert_eq!((m.readl(base + (1 << 20)), m.readl(base + 0x100)), (u32::MAX, u32::MAX));
    host.write32(0x60, 0);
    assert_eq!(m.readl(base), u32::MAX);
}

#[test]
fn pam_and_smram_decide_what_is_below_one_megabyte() {
    let m = Qtest::start("-M q35");
    let host = Function::new(&m, 0, 0);
    host.write8(0x90, 0x30);
    m.writel(0xf_0000, 0x1234_5678);
    assert_eq!(m.readl(0xf_0000), 0x1234_5678);
    host.write8(0x90, 0x10);
    m.writel(0xf_0000, 0);
    assert_eq!(m.readl(0xf_0000), 0x1234_5678);
    host.write8(0x9d, 0x4a);
    m.writel(0xa_0000, 0x8765_4321);
    assert_eq!(m.readl(0xa_0000), 0x8765_4321);
    host.write8(0x9d, 0x1a);
    assert_eq!((host.read8(0x9d), m.readl(0xa_0000)), (0x1a, u32::MAX));
    host.write8(0x9d, 0x4a);
    assert_eq!(m.readl(0xa_0000), u32::MAX);
}

#[test]
fn tseg_is_hidden_once_it_is_enabled() {
    let m = Qtest::start("-M q35 -m 128");
    let host = Function::new(&m, 0, 0);
    let tseg = (128 << 20) - (1 << 20);
    m.writel(tseg, 1);
    host.write8(0x9e, 0x39);
    host.write8(0x9d, 0x0a);
    assert_eq!((m.readl(tseg), m.readl(tseg - 4)), (u32::MAX, 0));
    host.write8(0x9d, 0x02);
    assert_eq!(m.readl(tseg), 1);
}

#[test]
fn interrupt_links_follow_their_registers() {
    let m = Qtest::start("-M q35");
    m.intercept();
    enable_pm(&m);
    // The power button's SCI.
    m.outw(0x602, 0x100);
    m.qmp("system_powerdown", "{}");
    m.wait_irq(9);
    m.outw(0x600, 0x100);
    assert!(!m.irq(9));
}

#[test]
fn the_pm_timer_counts_and_overflows() {
    let m = Qtest::start("-M q35");
    m.intercept();
    enable_pm(&m);
    m.outw(0x602, 1);
    let before = m.inl(0x608);
    m.clock_step(1_000_000_000);
    assert_eq!(m.inl(0x608).wrapping_sub(before) & 0xff_ffff, 3_579_545);
    m.clock_step(3_000_000_000);
    assert!(m.irq(9));
    assert_eq!(m.inw(0x600) & 1, 1);
}

/// Lets the watchdog time out twice.
fn time_out(m: &Qtest, no_reboot: bool) {
    enable_pm(m);
    lpc(m).write32(0xf0, 0xfed1_c001);
    assert_eq!(m.readl(0xfed1_f410) & 0x20, 0x20);
    m.writel(0xfed1_f410, if no_reboot { 0x20 } else { 0 });
    m.outw(0x660 + 0x12, 4);
    m.outw(0x660 + 8, 0);
    m.outw(0x660, 4);
    assert_eq!(m.inw(0x660), 4);
    m.clock_step(2_400_000_000);
    assert_eq!(m.inw(0x664) & 8, 8);
    m.clock_step(2_400_000_000);
}

#[test]
fn the_watchdog_resets_after_two_time_outs() {
    let m = Qtest::start("-M q35");
    time_out(&m, false);
    assert!(m.qmp_event("WATCHDOG").contains("\"action\": \"reset\""));
    m.qmp_event("RESET");
}

#[test]
fn the_watchdogs_action_is_the_users() {
    let m = Qtest::start("-M q35 -action watchdog=pause");
    time_out(&m, false);
    m.qmp_event("STOP");
    assert!(m.qmp("query-status", "{}").contains("\"watchdog\""));
}

#[test]
fn without_reboot_the_watchdog_only_notes() {
    let m = Qtest::start("-M q35");
    time_out(&m, true);
    assert_eq!(m.inw(0x666) & 2, 2);
    m.outw(0x666, 2);
    assert_eq!(m.inw(0x666) & 2, 0);
}

#[test]
fn a_halted_watchdog_stands() {
    let m = Qtest::start("-M q35");
    enable_pm(&m);
    m.outw(0x672, 0x10);
    m.outw(0x660, 1);
    m.outw(0x668, 0x800);
    let left = m.inw(0x660);
    m.clock_step(60_000_000_000);
    assert_eq!((m.inw(0x660), m.inw(0x664) & 8), (left, 0));
}

#[test]
fn the_smbus_host_reads_an_eeprom() {
    let m = Qtest::start("-M q35");
    let host = Function::new(&m, 31, 3);
    let base = host.map_bar(4).port();
    host.write8(0x40, 1);
    host.enable();
    m.outb(base, 0xff);
    m.outb(base + 4, 0xa1);
    m.outb(base + 3, 0);
    m.outb(base + 2, 0x48);
    assert_eq!((m.inb(base) & 2, m.inb(base + 5)), (2, 0));
    m.outb(base, 0xff);
    m.outb(base + 4, 0x31);
    m.outb(base + 2, 0x48);
    assert_eq!(m.inb(base) & 4, 4);
}

#[test]
fn machine_help_has_qemus_names() {
    let ours = Command::new(crate::client::program()).args(["-machine", "help"]).output().unwrap();
    let ours = String::from_utf8(ours.stdout).unwrap();
    let Ok(theirs) = Command::new("/usr/bin/qemu-system-x86_64").args(["-machine", "help"]).output() else { return };
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    let here = |line: &&str| ["pc", "q35", "none"].iter().any(|name| line.starts_with(name)) || line.ends_with(':');
    let theirs: Vec<&str> = theirs.lines().filter(here).collect();
    assert_eq!(ours.lines().collect::<Vec<_>>(), theirs);
}

#[test]
fn random_programs_leave_the_board_alive() {
    let m = Qtest::start("-M q35 -action watchdog=none,shutdown=pause");
    let mut random = Random(35);
    for _ in 0..2000 {
        let (slot, function) = [(0, 0), (31, 0), (31, 2), (31, 3)][random.below(4) as usize];
        let register = random.next() as u8;
        match random.below(5) {
            0 => Function::new(&m, slot, function).write8(register, random.next() as u8),
            1 => Function::new(&m, slot, function).write32(register & 0xfc, random.next() as u32),
            2 => m.outl(0x600 + u16::from(register & 0x7c), random.next() as u32 & !0x2000),
            3 => m.writel(0xfed1_c000 + random.below(0x4000), random.next() as u32),
            _ => {
                m.inl(0x600 + u16::from(register & 0x7c));
            }
        }
        enable_pm(&m);
    }
    m.clock_step(5_000_000_000);
    assert_eq!(Function::new(&m, 31, 0).read32(0), 0x2918_8086);
}

/// Gives the bridge in `slot` bus `number` and a memory window at `base`.
fn open_bridge(m: &Qtest, slot: u8, number: u8, base: u32) {
    let bridge = Function::new(m, slot, 0);
    bridge.write32(0x18, u32::from(number) << 16 | u32::from(number) << 8);
    bridge.write32(0x20, base | base >> 16);
    bridge.write16(4, 7);
}

#[test]
fn devices_behind_a_root_port_are_reached_through_its_windows() {
    let m = Qtest::start("-M q35 -device pcie-root-port,id=rp,addr=2,chassis=1 -device VGA,bus=rp");
    assert_eq!(Function::new(&m, 2, 0).read32(0), 0x000c_1b36);
    assert_eq!(Function::on(&m, 3, 0, 0).read32(0), u32::MAX);
    open_bridge(&m, 2, 3, 0xe000_0000);
    let vga = Function::on(&m, 3, 0, 0);
    assert_eq!(vga.read32(0), 0x1111_1234);
    let registers = 0xe000_4000u64;
    vga.write32(0x18, registers as u32);
    vga.enable();
    // The registers at 4xxh of base address register 2 hold the VGA ports; 500h-515h the display's own.
    assert_ne!(m.readw(registers + 0x500), 0xffff);
    Function::new(&m, 2, 0).write32(0x20, 0xfff0_fff0);
    assert_eq!(m.readw(registers + 0x500), 0xffff);
}

#[test]
fn bridges_nest_and_are_named_by_their_ids() {
    let line = "-M q35 -device pcie-root-port,id=rp,addr=2 -device pcie-pci-bridge,id=pb,bus=rp \
                -device pci-bridge,id=br,bus=pb,addr=1,chassis_nr=2 -device VGA,bus=br,addr=4";
    let m = Qtest::start(line);
    Function::new(&m, 2, 0).write32(0x18, 0x0003_0100);
    Function::on(&m, 1, 0, 0).write32(0x18, 0x0003_0201);
    Function::on(&m, 2, 1, 0).write32(0x18, 0x0003_0302);
    assert_eq!(Function::on(&m, 3, 4, 0).read32(0), 0x1111_1234);
    assert_eq!(Function::on(&m, 4, 4, 0).read32(0), u32::MAX);
    m.qmp("system_reset", "{}");
    m.qmp_event("RESET");
    assert_eq!(Function::on(&m, 3, 4, 0).read32(0), u32::MAX);
}
