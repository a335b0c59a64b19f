//! Proxies as the operator sees them, and nothing behind: pods that the API server holds, and for all of them one listener that
//! serves the admin API with the certificate that the operator has made. Each has an address of its own in 127.0.0.0/8, by which
//! the listener knows whose connection it is.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::DeleteParams;
use pgdog_config::api::{
    BudgetPushed, Change, ChangeState, Changed, Decide, Half, HalfStatus, HostBudget, HostRole,
    HostStatus, Origin, Phase, PoolSums, Prepare, Push, PushState, Pushed, Refused, RefusedBecause,
    Status, Version,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::stage::Stage;

/// How many pods are made at the same time.
const AT_ONCE: usize = 16;

/// A half that was taken, and when the answer was given.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) half: Half,
    pub(crate) version: Version,
    pub(crate) sha256: String,
    pub(crate) at: Instant,
}

/// What a proxy has, and what it was given since it is there.
#[derive(Debug, Default)]
struct State {
    settings: Option<(Taken, Value)>,
    topology: Option<(Taken, Value)>,
    budget: Option<Version>,
    prepared: Option<Prepare>,
    paused: bool,
    hosts: BTreeMap<String, HostStatus>,
    history: Vec<Taken>,
    /// Settings are refused with these words.
    refusal: Option<String>,
    /// A transaction runs that does not end: nothing can be prepared.
    busy: bool,
    /// What is prepared is undone before it is committed.
    hasty: bool,
}

/// A proxy that is none.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) pod: String,
    uid: String,
    /// Whether documents are kept: those of a thousand proxies are too many.
    keeps: bool,
    state: Mutex<State>,
}

impl Proxy {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The half in force.
    pub(crate) fn config(&self, half: Half) -> Value {
        let state = self.state();
        let has = match half {
            Half::Settings => &state.settings,
            Half::Topology => &state.topology,
        };
        has.as_ref()
            .map(|(_, config)| config.clone())
            .unwrap_or_default()
    }

    /// The version in force.
    pub(crate) fn version(&self, half: Half) -> Option<Version> {
        let state = self.state();
        let has = match half {
            Half::Settings => &state.settings,
            Half::Topology => &state.topology,
        };
        has.as_ref().map(|(taken, _)| taken.version)
    }

    /// Everything that it was given, in order.
    pub(crate) fn history(&self) -> Vec<Taken> {
        self.state().history.clone()
    }

    /// What it knows of a host from now on.
    pub(crate) fn find(&self, host: &str, role: HostRole, trouble: Option<&str>) {
        let status = HostStatus {
            role,
            up: trouble.is_none(),
            trouble: trouble.map(ToOwned::to_owned),
        };
        self.state().hosts.insert(host.to_owned(), status);
    }

    /// Settings are refused from now on, with these words; or taken again.
    pub(crate) fn refuse(&self, why: Option<&str>) {
        self.state().refusal = why.map(ToOwned::to_owned);
    }

    /// From now on, or no longer, a transaction runs that does not end.
    pub(crate) fn keep_busy(&self, busy: bool) {
        self.state().busy = busy;
    }

    /// From now on, or no longer, what it has prepared is undone before it is committed.
    pub(crate) fn be_hasty(&self, hasty: bool) {
        self.state().hasty = hasty;
    }

    /// Whether it holds its clients' next transactions.
    pub(crate) fn is_paused(&self) -> bool {
        self.state().paused
    }

    /// Whether a change is prepared that is neither committed nor aborted.
    pub(crate) fn is_prepared(&self) -> bool {
        self.state().prepared.is_some()
    }

