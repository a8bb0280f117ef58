//! HMP's answers: pure functions from the data of [`super::info`] to text, as QEMU 10.0 prints it.

mod block;
mod lapic;
mod machine;
mod memory;
mod network;
mod pci;
mod qtree;

pub use block::{block_devices, block_node, block_stats};
pub use lapic::{lapic, lapic_id};
pub use machine::{cpus, hotpluggable_cpus, interrupt_controllers, irq_statistics, mice, roms, vnc_servers};
pub use memory::{flat_views, memory_tree};
pub use network::{network, usernet};
pub use pci::{class_name, pci_devices};
pub use qtree::qtree;
