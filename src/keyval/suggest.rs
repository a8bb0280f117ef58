//! The nearest right word for a misspelt one.

/// Edit distance with swaps of neighbours as one step (optimal string alignment); words longer than 64 are not compared.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().map(|c| c.to_ascii_lowercase()).collect();
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(ca != cb)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The word of `right` that `wrong` was most likely meant to be; `None` when nothing is near.
pub fn nearest<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match wrong.chars().count() {
        0 | 1 => return None,
        2..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    right
        .into_iter()
        .map(|word| (distance(wrong, word), word))
        .filter(|&(d, word)| d <= limit && word != wrong)
        .min_by_key(|&(d, word)| (d, word.len().abs_diff(wrong.len())))
        .map(|(_, word)| word)
}

/// `text`, with the nearest word as a line of its own below.
pub fn with_hint<'a>(text: String, wrong: &str, right: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(wrong, right) {
        Some(word) => format!("{text}\nDid you mean '{word}'?"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_pair_and_a_missing_letter_are_found() {
        assert_eq!(nearest("fomrat", ["file", "format", "if"]), Some("format"));
        assert_eq!(nearest("chace", ["file", "cache"]), Some("cache"));
        assert_eq!(nearest("mahcine", ["machine", "monitor"]), Some("machine"));
    }

    #[test]
    fn what_is_far_gets_no_suggestion() {
        assert_eq!(nearest("xyzzy", ["file", "format"]), None);
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn the_hint_is_a_second_line() {
        assert_eq!(
            with_hint("Invalid parameter 'fiel'".into(), "fiel", ["file"]),
            "Invalid parameter 'fiel'\nDid you mean 'file'?"
        );
    }
}
