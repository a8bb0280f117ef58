//! Accesses to what is not RAM: the bus, and the processor's own local APIC.
#![expect(unsafe_code)] // UNSAFE: a borrowed bus for the time of a call

use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{GuestBus, Width};

use super::super::cpu::Cpu;

/// IA32_APIC_BASE (Intel SDM volume 3, 11.4.4): enabled.
const APIC_ENABLED: u64 = 1 << 11;
/// IA32_APIC_BASE: x2APIC mode, without registers in memory.
const APIC_X2: u64 = 1 << 10;

/// A bus that is there for the time of a call only. Its clones stay, but reach nothing afterwards.
struct Borrowed(Mutex<Option<Target>>);

#[derive(Clone, Copy)]
struct Target(*const dyn GuestBus);

// SAFETY: what it points to is `Sync`, and `Borrowed` hands it out only while the borrow lasts.
unsafe impl Send for Target {}

impl Borrowed {
    /// `if_gone` is the answer after the borrow.
    fn with<R>(&self, if_gone: R, access: impl FnOnce(&dyn GuestBus) -> R) -> R {
        let target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *target {
            // SAFETY: `Cpu::with_bus` takes the pointer back, under the lock that is held here, before the borrow that
            // it came from ends.
            Some(Target(bus)) => access(unsafe { &*bus }),
            None => if_gone,
        }
    }
}

impl GuestBus for Borrowed {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.with(u32::MAX, |bus| bus.port_read(port, width))
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        self.with((), |bus| bus.port_write(port, width, value));
    }

    fn port_read_string(&self, port: u16, width: Width, data: &mut [u8]) {
        self.with((), |bus| bus.port_read_string(port, width, data));
    }

    fn port_write_string(&self, port: u16, width: Width, data: &[u8]) {
        self.with((), |bus| bus.port_write_string(port, width, data));
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.with((), |bus| bus.mmio_read(gpa, data));
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.with((), |bus| bus.mmio_write(gpa, data));
    }
}

/// Takes the bus back at the end of a call, also if that ends by a panic.
struct TakeBack<'a>(&'a Borrowed);

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Cpu {
    /// Calls `run` with device accesses going to `bus`.
    pub fn with_bus<R>(&mut self, bus: &dyn GuestBus, run: impl FnOnce(&mut Self) -> R) -> R {
        let pointer: *const (dyn GuestBus + '_) = bus;
        // SAFETY: only the lifetime changes; the pointer is taken back below before the real one ends.
        let target = Target(unsafe {
            std::mem::transmute::<*const (dyn GuestBus + '_), *const (dyn GuestBus + 'static)>(pointer)
        });
        let borrowed = Arc::new(Borrowed(Mutex::new(Some(target))));
        let _take_back = TakeBack(&borrowed);
        let before = self.mmu.bus.replace(Arc::clone(&borrowed) as Arc<dyn GuestBus>);
        let result = run(self);
        self.mmu.bus = before;
        result
    }

    /// Reads a port; the memory map may change by it.
    pub fn port_read(&mut self, port: u16, width: Width) -> u32 {
        self.count_time();
        let value = self.mmu.bus.as_ref().map_or(u32::MAX, |bus| bus.port_read(port, width));
        self.follow_memory_map();
        value
    }

    /// Writes a port; the memory map may change by it.
    pub fn port_write(&mut self, port: u16, width: Width, value: u32) {
        self.count_time();
        if let Some(bus) = &self.mmu.bus {
            bus.port_write(port, width, value);
        }
        self.follow_memory_map();
        self.follow_timers();
    }

    /// Reads whole units from one port.
    pub fn port_read_string(&mut self, port: u16, width: Width, data: &mut [u8]) {
        self.count_time();
        data.fill(0xff);
        if let Some(bus) = &self.mmu.bus {
            bus.port_read_string(port, width, data);
        }
        self.follow_memory_map();
    }

    /// Writes whole units to one port.
    pub fn port_write_string(&mut self, port: u16, width: Width, data: &[u8]) {
        self.count_time();
        if let Some(bus) = &self.mmu.bus {
            bus.port_write_string(port, width, data);
        }
        self.follow_memory_map();
        self.follow_timers();
    }

    /// The page of the local APIC's registers, if they are in memory.
    pub(super) fn apic_page(&self) -> Option<u64> {
        let base = self.apic.as_ref()?.base();
        (base & (APIC_ENABLED | APIC_X2) == APIC_ENABLED).then_some(base & 0x000f_ffff_ffff_f000)
    }

    /// Reads what is not RAM, within a page. The map may have changed afterwards.
    pub(super) fn device_read(&mut self, gpa: u64, buf: &mut [u8], apic: bool) {
        self.count_time();
        buf.fill(0xff);
        match (&self.apic, &self.mmu.bus) {
            (Some(local), _) if apic => {
                for (piece, at) in buf.chunks_mut(4).zip((gpa..).step_by(4)) {
                    // Registers are 32 bits wide and 16 bytes apart; of narrower reads QEMU's APIC gives 0, and what
                    // hardware does is undefined (11.4.1).
                    let value = if piece.len() == 4 { local.read((at & 0xff0) as u16) } else { 0 };
                    piece.copy_from_slice(&value.to_le_bytes()[..piece.len()]);
                }
            }
            (_, Some(bus)) => bus.mmio_read(gpa, buf),
            _ => {}
        }
    }

    /// Writes what is not RAM, within a page. The map may have changed afterwards.
    pub(super) fn device_write(&mut self, gpa: u64, buf: &[u8], apic: bool) {
        self.count_time();
        match (&self.apic, &self.mmu.bus) {
            (Some(local), _) if apic => {
                let (pieces, _) = buf.as_chunks::<4>();
                for (piece, at) in pieces.iter().zip((gpa..).step_by(4)) {
                    local.write((at & 0xff0) as u16, u32::from_le_bytes(*piece));
                }
            }
            (_, Some(bus)) => bus.mmio_write(gpa, buf),
            _ => {}
        }
        self.follow_timers();
    }
}
