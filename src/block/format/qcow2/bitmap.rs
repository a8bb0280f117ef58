//! Persistent dirty bitmaps (qcow2.rst, "Bitmaps").
//!
//! Opening the image for writing loads them and marks them as in use on the disk; closing it stores them anew, in one
//! step. After a crash they are still marked: what was written is not in them, and nobody uses them again.

use std::io;

use super::Image;
use super::header::{Extension, Header, autoclear, extension};
use super::meta::Meta;
use super::switch::{By, Next};
use crate::block::dirty::DirtyBits;
use crate::block::error::OpenError;
use crate::block::image::BitmapInfo;
use crate::block::lock;
use crate::block::node::{BlockNode, IoResult};

/// Bits of an entry's flags.
const IN_USE: u32 = 1;
const AUTO: u32 = 2;
const EXTRA_DATA_COMPATIBLE: u32 = 4;

/// Bytes of a directory entry before its extra data.
const FIXED_BYTES: usize = 24;
/// QEMU's limits.
const MAX_BITMAPS: u32 = 65535;
const MAX_DIRECTORY_BYTES: u64 = 65535 * (FIXED_BYTES as u64 + 1024);
const MAX_TABLE_ENTRIES: u32 = 0x800_0000;
const MAX_BYTES: u64 = 0x2000_0000;
const MAX_NAME: usize = 1023;
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;

/// Bits 9 to 55 of a table entry: where the cluster is.
const TABLE_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

#[derive(Clone, Debug)]
struct Bitmap {
    name: String,
    flags: u32,
    granularity_bits: u8,
    table_offset: u64,
    table_entries: u32,
    extra: Vec<u8>,
    /// Its content, if it is loaded.
    bits: Option<DirtyBits>,
    /// The content is not what is stored.
    changed: bool,
}

impl Bitmap {
    fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.table_offset.to_be_bytes());
        into.extend(self.table_entries.to_be_bytes());
        into.extend(self.flags.to_be_bytes());
        into.extend([1, self.granularity_bits]);
        into.extend(u16::try_from(self.name.len()).unwrap_or(0).to_be_bytes());
        into.extend(u32::try_from(self.extra.len()).unwrap_or(0).to_be_bytes());
        into.extend(&self.extra);
        into.extend(self.name.as_bytes());
        into.resize(into.len().next_multiple_of(8), 0);
    }

    fn info(&self) -> BitmapInfo {
        BitmapInfo {
            name: self.name.clone(),
            granularity: 1 << self.granularity_bits,
            in_use: self.bits.is_none() && self.flags & IN_USE != 0,
            auto: self.flags & AUTO != 0,
        }
    }
}

/// The bitmaps of an open image.
#[derive(Debug, Default)]
pub(super) struct Bitmaps {
    list: Vec<Bitmap>,
    /// Someone changed the image who does not know bitmaps: they are dropped.
    stale: bool,
    /// They are marked as in use on the disk.
    taken: bool,
}

fn invalid<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Image(text.into()))
}

/// Where the directory is, and its length in bytes.
pub(super) fn directory_place(header: &Header) -> Option<(u64, u64)> {
    if header.autoclear & autoclear::BITMAPS == 0 {
        return None;
    }
    let known = header.extensions.iter().find(|known| known.kind == extension::BITMAPS)?;
    let word = |at: usize| known.data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    Some((word(16)?, word(8)?))
}

fn check_extension(header: &Header) -> Result<Option<(u32, u64, u64)>, OpenError> {
    let Some(known) = header.extensions.iter().find(|known| known.kind == extension::BITMAPS) else { return Ok(None) };
    let Ok(data) = <[u8; 24]>::try_from(known.data.as_slice()) else {
        return invalid("bitmaps_ext: Invalid extension length");
    };
    let u32_at = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    if header.autoclear & autoclear::BITMAPS == 0 {
        return Ok(None);
    }
    let (count, len, offset) = (u32_at(0), u64_at(8), u64_at(16));
    if u32_at(4) != 0 {
        return invalid("bitmaps_ext: Reserved field is not zero");
    }
    if count > MAX_BITMAPS {
        return invalid(format!(
            "bitmaps_ext: image has {count} bitmaps, exceeding the QEMU supported maximum of {MAX_BITMAPS}"
        ));
    }
    if count == 0 {
        return invalid("bitmaps_ext: found bitmaps extension with zero bitmaps");
    }
    if offset & ((1 << header.cluster_bits) - 1) != 0 {
        return invalid("bitmaps_ext: invalid bitmap directory offset");
    }
    if len > MAX_DIRECTORY_BYTES {
        return invalid(format!(
            "bitmaps_ext: bitmap directory size ({len}) exceeds the maximum supported size ({MAX_DIRECTORY_BYTES})"
        ));
    }
    Ok(Some((count, len, offset)))
}

