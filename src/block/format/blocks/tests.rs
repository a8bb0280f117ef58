//! What all formats have in common: content survives, a cut log leaves whole images, and no bytes in an image make a
//! driver panic, hang or take memory without bound.

use std::sync::Arc;

use crate::block::create::{self, CreateOptions};
use crate::block::driver::{CreatePlace, Kind};
use crate::block::error::OpenError;
use crate::block::graph::{Image, OpenFlags, Opener};
use crate::block::image::Repair;
use crate::block::memory::{MemoryNode, replay};
use crate::block::node::BlockNode;
use crate::block::options::{CacheMode, NodeOptions};

/// Formats that can be made, with options of a small image.
const MADE: &[(&str, &str)] = &[
    ("parallels", "size=3M,cluster_size=64k"),
    ("qcow", "size=3M"),
    ("qed", "size=3M,cluster_size=4k,table_size=1"),
    ("vdi", "size=3M"),
    ("vdi", "size=1M,static=on"),
    ("vhdx", "size=3M,block_size=1M"),
    ("vhdx", "size=1M,block_size=1M,subformat=fixed"),
    ("vmdk", "size=3M"),
    ("vmdk", "size=3M,zeroed_grain=on"),
    ("vmdk", "size=1M,subformat=streamOptimized"),
    ("vpc", "size=5M,force_size=on"),
    ("vpc", "size=300k,subformat=fixed,force_size=on"),
];

/// Mutated images of each kind, if they are small.
const MUTATIONS: usize = 2000;
/// Bytes of mutated images of each kind.
const MUTATED_BYTES: usize = 1 << 30;

/// xorshift64*: the same mutations each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}

/// An empty image of that format, made as `qemu-img create` does.
fn made(format: &str, text: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image").to_str().unwrap().to_owned();
    let mut options = CreateOptions::new(format, Some(&path)).unwrap();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=').unwrap();
        options.add(name, value).unwrap();
    }
    create::create(&path, &options, &mut CreatePlace::default()).unwrap();
    std::fs::read(&path).unwrap()
}

/// Opens an image in memory.
fn open(format: &str, file: &Arc<MemoryNode>, flags: OpenFlags) -> Result<Image, OpenError> {
    let file: Arc<dyn BlockNode> = Arc::<MemoryNode>::clone(file);
    let below = Image {
        node: Arc::clone(&file),
        kind: Kind::Protocol,
        file,
        driver: "file",
        filename: "memory".to_owned(),
        node_name: "memory".to_owned(),
        backing_name: None,
        backing: None,
        read_only: false,
        cache: CacheMode::default(),
        detect_zeroes: "off",
    };
    let mut opener = Opener::default();
    opener.nodes.insert("memory".to_owned(), below);
    let options = NodeOptions::default().format(format).with("file", "memory");
    opener.open(&options, flags)
}

fn writable() -> OpenFlags {
    OpenFlags::default()
}

/// Random changes of the disk, done to a plain vector as well.
fn change(random: &mut Random, image: &Image, model: &mut [u8]) {
    let size = model.len() as u64;
    let offset = random.below(size);
    let len = (random.below(200_000) + 1).min(size - offset);
    let range = usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap();
    if random.below(4) == 0 {
        model[range].fill(0);
        image.node.zero(offset, len, random.below(2) == 0).unwrap();
    } else {
        let fill = random.next().to_le_bytes()[7];
        model[range.clone()].fill(fill);
        image.node.write_at(offset, &model[range], false).unwrap();
    }
}

fn content(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(image.node.len().unwrap()).unwrap()];
    image.node.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_written_is_read_again_also_after_opening_anew() {
    for (format, options) in MADE {
        let file = MemoryNode::from_bytes(made(format, options));
        let mut random = Random(7);
        let mut model = Vec::new();
        for _ in 0..3 {
            let image = open(format, &file, writable()).unwrap();
            model.resize(usize::try_from(image.node.len().unwrap()).unwrap(), 0);
            for _ in 0..20 {
                change(&mut random, &image, &mut model);
            }
            assert!(content(&image) == model, "{format} {options}");
            drop(image);
            let image = open(format, &file, writable()).unwrap();
            assert!(content(&image) == model, "{format} {options}, opened again");
            if let Some(ops) = image.ops().filter(|ops| ops.can_check()) {
                assert_eq!(ops.check(None).unwrap().corruptions, 0, "{format} {options}");
            }
        }
    }
}

