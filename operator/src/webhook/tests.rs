//! What the webhook says, and that it says it over TLS.

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use pgdog_operator_api::PgDogCluster;
use serde_json::{Value, json};

use super::respond;

fn cluster(mode: &str) -> PgDogCluster {
    serde_json::from_value(json!({
        "apiVersion": "pgdog.dev/v1alpha1",
        "kind": "PgDogCluster",
        "metadata": {"name": "shop", "namespace": "demo", "uid": "u-1"},
        "spec": {
            "mode": mode,
            "source": {"provider": "Static", "hosts": [{"host": "db.example"}]},
            "databases": [{"name": "app"}],
        },
    }))
    .unwrap()
}

fn pod(labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": labels},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn asking() -> Value {
    pod(&json!({"pgdog.dev/inject": "shop"}))
}

/// A review as the API server sends it.
fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "r-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "demo",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

fn answer(pod: &Value, cluster: Result<Option<&PgDogCluster>, String>) -> AdmissionResponse {
    let review: AdmissionReview<DynamicObject> = serde_json::from_value(review(pod)).unwrap();
    let request: AdmissionRequest<DynamicObject> = review.try_into().unwrap();
    let read = serde_json::to_value(&request.object).unwrap();
    let answer = respond(&request, &read, cluster, "pgdog:1");
    assert_eq!(answer.uid, "r-1");
    answer
}

fn patched(pod: &Value, answer: &AdmissionResponse) -> Value {
    let patch: json_patch::Patch = serde_json::from_slice(answer.patch.as_ref().unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

#[test]
fn a_labelled_pod_gets_its_sidecar_and_nobody_else_one() {
    let sidecar = cluster("Sidecar");
    let answered = answer(&asking(), Ok(Some(&sidecar)));
    assert!(answered.allowed && answered.warnings.is_none());
    let with = patched(&asking(), &answered);
    assert_eq!(with["spec"]["initContainers"][0]["name"], "pgdog");
    assert_eq!(with["spec"]["initContainers"][0]["env"][0]["value"], "u-1");
    assert_eq!(with["spec"]["containers"][0]["env"][0]["name"], "PGHOST");
    let other = answer(&pod(&json!({"app": "web"})), Ok(None));
    assert!(other.allowed && other.patch.is_none());
    // The second question for the same pod, or a sidecar that stands in the manifest.
    let again = answer(&with, Ok(None));
    assert!(again.allowed && again.patch.is_none());
}

#[test]
fn a_cluster_that_has_no_sidecars_is_refused_with_the_way_out() {
    let deployment = cluster("Deployment");
    for (found, words) in [
        (
            Ok(None),
            "there is no PgDogCluster demo/shop: make it, with mode Sidecar",
        ),
        (
            Ok(Some(&deployment)),
            "PgDogCluster shop is of mode Deployment",
        ),
        (
            Err("no answer".to_owned()),
            "read PgDogCluster demo/shop: no answer",
        ),
    ] {
        let answer = answer(&asking(), found);
        assert!(!answer.allowed && answer.patch.is_none());
        assert!(
            answer.result.message.contains(words),
            "{}",
            answer.result.message
        );
    }
    let mut taken = asking();
    taken["spec"]["hostNetwork"] = true.into();
    let refused = answer(&taken, Ok(Some(&cluster("Sidecar"))));
    assert!(!refused.allowed && refused.result.message.contains("hostNetwork"));
}

#[test]
fn annotations_that_mean_nothing_are_told() {
    let mut pod = asking();
    pod["metadata"]["annotations"] = json!({"pgdog.dev/pool-size": "3"});
    let answer = answer(&pod, Ok(Some(&cluster("Sidecar"))));
    assert!(answer.allowed && answer.patch.is_some());
    let warnings = answer.warnings.unwrap();
    assert!(warnings[0].contains("pgdog.dev/pool-size"), "{warnings:?}");
}
