//! `-m`.

use super::lists;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::keyval::value::parse_size;
use crate::machine::config::MemorySpec;

/// QEMU rounds the size up to this.
const ALIGNMENT: u64 = 8192;

/// Hot-plug slots that the ACPI tables have room for.
const MAX_SLOTS: u64 = 256;

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::MEMORY, text)?;
    low.memory.pairs.extend(pairs.pairs);
    low.memory_origin.clone_from(&low.origin);
    Ok(())
}

/// What all `-m` options came to.
pub(super) fn resolve(low: &Low<'_>) -> Step<MemorySpec> {
    let at = |stop: Stop| stop.of_option(&low.memory_origin);
    let default = MemorySpec::default().size;
    let size = match low.memory.get("size") {
        None | Some("") => default,
        Some(text) => {
            let text = match text.ends_with(|c: char| c.is_ascii_digit()) {
                true => format!("{text}M"),
                false => text.to_owned(),
            };
            match parse_size("size", &text).map_err(Stop::from).map_err(at)? {
                0 => default,
                size => size,
            }
        }
    };
    let Some(size) = size.checked_next_multiple_of(ALIGNMENT) else {
        return Err(Stop::nowhere("ram size too large"));
    };
    let slots = low.memory.number("slots").map_err(Stop::from).map_err(at)?;
    let Some(max) = low.memory.size("maxmem").map_err(Stop::from).map_err(at)? else {
        return match slots {
            Some(_) => Err(Stop::nowhere("slots specified but no max-size")),
            None => Ok(MemorySpec { size, slots: 0, max: size }),
        };
    };
    if max < size {
        return Err(Stop::nowhere(format!(
            "invalid value of maxmem: maximum memory size ({max:#x}) must be at least the initial memory size ({size:#x})"
        )));
    }
    let slots = slots.unwrap_or(0);
    if slots > 0 && max == size {
        return Err(Stop::nowhere(format!(
            "invalid value of maxmem: memory slots were specified but maximum memory size ({max:#x}) is equal to the \
             initial memory size ({size:#x})"
        )));
    }
    if slots > MAX_SLOTS {
        return Err(Stop::nowhere(format!("unsupported amount of memory slots: {slots}")));
    }
    let slots = u32::try_from(slots).unwrap_or(0); // at most MAX_SLOTS
    Ok(MemorySpec { size, slots, max })
}
