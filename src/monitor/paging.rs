//! Linear addresses: the guest's page tables (Intel SDM volume 3, chapter 4), for `x`, `memsave`, `info mem` and
//! `info tlb`.

use std::fmt::Write;

use crate::cpu::CpuState;

/// Reads guest physical memory; returns whether all of it could be read.
pub type ReadPhysical<'a> = &'a dyn Fn(u64, &mut [u8]) -> bool;

const CR0_PG: u64 = 1 << 31;
const EFER_LMA: u64 = 1 << 10;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const CACHE_DISABLE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Tables that a listing looks at; a guest can make them refer to each other without end.
const MAX_TABLES: u32 = 1 << 14;
/// Lines of a listing.
const MAX_LINES: usize = 1 << 18;

/// How a CPU translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Off,
    /// 10 + 10 + 12 bits.
    Classic {
        large: bool,
    },
    /// 2 + 9 + 9 + 12 bits.
    Pae,
    /// 9 bits a level, sign extended.
    Long {
        levels: u32,
    },
}

fn mode(state: &CpuState) -> Mode {
    if state.cr0 & CR0_PG == 0 {
        Mode::Off
    } else if state.efer & EFER_LMA != 0 {
        Mode::Long { levels: if state.cr4 & CR4_LA57 != 0 { 5 } else { 4 } }
    } else if state.cr4 & CR4_PAE != 0 {
        Mode::Pae
    } else {
        Mode::Classic { large: state.cr4 & CR4_PSE != 0 }
    }
}

/// The shape of one level of tables.
#[derive(Clone, Copy)]
struct Level {
    /// Lowest bit of the linear address that indexes it.
    shift: u32,
    /// Entries.
    count: u64,
    /// Bytes an entry.
    size: u64,
    /// An entry may map a page itself.
    may_be_large: bool,
}

/// The levels from the root down, and the root's address.
fn levels(mode: Mode, cr3: u64) -> (Vec<Level>, u64) {
    let wide = |shift, may_be_large| Level { shift, count: 512, size: 8, may_be_large };
    match mode {
        Mode::Off => (Vec::new(), 0),
        Mode::Classic { large } => {
            let level = |shift, may_be_large| Level { shift, count: 1024, size: 4, may_be_large };
            (vec![level(22, large), level(12, false)], cr3 & 0xffff_f000)
        }
        Mode::Pae => {
            let root = Level { shift: 30, count: 4, size: 8, may_be_large: false };
            (vec![root, wide(21, true), wide(12, false)], cr3 & 0xffff_ffe0)
        }
        Mode::Long { levels } => {
            let all = [wide(48, false), wide(39, false), wide(30, true), wide(21, true), wide(12, false)];
            (all[5 - levels as usize..].to_vec(), cr3 & ADDRESS)
        }
    }
}

/// Where a large page of a level begins.
fn page_base(entry: u64, level: Level) -> u64 {
    if level.size == 4 && level.shift == 22 {
        // PSE-36: bits 13-20 are address bits 32-39.
        return (entry & 0xffc0_0000) | (entry >> 13 & 0xff) << 32;
    }
    entry & ADDRESS & !((1 << level.shift) - 1)
}

fn entry_at(read: ReadPhysical<'_>, address: u64, size: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    read(address, &mut bytes[..if size == 4 { 4 } else { 8 }]).then(|| u64::from_le_bytes(bytes))
}

/// The physical address behind a linear one, if there is any.
#[must_use]
pub fn translate(state: &CpuState, read: ReadPhysical<'_>, gva: u64) -> Option<u64> {
    let mode = mode(state);
    if mode == Mode::Off {
        return Some(gva);
    }
    let (levels, mut table) = levels(mode, state.cr3);
    let gva = if let Mode::Long { levels } = mode {
        let unused = 64 - 12 - 9 * levels;
        let canonical = (gva << unused).cast_signed() >> unused;
        if canonical.cast_unsigned() != gva {
            return None;
        }
        gva
    } else {
        gva & 0xffff_ffff
    };
    for level in levels {
        let index = gva >> level.shift & (level.count - 1);
        let entry = entry_at(read, table + index * level.size, level.size)?;
        if entry & PRESENT == 0 {
            return None;
        }
        let offset = gva & ((1 << level.shift) - 1);
        if level.shift == 12 {
            return Some((entry & ADDRESS) + offset);
        }
        if level.may_be_large && entry & LARGE != 0 {
            return Some(page_base(entry, level) + offset);
        }
        table = entry & ADDRESS;
    }
    None
}

/// Reads linear memory. Returns whether all of it is mapped.
pub fn read_linear(state: &CpuState, read: ReadPhysical<'_>, gva: u64, buf: &mut [u8]) -> bool {
    let mut done = 0;
    while done < buf.len() {
        let at = gva.wrapping_add(done as u64);
        let in_page = usize::try_from(0x1000 - (at & 0xfff)).unwrap_or(1).min(buf.len() - done);
        let Some(gpa) = translate(state, read, at) else { return false };
        if !read(gpa, &mut buf[done..done + in_page]) {
            return false;
        }
        done += in_page;
    }
    true
}

