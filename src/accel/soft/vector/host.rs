//! What the host's processor can execute for a guest.

use std::arch::x86_64::{__cpuid_count, CpuidResult};
use std::sync::OnceLock;

use crate::cpu::{FeatureSet, Place, Reg};

/// The widest registers that the host's operating system saves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// 128 bits.
    Xmm,
    /// 256 bits.
    Ymm,
    /// 512 bits, 32 registers, and opmask registers of 64 bits (AVX512F and AVX512BW).
    Zmm,
}

/// The host's processor.
#[derive(Debug)]
pub struct Host {
    /// What its CPUID shows.
    pub features: FeatureSet,
    /// Its registers.
    pub width: Width,
    /// The bits of MXCSR that it has (SDM volume 1, 11.6.6).
    pub mxcsr_mask: u32,
}

fn cpuid(function: u32, index: u32) -> CpuidResult {
    __cpuid_count(function, index)
}

fn answer(place: Place) -> u32 {
    let Place::Leaf { function, index, reg } = place else { return 0 };
    let last = cpuid(function & 0x8000_0000, 0).eax;
    if function > last || function & 0x4000_0000 != 0 || function == 7 && index.unwrap_or(0) > cpuid(7, 0).eax {
        return 0;
    }
    let result = cpuid(function, index.unwrap_or(0));
    match reg {
        Reg::Eax => result.eax,
        Reg::Ebx => result.ebx,
        Reg::Ecx => result.ecx,
        Reg::Edx => result.edx,
    }
}

/// XCR0 as the host's operating system set it: leaf Dh tells what it could be, the detection of the standard library
/// what it is.
fn width() -> Width {
    if !is_x86_feature_detected!("avx2") {
        Width::Xmm
    } else if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        Width::Zmm
    } else {
        Width::Ymm
    }
}

/// Looks once.
pub fn features() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let mut features = FeatureSet::default();
        for feature in FeatureSet::all_named().iter() {
            if let Some(place) = feature.place() {
                let bits = features.bits(place);
                if bits == 0 {
                    features.set_bits(place, answer(place));
                }
            }
        }
        Host { features, width: width(), mxcsr_mask: super::native::mxcsr_mask() }
    })
}
