//! The loop that executes blocks.

use super::super::cpu::{Activity, Cpu, Flow, rflags, segment};
use super::super::op::{BLOCK_START, Op};
use super::super::signals::Signals;
use super::cache::{Block, Cache};
use crate::cpu::Mode;

/// How a block was left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// To [`Cpu::rip`], in the same mode and with the same translations.
    Near,
    /// Anything may be different now.
    Far,
}

impl Cpu {
    /// Executes instructions until a request of another thread needs attention ([`Cpu::attention`]), the processor no
    /// longer runs ([`Cpu::activity`]), or [`Cpu::budget`] is used up. Exceptions are delivered on the way. At least one
    /// instruction is executed, so that a request that cannot be taken yet does not hold the processor up.
    pub fn execute(&mut self) {
        // Out of the processor, so that handlers may change the one while the other is borrowed.
        let mut cache = self.blocks.take().unwrap_or_default();
        let careful = Self::is_traced() || self.counting.is_some();
        self.enter_x87();
        while self.activity == Activity::Running && self.budget != 0 {
            if careful {
                self.turn::<true>(&mut cache)
            } else {
                self.turn::<false>(&mut cache)
            }
            if self.attention() || self.is_near_breakpoint() {
                break;
            }
        }
        self.leave_x87();
        self.blocks = Some(cache);
    }

    /// Whether other threads ask for something that can be done now. An interrupt has to wait while interrupts are
    /// disabled or held back.
    #[must_use]
    #[inline(always)]
    pub fn attention(&self) -> bool {
        let pending = self.signals.pending();
        if pending == 0 {
            return false;
        }
        pending & !Signals::INTERRUPT != 0 || self.flags & rflags::IF != 0 && self.shadow == 0
    }

    /// Whether more happens around the next instruction than in a block.
    #[inline(always)]
    fn needs_care(&mut self) -> bool {
        if !self.is_debugged() && self.shadow == 0 {
            return false;
        }
        if self.flags & rflags::RF != 0 {
            // Without breakpoints, RF is for nothing but to be cleared by the next instruction.
            self.flags &= !rflags::RF;
            let care = self.is_debugged() || self.shadow != 0;
            self.flags |= if care { rflags::RF } else { 0 };
            return care;
        }
        true
    }

    /// Executes blocks for as long as one leads to the next within a page, or a single instruction; with `CAREFUL` one
    /// block, which is written to the log and counted instruction by instruction if anybody wants that.
    #[inline(always)]
    fn turn<const CAREFUL: bool>(&mut self, cache: &mut Cache) {
        if self.needs_care() {
            if CAREFUL {
                self.log_execution(0);
            }
            return if self.is_debugged() || self.budget == 0 { self.one() } else { self.shadowed(cache) };
        }
        self.mmu.events = 0;
        let Ok(found) = self.find_block(cache) else { return self.deliver_exception() };
        let Some(mut number) = found else { return self.one() };
        loop {
            let block = cache.block(number);
            if !self.may_run(block) {
                if self.budget != 0 {
                    self.one();
                }
                return;
            }
            let start = self.rip;
            if CAREFUL {
                self.log_execution(block.ops.as_ptr() as usize);
            }
            if CAREFUL && self.counting.is_some() {
                return self.run_counted(block);
            }
            if self.run_block(block) == Left::Far || CAREFUL {
                return;
            }
            let offset = u64::from(block.key.offset).wrapping_add(self.rip.wrapping_sub(start));
            if self.mmu.events != 0 || self.attention() {
                return;
            }
            match self.follow(cache, number, offset) {
                Some(next) => number = next,
                None => return,
            }
        }
    }

