//! `vmdk`: VMware's disks (VMware, "Virtual Disk Format 5.0"): a descriptor and extents, in one file or several.
//!
//! Read and written: hosted sparse extents (with redundant tables and zeroed grains), flat extents, zero extents and
//! stream-optimized ones, whose grains are written compressed. Refused by name: ESX's sparse formats (COWD, SESPARSE)
//! and raw device maps.

mod create;
mod descriptor;
mod sparse;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

use super::blocks::parts::{length, random};
use super::blocks::{Blocks, Codec, Parts};
use super::raw::RawNode;
use crate::block::driver::{Creation, Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::{Image, OpenContext, OpenFlags, backing_path};
use crate::block::image::{CheckReport, Details, ImageOps, Repair};
use crate::block::keys::{self, Keys};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use descriptor::{Descriptor, ExtentKind, ExtentLine, NO_PARENT};
use sparse::{GrainCodec, Header, MAGIC, SECTOR, SparseMap, flag};

/// One extent, and which bytes of the disk it holds.
struct Piece {
    start: u64,
    len: u64,
    /// `None`: zeros.
    node: Option<Arc<dyn BlockNode>>,
    /// The file below.
    file: Option<Arc<dyn BlockNode>>,
    kind_name: String,
    grain: Option<u64>,
    compressed: bool,
}

/// Where the descriptor is.
struct Place {
    file: Arc<dyn BlockNode>,
    offset: u64,
    /// Bytes that it has room for; `None`: it is a file of its own.
    room: Option<u64>,
}

/// An open disk.
struct VmdkNode {
    file: Arc<dyn BlockNode>,
    backing: Option<Arc<dyn BlockNode>>,
    pieces: Vec<Piece>,
    descriptor: Mutex<Descriptor>,
    place: Place,
    read_only: bool,
    /// The content identifier was changed for this session's writes.
    marked: AtomicBool,
}

impl VmdkNode {
    fn bounds(&self, offset: u64, len: u64) -> IoResult<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len()? => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The extent that holds a byte of the disk.
    fn piece(&self, offset: u64) -> IoResult<&Piece> {
        let index = self.pieces.partition_point(|piece| piece.start + piece.len <= offset);
        self.pieces.get(index).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Runs `act(extent, offset in it, length, done before)` over a range.
    fn each(&self, offset: u64, len: u64, mut act: impl FnMut(&Piece, u64, u64, u64) -> IoResult<()>) -> IoResult<()> {
        self.bounds(offset, len)?;
        let mut done = 0;
        while done < len {
            let piece = self.piece(offset + done)?;
            let inside = offset + done - piece.start;
            let step = (len - done).min(piece.len - inside);
            act(piece, inside, step, done)?;
            done += step;
        }
        Ok(())
    }

    /// Overlays that were made before know this disk by its content identifier: it changes before the first write.
    fn mark(&self) -> IoResult<()> {
        if self.read_only {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if self.marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut descriptor = lock(&self.descriptor);
        let before = descriptor.text_len();
        let mut text = descriptor.with_cid(u32::from_le_bytes(random()?) & 0x7fff_ffff).into_bytes();
        // Nothing of a longer text (other line ends) may be left behind it.
        text.resize(text.len().max(before), b'\n');
        if self.place.room.is_some_and(|room| text.len() as u64 > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.place.file.write_at(self.place.offset, &text, false)?;
        self.marked.store(true, Ordering::Release);
        Ok(())
    }

    fn zeros_are_read_only() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    fn only_piece(&self) -> Option<&dyn ImageOps> {
        match self.pieces.as_slice() {
            [piece] => piece.node.as_ref().and_then(|node| node.image()),
            _ => None,
        }
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl BlockNode for VmdkNode {
    fn len(&self) -> IoResult<u64> {
        Ok(self.pieces.last().map_or(0, |piece| piece.start + piece.len))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.each(offset, buf.len() as u64, |piece, inside, len, done| {
            let part = &mut buf[index(done)..index(done + len)];
            match &piece.node {
                Some(node) => node.read_at(inside, part),
                None => {
                    part.fill(0);
                    Ok(())
                }
            }
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.mark()?;
        self.each(offset, buf.len() as u64, |piece, inside, len, done| {
            let node = piece.node.as_ref().ok_or_else(Self::zeros_are_read_only)?;
            node.write_at(inside, &buf[index(done)..index(done + len)], fua)
        })
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.mark()?;
        self.each(offset, len, |piece, inside, len, _| match &piece.node {
            Some(node) => node.zero(inside, len, may_unmap),
            None => Ok(()),
        })
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.bounds(offset, len)
    }

    fn flush(&self) -> IoResult<()> {
        for node in self.pieces.iter().filter_map(|piece| piece.node.as_ref()) {
            node.flush()?;
        }
        self.file.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.bounds(offset, len)?;
        if self.is_empty()? {
            return Ok((Extent::default(), len.max(1)));
        }
        let piece = self.piece(offset)?;
        let inside = offset - piece.start;
        let len = len.max(1).min(piece.len - inside);
        match &piece.node {
            Some(node) => {
                let (mut extent, known) = node.extent(inside, len)?;
                // A flat extent has all of its bytes, holes of the file or not.
                extent.data |= piece.grain.is_none();
                Ok((extent, known))
            }
            None => Ok((Extent { allocated: true, zero: true, ..Extent::default() }, len)),
        }
    }

    fn allocated_bytes(&self) -> IoResult<u64> {
        let others =
            self.pieces.iter().filter_map(|piece| piece.file.as_ref()).filter(|file| !Arc::ptr_eq(file, &self.file));
        others
            .map(|file| file.allocated_bytes())
            .sum::<IoResult<u64>>()
            .and_then(|sum| Ok(sum + self.file.allocated_bytes()?))
    }

    fn image(&self) -> Option<&dyn ImageOps> {
        Some(self)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "vmdk", filename: self.file.info().filename, read_only: self.read_only }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        let mut children = vec![("file", Arc::clone(&self.file))];
        children.extend(self.backing.iter().map(|backing| ("backing", Arc::clone(backing))));
        children
    }
}

impl ImageOps for VmdkNode {
    fn details(&self) -> IoResult<Details> {
        let descriptor = lock(&self.descriptor);
        let extents = self.pieces.iter().map(|piece| {
            let mut map = Map::new();
            if piece.compressed {
                map.insert("compressed".to_owned(), true.into());
            }
            map.insert("virtual-size".to_owned(), piece.len.into());
            let name = piece.file.as_ref().map(|file| file.info().filename).unwrap_or_default();
            map.insert("filename".to_owned(), name.into());
            if let Some(grain) = piece.grain {
                map.insert("cluster-size".to_owned(), grain.into());
            }
            map.insert("format".to_owned(), piece.kind_name.clone().into());
            Value::Object(map)
        });
        Ok(Details {
            cluster_size: self.pieces.first().and_then(|piece| piece.grain),
            compressed: self.pieces.iter().any(|piece| piece.compressed),
            backing_format: descriptor.parent.is_some().then(|| "vmdk".to_owned()),
            specific: vec![
                ("cid", descriptor.cid.into()),
                ("parent-cid", descriptor.parent_cid.into()),
                ("create-type", descriptor.create_type.clone().into()),
                ("extents", extents.collect()),
            ],
            ..Details::default()
        })
    }

    fn can_check(&self) -> bool {
        true
    }

    fn check(&self, repair: Option<Repair>) -> IoResult<CheckReport> {
        let mut report = CheckReport::default();
        for node in self.pieces.iter().filter_map(|piece| piece.node.as_ref()) {
            if let Some(ops) = node.image().filter(|ops| ops.can_check()) {
                let found = ops.check(repair)?;
                report.corruptions += found.corruptions;
                report.messages.extend(found.messages);
            }
        }
        Ok(report)
    }

    fn compressed_unit(&self) -> Option<u64> {
        self.only_piece().and_then(ImageOps::compressed_unit)
    }

    fn write_compressed(&self, offset: u64, data: &[u8]) -> IoResult<()> {
        self.mark()?;
        match self.only_piece() {
            Some(ops) => ops.write_compressed(offset, data),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// `vmdk`.
pub struct Vmdk;

impl Driver for Vmdk {
    fn name(&self) -> &'static str {
        "vmdk"
    }

    fn kind(&self) -> Kind {
        Kind::Format
    }

    fn keys(&self) -> Keys {
        keys::FILE_AND_BACKING
    }

    fn probe(&self, head: &[u8], _filename: &str) -> u8 {
        if head.starts_with(MAGIC) || head.starts_with(b"COWD") || descriptor::looks_like_one(head) { 100 } else { 0 }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let file = context.file()?;
        let read_only = context.read_only() || file.node.info().read_only;
        context.share(&file.node, true)?;
        let mut magic = [0; 4];
        file.node.read_at(0, &mut magic).map_err(OpenError::io("Could not read header from file"))?;
        if &magic == b"COWD" {
            return Err(OpenError::Unsupported("A vmdk extent of type COWD".to_owned()));
        }
        let header = if &magic == MAGIC { Some(Header::read(file.node.as_ref())?) } else { None };
        let (descriptor, place) = read_descriptor(&file.node, header.as_ref())?;
        let backing = open_parent(context, &file, &descriptor)?;
        let below = backing.as_ref().map(|image| Arc::clone(&image.node));
        let mut plan = Plan { context, file: &file, backing: below.clone(), read_only, pieces: Vec::new(), end: 0 };
        match header {
            Some(header) => plan.add_sparse(&file.node, &header, "", None)?,
            None => plan.add_all(&descriptor)?,
        }
        let pieces = plan.pieces;
        context.finish()?;
        let backing_name = descriptor.parent.clone();
        let node = VmdkNode {
            file: Arc::clone(&file.node),
            backing: below,
            pieces,
            descriptor: Mutex::new(descriptor),
            place,
            read_only,
            marked: AtomicBool::new(false),
        };
        let mut opened = Opened::new(Arc::new(node), file.filename).over(file.node);
        (opened.backing, opened.backing_name) = (backing, backing_name);
        Ok(opened)
    }

    fn creation(&self) -> Option<&dyn Creation> {
        Some(self)
    }
}

fn read_descriptor(file: &Arc<dyn BlockNode>, header: Option<&Header>) -> Result<(Descriptor, Place), OpenError> {
    let failed = || OpenError::io("Could not read VMDK descriptor");
    let (offset, room) = match header {
        Some(header) => (header.descriptor * SECTOR, Some(header.descriptor_len.saturating_mul(SECTOR))),
        None => (0, None),
    };
    let len = match room {
        Some(room) => room,
        None => length(file.as_ref())?,
    };
    if len > descriptor::MAX_BYTES {
        let name = file.info().filename;
        return Err(OpenError::Image(format!("The VMDK descriptor of '{name}' at offset {offset} has {len} bytes")));
    }
    let mut bytes = vec![0; index(len)];
    file.read_at(offset, &mut bytes).map_err(failed())?;
    let place = Place { file: Arc::clone(file), offset, room };
    if header.is_none() && !descriptor::looks_like_one(&bytes) {
        return Err(OpenError::Image("invalid VMDK image descriptor".to_owned()));
    }
    Ok((Descriptor::parse(&bytes)?, place))
}

/// The parent, if it still has the content that this disk was made over.
fn open_parent(
    context: &mut OpenContext<'_>,
    file: &Image,
    descriptor: &Descriptor,
) -> Result<Option<Image>, OpenError> {
    let backing = context.backing(&file.filename, descriptor.parent.as_deref(), None)?;
    if let Some(parent) = backing.as_ref().filter(|parent| parent.driver == "vmdk")
        && descriptor.parent_cid != NO_PARENT
        && let Some(cid) = cid_of(parent)
        && cid != descriptor.parent_cid
    {
        return Err(OpenError::Image(format!(
            "The content of '{}' was changed (CID {cid:08x}) after '{}' was made over it (parentCID {:08x})",
            parent.filename, file.filename, descriptor.parent_cid
        )));
    }
    Ok(backing)
}

/// The content identifier of an open disk.
fn cid_of(image: &Image) -> Option<u32> {
    let details = image.ops()?.details().ok()?;
    let (_, cid) = details.specific.iter().find(|(name, _)| *name == "cid")?;
    cid.as_u64().and_then(|cid| u32::try_from(cid).ok())
}

/// Opens extents.
struct Plan<'a, 'b> {
    context: &'a mut OpenContext<'b>,
    file: &'a Image,
    backing: Option<Arc<dyn BlockNode>>,
    read_only: bool,
    pieces: Vec<Piece>,
    end: u64,
}

impl Plan<'_, '_> {
    fn add_all(&mut self, descriptor: &Descriptor) -> Result<(), OpenError> {
        let kind = descriptor.create_type.as_str();
        let known = [
            "monolithicFlat",
            "vmfs",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
            "vmfsThin",
            "vmfsPreallocated",
            "vmfsEagerZeroedThick",
        ];
        if !known.contains(&kind) {
            return Err(OpenError::Image(format!("Unsupported image type '{kind}'")));
        }
        if descriptor.extents.is_empty() {
            return Err(OpenError::Image(format!("The VMDK descriptor '{}' names no extents", self.file.filename)));
        }
        for (number, line) in descriptor.extents.iter().enumerate() {
            self.add_line(number, line)?;
        }
        Ok(())
    }

    fn add_line(&mut self, number: usize, line: &ExtentLine) -> Result<(), OpenError> {
        let too_long =
            || OpenError::Image(format!("Extents of the VMDK descriptor '{}' are too long", self.file.filename));
        let len = line
            .sectors
            .checked_mul(SECTOR)
            .filter(|len| self.end.checked_add(*len).is_some_and(|end| i64::try_from(end).is_ok()));
        let len = len.ok_or_else(too_long)?;
        if line.kind == ExtentKind::Zero {
            self.push(len, None, None, line, None, false);
            return Ok(());
        }
        let file = self.open_file(number, line)?;
        match line.kind {
            ExtentKind::Flat(sector) => {
                let start = sector.checked_mul(SECTOR).ok_or_else(too_long)?;
                let node = RawNode::new(Arc::clone(&file), self.read_only).window(start, Some(len));
                self.push(len, Some(Arc::new(node)), Some(file), line, None, false);
                Ok(())
            }
            _ => {
                let header = Header::read(file.as_ref())?;
                self.add_sparse(&file, &header, &line.kind_name, Some(len))
            }
        }
    }

    fn open_file(&mut self, number: usize, line: &ExtentLine) -> Result<Arc<dyn BlockNode>, OpenError> {
        if let Some(image) = self.context.child(&format!("extents.{number}"), false)? {
            return Ok(image.node);
        }
        let path = backing_path(&self.file.filename, &line.filename);
        let flags = OpenFlags { read_only: self.read_only, ..OpenFlags::default() };
        let file = self.context.open_protocol(&path, flags)?;
        self.context.share(&file, true)?;
        Ok(file)
    }

    fn push(
        &mut self,
        len: u64,
        node: Option<Arc<dyn BlockNode>>,
        file: Option<Arc<dyn BlockNode>>,
        line: &ExtentLine,
        grain: Option<u64>,
        compressed: bool,
    ) {
        let kind_name = line.kind_name.clone();
        if len > 0 {
            self.pieces.push(Piece { start: self.end, len, node, file, kind_name, grain, compressed });
            self.end += len;
        }
    }

    /// `len`: as the descriptor says, if that is a file of its own.
    fn add_sparse(
        &mut self,
        file: &Arc<dyn BlockNode>,
        header: &Header,
        kind_name: &str,
        len: Option<u64>,
    ) -> Result<(), OpenError> {
        let size = header.capacity * SECTOR;
        if len.is_some_and(|len| len > size) {
            let name = file.info().filename;
            return Err(OpenError::Image(format!(
                "The VMDK extent '{name}' is shorter ({size} bytes) than its descriptor says"
            )));
        }
        let len = len.unwrap_or(size);
        let map = SparseMap::open(file, *header)?;
        let codec = header.is_compressed().then(|| {
            let markers = header.flags & flag::MARKERS != 0;
            Box::new(GrainCodec { markers, grain_sectors: header.grain }) as Box<dyn Codec>
        });
        let parts = Parts {
            codec,
            ..Parts::new(file, map, len, header.grain * SECTOR, self.read_only).over(self.backing_window(len)?)
        };
        let line = ExtentLine {
            sectors: 0,
            kind: ExtentKind::Sparse,
            kind_name: kind_name.to_owned(),
            filename: String::new(),
        };
        let node = Arc::new(Blocks::new(parts));
        let grain = Some(header.grain * SECTOR);
        self.push(len, Some(node), Some(Arc::clone(file)), &line, grain, header.is_compressed());
        Ok(())
    }

    /// The part of the parent that is below the next extent.
    fn backing_window(&self, len: u64) -> Result<Option<Arc<dyn BlockNode>>, OpenError> {
        let Some(backing) = &self.backing else { return Ok(None) };
        let len = length(backing.as_ref())?.saturating_sub(self.end).min(len);
        Ok(Some(Arc::new(RawNode::new(Arc::clone(backing), true).window(self.end, Some(len)))))
    }
}
