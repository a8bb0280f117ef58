//! Register programs that were recorded on QEMU 10.0.2, and what it answered.
//!
//! One step a line: `o PORT VALUE` and `i PORT VALUE` are byte accesses, `S PORT HEX` and `s PORT HEX` write and read
//! the data port in words (`HEX/N`: zeros up to N bytes), `w` waits for the disks, `#` names what follows. Where this
//! model differs on purpose, QEMU's answer follows after `!`: it holds to the specification where QEMU checks less
//! (IDNF for addresses out of range, reserved transfer modes), tells more (SMART logs, CHECK POWER MODE), or keeps what
//! guests set (translation, block size).

use super::*;

/// The digits that `HEX` or `HEX/N` stands for.
fn hex(text: &str) -> String {
    let (digits, bytes) = text.split_once('/').unwrap_or((text, "0"));
    let len = digits.len().max(2 * bytes.parse::<usize>().unwrap());
    format!("{digits:0<len$}")
}

/// Plays a recording and gives the answers that differ.
fn play(text: &str) -> Vec<String> {
    let mut b = Bench::new();
    let mut name = "";
    let mut differences = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(comment) = line.strip_prefix('#') {
            name = comment.trim();
            continue;
        }
        let mut fields = line.split_whitespace();
        let (step, port, value) = (fields.next(), fields.next(), fields.next().unwrap_or_default());
        let port = port.map_or(0, |port| u16::from_str_radix(port, 16).unwrap());
        let (region, offset) = match port {
            0x1f0..=0x1f7 => (PRIMARY_COMMAND, u64::from(port - 0x1f0)),
            0x170..=0x177 => (SECONDARY_COMMAND, u64::from(port - 0x170)),
            0x3f6 => (PRIMARY_CONTROL, 0),
            _ => (SECONDARY_CONTROL, 0),
        };
        let at = At { region, offset, width: Width::B1 };
        let data = At { width: Width::B2, ..at };
        match step {
            Some("w") => b.run(),
            Some("o") => b.ide.write(at, u64::from_str_radix(value, 16).unwrap()),
            Some("i") => {
                let read = format!("{:02x}", b.ide.read(at));
                if read != value {
                    differences.push(format!("{}: {name}: port {port:x} is {read}, not {value}", number + 1));
                }
            }
            Some("s") => {
                let value = &hex(value);
                let read: String =
                    (0..value.len() / 4).map(|_| format!("{:04x}", (b.ide.read(data) as u16).swap_bytes())).collect();
                if read != *value {
                    differences.push(format!("{}: {name}: data is\n{read}\nnot\n{value}", number + 1));
                }
            }
            Some("S") => {
                let value = &hex(value);
                for at in (0..value.len()).step_by(4) {
                    let word = u16::from_str_radix(&value[at..at + 4], 16).unwrap().swap_bytes();
                    b.ide.write(data, u64::from(word));
                }
            }
            _ => {}
        }
    }
    differences
}

#[test]
fn disks_answer_as_recorded() {
    assert_eq!(play(include_str!("ata.txt")), Vec::<String>::new());
}

#[test]
fn cdroms_answer_as_recorded() {
    assert_eq!(play(include_str!("atapi.txt")), Vec::<String>::new());
}