/// A page or a large page, as the walk finds it.
struct Leaf {
    gva: u64,
    gpa: u64,
    len: u64,
    entry: u64,
    /// Writable and user, in all levels together.
    rights: u64,
}

struct Walk<'a> {
    read: ReadPhysical<'a>,
    levels: Vec<Level>,
    tables_left: u32,
    sign_bits: u32,
}

impl Walk<'_> {
    /// Calls `visit` for every leaf in order of addresses, until it says stop. `false`: stopped.
    fn tables(&mut self, depth: usize, table: u64, gva: u64, rights: u64, visit: &mut dyn FnMut(Leaf) -> bool) -> bool {
        let Some(&level) = self.levels.get(depth) else { return true };
        let Some(left) = self.tables_left.checked_sub(1) else { return false };
        self.tables_left = left;
        let mut bytes = vec![0; usize::try_from(level.count * level.size).unwrap_or(0)];
        if !(self.read)(table, &mut bytes) {
            return true;
        }
        for (index, entry) in bytes.chunks_exact(if level.size == 4 { 4 } else { 8 }).enumerate() {
            let mut wide = [0; 8];
            wide[..entry.len()].copy_from_slice(entry);
            let entry = u64::from_le_bytes(wide);
            if entry & PRESENT == 0 {
                continue;
            }
            let gva = self.extend(gva | (index as u64) << level.shift);
            // PDPTEs of PAE paging have no rights of their own.
            let own = if level.count == 4 { WRITABLE | USER } else { entry };
            let rights = rights & own;
            let large = level.may_be_large && entry & LARGE != 0;
            let go_on = if level.shift == 12 || large {
                let gpa = if large { page_base(entry, level) } else { entry & ADDRESS };
                visit(Leaf { gva, gpa, len: 1 << level.shift, entry, rights })
            } else {
                self.tables(depth + 1, entry & ADDRESS, gva, rights, visit)
            };
            if !go_on {
                return false;
            }
        }
        true
    }

    fn extend(&self, gva: u64) -> u64 {
        ((gva << self.sign_bits).cast_signed() >> self.sign_bits).cast_unsigned()
    }
}

/// Walks all tables; `false` if there is too much to show.
fn walk(state: &CpuState, read: ReadPhysical<'_>, visit: &mut dyn FnMut(Leaf) -> bool) -> bool {
    let mode = mode(state);
    let (levels, root) = levels(mode, state.cr3);
    let sign_bits = match mode {
        Mode::Long { levels } => 64 - 12 - 9 * levels,
        _ => 0,
    };
    Walk { read, levels, tables_left: MAX_TABLES, sign_bits }.tables(0, root, 0, WRITABLE | USER, visit)
}

const TOO_MUCH: &str = "(further mappings are not shown)\n";

/// The text of `info tlb`.
#[must_use]
pub fn tlb_text(state: &CpuState, read: ReadPhysical<'_>) -> String {
    if mode(state) == Mode::Off {
        return "PG disabled\n".to_owned();
    }
    let mut out = String::new();
    let mut lines = 0;
    let complete = walk(state, read, &mut |leaf| {
        let flags: String = [
            (NO_EXECUTE, 'X'),
            (GLOBAL, 'G'),
            (LARGE, 'P'),
            (DIRTY, 'D'),
            (ACCESSED, 'A'),
            (CACHE_DISABLE, 'C'),
            (WRITE_THROUGH, 'T'),
            (USER, 'U'),
            (WRITABLE, 'W'),
        ]
        .into_iter()
        .map(|(bit, letter)| if leaf.entry & bit != 0 { letter } else { '-' })
        .collect();
        let _ = writeln!(out, "{:016x}: {:016x} {flags}", leaf.gva, leaf.gpa);
        lines += 1;
        lines < MAX_LINES
    });
    if !complete {
        out.push_str(TOO_MUCH);
    }
    out
}

