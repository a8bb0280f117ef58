//! Model-specific registers: which there are, and what to do about those that the host refuses.

use std::collections::BTreeSet;
use std::sync::{Mutex, Once, PoisonError};

use kvm_bindings::{KVM_MAX_MSR_ENTRIES, Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::accel::AccelError;

use super::host_error;

/// The registers that a reset changes, with their power-on values (Intel SDM volume 3 table 10-1; the time stamp
/// counter and what merely describes the processor are not among them). Of these, those that the host has are set.
pub(super) const POWER_ON: &[(u32, u64)] = &[
    (0x10, 0),                      // IA32_TIME_STAMP_COUNTER
    (0x3b, 0),                      // IA32_TSC_ADJUST
    (0x48, 0),                      // IA32_SPEC_CTRL
    (0x174, 0),                     // IA32_SYSENTER_CS
    (0x175, 0),                     // IA32_SYSENTER_ESP
    (0x176, 0),                     // IA32_SYSENTER_EIP
    (0x17a, 0),                     // IA32_MCG_STATUS
    (0x1a0, 1),                     // IA32_MISC_ENABLE: fast strings
    (0x1d9, 0),                     // IA32_DEBUGCTL
    (0x277, 0x0007_0406_0007_0406), // IA32_PAT
    (0x2ff, 0),                     // IA32_MTRR_DEF_TYPE
    (0x6e0, 0),                     // IA32_TSC_DEADLINE
    (0xda0, 0),                     // IA32_XSS
    (0xc000_0081, 0),               // IA32_STAR
    (0xc000_0082, 0),               // IA32_LSTAR
    (0xc000_0083, 0),               // IA32_CSTAR
    (0xc000_0084, 0),               // IA32_FMASK
    (0xc000_0102, 0),               // IA32_KERNEL_GS_BASE
    (0xc000_0103, 0),               // IA32_TSC_AUX
    (0x11, 0),                      // KVM wall clock (old)
    (0x12, 0),                      // KVM system time (old)
    (0x4b56_4d00, 0),               // KVM wall clock
    (0x4b56_4d01, 0),               // KVM system time
    (0x4b56_4d02, 0),               // KVM asynchronous page faults
    (0x4b56_4d03, 0),               // KVM steal time
    (0x4b56_4d04, 0),               // KVM end of interrupt
    (0x4b56_4d05, 1),               // KVM poll control: the host may poll
    (0x4b56_4d06, 0),               // KVM asynchronous page fault interrupt
];

/// Variable and fixed MTRRs (SDM volume 3 section 13.11): KVM has them on every vCPU but does not list them.
pub(super) fn mtrrs() -> impl Iterator<Item = u32> {
    [0x250, 0x258, 0x259].into_iter().chain(0x268..=0x26f).chain(0x200..0x210)
}

/// What the host's KVM knows about MSRs, found out as it is needed.
#[derive(Debug)]
pub(super) struct MsrTable {
    listed: Mutex<Option<Vec<u32>>>,
    refused: Mutex<BTreeSet<u32>>,
    warn: Once,
}

impl Default for MsrTable {
    fn default() -> Self {
        Self { listed: Mutex::default(), refused: Mutex::default(), warn: Once::new() }
    }
}

impl MsrTable {
    /// The registers worth saving, in ascending order.
    pub(super) fn listed(&self, kvm: &Kvm) -> Result<Vec<u32>, AccelError> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = listed.as_ref() {
            return Ok(list.clone());
        }
        let list = kvm.get_msr_index_list().map_err(|e| host_error("KVM_GET_MSR_INDEX_LIST", e))?;
        let mut list: Vec<u32> = list.as_slice().iter().copied().chain(mtrrs()).chain([0x277, 0x2ff]).collect();
        list.sort_unstable();
        list.dedup();
        *listed = Some(list.clone());
        Ok(list)
    }

    /// Reads registers; those that the host refuses are left out.
    pub(super) fn read(&self, vcpu: &VcpuFd, numbers: &[u32]) -> Result<Vec<(u32, u64)>, AccelError> {
        let wanted: Vec<_> = numbers.iter().filter(|n| !self.is_refused(**n)).map(|n| entry(*n, 0)).collect();
        let mut values = Vec::with_capacity(wanted.len());
        self.each_chunk(
            &wanted,
            "reading",
            |msrs| vcpu.get_msrs(msrs),
            |done| {
                values.extend(done.iter().map(|e| (e.index, e.data)));
            },
        )
        .map_err(|e| host_error("KVM_GET_MSRS", e))?;
        Ok(values)
    }

    /// Writes registers; those that the host refuses are skipped.
    pub(super) fn write(&self, vcpu: &VcpuFd, values: &[(u32, u64)]) -> Result<(), AccelError> {
        let wanted: Vec<_> = values.iter().filter(|(n, _)| !self.is_refused(*n)).map(|(n, v)| entry(*n, *v)).collect();
        self.each_chunk(&wanted, "writing", |msrs| vcpu.set_msrs(msrs), |_| ())
            .map_err(|e| host_error("KVM_SET_MSRS", e))
    }

    /// Runs an ioctl that stops at the first register it does not like over all of `wanted`.
    fn each_chunk(
        &self,
        wanted: &[kvm_msr_entry],
        doing: &str,
        mut ioctl: impl FnMut(&mut Msrs) -> Result<usize, kvm_ioctls::Error>,
        mut done: impl FnMut(&[kvm_msr_entry]),
    ) -> Result<(), kvm_ioctls::Error> {
        let mut left = wanted;
        while !left.is_empty() {
            let chunk = &left[..left.len().min(KVM_MAX_MSR_ENTRIES)];
            let mut msrs = Msrs::from_entries(chunk).map_err(|_| kvm_ioctls::Error::new(libc::EINVAL))?;
            let good = ioctl(&mut msrs)?.min(chunk.len());
            done(&msrs.as_slice()[..good]);
            if let Some(bad) = chunk.get(good) {
                self.refuse(bad.index, doing);
                left = &left[good + 1..];
            } else {
                left = &left[good..];
            }
        }
        Ok(())
    }

    fn is_refused(&self, number: u32) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    fn refuse(&self, number: u32, doing: &str) {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        self.warn.call_once(|| {
            log::warn!("the host's KVM refuses {doing} MSR 0x{number:x}; it and others like it are left alone");
        });
    }
}

/// What the host lets a guest see in IA32_ARCH_CAPABILITIES; 0 where it tells nothing.
pub(super) fn arch_capabilities(kvm: &Kvm) -> u64 {
    let Ok(mut msrs) = Msrs::from_entries(&[entry(0x10a, 0)]) else { return 0 };
    match kvm.get_msrs(&mut msrs) {
        Ok(1) => msrs.as_slice().first().map_or(0, |entry| entry.data),
        _ => 0,
    }
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, data, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_register_is_skipped_and_remembered() {
        let table = MsrTable::default();
        let wanted: Vec<_> = (0..600).map(|n| entry(n, u64::from(n))).collect();
        let mut seen = Vec::new();
        let stop_at = |msrs: &mut Msrs| {
            let all = msrs.as_slice();
            Ok(all.iter().position(|e| e.index == 3 || e.index == 299).unwrap_or(all.len()))
        };
        table.each_chunk(&wanted, "reading", stop_at, |done| seen.extend(done.iter().map(|e| e.index))).unwrap();
        assert_eq!(seen, (0..600).filter(|n| *n != 3 && *n != 299).collect::<Vec<_>>());
        assert!(table.is_refused(3) && table.is_refused(299) && !table.is_refused(4));
    }
}
