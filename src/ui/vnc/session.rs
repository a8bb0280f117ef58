//! The reading thread of a client: the handshake (RFC 6143 7.1-7.3), then its messages.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::ui::InputEvent;

use super::auth::CHALLENGE;
use super::client::{Client, SizeNotice};
use super::format::Format;
use super::keyboard::Keyboard;
use super::message::{Message, Parsed, ProtocolError, parse};
use super::pointer::{Mode, Pointer};
use super::server::{Admission, Server};

/// How long a client may take for its part of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(30);
/// How long a person may take to type the password.
const PASSWORD_TIME: Duration = Duration::from_secs(180);

/// Security types (RFC 6143 7.1.2).
const SECURITY_NONE: u8 = 1;
const SECURITY_VNC_AUTH: u8 = 2;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the client has gone")]
    Gone,
    #[error("the client was too slow")]
    TooSlow,
    #[error("wrong password")]
    WrongPassword,
    #[error("{0}")]
    Refused(&'static str),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// RFB's versions, as far as they differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Version {
    V3_3,
    V3_7,
    V3_8,
}

impl Version {
    /// Reads a client's "RFB xxx.yyy\n". Unknown minor versions count as the last one below; some clients say 3.889 or 4.1
    /// and mean at least 3.8.
    fn parse(text: [u8; 12]) -> Result<Self, ProtocolError> {
        let digits = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
            text.parse::<u16>().ok()
        };
        let fixed = text.starts_with(b"RFB ") && text[7] == b'.' && text[11] == b'\n';
        match (digits(&text[4..7]), digits(&text[8..11])) {
            (Some(3), Some(minor)) if fixed && minor >= 8 => Ok(Self::V3_8),
            (Some(3), Some(7)) if fixed => Ok(Self::V3_7),
            (Some(3), Some(_)) if fixed => Ok(Self::V3_3),
            (Some(4 | 5), Some(_)) if fixed => Ok(Self::V3_8),
            _ => Err(ProtocolError::Version),
        }
    }
}

