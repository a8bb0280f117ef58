//! What users of one image allow each other: QEMU's permissions, which its image locks stand for.

/// What a user of an image does with it, as QEMU names it; the order is the byte's.
pub(super) const PERMISSIONS: [&str; 4] = ["consistent read", "write", "write unchanged", "resize"];

/// A set of permissions (bits of [`PERMISSIONS`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Reads that see a consistent image.
    pub const CONSISTENT_READ: Self = Self(1);
    /// Writes that change what a reader sees.
    pub const WRITE: Self = Self(2);
    /// Changes of the length.
    pub const RESIZE: Self = Self(8);

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    pub(super) const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn has(self, bit: usize) -> bool {
        self.0 & 1 << bit != 0
    }
}

/// What is used and what is not shared with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sharing {
    /// What this user does.
    pub used: Permissions,
    /// What nobody else may do meanwhile.
    pub unshared: Permissions,
}
