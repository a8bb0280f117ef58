//! The KVM accelerator (Linux, `Documentation/virt/kvm/api.rst`).
//!
//! The kernel runs the processors and, unless `kernel-irqchip=` says otherwise, holds the interrupt controllers and the
//! timer chip (PIT); port and memory accesses that it cannot serve come back to us. What a host's KVM cannot do costs
//! one warning where the machine can do without it.
#![expect(unsafe_code)] // UNSAFE: memory slots, the shared run structure, signals, ioctls that kvm-ioctls lacks

mod caps;
mod coalesced;
mod cpuid;
mod debug;
mod fpu;
mod inject;
mod input;
mod irq;
mod irqchip;
mod kick;
mod lapic;
mod memory;
mod msr;
mod regs;
mod sys;
mod vcpu;

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, KVM_PIT_FLAGS_HPET_LEGACY, KVM_PIT_SPEAKER_DUMMY, kvm_clock_data, kvm_pit_config,
};
use kvm_ioctls::{Cap, Kvm as KvmSystem, VmFd};

use crate::bus::{
    Acknowledge, CpuPins, EoiSink, IrqChipState, LineSink, LocalApic, MsiSink, PostedRange, PostedWrites,
};
use crate::cpu::{CpuModel, HostCpu};
use crate::host::reason;
use crate::mem::RamRange;

use self::coalesced::Ring;
use self::input::Input;
pub use self::irq::IrqChip;
use self::irq::{KernelApics, KernelIrqChip};
use self::kick::Kicker;
use self::memory::Slots;
use self::vcpu::KvmVcpu;
use super::{AccelError, Accelerator, IoEvent, Vcpu};

/// The only version of the interface that there ever was.
const API_VERSION: i32 = 12;

/// Four pages below the firmware that KVM needs on VT-x hosts without "unrestricted guest": one for a page table that
/// maps addresses to themselves, three for a task state segment. The e820 map that the guest gets reserves them.
pub const IDENTITY_MAP_ADDRESS: u64 = 0xfeff_c000;
/// See [`IDENTITY_MAP_ADDRESS`].
pub const TSS_ADDRESS: usize = 0xfeff_d000;

fn host_error(what: &'static str, error: kvm_ioctls::Error) -> AccelError {
    io_error(what, io::Error::from_raw_os_error(error.errno()))
}

fn io_error(what: &'static str, source: io::Error) -> AccelError {
    AccelError::Host { what, source }
}

/// Proof that memory slots stay as they are for now.
struct Entered<'a>(#[expect(dead_code, reason = "held for its Drop")] RwLockReadGuard<'a, ()>);

/// What the machine's thread and the vCPU threads share.
struct Vm {
    kvm: KvmSystem,
    fd: Arc<VmFd>,
    slots: Mutex<Slots>,
    /// Writes that the kernel took for us.
    coalesced: Arc<Ring>,
    model: OnceLock<Arc<CpuModel>>,
    msrs: msr::MsrTable,
    kickers: Mutex<Vec<Arc<Kicker>>>,
    // Keeping vCPUs out of the guest while memory changes: each holds `running` for reading inside KVM_RUN.
    running: RwLock<()>,
    closed: AtomicBool,
    gate: Mutex<()>,
    /// Sets the interrupt routes; see [`Vm::finish_setup`].
    routing: Mutex<Option<JoinHandle<Result<(), AccelError>>>>,
    /// How often the machine was resumed.
    resumes: AtomicU64,
    /// The interrupt controllers and the PIT as the kernel made them.
    /// Only with `kernel-irqchip=on`.
    chips: Option<irq::Chips>,
    irqchip: IrqChip,
    /// The interrupt inputs of vCPUs, made when first asked for.
    inputs: Mutex<Vec<Arc<Input>>>,
    /// Hears of the EOIs of level-triggered interrupts.
    eoi: OnceLock<EoiSink>,
    /// kvmclock when the machine stopped.
    stopped_clock: Mutex<Option<kvm_clock_data>>,
    /// The debugger's software breakpoints.
    patches: Mutex<debug::Patches>,
    // What the host can do.
    has_xsave: bool,
    xsave_len: usize,
    has_xcrs: bool,
    has_debugregs: bool,
    has_clock: bool,
    has_payload: bool,
    has_smm: bool,
    can_block_interrupts: bool,
}

impl Vm {
    fn cpu_model(&self) -> Result<Arc<CpuModel>, AccelError> {
        let missing = || AccelError::Unsupported("KVM: a vCPU was made before the CPU model was chosen".to_owned());
        self.model.get().cloned().ok_or_else(missing)
    }

