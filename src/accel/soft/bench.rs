//! A processor with some memory and nothing else, for unit tests.

use std::sync::Arc;

use crate::cpu::{CpuModel, HostCpu, Topology, resolve};
use crate::event::Clock;
use crate::mem::{RamBlock, RamRange};

use super::cpu::Cpu;
use super::mmu::PhysicalMap;

/// The processor and its RAM.
pub struct Bench {
    /// The processor.
    pub cpu: Box<Cpu>,
    /// RAM from physical address 0.
    pub ram: Arc<RamBlock>,
}

impl Bench {
    /// Bytes of RAM.
    pub const RAM: u64 = 16 << 20;

    /// A processor of model `max` after reset, with [`Bench::RAM`] bytes of zeros.
    pub fn max() -> Self {
        Self::with_model("max")
    }

    /// A processor of a named model ("qemu64,+avx2").
    pub fn with_model(model: &str) -> Self {
        let ram = RamBlock::anonymous("test", Self::RAM).unwrap();
        let range = RamRange { gpa: 0, len: Self::RAM, block: Arc::clone(&ram), offset: 0, read_only: false };
        let mut cpu = Cpu::new(0, cpu_model(model), Clock::manual());
        cpu.attach_memory(Arc::new(PhysicalMap::new(&[range]).unwrap()));
        Self { cpu, ram }
    }

    /// Puts bytes into RAM.
    pub fn load(&mut self, gpa: u64, bytes: &[u8]) {
        self.ram.write(gpa, bytes);
    }
}

/// A model by its name and properties.
pub fn cpu_model(text: &str) -> Arc<CpuModel> {
    let mut parts = text.split(',');
    let name = parts.next();
    let properties: Vec<(String, String)> = parts
        .map(|part| match part.split_at(1) {
            ("+", name) => (name.to_owned(), "on".to_owned()),
            ("-", name) => (name.to_owned(), "off".to_owned()),
            _ => panic!("+feature or -feature"),
        })
        .collect();
    Arc::new(resolve(name, &properties, Topology::default(), &HostCpu::default()).unwrap().model)
}
