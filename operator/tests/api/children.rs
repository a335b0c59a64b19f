//! From a PgDogCluster to its children, by the operator as a process; and what others do to them meanwhile.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pgdog_config::api::Half;
use pgdog_operator::render::monitor::PodMonitor;
use pgdog_operator_api::{Condition, ConditionStatus, ConditionType, PgDogCluster};
use serde_json::{Value, json};

use crate::harness::operator::{IMAGE, Operator};
use crate::harness::proxies::Proxies;
use crate::harness::stage::{Stage, until};
use crate::operator;

/// The reasons of the Events of a PgDogCluster.
async fn events(stage: &Stage, name: &str) -> Vec<String> {
    let events = stage
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let of = events
        .items
        .into_iter()
        .filter(|event| event.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name));
    of.filter_map(|event| event.reason).collect()
}

async fn event(stage: &Stage, name: &str, reason: &str) {
    until(&format!("an Event {reason}"), || async {
        events(stage, name)
            .await
            .iter()
            .any(|one| one == reason)
            .then_some(())
    })
    .await;
}

/// Changes a Deployment as somebody else.
async fn meddle(stage: &Stage, name: &str, patch: Value) {
    let who = PatchParams {
        field_manager: Some("somebody".to_owned()),
        ..PatchParams::default()
    };
    stage
        .api::<Deployment>()
        .patch(name, &who, &Patch::Merge(patch))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_resource_becomes_children_that_it_owns_a_status_and_events() {
    let Some(stage) = Stage::open("children").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of("shop").await;
    stage
        .make("shop", json!({"admin": {"port": proxies.port()}}))
        .await;
    stage
        .condition(
            "shop",
            ConditionType::SecretsResolved,
            ConditionStatus::False,
        )
        .await;
    assert!(
        stage
            .api::<Deployment>()
            .get_opt("shop-proxy")
            .await
            .unwrap()
            .is_none(),
        "without a configuration"
    );
    stage.login("login", "secret").await;

    let deployment: Deployment = stage.there("shop-proxy").await;
    let service: Service = stage.there("shop").await;
    let budget: PodDisruptionBudget = stage.there("shop-proxy").await;
    let account: ServiceAccount = stage.there("shop-proxy").await;
    let uid = stage
        .api::<PgDogCluster>()
        .get("shop")
        .await
        .unwrap()
        .uid()
        .unwrap();
    let mut owners = vec![
        deployment.owner_references().to_vec(),
        service.owner_references().to_vec(),
        budget.owner_references().to_vec(),
        account.owner_references().to_vec(),
    ];
    for name in ["shop-config", "shop-admin-tls", "shop-client-tls"] {
        let secret: Secret = stage.there(name).await;
        owners.push(secret.owner_references().to_vec());
    }
    for of in owners {
        assert_eq!(of.len(), 1, "{of:?}");
        assert_eq!(
            (of[0].uid.as_str(), of[0].controller),
            (uid.as_str(), Some(true))
        );
    }
    let spec = deployment.spec.unwrap();
    assert_eq!(spec.replicas, Some(2));
    assert_eq!(
        spec.template.spec.unwrap().containers[0].image.as_deref(),
        Some(IMAGE)
    );
    assert_eq!(account.automount_service_account_token, Some(false));

    let none = stage
        .condition("shop", ConditionType::Available, ConditionStatus::False)
        .await;
    assert_eq!(none.reason, "NoReadyReplicas");
    let two = proxies.add(&stage, 2).await;
    stage
        .condition("shop", ConditionType::Available, ConditionStatus::True)
        .await;
    stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::True)
        .await;
    let status = stage.status("shop").await;
    assert_eq!(status.observed_generation, Some(1));
    assert_eq!(status.config.summary, "2/2");
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.updated_replicas
        ),
        (2, 2, 2)
    );
    assert_eq!(status.endpoints.primary_summary, "db.example");
    assert_eq!(status.secrets.len(), 1, "{:?}", status.secrets);
    for proxy in &two {
        assert_eq!(
            proxy.config(Half::Settings)["users"][0]["password"],
            "secret"
        );
        assert_eq!(
            proxy.config(Half::Topology)["databases"][0]["host"],
            "db.example"
        );
        assert_eq!(
            proxy.config(Half::Topology)["peers"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }
    event(&stage, "shop", "AvailableReady").await;
    event(&stage, "shop", "SecretsResolvedSecretNotFound").await;
    event(&stage, "shop", "SecretsResolvedResolved").await;
}

#[tokio::test]
async fn another_message_is_another_event_and_none_is_without_words() {
    let Some(stage) = Stage::open("words").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let proxies = Proxies::of_shop(&stage).await;
    for gone in ["first", "second"] {
        let users = json!([{"secretRef": {"name": gone}}]);
        stage.change("shop", json!({"users": users})).await.unwrap();
        until(&format!("an Event about {gone}"), || async {
            let events = stage.api::<Event>().list(&ListParams::default()).await;
            let events = events.unwrap().items;
            assert!(events.iter().all(|event| event.note.is_some()));
            events
                .iter()
                .any(|event| {
                    event.reason.as_deref() == Some("SecretsResolvedSecretNotFound")
                        && event.note.as_ref().is_some_and(|note| note.contains(gone))
                })
                .then_some(())
        })
        .await;
        let users = json!([{"secretRef": {"name": "login"}}]);
        stage.change("shop", json!({"users": users})).await.unwrap();
        stage
            .condition(
                "shop",
                ConditionType::SecretsResolved,
                ConditionStatus::True,
            )
            .await;
    }
    drop(proxies);
}

#[tokio::test]
async fn fields_of_others_stay_and_ours_are_put_right() {
    let Some(stage) = Stage::open("fields").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage
        .make("shop", json!({"autoscaling": {"maxReplicas": 8}}))
        .await;
    stage.there::<HorizontalPodAutoscaler>("shop-proxy").await;
    stage.there::<Deployment>("shop-proxy").await;
    let foreign = json!({"metadata": {"annotations": {"example.com/note": "kept"}}, "spec": {
        "minReadySeconds": 3, "revisionHistoryLimit": 9,
    }});
    meddle(&stage, "shop-proxy", foreign).await;

    // The autoscaler asks for more, by the scale of the resource; so the Deployment is applied again.
    let chosen = Patch::Merge(json!({"spec": {"replicas": 5}}));
    stage
        .raw()
        .patch_scale("shop", &PatchParams::default(), &chosen)
        .await
        .unwrap();
    let deployment = until("the Deployment follows the autoscaler", || async {
        let deployment = stage.api::<Deployment>().get("shop-proxy").await.unwrap();
        (deployment.spec.as_ref()?.replicas == Some(5)).then_some(deployment)
    })
    .await;
    assert_eq!(deployment.annotations()["example.com/note"], "kept");
    let spec = deployment.spec.unwrap();
    assert_eq!(spec.min_ready_seconds, Some(3), "nobody else sets it");
    assert_eq!(spec.revision_history_limit, Some(3), "it is ours");
    let resource = stage.raw().get("shop").await.unwrap();
    assert_eq!(
        resource.data["spec"]["replicas"], 5,
        "the operator never writes a spec"
    );

    // Children that are wanted no more go.
    stage
        .change(
            "shop",
            json!({"autoscaling": null, "pdb": {"enabled": false}}),
        )
        .await
        .unwrap();
    until("autoscaler and disruption budget are gone", || async {
        let autoscaler = stage
            .api::<HorizontalPodAutoscaler>()
            .get_opt("shop-proxy")
            .await
            .unwrap();
        let budget = stage
            .api::<PodDisruptionBudget>()
            .get_opt("shop-proxy")
            .await
            .unwrap();
        (autoscaler.is_none() && budget.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_somebody_deletes_is_put_back() {
    let Some(stage) = Stage::open("deleted").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage.make("shop", json!({})).await;
    let service: Service = stage.there("shop").await;
    let config: Secret = stage.there("shop-config").await;
    let admin: Secret = stage.there("shop-admin-tls").await;
    let now = DeleteParams::default();
    stage.api::<Service>().delete("shop", &now).await.unwrap();
    stage
        .api::<Secret>()
        .delete("shop-config", &now)
        .await
        .unwrap();
    stage
        .api::<Secret>()
        .delete("shop-admin-tls", &now)
        .await
        .unwrap();
    let again: Secret = stage.there("shop-config").await;
    assert_ne!(again.uid(), config.uid());
    assert_eq!(
        again.data.unwrap()["topology.json"],
        config.data.unwrap()["topology.json"]
    );
    assert_ne!(stage.there::<Service>("shop").await.uid(), service.uid());
    assert_ne!(
        stage.there::<Secret>("shop-admin-tls").await.uid(),
        admin.uid()
    );
}

#[tokio::test]
async fn a_deployment_that_somebody_changes_or_deletes_is_put_right_at_once() {
    let Some(stage) = Stage::open("changed").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage.make("shop", json!({})).await;
    let deployments = stage.api::<Deployment>();
    let made: Deployment = stage.there("shop-proxy").await;
    let history = |deployment: &Deployment| {
        let spec = deployment.spec.as_ref();
        spec.and_then(|spec| spec.revision_history_limit)
    };
    let change = async |limit: u32| {
        let theirs = Patch::Merge(json!({"spec": {"revisionHistoryLimit": limit}}));
        let params = PatchParams::default();
        let changed = deployments.patch("shop-proxy", &params, &theirs);
        changed.await.unwrap()
    };
    let mut limits = 70..;
    change(limits.next().unwrap()).await;
    let begun = Instant::now();
    let right = until("the Deployment is as it was", || {
        let limit = limits.next().unwrap();
        let (deployments, change, made) = (&deployments, &change, &made);
        async move {
            let now = deployments.get("shop-proxy").await.unwrap();
            if history(&now) == history(made) {
                return Some(now);
            }
            // A change right behind one of ours is not answered at once.
            change(limit).await;
            None
        }
    });
    assert_eq!(right.await.uid(), made.uid());
    deployments
        .delete("shop-proxy", &DeleteParams::default())
        .await
        .unwrap();
    let again: Deployment = stage.there("shop-proxy").await;
    assert_ne!(again.uid(), made.uid());
    assert!(begun.elapsed() < Duration::from_secs(20), "not at once");
}

#[tokio::test]
async fn a_foreign_service_of_our_name_is_not_overwritten() {
    let Some(stage) = Stage::open("foreign").await else {
        return;
    };
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "labels": {"team": "other"}},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
    });
    let before: Service = stage.create(foreign).await;
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage.make("shop", json!({})).await;
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "InvalidOwnership");
    assert!(degraded.message.contains("Service"), "{}", degraded.message);
    event(&stage, "shop", "DegradedInvalidOwnership").await;
    let after = stage.api::<Service>().get("shop").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    stage.there::<Deployment>("shop-proxy").await;

    stage
        .api::<Service>()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    let ours: Service = stage.there("shop").await;
    assert_eq!(ours.owner_references().len(), 1);
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
}

#[tokio::test]
async fn a_foreign_secret_of_our_name_is_neither_overwritten_nor_mounted() {
    let Some(stage) = Stage::open("foreign-secret").await else {
        return;
    };
    let foreign = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-config"},
        "stringData": {"settings.json": "{}", "theirs": "yes"},
    });
    let before: Secret = stage.create(foreign).await;
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage.make("shop", json!({})).await;
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "InvalidOwnership");
    assert!(degraded.message.contains("Secret/shop-config"));
    let after = stage.api::<Secret>().get("shop-config").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
    let deployment = stage.api::<Deployment>().get_opt("shop-proxy").await;
    assert!(deployment.unwrap().is_none(), "its pods would mount it");

    stage
        .api::<Secret>()
        .delete("shop-config", &DeleteParams::default())
        .await
        .unwrap();
    stage.there::<Deployment>("shop-proxy").await;
    let ready = stage
        .condition("shop", ConditionType::TLSReady, ConditionStatus::True)
        .await;
    assert_eq!(ready.reason, "Valid");
}

