//! What the program says about itself.

use super::command::{COMMANDS, Command};
use crate::img::QEMU_VERSION;
use crate::img::args::{Spec, flag, long, value};

/// The program's options.
pub(super) const OPTIONS: &[Spec] = &[
    flag('h', "help"),
    flag('V', "version"),
    value('c', "cmd"),
    value('f', "format"),
    flag('r', "read-only"),
    flag('s', "snapshot"),
    flag('n', "nocache"),
    flag('C', "copy-on-read"),
    flag('m', "misalign"),
    flag('k', "native-aio"),
    value('i', "aio"),
    value('t', "cache"),
    value('d', "discard"),
    value('T', "trace"),
    flag('U', "force-share"),
    long("object", true),
    long("image-opts", false),
];

pub(super) fn version() -> String {
    format!(
        "qemu-io version {QEMU_VERSION} (Dromaius {})\nCopyright (c) 2026 the Dromaius developers\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn usage() -> String {
    "Usage: qemu-io [OPTIONS]... [-c COMMAND]... [FILE]\n\
     Reads and writes disk images by commands\n\
     \n\
     \x20 --object OBJECT      make an object, for instance a 'secret'\n\
     \x20 --image-opts         FILE is a list of options\n\
     \x20 -c, --cmd COMMAND    run this command; without any, commands are read from standard input\n\
     \x20 -f, --format FMT     the image's format\n\
     \x20 -r, --read-only      open the image for reading only\n\
     \x20 -s, --snapshot       write to a temporary overlay\n\
     \x20 -n, --nocache        same as -t none\n\
     \x20 -C, --copy-on-read   keep what is read from backing files\n\
     \x20 -m, --misalign       use buffers at odd addresses\n\
     \x20 -k, --native-aio     same as -i native\n\
     \x20 -i, --aio=MODE       how the host is asked (threads, native or io_uring)\n\
     \x20 -t, --cache=MODE     cache mode\n\
     \x20 -d, --discard=MODE   what discards do\n\
     \x20 -T, --trace ITEMS    not in this version\n\
     \x20 -U, --force-share    open the image although others write it\n\
     \x20 -h, --help           print this text\n\
     \x20 -V, --version        print the version\n\
     \n\
     'qemu-io -c help' lists the commands.\n"
        .to_owned()
}

/// One line a command.
pub(super) fn commands() -> String {
    let lines: String = COMMANDS.iter().map(Command::usage).collect();
    format!("{lines}\nUse 'help commandname' for extended help.\n")
}

/// A command's line, and what its options mean.
pub(super) fn command(command: &Command) -> String {
    let mut out = command.usage();
    let letters = details(command.name);
    if !letters.is_empty() {
        out.push('\n');
        for (letter, what) in letters {
            out.push_str(&format!(" -{letter}, -- {what}\n"));
        }
        out.push('\n');
    }
    out
}

const QUIET: (char, &str) = ('q', "print no report");
const TERSE: (char, &str) = ('C', "report in one line of numbers, for programs");
const REGISTER: (char, &str) = ('r', "register the buffer with the host first; of no effect here");
const VERBOSE: (char, &str) = ('v', "print the bytes that were read");
const COMPARE: (char, &str) = ('P', "compare what was read with this byte");
const FILL: (char, &str) = ('P', "write this byte instead of 0xcd");
const FUA: (char, &str) = ('f', "return when the data is on stable storage");

fn details(name: &str) -> &'static [(char, &'static str)] {
    match name {
        "read" => &[
            ('b', "read the machine's state, not the disk"),
            TERSE,
            ('l', "how many bytes to compare (with -P)"),
            ('p', "accepted for old scripts"),
            COMPARE,
            QUIET,
            REGISTER,
            ('s', "where to begin comparing (with -P)"),
            VERBOSE,
        ],
        "readv" => &[TERSE, COMPARE, QUIET, REGISTER, VERBOSE],
        "aio_read" => &[TERSE, ('i', "account a failed request"), COMPARE, QUIET, REGISTER, VERBOSE],
        "write" => &[
            ('b', "write the machine's state, not the disk"),
            ('c', "write compressed"),
            TERSE,
            FUA,
            ('n', "fail where zeros would have to be written as data (with -z)"),
            ('p', "accepted for old scripts"),
            FILL,
            QUIET,
            REGISTER,
            ('s', "fill the buffer from this file"),
            ('u', "give storage back (with -z)"),
            ('z', "write zeros without data"),
        ],
        "writev" => &[TERSE, FUA, FILL, QUIET, REGISTER],
        "aio_write" => &[
            TERSE,
            FUA,
            ('i', "account a failed request"),
            FILL,
            QUIET,
            REGISTER,
            ('u', "give storage back (with -z)"),
            ('z', "write zeros without data"),
        ],
        "discard" => &[TERSE, QUIET],
        "open" => &[
            ('r', "for reading only"),
            ('s', "write to a temporary overlay"),
            ('C', "keep what is read from backing files"),
            ('n', "same as -t none"),
            ('U', "although others write it"),
            ('k', "same as -i native"),
            ('i', "how the host is asked (threads, native or io_uring)"),
            ('t', "cache mode"),
            ('d', "what discards do"),
            ('o', "options of the driver"),
        ],
        "reopen" => &[
            ('r', "for reading only"),
            ('w', "for reading and writing"),
            ('c', "cache mode"),
            ('o', "options of the driver"),
        ],
        _ => &[],
    }
}
