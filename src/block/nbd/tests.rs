use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::client::{self, ExportInfo};
use super::proto::{self, cmd};
use super::server::{self, Export};
use super::{Address, Listener, Stream};
use crate::block::dirty::DirtyBits;
use crate::block::{NodeOptions, OpenFlags, open};

const SIZE: u64 = 1 << 20;

fn exports(folder: &std::path::Path) -> Arc<Vec<Arc<Export>>> {
    let path = folder.join("a.img");
    std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
    let options = NodeOptions::file(path.to_str().unwrap()).format("raw").with("discard", "unmap");
    let (image, _) = open(&options, OpenFlags::default()).unwrap();
    let mut bits = DirtyBits::new(SIZE, 65536);
    bits.set(65536, 1);
    Arc::new(vec![Arc::new(Export {
        name: "disk".to_owned(),
        description: Some("a disk".to_owned()),
        image,
        window: (0, SIZE),
        read_only: false,
        multi: true,
        allocation_depth: true,
        bitmaps: vec![("b0".to_owned(), bits)],
    })])
}

/// A server on a socket in a folder, for as long as the test runs.
fn serve(folder: &std::path::Path) -> Address {
    let path = folder.join("s");
    let listener = Listener::Unix(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let exports = exports(folder);
    std::thread::spawn(move || {
        while let Ok(stream) = listener.accept() {
            let exports = Arc::clone(&exports);
            std::thread::spawn(move || server::serve(stream, &exports, None));
        }
    });
    Address::Unix(path.to_str().unwrap().to_owned())
}

fn connect(address: &Address, more: &[(&str, &str)]) -> crate::block::Image {
    let Address::Unix(path) = address else { panic!("{address:?}") };
    let mut options = NodeOptions::default()
        .format("nbd")
        .with("server.type", "unix")
        .with("server.path", path.as_str())
        .with("export", "disk");
    for (key, value) in more {
        options = options.with(key, *value);
    }
    open(&options, OpenFlags::default()).unwrap().0
}

#[test]
fn what_is_written_is_read_back_and_holes_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let image = connect(&serve(folder.path()), &[]);
    let node = &image.node;
    assert_eq!(node.len().unwrap(), SIZE);
    node.write_at(1000, &[7; 70_000], true).unwrap();
    node.zero(2000, 1000, true).unwrap();
    node.discard(512 << 10, 64 << 10).unwrap();
    node.flush().unwrap();
    let mut buf = vec![1; 100_000];
    node.read_at(0, &mut buf).unwrap();
    assert!(buf[..1000].iter().chain(&buf[2000..3000]).chain(&buf[71_000..]).all(|byte| *byte == 0));
    assert!(buf[1000..2000].iter().chain(&buf[3000..71_000]).all(|byte| *byte == 7));
    let (extent, _) = node.extent(512 << 10, 4096).unwrap();
    assert!(extent.zero && !extent.data);
    assert!(node.write_at(SIZE, b"x", false).is_err());
}

#[test]
fn dirty_bitmaps_come_as_extents() {
    let folder = tempfile::tempdir().unwrap();
    let image = connect(&serve(folder.path()), &[("x-dirty-bitmap", "qemu:dirty-bitmap:b0")]);
    let (extent, len) = image.node.extent(0, SIZE).unwrap();
    assert!(extent.data && len == 65536);
    let (extent, len) = image.node.extent(65536, SIZE).unwrap();
    assert!(!extent.data && len == 65536);
}

#[test]
fn exports_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let list = client::list(&serve(folder.path())).unwrap();
    let ExportInfo { name, description, size, block_sizes, contexts, .. } = &list[0];
    assert_eq!((name.as_str(), description.as_str(), *size), ("disk", "a disk", SIZE));
    assert_eq!(*block_sizes, Some([1, 4096, 32 << 20]));
    assert_eq!(*contexts, ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0"]);
}

#[test]
fn a_missing_export_is_refused_in_qemus_words() {
    let folder = tempfile::tempdir().unwrap();
    let Address::Unix(path) = serve(folder.path()) else { panic!() };
    let options = NodeOptions::file(format!("nbd+unix:///nope?socket={path}"));
    let error = open(&options, OpenFlags::default()).unwrap_err();
    assert_eq!(error.to_string(), "Requested export not available\nserver reported: export 'nope' not present");
}

/// What a server answers to a client that sends these bytes and hangs up.
fn say(exports: &[Arc<Export>], bytes: &[u8]) -> Vec<u8> {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || server::serve(Stream::Unix(theirs), exports, Some(std::time::Duration::from_secs(5))));
        // The server may hang up in the middle.
        let _ = ours.write_all(bytes);
        let _ = ours.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = ours.read_to_end(&mut answer);
        answer
    })
}

fn request(kind: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut out = proto::REQUEST_MAGIC.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend([0; 8]);
    out.extend(offset.to_be_bytes());
    out.extend(len.to_be_bytes());
    out
}

/// A whole session of a client.
fn session(requests: &[Vec<u8>]) -> Vec<u8> {
    let mut out = u32::from(proto::FIXED_NEWSTYLE | proto::NO_ZEROES).to_be_bytes().to_vec();
    let mut contexts = proto::counted("disk");
    contexts.extend(1_u32.to_be_bytes());
    contexts.extend(proto::counted("base:allocation"));
    let mut go = proto::counted("disk");
    go.extend([0, 0]);
    for (option, data) in
        [(proto::opt::STRUCTURED_REPLY, Vec::new()), (proto::opt::SET_META_CONTEXT, contexts), (proto::opt::GO, go)]
    {
        proto::write_option(&mut out, option, &data).unwrap();
    }
    requests.iter().for_each(|request| out.extend(request));
    out
}

#[test]
fn hostile_requests_are_refused_and_the_session_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    let bad = [
        request(cmd::READ, 0, u64::MAX, 4096),
        request(cmd::READ, 0, 0, u32::MAX),
        request(cmd::TRIM, 0, SIZE - 1, 2),
        request(cmd::BLOCK_STATUS, 0, SIZE, 1),
        request(99, 0, 0, 0),
        request(cmd::READ, 0xffff, 0, 1),
    ];
    let answer = say(&exports, &session(&bad));
    let chunk = proto::STRUCTURED_REPLY_MAGIC.to_be_bytes();
    assert_eq!(answer.windows(4).filter(|window| *window == chunk).count(), bad.len());
}

#[test]
fn no_prefix_and_no_flipped_bit_of_a_session_hangs_or_panics() {
    let folder = tempfile::tempdir().unwrap();
    let exports = exports(folder.path());
    let whole = session(&[request(cmd::READ, 0, 0, 16), request(cmd::BLOCK_STATUS, 0, 0, 4096)]);
    for end in 0..whole.len() {
        say(&exports, &whole[..end]);
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        say(&exports, &bytes);
    }
}

#[test]
fn a_client_survives_whatever_a_server_sends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evil");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let exports = exports(folder.path());
    let good = say(&exports, &session(&[request(cmd::READ, 0, 0, 16)]));
    let count = good.len();
    std::thread::spawn(move || {
        for round in 0..count * 2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = good.clone();
            if round < count {
                bytes.truncate(round);
            } else {
                bytes[round - count] ^= 0xff;
            }
            let _ = stream.write_all(&bytes);
        }
    });
    for _ in 0..count * 2 {
        let name = format!("nbd+unix:///disk?socket={}", path.display());
        let options = NodeOptions::file(name).format("raw");
        if let Ok((image, _)) = open(&options, OpenFlags { read_only: true, ..OpenFlags::default() }) {
            let _ = image.node.read_at(0, &mut [0; 16]);
        }
    }
}
