//! Whether the hosts are divided into shards otherwise than before, and what is to be done about it. Pure.
//!
//! Two proxies that disagree about which shard has a row are two answers to one question. So such a topology is not pushed to
//! each proxy as soon as it can be, as others are, but comes into force on all of them at one moment, or on none.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::atomic::Progress;
use crate::pausing::RETRY;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The shards are those that are in force.
    Nothing,
    /// A change of all proxies is to begin.
    Begin,
    /// It is under way: nobody is told anything else of the topology.
    Running,
    /// It cannot begin yet, or was tried in vain: the former shards stay in force everywhere.
    Wait(String),
}

/// Whether two topologies divide a database that both have into other shards.
#[must_use]
pub fn differ(before: &Map<String, Value>, after: &Map<String, Value>) -> bool {
    let (before, after) = (shards(before), shards(after));
    before
        .iter()
        .any(|(name, shards)| after.get(name).is_some_and(|now| now != shards))
}

/// The numbers of the shards of each database.
fn shards(topology: &Map<String, Value>) -> BTreeMap<&str, BTreeSet<u64>> {
    let mut shards: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let databases = topology.get("databases").and_then(Value::as_array);
    for database in databases.into_iter().flatten() {
        let shard = database["shard"].as_u64().unwrap_or_default();
        let name = database["name"].as_str().unwrap_or_default();
        shards.entry(name).or_default().insert(shard);
    }
    shards
}

/// What is to be done. `wanted` is whether other shards are; `obstacle` is who or what has to come to an end first.
#[must_use]
pub fn step(wanted: bool, progress: Option<&Progress>, obstacle: Option<String>) -> Step {
    match progress {
        // Also one that is wanted no more: it may still take place.
        Some(Progress::Running) => Step::Running,
        _ if !wanted => Step::Nothing,
        Some(Progress::Failed { message, at }) if at.elapsed() < RETRY => Step::Wait(format!(
            "no proxy was changed, or not all; it is tried again in {} s: {message}",
            RETRY.as_secs()
        )),
        _ => obstacle.map_or(Step::Begin, Step::Wait),
    }
}

/// What is told of it.
#[must_use]
pub fn hint(step: &Step) -> Option<(&'static str, String)> {
    let Step::Wait(why) = step else { return None };
    let message = format!("other shards are wanted, the former ones stay in force: {why}");
    Some(("ShardingHeld", message))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn topology(hosts: &[(&str, &str, u64)]) -> Map<String, Value> {
        let hosts = hosts
            .iter()
            .map(|(name, host, shard)| json!({"name": name, "host": host, "shard": shard}));
        Map::from_iter([("databases".to_owned(), hosts.collect())])
    }

    #[test]
    fn another_host_is_no_other_shard_and_a_database_that_comes_or_goes_is_none() {
        let one = topology(&[("app", "a", 0)]);
        assert!(!differ(
            &one,
            &topology(&[("app", "b", 0), ("app", "c", 0)])
        ));
        assert!(differ(&one, &topology(&[("app", "a", 0), ("app", "b", 1)])));
        assert!(differ(&topology(&[("app", "a", 0), ("app", "b", 1)]), &one));
        let more = topology(&[("app", "a", 0), ("log", "a", 0), ("log", "b", 1)]);
        assert!(!differ(&one, &more) && !differ(&more, &one));
    }

    #[test]
    fn a_change_begins_when_nothing_is_in_its_way_and_is_tried_again_after_a_while() {
        assert_eq!(step(false, None, Some("x".to_owned())), Step::Nothing);
        assert_eq!(step(true, None, None), Step::Begin);
        assert_eq!(
            step(true, None, Some("shop-1 starts".to_owned())),
            Step::Wait("shop-1 starts".to_owned())
        );
        assert_eq!(step(false, Some(&Progress::Running), None), Step::Running);
        let failed = |at| Progress::Failed {
            message: "shop-1: no answer".to_owned(),
            at,
        };
        let now = step(true, Some(&failed(Instant::now())), None);
        let (reason, message) = hint(&now).unwrap();
        assert!(
            reason == "ShardingHeld" && message.contains("shop-1: no answer"),
            "{message}"
        );
        let before = Instant::now().checked_sub(RETRY).unwrap();
        assert_eq!(step(true, Some(&failed(before)), None), Step::Begin);
        assert_eq!(hint(&Step::Running), None);
    }
}
