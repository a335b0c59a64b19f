//! What is known of the world around a cluster, read from watches: a decision never waits for the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

/// The label of the zone that a node is in; pods have it from Kubernetes 1.35 on.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// The objects of one namespace.
#[derive(Clone, Default)]
pub struct World {
    /// Pods: those of Postgres and those of proxies.
    pub pods: Vec<Arc<Pod>>,
    /// The addresses behind Services.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Deployments of proxies.
    pub deployments: Vec<Arc<Deployment>>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Whether pods have addresses of IPv6, first of all or alone.
    pub ipv6: bool,
}

impl std::fmt::Debug for World {
    // Of Secrets the names are enough.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("pods", &self.pods)
            .field("slices", &self.slices)
            .field("services", &self.services)
            .field("deployments", &self.deployments.len())
            .field("secrets", &self.secrets.keys())
            .finish()
    }
}

impl World {
    /// The pods that carry all of these labels.
    pub fn pods_with<'a, 'l>(
        &'a self,
        labels: &'l [(String, String)],
    ) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a, 'l> {
        self.pods.iter().filter(move |pod| {
            labels
                .iter()
                .all(|(key, value)| pod.labels().get(key) == Some(value))
        })
    }

    /// The zone of a pod: as its label says, or the EndpointSlices that name it.
    #[must_use]
    pub fn zone(&self, pod: &Pod) -> Option<String> {
        if let Some(zone) = pod.labels().get(ZONE) {
            return Some(zone.clone());
        }
        let endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        let mut of_pod = endpoints.filter(|endpoint| {
            let target = endpoint.target_ref.as_ref();
            target.and_then(|target| target.name.as_ref()) == pod.metadata.name.as_ref()
        });
        of_pod.find_map(|endpoint| endpoint.zone.clone())
    }

    /// The text of a key of a Secret.
    #[must_use]
    pub fn secret_text(&self, name: &str, key: &str) -> Option<String> {
        let data = self.secrets.get(name)?.data.as_ref()?;
        String::from_utf8(data.get(key)?.0.clone()).ok()
    }
}

/// Whether a pod is ready, as its kubelet says.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether a pod is on its way out.
#[must_use]
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() || has_ended(pod)
}

/// Whether nothing runs in a pod any more.
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase.is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// An address and a port as one text; that of an IPv6 address stands in brackets.
#[must_use]
pub fn with_port(address: &str, port: impl std::fmt::Display) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

/// The address of a pod.
#[must_use]
pub fn address(pod: &Pod) -> Option<&str> {
    let ip = pod.status.as_ref()?.pod_ip.as_deref()?;
    (!ip.is_empty()).then_some(ip)
}