/// Reads the directory's entries.
fn parse_directory(bytes: &[u8]) -> Option<Vec<Bitmap>> {
    let mut list = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let fixed = rest.get(..FIXED_BYTES)?;
        let u32_at = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let (extra, name) = (u32_at(20) as usize, usize::from(u16::from_be_bytes([fixed[18], fixed[19]])));
        let whole = FIXED_BYTES.checked_add(extra)?.checked_add(name)?;
        let body = rest.get(FIXED_BYTES..whole)?;
        let bitmap = Bitmap {
            name: String::from_utf8_lossy(&body[extra..]).into_owned(),
            flags: u32_at(12),
            granularity_bits: fixed[17],
            table_offset: u64::from(u32_at(0)) << 32 | u64::from(u32_at(4)),
            table_entries: u32_at(8),
            extra: body[..extra].to_vec(),
            bits: None,
            changed: false,
        };
        let is_known = fixed[16] == 1 && GRANULARITY_BITS.contains(&bitmap.granularity_bits);
        let is_sane = bitmap.table_entries <= MAX_TABLE_ENTRIES && !bitmap.name.is_empty() && name <= MAX_NAME;
        let is_extra_known = extra == 0 || bitmap.flags & EXTRA_DATA_COMPATIBLE != 0;
        if !is_known || !is_sane || !is_extra_known || bitmap.flags & !7 != 0 {
            return None;
        }
        list.push(bitmap);
        rest = rest.get(whole.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Some(list)
}

impl Bitmaps {
    /// Reads the directory.
    pub(super) fn load(file: &dyn BlockNode, header: &Header, read_only: bool) -> Result<Self, OpenError> {
        let place = check_extension(header)?;
        let has_extension = header.extensions.iter().any(|known| known.kind == extension::BITMAPS);
        let Some((count, len, offset)) = place else {
            let stale = has_extension && header.autoclear & autoclear::BITMAPS == 0;
            if stale && !read_only {
                log::warn!(
                    "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n\
                     Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
                );
            }
            return Ok(Self { stale, ..Self::default() });
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_at(offset, &mut bytes).map_err(OpenError::io("Failed to read bitmap directory"))?;
        match parse_directory(&bytes) {
            Some(list) if list.len() == count as usize => Ok(Self { list, ..Self::default() }),
            Some(list) => {
                let text = format!("bitmaps_ext: directory has {} entries, not {count}", list.len());
                invalid(text)
            }
            None => invalid("Broken bitmap directory"),
        }
    }

    fn find(&self, name: &str) -> Option<&Bitmap> {
        self.list.iter().find(|bitmap| bitmap.name == name)
    }

    fn directory(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.list.iter().for_each(|bitmap| bitmap.encode(&mut bytes));
        bytes
    }
}

/// Reads a bitmap's content (qcow2.rst, "Bitmap table" and "Bitmap data").
fn load_bits(file: &dyn BlockNode, bitmap: &Bitmap, size: u64, cluster: u64) -> IoResult<DirtyBits> {
    let broken = |what: &str| super::corrupt(format!("Bitmap '{}': {what}", bitmap.name));
    let bytes = size.div_ceil(1 << bitmap.granularity_bits).div_ceil(8);
    if bytes > MAX_BYTES || u64::from(bitmap.table_entries) != bytes.div_ceil(cluster) {
        return Err(broken("its table does not fit the disk"));
    }
    let mut table = vec![0; bitmap.table_entries as usize * 8];
    file.read_at(bitmap.table_offset, &mut table)?;
    let mut bits = DirtyBits::new(size, 1 << bitmap.granularity_bits);
    let mut content = vec![0; usize::try_from(cluster).unwrap_or(0)];
    for (index, raw) in table.chunks_exact(8).enumerate() {
        let word = raw.try_into().map_or(0, u64::from_be_bytes);
        match word & TABLE_OFFSET {
            0 if word & 1 == 0 => continue,
            0 => content.fill(0xff),
            place if place & (cluster - 1) != 0 => return Err(broken("a cluster of it is not aligned")),
            place => file.read_at(place, &mut content)?,
        }
        bits.add_bytes(index * content.len(), &content);
    }
    Ok(bits)
}

impl Image {
    /// A write, a zeroing or a discard is about to happen.
    pub(super) fn note_write(&self, offset: u64, len: u64) {
        let mut bitmaps = lock(&self.bitmaps);
        for bitmap in bitmaps.list.iter_mut().filter(|bitmap| bitmap.flags & AUTO != 0) {
            if let Some(bits) = &mut bitmap.bits {
                bits.set(offset, len);
                bitmap.changed = true;
            }
        }
    }

    /// Loads the bitmaps for writing and marks them as in use.
    pub(super) fn take_bitmaps(&self) -> IoResult<()> {
        let mut bitmaps = lock(&self.bitmaps);
        let mut meta = lock(&self.meta);
        if bitmaps.stale {
            let mut header = meta.header.clone();
            header.extensions.retain(|known| known.kind != extension::BITMAPS);
            bitmaps.stale = false;
            return self.write_header(&mut meta, header);
        }
        if bitmaps.list.is_empty() {
            return Ok(());
        }
        for bitmap in bitmaps.list.iter_mut().filter(|bitmap| bitmap.flags & IN_USE == 0) {
            // One that cannot be read stays marked, and is of no use.
            bitmap.bits = load_bits(self.file.as_ref(), bitmap, meta.header.size, self.fixed.cluster()).ok();
            bitmap.flags |= IN_USE;
        }
        bitmaps.taken = true;
        self.write_directory(&bitmaps, &meta)
    }

    fn write_directory(&self, bitmaps: &Bitmaps, meta: &Meta) -> IoResult<()> {
        let Some((offset, len)) = directory_place(&meta.header) else { return Ok(()) };
        let bytes = bitmaps.directory();
        if bytes.len() as u64 != len {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.file.write_at(offset, &bytes, true)
    }

    pub(super) fn resize_bitmaps(&self, size: u64) {
        for bitmap in &mut lock(&self.bitmaps).list {
            if let Some(bits) = &mut bitmap.bits {
                bits.resize(size);
                bitmap.changed = true;
            }
        }
    }

    /// Stores what is loaded and takes the marks away.
    pub(super) fn store_bitmaps(&self) -> IoResult<()> {
        if !lock(&self.bitmaps).taken {
            return Ok(());
        }
        let is_changed = lock(&self.bitmaps).list.iter().any(|bitmap| bitmap.changed);
        if is_changed {
            return self.replace_bitmaps(|_| Ok(()));
        }
        let mut bitmaps = lock(&self.bitmaps);
        let meta = lock(&self.meta);
        bitmaps.list.iter_mut().filter(|bitmap| bitmap.bits.is_some()).for_each(|bitmap| bitmap.flags &= !IN_USE);
        bitmaps.taken = false;
        self.write_directory(&bitmaps, &meta)
    }

    /// Changes the list and stores everything in one step. In memory the loaded ones are in use again afterwards only
    /// if the image is still being written to, which `close` is not.
    fn replace_bitmaps(&self, change: impl FnOnce(&mut Bitmaps) -> Result<(), OpenError>) -> IoResult<()> {
        self.exclusively(|meta| {
            let mut bitmaps = lock(&self.bitmaps);
            let mut next = Next::of(self, meta)?;
            if let Some((offset, len)) = directory_place(&meta.header) {
                next.count(offset, len, By::MinusOne)?;
            }
            let before = bitmaps.list.clone();
            change(&mut bitmaps).map_err(io::Error::other)?;
            for old in &before {
                let stays = bitmaps.list.iter().any(|new| new.name == old.name && !new.changed);
                if !stays {
                    self.count_bitmap(&mut next, old)?;
                }
            }
            for bitmap in bitmaps.list.iter_mut() {
                if bitmap.changed
                    && let Some(bits) = bitmap.bits.clone()
                {
                    self.store_bits(&mut next, bitmap, &bits)?;
                    bitmap.changed = false;
                }
                if bitmap.bits.is_some() {
                    bitmap.flags &= !IN_USE;
                }
            }
            self.enter_directory(&mut next, &bitmaps)?;
            bitmaps.taken = false;
            next.enter(meta).map(|_| ())
        })
    }

    fn enter_directory(&self, next: &mut Next<'_>, bitmaps: &Bitmaps) -> IoResult<()> {
        next.header.extensions.retain(|known| known.kind != extension::BITMAPS);
        next.header.autoclear &= !autoclear::BITMAPS;
        if bitmaps.list.is_empty() {
            return Ok(());
        }
        let directory = bitmaps.directory();
        let offset = next.store(&directory)?;
        let mut data = u32::try_from(bitmaps.list.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        data.extend([0; 4]);
        data.extend((directory.len() as u64).to_be_bytes());
        data.extend(offset.to_be_bytes());
        next.header.extensions.push(Extension { kind: extension::BITMAPS, data });
        next.header.autoclear |= autoclear::BITMAPS;
        Ok(())
    }

    /// The clusters of a stored bitmap are not used any more.
    fn count_bitmap(&self, next: &mut Next<'_>, bitmap: &Bitmap) -> IoResult<()> {
        if bitmap.table_entries == 0 || bitmap.table_offset == 0 {
            return Ok(());
        }
        let len = u64::from(bitmap.table_entries) * 8;
        let mut table = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file.read_at(bitmap.table_offset, &mut table)?;
        for raw in table.chunks_exact(8) {
            let place = raw.try_into().map_or(0, u64::from_be_bytes) & TABLE_OFFSET;
            if place != 0 {
                next.count(place, self.fixed.cluster(), By::MinusOne)?;
            }
        }
        next.count(bitmap.table_offset, len, By::MinusOne)
    }

    fn store_bits(&self, next: &mut Next<'_>, bitmap: &mut Bitmap, bits: &DirtyBits) -> IoResult<()> {
        let cluster = usize::try_from(self.fixed.cluster()).unwrap_or(0);
        let mut table = Vec::new();
        for part in bits.to_bytes().chunks(cluster) {
            let place = if part.iter().all(|byte| *byte == 0) { 0 } else { next.store(part)? };
            table.extend(place.to_be_bytes());
        }
        bitmap.table_entries = u32::try_from(table.len() / 8).map_err(|_| io::ErrorKind::StorageFull)?;
        bitmap.table_offset = next.store(&table)?;
        Ok(())
    }

    pub(super) fn bitmap_infos(&self) -> Vec<BitmapInfo> {
        lock(&self.bitmaps).list.iter().map(Bitmap::info).collect()
    }

    /// Changes the bitmaps; they are marked as in use again afterwards.
    fn change_bitmaps(&self, change: impl FnOnce(&mut Bitmaps) -> Result<(), OpenError>) -> Result<(), OpenError> {
        self.check_writable(0, 0).map_err(OpenError::io("Failed to write to the image"))?;
        let mut refused = None;
        let changed = self.replace_bitmaps(|bitmaps| {
            let (list, taken) = (bitmaps.list.clone(), bitmaps.taken);
            change(bitmaps).inspect_err(|error| {
                refused = Some(error.to_string());
                (bitmaps.list, bitmaps.taken) = (list, taken);
            })
        });
        match refused {
            Some(text) => Err(OpenError::Invalid(text)),
            None => {
                changed.map_err(OpenError::io("Failed to update bitmap directory"))?;
                self.mark_bitmaps().map_err(OpenError::io("Failed to update bitmap directory"))
            }
        }
    }

    fn mark_bitmaps(&self) -> IoResult<()> {
        let mut bitmaps = lock(&self.bitmaps);
        let meta = lock(&self.meta);
        if bitmaps.list.is_empty() {
            return Ok(());
        }
        bitmaps.list.iter_mut().filter(|bitmap| bitmap.bits.is_some()).for_each(|bitmap| bitmap.flags |= IN_USE);
        bitmaps.taken = true;
        self.write_directory(&bitmaps, &meta)
    }

    pub(super) fn new_bitmap(&self, name: &str, granularity: u64, enabled: bool) -> Result<(), OpenError> {
        let granularity = if granularity == 0 { self.fixed.cluster().clamp(4096, 65536) } else { granularity };
        let refuse = |text: String| Err(OpenError::Invalid(text));
        if name.is_empty() {
            return refuse("Bitmap name cannot be empty".to_owned());
        }
        if name.len() > MAX_NAME {
            return refuse("Bitmap name too long".to_owned());
        }
        if !granularity.is_power_of_two() {
            return refuse("Granularity must be power of 2".to_owned());
        }
        if granularity < 512 {
            return refuse("Granularity must be at least 512".to_owned());
        }
        let bits = u8::try_from(granularity.trailing_zeros()).unwrap_or(u8::MAX);
        if self.geometry().version < 3 {
            return refuse(format!(
                "Cannot store dirty bitmaps in qcow2 v2 files\nCannot make bitmap '{name}' persistent"
            ));
        }
        let size = self.disk_size();
        let too_large = !GRANULARITY_BITS.contains(&bits) || size.div_ceil(granularity).div_ceil(8) > MAX_BYTES;
        if too_large {
            return refuse(format!("Granularity exceeds maximum ({} bytes)", 1_u64 << GRANULARITY_BITS.end()));
        }
        self.change_bitmaps(|bitmaps| {
            if bitmaps.find(name).is_some() {
                return Err(OpenError::Invalid(format!("Bitmap already exists: {name}")));
            }
            if bitmaps.list.len() >= MAX_BITMAPS as usize {
                return Err(OpenError::Invalid("Maximum number of persistent bitmaps is already reached".to_owned()));
            }
            bitmaps.list.push(Bitmap {
                name: name.to_owned(),
                flags: if enabled { AUTO } else { 0 },
                granularity_bits: bits,
                table_offset: 0,
                table_entries: 0,
                extra: Vec::new(),
                bits: Some(DirtyBits::new(size, granularity)),
                changed: true,
            });
            Ok(())
        })
    }

    pub(super) fn delete_bitmap(&self, name: &str) -> Result<(), OpenError> {
        self.change_bitmaps(|bitmaps| {
            let count = bitmaps.list.len();
            bitmaps.list.retain(|bitmap| bitmap.name != name);
            if bitmaps.list.len() == count { Err(not_found(name)) } else { Ok(()) }
        })
    }

    /// Changes one bitmap that is usable.
    pub(super) fn change_bitmap(&self, name: &str, change: impl FnOnce(&mut DirtyBits)) -> Result<(), OpenError> {
        let mut bitmaps = lock(&self.bitmaps);
        let bitmap = usable(&mut bitmaps, name)?;
        if let Some(bits) = &mut bitmap.bits {
            change(bits);
            bitmap.changed = true;
        }
        Ok(())
    }

    pub(super) fn switch_bitmap(&self, name: &str, on: bool) -> Result<(), OpenError> {
        let mut bitmaps = lock(&self.bitmaps);
        let bitmap = usable(&mut bitmaps, name)?;
        bitmap.flags = bitmap.flags & !AUTO | if on { AUTO } else { 0 };
        bitmap.changed = true;
        Ok(())
    }

    pub(super) fn copy_bitmap(&self, name: &str) -> Result<DirtyBits, OpenError> {
        let size = self.disk_size();
        let bitmaps = lock(&self.bitmaps);
        let bitmap = bitmaps.find(name).ok_or_else(|| not_found(name))?;
        if let Some(bits) = &bitmap.bits {
            return Ok(bits.clone());
        }
        if bitmap.flags & IN_USE != 0 {
            return Err(inconsistent(name));
        }
        load_bits(self.file.as_ref(), bitmap, size, self.fixed.cluster())
            .map_err(OpenError::io(format!("Could not read bitmap '{name}'")))
    }
}

fn not_found(name: &str) -> OpenError {
    OpenError::Invalid(format!("Dirty bitmap '{name}' not found"))
}

fn inconsistent(name: &str) -> OpenError {
    OpenError::Invalid(format!(
        "Bitmap '{name}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk"
    ))
}

fn usable<'a>(bitmaps: &'a mut Bitmaps, name: &str) -> Result<&'a mut Bitmap, OpenError> {
    let bitmap = bitmaps.list.iter_mut().find(|bitmap| bitmap.name == name).ok_or_else(|| not_found(name))?;
    if bitmap.bits.is_none() { Err(inconsistent(name)) } else { Ok(bitmap) }
}
