//! Runs the table of command lines (`commands.txt`) with QEMU's tool and ours and compares what they say.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{OURS, qemu_is_here, run, text};

/// After these a line holds what changes from run to run, or where an image's clusters are in its file.
const VARYING: [&str; 8] = [
    "disk size: ",
    "file length: ",
    "Image end offset: ",
    "% allocated, ",
    "\"actual-size\": ",
    "                \"virtual-size\": ",
    "Run completed in ",
    "persistent bitmaps to #block",
];

/// What a command said and how it ended, with what changes from run to run blotted out.
#[derive(PartialEq, Eq)]
struct Said {
    out: String,
    err: String,
    status: Option<i32>,
}

/// The words of a line: quotes of both kinds keep spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn tool(folder: &Path, words: &[String]) {
    let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let output = run(&words[0], folder, &args);
    assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
}

/// base.qcow2 <- mid.qcow2 <- a.qcow2, each with a megabyte of its own, and an empty raw image.
fn chain(folder: &Path) {
    for line in [
        "qemu-img create -q -f qcow2 base.qcow2 4M",
        "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
        "qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 a.qcow2",
        "qemu-img create -q -f raw r.raw 4M",
        "qemu-io -c 'write -P 1 0 1M' base.qcow2",
        "qemu-io -c 'write -P 3 256k 1M' mid.qcow2",
        "qemu-io -c 'write -P 2 512k 1M' a.qcow2",
    ] {
        tool(folder, &words(line));
    }
}

fn say(program: &str, folder: &Path, args: &[String]) -> Said {
    let mut command = Command::new(program);
    let output = command.arg0("qemu-img").args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    Said { out: blotted(&text(&output.stdout)), err: blotted(&text(&output.stderr)), status: output.status.code() }
}

/// Dates, times, sizes on the host, and how often a progress line was shown.
fn blotted(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let line = match line.rfind("/100%)\r") {
            Some(end) => format!("PROGRESS{}", &line[end + "/100%)\r".len()..]),
            None => line.to_owned(),
        };
        let blotted = VARYING.iter().find_map(|start| line.find(start).map(|at| format!("{}{start}X\n", &line[..at])));
        out.push_str(&blotted.unwrap_or(line));
    }
    without_dates(&out)
}

/// "2026-11-20 11:33:03" becomes "DATE".
fn without_dates(text: &str) -> String {
    let shape = "dddd-dd-dd dd:dd:dd";
    let fits = |at: usize| {
        let Some(part) = text.as_bytes().get(at..at + shape.len()) else { return false };
        shape
            .bytes()
            .zip(part)
            .all(|(wanted, byte)| if wanted == b'd' { byte.is_ascii_digit() } else { *byte == wanted })
    };
    let mut out = String::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        if fits(at) {
            out.push_str("DATE");
            rest.nth(shape.len() - 2);
        } else {
            out.push(c);
        }
    }
    out
}

#[test]
fn command_lines_say_and_return_what_qemu_does() {
    if !qemu_is_here() {
        return;
    }
    let mut case = "";
    let mut folders = None;
    let mut wrong = String::new();
    for line in include_str!("commands.txt").lines() {
        if let Some(name) = line.strip_prefix("== ") {
            case = name;
            folders = Some((tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()));
            continue;
        }
        let Some((theirs, ours)) = folders.as_ref().map(|(a, b)| (a.path(), b.path())) else { continue };
        if line == "chain" {
            chain(theirs);
            chain(ours);
        } else if let Some(line) = line.strip_prefix("! ") {
            tool(theirs, &words(line));
            tool(ours, &words(line));
        } else if let Some(command) = line.strip_prefix("$ qemu-img") {
            let args = words(command);
            let (wanted, got) = (say("qemu-img", theirs, &args), say(OURS, ours, &args));
            if wanted != got {
                wrong.push_str(&format!(
                    "[{case}] {line}\nQEMU: {:?}\n{}{}ours: {:?}\n{}{}\n",
                    wanted.status, wanted.out, wanted.err, got.status, got.out, got.err
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
