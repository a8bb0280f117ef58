//! Where the `log` crate's records go: `-d` items, `-trace` points, warnings.
//!
//! The target of a record says what it is:
//! - an item of [`ITEMS`] (`log::debug!(target: "guest_errors", "ide: bad command {c:#x}")`) is written when `-d` asks
//!   for it;
//!   Code for which even making the record is too much (the software CPU) asks [`item_enabled`], one relaxed load, and
//!   [`in_filter`], and writes whole texts with [`print`]. Items of the software CPU give nothing under KVM, as in QEMU.
//! - any other target with level `debug` or `trace` is a trace point, by QEMU's names where QEMU has one
//!   (`log::trace!(target: "ide_exec_cmd", …)`), written when a `-trace` pattern matches its target; [`POINTS`] lists
//!   them for `-trace help`, and a test compares it with the sources;
//! - levels `error`, `warn` and `info` are messages of the program and always go to standard error.
//!
//! With nothing asked for, `log`'s own level check is the one branch that a trace point costs.

mod clock;
mod filter;
mod pattern;
mod points;
mod sink;

pub use clock::timestamp;
pub use filter::{in_filter, parse_filter};
pub use pattern::glob;
pub use points::POINTS;
pub use sink::{Settings, TraceError, install, item_enabled, items, print, set_file, set_items, set_pattern};

/// An item of `-d`, for code that asks before it makes its text: see [`item_enabled`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// Host code.
    OutAsm,
    /// Guest code.
    InAsm,
    /// Intermediate code.
    Op,
    /// The same, optimised.
    OpOpt,
    /// The same, before indirect lowering.
    OpInd,
    /// The same, before plugins.
    OpPlugin,
    /// Interrupts and exceptions.
    Int,
    /// Blocks of code as they start.
    Exec,
    /// Registers before each block.
    Cpu,
    /// Floating-point registers along with them.
    Fpu,
    /// Page walks.
    Mmu,
    /// Far control transfers of protected mode.
    Pcall,
    /// Registers before a reset.
    CpuReset,
    /// What is not modelled.
    Unimp,
    /// What the guest does wrong.
    GuestErrors,
    /// User-mode emulation's page table.
    Page,
    /// Every block returns to the dispatcher.
    NoChain,
    /// Plugins.
    Plugin,
    /// User-mode emulation's system calls.
    Strace,
    /// A file for each thread.
    Tid,
    /// Vector registers along with `cpu`.
    Vpu,
    /// Memory that is not there.
    InvalidMem,
}

/// What the command line knows of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemInfo {
    /// The item.
    pub item: Item,
    /// Its name, and the target of its records.
    pub name: &'static str,
    /// What the help says of it.
    pub about: &'static str,
    /// Whether anything in this version writes it.
    pub implemented: bool,
}

const fn item_of(item: Item, name: &'static str, about: &'static str, implemented: bool) -> ItemInfo {
    ItemInfo { item, name, about, implemented }
}

/// The items of `-d`; those that nothing writes are refused by name.
pub const ITEMS: &[ItemInfo] = &[
    item_of(Item::OutAsm, "out_asm", "host code of each translated block", false),
    item_of(Item::InAsm, "in_asm", "guest code of each translated block", true),
    item_of(Item::Op, "op", "intermediate code of each translated block", false),
    item_of(Item::OpOpt, "op_opt", "intermediate code after optimisation", false),
    item_of(Item::OpInd, "op_ind", "intermediate code before indirect lowering", false),
    item_of(Item::OpPlugin, "op_plugin", "intermediate code before plugins", false),
    item_of(Item::Int, "int", "interrupts and exceptions", true),
    item_of(Item::Exec, "exec", "each translated block as it starts", true),
    item_of(Item::Cpu, "cpu", "registers before each translated block", true),
    item_of(Item::Fpu, "fpu", "floating-point registers along with 'cpu'", true),
    item_of(Item::Mmu, "mmu", "the memory management unit", true),
    item_of(Item::Pcall, "pcall", "far calls, returns and exceptions of protected mode", true),
    item_of(Item::CpuReset, "cpu_reset", "registers before a processor is reset", true),
    item_of(Item::Unimp, "unimp", "what the guest uses and no chip here has", true),
    item_of(Item::GuestErrors, "guest_errors", "what the guest does wrong", true),
    item_of(Item::Page, "page", "the page table of user-mode emulation", false),
    item_of(Item::NoChain, "nochain", "no chains of translated blocks", true),
    item_of(Item::Plugin, "plugin", "output of plugins", false),
    item_of(Item::Strace, "strace", "system calls of user-mode emulation", false),
    item_of(Item::Tid, "tid", "a log file for each thread", false),
    item_of(Item::Vpu, "vpu", "vector registers along with 'cpu'", false),
    item_of(Item::InvalidMem, "invalid_mem", "accesses to memory that is not there", true),
];

/// An item by name.
pub fn item(name: &str) -> Option<&'static ItemInfo> {
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
