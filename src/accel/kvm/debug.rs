//! Debugging a guest: single steps and debug registers by KVM_SET_GUEST_DEBUG, software breakpoints by INT3 in guest
//! memory (Linux, `Documentation/virt/kvm/api.rst` 4.87; Intel SDM volume 3 section 18.2).

use std::collections::BTreeMap;
use std::io;

use kvm_bindings::{
    KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP,
    KVM_GUESTDBG_INJECT_DB, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP,
    kvm_debug_exit_arch, kvm_guest_debug, kvm_guest_debug_arch,
};
use kvm_ioctls::VmFd;

use crate::accel::{AccelError, BreakpointKind, DebugError, DebugStop, GuestDebug, Vcpu, WatchKind};

use super::vcpu::KvmVcpu;
use super::{Vm, host_error};

/// The instruction of a software breakpoint.
const INT3: u8 = 0xcc;

/// Exception vectors.
const DB: u32 = 1;
const BP: u32 = 3;

/// DR6: a single step.
const DR6_BS: u64 = 1 << 14;
/// DR7: breakpoints are exact (the processors that look at it want it set).
const DR7_GE: u64 = 1 << 9;
/// DR7: always one.
const DR7_FIXED: u64 = 1 << 10;

/// INT3 in guest memory: by linear address, where it went and what was there.
#[derive(Debug, Default)]
pub(super) struct Patches(BTreeMap<u64, Patch>);

#[derive(Debug)]
struct Patch {
    gpa: u64,
    original: u8,
}

impl Vm {
    /// Puts back what was at the breakpoints that nobody wants any more.
    fn remove_patches(&self, wanted: impl Fn(u64) -> bool) {
        let mut patches = self.patches();
        let gone: Vec<u64> = patches.0.keys().copied().filter(|gva| !wanted(*gva)).collect();
        for patch in gone.iter().filter_map(|gva| patches.0.remove(gva)) {
            let mut now = [0];
            // The guest, a reset or another debugger may have put something else there.
            if self.read_memory(patch.gpa, &mut now) == 1 && now[0] == INT3 {
                self.slots().write(patch.gpa, &[patch.original]);
            }
        }
    }
}

/// What a vCPU's debugger wants, and how the kernel was told.
#[derive(Debug, Default)]
pub(super) struct Debugging {
    single_step: bool,
    slots: Vec<Slot>,
    request: kvm_guest_debug,
}

/// What one of the four debug registers is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Execute { gva: u64 },
    Watch { first: u64, gva: u64, len: u64, kind: WatchKind },
}

impl Slot {
    /// R/W and LEN (SDM volume 3 section 18.2.4).
    fn control(self) -> u64 {
        match self {
            Self::Execute { .. } => 0,
            Self::Watch { len, kind, .. } => {
                let access = if kind == WatchKind::Write { 1 } else { 3 };
                let len = match len {
                    1 => 0,
                    2 => 1,
                    8 => 2,
                    _ => 3,
                };
                access | len << 2
            }
        }
    }

    fn address(self) -> u64 {
        match self {
            Self::Execute { gva } | Self::Watch { gva, .. } => gva,
        }
    }

    fn stop(self) -> DebugStop {
        match self {
            Self::Execute { gva } => DebugStop::Breakpoint(gva),
            Self::Watch { first, kind, .. } => DebugStop::Watch { gva: first, kind },
        }
    }
}

/// The largest aligned piece at the start of a range that one debug register covers.
fn piece(gva: u64, len: u64) -> u64 {
    [8, 4, 2].into_iter().find(|size| gva.is_multiple_of(*size) && *size <= len).unwrap_or(1)
}

