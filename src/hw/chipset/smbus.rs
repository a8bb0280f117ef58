//! The SMBus host of the PIIX4 with serial-presence-detect EEPROMs.
//!
//! Documents: Intel 82371AB (PIIX4) data sheet, section 7.3 (SMBus I/O registers); System Management Bus
//! Specification 2.0, 5.5 (protocols).
//!
//! A transaction ends within the write that starts it, so HOST_BUSY never shows. The slave registers read as 0 and
//! there are no interrupts: firmware polls.

/// Registers, from the base.
mod reg {
    pub const HOST_STATUS: u64 = 0;
    pub const HOST_CONTROL: u64 = 2;
    pub const HOST_COMMAND: u64 = 3;
    pub const HOST_ADDRESS: u64 = 4;
    pub const DATA0: u64 = 5;
    pub const DATA1: u64 = 6;
    pub const BLOCK_DATA: u64 = 7;
}

mod status {
    pub const INTERRUPT: u8 = 1 << 1;
    pub const DEVICE_ERROR: u8 = 1 << 2;
    pub const BUS_ERROR: u8 = 1 << 3;
    pub const FAILED: u8 = 1 << 4;
    pub const CLEARABLE: u8 = INTERRUPT | DEVICE_ERROR | BUS_ERROR | FAILED;
}

/// Start bit of the control register; it reads as 0.
const START: u8 = 1 << 6;
/// The first EEPROM's address.
const FIRST_EEPROM: u8 = 0x50;

/// Protocols, bits 4-2 of the control register.
mod protocol {
    pub const QUICK: u8 = 0;
    pub const BYTE: u8 = 1;
    pub const BYTE_DATA: u8 = 2;
    pub const WORD_DATA: u8 = 3;
    pub const BLOCK: u8 = 5;
}

/// A 256-byte EEPROM with an address counter.
#[derive(Clone, Debug)]
struct Eeprom {
    data: [u8; 256],
    /// The content that a reset brings back.
    initial: [u8; 256],
    at: u8,
}

impl Eeprom {
    fn next(&mut self) -> u8 {
        let byte = self.data[usize::from(self.at)];
        self.at = self.at.wrapping_add(1);
        byte
    }

    fn put(&mut self, byte: u8) {
        self.data[usize::from(self.at)] = byte;
        self.at = self.at.wrapping_add(1);
    }
}

/// The host with what is on its bus.
#[derive(Clone, Debug)]
pub(super) struct SmbusHost {
    eeproms: Vec<Eeprom>,
    regs: Regs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    status: u8,
    control: u8,
    command: u8,
    address: u8,
    data: [u8; 2],
    block: [u8; 32],
    block_at: u8,
}

impl Regs {
    const COLD: Self =
        Self { status: 0, control: 0, command: 0, address: 0, data: [0; 2], block: [0; 32], block_at: 0 };
}

impl SmbusHost {
    /// A host with EEPROMs at 50h and following, at most eight.
    pub fn new(eeproms: Vec<[u8; 256]>) -> Self {
        let eeproms = eeproms.into_iter().take(8).map(|data| Eeprom { data, initial: data, at: 0 }).collect();
        Self { eeproms, regs: Regs::COLD }
    }

    pub fn reset(&mut self) {
        let Self { eeproms, regs } = self;
        *regs = Regs::COLD;
        for eeprom in eeproms {
            let Eeprom { data, initial, at } = eeprom;
            *data = *initial;
            *at = 0;
        }
    }

