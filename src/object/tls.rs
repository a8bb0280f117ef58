//! `tls-creds-x509`, `tls-creds-psk`, `tls-creds-anon`: where the keys and certificates of a TLS session are.

use std::path::{Path, PathBuf};

use super::ObjectError;
use super::fields::Fields;
use crate::host::reason;

pub(super) const HELP_X509: &[(&str, &str)] = &[
    ("dir", "string"),
    ("endpoint", "QCryptoTLSCredsEndpoint"),
    ("passwordid", "string"),
    ("priority", "string"),
    ("sanity-check", "bool"),
    ("verify-peer", "bool"),
];
pub(super) const HELP_PSK: &[(&str, &str)] = &[
    ("dir", "string"),
    ("endpoint", "QCryptoTLSCredsEndpoint"),
    ("priority", "string"),
    ("username", "string"),
    ("verify-peer", "bool"),
];
pub(super) const HELP_ANON: &[(&str, &str)] =
    &[("dir", "string"), ("endpoint", "QCryptoTLSCredsEndpoint"), ("priority", "string"), ("verify-peer", "bool")];

/// Which side of the session they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// Who connects.
    Client,
    /// Who is connected to.
    Server,
}

/// X.509 certificates in a folder, by QEMU's file names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// For which side.
    pub endpoint: Endpoint,
    /// The certificates of the authorities that are trusted (PEM).
    pub ca: PathBuf,
    /// What is revoked (PEM), if the file is there.
    pub revoked: Option<PathBuf>,
    /// Our certificate and its key (PEM); a client may have none.
    pub own: Option<(PathBuf, PathBuf)>,
    /// Whether a client must have a certificate that the authorities signed.
    pub verify_peer: bool,
}

pub(super) fn make(kind: &str, fields: &mut Fields) -> Result<Credentials, ObjectError> {
    let endpoint = match fields.text("endpoint")?.as_deref() {
        None | Some("client") => Endpoint::Client,
        Some("server") => Endpoint::Server,
        Some(other) => {
            return Err(ObjectError::new(format!("Parameter 'endpoint' does not accept value '{other}'")));
        }
    };
    let verify_peer = fields.switch("verify-peer")?.unwrap_or(true);
    let dir = fields.text("dir")?;
    if kind != "tls-creds-x509" {
        // rustls has neither anonymous key exchange nor external pre-shared keys.
        return Err(ObjectError::new(format!("Object type '{kind}' is not supported by this version")));
    }
    for unsupported in ["priority", "passwordid"] {
        if fields.text(unsupported)?.is_some() {
            let text = format!("Parameter '{unsupported}' of '{kind}' is not supported by this version");
            return Err(ObjectError::new(text));
        }
    }
    if fields.switch("sanity-check")? == Some(false) {
        // rustls checks certificates whenever it uses them.
        return Err(ObjectError::new(format!(
            "Parameter 'sanity-check=off' of '{kind}' is not supported by this version"
        )));
    }
    fields.finish()?;
    let dir = PathBuf::from(dir.ok_or_else(|| ObjectError::new("Missing 'dir' property value"))?);
    let (cert, key) = match endpoint {
        Endpoint::Client => ("client-cert.pem", "client-key.pem"),
        Endpoint::Server => ("server-cert.pem", "server-key.pem"),
    };
    let ca = dir.join("ca-cert.pem");
    // A server that verifies nobody needs no authorities, but QEMU wants the file all the same.
    accessible(&ca)?;
    let (cert, key) = (dir.join(cert), dir.join(key));
    let own = match endpoint {
        Endpoint::Server => {
            accessible(&cert)?;
            accessible(&key)?;
            Some((cert, key))
        }
        Endpoint::Client if cert.exists() => {
            accessible(&key)?;
            Some((cert, key))
        }
        Endpoint::Client => None,
    };
    let revoked = Some(dir.join("ca-crl.pem")).filter(|path| path.exists());
    Ok(Credentials { endpoint, ca, revoked, own, verify_peer })
}

fn accessible(path: &Path) -> Result<(), ObjectError> {
    std::fs::metadata(path).map(drop).map_err(|error| {
        ObjectError::new(format!("Unable to access credentials {}: {}", path.display(), reason(&error)))
    })
}
