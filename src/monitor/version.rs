//! The version that monitors report: that of the QEMU whose interface this is.

/// Major, minor, micro.
pub const NUMBERS: (u32, u32, u32) = (10, 0, 2);
/// As text.
pub const TEXT: &str = "10.0.2";
/// What stands behind it.
pub const PACKAGE: &str = "";
