//! QEMU's firmware configuration device: how SeaBIOS learns what the machine is and gets its tables.
//!
//! Documents: QEMU's "QEMU Firmware Configuration (fw_cfg) Device" (docs/specs/fw_cfg.rst).
//!
//! Files are sorted by name, which decides their selectors, as QEMU's are. Writes through the data port have no
//! effect (QEMU dropped them); writes by DMA reach files that were added as writable.

use std::collections::BTreeMap;

use crate::bus::{At, Device, Region, Reset, Width};
use crate::mem::GuestRam;

/// Selector and data: 2 ports at 510h. Decode 1 and 2 bytes.
pub const PORTS: Region = Region(0);
/// The DMA address: 8 ports at 514h. Decode up to 4 bytes.
pub const DMA_PORTS: Region = Region(1);

/// Selector keys (fw_cfg.rst, "Selector (Control) Register" and QEMU's standard headers).
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Interface version and features.
    pub const ID: u16 = 0x01;
    /// System UUID, 16 bytes.
    pub const UUID: u16 = 0x02;
    /// RAM size, 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// No display, 16 bits.
    pub const NOGRAPHIC: u16 = 0x04;
    /// CPUs at boot, 16 bits.
    pub const NB_CPUS: u16 = 0x05;
    /// Machine id.
    pub const MACHINE_ID: u16 = 0x06;
    /// Kernel load address.
    pub const KERNEL_ADDR: u16 = 0x07;
    /// Kernel size.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Old command line slot.
    pub const KERNEL_CMDLINE: u16 = 0x09;
    /// Initial RAM disk address.
    pub const INITRD_ADDR: u16 = 0x0a;
    /// Initial RAM disk size.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Boot device letter.
    pub const BOOT_DEVICE: u16 = 0x0c;
    /// NUMA topology.
    pub const NUMA: u16 = 0x0d;
    /// Interactive boot menu, 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Highest APIC id plus one, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// Kernel entry point.
    pub const KERNEL_ENTRY: u16 = 0x10;
    /// Kernel image.
    pub const KERNEL_DATA: u16 = 0x11;
    /// Initial RAM disk image.
    pub const INITRD_DATA: u16 = 0x12;
    /// Command line address.
    pub const CMDLINE_ADDR: u16 = 0x13;
    /// Command line size.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// Command line.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Real-mode setup code's address.
    pub const SETUP_ADDR: u16 = 0x16;
    /// Real-mode setup code's size.
    pub const SETUP_SIZE: u16 = 0x17;
    /// Real-mode setup code.
    pub const SETUP_DATA: u16 = 0x18;
    /// The list of files.
    pub const FILE_DIR: u16 = 0x19;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x20;
    /// Bit of keys that mean different things on different architectures.
    pub const ARCH_LOCAL: u16 = 0x8000;
    /// x86: ACPI tables of `-acpitable` for old firmware.
    pub const ACPI_TABLES: u16 = ARCH_LOCAL;
    /// x86: SMBIOS entries for old firmware.
    pub const SMBIOS_ENTRIES: u16 = ARCH_LOCAL + 1;
    /// x86: ISA IRQ 0 is global system interrupt 2, 1 byte.
    pub const IRQ0_OVERRIDE: u16 = ARCH_LOCAL + 2;
    /// x86: old memory map.
    pub const E820_TABLE: u16 = ARCH_LOCAL + 3;
    /// x86: HPETs.
    pub const HPET: u16 = ARCH_LOCAL + 4;
}

/// Bit of the selector that older firmware set to write.
const WRITE_CHANNEL: u16 = 0x4000;
/// How many keys of either kind there are: QEMU's 32 fixed ones and its default of 32 files.
const FILE_SLOTS: u16 = 0x20;
/// File names have room for 55 bytes and the end mark.
const NAME_LEN: usize = 56;

/// Bits of [`key::ID`].
mod id {
    pub const VERSION: u32 = 1 << 0;
    pub const DMA: u32 = 1 << 1;
}

