//! Regular expressions in authentication files: PostgreSQL's, as far as both sides agree on what they match.
//!
//! A pattern decides who gets in, so it is translated sign by sign, and what cannot be translated is refused. PostgreSQL
//! compiles these patterns with the collation C, so its classes are those of ASCII.

use std::fmt;

use regex::Regex;

/// A regular expression.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
    /// Whether the text that a group matches is the same under every rule for which of several matches is taken.
    plain: bool,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// PostgreSQL refuses it as well.
    Invalid(String),
    /// Only PostgreSQL understands it.
    Unsupported(String),
}

impl Pattern {
    /// Compiles what stands behind the `/`.
    pub(super) fn new(text: &str) -> Result<Self, Refusal> {
        let mut translation = Translation::default();
        translation.run(text)?;
        let regex = Regex::new(&translation.out)
            .map_err(|error| Refusal::Invalid(last_line(&error.to_string())))?;
        Ok(Self {
            text: text.to_owned(),
            regex,
            plain: translation.plain,
        })
    }

    /// As it was written, without the `/`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches anywhere in a name.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// Matches a name: `None` when it does not, else what its first group matched.
    pub(super) fn first_group<'n>(&self, name: &'n str) -> Option<Option<&'n str>> {
        let captures = self.regex.captures(name)?;
        Some(captures.get(1).map(|group| group.as_str()))
    }

    /// Whether there is a group.
    pub(super) fn has_group(&self) -> bool {
        self.regex.captures_len() > 1
    }

    /// Whether PostgreSQL agrees on what a group matches. It takes the longest match, this library the first that the
    /// pattern comes to: they differ over alternatives and over repetitions that are to be short.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

/// The reason in an error of the library, which draws the pattern above it.
fn last_line(error: &str) -> String {
    let line = error.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// From the syntax of PostgreSQL's advanced regular expressions to that of the library.
struct Translation {
    out: String,
    plain: bool,
    /// What a repetition would be about.
    before: Before,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The beginning of the pattern, a group or an alternative, or an anchor.
    Nothing,
    /// Something that can be repeated.
    Atom,
    /// Something that is repeated already.
    Repetition,
}

impl Default for Translation {
    fn default() -> Self {
        Self {
            // A dot means any character, and ends mean those of the whole name.
            out: "(?s)".to_owned(),
            plain: true,
            before: Before::Nothing,
        }
    }
}

fn unsupported<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::Unsupported(format!("{what} is not supported")))
}

fn invalid<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::Invalid(what.to_owned()))
}

