//! Registers, messages and destinations (Intel SDM volume 3, chapter 11 "Advanced programmable interrupt controller").

/// An entry of the local vector table (11.5.1), in the order of its registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl Lvt {
    pub(super) const COUNT: usize = 6;

    /// The bits that software may write; the mode of the timer is bits 18-17.
    pub(super) fn writable(self) -> u32 {
        match self {
            Self::Timer => 0x0007_00ff,
            Self::Thermal | Self::Performance => 0x0001_07ff,
            Self::Lint0 | Self::Lint1 => 0x0001_a7ff,
            Self::Error => 0x0001_00ff,
        }
    }

    /// The bits that exist, with those that hardware alone sets.
    pub(super) fn defined(self) -> u32 {
        match self {
            Self::Lint0 | Self::Lint1 => self.writable() | lvt::SEND_PENDING | lvt::REMOTE_IRR,
            _ => self.writable() | lvt::SEND_PENDING,
        }
    }
}

/// Bits of a local vector table entry (figure 11-8).
pub(super) mod lvt {
    pub const SEND_PENDING: u32 = 1 << 12;
    pub const REMOTE_IRR: u32 = 1 << 14;
    pub const LEVEL: u32 = 1 << 15;
    pub const MASKED: u32 = 1 << 16;
    pub const TIMER_MODE: u32 = 3 << 17;
    pub const TIMER_PERIODIC: u32 = 1 << 17;
    pub const TIMER_TSC_DEADLINE: u32 = 2 << 17;
}

/// Bits of the spurious interrupt vector register (11.9).
pub(super) mod svr {
    pub const ENABLE: u32 = 1 << 8;
    pub const SUPPRESS_EOI_BROADCAST: u32 = 1 << 12;
    /// Vector, enable, focus processor checking, EOI broadcast suppression.
    pub const WRITABLE: u32 = 0x13ff;
}

/// Bits of the error status register (11.5.3).
pub(super) mod esr {
    pub const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Bits of the interrupt command register (11.6.1).
pub(super) mod icr {
    pub const LOGICAL: u32 = 1 << 11;
    pub const ASSERT: u32 = 1 << 14;
    pub const LEVEL: u32 = 1 << 15;
    pub const SHORTHAND_SHIFT: u32 = 18;
    /// Vector, delivery mode, destination mode, level, trigger mode, shorthand.
    pub const WRITABLE: u32 = 0x000c_cfff;
}

/// Bits of IA32_APIC_BASE (11.4.4, 11.12.1).
pub(super) mod base {
    pub const BSP: u64 = 1 << 8;
    pub const EXTD: u64 = 1 << 10;
    pub const ENABLE: u64 = 1 << 11;
    pub const DEFAULT_ADDRESS: u64 = 0xfee0_0000;
}

/// Version 14h, six entries in the local vector table, EOI broadcasts can be suppressed (11.4.8).
pub(super) const VERSION: u32 = 0x14 | (Lvt::COUNT as u32 - 1) << 16 | 1 << 24;

/// IA32_TSC_DEADLINE.
pub(super) const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The first of the x2APIC MSRs; register n of the page (offset n * 16) is MSR 800h + n.
pub(super) const MSR_X2APIC: u32 = 0x800;
/// The last MSR of that range.
pub(super) const MSR_X2APIC_LAST: u32 = 0x8ff;

/// The registers (table 11-1), with the word of those that are 256 bits wide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reg {
    Id,
    Version,
    Tpr,
    Apr,
    Ppr,
    Eoi,
    Rrd,
    Ldr,
    Dfr,
    Svr,
    Isr(usize),
    Tmr(usize),
    Irr(usize),
    Esr,
    IcrLow,
    IcrHigh,
    Lvt(Lvt),
    InitialCount,
    CurrentCount,
    DivideConfig,
    SelfIpi,
}

impl Reg {
    /// Register `number` (offset / 16), if there is one.
    pub(super) fn decode(number: u32) -> Option<Self> {
        let word = (number & 7) as usize;
        Some(match number {
            0x02 => Self::Id,
            0x03 => Self::Version,
            0x08 => Self::Tpr,
            0x09 => Self::Apr,
            0x0a => Self::Ppr,
            0x0b => Self::Eoi,
            0x0c => Self::Rrd,
            0x0d => Self::Ldr,
            0x0e => Self::Dfr,
            0x0f => Self::Svr,
            0x10..=0x17 => Self::Isr(word),
            0x18..=0x1f => Self::Tmr(word),
            0x20..=0x27 => Self::Irr(word),
            0x28 => Self::Esr,
            0x30 => Self::IcrLow,
            0x31 => Self::IcrHigh,
            0x32 => Self::Lvt(Lvt::Timer),
            0x33 => Self::Lvt(Lvt::Thermal),
            0x34 => Self::Lvt(Lvt::Performance),
            0x35 => Self::Lvt(Lvt::Lint0),
            0x36 => Self::Lvt(Lvt::Lint1),
            0x37 => Self::Lvt(Lvt::Error),
            0x38 => Self::InitialCount,
            0x39 => Self::CurrentCount,
            0x3e => Self::DivideConfig,
            0x3f => Self::SelfIpi,
            _ => return None,
        })
    }
}

