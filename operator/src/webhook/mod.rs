//! The mutating webhook: the API server asks it for each new pod that carries the label `pgdog.dev/inject`, and it answers with the
//! sidecar. Every replica answers, not only the one that leads.
//!
//! What it says is decided by [`respond`], which is pure. It changes nothing anywhere, so a dry run is like any other.

pub mod certificate;
mod listen;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};
use pgdog_operator_api::{PgDogCluster, labels};
use serde_json::Value;

use self::certificate::Certificate;
use self::listen::Listener;
use crate::inject::{DefaultImage, asked, has_sidecar, inject, unknown};

/// Largest question that is read: a pod of the largest size that there is, twice.
const QUESTION_MAX: usize = 8 << 20;

/// What an answer is made from.
#[derive(Clone)]
pub struct Known {
    /// The API server, for a cluster that the watch has not seen yet.
    pub client: Client,
    /// The clusters that the watch has seen.
    pub clusters: Store<PgDogCluster>,
    /// The image of proxies whose cluster names none.
    pub image: DefaultImage,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Known({})", self.image.name)
    }
}

/// Serves `POST /inject` from the first certificate on, until the process ends. Returns the address.
///
/// # Errors
///
/// When the address is taken.
pub async fn start(
    address: SocketAddr,
    certificate: Certificate,
    known: Known,
) -> std::io::Result<SocketAddr> {
    let router = Router::new()
        .route("/inject", post(answer))
        .layer(DefaultBodyLimit::max(QUESTION_MAX))
        .with_state(known);
    let listener = Listener::bind(address, certificate).await?;
    let address = axum::serve::Listener::local_addr(&listener)?;
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(address)
}

async fn answer(
    State(known): State<Known>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Json<AdmissionReview<DynamicObject>> {
    let request: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(request) => request,
        Err(_) => {
            let answer = AdmissionResponse::invalid("an AdmissionReview without a request");
            return Json(answer.into_review());
        }
    };
    let pod = serde_json::to_value(&request.object).unwrap_or_default();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let cluster = match asked(&pod) {
        Some(name) if !has_sidecar(&pod) => known.find(namespace, name).await,
        _ => Ok(None),
    };
    let cluster = cluster
        .as_ref()
        .map(|found| found.as_deref())
        .map_err(ToString::to_string);
    let answer = respond(&request, &pod, cluster, &known.image);
    if !answer.allowed {
        tracing::info!(namespace, "refused a pod: {}", answer.result.message);
    }
    Json(answer.into_review())
}

impl Known {
    /// A cluster that was made a moment ago is not in the store yet.
    async fn find(&self, namespace: &str, name: &str) -> kube::Result<Option<Arc<PgDogCluster>>> {
        if let Some(cluster) = self.clusters.get(&ObjectRef::new(name).within(namespace)) {
            return Ok(Some(cluster));
        }
        let api: Api<PgDogCluster> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?.map(Arc::new))
    }
}

/// The answer for a pod, written as JSON. `cluster` is the one that it asks for, or why that cannot be said.
#[must_use]
pub fn respond(
    request: &AdmissionRequest<DynamicObject>,
    pod: &Value,
    cluster: Result<Option<&PgDogCluster>, String>,
    image: &DefaultImage,
) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let Some(name) = asked(pod) else {
        return response;
    };
    let warnings = unknown(pod);
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    if has_sidecar(pod) {
        // It stands in the manifest, or this is the second question for the same pod.
        return response;
    }
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let cluster = match cluster {
        Ok(Some(cluster)) => cluster,
        Ok(None) => {
            return response.deny(format!(
                "there is no PgDogCluster {namespace}/{name}: make it, with mode Sidecar, or take the label {} away",
                labels::INJECT
            ));
        }
        Err(error) => {
            return response.deny(format!("read PgDogCluster {namespace}/{name}: {error}"));
        }
    };
    let mut with = pod.clone();
    if let Err(refusal) = inject(cluster, image, &mut with) {
        return response.deny(refusal);
    }
    let allowed = response.clone();
    match response.with_patch(json_patch::diff(pod, &with)) {
        Ok(response) => response,
        Err(error) => allowed.deny(error),
    }
}
