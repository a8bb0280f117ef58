//! The disk image tool: QEMU's `qemu-img`.

fn main() -> std::process::ExitCode {
    dromaius::img::main(std::env::args_os())
}
