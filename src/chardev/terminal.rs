//! The process's terminal: raw while a character device uses it, as it was otherwise.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::process::getpgrp;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcgetpgrp, tcsetattr,
};

use super::inlet::lock;

struct Modes {
    before: Termios,
    raw: Termios,
}

/// A terminal with its two modes; nothing if the descriptor is none.
pub(super) struct Terminal {
    fd: Arc<OwnedFd>,
    modes: Mutex<Option<Modes>>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terminal")
    }
}

impl Terminal {
    /// Makes it raw; with `signals`, Ctrl-C and Ctrl-Z still mean what they do.
    pub(super) fn make_raw(fd: Arc<OwnedFd>, signals: bool) -> Self {
        let modes = if isatty(&fd) { tcgetattr(&fd).ok() } else { None }.map(|before| {
            let mut raw = before.clone();
            raw_modes(&mut raw);
            if signals {
                raw.local_modes |= LocalModes::ISIG;
            }
            Modes { before, raw }
        });
        let terminal = Self { fd, modes: Mutex::new(modes) };
        terminal.resume();
        terminal
    }

    /// Back to raw mode, after [`Terminal::suspend`]. A process in the background leaves its shell's terminal alone; it
    /// is told again when it comes to the foreground.
    pub(super) fn resume(&self) {
        let in_background = tcgetpgrp(&self.fd).is_ok_and(|group| group != getpgrp());
        if let Some(modes) = &*lock(&self.modes)
            && !in_background
        {
            // A terminal that hung up takes no modes, and needs none.
            let _ = tcsetattr(&self.fd, OptionalActions::Now, &modes.raw);
        }
    }

    /// As it was: the process is about to stop or end.
    pub(super) fn suspend(&self) {
        if let Some(modes) = &*lock(&self.modes) {
            // As above.
            let _ = tcsetattr(&self.fd, OptionalActions::Now, &modes.before);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.suspend();
    }
}

/// No echo, no line editing, no signals, eight bits; output lines still end with a carriage return.
fn raw_modes(modes: &mut Termios) {
    modes.input_modes &= !(InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON);
    modes.output_modes |= OutputModes::OPOST;
    modes.local_modes &=
        !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG);
    modes.control_modes &= !(ControlModes::CSIZE | ControlModes::PARENB);
    modes.control_modes |= ControlModes::CS8;
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    #[test]
    fn the_terminal_is_raw_only_while_it_is_used() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = rustix::fs::open(name, rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
        let slave = Arc::new(slave);
        let before = tcgetattr(&slave).unwrap().local_modes;
        let terminal = Terminal::make_raw(Arc::clone(&slave), true);
        let raw = tcgetattr(&slave).unwrap().local_modes;
        assert!(!raw.contains(LocalModes::ECHO) && raw.contains(LocalModes::ISIG));
        terminal.suspend();
        assert_eq!(tcgetattr(&slave).unwrap().local_modes, before);
        terminal.resume();
        assert_eq!(tcgetattr(&slave).unwrap().local_modes, raw);
        drop(terminal);
        assert_eq!(tcgetattr(&slave).unwrap().local_modes, before);
    }
}
