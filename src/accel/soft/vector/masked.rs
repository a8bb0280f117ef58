//! Memory accesses element by element: masked moves, EVEX's suppression of faults, gathers and scatters, compressed
//! stores.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::super::cpu::{Cpu, Fault, Flow, Step};
use super::super::op::{Handler, Op};
use super::classify::Class;
use super::stub::Stub;

/// Bytes of an element of the memory operand, if elements whose mask bit is clear are not accessed. 0: all are, or an
/// element in memory is not the element in the register (SDM volume 2, 2.7.5: classes E4NF and others).
pub(super) fn suppressed_element(instruction: &Instruction) -> u8 {
    let memory = (0..instruction.op_count()).find(|operand| instruction.op_kind(*operand) == OpKind::Memory);
    let (Some(place), true) = (memory, instruction.has_op_mask()) else { return 0 };
    let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
    const WHOLE: &[&str] = &[
        "valign",
        "vpalignr",
        "vpack",
        "vpmaddwd",
        "vpmaddub",
        "vdbpsad",
        "vpshuf",
        "vshuf",
        "vunpck",
        "vpunpck",
        "vperm",
        "vpmultishift",
        "vp4",
        "v4f",
        "vgf2p8affine",
        "vpsadbw",
        "vpconflict",
        "vinsert",
        "vcvtne2ps2bf16",
        "vmovddup",
        "vmovsldup",
        "vmovshdup",
        "vpexpand",
        "vexpand",
    ];
    if name == "vpshufbitqmb" {
        // A mask bit stands for a byte, which selects a bit of 64.
        return 1;
    }
    let shift = ["vpsllw", "vpslld", "vpsllq", "vpsrlw", "vpsrld", "vpsrlq", "vpsraw", "vpsrad", "vpsraq"];
    if WHOLE.iter().any(|prefix| name.starts_with(prefix)) || place == 2 && shift.contains(&name.as_str()) {
        return 0;
    }
    if ["vfmaddc", "vfcmaddc", "vfmulc", "vfcmulc"].iter().any(|prefix| name.starts_with(prefix)) {
        // Complex numbers of two FP16.
        return 4;
    }
    if name.starts_with("vpdp") || name.starts_with("vdpbf16") {
        // A mask bit stands for four bytes, or two words, at a time.
        return 4;
    }
    if matches!(name.as_str(), "vpmuldq" | "vpmuludq") {
        // Half of each element is read, and all of it accessed.
        return 8;
    }
    let size = instruction.memory_size();
    u8::try_from(size.element_size()).ok().filter(|element| matches!(element, 1 | 2 | 4 | 8)).unwrap_or(0)
}

/// Whether any element of a stub's operand is accessed.
pub(super) fn is_wanted(cpu: &Cpu, stub: &Stub) -> bool {
    stub.element == 0 || elements(cpu, stub).1 != 0
}

/// Whether a masked store checks all of its operand: those of type E6NF (SDM volume 2, 2.8).
pub(super) fn checks_all(instruction: &Instruction) -> bool {
    format!("{:?}", instruction.mnemonic()).starts_with("Vextract")
}

/// How many times a broadcast repeats what is in memory; 1: it is none.
pub(super) fn repeats(instruction: &Instruction) -> u8 {
    let size = instruction.memory_size();
    let made = if instruction.is_broadcast() {
        // Broadcast512_Float32 and so on: the length of the vector that is made, in bits.
        let name = format!("{size:?}");
        let digits: String =
            name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(512) / 8
    } else if format!("{:?}", instruction.mnemonic()).to_lowercase().contains("broadcast") {
        instruction.op0_register().size()
    } else {
        return 1;
    };
    u8::try_from(made / size.size().max(1)).unwrap_or(64).max(1)
}

/// Number of elements and their mask bits: of an element that is broadcast, any of its copies'.
fn elements(cpu: &Cpu, stub: &Stub) -> (usize, u64) {
    let mask = cpu.vector.k[usize::from(stub.mask & 7)];
    let count = usize::from(stub.size) / usize::from(stub.element.max(1));
    let copies = (0..usize::from(stub.repeats)).map(|copy| mask >> ((copy * count) & 63));
    (count, copies.fold(0, |wanted, bits| wanted | bits & low_bits(count)))
}

