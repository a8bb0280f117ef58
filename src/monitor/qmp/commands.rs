//! QMP's commands.

use serde_json::{Value, json};

use crate::monitor::control::{
    CommandError, CommandResult, Control, DriveName, ErrorClass, IfConnected, NewMedium, ReadOnlyMode,
};
use crate::monitor::hmp::{self, Environment, HmpState};
use crate::monitor::keys;
use crate::monitor::operations::{self, Picture};
use crate::ui::{InputEvent, KeyCode, KeyEvent, MouseButton};

use super::answers;
use super::args::{Arguments, Parameter, Type, check, may, need};

/// A command.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) args: &'static [Parameter],
    pub(super) run: fn(&Environment, &Arguments) -> CommandResult<Value>,
}

/// Commands without an answer return this.
fn nothing() -> Value {
    json!({})
}

const fn query(name: &'static str, run: fn(&Environment, &Arguments) -> CommandResult<Value>) -> Command {
    Command { name, args: &[], run }
}

fn control(environment: &Environment) -> &dyn Control {
    &*environment.control
}

/// A command by name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    all().find(|command| command.name == name)
}

/// All commands.
pub(super) fn all() -> impl Iterator<Item = &'static Command> {
    QUERIES.iter().chain(ACTIONS).chain(CHARDEV_ACTIONS).chain(NETWORK_ACTIONS)
}

static QUERIES: &[Command] = &[
    query("query-status", |e, _| Ok(answers::status(control(e).run_state()))),
    query("query-name", |e, _| Ok(control(e).name().map_or_else(|| json!({}), |name| json!({"name": name})))),
    query("query-kvm", |e, _| {
        let kvm = control(e).kvm();
        Ok(json!({"enabled": kvm.enabled, "present": kvm.present}))
    }),
    query("query-version", |_, _| Ok(answers::version())),
    query("query-uuid", |e, _| Ok(json!({"UUID": uuid::Uuid::from_bytes(control(e).uuid()).hyphenated().to_string()}))),
    query("query-target", |_, _| Ok(json!({"arch": "x86_64"}))),
    query("query-cpus-fast", |e, _| Ok(answers::cpus(&control(e).cpus()))),
    query("query-hotpluggable-cpus", |e, _| Ok(answers::hotpluggable_cpus(&control(e).hotpluggable_cpus()))),
    query("query-cpu-definitions", |e, _| Ok(answers::cpu_definitions(&control(e).cpu_definitions()))),
    Command {
        name: "query-machines",
        args: &[may("compat-props", Type::Bool)],
        run: |e, _| Ok(answers::machines(&control(e).machines())),
    },
    query("query-current-machine", |e, _| {
        Ok(json!({"wakeup-suspend-support": control(e).current_machine().wakeup_suspend_support}))
    }),
    query("query-memory-size-summary", |e, _| {
        let size = control(e).memory_size();
        Ok(json!({"base-memory": size.base, "plugged-memory": size.plugged}))
    }),
    query("query-block", |e, _| Ok(answers::block(&control(e).block_devices()))),
    Command {
        name: "query-blockstats",
        args: &[may("query-nodes", Type::Bool)],
        run: |e, _| Ok(answers::block_stats(&control(e).block_stats())),
    },
    Command {
        name: "query-named-block-nodes",
        args: &[may("flat", Type::Bool)],
        run: |e, _| Ok(answers::named_nodes(&control(e).block_devices())),
    },
    query("query-block-jobs", |_, _| Ok(json!([]))),
    query("query-jobs", |_, _| Ok(json!([]))),
    query("query-iothreads", |_, _| Ok(json!([]))),
    query("query-memory-devices", |_, _| Ok(json!([]))),
    query("query-chardev", |e, _| Ok(answers::chardevs(&control(e).chardevs().list()))),
    query("query-chardev-backends", |_, _| {
        Ok(crate::chardev::BACKENDS.iter().map(|name| json!({"name": name})).collect())
    }),
    query("query-mice", |e, _| Ok(answers::mice(&control(e).mice()))),
    query("query-pci", |e, _| Ok(answers::pci(&control(e).pci_devices()))),
    query("query-vnc", |e, _| Ok(answers::vnc(&control(e).vnc_servers()))),
    query("query-vnc-servers", |e, _| Ok(answers::vnc_servers(&control(e).vnc_servers()))),
    query("query-commands", |_, _| {
        let names = all().map(|command| command.name).chain(["qmp_capabilities"]);
        Ok(names.map(|name| json!({"name": name})).collect())
    }),
];

const VNC_ONLY: Type = Type::Word(&["vnc"]);