    /// Waits for what `Kvm::create` left to a thread.
    fn finish_setup(&self) -> Result<(), AccelError> {
        // The lock is held meanwhile, so that nobody passes before the routes are set.
        let mut routing = self.routing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = || AccelError::Unsupported("KVM_SET_GSI_ROUTING: the thread failed".to_owned());
        routing.take().map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| Err(failed())))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patches(&self) -> MutexGuard<'_, debug::Patches> {
        self.patches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kickers(&self) -> MutexGuard<'_, Vec<Arc<Kicker>>> {
        self.kickers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_kicker(&self, kicker: &Arc<Kicker>) {
        self.kickers().push(Arc::clone(kicker));
    }

    fn forget_kicker(&self, kicker: &Arc<Kicker>) {
        self.kickers().retain(|other| !Arc::ptr_eq(other, kicker));
    }

    /// The interrupt input of vCPU `index`, if not all its interrupts come from the kernel.
    fn input_of(&self, index: u32) -> Option<Arc<Input>> {
        let has_one = match self.irqchip {
            IrqChip::On => false,
            IrqChip::Split => index == 0,
            IrqChip::Off => true,
        };
        if !has_one {
            return None;
        }
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        let index = index as usize;
        while inputs.len() <= index {
            inputs.push(Arc::default());
        }
        inputs.get(index).cloned()
    }

    fn end_of_interrupt(&self, vector: u8) {
        if let Some(eoi) = self.eoi.get() {
            eoi(vector);
        }
    }

    fn read_memory(&self, gpa: u64, buf: &mut [u8]) -> usize {
        self.slots().read(gpa, buf)
    }

    /// A vCPU asks to run; waits while memory changes.
    fn enter(&self) -> Entered<'_> {
        loop {
            if self.closed.load(Ordering::SeqCst) {
                drop(self.gate.lock().unwrap_or_else(PoisonError::into_inner));
            }
            let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
            if !self.closed.load(Ordering::SeqCst) {
                return Entered(running);
            }
        }
    }

    /// Runs `change` while no vCPU is in the guest: one that met memory half changed could fail to fetch an
    /// instruction, which ends the machine.
    fn exclude_vcpus<T>(&self, change: impl FnOnce() -> T) -> T {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::SeqCst);
        for kicker in self.kickers().iter() {
            kicker.nudge();
        }
        let running: RwLockWriteGuard<'_, ()> = self.running.write().unwrap_or_else(PoisonError::into_inner);
        let result = change();
        self.closed.store(false, Ordering::SeqCst);
        drop(running);
        drop(gate);
        result
    }
}

/// A KVM virtual machine.
pub struct Kvm {
    vm: Arc<Vm>,
}

/// Opens `/dev/kvm` and makes a virtual machine, whose kernel has those interrupt controllers. Also returns a warning
/// for each optional feature that the host lacks.
///
/// # Errors
/// There is no KVM, it may not be used, or it lacks something without which nothing runs.
pub fn open(irqchip: IrqChip) -> Result<(Kvm, Vec<String>), AccelError> {
    open_at(Path::new("/dev/kvm"), irqchip)
}

fn open_at(path: &Path, irqchip: IrqChip) -> Result<(Kvm, Vec<String>), AccelError> {
    let device = open_device(path)?;
    let version = device.get_api_version();
    if version != API_VERSION {
        return Err(AccelError::Unsupported(format!(
            "{} speaks version {version} of the KVM interface, this program version {API_VERSION}",
            path.display()
        )));
    }
    let missing = caps::missing(&device);
    if !missing.required.is_empty() {
        let list = missing.required.join(", ");
        return Err(AccelError::Unsupported(format!("the host's KVM lacks {list}; a newer kernel has it")));
    }
    Ok((Kvm::create(device, irqchip)?, missing.warnings))
}

fn open_device(path: &Path) -> Result<KvmSystem, AccelError> {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| AccelError::Unsupported("a device's name has no zero byte".to_owned()))?;
    KvmSystem::new_with_path(&name).map_err(|error| {
        let error = io::Error::from_raw_os_error(error.errno());
        AccelError::Unsupported(diagnose(path, &error, &fs::read_to_string("/proc/cpuinfo").unwrap_or_default()))
    })
}

