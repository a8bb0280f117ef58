//! Realtek's RTL8139C+: the four buffers of the RTL8139 and the descriptor rings of "C+ mode".
//!
//! Written from the RTL8139C(L) and RTL8139C+ data sheets. Frames move at once. Not modelled: wake-up, the timer's
//! interrupt, VLAN tags in C+ mode's receive descriptors beyond stripping, the cable test.

use std::sync::Arc;

use crate::bus::{
    At, Bar, BarKind, Board, ConfigChange, ConfigSpace, Decode, Device, DeviceId, DeviceRef, IrqLine, PciAddress,
    PciFunction, Region, Reset, Token,
};
use crate::mem::{GuestRam, RamBlock};
use crate::net::{Checksum, Layout, Link, Offload, Packet, fill_ipv4_checksum, long_tcp};

use super::frame::{MIN_FRAME, check_sequence, hash64};
use super::microwire::{Lines, Microwire};

/// The event of the link.
pub const LINK_TOKEN: Token = Token(0);

const REGISTERS: Region = Region(0);
const ROM: Region = Region(2);

/// Register offsets (RTL8139C+ 6).
mod reg {
    pub const IDR: u64 = 0x00;
    pub const MAR: u64 = 0x08;
    pub const TSD: u64 = 0x10;
    pub const TSAD: u64 = 0x20;
    pub const RBSTART: u64 = 0x30;
    pub const CR: u64 = 0x37;
    pub const CAPR: u64 = 0x38;
    pub const CBR: u64 = 0x3a;
    pub const IMR: u64 = 0x3c;
    pub const ISR: u64 = 0x3e;
    pub const TCR: u64 = 0x40;
    pub const RCR: u64 = 0x44;
    pub const EE: u64 = 0x50;
    pub const CONFIG1: u64 = 0x52;
    pub const MSR: u64 = 0x58;
    pub const RERID: u64 = 0x5e;
    pub const TSAD_STATUS: u64 = 0x60;
    pub const BMCR: u64 = 0x62;
    pub const BMSR: u64 = 0x64;
    pub const ANAR: u64 = 0x66;
    pub const ANLPAR: u64 = 0x68;
    pub const ANER: u64 = 0x6a;
    pub const TPPOLL: u64 = 0xd9;
    pub const CPCR: u64 = 0xe0;
    pub const RDSAR: u64 = 0xe4;
}

/// Command register.
mod cr {
    pub const EMPTY: u8 = 1 << 0;
    pub const TE: u8 = 1 << 2;
    pub const RE: u8 = 1 << 3;
    pub const RST: u8 = 1 << 4;
}

/// Interrupt status.
mod isr {
    pub const ROK: u16 = 1 << 0;
    pub const TOK: u16 = 1 << 2;
    pub const TER: u16 = 1 << 3;
    pub const LINK: u16 = 1 << 5;
}

/// Receive configuration.
mod rcr {
    pub const AAP: u32 = 1 << 0;
    pub const APM: u32 = 1 << 1;
    pub const AM: u32 = 1 << 2;
    pub const AB: u32 = 1 << 3;
    pub const WRAP: u32 = 1 << 7;
}

/// Transmit status of a buffer.
mod tsd {
    pub const SIZE: u32 = 0x1fff;
    pub const OWN: u32 = 1 << 13;
    pub const TOK: u32 = 1 << 15;
    pub const TABT: u32 = 1 << 30;
}

/// C+ command register.
mod cpcr {
    pub const TE: u16 = 1 << 0;
    pub const RE: u16 = 1 << 1;
    pub const CHECKSUM: u16 = 1 << 5;
    pub const VLAN: u16 = 1 << 6;
}

/// C+ descriptors: the first word.
mod desc {
    pub const OWN: u32 = 1 << 31;
    pub const EOR: u32 = 1 << 30;
    pub const FS: u32 = 1 << 29;
    pub const LS: u32 = 1 << 28;
    pub const LGSEN: u32 = 1 << 27;
    pub const TCPCS: u32 = 1 << 16;
    pub const UDPCS: u32 = 1 << 17;
    pub const IPCS: u32 = 1 << 18;
    /// Receive: multicast, for us, broadcast.
    pub const MAR: u32 = 1 << 26;
    pub const PAM: u32 = 1 << 25;
    pub const BAR: u32 = 1 << 24;
}

