//! A logical unit: what it is, what it remembers, and which command does what.

use super::{Plan, Sense, Step, be, be_len, cut, op};
use crate::block::{Op, Payload};

/// Disk or CD-ROM drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Direct access block device (SBC-3).
    Disk,
    /// CD/DVD device (MMC-6).
    Cdrom,
}

/// What a unit is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Disk or CD-ROM drive.
    pub kind: Kind,
    /// T10 vendor identification, 8 characters.
    pub vendor: String,
    /// Product identification, 16 characters.
    pub product: String,
    /// Product revision, 4 characters.
    pub version: String,
    /// Serial number; empty: none.
    pub serial: String,
    /// Text of the device identification; empty: none.
    pub device_id: String,
    /// NAA name; 0: none.
    pub wwn: u64,
    /// Bytes of a logical block.
    pub logical_block_size: u32,
    /// Bytes of a physical block.
    pub physical_block_size: u32,
    /// Smallest and best transfer in bytes; 0: not told.
    pub io_sizes: (u32, u32),
    /// Bytes that discards should be aligned to; 0: no discards.
    pub discard_granularity: u32,
    /// Bytes of an UNMAP at most.
    pub max_unmap_size: u64,
    /// Revolutions a minute; 1: solid state; 0: not told.
    pub rotation_rate: u16,
    /// The disk can be taken out.
    pub removable: bool,
    /// FUA and DPO bits are honoured.
    pub dpofua: bool,
    /// The write cache is on at power-on.
    pub write_cache: bool,
}

/// News about the medium for GET EVENT STATUS NOTIFICATION (MMC-6 6.6.2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MediaEvent {
    None,
    EjectRequest,
    NewMedia,
    MediaRemoval,
}

/// The disk behind a unit, at the moment of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Medium {
    /// Whether there is one.
    pub present: bool,
    /// Bytes.
    pub capacity: u64,
    /// It cannot be written.
    pub read_only: bool,
}

/// A logical unit.
#[derive(Debug)]
pub struct Unit {
    pub(super) options: Options,
    pub(super) write_cache: bool,
    /// What the next command hears instead of being done.
    attention: Option<Sense>,
    pub(super) tray_open: bool,
    pub(super) locked: bool,
    pub(super) event: MediaEvent,
    /// START STOP UNIT stopped it.
    stopped: bool,
}

