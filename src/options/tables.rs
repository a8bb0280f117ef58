//! What the other parts of the program can do, as the command line must know it.
//!
//! `process` fills this from the modules themselves, so that help and checks come from what the code runs on. The
//! default is a small set that suits tests.

use crate::cpu::model_names;
use crate::hw::registry::{self, ClassHelp};
use crate::machine::RomSearch;
use crate::ui::keymap::Keymap;

/// A `-cpu` model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuModelInfo {
    /// Its name.
    pub name: String,
    /// What `-cpu help` says of it.
    pub description: String,
}

/// A property of a device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PropertyInfo {
    /// Its name.
    pub name: String,
    /// Its type as QEMU's help names it ("uint32", "bool", "str", "OnOffAuto", "size", …).
    pub kind: String,
    /// What follows in `-device X,help`: description and default; may be empty.
    pub description: String,
}

/// A class of `-device`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Another name for it ("cirrus" …); may be empty.
    pub alias: String,
    /// The bus it plugs into ("PCI", "ISA", "IDE"); may be empty.
    pub bus: String,
    /// One line about it; may be empty.
    pub description: String,
    /// The heading of `-device help` ("Storage", "Display", "Misc", …).
    pub category: String,
    /// Its properties.
    pub properties: Vec<PropertyInfo>,
    /// Whether `-device` may create it; others are for `-global` only.
    pub user_creatable: bool,
}

/// What the program can do.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The accelerators of this build, best first.
    pub accelerators: Vec<String>,
    /// CPU models.
    pub cpu_models: Vec<CpuModelInfo>,
    /// The whole answer to `-cpu help`; without it, it is made of the models.
    pub cpu_help: Option<fn() -> String>,
    /// CPU features and properties; empty: not checked here.
    pub cpu_properties: Vec<String>,
    /// Devices.
    pub devices: Vec<DeviceInfo>,
    /// `-k` names; empty: not checked here.
    pub keymaps: Vec<String>,
    /// Folders searched for ROMs, without `-L`.
    pub rom_dirs: Vec<String>,
    /// Trace points' names.
    pub trace_points: Vec<String>,
}

fn property(name: &str, kind: &str, description: &str) -> PropertyInfo {
    PropertyInfo { name: name.into(), kind: kind.into(), description: description.into() }
}

fn device(name: &str, bus: &str, category: &str, description: &str, properties: Vec<PropertyInfo>) -> DeviceInfo {
    DeviceInfo {
        name: name.into(),
        alias: String::new(),
        bus: bus.into(),
        description: description.into(),
        category: category.into(),
        properties,
        user_creatable: true,
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

impl Default for Tables {
    fn default() -> Self {
        let model = |name: &str, description: &str| CpuModelInfo { name: name.into(), description: description.into() };
        let disk = || {
            vec![
                property("bootindex", "int32", ""),
                property("drive", "str", "Node name or ID of a block device to use as a backend"),
                property("model", "str", ""),
                property("serial", "str", ""),
                property("unit", "uint32", " (default: 4294967295)"),
                property("ver", "str", ""),
                property("write-cache", "OnOffAuto", "on/off/auto (default: \"auto\")"),
                property("wwn", "uint64", " (default: 0)"),
            ]
        };
        Self {
            accelerators: words(&["tcg", "kvm"]),
            cpu_models: vec![
                model("qemu64", "QEMU Virtual CPU version 2.5+"),
                model("host", "processor with all supported host features"),
                model("max", "Enables all features supported by the accelerator in the current host"),
            ],
            cpu_help: None,
            cpu_properties: Vec::new(),
            devices: vec![
                device(
                    "isa-debug-exit",
                    "ISA",
                    "Misc",
                    "",
                    vec![
                        property("iobase", "uint32", " (default: 1281)"),
                        property("iosize", "uint32", " (default: 2)"),
                    ],
                ),
                device(
                    "isa-debugcon",
                    "ISA",
                    "Misc",
                    "",
                    vec![
                        property("chardev", "str", "ID of a chardev to use as a backend"),
                        property("iobase", "uint32", " (default: 233)"),
                        property("readback", "uint32", " (default: 233)"),
                    ],
                ),
                device("ide-hd", "IDE", "Storage", "virtual IDE disk", disk()),
                device("ide-cd", "IDE", "Storage", "virtual IDE CD-ROM", disk()),
                device(
                    "VGA",
                    "PCI",
                    "Display",
                    "",
                    vec![
                        property("edid", "bool", " (default: true)"),
                        property("mmio", "bool", " (default: true)"),
                        property("qemu-extended-regs", "bool", " (default: true)"),
                        property("refresh_rate", "uint32", " (default: 0)"),
                        property("vgamem_mb", "uint32", " (default: 16)"),
                        property("xmax", "uint32", " (default: 0)"),
                        property("xres", "uint32", " (default: 0)"),
                        property("ymax", "uint32", " (default: 0)"),
                        property("yres", "uint32", " (default: 0)"),
                        property("addr", "str", "Slot and optional function number, example: 06.0 or 06"),
                    ],
                ),
            ],
            keymaps: Vec::new(),
            rom_dirs: Vec::new(),
            trace_points: Vec::new(),
        }
    }
}

impl From<&ClassHelp> for DeviceInfo {
    fn from(class: &ClassHelp) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            name: class.name.into(),
            alias: text(class.alias),
            bus: text(class.bus),
            description: text(class.description),
            category: class.category.heading().into(),
            properties: class.properties.iter().map(|p| property(p.name, p.kind, &p.text)).collect(),
            user_creatable: class.user_creatable,
        }
    }
}

impl Tables {
    /// What this build has, from the modules themselves.
    ///
    /// CPU properties are not among it: `cpu::resolve` knows which of them a model takes.
    #[must_use]
    pub fn of_this_build() -> Self {
        Self {
            cpu_models: model_names()
                .into_iter()
                .map(|(name, description)| CpuModelInfo { name, description })
                .collect(),
            cpu_help: Some(crate::cpu::help),
            devices: registry::classes().iter().map(DeviceInfo::from).collect(),
            keymaps: Keymap::names().map(str::to_owned).collect(),
            rom_dirs: RomSearch::new(&[]).folders().iter().map(|dir| dir.display().to_string()).collect(),
            trace_points: words(crate::trace::POINTS),
            ..Self::default()
        }
    }

    /// A device by name or alias.
    pub(super) fn device(&self, name: &str) -> Option<&DeviceInfo> {
        self.devices.iter().find(|d| d.name == name || (!d.alias.is_empty() && d.alias == name))
    }
}
