//! Watching one host: a task with a connection of its own, so that no check waits behind traffic. It asks whether the server
//! answers and, where there are several hosts, for its role and its position in the log.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgdog_net::Address;
use pgdog_wire::{Severity, sqlstate};

use crate::database::{DatabaseState, Plan};
use crate::error::ServerError;
use crate::host::{HostState, is_full};
use crate::login::Target;
use crate::server::{Rows, Server};

/// Time that two looks are at least apart, whoever asks for the second one.
const GAP: Duration = Duration::from_millis(20);
/// Pause after a first failure; it doubles with each further one, up to the interval of checks.
const BACKOFF: Duration = Duration::from_millis(50);
/// How often it is looked whether a paused database goes on, or whether somebody has a login.
const IDLE_STEP: Duration = Duration::from_millis(250);
/// How the connection calls itself.
const NAME: &str = "pgdog monitor";

/// Names are qualified, so that no search path can redirect them. The inner query is not pulled up, because its function is
/// volatile: the role is asked for once, and a promotion in between makes nothing fail. A primary tells where the next record
/// goes and not what is on disk: a commit that does not wait for the disk counts as well.
/// To whom the receiver's timeline is not shown (who is not in pg_monitor), the control file's is, which may come later.
const LOOK: &str = "SELECT s.r, \
    CASE WHEN s.r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
    CASE WHEN s.r THEN NULL ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
    CASE WHEN s.r THEN GREATEST((SELECT w.received_tli FROM pg_catalog.pg_stat_get_wal_receiver() w), \
        (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c), \
        (SELECT m.min_recovery_end_timeline FROM pg_catalog.pg_control_recovery() m)) END, \
    CASE WHEN s.r THEN pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()) END \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r) s";

/// The same without timelines, where the functions that tell them are not allowed.
const LOOK_PLAIN: &str = "SELECT s.r, \
    CASE WHEN s.r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
    NULL, NULL, \
    CASE WHEN s.r THEN pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp()) END \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS r) s";

/// Whether the server is Aurora, whose readers replay no log.
const IS_AURORA: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_proc p WHERE p.proname OPERATOR(pg_catalog.=) 'aurora_replica_status' \
    AND p.pronamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace)";

/// Its way of telling the same.
const LOOK_AURORA: &str = "SELECT s.session_id OPERATOR(pg_catalog.<>) 'MASTER_SESSION_ID', s.durable_lsn, s.replica_lag_in_msec \
    FROM pg_catalog.aurora_replica_status() s WHERE s.server_id OPERATOR(pg_catalog.=) pg_catalog.aurora_db_instance_identifier()";

/// What a host has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    /// Whether it follows another one.
    pub(crate) in_recovery: bool,
    /// Replayed, or inserted.
    pub(crate) lsn: u64,
    /// 0 where it does not tell.
    pub(crate) timeline: u32,
    /// Time since the last transaction that it has replayed, ms; of Aurora, its lag.
    pub(crate) lag_ms: Option<u64>,
    /// Whether it is Aurora.
    pub(crate) aurora: bool,
}

impl Look {
    fn read(rows: &Rows) -> Option<Self> {
        let row = rows.first()?;
        let cell = |index: usize| row.get(index)?.as_deref();
        let in_recovery = cell(0)? == "t";
        let walfile = cell(2).and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
        let received = cell(3).and_then(|tli| tli.parse().ok());
        let seconds = cell(4).and_then(|text| text.parse::<f64>().ok());
        Some(Self {
            in_recovery,
            // A replica that has replayed nothing yet is at the start.
            lsn: cell(1).map_or(Some(0), read_lsn)?,
            timeline: walfile.or(received).unwrap_or(0),
            lag_ms: seconds.map(|s| (s * 1e3).max(0.0) as u64),
            aurora: false,
        })
    }

    fn read_aurora(rows: &Rows) -> Option<Self> {
        let row = rows.first()?;
        let cell = |index: usize| row.get(index)?.as_deref();
        let in_recovery = cell(0)? == "t";
        let lag = cell(2).and_then(|text| text.parse::<f64>().ok());
        Some(Self {
            in_recovery,
            lsn: cell(1).and_then(|lsn| lsn.parse().ok()).unwrap_or(0),
            timeline: 0,
            lag_ms: lag.filter(|_| in_recovery).map(|ms| ms.max(0.0) as u64),
            aurora: true,
        })
    }
}

