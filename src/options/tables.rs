//! What the other parts of the program can do, as the command line must know it.
//!
//! It is filled from the modules themselves, so that help and checks come from what the code runs on.

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

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
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
    #[must_use]
    pub fn of_this_build() -> Self {
        Self {
            accelerators: words(&["tcg", "kvm"]),
            cpu_models: model_names()
                .into_iter()
                .map(|(name, description)| CpuModelInfo { name, description })
                .collect(),
            devices: registry::classes().iter().map(DeviceInfo::from).collect(),
            keymaps: Keymap::names().map(str::to_owned).collect(),
            rom_dirs: RomSearch::new(&[]).folders().iter().map(|dir| dir.display().to_string()).collect(),
            trace_points: words(crate::trace::POINTS),
        }
    }

    /// A device by name or alias.
    pub(super) fn device(&self, name: &str) -> Option<&DeviceInfo> {
        self.devices.iter().find(|d| d.name == name || (!d.alias.is_empty() && d.alias == name))
    }
}
