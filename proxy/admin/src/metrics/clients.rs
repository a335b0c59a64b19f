//! Figures of the whole process: clients, servers, logins, errors, prepared statements.

use std::sync::atomic::{AtomicU64, Ordering};

use pgdog_session::Metrics;

use super::{At, Kind, Metric};
use crate::admin::Admin;

type Counter = fn(&Metrics) -> &AtomicU64;

const COUNTERS: &[(&str, &str, Counter)] = &[
    ("logins_total", "Clients that logged in.", |m| &m.logins),
    ("login_failures_total", "Logins that were refused.", |m| {
        &m.login_failures
    }),
    (
        "cancels_total",
        "Cancel requests that reached a client.",
        |m| &m.cancels,
    ),
    (
        "pins_total",
        "Clients that came to keep a server connection outside of a transaction.",
        |m| &m.pins,
    ),
    (
        "probes_total",
        "Times a server was asked what its session holds.",
        |m| &m.probes,
    ),
    (
        "parameter_changes_total",
        "Times a server connection got other settings for its next client.",
        |m| &m.param_syncs,
    ),
    (
        "recoveries_total",
        "Server connections that were brought back into order after their client had gone.",
        |m| &m.recoveries,
    ),
    (
        "held_requests_total",
        "Requests that were held back because no host could take them.",
        |m| &m.holds,
    ),
    (
        "retried_requests_total",
        "Requests that were sent again to another host, because nothing of them had taken place.",
        |m| &m.retries,
    ),
];

pub(super) fn metrics(admin: &Admin, pools: &[At]) -> Vec<Metric> {
    let runtime = &admin.runtime;
    let sum = |of: fn(&At) -> u32| pools.iter().map(|at| f64::from(of(at))).sum::<f64>();
    let gauge = |name, help, value| Metric::single(name, help, Kind::Gauge, value);
    let count = |name, help, value: u64| Metric::single(name, help, Kind::Counter, value as f64);
    let mut all = vec![
        Metric::by(
            "build_info",
            "The version of the program.",
            Kind::Gauge,
            "version",
            [(env!("CARGO_PKG_VERSION"), 1.0)],
        ),
        gauge(
            "clients",
            "Clients that are connected.",
            runtime.registry.len().into(),
        ),
        gauge(
            "clients_waiting",
            "Clients that wait for a server connection.",
            sum(|at| at.figures.waiting),
        ),
        Metric::by(
            "servers",
            "Server connections over all pools.",
            Kind::Gauge,
            "state",
            [
                ("idle", sum(|at| at.figures.idle)),
                ("active", sum(|at| at.figures.active)),
                ("connecting", sum(|at| at.figures.connecting)),
            ],
        ),
        gauge("pools", "Pools.", pools.len() as f64),
    ];
    all.extend(COUNTERS.iter().map(|(name, help, counter)| {
        count(
            name,
            help,
            counter(&runtime.metrics).load(Ordering::Relaxed),
        )
    }));
    let errors = runtime.metrics.errors();
    all.push(Metric::by(
        "client_errors_total",
        "Errors that clients were told.",
        Kind::Counter,
        "sqlstate",
        errors.iter().map(|(code, n)| (&**code, *n as f64)),
    ));
    let planned = runtime.planner.counters();
    all.extend([
        count(
            "query_plan_hits_total",
            "Query strings whose route was known.",
            planned.hits,
        ),
        count(
            "query_plan_misses_total",
            "Query strings that had to be parsed to find their route.",
            planned.misses,
        ),
        Metric::single(
            "query_plan_parse_seconds_total",
            "Time that parsing them took.",
            Kind::Counter,
            planned.parse_nanoseconds as f64 / 1e9,
        ),
        gauge(
            "query_plans",
            "Query strings, without their constants, whose route is remembered.",
            runtime.planner.len() as f64,
        ),
    ]);
    let statements = runtime.store.counts();
    all.extend([
        count(
            "prepared_statement_hits_total",
            "Statements that a client prepared and the proxy knew.",
            statements.hits,
        ),
        count(
            "prepared_statement_misses_total",
            "Statements that a client prepared and the proxy did not know.",
            statements.misses,
        ),
        count(
            "prepared_statement_evictions_total",
            "Statements that the proxy forgot because no client had them.",
            statements.evictions,
        ),
    ]);
    all
}
