use super::*;
use crate::bus::{At, ConfigSpace, PciFunction, PostedWrite};

/// Remembers accesses; reads return the offset.
struct Recorder {
    seen: Vec<(u64, Width, Option<u64>)>,
    config: ConfigSpace,
}

impl Recorder {
    fn new() -> Self {
        let bar = Bar { kind: BarKind::Memory32 { prefetchable: false }, len: 0x1000, region: Region(7) };
        Self { seen: Vec::new(), config: ConfigSpace::new(1, 2, 3, 0).with_bar(0, bar) }
    }
}

impl Device for Recorder {
    fn read(&mut self, at: At) -> u64 {
        self.seen.push((at.offset, at.width, None));
        at.offset
    }
    fn write(&mut self, at: At, value: u64) {
        self.seen.push((at.offset, at.width, Some(value)));
    }
    fn reset(&mut self, _kind: Reset) {
        self.seen.clear();
    }
    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
}

impl PciFunction for Recorder {
    fn config(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }
}

#[test]
fn wide_accesses_to_byte_registers_are_split() {
    let mut board = Board::new();
    let device = board.add("recorder", Recorder::new());
    board.map_ports(device.id(), Region(0), Decode::BYTES, 0x60, 8);
    board.port_write(0x62, Width::B2, 0xaabb);
    assert_eq!(board.port_read(0x61, Width::B4), 0x0403_0201);
    let seen = board.with(&device, |d| d.seen.clone()).unwrap();
    assert_eq!(seen[..2], [(2, Width::B1, Some(0xbb)), (3, Width::B1, Some(0xaa))]);
}

#[test]
fn narrow_accesses_to_dword_registers_are_widened() {
    let mut board = Board::new();
    let device = board.add("recorder", Recorder::new());
    board.map_mmio(device.id(), Region(0), Decode::DWORDS, 0x1000, 0x100, 0);
    board.set_memory_listener(Box::new(|_| ()));
    let mut byte = [0];
    board.mmio_read(0x1041, &mut byte);
    board.mmio_write(0x1042, &[9]);
    let seen = board.with(&device, |d| d.seen.clone()).unwrap();
    assert_eq!(seen, [(0x40, Width::B4, None), (0x40, Width::B4, Some(0x9_0000))]);
}

#[test]
fn nothing_answers_at_an_unmapped_port() {
    let mut board = Board::new();
    assert_eq!(board.port_read(0x1234, Width::B2), 0xffff);
    assert_eq!(board.port_read(0xffff, Width::B4), 0xffff_ffff);
}

#[test]
fn configuration_writes_move_a_bar() {
    let mut board = Board::new();
    let device = board.add("recorder", Recorder::new());
    board.map_pci_config_ports();
    board.plug_pci(PciAddress::new(2, 0), device.id(), Decode::UP_TO_4, &[]);
    board.set_memory_listener(Box::new(|_| ()));
    board.port_write(0xcf8, Width::B4, 0x8000_1010);
    board.port_write(0xcfc, Width::B4, 0xf000_0000);
    board.port_write(0xcf8, Width::B4, 0x8000_1004);
    board.port_write(0xcfc, Width::B2, 2);
    let mut bytes = [0; 4];
    board.mmio_read(0xf000_0010, &mut bytes);
    assert_eq!(bytes, [0x10, 0, 0, 0]);
    board.reset(Reset::System);
    board.mmio_read(0xf000_0010, &mut bytes);
    assert_eq!(bytes, [0xff; 4]);
}

#[test]
fn a_rom_write_goes_to_the_ram_behind_it() {
    let mut board = Board::new();
    let rom = RamBlock::anonymous("rom", 4096).unwrap();
    let ram = RamBlock::anonymous("ram", 4096).unwrap();
    let backing = Backing::Rom {
        block: Arc::clone(&rom),
        offset: 0,
        writes: RomWrites::Ram { block: Arc::clone(&ram), offset: 0 },
    };
    board.map_memory("pam", 0xc0000, 4096, 0, backing);
    board.set_memory_listener(Box::new(|_| ()));
    board.mmio_write(0xc0001, &[5]);
    assert_eq!((rom.byte(1), ram.byte(1)), (0, 5));
}

/// Posted writes to port 62h, oldest last.
struct Waiting(Mutex<Vec<u32>>);

impl PostedWrites for Waiting {
    fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }
    fn take(&self) -> Option<PostedWrite> {
        let value = self.0.lock().unwrap().pop()?;
        Some(PostedWrite::Port { port: 0x62, width: Width::B1, value })
    }
}

#[test]
fn whoever_locks_the_board_sees_the_posted_writes() {
    let mut board = Board::new();
    let device = board.add("recorder", Recorder::new());
    board.map_ports(device.id(), Region(0), Decode::BYTES, 0x60, 8);
    let cell = BoardCell::new(board);
    let queue = Arc::new(Waiting(Mutex::new(vec![3, 2, 1])));
    cell.set_posted_writes(Arc::clone(&queue) as Arc<dyn PostedWrites>);
    cell.port_read(0x61, Width::B1);
    let expected = [(2, Width::B1, Some(1)), (2, Width::B1, Some(2)), (2, Width::B1, Some(3)), (1, Width::B1, None)];
    assert_eq!(cell.lock().with(&device, |d| d.seen.clone()).unwrap(), expected);
    queue.0.lock().unwrap().push(4);
    cell.lock().reset(Reset::System);
    assert!(cell.lock().with(&device, |d| d.seen.is_empty()).unwrap(), "a write before the reset came after it");
}