/// How a message acts on its receiver (table 11-3 and 11.5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivery {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    StartUp,
    ExtInt,
}

impl Delivery {
    /// From bits 10-8 of a command register, a local vector, or a message; 3 is reserved.
    pub(super) fn decode(register: u32) -> Option<Self> {
        Some(match register >> 8 & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// Who takes a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Destination {
    /// The APIC with this id.
    Physical(u32),
    /// Those whose logical id matches (11.6.2.2).
    Logical(u32),
    /// All.
    All,
    /// All but the APIC of this index.
    AllBut(usize),
    /// The APIC of this index.
    Only(usize),
}

/// An interrupt message on the bus between the APICs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) destination: Destination,
    pub(super) delivery: Delivery,
    pub(super) vector: u8,
    /// The receiver's EOI goes to the I/O APICs.
    pub(super) level: bool,
}

impl Message {
    /// A message-signalled interrupt (11.11): `None` for one that says nothing.
    pub(super) fn from_msi(address: u64, data: u32) -> Option<Self> {
        let id = (address >> 12 & 0xff) as u32;
        let logical = address & 1 << 2 != 0;
        let level = data & icr::LEVEL != 0;
        if level && data & icr::ASSERT == 0 {
            return None;
        }
        let destination = match (id, logical) {
            (0xff, _) => Destination::All,
            (id, true) => Destination::Logical(id),
            (id, false) => Destination::Physical(id),
        };
        Some(Self { destination, delivery: Delivery::decode(data)?, vector: data.to_le_bytes()[0], level })
    }
}

/// What decides whether a message is for an APIC, in one word that senders read without a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addressing(u64);

impl Addressing {
    const ENABLED: u64 = 1 << 32;
    const X2APIC: u64 = 1 << 33;
    const CLUSTERS: u64 = 1 << 34;
    const ACCEPTS: u64 = 1 << 35;

    pub(super) fn new(base: u64, ldr: u32, dfr: u32, svr: u32) -> Self {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        Self(
            u64::from(ldr)
                | flag(base & base::ENABLE != 0, Self::ENABLED)
                | flag(base & base::EXTD != 0, Self::X2APIC)
                | flag(dfr >> 28 == 0, Self::CLUSTERS)
                | flag(svr & svr::ENABLE != 0, Self::ACCEPTS),
        )
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    /// Whether the APIC is there at all.
    pub(super) fn is_enabled(self) -> bool {
        self.0 & Self::ENABLED != 0
    }

    /// Whether it is enabled by software too, and so takes ordinary interrupts.
    pub(super) fn accepts_interrupts(self) -> bool {
        self.is_enabled() && self.0 & Self::ACCEPTS != 0
    }

    /// Whether a logical destination names it (11.6.2.2, 11.12.10.2).
    pub(super) fn matches_logical(self, mda: u32) -> bool {
        let ldr = (self.0 & 0xffff_ffff) as u32;
        if self.0 & Self::X2APIC != 0 {
            return ldr >> 16 == mda >> 16 && ldr & mda & 0xffff != 0;
        }
        let (ldr, mda) = (ldr >> 24, mda & 0xff);
        if self.0 & Self::CLUSTERS == 0 {
            return ldr & mda != 0;
        }
        (mda >> 4 == 0xf || ldr >> 4 == mda >> 4) && ldr & mda & 0xf != 0
    }
}

/// 256 flags, one a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Vectors([u64; 4]);

impl Vectors {
    pub(super) const NONE: Self = Self([0; 4]);

    pub(super) fn assign(&mut self, vector: u8, on: bool) {
        let (word, bit) = (usize::from(vector >> 6), 1 << (vector & 63));
        if on {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    pub(super) fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    /// The highest vector that is set.
    pub(super) fn highest(&self) -> Option<u8> {
        let words = (0u8..4).rev().zip(self.0.iter().rev());
        words.filter(|(_, word)| **word != 0).map(|(index, word)| index * 64 + word.ilog2().to_le_bytes()[0]).next()
    }

    /// 32 of the flags, as the registers show them.
    pub(super) fn word(&self, index: usize) -> u32 {
        let half = self.0[index / 2 % 4] >> (32 * (index % 2));
        (half & 0xffff_ffff) as u32
    }
}
