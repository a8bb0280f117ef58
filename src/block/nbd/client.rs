//! The client: the `nbd` driver, and the list of a server's exports.
//!
//! A server is a stranger: names, sizes, chunks and extents are checked against what was asked for, and nothing is
//! allocated by a length that it sent beyond 32 MiB.

use std::io;
use std::io::{BufReader, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::proto::{self, Fields, ReadExt, chunk, cmd, flag, info, opt, rep};
use super::stream::{Address, Stream};
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::block::options::Options;
use crate::host;

/// How long a server may take to answer during the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Exports of a list, contexts of an export, information replies: at most so many.
const MAX_ITEMS: usize = 4096;
/// Pause between attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const DEFAULT_PORT: u16 = 10809;

/// What a server says of an export.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExportInfo {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Minimum, preferred and maximum block size, if the server tells.
    pub block_sizes: Option<[u32; 3]>,
    /// Names of its metadata contexts.
    pub contexts: Vec<String>,
    /// Whether replies are structured.
    pub structured: bool,
}

/// Why no export could be used.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// No connection.
    #[error("Failed to connect to '{}': {}", address.shown(), host::plain_reason(error))]
    Connect {
        /// Where to.
        address: Address,
        /// The host's answer.
        error: io::Error,
    },
    /// The server breaks the protocol or hangs up.
    #[error("{what}: {}", io_text(error))]
    Protocol {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        error: io::Error,
    },
    /// The server refuses an option; its text is on the next line.
    #[error("{0}")]
    Refused(String),
}

fn io_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "Unexpected end-of-file before all data were read".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the server does not answer".to_owned(),
        io::ErrorKind::InvalidData => error.to_string(),
        _ => host::plain_reason(error),
    }
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> NbdError {
    move |error| NbdError::Protocol { what, error }
}

/// A connection after the greeting.
struct Handshake {
    input: BufReader<Stream>,
    output: Stream,
    no_zeroes: bool,
    structured: bool,
}

/// A server's answer to an option.
struct Answer {
    kind: u32,
    data: Vec<u8>,
}

impl Handshake {
    fn begin(address: &Address) -> Result<Self, NbdError> {
        let failed = |error| NbdError::Connect { address: address.clone(), error };
        let stream = address.connect().map_err(failed)?;
        stream.set_timeout(Some(HANDSHAKE_LIMIT)).map_err(failed)?;
        let output = stream.try_clone().map_err(failed)?;
        let input = BufReader::with_capacity(64 << 10, stream);
        let mut this = Self { input, output, no_zeroes: false, structured: false };
        this.greet()?;
        Ok(this)
    }

    fn greet(&mut self) -> Result<(), NbdError> {
        let failed = doing("Failed to read initial magic");
        if self.input.be64().map_err(&failed)? != proto::INIT_MAGIC {
            return Err(failed(proto::broken("Bad initial magic received")));
        }
        if self.input.be64().map_err(&failed)? != proto::OPTION_MAGIC {
            return Err(failed(proto::broken("the server speaks the old protocol, which is not supported")));
        }
        let flags = self.input.be16().map_err(doing("Failed to read server flags"))?;
        if flags & proto::FIXED_NEWSTYLE == 0 {
            return Err(failed(proto::broken("the server does not speak the fixed newstyle protocol")));
        }
        self.no_zeroes = flags & proto::NO_ZEROES != 0;
        let answer = u32::from(flags & (proto::FIXED_NEWSTYLE | proto::NO_ZEROES));
        self.output.write_all(&answer.to_be_bytes()).map_err(doing("Failed to send clientflags field"))
    }

    fn send(&mut self, option: u32, data: &[u8]) -> Result<(), NbdError> {
        proto::write_option(&mut self.output, option, data).map_err(doing("Failed to send option request"))
    }

