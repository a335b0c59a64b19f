//! Settings on their way to the proxies, and what happens when something is missing or refused.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use pgdog_operator_api::{PgDogCluster, PgDogClusterStatus, Rejection};
use serde_json::{Value, json};

use super::{Decision, Proxies, comes_further, databases_of, decide, names, until_attempt};
use crate::apply;
use crate::context::Memory;
use crate::discover::discover;
use crate::fleet::{Document, Report, Taken, Want};
use crate::render::config::Unrenderable;
use crate::render::{children, snapshot};
use crate::rollout::Stage;
use crate::world::World;

/// A cluster, its world and what is remembered of it.
struct Case {
    cluster: PgDogCluster,
    world: World,
    memory: Memory,
    status: PgDogClusterStatus,
    reports: Vec<Report>,
    /// All are changing their shards.
    changing: bool,
    /// The budget has no room for further databases.
    crowded: bool,
}

impl Case {
    fn new(proxies: usize) -> Self {
        let mut world = World::default();
        world.secrets.insert("login".to_owned(), login("secret"));
        Self {
            cluster: serde_json::from_value(json!({
                "apiVersion": "pgdog.dev/v1alpha1",
                "kind": "PgDogCluster",
                "metadata": {"name": "shop", "namespace": "demo", "uid": "u"},
                "spec": {
                    "source": {"provider": "Static", "hosts": [{"host": "a.example"}]},
                    "databases": [{"name": "app"}],
                    "users": [{"secretRef": {"name": "login"}}],
                },
            }))
            .unwrap(),
            world,
            memory: Memory::default(),
            status: PgDogClusterStatus::default(),
            reports: vec![Report::default(); proxies],
            changing: false,
            crowded: false,
        }
    }

    fn decide(&mut self) -> Result<Decision, Unrenderable> {
        let found = discover(&self.cluster.spec, &self.world);
        let proxies = Proxies {
            reports: &self.reports,
            peers: &[],
            leaving: false,
            changing: self.changing,
            crowded: self.crowded,
        };
        decide(
            &self.cluster,
            &found,
            &self.world,
            proxies,
            &mut self.memory,
            &mut self.status,
        )
    }

    /// The proxy has both halves as they are wanted now.
    fn ack(&mut self, proxy: usize) {
        let config = &self.status.config;
        let taken = |half: &pgdog_operator_api::HalfStatus| Taken::Acked {
            revision: u64::try_from(half.revision).unwrap(),
            sha256: half.hash.clone(),
        };
        self.reports[proxy].settings = taken(&config.settings);
        self.reports[proxy].topology = taken(&config.topology);
    }

    fn fail(&mut self, proxy: usize, reason: Rejection) {
        self.reports[proxy].settings = Taken::Failed {
            revision: u64::try_from(self.status.config.settings.revision).unwrap(),
            reason,
            message: "no".to_owned(),
        };
    }

    /// One static host for each of these shards.
    fn shard(&mut self, hosts: &[&str]) {
        let shard = |(number, host): (usize, &&str)| json!({"number": number, "source": {"provider": "Static", "hosts": [{"host": host}]}});
        let shards: Vec<_> = hosts.iter().enumerate().map(shard).collect();
        self.cluster.spec.source = None;
        self.cluster.spec.shards = serde_json::from_value(json!(shards)).unwrap();
    }

    fn set(&mut self, size: i32) {
        self.cluster.spec.pooling =
            serde_json::from_value(json!({"defaultPoolSize": size})).unwrap();
    }
}

fn login(password: &str) -> Arc<Secret> {
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": "login"}})).unwrap();
    let mut data = std::collections::BTreeMap::new();
    for (key, value) in [("username", "app"), ("password", password)] {
        let value = k8s_openapi::ByteString(value.as_bytes().to_vec());
        data.insert(key.to_owned(), value);
    }
    Arc::new(Secret {
        data: Some(data),
        ..secret
    })
}

fn size(decision: &serde_json::Map<String, Value>) -> &Value {
    &decision["general"]["default_pool_size"]
}

