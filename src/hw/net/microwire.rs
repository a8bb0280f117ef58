//! A 93C46 serial EEPROM: 64 words behind a Microwire bus (93C46 data sheet). Commands that write are ignored.

/// Words in it.
const WORDS: usize = 64;
/// Start bit, two bits of opcode, six of address.
const COMMAND_BITS: u32 = 9;
/// Start bit and "read".
const READ: u32 = 0b110;

/// The lines that a chip drives.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Lines {
    /// Chip select.
    pub select: bool,
    /// Clock.
    pub clock: bool,
    /// Data in.
    pub data: bool,
}

/// The EEPROM and the state of its bus.
#[derive(Clone, Debug)]
pub struct Microwire {
    words: [u16; WORDS],
    clock: bool,
    received: u32,
    shift: u32,
    /// Address of the word on its way out, and the bits of it that are out.
    reading: Option<(usize, u32)>,
    output: bool,
}

impl Microwire {
    /// An EEPROM with this content.
    #[must_use]
    pub fn new(words: [u16; WORDS]) -> Self {
        Self { words, clock: false, received: 0, shift: 0, reading: None, output: true }
    }

    /// A word; all ones where there is none.
    #[must_use]
    pub fn word(&self, address: u32) -> u16 {
        self.words.get(address as usize).copied().unwrap_or(0xffff)
    }

    /// The line that it drives.
    #[must_use]
    pub fn output(&self) -> bool {
        self.output
    }

    /// A command moves bit by bit with the clock's rising edges.
    pub fn drive(&mut self, lines: Lines) {
        let rising = lines.clock && !self.clock;
        self.clock = lines.clock;
        if !lines.select {
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
        if self.received == 0 && !lines.data {
            return; // before the start bit
        }
        self.shift = self.shift << 1 | u32::from(lines.data);
        self.received += 1;
        if self.received == COMMAND_BITS {
            if self.shift >> 6 == READ {
                self.reading = Some(((self.shift & 63) as usize, 0));
                self.output = false; // the dummy bit
            }
            (self.received, self.shift) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(eeprom: &mut Microwire, address: u32) -> u16 {
        let command = READ << 6 | address;
        for at in (0..COMMAND_BITS).rev() {
            let data = command >> at & 1 != 0;
            eeprom.drive(Lines { select: true, clock: false, data });
            eeprom.drive(Lines { select: true, clock: true, data });
        }
        let mut word = 0;
        for _ in 0..16 {
            eeprom.drive(Lines { select: true, ..Lines::default() });
            eeprom.drive(Lines { select: true, clock: true, data: false });
            word = word << 1 | u16::from(eeprom.output());
        }
        eeprom.drive(Lines::default());
        word
    }

    #[test]
    fn words_come_out_bit_by_bit() {
        let mut eeprom = Microwire::new(std::array::from_fn(|at| at as u16 * 0x401));
        assert_eq!((0..64).map(|at| read(&mut eeprom, at)).collect::<Vec<_>>(), eeprom.words);
    }
}
