//! One TCP connection of the guest: spliced to a socket of the host.
//!
//! The wire to the guest loses nothing by itself, so this end of TCP has no congestion control: it sends what the
//! guest's window and the wire's queue take, in segments as long as IP allows, and lets the card or the wire cut them.
//! What is not acknowledged is kept for retransmission in the very buffers that it was received into.
//!
//! Documents: RFC 9293 (TCP), RFC 7323 (window scale; timestamps and selective acknowledgements are not offered).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::egress::{Egress, MTU, no_checksums, partial};
use crate::net::{Packet, SegmentKind, Segmentation};

/// Bytes on their way to the guest, at most, a connection.
const SEND_LIMIT: u32 = 1 << 20;
/// Bytes from the guest that the host's socket has not taken yet, at most, a connection: the window.
const RECEIVE_LIMIT: u32 = 1 << 20;
/// Our window scale: [`RECEIVE_LIMIT`] in 16 bits.
const SHIFT: u8 = 5;
/// Payload of one segment on the wire, at most: IP's limit less the longest headers.
const LONGEST: usize = 65535 - 40 - 60;

const FIRST_TIMEOUT: Duration = Duration::from_millis(500);
const LAST_TIMEOUT: Duration = Duration::from_secs(16);
const MAX_RETRIES: u32 = 12;

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The guest asked; the host's socket is connecting.
    Connecting,
    /// The guest asked and was answered; its acknowledgement is due.
    SynReceived,
    /// The guest was asked (`hostfwd`).
    SynSent,
    /// Open in at least one direction.
    Open,
    /// Over: to be forgotten.
    Closed,
}

impl State {
    /// The name in `info usernet`.
    pub fn name(self, flow: &Flow) -> &'static str {
        match self {
            Self::Connecting | Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RCVD",
            Self::Closed => "CLOSED",
            Self::Open => match (flow.guest_fin, flow.fin_sent) {
                (false, false) => "ESTABLISHED",
                (true, false) => "CLOSE_WAIT",
                (false, true) => "FIN_WAIT_1",
                (true, true) => "LAST_ACK",
            },
        }
    }
}

struct Chunk {
    seq: u32,
    bytes: Arc<Vec<u8>>,
}

/// One connection.
pub struct Flow {
    /// The guest's end.
    pub guest: SocketAddr,
    /// The other end as the guest knows it.
    pub server: SocketAddr,
    /// The host's socket.
    pub socket: OwnedFd,
    /// Its token.
    pub token: u64,
    /// Where it is.
    pub state: State,
    /// Last sign of life of the guest.
    pub active: Instant,
    /// When something is to be done.
    pub deadline: Option<Instant>,
    /// Waits for room on the wire.
    pub blocked: bool,
    readable: bool,
    writable: bool,
    // To the guest.
    iss: u32,
    snd_una: u32,
    snd_nxt: u32,
    snd_wnd: u32,
    snd_shift: u8,
    mss: u16,
    unacked: VecDeque<Chunk>,
    host_eof: bool,
    fin_sent: bool,
    duplicates: u32,
    retries: u32,
    // From the guest.
    rcv_nxt: u32,
    rcv_shift: u8,
    pending: VecDeque<(Vec<u8>, Range<usize>)>,
    pending_len: usize,
    guest_fin: bool,
    shut: bool,
    ack_due: bool,
    announced: u32,
}

/// `a` comes before `b` in sequence space (RFC 9293 3.4).
fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

fn default_mss(server: SocketAddr) -> u16 {
    u16::try_from(MTU - if server.is_ipv4() { 40 } else { 60 }).unwrap_or(536)
}

impl Flow {
    fn new(guest: SocketAddr, server: SocketAddr, socket: OwnedFd, token: u64, iss: u32, state: State) -> Self {
        Self {
            guest,
            server,
            socket,
            token,
            state,
            active: Instant::now(),
            deadline: None,
            blocked: false,
            readable: false,
            writable: false,
            iss,
            snd_una: iss,
            snd_nxt: iss,
            snd_wnd: 0,
            snd_shift: 0,
            mss: default_mss(server),
            unacked: VecDeque::new(),
            host_eof: false,
            fin_sent: false,
            duplicates: 0,
            retries: 0,
            rcv_nxt: 0,
            rcv_shift: 0,
            pending: VecDeque::new(),
            pending_len: 0,
            guest_fin: false,
            shut: false,
            ack_due: false,
            announced: 0,
        }
    }

    /// A connection that the guest asked for with `syn`; the socket is connecting.
    pub fn asked(
        guest: SocketAddr,
        server: SocketAddr,
        socket: OwnedFd,
        token: u64,
        iss: u32,
        syn: &TcpRepr<'_>,
    ) -> Self {
        let mut flow = Self::new(guest, server, socket, token, iss, State::Connecting);
        flow.learn(syn);
        flow
    }

