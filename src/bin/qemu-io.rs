//! The disk exerciser: QEMU's `qemu-io`.

fn main() -> std::process::ExitCode {
    dromaius::img::io::main(std::env::args_os())
}
