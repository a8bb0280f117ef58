//! The line editor of a monitor: bytes from a terminal in, a line and its echo out.
//!
//! Emacs keys, cursor keys (ECMA-48 and VT220 sequences), history with up and down, Ctrl-R backwards search, tab
//! completion. It is a state machine without any terminal, so that it works on every stream.

/// Lines longer than this do not grow.
const MAX_LINE: usize = 4095;
/// Remembered lines.
const MAX_HISTORY: usize = 64;

/// What a byte led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing but an echo.
    Continue,
    /// A line was entered.
    Line(String),
    /// The user wants completion: call [`Readline::complete`].
    Complete,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Esc,
    /// After ESC `[`; the number so far.
    Csi(u32),
    /// After ESC `O`.
    Ss3,
}

/// A backwards search through the history.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Search {
    pattern: Vec<u8>,
    /// Where in the history the match is.
    found: Option<usize>,
    saved: Vec<u8>,
}

/// The editor.
#[derive(Clone, Debug)]
pub struct Readline {
    prompt: String,
    line: Vec<u8>,
    cursor: usize,
    escape: Escape,
    history: Vec<Vec<u8>>,
    /// The history line that is shown, and the line that it replaced.
    browsing: Option<usize>,
    draft: Vec<u8>,
    killed: Vec<u8>,
    search: Option<Search>,
    password: bool,
    after_return: bool,
    output: Vec<u8>,
}

impl Readline {
    /// An editor that shows this prompt.
    #[must_use]
    pub fn new(prompt: &str) -> Self {
        Self {
            prompt: prompt.to_owned(),
            line: Vec::new(),
            cursor: 0,
            escape: Escape::None,
            history: Vec::new(),
            browsing: None,
            draft: Vec::new(),
            killed: Vec::new(),
            search: None,
            password: false,
            after_return: false,
            output: Vec::new(),
        }
    }

    /// Begins a line: shows the prompt.
    pub fn start(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.browsing = None;
        self.search = None;
        self.password = false;
        self.echo_prompt();
    }

    /// Begins a line that is not shown and not remembered.
    pub fn start_password(&mut self, prompt: &str) {
        self.start_without_prompt();
        self.password = true;
        self.output.extend(prompt.bytes());
    }

    fn start_without_prompt(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.browsing = None;
        self.search = None;
    }

    /// Shows the prompt and what was typed so far: something else was printed in between.
    pub fn redisplay(&mut self) {
        self.echo_prompt();
        self.show_from(0);
    }

    fn echo_prompt(&mut self) {
        self.output.extend(self.prompt.bytes());
    }

    /// What the terminal is to get.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The remembered lines, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<String> {
        self.history.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// A byte from the terminal.
    pub fn input(&mut self, byte: u8) -> Outcome {
        if self.search.is_some() {
            return self.search_input(byte);
        }
        match std::mem::take(&mut self.escape) {
            Escape::None => self.plain(byte),
            Escape::Esc => {
                self.after_escape(byte);
                Outcome::Continue
            }
            Escape::Csi(number) => {
                self.control_sequence(number, byte);
                Outcome::Continue
            }
            Escape::Ss3 => {
                match byte {
                    b'H' => self.move_to(0),
                    b'F' => self.move_to(self.line.len()),
                    b'A' => self.older(),
                    b'B' => self.newer(),
                    b'C' => self.right(),
                    b'D' => self.left(),
                    _ => {}
                }
                Outcome::Continue
            }
        }
    }

