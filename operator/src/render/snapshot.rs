//! The Secret with the configuration that a proxy starts with: no operator and no API server is needed for a restart. Beside it
//! stands what an operator has to know again after a restart of its own.

use std::collections::BTreeMap;

use pgdog_config::documents;
use serde_json::{Map, Value, json};

use super::config::merge;
use crate::context::Refused;
use crate::rotation::Replaced;

/// The key of the proxies' file.
pub const FILE: &str = "pgdog.yaml";
/// The key of the settings in that file, as they were pushed.
pub const SETTINGS: &str = "settings.json";
/// The key of the topology in that file, as it was pushed.
pub const TOPOLOGY: &str = "topology.json";
/// The key of what proxies are started with.
pub const PROCESS: &str = "process.json";
/// The key of the passwords that are still accepted.
pub const REPLACED: &str = "replaced.json";
/// The key of the settings that a proxy refused.
pub const REFUSED: &str = "refused.json";

/// Which push the snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions {
    /// The epoch of who pushes.
    pub epoch: u64,
    /// Revision of the settings.
    pub settings: u64,
    /// Revision of the topology.
    pub topology: u64,
}

/// How a proxy starts that nobody has told anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// Server connections that it may have to each host; `None` is any number.
    pub share: Option<u32>,
    /// Whether it holds its clients' transactions back.
    pub paused: bool,
}

/// The data of the Secret. JSON is YAML.
#[must_use]
pub fn render(
    process: &Map<String, Value>,
    settings: &Map<String, Value>,
    topology: &Map<String, Value>,
    replaced: &[Replaced],
    refused: Option<&Refused>,
    versions: Versions,
    start: Start,
) -> BTreeMap<String, String> {
    let mut all = settings.clone();
    merge(&mut all, process.clone());
    let mut whole = documents::join(&Value::Object(all), &Value::Object(topology.clone()));
    if let Some(share) = start.share {
        whole["budget"] = json!({"default": share});
    }
    whole["snapshot"] = json!({
        "paused": start.paused,
        "epoch": versions.epoch,
        "settings_revision": versions.settings,
        "topology_revision": versions.topology,
    });
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    BTreeMap::from([
        (FILE.to_owned(), text(&whole)),
        (SETTINGS.to_owned(), text(&Value::Object(settings.clone()))),
        (TOPOLOGY.to_owned(), text(&Value::Object(topology.clone()))),
        (PROCESS.to_owned(), text(&Value::Object(process.clone()))),
        (REPLACED.to_owned(), text(&json!(replaced))),
        (REFUSED.to_owned(), text(&json!(refused))),
    ])
}
