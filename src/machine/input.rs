//! Viewers' input on its way to the guest's keyboard and mouse.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{BoardCell, DeviceRef};
use crate::hw::input::i8042::I8042;
use crate::ui::{InputEvent, InputSink, Leds, MouseButton};

/// The PS/2 keyboard and mouse behind the board lock.
pub struct Ps2Input {
    board: Arc<BoardCell>,
    controller: DeviceRef<I8042>,
    /// The last absolute position, for viewers that only have those.
    last: Mutex<Option<(u16, u16)>>,
}

impl Ps2Input {
    /// Input for `controller`.
    #[must_use]
    pub fn new(board: Arc<BoardCell>, controller: DeviceRef<I8042>) -> Self {
        Self { board, controller, last: Mutex::new(None) }
    }
}

impl InputSink for Ps2Input {
    fn input(&self, event: InputEvent) {
        let mut moved = (0, 0);
        if let InputEvent::MoveTo { x, y } = event {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((old_x, old_y)) = *last {
                moved = (i32::from(x) - i32::from(old_x), i32::from(y) - i32::from(old_y));
            }
            *last = Some((x, y));
        }
        let mut board = self.board.lock();
        board.with(&self.controller, |controller| match event {
            InputEvent::Key(key) => {
                if let Some(code) = key.code {
                    controller.key(code, key.down);
                }
            }
            InputEvent::MoveBy { dx, dy } => controller.move_by(dx, dy, 0),
            // A fraction of the screen: a PS/2 mouse counts about 1000 units across one.
            InputEvent::MoveTo { .. } => controller.move_by(moved.0 / 32, moved.1 / 32, 0),
            InputEvent::Button { button: MouseButton::WheelUp, down } => {
                if down {
                    controller.move_by(0, 0, -1);
                }
            }
            InputEvent::Button { button: MouseButton::WheelDown, down } => {
                if down {
                    controller.move_by(0, 0, 1);
                }
            }
            InputEvent::Button { button, down } => controller.button(button, down),
        });
    }

    fn is_absolute(&self) -> bool {
        false
    }

    fn leds(&self) -> Option<Leds> {
        let mut board = self.board.lock();
        board
            .with(&self.controller, |keyboard| keyboard.sets_leds().then(|| Leds::from_bits(keyboard.leds())))
            .flatten()
    }
}
