//! SMART (ATA/ATAPI-6 8.55, ATA8-ACS 7.53; attribute pages after SFF-8035i).

use super::drive::Drive;

/// Subcommands, in the Features register.
mod sub {
    pub const READ_DATA: u8 = 0xd0;
    pub const READ_THRESHOLDS: u8 = 0xd1;
    pub const ATTRIBUTE_AUTOSAVE: u8 = 0xd2;
    pub const SAVE_ATTRIBUTES: u8 = 0xd3;
    pub const EXECUTE_OFFLINE: u8 = 0xd4;
    pub const READ_LOG: u8 = 0xd5;
    pub const ENABLE: u8 = 0xd8;
    pub const DISABLE: u8 = 0xd9;
    pub const RETURN_STATUS: u8 = 0xda;
    pub const AUTO_OFFLINE: u8 = 0xdb;
}

/// Logs (ATA/ATAPI-6 8.55.6).
mod log {
    pub const DIRECTORY: u8 = 0;
    pub const SUMMARY_ERROR: u8 = 1;
    pub const SELF_TEST: u8 = 6;
}

/// What the LBA Mid and High registers must hold, and hold when the disk is well.
const SIGNATURE: (u8, u8) = (0x4f, 0xc2);
const PAGE: usize = 512;
/// Self-test log entries (ATA/ATAPI-6 table 59).
const SELF_TESTS: usize = 21;

/// An attribute: identifier, flags, value, raw value, threshold.
struct Attribute {
    id: u8,
    flags: u16,
    value: u8,
    raw: u32,
    threshold: u8,
}

const ATTRIBUTES: [Attribute; 7] = [
    Attribute { id: 1, flags: 0x03, value: 100, raw: 0, threshold: 6 }, // raw read error rate
    Attribute { id: 3, flags: 0x03, value: 100, raw: 16, threshold: 0 }, // spin-up time
    Attribute { id: 4, flags: 0x02, value: 100, raw: 100, threshold: 20 }, // start/stop count
    Attribute { id: 5, flags: 0x03, value: 100, raw: 0, threshold: 36 }, // reallocated sectors
    Attribute { id: 9, flags: 0x03, value: 100, raw: 1, threshold: 0 }, // power-on hours
    Attribute { id: 12, flags: 0x03, value: 100, raw: 0, threshold: 0 }, // power cycles
    // Airflow temperature: now, and lowest and highest.
    Attribute { id: 190, flags: 0x03, value: 69, raw: 0x1f1f_001f, threshold: 50 },
];

/// A self-test that was run: its kind as EXECUTE OFF-LINE takes it.
type SelfTest = u8;

/// The drive's SMART state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::hw) struct Smart {
    pub enabled: bool,
    autosave: bool,
    /// Newest last; kept short.
    tests: [SelfTest; SELF_TESTS],
    tests_run: usize,
}

impl Smart {
    pub const COLD: Self = Self { enabled: true, autosave: true, tests: [0; SELF_TESTS], tests_run: 0 };
}

impl Drive {
    /// SMART.
    pub fn smart_command(&mut self) {
        let sub = self.regs.feature.now;
        let signed = (self.regs.mid.now, self.regs.high.now) == SIGNATURE;
        if !signed || (!self.smart.enabled && sub != sub::ENABLE) {
            self.abort();
            return;
        }
        match sub {
            sub::ENABLE | sub::DISABLE => {
                self.smart.enabled = sub == sub::ENABLE;
                self.done();
            }
            sub::ATTRIBUTE_AUTOSAVE => match self.regs.count.now {
                0 => self.set_autosave(false),
                0xf1 => self.set_autosave(true),
                _ => self.abort(),
            },
            sub::AUTO_OFFLINE | sub::SAVE_ATTRIBUTES => self.done(),
            // The disk is always well: the signature stays.
            sub::RETURN_STATUS => self.done(),
            sub::READ_DATA => self.reply(self.smart_data()),
            sub::READ_THRESHOLDS => self.reply(thresholds()),
            sub::EXECUTE_OFFLINE => self.smart_test(),
            sub::READ_LOG => self.smart_read_log(),
            _ => self.abort(),
        }
    }

    fn set_autosave(&mut self, on: bool) {
        self.smart.autosave = on;
        self.done();
    }

    /// EXECUTE OFF-LINE IMMEDIATE: tests pass at once.
    fn smart_test(&mut self) {
        match self.regs.low.now {
            kind @ (0 | 1 | 2 | 0x81 | 0x82) => {
                self.smart.tests[self.smart.tests_run % SELF_TESTS] = kind;
                self.smart.tests_run += 1;
                self.done();
            }
            // Abort the test: there is none.
            0x7f => self.done(),
            _ => self.abort(),
        }
    }

    fn smart_data(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[0] = 1; // structure version
        for (slot, attribute) in page[2..].chunks_exact_mut(12).zip(&ATTRIBUTES) {
            slot[0] = attribute.id;
            slot[1..3].copy_from_slice(&attribute.flags.to_le_bytes());
            slot[3] = attribute.value;
            slot[4] = attribute.value; // worst
            slot[5..9].copy_from_slice(&attribute.raw.to_le_bytes());
        }
        page[362] = if self.smart.autosave { 0x82 } else { 0x02 }; // off-line collection completed
        page[364..366].copy_from_slice(&288u16.to_le_bytes()); // seconds of an off-line collection
        page[367] = 0x01 | 1 << 4 | 1 << 3; // off-line immediate, self-test, off-line read scan
        page[368] = 3; // saves attributes, autosave
        page[370] = 1; // error logging
        page[372] = 2; // minutes of the short test
        page[373] = 54; // and of the extended one
        sum(page)
    }

    fn smart_read_log(&mut self) {
        let pages = usize::from(self.regs.count.now);
        let mut page = vec![0; PAGE];
        match self.regs.low.now {
            log::DIRECTORY if pages == 1 => {
                page[0] = 1; // version
                for log in [log::SUMMARY_ERROR, log::SELF_TEST] {
                    page[usize::from(log) * 2] = 1;
                }
            }
            log::SUMMARY_ERROR if pages == 1 => {
                page[0] = 1;
                page = sum(page);
            }
            log::SELF_TEST if pages == 1 => page = self.self_test_log(),
            _ => return self.abort(),
        }
        self.reply(page);
    }

    /// The self-test log (ATA/ATAPI-6 8.55.6.8.2): 21 descriptors of 24 bytes.
    fn self_test_log(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[0] = 1;
        let kept = self.smart.tests_run.min(SELF_TESTS);
        for (slot, kind) in page[2..].chunks_exact_mut(24).zip(&self.smart.tests[..kept]) {
            slot[0] = *kind;
            slot[1] = 0; // completed without error
            slot[2..4].copy_from_slice(&1u16.to_le_bytes()); // power-on hours
        }
        page[508] = match self.smart.tests_run {
            0 => 0,
            run => u8::try_from((run - 1) % SELF_TESTS + 1).unwrap_or(0),
        };
        sum(page)
    }
}

fn thresholds() -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[0] = 1;
    for (slot, attribute) in page[2..].chunks_exact_mut(12).zip(&ATTRIBUTES) {
        slot[0] = attribute.id;
        slot[1] = attribute.threshold;
    }
    sum(page)
}

/// Sets the last byte so that all 512 add up to zero.
fn sum(mut page: Vec<u8>) -> Vec<u8> {
    let sum = page.iter().take(PAGE - 1).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(last) = page.last_mut() {
        *last = sum.wrapping_neg();
    }
    page
}