impl Unit {
    /// A unit after power-on.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let write_cache = options.write_cache;
        Self {
            options,
            write_cache,
            attention: Some(Sense::RESET),
            tray_open: false,
            locked: false,
            event: MediaEvent::None,
            stopped: false,
        }
    }

    /// Disk or CD-ROM drive.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.options.kind
    }

    /// Bytes of a logical block.
    #[must_use]
    pub fn block_size(&self) -> u64 {
        u64::from(self.options.logical_block_size.max(512))
    }

    /// Whether the tray is open, and whether the guest locked it.
    #[must_use]
    pub fn tray(&self) -> (bool, bool) {
        (self.tray_open, self.locked)
    }

    /// Whether writes need no flush.
    #[must_use]
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }

    /// A reset of the unit, the target or the bus.
    pub fn reset(&mut self) {
        self.write_cache = self.options.write_cache;
        self.attention = Some(Sense::RESET);
        self.locked = false;
        self.stopped = false;
    }

    /// Someone outside wants the medium: the guest is told.
    pub fn request_eject(&mut self) {
        self.event = MediaEvent::EjectRequest;
    }

    /// Opens or closes the tray from outside.
    pub fn set_tray_open(&mut self, open: bool) {
        if self.tray_open != open {
            self.tray_open = open;
            self.event = if open { MediaEvent::MediaRemoval } else { MediaEvent::NewMedia };
            self.attention = Some(Sense::MEDIUM_CHANGED);
        }
    }

    /// The medium was exchanged; the tray closes.
    pub fn medium_changed(&mut self) {
        self.tray_open = false;
        self.event = MediaEvent::NewMedia;
        self.attention = Some(Sense::MEDIUM_CHANGED);
    }

    /// The disk's length changed.
    pub fn capacity_changed(&mut self) {
        self.attention = Some(Sense::CAPACITY_CHANGED);
    }

    /// What a command comes to. `out(n)` gives the first n bytes of the initiator's data, or fewer if there are not so
    /// many.
    pub fn plan(&mut self, cdb: &[u8], medium: Medium, out: &dyn Fn(usize) -> Vec<u8>) -> Plan {
        let operation = cdb.first().copied().unwrap_or(0);
        // SAM-5 5.14.3: these do not clear the condition, nor fail for it.
        if !matches!(operation, op::INQUIRY | op::REPORT_LUNS | op::REQUEST_SENSE | op::GET_EVENT_STATUS)
            && let Some(sense) = self.attention.take()
        {
            return Plan::Check(sense);
        }
        match self.common(cdb, medium, out) {
            Some(plan) => plan,
            None => self.on_medium(cdb, medium, out).unwrap_or_else(Plan::Check),
        }
    }

    /// The commands that need no medium.
    fn common(&mut self, cdb: &[u8], medium: Medium, out: &dyn Fn(usize) -> Vec<u8>) -> Option<Plan> {
        let cd = self.options.kind == Kind::Cdrom;
        Some(match cdb[0] {
            op::INQUIRY => self.inquiry(cdb),
            op::REQUEST_SENSE => {
                let sense = self.attention.take().unwrap_or(Sense::NONE);
                cut(sense.fixed().to_vec(), be_len(cdb, 4, 1))
            }
            op::MODE_SENSE_6 | op::MODE_SENSE_10 => self.mode_sense(cdb, medium),
            op::MODE_SELECT_6 | op::MODE_SELECT_10 => self.mode_select(cdb, out),
            // One initiator: a reservation keeps nobody out.
            op::RESERVE_6 | op::RELEASE_6 | op::RESERVE_10 | op::RELEASE_10 => Plan::Reply(Vec::new()),
            op::START_STOP_UNIT => self.start_stop(cdb),
            op::PREVENT_ALLOW => {
                self.locked = be(cdb, 4, 1) & 1 != 0;
                Plan::Reply(Vec::new())
            }
            op::GET_CONFIGURATION if cd => self.get_configuration(cdb, medium),
            op::GET_EVENT_STATUS if cd => self.get_event_status(cdb, medium),
            op::MECHANISM_STATUS if cd => cut(vec![0, 0, 0, 0, 0, 1, 0, 0], be_len(cdb, 8, 2)),
            _ => return None,
        })
    }

    fn ready(&self, medium: Medium) -> Result<(), Sense> {
        match (medium.present, self.tray_open || self.stopped && self.options.kind == Kind::Cdrom) {
            (_, true) => Err(Sense::TRAY_OPEN),
            (false, _) => Err(Sense::NOT_PRESENT),
            _ => Ok(()),
        }
    }

    fn on_medium(&mut self, cdb: &[u8], medium: Medium, out: &dyn Fn(usize) -> Vec<u8>) -> Result<Plan, Sense> {
        let cd = self.options.kind == Kind::Cdrom;
        match cdb[0] {
            op::TEST_UNIT_READY => self.ready(medium).map(|()| Plan::Reply(Vec::new())),
            op::READ_TOC if cd => self.ready(medium).and_then(|()| self.read_toc(cdb, medium)),
            op::READ_DISC_INFORMATION if cd => {
                self.ready(medium).map(|()| cut(super::mmc::disc_information(), be_len(cdb, 7, 2)))
            }
            op::READ_CAPACITY_10 => self.ready(medium).and_then(|()| self.read_capacity_10(cdb, medium)),
            op::SERVICE_ACTION_IN_16 if be(cdb, 1, 1) & 0x1f == u64::from(op::READ_CAPACITY_16) => {
                self.ready(medium).map(|()| self.read_capacity_16(cdb, medium))
            }
            op::SEEK_6 | op::SEEK_10 => self.ready(medium).map(|()| Plan::Reply(Vec::new())),
            op::SYNCHRONIZE_CACHE_10 | op::SYNCHRONIZE_CACHE_16 => {
                self.ready(medium)?;
                Ok(Plan::Steps(vec![Step { op: Op::Flush, offset: 0, payload: Payload::Len(0) }]))
            }
            _ => {
                let plan = self.block_command(cdb, medium, out)?;
                self.ready(medium)?;
                Ok(plan)
            }
        }
    }

    /// START STOP UNIT (SBC-3 5.25, MMC-6 6.42): loads and ejects; power conditions have no effect.
    fn start_stop(&mut self, cdb: &[u8]) -> Plan {
        let control = be(cdb, 4, 1);
        if control >> 4 != 0 {
            return Plan::Reply(Vec::new());
        }
        let (start, load_eject) = (control & 1 != 0, control & 2 != 0);
        let removable = self.options.kind == Kind::Cdrom || self.options.removable;
        if !load_eject || !removable {
            self.stopped = !start && self.options.kind != Kind::Cdrom;
            return Plan::Reply(Vec::new());
        }
        if !start && !self.tray_open && self.locked {
            return Plan::Check(Sense::REMOVAL_PREVENTED);
        }
        self.tray_open = !start;
        Plan::Reply(Vec::new())
    }
}
