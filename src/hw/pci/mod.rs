//! What PCI functions of several families share.

pub mod msix;

pub use msix::{Msix, MsixLayout, MsixVectors};
