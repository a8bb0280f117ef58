//! What the firmware is told through fw_cfg: memory, CPUs, boot order, ACPI, SMBIOS, a kernel.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::host::reason;
use crate::hw::acpi::{self, AcpiChipset, AcpiConfig, ExtraTable};
use crate::hw::chipset::fw_cfg::{FwCfg, FwCfgBuilder, key};
use crate::hw::chipset::q35::mch::{EcamBase, Mch};
use crate::hw::firmware::{self, BootPlan, KernelError, KernelFiles, rom};
use crate::hw::smbios::{self, Processors, SmbiosConfig};

use super::build::BuildError;
use super::chips::ChipOptions;
use super::config::{BootSpec, Chipset, Config, FwCfgSource, KernelSpec};
use super::layout::{RamLayout, effective_order};

/// What only the builder knows of the machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// RAM.
    pub layout: RamLayout,
    /// APIC id of each possible CPU, and whether it is there.
    pub cpus: Vec<(u32, bool)>,
    /// CPUID leaf 1, EAX and EDX.
    pub signature: (u32, u32),
    /// There is an HPET.
    pub hpet: bool,
    /// Port and interrupt of each serial port.
    pub serial_ports: Vec<(u16, u8)>,
    /// Port and interrupt of each parallel port.
    pub parallel_ports: Vec<(u16, u8)>,
    /// Open-firmware paths of what has a boot index, best first.
    pub boot_paths: Vec<String>,
    /// There is no display.
    pub nographic: bool,
}

/// The last address of PCI memory below 4 GiB; the chipset's registers follow.
const PCI_HOLE_LAST: u64 = 0xfebf_ffff;

/// Where 32-bit PCI memory may be: behind RAM, but for the memory window on configuration space.
fn pci_holes(layout: RamLayout, chipset: AcpiChipset) -> Vec<(u32, u32)> {
    let first = match chipset {
        AcpiChipset::Piix if layout.above_4g > 0 => 0xc000_0000,
        AcpiChipset::Piix => layout.below_4g.next_multiple_of(1 << 20).min(0xe000_0000),
        AcpiChipset::Ich9 { .. } => layout.below_4g.next_multiple_of(1 << 20),
    };
    let pieces = match chipset {
        AcpiChipset::Ich9 { ecam } if (first..PCI_HOLE_LAST).contains(&ecam) => {
            vec![(first, ecam), (ecam + u64::from(acpi::ECAM_LEN), PCI_HOLE_LAST + 1)]
        }
        _ => vec![(first, PCI_HOLE_LAST + 1)],
    };
    let filled = pieces.into_iter().filter(|(first, end)| first < end);
    filled.filter_map(|(first, end)| Some((u32::try_from(first).ok()?, u32::try_from(end - 1).ok()?))).collect()
}

/// What the chipset is to the tables, while the memory window is at `ecam`.
fn acpi_chipset(config: &Config, ecam: u64) -> AcpiChipset {
    match config.machine.chipset() {
        Chipset::I440fx => AcpiChipset::Piix,
        Chipset::Q35 => AcpiChipset::Ich9 { ecam },
    }
}

/// Room for what the tables may grow by when the window moves.
const ACPI_SLACK: usize = 256;

/// Makes the ACPI files follow the memory window on configuration space, which firmware places before it asks for them.
pub fn follow_window(cfg: &mut FwCfg, config: &Config, facts: &Facts, window: &EcamBase) -> Result<(), BuildError> {
    if config.machine.chipset() == Chipset::I440fx {
        return Ok(());
    }
    let (layout, window) = (facts.layout, Arc::clone(window));
    let mut tables = acpi_config(config, facts, Mch::ECAM_DEFAULT)?;
    let names = [acpi_names::TABLES, acpi_names::RSDP, acpi_names::LOADER];
    let make = move || {
        tables.chipset = AcpiChipset::Ich9 { ecam: window.load(Ordering::Relaxed) };
        tables.pci_holes = pci_holes(layout, tables.chipset);
        let blobs = acpi::build(&tables);
        Some(names.into_iter().zip([blobs.tables, blobs.rsdp, blobs.loader]).collect())
    };
    cfg.set_late_files(&names, Box::new(make));
    Ok(())
}

