//! `auth_type = "hba"`: the first rule that fits decides.

use std::fs;

use pgdog_tests::{Authority, Frame, Message, Postgres, Proxy, Psql, RawClient};

use super::{by_rules, logs, users};
use crate::login::clients::{quoted, with_tls};

#[test]
fn each_method_asks_for_its_own_proof() {
    if !Postgres::installed() {
        return;
    }
    let rules = "
        host all trusted all trust
        host all md5er all md5
        host all teller all password
        host all scrammer all scram-sha-256
        host all stored all md5
    ";
    let (_files, config) = by_rules(rules, "");
    let verifier = Postgres::shared().value(
        "postgres",
        "set password_encryption = 'scram-sha-256'; drop role if exists of_rules; create role of_rules password 'stored'; \
         select rolpassword from pg_authid where rolname = 'of_rules'",
    );
    let config = users(config, &["trusted", "md5er", "teller", "scrammer"]).append_users(&format!(
        "[[users]]\nname = \"stored\"\ndatabase = \"postgres\"\npassword_hash = \"{verifier}\"\nserver_user = \"pgdog\"\nserver_password = \"pgdog\""
    ));
    let proxy = Proxy::start(&config);
    // By the kind of the request: 0 is "come in", 3 text, 5 MD5, 10 SASL. Who has only a verifier is asked for SCRAM.
    for (user, request) in [
        ("trusted", 0),
        ("md5er", 5),
        ("teller", 3),
        ("scrammer", 10),
        ("stored", 10),
        ("nobody", 10),
    ] {
        let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
        client.send(&[Message::startup(&[
            ("user", user),
            ("database", "postgres"),
        ])]);
        let frames = client.take(1);
        if user == "nobody" {
            assert!(
                frames[0].line().contains("no pg_hba.conf entry"),
                "{frames:?}"
            );
            continue;
        }
        assert_eq!(
            (frames[0].tag, frames[0].body[3]),
            (b'R', request),
            "{user}"
        );
        let psql = Psql::new(proxy.port(), user, "postgres");
        let right = psql.clone().password(user).run("select current_user");
        assert_eq!(right.expect(user), "pgdog");
        if user != "trusted" {
            let wrong = psql.password("wrong").run("select 1");
            let told = wrong.expect_error(user);
            assert!(
                told.contains("password authentication failed for user"),
                "{told}"
            );
        }
    }
}

#[test]
fn who_is_rejected_hears_it_in_the_words_of_postgres_and_the_log_names_the_line() {
    if !Postgres::installed() {
        return;
    }
    let rules = "\
        host all rejected 127.0.0.0/8 reject\n\
        host all rejected all trust\n\
        host sameuser postgres all trust\n\
        host replication replica all reject\n\
        local all rejected reject\n";
    let (files, config) = by_rules(rules, "");
    let proxy = Proxy::start(&users(
        config,
        &["rejected", "postgres", "replica", "other"],
    ));
    let psql = |user: &str| Psql::new(proxy.port(), user, "postgres").password(user);
    let told = |psql: Psql| psql.run("select 1").expect_error("rejected").to_owned();
    let start = "127.0.0.1";
    let cases = [
        (
            psql("rejected"),
            format!("FATAL:  pg_hba.conf rejects connection for host \"{start}\", user \"rejected\", database \"postgres\", no encryption"),
        ),
        (
            psql("other"),
            format!("FATAL:  no pg_hba.conf entry for host \"{start}\", user \"other\", database \"postgres\", no encryption"),
        ),
        (
            psql("replica").with("replication", "true"),
            format!("FATAL:  pg_hba.conf rejects replication connection for host \"{start}\", user \"replica\", no encryption"),
        ),
        (
            psql("other").with("replication", "true"),
            format!("FATAL:  no pg_hba.conf entry for replication connection from host \"{start}\", user \"other\", no encryption"),
        ),
        (
            // Logical replication is a connection to a database as any other.
            psql("replica").with("replication", "database"),
            format!("FATAL:  no pg_hba.conf entry for host \"{start}\", user \"replica\", database \"postgres\", no encryption"),
        ),
        (
            psql("rejected").with("host", &files.path().display().to_string()),
            "FATAL:  pg_hba.conf rejects connection for host \"[local]\", user \"rejected\", database \"postgres\", no encryption".to_owned(),
        ),
    ];
    for (psql, text) in cases {
        let said = told(psql);
        assert!(said.contains(&text), "{said}\ninstead of\n{text}");
    }
    psql("postgres").run("select 1").expect("sameuser");
    let (_, frames) = RawClient::login_with(
        proxy.port(),
        &[("user", "rejected"), ("database", "postgres")],
    )
    .expect("it answers");
    assert_eq!(frames[0].field(b'C').as_deref(), Some("28000"));
    logs(&proxy, "/hba:1: host all \"rejected\"", 1);
    logs(&proxy, "no rule of auth_hba_file fits", 3);
}

