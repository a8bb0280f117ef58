//! The user interface: surfaces, consoles, keyboard and mouse, and the VNC server that shows them.

mod display;
mod input;
pub mod picture;
mod surface;

pub use display::{ConsoleKind, ConsoleSource, Display, DisplayListener, Refresh};
pub use input::{InputEvent, InputSink, KeyCode, KeyEvent, MouseButton};
pub use surface::{Cursor, Rect, Surface};
