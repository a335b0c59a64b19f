//! The life of the process: settings, workers, listeners, signals, drain.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use pgdog_backend::Clock;
use pgdog_config::{Config, Problem, Settings, Source};
use pgdog_net::{Listener, TcpOptions};
use pgdog_session::{Runtime, Signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::build::{Builder, retire};
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
    let (settings, warnings) = load(source)?;
    let log = logging::init(&settings.log);
    report(&warnings);
    if let Some((before, now)) = rlimit::raise() {
        tracing::info!("open files: limit {now} (was {before})");
    }
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the control thread")?;
    control.block_on(serve(source, settings, &log))
}

fn load(source: &Source) -> anyhow::Result<(Settings, Vec<Problem>)> {
    let config = Config::load(source)
        .map_err(|problems| anyhow::anyhow!("the configuration is wrong:\n{problems}"))?;
    let built = Settings::build(&config)
        .map_err(|problems| anyhow::anyhow!("the configuration is wrong:\n{problems}"))?;
    logging::check(&built.0.log).map_err(anyhow::Error::msg)?;
    Ok(built)
}

fn report(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

async fn serve(source: &Source, settings: Settings, log: &Control) -> anyhow::Result<()> {
    // Before anybody can connect: until then a signal would end the process without a word.
    let (mut term, mut int, mut hup) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    let clock = Arc::new(Clock::default());
    let count = settings.workers;
    let builder = Builder::new(clock.clone(), count);
    let live = builder.build(settings, None)?.commit();
    let listeners = listen(&live.settings, live.tcp)?;
    let runtime = Arc::new(Runtime::new(live, clock));
    let workers = (0..count)
        .map(|i| Worker::start(i, runtime.clone()))
        .collect::<Result<Vec<_>, _>>()
        .context("start the workers")?;
    let workers = Arc::new(workers);
    tokio::spawn(worker::beat(runtime.clone(), workers.clone()));
    tokio::spawn(log.clone().tell_repetitions());
    let (stop, stopped) = watch::channel(());
    for listener in listeners {
        tracing::info!("listening on {}", listener.description());
        tokio::spawn(accept(listener, workers.clone(), stopped.clone()));
    }
    drop(stopped);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => reload(source, &builder, &runtime, log),
        }
    }
    tracing::info!(
        "shutting down: waiting up to {} ms for {} clients",
        runtime.live().settings.shutdown_timeout.as_millis(),
        runtime.registry.len()
    );
    stop.send_replace(());
    stop.closed().await;
    tokio::select! {
        () = drain(&runtime) => {}
        _ = term.recv() => tracing::warn!("second signal: ending at once"),
        _ = int.recv() => tracing::warn!("second signal: ending at once"),
    }
    for account in runtime.accounts() {
        account.pool.close();
    }
    tracing::info!("stopped");
    log.flush();
    Ok(())
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

/// Reads the configuration again. A wrong one changes nothing.
fn reload(source: &Source, builder: &Builder, runtime: &Runtime, log: &Control) {
    let old = runtime.live();
    let built = load(source)
        .and_then(|(settings, warnings)| Ok((builder.build(settings, Some(&old))?, warnings)));
    match built {
        Ok((built, warnings)) => {
            let live = built.commit();
            log.apply(&live.settings.log);
            report(&warnings);
            runtime.replace(live);
            retire(&old, &runtime.live());
            tracing::info!("configuration reloaded");
            if runtime.live().settings.listen != old.settings.listen
                || runtime.live().settings.workers != old.settings.workers
            {
                tracing::warn!(
                    "general.host, port, workers and the unix socket change at the next start only"
                );
            }
        }
        Err(error) => {
            tracing::error!("failed to reload, the configuration before stays in force: {error:#}")
        }
    }
}

/// Lets clients finish their transactions, then tells the rest to go.
async fn drain(runtime: &Runtime) {
    let settings = runtime.live();
    let settings = &settings.settings;
    runtime.registry.signal_all(Signal::DRAIN);
    if gone(runtime, settings.shutdown_timeout).await {
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

/// Waits for all clients to go; says whether they have.
async fn gone(runtime: &Runtime, limit: Duration) -> bool {
    let wait = async {
        while !runtime.registry.is_empty() {
            pgdog_net::timer::sleep(DRAIN_STEP).await;
        }
    };
    pgdog_net::timer::timeout(limit, wait).await.is_ok()
}
