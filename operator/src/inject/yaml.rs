//! Writes YAML that means the same to readers of YAML 1.1, as kubectl is one, and of 1.2: what either could take for something else
//! than text (`yes`, `on`, `1_000`, `12:30:45`, `2001-01-01`) is quoted.

use serde_yaml::Value;

/// Words that are no text to one or the other.
const WORDS: [&str; 10] = [
    "y", "n", "yes", "no", "on", "off", "true", "false", "null", "none",
];

/// A document.
#[must_use]
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// A value at the beginning of a line, which is indented already.
fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Mapping(entries) if !entries.is_empty() => {
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    indent(depth, out);
                }
                scalar(key, depth, out);
                out.push(':');
                inner(value, depth, out);
            }
        }
        Value::Sequence(values) if !values.is_empty() => {
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    indent(depth, out);
                }
                out.push_str("- ");
                block(value, depth + 1, out);
            }
        }
        other => {
            scalar(other, depth, out);
            out.push('\n');
        }
    }
}

/// A value behind its key.
fn inner(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Mapping(entries) if !entries.is_empty() => {
            out.push('\n');
            indent(depth + 1, out);
            block(value, depth + 1, out);
        }
        Value::Sequence(values) if !values.is_empty() => {
            out.push('\n');
            indent(depth, out);
            block(value, depth, out);
        }
        other => {
            out.push(' ');
            scalar(other, depth, out);
            out.push('\n');
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(so) => out.push_str(if *so { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) if is_literal(text) => literal(text, depth + 1, out),
        Value::String(text) => quoted(text, out),
        Value::Sequence(_) => out.push_str("[]"),
        Value::Mapping(_) => out.push_str("{}"),
        Value::Tagged(tagged) => scalar(&tagged.value, depth, out),
    }
}

/// Whether nobody can take it for anything else than text.
fn is_plain(text: &str) -> bool {
    let begins = text.trim_start_matches("--").trim_start_matches('/');
    begins.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_./@=:+,- ".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether it can stand line by line.
fn is_literal(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && !text.chars().any(|c| c != '\n' && needs_escape(c))
}

fn literal(text: &str, depth: usize, out: &mut String) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth, out);
            out.push_str(line);
        }
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if needs_escape(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Control characters, what some readers take for an end of a line, and the mark of the order of bytes.
fn needs_escape(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_as_it_was() {
        let texts = [
            "",
            "a",
            "web:1",
            "--config=/etc/x",
            "/bin/sh",
            "a b",
            "a: b",
            "a #b",
            "#",
            "- a",
            "---",
            "yes",
            "On",
            "0440",
            "1e3",
            "12:30:45",
            "null",
            "~",
            "a\nb",
            "a\nb\n",
            "a\n\n",
            "\na",
            " a\nb",
            "a\n  b\n\nc",
            "tab\there",
            "\u{2028}",
            "\u{85}x\ny",
            "é",
            "\"\\",
            "*a",
            "&a",
            "!x",
            "{a",
            "%",
            "a:",
            "a\r\nb",
            "trailing ",
            "x\n---\ny",
        ];
        let value = Value::Sequence(texts.iter().map(|text| Value::from(*text)).collect());
        let mut map = serde_yaml::Mapping::new();
        map.insert("on".into(), value.clone());
        map.insert("empty".into(), Value::Mapping(serde_yaml::Mapping::new()));
        map.insert(
            "deep".into(),
            vec![Value::from(vec![value, Value::from(1), Value::Null])].into(),
        );
        let all = Value::Mapping(map);
        let written = write(&all);
        assert_eq!(
            serde_yaml::from_str::<Value>(&written).unwrap(),
            all,
            "{written}"
        );
    }

    #[test]
    fn what_an_older_yaml_takes_for_something_else_is_quoted() {
        for text in [
            "yes",
            "Off",
            "y",
            "1_000",
            "12:30:45",
            "2001-01-01",
            "=",
            "0440",
            ".5",
            "-1",
            "<<",
        ] {
            assert_eq!(write(&text.into()), format!("\"{text}\"\n"));
        }
    }
}
