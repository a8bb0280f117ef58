//! The classes of devices that a command line can name: what `-device help`, `-device X,help` and `-global` show and
//! check. Each family lists its own; this is where they come together.

use super::ide;
use super::nvme;
use super::props::{Kind, Property};
use super::virtio;

/// A heading of `-device help`, in QEMU's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Category {
    /// Bridges and controllers.
    Bridge,
    /// USB.
    Usb,
    /// Disks and their controllers.
    Storage,
    /// Network cards.
    Network,
    /// Keyboards, mice, ports.
    Input,
    /// Display adapters.
    Display,
    /// Sound cards.
    Sound,
    /// The rest.
    Misc,
    /// Watchdogs.
    Watchdog,
}

impl Category {
    /// The heading, without its " devices:".
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::Bridge => "Controller/Bridge/Hub",
            Self::Usb => "USB",
            Self::Storage => "Storage",
            Self::Network => "Network",
            Self::Input => "Input",
            Self::Display => "Display",
            Self::Sound => "Sound",
            Self::Misc => "Misc",
            Self::Watchdog => "Watchdog",
        }
    }
}

/// A class of devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Name on the command line.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// The bus it plugs into, as QEMU names it.
    pub bus: Option<&'static str>,
    /// Heading.
    pub category: Category,
    /// One line about it.
    pub description: Option<&'static str>,
    /// Whether `-device` makes one. The others are part of the machine, and `-global` sets their properties.
    pub user_creatable: bool,
    /// Properties, sorted by name.
    pub properties: &'static [Property],
}

impl Class {
    const fn isa(name: &'static str, category: Category, properties: &'static [Property]) -> Self {
        Self { name, alias: None, bus: Some("ISA"), category, description: None, user_creatable: true, properties }
    }

    const fn bridge(name: &'static str, description: &'static str, properties: &'static [Property]) -> Self {
        let description = if description.is_empty() { None } else { Some(description) };
        let (bus, category) = (Some("PCI"), Category::Bridge);
        Self { name, alias: None, bus, category, description, user_creatable: true, properties }
    }

    const fn part_of_the_machine(self) -> Self {
        Self { user_creatable: false, ..self }
    }
}

const CHARDEV: Property =
    Property::new("chardev", Kind::Chardev, None).described("ID of a chardev to use as a backend");
