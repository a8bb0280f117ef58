//! The device tree: `info qtree`.

use std::fmt::Write;

use crate::monitor::info::{PciDevice, QtreeBus, QtreeDevice};

/// `info qtree`; without properties if `brief`.
#[must_use]
pub fn qtree(root: &QtreeBus, brief: bool) -> String {
    let mut out = String::new();
    bus(&mut out, root, 0, brief);
    out
}

fn bus(out: &mut String, bus: &QtreeBus, indent: usize, brief: bool) {
    let _ = writeln!(out, "{:indent$}bus: {}", "", bus.name);
    let indent = indent + 2;
    let _ = writeln!(out, "{:indent$}type {}", "", bus.kind);
    for child in &bus.devices {
        device(out, child, indent, brief);
    }
}

fn device(out: &mut String, d: &QtreeDevice, indent: usize, brief: bool) {
    let _ = writeln!(out, "{:indent$}dev: {}, id \"{}\"", "", d.driver, d.id);
    let indent = indent + 2;
    if !brief {
        for (direction, name, count) in &d.gpios {
            let _ = writeln!(out, "{:indent$}{direction} \"{name}\" {count}", "");
        }
        for (name, value) in &d.properties {
            let _ = writeln!(out, "{:indent$}{name} = {value}", "");
        }
        if let Some(function) = &d.pci {
            pci(out, function, indent);
        }
        for line in &d.lines {
            let _ = writeln!(out, "{:indent$}{line}", "");
        }
    }
    for child in &d.buses {
        bus(out, child, indent, brief);
    }
}

fn pci(out: &mut String, p: &PciDevice, indent: usize) {
    let class = super::class_name(p.class).map_or_else(|| format!("Class {:04x}", p.class), str::to_owned);
    let (sub_vendor, sub_id) = p.subsystem.unwrap_or((0, 0));
    let _ = writeln!(
        out,
        "{:indent$}class {class}, addr {:02x}:{:02x}.{:x}, pci id {:04x}:{:04x} (sub {sub_vendor:04x}:{sub_id:04x})",
        "", p.bus, p.slot, p.function, p.vendor, p.device
    );
    for bar in &p.bars {
        let kind = if bar.io { "i/o" } else { "mem" };
        let first = bar.address.unwrap_or(u64::MAX);
        let last = first.wrapping_add(bar.len).wrapping_sub(1);
        let _ = writeln!(out, "{:indent$}bar {}: {kind} at 0x{first:x} [0x{last:x}]", "", bar.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::info::PciBar;

    fn tree() -> QtreeBus {
        let function = PciDevice {
            slot: 1,
            function: 1,
            class: 0x0101,
            vendor: 0x8086,
            device: 0x7010,
            subsystem: Some((0x1af4, 0x1100)),
            bars: vec![PciBar { index: 4, io: true, len: 16, ..PciBar::default() }],
            ..PciDevice::default()
        };
        let ide = QtreeDevice {
            driver: "piix3-ide".to_owned(),
            gpios: vec![("gpio-out", "isa-irq".to_owned(), 2)],
            properties: vec![("addr".to_owned(), "01.1".to_owned())],
            pci: Some(function),
            buses: vec![QtreeBus { name: "ide.1".to_owned(), kind: "IDE".to_owned(), devices: Vec::new() }],
            ..QtreeDevice::default()
        };
        QtreeBus { name: "pci.0".to_owned(), kind: "PCI".to_owned(), devices: vec![ide] }
    }

    #[test]
    fn the_tree_looks_as_in_qemu() {
        assert_eq!(
            qtree(&tree(), false),
            "\
bus: pci.0
  type PCI
  dev: piix3-ide, id \"\"
    gpio-out \"isa-irq\" 2
    addr = 01.1
    class IDE controller, addr 00:01.1, pci id 8086:7010 (sub 1af4:1100)
    bar 4: i/o at 0xffffffffffffffff [0xe]
    bus: ide.1
      type IDE
"
        );
    }

    #[test]
    fn a_brief_tree_has_no_properties() {
        assert_eq!(
            qtree(&tree(), true),
            "bus: pci.0\n  type PCI\n  dev: piix3-ide, id \"\"\n    bus: ide.1\n      type IDE\n"
        );
    }
}
