//! Where the Postgres is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who runs the Postgres, and so how its hosts and their roles are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Provider {
    /// CloudNativePG: `clusterRef` names a Cluster (`postgresql.cnpg.io`).
    CloudNativePG,
    /// Zalando's postgres-operator: `clusterRef` names a postgresql (`acid.zalan.do`).
    Zalando,
    /// Crunchy's PGO: `clusterRef` names a PostgresCluster (`postgres-operator.crunchydata.com`).
    CrunchyPGO,
    /// Percona's operator: `clusterRef` names a PerconaPGCluster (`pgv2.percona.com`).
    Percona,
    /// StackGres: `clusterRef` names an SGCluster (`stackgres.io`).
    StackGres,
    /// Pods of Patroni that `selector` chooses.
    Patroni,
    /// The pods behind the Services of `services`, StatefulSets among them.
    Service,
    /// The hosts of `hosts`, or of the URI in a Secret: a Postgres outside of Kubernetes.
    Static,
}

/// How it is known which host is the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum RoleDetection {
    /// As the labels say, and nothing else.
    Labels,
    /// The proxies ask each host (`pg_is_in_recovery`, timeline).
    Probe,
    /// The labels are a hint, and the proxies' own questions decide.
    #[default]
    LabelsThenProbe,
}

/// What becomes of a host whose label says nothing that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum UnknownRolePolicy {
    /// It gets nothing.
    #[default]
    Exclude,
    /// It is taken for a replica.
    Replica,
}

/// The Postgres cluster of another operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// Its name, in the namespace of this resource.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// The label that tells the role of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleLabel {
    /// Name of the label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// Values that mean the primary. Default: `primary`, `master`, `leader`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(max = 63)))]
    pub primary_values: Vec<String>,
    /// Values that mean a replica. Default: `replica`, `standby`, `sync_standby`, `standby_leader`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6), inner(length(max = 63)))]
    pub replica_values: Vec<String>,
}

/// A Service whose pods, or whose address where it selects none, are hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSource {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its port: a number or a name. Default: 5432.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    pub port: Option<String>,
    /// What the hosts behind it are. Default: auto, the proxies ask them.
    #[serde(default = "default_role")]
    pub role: pgdog_config::Role,
}

/// A host outside of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// Name or address.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port. Default: 5432.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// What it is. Default: auto, the proxies ask it.
    #[serde(default = "default_role")]
    pub role: pgdog_config::Role,
    /// Zone that it is in, where reads prefer their own zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub zone: Option<String>,
    /// Its share of the reads beside other hosts. Default: 255; 0 is no reads unless nobody else can answer them.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 0, max = 255))]
    pub weight: i32,
}

const fn default_port() -> i32 {
    5432
}

const fn default_weight() -> i32 {
    255
}

const fn default_role() -> pgdog_config::Role {
    pgdog_config::Role::Auto
}

/// One Postgres cluster: a primary and its replicas.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.provider == oldSelf.provider").message("provider is immutable: make a new PgDogCluster"),
    validation = Rule::new("has(self.clusterRef) == has(oldSelf.clusterRef) && (!has(self.clusterRef) || self.clusterRef == oldSelf.clusterRef)").message("clusterRef is immutable: make a new PgDogCluster"),
    validation = Rule::new("(self.provider in ['CloudNativePG','Zalando','CrunchyPGO','Percona','StackGres']) == has(self.clusterRef)").message("clusterRef is for the providers CloudNativePG, Zalando, CrunchyPGO, Percona and StackGres, and they need it"),
    validation = Rule::new("self.provider == 'Static' || (!has(self.hosts) && !has(self.uriSecretRef))").message("hosts and uriSecretRef are for provider Static"),
    validation = Rule::new("self.provider != 'Static' || has(self.hosts) != has(self.uriSecretRef)").message("provider Static needs either hosts or uriSecretRef"),
    validation = Rule::new("(self.provider == 'Service') == has(self.services)").message("services is for provider Service, which needs it"),
    validation = Rule::new("(self.provider == 'Patroni') == has(self.selector)").message("selector is for provider Patroni, which needs it"),
)]
pub struct Source {
    /// Who runs the Postgres. Immutable.
    pub provider: Provider,
    /// The Postgres cluster of another operator. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// Labels of the pods of Patroni.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Services whose pods are hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub services: Option<Vec<ServiceSource>>,
    /// Hosts outside of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub hosts: Option<Vec<HostSpec>>,
    /// A Secret with the URI of a Postgres outside of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret_ref: Option<UriSecret>,
    /// Which label tells the role of a pod. Default: that of the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_label: Option<RoleLabel>,
    /// How it is known which host is the primary.
    #[serde(default)]
    pub role_detection: RoleDetection,
    /// What becomes of a pod whose role label is missing or says nothing that is known.
    #[serde(default)]
    pub unknown_role_policy: UnknownRolePolicy,
}

/// A URI in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UriSecret {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret. Default: `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardSpec {
    /// Its number, from 0 on without a gap.
    #[schemars(range(min = 0, max = 1023))]
    pub number: i32,
    /// Where its Postgres is.
    pub source: Source,
}