/// What a person must do to get a KVM device that opens.
fn diagnose(path: &Path, error: &io::Error, cpuinfo: &str) -> String {
    let path = path.display();
    let advice = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "you may not use it: add yourself to the group kvm ('sudo usermod -aG kvm $USER') and log in again"
        }
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => match super::virtualization_flag(cpuinfo) {
            Some("vmx") => {
                "load the module ('sudo modprobe kvm_intel'); if that fails, enable Intel VT-x in the BIOS setup"
            }
            Some(_) => "load the module ('sudo modprobe kvm_amd'); if that fails, enable AMD-V (SVM) in the BIOS setup",
            None => {
                "this CPU shows neither vmx nor svm: enable virtualization in the BIOS setup, or in the hypervisor \
                 that this host is a guest of"
            }
        },
        Some(libc::EBUSY) => "another hypervisor uses the CPU's virtualization",
        _ => "the kernel refuses it",
    };
    let reason = reason(error);
    format!("Could not access KVM kernel module: {path}: {reason}: {advice}")
}

impl Kvm {
    fn create(kvm: KvmSystem, irqchip: IrqChip) -> Result<Self, AccelError> {
        let fd = Arc::new(create_vm(&kvm)?);
        if fd.check_extension(Cap::SetIdentityMapAddr) {
            fd.set_identity_map_address(IDENTITY_MAP_ADDRESS)
                .map_err(|e| host_error("KVM_SET_IDENTITY_MAP_ADDR", e))?;
        }
        fd.set_tss_address(TSS_ADDRESS).map_err(|e| host_error("KVM_SET_TSS_ADDR", e))?;
        let mut routing = None;
        let mut chips = None;
        match irqchip {
            IrqChip::On => {
                routing = Some(create_chips(&fd)?);
                chips = Some(irq::Chips::read(&fd)?);
            }
            IrqChip::Split => irq::split(&fd)?,
            IrqChip::Off => {}
        }
        let xsave_len = usize::try_from(fd.check_extension_int(Cap::Xsave2)).unwrap_or(0);
        let vm = Vm {
            has_xsave: fd.check_extension(Cap::Xsave),
            xsave_len,
            has_xcrs: fd.check_extension(Cap::Xcrs),
            has_debugregs: fd.check_extension(Cap::Debugregs),
            has_clock: fd.check_extension(Cap::AdjustClock),
            has_payload: false,
            has_smm: fd.check_extension(Cap::X86Smm),
            can_block_interrupts: debug::can_block_interrupts(&fd),
            kvm,
            fd,
            slots: Mutex::default(),
            coalesced: Arc::default(),
            model: OnceLock::new(),
            msrs: msr::MsrTable::default(),
            kickers: Mutex::default(),
            running: RwLock::new(()),
            closed: AtomicBool::new(false),
            gate: Mutex::new(()),
            chips,
            routing: Mutex::new(routing),
            irqchip,
            inputs: Mutex::default(),
            eoi: OnceLock::new(),
            resumes: AtomicU64::new(0),
            stopped_clock: Mutex::new(None),
            patches: Mutex::default(),
        };
        Ok(Self { vm: Arc::new(vm) })
    }

    fn stopped_clock(&self) -> MutexGuard<'_, Option<kvm_clock_data>> {
        self.vm.stopped_clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the interrupt controllers and the PIT; the thread sets the routes.
fn create_chips(fd: &Arc<VmFd>) -> Result<JoinHandle<Result<(), AccelError>>, AccelError> {
    fd.create_irq_chip().map_err(|e| host_error("KVM_CREATE_IRQCHIP", e))?;
    // Setting the routes waits 2 to 4 ms for the kernel's readers (kvm_pvm, Linux 6.18), as the first memory slot
    // does; the two go on at once.
    let routes_of = Arc::clone(fd);
    let routing = thread::Builder::new()
        .name("kvm-setup".to_owned())
        .spawn(move || irq::set_pc_routes(&routes_of))
        .map_err(|e| io_error("kvm-setup", e))?;
    // Lost ticks are delivered late, which is the kernel's default and what old guests' clocks need.
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    fd.create_pit2(pit).map_err(|e| host_error("KVM_CREATE_PIT2", e))?;
    Ok(routing)
}

/// KVM_CREATE_VM; a signal may interrupt it.
fn create_vm(kvm: &KvmSystem) -> Result<VmFd, AccelError> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(|e| host_error("KVM_CREATE_VM", e)),
        }
    }
}

