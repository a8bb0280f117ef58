//! `serial`: a serial line of the host.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::termios::{ControlModes, InputModes, OptionalActions, tcgetattr, tcsetattr};

use crate::event::LoopHandle;

use super::backend::{Backend, open_now};
use super::handle::{CharOutput, SerialParameters};
use super::inlet::Inlet;
use super::spec::{OpenError, Spec};
use super::stream::{AtEnd, Descriptors, Stream};

struct Serial {
    line: Arc<OwnedFd>,
    stream: Arc<Stream>,
}

/// What a line runs at until the guest says something else.
const AT_FIRST: SerialParameters = SerialParameters { speed: 115_200, data_bits: 8, stop_bits: 1, parity: 'N' };

/// Opens `serial`.
pub(super) fn open(spec: &Spec, handle: &LoopHandle, inlet: &Arc<Inlet>) -> Result<Arc<dyn Backend>, OpenError> {
    let Some(path) = spec.get("path") else {
        return Err(OpenError("chardev: serial/tty: no device path given".to_owned()));
    };
    let how = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let line = rustix::fs::open(path, how, Mode::empty()).map_err(|e| OpenError::open(path, &e.into()))?;
    let line = Arc::new(line);
    set_line(&line, AT_FIRST);
    let stream = Stream::new(handle.clone(), Arc::clone(inlet), AtEnd::KeepOutput, || ());
    stream.connect(Descriptors { input: Some(Arc::clone(&line)), output: Some(Arc::clone(&line)) }, None);
    Ok(open_now(inlet, Serial { line, stream }))
}

/// Sets speed and frame; the rest is raw. A line that cannot do it (a pseudo-terminal) keeps what it has.
fn set_line(line: &OwnedFd, parameters: SerialParameters) {
    let Ok(mut modes) = tcgetattr(line) else { return };
    modes.make_raw();
    modes.input_modes &= !(InputModes::IXOFF | InputModes::IXANY);
    modes.control_modes &= !(ControlModes::CSIZE | ControlModes::CSTOPB | ControlModes::PARENB | ControlModes::PARODD);
    modes.control_modes |= match parameters.data_bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _ => ControlModes::CS8,
    };
    modes.control_modes |= match parameters.parity {
        'E' => ControlModes::PARENB,
        'O' => ControlModes::PARENB | ControlModes::PARODD,
        _ => ControlModes::empty(),
    };
    if parameters.stop_bits > 1 {
        modes.control_modes |= ControlModes::CSTOPB;
    }
    modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    let speed = parameters.speed.max(1);
    if modes.set_speed(speed).is_err() || tcsetattr(line, OptionalActions::Now, &modes).is_err() {
        log::warn!("the serial line does not run at {speed} baud");
    }
}

impl CharOutput for Serial {
    fn write(&self, data: &[u8]) -> usize {
        self.stream.write(data)
    }

    fn accept_input(&self) {
        self.stream.accept_input();
    }

    fn set_parameters(&self, parameters: SerialParameters) {
        set_line(&self.line, parameters);
    }

    fn set_break(&self, on: bool) {
        if let Err(e) = crate::host::tty::set_break(&self.line, on) {
            log::debug!("no break on this serial line: {e}");
        }
    }
}

impl Backend for Serial {
    fn filename(&self) -> String {
        "serial".to_owned()
    }

    fn close(&self) {
        self.stream.drain();
        self.stream.drop_connection();
    }
}