    /// The next answer to `option`.
    fn answer(&mut self, option: u32) -> Result<Answer, NbdError> {
        let failed = doing("Failed to read option reply");
        if self.input.be64().map_err(&failed)? != proto::OPTION_REPLY_MAGIC {
            return Err(failed(proto::broken("Unexpected option reply magic")));
        }
        let (about, kind, len) = (
            self.input.be32().map_err(&failed)?,
            self.input.be32().map_err(&failed)?,
            self.input.be32().map_err(&failed)?,
        );
        if about != option || len > proto::MAX_OPTION {
            return Err(failed(proto::broken("Unexpected option reply")));
        }
        let data = self.input.exact(len as usize).map_err(&failed)?;
        Ok(Answer { kind, data })
    }

    /// Turns structured replies on, where the server has them.
    fn structured(&mut self) -> Result<(), NbdError> {
        self.send(opt::STRUCTURED_REPLY, &[])?;
        self.structured = self.answer(opt::STRUCTURED_REPLY)?.kind == rep::ACK;
        Ok(())
    }

    /// Lists or chooses contexts: their numbers and names.
    fn contexts(&mut self, option: u32, export: &str, queries: &[&str]) -> Result<Vec<(u32, String)>, NbdError> {
        let mut data = proto::counted(export);
        data.extend(u32::try_from(queries.len()).unwrap_or(0).to_be_bytes());
        queries.iter().for_each(|query| data.extend(proto::counted(query)));
        self.send(option, &data)?;
        let mut found = Vec::new();
        loop {
            let answer = self.answer(option)?;
            match answer.kind {
                rep::META_CONTEXT if found.len() < MAX_ITEMS => {
                    let mut fields = Fields(&answer.data);
                    let id = fields.be32().unwrap_or(0);
                    found.push((id, String::from_utf8_lossy(fields.0).into_owned()));
                }
                rep::ACK => return Ok(found),
                // A server without contexts refuses the option.
                kind if kind & rep::ERROR != 0 => return Ok(Vec::new()),
                _ => return Err(doing("Failed to negotiate contexts")(proto::broken("Unexpected option reply"))),
            }
        }
    }

    /// NBD_OPT_GO or NBD_OPT_INFO.
    fn choose(&mut self, option: u32, name: &str) -> Result<ExportInfo, NbdError> {
        let mut data = proto::counted(name);
        let wanted = [info::DESCRIPTION, info::BLOCK_SIZE];
        data.extend(u16::try_from(wanted.len()).unwrap_or(0).to_be_bytes());
        wanted.iter().for_each(|kind| data.extend(kind.to_be_bytes()));
        self.send(option, &data)?;
        let mut export = ExportInfo { name: name.to_owned(), structured: self.structured, ..ExportInfo::default() };
        let mut known = false;
        for _ in 0..MAX_ITEMS {
            let answer = self.answer(option)?;
            match answer.kind {
                rep::ACK if known => return Ok(export),
                rep::INFO => known |= export.add(&answer.data).map_err(doing("Failed to read export information"))?,
                rep::ERR_UNSUP if option == opt::GO => return self.choose_old(name),
                kind if kind & rep::ERROR != 0 => return Err(refused(kind, &answer.data)),
                _ => break,
            }
        }
        Err(doing("Failed to read export information")(proto::broken("Unexpected option reply")))
    }

    /// NBD_OPT_EXPORT_NAME, for servers without NBD_OPT_GO.
    fn choose_old(&mut self, name: &str) -> Result<ExportInfo, NbdError> {
        let failed = doing("Failed to read export length");
        self.send(opt::EXPORT_NAME, name.as_bytes())?;
        let size = self.input.be64().map_err(&failed)?;
        let flags = self.input.be16().map_err(&failed)?;
        if !self.no_zeroes {
            proto::skip(&mut self.input, 124).map_err(&failed)?;
        }
        Ok(ExportInfo { name: name.to_owned(), size, flags, structured: self.structured, ..ExportInfo::default() })
    }
}

