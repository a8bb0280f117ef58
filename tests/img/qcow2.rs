//! qcow2 in both directions: QEMU's tools accept what ours write, and ours what QEMU's write, for each option.

use super::*;

/// Data with a pattern, some zeros and an end that is not aligned.
fn raw_disk(folder: &Path, name: &str) -> Vec<u8> {
    let mut raw: Vec<u8> = (0..5_000_192_u32).map(|i| (i / 999).to_le_bytes()[0]).collect();
    raw[1_000_000..2_000_000].fill(0);
    File::create(folder.join(name)).unwrap().write_all(&raw).unwrap();
    raw
}

/// Writes an image with one program and lets the other check, compare and change it, and the first one check that.
fn goes_both_ways(options: &[&str]) {
    if !qemu_is_here() {
        return;
    }
    for (writer, reader) in [(OURS, "qemu-img"), ("qemu-img", OURS)] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        raw_disk(folder, "a.raw");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        args.extend(options);
        args.extend(["a.raw", "b.qcow2"]);
        ok(writer, folder, &args);
        assert!(
            ok(reader, folder, &["check", "b.qcow2"]).starts_with("No errors were found on the image."),
            "{options:?}"
        );
        ok(reader, folder, &["compare", "-f", "raw", "-F", "qcow2", "a.raw", "b.qcow2"]);
        ok(reader, folder, &["snapshot", "-c", "one", "b.qcow2"]);
        ok("qemu-io", folder, &["-c", "write -P 7 100k 3M", "-c", "discard 4M 256k", "b.qcow2"]);
        assert!(
            ok(writer, folder, &["check", "b.qcow2"]).starts_with("No errors were found on the image."),
            "{options:?}"
        );
        ok(writer, folder, &["snapshot", "-a", "one", "b.qcow2"]);
        ok(reader, folder, &["compare", "-f", "raw", "-F", "qcow2", "a.raw", "b.qcow2"]);
        ok(writer, folder, &["snapshot", "-d", "one", "b.qcow2"]);
        ok(writer, folder, &["resize", "--shrink", "b.qcow2", "3M"]);
        ok(writer, folder, &["resize", "b.qcow2", "40M"]);
        assert!(
            ok(reader, folder, &["check", "b.qcow2"]).starts_with("No errors were found on the image."),
            "{options:?}"
        );
    }
}

#[test]
fn default_images_go_both_ways() {
    goes_both_ways(&[]);
}

#[test]
fn version_two_goes_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    if qemu_is_here() {
        raw_disk(folder.path(), "a.raw");
        ok(OURS, folder.path(), &["convert", "-O", "qcow2", "-f", "raw", "-o", "compat=0.10", "a.raw", "b.qcow2"]);
        ok("qemu-img", folder.path(), &["check", "b.qcow2"]);
        ok("qemu-img", folder.path(), &["compare", "a.raw", "b.qcow2"]);
        ok(OURS, folder.path(), &["amend", "-f", "qcow2", "-o", "compat=1.1", "b.qcow2"]);
        ok("qemu-img", folder.path(), &["check", "b.qcow2"]);
        ok(OURS, folder.path(), &["amend", "-f", "qcow2", "-o", "compat=0.10", "b.qcow2"]);
        ok("qemu-img", folder.path(), &["check", "b.qcow2"]);
        ok("qemu-img", folder.path(), &["compare", "a.raw", "b.qcow2"]);
    }
}

#[test]
fn small_clusters_and_wide_counts_go_both_ways() {
    goes_both_ways(&["-o", "cluster_size=512,refcount_bits=64"]);
}

#[test]
fn large_clusters_and_subclusters_go_both_ways() {
    goes_both_ways(&["-o", "cluster_size=2M,extended_l2=on,lazy_refcounts=on"]);
}

#[test]
fn packed_clusters_go_both_ways() {
    goes_both_ways(&["-c"]);
    goes_both_ways(&["-c", "-o", "compression_type=zstd"]);
}

#[test]
fn preallocated_images_go_both_ways() {
    goes_both_ways(&["-o", "preallocation=metadata"]);
    goes_both_ways(&["-o", "preallocation=falloc"]);
}

