//! Connections that grow old, lie idle, or die in the pool.

use std::process::Command;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Activity, Postgres, Proxy, wait};

use super::{config, millis, timed, with_clients};

#[test]
fn idle_servers_are_closed() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 4).general("idle_timeout", "300"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut clients: Vec<_> = (0..4)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    clients.iter_mut().for_each(|client| client.run("begin"));
    clients.iter_mut().for_each(|client| client.run("commit"));
    assert_eq!(activity.count("true"), 4);
    activity.wait(0, "true");
    assert_eq!(clients[0].query_value("select 1"), "1");
}

#[test]
fn old_servers_are_replaced_between_transactions() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(
        &config(&database, 1)
            .general("server_lifetime", "400")
            .general("server_lifetime_jitter", "100"),
    );
    let mut client = proxy.client("pgdog", database.name());
    let first = client.query_value("select pg_backend_pid()");
    assert!(
        wait::until(PATIENCE, || client.query_value("select pg_backend_pid()")
            != first),
        "it was never replaced"
    );
    // One that is in use stays, however old.
    client.run("begin");
    let pid = client.query_value("select pg_backend_pid()");
    client.run("select pg_sleep(0.9)");
    assert_eq!(client.query_value("select pg_backend_pid()"), pid);
    client.run("commit");
    assert_ne!(client.query_value("select pg_backend_pid()"), pid);
    // An idle one goes by itself.
    Activity::of(Postgres::shared(), &database).wait(0, "true");
}

#[test]
fn servers_that_died_in_the_pool_are_never_given_to_a_client() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 3));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let mut clients: Vec<_> = (0..6)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    for round in 0..30 {
        for client in clients.iter_mut().take(3) {
            client.run("begin");
        }
        for client in clients.iter_mut().take(3) {
            client.run("commit");
        }
        activity.terminate("true");
        for client in &mut clients {
            assert_eq!(client.query_value("select 1"), "1", "round {round}");
        }
    }
}

#[test]
fn a_server_that_does_not_answer_its_check_is_replaced() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    // 0 means: before each use that does not follow at once.
    let proxy = Proxy::start(
        &config(&database, 1)
            .general("healthcheck_interval", "200")
            .general("healthcheck_timeout", "400"),
    );
    let mut client = proxy.client("pgdog", database.name());
    let stuck = client.query_value("select pg_backend_pid()");
    let mut activity = Activity::of(Postgres::shared(), &database);
    activity.wait(1, "state = 'idle' and now() - state_change > '500 ms'");
    let stopped = Stopped::now(&stuck);
    let ((), took) = timed(|| client.run("select 1"));
    let next = client.query_value("select pg_backend_pid()");
    drop(stopped);
    assert_ne!(next, stuck);
    assert!(took >= millis(200) && took < millis(4000), "{took:?}");
}

/// A stopped process, which goes on when the test ends, however that is.
struct Stopped<'a>(&'a str);

impl<'a> Stopped<'a> {
    fn now(pid: &'a str) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

fn signal(pid: &str, name: &str) {
    Command::new("kill")
        .args([&format!("-{name}"), pid])
        .status()
        .expect("kill runs");
}

#[test]
fn a_pool_under_load_survives_having_its_servers_killed() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy =
        Proxy::start(&config(&database, 3).general("client_connection_recovery", "\"recover\""));
    let mut activity = Activity::of(Postgres::shared(), &database);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..15 {
                // Only those that no client uses: others lose what they run, and know it.
                activity.terminate("state = 'idle'");
            }
        });
        with_clients(&proxy, "pgdog", database.name(), 2, |client| {
            for _ in 0..100 {
                let frames = client.query("select 1");
                // A server that was idle for Postgres may have been given to a client in the same moment.
                if frames.iter().any(|frame| frame.tag == b'E') {
                    *client = proxy.client("pgdog", database.name());
                }
            }
        });
    });
    with_clients(&proxy, "pgdog", database.name(), 6, |client| {
        client.run("select 1")
    });
    activity.wait(0, "state <> 'idle'");
    assert!(activity.count("true") <= 3);
}
