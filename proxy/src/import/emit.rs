//! TOML as people write it: tables in order, a comment above the line that it is about.

use std::fmt::Write as _;

/// Width at which comments are wrapped.
const WIDTH: usize = 118;

/// The right side of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

#[derive(Debug, Clone)]
enum Line {
    Key(&'static str, Value),
    Remark(String),
    /// A remark that is about nothing to be done.
    Heading(&'static str),
}

/// One table with its keys and the remarks about them.
#[derive(Debug, Clone)]
pub(super) struct Table {
    header: &'static str,
    lines: Vec<Line>,
    /// Written as a comment: somebody has to decide something first.
    off: bool,
}

impl Table {
    /// A table; the header is written with its brackets.
    pub(super) fn new(header: &'static str) -> Self {
        Self {
            header,
            lines: Vec::new(),
            off: false,
        }
    }

    /// Whether this is the table of that name.
    pub(super) fn is(&self, header: &str) -> bool {
        self.header == header
    }

    /// Sets a key, for the first time or instead of what it was.
    pub(super) fn set(&mut self, key: &'static str, value: Value) {
        self.lines
            .retain(|line| !matches!(line, Line::Key(known, _) if *known == key));
        self.lines.push(Line::Key(key, value));
    }

    /// Says something about the next key, or about something that has none.
    pub(super) fn remark(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Remark(text.into()));
    }

    /// Says what the lines below have in common.
    pub(super) fn heading(&mut self, text: &'static str) {
        self.lines.push(Line::Heading(text));
    }

    /// Turns the whole table into a comment, with the reason.
    pub(super) fn disable(&mut self, reason: impl Into<String>) {
        self.lines.insert(0, Line::Remark(reason.into()));
        self.off = true;
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.lines.iter().find_map(|line| match line {
            Line::Key(known, Value::Number(number)) if *known == key => Some(*number),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| match line {
            Line::Key(known, Value::Text(text)) if *known == key => Some(text.as_str()),
            _ => None,
        })
    }

    /// The same keys without the remarks about them.
    pub(super) fn clone_keys(&self) -> Self {
        let mut keys = self.clone();
        keys.lines.retain(|line| matches!(line, Line::Key(..)));
        keys
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.lines
            .iter()
            .any(|line| matches!(line, Line::Key(known, _) if *known == key))
    }

    fn remarks(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| match line {
            Line::Remark(text) => Some(text.as_str()),
            Line::Key(..) | Line::Heading(_) => None,
        })
    }

    fn has_keys(&self) -> bool {
        self.lines.iter().any(|line| matches!(line, Line::Key(..)))
    }

    fn write(&self, out: &mut String) {
        let off = if self.off { "# " } else { "" };
        if self.has_keys() {
            out.push_str(&format!("\n{off}{}\n", self.header));
        } else {
            out.push('\n');
        }
        for line in &self.lines {
            match line {
                Line::Remark(text) => comment(out, text),
                Line::Heading(text) => comment(out, text),
                Line::Key(key, value) => {
                    // A string takes everything.
                    let _ = writeln!(out, "{off}{key} = {}", literal(value));
                }
            }
        }
    }
}

/// A document: what it is, then its tables; those without a line are left out.
pub(super) fn document(intro: &[&str], tables: &[Table]) -> String {
    let mut out = String::new();
    intro.iter().for_each(|text| comment(&mut out, text));
    tables
        .iter()
        .filter(|table| !table.lines.is_empty())
        .for_each(|table| table.write(&mut out));
    out
}

/// All remarks, in order.
pub(super) fn remarks<'t>(tables: impl Iterator<Item = &'t Table>) -> Vec<String> {
    tables
        .flat_map(|table| table.remarks().map(one_line))
        .collect()
}

/// What others wrote must not end a comment: TOML allows no control characters in one.
fn one_line(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .map(|word| word.replace(char::is_control, "?"))
        .collect();
    words.join(" ")
}

fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in one_line(text).split(' ') {
        if width == 0 || width + 1 + word.chars().count() > WIDTH {
            if width > 0 {
                out.push('\n');
            }
            out.push('#');
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.chars().count();
    }
    out.push('\n');
}

fn literal(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Text(text) => {
            let mut out = String::from('"');
            for c in text.chars() {
                match c {
                    '"' | '\\' => out.extend(['\\', c]),
                    c if c.is_control() => {
                        let _ = write!(out, "\\u{:04X}", u32::from(c));
                    }
                    c => out.push(c),
                }
            }
            out.push('"');
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_as_a_value_and_none_escapes_from_a_comment() {
        let nasty = "a\"b\\c\n[admin]\t\u{7f}\u{0}é # x\r";
        let mut table = Table::new("[[users]]");
        table.remark(nasty);
        table.set("name", nasty.into());
        table.set("all_databases", Value::Flag(true));
        table.set("password", "p".into());
        let users = document(&["intro\n[general]"], std::slice::from_ref(&table));
        let config = pgdog_config::Config::from_toml("", &users).unwrap();
        assert_eq!(config.users[0].name, nasty);
        assert_eq!(config.admin, pgdog_config::Config::default().admin);
        assert_eq!(remarks([&table].into_iter()), ["a\"b\\c [admin] ??é # x"]);
    }

    #[test]
    fn long_comments_are_wrapped_and_a_disabled_table_is_one_comment() {
        let mut table = Table::new("[[databases]]");
        table.set("host", "a".into());
        table.set("host", "b".into());
        table.disable("word ".repeat(60));
        let text = document(&["x"], &[table]);
        assert!(
            text.lines()
                .all(|line| line.is_empty() || line.starts_with("# "))
        );
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.ends_with("# host = \"b\"\n") && !text.contains("\"a\""));
    }
}
