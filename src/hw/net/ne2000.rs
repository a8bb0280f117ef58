//! The NE2000: National's DP8390 with 32 KiB of memory of its own and an address PROM, as the RTL8029 puts it on PCI.
//!
//! Written from the DP8390D/NS32490D data sheet, the NE2000's layout (PROM at 0, memory at 4000h) and the RTL8029AS data
//! sheet (page 3). Frames are copied into and out of the card's memory at once; there are no collisions. Not modelled:
//! loopback of the chip's own and the tally counters, which stay zero.

use std::sync::Arc;

use crate::bus::{
    At, Bar, BarKind, Board, ConfigSpace, Decode, Device, DeviceId, DeviceRef, IrqLine, PciAddress, PciFunction,
    Region, Reset, Token, Width,
};
use crate::mem::RamBlock;
use crate::net::{Link, Packet};

use super::frame::{MIN_FRAME, hash64};

/// The event of the link.
pub const LINK_TOKEN: Token = Token(0);
/// The registers: 32 ports.
pub const PORTS: Region = Region(0);
const ROM: Region = Region(1);
/// Ports that the card decodes on ISA.
pub const ISA_PORTS: u32 = 32;
/// The data port takes bytes, words and double words.
pub const DECODE: Decode = Decode::UP_TO_4;

/// Where the card's memory begins and ends.
const MEMORY: usize = 0x4000;
const END: usize = 0xc000;
const DATA_PORT: u64 = 0x10;
const RESET_PORT: u64 = 0x1f;

/// The longest frame that the ring must have room for.
const LONGEST: usize = 1514;

/// Command register (DP8390D 10.3).
mod cr {
    pub const STOP: u8 = 1 << 0;
    pub const START: u8 = 1 << 1;
    pub const TRANSMIT: u8 = 1 << 2;
    pub const READ: u8 = 1 << 3;
    pub const WRITE: u8 = 1 << 4;
    pub const ABORT: u8 = 1 << 5;
}

/// Interrupt status register.
mod isr {
    pub const RECEIVED: u8 = 1 << 0;
    pub const TRANSMITTED: u8 = 1 << 1;
    pub const REMOTE_DONE: u8 = 1 << 6;
    pub const RESET: u8 = 1 << 7;
}

/// Receive configuration register.
mod rcr {
    pub const BROADCAST: u8 = 1 << 2;
    pub const MULTICAST: u8 = 1 << 3;
    pub const PROMISCUOUS: u8 = 1 << 4;
    pub const MONITOR: u8 = 1 << 5;
}

/// Registers, by their data sheet names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    cr: u8,
    isr: u8,
    imr: u8,
    rcr: u8,
    tcr: u8,
    dcr: u8,
    tsr: u8,
    rsr: u8,
    pstart: u8,
    pstop: u8,
    bnry: u8,
    curr: u8,
    tpsr: u8,
    tbcr: u16,
    rsar: u16,
    rbcr: u16,
    par: [u8; 6],
    mar: [u8; 8],
}

impl Regs {
    const COLD: Self = Self {
        cr: cr::STOP,
        isr: isr::RESET,
        imr: 0,
        rcr: 0,
        tcr: 0,
        dcr: 0,
        tsr: 0,
        rsr: 0,
        pstart: 0,
        pstop: 0,
        bnry: 0,
        curr: 0,
        tpsr: 0,
        tbcr: 0,
        rsar: 0,
        rbcr: 0,
        par: [0; 6],
        mar: [0; 8],
    };
}

/// The card, on ISA or PCI.
pub struct Ne2000 {
    // Wires.
    irq: IrqLine,
    link: Box<dyn Link>,
    // Options.
    mac: [u8; 6],
    /// On PCI it has a configuration space, and the RTL8029's marks.
    config: Option<ConfigSpace>,
    // Guest-visible state.
    regs: Regs,
    /// PROM and memory, by the card's own addresses.
    memory: Box<[u8; END]>,
}

/// Sets one byte of a 16-bit register.
fn set_byte(word: &mut u16, high: bool, byte: u8) {
    *word = if high { *word & 0x00ff | u16::from(byte) << 8 } else { *word & 0xff00 | u16::from(byte) };
}

