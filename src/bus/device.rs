//! The one trait that every chip implements.

use std::any::Any;

use super::pci::PciFunction;

/// Names a device of a board.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceId(pub(super) u32);

impl DeviceId {
    /// The memory window on configuration space, which the board serves itself.
    pub(super) const ECAM: Self = Self(u32::MAX);
}

/// Names one of a device's own register regions; each device numbers its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Region(pub u16);

/// Names a timer, completion or descriptor that a device asked for; each device numbers its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

/// The width of a bus access, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Width {
    /// 8 bits.
    B1 = 1,
    /// 16 bits.
    B2 = 2,
    /// 32 bits.
    B4 = 4,
    /// 64 bits.
    B8 = 8,
}

impl Width {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self as u64
    }

    /// All ones in this width: what a floating bus reads as.
    #[must_use]
    pub fn ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// The width of `bytes` bytes, if there is one.
    #[must_use]
    pub fn of(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::B1),
            2 => Some(Self::B2),
            4 => Some(Self::B4),
            8 => Some(Self::B8),
            _ => None,
        }
    }

    /// The widest access that is at most `bytes` long.
    #[must_use]
    pub fn at_most(bytes: u64) -> Self {
        match bytes {
            0 | 1 => Self::B1,
            2 | 3 => Self::B2,
            4..=7 => Self::B4,
            _ => Self::B8,
        }
    }
}

/// Where in a device an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// The region.
    pub region: Region,
    /// Byte offset in the region.
    pub offset: u64,
    /// Width; one that the region decodes.
    pub width: Width,
}

/// The widths that a region's registers decode. The bus splits wider accesses (little-endian) and widens narrower
/// ones to an aligned access of the smallest width (reads extract; writes put zeros in the other bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decode {
    /// Narrowest.
    pub min: Width,
    /// Widest.
    pub max: Width,
}

impl Decode {
    /// Byte registers: most ISA chips.
    pub const BYTES: Self = Self { min: Width::B1, max: Width::B1 };
    /// Any width up to 32 bits.
    pub const UP_TO_4: Self = Self { min: Width::B1, max: Width::B4 };
    /// Any width up to 64 bits.
    pub const UP_TO_8: Self = Self { min: Width::B1, max: Width::B8 };
    /// 32-bit registers only.
    pub const DWORDS: Self = Self { min: Width::B4, max: Width::B4 };
}

/// Why a device is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// Power on, or the whole machine's reset line.
    System,
    /// The machine leaves suspend to RAM (ACPI 6.5, 16.1.3): as [`Reset::System`], but what decodes memory was in the
    /// resume well and stayed, so that the firmware finds itself where it was.
    Wakeup,
}

/// A chip. All calls come under the board lock and never overlap.
///
/// Guests cannot make any of these fail or panic: whatever they do has a documented effect or none.
pub trait Device: Any + Send {
    /// A read of the device's registers; the value is in the low bits.
    fn read(&mut self, at: At) -> u64;

    /// A write; bits of `value` above the width are zero.
    fn write(&mut self, at: At, value: u64);

    /// The front of a string read (`rep ins`) of one register: the device may fill as many whole units of `data` as
    /// it can without effects other than the data's, and tells how many bytes that were. The bus reads the next unit
    /// with [`Device::read`], and asks again.
    fn read_string(&mut self, _at: At, _data: &mut [u8]) -> usize {
        0
    }

    /// The front of a string write (`rep outs`) to one register; as [`Device::read_string`].
    fn write_string(&mut self, _at: At, _data: &[u8]) -> usize {
        0
    }

    /// A timer, completion or descriptor that this device asked for.
    fn event(&mut self, _token: Token) {}

    /// Back to the power-on state.
    fn reset(&mut self, kind: Reset);

    /// The PCI function that the device is, if it is one.
    fn as_pci(&mut self) -> Option<&mut dyn PciFunction> {
        None
    }
}
