//! The router of the admin API, made of the table of operations, and what answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use pgdog_config::api::{Half, Push, Refused, RefusedBecause};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::console::{self, ActQuery};
use super::guard::{Guard, Who};
use super::operations::{Asks, OPERATIONS, Operation};
use super::refusals::Refusals;
use super::{Control, Shared, openapi};
use crate::admin::Admin;

/// Largest body of a request.
pub(super) const BODY: usize = 4 << 20;

fn route(operation: &'static Operation) -> MethodRouter<Shared> {
    match &operation.asks {
        Asks::Push(Half::Settings) => put(push_settings),
        Asks::Push(Half::Topology) => put(push_topology),
        Asks::Budget => put(push_budget),
        Asks::Prepare => post(prepare),
        Asks::Commit => post(commit),
        Asks::Abort => post(abort),
        Asks::Config => get(config),
        Asks::Status => get(status),
        Asks::Reload => post(reload),
        Asks::Drain => post(drain),
        Asks::View(show) => {
            get(async move |State(admin): State<Arc<Admin>>| console::view(show, &admin))
        }
        Asks::Act(act) => post(
            async move |State(admin): State<Arc<Admin>>,
                        query: Result<Query<ActQuery>, QueryRejection>| {
                console::act(act, admin, query).await
            },
        ),
    }
}

pub(super) fn router(shared: Shared, guard: Guard, refusals: Arc<Refusals>) -> Router {
    let mut router = Router::new().route("/openapi.json", get(document));
    for operation in OPERATIONS {
        router = router.route(operation.path, route(operation));
    }
    router
        .fallback(async || {
            refused(&Refused::new(
                RefusedBecause::NotFound,
                "no such path: see /openapi.json",
            ))
        })
        .method_not_allowed_fallback(async || {
            refused(&Refused::new(
                RefusedBecause::MethodNotAllowed,
                "the path takes other methods: see /openapi.json",
            ))
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state((Arc::new(guard), refusals), admit))
        .with_state(shared)
}

async fn admit(
    State((guard, refusals)): State<(Arc<Guard>, Arc<Refusals>)>,
    request: Request,
    next: Next,
) -> Response {
    let nobody = Who::default();
    let who = request.extensions().get::<Who>().unwrap_or(&nobody);
    let response = match guard.check(who, request.headers()) {
        Ok(()) => {
            let mut response = next.run(request).await;
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            tracing::warn!(
                "HTTP request for {} refused: {}",
                request.uri().path(),
                error.message
            );
            refused(&error)
        }
    };
    if let Some(because) = response.extensions().get() {
        refusals.request(*because);
    }
    response
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PushQuery {
    #[serde(rename = "dryRun", default)]
    dry_run: bool,
}

async fn push_settings(
    state: State<Arc<dyn Control>>,
    query: Result<Query<PushQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    push(Half::Settings, state, query.map(|q| q.0), &headers, body).await
}

async fn push_topology(
    state: State<Arc<dyn Control>>,
    query: Result<Query<PushQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    push(Half::Topology, state, query.map(|q| q.0), &headers, body).await
}

async fn push_budget(
    State(control): State<Arc<dyn Control>>,
    query: Result<Query<PushQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match asked(query.map(|q| q.0), &headers, body) {
        Ok((push, dry_run)) => {
            blocking(StatusCode::OK, move || control.push_budget(push, dry_run)).await
        }
        Err(error) => refused(&error),
    }
}

async fn push(
    half: Half,
    State(control): State<Arc<dyn Control>>,
    query: Result<PushQuery, QueryRejection>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match asked(query, headers, body) {
        // It builds pools and reads certificates, and others wait for their turn meanwhile.
        Ok((push, dry_run)) => {
            blocking(StatusCode::OK, move || control.push(half, push, dry_run)).await
        }
        Err(error) => refused(&error),
    }
}

async fn prepare(
    State(control): State<Arc<dyn Control>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match read(&headers, body, "a change to prepare") {
        Ok(asked) => blocking(StatusCode::OK, move || control.prepare(asked)).await,
        Err(error) => refused(&error),
    }
}

async fn commit(
    State(control): State<Arc<dyn Control>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match read(&headers, body, "the name of a change") {
        Ok(asked) => blocking(StatusCode::OK, move || control.commit(&asked)).await,
        Err(error) => refused(&error),
    }
}

async fn abort(
    State(control): State<Arc<dyn Control>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match read(&headers, body, "the name of a change") {
        Ok(asked) => blocking(StatusCode::OK, move || control.abort(&asked)).await,
        Err(error) => refused(&error),
    }
}

/// What is pushed, and whether it is a dry run.
fn asked(
    query: Result<PushQuery, QueryRejection>,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Push, bool), Refused> {
    let Ok(query) = query else {
        let message = "the only parameter is dryRun, which takes true or false";
        return Err(Refused::new(RefusedBecause::Malformed, message));
    };
    Ok((read(headers, body, "a push")?, query.dry_run))
}

fn read<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    what: &str,
) -> Result<T, Refused> {
    let content = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content = content
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !content.trim().eq_ignore_ascii_case("application/json") {
        let message = "the body has to be JSON: send Content-Type: application/json";
        return Err(Refused::new(RefusedBecause::NotJson, message));
    }
    let body = body.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the body is larger than {BODY} bytes");
            Refused::new(RefusedBecause::TooLarge, message)
        } else {
            Refused::new(RefusedBecause::Malformed, "the body did not arrive")
        }
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        Refused::new(
            RefusedBecause::Malformed,
            format!("not {what}: {}", without_values(&error)),
        )
    })
}

