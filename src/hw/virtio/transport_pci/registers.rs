//! The regions: which register an access reaches, the legacy interface (4.1.4.10), the configuration access window
//! (4.1.4.9).

use super::super::feature;
use super::super::interrupt::NO_VECTOR;
use super::super::queue::Areas;
use super::super::spec::{
    COMMON_OFFSET, DEVICE_OFFSET, ISR_OFFSET, LEGACY, MODERN, MSIX, MSIX_BAR, NOTIFY_OFFSET, PORT_NOTIFY, legacy,
};
use super::{VirtioPci, region_of};
use crate::bus::{At, ConfigChange, Decode, Width};

/// What the regions decode.
pub const DECODE: Decode = Decode::UP_TO_8;

/// Pages of the legacy interface's queue addresses, and the alignment of the used ring there (2.7.2).
const LEGACY_PAGE: u64 = 4096;

impl VirtioPci {
    pub(super) fn read_region(&mut self, at: At) -> u64 {
        match at.region {
            LEGACY => self.read_legacy(at),
            MSIX => self.msix.as_ref().map_or(0, |msix| msix.read(MSIX_BAR, at)),
            MODERN => self.read_modern(at),
            _ => 0,
        }
    }

    pub(super) fn write_region(&mut self, at: At, value: u64) {
        match at.region {
            LEGACY => self.write_legacy(at, value),
            MSIX => {
                if let Some(msix) = &self.msix {
                    msix.write(MSIX_BAR, at, value);
                }
            }
            PORT_NOTIFY => self.notify(value & 0xffff),
            MODERN => self.write_modern(at, value),
            _ => {}
        }
    }

    fn read_modern(&mut self, at: At) -> u64 {
        let len = at.width.bytes();
        match at.offset {
            COMMON_OFFSET..ISR_OFFSET => self.read_common(at.offset, at.width),
            ISR_OFFSET..DEVICE_OFFSET => u64::from(self.notifier.take_isr()),
            DEVICE_OFFSET..NOTIFY_OFFSET => self.read_device_config(at.offset - DEVICE_OFFSET, len),
            _ => 0,
        }
    }

    fn write_modern(&mut self, at: At, value: u64) {
        match at.offset {
            COMMON_OFFSET..ISR_OFFSET => self.write_common(at.offset, at.width, value),
            ISR_OFFSET..DEVICE_OFFSET => {}
            DEVICE_OFFSET..NOTIFY_OFFSET => {
                self.write_device_config(at.offset - DEVICE_OFFSET, at.width.bytes(), value);
            }
            // The address tells the queue (4.1.4.4); so does the value, which drivers may leave out.
            offset => self.notify((offset - NOTIFY_OFFSET) / u64::from(self.options.notify_multiplier())),
        }
    }

    // -- the legacy interface ------------------------------------------------------------------------------------

    fn legacy_config_start(&self) -> u64 {
        let msix = self.msix.as_ref().is_some_and(|msix| msix.vectors().is_enabled());
        if msix { legacy::CONFIG_WITH_MSIX } else { legacy::CONFIG }
    }

    fn read_legacy(&mut self, at: At) -> u64 {
        let start = self.legacy_config_start();
        if at.offset >= start {
            return self.read_device_config(at.offset - start, at.width.bytes());
        }
        let value = match at.offset {
            legacy::DEVICE_FEATURES => self.offered() & 0xffff_ffff,
            legacy::DRIVER_FEATURES => self.regs.driver_features & 0xffff_ffff,
            legacy::QUEUE_ADDRESS => self.selected().map_or(0, |queue| queue.areas.desc / LEGACY_PAGE),
            legacy::QUEUE_SIZE => {
                self.queues.get(usize::from(self.regs.queue_select)).map_or(0, |q| q.max_size().into())
            }
            legacy::QUEUE_SELECT => self.regs.queue_select.into(),
            legacy::STATUS => self.status().into(),
            legacy::ISR => self.notifier.take_isr().into(),
            legacy::CONFIG_VECTOR => self.notifier.config_vector().into(),
            legacy::QUEUE_VECTOR => self.selected().map_or(NO_VECTOR, |queue| queue.vector).into(),
            _ => 0,
        };
        value & at.width.ones()
    }

