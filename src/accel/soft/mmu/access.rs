//! Reads, writes and read-modify-writes.
#![expect(unsafe_code)] // UNSAFE: guest memory by host address

use crate::mem::CodeState;

use super::super::cpu::{Cpu, Exception, Fault};
use super::tlb::{Entry, NO_CODE, PAGE, slot};
use super::value::{copy_in, copy_out};
use super::{Access, Mmu, Privilege, Value, Who};

/// The pages of an access of at most 4096 bytes.
struct Span {
    first: Entry,
    /// If the access goes beyond the first.
    second: Option<Entry>,
    /// Offset in the first page.
    inside: u64,
    /// Bytes in the first page.
    split: usize,
    /// Some of it may be watched.
    watched: bool,
}

impl Span {
    /// Where the bytes are, if they are memory in one piece of the host's that `access` needs no detour for.
    fn host(&self, access: Access) -> Option<u64> {
        let direct = |entry: &Entry| entry.host != 0 && (access == Access::Read || !entry.diverts_writes());
        if !direct(&self.first) {
            return None;
        }
        match &self.second {
            Some(second) if !direct(second) || second.host != self.first.host.wrapping_add(0x1000) => None,
            _ => Some(self.first.host + self.inside),
        }
    }
}

impl Entry {
    pub(super) fn is_apic(&self) -> bool {
        self.flags & Self::APIC != 0
    }

    fn diverts_writes(&self) -> bool {
        self.flags & Self::READ_ONLY != 0
    }
}

impl Mmu {
    #[inline(always)]
    fn tag_of(&self, who: Who) -> u64 {
        if who.system { self.system_tag } else { self.tag }
    }

    /// The host address of `len` bytes that can be read there.
    #[inline(always)]
    pub(super) fn read_hit(&self, linear: u64, len: u64, tag: u64) -> Option<u64> {
        let hot = &self.tlb.hot[slot(linear, tag)];
        let wanted = linear.wrapping_add(len - 1) & PAGE | tag;
        (hot.read == wanted).then(|| linear.wrapping_add(hot.addend))
    }

    /// Likewise for writes, and what to look at afterwards.
    #[inline(always)]
    pub(super) fn write_hit(&self, linear: u64, len: u64, tag: u64) -> Option<(u64, &'static CodeState)> {
        let hot = &self.tlb.hot[slot(linear, tag)];
        let wanted = linear.wrapping_add(len - 1) & PAGE | tag;
        (hot.write == wanted).then(|| (linear.wrapping_add(hot.addend), hot.code))
    }
}

impl Cpu {
    /// Reads memory at an offset in a segment.
    ///
    /// # Errors
    /// The exception of the segment's or the page's protection.
    #[inline(always)]
    pub fn read<T: Value>(&mut self, number: u8, offset: u64) -> Result<T, Fault> {
        let linear = self.linear::<false>(number, offset, T::LEN as u64)?;
        self.load(linear, Who::segment(number))
    }

    /// Writes memory at an offset in a segment.
    ///
    /// # Errors
    /// As [`Cpu::read`]; then nothing is written.
    #[inline(always)]
    pub fn write<T: Value>(&mut self, number: u8, offset: u64, value: T) -> Result<(), Fault> {
        let linear = self.linear::<true>(number, offset, T::LEN as u64)?;
        self.store(linear, value, Who::segment(number))
    }

    /// Reads memory at a linear address.
    ///
    /// # Errors
    /// A page fault; #GP(0) if the address is not canonical.
    #[inline(always)]
    pub fn read_linear<T: Value>(&mut self, linear: u64, privilege: Privilege) -> Result<T, Fault> {
        self.load(linear, Who::privilege(privilege))
    }

    /// Writes memory at a linear address.
    ///
    /// # Errors
    /// As [`Cpu::read_linear`]; then nothing is written.
    #[inline(always)]
    pub fn write_linear<T: Value>(&mut self, linear: u64, value: T, privilege: Privilege) -> Result<(), Fault> {
        self.store(linear, value, Who::privilege(privilege))
    }

    #[inline(always)]
    fn load<T: Value>(&mut self, linear: u64, who: Who) -> Result<T, Fault> {
        if let Some(host) = self.mmu.read_hit(linear, T::LEN as u64, self.mmu.tag_of(who)) {
            // SAFETY: a hit lies within a page of the map in use, which keeps it mapped.
            return Ok(unsafe { T::load(host) });
        }
        self.load_slow(linear, who)
    }

    #[inline(always)]
    fn store<T: Value>(&mut self, linear: u64, value: T, who: Who) -> Result<(), Fault> {
        if let Some((host, code)) = self.mmu.write_hit(linear, T::LEN as u64, self.mmu.tag_of(who)) {
            // SAFETY: a hit lies within a writable page of the map in use, which keeps it mapped.
            unsafe { T::store(host, value) };
            if code.is_marked() {
                self.code_written(code, linear, T::LEN as u64);
            }
            return Ok(());
        }
        self.store_slow(linear, value, who)
    }

