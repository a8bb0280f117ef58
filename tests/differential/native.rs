//! Runs a few bytes of code on the host's processor with given registers, and catches what comes of it.
//!
//! The code runs in this process at fixed addresses; whatever it does ends in a signal (an INT3 follows it), whose
//! handler copies the registers and returns to the caller. One thread, one case at a time.
#![expect(unsafe_code, reason = "runs generated code natively")]

use std::arch::global_asm;
use std::sync::Once;

/// Linear address of the code page.
pub const CODE: u64 = 0x4000_0000;
/// The instruction begins this far into the code page.
pub const CODE_OFFSET: u64 = 0x800;
/// Linear address of the writable pages.
pub const DATA: u64 = 0x4010_0000;
/// Bytes of writable memory.
pub const DATA_LEN: usize = 0x2000;
/// Linear address of a page that cannot be written.
pub const READ_ONLY: u64 = 0x4020_0000;
/// Base of GS in 64-bit mode.
pub const GS_BASE: u64 = 0x1234_5000;
/// ARCH_SET_GS of arch_prctl(2).
const ARCH_SET_GS: libc::c_int = 0x1001;
/// Bytes of an xsave image that are enough for every component up to PKRU.
pub const XSAVE_LEN: usize = 4096;

/// Registers before and after.
#[repr(C, align(64))]
#[derive(Clone, PartialEq, Eq)]
pub struct Registers {
    /// Standard (non-compacted) XSAVE area.
    pub xsave: [u8; XSAVE_LEN],
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub flags: u64,
    /// RIP.
    pub rip: u64,
}

impl Registers {
    /// All zero.
    pub fn zero() -> Box<Self> {
        Box::new(Self { xsave: [0; XSAVE_LEN], gpr: [0; 16], flags: 0, rip: 0 })
    }
}

/// Why the code stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop {
    /// Exception vector.
    pub vector: u64,
    /// Its error code.
    pub error: u64,
    /// CR2.
    pub address: u64,
}

global_asm!(
    ".globl dromaius_native_enter",
    "dromaius_native_enter:",
    // rdi: registers, rsi: 0 for 64-bit code, 1 for 32-bit code
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + dromaius_native_stack], rsp",
    // x87, SSE, AVX, AVX-512, PKRU
    "mov eax, 0x2e7",
    "xor edx, edx",
    "xrstor64 [rdi]",
    "mov rax, [rdi + {rip}]",
    "mov [rip + dromaius_native_target], rax",
    "mov r11, rdi",
    "push qword ptr [rdi + {flags}]",
    "test rsi, rsi",
    "jne 2f",
    "xor eax, eax",
    "mov ds, eax",
    "mov es, eax",
    "popfq",
    "mov rax, [r11 + {gpr}]",
    "mov rcx, [r11 + {gpr} + 8]",
    "mov rdx, [r11 + {gpr} + 16]",
    "mov rbx, [r11 + {gpr} + 24]",
    "mov rsp, [r11 + {gpr} + 32]",
    "mov rbp, [r11 + {gpr} + 40]",
    "mov rsi, [r11 + {gpr} + 48]",
    "mov rdi, [r11 + {gpr} + 56]",
    "mov r8, [r11 + {gpr} + 64]",
    "mov r9, [r11 + {gpr} + 72]",
    "mov r10, [r11 + {gpr} + 80]",
    "mov r12, [r11 + {gpr} + 96]",
    "mov r13, [r11 + {gpr} + 104]",
    "mov r14, [r11 + {gpr} + 112]",
    "mov r15, [r11 + {gpr} + 120]",
    "mov r11, [r11 + {gpr} + 88]",
    "jmp qword ptr [rip + dromaius_native_target]",
    "2:",
    "mov eax, 0x2b",
    "mov ds, eax",
    "mov es, eax",
    "popfq",
    "mov eax, [r11 + {gpr}]",
    "mov ecx, [r11 + {gpr} + 8]",
    "mov edx, [r11 + {gpr} + 16]",
    "mov ebx, [r11 + {gpr} + 24]",
    "mov esp, [r11 + {gpr} + 32]",
    "mov ebp, [r11 + {gpr} + 40]",
    "mov esi, [r11 + {gpr} + 48]",
    "mov edi, [r11 + {gpr} + 56]",
    "mov dword ptr [rip + dromaius_native_target + 4], 0x23",
    "jmp fword ptr [rip + dromaius_native_target]",
    ".globl dromaius_native_return",
    "dromaius_native_return:",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "fninit",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "pop rax",
    "cld",
    "ret",
    // The kernel enters handlers with the alignment check that the code may have switched on.
    ".globl dromaius_native_caught",
    "dromaius_native_caught:",
    "pushfq",
    "and dword ptr [rsp], 0xfffbffff",
    "popfq",
    "jmp {caught}",
    ".data",
    ".balign 8",
    ".globl dromaius_native_stack",
    "dromaius_native_stack: .quad 0",
    "dromaius_native_target: .quad 0",
    ".text",
    gpr = const std::mem::offset_of!(Registers, gpr),
    flags = const std::mem::offset_of!(Registers, flags),
    rip = const std::mem::offset_of!(Registers, rip),
    caught = sym caught,
);

