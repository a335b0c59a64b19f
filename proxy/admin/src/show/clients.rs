//! `SHOW CLIENTS`.

use pgdog_backend::Value as Setting;
use pgdog_session::{ClientHandle, ClientKind, Doing};

use super::place;
use crate::admin::Admin;
use crate::command::Show;
use crate::row;
use crate::table::{Column, Value};

pub(crate) const SHOW: Show = Show {
    name: "SHOW CLIENTS",
    help: "Clients that are logged in, those on this console among them.",
    columns: COLUMNS,
    rows,
};

const COLUMNS: &[Column] = &[
    Column::int(
        "id",
        "Number of the client, for KILL_CLIENT; also in its cancel key.",
    ),
    Column::text("user", "User that it logged in as."),
    Column::text("database", "Database that it asked for."),
    Column::text("addr", "Its address, or unix."),
    Column::int("port", "Its port."),
    Column::text(
        "state",
        "idle, active, idle in transaction, or waiting for a server connection.",
    ),
    Column::text(
        "replication",
        "none, or replication for a replication connection.",
    ),
    Column::text("connect_time", "When it logged in."),
    Column::text("last_request", "Since when it is in its state."),
    Column::count("queries", "Queries that were answered."),
    Column::count("transactions", "Transactions that ended."),
    Column::count(
        "transactions_2pc",
        "Transactions in two phases; there are none yet.",
    ),
    Column::count(
        "wait_time",
        "Time that it waited for server connections, µs.",
    ),
    Column::count("query_time", "Time in which its queries ran, µs."),
    Column::count("transaction_time", "Time of its transactions, µs."),
    Column::count("bytes_received", "Bytes from it."),
    Column::count("bytes_sent", "Bytes to it."),
    Column::count("errors", "Errors that it was told."),
    Column::text("application_name", "What it calls itself."),
    Column::bool(
        "locked",
        "Whether it keeps a server connection outside of transactions.",
    ),
    Column::int("prepared_statements", "Prepared statements that it has."),
    Column::text("type", "C."),
    Column::text("local_addr", "Not known."),
    Column::int("local_port", "Not known."),
    Column::text("request_time", "As last_request."),
    Column::int(
        "wait",
        "Time that it has been waiting for a server connection, whole seconds.",
    ),
    Column::int("wait_us", "The microseconds beyond these."),
    Column::int("close_needed", "0."),
    Column::text("ptr", "What the link of a server connection says."),
    Column::text("link", "The ptr of the server connection that it has."),
    Column::int(
        "remote_pid",
        "Process id of the server connection that it has.",
    ),
    Column::text("tls", "TLS when its connection is encrypted."),
];

/// What a client does, in words.
pub(crate) fn state(client: &ClientHandle) -> &'static str {
    match client.doing().0 {
        Doing::Idle => "idle",
        Doing::Active => "active",
        Doing::IdleInTransaction => "idle in transaction",
        Doing::Waiting => "waiting",
    }
}

/// What a client calls itself.
fn application_name(client: &ClientHandle) -> Option<String> {
    match client.params().get("application_name")? {
        Setting::Plain(name) => Some(name.to_string()),
        _ => None,
    }
}

fn rows(admin: &Admin) -> Vec<Vec<Value>> {
    let links = place::links(admin);
    let mut clients = admin.runtime.registry.all();
    clients.sort_by_key(|c| (c.connected, c.pid));
    let row = |client: &ClientHandle| {
        let (addr, port) = place::of_client(client.peer);
        let (doing, since) = client.doing();
        let waited = match doing {
            Doing::Waiting => admin.since(since),
            _ => 0,
        };
        let (wait, wait_us) = place::wait(waited);
        let counters = &client.counters;
        let link = links.get(&client.pid);
        let replication = client.kind == ClientKind::Replication;
        row![
            client.pid,
            client.identity.user.as_str(),
            client.identity.database.as_str(),
            addr,
            port,
            state(client),
            if replication { "replication" } else { "none" },
            admin.time(client.connected),
            admin.time(since),
            counters.queries.get(),
            counters.transactions.get(),
            0u32,
            counters.wait_time.get() / 1000,
            counters.query_time.get() / 1000,
            counters.transaction_time.get() / 1000,
            counters.received.get(),
            counters.sent.get(),
            counters.errors.get(),
            application_name(client).unwrap_or_default(),
            client.is_pinned(),
            client.prepared.load(std::sync::atomic::Ordering::Relaxed),
            "C",
            Value::Null,
            Value::Null,
            admin.time(since),
            wait,
            wait_us,
            0u32,
            place::client_pointer(client.pid),
            link.map_or_else(String::new, |s| place::server_pointer(s)),
            link.map(|s| s.remote_pid),
            if client.tls { "TLS" } else { "" },
        ]
    };
    clients.iter().map(|c| row(c)).collect()
}
