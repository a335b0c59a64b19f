//! The life of the process: settings, workers, listeners, signals, drain.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use pgdog_admin::control::Outcome;
use pgdog_admin::{Admin, Order, Shutdown};
use pgdog_backend::Clock;
use pgdog_config::{Config, Problem, Settings, Source};
use pgdog_net::{Listener, TcpOptions};
use pgdog_session::{Runtime, Signal};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::build::{Builder, retire};
use crate::desk::{Desk, Placed};
use crate::logging::Control;
use crate::worker::{self, Worker};
use crate::{logging, rlimit};

/// How often the drain looks whether all clients have gone.
const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Runs the proxy to its end.
///
/// # Errors
///
/// When it cannot start: the configuration is wrong, an address is taken.
pub fn run(source: &Source) -> anyhow::Result<()> {
    let (config, settings, warnings) = load(source)?;
    let log = logging::init(&settings.log);
    report(&warnings);
    if let Some((before, now)) = rlimit::raise() {
        tracing::info!("open files: limit {now} (was {before})");
    }
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the control thread")?;
    control.block_on(serve(source, config, settings, &log))
}

fn load(source: &Source) -> anyhow::Result<(Config, Settings, Vec<Problem>)> {
    let config = Config::load(source)
        .map_err(|problems| anyhow::anyhow!("the configuration is wrong:\n{problems}"))?;
    let (settings, warnings) = check(&config)
        .map_err(|problems| anyhow::anyhow!("the configuration is wrong:\n{problems}"))?;
    Ok((config, settings, warnings))
}

/// What a configuration means, and warnings; or all that is wrong with it.
fn check(config: &Config) -> Result<(Settings, Vec<Problem>), String> {
    let built = Settings::build(config).map_err(|problems| problems.to_string())?;
    logging::check(&built.0.log)?;
    Ok(built)
}

