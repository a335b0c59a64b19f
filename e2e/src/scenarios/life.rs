//! Coming, being replaced, going.

use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use pgdog_operator_api::PgDogCluster;
use serde_json::json;
use tokio_postgres::NoTls;

use crate::cluster::{Stage, until};
use crate::load::{Load, ask, config};
use crate::postgres;

const MINUTE: Duration = Duration::from_secs(60);

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

/// A cancel request reaches its query behind a Service, whichever proxy it is handed to.
pub(crate) async fn cancel(stage: Stage) -> anyhow::Result<String> {
    const TRIES: usize = 12;
    postgres::start(&stage, 0).await?;
    stage
        .make("shop", json!({"source": postgres::source(), "replicas": 3}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    for _ in 0..TRIES {
        let (client, connection) = clients.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let token = client.cancel_token();
        let asking =
            tokio::spawn(
                async move { client.simple_query("select pg_sleep(20)").await.map(|_| ()) },
            );
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel_query(NoTls).await?;
        let answer = tokio::time::timeout(Duration::from_secs(5), asking).await??;
        let code = answer
            .err()
            .and_then(|error| error.code().map(|c| c.code().to_owned()));
        ensure!(code.as_deref() == Some("57014"), "not cancelled: {code:?}");
        connection.abort();
    }
    Ok(format!("{TRIES} of {TRIES} over 3 proxies"))
}

/// New pods take the place of old ones under load, and no client notices.
pub(crate) async fn rollout(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 1).await?;
    stage.make("shop", json!({"source": postgres::source(), "drain": {"preStopSleep": "5s", "timeout": "10s"}})).await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let before = stage.proxies("shop").await?;
    let load = Load::start(&clients, 10).await?;
    // A key that needs a restart.
    stage
        .change("shop", json!({"config": {"general": {"workers": 3}}}))
        .await?;
    until(3 * MINUTE, "all pods are new ones", || async {
        let now = stage.proxies("shop").await?;
        Ok((now.len() == 2 && now.iter().all(|pod| !before.contains(pod))).then_some(()))
    })
    .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let ledger = load.end().await?;
    // Clients that are idle when their proxy goes are told so (57P01) or find the connection closed, and connect again.
    let lost: u64 = ledger
        .errors
        .iter()
        .filter(|(code, _)| !["57P01", "connection"].contains(&code.as_str()))
        .map(|(_, n)| n)
        .sum();
    ensure!(lost == 0, "{}", ledger.told());
    let count = ask(&clients, "select count(*) from ledger").await?;
    ensure!(
        count.parse::<u64>()? >= ledger.written,
        "{count} rows of {} writes",
        ledger.written
    );
    Ok(ledger.told())
}

/// Nothing is left of a cluster that is deleted.
pub(crate) async fn delete(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage
        .make("shop", json!({"source": postgres::source()}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
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
