//! Keys by name, and the queue that presses them one after another.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::event::{ClockKind, LoopHandle, Timer};
use crate::ui::{InputEvent, KeyCode, KeyEvent};

use super::control::Control;

/// QMP's QKeyCode names with the key's number (see [`KeyCode`]).
const NAMES: &[(&str, u8)] = &[
    ("shift", 0x2a),
    ("shift_r", 0x36),
    ("alt", 0x38),
    ("alt_r", 0xb8),
    ("ctrl", 0x1d),
    ("ctrl_r", 0x9d),
    ("menu", 0x9e),
    ("esc", 0x01),
    ("1", 0x02),
    ("2", 0x03),
    ("3", 0x04),
    ("4", 0x05),
    ("5", 0x06),
    ("6", 0x07),
    ("7", 0x08),
    ("8", 0x09),
    ("9", 0x0a),
    ("0", 0x0b),
    ("minus", 0x0c),
    ("equal", 0x0d),
    ("backspace", 0x0e),
    ("tab", 0x0f),
    ("q", 0x10),
    ("w", 0x11),
    ("e", 0x12),
    ("r", 0x13),
    ("t", 0x14),
    ("y", 0x15),
    ("u", 0x16),
    ("i", 0x17),
    ("o", 0x18),
    ("p", 0x19),
    ("bracket_left", 0x1a),
    ("bracket_right", 0x1b),
    ("ret", 0x1c),
    ("a", 0x1e),
    ("s", 0x1f),
    ("d", 0x20),
    ("f", 0x21),
    ("g", 0x22),
    ("h", 0x23),
    ("j", 0x24),
    ("k", 0x25),
    ("l", 0x26),
    ("semicolon", 0x27),
    ("apostrophe", 0x28),
    ("grave_accent", 0x29),
    ("backslash", 0x2b),
    ("z", 0x2c),
    ("x", 0x2d),
    ("c", 0x2e),
    ("v", 0x2f),
    ("b", 0x30),
    ("n", 0x31),
    ("m", 0x32),
    ("comma", 0x33),
    ("dot", 0x34),
    ("slash", 0x35),
    ("asterisk", 0x37),
    ("spc", 0x39),
    ("caps_lock", 0x3a),
    ("f1", 0x3b),
    ("f2", 0x3c),
    ("f3", 0x3d),
    ("f4", 0x3e),
    ("f5", 0x3f),
    ("f6", 0x40),
    ("f7", 0x41),
    ("f8", 0x42),
    ("f9", 0x43),
    ("f10", 0x44),
    ("num_lock", 0x45),
    ("scroll_lock", 0x46),
    ("kp_divide", 0xb5),
    ("kp_multiply", 0x37),
    ("kp_subtract", 0x4a),
    ("kp_add", 0x4e),
    ("kp_enter", 0x9c),
    ("kp_decimal", 0x53),
    ("sysrq", 0x54),
    ("kp_0", 0x52),
    ("kp_1", 0x4f),
    ("kp_2", 0x50),
    ("kp_3", 0x51),
    ("kp_4", 0x4b),
    ("kp_5", 0x4c),
    ("kp_6", 0x4d),
    ("kp_7", 0x47),
    ("kp_8", 0x48),
    ("kp_9", 0x49),
    ("less", 0x56),
    ("f11", 0x57),
    ("f12", 0x58),
    ("print", 0xb7),
    ("home", 0xc7),
    ("pgup", 0xc9),
    ("pgdn", 0xd1),
    ("end", 0xcf),
    ("left", 0xcb),
    ("up", 0xc8),
    ("down", 0xd0),
    ("right", 0xcd),
    ("insert", 0xd2),
    ("delete", 0xd3),
    ("stop", 0xe8),
    ("again", 0x85),
    ("props", 0x86),
    ("undo", 0x87),
    ("front", 0x8c),
    ("copy", 0xf8),
    ("open", 0x64),
    ("paste", 0x65),
    ("find", 0xc1),
    ("cut", 0xbc),
    ("lf", 0x5b),
    ("help", 0xf5),
    ("meta_l", 0xdb),
    ("meta_r", 0xdc),
    ("compose", 0xdd),
    ("pause", 0xc6),
    ("ro", 0x73),
    ("hiragana", 0x77),
    ("henkan", 0x79),
    ("yen", 0x7d),
    ("muhenkan", 0x7b),
    ("katakanahiragana", 0x70),
    ("kp_comma", 0x7e),
    ("kp_equals", 0x59),
    ("power", 0xde),
    ("sleep", 0xdf),
    ("wake", 0xe3),
    ("audionext", 0x99),
    ("audioprev", 0x90),
    ("audiostop", 0xa4),
    ("audioplay", 0xa2),
    ("audiomute", 0xa0),
    ("volumeup", 0xb0),
    ("volumedown", 0xae),
    ("mediaselect", 0xed),
    ("mail", 0xec),
    ("calculator", 0xa1),
    ("computer", 0xeb),
    ("ac_home", 0xb2),
    ("ac_back", 0xea),
    ("ac_forward", 0xe9),
    ("ac_refresh", 0xe7),
    ("ac_bookmarks", 0xe6),
    ("lang1", 0x72),
    ("lang2", 0x71),
    ("f13", 0x5d),
    ("f14", 0x5e),
    ("f15", 0x5f),
    ("f16", 0x55),
    ("f17", 0x83),
    ("f18", 0xf7),
    ("f19", 0x84),
    ("f20", 0x5a),
    ("f21", 0x74),
    ("f22", 0xf9),
    ("f23", 0x6d),
    ("f24", 0x6f),
];

