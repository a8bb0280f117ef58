//! The protocol itself.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::client::{Qtest, program};
use crate::pci::Function;

#[test]
fn memory_is_read_and_written_in_every_way() {
    let m = Qtest::start("-M pc");
    m.writeq(0x1000, 0x1122_3344_5566_7788);
    assert_eq!((m.readb(0x1000), m.readw(0x1000), m.readl(0x1000)), (0x88, 0x7788, 0x5566_7788));
    assert_eq!(m.readq(0x1000), 0x1122_3344_5566_7788);
    assert_eq!(m.ok("read 0x1000 8"), "0x8877665544332211");
    assert_eq!(m.ok("b64read 0x1000 8"), "iHdmVUQzIhE=");
    m.ok("b64write 0x1000 4 AQIDBA==");
    assert_eq!(m.read(0x1000, 8), [1, 2, 3, 4, 0x44, 0x33, 0x22, 0x11]);
    m.ok("write 0x1000 8 0xdeadbeef");
    assert_eq!(m.read(0x1000, 8), [0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0]);
    m.memset(0x1ffe, 4, 0xa5);
    assert_eq!(m.read(0x1ffd, 6), [0, 0xa5, 0xa5, 0xa5, 0xa5, 0]);
}

#[test]
fn a_clock_step_stops_at_each_timer() {
    let m = Qtest::start("-M pc");
    m.intercept();
    // Counter 0 in mode 2 with a divisor of 1193: one interrupt each 999,848 ns.
    m.outb(0x43, 0x34);
    m.outb(0x40, 0xa9);
    m.outb(0x40, 0x04);
    m.clock_step(1);
    let before = m.irq_count(0);
    let now = m.clock_step(10_500_000);
    assert_eq!(m.irq_count(0) - before, 10);
    assert!(m.clock_step_next() - now < 1_000_000);
    assert_eq!(m.irq_count(0) - before, 11);
    assert_eq!(m.raw("clock_step -5").split(' ').next(), Some("FAIL"));
    assert_eq!(m.ok("clock_set 2000000000"), "2000000000");
}

#[test]
fn time_stands_still_and_qmp_works_meanwhile() {
    let m = Qtest::start("-M pc");
    let start = m.clock_step(1);
    assert!(m.qmp("query-status", "{}").contains("\"running\""));
    assert_eq!(m.clock_step(1), start + 1);
    assert!(m.qmp("nonsense", "{}").contains("CommandNotFound"));
}

#[test]
fn intercepted_lines_are_told_once() {
    let m = Qtest::start("-M pc");
    m.intercept();
    m.intercept();
    m.ok("set_irq_in ioapic unnamed-gpio-in 4 1");
    m.ok("set_irq_in ioapic unnamed-gpio-in 4 1");
    assert!(m.irq(4));
    m.ok("set_irq_in ioapic unnamed-gpio-in 4 0");
    assert!(!m.irq(4));
    assert_eq!(m.irq_count(4), 1);
    assert_eq!(m.raw("irq_intercept_in nothing"), "FAIL Unknown device");
}

#[test]
fn the_first_usable_accelerator_counts() {
    let m = Qtest::start("-accel tcg");
    assert_eq!(m.ok("endianness"), "little");
}

#[test]
fn functions_are_found_and_their_registers_mapped() {
    let m = Qtest::start("-M pc -vga std");
    let vga = Function::find(&m, 0x1234, 0x1111);
    assert_eq!(vga.bar_size(0), 16 << 20);
    let frame_buffer = vga.map_bar(0).memory();
    vga.enable();
    m.writel(frame_buffer + 0x1000, 0x1234_5678);
    assert_eq!(m.readl(frame_buffer + 0x1000), 0x1234_5678);
}

/// A folder with a disk of 1 MiB, "disk.img", whose sector n is full of the byte n.
fn disk_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let content: Vec<u8> = (0..2048u32).flat_map(|sector| [sector as u8; 512]).collect();
    fs::write(folder.path().join("disk.img"), content).unwrap();
    folder
}

#[test]
fn a_disk_reads_by_dma_and_interrupts() {
    let m = Qtest::start_in(disk_folder(), "-M pc -drive file=disk.img,format=raw,if=ide");
    m.intercept();
    let ide = Function::find(&m, 0x8086, 0x7010);
    let bus_master = ide.map_bar(4).port();
    ide.write8(0x41, 0x80);
    ide.enable();
    assert_eq!(ide.capability(5), None);
    let (table, buffer) = (m.alloc(8, 8), m.alloc(1024, 4096));
    m.write(table, &(buffer as u32).to_le_bytes());
    m.writew(table + 4, 1024);
    m.writew(table + 6, 0x8000);
    m.outl(bus_master + 4, table as u32);
    for (register, value) in [(6, 0xe0), (2, 2), (3, 7), (4, 0), (5, 0), (7, 0xc8)] {
        m.outb(0x1f0 + register, value);
    }
    m.outb(bus_master, 9);
    m.wait_irq(14);
    assert_eq!(m.inb(0x1f7) & 0xc9, 0x40);
    assert!(!m.irq(14));
    assert_eq!(m.read(buffer, 1024), [[7; 512], [8; 512]].concat());
    assert_eq!(m.end().path().join("disk.img").metadata().unwrap().len(), 1 << 20);
}

