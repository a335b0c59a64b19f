//! A request that could not be served by its host: held back, sent again elsewhere, or refused.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use pgdog_backend::{CheckoutError, NoPrimary, Reason, Role, ServerError};
use pgdog_config::PoolerMode;
use pgdog_sql::Effects;
use pgdog_wire::backend::TransactionStatus;
use pgdog_wire::{ClientError as _, ErrorResponse, error, sqlstate};

use super::ask::{self, need};
use super::{Handed, NoHost, TRIES_MAX, Wish};
use crate::active::{Active, Event, Holding, Passing};
use crate::anew;
use crate::client::{Client, Ended};
use crate::handle::Doing;
use crate::watch::Watch;

/// A client that is held looks again this often, whatever happens, ms.
const HELD_STEP: u64 = 100;

impl Active {
    /// Whether a request that got this error is to be sent again, to a host that may do better.
    fn deserves_another_try(&self, client: &Client, code: &[u8], fatal: bool) -> bool {
        let whole = self.trial.handed != Handed::Part && self.from_client.left == 0;
        if self.trial.bytes.is_empty() || !whole || self.trial.tries >= TRIES_MAX {
            return false;
        }
        let reads = matches!(self.trial.wish, Wish::Read { .. } | Wish::Any);
        match code {
            // Refused before anything was done, by a host that takes no writes.
            b"25006" => true,
            // The host is going, or has come in the way of what it replays.
            b"57P01" | b"57P02" | b"57P03" | b"57P05" => fatal && reads,
            b"40001" => reads && !self.trial.to_primary,
            // What no replica has: unlogged tables, and serializable transactions.
            b"0A000" => {
                self.trial.wish == (Wish::Read { replica: false })
                    && !self.trial.to_primary
                    && self.is_on_replica(client)
            }
            _ => false,
        }
    }

    /// Whether a request whose server went away without a word is to be sent again: on a primary it may have done what no text
    /// shows.
    pub(crate) fn deserves_another_server(&self, client: &Client) -> bool {
        self.deserves_another_try(client, b"57P01", true) && self.is_on_replica(client)
    }

    /// An error has come: it ends here when its request is to be sent again.
    #[cold]
    pub(crate) fn may_try_again(&self, client: &Client, body: &[u8]) -> Result<(), Event> {
        let fatal = error::field(body, b'V') == Some(b"FATAL");
        let code = error::field(body, b'C').unwrap_or_default();
        if self.deserves_another_try(client, code, fatal) {
            return Err(Event::Again(Box::new(ErrorResponse::read(body))));
        }
        Ok(())
    }

