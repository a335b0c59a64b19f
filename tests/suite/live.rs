//! A configuration that changes while the proxy runs: pushes by HTTP, files, and what a restart remembers.

mod access;
mod budget;
mod files;
mod fleet;
mod health;
mod modes;
mod peers;
mod push;
mod schema;
mod state;
mod storm;

use pgdog_tests::{Database, Http, Postgres, Proxy, ProxyConfig};
use serde_json::{Value, json};

/// A proxy of one database and the user `pgdog`, with the admin API.
fn config(database: &Database<'_>) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(4)
        .database(database.name())
        .user("pgdog", "pgdog")
}

/// Adds a user of the database that the server knows as `pgdog`.
fn also(config: ProxyConfig, user: &str, database: &Database<'_>) -> ProxyConfig {
    config.append_users(&format!(
        "[[users]]\nname = \"{user}\"\ndatabase = \"{}\"\npassword = \"x\"\nserver_user = \"pgdog\"\nserver_password = \"pgdog\"",
        database.name()
    ))
}

/// Adds the admin API, and more keys of `[admin]`.
fn with_admin(config: ProxyConfig, more: &str) -> ProxyConfig {
    config.append(&format!("[admin]\nhttp_port = 0\n{more}"))
}

fn admin(proxy: &Proxy) -> Http {
    Http::new(proxy.http_port("admin.http_port"))
}

fn envelope(epoch: u64, revision: u64, config: &Value) -> Value {
    json!({ "epoch": epoch, "revision": revision, "config": config })
}

/// Settings with some users (name and password alike) of one database.
fn settings(database: &Database<'_>, users: &[&str]) -> Value {
    let users: Vec<Value> = users
        .iter()
        .map(|name| {
            json!({
                "name": name, "database": database.name(), "password": name,
                "server_user": "pgdog", "server_password": "pgdog",
            })
        })
        .collect();
    json!({
        "general": {
            "auth_type": "trust", "default_pool_size": 4, "min_pool_size": 0,
        },
        "users": users,
    })
}

/// A topology of one database that is another one on the server.
fn topology(database: &Database<'_>, on_server: &str) -> Value {
    json!({
        "databases": [{
            "name": database.name(), "host": "127.0.0.1", "port": Postgres::shared().port(),
            "database_name": on_server,
        }],
    })
}

fn logs_in(proxy: &Proxy, user: &str, database: &Database<'_>) -> bool {
    pgdog_tests::RawClient::try_login(proxy.port(), user, database.name()).is_ok()
}
