//! One virtual processor: the run loop and its registers.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN, Xsave, kvm_xsave,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::accel::{AccelError, DebugError, Exit, GuestDebug, Vcpu};
use crate::bus::{GuestBus, Width};
use crate::cpu::{self, CpuState, MpState};

use super::coalesced::Written;
use super::debug::Debugging;
use super::inject::{Activity, Injection};
use super::input::Input;
use super::irq::IrqChip;
use super::kick::Kicker;
use super::{Vm, host_error, io_error, msr, regs, sys};

/// Size of the traditional XSAVE area of KVM_GET_XSAVE.
const XSAVE_LEN: usize = 4096;

/// IA32_MCG_CAP as QEMU sets it: ten banks, IA32_MCG_CTL present, software error recovery.
const MCG_CAP: u64 = 10 | 1 << 8 | 1 << 24;

/// A vCPU of a KVM virtual machine.
pub(super) struct KvmVcpu {
    index: u32,
    pub(super) fd: VcpuFd,
    pub(super) vm: Arc<Vm>,
    /// Its interrupt input, where interrupts do not all come from the kernel.
    pub(super) input: Option<Arc<Input>>,
    pub(super) injection: Injection,
    pub(super) debugging: Debugging,
    kicker: Arc<Kicker>,
    /// Registers are as the kernel made them.
    fresh: bool,
    /// How often the machine had been resumed when this vCPU last told its guest.
    resumes_seen: u64,
    /// It stays on its thread.
    _not_send: std::marker::PhantomData<Rc<()>>,
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kicker.detach();
        self.vm.forget_kicker(&self.kicker);
    }
}

impl KvmVcpu {
    /// Makes vCPU `index` on this thread, with its CPUID table.
    pub(super) fn new(vm: &Arc<Vm>, index: u32) -> Result<Self, AccelError> {
        let model = vm.cpu_model()?;
        let apic_id = model.apic_id(index);
        let mut fd = vm.fd.create_vcpu(u64::from(apic_id)).map_err(|e| host_error("KVM_CREATE_VCPU", e))?;
        if let Some(khz) = model.tsc_khz()
            && fd.set_tsc_khz(khz).is_err()
        {
            log::warn!("the host's KVM cannot run the time stamp counter at {khz} kHz; it runs at the host's rate");
        }
        let tsc_khz = if model.tells_frequency() { fd.get_tsc_khz().unwrap_or(0) } else { 0 };
        fd.set_cpuid2(&super::cpuid::table(&model, index, tsc_khz)?).map_err(|e| host_error("KVM_SET_CPUID2", e))?;
        if model.has_machine_check() {
            // Without it the guest sees KVM's own number of banks, which is as good.
            let _ = sys::setup_mce(&fd, MCG_CAP);
        }
        vm.coalesced.attach(&vm.fd, &fd)?;
        let input = vm.input_of(index);
        let kicker = input.as_ref().map_or_else(Arc::default, |input| Arc::clone(&input.kicker));
        let immediate_exit = &raw mut fd.get_kvm_run().immediate_exit;
        // SAFETY: the byte is in the vCPU's mapping, which lives as long as `fd`; `drop` detaches first. kvm-ioctls
        // makes references to the whole structure, but nothing here or there accesses this byte through them.
        unsafe { kicker.attach(immediate_exit) }.map_err(|e| io_error("pthread_sigmask", e))?;
        vm.remember_kicker(&kicker);
        let mut vcpu = Self {
            index,
            fd,
            vm: Arc::clone(vm),
            input,
            injection: Injection::power_on(index),
            debugging: Debugging::default(),
            kicker,
            fresh: true,
            resumes_seen: vm.resumes.load(Ordering::Acquire),
            _not_send: std::marker::PhantomData,
        };
        vcpu.set_signature(model.signature())?;
        vm.msrs.write(&vcpu.fd, &model.feature_msrs())?;
        Ok(vcpu)
    }

    /// EDX after reset is the processor's signature (SDM volume 3 section 10.1.2); the kernel made the vCPU before it
    /// knew that.
    fn set_signature(&mut self, signature: u32) -> Result<(), AccelError> {
        let mut general = self.fd.get_regs().map_err(|e| host_error("KVM_GET_REGS", e))?;
        general.rdx = u64::from(signature);
        self.fd.set_regs(&general).map_err(|e| host_error("KVM_SET_REGS", e))
    }