/// All proxies have the first settings.
fn settled(proxies: usize) -> Case {
    let mut case = Case::new(proxies);
    assert_eq!(
        case.decide().unwrap().given,
        vec![true; proxies],
        "there is nothing to try out"
    );
    (0..proxies).for_each(|proxy| case.ack(proxy));
    assert_eq!(case.decide().unwrap().stage, Stage::Complete);
    case
}

#[test]
fn new_settings_have_a_new_number_and_begin_with_one_proxy() {
    let mut case = settled(3);
    let before = case.status.config.settings.revision;
    case.set(7);
    let decision = case.decide().unwrap();
    assert_eq!(case.status.config.settings.revision, before + 1);
    assert_eq!(
        (decision.stage, decision.given),
        (Stage::Canary, vec![true, false, false])
    );
    assert_eq!(
        (size(&decision.settings), size(&decision.snapshot)),
        (&json!(7), &json!(10))
    );
    case.ack(0);
    assert_eq!(case.decide().unwrap().given, vec![true; 3]);
    case.ack(1);
    case.ack(2);
    let decision = case.decide().unwrap();
    assert_eq!(
        (decision.stage, size(&decision.snapshot)),
        (Stage::Complete, &json!(7))
    );
    assert_eq!(
        case.status.config.settings.revision,
        before + 1,
        "it is counted once"
    );
}

#[test]
fn refused_settings_are_taken_back_once_and_others_are_tried_again() {
    let mut case = settled(2);
    case.set(7);
    case.decide().unwrap();
    case.fail(0, Rejection::Nack);
    let decision = case.decide().unwrap();
    assert_eq!(
        (decision.stage, size(&decision.settings)),
        (Stage::Halted, &json!(10))
    );
    assert_eq!(case.memory.refused.as_ref().unwrap().message, "no");
    let revision = case.status.config.settings.revision;
    (0..2).for_each(|proxy| case.ack(proxy));
    for _ in 0..3 {
        assert_eq!(
            size(&case.decide().unwrap().settings),
            &json!(10),
            "it does not flap"
        );
    }
    assert_eq!(case.status.config.settings.revision, revision);
    case.set(8);
    assert_eq!(size(&case.decide().unwrap().settings), &json!(8));
    assert!(case.memory.refused.is_none());
}

/// The settings were refused, and taken back.
fn rolled_back() -> Case {
    let mut case = settled(2);
    for (report, pod) in case.reports.iter_mut().zip(["a", "b"]) {
        pod.clone_into(&mut report.pod);
    }
    case.set(7);
    case.decide().unwrap();
    case.fail(0, Rejection::Nack);
    case.decide().unwrap();
    (0..2).for_each(|proxy| case.ack(proxy));
    case.decide().unwrap();
    case
}

#[test]
fn a_later_leader_does_not_try_refused_settings_again() {
    let mut case = rolled_back();
    let decision = case.decide().unwrap();
    let data = snapshot::render(
        &decision.process,
        &decision.snapshot,
        &decision.topology,
        &case.memory.replaced,
        case.memory.refused.as_ref(),
        snapshot::Versions::default(),
        snapshot::Start::default(),
    );
    let data = data
        .into_iter()
        .map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes())));
    let mut secret = Secret {
        data: Some(data.collect()),
        ..Secret::default()
    };
    secret.metadata.owner_references = case.cluster.controller_owner_ref(&()).map(|o| vec![o]);
    let secret = Arc::new(secret);
    case.world.secrets.insert("shop-config".to_owned(), secret);
    let before = std::mem::take(&mut case.memory);
    apply::recall(&case.cluster, &case.world, &mut case.memory);
    assert_eq!(case.memory.refused, before.refused);
    let again = case.decide().unwrap();
    assert_eq!(size(&again.settings), &json!(10));
    assert_eq!(again.settings, decision.settings);
}

#[test]
fn a_password_is_replaced_also_while_other_settings_are_held_back() {
    let mut case = rolled_back();
    case.world.secrets.insert("login".to_owned(), login("new"));
    let decision = case.decide().unwrap();
    let user = &decision.settings["users"][0];
    assert_eq!(size(&decision.settings), &json!(10));
    assert_eq!(
        (&user["password"], &user["passwords"]),
        (&json!("new"), &json!(["secret"]))
    );
    assert!(case.memory.refused.is_some());
}

