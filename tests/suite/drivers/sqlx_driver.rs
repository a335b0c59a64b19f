//! sqlx: a statement cache that closes what it forgets, a pool, COPY and a listener.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, Error, Executor, PgPool, Row};

use super::{Stage, run};

fn options(stage: &Stage, user: &str) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(stage.port())
        .username(user)
        .database("postgres")
        .ssl_mode(PgSslMode::Disable);
    if user == "trust" {
        options
    } else {
        options.password("secret")
    }
}

async fn connect(stage: &Stage) -> PgConnection {
    options(stage, "scram")
        .connect()
        .await
        .expect("the login is right")
}

async fn pool(stage: &Stage, size: u32) -> PgPool {
    let options = options(stage, "scram");
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_secs(30))
        .connect_with(options)
        .await
        .expect("the login is right")
}

async fn text(connection: &mut PgConnection, query: &str) -> String {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .expect("the query is right")
}

fn code(error: &Error) -> String {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|c| c.into_owned())
        .unwrap_or_default()
}

#[test]
fn sqlx_logs_in_by_every_method() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        for user in ["scram", "md5", "trust"] {
            let mut connection = options(&stage, user)
                .connect()
                .await
                .expect("the login is right");
            assert_eq!(
                text(&mut connection, "select current_user::text").await,
                user
            );
            connection.close().await.expect("it says goodbye");
        }
        let error = options(&stage, "scram")
            .password("wrong")
            .connect()
            .await
            .expect_err("the password is wrong");
        assert_eq!(code(&error), "28P01");
    });
}

#[test]
fn sqlx_statements_of_a_pool_and_of_small_caches_keep_to_themselves() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let pool = pool(&stage, 15).await;
        let mut tasks = tokio::task::JoinSet::new();
        for me in 0..30 {
            let pool = pool.clone();
            tasks.spawn(async move {
                for turn in 0..15 {
                    let mut transaction = pool.begin().await.expect("it begins");
                    let found: String = sqlx::query_scalar("select $1::text")
                        .bind(format!("{me}/{turn}"))
                        .fetch_one(&mut *transaction)
                        .await
                        .expect("it runs");
                    assert_eq!(found, format!("{me}/{turn}"));
                    transaction.commit().await.expect("it commits");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("a task succeeds");
        }
        pool.close().await;
        let mut small = options(&stage, "scram")
            .statement_cache_capacity(5)
            .connect()
            .await
            .expect("the login is right");
        let mut other = connect(&stage).await;
        for turn in 0..60i32 {
            for connection in [&mut small, &mut other] {
                let query = format!("select {} + $1::int4", turn % 13);
                let found: i32 = sqlx::query_scalar(&query)
                    .bind(turn)
                    .fetch_one(connection)
                    .await
                    .expect("it runs");
                assert_eq!(found, turn % 13 + turn);
            }
        }
    });
}

#[test]
fn sqlx_errors_and_savepoints_are_those_of_postgres() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let mut connection = connect(&stage).await;
        connection
            .execute("create temp table saved (a int primary key)")
            .await
            .expect("it is made");
        let mut outer = connection.begin().await.expect("it begins");
        sqlx::query("insert into saved values ($1)")
            .bind(1)
            .execute(&mut *outer)
            .await
            .expect("it is new");
        let mut inner = outer.begin().await.expect("a savepoint");
        let error = sqlx::query("insert into saved values ($1)")
            .bind(1)
            .execute(&mut *inner)
            .await
            .expect_err("it is there");
        assert_eq!(code(&error), "23505");
        assert_eq!(
            code(
                &inner
                    .execute("select 1")
                    .await
                    .expect_err("the transaction has failed")
            ),
            "25P02"
        );
        inner.rollback().await.expect("back to the savepoint");
        sqlx::query("insert into saved values ($1)")
            .bind(2)
            .execute(&mut *outer)
            .await
            .expect("it is new");
        outer.commit().await.expect("it commits");
        assert_eq!(
            text(&mut connection, "select sum(a)::text from saved").await,
            "3"
        );
        // A transaction that is dropped rolls back with the next use of its connection.
        let mut dropped = connection.begin().await.expect("it begins");
        dropped.execute("delete from saved").await.expect("it runs");
        drop(dropped);
        assert_eq!(
            text(&mut connection, "select sum(a)::text from saved").await,
            "3"
        );
        let error = sqlx::query("select * from no_such where a = $1")
            .bind(1)
            .execute(&mut connection)
            .await
            .expect_err("there is none");
        assert_eq!(code(&error), "42P01");
    });
}