#[test]
fn addresses_decide_and_those_of_this_machine_are_found_out() {
    if !Postgres::installed() {
        return;
    }
    let rules = "\
        host all a 127.0.0.2/32 trust\n\
        host all b samehost trust\n\
        host all c samenet trust\n";
    let (_files, config) = by_rules(rules, "");
    let proxy = Proxy::start(&users(config, &["a", "b", "c"]));
    let comes_in = |user: &str, last: u8| {
        let mut client = RawClient::open_from([127, 0, 0, last].into(), proxy.port())
            .expect("the proxy accepts");
        client.send(&[Message::startup(&[
            ("user", user),
            ("database", "postgres"),
        ])]);
        client.until_ready().last().is_some_and(|f| f.tag == b'Z')
    };
    assert!(!comes_in("a", 1) && comes_in("a", 2));
    assert!(comes_in("b", 1) && !comes_in("b", 2));
    assert!(comes_in("c", 1) && comes_in("c", 2));
}

#[test]
fn a_certificate_is_asked_for_and_its_name_is_mapped() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let rules = "\
        hostssl all alice all cert\n\
        hostssl all mapped all cert map=m\n\
        hostssl all named all cert map=d clientname=DN\n\
        hostssl all both all scram-sha-256 clientcert=verify-full\n\
        hostssl all any all trust clientcert=verify-ca\n\
        hostnossl all plain all trust\n";
    let maps = "m /^(.*)@example\\.org$ mapped\nd \"CN=alice\" named\n";
    let (_files, config) = by_rules(rules, maps);
    let config = with_tls(config, &authority).general(
        "tls_client_ca_certificate",
        &quoted(&authority.certificate()),
    );
    let names = ["alice", "mapped", "named", "both", "any", "plain"];
    let proxy = Proxy::start(&users(config, &names));
    let certificates =
        ["alice", "both", "x@example.org"].map(|name| (name, authority.issue(name, &[])));
    let run = |user: &str, certificate: &str, password: &str| {
        let psql = Psql::new(proxy.port(), user, "postgres").password(password);
        let pair = certificates.iter().find(|(name, _)| *name == certificate);
        let psql = match pair {
            Some((_, pair)) => psql.certificate(&pair.certificate, &pair.key),
            None => psql.with("sslmode", "require"),
        };
        let output = psql.run("select 1");
        if output.success {
            "in".to_owned()
        } else {
            output.stderr
        }
    };
    let missing = "connection requires a valid client certificate";
    let other = "certificate authentication failed for user";
    for (user, certificate, password, expected) in [
        ("alice", "alice", "", "in"),
        ("alice", "both", "", other),
        ("alice", "", "alice", missing),
        ("mapped", "x@example.org", "", "in"),
        ("mapped", "alice", "", other),
        ("named", "alice", "", "in"),
        ("named", "both", "", other),
        ("both", "both", "both", "in"),
        ("both", "both", "wrong", "password authentication failed"),
        ("both", "alice", "both", other),
        ("both", "", "both", missing),
        ("any", "alice", "", "in"),
        ("any", "", "", missing),
        (
            "plain",
            "",
            "plain",
            "no pg_hba.conf entry for host \"127.0.0.1\", user \"plain\", database \"postgres\", SSL encryption",
        ),
    ] {
        let told = run(user, certificate, password);
        assert!(
            told.contains(expected),
            "{user} with {certificate:?}: {told}"
        );
    }
    Psql::new(proxy.port(), "plain", "postgres")
        .run("select 1")
        .expect("without TLS");
    logs(&proxy, "map \"m\" does not let \"alice\" be this user", 1);
}

