//! The keyboard controller of a PS/2: an 8042 with a keyboard and an auxiliary device (the mouse).
//!
//! Documents: IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller"; the commands that later controllers added are marked in [`I8042::command`].
//!
//! A byte from the keyboard or mouse moves to the output buffer as soon as that is empty, so there are no time-outs:
//! a device always answers. The input buffer is never full. Serial delays are not modelled.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::bus::{A20Gate, At, Device, IrqLine, PowerRequest, PowerSink, Region, Reset};
use crate::ui::{KeyCode, MouseButton};

use super::ps2_keyboard::Keyboard;
use super::ps2_mouse::Mouse;
use super::scancodes::translate;

/// Port 60h.
pub const DATA: Region = Region(0);
/// Port 64h.
pub const COMMAND: Region = Region(1);

/// Status register, port 64h.
mod status {
    pub const OUTPUT_FULL: u8 = 1 << 0;
    pub const SYSTEM: u8 = 1 << 2;
    pub const LAST_WAS_COMMAND: u8 = 1 << 3;
    pub const UNLOCKED: u8 = 1 << 4;
    pub const AUX_FULL: u8 = 1 << 5;
}

/// Command byte: byte 0 of the controller's RAM.
mod mode {
    pub const KEYBOARD_INTERRUPT: u8 = 1 << 0;
    pub const AUX_INTERRUPT: u8 = 1 << 1;
    pub const SYSTEM: u8 = 1 << 2;
    pub const KEYBOARD_DISABLED: u8 = 1 << 4;
    pub const AUX_DISABLED: u8 = 1 << 5;
    pub const TRANSLATE: u8 = 1 << 6;
}

/// Output port (command D0h, D1h).
mod port {
    pub const NOT_RESET: u8 = 1 << 0;
    pub const A20: u8 = 1 << 1;
    pub const OUTPUT_FULL: u8 = 1 << 4;
    pub const AUX_FULL: u8 = 1 << 5;
    pub const ONES: u8 = 0xcc;
}

/// Where the byte in the output buffer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Controller,
    Keyboard,
    Aux,
}

/// What the next byte at port 60h is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NextData {
    Keyboard,
    Ram(u8),
    OutputPort,
    KeyboardLoop,
    AuxLoop,
    Aux,
}

/// The controller with its two devices.
pub struct I8042 {
    // Wires.
    keyboard_irq: IrqLine,
    mouse_irq: IrqLine,
    a20: Arc<A20Gate>,
    power: PowerSink,
    keyboard: Keyboard,
    mouse: Mouse,
    // Guest-visible state.
    regs: Regs,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Regs {
    ram: [u8; 32],
    /// The output port's writable bits.
    output_port: u8,
    /// The output buffer; the byte stays readable after it was read.
    data: u8,
    full: Option<Source>,
    /// Answers of the controller that wait for the output buffer, and whether they look like the mouse's.
    answers: VecDeque<(u8, Source)>,
    next_data: NextData,
    last_was_command: bool,
    /// The keyboard's last byte was F0h: translation makes the next a release.
    release: bool,
}

impl Regs {
    fn cold() -> Self {
        let mut ram = [0; 32];
        ram[0] = mode::KEYBOARD_INTERRUPT | mode::AUX_INTERRUPT;
        Self {
            ram,
            output_port: port::NOT_RESET | port::A20 | port::ONES,
            data: 0,
            full: None,
            answers: VecDeque::new(),
            next_data: NextData::Keyboard,
            last_was_command: true,
            release: false,
        }
    }

    fn mode(&self, bit: u8) -> bool {
        self.ram[0] & bit != 0
    }
}

impl I8042 {
    /// A controller that drives IRQ 1 and IRQ 12, address line A20 and the reset line.
    #[must_use]
    pub fn new(keyboard_irq: IrqLine, mouse_irq: IrqLine, a20: Arc<A20Gate>, power: PowerSink) -> Self {
        Self { keyboard_irq, mouse_irq, a20, power, keyboard: Keyboard::new(), mouse: Mouse::new(), regs: Regs::cold() }
    }

    // -- the user's side -----------------------------------------------------------------------------------------

    /// A key was pressed or released.
    pub fn key(&mut self, key: KeyCode, down: bool) {
        self.keyboard.key(key, down);
        self.refill();
    }

    /// The mouse moved: right, down, wheel towards the user.
    pub fn move_by(&mut self, dx: i32, dy: i32, dz: i32) {
        self.mouse.move_by(dx, dy, dz);
        self.refill();
    }

    /// A mouse button was pressed or released.
    pub fn button(&mut self, button: MouseButton, down: bool) {
        self.mouse.button(button, down);
        self.refill();
    }

