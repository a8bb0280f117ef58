//! The console device (5.3): ports between the guest and character back ends, with their control queues.
//!
//! Input comes from back ends on the main loop's thread, output from the driver's notifications; what both touch is in
//! [`Plane`], behind a lock that is a leaf. Ports cannot come and go while the machine runs, and the size of a console is
//! not told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Chain, DeviceType, Negotiated, Queue, VirtioDevice};
use crate::chardev::{CharEvent, CharHandle, CharSink};

/// What this device is.
pub const TYPE: DeviceType = DeviceType { id: 3, transitional_id: 0x1003, class: 0x07_8000, name: "serial" };

/// Feature bits (5.3.3).
mod bit {
    pub const MULTIPORT: u64 = 1 << 1;
    pub const EMERG_WRITE: u64 = 1 << 2;
}

/// Control events (5.3.6.2).
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const DEVICE_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// Entries of each queue.
const QUEUE_SIZE: u16 = 128;
/// Queues of control messages: to the driver, from the driver.
const CONTROL_IN: usize = 2;
const CONTROL_OUT: usize = 3;
/// Bytes of a control message.
const MESSAGE_LEN: usize = 8;
/// Control messages that may wait for buffers; a driver that gives none gets no more.
const MAX_MESSAGES: usize = 1024;
/// Input of a port that may wait for buffers, in bytes.
const INPUT_ROOM: usize = 4096;
/// Bytes that are written to a back end at a time.
const STEP: usize = 4096;
/// Offset of the emergency write register.
const CONFIG_EMERGENCY: usize = 8;

/// What a port is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// A console (`virtconsole`), or plain (`virtserialport`).
    pub console: bool,
    /// Name that the guest sees; empty: none.
    pub name: String,
}

struct Port {
    options: PortOptions,
    output: CharHandle,
    /// Somebody is at the host's end.
    host_open: bool,
    /// The guest has the port open.
    guest_open: bool,
    /// Input that waits for buffers.
    input: VecDeque<u8>,
    /// The back end had no room: accept_input is owed.
    was_full: bool,
    /// A request that the back end took a part of.
    half: Option<(Chain, u64)>,
}

struct Inner {
    max_ports: u32,
    emergency_write: bool,
    ports: BTreeMap<u32, Port>,
    queues: Vec<Arc<Queue>>,
    multiport: bool,
    /// The driver said DEVICE_READY.
    ready: bool,
    messages: VecDeque<Vec<u8>>,
}

/// The part that works without the board lock.
pub struct Plane(Mutex<Inner>);

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plane")
    }
}

/// Queue numbers of a port (5.3.2).
fn queues_of(port: u32) -> (usize, usize) {
    let port = usize::try_from(port).unwrap_or(usize::MAX / 4);
    if port == 0 { (0, 1) } else { (2 * port + 2, 2 * port + 3) }
}

/// The port of a queue, and whether the driver sends through it.
fn port_of(queue: usize) -> (u32, bool) {
    let port = if queue < 2 { 0 } else { queue / 2 - 1 };
    (u32::try_from(port).unwrap_or(u32::MAX), queue % 2 == 1)
}

impl Plane {
    /// A device without ports; `max_ports` is 1 to 31 or so.
    #[must_use]
    pub fn new(max_ports: u32, emergency_write: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            max_ports,
            emergency_write,
            ports: BTreeMap::new(),
            queues: Vec::new(),
            multiport: false,
            ready: false,
            messages: VecDeque::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a port and returns its back end's other side. The caller connects it.
    #[must_use]
    pub fn add_port(self: &Arc<Self>, number: u32, options: PortOptions, output: CharHandle) -> Arc<dyn CharSink> {
        // A console's driver does not say that it is there (5.3.5).
        let guest_open = options.console;
        let port =
            Port { options, output, host_open: false, guest_open, input: VecDeque::new(), was_full: false, half: None };
        self.inner().ports.insert(number, port);
        Arc::new(PortSink { plane: Arc::clone(self), number })
    }

    /// The ports that exist.
    #[must_use]
    pub fn ports(&self) -> Vec<u32> {
        self.inner().ports.keys().copied().collect()
    }

    /// Ports at most.
    #[must_use]
    pub fn max_ports(&self) -> u32 {
        self.inner().max_ports
    }
}

impl Inner {
    // -- control -------------------------------------------------------------------------------------------------

