//! Where the `log` crate's records go: `-d` items, `-trace` points, warnings.
//!
//! The target of a record says what it is:
//! - an item of [`ITEMS`] (`log::debug!(target: "guest_errors", "ide: bad command {c:#x}")`) is written when `-d` asks
//!   for it;
//! - any other target with level `debug` or `trace` is a trace point, by QEMU's names where QEMU has one
//!   (`log::trace!(target: "ide_exec_cmd", …)`), written when a `-trace` pattern matches its target; [`POINTS`] lists
//!   them for `-trace help`, and a test compares it with the sources;
//! - levels `error`, `warn` and `info` are messages of the program and always go to standard error.
//!
//! With nothing asked for, `log`'s own level check is the one branch that a trace point costs.

mod clock;
mod pattern;
mod points;
mod sink;

pub use clock::timestamp;
pub use pattern::glob;
pub use points::POINTS;
pub use sink::{Settings, TraceError, install, items, set_file, set_items, set_pattern};

/// One item of `-d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// Its name, and the target of its records.
    pub name: &'static str,
    /// What the help says of it.
    pub about: &'static str,
    /// Whether anything in this version writes it.
    pub implemented: bool,
}

const fn item_of(name: &'static str, about: &'static str, implemented: bool) -> Item {
    Item { name, about, implemented }
}

/// The items of `-d`; those that nothing writes are refused by name.
pub const ITEMS: &[Item] = &[
    item_of("out_asm", "host code of each translated block", false),
    item_of("in_asm", "guest code of each translated block", false),
    item_of("op", "intermediate code of each translated block", false),
    item_of("op_opt", "intermediate code after optimisation", false),
    item_of("op_ind", "intermediate code before indirect lowering", false),
    item_of("op_plugin", "intermediate code before plugins", false),
    item_of("int", "interrupts and exceptions", false),
    item_of("exec", "each translated block as it starts", false),
    item_of("cpu", "registers before each translated block", false),
    item_of("fpu", "floating-point registers along with 'cpu'", false),
    item_of("mmu", "the memory management unit", false),
    item_of("pcall", "far calls, returns and exceptions of protected mode", false),
    item_of("cpu_reset", "registers before a processor is reset", false),
    item_of("unimp", "what the guest uses and no chip here has", true),
    item_of("guest_errors", "what the guest does wrong", true),
    item_of("page", "the page table of user-mode emulation", false),
    item_of("nochain", "no chains of translated blocks", false),
    item_of("plugin", "output of plugins", false),
    item_of("strace", "system calls of user-mode emulation", false),
    item_of("tid", "a log file for each thread", false),
    item_of("vpu", "vector registers along with 'cpu'", false),
    item_of("invalid_mem", "accesses to memory that is not there", true),
];

/// An item by name.
pub fn item(name: &str) -> Option<&'static Item> {
    ITEMS.iter().find(|item| item.name == name)
}

/// `-d help`.
pub fn items_help() -> String {
    let mut out = String::from("Log items (comma separated):\n");
    for item in ITEMS.iter().filter(|item| item.implemented) {
        out.push_str(&format!("{:<15} {}\n", item.name, item.about));
    }
    out.push_str("trace:PATTERN   trace points\n\nUse \"-d trace:help\" to get a list of trace events.\n\n");
    out
}