    /// A connection that came to a forwarded port.
    pub fn forwarded(guest: SocketAddr, server: SocketAddr, socket: OwnedFd, token: u64, iss: u32) -> Self {
        let mut flow = Self::new(guest, server, socket, token, iss, State::SynSent);
        (flow.readable, flow.writable) = (true, true);
        flow
    }

    /// Takes over what the guest's SYN says.
    fn learn(&mut self, syn: &TcpRepr<'_>) {
        self.rcv_nxt = u32::from_ne_bytes(syn.seq_number.0.to_ne_bytes()).wrapping_add(1);
        let most = default_mss(self.server);
        self.mss = syn.max_seg_size.unwrap_or(536).clamp(64, most);
        match syn.window_scale {
            Some(shift) => (self.snd_shift, self.rcv_shift) = (shift.min(14), SHIFT),
            None => (self.snd_shift, self.rcv_shift) = (0, 0),
        }
        self.snd_wnd = u32::from(syn.window_len);
    }

    /// Bytes waiting for the guest and for the host.
    pub fn queues(&self) -> (usize, usize) {
        (self.pending_len, self.snd_nxt.wrapping_sub(self.snd_una) as usize)
    }

    /// The host's socket has something to tell.
    pub fn host_ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    fn window(&self) -> u32 {
        let limit = if self.rcv_shift == 0 { 65535 } else { RECEIVE_LIMIT };
        limit.saturating_sub(u32::try_from(self.pending_len).unwrap_or(u32::MAX))
    }

    fn emit(&mut self, out: &mut Egress, control: TcpControl, seq: u32, payload: Option<Packet>) -> bool {
        let syn = control == TcpControl::Syn;
        let window = self.window() >> if syn { 0 } else { self.rcv_shift };
        let ack =
            (self.state != State::SynSent).then_some(TcpSeqNumber(i32::from_ne_bytes(self.rcv_nxt.to_ne_bytes())));
        // A SYN of ours offers a scale; an answer has one if the guest's has.
        let scaled = syn && (self.state == State::SynSent || self.rcv_shift != 0);
        let repr = TcpRepr {
            src_port: self.server.port(),
            dst_port: self.guest.port(),
            control,
            seq_number: TcpSeqNumber(i32::from_ne_bytes(seq.to_ne_bytes())),
            ack_number: ack,
            window_len: u16::try_from(window).unwrap_or(u16::MAX),
            window_scale: scaled.then_some(SHIFT),
            max_seg_size: syn.then_some(default_mss(self.server)),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (header, body) = (repr.header_len(), payload.as_ref().map_or(0, Packet::len));
        let Some(mut frame) = out.headers(self.server.ip(), self.guest.ip(), IpProtocol::Tcp, header + body) else {
            return false;
        };
        let transport = frame.len();
        frame.resize(transport + header, 0);
        let (src, dst) = (self.server.ip().into(), self.guest.ip().into());
        repr.emit(&mut TcpPacket::new_unchecked(&mut frame[transport..]), &src, &dst, &no_checksums());
        let mut offload = partial(&mut frame, transport, 16, header + body);
        if body > usize::from(self.mss) {
            let kind = if self.guest.is_ipv4() { SegmentKind::Tcp4 } else { SegmentKind::Tcp6 };
            offload.segment = Some(Segmentation { kind, size: self.mss, ecn: false });
        }
        let packet = match payload {
            Some(payload) => payload.part(frame, 0..body),
            None => Packet::from(frame),
        };
        out.send(packet.with_offload(offload));
        if self.state != State::SynSent {
            self.ack_due = false;
            self.announced = self.window();
        }
        true
    }

    /// Asks the guest, or answers it.
    pub fn send_syn(&mut self, out: &mut Egress) {
        // An unknown neighbour is asked for, and the timer tries again.
        self.emit(out, TcpControl::Syn, self.iss, None);
        self.snd_nxt = self.iss.wrapping_add(1);
        self.arm();
    }

    /// The host's socket is connected: the guest may go on.
    pub fn connected(&mut self, out: &mut Egress) {
        self.state = State::SynReceived;
        (self.readable, self.writable) = (true, true);
        self.send_syn(out);
    }

    /// Tells the guest that it is over at once.
    pub fn reset(&mut self, out: &mut Egress) {
        if self.state != State::Closed {
            self.emit(out, TcpControl::Rst, self.snd_nxt, None);
            self.state = State::Closed;
        }
    }

    /// Forgets the connection, and lets the host's peer know that it did not end in order.
    fn abort(&mut self) {
        // The linger option may fail on a socket that is broken already.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        self.state = State::Closed;
    }

    fn arm(&mut self) {
        let timeout = FIRST_TIMEOUT.saturating_mul(1 << self.retries.min(6)).min(LAST_TIMEOUT);
        self.deadline = Some(Instant::now() + timeout);
    }

    /// A segment of the guest; its payload is `range` of `frame`.
    pub fn receive(&mut self, out: &mut Egress, repr: &TcpRepr<'_>, frame: &[u8], range: Range<usize>) {
        self.active = Instant::now();
        let seq = u32::from_ne_bytes(repr.seq_number.0.to_ne_bytes());
        let ack = repr.ack_number.map(|ack| u32::from_ne_bytes(ack.0.to_ne_bytes()));
        match self.state {
            State::Closed => return,
            State::Connecting => {
                if repr.control == TcpControl::Rst {
                    self.abort();
                }
                return; // the SYN again
            }
            State::SynSent => {
                if ack != Some(self.iss.wrapping_add(1)) {
                    return;
                }
                if repr.control == TcpControl::Rst {
                    self.abort();
                } else if repr.control == TcpControl::Syn {
                    self.learn(repr);
                    self.state = State::Open;
                    self.snd_una = self.snd_nxt;
                    (self.deadline, self.retries, self.ack_due) = (None, 0, true);
                }
                return;
            }
            State::SynReceived | State::Open => {}
        }
        if repr.control == TcpControl::Rst {
            // Only the next one: others are forged or old (RFC 9293 3.5.2).
            if seq == self.rcv_nxt {
                self.abort();
            }
            return;
        }
        if repr.control == TcpControl::Syn {
            if self.state == State::SynReceived {
                self.send_syn(out);
            } else {
                self.ack_due = true;
            }
            return;
        }
        let Some(ack) = ack else { return };
        if self.state == State::SynReceived {
            if ack != self.snd_nxt {
                return;
            }
            self.state = State::Open;
        }
        self.acknowledge(out, ack, u32::from(repr.window_len) << self.snd_shift, range.is_empty());
        self.take(seq, repr.control == TcpControl::Fin, frame, range);
    }

    fn acknowledge(&mut self, out: &mut Egress, ack: u32, window: u32, bare: bool) {
        if before(self.snd_nxt, ack) || before(ack, self.snd_una) {
            self.ack_due = true;
            return;
        }
        if ack != self.snd_una {
            self.snd_una = ack;
            (self.duplicates, self.retries) = (0, 0);
            while let Some(chunk) = self.unacked.front() {
                let end = chunk.seq.wrapping_add(u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX));
                if before(ack, end) {
                    break;
                }
                self.unacked.pop_front();
            }
            self.deadline = None;
            if self.snd_nxt != self.snd_una {
                self.arm();
            }
        } else if bare && window == self.snd_wnd && self.snd_nxt != self.snd_una {
            self.duplicates += 1;
            if self.duplicates == 3 {
                self.retransmit(out);
            }
        }
        self.snd_wnd = window;
    }

