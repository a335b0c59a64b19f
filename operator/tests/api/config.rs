//! Configurations on their way to proxies, and what keeps the one in force where something goes away.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use pgdog_config::api::{Half, HostRole};
use pgdog_operator::authority::Authority;
use pgdog_operator_api::{ConditionStatus, ConditionType};
use serde_json::{Value, json};

use crate::harness::operator::Operator;
use crate::harness::proxies::{Proxies, Proxy};
use crate::harness::stage::{Stage, until};
use crate::operator;

/// A pod of CloudNativePG.
async fn instance(stage: &Stage, name: &str, role: &str, address: &str) {
    let labels = json!({"cnpg.io/cluster": "db", "cnpg.io/podRole": "instance", "cnpg.io/instanceRole": role});
    stage.pod(name, &labels, address).await;
}

async fn relabel(stage: &Stage, name: &str, role: &str) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"cnpg.io/instanceRole": role}}}));
    stage
        .api::<Pod>()
        .patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Address and role of each host of a topology.
fn hosts(topology: &Value) -> Vec<(String, String)> {
    let hosts = topology["databases"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    hosts
        .map(|host| (text(&host["host"]), text(&host["role"])))
        .collect()
}

fn cnpg() -> Value {
    json!({"provider": "CloudNativePG", "clusterRef": {"name": "db"}, "roleDetection": "Labels"})
}

#[tokio::test]
async fn a_change_of_settings_is_a_later_revision_and_leaves_the_topology_alone() {
    let Some(stage) = Stage::open("change").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 3).await;
    let before = stage
        .status_when("shop", "3/3", |status| status.config.summary == "3/3")
        .await;
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 17}}))
        .await
        .unwrap();
    let after = stage
        .status_when("shop", "3/3 of the change", |status| {
            status.config.summary == "3/3" && status.observed_generation == Some(2)
        })
        .await;
    assert_eq!(
        after.config.settings.revision,
        before.config.settings.revision + 1
    );
    assert_eq!(after.config.topology, before.config.topology);
    assert_eq!(
        after.config.last_good.as_ref(),
        Some(&after.config.settings.hash)
    );
    for proxy in &all {
        assert_eq!(
            proxy.config(Half::Settings)["general"]["default_pool_size"],
            17
        );
        let version = proxy.version(Half::Settings).unwrap();
        assert_eq!(
            version.revision,
            u64::try_from(after.config.settings.revision).unwrap()
        );
    }
    // The snapshot for new proxies is the same.
    let snapshot = stage
        .api::<Secret>()
        .get("shop-config")
        .await
        .unwrap()
        .data
        .unwrap();
    let settings: Value = serde_json::from_slice(&snapshot["settings.json"].0).unwrap();
    assert_eq!(settings["general"]["default_pool_size"], 17);

    // The same again is nothing new.
    let given = all[0].history().len();
    stage
        .change("shop", json!({"pooling": {"mode": null}}))
        .await
        .unwrap();
    stage
        .change("shop", json!({"service": {"labels": {"team": "shop"}}}))
        .await
        .unwrap();
    stage
        .status_when("shop", "the third generation", |s| {
            s.observed_generation == Some(3)
        })
        .await;
    assert_eq!(all[0].history().len(), given);
}

#[tokio::test]
async fn refused_settings_stop_at_the_first_proxy_and_the_good_ones_come_back() {
    let Some(stage) = Stage::open("refused").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 3).await;
    let good = stage
        .status_when("shop", "3/3", |status| status.config.summary == "3/3")
        .await;
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
    for proxy in &all {
        proxy.refuse(Some("that many do not fit"));
    }
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 99}}))
        .await
        .unwrap();
    let synced = stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::False)
        .await;
    until("it is rolled back", || async {
        let status = stage.status("shop").await;
        let condition = status
            .conditions
            .iter()
            .find(|c| c.kind == ConditionType::ConfigSynced)?;
        (condition.reason == "RolledBack" && status.config.summary == "3/3").then_some(())
    })
    .await;
    assert!(
        ["RolledBack", "Nacked", "Pending", "PartiallySynced"].contains(&synced.reason.as_str()),
        "{synced:?}"
    );
    let status = stage.status("shop").await;
    assert_eq!(status.config.settings.hash, good.config.settings.hash);
    let told = status
        .conditions
        .iter()
        .find(|c| c.kind == ConditionType::ConfigSynced)
        .unwrap();
    assert!(
        told.message.contains("that many do not fit"),
        "{}",
        told.message
    );
    for proxy in &all {
        assert_eq!(
            proxy.config(Half::Settings)["general"]["default_pool_size"],
            10
        );
    }
    // Other settings are tried again.
    for proxy in &all {
        proxy.refuse(None);
    }
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 12}}))
        .await
        .unwrap();
    stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::True)
        .await;
    assert_eq!(
        all[2].config(Half::Settings)["general"]["default_pool_size"],
        12
    );
}