/// Bits of a DMA request's control word.
mod dma {
    pub const ERROR: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const SKIP: u32 = 1 << 2;
    pub const SELECT: u32 = 1 << 3;
    pub const WRITE: u32 = 1 << 4;
}

/// What reading the DMA address gives: "QEMU CFG".
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Why a file cannot be added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FwCfgError {
    /// There is one of that name.
    #[error("duplicate fw_cfg file name: {0}")]
    Duplicate(String),
    /// More than 55 bytes, or nothing.
    #[error("name too long (max. 55 char)")]
    NameTooLong,
    /// No selector is left.
    #[error("too many fw_cfg files (max. {FILE_SLOTS})")]
    TooMany,
    /// Longer than a DMA request can say.
    #[error("fw_cfg item '{0}' is too large")]
    TooLarge(String),
}

#[derive(Clone, Debug)]
struct Item {
    data: Vec<u8>,
    /// What a reset brings back; only writable items need it.
    initial: Option<Vec<u8>>,
}

/// Collects the items of a [`FwCfg`].
#[derive(Clone, Debug, Default)]
pub struct FwCfgBuilder {
    items: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, (Vec<u8>, bool)>,
}

impl FwCfgBuilder {
    /// Nothing but the signature and the version.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = Self::default();
        builder.add_bytes(key::SIGNATURE, b"QEMU".to_vec());
        builder.add_u32(key::ID, id::VERSION | id::DMA);
        builder
    }

    /// Sets an item of one of the [`key`]s.
    pub fn add_bytes(&mut self, key: u16, data: Vec<u8>) {
        self.items.insert(key & !WRITE_CHANNEL, data);
    }

    /// Sets a 16-bit item.
    pub fn add_u16(&mut self, key: u16, value: u16) {
        self.add_bytes(key, value.to_le_bytes().to_vec());
    }

    /// Sets a 32-bit item.
    pub fn add_u32(&mut self, key: u16, value: u32) {
        self.add_bytes(key, value.to_le_bytes().to_vec());
    }

    /// Sets a 64-bit item.
    pub fn add_u64(&mut self, key: u16, value: u64) {
        self.add_bytes(key, value.to_le_bytes().to_vec());
    }

    /// Sets a text item; a zero byte ends it.
    pub fn add_text(&mut self, key: u16, text: &str) {
        let mut data = text.as_bytes().to_vec();
        data.push(0);
        self.add_bytes(key, data);
    }

    /// Adds a file that the guest can read.
    ///
    /// # Errors
    /// The name is taken or too long, or there are too many files.
    pub fn add_file(&mut self, name: &str, data: Vec<u8>) -> Result<(), FwCfgError> {
        self.add(name, data, false)
    }

    /// Adds a file that the guest can also write, by DMA; see [`FwCfg::file`].
    ///
    /// # Errors
    /// As [`FwCfgBuilder::add_file`].
    pub fn add_writable_file(&mut self, name: &str, data: Vec<u8>) -> Result<(), FwCfgError> {
        self.add(name, data, true)
    }

    fn add(&mut self, name: &str, data: Vec<u8>, writable: bool) -> Result<(), FwCfgError> {
        if name.is_empty() || name.len() >= NAME_LEN {
            return Err(FwCfgError::NameTooLong);
        }
        if u32::try_from(data.len()).is_err() {
            return Err(FwCfgError::TooLarge(name.to_owned()));
        }
        if self.files.contains_key(name) {
            return Err(FwCfgError::Duplicate(name.to_owned()));
        }
        if self.files.len() >= usize::from(FILE_SLOTS) {
            return Err(FwCfgError::TooMany);
        }
        self.files.insert(name.to_owned(), (data, writable));
        Ok(())
    }

    /// Whether there is a file of that name.
    #[must_use]
    pub fn has_file(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The device. DMA goes to `ram`.
    #[must_use]
    pub fn build(self, ram: GuestRam) -> FwCfg {
        let mut items: BTreeMap<u16, Item> =
            self.items.into_iter().map(|(key, data)| (key, Item { data, initial: None })).collect();
        let mut names = BTreeMap::new();
        for (selector, (name, (data, writable))) in (key::FILE_FIRST..).zip(self.files) {
            let initial = writable.then(|| data.clone());
            items.insert(selector, Item { data, initial });
            names.insert(name, selector);
        }
        let directory = directory(&names, &items);
        items.insert(key::FILE_DIR, Item { data: directory, initial: None });
        FwCfg { ram, items, names, late: None, regs: Regs::COLD }
    }
}

