//! The Rust drivers through transaction mode, with fewer servers than clients. Those of other languages: `tests/drivers/run`.

mod sqlx_driver;
mod tokio_postgres_driver;

use std::future::Future;
use std::time::Duration;

use pgdog_tests::{Postgres, PostgresOptions, Proxy, ProxyConfig};

/// A test of a driver takes no longer than this.
const LIMIT: Duration = Duration::from_secs(60);

/// A Postgres of its own, and the proxy in front of it with three servers for each of the users `scram`, `md5` and `trust`.
struct Stage {
    postgres: Postgres,
    proxy: Proxy,
}

impl Stage {
    /// `None` where PostgreSQL is not installed.
    fn set() -> Option<Self> {
        if !Postgres::installed() {
            return None;
        }
        let options = PostgresOptions::default()
            .hba("host all scram 127.0.0.1/32 scram-sha-256")
            .hba("host all md5 127.0.0.1/32 md5");
        let postgres = Postgres::start(&options);
        postgres.run(
            "postgres",
            "create role scram superuser login password 'secret'",
        );
        postgres.run(
            "postgres",
            "set password_encryption = 'md5'; create role md5 superuser login password 'secret'",
        );
        postgres.run("postgres", "create role trust superuser login");
        let mut config = ProxyConfig::transaction(&postgres)
            .database("postgres")
            .pool_size(3)
            .general("connect_attempts", "5");
        for auth in ["scram", "md5", "trust"] {
            let password = if auth == "trust" {
                ""
            } else {
                "password = \"secret\"\n"
            };
            config = config.append_users(&format!("[[users]]\nname = \"{auth}\"\ndatabase = \"postgres\"\nauth_type = \"{auth}\"\n{password}"));
        }
        let proxy = Proxy::start(&config);
        Some(Self { postgres, proxy })
    }

    fn port(&self) -> u16 {
        self.proxy.port()
    }
}

/// Runs a test's future on a runtime of its own.
fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let done = runtime.block_on(async { tokio::time::timeout(LIMIT, test).await });
    done.expect("the test ends in time");
}
