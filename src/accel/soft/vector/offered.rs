//! Which instructions the guest's CPUID shows, and what the software CPU can show.
//!
//! An instruction of an extension that CPUID does not show is #UD, or decodes as what it was before the extension
//! ([`decoder_options`]).

use std::sync::OnceLock;

use iced_x86::{Code, CpuidFeature, DecoderOptions, Instruction};

use crate::cpu::{CpuModel, Feature, FeatureSet};

use super::host::{self, Width};

/// What an extension of the instruction set needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needs {
    /// Every processor that we model has it, or executes its encodings as NOPs.
    Nothing,
    /// No processor that we model has it.
    More,
    /// One feature.
    One(Feature),
    /// One of two.
    Either(Feature, Feature),
}

/// One more than the highest [`CpuidFeature`].
const COUNT: usize = 256;

/// Extensions with the CPUID features that announce them (`a|b`: either). What is not here, no processor has.
const NAMES: &[(CpuidFeature, &str)] = &[
    (CpuidFeature::CMOV, "cmov"),
    (CpuidFeature::CX8, "cx8"),
    (CpuidFeature::CMPXCHG16B, "cx16"),
    (CpuidFeature::CLFSH, "clflush"),
    (CpuidFeature::CLFLUSHOPT, "clflushopt"),
    (CpuidFeature::CLWB, "clwb"),
    (CpuidFeature::CLZERO, "clzero"),
    (CpuidFeature::FPU, "fpu"),
    (CpuidFeature::FPU287, "fpu"),
    (CpuidFeature::FPU387, "fpu"),
    (CpuidFeature::MMX, "mmx"),
    (CpuidFeature::D3NOW, "3dnow"),
    (CpuidFeature::D3NOWEXT, "3dnowext"),
    (CpuidFeature::FXSR, "fxsr"),
    (CpuidFeature::SSE, "sse"),
    (CpuidFeature::SSE2, "sse2"),
    (CpuidFeature::SSE3, "pni"),
    (CpuidFeature::SSSE3, "ssse3"),
    (CpuidFeature::SSE4_1, "sse4.1"),
    (CpuidFeature::SSE4_2, "sse4.2"),
    (CpuidFeature::SSE4A, "sse4a"),
    (CpuidFeature::AES, "aes"),
    (CpuidFeature::PCLMULQDQ, "pclmulqdq"),
    (CpuidFeature::SHA, "sha-ni"),
    (CpuidFeature::GFNI, "gfni"),
    (CpuidFeature::AVX, "avx"),
    (CpuidFeature::AVX2, "avx2"),
    (CpuidFeature::FMA, "fma"),
    (CpuidFeature::FMA4, "fma4"),
    (CpuidFeature::XOP, "xop"),
    (CpuidFeature::TBM, "tbm"),
    (CpuidFeature::LWP, "lwp"),
    (CpuidFeature::F16C, "f16c"),
    (CpuidFeature::VAES, "vaes"),
    (CpuidFeature::VPCLMULQDQ, "vpclmulqdq"),
    (CpuidFeature::SHA512, "sha512"),
    (CpuidFeature::SM3, "sm3"),
    (CpuidFeature::SM4, "sm4"),
    (CpuidFeature::AVX_VNNI, "avx-vnni"),
    (CpuidFeature::AVX_IFMA, "avx-ifma"),
    (CpuidFeature::AVX_NE_CONVERT, "avx-ne-convert"),
    (CpuidFeature::AVX_VNNI_INT8, "avx-vnni-int8"),
    (CpuidFeature::AVX_VNNI_INT16, "avx-vnni-int16"),
    (CpuidFeature::AVX512F, "avx512f"),
    (CpuidFeature::AVX512VL, "avx512vl"),
    (CpuidFeature::AVX512BW, "avx512bw"),
    (CpuidFeature::AVX512CD, "avx512cd"),
    (CpuidFeature::AVX512DQ, "avx512dq"),
    (CpuidFeature::AVX512ER, "avx512er"),
    (CpuidFeature::AVX512PF, "avx512pf"),
    (CpuidFeature::AVX512_4FMAPS, "avx512-4fmaps"),
    (CpuidFeature::AVX512_4VNNIW, "avx512-4vnniw"),
    (CpuidFeature::AVX512_BF16, "avx512-bf16"),
    (CpuidFeature::AVX512_BITALG, "avx512bitalg"),
    (CpuidFeature::AVX512_FP16, "avx512-fp16"),
    (CpuidFeature::AVX512_IFMA, "avx512ifma"),
    (CpuidFeature::AVX512_VBMI, "avx512vbmi"),
    (CpuidFeature::AVX512_VBMI2, "avx512vbmi2"),
    (CpuidFeature::AVX512_VNNI, "avx512vnni"),
    (CpuidFeature::AVX512_VP2INTERSECT, "avx512-vp2intersect"),
    (CpuidFeature::AVX512_VPOPCNTDQ, "avx512-vpopcntdq"),
    (CpuidFeature::AMX_TILE, "amx-tile"),
    (CpuidFeature::AMX_BF16, "amx-bf16"),
    (CpuidFeature::AMX_INT8, "amx-int8"),
    (CpuidFeature::AMX_FP16, "amx-fp16"),
    (CpuidFeature::AMX_COMPLEX, "amx-complex"),
    (CpuidFeature::ADX, "adx"),
    (CpuidFeature::BMI1, "bmi1"),
    (CpuidFeature::BMI2, "bmi2"),
    (CpuidFeature::LZCNT, "abm"),
    (CpuidFeature::POPCNT, "popcnt|abm"),
    (CpuidFeature::MOVBE, "movbe"),
    (CpuidFeature::MOVDIRI, "movdiri"),
    (CpuidFeature::MOVDIR64B, "movdir64b"),
    (CpuidFeature::CMPCCXADD, "cmpccxadd"),
    (CpuidFeature::RDRAND, "rdrand"),
    (CpuidFeature::RDSEED, "rdseed"),
    (CpuidFeature::RDPID, "rdpid"),
    (CpuidFeature::RDTSCP, "rdtscp"),
    (CpuidFeature::TSC, "tsc"),
    (CpuidFeature::MSR, "msr"),
    (CpuidFeature::WRMSRNS, "wrmsrns"),
    (CpuidFeature::SEP, "sep"),
    (CpuidFeature::SYSCALL, "syscall"),
    (CpuidFeature::FSGSBASE, "fsgsbase"),
    (CpuidFeature::INVPCID, "invpcid"),
    (CpuidFeature::SMAP, "smap"),
    (CpuidFeature::PKU, "pku"),
    (CpuidFeature::MONITOR, "monitor"),
    (CpuidFeature::WAITPKG, "waitpkg"),
    (CpuidFeature::WBNOINVD, "wbnoinvd"),
    (CpuidFeature::SERIALIZE, "serialize"),
    (CpuidFeature::TSXLDTRK, "tsx-ldtrk"),
    (CpuidFeature::RTM, "rtm"),
    (CpuidFeature::HLE, "hle|rtm"),
    (CpuidFeature::FRED, "fred"),
    (CpuidFeature::LKGS, "lkgs"),
    (CpuidFeature::VMX, "vmx"),
    (CpuidFeature::INVEPT, "vmx"),
    (CpuidFeature::INVVPID, "vmx"),
    (CpuidFeature::SVM, "svm"),
    (CpuidFeature::SKINIT, "skinit|svm"),
    (CpuidFeature::SMX, "smx"),
    (CpuidFeature::XSAVE, "xsave"),
    (CpuidFeature::XSAVEOPT, "xsaveopt"),
    (CpuidFeature::XSAVEC, "xsavec"),
    (CpuidFeature::XSAVES, "xsaves"),
    // Processors with long mode execute these as prefetches or NOPs without the feature.
    (CpuidFeature::PREFETCHW, "3dnowprefetch|lm"),
    (CpuidFeature::PREFETCHWT1, "3dnowprefetch|lm"),
];