    /// The keyboard's lights: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.keyboard.leds()
    }

    /// Whether the guest has set the lights since power-on.
    #[must_use]
    pub fn sets_leds(&self) -> bool {
        self.keyboard.sets_leds()
    }

    // -- output buffer -------------------------------------------------------------------------------------------

    /// Moves the next byte to the output buffer if that is empty.
    fn refill(&mut self) {
        while self.regs.full.is_none() {
            if let Some((byte, source)) = self.regs.answers.pop_front() {
                self.fill(byte, source);
            } else if !self.regs.mode(mode::KEYBOARD_DISABLED)
                && let Some(byte) = self.keyboard.take()
            {
                self.take_from_keyboard(byte);
            } else if !self.regs.mode(mode::AUX_DISABLED)
                && let Some(byte) = self.mouse.take()
            {
                self.fill(byte, Source::Aux);
            } else {
                break;
            }
        }
        self.update_irq();
    }

    fn take_from_keyboard(&mut self, byte: u8) {
        if !self.regs.mode(mode::TRANSLATE) {
            self.regs.release = false;
            self.fill(byte, Source::Keyboard);
        } else if byte == 0xf0 {
            self.regs.release = true;
        } else {
            let release = if std::mem::take(&mut self.regs.release) { 0x80 } else { 0 };
            self.fill(translate(byte) | release, Source::Keyboard);
        }
    }

    fn fill(&mut self, byte: u8, source: Source) {
        self.regs.data = byte;
        self.regs.full = Some(source);
    }

    /// An answer of the controller itself. It has one output buffer: what waits behind it is bounded.
    fn answer(&mut self, byte: u8, source: Source) {
        if self.regs.answers.len() >= 16 {
            self.regs.answers.clear();
        }
        self.regs.answers.push_back((byte, source));
    }

    /// The only place that drives the interrupt lines.
    fn update_irq(&mut self) {
        let keyboard = matches!(self.regs.full, Some(Source::Keyboard | Source::Controller))
            && self.regs.mode(mode::KEYBOARD_INTERRUPT)
            && !self.regs.mode(mode::KEYBOARD_DISABLED);
        let aux = self.regs.full == Some(Source::Aux) && self.regs.mode(mode::AUX_INTERRUPT);
        self.keyboard_irq.set(keyboard);
        self.mouse_irq.set(aux);
    }

    fn read_data(&mut self) -> u8 {
        let byte = self.regs.data;
        if self.regs.full.take().is_some() {
            // The lines fall before the next byte raises one: the interrupt controller sees an edge a byte.
            self.update_irq();
        }
        byte
    }

    fn status(&self) -> u8 {
        let mut value = status::UNLOCKED;
        if self.regs.full.is_some() {
            value |= status::OUTPUT_FULL;
        }
        if self.regs.full == Some(Source::Aux) {
            value |= status::AUX_FULL;
        }
        if self.regs.mode(mode::SYSTEM) {
            value |= status::SYSTEM;
        }
        if self.regs.last_was_command {
            value |= status::LAST_WAS_COMMAND;
        }
        value
    }

    fn output_port(&self) -> u8 {
        let mut value = self.regs.output_port;
        match self.regs.full {
            Some(Source::Aux) => value |= port::OUTPUT_FULL | port::AUX_FULL,
            Some(_) => value |= port::OUTPUT_FULL,
            None => {}
        }
        value
    }

    fn set_output_port(&mut self, value: u8) {
        self.regs.output_port = value & (port::NOT_RESET | port::A20) | port::ONES;
        self.a20.set(value & port::A20 != 0);
        if value & port::NOT_RESET == 0 {
            self.regs.output_port |= port::NOT_RESET;
            (self.power)(PowerRequest::Reset);
        }
    }

    // -- commands ------------------------------------------------------------------------------------------------