#[test]
fn the_user_of_this_machine_is_known_over_the_unix_socket() {
    if !Postgres::installed() {
        return;
    }
    let me = std::process::Command::new("id")
        .arg("-un")
        .output()
        .expect("id runs");
    let me = String::from_utf8_lossy(&me.stdout).trim().to_owned();
    let rules = "local all mapped peer map=m\nlocal all all peer\n";
    let (files, config) = by_rules(rules, &format!("m {me} mapped\n"));
    let proxy = Proxy::start(&users(config, &[me.as_str(), "mapped", "other"]));
    let psql = |user: &str| {
        Psql::new(proxy.port(), user, "postgres").with("host", &files.path().display().to_string())
    };
    psql(&me).run("select 1").expect("the same name");
    psql("mapped").run("select 1").expect("the map");
    let refused = psql("other").run("select 1");
    let told = refused.expect_error("another name");
    assert!(
        told.contains("FATAL:  Peer authentication failed for user \"other\""),
        "{told}"
    );
}

#[test]
fn a_reload_reads_the_rules_anew_and_wrong_ones_change_nothing() {
    if !Postgres::installed() {
        return;
    }
    let (files, config) = by_rules("host all a all trust\n", "");
    let proxy = Proxy::start(&users(config, &["a", "b"]));
    let comes_in = |user: &str| RawClient::try_login(proxy.port(), user, "postgres").is_ok();
    let mut stays = proxy.client("a", "postgres");
    assert!(comes_in("a") && !comes_in("b"));
    let write = |text: &str| {
        fs::write(files.path().join("hba"), text).expect("the file can be written");
        proxy.reload();
    };
    write("host all b all trust\n");
    logs(&proxy, "configuration reloaded", 1);
    assert!(!comes_in("a") && comes_in("b"));
    assert_eq!(stays.query_value("select 1"), "1", "who is in stays in");
    for (number, (wrong, told)) in [
        ("host all a all trust\nhost all all all ldap\n", "/hba:2"),
        ("hostssl all a all cert\n", "tls_client_ca_certificate"),
        ("host all a 127.0.0.1/64 trust\n", "/hba:1"),
    ]
    .into_iter()
    .enumerate()
    {
        write(wrong);
        logs(&proxy, "failed to reload", number + 1);
        assert!(proxy.log().contains(told), "{told}:\n{}", proxy.log());
        assert!(!comes_in("a") && comes_in("b"), "{wrong}");
    }
    fs::remove_file(files.path().join("hba")).expect("it is there");
    proxy.reload();
    logs(&proxy, "failed to reload", 4);
    assert!(comes_in("b"), "no file");
    write("host all a,b all trust\n");
    logs(&proxy, "configuration reloaded", 2);
    assert!(comes_in("a") && comes_in("b"));
}

#[test]
fn drivers_come_in_by_rules() {
    if !Postgres::installed() {
        return;
    }
    let (_files, config) = by_rules(
        "host all scrammer all scram-sha-256\nhost all md5er all md5\n",
        "",
    );
    let proxy = Proxy::start(&users(config, &["scrammer", "md5er"]));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for user in ["scrammer", "md5er"] {
            let mut config = tokio_postgres::Config::new();
            config
                .host("127.0.0.1")
                .port(proxy.port())
                .user(user)
                .password(user)
                .dbname("postgres");
            let (client, connection) = config
                .connect(tokio_postgres::NoTls)
                .await
                .expect("it comes in");
            let driver = tokio::spawn(connection);
            let row = client
                .query_one("select current_user::text", &[])
                .await
                .expect("a row");
            assert_eq!(row.get::<_, String>(0), "pgdog");
            drop(client);
            driver.await.expect("it ends").expect("in peace");
            config.password("wrong");
            let refused = config
                .connect(tokio_postgres::NoTls)
                .await
                .map(|_| ())
                .expect_err("a wrong password");
            let code = refused
                .as_db_error()
                .map(|error| error.code().code().to_owned());
            assert_eq!(code.as_deref(), Some("28P01"));
        }
    });
}

/// What is not used otherwise: that a refusal is one message.
#[test]
fn a_refusal_is_one_message_and_the_end() {
    if !Postgres::installed() {
        return;
    }
    let (_files, config) = by_rules("host all a 10.0.0.0/8 trust\n", "");
    let proxy = Proxy::start(&users(config, &["a"]));
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::startup(&[("user", "a"), ("database", "postgres")])]);
    let frames = client.until_eof().expect("it is closed");
    assert_eq!(
        frames.iter().map(|f: &Frame| f.tag).collect::<Vec<_>>(),
        [b'E']
    );
}