/// Extensions without a CPUID bit, and those whose encodings are NOPs elsewhere.
const EVERYWHERE: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL8086_ONLY,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CPUID,
    CpuidFeature::RDPMC,
    CpuidFeature::SMM,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::CET_IBT,
    CpuidFeature::CLDEMOTE,
    CpuidFeature::PREFETCHITI,
];

fn table() -> &'static [Needs; COUNT] {
    static TABLE: OnceLock<[Needs; COUNT]> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = [Needs::More; COUNT];
        for extension in EVERYWHERE {
            table[*extension as usize & 0xff] = Needs::Nothing;
        }
        for (extension, names) in NAMES {
            let mut features = names.split('|').map(Feature::named);
            table[*extension as usize & 0xff] = match (features.next().flatten(), features.next().flatten()) {
                (Some(first), Some(second)) => Needs::Either(first, second),
                (Some(only), None) => Needs::One(only),
                _ => Needs::More,
            };
        }
        table
    })
}

/// Whether the guest's processor has this instruction; otherwise it is #UD. Modes and control registers are not looked
/// at, and not whether the software CPU implements it.
#[must_use]
pub fn allowed(instruction: &Instruction, model: &CpuModel) -> bool {
    offers(instruction, model.features())
}

/// As [`allowed`], for a processor with these features.
#[must_use]
pub fn offers(instruction: &Instruction, features: &FeatureSet) -> bool {
    match instruction.code() {
        // Hypercalls: whoever answers them decides.
        Code::Vmcall | Code::Vmmcall => return true,
        // NOPs where there are no shadow stacks.
        Code::Rdsspd_r32 | Code::Rdsspq_r64 => return true,
        _ => {}
    }
    let table = table();
    instruction.cpuid_features().iter().all(|extension| match table[*extension as usize & 0xff] {
        Needs::Nothing => true,
        Needs::More => false,
        Needs::One(feature) => features.contains(feature),
        Needs::Either(first, second) => features.contains(first) || features.contains(second),
    })
}

