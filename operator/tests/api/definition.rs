//! The custom resource definition as the API server serves it: subresources, columns, size.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::harness::stage::Stage;

/// A status as the operator writes it.
fn status() -> Value {
    json!({
        "observedGeneration": 1, "selector": "pgdog.dev/cluster=shop", "replicas": 3, "readyReplicas": 2,
        "endpoints": {"primarySummary": "db-0"},
        "config": {"summary": "2/3", "settings": {
            "revision": 4, "hash": "0123456789", "hashShort": "01234567", "acked": 2, "nacked": 0, "pending": 1, "total": 3,
        }},
        "conditions": [
            condition("Available", "True", "Ready"), condition("Degraded", "True", "SecretMissing"),
        ],
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// A server-side apply by somebody, of the resource or of a part of it.
async fn apply(stage: &Stage, who: &str, part: &str, value: Value) -> kube::Result<DynamicObject> {
    let object = json!({
        "apiVersion": "pgdog.dev/v1alpha1", "kind": "PgDogCluster", "metadata": {"name": "shop"}, part: value,
    });
    let (params, patch) = (PatchParams::apply(who), Patch::Apply(&object));
    match part {
        "status" => stage.raw().patch_status("shop", &params, &patch).await,
        _ => stage.raw().patch("shop", &params, &patch).await,
    }
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let Some(stage) = Stage::open("status").await else {
        return;
    };
    stage.make("shop", json!({})).await;
    apply(&stage, "pgdog-operator", "status", status())
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"spec": {"replicas": 7}, "status": {"replicas": 9}}));
    let written = stage
        .raw()
        .patch("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(written.data["spec"]["replicas"], 7);
    assert_eq!(
        written.data["status"]["replicas"], 3,
        "a status came with a spec"
    );
    assert_eq!(written.metadata.generation, Some(2));
    let written = stage
        .raw()
        .patch_status("shop", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(written.data["status"]["replicas"], 9);
    assert_eq!(
        written.metadata.generation,
        Some(2),
        "a status is no new generation"
    );
    // Conditions are merged by type: another manager's do not take ours away.
    let other = json!({"conditions": [condition("Paused", "False", "NotAsked")]});
    let written = apply(&stage, "somebody", "status", other).await.unwrap();
    assert_eq!(
        written.data["status"]["conditions"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[tokio::test]
async fn an_autoscaler_reads_and_writes_the_scale_and_a_manifest_without_replicas_leaves_it() {
    let Some(stage) = Stage::open("scale").await else {
        return;
    };
    stage.make("shop", json!({})).await;
    apply(&stage, "pgdog-operator", "status", status())
        .await
        .unwrap();
    let scale = stage.raw().get_scale("shop").await.unwrap();
    let seen = scale.status.unwrap();
    assert_eq!(
        (seen.replicas, seen.selector.as_deref()),
        (3, Some("pgdog.dev/cluster=shop"))
    );

    let chosen = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let autoscaler = PatchParams {
        field_manager: Some("hpa".to_owned()),
        ..PatchParams::default()
    };
    stage
        .raw()
        .patch_scale("shop", &autoscaler, &chosen)
        .await
        .unwrap();
    let manifest = json!({
        "source": {"provider": "Static", "hosts": [{"host": "db.example"}]}, "databases": [{"name": "app"}],
        "autoscaling": {"maxReplicas": 8},
    });
    let params = PatchParams::apply("kubectl").force();
    let object = json!({
        "apiVersion": "pgdog.dev/v1alpha1", "kind": "PgDogCluster", "metadata": {"name": "shop"}, "spec": manifest,
    });
    let applied = stage
        .raw()
        .patch("shop", &params, &Patch::Apply(&object))
        .await
        .unwrap();
    assert_eq!(
        applied.data["spec"]["replicas"], 5,
        "it is the autoscaler's"
    );
    let refused = apply(
        &stage,
        "kubectl",
        "spec",
        json!({"replicas": 2, "databases": [{"name": "app"}]}),
    )
    .await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("conflict") && refused.contains("hpa"),
        "{refused}"
    );
}

#[tokio::test]
async fn columns_show_what_an_operator_of_the_cluster_wants_to_know() {
    let Some(stage) = Stage::open("columns").await else {
        return;
    };
    stage.make("shop", json!({})).await;
    apply(&stage, "pgdog-operator", "status", status())
        .await
        .unwrap();
    let path = format!(
        "/apis/pgdog.dev/v1alpha1/namespaces/{}/pgdogclusters",
        stage.namespace
    );
    let request =
        hyper::Request::get(path).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table: Value = stage
        .client
        .request(request.body(Vec::new()).unwrap())
        .await
        .unwrap();
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            (
                column["name"].as_str().unwrap(),
                column["priority"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("Name", 0),
            ("Mode", 0),
            ("Replicas", 0),
            ("Ready", 0),
            ("Synced", 0),
            ("Primary", 0),
            ("Available", 0),
            ("Reason", 1),
            ("Hash", 1),
            ("Age", 0),
        ]
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let wanted = json!([
        "shop",
        "Deployment",
        3,
        2,
        "2/3",
        "db-0",
        "True",
        "SecretMissing",
        "01234567"
    ]);
    assert_eq!(cells[..9], *wanted.as_array().unwrap());
}

#[tokio::test]
async fn it_is_found_by_its_short_name_its_categories_and_its_mode() {
    let Some(stage) = Stage::open("names").await else {
        return;
    };
    let request = hyper::Request::get("/apis/pgdog.dev/v1alpha1")
        .body(Vec::new())
        .unwrap();
    let known: Value = stage.client.request(request).await.unwrap();
    let resources = known["resources"].as_array().unwrap();
    let ours = resources
        .iter()
        .find(|r| r["name"] == "pgdogclusters")
        .unwrap();
    assert_eq!(ours["shortNames"], json!(["pdc"]));
    assert_eq!(ours["categories"], json!(["pgdog", "postgres"]));
    for sub in ["pgdogclusters/status", "pgdogclusters/scale"] {
        assert!(resources.iter().any(|r| r["name"] == sub), "{sub}");
    }
    stage.make("one", json!({})).await;
    stage.make("two", json!({"mode": "Sidecar"})).await;
    let sidecars = ListParams::default().fields("spec.mode=Sidecar");
    let found = stage.raw().list(&sidecars).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].metadata.name.as_deref(), Some("two"));
}

#[tokio::test]
async fn the_definition_is_small_and_each_field_of_it_is_explained() {
    let Some(stage) = Stage::open("size").await else {
        return;
    };
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let api: Api<DynamicObject> = Api::all_with(stage.client.clone(), &kind);
    let mut crd = api.get("pgdogclusters.pgdog.dev").await.unwrap();
    crd.metadata.managed_fields = None;
    let size = serde_json::to_vec(&crd).unwrap().len();
    assert!(size < 100 * 1024, "{size} bytes");
    // What `kubectl explain` reads.
    let request = hyper::Request::get("/openapi/v3/apis/pgdog.dev/v1alpha1")
        .body(Vec::new())
        .unwrap();
    let schemas: Value = stage.client.request(request).await.unwrap();
    let schemas = schemas["components"]["schemas"].as_object().unwrap();
    let (_, ours) = schemas
        .iter()
        .find(|(name, _)| name.ends_with(".PgDogCluster"))
        .unwrap();
    let spec = ours["properties"]["spec"]["properties"]
        .as_object()
        .unwrap();
    assert!(spec.len() > 20, "{:?}", spec.keys());
    for (field, schema) in spec {
        assert!(
            schema["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{field}"
        );
    }
}
