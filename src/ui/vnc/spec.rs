//! `-vnc`: an address and its options, checked.

use std::path::PathBuf;
use std::time::Duration;

/// The TCP port of display 0.
const BASE_PORT: u16 = 5900;

/// A `-vnc` that cannot be served; the text is QEMU's where QEMU has one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecError {
    /// An address without a display number.
    #[error("no vnc port specified")]
    NoPort,
    /// A colon without a display number.
    #[error("vnc port cannot be empty")]
    EmptyPort,
    /// A display that is no number.
    #[error("can't convert to a number: {0}")]
    NotANumber(String),
    /// A display whose port does not exist.
    #[error("port {0} out of range")]
    OutOfRange(String),
    /// `share=` with an unknown policy.
    #[error("unknown vnc share= option")]
    Share,
    /// A switch with a value that is none.
    #[error("Parameter '{0}' expects 'on' or 'off'")]
    Switch(String),
    /// A number that is none.
    #[error("Parameter '{0}' expects a number")]
    Number(String),
    /// Both address families off.
    #[error("Cannot disable IPv4 and IPv6 at same time")]
    NoFamily,
    /// An option that does not exist.
    #[error("Invalid parameter '{0}'")]
    Unknown(String),
    /// An option of QEMU's that this version does not have.
    #[error("VNC option '{0}' is not supported by this version")]
    Unsupported(String),
}

/// Where the server listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// `none`: nowhere; a monitor may look at it all the same.
    None,
    /// TCP.
    Tcp {
        /// Name or number; every local address if empty.
        host: String,
        /// The first port to try.
        port: u16,
        /// The last port to try.
        last_port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Which TCP addresses of a name are meant (`ipv4=`, `ipv6=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Both kinds.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Who may watch at the same time (`share=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SharePolicy {
    /// A client that asks to be alone disconnects the others.
    AllowExclusive,
    /// A client that asks to be alone is refused.
    ForceShared,
    /// All are welcome, whatever they ask.
    Ignore,
}

/// A checked `-vnc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The server's name in monitors.
    pub id: String,
    /// Where it listens.
    pub address: Address,
    /// Whether `to=` was given: the address found is then announced.
    pub announces: bool,
    /// `ipv4=`, `ipv6=`.
    pub family: Family,
    /// `share=`.
    pub share: SharePolicy,
    /// `connections=`: how many clients may watch, and how many may be on their way in.
    pub connections: usize,
    /// `password=`: clients must know the password that the monitor sets.
    pub password: bool,
    /// `lossy=`: JPEG for clients that ask for a quality level.
    pub lossy: bool,
    /// `key-delay-ms=`: the least time between two key events for the guest.
    pub key_delay: Duration,
    /// `lock-key-sync=`: bring the guest's Num Lock in line with what the viewer types.
    pub lock_key_sync: bool,
    /// `power-control=`: viewers may shut the machine down or reset it.
    pub power_control: bool,
}

impl Spec {
    /// A server at `address` with QEMU's defaults.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            id: "default".to_owned(),
            address,
            announces: false,
            family: Family::Any,
            share: SharePolicy::AllowExclusive,
            connections: 32,
            password: false,
            lossy: false,
            key_delay: Duration::from_millis(10),
            lock_key_sync: true,
            power_control: false,
        }
    }

    /// Checks `-vnc ADDRESS,to=TO,KEY=VALUE,…`.
    ///
    /// `non-adaptive=` needs no state: encodings here never depend on how often a part of the screen changes, which is
    /// what its `on` asks for and what QEMU's default only departs from with `lossy=on`.
    ///
    /// # Errors
    ///
    /// If the address or an option is wrong or not supported.
    pub fn parse(
        id: Option<&str>,
        address: &str,
        to: Option<u16>,
        options: &[(String, String)],
    ) -> Result<Self, SpecError> {
        let mut spec = Self::new(parse_address(address, to)?);
        spec.announces = to.is_some();
        if let Some(id) = id {
            id.clone_into(&mut spec.id);
        }
        let (mut ipv4, mut ipv6) = (None, None);
        for (key, value) in options {
            match key.as_str() {
                "ipv4" => ipv4 = Some(switch(key, value)?),
                "ipv6" => ipv6 = Some(switch(key, value)?),
                "share" => {
                    spec.share = match value.as_str() {
                        "allow-exclusive" => SharePolicy::AllowExclusive,
                        "force-shared" => SharePolicy::ForceShared,
                        "ignore" => SharePolicy::Ignore,
                        _ => return Err(SpecError::Share),
                    }
                }
                "connections" => spec.connections = number(key, value)? as usize,
                "password" => spec.password = switch(key, value)?,
                "lossy" => spec.lossy = switch(key, value)?,
                "non-adaptive" => {
                    switch(key, value)?;
                }
                "lock-key-sync" => spec.lock_key_sync = switch(key, value)?,
                "power-control" => spec.power_control = switch(key, value)?,
                "key-delay-ms" => spec.key_delay = Duration::from_millis(u64::from(number(key, value)?)),
                "sasl" | "reverse" | "websocket" if value == "off" => {}
                "sasl" | "sasl-authz" | "reverse" | "websocket" | "tls-creds" | "tls-authz" | "password-secret"
                | "audiodev" | "display" | "head" => return Err(SpecError::Unsupported(key.clone())),
                _ => return Err(SpecError::Unknown(key.clone())),
            }
        }
        spec.family = match (ipv4, ipv6) {
            (Some(false), Some(false)) => return Err(SpecError::NoFamily),
            (Some(true), Some(true)) | (None, None) => Family::Any,
            (Some(true), _) | (None, Some(false)) => Family::V4,
            (_, Some(true)) | (Some(false), None) => Family::V6,
        };
        Ok(spec)
    }
}