/// Descriptors of a C+ ring, at most.
const RING: u32 = 64;
const DESCRIPTOR: u64 = 16;
/// A frame and its headers, at most, in C+ mode with large send.
const LONGEST: usize = 65535 + 18;
/// The longest frame that is received.
const LONGEST_RX: usize = 1522;
const SPACE: usize = 256;

/// The chip.
pub struct Rtl8139 {
    // Wires.
    irq: IrqLine,
    ram: GuestRam,
    link: Box<dyn Link>,
    // Options.
    mac: [u8; 6],
    // Guest-visible state.
    config: ConfigSpace,
    /// Registers that are storage.
    bytes: [u8; SPACE],
    isr: u16,
    imr: u16,
    /// Where the next frame goes in the ring buffer, and what the driver has read.
    rx_write: u32,
    rx_read: u32,
    rx_descriptor: u32,
    tx_descriptor: [u32; 2],
    assembly: Vec<u8>,
    eeprom: Microwire,
    bus_master: bool,
    up: bool,
}

impl Rtl8139 {
    /// Puts the card that was reserved as `id` on the board.
    pub fn add(
        board: &mut Board,
        id: DeviceId,
        address: PciAddress,
        (irq, ram, link): (IrqLine, GuestRam, Box<dyn Link>),
        mac: [u8; 6],
        rom: Option<Arc<RamBlock>>,
    ) -> DeviceRef<Self> {
        let card = board.install(id, Self::new(irq, ram, link, mac, rom.as_ref().map(|rom| rom.len())));
        let ram: Vec<_> = rom.into_iter().map(|rom| (6, rom)).collect();
        board.plug_pci(address, id, Decode::UP_TO_4, &ram);
        card
    }

    fn new(irq: IrqLine, ram: GuestRam, mut link: Box<dyn Link>, mac: [u8; 6], rom: Option<u64>) -> Self {
        let mut config = ConfigSpace::new(0x10ec, 0x8139, 0x20, 0x02_0000)
            .with_subsystem(0x1af4, 0x1100)
            .with_interrupt_pin(1)
            .with_bar(0, Bar { kind: BarKind::Io, len: 256, region: REGISTERS })
            .with_bar(1, Bar { kind: BarKind::Memory32 { prefetchable: false }, len: 256, region: REGISTERS });
        if let Some(len) = rom {
            config = config.with_bar(6, Bar { kind: BarKind::Rom, len, region: ROM });
        }
        link.set_address(mac);
        let up = link.is_up();
        let mut words = [0; 64];
        // Mark, identification, subsystem, and the address at word 7 (RTL8139C 7).
        words[..5].copy_from_slice(&[0x8129, 0x10ec, 0x8139, 0x1af4, 0x1100]);
        for (word, pair) in words[7..].iter_mut().zip(mac.as_chunks::<2>().0) {
            *word = u16::from_le_bytes(*pair);
        }
        let mut card = Self {
            irq,
            ram,
            link,
            mac,
            config,
            bytes: [0; SPACE],
            isr: 0,
            imr: 0,
            rx_write: 0,
            rx_read: 0,
            rx_descriptor: 0,
            tx_descriptor: [0; 2],
            assembly: Vec::new(),
            eeprom: Microwire::new(words),
            bus_master: false,
            up,
        };
        card.cold();
        card
    }