    fn tell(&mut self, port: u32, event: u16, value: u16, tail: &[u8]) {
        if !self.multiport || !self.ready || self.messages.len() >= MAX_MESSAGES {
            return;
        }
        let mut message = port.to_le_bytes().to_vec();
        message.extend_from_slice(&event.to_le_bytes());
        message.extend_from_slice(&value.to_le_bytes());
        message.extend_from_slice(tail);
        self.messages.push_back(message);
        self.send_messages();
    }

    fn send_messages(&mut self) {
        let Some(queue) = self.queues.get(CONTROL_IN).cloned() else { return };
        let mut sent = false;
        while !self.messages.is_empty() {
            let Some(chain) = queue.pop() else { break };
            let Some(message) = self.messages.pop_front() else { break };
            let len = usize::try_from(chain.writable.len()).unwrap_or(usize::MAX).min(message.len());
            if chain.write(queue.ram(), 0, &message[..len]).is_err() {
                queue.fail("a control buffer is not in RAM");
                return;
            }
            queue.push(&chain, u32::try_from(len).unwrap_or(0));
            sent = true;
        }
        if sent {
            queue.signal();
        }
    }

    fn take_messages(&mut self) {
        let Some(queue) = self.queues.get(CONTROL_OUT).cloned() else { return };
        let mut taken = Vec::new();
        queue.serve(|chain| {
            let mut message = [0; MESSAGE_LEN];
            if chain.read(queue.ram(), 0, &mut message).is_ok() {
                taken.push(message);
            }
            queue.push(&chain, 0);
            true
        });
        queue.signal();
        for message in taken {
            self.control(message);
        }
    }

    fn control(&mut self, message: [u8; MESSAGE_LEN]) {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = message;
        let (number, value) = (u32::from_le_bytes([p0, p1, p2, p3]), u16::from_le_bytes([v0, v1]));
        match u16::from_le_bytes([e0, e1]) {
            event::DEVICE_READY => {
                self.ready = value != 0;
                let ports: Vec<u32> = self.ports.keys().copied().collect();
                for port in ports {
                    self.tell(port, event::DEVICE_ADD, 1, &[]);
                }
            }
            event::PORT_READY if value != 0 => self.introduce(number),
            event::PORT_OPEN => {
                if let Some(port) = self.ports.get_mut(&number) {
                    port.guest_open = value != 0 || port.options.console;
                    port.output.accept_input();
                }
            }
            _ => {}
        }
    }

    /// Tells what a port is.
    fn introduce(&mut self, number: u32) {
        let Some(port) = self.ports.get(&number) else { return };
        let (PortOptions { console, name }, open) = (port.options.clone(), port.host_open);
        if console {
            self.tell(number, event::CONSOLE_PORT, 1, &[]);
        }
        if !name.is_empty() {
            self.tell(number, event::PORT_NAME, 1, &[name.as_bytes(), &[0]].concat());
        }
        if open {
            self.tell(number, event::PORT_OPEN, 1, &[]);
        }
    }

    // -- data ----------------------------------------------------------------------------------------------------

    /// Gives the guest what waits.
    fn deliver(&mut self, number: u32) {
        let Some(queue) = self.queues.get(queues_of(number).0).cloned() else { return };
        let Some(port) = self.ports.get_mut(&number) else { return };
        let mut sent = false;
        while !port.input.is_empty()
            && let Some(chain) = queue.pop()
        {
            let len = usize::try_from(chain.writable.len()).unwrap_or(usize::MAX).min(port.input.len());
            let bytes: Vec<u8> = port.input.drain(..len).collect();
            if chain.write(queue.ram(), 0, &bytes).is_err() {
                queue.fail("a buffer of a port is not in RAM");
                break;
            }
            queue.push(&chain, u32::try_from(len).unwrap_or(0));
            sent = true;
        }
        if sent {
            queue.signal();
        }
        if std::mem::take(&mut port.was_full) {
            port.output.accept_input();
        }
    }

