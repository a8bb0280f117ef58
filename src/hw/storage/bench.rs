//! A disk for tests of controllers: it does its requests when the test says so.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Fault, FaultSink};
use crate::block::{BlockQueue, Completion, Notify, Op, Payload, Request};
use crate::mem::GuestRam;

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    waiting: VecDeque<Request>,
    done: Vec<Completion>,
    ram: Option<GuestRam>,
    notify: Option<Notify>,
    operations: Vec<String>,
    faults: Vec<String>,
    error: Option<i32>,
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct DiskBench(Arc<Mutex<State>>);

impl DiskBench {
    pub fn new(len: usize) -> Self {
        Self(Arc::new(Mutex::new(State { bytes: vec![0; len], ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The controller's end.
    pub fn queue(&self, notify: Notify) -> Box<dyn BlockQueue> {
        self.state().notify = Some(notify);
        Box::new(self.clone())
    }

    pub fn share_memory(&self, ram: &GuestRam) {
        self.state().ram = Some(ram.clone());
    }

    pub fn faults(&self) -> FaultSink {
        let state = Arc::clone(&self.0);
        Arc::new(move |fault: Fault| {
            let what = if fault.write { "write" } else { "read" };
            let space = if fault.no_space { " nospace" } else { "" };
            state.lock().unwrap().faults.push(format!("{what} {:?}{space}", fault.action));
        })
    }

    pub fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.state().faults)
    }

    /// Each request fails with this error number from now on.
    pub fn fail_with(&self, error: Option<i32>) {
        self.state().error = error;
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub fn set_bytes(&self, at: usize, bytes: &[u8]) {
        self.state().bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What was done since the last call.
    pub fn operations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().operations)
    }

    /// Does what waits, and what comes while it is reported.
    pub fn work(&self) {
        loop {
            let notify = {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    return;
                }
                while let Some(request) = state.waiting.pop_front() {
                    let completion = perform(&mut state, request);
                    state.done.push(completion);
                }
                state.notify.clone().unwrap()
            };
            notify();
        }
    }
}

fn perform(state: &mut State, mut request: Request) -> Completion {
    let name = match request.op {
        Op::Read => "read",
        Op::Write => "write",
        Op::WriteFua => "write fua",
        Op::Flush => "flush",
        Op::Discard => "discard",
        Op::WriteZeroes { may_unmap: true } => "zero unmap",
        Op::WriteZeroes { may_unmap: false } => "zero",
    };
    state.operations.push(name.to_owned());
    let result = match state.error {
        Some(error) => Err(io::Error::from_raw_os_error(error)),
        None => transfer(state, &mut request),
    };
    Completion { token: request.token, result, payload: request.payload }
}

fn transfer(state: &mut State, request: &mut Request) -> io::Result<()> {
    let len = match &request.payload {
        Payload::Len(len) => *len,
        Payload::Guest(sg) => sg.len(),
        Payload::Buffer(buffer) => buffer.len() as u64,
    };
    let (start, len) = (usize::try_from(request.offset).unwrap(), usize::try_from(len).unwrap());
    let fault = || io::Error::from_raw_os_error(14);
    let range = state.bytes.get_mut(start..start + len).ok_or_else(|| io::Error::from_raw_os_error(5))?;
    match (request.op, &mut request.payload) {
        (Op::Read, Payload::Guest(sg)) => sg.write(state.ram.as_ref().unwrap(), 0, range).map_err(|_| fault()),
        (Op::Read, Payload::Buffer(buffer)) => {
            buffer.copy_from_slice(range);
            Ok(())
        }
        (Op::Write | Op::WriteFua, Payload::Guest(sg)) => {
            sg.read(state.ram.as_ref().unwrap(), 0, range).map_err(|_| fault())
        }
        (Op::Write | Op::WriteFua, Payload::Buffer(buffer)) => {
            range.copy_from_slice(buffer);
            Ok(())
        }
        (Op::WriteZeroes { .. }, _) => {
            range.fill(0);
            Ok(())
        }
        _ => Ok(()),
    }
}

impl BlockQueue for DiskBench {
    fn submit(&mut self, request: Request) {
        self.state().waiting.push_back(request);
    }

    fn completed(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.state().done)
    }

    fn cancel_all(&mut self) {
        let mut state = self.state();
        state.waiting.clear();
        state.done.clear();
    }

    fn capacity(&self) -> u64 {
        self.state().bytes.len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }
}
