//! A configuration as a tree whose values know where they were written, whatever they were written in.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problem, ProblemCode, Severity};

/// Where something was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) file: Option<Arc<str>>,
    pub(crate) line: Option<u32>,
}

impl Place {
    pub(crate) fn of(file: &str) -> Self {
        Self {
            file: Some(file.into()),
            line: None,
        }
    }

    pub(crate) fn line(&self, line: u32) -> Self {
        Self {
            file: self.file.clone(),
            line: Some(line),
        }
    }

    pub(crate) fn error(
        &self,
        path: &str,
        code: ProblemCode,
        message: impl Into<String>,
    ) -> Problem {
        Problem {
            file: self.file.as_deref().map(str::to_owned),
            line: self.line,
            path: path.to_owned(),
            code,
            severity: Severity::Error,
            message: message.into(),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) node: Node,
}

/// What TOML, YAML and the environment have in common.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that no key takes, by its name.
    Foreign(&'static str),
}

impl Value {
    /// The name of the type, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Foreign(kind) => kind,
        }
    }
}

impl Node {
    pub(crate) fn table(place: Place) -> Self {
        Self {
            value: Value::Table(Vec::new()),
            place,
        }
    }

    /// The value of a key, when this is a table that has it.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Table(entries) => entries
                .iter_mut()
                .find(|entry| entry.key == key)
                .map(|entry| &mut entry.node),
            _ => None,
        }
    }

    /// Adds a key to a table; anything else stays as it is.
    pub(crate) fn insert(&mut self, key: &str, node: Node) {
        if let Value::Table(entries) = &mut self.value {
            entries.push(Entry {
                key: key.to_owned(),
                place: node.place.clone(),
                node,
            });
        }
    }

    /// Adds `other` to this: tables key by key, arrays one behind the other; what `other` has besides wins.
    pub(crate) fn merge(&mut self, other: Node) {
        match (&mut self.value, other.value) {
            (Value::Table(_), Value::Table(entries)) => {
                for entry in entries {
                    match self.get_mut(&entry.key) {
                        Some(own) => own.merge(entry.node),
                        None => {
                            if let Value::Table(own) = &mut self.value {
                                own.push(entry);
                            }
                        }
                    }
                }
            }
            (Value::Array(own), Value::Array(nodes)) => own.extend(nodes),
            (own, value) => {
                *own = value;
                self.place = other.place;
            }
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Bool(value) => (*value).into(),
            Value::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => serde_json::Value::Null,
            },
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::Array(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Table(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect(),
            Value::Foreign(_) => serde_json::Value::Null,
        }
    }
}

/// Reads TOML; goes on behind syntax errors to find all of them.
pub(crate) fn from_toml(text: &str, file: &str) -> (Node, Vec<Problem>) {
    let place = Place::of(file);
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors
        .iter()
        .map(|error| {
            let place = error
                .span()
                .map_or(place.clone(), |span| place.line(lines.at(span.start)));
            place.error("", ProblemCode::Syntax, error.message())
        })
        .collect();
    (
        toml_table(table.get_ref(), &place, &lines, place.clone()),
        problems,
    )
}

/// Reads YAML. It tells no places, so the line of a key is the next one that begins with it.
pub(crate) fn from_yaml(text: &str, file: &str) -> (Node, Vec<Problem>) {
    let place = Place::of(file);
    match serde_yaml::from_str::<serde_yaml::Value>(text) {
        Ok(serde_yaml::Value::Null) => (Node::table(place), Vec::new()),
        Ok(value) => {
            let mut finder = YamlLines {
                lines: text.lines().collect(),
                next: 0,
                place: place.clone(),
            };
            (finder.node(&value, place), Vec::new())
        }
        Err(error) => {
            let at = error
                .location()
                .and_then(|at| u32::try_from(at.line()).ok());
            let place = Place { line: at, ..place };
            let problem = place.error("", ProblemCode::Syntax, error.to_string());
            (Node::table(place), vec![problem])
        }
    }
}

/// Takes JSON, which has no lines. A key whose value is null was not set, as in YAML.
pub(crate) fn from_json(value: &serde_json::Value, place: &Place) -> Node {
    use serde_json::Value as Json;
    let value = match value {
        Json::Null => Value::Foreign("nothing"),
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::Integer(number.into()),
            (_, Some(number), _) => Value::Integer(number.into()),
            (_, _, number) => Value::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(values) => {
            Value::Array(values.iter().map(|value| from_json(value, place)).collect())
        }
        Json::Object(entries) => Value::Table(
            entries
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| Entry {
                    key: key.clone(),
                    place: place.clone(),
                    node: from_json(value, place),
                })
                .collect(),
        ),
    };
    Node {
        value,
        place: place.clone(),
    }
}