impl ExportInfo {
    /// Adds an information reply. Whether it was the size.
    fn add(&mut self, data: &[u8]) -> io::Result<bool> {
        let mut fields = Fields(data);
        let short = || proto::broken("information reply is too short");
        match fields.be16().ok_or_else(short)? {
            info::EXPORT => {
                (self.size, self.flags) = fields.be64().zip(fields.be16()).ok_or_else(short)?;
                if i64::try_from(self.size).is_err() {
                    return Err(proto::broken("export is too large"));
                }
                return Ok(true);
            }
            info::DESCRIPTION => self.description = String::from_utf8_lossy(fields.0).into_owned(),
            info::BLOCK_SIZE => {
                let mut next = || fields.be32().ok_or_else(short);
                self.block_sizes = Some([next()?, next()?, next()?]);
            }
            _ => {}
        }
        Ok(false)
    }
}

/// What a refusal means, and what the server said on the next line.
fn refused(kind: u32, text: &[u8]) -> NbdError {
    let meaning = match kind {
        rep::ERR_UNSUP => "Unsupported option type".to_owned(),
        rep::ERR_POLICY => "Denied by server for option".to_owned(),
        rep::ERR_INVALID => "Invalid parameters for option".to_owned(),
        rep::ERR_TLS_REQD => "Server requires TLS for option, which is not supported by this version".to_owned(),
        rep::ERR_UNKNOWN => "Requested export not available".to_owned(),
        other => format!("Unknown error code 0x{other:x} when asking for option"),
    };
    if text.is_empty() {
        return NbdError::Refused(meaning);
    }
    let said: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(4096).collect();
    NbdError::Refused(format!("{meaning}\nserver reported: {said}"))
}

/// A server's exports with all it tells about them (`qemu-nbd --list`).
///
/// # Errors
/// No connection, or the server breaks the protocol.
pub fn list(address: &Address) -> Result<Vec<ExportInfo>, NbdError> {
    let mut handshake = Handshake::begin(address)?;
    handshake.structured()?;
    handshake.send(opt::LIST, &[])?;
    let mut names = Vec::new();
    loop {
        let answer = handshake.answer(opt::LIST)?;
        match answer.kind {
            rep::SERVER if names.len() < MAX_ITEMS => {
                let mut fields = Fields(&answer.data);
                if let Some(name) = fields.string() {
                    names.push((name.to_owned(), String::from_utf8_lossy(fields.0).into_owned()));
                }
            }
            rep::ACK => break,
            kind if kind & rep::ERROR != 0 => return Err(refused(kind, &answer.data)),
            _ => return Err(doing("Failed to list exports")(proto::broken("Unexpected option reply"))),
        }
    }
    let mut exports = Vec::new();
    for (name, description) in names {
        let mut export = handshake.choose(opt::INFO, &name)?;
        if export.description.is_empty() {
            export.description = description;
        }
        if handshake.structured {
            let found = handshake.contexts(opt::LIST_META_CONTEXT, &name, &[])?;
            export.contexts = found.into_iter().map(|(_, name)| name).collect();
        }
        exports.push(export);
    }
    // The server hangs up either way.
    let _ = handshake.send(opt::ABORT, &[]);
    Ok(exports)
}

/// A connection that serves requests, one at a time.
struct Connection {
    input: BufReader<Stream>,
    output: Stream,
    structured: bool,
    /// The context whose extents are asked for.
    context: Option<u32>,
    cookie: u64,
}

/// How to reach an export.
#[derive(Clone, Debug)]
struct Target {
    address: Address,
    export: String,
    /// Instead of `base:allocation`.
    bitmap: Option<String>,
    reconnect: Duration,
}