    /// Takes what the guest sends, as far as the back end has room.
    fn send(&mut self, number: u32) {
        let Some(queue) = self.queues.get(queues_of(number).1).cloned() else { return };
        let mut unknown = None;
        let port = self.ports.get_mut(&number);
        let (output, half) = match port {
            Some(port) => (Some(port.output.clone()), &mut port.half),
            None => (None, &mut unknown),
        };
        let mut done = false;
        if let Some((chain, at)) = half.take() {
            *half = write(&queue, output.as_ref(), chain, at);
            done = half.is_none();
        }
        if half.is_none() {
            queue.serve(|chain| {
                *half = write(&queue, output.as_ref(), chain, 0);
                done |= half.is_none();
                half.is_none()
            });
        }
        if done {
            queue.signal();
        }
    }
}

/// Writes a request's data to a back end, from byte `at` on; gives it back when all is taken. Without a back end it is
/// lost.
fn write(queue: &Queue, output: Option<&CharHandle>, chain: Chain, mut at: u64) -> Option<(Chain, u64)> {
    let mut bytes = [0; STEP];
    while let Some(output) = output
        && at < chain.readable.len()
    {
        let len = usize::try_from(chain.readable.len() - at).unwrap_or(STEP).min(STEP);
        if chain.read(queue.ram(), at, &mut bytes[..len]).is_err() {
            queue.fail("a buffer of a port is not in RAM");
            return None;
        }
        let taken = output.write(&bytes[..len]);
        at += taken as u64;
        if taken < len {
            return Some((chain, at));
        }
    }
    queue.push(&chain, 0);
    None
}

/// The input side of a port.
struct PortSink {
    plane: Arc<Plane>,
    number: u32,
}

impl CharSink for PortSink {
    fn room(&self) -> usize {
        let mut inner = self.plane.inner();
        let active = !inner.queues.is_empty();
        let Some(port) = inner.ports.get_mut(&self.number) else { return 0 };
        let room = if active && port.guest_open { INPUT_ROOM.saturating_sub(port.input.len()) } else { 0 };
        port.was_full |= room == 0;
        room
    }

    fn receive(&self, data: &[u8]) {
        let mut inner = self.plane.inner();
        if let Some(port) = inner.ports.get_mut(&self.number) {
            port.input.extend(data);
        }
        inner.deliver(self.number);
    }

    fn event(&self, event: CharEvent) {
        let open = match event {
            CharEvent::Opened => true,
            CharEvent::Closed => false,
            CharEvent::Break | CharEvent::MuxIn | CharEvent::MuxOut => return,
        };
        let mut inner = self.plane.inner();
        let Some(port) = inner.ports.get_mut(&self.number) else { return };
        if std::mem::replace(&mut port.host_open, open) != open {
            inner.tell(self.number, event::PORT_OPEN, open.into(), &[]);
        }
    }

    fn writable(&self) {
        self.plane.inner().send(self.number);
    }
}

/// The device.
#[derive(Debug)]
pub struct Serial {
    plane: Arc<Plane>,
}

impl Serial {
    /// The device before a plane.
    #[must_use]
    pub fn new(plane: Arc<Plane>) -> Self {
        Self { plane }
    }
}

impl VirtioDevice for Serial {
    fn device_type(&self) -> DeviceType {
        TYPE
    }

    fn features(&self) -> u64 {
        let inner = self.plane.inner();
        let multiport = if inner.max_ports > 1 { bit::MULTIPORT } else { 0 };
        multiport | if inner.emergency_write { bit::EMERG_WRITE } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let ports = usize::try_from(self.plane.inner().max_ports).unwrap_or(1);
        vec![QUEUE_SIZE; if ports > 1 { 2 * ports + 2 } else { 2 }]
    }

    fn config(&self) -> Vec<u8> {
        // Columns and rows are not told.
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&self.plane.inner().max_ports.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        let inner = self.plane.inner();
        if offset == CONFIG_EMERGENCY
            && inner.emergency_write
            && let (Some(byte), Some(port)) = (data.first(), inner.ports.get(&0))
        {
            // An emergency does not wait.
            let _ = port.output.write(&[*byte]);
        }
    }

    fn activate(&mut self, negotiated: Negotiated) {
        let mut inner = self.plane.inner();
        inner.multiport = negotiated.has(bit::MULTIPORT);
        inner.queues = negotiated.queues;
        for port in inner.ports.values() {
            port.output.accept_input();
        }
    }