impl Accelerator for Kvm {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn set_memory(&self, ranges: &[RamRange]) -> Result<(), AccelError> {
        let plan = self.vm.slots().plan(ranges);
        if plan.is_empty() {
            return Ok(());
        }
        let removes = plan.removes();
        let change = || self.vm.slots().apply(&self.vm.fd, plan);
        if removes { self.vm.exclude_vcpus(change) } else { change() }
    }

    fn sync_dirty(&self) {
        self.vm.slots().sync_dirty(&self.vm.fd);
    }

    fn host_cpu(&self) -> Result<HostCpu, AccelError> {
        let table = self
            .vm
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| host_error("KVM_GET_SUPPORTED_CPUID", e))?;
        let tsc_deadline = self.vm.fd.check_extension(Cap::TscDeadlineTimer);
        let arch_capabilities = msr::arch_capabilities(&self.vm.kvm);
        let host = HostCpu::kvm(cpuid::leaves(&table), cpuid::native, tsc_deadline, arch_capabilities);
        Ok(if self.vm.irqchip == IrqChip::Off { host.without_kernel_apic() } else { host })
    }

    fn set_cpu_model(&self, model: Arc<CpuModel>) {
        // The first choice stays: vCPUs may exist already.
        let _ = self.vm.model.set(model);
    }

    fn reset_chips(&self) -> Result<(), AccelError> {
        self.vm.chips.as_ref().map_or(Ok(()), |chips| chips.write(&self.vm.fd))
    }

    fn check_cpu_count(&self, cpus: u32, max_cpus: u32) -> Result<Vec<String>, AccelError> {
        let kvm = &self.vm.kvm;
        let limit = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        count_cpus(cpus, max_cpus, limit(kvm.get_nr_vcpus()), || limit(kvm.get_max_vcpus()))
    }

    fn create_vcpu(&self, index: u32) -> Result<Box<dyn Vcpu>, AccelError> {
        let vcpu = KvmVcpu::new(&self.vm, index)?;
        self.vm.finish_setup()?;
        Ok(Box::new(vcpu))
    }

    fn irqchip(&self) -> Option<Arc<dyn LineSink>> {
        (self.vm.irqchip == IrqChip::On).then(|| Arc::new(KernelIrqChip { vm: Arc::clone(&self.vm.fd) }) as _)
    }

    fn cpu_pins(&self, index: u32) -> Option<Arc<dyn CpuPins>> {
        self.vm.input_of(index).map(|input| input as Arc<dyn CpuPins>)
    }

    fn attach_local_apic(&self, index: u32, apic: Arc<dyn LocalApic>) {
        if let Some(input) = self.vm.input_of(index) {
            input.attach_apic(apic);
        }
    }

    fn msi_sink(&self) -> Option<Arc<dyn MsiSink>> {
        (self.vm.irqchip == IrqChip::Split).then(|| Arc::new(KernelApics { vm: Arc::clone(&self.vm.fd) }) as _)
    }

    fn message_sink(&self) -> Option<Arc<dyn MsiSink>> {
        (self.vm.irqchip != IrqChip::Off).then(|| Arc::new(KernelApics { vm: Arc::clone(&self.vm.fd) }) as _)
    }

    fn attach_io_controllers(&self, eoi: EoiSink, acknowledge: Acknowledge) {
        // The machine calls this once.
        let _ = self.vm.eoi.set(eoi);
        if let Some(input) = self.vm.input_of(0) {
            input.attach_pics(acknowledge);
        }
    }

    fn irqchip_state(&self) -> Option<IrqChipState> {
        self.vm.chips.as_ref().and_then(|_| irqchip::state(&self.vm.fd))
    }

    fn add_ioevent(&self, event: IoEvent, fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        irq::ioeventfd(&self.vm.fd, event, fd, true)
    }

    fn remove_ioevent(&self, event: IoEvent, fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        irq::ioeventfd(&self.vm.fd, event, fd, false)
    }

    fn add_irqfd(&self, gsi: u32, fd: BorrowedFd<'_>, resample: Option<BorrowedFd<'_>>) -> Result<(), AccelError> {
        self.vm.finish_setup()?;
        irq::add_irqfd(&self.vm.fd, gsi, fd, resample)
    }

    fn remove_irqfd(&self, gsi: u32, fd: BorrowedFd<'_>) -> Result<(), AccelError> {
        irq::remove_irqfd(&self.vm.fd, gsi, fd)
    }

    fn set_pit_replaced(&self, replaced: bool) -> Result<(), AccelError> {
        let mut pit = self.vm.fd.get_pit2().map_err(|e| host_error("KVM_GET_PIT2", e))?;
        if replaced {
            pit.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
        } else {
            pit.flags &= !KVM_PIT_FLAGS_HPET_LEGACY;
        }
        self.vm.fd.set_pit2(&pit).map_err(|e| host_error("KVM_SET_PIT2", e))
    }

    fn set_pit_discards_lost_ticks(&self, discards: bool) -> Result<bool, AccelError> {
        if self.vm.chips.is_none() {
            return Ok(false);
        }
        sys::set_pit_reinject(&self.vm.fd, !discards).map_err(|e| io_error("KVM_REINJECT_CONTROL", e))?;
        Ok(true)
    }

    fn post_writes(&self, ranges: &[PostedRange]) -> Result<Option<Arc<dyn PostedWrites>>, AccelError> {
        let ranges = coalesced::collectable(&self.vm.fd, ranges);
        let any = !ranges.is_empty();
        self.vm.coalesced.want(ranges);
        Ok(any.then(|| Arc::clone(&self.vm.coalesced) as Arc<dyn PostedWrites>))
    }

    fn machine_stopped(&self) {
        let mut stopped = self.stopped_clock();
        if self.vm.has_clock && stopped.is_none() {
            // Without the value the clock merely runs on, as it does on hosts that cannot stop it.
            *stopped = self.vm.fd.get_clock().ok();
        }
    }

    fn machine_started(&self) {
        let Some(stopped) = self.stopped_clock().take() else { return };
        let clock = kvm_clock_data { clock: stopped.clock, ..Default::default() };
        if let Err(error) = self.vm.fd.set_clock(&clock) {
            log::warn!("KVM_SET_CLOCK: {error}");
        }
        self.vm.resumes.fetch_add(1, Ordering::Release);
    }
}