impl Ne2000 {
    /// A card on ISA: map [`PORTS`] at its base.
    #[must_use]
    pub fn isa(irq: IrqLine, link: Box<dyn Link>, mac: [u8; 6]) -> Self {
        Self::new(irq, link, mac, None)
    }

    /// Puts the card that was reserved as `id` on the PCI bus.
    pub fn add_pci(
        board: &mut Board,
        id: DeviceId,
        address: PciAddress,
        irq: IrqLine,
        link: Box<dyn Link>,
        mac: [u8; 6],
        rom: Option<Arc<RamBlock>>,
    ) -> DeviceRef<Self> {
        let mut config = ConfigSpace::new(0x10ec, 0x8029, 0, 0x02_0000)
            .with_subsystem(0x1af4, 0x1100)
            .with_interrupt_pin(1)
            .with_bar(0, Bar { kind: BarKind::Io, len: 0x100, region: PORTS });
        if let Some(rom) = &rom {
            config = config.with_bar(6, Bar { kind: BarKind::Rom, len: rom.len(), region: ROM });
        }
        let card = board.install(id, Self::new(irq, link, mac, Some(config)));
        let ram: Vec<_> = rom.into_iter().map(|rom| (6, rom)).collect();
        board.plug_pci(address, id, DECODE, &ram);
        card
    }

    fn new(irq: IrqLine, mut link: Box<dyn Link>, mac: [u8; 6], config: Option<ConfigSpace>) -> Self {
        link.set_address(mac);
        let mut card = Self { irq, link, mac, config, regs: Regs::COLD, memory: Box::new([0; END]) };
        card.fill_prom();
        card
    }

    /// The PROM: each byte twice, the address and the mark of a 16-bit card.
    fn fill_prom(&mut self) {
        self.memory.fill(0);
        let mut prom = [0; 16];
        prom[..6].copy_from_slice(&self.mac);
        prom[14..].fill(0x57);
        for (at, byte) in prom.into_iter().enumerate() {
            self.memory[2 * at..2 * at + 2].fill(byte);
        }
    }

    /// The only place that drives the line; call it after any change.
    fn update_irq(&mut self) {
        self.irq.set(self.regs.isr & self.regs.imr & 0x7f != 0);
    }

    fn reset_chip(&mut self) {
        self.regs.cr = cr::STOP;
        self.regs.isr = isr::RESET;
        self.update_irq();
    }

    // -- the card's memory ---------------------------------------------------------------------------------------

    fn byte(&self, address: usize) -> u8 {
        match address {
            0..32 | MEMORY..END => self.memory[address],
            _ => 0xff,
        }
    }

    fn set_memory(&mut self, address: usize, byte: u8) {
        if (MEMORY..END).contains(&address) {
            self.memory[address] = byte;
        }
    }

    /// Remote DMA moves on, around the ring, until its count is used up.
    fn advance_remote(&mut self, len: u16) {
        let stop = u16::from(self.regs.pstop) << 8;
        self.regs.rsar = self.regs.rsar.wrapping_add(len);
        if self.regs.rsar == stop {
            self.regs.rsar = u16::from(self.regs.pstart) << 8;
        }
        self.regs.rbcr = self.regs.rbcr.saturating_sub(len);
        if self.regs.rbcr == 0 {
            self.regs.isr |= isr::REMOTE_DONE;
            self.update_irq();
        }
    }

    fn read_data(&mut self, width: Width) -> u32 {
        // Words, unless the chip is set to bytes (DCR.WTS).
        let len = if width == Width::B1 && self.regs.dcr & 1 != 0 { 2 } else { width.bytes() };
        let start = usize::from(self.regs.rsar);
        let value = (0..len).fold(0, |value, i| value | u64::from(self.byte(start + i as usize)) << (8 * i));
        self.advance_remote(u16::try_from(len).unwrap_or(4));
        u32::try_from(value & width.ones()).unwrap_or(0)
    }

    fn write_data(&mut self, width: Width, value: u32) {
        if self.regs.rbcr == 0 {
            return;
        }
        let len = if width == Width::B1 && self.regs.dcr & 1 != 0 { 2 } else { width.bytes() };
        let start = usize::from(self.regs.rsar);
        for (at, byte) in value.to_le_bytes().into_iter().take(len as usize).enumerate() {
            self.set_memory(start + at, byte);
        }
        self.advance_remote(u16::try_from(len).unwrap_or(4));
    }

