//! Encryption of disks: ciphers by the sector, and LUKS.

pub mod cipher;
pub mod hash;
pub mod luks;

use crate::block::error::OpenError;
use crate::object::Objects;

/// Where secrets come from (`--object secret,id=…`).
pub trait Secrets {
    /// The bytes of the secret of that id.
    ///
    /// # Errors
    /// QEMU's text: there is none.
    fn secret(&self, id: &str) -> Result<Vec<u8>, OpenError>;
}

impl Secrets for Objects {
    fn secret(&self, id: &str) -> Result<Vec<u8>, OpenError> {
        let bytes = Objects::secret(self, id).map_err(|error| OpenError::Invalid(error.to_string()))?;
        Ok(bytes.to_vec())
    }
}

/// No secrets at all.
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn secret(&self, id: &str) -> Result<Vec<u8>, OpenError> {
        Err(OpenError::Invalid(format!("No secret with id '{id}'")))
    }
}

/// A cipher for sectors of 512 bytes, by their offset on the disk.
pub trait SectorCipher: Send + Sync {
    /// Encrypts whole sectors; `offset` is that of the first, in bytes.
    fn encrypt(&self, offset: u64, sectors: &mut [u8]);

    /// Decrypts whole sectors.
    fn decrypt(&self, offset: u64, sectors: &mut [u8]);
}

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
