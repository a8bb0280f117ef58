mod operations;

use super::create::{CreateOptions, create};
use super::*;
use crate::block::image::CheckReport;
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
            if start < end && !(image.geometry().version == 2 && image.backing.is_some()) {
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
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

fn checked(file: &Arc<MemoryNode>) -> CheckReport {
    let options = OpenOptions { read_only: true, for_check: true, ..OpenOptions::default() };
    Image::open(Arc::clone(file) as Arc<dyn BlockNode>, None, options).unwrap().check_tables(None).unwrap()
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
        image.write_compressed_cluster(at, &model[usize::try_from(at).unwrap()..][..65536]).unwrap();
    }
    image.flush().unwrap();
    assert!(file.len().unwrap() < MIB / 2);
    assert!(content(&image) == model);
    model[100_000..100_010].fill(1);
    image.write_at(100_000, &[1; 10], false).unwrap();
    drop(image);
    assert!(content(&opened(&file)) == model);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
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

/// What the disk may hold after a cut: for each byte, the values it had since the last flush.
struct Promise {
    flushed: Vec<u8>,
    since: Vec<(usize, Vec<u8>)>,
}

impl Promise {
    fn kept_by(&self, disk: &[u8]) -> bool {
        let may_be = |i: usize, byte: u8| {
            self.since.iter().any(|(start, bytes)| i.checked_sub(*start).and_then(|at| bytes.get(at)) == Some(&byte))
        };
        let mut changed = disk.iter().zip(&self.flushed).enumerate().filter(|(_, (is, was))| is != was);
        disk == self.flushed || changed.all(|(i, (is, _))| may_be(i, *is))
    }
}

/// Opens what a cut left, as after a crash: nothing may be wrong but leaks, and the promise must be kept.
fn survives(bytes: &[u8], backing: Option<&[u8]>, promise: &Promise, cut: usize) {
    let file = MemoryNode::from_bytes(bytes.to_vec());
    let report = checked(&file);
    assert_eq!(report.corruptions + report.check_errors, 0, "cut at {cut}: {:#?}", report.messages);
    let image = match backing {
        Some(bytes) => over(&file, MemoryNode::from_bytes(bytes.to_vec())),
        None => opened(&file),
    };
    assert!(promise.kept_by(&content(&image)), "cut at {cut}: flushed data is lost");
}

/// Runs random changes with flushes between them and cuts the log of what reached the file after each entry. With
/// `reorder`, those writes since the file's last flush are lost at random, as in a power cut.
fn survives_cuts(options: &CreateOptions, backing: Option<Vec<u8>>, seed: u64, reorder: bool) {
    use crate::block::memory::{LogEntry, replay};
    let file = made(options);
    let mut disk = file.bytes();
    let mut model = backing.clone().unwrap_or_default();
    model.resize(usize::try_from(options.size).unwrap(), 0);
    let image = match &backing {
        Some(bytes) => over(&file, MemoryNode::from_bytes(bytes.clone())),
        None => opened(&file),
    };
    let mut dice = Dice(seed);
    let mut promise = Promise { flushed: model.clone(), since: Vec::new() };
    let mut unflushed: Vec<LogEntry> = Vec::new();
    let mut cut = 0;
    for _ in 0..20 {
        file.start_log();
        for _ in 0..4 {
            let before = model.clone();
            step(&mut dice, &image, &mut model);
            let mut changed = (0..model.len()).filter(|i| model[*i] != before[*i]);
            if let Some(first) = changed.next() {
                let last = changed.next_back().unwrap_or(first);
                promise.since.push((first, model[first..=last].to_vec()));
            }
        }
        image.flush().unwrap();
        for entry in file.take_log() {
            cut += 1;
            if !reorder {
                replay(&mut disk, &entry);
                survives(&disk, backing.as_deref(), &promise, cut);
                continue;
            }
            unflushed.push(entry.clone());
            let mut torn = disk.clone();
            for lost in &unflushed {
                if dice.roll(2) == 0 {
                    replay(&mut torn, lost);
                }
            }
            survives(&torn, backing.as_deref(), &promise, cut);
            if entry == LogEntry::Flush {
                unflushed.drain(..).for_each(|entry| replay(&mut disk, &entry));
            }
        }
        promise = Promise { flushed: model.clone(), since: Vec::new() };
        survives(&disk, backing.as_deref(), &promise, cut);
    }
    assert!(cut > 100, "only {cut} cuts");
}

#[test]
fn a_kill_at_any_write_leaves_a_valid_image() {
    survives_cuts(&small(100_352), None, 11, false);
}

#[test]
fn a_kill_at_any_write_over_a_backing_file_leaves_a_valid_image() {
    survives_cuts(&small(100_352), Some(vec![9; 70_000]), 12, false);
}

#[test]
fn a_kill_in_version_two_leaves_a_valid_image() {
    survives_cuts(&CreateOptions { version: 2, ..small(100_352) }, Some(vec![9; 70_000]), 13, false);
}

#[test]
fn a_kill_while_the_refcount_table_grows_leaves_a_valid_image() {
    survives_cuts(&CreateOptions { refcount_bits: 64, ..small(MIB / 2) }, None, 14, false);
}

#[test]
fn a_kill_with_extended_l2_entries_leaves_a_valid_image() {
    let options = CreateOptions { extended_l2: true, cluster_size: 16384, ..CreateOptions::new(300_032) };
    survives_cuts(&options, Some(vec![9; 200_000]), 15, false);
}

#[test]
fn a_power_cut_that_loses_any_unflushed_writes_leaves_a_valid_image() {
    survives_cuts(&small(100_352), Some(vec![9; 70_000]), 16, true);
}

#[test]
fn a_power_cut_while_the_refcount_table_grows_leaves_a_valid_image() {
    survives_cuts(&CreateOptions { refcount_bits: 64, ..small(MIB / 2) }, None, 17, true);
}

/// A small image with everything in it: plain, packed and zero clusters, a backing file's name, extensions.
fn sample() -> Vec<u8> {
    let backing = Some(("base.img".to_owned(), Some("raw".to_owned())));
    let file = made(&CreateOptions { backing, cluster_size: 1024, ..CreateOptions::new(32 * 1024) });
    let image = opened(&file);
    image.write_at(0, &[7; 5000], false).unwrap();
    image.write_compressed_cluster(8192, &[3; 1024]).unwrap();
    image.zero(12288, 4096, false).unwrap();
    drop(image);
    file.bytes()
}

/// Opens a damaged image in both ways and uses it; whatever comes of that, it must not panic.
fn endure(bytes: Vec<u8>) {
    let file = MemoryNode::from_bytes(bytes);
    let look = OpenOptions { read_only: true, for_check: true, ..OpenOptions::default() };
    if let Ok(image) = Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, look) {
        let mut buf = vec![0; 16384];
        let _ = image.read_at(0, &mut buf);
        let _ = image.extent(0, 16384);
        let _ = image.snapshots();
        let _ = image.check_tables(None);
    }
    let change = OpenOptions { unmap: true, ..OpenOptions::default() };
    if let Ok(image) = Image::open(file, None, change) {
        let _ = image.write_at(100, &[1; 3000], false);
        let _ = image.write_at(20000, &[1; 3000], false);
        let _ = image.discard(0, 8192);
        let _ = image.flush();
    }
}

