//! `-display`, `-vnc`, `-vga`, `-nographic`, `-k`.

use super::lists;
use super::low::{DisplayChoice, Low};
use super::stop::{Step, Stop};
use crate::keyval::suggest::with_hint;
use crate::keyval::value::ValueError;
use crate::keyval::{asks_help, tree};
use crate::machine::config::{DisplaySpec, VgaKind, VncSpec};

/// QEMU's other displays.
const FOREIGN: &[&str] = &["gtk", "sdl", "curses", "cocoa", "dbus", "egl-headless", "spice-app"];

/// The highest port that a display number can reach.
const VNC_PORT_BASE: u32 = 5900;

fn help() -> String {
    "Available display backend types:\nnone\nvnc\n\nSome display backends support suboptions, which can be set with\n   \
     -display backend,option=value,option=value...\n'-vnc help' lists those of vnc.\n"
        .into()
}

pub(super) fn read_display(low: &mut Low<'_>, text: &str) -> Step {
    if asks_help(text) {
        return Err(Stop::Print(help(), 0));
    }
    if let Some(rest) = text.strip_prefix("vnc") {
        return match rest.strip_prefix('=') {
            Some(address) => read_vnc(low, address),
            None => Err(Stop::here("VNC requires a display argument vnc=<display>")),
        };
    }
    let tree = tree::parse(text, Some("type"))?;
    let kind = tree.map.get("type").and_then(serde_json::Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        return Err(ValueError::Missing { name: "type".into() }.into());
    }
    if FOREIGN.contains(&kind) {
        return Err(Stop::unsupported(format_args!("display type '{kind}'")));
    }
    if kind != "none" {
        return Err(ValueError::not_accepted("type", kind, ["none", "vnc"]).into());
    }
    if let Some(key) = tree.map.keys().find(|key| *key != "type") {
        return Err(ValueError::unexpected("", key, ["type"]).into());
    }
    low.display = DisplayChoice::None;
    Ok(())
}

pub(super) fn read_nographic(low: &mut Low<'_>, _: &str) -> Step {
    low.machine.insert("graphics".into(), "off".into());
    low.config.process.nographic = true;
    low.display = DisplayChoice::None;
    Ok(())
}

pub(super) fn read_vga(low: &mut Low<'_>, text: &str) -> Step {
    low.vga = Some(text.into());
    low.defaults.vga = false;
    Ok(())
}

pub(super) fn read_keymap(low: &mut Low<'_>, text: &str) -> Step {
    let known = &low.tables.keymaps;
    if !known.is_empty() && known.iter().all(|name| name != text) {
        let error = with_hint(format!("could not read keymap file: '{text}'"), text, known.iter().map(String::as_str));
        return Err(Stop::nowhere(error));
    }
    low.config.keymap = Some(text.into());
    Ok(())
}

/// What this version's VNC server does not have.
const REFUSED_VNC: &[&str] =
    &["websocket", "tls-creds", "tls-authz", "sasl-authz", "audiodev", "display", "head", "password-secret"];

pub(super) fn read_vnc(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::VNC, text)?;
    let address = pairs.get("vnc").unwrap_or_default().to_owned();
    if let Some(id) = &pairs.id
        && low.config.displays.iter().any(|d| matches!(d, DisplaySpec::Vnc(v) if v.id.as_ref() == Some(id)))
    {
        return Err(Stop::here(format!("Duplicate ID '{id}' for vnc")));
    }
    if let Some(key) = REFUSED_VNC.iter().find(|key| pairs.get(key).is_some()) {
        return Err(Stop::unsupported(format_args!("VNC option '{key}'")));
    }
    for key in ["sasl", "reverse"] {
        if pairs.switch(key)? == Some(true) {
            return Err(Stop::unsupported(format_args!("{key}=on")));
        }
    }
    let share = pairs.get("share");
    if share.is_some_and(|s| !["ignore", "allow-exclusive", "force-shared"].contains(&s)) {
        return Err(Stop::here("unknown vnc share= option"));
    }
    check_address(&address)?;
    let to = match pairs.number("to")? {
        None => None,
        Some(to) => Some(u16::try_from(to).map_err(|_| Stop::here(format!("port {to} out of range")))?),
    };
    let mut options: Vec<(String, String)> = Vec::new();
    for (key, _) in &pairs.pairs {
        if ["vnc", "to", "sasl", "reverse"].contains(&key.as_str()) || options.iter().any(|(k, _)| k == key) {
            continue;
        }
        options.push((key.clone(), pairs.get(key).unwrap_or_default().to_owned()));
    }
    low.remote_display = true;
    let spec = VncSpec { id: pairs.id, address, to, options, origin: low.origin.clone() };
    low.config.displays.push(DisplaySpec::Vnc(spec));
    Ok(())
}

/// `none`, `unix:path` or `host:number`.
fn check_address(address: &str) -> Step {
    if address.is_empty() || address == "none" || address.starts_with("unix:") {
        return Ok(());
    }
    let Some((_, number)) = address.rsplit_once(':') else {
        return Err(Stop::here("no vnc port specified"));
    };
    if number.is_empty() {
        return Err(Stop::here("vnc port cannot be empty"));
    }
    match number.parse::<u32>() {
        Ok(n) if number.starts_with(|c: char| c.is_ascii_digit()) => match n.checked_add(VNC_PORT_BASE) {
            Some(port) if port <= u32::from(u16::MAX) => Ok(()),
            _ => Err(Stop::here(format!("port {number} out of range"))),
        },
        _ => Err(Stop::here(format!("can't convert to a number: {number}"))),
    }
}

/// The graphics adapter.
pub(super) fn vga(low: &Low<'_>, is_pc: bool) -> Step<VgaKind> {
    let Some(text) = &low.vga else {
        let wanted = is_pc && low.defaults.vga && low.config.defaults;
        return Ok(if wanted { VgaKind::Std } else { VgaKind::None });
    };
    if asks_help(text) {
        return Err(Stop::Print(
            "none                 no graphic card\nstd                  standard VGA (default)\n".into(),
            0,
        ));
    }
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    let unknown = || {
        let error = format!("unknown vga type: {text}");
        Stop::nowhere(with_hint(error, name, ["std", "none"]))
    };
    let kind = match name {
        "std" => VgaKind::Std,
        "none" => VgaKind::None,
        "cirrus" | "vmware" | "qxl" | "virtio" | "xenfb" | "tcx" | "cg3" => {
            return Err(Stop::nowhere(format!("vga type '{name}' is not supported by this version")));
        }
        _ => return Err(unknown()),
    };
    match rest {
        "" | "retrace=dumb" => Ok(kind),
        "retrace=precise" => Err(Stop::nowhere("-vga retrace=precise is not supported by this version")),
        _ => Err(unknown()),
    }
}

/// Where the screen is shown, when nothing else was said: VNC on the first free port from 5900.
pub(super) fn resolve(low: &mut Low<'_>) {
    match low.display {
        DisplayChoice::None => low.config.displays.insert(0, DisplaySpec::None),
        DisplayChoice::Default if low.remote_display => {}
        DisplayChoice::Default => low.config.displays.push(DisplaySpec::Vnc(VncSpec {
            id: Some("default".into()),
            address: "localhost:0".into(),
            to: Some(99),
            ..VncSpec::default()
        })),
    }
}