impl Target {
    fn connect(&self) -> Result<(Connection, ExportInfo), NbdError> {
        let mut handshake = Handshake::begin(&self.address)?;
        handshake.structured()?;
        let wanted = self.bitmap.as_deref().unwrap_or(proto::BASE_ALLOCATION);
        let mut context = None;
        if handshake.structured {
            let found = handshake.contexts(opt::SET_META_CONTEXT, &self.export, &[wanted])?;
            context = found.into_iter().find(|(_, name)| name == wanted).map(|(id, _)| id);
        }
        let export = handshake.choose(opt::GO, &self.export)?;
        if self.bitmap.is_some() && context.is_none() {
            let text = format!("requested x-dirty-bitmap {wanted} not found");
            return Err(NbdError::Refused(text));
        }
        let Handshake { input, output, structured, .. } = handshake;
        output.set_timeout(None).map_err(doing("Failed to set up the connection"))?;
        Ok((Connection { input, output, structured, context, cookie: 0 }, export))
    }
}

/// What a request brings back.
enum Reply<'a> {
    Nothing,
    Data(&'a mut [u8]),
    Extents(&'a mut Vec<(u32, u32)>),
}

/// A request without its data.
#[derive(Clone, Copy)]
struct Request {
    kind: u16,
    flags: u16,
    offset: u64,
    len: u32,
}

/// How a request ended: `Err` outside is a broken connection, inside the server's answer.
type Outcome = io::Result<io::Result<()>>;

impl Connection {
    fn run(&mut self, request: Request, data: &[u8], reply: &mut Reply<'_>) -> Outcome {
        self.cookie += 1;
        let mut out = Vec::with_capacity(28 + data.len());
        out.extend(proto::REQUEST_MAGIC.to_be_bytes());
        out.extend(request.flags.to_be_bytes());
        out.extend(request.kind.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
        out.extend(request.offset.to_be_bytes());
        out.extend(request.len.to_be_bytes());
        out.extend(data);
        self.output.write_all(&out)?;
        let magic = self.input.be32()?;
        match magic {
            proto::SIMPLE_REPLY_MAGIC => self.simple(request, reply),
            proto::STRUCTURED_REPLY_MAGIC if self.structured => self.chunks(request, reply),
            _ => Err(proto::broken("invalid reply magic")),
        }
    }

    fn simple(&mut self, request: Request, reply: &mut Reply<'_>) -> Outcome {
        let (error, cookie) = (self.input.be32()?, self.input.be64()?);
        if cookie != self.cookie {
            return Err(proto::broken("reply to another request"));
        }
        if error != 0 {
            return Ok(Err(proto::error_of(error)));
        }
        match reply {
            Reply::Data(_) if self.structured => Err(proto::broken("simple reply to a read")),
            Reply::Data(buf) => self.input.read_exact(buf).map(Ok),
            Reply::Extents(_) if request.len > 0 => Err(proto::broken("simple reply to a status request")),
            _ => Ok(Ok(())),
        }
    }

    fn chunks(&mut self, request: Request, reply: &mut Reply<'_>) -> Outcome {
        let mut result = Ok(());
        // Bytes that came so far: no server may send more than was asked for.
        let mut covered = 0_u64;
        let mut chunks = 0_u32;
        loop {
            let (flags, kind, cookie, len) =
                (self.input.be16()?, self.input.be16()?, self.input.be64()?, self.input.be32()?);
            chunks += 1;
            if cookie != self.cookie || u64::from(len) > proto::MAX_DATA + 8 || chunks > 1 << 20 {
                return Err(proto::broken("invalid chunk"));
            }
            match (kind, &mut *reply) {
                (chunk::NONE, _) if len == 0 => {}
                (chunk::OFFSET_DATA, Reply::Data(buf)) if len > 8 => {
                    let place = piece(request, self.input.be64()?, u64::from(len) - 8, &mut covered)?;
                    self.input.read_exact(&mut buf[place])?;
                }
                (chunk::OFFSET_HOLE, Reply::Data(buf)) if len == 12 => {
                    let (offset, size) = (self.input.be64()?, self.input.be32()?);
                    let place = piece(request, offset, u64::from(size), &mut covered)?;
                    buf[place].fill(0);
                }
                (chunk::BLOCK_STATUS, Reply::Extents(extents)) if len >= 12 && (len - 4).is_multiple_of(8) => {
                    let id = self.input.be32()?;
                    let data = self.input.exact(len as usize - 4)?;
                    if Some(id) == self.context {
                        let mut fields = Fields(&data);
                        while let Some(extent) = fields.be32().zip(fields.be32()) {
                            extents.push(extent);
                        }
                    }
                }
                (kind, _) if kind & chunk::ERROR_BIT != 0 && (6..=u32::from(u16::MAX)).contains(&len) => {
                    let data = self.input.exact(len as usize)?;
                    result = Err(proto::error_of(Fields(&data).be32().unwrap_or(0)));
                }
                _ => return Err(proto::broken("unexpected chunk")),
            }
            if flags & chunk::FLAG_DONE != 0 {
                break;
            }
            self.next_chunk()?;
        }
        if let (Reply::Data(buf), Ok(())) = (&*reply, &result)
            && covered != buf.len() as u64
        {
            return Err(proto::broken("the server left out data"));
        }
        Ok(result)
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.input.be32()? == proto::STRUCTURED_REPLY_MAGIC {
            return Ok(());
        }
        Err(proto::broken("invalid reply magic"))
    }
}

/// Where a chunk's data goes in the buffer of a read.
fn piece(request: Request, offset: u64, len: u64, covered: &mut u64) -> io::Result<std::ops::Range<usize>> {
    let start = offset.checked_sub(request.offset);
    let range = start.and_then(|start| start.checked_add(len).map(|end| (start, end)));
    *covered = covered.saturating_add(len);
    match range {
        Some((start, end)) if end <= u64::from(request.len) && *covered <= u64::from(request.len) && len > 0 => {
            let index = |value: u64| usize::try_from(value).map_err(|_| proto::broken("invalid chunk"));
            Ok(index(start)?..index(end)?)
        }
        _ => Err(proto::broken("chunk outside of the request")),
    }
}

/// An export as a node.
pub struct NbdNode {
    target: Target,
    info: ExportInfo,
    read_only: bool,
    filename: String,
    connection: Mutex<Option<Connection>>,
}

impl NbdNode {
    /// Runs a request; where the connection broke, it is made again and the request repeated, for as long as
    /// `reconnect-delay` says.
    fn run(&self, request: Request, data: &[u8], mut reply: Reply<'_>) -> IoResult<()> {
        let mut slot = lock(&self.connection);
        let mut deadline = None;
        loop {
            if slot.is_none() {
                *slot = self.reconnect(&mut deadline);
            }
            let Some(connection) = slot.as_mut() else { return Err(io::Error::from_raw_os_error(host::EIO)) };
            match connection.run(request, data, &mut reply) {
                Ok(answer) => return answer,
                Err(error) => {
                    log::debug!("nbd: {}: {error}", self.target.address.shown());
                    *slot = None;
                    if let Reply::Extents(extents) = &mut reply {
                        extents.clear();
                    }
                    if self.target.reconnect.is_zero() {
                        return Err(io::Error::from_raw_os_error(host::EIO));
                    }
                }
            }
        }
    }

    fn reconnect(&self, deadline: &mut Option<Instant>) -> Option<Connection> {
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.target.reconnect);
        while Instant::now() < deadline {
            match self.target.connect() {
                Ok((connection, info)) if info.size == self.info.size => return Some(connection),
                Ok(_) => return None, // another disk
                Err(error) => log::debug!("nbd: {error}"),
            }
            std::thread::sleep(RETRY_PAUSE.min(self.target.reconnect));
        }
        None
    }

    /// Calls `piece` for parts that a request can carry.
    fn parts(offset: u64, len: u64, max: u64, mut piece: impl FnMut(u64, u32) -> IoResult<()>) -> IoResult<()> {
        let mut done = 0;
        while done < len {
            let step = (len - done).min(max);
            let at = offset.checked_add(done).ok_or(io::ErrorKind::InvalidInput)?;
            piece(at, u32::try_from(step).map_err(|_| io::ErrorKind::InvalidInput)?)?;
            done += step;
        }
        Ok(())
    }

    fn has(&self, bit: u16) -> bool {
        self.info.flags & bit != 0
    }

    fn max_data(&self) -> u64 {
        let [_, _, max] = self.info.block_sizes.unwrap_or([1, 4096, 0]);
        u64::from(max).clamp(512, proto::MAX_DATA) / 512 * 512
    }

    fn writable(&self) -> IoResult<()> {
        if self.read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    fn zeroes(&self, offset: u64, len: u64, flags: u16) -> IoResult<()> {
        self.writable()?;
        if !self.has(flag::SEND_WRITE_ZEROES) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Self::parts(offset, len, 1 << 30, |offset, len| {
            self.run(Request { kind: cmd::WRITE_ZEROES, flags, offset, len }, &[], Reply::Nothing)
        })
    }
}

impl BlockNode for NbdNode {
    fn len(&self) -> IoResult<u64> {
        Ok(self.info.size)
    }

    /// Past the end it reads as zeros, as files do: formats round their lengths up.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        let inside = usize::try_from(self.info.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        let (data, rest) = buf.split_at_mut(inside);
        rest.fill(0);
        let mut done = 0;
        Self::parts(offset, data.len() as u64, self.max_data(), |offset, len| {
            let piece = &mut data[done..done + len as usize];
            done += len as usize;
            self.run(Request { kind: cmd::READ, flags: 0, offset, len }, &[], Reply::Data(piece))
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.writable()?;
        let flags = if fua && self.has(flag::SEND_FUA) { cmd::FLAG_FUA } else { 0 };
        let mut done = 0;
        Self::parts(offset, buf.len() as u64, self.max_data(), |offset, len| {
            let piece = &buf[done..done + len as usize];
            done += len as usize;
            self.run(Request { kind: cmd::WRITE, flags, offset, len }, piece, Reply::Nothing)
        })?;
        if fua && flags == 0 { self.flush() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        let flags = if may_unmap { 0 } else { cmd::FLAG_NO_HOLE };
        match self.zeroes(offset, len, flags) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let zeros = vec![0; usize::try_from(len.min(1 << 20)).unwrap_or(0)];
                Self::parts(offset, len, 1 << 20, |at, len| self.write_at(at, &zeros[..len as usize], false))
            }
            done => done,
        }
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        if !self.has(flag::SEND_FAST_ZERO) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.zeroes(offset, len, cmd::FLAG_FAST_ZERO | if may_unmap { 0 } else { cmd::FLAG_NO_HOLE })
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.writable()?;
        if !self.has(flag::SEND_TRIM) {
            return Ok(());
        }
        Self::parts(offset, len, 1 << 30, |offset, len| {
            self.run(Request { kind: cmd::TRIM, flags: 0, offset, len }, &[], Reply::Nothing)
        })
    }

    fn flush(&self) -> IoResult<()> {
        if !self.has(flag::SEND_FLUSH) {
            return Ok(());
        }
        self.run(Request { kind: cmd::FLUSH, flags: 0, offset: 0, len: 0 }, &[], Reply::Nothing)
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        let data = Extent { allocated: true, data: true, offset: Some(offset), ..Extent::default() };
        let known = lock(&self.connection).as_ref().is_some_and(|connection| connection.context.is_some());
        let len = len.min(self.info.size.saturating_sub(offset));
        if !known || len == 0 {
            return Ok((data, len.max(1)));
        }
        let part = u32::try_from(len.min(1 << 30)).unwrap_or(1 << 30);
        let mut extents = Vec::new();
        let request = Request { kind: cmd::BLOCK_STATUS, flags: cmd::FLAG_REQ_ONE, offset, len: part };
        self.run(request, &[], Reply::Extents(&mut extents))?;
        let Some((known, state)) = extents.first().copied().filter(|(known, _)| *known > 0) else {
            return Err(io::Error::from_raw_os_error(host::EIO));
        };
        let extent = Extent { zero: state & proto::STATE_ZERO != 0, data: state & proto::STATE_HOLE == 0, ..data };
        Ok((extent, u64::from(known).min(len)))
    }

    /// A server does not tell.
    fn allocated_bytes(&self) -> IoResult<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "nbd", filename: self.filename.clone(), read_only: self.read_only }
    }
}

