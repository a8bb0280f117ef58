//! Decoded blocks, found again by the memory that they were decoded from.

use super::super::mmu::CodePage;
use super::super::op::Op;
use crate::cpu::Mode;

/// MiB of operations that are kept, unless `tb-size` says otherwise.
const DEFAULT_MIB: u32 = 24;
/// Operations for each block, at most, that may be kept.
const OPS_PER_BLOCK: usize = 16;
/// Heads of the lists of blocks.
const BUCKETS: usize = 32768;
/// No block.
const NONE: u32 = u32::MAX;

/// Where a block is: memory, and how it is interpreted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The page of the first byte.
    pub page: CodePage,
    /// Offset in that page.
    pub offset: u16,
    /// The mode it was decoded for.
    pub mode: Mode,
}

impl Key {
    fn bucket(&self) -> usize {
        let mixed = (self.page.id() << 9 ^ u64::from(self.offset)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 49) as usize ^ self.mode as usize
    }
}

/// Instructions that follow each other in memory, up to the first that always branches.
pub struct Block {
    /// Where it is.
    pub key: Key,
    /// The version of the page that it holds for.
    pub version: u32,
    /// The second page, with its version, of a block that crosses a page: that is a single instruction.
    pub second: Option<(CodePage, u32)>,
    /// The instructions; not empty.
    pub ops: Box<[Op]>,
    /// Their bytes, to see whether a store into the page was a store into them.
    pub bytes: Box<[u8]>,
    /// Blocks of the same page to which this one went: offset and number.
    links: [(u16, u32); 4],
    /// The next block in its list.
    next: u32,
}

impl Block {
    /// A block that no list holds yet.
    #[must_use]
    pub fn new(key: Key, version: u32, second: Option<(CodePage, u32)>, ops: Vec<Op>, bytes: &[u8]) -> Self {
        let (ops, bytes) = (ops.into_boxed_slice(), bytes.into());
        Self { key, version, second, ops, bytes, links: [(0, NONE); 4], next: NONE }
    }

    /// Whether its page has not been stored into since it was decoded or compared.
    #[inline(always)]
    pub fn is_current(&self) -> bool {
        self.key.page.is_current(self.version)
    }

    /// The block of the same page and mode that begins at an offset, if this one went there before.
    #[inline(always)]
    pub fn link(&self, offset: u16) -> Option<u32> {
        let (known, number) = self.links[link_slot(offset)];
        (known == offset && number != NONE).then_some(number)
    }
}

#[inline(always)]
fn link_slot(offset: u16) -> usize {
    usize::from(offset ^ offset >> 2) & 3
}

/// All blocks of a processor.
pub struct Cache {
    blocks: Vec<Block>,
    ops: usize,
    /// Operations that are kept before all blocks are forgotten.
    limit: usize,
    heads: Box<[u32]>,
}

impl Default for Cache {
    fn default() -> Self {
        Self::of_size(DEFAULT_MIB)
    }
}

impl Cache {
    /// A cache that keeps so many MiB of operations at most.
    #[must_use]
    pub fn of_size(mib: u32) -> Self {
        let limit = (mib as usize).saturating_mul(1 << 20) / size_of::<Op>();
        Self { blocks: Vec::new(), ops: 0, limit, heads: vec![NONE; BUCKETS].into_boxed_slice() }
    }

    /// The block with a number from [`Cache::find`] or [`Cache::insert`], since which no other was inserted.
    #[inline(always)]
    pub fn block(&self, number: u32) -> &Block {
        &self.blocks[number as usize]
    }

    /// Likewise, to change it.
    pub fn block_mut(&mut self, number: u32) -> &mut Block {
        &mut self.blocks[number as usize]
    }

    /// The block at a place, out of date or not.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<u32> {
        let mut number = self.heads[key.bucket() & (BUCKETS - 1)];
        while let Some(block) = self.blocks.get(number as usize) {
            if block.key == *key {
                return Some(number);
            }
            number = block.next;
        }
        None
    }

    /// Keeps a block whose place has none; returns its number. All others may be forgotten.
    pub fn insert(&mut self, mut block: Block) -> u32 {
        if self.blocks.len() >= self.limit / OPS_PER_BLOCK || self.ops + block.ops.len() > self.limit {
            self.clear();
        }
        let head = &mut self.heads[block.key.bucket() & (BUCKETS - 1)];
        block.next = *head;
        let number = u32::try_from(self.blocks.len()).unwrap_or(NONE);
        *head = number;
        self.ops += block.ops.len();
        self.blocks.push(block);
        number
    }

    /// Puts a new decoding into the place of an old one.
    pub fn replace(&mut self, number: u32, mut block: Block) {
        let old = &mut self.blocks[number as usize];
        self.ops = self.ops + block.ops.len() - old.ops.len();
        block.next = old.next;
        *old = block;
    }

    /// Remembers that block `from` goes to block `to` of the same page.
    pub fn connect(&mut self, from: u32, to: u32) {
        let offset = self.blocks[to as usize].key.offset;
        self.blocks[from as usize].links[link_slot(offset)] = (offset, to);
    }

    /// How often all blocks were forgotten shows in the numbers: they begin at 0 again.
    fn clear(&mut self) {
        self.blocks.clear();
        self.ops = 0;
        self.heads.fill(NONE);
    }
}
