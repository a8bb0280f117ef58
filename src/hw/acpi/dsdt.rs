//! The differentiated definition block: the PCI root with its interrupt links, the ISA devices, processors and sleep
//! states.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Equal, Field, FieldAccessType,
    FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Local, Memory32Fixed, Method, Name, OpRegion, OpRegionSpace,
    Or, Package, Path, ResourceTemplate, Return, Scope, Store, Zero,
};
use acpi_tables::{Aml, AmlSink};

use super::tables::{AcpiChipset, AcpiConfig, ECAM_LEN};

/// An IRQ descriptor without flags: edge triggered, active high (ACPI 6.4.2.1).
struct Irq(u8);

impl Aml for Irq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x22);
        sink.word(1 << self.0);
    }
}

/// An extended interrupt descriptor with several choices (ACPI 6.4.3.6): level, active high, shared.
struct Interrupts(&'static [u32]);

impl Aml for Interrupts {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.byte(0x89);
        sink.word(u16::try_from(2 + 4 * self.0.len()).unwrap_or(2));
        sink.byte(0b1001);
        sink.byte(u8::try_from(self.0.len()).unwrap_or(0));
        for number in self.0 {
            sink.dword(*number);
        }
    }
}

/// One byte of a PCI routing register, as a field name; the second four are ICH9's only.
const LINKS: [(&str, &str); 8] = [
    ("LNKA", "PRQ0"),
    ("LNKB", "PRQ1"),
    ("LNKC", "PRQ2"),
    ("LNKD", "PRQ3"),
    ("LNKE", "PRQ4"),
    ("LNKF", "PRQ5"),
    ("LNKG", "PRQ6"),
    ("LNKH", "PRQ7"),
];

/// The links that a chipset has.
fn links_of(chipset: AcpiChipset) -> &'static [(&'static str, &'static str)] {
    match chipset {
        AcpiChipset::Piix => &LINKS[..4],
        AcpiChipset::Ich9 { .. } => &LINKS,
    }
}

/// The slot of the PIIX3 and PIIX4 functions; INTA# there is the power management's SCI, wired to IRQ 9.
const SOUTH_BRIDGE_SLOT: u32 = 1;

/// The bytes of the definition block, without the table header.
#[must_use]
pub fn body(config: &AcpiConfig) -> Vec<u8> {
    let mut aml = Vec::new();
    sleep_states(config, &mut aml);
    root(config, &mut aml);
    links(config, &mut aml);
    isa(config, &mut aml);
    processors(config, &mut aml);
    aml
}

fn append(aml: &mut Vec<u8>, object: &dyn Aml) {
    object.to_aml_bytes(aml);
}

fn sleep_states(config: &AcpiConfig, aml: &mut Vec<u8>) {
    let mut state = |name: &str, kind: u8| {
        append(aml, &Name::new(name.into(), &Package::new(vec![&kind, &kind, &0u8, &0u8])));
    };
    if config.s3 {
        state("_S3_", 1);
    }
    if let Some(kind) = config.s4 {
        state("_S4_", kind);
    }
    state("_S5_", 0);
}

fn root(config: &AcpiConfig, aml: &mut Vec<u8>) {
    let bus = AddressSpace::new_bus_number(0u16, 0xff);
    let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::new_io(0u16, 0xcf7, None);
    let high_ports = AddressSpace::new_io(0xd00u16, 0xffff, None);
    let vga = AddressSpace::new_memory(AddressSpaceCacheable::Cacheable, true, 0xa_0000u32, 0xb_ffff, None);
    let cacheable = AddressSpaceCacheable::NotCacheable;
    let holes: Vec<_> = config
        .pci_holes
        .iter()
        .map(|&(first, last)| AddressSpace::new_memory(cacheable, true, first, last, None))
        .collect();
    let high = config
        .pci_hole_64
        .map(|(first, last)| AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None));
    let mut resources: Vec<&dyn Aml> = vec![&bus, &config_ports, &low_ports, &high_ports, &vga];
    resources.extend(holes.iter().map(|hole| hole as &dyn Aml));
    if let Some(high) = &high {
        resources.push(high);
    }
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    let id = if config.chipset == AcpiChipset::Piix { "PNP0A03" } else { "PNP0A08" };
    let (id, compatible) = (EISAName::new(id), EISAName::new("PNP0A03"));
    let id = Name::new("_HID".into(), &id);
    let compatible = Name::new("_CID".into(), &compatible);
    let uid = Name::new("_UID".into(), &0u8);
    let routing = match config.chipset {
        AcpiChipset::Piix => made(&Name::new("_PRT".into(), &routes(|slot, pin| Box::new(Route { slot, pin })))),
        AcpiChipset::Ich9 { .. } => {
            append(aml, &Name::new("PICF".into(), &0u8));
            let mode = Path::new("\\PICF");
            let store = Store::new(&mode, &Arg(0));
            append(aml, &Method::new("_PIC".into(), 1, false, vec![&store]));
            ich9_routing()
        }
    };
    let mut parts: Vec<&dyn Aml> = vec![&id, &uid, &resources, &routing];
    if config.chipset != AcpiChipset::Piix {
        parts.push(&compatible);
    }
    let root = made(&Device::new("PCI0".into(), parts));
    append(aml, &Scope::new("\\_SB_".into(), vec![&root]));
}

