//! The objects that belong to a cluster: workload, Service, account, disruption budget, autoscaler.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::core::v1::{
    LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, Secret,
    Service, ServiceAccount, ServicePort, ServiceSpec, TopologySpreadConstraint,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use pgdog_config::api::Finding;
use pgdog_config::documents;
use pgdog_operator_api::{
    Autoscaling, GROUP, Mode, PgDogCluster, UpdateType, VERSION, annotations, labels,
};
use serde_json::{Map, Value};

use super::monitor::{self, PodMonitor};
use super::overlay;
use super::pod::{UID, config_secret, container, volumes};
use super::process::Ports;
use crate::world::ZONE;

/// Everything that belongs to a cluster but the Secrets with certificates.
#[derive(Clone, Default, PartialEq)]
pub struct Children {
    /// The configuration that proxies start with.
    pub config: Secret,
    /// The account of the pods, which may do nothing.
    pub account: Option<ServiceAccount>,
    /// The pods; `None` also where what is to be laid over them does not fit: then those that there are stay.
    pub deployment: Option<Deployment>,
    /// Where clients connect to.
    pub service: Option<Service>,
    /// How many may be missing.
    pub pdb: Option<PodDisruptionBudget>,
    /// Who chooses how many there are.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// How Prometheus finds them.
    pub monitor: Option<PodMonitor>,
}

/// How far pods are held back, because of what those that there are have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// How many there may be.
    pub most: i32,
    /// Whether none is replaced.
    pub paused: bool,
}

impl std::fmt::Debug for Children {
    // Passwords stand in the configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Children")
            .field("config", &self.config.metadata.name)
            .field("deployment", &self.deployment)
            .field("service", &self.service)
            .field("pdb", &self.pdb)
            .field("autoscaler", &self.autoscaler)
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}

/// The labels by which a cluster's pods are found; they never change.
#[must_use]
pub fn selector(cluster: &PgDogCluster) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::NAME.to_owned(), "pgdog".to_owned()),
        (labels::CLUSTER.to_owned(), cluster.name_any()),
    ])
}

/// The name of the workload and what goes with it.
#[must_use]
pub fn proxy_name(cluster: &PgDogCluster) -> String {
    format!("{}-proxy", cluster.name_any())
}

/// Makes the children. `process` is what the proxies are started with.
#[must_use]
pub fn render(
    cluster: &PgDogCluster,
    image: &str,
    process: &Map<String, Value>,
    config: BTreeMap<String, String>,
) -> Children {
    let config = Secret {
        metadata: metadata(cluster, &config_secret(&cluster.name_any())),
        string_data: Some(config),
        ..Secret::default()
    };
    let monitor = monitor::render(cluster, metadata(cluster, &proxy_name(cluster)));
    if cluster.spec.mode == Mode::Sidecar {
        return Children {
            config,
            monitor,
            ..Children::default()
        };
    }
    let own_account = cluster
        .spec
        .pod
        .as_ref()
        .and_then(|pod| pod.service_account_name.clone());
    Children {
        config,
        account: own_account.is_none().then(|| ServiceAccount {
            metadata: metadata(cluster, &proxy_name(cluster)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }),
        deployment: template(cluster, image, process)
            .ok()
            .map(|template| deployment(cluster, template)),
        service: Some(service(cluster)),
        pdb: pdb(cluster),
        autoscaler: cluster
            .spec
            .autoscaling
            .as_ref()
            .map(|to| autoscaler(cluster, to)),
        monitor,
    }
}

impl Children {
    /// Whether there is to be no pod at all.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let spec = self.deployment.as_ref().and_then(|d| d.spec.as_ref());
        spec.is_some_and(|spec| spec.replicas == Some(0))
    }

    /// No more pods than these, for now. A paused Deployment makes none of another template, and still keeps as many of those of
    /// before; where it need not wait nothing is said, so that a person may pause it.
    pub fn hold_back(&mut self, hold: Hold) {
        let Some(spec) = self.deployment.as_mut().and_then(|d| d.spec.as_mut()) else {
            return;
        };
        spec.replicas = spec.replicas.map(|replicas| replicas.min(hold.most));
        spec.paused = hold.paused.then_some(true);
    }
}

