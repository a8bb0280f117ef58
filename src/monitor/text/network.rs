//! `info network` and `info usernet`.

use std::fmt::Write as _;

use crate::net::ClientInfo;
use crate::net::user::{Connection, ConnectionState};

/// `info network`.
#[must_use]
pub fn network(clients: &[ClientInfo]) -> String {
    let mut out = String::new();
    let mut hubs: Vec<u32> = clients.iter().filter_map(|client| Some(client.hub.as_ref()?.0)).collect();
    hubs.sort_unstable();
    hubs.dedup();
    for hub in hubs {
        let _ = writeln!(out, "hub {hub}");
        let ports = clients.iter().filter_map(|client| Some((client.hub.as_ref()?, client)));
        let mut ports: Vec<_> = ports.filter(|((number, _), _)| *number == hub).collect();
        ports.sort_by(|a, b| b.0.1.cmp(&a.0.1));
        for ((_, port), client) in ports {
            let _ = writeln!(out, " \\ {port}: {}: {}", client.name, client.text);
        }
    }
    // A back end that a card uses is shown below the card.
    let below: Vec<&str> =
        clients.iter().flat_map(|client| client.peers.iter().map(|(name, _)| name.as_str())).collect();
    for client in clients.iter().filter(|client| client.hub.is_none() && !below.contains(&client.name.as_str())) {
        let _ = writeln!(out, "{}: {}", client.name, client.text);
        for (name, text) in &client.peers {
            let _ = writeln!(out, " \\ {name}: {text}");
        }
    }
    out
}

/// `info usernet`: hub, name and connections of each network.
#[must_use]
pub fn usernet(users: &[(Option<u32>, String, Vec<Connection>)]) -> String {
    let mut out = String::new();
    for (hub, name, connections) in users {
        let hub = hub.map_or(-1, i64::from);
        let _ = writeln!(out, "Hub {hub} ({name}):");
        out.push_str("  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n");
        for connection in connections {
            let protocol = connection.transport.name().to_uppercase();
            let state = match connection.state {
                ConnectionState::Forward => format!("{protocol}[HOST_FORWARD]"),
                ConnectionState::Tcp(state) => format!("{protocol}[{state}]"),
                ConnectionState::Idle(seconds) => format!("{protocol}[{seconds} sec]"),
            };
            let source = match connection.source.ip() {
                ip if ip.is_unspecified() => "*".to_owned(),
                ip => ip.to_string(),
            };
            let _ = writeln!(
                out,
                "  {state:<16} {:>3} {source:>15} {:>5} {:>15} {:>5} {:>5} {:>5}",
                connection.fd,
                connection.source.port(),
                connection.destination.ip(),
                connection.destination.port(),
                connection.queues.0,
                connection.queues.1
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::user::Transport;

    #[test]
    fn hubs_come_first_and_peers_below_their_card() {
        let client = |name: &str, text: &str, hub: Option<&str>, peers: &[(&str, &str)], is_nic| ClientInfo {
            name: name.to_owned(),
            text: text.to_owned(),
            hub: hub.map(|port| (0, port.to_owned())),
            peers: peers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            is_nic,
        };
        let clients = [
            client("#net1", "type=user", Some("hub0port1"), &[], false),
            client("n0", "type=user", None, &[], false),
            client("e1000.0", "type=nic", Some("hub0port0"), &[], true),
            client("e1000.1", "type=nic", None, &[("n0", "type=user")], true),
        ];
        let text = "hub 0\n \\ hub0port1: #net1: type=user\n \\ hub0port0: e1000.0: type=nic\n\
                    e1000.1: type=nic\n \\ n0: type=user\n";
        assert_eq!(network(&clients), text);
    }

    #[test]
    fn connections_are_qemus_table() {
        let connection = |transport, source: &str, destination: &str| Connection {
            transport,
            state: ConnectionState::Forward,
            fd: 8,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            queues: (0, 0),
        };
        let list = vec![
            connection(Transport::Tcp, "0.0.0.0:2299", "10.0.2.15:22"),
            connection(Transport::Udp, "127.0.0.1:99", "10.0.2.15:98"),
        ];
        let text = "Hub -1 (n0):\n  \
                    Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
                    TCP[HOST_FORWARD]   8               *  2299       10.0.2.15    22     0     0\n  \
                    UDP[HOST_FORWARD]   8       127.0.0.1    99       10.0.2.15    98     0     0\n";
        assert_eq!(usernet(&[(None, "n0".to_owned(), list)]), text);
    }
}
