//! Keyboard layouts (`-k`): which key of a PC keyboard bears a symbol.
//!
//! Symbols are X11 keysyms (X Window System Protocol, appendix A). The keys that all layouts share are a table here;
//! the others are in `NAME.keys`, one line for each key: its scan code (set 1, hexadecimal) and its symbols plain, with Shift,
//! with AltGr and with both. A symbol is a character, the X11 name of a dead key, or `none`.

mod shared;

use std::collections::BTreeMap;

use super::KeyCode;
use shared::{DEAD_KEYS, LEGACY_KEYSYMS, SHARED_KEYS};

/// The layouts by their names.
const LAYOUTS: &[(&str, &str)] = &[
    ("ar", include_str!("ar.keys")),
    ("bepo", include_str!("bepo.keys")),
    ("cz", include_str!("cz.keys")),
    ("da", include_str!("da.keys")),
    ("de-ch", include_str!("de-ch.keys")),
    ("de", include_str!("de.keys")),
    ("en-gb", include_str!("en-gb.keys")),
    ("en-us", include_str!("en-us.keys")),
    ("es", include_str!("es.keys")),
    ("et", include_str!("et.keys")),
    ("fi", include_str!("fi.keys")),
    ("fo", include_str!("fo.keys")),
    ("fr-be", include_str!("fr-be.keys")),
    ("fr-ca", include_str!("fr-ca.keys")),
    ("fr-ch", include_str!("fr-ch.keys")),
    ("fr", include_str!("fr.keys")),
    ("hr", include_str!("hr.keys")),
    ("hu", include_str!("hu.keys")),
    ("is", include_str!("is.keys")),
    ("it", include_str!("it.keys")),
    ("ja", include_str!("ja.keys")),
    ("lt", include_str!("lt.keys")),
    ("lv", include_str!("lv.keys")),
    ("mk", include_str!("mk.keys")),
    ("nl", include_str!("nl.keys")),
    ("no", include_str!("no.keys")),
    ("pl", include_str!("pl.keys")),
    ("pt-br", include_str!("pt-br.keys")),
    ("pt", include_str!("pt.keys")),
    ("ru", include_str!("ru.keys")),
    ("sl", include_str!("sl.keys")),
    ("sv", include_str!("sv.keys")),
    ("th", include_str!("th.keys")),
    ("tr", include_str!("tr.keys")),
];

/// Where keyboards of other scripts have their Latin letters.
const LATIN: &str = include_str!("en-us.keys");

/// A layout that does not exist; the text is QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("could not read keymap file: '{0}'")]
pub struct UnknownKeymap(pub String);

/// The modifiers that a symbol takes on its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// None.
    Plain,
    /// Shift.
    Shift,
    /// AltGr.
    AltGr,
    /// Both.
    ShiftAltGr,
}

impl Level {
    const ALL: [Self; 4] = [Self::Plain, Self::Shift, Self::AltGr, Self::ShiftAltGr];

    /// Whether Shift is held.
    #[must_use]
    pub fn shift(self) -> bool {
        matches!(self, Self::Shift | Self::ShiftAltGr)
    }

    /// Whether AltGr is held.
    #[must_use]
    pub fn altgr(self) -> bool {
        matches!(self, Self::AltGr | Self::ShiftAltGr)
    }
}

/// Where a symbol is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// The key.
    pub code: KeyCode,
    /// The modifiers it takes; `None` for keys that mean the same with any.
    pub level: Option<Level>,
    /// Whether Caps Lock changes it.
    pub is_letter: bool,
}

/// A layout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keymap {
    symbols: BTreeMap<u32, Key>,
    has_altgr: bool,
}

