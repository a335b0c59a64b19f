//! `SHOW SERVERS`.

use std::sync::atomic::Ordering;

use pgdog_backend::{ServerHandle, ServerState};
use pgdog_session::Account;

use super::place;
use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW SERVERS",
    help: "Server connections.",
    columns: COLUMNS,
    rows,
};

const COLUMNS: &[Column] = &[
    Column::int("pool_id", "The id of its pool."),
    Column::text("database", "Database of its pool."),
    Column::text("user", "User of its pool."),
    Column::text("addr", "Address of the server."),
    Column::int("port", "Port of the server."),
    Column::text(
        "state",
        "idle, active, or idle in transaction while a client keeps it.",
    ),
    Column::text("connect_time", "When it was opened."),
    Column::text("request_time", "Since when it is in its state."),
    Column::int("remote_pid", "Process id on the server."),
    Column::int("client_id", "The id of the client that has it."),
    Column::count("transactions", "Transactions that ended on it."),
    Column::count("queries", "Queries that it answered."),
    Column::count("rollbacks", "Not counted."),
    Column::int("prepared_statements", "Statements that it has prepared."),
    Column::count("healthchecks", "Not counted."),
    Column::count("errors", "Errors that it gave."),
    Column::count("bytes_received", "Bytes that its clients sent to it."),
    Column::count("bytes_sent", "Bytes that its clients were sent."),
    Column::text("last_sent", "Not known."),
    Column::text("last_received", "Not known."),
    Column::int("age", "Time since it was opened, s."),
    Column::text("application_name", "Not known."),
    Column::text("type", "S."),
    Column::text("replication", "none."),
    Column::text("local_addr", "Not known."),
    Column::int("local_port", "Not known."),
    Column::int("wait", "0."),
    Column::int("wait_us", "0."),
    Column::int(
        "close_needed",
        "1 when it is from before a RECONNECT, and is closed when it comes back.",
    ),
    Column::text("ptr", "What the link of a client says."),
    Column::text("link", "The ptr of the client that has it."),
    Column::text("tls", "TLS when the connection is encrypted."),
    Column::int("id", "As remote_pid."),
];

/// What a server connection does, in words.
pub(crate) fn state(server: &ServerHandle) -> &'static str {
    match server.state().0 {
        ServerState::Idle => "idle",
        ServerState::Active => "active",
        ServerState::Held => "idle in transaction",
    }
}

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let accounts = admin.accounts();
    let of_pool = |account: &Account| {
        let newest = account.pool.generation();
        let servers = account.pool.servers();
        let row = |server: &ServerHandle| row(admin, account, server, newest);
        servers.iter().map(|s| row(s)).collect::<Vec<_>>()
    };
    accounts.iter().flat_map(|a| of_pool(a)).collect()
}

fn row(admin: &Admin, account: &Account, server: &ServerHandle, newest: u64) -> Vec<Value> {
    let (addr, port) = place::of_server(&server.address);
    let (_, since) = server.state();
    let client = server.client();
    row![
        admin.pool_id(account),
        account.identity.database.as_str(),
        account.identity.user.as_str(),
        addr,
        port,
        state(server),
        admin.time(server.opened),
        admin.time(since),
        server.remote_pid,
        client,
        server.transactions.get(),
        server.queries.get(),
        Value::Null,
        server.prepared.load(Ordering::Relaxed),
        Value::Null,
        server.errors.get(),
        server.received.get(),
        server.sent.get(),
        Value::Null,
        Value::Null,
        admin.since(server.opened) / 1000,
        Value::Null,
        "S",
        "none",
        Value::Null,
        Value::Null,
        0u32,
        0u32,
        u32::from(server.generation < newest),
        place::server_pointer(server),
        client.map_or_else(String::new, place::client_pointer),
        if server.tls { "TLS" } else { "" },
        server.remote_pid,
    ]
}