    fn command(&mut self, command: u8) {
        self.regs.last_was_command = true;
        self.regs.next_data = NextData::Keyboard;
        match command {
            0x20..=0x3f => {
                let byte = self.regs.ram[usize::from(command & 0x1f)];
                self.answer(byte, Source::Controller);
            }
            0x60..=0x7f => self.regs.next_data = NextData::Ram(command & 0x1f),
            0xa4 => self.answer(0xf1, Source::Controller), // no password installed
            0xa7 => self.regs.ram[0] |= mode::AUX_DISABLED,
            0xa8 => self.regs.ram[0] &= !mode::AUX_DISABLED,
            0xa9 | 0xab => self.answer(0x00, Source::Controller), // interface tests pass
            0xaa => {
                self.regs.ram[0] |= mode::SYSTEM;
                self.answer(0x55, Source::Controller);
            }
            0xad => self.regs.ram[0] |= mode::KEYBOARD_DISABLED,
            0xae => self.regs.ram[0] &= !mode::KEYBOARD_DISABLED,
            0xc0 => self.answer(0x80, Source::Controller), // keyboard not locked
            0xd0 => {
                let byte = self.output_port();
                self.answer(byte, Source::Controller);
            }
            0xd1 => self.regs.next_data = NextData::OutputPort,
            0xd2 => self.regs.next_data = NextData::KeyboardLoop,
            0xd3 => self.regs.next_data = NextData::AuxLoop,
            0xd4 => self.regs.next_data = NextData::Aux,
            // Later controllers: A20 off and on.
            0xdd => self.set_output_port(self.regs.output_port & !port::A20),
            0xdf => self.set_output_port(self.regs.output_port | port::A20),
            0xe0 => self.answer(0x00, Source::Controller), // test inputs: both clocks low
            // Pulse the output port's bits that are 0 in the command; only bit 0, the reset line, can be pulsed.
            0xf0..=0xff if command & 1 == 0 => (self.power)(PowerRequest::Reset),
            _ => {
                log::trace!(target: "i8042_unknown_command", "{command:#04x}");
                log::debug!(target: "guest_errors", "i8042: unknown command {command:#04x}");
            }
        }
        self.refill();
    }

    fn write_data(&mut self, byte: u8) {
        self.regs.last_was_command = false;
        match std::mem::replace(&mut self.regs.next_data, NextData::Keyboard) {
            NextData::Keyboard => {
                // Sending to a device enables its interface.
                self.regs.ram[0] &= !mode::KEYBOARD_DISABLED;
                self.keyboard.write(byte);
            }
            NextData::Aux => {
                self.regs.ram[0] &= !mode::AUX_DISABLED;
                self.mouse.write(byte);
            }
            NextData::Ram(at) => self.regs.ram[usize::from(at & 0x1f)] = byte,
            NextData::OutputPort => self.set_output_port(byte),
            NextData::KeyboardLoop => self.answer(byte, Source::Keyboard),
            NextData::AuxLoop => self.answer(byte, Source::Aux),
        }
        self.refill();
    }
}

impl Device for I8042 {
    fn read(&mut self, at: At) -> u64 {
        if at.region == COMMAND {
            return u64::from(self.status());
        }
        let byte = self.read_data();
        self.refill();
        u64::from(byte)
    }

    fn write(&mut self, at: At, value: u64) {
        let [byte, ..] = value.to_le_bytes();
        if at.region == COMMAND {
            self.command(byte);
        } else {
            self.write_data(byte);
        }
    }

    fn reset(&mut self, _kind: Reset) {
        let Self { keyboard_irq: _, mouse_irq: _, a20, power: _, keyboard, mouse, regs } = self;
        *regs = Regs::cold();
        keyboard.reset();
        mouse.reset();
        a20.set(true);
        self.update_irq();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Probe, Width};
    use crate::hw::bench::{Random, power_probe};
    use std::sync::Mutex;

    struct Bench {
        chip: I8042,
        irqs: Arc<Probe>,
        a20: Arc<A20Gate>,
        power: Arc<Mutex<Vec<PowerRequest>>>,
    }

    impl Bench {
        fn new() -> Self {
            let irqs = Probe::new();
            let a20 = A20Gate::new(|_| ());
            let (sink, power) = power_probe();
            let chip = I8042::new(irqs.line(1), irqs.line(12), Arc::clone(&a20), sink);
            Self { chip, irqs, a20, power }
        }

        fn status(&mut self) -> u64 {
            self.chip.read(At { region: COMMAND, offset: 0, width: Width::B1 })
        }

        fn data(&mut self) -> u64 {
            self.chip.read(At { region: DATA, offset: 0, width: Width::B1 })
        }

        fn command(&mut self, byte: u64) {
            self.chip.write(At { region: COMMAND, offset: 0, width: Width::B1 }, byte);
        }

        fn send(&mut self, byte: u64) {
            self.chip.write(At { region: DATA, offset: 0, width: Width::B1 }, byte);
        }

        fn all(&mut self) -> Vec<u64> {
            let mut bytes = Vec::new();
            while self.status() & 1 != 0 {
                bytes.push(self.data());
            }
            bytes
        }
    }

    #[test]
    fn power_on_is_as_qemu_shows_it() {
        let mut b = Bench::new();
        assert_eq!((b.status(), b.data()), (0x18, 0));
        b.command(0x20);
        assert_eq!(b.data(), 3);
        b.command(0xd0);
        assert_eq!(b.data(), 0xcf);
    }