/// What every network card on PCI has.
const NIC: &[Property] = &[
    Property::new("addr", Kind::Str, None).described("Slot and optional function number, example: 06.0 or 06"),
    Property::new("bootindex", Kind::Int32, None),
    Property::new("mac", Kind::Str, None).described("Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),
    Property::new("netdev", Kind::Str, None).described("ID of a netdev to use as a backend"),
    Property::new("romfile", Kind::Str, None),
];
/// "Not given": the machine chooses.
const UNSET: Option<&str> = Some("4294967295");

const ADDR: Property =
    Property::new("addr", Kind::Str, None).described("Slot and optional function number, example: 06.0 or 06");
const MULTIFUNCTION: Property = Property::new("multifunction", Kind::Bool, Some("off"));
/// Root ports.
const PORT: &[Property] = &[
    ADDR,
    Property::new("chassis", Kind::Uint8, Some("0")),
    MULTIFUNCTION,
    Property::new("port", Kind::Uint8, Some("0")),
    Property::new("slot", Kind::Uint16, Some("0")),
];

/// The chips of `hw::char`, `hw::chipset`, `hw::display`, `hw::input` and `hw::timer`.
pub const CLASSES: &[Class] = &[
    Class::isa(
        "isa-debug-exit",
        Category::Misc,
        &[Property::new("iobase", Kind::Uint32, Some("1281")), Property::new("iosize", Kind::Uint32, Some("2"))],
    ),
    Class::isa(
        "isa-debugcon",
        Category::Misc,
        &[
            CHARDEV,
            Property::new("iobase", Kind::Uint32, Some("233")),
            Property::new("readback", Kind::Uint32, Some("233")),
        ],
    ),
    Class::isa(
        "isa-parallel",
        Category::Input,
        &[
            CHARDEV,
            Property::new("index", Kind::Uint32, UNSET),
            Property::new("iobase", Kind::Uint32, UNSET),
            Property::new("irq", Kind::Uint32, Some("7")),
        ],
    ),
    Class::isa(
        "isa-serial",
        Category::Input,
        &[
            Property::new("baudbase", Kind::Uint32, Some("115200")),
            CHARDEV,
            Property::new("index", Kind::Uint32, UNSET),
            Property::new("iobase", Kind::Uint32, UNSET),
            Property::new("irq", Kind::Uint32, UNSET),
        ],
    ),
    Class::isa(
        "mc146818rtc",
        Category::Misc,
        &[Property::new(
            "lost_tick_policy",
            Kind::Word("LostTickPolicy", &["discard", "delay", "slew"]),
            Some("discard"),
        )
        .described("Policy for handling lost ticks (discard/delay/slew)")],
    )
    .part_of_the_machine(),
    Class {
        name: "kvm-pit",
        alias: None,
        bus: Some("ISA"),
        category: Category::Misc,
        description: None,
        user_creatable: false,
        properties: &[Property::new(
            "lost_tick_policy",
            Kind::Word("LostTickPolicy", &["discard", "delay", "slew"]),
            Some("delay"),
        )
        .described("Policy for handling lost ticks (discard/delay/slew)")],
    },
    Class {
        name: "VGA",
        alias: None,
        bus: Some("PCI"),
        category: Category::Display,
        description: None,
        user_creatable: true,
        properties: &[
            Property::new("addr", Kind::Str, None).described("Slot and optional function number, example: 06.0 or 06"),
            Property::new("edid", Kind::Bool, Some("on")),
            Property::new("mmio", Kind::Bool, Some("on")),
            Property::new("qemu-extended-regs", Kind::Bool, Some("on")),
            Property::new("refresh_rate", Kind::Uint32, Some("0")),
            Property::new("romfile", Kind::Str, None),
            Property::new("vgamem_mb", Kind::Uint32, Some("16")),
            Property::new("xmax", Kind::Uint32, Some("0")),
            Property::new("xres", Kind::Uint32, Some("0")),
            Property::new("ymax", Kind::Uint32, Some("0")),
            Property::new("yres", Kind::Uint32, Some("0")),
        ],
    },
    Class {
        name: "rtl8139",
        alias: None,
        bus: Some("PCI"),
        category: Category::Network,
        description: None,
        user_creatable: true,
        properties: NIC,
    },
    Class {
        name: "ne2k_isa",
        alias: None,
        bus: Some("ISA"),
        category: Category::Network,
        description: None,
        user_creatable: true,
        properties: &[
            Property::new("bootindex", Kind::Int32, None),
            Property::new("iobase", Kind::Uint32, Some("768")),
            Property::new("irq", Kind::Uint32, Some("9")),
            Property::new("mac", Kind::Str, None).described("Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),
            Property::new("netdev", Kind::Str, None).described("ID of a netdev to use as a backend"),
        ],
    },
    Class {
        name: "ne2k_pci",
        alias: None,
        bus: Some("PCI"),
        category: Category::Network,
        description: None,
        user_creatable: true,
        properties: NIC,
    },
    Class {
        name: "e1000",
        alias: Some("e1000-82540em"),
        bus: Some("PCI"),
        category: Category::Network,
        description: Some("Intel Gigabit Ethernet"),
        user_creatable: true,
        properties: NIC,
    },
    Class::bridge("ioh3420", "Intel IOH device id 3420 PCIE Root Port", PORT),
    Class::bridge(
        "pci-bridge",
        "Standard PCI Bridge",
        &[ADDR, Property::new("chassis_nr", Kind::Uint8, Some("0")), MULTIFUNCTION],
    ),
    Class::bridge("pcie-pci-bridge", "", &[ADDR, MULTIFUNCTION]),
    Class::bridge("pcie-root-port", "PCI Express Root Port", PORT),
    Class {
        name: "ICH9-LPC",
        alias: None,
        bus: Some("PCI"),
        category: Category::Bridge,
        description: Some("ICH9 LPC bridge"),
        user_creatable: false,
        properties: &[
            Property::new("disable_s3", Kind::Uint8, Some("0")),
            Property::new("disable_s4", Kind::Uint8, Some("0")),
            Property::new("noreboot", Kind::Bool, Some("on")),
            Property::new("s4_val", Kind::Uint8, Some("2")),
        ],
    },
    Class {
        name: "mch",
        alias: None,
        bus: Some("PCI"),
        category: Category::Bridge,
        description: Some("Host bridge"),
        user_creatable: false,
        properties: &[Property::new("extended-tseg-mbytes", Kind::Uint16, Some("16"))],
    },
    Class {
        name: "PIIX4_PM",
        alias: None,
        bus: Some("PCI"),
        category: Category::Bridge,
        description: Some("PM"),
        user_creatable: false,
        properties: &[
            Property::new("disable_s3", Kind::Uint8, Some("0")),
            Property::new("disable_s4", Kind::Uint8, Some("0")),
            Property::new("s4_val", Kind::Uint8, Some("2")),
        ],
    },
];

/// A property of any family, as help shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PropertyHelp {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: &'static str,
    /// What follows: description and default; may be empty.
    pub text: String,
}

/// A class of any family, as help shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassHelp {
    /// Name.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// Bus.
    pub bus: Option<&'static str>,
    /// Heading.
    pub category: Category,
    /// One line about it.
    pub description: Option<&'static str>,
    /// Whether `-device` makes one.
    pub user_creatable: bool,
    /// Properties, sorted by name.
    pub properties: Vec<PropertyHelp>,
}

