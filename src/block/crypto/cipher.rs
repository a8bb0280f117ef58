//! Ciphers for sectors: a block cipher, a mode, and how the sector's number becomes an initialisation vector.
//!
//! XTS is IEEE 1619; CBC with `plain`, `plain64` and `essiv` vectors is dm-crypt's.

use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockCipher, BlockDecrypt, BlockEncrypt, KeyInit};

use super::hash::Hash;
use super::{SECTOR, SectorCipher};
use crate::block::error::OpenError;

const SECTOR_BYTES: usize = SECTOR as usize;

/// A block cipher with its key.
trait Permutation: Send + Sync {
    /// Bytes of a block.
    fn block(&self) -> usize;
    /// Encrypts blocks, each by itself.
    fn encrypt(&self, blocks: &mut [u8]);
    /// Decrypts blocks, each by itself.
    fn decrypt(&self, blocks: &mut [u8]);
}

struct Keyed<C>(C);

impl<C: BlockCipher + BlockEncrypt + BlockDecrypt + Send + Sync> Permutation for Keyed<C> {
    fn block(&self) -> usize {
        C::block_size()
    }

    fn encrypt(&self, blocks: &mut [u8]) {
        let (blocks, _) = InOutBuf::from(blocks).into_chunks();
        self.0.encrypt_blocks_inout(blocks);
    }

    fn decrypt(&self, blocks: &mut [u8]) {
        let (blocks, _) = InOutBuf::from(blocks).into_chunks();
        self.0.decrypt_blocks_inout(blocks);
    }
}

/// A block cipher by QEMU's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Algorithm {
    /// QEMU's name ("aes-256").
    pub name: &'static str,
    /// The name in LUKS headers ("aes").
    pub luks: &'static str,
    /// Bytes of a key.
    pub key: usize,
}

const fn algorithm(name: &'static str, luks: &'static str, key: usize) -> Algorithm {
    Algorithm { name, luks, key }
}

/// All that are known.
pub const ALGORITHMS: &[Algorithm] = &[
    algorithm("aes-128", "aes", 16),
    algorithm("aes-192", "aes", 24),
    algorithm("aes-256", "aes", 32),
    algorithm("cast5-128", "cast5", 16),
    algorithm("serpent-128", "serpent", 16),
    algorithm("serpent-192", "serpent", 24),
    algorithm("serpent-256", "serpent", 32),
    algorithm("twofish-128", "twofish", 16),
    algorithm("twofish-192", "twofish", 24),
    algorithm("twofish-256", "twofish", 32),
];

impl Algorithm {
    /// By QEMU's name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        ALGORITHMS.iter().copied().find(|known| known.name == name)
    }

    fn by_luks(name: &str, key: usize) -> Option<Self> {
        ALGORITHMS.iter().copied().find(|known| known.luks == name && known.key == key)
    }

    fn keyed(self, key: &[u8]) -> Option<Box<dyn Permutation>> {
        fn boxed<C>(key: &[u8]) -> Option<Box<dyn Permutation>>
        where
            C: KeyInit + BlockCipher + BlockEncrypt + BlockDecrypt + Send + Sync + 'static,
        {
            C::new_from_slice(key).ok().map(|cipher| Box::new(Keyed(cipher)) as Box<dyn Permutation>)
        }
        match (self.luks, key.len()) {
            ("aes", 16) => boxed::<aes::Aes128>(key),
            ("aes", 24) => boxed::<aes::Aes192>(key),
            ("aes", 32) => boxed::<aes::Aes256>(key),
            ("cast5", 16) => boxed::<cast5::Cast5>(key),
            ("serpent", 16 | 24 | 32) => boxed::<serpent::Serpent>(key),
            ("twofish", 16 | 24 | 32) => boxed::<twofish::Twofish>(key),
            _ => None,
        }
    }
}

/// How a sector's number becomes an initialisation vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IvGen {
    /// 32 bits of it.
    Plain,
    /// 64 bits of it.
    Plain64,
    /// 64 bits of it, encrypted with a hash of the key.
    Essiv(Hash),
}

/// How blocks are chained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Not at all.
    Ecb,
    /// Each with the one before.
    Cbc,
    /// Each with its number; the key is twice as long.
    Xts,
}

impl Mode {
    /// QEMU's and LUKS's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecb => "ecb",
            Self::Cbc => "cbc",
            Self::Xts => "xts",
        }
    }

    /// By that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Ecb, Self::Cbc, Self::Xts].into_iter().find(|mode| mode.name() == name)
    }
}

