//! What the process is doing, and how it comes to its end.

use std::time::Duration;

use pgdog_admin::Shutdown;
use pgdog_config::api::Phase;
use pgdog_session::{Runtime, Signal};
use tokio::sync::watch;

/// How often a shutdown looks whether all clients have gone.
const STEP: Duration = Duration::from_millis(20);

/// How often those who are still there are told again: one that was at work then may be idle now.
const AGAIN: Duration = Duration::from_millis(200);

/// How long queries may take to be cancelled when their clients have been sent away.
const TIDYING: Duration = Duration::from_secs(5);

/// What the process is doing, and that it shall end.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// The last of those who asked for the end decides how.
    end: watch::Sender<Option<Shutdown>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Starting),
            end: watch::Sender::new(None),
        }
    }
}

impl Lifecycle {
    /// Begins another part of its life. Draining is the last one.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let changes = *now != phase && *now != Phase::Draining;
            if changes {
                *now = phase;
            }
            changes
        });
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Asks for the end.
    pub(crate) fn end(&self, how: Shutdown) {
        self.enter(Phase::Draining);
        self.end.send_replace(Some(how));
    }

    /// Waits until somebody asks for the end. Cancel safe.
    pub(crate) async fn asked(&self) -> Shutdown {
        let mut end = self.end.subscribe();
        // Never closed: the sender is here.
        let asked = end.wait_for(Option::is_some).await;
        asked.ok().and_then(|how| *how).unwrap_or(Shutdown::Drain)
    }

    /// Waits until somebody asks for an end that does not wait for clients to leave. Cancel safe.
    async fn asked_for_more(&self) -> Shutdown {
        let mut end = self.end.subscribe();
        let more = |how: &Option<Shutdown>| how.is_some_and(|h| h != Shutdown::WaitForClients);
        let asked = end.wait_for(more).await;
        asked.ok().and_then(|how| *how).unwrap_or(Shutdown::Drain)
    }

    /// Waits until all clients but those of the consoles have left, or somebody asks for an end that does not wait for
    /// that. Says how to go on. Cancel safe.
    pub(crate) async fn clients_left(&self, runtime: &Runtime) -> Shutdown {
        tracing::info!(
            "shutting down: waiting for {} clients to leave",
            runtime.registry.served()
        );
        tokio::select! {
            () = until_left(runtime) => Shutdown::Drain,
            how = self.asked_for_more() => how,
        }
    }
}

/// Lets clients finish their transactions, tells the rest to go, and waits until their queries are cancelled.
pub(crate) async fn drain(runtime: &Runtime, how: Shutdown) {
    send_away(runtime, how).await;
    tidied(runtime).await;
}

async fn send_away(runtime: &Runtime, how: Shutdown) {
    let settings = runtime.live();
    let settings = &settings.settings;
    let clients = runtime.registry.len();
    if how == Shutdown::WaitForServers {
        tracing::info!("shutting down: waiting for the transactions of {clients} clients");
        until_drained(runtime).await;
        return;
    }
    let limit = settings.shutdown_timeout;
    tracing::info!(
        "shutting down: waiting up to {} ms for {clients} clients",
        limit.as_millis()
    );
    if pgdog_net::timer::timeout(limit, until_drained(runtime))
        .await
        .is_ok()
    {
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

/// Waits until what the last clients left has been cancelled in PostgreSQL, which notices a closed connection only when it
/// writes to it.
async fn tidied(runtime: &Runtime) {
    runtime.tidying.close();
    if pgdog_net::timer::timeout(TIDYING, runtime.tidying.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            "{} connections of clients that have gone were not put into order in time: their queries may go on in PostgreSQL",
            runtime.tidying.len()
        );
    }
}

/// Waits until there are no clients but those of the consoles.
async fn until_left(runtime: &Runtime) {
    while runtime.registry.served() > 0 {
        pgdog_net::timer::sleep(STEP).await;
    }
}

/// Tells all clients that the proxy goes, until they have gone: those at work are told with an answer, the others when they
/// have been idle for a moment.
async fn until_drained(runtime: &Runtime) {
    while !runtime.registry.is_empty() {
        runtime.registry.signal_all(Signal::DRAIN);
        gone(runtime, AGAIN).await;
    }
}

/// Waits for all clients to go.
async fn until_gone(runtime: &Runtime) {
    while !runtime.registry.is_empty() {
        pgdog_net::timer::sleep(STEP).await;
    }
}

/// Waits for all clients to go; says whether they have.
async fn gone(runtime: &Runtime, limit: Duration) -> bool {
    pgdog_net::timer::timeout(limit, until_gone(runtime))
        .await
        .is_ok()
}