#[test]
fn no_truncation_panics() {
    let good = sample();
    (0..good.len()).step_by(37).chain(0..200).for_each(|len| endure(good[..len].to_vec()));
}

#[test]
fn no_flipped_bit_of_the_header_panics() {
    let good = sample();
    for bit in 0..200 * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        endure(bad);
    }
}

#[test]
fn no_flipped_bits_of_the_tables_panic() {
    let good = sample();
    let mut dice = Dice(21);
    for _ in 0..1500 {
        let mut bad = good.clone();
        for _ in 0..=dice.roll(3) {
            let at = 1024 + usize::try_from(dice.roll(good.len() as u64 - 1024)).unwrap();
            bad[at] ^= 1 << dice.roll(8);
        }
        endure(bad);
    }
}

#[test]
fn a_dirty_image_is_repaired_when_it_is_opened_for_writing() {
    let file = made(&small(100_352));
    let image = opened(&file);
    image.write_at(0, &[5; 20_000], false).unwrap();
    drop(image);
    let mut bytes = file.bytes();
    bytes[79] |= 1; // the dirty bit
    let block = usize::try_from(u64::from_be_bytes(bytes[512..520].try_into().unwrap())).unwrap();
    bytes[block + 20..block + 60].fill(0); // counts of clusters in use
    let file = MemoryNode::from_bytes(bytes);
    assert!(checked(&file).corruptions > 0);
    let image = opened(&file);
    assert!(content(&image)[..20_000].iter().all(|byte| *byte == 5));
    assert_eq!(image.header().incompatible, 0);
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

#[test]
fn a_longer_disk_reads_as_zeros_behind_its_old_end() {
    let file = made(&small(20_480));
    let image = opened(&file);
    image.write_at(0, &[5; 20_480], false).unwrap();
    image.truncate(MIB).unwrap();
    image.write_at(MIB - 10, &[6; 10], false).unwrap();
    drop(image);
    let image = opened(&file);
    let all = content(&image);
    assert!(all[..20_480].iter().all(|b| *b == 5) && all[20_480..all.len() - 10].iter().all(|b| *b == 0));
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}
