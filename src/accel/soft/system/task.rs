//! Hardware task switches (Intel SDM volume 3, chapter 8; "7" in older editions).

use crate::cpu::Segment;

use super::super::cpu::{Cpu, Exception, Fault, attributes, gpr, rflags, segment};
use super::super::mmu::Privilege;
use super::descriptor::{Descriptor, SelectorFault, is_null, kind, null_segment, rpl, selector_error};
use super::event::Event;

/// CR0.TS.
const CR0_TS: u64 = 1 << 3;
/// CR0.PG.
const CR0_PG: u64 = 1 << 31;

/// What switches tasks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// JMP: the old task ends.
    Jump,
    /// CALL: the new task is nested.
    Call,
    /// IRET with NT: back to the task that called.
    Return,
    /// An exception or interrupt through a task gate: nested.
    Event {
        /// Pushed on the new task's stack.
        error: Option<u32>,
        /// RF in the old task's flags.
        resume: bool,
    },
}

impl Reason {
    fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Event { .. })
    }
}

/// Offsets in a TSS (SDM volume 3, figures 8-2 and 8-10).
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Bytes of an entry: 2 or 4.
    width: u64,
    /// The least limit.
    limit: u32,
    /// IP, then FLAGS, then the general registers in their order.
    ip: u64,
    /// ES, CS, SS, DS (and FS, GS).
    segments: u64,
    /// How many segment registers there are.
    segment_count: usize,
    /// LDT selector.
    ldt: u64,
}

const LAYOUT16: Layout = Layout { width: 2, limit: 0x2b, ip: 0xe, segments: 0x22, segment_count: 4, ldt: 0x2a };
const LAYOUT32: Layout = Layout { width: 4, limit: 0x67, ip: 0x20, segments: 0x48, segment_count: 6, ldt: 0x60 };
/// CR3 in a 32-bit TSS.
const CR3: u64 = 0x1c;
/// The T flag in a 32-bit TSS.
const TRAP: u64 = 0x64;

impl Layout {
    fn of(kind: u32) -> Self {
        if kind & 8 != 0 { LAYOUT32 } else { LAYOUT16 }
    }
}