#[test]
fn a_reset_by_qmp_is_one() {
    let m = Qtest::start("-M pc");
    let bridge = Function::find(&m, 0x8086, 0x1237);
    bridge.write16(0x04, 0x0006);
    bridge.write32(0x58, 0x1234_5678);
    let before = bridge.read32(0x58);
    assert!(m.path("qtest.log").exists());
    m.writeb(0x1000, 1);
    m.qmp("system_reset", "{}");
    m.qmp_event("RESET");
    m.writew(0x1002, 0x1234);
    assert_eq!((m.readl(0x1000), before), (0x1234_0001, 0x1234_5678));
    assert_ne!(bridge.read32(0x58), before);
}

/// Commands whose answers do not depend on time or on what a processor did before.
const SAME: &str = "endianness
outb 0x70 0x0f
inb 0x71
inl 0xcf8
outl 0xcf8 0x80000000
inl 0xcfc
inw 0xcfe
inb 0xcfd
foo bar
outb 0x80 300
 inb 0x71
OUTB 1 2
writeq 0x1000 0x1122334455667788
readb 0x1000
readw 0x1001
readl 0x1000
readq 0x1000
read 0x1000 0x10
read 0x1000 8 9
write 0x1000 0x8 0xdeadbeef
read 0x1000 8
write 0x1000 0x4 0xdeadbe
read 0x1000 8
write 0x1000 0x4 deadbeef
read 0x1000 8
write 0x1000 0x4 0xzzz112z4
read 0x1000 8
write 0x1000 4 0x
memset 0x2000 0x10 0xa5
read 0x2000 0x11
memset 0x2000 0x10 0x1ff
memset 0x2004 0 0x3
read 0x2000 0x11
b64read 0x2000 0x10
b64read 0x2000 0x11
b64read 0x2000 0x12
b64write 0x2000 4 AQIDBA==
b64write 0x2000 4 AQ*ID-BA==
read 0x2000 0x10
irq_intercept_in ioapic
irq_intercept_in foo
irq_intercept_in ioapic
irq_intercept_in /machine/i440fx/ioapic
set_irq_in ioapic unnamed-gpio-in 5 1
set_irq_in ioapic unnamed-gpio-in 5 1
set_irq_in ioapic unnamed-gpio-in 5 0
module_load foo bar
readl 0xfec00000
writel 0xfec00000 1
readl 0xfec00010
";

/// What `program` answers to [`SAME`] on standard output, and its log without times.
fn answers(program: &str, arguments: &str, script: &str) -> (String, String) {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let mut child = Command::new(program)
        .args(arguments.split_whitespace())
        .args("-display none -nodefaults -qtest stdio -qtest-log".split_whitespace())
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Until the answer to the last line came, the machine may not be ended.
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("{script}qtest-is-done\n").as_bytes()).unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("qtest-is-done") {
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut text).unwrap(), 0, "it ended after {text}");
    }
    // QEMU writes its log out when it ends.
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    child.wait().unwrap();
    let log = fs::read_to_string(log).unwrap();
    let untimed = log.lines().filter(|line| !line.ends_with("CLOSED")).map(|line| {
        let (stamp, rest) = line.split_once("] ").unwrap();
        let (kind, time) = stamp.split_once(' ').unwrap();
        assert_eq!(time.rsplit('.').next().unwrap().len(), 6, "{line}");
        format!("{kind} {rest}\n")
    });
    (text, untimed.collect())
}

#[test]
fn answers_and_log_are_those_of_qemu() {
    const QEMU: &str = "/usr/bin/qemu-system-x86_64";
    if !fs::exists(QEMU).unwrap() {
        println!("{QEMU} is not installed: not compared");
        return;
    }
    // Debian's build has no accelerator "qtest", but the server: a machine that was not started does as well.
    let theirs = answers(QEMU, "-M pc -accel tcg -S", SAME);
    let ours = answers(program().to_str().unwrap(), "-M pc -accel qtest", SAME);
    assert_eq!(ours.0, theirs.0);
    assert_eq!(ours.1, theirs.1);
}

#[test]
fn malformed_lines_are_refused() {
    let m = Qtest::start("-M pc");
    let fails = |line: &str| assert!(m.raw(line).starts_with("FAIL "), "{line}");
    fails("");
    fails("outb 0x80");
    fails("outb zzz 1");
    fails("outb 0x80 zzz");
    fails("outb  0x80 1");
    fails("inb 0x10071");
    fails("read 0x10 0");
    fails("read 0x10 0xffffffffffffffff");
    fails("memset 0 0x7fffffffffffffff 1");
    fails("write 0x10 4");
    fails("irq_intercept_in");
    fails("clock_step x");
    fails(&"x".repeat(100_000));
    assert_eq!(m.ok("endianness"), "little");
}