    fn push(&self, half: Half, push: Push) -> Result<Pushed, Refused> {
        let mut state = self.state();
        if push.pod_uid.as_ref().is_some_and(|uid| *uid != self.uid) {
            return Err(Refused::new(
                RefusedBecause::WrongTarget,
                "it is for another pod",
            ));
        }
        let version = push.version();
        let sha256 = push.sha256.clone().unwrap_or_default();
        let has = match half {
            Half::Settings => &state.settings,
            Half::Topology => &state.topology,
        };
        let before = has.as_ref().map(|(taken, _)| taken.clone());
        if let Some(before) = before.as_ref().filter(|before| {
            before.version > version || (before.version == version && before.sha256 != sha256)
        }) {
            let mut refused = Refused::new(
                RefusedBecause::Stale,
                format!("{} is in force", before.version),
            );
            refused.keeping = Some(status(Some(before)));
            return Err(refused);
        }
        if let (Half::Settings, Some(why)) = (half, &state.refusal)
            && before.as_ref().is_none_or(|before| before.sha256 != sha256)
        {
            return Err(Refused::new(RefusedBecause::Rejected, why.clone()));
        }
        let same = before.is_some_and(|before| before.sha256 == sha256);
        let taken = Taken {
            half,
            version,
            sha256: sha256.clone(),
            at: Instant::now(),
        };
        state.history.push(taken.clone());
        let config = if self.keeps {
            Value::Object(push.config)
        } else {
            Value::Null
        };
        match half {
            Half::Settings => state.settings = Some((taken, config)),
            Half::Topology => state.topology = Some((taken, config)),
        }
        Ok(Pushed {
            state: if same {
                PushState::Unchanged
            } else {
                PushState::Applied
            },
            half,
            version,
            sha256,
            persisted: false,
            warnings: Vec::new(),
        })
    }

    fn budget(&self, push: &Push) -> Result<BudgetPushed, Refused> {
        let mut state = self.state();
        if state.budget.is_some_and(|before| before > push.version()) {
            return Err(Refused::new(
                RefusedBecause::Stale,
                "a later budget is in force",
            ));
        }
        state.budget = Some(push.version());
        let hosts = push.config.get("hosts").and_then(Value::as_object);
        let limit = |limit: &Value| limit.as_u64().and_then(|limit| u32::try_from(limit).ok());
        let hosts = hosts.into_iter().flatten().map(|(host, of)| {
            (
                host.clone(),
                HostBudget {
                    limit: limit(of),
                    open: 0,
                    waiting: 0,
                },
            )
        });
        Ok(BudgetPushed {
            state: PushState::Applied,
            version: push.version(),
            sha256: push.sha256.clone().unwrap_or_default(),
            persisted: false,
            hosts: hosts.collect(),
        })
    }

    fn prepare(&self, prepare: Prepare) -> Result<Changed, Refused> {
        if self.state().busy {
            let why = "1 transaction has not ended";
            return Err(Refused::new(RefusedBecause::Busy, why));
        }
        let changed = Changed {
            state: ChangeState::Prepared,
            epoch: prepare.epoch,
            id: prepare.id.clone(),
            pushed: None,
        };
        self.state().prepared = Some(prepare);
        Ok(changed)
    }

    fn commit(&self, decide: &Decide) -> Result<Changed, Refused> {
        let prepared = {
            let mut state = self.state();
            let hasty = state.hasty;
            let prepared = state.prepared.take_if(|prepared| prepared.id == decide.id);
            prepared.filter(|_| !hasty)
        };
        let Some(prepared) = prepared else {
            return Err(Refused::new(
                RefusedBecause::WrongState,
                "it is not prepared",
            ));
        };
        let pushed = match prepared.change {
            Change::Settings(push) => Some(self.push(Half::Settings, push)?),
            Change::Topology(push) => Some(self.push(Half::Topology, push)?),
            Change::Pause(_) => {
                self.state().paused = true;
                None
            }
            Change::Resume(_) => {
                self.state().paused = false;
                None
            }
        };
        Ok(Changed {
            state: ChangeState::Committed,
            epoch: decide.epoch,
            id: decide.id.clone(),
            pushed,
        })
    }

    fn abort(&self, decide: &Decide) -> Changed {
        self.state()
            .prepared
            .take_if(|prepared| prepared.id == decide.id);
        Changed {
            state: ChangeState::Aborted,
            epoch: decide.epoch,
            id: decide.id.clone(),
            pushed: None,
        }
    }

