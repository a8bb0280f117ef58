//! Hashes by name, and keys from passwords (RFC 8018 5.2), with counts that take a given time.

use std::time::{Duration, Instant};

use hmac::Hmac;
use pbkdf2::pbkdf2;
use ripemd::Ripemd160;
use sha1::{Digest, Sha1};
use sha2::{Sha224, Sha256, Sha384, Sha512};

/// A hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hash {
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// RIPEMD-160.
    Ripemd160,
}

const ALL: [(Hash, &str); 6] = [
    (Hash::Sha1, "sha1"),
    (Hash::Sha224, "sha224"),
    (Hash::Sha256, "sha256"),
    (Hash::Sha384, "sha384"),
    (Hash::Sha512, "sha512"),
    (Hash::Ripemd160, "ripemd160"),
];

impl Hash {
    /// By QEMU's and LUKS's name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known)| *known == name).map(|(hash, _)| *hash)
    }

    /// That name.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(hash, _)| *hash == self).map_or("", |(_, name)| name)
    }

    /// The hash of some bytes.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha224 => Sha224::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
            Self::Ripemd160 => Ripemd160::digest(bytes).to_vec(),
        }
    }

    /// PBKDF2: fills `key`.
    pub fn stretch(self, password: &[u8], salt: &[u8], iterations: u32, key: &mut [u8]) {
        // It fails for keys without a length only.
        let _ = match self {
            Self::Sha1 => pbkdf2::<Hmac<Sha1>>(password, salt, iterations, key),
            Self::Sha224 => pbkdf2::<Hmac<Sha224>>(password, salt, iterations, key),
            Self::Sha256 => pbkdf2::<Hmac<Sha256>>(password, salt, iterations, key),
            Self::Sha384 => pbkdf2::<Hmac<Sha384>>(password, salt, iterations, key),
            Self::Sha512 => pbkdf2::<Hmac<Sha512>>(password, salt, iterations, key),
            Self::Ripemd160 => pbkdf2::<Hmac<Ripemd160>>(password, salt, iterations, key),
        };
    }

    /// Iterations that take `time` for a key of some length here, by the clock on the wall: clocks of processor time
    /// stand still on some virtual machines.
    #[must_use]
    pub fn iterations_in(self, time: Duration, key_bytes: usize) -> u32 {
        let mut key = vec![0; key_bytes];
        let mut count = 1024;
        loop {
            let started = Instant::now();
            self.stretch(b"password", b"salt", count, &mut key);
            let took = started.elapsed();
            if took >= Duration::from_millis(20) || count >= 1 << 24 {
                let wanted = u128::from(count) * time.as_nanos() / took.as_nanos().max(1);
                return u32::try_from(wanted).unwrap_or(u32::MAX);
            }
            count *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6070, the second vector.
    #[test]
    fn keys_are_those_of_the_standard() {
        let mut key = [0; 20];
        Hash::Sha1.stretch(b"password", b"salt", 2, &mut key);
        assert_eq!(key[..6], [0xea, 0x6c, 0x01, 0x4d, 0xc7, 0x2d]);
    }

    #[test]
    fn names_are_found() {
        assert_eq!(Hash::by_name("sha256"), Some(Hash::Sha256));
        assert_eq!(Hash::by_name("md4"), None);
        assert_eq!(Hash::Sha512.digest(b"").len(), 64);
    }

    #[test]
    fn more_time_gives_more_iterations() {
        let (little, much) = (
            Hash::Sha256.iterations_in(Duration::from_millis(1), 32),
            Hash::Sha256.iterations_in(Duration::from_secs(60), 32),
        );
        assert!(little > 0 && much > little);
    }
}
