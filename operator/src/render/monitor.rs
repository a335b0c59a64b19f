//! A PodMonitor of the Prometheus operator.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{CustomResource, ResourceExt};
use pgdog_operator_api::{Mode, PgDogCluster, labels};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::children::selector;
use super::pod::CONTAINER;

/// As much of a PodMonitor as is written.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "monitoring.coreos.com",
    version = "v1",
    kind = "PodMonitor",
    plural = "podmonitors",
    namespaced,
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct PodMonitorSpec {
    /// Whose figures are read.
    pub selector: LabelSelector,
    /// Where they are.
    pub pod_metrics_endpoints: Vec<Value>,
}

/// That of a cluster's proxies, where it is asked for.
#[must_use]
pub fn render(cluster: &PgDogCluster, mut metadata: ObjectMeta) -> Option<PodMonitor> {
    let asked = cluster.spec.monitoring.as_ref()?.pod_monitor.as_ref()?;
    if !asked.enabled {
        return None;
    }
    let pods = match cluster.spec.mode {
        Mode::Deployment => selector(cluster),
        Mode::Sidecar => BTreeMap::from([(labels::INJECT.to_owned(), cluster.name_any())]),
    };
    let mut of = asked.labels.clone();
    of.extend(metadata.labels.take().unwrap_or_default());
    metadata.labels = Some(of);
    // Prometheus knows no parts of a unit.
    let interval = match asked.interval.map(std::time::Duration::from) {
        None => "30s".to_owned(),
        Some(time) if time.subsec_nanos() == 0 => format!("{}s", time.as_secs()),
        Some(time) => format!("{}ms", time.as_millis().max(1)),
    };
    Some(PodMonitor {
        metadata,
        spec: PodMonitorSpec {
            selector: LabelSelector {
                match_labels: Some(pods),
                ..LabelSelector::default()
            },
            pod_metrics_endpoints: vec![json!({
                "port": "metrics",
                "path": "/metrics",
                "interval": interval,
                "relabelings": [
                    // Other containers of an application's pod may have a port of that name.
                    {"sourceLabels": ["__meta_kubernetes_pod_container_name"], "regex": CONTAINER, "action": "keep"},
                    // As the chart's PodMonitor has it: dashboards ask for it.
                    {"targetLabel": "cluster", "replacement": cluster.name_any()},
                ],
            })],
        },
    })
}
