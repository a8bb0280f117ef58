//! The QEMU machine protocol: JSON commands in, JSON answers and events out.

mod answers;
mod args;
mod commands;
mod reader;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::chardev::{CharEvent, CharHandle, CharSink};

use super::control::{CommandError, CommandResult, ErrorClass};
use super::hmp::Environment;
use crate::chardev::Outbox;
use args::Arguments;
use reader::{Item, Reader};

/// Input that waits until the answers to earlier commands are gone.
const INPUT_LIMIT: usize = 64 << 10;
/// With this much output waiting, no further command is run.
const OUTPUT_ENOUGH: usize = 64 << 10;
/// Events for a program that does not read are lost beyond this.
const OUTPUT_LIMIT: usize = 4 << 20;

struct State {
    reader: Reader,
    input: VecDeque<u8>,
    /// What the reader found and has not been done.
    items: VecDeque<Item>,
    connected: bool,
    /// `qmp_capabilities` came: commands are taken, events are sent.
    negotiated: bool,
    out_of_band: bool,
    busy: bool,
}

/// A program's session.
pub(super) struct ControlSession {
    environment: Environment,
    outbox: Outbox,
    pretty: bool,
    state: Mutex<State>,
}

impl fmt::Debug for ControlSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlSession")
    }
}

fn error(failure: &CommandError) -> Value {
    json!({"error": {"class": failure.class.name(), "desc": failure.text}})
}

fn refuse<T>(text: impl Into<String>) -> CommandResult<T> {
    Err(CommandError::new(text))
}

/// A command as it came, checked as far as its form goes.
#[derive(Debug)]
struct Request {
    name: String,
    arguments: Map<String, Value>,
    out_of_band: bool,
}

fn request(map: Map<String, Value>, may_out_of_band: bool) -> CommandResult<Request> {
    let mut found = None;
    let mut arguments = Map::new();
    for (member, value) in map {
        match (member.as_str(), value) {
            ("execute", Value::String(name)) => found = Some((name, false)),
            ("exec-oob", Value::String(name)) if may_out_of_band => found = Some((name, true)),
            ("execute", _) => return refuse("QMP input member 'execute' must be a string"),
            ("exec-oob", _) if may_out_of_band => return refuse("QMP input member 'exec-oob' must be a string"),
            ("arguments", Value::Object(map)) => arguments = map,
            ("arguments", _) => return refuse("QMP input member 'arguments' must be an object"),
            ("id", _) => {}
            (member, _) => return refuse(format!("QMP input member '{member}' is unexpected")),
        }
    }
    let Some((name, out_of_band)) = found else { return refuse("QMP input lacks member 'execute'") };
    Ok(Request { name, arguments, out_of_band })
}

impl ControlSession {
    pub(super) fn new(environment: Environment, handle: CharHandle, pretty: bool) -> Self {
        let state = State {
            reader: Reader::default(),
            input: VecDeque::new(),
            items: VecDeque::new(),
            connected: false,
            negotiated: false,
            out_of_band: false,
            busy: false,
        };
        Self { environment, outbox: Outbox::new(handle), pretty, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every field is whole between two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, value: &Value) {
        let text = if self.pretty { crate::json::pretty(value) } else { crate::json::line(value) };
        self.outbox.push((text + "\r\n").as_bytes());
    }

    /// Sends an event, if the program is there and reads.
    pub(super) fn event(&self, event: &Value) {
        if !self.lock().negotiated {
            return;
        }
        if self.outbox.len() >= OUTPUT_LIMIT {
            log::warn!("a QMP client does not read; an event is lost");
            return;
        }
        self.send(event);
    }

    /// Does what waits, as long as the output flows. On the loop's thread.
    fn pump(&self) {
        loop {
            if self.outbox.len() >= OUTPUT_ENOUGH {
                return;
            }
            let item = {
                let mut state = self.lock();
                if state.busy {
                    return;
                }
                let item = next_item(&mut state);
                state.busy = item.is_some();
                item
            };
            let Some(item) = item else { return };
            let reply = self.reply(item);
            self.send(&reply);
            self.lock().busy = false;
        }
    }

    fn reply(&self, item: Item) -> Value {
        let text = match item {
            Item::Error(message) => return error(&CommandError::new(message)),
            Item::Value(text) => text,
        };
        let map = match crate::json::parse(&text) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return error(&CommandError::new("QMP input must be a JSON object")),
            Err(e) => return error(&CommandError::new(e.to_string())),
        };
        let id = map.get("id").cloned();
        match self.execute(map) {
            Ok(value) => {
                let mut reply = json!({"return": value});
                if let (Some(reply), Some(id)) = (reply.as_object_mut(), id) {
                    reply.insert("id".to_owned(), id);
                }
                reply
            }
            Err(failure) => match (id, error(&failure)) {
                (Some(id), Value::Object(failure)) => {
                    let mut reply = Map::new();
                    reply.insert("id".to_owned(), id);
                    reply.extend(failure);
                    Value::Object(reply)
                }
                (_, reply) => reply,
            },
        }
    }

