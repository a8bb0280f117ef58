//! LUKS, version 1 (LUKS1 On-Disk Format Specification 1.2.3): a header with eight key slots, each of which holds the
//! volume's key, split into stripes and encrypted with a password.

use std::time::Duration;

use zeroize::Zeroizing;

use super::cipher::{Algorithm, IvGen, Mode, Spec};
use super::hash::Hash;
use super::{SECTOR, SectorCipher};
use crate::block::error::OpenError;
use crate::block::node::IoResult;

/// What an image begins with.
pub const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";

/// Bytes of the header proper.
const HEADER_BYTES: usize = 592;
const SLOTS: usize = 8;
const SLOT_BYTES: usize = 48;
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;
const STRIPES: u32 = 4000;
const DIGEST_BYTES: usize = 20;
const SALT_BYTES: usize = 32;
/// QEMU's and cryptsetup's alignment of key material.
const MATERIAL_ALIGN: u64 = 4096;
const MIN_ITERATIONS: u32 = 1000;
/// More than a minute of work for nothing: a hostile header.
const MAX_ITERATIONS: u32 = 1 << 27;
/// A hostile header must not make us read for long.
const MAX_MATERIAL: u64 = 16 << 20;

/// A key slot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slot {
    /// It holds the key.
    pub active: bool,
    /// Of its password's stretching.
    pub iterations: u32,
    salt: [u8; SALT_BYTES],
    /// Where its material is, in sectors.
    pub material: u32,
    /// Stripes of its material.
    pub stripes: u32,
}

/// A header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The cipher.
    pub spec: Spec,
    /// The hash of stretching and of the stripes.
    pub hash: Hash,
    /// Where the data begins, in sectors.
    pub payload: u32,
    digest: [u8; DIGEST_BYTES],
    salt: [u8; SALT_BYTES],
    /// Of the key's digest.
    pub iterations: u32,
    /// As text.
    pub uuid: String,
    /// All eight.
    pub slots: Vec<Slot>,
}