/// The text of `info mem`: runs of pages with equal rights.
#[must_use]
pub fn mem_text(state: &CpuState, read: ReadPhysical<'_>) -> String {
    if mode(state) == Mode::Off {
        return "PG disabled\n".to_owned();
    }
    let mut out = String::new();
    let mut lines = 0;
    let mut run: Option<(u64, u64, u64)> = None;
    let mut print = |start: u64, end: u64, rights: u64| {
        let letter = |bit, letter| if rights & bit != 0 { letter } else { '-' };
        let (user, write) = (letter(USER, 'u'), letter(WRITABLE, 'w'));
        let _ = writeln!(out, "{start:016x}-{end:016x} {:016x} {user}r{write}", end.wrapping_sub(start));
        lines += 1;
        lines < MAX_LINES
    };
    let mut complete = walk(state, read, &mut |leaf| {
        let end = leaf.gva.wrapping_add(leaf.len);
        match &mut run {
            Some((_, last, rights)) if *last == leaf.gva && *rights == leaf.rights => {
                *last = end;
                true
            }
            _ => {
                let old = run.replace((leaf.gva, end, leaf.rights));
                old.is_none_or(|(start, end, rights)| print(start, end, rights))
            }
        }
    });
    if complete && let Some((start, end, rights)) = run {
        complete = print(start, end, rights);
    }
    if !complete {
        out.push_str(TOO_MUCH);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Physical memory of which only some quad words are not zero.
    struct Memory(HashMap<u64, u64>);

    impl Memory {
        fn read(&self, gpa: u64, buf: &mut [u8]) -> bool {
            for (i, byte) in buf.iter_mut().enumerate() {
                let at = gpa + i as u64;
                let word = self.0.get(&(at & !7)).copied().unwrap_or(0);
                *byte = word.to_le_bytes()[usize::try_from(at & 7).unwrap()];
            }
            gpa < 1 << 40
        }
    }

    fn long(entries: &[(u64, u64)]) -> (CpuState, Memory) {
        let state = CpuState { cr0: CR0_PG | 1, cr3: 0x1000, cr4: CR4_PAE, efer: 0x500, ..CpuState::default() };
        (state, Memory(entries.iter().copied().collect()))
    }

    #[test]
    fn without_paging_addresses_are_physical() {
        let (mut state, memory) = long(&[]);
        state.cr0 = 1;
        let read = |gpa: u64, buf: &mut [u8]| memory.read(gpa, buf);
        assert_eq!(translate(&state, &read, 0x1234), Some(0x1234));
        assert_eq!(tlb_text(&state, &read), "PG disabled\n");
        assert_eq!(mem_text(&state, &read), "PG disabled\n");
    }

    #[test]
    fn large_pages_of_long_mode_look_as_in_qemu() {
        let (state, memory) = long(&[(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0xe3), (0x3008, 0x20_0083)]);
        let read = |gpa: u64, buf: &mut [u8]| memory.read(gpa, buf);
        assert_eq!(translate(&state, &read, 0x20_1234), Some(0x20_1234));
        assert_eq!(translate(&state, &read, 0x40_0000), None);
        assert_eq!(translate(&state, &read, 0x2000_0000_0000_0000), None);
        assert_eq!(
            tlb_text(&state, &read),
            "0000000000000000: 0000000000000000 --PDA---W\n0000000000200000: 0000000000200000 --P-----W\n"
        );
        assert_eq!(mem_text(&state, &read), "0000000000000000-0000000000400000 0000000000400000 -rw\n");
    }

    #[test]
    fn the_upper_half_is_sign_extended_and_rights_are_those_of_all_levels() {
        let (state, memory) =
            long(&[(0x1ff8, 0x2007), (0x2ff8, 0x3005), (0x3ff8, 0x4007), (0x4ff8, 0x8000_0000_0000_5107)]);
        let read = |gpa: u64, buf: &mut [u8]| memory.read(gpa, buf);
        assert_eq!(translate(&state, &read, u64::MAX), Some(0x5fff));
        assert_eq!(tlb_text(&state, &read), "fffffffffffff000: 0000000000005000 XG-----UW\n");
        assert_eq!(mem_text(&state, &read), "fffffffffffff000-0000000000000000 0000000000001000 ur-\n");
    }

    #[test]
    fn classic_paging_has_four_megabyte_pages() {
        let mut entries = HashMap::new();
        entries.insert(0x1000, 0x0080_0083 | 0x2007 << 32);
        entries.insert(0x2008, 0x7007);
        let state = CpuState { cr0: CR0_PG | 1, cr3: 0x1000, cr4: CR4_PSE, ..CpuState::default() };
        let memory = Memory(entries);
        let read = |gpa: u64, buf: &mut [u8]| memory.read(gpa, buf);
        assert_eq!(translate(&state, &read, 0x12_3456), Some(0x92_3456));
        assert_eq!(translate(&state, &read, 0x40_2abc), Some(0x7abc));
        assert_eq!(translate(&state, &read, 0x40_1abc), None);
    }

    #[test]
    fn tables_that_refer_to_themselves_end() {
        let (state, _) = long(&[]);
        let read = |_: u64, buf: &mut [u8]| {
            buf.chunks_exact_mut(8).for_each(|entry| entry.copy_from_slice(&0x1003u64.to_le_bytes()));
            true
        };
        assert!(tlb_text(&state, &read).ends_with(TOO_MUCH));
        assert!(mem_text(&state, &read).ends_with(TOO_MUCH));
    }
}
