//! Accesses on their way to devices: ports and memory, split and widened to what each region decodes.

use crate::mem::{Backing, FlatRange, RomWrites};

use super::super::device::{At, Decode, DeviceId, Width};
use super::super::ports::PortTarget;
use super::super::posted::PostedWrite;
use super::{Board, MmioTarget};

impl Board {
    fn device_read(&mut self, target: MmioTarget, offset: u64, len: u64) -> u64 {
        let MmioTarget { device, region, decode } = target;
        if device == DeviceId::ECAM {
            return self.ecam_read(offset, len);
        }
        let Some(device) = self.device(device) else { return u64::MAX };
        if let Some(width) = Width::of(len)
            && width >= decode.min
            && width <= decode.max
            && offset & (len - 1) == 0
        {
            return device.read(At { region, offset, width }) & width.ones();
        }
        let mut value = 0;
        let mut done = 0;
        for_each_unit(decode, offset, len, |unit_offset, width, skip, take| {
            let unit = device.read(At { region, offset: unit_offset, width }) & width.ones();
            value |= (unit >> (8 * skip) & ones(take)) << (8 * done);
            done += take;
        });
        value
    }

    fn device_write(&mut self, target: MmioTarget, offset: u64, len: u64, value: u64) {
        let MmioTarget { device, region, decode } = target;
        if device == DeviceId::ECAM {
            self.ecam_write(offset, len, value);
            return;
        }
        let Some(device) = self.device(device) else { return };
        let mut done = 0;
        for_each_unit(decode, offset, len, |unit_offset, width, skip, take| {
            let piece = value >> (8 * done) & ones(take);
            device.write(At { region, offset: unit_offset, width }, piece << (8 * skip));
            done += take;
        });
    }

    /// A port read of 1, 2 or 4 bytes. Ports where nothing answers read as ones.
    pub fn port_read(&mut self, port: u16, width: Width) -> u32 {
        let mut value = 0u64;
        let mut done = 0;
        while done < width.bytes() {
            let at = port.wrapping_add(u16::try_from(done).unwrap_or(0));
            let left = width.bytes() - done;
            let (piece, len) = match self.ports.find(at) {
                None => {
                    log::trace!(target: "port_unassigned_read", "port {at:#06x}");
                    log::debug!(target: "unimp", "read of port {at:#06x}, which no chip decodes");
                    (0xff, 1)
                }
                Some(range) => {
                    let inside = u64::from(at - range.base);
                    let len = left.min(u64::from(range.len) - inside);
                    let (target, offset) = (range.target, range.offset + inside);
                    let piece = match target {
                        PortTarget::Device { device, region, decode } => {
                            self.device_read(MmioTarget { device, region, decode }, offset, len)
                        }
                        PortTarget::PciConfig => self.config_port_read(offset, len),
                    };
                    (piece & ones(len), len)
                }
            };
            value |= piece << (8 * done);
            done += len;
        }
        self.apply_changes();
        u32::try_from(value & width.ones() & 0xffff_ffff).unwrap_or(u32::MAX)
    }

    /// A port write of 1, 2 or 4 bytes.
    pub fn port_write(&mut self, port: u16, width: Width, value: u32) {
        let mut done = 0;
        while done < width.bytes() {
            let at = port.wrapping_add(u16::try_from(done).unwrap_or(0));
            let left = width.bytes() - done;
            let piece = u64::from(value) >> (8 * done);
            let len = match self.ports.find(at) {
                None => {
                    log::trace!(target: "port_unassigned_write", "port {at:#06x}");
                    log::debug!(target: "unimp", "write to port {at:#06x}, which no chip decodes");
                    1
                }
                Some(range) => {
                    let inside = u64::from(at - range.base);
                    let len = left.min(u64::from(range.len) - inside);
                    let (target, offset) = (range.target, range.offset + inside);
                    let piece = piece & ones(len);
                    match target {
                        PortTarget::Device { device, region, decode } => {
                            self.device_write(MmioTarget { device, region, decode }, offset, len, piece);
                        }
                        PortTarget::PciConfig => self.config_port_write(offset, len, piece),
                    }
                    len
                }
            };
            done += len;
        }
        self.apply_changes();
    }

    /// The device behind a port, if an access of `width` is a single one to it.
    fn string_target(&mut self, port: u16, width: Width) -> Option<(DeviceId, At)> {
        let range = self.ports.find(port)?;
        let inside = u64::from(port - range.base);
        let PortTarget::Device { device, region, decode } = range.target else { return None };
        let offset = range.offset + inside;
        let whole = inside + width.bytes() <= u64::from(range.len) && offset % width.bytes() == 0;
        let decoded = width >= decode.min && width <= decode.max;
        (whole && decoded).then_some((device, At { region, offset, width }))
    }