    /// Payload and end of the guest's stream.
    fn take(&mut self, seq: u32, fin: bool, frame: &[u8], range: Range<usize>) {
        if range.is_empty() && !fin {
            return;
        }
        self.ack_due = true;
        let skip = self.rcv_nxt.wrapping_sub(seq);
        let len = u32::try_from(range.len()).unwrap_or(0);
        // What is ahead of us is not kept: the guest sends it again. What is behind us is cut off.
        if before(self.rcv_nxt, seq) || skip > len || self.guest_fin {
            return;
        }
        let new = range.start + skip as usize..range.end;
        let room = self.window() as usize;
        let whole = new.len() <= room;
        let new = new.start..new.start + new.len().min(room);
        self.rcv_nxt = self.rcv_nxt.wrapping_add(u32::try_from(new.len()).unwrap_or(0));
        let mut rest = &frame[new];
        if !self.shut {
            // Mostly the socket takes it at once.
            while self.pending.is_empty() && self.writable && !rest.is_empty() {
                match send(&self.socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(count) => rest = &rest[count..],
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => self.writable = false,
                    // The stream's other direction tells the guest.
                    Err(_) => rest = &[],
                }
            }
            if !rest.is_empty() {
                self.pending_len += rest.len();
                self.pending.push_back((rest.to_vec(), 0..rest.len()));
            }
        }
        if fin && whole {
            self.guest_fin = true;
            self.rcv_nxt = self.rcv_nxt.wrapping_add(1);
        }
    }

