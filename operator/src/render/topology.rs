//! The topology: hosts, and the other proxies of the fleet.

use std::collections::{HashMap, HashSet};

use pgdog_config::Role;
use pgdog_operator_api::{PgDogClusterSpec, RoleDetection};
use serde_json::{Map, Value, json};

use super::settings::Keys;
use crate::discover::{Found, shards};

/// A proxy as the others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Uid of its pod.
    pub pod_uid: String,
    /// Its address.
    pub address: String,
    /// Where its clients connect to.
    pub port: i32,
}

/// The highest number of a peer: it has to fit into a cancel key.
const PEERS_MAX: u64 = 16_383;

/// The proxies of the fleet, each with a number that it keeps for its life: a Service may hand a cancel request to any of them,
/// and the number in it says whose it is.
#[must_use]
pub fn peers(before: Option<&Map<String, Value>>, peers: &[Peer]) -> Value {
    let known = before.and_then(|topology| topology.get("peers"));
    let known = known.and_then(Value::as_array).into_iter().flatten();
    // A fleet may be large: each is looked up, not searched.
    let known: HashMap<&str, u64> = known
        .filter_map(|one| Some((one["pod_uid"].as_str()?, one["id"].as_u64()?)))
        .collect();
    let number = |peer: &Peer| known.get(peer.pod_uid.as_str()).copied();
    let taken: HashSet<u64> = peers.iter().filter_map(number).collect();
    let mut free = (1..=PEERS_MAX).filter(|id| !taken.contains(id));
    let mut entries: Vec<(u64, &Peer)> = Vec::new();
    for peer in peers {
        let id = number(peer).or_else(|| free.next());
        // More than there are numbers: cancel requests of the last ones reach them by chance.
        let Some(id) = id else { continue };
        entries.push((id, peer));
    }
    entries.sort_by_key(|(id, _)| *id);
    entries
        .into_iter()
        .map(|(id, peer)| json!({"id": id, "host": peer.address, "port": peer.port, "pod_uid": peer.pod_uid}))
        .collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: &str) -> Peer {
        Peer {
            pod_uid: uid.to_owned(),
            address: format!("10.0.0.{}", uid.len()),
            port: 6432,
        }
    }

    #[test]
    fn a_proxy_keeps_its_number_and_those_of_the_gone_are_free() {
        let ids = |peers: &Value| -> Vec<(u64, String)> {
            let peers = peers.as_array().unwrap().iter();
            peers
                .map(|p| {
                    (
                        p["id"].as_u64().unwrap(),
                        p["pod_uid"].as_str().unwrap().to_owned(),
                    )
                })
                .collect()
        };
        let first = peers(None, &[peer("a"), peer("b"), peer("c")]);
        assert_eq!(
            ids(&first),
            [
                (1, "a".to_owned()),
                (2, "b".to_owned()),
                (3, "c".to_owned())
            ]
        );
        let topology = Map::from_iter([("peers".to_owned(), first)]);
        let second = peers(Some(&topology), &[peer("d"), peer("c"), peer("a")]);
        assert_eq!(
            ids(&second),
            [
                (1, "a".to_owned()),
                (2, "d".to_owned()),
                (3, "c".to_owned())
            ]
        );
    }
}
