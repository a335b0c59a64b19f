//! `SHOW POOLS`.

use std::sync::atomic::Ordering;

use pgdog_backend::ServerState;
use pgdog_session::{Account, ClientHandle, Doing};

use super::place;
use crate::admin::{Admin, pool_key};
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW POOLS",
    help: "Pools of server connections, one for each user of each database at each of its hosts.",
    columns: COLUMNS,
    rows,
};

const COLUMNS: &[Column] = &[
    Column::int("id", "Number of the pool; it stays the same over reloads."),
    Column::text("database", "Database that clients ask for."),
    Column::text("user", "User that clients log in as."),
    Column::text("addr", "Address of the server."),
    Column::int("port", "Port of the server."),
    Column::int("shard", "Number of the shard."),
    Column::text("role", place::ROLE),
    Column::int("cl_waiting", "Clients that wait for a server connection."),
    Column::int("sv_idle", "Server connections that nobody has."),
    Column::int("sv_active", "Server connections that clients have."),
    Column::int(
        "sv_idle_xact",
        "Those of them whose client is idle in a transaction, or keeps them outside of one.",
    ),
    Column::int(
        "sv_total",
        "Server connections open, being opened or being closed.",
    ),
    Column::int(
        "maxwait",
        "Time that the client waits that has waited for longest, whole seconds.",
    ),
    Column::int("maxwait_us", "The microseconds beyond these."),
    Column::text("pool_mode", "When server connections come back."),
    Column::bool(
        "paused",
        "Whether clients wait because of PAUSE, KILL or MAINTENANCE.",
    ),
    Column::bool(
        "banned",
        "Whether the host gets no reads; SHOW BANS tells why.",
    ),
    Column::bool(
        "healthy",
        "Whether the checks of the host pass and the last attempt to open a connection did not fail.",
    ),
    Column::count("errors", "Attempts to open a connection that failed."),
    Column::count("re_synced", "Not counted."),
    Column::count(
        "out_of_sync",
        "Connections that were found broken or closed instead of being used again.",
    ),
    Column::count("force_closed", "Not counted."),
    Column::bool("online", "true: a pool that is listed is in use."),
    Column::bool("schema_admin", "Not supported."),
    Column::int(
        "cl_active",
        "Clients that do not wait for a server connection; those that have none are counted at the first host.",
    ),
    Column::int("cl_active_cancel_req", "0: cancel requests are not queued."),
    Column::int(
        "cl_waiting_cancel_req",
        "0: cancel requests are not queued.",
    ),
    Column::int("sv_active_cancel", "0: cancel requests are not queued."),
    Column::int("sv_being_canceled", "0: cancel requests are not queued."),
    Column::int("sv_used", "0: connections are checked when they are taken."),
    Column::int(
        "sv_tested",
        "0: connections are checked when they are taken.",
    ),
    Column::int("sv_login", "Server connections that are being opened."),
    Column::text(
        "load_balance_hosts",
        "How a host is chosen for a read; NULL where there is one.",
    ),
    Column::int(
        "sv_locked",
        "Server connections that clients keep outside of transactions.",
    ),
];

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    let active = place::clients(admin, &accounts, |client| !waits(client));
    let row = |account| {
        let active = active.get(&pool_key(account)).copied().unwrap_or(0);
        row(admin, account, active)
    };
    accounts.iter().map(|account| row(account)).collect()
}

fn waits(client: &ClientHandle) -> bool {
    client.doing().0 == Doing::Waiting
}

fn is_free(account: &Account) -> bool {
    account.pool.host().is_none_or(|host| host.is_free())
}

fn is_healthy(account: &Account) -> bool {
    account.pool.host().is_none_or(|host| host.is_healthy())
}

fn row(admin: &Admin, account: &Account, active_clients: usize) -> Vec<Value> {
    let pool = &account.pool;
    let figures = pool.figures();
    let target = pool.target();
    let (addr, port) = place::of_server(&target.address);
    let (shard, role) = place::shard_and_role(account);
    let waited = pool.oldest_wait().map_or(0, |since| admin.since(since));
    let (maxwait, maxwait_us) = place::wait(waited);
    let held = |state| state == ServerState::Held;
    let servers = pool.servers();
    let idle_in_transaction = servers.iter().filter(|s| held(s.state().0)).count();
    row![
        admin.pool_id(account),
        account.identity.database.as_str(),
        account.identity.user.as_str(),
        addr,
        port,
        shard,
        role,
        figures.waiting,
        figures.idle,
        figures.active,
        idle_in_transaction,
        pool.connections(),
        maxwait,
        maxwait_us,
        place::mode(pool.mode()),
        pool.is_paused() || pool.is_held(),
        !is_free(account),
        pool.is_reachable() && is_healthy(account),
        pool.stats.connect_errors.load(Ordering::Relaxed),
        Value::Null,
        pool.stats.discards.load(Ordering::Relaxed),
        Value::Null,
        true,
        Value::Null,
        active_clients,
        0u32,
        0u32,
        0u32,
        0u32,
        0u32,
        0u32,
        figures.connecting,
        place::strategy(account),
        figures.pinned,
    ]
}