impl Drop for NbdNode {
    fn drop(&mut self) {
        if let Some(connection) = lock(&self.connection).as_mut() {
            let mut out = proto::REQUEST_MAGIC.to_be_bytes().to_vec();
            out.extend([0, 0]);
            out.extend(cmd::DISC.to_be_bytes());
            out.resize(28, 0);
            // The server sees the end of the connection, too.
            let _ = connection.output.write_all(&out);
        }
    }
}

/// `nbd`.
pub struct Nbd;

fn invalid(text: impl Into<String>) -> OpenError {
    OpenError::Invalid(text.into())
}

fn parse_old(rest: &str, options: &mut Options) -> Result<(), OpenError> {
    let (place, export) = match rest.split_once(":exportname=") {
        Some((place, export)) => (place, Some(export)),
        None => (rest, None),
    };
    if let Some(export) = export {
        options.insert("export", export);
    }
    if let Some(path) = place.strip_prefix("unix:") {
        options.insert("server.type", "unix");
        options.insert("server.path", path);
        return Ok(());
    }
    let (host, port) = place.rsplit_once(':').ok_or_else(|| invalid(format!("error parsing address '{place}'")))?;
    options.insert("server.type", "inet");
    options.insert("server.host", host);
    options.insert("server.port", port);
    Ok(())
}

