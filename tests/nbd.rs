//! Our NBD server and client against others: libnbd's nbdinfo and nbdcopy, nbdkit, and QEMU's tools. What is not
//! installed is skipped, and the test says so.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const SERVER: &str = env!("CARGO_BIN_EXE_qemu-nbd");
const IMG: &str = env!("CARGO_BIN_EXE_qemu-img");
const IO: &str = env!("CARGO_BIN_EXE_qemu-io");

fn is_here(program: &str) -> bool {
    let here = Command::new(program).arg("--version").output().is_ok();
    if !here {
        eprintln!("skipped: {program} is not installed");
    }
    here
}

fn run(program: &str, folder: &Path, args: &[&str]) -> Output {
    Command::new("timeout").arg("60").arg(program).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn ok(program: &str, folder: &Path, args: &[&str]) -> String {
    let output = run(program, folder, args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that ends with the test.
struct Server {
    child: Child,
    uri: String,
}

impl Server {
    fn new(program: &str, folder: &Path, args: &[&str]) -> Self {
        let socket = folder.join("s");
        let child = Command::new(program).args(args).current_dir(folder).stdin(Stdio::null()).spawn().unwrap();
        for _ in 0..1000 {
            if socket.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, uri: format!("nbd+unix:///?socket={}", socket.display()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two megabytes with data, zeros and data again.
fn image(folder: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    for (index, byte) in bytes[..500_000].iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    bytes[1_900_000..].fill(7);
    // What is not written is a hole.
    let file = fs::File::create(folder.join("a.img")).unwrap();
    file.set_len(2 << 20).unwrap();
    file.write_all_at(&bytes[..512 << 10], 0).unwrap();
    file.write_all_at(&bytes[1792 << 10..], 1792 << 10).unwrap();
    bytes
}

fn serve(folder: &Path, more: &[&str]) -> Server {
    let socket = folder.join("s");
    let mut args = vec!["-f", "raw", "-t", "-e", "8", "-k", socket.to_str().unwrap()];
    args.extend(more);
    args.push("a.img");
    Server::new(SERVER, folder, &args)
}

#[test]
fn libnbd_reads_and_writes_our_exports() {
    if !is_here("nbdinfo") || !is_here("nbdcopy") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bytes = image(folder.path());
    let server = serve(folder.path(), &["-D", "a disk"]);
    let info = ok("nbdinfo", folder.path(), &[&server.uri]);
    assert!(info.contains("export-size: 2097152") && info.contains("base:allocation"), "{info}");
    let map = ok("nbdinfo", folder.path(), &["--map", &server.uri]);
    assert!(map.contains("hole,zero") || map.contains("zero"), "{map}");
    ok("nbdcopy", folder.path(), &[&server.uri, "copy.img"]);
    assert!(fs::read(folder.path().join("copy.img")).unwrap() == bytes);
    let other = vec![9_u8; 2 << 20];
    fs::write(folder.path().join("new.img"), &other).unwrap();
    ok("nbdcopy", folder.path(), &["new.img", &server.uri]);
    assert!(fs::read(folder.path().join("a.img")).unwrap() == other);
}

#[test]
fn qemus_client_uses_our_server() {
    if !is_here("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let server = serve(folder.path(), &[]);
    let commands =
        ["-c", "write -P 3 600k 64k", "-c", "read -P 3 600k 64k", "-c", "write -z -u 0 64k", "-c", "read -P 0 0 64k"];
    let mut args = vec!["-f", "raw"];
    args.extend(commands);
    args.push(&server.uri);
    ok("qemu-io", folder.path(), &args);
    assert_eq!(
        ok("qemu-img", folder.path(), &["compare", "-f", "raw", "a.img", &server.uri]),
        "Images are identical.\n"
    );
    let maps =
        ["a.img", &server.uri].map(|name| ok("qemu-img", folder.path(), &["map", "-f", "raw", "--output=json", name]));
    assert_eq!(maps[0], maps[1]);
}

#[test]
fn our_client_uses_other_servers() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let socket = folder.path().join("s");
    let socket = socket.to_str().unwrap();
    let check = |server: &Server| {
        ok(
            IO,
            folder.path(),
            &[
                "-f",
                "raw",
                "-c",
                "write -P 3 600k 64k",
                "-c",
                "read -P 3 600k 64k",
                "-c",
                "write -z 0 64k",
                "-c",
                "discard 1M 64k",
                "-c",
                "flush",
                "-c",
                "read -P 0 0 64k",
                &server.uri,
            ],
        );
    };
    if is_here("qemu-nbd") {
        let server = Server::new("qemu-nbd", folder.path(), &["-f", "raw", "-t", "-k", socket, "a.img"]);
        check(&server);
        assert_eq!(
            ok(IMG, folder.path(), &["compare", "-U", "-f", "raw", "-F", "raw", "a.img", &server.uri]),
            "Images are identical.\n"
        );
        drop(server);
        let _ = fs::remove_file(socket);
    }
    if is_here("nbdkit") {
        let server = Server::new("nbdkit", folder.path(), &["-f", "-U", socket, "file", "a.img"]);
        check(&server);
        drop(server);
        let _ = fs::remove_file(socket);
        // Without structured replies.
        let server = Server::new("nbdkit", folder.path(), &["-f", "--no-sr", "-U", socket, "file", "a.img"]);
        check(&server);
    }
}

#[test]
fn exports_are_listed_and_refused_in_qemus_words() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let _server = serve(folder.path(), &["-x", "exp", "-D", "desc"]);
    let socket = folder.path().join("s");
    let list = ok(SERVER, folder.path(), &["--list", "-k", socket.to_str().unwrap()]);
    assert!(
        list.starts_with("exports available: 1\n export: 'exp'\n  description: desc\n  size:  2097152\n"),
        "{list}"
    );
    if is_here("qemu-nbd") {
        assert_eq!(ok("qemu-nbd", folder.path(), &["--list", "-k", socket.to_str().unwrap()]), list);
    }
    let refused = run(IMG, folder.path(), &["info", &format!("nbd+unix:///nope?socket={}", socket.display())]);
    let err = String::from_utf8_lossy(&refused.stderr);
    assert!(err.ends_with("Requested export not available\nserver reported: export 'nope' not present\n"), "{err}");
}

#[test]
fn the_server_ends_with_its_last_client_and_goes_to_the_background() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let socket = folder.path().join("s");
    let socket = socket.to_str().unwrap();
    // The parent returns when clients can connect.
    ok(SERVER, folder.path(), &["--fork", "--pid-file=pid", "-f", "raw", "-k", socket, "a.img"]);
    let uri = format!("nbd+unix:///?socket={socket}");
    ok(IO, folder.path(), &["-f", "raw", "-c", "write -P 8 0 1k", &uri]);
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    let alive = || Path::new(&format!("/proc/{}/exe", pid.trim())).exists();
    for _ in 0..500 {
        if !alive() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!alive() && !Path::new(socket).exists());
    assert_eq!(fs::read(folder.path().join("a.img")).unwrap()[..1024], [8; 1024]);
    // A failure is the parent's exit status.
    assert_eq!(run(SERVER, folder.path(), &["--fork", "-f", "raw", "-k", socket, "nope"]).status.code(), Some(1));
}
