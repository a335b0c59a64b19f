//! `SHOW POOLS`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgdog_backend::ServerState;
use pgdog_session::{Account, ClientHandle, Doing, Identity};

use super::place;
use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW POOLS",
    help: "Pools of server connections, one for each user of each database.",
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
    Column::text("role", "Role of the server as configured."),
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
    Column::bool("banned", "false: a pool has one host."),
    Column::bool(
        "healthy",
        "Whether the last attempt to open a connection did not fail.",
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
        "Clients that do not wait for a server connection.",
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
    Column::int("load_balance_hosts", "Not supported."),
    Column::int(
        "sv_locked",
        "Server connections that clients keep outside of transactions.",
    ),
];

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    // Counted once, not once for each pool.
    let mut active: HashMap<Arc<Identity>, usize> = HashMap::new();
    let clients = admin.runtime.registry.all();
    for client in clients.iter().filter(|c| !waits(c)) {
        *active.entry(client.identity.clone()).or_default() += 1;
    }
    let active = |account: &Account| active.get(&account.identity).copied().unwrap_or(0);
    let accounts = admin.accounts();
    accounts
        .iter()
        .map(|account| row(admin, account, active(account)))
        .collect()
}

fn waits(client: &ClientHandle) -> bool {
    client.doing().0 == Doing::Waiting
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
        false,
        pool.is_reachable(),
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
        Value::Null,
        figures.pinned,
    ]
}
