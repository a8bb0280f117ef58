//! Intel's 82540EM gigabit Ethernet controller, QEMU's default card of a PC.
//!
//! Written from Intel's "8254x Family of Gigabit Ethernet Controllers Software Developer's Manual". Frames move by
//! legacy, context and data descriptors, with checksum and TCP segmentation offload, VLAN tags, and all receive filters.
//! Interrupts are throttled by ITR. Not modelled: the flash, wake-up, management, packet split; the registers of the
//! delay timers are kept, and delays are those of ITR. Autonegotiation ends at once with 1000 Mb/s, full duplex.

mod eeprom;
mod phy;
mod receive;
mod spec;
#[cfg(test)]
mod tests;
mod transmit;

use std::sync::Arc;

use crate::bus::{
    At, Bar, BarKind, Board, ConfigChange, ConfigSpace, Decode, Device, DeviceId, DeviceRef, IrqLine, PciAddress,
    PciFunction, Region, Reset, Token,
};
use crate::event::Timer;
use crate::mem::{GuestRam, RamBlock};
use crate::net::Link;

use eeprom::Eeprom;
use phy::Phy;
use spec::{cause, ctrl, rctl, reg, stat, status};
use transmit::Transmitter;

/// The event of the link.
pub const LINK_TOKEN: Token = Token(0);
/// The end of an interrupt's quiet time.
pub const THROTTLE_TOKEN: Token = Token(1);
/// Work that was put off.
pub const WORK_TOKEN: Token = Token(2);

const REGISTERS: Region = Region(0);
const PORTS: Region = Region(1);
const ROM: Region = Region(2);

/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 16;
/// Words of register space that are kept.
const WORDS: usize = (reg::LAST as usize + 1) / 4;
/// ITR counts this many nanoseconds (13.4.18).
const ITR_NS: u64 = 256;

/// What the card touches.
pub struct Wires {
    /// Its interrupt.
    pub irq: IrqLine,
    /// Guest memory.
    pub ram: GuestRam,
    /// The network; it raises [`LINK_TOKEN`].
    pub link: Box<dyn Link>,
    /// Raises [`THROTTLE_TOKEN`].
    pub throttle: Timer,
    /// Raises [`WORK_TOKEN`].
    pub work: Timer,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Registers that are storage, and what is behind the others.
struct Regs {
    words: Box<[u32]>,
    statistics: [u32; stat::COUNT],
    causes: u32,
    mask: u32,
    /// Register that the ports show.
    port_address: u32,
}

impl Regs {
    fn cold(mac: [u8; 6]) -> Self {
        let mut words = vec![0; WORDS].into_boxed_slice();
        let mut set = |at: u32, value: u32| words[at as usize / 4] = value;
        set(reg::CTRL, ctrl::FD | 1 << 9);
        set(reg::PBA, 0x0010_0030);
        set(reg::VET, 0x8100);
        set(reg::LEDCTL, 0x0706_0302);
        set(reg::TIPG, 10 | 10 << 10 | 10 << 20);
        set(reg::RA, u32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]));
        set(reg::RA + 4, u32::from_le_bytes([mac[4], mac[5], 0, 0x80]));
        Self { words, statistics: [0; stat::COUNT], causes: 0, mask: 0, port_address: 0 }
    }

    /// Adds to a 64-bit statistics register.
    fn count_octets(&mut self, at: usize, len: usize) {
        let sum = u64::from(self.statistics[at]) | u64::from(self.statistics[at + 1]) << 32;
        let sum = sum.saturating_add(len as u64);
        self.statistics[at] = (sum & 0xffff_ffff) as u32;
        self.statistics[at + 1] = (sum >> 32) as u32;
    }
}

/// The controller without its PCI function.
struct Chip {
    // Wires.
    irq: IrqLine,
    ram: GuestRam,
    link: Box<dyn Link>,
    throttle: Timer,
    timer_work: Timer,
    // Options.
    mac: [u8; 6],
    // Guest-visible state.
    regs: Regs,
    eeprom: Eeprom,
    phy: Phy,
    tx: Transmitter,
    bus_master: bool,
    /// The interrupt keeps quiet until the timer.
    throttled: bool,
    /// What the guest was told of the cable.
    up: bool,
}

impl Chip {
    fn reg(&self, at: u32) -> u32 {
        self.regs.words.get(at as usize / 4).copied().unwrap_or(0)
    }

    fn set_reg(&mut self, at: u32, value: u32) {
        if let Some(word) = self.regs.words.get_mut(at as usize / 4) {
            *word = value;
        }
    }

    fn now_ns(&self) -> u64 {
        self.timer_work.now_ns()
    }

