//! Keyboards and mice.

pub mod i8042;
pub mod ps2_keyboard;
pub mod ps2_mouse;
mod scancodes;
