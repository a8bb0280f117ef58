//! Interrupts, INIT, start-up and HLT of vCPUs where the kernel does not do it all (see [`super::input`]).
//!
//! An interrupt is queued with KVM_INTERRUPT when the last exit said that the guest takes one
//! (`ready_for_interrupt_injection`); otherwise an interrupt window is asked for. The task priority is CR8 of the shared
//! structure: the kernel puts the guest's there at each exit and takes ours at each entry. IA32_APIC_BASE comes the
//! same way.

use crate::accel::{AccelError, Exit, Vcpu};
use crate::bus::GuestBus;
use crate::cpu::{self, CpuState, MpState, Segment};

use super::input::{Input, Requests};
use super::vcpu::KvmVcpu;
use super::{host_error, io_error, sys};

/// What a vCPU with a local APIC of ours does; the kernel thinks that it always runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Activity {
    #[default]
    Running,
    /// In HLT; with `interrupts` an interrupt ends it.
    Halted { interrupts: bool },
    /// After INIT, until a start-up interrupt.
    WaitForStartUp,
}

impl Activity {
    /// What a state says of it.
    pub(super) fn of(state: &CpuState) -> Self {
        match state.mp_state {
            MpState::Halted => Self::Halted { interrupts: state.rflags & RFLAGS_IF != 0 },
            MpState::Uninitialized | MpState::InitReceived => Self::WaitForStartUp,
            _ => Self::Running,
        }
    }

    pub(super) fn mp_state(self) -> MpState {
        match self {
            Self::Running => MpState::Runnable,
            Self::Halted { .. } => MpState::Halted,
            Self::WaitForStartUp => MpState::InitReceived,
        }
    }
}

const RFLAGS_IF: u64 = 1 << 9;

/// What the run loop knows of its interrupt input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Injection {
    pub(super) activity: Activity,
    /// `ready_for_interrupt_injection` is of an exit after which nothing changed.
    ready_is_current: bool,
    /// The guest changed CR8 or IA32_APIC_BASE perhaps, and the APIC does not know yet.
    guest_is_ahead: bool,
}

impl Injection {
    /// After power-on: all processors but the first wait.
    pub(super) fn power_on(index: u32) -> Self {
        let activity = if index == 0 { Activity::Running } else { Activity::WaitForStartUp };
        Self { activity, ..Self::default() }
    }

    /// KVM_RUN returned.
    pub(super) fn note_exit(&mut self) {
        self.ready_is_current = true;
        self.guest_is_ahead = true;
    }

    /// The registers were replaced: what the last exit said counts no more.
    pub(super) fn forget_exit(&mut self) {
        self.ready_is_current = false;
        self.guest_is_ahead = false;
    }
}

/// Extended mode (x2APIC): no page.
const APIC_BASE_EXTENDED: u64 = 1 << 10;
const APIC_PAGE: u64 = !0xfff;

impl KvmVcpu {
    /// Before an entry. `false`: look at everything again first.
    pub(super) fn prepare(&mut self, input: &Input) -> Result<bool, AccelError> {
        input.enter();
        let requests = input.take();
        if requests != Requests::default() {
            input.leave();
            self.serve(input, requests)?;
            return Ok(false);
        }
        self.pull(input);
        let activity = if input.apic().is_some() { self.injection.activity } else { Activity::Running };
        let interrupts = match activity {
            Activity::Running => {
                self.inject(input)?;
                return Ok(true);
            }
            Activity::Halted { interrupts } => interrupts,
            Activity::WaitForStartUp => false,
        };
        input.leave();
        input.sleep(interrupts);
        if interrupts && input.waits() {
            self.injection.activity = Activity::Running;
        }
        Ok(false)
    }

    /// Tells the APIC what the guest did to CR8 and IA32_APIC_BASE.
    fn pull(&mut self, input: &Input) {
        let Some(apic) = input.apic() else { return };
        if !std::mem::take(&mut self.injection.guest_is_ahead) {
            return;
        }
        let run = self.fd.get_kvm_run();
        let priority = (run.cr8 & 0xf).to_le_bytes()[0];
        if priority != apic.task_priority() {
            apic.set_task_priority(priority);
        }
        if run.apic_base != apic.base() && !apic.set_base(run.apic_base) {
            log::debug!("IA32_APIC_BASE {:#x}: the kernel took what the APIC refuses", run.apic_base);
        }
    }

