//! Whoever runs the Postgres.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use pgdog_config::api::Status;
use pgdog_operator_api::{ConditionStatus, ConditionType, EndpointsStatus};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::MINUTE;
use crate::cluster::{Stage, until};
use crate::load::{ask, config};
use crate::operator;
use crate::postgres::{self, Shape};

/// Writes through the proxies reach this pod.
async fn write_reaches(stage: &Stage, cluster: &str, pod: &str) -> anyhow::Result<()> {
    let clients = config(&stage.address(cluster).await?, postgres::PASSWORD);
    let wanted = postgres::ip(stage, pod).await?;
    ask(
        &clients,
        "create table if not exists written (host inet default inet_server_addr())",
    )
    .await?;
    until(
        Duration::from_secs(20),
        &format!("writes reach {pod}"),
        || async {
            let host = ask(
                &clients,
                "insert into written default values returning host(host)",
            )
            .await?;
            Ok((host == wanted).then_some(()))
        },
    )
    .await
}

/// Labels of Zalando's operator, with a master Service that selects nothing, as Patroni keeps it.
pub(crate) async fn zalando(stage: Stage) -> anyhow::Result<String> {
    let shape = Shape {
        replicas: 1,
        labels: json!({"application": "spilo", "cluster-name": "main"}),
        role: Some(("spilo-role", ["master", "replica"])),
        ..Shape::default()
    };
    postgres::start_as(&stage, &shape).await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "main", "labels": shape.labels}, "spec": {"ports": [{"name": "postgresql", "port": 5432}]},
    }))?;
    stage.api().create(&PostParams::default(), &service).await?;
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "main", "labels": {"kubernetes.io/service-name": "main"}},
        "addressType": "IPv4", "ports": [{"name": "postgresql", "port": 5432, "protocol": "TCP"}],
        "endpoints": [{"addresses": [postgres::ip(&stage, "db-0").await?], "conditions": {"ready": true}}],
    }))?;
    stage.api().create(&PostParams::default(), &slice).await?;
    let by_labels = json!({"provider": "Zalando", "clusterRef": {"name": "main"}});
    let by_service = json!({"provider": "Service", "services": [{"name": "main"}]});
    for (name, source) in [("labels", by_labels), ("service", by_service)] {
        stage
            .make(name, json!({"source": source, "replicas": 1}))
            .await?;
        stage.settled(name, 2 * MINUTE).await?;
        write_reaches(&stage, name, "db-0").await?;
    }
    let found = stage.status("labels").await?.endpoints;
    ensure!(
        found.primary_summary == "db-0" && found.replicas == 1,
        "{found:?}"
    );
    // As Patroni does it.
    let promote = postgres::direct(&stage, "db-1").await?;
    let pods: Api<Pod> = stage.api();
    pods.delete("db-0", &DeleteParams::default().grace_period(0))
        .await?;
    ask(&promote, "select pg_promote()").await?;
    postgres::label(&pods, "db-1", "spilo-role", "master").await?;
    let slice = json!({"endpoints": [{"addresses": [postgres::ip(&stage, "db-1").await?], "conditions": {"ready": true}}]});
    stage
        .kubectl(&[
            "patch",
            "endpointslice",
            "main",
            "--type=merge",
            "-p",
            &slice.to_string(),
        ])
        .await?;
    for name in ["labels", "service"] {
        write_reaches(&stage, name, "db-1").await?;
    }
    Ok("by labels and by a Service that selects nothing, before and after a failover".to_owned())
}

/// A headless Service: nobody says who the primary is, the proxies ask.
pub(crate) async fn headless(stage: Stage) -> anyhow::Result<String> {
    let shape = Shape {
        replicas: 1,
        labels: json!({"app": "postgres"}),
        ..Shape::default()
    };
    postgres::start_as(&stage, &shape).await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "postgres"},
        "spec": {"clusterIP": "None", "selector": {"app": "postgres"}, "ports": [{"port": 5432}]},
    }))?;
    stage.api().create(&PostParams::default(), &service).await?;
    let source = json!({"provider": "Service", "services": [{"name": "postgres"}]});
    stage.make("shop", json!({"source": source})).await?;
    stage.settled("shop", 2 * MINUTE).await?;
    write_reaches(&stage, "shop", "db-0").await?;
    primary_is(&stage, "shop", "db-0").await?;
    let promote = postgres::direct(&stage, "db-1").await?;
    postgres::switch(&stage, "db-0", "db-1", &promote).await?;
    write_reaches(&stage, "shop", "db-1").await?;
    let found = primary_is(&stage, "shop", "db-1").await?;
    ensure!(found.last_failover_time.is_some(), "{found:?}");
    until(MINUTE, "the former primary is a replica", || async {
        let found = stage.status("shop").await?.endpoints;
        Ok((found.replicas == 1).then_some(()))
    })
    .await?;
    Ok(format!("primary: {}", found.primary_summary))
}