    fn notify(&mut self, queue: usize) {
        let mut inner = self.plane.inner();
        match queue {
            CONTROL_IN => inner.send_messages(),
            CONTROL_OUT => inner.take_messages(),
            _ => match port_of(queue) {
                (port, true) => inner.send(port),
                (port, false) => inner.deliver(port),
            },
        }
    }

    fn reset_queue(&mut self, queue: usize) {
        let (number, sends) = port_of(queue);
        if let Some(port) = self.plane.inner().ports.get_mut(&number).filter(|_| sends && queue != CONTROL_OUT) {
            port.half = None;
        }
    }

    fn reset(&mut self) {
        let mut inner = self.plane.inner();
        inner.queues.clear();
        inner.messages.clear();
        (inner.multiport, inner.ready) = (false, false);
        for port in inner.ports.values_mut() {
            port.guest_open = port.options.console;
            port.input.clear();
            port.half = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::bench::CharProbe;
    use crate::hw::virtio::bench::{Bench, Piece};

    struct Ports {
        bench: Bench,
        probe: Arc<CharProbe>,
        sink: Arc<dyn CharSink>,
    }

    fn ports() -> Ports {
        let plane = Plane::new(3, true);
        let probe = CharProbe::new();
        let options = PortOptions { console: false, name: "org.test".to_owned() };
        let sink = plane.add_port(1, options, probe.handle());
        let bench = Bench::ready(Box::new(Serial::new(plane)), bit::MULTIPORT | bit::EMERG_WRITE);
        Ports { bench, probe, sink }
    }

    fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
        [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
    }

    impl Ports {
        fn say(&mut self, port: u32, event: u16, value: u16) {
            self.bench.offer(3, &[Piece::readable(&message(port, event, value))]);
            self.bench.kick(3);
        }

        /// The next control message.
        fn hear(&mut self) -> Vec<u8> {
            let at = self.bench.offer(2, &[Piece::writable(32)]);
            self.bench.kick(2);
            let used = self.bench.used(2);
            let len = used.first().map_or(0, |(_, len)| *len as usize);
            self.bench.bytes(at[0], len)
        }
    }

    #[test]
    fn ports_are_introduced_and_opened() {
        let mut p = ports();
        p.sink.event(CharEvent::Opened);
        p.say(0, 0, 1);
        assert_eq!(p.hear(), message(1, 1, 1));
        p.say(1, 3, 1);
        assert_eq!(p.hear(), [message(1, 7, 1), b"org.test\0".to_vec()].concat());
        assert_eq!(p.hear(), message(1, 6, 1));
        p.sink.event(CharEvent::Closed);
        assert_eq!(p.hear(), message(1, 6, 0));
    }

    #[test]
    fn data_goes_both_ways_once_the_guest_has_the_port_open() {
        let mut p = ports();
        assert_eq!(p.sink.room(), 0);
        p.say(1, 6, 1);
        assert_eq!((p.sink.room(), p.probe.state().accepts > 0), (4096, true));
        p.sink.receive(b"hello");
        let at = p.bench.offer(4, &[Piece::writable(3)]);
        let more = p.bench.offer(4, &[Piece::writable(8)]);
        p.bench.kick(4);
        assert_eq!(p.bench.used(4), [(0, 3), (1, 2)]);
        assert_eq!((p.bench.bytes(at[0], 3), p.bench.bytes(more[0], 2)), (b"hel".to_vec(), b"lo".to_vec()));
        p.bench.offer(5, &[Piece::readable(b"to the "), Piece::readable(b"host")]);
        p.bench.kick(5);
        assert_eq!(p.probe.state().output, b"to the host");
    }

    #[test]
    fn a_full_back_end_holds_the_request() {
        let mut p = ports();
        p.probe.set_room(3);
        p.bench.offer(5, &[Piece::readable(b"abcdef")]);
        p.bench.kick(5);
        assert_eq!((p.bench.used(5), p.probe.state().output), (vec![], b"abc".to_vec()));
        p.probe.set_room(10);
        p.sink.writable();
        assert_eq!((p.bench.used(5), p.probe.state().output), (vec![(0, 0)], b"abcdef".to_vec()));
    }

    #[test]
    fn a_driver_without_control_buffers_is_told_no_more() {
        let mut p = ports();
        p.say(0, 0, 1);
        for _ in 0..3000 {
            p.say(1, 3, 1);
        }
        assert_eq!(p.hear(), message(1, 1, 1));
    }
}
