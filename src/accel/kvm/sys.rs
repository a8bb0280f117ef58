//! The KVM ioctls that kvm-ioctls does not have, or has with less than the kernel offers.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{kvm_interrupt, kvm_ioeventfd, kvm_irqfd, kvm_reinject_control};

/// The ioctl type of all KVM requests (linux/kvm.h).
const KVMIO: libc::c_ulong = 0xae;

/// A request that the kernel reads a `T` of (`_IOW`).
const fn iow<T>(number: libc::c_ulong) -> libc::c_ulong {
    (1 << 30) | ((size_of::<T>() as libc::c_ulong) << 16) | (KVMIO << 8) | number
}

const KVM_IRQFD: libc::c_ulong = iow::<kvm_irqfd>(0x76);
const KVM_IOEVENTFD: libc::c_ulong = iow::<kvm_ioeventfd>(0x79);
const KVM_INTERRUPT: libc::c_ulong = iow::<kvm_interrupt>(0x86);
/// Declared without a structure (`_IO`), though the kernel reads one.
const KVM_REINJECT_CONTROL: libc::c_ulong = (KVMIO << 8) | 0x71;
const KVM_X86_SETUP_MCE: libc::c_ulong = iow::<u64>(0x9c);

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches or detaches an eventfd that raises a global system interrupt.
pub(super) fn irqfd(vm: &impl AsRawFd, request: &kvm_irqfd) -> io::Result<()> {
    // SAFETY: the kernel reads one kvm_irqfd, which the reference proves valid; it checks both descriptors itself.
    check(unsafe { libc::ioctl(vm.as_raw_fd(), KVM_IRQFD, std::ptr::from_ref(request)) })
}

/// Attaches or detaches an eventfd that takes guest writes.
pub(super) fn ioeventfd(vm: &impl AsRawFd, request: &kvm_ioeventfd) -> io::Result<()> {
    // SAFETY: the kernel reads one kvm_ioeventfd, which the reference proves valid; it checks the descriptor itself.
    check(unsafe { libc::ioctl(vm.as_raw_fd(), KVM_IOEVENTFD, std::ptr::from_ref(request)) })
}

/// Queues an external interrupt for the guest's next entry.
pub(super) fn interrupt(vcpu: &impl AsRawFd, vector: u32) -> io::Result<()> {
    let request = kvm_interrupt { irq: vector };
    // SAFETY: the kernel reads one kvm_interrupt, which is alive for the call.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_INTERRUPT, &raw const request) })
}

/// Sets IA32_MCG_CAP, and with it the number of machine-check banks.
pub(super) fn setup_mce(vcpu: &impl AsRawFd, mcg_cap: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64, which the reference proves valid.
    check(unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_X86_SETUP_MCE, std::ptr::from_ref(&mcg_cap)) })
}

/// Whether the in-kernel PIT delivers late what it could not deliver in time.
pub(super) fn set_pit_reinject(vm: &impl AsRawFd, reinject: bool) -> io::Result<()> {
    let request = kvm_reinject_control { pit_reinject: u8::from(reinject), ..Default::default() };
    // SAFETY: the kernel reads one kvm_reinject_control, which the reference proves valid.
    check(unsafe { libc::ioctl(vm.as_raw_fd(), KVM_REINJECT_CONTROL, std::ptr::from_ref(&request)) })
}

/// A descriptor as the kernel's request structures carry it.
pub(super) fn raw(fd: BorrowedFd<'_>) -> i32 {
    fd.as_raw_fd()
}