#[tokio::test]
async fn what_makes_no_configuration_is_told_and_changes_nothing() {
    let Some(stage) = Stage::open("invalid").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let one = proxies.add(&stage, 1).await.remove(0);
    let before = stage
        .status_when("shop", "1/1", |status| status.config.summary == "1/1")
        .await;
    stage
        .change(
            "shop",
            json!({"users": [{"secretRef": {"name": "login"}, "databases": ["nowhere"]}]}),
        )
        .await
        .unwrap();
    let invalid = stage
        .condition("shop", ConditionType::ConfigValid, ConditionStatus::False)
        .await;
    assert!(invalid.message.contains("nowhere"), "{}", invalid.message);
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "ConfigRejected");
    let synced = stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::False)
        .await;
    assert_eq!(synced.reason, "NotRendered");
    let after = stage.status("shop").await;
    assert_eq!(after.config.settings, before.config.settings);
    assert_eq!(after.observed_generation, Some(2));
    assert!(
        one.config(Half::Settings)["users"][0]
            .get("databases")
            .is_none()
    );
    stage
        .change("shop", json!({"users": [{"secretRef": {"name": "login"}}]}))
        .await
        .unwrap();
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
}

/// The Secret `mine` with another certificate, or with something else.
async fn certificate(stage: &Stage, text: Option<&str>) {
    let pair = Authority::generate().unwrap();
    let text = text.unwrap_or(&pair.certificate);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"},
        "stringData": {"tls.crt": text, "tls.key": pair.key},
    });
    let who = PatchParams::apply("tests").force();
    let secrets = stage.api::<Secret>();
    secrets
        .patch("mine", &who, &Patch::Apply(&secret))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_missing_or_wrong_changes_nothing_and_is_tried_again_when_it_is_right()
 {
    let Some(stage) = Stage::open("certificate").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let one = proxies.add(&stage, 1).await.remove(0);
    stage
        .status_when("shop", "1/1", |status| status.config.summary == "1/1")
        .await;
    let before: Deployment = stage.there("shop-proxy").await;
    let given = one.history().len();
    let tls = json!({"client": {"mode": "Require", "secretRef": "mine"}});
    stage.change("shop", json!({"tls": tls})).await.unwrap();
    let resolved = ConditionType::SecretsResolved;
    let is = async |reason: &'static str| {
        for kind in [resolved, ConditionType::TLSReady] {
            until(&format!("{kind:?} is {reason}"), || async {
                let status = stage.status("shop").await;
                let mut conditions = status.conditions.into_iter();
                let of = conditions.find(|c| c.kind == kind && c.reason == reason)?;
                (of.status == ConditionStatus::False && of.message.contains("mine")).then_some(())
            })
            .await;
        }
    };
    is("SecretNotFound").await;
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    certificate(&stage, Some("rubbish")).await;
    is("NoCertificate").await;
    let now: Deployment = stage.there("shop-proxy").await;
    assert_eq!(now.metadata.generation, before.metadata.generation);
    assert_eq!(one.history().len(), given);

    // Now it is a certificate, and its proxy says that the key is another's.
    one.refuse(Some("the key is another's"));
    certificate(&stage, None).await;
    let rolled_back = async || {
        until("it is rolled back", || async {
            let status = stage.status("shop").await;
            let mut conditions = status.conditions.iter();
            conditions
                .any(|c| c.reason == "RolledBack")
                .then_some(status)
        })
        .await
    };
    rolled_back().await;
    one.refuse(None);
    certificate(&stage, None).await;
    let synced = stage.condition("shop", ConditionType::ConfigSynced, ConditionStatus::True);
    synced.await;
    assert_eq!(
        one.config(Half::Settings)["general"]["tls_client_required"],
        true
    );
    until("new pods have it", || async {
        let now: Deployment = stage.there("shop-proxy").await;
        (now.metadata.generation > before.metadata.generation).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_cannot_be_read_says_so_itself() {
    let Some(stage) = Stage::open("unreadable").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    proxies.add(&stage, 1).await;
    stage
        .status_when("shop", "1/1", |status| status.config.summary == "1/1")
        .await;
    let odd = json!({"pod": {"env": [{"name": "A", "value": 1}]}});
    stage.change("shop", odd.clone()).await.unwrap();
    // One that nobody has ever read.
    stage.make("odd", odd).await;
    for (name, generation) in [("shop", 2), ("odd", 1)] {
        let status = until(&format!("{name} says that it cannot be read"), || async {
            let status = stage.raw().get(name).await.unwrap().data["status"].clone();
            let conditions = status["conditions"].as_array()?;
            let is = |kind: &str, so: &str| {
                conditions.iter().any(|condition| {
                    condition["type"] == kind
                        && condition["status"] == so
                        && condition["reason"] == "Unreadable"
                        && condition["observedGeneration"] == generation
                })
            };
            (is("ConfigValid", "False") && is("Degraded", "True")).then_some(status)
        })
        .await;
        assert_eq!(status["observedGeneration"], generation);
    }
    let status = stage.raw().get("shop").await.unwrap().data["status"].clone();
    assert_eq!(status["config"]["summary"], "1/1", "what was known stays");
    stage.change("shop", json!({"pod": null})).await.unwrap();
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
    stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::True)
        .await;
}

#[tokio::test]
async fn a_secret_that_goes_away_takes_no_user_out() {
    let Some(stage) = Stage::open("secret").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let one = proxies.add(&stage, 1).await.remove(0);
    let before = stage
        .status_when("shop", "1/1", |status| status.config.summary == "1/1")
        .await;
    stage
        .api::<Secret>()
        .delete("login", &DeleteParams::default())
        .await
        .unwrap();
    let missing = stage
        .condition(
            "shop",
            ConditionType::SecretsResolved,
            ConditionStatus::False,
        )
        .await;
    assert!(missing.message.contains("login"), "{}", missing.message);
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "SecretMissing");
    // Nobody has asked for anything else: what is in force is what is written.
    stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::True)
        .await;
    assert_eq!(
        stage.status("shop").await.config.settings.hash,
        before.config.settings.hash
    );
    assert_eq!(one.config(Half::Settings)["users"][0]["password"], "secret");
    // A proxy that comes now has the user too.
    let late = proxies.add(&stage, 1).await.remove(0);
    stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    assert_eq!(
        late.config(Half::Settings)["users"][0]["password"],
        "secret"
    );
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 17}}))
        .await
        .unwrap();
    let synced = stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::False)
        .await;
    assert_eq!(synced.reason, "NotRendered");
    // With another password it is back: the former one is accepted for a while.
    stage.login("login", "another").await;
    stage
        .condition(
            "shop",
            ConditionType::SecretsResolved,
            ConditionStatus::True,
        )
        .await;
    until("both passwords are accepted", || async {
        let user = late.config(Half::Settings)["users"][0].clone();
        (user["password"] == "another" && user["passwords"] == json!(["secret"])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_primary_reaches_every_proxy_and_hosts_that_vanish_empty_no_topology() {
    let Some(stage) = Stage::open("hosts").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of("shop").await;
    stage.login("login", "secret").await;
    instance(&stage, "db-0", "primary", "10.9.0.1").await;
    instance(&stage, "db-1", "replica", "10.9.0.2").await;
    stage
        .make(
            "shop",
            json!({"admin": {"port": proxies.port()}, "source": cnpg()}),
        )
        .await;
    let all = proxies.add(&stage, 3).await;
    let before = stage
        .status_when("shop", "3/3", |status| status.config.summary == "3/3")
        .await;
    assert_eq!(before.endpoints.primary_summary, "db-0");
    stage
        .condition(
            "shop",
            ConditionType::EndpointsResolved,
            ConditionStatus::True,
        )
        .await;

    relabel(&stage, "db-0", "replica").await;
    relabel(&stage, "db-1", "primary").await;
    let pair = |address: &str, role: &str| (address.to_owned(), role.to_owned());
    let wanted = [pair("10.9.0.1", "replica"), pair("10.9.0.2", "primary")];
    for proxy in &all {
        until("it knows the other primary", || async {
            (hosts(&proxy.config(Half::Topology)) == wanted).then_some(())
        })
        .await;
    }
    let after = stage
        .status_when("shop", "the status names it", |status| {
            status.endpoints.primary_summary == "db-1" && status.config.summary == "3/3"
        })
        .await;
    assert!(after.endpoints.last_failover_time.is_some());
    assert_eq!(
        after.config.settings, before.config.settings,
        "settings have nothing to do with it"
    );

    let now = DeleteParams::default().grace_period(0);
    for name in ["db-0", "db-1"] {
        stage.api::<Pod>().delete(name, &now).await.unwrap();
    }
    let gone = stage
        .condition(
            "shop",
            ConditionType::EndpointsResolved,
            ConditionStatus::False,
        )
        .await;
    assert!(gone.message.contains("db"), "{}", gone.message);
    for proxy in &all {
        assert!(proxy.history().iter().all(|taken| !taken.sha256.is_empty()));
        assert!(
            !hosts(&proxy.config(Half::Topology)).is_empty(),
            "an empty topology"
        );
    }
    let late = proxies.add(&stage, 1).await.remove(0);
    stage
        .status_when("shop", "4/4", |status| status.config.summary == "4/4")
        .await;
    assert!(
        !hosts(&late.config(Half::Topology)).is_empty(),
        "an empty topology"
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_holds_up_nobody_and_is_named() {
    let Some(stage) = Stage::open("silent").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 2).await;
    stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    let labels = json!({"app.kubernetes.io/name": "pgdog", "pgdog.dev/cluster": "shop"});
    stage.pod("shop-0000-silent", &labels, "127.77.0.1").await;
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 14}}))
        .await
        .unwrap();
    let status = stage
        .status_when("shop", "2/3 have the change", |status| {
            status.config.summary == "2/3"
                && status.config.settings.acked == 2
                && status.observed_generation == Some(2)
        })
        .await;
    for proxy in &all {
        assert_eq!(
            proxy.config(Half::Settings)["general"]["default_pool_size"],
            14
        );
    }
    let named = stage
        .status_when("shop", "the silent one is named", |status| {
            status
                .config
                .out_of_sync
                .iter()
                .any(|one| one.pod == "shop-0000-silent")
        })
        .await;
    assert_eq!(
        named.config.settings.revision,
        status.config.settings.revision
    );
}

