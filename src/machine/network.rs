//! Network cards: those of `-nic`, `-net nic` and `-device`, and the default one.

use std::sync::{Arc, Weak};

use crate::bus::{BoardCell, DeviceId, PciAddress, Token};
use crate::host::reason;
use crate::hw::net::e1000::{self, E1000};
use crate::hw::net::ne2000::{self, Ne2000};
use crate::hw::net::rtl8139::{self, Rtl8139};
use crate::hw::registry;
use crate::hw::virtio::classes::{self, Variant};
use crate::hw::virtio::net::{self, Net, bit};
use crate::mem::RamBlock;
use crate::net::{Caller, Dump, Link, Networks, Notify, Peer, PeerError, Port, Spec};

use super::build::BuildError;
use super::config::{Config, NetPeer, NetdevSpec, NicSpec};
use super::devices::{Site, boot_index};
use super::pc::Wiring;
use super::props::Props;
use super::rom::RomError;

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
    for dump in &config.dumps {
        let fault = |text: String| BuildError::option(&dump.origin, text);
        let opened = Dump::create(&dump.file, dump.max_len, dump.directions);
        let shown = dump.file.display();
        let tap = opened.map_err(|error| fault(format!("net dump: can't open {shown}: {}", reason(&error))))?;
        networks.record(&dump.netdev, Arc::new(tap)).map_err(fault)?;
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
            let model = if model == "virtio" { "virtio-net-pci" } else { model };
            let class = registry::classes().into_iter().find(|class| {
                (class.name == model || class.alias == Some(model)) && class.category == registry::Category::Network
            });
            let Some(class) = class else {
                self.placed.warnings.push(format!(
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
        if let Some((family, variant)) = classes::find(model)
            && family.device == net::TYPE
        {
            return self.virtio_net(model, variant, props, id, nic);
        }
        match model {
            "e1000" => self.e1000(props, id, nic),
            "ne2k_pci" => self.ne2k_pci(props, id, nic),
            "rtl8139" => self.rtl8139(props, id, nic),
            "ne2k_isa" => self.ne2k_isa(props, id, nic),
            other => Err(props.error(format!("'{other}' is not supported by this version"))),
        }
    }

    /// Takes the properties that all cards have. A card that has its slot already may have several queues.
    fn card(
        &mut self,
        (model, rom): (&str, &str),
        props: &mut Props<'_>,
        id: &str,
        nic: Option<(&NicSpec, [u8; 6])>,
        address: Option<PciAddress>,
    ) -> Result<Card, BuildError> {
        let wanted = match props.text("mac") {
            None => None,
            Some(text) => Some(
                parse_mac(text)
                    .ok_or_else(|| props.error(format!("Property '{model}.mac' doesn't take value '{text}'")))?,
            ),
        };
        let multiqueue = address.is_some();
        let netdev = props.text("netdev").map(str::to_owned);
        let peer = match (nic, &netdev) {
            (Some((NicSpec { peer: NetPeer::Hub(hub), .. }, _)), _) => Peer::Hub(*hub),
            (Some((NicSpec { peer: NetPeer::Netdev(id), .. }, _)), _) => Peer::Netdev(id.clone()),
            (None, Some(id)) => Peer::Netdev(id.clone()),
            (None, None) => Peer::None,
        };
        let queues = match &peer {
            Peer::Netdev(id) if multiqueue => self.networks.queues(id),
            _ => 1,
        };
        let ports = self.networks.plug(id, model, &peer, queues).map_err(|error| {
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
        let address = match address {
            Some(address) => address,
            None => self.slot(props)?,
        };
        if let Some(index) = boot_index(props)? {
            let function = match address.function {
                0 => String::new(),
                function => format!(",{function}"),
            };
            let path = format!("/pci@i0cf8/ethernet@{:x}{function}/ethernet-phy@0", address.device);
            self.placed.boot.push((index, path));
        }
        let named = props.text("romfile");
        let shown = props.number("rombar", 1, 0, u64::from(u32::MAX))? != 0;
        let rom = match self.option_rom(if shown { named.unwrap_or(rom) } else { "" }) {
            // Nobody asked for it, and only those who boot from the network miss it.
            Err(BuildError::Rom(error @ RomError::Missing { .. })) if named.is_none() => {
                self.placed.warnings.push(error.to_string());
                None
            }
            found => found?,
        };
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        let properties = vec![
            ("mac", format!("\"{text}\"")),
            ("netdev", format!("\"{}\"", if let Peer::Netdev(id) = &peer { id } else { "" })),
        ];
        Ok(Card { ports, mac, address, rom, properties })
    }

    fn e1000(&mut self, mut props: Props<'_>, id: &str, nic: Option<(&NicSpec, [u8; 6])>) -> Result<(), BuildError> {
        let mut card = self.card(("e1000", "efi-e1000.rom"), &mut props, id, nic, None)?;
        props.finish()?;
        let wiring = self.wiring;
        let mut board = self.board();
        let device = board.reserve("e1000");
        let wires = e1000::Wires {
            irq: wiring.pci_line(&board, card.address, 0),
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

    fn ne2k_pci(&mut self, mut props: Props<'_>, id: &str, nic: Option<(&NicSpec, [u8; 6])>) -> Result<(), BuildError> {
        let mut card = self.card(("ne2k_pci", "efi-ne2k_pci.rom"), &mut props, id, nic, None)?;
        props.finish()?;
        let wiring = self.wiring;
        let mut board = self.board();
        let device = board.reserve("ne2k_pci");
        let irq = wiring.pci_line(&board, card.address, 0);
        let link = card.link(wiring, device, ne2000::LINK_TOKEN);
        Ne2000::add_pci(&mut board, device, card.address, irq, link, card.mac, card.rom);
        drop(board);
        self.remember("ne2k_pci", id, "PCI", card.properties);
        Ok(())
    }

    fn rtl8139(&mut self, mut props: Props<'_>, id: &str, nic: Option<(&NicSpec, [u8; 6])>) -> Result<(), BuildError> {
        let mut card = self.card(("rtl8139", "efi-rtl8139.rom"), &mut props, id, nic, None)?;
        props.finish()?;
        let wiring = self.wiring;
        let mut board = self.board();
        let device = board.reserve("rtl8139");
        let irq = wiring.pci_line(&board, card.address, 0);
        let link = card.link(wiring, device, rtl8139::LINK_TOKEN);
        Rtl8139::add(&mut board, device, card.address, (irq, wiring.ram.clone(), link), card.mac, card.rom);
        drop(board);
        self.remember("rtl8139", id, "PCI", card.properties);
        Ok(())
    }

    fn ne2k_isa(&mut self, mut props: Props<'_>, id: &str, nic: Option<(&NicSpec, [u8; 6])>) -> Result<(), BuildError> {
        // QEMU's bases and interrupts of the first cards; -device takes the first unless it says otherwise.
        const PLACES: [(u16, u8); 6] = [(0x300, 9), (0x320, 10), (0x340, 11), (0x360, 3), (0x280, 4), (0x380, 5)];
        let used = self.placed.devices.iter().filter(|device| device.driver == "ne2k_isa").count();
        let (base, irq) = if nic.is_some() { PLACES[used.min(PLACES.len() - 1)] } else { PLACES[0] };
        let base = props.u16("iobase", base)?;
        let irq = u8::try_from(props.number("irq", irq.into(), 0, 15)?).unwrap_or(9);
        let mut card = self.card(("ne2k_isa", ""), &mut props, id, nic, Some(PciAddress::new(0, 0)))?;
        props.finish()?;
        let wiring = self.wiring;
        let mut board = self.board();
        let device = board.reserve("ne2k_isa");
        let link = card.link(wiring, device, ne2000::LINK_TOKEN);
        board.install(device, Ne2000::isa(wiring.irqs.isa(irq), link, card.mac));
        board.map_ports(device, ne2000::PORTS, ne2000::DECODE, base, ne2000::ISA_PORTS);
        drop(board);
        self.remember("ne2k_isa", id, "ISA", card.properties);
        Ok(())
    }

    /// `virtio-net-pci` and its variants.
    pub(super) fn virtio_net(
        &mut self,
        class: &str,
        variant: Variant,
        mut props: Props<'_>,
        id: &str,
        nic: Option<(&NicSpec, [u8; 6])>,
    ) -> Result<(), BuildError> {
        let options = virtio_net_options(&mut props)?;
        let several = props.flag("mq", false)?;
        let mut place = self.virtio_place(class, variant, &mut props)?;
        let mut card = self.card((class, "efi-virtio.rom"), &mut props, id, nic, Some(place.address))?;
        props.finish()?;
        if !several {
            card.ports.truncate(1);
        }
        place.rom = card.rom.take();
        let mut links: Vec<Box<dyn Link>> = Vec::new();
        for queue in 0..card.ports.len() as u64 {
            links.push(card.link(self.wiring, place.device, Token(queue)));
        }
        let vectors = u16::try_from(2 * links.len() + 2).unwrap_or(u16::MAX);
        let device = Net::new(links, card.mac, options);
        self.virtio_install(place, id, Box::new(device), if several { vectors } else { 3 });
        Ok(())
    }
}

/// The device's own properties.
fn virtio_net_options(props: &mut Props<'_>) -> Result<net::Options, BuildError> {
    let mut features = net::DEFAULT_FEATURES;
    for (name, bits) in [
        ("csum", bit::CSUM),
        ("ctrl_guest_offloads", bit::CTRL_GUEST_OFFLOADS),
        ("ctrl_mac_addr", bit::CTRL_MAC_ADDR),
        ("ctrl_rx", bit::CTRL_RX),
        ("ctrl_rx_extra", bit::CTRL_RX_EXTRA),
        ("ctrl_vlan", bit::CTRL_VLAN),
        ("ctrl_vq", bit::CTRL_VQ),
        ("gso", 0),
        ("guest_announce", bit::GUEST_ANNOUNCE),
        ("guest_csum", bit::GUEST_CSUM),
        ("guest_ecn", bit::GUEST_ECN),
        ("guest_tso4", bit::GUEST_TSO4),
        ("guest_tso6", bit::GUEST_TSO6),
        ("guest_ufo", bit::GUEST_UFO),
        ("host_ecn", bit::HOST_ECN),
        ("host_tso4", bit::HOST_TSO4),
        ("host_tso6", bit::HOST_TSO6),
        ("host_ufo", bit::HOST_UFO),
        ("mrg_rxbuf", bit::MRG_RXBUF),
        ("status", bit::STATUS),
    ] {
        if !props.flag(name, true)? {
            features &= !bits;
        }
    }
    let mut size = |name: &str| -> Result<u16, BuildError> {
        let size = props.u16(name, 256)?;
        if !(256..=1024).contains(&size) || !size.is_power_of_two() {
            let text = format!("Invalid {name} (= {size}), must be a power of 2 between 256 and 1024.");
            return Err(props.error(text));
        }
        Ok(size)
    };
    let (rx_size, tx_size) = (size("rx_queue_size")?, size("tx_queue_size")?);
    let duplex = match props.text("duplex") {
        None => None,
        Some("half") => Some(false),
        Some("full") => Some(true),
        Some(_) => return Err(props.error("'duplex' must be 'half' or 'full'")),
    };
    let speed = match props.text("speed") {
        None | Some("-1") => None,
        Some(text) => match text.parse::<u32>().ok().filter(|speed| *speed <= i32::MAX.unsigned_abs()) {
            Some(speed) => Some(speed),
            None => return Err(props.error("'speed' must be between 0 and INT_MAX")),
        },
    };
    let mtu = props.u16("host_mtu", 0)?;
    Ok(net::Options { features, rx_size, tx_size, mtu, speed, duplex })
}
