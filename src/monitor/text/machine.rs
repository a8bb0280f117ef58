//! CPUs, interrupt controllers, ROMs, mice and VNC servers.

use std::fmt::Write;

use crate::bus::IoApicRegisters;
use crate::monitor::info::{
    CpuInfo, HotpluggableCpu, InterruptController, IrqStatistics, Mouse, Rom, VncAddress, VncServer,
};

/// `info cpus`; `current` is the monitor's CPU.
#[must_use]
pub fn cpus(cpus: &[CpuInfo], current: u32) -> String {
    let mut out = String::new();
    for cpu in cpus {
        let mark = if cpu.index == current { '*' } else { ' ' };
        let _ = writeln!(out, "{mark} CPU #{}: thread_id={}", cpu.index, cpu.thread_id);
    }
    out
}

/// `info hotpluggable-cpus`.
#[must_use]
pub fn hotpluggable_cpus(cpus: &[HotpluggableCpu]) -> String {
    let mut out = String::from("Hotpluggable CPUs:\n");
    for cpu in cpus {
        let _ = writeln!(out, "  type: \"{}\"\n  vcpus_count: \"1\"", cpu.kind);
        if let Some(path) = &cpu.qom_path {
            let _ = writeln!(out, "  qom_path: \"{path}\"");
        }
        let _ = writeln!(out, "  CPUInstance Properties:\n    socket-id: \"{}\"", cpu.place.socket);
        for (name, value) in [("die-id", cpu.place.die), ("module-id", cpu.place.module)] {
            if let Some(value) = value {
                let _ = writeln!(out, "    {name}: \"{value}\"");
            }
        }
        let _ = writeln!(out, "    core-id: \"{}\"\n    thread-id: \"{}\"", cpu.place.core, cpu.place.thread);
    }
    out
}

/// `info irq`.
#[must_use]
pub fn irq_statistics(statistics: &[IrqStatistics]) -> String {
    let mut out = String::new();
    for controller in statistics {
        let _ = writeln!(out, "IRQ statistics for {}:", controller.controller);
        for (input, count) in controller.counts.iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(out, "{input:2}: {count}");
        }
    }
    out
}

/// `info pic`.
#[must_use]
pub fn interrupt_controllers(controllers: &[InterruptController]) -> String {
    let mut out = String::new();
    for controller in controllers {
        match controller {
            InterruptController::IoApic(index, state) => io_apic(&mut out, *index, state),
            InterruptController::Pic(index, s) => {
                let _ = writeln!(
                    out,
                    "pic{}: irr={:02x} imr={:02x} isr={:02x} hprio={} irq_base={:02x} rr_sel={} elcr={:02x} fnm={}",
                    index,
                    s.irr,
                    s.imr,
                    s.isr,
                    s.priority_add,
                    s.irq_base,
                    u8::from(s.read_isr),
                    s.elcr,
                    u8::from(s.special_fully_nested),
                );
            }
        }
    }
    out
}

/// Fields of a redirection entry: 82093AA data sheet, 3.2.4.
fn io_apic(out: &mut String, index: u32, s: &IoApicRegisters) {
    const DELIVERY: [&str; 8] = ["fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT"];
    const FIRST_REDIRECTION: u8 = 0x10;
    let _ = write!(out, "ioapic{}: ver=0x{:x} id=0x{:02x} sel=0x{:02x}", index, s.version, s.id, s.select);
    if let Some(offset) = s.select.checked_sub(FIRST_REDIRECTION) {
        let _ = write!(out, " (redir[{}])", offset >> 1);
    }
    out.push('\n');
    let mut remote = 0u32;
    for (pin, entry) in s.redirections.iter().enumerate() {
        let bit = |bit: u32| entry >> bit & 1 != 0;
        let logical = bit(11);
        let dest = entry >> 56 & if logical { 0xff } else { 0xf };
        let polarity = if bit(13) { "active-lo" } else { "active-hi" };
        let trigger = if bit(15) { "level" } else { "edge " };
        let masked = if bit(16) { "masked" } else { "" };
        let delivery = DELIVERY[usize::from((entry >> 8 & 7) as u8)];
        let mode = if logical { "logical" } else { "physical" };
        let _ = writeln!(
            out,
            "  pin {pin:<2} 0x{entry:016x} dest={dest:x} vec={:<3} {polarity} {trigger} {masked:<6} {delivery:<6} {mode}",
            entry & 0xff
        );
        if bit(14) && pin < 32 {
            remote |= 1 << pin;
        }
    }
    for (name, pins) in [("  IRR", s.irr), ("  Remote IRR", remote)] {
        let _ = write!(out, "{name:<10} ");
        if pins == 0 {
            out.push_str("(none)");
        }
        for pin in (0..32).filter(|pin| pins >> pin & 1 != 0) {
            let _ = write!(out, "{pin:<2} ");
        }
        out.push('\n');
    }
}

/// `info roms`.
#[must_use]
pub fn roms(roms: &[Rom]) -> String {
    let mut out = String::new();
    for rom in roms {
        let _ = match rom {
            Rom::Mapped { address, len, read_only, name } => {
                let memory = if *read_only { "rom" } else { "ram" };
                writeln!(out, "addr={address:016x} size=0x{len:06x} mem={memory} name=\"{name}\"")
            }
            Rom::FwCfg { folder, file, len, name } => {
                writeln!(out, "fw={folder}/{file} size=0x{len:06x} name=\"{name}\"")
            }
            Rom::Region { region, len, name } => writeln!(out, "{region} size=0x{len:06x} name=\"{name}\""),
        };
    }
    out
}