#[tokio::test]
async fn a_proxy_that_does_not_run_is_told_with_the_reason() {
    let Some(stage) = Stage::open("standstill").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    proxies.add(&stage, 1).await;
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
    let labels = json!({"app.kubernetes.io/name": "pgdog", "pgdog.dev/cluster": "shop"});
    stage.pod("shop-proxy-stuck", &labels, "127.99.99.99").await;
    let pods = stage.api::<Pod>();
    let stand = async |status: Value| {
        let status = Patch::Merge(json!({"status": status}));
        pods.patch_status("shop-proxy-stuck", &PatchParams::default(), &status)
            .await
            .unwrap();
    };
    let place = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available",
    });
    stand(json!({
        "phase": "Pending", "conditions": [place], "containerStatuses": null, "podIP": null, "podIPs": null,
    }))
    .await;
    let waits = |kind: ConditionType, words: &'static str| {
        let stage = &stage;
        async move {
            stage
                .status_when("shop", words, |status| {
                    let mut conditions = status.conditions.iter();
                    conditions.any(|c| {
                        c.kind == kind
                            && c.status == ConditionStatus::True
                            && c.message.contains(words)
                    })
                })
                .await
        }
    };
    let status = waits(ConditionType::Progressing, "Unschedulable: 0/1 nodes").await;
    let told = &status.config.out_of_sync[0].message;
    assert_eq!(told, "Unschedulable: 0/1 nodes are available");
    let ended = json!({"exitCode": 1, "reason": "Error", "message": "no such option"});
    let container = json!({
        "name": "pgdog", "image": "", "imageID": "", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended},
    });
    stand(json!({"conditions": null, "containerStatuses": [container]})).await;
    let words = "shop-proxy-stuck: CrashLoopBackOff: no such option";
    let status = waits(ConditionType::Degraded, words).await;
    let mut conditions = status.conditions.iter();
    assert!(conditions.any(|c| c.reason == "ProxiesFailing"));
    let told = &status.config.out_of_sync[0].message;
    assert_eq!(told, "CrashLoopBackOff: no such option");
}