    /// Does all that can be done now.
    pub fn pump(&mut self, out: &mut Egress) {
        self.blocked = false;
        if self.state != State::Open {
            return;
        }
        self.drain();
        self.fill(out);
        if self.state != State::Open {
            return;
        }
        if self.host_eof && !self.fin_sent && out.has_room() {
            self.emit(out, TcpControl::Fin, self.snd_nxt, None);
            self.snd_nxt = self.snd_nxt.wrapping_add(1);
            self.fin_sent = true;
            self.arm();
        }
        // A window that was nearly closed and is open again is news to the guest.
        let opened = self.window() > self.announced && self.window() - self.announced >= RECEIVE_LIMIT / 4;
        if self.ack_due || opened {
            self.emit(out, TcpControl::None, self.snd_nxt, None);
        }
        if self.fin_sent && self.snd_una == self.snd_nxt && self.guest_fin && self.pending.is_empty() {
            self.state = State::Closed;
        }
    }

    /// The guest's bytes to the host.
    fn drain(&mut self) {
        while self.writable
            && let Some((bytes, range)) = self.pending.front_mut()
        {
            match send(&self.socket, &bytes[range.clone()], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    range.start += count;
                    self.pending_len -= count;
                    if range.start == range.end {
                        self.pending.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(_) => {
                    // Nobody takes it any more; reading tells why.
                    self.pending.clear();
                    self.pending_len = 0;
                    self.readable = true;
                }
            }
        }
        if self.guest_fin && self.pending.is_empty() && !self.shut {
            self.shut = true;
            // A socket that is broken already has ended anyway.
            let _ = shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// The host's bytes to the guest.
    fn fill(&mut self, out: &mut Egress) {
        let mss = usize::from(self.mss);
        while self.readable && !self.host_eof {
            let flying = self.snd_nxt.wrapping_sub(self.snd_una);
            let room = self.snd_wnd.min(SEND_LIMIT).saturating_sub(flying) as usize;
            if room == 0 || (room < mss && flying > 0) {
                if self.deadline.is_none() {
                    self.arm(); // the window's opening may get lost
                }
                return;
            }
            if !out.has_room() {
                self.blocked = true;
                return;
            }
            let most = (LONGEST / mss * mss).min(room);
            let mut bytes = Vec::with_capacity(most);
            match recv(&self.socket, spare_capacity(&mut bytes), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.host_eof = true,
                Ok((_, count)) => self.send_chunk(out, bytes, count < most),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readable = false,
                Err(_) => self.reset(out),
            }
            if self.state != State::Open {
                return;
            }
        }
    }

    fn send_chunk(&mut self, out: &mut Egress, mut bytes: Vec<u8>, last: bool) {
        if bytes.len() < bytes.capacity() / 2 {
            bytes.shrink_to_fit();
        }
        let bytes = Arc::new(bytes);
        let len = bytes.len();
        let seq = self.snd_nxt;
        self.unacked.push_back(Chunk { seq, bytes: Arc::clone(&bytes) });
        self.snd_nxt = seq.wrapping_add(u32::try_from(len).unwrap_or(0));
        let control = if last { TcpControl::Psh } else { TcpControl::None };
        let payload = Packet::with_payload(Vec::new(), bytes, 0..len);
        self.emit(out, control, seq, payload);
        if self.deadline.is_none() {
            self.arm();
        }
    }

    /// Sends the first bytes that are not acknowledged again.
    fn retransmit(&mut self, out: &mut Egress) {
        if let Some(chunk) = self.unacked.front() {
            let skip = (self.snd_una.wrapping_sub(chunk.seq) as usize).min(chunk.bytes.len());
            let payload = Packet::with_payload(Vec::new(), Arc::clone(&chunk.bytes), skip..chunk.bytes.len());
            self.emit(out, TcpControl::Psh, self.snd_una, payload);
        } else if self.fin_sent && self.snd_una != self.snd_nxt {
            self.emit(out, TcpControl::Fin, self.snd_nxt.wrapping_sub(1), None);
        }
    }

    /// The deadline has passed.
    pub fn timeout(&mut self, out: &mut Egress) {
        self.deadline = None;
        if self.state == State::Connecting || self.state == State::Closed {
            return;
        }
        if !out.has_room() && self.state == State::Open {
            self.arm(); // the guest does not take frames: it is no slower than it was
            return;
        }
        self.retries += 1;
        if self.retries > MAX_RETRIES {
            self.reset(out);
            self.abort();
            return;
        }
        match self.state {
            State::SynReceived | State::SynSent => self.send_syn(out),
            _ if self.snd_una != self.snd_nxt => {
                self.retransmit(out);
                self.arm();
            }
            _ if self.readable && !self.host_eof => {
                // A segment that is behind makes the guest tell its window (RFC 9293 3.8.6.1).
                self.emit(out, TcpControl::None, self.snd_nxt.wrapping_sub(1), None);
                self.arm();
            }
            _ => self.retries = 0,
        }
    }
}
