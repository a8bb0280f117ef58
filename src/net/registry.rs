//! All networks of a machine: back ends, cards and hubs by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use super::datagram::{self, Datagram};
use super::lock;
use super::pump::{Medium, Pump};
use super::stream::Stream;
use super::tap;
use super::user::{self, User};
use super::wire::{Port, PortHandle, Role, Wire};

/// A back end as the command line or a monitor describes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spec {
    /// Its type ("user").
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its options, in the order given.
    pub options: Vec<(String, String)>,
    /// The hub that it is plugged into (`-net`); `None`: a wire of its own.
    pub hub: Option<u32>,
}

impl Spec {
    /// The last value of an option.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// What a card hangs on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Peer {
    /// Nothing.
    #[default]
    None,
    /// A back end.
    Netdev(String),
    /// A hub.
    Hub(u32),
}

/// Why a card cannot have the peer that it wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerError {
    /// There is no such back end.
    Missing,
    /// Another card has it.
    InUse,
}

/// A back end or card, as monitors list it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientInfo {
    /// Its name.
    pub name: String,
    /// "index=0,type=user,…".
    pub text: String,
    /// The hub and the name of the port that it is plugged into.
    pub hub: Option<(u32, String)>,
    /// Names and texts of those at the other end of its own wire, for a card.
    pub peers: Vec<(String, String)>,
    /// Whether it is a card.
    pub is_nic: bool,
}

/// The types of back ends, as `-netdev help` lists them.
pub const KINDS: &[&str] = &["bridge", "dgram", "hubport", "socket", "stream", "tap", "user"];

enum Backend {
    User(User),
    /// A hub's port.
    Hub,
    /// Threads of the other kinds, one a queue.
    Pumps {
        _pumps: Vec<Pump>,
    },
}

struct Netdev {
    spec: Spec,
    backend: Backend,
    text: String,
    /// Its own ends; none for a hub's port.
    ends: Vec<PortHandle>,
    /// Where a card plugs in.
    wires: Vec<Arc<Wire>>,
    hub_port: Option<(u32, String)>,
    taken: bool,
}

struct Nic {
    name: String,
    model: String,
    ends: Vec<PortHandle>,
    netdev: Option<String>,
    hub_port: Option<(u32, String)>,
}

#[derive(Default)]
struct Hub {
    wire: Arc<Wire>,
    ports: u32,
}

#[derive(Default)]
struct State {
    netdevs: Vec<Netdev>,
    nics: Vec<Nic>,
    hubs: BTreeMap<u32, Hub>,
    macs: Vec<[u8; 6]>,
}

/// The networks.
#[derive(Default)]
pub struct Networks {
    state: Mutex<State>,
}

impl std::fmt::Debug for Networks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Networks({} back ends)", lock(&self.state).netdevs.len())
    }
}

/// QEMU's first address; the others count up.
const FIRST_MAC: u32 = 0x12_3456;

impl State {
    fn hub_port(&mut self, hub: u32) -> (Arc<Wire>, String) {
        let entry = self.hubs.entry(hub).or_default();
        let name = format!("hub{hub}port{}", entry.ports);
        entry.ports += 1;
        (Arc::clone(&entry.wire), name)
    }

    fn netdev(&mut self, id: &str) -> Option<&mut Netdev> {
        self.netdevs.iter_mut().find(|netdev| netdev.spec.id == id)
    }
}

