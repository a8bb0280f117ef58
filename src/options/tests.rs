//! Command lines and what they come to. Messages were taken from QEMU 10.0.2 (`qemu-system-x86_64`), with its program
//! name replaced by ours, unless a comment says otherwise.

use super::*;

fn run(line: &str) -> Result<Parsed, Failure> {
    let args = std::iter::once("/usr/bin/qemu-kvm").chain(line.split_whitespace()).map(OsString::from);
    parse(args, &Tables::default())
}

fn config(line: &str) -> Config {
    match run(line) {
        Ok(Parsed::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_first_command_of_the_manual_makes_its_machine() {
    let config = config("-m 128 -smp 2 -name test -hda disk.qcow2");
    assert_eq!(config.name.as_deref(), Some("test"));
    assert_eq!(config.memory.size, 128 << 20);
    assert_eq!((config.smp.cpus, config.smp.cores, config.smp.sockets), (2, 2, 1));
    assert_eq!(config.drives.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(), ["ide0-hd0", "ide1-cd0"]);
    assert_eq!(
        config.chardevs.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(),
        ["compat_monitor0", "serial0", "parallel0"]
    );
}

/// Our text without what we add to QEMU's.
fn without_hints(text: &str) -> String {
    let ours = |line: &&str| !(line.starts_with("Did you mean '") || line.starts_with("Use '"));
    text.lines().filter(ours).collect::<Vec<_>>().join("\n")
}

#[test]
fn refusals_read_as_qemus() {
    let mut wrong = Vec::new();
    for case in include_str!("golden.txt").split("\n$ ").map(|case| case.trim_start_matches("$ ")) {
        let (line, expected) = case.split_once('\n').unwrap();
        let args = std::iter::once("qemu-kvm").chain(line.split(' ')).map(OsString::from);
        let ours = match parse(args, &Tables::default()) {
            Err(failure) => without_hints(&failure.text),
            Ok(Parsed::Run(_)) => "(runs)".to_owned(),
            Ok(Parsed::Print { .. }) => "(prints)".to_owned(),
        };
        if ours != expected.trim_end_matches('\n') {
            wrong.push(format!("{line}\n  QEMU: {}\n  ours: {ours}", expected.trim_end_matches('\n')));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
