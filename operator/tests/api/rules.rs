//! What the API server itself refuses, and what it adds: the rules and defaults of the custom resource definition.

use std::collections::BTreeSet;

use kube::api::{DynamicObject, PostParams};
use pgdog_operator_api::crd;
use serde_json::{Value, json};

use crate::harness::stage::{Stage, complete};

/// A host of a Postgres outside of Kubernetes.
fn fixed() -> Value {
    json!({"provider": "Static", "hosts": [{"host": "db.example"}]})
}

/// Specs that are refused, with words of the refusal, each beside one that is like it and is taken.
#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<(&'static str, Value, Value)> {
    let source = |source: Value| json!({"source": source});
    let cnpg = json!({"provider": "CloudNativePG", "clusterRef": {"name": "db"}});
    let verify = |ca: Option<&str>| {
        let client = json!({"mode": "VerifyClient", "caSecretRef": ca});
        json!({"tls": {"client": without_nulls(client)}})
    };
    let by_certificate = |server: Value| json!({"users": [{"name": "app", "serverLogin": "Certificate"}], "tls": {"server": server}});
    vec![
        (
            "either source, or one source",
            json!({"source": fixed(), "shards": [{"number": 0, "source": fixed()}]}),
            json!({"shards": [{"number": 0, "source": fixed()}, {"number": 1, "source": fixed()}]}),
        ),
        (
            "are for mode Deployment",
            json!({"mode": "Sidecar", "replicas": 3}),
            json!({"mode": "Sidecar"}),
        ),
        (
            "are for mode Deployment",
            json!({"mode": "Sidecar", "service": {}}),
            json!({"mode": "Deployment", "service": {}}),
        ),
        (
            "sidecar is for mode Sidecar",
            json!({"sidecar": {}}),
            json!({"mode": "Sidecar", "sidecar": {}}),
        ),
        (
            "autoscaling.minReplicas is above",
            json!({"autoscaling": {"minReplicas": 5, "maxReplicas": 4}}),
            json!({"autoscaling": {"minReplicas": 4, "maxReplicas": 4}}),
        ),
        (
            "terminationGracePeriodSeconds must be",
            json!({"pod": {"terminationGracePeriodSeconds": 69}}),
            json!({"pod": {"terminationGracePeriodSeconds": 70}}),
        ),
        (
            "terminationGracePeriodSeconds must be",
            json!({"drain": {"preStopSleep": "3s", "timeout": "1m"}, "pod": {"terminationGracePeriodSeconds": 67}}),
            json!({"drain": {"preStopSleep": "3s", "timeout": "1m"}, "pod": {"terminationGracePeriodSeconds": 68}}),
        ),
        (
            "service.targetPort (6432 where it is not set), admin.port and monitoring.port must differ",
            json!({"service": {"targetPort": 6433}}),
            json!({"service": {"targetPort": 6433}, "admin": {"port": 6434}}),
        ),
        (
            "service.targetPort (6432 where it is not set), admin.port and monitoring.port must differ",
            json!({"admin": {"port": 6432}}),
            json!({"admin": {"port": 6432}, "service": {"targetPort": 6434}}),
        ),
        (
            "sidecar.port (6432 where it is not set), admin.port and monitoring.port must differ",
            json!({"mode": "Sidecar", "monitoring": {"port": 6432}}),
            json!({"mode": "Sidecar", "monitoring": {"port": 6432}, "sidecar": {"port": 6434}}),
        ),
        (
            "admin.port and monitoring.port must differ",
            json!({"admin": {"port": 9090}}),
            json!({"admin": {"port": 9090}, "monitoring": {"port": 9091}}),
        ),
        (
            "serverLogin Certificate needs tls.server.clientSecretRef",
            by_certificate(json!({})),
            by_certificate(json!({"clientSecretRef": "own"})),
        ),
        (
            "serverLogin Certificate needs tls.server.clientSecretRef",
            by_certificate(json!({"clientSecretRef": "own", "mode": "disabled"})),
            by_certificate(json!({"clientSecretRef": "own", "mode": "verify_ca"})),
        ),
        (
            "clusterRef is for the providers",
            source(json!({"provider": "Zalando"})),
            source(json!({"provider": "Zalando", "clusterRef": {"name": "db"}})),
        ),
        (
            "clusterRef is for the providers",
            source(
                json!({"provider": "Static", "hosts": [{"host": "x"}], "clusterRef": {"name": "db"}}),
            ),
            source(fixed()),
        ),
        (
            "hosts and uriSecretRef are for provider Static",
            source(
                json!({"provider": "CloudNativePG", "clusterRef": {"name": "db"}, "hosts": [{"host": "x"}]}),
            ),
            source(cnpg),
        ),
        (
            "either hosts or uriSecretRef",
            source(json!({"provider": "Static"})),
            source(json!({"provider": "Static", "uriSecretRef": {"name": "uri"}})),
        ),
        (
            "either hosts or uriSecretRef",
            source(
                json!({"provider": "Static", "hosts": [{"host": "x"}], "uriSecretRef": {"name": "uri"}}),
            ),
            source(fixed()),
        ),
        (
            "services is for provider Service",
            source(json!({"provider": "Service"})),
            source(json!({"provider": "Service", "services": [{"name": "db"}]})),
        ),
        (
            "selector is for provider Patroni",
            source(json!({"provider": "Patroni"})),
            source(json!({"provider": "Patroni", "selector": {"matchLabels": {"app": "db"}}})),
        ),
        (
            "a user needs a name, or a secretRef",
            json!({"users": [{}]}),
            json!({"users": [{"name": "app"}]}),
        ),
        (
            "minPoolSize is above poolSize",
            json!({"users": [{"name": "app", "minPoolSize": 3, "poolSize": 2}]}),
            json!({"users": [{"name": "app", "minPoolSize": 2, "poolSize": 2}]}),
        ),
        (
            "minPoolSize is above defaultPoolSize",
            json!({"pooling": {"minPoolSize": 11}}),
            json!({"pooling": {"minPoolSize": 11, "defaultPoolSize": 11}}),
        ),
        ("needs caSecretRef", verify(None), verify(Some("ca"))),
        (
            "tag latest needs pullPolicy Always",
            json!({"image": {"tag": "latest"}}),
            json!({"image": {"tag": "latest", "pullPolicy": "Always"}}),
        ),
        (
            "are for type LoadBalancer",
            json!({"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}),
            json!({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}),
        ),
        (
            "maxSurge (1 where it is not set) and maxUnavailable (0 where it is not set) must not both be 0",
            json!({"strategy": {"maxSurge": 0}}),
            json!({"strategy": {"maxSurge": 0, "maxUnavailable": 1}}),
        ),
        (
            "maxSurge (1 where it is not set) and maxUnavailable (0 where it is not set) must not both be 0",
            json!({"strategy": {"maxSurge": "0%", "maxUnavailable": 0}}),
            json!({"strategy": {"type": "Recreate", "maxSurge": 0}}),
        ),
        (
            "either minAvailable or maxUnavailable",
            json!({"pdb": {"minAvailable": 1, "maxUnavailable": 1}}),
            json!({"pdb": {"minAvailable": "50%"}}),
        ),
    ]
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    value
}

/// What the API server would say to such a resource; it does not keep it.
async fn would(stage: &Stage, name: &str, spec: &Value) -> Result<Value, String> {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "pgdog.dev/v1alpha1", "kind": "PgDogCluster", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let made = stage.raw().create(&dry, &object).await;
    made.map(|made| made.data["spec"].clone())
        .map_err(|error| error.to_string())
}

/// The messages of all rules of the definition.
fn messages(schema: &Value, all: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for rule in schema["x-kubernetes-validations"]
                .as_array()
                .into_iter()
                .flatten()
            {
                all.insert(rule["message"].as_str().unwrap().to_owned());
            }
            object.values().for_each(|inner| messages(inner, all));
        }
        Value::Array(array) => array.iter().for_each(|inner| messages(inner, all)),
        _ => {}
    }
}

