//! `blkdebug`: errors on purpose, requests that stop at breakpoints, and limits like those of odd hardware.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::blkdebug_rules::{self, Action, Inject, Rule, io_type};
use crate::block::debug::{DebugOps, Event};
use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::lock;
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::block::options::Options;

/// What the rules made of the node so far.
#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    state: u64,
    /// The errors that are due, by their index in `rules` when they were armed; the newest first.
    active: Vec<Inject>,
    /// Requests that wait, by tag; and which may go on.
    waiting: BTreeMap<String, usize>,
    released: BTreeMap<String, usize>,
}

/// A node with rules.
pub struct BlkdebugNode {
    file: Arc<dyn BlockNode>,
    state: Mutex<State>,
    changed: Condvar,
    limits: Limits,
    filename: String,
}

/// What requests must be like.
#[derive(Clone, Copy, Default, Debug)]
struct Limits {
    /// Offsets and lengths are multiples of this.
    align: u64,
    /// Bytes of a read or write at most.
    max_transfer: u64,
    /// Multiples of this can be written as zeros, ..
    opt_write_zero: u64,
    /// .. so many bytes at most.
    max_write_zero: u64,
    /// As these, for discards.
    opt_discard: u64,
    max_discard: u64,
}

impl BlkdebugNode {
    fn new(file: Arc<dyn BlockNode>, rules: Vec<Rule>, limits: Limits, filename: String) -> Self {
        let state = State { rules, state: 1, ..State::default() };
        Self { file, state: Mutex::new(state), changed: Condvar::new(), limits, filename }
    }

    /// Fails the request if a rule says so.
    fn check(&self, offset: u64, len: u64, kind: u8) -> IoResult<()> {
        let mut state = lock(&self.state);
        let matches = |inject: &Inject| {
            inject.types & kind != 0 && inject.offset.is_none_or(|at| len > 0 && offset <= at && at - offset < len)
        };
        let Some(at) = state.active.iter().position(matches) else { return Ok(()) };
        let inject = state.active[at].clone();
        if inject.once {
            state.active.remove(at);
            state.rules.retain(|rule| rule.action != Action::Inject(inject.clone()));
        }
        if inject.errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(inject.errno)) }
    }

    /// Calls `piece(offset, first, last)` for pieces of a transfer of `max` bytes at most.
    fn pieces(
        offset: u64,
        len: u64,
        max: u64,
        mut piece: impl FnMut(u64, usize, usize) -> IoResult<()>,
    ) -> IoResult<()> {
        let max = if max == 0 { u64::MAX } else { max };
        let mut done = 0;
        loop {
            let step = (len - done).min(max);
            let at = offset.checked_add(done).ok_or(io::ErrorKind::InvalidInput)?;
            let index = |value: u64| usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
            piece(at, index(done)?, index(done + step)?)?;
            done += step;
            if done >= len {
                return Ok(());
            }
        }
    }

    /// A request that zeros or discards, in pieces; what does not fit the alignment is `Unsupported`.
    fn ranges(
        &self,
        offset: u64,
        len: u64,
        (opt, max, kind): (u64, u64, u8),
        act: impl Fn(u64, u64) -> IoResult<()>,
    ) -> IoResult<()> {
        let unit = opt.max(self.limits.align).max(1);
        if !offset.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let max = if max == 0 { u64::MAX } else { max };
        let mut done = 0;
        loop {
            let step = (len - done).min(max);
            self.check(offset + done, step, kind)?;
            act(offset + done, step)?;
            done += step;
            if done >= len {
                return Ok(());
            }
        }
    }

    fn suspend(&self, tag: &str) {
        let mut state = lock(&self.state);
        println!("blkdebug: Suspended request '{tag}'");
        *state.waiting.entry(tag.to_owned()).or_default() += 1;
        self.changed.notify_all();
        while state.released.get(tag).is_none_or(|count| *count == 0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(count) = state.released.get_mut(tag) {
            *count -= 1;
        }
    }

    fn release(&self, tag: &str, all: bool) -> bool {
        let mut state = lock(&self.state);
        let Some(count) = state.waiting.get_mut(tag).filter(|count| **count > 0) else { return false };
        let freed = if all { *count } else { 1 };
        *count -= freed;
        for _ in 0..freed {
            println!("blkdebug: Resuming request '{tag}'");
        }
        *state.released.entry(tag.to_owned()).or_default() += freed;
        self.changed.notify_all();
        true
    }
}

impl DebugOps for BlkdebugNode {
    fn set_breakpoint(&self, event: &str, tag: &str) -> bool {
        let Some(event) = Event::by_name(event) else { return false };
        lock(&self.state).rules.push(Rule { event, state: 0, action: Action::Suspend(tag.to_owned()) });
        true
    }

