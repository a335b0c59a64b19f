//! Writes to the API server: children by server-side apply, the status, certificates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use pgdog_operator_api::{ClientTlsMode, Mode, PgDogCluster, PgDogClusterStatus, labels};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::authority::{self, Purpose};
use crate::context::{Context, Memory};
use crate::render::children::{Children, proxy_name};
use crate::render::pod::{admin_secret, client_tls_secret, config_secret};
use crate::render::snapshot;
use crate::world::World;

/// Who writes.
pub const MANAGER: &str = "pgdog-operator";

/// A child that was applied is not applied again within this time, unless it is to be another one.
const FRESH: Duration = Duration::from_secs(50);

/// What the API server refused.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A write.
    #[error("apply {what}: {source}")]
    Refused {
        /// Kind and name.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A certificate could not be made.
    #[error("make the certificate of {what}: {source:#}")]
    Certificate {
        /// For what.
        what: String,
        /// Why.
        source: anyhow::Error,
    },
}

/// Applies the children, and takes away those that are wanted no more. Returns why one could not be: a Service of that name that
/// belongs to somebody else is not overwritten.
///
/// # Errors
///
/// What the API server refused.
pub async fn children(
    cluster: &PgDogCluster,
    children: &Children,
    world: &World,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Option<String>, ApplyError> {
    let name = cluster.name_any();
    // Somebody else's Service of our name is not overwritten.
    let foreign = world.services.iter().find(|service| {
        service.name_any() == name
            && children.service.is_some()
            && !service
                .owner_references()
                .iter()
                .any(|owner| Some(&owner.uid) == cluster.uid().as_ref())
    });
    // What has gone is made again at once.
    if !world.secrets.contains_key(&config_secret(&name)) {
        memory
            .applied
            .remove(&format!("Secret/{}", config_secret(&name)));
    }
    if !world
        .services
        .iter()
        .any(|service| service.name_any() == name)
    {
        memory.applied.remove(&format!("Service/{name}"));
    }
    apply(cluster, &children.config, memory, cx).await?;
    if let Some(account) = &children.account {
        apply(cluster, account, memory, cx).await?;
    }
    if let Some(deployment) = &children.deployment {
        apply(cluster, deployment, memory, cx).await?;
    }
    if cluster.spec.mode == Mode::Sidecar {
        return Ok(None);
    }
    let proxy = proxy_name(cluster);
    match &children.pdb {
        Some(pdb) => apply(cluster, pdb, memory, cx).await?,
        None => remove::<PodDisruptionBudget>(cluster, &proxy, memory, cx).await?,
    }
    match &children.autoscaler {
        Some(autoscaler) => apply(cluster, autoscaler, memory, cx).await?,
        None => remove::<HorizontalPodAutoscaler>(cluster, &proxy, memory, cx).await?,
    }
    if foreign.is_some() {
        return Ok(Some(format!(
            "Service {name} exists and is not of this PgDogCluster: delete it, or give the PgDogCluster another name"
        )));
    }
    if let Some(service) = &children.service {
        apply(cluster, service, memory, cx).await?;
    }
    Ok(None)
}

/// Whether a child was brought in line a short while ago: what somebody changes or deletes is put right afterwards.
fn is_fresh(memory: &Memory, what: &str, wanted: &Value) -> bool {
    let applied = memory.applied.get(what);
    applied.is_some_and(|(last, at)| last == wanted && at.elapsed() < FRESH)
}

async fn apply<K>(
    cluster: &PgDogCluster,
    object: &K,
    memory: &mut Memory,
    cx: &Context,
) -> Result<(), ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let name = object.name_any();
    let what = format!("{}/{name}", K::kind(&()));
    let mut wanted = serde_json::to_value(object).unwrap_or_default();
    wanted["apiVersion"] = K::api_version(&()).into();
    wanted["kind"] = K::kind(&()).into();
    if is_fresh(memory, &what, &wanted) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(cx.client.clone(), &cluster.namespace().unwrap_or_default());
    api.patch(
        &name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(&wanted),
    )
    .await
    .map_err(|source| ApplyError::Refused {
        what: what.clone(),
        source: Box::new(source),
    })?;
    tracing::debug!("applied {what}");
    memory.applied.insert(what, (wanted, Instant::now()));
    Ok(())
}

