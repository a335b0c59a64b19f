//! The limit on server connections over all proxies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio_postgres::NoTls;

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{Load, ask_over, config};
use crate::postgres;

/// The limit.
const MOST: u64 = 24;

/// Proxies come and go under load, and all pods are replaced: no Postgres ever has more connections than the budget says.
pub(crate) async fn scaling(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 1).await?;
    let budget = json!({"budget": {"maxServerConnections": MOST}});
    let drain = json!({"preStopSleep": "3s", "timeout": "8s"});
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "pooling": budget, "drain": drain}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let load = Load::start(&clients, 25).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut samplers = Vec::new();
    for pod in ["db-0", "db-1"] {
        let direct = postgres::direct(&stage, pod).await?;
        samplers.push(tokio::spawn(sample(direct, Arc::clone(&stop))));
    }
    let mut used = Vec::new();
    for replicas in [6, 2] {
        stage.change("shop", json!({"replicas": replicas})).await?;
        stage.settled("shop", 3 * MINUTE).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let shares = stage.status("shop").await?.shares;
        used.push(format!(
            "{replicas} proxies: {:?}",
            shares.values().collect::<Vec<_>>()
        ));
    }
    let before = stage.proxies("shop").await?;
    stage
        .change("shop", json!({"config": {"general": {"workers": 3}}}))
        .await?;
    until(3 * MINUTE, "all pods are new ones", || async {
        let now = stage.proxies("shop").await?;
        Ok((now.len() == 2 && now.iter().all(|pod| !before.contains(pod))).then_some(()))
    })
    .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    let mut over = 0;
    for sampler in samplers {
        let (samples, most, above) = sampler.await??;
        told.push(format!("{most} in {samples} samples"));
        over += above;
    }
    let ledger = load.end().await?;
    let told = format!(
        "budget {MOST}, at most {}; {}; {}",
        told.join(" and "),
        used.join(", "),
        ledger.told()
    );
    ensure!(over == 0, "{over} samples are above: {told}");
    ensure!(ledger.errors_but(&[]) == 0, "{told}");
    Ok(told)
}

/// Looks each 100 ms until it shall stop: how often, the most connections that there were, and how often it was too many.
async fn sample(
    direct: tokio_postgres::Config,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<(u64, u64, u64)> {
    // Its own connection, and those of replicas, are not the proxies'.
    const COUNT: &str = "select count(*) from pg_stat_activity \
        where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let (client, connection) = direct.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let (mut samples, mut most, mut above) = (0, 0, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let row = ask_over(&client, COUNT).await?;
        let now: u64 = row.first().context("no row")?.parse()?;
        samples += 1;
        most = most.max(now);
        above += u64::from(now > MOST);
    }
    connection.abort();
    Ok((samples, most, above))
}