    /// Takes back a request of which nothing has taken place, so that it is looked at again.
    pub(crate) async fn try_again(
        &mut self,
        client: &mut Client,
        error: &ErrorResponse,
    ) -> Result<(), Ended> {
        let code = &*error.code;
        let (wish, host, pool) = (self.trial.wish, self.host(client), client.pool.clone());
        client.runtime.metrics.count(|m| &m.retries);
        tracing::debug!(user = %client.account.user.name, database = %client.account.user.database, code, "a request is sent again to another host");
        self.drop_server(client);
        let start = self.cout.start;
        self.cout.bytes.truncate(start + self.trial.mark);
        self.sin.clear();
        self.sout.clear();
        self.from_client = Passing::default();
        self.from_server = Passing::default();
        self.effects = Effects::NONE;
        self.pending = None;
        self.naming = None;
        self.barrier = false;
        self.skipping = false;
        self.failed = false;
        self.told = false;
        self.holding = Holding::No;
        self.restores.clear();
        self.told_before.clear();
        self.custom.clear();
        self.reverts.clear();
        self.unflushed_server = false;
        if let Some(watch) = &mut self.watch {
            **watch = Watch::default();
        }
        if let Some(statements) = &mut client.statements {
            statements.undo_all();
            // A Parse that was answered, and is sent again.
            for name in ask::parsed(&self.trial.bytes) {
                statements.remove(name);
            }
        }
        if self.trial.handed == Handed::All {
            let rest = self.cin.data().to_vec();
            self.cin.clear();
            self.cin.bytes.extend_from_slice(&self.trial.bytes);
            self.cin.bytes.extend_from_slice(&rest);
        }
        self.trial.bytes.clear();
        self.trial.tries += 1;
        self.trial.first = false;
        // Nothing of its transaction has taken place but its BEGIN.
        self.trial.deferred = !self.trial.begin.is_empty();
        match code {
            // A replica that cancels reads for its own sake does so again.
            "40001" | "0A000" => self.trial.to_primary = true,
            "25006" if wish != Wish::Write => self.trial.to_primary = true,
            "25006" if anew::takes_no_writes(&pool).await => {
                if let Some(host) = host {
                    host.refused_write();
                }
                // Time is the limit here.
                self.trial.tries -= 1;
                return self.hold_back(client, error).await;
            }
            // Somebody wants it so: once more, and this time the answer counts.
            "25006" => self.trial.tries = TRIES_MAX,
            _ => {
                if let Some(host) = host {
                    host.failed(&ServerError::Closed);
                }
            }
        }
        Ok(())
    }

    /// No host may get the request now: it is held until one may, or until `hold_timeout` is over.
    pub(crate) async fn no_host(&mut self, client: &mut Client, why: NoHost) -> Result<(), Ended> {
        let response = why.response(&client.account);
        if why == NoHost::Behind {
            client.account.cluster.database().hurry();
        }
        if why == NoHost::Replay {
            return self.await_replay(client).await;
        }
        if why == NoHost::Primary(NoPrimary::ReplicasOnly) {
            self.trial.end();
            return self.give_up(client, &response).await;
        }
        self.hold_back(client, &response).await
    }

    /// Whether a request that found no server is tried again: its host has failed, and another one, or the same a moment
    /// later, may serve it.
    pub(crate) async fn host_failed(
        &mut self,
        client: &mut Client,
        error: &CheckoutError,
    ) -> Option<Result<(), Ended>> {
        if client.account.cluster.is_single() {
            return None;
        }
        let (CheckoutError::Server(cause) | CheckoutError::Unreachable { cause, .. }) = error
        else {
            return None;
        };
        let reads = self.trial.wish != Wish::Write;
        if cause.is_permanent() {
            // Another host may know this user.
            self.trial.tries += 1;
            return (reads && self.trial.tries < TRIES_MAX).then_some(Ok(()));
        }
        if let Some(host) = self.host(client) {
            host.failed(cause);
        }
        client.pool = client.account.pool.clone();
        if reads && self.trial.tries < TRIES_MAX {
            self.trial.tries += 1;
            if usize::from(self.trial.tries) < client.account.cluster.members().len() {
                return Some(Ok(()));
            }
        }
        Some(self.hold_back(client, &error.response()).await)
    }

    /// A server was lost before it was asked anything of the client's: another one is chosen, where there is one.
    pub(crate) async fn lost_before_use(
        &mut self,
        client: &mut Client,
        error: ServerError,
    ) -> Result<(), Ended> {
        self.drop_server(client);
        let why = CheckoutError::Server(error);
        match self.host_failed(client, &why).await {
            Some(held) => held,
            None => self.refuse(client, why.response().into_fatal()).await,
        }
    }

    /// Waits until a replica has replayed what the client has written; when that takes too long, the primary is asked.
    async fn await_replay(&mut self, client: &mut Client) -> Result<(), Ended> {
        self.note(client, Doing::Waiting);
        let limit = client.live.settings.balancing.read_your_writes_timeout;
        let need = need(client, self.trial.wish);
        let cluster = client.account.cluster.clone();
        let replayed = pgdog_net::timer::timeout(limit, cluster.replayed(need)).await;
        self.trial.to_primary = replayed.is_err();
        Ok(())
    }

