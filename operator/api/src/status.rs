//! What the operator says of a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a condition is about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionType {
    /// At least one proxy is ready and has a configuration that it accepted.
    Available,
    /// A rollout of pods or of a configuration is under way.
    Progressing,
    /// Something needs a human.
    Degraded,
    /// The spec makes a configuration that the proxy's own parser takes.
    ConfigValid,
    /// All proxies have acknowledged the configuration in force.
    ConfigSynced,
    /// Each shard has exactly one primary.
    EndpointsResolved,
    /// All Secrets and their keys are there.
    SecretsResolved,
    /// The certificates are there and do not expire soon.
    TLSReady,
    /// All proxies hold back queries, as asked for.
    Paused,
    /// The operator leaves everything as it is, as asked for.
    ReconciliationPaused,
    /// The budget of server connections is divided, and each proxy has its share.
    BudgetHeld,
    /// No pod that asked for a sidecar is without one.
    SidecarsInjected,
}

/// Whether a condition is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody knows yet.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(so: bool) -> Self {
        if so { Self::True } else { Self::False }
    }
}

/// One thing that is so or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Whether it is so.
    pub status: ConditionStatus,
    /// Why, for programs.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Generation of the spec that it is about.
    pub observed_generation: i64,
    /// Since when it is so.
    pub last_transition_time: Time,
}

/// How far one half of the configuration has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HalfStatus {
    /// Its revision: rises with each change, and is written here before it is pushed.
    pub revision: i64,
    /// SHA-256 of it.
    pub hash: String,
    /// The first eight digits of it.
    pub hash_short: String,
    /// Proxies that have acknowledged it.
    pub acked: i32,
    /// Proxies that have refused it.
    pub nacked: i32,
    /// Proxies that have not answered yet.
    pub pending: i32,
    /// Proxies.
    pub total: i32,
}

/// Why a proxy does not have the configuration in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rejection {
    /// It refused it.
    Nack,
    /// It did not answer in time.
    Timeout,
    /// It cannot be reached.
    Unreachable,
}

/// A proxy that does not have the configuration in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutOfSync {
    /// Name of the pod.
    pub pod: String,
    /// Which revision it has not taken: `settings 7`.
    pub revision: String,
    /// Why.
    pub reason: Rejection,
    /// What it said.
    #[schemars(length(max = 256))]
    pub message: String,
}

/// The configuration that the proxies have.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The settings: everything but hosts.
    #[serde(default)]
    pub settings: HalfStatus,
    /// The topology: hosts and their roles.
    #[serde(default)]
    pub topology: HalfStatus,
    /// Proxies that have acknowledged both, of all: `5/5`.
    #[serde(default)]
    pub summary: String,
    /// Proxies that do not have them, twenty at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub out_of_sync: Vec<OutOfSync>,
    /// SHA-256 of the last settings that all proxies acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<String>,
}

/// The primary of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrimaryStatus {
    /// Number of the shard.
    pub shard: i32,
    /// Name of the pod or host.
    pub name: String,
    /// Where it is reached.
    pub address: String,
}

/// A host that gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedHost {
    /// Name of the pod or host.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The hosts that were found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsStatus {
    /// The primaries, as far as they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub primaries: Vec<PrimaryStatus>,
    /// The primaries that were last known of shards that have none now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub former_primaries: Vec<PrimaryStatus>,
    /// Replicas of all shards.
    #[serde(default)]
    pub replicas: i32,
    /// Hosts that get nothing, sixteen at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub excluded: Vec<ExcludedHost>,
    /// The primaries in one word, for the column.
    #[serde(default)]
    pub primary_summary: String,
    /// When a primary was last another one than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover_time: Option<Time>,
}

/// A Secret that the configuration in force was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub resource_version: String,
}

/// When certificates expire.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsStatus {
    /// That of the proxies' admin API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_not_after: Option<Time>,
    /// That which clients see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_not_after: Option<Time>,
}

/// Sidecars in the pods that asked for one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarsStatus {
    /// Pods with one.
    pub injected: i32,
    /// Pods without.
    pub missing: i32,
    /// Pods with one of another image.
    pub outdated: i32,
}

/// What the operator says of a cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgDogClusterStatus {
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Epoch of the leader among the operators that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Labels of the proxies' pods, for an autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Proxies.
    #[serde(default)]
    pub replicas: i32,
    /// Proxies that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Proxies of the latest pod template.
    #[serde(default)]
    pub updated_replicas: i32,
    /// The image in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The hosts that were found.
    #[serde(default)]
    pub endpoints: EndpointsStatus,
    /// The configuration that the proxies have.
    #[serde(default)]
    pub config: ConfigStatus,
    /// The Secrets it was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secrets: Vec<SecretStatus>,
    /// When certificates expire.
    #[serde(default)]
    pub tls: TlsStatus,
    /// Server connections to one host that each proxy may have at most, by pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<String, i32>,
    /// Sidecars, in mode Sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<SidecarsStatus>,
    /// What is so and what is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
