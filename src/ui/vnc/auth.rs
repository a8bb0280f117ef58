//! VncAuth (RFC 6143 7.2.2) and the password that a monitor sets.

use std::time::{Duration, SystemTime};

use des::Des;
use des::cipher::generic_array::GenericArray;
use des::cipher::{BlockEncrypt, KeyInit};

/// Length of a challenge and of its answer.
pub(super) const CHALLENGE: usize = 16;
/// Longest part of a password that counts.
const KEY: usize = 8;

/// A time that `expire_password` does not understand; the text is QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("Parameter 'time' doesn't take value '{0}'")]
pub struct WrongExpiry(pub String);

/// Reads the time of `expire_password`: "now", "never" (`None`), seconds from `now` ("+60") or since 1970.
///
/// # Errors
///
/// If it is none of these.
pub fn parse_expiry(text: &str, now: SystemTime) -> Result<Option<SystemTime>, WrongExpiry> {
    let (start, seconds) = match text {
        "now" => return Ok(Some(now)),
        "never" => return Ok(None),
        _ => match text.strip_prefix('+') {
            Some(seconds) => (now, seconds),
            None => (SystemTime::UNIX_EPOCH, text),
        },
    };
    let seconds: u64 = Some(seconds)
        .filter(|seconds| seconds.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|seconds| seconds.parse().ok())
        .ok_or_else(|| WrongExpiry(text.to_owned()))?;
    // What the clock cannot hold never comes.
    Ok(start.checked_add(Duration::from_secs(seconds)))
}

/// The password and how long it is good for.
#[derive(Default)]
pub(super) struct Password {
    text: Option<Vec<u8>>,
    expires: Option<SystemTime>,
}

impl Password {
    pub(super) fn set(&mut self, text: Option<&str>) {
        self.text = text.map(|text| text.as_bytes().to_vec());
    }

    pub(super) fn expire_at(&mut self, at: Option<SystemTime>) {
        self.expires = at;
    }

    /// Whether `answer` is the challenge encrypted with this password. None and expired ones have no right answer.
    pub(super) fn accepts(&self, challenge: [u8; CHALLENGE], answer: [u8; CHALLENGE], now: SystemTime) -> bool {
        let Some(text) = &self.text else { return false };
        if self.expires.is_some_and(|at| at <= now) {
            return false;
        }
        let expected = encrypt(text, challenge);
        // Every byte is looked at, so that the time does not tell how many were right.
        expected.iter().zip(answer).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

/// Encrypts a challenge with the first eight characters of a password, whose bits are mirrored: DES ignores the last
/// bit of each key byte, and VNC meant the first.
pub(super) fn encrypt(password: &[u8], challenge: [u8; CHALLENGE]) -> [u8; CHALLENGE] {
    let mut key = [0; KEY];
    for (to, from) in key.iter_mut().zip(password) {
        *to = from.reverse_bits();
    }
    let cipher = Des::new(&GenericArray::from(key));
    let mut answer = challenge;
    for half in answer.chunks_exact_mut(8) {
        let mut block = [0; 8];
        block.copy_from_slice(half);
        let mut block = GenericArray::from(block);
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE_BYTES: [u8; 16] = *b"0123456789abcdef";

    fn password(text: &str) -> Password {
        let mut password = Password::default();
        password.set(Some(text));
        password
    }

    #[test]
    fn the_right_password_is_accepted_and_only_its_first_eight_characters_count() {
        let answer = encrypt(b"secretxyz", CHALLENGE_BYTES);
        assert!(password("secretxyw").accepts(CHALLENGE_BYTES, answer, SystemTime::UNIX_EPOCH));
        assert!(!password("Secretxy").accepts(CHALLENGE_BYTES, answer, SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn without_a_password_nobody_is_accepted() {
        let answer = encrypt(b"", CHALLENGE_BYTES);
        assert!(!Password::default().accepts(CHALLENGE_BYTES, answer, SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn an_expired_password_is_wrong() {
        let mut password = password("x");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        password.expire_at(Some(at));
        let answer = encrypt(b"x", CHALLENGE_BYTES);
        assert!(password.accepts(CHALLENGE_BYTES, answer, at - Duration::from_secs(1)));
        assert!(!password.accepts(CHALLENGE_BYTES, answer, at));
    }

    #[test]
    fn expiry_times_are_read_as_qemu_does() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let at = |seconds| Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(parse_expiry("now", now), at(1000));
        assert_eq!(parse_expiry("never", now), Ok(None));
        assert_eq!(parse_expiry("+60", now), at(1060));
        assert_eq!(parse_expiry("60", now), at(60));
        assert_eq!(parse_expiry("18446744073709551615", now), Ok(None));
        assert_eq!(parse_expiry("+x", now).unwrap_err().to_string(), "Parameter 'time' doesn't take value '+x'");
        assert!(parse_expiry("", now).is_err() && parse_expiry("++1", now).is_err());
    }

    #[test]
    fn the_key_is_mirrored_des() {
        // DES of eight zero bytes with the all-zero key is 8ca64de9c1b123a7 (FIPS 46-3 test vectors).
        let half = [0x8c, 0xa6, 0x4d, 0xe9, 0xc1, 0xb1, 0x23, 0xa7];
        assert_eq!(encrypt(b"", [0; 16])[..8], half);
        // Key 80 00 00 00 00 00 00 00 of the same vectors is the password "\x01" (NIST variable key test: 95a8d72813daa94d).
        assert_eq!(encrypt(b"\x01", [0; 16])[..8], [0x95, 0xa8, 0xd7, 0x28, 0x13, 0xda, 0xa9, 0x4d]);
    }
}
