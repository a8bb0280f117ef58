//! The serial EEPROM: 64 words behind a Microwire bus (manual 5, 93C46 data sheet).

use super::spec::eecd;

/// Words in it.
const WORDS: usize = 64;
/// What all words add up to (5.6.35).
const SUM: u16 = 0xbaba;
/// Start bit, two bits of opcode, six of address.
const COMMAND_BITS: u32 = 9;
/// Start bit and "read".
const READ: u32 = 0b110;

/// The EEPROM and the state of its bus.
#[derive(Clone, Debug)]
pub struct Eeprom {
    words: [u16; WORDS],
    lines: u32,
    received: u32,
    shift: u32,
    /// Address of the word on its way out, and the bits of it that are out.
    reading: Option<(usize, u32)>,
    output: bool,
}

impl Eeprom {
    /// An EEPROM as a maker of cards fills it (5.6): station address, identification, checksum.
    pub fn new(mac: [u8; 6], device: u16, subsystem: (u16, u16)) -> Self {
        let mut words = [0xffff; WORDS];
        for (word, pair) in words.iter_mut().zip(mac.as_chunks::<2>().0) {
            *word = u16::from_le_bytes(*pair);
        }
        // Compatibility: none (5.6.2).
        words[3] = 0;
        // Initialisation control 1: subsystem and vendor are loaded from here (5.6.7).
        words[0x0a] = 0x4000 | 0x000b;
        words[0x0b] = subsystem.1;
        words[0x0c] = subsystem.0;
        words[0x0d] = device;
        words[0x0e] = 0x8086;
        // Initialisation control 2: flow control both ways is advertised (5.6.12).
        words[0x0f] = 0x3040;
        let sum = words[..WORDS - 1].iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
        words[WORDS - 1] = SUM.wrapping_sub(sum);
        Self { words, lines: 0, received: 0, shift: 0, reading: None, output: true }
    }

    /// A word; all ones where there is none.
    pub fn word(&self, address: u32) -> u16 {
        self.words.get(address as usize).copied().unwrap_or(0xffff)
    }

    /// The lines that a guest drives: a command moves bit by bit with the clock's rising edges.
    pub fn drive(&mut self, lines: u32) {
        let rising = lines & !self.lines & eecd::SK != 0;
        self.lines = lines & (eecd::SK | eecd::CS | eecd::DI | eecd::FWE | eecd::REQ);
        if lines & eecd::CS == 0 {
            (self.received, self.shift, self.reading, self.output) = (0, 0, None, true);
            return;
        }
        if !rising {
            return;
        }
        if let Some((address, out)) = self.reading {
            self.output = self.word(address as u32) >> (15 - out) & 1 != 0;
            // Words follow each other as long as the clock runs.
            self.reading = Some(if out == 15 { ((address + 1) % WORDS, 0) } else { (address, out + 1) });
            return;
        }
        let bit = u32::from(lines & eecd::DI != 0);
        if self.received == 0 && bit == 0 {
            return; // before the start bit
        }
        self.shift = self.shift << 1 | bit;
        self.received += 1;
        if self.received == COMMAND_BITS {
            if self.shift >> 6 == READ {
                self.reading = Some(((self.shift & 63) as usize, 0));
                self.output = false; // the dummy bit
            }
            (self.received, self.shift) = (0, 0);
        }
    }

    /// The register as the guest reads it.
    pub fn lines(&self) -> u32 {
        let grant = if self.lines & eecd::REQ != 0 { eecd::GNT } else { 0 };
        self.lines | grant | eecd::PRES | if self.output { eecd::DO } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(eeprom: &mut Eeprom, address: u32) -> u16 {
        eeprom.drive(eecd::CS);
        let command = READ << 6 | address;
        for at in (0..COMMAND_BITS).rev() {
            let di = if command >> at & 1 != 0 { eecd::DI } else { 0 };
            eeprom.drive(eecd::CS | di);
            eeprom.drive(eecd::CS | di | eecd::SK);
        }
        let mut word = 0;
        for _ in 0..16 {
            eeprom.drive(eecd::CS);
            eeprom.drive(eecd::CS | eecd::SK);
            word = word << 1 | u16::from(eeprom.lines() & eecd::DO != 0);
        }
        eeprom.drive(0);
        word
    }

    #[test]
    fn words_come_out_bit_by_bit() {
        let mut eeprom = Eeprom::new([0x52, 0x54, 0, 0x12, 0x34, 0x56], 0x100e, (0x1af4, 0x1100));
        assert_eq!((0..3).map(|at| read(&mut eeprom, at)).collect::<Vec<_>>(), [0x5452, 0x1200, 0x5634]);
        assert_eq!(read(&mut eeprom, 13), 0x100e);
        let sum = (0..64).fold(0u16, |sum, at| sum.wrapping_add(read(&mut eeprom, at)));
        assert_eq!(sum, SUM);
    }
}
