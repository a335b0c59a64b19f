//! The operator that is installed, and its way to the proxies.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use pgdog_config::api::Status;
use pgdog_operator::authority::{Authority, Pair, Purpose};
use pgdog_operator::http::{Client, Identity};
use serde_json::json;

use crate::cluster::{Door, Stage, until};

/// Where it is installed.
pub(crate) const NAMESPACE: &str = "pgdog-system";
/// The name of its Deployment and its Lease.
pub(crate) const NAME: &str = "pgdog-operator";
/// The name in its certificate.
pub(crate) const IDENTITY: &str = "pgdog-operator";
/// Time that a proxy has to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

fn api<K>(stage: &Stage) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(stage.client.clone(), NAMESPACE)
}

/// Its Deployment.
async fn deployment(stage: &Stage) -> anyhow::Result<Deployment> {
    Ok(api::<Deployment>(stage).get(NAME).await?)
}

/// Changes its Deployment.
async fn change(stage: &Stage, patch: serde_json::Value) -> anyhow::Result<()> {
    api::<Deployment>(stage)
        .patch(NAME, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    Ok(())
}

/// Replaces it by the one of another tag, as people do it. From the project's directory.
pub(crate) async fn upgrade(stage: &Stage, tag: &str) -> anyhow::Result<()> {
    let tag = format!("image.tag={tag}");
    let args = [
        "upgrade",
        NAME,
        "charts/pgdog-operator",
        "--reuse-values",
        "--set",
        &tag,
    ];
    let output = tokio::process::Command::new("helm")
        .args(["--namespace", NAMESPACE])
        .args(args)
        .kill_on_drop(true)
        .output()
        .await
        .context("run helm")?;
    anyhow::ensure!(
        output.status.success(),
        "helm {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    settled(stage).await
}

/// Its pods that are not on their way out.
pub(crate) async fn pods(stage: &Stage) -> anyhow::Result<Vec<Pod>> {
    let of = ListParams::default().labels("app.kubernetes.io/name=pgdog-operator");
    let pods = api::<Pod>(stage).list(&of).await?;
    Ok(pods.items)
}

/// Stops all replicas; returns how many there were.
pub(crate) async fn stop(stage: &Stage) -> anyhow::Result<i32> {
    let before = deployment(stage).await?.spec.and_then(|s| s.replicas);
    change(stage, json!({"spec": {"replicas": 0}})).await?;
    until(
        Duration::from_secs(60),
        "the operator has stopped",
        || async { Ok(pods(stage).await?.is_empty().then_some(())) },
    )
    .await?;
    Ok(before.unwrap_or(1))
}

/// Starts so many replicas, and waits until they are ready and one of them leads.
pub(crate) async fn start(stage: &Stage, replicas: i32) -> anyhow::Result<()> {
    change(stage, json!({"spec": {"replicas": replicas}})).await?;
    settled(stage).await
}

/// Waits until all replicas are of the latest template and ready, and one of them leads.
pub(crate) async fn settled(stage: &Stage) -> anyhow::Result<()> {
    until(
        Duration::from_secs(120),
        "the operator is ready",
        || async {
            let deployment = deployment(stage).await?;
            let generation = deployment.metadata.generation;
            let wanted = deployment.spec.and_then(|s| s.replicas).unwrap_or(1);
            let status = deployment.status.unwrap_or_default();
            let all = [
                status.replicas,
                status.ready_replicas,
                status.updated_replicas,
            ];
            if status.observed_generation != generation || all != [Some(wanted); 3] {
                return Ok(None);
            }
            let (holder, _) = lease(stage).await?;
            let pods = pods(stage).await?;
            Ok(pods
                .iter()
                .any(|pod| pod.name_any() == holder)
                .then_some(()))
        },
    )
    .await
}

/// Who leads, and its epoch.
pub(crate) async fn lease(stage: &Stage) -> anyhow::Result<(String, i32)> {
    let spec = api::<Lease>(stage)
        .get(NAME)
        .await?
        .spec
        .unwrap_or_default();
    let epoch = spec.lease_transitions.unwrap_or_default();
    Ok((spec.holder_identity.unwrap_or_default(), epoch))
}

/// The pod that leads.
pub(crate) async fn leader(stage: &Stage) -> anyhow::Result<Pod> {
    let (holder, _) = lease(stage).await?;
    let pod = api::<Pod>(stage).get(&holder).await;
    pod.with_context(|| format!("the leader {holder:?}"))
}

/// Its authority.
pub(crate) async fn authority(stage: &Stage) -> anyhow::Result<Pair> {
    let secret = api::<Secret>(stage).get("pgdog-operator-ca").await?;
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| {
        let bytes = data.get(key).with_context(|| format!("no key {key}"))?;
        anyhow::Ok(String::from_utf8(bytes.0.clone())?)
    };
    Ok(Pair {
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}

/// A client of a proxy's admin API with the operator's rights.
pub(crate) async fn client(stage: &Stage, cluster: &str, door: &Door) -> anyhow::Result<Client> {
    let authority = Authority::of(&authority(stage).await?)?;
    let own = authority.issue(IDENTITY, &[], Purpose::Client)?;
    client_as(stage, cluster, door, &own, authority.certificate())
}

/// A client of a proxy's admin API with this certificate.
pub(crate) fn client_as(
    stage: &Stage,
    cluster: &str,
    door: &Door,
    own: &Pair,
    authority: &str,
) -> anyhow::Result<Client> {
    let identity = Identity::new(own, authority)?;
    let name = format!("{cluster}-proxy.{}.pgdog", stage.namespace);
    let (host, port) = &door.admin;
    Client::new(format!("{host}:{port}"), &name, identity)
}

/// What a proxy says of itself.
pub(crate) async fn status(stage: &Stage, cluster: &str, door: &Door) -> anyhow::Result<Status> {
    let mut client = client(stage, cluster, door).await?;
    Ok(client.status(PATIENCE).await?)
}

/// What all proxies of a cluster say of themselves, for people.
pub(crate) async fn statuses(stage: &Stage, cluster: &str) -> anyhow::Result<String> {
    let mut told = String::new();
    for (pod, _) in stage.proxies(cluster).await? {
        let said = async {
            let door = stage.door(&pod).await?;
            status(stage, cluster, &door).await
        };
        match said.await {
            Ok(status) => writeln!(told, "{pod}: {}", serde_json::to_string(&status)?)?,
            Err(error) => writeln!(told, "{pod}: {error:#}")?,
        }
    }
    Ok(told)
}