    /// The kernel left the guest for port I/O: passes the block to the bus.
    fn port_io(&mut self, bus: &dyn GuestBus) -> Result<(), Exit> {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason was KVM_EXIT_IO, for which the kernel fills this member.
        let io = unsafe { run.__bindgen_anon_1.io };
        let len = usize::from(io.size) * io.count as usize;
        let Some(width) = Width::of(u64::from(io.size)) else {
            return Err(Exit::InternalError(format!("KVM: port I/O of {} bytes", io.size)));
        };
        let base = std::ptr::from_mut(run).cast::<u8>();
        // SAFETY: the kernel places the data within the vCPU's mapping, `data_offset` bytes after its start.
        let data = unsafe { base.add(io.data_offset as usize) };
        // SAFETY: `len` bytes from there are in the mapping; the kernel does not touch them until the next KVM_RUN,
        // and the slice is gone by then.
        let data = unsafe { std::slice::from_raw_parts_mut(data, len) };
        match (u32::from(io.direction) == kvm_bindings::KVM_EXIT_IO_IN, io.count) {
            (true, 1) => {
                let value = bus.port_read(io.port, width).to_le_bytes();
                data.copy_from_slice(&value[..len]);
            }
            (false, 1) => {
                let mut value = [0; 4];
                value[..len].copy_from_slice(data);
                bus.port_write(io.port, width, u32::from_le_bytes(value));
            }
            (true, _) => bus.port_read_string(io.port, width, data),
            (false, _) => bus.port_write_string(io.port, width, data),
        }
        Ok(())
    }

    /// What the kernel said when it could not go on, with what a reader of a bug report wants to know.
    fn describe_internal_error(&mut self) -> String {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this member.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        let mut text = format!("KVM internal error. Suberror: {}", internal.suberror);
        let known = match internal.suberror {
            KVM_INTERNAL_ERROR_EMULATION => " (emulation failure)",
            KVM_INTERNAL_ERROR_SIMUL_EX => " (simultaneous exceptions)",
            KVM_INTERNAL_ERROR_DELIVERY_EV => " (exit while an event was delivered)",
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => " (unexpected exit reason)",
            _ => "",
        };
        text.push_str(known);
        let count = (internal.ndata as usize).min(internal.data.len());
        if internal.suberror != KVM_INTERNAL_ERROR_EMULATION {
            for (index, data) in internal.data[..count].iter().enumerate() {
                let _ = write!(text, "\nextra data[{index}]: 0x{data:016x}");
            }
        }
        self.describe_registers(&mut text);
        text
    }

    /// Adds mode, instruction bytes and registers.
    fn describe_registers(&mut self, text: &mut String) {
        let (Ok(general), Ok(special)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            text.push_str("\n(registers cannot be read)");
            return;
        };
        let mut state = CpuState::default();
        regs::get_regs(&mut state, &general);
        regs::get_sregs(&mut state, &special);
        if let Ok(debug) = self.fd.get_debug_regs() {
            regs::get_debugregs(&mut state, &debug);
        }
        let linear = state.segments[1].base.wrapping_add(state.rip);
        let linear = if state.mode() == cpu::Mode::Long64 { state.rip } else { linear & 0xffff_ffff };
        let mut bytes = [0; 15];
        let have = self.read_linear(linear, &mut bytes);
        let _ = write!(text, "\nCPU {}: {} mode, CPL {}", self.index, state.mode(), state.privilege_level());
        let _ = write!(text, "\nCode at {:04x}:{:016x}:", state.segments[1].selector, state.rip);
        for byte in &bytes[..have] {
            let _ = write!(text, " {byte:02x}");
        }
        if have == 0 {
            text.push_str(" not readable");
        }
        text.push('\n');
        text.push_str(&state.summary());
    }