#[tokio::test]
async fn a_stopped_cluster_has_no_proxy_and_a_frozen_one_is_left_alone() {
    let Some(stage) = Stage::open("switches").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage.make("shop", json!({})).await;
    stage.there::<Service>("shop").await;
    stage
        .change(
            "shop",
            json!({"operation": {"reconciliationPaused": true}, "replicas": 4}),
        )
        .await
        .unwrap();
    stage
        .condition(
            "shop",
            ConditionType::ReconciliationPaused,
            ConditionStatus::True,
        )
        .await;
    let deployment = stage.api::<Deployment>().get("shop-proxy").await.unwrap();
    assert_eq!(
        deployment.spec.unwrap().replicas,
        Some(2),
        "it was to be left alone"
    );
    stage
        .change(
            "shop",
            json!({"operation": {"reconciliationPaused": false, "stopped": true}}),
        )
        .await
        .unwrap();
    until("there are no proxies", || async {
        let deployment = stage.api::<Deployment>().get("shop-proxy").await.unwrap();
        (deployment.spec.unwrap().replicas == Some(0)).then_some(())
    })
    .await;
    let stopped = stage
        .condition("shop", ConditionType::Available, ConditionStatus::False)
        .await;
    assert_eq!(stopped.reason, "Stopped");
}

