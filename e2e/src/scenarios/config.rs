//! Changes of the configuration.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use pgdog_operator_api::{ConditionStatus, ConditionType};
use serde_json::{Value, json};

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{Load, ask, config};
use crate::{operator, postgres};

const LOOK: Duration = Duration::from_secs(1);

/// What makes no sense is refused by the API server, in our words.
pub(crate) async fn rules(stage: Stage) -> anyhow::Result<String> {
    let cases = [
        (
            json!({"source": {"provider": "CloudNativePG"}}),
            "clusterRef",
        ),
        (
            json!({"source": {"provider": "Static"}}),
            "hosts or uriSecretRef",
        ),
        (
            json!({"source": postgres::source(), "shards": [{"number": 0, "source": postgres::source()}]}),
            "either source, or one source",
        ),
        (
            json!({"source": postgres::source(), "pooling": {"defaultPoolSize": 2, "minPoolSize": 3}}),
            "minPoolSize is above",
        ),
        (
            json!({"source": postgres::source(), "admin": {"port": 9090}}),
            "must differ",
        ),
        (
            json!({"source": postgres::source(), "drain": {"timeout": "80s"}, "pod": {"terminationGracePeriodSeconds": 30}}),
            "terminationGracePeriodSeconds must be",
        ),
        (
            json!({"source": postgres::source(), "sidecar": {}}),
            "sidecar is for mode Sidecar",
        ),
        (
            json!({"source": postgres::source(), "autoscaling": {"minReplicas": 5, "maxReplicas": 2}}),
            "minReplicas is above",
        ),
        (
            json!({"source": postgres::source(), "tls": {"client": {"mode": "VerifyClient"}}}),
            "needs caSecretRef",
        ),
        (
            json!({"source": postgres::source(), "image": {"tag": "latest"}}),
            "tag latest",
        ),
    ];
    let count = cases.len();
    for (spec, words) in cases {
        let Err(error) = stage.make("wrong", spec.clone()).await else {
            anyhow::bail!("taken: {spec}");
        };
        let told = format!("{error:#}");
        ensure!(told.contains(words), "{spec}: {told}");
    }
    let long = "x".repeat(46);
    let told = stage
        .make(&long, json!({"source": postgres::source()}))
        .await;
    let told = format!(
        "{:#}",
        told.err().unwrap_or_else(|| anyhow::anyhow!("taken"))
    );
    ensure!(told.contains("more than 45 characters"), "{told}");
    stage
        .make("right", json!({"source": postgres::source()}))
        .await?;
    let changed = stage
        .change("right", json!({"source": {"provider": "Zalando"}}))
        .await;
    let told = format!(
        "{:#}",
        changed.err().unwrap_or_else(|| anyhow::anyhow!("taken"))
    );
    ensure!(told.contains("provider is immutable"), "{told}");
    Ok(format!("{} specs refused", count + 2))
}

/// A change reaches every proxy while clients work, and restarts none.
pub(crate) async fn change(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 1).await?;
    stage
        .make("shop", json!({"source": postgres::source(), "replicas": 3}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let before = stage.proxies("shop").await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let load = Load::start(&clients, 4).await?;
    let hash = stage.status("shop").await?.config.settings.hash;
    let begun = Instant::now();
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 17}}))
        .await?;
    until(
        Duration::from_secs(20),
        "all have the new settings",
        || async {
            let config = stage.status("shop").await?.config;
            Ok((config.settings.hash != hash && config.summary == "3/3").then_some(()))
        },
    )
    .await?;
    let took = begun.elapsed();
    let ledger = load.end().await?;
    ensure!(ledger.errors.is_empty(), "{}", ledger.told());
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(format!("3/3 in {} ms; {}", took.as_millis(), ledger.told()))
}

/// What makes no configuration is told, and what is in force stays.
pub(crate) async fn invalid(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 0).await?;
    let before = stage.status("shop").await?.config;
    stage
        .change("shop", json!({"config": {"general": {"auth_type": "hba"}}}))
        .await?;
    let (_, message) = stage
        .condition(
            "shop",
            ConditionType::ConfigValid,
            ConditionStatus::False,
            Duration::from_secs(10),
        )
        .await?;
    ensure!(message.contains("auth_type"), "{message}");
    let (reason, _) = stage
        .condition(
            "shop",
            ConditionType::Degraded,
            ConditionStatus::True,
            Duration::from_secs(10),
        )
        .await?;
    ensure!(reason == "ConfigRejected", "{reason}");
    let after = stage.status("shop").await?.config;
    ensure!(
        after.settings.hash == before.settings.hash,
        "something was pushed"
    );
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    ensure!(ask(&clients, "select 1").await? == "1", "no answer");
    stage.change("shop", json!({"config": null})).await?;
    stage
        .condition(
            "shop",
            ConditionType::Degraded,
            ConditionStatus::False,
            Duration::from_secs(10),
        )
        .await?;
    Ok(message)
}