    /// Copies guest memory at a linear address, as far as it is mapped.
    fn read_linear(&mut self, linear: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let at = linear.wrapping_add(done as u64);
            let Some(gpa) = self.translate(at) else { break };
            let in_page = usize::try_from(0x1000 - (at & 0xfff)).unwrap_or(1).min(buf.len() - done);
            let got = self.vm.read_memory(gpa, &mut buf[done..done + in_page]);
            done += got;
            if got < in_page {
                break;
            }
        }
        done
    }

    fn get_xsave(&self) -> Result<Vec<u8>, AccelError> {
        let words = |region: &[u32]| region.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        if !self.vm.has_xsave {
            let fpu = self.fd.get_fpu().map_err(|e| host_error("KVM_GET_FPU", e))?;
            return Ok(super::fpu::to_fxsave(&fpu).to_vec());
        }
        if self.vm.xsave_len <= XSAVE_LEN {
            let area = self.fd.get_xsave().map_err(|e| host_error("KVM_GET_XSAVE", e))?;
            return Ok(words(&area.region));
        }
        let mut area = self.large_xsave()?;
        // SAFETY: the area has the length that KVM_CAP_XSAVE2 gave, and no feature that would enlarge it is enabled
        // afterwards.
        unsafe { self.fd.get_xsave2(&mut area) }.map_err(|e| host_error("KVM_GET_XSAVE2", e))?;
        let mut bytes = words(&area.as_fam_struct_ref().xsave.region);
        bytes.extend(words(area.as_slice()));
        Ok(bytes)
    }

    fn large_xsave(&self) -> Result<Xsave, AccelError> {
        let extra = (self.vm.xsave_len - XSAVE_LEN).div_ceil(4);
        Xsave::new(extra).map_err(|_| AccelError::Unsupported("KVM_GET_XSAVE2: no memory".to_owned()))
    }

    fn put_xsave(&self, bytes: &[u8]) -> Result<(), AccelError> {
        let word = |at: usize| {
            let mut word = [0; 4];
            let from = bytes.get(at * 4..).unwrap_or(&[]);
            let len = from.len().min(4);
            word[..len].copy_from_slice(&from[..len]);
            u32::from_le_bytes(word)
        };
        if !self.vm.has_xsave {
            let fpu = super::fpu::from_fxsave(bytes);
            return self.fd.set_fpu(&fpu).map_err(|e| host_error("KVM_SET_FPU", e));
        }
        let region = std::array::from_fn(word);
        if self.vm.xsave_len <= XSAVE_LEN {
            let area = kvm_xsave { region, ..Default::default() };
            // SAFETY: the host's area is at most as long as this structure.
            return unsafe { self.fd.set_xsave(&area) }.map_err(|e| host_error("KVM_SET_XSAVE", e));
        }
        let mut area = self.large_xsave()?;
        for (index, to) in area.as_mut_slice().iter_mut().enumerate() {
            *to = word(XSAVE_LEN / 4 + index);
        }
        // SAFETY: only the fixed part is written; the length of the flexible array stays.
        unsafe { area.as_mut_fam_struct() }.xsave.region = region;
        // SAFETY: the area has the length that KVM_CAP_XSAVE2 gave.
        unsafe { self.fd.set_xsave2(&area) }.map_err(|e| host_error("KVM_SET_XSAVE", e))
    }

    /// Tells the guest's clock driver that time stood still, once a resume (KVM_KVMCLOCK_CTRL).
    fn note_resume(&mut self) {
        let resumes = self.vm.resumes.load(Ordering::Acquire);
        if resumes != self.resumes_seen {
            self.resumes_seen = resumes;
            // A guest without kvmclock makes it fail with EINVAL; there is nobody to tell then.
            let _ = self.fd.kvmclock_ctrl();
        }
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, bus: &dyn GuestBus) -> Result<Exit, AccelError> {
        self.fresh = false;
        self.note_resume();
        let input = self.input.clone();
        loop {
            if self.kicker.take() {
                return Ok(Exit::Kicked);
            }
            if let Some(input) = &input
                && !self.prepare(input)?
            {
                continue;
            }
            let entered = self.vm.enter();
            let result = self.fd.run();
            drop(entered);
            if let Some(input) = &input {
                input.leave();
                self.injection.note_exit();
            }
            match result {
                Ok(VcpuExit::IoIn(..)) => {
                    if let Err(exit) = self.port_io(bus) {
                        return Ok(exit);
                    }
                }
                Ok(VcpuExit::IoOut(port, _)) => {
                    if let Err(exit) = self.port_io(bus) {
                        return Ok(exit);
                    }
                    self.vm.coalesced.note_exit(&self.vm.fd, Written::Port(port))?;
                }
                Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) if let Some(input) = &input => {
                    self.memory_io(input, bus)
                }
                Ok(VcpuExit::MmioRead(gpa, data)) => bus.mmio_read(gpa, data),
                Ok(VcpuExit::MmioWrite(gpa, data)) => {
                    bus.mmio_write(gpa, data);
                    self.vm.coalesced.note_exit(&self.vm.fd, Written::Memory(gpa))?;
                }
                Ok(VcpuExit::Hlt) => {
                    if let Some(exit) = self.halt() {
                        return Ok(exit);
                    }
                }
                Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
                Ok(VcpuExit::Debug(arch)) => {
                    if let Some(stop) = self.debug_exit(&arch)? {
                        return Ok(Exit::Debug(stop));
                    }
                }
                Ok(VcpuExit::IoapicEoi(vector)) => self.vm.end_of_interrupt(vector),
                // What they tell is looked at before the next entry anyway.
                Ok(VcpuExit::IrqWindowOpen | VcpuExit::SetTpr) => {}
                Ok(VcpuExit::Intr) => self.kicker.rearm(),
                Ok(VcpuExit::SystemEvent(kind, _)) => match kind {
                    KVM_SYSTEM_EVENT_SHUTDOWN | KVM_SYSTEM_EVENT_RESET | KVM_SYSTEM_EVENT_CRASH => {
                        return Ok(Exit::Shutdown);
                    }
                    other => return Ok(Exit::InternalError(format!("KVM: unknown system event {other}"))),
                },
                Ok(VcpuExit::FailEntry(reason, cpu)) => {
                    let mut text = format!("KVM: entry failed, hardware error 0x{reason:x}, on host CPU {cpu}");
                    self.describe_registers(&mut text);
                    return Ok(Exit::InternalError(text));
                }
                Ok(VcpuExit::InternalError) => return Ok(Exit::InternalError(self.describe_internal_error())),
                Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                    let mut text = format!("KVM: memory fault at 0x{gpa:x}, {size} bytes, flags 0x{flags:x}");
                    self.describe_registers(&mut text);
                    return Ok(Exit::InternalError(text));
                }
                Ok(other) => {
                    let mut text = format!("KVM: unknown exit {other:?}");
                    self.describe_registers(&mut text);
                    return Ok(Exit::InternalError(text));
                }
                Err(error) => match error.errno() {
                    libc::EINTR => self.kicker.rearm(),
                    // An application processor woke up without a start-up IPI: KVM_RUN sleeps again at once.
                    libc::EAGAIN => {}
                    _ => return Err(host_error("KVM_RUN", error)),
                },
            }
        }
    }

    fn state(&mut self) -> Result<CpuState, AccelError> {
        let mut state = CpuState::default();
        regs::get_regs(&mut state, &self.fd.get_regs().map_err(|e| host_error("KVM_GET_REGS", e))?);
        regs::get_sregs(&mut state, &self.fd.get_sregs().map_err(|e| host_error("KVM_GET_SREGS", e))?);
        if self.vm.has_debugregs {
            let debug = self.fd.get_debug_regs().map_err(|e| host_error("KVM_GET_DEBUGREGS", e))?;
            regs::get_debugregs(&mut state, &debug);
        }
        if self.vm.has_xcrs {
            regs::get_xcrs(&mut state, &self.fd.get_xcrs().map_err(|e| host_error("KVM_GET_XCRS", e))?);
        }
        state.xsave = self.get_xsave()?;
        state.msrs = self.vm.msrs.read(&self.fd, &self.vm.msrs.listed(&self.vm.kvm)?)?;
        if let Some(apic) = self.input.as_ref().and_then(|input| input.apic()) {
            state.mp_state = self.injection.activity.mp_state();
            state.lapic = apic.registers();
        } else {
            let mp_state = self.fd.get_mp_state().map_err(|e| host_error("KVM_GET_MP_STATE", e))?;
            state.mp_state = regs::get_mp_state(mp_state);
            state.lapic = regs::get_lapic(&self.fd.get_lapic().map_err(|e| host_error("KVM_GET_LAPIC", e))?);
        }
        let events = self.fd.get_vcpu_events().map_err(|e| host_error("KVM_GET_VCPU_EVENTS", e))?;
        regs::get_events(&mut state, &events);
        Ok(state)
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), AccelError> {
        self.fresh = false;
        // MP state first: a vCPU that waits for INIT takes no other state. Special registers before what depends on
        // the mode and the APIC base they set; events last, as setting registers may raise or drop some.
        self.injection.forget_exit();
        if self.vm.irqchip == IrqChip::Off {
            self.injection.activity = Activity::of(state);
        } else {
            let mp = regs::put_mp_state(state.mp_state);
            self.fd.set_mp_state(mp).map_err(|e| host_error("KVM_SET_MP_STATE", e))?;
        }
        self.fd.set_sregs(&regs::put_sregs(state)).map_err(|e| host_error("KVM_SET_SREGS", e))?;
        self.fd.set_regs(&regs::put_regs(state)).map_err(|e| host_error("KVM_SET_REGS", e))?;
        if self.vm.has_xcrs && state.xcr0 != 0 {
            self.fd.set_xcrs(&regs::put_xcrs(state)).map_err(|e| host_error("KVM_SET_XCRS", e))?;
        }
        if !state.xsave.is_empty() {
            self.put_xsave(&state.xsave)?;
        }
        self.vm.msrs.write(&self.fd, &state.msrs)?;
        if !state.lapic.is_empty() && self.vm.irqchip != IrqChip::Off {
            self.fd.set_lapic(&regs::put_lapic(&state.lapic)).map_err(|e| host_error("KVM_SET_LAPIC", e))?;
        }
        if self.vm.has_debugregs {
            let debug = regs::put_debugregs(state);
            self.fd.set_debug_regs(&debug).map_err(|e| host_error("KVM_SET_DEBUGREGS", e))?;
        }
        let events = regs::put_events(state, self.vm.has_payload, self.vm.has_smm);
        self.fd.set_vcpu_events(&events).map_err(|e| host_error("KVM_SET_VCPU_EVENTS", e))
    }

    fn reset(&mut self) -> Result<(), AccelError> {
        if self.fresh {
            return Ok(());
        }
        let model = self.vm.cpu_model()?;
        let mut state = CpuState::power_on(model.signature());
        let bootstrap = self.index == 0;
        state.mp_state = if bootstrap { MpState::Runnable } else { MpState::Uninitialized };
        if !bootstrap {
            state.apic_base &= !cpu::APIC_BASE_BSP;
        }
        state.lapic = super::lapic::power_on(model.apic_id(self.index));
        let known = self.vm.msrs.listed(&self.vm.kvm)?;
        state.msrs = msr::POWER_ON.iter().copied().filter(|(n, _)| known.binary_search(n).is_ok()).collect();
        state.msrs.extend(msr::mtrrs().map(|n| (n, 0)));
        self.set_state(&state)
    }

    fn inject_nmi(&mut self) -> Result<(), AccelError> {
        self.fd.nmi().map_err(|e| host_error("KVM_NMI", e))
    }

    fn inject_smi(&mut self) -> Result<(), AccelError> {
        if !self.vm.has_smm {
            return Err(AccelError::Unsupported("the host's KVM has no system management mode".to_owned()));
        }
        self.fd.smi().map_err(|e| host_error("KVM_SMI", e))
    }

    fn set_debug(&mut self, debug: &GuestDebug) -> Result<(), DebugError> {
        self.apply_debug(debug)
    }

    fn translate(&mut self, gva: u64) -> Option<u64> {
        let translation = self.fd.translate_gva(gva).ok()?;
        (translation.valid != 0).then_some(translation.physical_address)
    }

    fn kicker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let kicker = Arc::clone(&self.kicker);
        let input = self.input.clone();
        Arc::new(move || {
            kicker.kick();
            if let Some(input) = &input {
                input.wake();
            }
        })
    }
}
