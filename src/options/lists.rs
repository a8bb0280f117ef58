//! The key tables of the options that take flat lists.

use crate::keyval::{Key, Kind, List};

const fn text(name: &'static str) -> Key {
    Key { name, kind: Kind::Text }
}

const fn switch(name: &'static str) -> Key {
    Key { name, kind: Kind::Switch }
}

const fn number(name: &'static str) -> Key {
    Key { name, kind: Kind::Number }
}

const fn size(name: &'static str) -> Key {
    Key { name, kind: Kind::Size }
}

const fn list(name: &'static str, implied: Option<&'static str>, keys: &'static [Key]) -> List {
    List { name, implied, keys, merge: false }
}

const fn merged(name: &'static str, implied: Option<&'static str>, keys: &'static [Key]) -> List {
    List { name, implied, keys, merge: true }
}

/// `-drive`: any key; the block drivers say which.
pub(super) const DRIVE: List = list("drive", None, &[]);

/// `-m`.
pub(super) const MEMORY: List = merged("memory", Some("size"), &[size("size"), number("slots"), size("maxmem")]);

/// `-icount`.
pub(super) const ICOUNT: List = merged(
    "icount",
    Some("shift"),
    &[text("shift"), switch("align"), switch("sleep"), text("rr"), text("rrfile"), text("rrsnapshot")],
);

/// `-name`.
pub(super) const NAME: List = merged("name", Some("guest"), &[text("guest"), text("process"), switch("debug-threads")]);

/// `-rtc`.
pub(super) const RTC: List = merged("rtc", None, &[text("base"), text("clock"), text("driftfix")]);

/// `-msg`.
pub(super) const MSG: List = merged("msg", None, &[switch("timestamp"), switch("guest-name")]);

/// `-action`.
pub(super) const ACTION: List =
    merged("action", None, &[text("reboot"), text("shutdown"), text("panic"), text("watchdog")]);

/// `-overcommit`.
pub(super) const OVERCOMMIT: List = merged("overcommit", None, &[text("mem-lock"), switch("cpu-pm")]);

/// `-trace`.
pub(super) const TRACE: List = list("trace", Some("enable"), &[text("enable"), text("events"), text("file")]);

/// `-run-with`.
pub(super) const RUN_WITH: List = merged("run-with", None, &[switch("async-teardown"), text("chroot"), text("user")]);

/// `-sandbox`.
pub(super) const SANDBOX: List = list(
    "sandbox",
    Some("enable"),
    &[switch("enable"), text("obsolete"), text("elevateprivileges"), text("spawn"), text("resourcecontrol")],
);

/// `-global driver=,property=,value=`.
pub(super) const GLOBAL: List = list("global", None, &[text("driver"), text("property"), text("value")]);

/// `-fw_cfg`.
pub(super) const FW_CFG: List =
    list("fw_cfg", Some("name"), &[text("name"), text("file"), text("string"), text("gen_id")]);

/// `-acpitable`.
pub(super) const ACPI: List = list(
    "acpi",
    Some("data"),
    &[
        text("sig"),
        text("rev"),
        text("oem_id"),
        text("oem_table_id"),
        text("oem_rev"),
        text("asl_compiler_id"),
        text("asl_compiler_rev"),
        text("data"),
        text("file"),
    ],
);

/// `-mon`.
pub(super) const MON: List = list("mon", Some("chardev"), &[text("mode"), text("chardev"), switch("pretty")]);

/// `-vnc`.
pub(super) const VNC: List = list(
    "vnc",
    Some("vnc"),
    &[
        text("vnc"),
        text("websocket"),
        text("tls-creds"),
        text("share"),
        text("display"),
        number("head"),
        number("connections"),
        number("to"),
        switch("ipv4"),
        switch("ipv6"),
        switch("password"),
        text("password-secret"),
        switch("reverse"),
        switch("lock-key-sync"),
        number("key-delay-ms"),
        switch("sasl"),
        text("tls-authz"),
        text("sasl-authz"),
        switch("lossy"),
        switch("non-adaptive"),
        text("audiodev"),
        switch("power-control"),
    ],
);

/// `-chardev`: every key of every back end.
pub(super) const CHARDEV: List = list(
    "chardev",
    Some("backend"),
    &[
        text("backend"),
        text("path"),
        text("input-path"),
        text("host"),
        text("port"),
        text("fd"),
        number("to"),
        switch("ipv4"),
        switch("ipv6"),
        text("localaddr"),
        text("localport"),
        switch("wait"),
        switch("server"),
        switch("delay"),
        switch("nodelay"),
        number("reconnect"),
        number("reconnect-ms"),
        switch("telnet"),
        switch("tn3270"),
        text("tls-creds"),
        text("tls-authz"),
        switch("websocket"),
        number("width"),
        number("height"),
        number("cols"),
        number("rows"),
        switch("mux"),
        switch("signal"),
        text("name"),
        number("debug"),
        size("size"),
        text("chardev"),
        switch("append"),
        text("logfile"),
        switch("logappend"),
        switch("mouse"),
        switch("clipboard"),
        switch("abstract"),
        switch("tight"),
    ],
);
