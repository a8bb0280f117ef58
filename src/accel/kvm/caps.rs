//! Which KVM features the program needs, and which it can do without.

use kvm_ioctls::{Cap, Kvm};

/// A feature of the host's KVM.
struct Feature {
    cap: Cap,
    name: &'static str,
    /// What is lost without it; `None`: the machine cannot run.
    without: Option<&'static str>,
}

const fn required(cap: Cap, name: &'static str) -> Feature {
    Feature { cap, name, without: None }
}

const fn optional(cap: Cap, name: &'static str, without: &'static str) -> Feature {
    Feature { cap, name, without: Some(without) }
}

/// Every feature that the program uses. All required ones exist since Linux 4.11 on VT-x and SVM.
const FEATURES: &[Feature] = &[
    required(Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    required(Cap::DestroyMemoryRegionWorks, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"),
    required(Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    required(Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    required(Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    required(Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    required(Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    required(Cap::Pit2, "KVM_CAP_PIT2"),
    required(Cap::MpState, "KVM_CAP_MP_STATE"),
    required(Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    required(Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    optional(Cap::SetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR", "firmware over 256 KiB may not start"),
    optional(Cap::Ioeventfd, "KVM_CAP_IOEVENTFD", "device queues are served on the vCPU threads"),
    optional(Cap::Irqfd, "KVM_CAP_IRQFD", "interrupts of device queues go through the main loop"),
    optional(Cap::Debugregs, "KVM_CAP_DEBUGREGS", "debug registers are not saved"),
    optional(Cap::Xsave, "KVM_CAP_XSAVE", "only x87 and SSE registers are saved"),
    optional(Cap::Xcrs, "KVM_CAP_XCRS", "XCR0 is not saved"),
    optional(Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK", "kvmclock runs on while the machine is stopped"),
];

/// The features that the host lacks.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Without these nothing runs.
    pub(super) required: Vec<&'static str>,
    /// One line for each that merely costs something.
    pub(super) warnings: Vec<String>,
}

/// Asks the host for every feature.
pub(super) fn missing(kvm: &Kvm) -> Missing {
    missing_by(|cap| kvm.check_extension(cap))
}

fn missing_by(has: impl Fn(Cap) -> bool) -> Missing {
    let mut missing = Missing::default();
    for Feature { cap, name, without } in FEATURES {
        if has(*cap) {
            continue;
        }
        match without {
            None => missing.required.push(name),
            Some(loss) => missing.warnings.push(format!("the host's KVM has no {name}: {loss}")),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_optional_feature_is_one_warning() {
        let missing = missing_by(|cap| cap != Cap::Irqfd);
        assert!(missing.required.is_empty());
        assert_eq!(
            missing.warnings,
            ["the host's KVM has no KVM_CAP_IRQFD: interrupts of device queues go through the main loop"]
        );
    }

    #[test]
    fn a_missing_required_feature_is_named() {
        assert_eq!(missing_by(|cap| cap != Cap::Pit2).required, ["KVM_CAP_PIT2"]);
    }
}
