//! Nodes that are emptied, and nodes that die; proxies that are cut off.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use pgdog_operator_api::{ConditionStatus, ConditionType};
use serde_json::json;

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{Load, ask, config};
use crate::node::Nodes;
use crate::postgres::{self, Shape};

/// Where the proxies run.
async fn places(stage: &Stage) -> anyhow::Result<BTreeSet<String>> {
    let mut places = BTreeSet::new();
    for (pod, _) in stage.proxies("shop").await? {
        let pod = stage.api::<Pod>().get(&pod).await?;
        places.extend(pod.spec.and_then(|spec| spec.node_name));
    }
    Ok(places)
}

/// Ready proxies, at this moment.
async fn ready(stage: &Stage) -> anyhow::Result<usize> {
    let mut count = 0;
    for (pod, _) in stage.proxies("shop").await? {
        let Some(pod) = stage.api::<Pod>().get_opt(&pod).await? else {
            continue;
        };
        let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
        count += usize::from(
            conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True"),
        );
    }
    Ok(count)
}

/// The node with all proxies is emptied under load: they go one at a time, the Service is never empty, and no client notices.
pub(crate) async fn drained(stage: Stage) -> anyhow::Result<String> {
    let nodes = Nodes::new(&stage)?;
    let workers = nodes.workers().await?;
    let shape = Shape {
        node: Some(workers[1].clone()),
        ..Shape::cnpg(1)
    };
    postgres::start_as(&stage, &shape).await?;
    // All proxies on one node.
    stage.kubectl(&["cordon", &workers[1]]).await?;
    let made = async {
        stage
            .make("shop", json!({"source": postgres::source(), "drain": {"preStopSleep": "5s", "timeout": "10s"}}))
            .await?;
        stage.settled("shop", 2 * MINUTE).await
    };
    let made = made.await;
    stage.kubectl(&["uncordon", &workers[1]]).await?;
    made?;
    ensure!(
        places(&stage).await? == BTreeSet::from([workers[0].clone()]),
        "the proxies are elsewhere"
    );
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let load = Load::start(&clients, 10).await?;
    let begun = Instant::now();
    let selector = "--pod-selector=pgdog.dev/cluster=shop";
    let drain = [
        "drain",
        &workers[0],
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        selector,
        "--timeout=180s",
    ];
    let draining = stage.kubectl(&drain);
    tokio::pin!(draining);
    let mut fewest = usize::MAX;
    let drained = loop {
        tokio::select! {
            drained = &mut draining => break drained,
            now = ready(&stage) => fewest = fewest.min(now?),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let took = begun.elapsed();
    let settled = stage.settled("shop", MINUTE).await;
    stage.kubectl(&["uncordon", &workers[0]]).await?;
    drained?;
    settled?;
    let ledger = load.end().await?;
    ensure!(fewest >= 1, "there was a moment without a ready proxy");
    ensure!(ledger.errors_but(&[]) == 0, "{}", ledger.told());
    ensure!(
        places(&stage).await? == BTreeSet::from([workers[1].clone()]),
        "the proxies are elsewhere"
    );
    Ok(format!(
        "in {:.1} s, never fewer than {fewest} ready; {}",
        took.as_secs_f64(),
        ledger.told()
    ))
}

/// A node with one of the proxies dies: the other serves, and one more comes where there is a node.
pub(crate) async fn killed(stage: Stage) -> anyhow::Result<String> {
    let nodes = Nodes::new(&stage)?;
    let workers = nodes.workers().await?;
    let shape = Shape {
        node: Some(workers[1].clone()),
        ..Shape::cnpg(1)
    };
    postgres::start_as(&stage, &shape).await?;
    let tolerated = ["not-ready", "unreachable"].map(|key| {
        json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2})
    });
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "pod": {"tolerations": tolerated}}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    ensure!(
        places(&stage).await?.len() == 2,
        "both proxies are on one node"
    );
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    ask(&clients, "select 1").await?;
    let begun = Instant::now();
    nodes.kill(&workers[0]).await?;
    let elsewhere = until(2 * MINUTE, "two proxies run on the other node", || async {
        let alone = places(&stage).await? == BTreeSet::from([workers[1].clone()]);
        Ok((alone && ready(&stage).await? == 2).then_some(begun.elapsed()))
    })
    .await;
    let served = async {
        for _ in 0..20 {
            ask(&clients, "select 1").await?;
        }
        // Those that are gone are not asked for: what is left is in step.
        stage.settled("shop", MINUTE).await
    };
    let served = match &elsewhere {
        Ok(_) => served.await,
        Err(_) => Ok(()),
    };
    nodes.start(&workers[0]).await?;
    let took = elsewhere?;
    served?;
    Ok(format!(
        "two proxies elsewhere after {:.1} s",
        took.as_secs_f64()
    ))
}

