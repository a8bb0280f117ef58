//! Tests by family, on a bench with descriptor tables, a TSS and page tables that map its RAM one to one.

mod control;
mod faults;
mod paravirtual;
mod real;
mod state;
mod transfer;

use crate::cpu::{Segment, Table};

use super::super::bench::Bench;
use super::super::cpu::{Cpu, segment};

/// Selectors of [`Kit::descriptors`].
mod selector {
    pub const CODE32: u16 = 0x08;
    pub const DATA32: u16 = 0x10;
    pub const CODE32_USER: u16 = 0x1b;
    pub const DATA32_USER: u16 = 0x23;
    pub const TSS: u16 = 0x28;
    pub const CODE64: u16 = 0x38;
    pub const CODE64_USER: u16 = 0x43;
    pub const LDT: u16 = 0x48;
    pub const GATE: u16 = 0x58;
    pub const CODE16: u16 = 0x68;
    pub const DATA16: u16 = 0x70;
    pub const TSS_OTHER: u16 = 0x80;
    pub const ABSENT: u16 = 0x90;
    pub const TASK_GATE: u16 = 0x98;
    pub const END: u16 = 0xa0;
}

const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const OTHER_TSS: u64 = 0x3800;
/// Handlers are 16 bytes apart.
const HANDLERS: u64 = 0x8000;
const CODE: u64 = 0x1_0000;
/// Stack pointers of the program and of levels 0 to 2 in the TSS.
const STACK: u64 = 0x2_0000;
const INNER_STACK: u64 = 0x2_8000;
const IST: u64 = 0x2_c000;
const PAGES: u64 = 0x7_0000;

/// A descriptor from base, limit (in units of `flags`'s G), access byte and flags nibble.
fn descriptor(base: u64, limit: u64, access: u64, flags: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | flags << 52
        | (base >> 24) << 56
}

/// A gate's low 8 bytes.
fn gate(selector: u16, offset: u64, access: u64, count: u64) -> u64 {
    offset & 0xffff | u64::from(selector) << 16 | count << 32 | access << 40 | (offset >> 16 & 0xffff) << 48
}

struct Kit {
    bench: Bench,
}

impl Kit {
    fn new(model: &str) -> Self {
        let mut kit = Self { bench: Bench::with_model(model) };
        kit.descriptors();
        kit.pages();
        kit
    }

    fn cpu(&mut self) -> &mut Cpu {
        &mut self.bench.cpu
    }

    fn put(&mut self, gpa: u64, value: u64) {
        self.bench.load(gpa, &value.to_le_bytes());
    }

    fn put32(&mut self, gpa: u64, value: u32) {
        self.bench.load(gpa, &value.to_le_bytes());
    }

    fn put16(&mut self, gpa: u64, value: u16) {
        self.bench.load(gpa, &value.to_le_bytes());
    }