fn low_bits(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// Reads what the mask asks for into the scratch slot. All at once if that does not fault; else only the elements that
/// are needed.
pub(super) fn load(cpu: &mut Cpu, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    let (count, mask) = elements(cpu, stub);
    check_small(cpu, mask, stub, number, offset)?;
    load_elements(cpu, number, offset, usize::from(stub.size) / count.max(1), count, mask)
}

/// #AC for an operand of up to eight bytes, if any of it is accessed; wider ones may be anywhere.
fn check_small(cpu: &mut Cpu, mask: u64, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    let size = usize::from(stub.size);
    if mask != 0 && matches!(size, 2 | 4 | 8) { cpu.check_operand_alignment(number, offset, size) } else { Ok(()) }
}

fn load_elements(cpu: &mut Cpu, number: u8, offset: u64, element: usize, count: usize, mask: u64) -> Result<(), Fault> {
    let mut bytes = [0; 64];
    let len = (element * count).min(64);
    if mask != 0 && cpu.read_bytes(number, offset, &mut bytes[..len]).is_err() {
        bytes = [0; 64];
        for i in (0..count).filter(|i| mask >> i & 1 != 0) {
            let place = &mut bytes[i * element..(i + 1) * element];
            cpu.read_bytes(number, offset.wrapping_add((i * element) as u64), place)?;
        }
    }
    cpu.vector.scratch = bytes;
    Ok(())
}

/// Checks that the store of a stub can be done.
pub(super) fn probe(cpu: &mut Cpu, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    if stub.element == 0 {
        return cpu.probe_write(number, offset, u64::from(stub.size));
    }
    let (count, mask) = elements(cpu, stub);
    check_small(cpu, mask, stub, number, offset)?;
    for_runs(mask, usize::from(stub.size) / count.max(1), |at, len| {
        cpu.probe_write(number, offset.wrapping_add(at as u64), len as u64)
    })
}

/// Stores the elements of the scratch slot whose mask bit is set.
pub(super) fn store(cpu: &mut Cpu, stub: &Stub, number: u8, offset: u64) -> Result<(), Fault> {
    let (count, mask) = elements(cpu, stub);
    if stub.checks_all {
        cpu.probe_write(number, offset, u64::from(stub.size))?;
    }
    check_small(cpu, mask, stub, number, offset)?;
    store_elements(cpu, number, offset, usize::from(stub.size) / count.max(1), mask)
}

fn store_elements(cpu: &mut Cpu, number: u8, offset: u64, element: usize, mask: u64) -> Result<(), Fault> {
    let bytes = cpu.vector.scratch;
    for_runs(mask, element, |at, len| cpu.probe_write(number, offset.wrapping_add(at as u64), len as u64))?;
    for_runs(mask, element, |at, len| {
        cpu.write_bytes(number, offset.wrapping_add(at as u64), &bytes[at.min(64)..(at + len).min(64)])
    })
}

/// Calls `access` with offset and length of each run of elements in the mask.
fn for_runs(mask: u64, element: usize, mut access: impl FnMut(usize, usize) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut rest = mask;
    while rest != 0 {
        let first = rest.trailing_zeros();
        let length = (rest >> first).trailing_ones();
        access(first as usize * element, length as usize * element)?;
        rest = if first + length >= 64 { 0 } else { rest & !0 << (first + length) };
    }
    Ok(())
}

/// What executes an instruction of this module.
pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    use Mnemonic as M;
    let stores = instruction.op_kind(0) == OpKind::Memory;
    Some(match instruction.mnemonic() {
        M::Vgatherdps | M::Vgatherdpd | M::Vgatherqps | M::Vgatherqpd => gather,
        M::Vpgatherdd | M::Vpgatherdq | M::Vpgatherqd | M::Vpgatherqq => gather,
        M::Vscatterdps | M::Vscatterdpd | M::Vscatterqps | M::Vscatterqpd => scatter,
        M::Vpscatterdd | M::Vpscatterdq | M::Vpscatterqd | M::Vpscatterqq => scatter,
        M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq if stores => masked_store,
        M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq => masked_load,
        M::Maskmovq => masked_bytes::<MMX>,
        M::Maskmovdqu => masked_bytes::<SSE>,
        M::Vmaskmovdqu => masked_bytes::<AVX>,
        M::Vpcompressb | M::Vpcompressw | M::Vpcompressd | M::Vpcompressq if stores => compress,
        M::Vcompressps | M::Vcompresspd if stores => compress,
        M::Vpexpandb | M::Vpexpandw | M::Vpexpandd | M::Vpexpandq | M::Vexpandps | M::Vexpandpd
            if instruction.op_kind(1) == OpKind::Memory =>
        {
            expand
        }
        _ => return None,
    })
}