fn fail<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Image(text.into()))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Header {
    /// Reads a header from its first bytes.
    ///
    /// # Errors
    /// It is none, or asks for what is not known.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else { return fail("Volume is not in LUKS format") };
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if &bytes[..6] != MAGIC {
            return fail("Volume is not in LUKS format");
        }
        if u16_at(6) != 1 {
            return fail(format!("LUKS version {} is not supported", u16_at(6)));
        }
        let (name, mode, hash) = (text(&bytes[8..40]), text(&bytes[40..72]), text(&bytes[72..104]));
        let key_bytes = u32_at(108) as usize;
        let Some(spec) = Spec::by_luks(&name, &mode, key_bytes) else {
            return fail(format!("Algorithm '{name}' with key size {key_bytes} bytes in mode '{mode}' not supported"));
        };
        let Some(hash) = Hash::by_name(&hash) else { return fail(format!("Hash algorithm '{hash}' is not supported")) };
        let mut header = Self {
            spec,
            hash,
            payload: u32_at(104),
            digest: bytes[112..132].try_into().unwrap_or_default(),
            salt: bytes[132..164].try_into().unwrap_or_default(),
            iterations: u32_at(164),
            uuid: text(&bytes[168..208]),
            slots: Vec::new(),
        };
        for index in 0..SLOTS {
            let at = 208 + index * SLOT_BYTES;
            header.slots.push(Slot {
                active: u32_at(at) == ACTIVE,
                iterations: u32_at(at + 4),
                salt: bytes[at + 8..at + 40].try_into().unwrap_or_default(),
                material: u32_at(at + 40),
                stripes: u32_at(at + 44),
            });
        }
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), OpenError> {
        if self.iterations > MAX_ITERATIONS || self.iterations == 0 {
            return fail(format!("LUKS header: {} iterations are not possible", self.iterations));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.stripes != STRIPES {
                return fail(format!("Keyslot {index} is corrupted (stripes {} != {STRIPES})", slot.stripes));
            }
            let end = u64::from(slot.material) + self.material_bytes().div_ceil(SECTOR);
            if u64::from(slot.material) * SECTOR < HEADER_BYTES as u64
                || end > u64::from(self.payload) && self.payload > 0
            {
                return fail(format!("Keyslot {index} is overlapping with the header or the payload"));
            }
            if slot.active && (slot.iterations == 0 || slot.iterations > MAX_ITERATIONS) {
                return fail(format!("Keyslot {index}: {} iterations are not possible", slot.iterations));
            }
        }
        Ok(())
    }

    /// Bytes of the material of one slot.
    fn material_bytes(&self) -> u64 {
        self.spec.key_bytes() as u64 * u64::from(STRIPES)
    }

    /// The header as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(1_u16.to_be_bytes());
        let field = |out: &mut Vec<u8>, text: &str, len: usize| {
            let end = out.len() + len;
            out.extend(text.bytes().take(len - 1));
            out.resize(end, 0);
        };
        field(&mut out, self.spec.algorithm.luks, 32);
        field(&mut out, &self.spec.luks_mode(), 32);
        field(&mut out, self.hash.name(), 32);
        out.extend(self.payload.to_be_bytes());
        out.extend(u32::try_from(self.spec.key_bytes()).unwrap_or(0).to_be_bytes());
        out.extend(self.digest);
        out.extend(self.salt);
        out.extend(self.iterations.to_be_bytes());
        field(&mut out, &self.uuid, 40);
        for slot in &self.slots {
            out.extend(if slot.active { ACTIVE } else { INACTIVE }.to_be_bytes());
            out.extend(slot.iterations.to_be_bytes());
            out.extend(slot.salt);
            out.extend(slot.material.to_be_bytes());
            out.extend(slot.stripes.to_be_bytes());
        }
        out
    }

    fn digest_of(&self, key: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut digest = [0; DIGEST_BYTES];
        self.hash.stretch(key, &self.salt, self.iterations, &mut digest);
        digest
    }

    /// The volume's key, from a password.
    ///
    /// # Errors
    /// No slot opens with it, or the material cannot be read.
    pub fn unlock(
        &self,
        password: &[u8],
        read: &dyn Fn(u64, &mut [u8]) -> IoResult<()>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        for slot in self.slots.iter().filter(|slot| slot.active) {
            let len = self.material_bytes();
            if len > MAX_MATERIAL {
                return fail("LUKS header: key material too large");
            }
            let mut material = Zeroizing::new(vec![0; usize::try_from(len.next_multiple_of(SECTOR)).unwrap_or(0)]);
            read(u64::from(slot.material) * SECTOR, &mut material)
                .map_err(OpenError::io("Failed to read key material"))?;
            self.slot_cipher(slot, password)?.decrypt(0, &mut material);
            let key = self.merge(&material);
            if self.digest_of(&key) == self.digest {
                return Ok(key);
            }
        }
        Err(OpenError::Invalid("Invalid password, cannot unlock any keyslot".to_owned()))
    }

    fn slot_cipher(&self, slot: &Slot, password: &[u8]) -> Result<Box<dyn SectorCipher>, OpenError> {
        let mut key = Zeroizing::new(vec![0; self.spec.key_bytes()]);
        self.hash.stretch(password, &slot.salt, slot.iterations, &mut key);
        self.spec.keyed(&key)
    }

    /// Every digest's length of bytes is hashed with its number ("AF splitter", 2.4).
    fn diffuse(&self, block: &mut [u8]) {
        let step = self.hash.digest(&[]).len();
        for (index, part) in block.chunks_mut(step).enumerate() {
            let mut input = u32::try_from(index).unwrap_or(0).to_be_bytes().to_vec();
            input.extend_from_slice(part);
            let digest = self.hash.digest(&input);
            part.copy_from_slice(&digest[..part.len()]);
        }
    }

    fn merge(&self, material: &[u8]) -> Zeroizing<Vec<u8>> {
        let len = self.spec.key_bytes();
        let mut block = Zeroizing::new(vec![0; len]);
        let stripes = STRIPES as usize;
        for (index, stripe) in material.chunks_exact(len).take(stripes).enumerate() {
            block.iter_mut().zip(stripe).for_each(|(byte, other)| *byte ^= other);
            if index + 1 < stripes {
                self.diffuse(&mut block);
            }
        }
        block
    }

    fn split(&self, key: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let len = self.spec.key_bytes();
        let mut material = Zeroizing::new(vec![0; len * STRIPES as usize]);
        let last = material.len() - len;
        random(&mut material[..last])?;
        let mut block = Zeroizing::new(vec![0; len]);
        for stripe in material[..last].chunks_exact(len) {
            block.iter_mut().zip(stripe).for_each(|(byte, other)| *byte ^= other);
            self.diffuse(&mut block);
        }
        let end = &mut material[last..];
        end.iter_mut().zip(block.iter().zip(key)).for_each(|(byte, (mask, key))| *byte = mask ^ key);
        Ok(material)
    }

    /// Puts the key into a slot under a password. Returns where the material belongs, in bytes, and the material.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub fn fill_slot(
        &mut self,
        index: usize,
        key: &[u8],
        password: &[u8],
        time: Duration,
    ) -> Result<(u64, Vec<u8>), OpenError> {
        let mut material = self.split(key)?;
        let len = usize::try_from(self.material_bytes().next_multiple_of(SECTOR)).unwrap_or(0);
        material.resize(len, 0);
        let iterations = self.hash.iterations_in(time, self.spec.key_bytes()).clamp(MIN_ITERATIONS, MAX_ITERATIONS);
        let Some(slot) = self.slots.get_mut(index) else { return fail("No such keyslot") };
        slot.iterations = iterations;
        random(&mut slot.salt)?;
        slot.active = true;
        let slot = slot.clone();
        self.slot_cipher(&slot, password)?.encrypt(0, &mut material);
        Ok((u64::from(slot.material) * SECTOR, material.to_vec()))
    }
}

