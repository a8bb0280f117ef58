//! What commands do.

use crate::monitor::control::{DriveName, IfConnected, NewMedium, PortWidth, ReadOnlyMode};
use crate::monitor::dump::{Format, instructions_text, memory_text, value_text};
use crate::monitor::operations::{self, Picture};
use crate::monitor::{keys, paging, registers};
use crate::net::user::Forward;
use crate::ui::{InputEvent, MouseButton};

use super::lex::{Args, Fmt};
use super::{CommandResult, Hmp, Question, failure, table};

pub(super) fn help(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.print(table::help(args.text("name")));
    Ok(())
}

// -- running ---------------------------------------------------------------------------------------------------------

pub(super) fn stop(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().stop();
    Ok(())
}

pub(super) fn cont(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().cont()
}

pub(super) fn quit(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().quit();
    hmp.ended = true;
    Ok(())
}

pub(super) fn system_reset(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().system_reset();
    Ok(())
}

pub(super) fn system_powerdown(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().system_powerdown();
    Ok(())
}

pub(super) fn system_wakeup(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().system_wakeup()
}

pub(super) fn nmi(hmp: &mut Hmp<'_>, _: &Args) -> CommandResult {
    hmp.control().nmi()
}

pub(super) fn boot_set(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let order = args.text("bootdevice");
    match hmp.control().boot_set(order) {
        Ok(()) => hmp.print(format!("boot device list now set to {order}\n")),
        // This one has no "Error: " in front.
        Err(error) => hmp.print(format!("{error}\n")),
    }
    Ok(())
}

// -- CPUs, memory, ports ---------------------------------------------------------------------------------------------

pub(super) fn cpu(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let index = u32::try_from(args.number("index")).unwrap_or(u32::MAX);
    if hmp.control().cpus().iter().any(|cpu| cpu.index == index) {
        hmp.state.cpu = index;
    } else {
        hmp.print("invalid CPU index\n");
    }
    Ok(())
}

/// A line of this many units is the most that one command shows.
const MAX_COUNT: u64 = 1 << 20;

pub(super) fn x(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let fmt = args.fmt("fmt");
    let state = hmp.cpu_state()?;
    let text =
        dump(fmt, args.number("addr"), registers::code_bits(&state), &|gva, buf| hmp.read_linear(&state, gva, buf));
    hmp.print(text);
    Ok(())
}

pub(super) fn xp(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let fmt = args.fmt("fmt");
    let bits = if fmt.format == Format::Instruction { registers::code_bits(&hmp.cpu_state()?) } else { 32 };
    let text = dump(fmt, args.number("addr"), bits, &|gpa, buf| hmp.control().read_physical(gpa, buf));
    hmp.print(text);
    Ok(())
}

fn dump(fmt: Fmt, start: u64, bits: u32, read: &dyn Fn(u64, &mut [u8]) -> bool) -> String {
    let count = fmt.count.min(MAX_COUNT);
    if fmt.format == Format::Instruction {
        instructions_text(read, start, count, bits)
    } else {
        memory_text(read, start, count, fmt.size.unwrap_or(4), fmt.format)
    }
}

pub(super) fn print(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.print(value_text(args.number("val"), args.fmt("fmt").format));
    Ok(())
}

pub(super) fn gva2gpa(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let state = hmp.cpu_state()?;
    let gpa = paging::translate(&state, &|gpa, buf| hmp.control().read_physical(gpa, buf), args.number("addr"));
    hmp.print(gpa.map_or_else(
        || "Unmapped\n".to_owned(),
        |gpa| if gpa == 0 { "gpa: 0\n".to_owned() } else { format!("gpa: {gpa:#x}\n") },
    ));
    Ok(())
}

/// The BSD checksum.
pub(super) fn sum(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let (start, size) = (args.number("start"), args.number("size"));
    let mut sum: u16 = 0;
    let mut done = 0;
    while done < size {
        let mut chunk = [0; 4096];
        let len = usize::try_from(size - done).map_or(chunk.len(), |left| left.min(chunk.len()));
        hmp.control().read_physical(start + done, &mut chunk[..len]);
        for byte in &chunk[..len] {
            sum = sum.rotate_right(1).wrapping_add(u16::from(*byte));
        }
        done += len as u64;
    }
    hmp.print(format!("{sum:05}\n"));
    Ok(())
}

pub(super) fn memsave(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    operations::memsave(hmp.control(), hmp.state.cpu, args.number("val"), args.number("size"), args.text("filename"))
}

