//! `SHOW STATS` and its relatives: what pools have done since they were made, and within the last `stats_period`.

use pgdog_backend::stats::Totals;

use super::place;
use crate::admin::Admin;
use crate::averages::Period;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

/// What an average is taken over.
#[derive(Debug, Clone, Copy)]
enum Per {
    Second,
    Transaction,
    Query,
    Connection,
}

/// A counter in the views.
#[derive(Debug)]
struct Stat {
    /// Its name in `SHOW TOTALS`.
    total: &'static str,
    average: &'static str,
    /// `None` is a counter that is not kept.
    value: Option<fn(&Totals) -> u64>,
    per: Per,
}

const US: u64 = 1000;

macro_rules! stats {
    ($($name:ident, $per:ident, $value:expr, $help:literal;)*) => {
        const STATS: &[Stat] = &[$(Stat {
            total: concat!("total_", stringify!($name)),
            average: concat!("avg_", stringify!($name)),
            value: $value,
            per: Per::$per,
        }),*];
        const COLUMNS: &[Column] = &[
            Column::text("database", "Database that clients ask for."),
            Column::text("user", "User that clients log in as."),
            Column::text("addr", "Address of the server."),
            Column::int("port", "Port of the server."),
            Column::int("shard", "Number of the shard."),
            Column::text("role", place::ROLE),
            $(Column::count(concat!("total_", stringify!($name)), $help),)*
            $(Column::int(concat!("avg_", stringify!($name)), concat!("Average over stats_period. ", $help)),)*
        ];
        const BY_DATABASE: &[Column] = &[
            Column::text("database", "Database that clients ask for."),
            $(Column::count(stringify!($name), $help),)*
        ];
        const AVERAGES: &[Column] = &[
            Column::text("database", "Database that clients ask for."),
            $(Column::int(stringify!($name), concat!("Average over stats_period. ", $help)),)*
        ];
    };
}

stats! {
    xact_count, Second, Some(|t| t.transactions), "Transactions that ended.";
    xact_2pc_count, Second, None, "Not counted: there is no two-phase commit yet.";
    query_count, Second, Some(|t| t.queries), "Queries that were answered.";
    server_assignment_count, Second, Some(|t| t.assignments), "Times a client was given a server connection.";
    received, Second, Some(|t| t.received), "Bytes from clients.";
    sent, Second, Some(|t| t.sent), "Bytes to clients.";
    xact_time, Transaction, Some(|t| t.transaction_time.sum / US), "Time of transactions, waiting included, µs.";
    idle_xact_time, Transaction, Some(|t| t.idle_in_transaction / US), "Time that clients were idle in a transaction, µs.";
    query_time, Query, Some(|t| t.query_time.sum / US), "Time in which queries ran, µs.";
    wait_time, Second, Some(|t| t.wait_time.sum / US), "Time that clients waited for a server connection, µs.";
    server_parse_count, Second, None, "Not counted.";
    bind_count, Second, Some(|t| t.binds), "Bind messages of clients.";
    close_count, Second, Some(|t| t.closes), "Close messages of clients.";
    errors, Second, Some(|t| t.errors), "Errors that clients were told.";
    cleaned, Second, None, "Not counted.";
    rollbacks, Second, None, "Not counted.";
    connect_time, Connection, Some(|t| t.connect_time.sum / US), "Time that opening server connections took, µs.";
    connect_count, Second, Some(|t| t.connect_time.count()), "Server connections that were opened.";
    reads, Second, None, "Not counted.";
    writes, Second, None, "Not counted.";
    auth_attempts, Second, None, "Not counted.";
    rows_inserted, Second, Some(|t| t.rows_inserted), "Rows inserted, as the servers tell it.";
    rows_updated, Second, Some(|t| t.rows_updated), "Rows updated.";
    rows_deleted, Second, Some(|t| t.rows_deleted), "Rows deleted.";
    client_parse_count, Second, Some(|t| t.parses), "Parse messages of clients.";
}

pub(crate) const SHOW: Show = Show {
    name: "SHOW STATS",
    help: "Totals of each pool since it was made, and averages over the last stats_period: per second, those of times per transaction or query.",
    columns: COLUMNS,
    rows,
};

pub(crate) const TOTALS_BY_DATABASE: Show = Show {
    name: "SHOW STATS_TOTALS",
    help: "The totals of SHOW STATS for each database.",
    columns: BY_DATABASE,
    rows: |admin| by_database(admin, Stat::total),
};

pub(crate) const AVERAGES_BY_DATABASE: Show = Show {
    name: "SHOW STATS_AVERAGES",
    help: "The averages of SHOW STATS for each database.",
    columns: AVERAGES,
    rows: |admin| by_database(admin, Stat::average),
};

