//! The custom resource `PgDogCluster` (`pgdog.dev/v1alpha1`): what a person writes, and what the operator answers in the
//! status. The documentation of each field becomes the CRD, and so `kubectl explain`.
//!
//! This crate holds types and the rules that the API server checks (CEL). It knows the proxy's configuration, whose types it
//! embeds, and nothing of the operator.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "what KubeSchema derives")]

mod cluster;
mod crd;
mod data;
mod duration;
mod names;
mod overrides;
mod policy;
mod source;
mod status;
mod workload;

pub use cluster::{Mode, Operation, PgDogCluster, PgDogClusterSpec};
pub use crd::crd;
pub use data::{DatabaseSpec, SecretKeys, ServerLogin, UserSecret, UserSpec};
pub use names::{GROUP, VERSION, annotations, labels};
pub use overrides::Overrides;
pub use policy::{
    Budget, ClientTls, ClientTlsMode, ConfigRollout, Distribution, Failover, Health, OnNack,
    Pooling, RolloutStrategy, Routing, ServerTls, Tls,
};
pub use source::{
    ClusterRef, HostSpec, Provider, RoleDetection, RoleLabel, ServiceSource, ShardSpec, Source,
    UnknownRolePolicy,
};
pub use status::{
    Condition, ConditionStatus, ConditionType, ConfigStatus, EndpointsStatus, ExcludedHost,
    HalfStatus, OutOfSync, PgDogClusterStatus, PrimaryStatus, Rejection, SecretStatus,
    SidecarsStatus, TlsStatus,
};
pub use workload::{
    Admin, Autoscaling, Drain, Image, Monitoring, Pdb, PodMonitor, PodSpecOverrides, PullPolicy,
    Resources, ServiceSpec, ServiceType, Sidecar, UpdateStrategy, UpdateType,
};

pub use duration::Duration;
