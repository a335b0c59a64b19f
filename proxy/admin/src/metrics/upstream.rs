//! The series of PgDog's own exporter, by its names, so that dashboards made for it work here. Their values are those of the
//! views; what is not counted is left out, and so is what this proxy does not have.
//!
//! Some of the names are not what Prometheus' conventions ask for: counters that end in `_count`, or in nothing. Those have no
//! type, which every expression takes. Times are milliseconds, as there.

use std::collections::HashMap;
use std::sync::Arc;

use pgdog_session::Runtime;

use super::{Kind, Label, Metric, Sample};
use crate::admin::Admin;
use crate::show;
use crate::table::{Table, Value};

/// Columns of `SHOW POOLS` that it exports, and how they move.
const POOLS: &[(&str, Kind)] = &[
    ("cl_waiting", Kind::Gauge),
    ("sv_active", Kind::Gauge),
    ("sv_idle", Kind::Gauge),
    ("sv_idle_xact", Kind::Gauge),
    ("sv_locked", Kind::Gauge),
    ("errors", Kind::Untyped),
    ("out_of_sync", Kind::Untyped),
];

/// Figures of `SHOW STATS` that it exports: the name there without `total_` or `avg_`, and its own.
const STATS: &[(&str, &str, Unit)] = &[
    ("xact_count", "xact_count", Unit::Number),
    ("xact_2pc_count", "xact_2pc_count", Unit::Number),
    ("query_count", "query_count", Unit::Number),
    ("received", "received", Unit::Number),
    ("sent", "sent", Unit::Number),
    ("xact_time", "xact_time", Unit::Time),
    ("idle_xact_time", "idle_xact_time", Unit::Time),
    ("query_time", "query_time", Unit::Time),
    ("errors", "server_errors", Unit::Number),
    ("cleaned", "cleaned", Unit::Number),
    ("rollbacks", "rollbacks", Unit::Number),
    ("connect_time", "connect_time", Unit::Time),
    ("connect_count", "connect_count", Unit::Number),
    ("reads", "reads", Unit::Number),
    ("writes", "writes", Unit::Number),
    ("auth_attempts", "auth_attempts", Unit::Number),
    ("rows_inserted", "rows_inserted", Unit::Number),
    ("rows_updated", "rows_updated", Unit::Number),
    ("rows_deleted", "rows_deleted", Unit::Number),
];

/// What a figure of `SHOW STATS` is.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Number,
    /// Microseconds in the view.
    Time,
}

impl Unit {
    fn convert(self, value: f64) -> f64 {
        match self {
            Self::Number => value,
            Self::Time => value / 1e3,
        }
    }
}

pub(super) fn metrics(admin: &Admin) -> Vec<Metric> {
    let pools = show::pools::SHOW.table(admin);
    let stats = show::stats::SHOW.table(admin);
    let mut all = process(admin);
    all.push(sizes(admin, &pools));
    let of_pools = POOLS.iter().filter_map(|(column, kind)| {
        let value = |row: &[Value]| field(&pools, row, column);
        family(&pools, (column, column), *kind, value)
    });
    all.extend(of_pools);
    let waits = |row: &[Value]| {
        let micros = field(&pools, row, "maxwait_us")?;
        Some(field(&pools, row, "maxwait")? + micros / 1e6)
    };
    all.extend(family(&pools, ("maxwait", "maxwait"), Kind::Gauge, waits));
    for (column, name, unit) in STATS {
        for prefix in ["total_", "avg_"] {
            let (column, name) = (format!("{prefix}{column}"), format!("{prefix}{name}"));
            let value = |row: &[Value]| field(&stats, row, &column).map(|v| unit.convert(v));
            all.extend(family(&stats, (&column, &name), Kind::Untyped, value));
        }
    }
    all
}

/// Figures without labels.
fn process(admin: &Admin) -> Vec<Metric> {
    let runtime = &admin.runtime;
    let clients = runtime.registry.all();
    let pinned = clients.iter().filter(|c| c.is_pinned()).count();
    let prepared = show::prepared::SHOW.table(admin);
    let memory = prepared.rows.iter();
    let memory = memory.filter_map(|row| field(&prepared, row, "memory_used"));
    let gauge = |name, help, value| Metric::single(name, help, Kind::Gauge, value);
    let mut all = vec![
        gauge(
            "clients_locked",
            "Clients that keep a server connection outside of transactions. PgDog's name.",
            pinned as f64,
        ),
        gauge(
            "prepared_statements",
            "Prepared statements that clients share. PgDog's name.",
            prepared.rows.len() as f64,
        ),
        gauge(
            "prepared_statements_memory_used",
            "Memory of these statements, bytes. PgDog's name.",
            memory.sum(),
        ),
    ];
    let planned = runtime.planner.counters();
    let counter = |name, help, value| Metric::single(name, help, Kind::Untyped, value);
    all.extend([
        gauge(
            "query_cache_limit",
            "Most queries that are remembered with their route. PgDog's name.",
            Runtime::PLANS as f64,
        ),
        gauge(
            "query_cache_size",
            "Queries that are remembered with their route. PgDog's name.",
            runtime.planner.len() as f64,
        ),
        counter(
            "query_cache_hits",
            "Query strings whose route was known. PgDog's name.",
            planned.hits as f64,
        ),
        counter(
            "query_cache_misses",
            "Query strings that had to be parsed. PgDog's name.",
            planned.misses as f64,
        ),
        counter(
            "query_cache_parse_time",
            "Time that parsing them took, ms. PgDog's name.",
            planned.parse_nanoseconds as f64 / 1e6,
        ),
    ]);
    // There is none by default.
    if let Some(limit) = runtime.live().settings.prepared_limit {
        all.push(gauge(
            "prepared_statements_limit",
            "Most prepared statements of one server connection. PgDog's name.",
            limit as f64,
        ));
    }
    all
}

