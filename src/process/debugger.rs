//! The gdb server of the process: `-gdb`, and the monitor's `gdbserver`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chardev::{AttachError, Chardevs, Spec};
use crate::event::LoopHandle;
use crate::gdb::Server;
use crate::machine::Machine;
use crate::machine::config::ChardevSpec;
use crate::monitor::hmp::Environment;
use crate::options;

/// The server that is there now, and its chardev.
struct Open {
    server: Arc<Server>,
    chardev: String,
}

/// At most one gdb server.
pub(super) struct Debugger {
    machine: Arc<Machine>,
    chardevs: Arc<Chardevs>,
    environment: Environment,
    handle: LoopHandle,
    open: Mutex<Option<Open>>,
}

/// A chardev as the registry wants it.
pub(super) fn chardev(spec: &ChardevSpec) -> Spec {
    Spec {
        id: spec.id.clone(),
        backend: spec.backend.clone(),
        options: spec.options.clone(),
        mux: spec.mux,
        logfile: spec.logfile.clone(),
        logappend: spec.logappend,
    }
}

impl Debugger {
    pub(super) fn new(
        machine: &Arc<Machine>,
        chardevs: &Arc<Chardevs>,
        environment: Environment,
        handle: LoopHandle,
    ) -> Arc<Self> {
        let (machine, chardevs) = (Arc::clone(machine), Arc::clone(chardevs));
        Arc::new(Self { machine, chardevs, environment, handle, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // One field, whole at all times.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves debuggers on a chardev that exists.
    pub(super) fn attach(&self, id: &str) -> Result<(), AttachError> {
        let claim = self.chardevs.claim(id)?;
        let server = Server::new(&self.machine, self.environment.clone(), self.handle.clone(), claim.handle());
        claim.connect(Arc::clone(&server) as Arc<dyn crate::chardev::CharSink>);
        *self.lock() = Some(Open { server, chardev: id.to_owned() });
        Ok(())
    }

    /// Ends the server; `false`: a debugger asks for that through the server itself.
    fn close(&self) -> bool {
        let Some(open) = self.lock().take() else { return true };
        if !open.server.close() {
            *self.lock() = Some(open);
            return false;
        }
        self.chardevs.release(&open.chardev);
        // A chardev of the user's own stays, for another use.
        if open.chardev == options::GDB_CHARDEV {
            // It was released above; what else could fail is that it is gone already.
            let _ = self.chardevs.remove(&open.chardev);
        }
        true
    }

    /// `gdbserver`: QEMU's lines.
    pub(super) fn serve(&self, device: &str) -> String {
        let refused = format!("Could not open gdbserver on device '{device}'\n");
        if !self.close() {
            return refused;
        }
        if device == "none" {
            return "Disabled gdbserver\n".to_owned();
        }
        let no_chardev = |text: String| format!("{text}warning: {}\n{refused}", options::GDB_NO_CHARDEV);
        let id = match device.strip_prefix("chardev:") {
            Some(id) => id.to_owned(),
            None => {
                let spec = match options::gdb_chardev(device, &super::start::tables()) {
                    Ok(spec) => spec,
                    Err(text) => return no_chardev(text),
                };
                if let Err(error) = self.chardevs.open(&chardev(&spec)) {
                    return no_chardev(format!("{error}\n"));
                }
                spec.id
            }
        };
        match self.attach(&id) {
            Ok(()) => format!("Waiting for gdb connection on device '{device}'\n"),
            Err(AttachError::NotFound(_)) => no_chardev(String::new()),
            Err(error) => format!("{error}\n{refused}"),
        }
    }
}
