//! Tables of another pooler's keys, and how their values are read.

use pgdog_config::{Problem, ProblemCode, nearest};

use super::Written;
use super::emit::{Table, Value};

/// "Never" and "unlimited" where 0 would mean something else.
pub(super) const FOREVER: u64 = i64::MAX as u64;

/// What a key of the other pooler is to us.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meaning {
    /// Our key of the same meaning.
    Same(&'static str, Kind),
    /// Our key that comes closest, and where it differs.
    Near(&'static str, Kind, &'static str),
    /// No counterpart, and why that is or what to do.
    Nothing(&'static str),
    /// More than a line can say: the caller looks at it.
    Special,
}

/// How a value is written over there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number.
    Count,
    /// Seconds, with a fraction or a unit; milliseconds here.
    Seconds,
    /// The same, where 0 turns a limit off and ours has no "off" but a very long time.
    SecondsOrNever,
    /// Milliseconds on both sides.
    Millis,
    /// Yes or no.
    Flag,
    /// Any text.
    Text,
    /// A text that is left out when it is empty.
    Path,
    /// When a server connection goes back to its pool.
    Mode,
}

/// A key and its meaning.
pub(super) type Key = (&'static str, Meaning);

/// Whether the caller has to do the work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    Done,
    Special,
}

/// Looks a key up and adds what it says to `table`. `section` is for the error about an unknown one.
pub(super) fn apply(
    keys: &[Key],
    section: &str,
    written: &Written,
    table: &mut Table,
) -> Result<Applied, Problem> {
    let Some((_, meaning)) = keys.iter().find(|(key, _)| *key == written.key) else {
        let near = nearest(&written.key, keys.iter().map(|(key, _)| *key));
        let message = match near {
            Some(near) => format!("unknown key in {section}, did you mean \"{near}\"?"),
            None => format!("unknown key in {section}: remove it, or correct its name"),
        };
        return Err(written.error(ProblemCode::UnknownKey, message));
    };
    match *meaning {
        Meaning::Special => return Ok(Applied::Special),
        Meaning::Nothing(reason) => {
            table.remark(written.remark(&format!("no counterpart: {reason}")))
        }
        Meaning::Same(key, kind) => put(table, key, kind, written)?,
        Meaning::Near(key, kind, note) => {
            table.remark(written.remark(note));
            put(table, key, kind, written)?;
        }
    }
    Ok(Applied::Done)
}

fn put(table: &mut Table, key: &'static str, kind: Kind, written: &Written) -> Result<(), Problem> {
    if kind == Kind::Path && written.value.is_empty() {
        return Ok(());
    }
    table.set(key, value(kind, written)?);
    Ok(())
}

/// Reads a value.
pub(super) fn value(kind: Kind, written: &Written) -> Result<Value, Problem> {
    let text = written.value.as_str();
    let read = match kind {
        Kind::Count | Kind::Millis => text.parse().ok().map(Value::Number),
        Kind::Seconds => millis(text).map(Value::Number),
        Kind::SecondsOrNever => {
            millis(text).map(|millis| Value::Number(if millis == 0 { FOREVER } else { millis }))
        }
        Kind::Flag => flag(text).map(Value::Flag),
        Kind::Text | Kind::Path => Some(text.into()),
        Kind::Mode => Some(text.to_ascii_lowercase().as_str())
            .filter(|mode| ["session", "transaction", "statement"].contains(mode))
            .map(Value::from),
    };
    read.ok_or_else(|| {
        let expected = match kind {
            Kind::Count => "a number, 0 or larger",
            Kind::Millis => "milliseconds",
            Kind::Seconds | Kind::SecondsOrNever => "seconds, as 15 or 0.5",
            Kind::Flag => "0 or 1",
            Kind::Mode => "session, transaction or statement",
            Kind::Text | Kind::Path => "a text",
        };
        written.error(ProblemCode::BadValue, format!("expected {expected}"))
    })
}

/// Yes or no, in the ways that people write it.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" | "t" => Some(true),
        "0" | "off" | "no" | "false" | "f" => Some(false),
        _ => None,
    }
}

/// Seconds with a fraction or a unit, as milliseconds; what is not 0 does not become 0.
fn millis(text: &str) -> Option<u64> {
    let unit = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "" | "s" | "sec" => 1_000.0,
        "min" | "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    let millis = (number * factor).ceil();
    // Beyond a century nobody means a number.
    (0.0..4e12).contains(&millis).then_some(millis as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_milliseconds_and_never_nothing() {
        let cases = [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            ("0.0001", Some(1)),
            ("0", Some(0)),
            ("250ms", Some(250)),
            ("2 min", Some(120_000)),
            ("-1", None),
            ("nan", None),
            ("soon", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}
