//! From memory to blocks.

use iced_x86::{Decoder, DecoderError, FlowControl, Instruction};

use super::super::cpu::{Cpu, Exception, Fault, segment};
use super::super::mmu::CodePage;
use super::super::vector;
use super::cache::{Block, Cache, Key};
use super::lower;
use crate::cpu::Mode;

/// Instructions in a block at most.
const OPS: usize = 48;
/// Code is fetched, and so marked, in pieces of this size and alignment: the granularity of the marks.
const PIECE: u64 = 128;

/// What was found at the instruction pointer.
pub struct Decoded {
    /// The instruction, decoded as if at address 0.
    pub instruction: Instruction,
    /// Bytes that begin with it.
    pub bytes: [u8; 15],
}

/// Bytes of a page, fetched as they are needed.
struct Window {
    /// Linear address of the first byte.
    linear: u64,
    bytes: [u8; OPS * 15],
    have: usize,
}

impl Window {
    /// Fetches up to the end of the piece; `false` at the end of the page, or of the window.
    fn extend(&mut self, cpu: &mut Cpu) -> Result<bool, Fault> {
        let at = self.linear.wrapping_add(self.have as u64);
        let page_ends = self.have != 0 && at & 0xfff == 0;
        if page_ends || self.have == self.bytes.len() {
            return Ok(false);
        }
        let room = usize::try_from(PIECE - at % PIECE).unwrap_or(1).min(self.bytes.len() - self.have);
        self.have += cpu.fetch(at, &mut self.bytes[self.have..self.have + room])?;
        Ok(true)
    }
}

impl Cpu {
    /// Linear address of the instruction pointer.
    #[inline(always)]
    pub(super) fn code_address(&self) -> u64 {
        self.segments[segment::CS].base.wrapping_add(self.rip) & self.linear_mask
    }

    /// Whether the next instruction is in a page with a breakpoint, or may reach into one: a block stays within its page.
    #[inline(always)]
    pub fn is_near_breakpoint(&self) -> bool {
        !self.breakpoint_pages.is_empty() && self.breakpoint_pages.contains(&(self.code_address() & !0xfff))
    }

    /// The block at the instruction pointer, up to date; `None` if the instruction there has to be executed by itself.
    pub(super) fn find_block(&mut self, cache: &mut Cache) -> Result<Option<u32>, Fault> {
        if self.code_room() == 0 {
            return Ok(None);
        }
        let linear = self.code_address();
        let page = self.code_page(linear)?;
        if !page.is_cacheable() {
            return Ok(None);
        }
        let key = Key { page, offset: (linear & 0xfff) as u16, mode: self.mode };
        let Some(number) = cache.find(&key) else {
            let block = self.build(linear, key)?;
            return Ok(block.map(|block| cache.insert(block)));
        };
        let block = cache.block(number);
        if block.is_current() && block.second.is_none() || self.revalidate(linear, cache, number)? {
            return Ok(Some(number));
        }
        let block = self.build(linear, key)?;
        Ok(block.map(|block| {
            cache.replace(number, block);
            number
        }))
    }

    /// Whether a block's bytes are what they were; if so it holds for the page's present version.
    fn revalidate(&mut self, linear: u64, cache: &mut Cache, number: u32) -> Result<bool, Fault> {
        let block = cache.block_mut(number);
        let versions = (block.key.page.version(), self.second_page(linear, block)?);
        if block.is_current() && block.second == versions.1 {
            return Ok(true);
        }
        let mut bytes = [0; OPS * 15];
        let bytes = &mut bytes[..block.bytes.len()];
        let mut have = 0;
        while have < bytes.len() {
            have += self.fetch(linear.wrapping_add(have as u64) & self.linear_mask, &mut bytes[have..])?;
        }
        let same_place = block.second.map(|second| second.0) == versions.1.map(|second| second.0);
        let same = same_place && *bytes == *block.bytes;
        if same {
            (block.version, block.second) = versions;
        }
        Ok(same)
    }

    /// The second page of a block that crosses a page, as it is now.
    fn second_page(&mut self, linear: u64, block: &Block) -> Result<Option<(CodePage, u32)>, Fault> {
        if block.second.is_none() {
            return Ok(None);
        }
        let page = self.code_page((linear & !0xfff).wrapping_add(0x1000) & self.linear_mask)?;
        Ok(Some((page, page.version())))
    }