/// Serves a client until it goes or is closed.
pub(super) fn run(server: &Arc<Server>, client: &Arc<Client>) -> End {
    let mut session = Session { server, client, input: Input { client, buffer: Vec::new(), deadline: None } };
    match session.serve() {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// No value: a session only ends by an [`End`].
enum Never {}

/// What a client sent and nobody has read.
struct Input<'a> {
    client: &'a Client,
    buffer: Vec<u8>,
    deadline: Option<Instant>,
}

impl Input<'_> {
    /// From now on, the client has this long for all it has to send.
    fn set_deadline(&mut self, time: Option<Duration>) {
        self.deadline = time.map(|time| Instant::now() + time);
    }

    /// Waits for the next bytes of any number.
    fn read_some(&mut self) -> Result<(), End> {
        let timeout = match self.deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                Some(left).filter(|left| !left.is_zero()).map_or(Err(End::TooSlow), |left| Ok(Some(left)))?
            }
        };
        self.client.stream.set_read_timeout(timeout)?;
        let mut bytes = [0; 4096];
        match (&self.client.stream).read(&mut bytes) {
            Ok(0) => Err(End::Gone),
            Ok(length) => {
                self.buffer.extend_from_slice(&bytes[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(End::TooSlow)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for this many bytes and takes them.
    fn take<const N: usize>(&mut self) -> Result<[u8; N], End> {
        while self.buffer.len() < N {
            self.read_some()?;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[..N]);
        self.buffer.drain(..N);
        Ok(bytes)
    }

    /// Waits for this many bytes and throws them away.
    fn skip(&mut self, mut length: usize) -> Result<(), End> {
        loop {
            let now = length.min(self.buffer.len());
            self.buffer.drain(..now);
            length -= now;
            if length == 0 {
                return Ok(());
            }
            self.read_some()?;
        }
    }

    /// Waits for a message.
    fn message(&mut self) -> Result<Message, End> {
        loop {
            if let Parsed::Message(message, length) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(message);
            }
            self.read_some()?;
        }
    }
}

struct Session<'a> {
    server: &'a Arc<Server>,
    client: &'a Arc<Client>,
    input: Input<'a>,
}

impl Session<'_> {
    fn serve(&mut self) -> Result<Never, End> {
        self.input.set_deadline(Some(HANDSHAKE_TIME));
        self.client.stream.set_write_timeout(Some(HANDSHAKE_TIME))?;
        self.send(b"RFB 003.008\n")?;
        let version = Version::parse(self.input.take()?)?;
        self.authenticate(version)?;
        self.input.set_deadline(Some(HANDSHAKE_TIME));
        let [shared] = self.input.take()?;
        let (width, height) = match self.server.admit(self.client, shared != 0) {
            Admission::Welcome(size) => size,
            Admission::Refused(reason) => return Err(End::Refused(reason)),
        };
        self.send_server_init(width, height)?;
        self.client.stream.set_write_timeout(None)?;
        self.input.set_deadline(None);
        self.server.initialized(self.client)?;
        self.messages()
    }

    fn send(&self, bytes: &[u8]) -> Result<(), End> {
        Ok((&self.client.stream).write_all(bytes)?)
    }

    /// The security handshake (7.1.2, 7.2, 7.1.3).
    fn authenticate(&mut self, version: Version) -> Result<(), End> {
        let kind = if self.server.needs_password() { SECURITY_VNC_AUTH } else { SECURITY_NONE };
        if version == Version::V3_3 {
            self.send(&[0, 0, 0, kind])?;
        } else {
            self.send(&[1, kind])?;
            let [chosen] = self.input.take()?;
            if chosen != kind {
                return Err(ProtocolError::SecurityType.into());
            }
        }
        if kind == SECURITY_NONE {
            // Only 3.8 has a result here.
            return if version == Version::V3_8 { self.send(&[0; 4]) } else { Ok(()) };
        }
        let mut challenge = [0; CHALLENGE];
        getrandom::fill(&mut challenge).map_err(|_| End::Refused("no random numbers"))?;
        self.send(&challenge)?;
        self.input.set_deadline(Some(PASSWORD_TIME));
        let answer = self.input.take()?;
        if self.server.accepts(challenge, answer, SystemTime::now()) {
            return self.send(&[0; 4]);
        }
        self.send(&[0, 0, 0, 1])?;
        if version == Version::V3_8 {
            let reason = b"Authentication failed";
            self.send(&u32::try_from(reason.len()).unwrap_or(0).to_be_bytes())?;
            self.send(reason)?;
        }
        Err(End::WrongPassword)
    }

    /// ServerInit (7.3.2).
    fn send_server_init(&self, width: u32, height: u32) -> Result<(), End> {
        let name = self.server.desktop_name();
        let mut out = Vec::new();
        for side in [width, height] {
            out.extend_from_slice(&u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes());
        }
        out.extend_from_slice(&Format::NATIVE.to_bytes());
        out.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        self.send(&out)
    }

    fn messages(&mut self) -> Result<Never, End> {
        let mut keyboard = Keyboard::new(self.server.keymap(), self.server.spec().lock_key_sync);
        let mut pointer = Pointer::default();
        let end = loop {
            let message = match self.input.message() {
                Ok(message) => message,
                Err(end) => break end,
            };
            if let Message::CutText(length) = message {
                if let Err(end) = self.input.skip(length as usize) {
                    break end;
                }
            } else {
                self.act(message, &mut keyboard, &mut pointer);
            }
        };
        for event in keyboard.release_all() {
            self.server.input(InputEvent::Key(event));
        }
        for event in pointer.release_all() {
            self.server.input(event);
        }
        Err(end)
    }

    fn act(&self, message: Message, keyboard: &mut Keyboard, pointer: &mut Pointer) {
        let server = self.server;
        match message {
            Message::SetPixelFormat(format) => self.client.set_format(format),
            Message::SetEncodings(numbers) => server.set_encodings(self.client, &numbers),
            Message::Request(request) => self.client.request(request),
            Message::Key { down, keysym, code } => {
                let is_text = server.shows_text();
                for event in keyboard.event(down, keysym, code, server.leds(), is_text) {
                    server.input(InputEvent::Key(event));
                    if !is_text && !server.spec().key_delay.is_zero() {
                        self.client.pause(server.spec().key_delay);
                    }
                }
            }
            Message::Pointer { buttons, x, y } => {
                let mode = if server.is_absolute() {
                    let (width, height) = server.screen_size();
                    Mode::Absolute { width, height }
                } else if self.client.features().pointer_mode {
                    Mode::Movements
                } else {
                    Mode::Positions
                };
                for event in pointer.event(buttons, x, y, mode) {
                    server.input(event);
                }
            }
            Message::SetDesktopSize { width, height } => {
                server.set_ui_size(width.into(), height.into());
                self.client.notify(|notices, _| notices.size_answer = Some(SizeNotice { reason: 1, status: 4 }));
            }
            Message::Power(action) => server.power(action),
            Message::UnknownPower | Message::CutText(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::vnc::Endpoint;
    use crate::ui::vnc::listen::Stream;
    use std::os::unix::net::UnixStream;

    fn client() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let nowhere = Endpoint::Unix("".into());
        (Client::new(Stream::Unix(ours), nowhere.clone(), nowhere), theirs)
    }

    #[test]
    fn a_byte_now_and_then_does_not_put_off_the_deadline() {
        let (client, mut theirs) = client();
        let mut input = Input { client: &client, buffer: Vec::new(), deadline: None };
        theirs.write_all(b"RFB 003").unwrap();
        input.set_deadline(Some(Duration::from_secs(60)));
        input.read_some().unwrap();
        input.set_deadline(Some(Duration::ZERO));
        theirs.write_all(b".").unwrap();
        assert!(matches!(input.take::<12>(), Err(End::TooSlow)));
        assert!(matches!(input.take::<7>(), Ok(bytes) if bytes == *b"RFB 003"));
    }

    #[test]
    fn a_client_that_goes_ends_its_session() {
        let (client, theirs) = client();
        let mut input = Input { client: &client, buffer: Vec::new(), deadline: None };
        drop(theirs);
        assert!(matches!(input.take::<1>(), Err(End::Gone)));
    }

    #[test]
    fn versions_that_are_none_are_refused() {
        assert_eq!(Version::parse(*b"RFB 003.008\n"), Ok(Version::V3_8));
        assert_eq!(Version::parse(*b"RFB 004.001\n"), Ok(Version::V3_8));
        assert_eq!(Version::parse(*b"RFB 003.006\n"), Ok(Version::V3_3));
        assert_eq!(Version::parse(*b"RFB 003.008 "), Err(ProtocolError::Version));
        assert_eq!(Version::parse(*b"RFB +03.008\n"), Err(ProtocolError::Version));
        assert_eq!(Version::parse(*b"SSH-2.0-Open"), Err(ProtocolError::Version));
    }
}
