use std::sync::Arc;

use super::*;
use crate::block::format::raw::RawNode;
use crate::block::memory::{LogEntry, MemoryNode};
use crate::block::{CacheMode, Kind};
use crate::img::progress::Interrupted;

const LEN: u64 = 4 << 20;

/// Bytes, with zeros from the second megabyte to the third and nothing in the last.
struct Bytes {
    bytes: Vec<u8>,
    /// Reads of this sector fail.
    broken_at: Option<u64>,
}

impl Bytes {
    fn new() -> Self {
        let mut bytes: Vec<u8> = (0..LEN).map(|at| (at / 4099).to_le_bytes()[0] | 1).collect();
        bytes[1 << 20..2 << 20].fill(0);
        Self { bytes, broken_at: None }
    }
}

impl Input for Bytes {
    fn classify(&self, at: u64, most: u64) -> io::Result<(Content, u64)> {
        let part = at >> 20;
        let content = [Content::Data, Content::Zero, Content::Data, Content::Absent][usize::try_from(part).unwrap()];
        Ok((content, most.min(((part + 1) << 20) - at)))
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.broken_at.is_some_and(|broken| (at..at + buf.len() as u64).contains(&broken)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let at = usize::try_from(at).unwrap();
        buf.copy_from_slice(&self.bytes[at..at + buf.len()]);
        Ok(())
    }
}

/// A raw disk full of 0xff, and the memory below it.
fn target() -> (Image, Arc<MemoryNode>) {
    let memory = MemoryNode::from_bytes(vec![0xff; usize::try_from(LEN).unwrap()]);
    let image = Image {
        node: Arc::new(RawNode::new(Arc::<MemoryNode>::clone(&memory), false)),
        kind: Kind::Format,
        file: Arc::<MemoryNode>::clone(&memory),
        driver: "raw",
        filename: "x".to_owned(),
        node_name: "#x".to_owned(),
        backing_name: None,
        backing: None,
        read_only: false,
        cache: CacheMode::default(),
        detect_zeroes: "off",
    };
    memory.start_log();
    (image, memory)
}

fn job(image: &Image) -> Copy<'_> {
    Copy {
        target: Target { image, starts_zero: false, packed: false, sparse: DEFAULT_SPARSE_BYTES },
        range: 0..LEN,
        workers: 4,
        in_order: true,
        offload: false,
        rate: None,
        salvage: None,
    }
}

fn expected(input: &Bytes) -> Vec<u8> {
    let mut bytes = input.bytes.clone();
    bytes[3 << 20..].fill(0xff);
    bytes
}

#[test]
fn data_arrives_in_order_zeros_are_made_and_the_rest_is_left_alone() {
    let (image, memory) = target();
    let input = Bytes::new();
    copy(&job(&image), &input, &mut Progress::silent()).unwrap();
    assert_eq!(memory.bytes(), expected(&input));
    let offsets: Vec<u64> = memory
        .take_log()
        .iter()
        .filter_map(|entry| if let LogEntry::Write(at, _) = entry { Some(*at) } else { None })
        .collect();
    assert!(offsets.is_sorted(), "{offsets:?}");
}

#[test]
fn without_an_order_the_content_is_the_same() {
    let (image, memory) = target();
    let input = Bytes::new();
    copy(&Copy { in_order: false, ..job(&image) }, &input, &mut Progress::silent()).unwrap();
    assert_eq!(memory.bytes(), expected(&input));
}

#[test]
fn a_read_error_stops_it_and_tells_the_offset() {
    let (image, memory) = target();
    let input = Bytes { broken_at: Some((2 << 20) + 70_000), ..Bytes::new() };
    let error = copy(&job(&image), &input, &mut Progress::silent()).unwrap_err();
    assert_eq!((error.doing, error.at), (Doing::Read, 2 << 20));
    assert_eq!(
        error.failure("convert", LEN).message,
        "qemu-img: error while reading at byte 2097152: Input/output error"
    );
    assert_eq!(memory.bytes()[2 << 20..], vec![0xff; 2 << 20]);
}

#[test]
fn salvage_loses_the_broken_sector_only() {
    let (image, memory) = target();
    let input = Bytes { broken_at: Some((2 << 20) + 70_000), ..Bytes::new() };
    let job = Copy { salvage: Some(Salvage { quiet: true }), ..job(&image) };
    copy(&job, &input, &mut Progress::silent()).unwrap();
    let mut wanted = expected(&input);
    let sector = ((2 << 20) + 70_000) / 512 * 512;
    wanted[sector..sector + 512].fill(0);
    assert_eq!(memory.bytes(), wanted);
}

#[test]
fn a_signal_stops_it_between_two_pieces_and_says_how_far() {
    let (image, memory) = target();
    let mut progress = Progress::silent();
    progress.pretend_signal(15);
    let error = copy(&job(&image), &Bytes::new(), &mut progress).unwrap_err();
    assert!(Interrupted::of(&error.error).is_some());
    let failure = error.failure("commit", LEN);
    assert_eq!(failure.signal, Some(15));
    assert_eq!(
        failure.message,
        "qemu-img: interrupted by SIGTERM: commit stopped at byte 0 of 4194304; nothing else was changed"
    );
    assert_eq!(memory.bytes(), vec![0xff; usize::try_from(LEN).unwrap()]);
}

#[test]
fn zeros_are_written_as_data_where_storage_is_wanted() {
    let (image, memory) = target();
    let mut job = job(&image);
    (job.target.sparse, job.target.starts_zero) = (0, true);
    let input = Bytes::new();
    copy(&job, &input, &mut Progress::silent()).unwrap();
    assert_eq!(memory.bytes(), expected(&input));
}