/// Where and how wide the elements of a vector index instruction are.
struct Indexed {
    /// Bytes of a data element.
    data: usize,
    /// Bytes of an index.
    index: usize,
    count: usize,
    /// Elements of the mask register of VEX.
    spread: usize,
    /// The index register.
    from: usize,
}

fn indexed(instruction: &Instruction, register: Register) -> Indexed {
    use Mnemonic as M;
    let index = match instruction.mnemonic() {
        M::Vgatherdps | M::Vgatherdpd | M::Vpgatherdd | M::Vpgatherdq => 4,
        M::Vscatterdps | M::Vscatterdpd | M::Vpscatterdd | M::Vpscatterdq => 4,
        _ => 8,
    };
    let data = match instruction.mnemonic() {
        M::Vgatherdps | M::Vgatherqps | M::Vpgatherdd | M::Vpgatherqd => 4,
        M::Vscatterdps | M::Vscatterqps | M::Vpscatterdd | M::Vpscatterqd => 4,
        _ => 8,
    };
    let indices = instruction.memory_index();
    let count = (register.size() / data).min(indices.size() / index);
    let spread = register.size().max(indices.size()) / data;
    Indexed { data, index, count, spread, from: indices.number() & 31 }
}

/// Element `i` of `size` bytes of a register.
fn element(register: &[u64; 8], i: usize, size: usize) -> u64 {
    let bit = i * size * 8;
    let word = register[(bit / 64) & 7] >> (bit % 64);
    if size == 8 { word } else { word & ((1 << (size * 8)) - 1) }
}

fn set_element(register: &mut [u64; 8], i: usize, size: usize, value: u64) {
    let bit = i * size * 8;
    let mask = if size == 8 { u64::MAX } else { ((1 << (size * 8)) - 1) << (bit % 64) };
    let word = &mut register[(bit / 64) & 7];
    *word = *word & !mask | value << (bit % 64) & mask;
}

/// The offset of element `i`.
fn indexed_offset(cpu: &Cpu, op: &Op, indexed: &Indexed, i: usize) -> u64 {
    let raw = element(&cpu.vector.zmm[indexed.from], i, indexed.index);
    let index = if indexed.index == 4 { i64::from(raw as i32) as u64 } else { raw };
    let base = cpu.gpr[usize::from(op.mem.base & 31)];
    let sum = base.wrapping_add(index << (op.mem.scale & 3)).wrapping_add(op.mem.disp);
    sum << (op.mem.cut & 63) >> (op.mem.cut & 63)
}

/// What the vector length does to the rest of a register: bits above it become 0.
fn clear_above(register: &mut [u64; 8], bytes: usize) {
    let bytes = bytes.max(4);
    if bytes == 4 {
        register[0] &= 0xffff_ffff;
    }
    register[bytes.div_ceil(8).min(8)..].fill(0);
}

fn class(instruction: &Instruction) -> Class {
    if instruction.has_op_mask() { Class::Avx512 } else { Class::Avx }
}

/// What a gather of VEX does to its mask before anything else: each element's sign fills it.
fn spread_mask(mask: &mut [u64; 8], indexed: &Indexed) {
    let before = *mask;
    *mask = [0; 8];
    for i in (0..indexed.spread).filter(|i| element(&before, *i, indexed.data) >> (indexed.data * 8 - 1) != 0) {
        set_element(mask, i, indexed.data, u64::MAX >> (64 - indexed.data * 8));
    }
}

