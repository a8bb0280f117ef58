//! Network cards: those of `-nic`, `-net nic` and `-device`, and the default one.

use std::sync::{Arc, Weak};

use crate::bus::{BoardCell, DeviceId, PciAddress, Token};
use crate::hw::net::e1000::{self, E1000};
use crate::hw::registry;
use crate::mem::RamBlock;
use crate::net::{Caller, Link, Networks, Notify, Peer, PeerError, Port, Spec};

use super::build::BuildError;
use super::config::{Config, NetPeer, NetdevSpec, NicSpec};
use super::devices::{Site, boot_index};
use super::pc::Wiring;
use super::props::Props;

/// The card of a `pc` for which no model was named.
const DEFAULT_MODEL: &str = "e1000";

impl Wiring {
    /// What a network link calls when something happened to it. A chip that calls holds the board already: the main
    /// loop delivers the event then.
    #[must_use]
    pub fn link_notifier(&self, device: DeviceId, token: Token) -> Notify {
        let board: Weak<BoardCell> = Arc::downgrade(&self.cell);
        let handle = self.handle.clone();
        Arc::new(move |caller| {
            let board = board.clone();
            let deliver = move || {
                if let Some(board) = board.upgrade() {
                    board.lock().event(device, token);
                }
            };
            match caller {
                Caller::Thread => deliver(),
                Caller::Chip => handle.post(deliver),
            }
        })
    }
}

/// Opens the back ends of a command line.
///
/// # Errors
/// QEMU's text, with the option.
pub fn open_networks(config: &Config, networks: &Networks) -> Result<(), BuildError> {
    for netdev in &config.netdevs {
        networks.open(&spec(netdev)).map_err(|text| BuildError::option(&netdev.origin, text))?;
    }
    Ok(())
}

/// A back end as `net` wants it.
#[must_use]
pub fn spec(netdev: &NetdevSpec) -> Spec {
    Spec { kind: netdev.kind.clone(), id: netdev.id.clone(), options: netdev.options.clone(), hub: netdev.hub }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2))
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// What all cards are built from.
pub struct Card {
    /// The queues, one or more.
    pub ports: Vec<Port>,
    /// The station address.
    pub mac: [u8; 6],
    /// Where it sits.
    pub address: PciAddress,
    /// Its expansion ROM.
    pub rom: Option<Arc<RamBlock>>,
    /// Properties for `info qtree`.
    pub properties: Vec<(&'static str, String)>,
}

impl Card {
    /// The first queue, as a chip holds it, once the device knows its name.
    pub fn link(&mut self, wiring: &Wiring, device: DeviceId, token: Token) -> Box<dyn Link> {
        let port = self.ports.remove(0);
        port.set_notify(wiring.link_notifier(device, token));
        Box::new(port)
    }
}

impl Site<'_> {
    /// The cards of `-nic` and `-net nic`.
    pub(super) fn nics(&mut self) -> Result<(), BuildError> {
        for nic in &self.config.nics {
            // Every card gets its address before the next one, created or not.
            let mac = self.networks.take_mac(nic.mac);
            let model = nic.model.as_deref().unwrap_or(DEFAULT_MODEL);
            let Some(class) = registry::class(model).filter(|class| class.category == registry::Category::Network)
            else {
                self.placed.lost_nics.push(format!(
                    "requested NIC ({}, model {model}) was not created (not supported by this machine?)",
                    if nic.id.is_empty() { "anonymous" } else { &nic.id }
                ));
                continue;
            };
            let mut props = Props::of_globals(class.name, &self.config.globals);
            if let Some(addr) = &nic.addr {
                props.put("addr", addr);
            }
            self.network_card(class.name, props, &nic.id.clone(), Some((nic, mac)))?;
        }
        Ok(())
    }

    /// Any card.
    pub(super) fn network_card(
        &mut self,
        model: &str,
        props: Props<'_>,
        id: &str,
        nic: Option<(&NicSpec, [u8; 6])>,
    ) -> Result<(), BuildError> {
        match model {
            "e1000" => self.e1000(props, id, nic),
            other => Err(props.error(format!("'{other}' is not supported by this version"))),
        }
    }

    /// Takes the properties that all cards have.
    fn card(
        &mut self,
        model: &'static str,
        rom: &str,
        props: &mut Props<'_>,
        id: &str,
        nic: Option<(&NicSpec, [u8; 6])>,
    ) -> Result<Card, BuildError> {
        let wanted = match props.text("mac") {
            None => None,
            Some(text) => Some(
                parse_mac(text)
                    .ok_or_else(|| props.error(format!("Property '{model}.mac' doesn't take value '{text}'")))?,
            ),
        };
        let netdev = props.text("netdev").map(str::to_owned);
        let peer = match (nic, &netdev) {
            (Some((NicSpec { peer: NetPeer::Hub(hub), .. }, _)), _) => Peer::Hub(*hub),
            (Some((NicSpec { peer: NetPeer::Netdev(id), .. }, _)), _) => Peer::Netdev(id.clone()),
            (None, Some(id)) => Peer::Netdev(id.clone()),
            (None, None) => Peer::None,
        };
        let ports = self.networks.plug(id, model, &peer, 1).map_err(|error| {
            let name = netdev.as_deref().unwrap_or_default();
            props.error(match error {
                PeerError::Missing => format!("Property '{model}.netdev' can't find value '{name}'"),
                PeerError::InUse => format!("Property '{model}.netdev' can't take value '{name}', it's in use"),
            })
        })?;
        let mac = match nic {
            Some((_, mac)) => mac,
            None => self.networks.take_mac(wanted),
        };
        let address = self.slot(props)?;
        if let Some(index) = boot_index(props)? {
            let function = match address.function {
                0 => String::new(),
                function => format!(",{function}"),
            };
            let path = format!("/pci@i0cf8/ethernet@{:x}{function}/ethernet-phy@0", address.device);
            self.placed.boot.push((index, path));
        }
        let name = props.text("romfile").unwrap_or(rom);
        let shown = props.number("rombar", 1, 0, u64::from(u32::MAX))? != 0;
        let rom = if shown { self.option_rom(name)? } else { None };
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        let properties = vec![
            ("mac", format!("\"{text}\"")),
            ("netdev", format!("\"{}\"", if let Peer::Netdev(id) = &peer { id } else { "" })),
        ];
        Ok(Card { ports, mac, address, rom, properties })
    }

    fn e1000(&mut self, mut props: Props<'_>, id: &str, nic: Option<(&NicSpec, [u8; 6])>) -> Result<(), BuildError> {
        let mut card = self.card("e1000", "efi-e1000.rom", &mut props, id, nic)?;
        props.finish()?;
        let wiring = self.wiring;
        let mut board = self.board();
        let device = board.reserve("e1000");
        let wires = e1000::Wires {
            irq: wiring.irqs.router().line(card.address.device, 0),
            ram: wiring.ram.clone(),
            link: card.link(wiring, device, e1000::LINK_TOKEN),
            throttle: wiring.timer(device, e1000::THROTTLE_TOKEN),
            work: wiring.timer(device, e1000::WORK_TOKEN),
        };
        E1000::add(&mut board, device, card.address, wires, card.mac, card.rom);
        drop(board);
        self.remember("e1000", id, "PCI", card.properties);
        Ok(())
    }
}
