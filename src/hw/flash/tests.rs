//! A bench that drives a chip over the board, with an image whose requests end when the bench says so. What reads give
//! in each mode was seen with QEMU 10.0.2's `cfi.pflash01`, by a guest that read and wrote on command.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::block::Completion;
use crate::hw::bench::Random;

const BASE: u64 = 0xffff_0000;
const LEN: u64 = 0x1_0000;

#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
    waiting: Vec<Request>,
    done: Vec<Completion>,
    submitted: usize,
    fails: bool,
}

#[derive(Clone)]
struct Disk {
    image: Arc<Mutex<Image>>,
    read_only: bool,
}

impl BlockQueue for Disk {
    fn submit(&mut self, request: Request) {
        let mut image = self.image.lock().unwrap();
        image.submitted += 1;
        image.waiting.push(request);
    }

    fn completed(&mut self) -> Vec<Completion> {
        std::mem::take(&mut self.image.lock().unwrap().done)
    }

    fn cancel_all(&mut self) {
        unreachable!("flash never gives a write up");
    }

    fn capacity(&self) -> u64 {
        LEN
    }

    fn read_only(&self) -> bool {
        self.read_only
    }
}

struct Bench {
    board: Board,
    id: DeviceId,
    image: Arc<Mutex<Image>>,
    /// What the accelerator was told last: the address of each range that is read directly.
    direct: Arc<Mutex<Vec<u64>>>,
}

fn pattern(offset: u64) -> u8 {
    (offset * 7 + offset / 256).to_le_bytes()[0]
}

impl Bench {
    fn with(read_only: bool) -> Self {
        let memory = RamBlock::anonymous("flash", LEN).unwrap();
        let bytes: Vec<u8> = (0..LEN).map(pattern).collect();
        memory.write(0, &bytes);
        let image = Arc::new(Mutex::new(Image { bytes, ..Image::default() }));
        let mut board = Board::new();
        let id = board.reserve("flash");
        let queue = Box::new(Disk { image: Arc::clone(&image), read_only });
        Pflash::add(&mut board, id, Wires { base: BASE, priority: 0, memory, queue });
        let direct = Arc::<Mutex<Vec<u64>>>::default();
        let told = Arc::clone(&direct);
        board.set_memory_listener(Box::new(move |ranges| {
            assert!(ranges.iter().all(|range| range.read_only));
            *told.lock().unwrap() = ranges.iter().map(|range| range.gpa).collect();
        }));
        Self { board, id, image, direct }
    }

    fn new() -> Self {
        Self::with(false)
    }

