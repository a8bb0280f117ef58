//! What `-device help` and `-device X,help` show of this family, and which of its properties mean what.

use crate::hw::props::{Kind, Property};
use crate::hw::registry::{Category, Class, ClassHelp, PropertyHelp};

use super::DeviceType;
use super::{blk, net, rng, scsi, serial};

/// Which interfaces a class's name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// "-pci": both, unless `disable-legacy` or `disable-modern` say otherwise.
    Generic,
    /// "-pci-transitional": both.
    Transitional,
    /// "-pci-non-transitional": the modern one.
    NonTransitional,
}

impl Variant {
    const ALL: [Self; 3] = [Self::Generic, Self::NonTransitional, Self::Transitional];

    fn suffix(self) -> &'static str {
        match self {
            Self::Generic => "-pci",
            Self::Transitional => "-pci-transitional",
            Self::NonTransitional => "-pci-non-transitional",
        }
    }
}

/// A kind of virtio device on the command line; each makes three classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// What the device is.
    pub device: DeviceType,
    /// Heading of `-device help`.
    pub category: Category,
    /// Default of `vectors`; `None`: as many as the device has queues, and some.
    pub vectors: Option<&'static str>,
    /// The device's own properties.
    pub properties: &'static [Property],
}

const fn switch(name: &'static str, default: &'static str) -> Property {
    Property::new(name, Kind::Bool, Some(default))
}

/// "Not given": the machine chooses.
const UNSET: &str = "4294967295";

/// Properties of the function and the transport, with QEMU's defaults. Some are there to be refused by name: what they
/// ask for does not exist here, and their default does.
pub const TRANSPORT: &[Property] = &[
    Property::new("addr", Kind::Str, Some("-1")).described("Slot and optional function number, example: 06.0 or 06"),
    switch("any_layout", "on"),
    switch("ats", "off"),
    Property::new("disable-legacy", Kind::OnOffAuto, Some("auto")).described("on/off/auto"),
    switch("disable-modern", "off"),
    switch("event_idx", "on"),
    switch("in_order", "off"),
    switch("indirect_desc", "on"),
    switch("iommu_platform", "off"),
    switch("modern-pio-notify", "off"),
    switch("notify_on_empty", "on"),
    switch("packed", "off"),
    switch("page-per-vq", "off"),
    switch("queue_reset", "on"),
];