impl Networks {
    /// No networks.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes a back end.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn open(&self, spec: &Spec) -> Result<(), String> {
        if lock(&self.state).netdev(&spec.id).is_some() {
            return Err(format!("Duplicate ID '{}' for netdev", spec.id));
        }
        if spec.kind == "hubport" {
            return self.open_hub_port(spec);
        }
        let (wire, hub_port) = match spec.hub {
            None => (Wire::new(), None),
            Some(hub) => {
                let (wire, name) = lock(&self.state).hub_port(hub);
                (wire, Some((hub, name)))
            }
        };
        let (backend, text, ends, wires) = start(spec, &wire)?;
        let netdev = Netdev { spec: spec.clone(), backend, text, ends, wires, hub_port, taken: spec.hub.is_some() };
        lock(&self.state).netdevs.push(netdev);
        Ok(())
    }

    fn open_hub_port(&self, spec: &Spec) -> Result<(), String> {
        let hub = spec.get("hubid").ok_or("Parameter 'hubid' is missing")?;
        let hub: u32 = hub.parse().map_err(|_| "Parameter 'hubid' expects int32".to_owned())?;
        let mut state = lock(&self.state);
        let wire = Arc::clone(&state.hubs.entry(hub).or_default().wire);
        if let Some(id) = spec.get("netdev") {
            let id = id.to_owned();
            let Some(netdev) = state.netdev(&id) else { return Err(format!("netdev '{id}' not found")) };
            if netdev.taken {
                return Err(format!("netdev '{id}' is already in use"));
            }
            netdev.taken = true;
            netdev.hub_port = Some((hub, spec.id.clone()));
            for own in &netdev.wires {
                wire.join(own);
            }
        }
        state.netdevs.push(Netdev {
            spec: spec.clone(),
            backend: Backend::Hub,
            text: String::new(),
            ends: Vec::new(),
            wires: vec![wire],
            hub_port: Some((hub, spec.id.clone())),
            taken: spec.get("netdev").is_some(),
        });
        Ok(())
    }

    /// Ends a back end.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn close(&self, id: &str) -> Result<(), String> {
        let removed = {
            let mut state = lock(&self.state);
            let found = state.netdevs.iter().position(|netdev| netdev.spec.id == id && netdev.spec.hub.is_none());
            let index = found.ok_or_else(|| format!("Device '{id}' not found"))?;
            state.netdevs.remove(index)
        };
        // Its thread ends here, without the lock.
        drop(removed);
        Ok(())
    }

    /// Ends all back ends.
    pub fn close_all(&self) {
        let all = std::mem::take(&mut lock(&self.state).netdevs);
        drop(all);
    }

    /// The ends of a new card, one a queue, and its name.
    ///
    /// # Errors
    /// The peer cannot be had.
    pub fn plug(&self, id: &str, model: &str, peer: &Peer, queues: usize) -> Result<Vec<Port>, PeerError> {
        let mut state = lock(&self.state);
        let name = if id.is_empty() {
            let number = state.nics.iter().filter(|nic| nic.model == model).count();
            format!("{model}.{number}")
        } else {
            id.to_owned()
        };
        let (mut wires, hub_port, netdev) = match peer {
            Peer::None => (Vec::new(), None, None),
            Peer::Hub(hub) => {
                let (wire, port) = state.hub_port(*hub);
                (vec![wire], Some((*hub, port)), None)
            }
            Peer::Netdev(id) => {
                let netdev = state.netdev(id).ok_or(PeerError::Missing)?;
                if std::mem::replace(&mut netdev.taken, true) {
                    return Err(PeerError::InUse);
                }
                let hub_port = matches!(netdev.backend, Backend::Hub).then(|| netdev.hub_port.clone()).flatten();
                (netdev.wires.clone(), hub_port, Some(id.clone()))
            }
        };
        wires.truncate(queues.max(1));
        if wires.is_empty() {
            wires.push(Wire::new());
        }
        let ports: Vec<Port> = wires.iter().map(|wire| wire.plug(Role::Chip)).collect();
        let ends = ports.iter().map(Port::handle).collect();
        state.nics.push(Nic { name, model: model.to_owned(), ends, netdev, hub_port });
        Ok(ports)
    }

    /// Records the frames of a back end (`filter-dump`).
    ///
    /// # Errors
    /// There is no such back end.
    pub fn record(&self, id: &str, tap: Arc<dyn super::Tap>) -> Result<(), String> {
        let mut state = lock(&self.state);
        let netdev = state.netdev(id).ok_or("Parameter 'netdev' expects a network backend id")?;
        for end in &netdev.ends {
            end.add_tap(Arc::clone(&tap));
        }
        Ok(())
    }

    /// How many queues a back end has.
    #[must_use]
    pub fn queues(&self, id: &str) -> usize {
        lock(&self.state).netdev(id).map_or(1, |netdev| netdev.wires.len())
    }

    /// Whether there is a back end of this name.
    #[must_use]
    pub fn exists(&self, id: &str) -> bool {
        lock(&self.state).netdev(id).is_some()
    }

    /// Takes an address for a card: this one, or the next of QEMU's.
    pub fn take_mac(&self, wanted: Option<[u8; 6]>) -> [u8; 6] {
        let mut state = lock(&self.state);
        let nth = |n: u32| {
            let [_, a, b, c] = (FIRST_MAC + n).to_be_bytes();
            [0x52, 0x54, 0x00, a, b, c]
        };
        let free = (0..).map(nth).find(|mac| !state.macs.contains(mac));
        let mac = wanted.or(free).unwrap_or(nth(0));
        state.macs.push(mac);
        mac
    }

    /// Pulls or puts back a cable: of a card, or of a back end for the card behind it.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn set_link(&self, name: &str, up: bool) -> Result<(), String> {
        let ends = {
            let state = lock(&self.state);
            let nic = state.nics.iter().find(|nic| nic.name == name).map(|nic| nic.ends.clone());
            let netdev = state.netdevs.iter().find(|netdev| netdev.spec.id == name).map(|netdev| netdev.ends.clone());
            nic.or(netdev).ok_or_else(|| format!("Device '{name}' not found"))?
        };
        for end in ends {
            end.set_down(!up);
        }
        Ok(())
    }

    /// What `info network` shows, in the order of creation.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientInfo> {
        let state = lock(&self.state);
        let mac = |nic: &Nic| {
            let mac = nic.ends.first().and_then(PortHandle::address).unwrap_or_default();
            mac.map(|byte| format!("{byte:02x}")).join(":")
        };
        let netdevs = state.netdevs.iter().filter(|netdev| !matches!(netdev.backend, Backend::Hub));
        let netdevs = netdevs.map(|netdev| ClientInfo {
            name: netdev.spec.id.clone(),
            text: netdev.text.clone(),
            hub: netdev.hub_port.clone(),
            peers: Vec::new(),
            is_nic: false,
        });
        let nics = state.nics.iter().map(|nic| {
            let peer = nic.netdev.as_ref().filter(|_| nic.hub_port.is_none());
            let peer = peer.and_then(|id| state.netdevs.iter().find(|netdev| netdev.spec.id == *id));
            ClientInfo {
                name: nic.name.clone(),
                text: format!("index=0,type=nic,model={},macaddr={}", nic.model, mac(nic)),
                hub: nic.hub_port.clone(),
                peers: peer.iter().map(|netdev| (netdev.spec.id.clone(), netdev.text.clone())).collect(),
                is_nic: true,
            }
        });
        netdevs.chain(nics).collect()
    }

    /// What QEMU warns of when the machine is complete, without "warning: ".
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let state = lock(&self.state);
        let mut out = Vec::new();
        for (number, hub) in &state.hubs {
            match (hub.wire.count(Role::Chip), hub.wire.count(Role::Backend)) {
                (0, 0) => {}
                (0, _) => out.push(format!("hub {number} with no nics")),
                (_, 0) => out.push(format!("hub {number} is not connected to host network")),
                _ => {}
            }
        }
        let alone = state.netdevs.iter().filter(|netdev| !netdev.taken && netdev.hub_port.is_none());
        out.extend(alone.map(|netdev| format!("netdev {} has no peer", netdev.spec.id)));
        let alone = state.nics.iter().filter(|nic| nic.netdev.is_none() && nic.hub_port.is_none());
        out.extend(alone.map(|nic| format!("nic {} has no peer", nic.name)));
        out
    }

    /// The filter of a card, or of all cards that tell theirs: name and filter.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn filters(&self, name: Option<&str>) -> Result<Vec<(String, [u8; 6], super::RxFilter)>, String> {
        let state = lock(&self.state);
        let of = |nic: &Nic| {
            let end = nic.ends.first()?;
            Some((nic.name.clone(), end.address().unwrap_or_default(), end.filter()?))
        };
        let Some(name) = name else { return Ok(state.nics.iter().filter_map(of).collect()) };
        match state.nics.iter().find(|nic| nic.name == name) {
            Some(nic) => {
                let filter = of(nic);
                filter.map(|f| vec![f]).ok_or_else(|| format!("net client({name}) doesn't support rx-filter querying"))
            }
            None if state.netdevs.iter().any(|netdev| netdev.spec.id == name) => {
                Err(format!("net client({name}) isn't a NIC"))
            }
            None => Err(format!("invalid net client name: {name}")),
        }
    }

    /// Calls `call` with a user network: the one named, or the only one.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn with_user<R>(&self, id: Option<&str>, call: impl FnOnce(&User) -> R) -> Result<R, String> {
        let mut state = lock(&self.state);
        let found = match id {
            Some(id) => Some(state.netdev(id).ok_or_else(|| format!("unrecognized netdev id '{id}'"))?),
            None => state.netdevs.iter_mut().find(|netdev| matches!(netdev.backend, Backend::User(_))),
        };
        match found.map(|netdev| &netdev.backend) {
            Some(Backend::User(user)) => Ok(call(user)),
            Some(Backend::Hub | Backend::Pumps { .. }) => Err("invalid slirp stack".to_owned()),
            None => Err("user mode network stack not in use".to_owned()),
        }
    }

    /// The user networks, for `info usernet`: hub, name and connections.
    #[must_use]
    pub fn users(&self) -> Vec<(Option<u32>, String, Vec<user::Connection>)> {
        let state = lock(&self.state);
        let users = state.netdevs.iter().filter_map(|netdev| match &netdev.backend {
            Backend::User(user) => {
                let hub = netdev.hub_port.as_ref().map(|(hub, _)| *hub);
                Some((hub, netdev.spec.id.clone(), user.connections()))
            }
            Backend::Hub | Backend::Pumps { .. } => None,
        });
        users.collect()
    }
}

