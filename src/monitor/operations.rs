//! Operations that both protocols have and that take more than one call.

use std::fs::File;
use std::io::{BufWriter, Write};

use crate::chardev::Spec;
use crate::host::reason;
use crate::ui::{ConsoleKind, Surface, picture};

use super::control::{CommandError, CommandResult, Control};
use super::paging;

/// A picture's format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Picture {
    /// Portable pixmap.
    Ppm,
    /// Portable network graphics.
    Png,
}

fn create(path: &str) -> CommandResult<BufWriter<File>> {
    let file = File::create(path).map_err(|e| CommandError::new(format!("Could not open '{path}': {}", reason(&e))))?;
    Ok(BufWriter::new(file))
}

fn write_failed(path: &str, error: &std::io::Error) -> CommandError {
    CommandError::new(format!("Could not write '{path}': {}", reason(error)))
}

const CHUNK: usize = 64 << 10;

/// Saves a CPU's linear memory.
///
/// # Errors
/// There is no such CPU, the memory is not mapped, or the file cannot be written.
pub fn memsave(control: &dyn Control, cpu: u32, start: u64, size: u64, path: &str) -> CommandResult {
    let state = control.cpu_state(cpu)?;
    let read = |gpa: u64, buf: &mut [u8]| control.read_physical(gpa, buf);
    let mut file = create(path)?;
    chunks(start, size, |at, buf| {
        if !paging::read_linear(&state, &read, at, buf) {
            return Err(CommandError::new(format!("Invalid addr 0x{start:016x}/size {size} specified")));
        }
        file.write_all(buf).map_err(|e| write_failed(path, &e))
    })?;
    file.flush().map_err(|e| write_failed(path, &e))
}

/// Saves physical memory; what is not there reads as zeros.
///
/// # Errors
/// The file cannot be written.
pub fn pmemsave(control: &dyn Control, start: u64, size: u64, path: &str) -> CommandResult {
    let mut file = create(path)?;
    chunks(start, size, |at, buf| {
        control.read_physical(at, buf);
        file.write_all(buf).map_err(|e| write_failed(path, &e))
    })?;
    file.flush().map_err(|e| write_failed(path, &e))
}

fn chunks(start: u64, size: u64, mut f: impl FnMut(u64, &mut [u8]) -> CommandResult) -> CommandResult {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < size {
        let len = usize::try_from(size - done).map_or(CHUNK, |left| left.min(CHUNK));
        buffer[..len].fill(0);
        f(start.wrapping_add(done), &mut buffer[..len])?;
        done += len as u64;
    }
    Ok(())
}

/// Saves a screen: the first graphics console, or the named one.
///
/// # Errors
/// There is no such console, or the file cannot be written.
pub fn screendump(
    control: &dyn Control,
    path: &str,
    format: Picture,
    device: Option<&str>,
    head: Option<u64>,
) -> CommandResult {
    if device.is_none() && head.is_some_and(|head| head != 0) {
        return Err(CommandError::new("'head' must be specified together with 'device'"));
    }
    let surface = grab(control, device, head.unwrap_or(0))?;
    let bytes = match format {
        Picture::Ppm => picture::ppm(&surface),
        Picture::Png => picture::png(&surface).map_err(|e| write_failed(path, &e))?,
    };
    let opened =
        File::create(path).map_err(|e| CommandError::new(format!("failed to open file '{path}': {}", reason(&e))));
    opened?.write_all(&bytes).map_err(|e| write_failed(path, &e))
}

fn grab(control: &dyn Control, device: Option<&str>, head: u64) -> CommandResult<Surface> {
    let nothing = || match device {
        Some(device) => CommandError::device_not_found(device),
        None => CommandError::new("There is no console to take a screendump from"),
    };
    let display = control.display().ok_or_else(nothing)?;
    let is_graphic =
        |index: usize| display.console(index).is_some_and(|console| console.kind() == ConsoleKind::Graphic);
    let mut graphic = display.console_names().into_iter().enumerate().filter(|(index, _)| is_graphic(*index));
    let (index, _) = match device {
        Some(device) => {
            let nth = usize::try_from(head).unwrap_or(usize::MAX);
            graphic.filter(|(_, name)| name == device).nth(nth)
        }
        None => graphic.next(),
    }
    .ok_or_else(nothing)?;
    if display.shown() == index {
        display.refresh();
        return Ok(display.with_surface(Surface::clone));
    }
    let console = display.console(index).ok_or_else(nothing)?;
    let mut surface = Surface::new(640, 480);
    console.refresh(&mut surface, true);
    Ok(surface)
}

/// `chardev-add`: options as on the command line.
///
/// # Errors
/// The registry's.
pub fn chardev_add(control: &dyn Control, options: &str) -> CommandResult {
    let mut spec = Spec::default();
    for (place, option) in split_options(options).into_iter().enumerate() {
        match option.split_once('=') {
            Some(("id", id)) => id.clone_into(&mut spec.id),
            Some(("backend", backend)) => backend.clone_into(&mut spec.backend),
            Some((name, value)) => spec.options.push((name.to_owned(), value.to_owned())),
            None if place == 0 => spec.backend = option,
            None => match option.strip_prefix("no") {
                Some(name) => spec.options.push((name.to_owned(), "off".to_owned())),
                None => spec.options.push((option, "on".to_owned())),
            },
        }
    }
    control.chardevs().open(&spec).map_err(|e| CommandError::new(e.0))
}

/// Splits at commas; two commas are one.
fn split_options(text: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = options.len() - 1;
        match c {
            ',' if chars.peek() == Some(&',') => {
                chars.next();
                options[last].push(',');
            }
            ',' => options.push(String::new()),
            c => options[last].push(c),
        }
    }
    options.retain(|option| !option.is_empty());
    options
}
