//! A machine of the real binary, with a folder of its own; it ends with the value.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a guest may take for anything: KVM on the build machines executes a million instructions a second.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Whether KVM can be opened; says so if not.
pub fn has_kvm() -> bool {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &opened {
        println!("/dev/kvm cannot be opened ({error}): not tested on KVM");
    }
    opened.is_ok()
}

/// The accelerators that guests are tested on: KVM where it can be opened, and the software CPU.
pub fn accelerators() -> &'static [&'static str] {
    if has_kvm() { &["kvm", "tcg"] } else { &["tcg"] }
}

/// The accelerator of tests whose guests do nothing.
pub fn accelerator() -> &'static str {
    accelerators()[0]
}

/// The program under test: `DROMAIUS_TEST_QEMU`, or the binary that was built with the tests.
pub fn program() -> PathBuf {
    std::env::var_os("DROMAIUS_TEST_QEMU").unwrap_or_else(|| env!("CARGO_BIN_EXE_qemu-kvm").into()).into()
}

/// Waits until `done` gives a value. Panics with `what` when that takes too long.
pub fn wait_for<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < end, "waited {} s for {what}", limit.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A folder for one test's files.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A file's path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The same as text, for command lines.
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A file's content as text; empty if it is not there yet.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// Assembles a program of `tests/guests` into the folder.
    pub fn assemble(&self, guest: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/build");
        let status = Command::new(script).arg(self.0.path()).arg(guest).status().unwrap();
        assert!(status.success(), "tests/guests/build {guest}: {status}");
    }

    /// Starts a machine whose files are in this folder. Its output goes to `stdout` and `stderr` there.
    pub fn start<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Machine<'_> {
        let child = Command::new(program())
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(File::create(self.path("stdout")).unwrap())
            .stderr(File::create(self.path("stderr")).unwrap())
            .spawn()
            .unwrap();
        Machine { child, folder: self }
    }

    /// Starts a machine from a line of arguments without spaces in them.
    pub fn start_line(&self, line: &str) -> Machine<'_> {
        self.start(line.split_whitespace())
    }
}

/// A running machine. Dropping it kills it.
pub struct Machine<'a> {
    child: Child,
    folder: &'a Folder,
}

impl Machine<'_> {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let (child, folder) = (&mut self.child, self.folder);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the machine does not end; it said: {}", folder.text("stderr"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end and returns the exit status.
    pub fn exit_code(&mut self) -> i32 {
        let status = self.wait();
        status.code().unwrap_or_else(|| panic!("{status}: {}", self.folder.text("stderr")))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it at once, as a crash of the host would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal by name, as `kill` does.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
