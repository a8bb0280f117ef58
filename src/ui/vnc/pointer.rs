//! From a viewer's pointer events to a mouse's.

use crate::ui::{InputEvent, MouseButton};

/// What the bits of a button mask mean (RFC 6143 7.5.5: buttons 1-3, then the wheel).
const BUTTONS: [MouseButton; 8] = [
    MouseButton::Left,
    MouseButton::Middle,
    MouseButton::Right,
    MouseButton::WheelUp,
    MouseButton::WheelDown,
    MouseButton::WheelLeft,
    MouseButton::WheelRight,
    MouseButton::Side,
];

/// A relative position of nothing (QEMU pointer motion change pseudo-encoding).
const CENTRE: i32 = 0x7fff;
/// The far edge in absolute positions.
const FAR: u64 = 0x7fff;

/// One viewer's pointer.
#[derive(Default)]
pub(super) struct Pointer {
    buttons: u8,
    /// The last position, to make movements from positions; forgotten when the mode changes.
    last: Option<(u16, u16)>,
}

/// How positions are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// The guest's pointer is absolute; the picture has this size.
    Absolute { width: u32, height: u32 },
    /// It is relative, and the viewer knows: it sends movements around a centre.
    Movements,
    /// It is relative, and the viewer sends positions.
    Positions,
}

impl Pointer {
    /// The events of a new mask and position.
    pub(super) fn event(&mut self, buttons: u8, x: u16, y: u16, mode: Mode) -> Vec<InputEvent> {
        let mut events = Vec::new();
        let last = self.last.take();
        match mode {
            Mode::Absolute { width, height } => {
                events.push(InputEvent::MoveTo { x: fraction(x, width), y: fraction(y, height) });
            }
            Mode::Movements => push_move(i32::from(x) - CENTRE, i32::from(y) - CENTRE, &mut events),
            Mode::Positions => {
                if let Some((last_x, last_y)) = last {
                    push_move(i32::from(x) - i32::from(last_x), i32::from(y) - i32::from(last_y), &mut events);
                }
                self.last = Some((x, y));
            }
        }
        self.push_buttons(buttons, &mut events);
        events
    }

    /// Releases of all buttons that are down: their viewer is gone.
    pub(super) fn release_all(&mut self) -> Vec<InputEvent> {
        let mut events = Vec::new();
        self.push_buttons(0, &mut events);
        events
    }

    fn push_buttons(&mut self, buttons: u8, events: &mut Vec<InputEvent>) {
        let changed = self.buttons ^ buttons;
        for (bit, button) in BUTTONS.into_iter().enumerate() {
            if changed >> bit & 1 != 0 {
                events.push(InputEvent::Button { button, down: buttons >> bit & 1 != 0 });
            }
        }
        self.buttons = buttons;
    }
}

fn push_move(dx: i32, dy: i32, events: &mut Vec<InputEvent>) {
    if (dx, dy) != (0, 0) {
        events.push(InputEvent::MoveBy { dx, dy });
    }
}

/// A position as a fraction of a side: the last pixel is the far edge.
fn fraction(position: u16, side: u32) -> u16 {
    let last = u64::from(side.saturating_sub(1).max(1));
    u16::try_from((u64::from(position) * FAR / last).min(FAR)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSOLUTE: Mode = Mode::Absolute { width: 640, height: 480 };

    #[test]
    fn absolute_positions_reach_both_edges_and_no_further() {
        let mut pointer = Pointer::default();
        assert_eq!(pointer.event(0, 0, 0, ABSOLUTE), [InputEvent::MoveTo { x: 0, y: 0 }]);
        assert_eq!(pointer.event(0, 639, 479, ABSOLUTE), [InputEvent::MoveTo { x: 0x7fff, y: 0x7fff }]);
        assert_eq!(pointer.event(0, 65535, 65535, ABSOLUTE), [InputEvent::MoveTo { x: 0x7fff, y: 0x7fff }]);
    }

    #[test]
    fn the_first_position_moves_nothing_and_the_next_by_the_difference() {
        let mut pointer = Pointer::default();
        assert_eq!(pointer.event(0, 100, 100, Mode::Positions), []);
        assert_eq!(pointer.event(0, 90, 105, Mode::Positions), [InputEvent::MoveBy { dx: -10, dy: 5 }]);
    }

    #[test]
    fn a_viewer_that_knows_sends_movements() {
        let mut pointer = Pointer::default();
        assert_eq!(pointer.event(0, 0x7fff + 3, 0x7fff - 4, Mode::Movements), [InputEvent::MoveBy { dx: 3, dy: -4 }]);
    }

    #[test]
    fn buttons_go_down_and_up_once() {
        let mut pointer = Pointer::default();
        let button = |button, down| InputEvent::Button { button, down };
        assert_eq!(
            pointer.event(0b101, 0, 0, Mode::Positions),
            [button(MouseButton::Left, true), button(MouseButton::Right, true)]
        );
        assert_eq!(
            pointer.event(0b1100, 0, 0, Mode::Positions),
            [button(MouseButton::Left, false), button(MouseButton::WheelUp, true)]
        );
        assert_eq!(pointer.release_all(), [button(MouseButton::Right, false), button(MouseButton::WheelUp, false)]);
        assert_eq!(pointer.release_all(), []);
    }
}
