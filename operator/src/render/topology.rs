//! The topology: hosts.

use pgdog_config::Role;
use pgdog_operator_api::{PgDogClusterSpec, RoleDetection};
use serde_json::{Map, Value};

use super::settings::Keys;
use crate::discover::{Found, shards};

/// One entry for each database on each host.
#[must_use]
pub fn render(spec: &PgDogClusterSpec, found: &Found) -> Map<String, Value> {
    let by_label = |shard: u16| {
        shards(spec).iter().any(|(number, source)| {
            *number == shard && source.role_detection == RoleDetection::Labels
        })
    };
    let mut databases = Vec::new();
    for database in &spec.databases {
        for host in &found.hosts {
            let mut keys = Keys::default();
            keys.set("name", Some(&database.name));
            keys.set("host", Some(&host.address));
            keys.set("port", Some(host.port));
            keys.set("database_name", database.database_name.as_ref());
            // Labels are late, and those of a node that is cut off stay as they were: the proxies ask the hosts.
            let role = if by_label(host.shard) {
                host.hint
            } else {
                Role::Auto
            };
            keys.set("role", Some(role));
            keys.set("shard", Some(host.shard));
            keys.set("zone", host.zone.as_ref());
            keys.set("lb_weight", (host.weight != u8::MAX).then_some(host.weight));
            databases.push(keys.into_value());
        }
    }
    let mut topology = Map::new();
    topology.insert("databases".to_owned(), databases.into());
    topology
}