/// The status names who takes writes, as the proxies have found out.
async fn primary_is(stage: &Stage, cluster: &str, host: &str) -> anyhow::Result<EndpointsStatus> {
    let what = format!("the status of {cluster} names {host}");
    until(Duration::from_secs(15), &what, || async {
        let found = stage.status(cluster).await?.endpoints;
        Ok((found.primary_summary == host).then_some(found))
    })
    .await
}

/// Hosts by name, and the URI in a Secret.
pub(crate) async fn outside(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 1).await?;
    let name = |pod: &str| format!("{pod}.{}.svc.cluster.local", stage.namespace);
    let hosts =
        json!({"provider": "Static", "hosts": [{"host": name("db-0")}, {"host": name("db-1")}]});
    let uri = format!(
        "postgres://postgres:{}@{}:5432/postgres",
        postgres::PASSWORD,
        name("db-0")
    );
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "uri"}, "stringData": {"uri": uri},
    }))?;
    stage.api().create(&PostParams::default(), &secret).await?;
    let by_uri = json!({"provider": "Static", "uriSecretRef": {"name": "uri"}});
    for (cluster, source) in [("hosts", hosts), ("uri", by_uri)] {
        stage
            .make(cluster, json!({"source": source, "replicas": 1}))
            .await?;
        stage.settled(cluster, 2 * MINUTE).await?;
        write_reaches(&stage, cluster, "db-0").await?;
    }
    // The other names are in the Secret from now on.
    let uri = json!({"stringData": {"uri": format!("postgres://postgres@{}:5432/postgres", name("db-1"))}});
    let promote = postgres::direct(&stage, "db-1").await?;
    postgres::switch(&stage, "db-0", "db-1", &promote).await?;
    stage
        .kubectl(&[
            "patch",
            "secret",
            "uri",
            "--type=merge",
            "-p",
            &uri.to_string(),
        ])
        .await?;
    for cluster in ["hosts", "uri"] {
        write_reaches(&stage, cluster, "db-1").await?;
        primary_is(&stage, cluster, &name("db-1")).await?;
    }
    // A name that nobody knows is told of.
    let lost = json!({"source": {"provider": "Static", "uriSecretRef": null, "hosts": [{"host": name("nobody")}]}});
    stage.change("uri", lost).await?;
    let (reason, message) = stage
        .condition(
            "uri",
            ConditionType::EndpointsResolved,
            ConditionStatus::False,
            MINUTE,
        )
        .await?;
    ensure!(reason == "NoPrimary", "{reason}: {message}");
    ensure!(message.contains("nobody"), "{message}");
    Ok("hosts by name and by a URI, before and after a failover".to_owned())
}

