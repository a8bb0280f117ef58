//! `info`.

use std::fmt::Write;

use crate::monitor::{paging, registers as cpu_registers, text, version as build};

use super::lex::Args;
use super::{CommandResult, Hmp};

pub(super) fn name(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    if let Some(name) = hmp.control().name() {
        hmp.print(name + "\n");
    }
    Ok(())
}

pub(super) fn status(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let state = hmp.control().run_state();
    let running = if state.is_running() { "running" } else { "paused" };
    hmp.print(format!("VM status: {running}"));
    if !matches!(state.name(), "running" | "paused") {
        hmp.print(format!(" ({})", state.name()));
    }
    hmp.print("\n");
    Ok(())
}

pub(super) fn version(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(format!("{}{}\n", build::TEXT, build::PACKAGE));
    Ok(())
}

pub(super) fn kvm(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let info = hmp.control().kvm();
    let state = match (info.present, info.enabled) {
        (true, true) => "enabled",
        (true, false) => "disabled",
        (false, _) => "not compiled",
    };
    hmp.print(format!("kvm support: {state}\n"));
    Ok(())
}

pub(super) fn cpus(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::cpus(&hmp.control().cpus(), hmp.state.cpu));
    Ok(())
}

pub(super) fn hotpluggable_cpus(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::hotpluggable_cpus(&hmp.control().hotpluggable_cpus()));
    Ok(())
}

pub(super) fn registers(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let chosen = args.optional_number("vcpu").map_or(hmp.state.cpu, |index| u32::try_from(index).unwrap_or(u32::MAX));
    let all = args.flag("cpustate_all");
    let mut found = false;
    for cpu in hmp.control().cpus() {
        if all || cpu.index == chosen {
            let state = hmp.control().cpu_state(cpu.index)?;
            hmp.print(format!("\nCPU#{}\n{}", cpu.index, cpu_registers::text(&state)));
            found = true;
        }
    }
    if !found {
        hmp.print(format!("CPU#{chosen} not available\n"));
    }
    Ok(())
}

pub(super) fn mem(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let state = hmp.cpu_state()?;
    let text = paging::mem_text(&state, &|gpa, buf| hmp.control().read_physical(gpa, buf));
    hmp.print(text);
    Ok(())
}

pub(super) fn tlb(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let state = hmp.cpu_state()?;
    let text = paging::tlb_text(&state, &|gpa, buf| hmp.control().read_physical(gpa, buf));
    hmp.print(text);
    Ok(())
}

pub(super) fn memory_size_summary(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let size = hmp.control().memory_size();
    hmp.print(format!("base memory: {}\nplugged memory: {}\n", size.base, size.plugged));
    Ok(())
}

pub(super) fn mtree(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let text = if args.flag("flatview") {
        text::flat_views(&hmp.control().flat_views())
    } else {
        text::memory_tree(&hmp.control().memory_tree())
    };
    hmp.print(text);
    Ok(())
}

pub(super) fn irq(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::irq_statistics(&hmp.control().irq_statistics()));
    Ok(())
}

pub(super) fn pic(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::interrupt_controllers(&hmp.control().interrupt_controllers()));
    Ok(())
}

pub(super) fn lapic(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    const EXTENDED: u64 = 1 << 10;
    let wanted = args.optional_number("apic-id").map(|id| u32::try_from(id).unwrap_or(u32::MAX));
    for cpu in hmp.control().cpus() {
        let state = hmp.control().cpu_state(cpu.index)?;
        if wanted.map_or(cpu.index == hmp.state.cpu, |id| text::lapic_id(&state.lapic) == id) {
            hmp.print(text::lapic(cpu.index, &state.lapic, state.apic_base & EXTENDED != 0));
            return Ok(());
        }
    }
    hmp.print("No CPU available\n");
    Ok(())
}

pub(super) fn pci(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let devices = hmp.control().pci_devices();
    hmp.print(text::pci_devices(&devices));
    Ok(())
}

pub(super) fn qtree(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.print(text::qtree(&hmp.control().qtree(), args.flag("brief")));
    Ok(())
}

pub(super) fn roms(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::roms(&hmp.control().roms()));
    Ok(())
}

pub(super) fn mice(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::mice(&hmp.control().mice()));
    Ok(())
}

pub(super) fn network(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::network(&hmp.control().networks().clients()));
    Ok(())
}

pub(super) fn usernet(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::usernet(&hmp.control().networks().users()));
    Ok(())
}

pub(super) fn vnc(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::vnc_servers(&hmp.control().vnc_servers()));
    Ok(())
}

pub(super) fn block(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let devices = hmp.control().block_devices();
    if args.flag("nodes") {
        for medium in devices.iter().filter_map(|device| device.inserted.as_ref()) {
            hmp.print(text::block_node(medium, args.flag("verbose")));
        }
        return Ok(());
    }
    hmp.print(text::block_devices(&devices, args.optional_text("device"), args.flag("verbose")));
    Ok(())
}

pub(super) fn blockstats(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.print(text::block_stats(&hmp.control().block_stats()));
    Ok(())
}

pub(super) fn chardev(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    for device in hmp.control().chardevs().list() {
        let _ = writeln!(hmp.out, "{}: filename={}", device.label, device.filename);
    }
    Ok(())
}

pub(super) fn uuid(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let uuid = uuid::Uuid::from_bytes(hmp.control().uuid());
    hmp.print(format!("{}\n", uuid.hyphenated()));
    Ok(())
}

pub(super) fn history(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    let lines: String = hmp.history.iter().enumerate().map(|(number, line)| format!("{number}: '{line}'\n")).collect();
    hmp.print(lines);
    Ok(())
}
