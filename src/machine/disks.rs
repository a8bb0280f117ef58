//! Disks of `-device` on controllers other than IDE: finding their drive, their common properties, and how monitors and
//! error reports name them.

use std::sync::Arc;

use crate::block::{ErrorAction, ErrorPolicy};
use crate::bus::DeviceId;
use crate::hw::ide::{self, IoFault};
use crate::hw::storage::{Fault, FaultSink, Policies};

use super::build::BuildError;
use super::devices::Site;
use super::drives::Drive;
use super::props::Props;

/// A disk that was placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedDisk {
    /// The drive's name.
    pub drive: String,
    /// How monitors name the device.
    pub qdev: String,
    /// `id=` of the device, or nothing.
    pub id: String,
    /// The chip that has it.
    pub controller: DeviceId,
    /// A CD-ROM drive.
    pub cdrom: bool,
}

/// Sizes of blocks and transfers, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockSizes {
    pub logical: u32,
    pub physical: u32,
    pub min_io: u32,
    pub opt_io: u32,
    /// `None`: the default.
    pub discard: Option<u32>,
}

impl PlacedDisk {
    /// The number of the first one in error reports; numbers below are places on the board's own controller.
    pub const FIRST_NUMBER: usize = 12;
}

impl Site<'_> {
    /// The drive that `drive=` names, which nothing else uses.
    pub(super) fn take_drive(&self, props: &mut Props<'_>, class: &str) -> Result<Drive, BuildError> {
        let name = props.text("drive").ok_or_else(|| props.error("drive property not set"))?;
        let found = self.drives.get(name).cloned();
        let drive = found.ok_or_else(|| props.error(format!("Property '{class}.drive' can't find value '{name}'")))?;
        let used = self.placed.disks.iter().any(|disk| disk.drive == drive.id)
            || self.placed.ide.values().any(|placed| placed.drive == drive.id)
            || self.pc.flash.iter().any(|flash| flash.drive == drive.id);
        match used {
            true => Err(props.error(format!("Drive '{}' is already in use by another device", drive.id))),
            false => Ok(drive),
        }
    }

    /// `rerror=` and `werror=`, of the drive or of the device.
    pub(super) fn policies(&self, props: &mut Props<'_>, drive: &Drive) -> Result<Policies, BuildError> {
        let mut policy = |name: &str, of_drive: &Option<String>, read: bool| {
            let given = props.text(name).filter(|word| *word != "auto").or(of_drive.as_deref()).unwrap_or("auto");
            ErrorPolicy::by_name(given, read)
                .ok_or_else(|| props.error(format!("Parameter '{name}' does not accept value '{given}'")))
        };
        Ok(Policies {
            read: policy("rerror", &drive.policies.0, true)?,
            write: policy("werror", &drive.policies.1, false)?,
        })
    }

    /// `logical_block_size` and its relatives.
    pub(super) fn block_sizes(&self, props: &mut Props<'_>) -> Result<BlockSizes, BuildError> {
        let logical = block_size(props, "logical_block_size")?;
        let physical = block_size(props, "physical_block_size")?.max(logical);
        let mut size = |name: &str| -> Result<u32, BuildError> {
            let bytes = props.size(name, 0)?;
            let narrow = u32::try_from(bytes).ok().filter(|bytes| bytes.is_multiple_of(logical));
            narrow.ok_or_else(|| props.error(format!("{name} must be a multiple of logical_block_size")))
        };
        let (min_io, opt_io) = (size("min_io_size")?, size("opt_io_size")?);
        let discard = match props.size("discard_granularity", u64::from(u32::MAX))? {
            0xffff_ffff => None,
            bytes => {
                let narrow = u32::try_from(bytes).ok().filter(|bytes| bytes.is_multiple_of(logical));
                let wrong = || props.error("discard_granularity must be a multiple of logical_block_size");
                Some(narrow.ok_or_else(wrong)?)
            }
        };
        if min_io / logical > u32::from(u16::MAX) {
            return Err(
                props.error(format!("min_io_size must not exceed {}", u64::from(u16::MAX) * u64::from(logical)))
            );
        }
        Ok(BlockSizes { logical, physical, min_io, opt_io, discard })
    }

    /// `write-cache=`; automatic is what the drive's cache mode says.
    pub(super) fn write_cache(&self, props: &mut Props<'_>, drive: &Drive) -> Result<bool, BuildError> {
        let auto = drive.disk.0.image().is_none_or(|image| image.cache.writeback);
        match props.text("write-cache") {
            None | Some("auto") => Ok(auto),
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(other) => Err(props.error(format!("Parameter 'write-cache' does not accept value '{other}'"))),
        }
    }

    /// Remembers a disk; what it is given hears of its failed requests. `tail` is what QEMU's path has after the device's
    /// name.
    pub(super) fn place_disk(
        &mut self,
        controller: DeviceId,
        drive: &Drive,
        id: &str,
        cdrom: bool,
        tail: &str,
    ) -> FaultSink {
        let name = match id {
            "" => {
                let number = self.placed.anonymous;
                self.placed.anonymous += 1;
                format!("/machine/peripheral-anon/device[{number}]")
            }
            id => format!("/machine/peripheral/{id}"),
        };
        let number = PlacedDisk::FIRST_NUMBER + self.placed.disks.len();
        let qdev = if tail.is_empty() && !id.is_empty() { id.to_owned() } else { format!("{name}{tail}") };
        self.placed.disks.push(PlacedDisk { drive: drive.id.clone(), qdev, id: id.to_owned(), controller, cdrom });
        let sink = self.faults.sink();
        Arc::new(move |fault: Fault| {
            let Fault { write, action, no_space, reason } = fault;
            let action = match action {
                ErrorAction::Report => ide::ErrorAction::Report,
                ErrorAction::Ignore => ide::ErrorAction::Ignore,
                ErrorAction::Stop => ide::ErrorAction::Stop,
            };
            sink(IoFault { drive: number, write, action, no_space, reason });
        })
    }

    /// What an iothread's name stands for.
    pub(super) fn io_thread(&self, props: &mut Props<'_>) -> Result<Option<crate::event::LoopHandle>, BuildError> {
        let Some(name) = props.text("iothread") else { return Ok(None) };
        match self.wiring.objects.thread(name) {
            Some(thread) => Ok(Some(thread.handle().clone())),
            None => Err(props.error(format!("Device '{name}' not found"))),
        }
    }
}

/// A power of two of 512 bytes to 2 MiB; 512 by default.
fn block_size(props: &mut Props<'_>, name: &str) -> Result<u32, BuildError> {
    match props.size(name, 0)? {
        0 => Ok(512),
        bytes if (512..=2 << 20).contains(&bytes) && bytes.is_power_of_two() => Ok(u32::try_from(bytes).unwrap_or(512)),
        _ => Err(props.error(format!("parameter {name} must be a power of 2 between 512 and 2097152"))),
    }
}
