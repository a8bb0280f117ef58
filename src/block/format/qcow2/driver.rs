//! qcow2 as a driver of the block layer: probing, opening, making, and what `qemu-img` asks of an image.

use std::sync::Arc;

use super::create::CreateOptions as Plan;
use super::header::{Compression, compatible, incompatible};
use super::{Image, OpenOptions, create as layout, read_header};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{CheckReport, Details, ImageOps, Repair};
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, IoResult};

/// `qcow2`.
pub struct Qcow2;

/// QEMU's options that this version does not have.
const REFUSED: &[&str] =
    &["l2-cache-size", "refcount-cache-size", "cache-size", "l2-cache-entry-size", "cache-clean-interval"];

/// What its nodes take.
const KEYS: Keys = &[
    ("file", KeyKind::Node),
    ("backing", KeyKind::Node),
    ("data-file", KeyKind::Refused),
    ("lazy-refcounts", KeyKind::Switch),
    ("pass-discard-request", KeyKind::Refused),
    ("pass-discard-snapshot", KeyKind::Refused),
    ("pass-discard-other", KeyKind::Refused),
    ("discard-no-unref", KeyKind::Refused),
    ("cache-size", KeyKind::Size),
    ("l2-cache-size", KeyKind::Size),
    ("l2-cache-entry-size", KeyKind::Size),
    ("refcount-cache-size", KeyKind::Size),
    ("cache-clean-interval", KeyKind::Integer),
    ("overlap-check", KeyKind::Refused),
    ("encrypt", KeyKind::Refused),
];

impl Driver for Qcow2 {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn keys(&self) -> Keys {
        KEYS
    }

    /// The magic number and a version from 2 on (qcow2.rst, "Header").
    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        let version = head.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        if head.starts_with(b"QFI\xfb") && version >= 2 { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        for key in REFUSED {
            if context.options.take_size(key)?.is_some() {
                return Err(OpenError::Unsupported(format!("The qcow2 option '{key}'")));
            }
        }
        if context.options.take_bool("lazy-refcounts")?.unwrap_or(false) {
            return Err(OpenError::Unsupported("lazy-refcounts=on".to_owned()));
        }
        let header = read_header(file.node.as_ref())?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let backing =
            context.backing(&file.filename, header.backing_file.as_deref(), header.backing_format.as_deref())?;
        context.finish()?;
        let open = OpenOptions { read_only, unmap: context.unmap, for_check: context.for_check() };
        let below = backing.as_ref().map(|image| Arc::clone(&image.node));
        let image = Image::open(Arc::clone(&file.node), below, open)?;
        let mut opened = Opened::new(Arc::new(image), file.filename).over(file.node);
        (opened.backing, opened.backing_name) = (backing, header.backing_file);
        Ok(opened)
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

/// In the order of QEMU's "Formatting" line.
const OPTIONS: &[CreateOption] = &[
    CreateOption::new("cluster_size", OptionKind::Size, "qcow2 cluster size").default("65536"),
    CreateOption::new("extended_l2", OptionKind::Switch, "Extended L2 tables").default("off"),
    CreateOption::new(
        "preallocation",
        OptionKind::Text,
        "Preallocation mode (allowed values: off, metadata, falloc, full)",
    ),
    CreateOption::new("compression_type", OptionKind::Text, "Compression method used for image cluster compression")
        .default("zlib"),
    create::SIZE,
    CreateOption::new("compat", OptionKind::Text, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    create::BACKING_FILE,
    create::BACKING_FMT,
    CreateOption::new("lazy_refcounts", OptionKind::Switch, "Postpone refcount updates").default("off"),
    CreateOption::new("refcount_bits", OptionKind::Number, "Width of a reference count entry in bits").default("16"),
];

/// How the storage can be reserved.
const PREALLOCATION: &[Preallocation] =
    &[Preallocation::Off, Preallocation::Metadata, Preallocation::Falloc, Preallocation::Full];

impl Creation for Qcow2 {
    fn options(&self) -> &'static [CreateOption] {
        OPTIONS
    }

    fn create(&self, filename: &str, options: &CreateOptions, place: &mut CreatePlace) -> Result<(), OpenError> {
        let preallocation = options.preallocation(PREALLOCATION)?;
        let plan = plan(options)?;
        plan.validate()?;
        let file = place.file(filename, options)?;
        layout::create(file.as_ref(), &plan)?;
        if preallocation == Preallocation::Off {
            return Ok(());
        }
        let image = Image::open(Arc::clone(&file), None, OpenOptions::default())?;
        let failed = || OpenError::io("Could not write to image");
        image.preallocate(&mut |offset, len| file.preallocate(offset, len, preallocation)).map_err(failed())?;
        image.flush().map_err(failed())
    }
}

fn plan(options: &CreateOptions) -> Result<Plan, OpenError> {
    let refuse = |name: &str, value: &str| {
        Err(OpenError::Invalid(format!("Parameter '{name}' does not accept value '{value}'")))
    };
    let mut plan = Plan::new(options.whole_sectors()?);
    plan.version = match options.get("compat") {
        None | Some("1.1" | "v3") => 3,
        Some("0.10" | "v2") => 2,
        Some(other) => return refuse("version", other),
    };
    plan.compression = match options.get("compression_type") {
        None | Some("zlib") => Compression::Zlib,
        Some("zstd") => Compression::Zstd,
        Some(other) => return refuse("compression-type", other),
    };
    plan.cluster_size = options.number("cluster_size").unwrap_or(plan.cluster_size);
    plan.refcount_bits = options.number("refcount_bits").and_then(|bits| u32::try_from(bits).ok()).unwrap_or(0);
    plan.extended_l2 = options.is_on("extended_l2");
    plan.lazy_refcounts = options.is_on("lazy_refcounts");
    let format = options.get("backing_fmt").map(str::to_owned);
    plan.backing = options.get("backing_file").map(|name| (name.to_owned(), format.clone()));
    if plan.backing.is_none() && format.is_some() {
        return Err(OpenError::Invalid("Backing format cannot be used without backing file".to_owned()));
    }
    Ok(plan)
}

impl ImageOps for Image {
    fn details(&self) -> IoResult<Details> {
        let header = self.header();
        let mut specific = vec![
            ("compat", if header.version < 3 { "0.10" } else { "1.1" }.into()),
            ("compression-type", header.compression.name().into()),
        ];
        if header.version >= 3 {
            specific.push(("lazy-refcounts", (header.compatible & compatible::LAZY_REFCOUNTS != 0).into()));
        }
        specific.push(("refcount-bits", (1_u64 << header.refcount_order).into()));
        if header.version >= 3 {
            specific.push(("corrupt", (header.incompatible & incompatible::CORRUPT != 0).into()));
            specific.push(("extended-l2", header.extended_l2().into()));
        }
        Ok(Details {
            cluster_size: Some(self.cluster_size()),
            dirty: header.incompatible & incompatible::DIRTY != 0,
            backing_format: header.backing_format,
            specific,
            snapshots: self.snapshots()?,
            ..Details::default()
        })
    }

    fn can_check(&self) -> bool {
        true
    }

    fn check(&self, repair: Option<Repair>) -> IoResult<CheckReport> {
        self.check_tables(repair)
    }

    fn compressed_unit(&self) -> Option<u64> {
        Some(self.cluster_size())
    }

    fn write_compressed(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.write_packed(offset, data)
    }
}
