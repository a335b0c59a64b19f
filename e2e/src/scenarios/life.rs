//! Coming, being replaced, going.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, PostParams};
use pgdog_operator_api::{ConditionStatus, ConditionType, PgDogCluster};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Config, NoTls};

use super::MINUTE;
use super::failover::kept;
use crate::cluster::{Stage, until};
use crate::load::{Load, ask, config};
use crate::postgres;

/// From a resource to an answer.
pub(crate) async fn install(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 1).await?;
    let begun = Instant::now();
    stage
        .make("shop", json!({"source": postgres::source()}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let settled = begun.elapsed();
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let answer = until(Duration::from_secs(10), "a query is answered", || async {
        Ok(Some(ask(&clients, "select 40 + 2").await?))
    })
    .await?;
    ensure!(answer == "42", "{answer}");
    let status = stage.status("shop").await?;
    ensure!(
        status.endpoints.primary_summary == "db-0",
        "{:?}",
        status.endpoints
    );
    ensure!(status.config.summary == "2/2", "{:?}", status.config);
    Ok(format!("synced in {:.1} s", settled.as_secs_f64()))
}

/// A cancel request reaches its query behind a Service, whichever proxy it is handed to; also that of a proxy which only lets its
/// last clients finish.
pub(crate) async fn cancel(stage: Stage) -> anyhow::Result<String> {
    const TRIES: usize = 12;
    postgres::start(&stage, 0).await?;
    let drain = json!({"preStopSleep": "1s", "timeout": "60s"});
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "replicas": 3, "drain": drain}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    for _ in 0..TRIES {
        cancelled(Asking::begin(&clients).await?).await?;
    }
    let asking = [
        Asking::begin(&clients).await?,
        Asking::begin(&clients).await?,
        Asking::begin(&clients).await?,
    ];
    let before = stage.proxies("shop").await?;
    stage
        .kubectl(&[
            "delete",
            "pod",
            "-l",
            "pgdog.dev/cluster=shop",
            "--wait=false",
        ])
        .await?;
    until(2 * MINUTE, "others serve", || async {
        let now = stage.proxies("shop").await?;
        Ok((now.len() == 3 && now.iter().all(|pod| !before.contains(pod))).then_some(()))
    })
    .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let drained = asking.len();
    for one in asking {
        cancelled(one).await?;
    }
    Ok(format!(
        "{TRIES} of {TRIES} over 3 proxies, {drained} of {drained} in proxies on their way out"
    ))
}

