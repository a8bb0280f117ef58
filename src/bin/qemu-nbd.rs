//! The disk server: QEMU's `qemu-nbd`.

fn main() -> std::process::ExitCode {
    dromaius::img::nbd::main(std::env::args_os())
}
