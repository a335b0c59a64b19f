//! Pools of server connections: sizes, queues, limits over several pools, upkeep, and servers that go away.

mod limits;
mod outages;
mod sizes;
mod upkeep;

use std::thread;
use std::time::{Duration, Instant};

use pgdog_tests::{Database, Postgres, Proxy, ProxyConfig, RawClient};

/// A proxy in transaction mode with this many servers for the user `pgdog`.
fn config(database: &Database<'_>, pool_size: usize) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(pool_size)
        .database(database.name())
        .user("pgdog", "pgdog")
}

/// Runs `work` with this many clients at once; panics when one of them does.
fn with_clients(
    proxy: &Proxy,
    user: &str,
    database: &str,
    count: usize,
    work: impl Fn(&mut RawClient) + Sync,
) {
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut client = proxy.client(user, database);
                work(&mut client);
                client.goodbye();
            });
        }
    });
}

/// How long something takes.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}