/// `info mice`.
#[must_use]
pub fn mice(mice: &[Mouse]) -> String {
    if mice.is_empty() {
        return "No mouse devices connected\n".to_owned();
    }
    let mut out = String::new();
    for mouse in mice {
        let mark = if mouse.current { '*' } else { ' ' };
        let absolute = if mouse.absolute { " (absolute)" } else { "" };
        let _ = writeln!(out, "{mark} Mouse #{}: {}{absolute}", mouse.index, mouse.name);
    }
    out
}

fn address(address: &VncAddress) -> String {
    let websocket = if address.websocket { " (Websocket)" } else { "" };
    format!("{}:{} ({}){websocket}", address.host, address.service, address.family)
}

/// `info vnc`.
#[must_use]
pub fn vnc_servers(servers: &[VncServer]) -> String {
    if servers.is_empty() {
        return "None\n".to_owned();
    }
    let mut out = String::new();
    for server in servers {
        let _ = writeln!(out, "{}:", server.id);
        for listener in &server.listeners {
            let _ = writeln!(out, "  Server: {}", address(listener));
            let _ = writeln!(out, "    Auth: {} (Sub: none)", server.auth);
        }
        for client in &server.clients {
            let _ = writeln!(out, "  Client: {}", address(client));
            out.push_str("    x509_dname: none\n    sasl_username: none\n");
        }
        if server.listeners.is_empty() {
            let _ = writeln!(out, "  Auth: {} (Sub: none)", server.auth);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::PicRegisters;

    #[test]
    fn cpus_and_the_current_one() {
        let list = [0, 1].map(|index| CpuInfo { index, thread_id: 100 + i64::from(index), ..CpuInfo::default() });
        assert_eq!(cpus(&list, 1), "  CPU #0: thread_id=100\n* CPU #1: thread_id=101\n");
    }

    #[test]
    fn interrupt_counts_leave_zeros_out() {
        let statistics =
            [IrqStatistics { controller: "kvm-ioapic".to_owned(), counts: vec![(0, 0), (4, 1), (14, 20)] }];
        assert_eq!(irq_statistics(&statistics), "IRQ statistics for kvm-ioapic:\n 4: 1\n14: 20\n");
    }

    #[test]
    fn interrupt_controllers_look_as_in_qemu() {
        let apic = IoApicRegisters { version: 0x11, redirections: vec![0x10000, 0xa921], ..IoApicRegisters::default() };
        let pic = PicRegisters { imr: 0xff, irq_base: 8, ..PicRegisters::default() };
        assert_eq!(
            interrupt_controllers(&[InterruptController::IoApic(0, apic), InterruptController::Pic(1, pic)]),
            "\
ioapic0: ver=0x11 id=0x00 sel=0x00
  pin 0  0x0000000000010000 dest=0 vec=0   active-hi edge  masked fixed  physical
  pin 1  0x000000000000a921 dest=0 vec=33  active-lo level        lowest logical
  IRR      (none)
  Remote IRR (none)
pic1: irr=00 imr=ff isr=00 hprio=0 irq_base=08 rr_sel=0 elcr=00 fnm=0
"
        );
    }

    #[test]
    fn roms_look_as_in_qemu() {
        let list = [
            Rom::FwCfg {
                folder: "genroms".to_owned(),
                file: "kvmvapic.bin".to_owned(),
                len: 0x2400,
                name: "kvmvapic.bin".to_owned(),
            },
            Rom::Mapped { address: 0xfffc_0000, len: 0x4_0000, read_only: true, name: "bios-256k.bin".to_owned() },
            Rom::Region { region: "/rom@etc/acpi/rsdp".to_owned(), len: 0x1000, name: "etc/acpi/rsdp".to_owned() },
        ];
        assert_eq!(
            roms(&list),
            "\
fw=genroms/kvmvapic.bin size=0x002400 name=\"kvmvapic.bin\"
addr=00000000fffc0000 size=0x040000 mem=rom name=\"bios-256k.bin\"
/rom@etc/acpi/rsdp size=0x001000 name=\"etc/acpi/rsdp\"
"
        );
    }

    #[test]
    fn mice_and_vnc_look_as_in_qemu() {
        assert_eq!(mice(&[]), "No mouse devices connected\n");
        let tablet = Mouse { index: 3, name: "QEMU HID Tablet".to_owned(), current: false, absolute: true };
        let mouse = Mouse { index: 2, name: "QEMU PS/2 Mouse".to_owned(), current: true, absolute: false };
        assert_eq!(mice(&[tablet, mouse]), "  Mouse #3: QEMU HID Tablet (absolute)\n* Mouse #2: QEMU PS/2 Mouse\n");
        let listener =
            VncAddress { host: "127.0.0.1".to_owned(), service: "5977".to_owned(), family: "ipv4", websocket: false };
        let server =
            VncServer { id: "default".to_owned(), auth: "none", listeners: vec![listener], clients: Vec::new() };
        assert_eq!(vnc_servers(&[]), "None\n");
        assert_eq!(vnc_servers(&[server]), "default:\n  Server: 127.0.0.1:5977 (ipv4)\n    Auth: none (Sub: none)\n");
    }
}
