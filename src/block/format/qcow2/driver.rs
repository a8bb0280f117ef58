//! qcow2 as a driver of the block layer: probing, opening, making, and what `qemu-img` asks of an image.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::create::CreateOptions as Plan;
use super::crypt::Encryption;
use super::header::{Compression, Header, autoclear, compatible, incompatible};
use super::{Image, Nodes, OpenOptions, amend, create as layout, measure, read_header};
use crate::block::create::{self, CreateOption, CreateOptions, OptionKind, Preallocation};
use crate::block::crypto::Secrets;
use crate::block::crypto::cipher::IvGen;
use crate::block::crypto::luks::{self, NewVolume};
use crate::block::dirty::DirtyBits;
use crate::block::driver::{CreatePlace, Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::image::{
    BitmapInfo, CheckReport, Details, ImageOps, Measure, MeasureSource, Packed, Repair, SnapshotInfo,
};
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, IoResult};

/// `qcow2`.
pub struct Qcow2;

/// What its nodes take.
const KEYS: Keys = &[
    ("file", KeyKind::Node),
    ("backing", KeyKind::Node),
    ("data-file", KeyKind::Node),
    ("lazy-refcounts", KeyKind::Switch),
    ("pass-discard-request", KeyKind::Switch),
    ("pass-discard-snapshot", KeyKind::Switch),
    ("pass-discard-other", KeyKind::Switch),
    ("discard-no-unref", KeyKind::Switch),
    ("cache-size", KeyKind::Size),
    ("l2-cache-size", KeyKind::Size),
    ("l2-cache-entry-size", KeyKind::Size),
    ("refcount-cache-size", KeyKind::Size),
    ("cache-clean-interval", KeyKind::Integer),
    ("overlap-check", KeyKind::Object),
    ("encrypt", KeyKind::Object),
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
        let mut open = OpenOptions::take(&mut context.options)?;
        let header = read_header(file.node.as_ref())?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let backing =
            context.backing(&file.filename, header.backing_file.as_deref(), header.backing_format.as_deref())?;
        let data = match &header.data_file {
            _ if header.incompatible & incompatible::DATA_FILE == 0 => context.child("data-file", false)?,
            name => {
                if let Some(name) = name.as_deref().filter(|_| context.options.peek("data-file").is_none()) {
                    let name = crate::block::backing_path(&file.filename, name);
                    context.options.insert_missing("data-file.filename", name);
                }
                context.child("data-file", false)?
            }
        };
        if let Some(data) = &data {
            context.share(&data.node, true)?;
        }
        context.finish()?;
        (open.read_only, open.unmap, open.for_check) = (read_only, context.unmap, context.for_check());
        let below = backing.as_ref().map(|image| Arc::clone(&image.node));
        let nodes =
            Nodes { file: Arc::clone(&file.node), backing: below, data: data.map(|data| Arc::clone(&data.node)) };
        let image = Image::assemble(nodes, open, context.objects())?;
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
    CreateOption::new(
        "encryption",
        OptionKind::Switch,
        "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)",
    ),
    CreateOption::new("encrypt.format", OptionKind::Text, "Encrypt the image, format choices: 'aes', 'luks'"),
    CreateOption::new("encrypt.key-secret", OptionKind::Text, "ID of secret providing qcow AES key or LUKS passphrase"),
    CreateOption::new("encrypt.cipher-alg", OptionKind::Text, "Name of encryption cipher algorithm"),
    CreateOption::new("encrypt.cipher-mode", OptionKind::Text, "Name of encryption cipher mode"),
    CreateOption::new("encrypt.ivgen-alg", OptionKind::Text, "Name of IV generator algorithm"),
    CreateOption::new("encrypt.ivgen-hash-alg", OptionKind::Text, "Name of IV generator hash algorithm"),
    CreateOption::new("encrypt.hash-alg", OptionKind::Text, "Name of encryption hash algorithm"),
    CreateOption::new("encrypt.iter-time", OptionKind::Number, "Time to spend in PBKDF in milliseconds"),
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
    CreateOption::new("data_file", OptionKind::Text, "File name of an external data file"),
    CreateOption::new("data_file_raw", OptionKind::Switch, "The external data file must stay valid as a raw image"),
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
        let mut plan = plan(options)?;
        plan.validate()?;
        plan.encryption = encryption(options, &place.opener.objects)?;
        let preallocation = match options.preallocation(PREALLOCATION)? {
            // The tables of a raw data file say that everything is in it.
            Preallocation::Off if plan.data_file_raw => Preallocation::Metadata,
            other => other,
        };
        let data = plan.data_file.clone().map(|name| make_data_file(&name, options, place)).transpose()?;
        let file = place.file(filename, options)?;
        layout::create(file.as_ref(), &plan)?;
        if preallocation == Preallocation::Off {
            return Ok(());
        }
        if let Some(data) = data.as_ref().filter(|_| plan.data_file_raw) {
            data.truncate(plan.size).map_err(OpenError::io("Could not resize the data file"))?;
        }
        let nodes = Nodes { file, backing: None, data };
        let open =
            OpenOptions { key_secret: options.get("encrypt.key-secret").map(str::to_owned), ..Default::default() };
        let image = Image::assemble(nodes, open, &place.opener.objects)?;
        image.preallocate_all(preallocation).map_err(OpenError::io("Could not write to image"))
    }

    fn amend_options(&self) -> &'static [CreateOption] {
        amend::OPTIONS
    }

    fn measure(&self, options: &CreateOptions, source: &mut MeasureSource<'_>) -> Result<Measure, OpenError> {
        let plan = plan(options)?;
        plan.validate()?;
        let bytes = match options.get("encrypt.format") {
            Some("luks") => luks_volume(options)?.payload_bytes(),
            _ => 0,
        };
        measure::measure(&plan, options.preallocation(PREALLOCATION)?, bytes, source)
    }
}