/// A Secret's new password is accepted within seconds, the former one for a while longer, and a Secret that goes takes nobody out.
pub(crate) async fn rotation(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage.make("shop", json!({"source": postgres::source(), "users": [{"secretRef": {"name": "login"}, "rotationOverlap": "20s"}]})).await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let before = stage.proxies("shop").await?;
    let address = stage.address("shop").await?;
    let (old, new) = (
        config(&address, postgres::PASSWORD),
        config(&address, "another"),
    );
    postgres::sql(&stage, "db-0", "alter role postgres password 'another'").await?;
    let begun = Instant::now();
    stage.login("login", "postgres", "another").await?;
    until(
        Duration::from_secs(10),
        "the new password is right",
        || async { Ok(ask(&new, "select 1").await.ok()) },
    )
    .await?;
    let took = begun.elapsed();
    ask(&old, "select 1").await?;
    until(
        Duration::from_secs(40),
        "the former password is wrong",
        || async { Ok(ask(&old, "select 1").await.err()) },
    )
    .await?;
    let over = begun.elapsed();
    stage.kubectl(&["delete", "secret", "login"]).await?;
    stage
        .condition(
            "shop",
            ConditionType::SecretsResolved,
            ConditionStatus::False,
            Duration::from_secs(10),
        )
        .await?;
    ask(&new, "select 1").await?;
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(format!(
        "accepted after {} ms, the former one for {:.0} s",
        took.as_millis(),
        over.as_secs_f64()
    ))
}

/// A proxy's pod beside the others whose certificate can be broken; it is the first in order, and so the canary.
async fn odd(stage: &Stage, like: &str) -> anyhow::Result<()> {
    let pod = serde_json::to_value(stage.api::<Pod>().get(like).await?)?;
    let mut labels = pod["metadata"]["labels"].clone();
    if let Some(labels) = labels.as_object_mut() {
        // No ReplicaSet takes it for its own.
        labels.remove("pod-template-hash");
    }
    let mut spec = pod["spec"].clone();
    spec["nodeName"] = Value::Null;
    let volumes = spec["volumes"].as_array_mut();
    for volume in volumes.into_iter().flatten() {
        if volume["name"] == "pgdog-client-tls" {
            *volume = json!({"name": "pgdog-client-tls", "emptyDir": {}});
        }
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": "from", "secret": {"secretName": "shop-client-tls"}}));
    }
    let mounts = spec["containers"][0]["volumeMounts"].as_array_mut();
    for mount in mounts.into_iter().flatten() {
        if mount["name"] == "pgdog-client-tls" {
            mount["readOnly"] = false.into();
        }
    }
    spec["initContainers"] = json!([{
        "name": "copy", "image": stage.postgres_image,
        "command": ["sh", "-c", "for f in tls.crt tls.key; do cat /from/$f >/to/$f; done"],
        "securityContext": spec["containers"][0]["securityContext"],
        "volumeMounts": [{"name": "from", "mountPath": "/from"}, {"name": "pgdog-client-tls", "mountPath": "/to"}],
    }]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a-odd", "labels": labels, "annotations": pod["metadata"]["annotations"]},
        "spec": spec,
    }))?;
    stage.api().create(&PostParams::default(), &pod).await?;
    Ok(())
}

/// One proxy alone refuses new settings: the others never get them, the last good ones are in force, and people are told.
pub(crate) async fn refused(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 0).await?;
    let proxies = stage.proxies("shop").await?;
    odd(&stage, &proxies[0].0).await?;
    let synced = |summary: &'static str| {
        let stage = stage.clone();
        async move {
            until(MINUTE, summary, || async {
                Ok((stage.status("shop").await?.config.summary == summary).then_some(()))
            })
            .await
        }
    };
    synced("3/3").await?;
    let good = stage.status("shop").await?.config.settings.hash;
    let broken = "echo nothing >/etc/pgdog/client-tls/tls.crt";
    stage
        .kubectl(&["exec", "a-odd", "-c", "pgdog", "--", "sh", "-c", broken])
        .await?;
    let begun = Instant::now();
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 16}}))
        .await?;
    let message = stage.degraded("shop", "ConfigRejected").await?;
    let took = begun.elapsed();
    ensure!(message.contains("tls"), "{message}");
    synced("3/3").await?;
    // It stays so for as long as what is written is refused.
    tokio::time::sleep(Duration::from_secs(3)).await;
    stage
        .condition("shop", ConditionType::Degraded, ConditionStatus::True, LOOK)
        .await?;
    let config = stage.status("shop").await?.config;
    ensure!(config.settings.hash == good, "other settings are in force");
    for (pod, _) in &proxies {
        let door = stage.door(pod).await?;
        let status = operator::status(&stage, "shop", &door).await?;
        ensure!(
            status.settings.sha256.as_deref() == Some(good.as_str()),
            "{pod} has other settings"
        );
    }
    stage.kubectl(&["delete", "pod", "a-odd", "--now"]).await?;
    stage.change("shop", json!({"pooling": null})).await?;
    stage
        .condition(
            "shop",
            ConditionType::Degraded,
            ConditionStatus::False,
            MINUTE,
        )
        .await?;
    stage.settled("shop", MINUTE).await?;
    Ok(format!("told after {:.1} s: {message}", took.as_secs_f64()))
}
