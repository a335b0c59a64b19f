//! PostgreSQL's own programs, and a subscription, through the proxy.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::scratch::Scratch;
use pgdog_tests::{Postgres, PostgresOptions, Proxy, binaries, template, wait};

use super::{config, walsenders};

/// One of PostgreSQL's client programs; says so on the terminal when it is not installed.
fn program(name: &str) -> Option<Command> {
    let path = binaries::postgres()?.join(name);
    if path.is_file() {
        return Some(template::unprivileged(&path));
    }
    use std::io::Write;
    // Past libtest's capture, which swallows what a passing test prints.
    writeln!(std::io::stderr(), "SKIPPED: {name} is not installed").ok();
    None
}

/// The program's connection goes to the proxy.
fn through<'a>(command: &'a mut Command, proxy: &Proxy) -> &'a mut Command {
    let port = proxy.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-U", "pgdog", "-w"])
}

fn scratch(purpose: &str) -> Scratch {
    let scratch = Scratch::new(purpose);
    template::hand_over(scratch.path());
    scratch
}

fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}

/// Asks a program to end, as Ctrl-C does, and waits for it; what it has said on the way.
fn interrupt(child: Child) -> String {
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    said(child)
}

fn said(child: Child) -> String {
    let output = child.wait_with_output().expect("it is our child");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn contains(file: &Path, text: &str) -> bool {
    std::fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
}

#[test]
fn a_base_backup_is_whole() {
    let (Some(mut backup), Some(mut verify)) =
        (program("pg_basebackup"), program("pg_verifybackup"))
    else {
        Postgres::installed();
        return;
    };
    let postgres = Postgres::start(&PostgresOptions::default());
    postgres.run(
        "postgres",
        "create table t as select repeat(md5(i::text), 100) from generate_series(1, 2000) i",
    );
    let proxy = Proxy::start(&config(&postgres));
    let scratch = scratch("backup");
    let target = scratch.path().join("copy");
    run(through(&mut backup, &proxy)
        .args(["-X", "stream", "-c", "fast", "-D"])
        .arg(&target));
    run(verify.arg(&target));
    assert!(wait::until(PATIENCE, || walsenders(&postgres) == "0"));
}

#[test]
fn wal_is_received_until_the_proxy_leaves() {
    let Some(mut receive) = program("pg_receivewal") else {
        Postgres::installed();
        return;
    };
    let postgres = Postgres::start(&PostgresOptions::default());
    let mut proxy = Proxy::start(&config(&postgres));
    let scratch = scratch("wal");
    let receiver = through(&mut receive, &proxy)
        .args(["--no-loop", "-D"])
        .arg(scratch.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let segments = || {
        let files = std::fs::read_dir(scratch.path()).expect("the directory is there");
        files
            .flatten()
            .filter(|file| !file.file_name().to_string_lossy().ends_with(".partial"))
            .count()
    };
    assert!(wait::until(PATIENCE, || walsenders(&postgres) == "1"));
    postgres.run("postgres", "create table t (a int); select pg_switch_wal()");
    assert!(
        wait::until(PATIENCE, || segments() > 0),
        "no segment is whole"
    );
    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    let told = said(receiver);
    assert!(
        told.contains("terminating connection due to administrator command"),
        "{told}"
    );
}

#[test]
fn changes_are_decoded() {
    let Some(mut receive) = program("pg_recvlogical") else {
        Postgres::installed();
        return;
    };
    let postgres = Postgres::start(&PostgresOptions::default());
    postgres.run("postgres", "create table t (a text)");
    let proxy = Proxy::start(&config(&postgres));
    let scratch = scratch("changes");
    let file = scratch.path().join("changes");
    let receiver = through(&mut receive, &proxy)
        .args([
            "-d",
            "postgres",
            "-S",
            "s",
            "-P",
            "test_decoding",
            "--create-slot",
            "--start",
            "-f",
        ])
        .arg(&file)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let active = || {
        postgres.value(
            "postgres",
            "select count(*) from pg_replication_slots where active",
        ) == "1"
    };
    assert!(wait::until(PATIENCE, active), "the slot is not in use");
    postgres.run("postgres", "insert into t values ('through the proxy')");
    assert!(wait::until(PATIENCE, || contains(
        &file,
        "through the proxy"
    )));
    let told = interrupt(receiver);
    // That its stream ended is all it says, as without a proxy.
    assert!(!told.contains("FATAL") && !told.contains("lost"), "{told}");
    assert!(wait::until(PATIENCE, || !active()));
}

#[test]
fn a_subscription_copies_and_follows_over_a_restart_of_the_proxy() {
    if !Postgres::installed() {
        return;
    }
    let (publisher, subscriber) = (
        Postgres::start(&PostgresOptions::default()),
        Postgres::start(
            &PostgresOptions::default().setting("wal_retrieve_retry_interval", "100ms"),
        ),
    );
    let table = "create table t (a int primary key, b text)";
    publisher.run("postgres", table);
    publisher.run(
        "postgres",
        "insert into t select i, repeat(md5(i::text), 50) from generate_series(1, 5000) i",
    );
    publisher.run("postgres", "create publication p for table t");
    subscriber.run("postgres", table);
    let mut proxy = Proxy::start(&config(&publisher));
    let to = |proxy: &Proxy| {
        format!(
            "'host=127.0.0.1 port={} user=pgdog dbname=postgres'",
            proxy.port()
        )
    };
    subscriber.run(
        "postgres",
        &format!(
            "create subscription s connection {} publication p",
            to(&proxy)
        ),
    );
    let sum = "select count(*) || ' ' || md5(string_agg(b, ',' order by a)) from t";
    let follows = || {
        wait::until(PATIENCE, || {
            subscriber.value("postgres", sum) == publisher.value("postgres", sum)
        })
    };
    assert!(follows(), "the copy:\n{}", subscriber.log());
    publisher.run(
        "postgres",
        "insert into t values (0, 'zero'); update t set b = 'b' where a = 7",
    );
    assert!(follows(), "the changes:\n{}", subscriber.log());

    proxy.terminate();
    assert_eq!(proxy.wait(PATIENCE), Some(0));
    assert!(
        wait::until(PATIENCE, || subscriber
            .log()
            .contains("terminating connection due to administrator command")),
        "{}",
        subscriber.log()
    );
    publisher.run("postgres", "delete from t where a > 4000");
    let proxy = Proxy::start(&config(&publisher));
    subscriber.run(
        "postgres",
        &format!("alter subscription s connection {}", to(&proxy)),
    );
    assert!(follows(), "after the restart:\n{}", subscriber.log());
}