    // -- frames --------------------------------------------------------------------------------------------------

    fn transmit(&mut self) {
        let start = usize::from(self.regs.tpsr) << 8;
        let end = start + usize::from(self.regs.tbcr);
        if start >= MEMORY && end <= END && start < end && self.link.has_room() {
            let frame = self.memory[start..end].to_vec();
            // Room was there, and nobody else sends here.
            let _ = self.link.send(Packet::from(frame));
        }
        self.regs.tsr = 1;
        self.regs.isr |= isr::TRANSMITTED;
        self.regs.cr &= !cr::TRANSMIT;
        self.update_irq();
    }

    /// First and last address of the receive ring, if it lies in memory.
    fn ring(&self) -> Option<(usize, usize)> {
        let (start, stop) = (usize::from(self.regs.pstart) << 8, usize::from(self.regs.pstop) << 8);
        (start >= MEMORY && start < stop && stop <= END).then_some((start, stop))
    }

    fn has_room(&self) -> bool {
        let Some((start, stop)) = self.ring() else { return false };
        if self.regs.cr & cr::STOP != 0 {
            return false;
        }
        let (current, boundary) = (usize::from(self.regs.curr) << 8, usize::from(self.regs.bnry) << 8);
        let free =
            if current < boundary { boundary - current } else { (stop - start).saturating_sub(current - boundary) };
        // A ring that is filled up to BNRY would look empty.
        free > (LONGEST + 4).next_multiple_of(256)
    }

    fn receive(&mut self) {
        while self.has_room() {
            let Some(packet) = self.link.receive() else { return };
            if packet.len() <= LONGEST + 4 {
                self.store(&packet.into_bytes());
            }
        }
    }

    fn passes(&self, to: &[u8]) -> bool {
        if self.regs.rcr & rcr::PROMISCUOUS != 0 {
            return true;
        }
        if to == [0xff; 6] {
            return self.regs.rcr & rcr::BROADCAST != 0;
        }
        if to[0] & 1 != 0 {
            let hash = hash64(to);
            return self.regs.rcr & rcr::MULTICAST != 0 && self.regs.mar[hash as usize / 8] >> (hash % 8) & 1 != 0;
        }
        to == self.regs.par
    }

    fn store(&mut self, frame: &[u8]) {
        let Some((start, stop)) = self.ring() else { return };
        if frame.len() < 6 || self.regs.rcr & rcr::MONITOR != 0 || !self.passes(&frame[..6]) {
            return;
        }
        let len = frame.len().max(MIN_FRAME);
        let mut at = usize::from(self.regs.curr) << 8;
        if at < start || at >= stop {
            at = start; // what the guest wrote is nowhere
        }
        // Status, next page, length with this header; then the frame, around the ring.
        let mut next = at + (len + 4).next_multiple_of(256);
        if next >= stop {
            next -= stop - start;
        }
        self.regs.rsr = 1 | if frame[0] & 1 != 0 { 0x20 } else { 0 };
        let total = u16::try_from(len + 4).unwrap_or(u16::MAX).to_le_bytes();
        let header = [self.regs.rsr, u8::try_from(next >> 8).unwrap_or(0), total[0], total[1]];
        let padding = std::iter::repeat_n(0, len - frame.len());
        for byte in header.into_iter().chain(frame.iter().copied()).chain(padding) {
            self.set_memory(at, byte);
            at += 1;
            if at == stop {
                at = start;
            }
        }
        self.regs.curr = u8::try_from(next >> 8).unwrap_or(0);
        self.regs.isr |= isr::RECEIVED;
        self.update_irq();
    }

    // -- registers -----------------------------------------------------------------------------------------------