/// The sizes of the pools.
fn sizes(admin: &Admin, pools: &Table) -> Metric {
    let accounts = admin.accounts();
    let sizes: HashMap<i64, u32> = accounts
        .iter()
        .map(|account| (admin.pool_id(account), account.pool.settings().size))
        .collect();
    let sample = |row: &Vec<Value>| {
        let Some(Value::Int(id)) = cell(pools, row, "id") else {
            return None;
        };
        let size = sizes.get(id)?;
        Some(Sample::new(&labels(pools, row), None, f64::from(*size)))
    };
    Metric {
        name: "max_connections".into(),
        help: "Most server connections of the pool. PgDog's name.".into(),
        kind: Kind::Gauge,
        samples: pools.rows.iter().filter_map(sample).collect(),
    }
}

/// A figure of each row, under its own name; `None` when there is no such column.
fn family(
    table: &Table,
    (column, name): (&str, &str),
    kind: Kind,
    value: impl Fn(&[Value]) -> Option<f64>,
) -> Option<Metric> {
    let help = table.columns.iter().find(|c| c.name == column)?.help;
    let sample = |row: &Vec<Value>| Some(Sample::new(&labels(table, row), None, value(row)?));
    Some(Metric {
        name: name.to_owned().into(),
        // The views say microseconds.
        help: format!("{} PgDog's name.", help.replace("µs", "ms")).into(),
        kind,
        samples: table.rows.iter().filter_map(sample).collect(),
    })
}

fn cell<'a>(table: &Table, row: &'a [Value], column: &str) -> Option<&'a Value> {
    let at = table.columns.iter().position(|c| c.name == column)?;
    row.get(at)
}

fn field(table: &Table, row: &[Value], column: &str) -> Option<f64> {
    cell(table, row, column)?.as_number()
}

fn word(table: &Table, row: &[Value], column: &str) -> String {
    let value = cell(table, row, column).and_then(Value::as_text);
    value.unwrap_or_default().into_owned()
}

/// The labels as PgDog has them, and in its order.
fn labels(table: &Table, row: &[Value]) -> Arc<[Label]> {
    let label = |(label, column)| (label, word(table, row, column));
    [
        ("user", "user"),
        ("database", "database"),
        ("host", "addr"),
        ("port", "port"),
        ("shard", "shard"),
        ("role", "role"),
    ]
    .map(label)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(show: &crate::command::Show) -> Vec<&'static str> {
        show.columns.iter().map(|c| c.name).collect()
    }

    #[test]
    fn every_series_has_a_column_behind_it() {
        let (pools, stats) = (names(&show::pools::SHOW), names(&show::stats::SHOW));
        for (column, _) in POOLS {
            assert!(pools.contains(column), "{column}");
        }
        for (column, ..) in STATS {
            for prefix in ["total_", "avg_"] {
                assert!(stats.contains(&&*format!("{prefix}{column}")), "{column}");
            }
        }
    }

    #[test]
    fn what_is_not_counted_is_left_out_and_times_are_milliseconds() {
        let columns = show::stats::SHOW.columns;
        let mut row = vec![Value::Null; columns.len()];
        let at = columns.iter().position(|c| c.name == "total_query_time");
        row[at.unwrap()] = Value::Int(2500);
        let table = Table {
            columns,
            rows: vec![row],
        };
        let of = |column: &str, unit: Unit| {
            let value = |row: &[Value]| field(&table, row, column).map(|v| unit.convert(v));
            let family = family(&table, (column, column), Kind::Untyped, value);
            family.unwrap().samples.len()
        };
        assert_eq!(of("total_query_time", Unit::Time), 1);
        assert_eq!(of("total_reads", Unit::Number), 0);
        assert!((Unit::Time.convert(2500.0) - 2.5).abs() < f64::EPSILON);
    }
}
