//! The pair of 8259A programmable interrupt controllers of a PC, with the edge/level control registers of the PIIX.
//!
//! Documents: Intel 8259A data sheet (231468); Intel 82371SB (PIIX3) data sheet, section 2.5.6 for ELCR and for what
//! the PIIX leaves out: level-triggered mode of ICW1 (ELCR replaces it) and MCS-80 mode.
//!
//! An edge stays latched when its input falls before it is acknowledged, as in QEMU: chips here may pulse their lines.
//! So a spurious interrupt 7 comes only from a level that went away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{At, Device, PicRegisters, Region, Reset};

use super::settle;

/// Ports 20h-21h. Decode bytes.
pub const MASTER: Region = Region(0);
/// Ports A0h-A1h. Decode bytes.
pub const SLAVE: Region = Region(1);
/// Ports 4D0h-4D1h. Decode bytes.
pub const ELCR: Region = Region(2);

/// The master's input that the slave drives.
const CASCADE: u8 = 2;
/// Inputs that can be level-triggered (82371SB 2.5.6): not the timer, keyboard and cascade, nor the clock and FERR#.
const ELCR_MASKS: [u8; 2] = [0xf8, 0xde];

/// Initialization command words (figure 7 of the data sheet).
mod icw {
    pub const ICW1: u8 = 1 << 4;
    pub const ICW1_NEEDS_ICW4: u8 = 1 << 0;
    pub const ICW1_SINGLE: u8 = 1 << 1;
    pub const ICW4_AUTO_EOI: u8 = 1 << 1;
    pub const ICW4_SPECIAL_FULLY_NESTED: u8 = 1 << 4;
}

/// Operation command word 3 (figure 8).
mod ocw3 {
    pub const SELECT: u8 = 1 << 3;
    pub const READ_ISR: u8 = 1 << 0;
    pub const READ_COMMAND: u8 = 1 << 1;
    pub const POLL: u8 = 1 << 2;
    pub const SPECIAL_MASK: u8 = 1 << 5;
    pub const SPECIAL_MASK_COMMAND: u8 = 1 << 6;
}

/// Which command word the data port takes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Icw2,
    Icw3,
    Icw4,
    Mask,
}

/// One 8259A.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pic {
    irr: u8,
    imr: u8,
    isr: u8,
    /// Levels of the inputs.
    lines: u8,
    elcr: u8,
    /// The input of highest priority.
    first: u8,
    vector_base: u8,
    expect: Expect,
    single: bool,
    needs_icw4: bool,
    auto_eoi: bool,
    rotate_in_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
}

impl Pic {
    const COLD: Self = Self {
        irr: 0,
        imr: 0,
        isr: 0,
        lines: 0,
        elcr: 0,
        first: 0,
        vector_base: 0,
        expect: Expect::Mask,
        single: false,
        needs_icw4: false,
        auto_eoi: false,
        rotate_in_auto_eoi: false,
        special_fully_nested: false,
        special_mask: false,
        read_isr: false,
        poll: false,
    };

    /// Inputs in `set`, by rank: 0 is the highest priority.
    fn best_rank(&self, set: u8) -> Option<u8> {
        let rotated = set.rotate_right(self.first.into());
        (rotated != 0).then(|| rotated.trailing_zeros().to_le_bytes()[0])
    }

    fn input_of_rank(&self, rank: u8) -> u8 {
        (rank + self.first) & 7
    }

    /// The input whose interrupt the chip requests now. `cascade` is the input that a slave drives.
    fn pending(&self, cascade: Option<u8>) -> Option<u8> {
        let rank = self.best_rank(self.irr & !self.imr)?;
        let mut blocking = self.isr;
        if self.special_mask {
            blocking &= !self.imr;
        }
        if self.special_fully_nested
            && let Some(input) = cascade
        {
            blocking &= !(1 << input);
        }
        let free = self.best_rank(blocking).is_none_or(|served| rank < served);
        free.then(|| self.input_of_rank(rank))
    }