pub(crate) const TOTALS: Show = Show {
    name: "SHOW TOTALS",
    help: "The totals and averages of SHOW STATS over all pools.",
    columns: &[
        Column::text("name", "Name of the figure, as in SHOW STATS."),
        Column::int("value", "The figure."),
    ],
    rows: totals,
};

/// The counters of one or more pools.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    now: Totals,
    period: Period,
}

impl Figures {
    fn add(&mut self, other: &Self) {
        self.now.add(&other.now);
        self.period.before.add(&other.period.before);
        self.period.after.add(&other.period.after);
        self.period.seconds = self.period.seconds.max(other.period.seconds);
    }
}

impl Stat {
    fn total(&self, figures: &Figures) -> Value {
        self.value.map(|value| value(&figures.now)).into()
    }

    fn average(&self, figures: &Figures) -> Value {
        let Period {
            before,
            after,
            seconds,
        } = &figures.period;
        let grown = |value: fn(&Totals) -> u64| value(after).saturating_sub(value(before)) as f64;
        let over = match self.per {
            Per::Second => *seconds,
            Per::Transaction => grown(|t| t.transactions),
            Per::Query => grown(|t| t.queries),
            Per::Connection => grown(|t| t.connect_time.count()),
        };
        let average = |value| match over {
            0.0 => 0.0,
            over => grown(value) / over,
        };
        self.value.map(|v| average(v).round() as i64).into()
    }
}

/// The counters of each pool, with its database.
fn figures(admin: &Admin) -> Vec<(std::sync::Arc<pgdog_session::Account>, Figures)> {
    let figures = |account: std::sync::Arc<pgdog_session::Account>| {
        let figures = Figures {
            now: account.pool.counters.totals(),
            period: admin.period(&account),
        };
        (account, figures)
    };
    admin.accounts().into_iter().map(figures).collect()
}

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let row = |(account, figures): (std::sync::Arc<pgdog_session::Account>, Figures)| {
        let target = account.pool.target();
        let (addr, port) = place::of_server(&target.address);
        let (shard, role) = place::shard_and_role(&account);
        let mut row = row![
            account.identity.database.as_str(),
            account.identity.user.as_str(),
            addr,
            port,
            shard,
            role,
        ];
        row.extend(STATS.iter().map(|s| s.total(&figures)));
        row.extend(STATS.iter().map(|s| s.average(&figures)));
        row
    };
    figures(admin).into_iter().map(row).collect()
}

fn by_database(admin: &Admin, value: fn(&Stat, &Figures) -> Value) -> Vec<Vec<Value>> {
    let figures = figures(admin);
    figures
        .chunk_by(|(a, _), (b, _)| a.identity.database == b.identity.database)
        .map(|of| {
            let mut sum = Figures::default();
            of.iter().for_each(|(_, figures)| sum.add(figures));
            let mut row = row![of[0].0.identity.database.as_str()];
            row.extend(STATS.iter().map(|s| value(s, &sum)));
            row
        })
        .collect()
}

fn totals(admin: &Admin) -> Vec<Vec<Value>> {
    let mut sum = Figures::default();
    figures(admin).iter().for_each(|(_, f)| sum.add(f));
    let totals = STATS.iter().map(|s| row![s.total, s.total(&sum)]);
    let averages = STATS.iter().map(|s| row![s.average, s.average(&sum)]);
    totals.chain(averages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str) -> &'static Stat {
        STATS.iter().find(|s| s.total == name).unwrap()
    }

    #[test]
    fn averages_are_per_second_and_those_of_times_per_query() {
        let mut figures = Figures::default();
        figures.period.before.queries = 10;
        figures.period.after.queries = 30;
        figures.period.after.query_time.sum = 60_000;
        figures.period.seconds = 4.0;
        assert_eq!(stat("total_query_count").average(&figures), Value::Int(5));
        assert_eq!(stat("total_query_time").average(&figures), Value::Int(3));
        assert_eq!(stat("total_xact_time").average(&figures), Value::Int(0));
        assert_eq!(stat("total_reads").average(&figures), Value::Null);
    }

    #[test]
    fn the_pools_of_a_database_add_up() {
        let mut one = Figures::default();
        one.now.queries = 2;
        one.period.seconds = 1.0;
        let mut sum = Figures::default();
        sum.add(&one);
        sum.add(&one);
        assert_eq!(stat("total_query_count").total(&sum), Value::Int(4));
        assert!((sum.period.seconds - 1.0).abs() < f64::EPSILON);
    }
}
