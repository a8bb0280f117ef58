//! Address spaces: `info mtree`.

use std::fmt::Write;

use crate::monitor::info::{AddressSpace, FlatView, MemoryNode};

/// `info mtree`.
#[must_use]
pub fn memory_tree(spaces: &[AddressSpace]) -> String {
    let mut out = String::new();
    for space in spaces {
        let _ = writeln!(out, "address-space: {}", space.name);
        node(&mut out, &space.root, 1);
        out.push('\n');
    }
    out
}

fn node(out: &mut String, n: &MemoryNode, level: usize) {
    let indent = level * 2;
    let _ = write!(out, "{:indent$}{:016x}-{:016x} (prio {}, {}): ", "", n.first, n.last, n.priority, n.kind);
    let _ = match &n.alias {
        None => writeln!(out, "{}", n.name),
        Some((target, first, last)) => writeln!(out, "alias {} @{target} {first:016x}-{last:016x}", n.name),
    };
    for child in &n.children {
        node(out, child, level + 1);
    }
}

/// `info mtree -f`.
#[must_use]
pub fn flat_views(views: &[FlatView]) -> String {
    let mut out = String::new();
    for (number, view) in views.iter().enumerate() {
        let _ = writeln!(out, "FlatView #{number}");
        for (name, root) in &view.spaces {
            let _ = writeln!(out, " AS \"{name}\", root: {root}");
        }
        let _ = writeln!(out, " Root memory region: {}", view.root.as_deref().unwrap_or("(none)"));
        for range in &view.ranges {
            let _ = write!(
                out,
                "  {:016x}-{:016x} (prio {}, {}): {}",
                range.first, range.last, range.priority, range.kind, range.name
            );
            if range.offset > 0 {
                let _ = write!(out, " @{:016x}", range.offset);
            }
            out.push_str(if range.kvm { " KVM\n" } else { "\n" });
        }
        if view.ranges.is_empty() {
            out.push_str("  No rendered FlatView\n");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::info::FlatNode;

    #[test]
    fn the_tree_is_indented_and_aliases_name_their_target() {
        let ram = MemoryNode {
            name: "ram-below-4g".to_owned(),
            last: 0x7ff_ffff,
            kind: "ram",
            alias: Some(("pc.ram".to_owned(), 0, 0x7ff_ffff)),
            ..MemoryNode::default()
        };
        let pci =
            MemoryNode { name: "pci".to_owned(), last: u64::MAX, priority: -1, kind: "i/o", ..MemoryNode::default() };
        let root = MemoryNode {
            name: "system".to_owned(),
            last: u64::MAX,
            kind: "i/o",
            children: vec![ram, pci],
            ..MemoryNode::default()
        };
        assert_eq!(
            memory_tree(&[AddressSpace { name: "memory".to_owned(), root }]),
            "\
address-space: memory
  0000000000000000-ffffffffffffffff (prio 0, i/o): system
    0000000000000000-0000000007ffffff (prio 0, ram): alias ram-below-4g @pc.ram 0000000000000000-0000000007ffffff
    0000000000000000-ffffffffffffffff (prio -1, i/o): pci

"
        );
    }

    #[test]
    fn the_flat_view_has_offsets() {
        let range = |first, last, offset, kvm| FlatNode {
            first,
            last,
            kind: "ram",
            name: "pc.ram".to_owned(),
            offset,
            kvm,
            ..FlatNode::default()
        };
        let view = FlatView {
            spaces: vec![("memory".to_owned(), "system".to_owned())],
            root: Some("system".to_owned()),
            ranges: vec![range(0, 0x9_ffff, 0, true), range(0x10_0000, 0x7ff_ffff, 0x10_0000, false)],
        };
        assert_eq!(
            flat_views(&[view, FlatView::default()]),
            "\
FlatView #0
 AS \"memory\", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM
  0000000000100000-0000000007ffffff (prio 0, ram): pc.ram @0000000000100000

FlatView #1
 Root memory region: (none)
  No rendered FlatView

"
        );
    }
}
