//! Whether the hosts are divided into shards otherwise than before, and what is to be done about it. Pure.
//!
//! Two proxies that disagree about which shard has a row are two answers to one question. So such a topology is not pushed to
//! each proxy as soon as it can be, as others are, but comes into force on all of them at one moment, or on none. Until then the
//! former shards are in force, with the hosts of now. When the change has failed, wherever it was, the former ones get a later
//! number and are pushed to all: who had come to the others goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::atomic::Progress;

/// Time after which a change that failed is tried again; it doubles with each further failure. Each attempt holds clients up.
const RETRY: Duration = Duration::from_secs(15);
/// The longest such time.
const RETRY_MAX: Duration = Duration::from_secs(240);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The shards are those that are in force.
    Nothing,
    /// A change of all proxies is to begin.
    Begin,
    /// It is under way: nobody is told anything of the topology.
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

/// What of the wanted topology can come into force at once: hosts of shards that both have, databases that come or go, and peers.
/// Shards that the former one alone has keep their hosts, and those that the wanted one alone has are left out.
#[must_use]
pub fn within(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let (former, wanted) = (shards(before), shards(after));
    let list = |topology: &Map<String, Value>| -> Vec<Value> {
        let databases = topology.get("databases").and_then(Value::as_array);
        databases.cloned().unwrap_or_default()
    };
    let has = |shards: &BTreeMap<&str, BTreeSet<u64>>, of: &Value| {
        let (name, shard) = place(of);
        shards.get(name).map(|shards| shards.contains(&shard))
    };
    let mut databases = list(after);
    databases.retain(|database| has(&former, database) != Some(false));
    let kept = list(before).into_iter();
    databases.extend(kept.filter(|database| has(&wanted, database) == Some(false)));
    let mut merged = after.clone();
    merged.insert("databases".to_owned(), databases.into());
    merged
}

/// A database's name and the number of the shard.
fn place(database: &Value) -> (&str, u64) {
    let shard = database["shard"].as_u64().unwrap_or_default();
    (database["name"].as_str().unwrap_or_default(), shard)
}

/// The numbers of the shards of each database.
fn shards(topology: &Map<String, Value>) -> BTreeMap<&str, BTreeSet<u64>> {
    let mut shards: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let databases = topology.get("databases").and_then(Value::as_array);
    for database in databases.into_iter().flatten() {
        let (name, shard) = place(database);
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
        Some(Progress::Failed { message, at, times }) if at.elapsed() < pause(*times) => {
            Step::Wait(format!(
                "no proxy was changed, or not all; it is tried again in {} s: {message}",
                pause(*times).as_secs()
            ))
        }
        _ => obstacle.map_or(Step::Begin, Step::Wait),
    }
}

/// The time between the attempts, after so many.
fn pause(times: u32) -> Duration {
    let doubled = RETRY * 2u32.pow(times.saturating_sub(1).min(8));
    doubled.min(RETRY_MAX)
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
    fn hosts_and_databases_change_within_the_former_shards() {
        let before = topology(&[("app", "a", 0), ("app", "b", 1), ("old", "a", 0)]);
        let mut after = topology(&[
            ("app", "a2", 0),
            ("app", "c", 2),
            ("new", "a", 0),
            ("new", "c", 1),
        ]);
        after.insert("peers".to_owned(), json!(["p"]));
        let now = within(&before, &after);
        let hosts: Vec<_> = now["databases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| {
                (
                    d["name"].as_str().unwrap(),
                    d["host"].as_str().unwrap(),
                    d["shard"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            hosts,
            [
                ("app", "a2", 0),
                ("new", "a", 0),
                ("new", "c", 1),
                ("app", "b", 1)
            ]
        );
        assert_eq!(now["peers"], json!(["p"]));
        assert!(!differ(&before, &now) && differ(&now, &after));
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
        let failed = |at, times| Progress::Failed {
            message: "shop-1: no answer".to_owned(),
            at,
            times,
        };
        let now = step(true, Some(&failed(Instant::now(), 1)), None);
        let (reason, message) = hint(&now).unwrap();
        assert!(
            reason == "ShardingHeld" && message.contains("shop-1: no answer"),
            "{message}"
        );
        let before = Instant::now().checked_sub(RETRY).unwrap();
        assert_eq!(step(true, Some(&failed(before, 1)), None), Step::Begin);
        let again = step(true, Some(&failed(before, 2)), None);
        assert!(matches!(again, Step::Wait(_)), "later and later: {again:?}");
        assert_eq!(pause(40), RETRY_MAX);
        assert_eq!(hint(&Step::Running), None);
    }
}
