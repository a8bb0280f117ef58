//! Registers (NVMe 1.4 3.1), queues and interrupts of the controller.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::data::Command;
use super::io::Tag;
use super::queue::{Completion, Entry, Submission};
use super::spec::{
    CAP, CC_EN, CSTS_CFS, CSTS_RDY, CSTS_SHST_COMPLETE, CSTS_SHST_OCCURRING, DOORBELLS, MQES, Status, VERSION, reg,
};
use super::{NamespaceOptions, Options};
use crate::bus::{IrqLine, Width};
use crate::hw::pci::MsixVectors;
use crate::hw::storage::DiskPort;
use crate::mem::GuestRam;

/// A namespace and its disk.
pub(super) struct Namespace {
    pub options: NamespaceOptions,
    pub port: DiskPort<Tag>,
}

/// What a controller reset clears (7.3.2): all but AQA, ASQ, ACQ and the interrupt mask's wires.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Features {
    pub temperature_over: u16,
    pub temperature_under: u16,
    pub events: u32,
    pub arbitration: u32,
    pub coalescing: u32,
    pub error_recovery: u32,
    pub atomicity: u32,
}

/// The controller.
pub(super) struct Controller {
    // Wires.
    pub ram: GuestRam,
    vectors: Arc<MsixVectors>,
    irq: IrqLine,
    // Options.
    pub options: Options,
    // Guest-visible state.
    pub namespaces: BTreeMap<u32, Namespace>,
    pub write_cache: bool,
    cc: u32,
    csts: u32,
    mask: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    pub submissions: BTreeMap<u16, Submission>,
    pub completions: BTreeMap<u16, Completion>,
    pub features: Features,
    /// Command numbers of asynchronous event requests that wait for an event.
    pub event_requests: Vec<u16>,
    bus_master: bool,
    pin_disabled: bool,
}

impl Controller {
    pub(super) fn new(options: Options, ram: GuestRam, vectors: Arc<MsixVectors>, irq: IrqLine) -> Self {
        Self {
            ram,
            vectors,
            irq,
            options,
            namespaces: BTreeMap::new(),
            write_cache: true,
            cc: 0,
            csts: 0,
            mask: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            submissions: BTreeMap::new(),
            completions: BTreeMap::new(),
            features: Features::default(),
            event_requests: Vec::new(),
            bus_master: false,
            pin_disabled: false,
        }
    }

    pub(super) fn add_namespace(&mut self, id: u32, options: NamespaceOptions, port: DiskPort<Tag>) {
        self.namespaces.insert(id, Namespace { options, port });
        self.write_cache = self.default_write_cache();
    }

    fn default_write_cache(&self) -> bool {
        self.namespaces.values().any(|namespace| namespace.options.write_cache)
    }

    pub(super) fn namespace_ids(&self) -> Vec<u32> {
        self.namespaces.keys().copied().collect()
    }

    /// Bytes of a memory page (CC.MPS).
    pub(super) fn page(&self) -> u64 {
        4096 << (self.cc >> 7 & 0xf).min(4)
    }

    pub(super) fn retry_held(&mut self) {
        for namespace in self.namespaces.values_mut() {
            namespace.port.retry_held();
        }
    }

    // -- resets --------------------------------------------------------------------------------------------------

    /// A controller level reset (7.3.2): queues and commands are gone.
    fn reset(&mut self) {
        for namespace in self.namespaces.values_mut() {
            namespace.port.cancel_all();
        }
        self.submissions.clear();
        self.completions.clear();
        self.event_requests.clear();
        self.features = Features { temperature_over: 0x157, ..Features::default() };
        self.write_cache = self.default_write_cache();
        self.csts = 0;
        self.mask = 0;
        self.update_pin();
    }

    pub(super) fn power_on(&mut self) {
        self.cc = 0;
        (self.aqa, self.asq, self.acq) = (0, 0, 0);
        (self.bus_master, self.pin_disabled) = (false, false);
        self.reset();
    }