    fn read<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.board.mmio_read(BASE + offset, &mut bytes);
        bytes
    }

    fn byte(&mut self, offset: u64) -> u8 {
        self.read::<1>(offset)[0]
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.board.mmio_write(BASE + offset, bytes);
    }

    fn commands(&mut self, writes: &[(u64, u8)]) {
        for (offset, code) in writes {
            self.write(*offset, &[*code]);
        }
    }

    fn array(&mut self) {
        self.commands(&[(0, 0xff)]);
    }

    /// Lets the image take all that is waiting, and all that follows.
    fn work(&mut self) {
        loop {
            {
                let mut image = self.image.lock().unwrap();
                let waiting = std::mem::take(&mut image.waiting);
                if waiting.is_empty() {
                    return;
                }
                for Request { op, offset, payload, token } in waiting {
                    assert_eq!(op, Op::Write);
                    let Payload::Buffer(bytes) = &payload else { panic!("no data") };
                    let at = usize::try_from(offset).unwrap();
                    let fails = image.fails;
                    if !fails {
                        image.bytes[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                    let result = if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
                    image.done.push(Completion { token, result, payload });
                }
            }
            self.board.event(self.id, WRITTEN);
        }
    }

    fn image_byte(&self, offset: usize) -> u8 {
        self.image.lock().unwrap().bytes[offset]
    }
}

#[test]
fn the_array_is_read_directly_until_a_command_comes() {
    let mut b = Bench::new();
    assert_eq!(b.read(2), [pattern(2), pattern(3), pattern(4)]);
    assert_eq!(*b.direct.lock().unwrap(), [BASE]);
    b.commands(&[(0x55, 0x98)]);
    assert!(b.direct.lock().unwrap().is_empty());
    b.array();
    assert_eq!(*b.direct.lock().unwrap(), [BASE]);
    assert_eq!(b.byte(9), pattern(9));
}

#[test]
fn the_query_describes_the_chip() {
    let mut b = Bench::new();
    b.commands(&[(0x55, 0x98)]);
    assert_eq!([b.byte(0x10), b.byte(0x11), b.byte(0x12)], *b"QRY");
    assert_eq!([b.byte(0x31), b.byte(0x32), b.byte(0x33)], *b"PRI");
    // 2^16 bytes, in 16 blocks of 10h * 256, with a buffer of 2^8.
    assert_eq!(b.byte(0x27), 16);
    assert_eq!([0x2c, 0x2d, 0x2e, 0x2f, 0x30].map(|at| b.byte(at)), [1, 15, 0, 0x10, 0]);
    assert_eq!(b.byte(0x2a), 8);
    assert_eq!((b.byte(0x40), b.byte(0xffff)), (0, 0));
    assert_eq!((b.read::<2>(0x10), b.read::<4>(0x10)), ([0x51, 0], [0x51, 0, 0, 0]));
}

#[test]
fn the_query_rounds_an_odd_length_up() {
    let (log2, blocks) = (spec::query(0x84000, 0x27), [spec::query(0x84000, 0x2d), spec::query(0x84000, 0x2e)]);
    assert_eq!((log2, u16::from_le_bytes(blocks)), (20, 131));
}

#[test]
fn the_status_is_clear_until_an_operation_ended() {
    let mut b = Bench::new();
    b.commands(&[(0, 0x70)]);
    assert_eq!(b.byte(5), 0);
    b.commands(&[(3, 0x40)]);
    assert_eq!(b.byte(0), 0);
    b.commands(&[(3, 0x50)]);
    assert_eq!((b.byte(0), b.read::<2>(0), b.read::<4>(0)), (0x80, [0x80, 0], [0x80, 0, 0x80, 0]));
    b.commands(&[(0, 0x50)]);
    assert_eq!(b.byte(0), 0);
    b.array();
    assert_eq!(b.byte(3), 0x50);
}

#[test]
fn clearing_the_status_keeps_the_mode() {
    let mut b = Bench::new();
    b.commands(&[(1, 0x50)]);
    assert_eq!(b.byte(1), pattern(1));
    b.commands(&[(0, 0x98), (0, 0x50)]);
    assert_eq!(b.byte(0x10), b'Q');
}

#[test]
fn the_identifier_codes_are_zeros() {
    let mut b = Bench::new();
    b.commands(&[(0, 0x90)]);
    assert_eq!((b.read::<4>(0), b.byte(0x1002)), ([0; 4], 0));
}

#[test]
fn programming_stores_as_many_bytes_as_are_written() {
    let mut b = Bench::new();
    b.commands(&[(0x10, 0x10)]);
    b.write(0x10, &[1, 2, 3, 4]);
    b.array();
    assert_eq!(b.read(0x10), [1, 2, 3, 4, pattern(0x14)]);
    b.work();
    assert_eq!((b.image_byte(0x0f), b.image_byte(0x10), b.image_byte(0x13)), (pattern(0x0f), 1, 4));
}

#[test]
fn an_erase_clears_the_block_of_its_first_cycle() {
    let mut b = Bench::new();
    b.commands(&[(0x1234, 0x20), (0x1234, 0xd0)]);
    assert_eq!(b.byte(0), 0x80);
    b.array();
    assert_eq!([0xfff, 0x1000, 0x1fff, 0x2000].map(|at| b.byte(at)), [pattern(0xfff), 0xff, 0xff, pattern(0x2000)]);
    b.work();
    assert_eq!((b.image_byte(0x1000), b.image_byte(0x1fff), b.image_byte(0x2000)), (0xff, 0xff, pattern(0x2000)));
}

#[test]
fn an_erase_that_is_not_confirmed_changes_nothing() {
    let mut b = Bench::new();
    b.commands(&[(0x3000, 0x20), (0x3000, 0x33)]);
    assert_eq!(b.byte(0x3000), pattern(0x3000));
    b.commands(&[(0, 0x70)]);
    assert_eq!(b.byte(0), 0xb0);
    b.work();
    assert_eq!(b.image.lock().unwrap().submitted, 0);
}

#[test]
fn the_buffer_is_programmed_when_it_is_confirmed() {
    let mut b = Bench::new();
    b.commands(&[(0x5000, 0xe8)]);
    assert_eq!(b.byte(0), 0x80);
    b.commands(&[(0x5000, 2), (0x5001, 0xa1), (0x5003, 0xa3), (0x5002, 0xa2), (0x5000, 0xd0)]);
    assert_eq!(b.byte(0), 0x80);
    b.array();
    assert_eq!(b.read(0x5000), [pattern(0x5000), 0xa1, 0xa2, 0xa3, pattern(0x5004)]);
    b.work();
    assert_eq!((b.image_byte(0x5000), b.image_byte(0x5002)), (pattern(0x5000), 0xa2));
}

#[test]
fn a_full_buffer_can_be_programmed_by_wide_writes() {
    let mut b = Bench::new();
    b.commands(&[(0x900, 0xe8), (0x900, 63)]);
    for index in 0..64 {
        b.write(0x900 + 4 * index, &[0x11, 0x22, 0x33, 0x44]);
    }
    b.commands(&[(0x900, 0xd0), (0, 0xff)]);
    assert_eq!(b.read(0x8ff), [pattern(0x8ff), 0x11, 0x22]);
    assert_eq!(b.read(0x9fe), [0x33, 0x44, pattern(0xa00)]);
}

#[test]
fn a_buffer_that_is_not_confirmed_is_dropped() {
    let mut b = Bench::new();
    b.commands(&[(0x6000, 0xe8), (0x6000, 0), (0x6000, 1), (0x6000, 0x11)]);
    assert_eq!(b.byte(0x6000), pattern(0x6000));
    b.commands(&[(0, 0x70)]);
    assert_eq!(b.byte(0), 0xb0);
}

#[test]
fn the_buffer_does_not_reach_past_its_window() {
    let mut b = Bench::new();
    b.commands(&[(0x7000, 0xe8), (0x7000, 7), (0x70fe, 0), (0x70ff, 0), (0x7100, 0)]);
    assert_eq!(b.read(0x70fe), [pattern(0x70fe), pattern(0x70ff), pattern(0x7100)]);
    b.commands(&[(0, 0x70)]);
    assert_eq!(b.byte(0), 0x90);
}

#[test]
fn lock_commands_end_well_and_lock_nothing() {
    let mut b = Bench::new();
    b.commands(&[(0x4000, 0x60), (0x4000, 0x01)]);
    assert_eq!(b.byte(0), 0x80);
    b.commands(&[(0x4000, 0x40), (0x4000, 0xee)]);
    b.commands(&[(0x4000, 0x60), (0x4000, 0xd0)]);
    b.array();
    assert_eq!(b.byte(0x4000), 0xee);
    b.commands(&[(0, 0x60), (0, 0x2f)]);
    assert_eq!(b.byte(0x10), pattern(0x10));
}

#[test]
fn a_read_only_image_is_protected() {
    let mut b = Bench::with(true);
    b.commands(&[(3, 0x40), (3, 0x00)]);
    assert_eq!(b.byte(0), 0x92);
    b.commands(&[(0, 0x50), (0x2000, 0x20), (0x2000, 0xd0)]);
    assert_eq!(b.byte(0), 0xa2);
    b.array();
    assert_eq!((b.byte(3), b.byte(0x2000)), (pattern(3), pattern(0x2000)));
    assert_eq!(b.image.lock().unwrap().submitted, 0);
}

#[test]
fn one_write_is_on_its_way_and_the_newest_content_follows() {
    let mut b = Bench::new();
    for value in 0..100 {
        b.commands(&[(0x8000, 0x40), (0x8000, value)]);
    }
    b.commands(&[(0x9000, 0x40), (0x9000, 7)]);
    assert_eq!(b.image.lock().unwrap().waiting.len(), 1);
    b.work();
    assert_eq!((b.image_byte(0x8000), b.image_byte(0x9000)), (99, 7));
    assert_eq!(b.image.lock().unwrap().submitted, 3);
}

#[test]
fn a_full_disk_does_not_stop_later_writes() {
    let mut b = Bench::new();
    b.image.lock().unwrap().fails = true;
    b.commands(&[(1, 0x40), (1, 1)]);
    b.work();
    b.image.lock().unwrap().fails = false;
    b.commands(&[(2, 0x40), (2, 2)]);
    b.work();
    assert_eq!((b.image_byte(1), b.image_byte(2)), (1, 2));
}

#[test]
fn reset_shows_the_array_and_keeps_the_content() {
    let mut b = Bench::new();
    b.commands(&[(0, 0x40), (0, 0xaa), (0, 0x20)]);
    b.board.reset(Reset::System);
    assert_eq!(b.read(0), [0xaa, pattern(1)]);
    assert_eq!(*b.direct.lock().unwrap(), [BASE]);
    b.commands(&[(0, 0x70)]);
    assert_eq!(b.byte(0), 0);
}

/// Whatever is written where and how wide, and whenever the image answers: no panic, and the image ends up as the array.
#[test]
fn any_writes_leave_array_and_image_alike() {
    let mut b = Bench::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    let codes = [0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xe8, 0xff, 0x01];
    for _ in 0..20_000 {
        let word = random.next();
        let width = 1usize << (word >> 60 & 3);
        let offset = word & 0xffff;
        let mut bytes = random.next().to_le_bytes();
        if word >> 32 & 3 != 0 {
            bytes[0] = codes[(word >> 40) as usize % codes.len()];
        }
        b.write(offset, &bytes[..width]);
        let _: [u8; 8] = b.read(offset);
        if word >> 50 & 63 == 0 {
            b.work();
        }
    }
    b.work();
    // The longest sequence is a count, 256 writes and what does not confirm them.
    b.commands(&[(0, 0xff); 260]);
    b.work();
    let array: Vec<u8> = (0..LEN).map(|offset| b.byte(offset)).collect();
    assert!(array == b.image.lock().unwrap().bytes);
    assert!(b.image.lock().unwrap().submitted > 100);
}