impl Keymap {
    /// The layout of this name.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn load(name: &str) -> Result<Self, UnknownKeymap> {
        let text = LAYOUTS.iter().find(|(known, _)| *known == name).ok_or_else(|| UnknownKeymap(name.to_owned()))?.1;
        Ok(Self::parse(text))
    }

    /// The layouts there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        LAYOUTS.iter().map(|(name, _)| *name)
    }

    /// Reads a layout of our own; `layouts_are_well_formed` keeps every line readable.
    fn parse(text: &str) -> Self {
        let mut symbols = BTreeMap::new();
        for &(keysym, code) in SHARED_KEYS {
            symbols.entry(keysym).or_insert(Key { code: KeyCode(code), level: None, is_letter: false });
        }
        add_rows(text, &mut symbols);
        if !symbols.contains_key(&u32::from('a')) {
            // Keyboards of other scripts have Latin letters in another group, where American ones have them.
            add_rows(LATIN, &mut symbols);
        }
        let has_altgr = symbols.values().any(|key| key.level.is_some_and(Level::altgr));
        Self { symbols, has_altgr }
    }

    /// The key that bears a symbol.
    #[must_use]
    pub fn find(&self, keysym: u32) -> Option<Key> {
        let keysym = canonical(keysym);
        self.symbols.get(&keysym).or_else(|| self.symbols.get(&twin(keysym)?)).copied()
    }

    /// Whether any symbol takes AltGr: the right Alt key is then no Alt.
    #[must_use]
    pub fn has_altgr(&self) -> bool {
        self.has_altgr
    }
}

/// Adds the keys of a layout that bear symbols not known yet.
fn add_rows(text: &str, symbols: &mut BTreeMap<u32, Key>) {
    let rows: Vec<(KeyCode, Vec<u32>)> = text.lines().filter_map(row).collect();
    // The level that takes the fewest modifiers wins, then the first key.
    for (index, level) in Level::ALL.into_iter().enumerate() {
        for (code, keysyms) in &rows {
            if let Some(&keysym) = keysyms.get(index)
                && keysym != 0
            {
                let is_letter = char::from_u32(keysym).is_some_and(|c| c.is_uppercase() || c.is_lowercase())
                    && !DEAD_KEYS.iter().any(|(_, dead, _)| *dead == keysym);
                symbols.entry(keysym).or_insert(Key { code: *code, level: Some(level), is_letter });
            }
        }
    }
}

/// A line of a layout; none for comments.
fn row(line: &str) -> Option<(KeyCode, Vec<u32>)> {
    let mut words = line.split_whitespace();
    let code = u8::from_str_radix(words.next()?, 16).ok()?;
    Some((KeyCode(code), words.map(|word| symbol(word).unwrap_or(0)).collect()))
}

/// A symbol of a layout as a canonical keysym.
fn symbol(word: &str) -> Option<u32> {
    let mut characters = word.chars();
    match (characters.next(), characters.next()) {
        (Some(single), None) => Some(u32::from(single)),
        _ => DEAD_KEYS.iter().find(|(name, ..)| *name == word).map(|(_, keysym, _)| *keysym),
    }
}

/// One number for each symbol: characters by their Unicode number, other keysyms as they are. (Keysyms of Latin-1
/// characters are their Unicode numbers; others have a legacy keysym, or 01000000h plus the number, or both.)
fn canonical(keysym: u32) -> u32 {
    match keysym {
        0x0100_0000..=0x0110_ffff => keysym - 0x0100_0000,
        _ => LEGACY_KEYSYMS
            .binary_search_by_key(&keysym, |(legacy, _)| *legacy)
            .map_or(keysym, |found| u32::from(LEGACY_KEYSYMS[found].1)),
    }
}