/// Takes a child away that this process has applied, or that is still there from a former one.
async fn remove<K>(
    cluster: &PgDogCluster,
    name: &str,
    memory: &mut Memory,
    cx: &Context,
) -> Result<(), ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let what = format!("{}/{name}", K::kind(&()));
    if is_fresh(memory, &what, &Value::Null) {
        return Ok(());
    }
    let refused = |source| ApplyError::Refused {
        what: what.clone(),
        source: Box::new(source),
    };
    let api: Api<K> = Api::namespaced(cx.client.clone(), &cluster.namespace().unwrap_or_default());
    if let Some(present) = api.get_opt(name).await.map_err(refused)?
        && present
            .owner_references()
            .iter()
            .any(|owner| Some(&owner.uid) == cluster.uid().as_ref())
    {
        api.delete(name, &DeleteParams::default())
            .await
            .map_err(refused)?;
        tracing::info!("removed {what}");
    }
    memory.applied.insert(what, (Value::Null, Instant::now()));
    Ok(())
}

/// Writes the status.
///
/// # Errors
///
/// What the API server refused.
pub async fn status(
    cluster: &PgDogCluster,
    status: &PgDogClusterStatus,
    cx: &Context,
) -> Result<(), ApplyError> {
    let api: Api<PgDogCluster> =
        Api::namespaced(cx.client.clone(), &cluster.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": PgDogCluster::api_version(&()),
        "kind": PgDogCluster::kind(&()),
        "status": status,
    });
    api.patch_status(
        &cluster.name_any(),
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(&patch),
    )
    .await
    .map_err(|source| ApplyError::Refused {
        what: format!("the status of PgDogCluster/{}", cluster.name_any()),
        source: Box::new(source),
    })?;
    Ok(())
}

/// Makes the certificates of a cluster that are missing or due.
///
/// # Errors
///
/// What the API server refused.
pub async fn certificates(
    cluster: &PgDogCluster,
    world: &World,
    cx: &Context,
) -> Result<(), ApplyError> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let admin = format!("{name}-proxy.{namespace}.pgdog");
    certificate(cluster, &admin_secret(&name), vec![admin], world, cx).await?;
    let client = cluster
        .spec
        .tls
        .clone()
        .unwrap_or_default()
        .client
        .unwrap_or_default();
    let own = client.secret_ref.is_none() && client.mode != ClientTlsMode::Disabled;
    if own && cluster.spec.mode == Mode::Deployment {
        let names = [
            "",
            &format!(".{namespace}"),
            &format!(".{namespace}.svc"),
            &format!(".{namespace}.svc.cluster.local"),
        ]
        .map(|suffix| format!("{name}{suffix}"))
        .to_vec();
        certificate(cluster, &client_tls_secret(&name), names, world, cx).await?;
    }
    Ok(())
}

async fn certificate(
    cluster: &PgDogCluster,
    secret: &str,
    names: Vec<String>,
    world: &World,
    cx: &Context,
) -> Result<(), ApplyError> {
    let now = Timestamp::now();
    let authority = cx.authority.certificate();
    if let Some(present) = world.secret_text(secret, "tls.crt")
        && !authority::is_due(&present, authority, now)
        && world.secret_text(secret, "ca.crt").as_deref() == Some(authority)
    {
        return Ok(());
    }
    let pair = cx
        .authority
        .issue(&names[0], &names, Purpose::Server)
        .map_err(|source| ApplyError::Certificate {
            what: secret.to_owned(),
            source,
        })?;
    let object = Secret {
        metadata: kube::core::ObjectMeta {
            name: Some(secret.to_owned()),
            namespace: cluster.namespace(),
            labels: Some(BTreeMap::from([
                (labels::CLUSTER.to_owned(), cluster.name_any()),
                (labels::MANAGED_BY.to_owned(), MANAGER.to_owned()),
            ])),
            owner_references: cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..kube::core::ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(BTreeMap::from([
            ("tls.crt".to_owned(), pair.certificate),
            ("tls.key".to_owned(), pair.key),
            ("ca.crt".to_owned(), authority.to_owned()),
        ])),
        ..Secret::default()
    };
    apply(cluster, &object, &mut Memory::default(), cx).await?;
    tracing::info!("renewed the certificate in Secret {secret}");
    Ok(())
}

/// What was in force before this process started, from the Secret that proxies start with.
pub fn recall(cluster: &PgDogCluster, world: &World, memory: &mut Memory) {
    let secret = config_secret(&cluster.name_any());
    let read = |key: &str| {
        let text = world.secret_text(&secret, key)?;
        serde_json::from_str::<Value>(&text).ok()
    };
    let map = |key: &str| match read(key) {
        Some(Value::Object(map)) if !map.is_empty() => Some(map),
        _ => None,
    };
    memory.topology = map(snapshot::TOPOLOGY);
    memory.process = map(snapshot::PROCESS);
    memory.settings = map(snapshot::SETTINGS);
    memory.good.clone_from(&memory.settings);
    memory.replaced = read(snapshot::REPLACED)
        .and_then(|replaced| serde_json::from_value(replaced).ok())
        .unwrap_or_default();
}