    #[test]
    fn the_self_test_passes_and_sets_the_system_flag() {
        let mut b = Bench::new();
        b.command(0xaa);
        assert_eq!(b.status() & 5, 5);
        assert_eq!(b.data(), 0x55);
        assert_eq!(b.status() & 5, 4);
    }

    #[test]
    fn each_scan_code_byte_is_an_edge_on_irq_1() {
        let mut b = Bench::new();
        b.command(0x60);
        b.send(0x41);
        b.chip.key(KeyCode(0xc8), true);
        assert!(b.irqs.is_high(1));
        let edges = b.irqs.rising_edges();
        assert_eq!(b.data(), 0xe0);
        assert_eq!(b.irqs.rising_edges(), edges + 1);
        assert_eq!(b.data(), 0x48);
        assert!(!b.irqs.is_high(1));
        assert_eq!(b.data(), 0x48);
    }

    #[test]
    fn translation_turns_break_codes_around() {
        let mut b = Bench::new();
        b.command(0x60);
        b.send(0x41);
        b.chip.key(KeyCode(0x1e), false);
        assert_eq!(b.all(), [0x9e]);
        b.send(0xf2);
        assert_eq!(b.all(), [0xfa, 0xab, 0x41]);
    }

    #[test]
    fn mouse_bytes_raise_irq_12_and_the_aux_bit() {
        let mut b = Bench::new();
        b.command(0xd4);
        b.send(0xf4);
        assert_eq!(b.status() & 0x21, 0x21);
        assert!(b.irqs.is_high(12));
        assert!(!b.irqs.is_high(1));
        assert_eq!(b.all(), [0xfa]);
        assert!(!b.irqs.is_high(12));
        b.chip.move_by(1, -1, 0);
        assert_eq!(b.all(), [0x08, 1, 1]);
    }

    #[test]
    fn a_disabled_interface_holds_its_bytes() {
        let mut b = Bench::new();
        b.command(0xad);
        b.chip.key(KeyCode(0x1e), true);
        assert_eq!(b.status() & 1, 0);
        b.command(0xae);
        assert_eq!(b.all(), [0x1c]);
    }

    #[test]
    fn the_loops_look_like_the_devices() {
        let mut b = Bench::new();
        b.command(0xd3);
        b.send(0x5a);
        assert_eq!(b.status() & 0x21, 0x21);
        assert_eq!(b.data(), 0x5a);
        b.command(0xd2);
        b.send(0xa5);
        assert_eq!(b.status() & 0x21, 0x01);
        assert_eq!(b.data(), 0xa5);
    }

    #[test]
    fn interrupts_can_be_masked() {
        let mut b = Bench::new();
        b.command(0x60);
        b.send(0x00);
        b.chip.key(KeyCode(0x1e), true);
        assert!(!b.irqs.is_high(1));
        b.command(0x60);
        b.send(0x01);
        assert!(b.irqs.is_high(1));
    }

    #[test]
    fn the_output_port_switches_a20_and_reset() {
        let mut b = Bench::new();
        b.command(0xd1);
        b.send(0xdd);
        assert!(!b.a20.is_enabled());
        b.command(0xdf);
        assert!(b.a20.is_enabled());
        b.command(0xfe);
        b.command(0xd1);
        b.send(0x02);
        assert_eq!(*b.power.lock().unwrap(), [PowerRequest::Reset, PowerRequest::Reset]);
        b.command(0xff);
        assert_eq!(b.power.lock().unwrap().len(), 2);
    }

    #[test]
    fn controller_ram_holds_what_is_written() {
        let mut b = Bench::new();
        b.command(0x65);
        b.send(0x77);
        b.command(0x25);
        assert_eq!(b.data(), 0x77);
    }

    #[test]
    fn reset_is_power_on_and_lowers_the_lines() {
        let mut b = Bench::new();
        b.command(0xdd);
        b.chip.key(KeyCode(1), true);
        b.command(0xd4);
        b.send(0xf4);
        b.chip.reset(Reset::System);
        assert_eq!(b.chip.regs, Regs::cold());
        assert!(!b.irqs.is_high(1));
        assert!(b.a20.is_enabled());
        assert!(b.all().is_empty());
    }

    #[test]
    fn random_programs_never_panic_and_stay_bounded() {
        let mut b = Bench::new();
        let mut random = Random(11);
        for _ in 0..50_000 {
            let [byte, choice, ..] = random.next().to_le_bytes();
            match choice % 6 {
                0 => b.command(u64::from(byte)),
                1 | 2 => b.send(u64::from(byte)),
                3 => drop(b.data()),
                4 => b.chip.key(KeyCode(byte), choice & 0x80 != 0),
                _ => b.chip.move_by(i32::from(byte), -3, 1),
            }
            assert!(b.chip.regs.answers.len() <= 16);
        }
    }
}
