//! Figures of each host of each database. The role is a figure and no label of the others: a failover begins no new series.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pgdog_backend::host::HostCounters;
use pgdog_backend::{DatabaseState, HostState, NoPrimary, Writer};

use super::{At, Kind, Label, Metric, Sample};
use crate::admin::Admin;
use crate::show::place;

type Number = fn(&HostState) -> Option<f64>;

/// Figures that go up and down; `None` is one that is not known.
const NUMBERS: &[(&str, &str, Number)] = &[
    ("host_up", "1 when the checks of the host pass.", |host| {
        Some(f64::from(host.is_healthy()))
    }),
    ("host_banned", "1 when the host gets no reads.", |host| {
        Some(f64::from(!host.is_free()))
    }),
    (
        "host_servers_active",
        "Server connections that clients have, over all users.",
        |host| Some(host.active().into()),
    ),
    (
        "host_latency_seconds",
        "Average time of queries and checks.",
        |host| Some(f64::from(host.latency()) / 1e6).filter(|s| *s > 0.0),
    ),
    (
        "host_replication_lag_bytes",
        "How much of the log the host has not replayed; 0 on the primary.",
        |host| host.lag_bytes().map(|bytes| bytes as f64),
    ),
    (
        "host_replication_lag_seconds",
        "For how long the host has not replayed what there is to replay; 0 on the primary.",
        |host| host.lag_ms().map(|ms| ms as f64 / 1e3),
    ),
    (
        "host_lsn_bytes",
        "Position in the log: replayed, or on the primary inserted.",
        |host| Some(host.lsn() as f64).filter(|lsn| *lsn > 0.0),
    ),
    ("host_timeline", "The timeline of the host.", |host| {
        Some(f64::from(host.timeline())).filter(|timeline| *timeline > 0.0)
    }),
];

type Counter = fn(&HostCounters) -> &AtomicU64;

const COUNTERS: &[(&str, &str, Counter)] = &[
    ("host_bans_total", "Bans of the host.", |c| &c.bans),
    (
        "host_checks_total",
        "Checks of the host, and looks at its role and position.",
        |c| &c.probes,
    ),
    (
        "host_failed_checks_total",
        "Those of them that failed.",
        |c| &c.failed_probes,
    ),
    (
        "host_failures_total",
        "Connections to the host that could not be had or were lost, as pools tell it.",
        |c| &c.failures,
    ),
];

/// What a host may be.
const ROLES: [&str; 3] = ["primary", "replica", "unknown"];

pub(super) fn metrics(admin: &Admin, pools: &[At]) -> Vec<Metric> {
    let hosts = hosts(admin, pools);
    let numbers = NUMBERS.iter().map(|(name, help, value)| {
        let samples = hosts.iter().filter_map(|(host, labels)| {
            let value = value(host)?;
            Some(Sample::new(labels, None, value))
        });
        family(name, help, Kind::Gauge, samples.collect())
    });
    let counters = COUNTERS.iter().map(|(name, help, of)| {
        let samples = hosts.iter().map(|(host, labels)| {
            let count = of(&host.counters).load(Ordering::Relaxed);
            Sample::new(labels, None, count as f64)
        });
        family(name, help, Kind::Counter, samples.collect())
    });
    let roles = hosts.iter().flat_map(|(host, labels)| {
        let role = place::role(host);
        ROLES.map(|one| {
            let label = ("role", one.to_owned());
            Sample::new(labels, Some(label), f64::from(one == role))
        })
    });
    let roles = family(
        "host_role",
        "1 for the role that the host has.",
        Kind::Gauge,
        roles.collect(),
    );
    let databases = databases(&hosts);
    numbers
        .chain(counters)
        .chain([roles])
        .chain(databases)
        .collect()
}

fn family(name: &'static str, help: &'static str, kind: Kind, samples: Vec<Sample>) -> Metric {
    Metric {
        name: name.into(),
        help: help.into(),
        kind,
        samples,
    }
}

/// What is known of the hosts of a database together.
fn databases(hosts: &[(Arc<HostState>, Arc<[Label]>)]) -> [Metric; 3] {
    let mut seen = BTreeSet::new();
    let homes = hosts.iter().filter_map(|(host, labels)| {
        let shard = labels.iter().find(|(name, _)| *name == "shard")?;
        Some((host.home()?, shard.clone()))
    });
    let homes: Vec<(Arc<DatabaseState>, Label)> = homes
        .filter(|(home, _)| seen.insert(home.name.clone()))
        .collect();
    let splits = homes.iter().map(|(home, shard)| {
        let labels = [("database", home.name.clone()), shard.clone()].into();
        let split = home.writer() == Writer::None(NoPrimary::Split);
        Sample::new(&labels, None, f64::from(split))
    });
    let of_each = |value: fn(&DatabaseState) -> f64| {
        let sample = |(home, _): &(Arc<DatabaseState>, Label)| {
            let labels = [("database", home.name.clone())].into();
            Sample::new(&labels, None, value(home))
        };
        homes.iter().map(sample).collect()
    };
    [
        family(
            "database_primary_known",
            "1 when it is known which host takes writes.",
            Kind::Gauge,
            of_each(|home| f64::from(home.primary().is_some())),
        ),
        family(
            "database_failovers_total",
            "Times the primary was found to be none any more.",
            Kind::Counter,
            of_each(|home| home.epoch() as f64),
        ),
        family(
            "database_split_brain",
            "1 while several hosts say that they are the primary and nothing tells them apart: none of them has the role, and writes are refused.",
            Kind::Gauge,
            splits.collect(),
        ),
    ]
}

/// All hosts, each once, in the order of the pools; those that only guests may come to at the end.
fn hosts(admin: &Admin, pools: &[At]) -> Vec<(Arc<HostState>, Arc<[Label]>)> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    let live = admin.runtime.live();
    let of_pools = pools.iter().filter_map(|at| {
        let host = at.account.pool.host()?.clone();
        let shard = place::shard(&at.account.pool.settings(), &host.address);
        Some((host, shard))
    });
    let entrances = live.entrances.values().flat_map(|of| &of.hosts);
    let of_guests = entrances.map(|at| (at.host.clone(), place::shard(&at.pool, &at.host.address)));
    for (host, shard) in of_pools.chain(of_guests) {
        if seen.insert(host.id) {
            let labels = labels(&host, shard);
            all.push((host, labels));
        }
    }
    all
}

fn labels(host: &HostState, shard: usize) -> Arc<[Label]> {
    let (address, port) = place::of_server(&host.address);
    let text = |value: &crate::table::Value| value.as_text().unwrap_or_default().into_owned();
    [
        ("database", host.database.clone()),
        ("host", text(&address)),
        ("port", text(&port)),
        ("shard", shard.to_string()),
    ]
    .into()
}