pub(super) fn pmemsave(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    operations::pmemsave(hmp.control(), args.number("val"), args.number("size"), args.text("filename"))
}

fn port_width(fmt: Fmt) -> (PortWidth, char) {
    match fmt.size {
        Some(2) => (PortWidth::Word, 'w'),
        Some(4) => (PortWidth::Long, 'l'),
        _ => (PortWidth::Byte, 'b'),
    }
}

fn port(args: &Args) -> u16 {
    u16::try_from(args.number("addr") & 0xffff).unwrap_or(0)
}

pub(super) fn port_read(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let fmt = args.fmt("fmt");
    let (width, suffix) = port_width(fmt);
    let port = port(args);
    let value = hmp.control().port_read(port, width);
    let digits = fmt.size.unwrap_or(1) * 2;
    hmp.print(format!("port{suffix}[0x{port:04x}] = 0x{value:0digits$x}\n"));
    Ok(())
}

pub(super) fn port_write(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let (width, _) = port_width(args.fmt("fmt"));
    let value = u32::try_from(args.number("val")).unwrap_or(0);
    hmp.control().port_write(port(args), width, value);
    Ok(())
}

// -- input and screen ------------------------------------------------------------------------------------------------

pub(super) fn sendkey(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    match keys::parse_combination(args.text("keys")) {
        Ok(keys) => hmp.environment.keys.press(&keys, args.optional_number("hold-time")),
        Err(message) => hmp.print(message + "\n"),
    }
    Ok(())
}

/// A number as C's `strtol` reads it: what is none is 0.
fn loose_number(text: &str) -> i32 {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None => (digits, 10),
    };
    let len = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let value = i32::from_str_radix(&digits[..len], radix).unwrap_or(0);
    if negative { -value } else { value }
}

pub(super) fn mouse_move(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let (dx, dy) = (loose_number(args.text("dx_str")), loose_number(args.text("dy_str")));
    hmp.control().input(InputEvent::MoveBy { dx, dy });
    let wheel = match loose_number(args.text("dz_str")) {
        0 => return Ok(()),
        1.. => MouseButton::WheelUp,
        _ => MouseButton::WheelDown,
    };
    for down in [true, false] {
        hmp.control().input(InputEvent::Button { button: wheel, down });
    }
    Ok(())
}

pub(super) fn mouse_button(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let state = args.number("button_state");
    let changed = std::mem::replace(&mut hmp.state.buttons, state) ^ state;
    for (bit, button) in [(1, MouseButton::Left), (2, MouseButton::Middle), (4, MouseButton::Right)] {
        if changed & bit != 0 {
            hmp.control().input(InputEvent::Button { button, down: state & bit != 0 });
        }
    }
    Ok(())
}

pub(super) fn mouse_set(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.control().mouse_set(u32::try_from(args.number("index")).unwrap_or(u32::MAX))
}

pub(super) fn screendump(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let picture = match args.optional_text("format") {
        None | Some("ppm") => Picture::Ppm,
        Some("png") => Picture::Png,
        Some(other) => return failure(format!("invalid parameter value: {other}")),
    };
    let head = args.optional_number("head");
    operations::screendump(hmp.control(), args.text("filename"), picture, args.optional_text("device"), head)
}

// -- media, passwords ------------------------------------------------------------------------------------------------

pub(super) fn eject(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.control().eject(DriveName::Device(args.text("device")), args.flag("force"))
}

pub(super) fn change(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let (device, target) = (args.text("device"), args.text("target"));
    if device == "vnc" {
        return change_vnc(hmp, args);
    }
    let read_only = match args.optional_text("read-only-mode") {
        None | Some("retain") => ReadOnlyMode::Retain,
        Some("read-only") => ReadOnlyMode::ReadOnly,
        Some("read-write") => ReadOnlyMode::ReadWrite,
        Some(other) => return failure(format!("invalid parameter value: {other}")),
    };
    let medium =
        NewMedium { filename: target, format: args.optional_text("arg"), read_only, force: args.flag("force") };
    hmp.control().change_medium(DriveName::Device(device), medium)
}

fn change_vnc(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    if args.optional_text("read-only-mode").is_some() {
        return failure("Parameter 'read-only-mode' is invalid for VNC");
    }
    if !matches!(args.text("target"), "passwd" | "password") {
        return failure("Expected 'password' after 'vnc'");
    }
    match args.optional_text("arg") {
        Some(password) => hmp.control().set_vnc_password(None, password, IfConnected::Keep),
        None if hmp.may_ask => {
            hmp.question = Some(Question::VncPassword);
            Ok(())
        }
        None => failure("Parameter 'arg' is missing"),
    }
}