fn random(bytes: &mut [u8]) -> Result<(), OpenError> {
    getrandom::fill(bytes).map_err(|error| OpenError::Invalid(format!("Unable to read random bytes: {error}")))
}

/// What a new volume is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewVolume {
    /// The cipher.
    pub spec: Spec,
    /// The hash.
    pub hash: Hash,
    /// How long a password's stretching takes.
    pub time: Duration,
}

impl NewVolume {
    /// QEMU's defaults, or what was given, by QEMU's names of `cipher-alg`, `cipher-mode`, `ivgen-alg`,
    /// `ivgen-hash-alg`, `hash-alg` and `iter-time` (milliseconds).
    ///
    /// # Errors
    /// QEMU's text: there is no such thing.
    pub fn from_options(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, OpenError> {
        let refuse =
            |name: &str, value: &str| OpenError::Invalid(format!("Parameter '{name}' does not accept value '{value}'"));
        let word = |name: &str, default: &str| get(name).unwrap_or_else(|| default.to_owned());
        let name = word("cipher-alg", "aes-256");
        let algorithm = Algorithm::by_name(&name).ok_or_else(|| refuse("cipher-alg", &name))?;
        let name = word("cipher-mode", "xts");
        let mode = Mode::by_name(&name).ok_or_else(|| refuse("cipher-mode", &name))?;
        let name = word("hash-alg", "sha256");
        let hash = Hash::by_name(&name).ok_or_else(|| refuse("hash-alg", &name))?;
        let iv_hash = word("ivgen-hash-alg", "sha256");
        let iv_hash = Hash::by_name(&iv_hash).ok_or_else(|| refuse("ivgen-hash-alg", &iv_hash))?;
        let ivgen = match word("ivgen-alg", "plain64").as_str() {
            _ if mode == Mode::Ecb => None,
            "plain" => Some(IvGen::Plain),
            "plain64" => Some(IvGen::Plain64),
            "essiv" => Some(IvGen::Essiv(iv_hash)),
            other => return Err(refuse("ivgen-alg", other)),
        };
        let time = match get("iter-time").map(|text| text.parse::<u64>()) {
            None => 2000,
            Some(Ok(0)) => return Err(OpenError::Invalid("iter-time must be larger than 0".to_owned())),
            Some(Ok(ms)) => ms.min(600_000),
            Some(Err(_)) => return Err(OpenError::Invalid("Parameter 'iter-time' expects a number".to_owned())),
        };
        Ok(Self { spec: Spec { algorithm, mode, ivgen }, hash, time: Duration::from_millis(time) })
    }

    /// Bytes before the data.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        MATERIAL_ALIGN + SLOTS as u64 * self.slot_bytes()
    }