    fn word(&self, at: u64) -> u16 {
        self.bytes.get(at as usize..at as usize + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn dword(&self, at: u64) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at + 2)) << 16
    }

    fn put<const N: usize>(&mut self, at: u64, value: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(at as usize..at as usize + N) {
            place.copy_from_slice(&value);
        }
    }

    fn cold(&mut self) {
        self.bytes.fill(0);
        self.put(reg::IDR, self.mac);
        for buffer in 0..4 {
            self.put(reg::TSD + 4 * buffer, tsd::OWN.to_le_bytes());
        }
        // The chip's version: RTL8139C+ (6.7).
        self.put(reg::TCR, 0x7480_0000u32.to_le_bytes());
        self.put(reg::CONFIG1, [0x0c]);
        self.put(reg::BMCR, 0x1000u16.to_le_bytes());
        self.put(reg::ANAR, 0x05e1u16.to_le_bytes());
        self.put(reg::RERID, [2]);
        (self.isr, self.imr) = (0, 0);
        self.soft_reset();
    }

    /// What the command register's RST does.
    fn soft_reset(&mut self) {
        self.bytes[reg::CR as usize] = cr::EMPTY;
        (self.rx_write, self.rx_read, self.rx_descriptor, self.tx_descriptor) = (0, 0, 0, [0; 2]);
        self.assembly.clear();
        self.put(reg::CPCR, [0; 2]);
        for buffer in 0..4 {
            self.put(reg::TSD + 4 * buffer, tsd::OWN.to_le_bytes());
        }
        (self.isr, self.imr) = (0, 0);
        self.update_irq();
    }

    /// The only place that drives the line; call it after any change.
    fn update_irq(&mut self) {
        self.irq.set(self.isr & self.imr != 0);
    }

    fn raise(&mut self, causes: u16) {
        self.isr |= causes;
        self.update_irq();
    }

    fn update_link(&mut self) {
        let up = self.link.is_up();
        if std::mem::replace(&mut self.up, up) != up {
            self.raise(isr::LINK);
        }
    }

    // -- frames out ----------------------------------------------------------------------------------------------

    fn can_send(&mut self) -> bool {
        self.bus_master && self.link.has_room()
    }

    /// One of the four buffers.
    fn send_buffer(&mut self, buffer: u64) {
        let status = self.dword(reg::TSD + 4 * buffer);
        if status & tsd::OWN != 0 || self.bytes[reg::CR as usize] & cr::TE == 0 || !self.can_send() {
            return;
        }
        let len = (status & tsd::SIZE) as usize;
        let mut frame = vec![0; len];
        let read = self.ram.read(u64::from(self.dword(reg::TSAD + 4 * buffer)), &mut frame).is_ok();
        let done = if read && len > 0 && len <= 1792 { tsd::TOK } else { tsd::TABT };
        if done == tsd::TOK {
            frame.resize(len.max(MIN_FRAME), 0);
            self.send(Packet::from(frame));
        }
        self.put(reg::TSD + 4 * buffer, (status | tsd::OWN | done).to_le_bytes());
        self.raise(if done == tsd::TOK { isr::TOK } else { isr::TER });
    }

    fn send(&mut self, packet: Packet) {
        // TCR.LBK: what is sent is received.
        if self.dword(reg::TCR) >> 17 & 3 == 3 {
            if let Err(packet) = self.take(packet) {
                drop(packet); // no room: lost
            }
            return;
        }
        // Room was there, and nobody else sends here.
        let _ = self.link.send(packet);
    }

    /// A C+ ring: 0 normal, 1 high priority.
    fn send_ring(&mut self, priority: usize) {
        let base = self.dword(reg::TSAD + 8 * priority as u64);
        let base = u64::from(base & !0xff) | u64::from(self.dword(reg::TSAD + 8 * priority as u64 + 4)) << 32;
        let mut sent = false;
        for _ in 0..RING {
            if self.word(reg::CPCR) & cpcr::TE == 0 || self.bytes[reg::CR as usize] & cr::TE == 0 || !self.can_send() {
                break;
            }
            let index = self.tx_descriptor[priority] % RING;
            let address = base.wrapping_add(u64::from(index) * DESCRIPTOR);
            let mut bytes = [0; 16];
            if self.ram.read(address, &mut bytes).is_err() {
                break;
            }
            let [control, vlan, low, high] = words(&bytes);
            if control & desc::OWN == 0 {
                break;
            }
            self.descriptor(control, vlan, u64::from(low) | u64::from(high) << 32);
            let status = (control & !desc::OWN).to_le_bytes();
            // It was readable: it is RAM or ROM.
            let _ = self.ram.write(address, &status);
            self.tx_descriptor[priority] = if control & desc::EOR != 0 { 0 } else { (index + 1) % RING };
            sent = true;
        }
        if sent {
            self.raise(isr::TOK);
        }
    }

    fn descriptor(&mut self, control: u32, vlan: u32, buffer: u64) {
        if control & desc::FS != 0 {
            self.assembly.clear();
        }
        let start = self.assembly.len();
        let len = ((control & 0xffff) as usize).min(LONGEST - start.min(LONGEST));
        self.assembly.resize(start + len, 0);
        if self.ram.read(buffer, &mut self.assembly[start..]).is_err() {
            self.assembly.truncate(start);
        }
        if control & desc::LS == 0 {
            return;
        }
        let mut frame = std::mem::take(&mut self.assembly);
        if frame.len() < 14 {
            return;
        }
        // TAGC: the tag has its bytes the other way round.
        if vlan & 1 << 17 != 0 {
            let tag = (vlan & 0xffff) as u16;
            frame.splice(12..12, [0x81, 0, tag.to_le_bytes()[0], tag.to_le_bytes()[1]]);
        }
        frame.resize(frame.len().max(MIN_FRAME), 0);
        if control & desc::LGSEN != 0 {
            if let Some(packet) = long_tcp(frame, (control >> 16 & 0x7ff) as u16) {
                self.send(packet);
            }
            return;
        }
        let offload = checksums(&mut frame, control);
        self.send(Packet::from(frame).with_offload(offload));
    }

    // -- frames in -----------------------------------------------------------------------------------------------

    fn receive(&mut self) {
        while self.bus_master && self.bytes[reg::CR as usize] & cr::RE != 0 && self.has_descriptor() {
            let Some(packet) = self.link.receive() else { return };
            if let Err(packet) = self.take(packet) {
                self.link.unreceive(packet);
                return;
            }
        }
    }

    fn rings(&self) -> bool {
        self.word(reg::CPCR) & cpcr::RE != 0
    }

    /// In C+ mode: whether the next descriptor is the chip's.
    fn has_descriptor(&self) -> bool {
        !self.rings() || self.ram.read_u32(self.rx_address()).is_ok_and(|control| control & desc::OWN != 0)
    }

    fn rx_address(&self) -> u64 {
        let base = u64::from(self.dword(reg::RDSAR) & !0xff) | u64::from(self.dword(reg::RDSAR + 4)) << 32;
        base.wrapping_add(u64::from(self.rx_descriptor % RING) * DESCRIPTOR)
    }

    /// Which filter lets a frame pass (6.8): the bits of a receive status.
    fn passes(&self, to: &[u8]) -> Option<(u16, u32)> {
        let control = self.dword(reg::RCR);
        if to == [0xff; 6] {
            return (control & (rcr::AB | rcr::AAP) != 0).then_some((1 << 13, desc::BAR));
        }
        if to[0] & 1 != 0 {
            let hash = hash64(to);
            let listed = self.bytes[reg::MAR as usize + (hash / 8) as usize] >> (hash % 8) & 1 != 0;
            let wanted = control & rcr::AAP != 0 || (control & rcr::AM != 0 && listed);
            return wanted.then_some((1 << 15, desc::MAR));
        }
        let own = to == &self.bytes[..6];
        let wanted = control & rcr::AAP != 0 || (control & rcr::APM != 0 && own);
        wanted.then_some((if own { 1 << 14 } else { 0 }, if own { desc::PAM } else { 0 }))
    }

    /// Stores a frame; gives it back if there is no room now.
    fn take(&mut self, packet: Packet) -> Result<(), Packet> {
        let mut start = [0; 6];
        if packet.copy_prefix(&mut start) < 6 || packet.len() > LONGEST_RX {
            return Ok(());
        }
        let Some((status, match_bits)) = self.passes(&start) else { return Ok(()) };
        if self.rings() { self.store_descriptor(packet, match_bits) } else { self.store_ring(packet, status) }
    }

    /// The ring buffer: a header, the frame and its check sequence, aligned to four bytes (5.4).
    fn store_ring(&mut self, packet: Packet, status: u16) -> Result<(), Packet> {
        let size = 8192u32 << (self.dword(reg::RCR) >> 11 & 3);
        let len = packet.len().max(MIN_FRAME);
        let needed = u32::try_from(4 + len + 4).unwrap_or(u32::MAX).next_multiple_of(4);
        let used = self.rx_write.wrapping_sub(self.rx_read) % size;
        if used + needed + 4 >= size {
            return Err(packet);
        }
        let mut bytes = packet.into_bytes();
        bytes.resize(len, 0);
        let sequence = check_sequence(&bytes);
        let total = u16::try_from(len + 4).unwrap_or(u16::MAX);
        let record = [&(status | 1).to_le_bytes()[..], &total.to_le_bytes(), &bytes, &sequence].concat();
        let base = u64::from(self.dword(reg::RBSTART));
        let at = self.rx_write % size;
        let first = (size - at) as usize;
        // A buffer that is no memory takes nothing.
        if record.len() <= first || self.dword(reg::RCR) & rcr::WRAP != 0 {
            // With WRAP the frame goes on behind the ring's end.
            let _ = self.ram.write(base + u64::from(at), &record);
        } else {
            let _ = self.ram.write(base + u64::from(at), &record[..first]);
            let _ = self.ram.write(base, &record[first..]);
        }
        self.rx_write = (at + needed) % size;
        self.put(reg::CBR, ((self.rx_write & 0xffff) as u16).to_le_bytes());
        self.bytes[reg::CR as usize] &= !cr::EMPTY;
        self.raise(isr::ROK);
        Ok(())
    }

    fn store_descriptor(&mut self, packet: Packet, match_bits: u32) -> Result<(), Packet> {
        let address = self.rx_address();
        let mut bytes = [0; 16];
        if self.ram.read(address, &mut bytes).is_err() {
            return Err(packet);
        }
        let [control, _, low, high] = words(&bytes);
        if control & desc::OWN == 0 {
            return Err(packet);
        }
        let valid = packet.offload.checksum == Checksum::Valid;
        let mut frame = packet.into_bytes();
        frame.resize(frame.len().max(MIN_FRAME), 0);
        let mut status = match_bits | desc::FS | desc::LS;
        status |= self.protocol_status(&frame, valid);
        let mut tag = 0;
        if self.word(reg::CPCR) & cpcr::VLAN != 0 && frame[12..14] == [0x81, 0] {
            tag = 1 << 16 | u32::from(u16::from_le_bytes([frame[14], frame[15]]));
            frame.drain(12..16);
        }
        let sequence = check_sequence(&frame);
        frame.extend_from_slice(&sequence);
        let room = (control & 0x1fff) as usize;
        frame.truncate(room);
        // A buffer that is no memory takes nothing; the descriptor is used up all the same.
        let _ = self.ram.write(u64::from(low) | u64::from(high) << 32, &frame);
        status |= control & desc::EOR | u32::try_from(frame.len()).unwrap_or(0);
        let _ = self.ram.write(address + 4, &tag.to_le_bytes());
        let _ = self.ram.write(address, &status.to_le_bytes());
        self.rx_descriptor = if control & desc::EOR != 0 { 0 } else { (self.rx_descriptor + 1) % RING };
        self.raise(isr::ROK);
        Ok(())
    }

    /// Protocol and checksum bits of a receive descriptor: nothing is said of frames that nobody vouches for.
    fn protocol_status(&self, frame: &[u8], valid: bool) -> u32 {
        let layout = Layout::of(frame).filter(|layout| valid && layout.v4 && !layout.fragment);
        if self.word(reg::CPCR) & cpcr::CHECKSUM == 0 {
            return 0;
        }
        match layout.map(|layout| layout.protocol) {
            Some(6) => 1 << 16,
            Some(17) => 2 << 16,
            Some(_) => 3 << 16,
            None => 0,
        }
    }

    // -- registers -----------------------------------------------------------------------------------------------

    fn read_byte(&mut self, at: u64) -> u8 {
        let of = |word: u16, at: u64| word.to_le_bytes()[(at & 1) as usize];
        match at {
            reg::ISR..reg::TCR => of(self.isr, at),
            reg::IMR..reg::ISR => of(self.imr, at),
            reg::EE => {
                let mode = self.bytes[reg::EE as usize] & 0xfe;
                mode | u8::from(self.eeprom.output())
            }
            // Link is fine when LINKB is clear; 100 Mb/s when SPEED_10 is (6.14).
            reg::MSR => {
                if self.up {
                    0
                } else {
                    1 << 2
                }
            }
            reg::TSAD_STATUS | 0x61 => of(self.all_status(), at),
            reg::BMSR | 0x65 => of(if self.up { 0x782d } else { 0x7809 }, at),
            reg::ANLPAR | 0x69 => of(if self.up { 0x45e1 } else { 0 }, at),
            reg::ANER | 0x6b => of(if self.up { 1 } else { 0 }, at),
            // A command is over at once.
            reg::TPPOLL => 0,
            _ => self.bytes[(at & 0xff) as usize],
        }
    }

    /// The four buffers' states in one word (6.19).
    fn all_status(&self) -> u16 {
        (0..4).fold(0, |all, buffer| {
            let status = self.dword(reg::TSD + 4 * buffer);
            let bit = |mask: u32, at: u64| u16::from(status & mask != 0) << (at + buffer);
            all | bit(tsd::OWN, 0) | bit(tsd::TABT, 4) | bit(tsd::TOK, 12)
        })
    }

    /// Writes a byte of storage; what it sets in motion comes after the last byte.
    fn write_byte(&mut self, at: u64, value: u8) {
        match at {
            reg::ISR..reg::TCR => {
                let mask = u16::from(value) << (8 * (at & 1));
                self.isr &= !mask;
            }
            reg::IMR..reg::ISR => {
                let mut bytes = self.imr.to_le_bytes();
                bytes[(at & 1) as usize] = value;
                self.imr = u16::from_le_bytes(bytes);
            }
            reg::CR if value & cr::RST != 0 => self.soft_reset(),
            reg::CR => {
                let empty = self.bytes[reg::CR as usize] & cr::EMPTY;
                self.bytes[reg::CR as usize] = value & (cr::TE | cr::RE) | empty;
            }
            reg::CBR
            | 0x3b
            | reg::MSR
            | reg::RERID
            | reg::TSAD_STATUS
            | 0x61
            | reg::BMSR
            | 0x65
            | reg::ANLPAR
            | 0x69 => {}
            // The version cannot be written.
            0x43 => {}
            reg::EE => {
                self.bytes[reg::EE as usize] = value;
                let lines = Lines { select: value & 8 != 0, clock: value & 4 != 0, data: value & 2 != 0 };
                self.eeprom.drive(lines);
            }
            _ => self.bytes[(at & 0xff) as usize] = value,
        }
    }

    /// What a write to these bytes sets in motion.
    fn written(&mut self, first: u64, len: u64) {
        let touched = |at: u64, size: u64| first < at + size && at < first + len;
        if touched(reg::IDR, 6) {
            let mac = self.bytes[..6].first_chunk::<6>().copied().unwrap_or(self.mac);
            self.link.set_address(mac);
        }
        for buffer in 0..4 {
            if touched(reg::TSD + 4 * buffer, 4) {
                self.send_buffer(buffer);
            }
        }
        if touched(reg::CAPR, 2) {
            // CAPR is 16 bytes behind what was read (6.5).
            let size = 8192u32 << (self.dword(reg::RCR) >> 11 & 3);
            self.rx_read = (u32::from(self.word(reg::CAPR)) + 16) % size;
            if self.rx_read == self.rx_write % size {
                self.bytes[reg::CR as usize] |= cr::EMPTY;
            }
        }
        if touched(reg::TPPOLL, 1) {
            let poll = self.bytes[reg::TPPOLL as usize];
            if poll & 1 << 7 != 0 {
                self.send_ring(1);
            }
            if poll & 1 << 6 != 0 {
                self.send_ring(0);
            }
        }
        if touched(reg::RBSTART, 4) {
            (self.rx_write, self.rx_read) = (0, 0);
        }
        if touched(reg::BMCR, 2) && self.word(reg::BMCR) & 0x8200 != 0 {
            // Reset and restarted negotiation are over at once.
            let kept = self.word(reg::BMCR) & !0x8200;
            self.put(reg::BMCR, kept.to_le_bytes());
        }
        self.update_irq();
        self.receive();
    }
}