/// A position as the server writes it, `16/B374D848`.
fn read_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// What came of asking.
#[derive(Debug)]
enum Found {
    /// Role and position.
    Look(Look),
    /// It answers.
    Alive,
    /// Nothing about the host: nobody can log in, or the database is paused.
    Nothing,
}

/// Watches a host until it is no longer in the configuration. Needs a runtime with timers.
pub(crate) async fn watch(host: Arc<HostState>, database: Arc<DatabaseState>) {
    let moved = AtomicBool::new(false);
    tokio::join!(
        checks(&host, &database, &moved),
        names(&host, &database, &moved)
    );
}

async fn checks(host: &HostState, database: &DatabaseState, moved: &AtomicBool) {
    let mut own = Own::default();
    let (mut last, mut heard, mut failures) = (Instant::now(), 0, None);
    while !host.retired.load(Ordering::Acquire) {
        // Before looking, so that no alarm is missed in between.
        let alarmed = database.alarmed.notified();
        let plan = database.plan(host);
        let alarms = database.alarms();
        let pause = match failures {
            None => Some(plan.delay),
            Some(0) => plan.interval,
            Some(n) => plan
                .interval
                .map(|i| i.min(BACKOFF * 2u32.pow(n.clamp(1, 10)))),
        };
        let pause = if plan.look && alarms != heard {
            Some(pause.map_or(GAP, |p| p.min(GAP)))
        } else {
            pause
        };
        let left = pause.map(|pause| pause.saturating_sub(last.elapsed()));
        match left {
            Some(Duration::ZERO) => {}
            Some(left) => {
                tokio::select! {
                    () = pgdog_net::timer::sleep(left) => {}
                    () = alarmed => {}
                }
                continue;
            }
            None => {
                alarmed.await;
                continue;
            }
        }
        heard = alarms;
        if moved.swap(false, Ordering::AcqRel) {
            own.server = None;
        }
        failures = Some(probe(&mut own, host, database, &plan, failures.unwrap_or(0)).await);
        last = Instant::now();
    }
    own.close();
}

/// Asks once; the failures in a row.
async fn probe(
    own: &mut Own,
    host: &HostState,
    database: &DatabaseState,
    plan: &Plan,
    failures: u32,
) -> u32 {
    let began = host.clock.now();
    let found = own.ask(host, plan).await;
    if !matches!(found, Ok(Found::Nothing)) {
        host.counters.probes.fetch_add(1, Ordering::Relaxed);
    }
    match found {
        Ok(Found::Look(look)) => database.learn(host, &look, began),
        Ok(Found::Alive) => database.passed(host),
        Ok(Found::Nothing) => pgdog_net::timer::sleep(IDLE_STEP).await,
        Err(error) => {
            host.counters.failed_probes.fetch_add(1, Ordering::Relaxed);
            if host.is_healthy() {
                tracing::warn!(database = %host.database, host = %host.address, "check failed: {error}");
            }
            database.failed(host, &error);
            return failures + 1;
        }
    }
    0
}

/// The connection of a task.
#[derive(Debug, Default)]
struct Own {
    server: Option<Server>,
    aurora: bool,
    /// The functions that tell timelines are not allowed.
    plain: bool,
    /// Which of the logins has worked last.
    login: usize,
    /// It was said that nobody can log in.
    told: bool,
}

impl Own {
    fn close(&mut self) {
        if let Some(server) = self.server.take() {
            server.close();
        }
    }

    async fn ask(&mut self, host: &HostState, plan: &Plan) -> Result<Found, ServerError> {
        let pools = host.pools();
        let budget = pools.first().and_then(|pool| pool.host_budget());
        let may_not = budget.is_some_and(|budget| budget.is_none());
        if may_not || pools.iter().all(|pool| pool.is_paused()) {
            // Whoever pauses a database wants the server for himself; and who has nothing to open looks after nobody.
            self.close();
            return Ok(Found::Nothing);
        }
        let targets = pools.iter().map(|pool| pool.target()).collect::<Vec<_>>();
        drop(pools);
        if let Some(server) = self.server.take() {
            match self.ask_on(server, host, plan).await {
                // A connection that has gone is no proof: the server may have closed it because it was idle.
                Err(error) if is_loss(&error) => {}
                found => return found,
            }
        }
        match self.connect(host, &targets, plan).await? {
            Some(server) => self.ask_on(server, host, plan).await,
            None => Ok(Found::Nothing),
        }
    }