/// The content of [`key::FILE_DIR`]: a count, and 64 bytes a file; all big-endian.
fn directory(names: &BTreeMap<String, u16>, items: &BTreeMap<u16, Item>) -> Vec<u8> {
    let count = u32::try_from(names.len()).unwrap_or(0);
    let mut out = count.to_be_bytes().to_vec();
    for (name, selector) in names {
        let size = items.get(selector).map_or(0, |item| item.data.len());
        let mut padded = [0; NAME_LEN];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        out.extend(u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(selector.to_be_bytes());
        out.extend([0, 0]);
        out.extend(padded);
    }
    out
}

/// Makes files again, by name; `None`: they are still good.
pub type LateFiles = Box<dyn FnMut() -> Option<Vec<(&'static str, Vec<u8>)>> + Send>;

/// Files whose content depends on what the guest did before it asks for them.
struct Late {
    selectors: Vec<u16>,
    make: LateFiles,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Late({:?})", self.selectors)
    }
}

/// The device; made by [`FwCfgBuilder::build`].
#[derive(Debug)]
pub struct FwCfg {
    // Wires.
    ram: GuestRam,
    // Content.
    items: BTreeMap<u16, Item>,
    names: BTreeMap<String, u16>,
    late: Option<Late>,
    // Guest-visible state.
    regs: Regs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Regs {
    /// The selected item; a key that does not exist selects nothing.
    selected: u16,
    /// The next byte of it.
    offset: usize,
    /// The upper half of the DMA address.
    dma_high: u32,
}

impl Regs {
    const COLD: Self = Self { selected: key::SIGNATURE, offset: 0, dma_high: 0 };
}

/// A DMA request as the guest lays it out, big-endian: control, length, address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Request {
    control: u32,
    len: u32,
    address: u64,
}

impl Request {
    const LEN: usize = 16;

    fn parse(bytes: [u8; Self::LEN]) -> Self {
        let value = u128::from_be_bytes(bytes);
        let word = |shift: u32| u32::try_from(value >> shift & 0xffff_ffff).expect("masked to 32 bits");
        let address = u64::from(word(32)) << 32 | u64::from(word(0));
        Self { control: word(96), len: word(64), address }
    }
}

impl FwCfg {
    /// A file's content, with what the guest wrote to it.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let selector = self.names.get(name)?;
        self.items.get(selector).map(|item| item.data.as_slice())
    }

    /// Replaces the content of a file that exists (tables that are made again at reset). Returns whether it does.
    pub fn set_file(&mut self, name: &str, data: Vec<u8>) -> bool {
        let Some(item) = self.names.get(name).and_then(|selector| self.items.get_mut(selector)) else { return false };
        if item.initial.is_some() {
            item.initial = Some(data.clone());
        }
        item.data = data;
        let directory = directory(&self.names, &self.items);
        self.items.insert(key::FILE_DIR, Item { data: directory, initial: None });
        true
    }

    /// Asks `make` for the files of these names whenever the guest selects one of them. Their lengths stay as they are:
    /// a shorter file gets zeros, of a longer one the end is lost.
    pub fn set_late_files(&mut self, names: &[&str], make: LateFiles) {
        let selectors = names.iter().filter_map(|name| self.names.get(*name).copied()).collect();
        self.late = Some(Late { selectors, make });
    }

    fn make_late_files(&mut self, key: u16) {
        let Some(late) = self.late.as_mut().filter(|late| late.selectors.contains(&key)) else { return };
        for (name, mut data) in (late.make)().unwrap_or_default() {
            if let Some(item) = self.names.get(name).and_then(|selector| self.items.get_mut(selector)) {
                data.resize(item.data.len(), 0);
                item.data = data;
            }
        }
    }

    /// Replaces the item behind a key.
    pub fn set_bytes(&mut self, key: u16, data: Vec<u8>) {
        self.items.insert(key & !WRITE_CHANNEL, Item { data, initial: None });
    }

    /// The names, selectors and sizes of the files, in the order of the directory.
    pub fn files(&self) -> impl Iterator<Item = (&str, u16, usize)> {
        self.names.iter().map(|(name, selector)| {
            (name.as_str(), *selector, self.items.get(selector).map_or(0, |item| item.data.len()))
        })
    }

    fn select(&mut self, key: u16) {
        self.regs.selected = key & !WRITE_CHANNEL;
        self.regs.offset = 0;
        self.make_late_files(key & !WRITE_CHANNEL);
    }

    fn selected(&self) -> &[u8] {
        self.items.get(&self.regs.selected).map_or(&[], |item| &item.data)
    }

    fn next_byte(&mut self) -> u8 {
        match self.selected().get(self.regs.offset).copied() {
            Some(byte) => {
                self.regs.offset += 1;
                byte
            }
            None => 0,
        }
    }

    /// Serves the request at `address`.
    fn run_dma(&mut self, address: u64) {
        let mut bytes = [0; Request::LEN];
        if self.ram.read(address, &mut bytes).is_err() {
            // There may be RAM for the control word at least.
            let _ = self.ram.write(address, &dma::ERROR.to_be_bytes());
            return;
        }
        let request = Request::parse(bytes);
        let done = self.transfer(request);
        // The guest moved the request out of RAM meanwhile: nobody to tell.
        let _ = self.ram.write(address, &(if done { 0 } else { dma::ERROR }).to_be_bytes());
    }

    /// Returns whether all went well.
    fn transfer(&mut self, request: Request) -> bool {
        let Request { control, len, address } = request;
        if control & dma::SELECT != 0 {
            let [high, low, ..] = control.to_be_bytes();
            self.select(u16::from_be_bytes([high, low]));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if control & dma::READ != 0 {
            self.dma_read(address, len)
        } else if control & dma::WRITE != 0 {
            self.dma_write(address, len)
        } else {
            if control & dma::SKIP != 0 {
                self.regs.offset = self.regs.offset.saturating_add(len).min(self.selected().len());
            }
            true
        }
    }

    /// Past the item's end the guest reads zeros.
    fn dma_read(&mut self, address: u64, len: usize) -> bool {
        let start = self.regs.offset.min(self.selected().len());
        let data = &self.selected()[start..];
        let data = &data[..data.len().min(len)];
        if self.ram.write(address, data).is_err() {
            return false;
        }
        let taken = data.len();
        self.regs.offset = start + taken;
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut done = taken;
        while done < len {
            let piece = (len - done).min(ZEROS.len());
            let Some(at) = address.checked_add(done as u64) else { return false };
            if self.ram.write(at, &ZEROS[..piece]).is_err() {
                return false;
            }
            done += piece;
        }
        true
    }

    /// A write must lie within a writable item.
    fn dma_write(&mut self, address: u64, len: usize) -> bool {
        let offset = self.regs.offset;
        let Some(item) = self.items.get_mut(&self.regs.selected) else { return len == 0 };
        if len == 0 {
            return true;
        }
        let Some(end) = offset.checked_add(len).filter(|end| *end <= item.data.len()) else { return false };
        if item.initial.is_none() || self.ram.read(address, &mut item.data[offset..end]).is_err() {
            return false;
        }
        self.regs.offset = end;
        true
    }

    fn write_dma_address(&mut self, at: At, value: u64) {
        // The register is big-endian, the bus little: the lower half, at offset 4, starts the request.
        let [a, b, c, d, ..] = value.to_le_bytes();
        let word = u32::from_be_bytes([a, b, c, d]);
        match (at.offset, at.width) {
            (0, Width::B4) => self.regs.dma_high = word,
            (4, Width::B4) => {
                let address = u64::from(self.regs.dma_high) << 32 | u64::from(word);
                self.regs.dma_high = 0;
                self.run_dma(address);
            }
            _ => {}
        }
    }
}

impl Device for FwCfg {
    fn read(&mut self, at: At) -> u64 {
        if at.region == DMA_PORTS {
            let bytes = (0..at.width.bytes()).rev().map(|i| {
                let index = usize::try_from(at.offset + i).unwrap_or(usize::MAX);
                u64::from(DMA_SIGNATURE.get(index).copied().unwrap_or(0))
            });
            return bytes.fold(0, |value, byte| value << 8 | byte);
        }
        if at.width == Width::B1 { u64::from(self.next_byte()) } else { 0 }
    }

    fn write(&mut self, at: At, value: u64) {
        let [low, high, ..] = value.to_le_bytes();
        match (at.region, at.width) {
            (DMA_PORTS, _) => self.write_dma_address(at, value),
            (_, Width::B2) => self.select(u16::from_le_bytes([low, high])),
            // A byte to the data port: writing that way is gone.
            _ => {}
        }
    }

    fn reset(&mut self, _kind: Reset) {
        let Self { ram: _, items, names: _, late: _, regs } = self;
        for item in items.values_mut() {
            if let Some(initial) = &item.initial {
                item.data.clone_from(initial);
            }
        }
        *regs = Regs::COLD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Board, Decode, DeviceRef};
    use crate::hw::bench::Random;

    struct Bench {
        board: Board,
        device: DeviceRef<FwCfg>,
        ram: GuestRam,
    }

    impl Bench {
        fn new() -> Self {
            let ram = GuestRam::for_test(0x10000).unwrap();
            let mut builder = FwCfgBuilder::new();
            builder.add_u16(key::NB_CPUS, 2);
            builder.add_file("etc/z", b"last".to_vec()).unwrap();
            builder.add_file("bootorder", b"first".to_vec()).unwrap();
            builder.add_writable_file("etc/w", vec![1, 2, 3, 4]).unwrap();
            let mut board = Board::new();
            let device = board.add("fw_cfg", builder.build(ram.clone()));
            let bytes_and_words = Decode { min: Width::B1, max: Width::B2 };
            board.map_ports(device.id(), PORTS, bytes_and_words, 0x510, 2);
            board.map_ports(device.id(), DMA_PORTS, Decode::UP_TO_4, 0x514, 8);
            Self { board, device, ram }
        }

        fn item(&mut self, key: u16, len: usize) -> Vec<u8> {
            self.board.port_write(0x510, Width::B2, u32::from(key));
            (0..len).map(|_| self.board.port_read(0x511, Width::B1).to_le_bytes()[0]).collect()
        }

        /// Runs a request at 1000h and returns its control word afterwards.
        fn dma(&mut self, control: u32, len: u32, address: u64) -> u32 {
            self.ram.write(0x1000, &control.to_be_bytes()).unwrap();
            self.ram.write(0x1004, &len.to_be_bytes()).unwrap();
            self.ram.write(0x1008, &address.to_be_bytes()).unwrap();
            self.board.port_write(0x514, Width::B4, 0);
            self.board.port_write(0x518, Width::B4, 0x1000u32.swap_bytes());
            self.ram.read_u32(0x1000).unwrap().swap_bytes()
        }

        fn at(&self, gpa: u64, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            self.ram.read(gpa, &mut bytes).unwrap();
            bytes
        }
    }

    #[test]
    fn signature_and_version_read_byte_by_byte() {
        let mut b = Bench::new();
        assert_eq!(b.item(key::SIGNATURE, 5), b"QEMU\0");
        assert_eq!(b.item(key::ID, 4), [3, 0, 0, 0]);
        assert_eq!(b.item(key::NB_CPUS, 2), [2, 0]);
        assert_eq!(b.item(0x7777, 2), [0, 0]);
    }

    #[test]
    fn the_directory_is_sorted_by_name() {
        let mut b = Bench::new();
        let directory = b.item(key::FILE_DIR, 4 + 3 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 3]);
        assert_eq!(directory[4..22], *b"\0\0\0\x05\0\x20\0\0bootorder\0");
        assert_eq!(directory[4 + 128..4 + 128 + 14], *b"\0\0\0\x04\0\x22\0\0etc/z\0");
        assert_eq!(b.item(0x22, 4), b"last");
    }

    #[test]
    fn the_dma_register_shows_its_signature() {
        let mut b = Bench::new();
        let low = b.board.port_read(0x514, Width::B4).to_le_bytes();
        let high = b.board.port_read(0x518, Width::B4).to_le_bytes();
        assert_eq!((&low, &high), (b"QEMU", b" CFG"));
    }

    #[test]
    fn dma_selects_skips_and_reads_past_the_end() {
        let mut b = Bench::new();
        b.ram.write(0x2000, &[9; 8]).unwrap();
        assert_eq!(b.dma(0x20 << 16 | dma::SELECT | dma::SKIP, 2, 0), 0);
        assert_eq!(b.dma(dma::READ, 6, 0x2000), 0);
        assert_eq!(b.at(0x2000, 8), b"rst\0\0\0\x09\x09");
    }

    #[test]
    fn dma_writes_only_what_is_writable_and_reset_undoes_it() {
        let mut b = Bench::new();
        b.ram.write(0x2000, &[7, 8]).unwrap();
        assert_eq!(b.dma(0x20 << 16 | dma::SELECT | dma::WRITE, 2, 0x2000), dma::ERROR);
        assert_eq!(b.dma(0x21 << 16 | dma::SELECT | dma::WRITE, 2, 0x2000), 0);
        assert_eq!(b.dma(dma::WRITE, 3, 0x2000), dma::ERROR);
        let file = |b: &mut Bench| b.board.with(&b.device, |d| d.file("etc/w").map(<[u8]>::to_vec)).unwrap().unwrap();
        assert_eq!(file(&mut b), [7, 8, 3, 4]);
        b.board.reset(Reset::System);
        assert_eq!(file(&mut b), [1, 2, 3, 4]);
        assert_eq!(b.item(key::SIGNATURE, 1), b"Q");
    }

    #[test]
    fn dma_outside_ram_reports_an_error() {
        let mut b = Bench::new();
        assert_eq!(b.dma(0x20 << 16 | dma::SELECT | dma::READ, 5, 0xffff_0000), dma::ERROR);
        assert_eq!(b.dma(dma::READ, u32::MAX, 0x2000), dma::ERROR);
        b.board.port_write(0x514, Width::B4, u32::MAX);
        b.board.port_write(0x518, Width::B4, u32::MAX);
    }

    #[test]
    fn names_are_checked() {
        let mut builder = FwCfgBuilder::new();
        builder.add_file("a", vec![]).unwrap();
        assert_eq!(builder.add_file("a", vec![]).unwrap_err().to_string(), "duplicate fw_cfg file name: a");
        assert_eq!(builder.add_file(&"x".repeat(56), vec![]), Err(FwCfgError::NameTooLong));
        assert_eq!(builder.add_file(&"x".repeat(55), vec![]), Ok(()));
    }

    #[test]
    fn a_replaced_file_shows_its_new_size() {
        let mut b = Bench::new();
        assert_eq!(b.board.with(&b.device, |d| d.set_file("etc/z", vec![5; 9])), Some(true));
        assert_eq!(b.item(key::FILE_DIR, 136)[132..], [0, 0, 0, 9]);
        assert_eq!(b.board.with(&b.device, |d| d.set_file("nope", vec![])), Some(false));
    }

    #[test]
    fn random_programs_never_panic() {
        let mut b = Bench::new();
        let mut random = Random(5);
        for _ in 0..5_000 {
            let value = random.next();
            let [low, high, choice, ..] = value.to_le_bytes();
            let word = u32::from(low) | u32::from(high) << 8;
            match choice % 4 {
                0 => b.board.port_write(0x510, Width::B2, word),
                1 => drop(b.board.port_read(0x510 + u16::from(low % 12), Width::B4)),
                2 => drop(b.dma(word << 8 | word, word, u64::from(word))),
                _ => b.board.port_write(0x510 + u16::from(low % 12), Width::B4, word),
            }
        }
    }
}
