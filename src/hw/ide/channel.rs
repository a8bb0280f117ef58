//! A channel: two drives on one cable, device control, and the interrupt line.

use crate::bus::IrqLine;
use crate::mem::GuestRam;

use super::dma::{BusMaster, Change, Gathered};
use super::drive::{Drive, Power};
use super::spec::{Reg, cmd, control, device};

/// One of the controller's two channels.
pub(super) struct Channel {
    // Wires.
    irq: IrqLine,
    ram: GuestRam,
    pub drives: [Option<Drive>; 2],
    // Guest-visible state.
    regs: Regs,
}

/// What a reset clears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    /// Drive 1 is selected.
    second: bool,
    control: u8,
    bus_master: BusMaster,
    /// The function's bus master enable (PCI 3.0, 6.2.2): without it the engine waits.
    master_enabled: bool,
}

impl Regs {
    const COLD: Self = Self { second: false, control: 0, bus_master: BusMaster::COLD, master_enabled: false };
}

impl Channel {
    pub fn new(irq: IrqLine, ram: GuestRam) -> Self {
        Self { irq, ram, drives: [None, None], regs: Regs::COLD }
    }

    pub fn reset(&mut self) {
        let Self { irq: _, ram: _, drives, regs } = self;
        *regs = Regs::COLD;
        for drive in drives.iter_mut().flatten() {
            drive.power_on();
        }
        self.update();
    }

    fn selected(&mut self) -> Option<&mut Drive> {
        self.drives[usize::from(self.regs.second)].as_mut()
    }

    // -- command block -------------------------------------------------------------------------------------------

    /// A byte of the command block. Drive 0 answers for a drive 1 that is not there, with a status of zero (ATA/ATAPI-6
    /// 9.16.1); its address registers read as ones, so that no signature shows. Without any drive everything is zero.
    pub fn read(&mut self, reg: Reg) -> u8 {
        if reg == Reg::Data {
            // A byte access takes a word: old boot loaders read sectors so.
            return self.read_data(2).to_le_bytes()[0];
        }
        let hob = self.regs.control & control::HOB != 0;
        let second = self.regs.second;
        if let Some(drive) = self.selected() {
            let value = drive.read_reg(reg, hob);
            if reg == Reg::Status {
                drive.intrq = false;
                self.update();
            }
            return value;
        }
        let Some(other) = self.other() else { return 0 };
        match reg {
            Reg::Data | Reg::Error | Reg::Status => 0,
            Reg::Device => device::OBSOLETE | u8::from(second) << 4,
            Reg::Count | Reg::LbaLow => other.read_reg(reg, hob),
            Reg::LbaMid | Reg::LbaHigh => 0xff,
        }
    }

    fn other(&self) -> Option<&Drive> {
        self.drives[usize::from(!self.regs.second)].as_ref()
    }

    /// The status without the interrupt's acknowledgement.
    pub fn alternate_status(&mut self) -> u8 {
        self.selected().map_or(0, |drive| drive.read_reg(Reg::Status, false))
    }

    /// A byte to the command block: both drives hear it.
    pub fn write(&mut self, reg: Reg, value: u8) {
        self.regs.control &= !control::HOB;
        match reg {
            Reg::Data => return,
            Reg::Status => self.command(value),
            Reg::Device => {
                if self.selected().is_none_or(|drive| !drive.busy()) {
                    self.regs.second = value & device::DEV != 0;
                    self.write_both(reg, value);
                }
            }
            _ => self.write_both(reg, value),
        }
        self.update();
    }

    fn write_both(&mut self, reg: Reg, value: u8) {
        for drive in self.drives.iter_mut().flatten() {
            drive.write_reg(reg, value);
        }
    }

    fn command(&mut self, code: u8) {
        let Some(drive) = self.selected() else { return };
        if code != cmd::EXECUTE_DEVICE_DIAGNOSTIC {
            drive.start(code);
        } else if !drive.busy() && !drive.wants_data() && drive.settings.power != Power::Sleep {
            self.diagnose();
        }
    }