#[tokio::test]
async fn every_rule_refuses_in_our_words_what_makes_no_sense_and_takes_what_does() {
    let Some(stage) = Stage::open("rules").await else {
        return;
    };
    let mut told = Vec::new();
    for (words, wrong, right) in cases() {
        let answer = would(&stage, "shop", &complete(wrong.clone())).await;
        let refusal = answer.expect_err(&format!("taken: {wrong}"));
        assert!(refusal.contains(words), "{wrong}: {refusal}");
        told.push(refusal);
        let taken = would(&stage, "shop", &complete(right.clone())).await;
        assert!(taken.is_ok(), "{right}: {taken:?}");
    }
    told.push(
        would(&stage, &"x".repeat(46), &complete(json!({})))
            .await
            .unwrap_err(),
    );
    would(&stage, &"x".repeat(45), &complete(json!({})))
        .await
        .unwrap();
    for name in ["a.b", "1a"] {
        told.push(would(&stage, name, &complete(json!({}))).await.unwrap_err());
    }

    // Those that compare with what was before.
    stage.make("one", json!({})).await;
    stage
        .make(
            "cnpg",
            json!({"source": {"provider": "CloudNativePG", "clusterRef": {"name": "db"}}}),
        )
        .await;
    let shards = json!([{"number": 0, "source": fixed()}]);
    for (name, change) in [
        ("one", json!({"mode": "Sidecar"})),
        ("one", json!({"source": null, "shards": shards})),
        ("cnpg", json!({"source": {"provider": "Zalando"}})),
        ("cnpg", json!({"source": {"clusterRef": {"name": "other"}}})),
    ] {
        let refusal = stage.change(name, change.clone()).await;
        told.push(refusal.expect_err(&format!("taken: {change}")).to_string());
    }
    stage
        .change(
            "one",
            json!({"source": {"hosts": [{"host": "other.example"}]}}),
        )
        .await
        .unwrap();

    let mut all = BTreeSet::new();
    messages(&serde_json::to_value(crd()).unwrap(), &mut all);
    assert!(all.len() > 20, "{all:?}");
    let untried: Vec<_> = all
        .iter()
        .filter(|rule| !told.iter().any(|told| told.contains(*rule)))
        .collect();
    assert!(
        untried.is_empty(),
        "rules that no case of this test breaks: {untried:#?}"
    );
}