/// The operator cannot reach a proxy, which goes on serving; when it can again, that one catches up.
pub(crate) async fn cut_from_operator(stage: Stage) -> anyhow::Result<String> {
    const RULE: &str = "INPUT -p tcp --dport 6433 -j DROP";
    let nodes = Nodes::new(&stage)?;
    postgres::start(&stage, 0).await?;
    let rollout = json!({"ackTimeout": "3s"});
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "configRollout": rollout}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let doors = stage.doors("shop").await?;
    let clients = config(&doors[0].clients, postgres::PASSWORD);
    let pod = stage.api::<Pod>().get(&doors[0].pod).await?;
    nodes.firewall(&pod, &format!("-I {RULE}")).await?;
    let cut = async {
        stage
            .change("shop", json!({"pooling": {"defaultPoolSize": 15}}))
            .await?;
        let (reason, message) = stage
            .condition(
                "shop",
                ConditionType::ConfigSynced,
                ConditionStatus::False,
                MINUTE,
            )
            .await?;
        let (reason, message) = if reason == "PartiallySynced" {
            (reason, message)
        } else {
            until(MINUTE, "it is partially synced", || async {
                let told = stage
                    .condition(
                        "shop",
                        ConditionType::ConfigSynced,
                        ConditionStatus::False,
                        MINUTE,
                    )
                    .await?;
                Ok((told.0 == "PartiallySynced").then_some(told))
            })
            .await?
        };
        until(MINUTE, "the other has the new settings", || async {
            Ok((stage.status("shop").await?.config.settings.acked == 1).then_some(()))
        })
        .await?;
        let status = stage.status("shop").await?;
        ensure!(
            !status.config.out_of_sync.is_empty()
                && status
                    .config
                    .out_of_sync
                    .iter()
                    .all(|o| o.pod == doors[0].pod),
            "{:?}",
            status.config.out_of_sync
        );
        stage
            .condition(
                "shop",
                ConditionType::Available,
                ConditionStatus::True,
                MINUTE,
            )
            .await?;
        ensure!(ask(&clients, "select 1").await? == "1", "no answer");
        anyhow::Ok(format!("{reason}: {message}"))
    };
    let cut = cut.await;
    nodes.firewall(&pod, &format!("-D {RULE}")).await?;
    let begun = Instant::now();
    let told = cut?;
    stage.settled("shop", MINUTE).await?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(35), "healed after {took:?} only");
    Ok(format!("{told}; healed after {:.1} s", took.as_secs_f64()))
}

/// A proxy cannot reach the primary: its reads go on at the replica, its writes wait, and it takes no replica for a primary.
/// The other one notices nothing.
pub(crate) async fn cut_from_primary(stage: Stage) -> anyhow::Result<String> {
    let nodes = Nodes::new(&stage)?;
    postgres::start(&stage, 1).await?;
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "failover": {"holdTimeout": "30s"}}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let doors = stage.doors("shop").await?;
    let [cut, other] = [&doors[0], &doors[1]].map(|d| config(&d.clients, postgres::PASSWORD));
    let pod = stage.api::<Pod>().get(&doors[0].pod).await?;
    let primary = postgres::ip(&stage, "db-0").await?;
    let load = Load::start(&other, 3).await?;
    ask(&cut, "insert into ledger (client) values (-1)").await?;
    let rule = format!("OUTPUT -d {primary} -p tcp --dport 5432 -j DROP");
    nodes.firewall(&pod, &format!("-I {rule}")).await?;
    let begun = Instant::now();
    let apart = async {
        let reads = until(MINUTE, "all reads are answered by the replica", || async {
            for _ in 0..20 {
                if ask(&cut, "select host(inet_server_addr())").await? == primary {
                    return Ok(None);
                }
            }
            Ok(Some(begun.elapsed()))
        })
        .await?;
        let write = ask(&cut, "insert into ledger (client) values (-2)");
        let write = tokio::time::timeout(Duration::from_secs(5), write).await;
        ensure!(
            !matches!(write, Ok(Ok(_))),
            "a write was acknowledged: {write:?}"
        );
        anyhow::Ok(reads)
    };
    let apart = apart.await;
    nodes.firewall(&pod, &format!("-D {rule}")).await?;
    let healed = Instant::now();
    let reads = apart?;
    until(MINUTE, "its writes flow again", || async {
        ask(&cut, "insert into ledger (client) values (-3)").await?;
        Ok(Some(()))
    })
    .await?;
    let took = healed.elapsed();
    let ledger = load.end().await?;
    ensure!(ledger.errors.is_empty(), "beside it: {}", ledger.told());
    Ok(format!(
        "reads at the replica after {:.1} s, writes {:.1} s after the wire is mended; beside it {}",
        reads.as_secs_f64(),
        took.as_secs_f64(),
        ledger.told()
    ))
}