/// Elements arrive one by one, lowest first, wherever they are (no #AC); after a fault those before it are there, and their mask bits clear
/// (SDM volume 2, VPGATHERDD).
fn gather(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    let instruction = &cold.instruction;
    let class = class(instruction);
    cpu.check_vector(class)?;
    let to = instruction.op0_register();
    let indexed = indexed(instruction, to);
    let place = to.number() & 31;
    let opmask = instruction.op_mask().number() & 7;
    let vector_mask = if class == Class::Avx { instruction.op2_register().number() & 31 } else { 0 };
    let above = indexed.count * indexed.data;
    if class == Class::Avx {
        spread_mask(&mut cpu.vector.zmm[vector_mask], &indexed);
    }
    for i in 0..indexed.count {
        let wanted = match class {
            Class::Avx512 => cpu.vector.k[opmask] >> i & 1 != 0,
            _ => element(&cpu.vector.zmm[vector_mask], i, indexed.data) >> (indexed.data * 8 - 1) != 0,
        };
        if wanted {
            let offset = indexed_offset(cpu, op, &indexed, i);
            let mut bytes = [0; 8];
            cpu.read_bytes(op.mem.segment, offset, &mut bytes[..indexed.data])?;
            let value = u64::from_le_bytes(bytes);
            set_element(&mut cpu.vector.zmm[place], i, indexed.data, value);
            // Until all are there, bits are kept for as many elements as there could be indices.
            clear_above(&mut cpu.vector.zmm[place], indexed.spread * indexed.data);
        }
        match class {
            Class::Avx512 => cpu.vector.k[opmask] &= !(1 << i),
            _ => set_element(&mut cpu.vector.zmm[vector_mask], i, indexed.data, 0),
        }
    }
    clear_above(&mut cpu.vector.zmm[place], above);
    match class {
        Class::Avx512 => cpu.vector.k[opmask] = 0,
        _ => cpu.vector.zmm[vector_mask] = [0; 8],
    }
    Ok(Flow::Next)
}

/// Elements leave one by one, lowest first; a store that faults leaves its mask bit set.
fn scatter(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    cpu.check_vector(Class::Avx512)?;
    let from = cold.instruction.op1_register();
    let indexed = indexed(&cold.instruction, from);
    let opmask = cold.instruction.op_mask().number() & 7;
    for i in 0..indexed.count {
        if cpu.vector.k[opmask] >> i & 1 != 0 {
            let value = element(&cpu.vector.zmm[from.number() & 31], i, indexed.data);
            let offset = indexed_offset(cpu, op, &indexed, i);
            cpu.write_bytes(op.mem.segment, offset, &value.to_le_bytes()[..indexed.data])?;
        }
        cpu.vector.k[opmask] &= !(1 << i);
    }
    cpu.vector.k[opmask] = 0;
    Ok(Flow::Next)
}

/// The mask in the sign bits of a register's elements.
fn sign_mask(register: &[u64; 8], count: usize, size: usize) -> u64 {
    (0..count).fold(0, |mask, i| mask | (element(register, i, size) >> (size * 8 - 1)) << i)
}

fn masked_element(instruction: &Instruction) -> usize {
    if matches!(instruction.mnemonic(), Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd) { 4 } else { 8 }
}

/// VMASKMOVPS and its like, from memory.
fn masked_load(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    cpu.check_vector(Class::Avx)?;
    let size = masked_element(&cold.instruction);
    let to = cold.instruction.op0_register();
    let count = to.size() / size;
    let mask = sign_mask(&cpu.vector.zmm[cold.instruction.op1_register().number() & 31], count, size);
    let offset = cpu.effective_address(&op.mem);
    load_elements(cpu, op.mem.segment, offset, size, count, mask)?;
    let loaded = scratch_words(cpu);
    let mut result = [0; 8];
    for i in (0..count).filter(|i| mask >> i & 1 != 0) {
        set_element(&mut result, i, size, element(&loaded, i, size));
    }
    cpu.vector.zmm[to.number() & 31] = result;
    Ok(Flow::Next)
}

/// VMASKMOVPS and its like, to memory.
fn masked_store(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    cpu.check_vector(Class::Avx)?;
    let size = masked_element(&cold.instruction);
    let from = cold.instruction.op2_register();
    let mask = sign_mask(&cpu.vector.zmm[cold.instruction.op1_register().number() & 31], from.size() / size, size);
    let offset = cpu.effective_address(&op.mem);
    let value = cpu.vector.zmm[from.number() & 31];
    set_scratch_words(cpu, &value);
    store_elements(cpu, op.mem.segment, offset, size, mask)?;
    Ok(Flow::Next)
}

const MMX: u8 = 0;
const SSE: u8 = 1;
const AVX: u8 = 2;

