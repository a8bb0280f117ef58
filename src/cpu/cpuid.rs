//! The CPUID table of a processor (Intel SDM volume 2 CPUID; AMD APM volume 3 appendix E; Linux
//! `Documentation/virt/kvm/x86/cpuid.rst`).

use super::cache::{self, Caches};
use super::features::{Feature, KVM_FEATURES, Place, Reg};
use super::model::{AMD_ALIASES, CpuidLeaf};
use super::resolve::CpuModel;

/// Leaf 1 EDX: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// The TLBs of leaves 8000_0005h and 8000_0006h.
const AMD_L1_TLB: u32 = 0x01ff_01ff;
const AMD_L2_TLB: u32 = 0x4200_4200;

/// Builds a table row by row.
struct Table<'a> {
    cpu: &'a CpuModel,
    apic_id: u32,
    tsc_khz: u32,
    rows: Vec<CpuidLeaf>,
}

/// The local APIC timer's clock under KVM, in kHz.
const APIC_BUS_KHZ: u32 = 1_000_000;

/// The table of logical processor `index` of `cpu`, whose time stamp counter runs at `tsc_khz` (0: unknown).
pub(super) fn table(cpu: &CpuModel, index: u32, tsc_khz: u32) -> Vec<CpuidLeaf> {
    let mut table = Table { cpu, apic_id: cpu.apic_id(index), tsc_khz, rows: Vec::with_capacity(48) };
    table.hypervisor();
    table.basic();
    table.extended();
    table.centaur();
    table.rows
}

/// Twelve letters as leaf 0 has them: EBX, EDX, ECX.
fn vendor_words(vendor: &[u8; 12]) -> [u32; 3] {
    let word = |at: usize| u32::from_le_bytes([vendor[at], vendor[at + 1], vendor[at + 2], vendor[at + 3]]);
    [word(0), word(4), word(8)]
}