    /// Decodes a block. `None`: its first instruction cannot be kept.
    fn build(&mut self, linear: u64, key: Key) -> Result<Option<Block>, Fault> {
        let version = key.page.version();
        let mut window = Window { linear, bytes: [0; OPS * 15], have: 0 };
        let mut ops = Vec::with_capacity(16);
        let mut used = 0;
        while ops.len() < OPS {
            let instruction = self.decode_in(&mut window, used)?;
            let Some(instruction) = instruction else { break };
            let mut bytes = [0; 15];
            let rest = &window.bytes[used..window.have.min(used + 15)];
            bytes[..rest.len()].copy_from_slice(rest);
            ops.push(lower::lower(&instruction, &bytes, used as u16));
            used += instruction.len();
            if ends_block(&instruction) {
                break;
            }
        }
        if ops.is_empty() {
            return self.build_crossing(linear, key);
        }
        self.log_decoding(linear, &window.bytes[..used]);
        Ok(Some(Block::new(key, version, None, ops, &window.bytes[..used])))
    }

    /// The instruction at `used` in the window; `None` if it is not whole in its page, or not valid.
    fn decode_in(&mut self, window: &mut Window, used: usize) -> Result<Option<Instruction>, Fault> {
        loop {
            let (instruction, error) = self.decode(&window.bytes[used..window.have]);
            match error {
                DecoderError::None if vector::allowed(&instruction, &self.model) => return Ok(Some(instruction)),
                DecoderError::NoMoreBytes if window.have - used < 15 && window.extend(self)? => {}
                _ => return Ok(None),
            }
        }
    }

    /// A block of one instruction that goes on in the next page.
    fn build_crossing(&mut self, linear: u64, key: Key) -> Result<Option<Block>, Fault> {
        let room = 0x1000 - usize::from(key.offset);
        if room >= 15 || self.code_room() < 15 {
            return Ok(None);
        }
        let next = linear.wrapping_add(room as u64) & self.linear_mask;
        let version = key.page.version();
        let mut bytes = [0; 15];
        self.fetch(linear, &mut bytes[..room])?;
        if self.decode(&bytes[..room]).1 != DecoderError::NoMoreBytes {
            return Ok(None);
        }
        let page = self.code_page(next)?;
        let second = Some((page, page.version()));
        if !page.is_cacheable() {
            return Ok(None);
        }
        self.fetch(next, &mut bytes[room..])?;
        let (instruction, error) = self.decode(&bytes);
        if error != DecoderError::None || !vector::allowed(&instruction, &self.model) {
            return Ok(None);
        }
        let ops = vec![lower::lower(&instruction, &bytes, 0)];
        self.log_decoding(linear, &bytes[..instruction.len()]);
        Ok(Some(Block::new(key, version, second, ops, &bytes[..instruction.len()])))
    }

    fn decode(&self, bytes: &[u8]) -> (Instruction, DecoderError) {
        let mut decoder = Decoder::with_ip(lower::bits(self.mode), bytes, 0, self.decoder_options);
        let instruction = decoder.decode();
        let error = match decoder.last_error() {
            // With 15 bytes iced does not tell one that is too long from one that is not valid but by how far it read.
            DecoderError::InvalidInstruction if decoder.position() == 15 => DecoderError::NoMoreBytes,
            error => error,
        };
        (instruction, error)
    }

    /// Fetches and decodes the instruction at a linear address, which is that of [`Cpu::rip`].
    pub(super) fn decode_at(&mut self, linear: u64) -> Result<Decoded, Fault> {
        let mut bytes = [0; 15];
        let room = self.code_room().min(bytes.len());
        if room == 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        let mut have = self.fetch(linear, &mut bytes[..room])?;
        loop {
            let (instruction, error) = self.decode(&bytes[..have]);
            match error {
                DecoderError::None if vector::allowed(&instruction, &self.model) => {
                    return Ok(Decoded { instruction, bytes });
                }
                DecoderError::NoMoreBytes if have < room => {
                    have += self.fetch(linear.wrapping_add(have as u64) & self.linear_mask, &mut bytes[have..room])?;
                }
                // Longer than 15 bytes, or beyond the code segment's limit.
                DecoderError::NoMoreBytes => return Err(self.raise(Exception::gp(0))),
                _ => return Err(self.raise(Exception::UD)),
            }
        }
    }

    /// How many bytes there are from the instruction pointer to the limit of the code segment.
    #[inline]
    pub(super) fn code_room(&self) -> usize {
        if self.mode == Mode::Long64 {
            return usize::MAX;
        }
        let limit = u64::from(self.segments[segment::CS].loaded.limit);
        (limit + 1).saturating_sub(self.rip) as usize
    }
}

/// Whether what follows an instruction in memory is not what follows it in time.
fn ends_block(instruction: &Instruction) -> bool {
    !matches!(
        instruction.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend
    )
}
