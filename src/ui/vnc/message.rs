//! Messages of clients (RFC 6143 7.5 and the community's registry of extensions): from bytes to checked values.

use super::format::Format;

/// A client that does not speak the protocol; it is disconnected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("the client's version is not one of RFB's")]
    Version,
    #[error("the client chose a security type that was not offered")]
    SecurityType,
    #[error("unknown message type {0}")]
    MessageType(u8),
    #[error("unknown QEMU message type {0}")]
    QemuMessageType(u8),
    #[error("impossible pixel format")]
    PixelFormat,
    #[error("cut text of {0} bytes")]
    CutText(u32),
}

/// The longest clipboard text that is skipped; a client that sends more is disconnected, as QEMU does.
const CUT_TEXT_MAX: u32 = 1 << 20;

/// Encodings and pseudo-encodings by their numbers.
pub(super) mod encoding {
    pub(in super::super) use rfb_encodings::{
        ENCODING_HEXTILE as HEXTILE, ENCODING_RAW as RAW, ENCODING_TIGHT as TIGHT, ENCODING_ZLIB as ZLIB,
        ENCODING_ZRLE as ZRLE,
    };

    /// Best JPEG quality; nine lower ones lie below.
    pub(in super::super) const QUALITY_BEST: i32 = -23;
    /// Worst JPEG quality.
    pub(in super::super) const QUALITY_WORST: i32 = -32;
    /// The picture's size.
    pub(in super::super) const DESKTOP_SIZE: i32 = -223;
    /// A rectangle that ends an update of unknown length.
    pub(in super::super) const LAST_RECT: i32 = -224;
    /// The pointer's picture.
    pub(in super::super) const RICH_CURSOR: i32 = -239;
    /// Strongest compression; nine weaker ones lie below.
    pub(in super::super) const COMPRESS_BEST: i32 = -247;
    /// Weakest compression.
    pub(in super::super) const COMPRESS_WORST: i32 = -256;
    /// Whether the guest's pointer is absolute.
    pub(in super::super) const POINTER_MODE: i32 = -257;
    /// Key events with key codes.
    pub(in super::super) const EXTENDED_KEY: i32 = -258;
    /// The keyboard's lights.
    pub(in super::super) const LED_STATE: i32 = -261;
    /// The desktop's name.
    pub(in super::super) const DESKTOP_NAME: i32 = -307;
    /// The picture's size, and wishes for another.
    pub(in super::super) const EXTENDED_DESKTOP_SIZE: i32 = -308;
    /// Power control.
    pub(in super::super) const XVP: i32 = -309;
    /// The pointer's picture with transparency.
    pub(in super::super) const ALPHA_CURSOR: i32 = -314;
}

/// What a viewer may ask with power control (xvp).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerAction {
    /// The power button.
    Shutdown,
    /// An orderly restart.
    Reboot,
    /// The reset button.
    Reset,
}

/// Part of the screen that a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UpdateRequest {
    pub(super) incremental: bool,
    pub(super) x: u16,
    pub(super) y: u16,
    pub(super) width: u16,
    pub(super) height: u16,
}

/// A message of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Message {
    SetPixelFormat(Format),
    SetEncodings(Vec<i32>),
    Request(UpdateRequest),
    Key {
        down: bool,
        keysym: u32,
        /// QEMU's key code; 0 in plain key events.
        code: u32,
    },
    Pointer {
        buttons: u8,
        x: u16,
        y: u16,
    },
    /// Clipboard text: this many bytes follow and mean nothing to us.
    CutText(u32),
    SetDesktopSize {
        width: u16,
        height: u16,
    },
    Power(PowerAction),
    /// A power action that does not exist.
    UnknownPower,
}

/// The first message in some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Parsed {
    /// A message of this many bytes.
    Message(Message, usize),
    /// Nothing yet: it takes at least this many bytes.
    Needs(usize),
}

/// Big-endian fields at fixed places of a message that is known to be long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u8(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.u8(at), self.u8(at + 1)])
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) << 16 | u32::from(self.u16(at + 2))
    }
}