    /// EXECUTE DEVICE DIAGNOSTIC goes to both drives; drive 0 answers (ATA/ATAPI-6 8.9).
    fn diagnose(&mut self) {
        for drive in self.drives.iter_mut().flatten() {
            drive.soft_reset();
        }
        self.regs.second = false;
        if let Some(drive) = self.selected() {
            drive.intrq = true;
        }
    }

    /// Device control.
    pub fn write_control(&mut self, value: u8) {
        let was = self.regs.control & control::SRST != 0;
        self.regs.control = value;
        match (was, value & control::SRST != 0) {
            (false, true) => {
                for drive in self.drives.iter_mut().flatten() {
                    drive.begin_soft_reset();
                }
            }
            (true, false) => {
                self.regs.second = false;
                for drive in self.drives.iter_mut().flatten() {
                    drive.soft_reset();
                }
            }
            _ => {}
        }
        self.update();
    }

    // -- data port -----------------------------------------------------------------------------------------------

    /// A 16- or 32-bit read of the data port.
    pub fn read_data(&mut self, width: usize) -> u32 {
        let Some(drive) = self.selected() else { return 0 };
        let value = drive.read_data(width);
        if !drive.wants_data() || drive.intrq {
            self.update();
        }
        value
    }

    /// A 16- or 32-bit write of the data port.
    pub fn write_data(&mut self, width: usize, value: u32) {
        let Some(drive) = self.selected() else { return };
        drive.write_data(width, value);
        if !drive.wants_data() || drive.intrq {
            self.update();
        }
    }

    /// Part of a string read of the data port, in whole double words: how many bytes.
    pub fn read_data_string(&mut self, data: &mut [u8]) -> usize {
        self.selected().map_or(0, |drive| drive.read_data_string(data))
    }

    /// Part of a string write of the data port, in whole double words: how many bytes.
    pub fn write_data_string(&mut self, data: &[u8]) -> usize {
        self.selected().map_or(0, |drive| drive.write_data_string(data))
    }

    // -- bus master ----------------------------------------------------------------------------------------------

    pub fn read_bus_master(&self, offset: u64) -> u8 {
        self.regs.bus_master.read(offset)
    }

    pub fn write_bus_master(&mut self, offset: u64, value: u8) {
        if self.regs.bus_master.write(offset, value) == Change::Stopped {
            for drive in self.drives.iter_mut().flatten() {
                drive.dma_stopped();
            }
        }
        self.update();
    }

    /// The function's bus master enable is now on or off.
    pub fn enable_master(&mut self, on: bool) {
        self.regs.master_enabled = on;
        self.update();
    }

    // -- work ----------------------------------------------------------------------------------------------------

    /// A drive's queue has completions.
    pub fn collect(&mut self, unit: usize) {
        if let Some(Some(drive)) = self.drives.get_mut(unit) {
            drive.collect();
        }
        self.update();
    }

    pub fn retry_held(&mut self) {
        for drive in self.drives.iter_mut().flatten() {
            drive.retry_held();
        }
        self.update();
    }

    /// Lets the bus master serve the drive that waits for it, then drives the interrupt line; the only place that
    /// does either. Every entry point that changes something ends here.
    fn update(&mut self) {
        let Self { irq, ram, drives, regs } = self;
        let engine = &mut regs.bus_master;
        for drive in drives.iter_mut().flatten() {
            while regs.master_enabled
                && engine.active()
                && let Some(want) = drive.dma_wanted()
                && let Gathered::Memory(sg) = engine.gather(ram, want.bytes, want.unit)
            {
                drive.dma(ram, sg);
            }
        }
        let pending = drives[usize::from(regs.second)].as_ref().is_some_and(|drive| drive.intrq)
            && regs.control & control::NIEN == 0;
        if pending && !irq.is_high() {
            engine.interrupt();
        }
        if !drives.iter().flatten().any(Drive::waits_for_disk) {
            engine.transfer_done();
        }
        irq.set(pending);
    }
}
