use super::*;
use crate::bus::Width;
use crate::hw::bench::Random;

#[derive(Default)]
struct Messages(Mutex<Vec<(u64, u32)>>);

impl MsiSink for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

struct Bench {
    chip: Arc<IoApic>,
    window: IoApicWindow,
    messages: Arc<Messages>,
}

impl Bench {
    fn new() -> Self {
        let messages = Arc::new(Messages::default());
        let chip = IoApic::new(Arc::clone(&messages) as Arc<dyn MsiSink>);
        Self { window: IoApicWindow::new(Arc::clone(&chip)), chip, messages }
    }

    fn direct(&mut self, offset: u64, value: u32) {
        self.window.write(At { region: REGISTERS, offset, width: Width::B4 }, value.into());
    }

    fn read(&mut self, register: u8) -> u32 {
        self.direct(0, register.into());
        let value = self.window.read(At { region: REGISTERS, offset: 0x10, width: Width::B4 });
        u32::try_from(value).unwrap()
    }

    fn write(&mut self, register: u8, value: u32) {
        self.direct(0, register.into());
        self.direct(0x10, value);
    }

    fn route(&mut self, pin: u8, low: u32, high: u32) {
        self.write(0x11 + 2 * pin, high);
        self.write(0x10 + 2 * pin, low);
    }

    fn sent(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.messages.0.lock().unwrap())
    }
}

#[test]
fn power_on_masks_every_pin() {
    let mut b = Bench::new();
    assert_eq!((b.read(0), b.read(1), b.read(2)), (0, 0x0017_0020, 0));
    assert_eq!((b.read(0x10), b.read(0x11), b.read(0x3e), b.read(0x3f)), (0x1_0000, 0, 0x1_0000, 0));
    assert_eq!((b.read(0x40), b.read(0xff)), (0, 0));
}

#[test]
fn an_edge_is_one_message() {
    let mut b = Bench::new();
    b.route(4, 0x31, 0x0500_0000);
    b.chip.set_level(4, true);
    assert_eq!(b.sent(), [(0xfee0_5000, 0x31)]);
    b.chip.set_level(4, true);
    b.chip.set_level(4, false);
    assert_eq!(b.sent(), []);
    b.chip.set_level(4, true);
    assert_eq!(b.sent().len(), 1);
}

#[test]
fn logical_lowest_priority_and_other_modes_are_told() {
    let mut b = Bench::new();
    b.route(1, 0x0941, 0xff00_0000);
    b.chip.set_level(1, true);
    assert_eq!(b.sent(), [(0xfeef_f004, 0x141)]);
    for (pin, mode) in [(2, 2), (3, 4), (5, 5), (6, 7)] {
        b.route(pin, mode << 8, 0);
        b.chip.set_level(pin.into(), true);
        assert_eq!(b.sent(), [(0xfee0_0000, mode << 8)]);
    }
}

#[test]
fn a_level_waits_for_its_eoi_and_comes_again() {
    let mut b = Bench::new();
    b.route(10, 0x8051, 0);
    b.chip.set_level(10, true);
    assert_eq!(b.sent(), [(0xfee0_0000, 0xc051)]);
    assert_eq!(b.read(0x24), 0xc051);
    b.chip.set_level(10, true);
    b.chip.end_of_interrupt(0x50);
    assert_eq!(b.sent(), []);
    b.chip.end_of_interrupt(0x51);
    assert_eq!(b.sent().len(), 1);
    b.chip.set_level(10, false);
    b.chip.end_of_interrupt(0x51);
    assert_eq!(b.sent(), []);
    assert_eq!(b.read(0x24), 0x8051);
}

#[test]
fn the_eoi_register_ends_a_level() {
    let mut b = Bench::new();
    b.route(16, 0xa061, 0);
    b.chip.set_level(16, true);
    b.chip.set_level(16, false);
    assert_eq!(b.read(0x30), 0xe061);
    b.direct(0x40, 0x61);
    assert_eq!(b.read(0x30), 0xa061);
}

#[test]
fn a_masked_edge_is_lost_and_a_masked_level_is_not() {
    let mut b = Bench::new();
    b.route(4, 0x1_0031, 0);
    b.route(5, 0x1_8032, 0);
    b.chip.set_level(4, true);
    b.chip.set_level(5, true);
    assert_eq!(b.chip.registers().irr, 1 << 5);
    b.route(4, 0x31, 0);
    assert_eq!(b.sent(), []);
    b.route(5, 0x8032, 0);
    assert_eq!(b.sent(), [(0xfee0_0000, 0xc032)]);
}

#[test]
fn remote_irr_and_status_cannot_be_written_and_an_edge_clears_it() {
    let mut b = Bench::new();
    b.write(0x10, 0xffff_ffff);
    b.write(0x11, 0xffff_ffff);
    assert_eq!((b.read(0x10), b.read(0x11)), (0x1_afff, 0xff00_0000));
    b.route(7, 0x8070, 0);
    b.chip.set_level(7, true);
    b.route(7, 0x1_8070, 0);
    assert_eq!(b.read(0x1e), 0x1_c070);
    b.route(7, 0x1_0070, 0);
    assert_eq!(b.read(0x1e), 0x1_0070);
}

#[test]
fn the_id_has_four_bits() {
    let mut b = Bench::new();
    b.write(0, 0xff00_0000);
    b.write(1, 0xffff_ffff);
    assert_eq!((b.read(0), b.read(1), b.read(2)), (0x0f00_0000, 0x0017_0020, 0x0f00_0000));
    assert_eq!(b.chip.registers().id, 15);
}

#[test]
fn reset_is_power_on_and_keeps_the_inputs() {
    let mut b = Bench::new();
    b.route(9, 0x8051, 0);
    b.chip.set_level(9, true);
    b.window.reset(Reset::System);
    assert_eq!(b.chip.registers(), IoApic::new(Arc::clone(&b.messages) as Arc<dyn MsiSink>).registers());
    b.sent();
    b.route(9, 0x8051, 0);
    assert_eq!(b.sent().len(), 1);
}

#[test]
fn rubbish_never_panics() {
    let mut b = Bench::new();
    let mut random = Random(0x8209_3aa0);
    for _ in 0..20_000 {
        let word = random.next();
        let [register, what, vector, pin, ..] = word.to_le_bytes();
        let value = u32::try_from(word >> 32).unwrap();
        match what % 5 {
            0 => b.write(register % 0x48, value),
            1 => b.direct(u64::from(register) * 4, value),
            2 => b.chip.set_level((pin % 32).into(), value & 1 != 0),
            3 => b.chip.end_of_interrupt(vector),
            _ => {
                b.read(register);
            }
        }
        b.sent();
    }
}
