//! Events: one for each condition that has become another one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use pgdog_operator_api::{Condition, ConditionStatus, ConditionType, PgDogCluster};

use crate::context::Context;

/// After this time the same is a new event, as a [`Recorder`] has it.
const SERIES: Duration = Duration::from_secs(6 * 60);

/// Writes Events: the same again is counted, and another text is another event. A [`Recorder`] alone goes by the reason, and
/// keeps the first text for ever.
pub struct Events {
    client: Client,
    reporter: Reporter,
    /// One for each text, and when it was last needed.
    recorders: Mutex<HashMap<String, (Recorder, Instant)>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({})", self.reporter.controller)
    }
}

impl Events {
    /// Events of this program.
    #[must_use]
    pub fn new(client: Client, reporter: Reporter) -> Self {
        Self {
            client,
            reporter,
            recorders: Mutex::default(),
        }
    }

    /// Events are for people: one that cannot be written holds up nothing.
    async fn publish(&self, event: &Event, of: &ObjectReference) {
        let recorder = self.recorder(event.note.as_deref().unwrap_or_default());
        if let Err(error) = recorder.publish(event, of).await {
            tracing::debug!("failed to write an event: {error}");
        }
    }

    /// The one that has written this text before.
    fn recorder(&self, note: &str) -> Recorder {
        let now = Instant::now();
        let recorders = self.recorders.lock();
        let mut recorders = recorders.unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|_, (_, used)| now.duration_since(*used) < SERIES);
        let fresh = || Recorder::new(self.client.clone(), self.reporter.clone());
        let (recorder, used) = recorders
            .entry(note.to_owned())
            .or_insert_with(|| (fresh(), now));
        *used = now;
        recorder.clone()
    }
}

/// Tells what has changed.
pub async fn tell(cluster: &PgDogCluster, before: &[Condition], after: &[Condition], cx: &Context) {
    for event in transitions(before, after) {
        cx.events.publish(&event, &cluster.object_ref(&())).await;
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
    cx.events.publish(&event, &of).await;
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
        // Without a text it tells people nothing.
        .filter(|now| !now.message.is_empty())
        .map(|now| Event {
            type_: if is_bad(now) {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: format!("{:?}{}", now.kind, now.reason),
            note: Some(now.message.clone()),
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::status::{Finding, merge};

    fn after(reason: &'static str, message: &str) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let bad = reason != "AsExpected";
        let finding = Finding::new(ConditionType::Degraded, bad, reason, message);
        merge(&mut conditions, vec![finding], 1, Timestamp::UNIX_EPOCH);
        conditions
    }

    #[test]
    fn what_has_become_worse_or_well_is_told_in_words() {
        let well = after("AsExpected", "nothing is wrong");
        let bad = after("SecretMissing", "there is no Secret login");
        let told = |before: &[Condition], after: &[Condition]| -> Vec<(String, Option<String>)> {
            let events = transitions(before, after).into_iter();
            events.map(|event| (event.reason, event.note)).collect()
        };
        let note = |text: &str| Some(text.to_owned());
        assert_eq!(
            told(&well, &bad),
            [(
                "DegradedSecretMissing".to_owned(),
                note("there is no Secret login")
            )]
        );
        assert_eq!(
            told(&bad, &well),
            [("DegradedAsExpected".to_owned(), note("nothing is wrong"))]
        );
        assert!(told(&bad, &bad).is_empty());
        assert!(told(&bad, &after("AsExpected", "")).is_empty(), "no words");
    }
}