/// The Postgres is put to sleep: the proxies keep what they know, and serve again when it wakes.
pub(crate) async fn hibernated(stage: Stage) -> anyhow::Result<String> {
    postgres::start(&stage, 0).await?;
    stage
        .make(
            "shop",
            json!({"source": postgres::source(), "failover": {"holdTimeout": "2s"}}),
        )
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let before = stage.proxies("shop").await?;
    let topology = stage.status("shop").await?.config.topology;
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    stage
        .api::<Pod>()
        .delete("db-0", &DeleteParams::default())
        .await?;
    let (reason, _) = stage
        .condition(
            "shop",
            ConditionType::EndpointsResolved,
            ConditionStatus::False,
            MINUTE,
        )
        .await?;
    ensure!(reason == "SourceNotFound", "{reason}");
    // A server that is on its way out answers for a moment.
    until(MINUTE, "nobody answers", || async {
        Ok(ask(&clients, "select 1").await.is_err().then_some(()))
    })
    .await?;
    let asleep = stage.status("shop").await?.config.topology;
    ensure!(asleep.hash == topology.hash, "the topology was taken away");
    for door in stage.doors("shop").await? {
        let status: Status = operator::status(&stage, "shop", &door).await?;
        ensure!(
            status.topology.sha256.as_deref() == Some(topology.hash.as_str()),
            "{}: {:?}",
            door.pod,
            status.topology
        );
    }
    stage.kubectl(&["delete", "service", "db-0"]).await?;
    until(MINUTE, "the pod has gone", || async {
        Ok(stage
            .api::<Pod>()
            .get_opt("db-0")
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    postgres::start(&stage, 0).await?;
    let begun = std::time::Instant::now();
    until(MINUTE, "it answers again", || async {
        Ok(Some(ask(&clients, "select 1").await?))
    })
    .await?;
    let took = begun.elapsed();
    ensure!(stage.proxies("shop").await? == before, "pods were replaced");
    Ok(format!("answers {} ms after it woke", took.as_millis()))
}

/// A second shard comes to all proxies at one moment, or to none: a transaction that does not end holds it up. Afterwards the
/// topology names the hosts of both, and follows each one's failover.
pub(crate) async fn shards(stage: Stage) -> anyhow::Result<String> {
    let mut shards = Vec::new();
    for (number, name) in ["left", "right"].into_iter().enumerate() {
        let shape = Shape {
            name: Some(name),
            labels: json!({"cnpg.io/cluster": name, "cnpg.io/podRole": "instance"}),
            ..Shape::cnpg(1)
        };
        postgres::start_as(&stage, &shape).await?;
        shards.push(json!({"number": number, "source": {"provider": "CloudNativePG", "clusterRef": {"name": name}}}));
    }
    stage
        .make("shop", json!({"shards": shards[..1], "replicas": 2}))
        .await?;
    stage.settled("shop", 2 * MINUTE).await?;
    let doors = stage.doors("shop").await?;
    let one = [("left-0", 0), ("left-1", 0)];
    let two = [("left-0", 0), ("left-1", 0), ("right-0", 1), ("right-1", 1)];
    let clients = config(&stage.address("shop").await?, postgres::PASSWORD);
    let (client, connection) = clients.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    client.simple_query("begin; select 1").await?;
    stage.change("shop", json!({"shards": shards})).await?;
    stage.degraded("shop", "ShardingHeld").await?;
    for door in &doors {
        hosts_are(&stage, door, one).await?;
    }
    client.simple_query("commit").await?;
    stage.settled("shop", MINUTE).await?;
    let after = client.simple_query("select 1").await;
    let error = after.err().context("one shard answers for both")?;
    ensure!(
        error.code().is_some_and(|code| code.code() == "0A000"),
        "{error:?}"
    );
    connection.abort();
    for door in &doors {
        hosts_are(&stage, door, two).await?;
    }
    let primaries = stage.status("shop").await?.endpoints.primaries;
    ensure!(
        primaries
            .iter()
            .map(|p| (p.shard, p.name.as_str()))
            .eq([(0, "left-0"), (1, "right-0")]),
        "{primaries:?}"
    );
    let promote = postgres::direct(&stage, "right-1").await?;
    postgres::switch(&stage, "right-0", "right-1", &promote).await?;
    until(
        Duration::from_secs(20),
        "the status names the new primary",
        || async {
            let primaries = stage.status("shop").await?.endpoints.primaries;
            Ok(primaries
                .iter()
                .map(|p| (p.shard, p.name.as_str()))
                .eq([(0, "left-0"), (1, "right-1")])
                .then_some(()))
        },
    )
    .await?;
    Ok(
        "held up by a transaction on both, then 4 hosts of 2 shards on both; queries are refused"
            .to_owned(),
    )
}

/// Whether a proxy's topology has these pods as hosts of these shards.
async fn hosts_are<const N: usize>(
    stage: &Stage,
    door: &crate::cluster::Door,
    wanted: [(&str, u64); N],
) -> anyhow::Result<()> {
    let mut client = operator::client(stage, "shop", door).await?;
    let config: Value = client
        .ask(
            hyper::Method::GET,
            "/v1/config",
            hyper::body::Bytes::new(),
            operator::PATIENCE,
        )
        .await?;
    let mut hosts = Vec::new();
    for host in config["topology"]["config"]["databases"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let address = host["host"].as_str().unwrap_or_default().to_owned();
        hosts.push((address, host["shard"].as_u64().unwrap_or_default()));
    }
    hosts.sort();
    let mut all = Vec::new();
    for (pod, shard) in wanted {
        all.push((postgres::ip(stage, pod).await?, shard));
    }
    all.sort();
    ensure!(hosts == all, "{hosts:?}, not {all:?}");
    Ok(())
}