/// The registers that a TSS holds.
#[derive(Clone, Copy, Debug, Default)]
struct Image {
    cr3: u64,
    ip: u64,
    flags: u64,
    gpr: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Cpu {
    /// As [`Cpu::switch_task`], for instructions: a fault in the new task's context is delivered there, so that an `Err`
    /// is the old task's.
    pub(super) fn switch_task_now(&mut self, selector: u16, reason: Reason, next: u64) -> Result<(), Fault> {
        let outcome = self.switch_task(selector, reason, next);
        self.settle(outcome)
    }

    /// Delivers the fault of a task switch that came as far as the new task.
    pub(super) fn settle(&mut self, outcome: Result<(), Fault>) -> Result<(), Fault> {
        if outcome.is_err() && self.system.task_switched {
            self.deliver_exception();
            return Ok(());
        }
        outcome
    }

    /// Switches to the task whose TSS descriptor `selector` names; `next` is where the old task goes on. A fault is the
    /// new task's if [`super::SystemRegisters::task_switched`]. It is for the caller to deliver: a chain of tasks that
    /// fault, which guests can make as long as they like, must not nest here.
    fn switch_task(&mut self, selector: u16, reason: Reason, next: u64) -> Result<(), Fault> {
        self.system.task_switched = false;
        let descriptor = self.task_descriptor(selector, reason)?;
        let layout = Layout::of(descriptor.kind());
        if descriptor.limit() < layout.limit {
            return Err(self.raise(Exception::ts(selector_error(selector))));
        }
        let mut image = self.read_image(layout, descriptor.base())?;
        self.save_image(reason, next)?;
        let old = self.tr.selector;
        if reason.nests() {
            let link = descriptor.base() & 0xffff_ffff;
            self.write_linear(link, old, Privilege::System)?;
            image.flags |= rflags::NT;
        }
        if reason != Reason::Return {
            self.mark_busy(selector, true)?;
        }
        if !reason.nests() {
            self.mark_busy(old, false)?;
        }
        // From here on the new task runs, whatever happens.
        let mut tr = descriptor.segment(selector);
        tr.attributes |= kind::BUSY;
        self.tr = tr;
        self.commit(layout, &image);
        self.system.task_switched = true;
        self.load_task(&image, reason)
    }

    /// The TSS descriptor, checked (SDM volume 3, 8.3).
    fn task_descriptor(&mut self, selector: u16, reason: Reason) -> Result<Descriptor, Fault> {
        let (fault, kinds): (SelectorFault, _) = match reason {
            Reason::Return => (Exception::ts, [kind::TSS16_BUSY, kind::TSS32_BUSY]),
            _ => (Exception::gp, [kind::TSS16, kind::TSS32]),
        };
        let error = selector_error(selector);
        if is_null(selector) || selector & 4 != 0 {
            return Err(self.raise(fault(error)));
        }
        let descriptor = self.descriptor(selector, fault)?;
        if !descriptor.is_system(&kinds) {
            return Err(self.raise(fault(error)));
        }
        if !descriptor.is_present() {
            return Err(self.raise(Exception::np(error)));
        }
        Ok(descriptor)
    }

    fn read_entry(&mut self, layout: Layout, base: u64, at: u64) -> Result<u64, Fault> {
        let address = base.wrapping_add(at) & 0xffff_ffff;
        match layout.width {
            2 => Ok(u64::from(self.read_linear::<u16>(address, Privilege::System)?)),
            _ => Ok(u64::from(self.read_linear::<u32>(address, Privilege::System)?)),
        }
    }

    fn write_entry(&mut self, layout: Layout, at: u64, value: u64) -> Result<(), Fault> {
        let address = self.tr.base.wrapping_add(at) & 0xffff_ffff;
        match layout.width {
            2 => self.write_linear(address, value as u16, Privilege::System),
            _ => self.write_linear(address, value as u32, Privilege::System),
        }
    }

    fn read_image(&mut self, layout: Layout, base: u64) -> Result<Image, Fault> {
        let mut image = Image::default();
        let wide = layout.width == 4;
        if wide {
            image.cr3 = self.read_entry(layout, base, CR3)?;
            image.trap = self.read_entry(layout, base, TRAP)? & 1 != 0;
        }
        image.ip = self.read_entry(layout, base, layout.ip)?;
        image.flags = self.read_entry(layout, base, layout.ip + layout.width)?;
        for (register, at) in image.gpr.iter_mut().zip(2..) {
            let value = self.read_entry(layout, base, layout.ip + at * layout.width)?;
            // A 16-bit task finds the upper halves set, as processors leave them.
            *register = if wide { value } else { value | 0xffff_0000 };
        }
        for (selector, at) in image.selectors.iter_mut().take(layout.segment_count).zip(0..) {
            *selector = self.read_entry(layout, base, layout.segments + at * layout.width)? as u16;
        }
        image.ldt = self.read_entry(layout, base, layout.ldt)? as u16;
        Ok(image)
    }

    /// Saves the old task in its TSS.
    fn save_image(&mut self, reason: Reason, next: u64) -> Result<(), Fault> {
        let layout = Layout::of(self.tr.attributes);
        let mut flags = self.rflags() & !rflags::RF;
        match reason {
            Reason::Return => flags &= !rflags::NT,
            Reason::Event { resume: true, .. } => flags |= rflags::RF,
            _ => {}
        }
        self.write_entry(layout, layout.ip, next)?;
        self.write_entry(layout, layout.ip + layout.width, flags)?;
        for (register, at) in (0..8).zip(2..) {
            self.write_entry(layout, layout.ip + at * layout.width, self.gpr[register])?;
        }
        for (number, at) in (0..layout.segment_count).zip(0..) {
            let selector = self.segments[number].loaded.selector;
            // The upper half of a 32-bit entry is reserved; processors leave it alone.
            let address = self.tr.base.wrapping_add(layout.segments + at * layout.width) & 0xffff_ffff;
            self.write_linear(address, selector, Privilege::System)?;
        }
        Ok(())
    }

    /// Takes the registers that need no checks; segment registers hold selectors only.
    fn commit(&mut self, layout: Layout, image: &Image) {
        self.cr0 |= CR0_TS;
        // Local breakpoints belong to the old task (SDM volume 3, 18.2.4).
        self.dr[7] &= !0x155;
        if layout.width == 4 && self.cr0 & CR0_PG != 0 {
            self.cr3 = image.cr3;
            self.switch_cr3(false);
        }
        self.gpr[..8].copy_from_slice(&image.gpr);
        self.rip = image.ip;
        let upper = if layout.width == 2 { 0xffff } else { 0x3f_ffff };
        self.set_rflags(image.flags & upper & !0x8028);
        let virtual_8086 = self.flags & rflags::VM != 0;
        let level = if virtual_8086 { 3 } else { rpl(image.selectors[segment::CS]) };
        for (number, selector) in image.selectors.into_iter().enumerate() {
            let loaded = if virtual_8086 {
                Segment { selector, base: u64::from(selector) << 4, limit: 0xffff, attributes: 0xf3 }
            } else {
                null_segment(selector, level)
            };
            self.segments[number].loaded = loaded;
        }
        self.ldtr = null_segment(image.ldt, 0);
        self.mode_changed();
        self.shadow = 0;
    }

    /// Loads and checks what descriptors are behind the selectors (SDM volume 3, table 8-1).
    fn load_task(&mut self, image: &Image, reason: Reason) -> Result<(), Fault> {
        if self.cr0 & CR0_PG != 0 && self.cr4 & 1 << 5 != 0 {
            self.load_pdptes(self.cr3)?;
        }
        self.ldtr = self.task_ldt(image.ldt)?;
        if self.flags & rflags::VM == 0 {
            self.load_task_segments(image)?;
        }
        if image.ip > u64::from(self.segments[segment::CS].loaded.limit) {
            return Err(self.raise(Exception::gp(0)));
        }
        if let Reason::Event { error: Some(error), .. } = reason {
            let size = if self.tr.attributes & 8 != 0 { 4 } else { 2 };
            let mut stack = self.stack();
            self.push_to(&mut stack, size, u64::from(error))?;
            self.use_stack(&stack);
        }
        if image.trap {
            return Err(self.raise(Exception { payload: super::debug::DR6_BT, ..Exception::DB }));
        }
        Ok(())
    }

    fn task_ldt(&mut self, selector: u16) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Ok(null_segment(selector, 0));
        }
        let error = selector_error(selector);
        if selector & 4 != 0 {
            return Err(self.raise(Exception::ts(error)));
        }
        let descriptor = self.descriptor(selector, Exception::ts)?;
        if !descriptor.is_system(&[kind::LDT]) || !descriptor.is_present() {
            return Err(self.raise(Exception::ts(error)));
        }
        Ok(descriptor.segment(selector))
    }

    fn load_task_segments(&mut self, image: &Image) -> Result<(), Fault> {
        let selector = image.selectors[segment::CS];
        let level = rpl(selector);
        if is_null(selector) {
            return Err(self.raise(Exception::ts(0)));
        }
        let code = self.descriptor(selector, Exception::ts)?;
        let allowed = if code.is_conforming() { code.dpl() <= level } else { code.dpl() == level };
        if !code.is_code() || !allowed {
            return Err(self.raise(Exception::ts(selector_error(selector))));
        }
        if !code.is_present() {
            return Err(self.raise(Exception::np(selector_error(selector))));
        }
        let code = self.code_segment(selector, code, level)?;
        self.set_segment(segment::CS, code);
        let stack = self.checked_stack(image.selectors[segment::SS], level, Exception::ts, false)?;
        self.set_segment(segment::SS, stack);
        for number in [segment::ES, segment::DS, segment::FS, segment::GS] {
            let loaded = self.checked_data(image.selectors[number], level, Exception::ts)?;
            self.set_segment(number, loaded);
        }
        Ok(())
    }

    /// Through a task gate of the IDT (SDM volume 3, 6.12.2).
    pub(super) fn deliver_task(&mut self, event: &Event, selector: u16) -> Result<(), Fault> {
        let reason = Reason::Event { error: event.error, resume: event.resume };
        self.switch_task(selector, reason, event.return_to)
    }

    /// IRET with NT: back to the task that the link of the present TSS names.
    pub(super) fn return_from_task(&mut self, next: u64) -> Result<(), Fault> {
        let link: u16 = self.read_linear(self.tr.base & 0xffff_ffff, Privilege::System)?;
        self.switch_task_now(link, Reason::Return, next)
    }

    /// Whether code at the present level may use `len` ports from `port` (SDM volume 1, 19.5; volume 3, 20.2.8). Notes
    /// breakpoints on them.
    ///
    /// # Errors
    /// #GP(0) if it may not.
    pub fn check_io(&mut self, port: u16, len: u64) -> Result<(), Fault> {
        self.check_io_rights(port, len)?;
        self.note_port_access(port, len);
        Ok(())
    }

    fn check_io_rights(&mut self, port: u16, len: u64) -> Result<(), Fault> {
        let iopl = self.flags >> 12 & 3;
        let free = self.cr0 & 1 == 0 || self.flags & rflags::VM == 0 && u64::from(self.cpl) <= iopl;
        if free {
            return Ok(());
        }
        const BITMAP_BASE: u64 = 0x66;
        let limit = u64::from(self.tr.limit);
        let usable = self.tr.attributes & attributes::PRESENT != 0 && self.tr.attributes & 8 != 0;
        if usable && limit > BITMAP_BASE {
            let address = self.system_address(self.tr.base, BITMAP_BASE);
            let bitmap = u64::from(self.read_linear::<u16>(address, Privilege::System)?);
            let at = bitmap + u64::from(port / 8);
            if at < limit {
                let address = self.system_address(self.tr.base, at);
                let bits = u64::from(self.read_linear::<u16>(address, Privilege::System)?);
                if bits >> (port % 8) & ((1 << len) - 1) == 0 {
                    return Ok(());
                }
            }
        }
        Err(self.raise(Exception::gp(0)))
    }

    /// Whether the TSS's interrupt redirection bitmap sends INT `vector` to the virtual-8086 program's own handler (SDM
    /// volume 3, 20.3.3).
    pub(super) fn is_redirected(&mut self, vector: u8) -> Result<bool, Fault> {
        if self.tr.attributes & 8 == 0 {
            return Ok(false);
        }
        let address = self.tr.base.wrapping_add(0x66) & 0xffff_ffff;
        let bitmap = u64::from(self.read_linear::<u16>(address, Privilege::System)?);
        let at = bitmap.wrapping_sub(32).wrapping_add(u64::from(vector / 8));
        if at > u64::from(self.tr.limit) {
            return Ok(false);
        }
        let address = self.tr.base.wrapping_add(at) & 0xffff_ffff;
        let byte: u8 = self.read_linear(address, Privilege::System)?;
        Ok(byte >> (vector % 8) & 1 == 0)
    }
}

/// The general registers are saved in the order of their numbers.
const _: () = assert!(gpr::RDI == 7);