    pub(super) fn config_written(&mut self, bus_master: bool, pin_disabled: bool) {
        (self.bus_master, self.pin_disabled) = (bus_master, pin_disabled);
        self.update_pin();
    }

    /// CC.EN became 1: the admin queues start, if what describes them is possible.
    fn enable(&mut self) {
        let (submission, completion) = ((self.aqa & 0xfff) as u16, (self.aqa >> 16 & 0xfff) as u16);
        let page = self.page();
        let possible = self.cc >> 7 & 0xf <= 4
            && self.cc >> 4 & 7 == 0
            && submission > 0
            && completion > 0
            && self.asq.is_multiple_of(page)
            && self.acq.is_multiple_of(page);
        if !possible {
            log::debug!(target: "guest_errors", "nvme: the controller cannot start as asked");
            self.csts |= CSTS_CFS;
            return;
        }
        self.completions.insert(0, completion_queue(self.acq, completion + 1, 0, true));
        self.submissions.insert(0, submission_queue(self.asq, submission + 1, 0));
        self.csts |= CSTS_RDY;
    }

    fn write_cc(&mut self, value: u32) {
        let was = self.cc;
        self.cc = value;
        let (enabled, shutdown) = (value & CC_EN != 0, value >> 14 & 3 != 0);
        if was & CC_EN != 0 && !enabled {
            self.reset();
        } else if was & CC_EN == 0 && enabled {
            self.enable();
        }
        if shutdown && was >> 14 & 3 == 0 {
            self.shut_down();
        } else if !shutdown && was >> 14 & 3 != 0 {
            self.csts &= !(CSTS_SHST_OCCURRING | CSTS_SHST_COMPLETE);
        }
    }

    /// 7.6.2: what was written reaches stable storage before the shutdown is complete.
    fn shut_down(&mut self) {
        self.csts |= CSTS_SHST_OCCURRING;
        for namespace in self.namespaces.values_mut() {
            namespace.port.submit(Tag::Shutdown, crate::block::Op::Flush, 0, crate::block::Payload::Len(0));
        }
        self.shutdown_progressed();
    }

    pub(super) fn shutdown_progressed(&mut self) {
        let busy = self.namespaces.values().any(|ns| ns.port.tags().any(|tag| matches!(tag, Tag::Shutdown)));
        if !busy && self.csts & CSTS_SHST_OCCURRING != 0 {
            self.csts = self.csts & !CSTS_SHST_OCCURRING | CSTS_SHST_COMPLETE;
        }
    }

    // -- registers -----------------------------------------------------------------------------------------------

    pub(super) fn read(&self, offset: u64, width: Width) -> u64 {
        let aligned = offset & !3;
        let low = u64::from(self.dword(aligned)) >> (8 * (offset & 3));
        let value = if width == Width::B8 { low | u64::from(self.dword(aligned + 4)) << 32 } else { low };
        value & width.ones()
    }

    fn dword(&self, offset: u64) -> u32 {
        let half = |value: u64, upper: bool| (if upper { value >> 32 } else { value } & 0xffff_ffff) as u32;
        match offset {
            reg::CAP => half(CAP, false),
            reg::CAP_HIGH => half(CAP, true),
            reg::VS => VERSION,
            reg::INTMS | reg::INTMC => self.mask,
            reg::CC => self.cc,
            reg::CSTS => self.csts,
            reg::AQA => self.aqa,
            reg::ASQ => half(self.asq, false),
            reg::ASQ_HIGH => half(self.asq, true),
            reg::ACQ => half(self.acq, false),
            reg::ACQ_HIGH => half(self.acq, true),
            // Doorbells read as nothing (3.1.24).
            _ => 0,
        }
    }

