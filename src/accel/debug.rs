//! What a debugger asks of a vCPU, and what it hears back.

/// How a breakpoint is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakpointKind {
    /// By whatever means; there is no limit to their number. An accelerator that runs the guest's own bytes patches
    /// an INT3 into memory, which the guest could see.
    Software,
    /// By a debug register or its like; memory stays as it is.
    Hardware,
}

/// Stop before an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoint {
    /// The linear address of the instruction's first byte.
    pub gva: u64,
    /// How.
    pub kind: BreakpointKind,
}

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchKind {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Both.
    Access,
}

/// Stop after an instruction that touches memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchpoint {
    /// The first linear address.
    pub gva: u64,
    /// Bytes, from 1.
    pub len: u64,
    /// Which accesses.
    pub kind: WatchKind,
}

/// Everything that a debugger wants of a vCPU. All vCPUs of a machine get the same breakpoints and watchpoints; single
/// steps are each vCPU's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GuestDebug {
    /// Stop after one instruction (or one iteration of a repeated string instruction, or the first instruction of an
    /// interrupt's handler before it executes).
    pub single_step: bool,
    /// While stepping, interrupts wait.
    pub mask_interrupts: bool,
    /// Sorted in no particular way, without duplicates.
    pub breakpoints: Vec<Breakpoint>,
    /// As [`GuestDebug::breakpoints`].
    pub watchpoints: Vec<Watchpoint>,
}

impl GuestDebug {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.single_step && self.breakpoints.is_empty() && self.watchpoints.is_empty()
    }
}

/// Why a vCPU stopped for its debugger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugStop {
    /// The single step is done.
    Step,
    /// The next instruction has a breakpoint: its linear address. A vCPU that is run again without a change stops
    /// there again at once; debuggers step over.
    Breakpoint(u64),
    /// The last instruction touched watched memory.
    Watch {
        /// The first linear address of the watchpoint.
        gva: u64,
        /// The kind of the watchpoint.
        kind: WatchKind,
    },
}

/// Why a vCPU cannot do what its debugger asks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DebugError {
    /// The accelerator has no such thing; the debugger must find another way.
    #[error("{0} are not available")]
    Unsupported(&'static str),
    /// It has, but not here or not so many.
    #[error("{0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_step_is_no_request_by_itself() {
        let mut debug = GuestDebug { mask_interrupts: true, ..GuestDebug::default() };
        assert!(debug.is_idle());
        debug.single_step = true;
        assert!(!debug.is_idle());
    }
}
