//! Encrypted images (qcow2.rst, "Full disk encryption header pointer" and `crypt_method`): guest data at its host
//! offset goes through a cipher, tables do not.

use super::Image;
use super::header::Header;
use super::options::OpenOptions;
use crate::block::crypto::{SECTOR, Secrets, SectorCipher};
use crate::block::error::OpenError;
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// The cipher of an open image.
pub(super) struct Crypt {
    cipher: Box<dyn SectorCipher>,
    /// Sectors are numbered by the guest (AES), not in the file (LUKS).
    by_guest: bool,
}

impl Crypt {
    /// The cipher that the header asks for.
    pub(super) fn open(
        _file: &dyn BlockNode,
        header: &Header,
        _options: &OpenOptions,
        _secrets: &dyn Secrets,
    ) -> Result<Option<Self>, OpenError> {
        if header.crypt_method != 0 {
            let method = if header.crypt_method == 1 { "AES-CBC" } else { "LUKS" };
            return Err(OpenError::Unsupported(format!("{method} encryption of qcow2 images")));
        }
        Ok(None)
    }

    fn number(&self, host: u64, guest: u64) -> u64 {
        if self.by_guest { guest } else { host }
    }
}

impl Image {
    /// Reads guest data that is stored as it is.
    pub(super) fn read_host(&self, host: u64, guest: u64, buf: &mut [u8]) -> IoResult<()> {
        let Some(crypt) = &self.crypt else { return self.data().read_at(host, buf) };
        let skip = host % SECTOR;
        let len = (skip + buf.len() as u64).next_multiple_of(SECTOR);
        if skip == 0 && len == buf.len() as u64 {
            self.data().read_at(host, buf)?;
            crypt.cipher.decrypt(crypt.number(host, guest), buf);
            return Ok(());
        }
        let mut sectors = vec![0; usize::try_from(len).unwrap_or(0)];
        self.data().read_at(host - skip, &mut sectors)?;
        crypt.cipher.decrypt(crypt.number(host - skip, guest - skip), &mut sectors);
        let skip = usize::try_from(skip).unwrap_or(0);
        buf.copy_from_slice(&sectors[skip..skip + buf.len()]);
        Ok(())
    }

    /// Writes guest data as it is stored.
    pub(super) fn write_host(&self, host: u64, guest: u64, buf: &[u8]) -> IoResult<()> {
        let Some(crypt) = &self.crypt else { return self.data().write_at(host, buf, false) };
        let skip = host % SECTOR;
        let len = (skip + buf.len() as u64).next_multiple_of(SECTOR);
        let (host, guest) = (host - skip, guest - skip);
        if skip == 0 && len == buf.len() as u64 {
            let mut sectors = buf.to_vec();
            crypt.cipher.encrypt(crypt.number(host, guest), &mut sectors);
            return self.data().write_at(host, &sectors, false);
        }
        let _alone = lock(&self.sectors);
        let mut sectors = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_host(host, guest, &mut sectors)?;
        let skip = usize::try_from(skip).unwrap_or(0);
        sectors[skip..skip + buf.len()].copy_from_slice(buf);
        crypt.cipher.encrypt(crypt.number(host, guest), &mut sectors);
        self.data().write_at(host, &sectors, false)
    }
}
