//! `qemu-bridge-helper`: opens a TAP device on a bridge for a user who may not, as `bridge.conf` allows, and passes the
//! descriptor on. It is to be installed with the set-uid bit, and does nothing else.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::ExitCode;

use dromaius::host::{fd, tap};

/// Who may use which bridge, as in QEMU's package.
const RULES: &str = "/etc/qemu/bridge.conf";

const USAGE: &str = "Usage: qemu-bridge-helper [--use-vnet] --br=bridge --fd=unixfd";

/// What a rule file says of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Allow,
    Deny,
    /// Nothing.
    Silent,
}

/// Reads rules: `allow BRIDGE|all`, `deny BRIDGE|all`, `include FILE`. Denials win; a missing file is an error.
fn judge(path: &Path, bridge: &str, depth: u32) -> Result<Verdict, String> {
    let failed = || format!("failed to parse default acl file `{}'", path.display());
    if depth > 8 {
        return Err(failed());
    }
    let text = std::fs::read_to_string(path).map_err(|_| failed())?;
    let mut verdict = Verdict::Silent;
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, argument) = line.split_once(char::is_whitespace).ok_or_else(failed)?;
        let argument = argument.trim();
        let meant = argument == "all" || argument == bridge;
        let found = match word {
            "allow" if meant => Verdict::Allow,
            "deny" if meant => Verdict::Deny,
            "allow" | "deny" => continue,
            // A file that the user could not read says nothing to the user.
            "include" => judge(Path::new(argument), bridge, depth + 1)?,
            _ => return Err(failed()),
        };
        match found {
            Verdict::Deny => return Ok(Verdict::Deny),
            Verdict::Allow => verdict = Verdict::Allow,
            Verdict::Silent => {}
        }
    }
    Ok(verdict)
}

fn run() -> Result<(), String> {
    let (mut bridge, mut number, mut header) = (None, None, false);
    for argument in std::env::args().skip(1) {
        if argument == "--use-vnet" {
            header = true;
        } else if let Some(name) = argument.strip_prefix("--br=") {
            bridge = Some(name.to_owned());
        } else if let Some(text) = argument.strip_prefix("--fd=") {
            number = text.parse().ok();
        } else {
            return Err(USAGE.to_owned());
        }
    }
    let (Some(bridge), Some(number)) = (bridge, number) else { return Err(USAGE.to_owned()) };
    let (socket, _) = fd::take_socket(number).map_err(|_| USAGE.to_owned())?;
    if judge(Path::new(RULES), &bridge, 0)? != Verdict::Allow {
        return Err("access denied by acl file".to_owned());
    }
    let wanted = tap::Request { name: "tap%d", header, queues: false };
    let (device, name) = tap::create(&wanted).map_err(|error| format!("failed to create tun device: {error}"))?;
    tap::add_to_bridge(&name, &bridge)
        .map_err(|error| format!("failed to add interface `{name}' to bridge `{bridge}': {error}"))?;
    let device: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&device);
    tap::send_descriptor(&socket, device).map_err(|error| format!("failed to write fd to unix socket: {error}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rules: &str) -> Result<Verdict, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bridge.conf");
        std::fs::write(&path, rules).unwrap();
        judge(&path, "br0", 0)
    }

    #[test]
    fn denials_win_and_silence_is_no_permission() {
        assert_eq!(verdict("# mine\nallow br0\n"), Ok(Verdict::Allow));
        assert_eq!(verdict("allow br1\n"), Ok(Verdict::Silent));
        assert_eq!(verdict("allow all\ndeny br0\n"), Ok(Verdict::Deny));
        assert!(verdict("allow\n").is_err() && verdict("permit br0\n").is_err());
        assert!(verdict("include /nonexistent\n").is_err());
    }
}
