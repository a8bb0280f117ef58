//! Encrypted images (qcow2.rst, "Full disk encryption header pointer" and `crypt_method`): guest data at its host
//! offset goes through a cipher, tables do not.

use zeroize::Zeroizing;

use super::Image;
use super::header::{Header, extension};
use super::options::OpenOptions;
use crate::block::crypto::cipher::Spec;
use crate::block::crypto::luks::{self, NewVolume};
use crate::block::crypto::{SECTOR, Secrets, SectorCipher};
use crate::block::error::OpenError;
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// The cipher of an open image.
pub(super) struct Crypt {
    /// `None`: nobody gave the secret; the tables can be looked at, the data cannot.
    cipher: Option<Box<dyn SectorCipher>>,
    /// Sectors are numbered by the guest (AES), not in the file (LUKS).
    by_guest: bool,
}

/// Bytes of the legacy cipher's key: a password is cut or filled up with zeros.
const AES_KEY: usize = 16;

/// How a new image is encrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// Method 1.
    Aes,
    /// Method 2: what goes before the data, and the password.
    Luks {
        /// The volume.
        volume: NewVolume,
        /// Its first password.
        password: Vec<u8>,
    },
}

impl Encryption {
    /// Bytes of clusters that the LUKS header takes.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        match self {
            Self::Aes => 0,
            Self::Luks { volume, .. } => volume.payload_bytes(),
        }
    }
}

/// Where the encryption header is, and its length in bytes.
fn header_place(header: &Header) -> Option<(u64, u64)> {
    let known = header.extensions.iter().find(|known| known.kind == extension::ENCRYPTION)?;
    let word = |at: usize| known.data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    Some((word(0)?, word(8)?))
}

/// The LUKS header of an image.
pub(super) fn luks_header(file: &dyn BlockNode, header: &Header) -> Result<luks::Header, OpenError> {
    let place = header_place(header).filter(|(offset, _)| offset.is_multiple_of(1 << header.cluster_bits));
    let Some((offset, len)) = place else {
        return Err(OpenError::Image("LUKS encryption header is missing".to_owned()));
    };
    let mut bytes = vec![0; usize::try_from(len.min(4096)).unwrap_or(0)];
    file.read_at(offset, &mut bytes).map_err(OpenError::io("Could not read the encryption header"))?;
    luks::Header::parse(&bytes)
}

impl Crypt {
    /// The cipher that the header asks for.
    pub(super) fn open(
        file: &dyn BlockNode,
        header: &Header,
        options: &OpenOptions,
        secrets: &dyn Secrets,
    ) -> Result<Option<Self>, OpenError> {
        let format = match header.crypt_method {
            0 => None,
            1 => Some("aes"),
            _ => Some("luks"),
        };
        let wanted = options.encrypt_format.as_deref();
        let Some(format) = format else {
            return match wanted {
                None => Ok(None),
                Some(wanted) => Err(OpenError::Invalid(format!(
                    "No encryption in image header, but options specified format '{wanted}'"
                ))),
            };
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != format) {
            return Err(OpenError::Invalid(format!(
                "Header reported '{format}' encryption format but options specify '{wanted}'"
            )));
        }
        let by_guest = format == "aes";
        let Some(id) = &options.key_secret else {
            return Ok(Some(Self { cipher: None, by_guest }));
        };
        let password = Zeroizing::new(secrets.secret(id)?);
        let cipher = if by_guest { aes_cipher(&password)? } else { luks_cipher(file, header, &password)? };
        Ok(Some(Self { cipher: Some(cipher), by_guest }))
    }

    fn number(&self, host: u64, guest: u64) -> u64 {
        if self.by_guest { guest } else { host }
    }

    fn cipher(&self) -> IoResult<&dyn SectorCipher> {
        self.cipher.as_deref().ok_or_else(|| {
            log::error!("Parameter 'encrypt.key-secret' is required for cipher");
            std::io::Error::from_raw_os_error(1) // EPERM
        })
    }
}

fn aes_cipher(password: &[u8]) -> Result<Box<dyn SectorCipher>, OpenError> {
    let mut key = Zeroizing::new([0; AES_KEY]);
    let len = password.len().min(AES_KEY);
    key[..len].copy_from_slice(&password[..len]);
    let spec = Spec::by_luks("aes", "cbc-plain64", AES_KEY);
    spec.ok_or_else(|| OpenError::Unsupported("AES".to_owned()))?.keyed(key.as_slice())
}

fn luks_cipher(file: &dyn BlockNode, header: &Header, password: &[u8]) -> Result<Box<dyn SectorCipher>, OpenError> {
    let luks = luks_header(file, header)?;
    let (start, len) = header_place(header).unwrap_or_default();
    let read = |offset: u64, buf: &mut [u8]| {
        let end = offset.saturating_add(buf.len() as u64);
        if end > len {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        file.read_at(start + offset, buf)
    };
    let key = luks.unlock(password, &read)?;
    luks.spec.keyed(&key)
}

impl Image {
    /// The LUKS header, if there is one that can be read.
    pub(super) fn luks_header(&self) -> Option<luks::Header> {
        luks_header(self.file.as_ref(), &self.header()).ok()
    }

    /// Reads guest data that is stored as it is.
    pub(super) fn read_host(&self, host: u64, guest: u64, buf: &mut [u8]) -> IoResult<()> {
        let Some(crypt) = &self.crypt else { return self.data().read_at(host, buf) };
        let skip = host % SECTOR;
        let len = (skip + buf.len() as u64).next_multiple_of(SECTOR);
        if skip == 0 && len == buf.len() as u64 {
            self.data().read_at(host, buf)?;
            crypt.cipher()?.decrypt(crypt.number(host, guest), buf);
            return Ok(());
        }
        let mut sectors = vec![0; usize::try_from(len).unwrap_or(0)];
        self.data().read_at(host - skip, &mut sectors)?;
        crypt.cipher()?.decrypt(crypt.number(host - skip, guest - skip), &mut sectors);
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
            crypt.cipher()?.encrypt(crypt.number(host, guest), &mut sectors);
            return self.data().write_at(host, &sectors, false);
        }
        let _alone = lock(&self.sectors);
        let mut sectors = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_host(host, guest, &mut sectors)?;
        let skip = usize::try_from(skip).unwrap_or(0);
        sectors[skip..skip + buf.len()].copy_from_slice(buf);
        crypt.cipher()?.encrypt(crypt.number(host, guest), &mut sectors);
        self.data().write_at(host, &sectors, false)
    }
}