    #[inline(never)]
    fn load_slow<T: Value>(&mut self, linear: u64, who: Who) -> Result<T, Fault> {
        self.check_alignment(linear, T::LEN, who)?;
        let span = self.span(linear, T::LEN, Access::Read, who)?;
        if span.watched {
            self.note_watched(linear, T::LEN as u64, Access::Read, false);
        }
        if let Some(host) = span.host(Access::Read) {
            // SAFETY: the span lies within pages of the map in use, which keeps them mapped.
            return Ok(unsafe { T::load(host) });
        }
        let mut bytes = [0; 16];
        self.read_span(&span, &mut bytes[..T::LEN]);
        Ok(T::from_bytes(bytes))
    }

    #[inline(never)]
    fn store_slow<T: Value>(&mut self, linear: u64, value: T, who: Who) -> Result<(), Fault> {
        self.check_alignment(linear, T::LEN, who)?;
        let span = self.span(linear, T::LEN, Access::Write, who)?;
        if span.watched {
            self.note_watched(linear, T::LEN as u64, Access::Write, false);
        }
        if let Some(host) = span.host(Access::Write) {
            // SAFETY: the span lies within writable pages of the map in use, which keeps them mapped.
            unsafe { T::store(host, value) };
            self.after_store(&span, T::LEN);
            return Ok(());
        }
        self.write_span(&span, &value.to_bytes()[..T::LEN]);
        Ok(())
    }

    /// Replaces a value in memory by `change` of it, and returns the old one. The whole place is checked for writing
    /// before `change` is called. With `LOCK` no other processor or device sees anything in between; `change` may then be
    /// called more than once.
    ///
    /// # Errors
    /// As [`Cpu::write`]; #GP(0) for locked accesses to 16 bytes that are not aligned.
    #[inline(always)]
    pub fn update<T: Value, const LOCK: bool>(
        &mut self,
        number: u8,
        offset: u64,
        mut change: impl FnMut(T) -> T,
    ) -> Result<T, Fault> {
        let linear = self.linear::<true>(number, offset, T::LEN as u64)?;
        if LOCK && T::LEN == 16 && linear & 15 != 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        if let Some((host, code)) = self.mmu.write_hit(linear, T::LEN as u64, self.mmu.tag) {
            // SAFETY: a hit lies within a writable page of the map in use, which keeps it mapped; alignment was checked.
            let old = unsafe { change_in_place::<T, LOCK>(host, change) };
            if code.is_marked() {
                self.code_written(code, linear, T::LEN as u64);
            }
            return Ok(old);
        }
        self.update_slow::<T, LOCK>(linear, Who::segment(number), &mut change)
    }

    /// Replaces a value in a table of the system by `change` of it; no other processor sees anything in between.
    ///
    /// # Errors
    /// A page fault.
    pub fn update_linear<T: Value>(&mut self, linear: u64, mut change: impl FnMut(T) -> T) -> Result<T, Fault> {
        self.update_slow::<T, true>(linear, Who::privilege(Privilege::System), &mut change)
    }

    #[inline(never)]
    fn update_slow<T: Value, const LOCK: bool>(
        &mut self,
        linear: u64,
        who: Who,
        change: &mut dyn FnMut(T) -> T,
    ) -> Result<T, Fault> {
        self.check_alignment(linear, T::LEN, who)?;
        let span = self.span(linear, T::LEN, Access::Write, who)?;
        if span.watched {
            self.note_watched(linear, T::LEN as u64, Access::Write, true);
        }
        if let Some(host) = span.host(Access::Write) {
            // SAFETY: the span lies within writable pages of the map in use, which keeps them mapped, one after the
            // other in the host; alignment was checked.
            let old = unsafe { change_in_place::<T, LOCK>(host, change) };
            self.after_store(&span, T::LEN);
            return Ok(old);
        }
        if LOCK {
            return Ok(self.alone(|cpu| cpu.change_span(&span, change)));
        }
        Ok(self.change_span(&span, change))
    }

    fn change_span<T: Value>(&mut self, span: &Span, change: &mut dyn FnMut(T) -> T) -> T {
        let mut bytes = [0; 16];
        self.read_span_pieces(span, &mut bytes[..T::LEN]);
        let old = T::from_bytes(bytes);
        self.write_span(span, &change(old).to_bytes()[..T::LEN]);
        old
    }

