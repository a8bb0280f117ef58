//! Whole operations, cut at every write: the image is the old one or the new one, nothing is wrong with it, and what
//! leaks is at most what was in flight.

use super::*;
use crate::block::create::{CreateOptions as Chosen, Preallocation};
use crate::block::image::{ImageOps, Repair, SnapshotInfo};
use crate::block::memory::{LogEntry, replay};

fn named(name: &str) -> SnapshotInfo {
    SnapshotInfo { name: name.to_owned(), ..SnapshotInfo::default() }
}

/// What a person sees of an image.
#[derive(PartialEq, Debug)]
struct Seen {
    content: Vec<u8>,
    snapshots: Vec<String>,
    backing: Option<String>,
    refcount_order: u32,
    version: u32,
}

fn seen(bytes: &[u8]) -> Seen {
    let file = MemoryNode::from_bytes(bytes.to_vec());
    let options = OpenOptions { read_only: true, for_check: true, ..OpenOptions::default() };
    let image = Image::open(file, Some(MemoryNode::from_bytes(BACKING.to_vec())), options).unwrap();
    let header = image.header();
    Seen {
        content: content(&image),
        snapshots: image.snapshots().unwrap().into_iter().map(|snapshot| snapshot.name).collect(),
        backing: header.backing_file,
        refcount_order: header.refcount_order,
        version: header.version,
    }
}

const BACKING: &[u8] = &[9; 30_000];

/// Leaks of one check, after which they are repaired and nothing else is found.
fn leaks_and_nothing_else(bytes: &[u8], cut: usize) -> u64 {
    let file = MemoryNode::from_bytes(bytes.to_vec());
    let report = checked(&file);
    assert_eq!(report.corruptions + report.check_errors, 0, "cut at {cut}: {:#?}", report.messages);
    if report.leaks > 0 {
        let options = OpenOptions { for_check: true, ..OpenOptions::default() };
        let image = Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, options).unwrap();
        image.check_tables(Some(Repair::Leaks)).unwrap();
        drop(image);
        assert_eq!(checked(&file).messages, Vec::<String>::new(), "cut at {cut}");
    }
    report.leaks
}

/// Runs `operation` on an image that `prepare` made and cuts the log after each entry; with `lossy` also with every
/// second write since the last flush lost.
fn is_one_step(options: &CreateOptions, leaks: u64, prepare: impl Fn(&Image), operation: impl Fn(&Image)) {
    let file = made(options);
    let open = || over(&file, MemoryNode::from_bytes(BACKING.to_vec()));
    let image = open();
    prepare(&image);
    drop(image);
    let image = open();
    let mut disk = file.bytes();
    let before = seen(&disk);
    file.start_log();
    operation(&image);
    drop(image);
    let log = file.take_log();
    let mut after = disk.clone();
    log.iter().for_each(|entry| replay(&mut after, entry));
    let after = seen(&after);
    assert_ne!(before, after, "the operation does nothing");
    let mut dice = Dice(31);
    let mut unflushed: Vec<LogEntry> = Vec::new();
    for (cut, entry) in log.iter().enumerate() {
        unflushed.push(entry.clone());
        let mut torn = disk.clone();
        unflushed.iter().filter(|_| dice.roll(2) == 0).for_each(|entry| replay(&mut torn, entry));
        let mut killed = disk.clone();
        unflushed.iter().for_each(|entry| replay(&mut killed, entry));
        for state in [&torn, &killed] {
            let now = seen(state);
            assert!(now == before || now == after, "cut at {cut} is neither");
            let lost = leaks_and_nothing_else(state, cut);
            assert!(lost <= leaks, "cut at {cut}: {lost} leaks");
        }
        if *entry == LogEntry::Flush {
            unflushed.drain(..).for_each(|entry| replay(&mut disk, &entry));
        }
    }
    assert_eq!(leaks_and_nothing_else(&disk, log.len()), 0);
}

fn some_data(image: &Image) {
    image.write_at(700, &[1; 9000], false).unwrap();
    image.write_compressed_cluster(20_480, &[3; 512]).unwrap();
    image.zero(12_288, 2048, false).unwrap();
    image.write_at(60_000, &[2; 3000], false).unwrap();
}