/// A routing table: an entry for each pin of each slot.
fn routes(entry: impl Fn(u32, u8) -> Box<dyn Aml>) -> Made {
    let entries: Vec<_> = (0..32u32).flat_map(|slot| (0..4u8).map(move |pin| (slot, pin))).collect();
    let entries: Vec<_> = entries.into_iter().map(|(slot, pin)| entry(slot, pin)).collect();
    made(&Package::new(entries.iter().map(|entry| &**entry).collect()))
}

/// ICH9's two routing tables: by link while the 8259s are in use, by input of the I/O APIC else.
fn ich9_routing() -> Made {
    let by_link = Name::new("PRTP".into(), &routes(|slot, pin| Box::new(Ich9Route { slot, pin, apic: false })));
    let by_input = Name::new("PRTA".into(), &routes(|slot, pin| Box::new(Ich9Route { slot, pin, apic: true })));
    let (links, inputs, mode) = (Path::new("PRTP"), Path::new("PRTA"), Path::new("\\PICF"));
    let (links, inputs) = (Return::new(&links), Return::new(&inputs));
    let pics = Equal::new(&mode, &Zero {});
    let pics = If::new(&pics, vec![&links]);
    let table = Method::new("_PRT".into(), 0, false, vec![&pics, &inputs]);
    let mut bytes = Vec::new();
    for object in [&by_link as &dyn Aml, &by_input, &table] {
        object.to_aml_bytes(&mut bytes);
    }
    Made(bytes)
}

/// An entry of ICH9's routing tables: slots rotate over PIRQE#-PIRQH#; the slots that the chip has registers for have
/// pin n on PIRQ n, the registers' reset value (ICH9 10.1.29).
struct Ich9Route {
    slot: u32,
    pin: u8,
    apic: bool,
}

impl Aml for Ich9Route {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let own = matches!(self.slot, 25..=29 | 31);
        let link = if own { usize::from(self.pin) } else { (self.slot as usize + usize::from(self.pin)) % 4 + 4 };
        let address = self.slot << 16 | 0xffff;
        if self.apic {
            let input = u32::try_from(16 + link).unwrap_or(16);
            Package::new(vec![&address, &self.pin, &0u8, &input]).to_aml_bytes(sink);
        } else {
            Package::new(vec![&address, &self.pin, &Path::new(LINKS[link].0), &0u8]).to_aml_bytes(sink);
        }
    }
}

/// An entry of the routing table (ACPI 6.2.13): slots rotate over the four links.
struct Route {
    slot: u32,
    pin: u8,
}

impl Aml for Route {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let address = self.slot << 16 | 0xffff;
        let index = (self.slot as usize + usize::from(self.pin) + 3) % 4;
        let link = if self.slot == SOUTH_BRIDGE_SLOT && self.pin == 0 { "LNKS" } else { LINKS[index].0 };
        Package::new(vec![&address, &self.pin, &Path::new(link), &0u8]).to_aml_bytes(sink);
    }
}