    fn loops_back(&self) -> bool {
        self.reg(reg::RCTL) & rctl::LBM == rctl::LBM || self.phy.loops()
    }

    fn raise(&mut self, causes: u32) {
        self.regs.causes |= causes;
        self.update_irq();
    }

    /// The only place that drives the line; call it after any change.
    fn update_irq(&mut self) {
        let pending = self.regs.causes & self.regs.mask & !cause::ASSERTED != 0;
        if !pending {
            self.irq.set(false);
            return;
        }
        if self.irq.is_high() || self.throttled {
            return;
        }
        let interval = u64::from(self.reg(reg::ITR) & 0xffff) * ITR_NS;
        if interval > 0 {
            self.throttled = true;
            self.throttle.set(self.now_ns().saturating_add(interval));
        }
        self.irq.set(true);
    }

    /// Looks at the cable.
    fn update_link(&mut self) {
        let up = self.link.is_up();
        if up != self.up {
            self.up = up;
            self.phy.set_link(up);
            self.raise(cause::LSC);
        }
    }

    fn read(&mut self, at: u32) -> u32 {
        match at {
            reg::CTRL_DUP => self.reg(reg::CTRL),
            reg::STATUS if self.up => status::FD | status::LU | status::SPEED_1000,
            reg::STATUS => status::FD | status::SPEED_1000,
            reg::EECD => self.eeprom.lines(),
            reg::ICR => {
                let causes = std::mem::take(&mut self.regs.causes);
                let asserted = if causes & self.regs.mask != 0 { cause::ASSERTED } else { 0 };
                self.update_irq();
                causes | asserted
            }
            reg::ICS | reg::IMC => 0,
            reg::IMS => self.regs.mask,
            reg::STATISTICS..reg::STATISTICS_END => {
                std::mem::take(&mut self.regs.statistics[(at - reg::STATISTICS) as usize / 4])
            }
            _ => self.reg(at),
        }
    }

    fn write(&mut self, at: u32, value: u32) {
        match at {
            reg::CTRL | reg::CTRL_DUP => self.write_ctrl(value),
            reg::EECD => self.eeprom.drive(value),
            reg::EERD => {
                // Start and done (13.4.4).
                let data = self.eeprom.word(value >> 8 & 0xff);
                let answer = if value & 1 != 0 { value & 0xff00 | 1 << 4 | u32::from(data) << 16 } else { value };
                self.set_reg(at, answer);
            }
            reg::MDIC => self.write_mdic(value),
            reg::ICR => {
                self.regs.causes &= !value;
                self.update_irq();
            }
            reg::ICS => self.raise(value & !cause::ASSERTED),
            reg::IMS => {
                self.regs.mask |= value;
                self.update_irq();
            }
            reg::IMC => {
                self.regs.mask &= !value;
                self.update_irq();
            }
            reg::STATUS | reg::STATISTICS..reg::STATISTICS_END => {}
            reg::RDH | reg::RDT => {
                self.set_reg(at, value & 0xffff);
                self.receive();
            }
            reg::RCTL => {
                self.set_reg(at, value);
                self.receive();
            }
            reg::TDH | reg::TDT => {
                self.set_reg(at, value & 0xffff);
                self.transmit();
            }
            reg::TCTL => {
                self.set_reg(at, value);
                self.transmit();
            }
            reg::RDLEN | reg::TDLEN => self.set_reg(at, value & 0xf_ff80),
            reg::ITR => self.set_reg(at, value & 0xffff),
            _ => {
                self.set_reg(at, value);
                if at == reg::RA + 4 {
                    self.tell_address();
                }
            }
        }
    }

    fn write_ctrl(&mut self, value: u32) {
        if value & ctrl::RST != 0 {
            self.reset();
            return;
        }
        if value & ctrl::PHY_RST != 0 {
            self.phy = Phy::new(self.up);
        }
        self.set_reg(reg::CTRL, value & !(ctrl::RST | ctrl::PHY_RST));
    }

    /// A transaction with the transceiver, which is number 1 (13.4.9).
    fn write_mdic(&mut self, value: u32) {
        const READY: u32 = 1 << 28;
        const INTERRUPT: u32 = 1 << 29;
        const ERROR: u32 = 1 << 30;
        let index = (value >> 16 & 31) as usize;
        let answer = match (value >> 21 & 31, value >> 26 & 3) {
            (1, 2) => value & 0xffff_0000 | u32::from(self.phy.read(index)),
            (1, 1) => {
                if self.phy.write(index, (value & 0xffff) as u16) && self.up {
                    self.raise(cause::LSC);
                }
                value
            }
            _ => value | ERROR,
        };
        self.set_reg(reg::MDIC, answer | READY);
        if value & INTERRUPT != 0 {
            self.raise(cause::MDAC);
        }
    }