fn decode(text: &str) -> Result<String, OpenError> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
        match digits {
            [Some(high), Some(low)] => out.push(u8::try_from(high * 16 + low).unwrap_or(0)),
            _ => return Err(invalid("No valid URL specified")),
        }
    }
    String::from_utf8(out).map_err(|_| invalid("No valid URL specified"))
}

fn parse_uri(filename: &str, options: &mut Options) -> Result<(), OpenError> {
    let wrong = || invalid("No valid URL specified");
    let (scheme, rest) = filename.split_once("://").ok_or_else(wrong)?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    let export = decode(path)?;
    if !export.is_empty() {
        options.insert("export", export);
    }
    if scheme == "nbd+unix" {
        let socket = query.and_then(|query| query.strip_prefix("socket="));
        let socket = socket.filter(|_| server.is_empty()).ok_or_else(wrong)?;
        options.insert("server.type", "unix");
        options.insert("server.path", decode(socket)?);
        return Ok(());
    }
    if query.is_some() || server.is_empty() {
        return Err(wrong());
    }
    let after_bracket = server.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match server[after_bracket..].rfind(':') {
        Some(at) => (&server[..after_bracket + at], server[after_bracket + at + 1..].to_owned()),
        None => (server, DEFAULT_PORT.to_string()),
    };
    options.insert("server.type", "inet");
    options.insert("server.host", host);
    options.insert("server.port", port);
    Ok(())
}