impl Table<'_> {
    fn push(&mut self, function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]) {
        self.rows.push(CpuidLeaf { function, index, eax, ebx, ecx, edx });
    }

    /// A leaf without subleaves; one that is all zero is what a missing one reads as.
    fn plain(&mut self, function: u32, registers: [u32; 4]) {
        if registers != [0; 4] {
            self.push(function, None, registers);
        }
    }

    fn bits(&self, function: u32, reg: Reg) -> u32 {
        self.cpu.features.bits(Place::leaf(function, reg))
    }

    fn sub_bits(&self, function: u32, index: u32, reg: Reg) -> u32 {
        self.cpu.features.bits(Place::subleaf(function, index, reg))
    }

    fn has(&self, name: &str) -> bool {
        self.cpu.features.has(name)
    }

    /// KVM's signature and features.
    fn hypervisor(&mut self) {
        if !self.cpu.kvm {
            return;
        }
        let [ebx, ecx, edx] = vendor_words(b"KVMKVMKVM\0\0\0");
        let tells_frequency = self.tsc_khz != 0 && self.cpu.tells_frequency();
        let last = if tells_frequency { 0x4000_0010 } else { 0x4000_0001 };
        self.push(0x4000_0000, None, [last, ebx, ecx, edx]);
        let hints = self.bits(0x4000_0001, Reg::Edx);
        self.push(0x4000_0001, None, [self.cpu.features.bits(KVM_FEATURES), 0, 0, hints]);
        if tells_frequency {
            self.push(0x4000_0010, None, [self.tsc_khz, APIC_BUS_KHZ, 0, 0]);
        }
    }

    fn basic(&mut self) {
        let level = self.cpu.level;
        let [ebx, edx, ecx] = vendor_words(&self.cpu.vendor);
        self.plain(0, [level, ebx, ecx, edx]);
        for function in 1..=level {
            match function {
                1 => self.version(),
                2 => self.cache_descriptors(),
                4 => self.cache_parameters(),
                // MONITOR/MWAIT: nothing but "interrupts break it" and "extensions are listed".
                5 => self.plain(5, [0, 0, 3, 0]),
                6 => self.plain(6, [self.bits(6, Reg::Eax), 0, 0, 0]),
                7 => self.structured_features(),
                0xa => self.performance_monitoring(),
                0xb => self.topology(0xb),
                0xd => self.xsave(),
                0x12 => self.sgx(),
                0x14 => self.passed_through(0x14, "intel-pt"),
                0x1d | 0x1e => self.tiles(function),
                0x1f if self.cpu.topology.dies > 1 || self.cpu.topology.modules > 1 => self.topology(0x1f),
                0x24 => self.avx10(),
                _ => {}
            }
        }
    }

    /// Leaf 1.
    fn version(&mut self) {
        let threads = self.cpu.topology.threads_per_socket();
        let mut ebx = self.apic_id << 24 | 8 << 8;
        let mut edx = self.bits(1, Reg::Edx);
        if threads > 1 {
            ebx |= threads.min(255) << 16;
            edx |= HTT;
        }
        self.plain(1, [self.cpu.signature(), ebx, self.bits(1, Reg::Ecx), edx]);
    }

    fn cache_descriptors(&mut self) {
        if !self.cpu.is_amd() {
            self.plain(2, cache::descriptors(&self.cpu.intel_caches(), self.cpu.l3_cache));
        }
    }

    /// A cache level's number of threads minus one, from the number of APIC id bits below what shares it.
    fn sharing(shift: u32) -> u32 {
        (1 << shift.min(12)) - 1
    }

    /// The caches with the number of APIC id bits that share each.
    fn shared_caches(&self, caches: &Caches) -> Vec<(cache::Cache, u32)> {
        let topology = &self.cpu.topology;
        let core = topology.core_shift();
        let mut list = vec![(caches.l1d, core), (caches.l1i, core), (caches.l2, core)];
        if self.cpu.l3_cache {
            list.push((caches.l3, topology.die_shift()));
        }
        list
    }

    /// Leaf 4.
    fn cache_parameters(&mut self) {
        let topology = self.cpu.topology;
        let list = if self.cpu.is_amd() { Vec::new() } else { self.shared_caches(&self.cpu.intel_caches()) };
        let cores = Self::sharing(topology.socket_shift() - topology.core_shift()).min(63);
        for (index, (cache, shift)) in (0..).zip(&list) {
            let [eax, ebx, ecx, edx] = cache.parameters();
            self.push(4, Some(index), [eax | Self::sharing(*shift) << 14 | cores << 26, ebx, ecx, edx]);
        }
        self.push(4, Some(u32::try_from(list.len()).unwrap_or(0)), [0; 4]);
    }

    /// Leaf 7.
    fn structured_features(&mut self) {
        let last = self.cpu.level_7;
        let registers =
            [last, self.sub_bits(7, 0, Reg::Ebx), self.sub_bits(7, 0, Reg::Ecx), self.sub_bits(7, 0, Reg::Edx)];
        self.push(7, Some(0), registers);
        if last >= 1 {
            self.push(7, Some(1), [self.sub_bits(7, 1, Reg::Eax), 0, 0, self.sub_bits(7, 1, Reg::Edx)]);
        }
        if last >= 2 {
            self.push(7, Some(2), [0, 0, 0, self.sub_bits(7, 2, Reg::Edx)]);
        }
    }

    fn performance_monitoring(&mut self) {
        if let Some(leaf) = self.cpu.pmu {
            self.plain(0xa, [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        }
    }

    /// Leaf Bh, or 1Fh with modules and dies.
    fn topology(&mut self, function: u32) {
        const SMT: u32 = 1;
        const CORE: u32 = 2;
        const MODULE: u32 = 3;
        const DIE: u32 = 5;
        if !self.cpu.leaf_b && function == 0xb {
            self.push(function, Some(0), [0; 4]);
            return;
        }
        let t = self.cpu.topology;
        let whole = (t.socket_shift(), t.threads_per_socket());
        let mut levels = vec![(SMT, t.core_shift(), t.threads)];
        if function == 0xb {
            levels.push((CORE, whole.0, whole.1));
        } else {
            levels.push((CORE, t.module_shift(), t.threads * t.cores));
            if t.modules > 1 {
                levels.push((MODULE, t.die_shift(), t.threads * t.cores * t.modules));
            }
            if t.dies > 1 {
                levels.push((DIE, whole.0, whole.1));
            }
        }
        for (index, (kind, shift, threads)) in (0..).zip(&levels) {
            self.push(function, Some(index), [*shift, *threads & 0xffff, kind << 8 | index, self.apic_id]);
        }
        let end = u32::try_from(levels.len()).unwrap_or(0);
        self.push(function, Some(end), [0, 0, end, self.apic_id]);
    }

    /// Leaf Dh. Offsets and sizes of components are the hardware's, which KVM tells; otherwise the usual ones.
    fn xsave(&mut self) {
        if !self.has("xsave") {
            return;
        }
        let components = self.cpu.xsave_components();
        let mask = components.iter().fold(3u64, |mask, c| mask | 1 << c.number);
        let size = components.iter().map(|c| c.offset + c.size).max().unwrap_or(0).max(0x240);
        self.push(0xd, Some(0), [mask as u32, size, size, (mask >> 32) as u32]);
        let compact = components.iter().fold(0x240u32, |at, c| {
            let at = if c.flags & 2 != 0 { at.next_multiple_of(64) } else { at };
            at + c.size
        });
        let features = self.sub_bits(0xd, 1, Reg::Eax);
        // XSAVEC or XSAVES: the compacted size.
        let compact = if features & 0xa != 0 { compact } else { 0 };
        if features != 0 {
            self.push(0xd, Some(1), [features, compact, 0, 0]);
        }
        for c in components {
            self.push(0xd, Some(c.number), [c.size, c.offset, c.flags, 0]);
        }
    }

    /// SGX is not available; its leaf is all zero.
    fn sgx(&mut self) {
        (0..3).for_each(|index| self.push(0x12, Some(index), [0; 4]));
    }

    /// A leaf whose content is the hardware's, where the guest has `feature`.
    fn passed_through(&mut self, function: u32, feature: &str) {
        let rows: Vec<_> = match (&self.cpu.passed, self.has(feature)) {
            (rows, true) => rows.iter().filter(|row| row.function == function).copied().collect(),
            _ => Vec::new(),
        };
        if rows.is_empty() {
            self.push(function, Some(0), [0; 4]);
        }
        self.rows.extend(rows);
    }

    /// Leaves 1Dh and 1Eh: AMX's one palette, 8 tiles of 16 rows with 64 bytes.
    fn tiles(&mut self, function: u32) {
        match (function, self.has("amx-tile")) {
            (0x1d, true) => {
                self.push(0x1d, Some(0), [1, 0, 0, 0]);
                self.push(0x1d, Some(1), [0x0400_2000, 0x0008_0040, 16, 0]);
            }
            (0x1e, true) => self.push(0x1e, Some(0), [0, 0x4010, 0, 0]),
            _ => self.push(function, Some(0), [0; 4]),
        }
    }

    fn avx10(&mut self) {
        let has = self.has("avx10");
        let ebx = if has { self.sub_bits(0x24, 0, Reg::Ebx) | self.cpu.avx10_version } else { 0 };
        self.push(0x24, Some(0), [0, ebx, 0, 0]);
    }

    fn extended(&mut self) {
        let level = self.cpu.xlevel;
        if level < 0x8000_0000 {
            return;
        }
        let [ebx, edx, ecx] = vendor_words(&self.cpu.vendor);
        self.plain(0x8000_0000, [level, ebx, ecx, edx]);
        for function in 0x8000_0001..=level {
            match function {
                0x8000_0001 => self.extended_features(),
                0x8000_0002..=0x8000_0004 => self.brand(function),
                0x8000_0005 => self.amd_l1(),
                0x8000_0006 => self.amd_l2(),
                0x8000_0007 => {
                    let registers = [0, self.bits(0x8000_0007, Reg::Ebx), 0, self.bits(0x8000_0007, Reg::Edx)];
                    self.plain(function, registers);
                }
                0x8000_0008 => self.address_sizes(),
                // Revision 1, 16 address space identifiers.
                0x8000_000a if self.has("svm") => {
                    self.plain(function, [1, 0x10, 0, self.bits(0x8000_000a, Reg::Edx)]);
                }
                0x8000_001d => self.amd_cache_parameters(),
                0x8000_001e => self.amd_topology(),
                0x8000_0021 | 0x8000_0022 => self.plain(function, [self.bits(function, Reg::Eax), 0, 0, 0]),
                _ => {}
            }
        }
    }

    fn extended_features(&mut self) {
        let ecx = self.bits(0x8000_0001, Reg::Ecx);
        let mut edx = self.bits(0x8000_0001, Reg::Edx);
        if self.cpu.is_amd() {
            edx |= self.bits(1, Reg::Edx) & AMD_ALIASES;
        }
        self.plain(0x8000_0001, [self.cpu.signature(), 0, ecx, edx]);
    }

    fn brand(&mut self, function: u32) {
        let start = (function - 0x8000_0002) as usize * 16;
        let word = |at: usize| {
            let bytes: [u8; 4] = std::array::from_fn(|i| self.cpu.brand[start + at + i]);
            u32::from_le_bytes(bytes)
        };
        self.plain(function, [word(0), word(4), word(8), word(12)]);
    }

    fn amd_l1(&mut self) {
        let caches = self.cpu.amd_caches();
        self.plain(0x8000_0005, [AMD_L1_TLB, AMD_L1_TLB, caches.l1d.amd_l1(), caches.l1i.amd_l1()]);
    }

    fn amd_l2(&mut self) {
        let caches = self.cpu.amd_caches();
        let l3 = if self.cpu.l3_cache { caches.l3.amd_l3() } else { 0 };
        self.plain(0x8000_0006, [0, AMD_L2_TLB, caches.l2.amd_l2(), l3]);
    }

    fn address_sizes(&mut self) {
        let linear = if self.has("la57") { 57 } else { 48 };
        let eax = if self.has("lm") { linear << 8 | self.cpu.phys_bits } else { self.cpu.phys_bits };
        let topology = &self.cpu.topology;
        let threads = topology.threads_per_socket();
        let ecx = if threads > 1 { topology.socket_shift() << 12 | (threads - 1) & 0xff } else { 0 };
        self.plain(0x8000_0008, [eax, self.bits(0x8000_0008, Reg::Ebx), ecx, 0]);
    }

    /// Leaf 8000_001Dh: as leaf 4, without the number of cores and the indexing bit.
    fn amd_cache_parameters(&mut self) {
        let list = self.shared_caches(&self.cpu.amd_caches());
        for (index, (cache, shift)) in (0..).zip(&list) {
            let [eax, ebx, ecx, edx] = cache.parameters();
            self.push(0x8000_001d, Some(index), [eax | Self::sharing(*shift) << 14, ebx, ecx, edx & 3]);
        }
        self.push(0x8000_001d, Some(u32::try_from(list.len()).unwrap_or(0)), [0; 4]);
    }

    /// Leaf 8000_001Eh: APIC id, core id and threads a core, node id and nodes a socket.
    fn amd_topology(&mut self) {
        let t = self.cpu.topology;
        let below_socket = self.apic_id & Self::sharing(t.socket_shift());
        let core = (below_socket & Self::sharing(t.die_shift())) >> t.core_shift();
        let die = below_socket >> t.die_shift();
        let registers = [self.apic_id, (t.threads - 1) << 8 | core & 0xff, (t.dies - 1) << 8 | die & 0xff, 0];
        self.plain(0x8000_001e, registers);
    }

    fn centaur(&mut self) {
        if self.cpu.xlevel2 >= 0xc000_0000 {
            self.plain(0xc000_0000, [self.cpu.xlevel2, 0, 0, 0]);
            self.plain(0xc000_0001, [self.cpu.signature(), 0, 0, self.bits(0xc000_0001, Reg::Edx)]);
        }
    }
}

/// One part of the XSAVE area beyond x87 and SSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Component {
    /// Bit of XCR0.
    pub(super) number: u32,
    pub(super) size: u32,
    pub(super) offset: u32,
    /// ECX of its subleaf: bit 1 is alignment in the compacted form.
    pub(super) flags: u32,
    /// The feature that needs it.
    pub(super) feature: &'static str,
}

