//! Unix sockets, and addresses that are taken.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;
use std::{fs, path::Path};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::scratch::{Scratch, free_port};
use pgdog_tests::{Postgres, Proxy, ProxyConfig, Psql};

use super::config;

fn with_socket(config: ProxyConfig, directory: &Path) -> ProxyConfig {
    config.general("unix_socket_dir", &format!("\"{}\"", directory.display()))
}

#[test]
fn a_unix_socket_serves_beside_tcp() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let directory = Scratch::new("socket");
    let config = with_socket(config(&database), directory.path())
        .general("auth_type", "\"scram\"")
        .general("unix_socket_mode", "\"0770\"");
    let mut proxy = Proxy::start(&config);
    let file = directory.path().join(format!(".s.PGSQL.{}", proxy.port()));
    let mode = fs::metadata(&file)
        .expect("the socket is there")
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode, 0o770);
    let psql = Psql::new(proxy.port(), "pgdog", database.name())
        .password("pgdog")
        .with("host", &directory.path().display().to_string());
    assert_eq!(psql.run("select 1").expect("over the unix socket"), "1");
    psql.clone()
        .password("wrong")
        .run("select 1")
        .expect_error("a wrong password");
    let tcp = psql.with("host", "127.0.0.1").run("select 1");
    assert_eq!(tcp.expect("over TCP"), "1");
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    assert!(!file.exists(), "the socket is removed");
}

#[test]
fn a_plain_password_is_fine_on_a_unix_socket() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let directory = Scratch::new("socket");
    let proxy = Proxy::start(
        &with_socket(config(&database), directory.path()).general("auth_type", "\"plain\""),
    );
    let psql = Psql::new(proxy.port(), "pgdog", database.name()).password("pgdog");
    psql.run("select 1").expect_error("not over TCP");
    let output = psql
        .with("host", &directory.path().display().to_string())
        .run("select 1");
    assert_eq!(output.expect("over the unix socket"), "1");
}

#[test]
fn a_socket_file_that_a_crash_left_is_replaced_and_one_in_use_is_not() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let directory = Scratch::new("socket");
    let config = with_socket(config(&database), directory.path());
    let port = free_port();
    let file = directory.path().join(format!(".s.PGSQL.{port}"));
    let listener = UnixListener::bind(&file).expect("the scratch directory is writable");
    let mut refused = Proxy::launch(&config, port, &[]);
    assert_eq!(refused.wait(Duration::from_secs(10)), Some(1));
    assert!(
        refused.log().contains(&file.display().to_string()) && refused.log().contains("listening"),
        "{}",
        refused.log()
    );
    // The file stays behind when a process dies.
    drop(listener);
    assert!(file.exists());
    let proxy = Proxy::launch(&config, port, &[]);
    let psql = Psql::new(port, "pgdog", database.name())
        .with("host", &directory.path().display().to_string());
    assert!(
        pgdog_tests::wait::until(PATIENCE, || psql.run("select 1").success),
        "{}",
        proxy.log()
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let mut proxy = Proxy::launch(&config(&database), port, &[]);
    assert_eq!(proxy.wait(Duration::from_secs(10)), Some(1));
    let log = proxy.log();
    assert!(
        log.contains(&format!("127.0.0.1:{port}")) && log.to_lowercase().contains("in use"),
        "{log}"
    );
}
