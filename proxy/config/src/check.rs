//! Walks a tree along the JSON Schema of [`Config`](crate::Config) and tells everything that does not fit.
//!
//! The schema is derived from the structs, so there is one list of keys.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::problem::{Problem, ProblemCode};
use crate::tree::{Entry, Node, Place, Value};

/// Other names of keys: the table they stand in (array indexes left out), the name, the real key.
const ALIASES: &[(&str, &str, &str)] = &[
    ("general", "max_pool_size", "default_pool_size"),
    ("databases[]", "max_pool_size", "pool_size"),
];

/// The schema and a way to follow it.
pub(crate) struct Schema {
    root: Json,
}

impl Schema {
    pub(crate) fn new() -> Self {
        Self::of(crate::json_schema())
    }

    /// The schema of a part of the configuration.
    pub(crate) fn of(root: Json) -> Self {
        Self { root }
    }

    /// The properties of a section, or of the entries of a section that is a list.
    pub(crate) fn section(&self, name: &str) -> &Json {
        let section = self.resolve(&self.root["properties"][name]);
        self.resolve(section.get("items").unwrap_or(section))
    }

    /// The property of a key of a section, by any of its names.
    pub(crate) fn property(&self, section: &str, key: &str) -> &Json {
        let alias = ALIASES
            .iter()
            .find(|(of, alias, _)| of.trim_end_matches("[]") == section && *alias == key);
        &self.section(section)["properties"][alias.map_or(key, |(_, _, key)| key)]
    }

    /// Reads a value of the environment or a URL as the type that its key has. What cannot be read stays text, for the
    /// walk to complain about.
    pub(crate) fn read(&self, property: &Json, text: &str) -> Value {
        let read = match kind(self.resolve(property)) {
            Some("integer") => text.trim().parse().ok().map(Value::Integer),
            Some("number") => text.trim().parse().ok().map(Value::Float),
            Some("boolean") => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(Value::Bool(true)),
                "false" | "0" | "no" | "off" => Some(Value::Bool(false)),
                _ => None,
            },
            _ => None,
        };
        read.unwrap_or_else(|| Value::Text(text.to_owned()))
    }

    /// Follows references and leaves out "or null".
    fn resolve<'a>(&'a self, schema: &'a Json) -> &'a Json {
        if let Some(name) = schema["$ref"]
            .as_str()
            .and_then(|path| path.strip_prefix("#/$defs/"))
        {
            return self.resolve(&self.root["$defs"][name]);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let mut choices = choices.iter().filter(|choice| choice["type"] != "null");
            if let (Some(only), None) = (choices.next(), choices.next()) {
                return self.resolve(only);
            }
        }
        schema
    }
}

/// The walk: problems and places are collected on the way.
pub(crate) struct Check<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) problems: Vec<Problem>,
    /// Where each path was written, for problems that are found later.
    pub(crate) places: BTreeMap<String, Place>,
}

impl<'a> Check<'a> {
    pub(crate) fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            problems: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    pub(crate) fn root(&mut self, node: &mut Node) {
        let schema = self.schema;
        self.walk(node, &schema.root, "");
    }