fn with_snapshot(image: &Image) {
    some_data(image);
    image.create_snapshot(&named("one")).unwrap();
    image.write_at(2000, &[4; 5000], false).unwrap();
    image.write_at(80_000, &[5; 5000], false).unwrap();
}

#[test]
fn taking_a_snapshot_is_one_step() {
    is_one_step(&small(100_352), 0, some_data, |image| {
        image.create_snapshot(&named("one")).unwrap();
    });
}

#[test]
fn applying_a_snapshot_is_one_step() {
    is_one_step(&small(100_352), 0, with_snapshot, |image| image.apply_snapshot("one").unwrap());
}

#[test]
fn deleting_a_snapshot_is_one_step() {
    is_one_step(&small(100_352), 0, with_snapshot, |image| image.delete_snapshot("1").unwrap());
}

#[test]
fn shrinking_is_one_step() {
    is_one_step(&small(100_352), 0, with_snapshot, |image| {
        image.resize(40_448, Preallocation::Off, true).unwrap();
    });
}

#[test]
fn growing_over_a_longer_table_is_one_step() {
    is_one_step(
        &small(20_480),
        3,
        |image| image.write_at(0, &[1; 20_480], false).unwrap(),
        |image| {
            image.resize(4 * MIB, Preallocation::Off, false).unwrap();
        },
    );
}

#[test]
fn making_an_image_empty_is_one_step() {
    is_one_step(&small(100_352), 0, some_data, |image| image.make_empty().unwrap());
}

#[test]
fn recording_another_backing_file_is_one_step() {
    is_one_step(&small(100_352), 0, some_data, |image| {
        image.change_backing_file(Some("other.img"), Some("raw")).unwrap();
    });
}

#[test]
fn other_refcount_widths_are_entered_in_one_step() {
    is_one_step(&small(100_352), 0, with_snapshot, |image| {
        let mut options = Chosen::for_amend("qcow2", image.amend_options());
        options.add("refcount_bits", "64").unwrap();
        image.amend(&options, false, &mut |_, _| {}).unwrap();
    });
}

#[test]
fn a_downgrade_is_one_step() {
    is_one_step(&small(100_352), 0, some_data, |image| {
        let mut options = Chosen::for_amend("qcow2", image.amend_options());
        options.add("compat", "0.10").unwrap();
        image.amend(&options, false, &mut |_, _| {}).unwrap();
    });
}

#[test]
fn a_snapshot_holds_what_the_disk_held() {
    let file = made(&small(100_352));
    let image = opened(&file);
    some_data(&image);
    let before = content(&image);
    image.create_snapshot(&named("one")).unwrap();
    image.write_at(0, &[7; 50_000], false).unwrap();
    image.create_snapshot(&named("two")).unwrap();
    let between = content(&image);
    image.discard(0, 100_352).unwrap();
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let look = Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, options).unwrap();
    look.load_snapshot("two").unwrap();
    assert!(content(&look) == between);
    let image = opened(&file);
    image.apply_snapshot("one").unwrap();
    assert!(content(&image) == before);
    image.delete_snapshot("two").unwrap();
    image.delete_snapshot("one").unwrap();
    assert!(image.delete_snapshot("one").is_err());
    assert!(content(&image) == before);
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

