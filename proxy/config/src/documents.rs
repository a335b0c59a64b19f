//! The two halves of a configuration as JSON documents, and how they become one again.
//!
//! - The **topology** is `{"databases": […]}` with one entry for each host: its `name` (of the database), `host`, `port`,
//!   `database_name`, `role`, `shard`, `lb_weight`, `zone` and `resharding_only`.
//!   It may have `peers` too, the proxies of the fleet: then those of the settings do not count.
//! - The **settings** are everything else. Their `databases` have one entry for each database that has settings of its own
//!   (`name`, `pool_size`, …); these count for all its hosts.
//!
//! Keys that need a restart belong to the process: settings may leave them out, and must not change them.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use crate::api::Half;
use crate::check::{Check, Schema};
use crate::net::Budget;
use crate::problem::{Problem, ProblemCode, Problems};
use crate::tree::{self, Place};
use crate::{Config, json_schema};

/// The keys of `[[databases]]` that make the topology, besides `name`.
pub const HOST_KEYS: &[&str] = &[
    "host",
    "port",
    "database_name",
    "role",
    "shard",
    "lb_weight",
    "zone",
    "resharding_only",
];

/// How the documentation of a key says that it cannot change while the process runs.
const NEEDS_RESTART: &str = "Needs a restart";

/// SHA-256 of a document: of its JSON without spaces, the keys of objects sorted, in hexadecimal digits.
#[must_use]
pub fn sha256(document: &Json) -> String {
    let mut text = String::new();
    canonical(document, &mut text);
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(value: &Json, text: &mut String) {
    match value {
        Json::Object(entries) => {
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Json::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, text);
            }
            text.push('}');
        }
        Json::Array(values) => {
            text.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(value, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// The JSON Schema of a half.
#[must_use]
pub fn schema(half: Half) -> Json {
    let mut root = json_schema();
    let database = root["$defs"]["Database"].take();
    let keys = |of_host: bool| -> Map<String, Json> {
        let all = database["properties"].as_object().into_iter().flatten();
        all.filter(|(key, _)| *key == "name" || HOST_KEYS.contains(&key.as_str()) == of_host)
            .map(|(key, property)| (key.clone(), property.clone()))
            .collect()
    };
    match half {
        Half::Settings => {
            root["$defs"]["Database"] = json!({
                "type": "object",
                "description": "Settings of one database.",
                "properties": keys(false),
                "required": ["name"],
                "additionalProperties": false,
            });
            if let Some(properties) = root["properties"].as_object_mut() {
                properties.remove("snapshot");
                properties.remove("budget");
            }
            if let Some(definitions) = root["$defs"].as_object_mut() {
                definitions.remove("Snapshot");
                definitions.remove("Budget");
            }
            root["title"] = "Settings".into();
            root["description"] = "Everything but hosts and the budget.".into();
            root
        }
        Half::Topology => json!({
            "$schema": root["$schema"].take(),
            "title": "Topology",
            "description": "Nothing but hosts.",
            "type": "object",
            "properties": {
                "databases": { "type": "array", "items": { "$ref": "#/$defs/Host" } },
                "peers": {
                    "type": "array",
                    "description": "The proxies of the fleet, this one among them; those of the settings do not count then.",
                    "items": { "$ref": "#/$defs/Peer" },
                },
            },
            "required": ["databases"],
            "additionalProperties": false,
            "$defs": {
                "Host": {
                    "type": "object",
                    "description": "One host of one database.",
                    "properties": keys(true),
                    "required": ["name", "host"],
                    "additionalProperties": false,
                },
                "Peer": root["$defs"]["Peer"].take(),
                "Role": root["$defs"]["Role"].take(),
            },
        }),
    }
}

/// The JSON Schema of a budget.
#[must_use]
pub fn budget_schema() -> Json {
    let mut root = json_schema();
    let mut budget = root["$defs"]["Budget"].take();
    budget["$schema"] = root["$schema"].take();
    budget["title"] = "Budget".into();
    budget
}

/// Reads a budget.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read_budget(document: &Json) -> Result<Budget, Problems> {
    let mut problems = keys_and_types(document, &budget_schema(), "budget");
    let place = Place::of("budget");
    if problems.is_empty() {
        match Budget::deserialize(document) {
            Ok(budget) => {
                problems = wrong_hosts(&budget)
                    .map(|(key, message)| {
                        place.error(&format!("hosts.{key}"), ProblemCode::BadValue, message)
                    })
                    .collect();
                if problems.is_empty() {
                    return Ok(budget);
                }
            }
            Err(error) => problems.push(place.error("", ProblemCode::BadValue, error.to_string())),
        }
    }
    Err(Problems(problems))
}

/// The keys of `hosts` that name no host, and why not.
pub(crate) fn wrong_hosts(budget: &Budget) -> impl Iterator<Item = (&str, &'static str)> {
    let names_one = |key: &str| {
        // A socket has its port at the end of its name.
        let before = if key.starts_with('/') { '.' } else { ':' };
        key.rsplit_once(before).is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    budget
        .hosts
        .keys()
        .filter(move |key| !names_one(key))
        .map(|key| {
            (
                key.as_str(),
                "expected an address and a port as \"host:5432\"",
            )
        })
}

fn keys_and_types(document: &Json, root: &Json, of: &str) -> Vec<Problem> {
    let schema = Schema::of(root.clone());
    let mut check = Check::new(&schema);
    check.root(&mut tree::from_json(document, &Place::of(of)));
    let mut problems = check.problems;
    nulls(document, root, root, "", &mut problems);
    problems
}

/// Checks a half by itself: its keys and the types of their values.
///
/// # Errors
///
/// Everything that is wrong.
pub fn check(half: Half, document: &Json) -> Result<(), Problems> {
    let mut problems = keys_and_types(document, &schema(half), half.as_str());
    if half == Half::Settings {
        for problem in &mut problems {
            explain_host_key(problem);
        }
        twice(document, &mut problems);
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// Files have no null, so what walks along the schema takes it for a key that is not set. JSON has it, and it is a value like
/// any other: right only where the schema allows it.
fn nulls(value: &Json, schema: &Json, root: &Json, path: &str, problems: &mut Vec<Problem>) {
    let one = one_of(schema, root);
    match value {
        Json::Null if !allows_null(schema, one) => problems.push(Place::of("push").error(
            path,
            ProblemCode::WrongType,
            "found null, which this key does not take; leave it out",
        )),
        Json::Object(entries) => {
            for (key, value) in entries {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let of_any = || one.get("additionalProperties").filter(|of| of.is_object());
                if let Some(schema) = one["properties"].get(key).or_else(of_any) {
                    nulls(value, schema, root, &path, problems);
                }
            }
        }
        Json::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                nulls(
                    value,
                    &one["items"],
                    root,
                    &format!("{path}[{index}]"),
                    problems,
                );
            }
        }
        _ => {}
    }
}

/// The schema that is meant where it is "that or null", references followed.
fn one_of<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    let choices = schema["anyOf"].as_array();
    let other = choices.and_then(|all| all.iter().find(|choice| choice["type"] != "null"));
    let schema = other.unwrap_or(schema);
    match schema["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix("#/$defs/"))
    {
        Some(name) => &root["$defs"][name],
        None => schema,
    }
}

fn allows_null(schema: &Json, one: &Json) -> bool {
    let says = |schema: &Json| match &schema["type"] {
        Json::Array(kinds) => kinds.iter().any(|kind| kind == "null"),
        kind => kind == "null",
    };
    let choices = schema["anyOf"].as_array();
    let known = ["type", "enum", "oneOf", "anyOf", "const"];
    says(schema)
        || choices.is_some_and(|all| all.iter().any(says))
        // What says nothing about types takes everything.
        || known.iter().all(|key| one.get(key).is_none())
}

fn explain_host_key(problem: &mut Problem) {
    let key = problem.path.rsplit('.').next().unwrap_or_default();
    if problem.code == ProblemCode::UnknownKey
        && problem.path.starts_with("databases[")
        && HOST_KEYS.contains(&key)
    {
        "belongs to the topology, not to the settings".clone_into(&mut problem.message);
    }
}

fn twice(document: &Json, problems: &mut Vec<Problem>) {
    let names: Vec<_> = entries(document).map(|entry| &entry["name"]).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            let path = format!("databases[{index}].name");
            let message = format!("settings of database {name} a second time");
            let place = Place::of(Half::Settings.as_str());
            problems.push(place.error(&path, ProblemCode::Duplicate, message));
        }
    }
}

fn entries(document: &Json) -> impl Iterator<Item = &Json> {
    document["databases"].as_array().into_iter().flatten()
}

/// The halves of a configuration. The settings keep the hosts of their `databases`, so that [`join`] gives each host its own
/// settings back.
#[must_use]
pub fn split(config: &Config) -> (Json, Json) {
    // A `Config` always becomes JSON: it came from there, and its maps have strings as keys.
    let mut settings = serde_json::to_value(config).unwrap_or_default();
    if let Some(sections) = settings.as_object_mut() {
        sections.remove("snapshot");
        sections.remove("budget");
    }
    let hosts: Vec<Json> = entries(&settings)
        .map(|entry| only(entry, |key| key == "name" || HOST_KEYS.contains(&key)))
        .collect();
    let mut topology = json!({ "databases": hosts });
    if config.peers.iter().any(|peer| peer.pod_uid.is_some())
        && let Some(peers) = settings.as_object_mut().and_then(|s| s.remove("peers"))
    {
        topology["peers"] = peers;
    }
    (settings, topology)
}

/// The settings as they would be pushed: without any host.
#[must_use]
pub fn without_hosts(settings: &Json) -> Json {
    let mut settings = settings.clone();
    let mut databases: Vec<Json> = Vec::new();
    for entry in entries(&settings) {
        let entry = only(entry, |key| !HOST_KEYS.contains(&key));
        if databases.iter().all(|other| other["name"] != entry["name"]) {
            databases.push(entry);
        }
    }
    settings["databases"] = databases.into();
    settings
}

fn only(entry: &Json, wanted: impl Fn(&str) -> bool) -> Json {
    let entries = entry.as_object().into_iter().flatten();
    entries
        .filter(|(key, value)| wanted(key) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}

/// One configuration of two halves: each host gets the settings of its database.
#[must_use]
pub fn join(settings: &Json, topology: &Json) -> Json {
    let mut whole = settings.clone();
    let databases: Vec<Json> = entries(topology)
        .map(|host| {
            let mut entry = best(settings, host).map_or_else(
                || json!({}),
                |of| only(of, |key| key != "name" && !HOST_KEYS.contains(&key)),
            );
            if let (Some(entry), Some(host)) = (entry.as_object_mut(), host.as_object()) {
                entry.extend(host.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            entry
        })
        .collect();
    if let Some(whole) = whole.as_object_mut() {
        whole.remove("snapshot");
        whole.remove("budget");
        whole.insert("databases".to_owned(), databases.into());
        if let Some(peers) = topology.get("peers") {
            whole.insert("peers".to_owned(), peers.clone());
        }
    }
    whole
}

/// The settings of a host: those of the host itself, of one with its role in its shard, of its database.
fn best<'a>(settings: &'a Json, host: &Json) -> Option<&'a Json> {
    let find = |keys: &[&str]| {
        entries(settings).find(|entry| keys.iter().all(|key| same(key, &entry[*key], &host[*key])))
    };
    find(&["name", "host", "port"])
        .or_else(|| find(&["name", "role", "shard"]))
        .or_else(|| find(&["name"]))
}

/// Whether two hosts agree in a key, which may be left out where it has its default.
fn same(key: &str, one: &Json, other: &Json) -> bool {
    let default = match key {
        "port" => json!(5432),
        "role" => json!("primary"),
        "shard" => json!(0),
        _ => Json::Null,
    };
    let or_default = |value: &Json| {
        if value.is_null() {
            default.clone()
        } else {
            value.clone()
        }
    };
    or_default(one) == or_default(other)
}

/// Gives settings the keys that belong to the process, from the settings that it started with; and, where they have none of
/// their own, the way into the admin console.
///
/// # Errors
///
/// When they have another value for such a key: everything that would need a restart.
pub fn inherit(settings: &mut Json, process: &Json) -> Result<(), Problems> {
    let mut problems = Vec::new();
    for key in ["name", "user", "password"] {
        let own = &process["admin"][key];
        if settings["admin"][key].is_null() && !own.is_null() {
            settings["admin"][key] = own.clone();
        }
    }
    for (section, key) in restart_keys() {
        let own = &process[&section][&key];
        let pushed = &settings[&section][&key];
        if pushed.is_null() {
            if !own.is_null() {
                settings[&section][&key] = own.clone();
            }
        } else if pushed != own {
            let path = format!("{section}.{key}");
            let message = "cannot change while the process runs; leave it out, and change it where the process is started";
            let place = Place::of(Half::Settings.as_str());
            problems.push(place.error(&path, ProblemCode::RequiresRestart, message));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Problems(problems))
    }
}

/// Gives settings the keys that belong to the process whatever they say, from those that it starts with. Where it starts
/// without files, only those count that are not what they are by default (`all` is false).
pub fn overrule(settings: &mut Json, process: &Json, all: bool) {
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    for (section, key) in restart_keys() {
        let own = &process[&section][&key];
        if all || *own != defaults[&section][&key] {
            settings[&section][&key] = own.clone();
        }
    }
}

/// The keys that cannot change while the process runs, with their sections; what their documentation says is the list.
#[must_use]
pub fn restart_keys() -> Vec<(String, String)> {
    let root = json_schema();
    let sections = root["properties"].as_object().into_iter().flatten();
    sections
        .filter_map(|(section, property)| {
            let name = property["$ref"].as_str()?.strip_prefix("#/$defs/")?;
            let keys = root["$defs"][name]["properties"].as_object()?;
            Some(
                keys.iter()
                    .filter(|(_, key)| {
                        key["description"]
                            .as_str()
                            .is_some_and(|text| text.contains(NEEDS_RESTART))
                    })
                    .map(|(key, _)| (section.clone(), key.clone()))
                    .collect::<Vec<_>>(),
            )
        })
        .flatten()
        .collect()
}