    fn execute(&self, map: Map<String, Value>) -> CommandResult<Value> {
        let (negotiated, out_of_band) = {
            let state = self.lock();
            (state.negotiated, state.out_of_band)
        };
        let request = request(map, out_of_band)?;
        let not_found = |text: String| CommandError { class: ErrorClass::CommandNotFound, text };
        if !negotiated {
            if request.name != "qmp_capabilities" {
                let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
                return Err(not_found(text.to_owned()));
            }
            return self.negotiate(&request.arguments);
        }
        if request.name == "qmp_capabilities" {
            let text = "Capabilities negotiation is already complete, command ignored";
            return Err(not_found(text.to_owned()));
        }
        let Some(command) = commands::find(&request.name) else {
            return Err(not_found(format!("The command {} has not been found", request.name)));
        };
        if request.out_of_band {
            return refuse(format!("The command {} does not support OOB", request.name));
        }
        let arguments = Arguments::check(command.args, request.arguments)?;
        (command.run)(&self.environment, &arguments)
    }

    fn negotiate(&self, arguments: &Map<String, Value>) -> CommandResult<Value> {
        if let Some(name) = arguments.keys().find(|name| *name != "enable") {
            return refuse(format!("Parameter '{name}' is unexpected"));
        }
        let mut out_of_band = false;
        if let Some(enable) = arguments.get("enable") {
            args::check("enable", args::Type::Array, enable)?;
            for capability in enable.as_array().into_iter().flatten() {
                // QEMU has no name for the element.
                args::check("null", args::Type::Word(&["oob"]), capability)?;
                out_of_band = true;
            }
        }
        let mut state = self.lock();
        state.negotiated = true;
        state.out_of_band = out_of_band;
        Ok(json!({}))
    }
}

fn next_item(state: &mut State) -> Option<Item> {
    loop {
        if let Some(item) = state.items.pop_front() {
            return Some(item);
        }
        let byte = state.input.pop_front()?;
        let found = state.reader.input(byte);
        state.items.extend(found);
    }
}

impl CharSink for ControlSession {
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
                let greet = {
                    let mut state = self.lock();
                    state.reader = Reader::default();
                    state.input.clear();
                    state.items.clear();
                    state.negotiated = false;
                    !std::mem::replace(&mut state.connected, true)
                };
                if greet {
                    self.send(&json!({"QMP": {"version": answers::version(), "capabilities": ["oob"]}}));
                }
            }
            CharEvent::Closed => {
                let mut state = self.lock();
                state.connected = false;
                state.negotiated = false;
                state.input.clear();
                state.items.clear();
                self.outbox.clear();
            }
            CharEvent::MuxIn => self.outbox.hold(false),
            CharEvent::MuxOut => self.outbox.hold(true),
            CharEvent::Break => {}
        }
    }

    fn writable(&self) {
        self.outbox.flush();
        self.pump();
        self.outbox.accept_input();
    }
}
