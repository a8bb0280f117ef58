//! Memory for code that the program generates. It is mapped twice, so that no mapping is writable and executable.
#![expect(unsafe_code)] // UNSAFE: mappings are made and written through raw pointers

use std::ffi::c_void;
use std::io;
use std::ptr;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Zero-filled memory with a writable and an executable mapping.
#[derive(Debug)]
pub struct CodeMemory {
    writable: *mut c_void,
    executable: *mut c_void,
    len: usize,
}

// SAFETY: the mappings belong to the structure alone; writing needs `&mut`.
unsafe impl Send for CodeMemory {}
// SAFETY: through `&` only addresses are told.
unsafe impl Sync for CodeMemory {}

impl CodeMemory {
    /// `len` bytes; the host gives memory to what is written only.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new(len: usize) -> io::Result<Self> {
        let fd = memfd_create("dromaius-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len as u64)?;
        let map = |protection| {
            // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
            unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, &fd, 0) }
        };
        let writable = map(ProtFlags::READ | ProtFlags::WRITE)?;
        match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(executable) => Ok(Self { writable, executable, len }),
            Err(error) => {
                // SAFETY: the mapping was made above, and nobody knows its address.
                let _ = unsafe { munmap(writable, len) }; // the first error counts
                Err(error.into())
            }
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the code executes.
    #[must_use]
    pub fn address(&self) -> usize {
        self.executable as usize
    }

    /// Writes code `at` bytes into the memory; false, and nothing is written, if it does not fit.
    pub fn write(&mut self, at: usize, code: &[u8]) -> bool {
        if at.checked_add(code.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        // SAFETY: `at..at + code.len()` lies in the mapping (checked above), which overlaps no Rust object.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), self.writable.cast::<u8>().add(at), code.len()) };
        true
    }
}

impl Drop for CodeMemory {
    fn drop(&mut self) {
        for mapping in [self.writable, self.executable] {
            // SAFETY: both mappings were made by `new` with this length and have one owner.
            let _ = unsafe { munmap(mapping, self.len) }; // nothing to be done about a refusal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_executable() {
        let mut memory = CodeMemory::new(4096).unwrap();
        // mov eax,42; ret
        assert!(memory.write(64, &[0xb8, 42, 0, 0, 0, 0xc3]));
        // SAFETY: a complete function without arguments was written there.
        let function: extern "sysv64" fn() -> u32 = unsafe { std::mem::transmute(memory.address() + 64) };
        assert_eq!(function(), 42);
    }

    #[test]
    fn nothing_is_written_beyond_the_end() {
        let mut memory = CodeMemory::new(4096).unwrap();
        assert!(!memory.write(4095, &[1, 2]));
        assert!(!memory.write(usize::MAX, &[1]));
    }
}
