//! The names of all trace points.

/// Trace points, sorted: the targets of `log::trace!` and `log::debug!` in the sources that are no `-d` items.
pub const POINTS: &[&str] = &[
    "i8042_unknown_command",
    "ide_exec_cmd",
    "memory_unassigned_read",
    "memory_unassigned_write",
    "pflash_command",
    "port_unassigned_read",
    "port_unassigned_write",
    "vnc",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::POINTS;
    use crate::trace::{ITEMS, ItemInfo, item};

    /// All targets of records below `dir`, but those of this module's own documents and tests.
    fn targets(dir: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("src/trace") {
                targets(&path, into);
            }
            if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for rest in text.split("log::").skip(1).filter(|r| r.starts_with("trace!(") || r.starts_with("debug!("))
                {
                    let inner = rest.split_once('(').map_or("", |(_, inner)| inner).trim_start();
                    let name = inner.strip_prefix("target: \"").and_then(|name| name.split('"').next());
                    into.extend(name.map(str::to_owned));
                }
            }
        }
    }

    /// The items that the sources ask for by `trace::Item::Name` or `Item::Name`.
    fn items_asked_for(dir: &Path, into: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("src/trace") {
                items_asked_for(&path, into);
            }
            if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let names = text.split("item_enabled(").skip(1).filter_map(|rest| rest.split(')').next());
                into.extend(names.filter_map(|name| name.rsplit("::").next()).map(str::to_owned));
            }
        }
    }

    fn of_the_sources() -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        targets(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        found
    }

    #[test]
    fn the_list_is_that_of_the_sources() {
        let found: Vec<String> = of_the_sources().into_iter().filter(|name| item(name).is_none()).collect();
        assert_eq!(POINTS, found);
    }

    #[test]
    fn an_item_is_implemented_when_something_writes_it() {
        let found = of_the_sources();
        let mut asked = BTreeSet::new();
        items_asked_for(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut asked);
        let named: Vec<&str> = ITEMS.iter().filter(|i| i.implemented).map(|i| i.name).collect();
        let is_written = |i: &&ItemInfo| found.contains(i.name) || asked.contains(&format!("{:?}", i.item));
        let written: Vec<&str> = ITEMS.iter().filter(is_written).map(|i| i.name).collect();
        assert_eq!(named, written);
    }
}