#[test]
fn narrow_counts_are_widened_and_narrowed() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    raw_disk(folder, "a.raw");
    ok(OURS, folder, &["convert", "-f", "raw", "-O", "qcow2", "-o", "refcount_bits=1", "a.raw", "b.qcow2"]);
    ok("qemu-img", folder, &["check", "b.qcow2"]);
    for bits in ["64", "8", "1"] {
        ok(OURS, folder, &["amend", "-f", "qcow2", "-o", &format!("refcount_bits={bits}"), "b.qcow2"]);
        ok("qemu-img", folder, &["check", "b.qcow2"]);
    }
    ok("qemu-img", folder, &["compare", "a.raw", "b.qcow2"]);
}

#[test]
fn external_data_files_go_both_ways() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let raw = raw_disk(folder, "a.raw");
    for (writer, reader) in [(OURS, "qemu-img"), ("qemu-img", OURS)] {
        ok(
            writer,
            folder,
            &["create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,data_file_raw=on", "b.qcow2", "5000192"],
        );
        ok(writer, folder, &["convert", "-n", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2"]);
        ok(reader, folder, &["check", "b.qcow2"]);
        ok(reader, folder, &["compare", "-f", "raw", "-F", "qcow2", "a.raw", "b.qcow2"]);
        // QEMU fills the last cluster of the file up with zeros.
        let data = std::fs::read(folder.join("d.raw")).unwrap();
        assert!(data.starts_with(&raw) && data[raw.len()..].iter().all(|byte| *byte == 0), "{writer}");
        assert!(writer != OURS || data.len() == raw.len());
        assert_eq!(ok(writer, folder, &["info", "b.qcow2"]), ok(reader, folder, &["info", "b.qcow2"]));
    }
}

#[test]
fn bitmaps_go_both_ways() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (writer, reader) in [(OURS, "qemu-img"), ("qemu-img", OURS)] {
        ok(writer, folder, &["create", "-q", "-f", "qcow2", "b.qcow2", "100M"]);
        ok(writer, folder, &["bitmap", "--add", "-g", "32k", "b.qcow2", "one"]);
        ok(reader, folder, &["check", "b.qcow2"]);
        ok("qemu-io", folder, &["-c", "write 10M 1M", "b.qcow2"]);
        ok(reader, folder, &["bitmap", "--add", "b.qcow2", "two"]);
        ok(reader, folder, &["bitmap", "--merge", "one", "b.qcow2", "two"]);
        ok(writer, folder, &["bitmap", "--disable", "b.qcow2", "two"]);
        ok(writer, folder, &["check", "b.qcow2"]);
        assert_eq!(ok(writer, folder, &["info", "b.qcow2"]), ok(reader, folder, &["info", "b.qcow2"]));
        ok(writer, folder, &["bitmap", "--remove", "b.qcow2", "one"]);
        ok(reader, folder, &["check", "b.qcow2"]);
    }
}

/// QEMU's own tools cannot make LUKS images where clocks of processor time stand still; they open ours.
#[test]
fn qemu_opens_our_encrypted_images() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    raw_disk(folder, "a.raw");
    let secret = "secret,id=s,data=hello";
    for format in ["luks", "aes"] {
        let options = format!("encrypt.format={format},encrypt.key-secret=s,encrypt.iter-time=20");
        let options = if format == "aes" { "encrypt.format=aes,encrypt.key-secret=s" } else { &options };
        ok(OURS, folder, &["create", "-q", "--object", secret, "-f", "qcow2", "-o", options, "b.qcow2", "5000192"]);
        let target = "driver=qcow2,file.filename=b.qcow2,encrypt.key-secret=s";
        ok(OURS, folder, &["convert", "-n", "--object", secret, "--target-image-opts", "-f", "raw", "a.raw", target]);
        ok("qemu-img", folder, &["check", "--object", secret, "--image-opts", target]);
        ok(
            "qemu-img",
            folder,
            &["compare", "--object", secret, "--image-opts", "driver=raw,file.filename=a.raw", target],
        );
        assert_eq!(ok(OURS, folder, &["info", "b.qcow2"]), ok("qemu-img", folder, &["info", "b.qcow2"]));
    }
}