    /// Drives an input other than the cascade.
    fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        let rises = high && self.lines & bit == 0;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        if self.elcr & bit != 0 {
            self.irr = self.irr & !bit | self.lines & bit;
        } else if rises {
            self.irr |= bit;
        }
    }

    fn set_elcr(&mut self, value: u8) {
        self.elcr = value;
        self.irr = self.irr & !value | self.lines & value;
    }

    /// The first INTA cycle for `input`.
    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        if self.auto_eoi {
            if self.rotate_in_auto_eoi {
                self.first = (input + 1) & 7;
            }
        } else {
            self.isr |= bit;
        }
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
    }

    /// ICW1 begins anew (data sheet, "Initialization Command Words 1 and 2").
    fn start_initialization(&mut self, value: u8) {
        let Self { lines, elcr, .. } = *self;
        *self = Self {
            lines,
            elcr,
            irr: lines & elcr,
            vector_base: self.vector_base,
            expect: Expect::Icw2,
            single: value & icw::ICW1_SINGLE != 0,
            needs_icw4: value & icw::ICW1_NEEDS_ICW4 != 0,
            ..Self::COLD
        };
    }

    fn write_command(&mut self, value: u8) {
        if value & icw::ICW1 != 0 {
            self.start_initialization(value);
        } else if value & ocw3::SELECT != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        self.poll = value & ocw3::POLL != 0;
        if value & ocw3::READ_COMMAND != 0 {
            self.read_isr = value & ocw3::READ_ISR != 0;
        }
        if value & ocw3::SPECIAL_MASK_COMMAND != 0 {
            self.special_mask = value & ocw3::SPECIAL_MASK != 0;
        }
    }

    /// Bits 7-5: rotate, specific, end of interrupt (figure 8).
    fn write_ocw2(&mut self, value: u8) {
        let input = value & 7;
        match value >> 5 {
            0 => self.rotate_in_auto_eoi = false,
            4 => self.rotate_in_auto_eoi = true,
            1 => {
                self.end_highest();
            }
            5 => {
                if let Some(ended) = self.end_highest() {
                    self.first = (ended + 1) & 7;
                }
            }
            3 => self.isr &= !(1 << input),
            7 => {
                self.isr &= !(1 << input);
                self.first = (input + 1) & 7;
            }
            6 => self.first = (input + 1) & 7,
            _ => {}
        }
    }

    /// A non-specific EOI. In special mask mode masked inputs do not count.
    fn end_highest(&mut self) -> Option<u8> {
        let served = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let input = self.input_of_rank(self.best_rank(served)?);
        self.isr &= !(1 << input);
        Some(input)
    }

    fn write_data(&mut self, value: u8) {
        self.expect = match self.expect {
            Expect::Mask => {
                self.imr = value;
                Expect::Mask
            }
            Expect::Icw2 => {
                self.vector_base = value & 0xf8;
                match (self.single, self.needs_icw4) {
                    (false, _) => Expect::Icw3,
                    (true, true) => Expect::Icw4,
                    (true, false) => Expect::Mask,
                }
            }
            // The cascade is wired; ICW3 cannot change it.
            Expect::Icw3 if self.needs_icw4 => Expect::Icw4,
            Expect::Icw3 => Expect::Mask,
            Expect::Icw4 => {
                self.auto_eoi = value & icw::ICW4_AUTO_EOI != 0;
                self.special_fully_nested = value & icw::ICW4_SPECIAL_FULLY_NESTED != 0;
                Expect::Mask
            }
        };
    }

    fn registers(&self) -> PicRegisters {
        PicRegisters {
            irr: self.irr,
            imr: self.imr,
            isr: self.isr,
            priority_add: self.first,
            irq_base: self.vector_base,
            read_isr: self.read_isr,
            elcr: self.elcr,
            special_fully_nested: self.special_fully_nested,
        }
    }
}

/// Takes the level of the master's INTR output.
pub type IntrSink = Box<dyn Fn(bool) + Send + Sync>;

/// The two chips, the slave in the master's input 2.
pub struct PicPair {
    state: Mutex<State>,
    output: IntrSink,
}

struct State {
    master: Pic,
    slave: Pic,
    /// The level that INTR was driven to last.
    driven: bool,
}

impl State {
    /// The slave's INT output is a level: its next request is seen without an edge.
    fn update_cascade(&mut self) {
        let bit = 1 << CASCADE;
        let requests = self.slave.pending(None).is_some();
        self.master.irr = if requests { self.master.irr | bit } else { self.master.irr & !bit };
    }

    fn pending(&self) -> Option<u8> {
        self.master.pending(Some(CASCADE))
    }