/// How iced-x86 is to decode for this processor: which prefixes and opcodes still have their old meaning.
#[must_use]
pub fn decoder_options(model: &CpuModel) -> u32 {
    let old = |feature, option| if model.has(feature) { 0 } else { option };
    let new = |feature, option| if model.has(feature) { option } else { 0 };
    let amd = if model.vendor() == *b"AuthenticAMD" { DecoderOptions::AMD } else { 0 };
    old("bmi1", DecoderOptions::NO_MPFX_0FBC)
        | old("abm", DecoderOptions::NO_MPFX_0FBD)
        | old("wbnoinvd", DecoderOptions::NO_WBNOINVD)
        | old("lahf-lm", DecoderOptions::NO_LAHF_SAHF_64)
        | new("mpx", DecoderOptions::MPX)
        | amd
}

/// Features that the interpreter, the MMU, the system part and the interrupt controllers implement, whatever the host
/// is.
const IMPLEMENTED: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx fxsr \
    sse sse2 ss ht monitor cx16 pcid x2apic movbe popcnt tsc-deadline xsave rdrand hypervisor arat fsgsbase tsc-adjust \
    bmi1 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb umip pku la57 rdpid fsrm serialize fzrm fsrs fsrc \
    xsaveopt xsavec xgetbv1 xsaves lahf-lm cmp-legacy cr8legacy abm 3dnowprefetch syscall nx mmxext fxsr-opt pdpe1gb \
    rdtscp lm invtsc xsaveerptr wbnoinvd kvmclock kvmclock2 kvm-nopiodelay kvm-poll-control kvmclock-stable-bit \
    kvm-hint-dedicated";

/// Features whose instructions run on the host's own units: there where the host has them.
const NATIVE: &str = "pni pclmulqdq ssse3 fma sse4.1 sse4.2 aes avx f16c avx2 sha-ni gfni vaes vpclmulqdq avx512vbmi \
    avx512vbmi2 avx512vnni avx512bitalg avx512-vpopcntdq avx512-vp2intersect avx512-fp16 avx512f avx512dq avx512ifma \
    avx512cd avx512bw avx512vl sha512 sm3 sm4 avx-vnni avx512-bf16 avx-ifma avx-vnni-int8 avx-ne-convert avx-vnni-int16 \
    sse4a fdp-excptn-only zero-fcs-fds";

