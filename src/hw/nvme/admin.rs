//! Admin commands (NVMe 1.4 5).

use super::controller::Controller;
use super::data::Command;
use super::identify;
use super::io::ALL;
use super::spec::{Status, admin, feature};

/// Asynchronous event requests that may wait, less one (AERL), and commands an ABORT may have at once (ACL).
pub(super) const EVENT_REQUESTS: u8 = 3;
pub(super) const ABORTS: u8 = 3;

/// Log pages (5.14.1).
mod log_page {
    pub const ERRORS: u8 = 0x01;
    pub const HEALTH: u8 = 0x02;
    pub const FIRMWARE: u8 = 0x03;
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    pub const EFFECTS: u8 = 0x05;
}

/// Composite temperature in kelvins.
const TEMPERATURE: u16 = 0x143;

/// What a command's double word 0 is, if it ends now.
type Answer = Result<Option<u32>, Status>;

impl Controller {
    pub(super) fn admin(&mut self, command: Command) {
        match self.admin_answer(&command) {
            Ok(Some(result)) => self.end(0, command.id(), Status::OK, result),
            Ok(None) => {}
            Err(status) => self.end(0, command.id(), status, 0),
        }
    }

    fn admin_answer(&mut self, command: &Command) -> Answer {
        let done = |result: Result<(), Status>| result.map(|()| Some(0));
        match command.opcode() {
            admin::CREATE_CQ => done(self.create_completion(command)),
            admin::CREATE_SQ => done(self.create_submission(command)),
            admin::DELETE_CQ => done(self.delete_completion(command)),
            admin::DELETE_SQ => done(self.delete_submission(command)),
            admin::IDENTIFY => {
                let bytes = self.identify(command)?;
                self.reply(command, &bytes)
            }
            admin::GET_LOG_PAGE => self.get_log_page(command),
            admin::SET_FEATURES => self.set_features(command),
            admin::GET_FEATURES => self.get_features(command).map(Some),
            admin::ABORT => Ok(Some(self.abort(command))),
            admin::ASYNC_EVENT => {
                if self.event_requests.len() > usize::from(EVENT_REQUESTS) {
                    return Err(Status::EVENT_LIMIT);
                }
                // It waits: nothing here has events to tell.
                self.event_requests.push(command.id());
                Ok(None)
            }
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Sends data to the host.
    fn reply(&self, command: &Command, bytes: &[u8]) -> Answer {
        let list = command.data(&self.ram, bytes.len() as u64, self.page())?;
        list.write(&self.ram, 0, bytes).map_err(|_| Status::DATA_TRANSFER)?;
        Ok(Some(0))
    }

    /// ABORT (5.1): bit 0 of the answer is clear if the command was aborted.
    fn abort(&mut self, command: &Command) -> u32 {
        let (queue, id) = ((command.dword(10) & 0xffff) as u16, (command.dword(10) >> 16) as u16);
        if queue == 0 {
            let Some(at) = self.event_requests.iter().position(|request| *request == id) else { return 1 };
            self.event_requests.remove(at);
            self.end(0, id, Status::ABORTED, 0);
            return 0;
        }
        let mut found = false;
        for namespace in self.namespaces.values_mut() {
            let is_it =
                |tag: &super::io::Tag| matches!(tag, super::io::Tag::Command(w) if w.queue == queue && w.command == id);
            found |= !namespace.port.cancel(is_it).is_empty();
        }
        if found {
            self.end_started(queue, id, Status::ABORTED);
        }
        u32::from(!found)
    }

    /// IDENTIFY (5.15), by controller or namespace structure.
    fn identify(&self, command: &Command) -> Result<Vec<u8>, Status> {
        let id = command.namespace();
        match command.dword(10) & 0xff {
            0x00 | 0x11 => match self.namespaces.get(&id) {
                Some(namespace) => Ok(identify::namespace(namespace)),
                None if id == ALL || id == 0 || id > super::MAX_NAMESPACES => Err(Status::INVALID_NAMESPACE),
                // A namespace that could be there: all zeros (5.15.2.1).
                None => Ok(vec![0; 4096]),
            },
            0x01 => Ok(identify::controller(&self.options, self.write_cache)),
            0x02 | 0x10 => {
                if id >= 0xffff_fffe {
                    return Err(Status::INVALID_NAMESPACE);
                }
                let mut bytes = vec![0; 4096];
                let after = self.namespaces.keys().filter(|other| **other > id);
                for (slot, other) in bytes.chunks_exact_mut(4).zip(after) {
                    slot.copy_from_slice(&other.to_le_bytes());
                }
                Ok(bytes)
            }
            0x03 => {
                let namespace = self.namespaces.get(&id).ok_or(Status::INVALID_NAMESPACE)?;
                Ok(identify::descriptors(namespace))
            }
            _ => Err(Status::INVALID_FIELD),
        }
    }

    /// GET LOG PAGE (5.14).
    fn get_log_page(&mut self, command: &Command) -> Answer {
        let dwords = u64::from(command.dword(10) >> 16) | u64::from(command.dword(11) & 0xffff) << 16;
        let (len, offset) = ((dwords + 1) * 4, command.qword(12));
        let page = match (command.dword(10) & 0xff) as u8 {
            log_page::ERRORS => vec![0; 64],
            log_page::HEALTH => self.health(),
            log_page::FIRMWARE => {
                let mut page = vec![0; 512];
                page[0] = 1;
                page[8..16].copy_from_slice(b"1.0     ");
                page
            }
            log_page::CHANGED_NAMESPACES => vec![0; 4096],
            log_page::EFFECTS => effects(),
            _ => return Err(Status::LOG_PAGE),
        };
        let start = usize::try_from(offset).ok().filter(|start| *start < page.len()).ok_or(Status::INVALID_FIELD)?;
        if !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD);
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(page.len() - start);
        self.reply(command, &page[start..start + len])
    }

    fn health(&self) -> Vec<u8> {
        let mut page = vec![0; 512];
        let features = &self.features;
        let hot = TEMPERATURE >= features.temperature_over || TEMPERATURE <= features.temperature_under;
        page[0] = u8::from(hot) << 1;
        page[1..3].copy_from_slice(&TEMPERATURE.to_le_bytes());
        page[3] = 100; // available spare
        page
    }

    /// SET FEATURES (5.21). Nothing is saved over a reset.
    fn set_features(&mut self, command: &Command) -> Answer {
        const SAVE: u32 = 1 << 31;
        if command.dword(10) & SAVE != 0 {
            return Err(Status(0x10d));
        }
        let value = command.dword(11);
        let vectors = u32::from(self.vector_count());
        let features = &mut self.features;
        match (command.dword(10) & 0xff) as u8 {
            feature::ARBITRATION => features.arbitration = value,
            feature::POWER_MANAGEMENT if value & 0x1f == 0 => {}
            feature::TEMPERATURE => {
                let threshold = (value & 0xffff) as u16;
                match (value >> 16 & 0xf, value >> 20 & 3) {
                    (0, 0) => features.temperature_over = threshold,
                    (0, 1) => features.temperature_under = threshold,
                    _ => return Err(Status::INVALID_FIELD),
                }
            }
            feature::ERROR_RECOVERY => features.error_recovery = value,
            feature::WRITE_CACHE => self.write_cache = value & 1 != 0,
            feature::QUEUES => {
                if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                    return Err(Status::INVALID_FIELD);
                }
                return Ok(Some(self.queue_count()));
            }
            feature::COALESCING => features.coalescing = value,
            feature::VECTOR if value & 0xffff < vectors => {}
            feature::ATOMICITY => features.atomicity = value & 1,
            feature::EVENTS => features.events = value,
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(Some(0))
    }

    fn queue_count(&self) -> u32 {
        let count = u32::from(self.options.queue_pairs) - 1;
        count | count << 16
    }

    /// GET FEATURES (5.9): current and default values, and what can be done with them.
    fn get_features(&self, command: &Command) -> Result<u32, Status> {
        const CAPABILITIES: u32 = 3;
        const CHANGEABLE: u32 = 4;
        let number = (command.dword(10) & 0xff) as u8;
        let select = command.dword(10) >> 8 & 7;
        if select == CAPABILITIES {
            let fixed = matches!(number, feature::POWER_MANAGEMENT | feature::VECTOR);
            return Ok(if fixed { 0 } else { CHANGEABLE });
        }
        let features = &self.features;
        let current = select == 0;
        let or_default = |value: u32, default: u32| if current { value } else { default };
        Ok(match number {
            feature::ARBITRATION => or_default(features.arbitration, 0),
            feature::POWER_MANAGEMENT => 0,
            feature::TEMPERATURE => match (command.dword(11) >> 16 & 0xf, command.dword(11) >> 20 & 3) {
                (0, 0) => or_default(features.temperature_over.into(), 0x157),
                (0, 1) => or_default(features.temperature_under.into(), 0),
                _ => return Err(Status::INVALID_FIELD),
            },
            feature::ERROR_RECOVERY => or_default(features.error_recovery, 0),
            feature::WRITE_CACHE => u32::from(self.write_cache),
            feature::QUEUES => self.queue_count(),
            feature::COALESCING => or_default(features.coalescing, 0),
            feature::VECTOR => {
                let vector = command.dword(11) & 0xffff;
                if vector >= u32::from(self.vector_count()) {
                    return Err(Status::INVALID_FIELD);
                }
                vector
            }
            feature::ATOMICITY => or_default(features.atomicity, 0),
            feature::EVENTS => or_default(features.events, 0),
            _ => return Err(Status::INVALID_FIELD),
        })
    }
}

/// Commands supported and effects (5.14.1.5): bit 0 supported, bit 1 changes content.
fn effects() -> Vec<u8> {
    const SUPPORTED: u32 = 1;
    const CHANGES: u32 = 2;
    let mut page = vec![0; 4096];
    let mut put = |at: usize, value: u32| page[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for opcode in [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c] {
        put(4 * opcode, SUPPORTED);
    }
    for (opcode, effect) in [(0x00, 0), (0x01, CHANGES), (0x02, 0), (0x05, 0), (0x08, CHANGES), (0x09, CHANGES)] {
        put(1024 + 4 * opcode, SUPPORTED | effect);
    }
    page
}
