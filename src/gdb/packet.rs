//! Packets on the wire (gdb manual, E.1): `$body#checksum`, answered by `+` or `-`, and the interrupt byte.

/// The longest packet that is taken, frame included; `qSupported` tells gdb.
pub(super) const MAX_PACKET: usize = 4096;

/// The frame: `$`, `#`, two digits.
const FRAME: usize = 4;

/// What came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Incoming {
    /// A packet with the right checksum: its body.
    Packet(Vec<u8>),
    /// A packet that was changed on the way, to be asked for again.
    Damaged,
    /// The other side asks for our last packet again.
    Again,
    /// Ctrl-C.
    Interrupt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Between,
    Body,
    FirstDigit,
    SecondDigit(u8),
}

/// Finds packets in a stream of bytes. What is between them is skipped, and so is a packet that is too long.
#[derive(Debug, Default)]
pub(super) struct Framer {
    state: State,
    body: Vec<u8>,
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

pub(super) fn checksum(body: &[u8]) -> u8 {
    body.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// A body as it goes over the wire.
pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + FRAME);
    out.push(b'$');
    out.extend_from_slice(body);
    out.extend_from_slice(format!("#{:02x}", checksum(body)).as_bytes());
    out
}

impl Framer {
    /// Takes one byte.
    pub(super) fn push(&mut self, byte: u8) -> Option<Incoming> {
        match self.state {
            State::Between => match byte {
                b'$' => {
                    self.body.clear();
                    self.state = State::Body;
                    None
                }
                b'-' => Some(Incoming::Again),
                3 => Some(Incoming::Interrupt),
                _ => None,
            },
            State::Body => {
                if byte == b'#' {
                    self.state = State::FirstDigit;
                } else if self.body.len() + FRAME < MAX_PACKET {
                    self.body.push(byte);
                } else {
                    self.state = State::Between;
                }
                None
            }
            State::FirstDigit => {
                self.state = hex(byte).map_or(State::Between, State::SecondDigit);
                (self.state == State::Between).then_some(Incoming::Damaged)
            }
            State::SecondDigit(first) => {
                self.state = State::Between;
                let sum = hex(byte).map(|second| first << 4 | second);
                let body = std::mem::take(&mut self.body);
                Some(if sum == Some(checksum(&body)) { Incoming::Packet(body) } else { Incoming::Damaged })
            }
        }
    }
}

/// The numbers of a packet like `m addr,len`, in hexadecimal.
pub(super) fn two_numbers(text: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (first, second) = text.split_once(',')?;
    Some((u64::from_str_radix(first, 16).ok()?, u64::from_str_radix(second, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Incoming> {
        let mut framer = Framer::default();
        bytes.iter().filter_map(|byte| framer.push(*byte)).collect()
    }

    #[test]
    fn packets_are_found_between_rubbish() {
        assert_eq!(all(b"+xyz$g#67+\x03-"), [Incoming::Packet(b"g".to_vec()), Incoming::Interrupt, Incoming::Again]);
        assert_eq!(frame(b"OK"), b"$OK#9a");
        assert_eq!(all(&frame(b"m0,4")), [Incoming::Packet(b"m0,4".to_vec())]);
    }

    #[test]
    fn a_wrong_checksum_is_damage() {
        assert_eq!(
            all(b"$g#00$g#zz$g#6z$g#67"),
            [Incoming::Damaged, Incoming::Damaged, Incoming::Damaged, Incoming::Packet(b"g".to_vec())]
        );
    }

    #[test]
    fn a_packet_without_end_takes_no_memory() {
        let mut bytes = vec![b'$'];
        bytes.extend(vec![b'a'; 1 << 20]);
        bytes.extend(b"$g#67");
        assert_eq!(all(&bytes), [Incoming::Packet(b"g".to_vec())]);
        let mut framer = Framer::default();
        bytes.iter().for_each(|byte| drop(framer.push(*byte)));
        assert!(framer.body.capacity() <= 2 * MAX_PACKET);
    }

    #[test]
    fn numbers_are_hexadecimal() {
        assert_eq!(two_numbers(b"7c00,1f"), Some((0x7c00, 0x1f)));
        assert_eq!(two_numbers(b"zz,1"), None);
        assert_eq!(two_numbers(b"1ffffffffffffffff,1"), None);
    }
}
