//! Proxies without an operator, and without an API server.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{Load, ask, config};
use crate::node::Nodes;
use crate::{operator, postgres};

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// Operator and API server are gone, and a proxy's container is killed: it starts again from what it was pushed last.
pub(crate) async fn alone(stage: Stage) -> anyhow::Result<String> {
    let nodes = Nodes::new(&stage)?;
    let plane = nodes.control_plane().await?;
    nodes
        .on(&plane, &format!("test -e {MANIFEST}"))
        .await
        .map_err(|_| crate::Skipped("needs an API server that is a static pod"))?;
    postgres::served(&stage, 1).await?;
    let before = stage.proxies("shop").await?;
    let doors = stage.doors("shop").await?;
    let [victim, other] = [&doors[0], &doors[1]].map(|d| config(&d.clients, postgres::PASSWORD));
    let pod = stage.api::<Pod>().get(&doors[0].pod).await?;
    let replicas = operator::stop(&stage).await?;
    let load = Load::start(&other, 3).await?;
    nodes.on(&plane, &format!("mv {MANIFEST} /root/")).await?;
    let tried = async {
        until(MINUTE, "the API server is gone", || async {
            let gone = stage.client.apiserver_version().await.is_err();
            Ok(gone.then_some(()))
        })
        .await?;
        let (node, pid) = nodes.process(&pod).await?;
        nodes.on(&node, &format!("kill -9 {pid}")).await?;
        let begun = Instant::now();
        until(MINUTE, "the proxy is back and answers", || async {
            ask(&victim, "insert into ledger (client) values (-1)").await?;
            Ok(Some(begun.elapsed()))
        })
        .await
    };
    let tried = tried.await;
    let ledger = load.end().await?;
    nodes
        .on(&plane, &format!("mv /root/kube-apiserver.yaml {MANIFEST}"))
        .await?;
    until(2 * MINUTE, "the API server is back", || async {
        stage.client.apiserver_version().await?;
        Ok(Some(()))
    })
    .await?;
    operator::start(&stage, replicas).await?;
    let took = tried?;
    ensure!(ledger.errors.is_empty(), "{}", ledger.told());
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 13}}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(format!(
        "a killed proxy answers after {} ms; beside it {}",
        took.as_millis(),
        ledger.told()
    ))
}

/// A new proxy comes while there is no operator: it starts from the snapshot, and hears the news when the operator is back.
pub(crate) async fn newcomer(stage: Stage) -> anyhow::Result<String> {
    postgres::served(&stage, 0).await?;
    let before = stage.proxies("shop").await?;
    let replicas = operator::stop(&stage).await?;
    let begun = Instant::now();
    let came = async {
        stage
            .change("shop", json!({"pooling": {"defaultPoolSize": 14}}))
            .await?;
        stage
            .api::<Pod>()
            .delete(&before[0].0, &DeleteParams::default())
            .await?;
        let new = until(MINUTE, "there is a new proxy", || async {
            let now = stage.proxies("shop").await?;
            Ok(now.into_iter().find(|pod| !before.contains(pod)))
        })
        .await?;
        postgres::ready(&stage, &new.0).await?;
        let took = begun.elapsed();
        let door = stage.door(&new.0).await?;
        let clients = config(&door.clients, postgres::PASSWORD);
        until(Duration::from_secs(10), "it answers", || async {
            Ok(Some(ask(&clients, "select 1").await?))
        })
        .await?;
        anyhow::Ok(took)
    };
    let came = came.await;
    let begun = Instant::now();
    operator::start(&stage, replicas).await?;
    let took = came?;
    stage.settled("shop", MINUTE).await?;
    Ok(format!(
        "ready after {:.1} s; the operator back, all have the new settings after {:.1} s",
        took.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ))
}