/// A cipher without its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The block cipher.
    pub algorithm: Algorithm,
    /// The mode.
    pub mode: Mode,
    /// The vectors; `None` with ECB.
    pub ivgen: Option<IvGen>,
}

impl Spec {
    /// From the two names in a LUKS header ("aes", "xts-plain64") and the length of the key.
    #[must_use]
    pub fn by_luks(name: &str, mode: &str, key: usize) -> Option<Self> {
        let (mode, ivgen) = mode.split_once('-').map_or((mode, None), |(mode, ivgen)| (mode, Some(ivgen)));
        let mode = Mode::by_name(mode)?;
        let ivgen = match ivgen {
            None => None,
            Some("plain") => Some(IvGen::Plain),
            Some("plain64") => Some(IvGen::Plain64),
            Some(other) => Some(IvGen::Essiv(Hash::by_name(other.strip_prefix("essiv:")?)?)),
        };
        let algorithm = Algorithm::by_luks(name, if mode == Mode::Xts { key / 2 } else { key })?;
        (ivgen.is_some() || mode == Mode::Ecb).then_some(Self { algorithm, mode, ivgen })
    }

    /// The mode's name in a LUKS header.
    #[must_use]
    pub fn luks_mode(&self) -> String {
        let mode = self.mode.name();
        match self.ivgen {
            None => mode.to_owned(),
            Some(IvGen::Plain) => format!("{mode}-plain"),
            Some(IvGen::Plain64) => format!("{mode}-plain64"),
            Some(IvGen::Essiv(hash)) => format!("{mode}-essiv:{}", hash.name()),
        }
    }

    /// Bytes of the key.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        if self.mode == Mode::Xts { self.algorithm.key * 2 } else { self.algorithm.key }
    }

    /// With a key.
    ///
    /// # Errors
    /// The key's length or the combination is not possible.
    pub fn keyed(&self, key: &[u8]) -> Result<Box<dyn SectorCipher>, OpenError> {
        let refuse =
            || OpenError::Invalid(format!("Cipher {} with {} cannot be used", self.algorithm.name, self.luks_mode()));
        if key.len() != self.key_bytes() {
            return Err(refuse());
        }
        let (data, tweak) = key.split_at(self.algorithm.key);
        let cipher = self.algorithm.keyed(data).ok_or_else(refuse)?;
        if self.mode == Mode::Xts {
            let tweak = self.algorithm.keyed(tweak).filter(|tweak| tweak.block() == 16).ok_or_else(refuse)?;
            return Ok(Box::new(Xts { data: cipher, tweak, ivgen: self.ivgen }));
        }
        let essiv = match self.ivgen {
            Some(IvGen::Essiv(hash)) => {
                let digest = hash.digest(key);
                let algorithm = Algorithm::by_luks(self.algorithm.luks, digest.len()).ok_or_else(refuse)?;
                Some(algorithm.keyed(&digest).ok_or_else(refuse)?)
            }
            _ => None,
        };
        Ok(Box::new(Chained { cipher, essiv, ivgen: self.ivgen, chain: self.mode == Mode::Cbc }))
    }
}

/// A vector from a sector's number, before it is encrypted.
fn vector(ivgen: Option<IvGen>, sector: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    match ivgen {
        None => {}
        Some(IvGen::Plain) => iv[..4].copy_from_slice(&sector.to_le_bytes()[..4]),
        Some(_) => iv[..8].copy_from_slice(&sector.to_le_bytes()),
    }
    iv
}

fn xor(into: &mut [u8], with: &[u8]) {
    into.iter_mut().zip(with).for_each(|(byte, other)| *byte ^= other);
}

struct Xts {
    data: Box<dyn Permutation>,
    tweak: Box<dyn Permutation>,
    ivgen: Option<IvGen>,
}

impl Xts {
    /// The tweaks of all blocks of a sector.
    fn tweaks(&self, sector: u64) -> [u8; SECTOR_BYTES] {
        let mut first = vector(self.ivgen, sector);
        self.tweak.encrypt(&mut first);
        let mut tweak = u128::from_le_bytes(first);
        let mut all = [0; SECTOR_BYTES];
        for block in all.chunks_exact_mut(16) {
            block.copy_from_slice(&tweak.to_le_bytes());
            tweak = tweak << 1 ^ if tweak >> 127 == 1 { 0x87 } else { 0 };
        }
        all
    }

