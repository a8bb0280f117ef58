//! A barrier that every thread of the process passes, so that frequent code needs none of its own (membarrier(2)).
#![expect(unsafe_code)] // UNSAFE: mprotect on a page of its own, for kernels that refuse membarrier

use std::io;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::thread::{MembarrierCommand, membarrier};

/// One page of memory.
const LEN: usize = 4096;

/// The means to make all threads pass a barrier.
#[derive(Debug)]
pub enum ProcessBarrier {
    /// The system call.
    Call,
    /// A page whose mapping is restricted: the kernel interrupts every processor that runs a thread of this process.
    Page(Mutex<Page>),
}

/// A page of this process.
#[derive(Debug)]
pub struct Page(usize);

impl ProcessBarrier {
    /// Prepares it.
    ///
    /// # Errors
    /// The host has neither the system call nor a page of memory.
    pub fn new() -> io::Result<Self> {
        if membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok() {
            return Ok(Self::Call);
        }
        Ok(Self::Page(Mutex::new(Page::new()?)))
    }

    /// Returns after every other thread of the process has passed a full barrier.
    pub fn pass(&self) {
        match self {
            Self::Call => {
                let passed = membarrier(MembarrierCommand::PrivateExpedited);
                debug_assert!(passed.is_ok(), "registered above");
            }
            Self::Page(page) => page.lock().unwrap_or_else(PoisonError::into_inner).restrict(),
        }
    }
}

impl Page {
    fn new() -> io::Result<Self> {
        // SAFETY: a new anonymous mapping anywhere touches nothing that exists.
        let page = unsafe { mmap_anonymous(null_mut(), LEN, ProtFlags::READ, MapFlags::PRIVATE) }?;
        Ok(Self(page as usize))
    }

    fn restrict(&mut self) {
        let page = self.0 as *mut u8;
        // SAFETY: the page is this object's own mapping; nobody else knows its address.
        let writable = unsafe { mprotect(page.cast(), LEN, MprotectFlags::READ | MprotectFlags::WRITE) };
        if writable.is_err() {
            return;
        }
        // SAFETY: the page was just made writable, and `&mut self` keeps others from restricting it in between.
        unsafe { page.write_volatile(1) };
        // SAFETY: as above.
        let _restricted = unsafe { mprotect(page.cast(), LEN, MprotectFlags::READ) };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping came from `new` and has one owner.
        let _unmapped = unsafe { munmap((self.0 as *mut u8).cast(), LEN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_means_can_be_used_again_and_again() {
        let call = ProcessBarrier::new().unwrap();
        call.pass();
        call.pass();
        let page = ProcessBarrier::Page(Mutex::new(Page::new().unwrap()));
        page.pass();
        page.pass();
    }
}