fn switch(key: &str, value: &str) -> Result<bool, SpecError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(SpecError::Switch(key.to_owned())),
    }
}

fn number(key: &str, value: &str) -> Result<u32, SpecError> {
    value.parse().map_err(|_| SpecError::Number(key.to_owned()))
}

fn parse_address(address: &str, to: Option<u16>) -> Result<Address, SpecError> {
    if address.is_empty() || address == "none" {
        return Ok(Address::None);
    }
    if let Some(path) = address.strip_prefix("unix:") {
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let (host, display) = address.rsplit_once(':').ok_or(SpecError::NoPort)?;
    if display.is_empty() {
        return Err(SpecError::EmptyPort);
    }
    if !display.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SpecError::NotANumber(display.to_owned()));
    }
    let port = display
        .parse::<u16>()
        .ok()
        .and_then(|display| display.checked_add(BASE_PORT))
        .ok_or_else(|| SpecError::OutOfRange(display.to_owned()))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let last_port = to.map_or(port, |to| to.saturating_add(BASE_PORT));
    Ok(Address::Tcp { host: host.to_owned(), port, last_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str, options: &[(&str, &str)]) -> Result<Spec, SpecError> {
        let options: Vec<_> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Spec::parse(None, address, None, &options)
    }

    fn refusal(address: &str, options: &[(&str, &str)]) -> String {
        parse(address, options).unwrap_err().to_string()
    }

    #[test]
    fn a_display_is_a_port_from_5900_on() {
        let spec = parse("[::1]:7", &[]).unwrap();
        assert_eq!(spec.address, Address::Tcp { host: "::1".into(), port: 5907, last_port: 5907 });
    }

    #[test]
    fn to_sets_the_last_port_and_announces_it() {
        let spec = Spec::parse(Some("x"), "localhost:0", Some(99), &[]).unwrap();
        assert_eq!(spec.address, Address::Tcp { host: "localhost".into(), port: 5900, last_port: 5999 });
        assert!(spec.announces);
        assert_eq!(spec.id, "x");
    }

    #[test]
    fn none_and_an_empty_address_listen_nowhere() {
        assert_eq!(parse("none", &[]).unwrap().address, Address::None);
        assert_eq!(parse("", &[]).unwrap().address, Address::None);
    }

    #[test]
    fn wrong_addresses_are_refused_in_qemus_words() {
        assert_eq!(refusal("foo", &[]), "no vnc port specified");
        assert_eq!(refusal("h:", &[]), "vnc port cannot be empty");
        assert_eq!(refusal(":foo", &[]), "can't convert to a number: foo");
        assert_eq!(refusal(":-1", &[]), "can't convert to a number: -1");
        assert_eq!(refusal(":99999", &[]), "port 99999 out of range");
        assert_eq!(refusal(":60000", &[]), "port 60000 out of range");
    }

    #[test]
    fn wrong_options_are_refused_in_qemus_words() {
        assert_eq!(refusal(":1", &[("bogus", "3")]), "Invalid parameter 'bogus'");
        assert_eq!(refusal(":1", &[("password", "maybe")]), "Parameter 'password' expects 'on' or 'off'");
        assert_eq!(refusal(":1", &[("share", "xx")]), "unknown vnc share= option");
        assert_eq!(refusal(":1", &[("key-delay-ms", "x")]), "Parameter 'key-delay-ms' expects a number");
    }

    #[test]
    fn what_is_missing_is_refused_by_name() {
        assert_eq!(refusal(":1", &[("websocket", "on")]), "VNC option 'websocket' is not supported by this version");
        assert!(parse(":1", &[("sasl", "off")]).is_ok());
    }

    #[test]
    fn families_follow_the_two_switches() {
        assert_eq!(parse(":1", &[("ipv4", "off")]).unwrap().family, Family::V6);
        assert_eq!(parse(":1", &[("ipv6", "off")]).unwrap().family, Family::V4);
        assert_eq!(parse(":1", &[("ipv6", "on")]).unwrap().family, Family::V6);
        assert_eq!(parse(":1", &[("ipv4", "on"), ("ipv6", "on")]).unwrap().family, Family::Any);
        assert_eq!(refusal(":1", &[("ipv4", "off"), ("ipv6", "off")]), SpecError::NoFamily.to_string());
    }
}
