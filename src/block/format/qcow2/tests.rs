use super::create::{CreateOptions, create};
use super::*;
use crate::block::memory::MemoryNode;

const MIB: u64 = 1 << 20;

/// Small clusters make all tables matter.
fn small(size: u64) -> CreateOptions {
    CreateOptions { cluster_size: 512, ..CreateOptions::new(size) }
}

fn made(options: &CreateOptions) -> Arc<MemoryNode> {
    let file = MemoryNode::new(0);
    create(file.as_ref(), options).unwrap();
    file
}

fn opened(file: &Arc<MemoryNode>) -> Image {
    let options = OpenOptions { unmap: true, ..OpenOptions::default() };
    Image::open(Arc::clone(file) as Arc<dyn BlockNode>, None, options).unwrap()
}

fn over(file: &Arc<MemoryNode>, backing: Arc<dyn BlockNode>) -> Image {
    let options = OpenOptions { unmap: true, ..OpenOptions::default() };
    Image::open(Arc::clone(file) as Arc<dyn BlockNode>, Some(backing), options).unwrap()
}

/// The same numbers each time (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// One change of a disk, done to the image and to a plain vector.
///
/// A discarded range reads as zeros, but for version 2 over a backing file, where discards do nothing.
fn step(dice: &mut Dice, image: &Image, model: &mut [u8]) {
    let size = model.len() as u64;
    let offset = dice.roll(size);
    let len = (dice.roll(5000) + 1).min(size - offset);
    let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
    match dice.roll(10) {
        0..=5 => {
            let fill = u8::try_from(dice.roll(255)).unwrap() + 1;
            model[range.clone()].fill(fill);
            image.write_at(offset, &model[range], false).unwrap();
        }
        6 | 7 => {
            model[range].fill(0);
            image.zero(offset, len, dice.roll(2) == 0).unwrap();
        }
        8 => {
            let cluster = image.cluster_size();
            image.discard(offset, len).unwrap();
            let start = offset.next_multiple_of(cluster);
            let end = if offset + len == size { size } else { (offset + len) / cluster * cluster };
            if start < end && !(image.geometry.version == 2 && image.backing.is_some()) {
                model[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(0);
            }
        }
        _ => image.flush().unwrap(),
    }
}

fn content(image: &Image) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(image.len().unwrap()).unwrap()];
    image.read_at(0, &mut all).unwrap();
    all
}

fn behaves_like_a_vector(options: &CreateOptions, backing: Option<Vec<u8>>, seed: u64) {
    let file = made(options);
    let mut model = backing.clone().unwrap_or_default();
    model.resize(usize::try_from(options.size).unwrap(), 0);
    let open = || match &backing {
        Some(bytes) => over(&file, MemoryNode::from_bytes(bytes.clone())),
        None => opened(&file),
    };
    let mut dice = Dice(seed);
    for _ in 0..4 {
        let image = open();
        for _ in 0..150 {
            step(&mut dice, &image, &mut model);
        }
        assert!(content(&image) == model);
    }
    assert!(content(&open()) == model);
}

#[test]
fn a_new_image_reads_as_zeros_and_keeps_what_is_written() {
    let file = made(&CreateOptions::new(10 * MIB));
    let image = opened(&file);
    image.write_at(MIB - 3, b"hello", false).unwrap();
    drop(image);
    let image = opened(&file);
    let mut buf = [1; 7];
    image.read_at(MIB - 4, &mut buf).unwrap();
    assert_eq!(&buf, b"\0hello\0");
    assert!(image.read_at(10 * MIB - 1, &mut [0; 2]).is_err());
}

#[test]
fn random_changes_are_those_of_a_vector() {
    behaves_like_a_vector(&small(300_032), None, 1);
}

#[test]
fn random_changes_over_a_backing_file() {
    behaves_like_a_vector(&small(300_032), Some((0..200_000_u32).map(|i| i.to_le_bytes()[1] | 1).collect()), 2);
}

#[test]
fn random_changes_in_version_two() {
    let options = CreateOptions { version: 2, ..small(300_032) };
    behaves_like_a_vector(&options, Some(vec![9; 100_000]), 3);
}

#[test]
fn random_changes_with_one_bit_refcounts() {
    behaves_like_a_vector(&CreateOptions { refcount_bits: 1, ..small(300_032) }, None, 4);
}

#[test]
fn random_changes_with_64_bit_refcounts_and_a_table_that_grows() {
    behaves_like_a_vector(&CreateOptions { refcount_bits: 64, ..small(4 * MIB) }, None, 5);
}

#[test]
fn random_changes_with_extended_l2_entries() {
    let options = CreateOptions { extended_l2: true, cluster_size: 16384, ..CreateOptions::new(600_064) };
    behaves_like_a_vector(&options, Some(vec![9; 400_000]), 6);
}

#[test]
fn compressed_clusters_come_back_and_can_be_overwritten() {
    let file = made(&CreateOptions::new(MIB));
    let image = opened(&file);
    let mut model: Vec<u8> = (0..u32::try_from(MIB).unwrap()).map(|i| (i / 777).to_le_bytes()[0]).collect();
    for cluster in 0..16 {
        let at = cluster * 65536;
        image.write_compressed(at, &model[usize::try_from(at).unwrap()..][..65536]).unwrap();
    }
    image.flush().unwrap();
    assert!(file.len().unwrap() < MIB / 2);
    assert!(content(&image) == model);
    model[100_000..100_010].fill(1);
    image.write_at(100_000, &[1; 10], false).unwrap();
    drop(image);
    assert!(content(&opened(&file)) == model);
}

#[test]
fn a_flush_reaches_the_file_after_everything_else() {
    use crate::block::memory::LogEntry;
    let file = made(&CreateOptions::new(MIB));
    let image = opened(&file);
    file.start_log();
    image.write_at(0, &[1; 512], false).unwrap();
    image.flush().unwrap();
    let log = file.take_log();
    assert_eq!(log.last(), Some(&LogEntry::Flush));
    // Content and reference counts, then the L2 table and the L1 table.
    assert_eq!(log.iter().filter(|entry| **entry == LogEntry::Flush).count(), 2);
}
