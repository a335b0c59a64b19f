//! HTTP: the admin API for who may change things, and health and metrics for everybody.
//!
//! Both run on a thread of their own, so that a large configuration or a slow reader never holds up a query. What they show
//! and do comes from the proxy by [`Control`].

mod console;
mod guard;
mod openapi;
mod operations;
mod plain;
mod refusals;
mod routes;
mod serve;

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use axum::extract::FromRef;
use pgdog_config::api::{
    BudgetPushed, Changed, ConfigInForce, Decide, DrainBegun, Half, Phase, Prepare, Push, Pushed,
    Refused, Reloaded, Status,
};
use pgdog_config::{AdminHttp, PlainHttp};
use pgdog_net::{Listener, NetError, ServerTls, TcpOptions};
use tokio::sync::watch;

use self::refusals::Refusals;
use crate::admin::Admin;
use crate::metrics::Metric;

pub use openapi::document as openapi;

/// What the proxy does for its HTTP endpoints.
pub trait Control: fmt::Debug + Send + Sync + 'static {
    /// Takes a half of a configuration. May block.
    ///
    /// # Errors
    ///
    /// When nothing was changed, and why.
    fn push(&self, half: Half, push: Push, dry_run: bool) -> Result<Pushed, Refused>;

    /// Takes a budget of server connections. May block.
    ///
    /// # Errors
    ///
    /// When nothing was changed, and why.
    fn push_budget(&self, push: Push, dry_run: bool) -> Result<BudgetPushed, Refused>;

    /// Prepares a change that is made on all proxies of a fleet or none. May block, and wait for transactions to end.
    ///
    /// # Errors
    ///
    /// When it is not prepared, and why.
    fn prepare(&self, asked: Prepare) -> Result<Changed, Refused>;

    /// Puts the prepared change in force. May block.
    ///
    /// # Errors
    ///
    /// When nothing was changed, and why.
    fn commit(&self, asked: &Decide) -> Result<Changed, Refused>;

    /// Undoes the prepared change.
    ///
    /// # Errors
    ///
    /// When it is in force, or somebody else's.
    fn abort(&self, asked: &Decide) -> Result<Changed, Refused>;

    /// Reads the files again. May block.
    ///
    /// # Errors
    ///
    /// When nothing was changed, and why.
    fn reload(&self) -> Result<Reloaded, Refused>;

    /// Begins the end: clients may finish, then the process ends.
    fn drain(&self) -> DrainBegun;

    /// What is in force, from where, and how it goes.
    fn status(&self) -> Status;

    /// What is in force, without secrets.
    ///
    /// # Errors
    ///
    /// Never, short of a defect.
    fn config(&self) -> Result<ConfigInForce, Refused>;

    /// In which part of its life the process is.
    fn phase(&self) -> Phase;

    /// Why the process is no good any more and had better be started anew; `None` when it is fine.
    fn wedged(&self) -> Option<String>;

    /// Figures for Prometheus that only the process has.
    fn metrics(&self) -> Vec<Metric>;
}

/// What the handlers of requests share.
#[derive(Debug, Clone)]
struct Shared {
    control: Arc<dyn Control>,
    admin: Arc<Admin>,
}

impl Shared {
    fn new(control: &Arc<dyn Control>, admin: &Arc<Admin>) -> Self {
        Self {
            control: control.clone(),
            admin: admin.clone(),
        }
    }
}

impl FromRef<Shared> for Arc<dyn Control> {
    fn from_ref(shared: &Shared) -> Self {
        shared.control.clone()
    }
}

impl FromRef<Shared> for Arc<Admin> {
    fn from_ref(shared: &Shared) -> Self {
        shared.admin.clone()
    }
}

/// What is served where.
#[derive(Debug)]
pub struct Endpoints {
    /// Health and metrics.
    pub plain: PlainHttp,
    /// The admin API.
    pub admin: Option<AdminHttp>,
    /// TLS of the admin API, as it changes.
    pub admin_tls: watch::Receiver<Option<ServerTls>>,
}

impl Endpoints {
    const fn any(&self) -> bool {
        self.admin.is_some() || self.plain.health.is_some() || self.plain.metrics.is_some()
    }
}

