//! The life of the process: settings, workers, listeners, signals, drain.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use pgdog_admin::http::{self, Control, Endpoints};
use pgdog_admin::{Admin, Process, Shutdown};
use pgdog_backend::Clock;
use pgdog_config::api::{Cause, Phase};
use pgdog_config::{Settings, Source};
use pgdog_net::{Listener, TcpOptions};
use pgdog_session::{Live, Runtime, Scope};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::build::Builder;
use crate::changes::Changes;
use crate::lifecycle::{Lifecycle, drain};
use crate::panel::Panel;
use crate::reload::{self, Boot, Identity, Reloader};
use crate::worker::{self, Worker};
use crate::{logging, rlimit};

/// What to run with, besides the configuration.
#[derive(Debug, Clone)]
pub struct Start {
    /// Where the configuration is.
    pub source: Source,
    /// Who this process is, for pushes.
    pub identity: Identity,
    /// Whether it waits for a push when there is nothing to serve.
    pub wait: bool,
}

/// Runs the proxy to its end.
///
/// # Errors
///
/// When it cannot start: the configuration is wrong, an address is taken.
pub fn run(start: Start) -> anyhow::Result<()> {
    let boot = reload::boot(&start.source, &start.identity, start.wait)?;
    let log = logging::init(&boot.settings.log);
    reload::report(&boot.warnings);
    for error in &boot.errors {
        tracing::error!("{error}");
    }
    for note in &boot.notes {
        tracing::info!("starting with {note}");
    }
    if let Some((before, now)) = rlimit::raise() {
        tracing::info!("open files: limit {now} (was {before})");
    }
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the control thread")?;
    control.block_on(serve(start, boot, log))
}

async fn serve(start: Start, boot: Boot, log: logging::Control) -> anyhow::Result<()> {
    // Before anybody can connect: until then a signal would end the process without a word.
    let (mut signals, hang_up) = (Signals::new()?, signal(SignalKind::hangup())?);
    let in_pod = start.identity.pod_uid.is_some();
    let clock = Arc::new(Clock::default());
    let count = boot.settings.workers;
    let builder = Builder::new(clock.clone(), count);
    builder.hosts().watch_on(Handle::current());
    builder.budgets().limit_hosts(&boot.host_limits());
    let built = builder.build(boot.settings.clone(), None);
    let built =
        built.map_err(|problems| anyhow::anyhow!("the configuration is wrong:\n{problems}"))?;
    let admin_tls = built.admin_tls();
    let live = built.commit();
    let runtime = Arc::new(Runtime::new(live.clone(), clock));
    if boot.paused {
        tracing::info!("paused until RESUME, as snapshot.paused says");
        runtime.gates.pause(Scope::default(), || runtime.accounts());
    }
    let lifecycle = Arc::new(Lifecycle::default());
    let parts = (builder, runtime.clone(), log.clone());
    let reloader = Arc::new(Reloader::new(
        boot,
        (start.source, start.identity),
        parts,
        admin_tls,
    ));
    let changes = Arc::new(Changes::new(reloader.clone(), runtime.clone()));
    let panel = Arc::new(Panel::new(
        (reloader.clone(), changes.clone()),
        runtime.clone(),
        lifecycle.clone(),
    ));
    let process: Arc<dyn Process> = panel.clone();
    let admin = Arc::new(Admin::new(runtime.clone(), process));
    let workers = (0..count)
        .map(|i| Worker::start(i, runtime.clone(), admin.clone()))
        .collect::<Result<Vec<_>, _>>()
        .context("start the workers")?;
    let workers = Arc::new(workers);
    // The clients' addresses first: who waits for a configuration has none yet.
    let waiting = start.wait && !serves_somebody(&live);
    let mut listeners = if waiting {
        Vec::new()
    } else {
        listen(&live.settings, live.tcp)?
    };
    let endpoints = Endpoints {
        plain: live.settings.plain_http.clone(),
        admin: live.settings.admin_http.clone(),
        admin_tls: reloader.admin_tls(),
    };
    let control: Arc<dyn Control> = panel;
    http::start(endpoints, &control, &admin)?;
    drop(live);
    tokio::spawn(admin.keep_averages());
    tokio::spawn(worker::beat(runtime.clone(), workers.clone()));
    tokio::spawn(pgdog_session::catalogue::keep(runtime.clone()));
    tokio::spawn(pgdog_session::route::tell_changes(runtime.clone()));
    tokio::spawn(log.clone().tell_repetitions());
    tokio::spawn(hang_ups(reloader.clone(), hang_up));
    tokio::spawn(reloader.clone().watch());
    tokio::spawn(changes.keep_deadlines());
    if waiting {
        lifecycle.enter(Phase::Waiting);
        tracing::info!("waiting for a configuration");
        tokio::select! {
            () = something_to_serve(&reloader, &runtime) => {
                let live = runtime.live();
                listeners = listen(&live.settings, live.tcp)?;
            }
            () = signals.stop() => lifecycle.end(Shutdown::Drain),
            _ = lifecycle.asked() => {}
        }
    }
    let (stop, stopped) = watch::channel(());
    for listener in listeners {
        tracing::info!("listening on {}", listener.description());
        tokio::spawn(accept(listener, workers.clone(), stopped.clone()));
    }
    drop(stopped);
    lifecycle.enter(Phase::Running);
    tell_password(&runtime);
    let how = tokio::select! {
        () = signals.stop() => {
            lifecycle.end(Shutdown::Drain);
            Shutdown::Drain
        }
        how = lifecycle.asked() => how,
    };
    runtime.registry.close();
    // In a pod nobody else waits for the addresses, and whoever still comes brings a cancel request for one of the last queries.
    if !in_pod {
        stop.send_replace(());
        stop.closed().await;
    }
    end(&runtime, &lifecycle, &mut signals, how).await;
    log.flush();
    Ok(())
}

