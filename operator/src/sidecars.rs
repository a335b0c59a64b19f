//! Which pods have a proxy of a cluster as a sidecar, and which asked for one in vain. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use pgdog_operator_api::{PgDogCluster, SidecarsStatus, labels};

use crate::render::pod::CONTAINER;
use crate::status::Proxy;
use crate::world::{World, is_leaving};

/// Whether a pod has a proxy as a sidecar.
#[must_use]
pub fn is_injected(pod: &Pod) -> bool {
    let containers = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_ref());
    containers
        .into_iter()
        .flatten()
        .any(|c| c.name == CONTAINER && c.restart_policy.as_deref() == Some("Always"))
}

/// Whether the proxy of a pod is ready: its application may be not.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.init_container_statuses.as_ref());
    containers
        .into_iter()
        .flatten()
        .any(|c| c.name == CONTAINER && c.ready)
}

/// The pods that have a proxy of this cluster, or had one: labelled ones, and those that `sidecar.podSelector` names.
#[must_use]
pub fn injected<'a>(cluster: &PgDogCluster, world: &'a World) -> Vec<&'a Pod> {
    let name = cluster.name_any();
    let selector = cluster
        .spec
        .sidecar
        .as_ref()
        .and_then(|sidecar| sidecar.pod_selector.clone())
        .and_then(|selector| Selector::try_from(selector).ok());
    world
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| match pod.labels().get(labels::INJECT) {
            Some(asked) => *asked == name,
            None => selector
                .as_ref()
                .is_some_and(|selector| selector.matches(pod.labels())),
        })
        .filter(|pod| is_injected(pod))
        .collect()
}

/// The pods that asked for a proxy of this cluster and have none.
#[must_use]
pub fn missing(cluster: &PgDogCluster, world: &World) -> Vec<String> {
    let name = cluster.name_any();
    let live = world.pods.iter().filter(|pod| !is_leaving(pod));
    let mut names: Vec<_> = live
        .filter(|pod| pod.labels().get(labels::INJECT) == Some(&name) && !is_injected(pod))
        .map(|pod| pod.name_any())
        .collect();
    names.sort();
    names
}

/// The figures for the status.
#[must_use]
pub fn counted(proxies: &[Proxy], missing: &[String]) -> SidecarsStatus {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    SidecarsStatus {
        injected: count(proxies.len()),
        missing: count(missing.len()),
        outdated: count(proxies.iter().filter(|proxy| !proxy.updated).count()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn cluster(sidecar: &Value) -> PgDogCluster {
        serde_json::from_value(json!({
            "metadata": {"name": "shop"},
            "spec": {"mode": "Sidecar", "databases": [{"name": "app"}], "sidecar": sidecar},
        }))
        .unwrap()
    }

    fn pod(name: &str, labels: &Value, proxy: &Value) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "web"}], "initContainers": [proxy]},
            "status": {
                "phase": if name == "done" { "Succeeded" } else { "Running" },
                // The application is not ready; its proxy is.
                "conditions": [{"type": "Ready", "status": "False"}],
                "initContainerStatuses": [{"name": "pgdog", "ready": true, "image": "", "imageID": "", "restartCount": 0}],
            },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn world() -> World {
        let (mine, other) = (
            json!({"pgdog.dev/inject": "shop"}),
            json!({"pgdog.dev/inject": "x", "app": "web"}),
        );
        let proxy = json!({"name": "pgdog", "restartPolicy": "Always"});
        World {
            pods: vec![
                pod("with", &mine, &proxy),
                pod("done", &mine, &proxy),
                pod("without", &mine, &json!({"name": "migrate"})),
                pod("no-sidecar", &mine, &json!({"name": "pgdog"})),
                pod("other", &other, &proxy),
                pod("by-hand", &json!({"app": "web"}), &proxy),
            ],
            ..World::default()
        }
    }

    #[test]
    fn proxies_are_those_that_were_injected_and_those_that_are_selected() {
        let names = |sidecar: Value| -> Vec<_> {
            let (cluster, world) = (cluster(&sidecar), world());
            injected(&cluster, &world)
                .iter()
                .map(|pod| pod.name_any())
                .collect()
        };
        assert_eq!(names(json!({})), ["with", "done"]);
        // Who asks for another cluster's is never this one's.
        let selected = json!({"podSelector": {"matchLabels": {"app": "web"}}});
        assert_eq!(names(selected), ["with", "done", "by-hand"]);
    }

    #[test]
    fn who_asked_in_vain_is_named() {
        assert_eq!(
            missing(&cluster(&json!({})), &world()),
            ["no-sidecar", "without"]
        );
        assert!(is_ready(&world().pods[0]) && !crate::world::is_ready(&world().pods[0]));
    }
}