#[test]
fn refused_settings_are_tried_again_when_who_refused_them_has_gone() {
    let mut case = rolled_back();
    "c".clone_into(&mut case.reports[1].pod);
    assert_eq!(size(&case.decide().unwrap().settings), &json!(10));
    "d".clone_into(&mut case.reports[0].pod);
    assert_eq!(size(&case.decide().unwrap().settings), &json!(7));
}

/// A Secret with an authority of servers, in this version.
fn authority(version: &str) -> Arc<Secret> {
    let pair = crate::authority::Authority::generate().unwrap();
    let mut secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "ca", "resourceVersion": version},
    }))
    .unwrap();
    let text = k8s_openapi::ByteString(pair.certificate.into_bytes());
    secret.data = Some([("ca.crt".to_owned(), text)].into());
    Arc::new(secret)
}

#[test]
fn settings_that_were_refused_for_their_files_are_tried_again_with_others_until_these_have_arrived()
{
    let mut case = settled(1);
    "a".clone_into(&mut case.reports[0].pod);
    case.world.secrets.insert("ca".to_owned(), authority("1"));
    case.cluster.spec.tls =
        serde_json::from_value(json!({"server": {"mode": "verify_full", "caSecretRef": "ca"}}))
            .unwrap();
    let is_tried = |case: &mut Case| {
        let settings = case.decide().unwrap().settings;
        settings["general"]["tls_verify"] == "verify_full"
    };
    let is_refused = |case: &mut Case| {
        case.fail(0, Rejection::Nack);
        !is_tried(case)
    };
    // All that was seen and done so far is older than it is.
    let later = |case: &mut Case, seconds: i64| {
        let time = SignedDuration::from_secs(seconds);
        if let Some(since) = &mut case.memory.files.since {
            *since -= time;
        }
        if let Some(refused) = &mut case.memory.refused {
            refused.at -= time;
        }
    };
    assert!(is_tried(&mut case));
    later(&mut case, 600);
    assert!(is_refused(&mut case));
    case.ack(0);
    later(&mut case, 61);
    assert!(!is_tried(&mut case), "it does not flap");
    assert_eq!(until_attempt(&case.memory, Timestamp::now()), None);

    case.world.secrets.insert("ca".to_owned(), authority("2"));
    assert!(is_tried(&mut case));
    assert!(is_refused(&mut case), "its file is still the former one");
    for _ in 0..3 {
        case.ack(0);
        assert!(!is_tried(&mut case), "once a minute");
        assert!(until_attempt(&case.memory, Timestamp::now()).is_some());
        later(&mut case, 60);
        assert!(is_tried(&mut case));
        assert!(is_refused(&mut case));
    }
    case.ack(0);
    later(&mut case, 61);
    assert!(
        !is_tried(&mut case),
        "the file has come and is wrong as well"
    );

    // Somebody has removed it, and made it again.
    case.world.secrets.remove("ca");
    assert!(case.decide().unwrap().keeps_pods());
    case.world.secrets.insert("ca".to_owned(), authority("3"));
    assert!(is_tried(&mut case));
    case.ack(0);
    assert!(is_tried(&mut case) && case.memory.refused.is_none());
}

#[test]
fn numbers_that_came_from_a_backup_rise_above_those_of_the_proxies() {
    let mut case = settled(2);
    case.reports[1].ahead.settings = 40;
    case.reports[0].ahead.topology = u64::MAX;
    let before = case.status.config.topology.revision;
    for _ in 0..2 {
        case.decide().unwrap();
        assert_eq!(case.status.config.settings.revision, 41);
        assert_eq!(case.status.config.topology.revision, before, "it is a lie");
    }
}

#[test]
fn a_proxy_that_cannot_be_asked_holds_up_nobody() {
    let mut case = settled(3);
    case.reports[0] = Report::unreachable("the pod has no address yet");
    case.set(7);
    let decision = case.decide().unwrap();
    assert_eq!(decision.given, [false, true, false]);
    case.ack(1);
    assert_eq!(case.decide().unwrap().stage, Stage::Rolling);
}

