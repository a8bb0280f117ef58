//! The PS/2 mouse: two or three buttons, the IntelliMouse wheel (id 3) and the Explorer's five buttons (id 4).
//!
//! Documents: IBM Personal System/2 Hardware Interface Technical Reference, "Mouse"; Microsoft, "IntelliMouse and
//! Intelligent PS/2 protocol": the sample rates 200, 100, 80 turn the wheel on, 200, 200, 80 the extra buttons.
//!
//! The resolution is kept and reported, but a count is a pixel of the viewer's screen whatever it says; the sample
//! rate is kept and does not thin out reports: they come as the viewer's do.

use std::collections::VecDeque;

use crate::ui::MouseButton;

/// Bytes of reports that wait for the host.
const QUEUE: usize = 16;
const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Command,
    SampleRate,
    Resolution,
}

/// What the mouse identifies as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Standard,
    Wheel,
    FiveButtons,
}

impl Protocol {
    fn id(self) -> u8 {
        match self {
            Self::Standard => 0,
            Self::Wheel => 3,
            Self::FiveButtons => 4,
        }
    }

    fn report_len(self) -> usize {
        if self == Self::Standard { 3 } else { 4 }
    }
}

/// A mouse. Bytes come out by [`Mouse::take`] when the controller has room.
#[derive(Clone, Debug)]
pub struct Mouse {
    regs: Regs,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    replies: VecDeque<u8>,
    reports: VecDeque<u8>,
    expect: Expect,
    enabled: bool,
    remote: bool,
    wrap: bool,
    double_scale: bool,
    resolution: u8,
    sample_rate: u8,
    protocol: Protocol,
    last_rates: [u8; 3],
    /// What moved since the last report: right, up (as the protocol counts), wheel towards the user.
    moved: [i32; 3],
    /// Bit 0 left, 1 right, 2 middle, 3 fourth, 4 fifth.
    buttons: u8,
    /// The buttons changed since the last report.
    buttons_changed: bool,
    last_sent: u8,
}

impl Regs {
    fn cold() -> Self {
        Self {
            replies: VecDeque::new(),
            reports: VecDeque::new(),
            expect: Expect::Command,
            enabled: false,
            remote: false,
            wrap: false,
            double_scale: false,
            resolution: 2,
            sample_rate: 100,
            protocol: Protocol::Standard,
            last_rates: [0; 3],
            moved: [0; 3],
            buttons: 0,
            buttons_changed: false,
            last_sent: 0,
        }
    }
}

impl Default for Mouse {
    fn default() -> Self {
        Self::new()
    }
}

impl Mouse {
    /// A mouse that has passed its self-test; it reports nothing until it is enabled.
    #[must_use]
    pub fn new() -> Self {
        Self { regs: Regs::cold() }
    }

    /// The mouse moved: right, down, and the wheel towards the user.
    pub fn move_by(&mut self, dx: i32, dy: i32, dz: i32) {
        if !self.regs.enabled && !self.regs.remote {
            return;
        }
        for (moved, by) in self.regs.moved.iter_mut().zip([dx, dy.saturating_neg(), dz]) {
            *moved = moved.saturating_add(by);
        }
        self.report_changes();
    }

    /// A button was pressed or released; wheel notches count when pressed. There is no horizontal wheel.
    pub fn button(&mut self, button: MouseButton, down: bool) {
        let bit = match button {
            MouseButton::Left => 0,
            MouseButton::Right => 1,
            MouseButton::Middle => 2,
            MouseButton::Side => 3,
            MouseButton::Extra => 4,
            MouseButton::WheelUp if down => return self.move_by(0, 0, -1),
            MouseButton::WheelDown if down => return self.move_by(0, 0, 1),
            _ => return,
        };
        let before = self.regs.buttons;
        self.regs.buttons = before & !(1 << bit) | u8::from(down) << bit;
        self.regs.buttons_changed |= before != self.regs.buttons;
        self.report_changes();
    }

