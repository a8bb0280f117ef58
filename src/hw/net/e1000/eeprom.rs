//! The serial EEPROM: 64 words behind a Microwire bus (manual 5).

use super::spec::eecd;
use crate::hw::net::microwire::{Lines, Microwire};

/// Words in it.
const WORDS: usize = 64;
/// What all words add up to (5.6.35).
const SUM: u16 = 0xbaba;

/// The EEPROM and the register in front of it.
#[derive(Clone, Debug)]
pub struct Eeprom {
    chip: Microwire,
    lines: u32,
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
        Self { chip: Microwire::new(words), lines: 0 }
    }

    /// A word; all ones where there is none.
    pub fn word(&self, address: u32) -> u16 {
        self.chip.word(address)
    }

    /// The lines that a guest drives.
    pub fn drive(&mut self, lines: u32) {
        self.lines = lines & (eecd::SK | eecd::CS | eecd::DI | eecd::FWE | eecd::REQ);
        let on = |line: u32| lines & line != 0;
        self.chip.drive(Lines { select: on(eecd::CS), clock: on(eecd::SK), data: on(eecd::DI) });
    }

    /// The register as the guest reads it.
    pub fn lines(&self) -> u32 {
        let grant = if self.lines & eecd::REQ != 0 { eecd::GNT } else { 0 };
        self.lines | grant | eecd::PRES | if self.chip.output() { eecd::DO } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_add_up() {
        let eeprom = Eeprom::new([0x52, 0x54, 0, 0x12, 0x34, 0x56], 0x100e, (0x1af4, 0x1100));
        assert_eq!((0..3).map(|at| eeprom.word(at)).collect::<Vec<_>>(), [0x5452, 0x1200, 0x5634]);
        assert_eq!((0..64).fold(0u16, |sum, at| sum.wrapping_add(eeprom.word(at))), SUM);
    }
}