#[tokio::test]
async fn a_proxy_that_was_replaced_is_given_everything() {
    let Some(stage) = Stage::open("replaced").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 2).await;
    stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    proxies.remove(&stage, &all[0]).await;
    stage
        .status_when("shop", "1/1", |status| status.config.summary == "1/1")
        .await;
    let new = proxies.add(&stage, 1).await.remove(0);
    let status = stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    let revision = |half| {
        new.version(half)
            .map(|version| i64::try_from(version.revision).unwrap())
    };
    assert_eq!(
        revision(Half::Settings),
        Some(status.config.settings.revision)
    );
    assert_eq!(
        revision(Half::Topology),
        Some(status.config.topology.revision)
    );
    let peers = new.config(Half::Topology)["peers"].clone();
    let uids: Vec<_> = peers
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["pod_uid"].clone())
        .collect();
    let pod = stage.api::<Pod>().get(&new.pod).await.unwrap();
    assert!(uids.contains(&json!(pod.uid().unwrap())), "{peers}");
}

/// The shards that a proxy knows.
fn shards(proxy: &Proxy) -> Vec<u64> {
    let topology = proxy.config(Half::Topology);
    let hosts = topology["databases"].as_array().into_iter().flatten();
    hosts.filter_map(|host| host["shard"].as_u64()).collect()
}

