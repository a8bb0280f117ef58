//! Integer expressions: `1+2*3`, `$pc - 0x10`, `'a'`.

/// Why an expression has no value. The text is QEMU's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(pub String);

/// Values of registers by name.
pub type Registers<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// Parentheses and signs may be nested this deep.
const MAX_DEPTH: u32 = 64;

struct Parser<'t, 'r> {
    text: &'t str,
    registers: Registers<'r>,
    depth: u32,
}

type Result<T> = std::result::Result<T, ExpressionError>;

fn error<T>(text: &str) -> Result<T> {
    Err(ExpressionError(text.to_owned()))
}

/// The value at the start of `text`, and what follows it.
///
/// # Errors
/// The text is no expression.
pub fn parse<'t>(text: &'t str, registers: Registers<'_>) -> Result<(u64, &'t str)> {
    let mut parser = Parser { text: text.trim_start(), registers, depth: 0 };
    let value = parser.logic()?;
    Ok((value, parser.text))
}

impl Parser<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.text.chars().next()
    }

    fn advance(&mut self, bytes: usize) {
        self.text = self.text.get(bytes..).unwrap_or("").trim_start();
    }

    /// `&`, `|` and `^` bind least.
    fn logic(&mut self) -> Result<u64> {
        let mut value = self.sum()?;
        while let Some(operator @ ('&' | '|' | '^')) = self.peek() {
            self.advance(1);
            let right = self.sum()?;
            value = match operator {
                '&' => value & right,
                '|' => value | right,
                _ => value ^ right,
            };
        }
        Ok(value)
    }

    fn sum(&mut self) -> Result<u64> {
        let mut value = self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.advance(1);
            let right = self.product()?;
            value = if operator == '+' { value.wrapping_add(right) } else { value.wrapping_sub(right) };
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<u64> {
        let mut value = self.unary()?;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            self.advance(1);
            let right = self.unary()?;
            if operator == '*' {
                value = value.wrapping_mul(right);
                continue;
            }
            if right == 0 {
                return error("division by zero");
            }
            // Division is signed.
            let (left, right) = (value.cast_signed(), right.cast_signed());
            let result = if operator == '/' { left.wrapping_div(right) } else { left.wrapping_rem(right) };
            value = result.cast_unsigned();
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<u64> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return error("expression too complex");
        }
        let value = match self.peek() {
            None => return error("unexpected end of expression"),
            Some('+') => {
                self.advance(1);
                self.unary()?
            }
            Some('-') => {
                self.advance(1);
                self.unary()?.wrapping_neg()
            }
            Some('~') => {
                self.advance(1);
                !self.unary()?
            }
            Some('(') => {
                self.advance(1);
                let value = self.logic()?;
                if self.peek() != Some(')') {
                    return error("')' expected");
                }
                self.advance(1);
                value
            }
            Some('\'') => self.character()?,
            Some('$') => self.register()?,
            Some('0'..='9') => self.number()?,
            Some(c) => return error(&format!("invalid char '{c}' in expression")),
        };
        self.depth -= 1;
        Ok(value)
    }

    fn character(&mut self) -> Result<u64> {
        let mut chars = self.text.chars().skip(1);
        let (Some(c), Some('\'')) = (chars.next(), chars.next()) else {
            return error(match self.text.len() {
                1 => "character constant expected",
                _ => "missing terminating ' character",
            });
        };
        self.advance(2 + c.len_utf8());
        Ok(u64::from(c))
    }

    fn register(&mut self) -> Result<u64> {
        let rest = self.text.get(1..).unwrap_or("");
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':');
        let len = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let Some(value) = (self.registers)(&rest[..len]) else { return error("unknown register") };
        self.advance(1 + len);
        Ok(value)
    }

    /// A number as C's `strtoull` with base 0 reads it.
    fn number(&mut self) -> Result<u64> {
        let text = self.text;
        let hex = text.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"))
            && text.as_bytes().get(2).is_some_and(u8::is_ascii_hexdigit);
        let (skip, radix) = if hex {
            (2, 16)
        } else if text.starts_with('0') {
            (0, 8)
        } else {
            (0, 10)
        };
        let digits = &text[skip..];
        let len = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let Ok(value) = u64::from_str_radix(&digits[..len], radix) else {
            return error("number too large");
        };
        self.advance(skip + len);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> std::result::Result<u64, String> {
        let registers = |name: &str| (name == "cs.base").then_some(0xffff_0000);
        match parse(text, &registers) {
            Ok((value, "")) => Ok(value),
            Ok((_, rest)) => Err(format!("rest {rest}")),
            Err(e) => Err(e.0),
        }
    }

    #[test]
    fn operators_bind_as_in_qemu() {
        assert_eq!(value("1+2*3"), Ok(7));
        assert_eq!(value("(1 + 2) * 3"), Ok(9));
        assert_eq!(value("7%4"), Ok(3));
        assert_eq!(value("-8/2"), Ok((-4i64).cast_unsigned()));
        assert_eq!(value("6&3|8^1"), Ok(11));
        assert_eq!(value("~0"), Ok(u64::MAX));
        assert_eq!(value("'a'"), Ok(97));
        assert_eq!(value("010+0x10"), Ok(24));
        assert_eq!(value("$cs.base+0xfff0"), Ok(0xffff_fff0));
        assert_eq!(value("5 6"), Err("rest 6".to_owned()));
        assert_eq!(value("1k"), Err("rest k".to_owned()));
    }

    #[test]
    fn messages_are_qemus() {
        for (text, message) in [
            ("", "unexpected end of expression"),
            ("1+", "unexpected end of expression"),
            ("(1", "')' expected"),
            ("1/0", "division by zero"),
            ("$foo", "unknown register"),
            ("$", "unknown register"),
            ("'\\n'", "missing terminating ' character"),
            ("'a", "missing terminating ' character"),
            ("99999999999999999999", "number too large"),
            ("t", "invalid char 't' in expression"),
        ] {
            assert_eq!(value(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(value(&"(".repeat(100_000)), Err("expression too complex".to_owned()));
        assert_eq!(value(&"-".repeat(100_000)), Err("expression too complex".to_owned()));
        assert_eq!(value(&vec!["-1"; 100].join("+")), Ok(100u64.wrapping_neg()));
    }
}
