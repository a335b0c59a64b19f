//! A worker: one thread, one single-threaded runtime, and the clients that were handed to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pgdog_admin::{Admin, console};
use pgdog_net::{Accepted, Peer};
use pgdog_session::{
    ClientKind, Console, Doing, Ended, Login, Replication, Runtime, Signal, login,
};
use pgdog_wire::startup::CancelKey;
use tokio::sync::{Notify, mpsc};

/// How often pools are looked after and timeouts are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Length of secrets as this proxy makes them; a forwarded cancel request has one byte more.
const SECRETS: [usize; 2] = [4, 32];

/// The way to a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) send: mpsc::UnboundedSender<Accepted>,
    /// Connections that it serves now.
    pub(crate) load: Arc<AtomicUsize>,
    /// Its rhythm, given by the control thread: a runtime without timers of its own spends nothing on time.
    pub(crate) ticks: Arc<Notify>,
}

impl Worker {
    /// Starts one. It ends when its sender is dropped and the process does. Its timers are kept by the calling thread's runtime.
    pub(crate) fn start(
        index: usize,
        runtime: Arc<Runtime>,
        admin: Arc<Admin>,
    ) -> std::io::Result<Self> {
        let (send, receive) = mpsc::unbounded_channel();
        let ticks = Arc::new(Notify::new());
        let ticked = ticks.clone();
        let load = Arc::new(AtomicUsize::new(0));
        let counted = load.clone();
        let keeper = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                pgdog_net::timer::install(keeper);
                let tokio = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build();
                match tokio {
                    Ok(tokio) => {
                        let shared = Shared { runtime, admin };
                        tokio.block_on(serve(index, shared, receive, counted, ticked))
                    }
                    Err(error) => tracing::error!("failed to start worker {index}: {error}"),
                }
            })?;
        Ok(Self { send, load, ticks })
    }
}

/// One connection's place in a worker's load.
struct Loaded(Arc<AtomicUsize>);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What all workers share.
#[derive(Debug, Clone)]
struct Shared {
    runtime: Arc<Runtime>,
    admin: Arc<Admin>,
}

async fn serve(
    index: usize,
    shared: Shared,
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    load: Arc<AtomicUsize>,
    ticks: Arc<Notify>,
) {
    tokio::spawn(tick(index, shared.runtime.clone(), ticks));
    while let Some(connection) = accepted.recv().await {
        let loaded = Loaded(load.clone());
        // The phases after one another, each boxed: an idle client's task stays as small as the last one needs.
        let admitted = Box::pin(admit(connection, index, shared.clone()));
        tokio::spawn(async move {
            let client = admitted.await;
            if let Some((client, peer)) = client {
                let log = client.log_line(peer);
                let ended = client.run().await;
                report(log.as_deref(), &ended);
            }
            drop(loaded);
        });
    }
}

/// From a socket to a client; anything else that comes by a socket is dealt with here.
async fn admit(
    connection: Accepted,
    index: usize,
    shared: Shared,
) -> Option<(Box<pgdog_session::Client>, Peer)> {
    let Shared { runtime, admin } = shared;
    let peer = connection.peer;
    let stream = match connection.stream.attach() {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%peer, "failed to take over a connection: {error}");
            return None;
        }
    };
    match login(stream, peer, &runtime, index).await {
        Login::Client(client) => {
            if runtime.live().settings.log.connections {
                tracing::info!(%peer, user = client.user(), database = client.database(), "client connected");
            }
            Some((client, peer))
        }
        Login::Cancel(key, mut stream) => {
            cancel(&runtime, key).await;
            // libpq takes a TLS connection that ends without a word for a broken one.
            let _ = pgdog_net::timer::timeout(
                Duration::from_secs(1),
                tokio::io::AsyncWriteExt::shutdown(&mut *stream),
            )
            .await;
            None
        }
        Login::Refused(error, why) => {
            // Without its port, so that a flood of one client's counts as one line.
            let from = match peer {
                Peer::Tcp(address) => address.ip().to_canonical().to_string(),
                Peer::Unix => peer.to_string(),
            };
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            let text = printable(format!("{}{why}", error.message));
            tracing::info!(from, code = error.code, "client refused: {text}");
            None
        }
        Login::Replication(replication) => {
            replicate(*replication, peer, &runtime).await;
            None
        }
        Login::Admin(console) => {
            administer(*console, peer, admin).await;
            None
        }
        Login::Gone => None,
    }
}

/// A text in which a client's own words stand, without what would begin another line of the log.
fn printable(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(shown).collect()
}

/// Serves somebody on the admin console to the end.
async fn administer(console: Console, peer: Peer, admin: Arc<Admin>) {
    let live = admin.runtime.live();
    let identity = console.registered.handle.identity.clone();
    let (user, database) = (&identity.user, &identity.database);
    if live.settings.log.connections {
        tracing::info!(%peer, user, database, "administrator connected");
    }
    let log = format!("{peer} {user}/{database}");
    let log = live.settings.log.disconnections.then_some(log);
    drop(live);
    let ended = Box::pin(console::run(console, admin)).await;
    report(log.as_deref(), &ended);
}