impl ClassHelp {
    /// The line of `-device help`.
    #[must_use]
    pub fn line(&self) -> String {
        let part = |label: &str, text: Option<&str>, quote: &str| {
            text.map_or_else(String::new, |text| format!(", {label} {quote}{text}{quote}"))
        };
        let (bus, alias) = (part("bus", self.bus, ""), part("alias", self.alias, "\""));
        format!("name \"{}\"{bus}{alias}{}", self.name, part("desc", self.description, "\""))
    }
}

fn own(class: &Class) -> ClassHelp {
    let properties = class
        .properties
        .iter()
        .map(|property| PropertyHelp { name: property.name, kind: property.kind.name(), text: property.help() })
        .collect();
    ClassHelp {
        name: class.name,
        alias: class.alias,
        bus: class.bus,
        category: class.category,
        description: class.description,
        user_creatable: class.user_creatable,
        properties,
    }
}

fn of_ide(class: &ide::Class) -> ClassHelp {
    let text = |property: &ide::Property| match property.default {
        Some(default) => format!("{} (default: {default})", property.desc),
        None => property.desc.to_owned(),
    };
    let properties = class
        .properties
        .iter()
        .map(|property| PropertyHelp { name: property.name, kind: property.kind, text: text(property) })
        .collect();
    ClassHelp {
        name: class.name,
        alias: None,
        bus: Some(class.bus),
        category: Category::Storage,
        description: class.desc,
        user_creatable: true,
        properties,
    }
}

/// Every class of every family, by heading and name.
#[must_use]
pub fn classes() -> Vec<ClassHelp> {
    let mut all: Vec<_> = CLASSES
        .iter()
        .map(own)
        .chain(ide::CLASSES.iter().map(of_ide))
        .chain(nvme::classes::CLASSES.iter().map(own))
        .chain(virtio::classes::SCSI_CLASSES.iter().map(own))
        .chain(virtio::classes::PORT_CLASSES.iter().map(own))
        .chain(virtio::classes::classes())
        .collect();
    all.sort_by_key(|class| (class.category, class.name));
    all
}

/// A class of this module's families, by name or alias.
#[must_use]
pub fn class(name: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == name || class.alias == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::props::Properties;

    #[test]
    fn lines_of_help_are_qemus() {
        let all = classes();
        let line = |name: &str| all.iter().find(|class| class.name == name).map(ClassHelp::line);
        assert_eq!(line("isa-serial").as_deref(), Some("name \"isa-serial\", bus ISA"));
        assert_eq!(line("ide-cd").as_deref(), Some("name \"ide-cd\", bus IDE, desc \"virtual IDE CD-ROM\""));
    }

    #[test]
    fn names_are_unique_and_properties_sorted() {
        let all = classes();
        let mut names: Vec<_> = all.iter().map(|class| class.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(CLASSES.iter().all(|class| class.properties.is_sorted_by_key(|property| property.name)));
    }

    #[test]
    fn every_default_is_a_value_of_its_type() {
        for class in CLASSES {
            let given = class.properties.iter().filter_map(|property| Some((property.name, property.default?)));
            assert!(Properties::read(class.name, class.properties, given).is_ok(), "{}", class.name);
        }
    }

    #[test]
    fn the_serial_ports_options_are_known() {
        let class = class("isa-serial").unwrap();
        let read = Properties::read(class.name, class.properties, [("index", "1"), ("chardev", "c")]).unwrap();
        assert_eq!((read.number("index"), read.number("baudbase")), (Some(1u32), Some(115_200u32)));
    }
}
