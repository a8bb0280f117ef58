//! The user interface: surfaces, consoles, keyboard and mouse, and the VNC server that shows them.

mod display;
mod input;
pub mod keymap;
pub mod picture;
mod surface;
pub mod text;
mod ticker;
pub mod vnc;

pub use display::{ConsoleKind, ConsoleSource, Display, DisplayListener, Refresh};
pub use input::{InputEvent, InputSink, KeyCode, KeyEvent, Leds, MouseButton};
pub use surface::{Cursor, Rect, Surface};
pub use ticker::DisplayTicker;