fn address(options: &mut Options) -> Result<Address, OpenError> {
    if let Some(path) = options.take_str("path")? {
        return Ok(Address::Unix(path));
    }
    let mut server = options.take_below("server.");
    let legacy = options.take_str("host")?;
    let legacy_port = options.take_str("port")?;
    if let Some(host) = legacy {
        server.insert("type", "inet");
        server.insert("host", host);
        server.insert("port", legacy_port.unwrap_or_else(|| DEFAULT_PORT.to_string()));
    }
    let missing = |name: &str| invalid(format!("Parameter 'server.{name}' is missing"));
    let found = match server.take_str("type")?.as_deref() {
        None if server.is_empty() => return Err(invalid("NBD server address missing")),
        None => return Err(missing("type")),
        Some("unix") => Address::Unix(server.take_str("path")?.ok_or_else(|| missing("path"))?),
        Some("inet") => {
            let host = server.take_str("host")?.ok_or_else(|| missing("host"))?;
            let port = server.take_str("port")?.ok_or_else(|| missing("port"))?;
            let number = port.parse().map_err(|_| {
                invalid(format!("address resolution failed for {host}:{port}: Servname not supported for ai_socktype"))
            })?;
            Address::Tcp(host, number)
        }
        Some(other @ ("fd" | "vsock")) => return Err(OpenError::Unsupported(format!("server.type={other}"))),
        Some(other) => return Err(invalid(format!("Parameter 'server.type' does not accept value '{other}'"))),
    };
    match server.unknown() {
        None => Ok(found),
        Some(name) => Err(invalid(format!("Parameter 'server.{name}' is unexpected"))),
    }
}

