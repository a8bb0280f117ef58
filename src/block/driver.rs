//! What a driver of the block layer is: a protocol, a format or a filter, by the name that `driver=` takes.
//!
//! The list of them is [`DRIVERS`]; nothing else in the program knows which there are.

use std::sync::Arc;

use super::create::CreateOption;
use super::create::CreateOptions;
use super::error::OpenError;
use super::filter;
use super::format::{bochs, cloop, dmg, parallels, qcow, qcow2, qed, raw, vdi, vhdx, vmdk, vpc};
use super::graph::{Image, OpenContext, OpenFlags, Opener};
use super::image::{Measure, MeasureSource};
use super::keys::{self, Keys};
use super::nbd;
use super::node::BlockNode;
use super::options::Options;
use super::protocol::{file, null};

/// What a driver stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Something of the host's or of the network: it has an address of its own.
    Protocol,
    /// Bytes of a node below, understood as a disk. It can be probed and created.
    Format,
    /// Something between two nodes, of the length of the one below.
    Filter,
}

/// What opening a node gave.
pub struct Opened {
    /// What to read and write.
    pub node: Arc<dyn BlockNode>,
    /// The node's "file" child, if it has one.
    pub file: Option<Arc<dyn BlockNode>>,
    /// The file's name as QEMU shows it.
    pub filename: String,
    /// The backing file as the image names it.
    pub backing_name: Option<String>,
    /// The image below.
    pub backing: Option<Image>,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl Opened {
    /// A node without a backing file.
    #[must_use]
    pub fn new(node: Arc<dyn BlockNode>, filename: impl Into<String>) -> Self {
        let read_only = node.info().read_only;
        Self { node, file: None, filename: filename.into(), backing_name: None, backing: None, read_only }
    }

    /// Over a "file" child.
    #[must_use]
    pub fn over(mut self, file: Arc<dyn BlockNode>) -> Self {
        self.file = Some(file);
        self
    }
}

/// A driver.
pub trait Driver: Sync {
    /// As `driver=` and `-f` take it.
    fn name(&self) -> &'static str;

    /// Where it stands.
    fn kind(&self) -> Kind;

    /// The options of its nodes, beside those that every node takes.
    fn keys(&self) -> Keys {
        if self.kind() == Kind::Protocol { &[] } else { keys::FILE }
    }

    /// The option that a node cannot be without.
    fn required(&self) -> Option<&'static str> {
        if self.kind() == Kind::Protocol { None } else { Some("file") }
    }

    /// How sure it is, from 0 (no) to 100, that a file which begins with `head` is of this format.
    fn probe(&self, _head: &[u8], _filename: &str) -> u8 {
        0
    }

    /// What file names that mean this driver begin with, without the colon ("nbd", "nbd+unix").
    fn prefixes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Turns a file name that begins with one of [`Driver::prefixes`] into options.
    ///
    /// # Errors
    /// QEMU's text for what is wrong with it.
    fn parse_filename(&self, filename: &str, options: &mut Options) -> Result<(), OpenError> {
        options.insert_missing("filename", filename);
        Ok(())
    }

    /// Opens a node: takes its options and children from `context`, and calls [`OpenContext::finish`].
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError>;

    /// How images of this format, or files of this protocol, are made; `None`: they cannot be.
    fn creation(&self) -> Option<&dyn Creation> {
        None
    }
}

/// The making of images.
pub trait Creation {
    /// The options that it takes, in the order of QEMU's "Formatting" line.
    fn options(&self) -> &'static [CreateOption];

    /// Makes an image; the caller validated the options against [`Creation::options`].
    ///
    /// # Errors
    /// QEMU's text, without the image's name in front.
    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError>;

    /// The options that [`super::image::ImageOps::amend`] takes for an image of this format; none: it cannot be amended.
    fn amend_options(&self) -> &'static [CreateOption] {
        &[]
    }

    /// What an image of these options would take for what `source` holds.
    ///
    /// # Errors
    /// The format cannot tell (`Unsupported` inside), or QEMU's text.
    fn measure(&self, options: &CreateOptions, _source: &mut MeasureSource<'_>) -> Result<Measure, OpenError> {
        Err(OpenError::Invalid(format!("Block driver '{}' does not support size measurement", options.driver())))
    }
}

