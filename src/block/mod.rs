//! Disk images: protocols, formats and filters as a graph of blocking nodes, and the queue that a disk controller
//! holds.

mod node;
mod queue;

pub use node::{BlockNode, Extent, IoResult};
pub use queue::{BlockQueue, Completion, Op, Payload, Request};
