//! Puts a proxy into a pod, as a native sidecar. Pure: the command line and the webhook call the same function.
//!
//! Guarantees: what the proxy does not need stays as it was; doing it twice gives the same; a proxy of a former time is replaced.
//! The proxy comes first: the init containers behind it can use the database.

pub mod command;
pub mod manifest;
#[cfg(test)]
mod tests;
mod yaml;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, ResourceExt};
use pgdog_operator_api::{Mode, PgDogCluster, Resources, annotations, labels};
use serde_json::{Map, Value, json};

use crate::observe;
use crate::render::children;
use crate::render::config::process;
use crate::render::pod::{CONTAINER, VOLUMES, container, volumes};
use crate::render::process::Ports;

/// Where the application finds its proxy.
const LOOPBACK: &str = "127.0.0.1";

/// What every annotation and label of ours begins with.
const PREFIX: &str = "pgdog.dev/";

/// The image of proxies whose cluster names none.
#[derive(Debug, Clone)]
pub struct DefaultImage {
    /// Which.
    pub name: String,
    /// Whether proxies get it also where others of their cluster were made with another one.
    pub upgrade: bool,
}

impl DefaultImage {
    /// The image of a cluster's proxies: the same as the operator expects them to have.
    fn of(&self, cluster: &PgDogCluster) -> String {
        let kept = cluster.status.as_ref().and_then(|now| now.image.as_deref());
        let default = observe::default_image(cluster, kept, &self.name, self.upgrade);
        observe::image(cluster, default)
    }
}

/// Why a pod gets no sidecar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The proxies of the cluster are pods of their own.
    #[error(
        "PgDogCluster {0} is of mode Deployment, whose proxies are pods of their own: take the label {label} away and connect to \
         Service {0}, or name a PgDogCluster of mode Sidecar",
        label = labels::INJECT
    )]
    Mode(String),
    /// A proxy in it would listen on the node.
    #[error(
        "spec.hostNetwork: a sidecar would listen on the node and not in the pod: take it out, or connect to a PgDogCluster of \
         mode Deployment"
    )]
    HostNetwork,
    /// Somebody else listens there.
    #[error(
        "{path}: port {port} is the sidecar's: choose another one, or set {field} of PgDogCluster {cluster}"
    )]
    Port {
        /// Where it stands.
        path: String,
        /// Which.
        port: i64,
        /// What to set.
        field: &'static str,
        /// Of which cluster.
        cluster: String,
    },
    /// It has our name and is not ours.
    #[error("{0}: the sidecar has this name: choose another one")]
    Foreign(String),
    /// It is no pod.
    #[error("{0}: {1}")]
    Shape(String, String),
}

/// Whether a pod, written as JSON, has a proxy as a sidecar.
#[must_use]
pub fn has_sidecar(pod: &Value) -> bool {
    list(pod, "initContainers").iter().any(is_sidecar)
}

fn is_sidecar(container: &Value) -> bool {
    container["name"] == CONTAINER && container["restartPolicy"] == "Always"
}

/// The cluster that a pod asks for.
#[must_use]
pub fn asked(pod: &Value) -> Option<&str> {
    pod["metadata"]["labels"][labels::INJECT].as_str()
}

