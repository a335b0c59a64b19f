//! All proxies at once.

use std::time::Duration;

use anyhow::ensure;
use pgdog_operator_api::{ConditionStatus, ConditionType};
use serde_json::json;
use tokio_postgres::NoTls;

use crate::cluster::{Stage, until};
use crate::load::{Load, ask, config};
use crate::postgres;

const MINUTE: Duration = Duration::from_secs(60);

/// All proxies hold their clients from one moment on, one that starts meanwhile too, and nobody loses anything. Where one proxy
/// cannot, none does.
pub(crate) async fn pause(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage
        .make("shop", json!({"source": postgres::source(), "replicas": 2}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let load = Load::start(&clients, 6).await?;
    let written = || postgres::sql(&stage, "db-0", "select count(*) from ledger");
    let paused = async |so: ConditionStatus| {
        let told = stage.condition("shop", ConditionType::Paused, so, MINUTE);
        told.await
    };

    let begun = std::time::Instant::now();
    stage.change("shop", json!({"paused": true})).await?;
    paused(ConditionStatus::True).await?;
    let took = begun.elapsed();
    let before = written().await?;
    stage.change("shop", json!({"replicas": 3})).await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let newcomer = tokio::spawn({
        let clients = clients.clone();
        async move { ask(&clients, "insert into ledger (client) values (-2)").await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(
        written().await? == before,
        "somebody wrote while all were paused"
    );
    ensure!(
        !newcomer.is_finished(),
        "a new client was served while all were paused"
    );

    stage.change("shop", json!({"paused": false})).await?;
    paused(ConditionStatus::False).await?;
    newcomer.await??;
    moves_on(&stage, "after the pause").await?;

    // A transaction that does not end: nobody is paused.
    let (client, connection) = clients.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    client.simple_query("begin; select 1").await?;
    stage.change("shop", json!({"paused": true})).await?;
    let failed = until(MINUTE, "the pause has failed", || async {
        let conditions = stage.status("shop").await?.conditions;
        let paused = conditions
            .into_iter()
            .find(|c| c.kind == ConditionType::Paused);
        Ok(paused
            .filter(|c| c.reason == "PauseFailed")
            .map(|c| c.message))
    });
    let message = failed.await?;
    ensure!(message.contains("did not end"), "{message}");
    moves_on(&stage, "after a pause that failed").await?;
    client.simple_query("commit").await?;
    drop(client);
    connection.abort();
    paused(ConditionStatus::True).await?;
    stage.change("shop", json!({"paused": false})).await?;
    paused(ConditionStatus::False).await?;
    moves_on(&stage, "at the end").await?;

    let ledger = load.end().await?;
    ensure!(ledger.errors.is_empty(), "{}", ledger.told());
    Ok(format!(
        "paused after {} ms; {}",
        took.as_millis(),
        ledger.told()
    ))
}

async fn moves_on(stage: &Stage, when: &str) -> anyhow::Result<()> {
    let count = "select count(*) from ledger";
    let before = postgres::sql(stage, "db-0", count).await?;
    until(MINUTE, &format!("clients write {when}"), || async {
        let now = postgres::sql(stage, "db-0", count).await?;
        Ok((now != before).then_some(()))
    })
    .await
}