#[tokio::test]
async fn nothing_is_made_again_for_a_resource_that_is_deleted() {
    let Some(stage) = Stage::open("gone").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let one = proxies.add(&stage, 1).await.remove(0);
    stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::True)
        .await;
    stage
        .raw()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    until("the resource is gone", || async {
        stage
            .raw()
            .get_opt("shop")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    // The garbage collector, of which there is none here, would take the children; somebody takes one of them.
    stage
        .api::<Service>()
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    let given = one.history().len();
    stage.login("login", "another").await;
    // When the operator has done something later, it has seen all of this.
    stage.make("later", json!({})).await;
    stage.there::<Service>("later").await;
    assert!(
        stage
            .api::<Service>()
            .get_opt("shop")
            .await
            .unwrap()
            .is_none(),
        "it was made again"
    );
    assert_eq!(
        one.history().len(),
        given,
        "a proxy of nobody was given something"
    );
}

/// A kind that another operator brings.
async fn define_pod_monitors(stage: &Stage) {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "podmonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": any}}],
        },
    });
    let api: Api<CustomResourceDefinition> = Api::all(stage.raw().into_client());
    api.create(
        &PostParams::default(),
        &serde_json::from_value(crd).unwrap(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_pod_monitor_waits_for_its_kind_and_holds_nothing_up() {
    let Some(stage) = Stage::open("monitor").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    stage
        .make(
            "shop",
            json!({"monitoring": {"podMonitor": {"enabled": true}}}),
        )
        .await;
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "NoSuchKind", "{}", degraded.message);
    assert!(
        degraded
            .message
            .starts_with("PodMonitor/shop-proxy cannot be made"),
        "{}",
        degraded.message
    );
    stage.there::<Service>("shop").await;

    define_pod_monitors(&stage).await;
    let monitor = until("the PodMonitor is there", || async {
        // The API server serves a new kind a moment after it has taken it.
        stage.api::<PodMonitor>().get("shop-proxy").await.ok()
    })
    .await;
    assert_eq!(monitor.owner_references().len(), 1);
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
    let off = json!({"monitoring": {"podMonitor": {"enabled": false}}});
    stage.change("shop", off).await.unwrap();
    until("the PodMonitor is gone", || async {
        let there = stage.api::<PodMonitor>().get_opt("shop-proxy").await;
        there.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_template_that_does_not_fit_leaves_the_pods_as_they_are() {
    let Some(stage) = Stage::open("template").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    stage.login("login", "secret").await;
    let template = json!({"spec": {"schedulerName": "own"}});
    stage
        .make("shop", json!({"pod": {"template": template}}))
        .await;
    let deployment: Deployment = stage.there("shop-proxy").await;
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.scheduler_name.as_deref(), Some("own"));

    let wrong = json!({"pod": {"template": {"spec": {"schedulerNam": "other"}}}});
    stage.change("shop", wrong).await.unwrap();
    let invalid = stage
        .condition("shop", ConditionType::ConfigValid, ConditionStatus::False)
        .await;
    assert!(
        invalid
            .message
            .contains("spec.pod.template.spec.schedulerNam: is no field of a pod's template"),
        "{}",
        invalid.message
    );
    let now = stage.api::<Deployment>().get("shop-proxy").await.unwrap();
    assert_eq!(now.metadata.generation, deployment.metadata.generation);

    let good =
        json!({"pod": {"template": {"spec": {"schedulerNam": null, "schedulerName": "third"}}}});
    stage.change("shop", good).await.unwrap();
    until("the Deployment has the third", || async {
        let now = stage.api::<Deployment>().get("shop-proxy").await.unwrap();
        let pod = now.spec?.template.spec?;
        (pod.scheduler_name.as_deref() == Some("third")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reads_stay_in_a_zone_only_where_pods_know_theirs() {
    let Some(stage) = Stage::open("zones").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of("shop").await;
    stage.login("login", "secret").await;
    let host = |name: &str, zone: &str| json!({"host": name, "zone": zone});
    stage
        .make(
            "shop",
            json!({
                "admin": {"port": proxies.port()},
                "routing": {"preferSameZone": true},
                "source": {"provider": "Static", "hosts": [host("a.example", "a"), host("b.example", "b")]},
            }),
        )
        .await;
    let one = proxies.add(&stage, 1).await;
    let degraded = stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True)
        .await;
    assert_eq!(degraded.reason, "ZoneUnknown", "{}", degraded.message);
    let label = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}});
    stage
        .api::<Pod>()
        .patch(&one[0].pod, &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::False)
        .await;
    stage
        .condition("shop", ConditionType::ConfigSynced, ConditionStatus::True)
        .await;
    let databases = one[0].config(Half::Topology)["databases"].clone();
    let zones: Vec<_> = databases
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["zone"])
        .collect();
    assert_eq!(zones, ["a", "b"]);
}

#[tokio::test]
async fn pods_of_a_former_template_are_told_of_whatever_has_changed_in_it() {
    let Some(stage) = Stage::open("rolled").await else {
        return;
    };
    let _operator = Operator::start(operator(), &stage, "one").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    proxies.add(&stage, 2).await;
    stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    let deployments = stage.api::<Deployment>();
    // As the controller of Deployments would say it.
    let rolled = async |count: i32| {
        let deployment = deployments.get("shop-proxy").await.unwrap();
        let status = json!({"status": {
            "observedGeneration": deployment.metadata.generation,
            "replicas": 2, "updatedReplicas": count,
        }});
        let patch = Patch::Merge(status);
        let params = PatchParams::default();
        let patched = deployments.patch_status("shop-proxy", &params, &patch);
        patched.await.unwrap();
    };
    rolled(1).await;
    let told = stage
        .status_when("shop", "1 updated", |status| status.updated_replicas == 1)
        .await;
    let progressing = |c: &&Condition| c.kind == ConditionType::Progressing;
    let progressing = told.conditions.iter().find(progressing).unwrap();
    assert_eq!(progressing.reason, "RollingOut", "{}", progressing.message);
    rolled(2).await;
    stage
        .condition("shop", ConditionType::Progressing, ConditionStatus::False)
        .await;
    assert_eq!(stage.status("shop").await.updated_replicas, 2);
}