static ACTIONS: &[Command] = &[
    query("stop", |e, _| {
        control(e).stop();
        Ok(nothing())
    }),
    query("cont", |e, _| control(e).cont().map(|()| nothing())),
    query("quit", |e, _| {
        control(e).quit();
        Ok(nothing())
    }),
    query("system_reset", |e, _| {
        control(e).system_reset();
        Ok(nothing())
    }),
    query("system_powerdown", |e, _| {
        control(e).system_powerdown();
        Ok(nothing())
    }),
    query("system_wakeup", |e, _| control(e).system_wakeup().map(|()| nothing())),
    query("inject-nmi", |e, _| control(e).nmi().map(|()| nothing())),
    Command {
        name: "human-monitor-command",
        args: &[need("command-line", Type::Text), may("cpu-index", Type::Int)],
        run: human_monitor_command,
    },
    Command { name: "send-key", args: &[need("keys", Type::Array), may("hold-time", Type::Int)], run: send_key },
    Command {
        name: "input-send-event",
        args: &[may("device", Type::Text), may("head", Type::Int), need("events", Type::Array)],
        run: input_send_event,
    },
    Command {
        name: "screendump",
        args: &[
            need("filename", Type::Text),
            may("device", Type::Text),
            may("head", Type::Int),
            may("format", Type::Word(&["ppm", "png"])),
        ],
        run: screendump,
    },
    Command {
        name: "memsave",
        args: &[
            need("val", Type::Uint),
            need("size", Type::Uint),
            need("filename", Type::Text),
            may("cpu-index", Type::Int),
        ],
        run: memsave,
    },
    Command {
        name: "pmemsave",
        args: &[need("val", Type::Uint), need("size", Type::Uint), need("filename", Type::Text)],
        run: |e, args| {
            operations::pmemsave(control(e), args.bits("val"), args.bits("size"), args.text("filename"))
                .map(|()| nothing())
        },
    },
    Command {
        name: "eject",
        args: &[may("device", Type::Text), may("id", Type::Text), may("force", Type::Bool)],
        run: |e, args| control(e).eject(drive(args)?, args.flag("force")).map(|()| nothing()),
    },
    Command {
        name: "blockdev-change-medium",
        args: &[
            may("device", Type::Text),
            may("id", Type::Text),
            need("filename", Type::Text),
            may("format", Type::Text),
            may("force", Type::Bool),
            may("read-only-mode", Type::Word(&["retain", "read-only", "read-write"])),
        ],
        run: change_medium,
    },
    Command {
        name: "set_password",
        args: &[
            need("protocol", VNC_ONLY),
            need("password", Type::Text),
            may("connected", Type::Word(&["keep", "fail", "disconnect"])),
            may("display", Type::Text),
        ],
        run: set_password,
    },
    Command {
        name: "expire_password",
        args: &[need("protocol", VNC_ONLY), need("time", Type::Text), may("display", Type::Text)],
        run: |e, args| {
            control(e).expire_vnc_password(args.optional_text("display"), args.text("time")).map(|()| nothing())
        },
    },
    Command {
        name: "change-vnc-password",
        args: &[need("password", Type::Text)],
        run: |e, args| control(e).set_vnc_password(None, args.text("password"), IfConnected::Keep).map(|()| nothing()),
    },
];

fn failed(error: crate::chardev::OpenError) -> CommandError {
    CommandError::new(error.0)
}

static CHARDEV_ACTIONS: &[Command] = &[
    Command {
        name: "chardev-remove",
        args: &[need("id", Type::Text)],
        run: |e, args| control(e).chardevs().remove(args.text("id")).map(|()| nothing()).map_err(failed),
    },
    Command {
        name: "chardev-send-break",
        args: &[need("id", Type::Text)],
        run: |e, args| control(e).chardevs().send_break(args.text("id")).map(|()| nothing()).map_err(failed),
    },
    Command {
        name: "ringbuf-write",
        args: &[need("device", Type::Text), need("data", Type::Text), may("format", Type::Word(&["utf8"]))],
        run: |e, args| {
            let data = args.text("data").as_bytes();
            control(e).chardevs().ring_buffer_write(args.text("device"), data).map_err(failed)?;
            Ok(nothing())
        },
    },
    Command {
        name: "ringbuf-read",
        args: &[need("device", Type::Text), need("size", Type::Int), may("format", Type::Word(&["utf8"]))],
        run: |e, args| {
            let size = args.optional_number("size").and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
            if size == 0 {
                return Err(CommandError::new("size must be greater than zero"));
            }
            let data = control(e).chardevs().ring_buffer_read(args.text("device"), size).map_err(failed)?;
            Ok(String::from_utf8_lossy(&data).into_owned().into())
        },
    },
];