    /// Registers are written in whole double words or quad words; anything else has no effect.
    pub(super) fn write(&mut self, offset: u64, width: Width, value: u64) {
        match width {
            Width::B4 => self.write_dword(offset, (value & 0xffff_ffff) as u32),
            Width::B8 => {
                self.write_dword(offset, (value & 0xffff_ffff) as u32);
                self.write_dword(offset + 4, (value >> 32) as u32);
            }
            // Some drivers ring doorbells in 16 bits.
            Width::B2 if offset >= DOORBELLS => self.write_dword(offset, (value & 0xffff) as u32),
            _ => {}
        }
    }

    fn write_dword(&mut self, offset: u64, value: u32) {
        let set = |field: u64, upper: bool| match upper {
            true => field & 0xffff_ffff | u64::from(value) << 32,
            false => field & !0xffff_ffff | u64::from(value),
        };
        match offset {
            reg::INTMS => self.mask |= value,
            reg::INTMC => self.mask &= !value,
            reg::CC => self.write_cc(value),
            reg::AQA => self.aqa = value & 0x0fff_0fff,
            reg::ASQ => self.asq = set(self.asq, false) & !0xfff,
            reg::ASQ_HIGH => self.asq = set(self.asq, true),
            reg::ACQ => self.acq = set(self.acq, false) & !0xfff,
            reg::ACQ_HIGH => self.acq = set(self.acq, true),
            DOORBELLS.. => self.doorbell((offset - DOORBELLS) / 4, value),
            _ => {}
        }
        self.update_pin();
    }

    /// 3.1.24, 3.1.25: doorbell 2y is submission queue y's tail, 2y+1 completion queue y's head.
    fn doorbell(&mut self, number: u64, value: u32) {
        if self.csts & (CSTS_RDY | CSTS_CFS) != CSTS_RDY || !self.bus_master {
            return;
        }
        let (Ok(queue), Ok(value)) = (u16::try_from(number / 2), u16::try_from(value)) else { return };
        if number.is_multiple_of(2) {
            match self.submissions.get_mut(&queue).filter(|queue| value < queue.size) {
                Some(submission) => submission.tail = value,
                None => log::debug!(target: "guest_errors", "nvme: bad doorbell of submission queue {queue}"),
            }
            self.process(queue);
            return;
        }
        match self.completions.get_mut(&queue).filter(|queue| value < queue.size) {
            Some(completion) => completion.head = value,
            None => log::debug!(target: "guest_errors", "nvme: bad doorbell of completion queue {queue}"),
        }
        self.flush_completions(queue);
        // Queues stand still while their completions have no room.
        let fed: Vec<u16> =
            self.submissions.iter().filter(|(_, sub)| sub.completion == queue).map(|(id, _)| *id).collect();
        for submission in fed {
            self.process(submission);
        }
    }

    // -- queues --------------------------------------------------------------------------------------------------

    /// Takes commands, as long as their completions have room.
    pub(super) fn process(&mut self, queue: u16) {
        while let Some(submission) = self.submissions.get_mut(&queue) {
            let completion = submission.completion;
            if self.completions.get(&completion).is_none_or(|queue| !queue.waiting.is_empty()) {
                break;
            }
            let Some(command) = submission.fetch(&self.ram) else { break };
            if queue == 0 { self.admin(command) } else { self.io(queue, command) }
        }
        self.update_pin();
    }

    /// Ends a command.
    pub(super) fn end(&mut self, queue: u16, command: u16, status: Status, result: u32) {
        let Some(completion) = self.submissions.get(&queue).map(|queue| queue.completion) else { return };
        if let Some(completion) = self.completions.get_mut(&completion) {
            completion.waiting.push_back(Entry { result, queue, command, status });
        }
        self.flush_completions(completion);
    }

    fn flush_completions(&mut self, id: u16) {
        let Some(queue) = self.completions.get_mut(&id) else { return };
        let submissions = &self.submissions;
        let written = queue.flush(&self.ram, |id| submissions.get(&id).map_or(0, |queue| queue.head));
        if written && queue.interrupts && self.vectors.is_enabled() {
            self.vectors.raise(queue.vector);
        }
        self.update_pin();
    }