    fn walk(&mut self, node: &mut Node, schema: &'a Json, path: &str) {
        let schema = self.schema.resolve(schema);
        if !path.is_empty() {
            self.places.insert(path.to_owned(), node.place.clone());
        }
        let names = names(schema);
        if !names.is_empty() {
            return self.choice(node, &names, path);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let kinds: Vec<&str> = choices.iter().filter_map(kind).collect();
            if !kinds.iter().any(|kind| fits(&node.value, kind)) {
                let expected: Vec<&str> = kinds.iter().map(|kind| article(kind)).collect();
                self.wrong_type(node, &expected.join(" or "), path);
            }
            return;
        }
        let Some(kind) = kind(schema) else { return };
        if !fits(&node.value, kind) {
            return self.wrong_type(node, article(kind), path);
        }
        match &mut node.value {
            Value::Integer(number) => {
                if let Some(message) = out_of_range(*number, schema) {
                    self.problems
                        .push(node.place.error(path, ProblemCode::BadValue, message));
                }
            }
            Value::Array(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    self.walk(node, &schema["items"], &format!("{path}[{index}]"));
                }
            }
            Value::Table(_) => self.table(node, schema, path),
            _ => {}
        }
    }

    fn table(&mut self, node: &mut Node, schema: &'a Json, path: &str) {
        let Value::Table(entries) = &mut node.value else {
            return;
        };
        self.aliases(entries, path);
        let no_properties = serde_json::Map::new();
        let properties = schema["properties"].as_object();
        let closed = schema["additionalProperties"] == false;
        for entry in entries.iter_mut() {
            let path = join(path, &entry.key);
            match properties.and_then(|properties| properties.get(&entry.key)) {
                Some(property) => {
                    self.walk(&mut entry.node, property, &path);
                    // The key is a better place than a value that begins some lines below.
                    self.places.insert(path, entry.place.clone());
                }
                None if closed => {
                    let message = self.unknown(&entry.key, properties.unwrap_or(&no_properties));
                    self.problems
                        .push(entry.place.error(&path, ProblemCode::UnknownKey, message));
                }
                None => self.walk(&mut entry.node, &schema["additionalProperties"], &path),
            }
        }
        let required = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str);
        for key in required.filter(|key| !entries.iter().any(|entry| entry.key == **key)) {
            self.problems.push(node.place.error(
                &join(path, key),
                ProblemCode::MissingKey,
                "missing key",
            ));
        }
    }

    fn aliases(&mut self, entries: &mut [Entry], path: &str) {
        let table = without_indexes(path);
        for (_, alias, key) in ALIASES.iter().filter(|(of, _, _)| *of == table) {
            let twice = entries.iter().any(|entry| entry.key == *key);
            let Some(entry) = entries.iter_mut().find(|entry| entry.key == *alias) else {
                continue;
            };
            if twice {
                let message = format!("another name of \"{key}\", which is set as well");
                self.problems.push(entry.place.error(
                    &join(path, alias),
                    ProblemCode::Duplicate,
                    message,
                ));
            }
            entry.key = (*key).to_owned();
        }
    }

    fn unknown(&self, key: &str, properties: &serde_json::Map<String, Json>) -> String {
        if let Some(near) = nearest(key, properties.keys().map(String::as_str)) {
            return format!("unknown key, did you mean \"{near}\"?");
        }
        if self.schema.section("general")["properties"]
            .get(key)
            .is_some()
        {
            return format!("unknown key, did you mean \"{key}\" in [general]?");
        }
        "unknown key".to_owned()
    }

    fn choice(&mut self, node: &Node, names: &[&str], path: &str) {
        let Value::Text(text) = &node.value else {
            return self.wrong_type(node, "a string", path);
        };
        if names.contains(&text.as_str()) {
            return;
        }
        let message = match nearest(text, names.iter().copied()) {
            Some(near) => format!("unknown value \"{text}\", did you mean \"{near}\"?"),
            None => format!(
                "unknown value \"{text}\", expected one of {}",
                names.join(", ")
            ),
        };
        self.problems
            .push(node.place.error(path, ProblemCode::BadValue, message));
    }

    fn wrong_type(&mut self, node: &Node, expected: &str, path: &str) {
        let message = format!("expected {expected}, found {}", node.value.kind());
        self.problems
            .push(node.place.error(path, ProblemCode::WrongType, message));
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// `databases[3]` → `databases[]`.
pub(crate) fn without_indexes(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The type of a schema, "or null" left out.
fn kind(schema: &Json) -> Option<&str> {
    match &schema["type"] {
        Json::String(kind) => Some(kind),
        Json::Array(kinds) => kinds
            .iter()
            .filter_map(Json::as_str)
            .find(|kind| *kind != "null"),
        _ => None,
    }
}

fn fits(value: &Value, kind: &str) -> bool {
    matches!(
        (value, kind),
        (Value::Bool(_), "boolean")
            | (Value::Integer(_), "integer" | "number")
            | (Value::Float(_), "number")
            | (Value::Text(_), "string")
            | (Value::Array(_), "array")
            | (Value::Table(_), "object")
    )
}

fn article(kind: &str) -> &'static str {
    match kind {
        "boolean" => "a boolean",
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "array" => "an array",
        _ => "a table",
    }
}

/// The names that an enum allows; empty for everything else.
fn names(schema: &Json) -> Vec<&str> {
    if let Some(name) = schema["const"].as_str() {
        return vec![name];
    }
    if let Some(names) = schema["enum"].as_array() {
        return names.iter().filter_map(Json::as_str).collect();
    }
    schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(names)
        .collect()
}

fn out_of_range(number: i128, schema: &Json) -> Option<String> {
    let (low, high) = match schema["format"].as_str() {
        Some("uint8") => (0, u8::MAX.into()),
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("int64") => (i64::MIN.into(), i64::MAX.into()),
        // Nobody has to know how many bits there are.
        _ if number < 0 => return Some(format!("expected 0 or more, found {number}")),
        _ => (0, u64::MAX.into()),
    };
    (!(low..=high).contains(&number)).then(|| format!("expected {low} to {high}, found {number}"))
}

/// The name that somebody may have meant.
pub fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    names
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, where two swapped neighbours count as one mistake.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
