//! Network cards. Each holds a [`crate::net::Link`] and moves frames between it and guest memory.

pub mod e1000;
mod frame;
mod microwire;
pub mod ne2000;
pub mod rtl8139;