    fn remove_breakpoint(&self, tag: &str) -> bool {
        let mut state = lock(&self.state);
        let before = state.rules.len();
        state.rules.retain(|rule| rule.action != Action::Suspend(tag.to_owned()));
        let removed = state.rules.len() != before;
        drop(state);
        self.release(tag, true) || removed
    }

    fn resume(&self, tag: &str) -> bool {
        self.release(tag, false)
    }

    fn wait_suspended(&self, tag: &str) {
        let mut state = lock(&self.state);
        while state.waiting.get(tag).is_none_or(|count| *count == 0) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn resume_all(&self) {
        let tags: Vec<String> = lock(&self.state).waiting.keys().cloned().collect();
        for tag in tags {
            self.release(&tag, true);
        }
        lock(&self.state).rules.retain(|rule| !matches!(rule.action, Action::Suspend(_)));
    }
}

impl BlockNode for BlkdebugNode {
    forward!(file: len allocated_bytes truncate set_sharing preallocate);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        Self::pieces(offset, buf.len() as u64, self.limits.max_transfer, |at, from, to| {
            self.check(at, (to - from) as u64, io_type::READ)?;
            self.file.read_at(at, &mut buf[from..to])
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.event(Event::Pwritev);
        Self::pieces(offset, buf.len() as u64, self.limits.max_transfer, |at, from, to| {
            self.check(at, (to - from) as u64, io_type::WRITE)?;
            self.file.write_at(at, &buf[from..to], fua)
        })?;
        self.event(Event::PwritevDone);
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        match self.zero_fast_or(offset, len, |at, len| self.file.zero(at, len, may_unmap)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let step = usize::try_from(len.min(1 << 20)).unwrap_or(1 << 20);
                let zeros = vec![0; step];
                Self::pieces(offset, len, 1 << 20, |at, from, to| self.write_at(at, &zeros[..to - from], false))
            }
            done => done,
        }
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.zero_fast_or(offset, len, |at, len| self.file.zero_fast(at, len, may_unmap))
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        let limits = (self.limits.opt_discard, self.limits.max_discard, io_type::DISCARD);
        match self.ranges(offset, len, limits, |at, len| self.file.discard(at, len)) {
            // A discard is a hint.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            done => done,
        }
    }

    fn flush(&self) -> IoResult<()> {
        self.event(Event::FlushToOs);
        self.check(0, 0, io_type::FLUSH)?;
        self.event(Event::FlushToDisk);
        self.file.flush()
    }

    fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
        self.check(offset, len, io_type::BLOCK_STATUS)?;
        self.file.extent(offset, len)
    }

    fn event(&self, event: Event) {
        let mut tags = Vec::new();
        {
            let mut guard = lock(&self.state);
            let state = &mut *guard;
            let mut next = state.state;
            let mut armed = Vec::new();
            for rule in state.rules.iter().filter(|rule| rule.event == event) {
                if rule.state != 0 && rule.state != state.state {
                    continue;
                }
                match &rule.action {
                    Action::Inject(inject) => armed.insert(0, inject.clone()),
                    Action::SetState(new) => next = *new,
                    Action::Suspend(tag) => tags.push(tag.clone()),
                }
            }
            if !armed.is_empty() {
                state.active = armed;
            }
            state.state = next;
            // A breakpoint holds one request.
            state.rules.retain(|rule| !matches!(&rule.action, Action::Suspend(tag) if tags.contains(tag)));
        }
        for tag in tags {
            self.suspend(&tag);
        }
    }

    fn debug(&self) -> Option<&dyn DebugOps> {
        Some(self)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "blkdebug", filename: self.filename.clone(), read_only: self.file.info().read_only }
    }

    fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
        vec![("image", Arc::clone(&self.file))]
    }
}

impl BlkdebugNode {
    fn zero_fast_or(&self, offset: u64, len: u64, act: impl Fn(u64, u64) -> IoResult<()>) -> IoResult<()> {
        self.event(Event::PwritevZero);
        let limits = (self.limits.opt_write_zero, self.limits.max_write_zero, io_type::WRITE_ZEROES);
        self.ranges(offset, len, limits, act)
    }
}

/// `blkdebug`.
pub struct Blkdebug;

fn limit(options: &mut Options, key: &str, align: u64) -> Result<u64, OpenError> {
    let value = options.take_size(key)?.unwrap_or(0);
    if value == 0 || (value.is_multiple_of(align) && value < 1 << 31) {
        return Ok(value);
    }
    Err(OpenError::Invalid(format!("Cannot meet constraints with {key} {value}")))
}

