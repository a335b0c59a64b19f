//! Writes to the API server: children by server-side apply, the status, certificates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Resource, ResourceExt};
use pgdog_config::documents;
use pgdog_operator_api::{ClientTlsMode, Mode, PgDogCluster, PgDogClusterStatus, labels};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::authority::{self, Purpose};
use crate::context::{Applied, Context, Memory};
use crate::render::children::{Children, proxy_name};
use crate::render::monitor::PodMonitor;
use crate::render::pod::{admin_secret, client_tls_secret, config_secret};
use crate::render::snapshot;
use crate::status;
use crate::world::World;

/// Who writes.
pub const MANAGER: &str = "pgdog-operator";

/// A child that was applied is not applied again within this time, unless it is to be another one.
const FRESH: Duration = Duration::from_secs(50);

/// Whoever changes a child back and forth is answered no more often than this.
const FIGHT: Duration = Duration::from_secs(1);

/// What the API server refused.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A write.
    #[error("apply {what}: {}", words(source))]
    Refused {
        /// Kind and name.
        what: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The Lease was not renewed in time: another replica may lead.
    #[error("{what} is not written: this replica leads no more")]
    Over {
        /// What was to be written.
        what: String,
    },
    /// The operator itself is wrong; the log has more.
    #[error("reconcile {what}: a defect of the operator, see its log")]
    Defect {
        /// Kind and name.
        what: String,
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

/// What the API server says, for people.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Why a child is not as it is to be, until somebody does something about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// An object has its name and belongs to somebody else: kind and name.
    Foreign(String),
    /// The cluster has no objects of its kind: kind and name.
    NoSuchKind(String),
    /// The API server does not take it: what it says.
    Refused(String),
}

impl Obstacle {
    /// For programs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Foreign(_) => "InvalidOwnership",
            Self::NoSuchKind(_) => "NoSuchKind",
            Self::Refused(_) => "ApplyFailed",
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Foreign(what) => write!(
                f,
                "{what} exists and is not of this PgDogCluster: delete it, or give the PgDogCluster another name"
            ),
            Self::Refused(why) => f.write_str(why),
            Self::NoSuchKind(what) => write!(
                f,
                "{what} cannot be made, for this Kubernetes knows no such kind: install the operator that brings it, or take out \
                 what asks for it"
            ),
        }
    }
}

/// Whether an object is a child of this cluster, or one of a former life of it that nobody owns any more.
fn is_ours(cluster: &PgDogCluster, object: &ObjectMeta) -> bool {
    let mut owners = object.owner_references.iter().flatten();
    if owners.any(|owner| Some(&owner.uid) == cluster.uid().as_ref()) {
        return true;
    }
    let is = |label: &str, value: &str| {
        let labels = object.labels.as_ref();
        labels
            .and_then(|labels| labels.get(label))
            .map(String::as_str)
            == Some(value)
    };
    let owned = object.owner_references.iter().flatten().next().is_some();
    !owned && is(labels::MANAGED_BY, MANAGER) && is(labels::CLUSTER, &cluster.name_any())
}