/// What goes into the debug registers.
fn slots(debug: &GuestDebug) -> Result<Vec<Slot>, DebugError> {
    let hardware = debug.breakpoints.iter().filter(|b| b.kind == BreakpointKind::Hardware);
    let mut slots: Vec<Slot> = hardware.map(|b| Slot::Execute { gva: b.gva }).collect();
    for watch in &debug.watchpoints {
        if watch.kind == WatchKind::Read {
            return Err(DebugError::Unsupported("watchpoints for reads alone"));
        }
        if watch.len == 0 {
            return Err(DebugError::Refused("a watchpoint has at least one byte".to_owned()));
        }
        let (mut gva, mut left) = (watch.gva, watch.len);
        // Without the limit a long range would be cut into pieces for ever.
        while left > 0 && slots.len() <= 4 {
            let len = piece(gva, left);
            slots.push(Slot::Watch { first: watch.gva, gva, len, kind: watch.kind });
            gva = gva.wrapping_add(len);
            left -= len;
        }
    }
    if slots.len() > 4 {
        return Err(DebugError::Refused("the processor has four debug registers".to_owned()));
    }
    Ok(slots)
}

/// DR0-DR3 and DR7.
fn debug_registers(slots: &[Slot]) -> kvm_guest_debug_arch {
    let mut arch = kvm_guest_debug_arch::default();
    arch.debugreg[7] = DR7_FIXED;
    for (number, slot) in slots.iter().enumerate().take(4) {
        arch.debugreg[number] = slot.address();
        arch.debugreg[7] |= DR7_GE | 2 << (2 * number) | slot.control() << (16 + 4 * number);
    }
    arch
}

/// Whether single steps can keep interrupts back (Linux 5.15).
pub(super) fn can_block_interrupts(vm: &VmFd) -> bool {
    let flags = vm.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into());
    flags > 0 && flags.cast_unsigned() & KVM_GUESTDBG_BLOCKIRQ != 0
}