    /// Whether it wants input: it was enabled by the guest.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.regs.enabled
    }

    /// The next byte for the host.
    pub fn take(&mut self) -> Option<u8> {
        if self.regs.replies.is_empty() {
            self.report_changes();
        }
        let regs = &mut self.regs;
        let byte = regs.replies.pop_front().or_else(|| regs.reports.pop_front())?;
        if byte != RESEND {
            regs.last_sent = byte;
        }
        Some(byte)
    }

    /// Whether [`Mouse::take`] has something.
    #[must_use]
    pub fn has_data(&self) -> bool {
        !self.regs.replies.is_empty() || !self.regs.reports.is_empty()
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.regs = Regs::cold();
    }

    /// In stream mode, queues a report of what changed while there is room; the rest waits for the next.
    fn report_changes(&mut self) {
        let regs = &mut self.regs;
        if !regs.enabled || regs.remote || regs.wrap {
            return;
        }
        while (regs.buttons_changed || regs.pending_motion())
            && regs.reports.len() + regs.protocol.report_len() <= QUEUE
        {
            let double = regs.double_scale;
            let (report, len) = regs.report(double);
            regs.reports.extend(&report[..len]);
        }
    }

    /// A byte from the host.
    pub fn write(&mut self, byte: u8) {
        if self.regs.wrap && !matches!(byte, 0xec | 0xff) {
            self.answer(&[byte]);
            return;
        }
        match std::mem::replace(&mut self.regs.expect, Expect::Command) {
            Expect::Command => self.command(byte),
            Expect::Resolution if byte <= 3 => {
                self.regs.resolution = byte;
                self.answer(&[ACK]);
            }
            Expect::SampleRate if byte <= 200 => {
                self.set_sample_rate(byte);
                self.answer(&[ACK]);
            }
            // A command in place of the parameter is obeyed; anything else is an error.
            _ if byte >= 0xe6 => self.command(byte),
            _ => self.answer(&[RESEND]),
        }
    }

    fn set_sample_rate(&mut self, rate: u8) {
        let [_, b, c] = self.regs.last_rates;
        self.regs.last_rates = [b, c, rate];
        self.regs.sample_rate = rate;
        match self.regs.last_rates {
            [200, 100, 80] => self.regs.protocol = Protocol::Wheel,
            [200, 200, 80] => self.regs.protocol = Protocol::FiveButtons,
            _ => {}
        }
    }

    fn command(&mut self, byte: u8) {
        // Any command but "read data" throws away reports that wait.
        if !matches!(byte, 0xeb | 0xfe) {
            self.regs.reports.clear();
        }
        match byte {
            0xe6 => self.regs.double_scale = false,
            0xe7 => self.regs.double_scale = true,
            0xe8 => self.regs.expect = Expect::Resolution,
            0xe9 => {
                let status = self.regs.status();
                return self.answer(&[ACK, status, self.regs.resolution, self.regs.sample_rate]);
            }
            0xea => self.regs.remote = false,
            0xeb => {
                let (report, len) = self.regs.report(false);
                self.answer(&[ACK]);
                return self.answer(&report[..len]);
            }
            0xec => self.regs.wrap = false,
            0xee => self.regs.wrap = true,
            0xf0 => self.regs.remote = true,
            0xf2 => return self.answer(&[ACK, self.regs.protocol.id()]),
            0xf3 => self.regs.expect = Expect::SampleRate,
            0xf4 => self.regs.enabled = true,
            0xf5 => self.regs.enabled = false,
            0xf6 => {
                let (protocol, buttons) = (self.regs.protocol, self.regs.buttons);
                self.regs = Regs { protocol, buttons, ..Regs::cold() };
            }
            0xfe => return self.answer(&[self.regs.last_sent]),
            0xff => {
                let buttons = self.regs.buttons;
                self.regs = Regs { buttons, ..Regs::cold() };
                return self.answer(&[ACK, 0xaa, 0x00]);
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACK]);
    }

    fn answer(&mut self, bytes: &[u8]) {
        if self.regs.replies.len() + bytes.len() > QUEUE {
            self.regs.replies.clear();
        }
        self.regs.replies.extend(bytes);
    }
}

/// 2:1 scaling of a count in stream mode.
fn doubled(count: i32) -> i32 {
    let size = match count.abs() {
        0 => 0,
        1 | 2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        n => n.saturating_mul(2),
    };
    size * count.signum()
}

impl Regs {
    fn pending_motion(&self) -> bool {
        let wheel = self.protocol != Protocol::Standard && self.moved[2] != 0;
        self.moved[0] != 0 || self.moved[1] != 0 || wheel
    }

    fn status(&self) -> u8 {
        let [left, right, middle] = [0, 1, 2].map(|bit| self.buttons >> bit & 1);
        u8::from(self.remote) << 6
            | u8::from(self.enabled) << 5
            | u8::from(self.double_scale) << 4
            | left << 2
            | middle << 1
            | right
    }

    /// Takes up to 255 counts of the motion into a report; the length is the protocol's.
    fn report(&mut self, double: bool) -> ([u8; 4], usize) {
        let mut counts = [0i32; 2];
        for (count, moved) in counts.iter_mut().zip(&mut self.moved) {
            let limit = if double { 127 } else { 255 };
            let taken = (*moved).clamp(-limit, limit);
            *moved -= taken;
            *count = if double { doubled(taken) } else { taken };
        }
        let [dx, dy] = counts;
        let wheel_limit = if self.protocol == Protocol::FiveButtons { 7 } else { 127 };
        let dz = self.moved[2].clamp(-wheel_limit, wheel_limit);
        self.moved[2] = if self.protocol == Protocol::Standard { 0 } else { self.moved[2] - dz };
        self.buttons_changed = false;
        let flags = self.buttons & 7 | 1 << 3 | u8::from(dx < 0) << 4 | u8::from(dy < 0) << 5;
        let fourth = match self.protocol {
            Protocol::Standard | Protocol::Wheel => low_byte(dz),
            Protocol::FiveButtons => low_byte(dz) & 0x0f | (self.buttons & 0x18) << 1,
        };
        ([flags, low_byte(dx), low_byte(dy), fourth], self.protocol.report_len())
    }
}

