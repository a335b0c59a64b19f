//! What all proxies do at one moment or not at all: a pause, its end, other shards. When each is due, and its beginning; how it is
//! carried out stands in [`crate::atomic`].

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use pgdog_operator_api::PgDogCluster;

use crate::atomic::{Kind, Order, Party, Progress, Target};
use crate::context::{Context, Memory};
use crate::pausing::{self, Step};
use crate::pods::{place, restarts};

/// Time in which kubelet brings a pod that waits the files of now.
const NEW: Duration = Duration::from_secs(120);

/// How far a change of shards has come. One that has come to its end is remembered.
pub(crate) fn changing(
    cluster: &PgDogCluster,
    memory: &mut Memory,
    cx: &Context,
) -> Option<Progress> {
    let progress = progress(cluster, Kind::Sharding, cx);
    if let Some(Progress::Done(Target::Topology(document))) = &progress {
        memory.topology = Some(document.config.clone());
        // Whatever else goes wrong now: it is in force.
        cx.remember(cluster, memory.clone());
        cx.changes.forget(&cluster.uid().unwrap_or_default());
        return None;
    }
    progress
}

fn progress(cluster: &PgDogCluster, kind: Kind, cx: &Context) -> Option<Progress> {
    let uid = cluster.uid().unwrap_or_default();
    let generation = cluster.meta().generation.unwrap_or_default();
    cx.changes.progress(&uid, kind, generation)
}

/// Who or what has to come to an end before all proxies can change their shards at one moment.
pub(crate) fn obstacle(pause: &Step, pods: &[&Pod], leaving: usize) -> Option<String> {
    if !matches!(pause, Step::Nothing | Step::Keep(_)) {
        return Some("a pause is not over, or not there yet".to_owned());
    }
    if leaving > 0 {
        return Some(format!("{leaving} proxies let their last clients finish"));
    }
    let pod = pods.iter().find(|pod| starts(pod))?;
    Some(format!("{} does not run", pod.name_any()))
}

/// Whether a proxy starts: it may have read its file already.
fn starts(pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    node.is_some() && restarts(pod) < 0
}

/// Whether a pod was made so short a while ago that its file may be one of before.
fn is_new(pod: &Pod) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref();
    made.is_some_and(|made| {
        Duration::try_from(Timestamp::now().duration_since(made.0)).is_ok_and(|age| age < NEW)
    })
}

/// What is to be done about a pause.
pub(crate) fn pausing(
    cluster: &PgDogCluster,
    (pods, leaving): (&[&Pod], usize),
    changing: Option<&Progress>,
    memory: &mut Memory,
    cx: &Context,
) -> Step {
    let mut progress = progress(cluster, Kind::Pause, cx);
    if let Some(Progress::Done(Target::Paused(paused))) = progress {
        memory.paused = Some(paused);
        cx.changes.forget(&cluster.uid().unwrap_or_default());
        progress = None;
    }
    let wanted = cluster.spec.paused;
    if wanted {
        // Its file says so from now on to who starts: he has to be told also where the pause is taken back before it began.
        memory.paused.get_or_insert(false);
    }
    // One that does not come up at all holds up nobody: it is paused when it is there.
    let new = pods.iter().find(|pod| starts(pod) && is_new(pod));
    let obstacle = match (leaving, new) {
        (0, None) => None,
        (0, Some(pod)) => Some(("Starting", format!("{} starts", pod.name_any()))),
        _ => Some((
            "Draining",
            format!("{leaving} proxies let their last clients finish"),
        )),
    };
    match pausing::step(wanted, memory.paused, progress.as_ref(), obstacle) {
        Step::Begin if changing == Some(&Progress::Running) => Step::Wait {
            reason: "Sharding",
            message: "all proxies change their shards first".to_owned(),
        },
        step => step,
    }
}

/// Begins to pause all proxies, to end that, or to change their shards.
pub(crate) fn begin(
    cluster: &PgDogCluster,
    pods: &[&Pod],
    target: Target,
    memory: &mut Memory,
    cx: &Context,
) {
    memory.paused.get_or_insert(false);
    memory.attempts += 1;
    let parties = pods.iter().filter(|pod| restarts(pod) >= 0);
    let parties = parties.filter_map(|pod| {
        Some(Party {
            name: pod.name_any(),
            pod: pod.uid()?,
            place: place(cluster, pod)?,
        })
    });
    cx.changes.begin(Order {
        owner: ObjectRef::from_obj(cluster),
        cluster: cluster.uid().unwrap_or_default(),
        generation: cluster.meta().generation.unwrap_or_default(),
        epoch: cx.epoch,
        target,
        parties: parties.collect(),
    });
    // Also where this reconciliation ends here.
    cx.remember(cluster, memory.clone());
}
