//! The server's side of one connection.
//!
//! What a client sends is bounded before anything is allocated for it: options to 64 KiB, data to 32 MiB, strings to
//! 4096 bytes, contexts to those that the export has; the handshake has a time limit.

use std::io;
use std::io::{BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::proto::{self, Fields, ReadExt, chunk, cmd, flag, info, opt, rep};
use super::stream::Stream;
use crate::block::Image;
use crate::block::dirty::DirtyBits;

/// What clients can choose.
pub struct Export {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The disk.
    pub image: Image,
    /// The part of the disk that is shown: first byte and length.
    pub window: (u64, u64),
    /// Writes are refused.
    pub read_only: bool,
    /// Several clients at a time see each other's flushed writes.
    pub multi: bool,
    /// Whether `qemu:allocation-depth` is offered.
    pub allocation_depth: bool,
    /// `qemu:dirty-bitmap:NAME` and its content.
    pub bitmaps: Vec<(String, DirtyBits)>,
}

/// What a reply to a status request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Context {
    Allocation,
    Depth,
    Bitmap(usize),
}

/// Extents of one reply at most.
const MAX_EXTENTS: usize = 2048;

impl Export {
    fn flags(&self) -> u16 {
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::SEND_CACHE;
        if self.read_only {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_TRIM | flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
        }
        if self.multi || self.read_only {
            flags |= flag::CAN_MULTI_CONN;
        }
        flags
    }

    /// The contexts with their numbers and names.
    fn contexts(&self) -> Vec<(Context, String)> {
        let mut all = vec![(Context::Allocation, proto::BASE_ALLOCATION.to_owned())];
        if self.allocation_depth {
            all.push((Context::Depth, proto::ALLOCATION_DEPTH.to_owned()));
        }
        let bitmaps = self.bitmaps.iter().enumerate();
        all.extend(bitmaps.map(|(i, (name, _))| (Context::Bitmap(i), format!("{}{name}", proto::DIRTY_BITMAP))));
        all
    }

    /// The state of the bytes at `offset`, and for how many of at most `len` it holds.
    fn state(&self, context: Context, offset: u64, len: u64) -> io::Result<(u32, u64)> {
        let at = self.window.0 + offset;
        let (state, known) = match context {
            Context::Allocation => {
                let status = self.image.status(at, len)?;
                let hole = if status.extent.data { 0 } else { proto::STATE_HOLE };
                let zero = if status.extent.zero { proto::STATE_ZERO } else { 0 };
                (hole | zero, status.len)
            }
            Context::Depth => {
                let status = self.image.status(at, len)?;
                let depth = u32::try_from(status.depth + 1).unwrap_or(u32::MAX);
                (if status.extent.allocated { depth } else { 0 }, status.len)
            }
            Context::Bitmap(index) => {
                let (_, bits) = self.bitmaps.get(index).ok_or(io::ErrorKind::InvalidInput)?;
                let (dirty, end) = bits.run(at);
                (u32::from(dirty), end.saturating_sub(at))
            }
        };
        Ok((state, known.clamp(1, len)))
    }
}

/// What a client agreed on.
struct Session<'a> {
    exports: &'a [Arc<Export>],
    input: BufReader<Stream>,
    output: Stream,
    structured: bool,
    /// The contexts that a client chose, and of which export.
    contexts: Vec<(u32, Context)>,
    contexts_of: Option<String>,
    no_zeroes: bool,
}

/// Serves one client until it leaves. `handshake_limit`: how long it may take to choose an export.
///
/// # Errors
/// The connection's, or the client breaks the protocol.
pub fn serve(stream: Stream, exports: &[Arc<Export>], handshake_limit: Option<Duration>) -> io::Result<()> {
    let output = stream.try_clone()?;
    let mut session = Session {
        exports,
        input: BufReader::with_capacity(64 << 10, stream),
        output,
        structured: false,
        contexts: Vec::new(),
        contexts_of: None,
        no_zeroes: false,
    };
    let deadline = handshake_limit.map(|limit| Instant::now() + limit);
    session.greet(deadline)?;
    let Some(export) = session.negotiate(deadline)? else { return Ok(()) };
    session.output.set_timeout(None)?;
    session.transmit(&export)
}

/// What a client may do after an option.
enum Step {
    Next,
    End,
    Transmit(Arc<Export>),
}