    pub fn read(&mut self, offset: u64) -> u8 {
        let regs = &mut self.regs;
        match offset {
            reg::HOST_STATUS => regs.status,
            reg::HOST_CONTROL => {
                // Reading the control register restarts the block buffer (7.3.3).
                regs.block_at = 0;
                regs.control & !START
            }
            reg::HOST_COMMAND => regs.command,
            reg::HOST_ADDRESS => regs.address,
            reg::DATA0 => regs.data[0],
            reg::DATA1 => regs.data[1],
            reg::BLOCK_DATA => {
                let byte = regs.block[usize::from(regs.block_at % 32)];
                regs.block_at = (regs.block_at + 1) % 32;
                byte
            }
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: u64, byte: u8) {
        let regs = &mut self.regs;
        match offset {
            reg::HOST_STATUS => {
                regs.status &= !(byte & status::CLEARABLE);
                regs.block_at = 0;
            }
            reg::HOST_CONTROL => {
                regs.control = byte;
                if byte & START != 0 {
                    self.run();
                }
            }
            reg::HOST_COMMAND => regs.command = byte,
            reg::HOST_ADDRESS => regs.address = byte,
            reg::DATA0 => regs.data[0] = byte,
            reg::DATA1 => regs.data[1] = byte,
            reg::BLOCK_DATA => {
                regs.block[usize::from(regs.block_at % 32)] = byte;
                regs.block_at = (regs.block_at + 1) % 32;
            }
            _ => {}
        }
    }

    /// Runs the transaction that the registers describe.
    fn run(&mut self) {
        let Self { eeproms, regs } = self;
        let reading = regs.address & 1 != 0;
        let index = (regs.address >> 1).wrapping_sub(FIRST_EEPROM);
        let Some(eeprom) = eeproms.get_mut(usize::from(index)) else {
            regs.status |= status::DEVICE_ERROR;
            return;
        };
        match (regs.control >> 2 & 7, reading) {
            (protocol::QUICK, _) => {}
            (protocol::BYTE, true) => regs.data[0] = eeprom.next(),
            (protocol::BYTE, false) => eeprom.at = regs.command,
            (protocol::BYTE_DATA, true) => {
                eeprom.at = regs.command;
                regs.data[0] = eeprom.next();
            }
            (protocol::BYTE_DATA, false) => {
                eeprom.at = regs.command;
                eeprom.put(regs.data[0]);
            }
            (protocol::WORD_DATA, true) => {
                eeprom.at = regs.command;
                regs.data = [eeprom.next(), eeprom.next()];
            }
            (protocol::WORD_DATA, false) => {
                eeprom.at = regs.command;
                regs.data.iter().for_each(|&byte| eeprom.put(byte));
            }
            (protocol::BLOCK, true) => {
                eeprom.at = regs.command;
                let len = eeprom.next().min(32);
                regs.data[0] = len;
                for slot in regs.block.iter_mut().take(usize::from(len)) {
                    *slot = eeprom.next();
                }
            }
            (protocol::BLOCK, false) => {
                eeprom.at = regs.command;
                let len = regs.data[0].min(32);
                eeprom.put(len);
                for &byte in regs.block.iter().take(usize::from(len)) {
                    eeprom.put(byte);
                }
            }
            _ => {
                regs.status |= status::DEVICE_ERROR;
                return;
            }
        }
        regs.block_at = 0;
        regs.status |= status::INTERRUPT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> SmbusHost {
        let mut data = [0; 256];
        data[..4].copy_from_slice(&[2, 0xaa, 0xbb, 0xcc]);
        SmbusHost::new(vec![data])
    }

    fn transact(host: &mut SmbusHost, address: u8, kind: u8, command: u8) -> u8 {
        host.write(reg::HOST_STATUS, 0xff);
        host.write(reg::HOST_ADDRESS, address);
        host.write(reg::HOST_COMMAND, command);
        host.write(reg::HOST_CONTROL, START | kind << 2);
        host.read(reg::HOST_STATUS)
    }

    #[test]
    fn nobody_answers_at_other_addresses() {
        let mut host = host();
        assert_eq!(transact(&mut host, 0x51 << 1 | 1, protocol::BYTE_DATA, 0), status::DEVICE_ERROR);
        assert_eq!(transact(&mut host, 0x10, protocol::QUICK, 0), status::DEVICE_ERROR);
    }

    #[test]
    fn words_blocks_and_bytes_are_read() {
        let mut host = host();
        assert_eq!(transact(&mut host, 0xa1, protocol::WORD_DATA, 1), status::INTERRUPT);
        assert_eq!((host.read(reg::DATA0), host.read(reg::DATA1)), (0xaa, 0xbb));
        transact(&mut host, 0xa1, protocol::BYTE, 0);
        assert_eq!(host.read(reg::DATA0), 0xcc);
        transact(&mut host, 0xa1, protocol::BLOCK, 0);
        assert_eq!(host.read(reg::DATA0), 2);
        assert_eq!((host.read(reg::BLOCK_DATA), host.read(reg::BLOCK_DATA)), (0xaa, 0xbb));
    }

    #[test]
    fn writes_last_until_reset() {
        let mut host = host();
        host.write(reg::DATA0, 0x77);
        transact(&mut host, 0xa0, protocol::BYTE_DATA, 9);
        transact(&mut host, 0xa1, protocol::BYTE_DATA, 9);
        assert_eq!(host.read(reg::DATA0), 0x77);
        host.reset();
        assert_eq!(host.regs, Regs::COLD);
        transact(&mut host, 0xa1, protocol::BYTE_DATA, 9);
        assert_eq!(host.read(reg::DATA0), 0);
    }
}
