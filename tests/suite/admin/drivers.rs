//! A driver that prepares everything and wants all values in binary: tokio-postgres.

use std::time::Duration;

use pgdog_tests::{Postgres, Proxy};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use super::{PASSWORD, config};

async fn connect(proxy: &Proxy) -> Client {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(proxy.port())
        .user("admin")
        .password(PASSWORD)
        .dbname("admin")
        .connect_timeout(Duration::from_secs(10));
    let (client, connection) = config.connect(NoTls).await.expect("it is let in");
    tokio::spawn(connection);
    client
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts");
    let limit = Duration::from_secs(60);
    let done = runtime.block_on(async { tokio::time::timeout(limit, test).await });
    done.expect("the test ends in time");
}

#[test]
fn tokio_postgres_reads_views_in_binary_and_runs_commands() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database).general("auth_type", "\"scram\""));
    run(async {
        let mut client = connect(&proxy).await;
        let rows = client.query("SHOW POOLS", &[]).await.expect("a view");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].get::<_, String>("database"), database.name());
        assert_eq!(rows[0].get::<_, i64>("sv_total"), 0);
        assert!(!rows[0].get::<_, bool>("paused"));
        assert_eq!(rows[0].get::<_, Option<i64>>("re_synced"), None);
        let stats = client.query("SHOW STATS", &[]).await.expect("a view");
        assert_eq!(stats[0].get::<_, i64>("total_query_count"), 0);
        let checks = client.query("HEALTHCHECK", &[]).await.expect("rows");
        assert!(checks[0].get::<_, f64>("latency") > 0.0);
        assert!(checks[0].get::<_, bool>("healthy"));
        let transaction = client.transaction().await.expect("begin");
        transaction.execute("PAUSE", &[]).await.expect("a command");
        transaction.commit().await.expect("commit");
        client
            .batch_execute("RESUME; SHOW VERSION")
            .await
            .expect("a string of commands");
        let error = client.query("SELECT * FROM pg_class", &[]).await;
        let error = error.expect_err("no queries");
        assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
        let one = client.query_one("SELECT 1", &[]).await.expect("a probe");
        assert_eq!(one.get::<_, i64>(0), 1);
    });
}