impl Session<'_> {
    fn limit(&self, deadline: Option<Instant>) -> io::Result<()> {
        let Some(deadline) = deadline else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.output.set_timeout(Some(left))
    }

    fn greet(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let mut hello = proto::INIT_MAGIC.to_be_bytes().to_vec();
        hello.extend(proto::OPTION_MAGIC.to_be_bytes());
        hello.extend((proto::FIXED_NEWSTYLE | proto::NO_ZEROES).to_be_bytes());
        self.output.write_all(&hello)?;
        self.limit(deadline)?;
        let flags = self.input.be32()?;
        let known = u32::from(proto::FIXED_NEWSTYLE | proto::NO_ZEROES);
        if flags & !known != 0 {
            return Err(proto::broken(format!("Unknown client flags 0x{flags:x} received")));
        }
        self.no_zeroes = flags & u32::from(proto::NO_ZEROES) != 0;
        Ok(())
    }

    /// Options, until the client chose an export. `None`: it left.
    fn negotiate(&mut self, deadline: Option<Instant>) -> io::Result<Option<Arc<Export>>> {
        loop {
            self.limit(deadline)?;
            if self.input.be64()? != proto::OPTION_MAGIC {
                return Err(proto::broken("Bad magic received"));
            }
            let (option, len) = (self.input.be32()?, self.input.be32()?);
            if len > proto::MAX_OPTION {
                if u64::from(len) > proto::MAX_DATA || option == opt::EXPORT_NAME {
                    return Err(proto::broken(format!("option length {len} is too large")));
                }
                proto::skip(&mut self.input, u64::from(len))?;
                self.reply(option, rep::ERR_TOO_BIG, b"option is too large")?;
                continue;
            }
            let data = self.input.exact(len as usize)?;
            match self.option(option, &data)? {
                Step::Next => {}
                Step::End => return Ok(None),
                Step::Transmit(export) => return Ok(Some(export)),
            }
        }
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        proto::write_reply(&mut self.output, option, kind, data)
    }

    fn find(&self, name: &str) -> Option<Arc<Export>> {
        self.exports.iter().find(|export| export.name == name).cloned()
    }

    fn option(&mut self, option: u32, data: &[u8]) -> io::Result<Step> {
        match option {
            opt::EXPORT_NAME => {
                let name = std::str::from_utf8(data).ok().filter(|name| name.len() <= proto::MAX_STRING);
                let export = name.and_then(|name| self.find(name));
                // There is no way to refuse this option but to hang up.
                let export = export.ok_or_else(|| proto::broken("export not found"))?;
                self.drop_foreign_contexts(&export.name);
                let mut out = export.window.1.to_be_bytes().to_vec();
                out.extend(self.flags(&export).to_be_bytes());
                if !self.no_zeroes {
                    out.resize(out.len() + 124, 0);
                }
                self.output.write_all(&out)?;
                return Ok(Step::Transmit(export));
            }
            opt::ABORT => {
                // The client may be gone already.
                let _ = self.reply(option, rep::ACK, &[]);
                return Ok(Step::End);
            }
            opt::LIST if data.is_empty() => {
                for export in self.exports {
                    let mut item = proto::counted(&export.name);
                    item.extend(export.description.as_deref().unwrap_or("").as_bytes());
                    proto::write_reply(&mut self.output, option, rep::SERVER, &item)?;
                }
                self.reply(option, rep::ACK, &[])?;
            }
            opt::INFO | opt::GO => {
                if let Some(export) = self.info(option, data)?
                    && option == opt::GO
                {
                    self.drop_foreign_contexts(&export.name);
                    return Ok(Step::Transmit(export));
                }
            }
            opt::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.reply(option, rep::ACK, &[])?;
            }
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => self.meta_contexts(option, data)?,
            opt::STARTTLS => self.reply(option, rep::ERR_POLICY, b"TLS not configured")?,
            opt::LIST | opt::STRUCTURED_REPLY => self.reply(option, rep::ERR_INVALID, b"unexpected option data")?,
            _ => self.reply(option, rep::ERR_UNSUP, b"Unsupported option")?,
        }
        Ok(Step::Next)
    }

    /// Contexts are those of the export that is used, or none.
    fn drop_foreign_contexts(&mut self, export: &str) {
        if self.contexts_of.as_deref() != Some(export) {
            self.contexts.clear();
        }
    }

    fn flags(&self, export: &Export) -> u16 {
        export.flags() | if self.structured { flag::SEND_DF } else { 0 }
    }

    /// NBD_OPT_INFO and NBD_OPT_GO.
    fn info(&mut self, option: u32, data: &[u8]) -> io::Result<Option<Arc<Export>>> {
        let mut fields = Fields(data);
        let parsed = (|| {
            let name = fields.string()?.to_owned();
            let count = fields.be16()?;
            let wanted: Option<Vec<u16>> = (0..count).map(|_| fields.be16()).collect();
            fields.0.is_empty().then_some((name, wanted?))
        })();
        let Some((name, wanted)) = parsed else {
            self.reply(option, rep::ERR_INVALID, b"bad option data")?;
            return Ok(None);
        };
        let Some(export) = self.find(&name) else {
            let shown: String = name.chars().take(80).collect();
            let text = format!("export '{shown}' not present");
            self.reply(option, rep::ERR_UNKNOWN, text.as_bytes())?;
            return Ok(None);
        };
        let item = |kind: u16, rest: &[u8]| [&kind.to_be_bytes(), rest].concat();
        if wanted.contains(&info::NAME) {
            self.reply(option, rep::INFO, &item(info::NAME, name.as_bytes()))?;
        }
        if let Some(text) = export.description.as_ref().filter(|_| wanted.contains(&info::DESCRIPTION)) {
            self.reply(option, rep::INFO, &item(info::DESCRIPTION, text.as_bytes()))?;
        }
        let sizes = [1_u32, 4096, 32 << 20].map(u32::to_be_bytes).concat();
        self.reply(option, rep::INFO, &item(info::BLOCK_SIZE, &sizes))?;
        let mut size = export.window.1.to_be_bytes().to_vec();
        size.extend(self.flags(&export).to_be_bytes());
        self.reply(option, rep::INFO, &item(info::EXPORT, &size))?;
        self.reply(option, rep::ACK, &[])?;
        Ok(Some(export))
    }

    /// NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
    fn meta_contexts(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let setting = option == opt::SET_META_CONTEXT;
        if setting {
            self.contexts.clear();
            self.contexts_of = None;
        }
        if !self.structured {
            return self.reply(option, rep::ERR_INVALID, b"structured replies are needed first");
        }
        let mut fields = Fields(data);
        let head = fields.string().map(str::to_owned).zip(fields.be32());
        let Some((name, count)) = head else { return self.reply(option, rep::ERR_INVALID, b"bad option data") };
        let Some(export) = self.find(&name) else {
            return self.reply(option, rep::ERR_UNKNOWN, b"export not present");
        };
        let mut queries = Vec::new();
        for _ in 0..count {
            // The option's length bounds their number: each takes four bytes at least.
            match fields.string() {
                Some(query) => queries.push(query),
                None => return self.reply(option, rep::ERR_INVALID, b"bad option data"),
            }
        }
        if !fields.0.is_empty() {
            return self.reply(option, rep::ERR_INVALID, b"bad option data");
        }
        let all = !setting && queries.is_empty();
        for (id, (context, name)) in export.contexts().into_iter().enumerate() {
            let asked = |query: &&str| *query == name || (!setting && query.ends_with(':') && name.starts_with(*query));
            if !all && !queries.iter().any(asked) {
                continue;
            }
            let id = u32::try_from(id).unwrap_or(0);
            if setting {
                self.contexts.push((id, context));
            }
            let mut item = if setting { id } else { 0 }.to_be_bytes().to_vec();
            item.extend(name.as_bytes());
            self.reply(option, rep::META_CONTEXT, &item)?;
        }
        if setting {
            self.contexts_of = Some(name);
        }
        self.reply(option, rep::ACK, &[])
    }

    /// Requests, until the client leaves.
    fn transmit(&mut self, export: &Export) -> io::Result<()> {
        loop {
            let magic = match self.input.be32() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            if magic != proto::REQUEST_MAGIC {
                return Err(proto::broken(format!("invalid magic (got 0x{magic:x})")));
            }
            let request = Request {
                flags: self.input.be16()?,
                kind: self.input.be16()?,
                cookie: self.input.be64()?,
                offset: self.input.be64()?,
                len: self.input.be32()?,
            };
            if request.kind == cmd::DISC {
                return Ok(());
            }
            self.request(export, &request)?;
        }
    }

    fn request(&mut self, export: &Export, request: &Request) -> io::Result<()> {
        let mut data = Vec::new();
        if request.kind == cmd::WRITE {
            if u64::from(request.len) > proto::MAX_DATA {
                return Err(proto::broken(format!("len ({}) is larger than max len", request.len)));
            }
            data = self.input.exact(request.len as usize)?;
        }
        if let Err(error) = request.check(export) {
            return self.fail(request, &error);
        }
        let at = export.window.0 + request.offset;
        let len = u64::from(request.len);
        let node = &export.image.node;
        let fua = request.flags & cmd::FLAG_FUA != 0;
        let flushed = |done: io::Result<()>| if fua { done.and_then(|()| node.flush()) } else { done };
        let result = match request.kind {
            cmd::READ => return self.read(export, request),
            cmd::BLOCK_STATUS => return self.status(export, request),
            cmd::WRITE => node.write_at(at, &data, fua),
            cmd::FLUSH => node.flush(),
            cmd::TRIM => flushed(node.discard(at, len)),
            cmd::CACHE => self.prefetch(export, request),
            _ => {
                let unmap = request.flags & cmd::FLAG_NO_HOLE == 0;
                let fast = request.flags & cmd::FLAG_FAST_ZERO != 0;
                flushed(if fast { node.zero_fast(at, len, unmap) } else { node.zero(at, len, unmap) })
            }
        };
        match result {
            Ok(()) => self.succeed(request),
            Err(error) => self.fail(request, &error),
        }
    }

    fn simple(&mut self, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(16 + data.len());
        out.extend(proto::SIMPLE_REPLY_MAGIC.to_be_bytes());
        out.extend(error.to_be_bytes());
        out.extend(cookie.to_be_bytes());
        out.extend(data);
        self.output.write_all(&out)
    }

    fn chunk(&mut self, cookie: u64, done: bool, kind: u16, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = Vec::with_capacity(20 + len);
        out.extend(proto::STRUCTURED_REPLY_MAGIC.to_be_bytes());
        out.extend(if done { chunk::FLAG_DONE } else { 0 }.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(cookie.to_be_bytes());
        out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        parts.iter().for_each(|part| out.extend(*part));
        self.output.write_all(&out)
    }

    /// Only reads and status requests must have structured replies; the others may.
    fn succeed(&mut self, request: &Request) -> io::Result<()> {
        if self.structured {
            return self.chunk(request.cookie, true, chunk::NONE, &[]);
        }
        self.simple(request.cookie, 0, &[])
    }

    fn fail(&mut self, request: &Request, error: &io::Error) -> io::Result<()> {
        let number = proto::error_number(error);
        if self.structured {
            let text = crate::host::plain_reason(error);
            let text_len = u16::try_from(text.len()).unwrap_or(0).to_be_bytes();
            return self.chunk(
                request.cookie,
                true,
                chunk::ERROR,
                &[&number.to_be_bytes(), &text_len, text.as_bytes()],
            );
        }
        self.simple(request.cookie, number, &[])
    }

    fn prefetch(&mut self, export: &Export, request: &Request) -> io::Result<()> {
        let mut buffer = vec![0; (request.len as usize).min(1 << 20)];
        let mut done = 0;
        while done < request.len as usize {
            let step = buffer.len().min(request.len as usize - done);
            export.image.node.read_at(export.window.0 + request.offset + done as u64, &mut buffer[..step])?;
            done += step;
        }
        Ok(())
    }

    fn read(&mut self, export: &Export, request: &Request) -> io::Result<()> {
        let at = export.window.0 + request.offset;
        let mut buffer = vec![0; request.len as usize];
        if !self.structured {
            return match export.image.node.read_at(at, &mut buffer) {
                Ok(()) => self.simple(request.cookie, 0, &buffer),
                Err(error) => self.fail(request, &error),
            };
        }
        let whole = request.flags & cmd::FLAG_DF != 0 || buffer.is_empty();
        let mut done = 0;
        loop {
            let left = buffer.len() - done;
            let offset = request.offset + done as u64;
            let (hole, known) = if whole {
                (false, left)
            } else {
                match export.image.status(export.window.0 + offset, left as u64) {
                    Ok(status) => (status.extent.zero, usize::try_from(status.len).unwrap_or(left).clamp(1, left)),
                    Err(error) => return self.fail(request, &error),
                }
            };
            let last = done + known == buffer.len();
            if hole {
                let len = u32::try_from(known).unwrap_or(0).to_be_bytes();
                self.chunk(request.cookie, last, chunk::OFFSET_HOLE, &[&offset.to_be_bytes(), &len])?;
            } else {
                let piece = &mut buffer[done..done + known];
                if let Err(error) = export.image.node.read_at(export.window.0 + offset, piece) {
                    return self.fail(request, &error);
                }
                if buffer.is_empty() {
                    return self.chunk(request.cookie, true, chunk::NONE, &[]);
                }
                let parts: [&[u8]; 2] = [&offset.to_be_bytes(), &buffer[done..done + known]];
                self.chunk(request.cookie, last, chunk::OFFSET_DATA, &parts)?;
            }
            done += known;
            if last {
                return Ok(());
            }
        }
    }

    fn status(&mut self, export: &Export, request: &Request) -> io::Result<()> {
        if self.contexts.is_empty() || request.len == 0 {
            return self.fail(request, &io::ErrorKind::InvalidInput.into());
        }
        let limit = if request.flags & cmd::FLAG_REQ_ONE != 0 { 1 } else { MAX_EXTENTS };
        let contexts = self.contexts.clone();
        for (index, (id, context)) in contexts.iter().enumerate() {
            let extents = match extents(export, *context, request, limit) {
                Ok(extents) => extents,
                Err(error) => return self.fail(request, &error),
            };
            let mut data = id.to_be_bytes().to_vec();
            for (len, state) in extents {
                data.extend(len.to_be_bytes());
                data.extend(state.to_be_bytes());
            }
            self.chunk(request.cookie, index + 1 == contexts.len(), chunk::BLOCK_STATUS, &[&data])?;
        }
        Ok(())
    }
}