/// Listens where it is told to and serves on a thread of its own, to the end of the process.
///
/// # Errors
///
/// When it cannot listen, naming the key and the address.
pub fn start(
    endpoints: Endpoints,
    control: &Arc<dyn Control>,
    admin: &Arc<Admin>,
) -> Result<(), StartError> {
    if !endpoints.any() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Pushes are taken one after the other anyway.
        .max_blocking_threads(4)
        .build()
        .map_err(StartError::Thread)?;
    // Here, so that an address that is taken is told before anything is served.
    let listening = {
        let _guard = runtime.enter();
        servers(endpoints, &Shared::new(control, admin))
    };
    let servers = match listening {
        Ok(servers) => servers,
        Err(error) => {
            // The caller may be a runtime itself, which does not let another one be waited for.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    std::thread::Builder::new()
        .name("http".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let running: Vec<_> = servers.into_iter().map(|s| tokio::spawn(s.run())).collect();
                for server in running {
                    let _ = server.await;
                }
            });
        })
        .map_err(StartError::Thread)?;
    Ok(())
}

fn servers(endpoints: Endpoints, shared: &Shared) -> Result<Vec<serve::Server>, StartError> {
    let mut servers = Vec::new();
    let refusals = Arc::new(Refusals::default());
    let PlainHttp {
        host,
        health,
        metrics,
        namespace,
    } = endpoints.plain;
    let figures = plain::Shared {
        of: shared.clone(),
        namespace: namespace.into(),
        admin_tls: endpoints.admin_tls.clone(),
        refusals: refusals.clone(),
    };
    let mut plain = |key: &'static str, port: u16, router| {
        let listener = listen(key, &host, port)?;
        tracing::info!("{key}: plain HTTP on {}", listener.description());
        servers.push(serve::Server::plain(listener, router));
        Ok(())
    };
    if let Some(port) = health {
        let router = plain::router(figures.clone(), plain::Otherwise::Health);
        plain("general.healthcheck_port", port, router)?;
    }
    // One port may serve both.
    if let Some(port) = metrics.filter(|port| *port == 0 || Some(*port) != health) {
        let router = plain::router(figures, plain::Otherwise::Metrics);
        plain("general.openmetrics_port", port, router)?;
    }
    if let Some(admin) = endpoints.admin {
        let listener = listen("admin.http_port", &admin.host, admin.port)?;
        let tls = admin.tls.as_ref().map(|_| endpoints.admin_tls);
        let scheme = if tls.is_some() { "HTTPS" } else { "HTTP" };
        tracing::info!("admin.http_port: {scheme} on {}", listener.description());
        let guard = guard::Guard::new(&admin);
        let router = routes::router(shared.clone(), guard, refusals.clone());
        servers.push(serve::Server::admin(listener, router, tls, refusals));
    }
    Ok(servers)
}

fn listen(key: &'static str, host: &str, port: u16) -> Result<Listener, StartError> {
    let address = || -> io::Result<SocketAddr> {
        let mut addresses = (host, port).to_socket_addrs()?;
        addresses
            .next()
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    };
    let address = address().map_err(|cause| StartError::Address {
        key,
        host: host.to_owned(),
        cause,
    })?;
    Listener::tcp(address, 128, TcpOptions::default())
        .map_err(|cause| StartError::Listen { key, cause })
}

/// Why the endpoints cannot be served.
#[derive(Debug)]
pub enum StartError {
    /// The address is none.
    Address {
        /// The key that it belongs to.
        key: &'static str,
        /// The address.
        host: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The address is taken, or not one of this machine.
    Listen {
        /// The key that it belongs to.
        key: &'static str,
        /// What the system says.
        cause: NetError,
    },
    /// The thread does not start.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { key, host, .. } => write!(f, "look up the address {host:?} for {key}"),
            Self::Listen { key, .. } => write!(f, "listen for {key}"),
            Self::Thread(_) => f.write_str("start the HTTP thread"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { cause, .. } | Self::Thread(cause) => Some(cause),
            Self::Listen { cause, .. } => Some(cause),
        }
    }
}
