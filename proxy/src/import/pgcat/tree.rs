//! A TOML document whose values know their line.

use std::rc::Rc;

use pgdog_config::{Problem, ProblemCode};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::import::{Place, Written};

/// A value; numbers and booleans are kept as text, since their key says what they are.
#[derive(Debug)]
pub(super) enum Node {
    Scalar(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Reads a document; its entries are in the order of the file.
pub(super) fn read(text: &str, file: &str) -> (Vec<Entry>, Vec<Problem>) {
    let reader = Reader {
        text,
        file: file.into(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| {
            let place = reader.place(error.span().map_or(0, |span| span.start));
            place.error("", ProblemCode::Syntax, error.message())
        })
        .collect();
    (reader.table(table.get_ref()), problems)
}

/// The entries that are single values; others have no place there.
pub(super) fn scalars(entries: &[Entry], problems: &mut Vec<Problem>) -> Vec<Written> {
    let mut written = Vec::new();
    for entry in entries {
        match &entry.node {
            Node::Scalar(value) => written.push(entry.written(value)),
            _ => problems.push(entry.place.error(
                &entry.key,
                ProblemCode::WrongType,
                "expected a single value",
            )),
        }
    }
    written
}

impl Entry {
    pub(super) fn written(&self, value: &str) -> Written {
        Written {
            key: self.key.clone(),
            value: value.to_owned(),
            place: Some(self.place.clone()),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    file: Rc<str>,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let lines = before.iter().filter(|byte| **byte == b'\n').count();
        Place {
            file: self.file.clone(),
            line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                place: self.place(key.span().start),
                node: self.node(value),
            })
            .collect()
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        match value.get_ref() {
            DeValue::String(text) => Node::Scalar(text.to_string()),
            DeValue::Integer(number) => Node::Scalar(
                i128::from_str_radix(number.as_str(), number.radix())
                    .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()),
            ),
            DeValue::Float(number) => Node::Scalar(number.as_str().to_owned()),
            DeValue::Boolean(flag) => Node::Scalar(flag.to_string()),
            DeValue::Datetime(time) => Node::Scalar(time.to_string()),
            DeValue::Array(values) => {
                Node::List(values.iter().map(|value| self.node(value)).collect())
            }
            DeValue::Table(table) => Node::Table(self.table(table)),
        }
    }
}
