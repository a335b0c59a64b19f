//! Events: one for each condition that has become another one.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::events::{Event, EventType};
use pgdog_operator_api::{Condition, ConditionStatus, ConditionType, PgDogCluster};

use crate::context::Context;

/// Tells what has changed. Events are for people: one that cannot be written holds up nothing.
pub async fn tell(cluster: &PgDogCluster, before: &[Condition], after: &[Condition], cx: &Context) {
    for event in transitions(before, after) {
        if let Err(error) = cx.recorder.publish(&event, &cluster.object_ref(&())).await {
            tracing::debug!("failed to write an event: {error}");
        }
    }
}

/// Tells of a resource that cannot be read: another version of the operator stored it.
pub async fn unreadable(cluster: &ObjectMeta, error: &str, cx: &Context) {
    let of = ObjectReference {
        api_version: Some(PgDogCluster::api_version(&()).into_owned()),
        kind: Some(PgDogCluster::kind(&()).into_owned()),
        name: cluster.name.clone(),
        namespace: cluster.namespace.clone(),
        uid: cluster.uid.clone(),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: "Unreadable".to_owned(),
        note: Some(format!(
            "this version of the operator cannot read it, and leaves its proxies as they are: {error:.800}"
        )),
        action: "Read".to_owned(),
        secondary: None,
    };
    if let Err(error) = cx.recorder.publish(&event, &of).await {
        tracing::debug!("failed to write an event: {error}");
    }
}

/// The events of a change.
#[must_use]
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    after
        .iter()
        .filter(|now| {
            let was = before.iter().find(|was| was.kind == now.kind);
            match was {
                Some(was) => was.status != now.status || was.reason != now.reason && is_bad(now),
                None => is_bad(now),
            }
        })
        .map(|now| Event {
            type_: if is_bad(now) {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: format!("{:?}{}", now.kind, now.reason),
            note: Some(now.message.clone()).filter(|message| !message.is_empty()),
            action: "Reconcile".to_owned(),
            secondary: None,
        })
        .collect()
}

/// Whether somebody should look at it.
fn is_bad(condition: &Condition) -> bool {
    match condition.kind {
        ConditionType::Degraded => condition.status == ConditionStatus::True,
        ConditionType::ConfigValid
        | ConditionType::SecretsResolved
        | ConditionType::EndpointsResolved
        | ConditionType::TLSReady
        | ConditionType::SidecarsInjected => condition.status == ConditionStatus::False,
        ConditionType::ConfigSynced => {
            condition.status == ConditionStatus::False && condition.reason != "Pending"
        }
        _ => false,
    }
}