    /// Opens a connection with the first login that works. `None`: there is none.
    async fn connect(
        &mut self,
        host: &HostState,
        targets: &[Arc<Target>],
        plan: &Plan,
    ) -> Result<Option<Server>, ServerError> {
        let count = targets.len();
        let mut refused = None;
        for index in (0..count).map(|i| (self.login + i) % count) {
            let parameters = vec![("application_name".to_owned(), NAME.to_owned())];
            let mut target = targets[index].with_parameters(parameters);
            target.timeout = target.timeout.min(plan.timeout);
            match target.connect().await {
                Ok(mut server) => {
                    self.login = index;
                    self.told = false;
                    if plan.look {
                        let rows = server.query(IS_AURORA, plan.timeout).await?;
                        self.aurora = rows.first().and_then(|r| r.first()?.as_deref()) == Some("t");
                    }
                    return Ok(Some(server));
                }
                Err(error) if error.is_permanent() || is_full(&error) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = refused {
            host.lock_out(&error);
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!("no login can watch {}: {error}", host.address);
            }
        }
        Ok(None)
    }

    async fn ask_on(
        &mut self,
        mut server: Server,
        host: &HostState,
        plan: &Plan,
    ) -> Result<Found, ServerError> {
        let began = host.clock.precise();
        let asked = server.query(self.question(plan), plan.timeout).await;
        let rows = match asked {
            Ok(rows) => rows,
            Err(ServerError::Refused(error)) if error.severity != Severity::Fatal => {
                // It may not tell, and is alive.
                if plan.look && !std::mem::replace(&mut self.plain, true) {
                    tracing::warn!(database = %host.database, host = %host.address, "the server does not tell its timeline: {}", error.message);
                }
                self.server = Some(server);
                return Ok(Found::Alive);
            }
            Err(error) => return Err(error),
        };
        host.record_latency(host.clock.precise().saturating_sub(began));
        let look = match plan.look {
            true if self.aurora => Look::read_aurora(&rows),
            true => Look::read(&rows),
            false => None,
        };
        if plan.look {
            self.server = Some(server);
        } else {
            // The only host of a database is looked at now and then: no connection is kept for that.
            server.close();
        }
        Ok(look.map_or(Found::Alive, Found::Look))
    }

    fn question(&self, plan: &Plan) -> &'static str {
        match (plan.look, self.aurora, self.plain) {
            (false, ..) => ";",
            (_, true, _) => LOOK_AURORA,
            (_, _, true) => LOOK_PLAIN,
            _ => LOOK,
        }
    }
}

/// Whether the connection has gone, as against a server that does not answer on it.
fn is_loss(error: &ServerError) -> bool {
    match error {
        ServerError::Closed | ServerError::Io(_) => true,
        ServerError::Refused(error) => {
            error.code.starts_with("57P") || error.code == sqlstate::CONNECTION_FAILURE
        }
        _ => false,
    }
}

/// Looks the host's name up, where `dns_ttl` says so, and has all connections renewed when it has other addresses.
async fn names(host: &HostState, database: &DatabaseState, moved: &AtomicBool) {
    let Address::Tcp { host: name, port } = &*host.address else {
        return;
    };
    if name.parse::<IpAddr>().is_ok() {
        return;
    }
    let mut known = BTreeSet::new();
    let mut last = Instant::now();
    while !host.retired.load(Ordering::Acquire) {
        let alarmed = database.alarmed.notified();
        let ttl = database.plan(host).dns_ttl;
        let left = ttl.map(|ttl| ttl.saturating_sub(last.elapsed()));
        match left {
            Some(Duration::ZERO) => {}
            // The first time at once, so that there is something to compare with.
            Some(_) if known.is_empty() => {}
            Some(left) => {
                tokio::select! {
                    () = pgdog_net::timer::sleep(left) => {}
                    () = alarmed => {}
                }
                continue;
            }
            None => {
                alarmed.await;
                continue;
            }
        }
        let found = tokio::net::lookup_host((name.as_str(), *port)).await;
        let found: BTreeSet<IpAddr> = found.into_iter().flatten().map(|a| a.ip()).collect();
        last = Instant::now();
        if found.is_empty() {
            // A resolver that fails says nothing of the host. Not at once again.
            pgdog_net::timer::sleep(IDLE_STEP).await;
            continue;
        }
        if !known.is_empty() && known != found {
            tracing::info!(database = %host.database, host = %host.address, "the name has other addresses: connections are renewed");
            moved.store(true, Ordering::Release);
            host.pools().iter().for_each(|pool| pool.reconnect());
            database.alarm();
        }
        known = found;
    }
}

#[cfg(test)]
mod tests;