/// The file that an image's data goes to: made anew, empty.
fn make_data_file(
    name: &str,
    options: &CreateOptions,
    place: &mut CreatePlace,
) -> Result<Arc<dyn BlockNode>, OpenError> {
    let mut plain = options.clone();
    plain.set("size", "0");
    place.file(name, &plain)
}

fn luks_volume(options: &CreateOptions) -> Result<NewVolume, OpenError> {
    NewVolume::from_options(&|name| options.get(&format!("encrypt.{name}")).map(str::to_owned))
}

/// How the image is encrypted, with the password that its secret holds.
fn encryption(options: &CreateOptions, secrets: &dyn Secrets) -> Result<Option<Encryption>, OpenError> {
    let refuse = |text: String| Err(OpenError::Invalid(text));
    let format = match (options.get("encrypt.format"), options.get("encryption")) {
        (Some(_), Some(_)) => {
            return refuse("Options encryption and encrypt.format are mutually exclusive".to_owned());
        }
        (Some(format), None) => format,
        (None, Some("on")) => "aes",
        _ => return Ok(None),
    };
    if !matches!(format, "aes" | "luks") {
        return refuse(format!("Parameter 'encrypt.format' does not accept value '{format}'"));
    }
    let Some(id) = options.get("encrypt.key-secret") else {
        return refuse("Parameter 'encrypt.key-secret' is required for cipher".to_owned());
    };
    let password = secrets.secret(id)?;
    if format == "aes" {
        return Ok(Some(Encryption::Aes));
    }
    Ok(Some(Encryption::Luks { volume: luks_volume(options)?, password }))
}

/// What `info` says of an image's encryption.
fn encryption_value(header: &Header, luks: Option<luks::Header>) -> Option<Value> {
    if header.crypt_method == 0 {
        return None;
    }
    let Some(luks) = luks else {
        return (header.crypt_method == 1).then(|| json!({"format": "aes"}));
    };
    let slots: Vec<Value> = luks
        .slots
        .iter()
        .map(|slot| {
            let offset = u64::from(slot.material) * 512;
            if slot.active {
                json!({"active": true, "iters": slot.iterations, "key-offset": offset, "stripes": slot.stripes})
            } else {
                json!({"active": false, "key-offset": offset})
            }
        })
        .collect();
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    let (ivgen, ivgen_hash) = match luks.spec.ivgen {
        None | Some(IvGen::Plain64) => ("plain64", None),
        Some(IvGen::Plain) => ("plain", None),
        Some(IvGen::Essiv(hash)) => ("essiv", Some(hash.name())),
    };
    put("ivgen-alg", ivgen.into());
    put("detached-header", false.into());
    put("hash-alg", luks.hash.name().into());
    put("cipher-alg", luks.spec.algorithm.name.into());
    put("uuid", luks.uuid.into());
    put("format", "luks".into());
    put("cipher-mode", luks.spec.mode.name().into());
    put("slots", slots.into());
    put("payload-offset", (u64::from(luks.payload) * 512).into());
    put("master-key-iters", luks.iterations.into());
    if let Some(hash) = ivgen_hash {
        put("ivgen-hash-alg", hash.into());
    }
    Some(Value::Object(map))
}