#[tokio::test]
async fn values_out_of_bounds_are_refused_with_their_path() {
    let Some(stage) = Stage::open("bounds").await else {
        return;
    };
    for (spec, path) in [
        (json!({"replicas": -1}), "spec.replicas"),
        (json!({"replicas": 1001}), "spec.replicas"),
        (json!({"databases": []}), "spec.databases"),
        (
            json!({"databases": [{"name": "app"}, {"name": "app"}]}),
            "spec.databases[1]",
        ),
        (json!({"mode": "Daemon"}), "spec.mode"),
        (
            json!({"source": {"provider": "Static", "hosts": [{"host": "x", "port": 0}]}}),
            "spec.source.hosts[0].port",
        ),
        (
            json!({"health": {"checkInterval": "soon"}}),
            "spec.health.checkInterval",
        ),
        (json!({"drain": {"timeout": "1"}}), "spec.drain.timeout"),
        (
            json!({"failover": {"holdTimeout": "99999999999999999999999999h"}}),
            "spec.failover.holdTimeout",
        ),
        (json!({"admin": {"port": 80}}), "spec.admin.port"),
        (
            json!({"image": {"digest": "sha256:1"}}),
            "spec.image.digest",
        ),
        (
            json!({"users": [{"name": "a", "serverLogin": "Kerberos"}]}),
            "spec.users[0].serverLogin",
        ),
        (
            json!({"config": {"general": {"workers": "many"}}}),
            "spec.config.general.workers",
        ),
    ] {
        let refusal = would(&stage, "shop", &complete(spec.clone())).await;
        let refusal = refusal.expect_err(&format!("taken: {spec}"));
        assert!(refusal.contains(path), "{spec}: {refusal}");
    }
    let spec = json!({"databases": [{"name": "app"}], "users": []});
    let refusal = would(&stage, "shop", &spec).await.unwrap_err();
    assert!(refusal.contains("say where the Postgres is"), "{refusal}");
}

#[tokio::test]
async fn defaults_are_those_that_are_documented() {
    let Some(stage) = Stage::open("defaults").await else {
        return;
    };
    let least = json!({
        "source": fixed(), "databases": [{"name": "app"}], "users": [{"secretRef": {"name": "login"}}],
    });
    assert_eq!(
        would(&stage, "shop", &least).await.unwrap(),
        json!({
            "mode": "Deployment",
            "replicas": 2,
            "source": {
                "provider": "Static",
                "roleDetection": "LabelsThenProbe",
                "unknownRolePolicy": "Exclude",
                "hosts": [{"host": "db.example", "port": 5432, "role": "auto", "weight": 255}],
            },
            "databases": [{"name": "app"}],
            "users": [{"secretRef": {"name": "login"}, "serverLogin": "Password"}],
            "paused": false,
        })
    );
    let empty = complete(json!({
        "admin": {}, "service": {}, "strategy": {}, "drain": {}, "configRollout": {}, "monitoring": {"podMonitor": {}},
        "autoscaling": {"maxReplicas": 5}, "tls": {"client": {}}, "operation": {},
        "pooling": {"budget": {"maxServerConnections": 50}},
    }));
    let filled = would(&stage, "shop", &empty).await.unwrap();
    for (key, value) in [
        ("admin", json!({"port": 6433})),
        (
            "service",
            json!({"type": "ClusterIP", "port": 5432, "targetPort": 6432}),
        ),
        ("strategy", json!({"type": "RollingUpdate"})),
        ("drain", json!({"preStopSleep": "5s", "timeout": "60s"})),
        (
            "configRollout",
            json!({"strategy": "Canary", "onNack": "Halt", "autoRollback": true}),
        ),
        (
            "monitoring",
            json!({"port": 9090, "podMonitor": {"enabled": false}}),
        ),
        (
            "autoscaling",
            json!({"minReplicas": 2, "maxReplicas": 5, "targetCpu": 70}),
        ),
        ("tls", json!({"client": {"mode": "Prefer"}})),
        (
            "operation",
            json!({"stopped": false, "reconciliationPaused": false}),
        ),
        (
            "pooling",
            json!({"budget": {"maxServerConnections": 50, "distribution": "Demand"}}),
        ),
    ] {
        assert_eq!(filled[key], value, "{key}");
    }
    let sidecar = would(
        &stage,
        "shop",
        &complete(json!({"mode": "Sidecar", "sidecar": {}})),
    )
    .await
    .unwrap();
    assert_eq!(sidecar["sidecar"]["port"], 6432);
    assert_eq!(sidecar["sidecar"]["injectEnv"], true);
}
