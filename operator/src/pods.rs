//! The pods in which the proxies of a cluster run, and what is known of each.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pgdog_operator_api::{Mode, PgDogCluster};

use crate::context::Context;
use crate::decide::Decision;
use crate::fleet::{Place, ProxyId, Report, Taken, is_unreachable};
use crate::observe;
use crate::render::process::Ports;
use crate::render::topology::Peer;
use crate::render::{children, pod};
use crate::sidecars;
use crate::standstill;
use crate::status::Proxy;
use crate::world::{World, ZONE, address, has_ended, is_leaving, is_ready, with_port};

/// The pods of the proxies, in a stable order.
pub(crate) fn proxies<'a>(cluster: &PgDogCluster, world: &'a World) -> Vec<&'a Pod> {
    let mut pods = own(cluster, world);
    pods.retain(|pod| !is_leaving(pod));
    pods
}

/// The pods of proxies that let their last clients finish, in a stable order.
pub(crate) fn leaving<'a>(cluster: &PgDogCluster, world: &'a World) -> Vec<&'a Pod> {
    let mut pods = own(cluster, world);
    pods.retain(|pod| is_leaving(pod) && !has_ended(pod));
    pods
}

/// The pods in which a proxy of this cluster runs or has run.
fn own<'a>(cluster: &PgDogCluster, world: &'a World) -> Vec<&'a Pod> {
    let mut pods = match cluster.spec.mode {
        Mode::Sidecar => sidecars::injected(cluster, world),
        Mode::Deployment => {
            let labels: Vec<_> = children::selector(cluster).into_iter().collect();
            world.pods_with(&labels).map(AsRef::as_ref).collect()
        }
    };
    pods.sort_by_key(|pod: &&Pod| pod.name_any());
    pods
}

/// By what a proxy is known.
pub(crate) fn id(cluster: &PgDogCluster, pod: &Pod) -> ProxyId {
    ProxyId {
        cluster: cluster.uid().unwrap_or_default(),
        pod: pod.uid().unwrap_or_default(),
    }
}

/// What each proxy has said last, in the order of their pods.
pub(crate) fn reports(cluster: &PgDogCluster, pods: &[&Pod], cx: &Context) -> Vec<Report> {
    let reports: Vec<_> = pods
        .iter()
        .map(|pod| {
            let mut report = match address(pod) {
                Some(_) => cx.fleet.report(&id(cluster, pod)),
                None => Report::unreachable("the pod has no address yet"),
            };
            if let Some(why) = standstill::of(pod) {
                explain(&mut report, why.message());
            }
            if observe::lacks_files(cluster, pod) {
                // It would refuse the settings that name them, and with it all others would go back to those of before.
                let why =
                    "the pod is of a former template, without the certificates of these settings";
                report.settings = Report::unreachable(why).settings;
            }
            Report {
                pod: pod.uid().unwrap_or_default(),
                ..report
            }
        })
        .collect();
    if let Some(epoch) = reports.iter().filter_map(|report| report.fenced).max() {
        cx.fenced.send_replace(Some(epoch));
    }
    reports
}

/// Why nobody answers: what stands in the way says more than that there is no answer.
fn explain(report: &mut Report, why: &str) {
    for taken in [&mut report.settings, &mut report.topology] {
        if is_unreachable(taken)
            && let Taken::Failed { message, .. } = taken
        {
            why.clone_into(message);
        }
    }
}

/// The proxies as they reach each other, also those that let their last clients finish. Sidecars do not: each listens within
/// its pod only.
pub(crate) fn peers<'a>(
    cluster: &PgDogCluster,
    pods: impl Iterator<Item = &'a &'a Pod>,
) -> Vec<Peer> {
    if cluster.spec.mode == Mode::Sidecar {
        return Vec::new();
    }
    pods.filter_map(|pod| {
        Some(Peer {
            pod_uid: pod.uid()?,
            address: address(pod)?.to_owned(),
            port: Ports::of(cluster).clients,
        })
    })
    .collect()
}

/// Where a proxy is reached.
pub(crate) fn place(cluster: &PgDogCluster, pod: &Pod) -> Option<Place> {
    let namespace = cluster.namespace().unwrap_or_default();
    Some(Place {
        address: with_port(address(pod)?, Ports::of(cluster).admin),
        name: format!("{}-proxy.{namespace}.pgdog", cluster.name_any()),
        restarts: restarts(pod),
    })
}

/// How often the proxy of a pod was started; another number is asked anew.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    main.into_iter()
        .chain(init)
        .flatten()
        .find(|container| container.name == crate::render::pod::CONTAINER)
        .map_or(-1, |container| {
            let runs = container
                .state
                .as_ref()
                .is_some_and(|s| s.running.is_some());
            if runs { container.restart_count } else { -1 }
        })
}

/// The proxies as the status tells of them.
pub(crate) fn seen(
    cluster: &PgDogCluster,
    pods: &[&Pod],
    reports: &[Report],
    decision: Option<&Decision>,
    image: &str,
) -> Vec<Proxy> {
    let hash = decision.map(|decision| children::hash(&decision.process));
    pods.iter()
        .zip(reports)
        .map(|(pod, report)| Proxy {
            pod: pod.name_any(),
            ready: match cluster.spec.mode {
                Mode::Deployment => is_ready(pod),
                Mode::Sidecar => sidecars::is_ready(pod),
            },
            updated: observe::is_updated(pod, hash.as_deref(), image),
            standstill: standstill::of(pod),
            report: report.clone(),
        })
        .collect()
}

/// How many pods are of the Deployment's template of now; nothing is known of a template that nobody has seen to yet.
pub(crate) fn rolled(cluster: &PgDogCluster, world: &World) -> Option<i32> {
    let name = children::proxy_name(cluster);
    let deployment = world.deployments.iter().find(|d| d.name_any() == name)?;
    let status = deployment.status.as_ref()?;
    let seen = status.observed_generation == deployment.metadata.generation;
    (seen && cluster.spec.mode == Mode::Deployment).then(|| status.updated_replicas.unwrap_or(0))
}

/// Reads cannot stay within a zone that a proxy does not know.
pub(crate) fn zoneless(cluster: &PgDogCluster, pods: &[&Pod]) -> Option<(&'static str, String)> {
    if !pod::wants_zone(cluster) {
        return None;
    }
    let knows = |pod: &Pod| pod.labels().contains_key(ZONE);
    let pod = pods
        .iter()
        .find(|pod| address(pod).is_some() && !knows(pod))?;
    let message = format!(
        "routing.preferSameZone: pod {} has no label {ZONE}, so its reads go to all zones: its node has none, or Kubernetes is \
         older than 1.35 and does not pass it on",
        pod.name_any()
    );
    Some(("ZoneUnknown", message))
}