/// What needs the YMM registers, and so an operating system of the host that saves them.
const NEEDS_YMM: &str = "avx fma f16c avx2 vaes vpclmulqdq avx-vnni avx-ifma avx-vnni-int8 avx-ne-convert avx-vnni-int16 \
    sha512 sm3 sm4";

/// All that the software CPU can give a guest on this host.
#[must_use]
pub fn features() -> FeatureSet {
    let host = host::features();
    let mut native = FeatureSet::from_names(NATIVE).and(&host.features);
    if host.width < Width::Zmm {
        FeatureSet::from_names(NATIVE)
            .iter()
            .filter(|feature| feature.name().starts_with("avx512"))
            .for_each(|feature| native.remove(feature));
    }
    if host.width < Width::Ymm {
        native = native.without(&FeatureSet::from_names(NEEDS_YMM));
    }
    FeatureSet::from_names(IMPLEMENTED).or(&native)
}

#[cfg(test)]
mod tests {
    use iced_x86::Decoder;

    use super::super::super::bench::cpu_model;
    use super::*;

    fn decode(bytes: &[u8], model: &CpuModel) -> Instruction {
        Decoder::with_ip(64, bytes, 0, decoder_options(model)).decode()
    }

    #[test]
    fn every_name_is_a_feature() {
        let words = NAMES.iter().flat_map(|(_, names)| names.split('|'));
        let lists = [IMPLEMENTED, NATIVE, NEEDS_YMM].into_iter().flat_map(str::split_whitespace);
        let unknown: Vec<_> = words.chain(lists).filter(|name| Feature::named(name).is_none()).collect();
        assert_eq!(unknown, [""; 0]);
    }

    #[test]
    fn an_instruction_needs_its_feature() {
        let vpxor_ymm = [0xc5, 0xfd, 0xef, 0xc1];
        let old = cpu_model("qemu64");
        let new = cpu_model("qemu64,+avx,+avx2");
        assert!(!allowed(&decode(&vpxor_ymm, &old), &old));
        assert!(allowed(&decode(&vpxor_ymm, &new), &new));
    }

    #[test]
    fn an_evex_instruction_needs_all_of_its_features() {
        // vpaddd xmm0,xmm1,xmm2 (EVEX)
        let bytes = [0x62, 0xf1, 0x75, 0x08, 0xfe, 0xc2];
        let without = cpu_model("qemu64,+avx512f");
        let with = cpu_model("qemu64,+avx512f,+avx512vl");
        assert!(!allowed(&decode(&bytes, &without), &without));
        assert!(allowed(&decode(&bytes, &with), &with));
    }

    #[test]
    fn tzcnt_and_lzcnt_fall_back_to_their_ancestors() {
        let (tzcnt, lzcnt) = ([0xf3, 0x0f, 0xbc, 0xc1], [0xf3, 0x0f, 0xbd, 0xc1]);
        let old = cpu_model("qemu64,-abm");
        let new = cpu_model("qemu64,+bmi1,+abm");
        assert_eq!(decode(&tzcnt, &old).code(), Code::Bsf_r32_rm32);
        assert_eq!(decode(&lzcnt, &old).code(), Code::Bsr_r32_rm32);
        assert_eq!(decode(&tzcnt, &new).code(), Code::Tzcnt_r32_rm32);
        assert_eq!(decode(&lzcnt, &new).code(), Code::Lzcnt_r32_rm32);
    }

    #[test]
    fn plain_instructions_and_hints_are_everywhere() {
        let model = cpu_model("base");
        // add eax,ecx; endbr64; nop dword [rax]; rdsspd eax
        for bytes in [&[0x01, 0xc8][..], &[0xf3, 0x0f, 0x1e, 0xfa], &[0x0f, 0x1f, 0x00], &[0xf3, 0x0f, 0x1e, 0xc8]] {
            assert!(allowed(&decode(bytes, &model), &model), "{bytes:x?}");
        }
    }
}