fn report(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

async fn serve(
    source: &Source,
    config: Config,
    settings: Settings,
    log: &Control,
) -> anyhow::Result<()> {
    // Before anybody can connect: until then a signal would end the process without a word.
    let mut ends = Ends {
        term: signal(SignalKind::terminate())?,
        int: signal(SignalKind::interrupt())?,
    };
    let mut hup = signal(SignalKind::hangup())?;
    let clock = Arc::new(Clock::default());
    let count = settings.workers;
    let builder = Arc::new(Builder::new(clock.clone(), count));
    let live = builder.build(settings, None)?.commit();
    let listeners = listen(&live.settings, live.tcp)?;
    let runtime = Arc::new(Runtime::new(live, clock));
    let (desk, mut orders) = Desk::new(config, builder.clone(), runtime.clone());
    let desk = Arc::new(desk);
    let admin = Arc::new(Admin::new(runtime.clone(), desk.clone()));
    let workers = (0..count)
        .map(|i| Worker::start(i, runtime.clone(), admin.clone()))
        .collect::<Result<Vec<_>, _>>()
        .context("start the workers")?;
    let workers = Arc::new(workers);
    tokio::spawn(worker::beat(runtime.clone(), workers.clone()));
    tokio::spawn(log.clone().tell_repetitions());
    tokio::spawn(admin.keep_averages());
    let (stop, stopped) = watch::channel(());
    for listener in listeners {
        tracing::info!("listening on {}", listener.description());
        tokio::spawn(accept(listener, workers.clone(), stopped.clone()));
    }
    drop(stopped);
    tell_password(&runtime);
    let process = Process {
        source,
        builder: &builder,
        runtime: &runtime,
        desk: &desk,
        log,
    };
    let how = loop {
        tokio::select! {
            () = ends.asked() => break Shutdown::Drain,
            _ = hup.recv() => drop(process.reload()),
            Some((order, reply)) = orders.recv() => {
                let outcome = match order {
                    Order::Reload => process.reload(),
                    Order::Set { key, value } => process.set(&key, value.as_deref()),
                    Order::Shutdown(how) => {
                        let _ = reply.send(Ok(Vec::new()));
                        break how;
                    }
                };
                let _ = reply.send(outcome);
            }
        }
    };
    stop.send_replace(());
    stop.closed().await;
    let how = match how {
        Shutdown::WaitForClients => wait_for_clients(&runtime, &mut ends, &mut orders).await,
        how => how,
    };
    tokio::select! {
        () = drain(&runtime, how) => {}
        () = ends.asked() => tracing::warn!("second signal: ending at once"),
    }
    for account in runtime.live().accounts.values().flat_map(|a| a.values()) {
        account.pool.close();
    }
    tracing::info!("stopped");
    log.flush();
    Ok(())
}

/// The signals that end the process.
struct Ends {
    term: Signals,
    int: Signals,
}

impl Ends {
    /// Waits for one.
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Says how to get into the admin console, where nobody has chosen the password.
fn tell_password(runtime: &Runtime) {
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
    let mut listeners = addresses
        .map(|address| Listener::tcp(address, backlog, tcp))
        .collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(
        !listeners.is_empty(),
        "general.host = {:?} has no address",
        at.host
    );
    if let Some(dir) = &at.unix_socket_dir {
        listeners.push(Listener::unix(dir, at.port, at.unix_socket_mode, backlog)?);
    }
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

/// What changes while the process runs.
struct Process<'a> {
    source: &'a Source,
    builder: &'a Builder,
    runtime: &'a Runtime,
    desk: &'a Desk,
    log: &'a Control,
}

impl Process<'_> {
    /// Reads the configuration again. A wrong one changes nothing.
    fn reload(&self) -> Outcome {
        let old = self.runtime.live();
        let done = load(self.source)
            .map_err(|error| format!("{error:#}"))
            .and_then(|(config, settings, warnings)| self.apply(config, settings, warnings));
        match &done {
            Ok(warnings) => {
                report(warnings);
                tracing::info!("configuration reloaded");
                let live = self.runtime.live();
                if live.settings.listen != old.settings.listen
                    || live.settings.workers != old.settings.workers
                {
                    tracing::warn!(
                        "general.host, port, workers and the unix socket change at the next start only"
                    );
                }
            }
            Err(error) => {
                tracing::error!(
                    "failed to reload, the configuration before stays in force: {error}"
                )
            }
        }
        done
    }

    /// Changes one key of what is in force.
    fn set(&self, key: &str, value: Option<&str>) -> Outcome {
        let config = pgdog_admin::Control::config(self.desk);
        let config = config.with(key, value).map_err(|p| p.to_string())?;
        let (settings, warnings) = check(&config)?;
        self.apply(config, settings, warnings)
    }

    /// Puts a configuration in force.
    fn apply(&self, config: Config, settings: Settings, warnings: Vec<Problem>) -> Outcome {
        let old = self.runtime.live();
        let built = self.builder.build(settings, Some(&old));
        let live = built.map_err(|error| format!("{error:#}"))?.commit();
        self.log.apply(&live.settings.log);
        self.runtime.replace(live);
        retire(&old, &self.runtime.live());
        self.desk.in_force(config);
        Ok(warnings)
    }
}

/// Waits until all clients but those of the consoles have left; says how to go on.
async fn wait_for_clients(
    runtime: &Runtime,
    ends: &mut Ends,
    orders: &mut mpsc::UnboundedReceiver<Placed>,
) -> Shutdown {
    tracing::info!(
        "shutting down: waiting for {} clients to leave",
        runtime.registry.served()
    );
    loop {
        let left = async {
            while runtime.registry.served() > 0 {
                pgdog_net::timer::sleep(DRAIN_STEP).await;
            }
        };
        tokio::select! {
            () = left => return Shutdown::Drain,
            () = ends.asked() => return Shutdown::Drain,
            Some((order, reply)) = orders.recv() => match order {
                Order::Shutdown(Shutdown::WaitForClients) => drop(reply.send(Ok(Vec::new()))),
                Order::Shutdown(how) => {
                    let _ = reply.send(Ok(Vec::new()));
                    return how;
                }
                Order::Reload | Order::Set { .. } => {
                    let _ = reply.send(Err("the proxy is shutting down".to_owned()));
                }
            },
        }
    }
}

/// Lets clients finish their transactions, then tells the rest to go.
async fn drain(runtime: &Runtime, how: Shutdown) {
    let settings = runtime.live();
    let settings = &settings.settings;
    let clients = runtime.registry.len();
    if how == Shutdown::WaitForServers {
        tracing::info!("shutting down: waiting for the transactions of {clients} clients");
        runtime.registry.signal_all(Signal::DRAIN);
        until_gone(runtime).await;
        return;
    }
    let limit = settings.shutdown_timeout;
    tracing::info!(
        "shutting down: waiting up to {} ms for {clients} clients",
        limit.as_millis()
    );
    runtime.registry.signal_all(Signal::DRAIN);
    if gone(runtime, limit).await {
        return;
    }
    if let Some(limit) = settings.shutdown_termination_timeout {
        tracing::warn!(
            "cancelling the queries of {} clients",
            runtime.registry.len()
        );
        runtime.registry.signal_all(Signal::CANCEL);
        if gone(runtime, limit).await {
            return;
        }
    }
    tracing::warn!(
        "disconnecting {} clients that did not finish in time",
        runtime.registry.len()
    );
    runtime.registry.signal_all(Signal::TERMINATE);
    gone(runtime, Duration::from_secs(2)).await;
}

/// Waits for all clients to go.
async fn until_gone(runtime: &Runtime) {
    while !runtime.registry.is_empty() {
        pgdog_net::timer::sleep(DRAIN_STEP).await;
    }
}

/// Waits for all clients to go; says whether they have.
async fn gone(runtime: &Runtime, limit: Duration) -> bool {
    pgdog_net::timer::timeout(limit, until_gone(runtime))
        .await
        .is_ok()
}