/// The protocol is the only one there is.
fn check_protocol(protocol: &str) -> CommandResult {
    match protocol {
        "vnc" => Ok(()),
        "spice" => failure("SPICE is not in use"),
        other => failure(format!("invalid parameter value: {other}")),
    }
}

pub(super) fn set_password(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    check_protocol(args.text("protocol"))?;
    let connected = match args.optional_text("connected") {
        None | Some("keep") => IfConnected::Keep,
        Some("fail") => IfConnected::Fail,
        Some("disconnect") => IfConnected::Disconnect,
        Some(other) => return failure(format!("invalid parameter value: {other}")),
    };
    hmp.control().set_vnc_password(args.optional_text("display"), args.text("password"), connected)
}

pub(super) fn expire_password(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    check_protocol(args.text("protocol"))?;
    hmp.control().expire_vnc_password(args.optional_text("display"), args.text("time"))
}

// -- logs, character devices -----------------------------------------------------------------------------------------

pub(super) fn log(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    if hmp.control().set_log_items(args.text("items")).is_err() {
        hmp.print(table::log_help());
    }
    Ok(())
}

pub(super) fn gdbserver(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let device = args.optional_text("device").unwrap_or("tcp::1234");
    let text = hmp.control().gdb_server(device);
    hmp.print(text);
    Ok(())
}

pub(super) fn logfile(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    // The message stands alone, without "Error: ".
    if let Err(error) = hmp.control().set_log_file(args.text("filename")) {
        hmp.print(format!("{error}\n"));
    }
    Ok(())
}

pub(super) fn set_link(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let up = match args.text("up") {
        "on" => true,
        "off" => false,
        _ => {
            hmp.print("Expected 'on' or 'off'\nTry \"help set_link\" for more information\n");
            return Ok(());
        }
    };
    hmp.control().networks().set_link(args.text("name"), up).or_else(failure)
}

pub(super) fn netdev_add(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.control().netdev_add(args.text("netdev"))
}

pub(super) fn netdev_del(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.control().networks().close(args.text("id")).or_else(failure)
}

/// `[netdev_id] rule`.
fn forwarding_rule(args: &Args) -> (Option<&str>, &str) {
    match args.optional_text("arg2") {
        Some(rule) => (Some(args.text("arg1")), rule),
        None => (None, args.text("arg1")),
    }
}

pub(super) fn hostfwd_add(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let (id, rule) = forwarding_rule(args);
    let done = hmp.control().networks().with_user(id, |user| user.add_forward(rule));
    if let Err(text) = done.and_then(|result| result) {
        hmp.print(text + "\n");
    }
    Ok(())
}

pub(super) fn hostfwd_remove(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let (id, rule) = forwarding_rule(args);
    let text = match Forward::parse_host(rule) {
        None => "invalid format".to_owned(),
        Some((transport, host)) => {
            let removed = hmp.control().networks().with_user(id, |user| user.remove_forward(transport, host));
            match removed {
                Ok(true) => format!("host forwarding rule for {rule} removed"),
                Ok(false) => format!("host forwarding rule for {rule} not found"),
                Err(text) => text,
            }
        }
    };
    hmp.print(text + "\n");
    Ok(())
}

pub(super) fn chardev_add(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    operations::chardev_add(hmp.control(), args.text("args"))
}

pub(super) fn chardev_remove(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.control().chardevs().remove(args.text("id")).or_else(|e| failure(e.0))
}

pub(super) fn chardev_send_break(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    hmp.control().chardevs().send_break(args.text("id")).or_else(|e| failure(e.0))
}

pub(super) fn ringbuf_write(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let data = args.text("data").as_bytes();
    hmp.control().chardevs().ring_buffer_write(args.text("device"), data).or_else(|e| failure(e.0))
}

pub(super) fn ringbuf_read(hmp: &mut Hmp<'_>, args: &Args) -> CommandResult {
    let size = usize::try_from(args.number("size")).unwrap_or(usize::MAX);
    if size == 0 {
        return failure("size must be greater than zero");
    }
    let data = hmp.control().chardevs().ring_buffer_read(args.text("device"), size).or_else(|e| failure(e.0))?;
    let text: String = String::from_utf8_lossy(&data)
        .chars()
        .map(|c| match c {
            '\\' => "\\\\".to_owned(),
            c if c.is_ascii_control() && c != '\n' && c != '\t' || c == '\x7f' => format!("\\u{:04X}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    hmp.print(text + "\n");
    Ok(())
}
