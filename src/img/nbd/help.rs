//! What the program says about itself.

use crate::img::QEMU_VERSION;
use crate::img::args::{Spec, flag, long, value};

/// The program's options.
pub(super) const OPTIONS: &[Spec] = &[
    flag('h', "help"),
    flag('V', "version"),
    value('p', "port"),
    value('b', "bind"),
    value('k', "socket"),
    value('e', "shared"),
    flag('t', "persistent"),
    flag('v', "verbose"),
    value('x', "export-name"),
    value('D', "description"),
    long("handshake-limit", true),
    value('o', "offset"),
    flag('A', "allocation-depth"),
    value('B', "bitmap"),
    flag('L', "list"),
    long("object", true),
    long("tls-creds", true),
    long("tls-authz", true),
    long("tls-hostname", true),
    value('T', "trace"),
    long("fork", false),
    long("pid-file", true),
    long("selinux-label", true),
    value('c', "connect"),
    flag('d', "disconnect"),
    value('f', "format"),
    flag('r', "read-only"),
    flag('s', "snapshot"),
    value('l', "load-snapshot"),
    flag('n', "nocache"),
    long("cache", true),
    long("aio", true),
    long("discard", true),
    long("detect-zeroes", true),
    long("image-opts", false),
];

pub(super) fn version() -> String {
    format!(
        "qemu-nbd {QEMU_VERSION} (Dromaius {})\nCopyright (c) 2026 the Dromaius developers\n",
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn usage() -> String {
    "Usage: qemu-nbd [OPTIONS] FILE\n\
     \x20 or:  qemu-nbd -L [OPTIONS]\n\
     Shows a disk image by the NBD protocol, or lists what a server shows\n\
     \n\
     \x20 -p, --port=PORT           TCP port (10809)\n\
     \x20 -b, --bind=ADDRESS        address to listen on (0.0.0.0)\n\
     \x20 -k, --socket=PATH         UNIX socket instead\n\
     \x20 -e, --shared=NUM          clients at a time (1); 0: any number\n\
     \x20 -t, --persistent          go on when the last client left\n\
     \x20 -v, --verbose             say what happens\n\
     \x20 -x, --export-name=NAME    the export's name (empty)\n\
     \x20 -D, --description=TEXT    for people\n\
     \x20     --handshake-limit=N   seconds that a client may take to choose an export (10); 0: for ever\n\
     \x20 -o, --offset=BYTES        show the image from here\n\
     \x20 -A, --allocation-depth    offer qemu:allocation-depth\n\
     \x20 -B, --bitmap=NAME         offer a persistent bitmap as qemu:dirty-bitmap:NAME\n\
     \x20 -L, --list                list another server's exports\n\
     \x20     --object OBJECT       make an object, for instance a 'secret'\n\
     \x20     --fork                go to the background when clients can connect\n\
     \x20     --pid-file=PATH       write the process's number here\n\
     \x20 -f, --format=FORMAT       the image's format\n\
     \x20 -r, --read-only           no writes\n\
     \x20 -s, --snapshot            write to a temporary overlay\n\
     \x20 -l, --load-snapshot=NAME  show an internal snapshot, read-only\n\
     \x20 -n, --nocache             same as --cache=none\n\
     \x20     --cache=MODE          cache mode\n\
     \x20     --aio=MODE            how the host is asked (threads, native or io_uring)\n\
     \x20     --discard=MODE        what discards do (unmap)\n\
     \x20     --detect-zeroes=MODE  off, on or unmap\n\
     \x20     --image-opts          FILE is a list of options\n\
     \n\
     Not in this version: --tls-creds, --tls-authz, --tls-hostname, --trace, --selinux-label, --connect, --disconnect\n"
        .to_owned()
}