fn shown(address: &Address, export: &str) -> String {
    match (address, export) {
        (Address::Unix(path), export) => format!("nbd+unix:///{export}?socket={path}"),
        (Address::Tcp(host, port), "") => format!("nbd://{host}:{port}"),
        (Address::Tcp(host, port), export) => format!("nbd://{host}:{port}/{export}"),
    }
}

impl Driver for Nbd {
    fn name(&self) -> &'static str {
        "nbd"
    }

    fn kind(&self) -> Kind {
        Kind::Protocol
    }

    fn keys(&self) -> Keys {
        &[
            ("server", KeyKind::Object),
            ("export", KeyKind::Text),
            ("x-dirty-bitmap", KeyKind::Text),
            ("reconnect-delay", KeyKind::Integer),
            ("open-timeout", KeyKind::Integer),
            ("tls-creds", KeyKind::Refused),
            ("tls-hostname", KeyKind::Refused),
        ]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["nbd", "nbd+tcp", "nbd+unix"]
    }

    fn parse_filename(&self, filename: &str, options: &mut Options) -> Result<(), OpenError> {
        match filename.strip_prefix("nbd:") {
            Some(rest) if !rest.starts_with("//") => parse_old(rest, options),
            _ => parse_uri(filename, options),
        }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let options = &mut context.options;
        if let Some(filename) = options.take_str("filename")? {
            self.parse_filename(&filename, options)?;
        }
        for name in ["tls-creds", "tls-hostname"] {
            if options.take_str(name)?.is_some() {
                return Err(OpenError::Unsupported(format!("nbd's {name}")));
            }
        }
        let address = address(options)?;
        let export = options.take_str("export")?.unwrap_or_default();
        if export.len() > proto::MAX_STRING {
            return Err(invalid("export name too long to send to server"));
        }
        let seconds = |value: Option<u64>| Duration::from_secs(value.unwrap_or(0).min(1 << 32));
        let reconnect = seconds(options.take_size("reconnect-delay")?);
        let patience = seconds(options.take_size("open-timeout")?);
        let bitmap = options.take_str("x-dirty-bitmap")?;
        let may_fall_back = options.take_bool("auto-read-only")?.unwrap_or(false);
        context.finish()?;
        let filename = shown(&address, &export);
        let target = Target { address, export, bitmap, reconnect };
        let deadline = Instant::now() + patience;
        let (connection, info) = loop {
            match target.connect() {
                Ok(found) => break found,
                Err(NbdError::Connect { .. }) if Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
                Err(error) => return Err(invalid(error.to_string())),
            }
        };
        let refuses = info.flags & flag::READ_ONLY != 0;
        if refuses && !context.read_only() && !may_fall_back {
            return Err(invalid("request on write denied without write permission"));
        }
        let read_only = context.read_only() || refuses;
        let node =
            NbdNode { target, info, read_only, filename: filename.clone(), connection: Mutex::new(Some(connection)) };
        Ok(Opened::new(Arc::new(node), filename))
    }
}
