//! Single keys by name: what they are set to, what they would be, and a configuration in which one is different.

use serde_json::Value as Json;

use crate::check::{Check, Schema, nearest};
use crate::problem::{Problem, ProblemCode, Problems};
use crate::tree::{Node, Place};
use crate::{Config, general};

/// Sections whose keys are shown, with what stands before the names of their keys.
const SHOWN: &[(&str, &str)] = &[("general", ""), ("tcp", "tcp_"), ("memory", "memory_")];
/// How the description of a key that a running proxy can change says so.
const ON_RELOAD: &str = "Applies on reload";

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its name; those of other sections than `[general]` begin with the section's.
    pub name: String,
    /// What it is set to.
    pub value: Json,
    /// What it is set to where nobody says anything.
    pub default: Json,
    /// Whether a running proxy can change it.
    pub changeable: bool,
}

impl Config {
    /// The keys of `[general]`, `[tcp]` and `[memory]`, in the order of their names.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let schema = Schema::new();
        // A `Config` always becomes JSON: it came from there, and its maps have strings as keys.
        let now = serde_json::to_value(self).unwrap_or_default();
        let defaults = serde_json::to_value(Self::default()).unwrap_or_default();
        let mut keys = Vec::new();
        for (section, prefix) in SHOWN {
            for (name, property) in properties(&schema, section) {
                keys.push(Key {
                    value: now[section][name].clone(),
                    default: defaults[section][name].clone(),
                    name: format!("{prefix}{name}"),
                    changeable: changeable(property),
                });
            }
        }
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        keys
    }

    /// The same configuration with another value for a key of `[general]`; `None` is its default.
    ///
    /// # Errors
    ///
    /// When there is no such key, the value does not fit, or a running proxy cannot change it.
    pub fn with(&self, key: &str, value: Option<&str>) -> Result<Self, Problems> {
        let schema = Schema::new();
        let place = Place::default();
        let refuse = |code, message: String| {
            let path = format!("general.{key}");
            Err(Problems(vec![place.error(&path, code, message)]))
        };
        let property = schema.property("general", key);
        if property.is_null() {
            let near = nearest(key, properties(&schema, "general").map(|(name, _)| name));
            let near = near.map(|near| format!(", did you mean \"{near}\"?"));
            let message = format!("unknown key{}", near.unwrap_or_default());
            return refuse(ProblemCode::UnknownKey, message);
        }
        if !changeable(property) {
            let message = "a running proxy cannot change it: it needs a restart";
            return refuse(ProblemCode::Conflict, message.to_owned());
        }
        let mut general = serde_json::to_value(&self.general).unwrap_or_default();
        general[key] = match value {
            Some(text) => checked(&schema, key, text)?,
            None => {
                serde_json::to_value(general::General::default()).unwrap_or_default()[key].clone()
            }
        };
        let mut config = self.clone();
        match serde_json::from_value(general) {
            Ok(general) => config.general = general,
            Err(error) => return refuse(ProblemCode::BadValue, error.to_string()),
        }
        Ok(config)
    }
}

/// A text as the value that its key has.
fn checked(schema: &Schema, key: &str, text: &str) -> Result<Json, Problems> {
    let place = Place::default();
    let value = Node {
        value: schema.read(schema.property("general", key), text),
        place: place.clone(),
    };
    let (mut root, mut section) = (Node::table(place.clone()), Node::table(place));
    section.insert(key, value);
    root.insert("general", section);
    let mut check = Check::new(schema);
    check.root(&mut root);
    let problems: Vec<Problem> = check.problems;
    if problems.is_empty() {
        Ok(root.to_json()["general"][key].clone())
    } else {
        Err(Problems(problems))
    }
}

fn properties<'a>(schema: &'a Schema, section: &str) -> impl Iterator<Item = (&'a str, &'a Json)> {
    let properties = schema.section(section)["properties"].as_object();
    let properties = properties.into_iter().flatten();
    properties.map(|(name, property)| (name.as_str(), property))
}

fn changeable(property: &Json) -> bool {
    property["description"]
        .as_str()
        .is_some_and(|text| text.contains(ON_RELOAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str) -> String {
        let problems = Config::default().with(key, Some(value)).unwrap_err();
        problems.to_string()
    }

    #[test]
    fn a_key_is_changed_and_set_back() {
        let config = Config::default();
        let changed = config.with("default_pool_size", Some("25")).unwrap();
        assert_eq!(changed.general.default_pool_size, 25);
        let changed = changed.with("pooler_mode", Some("session")).unwrap();
        assert_eq!(changed.general.pooler_mode, crate::PoolerMode::Session);
        let back = changed.with("default_pool_size", None).unwrap();
        assert_eq!(back.with("pooler_mode", None).unwrap(), config);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert!(refused("defaul_pool_size", "5").contains("did you mean \"default_pool_size\"?"));
        assert!(refused("default_pool_size", "many").contains("default_pool_size"));
        assert!(refused("pooler_mode", "sesion").contains("session"));
        assert!(refused("port", "5").contains("restart"));
    }

    #[test]
    fn keys_tell_their_value_their_default_and_whether_they_change() {
        let keys = Config::default()
            .with("checkout_timeout", Some("7"))
            .unwrap()
            .keys();
        let find = |name: &str| keys.iter().find(|k| k.name == name).unwrap();
        let timeout = find("checkout_timeout");
        assert_eq!(
            (&timeout.value, &timeout.default),
            (&7.into(), &5_000.into())
        );
        assert!(timeout.changeable && !find("port").changeable);
        assert!(find("tcp_keepalive").changeable && !find("memory_stack_size").changeable);
    }
}