/// Fills fw_cfg in.
///
/// # Errors
/// A file that the command line names cannot be used.
pub fn fill(config: &Config, facts: &Facts) -> Result<FwCfgBuilder, BuildError> {
    let mut cfg = FwCfgBuilder::new();
    let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    cfg.add_u16(key::NB_CPUS, count(facts.cpus.iter().filter(|(_, present)| *present).count()));
    let highest = facts.cpus.iter().map(|(id, _)| id + 1).max().unwrap_or(1);
    cfg.add_u16(key::MAX_CPUS, u16::try_from(highest).unwrap_or(u16::MAX));
    cfg.add_u64(key::RAM_SIZE, facts.layout.below_4g + facts.layout.above_4g);
    cfg.add_u16(key::NOGRAPHIC, u16::from(facts.nographic));
    cfg.add_bytes(key::UUID, config.uuid.unwrap_or_default().to_vec());
    cfg.add_u32(key::IRQ0_OVERRIDE, 1);
    cfg.add_bytes(key::NUMA, numa(facts.cpus.len()));
    let mut file = |cfg: &mut FwCfgBuilder, name: &str, bytes: Vec<u8>| {
        cfg.add_file(name, bytes).map_err(|error| BuildError::Text(error.to_string()))
    };
    file(&mut cfg, "etc/e820", facts.layout.e820())?;
    let chips = ChipOptions::read(config)?;
    // One byte a sleep state: bit 7 offers it, the rest is its type. S0, S3, S4 and S5 exist.
    let offered = |disabled: u8, kind: u8| if disabled == 0 { 0x80 | kind } else { kind };
    let (s3, s4) = (offered(chips.disable_s3, 1), offered(chips.disable_s4, chips.s4_type));
    file(&mut cfg, "etc/system-states", vec![0x80, 0, 0, s3, s4, 0x80])?;

    boot(&mut cfg, config, facts, &mut file)?;
    let mut tables = acpi::build(&acpi_config(config, facts, Mch::ECAM_DEFAULT)?);
    if config.machine.chipset() == Chipset::Q35 {
        tables.tables.resize(tables.tables.len() + ACPI_SLACK, 0);
    }
    file(&mut cfg, acpi_names::TABLES, tables.tables)?;
    file(&mut cfg, acpi_names::RSDP, tables.rsdp)?;
    file(&mut cfg, acpi_names::LOADER, tables.loader)?;
    let blobs =
        smbios::build(&smbios_config(config, facts)).map_err(|error| BuildError::Text(format!("-smbios: {error}")))?;
    file(&mut cfg, "etc/smbios/smbios-anchor", blobs.anchor)?;
    file(&mut cfg, "etc/smbios/smbios-tables", blobs.tables)?;
    if let Some(kernel) = &config.kernel {
        let plan = load_kernel(kernel, facts.layout)?;
        let image = add_kernel(&mut cfg, plan);
        file(&mut cfg, &format!("genroms/{KERNEL_ROM}"), image)?;
    }
    for item in &config.fw_cfg {
        let bytes = match &item.source {
            FwCfgSource::Text(text) => text.clone().into_bytes(),
            FwCfgSource::File(path) => read_file(path).map_err(|error| {
                BuildError::Text(format!("-fw_cfg: can't load {}: {}", path.display(), reason(&error)))
            })?,
        };
        file(&mut cfg, &item.name, bytes)?;
    }
    Ok(cfg)
}

/// The fw_cfg names of the ACPI files.
pub mod acpi_names {
    /// All tables.
    pub const TABLES: &str = "etc/acpi/tables";
    /// The root pointer.
    pub const RSDP: &str = "etc/acpi/rsdp";
    /// The loader's script.
    pub const LOADER: &str = "etc/table-loader";
}

/// The boot ROM's file name, which the firmware also uses in its boot order.
const KERNEL_ROM: &str = "dromaius-kernel.rom";

/// One node with all CPUs: counts and maps of 64-bit words, no memory ranges.
fn numa(cpus: usize) -> Vec<u8> {
    vec![0; 8 * (1 + cpus)]
}

type AddFile<'a> = dyn FnMut(&mut FwCfgBuilder, &str, Vec<u8>) -> Result<(), BuildError> + 'a;

