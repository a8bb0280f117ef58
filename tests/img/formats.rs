//! Every format and its options: what we write QEMU reads, checks and compares equal, and the reverse.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dromaius::block::{NodeOptions, OpenFlags, open};

use super::{OURS, ok, qemu_is_here, run, text};

/// Formats with options.
const KINDS: &[(&str, &str)] = &[
    ("parallels", ""),
    ("parallels", "cluster_size=64k"),
    ("qcow", ""),
    ("qed", ""),
    ("qed", "cluster_size=4k,table_size=16"),
    ("vdi", ""),
    ("vdi", "static=on"),
    ("vhdx", ""),
    ("vhdx", "block_size=1M,log_size=2M"),
    ("vhdx", "subformat=fixed"),
    ("vhdx", "block_state_zero=off"),
    ("vmdk", ""),
    ("vmdk", "zeroed_grain=on"),
    ("vmdk", "compat6=on,adapter_type=lsilogic"),
    ("vmdk", "hwversion=7,toolsversion=2222"),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vpc", "force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
];

/// Formats that can tell what is wrong with an image.
const CHECKED: &[&str] = &["parallels", "qed", "vdi", "vhdx", "vmdk"];

/// A disk with data, zeros, and data that repeats.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; (5 << 20) + 512];
    let mut state = 1_u32;
    for byte in &mut disk[100_000..400_000] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    disk[2_000_000..2_000_700].fill(7);
    disk[4_190_000..4_200_000].fill(9);
    let end = disk.len();
    disk[end - 100..].fill(3);
    disk
}

fn convert(tool: &str, folder: &Path, kind: (&str, &str), from: &str, to: &str) {
    let mut args = vec!["convert", "-f", "raw", "-O", kind.0];
    if !kind.1.is_empty() {
        args.extend(["-o", kind.1]);
    }
    args.extend([from, to]);
    ok(tool, folder, &args);
}

#[test]
fn each_format_goes_both_ways() {
    if !qemu_is_here() {
        return;
    }
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("disk"), disk()).unwrap();
        convert(OURS, folder, *kind, "disk", "ours.img");
        convert("qemu-img", folder, *kind, "disk", "qemus.img");
        let same = "Images are identical.\n";
        assert_eq!(
            ok("qemu-img", folder, &["compare", "-f", "raw", "-F", kind.0, "disk", "ours.img"]),
            same,
            "{kind:?}"
        );
        assert_eq!(ok(OURS, folder, &["compare", "-f", "raw", "-F", kind.0, "disk", "qemus.img"]), same, "{kind:?}");
        ok(OURS, folder, &["convert", "-f", kind.0, "-O", "raw", "qemus.img", "back"]);
        assert!(fs::read(folder.join("back")).unwrap() == disk(), "{kind:?}");
        if CHECKED.contains(&kind.0) {
            ok("qemu-img", folder, &["check", "-f", kind.0, "ours.img"]);
            ok(OURS, folder, &["check", "-f", kind.0, "qemus.img"]);
        }
    }
}

#[test]
fn each_format_is_written_in_turns() {
    if !qemu_is_here() {
        return;
    }
    for (format, options) in KINDS.iter().filter(|kind| kind.1 != "subformat=streamOptimized") {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let options = if options.is_empty() { "size=5M".to_owned() } else { format!("size=5M,{options}") };
        ok(OURS, folder, &["create", "-f", format, "-o", &options, "a.img"]);
        let what = format!("{format} {options}");
        ok("qemu-io", folder, &["-f", format, "-c", "write -P 1 100k 200k", "-c", "write -P 2 3M 70k", "a.img"]);
        let path = folder.join("a.img").to_str().unwrap().to_owned();
        let (image, _) = open(&NodeOptions::file(path).format(*format), OpenFlags::default()).unwrap();
        image.node.write_at(150 << 10, &[3; 10_000], false).unwrap();
        image.node.write_at(4 << 20, &[4; 100_000], true).unwrap();
        image.node.zero(3 << 20, 1 << 10, true).unwrap();
        drop(image);
        let reads = [
            "read -P 1 100k 50k",
            "read -P 3 150k 10000",
            "read -P 0 3M 1k",
            "read -P 2 3073k 69k",
            "read -P 4 4M 100000",
        ];
        let args: Vec<&str> = ["-f", format].into_iter().chain(reads.iter().flat_map(|read| ["-c", read])).collect();
        let output = ok("qemu-io", folder, &[args.as_slice(), &["a.img"]].concat());
        assert!(!output.contains("failed"), "{what}: {output}");
        if CHECKED.contains(format) {
            ok("qemu-img", folder, &["check", "-f", format, "a.img"]);
        }
    }
}