    fn get(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        self.bench.ram.read(gpa, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn get32(&self, gpa: u64) -> u32 {
        self.get(gpa) as u32
    }

    fn get16(&self, gpa: u64) -> u16 {
        self.get(gpa) as u16
    }

    fn set_descriptor(&mut self, selector: u16, value: u64) {
        self.put(GDT + u64::from(selector & !7), value);
    }

    fn get_descriptor(&self, selector: u16) -> u64 {
        self.get(GDT + u64::from(selector & !7))
    }

    fn descriptors(&mut self) {
        let table = [
            (selector::CODE32, descriptor(0, 0xf_ffff, 0x9a, 0xc)),
            (selector::DATA32, descriptor(0, 0xf_ffff, 0x92, 0xc)),
            (selector::CODE32_USER, descriptor(0, 0xf_ffff, 0xfa, 0xc)),
            (selector::DATA32_USER, descriptor(0, 0xf_ffff, 0xf2, 0xc)),
            (selector::TSS, descriptor(TSS, 0x67, 0x89, 0)),
            (selector::CODE64, descriptor(0, 0, 0x9a, 0x2)),
            (selector::CODE64_USER, descriptor(0, 0, 0xfa, 0x2)),
            (selector::LDT, descriptor(0x4000, 0xff, 0x82, 0)),
            (selector::CODE16, descriptor(0, 0xffff, 0x9a, 0)),
            (selector::DATA16, descriptor(0, 0xffff, 0x92, 0)),
            (selector::TSS_OTHER, descriptor(OTHER_TSS, 0x67, 0x89, 0)),
            (selector::ABSENT, descriptor(0, 0xf_ffff, 0x12, 0xc)),
            (selector::TASK_GATE, gate(selector::TSS_OTHER, 0, 0xe5, 0)),
        ];
        for (selector, value) in table {
            self.set_descriptor(selector, value);
        }
    }

    /// Page tables of IA-32e mode that map the first 16 MiB one to one, for all.
    fn pages(&mut self) {
        self.put(PAGES, (PAGES + 0x1000) | 7);
        self.put(PAGES + 0x1000, (PAGES + 0x2000) | 7);
        for page in 0..8 {
            self.put(PAGES + 0x2000 + 8 * page, page << 21 | 0x87);
        }
    }

    /// Protected mode, 32-bit code at [`CODE`], level 0 or 3; a 32-bit TSS, interrupt gates for vectors 0 to 63.
    fn protected(model: &str, level: u8) -> Self {
        let mut kit = Self::new(model);
        kit.put32(TSS + 4, INNER_STACK as u32);
        kit.put16(TSS + 8, selector::DATA32);
        for vector in 0..64 {
            kit.put(IDT + 8 * vector, gate(selector::CODE32, HANDLERS + 16 * vector, 0xee, 0));
        }
        let cpu = kit.cpu();
        cpu.gdtr = Table { base: GDT, limit: selector::END - 1 };
        cpu.idtr = Table { base: IDT, limit: 64 * 8 - 1 };
        cpu.cr0 = 0x31;
        cpu.tr = Segment { selector: selector::TSS, base: TSS, limit: 0x67, attributes: 0x8b };
        let (code, data) = match level {
            0 => (selector::CODE32, selector::DATA32),
            _ => (selector::CODE32_USER, selector::DATA32_USER),
        };
        let dpl = u32::from(level) << 5;
        for number in 0..6 {
            let selector = if number == segment::CS { code } else { data };
            let attributes = (if number == segment::CS { 0xc09b } else { 0xc093 }) | dpl;
            cpu.segments[number].loaded = Segment { selector, base: 0, limit: u32::MAX, attributes };
        }
        cpu.gpr[4] = STACK;
        cpu.rip = CODE;
        cpu.mode_changed();
        kit
    }

    /// 64-bit mode at level 0 or 3, with a 64-bit TSS and gates for vectors 0 to 63.
    fn long(model: &str, level: u8) -> Self {
        let mut kit = Self::protected(model, level);
        kit.put(TSS + 4, INNER_STACK);
        kit.put(TSS + 0x24, IST);
        for vector in 0..64 {
            kit.put(IDT + 16 * vector, gate(selector::CODE64, HANDLERS + 16 * vector, 0xee, 0));
            kit.put(IDT + 16 * vector + 8, 0);
        }
        let cpu = kit.cpu();
        cpu.idtr.limit = 64 * 16 - 1;
        cpu.cr3 = PAGES;
        cpu.cr4 = 0x620;
        cpu.efer = 0xd01;
        cpu.cr0 = 0x8001_0031;
        let code = &mut cpu.segments[segment::CS].loaded;
        code.selector = if level == 0 { selector::CODE64 } else { selector::CODE64_USER };
        code.attributes = 0xa09b | u32::from(level) << 5;
        cpu.mode_changed();
        kit
    }

    /// Virtual-8086 mode at 1000:0000 with its stack at 2000:8000, under a protected-mode monitor.
    fn virtual_8086(model: &str, flags: u64) -> Self {
        let mut kit = Self::protected(model, 0);
        let cpu = kit.cpu();
        cpu.set_rflags(flags | 1 << 17);
        for number in 0..6 {
            let selector: u16 = if number == segment::CS { 0x1000 } else { 0x2000 };
            cpu.segments[number].loaded =
                Segment { selector, base: u64::from(selector) << 4, limit: 0xffff, attributes: 0xf3 };
        }
        cpu.gpr[4] = 0x8000;
        cpu.rip = 0;
        cpu.mode_changed();
        kit
    }

    /// Puts code where execution goes on.
    fn code(&mut self, bytes: &[u8]) -> &mut Self {
        let cpu = &self.bench.cpu;
        let at = cpu.segments[segment::CS].base + cpu.rip;
        self.bench.load(at, bytes);
        self
    }

    /// Executes that many instructions.
    fn steps(&mut self, count: usize) -> &mut Self {
        (0..count).for_each(|_| self.bench.cpu.step());
        self
    }

    /// Puts code where execution goes on and executes one instruction of it.
    fn run(&mut self, bytes: &[u8]) -> &mut Self {
        self.code(bytes).steps(1)
    }

    /// The vector whose handler is about to run.
    fn vector(&self) -> Option<u64> {
        let rip = self.bench.cpu.rip;
        ((HANDLERS..HANDLERS + 16 * 64).contains(&rip) && rip.is_multiple_of(16)).then(|| (rip - HANDLERS) / 16)
    }

    /// Entry `index` of the 32-bit stack.
    fn stack32(&self, index: u64) -> u32 {
        self.get32(self.bench.cpu.gpr[4] + 4 * index)
    }

    /// Entry `index` of the 64-bit stack.
    fn stack64(&self, index: u64) -> u64 {
        self.get(self.bench.cpu.gpr[4] + 8 * index)
    }

    fn selector(&self, number: usize) -> u16 {
        self.bench.cpu.segments[number].loaded.selector
    }

    /// The exception that was delivered to a 32-bit handler: vector and error code.
    fn faulted32(&self) -> Option<(u64, u32)> {
        self.vector().map(|vector| (vector, self.stack32(0)))
    }
}