static NETWORK_ACTIONS: &[Command] = &[
    Command {
        name: "set_link",
        args: &[need("name", Type::Text), need("up", Type::Bool)],
        run: |e, args| {
            let done = control(e).networks().set_link(args.text("name"), args.flag("up"));
            // QEMU has a class for a name that nobody has.
            done.map(|()| nothing()).map_err(|_| CommandError::device_not_found(args.text("name")))
        },
    },
    Command {
        name: "netdev_add",
        args: &[need("type", Type::Text), need("id", Type::Text), may("*", Type::Rest)],
        run: |e, args| control(e).netdev_add(&args.object().to_string()).map(|()| nothing()),
    },
    Command {
        name: "netdev_del",
        args: &[need("id", Type::Text)],
        run: |e, args| {
            let done = control(e).networks().close(args.text("id"));
            done.map(|()| nothing()).map_err(|_| CommandError::device_not_found(args.text("id")))
        },
    },
    Command {
        name: "query-rx-filter",
        args: &[may("name", Type::Text)],
        run: |e, args| {
            let filters = control(e).networks().filters(args.optional_text("name")).map_err(CommandError::new)?;
            Ok(filters.iter().map(answers::rx_filter).collect())
        },
    },
];

fn human_monitor_command(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let mut state = HmpState::default();
    if let Some(index) = args.optional_number("cpu-index") {
        state.cpu = cpu_index(environment, index)?;
    }
    let answer = hmp::execute(environment, &mut state, &[], args.text("command-line"), false);
    Ok(answer.text.replace('\n', "\r\n").into())
}

fn cpu_index(environment: &Environment, index: i64) -> CommandResult<u32> {
    let known = control(environment).cpus().into_iter().map(|cpu| cpu.index).find(|i| i64::from(*i) == index);
    known.ok_or_else(|| CommandError::new("Parameter 'cpu-index' expects a CPU number"))
}

fn memsave(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let cpu = cpu_index(environment, args.optional_number("cpu-index").unwrap_or(0))?;
    let (start, size) = (args.bits("val"), args.bits("size"));
    operations::memsave(control(environment), cpu, start, size, args.text("filename"))?;
    Ok(nothing())
}

fn screendump(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let format = if args.optional_text("format") == Some("png") { Picture::Png } else { Picture::Ppm };
    let head = args.optional_number("head").map(i64::cast_unsigned);
    let device = args.optional_text("device");
    operations::screendump(control(environment), args.text("filename"), format, device, head)?;
    Ok(nothing())
}

fn drive(args: &Arguments) -> CommandResult<DriveName<'_>> {
    match (args.optional_text("device"), args.optional_text("id")) {
        (Some(device), None) => Ok(DriveName::Device(device)),
        (None, Some(id)) => Ok(DriveName::Id(id)),
        _ => Err(CommandError::new("Need exactly one of 'device' and 'id'")),
    }
}

fn change_medium(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let read_only = match args.optional_text("read-only-mode") {
        Some("read-only") => ReadOnlyMode::ReadOnly,
        Some("read-write") => ReadOnlyMode::ReadWrite,
        _ => ReadOnlyMode::Retain,
    };
    let medium = NewMedium {
        filename: args.text("filename"),
        format: args.optional_text("format"),
        read_only,
        force: args.flag("force"),
    };
    control(environment).change_medium(drive(args)?, medium)?;
    Ok(nothing())
}

fn set_password(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let connected = match args.optional_text("connected") {
        Some("fail") => IfConnected::Fail,
        Some("disconnect") => IfConnected::Disconnect,
        _ => IfConnected::Keep,
    };
    control(environment).set_vnc_password(args.optional_text("display"), args.text("password"), connected)?;
    Ok(nothing())
}

// -- input -----------------------------------------------------------------------------------------------------------

/// A member of an argument, with its place for messages.
fn member<'a>(value: &'a Value, place: &str, name: &str, kind: Type) -> CommandResult<&'a Value> {
    let place = format!("{place}.{name}");
    let member = value.get(name).ok_or_else(|| CommandError::new(format!("Parameter '{place}' is missing")))?;
    // QEMU names wrong words by the member alone, and wrong types by the place.
    let shown = if matches!(kind, Type::Word(_)) && member.is_string() { name } else { &place };
    check(shown, kind, member)?;
    Ok(member)
}

/// A KeyValue: {"type": "qcode" or "number", "data": …}.
fn key(value: &Value, place: &str) -> CommandResult<KeyCode> {
    check(place, Type::Object, value)?;
    match member(value, place, "type", Type::Word(&["number", "qcode"]))?.as_str() {
        Some("number") => {
            let number = member(value, place, "data", Type::Int)?.as_i64().unwrap_or(0);
            Ok(KeyCode(u8::try_from(number & 0xff).unwrap_or(0)))
        }
        _ => {
            let name = member(value, place, "data", Type::Text)?.as_str().unwrap_or("");
            keys::by_name(name)
                .ok_or_else(|| CommandError::new(format!("Parameter 'data' does not accept value '{name}'")))
        }
    }
}