/// The dead key for an accent that stands alone, and the other way round.
fn twin(keysym: u32) -> Option<u32> {
    DEAD_KEYS.iter().find_map(|&(_, dead, alone)| match (u32::from(alone), dead) {
        (alone, dead) if alone == keysym => Some(dead),
        (alone, dead) if dead == keysym => Some(alone),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(layout: &str, keysym: u32) -> (u8, Option<Level>) {
        let key = Keymap::load(layout).unwrap().find(keysym).unwrap();
        (key.code.0, key.level)
    }

    fn character(layout: &str, c: char) -> (u8, Option<Level>) {
        key(layout, u32::from(c))
    }

    #[test]
    fn layouts_are_well_formed() {
        for (name, text) in LAYOUTS {
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let mut words = line.split_whitespace();
                let code = u8::from_str_radix(words.next().unwrap(), 16).unwrap();
                assert!(matches!(code, 2..=0x56 | 0x73 | 0x7d), "{name}: {line}");
                let symbols: Vec<_> = words.collect();
                assert!((1..=4).contains(&symbols.len()), "{name}: {line}");
                assert!(symbols.iter().all(|word| *word == "none" || symbol(word).is_some()), "{name}: {line}");
            }
            assert!(text.lines().count() >= 47, "{name}");
        }
    }

    #[test]
    fn every_layout_types_all_of_ascii() {
        for name in Keymap::names() {
            let keymap = Keymap::load(name).unwrap();
            let missing: Vec<char> = (' '..='~').filter(|c| keymap.find(u32::from(*c)).is_none()).collect();

            assert_eq!(missing, [], "{name}");
        }
    }

    #[test]
    fn tables_that_are_searched_are_in_order() {
        assert!(LEGACY_KEYSYMS.is_sorted_by_key(|(keysym, _)| *keysym));
    }

    #[test]
    fn other_scripts_have_latin_letters_too() {
        assert_eq!(character("ru", 'й'), (0x10, Some(Level::Plain)));
        assert_eq!(key("ru", 0x06ca), (0x10, Some(Level::Plain)));
        assert_eq!(character("ru", 'q'), (0x10, Some(Level::Plain)));
        assert_eq!(character("ru", ';'), (0x05, Some(Level::Shift)));
    }

    #[test]
    fn the_same_symbol_is_elsewhere_on_another_layout() {
        assert_eq!(character("en-us", 'z'), (0x2c, Some(Level::Plain)));
        assert_eq!(character("de", 'z'), (0x15, Some(Level::Plain)));
        assert_eq!(character("fr", 'a'), (0x10, Some(Level::Plain)));
        assert_eq!(character("fr", '1'), (2, Some(Level::Shift)));
        assert_eq!(character("de", '@'), (0x10, Some(Level::AltGr)));
        assert_eq!(character("en-gb", '#'), (0x2b, Some(Level::Plain)));
        assert_eq!(character("en-us", '<'), (0x33, Some(Level::Shift)));
        assert_eq!(character("de", '<'), (0x56, Some(Level::Plain)));
        assert_eq!(character("es", 'ñ'), (0x27, Some(Level::Plain)));
        assert_eq!(character("it", 'è'), (0x1a, Some(Level::Plain)));
    }

    #[test]
    fn keys_without_characters_are_the_same_everywhere() {
        assert_eq!(key("fr", 0xff0d), (0x1c, None));
        assert_eq!(key("de", 0xff52), (0xc8, None));
        assert_eq!(key("en-us", 0xffe4), (0x9d, None));
        assert_eq!(key("en-us", 0xff13), (0xc6, None));
        assert_eq!(key("en-us", u32::from(' ')), (0x39, None));
    }

    #[test]
    fn a_character_is_found_by_its_unicode_and_its_legacy_keysym() {
        assert_eq!(key("de", 0x0100_20ac), (0x12, Some(Level::AltGr)));
        assert_eq!(key("de", 0x20ac), (0x12, Some(Level::AltGr)));
        assert_eq!(key("de", 0x01b3), character("de", 'ł'));
        assert_eq!(key("en-us", 0x0100_0041), character("en-us", 'A'));
    }

    #[test]
    fn an_accent_alone_is_typed_with_its_dead_key() {
        assert_eq!(character("de", '^'), (0x29, Some(Level::Plain)));
        assert_eq!(key("en-us", 0xfe52), character("en-us", '^'));
    }

    #[test]
    fn caps_lock_changes_letters_only() {
        let keymap = Keymap::load("de").unwrap();
        assert!(keymap.find(u32::from('ä')).unwrap().is_letter);
        assert!(!keymap.find(u32::from('1')).unwrap().is_letter);
        assert!(!keymap.find(0xfe52).unwrap().is_letter);
    }

    #[test]
    fn an_unknown_layout_is_refused_in_qemus_words() {
        assert_eq!(Keymap::load("xx").unwrap_err().to_string(), "could not read keymap file: 'xx'");
    }

    #[test]
    fn an_unknown_keysym_is_on_no_key() {
        assert_eq!(Keymap::load("en-us").unwrap().find(0xdead_beef), None);
    }
}