/// Reads the first message of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
    let Some(&kind) = bytes.first() else { return Ok(Parsed::Needs(1)) };
    let length = match length(kind, bytes)? {
        Some(length) if length <= bytes.len() => length,
        Some(length) => return Ok(Parsed::Needs(length)),
        None => return Ok(Parsed::Needs(bytes.len() + 1)),
    };
    let field = Fields(bytes);
    let message = match kind {
        0 => {
            let mut format = [0; 16];
            format.copy_from_slice(&bytes[4..20]);
            Message::SetPixelFormat(Format::parse(format)?)
        }
        2 => Message::SetEncodings(
            bytes[4..length]
                .chunks_exact(4)
                .map(|number| i32::from_be_bytes(Fields(number).u32(0).to_be_bytes()))
                .collect(),
        ),
        3 => Message::Request(UpdateRequest {
            incremental: field.u8(1) != 0,
            x: field.u16(2),
            y: field.u16(4),
            width: field.u16(6),
            height: field.u16(8),
        }),
        4 => Message::Key { down: field.u8(1) != 0, keysym: field.u32(4), code: 0 },
        5 => Message::Pointer { buttons: field.u8(1), x: field.u16(2), y: field.u16(4) },
        6 => match field.u32(4) {
            length if length > CUT_TEXT_MAX => return Err(ProtocolError::CutText(length)),
            length => Message::CutText(length),
        },
        250 => match field.u8(3) {
            2 => Message::Power(PowerAction::Shutdown),
            3 => Message::Power(PowerAction::Reboot),
            4 => Message::Power(PowerAction::Reset),
            _ => Message::UnknownPower,
        },
        251 => Message::SetDesktopSize { width: field.u16(2), height: field.u16(4) },
        _ => Message::Key { down: field.u16(2) != 0, keysym: field.u32(4), code: field.u32(8) },
    };
    Ok(Parsed::Message(message, length))
}

/// The length of a message, as far as its first bytes tell; `None` if they do not yet.
fn length(kind: u8, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
    let field = Fields(bytes);
    Ok(match kind {
        0 => Some(20),
        2 if bytes.len() >= 4 => Some(4 + 4 * usize::from(field.u16(2))),
        3 => Some(10),
        4 | 6 => Some(8),
        5 => Some(6),
        250 => Some(4),
        251 if bytes.len() >= 8 => Some(8 + 16 * usize::from(field.u8(6))),
        255 if bytes.len() >= 2 => match field.u8(1) {
            0 => Some(12),
            other => return Err(ProtocolError::QemuMessageType(other)),
        },
        2 | 251 | 255 => None,
        other => return Err(ProtocolError::MessageType(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> Message {
        match parse(bytes).unwrap() {
            Parsed::Message(message, length) if length == bytes.len() => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_message_is_read() {
        assert_eq!(message(&[2, 0, 0, 2, 0, 0, 0, 16, 255, 255, 255, 33]), Message::SetEncodings(vec![16, -223]));
        let request = UpdateRequest { incremental: true, x: 1, y: 2, width: 3, height: 256 };
        assert_eq!(message(&[3, 1, 0, 1, 0, 2, 0, 3, 1, 0]), Message::Request(request));
        assert_eq!(message(&[4, 1, 0, 0, 0, 0, 0xff, 0xe1]), Message::Key { down: true, keysym: 0xffe1, code: 0 });
        assert_eq!(message(&[5, 7, 0, 9, 1, 0]), Message::Pointer { buttons: 7, x: 9, y: 256 });
        assert_eq!(message(&[6, 0, 0, 0, 0, 0, 0, 5]), Message::CutText(5));
        assert_eq!(message(&[250, 0, 1, 4]), Message::Power(PowerAction::Reset));
        assert_eq!(message(&[251, 0, 4, 0, 3, 0, 0, 0]), Message::SetDesktopSize { width: 1024, height: 768 });
        let key = Message::Key { down: true, keysym: 0x61, code: 0x1e };
        assert_eq!(message(&[255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e]), key);
    }

    #[test]
    fn a_part_of_a_message_asks_for_more_and_never_for_less_than_it_has() {
        let whole = [251, 0, 4, 0, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for length in 0..whole.len() {
            let Parsed::Needs(needed) = parse(&whole[..length]).unwrap() else { panic!("{length}") };
            assert!(needed > length && needed <= whole.len());
        }
        assert!(matches!(parse(&whole).unwrap(), Parsed::Message(_, 24)));
    }

    #[test]
    fn messages_that_do_not_exist_are_refused() {
        assert_eq!(parse(&[9]), Err(ProtocolError::MessageType(9)));
        assert_eq!(parse(&[255, 1]), Err(ProtocolError::QemuMessageType(1)));
        assert_eq!(parse(&[6, 0, 0, 0, 0x80, 0, 0, 0]), Err(ProtocolError::CutText(0x8000_0000)));
    }
}