#[test]
fn hosts_go_on_coming_while_a_secret_is_missing() {
    let mut case = settled(1);
    let (settings, topology) = (
        case.status.config.settings.clone(),
        case.status.config.topology.clone(),
    );
    case.world.secrets.clear();
    let source = json!({"provider": "Static", "hosts": [{"host": "b.example"}]});
    case.cluster.spec.source = serde_json::from_value(source).unwrap();
    let decision = case.decide().unwrap();
    assert!(matches!(decision.invalid, Some(Unrenderable::Secrets(_))));
    assert_eq!(decision.topology["databases"][0]["host"], "b.example");
    assert_eq!(decision.settings["users"][0]["password"], "secret");
    assert_eq!(case.status.config.settings.hash, settings.hash);
    assert_eq!(case.status.config.topology.revision, topology.revision + 1);
    // Before there ever was a configuration there is nothing to go on with.
    let mut fresh = Case::new(1);
    fresh.world.secrets.clear();
    assert!(fresh.decide().is_err());
}

#[test]
fn a_missing_secret_brings_nobody_settings_that_are_halted_or_on_trial() {
    for halted in [true, false] {
        let mut case = settled(3);
        let policy = json!({"autoRollback": false});
        case.cluster.spec.config_rollout = serde_json::from_value(policy).unwrap();
        case.set(7);
        case.decide().unwrap();
        if halted {
            case.fail(0, Rejection::Nack);
        }
        let before = case.decide().unwrap();
        assert_eq!(before.given, [true, false, false]);
        case.world.secrets.clear();
        let without = case.decide().unwrap();
        assert!(matches!(without.invalid, Some(Unrenderable::Secrets(_))));
        assert_eq!(without.given, before.given);
        assert_eq!(without.stage, before.stage);
        assert_eq!(size(&without.settings), &json!(7));
        assert_eq!(
            size(&without.snapshot),
            &json!(10),
            "new ones get what is good"
        );
    }
}