/// The network device.
const NET: &[Property] = &[
    Property::new("bootindex", Kind::Int32, None),
    switch("csum", "on"),
    switch("ctrl_guest_offloads", "on"),
    switch("ctrl_mac_addr", "on"),
    switch("ctrl_rx", "on"),
    switch("ctrl_rx_extra", "on"),
    switch("ctrl_vlan", "on"),
    switch("ctrl_vq", "on"),
    Property::new("duplex", Kind::Str, None),
    switch("gso", "on"),
    switch("guest_announce", "on"),
    switch("guest_csum", "on"),
    switch("guest_ecn", "on"),
    switch("guest_tso4", "on"),
    switch("guest_tso6", "on"),
    switch("guest_ufo", "on"),
    switch("host_ecn", "on"),
    Property::new("host_mtu", Kind::Uint16, Some("0")),
    switch("host_tso4", "on"),
    switch("host_tso6", "on"),
    switch("host_ufo", "on"),
    Property::new("mac", Kind::Str, None).described("Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),
    switch("mq", "off"),
    switch("mrg_rxbuf", "on"),
    Property::new("netdev", Kind::Str, None).described("ID of a netdev to use as a backend"),
    Property::new("romfile", Kind::Str, None),
    Property::new("rx_queue_size", Kind::Uint16, Some("256")),
    Property::new("speed", Kind::Int32, Some("-1")),
    switch("status", "on"),
    Property::new("tx_queue_size", Kind::Uint16, Some("256")),
];

/// The kinds.
pub const FAMILIES: &[Family] = &[
    Family { device: net::TYPE, category: Category::Network, vectors: Some(UNSET), properties: NET },
    Family { device: blk::TYPE, category: Category::Storage, vectors: Some(UNSET), properties: BLK },
    Family {
        device: rng::TYPE,
        category: Category::Misc,
        vectors: Some(UNSET),
        properties: &[
            Property::new("max-bytes", Kind::Uint64, Some("9223372036854775807")),
            Property::new("period", Kind::Uint32, Some("65536")),
            Property::new("rng", Kind::Link("rng-backend"), None),
        ],
    },
    Family {
        device: serial::TYPE,
        category: Category::Input,
        vectors: Some("2"),
        properties: &[
            Property::new("class", Kind::Uint32, Some("0")),
            switch("emergency-write", "on"),
            Property::new("max_ports", Kind::Uint32, Some("31")),
        ],
    },
    Family {
        device: scsi::TYPE,
        category: Category::Storage,
        vectors: Some(UNSET),
        properties: &[
            Property::new("cmd_per_lun", Kind::Uint32, Some("128")),
            switch("hotplug", "on"),
            Property::new("iothread", Kind::Link("iothread"), None),
            Property::new("max_sectors", Kind::Uint32, Some("65535")),
            Property::new("num_queues", Kind::Uint32, Some(UNSET)),
            switch("param_change", "on"),
            switch("seg_max_adjust", "on"),
            Property::new("virtqueue_size", Kind::Uint32, Some("256")),
        ],
    },
];

const ON_ERROR: Kind = Kind::Word("BlockdevOnError", &["report", "ignore", "enospc", "stop", "auto"]);
const ON_ERROR_TEXT: &str = "Error handling policy (report/ignore/enospc/stop/auto)";
const BLOCK_SIZE_TEXT: &str = "A power of two between 512 B and 2 MiB";

const BLK: &[Property] = &[
    BOOTINDEX,
    Property::new("class", Kind::Uint32, Some("0")),
    switch("config-wce", "on"),
    Property::new("cyls", Kind::Uint32, Some("0")),
    switch("discard", "on"),
    GRANULARITY,
    DRIVE,
    Property::new("heads", Kind::Uint32, Some("0")),
    Property::new("iothread", Kind::Link("iothread"), None),
    LOGICAL,
    Property::new("max-discard-sectors", Kind::Uint32, Some("4194303")),
    Property::new("max-write-zeroes-sectors", Kind::Uint32, Some("4194303")),
    MIN_IO,
    Property::new("num-queues", Kind::Uint16, Some("65535")),
    OPT_IO,
    PHYSICAL,
    Property::new("queue-size", Kind::Uint16, Some("256")),
    switch("report-discard-granularity", "on"),
    RERROR,
    Property::new("secs", Kind::Uint32, Some("0")),
    switch("seg-max-adjust", "on"),
    SERIAL,
    WERROR,
    WRITE_CACHE,
    switch("write-zeroes", "on"),
];

const fn on_scsi_bus(name: &'static str, description: &'static str, properties: &'static [Property]) -> Class {
    Class {
        name,
        alias: None,
        bus: Some("SCSI"),
        category: Category::Storage,
        description: Some(description),
        user_creatable: true,
        properties,
    }
}

/// What sits on SCSI buses.
pub const SCSI_CLASSES: &[Class] = &[
    on_scsi_bus(
        "scsi-cd",
        "virtual SCSI CD-ROM",
        &[
            BOOTINDEX,
            CHANNEL,
            DEVICE_ID,
            GRANULARITY,
            DRIVE,
            LOGICAL,
            LUN,
            MAX_UNMAP,
            MIN_IO,
            OPT_IO,
            PHYSICAL,
            PRODUCT,
            RERROR,
            SCSI_ID,
            SERIAL,
            VENDOR,
            VER,
            WERROR,
            WRITE_CACHE,
            WWN,
        ],
    ),
    on_scsi_bus(
        "scsi-hd",
        "virtual SCSI disk",
        &[
            BOOTINDEX,
            CHANNEL,
            DEVICE_ID,
            GRANULARITY,
            DPOFUA,
            DRIVE,
            LOGICAL,
            LUN,
            MAX_UNMAP,
            MIN_IO,
            OPT_IO,
            PHYSICAL,
            PRODUCT,
            REMOVABLE,
            RERROR,
            ROTATION,
            SCSI_ID,
            SERIAL,
            VENDOR,
            VER,
            WERROR,
            WRITE_CACHE,
            WWN,
        ],
    ),
];

const PORT: &[Property] = &[
    Property::new("chardev", Kind::Chardev, None).described("ID of a chardev to use as a backend"),
    Property::new("name", Kind::Str, None),
    Property::new("nr", Kind::Uint32, Some(UNSET)),
];

const fn on_port_bus(name: &'static str) -> Class {
    Class {
        name,
        alias: None,
        bus: Some("virtio-serial-bus"),
        category: Category::Input,
        description: None,
        user_creatable: true,
        properties: PORT,
    }
}

/// Ports of virtio-serial devices.
pub const PORT_CLASSES: &[Class] = &[on_port_bus("virtconsole"), on_port_bus("virtserialport")];

const BOOTINDEX: Property = Property::new("bootindex", Kind::Int32, None);
const CHANNEL: Property = Property::new("channel", Kind::Uint32, Some("0"));
const DEVICE_ID: Property = Property::new("device_id", Kind::Str, None);
const DPOFUA: Property = switch("dpofua", "off");
const DRIVE: Property =
    Property::new("drive", Kind::Drive, None).described("Node name or ID of a block device to use as a backend");
const GRANULARITY: Property = Property::new("discard_granularity", Kind::Size, Some(UNSET));
const LOGICAL: Property = Property::new("logical_block_size", Kind::Size, Some("0")).described(BLOCK_SIZE_TEXT);
const LUN: Property = Property::new("lun", Kind::Uint32, Some(UNSET));
const MAX_UNMAP: Property = Property::new("max_unmap_size", Kind::Uint64, Some("1073741824"));
const MIN_IO: Property = Property::new("min_io_size", Kind::Size, Some("0"));
const OPT_IO: Property = Property::new("opt_io_size", Kind::Size, Some("0"));
const PHYSICAL: Property = Property::new("physical_block_size", Kind::Size, Some("0")).described(BLOCK_SIZE_TEXT);
const PRODUCT: Property = Property::new("product", Kind::Str, None);
const REMOVABLE: Property = switch("removable", "off");
const RERROR: Property = Property::new("rerror", ON_ERROR, Some("auto")).described(ON_ERROR_TEXT);
const ROTATION: Property = Property::new("rotation_rate", Kind::Uint16, Some("0"));
const SCSI_ID: Property = Property::new("scsi-id", Kind::Uint32, Some(UNSET));
const SERIAL: Property = Property::new("serial", Kind::Str, None);
const VENDOR: Property = Property::new("vendor", Kind::Str, None);
const VER: Property = Property::new("ver", Kind::Str, None);
const WERROR: Property = Property::new("werror", ON_ERROR, Some("auto")).described(ON_ERROR_TEXT);
const WRITE_CACHE: Property = Property::new("write-cache", Kind::OnOffAuto, Some("auto")).described("on/off/auto");
const WWN: Property = Property::new("wwn", Kind::Uint64, Some("0"));

/// The kind and variant that a class's name stands for.
#[must_use]
pub fn find(class: &str) -> Option<(&'static Family, Variant)> {
    let rest = class.strip_prefix("virtio-")?;
    FAMILIES.iter().find_map(|family| {
        let suffix = rest.strip_prefix(family.device.name)?;
        Variant::ALL.into_iter().find(|variant| variant.suffix() == suffix).map(|variant| (family, variant))
    })
}

/// All classes.
pub fn classes() -> impl Iterator<Item = ClassHelp> {
    FAMILIES.iter().flat_map(|family| Variant::ALL.into_iter().map(move |variant| class(family, variant)))
}

/// Names are made once for the process: as many as there are classes.
fn interned(name: String) -> &'static str {
    use std::sync::{Mutex, PoisonError};
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.iter().find(|known| **known == name) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_boxed_str());
    names.push(name);
    name
}

