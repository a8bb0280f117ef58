//! PIIX3 and PIIX4 IDE with bus mastering, ATA disks and ATAPI CD-ROM drives.
//!
//! Documents are listed in `spec`. Guests rely on the legacy ports and interrupts, PIO in blocks of the sectors that a
//! command names, bus-master DMA with its interrupt bit, and the CD-ROM's sense sequence when a medium changes.
//! Not modelled: native PCI mode, drive timing, overlapped and queued commands, security, the host protected area,
//! audio playback. Their commands abort, their configuration bits are kept or fixed.

mod ata;
mod atapi;
mod channel;
mod classes;
mod dma;
mod drive;
mod identify;
mod mmc;
mod ncq;
mod piix;
mod smart;
mod spec;
#[cfg(test)]
mod tests;

pub use classes::{CLASSES, Class, DriveProperties, Property, PropertyError};
pub(in crate::hw) use drive::{Drive, Fifo, Phase};
pub use drive::{DriveKind, DriveOptions, ErrorAction, FaultSink, Geometry, IoFault, OnError, TraySink};
pub(in crate::hw) use ncq::Outcome;
pub(in crate::hw) use piix::info;
pub use piix::{Chip, DriveInfo, EjectError, PiixIde};
pub use spec::{
    BUS_MASTER, DECODE, LEGACY_IRQS, LEGACY_PORTS, PRIMARY_COMMAND, PRIMARY_CONTROL, SECONDARY_COMMAND,
    SECONDARY_CONTROL,
};
pub(in crate::hw) use spec::{cmd, control, device, status};