/// MASKMOVQ and MASKMOVDQU: bytes at DS:rDI by the sign bits of a mask's bytes.
fn masked_bytes<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    if KIND == MMX {
        cpu.sync_x87_if_pending();
    }
    let checked = cpu.check_vector(match KIND {
        MMX => Class::Mmx,
        SSE => Class::Sse,
        _ => Class::Avx,
    });
    if checked.is_err() {
        return super::run::waiting(cpu, checked.map(|()| Flow::Next));
    }
    let cut = match cold.instruction.op_kind(0) {
        OpKind::MemorySegDI => 48,
        OpKind::MemorySegEDI => 32,
        _ => 0,
    };
    let offset = cpu.gpr[7] << cut >> cut;
    let number = u8::try_from(cold.instruction.memory_segment().number()).unwrap_or(3);
    let (from, by) = (cold.instruction.op1_register().number(), cold.instruction.op2_register().number());
    let (value, mask) = if KIND == MMX {
        cpu.sync_x87();
        let mm = |number: usize| {
            let bytes = cpu.vector.x87.register(number);
            [u64::from_le_bytes(std::array::from_fn(|i| bytes[i])), 0, 0, 0, 0, 0, 0, 0]
        };
        (mm(mmx_slot(cpu, from)), sign_mask(&mm(mmx_slot(cpu, by)), 8, 1))
    } else {
        (cpu.vector.zmm[from & 31], sign_mask(&cpu.vector.zmm[by & 31], 16, 1))
    };
    set_scratch_words(cpu, &value);
    store_elements(cpu, number, offset, 1, mask)?;
    if KIND == MMX {
        cpu.vector.enter_mmx();
    }
    Ok(Flow::Next)
}

/// MMX registers are the physical x87 registers; the image holds them relative to TOP.
fn mmx_slot(cpu: &Cpu, number: usize) -> usize {
    (number + 8 - usize::from(cpu.vector.x87.top())) & 7
}

/// Stores the elements of a register whose mask bit is set, one after the other.
fn compress(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    cpu.check_vector(Class::Avx512)?;
    let instruction = &cold.instruction;
    let size = compressed_element(instruction);
    let from = instruction.op1_register();
    let mask = opmask(cpu, instruction, from.size() / size);
    let value = cpu.vector.zmm[from.number() & 31];
    let mut packed = [0; 8];
    let selected = (0..from.size() / size).filter(|i| mask >> i & 1 != 0);
    selected.enumerate().for_each(|(to, i)| set_element(&mut packed, to, size, element(&value, i, size)));
    set_scratch_words(cpu, &packed);
    let offset = cpu.effective_address(&op.mem);
    store_elements(cpu, op.mem.segment, offset, size, low_bits(mask.count_ones() as usize))?;
    Ok(Flow::Next)
}

/// Loads as many elements as there are mask bits, into the places whose bit is set.
fn expand(cpu: &mut Cpu, op: &Op) -> Step {
    let Some(cold) = &op.cold else { return Ok(Flow::Next) };
    cpu.check_vector(Class::Avx512)?;
    let instruction = &cold.instruction;
    let size = compressed_element(instruction);
    let to = instruction.op0_register();
    let count = to.size() / size;
    let mask = opmask(cpu, instruction, count);
    let offset = cpu.effective_address(&op.mem);
    let needed = mask.count_ones() as usize;
    load_elements(cpu, op.mem.segment, offset, size, needed, low_bits(needed))?;
    let loaded = scratch_words(cpu);
    let mut result = if instruction.zeroing_masking() { [0; 8] } else { cpu.vector.zmm[to.number() & 31] };
    for (from, i) in (0..count).filter(|i| mask >> i & 1 != 0).enumerate() {
        set_element(&mut result, i, size, element(&loaded, from, size));
    }
    clear_above(&mut result, to.size());
    cpu.vector.zmm[to.number() & 31] = result;
    Ok(Flow::Next)
}

fn compressed_element(instruction: &Instruction) -> usize {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Vpcompressb | M::Vpexpandb => 1,
        M::Vpcompressw | M::Vpexpandw => 2,
        M::Vpcompressd | M::Vcompressps | M::Vpexpandd | M::Vexpandps => 4,
        _ => 8,
    }
}

/// The mask bits of `count` elements; all without an opmask register.
fn opmask(cpu: &Cpu, instruction: &Instruction, count: usize) -> u64 {
    if !instruction.has_op_mask() {
        return low_bits(count);
    }
    cpu.vector.k[instruction.op_mask().number() & 7] & low_bits(count)
}

fn scratch_words(cpu: &Cpu) -> [u64; 8] {
    let bytes = &cpu.vector.scratch;
    std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|i| bytes[word * 8 + i])))
}

fn set_scratch_words(cpu: &mut Cpu, words: &[u64; 8]) {
    for (to, word) in cpu.vector.scratch.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}
