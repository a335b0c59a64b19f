//! Health and metrics, for kubelets and Prometheus: in the clear, and nothing that anybody could misuse.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pgdog_config::api::Phase;
use pgdog_net::ServerTls;
use tokio::sync::watch;

use super::refusals::Refusals;
use crate::metrics;

/// What a path that is none of the known ones gives: PgDog answers every path of these ports.
#[derive(Debug, Clone, Copy)]
pub(super) enum Otherwise {
    Health,
    Metrics,
}

/// What these endpoints show.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) of: super::Shared,
    /// What the names of metrics begin with.
    pub(super) namespace: Arc<str>,
    /// TLS of the admin API, for its certificates' dates.
    pub(super) admin_tls: watch::Receiver<Option<ServerTls>>,
    /// What the admin API has refused.
    pub(super) refusals: Arc<Refusals>,
}

pub(super) fn router(shared: Shared, otherwise: Otherwise) -> Router {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/startupz", get(started))
        .route("/readyz", get(ready))
        .route("/metrics", get(figures));
    let router = match otherwise {
        Otherwise::Health => router.fallback(get(ready)),
        Otherwise::Metrics => router.fallback(get(figures)),
    };
    router.with_state(shared)
}

/// 200 as long as the process does its work.
async fn live(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.of.control.wedged() {
        None => (StatusCode::OK, "up\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// 200 from the moment that clients can connect.
async fn started(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match shared.of.control.phase() {
        Phase::Running | Phase::Draining => (StatusCode::OK, "up\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Waiting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for a configuration\n",
        ),
    }
}

/// 200 while new clients are welcome. Says nothing about databases: a pod that leaves its Service because of them would
/// turn errors that clients understand into refused connections.
async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match shared.of.control.phase() {
        Phase::Running => (StatusCode::OK, "up\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Waiting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for a configuration\n",
        ),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn figures(State(shared): State<Shared>) -> Response {
    let super::Shared { control, admin } = &shared.of;
    let tls = shared.admin_tls.borrow().clone();
    let mut own = control.metrics();
    own.push(shared.refusals.metric());
    let text = metrics::text(admin, own, tls.as_ref(), &shared.namespace);
    ([(CONTENT_TYPE, metrics::CONTENT)], text).into_response()
}
