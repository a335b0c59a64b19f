//! Replication connections: streams of a server's own through the proxy, which counts, cancels and ends them.

mod limits;
mod shutdown;
mod tools;

use pgdog_tests::{Frame, Postgres, Proxy, ProxyConfig, RawClient};

fn config(postgres: &Postgres) -> ProxyConfig {
    ProxyConfig::transaction(postgres)
        .pool_size(4)
        .general("shutdown_timeout", "30000")
        .database("postgres")
        .user("pgdog", "pgdog")
}

/// Logs in for logical replication; on failure, what was told last.
fn try_walsender(port: u16) -> Result<RawClient, String> {
    let parameters = [
        ("user", "pgdog"),
        ("database", "postgres"),
        ("replication", "database"),
    ];
    let (client, frames) = RawClient::login_with(port, &parameters)?;
    match frames.last() {
        Some(frame) if frame.tag == b'Z' => Ok(client),
        last => Err(last.map_or_else(|| "closed without a word".to_owned(), Frame::line)),
    }
}

fn walsender(proxy: &Proxy) -> RawClient {
    try_walsender(proxy.port()).expect("a replication connection is let in")
}

/// Replication connections that a Postgres has now.
fn walsenders(postgres: &Postgres) -> String {
    postgres.value(
        "postgres",
        "select count(*) from pg_stat_activity where backend_type = 'walsender'",
    )
}
