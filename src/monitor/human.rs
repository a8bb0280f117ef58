//! A person's session: the line editor and command lines on a character device.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::chardev::{CharEvent, CharHandle, CharSink};

use super::hmp::{self, Answer, Environment, HmpState, Question};
use super::readline::{Outcome, Readline};
use super::version;
use crate::chardev::Outbox;

/// Input that waits until the output of earlier lines is gone.
const INPUT_LIMIT: usize = 4096;
/// With this much output waiting, no further line is run.
const OUTPUT_ENOUGH: usize = 64 << 10;

struct State {
    readline: Readline,
    hmp: HmpState,
    input: VecDeque<u8>,
    question: Option<Question>,
    /// The banner was shown.
    greeted: bool,
    /// A multiplexer shows another front end.
    away: bool,
    /// A line is being run; its command may come back to us through an event.
    busy: bool,
}

/// The session.
pub(super) struct HumanSession {
    environment: Environment,
    outbox: Outbox,
    state: Mutex<State>,
}

impl fmt::Debug for HumanSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HumanSession")
    }
}

/// What follows a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// The next one.
    Go,
    /// Nothing: the machine ends.
    End,
}

/// What a byte asks for, once the lock is gone.
enum Work {
    Line(String, HmpState, Vec<String>),
    Reply(Question, String),
    Complete(String),
}

impl HumanSession {
    pub(super) fn new(environment: Environment, handle: CharHandle) -> Self {
        let state = State {
            readline: Readline::new("(qemu) "),
            hmp: HmpState::default(),
            input: VecDeque::new(),
            question: None,
            greeted: false,
            away: false,
            busy: false,
        };
        Self { environment, outbox: Outbox::new(handle), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every field is whole between two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Text of ours: a line feed ends a line.
    fn print(&self, text: &str) {
        self.outbox.push(text.replace('\n', "\r\n").as_bytes());
    }

    /// Takes waiting input as long as the output flows. On the loop's thread.
    fn pump(&self) {
        loop {
            if self.outbox.len() >= OUTPUT_ENOUGH {
                return;
            }
            let work = {
                let mut state = self.lock();
                if state.busy {
                    return;
                }
                let work = next_work(&mut state);
                state.busy = work.is_some();
                let echo = state.readline.take_output();
                self.outbox.push(&echo);
                work
            };
            let Some(work) = work else { return };
            if self.perform(work) == Next::End {
                // It stays busy: nothing more is read while the machine ends.
                return;
            }
            self.lock().busy = false;
        }
    }

    fn perform(&self, work: Work) -> Next {
        match work {
            Work::Line(line, mut hmp, history) => {
                let Answer { text, question, ended } = hmp::execute(&self.environment, &mut hmp, &history, &line, true);
                self.print(&text);
                if ended {
                    return Next::End;
                }
                let mut state = self.lock();
                state.hmp = hmp;
                state.question = question;
                match question {
                    Some(Question::VncPassword) => state.readline.start_password("Password: "),
                    None => state.readline.start(),
                }
                let prompt = state.readline.take_output();
                self.outbox.push(&prompt);
            }
            Work::Reply(question, reply) => {
                let text = hmp::answer(&self.environment, question, &reply);
                self.print(&text);
                let mut state = self.lock();
                state.readline.start();
                let prompt = state.readline.take_output();
                self.outbox.push(&prompt);
            }
            Work::Complete(line) => {
                let (typed, candidates) = hmp::complete(&self.environment, &line);
                let mut state = self.lock();
                state.readline.complete(typed, &candidates);
                let echo = state.readline.take_output();
                self.outbox.push(&echo);
            }
        }
        Next::Go
    }
}

/// Feeds waiting bytes to the editor until one of them asks for something.
fn next_work(state: &mut State) -> Option<Work> {
    while let Some(byte) = state.input.pop_front() {
        match state.readline.input(byte) {
            Outcome::Continue => {}
            Outcome::Complete => return Some(Work::Complete(state.readline.before_cursor())),
            Outcome::Line(line) => {
                return Some(match state.question.take() {
                    Some(question) => Work::Reply(question, line),
                    None => Work::Line(line, state.hmp.clone(), state.readline.history()),
                });
            }
        }
    }
    None
}

impl CharSink for HumanSession {
    fn room(&self) -> usize {
        INPUT_LIMIT.saturating_sub(self.lock().input.len())
    }

    fn receive(&self, data: &[u8]) {
        self.lock().input.extend(data);
        self.pump();
    }

    fn event(&self, event: CharEvent) {
        match event {
            CharEvent::Opened => {
                self.print(&format!("QEMU {} monitor - type 'help' for more information\n", version::TEXT));
                let mut state = self.lock();
                state.greeted = true;
                state.question = None;
                if !state.away {
                    state.readline.start();
                    let prompt = state.readline.take_output();
                    self.outbox.push(&prompt);
                }
            }
            CharEvent::Closed => {
                let mut state = self.lock();
                state.greeted = false;
                state.input.clear();
                self.outbox.clear();
            }
            CharEvent::MuxIn => {
                let prompt = {
                    let mut state = self.lock();
                    if !std::mem::replace(&mut state.away, false) || !state.greeted {
                        Vec::new()
                    } else {
                        state.readline.start();
                        state.readline.take_output()
                    }
                };
                self.outbox.hold(false);
                self.outbox.push(&prompt);
            }
            CharEvent::MuxOut => {
                let greeted = {
                    let mut state = self.lock();
                    let was_here = !std::mem::replace(&mut state.away, true);
                    state.greeted && was_here
                };
                if greeted {
                    self.print("\n");
                }
                self.outbox.hold(true);
            }
            CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.outbox.flush();
        self.pump();
        self.outbox.accept_input();
    }
}