/// The low 8 bits in two's complement.
fn low_byte(value: i32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::bench::Random;

    fn drain(mouse: &mut Mouse) -> Vec<u8> {
        std::iter::from_fn(|| mouse.take()).collect()
    }

    fn send(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        bytes.iter().for_each(|&byte| mouse.write(byte));
        drain(mouse)
    }

    fn streaming() -> Mouse {
        let mut mouse = Mouse::new();
        send(&mut mouse, &[0xf4]);
        mouse
    }

    #[test]
    fn it_is_silent_until_enabled() {
        let mut mouse = Mouse::new();
        mouse.move_by(1, 1, 0);
        mouse.button(MouseButton::Left, true);
        assert!(drain(&mut mouse).is_empty());
        assert_eq!(send(&mut mouse, &[0xff]), [0xfa, 0xaa, 0x00]);
    }

    #[test]
    fn a_report_counts_right_and_up() {
        let mut mouse = streaming();
        mouse.move_by(5, 3, 0);
        assert_eq!(drain(&mut mouse), [0x28, 5, 0xfd]);
        mouse.button(MouseButton::Right, true);
        assert_eq!(drain(&mut mouse), [0x0a, 0, 0]);
    }

    #[test]
    fn long_moves_are_split_without_loss() {
        let mut mouse = streaming();
        mouse.move_by(-300, 0, 0);
        assert_eq!(drain(&mut mouse), [0x18, 0x01, 0, 0x18, 211, 0]);
    }

    #[test]
    fn the_magic_rates_turn_on_the_wheel() {
        let mut mouse = streaming();
        send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
        assert_eq!(send(&mut mouse, &[0xf2]), [0xfa, 3]);
        mouse.button(MouseButton::WheelUp, true);
        mouse.button(MouseButton::WheelUp, false);
        assert_eq!(drain(&mut mouse), [0x08, 0, 0, 0xff]);
    }

    #[test]
    fn the_magic_rates_turn_on_five_buttons() {
        let mut mouse = streaming();
        send(&mut mouse, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
        assert_eq!(send(&mut mouse, &[0xf2]), [0xfa, 4]);
        mouse.button(MouseButton::Extra, true);
        assert_eq!(drain(&mut mouse), [0x08, 0, 0, 0x20]);
        mouse.move_by(0, 0, 1);
        assert_eq!(drain(&mut mouse), [0x08, 0, 0, 0x21]);
    }

    #[test]
    fn remote_mode_reports_on_request_only() {
        let mut mouse = streaming();
        send(&mut mouse, &[0xf0]);
        mouse.move_by(2, 0, 0);
        assert!(drain(&mut mouse).is_empty());
        assert_eq!(send(&mut mouse, &[0xeb]), [0xfa, 0x08, 2, 0]);
        assert_eq!(send(&mut mouse, &[0xe9]), [0xfa, 0x60, 2, 100]);
    }

    #[test]
    fn wrap_mode_echoes_until_it_is_left() {
        let mut mouse = streaming();
        assert_eq!(send(&mut mouse, &[0xee, 0x12, 0xf4]), [0xfa, 0x12, 0xf4]);
        assert_eq!(send(&mut mouse, &[0xec]), [0xfa]);
        assert_eq!(send(&mut mouse, &[0xf2]), [0xfa, 0]);
    }

    #[test]
    fn double_scaling_follows_the_table() {
        let mut mouse = streaming();
        send(&mut mouse, &[0xe7]);
        mouse.move_by(4, 0, 0);
        assert_eq!(drain(&mut mouse), [0x08, 6, 0]);
    }

    #[test]
    fn what_finds_no_room_is_added_up() {
        let mut mouse = streaming();
        (0..10).for_each(|_| mouse.move_by(1, 0, 0));
        let bytes = drain(&mut mouse);
        assert_eq!(bytes.chunks(3).map(|report| i32::from(report[1])).sum::<i32>(), 10);
    }

    #[test]
    fn reset_is_power_on() {
        let mut mouse = streaming();
        send(&mut mouse, &[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xe8, 3]);
        mouse.button(MouseButton::Left, true);
        mouse.reset();
        assert_eq!(mouse.regs, Regs::cold());
    }

    #[test]
    fn random_programs_never_panic_and_stay_bounded() {
        let mut mouse = Mouse::new();
        let mut random = Random(3);
        for _ in 0..20_000 {
            let [byte, choice, dx, dy, ..] = random.next().to_le_bytes();
            match choice % 4 {
                0 => mouse.write(byte),
                1 => mouse.move_by(i32::from(dx) << 24, i32::from(dy) << 23, i32::from(byte)),
                2 => mouse.button(MouseButton::Left, byte & 1 != 0),
                _ => drop(mouse.take()),
            }
            assert!(mouse.regs.reports.len() <= QUEUE && mouse.regs.replies.len() <= QUEUE);
        }
    }
}