/// A back end, its text, its ends and their wires.
type Started = (Backend, String, Vec<PortHandle>, Vec<Arc<Wire>>);

fn start(spec: &Spec, wire: &Arc<Wire>) -> Result<Started, String> {
    if spec.kind == "user" {
        let config = user::Config::parse(&spec.options)?;
        let network = config.v4.map_or_else(|| user::V4::default().network, |v4| v4.network);
        let restrict = if config.restrict { "on" } else { "off" };
        let text = format!("index=0,type=user,net={network},restrict={restrict}");
        let port = wire.plug(Role::Backend);
        let end = port.handle();
        return Ok((Backend::User(User::start(config, port)?), text, vec![end], vec![Arc::clone(wire)]));
    }
    let (media, text) = media(spec)?;
    let text = format!("index=0,type={},{text}", spec.kind);
    let (mut pumps, mut ends, mut wires) = (Vec::new(), Vec::new(), Vec::new());
    for (queue, medium) in media.into_iter().enumerate() {
        let wire = if queue == 0 { Arc::clone(wire) } else { Wire::new() };
        let port = wire.plug(Role::Backend);
        ends.push(port.handle());
        let pump = Pump::start(port, medium).map_err(|error| crate::host::reason(&error))?;
        pumps.push(pump);
        wires.push(wire);
    }
    Ok((Backend::Pumps { _pumps: pumps }, text, ends, wires))
}