#[test]
fn sqlx_copies_both_ways() {
    use futures_util::TryStreamExt;
    let Some(stage) = Stage::set() else { return };
    run(async {
        let mut connection = connect(&stage).await;
        connection
            .execute("create temp table copied (a int primary key, b text)")
            .await
            .expect("it is made");
        let rows: String = (0..20_000).map(|n| format!("{n}\trow {n}\n")).collect();
        let mut copy = connection
            .copy_in_raw("copy copied from stdin")
            .await
            .expect("it begins");
        copy.send(rows.as_bytes()).await.expect("it is taken");
        assert_eq!(copy.finish().await.expect("it ends"), 20_000);
        let mut copy = connection
            .copy_in_raw("copy copied from stdin")
            .await
            .expect("it begins");
        copy.send(b"30000\tnever\n".as_slice())
            .await
            .expect("it is taken");
        copy.abort("given up").await.expect("it is given up");
        let parts: Vec<_> = connection
            .copy_out_raw("copy (select * from copied order by a) to stdout")
            .await
            .expect("it begins")
            .try_collect()
            .await
            .expect("it ends");
        assert_eq!(parts.concat(), rows.as_bytes());
    });
}

#[test]
fn sqlx_settings_and_notifications_are_the_sessions_own() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let mut one = options(&stage, "scram")
            .application_name("started")
            .options([("work_mem", "7MB")])
            .connect()
            .await
            .expect("the login is right");
        let mut two = connect(&stage).await;
        one.execute("set time zone 'Asia/Tokyo'")
            .await
            .expect("it is set");
        let show = "select concat_ws(' ', current_setting('timezone'), current_setting('work_mem'), current_setting('application_name'))";
        for _ in 0..5 {
            let found = text(&mut two, show).await;
            assert!(
                !["Tokyo", "7MB", "started"]
                    .iter()
                    .any(|leak| found.contains(leak)),
                "{found}"
            );
            assert_eq!(text(&mut one, show).await, "Asia/Tokyo 7MB started");
        }
        let pool = pool(&stage, 2).await;
        let mut listener = PgListener::connect_with(&pool).await.expect("it connects");
        listener.listen("sqlx_channel").await.expect("it listens");
        for n in 0..3 {
            sqlx::query("select pg_notify('sqlx_channel', $1)")
                .bind(n.to_string())
                .execute(&mut two)
                .await
                .expect("it notifies");
            assert_eq!(
                listener.recv().await.expect("it hears").payload(),
                n.to_string()
            );
        }
    });
}

#[test]
fn a_pool_of_sqlx_goes_on_after_a_restart_of_the_server() {
    let Some(stage) = Stage::set() else { return };
    run(async {
        let pool = pool(&stage, 4).await;
        let mut busy = pool.begin().await.expect("it begins");
        busy.execute("select 1").await.expect("it runs");
        stage.postgres.restart();
        busy.execute("select 1")
            .await
            .expect_err("the transaction is lost");
        drop(busy);
        for n in 0..10i32 {
            let row = sqlx::query("select $1::int4")
                .bind(n)
                .fetch_one(&pool)
                .await
                .expect("it runs");
            assert_eq!(row.get::<i32, _>(0), n);
        }
    });
}