const fn component(number: u32, size: u32, offset: u32, flags: u32, feature: &'static str) -> Component {
    Component { number, size, offset, flags, feature }
}

/// The parts, where no hardware says otherwise (SDM volume 1 section 13.4).
pub(super) const COMPONENTS: [Component; 9] = [
    component(2, 0x100, 0x240, 0, "avx"),
    component(3, 0x40, 0x3c0, 0, "mpx"),
    component(4, 0x40, 0x400, 0, "mpx"),
    component(5, 0x40, 0x440, 0, "avx512f"),
    component(6, 0x200, 0x480, 0, "avx512f"),
    component(7, 0x400, 0x680, 0, "avx512f"),
    component(9, 8, 0xa80, 0, "pku"),
    component(17, 0x40, 0xac0, 2, "amx-tile"),
    component(18, 0x2000, 0xb00, 6, "amx-tile"),
];

/// The highest basic and extended leaf that the features of a processor need.
pub(super) fn needed_levels(cpu: &CpuModel) -> (u32, u32, u32) {
    let (mut level, mut level_7, mut xlevel) = (0, 0, 0);
    for feature in cpu.features.iter() {
        let Some(Place::Leaf { function, index, .. }) = Feature::place(feature) else { continue };
        match function {
            0x8000_0000.. => {
                if function < 0xc000_0000 {
                    xlevel = xlevel.max(function);
                }
            }
            0x4000_0000.. => {}
            // Intel PT and AVX10 say by a bit of leaf 7 that their leaf is there.
            0x14 | 0x24 | 0x12 => {}
            function => level = level.max(function),
        }
        if function == 7 {
            level_7 = level_7.max(index.unwrap_or(0));
        }
    }
    if cpu.features.has("xsave") && cpu.features.bits(Place::subleaf(0xd, 1, Reg::Eax)) != 0 {
        level = level.max(0xd);
    }
    for (feature, leaf) in [("intel-pt", 0x14), ("sgx", 0x12), ("avx10", 0x24)] {
        if cpu.features.has(feature) {
            level = level.max(leaf);
        }
    }
    if cpu.topology.dies > 1 || cpu.topology.modules > 1 {
        level = level.max(0x1f);
    }
    if cpu.features.has("svm") {
        xlevel = xlevel.max(0x8000_000a);
    }
    (level, level_7, xlevel)
}