fn words(bytes: &[u8; 16]) -> [u32; 4] {
    let (chunks, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|at| chunks.get(at).map_or(0, |chunk| u32::from_le_bytes(*chunk)))
}

/// The checksums that a C+ descriptor asks for.
fn checksums(frame: &mut [u8], control: u32) -> Offload {
    let Some(layout) = Layout::of(frame) else { return Offload::default() };
    if control & desc::IPCS != 0 && layout.v4 {
        fill_ipv4_checksum(frame, layout.ip);
    }
    let place = match layout.protocol {
        6 if control & desc::TCPCS != 0 => 16,
        17 if control & desc::UDPCS != 0 => 6,
        _ => return Offload::default(),
    };
    let at = layout.transport + place;
    if layout.fragment || at + 2 > frame.len() {
        return Offload::default();
    }
    // The chip makes the pseudo header's sum itself: of the length that the IP header tells.
    let end = if layout.v4 {
        layout.ip + usize::from(u16::from_be_bytes([frame[layout.ip + 2], frame[layout.ip + 3]]))
    } else {
        frame.len()
    };
    let end = end.clamp(layout.transport, frame.len());
    frame[at..at + 2].fill(0);
    let sum = layout.pseudo(frame, end - layout.transport).bytes(&frame[layout.transport..end]).finish();
    let sum = if sum == 0 { 0xffff } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Offload { checksum: Checksum::Valid, segment: None }
}

