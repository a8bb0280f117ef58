//! The telnet protocol, as far as a terminal's client needs it (RFC 854; options of RFC 856, 857, 858).

use super::handle::CharEvent;

const IAC: u8 = 255;
const DONT: u8 = 254;
const WILL: u8 = 251;
const SB: u8 = 250;
const DO: u8 = 253;
const BREAK: u8 = 243;
const SE: u8 = 240;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const SUPPRESS_GO_AHEAD: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Data,
    /// After IAC.
    Command,
    /// After IAC WILL and company: the option follows.
    Option,
    /// In a subnegotiation.
    Sub,
    /// In a subnegotiation, after IAC.
    SubCommand,
}

/// One connection's decoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Telnet {
    state: State,
}

impl Telnet {
    /// What we say first: we echo, suppress go-ahead, and both sides are eight bits clean.
    pub(super) fn greeting(self) -> [u8; 12] {
        [IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY]
    }

    /// Text with the escape character doubled.
    pub(super) fn encode(data: &[u8]) -> impl Iterator<Item = u8> {
        data.iter().flat_map(|&byte| std::iter::repeat_n(byte, if byte == IAC { 2 } else { 1 }))
    }

    /// Splits what came into text and events. Answers to our offers need no reply.
    pub(super) fn decode(&mut self, data: &[u8]) -> (Vec<u8>, Vec<CharEvent>) {
        let mut text = Vec::with_capacity(data.len());
        let mut events = Vec::new();
        for &byte in data {
            self.state = match (self.state, byte) {
                (State::Data, IAC) => State::Command,
                (State::Data, _) => {
                    text.push(byte);
                    State::Data
                }
                (State::Command, IAC) => {
                    text.push(IAC);
                    State::Data
                }
                (State::Command, WILL..=DONT) => State::Option,
                (State::Command, SB) => State::Sub,
                (State::Command, BREAK) => {
                    events.push(CharEvent::Break);
                    State::Data
                }
                (State::Command | State::Option, _) => State::Data,
                (State::Sub, IAC) => State::SubCommand,
                (State::Sub, _) => State::Sub,
                (State::SubCommand, SE) => State::Data,
                (State::SubCommand, _) => State::Sub,
            };
        }
        (text, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_is_taken_out_and_a_break_is_an_event() {
        let mut telnet = Telnet::default();
        let input = [b'a', IAC, DO, ECHO, b'b', IAC, IAC, IAC, BREAK, IAC, SB, 24, 1, IAC, SE, b'c'];
        assert_eq!(telnet.decode(&input), (vec![b'a', b'b', IAC, b'c'], vec![CharEvent::Break]));
    }

    #[test]
    fn a_command_may_be_cut_anywhere() {
        let mut telnet = Telnet::default();
        assert_eq!(telnet.decode(&[IAC]).0, b"");
        assert_eq!(telnet.decode(&[WILL]).0, b"");
        assert_eq!(telnet.decode(&[ECHO, b'x']).0, b"x");
    }

    #[test]
    fn the_escape_character_is_doubled() {
        assert_eq!(Telnet::encode(&[1, IAC, 2]).collect::<Vec<_>>(), [1, IAC, IAC, 2]);
    }
}
