//! The back ends on real descriptors, the registry's messages, and the multiplexer's keys.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::event::{Clock, EventLoop};

/// A front end that remembers.
struct Recorder {
    room: AtomicUsize,
    data: Mutex<Vec<u8>>,
    events: Mutex<Vec<CharEvent>>,
    writable: AtomicU32,
}

impl Recorder {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self {
            room: AtomicUsize::new(room),
            data: Mutex::default(),
            events: Mutex::default(),
            writable: AtomicU32::new(0),
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.data.lock().unwrap().clone()).unwrap()
    }

    fn events(&self) -> Vec<CharEvent> {
        self.events.lock().unwrap().clone()
    }
}

impl CharSink for Recorder {
    fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    fn receive(&self, data: &[u8]) {
        self.room.fetch_sub(data.len(), Ordering::Relaxed);
        self.data.lock().unwrap().extend(data);
    }

    fn event(&self, event: CharEvent) {
        self.events.lock().unwrap().push(event);
    }

    fn writable(&self) {
        self.writable.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    event_loop: EventLoop,
    chardevs: Arc<Chardevs>,
    printed: Arc<Mutex<Vec<String>>>,
    quits: Arc<AtomicU32>,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let event_loop = EventLoop::new(Clock::manual()).unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let quits = Arc::new(AtomicU32::new(0));
        let (report, print, quit) = (Arc::clone(&printed), Arc::clone(&printed), Arc::clone(&quits));
        let hooks = Hooks {
            report: Arc::new(move |text| report.lock().unwrap().push(text.to_owned())),
            print: Arc::new(move |text| print.lock().unwrap().push(text.to_owned())),
            vc: None,
            keys: MuxKeys {
                quit: Arc::new(move || {
                    quit.fetch_add(1, Ordering::Relaxed);
                }),
                ..MuxKeys::default()
            },
        };
        let chardevs = Chardevs::new(event_loop.handle(), hooks);
        Self { event_loop, chardevs, printed, quits, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn open(&self, id: &str, backend: &str, options: &[(&str, &str)]) {
        self.chardevs.open(&Spec::new(id, backend, options)).unwrap();
    }

    fn refused(&self, id: &str, backend: &str, options: &[(&str, &str)]) -> String {
        self.chardevs.open(&Spec::new(id, backend, options)).unwrap_err().0
    }

    fn turn(&self) {
        // Enough for a connection, its announcement and its data.
        for _ in 0..8 {
            self.event_loop.run_pending().unwrap();
        }
    }

    fn filename(&self, id: &str) -> String {
        self.chardevs.list().into_iter().find(|device| device.label == id).unwrap().filename
    }
}

#[test]
fn messages_are_qemus() {
    let bench = Bench::new();
    assert_eq!(bench.refused("", "null", &[]), "chardev: no id specified");
    assert_eq!(bench.refused("x", "", &[]), "chardev: \"x\" missing backend");
    assert_eq!(bench.refused("x", "foo", &[]), "'foo' is not a valid char driver name");
    assert_eq!(bench.refused("x", "null", &[("foo", "bar")]), "Invalid parameter 'foo'");
    assert_eq!(bench.refused("x", "null", &[("mux", "maybe")]), "Parameter 'mux' expects 'on' or 'off'");
    assert_eq!(bench.refused("x", "file", &[]), "chardev: file: no filename given");
    assert_eq!(
        bench.refused("x", "file", &[("path", "/nonexist/x")]),
        "Could not open '/nonexist/x': No such file or directory"
    );
    assert_eq!(bench.refused("x", "pipe", &[]), "chardev: pipe: no device path given");
    assert_eq!(bench.refused("x", "serial", &[]), "chardev: serial/tty: no device path given");
    assert_eq!(bench.refused("x", "udp", &[]), "chardev: udp: remote port not specified");
    assert_eq!(bench.refused("x", "ringbuf", &[("size", "3")]), "size of ringbuf chardev must be power of two");
    assert_eq!(bench.refused("x", "mux", &[]), "chardev: mux: no chardev given");
    assert_eq!(bench.refused("x", "mux", &[("chardev", "y")]), "mux: base chardev y not found");
    assert_eq!(
        bench.refused("x", "null", &[("logfile", "/nonexist/f")]),
        "Could not create '/nonexist/f': No such file or directory"
    );
    assert_eq!(bench.refused("x", "parallel", &[]), "char driver 'parallel' is not supported by this version");
}

#[test]
fn socket_messages_are_qemus() {
    let bench = Bench::new();
    let socket = |options: &[(&str, &str)]| bench.refused("x", "socket", options);
    assert_eq!(socket(&[("path", "/nonexist/s")]), "Failed to connect to '/nonexist/s': No such file or directory");
    assert_eq!(
        socket(&[("path", "/nonexist/s"), ("server", "on")]),
        "Failed to bind socket to /nonexist/s: No such file or directory"
    );
    assert_eq!(
        socket(&[("path", "s"), ("wait", "off")]),
        "'wait' option is incompatible with socket in client connect mode"
    );
    assert_eq!(
        socket(&[("path", "s"), ("server", "on"), ("reconnect", "5")]),
        "'reconnect' option is incompatible with socket in server listen mode"
    );
    assert_eq!(
        socket(&[("path", "s"), ("reconnect", "5"), ("reconnect-ms", "5")]),
        "'reconnect' and 'reconnect-ms' are mutually exclusive"
    );
    assert_eq!(socket(&[("host", "h")]), "chardev: socket: no port given");
    assert_eq!(socket(&[("fd", "-1")]), "File descriptor '-1' is not a socket");
    assert_eq!(socket(&[("path", "s"), ("websocket", "on")]), "'websocket' is not supported by this version");
}

#[test]
fn names_are_unique_and_front_ends_alone() {
    let bench = Bench::new();
    bench.open("x", "null", &[]);
    assert_eq!(bench.refused("x", "null", &[]), "Duplicate ID 'x' for chardev");
    bench.chardevs.attach("x", Recorder::new(1)).unwrap();
    assert_eq!(bench.chardevs.attach("x", Recorder::new(1)).unwrap_err().to_string(), "chardev 'x' is already in use");
    assert_eq!(bench.chardevs.claim("y").unwrap_err().to_string(), "chardev \"y\" not found");
    assert_eq!(bench.chardevs.remove("x").unwrap_err().0, "Chardev 'x' is busy");
    bench.chardevs.release("x");
    bench.chardevs.remove("x").unwrap();
    assert_eq!(bench.chardevs.remove("x").unwrap_err().0, "Chardev 'x' not found");
}

#[test]
fn a_file_gets_the_output_and_the_log_a_copy() {
    let bench = Bench::new();
    let (path, log) = (bench.path("out"), bench.path("log"));
    std::fs::write(&log, "before ").unwrap();
    bench.open("f", "file", &[("path", &path), ("logfile", &log), ("logappend", "on")]);
    let handle = bench.chardevs.attach("f", Recorder::new(1)).unwrap();
    assert_eq!(handle.write(b"hello"), 5);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "hello");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "before hello");
}

