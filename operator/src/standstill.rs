//! Why the proxy of a pod does not run, as kubelet and scheduler say.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use crate::render::pod::CONTAINER;
use crate::status::shortened;

/// What waits for a container and does not pass by itself.
const FAILING: [&str; 9] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Bytes of what is told of a container.
const MOST: usize = 200;

/// Why a proxy does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standstill {
    /// No node takes its pod: another one may come.
    Unschedulable(String),
    /// Its container fails: somebody has to do something.
    Failing(String),
}

impl Standstill {
    /// The same for people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Unschedulable(message) | Self::Failing(message) => message,
        }
    }
}

/// Why the proxy of this pod does not run; `None` where it does, or is about to.
#[must_use]
pub fn of(pod: &Pod) -> Option<Standstill> {
    let status = pod.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let placed = conditions.find(|condition| condition.type_ == "PodScheduled");
    if let Some(placed) = placed.filter(|placed| placed.status == "False") {
        let reason = placed.reason.as_deref().unwrap_or("Unschedulable");
        let message = told(reason, placed.message.as_deref());
        return Some(Standstill::Unschedulable(message));
    }
    let main = status.container_statuses.iter().flatten();
    let init = status.init_container_statuses.iter().flatten();
    let own = main.chain(init).find(|one| one.name == CONTAINER)?;
    let waiting = own.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = match reason {
        _ if !FAILING.contains(&reason) => return None,
        "CrashLoopBackOff" => told(reason, last_words(own).as_deref()),
        _ => told(reason, waiting.message.as_deref()),
    };
    Some(Standstill::Failing(message))
}

fn told(reason: &str, message: Option<&str>) -> String {
    match message.map(str::trim).filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {}", shortened(message, MOST)),
        None => reason.to_owned(),
    }
}

/// What a container said last before it ended, or how it ended.
fn last_words(container: &ContainerStatus) -> Option<String> {
    let ended = |state: &Option<ContainerState>| state.as_ref()?.terminated.clone();
    let ended = ended(&container.last_state)?;
    let said = ended.message.unwrap_or_default();
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Some(match last {
        Some(line) => line.to_owned(),
        None => format!(
            "{}, exit code {}",
            ended.reason.as_deref().unwrap_or("Error"),
            ended.exit_code
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn waiting(state: &Value, last: &Value) -> Option<Standstill> {
        let container = json!({
            "name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": state}, "lastState": last,
        });
        of(&pod(&json!({"containerStatuses": [container]})))
    }

    #[test]
    fn a_pod_that_no_node_takes_says_why() {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
        });
        assert_eq!(
            of(&pod(&json!({"conditions": [condition]}))),
            Some(Standstill::Unschedulable(
                "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.".to_owned()
            ))
        );
    }

    #[test]
    fn a_container_that_ends_again_and_again_is_told_with_its_last_words() {
        let state = json!({"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"});
        let ended = |message: &str| {
            let ended = json!({"exitCode": 1, "reason": "Error", "message": message});
            waiting(&state, &json!({"terminated": ended}))
        };
        let failing = |message: &str| Some(Standstill::Failing(message.to_owned()));
        assert_eq!(
            ended("starting\nError: no such option\n"),
            failing("CrashLoopBackOff: Error: no such option")
        );
        assert_eq!(ended(""), failing("CrashLoopBackOff: Error, exit code 1"));
        let long = ended(&"x".repeat(5000)).unwrap();
        assert!(long.message().len() < 250, "{}", long.message());
    }

    #[test]
    fn an_image_that_cannot_be_had_is_told_and_a_start_is_no_failure() {
        let state = json!({"reason": "ErrImagePull", "message": "pgdog:9: not found"});
        assert_eq!(
            waiting(&state, &json!({})).unwrap().message(),
            "ErrImagePull: pgdog:9: not found"
        );
        assert_eq!(
            waiting(&json!({"reason": "ContainerCreating"}), &json!({})),
            None
        );
        assert_eq!(of(&pod(&json!({"phase": "Running"}))), None);
    }
}
