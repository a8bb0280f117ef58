//! The vCPU threads: one a vCPU, each running its vCPU while the machine runs and doing jobs for other threads.
//!
//! Nobody waits for a vCPU thread while holding the board lock: the vCPU may be waiting for that lock.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::accel::{AccelError, Accelerator, DebugStop, Exit, Vcpu};
use crate::bus::BoardCell;
use crate::host::reason;

type Job = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;
type Kick = Arc<dyn Fn() + Send + Sync>;

/// What a vCPU tells the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VcpuEvent {
    /// Triple fault.
    Shutdown,
    /// The debugger's breakpoint, watchpoint or step.
    Debug(DebugStop),
    /// The accelerator cannot go on.
    Failed(String),
}

/// Takes vCPU events, on the vCPU's thread with no lock held; it must not wait for vCPUs.
pub type VcpuListener = Arc<dyn Fn(u32, VcpuEvent) + Send + Sync>;

#[derive(Default)]
struct State {
    run: bool,
    quit: bool,
    stopped: bool,
    jobs: VecDeque<Job>,
}

#[derive(Default)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is a few flags and a queue, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handle {
    control: Arc<Control>,
    kick: Kick,
    thread: Option<JoinHandle<()>>,
    thread_id: u32,
}

/// All vCPU threads of a machine. They start stopped.
pub struct Vcpus {
    handles: Mutex<Vec<Handle>>,
    count: u32,
}

impl std::fmt::Debug for Vcpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vcpus({})", self.count)
    }
}

