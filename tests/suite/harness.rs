//! The harness keeps its promises.

use std::path::PathBuf;

use pgdog_tests::{Message, Postgres, PostgresOptions, RawClient, StopMode, transcript};

#[test]
fn a_cluster_starts_again_after_every_kind_of_stop() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default().setting("work_mem", "7MB"));
    postgres.run("postgres", "create table t as select 1 as a");
    for mode in [StopMode::Smart, StopMode::Fast, StopMode::Immediate] {
        postgres.stop(mode);
        assert!(
            RawClient::try_login(postgres.port(), "postgres", "postgres").is_err(),
            "{mode:?}"
        );
        postgres.start_again();
        assert_eq!(
            postgres.value("postgres", "select a from t"),
            "1",
            "{mode:?}"
        );
    }
    postgres.stop(StopMode::Kill);
    postgres.start_again();
    assert_eq!(postgres.value("postgres", "show work_mem"), "7MB");
}

#[test]
fn a_dropped_cluster_leaves_nothing() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(&PostgresOptions::default());
    let (data, port): (PathBuf, u16) = (postgres.data_directory(), postgres.port());
    assert!(data.is_dir());
    drop(postgres);
    assert!(!data.exists());
    assert!(RawClient::try_login(port, "postgres", "postgres").is_err());
}

#[test]
fn a_cluster_offers_tls_and_asks_for_passwords_when_told() {
    if !Postgres::installed() {
        return;
    }
    let options = PostgresOptions::default()
        .tls()
        .hba("host all locked 127.0.0.1/32 scram-sha-256");
    let postgres = Postgres::start(&options);
    postgres.run("postgres", "create role locked login password 'secret'");
    let (_, asked) = RawClient::login_with(
        postgres.port(),
        &[("user", "locked"), ("database", "postgres")],
    )
    .expect("Postgres accepts connections");
    assert_eq!(
        transcript::lines(&asked).first().map(String::as_str),
        Some("R 10")
    );
    let mut client = RawClient::open(postgres.port()).expect("Postgres accepts connections");
    client.send(&[Message::SslRequest]);
    assert_eq!(client.receive_byte(pgdog_tests::raw::PATIENCE), Some(b'S'));
}
