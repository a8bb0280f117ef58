//! Calls of native stubs, and host instructions that Rust has no words for.
#![expect(unsafe_code)] // UNSAFE: generated code is called, and FXSAVE writes through a pointer

use std::arch::asm;
use std::arch::x86_64::_fxsave64;

use super::super::cpu::{Cpu, Status};
use super::state::X87;
use super::stub::Stub;

/// 512 bytes as FXSAVE wants them aligned.
#[repr(C, align(64))]
struct Area([u8; 512]);

/// The bits that MXCSR has (SDM volume 1, 11.6.6).
pub(super) fn mxcsr_mask() -> u32 {
    let mut area = Area([0; 512]);
    // SAFETY: the area is 512 bytes, 16-byte aligned and ours; every x86-64 processor has FXSR.
    unsafe { _fxsave64(area.0.as_mut_ptr()) };
    match u32::from_le_bytes([area.0[28], area.0[29], area.0[30], area.0[31]]) {
        0 => 0xffbf,
        // Without AMD's misaligned mode (bit 17), which guests are not offered.
        mask => mask & 0xffff,
    }
}

/// Loads the x87 and MMX registers of the host.
pub(super) fn load_x87(x87: &mut X87) {
    x87.set_host_mxcsr();
    // SAFETY: the area is 512 bytes, aligned, and came from FXSAVE64 or is valid like one; Rust code does not use x87,
    // and the XMM registers are declared to be changed.
    unsafe { asm!("fxrstor64 [{}]", in(reg) x87.0.as_ptr(), clobber_abi("sysv64"), options(nostack)) };
}

/// Stores the x87 and MMX registers of the host.
pub(super) fn save_x87(x87: &mut X87) {
    // SAFETY: the area is 512 bytes, aligned and ours.
    unsafe { asm!("fxsave64 [{}]", in(reg) x87.0.as_mut_ptr(), options(nostack)) };
}

/// The status word of the host's registers.
pub(super) fn fsw() -> u16 {
    let fsw: u16;
    // SAFETY: reads a register.
    unsafe { asm!("fnstsw ax", out("ax") fsw, options(nomem, nostack, preserves_flags)) };
    fsw
}

/// The control word of the host's registers.
pub(super) fn fcw() -> u16 {
    let mut fcw: u16 = 0;
    // SAFETY: stores two bytes there.
    unsafe { asm!("fnstcw [{}]", in(reg) &raw mut fcw, options(nostack, preserves_flags)) };
    fcw
}

/// Changes the control word of the host's registers; no unmasked exception may be pending.
pub(super) fn set_fcw(fcw: u16) {
    // SAFETY: loads two bytes; Rust code does not use x87.
    unsafe { asm!("fldcw [{}]", in(reg) &raw const fcw, options(nostack, preserves_flags)) };
}

/// FNCLEX on the host's registers.
pub(super) fn clear_exceptions() {
    // SAFETY: Rust code does not use x87.
    unsafe { asm!("fnclex", options(nomem, nostack, preserves_flags)) };
}

/// Executes a stub on the processor's registers. The result is the arithmetic flags, or what
/// [`crate::host::trap::TRAPPED`] describes; then no register has changed.
#[inline(always)]
pub(super) fn call(cpu: &mut Cpu, entry: usize) -> u32 {
    type Entry = extern "sysv64" fn(*mut super::VectorState, *mut u64, u32) -> u32;
    // SAFETY: `entry` is an entry of a complete stub, written by `stub::stub` (or of the slot, held by the caller),
    // in memory that is never unmapped.
    let entry: Entry = unsafe { std::mem::transmute(entry) };
    // The stub accesses the image and the 16 registers only, and keeps what the calling convention says.
    entry(&raw mut cpu.vector, cpu.gpr.as_mut_ptr(), u32::from(cpu.status.0))
}

/// A stub as a number.
pub(super) fn keep(stub: &'static Stub) -> u64 {
    std::ptr::from_ref(stub) as u64
}

/// The stub that [`keep`] made the number of.
#[inline(always)]
pub(super) fn kept(number: u64) -> &'static Stub {
    // SAFETY: handlers that call this are chosen by `run::handler` only, together with the number of a stub that lives
    // forever.
    unsafe { &*(number as *const Stub) }
}

/// The arithmetic flags of a result of [`call`].
#[inline(always)]
pub(super) fn status(result: u32) -> Status {
    Status(result as u16)
}