    /// Reads `buf.len()` bytes (1 to 4096) at an offset in a segment, checked as one access. 16, 32 and 64 bytes are
    /// read 16 at a time.
    ///
    /// # Errors
    /// As [`Cpu::read`].
    #[inline]
    pub fn read_bytes(&mut self, number: u8, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        if buf.is_empty() {
            return Ok(());
        }
        let len = buf.len() as u64;
        assert!(len <= 4096, "an access touches at most two pages");
        let linear = self.linear::<false>(number, offset, len)?;
        if let Some(host) = self.mmu.read_hit(linear, len, self.mmu.tag) {
            // SAFETY: a hit lies within a page of the map in use, which keeps it mapped.
            unsafe { copy_out(host, buf) };
            return Ok(());
        }
        let span = self.span(linear, buf.len(), Access::Read, Who::segment(number))?;
        if span.watched {
            self.note_watched(linear, len, Access::Read, false);
        }
        self.read_span(&span, buf);
        Ok(())
    }

    /// Writes bytes (1 to 4096) at an offset in a segment.
    ///
    /// # Errors
    /// As [`Cpu::read`]; then nothing is written.
    #[inline]
    pub fn write_bytes(&mut self, number: u8, offset: u64, buf: &[u8]) -> Result<(), Fault> {
        if buf.is_empty() {
            return Ok(());
        }
        let len = buf.len() as u64;
        assert!(len <= 4096, "an access touches at most two pages");
        let linear = self.linear::<true>(number, offset, len)?;
        if let Some((host, code)) = self.mmu.write_hit(linear, len, self.mmu.tag) {
            // SAFETY: a hit lies within a writable page of the map in use, which keeps it mapped.
            unsafe { copy_in(host, buf) };
            if code.is_marked() {
                self.code_written(code, linear, len);
            }
            return Ok(());
        }
        let span = self.span(linear, buf.len(), Access::Write, Who::segment(number))?;
        if span.watched {
            self.note_watched(linear, len, Access::Write, false);
        }
        self.write_span(&span, buf);
        Ok(())
    }

    /// Checks that `len` bytes (1 to 4096) can be written, without writing.
    ///
    /// # Errors
    /// As [`Cpu::read`].
    pub fn probe_write(&mut self, number: u8, offset: u64, len: u64) -> Result<(), Fault> {
        let linear = self.linear::<true>(number, offset, len)?;
        let len = usize::try_from(len).map_or(4096, |len| len.clamp(1, 4096));
        self.span(linear, len, Access::Write, Who::segment(number)).map(|_| ())
    }

    /// The translation of a linear address that allows `access`.
    pub(super) fn translation(&mut self, linear: u64, access: Access, who: Who) -> Result<Entry, Fault> {
        if !self.mmu.paging.is_canonical(linear) {
            return Err(self.raise(if who.stack { Exception::ss(0) } else { Exception::gp(0) }));
        }
        let rights = self.rights(who);
        let context = self.mmu.tlb.context(rights);
        let flag = match access {
            Access::Read => Entry::READ,
            Access::Write => Entry::WRITE,
            Access::Fetch => Entry::EXECUTE,
        };
        if let Some(entry) = self.mmu.tlb.find(linear, context, rights, flag) {
            return Ok(entry);
        }
        let page = self.walk(linear, access, rights)?;
        let mut entry = self.describe(page.gpa);
        if self.mmu.watches.covers_page(linear & PAGE) {
            entry.flags |= Entry::WATCHED;
        }
        entry.flags |= page.flags(&self.mmu, rights);
        if page.is_global() {
            entry.flags |= Entry::GLOBAL;
        }
        let entry = self.mmu.tlb.insert(linear, rights, entry, page.size);
        self.mmu.refresh_contexts();
        Ok(entry)
    }

    /// What is at a physical page.
    fn describe(&self, gpa: u64) -> Entry {
        let mut entry = Entry { tag: 0, gpa, host: 0, code: &NO_CODE, flags: 0 };
        if self.apic_page() == Some(gpa) {
            entry.flags = Entry::APIC;
        } else if let Some(page) = self.mmu.ranges.page(gpa) {
            (entry.host, entry.code) = (page.host, page.code);
            if page.read_only {
                entry.flags |= Entry::READ_ONLY;
            }
            if page.logged {
                entry.flags |= Entry::LOGGED;
            }
        }
        entry
    }

    /// The pages of `len` bytes (1 to 4096), all of them checked.
    fn span(&mut self, linear: u64, len: usize, access: Access, who: Who) -> Result<Span, Fault> {
        assert!((1..=4096).contains(&len), "an access touches at most two pages");
        let inside = linear & 0xfff;
        let room = usize::try_from(0x1000 - inside).unwrap_or(1);
        let first = self.translation(linear, access, who)?;
        let second = if len > room {
            let mask = if who.system && self.mmu.paging.long { u64::MAX } else { self.linear_mask };
            let next = (linear & PAGE).wrapping_add(0x1000) & mask;
            Some(self.translation(next, access, who)?)
        } else {
            None
        };
        let watched = (first.flags | second.map_or(0, |second| second.flags)) & Entry::WATCHED != 0;
        Ok(Span { first, second, inside, split: len.min(room), watched })
    }

