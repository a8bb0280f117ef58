//! Caches, as leaves 2, 4, 8000_0005h, 8000_0006h and 8000_001Dh describe them.

/// What a cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Data = 1,
    Instruction = 2,
    Unified = 3,
}

/// One cache. All have lines of 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cache {
    pub(super) kind: Kind,
    pub(super) level: u32,
    pub(super) ways: u32,
    pub(super) sets: u32,
    /// AMD: lines per tag.
    pub(super) lines_per_tag: u32,
    pub(super) self_init: bool,
    pub(super) no_invd_sharing: bool,
    pub(super) inclusive: bool,
    pub(super) complex_indexing: bool,
}

const LINE: u32 = 64;

const fn cache(kind: Kind, level: u32, ways: u32, sets: u32, lines_per_tag: u32, flags: &str) -> Cache {
    let f = flags.as_bytes();
    Cache {
        kind,
        level,
        ways,
        sets,
        lines_per_tag,
        self_init: f[0] == b's',
        no_invd_sharing: f[1] == b'n',
        inclusive: f[2] == b'i',
        complex_indexing: f[3] == b'c',
    }
}

/// The caches of a core: first-level data and instruction, second level, third level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Caches {
    pub(super) l1d: Cache,
    pub(super) l1i: Cache,
    pub(super) l2: Cache,
    pub(super) l3: Cache,
}

impl Cache {
    fn size(&self) -> u32 {
        LINE * self.ways * self.sets
    }

    /// Leaf 4 (and, but for EDX bit 2, 8000_001Dh): EAX without topology, EBX, ECX, EDX.
    pub(super) fn parameters(&self) -> [u32; 4] {
        let eax = self.kind as u32 | self.level << 5 | u32::from(self.self_init) << 8;
        let ebx = (LINE - 1) | (self.ways - 1) << 22;
        let edx =
            u32::from(self.no_invd_sharing) | u32::from(self.inclusive) << 1 | u32::from(self.complex_indexing) << 2;
        [eax, ebx, self.sets - 1, edx]
    }

    /// Leaf 2's descriptor (SDM table 3-12), FFh where none fits.
    fn descriptor(&self) -> u32 {
        const K: u32 = 1024;
        const M: u32 = 1024 * K;
        match (self.kind, self.level, self.size(), self.ways) {
            (Kind::Data, 1, s, 8) if s == 32 * K => 0x2c,
            (Kind::Instruction, 1, s, 8) if s == 32 * K => 0x30,
            (Kind::Data, 1, s, 6) if s == 24 * K => 0x0e,
            (Kind::Unified, 2, s, 4) if s == 128 * K => 0x41,
            (Kind::Unified, 2, s, 8) if s == 512 * K => 0x80,
            (Kind::Unified, 2, s, 8) if s == M => 0x87,
            (Kind::Unified, 2, s, 8) if s == 2 * M => 0x7d,
            // 2 MiB in 8 ways: leaf 2 has never agreed with leaf 4 about QEMU's default second level.
            (Kind::Unified, 2, s, 16) if s == 4 * M => 0x7d,
            (Kind::Unified, 3, s, 16) if s == 4 * M => 0xd8,
            (Kind::Unified, 3, s, 16) if s == 8 * M => 0x4b,
            (Kind::Unified, 3, s, 16) if s == 16 * M => 0x4d,
            _ => 0xff,
        }
    }

    /// 8000_0005h: size in KiB, ways, lines per tag, line size.
    pub(super) fn amd_l1(&self) -> u32 {
        (self.size() / 1024) << 24 | self.ways << 16 | self.lines_per_tag << 8 | LINE
    }

    /// 8000_0006h: associativity by code (APM volume 3 E.4.4).
    fn amd_ways(&self) -> u32 {
        match self.ways {
            1 => 1,
            2 => 2,
            4 => 4,
            8 => 6,
            16 => 8,
            32 => 10,
            48 => 11,
            64 => 12,
            96 => 13,
            128 => 14,
            _ => 0,
        }
    }

    /// 8000_0006h ECX.
    pub(super) fn amd_l2(&self) -> u32 {
        (self.size() / 1024) << 16 | self.amd_ways() << 12 | self.lines_per_tag << 8 | LINE
    }

    /// 8000_0006h EDX: size in units of 512 KiB.
    pub(super) fn amd_l3(&self) -> u32 {
        (self.size() / (512 * 1024)) << 18 | self.amd_ways() << 12 | self.lines_per_tag << 8 | LINE
    }
}

/// Leaf 2: its registers EAX, EBX, ECX, EDX. `l3`: there is a third level.
pub(super) fn descriptors(caches: &Caches, l3: bool) -> [u32; 4] {
    let l3 = if l3 { caches.l3.descriptor() } else { 0 };
    let first = caches.l1d.descriptor() << 16 | caches.l1i.descriptor() << 8 | caches.l2.descriptor();
    [1, 0, l3, first]
}

use Kind::{Data, Instruction, Unified};

const L3_16M: Cache = cache(Unified, 3, 16, 16384, 1, "s-ic");

/// What Intel's leaves show for models without caches of their own.
pub(super) const LEGACY_INTEL: Caches = Caches {
    l1d: cache(Data, 1, 8, 64, 1, "sn--"),
    l1i: cache(Instruction, 1, 8, 64, 1, "sn--"),
    l2: cache(Unified, 2, 16, 4096, 1, "sn--"),
    l3: L3_16M,
};

/// What AMD's leaves show for models without caches of their own.
pub(super) const LEGACY_AMD: Caches = Caches {
    l1d: cache(Data, 1, 2, 512, 1, "sn--"),
    l1i: cache(Instruction, 1, 2, 512, 1, "sn--"),
    l2: cache(Unified, 2, 16, 512, 1, "----"),
    l3: L3_16M,
};

const EPYC_L1D: Cache = cache(Data, 1, 8, 64, 1, "sn--");
const EPYC_L1I: Cache = cache(Instruction, 1, 8, 64, 1, "sn--");
const EPYC_L2: Cache = cache(Unified, 2, 8, 1024, 1, "----");

/// The caches of the models that have their own. Later versions index the third level simply.
pub(super) fn own(model: &str, version: usize) -> Option<Caches> {
    let l1i_64k = cache(Instruction, 1, 4, 256, 1, "sn--");
    let (l1i, l2, l3_sets, plain_from) = match model {
        "EPYC" => (l1i_64k, EPYC_L2, 8192, 4),
        "Dhyana" => (l1i_64k, EPYC_L2, 8192, usize::MAX),
        "EPYC-Rome" => (EPYC_L1I, EPYC_L2, 16384, 3),
        "EPYC-Milan" => (EPYC_L1I, EPYC_L2, 32768, 2),
        "EPYC-Genoa" => (EPYC_L1I, cache(Unified, 2, 8, 2048, 1, "----"), 32768, 1),
        _ => return None,
    };
    let l3 = Cache { sets: l3_sets, complex_indexing: version < plain_from, ..L3_16M };
    Some(Caches { l1d: EPYC_L1D, l1i, l2, l3 })
}