fn list<'a>(args: &'a Arguments, name: &str) -> &'a [Value] {
    args.value(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn send_key(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let keys: Vec<KeyCode> = list(args, "keys")
        .iter()
        .enumerate()
        .map(|(index, value)| key(value, &format!("keys[{index}]")))
        .collect::<CommandResult<_>>()?;
    let hold = args.optional_number("hold-time").and_then(|ms| u64::try_from(ms).ok());
    environment.keys.press(&keys, hold);
    Ok(nothing())
}

fn button(name: &str) -> Option<MouseButton> {
    Some(match name {
        "left" => MouseButton::Left,
        "middle" => MouseButton::Middle,
        "right" => MouseButton::Right,
        "wheel-up" => MouseButton::WheelUp,
        "wheel-down" => MouseButton::WheelDown,
        "wheel-left" => MouseButton::WheelLeft,
        "wheel-right" => MouseButton::WheelRight,
        "side" => MouseButton::Side,
        "extra" => MouseButton::Extra,
        _ => return None,
    })
}

const BUTTONS: Type =
    Type::Word(&["left", "middle", "right", "wheel-up", "wheel-down", "wheel-left", "wheel-right", "side", "extra"]);

/// The absolute position, of which events tell one axis at a time.
#[derive(Default)]
struct Pointer {
    x: Option<u16>,
    y: Option<u16>,
}

fn input_event(value: &Value, place: &str, pointer: &mut Pointer) -> CommandResult<Option<InputEvent>> {
    check(place, Type::Object, value)?;
    let kind = member(value, place, "type", Type::Word(&["key", "btn", "rel", "abs", "mtt"]))?;
    let data_place = format!("{place}.data");
    let data = member(value, place, "data", Type::Object)?;
    let flag = |name| Ok::<_, CommandError>(member(data, &data_place, name, Type::Bool)?.as_bool().unwrap_or(false));
    match kind.as_str() {
        Some("key") => {
            let down = flag("down")?;
            let code = key(member(data, &data_place, "key", Type::Object)?, &format!("{data_place}.key"))?;
            Ok(Some(InputEvent::Key(KeyEvent { code: Some(code), keysym: 0, down })))
        }
        Some("btn") => {
            let down = flag("down")?;
            let name = member(data, &data_place, "button", BUTTONS)?.as_str().unwrap_or("");
            Ok(button(name).map(|button| InputEvent::Button { button, down }))
        }
        Some(kind @ ("rel" | "abs")) => {
            let x_axis = member(data, &data_place, "axis", Type::Word(&["x", "y"]))?.as_str() == Some("x");
            let value = member(data, &data_place, "value", Type::Int)?.as_i64().unwrap_or(0);
            if kind == "rel" {
                let by = i32::try_from(value).unwrap_or(0);
                return Ok(Some(if x_axis {
                    InputEvent::MoveBy { dx: by, dy: 0 }
                } else {
                    InputEvent::MoveBy { dx: 0, dy: by }
                }));
            }
            let at = u16::try_from(value.clamp(0, 0x7fff)).unwrap_or(0);
            *(if x_axis { &mut pointer.x } else { &mut pointer.y }) = Some(at);
            Ok(None)
        }
        _ => Err(CommandError::new("multi-touch input is not supported by this version")),
    }
}

fn input_send_event(environment: &Environment, args: &Arguments) -> CommandResult<Value> {
    let control = control(environment);
    if let Some(device) = args.optional_text("device") {
        let known = control.display().is_some_and(|display| display.console_names().iter().any(|n| n == device));
        if !known {
            return Err(CommandError::device_not_found(device));
        }
    }
    let mut pointer = Pointer::default();
    let mut events = Vec::new();
    for (index, value) in list(args, "events").iter().enumerate() {
        events.extend(input_event(value, &format!("events[{index}]"), &mut pointer)?);
    }
    if !control.run_state().is_running() {
        return Err(CommandError { class: ErrorClass::GenericError, text: "VM not running".to_owned() });
    }
    // A position stands before the buttons that are pressed there.
    if pointer.x.is_some() || pointer.y.is_some() {
        let (x, y) = (pointer.x.unwrap_or(0), pointer.y.unwrap_or(0));
        control.input(InputEvent::MoveTo { x, y });
    }
    for event in events {
        control.input(event);
    }
    Ok(nothing())
}