    /// #AC: a program at level 3 asked for it (Intel SDM volume 3, 6.15, interrupt 17). Processors look at the address
    /// before they look at the page, but an address that is not canonical is another fault.
    fn check_alignment(&mut self, linear: u64, len: usize, who: Who) -> Result<(), Fault> {
        let misaligned = self.mmu.alignment && !who.system && len <= 8 && linear & (len as u64 - 1) != 0;
        if misaligned && self.mmu.paging.is_canonical(linear) {
            return Err(self.raise(Exception::AC));
        }
        Ok(())
    }

    /// #AC for an operand that is accessed with [`Cpu::read_bytes`] and its like, if it is not at a multiple of `align`
    /// bytes (1, 2, 4 or 8; Intel SDM volume 3, table 7-7).
    ///
    /// # Errors
    /// #AC.
    #[inline(always)]
    pub fn check_operand_alignment(&mut self, number: u8, offset: u64, align: usize) -> Result<(), Fault> {
        if !self.mmu.alignment {
            return Ok(());
        }
        let linear = self.segments[usize::from(number & 7)].base.wrapping_add(offset) & self.linear_mask;
        self.check_alignment(linear, align, Who::segment(number))
    }

    fn read_span(&mut self, span: &Span, buf: &mut [u8]) {
        self.read_span_pieces(span, buf);
        if span.has_device() {
            self.follow_memory_map();
        }
    }

    fn read_span_pieces(&mut self, span: &Span, buf: &mut [u8]) {
        let (head, tail) = buf.split_at_mut(span.split);
        self.read_piece(&span.first, span.inside, head);
        if let Some(second) = &span.second {
            self.read_piece(second, 0, tail);
        }
    }

    fn read_piece(&mut self, entry: &Entry, inside: u64, buf: &mut [u8]) {
        if entry.host == 0 {
            self.device_read(entry.gpa | inside, buf, entry.is_apic());
            return;
        }
        // SAFETY: the page is of the map in use, which keeps it mapped; the piece ends within it.
        unsafe { copy_out(entry.host + inside, buf) };
    }

    fn write_span(&mut self, span: &Span, buf: &[u8]) {
        let (head, tail) = buf.split_at(span.split);
        self.write_piece(&span.first, span.inside, head);
        if let Some(second) = &span.second {
            self.write_piece(second, 0, tail);
        }
        if span.has_device() {
            self.follow_memory_map();
        }
    }

    fn write_piece(&mut self, entry: &Entry, inside: u64, buf: &[u8]) {
        if entry.host == 0 || entry.diverts_writes() {
            self.device_write(entry.gpa | inside, buf, entry.is_apic());
            return;
        }
        // SAFETY: the page is writable and of the map in use, which keeps it mapped; the piece ends within it.
        unsafe { copy_in(entry.host + inside, buf) };
        self.piece_stored(entry, inside, buf.len() as u64);
    }

    fn after_store(&mut self, span: &Span, len: usize) {
        self.piece_stored(&span.first, span.inside, span.split as u64);
        if let Some(second) = &span.second {
            self.piece_stored(second, 0, (len - span.split) as u64);
        }
    }

    pub(super) fn piece_stored(&mut self, entry: &Entry, inside: u64, len: u64) {
        if entry.code.is_marked() {
            self.code_written(entry.code, inside, len);
        }
        if entry.flags & Entry::LOGGED != 0 {
            self.mmu.ranges.log(entry.gpa | inside, len);
        }
    }
}

impl Span {
    fn has_device(&self) -> bool {
        let device = |entry: &Entry| entry.host == 0 || entry.diverts_writes();
        device(&self.first) || self.second.as_ref().is_some_and(device)
    }
}

/// Replaces a value by `change` of it and returns the old one.
///
/// # Safety
/// `host` is mapped, writable guest memory for the value's length; for 16 bytes and `LOCK` it is aligned.
#[inline(always)]
unsafe fn change_in_place<T: Value, const LOCK: bool>(host: u64, mut change: impl FnMut(T) -> T) -> T {
    // SAFETY: the caller's promise.
    let mut old = unsafe { T::load(host) };
    if !LOCK {
        // SAFETY: the caller's promise.
        unsafe { T::store(host, change(old)) };
        return old;
    }
    loop {
        // SAFETY: the caller's promise.
        match unsafe { T::exchange(host, old, change(old)) } {
            Ok(()) => return old,
            Err(now) => old = now,
        }
    }
}