    fn status(&self) -> Status {
        let state = self.state();
        Status {
            version: "tests".to_owned(),
            boot_id: self.uid.clone(),
            started_ms: 0,
            phase: Phase::Running,
            cluster_uid: None,
            pod_uid: Some(self.uid.clone()),
            peer_id: 0,
            settings: status(state.settings.as_ref().map(|(taken, _)| taken)),
            topology: status(state.topology.as_ref().map(|(taken, _)| taken)),
            budget: None,
            prepared: None,
            paused: state.paused,
            persistent: false,
            clients: 0,
            pools: PoolSums::default(),
            hosts: state.hosts.clone(),
            attempts: Vec::new(),
            capabilities: Vec::new(),
        }
    }
}

fn status(taken: Option<&Taken>) -> HalfStatus {
    HalfStatus {
        source: if taken.is_some() {
            Origin::Push
        } else {
            Origin::Nowhere
        },
        version: taken.map(|taken| taken.version).unwrap_or_default(),
        sha256: taken.map(|taken| taken.sha256.clone()),
        since_ms: 0,
    }
}

type Known = Arc<RwLock<HashMap<IpAddr, Arc<Proxy>>>>;

/// The proxies of one cluster.
pub(crate) struct Proxies {
    cluster: String,
    listener: Option<TcpListener>,
    port: u16,
    known: Known,
    task: Option<JoinHandle<()>>,
    made: usize,
}

impl Drop for Proxies {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Proxies {
    /// None yet, of the cluster `shop`, which is made with its login.
    pub(crate) async fn of_shop(stage: &Stage) -> Self {
        let proxies = Self::of("shop").await;
        stage.login("login", "secret").await;
        stage
            .make("shop", json!({"admin": {"port": proxies.port()}}))
            .await;
        proxies
    }

    /// None yet, of the cluster with this name, which has to have [`Self::port`] as its `admin.port`.
    pub(crate) async fn of(cluster: &str) -> Self {
        // One of the wildcard hears all addresses of the loopback.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
            .await
            .expect("there are free ports");
        Self {
            cluster: cluster.to_owned(),
            port: listener.local_addr().expect("it is bound").port(),
            listener: Some(listener),
            known: Known::default(),
            task: None,
            made: 0,
        }
    }

    /// The port of their admin API.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Makes so many more, and waits for the certificate that the operator makes.
    pub(crate) async fn add(&mut self, stage: &Stage, count: usize) -> Vec<Arc<Proxy>> {
        if let Some(listener) = self.listener.take() {
            let secret: Secret = stage.there(&format!("{}-admin-tls", self.cluster)).await;
            let acceptor = acceptor(&secret);
            self.task = Some(tokio::spawn(accept(listener, acceptor, self.known.clone())));
        }
        let labels = json!({"app.kubernetes.io/name": "pgdog", "pgdog.dev/cluster": self.cluster});
        let first = self.made;
        self.made += count;
        let keeps = self.made < 100;
        let made = futures::stream::iter(first..self.made).map(|number| {
            let (name, address) = (format!("{}-{number:04}", self.cluster), address(number));
            let (labels, known) = (&labels, &self.known);
            async move {
                let pod = stage.pod(&name, labels, &address.to_string()).await;
                let uid = pod.uid().expect("the API server gave it one");
                let proxy = Arc::new(Proxy {
                    pod: name,
                    uid,
                    keeps,
                    state: Mutex::default(),
                });
                known
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(address, proxy.clone());
                proxy
            }
        });
        let mut made: Vec<_> = made.buffer_unordered(AT_ONCE).collect().await;
        made.sort_by(|a, b| a.pod.cmp(&b.pod));
        made
    }

    /// One answers nobody any more who connects anew; its pod stays.
    pub(crate) fn cut(&self, proxy: &Proxy) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, one| one.uid != proxy.uid);
    }

    /// Takes the pod of one away.
    pub(crate) async fn remove(&self, stage: &Stage, proxy: &Proxy) {
        let now = DeleteParams::default().grace_period(0);
        stage
            .api::<Pod>()
            .delete(&proxy.pod, &now)
            .await
            .expect("it can be deleted");
    }
}

