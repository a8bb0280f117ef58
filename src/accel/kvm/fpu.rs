//! The x87 and SSE registers on hosts without XSAVE: between KVM's structure and the FXSAVE layout, which is the start
//! of an XSAVE area (Intel SDM volume 1 table 10-2).

use kvm_bindings::kvm_fpu;

const LEN: usize = 512;

/// Packs the registers as FXSAVE does.
pub(super) fn to_fxsave(fpu: &kvm_fpu) -> [u8; LEN] {
    let mut area = [0; LEN];
    area[0..2].copy_from_slice(&fpu.fcw.to_le_bytes());
    area[2..4].copy_from_slice(&fpu.fsw.to_le_bytes());
    area[4] = fpu.ftwx;
    area[6..8].copy_from_slice(&fpu.last_opcode.to_le_bytes());
    area[8..16].copy_from_slice(&fpu.last_ip.to_le_bytes());
    area[16..24].copy_from_slice(&fpu.last_dp.to_le_bytes());
    area[24..28].copy_from_slice(&fpu.mxcsr.to_le_bytes());
    for (to, from) in area[32..160].chunks_exact_mut(16).zip(&fpu.fpr) {
        to.copy_from_slice(from);
    }
    for (to, from) in area[160..416].chunks_exact_mut(16).zip(&fpu.xmm) {
        to.copy_from_slice(from);
    }
    area
}

/// Unpacks an FXSAVE area; what is missing is zero.
pub(super) fn from_fxsave(bytes: &[u8]) -> kvm_fpu {
    let mut area = [0; LEN];
    let len = bytes.len().min(LEN);
    area[..len].copy_from_slice(&bytes[..len]);
    let u16_at = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let mut fpu = kvm_fpu {
        fcw: u16_at(0),
        fsw: u16_at(2),
        ftwx: area[4],
        last_opcode: u16_at(6),
        last_ip: u64_at(8),
        last_dp: u64_at(16),
        mxcsr: u32_at(24),
        ..Default::default()
    };
    for (to, from) in fpu.fpr.iter_mut().zip(area[32..160].chunks_exact(16)) {
        to.copy_from_slice(from);
    }
    for (to, from) in fpu.xmm.iter_mut().zip(area[160..416].chunks_exact(16)) {
        to.copy_from_slice(from);
    }
    fpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let mut fpu =
            kvm_fpu { fcw: 0x37f, fsw: 1, ftwx: 0x80, mxcsr: 0x1f80, last_ip: 0x1234_5678_9abc, ..Default::default() };
        fpu.fpr[7][9] = 3;
        fpu.xmm[15][15] = 4;
        let back = from_fxsave(&to_fxsave(&fpu));
        assert_eq!((back.fcw, back.ftwx, back.mxcsr, back.last_ip), (0x37f, 0x80, 0x1f80, 0x1234_5678_9abc));
        assert_eq!((back.fpr[7][9], back.xmm[15][15]), (3, 4));
    }

    #[test]
    fn a_short_area_is_filled_with_zeros() {
        assert_eq!(from_fxsave(&[0x7f, 3, 9]).fcw, 0x37f);
    }
}