    fn each(&self, offset: u64, sectors: &mut [u8], change: impl Fn(&mut [u8])) {
        for (index, sector) in sectors.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let tweaks = self.tweaks(offset / SECTOR + index as u64);
            xor(sector, &tweaks);
            change(sector);
            xor(sector, &tweaks);
        }
    }
}

impl SectorCipher for Xts {
    fn encrypt(&self, offset: u64, sectors: &mut [u8]) {
        self.each(offset, sectors, |sector| self.data.encrypt(sector));
    }

    fn decrypt(&self, offset: u64, sectors: &mut [u8]) {
        self.each(offset, sectors, |sector| self.data.decrypt(sector));
    }
}

/// CBC, and ECB as CBC without the chain.
struct Chained {
    cipher: Box<dyn Permutation>,
    essiv: Option<Box<dyn Permutation>>,
    ivgen: Option<IvGen>,
    chain: bool,
}

impl Chained {
    fn iv(&self, sector: u64) -> [u8; 16] {
        let mut iv = vector(self.ivgen, sector);
        if let Some(essiv) = &self.essiv {
            essiv.encrypt(&mut iv[..essiv.block()]);
        }
        iv
    }
}

impl SectorCipher for Chained {
    fn encrypt(&self, offset: u64, sectors: &mut [u8]) {
        let block = self.cipher.block();
        for (index, sector) in sectors.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            if !self.chain {
                self.cipher.encrypt(sector);
                continue;
            }
            let mut previous = self.iv(offset / SECTOR + index as u64);
            for part in sector.chunks_exact_mut(block) {
                xor(part, &previous);
                self.cipher.encrypt(part);
                previous[..block].copy_from_slice(part);
            }
        }
    }

    fn decrypt(&self, offset: u64, sectors: &mut [u8]) {
        let block = self.cipher.block();
        for (index, sector) in sectors.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let mut before = [0; SECTOR_BYTES];
            before.copy_from_slice(sector);
            self.cipher.decrypt(sector);
            if self.chain {
                let iv = self.iv(offset / SECTOR + index as u64);
                xor(&mut sector[..block], &iv);
                xor(&mut sector[block..], &before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(name: &str, mode: &str, key: usize) {
        let spec = Spec::by_luks(name, mode, key).unwrap();
        assert_eq!((spec.luks_mode().as_str(), spec.key_bytes()), (mode, key));
        let key: Vec<u8> = (0..key).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        let cipher = spec.keyed(&key).unwrap();
        let plain: Vec<u8> = (0..2048_u32).map(|i| (i / 3).to_le_bytes()[0]).collect();
        let mut text = plain.clone();
        cipher.encrypt(5 << 40, &mut text);
        assert_ne!(text, plain);
        if mode != "ecb" {
            assert_ne!(text[..512], text[512..1024]);
        }
        let (first, rest) = text.split_at_mut(512);
        cipher.decrypt(5 << 40, first);
        cipher.decrypt((5 << 40) + 512, rest);
        assert_eq!(text, plain);
    }

    #[test]
    fn what_is_encrypted_comes_back_sector_by_sector() {
        round_trip("aes", "xts-plain64", 64);
        round_trip("aes", "xts-plain64", 32);
        round_trip("aes", "cbc-essiv:sha256", 16);
        round_trip("aes", "cbc-plain64", 24);
        round_trip("aes", "cbc-plain", 32);
        round_trip("aes", "ecb", 16);
        round_trip("serpent", "xts-plain64", 64);
        round_trip("twofish", "cbc-plain64", 32);
        round_trip("cast5", "cbc-plain64", 16);
    }

    /// IEEE 1619-2007, annex B, vector 1, first block: keys, number and text all zeros.
    #[test]
    fn xts_is_that_of_the_standard() {
        let spec = Spec::by_luks("aes", "xts-plain64", 32).unwrap();
        let mut text = [0; 512];
        spec.keyed(&[0; 32]).unwrap().encrypt(0, &mut text);
        assert_eq!(text[..8], [0x91, 0x7c, 0xf6, 0x9e, 0xbd, 0x68, 0xb2, 0xec]);
        assert_eq!(text[16..24], [0xcd, 0x43, 0xd2, 0xf5, 0x95, 0x98, 0xed, 0x85]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Spec::by_luks("aes", "xts-benbi", 64), None);
        assert_eq!(Spec::by_luks("des", "cbc-plain", 8), None);
        assert!(Spec::by_luks("cast5", "xts-plain64", 32).unwrap().keyed(&[0; 32]).is_err());
    }
}