#[test]
fn a_files_input_comes_as_there_is_room() {
    let bench = Bench::new();
    let (path, input) = (bench.path("out"), bench.path("in"));
    std::fs::write(&input, "abcdef").unwrap();
    bench.open("f", "file", &[("path", &path), ("input-path", &input)]);
    let sink = Recorder::new(2);
    let handle = bench.chardevs.attach("f", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    bench.turn();
    assert_eq!((sink.text().as_str(), sink.events()), ("ab", vec![CharEvent::Opened]));
    sink.room.store(100, Ordering::Relaxed);
    handle.accept_input();
    bench.turn();
    assert_eq!((sink.text().as_str(), sink.events()), ("abcdef", vec![CharEvent::Opened, CharEvent::Closed]));
    assert_eq!(handle.write(b"still"), 5);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "still");
}

#[test]
fn fifos_carry_both_directions() {
    let bench = Bench::new();
    let path = bench.path("p");
    for suffix in ["in", "out"] {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, format!("{path}.{suffix}"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    bench.open("p", "pipe", &[("path", &path)]);
    let sink = Recorder::new(100);
    let handle = bench.chardevs.attach("p", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    std::fs::OpenOptions::new().write(true).open(format!("{path}.in")).unwrap().write_all(b"to us").unwrap();
    let mut theirs = std::fs::File::open(format!("{path}.out")).unwrap();
    handle.write(b"to them");
    bench.turn();
    assert_eq!(sink.text(), "to us");
    let mut buffer = [0; 7];
    theirs.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"to them");
}

#[test]
fn a_server_takes_one_caller_after_another() {
    let bench = Bench::new();
    let path = bench.path("s");
    bench.open("s", "socket", &[("path", &path), ("server", "on"), ("wait", "off")]);
    let sink = Recorder::new(100);
    let handle = bench.chardevs.attach("s", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    bench.turn();
    assert_eq!(bench.filename("s"), format!("disconnected:unix:{path},server=on"));
    assert_eq!(handle.write(b"lost"), 4);
    let mut first = UnixStream::connect(&path).unwrap();
    let mut second = UnixStream::connect(&path).unwrap();
    first.write_all(b"one").unwrap();
    second.write_all(b"two").unwrap();
    bench.turn();
    assert_eq!((sink.text().as_str(), sink.events()), ("one", vec![CharEvent::Opened]));
    assert_eq!(bench.filename("s"), format!("unix:{path},server=on"));
    handle.write(b"hi");
    let mut buffer = [0; 2];
    first.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hi");
    drop(first);
    bench.turn();
    assert_eq!(sink.text(), "onetwo");
    assert_eq!(sink.events(), [CharEvent::Opened, CharEvent::Closed, CharEvent::Opened]);
    bench.chardevs.close_all();
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn a_peer_that_does_not_read_costs_a_bounded_buffer() {
    let bench = Bench::new();
    let path = bench.path("s");
    bench.open("s", "socket", &[("path", &path), ("server", "on"), ("wait", "off")]);
    let sink = Recorder::new(100);
    let handle = bench.chardevs.attach("s", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    bench.turn();
    let chunk = vec![b'x'; 1 << 20];
    let mut taken = 0;
    while let count @ 1.. = handle.write(&chunk) {
        taken += count;
        assert!(taken < 16 << 20, "a peer that reads nothing was sent {taken} bytes");
    }
    assert_eq!(sink.writable.load(Ordering::Relaxed), 0);
    peer.set_nonblocking(true).unwrap();
    let mut seen = 0;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = peer.read(&mut buffer) {
        seen += count;
        bench.turn();
    }
    assert_eq!(seen, taken);
    assert_eq!(sink.writable.load(Ordering::Relaxed), 1);
    drop(peer);
    bench.turn();
    assert_eq!(handle.write(b"gone"), 4);
}

#[test]
fn a_full_front_end_hears_of_a_hang_up_later() {
    let bench = Bench::new();
    let path = bench.path("s");
    bench.open("s", "socket", &[("path", &path), ("server", "on"), ("wait", "off")]);
    let sink = Recorder::new(1);
    let handle = bench.chardevs.attach("s", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(b"abc").unwrap();
    drop(peer);
    bench.turn();
    assert_eq!((sink.text().as_str(), sink.events()), ("a", vec![CharEvent::Opened]));
    sink.room.store(10, Ordering::Relaxed);
    handle.accept_input();
    bench.turn();
    assert_eq!((sink.text().as_str(), sink.events()), ("abc", vec![CharEvent::Opened, CharEvent::Closed]));
}

#[test]
fn a_client_connects_at_once() {
    let bench = Bench::new();
    let path = bench.path("s");
    let listener = UnixListener::bind(&path).unwrap();
    bench.open("c", "socket", &[("path", &path)]);
    let handle = bench.chardevs.attach("c", Recorder::new(10)).unwrap();
    let (mut theirs, _) = listener.accept().unwrap();
    handle.write(b"hello");
    let mut buffer = [0; 5];
    theirs.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
    assert_eq!(bench.filename("c"), format!("unix:{path}"));
}

#[test]
fn tcp_shows_both_ends_and_telnet_negotiates() {
    let bench = Bench::new();
    let options = [("host", "127.0.0.1"), ("port", "0"), ("server", "on"), ("wait", "off"), ("telnet", "on")];
    bench.open("t", "socket", &options);
    let sink = Recorder::new(100);
    let handle = bench.chardevs.attach("t", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    let name = bench.filename("t");
    let address = name.strip_prefix("disconnected:telnet:").unwrap().strip_suffix(",server=on").unwrap();
    let mut peer = std::net::TcpStream::connect(address).unwrap();
    peer.write_all(&[b'a', 255, 253, 1, b'b', 255, 243]).unwrap();
    while sink.events().len() < 2 {
        bench.turn();
    }
    assert_eq!((sink.text().as_str(), sink.events()), ("ab", vec![CharEvent::Opened, CharEvent::Break]));
    handle.write(&[b'c', 255]);
    let mut buffer = [0; 15];
    peer.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, [255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0, b'c', 255, 255]);
    let local = peer.local_addr().unwrap();
    assert_eq!(bench.filename("t"), format!("telnet:{address},server=on <-> {local}"));
}

#[test]
fn a_busy_port_is_named() {
    let bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let options = [("host", "127.0.0.1"), ("port", port.as_str()), ("server", "on"), ("wait", "off")];
    assert_eq!(bench.refused("x", "socket", &options), "Failed to find an available port: Address already in use");
}

#[test]
fn a_client_that_cannot_connect_says_so_once() {
    let bench = Bench::new();
    let path = bench.path("s");
    bench.open("c", "socket", &[("path", &path), ("reconnect-ms", "1")]);
    let listener = loop {
        bench.turn();
        if !bench.printed.lock().unwrap().is_empty() {
            break UnixListener::bind(&path).unwrap();
        }
    };
    let sink = Recorder::new(10);
    bench.chardevs.attach("c", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    while sink.events().is_empty() {
        bench.turn();
    }
    listener.accept().unwrap();
    let expected =
        format!("Unable to connect character device c: Failed to connect to '{path}': No such file or directory");
    assert_eq!(*bench.printed.lock().unwrap(), [expected]);
}

#[test]
fn a_waiting_server_names_its_address() {
    let bench = Bench::new();
    let path = bench.path("s");
    let peer_path = path.clone();
    let peer = std::thread::spawn(move || {
        loop {
            if let Ok(peer) = UnixStream::connect(&peer_path) {
                return peer;
            }
            std::thread::yield_now();
        }
    });
    bench.open("s", "socket", &[("path", &path), ("server", "on")]);
    let _peer = peer.join().unwrap();
    let expected = format!("info: QEMU waiting for connection on: disconnected:unix:{path},server=on");
    assert_eq!(*bench.printed.lock().unwrap(), [expected]);
    assert_eq!(bench.filename("s"), format!("unix:{path},server=on"));
}

#[test]
fn a_pty_says_where_it_is_and_loses_output_until_somebody_comes() {
    let bench = Bench::new();
    bench.open("p", "pty", &[]);
    let sink = Recorder::new(100);
    let handle = bench.chardevs.attach("p", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    let name = bench.chardevs.pty("p").unwrap();
    assert_eq!(*bench.printed.lock().unwrap(), [format!("char device redirected to {name} (label p)")]);
    assert_eq!(bench.filename("p"), format!("pty:{name}"));
    bench.turn();
    assert_eq!(handle.write(&vec![b'x'; 100_000]), 100_000);
    assert_eq!(sink.events(), []);
    let mut slave = std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
    handle.write(b"hello\n");
    slave.write_all(b"abc").unwrap();
    while sink.text().is_empty() {
        bench.turn();
    }
    let mut buffer = [0; 6];
    slave.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello\n");
    assert_eq!((sink.text().as_str(), sink.events()), ("abc", vec![CharEvent::Opened]));
    drop(slave);
    bench.turn();
    assert_eq!(sink.events(), [CharEvent::Opened, CharEvent::Closed]);
}

#[test]
fn datagrams_go_both_ways() {
    let bench = Bench::new();
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = peer.local_addr().unwrap().port().to_string();
    bench.open("u", "udp", &[("host", "127.0.0.1"), ("port", &port)]);
    let sink = Recorder::new(4);
    let handle = bench.chardevs.attach("u", Arc::clone(&sink) as Arc<dyn CharSink>).unwrap();
    handle.write(b"hello");
    let mut buffer = [0; 10];
    let (count, from) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"hello");
    peer.send_to(b"longer", from).unwrap();
    while sink.text().is_empty() {
        bench.turn();
    }
    assert_eq!(sink.text(), "long");
    sink.room.store(10, Ordering::Relaxed);
    handle.accept_input();
    bench.turn();
    assert_eq!(sink.text(), "longer");
}

#[test]
fn a_ring_buffer_keeps_the_newest() {
    let bench = Bench::new();
    bench.open("r", "ringbuf", &[("size", "8")]);
    bench.open("n", "null", &[]);
    let handle = bench.chardevs.attach("r", Recorder::new(1)).unwrap();
    assert_eq!(handle.write(b"0123456789"), 10);
    bench.chardevs.ring_buffer_write("r", b"ab").unwrap();
    assert_eq!(bench.chardevs.ring_buffer_read("r", 3).unwrap(), b"456");
    assert_eq!(bench.chardevs.ring_buffer_read("r", 100).unwrap(), b"789ab");
    assert_eq!(bench.chardevs.ring_buffer_read("n", 1).unwrap_err().0, "n is not a ringbuf device");
    assert_eq!(bench.chardevs.ring_buffer_read("z", 1).unwrap_err().0, "Device 'z' not found");
}

/// A multiplexer with two front ends on a socket.
struct MuxBench {
    bench: Bench,
    peer: UnixStream,
    sinks: [Arc<Recorder>; 2],
    handles: [CharHandle; 2],
}

impl MuxBench {
    fn new() -> Self {
        let bench = Bench::new();
        let path = bench.path("s");
        bench.open("m", "socket", &[("path", &path), ("server", "on"), ("wait", "off"), ("mux", "on")]);
        let sinks = [Recorder::new(100), Recorder::new(100)];
        let attach = |sink: &Arc<Recorder>| bench.chardevs.attach("m", Arc::clone(sink) as Arc<dyn CharSink>).unwrap();
        let handles = [attach(&sinks[0]), attach(&sinks[1])];
        let peer = UnixStream::connect(&path).unwrap();
        peer.set_nonblocking(true).unwrap();
        bench.turn();
        Self { bench, peer, sinks, handles }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.peer.write_all(keys).unwrap();
        self.bench.turn();
    }

    fn seen(&mut self) -> String {
        let mut buffer = [0; 4096];
        let count = self.peer.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }
}

#[test]
fn the_mux_is_two_devices() {
    let mux = MuxBench::new();
    let labels: Vec<_> = mux.bench.chardevs.list().into_iter().map(|d| (d.label, d.frontend_open)).collect();
    assert_eq!(labels, [("m-base".to_owned(), true), ("m".to_owned(), true)]);
    assert_eq!(mux.bench.filename("m"), "mux");
}

#[test]
fn the_last_front_end_has_the_input_until_c() {
    let mut mux = MuxBench::new();
    mux.type_in(b"ab\x01ccd\x01\x01\x01ce");
    assert_eq!(mux.sinks[1].text(), "abe");
    assert_eq!(mux.sinks[0].text(), "cd\x01");
    mux.handles[0].write(b"zero ");
    mux.handles[1].write(b"one");
    assert_eq!(mux.seen(), "zero one");
}

#[test]
fn escape_keys_are_heard_though_the_front_end_is_full() {
    let mut mux = MuxBench::new();
    mux.sinks[1].room.store(0, Ordering::Relaxed);
    mux.type_in(b"held\x01b\x01x");
    assert_eq!(mux.sinks[1].text(), "");
    assert_eq!(mux.sinks[1].events().last(), Some(&CharEvent::Break));
    assert_eq!(mux.bench.quits.load(Ordering::Relaxed), 1);
    assert_eq!(mux.seen(), "QEMU: Terminated\n\r");
    mux.sinks[1].room.store(10, Ordering::Relaxed);
    mux.handles[1].accept_input();
    mux.bench.turn();
    assert_eq!(mux.sinks[1].text(), "held");
}

#[test]
fn h_prints_qemus_help() {
    let mut mux = MuxBench::new();
    mux.type_in(b"\x01h");
    assert_eq!(
        mux.seen(),
        "\n\rC-a h    print this help\n\rC-a x    exit emulator\n\r\
         C-a s    save disk data back to file (if -snapshot)\n\rC-a t    toggle console timestamps\n\r\
         C-a b    send break (magic sysrq)\n\rC-a c    switch between console and monitor\n\r\
         C-a C-a  sends C-a\n\r"
    );
}

#[test]
fn time_stamps_stand_before_lines() {
    let mut mux = MuxBench::new();
    mux.type_in(b"\x01t");
    mux.handles[0].write(b"\n");
    mux.handles[0].write(b"x");
    let seen = mux.seen();
    assert_eq!((seen.len(), &seen[..2], &seen[seen.len() - 3..]), ("\n[00:00:00.000] x".len(), "\n[", "] x"));
}
