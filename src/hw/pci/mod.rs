//! What PCI functions of several families share.

pub mod bridge;
mod msi;
pub mod msix;

pub use msi::Msi;
pub use msix::{Msix, MsixLayout, MsixVectors};
