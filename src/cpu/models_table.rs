//! The named processors: what their CPUID says. Learnt from QEMU 10.0 by QMP (`query-cpu-model-expansion`).

use super::models::{ModelDef, Vendor, Version};

/// Every named processor, in the order of `-cpu help`.
pub(super) const MODELS: &[ModelDef] = &[
    ModelDef {
        name: "486",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 4,
        features: "hypervisor fpu vme pse",
        versions: &[Version {
            alias: "",
            model_id: "",
            note: "",
            changes: "",
            level: 1,
            xlevel: 0,
            model: 8,
            stepping: 0,
        }],
    },
    ModelDef {
        name: "Broadwell",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm rdseed adx smap \
            xsaveopt lahf-lm abm 3dnowprefetch syscall nx rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Core Processor (Broadwell)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 61,
                stepping: 2,
            },
            Version {
                alias: "Broadwell-noTSX",
                model_id: "Intel Core Processor (Broadwell, no TSX)",
                note: "",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 61,
                stepping: 2,
            },
            Version {
                alias: "Broadwell-IBRS",
                model_id: "Intel Core Processor (Broadwell, IBRS)",
                note: "",
                changes: "+hle +rtm +spec-ctrl",
                level: 0xd,
                xlevel: 0x80000008,
                model: 61,
                stepping: 2,
            },
            Version {
                alias: "Broadwell-noTSX-IBRS",
                model_id: "Intel Core Processor (Broadwell, no TSX, IBRS)",
                note: "",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 61,
                stepping: 2,
            },
        ],
    },
    ModelDef {
        name: "Cascadelake-Server",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
            rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl pku avx512vnni spec-ctrl ssbd xsaveopt \
            xsavec xgetbv1 lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Cascadelake)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 6,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Cascadelake)",
                note: "ARCH_CAPABILITIES",
                changes: "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 6,
            },
            Version {
                alias: "Cascadelake-Server-noTSX",
                model_id: "Intel Xeon Processor (Cascadelake)",
                note: "ARCH_CAPABILITIES, no TSX",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 6,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Cascadelake)",
                note: "ARCH_CAPABILITIES, EPT switching, no TSX",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 6,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Cascadelake)",
                note: "ARCH_CAPABILITIES, EPT switching, XSAVES, no TSX",
                changes: "+xsaves",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 6,
            },
        ],
    },
    ModelDef {
        name: "ClearwaterForest",
        vendor: Vendor::Intel,
        level_7: 2,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 ss arat fsgsbase tsc-adjust bmi1 avx2 smep bmi2 erms invpcid rdseed adx \
            smap clflushopt clwb sha-ni umip pku gfni vaes vpclmulqdq rdpid bus-lock-detect cldemote movdiri \
            movdir64b fsrm serialize spec-ctrl arch-capabilities ssbd sha512 sm3 sm4 avx-vnni cmpccxadd fsrs \
            avx-ifma lam avx-vnni-int8 avx-ne-convert avx-vnni-int16 prefetchiti intel-psfd ipred-ctrl \
            rrsba-ctrl ddpd-u bhi-ctrl mcdt-no xsaveopt xsavec xgetbv1 xsaves lahf-lm abm 3dnowprefetch \
            syscall nx pdpe1gb rdtscp lm wbnoinvd rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no \
            sbdr-ssdp-no fbsdp-no psdp-no bhi-no pbrsb-no gds-no rfds-no",
        versions: &[Version {
            alias: "",
            model_id: "Intel Xeon Processor (ClearwaterForest)",
            note: "",
            changes: "",
            level: 0x23,
            xlevel: 0x80000008,
            model: 221,
            stepping: 0,
        }],
    },
    ModelDef {
        name: "Conroe",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni ssse3 hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 lahf-lm syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "Intel Celeron_4x0 (Conroe/Merom Class Core 2)",
            note: "",
            changes: "",
            level: 0xa,
            xlevel: 0x80000008,
            model: 15,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "Cooperlake",
        vendor: Vendor::Intel,
        level_7: 1,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
            rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl pku avx512vnni spec-ctrl stibp \
            arch-capabilities ssbd avx512-bf16 xsaveopt xsavec xgetbv1 lahf-lm abm 3dnowprefetch syscall nx \
            pdpe1gb rdtscp lm rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Cooperlake)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 10,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Cooperlake)",
                note: "XSAVES",
                changes: "+xsaves",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 10,
            },
        ],
    },
    ModelDef {
        name: "Denverton",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase smep erms mpx rdseed smap clflushopt sha-ni spec-ctrl \
            arch-capabilities ssbd xsaveopt xsavec xgetbv1 lahf-lm 3dnowprefetch syscall nx pdpe1gb rdtscp lm \
            rdctl-no skip-l1dfl-vmentry",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Atom Processor (Denverton)",
                note: "",
                changes: "",
                level: 0x15,
                xlevel: 0x80000008,
                model: 95,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "Intel Atom Processor (Denverton)",
                note: "no MPX, no MONITOR",
                changes: "-monitor -mpx",
                level: 0x15,
                xlevel: 0x80000008,
                model: 95,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "Intel Atom Processor (Denverton)",
                note: "XSAVES, no MPX, no MONITOR",
                changes: "+xsaves",
                level: 0x15,
                xlevel: 0x80000008,
                model: 95,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "Dhyana",
        vendor: Vendor::Hygon,
        level_7: 0,
        xlevel2: 0,
        family: 24,
        features: "pni monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt xsave avx f16c rdrand hypervisor fpu vme de \
            pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 arat \
            fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt xsaveopt xsavec xgetbv1 lahf-lm svm \
            cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext syscall nx mmxext fxsr-opt pdpe1gb \
            rdtscp lm ibpb npt nrip-save",
        versions: &[
            Version {
                alias: "",
                model_id: "Hygon Dhyana Processor",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 0,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "Hygon Dhyana Processor",
                note: "XSAVES",
                changes: "+xsaves",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 0,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "EPYC",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 23,
        features: "pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni xsaveopt xsavec \
            xgetbv1 lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext syscall nx mmxext \
            fxsr-opt pdpe1gb rdtscp lm npt nrip-save",
        versions: &[
            Version {
                alias: "",
                model_id: "AMD EPYC Processor",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 1,
                stepping: 2,
            },
            Version {
                alias: "EPYC-IBPB",
                model_id: "AMD EPYC Processor (with IBPB)",
                note: "",
                changes: "+ibpb",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 1,
                stepping: 2,
            },
            Version {
                alias: "",
                model_id: "AMD EPYC Processor",
                note: "",
                changes: "+xsaves +perfctr-core +clzero +xsaveerptr",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 1,
                stepping: 2,
            },
            Version {
                alias: "",
                model_id: "AMD EPYC-v4 Processor",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 1,
                stepping: 2,
            },
        ],
    },
    ModelDef {
        name: "EPYC-Genoa",
        vendor: Vendor::Amd,
        level_7: 1,
        xlevel2: 0,
        family: 25,
        features: "pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase bmi1 avx2 smep bmi2 erms invpcid avx512f avx512dq rdseed adx smap \
            avx512ifma clflushopt clwb avx512cd sha-ni avx512bw avx512vl avx512vbmi umip pku avx512vbmi2 gfni \
            vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 rdpid fsrm avx512-bf16 xsaveopt \
            xsavec xgetbv1 xsaves lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext \
            perfctr-core syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm clzero xsaveerptr wbnoinvd ibpb ibrs \
            amd-stibp stibp-always-on amd-ssbd amd-psfd npt nrip-save vnmi svme-addr-chk no-nested-data-bp \
            lfence-always-serializing null-sel-clr-base auto-ibrs",
        versions: &[Version {
            alias: "",
            model_id: "AMD EPYC-Genoa Processor",
            note: "",
            changes: "",
            level: 0xd,
            xlevel: 0x80000022,
            model: 17,
            stepping: 0,
        }],
    },
    ModelDef {
        name: "EPYC-Milan",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 25,
        features: "pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb \
            sha-ni umip pku rdpid fsrm xsaveopt xsavec xgetbv1 xsaves lahf-lm svm cr8legacy abm sse4a \
            misalignsse 3dnowprefetch osvw topoext perfctr-core syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm \
            clzero xsaveerptr wbnoinvd ibpb ibrs amd-stibp amd-ssbd npt nrip-save svme-addr-chk",
        versions: &[
            Version {
                alias: "",
                model_id: "AMD EPYC-Milan Processor",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 1,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "AMD EPYC-Milan-v2 Processor",
                note: "",
                changes: "+vaes +vpclmulqdq +stibp-always-on +amd-psfd +no-nested-data-bp +lfence-always-serializing \
                    +null-sel-clr-base",
                level: 0xd,
                xlevel: 0x80000021,
                model: 1,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "EPYC-Rome",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 23,
        features: "pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt clwb sha-ni umip rdpid \
            xsaveopt xsavec xgetbv1 xsaves lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw \
            topoext perfctr-core syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm clzero xsaveerptr wbnoinvd ibpb \
            amd-stibp npt nrip-save",
        versions: &[
            Version {
                alias: "",
                model_id: "AMD EPYC-Rome Processor",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 49,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "AMD EPYC-Rome Processor",
                note: "",
                changes: "+ibrs +amd-ssbd",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 49,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "AMD EPYC-Rome-v3 Processor",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 49,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "AMD EPYC-Rome-v4 Processor (no XSAVES)",
                note: "",
                changes: "-xsaves",
                level: 0xd,
                xlevel: 0x8000001e,
                model: 49,
                stepping: 0,
            },
        ],
    },
    ModelDef {
        name: "GraniteRapids",
        vendor: Vendor::Intel,
        level_7: 2,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
            rdseed adx smap avx512ifma clflushopt clwb avx512cd sha-ni avx512bw avx512vl avx512vbmi umip pku \
            avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 rdpid \
            bus-lock-detect fsrm serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl \
            arch-capabilities ssbd avx-vnni avx512-bf16 fzrm fsrs fsrc amx-fp16 prefetchiti mcdt-no xsaveopt \
            xsavec xgetbv1 xsaves xfd lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp lm wbnoinvd rdctl-no \
            ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no sbdr-ssdp-no fbsdp-no psdp-no pbrsb-no",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (GraniteRapids)",
                note: "",
                changes: "",
                level: 0x20,
                xlevel: 0x80000008,
                model: 173,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (GraniteRapids)",
                note: "",
                changes: "+ss +tsc-adjust +cldemote +movdiri +movdir64b +avx10 +avx10-128 +avx10-256 +avx10-512",
                level: 0x24,
                xlevel: 0x80000008,
                model: 173,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "Haswell",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm xsaveopt lahf-lm \
            abm syscall nx rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Core Processor (Haswell)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 60,
                stepping: 4,
            },
            Version {
                alias: "Haswell-noTSX",
                model_id: "Intel Core Processor (Haswell, no TSX)",
                note: "",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 60,
                stepping: 1,
            },
            Version {
                alias: "Haswell-IBRS",
                model_id: "Intel Core Processor (Haswell, IBRS)",
                note: "",
                changes: "+hle +rtm +spec-ctrl",
                level: 0xd,
                xlevel: 0x80000008,
                model: 60,
                stepping: 4,
            },
            Version {
                alias: "Haswell-noTSX-IBRS",
                model_id: "Intel Core Processor (Haswell, no TSX, IBRS)",
                note: "",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 60,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "Icelake-Server",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
            rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl avx512vbmi umip pku avx512vbmi2 gfni \
            vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 spec-ctrl ssbd xsaveopt xsavec \
            xgetbv1 lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp lm wbnoinvd",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 134,
                stepping: 0,
            },
            Version {
                alias: "Icelake-Server-noTSX",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "no TSX",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 134,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "",
                changes: "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no",
                level: 0xd,
                xlevel: 0x80000008,
                model: 134,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "",
                changes: "+avx512ifma +sha-ni +rdpid +fsrm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 106,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "XSAVES",
                changes: "+xsaves",
                level: 0xd,
                xlevel: 0x80000008,
                model: 106,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "5-level EPT",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 106,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Icelake)",
                note: "TSX, taa-no",
                changes: "+hle +rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 106,
                stepping: 0,
            },
        ],
    },
    ModelDef {
        name: "IvyBridge",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx f16c rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase smep erms xsaveopt lahf-lm syscall nx rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon E3-12xx v2 (Ivy Bridge)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 58,
                stepping: 9,
            },
            Version {
                alias: "IvyBridge-IBRS",
                model_id: "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)",
                note: "",
                changes: "+spec-ctrl",
                level: 0xd,
                xlevel: 0x80000008,
                model: 58,
                stepping: 9,
            },
        ],
    },
    ModelDef {
        name: "KnightsMill",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c \
            rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush \
            mmx fxsr sse sse2 ss arat fsgsbase bmi1 avx2 smep bmi2 erms avx512f rdseed adx avx512pf avx512er \
            avx512cd avx512-vpopcntdq avx512-4vnniw avx512-4fmaps xsaveopt lahf-lm abm 3dnowprefetch syscall \
            nx pdpe1gb rdtscp lm",
        versions: &[Version {
            alias: "",
            model_id: "Intel Xeon Phi Processor (Knights Mill)",
            note: "",
            changes: "",
            level: 0xd,
            xlevel: 0x80000008,
            model: 133,
            stepping: 0,
        }],
    },
    ModelDef {
        name: "Nehalem",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni ssse3 cx16 sse4.1 sse4.2 popcnt hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr \
            pge mca cmov pat pse36 clflush mmx fxsr sse sse2 lahf-lm syscall nx lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Core i7 9xx (Nehalem Class Core i7)",
                note: "",
                changes: "",
                level: 0xb,
                xlevel: 0x80000008,
                model: 26,
                stepping: 3,
            },
            Version {
                alias: "Nehalem-IBRS",
                model_id: "Intel Core i7 9xx (Nehalem Core i7, IBRS update)",
                note: "",
                changes: "+spec-ctrl",
                level: 0xb,
                xlevel: 0x80000008,
                model: 26,
                stepping: 3,
            },
        ],
    },
    ModelDef {
        name: "Opteron_G1",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 15,
        features: "pni hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "AMD Opteron 240 (Gen 1 Class Opteron)",
            note: "",
            changes: "",
            level: 5,
            xlevel: 0x80000008,
            model: 6,
            stepping: 1,
        }],
    },
    ModelDef {
        name: "Opteron_G2",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 15,
        features: "pni cx16 hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 lahf-lm svm syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "AMD Opteron 22xx (Gen 2 Class Opteron)",
            note: "",
            changes: "",
            level: 5,
            xlevel: 0x8000000a,
            model: 6,
            stepping: 1,
        }],
    },
    ModelDef {
        name: "Opteron_G3",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 16,
        features: "pni monitor cx16 popcnt hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov \
            pat pse36 clflush mmx fxsr sse sse2 lahf-lm svm abm sse4a misalignsse syscall nx rdtscp lm",
        versions: &[Version {
            alias: "",
            model_id: "AMD Opteron 23xx (Gen 3 Class Opteron)",
            note: "",
            changes: "",
            level: 5,
            xlevel: 0x8000000a,
            model: 2,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "Opteron_G4",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 21,
        features: "pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes xsave avx hypervisor fpu vme de pse tsc msr pae \
            mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 lahf-lm svm abm sse4a \
            misalignsse 3dnowprefetch xop fma4 syscall nx pdpe1gb rdtscp lm npt nrip-save",
        versions: &[Version {
            alias: "",
            model_id: "AMD Opteron 62xx class CPU",
            note: "",
            changes: "",
            level: 0xd,
            xlevel: 0x8000001a,
            model: 1,
            stepping: 2,
        }],
    },
    ModelDef {
        name: "Opteron_G5",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 21,
        features: "pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 popcnt aes xsave avx f16c hypervisor fpu vme de pse tsc \
            msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 lahf-lm svm abm \
            sse4a misalignsse 3dnowprefetch xop fma4 tbm syscall nx pdpe1gb rdtscp lm npt nrip-save",
        versions: &[Version {
            alias: "",
            model_id: "AMD Opteron 63xx class CPU",
            note: "",
            changes: "",
            level: 0xd,
            xlevel: 0x8000001a,
            model: 2,
            stepping: 0,
        }],
    },
    ModelDef {
        name: "Penryn",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni ssse3 cx16 sse4.1 hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat \
            pse36 clflush mmx fxsr sse sse2 lahf-lm syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)",
            note: "",
            changes: "",
            level: 0xa,
            xlevel: 0x80000008,
            model: 23,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "SandyBridge",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx hypervisor fpu vme \
            de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 arat \
            xsaveopt lahf-lm syscall nx rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon E312xx (Sandy Bridge)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 42,
                stepping: 1,
            },
            Version {
                alias: "SandyBridge-IBRS",
                model_id: "Intel Xeon E312xx (Sandy Bridge, IBRS update)",
                note: "",
                changes: "+spec-ctrl",
                level: 0xd,
                xlevel: 0x80000008,
                model: 42,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "SapphireRapids",
        vendor: Vendor::Intel,
        level_7: 1,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
            rdseed adx smap avx512ifma clflushopt clwb avx512cd sha-ni avx512bw avx512vl avx512vbmi umip pku \
            avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 rdpid \
            bus-lock-detect fsrm serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl \
            arch-capabilities ssbd avx-vnni avx512-bf16 fzrm fsrs fsrc xsaveopt xsavec xgetbv1 xsaves xfd \
            lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp lm wbnoinvd rdctl-no ibrs-all \
            skip-l1dfl-vmentry mds-no pschange-mc-no taa-no",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (SapphireRapids)",
                note: "",
                changes: "",
                level: 0x20,
                xlevel: 0x80000008,
                model: 143,
                stepping: 4,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (SapphireRapids)",
                note: "",
                changes: "+sbdr-ssdp-no +fbsdp-no +psdp-no",
                level: 0x20,
                xlevel: 0x80000008,
                model: 143,
                stepping: 4,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (SapphireRapids)",
                note: "",
                changes: "+ss +tsc-adjust +cldemote +movdiri +movdir64b",
                level: 0x20,
                xlevel: 0x80000008,
                model: 143,
                stepping: 4,
            },
        ],
    },
    ModelDef {
        name: "SierraForest",
        vendor: Vendor::Intel,
        level_7: 2,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap \
            clflushopt clwb sha-ni umip pku gfni vaes vpclmulqdq rdpid bus-lock-detect fsrm serialize \
            spec-ctrl arch-capabilities ssbd avx-vnni cmpccxadd fsrs avx-ifma avx-vnni-int8 avx-ne-convert \
            mcdt-no xsaveopt xsavec xgetbv1 xsaves lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp lm \
            wbnoinvd rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no sbdr-ssdp-no fbsdp-no psdp-no \
            pbrsb-no",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (SierraForest)",
                note: "",
                changes: "",
                level: 0x23,
                xlevel: 0x80000008,
                model: 175,
                stepping: 0,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (SierraForest)",
                note: "",
                changes: "+ss +tsc-adjust +cldemote +movdiri +movdir64b +lam +intel-psfd +ipred-ctrl +rrsba-ctrl \
                    +bhi-ctrl +gds-no +rfds-no",
                level: 0x23,
                xlevel: 0x80000008,
                model: 175,
                stepping: 3,
            },
        ],
    },
    ModelDef {
        name: "Skylake-Client",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm rdseed adx smap \
            xsaveopt xsavec xgetbv1 lahf-lm abm 3dnowprefetch syscall nx rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Core Processor (Skylake)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 94,
                stepping: 3,
            },
            Version {
                alias: "Skylake-Client-IBRS",
                model_id: "Intel Core Processor (Skylake, IBRS)",
                note: "",
                changes: "+spec-ctrl",
                level: 0xd,
                xlevel: 0x80000008,
                model: 94,
                stepping: 3,
            },
            Version {
                alias: "Skylake-Client-noTSX-IBRS",
                model_id: "Intel Core Processor (Skylake, IBRS, no TSX)",
                note: "",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 94,
                stepping: 3,
            },
            Version {
                alias: "",
                model_id: "Intel Core Processor (Skylake, IBRS, no TSX)",
                note: "IBRS, XSAVES, no TSX",
                changes: "+xsaves",
                level: 0xd,
                xlevel: 0x80000008,
                model: 94,
                stepping: 3,
            },
        ],
    },
    ModelDef {
        name: "Skylake-Server",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx \
            f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 arat fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f avx512dq \
            rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl pku xsaveopt xsavec xgetbv1 lahf-lm abm \
            3dnowprefetch syscall nx pdpe1gb rdtscp lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Skylake)",
                note: "",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 4,
            },
            Version {
                alias: "Skylake-Server-IBRS",
                model_id: "Intel Xeon Processor (Skylake, IBRS)",
                note: "",
                changes: "-clflushopt +spec-ctrl",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 4,
            },
            Version {
                alias: "Skylake-Server-noTSX-IBRS",
                model_id: "Intel Xeon Processor (Skylake, IBRS, no TSX)",
                note: "",
                changes: "-hle -rtm",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 4,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Skylake, IBRS, no TSX)",
                note: "IBRS, EPT switching, no TSX",
                changes: "",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 4,
            },
            Version {
                alias: "",
                model_id: "Intel Xeon Processor (Skylake, IBRS, no TSX)",
                note: "IBRS, XSAVES, EPT switching, no TSX",
                changes: "+xsaves",
                level: 0xd,
                xlevel: 0x80000008,
                model: 85,
                stepping: 4,
            },
        ],
    },
    ModelDef {
        name: "Snowridge",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave rdrand \
            hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2 arat fsgsbase smep erms mpx rdseed smap clflushopt clwb sha-ni umip gfni cldemote \
            movdiri movdir64b spec-ctrl arch-capabilities core-capability ssbd xsaveopt xsavec xgetbv1 lahf-lm \
            3dnowprefetch syscall nx pdpe1gb rdtscp lm split-lock-detect",
        versions: &[
            Version {
                alias: "",
                model_id: "Intel Atom Processor (SnowRidge)",
                note: "",
                changes: "",
                level: 0x1b,
                xlevel: 0x80000008,
                model: 134,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "Intel Atom Processor (Snowridge, no MPX)",
                note: "",
                changes: "-mpx",
                level: 0x1b,
                xlevel: 0x80000008,
                model: 134,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "Intel Atom Processor (Snowridge, no MPX)",
                note: "XSAVES, no MPX",
                changes: "+xsaves",
                level: 0x1b,
                xlevel: 0x80000008,
                model: 134,
                stepping: 1,
            },
            Version {
                alias: "",
                model_id: "Intel Atom Processor (Snowridge, no MPX)",
                note: "no split lock detect, no core-capability",
                changes: "-core-capability -split-lock-detect",
                level: 0x1b,
                xlevel: 0x80000008,
                model: 134,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "Westmere",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes hypervisor fpu vme de pse tsc msr pae mce cx8 \
            apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 arat lahf-lm syscall nx lm",
        versions: &[
            Version {
                alias: "",
                model_id: "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
                note: "",
                changes: "",
                level: 0xb,
                xlevel: 0x80000008,
                model: 44,
                stepping: 1,
            },
            Version {
                alias: "Westmere-IBRS",
                model_id: "Westmere E56xx/L56xx/X56xx (IBRS update)",
                note: "",
                changes: "+spec-ctrl",
                level: 0xb,
                xlevel: 0x80000008,
                model: 44,
                stepping: 1,
            },
        ],
    },
    ModelDef {
        name: "YongFeng",
        vendor: Vendor::Centaur,
        level_7: 0,
        xlevel2: 0xc0000001,
        family: 7,
        features: "pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave \
            avx f16c rdrand hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush acpi mmx fxsr sse sse2 ss fsgsbase bmi1 avx2 smep bmi2 invpcid rdseed adx smap sha-ni umip \
            pku rdpid spec-ctrl arch-capabilities xsaveopt lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp \
            lm invtsc xstore xstore-en xcrypt xcrypt-en ace2 phe phe-en pmm pmm-en rdctl-no skip-l1dfl-vmentry \
            ssb-no mds-no pschange-mc-no",
        versions: &[
            Version {
                alias: "",
                model_id: "Zhaoxin YongFeng Processor",
                note: "",
                changes: "",
                level: 0x1f,
                xlevel: 0x80000008,
                model: 11,
                stepping: 3,
            },
            Version {
                alias: "",
                model_id: "Zhaoxin YongFeng Processor",
                note: "with the correct model number",
                changes: "",
                level: 0x1f,
                xlevel: 0x80000008,
                model: 91,
                stepping: 3,
            },
        ],
    },
    ModelDef {
        name: "athlon",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse \
            sse2 mmxext 3dnowext 3dnow",
        versions: &[Version {
            alias: "",
            model_id: "QEMU Virtual CPU version 2.5+",
            note: "",
            changes: "",
            level: 2,
            xlevel: 0x80000008,
            model: 2,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "core2duo",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni monitor ssse3 cx16 hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov \
            pat pse36 clflush acpi mmx fxsr sse sse2 ss lahf-lm syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz",
            note: "",
            changes: "",
            level: 0xa,
            xlevel: 0x80000008,
            model: 15,
            stepping: 11,
        }],
    },
    ModelDef {
        name: "coreduo",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni monitor hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush \
            acpi mmx fxsr sse sse2 ss nx",
        versions: &[Version {
            alias: "",
            model_id: "Genuine Intel(R) CPU           T2600  @ 2.16GHz",
            note: "",
            changes: "",
            level: 0xa,
            xlevel: 0x80000008,
            model: 14,
            stepping: 8,
        }],
    },
    ModelDef {
        name: "kvm32",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 15,
        features: "pni hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
            fxsr sse sse2",
        versions: &[Version {
            alias: "",
            model_id: "Common 32-bit KVM processor",
            note: "",
            changes: "",
            level: 5,
            xlevel: 0x80000008,
            model: 6,
            stepping: 1,
        }],
    },
    ModelDef {
        name: "kvm64",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 15,
        features: "pni cx16 hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 \
            clflush mmx fxsr sse sse2 syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "Common KVM processor",
            note: "",
            changes: "",
            level: 0xd,
            xlevel: 0x80000008,
            model: 6,
            stepping: 1,
        }],
    },
    ModelDef {
        name: "n270",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni monitor ssse3 movbe hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov \
            pat clflush acpi mmx fxsr sse sse2 ss lahf-lm nx",
        versions: &[Version {
            alias: "",
            model_id: "Intel(R) Atom(TM) CPU N270   @ 1.60GHz",
            note: "",
            changes: "",
            level: 0xa,
            xlevel: 0x80000008,
            model: 28,
            stepping: 2,
        }],
    },
    ModelDef {
        name: "pentium",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 5,
        features: "hypervisor fpu vme de pse tsc msr mce cx8 apic mmx",
        versions: &[Version {
            alias: "",
            model_id: "",
            note: "",
            changes: "",
            level: 1,
            xlevel: 0,
            model: 4,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "pentium2",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr",
        versions: &[Version {
            alias: "",
            model_id: "",
            note: "",
            changes: "",
            level: 2,
            xlevel: 0,
            model: 5,
            stepping: 2,
        }],
    },
    ModelDef {
        name: "pentium3",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse",
        versions: &[Version {
            alias: "",
            model_id: "",
            note: "",
            changes: "",
            level: 3,
            xlevel: 0,
            model: 7,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "phenom",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 16,
        features: "pni monitor cx16 popcnt hypervisor fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov \
            pat pse36 clflush mmx fxsr sse sse2 lahf-lm svm abm sse4a syscall nx mmxext fxsr-opt pdpe1gb \
            rdtscp lm 3dnowext 3dnow npt",
        versions: &[Version {
            alias: "",
            model_id: "AMD Phenom(tm) 9550 Quad-Core Processor",
            note: "",
            changes: "",
            level: 5,
            xlevel: 0x8000001a,
            model: 2,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "qemu32",
        vendor: Vendor::Intel,
        level_7: 0,
        xlevel2: 0,
        family: 6,
        features: "pni hypervisor fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2",
        versions: &[Version {
            alias: "",
            model_id: "QEMU Virtual CPU version 2.5+",
            note: "",
            changes: "",
            level: 4,
            xlevel: 0x80000004,
            model: 6,
            stepping: 3,
        }],
    },
    ModelDef {
        name: "qemu64",
        vendor: Vendor::Amd,
        level_7: 0,
        xlevel2: 0,
        family: 15,
        features: "pni cx16 hypervisor fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush \
            mmx fxsr sse sse2 lahf-lm svm syscall nx lm",
        versions: &[Version {
            alias: "",
            model_id: "QEMU Virtual CPU version 2.5+",
            note: "",
            changes: "",
            level: 0xd,
            xlevel: 0x8000000a,
            model: 107,
            stepping: 1,
        }],
    },
];
