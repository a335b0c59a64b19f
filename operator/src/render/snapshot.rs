//! The Secret with the configuration that a proxy starts with: no operator and no API server is needed for a restart.

use serde_json::{Value, json};

use super::config::Rendered;

/// The key in the Secret.
pub const FILE: &str = "pgdog.yaml";

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

/// The file's text. JSON is YAML.
#[must_use]
pub fn render(rendered: &Rendered, versions: Versions) -> String {
    let mut whole = rendered.whole();
    if let Value::Object(sections) = &mut whole {
        sections.insert(
            "snapshot".to_owned(),
            json!({
                "epoch": versions.epoch,
                "settings_revision": versions.settings,
                "topology_revision": versions.topology,
            }),
        );
    }
    serde_json::to_string_pretty(&whole).unwrap_or_default()
}
