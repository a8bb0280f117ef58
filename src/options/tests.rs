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
