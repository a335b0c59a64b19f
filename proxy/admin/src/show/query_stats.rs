//! `SHOW QUERY_STATS`.

use pgdog_session::insight::{Forgotten, QueryRow};

use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW QUERY_STATS",
    help: "Queries without their constants, and what they take; those that took most time first.",
    columns: &[
        Column::text("user", "The clients' user."),
        Column::text("database", "The database that they asked for."),
        Column::text("fingerprint", "Stands for texts that differ in constants."),
        Column::count("calls", "Runs, failed ones among them."),
        Column::count("errors", "Failed runs."),
        Column::text("error_codes", "Failed runs by SQLSTATE."),
        Column::count("rows", "Rows that were returned or changed."),
        Column::count("total_time", "Time of all runs, µs."),
        Column::int("mean_time", "Time of one run on average, µs."),
        Column::int("min_time", "Time of the shortest run, µs."),
        Column::int("max_time", "Time of the longest run, µs."),
        Column::int("p50_time", "Time that half of the runs took at most, µs."),
        Column::int("p99_time", "Time that 99 of 100 runs took at most, µs."),
        Column::text("last_seen", "When it ran last."),
        Column::text(
            "query",
            "The text without constants; in the last row, that others were forgotten.",
        ),
    ],
    rows,
};

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let stats = &admin.runtime.insight;
    let mut rows: Vec<_> = stats.rows().iter().map(|row| known(admin, row)).collect();
    let others = stats.forgotten();
    if others.queries > 0 {
        rows.push(forgotten(&others));
    }
    rows
}

fn known(admin: &Admin, row: &QueryRow) -> Vec<Value> {
    row![
        &*row.user,
        &*row.database,
        format!("{:016x}", row.key.fingerprint),
        row.calls,
        row.errors,
        codes(row),
        row.rows,
        row.total_us,
        row.mean_us(),
        row.min_us,
        row.max_us,
        row.quantile(0.5),
        row.quantile(0.99),
        admin.time(row.last_seen),
        &*row.text,
    ]
}

/// What is left of the others, as one row.
fn forgotten(others: &Forgotten) -> Vec<Value> {
    row![
        Value::Null,
        Value::Null,
        Value::Null,
        others.calls,
        others.errors,
        Value::Null,
        others.rows,
        others.total_us,
        others.total_us / others.calls.max(1),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        format!("/* {} others, forgotten for these */", others.queries),
    ]
}

/// As `22012: 3, 42P01: 1`.
fn codes(row: &QueryRow) -> String {
    let codes = row.codes.iter();
    let codes = codes.map(|(code, count)| format!("{}: {count}", String::from_utf8_lossy(code)));
    codes.collect::<Vec<_>>().join(", ")
}