    /// The only place that drives the pin.
    fn update_pin(&mut self) {
        let masked = |vector: u16| vector < 32 && self.mask >> vector & 1 != 0;
        let pending =
            self.completions.values().any(|queue| queue.interrupts && queue.has_entries() && !masked(queue.vector));
        let high = pending && !self.pin_disabled && !self.vectors.is_enabled();
        self.irq.set(high);
    }

    /// How many vectors interrupts can have.
    pub(super) fn vector_count(&self) -> u16 {
        if self.vectors.is_enabled() { self.vectors.len() } else { 1 }
    }

    /// CREATE I/O COMPLETION QUEUE (5.3).
    pub(super) fn create_completion(&mut self, command: &Command) -> Result<(), Status> {
        let (id, size) = self.new_queue(command, |controller, id| controller.completions.contains_key(&id))?;
        let vector = (command.dword(11) >> 16) as u16;
        if vector >= self.vector_count() {
            return Err(Status::VECTOR);
        }
        let interrupts = command.dword(11) & 2 != 0;
        self.completions.insert(id, completion_queue(command.qword(6), size, vector, interrupts));
        Ok(())
    }

    /// CREATE I/O SUBMISSION QUEUE (5.4).
    pub(super) fn create_submission(&mut self, command: &Command) -> Result<(), Status> {
        let completion = (command.dword(11) >> 16) as u16;
        if completion == 0 || !self.completions.contains_key(&completion) {
            return Err(Status::CQ_INVALID);
        }
        let (id, size) = self.new_queue(command, |controller, id| controller.submissions.contains_key(&id))?;
        self.submissions.insert(id, submission_queue(command.qword(6), size, completion));
        Ok(())
    }

    /// The number and size of a queue that is to be made: physically contiguous, page aligned.
    fn new_queue(&self, command: &Command, taken: impl Fn(&Self, u16) -> bool) -> Result<(u16, u16), Status> {
        let (id, size) = ((command.dword(10) & 0xffff) as u16, (command.dword(10) >> 16) as u16);
        if id == 0 || id > self.options.queue_pairs || taken(self, id) {
            return Err(Status::QUEUE_ID);
        }
        if size == 0 || size > MQES {
            return Err(Status::QUEUE_SIZE);
        }
        if !command.qword(6).is_multiple_of(self.page()) {
            return Err(Status::PRP_OFFSET);
        }
        if command.dword(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD);
        }
        Ok((id, size + 1))
    }

    /// DELETE I/O COMPLETION QUEUE (5.5).
    pub(super) fn delete_completion(&mut self, command: &Command) -> Result<(), Status> {
        let id = (command.dword(10) & 0xffff) as u16;
        if id == 0 || !self.completions.contains_key(&id) {
            return Err(Status::QUEUE_ID);
        }
        if self.submissions.values().any(|submission| submission.completion == id) {
            return Err(Status::QUEUE_DELETION);
        }
        self.completions.remove(&id);
        self.update_pin();
        Ok(())
    }

    /// DELETE I/O SUBMISSION QUEUE (5.6): its commands are aborted.
    pub(super) fn delete_submission(&mut self, command: &Command) -> Result<(), Status> {
        let id = (command.dword(10) & 0xffff) as u16;
        if id == 0 || !self.submissions.contains_key(&id) {
            return Err(Status::QUEUE_ID);
        }
        for namespace in self.namespaces.values_mut() {
            namespace.port.cancel(|tag| tag.is_of(id));
        }
        self.submissions.remove(&id);
        Ok(())
    }
}

fn submission_queue(base: u64, size: u16, completion: u16) -> Submission {
    Submission { base, size, head: 0, tail: 0, completion, in_flight: 0 }
}

fn completion_queue(base: u64, size: u16, vector: u16, interrupts: bool) -> Completion {
    Completion { base, size, head: 0, tail: 0, phase: true, vector, interrupts, waiting: Default::default() }
}