/// The host's sides of a back end, one a queue, and what monitors show of it.
fn media(spec: &Spec) -> Result<(Vec<Box<dyn Medium>>, String), String> {
    let one = |medium: Box<dyn Medium>, text: String| Ok((vec![medium], text));
    match spec.kind.as_str() {
        "tap" | "bridge" => {
            let (taps, text) = tap::open(spec)?;
            Ok((taps.into_iter().map(|tap| Box::new(tap) as Box<dyn Medium>).collect(), text))
        }
        "dgram" => {
            let (medium, text) = Datagram::of_spec(spec)?;
            one(Box::new(medium), text)
        }
        "stream" => one(Box::new(Stream::of_spec(spec)?), String::new()),
        "socket" => {
            let kinds = ["listen", "connect", "mcast", "udp", "fd"];
            let given: Vec<_> = kinds.into_iter().filter_map(|key| Some((key, spec.get(key)?))).collect();
            let [(key, value)] = given[..] else {
                return Err("exactly one of listen=, connect=, mcast= or udp= is required".to_owned());
            };
            let local = spec.get("localaddr");
            if local.is_some() && !matches!(key, "mcast" | "udp") {
                return Err("localaddr= is only valid with mcast= or udp=".to_owned());
            }
            match key {
                "listen" => one(Box::new(Stream::listen(datagram::address(value)?)?), String::new()),
                "connect" => one(Box::new(Stream::connect(datagram::address(value)?)?), String::new()),
                "mcast" => one(Box::new(Datagram::multicast(value, local)?), format!("socket: mcast={value}")),
                "udp" => {
                    let local = local.ok_or("localaddr= is mandatory with udp=")?;
                    let medium = Datagram::between(datagram::address(local)?, datagram::address(value)?)?;
                    one(Box::new(medium), format!("socket: udp={value}"))
                }
                _ => Err("socket option 'fd' is not supported by this version".to_owned()),
            }
        }
        other => Err(format!("network back end '{other}' is not supported by this version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hubport(id: &str) -> Spec {
        let options = vec![("hubid".to_owned(), "3".to_owned())];
        Spec { kind: "hubport".to_owned(), id: id.to_owned(), options, hub: None }
    }

    #[test]
    fn addresses_count_up_and_skip_what_is_taken() {
        let networks = Networks::new();
        assert_eq!(networks.take_mac(None), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        networks.take_mac(Some([0x52, 0x54, 0, 0x12, 0x34, 0x57]));
        assert_eq!(networks.take_mac(None), [0x52, 0x54, 0, 0x12, 0x34, 0x58]);
    }

    #[test]
    fn a_back_end_serves_one_card() {
        let networks = Networks::new();
        networks.open(&hubport("h")).unwrap();
        let peer = Peer::Netdev("h".to_owned());
        let first = networks.plug("", "e1000", &peer, 1).unwrap();
        assert_eq!(networks.plug("", "e1000", &peer, 1).unwrap_err(), PeerError::InUse);
        assert_eq!(networks.plug("", "e1000", &Peer::Netdev("x".to_owned()), 1).unwrap_err(), PeerError::Missing);
        assert_eq!(networks.complaints(), ["hub 3 is not connected to host network"]);
        let clients = networks.clients();
        assert_eq!(clients[0].name, "e1000.0");
        assert_eq!(clients[0].hub, Some((3, "h".to_owned())));
        drop(first);
        assert_eq!(networks.open(&hubport("h")).unwrap_err(), "Duplicate ID 'h' for netdev");
        assert_eq!(networks.set_link("nobody", true).unwrap_err(), "Device 'nobody' not found");
    }
}