#[test]
fn a_database_that_is_taken_out_keeps_its_hosts_until_all_have_settings_without_it() {
    let names = |decision: &Decision| -> Vec<(String, String)> {
        let all = decision.topology["databases"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        all.map(|one| (text(&one["name"]), text(&one["database_name"])))
            .collect()
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let mut case = Case::new(2);
    let databases = json!([{"name": "app"}, {"name": "old", "databaseName": "ancient"}]);
    case.cluster.spec.databases = serde_json::from_value(databases).unwrap();
    case.cluster.spec.users[0].databases = vec!["app".to_owned(), "old".to_owned()];
    case.decide().unwrap();
    (0..2).for_each(|proxy| case.ack(proxy));
    case.decide().unwrap();

    case.cluster.spec.databases.pop();
    case.cluster.spec.users[0].databases.pop();
    let decision = case.decide().unwrap();
    let both = [pair("app", ""), pair("old", "ancient")];
    assert_eq!(decision.given, [true, false]);
    assert_eq!(names(&decision), both);
    // The first refuses: all go on with what was good, on the hosts of now.
    case.fail(0, Rejection::Nack);
    let source = json!({"provider": "Static", "hosts": [{"host": "b.example"}]});
    case.cluster.spec.source = serde_json::from_value(source).unwrap();
    let decision = case.decide().unwrap();
    assert_eq!(names(&decision), both);
    assert_eq!(decision.topology["databases"][1]["host"], "b.example");
    // A Secret is missing meanwhile.
    let secret = case.world.secrets.remove("login").unwrap();
    assert_eq!(names(&case.decide().unwrap()), both);
    case.world.secrets.insert("login".to_owned(), secret);

    case.set(3);
    case.decide().unwrap();
    (0..2).for_each(|proxy| case.ack(proxy));
    assert_eq!(names(&case.decide().unwrap()), [pair("app", "")]);
}

#[test]
fn a_further_database_waits_for_room_in_the_budget_and_hosts_do_not() {
    let mut case = settled(2);
    assert_eq!(databases_of(&case.cluster, &case.memory), 1);
    let databases = json!([{"name": "app"}, {"name": "log"}]);
    case.cluster.spec.databases = serde_json::from_value(databases).unwrap();
    let source = json!({"provider": "Static", "hosts": [{"host": "b.example"}]});
    case.cluster.spec.source = serde_json::from_value(source).unwrap();
    assert_eq!(databases_of(&case.cluster, &case.memory), 2);
    assert!(comes_further(&case.cluster, &case.memory));
    case.crowded = true;
    let count = |decision: &Decision| decision.topology["databases"].as_array().unwrap().len();
    for _ in 0..2 {
        let decision = case.decide().unwrap();
        assert_eq!(
            (decision.given.as_slice(), decision.stage),
            (&[false; 2][..], Stage::Waiting)
        );
        assert_eq!(count(&decision), 1);
        assert_eq!(decision.topology["databases"][0]["host"], "b.example");
        assert_eq!(names(&decision.snapshot).collect::<Vec<_>>(), ["app"]);
        assert!(
            comes_further(&case.cluster, &case.memory),
            "until they come"
        );
    }
    case.crowded = false;
    let decision = case.decide().unwrap();
    assert_eq!(
        (decision.given.as_slice(), count(&decision)),
        (&[true, false][..], 2)
    );
    assert!(!comes_further(&case.cluster, &case.memory));
    (0..2).for_each(|proxy| case.ack(proxy));
    case.decide().unwrap();
    // One that goes counts until all are without it.
    case.cluster.spec.databases.pop();
    case.decide().unwrap();
    assert_eq!(databases_of(&case.cluster, &case.memory), 2);
}

#[test]
fn what_is_printed_for_developers_holds_no_password() {
    let mut case = settled(1);
    for password in ["hush-1", "hush-2"] {
        case.world
            .secrets
            .insert("login".to_owned(), login(password));
        case.decide().unwrap();
    }
    case.world
        .secrets
        .insert("login".to_owned(), login("newer"));
    let decision = case.decide().unwrap();
    let document = Document::new(1, 1, String::new(), decision.settings.clone());
    let want = Want {
        settings: Some(Arc::new(document)),
        ..Want::default()
    };
    let children = children::render(
        &case.cluster,
        "image",
        &decision.process,
        snapshot::render(
            &decision.process,
            &decision.snapshot,
            &decision.topology,
            &case.memory.replaced,
            None,
            snapshot::Versions::default(),
            snapshot::Start::default(),
        ),
    );
    let printed = format!(
        "{decision:?} {want:?} {children:?} {:?} {:?}",
        case.memory, case.world
    );
    assert!(decision.settings["users"].to_string().contains("hush-1"));
    assert!(printed.contains("login") && !printed.contains("hush"));
}

#[test]
fn hosts_that_are_gone_take_no_topology_away() {
    let mut case = settled(1);
    let before = case.status.config.topology.clone();
    let source = json!({"provider": "CloudNativePG", "clusterRef": {"name": "main"}});
    case.cluster.spec.source = serde_json::from_value(source).unwrap();
    let decision = case.decide().unwrap();
    assert_eq!(decision.topology["databases"][0]["host"], "a.example");
    assert_eq!(case.status.config.topology, before);
}

#[test]
fn a_new_password_is_rolled_out_with_the_former_one_beside_it() {
    let mut case = settled(1);
    case.world.secrets.insert("login".to_owned(), login("new"));
    let user = case.decide().unwrap().settings["users"][0].clone();
    assert_eq!(
        (&user["password"], &user["passwords"]),
        (&json!("new"), &json!(["secret"]))
    );
    let again = case.decide().unwrap().settings["users"][0].clone();
    assert_eq!(user, again);
}

#[test]
fn a_pod_that_nobody_reaches_keeps_no_settings_from_being_good_and_no_password_from_the_file() {
    let mut case = settled(2);
    case.reports
        .push(Report::unreachable("it has no address yet"));
    case.set(7);
    for _ in 0..2 {
        case.decide().unwrap();
        (0..2).for_each(|proxy| case.ack(proxy));
    }
    let decision = case.decide().unwrap();
    assert_eq!(decision.stage, Stage::Rolling);
    assert_eq!(size(&decision.snapshot), &json!(7));
    // What is refused next is taken back to this, and not further.
    case.set(8);
    case.decide().unwrap();
    case.fail(0, Rejection::Nack);
    assert_eq!(size(&case.decide().unwrap().settings), &json!(7));

    let mut case = settled(2);
    case.reports
        .push(Report::unreachable("it has no address yet"));
    case.world.secrets.insert("login".to_owned(), login("new"));
    let decision = case.decide().unwrap();
    let user = &decision.snapshot["users"][0];
    assert_eq!(
        (&user["password"], &user["passwords"]),
        (&json!("new"), &json!(["secret"]))
    );
}

#[test]
fn the_time_of_a_former_password_runs_out_also_while_another_secret_is_missing() {
    let mut case = settled(1);
    case.world.secrets.insert("login".to_owned(), login("new"));
    let decision = case.decide().unwrap();
    assert_eq!(
        decision.settings["users"][0]["passwords"],
        json!(["secret"])
    );
    case.cluster
        .spec
        .users
        .push(serde_json::from_value(json!({"secretRef": {"name": "gone"}})).unwrap());
    let decision = case.decide().unwrap();
    assert!(matches!(decision.invalid, Some(Unrenderable::Secrets(_))));
    assert_eq!(
        decision.settings["users"][0]["passwords"],
        json!(["secret"])
    );
    for replaced in &mut case.memory.replaced {
        replaced.until = jiff::Timestamp::UNIX_EPOCH;
    }
    let decision = case.decide().unwrap();
    assert_eq!(decision.settings["users"][0].get("passwords"), None);
    assert_eq!(decision.settings["users"][0]["password"], "new");
}

/// Database, host and shard of each entry.
fn entries(topology: &serde_json::Map<String, Value>) -> Vec<(&str, &str, u64)> {
    let databases = topology["databases"].as_array().unwrap().iter();
    let text = |value: &'_ Value, key: &str| -> String { value[key].as_str().unwrap().to_owned() };
    databases
        .map(|d| {
            let (name, host) = (text(d, "name").leak(), text(d, "host").leak());
            (&*name, &*host, d["shard"].as_u64().unwrap_or_default())
        })
        .collect()
}

#[test]
fn other_shards_wait_for_all_and_everything_else_does_not() {
    let mut case = Case::new(2);
    case.shard(&["a.example"]);
    case.decide().unwrap();
    case.ack(0);
    case.ack(1);
    let first = case.status.config.topology.clone();

    // A second shard, another host of the first one, and another database, in one edit.
    case.shard(&["a2.example", "b.example"]);
    let databases = json!([{"name": "app"}, {"name": "log"}]);
    case.cluster.spec.databases = serde_json::from_value(databases).unwrap();
    let held = case.decide().unwrap();
    let now = [
        ("app", "a2.example", 0),
        ("log", "a2.example", 0),
        ("log", "b.example", 1),
    ];
    assert_eq!(entries(&held.topology), now);
    let other = held.other.expect("other shards are wanted");
    assert_eq!(entries(&other).len(), 4);
    assert_eq!(case.status.config.topology.revision, first.revision + 1);
    assert!(
        case.decide().unwrap().other.is_some(),
        "until they are there"
    );
    assert_eq!(case.status.config.topology.revision, first.revision + 1);

    // While all are changing the topology and its number stay as they are, whatever is wanted.
    super::renumber(&mut case.status.config.topology, &other);
    case.changing = true;
    case.shard(&["a3.example"]);
    let running = case.decide().unwrap();
    assert_eq!(entries(&running.topology), now);
    assert_eq!(case.status.config.topology.revision, first.revision + 2);

    // It failed: the former shards have a later number, for whoever came to the others.
    case.changing = false;
    case.shard(&["a2.example", "b.example"]);
    let failed = case.decide().unwrap();
    assert_eq!(entries(&failed.topology), now);
    assert!(failed.other.is_some());
    assert_eq!(case.status.config.topology.revision, first.revision + 3);

    // The next attempt goes well: nothing has a new number.
    super::renumber(&mut case.status.config.topology, &other);
    case.memory.topology = Some(other.clone());
    let done = case.decide().unwrap();
    assert!(done.other.is_none());
    assert_eq!(done.topology, other);
    assert_eq!(case.status.config.topology.revision, first.revision + 4);

    // Without a proxy there is nobody to wait for.
    case.reports.clear();
    case.shard(&["a2.example"]);
    assert!(case.decide().unwrap().other.is_none());
}