#[test]
fn the_creation_lines_are_those_of_qemu() {
    if !qemu_is_here() {
        return;
    }
    for (format, options) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let options = if options.is_empty() { "size=5M".to_owned() } else { format!("size=5M,{options}") };
        let args = ["create", "-f", format, "-o", &options, "a.img"];
        let ours = ok(OURS, folder.path(), &args);
        assert_eq!(ours, ok("qemu-img", folder.path(), &args));
        let info = ["info", "-f", format, "a.img"];
        let lines = |tool: &str| -> Vec<String> {
            let kept = |line: &&str| !line.contains("disk size") && !line.contains("file length");
            ok(tool, folder.path(), &info).lines().filter(kept).map(str::to_owned).collect()
        };
        // The children of an image of several files are shown by QEMU only.
        let (ours, theirs) = (lines(OURS), lines("qemu-img"));
        let head =
            |lines: &[String]| lines.iter().take_while(|line| !line.starts_with("Child")).cloned().collect::<Vec<_>>();
        assert_eq!(head(&ours), head(&theirs), "{format} {options}");
    }
}

#[test]
fn backing_files_are_named_as_qemu_names_them() {
    if !qemu_is_here() {
        return;
    }
    for (format, below) in [("qcow", "raw"), ("qed", "raw"), ("qed", "qcow2"), ("vmdk", "vmdk")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("disk"), disk()).unwrap();
        ok("qemu-img", folder, &["convert", "-f", "raw", "-O", below, "disk", "base"]);
        ok(OURS, folder, &["create", "-q", "-f", format, "-b", "base", "-F", below, "top"]);
        assert_eq!(ok("qemu-img", folder, &["compare", "disk", "top"]), "Images are identical.\n", "{format}");
        ok("qemu-io", folder, &["-f", format, "-c", "write -P 5 99k 3k", "top"]);
        ok(OURS, folder, &["convert", "-f", format, "-O", "raw", "top", "flat"]);
        let mut wanted = disk();
        wanted[99 << 10..102 << 10].fill(5);
        assert!(fs::read(folder.join("flat")).unwrap() == wanted, "{format} over {below}");
    }
}

#[test]
fn packed_images_are_read_by_qemu() {
    if !qemu_is_here() {
        return;
    }
    for (format, options) in [("qcow", "size=0"), ("vmdk", "subformat=streamOptimized")] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("disk"), disk()).unwrap();
        let mut args = vec!["convert", "-c", "-f", "raw", "-O", format];
        if format == "vmdk" {
            args.extend(["-o", options]);
        }
        args.extend(["disk", "packed"]);
        ok(OURS, folder, &args);
        assert!(fs::metadata(folder.join("packed")).unwrap().len() < 500_000);
        let same = "Images are identical.\n";
        assert_eq!(ok("qemu-img", folder, &["compare", "-f", "raw", "-F", format, "disk", "packed"]), same);
        assert_eq!(ok(OURS, folder, &["compare", "-f", "raw", "-F", format, "disk", "packed"]), same);
    }
}

/// What our tool says of a bad image, within seconds and without dying.
fn refusal(folder: &Path, args: &[&str]) -> String {
    let start = Instant::now();
    let output = run(OURS, folder, args);
    assert!(output.status.code().is_some(), "{args:?} was killed");
    assert_ne!(output.status.code(), Some(0), "{args:?}");
    assert!(start.elapsed() < Duration::from_secs(60), "{args:?} took too long");
    text(&output.stderr)
}

#[test]
fn a_vmdk_without_extents_or_that_names_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";
    fs::write(folder.join("none.vmdk"), descriptor).unwrap();
    assert_eq!(
        refusal(folder, &["info", "none.vmdk"]),
        "qemu-img: Could not open 'none.vmdk': The VMDK descriptor 'none.vmdk' names no extents\n"
    );
    let own = descriptor.replace("monolithicFlat", "twoGbMaxExtentSparse") + "RW 100 SPARSE \"self.vmdk\"\n";
    fs::write(folder.join("self.vmdk"), own).unwrap();
    assert!(refusal(folder, &["info", "self.vmdk"]).contains("is not a sparse VMDK extent"));
    ok(OURS, folder, &["create", "-q", "-f", "vmdk", "loop.vmdk", "1M"]);
    let bytes = fs::read(folder.join("loop.vmdk")).unwrap();
    let line = b"createType=\"monolithicSparse\"\n\n";
    let at = bytes.windows(line.len()).position(|window| window == line).unwrap() + line.len() - 1;
    let hint = b"parentFileNameHint=\"loop.vmdk\"\n";
    let mut own = bytes.clone();
    own[at..at + hint.len()].copy_from_slice(hint);
    own[at + hint.len()..at + hint.len() + 30].copy_from_slice(b"RW 2048 SPARSE \"loop.vmdk\"\n   ");
    fs::write(folder.join("loop.vmdk"), own).unwrap();
    assert!(refusal(folder, &["map", "loop.vmdk"]).contains("infinite loop"));
}

