//! Listening within limits, and over changes of the configuration.

use std::time::Duration;

use pgdog_tests::{Postgres, raw, wait};

use super::{LISTENER, Stage, config, hears_nothing, next};

#[test]
fn without_a_place_for_the_listener_clients_keep_their_servers() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set_with(|c| {
        c.general("max_db_connections", "1")
            .general("checkout_timeout", "500")
    });
    let (mut client, mut other) = (stage.client(), stage.client());
    client.run("listen x");
    assert_eq!(other.query_error("select 1"), "53300");
    stage.speaker.run("notify x");
    assert_eq!(next(&mut client), "A x \"\"");
    client.run("unlisten x");
    other.run("select 1");
}

#[test]
fn a_reload_that_moves_the_pool_moves_its_listeners() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("listen x");
    // What is said next waits until the channel is handed over.
    client.run("select 1");
    let before = stage.activity().pids(LISTENER);
    let mut activity = stage.activity();
    // Servers of another mode begin otherwise. In session mode each listens for itself; who does not keeps its own mode.
    for mode in ["statement", "session"] {
        stage
            .proxy
            .write_config(&config(&stage.database).general("pooler_mode", &format!("\"{mode}\"")));
        stage.proxy.reload();
        let told = next(&mut client);
        assert!(told.starts_with("N WARNING 01000"), "{told}");
        activity.wait(1, LISTENER);
        assert_ne!(activity.pids(LISTENER), before);
        stage.speaker.run("notify x");
        assert_eq!(next(&mut client), "A x \"\"");
    }
    client.run("listen y");
    client.run("unlisten *");
    activity.wait(0, LISTENER);
}

#[test]
fn a_user_that_is_taken_out_listens_no_more() {
    if !Postgres::installed() {
        return;
    }
    let stage = Stage::set();
    let mut client = stage.client();
    client.run("listen x");
    client.run("select 1");
    let without = stage.proxy.path("users.toml");
    std::fs::write(
        without,
        format!(
            "[[users]]\nname = \"another\"\ndatabase = \"{}\"\npassword = \"x\"\n",
            stage.database.name()
        ),
    )
    .expect("the scratch directory is writable");
    stage.proxy.reload();
    let told = next(&mut client);
    assert!(told.starts_with("E FATAL 57P01"), "{told}");
    stage.activity().wait(0, LISTENER);
}

#[test]
fn a_drain_lets_listeners_go() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("listen x");
    stage.proxy.terminate();
    let told = next(&mut client);
    assert!(told.starts_with("E FATAL 57P01"), "{told}");
    assert_eq!(stage.proxy.wait(Duration::from_secs(10)), Some(0));
    stage.activity().wait(0, LISTENER);
}

#[test]
fn a_listener_that_has_lost_its_postgres_comes_back_with_it() {
    if !Postgres::installed() {
        return;
    }
    let mut stage = Stage::set();
    let mut client = stage.client();
    client.run("listen x");
    // Again and again, faster than it comes back.
    let mut activity = stage.activity();
    for _ in 0..3 {
        activity.wait(1, LISTENER);
        activity.terminate(LISTENER);
    }
    activity.wait(1, LISTENER);
    let heard = wait::until(raw::PATIENCE, || {
        stage.speaker.run("notify x");
        next(&mut client).starts_with('A')
    });
    assert!(heard);
    client.run("unlisten *");
    assert!(wait::until(raw::PATIENCE, || hears_nothing(&mut client)));
}
