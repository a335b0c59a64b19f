//! What the proxies' pods are like.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use k8s_openapi::api::core::v1::{Affinity, EnvVar, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use pgdog_config::LogFormat;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::Duration;

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

/// An image.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.tag) || self.tag != 'latest' || (has(self.pullPolicy) && self.pullPolicy == 'Always')").message("tag latest needs pullPolicy Always: nodes would run different versions"),
)]
pub struct Image {
    /// Where it is, without tag. Default: that of the operator's default image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub repository: Option<String>,
    /// Its tag. Default: that of the operator's default image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub tag: Option<String>,
    /// Its digest, which wins over the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[a-f0-9]{64}$"))]
    pub digest: Option<String>,
    /// When it is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Secrets with the logins to registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 253)))]
    pub pull_secrets: Vec<String>,
}

/// The proxies' HTTP admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Admin {
    /// Port. Default: 6433.
    #[serde(default = "admin_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
}

const fn admin_port() -> i32 {
    6433
}

impl Default for Admin {
    fn default() -> Self {
        Self { port: admin_port() }
    }
}

/// Where a Service can be reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// From within the cluster.
    #[default]
    ClusterIP,
    /// At a port of each node.
    NodePort,
    /// From outside, by a load balancer of the cloud.
    LoadBalancer,
}

/// The Service in front of the proxies.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == 'LoadBalancer' || (!has(self.loadBalancerClass) && !has(self.loadBalancerSourceRanges))").message("loadBalancerClass and loadBalancerSourceRanges are for type LoadBalancer"),
)]
pub struct ServiceSpec {
    /// Where it can be reached from.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Port that clients connect to. Default: 5432.
    #[serde(default = "service_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port that the proxies listen on. Default: 6432.
    #[serde(default = "target_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub target_port: i32,
    /// Annotations of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the Service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Which load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub load_balancer_class: Option<String>,
    /// Networks that the load balancer lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// `Cluster` or `Local`, as in a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub external_traffic_policy: Option<String>,
    /// `Cluster` or `Local`, as in a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub internal_traffic_policy: Option<String>,
}

impl Default for ServiceSpec {
    fn default() -> Self {
        Self {
            kind: ServiceType::default(),
            port: service_port(),
            target_port: target_port(),
            annotations: BTreeMap::new(),
            labels: BTreeMap::new(),
            load_balancer_class: None,
            load_balancer_source_ranges: None,
            external_traffic_policy: None,
            internal_traffic_policy: None,
        }
    }
}

const fn service_port() -> i32 {
    5432
}

const fn target_port() -> i32 {
    6432
}

/// What a container asks for and may use.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What it asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// What the proxies' pods are like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSpecOverrides {
    /// Labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Resources of the proxy. Default: requests of 250m CPU and 128Mi, a limit of 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Rules on where pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub affinity: Option<Affinity>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "free_list")]
    pub tolerations: Vec<Toleration>,
    /// Labels of the nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// How pods are spread. Default: over zones and nodes, where that is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_list")]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Runtime class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub runtime_class_name: Option<String>,
    /// Service account. Default: one of the cluster's own, which may do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account_name: Option<String>,
    /// Time that a pod has to end, seconds. Default: preStopSleep + timeout of `drain` + 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Further environment variables of the proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "free_list")]
    pub env: Vec<EnvVar>,
    /// A pod template that is laid over the generated one, as a strategic merge patch: the last resort. The proxy's container
    /// is called `pgdog`; its image, its mounts and the labels of the pods are not changed here. For mode Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub template: Option<serde_json::Value>,
}

/// An object that the API server does not look into: its whole schema would make the CRD ten times as large.
fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of such objects.
fn free_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}

/// How pods are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UpdateType {
    /// New ones come before old ones go.
    #[default]
    RollingUpdate,
    /// All go before new ones come.
    Recreate,
}

/// How pods are replaced by new ones.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == 'Recreate' || !has(self.maxSurge) || (self.maxSurge != 0 && self.maxSurge != '0%') || (has(self.maxUnavailable) && self.maxUnavailable != 0 && self.maxUnavailable != '0%')").message("maxSurge (1 where it is not set) and maxUnavailable (0 where it is not set) must not both be 0"),
)]
pub struct UpdateStrategy {
    /// In which order.
    #[serde(default, rename = "type")]
    pub kind: UpdateType,
    /// How many may be missing, a number or a percentage. Default: 0. With `maxSurge: 0` it must be above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// How many more there may be, a number or a percentage. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
}

/// How a proxy comes to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Time for which it goes on as before, until nobody sends it new clients. Default: 5s.
    #[serde(default = "pre_stop_sleep")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub pre_stop_sleep: Duration,
    /// Time that transactions have to finish. Default: 60s.
    #[serde(default = "drain_timeout")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub timeout: Duration,
}

fn pre_stop_sleep() -> Duration {
    std::time::Duration::from_secs(5).into()
}

fn drain_timeout() -> Duration {
    std::time::Duration::from_secs(60).into()
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            pre_stop_sleep: pre_stop_sleep(),
            timeout: drain_timeout(),
        }
    }
}

/// How many proxies may be missing when nodes are drained.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.minAvailable) && has(self.maxUnavailable))").message("either minAvailable or maxUnavailable, not both"),
)]
pub struct Pdb {
    /// Whether there is a PodDisruptionBudget. Default: when there are several proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How many must be there, a number or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_available: Option<IntOrString>,
    /// How many may be missing, a number or a percentage. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// Lets a HorizontalPodAutoscaler choose the number of proxies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autoscaling {
    /// Fewest proxies. Default: 2.
    #[serde(default = "min_replicas")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: i32,
    /// Most proxies.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// CPU that is aimed at, per cent of the request. Default: 70.
    #[serde(default = "target_cpu")]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu: i32,
    /// How fast it goes up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

const fn min_replicas() -> i32 {
    2
}

const fn target_cpu() -> i32 {
    70
}

/// What sidecars are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Port on the pod's loopback that the application connects to. Default: 6432.
    #[serde(default = "target_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// Resources of the sidecar. Default: requests of 20m CPU and 32Mi, a limit of 128Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Whether the application's containers get `PGHOST` and `PGPORT`. Default: true.
    #[serde(default = "yes")]
    pub inject_env: bool,
    /// Pods, besides those that are labelled, whose sidecars stand in their own manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

const fn yes() -> bool {
    true
}

impl Default for Sidecar {
    fn default() -> Self {
        Self {
            port: target_port(),
            resources: None,
            inject_env: true,
            pod_selector: None,
        }
    }
}

/// Metrics and logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Port of `/metrics`, `/livez`, `/readyz` and `/startupz`. Default: 9090.
    #[serde(default = "metrics_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: i32,
    /// A PodMonitor of the Prometheus operator, for this cluster alone. The operator's chart has one for all proxies: with both,
    /// each figure is read twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_monitor: Option<PodMonitor>,
    /// What is logged, as in `RUST_LOG`. Default: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub log_level: Option<String>,
    /// How it is logged. Default: text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

const fn metrics_port() -> i32 {
    9090
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            port: metrics_port(),
            pod_monitor: None,
            log_level: None,
            log_format: None,
        }
    }
}

/// A PodMonitor of the Prometheus operator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMonitor {
    /// Whether there is one. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Its labels, by which Prometheus finds it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Time between two scrapes. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub interval: Option<Duration>,
}
