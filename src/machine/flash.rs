//! Flash memory that firmware lies in: `-drive if=pflash` and `-machine pflash0=`, `pflash1=`.

use std::sync::Arc;

use crate::block::{Disk, Image};
use crate::hw::flash::spec::SECTOR;
use crate::mem::RamBlock;

use super::build::BuildError;
use super::config::{Config, DriveInterface};
use super::drives::{Drive, Drives};

/// Chips that the board has room for: unit 0 ends at 4 GiB, unit 1 below it.
const UNITS: u32 = 2;

/// Bytes of all chips at most: what QEMU allows below 4 GiB.
const MAX_TOTAL: u64 = 8 << 20;

/// A chip's content and the image that it came from.
pub struct FlashUnit {
    /// "system.flash0".
    pub name: &'static str,
    /// The drive's or node's name.
    pub drive: String,
    /// The content.
    pub memory: Arc<RamBlock>,
    /// The image.
    pub disk: Disk,
}

/// A chip on the board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlacedFlash {
    /// "system.flash0".
    pub name: &'static str,
    /// The drive's or node's name.
    pub drive: String,
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The drive of a unit, if the command line names one.
fn drive_of<'a>(config: &Config, drives: &'a Drives, unit: u32) -> Result<Option<&'a Drive>, BuildError> {
    let given = drives.list().iter().find(|drive| drive.interface == DriveInterface::Pflash && drive.unit == unit);
    let Some(name) = node_of(config, unit) else { return Ok(given) };
    if let Some(drive) = given {
        return Err(BuildError::option(&drive.origin, "clashes with -machine"));
    }
    match drives.get(name) {
        Some(drive) => Ok(Some(drive)),
        None => Err(BuildError::Text(format!("Property 'cfi.pflash01.drive' can't find value '{name}'"))),
    }
}

fn node_of(config: &Config, unit: u32) -> Option<&str> {
    config.machine.property(&format!("pflash{unit}")).filter(|name| !name.is_empty())
}

/// What is said when `-bios` has no effect.
#[must_use]
pub fn warning(config: &Config) -> Option<String> {
    let flash = node_of(config, 0).is_some()
        || config.drives.iter().any(|drive| drive.interface == DriveInterface::Pflash && drive.unit == 0);
    (flash && config.bios.is_some()).then(|| "warning: -bios has no effect: the firmware is in pflash0".to_owned())
}

/// Reads the chips that the command line names; none is an empty list.
///
/// # Errors
/// An image is missing, cannot be read or has a length that no chip has.
pub fn load(config: &Config, drives: &Drives) -> Result<Vec<FlashUnit>, BuildError> {
    let mut units: Vec<FlashUnit> = Vec::new();
    let mut total = 0;
    for (unit, name) in (0..UNITS).zip(["system.flash0", "system.flash1"]) {
        let Some(drive) = drive_of(config, drives, unit)? else { continue };
        if units.len() < usize::try_from(unit).unwrap_or(0) {
            return Err(BuildError::Text("pflash1 requires pflash0".to_owned()));
        }
        if units.iter().any(|other| other.drive == drive.id) {
            return Err(BuildError::Text(format!("Drive '{}' is already in use by another device", drive.id)));
        }
        let size = |text: String| BuildError::Text(format!("can't get size of block device {}: {text}", drive.id));
        let image = drive.disk.0.image().ok_or_else(|| size("No medium found".to_owned()))?;
        let len = image.node.len().map_err(|error| size(crate::host::reason(&error)))?;
        if len == 0 || !len.is_multiple_of(SECTOR) {
            return Err(BuildError::Text(format!(
                "system firmware block device {} has invalid size {len}\n{}",
                drive.id,
                super::message(&format!("info: its size must be a non-zero multiple of {SECTOR:#x}"))
            )));
        }
        total += len;
        if total > MAX_TOTAL {
            return Err(BuildError::Text(format!("combined size of system firmware exceeds {MAX_TOTAL} bytes")));
        }
        let memory = content(&drive.id, &image, name, len)?;
        units.push(FlashUnit { name, drive: drive.id.clone(), memory, disk: drive.disk.0.clone() });
    }
    Ok(units)
}

fn content(drive: &str, image: &Image, name: &'static str, len: u64) -> Result<Arc<RamBlock>, BuildError> {
    let memory = RamBlock::anonymous(name, len).map_err(|source| BuildError::Memory { name, source })?;
    let mut block = vec![0; usize::try_from(SECTOR).unwrap_or(0)];
    for offset in (0..len).step_by(block.len()) {
        image.node.read_at(offset, &mut block).map_err(|error| {
            BuildError::Text(format!("could not read block device {drive}: {}", crate::host::reason(&error)))
        })?;
        memory.write(offset, &block);
    }
    Ok(memory)
}
