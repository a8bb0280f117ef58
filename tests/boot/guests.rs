//! Programs of ours in 16-, 32- and 64-bit mode, from a ROM, a boot sector and by `-kernel`.

use crate::machine::{Folder, accelerators, has_kvm};

const QUIET: &str = "-display none -device isa-debug-exit,iobase=0xf4,iosize=1 -debugcon file:debugcon";

/// Runs a guest to its end: what it wrote to the debug console, and the exit status.
fn run(folder: &Folder, accel: &str, line: &str) -> (String, i32) {
    let code = folder.start_line(&format!("-accel {accel} {QUIET} {line}")).exit_code();
    (folder.text("debugcon").replace('\0', ""), code)
}

/// Checks what a guest does on each accelerator.
fn check(guest: &str, line: &str, text: &str, code: i32) {
    let folder = Folder::new();
    folder.assemble(guest);
    for accel in accelerators() {
        assert_eq!(run(&folder, accel, line), (text.to_owned(), code), "-accel {accel}");
    }
}

#[test]
fn a_rom_leaves_with_its_first_instruction() {
    check("exit-rom", "-bios exit-rom.bin", "", 1);
}

#[test]
fn a_boot_sector_reads_its_disk_through_the_bios() {
    check("sector16", "-drive file=sector16.bin,format=raw", "Hello from 16-bit mode. Sector two was read.\r\n", 33);
}

#[test]
fn the_second_processor_starts_by_ipi() {
    check("smp16", "-smp 2 -drive file=smp16.bin,format=raw", "CPU 1 ran.", 35);
}

/// Runs a guest with the interrupt controllers of the machine, beside the kernel's local APICs or without.
fn run_on_ours(guest: &str, line: &str) -> Vec<(String, i32)> {
    let folder = Folder::new();
    folder.assemble(guest);
    let modes = if has_kvm() { ["split", "off"].as_slice() } else { &[] };
    modes.iter().map(|mode| run(&folder, "kvm", &format!("-machine kernel_irqchip={mode} {line}"))).collect()
}

#[test]
fn the_second_processor_starts_by_ipi_without_the_kernels_interrupt_controllers() {
    for (text, code) in run_on_ours("smp16", "-smp 2 -drive file=smp16.bin,format=raw") {
        assert_eq!((text.as_str(), code), ("CPU 1 ran.", 35));
    }
}

#[test]
fn a_boot_sector_reads_its_disk_without_the_kernels_interrupt_controllers() {
    for (text, code) in run_on_ours("sector16", "-drive file=sector16.bin,format=raw") {
        assert_eq!((text.as_str(), code), ("Hello from 16-bit mode. Sector two was read.\r\n", 33));
    }
}

/// Not with `split` here: kvm_pvm does not report the EOI of a level, neither to us nor to QEMU.
#[test]
fn interrupts_come_each_way_from_the_kernel_and_from_us() {
    let folder = Folder::new();
    folder.assemble("apic-rom");
    let kvm = ["kvm,kernel-irqchip=on", "kvm,kernel-irqchip=off"];
    for accel in ["tcg"].iter().chain(if has_kvm() { kvm.as_slice() } else { &[] }) {
        let (text, code) = run(&folder, accel, "-L . -bios apic-rom.bin");
        assert_eq!((text.as_str(), code), ("PELTS", 37), "-accel {accel}");
    }
}

#[test]
fn without_smp_there_is_no_second_processor() {
    check("smp16", "-drive file=smp16.bin,format=raw", "CPU 1 is missing.", 255);
}

#[test]
fn a_multiboot_kernel_gets_its_command_line() {
    check("multiboot", "-kernel multiboot.elf -append one", "Hello from 32-bit mode: multiboot.elf one", 37);
}

#[test]
fn a_multiboot_kernel_finds_its_module() {
    let folder = Folder::new();
    folder.assemble("multiboot");
    std::fs::write(folder.path("module"), b"; the module\0").unwrap();
    for accel in accelerators() {
        let (text, code) = run(&folder, accel, "-kernel multiboot.elf -append one -initrd module");
        let expected = "Hello from 32-bit mode: multiboot.elf one; the module";
        assert_eq!((text.as_str(), code), (expected, 37), "-accel {accel}");
    }
}

#[test]
fn a_pvh_kernel_enters_64_bit_mode() {
    check("pvh64", "-kernel pvh64.elf -append two", "Hello from 64-bit mode: two", 39);
}

#[test]
fn a_program_writes_flash_memory_and_the_image_keeps_it() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("flash32");
        let bios = ["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"].map(std::fs::read);
        let bios = bios.into_iter().find_map(Result::ok).expect("the package seabios is installed");
        std::fs::write(folder.path("bios"), bios).unwrap();
        let mut image = vec![0; 64 << 10];
        image[..4].copy_from_slice(b"Dmi0");
        std::fs::write(folder.path("vars"), &image).unwrap();
        let flash = "-drive if=pflash,format=raw,readonly=on,file=bios -drive if=pflash,format=raw,file=vars";
        let (_, code) = run(&folder, accel, &format!("-kernel flash32.elf {flash}"));
        assert_eq!(code, 39);
        image[0x1000..0x2000].fill(0xff);
        image[0x1000..0x1004].copy_from_slice(b"kept");
        assert!(std::fs::read(folder.path("vars")).unwrap() == image);
    }
}

/// What the guest `clocks-rom` sees of the clocks when each instruction takes 8 virtual nanoseconds.
fn clocks() -> String {
    let folder = Folder::new();
    folder.assemble("clocks-rom");
    let line = "-icount shift=3,sleep=off -rtc clock=vm,base=2020-01-01 -nodefaults -vga none -bios clocks-rom.bin";
    let (text, code) = run(&folder, "tcg", &format!("-L . {line}"));
    assert_eq!(code, 39, "{text}");
    text
}

#[test]
fn with_icount_clocks_show_the_same_in_each_run() {
    let text = clocks();
    assert_eq!(text.lines().count(), 80);
    let seconds: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!((seconds.first(), seconds.last()), (Some(&"00"), Some(&"02")), "{text}");
    assert_eq!(clocks(), text);
}
