use super::*;
use crate::block::driver::Kind;
use crate::block::memory::MemoryNode;
use crate::block::node::Extent;
use crate::block::{CacheMode, NodeInfo};
use std::sync::mpsc;

fn image(node: Arc<dyn BlockNode>) -> Image {
    Image {
        file: Arc::clone(&node),
        node,
        kind: Kind::Protocol,
        driver: "raw",
        filename: "test".to_owned(),
        node_name: "#block101".to_owned(),
        backing_name: None,
        backing: None,
        read_only: false,
        cache: CacheMode::default(),
        detect_zeroes: "off",
    }
}

struct Bench {
    disk: Disk,
    queue: Box<dyn BlockQueue>,
    ram: GuestRam,
    notified: mpsc::Receiver<()>,
    errors: mpsc::Receiver<DiskError>,
}

impl Bench {
    fn new(node: Option<Arc<dyn BlockNode>>, policy: ErrorPolicy) -> Self {
        let ram = GuestRam::for_test(1 << 20).unwrap();
        let (send_error, errors) = mpsc::channel();
        let send_error = Mutex::new(send_error);
        let on_error: OnError = Arc::new(move |error| lock(&send_error).send(error).unwrap_or(()));
        let options = DiskOptions { write_error: policy, on_error: Some(on_error), ..DiskOptions::new(ram.clone()) };
        let disk = Disk::new(node.map(image), options);
        let (send, notified) = mpsc::channel();
        let send = Mutex::new(send);
        let queue = disk.queue(Arc::new(move || lock(&send).send(()).unwrap_or(())));
        Self { disk, queue, ram, notified, errors }
    }

    fn submit(&mut self, op: Op, offset: u64, payload: Payload, token: u64) {
        self.queue.submit(Request { op, offset, payload, token });
    }

    fn completion(&mut self) -> Completion {
        self.notified.recv().unwrap();
        let mut done = self.queue.completed();
        assert_eq!(done.len(), 1);
        done.remove(0)
    }
}

fn guest(gpa: u64, len: u32) -> Payload {
    let mut sg = Sg::new();
    sg.push(gpa, len);
    Payload::Guest(sg)
}

/// Waits in each read until it is told to go on, and refuses writes while it is full.
struct Gate {
    go: Mutex<mpsc::Receiver<()>>,
    entered: Mutex<mpsc::Sender<()>>,
    full: AtomicBool,
}

