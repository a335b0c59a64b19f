//! `SHOW REPLICATION`.

use std::sync::atomic::Ordering;

use pgdog_backend::HostState;
use pgdog_session::Account;

use super::place;
use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW REPLICATION",
    help: "Hosts as they were found at the last look: role, position and lag; databases with one host are not looked at.",
    columns: &[
        Column::int("id", "Number of the pool, as in SHOW POOLS."),
        Column::text("database", "Database that clients ask for."),
        Column::text("user", "User that clients log in as."),
        Column::text("addr", "Address of the server."),
        Column::int("port", "Port of the server."),
        Column::int("shard", "Number of the shard."),
        Column::text("role", place::ROLE),
        Column::int(
            "replica_lag",
            "For how long it has not replayed what there is to replay, ms; 0 on the primary.",
        ),
        Column::text(
            "pg_lsn",
            "Position in the log: replayed, or on a primary inserted.",
        ),
        Column::int("lsn_age", "Time since the last look that succeeded, ms."),
        Column::bool(
            "pg_is_in_recovery",
            "Whether it was in recovery, as a replica is.",
        ),
        Column::int(
            "replica_lag_bytes",
            "How much of the log it has not replayed, bytes.",
        ),
        Column::int("timeline", "Its timeline."),
        Column::int("latency_us", "Its average latency, µs."),
        Column::bool("healthy", "Whether its checks pass."),
        Column::bool("banned", "Whether it gets no reads."),
        Column::int(
            "weight",
            "Its share of reads where hosts are chosen by weight.",
        ),
        Column::text("zone", "Where it is."),
        Column::count("checks", "Checks and looks."),
        Column::count("failed_checks", "Those that failed."),
    ],
    rows,
};

/// A position as PostgreSQL writes it.
fn position(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)
}

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    let of = |account: &Account| Some(row(admin, account, account.pool.host()?));
    accounts.iter().filter_map(|account| of(account)).collect()
}

fn row(admin: &Admin, account: &Account, host: &HostState) -> Vec<Value> {
    let (addr, port) = place::of_server(&host.address);
    let (shard, role) = place::shard_and_role(account);
    // A host that was never looked at has neither.
    let known = |number: u64| Some(number).filter(|n| *n != 0);
    row![
        admin.pool_id(account),
        account.identity.database.as_str(),
        account.identity.user.as_str(),
        addr,
        port,
        shard,
        role,
        host.lag_ms(),
        known(host.lsn()).map(position),
        host.seen().map(|at| admin.since(at)),
        host.in_recovery(),
        host.lag_bytes(),
        known(host.timeline().into()),
        known(host.latency().into()),
        host.is_healthy(),
        !host.is_free(),
        u32::from(host.weight()),
        host.zone(),
        host.counters.probes.load(Ordering::Relaxed),
        host.counters.failed_probes.load(Ordering::Relaxed),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_writes_them() {
        assert_eq!(position(0x1_0300_0060), "1/3000060");
    }
}