/// The routing registers (82371SB 2.2.10, ICH9 13.1.14) as interrupt link devices.
fn links(config: &AcpiConfig, aml: &mut Vec<u8>) {
    let region = OpRegion::new("P40C".into(), OpRegionSpace::PCIConfig, &0x60u8, &12u8);
    let mut fields: Vec<_> =
        links_of(config.chipset).iter().map(|(_, field)| FieldEntry::Named(name_bytes(field), 8)).collect();
    if fields.len() > 4 {
        // PIRQE-PIRQH are four bytes further on.
        fields.insert(4, FieldEntry::Reserved(32));
    }
    let field =
        Field::new("P40C".into(), FieldAccessType::Byte, FieldLockRule::NoLock, FieldUpdateRule::Preserve, fields);
    let address: u32 = if config.chipset == AcpiChipset::Piix { 0x1_0000 } else { 0x1f_0000 };
    let bridge = made(&Device::new("ISA_".into(), vec![&Name::new("_ADR".into(), &address), &region, &field]));
    append(aml, &Scope::new("\\_SB_.PCI0".into(), vec![&bridge]));

    // IQST: a link's status; IQCR: its current interrupt.
    let off = And::new(&Local(0), &Arg(0), &0x80u8);
    let disabled = Return::new(&0x09u8);
    let enabled = Return::new(&0x0bu8);
    let is_set = If::new(&Local(0), vec![&disabled]);
    let status = Method::new("IQST".into(), 1, false, vec![&off, &is_set, &enabled]);
    append(aml, &Scope::new("\\_SB_".into(), vec![&status]));

    let template = ResourceTemplate::new(vec![&CURRENT_NONE]);
    let current = Name::new("PRR0".into(), &template);
    let (path, at) = (Path::new("PRRI"), Path::new("PRR0"));
    let number = CreateDWordField::new(&path, &at, &5u8);
    let routed = And::new(&Local(0), &Arg(0), &0x80u8);
    let store = Store::new(&path, &Arg(0));
    let equal = Equal::new(&Local(0), &Zero {});
    let when_on = If::new(&equal, vec![&store]);
    let result = Return::new(&at);
    let resources = Method::new("IQCR".into(), 1, true, vec![&current, &number, &routed, &when_on, &result]);
    append(aml, &Scope::new("\\_SB_".into(), vec![&resources]));

    for (uid, &(link, field)) in (0u8..).zip(links_of(config.chipset)) {
        append(aml, &Scope::new("\\_SB_".into(), vec![&Link { name: link, register: field, uid }]));
    }
    if config.chipset == AcpiChipset::Piix {
        sci_link(aml);
    }
}

/// The link that PIIX4's power management is wired to: IRQ 9, whatever anybody says.
fn sci_link(aml: &mut Vec<u8>) {
    let possible = Name::new("_PRS".into(), &ResourceTemplate::new(vec![&Interrupts(&[9])]));
    let set = Method::new("_SRS".into(), 1, false, vec![]);
    let disable = Method::new("_DIS".into(), 0, false, vec![]);
    let present = Return::new(&0x0bu8);
    let status = Method::new("_STA".into(), 0, false, vec![&present]);
    let crs_path = Path::new("_PRS");
    let returns = Return::new(&crs_path);
    let current = Method::new("_CRS".into(), 0, false, vec![&returns]);
    let sci = made(&Device::new(
        "LNKS".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0F")),
            &Name::new("_UID".into(), &4u8),
            &possible,
            &status,
            &disable,
            &current,
            &set,
        ],
    ));
    append(aml, &Scope::new("\\_SB_".into(), vec![&sci]));
}

/// A link without a current interrupt: IQCR fills the number in.
const CURRENT_NONE: Interrupts = Interrupts(&[0]);

fn name_bytes(name: &str) -> [u8; 4] {
    let mut bytes = [b'_'; 4];
    for (byte, letter) in bytes.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    bytes
}

struct Link {
    name: &'static str,
    register: &'static str,
    uid: u8,
}

