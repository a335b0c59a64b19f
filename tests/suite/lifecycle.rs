//! The life of the process: start, reload, shutdown, and its other commands.

mod commands;
mod logs;
mod reload;
mod shutdown;
mod sockets;

use pgdog_tests::{Database, Postgres, ProxyConfig};

fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(4)
        .database(database.name())
        .user("pgdog", "pgdog")
}
