//! tokio-postgres: everything pipelined, every statement prepared.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls};

use super::{Stage, run};

fn config(stage: &Stage, user: &str) -> Config {
    let mut config = Config::new();
    config
        .host("127.0.0.1")
        .port(stage.port())
        .user(user)
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(10));
    if user != "trust" {
        config.password("secret");
    }
    config
}

async fn open(config: &Config) -> Result<(Client, mpsc::UnboundedReceiver<String>), Error> {
    let (client, mut connection) = config.connect(NoTls).await?;
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(n) = message {
                send.send(n.payload().to_owned()).ok();
            }
        }
    });
    Ok((client, receive))
}

async fn connect(stage: &Stage) -> Client {
    open(&config(stage, "scram"))
        .await
        .expect("the login is right")
        .0
}

async fn several(stage: &Stage, count: usize) -> Vec<Client> {
    future::join_all((0..count).map(|_| connect(stage))).await
}

async fn text(client: &Client, query: &str) -> String {
    client
        .query_one(query, &[])
        .await
        .expect("the query is right")
        .get(0)
}

#[test]
fn tokio_postgres_logs_in_by_every_method() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        for user in ["scram", "md5", "trust"] {
            let (client, _) = open(&config(&stage, user))
                .await
                .expect("the login is right");
            assert_eq!(text(&client, "select current_user::text").await, user);
        }
        for user in ["scram", "md5"] {
            let result = open(config(&stage, user).password("wrong")).await;
            let error = result.map(drop).expect_err("the password is wrong");
            assert_eq!(error.code(), Some(&SqlState::INVALID_PASSWORD));
        }
    });
}

#[test]
fn tokio_postgres_statements_and_pipelines_of_interleaved_clients_keep_to_themselves() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let mut clients = several(&stage, 8).await;
        let work = clients
            .iter_mut()
            .enumerate()
            .map(|(at, client)| async move {
                let at = i32::try_from(at).expect("few");
                let statement = client
                    .prepare(&format!("select $1::int4 * 1000 + {at}"))
                    .await
                    .expect("it prepares");
                for round in 0..20 {
                    // Fifty queries are sent before the first is answered.
                    let numbers: Vec<i32> = (0..50).collect();
                    let queries = numbers.iter().map(|n| {
                        let parameters: [&(dyn ToSql + Sync); 1] = [n];
                        let (client, statement) = (&*client, &statement);
                        async move { client.query_one(statement, &parameters).await }
                    });
                    let found = future::try_join_all(queries).await.expect("they run");
                    for (n, row) in numbers.iter().zip(&found) {
                        assert_eq!(row.get::<_, i32>(0), n * 1000 + at);
                    }
                    let transaction = client.transaction().await.expect("it begins");
                    assert_eq!(
                        transaction
                            .query_one(&statement, &[&round])
                            .await
                            .expect("it runs")
                            .get::<_, i32>(0),
                        round * 1000 + at
                    );
                    if round % 2 == 0 {
                        transaction.commit().await
                    } else {
                        transaction.rollback().await
                    }
                    .expect("it ends");
                }
            });
        future::join_all(work).await;
    });
}

#[test]
fn tokio_postgres_errors_savepoints_and_cursors_are_those_of_postgres() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let (mut client, other) = (connect(&stage).await, connect(&stage).await);
        client
            .batch_execute("create temp table saved (a int primary key)")
            .await
            .expect("it is made");
        let mut transaction = client.transaction().await.expect("it begins");
        transaction
            .execute("insert into saved values ($1)", &[&1i32])
            .await
            .expect("it is new");
        let inner = transaction.transaction().await.expect("a savepoint");
        let error = inner
            .execute("insert into saved values ($1)", &[&1i32])
            .await
            .expect_err("it is there");
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
        let error = inner
            .query_one("select 1", &[])
            .await
            .expect_err("the transaction has failed");
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        inner.rollback().await.expect("back to the savepoint");
        // A portal that is read in parts while another client works.
        let portal = transaction
            .bind("select generate_series(1, 100)::int4", &[])
            .await
            .expect("it binds");
        for part in 0..10 {
            let rows = transaction
                .query_portal(&portal, 10)
                .await
                .expect("it goes on");
            assert_eq!(rows[0].get::<_, i32>(0), part * 10 + 1);
            assert_eq!(text(&other, "select 'other'").await, "other");
        }
        transaction.commit().await.expect("it commits");
        assert_eq!(text(&client, "select count(*)::text from saved").await, "1");
        for (query, code) in [
            ("selec", SqlState::SYNTAX_ERROR),
            ("select * from no_such", SqlState::UNDEFINED_TABLE),
            ("select 1 / 0", SqlState::DIVISION_BY_ZERO),
        ] {
            assert_eq!(
                client
                    .query(query, &[])
                    .await
                    .expect_err("it is wrong")
                    .code(),
                Some(&code)
            );
            assert_eq!(text(&client, "select 'after'").await, "after");
        }
    });
}

