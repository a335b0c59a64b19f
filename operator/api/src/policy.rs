//! How server connections are used: pooling, routing, health, failover, encryption, and how changes roll out.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use pgdog_config::{
    LoadBalancingStrategy, PoolerMode, PreparedLevel, ReadWriteSplit, ReadWriteStrategy,
    ReadYourWrites, TlsMode,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How server connections are pooled.
#[derive(KubeSchema, Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.minPoolSize) || self.minPoolSize <= (has(self.defaultPoolSize) ? self.defaultPoolSize : 10)").message("minPoolSize is above defaultPoolSize"),
)]
pub struct Pooling {
    /// When a server connection goes back to its pool. Default: transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PoolerMode>,
    /// Most server connections of one user to one host, in one proxy. Default: 10; 2 in sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub default_pool_size: Option<i32>,
    /// Server connections of one user to one host that are kept open. Default: 1; 0 in sidecars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min_pool_size: Option<i32>,
    /// Time after which an idle server connection is closed. Default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub idle_timeout: Option<Duration>,
    /// Age at which a server connection is closed. Default: 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub server_lifetime: Option<Duration>,
    /// Time a client waits for a server connection. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub checkout_timeout: Option<Duration>,
    /// Time that a new server connection may take. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub connect_timeout: Option<Duration>,
    /// Which prepared statements are managed for clients. Default: extended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_statements: Option<PreparedLevel>,
    /// A limit over all proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// How a budget is divided among the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Distribution {
    /// Each proxy has the same share.
    Equal,
    /// Proxies in use have more: shares follow the demand.
    #[default]
    Demand,
}

/// A limit on server connections to one Postgres host, over all proxies and sidecars, at every moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Server connections to one Postgres host, over all proxies.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_server_connections: i32,
    /// Part of it that is kept for proxies that are about to start, per cent: they open their part of it before the operator has
    /// seen them, at least one connection each. With 0 a proxy opens nothing before the operator has given it a share, and so none
    /// while no operator runs. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50))]
    pub reserve_percent: Option<i32>,
    /// How it is divided.
    #[serde(default)]
    pub distribution: Distribution,
}

/// How queries are spread over primary and replicas.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Whether the primary answers reads too. Default: include_primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_write_split: Option<ReadWriteSplit>,
    /// What counts as a read. Default: conservative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_write_strategy: Option<ReadWriteStrategy>,
    /// How a host is chosen. Default: random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancingStrategy>,
    /// Whether a client sees its own writes in its reads. Default: as replicas have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_your_writes: Option<ReadYourWrites>,
    /// Whether reads go to hosts in the zone of the proxy, while there are any that may answer them. Pods know their zone from
    /// Kubernetes 1.35 on, where their nodes have the label `topology.kubernetes.io/zone`; before, `pod.labels` can tell it. A
    /// change makes new pods. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_same_zone: Option<bool>,
}

/// How hosts are checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Time between two checks. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub check_interval: Option<Duration>,
    /// Time that a check may take. Default: 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub check_timeout: Option<Duration>,
    /// Time for which a host that failed gets no traffic. Default: 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub ban_timeout: Option<Duration>,
    /// Time that a replica may lag behind before it gets no reads. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub max_replica_lag: Option<Duration>,
    /// Bytes that a replica may lag behind before it gets no reads. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_replica_lag_bytes: Option<i64>,
    /// Time between two questions for roles and lag. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub role_check_interval: Option<Duration>,
}

/// What happens while there is no primary.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Time for which writes are held while there is no primary; afterwards they are refused. Default: 30s; 0s refuses at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub hold_timeout: Option<Duration>,
}

/// Encryption on both sides.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// To clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientTls>,
    /// To Postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerTls>,
}

/// Whether clients have to use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ClientTlsMode {
    /// There is none.
    Disabled,
    /// They may.
    #[default]
    Prefer,
    /// They must.
    Require,
    /// They must, with a certificate of their own.
    VerifyClient,
}

/// TLS to clients.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'VerifyClient' || has(self.caSecretRef)").message("mode VerifyClient needs caSecretRef: the authority of the clients' certificates"),
)]
pub struct ClientTls {
    /// Whether clients have to use it.
    #[serde(default)]
    pub mode: ClientTlsMode,
    /// Secret with `tls.crt` and `tls.key`. Default: a certificate of the operator's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_ref: Option<String>,
    /// Secret with `ca.crt`, the authority of the clients' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_ref: Option<String>,
}

/// TLS to Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerTls {
    /// How far servers have to prove who they are. Default: prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Secret with `ca.crt`, such as the provider's: `<cluster>-ca` of CloudNativePG, `<cluster>-cluster-cert` of Crunchy. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ca_secret_ref: Option<String>,
    /// Secret with `tls.crt` and `tls.key`, with which the proxy logs in to servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub client_secret_ref: Option<String>,
}

/// In which order the proxies get new settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    /// All at the same time.
    AllAtOnce,
    /// Some first, and the others when these have acknowledged.
    #[default]
    Canary,
}

/// What happens when a proxy refuses new settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnNack {
    /// The others do not get them.
    #[default]
    Halt,
    /// The others get them all the same.
    Continue,
}

/// How new settings reach the proxies. A topology (hosts, roles) always goes to all at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRollout {
    /// In which order.
    #[serde(default)]
    pub strategy: RolloutStrategy,
    /// How many are the first, a number or a percentage. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<IntOrString>,
    /// Time that a proxy has to answer. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub ack_timeout: Option<Duration>,
    /// What happens when one refuses.
    #[serde(default)]
    pub on_nack: OnNack,
    /// Whether those that took refused settings get the last good ones back. Default: true.
    #[serde(default = "yes")]
    pub auto_rollback: bool,
}

impl Default for ConfigRollout {
    fn default() -> Self {
        Self {
            strategy: RolloutStrategy::default(),
            canary: None,
            ack_timeout: None,
            on_nack: OnNack::default(),
            auto_rollback: true,
        }
    }
}

const fn yes() -> bool {
    true
}