    /// The one instruction under the shadow of STI or MOV SS, from the cache: kernels execute STI often.
    #[inline(never)]
    fn shadowed(&mut self, cache: &mut Cache) {
        self.mmu.events = 0;
        let Ok(found) = self.find_block(cache) else {
            self.shadow = 0;
            return self.deliver_exception();
        };
        let Some(number) = found else { return self.one() };
        let block = cache.block(number);
        let Some(op) = block.ops.first().filter(|_| self.may_run(block)) else { return self.one() };
        self.gpr[usize::from(BLOCK_START)] = self.rip;
        self.shadow = 0;
        // Before it: devices see a clock that includes this instruction, and may bring the end of the budget nearer.
        self.count(1);
        let step = (op.handler)(self, op);
        if step != Ok(Flow::Jump) {
            self.leave(op, step);
        }
    }

    /// One instruction by itself.
    #[inline(never)]
    fn one(&mut self) {
        self.step();
        self.budget = self.budget.saturating_sub(1);
    }

    /// Whether a block is within the budget and the code segment.
    #[inline(always)]
    fn may_run(&self, block: &Block) -> bool {
        let fits = self.mode == Mode::Long64
            || self.rip + (block.bytes.len() as u64 - 1) <= u64::from(self.segments[segment::CS].loaded.limit);
        fits && block.ops.len() as u64 <= self.budget
    }

    /// The block at `offset` of the page of block `from`, if it is in that page and up to date.
    #[inline(always)]
    fn follow(&mut self, cache: &mut Cache, from: u32, offset: u64) -> Option<u32> {
        let offset = u16::try_from(offset).ok().filter(|&offset| offset < 0x1000)?;
        match cache.block(from).link(offset) {
            Some(next) if cache.block(next).is_current() => Some(next),
            _ => self.follow_first(cache, from),
        }
    }

    /// As `follow`, for the first time.
    #[inline(never)]
    fn follow_first(&mut self, cache: &mut Cache, from: u32) -> Option<u32> {
        if self.needs_care() {
            return None;
        }
        let key = cache.block(from).key;
        // A fault is found again, and delivered, by the caller's next turn.
        let next = self.find_block(cache).ok()??;
        // All blocks may have been forgotten to make room.
        let known = cache.find(&key) == Some(from);
        let target = cache.block(next);
        if known && target.second.is_none() && target.key.page == key.page {
            cache.connect(from, next);
        }
        Some(next)
    }

    /// Executes a block.
    #[inline(always)]
    fn run_block(&mut self, block: &Block) -> Left {
        self.gpr[usize::from(BLOCK_START)] = self.rip;
        let mut executed = 0;
        for op in &block.ops {
            executed += 1;
            match (op.handler)(self, op) {
                Ok(Flow::Next) => {}
                Ok(Flow::Jump) => {
                    self.count(executed);
                    return if op.cold.is_none() { Left::Near } else { Left::Far };
                }
                other => {
                    self.count(executed);
                    self.leave(op, other);
                    return Left::Far;
                }
            }
        }
        self.count(executed);
        self.rip = self.rip_at(block.bytes.len() as u64);
        Left::Near
    }

    /// Executes a block with an exact count at each of its instructions, up to the end of the budget, which devices may
    /// bring nearer.
    fn run_counted(&mut self, block: &Block) {
        self.gpr[usize::from(BLOCK_START)] = self.rip;
        for op in &block.ops {
            self.executed += 1;
            self.budget -= 1;
            match (op.handler)(self, op) {
                Ok(Flow::Next) if self.budget != 0 => {}
                Ok(Flow::Jump) => return,
                other => return self.leave(op, other),
            }
        }
        self.rip = self.rip_at(block.bytes.len() as u64);
    }

    #[inline(always)]
    fn count(&mut self, instructions: u64) {
        self.executed += instructions;
        self.budget -= instructions;
    }

    /// After an instruction that ended its block otherwise than by a jump.
    #[inline(never)]
    fn leave(&mut self, op: &Op, step: super::super::Step) {
        match step {
            Ok(Flow::Again) => self.rip = self.rip_at(u64::from(op.at)),
            Ok(_) => self.rip = self.rip_at(op.end()),
            Err(_) => {
                self.rip = self.rip_at(u64::from(op.at));
                self.executed -= 1;
                self.shadow = 0;
                self.deliver_exception();
            }
        }
    }
}
