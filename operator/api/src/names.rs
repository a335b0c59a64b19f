//! Names that stand on objects of Kubernetes.

/// The API group.
pub const GROUP: &str = "pgdog.dev";
/// The version of the API.
pub const VERSION: &str = "v1alpha1";

/// Labels.
pub mod labels {
    /// On everything that belongs to a cluster: its name.
    pub const CLUSTER: &str = "pgdog.dev/cluster";
    /// On a pod template: the cluster whose proxy is to be injected.
    pub const INJECT: &str = "pgdog.dev/inject";
    /// `app.kubernetes.io/name`: always `pgdog`.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// `app.kubernetes.io/instance`: the cluster's name.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// `app.kubernetes.io/component`: `proxy`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// `app.kubernetes.io/managed-by`: `pgdog-operator`.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
}

/// Annotations.
pub mod annotations {
    /// On a pod that has been injected: the name of the cluster.
    pub const INJECTED: &str = "pgdog.dev/injected";
    /// On a Deployment and its pods: a hash of what a change of makes new pods.
    pub const POD_HASH: &str = "pgdog.dev/pod-hash";
    /// On a pod with a sidecar: another image for its proxy.
    pub const IMAGE: &str = "pgdog.dev/image";
    /// On a pod with a sidecar: the CPU that its proxy asks for.
    pub const CPU: &str = "pgdog.dev/config-resources-cpu";
    /// On a pod with a sidecar: the memory that its proxy asks for and may use.
    pub const MEMORY: &str = "pgdog.dev/config-resources-memory";
}
