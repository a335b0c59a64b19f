//! The operator's replicas, and which of them leads.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{Load, config};
use crate::node::Nodes;
use crate::{operator, postgres};

/// Time in which another replica has to lead: a Lease of 15 s and a look each 3 s.
const TAKEOVER: Duration = Duration::from_secs(30);

/// The leader's pod is killed while it rolls out a change: the other replica ends that, in a later epoch.
pub(crate) async fn killed(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage
        .make("shop", json!({"source": postgres::source(), "replicas": 3}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    operator::settled(&stage).await?;
    let doors = stage.doors("shop").await?;
    let before = stage.status("shop").await?.config.settings.revision;
    let (holder, epoch) = operator::lease(&stage).await?;
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 17}}))
        .await?;
    let begun = Instant::now();
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), operator::NAMESPACE);
    pods.delete(&holder, &DeleteParams::default().grace_period(0))
        .await?;
    let next = other_leads(&stage, &holder, epoch).await?;
    let took = begun.elapsed();
    ensure!(next == epoch + 1, "epoch {next} after {epoch}");
    // Something that only the new one can have pushed.
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 18}}))
        .await?;
    stage.settled("shop", MINUTE).await?;
    let after = stage.status("shop").await?.config.settings.revision;
    ensure!(after > before, "settings {after} after {before}");
    for door in &doors {
        let status = operator::status(&stage, "shop", door).await?;
        let version = status.settings.version;
        ensure!(
            version.epoch == u64::try_from(next).unwrap_or_default()
                && version.revision == u64::try_from(after).unwrap_or_default(),
            "{}: {version:?}, not epoch {next}, revision {after}",
            door.pod
        );
    }
    operator::settled(&stage).await?;
    Ok(format!(
        "another leads after {:.1} s, epoch {epoch} to {next}, settings {before} to {after}",
        took.as_secs_f64()
    ))
}

/// A leader that stood still for longer than its Lease finds out, changes nothing and ends.
pub(crate) async fn stopped(stage: Stage) -> anyhow::Result<String> {
    let nodes = Nodes::new(&stage)?;
    postgres::served(&stage, 0).await?;
    operator::settled(&stage).await?;
    let doors = stage.doors("shop").await?;
    let leader = operator::leader(&stage).await?;
    let (holder, epoch) = operator::lease(&stage).await?;
    let restarts = restarts_of(&stage, &leader.name_any()).await?;
    let begun = Instant::now();
    nodes.signal(&leader, "STOP").await?;
    // It has a change to make when it goes on: its watches have it in their sockets.
    let changed = stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 19}}))
        .await;
    let led = other_leads(&stage, &holder, epoch).await;
    let took = begun.elapsed();
    let settled = stage.settled("shop", MINUTE).await;
    nodes.signal(&leader, "CONT").await?;
    changed?;
    let next = led?;
    settled?;
    let woken = Instant::now();
    until(
        Duration::from_secs(30),
        "the former leader has ended",
        || async {
            let now = restarts_of(&stage, &leader.name_any()).await?;
            Ok((now > restarts).then_some(()))
        },
    )
    .await?;
    let ended = woken.elapsed();
    operator::settled(&stage).await?;
    let wanted = u64::try_from(operator::lease(&stage).await?.1).unwrap_or_default();
    for door in &doors {
        let status = operator::status(&stage, "shop", door).await?;
        let foreign = status.attempts.iter().filter_map(|a| a.version);
        ensure!(
            status.settings.version.epoch == wanted,
            "{}: {:?}, not epoch {wanted}; attempts of epochs {:?}",
            door.pod,
            status.settings.version,
            foreign.map(|v| v.epoch).collect::<Vec<_>>()
        );
    }
    Ok(format!(
        "another leads after {:.1} s in epoch {next}; woken, the former one ends after {:.1} s",
        took.as_secs_f64(),
        ended.as_secs_f64()
    ))
}

/// The operator is replaced by one of another image under load: no client notices, and no proxy is replaced.
pub(crate) async fn upgraded(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 1).await?;
    let before = stage.proxies("shop").await?;
    let config_before = stage.status("shop").await?.config;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let load = Load::start(&clients, 25).await?;
    let begun = Instant::now();
    operator::upgrade(&stage, &stage.next_tag).await?;
    let replaced = operator::settled(&stage).await;
    let took = begun.elapsed();
    let hash = stage.status("shop").await?.config.settings.hash;
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 12}}))
        .await?;
    let led = until(MINUTE, "the new operator configures", || async {
        let config = stage.status("shop").await?.config;
        Ok((config.settings.hash != hash && config.summary == "2/2").then_some(()))
    })
    .await;
    let ledger = load.end().await?;
    let former = stage.next_tag.trim_end_matches("-next");
    operator::upgrade(&stage, former).await?;
    operator::settled(&stage).await?;
    replaced?;
    led?;
    ensure!(ledger.errors.is_empty(), "{}", ledger.told());
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    let after = stage.status("shop").await?.config;
    ensure!(
        after.settings.revision > config_before.settings.revision,
        "{after:?}"
    );
    Ok(format!(
        "replaced in {:.1} s; {}",
        took.as_secs_f64(),
        ledger.told()
    ))
}

async fn other_leads(stage: &Stage, former: &str, epoch: i32) -> anyhow::Result<i32> {
    until(TAKEOVER, "another replica leads", || async {
        let (holder, now) = operator::lease(stage).await?;
        Ok((now > epoch && !holder.is_empty() && holder != former).then_some(now))
    })
    .await
}

async fn restarts_of(stage: &Stage, pod: &str) -> anyhow::Result<i32> {
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), operator::NAMESPACE);
    let status = pods.get(pod).await?.status.unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    Ok(containers.iter().map(|c| c.restart_count).sum())
}
