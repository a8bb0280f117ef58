//! `-trace` patterns: names with `*` for anything.

/// Whether `pattern` matches the whole of `name`.
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut middle: Vec<&str> = parts.collect();
    let Some(last) = middle.pop() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Patterns in order; a leading `-` takes away what earlier ones gave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Patterns(Vec<String>);

impl Patterns {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add(&mut self, pattern: &str) {
        self.0.push(pattern.to_owned());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.iter().rev().find_map(|pattern| match pattern.strip_prefix('-') {
            Some(off) => glob(off, name).then_some(false),
            None => glob(pattern, name).then_some(true),
        }) == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("ide_*", "ide_exec_cmd"));
        assert!(glob("*", ""));
        assert!(glob("a*b*c", "a--b--c"));
        assert!(glob("abc", "abc"));
        assert!(!glob("abc", "abcd"));
        assert!(!glob("a*b", "a"));
        assert!(!glob("ab*b", "ab"));
        assert!(!glob("", "x"));
    }

    #[test]
    fn a_later_pattern_wins() {
        let mut patterns = Patterns::default();
        patterns.add("ide_*");
        patterns.add("-ide_data_*");
        assert!(patterns.matches("ide_exec_cmd"));
        assert!(!patterns.matches("ide_data_read"));
        patterns.add("ide_data_read");
        assert!(patterns.matches("ide_data_read"));
        assert!(!patterns.matches("vga_std_read_io"));
    }
}
