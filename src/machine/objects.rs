//! What `-object` makes for devices to refer to.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::event::{Clock, Interest, LoopHandle, Watch};
use crate::hw::virtio::rng::{Builtin, EntropySource};

use super::build::BuildError;
use super::config::{Config, ObjectSpec};
use super::iothread::IoThread;

/// The objects of a machine.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    threads: Vec<Arc<IoThread>>,
    specs: Vec<ObjectSpec>,
}

impl Objects {
    /// Makes those that live from the start.
    ///
    /// # Errors
    /// One cannot be had as asked.
    pub fn make(config: &Config, clock: &Clock) -> Result<Self, BuildError> {
        let mut threads = Vec::new();
        for spec in config.objects.iter().filter(|spec| spec.kind == "iothread") {
            threads.push(IoThread::start(&spec.id, clock.clone(), &spec.properties)?);
        }
        for spec in config.objects.iter().filter(|spec| spec.kind == "rng-random") {
            open_random(spec)?;
        }
        Ok(Self { threads, specs: config.objects.clone() })
    }

    /// An I/O thread by name.
    #[must_use]
    pub fn thread(&self, id: &str) -> Option<&Arc<IoThread>> {
        self.threads.iter().find(|thread| thread.id() == id)
    }

    /// All I/O threads.
    #[must_use]
    pub fn threads(&self) -> &[Arc<IoThread>] {
        &self.threads
    }

    /// A new reader of a source of random bytes, `None` if there is no such object. `ready` is called after a read came
    /// short, when there are more.
    ///
    /// # Errors
    /// Its file cannot be opened.
    pub fn entropy(
        &self,
        id: &str,
        handle: &LoopHandle,
        ready: impl Fn() + Send + Sync + 'static,
    ) -> Result<Option<Box<dyn EntropySource>>, BuildError> {
        let Some(spec) = self.specs.iter().find(|spec| spec.id == id) else { return Ok(None) };
        match spec.kind.as_str() {
            "rng-builtin" => Ok(Some(Box::new(Builtin))),
            "rng-random" => {
                let file = open_random(spec)?;
                FileSource::new(file, handle, ready)
                    .map(|source| Some(Box::new(source) as _))
                    .map_err(|error| BuildError::Text(format!("rng-random '{id}': {}", crate::host::reason(&error))))
            }
            _ => Ok(None),
        }
    }
}

fn open_random(spec: &ObjectSpec) -> Result<std::fs::File, BuildError> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = spec.property("filename").unwrap_or("/dev/urandom");
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblock)
        .open(name)
        .map_err(|error| BuildError::Text(format!("Could not open '{name}': {}", crate::host::reason(&error))))
}

/// A character device or pipe of random bytes (`rng-random`).
struct FileSource {
    file: std::fs::File,
    /// Waits for bytes after a short read.
    watch: Watch,
}

impl FileSource {
    fn new(
        file: std::fs::File,
        handle: &LoopHandle,
        ready: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let watched: Arc<dyn AsFd + Send + Sync> = Arc::new(file.try_clone()?);
        let watch = handle.watch(watched, Interest::None, move |_| ready())?;
        Ok(Self { file, watch })
    }
}

impl EntropySource for FileSource {
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let got = self.file.read(buf);
        // At the end of a file there is nothing to wait for.
        let waits = got.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        self.watch.set_interest(if waits { Interest::Read } else { Interest::None });
        got.unwrap_or(0)
    }
}