    fn write_legacy(&mut self, at: At, value: u64) {
        let start = self.legacy_config_start();
        if at.offset >= start {
            self.write_device_config(at.offset - start, at.width.bytes(), value);
            return;
        }
        let half = (value & 0xffff) as u16;
        match at.offset {
            legacy::DRIVER_FEATURES => self.accept_legacy_features(value & 0xffff_ffff),
            legacy::QUEUE_ADDRESS => self.set_legacy_address(value & 0xffff_ffff),
            legacy::QUEUE_SELECT => self.regs.queue_select = half,
            legacy::QUEUE_NOTIFY => self.notify(half.into()),
            legacy::STATUS => self.write_status((value & 0xff) as u8),
            legacy::CONFIG_VECTOR => self.notifier.set_config_vector(self.valid_vector(half)),
            legacy::QUEUE_VECTOR => self.set_queue_vector(half),
            _ => {}
        }
    }

    /// A legacy driver has no FEATURES_OK: what it writes counts, but for what was not offered.
    fn accept_legacy_features(&mut self, features: u64) {
        if self.regs.active {
            return;
        }
        // A driver that accepts BAD_FEATURE did not read what was offered: it accepts nothing.
        let features = if features & feature::BAD_FEATURE != 0 { 0 } else { features & self.offered() };
        self.regs.driver_features = features;
        self.device.features_accepted(features);
    }

    /// The page number of a queue (2.7.2, legacy layout): the three areas follow each other. 0 resets the device.
    fn set_legacy_address(&mut self, page: u64) {
        if page == 0 {
            self.reset_device();
            return;
        }
        let index = usize::from(self.regs.queue_select);
        let Some(size) = self.queues.get(index).map(|queue| queue.max_size()) else { return };
        let Some(regs) = self.selected_mut().filter(|regs| !regs.enabled) else { return };
        let desc = page * LEGACY_PAGE;
        let driver = desc + 16 * u64::from(size);
        let end = driver + 6 + 2 * u64::from(size);
        regs.areas = Areas { desc, driver, device: end.next_multiple_of(LEGACY_PAGE) };
        regs.size = size;
        self.enable_selected();
    }

    // -- the configuration access window -------------------------------------------------------------------------

    /// What the window points at: offset 8 of the capability is the offset, 12 the length, 4 the base address register.
    fn window_target(&self, window: u8) -> Option<At> {
        let window = usize::from(window);
        let region = region_of(self.config.u8(window + 4))?;
        let offset = u64::from(self.config.u32(window + 8));
        let width = match self.config.u32(window + 12) {
            1 => Width::B1,
            2 => Width::B2,
            4 => Width::B4,
            _ => return None,
        };
        let bar = self.config.bars().into_iter().flatten().find(|bar| bar.region == region)?;
        let inside = offset.checked_add(width.bytes()).is_some_and(|end| end <= bar.len);
        (inside && offset.is_multiple_of(width.bytes())).then_some(At { region, offset, width })
    }

    fn window_data(&self, access: ConfigChange) -> Option<u8> {
        self.window.filter(|window| (0..4).any(|byte| access.touches(u16::from(*window) + 16 + byte)))
    }

    pub(super) fn window_read(&mut self, access: ConfigChange) {
        let Some(window) = self.window_data(access) else { return };
        let Some(at) = self.window_target(window) else { return };
        let value = self.read_region(at);
        self.config.set_u32(usize::from(window) + 16, (value & 0xffff_ffff) as u32);
    }

    pub(super) fn window_written(&mut self, change: ConfigChange) {
        let Some(window) = self.window_data(change) else { return };
        let Some(at) = self.window_target(window) else { return };
        let value = u64::from(self.config.u32(usize::from(window) + 16)) & at.width.ones();
        self.write_region(at, value);
    }
}