impl Vcpus {
    /// Starts `count` threads, each with a vCPU of `accelerator` in its reset state.
    ///
    /// # Errors
    /// The accelerator cannot make a vCPU, or the host has no threads left.
    pub fn start(
        accelerator: &Arc<dyn Accelerator>,
        board: &Arc<BoardCell>,
        count: u32,
        listener: &VcpuListener,
    ) -> Result<Self, AccelError> {
        let vcpus = Self { handles: Mutex::default(), count };
        let (sender, receiver) = mpsc::channel();
        let mut started = Vec::new();
        let accelerator_name = accelerator.name();
        for index in 0..count {
            let control = Arc::new(Control::default());
            let thread = {
                let (control, accelerator, board) = (Arc::clone(&control), Arc::clone(accelerator), Arc::clone(board));
                let (listener, sender) = (Arc::clone(listener), sender.clone());
                std::thread::Builder::new()
                    .name(format!("CPU {index}/{}", accelerator_name.to_uppercase()))
                    .spawn(move || run_thread(index, &control, &*accelerator, &board, &listener, &sender))
                    .map_err(|source| AccelError::Host { what: "starting a vCPU thread", source })?
            };
            started.push((control, thread));
        }
        drop(sender);
        let mut kicks: Vec<Option<(Kick, u32)>> = vec![None; started.len()];
        for (index, result) in receiver.iter().take(started.len()) {
            kicks[index as usize] = Some(result?);
        }
        let mut handles = vcpus.lock();
        for ((control, thread), kick) in started.into_iter().zip(kicks) {
            let (kick, thread_id) =
                kick.ok_or_else(|| AccelError::Unsupported("a vCPU thread ended before it began".to_owned()))?;
            handles.push(Handle { control, kick, thread: Some(thread), thread_id });
        }
        drop(handles);
        Ok(vcpus)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The host's thread ids, by vCPU.
    #[must_use]
    pub fn thread_ids(&self) -> Vec<u32> {
        self.lock().iter().map(|handle| handle.thread_id).collect()
    }

    /// Lets all vCPUs run.
    pub fn resume(&self) {
        self.resume_some(&vec![true; self.count as usize]);
    }

    /// Lets those vCPUs run whose place in `which` says so; the others stay as they are.
    pub fn resume_some(&self, which: &[bool]) {
        let handles = self.lock();
        for (handle, _) in handles.iter().zip(which).filter(|(_, runs)| **runs) {
            let mut state = handle.control.lock();
            state.run = true;
            state.stopped = false;
            handle.control.changed.notify_all();
        }
    }

    /// Stops all vCPUs and waits until they are. Not from a vCPU thread, and not under the board lock.
    pub fn pause(&self) {
        let handles = self.lock();
        for handle in handles.iter() {
            handle.control.lock().run = false;
            (handle.kick)();
        }
        for handle in handles.iter() {
            let mut state = handle.control.lock();
            while !state.stopped && !state.quit {
                state = handle.control.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Lets the vCPUs look for new work: an interrupt that no accelerator delivers by itself.
    pub fn kick(&self, index: u32) {
        if let Some(handle) = self.lock().get(index as usize) {
            (handle.kick)();
        }
    }

    /// Calls `job` with a vCPU on its thread, between two instructions, and waits for the answer. `None`: there is
    /// no such vCPU. Not from a vCPU thread, and not under the board lock.
    pub fn with<R: Send + 'static>(
        &self,
        index: u32,
        job: impl FnOnce(&mut dyn Vcpu) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, receiver) = mpsc::channel();
        {
            let handles = self.lock();
            let handle = handles.get(index as usize)?;
            let mut state = handle.control.lock();
            if state.quit {
                return None;
            }
            state.jobs.push_back(Box::new(move |vcpu| {
                // The asker waits; it cannot have gone away.
                let _ = sender.send(job(vcpu));
            }));
            handle.control.changed.notify_all();
            drop(state);
            (handle.kick)();
        }
        receiver.recv().ok()
    }

    /// Ends all threads and waits for them. Not from a vCPU thread, and not under the board lock.
    pub fn stop(&self) {
        let mut handles = self.lock();
        for handle in handles.iter() {
            handle.control.lock().quit = true;
            handle.control.changed.notify_all();
            (handle.kick)();
        }
        for handle in handles.iter_mut() {
            if let Some(thread) = handle.thread.take() {
                // A vCPU thread that panicked has said so on standard error.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.stop();
    }
}

type Started = mpsc::Sender<(u32, Result<(Kick, u32), AccelError>)>;

fn run_thread(
    index: u32,
    control: &Control,
    accelerator: &dyn Accelerator,
    board: &BoardCell,
    listener: &VcpuListener,
    started: &Started,
) {
    let made = accelerator.create_vcpu(index).and_then(|mut vcpu| vcpu.reset().map(|()| vcpu));
    let mut vcpu = match made {
        Ok(vcpu) => vcpu,
        Err(error) => {
            control.lock().quit = true;
            // `start` waits for every answer.
            let _ = started.send((index, Err(error)));
            return;
        }
    };
    let thread_id = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
    let _ = started.send((index, Ok((vcpu.kicker(), thread_id))));
    while wait_for_work(control, &mut *vcpu) {
        let event = match vcpu.run(board) {
            Ok(Exit::Kicked | Exit::Halted) => continue,
            Ok(Exit::Shutdown) => VcpuEvent::Shutdown,
            Ok(Exit::Debug(stop)) => VcpuEvent::Debug(stop),
            Ok(Exit::InternalError(text)) => VcpuEvent::Failed(text),
            Err(error) => VcpuEvent::Failed(describe(&error)),
        };
        // What the listener posts to the main loop ends in a reset, a pause or the end: until then this vCPU stands.
        control.lock().run = false;
        listener(index, event);
    }
}

/// An error with its source, on one line.
pub fn describe(error: &AccelError) -> String {
    match error {
        AccelError::Host { what, source } => format!("{what}: {}", reason(source)),
        AccelError::Unsupported(text) => text.clone(),
    }
}

/// Does jobs until the vCPU may run; false when the thread shall end.
fn wait_for_work(control: &Control, vcpu: &mut dyn Vcpu) -> bool {
    let mut state = control.lock();
    loop {
        if state.quit {
            return false;
        }
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job(vcpu);
            state = control.lock();
            continue;
        }
        if state.run {
            state.stopped = false;
            return true;
        }
        state.stopped = true;
        control.changed.notify_all();
        state = control.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}