    /// Both INTA cycles; `None` if nothing is requested any more.
    fn acknowledge(&mut self) -> Option<u8> {
        let input = self.pending()?;
        self.master.acknowledge(input);
        if input != CASCADE {
            return Some(self.master.vector_base | input);
        }
        // A level that went away between the two cycles leaves the slave's input 7 (data sheet, "Edge and level").
        let from_slave = self.slave.pending(None);
        if let Some(input) = from_slave {
            self.slave.acknowledge(input);
        }
        Some(self.slave.vector_base | from_slave.unwrap_or(7))
    }

    fn chip(&mut self, region: Region) -> &mut Pic {
        if region == SLAVE { &mut self.slave } else { &mut self.master }
    }

    fn read(&mut self, region: Region, data_port: bool) -> u8 {
        let cascade = (region == MASTER).then_some(CASCADE);
        let chip = self.chip(region);
        if std::mem::take(&mut chip.poll) {
            // The read is the acknowledge (data sheet, "Poll Command").
            let Some(input) = chip.pending(cascade) else { return 0 };
            chip.acknowledge(input);
            return 0x80 | input;
        }
        match (data_port, chip.read_isr) {
            (true, _) => chip.imr,
            (false, true) => chip.isr,
            (false, false) => chip.irr,
        }
    }
}

impl std::fmt::Debug for PicPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PicPair({:?})", self.registers())
    }
}

impl PicPair {
    /// The pair at power-on; `output` takes INTR.
    #[must_use]
    pub fn new(output: IntrSink) -> Arc<Self> {
        let state = State { master: Pic::COLD, slave: Pic::COLD, driven: false };
        Arc::new(Self { state: Mutex::new(state), output })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain registers, whole after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the chips, and drives INTR if it changed: the only place that does.
    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        state.update_cascade();
        let high = state.pending().is_some();
        let changed = std::mem::replace(&mut state.driven, high) != high;
        drop(state);
        if changed {
            settle(high, || self.lock().driven, |level| (self.output)(level));
        }
        result
    }

    /// Drives ISA interrupt `irq` (0-15; 2 is the cascade and nobody's).
    pub fn set_irq(&self, irq: u8, high: bool) {
        if irq == CASCADE || irq > 15 {
            return;
        }
        self.with(|state| {
            let chip = if irq < 8 { &mut state.master } else { &mut state.slave };
            chip.set_line(irq & 7, high);
        });
    }

    /// The processor's acknowledge cycles: the vector, or `None` if INTR has fallen meanwhile.
    pub fn acknowledge(&self) -> Option<u8> {
        self.with(State::acknowledge)
    }

    /// Power-on. The inputs keep their levels.
    pub fn reset(&self) {
        self.with(|state| {
            for chip in [&mut state.master, &mut state.slave] {
                let lines = chip.lines;
                *chip = Pic { lines, ..Pic::COLD };
            }
        });
    }

    /// The registers of master and slave.
    #[must_use]
    pub fn registers(&self) -> [PicRegisters; 2] {
        let state = self.lock();
        [state.master.registers(), state.slave.registers()]
    }
}

/// The pair's registers on the board.
pub struct PicPorts {
    pair: Arc<PicPair>,
}

impl PicPorts {
    /// The registers of `pair`.
    #[must_use]
    pub fn new(pair: Arc<PicPair>) -> Self {
        Self { pair }
    }
}

impl Device for PicPorts {
    fn read(&mut self, at: At) -> u64 {
        let high = at.offset & 1 != 0;
        let value = self.pair.with(|state| match (at.region, high) {
            (ELCR, false) => state.master.elcr,
            (ELCR, true) => state.slave.elcr,
            (region, high) => state.read(region, high),
        });
        value.into()
    }

    fn write(&mut self, at: At, value: u64) {
        let [value, ..] = value.to_le_bytes();
        let high = at.offset & 1 != 0;
        self.pair.with(|state| match (at.region, high) {
            (ELCR, false) => state.master.set_elcr(value & ELCR_MASKS[0]),
            (ELCR, true) => state.slave.set_elcr(value & ELCR_MASKS[1]),
            (region, false) => state.chip(region).write_command(value),
            (region, true) => state.chip(region).write_data(value),
        });
    }

    fn reset(&mut self, _kind: Reset) {
        self.pair.reset();
    }
}

#[cfg(test)]
mod tests;