fn metadata(cluster: &PgDogCluster, name: &str) -> ObjectMeta {
    let mut of = selector(cluster);
    of.insert(labels::INSTANCE.to_owned(), cluster.name_any());
    of.insert(labels::COMPONENT.to_owned(), "proxy".to_owned());
    of.insert(labels::MANAGED_BY.to_owned(), "pgdog-operator".to_owned());
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: cluster.namespace(),
        labels: Some(of),
        owner_references: cluster.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn deployment(cluster: &PgDogCluster, template: PodTemplateSpec) -> Deployment {
    let spec = &cluster.spec;
    let stopped = spec.operation.is_some_and(|operation| operation.stopped);
    let strategy = spec.strategy.clone().unwrap_or_default();
    // The number of an autoscaled one is the autoscaler's: it sets the resource's, which is followed here.
    let replicas = if stopped {
        0
    } else {
        spec.replicas.unwrap_or(2)
    };
    Deployment {
        metadata: metadata(cluster, &proxy_name(cluster)),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            revision_history_limit: Some(3),
            selector: LabelSelector {
                match_labels: Some(selector(cluster)),
                ..LabelSelector::default()
            },
            strategy: Some(match strategy.kind {
                UpdateType::Recreate => DeploymentStrategy {
                    type_: Some("Recreate".to_owned()),
                    rolling_update: None,
                },
                UpdateType::RollingUpdate => DeploymentStrategy {
                    type_: Some("RollingUpdate".to_owned()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_unavailable: Some(
                            strategy.max_unavailable.unwrap_or(IntOrString::Int(0)),
                        ),
                        max_surge: Some(strategy.max_surge.unwrap_or(IntOrString::Int(1))),
                    }),
                },
            }),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The pods of the proxies, with what a person has laid over them.
///
/// # Errors
///
/// What is wrong with that.
pub fn template(
    cluster: &PgDogCluster,
    image: &str,
    process: &Map<String, Value>,
) -> Result<PodTemplateSpec, Vec<Finding>> {
    let generated = generated(cluster, image, process);
    match cluster
        .spec
        .pod
        .as_ref()
        .and_then(|pod| pod.template.as_ref())
    {
        Some(over) => overlay::lay(&generated, over),
        None => Ok(generated),
    }
}

fn generated(cluster: &PgDogCluster, image: &str, process: &Map<String, Value>) -> PodTemplateSpec {
    let pod = cluster.spec.pod.clone().unwrap_or_default();
    let drain = cluster.spec.drain.clone().unwrap_or_default();
    let grace = std::time::Duration::from(drain.pre_stop_sleep).as_secs()
        + std::time::Duration::from(drain.timeout).as_secs()
        + 25;
    let mut of = pod.labels.clone();
    of.extend(metadata(cluster, "").labels.unwrap_or_default());
    let mut notes = pod.annotations.clone();
    notes.insert(annotations::POD_HASH.to_owned(), hash(process));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(of),
            annotations: Some(notes),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container(cluster, image)],
            volumes: Some(volumes(cluster)),
            service_account_name: Some(
                pod.service_account_name
                    .clone()
                    .unwrap_or_else(|| proxy_name(cluster)),
            ),
            automount_service_account_token: Some(false),
            // They would come as PGDOG_PORT=tcp://…, and so on, and be taken for keys.
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                fs_group: Some(UID),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            termination_grace_period_seconds: Some(
                pod.termination_grace_period_seconds
                    .unwrap_or_else(|| i64::try_from(grace).unwrap_or(90)),
            ),
            affinity: pod.affinity.clone(),
            tolerations: (!pod.tolerations.is_empty()).then(|| pod.tolerations.clone()),
            node_selector: (!pod.node_selector.is_empty()).then(|| pod.node_selector.clone()),
            topology_spread_constraints: Some(
                pod.topology_spread_constraints
                    .clone()
                    .unwrap_or_else(|| spread(cluster)),
            ),
            priority_class_name: pod.priority_class_name.clone(),
            runtime_class_name: pod.runtime_class_name,
            image_pull_secrets: cluster.spec.image.as_ref().and_then(|image| {
                let secrets: Vec<_> = image
                    .pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect();
                (!secrets.is_empty()).then_some(secrets)
            }),
            ..PodSpec::default()
        }),
    }
}

