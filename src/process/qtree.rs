//! The device tree that `info qtree` shows: QEMU's shape and names, with the devices that this machine has.

use crate::bus::PciAddress;
use crate::hw::ahci;
use crate::hw::flash::spec::SECTOR;
use crate::hw::timer::hpet;
use crate::machine::{Assembled, PlacedDevice, PlacedFlash, South};
use crate::monitor::info::{QtreeBus, QtreeDevice};

use super::control::Session;

/// The whole tree.
pub fn tree(session: &Session) -> QtreeBus {
    let mut devices = Vec::new();
    if let Some(pc) = &session.pc {
        devices.push(device("ps2-mouse", &[]));
        devices.push(device("ps2-kbd", &[]));
        if session.config.machine.switch("hpet", true) {
            let mut chip = device("hpet", &[("timers", "3 (0x3)"), ("msi", "false"), ("hpet-intcap", "4 (0x4)")]);
            chip.lines.push(format!("mmio {:016x}/{:016x}", hpet::BASE, hpet::LEN));
            devices.push(chip);
        }
        let mut ioapic = match pc.controllers {
            None => device("kvm-ioapic", &[("gsi_base", "0 (0x0)")]),
            Some(_) => device("ioapic", &[("version", "32 (0x20)")]),
        };
        ioapic.lines.push(format!("mmio {:016x}/{:016x}", 0xfec0_0000u32, 0x1000));
        devices.push(ioapic);
        devices.push(device("fw_cfg_io", &[("dma_enabled", "true")]));
        devices.extend(pc.pc.flash.iter().rev().map(flash_chip));
        let (host, root, kind) = match pc.pc.south {
            South::Piix { .. } => ("i440FX-pcihost", "pci.0", "PCI"),
            South::Ich9 { .. } => ("q35-pcihost", "pcie.0", "PCIE"),
        };
        let mut host = device(host, &[]);
        let layout = pc.pc.layout;
        for (name, bytes) in [("below-4g-mem-size", layout.below_4g), ("above-4g-mem-size", layout.above_4g)] {
            host.properties.push((name.to_owned(), size(bytes)));
        }
        host.buses.push(bus(root, kind, pci_functions(session, pc)));
        devices.push(host);
    }
    bus("main-system-bus", "System", devices)
}

fn bus(name: &str, kind: &str, devices: Vec<QtreeDevice>) -> QtreeBus {
    QtreeBus { name: name.to_owned(), kind: kind.to_owned(), devices }
}

fn device(driver: &str, properties: &[(&str, &str)]) -> QtreeDevice {
    let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    QtreeDevice { driver: driver.to_owned(), properties, ..QtreeDevice::default() }
}

/// A number of bytes as QEMU prints a size property: "134217728 (128 MiB)".
fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((shift, unit)) => format!("{bytes} ({} {unit})", bytes >> shift),
        None => format!("{bytes} ({bytes} B)"),
    }
}

fn number(value: u64) -> String {
    format!("{value} ({value:#x})")
}

fn flash_chip(chip: &PlacedFlash) -> QtreeDevice {
    let mut shown = device("cfi.pflash01", &[]);
    let mut property = |name: &str, value: String| shown.properties.push((name.to_owned(), value));
    property("drive", format!("{:?}", chip.drive));
    property("num-blocks", number(chip.len / SECTOR));
    property("sector-length", number(SECTOR));
    property("width", number(1));
    property("name", format!("{:?}", chip.name));
    shown.lines.push(format!("mmio {:016x}/{:016x}", chip.base, chip.len));
    shown
}

fn pci_functions(session: &Session, pc: &Assembled) -> Vec<QtreeDevice> {
    let names: Vec<(PciAddress, String)> = {
        let board = session.machine.board().lock();
        board.pci_functions().into_iter().map(|(at, id)| (at, board.name(id).to_owned())).collect()
    };
    // QEMU has the newest device first.
    names.into_iter().rev().map(|(address, driver)| pci_function(session, pc, address, driver)).collect()
}