    /// Queues an interrupt if the guest takes one, and asks for a window if more wait.
    fn inject(&mut self, input: &Input) -> Result<(), AccelError> {
        if input.waits()
            && self.injection.ready_is_current
            && self.fd.get_kvm_run().ready_for_interrupt_injection != 0
            && let Some(vector) = input.acknowledge()
        {
            sys::interrupt(&self.fd, vector.into()).map_err(|e| io_error("KVM_INTERRUPT", e))?;
            self.injection.ready_is_current = false;
        }
        let run = self.fd.get_kvm_run();
        run.request_interrupt_window = input.waits().into();
        if let Some(apic) = input.apic() {
            run.cr8 = apic.task_priority().into();
        }
        Ok(())
    }

    /// What the local APIC asked for.
    fn serve(&mut self, input: &Input, requests: Requests) -> Result<(), AccelError> {
        let Requests { nmi, smi, init, start_up } = requests;
        if smi && self.vm.has_smm {
            self.fd.smi().map_err(|e| host_error("KVM_SMI", e))?;
        }
        if nmi {
            self.fd.nmi().map_err(|e| host_error("KVM_NMI", e))?;
            if matches!(self.injection.activity, Activity::Halted { .. }) {
                self.injection.activity = Activity::Running;
            }
        }
        if init {
            self.take_init(input)?;
        }
        match start_up {
            Some(vector) if self.injection.activity == Activity::WaitForStartUp => self.take_start_up(vector),
            _ => Ok(()),
        }
    }

    /// INIT (Intel SDM volume 3, 10.1.1 and table 10-1): the floating-point unit, the MSRs and most bits of CR0's cache
    /// control stay.
    fn take_init(&mut self, input: &Input) -> Result<(), AccelError> {
        const CACHE_CONTROL: u64 = 3 << 29;
        let old = self.state()?;
        let fresh = CpuState::power_on(self.vm.cpu_model()?.signature());
        let state = CpuState {
            cr0: fresh.cr0 & !CACHE_CONTROL | old.cr0 & CACHE_CONTROL,
            apic_base: old.apic_base,
            xsave: old.xsave,
            xcr0: old.xcr0,
            msrs: Vec::new(),
            ..fresh
        };
        if let Some(apic) = input.apic() {
            apic.init();
        }
        self.set_state(&state)?;
        self.injection.activity =
            if old.apic_base & cpu::APIC_BASE_BSP != 0 { Activity::Running } else { Activity::WaitForStartUp };
        Ok(())
    }

    /// The processor begins at page `vector` (Intel SDM volume 3, 10.4.4).
    fn take_start_up(&mut self, vector: u8) -> Result<(), AccelError> {
        let mut state = self.state()?;
        let page = u16::from(vector);
        state.segments[1] = Segment { selector: page << 8, base: u64::from(page) << 12, ..state.segments[1] };
        state.rip = 0;
        state.msrs = Vec::new();
        self.set_state(&state)?;
        self.injection.activity = Activity::Running;
        Ok(())
    }

    /// HLT: `None` where it is ours to wait, in the next [`KvmVcpu::prepare`].
    pub(super) fn halt(&mut self) -> Option<Exit> {
        if self.input.as_ref().is_none_or(|input| input.apic().is_none()) {
            return Some(Exit::Halted);
        }
        let interrupts = self.fd.get_kvm_run().if_flag != 0;
        self.injection.activity = Activity::Halted { interrupts };
        None
    }

    /// An access to memory: to the page of this vCPU's own APIC, or to the board.
    pub(super) fn memory_io(&mut self, input: &Input, bus: &dyn GuestBus) {
        self.pull(input);
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason was KVM_EXIT_MMIO, for which the kernel fills this member.
        let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
        let len = (mmio.len as usize).min(mmio.data.len());
        let data = &mut mmio.data[..len];
        let own = input.apic().filter(|apic| {
            let enabled = apic.base() & (cpu::APIC_BASE_ENABLE | APIC_BASE_EXTENDED) == cpu::APIC_BASE_ENABLE;
            enabled && apic.base() & APIC_PAGE == mmio.phys_addr & APIC_PAGE
        });
        let Some(apic) = own else {
            if mmio.is_write != 0 {
                bus.mmio_write(mmio.phys_addr, data);
            } else {
                bus.mmio_read(mmio.phys_addr, data);
            }
            return;
        };
        let offset = u16::try_from(mmio.phys_addr & 0xfff).unwrap_or(0);
        if mmio.is_write != 0 {
            let mut value = [0; 4];
            value[..len.min(4)].copy_from_slice(&data[..len.min(4)]);
            apic.write(offset, u32::from_le_bytes(value));
        } else {
            let value = u64::from(apic.read(offset)).to_le_bytes();
            data.copy_from_slice(&value[..len]);
        }
    }
}
