//! What the options come to: checks that need all of them, the machine's defaults, and the order of both.

use super::low::Low;
use super::stop::{Step, Stop};
use super::{
    blockdev, boot, chardev, device, display, drive, gdb, icount, logging, machine, memory, monitor, network, qtest,
    smp,
};
use crate::machine::config::Config;

/// CPUs that the PC's firmware tables and APIC identifiers reach.
const MAX_PC_CPUS: u32 = 255;

/// Where text goes by default: a console of the display.
const CONSOLE: &str = "vc:80Cx24C";

/// Machines up to this version complete `-smp` with sockets first.
const LAST_SOCKETS_FIRST: (u32, u32) = (6, 1);

/// Puts everything together.
pub(super) fn resolve(low: &mut Low<'_>) -> Step<Config> {
    device::answer_help(low)?;
    logging::resolve(low)?;
    let found = machine::select(low)?;
    low.config.machine = machine::resolve(low, &found)?;
    low.config.vga = display::vga(low, found.is_pc())?;
    low.config.cpu = machine::cpu(low)?;
    icount::resolve(low)?;
    low.config.accelerators = machine::accelerators(low)?;
    processors(low, &found)?;
    low.config.memory = memory::resolve(low)?;
    low.config.boot = boot::resolve_boot(&low.boot)?;
    low.config.rtc = boot::resolve_rtc(low)?;
    low.config.kernel = boot::resolve_kernel(low)?;
    chardev::resolve(low)?;
    default_ports(low, found.is_pc())?;
    chardev::connect_ports(low)?;
    monitor::check(low)?;
    gdb::check(low)?;
    qtest::check(low)?;
    low.config.monitors = low.monitors.clone();
    blockdev::check(low)?;
    drive::resolve(low, found.ide_places())?;
    network::resolve(low, found.is_pc())?;
    device::resolve(low)?;
    device::check_globals(low)?;
    chardev::check_users(low)?;
    display::resolve(low);
    Ok(std::mem::take(&mut low.config))
}

fn processors(low: &mut Low<'_>, found: &machine::Found) -> Step {
    let limits = smp::Limits {
        machine: &found.name,
        max_cpus: if found.is_pc() { MAX_PC_CPUS } else { 1 },
        prefer_sockets: found.version.is_some_and(|v| v <= LAST_SOCKETS_FIRST),
    };
    let (topology, warning) = smp::resolve(&low.smp, &limits)?;
    low.config.smp = topology;
    if let Some(text) = warning {
        low.warn("", &text);
    }
    Ok(())
}

/// Serial port, parallel port and monitor that nobody asked for or took away.
fn default_ports(low: &mut Low<'_>, is_pc: bool) -> Step {
    let nographic = low.config.process.nographic;
    if nographic && low.config.process.daemonize {
        return Err(Stop::nowhere("-nographic cannot be used with -daemonize"));
    }
    let wanted = low.config.defaults && is_pc;
    let (serial, parallel) = (wanted && low.defaults.serial, wanted && low.defaults.parallel);
    let monitor = low.config.defaults && low.defaults.monitor;
    if nographic {
        if parallel {
            chardev::read_parallel(low, "null")?;
        }
        match (serial, monitor) {
            (true, true) => chardev::read_serial(low, "mon:stdio")?,
            (true, false) => chardev::read_serial(low, "stdio")?,
            (false, true) => monitor::add(low, "stdio", false, false)?,
            (false, false) => {}
        }
        return Ok(());
    }
    if serial {
        chardev::read_serial(low, CONSOLE)?;
    }
    if parallel {
        chardev::read_parallel(low, CONSOLE)?;
    }
    if monitor {
        monitor::add(low, CONSOLE, false, false)?;
    }
    Ok(())
}
