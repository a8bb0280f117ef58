//! Lines of the protocol as commands: a pure function from text to what is asked.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::bus::Width;
use crate::keyval::value::{parse_integer, parse_number};

/// More memory than this is not read or written by one command.
pub const MAX_TRANSFER: u64 = 1 << 30;

/// What a line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// `outb`, `outw`, `outl`.
    PortWrite { port: u16, width: Width, value: u32 },
    /// `inb`, `inw`, `inl`.
    PortRead { port: u16, width: Width },
    /// `writeb` … `writeq`.
    Store { gpa: u64, width: Width, value: u64 },
    /// `readb` … `readq`.
    Load { gpa: u64, width: Width },
    /// `read`.
    Read { gpa: u64, len: u64 },
    /// `b64read`.
    ReadBase64 { gpa: u64, len: u64 },
    /// `write`: the digits after "0x" give the first bytes, the rest are zeros.
    Write { gpa: u64, data: Vec<u8> },
    /// `b64write`: what it holds, and the length that it was said to have.
    WriteBase64 { gpa: u64, len: u64, data: Vec<u8> },
    /// `memset`.
    Fill { gpa: u64, len: u64, pattern: u8 },
    /// `clock_step`; without a number: to the next timer.
    ClockStep(Option<i64>),
    /// `clock_set`.
    ClockSet(i64),
    /// `irq_intercept_in`.
    Intercept { device: String },
    /// `set_irq_in`.
    SetIrq { device: String, name: String, input: u32, high: bool },
    /// `endianness`.
    Endianness,
    /// `module_load`.
    ModuleLoad,
}

/// Why a line is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    /// Nothing of that name. QEMU's text.
    #[error("Unknown command '{0}'")]
    Unknown(String),
    /// Its words make no sense. (QEMU ends the process.)
    #[error("Invalid arguments of '{0}'")]
    Arguments(String),
    /// `write` with no digits. QEMU's text.
    #[error("ERR invalid argument size")]
    ArgumentSize,
}

/// The words after the first one, taken in order. `None` is a missing or malformed word.
struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn text(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn number(&mut self) -> Option<u64> {
        parse_number("", self.0.next()?).ok()
    }

    fn port(&mut self) -> Option<u16> {
        u16::try_from(self.number()?).ok()
    }

    /// The low bits of a number.
    fn low32(&mut self) -> Option<u32> {
        u32::try_from(self.number()? & 0xffff_ffff).ok()
    }

    fn len(&mut self) -> Option<u64> {
        self.number().filter(|len| *len <= MAX_TRANSFER)
    }
}

/// The width of a command's last letter.
fn width_of(name: &str) -> Option<Width> {
    match name.as_bytes().last()? {
        b'b' => Some(Width::B1),
        b'w' => Some(Width::B2),
        b'l' => Some(Width::B4),
        b'q' => Some(Width::B8),
        _ => None,
    }
}

/// Bytes from "0x" and digits. What is missing counts as 0; what is no digit has all bits, as in QEMU.
fn hex_bytes(text: &str, len: u64) -> Vec<u8> {
    let digits = text.as_bytes().get(2..).unwrap_or(&[]);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0xff);
    let byte = |pair: &[u8]| digit(pair[0]) << 4 | digit(pair[1]);
    let mut data: Vec<u8> = digits.chunks_exact(2).map(byte).collect();
    data.resize(usize::try_from(len).unwrap_or(0), 0);
    data
}

/// Bytes from RFC 4648's base 64 (4); other characters are passed over, and padding need not be there.
fn base64_bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte)).collect();
    // A last digit that is alone stands for nothing.
    let whole = digits.len() - usize::from(digits.len() % 4 == 1);
    let config = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&STANDARD, config.with_decode_padding_mode(DecodePaddingMode::Indifferent));
    engine.decode(&digits[..whole]).unwrap_or_default()
}

/// RFC 4648's base 64 (4) of bytes, with padding.
#[must_use]
pub fn base64_text(data: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(data)
}

/// The command that a line (without its end) holds.
///
/// # Errors
/// It holds none.
pub fn parse(line: &str) -> Result<Command, CommandError> {
    let mut words = Words(line.split(' '));
    let name = words.text().unwrap_or_default();
    let arguments = || CommandError::Arguments(name.to_owned());
    let command = match name {
        "outb" | "outw" | "outl" => port_write(name, &mut words),
        "inb" | "inw" | "inl" => words.port().and_then(|port| Some(Command::PortRead { port, width: width_of(name)? })),
        "writeb" | "writew" | "writel" | "writeq" => store(name, &mut words),
        "readb" | "readw" | "readl" | "readq" => {
            words.number().and_then(|gpa| Some(Command::Load { gpa, width: width_of(name)? }))
        }
        "read" => transfer(&mut words).map(|(gpa, len)| Command::Read { gpa, len }),
        "b64read" => transfer(&mut words).map(|(gpa, len)| Command::ReadBase64 { gpa, len }),
        "write" => {
            let (gpa, len) = transfer(&mut words).ok_or_else(arguments)?;
            let text = words.text().ok_or_else(arguments)?;
            if text.len() < 3 {
                return Err(CommandError::ArgumentSize);
            }
            Some(Command::Write { gpa, data: hex_bytes(text, len) })
        }
        "b64write" => {
            let (gpa, len) = transfer(&mut words).ok_or_else(arguments)?;
            words.text().map(|text| Command::WriteBase64 { gpa, len, data: base64_bytes(text) })
        }
        "memset" => fill(&mut words),
        "clock_step" => match words.text() {
            None => Some(Command::ClockStep(None)),
            Some(text) => parse_integer("", text).ok().map(|ns| Command::ClockStep(Some(ns))),
        },
        "clock_set" => words.text().and_then(|text| parse_integer("", text).ok()).map(Command::ClockSet),
        "irq_intercept_in" => words.text().map(|device| Command::Intercept { device: device.to_owned() }),
        "set_irq_in" => set_irq(&mut words),
        "endianness" => Some(Command::Endianness),
        "module_load" => Some(Command::ModuleLoad),
        _ => return Err(CommandError::Unknown(name.to_owned())),
    };
    command.ok_or_else(arguments)
}

fn port_write(name: &str, words: &mut Words<'_>) -> Option<Command> {
    let (port, value) = (words.port()?, words.low32()?);
    Some(Command::PortWrite { port, width: width_of(name)?, value })
}

fn store(name: &str, words: &mut Words<'_>) -> Option<Command> {
    let (gpa, value) = (words.number()?, words.number()?);
    Some(Command::Store { gpa, width: width_of(name)?, value })
}

/// An address and a length that is not 0.
fn transfer(words: &mut Words<'_>) -> Option<(u64, u64)> {
    let (gpa, len) = (words.number()?, words.len()?);
    (len > 0).then_some((gpa, len))
}

fn fill(words: &mut Words<'_>) -> Option<Command> {
    let (gpa, len) = (words.number()?, words.len()?);
    let [pattern, ..] = words.number()?.to_le_bytes();
    Some(Command::Fill { gpa, len, pattern })
}

fn set_irq(words: &mut Words<'_>) -> Option<Command> {
    let (device, name) = (words.text()?.to_owned(), words.text()?.to_owned());
    let (input, high) = (words.low32()?, words.number()? != 0);
    Some(Command::SetIrq { device, name, input, high })
}