#[test]
fn one_bit_counts_have_no_room_for_a_snapshot() {
    let file = made(&CreateOptions { refcount_bits: 1, ..small(100_352) });
    let image = opened(&file);
    some_data(&image);
    assert_eq!(image.create_snapshot(&named("one")).unwrap_err().raw_os_error(), Some(22));
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

#[test]
fn random_changes_between_snapshots_are_those_of_a_vector() {
    let file = made(&small(100_352));
    let mut model = vec![0; 100_352];
    let mut dice = Dice(41);
    let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
    for round in 0..12 {
        let image = opened(&file);
        for _ in 0..30 {
            step(&mut dice, &image, &mut model);
        }
        match dice.roll(3) {
            1 if !kept.is_empty() => {
                let (name, old) = kept[usize::try_from(dice.roll(kept.len() as u64)).unwrap()].clone();
                image.apply_snapshot(&name).unwrap();
                model = old;
            }
            2 if !kept.is_empty() => image.delete_snapshot(&kept.remove(0).0).unwrap(),
            _ => {
                let name = format!("s{round}");
                image.create_snapshot(&named(&name)).unwrap();
                kept.push((name, model.clone()));
            }
        }
        assert!(content(&image) == model, "round {round}");
        drop(image);
        assert_eq!(checked(&file).messages, Vec::<String>::new(), "round {round}");
    }
}

#[test]
fn a_kill_with_lazy_refcounts_leaves_a_valid_image() {
    let options = CreateOptions { lazy_refcounts: true, ..small(100_352) };
    let file = made(&options);
    let mut model = vec![0; 100_352];
    let mut dice = Dice(51);
    let image = opened(&file);
    let mut disk = file.bytes();
    for _ in 0..8 {
        file.start_log();
        let before = model.clone();
        for _ in 0..4 {
            step(&mut dice, &image, &mut model);
        }
        image.flush().unwrap();
        for entry in file.take_log() {
            replay(&mut disk, &entry);
            // It is marked as dirty, and opening it repairs it.
            let copy = MemoryNode::from_bytes(disk.clone());
            drop(opened(&copy));
            assert_eq!(checked(&copy).messages, Vec::<String>::new());
        }
        assert_eq!(before.len(), model.len());
        let copy = MemoryNode::from_bytes(disk.clone());
        assert!(content(&opened(&copy)) == model);
    }
    assert_ne!(image.header().incompatible & header::incompatible::DIRTY, 0);
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
    assert_eq!(opened(&file).header().incompatible, 0);
}

#[test]
fn bitmaps_record_what_is_written_and_survive_closing() {
    let file = made(&CreateOptions::new(10 * MIB));
    let image = opened(&file);
    image.add_bitmap("b", 65536, true).unwrap();
    image.write_at(3 * MIB, &[1; 100_000], false).unwrap();
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
    let image = opened(&file);
    assert_eq!(image.bitmap_bits("b").unwrap().run(3 * MIB), (true, 3 * MIB + 131_072));
    assert_eq!(image.bitmap_bits("b").unwrap().count(), 131_072);
    image.enable_bitmap("b", false).unwrap();
    image.write_at(0, &[1; 512], false).unwrap();
    assert_eq!(image.bitmap_bits("b").unwrap().count(), 131_072);
    assert_eq!(image.add_bitmap("b", 0, true).unwrap_err().to_string(), "Bitmap already exists: b");
    image.add_bitmap("c", 4096, true).unwrap();
    let bits = image.bitmap_bits("b").unwrap();
    image.merge_bitmap("c", &bits).unwrap();
    drop(image);
    let image = opened(&file);
    assert_eq!(image.bitmap_bits("c").unwrap().count(), 131_072);
    image.remove_bitmap("b").unwrap();
    image.clear_bitmap("c").unwrap();
    drop(image);
    let image = opened(&file);
    assert_eq!(image.bitmaps().unwrap().len(), 1);
    assert_eq!(image.bitmap_bits("c").unwrap().count(), 0);
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

#[test]
fn bitmaps_are_inconsistent_after_a_crash_and_never_wrong() {
    let file = made(&CreateOptions { cluster_size: 4096, ..CreateOptions::new(MIB) });
    let image = opened(&file);
    image.add_bitmap("b", 4096, true).unwrap();
    drop(image);
    let mut disk = file.bytes();
    let image = opened(&file);
    // Opening marked it; from here on every state is of use or marked.
    let marked = file.bytes();
    file.start_log();
    image.write_at(0, &[1; 8192], false).unwrap();
    image.flush().unwrap();
    drop(image);
    let log = file.take_log();
    disk.clone_from(&marked);
    let mut consistent = 0;
    for entry in &log {
        replay(&mut disk, entry);
        let copy = MemoryNode::from_bytes(disk.clone());
        assert_eq!(checked(&copy).corruptions, 0);
        match opened(&copy).bitmap_bits("b") {
            Ok(bits) => {
                consistent += 1;
                assert_eq!(bits.count(), 8192);
            }
            Err(error) => assert!(error.to_string().starts_with("Bitmap 'b' is inconsistent")),
        }
    }
    assert!(consistent > 0 && consistent < log.len());
}

#[test]
fn data_goes_to_an_external_file_at_its_own_offset() {
    let options = CreateOptions { data_file: Some("x.raw".to_owned()), data_file_raw: true, ..CreateOptions::new(MIB) };
    let file = made(&options);
    let data = MemoryNode::new(usize::try_from(MIB).unwrap());
    let open = || {
        let nodes = Nodes {
            file: Arc::clone(&file) as Arc<dyn BlockNode>,
            backing: None,
            data: Some(Arc::clone(&data) as Arc<dyn BlockNode>),
        };
        let open = OpenOptions { unmap: true, ..OpenOptions::default() };
        Image::assemble(nodes, open, &crate::block::crypto::NoSecrets).unwrap()
    };
    let mut model = vec![0; usize::try_from(MIB).unwrap()];
    let mut dice = Dice(61);
    let image = open();
    image.preallocate_all(Preallocation::Metadata).unwrap();
    for _ in 0..100 {
        step(&mut dice, &image, &mut model);
    }
    assert!(content(&image) == model);
    assert!(image.create_snapshot(&named("no")).is_err());
    drop(image);
    assert!(content(&open()) == model);
    assert!(data.bytes() == model);
    let refused = Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, OpenOptions::default()).err().unwrap();
    assert_eq!(refused.to_string(), "'data-file' is required for this image");
}

/// What QEMU's own tools lose (issue 5): packed clusters behind live data.
#[test]
fn packed_and_plain_clusters_alternate_without_loss() {
    let file = made(&CreateOptions::new(4 * MIB));
    let image = opened(&file);
    let mut model = vec![0; usize::try_from(4 * MIB).unwrap()];
    let mut write = |at: usize, fill: u8, packed: bool| {
        model[at..at + 65536].fill(fill);
        let at = at as u64;
        if packed {
            image.write_compressed_cluster(at, &[fill; 65536]).unwrap()
        } else {
            image.write_at(at, &[fill; 65536], false).unwrap()
        }
    };
    write(0, 1, true);
    write(0, 2, false);
    image.flush().unwrap();
    write(65536, 3, false);
    write(131_072, 4, false);
    write(1 << 20, 5, true);
    write(1 << 20, 6, false);
    write(2 << 20, 7, true);
    image.flush().unwrap();
    write(196_608, 8, false);
    write(3 << 20, 9, true);
    assert!(content(&image) == model);
    drop(image);
    assert!(content(&opened(&file)) == model);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

#[test]
fn threads_that_write_beside_each_other_lose_nothing() {
    let file = made(&CreateOptions { cluster_size: 4096, ..CreateOptions::new(2 * MIB) });
    let image = opened(&file);
    // Each thread owns every fourth KiB: all of them meet in every cluster.
    let write = |thread: u8| {
        let image = &image;
        move || {
            for kib in (u64::from(thread)..2048).step_by(4) {
                image.write_at(kib * 1024, &[thread + 1; 1024], false).unwrap();
                if kib % 256 == 0 {
                    image.flush().unwrap();
                }
            }
        }
    };
    std::thread::scope(|scope| {
        (0..4).for_each(|thread| {
            scope.spawn(write(thread));
        });
    });
    let all = content(&image);
    assert!(all.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 1024 % 4 + 1));
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
}

#[test]
fn a_write_over_tables_is_refused_and_the_image_marked() {
    let file = made(&CreateOptions::new(MIB));
    let image = opened(&file);
    image.write_at(0, &[1; 512], false).unwrap();
    drop(image);
    let mut bytes = file.bytes();
    // The L2 entry of the first cluster leads to the refcount block (qcow2.rst: cluster 2 of a new image).
    let l1 = usize::try_from(u64::from_be_bytes(bytes[40..48].try_into().unwrap())).unwrap();
    let l2 = usize::try_from(u64::from_be_bytes(bytes[l1..l1 + 8].try_into().unwrap()) & 0xff_ffff_fe00).unwrap();
    bytes[l2..l2 + 8].copy_from_slice(&(0x2_0000_u64 | 1 << 63).to_be_bytes());
    let file = MemoryNode::from_bytes(bytes);
    let image = opened(&file);
    assert_eq!(image.write_at(0, &[1; 512], false).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(image.write_at(MIB / 2, &[1; 512], false).unwrap_err().raw_os_error(), Some(5));
    drop(image);
    let refused = Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, OpenOptions::default()).err().unwrap();
    assert_eq!(refused.to_string(), "qcow2: Image is corrupt; cannot be opened read/write");
}

#[test]
fn counts_that_are_gone_are_built_anew() {
    let file = made(&small(100_352));
    let image = opened(&file);
    some_data(&image);
    image.create_snapshot(&named("one")).unwrap();
    let before = content(&image);
    drop(image);
    let mut bytes = file.bytes();
    let table = usize::try_from(u64::from_be_bytes(bytes[48..56].try_into().unwrap())).unwrap();
    bytes[table..table + 512].fill(0);
    let file = MemoryNode::from_bytes(bytes);
    assert!(checked(&file).corruptions > 0);
    let options = OpenOptions { for_check: true, ..OpenOptions::default() };
    let image = Image::open(Arc::clone(&file) as Arc<dyn BlockNode>, None, options).unwrap();
    assert!(image.check_tables(Some(Repair::Leaks)).is_err());
    let report = image.check_tables(Some(Repair::All)).unwrap();
    assert_eq!((report.corruptions, report.leaks), (0, 0), "{:#?}", report.messages);
    drop(image);
    assert_eq!(checked(&file).messages, Vec::<String>::new());
    assert!(content(&opened(&file)) == before);
}

struct Password;

impl crate::block::crypto::Secrets for Password {
    fn secret(&self, _id: &str) -> Result<Vec<u8>, OpenError> {
        Ok(b"open sesame".to_vec())
    }
}

fn behaves_encrypted(encryption: crypt::Encryption) {
    let options = CreateOptions { encryption: Some(encryption), cluster_size: 4096, ..CreateOptions::new(200_192) };
    let file = made(&options);
    let open = || {
        let nodes = Nodes {
            backing: Some(MemoryNode::from_bytes(vec![9; 100_000])),
            ..Nodes::file(Arc::clone(&file) as Arc<dyn BlockNode>)
        };
        let open = OpenOptions { unmap: true, key_secret: Some("s".to_owned()), ..OpenOptions::default() };
        Image::assemble(nodes, open, &Password).unwrap()
    };
    let mut model = vec![9; 100_000];
    model.resize(200_192, 0);
    let mut dice = Dice(71);
    for _ in 0..2 {
        let image = open();
        for _ in 0..100 {
            step(&mut dice, &image, &mut model);
        }
        assert!(content(&image) == model);
    }
    assert!(content(&open()) == model);
    let image = open();
    image.write_at(0, &[0x5a; 8192], false).unwrap();
    assert_eq!(image.write_compressed_cluster(8192, &[1; 4096]).unwrap_err().raw_os_error(), Some(95));
    drop(image);
    assert!(!file.bytes().windows(64).any(|bytes| bytes == [0x5a; 64]), "it is there in plain text");
    assert_eq!(checked(&file).messages, Vec::<String>::new());
    assert!(opened(&file).read_at(0, &mut [0; 512]).is_err());
}

#[test]
fn luks_images_behave_like_a_vector() {
    let volume =
        crate::block::crypto::luks::NewVolume::from_options(&|name| (name == "iter-time").then(|| "1".to_owned()));
    behaves_encrypted(crypt::Encryption::Luks { volume: volume.unwrap(), password: b"open sesame".to_vec() });
}

#[test]
fn legacy_encrypted_images_behave_like_a_vector() {
    behaves_encrypted(crypt::Encryption::Aes);
}