/// Where a format makes its image: the protocol node below.
#[derive(Default)]
pub struct CreatePlace {
    /// For what has to be opened: named nodes and secrets.
    pub opener: Opener,
}

impl CreatePlace {
    /// Makes the file that `filename` names by its protocol, empty, and opens it for writing. A protocol that cannot
    /// make files opens what is there.
    ///
    /// # Errors
    /// The protocol's.
    pub fn file(&mut self, filename: &str, options: &CreateOptions) -> Result<Arc<dyn BlockNode>, OpenError> {
        let protocol = protocol_of(filename)?;
        if let Some(creation) = protocol.creation() {
            creation.create(filename, options, self)?;
        }
        self.opener.open_protocol(filename, OpenFlags::default())
    }
}

/// Every driver there is. Protocols first, then formats, then filters, each sorted by name.
pub static DRIVERS: &[&dyn Driver] = &[
    &file::File,
    &file::HostDevice,
    &nbd::client::Nbd,
    &null::NULL_AIO,
    &null::NULL_CO,
    &bochs::Bochs,
    &cloop::Cloop,
    &dmg::Dmg,
    &parallels::Parallels,
    &qcow::Qcow,
    &qcow2::Qcow2,
    &qed::Qed,
    &raw::Raw,
    &vdi::Vdi,
    &vhdx::Vhdx,
    &vmdk::Vmdk,
    &vpc::Vpc,
    &filter::blkdebug::Blkdebug,
    &filter::blklogwrites::Blklogwrites,
    &filter::blkverify::Blkverify,
    &filter::compress::Compress,
    &filter::copy_on_read::CopyOnRead,
    &filter::preallocate::PreallocateDriver,
    &filter::quorum::Quorum,
    &filter::throttle::Throttle,
];

/// Drivers that QEMU has and this program does not.
const OTHERS: &[&str] = &[
    "blkreplay",
    "copy-before-write",
    "luks",
    "replication",
    "snapshot-access",
    "vvfat",
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "http",
    "https",
    "io_uring",
    "iscsi",
    "iser",
    "nfs",
    "nvme",
    "nvme-io_uring",
    "rbd",
    "ssh",
    "tftp",
    "virtio-blk-vfio-pci",
    "virtio-blk-vhost-user",
    "virtio-blk-vhost-vdpa",
    "fat",
    "sheepdog",
];

/// The driver of that name.
///
/// # Errors
/// There is none; the text tells whether QEMU has one.
pub fn by_name(name: &str) -> Result<&'static dyn Driver, OpenError> {
    if let Some(driver) = DRIVERS.iter().find(|driver| driver.name() == name) {
        return Ok(*driver);
    }
    if OTHERS.contains(&name) {
        return Err(OpenError::UnsupportedDriver(name.to_owned()));
    }
    Err(OpenError::UnknownDriver(name.to_owned()))
}

/// Every driver that QEMU has and this program does not.
#[must_use]
pub fn is_other(name: &str) -> bool {
    OTHERS.contains(&name)
}

/// Whether QEMU has a driver of that name.
#[must_use]
pub fn is_known_driver(name: &str) -> bool {
    !matches!(by_name(name), Err(OpenError::UnknownDriver(_)))
}

/// The protocol that a file name asks for; `file` without a prefix.
///
/// # Errors
/// There is no such protocol, or not here.
pub fn protocol_of(filename: &str) -> Result<&'static dyn Driver, OpenError> {
    let Some(prefix) = prefix(filename) else { return Ok(&file::File) };
    if let Some(driver) = DRIVERS.iter().find(|driver| driver.prefixes().contains(&prefix)) {
        return Ok(*driver);
    }
    if OTHERS.contains(&prefix) {
        return Err(OpenError::UnsupportedDriver(prefix.to_owned()));
    }
    Err(OpenError::UnknownProtocol(prefix.to_owned()))
}

/// The text before a colon, unless a slash comes first.
#[must_use]
pub fn prefix(filename: &str) -> Option<&str> {
    let end = filename.find([':', '/'])?;
    filename[end..].starts_with(':').then(|| &filename[..end])
}