    fn write_command(&mut self, value: u8) {
        self.regs.cr = value;
        if value & cr::STOP != 0 {
            self.regs.isr |= isr::RESET;
            return;
        }
        self.regs.isr &= !isr::RESET;
        // A remote transfer of nothing is over at once.
        if value & (cr::READ | cr::WRITE) != 0 && value & cr::ABORT == 0 && self.regs.rbcr == 0 {
            self.regs.isr |= isr::REMOTE_DONE;
        }
        self.update_irq();
        if value & cr::TRANSMIT != 0 {
            self.transmit();
        }
        if value & cr::START != 0 {
            self.receive();
        }
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        let (page, regs) = (self.regs.cr >> 6, &self.regs);
        match (page, offset) {
            (_, 0) => regs.cr,
            (0, 3) => regs.bnry,
            (0, 4) => regs.tsr,
            (0, 7) => regs.isr,
            (0, 8) => regs.rsar.to_le_bytes()[0],
            (0, 9) => regs.rsar.to_le_bytes()[1],
            // The RTL8029's identification.
            (0, 0xa) if self.config.is_some() => 0x50,
            (0, 0xb) if self.config.is_some() => 0x43,
            (0, 0xc) => regs.rsr,
            (1, 1..=6) => regs.par[offset as usize - 1],
            (1, 7) => regs.curr,
            (1, 8..=15) => regs.mar[offset as usize - 8],
            (2, 1) => regs.pstart,
            (2, 2) => regs.pstop,
            (2, 4) => regs.tpsr,
            (2, 0xc) => regs.rcr,
            (2, 0xd) => regs.tcr,
            (2, 0xe) => regs.dcr,
            (2, 0xf) => regs.imr,
            // CONFIG3: full duplex (RTL8029AS 5.2.4).
            (3, 6) if self.config.is_some() => 0x40,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        let regs = &mut self.regs;
        match (regs.cr >> 6, offset) {
            (_, 0) => self.write_command(value),
            (0, 1) => regs.pstart = value,
            (0, 2) => regs.pstop = value,
            (0, 3) => {
                regs.bnry = value;
                self.receive();
            }
            (0, 4) => regs.tpsr = value,
            (0, 5 | 6) => set_byte(&mut regs.tbcr, offset == 6, value),
            (0, 7) => {
                regs.isr &= !(value & 0x7f);
                self.update_irq();
            }
            (0, 8 | 9) => set_byte(&mut regs.rsar, offset == 9, value),
            (0, 0xa | 0xb) => set_byte(&mut regs.rbcr, offset == 0xb, value),
            (0, 0xc) => regs.rcr = value,
            (0, 0xd) => regs.tcr = value,
            (0, 0xe) => regs.dcr = value,
            (0, 0xf) => {
                regs.imr = value;
                self.update_irq();
            }
            (1, 1..=6) => {
                regs.par[offset as usize - 1] = value;
                let par = regs.par;
                self.link.set_address(par);
            }
            (1, 7) => regs.curr = value,
            (1, 8..=15) => regs.mar[offset as usize - 8] = value,
            _ => {}
        }
    }
}

impl Device for Ne2000 {
    fn read(&mut self, at: At) -> u64 {
        match at.offset {
            0..DATA_PORT => {
                let bytes = 0..at.width.bytes();
                bytes.fold(0, |value, i| value | u64::from(self.read_register(at.offset + i)) << (8 * i))
            }
            DATA_PORT..0x18 => u64::from(self.read_data(at.width)),
            RESET_PORT => {
                self.reset_chip();
                0
            }
            _ => 0,
        }
    }

    fn write(&mut self, at: At, value: u64) {
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match at.offset {
            0..DATA_PORT => {
                for (i, byte) in (0..at.width.bytes()).zip(value.to_le_bytes()) {
                    self.write_register(at.offset + i, byte);
                }
            }
            DATA_PORT..0x18 => self.write_data(at.width, value),
            _ => {} // the reset ends when the port is written
        }
    }

    fn event(&mut self, _token: Token) {
        self.link.attend();
        self.receive();
    }