#[test]
fn tokio_postgres_copies_both_ways() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let client = connect(&stage).await;
        client
            .batch_execute("create temp table copied (a int primary key, b text)")
            .await
            .expect("it is made");
        let mut sink = pin!(
            client
                .copy_in("copy copied from stdin")
                .await
                .expect("it begins")
        );
        for n in 0..20_000 {
            sink.feed(std::io::Cursor::new(format!("{n}\trow {n}\n").into_bytes()))
                .await
                .expect("it is taken");
        }
        assert_eq!(sink.as_mut().finish().await.expect("it ends"), 20_000);
        let parts: Vec<_> = client
            .copy_out("copy copied to stdout")
            .await
            .expect("it begins")
            .try_collect()
            .await
            .expect("it ends");
        assert_eq!(
            parts
                .iter()
                .flat_map(|part| part.iter())
                .filter(|b| **b == b'\n')
                .count(),
            20_000
        );
        {
            // Dropped in the middle: the driver says CopyFail.
            let mut given_up = pin!(
                client
                    .copy_in::<_, std::io::Cursor<Vec<u8>>>("copy copied from stdin")
                    .await
                    .expect("it begins")
            );
            given_up
                .send(std::io::Cursor::new(b"30000\tnever\n".to_vec()))
                .await
                .expect("it is taken");
        }
        assert_eq!(
            text(&client, "select count(*)::text from copied").await,
            "20000"
        );
        let mut again = pin!(
            client
                .copy_in("copy copied from stdin")
                .await
                .expect("it begins")
        );
        again
            .send(std::io::Cursor::new(b"1\tagain\n".to_vec()))
            .await
            .expect("it is taken");
        let error = again
            .as_mut()
            .finish()
            .await
            .expect_err("it is there already");
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
    });
}

#[test]
fn tokio_postgres_cancels_its_query_and_no_other() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let (client, other) = (connect(&stage).await, connect(&stage).await);
        for _ in 0..5 {
            let token = client.cancel_token();
            let cancel = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                token.cancel_query(NoTls).await.expect("it is sent");
            };
            let (slept, ()) =
                future::join(client.batch_execute("select pg_sleep(30)"), cancel).await;
            assert_eq!(
                slept.expect_err("it is cancelled").code(),
                Some(&SqlState::QUERY_CANCELED)
            );
            assert_eq!(text(&client, "select 'alive'").await, "alive");
            assert_eq!(text(&other, "select 'unhurt'").await, "unhurt");
        }
    });
}

#[test]
fn tokio_postgres_settings_and_notifications_are_the_sessions_own() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let others = several(&stage, 5).await;
        let (client, mut heard) = open(
            config(&stage, "scram")
                .application_name("started")
                .options("-c work_mem=7MB"),
        )
        .await
        .expect("the login is right");
        client
            .batch_execute("set time zone 'Asia/Tokyo'")
            .await
            .expect("it is set");
        let show = "select concat_ws(' ', current_setting('timezone'), current_setting('work_mem'), current_setting('application_name'))";
        for _ in 0..5 {
            for other in &others {
                let found = text(other, show).await;
                assert!(
                    !["Tokyo", "7MB", "started"]
                        .iter()
                        .any(|leak| found.contains(leak)),
                    "{found}"
                );
            }
            assert_eq!(text(&client, show).await, "Asia/Tokyo 7MB started");
        }
        client
            .batch_execute("listen rust_channel")
            .await
            .expect("it listens");
        for (n, other) in others.iter().enumerate() {
            other
                .batch_execute(&format!("notify rust_channel, '{n}'"))
                .await
                .expect("it notifies");
            assert_eq!(heard.recv().await, Some(n.to_string()));
        }
    });
}

#[test]
fn tokio_postgres_sessions_go_on_after_a_restart_of_the_server() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let (idle, mut busy) = (connect(&stage).await, connect(&stage).await);
        let statement = idle
            .prepare("select $1::int4 + 1")
            .await
            .expect("it prepares");
        idle.batch_execute("set work_mem = '8MB'")
            .await
            .expect("it is set");
        let transaction = busy.transaction().await.expect("it begins");
        transaction
            .batch_execute("select 1")
            .await
            .expect("it runs");
        stage.postgres.restart();
        transaction
            .batch_execute("select 1")
            .await
            .expect_err("the transaction is lost");
        assert_eq!(
            idle.query_one(&statement, &[&1i32])
                .await
                .expect("it goes on")
                .get::<_, i32>(0),
            2
        );
        assert_eq!(text(&idle, "show work_mem").await, "8MB");
        assert_eq!(
            text(&connect(&stage).await, "select 'again'").await,
            "again"
        );
        let mut rows = pin!(
            idle.query_raw::<_, i32, _>("select generate_series(1, $1)", [3])
                .await
                .expect("it runs")
        );
        assert!(rows.next().await.is_some_and(|row| row.is_ok()));
    });
}
