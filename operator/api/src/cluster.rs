//! `PgDogCluster` and the top of its spec.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::data::{DatabaseSpec, UserSpec};
use crate::overrides::Overrides;
use crate::policy::{ConfigRollout, Failover, Health, Pooling, Routing, Tls};
use crate::source::{ShardSpec, Source};
use crate::status::PgDogClusterStatus;
use crate::workload::{
    Admin, Autoscaling, Drain, Image, Monitoring, Pdb, PodSpecOverrides, ServiceSpec, Sidecar,
    UpdateStrategy,
};

/// What kind of workload the proxies are.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Mode {
    /// Pods of their own behind a Service.
    #[default]
    Deployment,
    /// A native sidecar in the pods of applications.
    Sidecar,
}

/// A fleet of PgDog proxies in front of one PostgreSQL cluster, sharded or not.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "pgdog.dev",
    version = "v1alpha1",
    kind = "PgDogCluster",
    plural = "pgdogclusters",
    shortname = "pdc",
    category = "pgdog",
    category = "postgres",
    namespaced,
    status = "PgDogClusterStatus",
    derive = "PartialEq",
    doc = "A fleet of PgDog proxies in front of one PostgreSQL cluster, sharded or not.",
    selectable = ".spec.mode",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.config.summary", description = "Proxies that have acknowledged the configuration in force."),
    printcolumn(name = "Primary", type_ = "string", json_path = ".status.endpoints.primarySummary"),
    printcolumn(name = "Available", type_ = "string", json_path = r#".status.conditions[?(@.type=="Available")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Degraded")].reason"#, priority = 1),
    printcolumn(name = "Hash", type_ = "string", json_path = ".status.config.settings.hashShort", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be lower-case letters, digits and hyphens and begin with a letter: the Service has this name"),
    validation = Rule::new("size(self.metadata.name) <= 45").message("metadata.name has more than 45 characters: the names of the objects made from it would be longer than 63"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == oldSelf.mode").message("mode is immutable: make a second PgDogCluster for the other kind of workload"),
    validation = Rule::new("has(self.source) != has(self.shards)").message("say where the Postgres is: either source, or one source for each of shards"),
    validation = Rule::new("has(oldSelf.source) == has(self.source)").message("source and shards cannot replace each other: make a new PgDogCluster"),
    validation = Rule::new("self.mode != 'Sidecar' || ((!has(self.replicas) || self.replicas == 2) && !has(self.autoscaling) && !has(self.pdb) && !has(self.service) && !has(self.strategy))").message("replicas, autoscaling, pdb, service and strategy are for mode Deployment: sidecars come with the pods of the application"),
    validation = Rule::new("self.mode != 'Deployment' || !has(self.sidecar)").message("sidecar is for mode Sidecar"),
    validation = Rule::new("!has(self.users) || !self.users.exists(user, has(user.serverLogin) && user.serverLogin == 'Certificate') || (has(self.tls) && has(self.tls.server) && has(self.tls.server.clientSecretRef) && (!has(self.tls.server.mode) || self.tls.server.mode != 'disabled'))").message("serverLogin Certificate needs tls.server.clientSecretRef, the certificate, and TLS to the servers"),
    validation = Rule::new("!has(self.autoscaling) || self.autoscaling.minReplicas <= self.autoscaling.maxReplicas").message("autoscaling.minReplicas is above autoscaling.maxReplicas"),
    validation = Rule::new("self.mode != 'Deployment' || !has(self.pod) || !has(self.pod.terminationGracePeriodSeconds) || (has(self.drain) ? duration(self.drain.preStopSleep).getSeconds() + duration(self.drain.timeout).getSeconds() : 65) + 5 <= self.pod.terminationGracePeriodSeconds").message("pod.terminationGracePeriodSeconds must be at least drain.preStopSleep + drain.timeout + 5 s: Kubernetes would kill proxies that still have transactions"),
    validation = Rule::new("self.mode != 'Deployment' || ((has(self.service) ? self.service.targetPort : 6432) != (has(self.admin) ? self.admin.port : 6433) && (has(self.service) ? self.service.targetPort : 6432) != (has(self.monitoring) ? self.monitoring.port : 9090))").message("service.targetPort (6432 where it is not set), admin.port and monitoring.port must differ"),
    validation = Rule::new("self.mode != 'Sidecar' || ((has(self.sidecar) ? self.sidecar.port : 6432) != (has(self.admin) ? self.admin.port : 6433) && (has(self.sidecar) ? self.sidecar.port : 6432) != (has(self.monitoring) ? self.monitoring.port : 9090))").message("sidecar.port (6432 where it is not set), admin.port and monitoring.port must differ"),
    validation = Rule::new("(has(self.admin) ? self.admin.port : 6433) != (has(self.monitoring) ? self.monitoring.port : 9090)").message("admin.port and monitoring.port must differ"),
)]
pub struct PgDogClusterSpec {
    /// Whether the proxies are pods of their own behind a Service, or sidecars in the pods of applications. Immutable.
    #[serde(default)]
    pub mode: Mode,
    /// Proxies, in mode Deployment. Default: 2, which an autoscaler changes. 0 stops them all.
    #[serde(default = "two", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// The proxy's image. Default: the one that the operator had when this resource was made. It is independent of the operator's
    /// version: a new operator restarts no proxy, unless it is told to (`--upgrade-proxies`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Where the Postgres is, when it is not sharded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Where the Postgres of each shard is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["number"])
    )]
    pub shards: Option<Vec<ShardSpec>>,
    /// Databases that clients may connect to.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub databases: Vec<DatabaseSpec>,
    /// Users that may connect. Their passwords stand in Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub users: Vec<UserSpec>,
    /// How server connections are pooled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// How queries are spread over primary and replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// How hosts are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What happens while there is no primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// Encryption on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Any other key of pgdog.toml, with the same names. Keys that belong to the operator (hosts, users, ports, paths of
    /// certificates) are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Overrides>,
    /// How a change of settings reaches the proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_rollout: Option<ConfigRollout>,
    /// The proxies' HTTP admin API, over which the operator configures them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// The Service in front of the proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,
    /// What the proxies' pods are like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSpecOverrides>,
    /// How pods are replaced by new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpdateStrategy>,
    /// How a proxy comes to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// How many proxies may be missing when nodes are drained. Default: one, when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pdb: Option<Pdb>,
    /// Lets a HorizontalPodAutoscaler choose the number of proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// What sidecars are like, in mode Sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Sidecar>,
    /// Metrics and logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Whether the proxies hold back queries, all of them from one moment on: clients stay connected and wait. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// Switches for emergencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
}

/// Written into each resource: an autoscaler cannot read the scale of one without.
#[expect(clippy::unnecessary_wraps, reason = "what the field is")]
const fn two() -> Option<i32> {
    Some(2)
}

/// Switches for emergencies.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Whether there shall be no proxy at all, whatever `replicas` says. Default: false.
    #[serde(default)]
    pub stopped: bool,
    /// Whether the operator leaves everything as it is; it goes on writing the status. Default: false.
    #[serde(default)]
    pub reconciliation_paused: bool,
}