impl BlockNode for Gate {
    fn len(&self) -> IoResult<u64> {
        Ok(4096)
    }
    fn read_at(&self, _offset: u64, buf: &mut [u8]) -> IoResult<()> {
        lock(&self.entered).send(()).unwrap();
        lock(&self.go).recv().unwrap();
        buf.fill(0xaa);
        Ok(())
    }
    fn write_at(&self, _offset: u64, _buf: &[u8], _fua: bool) -> IoResult<()> {
        if self.full.load(Ordering::Acquire) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn zero(&self, _offset: u64, _len: u64, _may_unmap: bool) -> IoResult<()> {
        Ok(())
    }
    fn discard(&self, _offset: u64, _len: u64) -> IoResult<()> {
        Ok(())
    }
    fn flush(&self) -> IoResult<()> {
        Ok(())
    }
    fn extent(&self, _offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        Ok((Extent::default(), len))
    }
    fn info(&self) -> NodeInfo {
        NodeInfo::default()
    }
}

fn gate(full: bool) -> (Arc<Gate>, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (go, go_in) = mpsc::channel();
    let (entered_out, entered) = mpsc::channel();
    let gate = Gate { go: Mutex::new(go_in), entered: Mutex::new(entered_out), full: AtomicBool::new(full) };
    (Arc::new(gate), go, entered)
}

#[test]
fn data_goes_to_guest_memory_and_back() {
    let mut b = Bench::new(Some(MemoryNode::new(1 << 20)), ErrorPolicy::Report);
    b.ram.write(0x1000, &[7; 600_000]).unwrap();
    b.submit(Op::Write, 512, guest(0x1000, 600_000), 1);
    let done = b.completion();
    assert_eq!((done.token, done.result.is_ok()), (1, true));
    b.ram.write(0x1000, &[0; 600_000]).unwrap();
    b.submit(Op::Read, 512, guest(0x1000, 600_000), 2);
    assert!(b.completion().result.is_ok());
    let mut back = vec![0; 600_000];
    b.ram.read(0x1000, &mut back).unwrap();
    assert_eq!(back, vec![7; 600_000]);
    let stats = b.disk.stats();
    assert_eq!((stats.rd_bytes, stats.wr_bytes, stats.wr_highest_offset), (600_000, 600_000, 600_512));
}

#[test]
fn a_buffer_comes_back_with_its_completion() {
    let mut b = Bench::new(Some(MemoryNode::from_bytes(vec![3; 4096])), ErrorPolicy::Report);
    b.submit(Op::Read, 0, Payload::Buffer(vec![0; 512]), 9);
    assert_eq!(b.completion().payload, Payload::Buffer(vec![3; 512]));
}

#[test]
fn dma_outside_of_ram_fails_without_touching_the_disk() {
    let node = MemoryNode::new(4096);
    let mut b = Bench::new(Some(node.clone()), ErrorPolicy::Report);
    b.submit(Op::Write, 0, guest(1 << 30, 512), 1);
    assert!(b.completion().result.is_err());
    assert_eq!(node.bytes(), vec![0; 4096]);
}

#[test]
fn a_cancelled_read_touches_no_guest_memory_and_is_forgotten() {
    let (node, go, entered) = gate(false);
    let mut b = Bench::new(Some(node), ErrorPolicy::Report);
    b.submit(Op::Read, 0, guest(0, 512), 1);
    entered.recv().unwrap();
    b.queue.cancel_all();
    go.send(()).unwrap();
    b.disk.drain();
    assert!(b.queue.completed().is_empty());
    assert_eq!(b.ram.read_u32(0), Ok(0));
}

#[test]
fn an_empty_drive_has_no_capacity_and_fails_requests() {
    let mut b = Bench::new(None, ErrorPolicy::Report);
    assert!(!b.queue.has_medium());
    assert_eq!(b.queue.capacity(), 0);
    b.submit(Op::Read, 0, Payload::Buffer(vec![0; 512]), 1);
    assert_eq!(b.completion().result.unwrap_err().raw_os_error(), Some(123));
}

#[test]
fn media_can_be_changed() {
    let mut b = Bench::new(None, ErrorPolicy::Report);
    b.disk.insert(image(MemoryNode::from_bytes(vec![5; 1024]))).unwrap();
    assert!(b.queue.has_medium());
    assert_eq!(b.queue.capacity(), 1024);
    b.submit(Op::Read, 0, Payload::Buffer(vec![0; 4]), 1);
    assert_eq!(b.completion().payload, Payload::Buffer(vec![5; 4]));
    b.disk.eject().unwrap();
    assert!(!b.queue.has_medium());
}

#[test]
fn a_full_disk_parks_the_write_until_the_machine_goes_on() {
    let (node, _go, _entered) = gate(true);
    let mut b = Bench::new(Some(Arc::clone(&node) as Arc<dyn BlockNode>), ErrorPolicy::Enospc);
    b.submit(Op::Write, 0, Payload::Buffer(vec![1; 512]), 4);
    let error = b.errors.recv().unwrap();
    assert_eq!((error.action, error.no_space, error.read), (ErrorAction::Stop, true, false));
    b.disk.drain();
    assert!(b.queue.completed().is_empty());
    node.full.store(false, Ordering::Release);
    b.disk.resume();
    assert!(b.completion().result.is_ok());
}

#[test]
fn ignored_errors_look_like_success() {
    let (node, _go, _entered) = gate(true);
    let mut b = Bench::new(Some(node), ErrorPolicy::Ignore);
    b.submit(Op::Write, 0, Payload::Buffer(vec![1; 512]), 4);
    assert!(b.completion().result.is_ok());
    assert_eq!(b.errors.recv().unwrap().action, ErrorAction::Ignore);
}