/// `-boot` and boot indexes.
fn boot(cfg: &mut FwCfgBuilder, config: &Config, facts: &Facts, file: &mut AddFile<'_>) -> Result<(), BuildError> {
    let BootSpec { order: _, once: _, menu, splash, splash_time_ms, reboot_timeout_ms, strict } = &config.boot;
    let first = effective_order(&config.boot, true).bytes().next().unwrap_or(b'c');
    cfg.add_u16(key::BOOT_DEVICE, u16::from(first));
    cfg.add_u16(key::BOOT_MENU, u16::from(menu.unwrap_or(false)));
    let mut order = String::new();
    if config.kernel.is_some() {
        order.push_str(&format!("/rom@genroms/{KERNEL_ROM}\n"));
    }
    for path in &facts.boot_paths {
        order.push_str(path);
        order.push('\n');
    }
    if *strict && !order.is_empty() {
        order.push_str("HALT\n");
    }
    let mut order = order.into_bytes();
    if !order.is_empty() {
        // Lines, the last one ended by a zero byte.
        order.pop();
        order.push(0);
    }
    file(cfg, "bootorder", order)?;
    let timeout = reboot_timeout_ms.map_or(u32::MAX, u32::from);
    file(cfg, "etc/boot-fail-wait", timeout.to_le_bytes().to_vec())?;
    if let Some(time) = splash_time_ms {
        file(cfg, "etc/boot-menu-wait", time.to_le_bytes().to_vec())?;
    }
    if let Some(splash) = splash {
        let bytes = read_file(Path::new(splash)).map_err(|error| {
            BuildError::Text(format!("-boot splash: could not read '{splash}': {}", reason(&error)))
        })?;
        // JPEG begins with FFD8h, BMP with "BM": the firmware shows these two kinds.
        let name = match bytes.get(..2) {
            Some([0xff, 0xd8]) => "bootsplash.jpg",
            Some(b"BM") => "bootsplash.bmp",
            _ => {
                return Err(BuildError::Text(format!(
                    "-boot splash: '{splash}' format not recognized; must be jpeg or 24 bit bmp"
                )));
            }
        };
        file(cfg, name, bytes)?;
    }
    Ok(())
}

fn property<'a>(config: &'a Config, name: &str) -> Option<&'a str> {
    config.machine.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    for (byte, letter) in bytes.iter_mut().zip(text.bytes()) {
        *byte = letter;
    }
    bytes
}

fn acpi_config(config: &Config, facts: &Facts, ecam: u64) -> Result<AcpiConfig, BuildError> {
    let chipset = acpi_chipset(config, ecam);
    let chips = ChipOptions::read(config)?;
    let mut extra = Vec::new();
    for table in &config.acpi_tables {
        extra.push(acpi_table(table)?);
    }
    let end = facts.layout.end().max(1 << 32).next_multiple_of(1 << 30);
    Ok(AcpiConfig {
        cpus: facts.cpus.clone(),
        hpet: facts.hpet,
        serial_ports: facts.serial_ports.clone(),
        parallel_ports: facts.parallel_ports.clone(),
        pci_holes: pci_holes(facts.layout, chipset),
        pci_hole_64: match chipset {
            AcpiChipset::Piix => (facts.layout.above_4g > 0).then(|| (end, end + (32 << 30) - 1)),
            // Firmware that has 64 bits uses the top of the smallest address space that processors have today.
            AcpiChipset::Ich9 { .. } => Some((end, (1 << 40) - 1)),
        },
        chipset,
        s3: chips.disable_s3 == 0,
        s4: (chips.disable_s4 == 0).then_some(chips.s4_type),
        i8042: true,
        extra,
        oem_id: padded(property(config, "x-oem-id").unwrap_or("DROMAI")),
        oem_table_id: padded(property(config, "x-oem-table-id").unwrap_or("DROMAIUS")),
    })
}

/// `-acpitable`: whole tables from files, with fields of the header replaced.
fn acpi_table(options: &[(String, String)]) -> Result<ExtraTable, BuildError> {
    let fail = |text: String| BuildError::Text(format!("-acpitable: {text}"));
    let get = |name: &str| options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    const KNOWN: &[&str] =
        &["sig", "rev", "oem_id", "oem_table_id", "oem_rev", "asl_compiler_id", "asl_compiler_rev", "file", "data"];
    if let Some((key, _)) = options.iter().find(|(key, _)| !KNOWN.contains(&key.as_str())) {
        return Err(fail(format!("Invalid parameter '{key}'")));
    }
    let (names, whole) = match (get("file"), get("data")) {
        (Some(files), None) => (files, true),
        (None, Some(files)) => (files, false),
        _ => return Err(fail("'data' and 'file' options cannot both or neither be set".to_owned())),
    };
    let mut table = if whole { Vec::new() } else { vec![0; 36] };
    for name in names.split(':') {
        table.extend(
            read_file(Path::new(name)).map_err(|error| fail(format!("can't open file {name}: {}", reason(&error))))?,
        );
    }
    if table.len() < 36 {
        return Err(fail(format!("{names} is too short for an ACPI table header")));
    }
    let mut text = |name: &str, at: usize, len: usize| {
        if let Some(value) = get(name) {
            let mut bytes = vec![0; len];
            for (byte, letter) in bytes.iter_mut().zip(value.bytes()) {
                *byte = letter;
            }
            table[at..at + len].copy_from_slice(&bytes);
        }
    };
    text("sig", 0, 4);
    text("oem_id", 10, 6);
    text("oem_table_id", 16, 8);
    text("asl_compiler_id", 28, 4);
    let number = |name: &str| match get(name) {
        None => Ok(None),
        Some(value) => value.parse::<u32>().map(Some).map_err(|_| fail(format!("'{name}' expects a number"))),
    };
    if let Some(revision) = number("rev")? {
        table[8] = u8::try_from(revision).map_err(|_| fail("'rev' expects a number up to 255".to_owned()))?;
    }
    if let Some(revision) = number("oem_rev")? {
        table[24..28].copy_from_slice(&revision.to_le_bytes());
    }
    if let Some(revision) = number("asl_compiler_rev")? {
        table[32..36].copy_from_slice(&revision.to_le_bytes());
    }
    let len = u32::try_from(table.len()).map_err(|_| fail(format!("{names} is too large")))?;
    table[4..8].copy_from_slice(&len.to_le_bytes());
    Ok(ExtraTable(table))
}