    fn slot_bytes(&self) -> u64 {
        (self.spec.key_bytes() as u64 * u64::from(STRIPES)).next_multiple_of(MATERIAL_ALIGN)
    }

    /// Makes a volume: all bytes before its data, and its cipher.
    ///
    /// # Errors
    /// The cipher cannot be, or the host has no random numbers.
    pub fn make(&self, password: &[u8]) -> Result<(Vec<u8>, Box<dyn SectorCipher>), OpenError> {
        let mut key = Zeroizing::new(vec![0; self.spec.key_bytes()]);
        random(&mut key)?;
        let cipher = self.spec.keyed(&key)?;
        let sector = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX);
        let mut header = Header {
            spec: self.spec,
            hash: self.hash,
            payload: sector(self.payload_bytes()),
            digest: [0; DIGEST_BYTES],
            salt: [0; SALT_BYTES],
            iterations: 0,
            uuid: uuid(),
            slots: (0..SLOTS as u64)
                .map(|index| Slot {
                    stripes: STRIPES,
                    material: sector(MATERIAL_ALIGN + index * self.slot_bytes()),
                    ..Slot::default()
                })
                .collect(),
        };
        random(&mut header.salt)?;
        let count = self.hash.iterations_in(self.time / 8, DIGEST_BYTES);
        header.iterations = count.clamp(MIN_ITERATIONS, MAX_ITERATIONS);
        header.digest = header.digest_of(&key);
        let (at, material) = header.fill_slot(0, &key, password, self.time)?;
        let mut bytes = header.encode();
        bytes.resize(usize::try_from(self.payload_bytes()).unwrap_or(0), 0);
        let at = usize::try_from(at).unwrap_or(0);
        bytes[at..at + material.len()].copy_from_slice(&material);
        Ok((bytes, cipher))
    }
}

/// A random UUID as text.
fn uuid() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return String::new(); // making the key fails as well
    }
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(pairs: &[(&str, &str)]) -> (Vec<u8>, Box<dyn SectorCipher>) {
        let get = |name: &str| {
            let found = pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            found.or_else(|| (name == "iter-time").then(|| "1".to_owned()))
        };
        NewVolume::from_options(&get).unwrap().make(b"secret").unwrap()
    }

    fn unlocked(bytes: &[u8], password: &[u8]) -> Result<Box<dyn SectorCipher>, OpenError> {
        let header = Header::parse(bytes)?;
        let read = |offset: u64, buf: &mut [u8]| {
            let at = usize::try_from(offset).unwrap();
            buf.copy_from_slice(&bytes[at..at + buf.len()]);
            Ok(())
        };
        let key = header.unlock(password, &read)?;
        header.spec.keyed(&key)
    }

    #[test]
    fn a_new_volume_opens_with_its_password_only() {
        let (bytes, cipher) = volume(&[]);
        assert_eq!(bytes.len(), 2_068_480);
        let mut text = [7; 1024];
        cipher.encrypt(512, &mut text);
        unlocked(&bytes, b"secret").unwrap().decrypt(512, &mut text);
        assert_eq!(text, [7; 1024]);
        let refused = unlocked(&bytes, b"Secret").err().unwrap();
        assert_eq!(refused.to_string(), "Invalid password, cannot unlock any keyslot");
    }

    #[test]
    fn other_ciphers_and_hashes_work_too() {
        let given =
            [("cipher-alg", "serpent-256"), ("cipher-mode", "cbc"), ("ivgen-alg", "essiv"), ("hash-alg", "sha512")];
        let (bytes, _) = volume(&given);
        unlocked(&bytes, b"secret").unwrap();
        assert_eq!(Header::parse(&bytes).unwrap().spec.luks_mode(), "cbc-essiv:sha256");
    }

    #[test]
    fn headers_come_back_and_damaged_ones_are_refused() {
        let (bytes, _) = volume(&[]);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.encode(), bytes[..HEADER_BYTES]);
        assert!((0..HEADER_BYTES).step_by(13).all(|len| Header::parse(&bytes[..len]).is_err()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = bytes[..HEADER_BYTES].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = Header::parse(&bad);
        }
    }
}