/// Applies the Secret that proxies start with. Returns why it could not be.
///
/// # Errors
///
/// What the API server refused.
pub async fn config(
    cluster: &PgDogCluster,
    children: &Children,
    world: &World,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Option<Obstacle>, ApplyError> {
    look_after(cluster, world, memory);
    apply(cluster, &children.config, memory, cx).await
}

/// Applies the other children, and takes away those that are wanted no more. Returns why some could not be: an object of that
/// name that belongs to somebody else is not touched, and no pod is made that would mount it.
///
/// # Errors
///
/// What the API server refused.
pub async fn children(
    cluster: &PgDogCluster,
    children: &Children,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Vec<Obstacle>, ApplyError> {
    let mut obstacles = Vec::new();
    if let Some(account) = &children.account {
        obstacles.extend(apply(cluster, account, memory, cx).await?);
    }
    if !obstacles.is_empty() {
        return Ok(obstacles);
    }
    if let Some(deployment) = &children.deployment {
        obstacles.extend(apply(cluster, deployment, memory, cx).await?);
    }
    if cluster.spec.mode == Mode::Deployment {
        obstacles.extend(around(cluster, children, memory, cx).await?);
    }
    obstacles.extend(monitor(cluster, children, memory, cx).await);
    Ok(obstacles)
}

/// What stands around the pods: in mode Deployment.
async fn around(
    cluster: &PgDogCluster,
    children: &Children,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Vec<Obstacle>, ApplyError> {
    let mut obstacles = Vec::new();
    let proxy = proxy_name(cluster);
    if let Some(service) = &children.service {
        obstacles.extend(apply(cluster, service, memory, cx).await?);
    }
    match &children.pdb {
        Some(pdb) => obstacles.extend(apply(cluster, pdb, memory, cx).await?),
        None => remove::<PodDisruptionBudget>(cluster, &proxy, memory, cx).await?,
    }
    match &children.autoscaler {
        Some(autoscaler) => obstacles.extend(apply(cluster, autoscaler, memory, cx).await?),
        None => remove::<HorizontalPodAutoscaler>(cluster, &proxy, memory, cx).await?,
    }
    Ok(obstacles)
}

/// The PodMonitor, last of all: it is somebody else's kind, and nothing waits for it.
async fn monitor(
    cluster: &PgDogCluster,
    children: &Children,
    memory: &mut Memory,
    cx: &Context,
) -> Option<Obstacle> {
    match &children.monitor {
        Some(monitor) => match apply(cluster, monitor, memory, cx).await {
            Ok(obstacle) => obstacle,
            Err(error) => Some(Obstacle::Refused(error.to_string())),
        },
        None => {
            let removed = remove::<PodMonitor>(cluster, &proxy_name(cluster), memory, cx).await;
            // Nobody has asked for one: who may not look at them has none.
            if let Err(error) = removed {
                tracing::debug!("{error}");
            }
            None
        }
    }
}

/// What has gone or was changed by somebody is put right at once.
fn look_after(cluster: &PgDogCluster, world: &World, memory: &mut Memory) {
    let name = cluster.name_any();
    if !world.secrets.contains_key(&config_secret(&name)) {
        forget(memory, &format!("Secret/{}", config_secret(&name)));
    }
    if !world.services.iter().any(|s| s.name_any() == name) {
        forget(memory, &format!("Service/{name}"));
    }
    let name = proxy_name(cluster);
    let what = format!("Deployment/{name}");
    let there = world.deployments.iter().find(|d| d.name_any() == name);
    let kept = there
        .zip(memory.applied.get(&what))
        .is_some_and(|(there, applied)| {
            // What the watch has seen may be of before.
            there.metadata.generation <= applied.generation || applied.at.elapsed() < FIGHT
        });
    if !kept {
        forget(memory, &what);
    }
}

/// It is to be applied again whatever was applied last.
fn forget(memory: &mut Memory, what: &str) {
    memory.applied.remove(what);
}

/// Whether a child was brought in line a short while ago: what somebody changes or deletes is put right afterwards.
fn is_fresh(memory: &Memory, what: &str, sha256: Option<&str>) -> bool {
    let applied = memory.applied.get(what);
    applied.is_some_and(|last| last.sha256.as_deref() == sha256 && last.at.elapsed() < FRESH)
}

/// What there is of an object: nothing also where the cluster knows no such kind.
async fn there<K>(api: &Api<K>, name: &str) -> kube::Result<Option<ObjectMeta>>
where
    K: Resource + DeserializeOwned + Clone + std::fmt::Debug,
{
    match api.get_metadata_opt(name).await {
        Ok(there) => Ok(there.map(|there| there.metadata)),
        Err(error) if is_without_kind(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path that leads nowhere is answered in plain text and not with a reason.
fn is_without_kind(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 && status.reason != "NotFound")
}

/// Applies one object, unless it is somebody else's.
async fn apply<K>(
    cluster: &PgDogCluster,
    object: &K,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Option<Obstacle>, ApplyError>
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
    let sha256 = documents::sha256(&wanted);
    if is_fresh(memory, &what, Some(&sha256)) {
        return Ok(None);
    }
    let refused = |source| ApplyError::Refused {
        what: what.clone(),
        source: Box::new(source),
    };
    let api: Api<K> = Api::namespaced(cx.client.clone(), &cluster.namespace().unwrap_or_default());
    let known = memory
        .applied
        .get(&what)
        .and_then(|applied| applied.uid.clone());
    let uid = match known {
        Some(uid) => Some(uid),
        None => match there(&api, &name).await.map_err(refused)? {
            Some(there) if !is_ours(cluster, &there) => return Ok(Some(Obstacle::Foreign(what))),
            there => there.and_then(|there| there.uid),
        },
    };
    if let Some(uid) = uid {
        // Refused where it has meanwhile become another object.
        wanted["metadata"]["uid"] = uid.into();
    }
    still_leads(&what, cx)?;
    let params = PatchParams::apply(MANAGER).force();
    let applied = match api.patch(&name, &params, &Patch::Apply(&wanted)).await {
        Ok(applied) => applied,
        Err(error) if is_without_kind(&error) => return Ok(Some(Obstacle::NoSuchKind(what))),
        Err(source) => {
            forget(memory, &what);
            return Err(refused(source));
        }
    };
    tracing::debug!("applied {what}");
    let applied = Applied {
        sha256: Some(sha256),
        uid: applied.uid(),
        generation: applied.meta().generation,
        at: Instant::now(),
    };
    memory.applied.insert(what, applied);
    Ok(None)
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
    if is_fresh(memory, &what, None) {
        return Ok(());
    }
    let refused = |source| ApplyError::Refused {
        what: what.clone(),
        source: Box::new(source),
    };
    let api: Api<K> = Api::namespaced(cx.client.clone(), &cluster.namespace().unwrap_or_default());
    if let Some(present) = there(&api, name).await.map_err(refused)?
        && is_ours(cluster, &present)
    {
        still_leads(&what, cx)?;
        api.delete(name, &DeleteParams::default())
            .await
            .map_err(refused)?;
        tracing::info!("removed {what}");
    }
    let applied = Applied {
        sha256: None,
        uid: None,
        generation: None,
        at: Instant::now(),
    };
    memory.applied.insert(what, applied);
    Ok(())
}

/// What a leader that stood still was about to write is not what its successor wrote.
fn still_leads(what: &str, cx: &Context) -> Result<(), ApplyError> {
    if cx.term.lasts() {
        return Ok(());
    }
    Err(ApplyError::Over {
        what: what.to_owned(),
    })
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
    write_status(cluster.meta(), status, cx).await
}

/// Writes all of a status, also of a resource that cannot be read: what the API server answers is not looked at.
async fn write_status(
    of: &ObjectMeta,
    status: &PgDogClusterStatus,
    cx: &Context,
) -> Result<(), ApplyError> {
    still_leads("the status", cx)?;
    let patch = json!({
        "apiVersion": PgDogCluster::api_version(&()),
        "kind": PgDogCluster::kind(&()),
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    raw(of, cx)
        .patch_status(&name(of), &params, &Patch::Apply(&patch))
        .await
        .map_err(|source| of_status(of, source))?;
    Ok(())
}

/// PgDogClusters as they are written.
fn raw(of: &ObjectMeta, cx: &Context) -> Api<DynamicObject> {
    let namespace = of.namespace.clone().unwrap_or_default();
    let kind = ApiResource::erase::<PgDogCluster>(&());
    Api::namespaced_with(cx.client.clone(), &namespace, &kind)
}

fn name(of: &ObjectMeta) -> String {
    of.name.clone().unwrap_or_default()
}

fn of_status(of: &ObjectMeta, source: kube::Error) -> ApplyError {
    ApplyError::Refused {
        what: format!("the status of PgDogCluster/{}", name(of)),
        source: Box::new(source),
    }
}

/// Writes into the status of a resource that it cannot be read. What else was known of it stays.
///
/// # Errors
///
/// What the API server refused.
pub async fn unreadable(of: &ObjectMeta, error: &str, cx: &Context) -> Result<(), ApplyError> {
    let api = raw(of, cx);
    let there = api.get_opt(&name(of)).await;
    let there = there.map_err(|source| of_status(of, source))?;
    let Some(there) = there.filter(|there| there.metadata.uid == of.uid) else {
        return Ok(());
    };
    let written = serde_json::from_value(there.data["status"].clone());
    let before: Option<PgDogClusterStatus> = written.ok();
    let mut status = before.clone().unwrap_or_default();
    let finding = status::unreadable(error);
    let degraded = status::degraded(std::slice::from_ref(&finding), None);
    let generation = of.generation.unwrap_or_default();
    let findings = vec![finding, degraded];
    status::merge(
        &mut status.conditions,
        findings,
        generation,
        Timestamp::now(),
    );
    status.observed_generation = of.generation;
    match before {
        Some(before) if before == status => Ok(()),
        Some(_) => write_status(of, &status, cx).await,
        None => {
            // Another version wrote what cannot be read of it either.
            still_leads("the status", cx)?;
            let patch = Patch::Merge(json!({"status": {
                "observedGeneration": generation, "conditions": status.conditions,
            }}));
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patched = api.patch_status(&name(of), &params, &patch).await;
            patched.map(|_| ()).map_err(|source| of_status(of, source))
        }
    }
}

/// Makes the certificates of a cluster that are missing or due. Returns the Secrets that are somebody else's.
///
/// # Errors
///
/// What the API server refused.
pub async fn certificates(
    cluster: &PgDogCluster,
    world: &World,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Vec<Obstacle>, ApplyError> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let admin = format!("{name}-proxy.{namespace}.pgdog");
    let mut obstacles = Vec::new();
    let secret = admin_secret(&name);
    obstacles.extend(certificate(cluster, &secret, vec![admin], world, memory, cx).await?);
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
        let secret = client_tls_secret(&name);
        obstacles.extend(certificate(cluster, &secret, names, world, memory, cx).await?);
    }
    Ok(obstacles)
}

async fn certificate(
    cluster: &PgDogCluster,
    secret: &str,
    names: Vec<String>,
    world: &World,
    memory: &mut Memory,
    cx: &Context,
) -> Result<Option<Obstacle>, ApplyError> {
    let present = world.secrets.get(secret);
    if present.is_some_and(|present| !is_ours(cluster, &present.metadata)) {
        return Ok(Some(Obstacle::Foreign(format!("Secret/{secret}"))));
    }
    let now = Timestamp::now();
    let authority = cx.authority.certificate();
    let text = |key: &str| world.secret_text(secret, key).unwrap_or_default();
    let (leaf, trusted) = (text("tls.crt"), text("ca.crt"));
    let bundle = cx.authority.bundle();
    if !authority::is_due(&leaf, authority, now) && trusted.starts_with(bundle.trim_end()) {
        return Ok(None);
    }
    let pair = cx
        .authority
        .issue(&names[0], &names, Purpose::Server)
        .map_err(|source| ApplyError::Certificate {
            what: secret.to_owned(),
            source,
        })?;
    let object = Secret {
        metadata: ObjectMeta {
            name: Some(secret.to_owned()),
            namespace: cluster.namespace(),
            labels: Some(BTreeMap::from([
                (labels::CLUSTER.to_owned(), cluster.name_any()),
                (labels::MANAGED_BY.to_owned(), MANAGER.to_owned()),
            ])),
            owner_references: cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        string_data: Some(BTreeMap::from([
            ("tls.crt".to_owned(), pair.certificate),
            ("tls.key".to_owned(), pair.key),
            (
                "ca.crt".to_owned(),
                authority::trusted(bundle, &trusted, &leaf, now),
            ),
        ])),
        ..Secret::default()
    };
    let obstacle = apply(cluster, &object, memory, cx).await?;
    if obstacle.is_none() {
        tracing::info!("renewed the certificate in Secret {secret}");
    }
    Ok(obstacle)
}

/// Whether the watches have seen what the API server has of a cluster now: itself with its status, the Secret that its proxies start
/// with, and their pods.
///
/// # Errors
///
/// What the API server refused.
pub async fn is_seen(
    cluster: &PgDogCluster,
    world: &World,
    cx: &Context,
) -> Result<bool, ApplyError> {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let refused = |source| ApplyError::Refused {
        what: format!("what is there of PgDogCluster/{name}"),
        source: Box::new(source),
    };
    let clusters: Api<PgDogCluster> = Api::namespaced(cx.client.clone(), &namespace);
    let now = clusters.get_metadata_opt(&name).await.map_err(refused)?;
    // Of one that cannot be read the last version that could be is all that there will be.
    let is_last = now.and_then(|one| one.metadata.resource_version) == cluster.resource_version();
    if !is_last && cx.unreadable(cluster).is_none() {
        return Ok(false);
    }
    let config = config_secret(&name);
    let secrets: Api<Secret> = Api::namespaced(cx.client.clone(), &namespace);
    let now = secrets.get_metadata_opt(&config).await.map_err(refused)?;
    let seen = world.secrets.get(&config);
    if now.and_then(|one| one.metadata.resource_version)
        != seen.and_then(|secret| secret.resource_version())
    {
        return Ok(false);
    }
    let api: Api<Pod> = Api::namespaced(cx.client.clone(), &namespace);
    let label = match cluster.spec.mode {
        Mode::Deployment => labels::CLUSTER,
        Mode::Sidecar => labels::INJECT,
    };
    let which = ListParams::default().labels(&format!("{label}={name}"));
    let now = api.list_metadata(&which).await.map_err(refused)?;
    let now: BTreeSet<_> = now.items.iter().filter_map(ResourceExt::uid).collect();
    let label = [(label.to_owned(), name.clone())];
    let seen = world.pods_with(&label);
    Ok(now == seen.filter_map(|pod| pod.uid()).collect())
}

/// What was in force before this process started, from the Secret that proxies start with.
pub fn recall(cluster: &PgDogCluster, world: &World, memory: &mut Memory) {
    let secret = config_secret(&cluster.name_any());
    let present = world.secrets.get(&secret);
    if present.is_some_and(|present| !is_ours(cluster, &present.metadata)) {
        return;
    }
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
    // Somebody may hold its clients because of it, and has to be told that it may go on.
    let file = read(snapshot::FILE).unwrap_or_default();
    memory.paused = (file["snapshot"]["paused"] == true).then_some(false);
    memory.refused =
        read(snapshot::REFUSED).and_then(|refused| serde_json::from_value(refused).ok());
    if let Some(refused) = &memory.refused {
        memory.files.clone_from(&refused.files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_this_owner_or_none_and_our_labels() {
        let cluster: PgDogCluster = serde_json::from_value(json!({
            "apiVersion": "pgdog.dev/v1alpha1",
            "kind": "PgDogCluster",
            "metadata": {"name": "shop", "namespace": "demo", "uid": "u"},
            "spec": {"databases": []},
        }))
        .unwrap();
        let is = |object: Value| is_ours(&cluster, &serde_json::from_value(object).unwrap());
        let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid}]);
        let labels =
            json!({"pgdog.dev/cluster": "shop", "app.kubernetes.io/managed-by": "pgdog-operator"});
        assert!(is(json!({"ownerReferences": owner("u")})));
        assert!(is(json!({"labels": labels})), "its cluster was restored");
        assert!(!is(json!({})));
        assert!(!is(
            json!({"ownerReferences": owner("other"), "labels": labels})
        ));
        assert!(!is(json!({"labels": {"pgdog.dev/cluster": "shop"}})));
    }
}
