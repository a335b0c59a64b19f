//! What a view shows: named columns with a kind, and rows. The console sends it as rows of a query, the HTTP API as JSON, and
//! the metrics take their figures from the same columns.

use std::borrow::Cow;

use pgdog_wire::write::{self, message};
use serde_json::json;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Words: what a row is about, or a state.
    Text,
    /// A number that goes up and down.
    Int,
    /// A number that only grows as long as the process lives.
    Count,
    /// A number with a fraction.
    Float,
    /// Yes or no.
    Bool,
}

impl Kind {
    /// Number of the type in PostgreSQL's catalog.
    const fn oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int | Self::Count => 20,
            Self::Float => 701,
            Self::Bool => 16,
        }
    }

    /// Size of the type as PostgreSQL tells it: -1 is any.
    const fn size(self) -> i16 {
        match self {
            Self::Text => -1,
            Self::Int | Self::Count | Self::Float => 8,
            Self::Bool => 1,
        }
    }
}

/// One column of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub help: &'static str,
}

impl Column {
    /// A column of words.
    #[must_use]
    pub const fn text(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Text,
            help,
        }
    }

    /// A column of numbers that go up and down.
    #[must_use]
    pub const fn int(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Int,
            help,
        }
    }

    /// A column of numbers that only grow.
    #[must_use]
    pub const fn count(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Count,
            help,
        }
    }

    /// A column of numbers with a fraction.
    #[must_use]
    pub const fn float(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Float,
            help,
        }
    }

    /// A column of yes and no.
    #[must_use]
    pub const fn bool(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Bool,
            help,
        }
    }
}

/// One field of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// Not known, or not counted.
    Null,
}

/// The format in which a client wants a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// As text.
    #[default]
    Text,
    /// As PostgreSQL's send functions give it.
    Binary,
}

impl Format {
    /// The format by its number on the wire.
    #[must_use]
    pub const fn read(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Text),
            1 => Some(Self::Binary),
            _ => None,
        }
    }

    const fn code(self) -> i16 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }
}

impl Value {
    /// As PostgreSQL writes it; `None` is NULL.
    #[must_use]
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Text(text) => text.as_str().into(),
            Self::Int(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
            Self::Bool(true) => "t".into(),
            Self::Bool(false) => "f".into(),
            Self::Null => return None,
        })
    }

    /// The number in it, for metrics.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Bool(yes) => Some(f64::from(*yes)),
            Self::Text(_) | Self::Null => None,
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Int(number) => json!(number),
            Self::Float(number) => json!(number),
            Self::Bool(yes) => json!(yes),
            Self::Null => serde_json::Value::Null,
        }
    }

    /// Appends it as a field of a DataRow.
    fn write(&self, kind: Kind, format: Format, out: &mut Vec<u8>) {
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match (self, format, kind) {
            (Self::Null, ..) => out.extend_from_slice(&(-1i32).to_be_bytes()),
            // A driver reads the bytes by the column's kind.
            (Self::Int(number), Format::Binary, Kind::Float) => {
                put(&(*number as f64).to_be_bytes());
            }
            (Self::Int(number), Format::Binary, Kind::Int | Kind::Count) => {
                put(&number.to_be_bytes());
            }
            (Self::Float(number), Format::Binary, Kind::Float) => put(&number.to_be_bytes()),
            (Self::Bool(yes), Format::Binary, Kind::Bool) => put(&[u8::from(*yes)]),
            (value, ..) => put(value.as_text().unwrap_or_default().as_bytes()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

macro_rules! from_numbers {
    ($($kind:ty),*) => {$(
        impl From<$kind> for Value {
            fn from(number: $kind) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}

from_numbers!(u16, u32, u64, usize, i64);

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row with the values given, each turned into a [`Value`].
#[macro_export]
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        vec![$($crate::table::Value::from($value)),*]
    };
}

/// The rows of a view at one moment. Each row has a value for each column.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// What the columns are.
    pub columns: &'static [Column],
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A list of objects with the columns' names.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let object = |row: &Vec<Value>| {
            let fields = self.columns.iter().zip(row);
            serde_json::Value::Object(
                fields
                    .map(|(column, value)| (column.name.to_owned(), value.to_json()))
                    .collect(),
            )
        };
        self.rows.iter().map(object).collect()
    }

    /// Columns by name, in the order of the table, with a row's values beside them.
    pub fn fields<'a>(
        &'a self,
        row: &'a [Value],
    ) -> impl Iterator<Item = (&'static Column, &'a Value)> {
        self.columns.iter().zip(row)
    }
}

/// Appends a RowDescription.
pub(crate) fn describe(out: &mut Vec<u8>, columns: &[(&Column, Format)]) {
    message(out, b'T', |b| {
        b.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (column, format) in columns {
            write::cstr(b, column.name.as_bytes());
            b.extend_from_slice(&[0; 6]);
            b.extend_from_slice(&column.kind.oid().to_be_bytes());
            b.extend_from_slice(&column.kind.size().to_be_bytes());
            b.extend_from_slice(&(-1i32).to_be_bytes());
            b.extend_from_slice(&format.code().to_be_bytes());
        }
    });
}

/// Appends a DataRow.
pub(crate) fn data_row(out: &mut Vec<u8>, columns: &[(&Column, Format)], row: &[Value]) {
    message(out, b'D', |b| {
        b.extend_from_slice(&(row.len() as u16).to_be_bytes());
        for ((column, format), value) in columns.iter().zip(row) {
            value.write(column.kind, *format, b);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::text("name", "A name."),
        Column::int("size", "A size."),
        Column::bool("paused", "Yes or no."),
    ];

    #[test]
    fn a_table_is_a_list_of_objects() {
        let table = Table {
            columns: COLUMNS,
            rows: vec![row!["a", 5u32, true], row!["b", None::<u32>, false]],
        };
        assert_eq!(
            table.to_json(),
            json!([
                {"name": "a", "size": 5, "paused": true},
                {"name": "b", "size": null, "paused": false},
            ])
        );
    }

    #[test]
    fn values_are_written_as_the_client_asked() {
        let written = |value: Value, kind, format| {
            let mut out = Vec::new();
            value.write(kind, format, &mut out);
            out
        };
        assert_eq!(
            written(Value::Int(7), Kind::Int, Format::Text),
            [0, 0, 0, 1, b'7']
        );
        assert_eq!(
            written(Value::Int(7), Kind::Count, Format::Binary),
            [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]
        );
        assert_eq!(
            written(Value::Bool(true), Kind::Bool, Format::Binary),
            [0, 0, 0, 1, 1]
        );
        assert_eq!(
            written(Value::Null, Kind::Int, Format::Binary),
            [255, 255, 255, 255]
        );
        assert_eq!(
            written(Value::Int(1), Kind::Float, Format::Binary)[4..],
            1f64.to_be_bytes()
        );
    }

    #[test]
    fn numbers_beyond_the_type_stop_at_its_end() {
        assert_eq!(Value::from(u64::MAX), Value::Int(i64::MAX));
    }
}
