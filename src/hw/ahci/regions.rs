//! The walk over a command's physical region descriptor table (AHCI 4.2.3.3).

use crate::mem::{GuestRam, Sg};

use super::spec::table;

/// Descriptors that one request is made of at most, but for the rest of its last sector: a bound on the time that a
/// hostile table takes under the board lock.
const MAX_DESCRIPTORS: usize = 4096;

/// What the table gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Gathered {
    /// This much, at least one unit.
    Memory(Sg),
    /// The table ends before that.
    Overflow,
    /// A descriptor, or what it names, is not RAM.
    Fault,
}

/// Where a command is in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Regions {
    /// The next descriptor, and how many are left.
    next: u64,
    entries: u16,
    /// Rest of the present region.
    gpa: u64,
    left: u64,
}

impl Regions {
    /// The table of a command table at `at`.
    pub fn new(at: u64, entries: u16) -> Self {
        Self { next: at.wrapping_add(table::REGIONS), entries, gpa: 0, left: 0 }
    }

    /// Loads the next descriptor. `Some(false)`: there is none.
    fn fetch(&mut self, ram: &GuestRam) -> Option<bool> {
        let Some(entries) = self.entries.checked_sub(1) else { return Some(false) };
        let mut bytes = [0; 16];
        ram.read(self.next, &mut bytes).ok()?;
        let [address @ .., _, _, _, _, a, b, c, d] = bytes;
        self.gpa = u64::from_le_bytes(address) & !1;
        self.left = u64::from(u32::from_le_bytes([a, b, c, d]) & 0x3f_ffff | 1) + 1;
        self.next = self.next.wrapping_add(table::REGION_LEN);
        self.entries = entries;
        Some(true)
    }

    /// Memory for the next `max_bytes` bytes at most, in multiples of `unit` bytes. All of it is RAM.
    pub fn gather(&mut self, ram: &GuestRam, max_bytes: u64, unit: u64) -> Gathered {
        let start = *self;
        let mut sg = Sg::new();
        let mut wanted = max_bytes;
        let mut descriptors = 0;
        while sg.len() < wanted {
            if self.left == 0 {
                match self.fetch(ram) {
                    Some(true) => {}
                    Some(false) => break,
                    None => return Gathered::Fault,
                }
                descriptors += 1;
                if descriptors == MAX_DESCRIPTORS {
                    wanted = wanted.min((sg.len() + 1).next_multiple_of(unit));
                }
            }
            let step = self.left.min(wanted - sg.len());
            if !ram.contains(self.gpa, step) {
                return Gathered::Fault;
            }
            sg.push(self.gpa, u32::try_from(step).unwrap_or(u32::MAX));
            self.gpa += step;
            self.left -= step;
        }
        let usable = sg.len() - sg.len() % unit;
        match usable {
            0 => Gathered::Overflow,
            usable if usable == sg.len() => Gathered::Memory(sg),
            // The table ends within a unit: what is whole, again.
            usable => {
                *self = start;
                self.gather(ram, usable, unit)
            }
        }
    }
}
