//! What the operator counts, and the endpoints at which it is read: `/metrics`, `/livez`, `/readyz`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use jiff::Timestamp;
use pgdog_config::api::Half;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use tokio::net::TcpListener;

/// Each kind of objects is asked for every minute, whether something changes or not.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// Bits of what a replica waits for before it is ready.
const WATCHES: u64 = 1;
const WEBHOOK: u64 = 2;

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounter,
    /// Reconciliations that failed.
    pub errors: IntCounter,
    duration: Histogram,
    pushes: IntCounterVec,
    push_duration: HistogramVec,
    proxies: IntGaugeVec,
    silence: IntGauge,
    unreadable: IntGauge,
    /// Whether this replica leads.
    pub leader: IntGauge,
    /// What has to be there before this replica is ready, and is not yet.
    awaited: AtomicU64,
    /// When each kind of object was last heard of, seconds since 1970.
    heard: Mutex<BTreeMap<String, i64>>,
}

impl Metrics {
    /// Nothing yet.
    ///
    /// # Errors
    ///
    /// Names that are there twice.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reconciles = IntCounter::new("pgdog_operator_reconciles_total", "Reconciliations.")?;
        let errors = IntCounter::new(
            "pgdog_operator_reconcile_errors_total",
            "Reconciliations that failed.",
        )?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "pgdog_operator_reconcile_duration_seconds",
                "Time a reconciliation takes.",
            )
            .buckets(prometheus::exponential_buckets(0.005, 2.0, 12)?),
        )?;
        let pushes = IntCounterVec::new(
            Opts::new(
                "pgdog_operator_push_total",
                "Configurations brought to proxies, by half and result.",
            ),
            &["half", "result"],
        )?;
        let leader = IntGauge::new("pgdog_operator_leader", "Whether this replica leads.")?;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(pushes.clone()))?;
        let push_duration = HistogramVec::new(
            HistogramOpts::new(
                "pgdog_operator_push_duration_seconds",
                "Time until a proxy answers a push, by half.",
            )
            .buckets(prometheus::exponential_buckets(0.001, 2.0, 15)?),
            &["half"],
        )?;
        let proxies = IntGaugeVec::new(
            Opts::new(
                "pgdog_operator_proxies",
                "Proxies, by how they stand to their configuration.",
            ),
            &["state"],
        )?;
        let silence = IntGauge::new(
            "pgdog_operator_watch_last_event_seconds",
            "Time since a watch has said something.",
        )?;
        let unreadable = IntGauge::new(
            "pgdog_operator_unreadable_clusters",
            "PgDogClusters that this version cannot read, as another one stored them.",
        )?;
        registry.register(Box::new(unreadable.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(push_duration.clone()))?;
        registry.register(Box::new(proxies.clone()))?;
        registry.register(Box::new(silence.clone()))?;
        Ok(Self {
            registry,
            reconciles,
            errors,
            duration,
            pushes,
            push_duration,
            proxies,
            silence,
            unreadable,
            leader,
            awaited: AtomicU64::new(WATCHES),
            heard: Mutex::default(),
        })
    }

    /// A reconciliation took this long.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A proxy has answered a push, or has not.
    pub fn pushed(&self, half: Half, result: &str, took: Duration) {
        self.pushes
            .with_label_values(&[half.as_str(), result])
            .inc();
        self.push_duration
            .with_label_values(&[half.as_str()])
            .observe(took.as_secs_f64());
    }

    /// So many proxies are in each state now.
    pub fn stand(&self, states: &[(&str, usize)]) {
        for (state, count) in states {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.proxies.with_label_values(&[*state]).set(count);
        }
    }

    /// So many clusters cannot be read.
    pub fn unreadable(&self, count: usize) {
        self.unreadable
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The API server has said something of this kind of objects.
    pub fn heard(&self, kind: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(kind.to_owned(), Timestamp::now().as_second());
    }

    /// All watches have seen what there is.
    pub fn ready(&self) {
        self.awaited.fetch_and(!WATCHES, Ordering::Relaxed);
    }

    /// There is a webhook: without a certificate it cannot answer.
    pub fn expect_webhook(&self) {
        self.awaited.fetch_or(WEBHOOK, Ordering::Relaxed);
    }

    /// The webhook has its certificate.
    pub fn webhook_ready(&self) {
        self.awaited.fetch_and(!WEBHOOK, Ordering::Relaxed);
    }

    /// Whether the watches are alive.
    fn is_alive(&self) -> bool {
        self.silent() < i64::try_from(SILENCE.as_secs()).unwrap_or(i64::MAX)
    }

    /// Seconds since the API server has said something of the kind that was heard of least lately.
    fn silent(&self) -> i64 {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = heard.values().min().copied();
        oldest.map_or(0, |oldest| Timestamp::now().as_second() - oldest)
    }

    fn text(&self) -> prometheus::Result<Vec<u8>> {
        self.silence.set(self.silent());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Serves the endpoints until the process ends.
///
/// # Errors
///
/// When the address is taken.
pub async fn serve(port: u16, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let told = |good: bool, bad: &'static str| {
        if good {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, bad)
        }
    };
    let router = Router::new()
        .route(
            "/livez",
            get(move |State(metrics): State<Arc<Metrics>>| async move {
                told(
                    metrics.is_alive(),
                    "the API server has not answered for 15 minutes\n",
                )
            }),
        )
        .route(
            "/readyz",
            get(move |State(metrics): State<Arc<Metrics>>| async move {
                let awaited = metrics.awaited.load(Ordering::Relaxed);
                told(
                    awaited == 0,
                    match awaited & WATCHES {
                        0 => "the webhook has no certificate yet\n",
                        _ => "the watches have not seen everything yet\n",
                    },
                )
            }),
        )
        .route(
            "/metrics",
            get(|State(metrics): State<Arc<Metrics>>| async move {
                let text = metrics.text();
                text.map(|text| ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
                    .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
            }),
        )
        .with_state(metrics);
    axum::serve(listen(port).await?, router).await
}

/// Listens on addresses of both families, or of IPv4 alone where there is no IPv6.
///
/// # Errors
///
/// When the port is taken.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        listening => listening,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn clients_of_ipv4_are_taken_wherever_it_listens() {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
    }
}