fn sharded(count: u64) -> Value {
    let shard = |number: u64| {
        let hosts = json!([{"host": format!("db{number}.example"), "role": "primary"}]);
        json!({"number": number, "source": {"provider": "Static", "hosts": hosts}})
    };
    json!({"shards": (0..count).map(shard).collect::<Vec<_>>()})
}

#[tokio::test]
async fn other_shards_come_to_all_proxies_or_to_none() {
    let Some(stage) = Stage::open("shards").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of("shop").await;
    stage.login("login", "secret").await;
    let mut spec = sharded(1);
    spec["admin"] = json!({"port": proxies.port()});
    stage.make("shop", spec).await;
    let all = proxies.add(&stage, 3).await;
    stage
        .status_when("shop", "3/3", |status| status.config.summary == "3/3")
        .await;
    all[1].keep_busy(true);
    stage.change("shop", sharded(2)).await.unwrap();
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "ShardingHeld", "{}", degraded.message);
    assert!(
        degraded.message.contains(&all[1].pod),
        "{}",
        degraded.message
    );
    for proxy in &all {
        assert_eq!(shards(proxy), [0], "{} alone has others", proxy.pod);
        assert!(!proxy.is_prepared(), "{} holds its clients", proxy.pod);
    }
    // Who starts now has what the others have.
    let snapshot = stage.api::<Secret>().get("shop-config").await.unwrap();
    let snapshot = snapshot.data.unwrap();
    let topology: Value = serde_json::from_slice(&snapshot["topology.json"].0).unwrap();
    assert_eq!(topology["databases"].as_array().unwrap().len(), 1);

    let synced = stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::False)
        .await;
    assert_eq!(synced.reason, "Sharding", "{}", synced.message);
    // A failover does not wait for the new shards.
    let mut spec = sharded(2);
    spec["shards"][0]["source"]["hosts"][0]["host"] = "elsewhere.example".into();
    stage.change("shop", spec).await.unwrap();
    until("all know the other host", || async {
        let knows =
            |proxy: &Proxy| hosts(&proxy.config(Half::Topology))[0].0 == "elsewhere.example";
        all.iter().all(|proxy| knows(proxy)).then_some(())
    })
    .await;
    for proxy in &all {
        assert_eq!(shards(proxy), [0], "{} alone has others", proxy.pod);
    }

    // One of them does not do what it has promised: the others go back.
    let before = all[0].version(Half::Topology).unwrap();
    all[1].be_hasty(true);
    all[1].keep_busy(false);
    let again = |team: &str| json!({"service": {"labels": {"team": team}}});
    stage.change("shop", again("one")).await.unwrap();
    until("all are back", || async {
        let status = stage.status("shop").await;
        let mut degraded = status.conditions.iter();
        let told = degraded.any(|c| c.message.contains("it is not prepared"));
        (told && status.config.summary == "3/3").then_some(())
    })
    .await;
    for proxy in &all {
        assert_eq!(shards(proxy), [0], "{} alone has others", proxy.pod);
        let later = proxy.version(Half::Topology).unwrap().revision - before.revision;
        assert!(
            later >= 2,
            "one for the others, one for the way back: {later}"
        );
    }

    all[1].be_hasty(false);
    stage.change("shop", again("two")).await.unwrap();
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
    stage
        .status_when("shop", "3/3 of the change", |status| {
            status.config.summary == "3/3"
        })
        .await;
    for proxy in &all {
        assert_eq!(shards(proxy), [0, 1]);
    }
    until("the snapshot has them", || async {
        let snapshot = stage.api::<Secret>().get("shop-config").await.ok()?;
        let topology: Value =
            serde_json::from_slice(&snapshot.data?.get("topology.json")?.0).ok()?;
        (topology["databases"].as_array()?.len() == 2).then_some(())
    })
    .await;

    // A proxy that comes later has them as well, and is not left waiting for a word.
    let late = proxies.add(&stage, 1).await;
    stage
        .status_when("shop", "4/4", |status| status.config.summary == "4/4")
        .await;
    assert_eq!(shards(&late[0]), [0, 1]);
    // Another host of a shard is no other shard: nobody is held up for it.
    let before = all[0].version(Half::Topology).unwrap();
    let mut spec = sharded(2);
    spec["shards"][1]["source"]["hosts"][0]["host"] = "other.example".into();
    all[1].keep_busy(true);
    stage.change("shop", spec).await.unwrap();
    until("all know the other host", || async {
        let knows = |proxy: &Proxy| hosts(&proxy.config(Half::Topology))[1].0 == "other.example";
        all.iter().all(|proxy| knows(proxy)).then_some(())
    })
    .await;
    assert!(all[0].version(Half::Topology).unwrap() > before);
}