unsafe extern "C" {
    fn dromaius_native_enter(registers: *const Registers, compat: u64);
    fn dromaius_native_return();
    fn dromaius_native_caught();
    static dromaius_native_stack: u64;
}

static mut CAUGHT: Option<Stop> = None;
static mut AFTER: *mut Registers = std::ptr::null_mut();

/// Bytes of the frame's floating-point image: what the kernel says it saved.
fn image_len(frame: *const u8) -> usize {
    // SAFETY: the kernel's frame holds an FXSAVE image; its software-reserved bytes say how long the image is.
    let (magic, extended) =
        unsafe { (frame.add(464).cast::<u32>().read_unaligned(), frame.add(468).cast::<u32>().read_unaligned()) };
    if magic == 0x4650_5853 { (extended as usize).min(XSAVE_LEN) } else { 512 }
}

extern "C" fn caught(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext to handlers with SA_SIGINFO; one thread uses the statics.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let order = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        let after = &mut *AFTER;
        for (to, from) in after.gpr.iter_mut().zip(order) {
            *to = registers[from as usize] as u64;
        }
        after.flags = registers[libc::REG_EFL as usize] as u64;
        after.rip = registers[libc::REG_RIP as usize] as u64;
        let image = context.uc_mcontext.fpregs.cast::<u8>();
        if !image.is_null() {
            let len = image_len(image);
            after.xsave.fill(0);
            std::ptr::copy_nonoverlapping(image, after.xsave.as_mut_ptr(), len);
        }
        CAUGHT = Some(Stop {
            vector: registers[libc::REG_TRAPNO as usize] as u64,
            error: registers[libc::REG_ERR as usize] as u64,
            address: registers[libc::REG_CR2 as usize] as u64,
        });
        registers[libc::REG_RIP as usize] = dromaius_native_return as *const () as i64;
        registers[libc::REG_RSP as usize] = dromaius_native_stack as i64;
        registers[libc::REG_EFL as usize] = 0x202;
        let selectors = &mut registers[libc::REG_CSGSFS as usize];
        // CS in bits 15-0, SS in bits 63-48.
        *selectors = (*selectors & 0x0000_ffff_ffff_0000) | 0x33 | (0x2b << 48);
    }
}

fn map(address: u64, len: usize, protection: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: a new mapping at an address where nothing is (NOREPLACE).
    let at = unsafe { libc::mmap(address as *mut libc::c_void, len, protection, flags, -1, 0) };
    assert_eq!(at as u64, address, "the test's addresses are free");
}

/// Maps the pages and installs the handlers, once.
pub fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        map(CODE, 0x1000, libc::PROT_READ | libc::PROT_WRITE);
        map(DATA, DATA_LEN, libc::PROT_READ | libc::PROT_WRITE);
        map(READ_ONLY, 0x1000, libc::PROT_READ);
        // The kernel maps the page when it is read.
        // SAFETY: the page was just mapped.
        unsafe { (READ_ONLY as *const u8).read_volatile() };
        // SAFETY: nothing uses GS in 64-bit programs of Linux.
        let set = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE) };
        assert_eq!(set, 0, "GS can have a base");
        let stack = vec![0u8; 1 << 16].leak();
        let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        // SAFETY: the stack is leaked, so it is there for ever.
        unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            // SAFETY: an all-zero sigaction is valid; its fields are set below.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = dromaius_native_caught as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            // SAFETY: the action is initialised and its handler fits SA_SIGINFO.
            unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
    });
}

/// The present content of a mapped page range.
pub fn memory(address: u64, len: usize) -> &'static mut [u8] {
    // SAFETY: only called for the ranges that `set_up` mapped, by the one thread that uses them.
    unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) }
}

/// Puts the instruction into the code page, with INT3 all around it.
pub fn set_code(bytes: &[u8]) {
    // SAFETY: the page is this module's own.
    unsafe { libc::mprotect(CODE as *mut libc::c_void, 0x1000, libc::PROT_READ | libc::PROT_WRITE) };
    let page = memory(CODE, 0x1000);
    page.fill(0xcc);
    let at = CODE_OFFSET as usize;
    page[at..at + bytes.len()].copy_from_slice(bytes);
    // SAFETY: the page is this module's own.
    unsafe { libc::mprotect(CODE as *mut libc::c_void, 0x1000, libc::PROT_READ | libc::PROT_EXEC) };
}

/// Runs the code with `before`; the registers at the stop go to `after`.
pub fn run(before: &Registers, after: &mut Registers, compat: bool) -> Stop {
    // SAFETY: `set_up` was called; every way out of the code ends in the handler, which returns to the caller of
    // `dromaius_native_enter` with its stack and callee-saved registers.
    unsafe {
        AFTER = after;
        CAUGHT = None;
        dromaius_native_enter(before, u64::from(compat));
        (&raw const CAUGHT).read().expect("a signal ended the code")
    }
}