/// Over zones and nodes, as far as that is possible.
fn spread(cluster: &PgDogCluster) -> Vec<TopologySpreadConstraint> {
    [ZONE, "kubernetes.io/hostname"]
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector(cluster)),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        })
        .to_vec()
}

/// A change of what proxies are started with makes new pods; nothing else in the configuration does.
#[must_use]
pub fn hash(process: &Map<String, Value>) -> String {
    let mut process = process.clone();
    // They follow the network, and who injects sidecars knows nothing of it.
    let of_network = [
        ("general", "host"),
        ("general", "openmetrics_host"),
        ("admin", "http_host"),
    ];
    for (section, key) in of_network {
        if let Some(Value::Object(keys)) = process.get_mut(section) {
            keys.remove(key);
        }
    }
    let mut digest = documents::sha256(&Value::Object(process));
    digest.truncate(16);
    digest
}

fn service(cluster: &PgDogCluster) -> Service {
    let spec = cluster.spec.service.clone().unwrap_or_default();
    let mut metadata = metadata(cluster, &cluster.name_any());
    let own = metadata.labels.take().unwrap_or_default();
    let mut of = spec.labels.clone();
    of.extend(own);
    metadata.labels = Some(of);
    metadata.annotations = (!spec.annotations.is_empty()).then(|| spec.annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(format!("{:?}", spec.kind)),
            selector: Some(selector(cluster)),
            ports: Some(vec![ServicePort {
                name: Some("postgres".to_owned()),
                port: spec.port,
                target_port: Some(IntOrString::Int(Ports::of(cluster).clients)),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            load_balancer_class: spec.load_balancer_class,
            load_balancer_source_ranges: spec.load_balancer_source_ranges,
            external_traffic_policy: spec.external_traffic_policy,
            internal_traffic_policy: spec.internal_traffic_policy,
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// One of a single proxy would only keep nodes from being drained: there is none.
fn pdb(cluster: &PgDogCluster) -> Option<PodDisruptionBudget> {
    let spec = cluster.spec.pdb.clone().unwrap_or_default();
    let several = match &cluster.spec.autoscaling {
        Some(autoscaling) => autoscaling.min_replicas > 1,
        None => cluster.spec.replicas.unwrap_or(2) > 1,
    };
    if !spec.enabled.unwrap_or(several) {
        return None;
    }
    let max_unavailable = match (&spec.min_available, spec.max_unavailable) {
        (Some(_), _) => None,
        (None, most) => Some(most.unwrap_or(IntOrString::Int(1))),
    };
    Some(PodDisruptionBudget {
        metadata: metadata(cluster, &proxy_name(cluster)),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: spec.min_available,
            max_unavailable,
            selector: Some(LabelSelector {
                match_labels: Some(selector(cluster)),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        }),
        status: None,
    })
}

fn autoscaler(cluster: &PgDogCluster, to: &Autoscaling) -> HorizontalPodAutoscaler {
    HorizontalPodAutoscaler {
        metadata: metadata(cluster, &proxy_name(cluster)),
        spec: Some(HorizontalPodAutoscalerSpec {
            min_replicas: Some(to.min_replicas),
            max_replicas: to.max_replicas,
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(format!("{GROUP}/{VERSION}")),
                kind: PgDogCluster::kind(&()).into_owned(),
                name: cluster.name_any(),
            },
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(to.target_cpu),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: to.behavior.clone(),
        }),
        status: None,
    }
}
