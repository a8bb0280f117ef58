//! The common configuration structure (4.1.4.3).

use super::super::interrupt::NO_VECTOR;
use super::super::spec::{common, status};
use super::{QueueRegs, VirtioPci};
use crate::bus::Width;

/// Replaces the lower or upper half of a 64-bit register.
fn set_half(field: &mut u64, upper: bool, value: u64) {
    let value = value & 0xffff_ffff;
    *field = if upper { *field & 0xffff_ffff | value << 32 } else { *field & !0xffff_ffff | value };
}

impl VirtioPci {
    /// Reads a field. Fields are read in their own width (4.1.3.1); the 64-bit ones also in halves.
    pub(super) fn read_common(&mut self, offset: u64, width: Width) -> u64 {
        let low = self.common_field(offset);
        let is_wide = (common::QUEUE_DESC..common::QUEUE_NOTIFY_DATA).contains(&offset);
        let value = if width == Width::B8 && is_wide { low | self.common_field(offset + 4) << 32 } else { low };
        value & width.ones()
    }

    fn common_field(&self, offset: u64) -> u64 {
        let queue = self.selected();
        let area = |pick: fn(&QueueRegs) -> u64| queue.map_or(0, pick);
        let low = |value: u64| value & 0xffff_ffff;
        match offset {
            common::DEVICE_FEATURE_SELECT => self.regs.device_feature_select.into(),
            common::DEVICE_FEATURE => feature_word(self.offered_modern(), self.regs.device_feature_select),
            common::DRIVER_FEATURE_SELECT => self.regs.driver_feature_select.into(),
            common::DRIVER_FEATURE => feature_word(self.regs.driver_features, self.regs.driver_feature_select),
            common::CONFIG_VECTOR => self.notifier.config_vector().into(),
            common::NUM_QUEUES => self.queues.len() as u64,
            common::STATUS => self.status().into(),
            common::GENERATION => self.notifier.generation().into(),
            common::QUEUE_SELECT => self.regs.queue_select.into(),
            common::QUEUE_SIZE => queue.map_or(0, |queue| queue.size).into(),
            common::QUEUE_VECTOR => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            common::QUEUE_ENABLE => queue.is_some_and(|queue| queue.enabled).into(),
            common::QUEUE_NOTIFY_OFF => self.regs.queue_select.into(),
            common::QUEUE_DESC => low(area(|queue| queue.areas.desc)),
            common::QUEUE_DESC_HIGH => area(|queue| queue.areas.desc) >> 32,
            common::QUEUE_DRIVER => low(area(|queue| queue.areas.driver)),
            common::QUEUE_DRIVER_HIGH => area(|queue| queue.areas.driver) >> 32,
            common::QUEUE_DEVICE => low(area(|queue| queue.areas.device)),
            common::QUEUE_DEVICE_HIGH => area(|queue| queue.areas.device) >> 32,
            // A queue's reset is complete when the write returns.
            common::QUEUE_NOTIFY_DATA | common::QUEUE_RESET => 0,
            _ => 0,
        }
    }

    /// Writes a field.
    pub(super) fn write_common(&mut self, offset: u64, width: Width, value: u64) {
        if width == Width::B8 {
            if (common::QUEUE_DESC..common::QUEUE_NOTIFY_DATA).contains(&offset) {
                self.write_area(offset, value & 0xffff_ffff);
                self.write_area(offset + 4, value >> 32);
            }
            return;
        }
        let half = (value & 0xffff) as u16;
        match offset {
            common::DEVICE_FEATURE_SELECT => self.regs.device_feature_select = (value & 0xffff_ffff) as u32,
            common::DRIVER_FEATURE_SELECT => self.regs.driver_feature_select = (value & 0xffff_ffff) as u32,
            common::DRIVER_FEATURE => self.write_driver_feature(value),
            common::CONFIG_VECTOR => self.notifier.set_config_vector(self.valid_vector(half)),
            common::STATUS => self.write_status((value & 0xff) as u8),
            common::QUEUE_SELECT => self.regs.queue_select = half,
            common::QUEUE_SIZE => {
                if let Some(queue) = self.selected_mut().filter(|queue| !queue.enabled) {
                    queue.size = half;
                }
            }
            common::QUEUE_VECTOR => self.set_queue_vector(half),
            // 0 is not a value that drivers may write; QEMU takes it for nothing, too.
            common::QUEUE_ENABLE if half == 1 => self.enable_selected(),
            common::QUEUE_RESET if half == 1 => self.reset_selected(),
            common::QUEUE_DESC..common::QUEUE_NOTIFY_DATA => self.write_area(offset, value),
            _ => {}
        }
    }

    fn write_area(&mut self, offset: u64, value: u64) {
        let Some(queue) = self.selected_mut().filter(|queue| !queue.enabled) else { return };
        let upper = offset & 4 != 0;
        match offset & !7 {
            common::QUEUE_DESC => set_half(&mut queue.areas.desc, upper, value),
            common::QUEUE_DRIVER => set_half(&mut queue.areas.driver, upper, value),
            common::QUEUE_DEVICE => set_half(&mut queue.areas.device, upper, value),
            _ => {}
        }
    }

    /// Features count until FEATURES_OK (3.1.1).
    fn write_driver_feature(&mut self, value: u64) {
        if self.regs.status & status::FEATURES_OK != 0 {
            return;
        }
        let select = self.regs.driver_feature_select;
        if select < 2 {
            set_half(&mut self.regs.driver_features, select == 1, value);
        }
    }
}

/// One of the two words of feature bits; there are no further ones.
fn feature_word(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}