    /// A string of port reads (`rep ins`); `data` holds whole units.
    pub fn port_read_string(&mut self, port: u16, width: Width, data: &mut [u8]) {
        let unit = width as usize;
        let mut done = 0;
        let mut target = self.string_target(port, width);
        while done < data.len() {
            if let Some((device, at)) = target {
                let taken = self.device(device).map_or(0, |d| d.read_string(at, &mut data[done..]));
                done += taken - taken % unit;
                if taken == 0 {
                    target = None;
                }
            }
            let Some(piece) = data.get_mut(done..done + unit) else { break };
            piece.copy_from_slice(&self.port_read(port, width).to_le_bytes()[..unit]);
            done += unit;
        }
    }

    /// A string of port writes (`rep outs`).
    pub fn port_write_string(&mut self, port: u16, width: Width, data: &[u8]) {
        let unit = width as usize;
        let mut done = 0;
        let mut target = self.string_target(port, width);
        while done < data.len() {
            if let Some((device, at)) = target {
                let taken = self.device(device).map_or(0, |d| d.write_string(at, &data[done..]));
                done += taken - taken % unit;
                if taken == 0 {
                    target = None;
                }
            }
            let Some(piece) = data.get(done..done + unit) else { break };
            let mut bytes = [0; 4];
            bytes[..unit].copy_from_slice(piece);
            self.port_write(port, width, u32::from_le_bytes(bytes));
            done += unit;
        }
    }

    fn find_memory(&self, gpa: u64) -> Option<&FlatRange<MmioTarget>> {
        let index = self.flat.partition_point(|range| range.start <= gpa);
        self.flat.get(index.checked_sub(1)?).filter(|range| gpa <= range.last())
    }

    /// A memory read of any length that no accelerator could serve from RAM. Where nothing answers, ones.
    pub fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = gpa.wrapping_add(done as u64);
            let left = (data.len() - done).min(8);
            let step = match self.find_memory(at) {
                None => {
                    log::trace!(target: "memory_unassigned_read", "address {at:#x}");
                    log::debug!(target: "invalid_mem", "read of address {at:#x}, where nothing is");
                    data[done] = 0xff;
                    1
                }
                Some(range) => {
                    let inside = at - range.start;
                    let step = usize::try_from(range.len - inside).unwrap_or(left).min(left);
                    let piece = &mut data[done..done + step];
                    match &range.backing {
                        Backing::Ram { block, offset } | Backing::Rom { block, offset, .. } => {
                            block.read(offset + inside, piece);
                        }
                        Backing::Device { target, offset } => {
                            let (target, offset) = (*target, offset + inside);
                            let value = self.device_read(target, offset, step as u64);
                            piece.copy_from_slice(&value.to_le_bytes()[..step]);
                        }
                    }
                    step
                }
            };
            done += step;
        }
        self.apply_changes();
    }

    /// A memory write of any length that no accelerator could put into RAM.
    pub fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = gpa.wrapping_add(done as u64);
            let left = (data.len() - done).min(8);
            let step = match self.find_memory(at) {
                None => {
                    log::trace!(target: "memory_unassigned_write", "address {at:#x}");
                    log::debug!(target: "invalid_mem", "write to address {at:#x}, where nothing is");
                    1
                }
                Some(range) => {
                    let inside = at - range.start;
                    let step = usize::try_from(range.len - inside).unwrap_or(left).min(left);
                    let piece = &data[done..done + step];
                    match &range.backing {
                        Backing::Ram { block, offset } => block.write(offset + inside, piece),
                        Backing::Rom { writes: RomWrites::Lost, .. } => {}
                        Backing::Rom { writes: RomWrites::Ram { block, offset }, .. } => {
                            block.write(offset + inside, piece);
                        }
                        Backing::Rom { writes: RomWrites::Device { target, offset }, .. }
                        | Backing::Device { target, offset } => {
                            let (target, offset) = (*target, offset + inside);
                            let mut bytes = [0; 8];
                            bytes[..step].copy_from_slice(piece);
                            self.device_write(target, offset, step as u64, u64::from_le_bytes(bytes));
                        }
                    }
                    step
                }
            };
            done += step;
        }
        self.apply_changes();
    }

    /// Carries out a write that was posted.
    pub(super) fn deliver(&mut self, write: PostedWrite) {
        match write {
            PostedWrite::Memory { gpa, data, len } => self.mmio_write(gpa, &data[..len.min(data.len())]),
            PostedWrite::Port { port, width, value } => self.port_write(port, width, value),
        }
    }
}

/// The lowest `bytes` bytes.
fn ones(bytes: u64) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 }
}

/// Cuts an access into units that `decode` allows: calls `unit(offset, width, bytes to skip, bytes to take)`.
fn for_each_unit(decode: Decode, offset: u64, len: u64, mut unit: impl FnMut(u64, Width, u64, u64)) {
    let mut at = offset;
    let end = offset + len;
    while at < end {
        let mut width = Width::at_most((end - at).min(decode.max.bytes()));
        while at & (width.bytes() - 1) != 0 {
            width = Width::at_most(width.bytes() / 2);
        }
        let width = width.max(decode.min);
        let start = at & !(width.bytes() - 1);
        let skip = at - start;
        let take = (width.bytes() - skip).min(end - at);
        unit(start, width, skip, take);
        at += take;
    }
}
