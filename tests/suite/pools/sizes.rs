//! One pool: its sizes and its queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Activity, Message, Postgres, Proxy, Received, wait};

use super::{config, millis, timed, with_clients};

#[test]
fn a_pool_never_exceeds_its_size_and_uses_all_of_it() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 3));
    let mut activity = Activity::of(Postgres::shared(), &database);
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(activity.count("true"));
            }
            most
        });
        with_clients(&proxy, "pgdog", database.name(), 12, |client| {
            for _ in 0..15 {
                client.run("select pg_sleep(0.01)");
                client.run("begin; select 1");
                client.run("commit");
            }
        });
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher watches")
    });
    assert_eq!(most, 3);
}

#[test]
fn a_minimum_is_kept_without_clients_and_comes_back() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(
        &config(&database, 5)
            .general("min_pool_size", "2")
            .general("idle_timeout", "200"),
    );
    let mut activity = Activity::of(Postgres::shared(), &database);
    activity.wait(2, "true");
    activity.terminate("true");
    activity.wait(2, "true");
    let mut clients: Vec<_> = (0..4)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    clients.iter_mut().for_each(|client| client.run("begin"));
    assert_eq!(activity.count("true"), 4);
    clients.iter_mut().for_each(|client| client.run("commit"));
    activity.wait(2, "true");
}

#[test]
fn the_reserve_opens_for_those_who_waited_long_enough() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database, 1)
        .general("reserve_pool_size", "1")
        .general("reserve_pool_timeout", "400")
        .general("checkout_timeout", "3000");
    let proxy = Proxy::start(&config);
    let mut activity = Activity::of(Postgres::shared(), &database);
    let [mut holder, mut waiter, mut third] =
        [(); 3].map(|()| proxy.client("pgdog", database.name()));
    holder.run("begin");
    let ((), waited) = timed(|| waiter.run("begin"));
    assert!(
        waited >= millis(250),
        "the reserve was used after {waited:?}"
    );
    assert_eq!(activity.count("true"), 2);
    let (code, waited) = timed(|| third.query_error("select 1"));
    assert_eq!(code, "53300", "the reserve is spent too");
    assert!(waited >= millis(2700), "{waited:?}");
    holder.run("commit");
    waiter.run("commit");
    activity.wait(1, "true");
}

#[test]
fn a_client_that_waits_too_long_is_told_so() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    for recovery in ["drop", "recover"] {
        let config = config(&database, 1)
            .general("checkout_timeout", "400")
            .general("client_connection_recovery", &format!("\"{recovery}\""));
        let proxy = Proxy::start(&config);
        let mut holder = proxy.client("pgdog", database.name());
        let mut simple = proxy.client("pgdog", database.name());
        let mut extended = proxy.client("pgdog", database.name());
        holder.run("begin");
        let batch = [
            Message::parse("", "select 1"),
            Message::bind("", &[]),
            Message::execute(),
            Message::execute(),
            Message::Sync,
        ];
        simple.send(&[Message::query("select 1")]);
        extended.send(&batch);
        let (told, waited) = timed(|| lines(&simple.until_ready()));
        assert!(waited >= millis(250) && waited < millis(2000), "{waited:?}");
        let told_extended = lines(&extended.until_ready());
        if recovery == "drop" {
            for told in [&told, &told_extended] {
                assert!(
                    told.len() == 1 && told[0].starts_with("E FATAL 53300: checkout timeout"),
                    "{told:?}"
                );
            }
            assert_eq!(simple.receive(PATIENCE), Received::Eof);
            continue;
        }
        for told in [&told, &told_extended] {
            assert!(
                told.len() == 2
                    && told[0].starts_with("E ERROR 53300: checkout timeout")
                    && told[1] == "Z I",
                "{told:?}"
            );
        }
        holder.run("commit");
        assert_eq!(simple.query_value("select 2"), "2");
        extended.send(&batch);
        assert_eq!(
            lines(&extended.until_ready()).last().map(String::as_str),
            Some("Z I")
        );
    }
}

#[test]
fn the_server_used_last_is_used_next() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 3).general("workers", "1"));
    let mut clients: Vec<_> = (0..3)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    let pids: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.run("begin");
            client.query_value("select pg_backend_pid()")
        })
        .collect();
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        for index in order {
            clients[index].run("commit");
        }
        let last = &pids[order[2]];
        for client in &mut clients {
            assert_eq!(
                &client.query_value("select pg_backend_pid()"),
                last,
                "{order:?}"
            );
        }
        // The next round needs all three again, each at its own client.
        for index in order.iter().rev() {
            clients[*index].run("begin");
            assert_eq!(
                clients[*index].query_value("select pg_backend_pid()"),
                pids[*index],
                "a stack gives back in reverse"
            );
        }
    }
}

#[test]
fn who_waits_longest_is_served_first() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    database.run("create table turns (turn serial, client int)");
    let proxy = Proxy::start(
        &config(&database, 1)
            .general("workers", "1")
            .general("checkout_timeout", "20000"),
    );
    let mut holder = proxy.client("pgdog", database.name());
    let mut waiters: Vec<_> = (0..12)
        .map(|_| proxy.client("pgdog", database.name()))
        .collect();
    holder.run("begin");
    for (number, waiter) in waiters.iter_mut().enumerate() {
        waiter.send(&[Message::query(&format!(
            "insert into turns (client) values ({number})"
        ))]);
    }
    // One of them gives up its place in the middle; the order of the others stays.
    drop(waiters.remove(5));
    holder.run("commit");
    for waiter in &mut waiters {
        waiter.until_ready();
    }
    // One who comes while others wait is behind them, the holder of before included.
    holder.send(&[Message::query("insert into turns (client) values (99)")]);
    holder.until_ready();
    let rows = database
        .client()
        .query_rows("select client from turns where client <> 5 order by turn");
    let turns: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(
        turns,
        [
            "0", "1", "2", "3", "4", "6", "7", "8", "9", "10", "11", "99"
        ]
    );
}

#[test]
fn a_client_that_stops_waiting_costs_no_connection() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&config(&database, 1));
    let mut holder = proxy.client("pgdog", database.name());
    for _ in 0..10 {
        holder.run("begin");
        let mut waiters: Vec<_> = (0..5)
            .map(|_| proxy.client("pgdog", database.name()))
            .collect();
        waiters
            .iter_mut()
            .for_each(|waiter| waiter.send(&[Message::query("select 1")]));
        drop(waiters);
        holder.run("commit");
    }
    let mut other = proxy.client("pgdog", database.name());
    assert!(wait::until(PATIENCE, || other.query_value("select 1") == "1"));
    assert_eq!(Activity::of(Postgres::shared(), &database).count("true"), 1);
}