impl Driver for Blkdebug {
    fn name(&self) -> &'static str {
        "blkdebug"
    }

    fn kind(&self) -> Kind {
        Kind::Protocol
    }

    fn keys(&self) -> Keys {
        &[
            ("image", KeyKind::Node),
            ("config", KeyKind::Text),
            ("align", KeyKind::Size),
            ("max-transfer", KeyKind::Size),
            ("opt-write-zero", KeyKind::Size),
            ("max-write-zero", KeyKind::Size),
            ("opt-discard", KeyKind::Size),
            ("max-discard", KeyKind::Size),
            ("inject-error", KeyKind::List),
            ("set-state", KeyKind::List),
            ("take-child-perms", KeyKind::Refused),
            ("unshare-child-perms", KeyKind::Refused),
        ]
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["blkdebug"]
    }

    fn parse_filename(&self, filename: &str, options: &mut Options) -> Result<(), OpenError> {
        let rest = filename.strip_prefix("blkdebug:").unwrap_or(filename);
        let Some((config, image)) = rest.split_once(':') else {
            // Without a colon it is the image's options that count.
            options.insert("x-image", filename);
            return Ok(());
        };
        if !config.is_empty() {
            options.insert("config", config);
        }
        options.insert("x-image", image);
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let mut rules = Vec::new();
        let config = context.options.take_str("config")?;
        if let Some(path) = &config {
            rules = blkdebug_rules::from_file(path)?;
        }
        rules.extend(blkdebug_rules::from_options(&mut context.options)?);
        if let Some(image) = context.options.take_str("x-image")? {
            context.options.insert("image.filename", image);
        }
        let file = context.filtered("image")?;
        let align = context.options.take_size("align")?.unwrap_or(0);
        if align != 0 && (!align.is_power_of_two() || align >= 1 << 31) {
            return Err(OpenError::Invalid(format!("Cannot meet constraints with align {align}")));
        }
        let unit = align.max(1);
        let limits = Limits {
            align,
            max_transfer: limit(&mut context.options, "max-transfer", unit)?,
            opt_write_zero: limit(&mut context.options, "opt-write-zero", unit)?,
            max_write_zero: limit(&mut context.options, "max-write-zero", unit)?,
            opt_discard: limit(&mut context.options, "opt-discard", unit)?,
            max_discard: limit(&mut context.options, "max-discard", unit)?,
        };
        for list in ["take-child-perms", "unshare-child-perms"] {
            if let Some(option) = context.options.take_below(&format!("{list}.")).unknown() {
                return Err(OpenError::Unsupported(format!("blkdebug's {list}.{option}")));
            }
        }
        context.finish()?;
        let filename = format!("blkdebug:{}:{}", config.unwrap_or_default(), file.filename);
        let node = BlkdebugNode::new(Arc::clone(&file.node), rules, limits, filename.clone());
        node.event(Event::None);
        Ok(Opened::new(Arc::new(node), filename))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::memory::MemoryNode;

    fn inject(event: Event, once: bool) -> Rule {
        let inject = Inject { errno: 28, types: 31, offset: None, once };
        Rule { event, state: 0, action: Action::Inject(inject) }
    }

    fn node(rules: Vec<Rule>, limits: Limits) -> BlkdebugNode {
        BlkdebugNode::new(MemoryNode::new(1 << 20), rules, limits, String::new())
    }

    #[test]
    fn errors_come_after_their_event_and_once_if_asked() {
        let node = node(vec![inject(Event::WriteAio, true)], Limits::default());
        node.write_at(0, b"x", false).unwrap();
        node.event(Event::WriteAio);
        assert_eq!(node.write_at(0, b"x", false).unwrap_err().raw_os_error(), Some(28));
        node.event(Event::WriteAio);
        node.write_at(0, b"x", false).unwrap();
    }

    #[test]
    fn states_choose_rules() {
        let set = Rule { event: Event::L2Load, state: 1, action: Action::SetState(2) };
        let fail = Rule { state: 2, ..inject(Event::WriteAio, false) };
        let node = node(vec![set, fail], Limits::default());
        node.event(Event::WriteAio);
        node.write_at(0, b"x", false).unwrap();
        node.event(Event::L2Load);
        node.event(Event::WriteAio);
        node.write_at(0, b"x", false).unwrap_err();
    }

    #[test]
    fn a_request_stops_at_a_breakpoint_until_it_is_resumed() {
        let node = Arc::new(node(Vec::new(), Limits::default()));
        assert!(node.set_breakpoint("pwritev", "A") && !node.set_breakpoint("foo", "A"));
        let other = Arc::clone(&node);
        let writer = std::thread::spawn(move || other.write_at(0, b"x", false));
        node.wait_suspended("A");
        assert!(node.resume("A") && !node.resume("A"));
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn zeros_that_do_not_fit_the_alignment_are_written() {
        let limits = Limits { opt_write_zero: 4096, ..Limits::default() };
        let node = node(Vec::new(), limits);
        node.write_at(0, &[1; 8192], false).unwrap();
        assert!(node.zero_fast(512, 512, false).is_err());
        node.zero(512, 5000, false).unwrap();
        let mut buf = [9; 8192];
        node.read_at(0, &mut buf).unwrap();
        assert!(buf[512..5512].iter().all(|byte| *byte == 0) && buf[511] == 1 && buf[5512] == 1);
    }
}