impl Device for Rtl8139 {
    fn read(&mut self, at: At) -> u64 {
        (0..at.width.bytes()).fold(0, |value, i| value | u64::from(self.read_byte(at.offset + i)) << (8 * i))
    }

    fn write(&mut self, at: At, value: u64) {
        for i in 0..at.width.bytes() {
            self.write_byte(at.offset + i, (value >> (8 * i) & 0xff) as u8);
        }
        self.written(at.offset, at.width.bytes());
    }

    fn event(&mut self, _token: Token) {
        self.link.attend();
        self.update_link();
        for buffer in 0..4 {
            self.send_buffer(buffer);
        }
        self.send_ring(1);
        self.send_ring(0);
        self.receive();
    }

    fn reset(&mut self, _kind: Reset) {
        // The board resets the configuration space.
        self.bus_master = false;
        self.up = self.link.is_up();
        self.eeprom.drive(Lines::default());
        self.cold();
        self.link.set_address(self.mac);
    }

    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Rtl8139 {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_written(&mut self, _change: ConfigChange) {
        self.bus_master = self.config.bus_master();
        self.receive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Probe, Width};
    use crate::hw::bench::Random;
    use crate::net::{Port, Role, Wire};

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    struct Bench {
        card: Rtl8139,
        host: Port,
        ram: GuestRam,
        irq: Arc<Probe>,
    }

    impl Bench {
        fn new() -> Self {
            let (wire, irq) = (Wire::new(), Probe::new());
            let (nic, host) = (wire.plug(Role::Chip), wire.plug(Role::Backend));
            let ram = GuestRam::for_test(1 << 20).unwrap();
            let mut card = Rtl8139::new(irq.line(0), ram.clone(), Box::new(nic), MAC, None);
            card.bus_master = true;
            Self { card, host, ram, irq }
        }

        fn write(&mut self, offset: u64, width: Width, value: u64) {
            self.card.write(At { region: REGISTERS, offset, width }, value);
        }

        fn read(&mut self, offset: u64, width: Width) -> u64 {
            self.card.read(At { region: REGISTERS, offset, width })
        }

        fn start(&mut self) {
            self.write(reg::CR, Width::B1, 0x0c);
            self.write(reg::RCR, Width::B4, 0xe);
            self.write(reg::RBSTART, Width::B4, 0x1_0000);
            self.write(reg::IMR, Width::B2, 0xffff);
        }

        fn arrives(&mut self, frame: Vec<u8>) {
            self.host.send(Packet::from(frame)).unwrap();
            self.card.event(LINK_TOKEN);
        }
    }

    #[test]
    fn a_buffer_is_sent() {
        let mut bench = Bench::new();
        bench.start();
        bench.ram.write(0x2000, &[7; 80]).unwrap();
        bench.write(reg::TSAD, Width::B4, 0x2000);
        bench.write(reg::TSD, Width::B4, 80);
        assert_eq!(bench.host.receive().unwrap().into_bytes(), [7; 80]);
        assert_eq!(bench.read(reg::TSD, Width::B4) as u32 & (tsd::OWN | tsd::TOK), tsd::OWN | tsd::TOK);
        assert!(bench.irq.is_high(0));
        bench.write(reg::ISR, Width::B2, 0xffff);
        assert!(!bench.irq.is_high(0));
    }

    #[test]
    fn a_frame_lies_in_the_ring_behind_its_header() {
        let mut bench = Bench::new();
        bench.start();
        bench.arrives([&MAC[..], &[1; 60]].concat());
        assert_eq!(bench.ram.read_u32(0x1_0000), Ok(0x4001 | 70 << 16));
        assert_eq!(bench.read(reg::CR, Width::B1) & 1, 0);
        assert_eq!(bench.read(reg::CBR, Width::B2), 76);
        bench.write(reg::CAPR, Width::B2, 76 - 16);
        assert_eq!(bench.read(reg::CR, Width::B1) & 1, 1);
    }

    #[test]
    fn descriptors_carry_frames_both_ways() {
        let mut bench = Bench::new();
        bench.start();
        bench.write(reg::CPCR, Width::B2, 0x23);
        bench.write(reg::RDSAR, Width::B4, 0x3000);
        bench.write(reg::TSAD, Width::B4, 0x4000);
        bench.ram.write(0x3000, &[0, 6, 0, 0xc0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]).unwrap();
        bench.arrives([&[0xff; 6][..], &[9; 100]].concat());
        let status = bench.ram.read_u32(0x3000).unwrap();
        assert_eq!(status & 0x1fff, 110);
        assert_eq!(status & (desc::OWN | desc::FS | desc::LS | desc::BAR), desc::FS | desc::LS | desc::BAR);
        bench.ram.write(0x4000, &[90, 0, 0, 0xf0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]).unwrap();
        bench.write(reg::TPPOLL, Width::B1, 0x40);
        assert_eq!(bench.host.receive().unwrap().len(), 90);
        assert_eq!(bench.ram.read_u32(0x4000).unwrap() & desc::OWN, 0);
    }

    /// Random programs: nothing panics or hangs, whatever registers and descriptors say.
    #[test]
    fn hostile_programs_do_no_harm() {
        let mut random = Random(4711);
        for _ in 0..20 {
            let mut bench = Bench::new();
            let noise: Vec<u8> = (0..0x2000).map(|_| random.next() as u8).collect();
            bench.ram.write(0, &noise).unwrap();
            for _ in 0..1000 {
                let width = [Width::B1, Width::B2, Width::B4][random.next() as usize % 3];
                let value = if random.next() & 1 == 0 { random.next() } else { random.next() & 0x1fff };
                bench.write(random.next() % 253, width, value & width.ones());
                bench.read(random.next() % 253, width);
                bench.card.bus_master = true;
                // A card that does not listen fills the queue.
                let _ = bench.host.send(Packet::from(vec![0xff; random.next() as usize % 1700]));
                bench.card.event(LINK_TOKEN);
                while bench.host.receive().is_some() {}
            }
        }
    }
}
