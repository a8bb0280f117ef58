//! `secret`: a password or a key, given as it is, in a file, or encrypted with another secret (AES-256-CBC with PKCS #7
//! padding, RFC 5652 6.3).

use aes::Aes256;
use aes::cipher::{BlockDecryptMut, KeyIvInit, block_padding::NoPadding};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::fields::Fields;
use super::{ObjectError, Objects};
use crate::host::reason;

/// The bytes of a secret; they are overwritten when dropped.
pub type Bytes = Zeroizing<Vec<u8>>;

pub(super) const HELP: &[(&str, &str)] =
    &[("data", "string"), ("file", "string"), ("format", "QCryptoSecretFormat"), ("iv", "string"), ("keyid", "string")];

/// Bytes of a secret at most: what reads it must not fill memory from a device.
const MAX_BYTES: u64 = 16 << 20;
const KEY_BYTES: usize = 32;
const BLOCK_BYTES: usize = 16;

pub(super) fn make(fields: &mut Fields, objects: &Objects) -> Result<Bytes, ObjectError> {
    let (data, file) = (fields.text("data")?.map(Zeroizing::new), fields.text("file")?);
    let (key, iv) = (fields.text("keyid")?, fields.text("iv")?);
    let base64 = match fields.text("format")?.as_deref() {
        None | Some("raw") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(ObjectError::new(format!("Parameter 'format' does not accept value '{other}'")));
        }
    };
    fields.finish()?;
    let input = match (data, file) {
        (Some(_), Some(_)) => return Err(ObjectError::new("'file' and 'data' are mutually exclusive")),
        (Some(data), None) => Zeroizing::new(data.as_bytes().to_vec()),
        (None, Some(file)) => read(&file)?,
        (None, None) => return Err(ObjectError::new("Either 'file' or 'data' must be provided")),
    };
    match key {
        // The format says how the ciphertext is written; what is inside is taken as it is.
        Some(key) => decrypt(&input, base64, &key, iv.as_deref(), objects),
        None if base64 => decode(&input),
        None => Ok(input),
    }
}

fn read(path: &str) -> Result<Bytes, ObjectError> {
    use std::io::Read;
    let failed = |what: &str, error: &std::io::Error| {
        ObjectError::new(format!("Unable to read {path}: Failed to {what} file “{path}”: {}", reason(error)))
    };
    let file = std::fs::File::open(path).map_err(|error| failed("open", &error))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed("read from", &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ObjectError::new(format!("Unable to read {path}: a secret has at most {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

fn decode(text: &[u8]) -> Result<Bytes, ObjectError> {
    let compact: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
    STANDARD
        .decode(compact.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| ObjectError::new("Base64 data contains invalid characters"))
}

fn decrypt(
    input: &[u8],
    base64: bool,
    key_id: &str,
    iv: Option<&str>,
    objects: &Objects,
) -> Result<Bytes, ObjectError> {
    let key = objects.secret(key_id)?;
    if key.len() != KEY_BYTES {
        return Err(ObjectError::new(format!("Key should be {KEY_BYTES} bytes in length")));
    }
    let iv = iv.ok_or_else(|| ObjectError::new("IV is required to decrypt secret"))?;
    let iv = decode(iv.as_bytes())?;
    if iv.len() != BLOCK_BYTES {
        return Err(ObjectError::new(format!("IV should be {BLOCK_BYTES} bytes in length not {}", iv.len())));
    }
    let mut text = if base64 { decode(input)? } else { Zeroizing::new(input.to_vec()) };
    if !text.len().is_multiple_of(BLOCK_BYTES) {
        let len = text.len();
        return Err(ObjectError::new(format!("Length {len} must be a multiple of block size {BLOCK_BYTES}")));
    }
    let cipher = cbc::Decryptor::<Aes256>::new_from_slices(&key, &iv)
        .map_err(|_| ObjectError::new("Unable to set up the cipher"))?;
    cipher.decrypt_padded_mut::<NoPadding>(&mut text).map_err(|_| ObjectError::new("Unable to decrypt the secret"))?;
    let padding = usize::from(text.last().copied().unwrap_or(0));
    if padding == 0 || padding > BLOCK_BYTES || padding > text.len() {
        let text = format!("Incorrect number of padding bytes ({padding}) found on decrypted data");
        return Err(ObjectError::new(text));
    }
    let len = text.len() - padding;
    text.truncate(len);
    Ok(text)
}
