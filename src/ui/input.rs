//! Keyboard and mouse events on their way from a viewer to a guest or a text console.

/// A key by its place on the keyboard: the number that QEMU's extended key event and PC keyboards share, i.e. the
/// make code of scan code set 1, with bit 7 set for codes that follow an E0h prefix. (E0h 48h, cursor up, is C8h;
/// Pause is C6h, Print Screen B7h.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyCode(pub u8);

/// A key that was pressed or released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyEvent {
    /// The key; `None` for a keysym that is on no key of the keymap.
    pub code: Option<KeyCode>,
    /// The X11 keysym that the viewer sent, 0 if none: text consoles use it.
    pub keysym: u32,
    /// Pressed.
    pub down: bool,
}

/// A mouse button.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MouseButton {
    /// Left.
    Left,
    /// Middle.
    Middle,
    /// Right.
    Right,
    /// Wheel up, one notch.
    WheelUp,
    /// Wheel down, one notch.
    WheelDown,
    /// Wheel left, one notch.
    WheelLeft,
    /// Wheel right, one notch.
    WheelRight,
    /// Fourth button.
    Side,
    /// Fifth button.
    Extra,
}

/// What keyboards and mice of a machine receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputEvent {
    /// A key.
    Key(KeyEvent),
    /// The pointer moved by this many pixels (right and down are positive).
    MoveBy {
        /// Right.
        dx: i32,
        /// Down.
        dy: i32,
    },
    /// The pointer is here, as a fraction of the screen: 0-32767.
    MoveTo {
        /// From the left.
        x: u16,
        /// From the top.
        y: u16,
    },
    /// A button.
    Button {
        /// Which.
        button: MouseButton,
        /// Pressed.
        down: bool,
    },
}

/// The keyboard's lights, as the guest sets them and as viewers are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leds {
    /// Scroll Lock.
    pub scroll: bool,
    /// Num Lock.
    pub num: bool,
    /// Caps Lock.
    pub caps: bool,
}

impl Leds {
    /// From the keyboard's own byte: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self { scroll: bits & 1 != 0, num: bits & 2 != 0, caps: bits & 4 != 0 }
    }

    /// That byte.
    #[must_use]
    pub fn bits(self) -> u8 {
        u8::from(self.scroll) | u8::from(self.num) << 1 | u8::from(self.caps) << 2
    }
}

/// Takes the input events of a guest: the machine's router to PS/2, USB and virtio devices. It may take the board
/// lock.
pub trait InputSink: Send + Sync {
    /// One event.
    fn input(&self, event: InputEvent);

    /// Whether the guest's current pointer takes absolute positions.
    fn is_absolute(&self) -> bool;

    /// The keyboard's lights; `None` as long as the guest has not set them, so that they tell nothing of its locks.
    fn leds(&self) -> Option<Leds> {
        None
    }
}