fn address(number: usize) -> IpAddr {
    let part = |part: usize| u8::try_from(part).expect("there are not that many");
    IpAddr::V4(Ipv4Addr::new(
        127,
        1,
        part(number / 250),
        part(number % 250 + 1),
    ))
}

fn acceptor(secret: &Secret) -> TlsAcceptor {
    let text = |key: &str| secret.data.as_ref().expect("it has data")[key].0.clone();
    let chain = CertificateDer::pem_slice_iter(&text("tls.crt")).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&text("tls.key")).expect("it is a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text("ca.crt")) {
        roots
            .add(certificate.expect("it is a certificate"))
            .expect("it is an authority's");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_client_cert_verifier(verifier.build().expect("there is a root"))
        .with_single_cert(chain.expect("they are certificates"), key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, known: Known) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let to = stream.local_addr().map(|address| address.ip());
        let proxy = to.ok().and_then(|to| {
            known
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&to)
                .cloned()
        });
        // Nobody lives there: as at an address of a pod that is gone.
        let Some(proxy) = proxy else { continue };
        tokio::spawn(serve(stream, acceptor.clone(), proxy));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, proxy: Arc<Proxy>) {
    stream.set_nodelay(true).ok();
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(answer(&proxy, request).await) }
    });
    // Who asks closes the connection when it wants to.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(proxy: &Proxy, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let result = match (&method, path.as_str()) {
        (&Method::PUT, "/v1/config/settings") => {
            pushed(proxy, &body).and_then(|push| say(&proxy.push(Half::Settings, push)?))
        }
        (&Method::PUT, "/v1/config/topology") => {
            pushed(proxy, &body).and_then(|push| say(&proxy.push(Half::Topology, push)?))
        }
        (&Method::PUT, "/v1/budget") => read(&body).and_then(|push| say(&proxy.budget(&push)?)),
        (&Method::POST, "/v1/prepare") => {
            read(&body).and_then(|prepare| say(&proxy.prepare(prepare)?))
        }
        (&Method::POST, "/v1/commit") => {
            read(&body).and_then(|decide| say(&proxy.commit(&decide)?))
        }
        (&Method::POST, "/v1/abort") => read(&body).and_then(|decide| say(&proxy.abort(&decide))),
        (&Method::GET, "/v1/status") => say(&proxy.status()),
        _ => Err(Refused::new(
            RefusedBecause::NotFound,
            format!("there is no {method} {path}"),
        )),
    };
    let (status, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(refused) => {
            let status = StatusCode::from_u16(refused.error.status());
            (
                status.expect("it is a status"),
                serde_json::to_vec(&refused).unwrap_or_default(),
            )
        }
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

/// The document of a proxy that keeps none is passed over: a thousand that read the names of a thousand would measure themselves.
fn pushed(proxy: &Proxy, body: &[u8]) -> Result<Push, Refused> {
    #[derive(Deserialize)]
    struct Envelope {
        pod_uid: Option<String>,
        epoch: u64,
        revision: u64,
        sha256: Option<String>,
        #[serde(rename = "config")]
        _config: IgnoredAny,
    }
    if proxy.keeps {
        return read(body);
    }
    let envelope: Envelope = read(body)?;
    Ok(Push {
        cluster_uid: None,
        pod_uid: envelope.pod_uid,
        epoch: envelope.epoch,
        revision: envelope.revision,
        sha256: envelope.sha256,
        config: serde_json::Map::new(),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| Refused::new(RefusedBecause::Malformed, error.to_string()))
}

fn say<T: Serialize>(answer: &T) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(answer)
        .map_err(|error| Refused::new(RefusedBecause::Internal, error.to_string()))
}

/// How many of each half the proxies were given, by version.
pub(crate) fn versions(proxies: &[Arc<Proxy>], half: Half) -> BTreeMap<Version, usize> {
    let mut counted = BTreeMap::new();
    for proxy in proxies {
        if let Some(version) = proxy.version(half) {
            *counted.entry(version).or_insert(0) += 1;
        }
    }
    counted
}