/// Runs of one state each.
fn extents(export: &Export, context: Context, request: &Request, limit: usize) -> io::Result<Vec<(u32, u32)>> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    let mut done = 0;
    while done < request.len {
        let (state, known) = export.state(context, request.offset + u64::from(done), u64::from(request.len - done))?;
        let known = u32::try_from(known).unwrap_or(request.len - done);
        let full = out.len() == limit;
        match out.last_mut() {
            Some((len, same)) if *same == state => *len += known,
            _ if full => break,
            _ => out.push((known, state)),
        }
        done += known;
    }
    Ok(out)
}

/// A request without its data.
struct Request {
    flags: u16,
    kind: u16,
    cookie: u64,
    offset: u64,
    len: u32,
}

impl Request {
    /// "Error values": EINVAL for what there is not, EPERM for a read-only export, ENOSPC for writes past the end.
    fn check(&self, export: &Export) -> io::Result<()> {
        let error = |code: i32| Err(io::Error::from_raw_os_error(code));
        let allowed = match self.kind {
            cmd::READ => cmd::FLAG_DF | cmd::FLAG_FUA,
            cmd::WRITE | cmd::TRIM | cmd::FLUSH | cmd::CACHE => cmd::FLAG_FUA,
            cmd::WRITE_ZEROES => cmd::FLAG_FUA | cmd::FLAG_NO_HOLE | cmd::FLAG_FAST_ZERO,
            cmd::BLOCK_STATUS => cmd::FLAG_REQ_ONE | cmd::FLAG_FUA,
            _ => return error(crate::host::EINVAL),
        };
        if self.flags & !allowed != 0 {
            return error(crate::host::EINVAL);
        }
        let writes = matches!(self.kind, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
        if writes && export.read_only {
            return error(crate::host::EPERM);
        }
        if self.kind == cmd::FLUSH {
            return Ok(());
        }
        let fits = self.offset.checked_add(u64::from(self.len)).is_some_and(|end| end <= export.window.1);
        if !fits {
            return error(if writes { crate::host::ENOSPC } else { crate::host::EINVAL });
        }
        if self.kind == cmd::READ && u64::from(self.len) > proto::MAX_DATA {
            return error(crate::host::EINVAL);
        }
        Ok(())
    }
}