#[test]
fn an_image_cut_off_at_any_write_opens_and_holds_what_was_flushed() {
    for (format, options) in MADE {
        let file = MemoryNode::from_bytes(made(format, options));
        let image = open(format, &file, writable()).unwrap();
        let half = image.node.len().unwrap() / 2;
        let kept = vec![0xa5; 70_000];
        image.node.write_at(1000, &kept, false).unwrap();
        image.node.flush().unwrap();
        let mut bytes = file.bytes();
        file.start_log();
        for step in 0..3 {
            image.node.write_at(half + step * 30_000, &[9; 20_000], false).unwrap();
            image.node.flush().unwrap();
        }
        drop(image);
        for entry in file.take_log() {
            replay(&mut bytes, &entry);
            let cut = MemoryNode::from_bytes(bytes.clone());
            let image = open(format, &cut, writable()).unwrap_or_else(|error| panic!("{format} {options}: {error}"));
            let mut found = vec![0; kept.len()];
            image.node.read_at(1000, &mut found).unwrap();
            assert!(found == kept, "{format} {options}");
        }
    }
}

/// A small image with some content.
fn filled(format: &str, options: &str) -> Vec<u8> {
    let file = MemoryNode::from_bytes(made(format, options));
    let image = open(format, &file, writable()).unwrap();
    let len = image.node.len().unwrap();
    image.node.write_at(0, &[1; 3000], false).unwrap();
    image.node.write_at(len - 5000, &[2; 5000], false).unwrap();
    drop(image);
    file.bytes()
}

/// Changes some bytes, mostly of the tables at the beginning, to values that hurt.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let near = [512, 4096, 70_000, bytes.len() as u64][usize::try_from(random.below(4)).unwrap()];
        let at = usize::try_from(random.below(near.min(bytes.len() as u64))).unwrap();
        let value = match random.below(5) {
            0 => u64::MAX,
            1 => 1 << random.below(64),
            2 => 0,
            _ => random.next(),
        };
        let width = [1, 2, 4, 8][usize::try_from(random.below(4)).unwrap()];
        let at = if random.below(2) == 0 { at - at % width } else { at };
        let source = if random.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
        for (place, byte) in bytes[at..].iter_mut().zip(&source[..width]) {
            *place = *byte;
        }
    }
    if random.below(16) == 0 {
        bytes.truncate(usize::try_from(random.below(bytes.len() as u64)).unwrap());
    }
}

/// Opens it and does everything that can be done to an image; what fails may fail.
fn exercise(random: &mut Random, format: &str, bytes: Vec<u8>) {
    let file = MemoryNode::from_bytes(bytes);
    let flags = OpenFlags { read_only: random.below(3) == 0, for_check: random.below(3) == 0, ..OpenFlags::default() };
    let Ok(image) = open(format, &file, flags) else { return };
    let len = image.node.len().unwrap();
    let mut buf = vec![0; 5000];
    for offset in [0, len / 2, len.saturating_sub(5000), random.below(len.max(1))] {
        let part = usize::try_from(len.saturating_sub(offset).min(5000)).unwrap();
        let _ = image.node.read_at(offset, &mut buf[..part]);
        let _ = image.node.write_at(offset, &buf[..part], false);
        let _ = image.node.zero(offset, part as u64, true);
        let _ = image.node.discard(offset, part as u64);
    }
    let mut at = 0;
    for _ in 0..50 {
        match image.node.extent(at, len - at) {
            Ok((_, known)) => {
                assert!(known > 0 || at == len);
                at += known;
            }
            Err(_) => break,
        }
        if at >= len {
            break;
        }
    }
    if let Some(ops) = image.ops() {
        let _ = ops.details();
        let _ = ops.check(None);
        let _ = ops.check(Some(Repair::All));
    }
    let _ = image.node.flush();
}

#[test]
fn mutated_images_do_no_harm() {
    for (format, options) in MADE {
        let valid = filled(format, options);
        let mut random = Random(0x5eed);
        for _ in 0..MUTATIONS.min(MUTATED_BYTES / valid.len()) {
            let mut bytes = valid.clone();
            mutate(&mut random, &mut bytes);
            exercise(&mut random, format, bytes);
        }
    }
}