    fn reset(&mut self, _kind: Reset) {
        // The board resets the configuration space.
        let Self { irq: _, link, mac, config: _, regs, memory: _ } = self;
        *regs = Regs::COLD;
        link.set_address(*mac);
        self.fill_prom();
        self.update_irq();
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        if self.config.is_some() { Some(self) } else { None }
    }
}

impl PciFunction for Ne2000 {
    fn config(&mut self) -> &mut ConfigSpace {
        self.config.get_or_insert_with(|| ConfigSpace::new(0xffff, 0xffff, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Probe;
    use crate::hw::bench::Random;
    use crate::net::{Port, Role, Wire};

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn bench() -> (Ne2000, Port, Arc<Probe>) {
        let (wire, irq) = (Wire::new(), Probe::new());
        let (nic, host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
        (Ne2000::isa(irq.line(0), Box::new(nic), MAC), host, irq)
    }

    fn at(offset: u64, width: Width) -> At {
        At { region: PORTS, offset, width }
    }

    fn out(card: &mut Ne2000, offset: u64, value: u8) {
        card.write(at(offset, Width::B1), value.into());
    }

    fn start(card: &mut Ne2000) {
        let program =
            [(0, 0x21), (14, 0x49), (1, 0x46), (2, 0x80), (3, 0x46), (12, 4), (15, 0x7f), (0, 0x61), (7, 0x47)];
        for (offset, value) in program {
            out(card, offset, value);
        }
        for (offset, byte) in MAC.into_iter().enumerate() {
            out(card, offset as u64 + 1, byte);
        }
        out(card, 0, 0x22);
    }

    fn remote(card: &mut Ne2000, command: u8, address: u16, len: u16) {
        let ([a, b], [c, d]) = (address.to_le_bytes(), len.to_le_bytes());
        for (offset, value) in [(10, c), (11, d), (8, a), (9, b), (0, command)] {
            out(card, offset, value);
        }
    }

    #[test]
    fn the_prom_has_the_address_twice() {
        let (mut card, _host, _irq) = bench();
        start(&mut card);
        remote(&mut card, 0x0a, 0, 32);
        let prom: Vec<u64> = (0..16).map(|_| card.read(at(DATA_PORT, Width::B2))).collect();
        assert_eq!(prom[..6], MAC.map(|byte| u64::from(byte) * 0x101));
        assert_eq!(prom[14], 0x5757);
        assert_eq!(card.read(at(7, Width::B1)) & 0x40, 0x40);
    }

    #[test]
    fn a_frame_is_sent_from_memory() {
        let (mut card, mut host, irq) = bench();
        start(&mut card);
        remote(&mut card, 0x12, 0x4000, 64);
        for word in 0..32 {
            card.write(at(DATA_PORT, Width::B2), word);
        }
        for (offset, value) in [(4, 0x40), (5, 64), (6, 0), (0, 0x26)] {
            out(&mut card, offset, value);
        }
        let frame = host.receive().unwrap();
        assert_eq!((frame.len(), frame.head()[2]), (64, 1));
        assert!(irq.is_high(0));
        out(&mut card, 7, 0xff);
        assert!(!irq.is_high(0));
    }

    #[test]
    fn frames_are_stored_in_the_ring() {
        let (mut card, mut host, irq) = bench();
        start(&mut card);
        let frame: Vec<u8> = MAC.into_iter().chain(6..100).collect();
        host.send(Packet::from(frame.clone())).unwrap();
        host.send(Packet::from(vec![2; 60])).unwrap();
        card.event(LINK_TOKEN);
        assert!(irq.is_high(0));
        assert_eq!(card.memory[0x4700..0x4704], [1, 0x48, 104, 0]);
        assert_eq!(card.memory[0x4704..0x4704 + 100], frame);
        assert_eq!(card.regs.curr, 0x48);
    }

    #[test]
    fn a_full_ring_keeps_the_peer_waiting() {
        let (mut card, mut host, _irq) = bench();
        start(&mut card);
        for _ in 0..30 {
            host.send(Packet::from([&MAC[..], &[0; 1494]].concat())).unwrap();
        }
        card.event(LINK_TOKEN);
        let full = card.regs.curr;
        assert!(card.link.has_frame());
        // Never up to BNRY: that would be an empty ring.
        assert_ne!(full, card.regs.bnry);
        out(&mut card, 3, full - 1);
        assert_ne!(card.regs.curr, full);
    }

    /// Random programs: nothing panics, whatever the ring registers say.
    #[test]
    fn hostile_programs_do_no_harm() {
        let mut random = Random(77);
        for _ in 0..50 {
            let (mut card, mut host, _irq) = bench();
            for _ in 0..2000 {
                let width = [Width::B1, Width::B2, Width::B4][random.next() as usize % 3];
                card.write(at(random.next() % 32, width), random.next() & width.ones());
                card.read(at(random.next() % 32, width));
                let _ = host.send(Packet::from(vec![0xff; random.next() as usize % 1600]));
                card.event(LINK_TOKEN);
                while host.receive().is_some() {}
            }
        }
    }
}
