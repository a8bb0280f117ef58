//! The host sides of a machine's drives: opened from the configuration, found by name, flushed at the end.

use std::sync::Arc;

use crate::block::{Disk, DiskOptions, Image, NodeOptions, OpenFlags, Opener};
use crate::mem::GuestRam;

use super::build::BuildError;
use super::config::{Config, DriveInterface, DriveSpec, NodeSpec};

/// A drive: the host's side, and what the command line said of it.
#[derive(Clone, Debug)]
pub struct Drive {
    /// "ide0-hd0", or `id=`.
    pub id: String,
    /// A CD-ROM drive.
    pub cdrom: bool,
    /// `if=`.
    pub interface: DriveInterface,
    /// Bus number.
    pub bus: u32,
    /// Unit on the bus.
    pub unit: u32,
    /// The host's side.
    pub disk: DiskHandle,
    /// `rerror=`, `werror=`.
    pub policies: (Option<String>, Option<String>),
    /// The option as typed, for messages.
    pub origin: String,
    /// How to open another medium for it: read-only as the first.
    pub read_only: bool,
}

/// A [`Disk`] that can be shown.
#[derive(Clone)]
pub struct DiskHandle(pub Disk);

impl std::fmt::Debug for DiskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({:?})", self.0.image().map(|image| image.filename))
    }
}

/// All drives of a machine.
#[derive(Clone, Debug, Default)]
pub struct Drives {
    list: Vec<Drive>,
}

fn node_options(spec: &NodeSpec) -> NodeOptions {
    NodeOptions { driver: spec.driver.clone(), filename: spec.filename.clone(), options: spec.options.clone() }
}

impl Drives {
    /// Opens every `-blockdev` node and every drive's medium. Also returns warnings for standard error.
    ///
    /// # Errors
    /// An image cannot be opened; the text is QEMU's.
    pub fn open(config: &Config, ram: &GuestRam) -> Result<(Arc<Self>, Vec<String>), BuildError> {
        let mut opener = Opener::default();
        for spec in &config.nodes {
            let image = opener
                .open(&node_options(spec), OpenFlags::default())
                .map_err(|error| BuildError::option(&spec.origin, error.full_text()))?;
            opener.nodes.insert(image.node_name.clone(), image);
        }
        let mut list = Vec::new();
        for spec in &config.drives {
            let image = match &spec.node {
                None => None,
                Some(node) => Some(open_medium(&mut opener, node, spec)?),
            };
            list.push(Drive {
                id: spec.id.clone(),
                cdrom: spec.cdrom,
                interface: spec.interface,
                bus: spec.bus,
                unit: spec.unit,
                disk: DiskHandle(disk(image, ram)),
                policies: (spec.read_error.clone(), spec.write_error.clone()),
                origin: spec.origin.clone(),
                read_only: spec.read_only || spec.cdrom,
            });
        }
        for (name, image) in &opener.nodes {
            // A node is a drive for `-device …,drive=node`.
            list.push(Drive {
                id: name.clone(),
                cdrom: false,
                interface: DriveInterface::None,
                bus: 0,
                unit: 0,
                disk: DiskHandle(disk(Some(image.clone()), ram)),
                policies: (None, None),
                origin: String::new(),
                read_only: image.read_only,
            });
        }
        Ok((Arc::new(Self { list }), opener.warnings))
    }

    /// All of them, in the order of the command line.
    #[must_use]
    pub fn list(&self) -> &[Drive] {
        &self.list
    }

    /// By name.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Drive> {
        self.list.iter().find(|drive| drive.id == id)
    }

    /// Puts everything written on stable storage. Returns what failed, as "name: reason".
    #[must_use]
    pub fn flush(&self) -> Vec<String> {
        self.list
            .iter()
            .filter_map(|drive| {
                drive.disk.0.flush().err().map(|error| format!("{}: {}", drive.id, crate::host::reason(&error)))
            })
            .collect()
    }
}

/// The controllers decide what happens on errors, so the queue only reports them.
fn disk(image: Option<Image>, ram: &GuestRam) -> Disk {
    let write_through = image.as_ref().is_some_and(|image| !image.cache.writeback);
    let mut options = DiskOptions::new(ram.clone());
    options.read_error = crate::block::ErrorPolicy::Report;
    options.write_error = crate::block::ErrorPolicy::Report;
    options.write_through = write_through;
    Disk::new(image, options)
}

fn open_medium(opener: &mut Opener, node: &NodeSpec, spec: &DriveSpec) -> Result<Image, BuildError> {
    let flags = OpenFlags { read_only: spec.read_only || spec.cdrom, snapshot: spec.snapshot, ..OpenFlags::default() };
    opener.open(&node_options(node), flags).map_err(|error| BuildError::option(&spec.origin, error.full_text()))
}

/// Opens another medium for a drive (`change`).
///
/// # Errors
/// QEMU's text for what is wrong.
pub fn open_another(filename: &str, format: Option<&str>, read_only: bool) -> Result<(Image, Vec<String>), String> {
    let mut options = NodeOptions::file(filename);
    options.driver = format.map(str::to_owned);
    crate::block::open(&options, OpenFlags { read_only, ..OpenFlags::default() }).map_err(|error| error.full_text())
}
