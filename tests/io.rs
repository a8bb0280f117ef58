//! Our `qemu-io` and QEMU's, run with the same commands on copies of the same image: the same words, the same exit
//! status, the same bytes. Needs `qemu-utils`; without it these tests say so and pass.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const OURS: &str = env!("CARGO_BIN_EXE_qemu-io");

/// What a run printed and returned, without what depends on time.
#[derive(PartialEq, Eq, Debug)]
struct Ran {
    out: String,
    err: String,
    status: Option<i32>,
}

/// "64 KiB, 1 ops; 00.00 sec (…)" and "65536,1,0:00:00.00,…" lose their times.
fn timeless(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).into_owned();
    let line = |line: &str| match (line.find(" ops; "), line.find(",1,0:00:00")) {
        (Some(at), _) => line[..at + 5].to_owned(),
        (_, Some(at)) => line[..at + 3].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn run(program: &str, folder: &Path, args: &[&str]) -> Ran {
    let output = Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    Ran { out: timeless(&output.stdout), err: timeless(&output.stderr), status: output.status.code() }
}

/// Runs commands with both programs on a copy each of an image that `qemu-img create` made, and compares.
fn same(create: &[&str], options: &[&str], commands: &[&str]) {
    if Command::new("qemu-io").arg("--version").output().is_err() {
        eprintln!("skipped: qemu-utils is not installed");
        return;
    }
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut args = options.to_vec();
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push("a.img");
    let ran = [("qemu-io", &folders[0]), (OURS, &folders[1])].map(|(program, folder)| {
        let made = Command::new("qemu-img").arg("create").arg("-q").args(create).current_dir(folder.path()).status();
        assert!(made.unwrap().success());
        run(program, folder.path(), &args)
    });
    assert_eq!(ran[1], ran[0], "left is ours");
    let bytes = folders.map(|folder| fs::read(folder.path().join("a.img")).unwrap());
    if create.contains(&"raw") {
        assert!(bytes[0] == bytes[1], "the images differ");
    }
}

const RAW: &[&str] = &["-f", "raw", "a.img", "1M"];
const QCOW2: &[&str] = &["-f", "qcow2", "a.img", "4M"];

#[test]
fn reads_and_writes() {
    same(
        RAW,
        &["-f", "raw"],
        &[
            "write -P 0xa 64k 64k",
            "read -P 0xa 64k 64k",
            "read -P 0xb -s 1k -l 1k 64k 64k",
            "read -v 65500 40",
            "read -C 0 64k",
            "write -q 0 1k",
            "writev -P 3 0 512 1k",
            "readv -v 0 16 16",
            "write -z 128k 64k",
            "write -z -u 64k 1k",
            "write -zn 0 512",
            "discard 0 64k",
            "discard -C 64k 64k",
            "w 1M 512",
            "read 1023k 2k",
            "write -s a.img 0 1k",
        ],
    );
}

#[test]
fn wrong_arguments() {
    same(
        RAW,
        &["-f", "raw"],
        &[
            "read 0",
            "read x 1",
            "read 0 -1",
            "r -Z 0 1",
            "read -P 256 0 512",
            "read 0 3G",
            "read -s 1k 0 64k",
            "read -P 1 -s 60k -l 8k 0 64k",
            "write -u 0 64k",
            "write -cf 0 1k",
            "write -z -P 1 0 1k",
            "write -s nope 0 512",
            "write 0 3G",
            "write -c 0 64k",
            "read -b 0 512",
            "aio_write -z 0 1k 1k",
            "alloc x",
            "alloc 1 2 3",
            "truncate x",
            "truncate -m foo 1M",
            "break a b",
            "remove_break a",
            "reopen x",
            "reopen -r -w",
            "reopen -c foo",
            "reopen -o foo=bar",
            "open a.img",
            "foo",
            "help foo",
            "sleep x",
            "sigraise x",
            "zone_report 0 1",
        ],
    );
}

#[test]
fn asynchronous_requests() {
    same(
        RAW,
        &["-f", "raw"],
        &["aio_write -P 5 0 1k 1k", "aio_flush", "aio_read -P 6 0 2k", "aio_flush", "aio_read -v 0 16", "aio_flush"],
    );
}

#[test]
fn what_is_known_of_an_image() {
    same(RAW, &["-f", "raw"], &["length", "alloc 0", "alloc 64k 10M", "alloc 10M", "map", "info"]);
    same(
        QCOW2,
        &["-f", "qcow2"],
        &["length", "write 64k 64k", "write -c 128k 64k", "map", "alloc 0 256k", "alloc 64k", "read -P 0 0 64k"],
    );
}

#[test]
fn lengths_change() {
    same(
        RAW,
        &["-f", "raw"],
        &["write 0 64k", "truncate 2M", "length", "truncate 1000", "length", "truncate -m falloc 1M", "length"],
    );
}

#[test]
fn images_are_closed_opened_and_reopened() {
    same(
        RAW,
        &["-f", "raw"],
        &[
            "reopen -r",
            "write 0 1k",
            "reopen -w",
            "write 0 1k",
            "close",
            "length",
            "open -r -o driver=raw a.img",
            "write 0 1k",
            "close",
            "open -o driver=raw,file.filename=a.img",
            "length",
            "quit",
            "length",
        ],
    );
    same(RAW, &["-f", "raw", "-r"], &["write -z 0 1k", "discard 0 1k", "truncate 1k", "flush"]);
    same(RAW, &["-f", "raw", "-U"], &["length"]);
    same(RAW, &["-f", "foo"], &["length"]);
    same(RAW, &["-t", "foo"], &["length"]);
    same(RAW, &["-f", "raw", "--object", "secret,id=s"], &["length"]);
}

#[test]
fn filters_and_injected_errors() {
    let rules = "blkdebug::a.img";
    let with = |options: &str| format!("driver=raw,file.driver=blkdebug,file.image.filename=a.img,{options}");
    // The image is named by the options here: `same` adds a.img as the last argument, which they must not see.
    let run_both = |args: &[&str]| {
        if Command::new("qemu-io").arg("--version").output().is_err() {
            return;
        }
        let ran = ["qemu-io", OURS].map(|program| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("a.img"), vec![0; 1 << 20]).unwrap();
            fs::write(folder.path().join("b.img"), vec![0; 1 << 20]).unwrap();
            run(program, folder.path(), args)
        });
        assert_eq!(ran[1], ran[0], "left is ours");
    };
    let once = with("file.inject-error.0.event=write_aio,file.inject-error.0.errno=28,file.inject-error.0.once=on");
    run_both(&["--image-opts", "-c", "write 0 64k", "-c", "write 0 64k", &once]);
    let read = with("file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.sector=8");
    run_both(&["--image-opts", "-c", "read 0 4k", "-c", "read 4k 512", "-c", "write 4k 512", &read]);
    run_both(&["--image-opts", "-c", "length", &with("file.inject-error.0.event=foo")]);
    run_both(&["--image-opts", "-c", "length", &with("file.inject-error.0.foo=1")]);
    run_both(&["--image-opts", "-c", "length", &with("file.foo=1")]);
    run_both(&[
        "-f",
        "raw",
        "-c",
        "break write_aio A",
        "-c",
        "aio_write 0 64k",
        "-c",
        "wait_break A",
        "-c",
        "resume A",
        "-c",
        "aio_flush",
        "-c",
        "break foo A",
        "-c",
        "remove_break A",
        rules,
    ]);
    let quorum = "driver=quorum,vote-threshold=2,children.0.driver=raw,children.0.file.filename=a.img,\
                  children.1.driver=raw,children.1.file.filename=b.img";
    run_both(&["--image-opts", "-c", "write -P 5 0 64k", "-c", "read -P 5 0 64k", quorum]);
    run_both(&["--image-opts", "-c", "length", &quorum.replace("threshold=2", "threshold=3")]);
    let throttle = "driver=throttle,throttle-group=x,file.driver=raw,file.file.filename=a.img";
    run_both(&["--image-opts", "-c", "length", throttle]);
    run_both(&[
        "--object",
        "throttle-group,id=x,limits.iops-total=1000",
        "--image-opts",
        "-c",
        "write 0 64k",
        throttle,
    ]);
}