/// QEMU's words about more processors than the kernel recommends, or allows.
fn count_cpus(
    cpus: u32,
    max_cpus: u32,
    recommended: u32,
    limit: impl FnOnce() -> u32,
) -> Result<Vec<String>, AccelError> {
    let asked = [("SMP", cpus), ("hotpluggable", max_cpus)];
    let too_many: Vec<_> = asked.into_iter().filter(|(_, count)| *count > recommended).collect();
    if too_many.is_empty() {
        return Ok(Vec::new());
    }
    let limit = limit();
    if let Some((what, count)) = too_many.iter().find(|(_, count)| *count > limit) {
        return Err(AccelError::Unsupported(format!(
            "Number of {what} cpus requested ({count}) exceeds the maximum cpus supported by KVM ({limit})"
        )));
    }
    let warning = |(what, count): &(&str, u32)| {
        format!(
            "Number of {what} cpus requested ({count}) exceeds the recommended cpus supported by KVM ({recommended})"
        )
    };
    Ok(too_many.iter().map(warning).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(errno: i32, cpuinfo: &str) -> String {
        diagnose(Path::new("/dev/kvm"), &io::Error::from_raw_os_error(errno), cpuinfo)
    }

    #[test]
    fn a_missing_device_names_the_module_of_the_cpu() {
        assert!(advice(libc::ENOENT, "flags\t\t: fpu vmx sse").contains("modprobe kvm_intel"));
        assert!(advice(libc::ENOENT, "flags\t\t: fpu svm sse").contains("modprobe kvm_amd"));
        assert!(advice(libc::ENOENT, "flags\t\t: fpu sse").contains("BIOS"));
    }

    #[test]
    fn a_forbidden_device_names_the_group() {
        let text = advice(libc::EACCES, "");
        assert!(text.starts_with("Could not access KVM kernel module: /dev/kvm: Permission denied: "));
        assert!(text.contains("group kvm"));
    }

    #[test]
    fn many_processors_are_a_warning_and_too_many_an_error() {
        assert!(count_cpus(2, 2, 2, || 8).unwrap().is_empty());
        assert_eq!(
            count_cpus(4, 8, 2, || 8).unwrap(),
            [
                "Number of SMP cpus requested (4) exceeds the recommended cpus supported by KVM (2)",
                "Number of hotpluggable cpus requested (8) exceeds the recommended cpus supported by KVM (2)",
            ]
        );
        let error = count_cpus(2, 9, 2, || 8).unwrap_err().to_string();
        assert_eq!(error, "Number of hotpluggable cpus requested (9) exceeds the maximum cpus supported by KVM (8)");
    }

    #[test]
    fn opening_what_is_no_device_is_an_error() {
        assert!(open_at(Path::new("/nonexistent/kvm"), IrqChip::On).is_err());
    }
}