#[test]
fn absurd_sizes_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let patched = |format: &str, name: &str, at: usize, bytes: &[u8]| {
        ok(OURS, folder, &["create", "-q", "-f", format, name, "1M"]);
        let mut image = fs::read(folder.join(name)).unwrap();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(folder.join(name), image).unwrap();
        refusal(folder, &["map", "-f", format, name])
    };
    let text = patched("vmdk", "a.vmdk", 12, &(1_u64 << 53).to_le_bytes());
    assert!(text.contains("The grain directory of 'a.vmdk' (offset "), "{text}");
    let text = patched("vdi", "a.vdi", 384, &0x1fff_ff00_u32.to_le_bytes());
    assert!(text.contains("data offset 0x400 is inside the block map at 0x200"), "{text}");
    let text = patched("parallels", "a.hds", 32, &0x1000_0000_u32.to_le_bytes());
    assert!(text.contains("The BAT of 'a.hds' (offset 64, "), "{text}");
}

#[test]
fn qed_options_that_qemu_takes_make_images_that_open() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for options in ["cluster_size=4k,table_size=1", "cluster_size=64M,table_size=16", "cluster_size=64M,table_size=1"] {
        ok(OURS, folder, &["create", "-q", "-f", "qed", "-o", options, "a.qed", "1G"]);
        assert!(ok(OURS, folder, &["check", "a.qed"]).starts_with("No errors were found on the image."));
        assert!(ok(OURS, folder, &["info", "a.qed"]).contains("virtual size: 1 GiB"));
    }
}

#[test]
fn a_parallels_image_that_was_not_closed_is_repaired() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ok("qemu-img", folder, &["create", "-q", "-f", "parallels", "a.hds", "10M"]);
    ok("qemu-io", folder, &["-f", "parallels", "-c", "write -P 6 3M 10k", "a.hds"]);
    let mut image = fs::read(folder.join("a.hds")).unwrap();
    image[44..48].copy_from_slice(&0x746f_6e59_u32.to_le_bytes());
    // Two entries name one cluster, and one names nothing that is there.
    image[64..68].copy_from_slice(&1_u32.to_le_bytes());
    image[68..72].copy_from_slice(&500_u32.to_le_bytes());
    fs::write(folder.join("a.hds"), &image).unwrap();
    assert_eq!(run(OURS, folder, &["check", "-f", "parallels", "a.hds"]).status.code(), Some(2));
    run(OURS, folder, &["check", "-f", "parallels", "-r", "all", "a.hds"]);
    assert!(ok("qemu-img", folder, &["check", "-f", "parallels", "a.hds"]).starts_with("No errors"));
    let read = ok("qemu-io", folder, &["-f", "parallels", "-c", "read -P 6 3M 10k", "-c", "read -P 6 0 10k", "a.hds"]);
    assert!(!read.contains("failed"), "{read}");
}

#[test]
fn a_vhdx_log_is_replayed_by_either_side() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    ok(OURS, folder, &["create", "-q", "-f", "vhdx", "-o", "block_size=1M", "a.vhdx", "10M"]);
    let path = folder.join("a.vhdx").to_str().unwrap().to_owned();
    let (image, _) = open(&NodeOptions::file(path).format("vhdx"), OpenFlags::default()).unwrap();
    image.node.write_at(3 << 20, &[8; 5000], false).unwrap();
    image.node.flush().unwrap();
    // As a kill would leave it, and with the change in the log only.
    let mut bytes = fs::read(folder.join("a.vhdx")).unwrap();
    drop(image);
    bytes[(2 << 20) + 24..(2 << 20) + 32].copy_from_slice(&2_u64.to_le_bytes());
    fs::write(folder.join("cut.vhdx"), &bytes).unwrap();
    fs::write(folder.join("cut2.vhdx"), &bytes).unwrap();
    assert!(refusal(folder, &["info", "cut2.vhdx"]).contains("contains a log that needs to be replayed"));
    run(OURS, folder, &["check", "-r", "all", "cut2.vhdx"]);
    for cut in ["cut.vhdx", "cut2.vhdx"] {
        let read = ok("qemu-io", folder, &["-f", "vhdx", "-c", "read -P 8 3M 5000", cut]);
        assert!(!read.contains("failed"), "{cut}: {read}");
    }
    ok("qemu-img", folder, &["create", "-q", "-f", "vhdx", "q.vhdx", "10M"]);
    run("qemu-io", folder, &["-f", "vhdx", "-c", "write -P 4 1M 9k", "-c", "sigraise 9", "q.vhdx"]);
    run(OURS, folder, &["check", "-r", "all", "q.vhdx"]);
    ok(OURS, folder, &["convert", "-f", "vhdx", "-O", "raw", "q.vhdx", "q.raw"]);
    assert!(fs::read(folder.join("q.raw")).unwrap()[1 << 20..(1 << 20) + 9216].iter().all(|byte| *byte == 4));
}