/// The bitmaps, as JSON has them.
fn bitmaps_value(bitmaps: &[BitmapInfo]) -> Value {
    let flags = |bitmap: &BitmapInfo| -> Vec<&str> {
        [(bitmap.in_use, "in-use"), (bitmap.auto, "auto")].iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
    };
    bitmaps
        .iter()
        .map(|bitmap| json!({"flags": flags(bitmap), "name": bitmap.name, "granularity": bitmap.granularity}))
        .collect()
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
    plan.data_file = options.given("data_file").map(str::to_owned);
    plan.data_file_raw = options.is_on("data_file_raw");
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
            let bitmaps = self.bitmap_infos();
            if !bitmaps.is_empty() {
                specific.insert(specific.len() - 1, ("bitmaps", bitmaps_value(&bitmaps)));
            }
            if let Some(name) = &header.data_file {
                specific.push(("data-file", name.as_str().into()));
                specific.push(("data-file-raw", (header.autoclear & autoclear::RAW_DATA != 0).into()));
            }
            specific.push(("corrupt", (header.incompatible & incompatible::CORRUPT != 0).into()));
            specific.push(("extended-l2", header.extended_l2().into()));
        }
        let luks = if header.crypt_method == 2 { self.luks_header() } else { None };
        if let Some(value) = encryption_value(&header, luks) {
            let last = specific.iter().position(|(name, _)| *name == "corrupt").unwrap_or(specific.len());
            specific.insert(last, ("encrypt", value));
        }
        Ok(Details {
            cluster_size: Some(self.cluster_size()),
            encrypted: header.crypt_method != 0,
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
        self.write_compressed_cluster(offset, data)
    }

    fn pack(&self, data: &[u8]) -> IoResult<Option<Packed>> {
        self.pack_cluster(data).map(Some)
    }

    fn write_packed(&self, offset: u64, data: &[u8], packed: &Packed) -> IoResult<()> {
        self.write_packed_cluster(offset, data, packed)
    }

    fn create_snapshot(&self, wanted: &SnapshotInfo) -> IoResult<SnapshotInfo> {
        self.take_snapshot(wanted)
    }

    fn apply_snapshot(&self, id_or_name: &str) -> Result<(), OpenError> {
        self.go_to_snapshot(id_or_name)
    }

    fn delete_snapshot(&self, id_or_name: &str) -> Result<(), OpenError> {
        self.drop_snapshot(id_or_name)
    }

    fn load_snapshot(&self, id_or_name: &str) -> Result<(), OpenError> {
        self.read_snapshot(id_or_name)
    }

    fn resize(&self, size: u64, how: Preallocation, shrink: bool) -> Result<(), OpenError> {
        self.check_writable(0, 0).map_err(OpenError::io("Failed to resize the image"))?;
        if size < self.disk_size() && !shrink {
            return Err(OpenError::Invalid("Use the --shrink option to perform a shrink operation.".to_owned()));
        }
        self.resize_to(size, how)
    }

    fn make_empty(&self) -> IoResult<()> {
        self.drop_all()
    }

    fn change_backing_file(&self, name: Option<&str>, format: Option<&str>) -> IoResult<()> {
        self.record_backing(name, format)
    }

    fn amend_options(&self) -> &'static [CreateOption] {
        amend::OPTIONS
    }

    fn amend(
        &self,
        options: &CreateOptions,
        _force: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), OpenError> {
        self.amend_by(options, progress)
    }

    fn can_have_bitmaps(&self) -> bool {
        self.header().version >= 3
    }

    fn bitmaps(&self) -> IoResult<Vec<BitmapInfo>> {
        Ok(self.bitmap_infos())
    }

    fn add_bitmap(&self, name: &str, granularity: u64, enabled: bool) -> Result<(), OpenError> {
        self.new_bitmap(name, granularity, enabled)
    }

    fn remove_bitmap(&self, name: &str) -> Result<(), OpenError> {
        self.delete_bitmap(name)
    }

    fn clear_bitmap(&self, name: &str) -> Result<(), OpenError> {
        self.change_bitmap(name, DirtyBits::clear)
    }

    fn enable_bitmap(&self, name: &str, on: bool) -> Result<(), OpenError> {
        self.switch_bitmap(name, on)
    }

    fn bitmap_bits(&self, name: &str) -> Result<DirtyBits, OpenError> {
        self.copy_bitmap(name)
    }

    fn merge_bitmap(&self, name: &str, bits: &DirtyBits) -> Result<(), OpenError> {
        self.change_bitmap(name, |own| own.merge(bits))
    }
}
