//! From `-cpu` to a processor.

use super::model::{CpuidLeaf, HostCpu, Topology};

/// Why there is no such processor.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The text for the user.
    #[error("{0}")]
    Refused(String),
}

/// A processor that a guest can have: its CPUID table, and what follows from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    topology: Topology,
    leaves: Vec<CpuidLeaf>,
}

/// CPUID leaf 1 EDX bit 9.
const APIC: u32 = 1 << 9;

impl CpuModel {
    /// The table that logical processor `index` shows.
    #[must_use]
    pub fn cpuid(&self, index: u32) -> Vec<CpuidLeaf> {
        let mut leaves = self.leaves.clone();
        let apic_id = self.apic_id(index);
        for leaf in &mut leaves {
            if leaf.function == 1 {
                leaf.ebx |= apic_id << 24 | self.topology.threads_per_socket().min(255) << 16;
                leaf.edx |= APIC;
            }
        }
        leaves
    }

    /// The APIC id of logical processor `index`.
    #[must_use]
    pub fn apic_id(&self, index: u32) -> u32 {
        self.topology.apic_id(index)
    }

    /// Family, model and stepping: EAX of leaf 1.
    #[must_use]
    pub fn signature(&self) -> u32 {
        self.leaves.iter().find(|leaf| leaf.function == 1).map_or(0, |leaf| leaf.eax)
    }

    /// Whether it has the machine-check architecture (MCE and MCA).
    #[must_use]
    pub fn has_machine_check(&self) -> bool {
        let both = 1 << 7 | 1 << 14;
        self.leaves.iter().any(|leaf| leaf.function == 1 && leaf.edx & both == both)
    }
}

fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidLeaf {
    CpuidLeaf { function, index: None, eax, ebx, ecx, edx }
}

fn text(function: u32, bytes: &[u8]) -> CpuidLeaf {
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes.get(at + i).copied().unwrap_or(0)));
    leaf(function, [word(0), word(4), word(8), word(12)])
}

/// What `-cpu` asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The processor.
    pub model: CpuModel,
    /// Lines for standard error, without "warning: ".
    pub warnings: Vec<String>,
}

/// Finds the processor that `name` (the machine's default if `None`) and `properties` describe, within what `host`
/// can give.
///
/// # Errors
/// An unknown model or property, or a value that does not fit.
pub fn resolve(
    name: Option<&str>,
    properties: &[(String, String)],
    topology: Topology,
    host: &HostCpu,
) -> Result<Resolved, CpuError> {
    let name = name.unwrap_or("qemu64");
    if name != "qemu64" {
        return Err(CpuError::Refused(format!("unable to find CPU model '{name}'")));
    }
    if let Some((property, _)) = properties.first() {
        return Err(CpuError::Refused(format!("Property '{name}-x86_64-cpu.{property}' not found")));
    }
    let supported = |function: u32| {
        let table = host.supported.as_ref()?;
        table.iter().find(|leaf| leaf.function == function && leaf.index.unwrap_or(0) == 0)
    };
    let mut one = leaf(1, [0x60fb1, 8 << 8, 0x8000_2001, 0x0783_fbfd]);
    let mut ext = leaf(0x8000_0001, [0x60fb1, 0, 5, 0x2191_abfd]);
    if let Some(host) = supported(1) {
        one.ecx &= host.ecx | 1 << 31;
        one.edx &= host.edx;
    }
    if let Some(host) = supported(0x8000_0001) {
        ext.ecx &= host.ecx;
        ext.edx &= host.edx;
    }
    let brand = b"QEMU Virtual CPU version 2.5+";
    let leaves = vec![
        leaf(0, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        one,
        leaf(0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
        leaf(0x4000_0001, [supported(0x4000_0001).map_or(0, |leaf| leaf.eax & 0x0100_000b), 0, 0, 0]),
        leaf(0x8000_0000, [0x8000_000a, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        ext,
        text(0x8000_0002, &brand[..16]),
        text(0x8000_0003, &brand[16..]),
        text(0x8000_0004, &[]),
        leaf(0x8000_0008, [0x3028, 0, 0, 0]),
    ];
    Ok(Resolved { model: CpuModel { topology, leaves }, warnings: Vec::new() })
}