    fn tell_address(&mut self) {
        let (low, high) = (self.reg(reg::RA).to_le_bytes(), self.reg(reg::RA + 4).to_le_bytes());
        self.link.set_address([low[0], low[1], low[2], low[3], high[0], high[1]]);
    }

    fn reset(&mut self) {
        let up = self.link.is_up();
        let Self {
            irq,
            ram: _,
            link,
            throttle,
            timer_work,
            mac,
            regs,
            eeprom,
            phy,
            tx,
            bus_master: _,
            throttled,
            up: told,
        } = self;
        *regs = Regs::cold(*mac);
        eeprom.drive(0);
        *phy = Phy::new(up);
        *tx = Transmitter::default();
        *throttled = false;
        *told = up;
        throttle.cancel();
        timer_work.cancel();
        irq.set(false);
        link.set_address(*mac);
    }
}

/// The card.
pub struct E1000 {
    config: ConfigSpace,
    chip: Chip,
}

impl E1000 {
    /// Puts the card that was reserved as `id` on the board. `rom` is its expansion ROM.
    pub fn add(
        board: &mut Board,
        id: DeviceId,
        address: PciAddress,
        wires: Wires,
        mac: [u8; 6],
        rom: Option<Arc<RamBlock>>,
    ) -> DeviceRef<Self> {
        let card = board.install(id, Self::new(wires, mac, rom.as_ref().map(|rom| rom.len())));
        let ram: Vec<_> = rom.into_iter().map(|rom| (6, rom)).collect();
        board.plug_pci(address, id, Decode::DWORDS, &ram);
        card
    }

    fn new(wires: Wires, mac: [u8; 6], rom: Option<u64>) -> Self {
        const DEVICE: u16 = 0x100e;
        const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);
        let mut config = ConfigSpace::new(0x8086, DEVICE, 3, 0x02_0000)
            .with_subsystem(SUBSYSTEM.0, SUBSYSTEM.1)
            .with_interrupt_pin(1)
            .with_bar(0, Bar { kind: BarKind::Memory32 { prefetchable: false }, len: 0x2_0000, region: REGISTERS })
            .with_bar(1, Bar { kind: BarKind::Io, len: 64, region: PORTS });
        if let Some(len) = rom {
            config = config.with_bar(6, Bar { kind: BarKind::Rom, len, region: ROM });
        }
        let Wires { irq, ram, mut link, throttle, work } = wires;
        link.set_address(mac);
        let up = link.is_up();
        let chip = Chip {
            irq,
            ram,
            link,
            throttle,
            timer_work: work,
            mac,
            regs: Regs::cold(mac),
            eeprom: Eeprom::new(mac, DEVICE, SUBSYSTEM),
            phy: Phy::new(up),
            tx: Transmitter::default(),
            bus_master: false,
            throttled: false,
            up,
        };
        Self { config, chip }
    }
}

impl Device for E1000 {
    fn read(&mut self, at: At) -> u64 {
        let offset = u32::try_from(at.offset).unwrap_or(u32::MAX);
        match (at.region, offset) {
            (REGISTERS, _) => u64::from(self.chip.read(offset)),
            (PORTS, 0) => u64::from(self.chip.regs.port_address),
            (PORTS, 4) => u64::from(self.chip.read(self.chip.regs.port_address)),
            _ => 0,
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let offset = u32::try_from(at.offset).unwrap_or(u32::MAX);
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match (at.region, offset) {
            (REGISTERS, _) => self.chip.write(offset, value),
            (PORTS, 0) => self.chip.regs.port_address = value & 0x1_fffc,
            (PORTS, 4) => self.chip.write(self.chip.regs.port_address, value),
            _ => {}
        }
    }

    fn event(&mut self, token: Token) {
        match token {
            LINK_TOKEN => {
                self.chip.link.attend();
                self.chip.update_link();
                self.chip.transmit();
                self.chip.receive();
            }
            THROTTLE_TOKEN => {
                self.chip.throttled = false;
                self.chip.update_irq();
            }
            _ => self.chip.transmit(),
        }
    }

    fn reset(&mut self, _kind: Reset) {
        let Self { config: _, chip } = self; // the board resets the configuration space
        chip.bus_master = false;
        chip.reset();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for E1000 {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _change: ConfigChange) {
        let on = self.config.bus_master();
        if std::mem::replace(&mut self.chip.bus_master, on) != on {
            self.chip.transmit();
            self.chip.receive();
        }
    }
}
