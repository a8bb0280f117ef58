//! `-icount`.

use super::lists;
use super::low::Low;
use super::stop::{Step, Stop};
use crate::accel::Icount;
use crate::keyval::value::parse_number;
use crate::machine::config::AccelSpec;

/// The largest `shift`.
const MAX_SHIFT: u64 = 10;

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let pairs = low.list(&lists::ICOUNT, text)?;
    low.icount = Some((low.origin.clone(), pairs));
    Ok(())
}

/// What `-icount` comes to. It is the software CPU's, which it makes the default.
pub(super) fn resolve(low: &mut Low<'_>) -> Step {
    let Some((origin, pairs)) = low.icount.take() else { return Ok(()) };
    low.config.icount = icount(&pairs).map_err(|stop| stop.of_option(&origin))?;
    if low.config.icount.is_none() {
        return Ok(());
    }
    match low.accels.first() {
        None => low.accels.push((String::new(), AccelSpec { name: "tcg".into(), properties: Vec::new() })),
        Some((_, accel)) if accel.name != "tcg" => {
            return Err(Stop::nowhere("-icount is not allowed with hardware virtualization"));
        }
        Some(_) => {}
    }
    Ok(())
}

fn icount(pairs: &crate::keyval::Pairs) -> Step<Option<Icount>> {
    if let Some(mode) = pairs.get("rr") {
        return Err(match mode {
            "record" | "replay" if pairs.get("rrfile").is_none() => Stop::here("File name not specified for replay"),
            "record" | "replay" => Stop::unsupported(format_args!("rr={mode}")),
            _ => Stop::here(format!("Invalid icount rr option: {mode}")),
        });
    }
    let (align, sleep) = (pairs.switch("align")?, pairs.switch("sleep")?.unwrap_or(true));
    let Some(shift) = pairs.get("shift") else {
        // Without it QEMU counts nothing.
        return if align.is_some() {
            Err(Stop::here("Please specify shift option when using align"))
        } else {
            Ok(None)
        };
    };
    let align = align.unwrap_or(false);
    if align && !sleep {
        return Err(Stop::here("align=on and sleep=off are incompatible"));
    }
    let number = if shift == "auto" { None } else { Some(number(shift)?) };
    match number {
        None => Err(Stop::unsupported("shift=auto")),
        Some(_) if align => Err(Stop::unsupported("align=on")),
        Some(_) if sleep => Err(Stop::unsupported("sleep=on")),
        Some(shift) => Ok(Some(Icount { shift })),
    }
}

fn number(text: &str) -> Step<u32> {
    let invalid = || Stop::here("icount: Invalid shift value");
    let shift = parse_number("shift", text).ok().filter(|shift| *shift <= MAX_SHIFT).ok_or_else(invalid)?;
    u32::try_from(shift).map_err(|_| invalid())
}
