//! Figures of each pool, by user, database and host. Never by client: their number has no bound.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgdog_backend::stats::Durations;

use super::{At, Kind, Label, Metric, Point, Sample};
use crate::show::place;
use crate::table::Value;

type Number = fn(&At) -> f64;

/// Figures with one value for each pool.
const NUMBERS: &[(Kind, &str, &str, Number)] = &[
    (
        Kind::Gauge,
        "pool_servers_max",
        "Most server connections of the pool.",
        |at| at.account.pool.settings().size.into(),
    ),
    (
        Kind::Gauge,
        "pool_servers_pinned",
        "Server connections that clients keep outside of transactions.",
        |at| at.figures.pinned.into(),
    ),
    (
        Kind::Gauge,
        "pool_clients",
        "Clients that are connected; those that have no server connection are counted at the first host.",
        |at| at.clients as f64,
    ),
    (
        Kind::Gauge,
        "pool_clients_waiting",
        "Clients that wait for a server connection.",
        |at| at.figures.waiting.into(),
    ),
    (
        Kind::Gauge,
        "pool_oldest_wait_seconds",
        "How long the client waits for a server connection that has waited for longest.",
        |at| at.waited,
    ),
    (
        Kind::Gauge,
        "pool_paused",
        "1 when clients wait because of PAUSE, KILL or MAINTENANCE.",
        |at| f64::from(at.account.pool.is_paused() || at.account.pool.is_held()),
    ),
    (
        Kind::Gauge,
        "pool_reachable",
        "1 when the last attempt to open a server connection did not fail.",
        |at| f64::from(at.account.pool.is_reachable()),
    ),
    (
        Kind::Counter,
        "pool_transactions_total",
        "Transactions that ended.",
        |at| at.totals.transactions as f64,
    ),
    (
        Kind::Counter,
        "pool_queries_total",
        "Queries that were answered.",
        |at| at.totals.queries as f64,
    ),
    (
        Kind::Counter,
        "pool_assignments_total",
        "Times a client was given a server connection.",
        |at| at.totals.assignments as f64,
    ),
    (
        Kind::Counter,
        "pool_received_bytes_total",
        "Bytes from clients.",
        |at| at.totals.received as f64,
    ),
    (
        Kind::Counter,
        "pool_sent_bytes_total",
        "Bytes to clients.",
        |at| at.totals.sent as f64,
    ),
    (
        Kind::Counter,
        "pool_errors_total",
        "Errors that clients were told.",
        |at| at.totals.errors as f64,
    ),
    (
        Kind::Counter,
        "pool_parses_total",
        "Parse messages of clients.",
        |at| at.totals.parses as f64,
    ),
    (
        Kind::Counter,
        "pool_binds_total",
        "Bind messages of clients.",
        |at| at.totals.binds as f64,
    ),
    (
        Kind::Counter,
        "pool_closes_total",
        "Close messages of clients.",
        |at| at.totals.closes as f64,
    ),
    (
        Kind::Counter,
        "pool_idle_in_transaction_seconds_total",
        "Time that clients were idle in a transaction.",
        |at| at.totals.idle_in_transaction as f64 / 1e9,
    ),
    (
        Kind::Counter,
        "pool_waits_total",
        "Times a client had to wait for a server connection.",
        |at| at.account.pool.stats.waits.load(Ordering::Relaxed) as f64,
    ),
    (
        Kind::Counter,
        "pool_wait_timeouts_total",
        "Times a client waited for a server connection in vain.",
        |at| at.account.pool.stats.wait_timeouts.load(Ordering::Relaxed) as f64,
    ),
    (
        Kind::Counter,
        "pool_connect_failures_total",
        "Attempts to open a server connection that failed.",
        |at| at.account.pool.stats.connect_errors.load(Ordering::Relaxed) as f64,
    ),
    (
        Kind::Counter,
        "pool_discards_total",
        "Server connections that were found broken or closed instead of being used again.",
        |at| at.account.pool.stats.discards.load(Ordering::Relaxed) as f64,
    ),
];

type Times = fn(&At) -> Durations;

/// How long things took, in each pool.
const DURATIONS: &[(&str, &str, Times)] = &[
    (
        "pool_query_duration_seconds",
        "Time from a query's first message to the end of its answer.",
        |at| at.totals.query_time,
    ),
    (
        "pool_transaction_duration_seconds",
        "Time from the first message of a transaction to the end of its last answer, waiting included.",
        |at| at.totals.transaction_time,
    ),
    (
        "pool_wait_duration_seconds",
        "Time that clients waited for a server connection, those that had to.",
        |at| at.totals.wait_time,
    ),
    (
        "pool_connect_duration_seconds",
        "Time that opening a server connection took, login included.",
        |at| at.totals.connect_time,
    ),
    (
        "pool_login_duration_seconds",
        "Time that clients took to log in.",
        |at| at.totals.login_time,
    ),
];

pub(super) fn metrics(pools: &[At]) -> Vec<Metric> {
    let labels: Vec<Arc<[Label]>> = pools.iter().map(labels).collect();
    let of_each = || pools.iter().zip(&labels);
    let numbers = NUMBERS.iter().map(|(kind, name, help, value)| Metric {
        name: (*name).into(),
        help: (*help).into(),
        kind: *kind,
        samples: of_each()
            .map(|(at, labels)| Sample::new(labels, None, value(at)))
            .collect(),
    });
    let durations = DURATIONS.iter().map(|(name, help, times)| Metric {
        name: (*name).into(),
        help: (*help).into(),
        kind: Kind::Histogram,
        samples: of_each()
            .map(|(at, labels)| Sample {
                labels: labels.clone(),
                label: None,
                point: Point::Durations(Box::new(times(at))),
            })
            .collect(),
    });
    let split = |kind,
                 name: &'static str,
                 help: &'static str,
                 label,
                 values: fn(&At) -> [(&'static str, f64); 3]| {
        let samples = of_each().flat_map(|(at, labels)| {
            let sample =
                |(of, value): (&str, f64)| Sample::new(labels, Some((label, of.to_owned())), value);
            values(at).map(sample)
        });
        Metric {
            name: name.into(),
            help: help.into(),
            kind,
            samples: samples.collect(),
        }
    };
    let servers = split(
        Kind::Gauge,
        "pool_servers",
        "Server connections; those that a client keeps while it is idle in a transaction are active.",
        "state",
        |at| {
            [
                ("idle", at.figures.idle.into()),
                ("active", at.figures.active.into()),
                ("connecting", at.figures.connecting.into()),
            ]
        },
    );
    let rows = split(
        Kind::Counter,
        "pool_rows_total",
        "Rows that were changed, as the servers tell it.",
        "operation",
        |at| {
            [
                ("insert", at.totals.rows_inserted as f64),
                ("update", at.totals.rows_updated as f64),
                ("delete", at.totals.rows_deleted as f64),
            ]
        },
    );
    [servers, rows]
        .into_iter()
        .chain(numbers)
        .chain(durations)
        .collect()
}

fn labels(at: &At) -> Arc<[Label]> {
    let identity = &at.account.identity;
    let (host, port) = place::of_server(&at.account.pool.target().address);
    let (shard, role) = place::shard_and_role(&at.account);
    let text = |value: Value| value.as_text().unwrap_or_default().into_owned();
    [
        ("database", identity.database.clone()),
        ("user", identity.user.clone()),
        ("host", text(host)),
        ("port", text(port)),
        ("shard", text(shard)),
        ("role", text(role)),
    ]
    .into()
}
