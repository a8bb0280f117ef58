//! The machine emulator: QEMU's `qemu-kvm` and `qemu-system-x86_64`.

fn main() -> std::process::ExitCode {
    dromaius::process::main(std::env::args_os())
}