/// Finds the line of a byte.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(
            text.bytes()
                .enumerate()
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(index, _)| index)
                .collect(),
        )
    }

    fn at(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|end| *end < offset) + 1).unwrap_or(u32::MAX)
    }
}

fn toml_table(table: &DeTable<'_>, file: &Place, lines: &Lines, place: Place) -> Node {
    let entries = table
        .iter()
        .map(|(key, value)| {
            let place = file.line(lines.at(key.span().start));
            Entry {
                key: key.get_ref().to_string(),
                place: place.clone(),
                node: toml_node(value, file, lines, place),
            }
        })
        .collect();
    Node {
        value: Value::Table(entries),
        place,
    }
}

fn toml_node(value: &Spanned<DeValue<'_>>, file: &Place, lines: &Lines, place: Place) -> Node {
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Foreign("an integer that is too large"),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Foreign("something that is no number"),
        },
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Foreign("a date"),
        DeValue::Array(values) => Value::Array(
            values
                .iter()
                .map(|value| toml_node(value, file, lines, file.line(lines.at(value.span().start))))
                .collect(),
        ),
        DeValue::Table(table) => return toml_table(table, file, lines, place),
    };
    Node { value, place }
}

struct YamlLines<'a> {
    lines: Vec<&'a str>,
    next: usize,
    place: Place,
}

impl YamlLines<'_> {
    fn node(&mut self, value: &serde_yaml::Value, place: Place) -> Node {
        let value = match value {
            serde_yaml::Value::Null => Value::Foreign("nothing"),
            serde_yaml::Value::Bool(value) => Value::Bool(*value),
            serde_yaml::Value::Number(number) => {
                match (number.as_i64(), number.as_u64(), number.as_f64()) {
                    (Some(number), _, _) => Value::Integer(number.into()),
                    (_, Some(number), _) => Value::Integer(number.into()),
                    (_, _, number) => Value::Float(number.unwrap_or(f64::NAN)),
                }
            }
            serde_yaml::Value::String(text) => Value::Text(text.clone()),
            serde_yaml::Value::Sequence(values) => Value::Array(
                values
                    .iter()
                    .map(|value| {
                        // An entry stands where its first key does.
                        let mut node = self.node(value, place.clone());
                        if let Value::Table(entries) = &node.value
                            && let Some(first) = entries.first()
                        {
                            node.place = first.place.clone();
                        }
                        node
                    })
                    .collect(),
            ),
            serde_yaml::Value::Mapping(mapping) => Value::Table(
                mapping
                    .iter()
                    .filter_map(|(key, value)| {
                        let key = yaml_key(key);
                        let place = self.find(&key);
                        // A key without a value is a key that was not set.
                        (!value.is_null()).then(|| Entry {
                            node: self.node(value, place.clone()),
                            key,
                            place,
                        })
                    })
                    .collect(),
            ),
            serde_yaml::Value::Tagged(_) => Value::Foreign("a tagged value"),
        };
        Node { value, place }
    }

    fn find(&mut self, key: &str) -> Place {
        let begins = |line: &&str| {
            let line = line
                .trim_start_matches([' ', '-', '{', '[', ','])
                .trim_start_matches(['"', '\'']);
            line.strip_prefix(key).is_some_and(|rest| {
                rest.trim_start_matches(['"', '\''])
                    .trim_start()
                    .starts_with(':')
            })
        };
        match self.lines[self.next..].iter().position(begins) {
            Some(distance) => {
                self.next += distance;
                let place = self
                    .place
                    .line(u32::try_from(self.next + 1).unwrap_or(u32::MAX));
                // The same key may follow in the next entry of a list, but not again in this line.
                self.next += 1;
                place
            }
            // Several keys in one line: the last line that was found is the best guess.
            None => match u32::try_from(self.next) {
                Ok(line) if line > 0 => self.place.line(line),
                _ => self.place.clone(),
            },
        }
    }
}

fn yaml_key(key: &serde_yaml::Value) -> String {
    match key {
        serde_yaml::Value::String(key) => key.clone(),
        serde_yaml::Value::Bool(key) => key.to_string(),
        serde_yaml::Value::Number(key) => key.to_string(),
        _ => "?".to_owned(),
    }
}
