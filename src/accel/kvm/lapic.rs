//! The local APIC after power-on (Intel SDM volume 3 section 12.4.7.1).

/// Size of the register page as KVM passes it.
const LEN: usize = 1024;

const ID: usize = 0x20;
const VERSION: usize = 0x30;
const DFR: usize = 0xe0;
const SVR: usize = 0xf0;
/// Timer to error. KVM's CMCI entry is there only where the guest's IA32_MCG_CAP announces it, which ours does not.
const LVTS: [usize; 6] = [0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
const LVT0: usize = 0x350;
const LVT_MASKED: u32 = 1 << 16;
/// KVM's own version register: version 14h, six entries in the local vector table.
const VERSION_VALUE: u32 = 0x0005_0014;
/// Delivery mode ExtINT, unmasked: the wire from the PICs, which firmware expects to find working.
const LVT0_EXTINT: u32 = 7 << 8;

/// The register page. LINT0 is open for the PICs, as on a board that starts in virtual wire mode.
pub(super) fn power_on(apic_id: u32) -> Vec<u8> {
    let mut page = vec![0; LEN];
    let mut set = |at: usize, value: u32| page[at..at + 4].copy_from_slice(&value.to_le_bytes());
    set(ID, apic_id << 24);
    set(VERSION, VERSION_VALUE);
    set(DFR, u32::MAX);
    set(SVR, 0xff);
    for lvt in LVTS {
        set(lvt, LVT_MASKED);
    }
    set(LVT0, LVT0_EXTINT);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apic_is_software_disabled_with_masked_vectors() {
        let page = power_on(3);
        assert_eq!(page[0x23], 3);
        assert_eq!(page[0xf0..0xf4], [0xff, 0, 0, 0]);
        assert_eq!(page[0x322], 1);
        assert_eq!(page[0x350..0x354], [0, 7, 0, 0]);
    }
}
