//! The human monitor protocol: command lines in, text out.
//!
//! A command line is a name and arguments by a table ([`table`]); most commands are a query of [`Control`] and a
//! function of [`super::text`], or one call. Messages are QEMU's.

mod commands;
mod complete;
mod expression;
mod information;
mod lex;
mod table;

use std::sync::Arc;

use crate::cpu::CpuState;

use super::control::{CommandError, CommandResult, Control};
use super::keys::KeyQueue;
use super::paging;
use super::registers;

pub use complete::complete;
pub use lex::{Args, FormatDefaults};
pub use table::{Command, find, is_command};

use lex::Arg;

/// What a monitor remembers between command lines.
#[derive(Clone, Debug, Default)]
pub struct HmpState {
    /// `cpu`.
    pub cpu: u32,
    /// The last `/fmt`.
    defaults: FormatDefaults,
    /// Mouse buttons that are down (bits of `mouse_button`).
    buttons: u64,
}

/// Who executes command lines: the machine, and what all monitors share.
#[derive(Clone)]
pub struct Environment {
    /// The machine.
    pub control: Arc<dyn Control>,
    /// Keys that wait to be pressed.
    pub keys: Arc<KeyQueue>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}

/// A question that a command asks instead of ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// `change vnc password`: the new password.
    VncPassword,
}

/// One command line's run.
pub struct Hmp<'a> {
    environment: &'a Environment,
    state: &'a mut HmpState,
    /// For `info history`.
    history: &'a [String],
    out: String,
    question: Option<Question>,
    may_ask: bool,
    ended: bool,
}

/// What a command line came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// The text, lines ending with a line feed.
    pub text: String,
    /// What the command wants to know before it can go on.
    pub question: Option<Question>,
    /// The machine ends: no prompt follows.
    pub ended: bool,
}

/// Runs a command line. `may_ask`: somebody is there to answer questions.
#[must_use]
pub fn execute(
    environment: &Environment,
    state: &mut HmpState,
    history: &[String],
    line: &str,
    may_ask: bool,
) -> Answer {
    let mut hmp = Hmp { environment, state, history, out: String::new(), question: None, may_ask, ended: false };
    hmp.line(line);
    Answer { text: hmp.out, question: hmp.question, ended: hmp.ended }
}

/// Goes on with a command that asked something.
#[must_use]
pub fn answer(environment: &Environment, question: Question, reply: &str) -> String {
    match question {
        Question::VncPassword => {
            match environment.control.set_vnc_password(None, reply, super::control::IfConnected::Keep) {
                Ok(()) => String::new(),
                Err(error) => format!("Error: {error}\n"),
            }
        }
    }
}

impl Hmp<'_> {
    fn control(&self) -> &dyn Control {
        &*self.environment.control
    }

    fn print(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
    }

    fn line(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        let (name, rest) = lex::split_name(line);
        let Some(mut command) = find(table::COMMANDS, name) else {
            self.print(format!("unknown command: '{name}'\n"));
            return;
        };
        let mut typed = name.to_owned();
        let mut rest = rest;
        if let Some(subcommands) = command.subcommands() {
            let (sub, after) = lex::split_name(rest);
            if sub.is_empty() {
                self.print(table::help_all(subcommands, "info "));
                return;
            }
            let Some(found) = find(subcommands, sub) else {
                self.print(format!("unknown command: '{name} {sub}'\n"));
                return;
            };
            typed = format!("{name} {sub}");
            command = found;
            rest = after;
        }
        match self.arguments(command, rest) {
            Ok(args) => {
                if let Err(error) = command.run(self, &args) {
                    self.print(format!("Error: {error}\n"));
                }
            }
            Err(message) => self.print(format!("{message}\nTry \"help {typed}\" for more information\n")),
        }
    }

    fn arguments(&mut self, command: &Command, rest: &str) -> Result<Args, String> {
        let table: &[Arg] = command.args;
        let control = Arc::clone(&self.environment.control);
        let cpu = self.state.cpu;
        // Registers are only fetched for an expression that names one.
        let registers = |name: &str| control.cpu_state(cpu).ok().and_then(|state| registers::by_name(&state, name));
        lex::parse(command.name, table, rest, &registers, &mut self.state.defaults)
    }

    fn cpu_state(&self) -> CommandResult<CpuState> {
        self.control().cpu_state(self.state.cpu)
    }

    /// Reads the current CPU's linear memory.
    fn read_linear(&self, state: &CpuState, gva: u64, buf: &mut [u8]) -> bool {
        paging::read_linear(state, &|gpa, buf| self.control().read_physical(gpa, buf), gva, buf)
    }
}

fn failure<T>(text: impl Into<String>) -> CommandResult<T> {
    Err(CommandError::new(text))
}