fn smbios_config(config: &Config, facts: &Facts) -> SmbiosConfig {
    let layout = facts.layout;
    let mut ram = vec![(0, layout.below_4g)];
    if layout.above_4g > 0 {
        ram.push((1 << 32, layout.above_4g));
    }
    let smp = config.smp;
    let levels = smp.levels;
    let cores = levels.dies * levels.modules * levels.cores;
    SmbiosConfig {
        product: match config.machine.chipset() {
            Chipset::I440fx => "Standard PC (i440FX + PIIX, 1996)".to_owned(),
            Chipset::Q35 => "Standard PC (Q35 + ICH9, 2009)".to_owned(),
        },
        machine: config.machine.kind.clone(),
        uuid: config.uuid,
        processors: Processors {
            sockets: smp.cpus.div_ceil((cores * levels.threads).max(1)),
            cores,
            threads: cores * levels.threads,
            signature: facts.signature,
        },
        ram,
        options: config.smbios.clone(),
    }
}

/// No kernel, RAM disk or fw_cfg item is larger; an endless file must not be read for ever.
const MAX_FILE: u64 = 2 << 30;

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let len = File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if len as u64 > MAX_FILE { Err(io::Error::from(io::ErrorKind::FileTooLarge)) } else { Ok(bytes) }
}

fn read(path: &Path) -> Result<Vec<u8>, KernelError> {
    read_file(path).map_err(|source| KernelError::Unreadable { path: path.to_owned(), source })
}

/// Reads the kernel and its RAM disks and prepares them.
fn load_kernel(spec: &KernelSpec, layout: RamLayout) -> Result<BootPlan, BuildError> {
    let kernel = read(&spec.kernel).map_err(BuildError::Kernel)?;
    let mut modules = Vec::new();
    if let Some(initrd) = &spec.initrd {
        // Linux takes one file whose name may hold commas; multiboot takes a list of files with arguments.
        let names: Vec<&str> =
            if Path::new(initrd).is_file() { vec![initrd.as_str()] } else { initrd.split(',').collect() };
        for name in names {
            let file = name.split(' ').next().unwrap_or(name);
            let path = if Path::new(name).is_file() { name } else { file };
            let bytes = read_file(Path::new(path))
                .map_err(|source| BuildError::Kernel(KernelError::Initrd { name: name.to_owned(), source }))?;
            modules.push((name.to_owned(), bytes));
        }
    }
    let files = KernelFiles { path: spec.kernel.clone(), kernel, append: spec.append.clone(), modules };
    firmware::plan(&files, layout.below_4g, layout.above_4g).map_err(BuildError::Kernel)
}

/// Puts the pieces into fw_cfg, and returns the ROM that loads them.
fn add_kernel(cfg: &mut FwCfgBuilder, plan: BootPlan) -> Vec<u8> {
    let mut module = key::ARCH_LOCAL + 0x100;
    let mut loads = Vec::new();
    for piece in plan.pieces {
        let selector = match piece.name {
            "setup" => key::SETUP_DATA,
            "kernel" => key::KERNEL_DATA,
            "cmdline" | "multiboot-info" => key::CMDLINE_DATA,
            "initrd" => key::INITRD_DATA,
            _ => {
                module += 1;
                module
            }
        };
        let len = u32::try_from(piece.bytes.len()).unwrap_or(u32::MAX);
        loads.push(rom::Load { selector, len, address: piece.address });
        cfg.add_bytes(selector, piece.bytes);
    }
    rom::build(&loads, plan.entry)
}
