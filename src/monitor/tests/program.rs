//! QMP.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Bench, Mode};
use crate::machine::{Cause, MachineEvent};

const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \
                        \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n";

fn fresh() -> Bench {
    let bench = Bench::new(Mode::Control { pretty: false });
    assert_eq!(bench.seen(), GREETING);
    bench
}

fn bench() -> Bench {
    let bench = fresh();
    assert_eq!(bench.send("{\"execute\": \"qmp_capabilities\"}"), "{\"return\": {}}\r\n");
    bench
}

fn ask(bench: &Bench, request: &Value) -> Value {
    serde_json::from_str(&bench.send(&request.to_string())).unwrap()
}

/// The text of the error that a request ends with.
fn refused(bench: &Bench, request: &str) -> String {
    let reply: Value = serde_json::from_str(&bench.send(request)).unwrap();
    assert_eq!(reply["error"]["class"], "GenericError", "{request}");
    reply["error"]["desc"].as_str().unwrap().to_owned()
}

#[test]
fn capabilities_come_first_and_once() {
    let bench = fresh();
    let class = "\"class\": \"CommandNotFound\"";
    assert_eq!(
        bench.send("{\"execute\": \"query-status\"}"),
        format!(
            "{{\"error\": {{{class}, \"desc\": \"Expecting capabilities negotiation with 'qmp_capabilities'\"}}}}\r\n"
        )
    );
    assert_eq!(
        refused(&bench, r#"{"execute":"qmp_capabilities","arguments":{"enable":["foo"]}}"#),
        "Parameter 'null' does not accept value 'foo'"
    );
    assert_eq!(bench.send(r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#), "{\"return\": {}}\r\n");
    assert_eq!(
        bench.send(r#"{"execute":"qmp_capabilities"}"#),
        format!(
            "{{\"error\": {{{class}, \"desc\": \"Capabilities negotiation is already complete, command ignored\"}}}}\r\n"
        )
    );
    assert_eq!(refused(&bench, r#"{"exec-oob":"query-status"}"#), "The command query-status does not support OOB");
}

#[test]
fn the_id_comes_back() {
    let bench = bench();
    assert_eq!(
        bench.send(r#"{"execute":"query-status","id":"a"}"#),
        "{\"return\": {\"status\": \"prelaunch\", \"running\": false}, \"id\": \"a\"}\r\n"
    );
    assert_eq!(
        bench.send(r#"{"execute":"foo","id":{"x":[1]}}"#),
        "{\"id\": {\"x\": [1]}, \"error\": {\"class\": \"CommandNotFound\", \
         \"desc\": \"The command foo has not been found\"}}\r\n"
    );
}

#[test]
fn malformed_input_is_refused_with_qemus_words() {
    let bench = bench();
    assert_eq!(refused(&bench, "{}"), "QMP input lacks member 'execute'");
    assert_eq!(refused(&bench, "[]"), "QMP input must be a JSON object");
    assert_eq!(refused(&bench, "1\n"), "QMP input must be a JSON object");
    assert_eq!(refused(&bench, "{\"execute\":1}"), "QMP input member 'execute' must be a string");
    assert_eq!(
        refused(&bench, "{\"execute\":\"stop\",\"arguments\":1}"),
        "QMP input member 'arguments' must be an object"
    );
    assert_eq!(refused(&bench, "{\"execute\":\"stop\",\"foo\":1}"), "QMP input member 'foo' is unexpected");
    assert_eq!(refused(&bench, "{\"exec-oob\":\"stop\"}"), "QMP input member 'exec-oob' is unexpected");
    assert_eq!(refused(&bench, "{\"a\":x}"), "JSON parse error, invalid keyword 'x'");
    assert_eq!(refused(&bench, "}"), "JSON parse error, expecting value");
    assert_eq!(refused(&bench, "{\"a\" 1}"), "JSON parse error, missing : in object pair");
    assert_eq!(refused(&bench, "@"), "JSON parse error, stray '@'");
    assert_eq!(bench.send("\n{'execute': 'query-name'}"), "{\"return\": {\"name\": \"test\"}}\r\n");
}

#[test]
fn arguments_are_checked_before_a_command_runs() {
    let bench = bench();
    let with =
        |name: &str, arguments: Value| refused(&bench, &json!({"execute": name, "arguments": arguments}).to_string());
    assert_eq!(with("stop", json!({"x": 1})), "Parameter 'x' is unexpected");
    assert_eq!(with("screendump", json!({})), "Parameter 'filename' is missing");
    assert_eq!(with("screendump", json!({"filename": 1})), "Invalid parameter type for 'filename', expected: string");
    assert_eq!(
        with("screendump", json!({"filename": "x", "head": 1})),
        "'head' must be specified together with 'device'"
    );
    assert_eq!(
        with("send-key", json!({"keys": [{"type": "qcode", "data": "foo"}]})),
        "Parameter 'data' does not accept value 'foo'"
    );
    assert_eq!(with("send-key", json!({"keys": [{"type": "qcode"}]})), "Parameter 'keys[0].data' is missing");
    assert_eq!(
        with("send-key", json!({"keys": [{"type": "number", "data": "s"}]})),
        "Invalid parameter type for 'keys[0].data', expected: integer"
    );
    assert_eq!(with("eject", json!({})), "Need exactly one of 'device' and 'id'");
    assert_eq!(with("eject", json!({"id": "x", "device": "y"})), "Need exactly one of 'device' and 'id'");
    assert_eq!(
        with("set_password", json!({"protocol": "foo", "password": "x"})),
        "Parameter 'protocol' does not accept value 'foo'"
    );
    assert_eq!(
        with("memsave", json!({"val": 0, "size": 4, "filename": "/x", "cpu-index": 9})),
        "Parameter 'cpu-index' expects a CPU number"
    );
    assert_eq!(
        with("input-send-event", json!({"events": [{"type": "foo"}]})),
        "Parameter 'type' does not accept value 'foo'"
    );
    assert_eq!(with("ringbuf-read", json!({"device": "mon", "size": 0})), "size must be greater than zero");
    assert_eq!(bench.calls(), Vec::<String>::new());
}

#[test]
fn queries_have_qemus_shape() {
    let bench = bench();
    let query = |name: &str| ask(&bench, &json!({"execute": name}))["return"].clone();
    assert_eq!(query("query-kvm"), json!({"enabled": true, "present": true}));
    assert_eq!(query("query-uuid"), json!({"UUID": "ab000000-0000-0000-0000-000000000000"}));
    assert_eq!(query("query-vnc"), json!({"enabled": false}));
    assert_eq!(query("query-chardev"), json!([{"frontend-open": true, "filename": "vc", "label": "mon"}]));
    assert_eq!(
        query("query-cpus-fast")[1],
        json!({
            "thread-id": 101,
            "props": {"core-id": 0, "thread-id": 0, "socket-id": 0},
            "qom-path": "/machine/unattached/device[2]",
            "cpu-index": 1,
            "target": "x86_64",
        })
    );
    let block = query("query-block");
    assert_eq!(block[0]["inserted"]["node-name"], "#block129");
    assert_eq!(block[0]["inserted"]["image"]["filename"], "d.qcow2");
    assert_eq!(
        block[1],
        json!({
            "io-status": "ok",
            "device": "ide1-cd0",
            "locked": false,
            "removable": true,
            "qdev": "/machine/unattached/device[7]",
            "tray_open": false,
            "type": "unknown",
        })
    );
    let names = query("query-commands");
    assert!(names.as_array().unwrap().contains(&json!({"name": "query-commands"})));
}

#[test]
fn commands_reach_the_machine() {
    let bench = bench();
    for request in [
        json!({"execute": "cont"}),
        json!({"execute": "input-send-event", "arguments": {"events": [
            {"type": "key", "data": {"down": true, "key": {"type": "qcode", "data": "a"}}},
            {"type": "rel", "data": {"axis": "y", "value": -3}},
            {"type": "abs", "data": {"axis": "x", "value": 40000}},
            {"type": "btn", "data": {"down": true, "button": "left"}},
        ]}}),
        json!({"execute": "stop"}),
        json!({"execute": "system_reset"}),
        json!({"execute": "inject-nmi"}),
        json!({"execute": "eject", "arguments": {"device": "ide1-cd0"}}),
        json!({"execute": "blockdev-change-medium",
            "arguments": {"id": "cd", "filename": "b.iso", "read-only-mode": "read-only"}}),
        json!({"execute": "change-vnc-password", "arguments": {"password": "x"}}),
        json!({"execute": "quit"}),
    ] {
        assert_eq!(ask(&bench, &request), json!({"return": {}}), "{request}");
    }
    assert_eq!(
        bench.calls(),
        [
            "cont",
            "MoveTo { x: 32767, y: 0 }",
            "key 0x1e down",
            "MoveBy { dx: 0, dy: -3 }",
            "Button { button: Left, down: true }",
            "stop",
            "reset",
            "nmi",
            "eject false",
            "change cd b.iso None true",
            "password x",
            "quit",
        ]
    );
    let event = json!({"execute": "input-send-event", "arguments": {"events": []}});
    assert_eq!(refused(&bench, &event.to_string()), "VM not running");
}

#[test]
fn a_human_command_answers_with_text() {
    let bench = bench();
    let run = |line: &str| {
        ask(&bench, &json!({"execute": "human-monitor-command", "arguments": {"command-line": line}}))["return"].clone()
    };
    assert_eq!(run("foo"), "unknown command: 'foo'\r\n");
    assert_eq!(run("info name"), "test\r\n");
    assert_eq!(run("change vnc password"), "Error: Parameter 'arg' is missing\r\n");
}

#[test]
fn events_have_time_stamps_and_go_to_negotiated_sessions_only() {
    let bench = fresh();
    bench.monitors.machine_event(&MachineEvent::Stop);
    assert_eq!(bench.seen(), "");
    bench.send("{\"execute\": \"qmp_capabilities\"}");
    bench.monitors.machine_event(&MachineEvent::Reset(Cause::HostQmpSystemReset));
    let event: Value = serde_json::from_str(&bench.seen()).unwrap();
    assert_eq!(event["event"], "RESET");
    assert_eq!(event["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
    assert!(event["timestamp"]["seconds"].as_u64().unwrap() > 1_600_000_000);
    assert!(event["timestamp"]["microseconds"].as_u64().unwrap() < 1_000_000);
    bench.monitors.machine_event(&MachineEvent::Resume);
    assert!(!bench.seen().contains("data"));
}

#[test]
fn frequent_events_are_told_once_a_second() {
    let bench = bench();
    for offset in 0..10 {
        bench.monitors.event("RTC_CHANGE", Some(json!({"offset": offset})));
    }
    assert_eq!(bench.seen().matches("RTC_CHANGE").count(), 1);
}

#[test]
fn a_program_that_does_not_read_loses_events_and_costs_bounded_memory() {
    let bench = bench();
    bench.terminal.room.store(0, Ordering::Relaxed);
    for _ in 0..100_000 {
        bench.monitors.event("STOP", Some(json!({"filler": "x".repeat(100)})));
    }
    bench.request.input.push("{\"execute\":\"query-status\"}".repeat(100).as_bytes());
    bench.turn();
    assert_eq!(bench.seen(), "");
}

#[test]
fn pretty_output_has_lines() {
    let bench = Bench::new(Mode::Control { pretty: true });
    assert!(bench.seen().starts_with("{\n    \"QMP\": {\n        \"version\": {"));
}

#[test]
fn any_bytes_are_answered_with_errors() {
    let bench = bench();
    let valid = r#"{"execute":"query-block","id":[1,{"a":"\u00e9"}],"arguments":{}}"#;
    for cut in 0..valid.len() {
        let mut text = valid.as_bytes()[..cut].to_vec();
        text.extend(b"\x01}]\x01");
        bench.request.input.push(&text);
        bench.turn();
        bench.seen();
    }
    assert_eq!(bench.send("\n{\"execute\":\"query-name\"}").lines().count(), 1);
}