    fn plain(&mut self, byte: u8) -> Outcome {
        // A carriage return with a line feed is one end of line.
        if std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n' {
            return Outcome::Continue;
        }
        match byte {
            b'\r' | b'\n' => return self.enter(),
            b'\t' if !self.password => return Outcome::Complete,
            0x1b => self.escape = Escape::Esc,
            0x9b => self.escape = Escape::Csi(0),
            0x01 => self.move_to(0),
            0x02 => self.left(),
            0x04 => self.delete(),
            0x05 => self.move_to(self.line.len()),
            0x06 => self.right(),
            0x08 | 0x7f => self.backspace(),
            0x0b => self.kill(self.cursor, self.line.len()),
            0x0c => {
                self.output.extend(b"\x1b[H\x1b[2J");
                self.redisplay();
            }
            0x0e => self.newer(),
            0x10 => self.older(),
            0x12 if !self.password => self.start_search(),
            0x15 => self.kill(0, self.cursor),
            0x17 => self.kill(self.word_start(), self.cursor),
            0x19 => {
                for byte in self.killed.clone() {
                    self.insert(byte);
                }
            }
            0x20..=0x7e | 0x80..=0xff => self.insert(byte),
            _ => {}
        }
        Outcome::Continue
    }

    fn after_escape(&mut self, byte: u8) {
        match byte {
            b'[' => self.escape = Escape::Csi(0),
            b'O' => self.escape = Escape::Ss3,
            b'b' => self.move_to(self.word_start()),
            b'f' => self.move_to(self.word_end()),
            b'd' => self.kill(self.cursor, self.word_end()),
            0x08 | 0x7f => self.kill(self.word_start(), self.cursor),
            _ => {}
        }
    }

    fn control_sequence(&mut self, number: u32, byte: u8) {
        match byte {
            b'0'..=b'9' => {
                let digit = u32::from(byte - b'0');
                self.escape = Escape::Csi(number.saturating_mul(10).saturating_add(digit));
            }
            // Modifiers ("1;5C") do not matter here.
            b';' => self.escape = Escape::Csi(0),
            b'A' => self.older(),
            b'B' => self.newer(),
            b'C' => self.right(),
            b'D' => self.left(),
            b'H' => self.move_to(0),
            b'F' => self.move_to(self.line.len()),
            b'~' => match number {
                1 | 7 => self.move_to(0),
                3 => self.delete(),
                4 | 8 => self.move_to(self.line.len()),
                _ => {}
            },
            _ => {}
        }
    }

    fn enter(&mut self) -> Outcome {
        self.move_to(self.line.len());
        self.output.extend(b"\r\n");
        let line = std::mem::take(&mut self.line);
        self.cursor = 0;
        self.browsing = None;
        if !self.password {
            self.remember(&line);
        }
        Outcome::Line(String::from_utf8_lossy(&line).into_owned())
    }

    fn remember(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        self.history.retain(|old| old != line);
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(0);
        }
        self.history.push(line.to_vec());
    }

    // -- editing -------------------------------------------------------------------------------------------------

    fn shown(&self, bytes: &[u8]) -> Vec<u8> {
        if self.password { vec![b'*'; bytes.len()] } else { bytes.to_vec() }
    }

    /// Prints the line from `from` on, with the cursor there, and moves back to the cursor.
    fn show_from(&mut self, from: usize) {
        let text = self.shown(&self.line[from..]);
        self.output.extend(text);
        self.output.extend(b"\x1b[K");
        self.step_back(self.line.len() - self.cursor);
    }

    fn step_back(&mut self, count: usize) {
        if count > 0 {
            self.output.extend(format!("\x1b[{count}D").bytes());
        }
    }

    fn insert(&mut self, byte: u8) {
        if self.line.len() >= MAX_LINE {
            return;
        }
        self.line.insert(self.cursor, byte);
        self.cursor += 1;
        if self.cursor == self.line.len() {
            let text = self.shown(&[byte]);
            self.output.extend(text);
        } else {
            self.show_from(self.cursor - 1);
        }
    }

    fn move_to(&mut self, place: usize) {
        if place < self.cursor {
            self.step_back(self.cursor - place);
        } else if place > self.cursor {
            self.output.extend(format!("\x1b[{}C", place - self.cursor).bytes());
        }
        self.cursor = place;
    }

    fn left(&mut self) {
        self.move_to(self.cursor.saturating_sub(1));
    }

    fn right(&mut self) {
        self.move_to((self.cursor + 1).min(self.line.len()));
    }

    fn delete(&mut self) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
            self.show_from(self.cursor);
        }
    }

    fn backspace(&mut self) {
        if self.cursor > 0 {
            self.left();
            self.delete();
        }
    }

    fn kill(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        self.move_to(from);
        self.killed = self.line.drain(from..to).collect();
        self.show_from(from);
    }

    fn word_start(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
        before[..end].iter().rposition(|byte| *byte == b' ').map_or(0, |at| at + 1)
    }

    fn word_end(&self) -> usize {
        let after = &self.line[self.cursor..];
        let start = after.iter().position(|byte| *byte != b' ').unwrap_or(after.len());
        let len = after[start..].iter().position(|byte| *byte == b' ').unwrap_or(after.len() - start);
        self.cursor + start + len
    }

    fn replace(&mut self, line: Vec<u8>) {
        self.move_to(0);
        self.line = line;
        self.cursor = self.line.len();
        self.show_from(0);
    }

    // -- history -------------------------------------------------------------------------------------------------

    fn older(&mut self) {
        if self.password {
            return;
        }
        let index = match self.browsing {
            None => self.history.len(),
            Some(index) => index,
        };
        let Some(index) = index.checked_sub(1) else { return };
        if self.browsing.is_none() {
            self.draft = self.line.clone();
        }
        self.browsing = Some(index);
        self.replace(self.history[index].clone());
    }

    fn newer(&mut self) {
        let Some(index) = self.browsing else { return };
        if index + 1 < self.history.len() {
            self.browsing = Some(index + 1);
            self.replace(self.history[index + 1].clone());
        } else {
            self.browsing = None;
            let draft = std::mem::take(&mut self.draft);
            self.replace(draft);
        }
    }

    fn start_search(&mut self) {
        self.search = Some(Search { pattern: Vec::new(), found: None, saved: self.line.clone() });
        self.show_search();
    }

    fn search_input(&mut self, byte: u8) -> Outcome {
        let Some(search) = &mut self.search else { return Outcome::Continue };
        match byte {
            0x12 => {
                let before = search.found.unwrap_or(self.history.len());
                self.find(before);
            }
            0x08 | 0x7f => {
                search.pattern.pop();
                self.find(self.history.len());
            }
            // Ctrl-G: as it was.
            0x07 => {
                let saved = search.saved.clone();
                self.end_search(saved);
            }
            0x20..=0x7e | 0x80..=0xff => {
                let before = search.found.map_or(self.history.len(), |found| found + 1);
                search.pattern.push(byte);
                self.find(before);
            }
            _ => {
                let line = search.found.map_or_else(|| search.saved.clone(), |found| self.history[found].clone());
                self.end_search(line);
                return self.input(byte);
            }
        }
        Outcome::Continue
    }

    /// The newest match before `before`.
    fn find(&mut self, before: usize) {
        if let Some(search) = &mut self.search {
            let pattern = &search.pattern;
            let matches = |line: &Vec<u8>| pattern.is_empty() || line.windows(pattern.len()).any(|w| w == pattern);
            if let Some(found) = self.history[..before.min(self.history.len())].iter().rposition(matches) {
                search.found = Some(found);
            }
        }
        self.show_search();
    }

    fn show_search(&mut self) {
        let Some(search) = &self.search else { return };
        let line = search.found.map_or(&search.saved, |found| &self.history[found]);
        self.output.extend(b"\r\x1b[K(reverse-i-search)`");
        self.output.extend(&search.pattern);
        self.output.extend(b"': ");
        self.output.extend(line);
    }

    fn end_search(&mut self, line: Vec<u8>) {
        self.search = None;
        self.output.extend(b"\r\x1b[K");
        self.line = line;
        self.cursor = self.line.len();
        self.redisplay();
    }

    // -- completion ----------------------------------------------------------------------------------------------

    /// The line up to the cursor.
    #[must_use]
    pub fn before_cursor(&self) -> String {
        String::from_utf8_lossy(&self.line[..self.cursor]).into_owned()
    }

    /// Takes the candidates for the word before the cursor, `typed` bytes of which are there already: one is
    /// inserted, of several the common part, or they are listed.
    pub fn complete(&mut self, typed: usize, candidates: &[String]) {
        let Some(first) = candidates.first() else { return };
        if candidates.len() == 1 {
            for byte in first.bytes().skip(typed) {
                self.insert(byte);
            }
            if !first.ends_with('/') {
                self.insert(b' ');
            }
            return;
        }
        let common = candidates
            .iter()
            .map(|other| first.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count())
            .min()
            .unwrap_or(0);
        for byte in first.bytes().take(common).skip(typed) {
            self.insert(byte);
        }
        let widest = candidates.iter().map(String::len).max().unwrap_or(0);
        let width = (widest + 2).clamp(10, 80);
        self.output.extend(b"\r\n");
        for row in candidates.chunks(80 / width) {
            for candidate in row {
                self.output.extend(format!("{candidate:<width$}").bytes());
            }
            self.output.extend(b"\r\n");
        }
        self.redisplay();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(history: &[&str]) -> Readline {
        let mut readline = Readline::new("(qemu) ");
        for line in history {
            typed(&mut readline, &format!("{line}\r"));
        }
        readline.take_output();
        readline
    }

    /// Types and returns the lines that were entered.
    fn typed(readline: &mut Readline, keys: &str) -> Vec<String> {
        keys.bytes()
            .filter_map(|byte| match readline.input(byte) {
                Outcome::Line(line) => Some(line),
                Outcome::Continue | Outcome::Complete => None,
            })
            .collect()
    }

    /// What a terminal shows after this output: its last line and the cursor.
    fn screen(output: &[u8]) -> (String, usize) {
        let (mut line, mut cursor) = (Vec::new(), 0);
        let text = String::from_utf8(output.to_vec()).unwrap();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\x1b' => {
                    chars.next();
                    let mut number = String::new();
                    let command = loop {
                        match chars.next().unwrap() {
                            digit @ '0'..='9' => number.push(digit),
                            command => break command,
                        }
                    };
                    let count = number.parse().unwrap_or(1);
                    match command {
                        'D' => cursor -= count,
                        'C' => cursor += count,
                        'K' => line.truncate(cursor),
                        other => panic!("unexpected sequence {other}"),
                    }
                }
                '\r' => cursor = 0,
                '\n' => line.clear(),
                c => {
                    if cursor < line.len() {
                        line[cursor] = c;
                    } else {
                        line.push(c);
                    }
                    cursor += 1;
                }
            }
        }
        (line.into_iter().collect(), cursor)
    }

    #[test]
    fn typing_echoes_and_return_gives_the_line() {
        let mut readline = editor(&[]);
        readline.start();
        assert_eq!(typed(&mut readline, "info name\r\nx\n"), ["info name", "x"]);
        assert_eq!(readline.take_output(), b"(qemu) info name\r\nx\r\n");
    }

    #[test]
    fn editing_keys_work_in_the_middle() {
        let mut readline = editor(&[]);
        readline.start();
        typed(&mut readline, "info stXatus\x1b[D\x1b[D\x1b[D\x1b[D\x7f\x01X\x04\x08\x05!");
        assert_eq!(screen(&readline.take_output()), ("(qemu) nfo status!".to_owned(), 18));
        assert_eq!(typed(&mut readline, "\r"), ["nfo status!"]);
    }

    #[test]
    fn words_and_line_ends_are_killed_and_yanked() {
        let mut readline = editor(&[]);
        assert_eq!(typed(&mut readline, "one two  \x17three\r"), ["one three"]);
        assert_eq!(typed(&mut readline, "one two\x1bb\x0b\x01\x19 \r"), ["two one "]);
        assert_eq!(typed(&mut readline, "gone\x15kept\r"), ["kept"]);
    }

    #[test]
    fn up_and_down_walk_the_history_and_come_back() {
        let mut readline = editor(&["first", "second", "first"]);
        assert_eq!(readline.history(), ["second", "first"]);
        assert_eq!(typed(&mut readline, "draft\x1b[A\x1b[A\x1b[A\r"), ["second"]);
        assert_eq!(typed(&mut readline, "draft\x10\x10\x0e\x0e\r"), ["draft"]);
        assert_eq!(typed(&mut readline, "\x1bOA\r"), ["draft"]);
    }

    #[test]
    fn control_r_finds_older_lines() {
        let mut readline = editor(&["info block", "info status", "stop"]);
        assert_eq!(typed(&mut readline, "\x12info\x12\r"), ["info block"]);
        assert_eq!(typed(&mut readline, "x\x12sto\x07y\r"), ["xy"]);
    }

    #[test]
    fn history_is_bounded_and_so_are_lines() {
        let mut readline = editor(&[]);
        for number in 0..100 {
            typed(&mut readline, &format!("{number}\r"));
        }
        assert_eq!(readline.history().len(), MAX_HISTORY);
        let line = typed(&mut readline, &format!("{}\r", "x".repeat(10_000)));
        assert_eq!(line[0].len(), MAX_LINE);
    }

    #[test]
    fn passwords_are_stars_and_forgotten() {
        let mut readline = editor(&[]);
        readline.start_password("Password: ");
        assert_eq!(typed(&mut readline, "secret\x7f\r"), ["secre"]);
        let (shown, _) = screen(&readline.take_output()[.."Password: ******".len()]);
        assert_eq!(shown, "Password: ******");
        assert_eq!(readline.history(), Vec::<String>::new());
    }

    #[test]
    fn one_candidate_is_inserted_and_several_are_listed() {
        let mut readline = editor(&[]);
        readline.start();
        typed(&mut readline, "sys");
        assert_eq!(readline.input(b'\t'), Outcome::Complete);
        let candidates = ["system_powerdown", "system_reset"].map(str::to_owned);
        readline.complete(3, &candidates);
        assert_eq!(
            readline.take_output(),
            b"(qemu) system_\r\nsystem_powerdown  system_reset      \r\n(qemu) system_\x1b[K"
        );
        typed(&mut readline, "r");
        readline.complete(8, &candidates[1..]);
        assert_eq!(typed(&mut readline, "\r"), ["system_reset "]);
    }

    #[test]
    fn any_bytes_are_harmless() {
        let mut readline = editor(&["one", "two"]);
        let mut seed: u32 = 1;
        for _ in 0..200_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if readline.input(seed.to_le_bytes()[3] & 0x9f) == Outcome::Complete {
                readline.complete(0, &["a".to_owned(), "ab".to_owned()]);
            }
            if readline.output.len() > 1 << 16 {
                readline.take_output();
            }
            assert!(readline.cursor <= readline.line.len() && readline.line.len() <= MAX_LINE);
        }
    }
}
