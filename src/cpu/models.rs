//! The named processors, and what `-cpu help` says about them.

use std::fmt::Write as _;

use super::features::{Feature, FeatureSet};
use super::models_table::MODELS;

/// Whose processor it is (leaf 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vendor {
    /// Intel.
    Intel,
    /// AMD.
    Amd,
    /// Hygon.
    Hygon,
    /// VIA and Zhaoxin.
    Centaur,
}

impl Vendor {
    /// The twelve letters.
    pub(super) fn id(self) -> [u8; 12] {
        *match self {
            Self::Intel => b"GenuineIntel",
            Self::Amd => b"AuthenticAMD",
            Self::Hygon => b"HygonGenuine",
            Self::Centaur => b"CentaurHauls",
        }
    }
}

/// A named processor.
pub(super) struct ModelDef {
    pub(super) name: &'static str,
    pub(super) vendor: Vendor,
    /// Highest subleaf of leaf 7.
    pub(super) level_7: u32,
    /// Highest leaf of the C000_0000h range.
    pub(super) xlevel2: u32,
    pub(super) family: u32,
    /// Features of version 1.
    pub(super) features: &'static str,
    /// Version 1 first.
    pub(super) versions: &'static [Version],
}

/// One version of a named processor.
pub(super) struct Version {
    /// An older name of this version.
    pub(super) alias: &'static str,
    pub(super) model_id: &'static str,
    /// What `-cpu help` adds in brackets.
    pub(super) note: &'static str,
    /// Changes of features from the version before.
    pub(super) changes: &'static str,
    pub(super) level: u32,
    pub(super) xlevel: u32,
    pub(super) model: u32,
    pub(super) stepping: u32,
}

/// A version of a named processor that a user named.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) def: &'static ModelDef,
    /// Counts from 0.
    index: usize,
}

impl Found {
    pub(super) fn version(&self) -> &'static Version {
        &self.def.versions[self.index]
    }

    /// Version 1, 2, ...
    pub(super) fn number(&self) -> usize {
        self.index + 1
    }

    /// Its features.
    pub(super) fn features(&self) -> FeatureSet {
        let mut set = FeatureSet::from_names(self.def.features);
        self.def.versions[..=self.index].iter().for_each(|version| set.change(version.changes));
        set
    }
}

/// Finds a processor by name (which means version 1, as the PC machines have it), by name and version, or by an older
/// name of a version.
pub(super) fn find(name: &str) -> Option<Found> {
    MODELS.iter().find_map(|def| {
        let rest = name.strip_prefix(def.name).filter(|rest| rest.is_empty() || rest.starts_with("-v"));
        let by_number = match rest {
            Some("") => Some(0),
            Some(version) => version[2..].parse::<usize>().ok().and_then(|n| n.checked_sub(1)),
            None => None,
        };
        // "-v01" is not a version's name.
        let by_number = by_number.filter(|i| rest == Some("") || rest == Some(&format!("-v{}", i + 1)));
        let index = by_number.or_else(|| def.versions.iter().position(|v| !v.alias.is_empty() && v.alias == name))?;
        (index < def.versions.len()).then_some(Found { def, index })
    })
}

/// The models that are not in the table, with their descriptions.
const SPECIAL: [(&str, &str); 3] = [
    ("base", "base CPU model type with no features enabled"),
    ("host", "processor with all supported host features "),
    ("max", "Enables all features supported by the accelerator in the current host"),
];

/// Every name that `-cpu` takes, with what the help says about it.
#[must_use]
pub fn model_names() -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for def in MODELS {
        rows.push((def.name.to_owned(), "(alias configured by machine type)".to_owned()));
        for (number, version) in (1..).zip(def.versions) {
            let name = format!("{}-v{number}", def.name);
            if !version.alias.is_empty() {
                rows.push((version.alias.to_owned(), format!("(alias of {name})")));
            }
            let note = if version.note.is_empty() { String::new() } else { format!(" [{}]", version.note) };
            let model_id = version.model_id.split_whitespace().collect::<Vec<_>>().join(" ");
            let model_id = if version.model_id.contains("  ") { version.model_id.trim().to_owned() } else { model_id };
            rows.push((name, format!("{model_id}{note}")));
        }
    }
    rows.sort();
    rows.extend(SPECIAL.map(|(name, text)| (name.to_owned(), text.to_owned())));
    rows
}

/// The answer to `-cpu help`.
#[must_use]
pub fn help() -> String {
    let mut out = String::from("Available CPUs:\n");
    for (name, text) in model_names() {
        let _ = writeln!(out, "  {name:<20}  {text}");
    }
    out.push_str("\nRecognized CPUID flags:\n");
    let mut line = String::from(" ");
    for name in Feature::names() {
        if line.len() + name.len() + 1 >= 75 {
            out.push_str(&line);
            out.push('\n');
            " ".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(name);
    }
    out.push_str(&line);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str) -> Option<(&'static str, usize)> {
        find(name).map(|found| (found.def.name, found.number()))
    }

    #[test]
    fn models_are_found_by_version_and_old_name() {
        assert_eq!(described("Haswell"), Some(("Haswell", 1)));
        assert_eq!(described("Haswell-v4"), Some(("Haswell", 4)));
        assert_eq!(described("Haswell-noTSX-IBRS"), Some(("Haswell", 4)));
        assert_eq!(described("EPYC-Rome-v2"), Some(("EPYC-Rome", 2)));
        assert_eq!(described("EPYC-IBPB"), Some(("EPYC", 2)));
        assert_eq!(described("Haswell-v5"), None);
        assert_eq!(described("Haswell-v0"), None);
        assert_eq!(described("Haswell-v01"), None);
        assert_eq!(described("Hasw"), None);
    }

    #[test]
    fn versions_change_features() {
        let features = |name: &str| find(name).map(|found| found.features()).unwrap_or_default();
        assert!(features("Haswell").has("rtm"));
        assert!(!features("Haswell-v2").has("rtm"));
        assert!(features("Haswell-IBRS").has("rtm") && features("Haswell-IBRS").has("spec-ctrl"));
    }

    #[test]
    fn every_feature_of_every_model_has_a_name() {
        for word in MODELS.iter().flat_map(|def| def.features.split_whitespace()) {
            assert!(Feature::named(word).is_some(), "{word}");
        }
        for change in MODELS.iter().flat_map(|d| d.versions).flat_map(|v| v.changes.split_whitespace()) {
            assert!(Feature::named(&change[1..]).is_some(), "{change}");
        }
    }

    #[test]
    fn help_lists_models_as_qemu_does() {
        // Lines of `qemu-system-x86_64 -cpu help`, version 10.0.2.
        let help = help();
        for line in include_str!("golden/help.txt").lines() {
            assert!(help.lines().any(|ours| ours == line), "{line:?}");
        }
        let models = help.lines().take_while(|line| !line.is_empty()).count();
        assert_eq!(models, include_str!("golden/help.txt").lines().take_while(|line| !line.is_empty()).count());
    }
}
