//! PCI functions: `info pci`.

use std::fmt::Write;

use crate::monitor::info::{PciBar, PciDevice};

/// What a class is (PCI code and ID assignment specification), where there is a name for it.
#[must_use]
pub fn class_name(class: u16) -> Option<&'static str> {
    Some(match class {
        0x0001 => "VGA controller",
        0x0100 => "SCSI controller",
        0x0101 => "IDE controller",
        0x0102 => "Floppy controller",
        0x0103 => "IPI controller",
        0x0104 => "RAID controller",
        0x0106 => "SATA controller",
        0x0107 => "SAS controller",
        0x0180 => "Storage controller",
        0x0200 => "Ethernet controller",
        0x0201 => "Token Ring controller",
        0x0202 => "FDDI controller",
        0x0203 => "ATM controller",
        0x0280 => "Network controller",
        0x0300 => "VGA controller",
        0x0301 => "XGA controller",
        0x0302 => "3D controller",
        0x0380 => "Display controller",
        0x0400 => "Video controller",
        0x0401 | 0x0403 => "Audio controller",
        0x0402 => "Phone",
        0x0480 => "Multimedia controller",
        0x0500 => "RAM controller",
        0x0501 => "Flash controller",
        0x0580 => "Memory controller",
        0x0600 => "Host bridge",
        0x0601 => "ISA bridge",
        0x0602 => "EISA bridge",
        0x0603 => "MC bridge",
        0x0604 => "PCI bridge",
        0x0605 => "PCMCIA bridge",
        0x0606 => "NUBUS bridge",
        0x0607 => "CARDBUS bridge",
        0x0608 => "RACEWAY bridge",
        0x0680 => "Bridge",
        0x0700 => "Serial port",
        0x0701 => "Parallel port",
        0x0800 => "Interrupt controller",
        0x0801 => "DMA controller",
        0x0802 => "Timer",
        0x0803 => "RTC",
        0x0900 => "Keyboard",
        0x0901 => "Pen",
        0x0902 => "Mouse",
        0x0c00 => "Firewire controller",
        0x0c01 => "Access bus controller",
        0x0c02 => "SSA controller",
        0x0c03 => "USB controller",
        0x0c04 => "Fibre channel controller",
        0x0c05 => "SMBus",
        _ => return None,
    })
}

/// `info pci`.
#[must_use]
pub fn pci_devices(devices: &[PciDevice]) -> String {
    let mut out = String::new();
    for device in devices {
        let _ = writeln!(out, "  Bus {:2}, device {:3}, function {}:", device.bus, device.slot, device.function);
        let class = class_name(device.class).map_or_else(|| format!("Class {:04x}", device.class), str::to_owned);
        let _ = writeln!(out, "    {class}: PCI device {:04x}:{:04x}", device.vendor, device.device);
        if let Some((vendor, id)) = device.subsystem {
            let _ = writeln!(out, "      PCI subsystem {vendor:04x}:{id:04x}");
        }
        if let Some(pin) = device.irq_pin.checked_sub(1) {
            let _ = writeln!(out, "      IRQ {}, pin {}", device.irq_line, char::from(b'A'.saturating_add(pin)));
        }
        for bar in &device.bars {
            base_register(&mut out, bar);
        }
        let _ = writeln!(out, "      id \"{}\"", device.id);
    }
    out
}

fn base_register(out: &mut String, bar: &PciBar) {
    let _ = write!(out, "      BAR{}: ", bar.index);
    if bar.io {
        out.push_str("I/O");
    } else {
        let _ = write!(out, "{} bit", if bar.wide { 64 } else { 32 });
        out.push_str(if bar.prefetch { " prefetchable memory" } else { " memory" });
    }
    let _ = match bar.address {
        None => writeln!(out, " (not mapped)"),
        Some(address) => {
            let last = address.wrapping_add(bar.len).wrapping_sub(1);
            let digits = if bar.io { 4 } else { 8 };
            writeln!(out, " at 0x{address:0digits$x} [0x{last:0digits$x}]")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_look_as_in_qemu() {
        let vga = PciDevice {
            slot: 2,
            class: 0x0300,
            vendor: 0x1234,
            device: 0x1111,
            subsystem: Some((0x1af4, 0x1100)),
            bars: vec![
                PciBar { index: 0, prefetch: true, address: Some(0xfd00_0000), len: 16 << 20, ..PciBar::default() },
                PciBar { index: 6, len: 0x1_0000, ..PciBar::default() },
            ],
            ..PciDevice::default()
        };
        let odd = PciDevice {
            slot: 3,
            class: 0xff00,
            vendor: 0x1b36,
            device: 5,
            irq_pin: 2,
            irq_line: 11,
            id: "x".to_owned(),
            bars: vec![PciBar { index: 4, io: true, address: Some(0xc000), len: 16, ..PciBar::default() }],
            ..PciDevice::default()
        };
        assert_eq!(
            pci_devices(&[vga, odd]),
            "\x20 Bus  0, device   2, function 0:
    VGA controller: PCI device 1234:1111
      PCI subsystem 1af4:1100
      BAR0: 32 bit prefetchable memory at 0xfd000000 [0xfdffffff]
      BAR6: 32 bit memory (not mapped)
      id \"\"
  Bus  0, device   3, function 0:
    Class ff00: PCI device 1b36:0005
      IRQ 11, pin B
      BAR4: I/O at 0xc000 [0xc00f]
      id \"x\"
"
        );
    }
}