/// Puts the proxy of a cluster into a pod or a pod's template: an object with `metadata` and `spec`.
///
/// # Errors
///
/// [`Refusal`]; then the pod is as it was.
pub fn inject(
    cluster: &PgDogCluster,
    image: &DefaultImage,
    pod: &mut Value,
) -> Result<(), Refusal> {
    check(cluster, pod)?;
    let mut own = container(cluster, &image.of(cluster));
    let notes = &pod["metadata"]["annotations"];
    if let Some(image) = notes[annotations::IMAGE].as_str() {
        own.image = Some(image.to_owned());
    }
    let asked = Resources {
        requests: quantities(
            notes,
            &[("cpu", annotations::CPU), ("memory", annotations::MEMORY)],
        ),
        limits: quantities(notes, &[("memory", annotations::MEMORY)]),
    };
    let resources = own.resources.get_or_insert_default();
    resources
        .requests
        .get_or_insert_default()
        .extend(asked.requests);
    resources
        .limits
        .get_or_insert_default()
        .extend(asked.limits);
    let own = serde_json::to_value(own)
        .map_err(|e| Refusal::Shape(CONTAINER.to_owned(), e.to_string()))?;

    let mut with = pod.clone();
    let spec = object(&mut with, "spec")?;
    let former = former_port(spec);
    let first = array(spec, "initContainers")?;
    first.retain(|container| !is_sidecar(container));
    first.insert(0, own);
    let mounted = array(spec, "volumes")?;
    mounted.retain(|volume| !VOLUMES.iter().any(|name| volume["name"] == *name));
    mounted.extend(volumes(cluster).iter().map(|volume| json!(volume)));
    pull_secrets(cluster, spec)?;
    if cluster.spec.sidecar.clone().unwrap_or_default().inject_env {
        environment(spec, Ports::of(cluster).clients, former.as_deref())?;
    }
    mark(cluster, &mut with)?;
    *pod = with;
    Ok(())
}

/// Labels and annotations of ours that mean nothing: somebody believes that they do.
#[must_use]
pub fn unknown(pod: &Value) -> Vec<String> {
    let known = [
        labels::INJECT,
        labels::CLUSTER,
        annotations::INJECTED,
        annotations::POD_HASH,
        annotations::IMAGE,
        annotations::CPU,
        annotations::MEMORY,
    ];
    let of = |what: &'static str| {
        let keys = pod["metadata"][what].as_object().into_iter().flatten();
        keys.map(move |(key, _)| (what, key))
    };
    of("annotations")
        .chain(of("labels"))
        .filter(|(_, key)| key.starts_with(PREFIX) && !known.contains(&key.as_str()))
        .map(|(what, key)| format!("metadata.{what}.{key} means nothing to this version of PgDog"))
        .collect()
}

fn check(cluster: &PgDogCluster, pod: &Value) -> Result<(), Refusal> {
    if cluster.spec.mode != Mode::Sidecar {
        return Err(Refusal::Mode(cluster.name_any()));
    }
    if pod["spec"]["hostNetwork"] == true {
        return Err(Refusal::HostNetwork);
    }
    let ports = Ports::of(cluster);
    let taken = [
        (ports.clients, "spec.sidecar.port"),
        (ports.admin, "spec.admin.port"),
        (ports.plain, "spec.monitoring.port"),
    ];
    for kind in ["initContainers", "containers"] {
        for (index, container) in list(pod, kind).iter().enumerate() {
            if is_sidecar(container) && kind == "initContainers" {
                continue;
            }
            let path = format!("spec.{kind}[{index}]");
            if container["name"] == CONTAINER {
                return Err(Refusal::Foreign(format!("{path}.name {CONTAINER}")));
            }
            let used = container["ports"].as_array().into_iter().flatten();
            for port in used.filter(|port| port["protocol"].as_str().is_none_or(|p| p == "TCP")) {
                let number = port["containerPort"].as_i64();
                let hit = taken
                    .iter()
                    .find(|(own, _)| number == Some(i64::from(*own)));
                if let (Some((_, field)), Some(port)) = (hit, number) {
                    return Err(Refusal::Port {
                        path: format!("{path}.ports"),
                        port,
                        field,
                        cluster: cluster.name_any(),
                    });
                }
            }
        }
    }
    let foreign = list(pod, "volumes").iter().find_map(|volume| {
        let name = volume["name"].as_str()?;
        VOLUMES.contains(&name).then(|| name.to_owned())
    });
    match foreign {
        // Without a proxy of ours they are not ours either.
        Some(name) if !has_sidecar(pod) => Err(Refusal::Foreign(format!("spec.volumes: {name}"))),
        _ => Ok(()),
    }
}

fn quantities(
    notes: &Value,
    keys: &[(&str, &str)],
) -> std::collections::BTreeMap<String, Quantity> {
    keys.iter()
        .filter_map(|(name, key)| {
            Some((
                (*name).to_owned(),
                Quantity(notes[key].as_str()?.to_owned()),
            ))
        })
        .collect()
}