impl Translation {
    fn run(&mut self, text: &str) -> Result<(), Refusal> {
        if text.starts_with("***") {
            return unsupported("\"***\" at the beginning");
        }
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '\\' => self.escape(&mut rest)?,
                '[' => self.bracket(&mut rest)?,
                '(' => self.group(&mut rest)?,
                ')' => self.atom(")"),
                '|' => {
                    self.plain = false;
                    self.out.push('|');
                    self.before = Before::Nothing;
                }
                '.' => self.atom("."),
                '^' | '$' => {
                    self.out.push(c);
                    self.before = Before::Nothing;
                }
                '*' | '+' | '?' => self.repetition(&c.to_string(), &mut rest)?,
                '{' if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                    let Some((bounds, behind)) = rest.split_once('}') else {
                        return invalid("braces {} not balanced");
                    };
                    rest = behind;
                    self.bounds(bounds, &mut rest)?;
                }
                _ => self.literal(c),
            }
        }
        Ok(())
    }

    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.before = Before::Atom;
    }

    fn literal(&mut self, c: char) {
        self.atom(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    fn group(&mut self, rest: &mut &str) -> Result<(), Refusal> {
        if let Some(behind) = rest.strip_prefix("?:") {
            *rest = behind;
            self.out.push_str("(?:");
        } else if rest.starts_with('?') {
            return unsupported("a group that begins with \"(?\", but for \"(?:\",");
        } else {
            self.out.push('(');
        }
        self.before = Before::Nothing;
        Ok(())
    }

    fn bounds(&mut self, bounds: &str, rest: &mut &str) -> Result<(), Refusal> {
        let (low, high) = match bounds.split_once(',') {
            Some((low, high)) => (low, high),
            None => (bounds, bounds),
        };
        // 255 is PostgreSQL's limit.
        let number = |text: &str| text.parse::<u8>().ok();
        match (number(low), number(high)) {
            (Some(low), Some(high)) if low <= high => {}
            (Some(_), None) if high.is_empty() => {}
            _ => return invalid("invalid repetition count(s)"),
        }
        self.repetition(&format!("{{{bounds}}}"), rest)
    }

    fn repetition(&mut self, text: &str, rest: &mut &str) -> Result<(), Refusal> {
        if self.before != Before::Atom {
            return invalid("quantifier operand invalid");
        }
        self.out.push_str(text);
        if let Some(behind) = rest.strip_prefix('?') {
            *rest = behind;
            self.plain = false;
            self.out.push('?');
        }
        self.before = Before::Repetition;
        Ok(())
    }

    fn escape(&mut self, rest: &mut &str) -> Result<(), Refusal> {
        let Some(c) = rest.chars().next() else {
            return invalid("invalid escape \\ sequence");
        };
        *rest = &rest[c.len_utf8()..];
        match class(c) {
            Some((members, false)) => self.atom(&format!("[{members}]")),
            Some((members, true)) => self.atom(&format!("[^{members}]")),
            None if c.is_ascii_alphanumeric() => {
                return unsupported(&format!("\"\\{c}\""));
            }
            None => self.literal(c),
        }
        Ok(())
    }

    /// A bracket expression, behind its `[`.
    fn bracket(&mut self, rest: &mut &str) -> Result<(), Refusal> {
        self.out.push('[');
        if let Some(behind) = rest.strip_prefix('^') {
            *rest = behind;
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(c) = rest.chars().next() else {
                return invalid("brackets [] not balanced");
            };
            *rest = &rest[c.len_utf8()..];
            match c {
                ']' if !first => break,
                '[' if rest.starts_with(':') => self.named_class(rest)?,
                '[' if rest.starts_with(['.', '=']) => {
                    return unsupported("\"[.\" or \"[=\" in brackets");
                }
                '\\' => self.escape_in_bracket(rest)?,
                // A range, when it stands between two ends.
                '-' if !first && !rest.starts_with(']') => self.out.push('-'),
                _ => self.push_member(c),
            }
            first = false;
        }
        self.atom("]");
        Ok(())
    }

    fn named_class(&mut self, rest: &mut &str) -> Result<(), Refusal> {
        let Some((name, behind)) = rest[1..].split_once(":]") else {
            return invalid("brackets [] not balanced");
        };
        *rest = behind;
        let known = [
            "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "xdigit",
        ];
        if !known.contains(&name) {
            return invalid("invalid character class");
        }
        self.out.push_str(&format!("[:{name}:]"));
        Ok(())
    }

    fn escape_in_bracket(&mut self, rest: &mut &str) -> Result<(), Refusal> {
        let Some(c) = rest.chars().next() else {
            return invalid("invalid escape \\ sequence");
        };
        *rest = &rest[c.len_utf8()..];
        match class(c) {
            Some((members, false)) => self.out.push_str(members),
            // PostgreSQL refuses these before version 14.
            Some((_, true)) => return unsupported(&format!("\"\\{c}\" in brackets")),
            None if c.is_ascii_alphanumeric() => {
                return unsupported(&format!("\"\\{c}\" in brackets"));
            }
            None => self.push_member(c),
        }
        Ok(())
    }

    /// A sign inside of brackets that means itself; there the library has signs of its own, as `&&`.
    fn push_member(&mut self, c: char) {
        if c.is_ascii_punctuation() {
            self.out.push('\\');
        }
        self.out.push(c);
    }
}

/// The members of the classes that a letter stands for, and whether all others are meant.
fn class(c: char) -> Option<(&'static str, bool)> {
    let members = match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => r" \t\n\r\x0b\x0c",
        'w' => "0-9A-Za-z_",
        _ => return None,
    };
    Some((members, c.is_ascii_uppercase()))
}