/// The reader of JSON quotes values, which may be secrets in the wrong place; names of fields stay.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match (text.strip_prefix("invalid "), text.rfind(", expected ")) {
        (Some(_), Some(expected)) => format!("invalid{}", &text[expected..]),
        _ => text,
    }
}

async fn config(State(control): State<Arc<dyn Control>>) -> Response {
    answer(StatusCode::OK, control.config())
}

async fn status(State(control): State<Arc<dyn Control>>) -> Response {
    answer(StatusCode::OK, Ok(control.status()))
}

async fn reload(State(control): State<Arc<dyn Control>>) -> Response {
    blocking(StatusCode::OK, move || control.reload()).await
}

async fn drain(State(control): State<Arc<dyn Control>>) -> Response {
    answer(StatusCode::ACCEPTED, Ok(control.drain()))
}

async fn document() -> Response {
    json(StatusCode::OK, &openapi::document())
}

async fn blocking<T: Serialize + Send + 'static>(
    status: StatusCode,
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => answer(status, result),
        Err(_) => refused(&Refused::new(
            RefusedBecause::Internal,
            "a defect: see the log",
        )),
    }
}

pub(super) fn answer<T: Serialize>(status: StatusCode, result: Result<T, Refused>) -> Response {
    match result {
        Ok(value) => json(status, &value),
        Err(error) => refused(&error),
    }
}

fn refused(error: &Refused) -> Response {
    let status =
        StatusCode::from_u16(error.error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, error);
    response.extensions_mut().insert(error.error);
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!("failed to write an HTTP answer: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_body_is_told_without_its_values() {
        let told = |body: &str| without_values(&serde_json::from_str::<Push>(body).unwrap_err());
        let value = told(r#"{"epoch":1,"revision":1,"config":"hunter2"}"#);
        assert!(
            value.contains("expected a map") && !value.contains("hunter2"),
            "{value}"
        );
        let value = told(r#"{"epoch":"hunter2, expected x","revision":1,"config":{}}"#);
        assert!(
            value.contains("expected u64") && !value.contains("hunter2"),
            "{value}"
        );
        assert!(told(r#"{"epoch":1}"#).contains("missing field `revision`"));
        assert!(told(r#"{"epohc":1}"#).contains("unknown field `epohc`"));
    }
}