/// The port of the proxy that is replaced.
fn former_port(spec: &Map<String, Value>) -> Option<String> {
    let containers = spec.get("initContainers")?.as_array()?;
    let ports = containers.iter().find(|c| is_sidecar(c))?["ports"].as_array()?;
    let port = ports.iter().find(|port| port["name"] == "postgres")?;
    port["containerPort"].as_i64().map(|port| port.to_string())
}

/// Tells the containers where the proxy is. Never over what is there: who names a host means it, and a port belongs to its host.
fn environment(
    spec: &mut Map<String, Value>,
    port: i32,
    former: Option<&str>,
) -> Result<(), Refusal> {
    for kind in ["initContainers", "containers"] {
        let containers = array(spec, kind)?;
        for container in containers.iter_mut().filter(|c| c["name"] != CONTAINER) {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            let env = array(container, "env")?;
            let value = |env: &[Value], name: &str| env.iter().find(|e| e["name"] == name).cloned();
            match (value(env, "PGHOST"), value(env, "PGPORT")) {
                // In front: others may be made of them, as `$(PGHOST)`.
                (None, None) => drop(env.splice(
                    ..0,
                    [
                        json!({"name": "PGHOST", "value": LOOPBACK}),
                        json!({"name": "PGPORT", "value": port.to_string()}),
                    ],
                )),
                (Some(host), Some(at))
                    if host["value"] == LOOPBACK && former == at["value"].as_str() =>
                {
                    for entry in env.iter_mut().filter(|entry| entry["name"] == "PGPORT") {
                        entry["value"] = port.to_string().into();
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn pull_secrets(cluster: &PgDogCluster, spec: &mut Map<String, Value>) -> Result<(), Refusal> {
    let wanted = cluster
        .spec
        .image
        .iter()
        .flat_map(|image| &image.pull_secrets);
    for name in wanted {
        let secrets = array(spec, "imagePullSecrets")?;
        if !secrets.iter().any(|secret| secret["name"] == **name) {
            secrets.push(json!({"name": name}));
        }
    }
    Ok(())
}

fn mark(cluster: &PgDogCluster, pod: &mut Value) -> Result<(), Refusal> {
    let metadata = object(pod, "metadata")?;
    let of = entries(metadata, "labels")?;
    of.insert(labels::INJECT.to_owned(), cluster.name_any().into());
    let notes = entries(metadata, "annotations")?;
    notes.insert(annotations::INJECTED.to_owned(), cluster.name_any().into());
    // What is written may be wrong: then what is in force stays, and its hash is not known here.
    if let Ok(process) = process(cluster) {
        notes.insert(
            annotations::POD_HASH.to_owned(),
            children::hash(&process).into(),
        );
    }
    Ok(())
}

fn list<'a>(pod: &'a Value, key: &str) -> &'a [Value] {
    pod["spec"][key].as_array().map_or(&[], Vec::as_slice)
}

fn object<'a>(of: &'a mut Value, key: &str) -> Result<&'a mut Map<String, Value>, Refusal> {
    let Some(of) = of.as_object_mut() else {
        return Err(Refusal::Shape(
            key.to_owned(),
            "its parent is no object".to_owned(),
        ));
    };
    entries(of, key)
}

fn entries<'a>(
    of: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>, Refusal> {
    let value = of.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    let wrong = || Refusal::Shape(key.to_owned(), "is no object".to_owned());
    value.as_object_mut().ok_or_else(wrong)
}

fn array<'a>(of: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, Refusal> {
    let value = of.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    let wrong = || Refusal::Shape(key.to_owned(), "is no list".to_owned());
    value.as_array_mut().ok_or_else(wrong)
}

/// Who a cluster is, for people.
#[must_use]
pub fn named(cluster: &PgDogCluster) -> String {
    match cluster.namespace() {
        Some(namespace) => format!(
            "{} {namespace}/{}",
            PgDogCluster::kind(&()),
            cluster.name_any()
        ),
        None => format!("{} {}", PgDogCluster::kind(&()), cluster.name_any()),
    }
}