impl KvmVcpu {
    /// See [`Vcpu::set_debug`].
    pub(super) fn apply_debug(&mut self, debug: &GuestDebug) -> Result<(), DebugError> {
        let slots = slots(debug)?;
        self.patch_memory(debug)?;
        let mut control = 0;
        if debug.single_step {
            control |= KVM_GUESTDBG_SINGLESTEP;
            if debug.mask_interrupts && self.vm.can_block_interrupts {
                control |= KVM_GUESTDBG_BLOCKIRQ;
            }
        }
        if !slots.is_empty() {
            control |= KVM_GUESTDBG_USE_HW_BP;
        }
        if debug.breakpoints.iter().any(|b| b.kind == BreakpointKind::Software) {
            control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if control != 0 {
            control |= KVM_GUESTDBG_ENABLE;
        }
        let request = kvm_guest_debug { control, arch: debug_registers(&slots), ..Default::default() };
        let refused =
            |errno| DebugError::Refused(format!("KVM_SET_GUEST_DEBUG: {}", io::Error::from_raw_os_error(errno)));
        self.fd.set_guest_debug(&request).map_err(|e| refused(e.errno()))?;
        self.debugging = Debugging { single_step: debug.single_step, slots, request };
        Ok(())
    }

    /// Puts INT3 where breakpoints are new, and back what was there where they are gone. The first vCPU that gets a
    /// breakpoint translates its address; memory is common to all.
    fn patch_memory(&mut self, debug: &GuestDebug) -> Result<(), DebugError> {
        let wanted = |gva: u64| debug.breakpoints.iter().any(|b| b.kind == BreakpointKind::Software && b.gva == gva);
        self.vm.remove_patches(wanted);
        for breakpoint in debug.breakpoints.iter().filter(|b| b.kind == BreakpointKind::Software) {
            let gva = breakpoint.gva;
            if self.vm.patches().0.contains_key(&gva) {
                continue;
            }
            let refused = || DebugError::Refused(format!("no memory at address 0x{gva:x}"));
            let gpa = self.translate(gva).ok_or_else(refused)?;
            let mut original = [0];
            if self.vm.read_memory(gpa, &mut original) == 0 {
                return Err(refused());
            }
            self.vm.slots().write(gpa, &[INT3]);
            self.vm.patches().0.insert(gva, Patch { gpa, original: original[0] });
        }
        Ok(())
    }

    /// What an exit for the debugger means; `None`: the exception is the guest's own and was given back to it.
    pub(super) fn debug_exit(&mut self, arch: &kvm_debug_exit_arch) -> Result<Option<DebugStop>, AccelError> {
        if arch.exception == DB {
            let hit = (0..4).find(|n| arch.dr6 & 1 << n != 0);
            if let Some(slot) = hit.and_then(|n: usize| self.debugging.slots.get(n)) {
                return Ok(Some(slot.stop()));
            }
            if arch.dr6 & DR6_BS != 0 && self.debugging.single_step {
                return Ok(Some(DebugStop::Step));
            }
            self.give_back(KVM_GUESTDBG_INJECT_DB, Some(arch.dr6))?;
            return Ok(None);
        }
        if arch.exception == BP && self.vm.patches().0.contains_key(&arch.pc) {
            return Ok(Some(DebugStop::Breakpoint(arch.pc)));
        }
        self.give_back(KVM_GUESTDBG_INJECT_BP, None)?;
        Ok(None)
    }

    /// Raises an exception of the guest's own in the guest: it has an INT3 or a debug register of its own.
    fn give_back(&mut self, how: u32, dr6: Option<u64>) -> Result<(), AccelError> {
        if let Some(dr6) = dr6
            && self.vm.has_debugregs
        {
            let mut registers = self.fd.get_debug_regs().map_err(|e| host_error("KVM_GET_DEBUGREGS", e))?;
            registers.dr6 = dr6;
            self.fd.set_debug_regs(&registers).map_err(|e| host_error("KVM_SET_DEBUGREGS", e))?;
        }
        let request = kvm_guest_debug { control: self.debugging.request.control | how, ..self.debugging.request };
        self.fd.set_guest_debug(&request).map_err(|e| host_error("KVM_SET_GUEST_DEBUG", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::{Breakpoint, Watchpoint};

    fn watch(gva: u64, len: u64, kind: WatchKind) -> GuestDebug {
        GuestDebug { watchpoints: vec![Watchpoint { gva, len, kind }], ..GuestDebug::default() }
    }

    #[test]
    fn a_breakpoint_takes_one_debug_register() {
        let debug = GuestDebug {
            breakpoints: vec![
                Breakpoint { gva: 0x1000, kind: BreakpointKind::Software },
                Breakpoint { gva: 0x7c00, kind: BreakpointKind::Hardware },
            ],
            ..GuestDebug::default()
        };
        let registers = debug_registers(&slots(&debug).unwrap());
        assert_eq!((registers.debugreg[0], registers.debugreg[7]), (0x7c00, 0x602));
    }

    #[test]
    fn a_watchpoint_is_cut_into_aligned_pieces() {
        let slots = slots(&watch(0x1006, 10, WatchKind::Write)).unwrap();
        let pieces: Vec<(u64, u64)> = slots
            .iter()
            .map(|slot| match slot {
                Slot::Watch { gva, len, .. } => (*gva, *len),
                Slot::Execute { .. } => (0, 0),
            })
            .collect();
        assert_eq!(pieces, [(0x1006, 2), (0x1008, 8)]);
        // Length 2 is coded 1, length 8 is coded 2; both for writes.
        assert_eq!(debug_registers(&slots).debugreg[7] >> 16, 0x95);
        assert_eq!(slots[1].stop(), DebugStop::Watch { gva: 0x1006, kind: WatchKind::Write });
    }

    #[test]
    fn what_debug_registers_cannot_do_is_refused() {
        let unsupported = slots(&watch(0x1000, 4, WatchKind::Read)).unwrap_err();
        assert_eq!(unsupported, DebugError::Unsupported("watchpoints for reads alone"));
        let refused = |debug: &GuestDebug| matches!(slots(debug), Err(DebugError::Refused(_)));
        assert!(refused(&watch(0x1000, u64::MAX, WatchKind::Access)));
        assert!(refused(&watch(0x1000, 0, WatchKind::Access)));
        assert!(refused(&watch(u64::MAX, 33, WatchKind::Access)));
        assert!(slots(&watch(0x1000, 32, WatchKind::Access)).is_ok());
    }
}