fn class(family: &Family, variant: Variant) -> ClassHelp {
    let base = format!("virtio-{}", family.device.name);
    let vectors = Property::new("vectors", Kind::Uint32, family.vectors);
    let mut properties: Vec<PropertyHelp> = TRANSPORT
        .iter()
        .chain(family.properties)
        .chain([&vectors])
        .map(|property| PropertyHelp { name: property.name, kind: property.kind.name(), text: property.help() })
        .collect();
    properties.sort_by_key(|property| property.name);
    ClassHelp {
        name: interned(format!("{base}{}", variant.suffix())),
        alias: (variant == Variant::Generic).then(|| interned(base)),
        bus: Some("PCI"),
        category: family.category,
        description: None,
        user_creatable: true,
        properties,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_three_classes_as_qemu_lists_them() {
        let lines: Vec<_> = classes().map(|class| class.line()).filter(|line| line.contains("rng")).collect();
        let expected = [
            "name \"virtio-rng-pci\", bus PCI, alias \"virtio-rng\"",
            "name \"virtio-rng-pci-non-transitional\", bus PCI",
            "name \"virtio-rng-pci-transitional\", bus PCI",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn names_lead_to_kind_and_variant() {
        let found = |name| find(name).map(|(family, variant)| (family.device.id, variant));
        assert_eq!(found("virtio-rng-pci"), Some((4, Variant::Generic)));
        assert_eq!(found("virtio-rng-pci-transitional"), Some((4, Variant::Transitional)));
        assert_eq!(found("virtio-rng-device"), None);
    }
}