impl Aml for Link {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let register = Path::new(&format!("\\_SB_.PCI0.ISA_.{}", self.register));
        let status_call = acpi_tables::aml::MethodCall::new("IQST".into(), vec![&register]);
        let current_call = acpi_tables::aml::MethodCall::new("IQCR".into(), vec![&register]);
        let (status, current) = (Return::new(&status_call), Return::new(&current_call));
        let off = Or::new(&register, &register, &0x80u8);
        let (path, source) = (Path::new("PRRI"), Arg(0));
        let number = CreateDWordField::new(&path, &source, &5u8);
        let store = Store::new(&register, &path);
        Device::new(
            self.name.into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0C0F")),
                &Name::new("_UID".into(), &self.uid),
                &Name::new("_PRS".into(), &ResourceTemplate::new(vec![&Interrupts(&[5, 10, 11])])),
                &Method::new("_STA".into(), 0, false, vec![&status]),
                &Method::new("_DIS".into(), 0, false, vec![&off]),
                &Method::new("_CRS".into(), 0, false, vec![&current]),
                &Method::new("_SRS".into(), 1, false, vec![&number, &store]),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// A device on the ISA bus.
fn isa_device(name: &str, id: &str, uid: u8, resources: Vec<&dyn Aml>) -> Made {
    made(&Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(id)),
            &Name::new("_UID".into(), &uid),
            &Name::new("_STA".into(), &0x0fu8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    ))
}

/// Bytes of AML that were made already: objects borrow their parts, so a part of a part needs an owner.
struct Made(Vec<u8>);

fn made(object: &dyn Aml) -> Made {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    Made(bytes)
}

impl Aml for Made {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

fn isa(config: &AcpiConfig, aml: &mut Vec<u8>) {
    let mut devices = vec![
        isa_device("KBD_", "PNP0303", 0, vec![&IO::new(0x60, 0x60, 1, 1), &IO::new(0x64, 0x64, 1, 1), &Irq(1)]),
        isa_device("MOU_", "PNP0F13", 0, vec![&Irq(12)]),
        isa_device("RTC_", "PNP0B00", 0, vec![&IO::new(0x70, 0x70, 1, 8), &Irq(8)]),
    ];
    for (uid, (base, irq)) in (1u8..).zip(&config.serial_ports) {
        devices.push(isa_device(&format!("COM{uid}"), "PNP0501", uid, vec![&IO::new(*base, *base, 0, 8), &Irq(*irq)]));
    }
    for (uid, (base, irq)) in (1u8..).zip(&config.parallel_ports) {
        devices.push(isa_device(&format!("LPT{uid}"), "PNP0400", uid, vec![&IO::new(*base, *base, 8, 8), &Irq(*irq)]));
    }
    let devices = devices.iter().map(|device| device as &dyn Aml).collect();
    append(aml, &Scope::new("\\_SB_.PCI0.ISA_".into(), devices));
    if config.hpet {
        let hpet = made(&Device::new(
            "HPET".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0103")),
                &Name::new("_UID".into(), &0u8),
                &Name::new("_STA".into(), &0x0fu8),
                &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&Memory32Fixed::new(false, 0xfed0_0000, 0x400)])),
            ],
        ));
        append(aml, &Scope::new("\\_SB_".into(), vec![&hpet]));
    }
    reserved(config, aml);
}

/// What nothing else may be put at: the power management function's ports (PIIX4 PMBA and SMBus, ICH9 PMBASE), ICH9's
/// chipset configuration registers, and the memory window on configuration space.
fn reserved(config: &AcpiConfig, aml: &mut Vec<u8>) {
    let ports = match config.chipset {
        AcpiChipset::Piix => [IO::new(0x600, 0x600, 1, 0x40), IO::new(0x700, 0x700, 1, 0x40)],
        AcpiChipset::Ich9 { .. } => [IO::new(0x600, 0x600, 1, 0x80), IO::new(0x700, 0x700, 1, 0x40)],
    };
    let registers = Memory32Fixed::new(true, 0xfed1_c000, 0x4000);
    let window = match config.chipset {
        AcpiChipset::Ich9 { ecam } if ecam != 0 => u32::try_from(ecam).ok(),
        _ => None,
    };
    let window = window.map(|base| Memory32Fixed::new(true, base, ECAM_LEN));
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|ports| ports as &dyn Aml).collect();
    if config.chipset != AcpiChipset::Piix {
        resources.push(&registers);
    }
    if let Some(window) = &window {
        resources.push(window);
    }
    let reserved = made(&Device::new(
        "PMRS".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &1u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
        ],
    ));
    append(aml, &Scope::new("\\_SB_.PCI0".into(), vec![&reserved]));
}

fn processors(config: &AcpiConfig, aml: &mut Vec<u8>) {
    for index in 0..config.cpus.len() {
        let uid = u32::try_from(index).unwrap_or(u32::MAX);
        let device = made(&Device::new(
            Path::new(&format!("C{index:03X}")),
            vec![&Name::new("_HID".into(), &"ACPI0007"), &Name::new("_UID".into(), &uid)],
        ));
        append(aml, &Scope::new("\\_SB_".into(), vec![&device]));
    }
}