#[tokio::test]
async fn what_the_proxies_find_of_postgres_is_in_the_status() {
    const HOST: &str = "db.example:5432";
    let Some(stage) = Stage::open("found").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 2).await;
    for proxy in &all {
        proxy.find(HOST, HostRole::Primary, Some("name cannot be resolved"));
    }
    let (resolved, available) = (ConditionType::EndpointsResolved, ConditionType::Available);
    let told = stage
        .condition("shop", resolved, ConditionStatus::False)
        .await;
    assert_eq!(told.reason, "NoPrimary");
    assert!(
        told.message.contains("db.example: name cannot be resolved"),
        "{}",
        told.message
    );
    let told = stage
        .condition("shop", available, ConditionStatus::False)
        .await;
    assert_eq!(told.reason, "WaitingForPrimary");
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    for proxy in &all {
        proxy.find(HOST, HostRole::Primary, None);
    }
    stage
        .condition("shop", available, ConditionStatus::True)
        .await;
    stage
        .condition("shop", resolved, ConditionStatus::True)
        .await;
    let status = stage.status("shop").await;
    assert_eq!(status.endpoints.primary_summary, "db.example");
    for proxy in &all {
        proxy.find(HOST, HostRole::Split, None);
    }
    let told = stage
        .condition("shop", resolved, ConditionStatus::False)
        .await;
    assert_eq!(told.reason, "SplitBrain");
}

#[tokio::test]
async fn a_pause_ends_though_a_proxy_is_silent_and_something_else_cannot_be_made() {
    let Some(stage) = Stage::open("resumed").await else {
        return;
    };
    let theirs = json!({"metadata": {"name": "shop"}, "spec": {"ports": [{"port": 80}]}});
    stage.create::<Service>(theirs).await;
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 2).await;
    stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    let trouble = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(trouble.reason, "InvalidOwnership");

    // One of them has a transaction that does not end: neither is paused for long.
    all[1].keep_busy(true);
    stage.change("shop", json!({"paused": true})).await.unwrap();
    until("it was tried", || async {
        let status = stage.status("shop").await;
        let paused = status.conditions.into_iter();
        let paused = paused.filter(|c| c.kind == ConditionType::Paused);
        paused.into_iter().find(|c| c.reason == "PauseFailed")
    })
    .await;
    assert!(!all[0].is_paused() && !all[1].is_paused());
    all[1].keep_busy(false);
    stage
        .condition("shop", ConditionType::Paused, ConditionStatus::True)
        .await;
    assert!(all.iter().all(|proxy| proxy.is_paused()));

    proxies.cut(&all[1]);
    stage
        .change("shop", json!({"paused": false}))
        .await
        .unwrap();
    until("the other's clients go on", || async {
        (!all[0].is_paused()).then_some(())
    })
    .await;
    stage
        .condition("shop", ConditionType::Paused, ConditionStatus::False)
        .await;
}
