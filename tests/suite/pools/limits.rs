//! Limits on clients, and on servers over several pools.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Activity, Database, Postgres, Proxy, ProxyConfig, RawClient, wait};

use super::{config, millis, timed, with_clients};

#[test]
fn a_rush_of_clients_does_not_pass_the_limit() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 2).general("max_client_conn", "10"));
    proxy.client("pgdog", database.name()).goodbye();
    for _ in 0..5 {
        let let_in: Vec<_> = thread::scope(|scope| {
            let rush: Vec<_> = (0..40)
                .map(|_| {
                    scope.spawn(|| RawClient::try_login(proxy.port(), "pgdog", database.name()))
                })
                .collect();
            rush.into_iter()
                .filter_map(|client| client.join().expect("it logs in or not").ok())
                .collect()
        });
        assert_eq!(let_in.len(), 10);
        let_in.into_iter().for_each(RawClient::goodbye);
    }
}

/// A user of a database with further lines.
fn user(database: &Database<'_>, name: &str, lines: &str) -> String {
    format!(
        "[[users]]\nname = \"{name}\"\ndatabase = \"{}\"\npassword = \"x\"\nserver_user = \"pgdog\"\n{lines}\n",
        database.name()
    )
}

fn refused(proxy: &Proxy, user: &str, database: &str) -> String {
    RawClient::try_login(proxy.port(), user, database).expect_err("the limit is reached")
}

#[test]
fn clients_above_the_limit_of_the_process_are_refused() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 2).general("max_client_conn", "3"));
    let mut clients: Vec<_> = (0..3)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    for _ in 0..3 {
        let told = refused(&proxy, "pgdog", database.name());
        assert!(
            told.starts_with("E FATAL 53300") && told.contains("max_client_conn"),
            "{told}"
        );
    }
    clients.pop();
    assert!(wait::until(PATIENCE, || RawClient::try_login(
        proxy.port(),
        "pgdog",
        database.name()
    )
    .is_ok()));
}

#[test]
fn clients_above_the_limit_of_a_user_or_a_database_are_refused() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::shared();
    let (first, second) = (postgres.fresh_database(), postgres.fresh_database());
    let config = ProxyConfig::transaction(postgres)
        .database_with(first.name(), &["max_db_client_connections = 3"])
        .database(second.name())
        .append_users(&user(&first, "few", "max_user_client_connections = 2"))
        .append_users(&user(&second, "few", "max_user_client_connections = 2"))
        .append_users(&user(&first, "many", ""))
        .append_users(&user(&second, "many", ""));
    let proxy = Proxy::start(&config);
    let mut few = vec![
        proxy.client("few", first.name()),
        proxy.client("few", second.name()),
    ];
    for database in [&first, &second] {
        let told = refused(&proxy, "few", database.name());
        assert!(
            told.starts_with("E FATAL 53300") && told.contains("\"few\""),
            "{told}"
        );
    }
    let many: Vec<_> = (0..2).map(|_| proxy.client("many", first.name())).collect();
    let told = refused(&proxy, "many", first.name());
    assert!(
        told.starts_with("E FATAL 53300") && told.contains(first.name()),
        "{told}"
    );
    let _elsewhere = proxy.client("many", second.name());
    drop(many);
    few.pop();
    assert!(wait::until(PATIENCE, || RawClient::try_login(
        proxy.port(),
        "few",
        first.name()
    )
    .is_ok()));
}

/// A database whose servers are shared by the users `noisy` and `quiet`.
fn shared(database: &Database<'_>, cap: usize) -> ProxyConfig {
    ProxyConfig::transaction(Postgres::shared())
        .pool_size(10)
        .database_with(database.name(), &[&format!("max_db_connections = {cap}")])
        .append_users(&user(database, "noisy", ""))
        .append_users(&user(database, "quiet", ""))
}

#[test]
fn a_noisy_user_starves_nobody() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&shared(&database, 4));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let noisy = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(activity.count("true"), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            with_clients(&proxy, "noisy", database.name(), 16, |client| {
                while !done.load(Ordering::Relaxed) {
                    client.run("select pg_sleep(0.01)");
                    noisy.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        // Alone, the noisy user may have all of it.
        assert!(wait::until(PATIENCE, || most.load(Ordering::Relaxed) == 4));
        // One quiet client waits for its first server, and not for every later one as well.
        let mut quiet = proxy.client("quiet", database.name());
        let slowest = (0..20)
            .map(|_| timed(|| quiet.run("select pg_sleep(0.01)")).1)
            .max();
        assert!(
            slowest < Some(millis(1500)),
            "a quiet client waited {slowest:?}"
        );
        // As many who want as much get as much.
        let before = noisy.load(Ordering::Relaxed);
        let quiet = AtomicUsize::new(0);
        with_clients(&proxy, "quiet", database.name(), 8, |client| {
            for _ in 0..25 {
                client.run("select pg_sleep(0.01)");
                quiet.fetch_add(1, Ordering::Relaxed);
            }
        });
        let noisy = noisy.load(Ordering::Relaxed) - before;
        done.store(true, Ordering::Relaxed);
        let share = quiet.load(Ordering::Relaxed) as f64 / noisy as f64;
        assert!((0.5..2.5).contains(&share), "quiet to noisy: {share}");
    });
    assert_eq!(most.load(Ordering::Relaxed), 4);
}

#[test]
fn idle_servers_of_one_user_make_room_for_another() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&shared(&database, 2));
    let mut activity = Activity::of(Postgres::shared(), &database);
    for _ in 0..3 {
        for user in ["noisy", "quiet"] {
            let mut clients: Vec<_> = (0..2)
                .map(|_| proxy.client(user, database.name()))
                .collect();
            clients.iter_mut().for_each(|client| client.run("begin"));
            assert_eq!(activity.count("true"), 2);
            clients.iter_mut().for_each(|client| client.run("commit"));
        }
    }
}

#[test]
fn a_user_has_a_limit_over_its_databases() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::shared();
    let (first, second) = (postgres.fresh_database(), postgres.fresh_database());
    let config = ProxyConfig::transaction(postgres)
        .general("checkout_timeout", "500")
        .database(first.name())
        .database(second.name())
        .append_users(&user(&first, "few", "max_user_connections = 2"))
        .append_users(&user(&second, "few", "max_user_connections = 2"));
    let proxy = Proxy::start(&config);
    let mut one = proxy.client("few", first.name());
    let mut other = proxy.client("few", second.name());
    let mut third = proxy.client("few", first.name());
    one.run("begin");
    other.run("begin");
    assert_eq!(third.query_error("select 1"), "53300");
    other.run("commit");
    let mut third = proxy.client("few", first.name());
    third.run("select 1");
}