    /// Waits for something to change, for a moment at most. When `hold_timeout` is over, the client is told why.
    async fn hold_back(&mut self, client: &mut Client, why: &ErrorResponse) -> Result<(), Ended> {
        let now = client.runtime.clock.now().max(1);
        if self.trial.held == 0 {
            self.trial.held = now;
            client.runtime.metrics.count(|m| &m.holds);
        }
        self.note(client, Doing::Waiting);
        let limit = client.live.settings.balancing.hold_timeout;
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let left = limit.saturating_sub(now - self.trial.held);
        if left == 0 {
            self.trial.end();
            return self.give_up(client, why).await;
        }
        let cluster = client.account.cluster.clone();
        let step = Duration::from_millis(left.min(HELD_STEP));
        let mut changed = std::pin::pin!(pgdog_net::timer::timeout(step, cluster.changed()));
        // What changes meanwhile is seen by looking again; so is what the client is told.
        let gone = poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() || client.registered.handle.is_told() {
                return Poll::Ready(None);
            }
            match self.poll_meanwhile(client, cx) {
                Ok(()) => Poll::Pending,
                Err(event) => Poll::Ready(Some(event)),
            }
        });
        match gone.await {
            None => Ok(()),
            Some(Event::ClientBroke(error)) => Err(Ended::Broke(error)),
            Some(_) => Err(Ended::Left),
        }
    }

    /// What ends a client that keeps a server whose host is the primary no more: what it writes there is in no other history.
    /// Nothing for those that only read, and for a single statement under way.
    #[cold]
    pub(crate) fn deposed(&self, client: &Client) -> Option<ErrorResponse> {
        let server = self.server.as_ref()?;
        if !client.pool().is_deposed(server) {
            return None;
        }
        let keeps = self.mode == PoolerMode::Session || client.reasons.any();
        let open = server.owed.status != TransactionStatus::Idle;
        if !keeps && (self.has_only_begun() || !self.trial.bytes.is_empty()) {
            // It begins again elsewhere, or can be sent again.
            return None;
        }
        let reads = self.trial.routed && matches!(self.trial.wish, Wish::Read { .. });
        if !keeps && (!open || reads) {
            return None;
        }
        Some(deposed())
    }

    /// Hosts have come or gone: nobody waits for one that does not answer.
    pub(crate) async fn hosts_changed(&mut self, client: &mut Client) -> Result<(), Ended> {
        if let Some(error) = self.deposed(client) {
            self.cancel_server(client);
            return self.refuse(client, error).await;
        }
        if !self.trial.routed {
            return Ok(());
        }
        let Some(host) = self.host(client) else {
            return Ok(());
        };
        let primary = host.role() == Role::Primary;
        let gone = host.ban().is_some_and(|ban| ban.reason == Reason::Failed);
        if self.waiting.is_some() {
            let fits = match self.trial.wish {
                Wish::Write => primary,
                Wish::Read { .. } | Wish::Any => !gone,
            };
            if !fits {
                // In line again, elsewhere.
                self.waiting = None;
            }
            return Ok(());
        }
        let busy = self.server.as_ref().is_some_and(|s| !s.owed.settled());
        if !gone || !busy {
            return Ok(());
        }
        if self.deserves_another_server(client) {
            return self
                .try_again(client, &ServerError::Closed.response())
                .await;
        }
        if primary {
            return Ok(());
        }
        let text = format!("host {} does not answer any more", host.address);
        let error = ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, text);
        self.refuse(client, error).await
    }
}

/// What clients are told whose server is on a host that is the primary no more.
pub(crate) fn deposed() -> ErrorResponse {
    ErrorResponse::fatal(
        sqlstate::ADMIN_SHUTDOWN,
        "terminating connection: its server is not the primary any more",
    )
}