fn pci_function(session: &Session, pc: &Assembled, address: PciAddress, driver: String) -> QtreeDevice {
    let mut function = match driver.as_str() {
        "PIIX3" => {
            device("PIIX3", &[("has-acpi", "true"), ("has-pic", "false"), ("has-pit", "false"), ("has-usb", "false")])
        }
        "PIIX4_PM" => {
            let chips = &pc.chips;
            let mut function = device("PIIX4_PM", &[("smb_io_base", "45312 (0xb100)")]);
            for (name, value) in
                [("disable_s3", chips.disable_s3), ("disable_s4", chips.disable_s4), ("s4_val", chips.s4_type)]
            {
                function.properties.push((name.to_owned(), number(value.into())));
            }
            function
        }
        other => device(other, &[]),
    };
    if let Some(placed) = pc.placed.devices.iter().find(|device| device.bus == "PCI" && device.driver == driver) {
        function.id = placed.id.clone();
        function.properties.extend(placed.properties.iter().cloned());
    }
    function.properties.push(("addr".to_owned(), format!("{:02x}.{:x}", address.device, address.function)));
    function.pci = Some(session.pci_device(address));
    match driver.as_str() {
        "PIIX3" | "ICH9-LPC" => function.buses.push(bus("isa.0", "ISA", isa_devices(pc))),
        "PIIX4_PM" | "ICH9-SMB" => {
            let eeprom = |at: u64| {
                let mut eeprom = device("smbus-eeprom", &[]);
                eeprom.properties.push(("address".to_owned(), number(at)));
                eeprom
            };
            function.buses.push(bus("i2c", "i2c-bus", (0x50..=0x57).rev().map(eeprom).collect()));
        }
        "piix3-ide" => {
            for channel in [1, 0] {
                function.buses.push(bus(&format!("ide.{channel}"), "IDE", ide_drives(session, pc, channel)));
            }
        }
        "ich9-ahci" => {
            for port in (0..ahci::PORTS).rev() {
                function.buses.push(bus(&format!("ide.{port}"), "IDE", ide_drives(session, pc, port)));
            }
        }
        _ => {}
    }
    function
}

fn placed(device: &PlacedDevice) -> QtreeDevice {
    QtreeDevice {
        driver: device.driver.clone(),
        id: device.id.clone(),
        properties: device.properties.clone(),
        ..QtreeDevice::default()
    }
}

fn isa_devices(pc: &Assembled) -> Vec<QtreeDevice> {
    let mut devices =
        vec![device("port92", &[]), device("i8042", &[("kbd-irq", "1 (0x1)"), ("mouse-irq", "12 (0xc)")])];
    devices.extend(pc.placed.devices.iter().rev().filter(|device| device.bus == "ISA").map(placed));
    for (base, page) in [("192 (0xc0)", "136 (0x88)"), ("0 (0x0)", "128 (0x80)")] {
        devices.push(device("i8257", &[("base", base), ("page-base", page)]));
    }
    if pc.controllers.is_some() {
        devices.push(device("isa-pcspk", &[("iobase", "97 (0x61)")]));
        devices.push(device("isa-pit", &[("iobase", "64 (0x40)")]));
    } else {
        let policy = if pc.chips.pit_discards == Some(true) { "\"discard\"" } else { "\"delay\"" };
        devices.push(device("kvm-pit", &[("iobase", "64 (0x40)"), ("lost_tick_policy", policy)]));
    }
    devices.push(device("mc146818rtc", &[("base_year", "0 (0x0)"), ("iobase", "112 (0x70)"), ("irq", "8 (0x8)")]));
    for (base, master) in [("160 (0xa0)", "false"), ("32 (0x20)", "true")] {
        let class = if pc.controllers.is_some() { "isa-i8259" } else { "kvm-i8259" };
        devices.push(device(class, &[("iobase", base), ("master", master)]));
    }
    devices
}

fn ide_drives(session: &Session, pc: &Assembled, channel: usize) -> Vec<QtreeDevice> {
    let infos = session.ide_drives();
    let first = 2 * channel;
    let mut drives = Vec::new();
    for number_on_chip in [first + 1, first] {
        let Some(place) = pc.placed.ide.get(&number_on_chip) else { continue };
        let Some(info) = infos.iter().find(|info| info.number == number_on_chip) else { continue };
        let mut drive = device(if place.cdrom { "ide-cd" } else { "ide-hd" }, &[]);
        drive.id = place.id.clone();
        let quoted = |text: &str| format!("\"{text}\"");
        for (name, value) in [
            ("drive", quoted(&place.drive)),
            ("ver", quoted(&info.version)),
            ("serial", quoted(&info.serial)),
            ("model", quoted(&info.model)),
            ("unit", number(number_on_chip as u64 % 2)),
        ] {
            drive.properties.push((name.to_owned(), value));
        }
        drives.push(drive);
    }
    drives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_qemu_prints_them() {
        assert_eq!(size(134_217_728), "134217728 (128 MiB)");
        assert_eq!(size(0), "0 (0 B)");
        assert_eq!(size(512), "512 (512 B)");
    }
}
