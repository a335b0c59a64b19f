//! Accepts connections and speaks HTTP/1.1 on them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pgdog_net::{Accepted, Listener, ServerTls, Stream, timer};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use super::guard::Who;
use super::refusals::Refusals;

/// Connections at once, of each endpoint.
const CONNECTIONS: usize = 256;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the head of a request; also the time that a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);

/// One endpoint.
#[derive(Debug)]
pub(super) struct Server {
    listener: Listener,
    router: Router,
    secured: Option<Secured>,
}

/// What TLS needs.
#[derive(Debug, Clone)]
struct Secured {
    tls: watch::Receiver<Option<ServerTls>>,
    refusals: Arc<Refusals>,
}

impl Server {
    pub(super) const fn plain(listener: Listener, router: Router) -> Self {
        Self {
            listener,
            router,
            secured: None,
        }
    }

    pub(super) fn admin(
        listener: Listener,
        router: Router,
        tls: Option<watch::Receiver<Option<ServerTls>>>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            listener,
            router,
            secured: tls.map(|tls| Secured { tls, refusals }),
        }
    }

    /// Serves. Never ends.
    pub(super) async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let accepted = self.listener.accept().await;
            let (router, secured) = (self.router.clone(), self.secured.clone());
            tokio::spawn(async move {
                connection(accepted, router, secured).await;
                drop(place);
            });
        }
    }
}

async fn connection(accepted: Accepted, router: Router, secured: Option<Secured>) {
    let peer = accepted.peer;
    let stream = match accepted.stream.attach() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%peer, "failed to take over an HTTP connection: {error}");
            return;
        }
    };
    let stream = match secured {
        None => stream,
        Some(secured) => {
            // The one in force now: certificates are renewed.
            let tls = secured.tls.borrow().clone();
            let Some(stream) = encrypt(stream, tls).await else {
                secured.refusals.handshake();
                return;
            };
            stream
        }
    };
    let who = Who(stream.peer_identity());
    let service = router.map_request(
        move |mut request: axum::http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(who.clone());
            request.map(Body::new)
        },
    );
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, "HTTP connection ended: {error}");
    }
}

async fn encrypt(stream: Stream, tls: Option<ServerTls>) -> Option<Stream> {
    let Some(tls) = tls else {
        tracing::error!("no certificate for the HTTP admin API");
        return None;
    };
    match timer::timeout(HANDSHAKE, pgdog_net::accept(stream, &tls, &[])).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!("HTTP client refused: {error}");
            None
        }
        Err(_) => None,
    }
}
