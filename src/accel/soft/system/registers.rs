//! Registers that only system instructions see.

use super::cpuid::CpuidTable;
use super::paravirtual::ParavirtualRegisters;

/// Number of machine-check banks, as QEMU has them.
pub(super) const BANKS: usize = 10;

/// Memory type range registers (SDM volume 3, 12.11).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Mtrrs {
    /// Base and mask of the variable ranges (200h to 20Fh).
    pub variable: [u64; 16],
    /// 250h, 258h, 259h, 268h to 26Fh.
    pub fixed: [u64; 11],
    /// 2FFh.
    pub default_type: u64,
}

/// Machine-check registers (SDM volume 3, 16.3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct MachineCheck {
    /// IA32_MCG_STATUS.
    pub status: u64,
    /// IA32_MCG_CTL.
    pub control: u64,
    /// CTL, STATUS, ADDR, MISC of each bank.
    pub banks: [[u64; 4]; BANKS],
}

/// Registers that only system instructions see.
#[derive(Clone, Default, Debug)]
pub struct SystemRegisters {
    // System calls.
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) fmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,

    // Time: the counter is the clock's nanoseconds plus `tsc_offset`.
    pub(super) tsc_offset: u64,
    pub(super) tsc_adjust: u64,
    pub(super) tsc_aux: u64,

    // Memory types.
    pub(super) pat: u64,
    pub(super) mtrrs: Mtrrs,

    // What the model's features bring.
    pub(super) machine_check: MachineCheck,
    pub(super) misc_enable: u64,
    pub(super) misc_features: u64,
    pub(super) feature_control: u64,
    pub(super) spec_ctrl: u64,
    pub(super) virt_spec_ctrl: u64,
    pub(super) tsx_ctrl: u64,
    pub(super) hwcr: u64,
    pub(super) de_cfg: u64,
    /// KVM's, where the guest sees its leaves.
    pub(super) paravirtual: ParavirtualRegisters,
    /// IA32_APIC_BASE of a processor without a local APIC.
    pub(super) apic_base: u64,

    // Events.
    /// Non-maskable interrupts are held back until IRET.
    pub(super) nmi_blocked: bool,
    /// Events that were written to the log.
    pub(super) logged: u32,
    /// Bits for DR6 of breakpoints that the running instruction hit.
    pub(super) debug_hits: u64,
    /// Whether a single-step trap follows the instruction that just ran, where it is not for TF before it to say.
    pub(super) step_after: Option<bool>,
    /// The last task switch came so far that the new task runs, whatever it raised.
    pub(super) task_switched: bool,
    /// In system management mode.
    pub(super) smm: bool,
    /// Non-maskable interrupts were held back when it was entered.
    pub(super) smm_in_nmi: bool,
    /// Where system management mode keeps the registers.
    pub(super) smbase: u64,

    /// CPUID's answers, made when first asked for.
    pub(super) cpuid: Option<Box<CpuidTable>>,
}

impl SystemRegisters {
    /// IA32_PAT after reset.
    const PAT: u64 = 0x0007_0406_0007_0406;
    /// Fast strings.
    const MISC_ENABLE: u64 = 1;
    /// Where system management mode begins after reset.
    const SMBASE: u64 = 0x30000;

    /// After RESET (SDM volume 3, table 10-1). The time-stamp counter shows the machine's clock and does not begin at 0
    /// again: processors that are reset one after the other would not agree, and guests give up a counter that differs.
    pub(super) fn power_on() -> Self {
        Self {
            pat: Self::PAT,
            misc_enable: Self::MISC_ENABLE,
            smbase: Self::SMBASE,
            machine_check: MachineCheck {
                control: u64::MAX,
                banks: [[u64::MAX, 0, 0, 0]; BANKS],
                ..MachineCheck::default()
            },
            ..Self::default()
        }
    }
}
