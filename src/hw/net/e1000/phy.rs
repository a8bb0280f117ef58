//! The transceiver: a Marvell 88E1011 behind the MDIC register (IEEE 802.3 22.2.4 and 40.5; manual 11).

/// Registers (IEEE 802.3 table 22-6, 88E1011).
mod reg {
    pub const CONTROL: usize = 0;
    pub const STATUS: usize = 1;
    pub const ID1: usize = 2;
    pub const ID2: usize = 3;
    pub const ADVERTISEMENT: usize = 4;
    pub const PARTNER: usize = 5;
    pub const EXPANSION: usize = 6;
    pub const CONTROL_1000: usize = 9;
    pub const STATUS_1000: usize = 10;
    pub const EXTENDED_STATUS: usize = 15;
    pub const SPECIFIC_CONTROL: usize = 16;
    pub const SPECIFIC_STATUS: usize = 17;
    pub const EXTENDED_SPECIFIC_CONTROL: usize = 20;
}

/// Control: what ends by itself.
const RESET: u16 = 1 << 15;
const LOOPBACK: u16 = 1 << 14;
const RESTART: u16 = 1 << 9;
/// Status: link, autonegotiation complete.
const LINK: u16 = 1 << 2;
const COMPLETE: u16 = 1 << 5;
/// Specific status: link (real time), resolved, full duplex, 1000 Mb/s.
const SPECIFIC_UP: u16 = 1 << 10 | 1 << 11 | 1 << 13 | 2 << 14;

/// The transceiver's registers.
#[derive(Clone, Debug)]
pub struct Phy {
    regs: [u16; 32],
    up: bool,
}

impl Phy {
    /// After power-on.
    pub fn new(up: bool) -> Self {
        let mut regs = [0; 32];
        regs[reg::CONTROL] = 0x1140; // autonegotiation, full duplex, 1000 Mb/s
        regs[reg::STATUS] = 0x7949; // what it can do
        regs[reg::ID1] = 0x0141;
        regs[reg::ID2] = 0x0c20;
        regs[reg::ADVERTISEMENT] = 0x0de1;
        regs[reg::PARTNER] = 0xcde1; // the other side can do the same
        regs[reg::EXPANSION] = 0x000f;
        regs[reg::CONTROL_1000] = 0x0e00;
        regs[reg::STATUS_1000] = 0x3c00;
        regs[reg::EXTENDED_STATUS] = 0x3000;
        regs[reg::SPECIFIC_CONTROL] = 0x0360;
        regs[reg::EXTENDED_SPECIFIC_CONTROL] = 0x0d60;
        Self { regs, up }
    }

    /// The cable came or went.
    pub fn set_link(&mut self, up: bool) {
        self.up = up;
    }

    /// Whether frames come back to where they came from.
    pub fn loops(&self) -> bool {
        self.regs[reg::CONTROL] & LOOPBACK != 0
    }

    /// A register.
    pub fn read(&self, index: usize) -> u16 {
        let value = self.regs.get(index).copied().unwrap_or(0);
        match index {
            reg::STATUS if self.up => value | LINK | COMPLETE,
            reg::SPECIFIC_STATUS if self.up => value | SPECIFIC_UP,
            reg::PARTNER | reg::STATUS_1000 if !self.up => 0,
            _ => value,
        }
    }

    /// Writes a register. True if the link was negotiated anew: that is over at once.
    pub fn write(&mut self, index: usize, value: u16) -> bool {
        match index {
            reg::CONTROL if value & RESET != 0 => {
                *self = Self::new(self.up);
                true
            }
            reg::CONTROL => {
                self.regs[index] = value & !RESTART;
                value & RESTART != 0
            }
            reg::ADVERTISEMENT | reg::CONTROL_1000 | reg::SPECIFIC_CONTROL | reg::EXTENDED_SPECIFIC_CONTROL => {
                self.regs[index] = value;
                false
            }
            18 | 29 | 30 => {
                self.regs[index] = value;
                false
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulled_cable_shows() {
        let mut phy = Phy::new(true);
        assert_eq!(phy.read(1) & (LINK | COMPLETE), LINK | COMPLETE);
        phy.set_link(false);
        assert_eq!((phy.read(1) & LINK, phy.read(5), phy.read(17)), (0, 0, 0));
    }

    #[test]
    fn commands_end_by_themselves() {
        let mut phy = Phy::new(true);
        assert!(phy.write(0, 0x1140 | RESTART));
        assert_eq!(phy.read(0), 0x1140);
        phy.write(2, 0);
        assert_eq!(phy.read(2), 0x0141);
    }
}