/// Lets clients finish, tells the rest to go, and closes the pools; a second signal cuts it short.
async fn end(runtime: &Runtime, lifecycle: &Lifecycle, signals: &mut Signals, how: Shutdown) {
    let how = match how {
        Shutdown::WaitForClients => tokio::select! {
            how = lifecycle.clients_left(runtime) => how,
            () = signals.stop() => Shutdown::Drain,
        },
        how => how,
    };
    tokio::select! {
        () = drain(runtime, how) => {}
        () = signals.stop() => tracing::warn!("second signal: ending at once"),
    }
    for account in runtime.accounts() {
        account.pool.close();
    }
    tracing::info!("stopped");
}

/// Says how to get into the admin console, where nobody has chosen the password.
pub(crate) fn tell_password(runtime: &Runtime) {
    let live = runtime.live();
    let admin = &live.settings.admin;
    if admin.password.is_none() {
        tracing::info!(
            "admin console: database \"{}\", user \"{}\", password \"{}\" (made for this run: admin.password sets one that stays)",
            admin.name,
            admin.user,
            runtime.console_password
        );
    }
}

/// The signals that end the process.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one. Cancel safe.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Reloads at each SIGHUP, away from this thread: it keeps the workers' time. Those that come meanwhile count as one.
async fn hang_ups(reloader: Arc<Reloader>, mut signal: tokio::signal::unix::Signal) {
    while signal.recv().await.is_some() {
        let reloader = reloader.clone();
        let reload = move || reloader.reload(Cause::Signal).is_ok();
        if tokio::task::spawn_blocking(reload).await.is_err() {
            tracing::error!("failed to reload: a defect");
        }
    }
}

/// Whether there is anybody who could log in.
fn serves_somebody(live: &Live) -> bool {
    !live.accounts.is_empty() || !live.entrances.is_empty()
}

async fn something_to_serve(reloader: &Reloader, runtime: &Runtime) {
    loop {
        // Before looking, so that nothing is missed in between.
        let mut applied = std::pin::pin!(reloader.applied.notified());
        applied.as_mut().enable();
        if serves_somebody(&runtime.live()) {
            return;
        }
        applied.await;
    }
}

fn listen(settings: &Settings, tcp: TcpOptions) -> anyhow::Result<Vec<Listener>> {
    let at = &settings.listen;
    let backlog = i32::try_from(at.backlog).unwrap_or(i32::MAX);
    let addresses = (at.host.as_str(), at.port)
        .to_socket_addrs()
        .with_context(|| {
            format!(
                "look up the address to listen on, general.host = {:?}",
                at.host
            )
        })?;
    // The unix socket first: who finds the port open shall find it as well.
    let mut listeners = Vec::new();
    if let Some(dir) = &at.unix_socket_dir {
        listeners.push(Listener::unix(dir, at.port, at.unix_socket_mode, backlog)?);
    }
    let before = listeners.len();
    for address in addresses {
        listeners.push(Listener::tcp(address, backlog, tcp)?);
    }
    anyhow::ensure!(
        listeners.len() > before,
        "general.host = {:?} has no address",
        at.host
    );
    Ok(listeners)
}

/// Hands each connection to the worker with the fewest.
async fn accept(listener: Listener, workers: Arc<Vec<Worker>>, mut stopped: watch::Receiver<()>) {
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            _ = stopped.changed() => return,
        };
        let Some(worker) = workers
            .iter()
            .min_by_key(|w| w.load.load(Ordering::Acquire))
        else {
            return;
        };
        worker.load.fetch_add(1, Ordering::AcqRel);
        if worker.send.send(connection).is_err() {
            return;
        }
    }
}