/// A client whose query runs.
struct Asking {
    token: CancelToken,
    query: JoinHandle<Result<(), tokio_postgres::Error>>,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Asking {
    async fn begin(clients: &Config) -> anyhow::Result<Self> {
        let (client, connection) = clients.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let token = client.cancel_token();
        let query = tokio::spawn(async move {
            let answer = client.simple_query("select pg_sleep(120)").await;
            answer.map(|_| ())
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(Self {
            token,
            query,
            connection,
        })
    }
}

async fn cancelled(asking: Asking) -> anyhow::Result<()> {
    asking.token.cancel_query(NoTls).await?;
    let answer = tokio::time::timeout(Duration::from_secs(5), asking.query).await??;
    let code = answer
        .err()
        .and_then(|error| error.code().map(|c| c.code().to_owned()));
    ensure!(code.as_deref() == Some("57014"), "not cancelled: {code:?}");
    asking.connection.abort();
    Ok(())
}

/// Pods of another image take the place of old ones under the load of 50 clients, then pods with another start, and no client
/// notices: an idle one is told (57P01) after the drain's time, and nothing else is an error.
pub(crate) async fn rollout(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 1).await?;
    stage.make("shop", json!({"source": postgres::source(), "drain": {"preStopSleep": "5s", "timeout": "10s"}})).await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let load = Load::start(&clients, 25).await?;
    let mut fewest = i32::MAX;
    for patch in [
        json!({"image": {"tag": stage.next_tag}}),
        // A key that needs a restart.
        json!({"config": {"general": {"workers": 3}}}),
    ] {
        let before = stage.proxies("shop").await?;
        stage.change("shop", patch).await?;
        loop {
            let now = stage.proxies("shop").await?;
            fewest = fewest.min(stage.status("shop").await?.ready_replicas);
            if now.len() == 2 && now.iter().all(|pod| !before.contains(pod)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        stage.settled("shop", 2 * MINUTE).await?;
    }
    // Those on their way out have come to their ends.
    until(MINUTE, "only new pods are left", || async {
        let of = ListParams::default().labels("pgdog.dev/cluster=shop");
        let pods = stage.api::<Pod>().list(&of).await?;
        Ok((pods.items.len() == 2).then_some(()))
    })
    .await?;
    let ledger = load.end().await?;
    ensure!(ledger.errors_but(&[]) == 0, "{}", ledger.told());
    ensure!(fewest >= 2, "only {fewest} proxies were ready");
    kept(&stage, "db-0", &ledger).await?;
    Ok(format!("2 rollouts; {}", ledger.told()))
}

/// What somebody changes by hand, or deletes, is put back.
pub(crate) async fn drift(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 0).await?;
    let begun = Instant::now();
    stage.kubectl(&["delete", "service", "shop"]).await?;
    stage.kubectl(&["delete", "secret", "shop-config"]).await?;
    let container = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}, "revisionHistoryLimit": 9}});
    stage
        .kubectl(&[
            "patch",
            "deployment",
            "shop-proxy",
            "-p",
            &container.to_string(),
        ])
        .await?;
    let service = until(Duration::from_secs(10), "the Service is back", || async {
        let service = stage.api::<Service>().get("shop").await?;
        stage.api::<Secret>().get("shop-config").await?;
        Ok(service.spec)
    })
    .await?;
    let deleted = begun.elapsed();
    ensure!(service.type_.as_deref() == Some("NodePort"), "{service:?}");
    until(2 * MINUTE, "the Deployment is as it was", || async {
        let spec = stage.api::<Deployment>().get("shop-proxy").await?.spec;
        let spec = spec.unwrap_or_default();
        let grace = spec
            .template
            .spec
            .and_then(|s| s.termination_grace_period_seconds);
        Ok((spec.revision_history_limit == Some(3) && grace == Some(90)).then_some(()))
    })
    .await?;
    let changed = begun.elapsed();
    stage.settled("shop", 2 * MINUTE).await?;
    Ok(format!(
        "what was deleted is back after {:.1} s, what was changed after {:.1} s",
        deleted.as_secs_f64(),
        changed.as_secs_f64()
    ))
}

/// Somebody else's Service of the same name is not overwritten, and people are told.
pub(crate) async fn foreign(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    let theirs: Service = serde_json::from_value(json!({
        "metadata": {"name": "shop"}, "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }))?;
    let theirs = stage.api().create(&PostParams::default(), &theirs).await?;
    stage
        .make("shop", json!({"source": postgres::source()}))
        .await?;
    let message = stage.degraded("shop", "InvalidOwnership").await?;
    until(MINUTE, "there is an Event", || async {
        Ok((stage.events("DegradedInvalidOwnership").await? > 0).then_some(()))
    })
    .await?;
    let now = stage.api::<Service>().get("shop").await?;
    ensure!(now.spec == theirs.spec, "{:?}", now.spec);
    ensure!(now.metadata.owner_references.is_none(), "it was taken over");
    stage.kubectl(&["delete", "service", "shop"]).await?;
    stage
        .condition(
            "shop",
            ConditionType::Degraded,
            ConditionStatus::False,
            MINUTE,
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    ensure!(ask(&clients, "select 1").await? == "1", "no answer");
    Ok(message)
}

/// The strictest Pod Security Standard lets the proxies in.
pub(crate) async fn restricted(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage
        .kubectl(&[
            "label",
            "namespace",
            &stage.namespace,
            "pod-security.kubernetes.io/enforce=restricted",
        ])
        .await?;
    let refused = stage
        .kubectl(&["run", "root", "--image=local/root:1"])
        .await;
    ensure!(refused.is_err(), "the standard is not enforced here");
    stage
        .make("shop", json!({"source": postgres::source()}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    ensure!(ask(&clients, "select 1").await? == "1", "no answer");
    Ok("enforced".to_owned())
}

/// Nothing is left of a cluster that is deleted.
pub(crate) async fn delete(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 0).await?;
    stage
        .api::<PgDogCluster>()
        .delete("shop", &DeleteParams::default())
        .await?;
    let left = until(MINUTE, "everything is gone", || async {
        let secrets = stage.api::<Secret>().list(&ListParams::default()).await?;
        let secrets = secrets
            .iter()
            .filter(|s| {
                s.metadata
                    .name
                    .as_deref()
                    .is_some_and(|n| n.starts_with("shop-"))
            })
            .count();
        let pods = stage.proxies("shop").await?.len();
        Ok((secrets + pods == 0).then_some(()))
    });
    left.await?;
    Ok(String::new())
}