/// The key of a name.
#[must_use]
pub fn by_name(name: &str) -> Option<KeyCode> {
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, code)| KeyCode(*code))
}

/// All names, for completion.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// The keys of `sendkey`'s argument: names or numbers joined by `-`; `<` is "less".
///
/// # Errors
/// "invalid parameter: name".
pub fn parse_combination(text: &str) -> Result<Vec<KeyCode>, String> {
    text.split('-')
        .map(|name| {
            let number = name.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
            let key = match number {
                Some(number) => u8::try_from(number & 0xff).ok().map(KeyCode),
                None => by_name(if name == "<" { "less" } else { name }),
            };
            key.ok_or_else(|| format!("invalid parameter: {name}"))
        })
        .collect()
}

/// How long keys are held if nothing else is said.
const DEFAULT_HOLD_MS: u64 = 100;

/// Presses that wait.
const MAX_STEPS: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Key(KeyCode, bool),
    Wait(u64),
}

/// Presses keys, holds them, and releases them in reverse order, by the machine's clock.
pub struct KeyQueue {
    control: Arc<dyn Control>,
    steps: Mutex<VecDeque<Step>>,
    timer: Mutex<Option<Timer>>,
}

impl fmt::Debug for KeyQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyQueue({} steps)", lock(&self.steps).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A queue and a timer are whole at all times.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KeyQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(handle: &LoopHandle, control: Arc<dyn Control>) -> Arc<Self> {
        let queue = Arc::new(Self { control, steps: Mutex::default(), timer: Mutex::default() });
        let weak: Weak<Self> = Arc::downgrade(&queue);
        let timer = handle.timer(ClockKind::Virtual, move || {
            if let Some(queue) = weak.upgrade() {
                queue.run();
            }
        });
        *lock(&queue.timer) = Some(timer);
        queue
    }

    /// Presses `keys` together for `hold_ms`, after what waits already. On the loop's thread.
    pub fn press(&self, keys: &[KeyCode], hold_ms: Option<u64>) {
        let hold = hold_ms.filter(|ms| *ms > 0).unwrap_or(DEFAULT_HOLD_MS);
        let idle = {
            let mut steps = lock(&self.steps);
            if steps.len() + 2 * keys.len() + 2 > MAX_STEPS {
                return;
            }
            let idle = steps.is_empty();
            steps.extend(keys.iter().map(|key| Step::Key(*key, true)));
            steps.push_back(Step::Wait(hold));
            steps.extend(keys.iter().rev().map(|key| Step::Key(*key, false)));
            steps.push_back(Step::Wait(hold));
            idle
        };
        if idle {
            self.run();
        }
    }

    /// Does what is due. A wait stays in the queue until its time is over.
    fn run(&self) {
        let expired = lock(&self.timer).as_ref().is_none_or(|timer| timer.deadline().is_none());
        if !expired {
            return;
        }
        let _ = lock(&self.steps).pop_front_if(|step| matches!(step, Step::Wait(_)));
        loop {
            let step = lock(&self.steps).front().copied();
            match step {
                None => return,
                Some(Step::Key(code, down)) => {
                    lock(&self.steps).pop_front();
                    // Called with no lock held: it may take the board lock.
                    self.control.input(InputEvent::Key(KeyEvent { code: Some(code), keysym: 0, down }));
                }
                Some(Step::Wait(ms)) => {
                    if let Some(timer) = &*lock(&self.timer) {
                        timer.set(timer.now_ns().saturating_add(ms.saturating_mul(1_000_000)));
                    }
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = names().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn combinations_are_names_and_numbers() {
        assert_eq!(parse_combination("ctrl-alt-f1"), Ok(vec![KeyCode(0x1d), KeyCode(0x38), KeyCode(0x3b)]));
        assert_eq!(parse_combination("<-0x1e"), Ok(vec![KeyCode(0x56), KeyCode(0x1e)]));
        assert_eq!(parse_combination("foo"), Err("invalid parameter: foo".to_owned()));
        assert_eq!(parse_combination("ctrl-"), Err("invalid parameter: ".to_owned()));
    }
}