/// Serves a replication connection to its end.
async fn replicate(replication: Replication, peer: Peer, runtime: &Runtime) {
    let live = runtime.live();
    let (user, database) = (replication.user(), replication.database());
    if live.settings.log.connections {
        tracing::info!(%peer, user, database, "replication client connected");
    }
    let log = format!("{peer} {user}/{database}");
    let log = live.settings.log.disconnections.then_some(log);
    let ended = replication.run().await;
    report(log.as_deref(), &ended);
}

fn report(log: Option<&str>, ended: &Ended) {
    match ended {
        Ended::Refused(error) => tracing::info!(
            "client {} disconnected: {} ({})",
            log.unwrap_or_default(),
            error.message,
            error.code
        ),
        _ if log.is_none() => {}
        Ended::Left => tracing::info!("client {} disconnected", log.unwrap_or_default()),
        Ended::Broke(error) => tracing::info!("client {} lost: {error}", log.unwrap_or_default()),
        Ended::ServerLost => tracing::info!(
            "client {} disconnected: its server closed the connection",
            log.unwrap_or_default()
        ),
    }
}

/// Cancels here, or passes the request on to the peer that gave the key: one hop at most.
async fn cancel(runtime: &Runtime, mut key: CancelKey) {
    let live = runtime.live();
    let forwarded = SECRETS.contains(&(key.secret.len() - 1));
    if forwarded {
        key.secret.pop();
    }
    // First of all here: the number of this proxy may have been another one when the key was given.
    if runtime.registry.cancel(&key) {
        runtime.metrics.cancels.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let of = Runtime::peer_of(key.pid);
    if of == live.settings.peer_id || forwarded {
        return;
    }
    let Some(peer) = live.settings.peers.iter().find(|p| p.id == of) else {
        return;
    };
    key.secret.push(0);
    let address = pgdog_net::Address::new(&peer.host, peer.port);
    let mut request = Vec::new();
    pgdog_wire::startup::write_cancel(&mut request, &key);
    let sent = async {
        let mut stream = pgdog_net::dial(&address, Duration::from_secs(2), &live.tcp)
            .await
            .map_err(|e| e.to_string())?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request)
            .await
            .map_err(|e| e.to_string())?;
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await;
        Ok::<_, String>(())
    };
    match pgdog_net::timer::timeout(Duration::from_secs(5), sent).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(peer = of, "failed to forward a cancel request: {error}"),
        Err(_) => tracing::warn!(peer = of, "failed to forward a cancel request: no answer"),
    }
}

/// Moves the clock on and wakes the workers, as long as the process lives.
pub(crate) async fn beat(runtime: Arc<Runtime>, workers: Arc<Vec<Worker>>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        runtime.clock.tick();
        workers.iter().for_each(|w| w.ticks.notify_one());
    }
}

/// What a worker does at each beat.
async fn tick(index: usize, runtime: Arc<Runtime>, ticks: Arc<Notify>) {
    loop {
        ticks.notified().await;
        let live = runtime.live();
        for account in live.accounts.values().flat_map(|a| a.values()) {
            account.everywhere().for_each(|a| a.pool.tick(index));
        }
        runtime.guests.tick(index);
        if index == 0 {
            runtime.sweep_guests();
            time_out(&runtime, &live.settings.timeouts);
        }
    }
}

/// Tells clients that are past a limit. Nobody is looked at when there is no limit.
fn time_out(runtime: &Runtime, limits: &pgdog_config::ClientTimeouts) {
    if limits.idle.is_none()
        && limits.idle_in_transaction.is_none()
        && limits.query.is_none()
        && limits.transaction.is_none()
    {
        return;
    }
    let now = runtime.clock.now();
    let past = |since: u64, limit: Option<Duration>| {
        limit.is_some_and(|l| u128::from(now.saturating_sub(since)) >= l.as_millis())
    };
    for client in runtime.registry.all() {
        // A stream goes on for as long as both sides like, and a console may be idle for ever.
        if !matches!(client.kind, ClientKind::Normal | ClientKind::Mirror) {
            continue;
        }
        let (doing, since) = client.doing();
        // A mirror is idle for as long as its client is, which has limits of its own.
        if client.kind == ClientKind::Mirror && doing == Doing::Idle {
            continue;
        }
        let late = match doing {
            Doing::Idle if past(since, limits.idle) => Some(Signal::IDLE_TIMEOUT),
            Doing::IdleInTransaction if past(since, limits.idle_in_transaction) => {
                Some(Signal::IDLE_IN_TRANSACTION_TIMEOUT)
            }
            Doing::Active if past(since, limits.query) => Some(Signal::QUERY_TIMEOUT),
            _ => None,
        };
        let long = client
            .transaction_since()
            .is_some_and(|since| past(since, limits.transaction))
            .then_some(Signal::TRANSACTION_TIMEOUT);
        if let Some(signal) = late.or(long) {
            client.signal(signal);
        }
    }
}
