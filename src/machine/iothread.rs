//! I/O threads (`-object iothread`): threads with an event loop of their own, for devices that leave the board lock.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::event::{Clock, EventLoop, LoopHandle};

use super::build::BuildError;

/// Most nanoseconds that QEMU's threads look at their queues before they sleep; ours sleep at once, and accept no other
/// wish.
const POLL_PROPERTIES: &[&str] =
    &["aio-max-batch", "poll-grow", "poll-max-ns", "poll-shrink", "thread-pool-max", "thread-pool-min"];

/// A running thread. It ends with its last handle.
pub struct IoThread {
    id: String,
    handle: LoopHandle,
    thread_id: i64,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for IoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoThread({})", self.id)
    }
}

impl IoThread {
    /// Starts one.
    ///
    /// # Errors
    /// The host has no threads or descriptors left, or a property asks for what these threads do not do.
    pub fn start(id: &str, clock: Clock, properties: &[(String, String)]) -> Result<Arc<Self>, BuildError> {
        let failed =
            |error: std::io::Error| BuildError::Text(format!("iothread '{id}': {}", crate::host::reason(&error)));
        for (key, value) in properties {
            let is_default = value == "0" || (key == "thread-pool-max" && value == "64");
            if POLL_PROPERTIES.contains(&key.as_str()) && !is_default {
                return Err(BuildError::Text(format!(
                    "iothread property {key}={value} is not supported by this version"
                )));
            }
        }
        let event_loop = EventLoop::new(clock).map_err(failed)?;
        let handle = event_loop.handle();
        let (send, receive) = std::sync::mpsc::channel();
        let name: String = format!("IO {id}").chars().take(15).collect();
        let run = move || {
            // Nobody waits if the machine is gone already.
            let _ = send.send(i64::from(rustix::thread::gettid().as_raw_nonzero().get()));
            if let Err(error) = event_loop.run() {
                log::error!("I/O thread: {error}");
            }
        };
        let thread = thread::Builder::new().name(name).spawn(run).map_err(failed)?;
        let thread_id = receive.recv().unwrap_or(0);
        Ok(Arc::new(Self { id: id.to_owned(), handle, thread_id, thread: Some(thread) }))
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The host's number of the thread.
    #[must_use]
    pub fn thread_id(&self) -> i64 {
        self.thread_id
    }

    /// Its event loop.
    #[must_use]
    pub fn handle(&self) -> &LoopHandle {
        &self.handle
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.handle.quit();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
