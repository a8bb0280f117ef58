//! Our image tool and QEMU's on the same files. Needs `qemu-utils`; without it these tests say so and pass.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

mod commands;
mod formats;
mod qcow2;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const OURS: &str = env!("CARGO_BIN_EXE_qemu-img");

fn qemu_is_here() -> bool {
    let here = Command::new("qemu-io").arg("--version").output().is_ok();
    if !here {
        eprintln!("skipped: qemu-utils is not installed");
    }
    here
}

fn run(program: &str, folder: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(program: &str, folder: &Path, args: &[&str]) -> String {
    let output = run(program, folder, args);
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// QEMU with an image open until it is dropped.
struct Holder {
    child: Child,
}

impl Holder {
    fn new(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It answers when the image is open.
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut answer = [0; 9];
        child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        Self { child }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
fn an_image_that_qemu_holds_is_refused() {
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    ok("qemu-img", folder.path(), &["create", "-f", "qcow2", "a.qcow2", "1M"]);
    let holder = Holder::new(folder.path(), &["-f", "qcow2", "a.qcow2"]);
    let refused = run(OURS, folder.path(), &["info", "a.qcow2"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        text(&refused.stderr),
        "qemu-img: Could not open 'a.qcow2': Failed to get shared \"write\" lock\n\
         Is another process using the image [a.qcow2]?\n"
    );
    ok(OURS, folder.path(), &["info", "-U", "a.qcow2"]);
    let refused = run(OURS, folder.path(), &["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    assert_eq!(
        text(&refused.stderr),
        "qemu-img: a.qcow2: Failed to get \"write\" lock\nIs another process using the image [a.qcow2]?\n"
    );
    drop(holder);
    ok(OURS, folder.path(), &["info", "a.qcow2"]);
}

#[test]
fn qemu_refuses_an_image_that_we_hold() {
    use dromaius::block::{NodeOptions, OpenFlags, open};
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    ok("qemu-img", folder.path(), &["create", "-f", "qcow2", "a.qcow2", "1M"]);
    let path = folder.path().join("a.qcow2").to_str().unwrap().to_owned();
    let (image, warnings) = open(&NodeOptions::file(path.as_str()), OpenFlags::default()).unwrap();
    assert!(warnings.is_empty());
    let refused = run("qemu-io", folder.path(), &["-f", "qcow2", "-c", "length", "a.qcow2"]);
    assert!(text(&refused.stderr).contains("Failed to get \"write\" lock"), "{}", text(&refused.stderr));
    drop(image);
    ok("qemu-io", folder.path(), &["-f", "qcow2", "-c", "length", "a.qcow2"]);
}

#[test]
fn what_we_write_over_snapshots_and_packed_clusters_qemu_finds_clean() {
    use dromaius::block::{NodeOptions, OpenFlags, open};
    if !qemu_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let raw: Vec<u8> = (0..4 << 20_u32).map(|i: u32| (i / 999).to_le_bytes()[0]).collect();
    File::create(folder.path().join("r.raw")).unwrap().write_all(&raw).unwrap();
    ok("qemu-img", folder.path(), &["convert", "-c", "-f", "raw", "-O", "qcow2", "r.raw", "a.qcow2"]);
    ok("qemu-io", folder.path(), &["-c", "write -P 1 1M 1M", "a.qcow2"]);
    ok("qemu-img", folder.path(), &["snapshot", "-c", "before", "a.qcow2"]);
    let path = folder.path().join("a.qcow2").to_str().unwrap().to_owned();
    let (image, _) = open(&NodeOptions::file(path).with("discard", "unmap"), OpenFlags::default()).unwrap();
    image.node.write_at(1000, &[0xaa; 200_000], false).unwrap();
    image.node.write_at((1 << 20) + 5, &[0xbb; 300_000], false).unwrap();
    image.node.discard(2 << 20, 500_000).unwrap();
    image.node.zero(3 << 20, 500_000, false).unwrap();
    image.node.flush().unwrap();
    drop(image);
    assert!(ok("qemu-img", folder.path(), &["check", "a.qcow2"]).starts_with("No errors were found on the image."));
    ok("qemu-io", folder.path(), &["-r", "-c", "read -P 0xaa 1000 200000", "a.qcow2"]);
    let read = ok("qemu-io", folder.path(), &["-r", "-c", "read -P 0xbb 1048581 300000", "a.qcow2"]);
    assert!(!read.contains("Pattern verification failed"), "{read}");
    ok("qemu-img", folder.path(), &["snapshot", "-a", "before", "a.qcow2"]);
    let read = ok("qemu-io", folder.path(), &["-r", "-c", "read -P 1 1M 1M", "a.qcow2"]);
    assert!(!read.contains("Pattern verification failed"), "{read}");
    assert!(ok("qemu-img", folder.path(), &["check", "a.qcow2"]).starts_with("No errors were found on the image."));
}

#[test]
fn a_backing_file_without_a_format_is_probed_recorded_and_named() {
    let folder = tempfile::tempdir().unwrap();
    ok(OURS, folder.path(), &["create", "-f", "qcow2", "base.img", "5M"]);
    let output = run(OURS, folder.path(), &["create", "-f", "qcow2", "-b", "base.img", "snapshot.img"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        text(&output.stdout),
        "Formatting 'snapshot.img', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=5242880 \
         backing_file=base.img backing_fmt=qcow2 lazy_refcounts=off refcount_bits=16\n"
    );
    assert_eq!(
        text(&output.stderr),
        "qemu-img: warning: snapshot.img: Backing file specified without backing format\nDetected format of qcow2.\n"
    );
    assert!(ok(OURS, folder.path(), &["info", "snapshot.img"]).contains("backing file format: qcow2\n"));
}

#[test]
fn a_raw_disk_goes_to_qcow2_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut raw = vec![0; 3 << 20];
    raw[100_000..300_000].fill(0x5a);
    File::create(folder.path().join("a.raw")).unwrap().write_all(&raw).unwrap();
    ok(OURS, folder.path(), &["convert", "-f", "raw", "-O", "qcow2", "-c", "a.raw", "b.qcow2"]);
    ok(OURS, folder.path(), &["check", "b.qcow2"]);
    ok(OURS, folder.path(), &["convert", "-O", "raw", "b.qcow2", "c.raw"]);
    assert_eq!(std::fs::read(folder.path().join("c.raw")).unwrap(), raw);
    assert_eq!(ok(OURS, folder.path(), &["compare", "a.raw", "b.qcow2"]), "Images are identical.\n");
}
