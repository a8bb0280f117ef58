//! Where the components of the XSAVE area are (SDM volume 1, 13.4), as the guest's CPUID tells it.

use crate::cpu::CpuModel;

/// One component beyond x87 and SSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    /// Bit of XCR0.
    pub(super) number: u32,
    pub(super) size: usize,
    /// In the standard form.
    pub(super) offset: usize,
    /// Aligned to 64 bytes in the compacted form.
    pub(super) aligned: bool,
}

/// The components of a guest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layout {
    pub(super) parts: Vec<Part>,
    /// The bits that XCR0 can have.
    pub(super) supported: u64,
    /// XSAVEC: there is a compacted form.
    pub(super) compacts: bool,
    /// XGETBV with ECX 1.
    pub(super) tells_use: bool,
    /// The x87 data pointer follows exceptions only.
    pub(super) fdp_on_exception: bool,
    /// x87 selectors are stored as 0.
    pub(super) zero_selectors: bool,
}

/// The legacy region and the header.
pub(super) const HEADER_END: usize = 0x240;
/// Components that the register image holds: AVX, opmask, ZMM_Hi256, Hi16_ZMM, PKRU.
const KNOWN: u64 = 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9;

impl Layout {
    pub(super) fn new(model: &CpuModel) -> Self {
        let leaves = model.cpuid(0, 0);
        let parts: Vec<_> = leaves
            .iter()
            .filter(|leaf| leaf.function == 0xd)
            .filter_map(|leaf| {
                let number = leaf.index.filter(|index| (2..63).contains(index) && KNOWN >> index & 1 != 0)?;
                let (size, offset) = (usize::try_from(leaf.eax).ok()?, usize::try_from(leaf.ebx).ok()?);
                let fits = size == component_size(number) && offset >= HEADER_END && offset + size <= 0x1000;
                fits.then_some(Part { number, size, offset, aligned: leaf.ecx & 2 != 0 })
            })
            .collect();
        let supported = parts.iter().fold(3, |mask, part| mask | 1 << part.number);
        Self {
            parts,
            supported,
            compacts: model.has("xsavec"),
            tells_use: model.has("xgetbv1"),
            fdp_on_exception: model.has("fdp-excptn-only"),
            zero_selectors: model.has("zero-fcs-fds"),
        }
    }

    /// Length of the area in standard form for the components `mask`.
    pub(super) fn standard_len(&self, mask: u64) -> usize {
        let parts = self.parts.iter().filter(|part| mask >> part.number & 1 != 0);
        parts.map(|part| part.offset + part.size).max().unwrap_or(HEADER_END)
    }

    /// Where the parts of `mask` are in the compacted form, and its length.
    pub(super) fn compacted(&self, mask: u64) -> (Vec<(Part, usize)>, usize) {
        let mut at = HEADER_END;
        let mut places = Vec::new();
        for part in self.parts.iter().filter(|part| mask >> part.number & 1 != 0) {
            if part.aligned {
                at = at.next_multiple_of(64);
            }
            places.push((*part, at));
            at += part.size;
        }
        (places, at)
    }

    /// Where the parts of `mask` are in the standard form.
    pub(super) fn standard(&self, mask: u64) -> Vec<(Part, usize)> {
        self.parts.iter().filter(|part| mask >> part.number & 1 != 0).map(|part| (*part, part.offset)).collect()
    }
}

/// Bytes of a component (SDM volume 1, 13.5).
fn component_size(number: u32) -> usize {
    match number {
        2 => 256,
        5 => 64,
        6 => 512,
        7 => 1024,
        _ => 8,
    }
}
