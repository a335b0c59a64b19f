//! The proxy towards Postgres.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{
    Authority, Frame, Message, Postgres, PostgresOptions, Proxy, ProxyConfig, RawClient, template,
    wait,
};

use super::clients::quoted;
use super::{asking, refusal};

/// A Postgres that asks each role for proof in its own way.
fn strict() -> Postgres {
    let options = PostgresOptions::default()
        .tls()
        .hba("host all by_scram all scram-sha-256")
        .hba("host all by_md5 all md5")
        .hba("host all by_plain all password")
        .hba("hostssl all by_cert all cert")
        .hba("hostnossl all by_cert all reject")
        .hba("hostssl all only_tls all trust")
        .hba("hostnossl all only_tls all reject")
        .hba("hostnossl all only_clear all trust")
        .hba("hostssl all only_clear all reject");
    let postgres = Postgres::start(&options);
    postgres.run("postgres", "create role by_scram login password 'secret'");
    postgres.run(
        "postgres",
        "set password_encryption = md5; create role by_md5 login password 'secret'",
    );
    postgres.run("postgres", "create role by_plain login password 'secret'");
    postgres.run(
        "postgres",
        "create role by_cert login; create role only_tls login; create role only_clear login",
    );
    postgres
}

/// Gives Postgres a certificate of this authority for these names, and has it trust the authority's clients.
fn certify(postgres: &Postgres, authority: &Authority, names: &[&str]) {
    let data = postgres.data_directory();
    let pair = authority.issue("postgres server", names);
    pair.install(&data.join("server.crt"), &data.join("server.key"));
    std::fs::copy(authority.certificate(), data.join("ca.crt"))
        .expect("the data directory is writable");
    for file in ["server.crt", "server.key", "ca.crt"] {
        template::hand_over(&data.join(file));
    }
    postgres.run("postgres", "alter system set ssl_ca_file = 'ca.crt'");
    postgres.reload();
}

/// Logs in through a proxy of this configuration and tells who Postgres thinks it is, and whether over TLS.
fn outcome(config: &ProxyConfig, user: &str) -> Result<String, String> {
    let proxy = Proxy::start(config);
    let (mut client, frames) =
        RawClient::login_with(proxy.port(), &[("user", user), ("database", "postgres")])?;
    if frames.last().and_then(Frame::status).is_none() {
        return Err(refusal(&frames));
    }
    let rows = client.query_rows(
        "select current_user || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()",
    );
    Ok(rows[0][0].clone())
}

fn one_user(postgres: &Postgres, lines: &str) -> ProxyConfig {
    let users = format!(
        "[[users]]\nname = \"client\"\ndatabase = \"postgres\"\npassword = \"the client's\"\n{lines}"
    );
    asking(postgres, "trust")
        .database("postgres")
        .append_users(&users)
}

#[test]
fn every_method_postgres_asks_for_is_answered() {
    if !Postgres::installed() {
        return;
    }
    let postgres = strict();
    for user in ["by_scram", "by_md5", "by_plain"] {
        let login = |password: &str| {
            one_user(
                &postgres,
                &format!("server_user = \"{user}\"\nserver_password = \"{password}\""),
            )
        };
        assert_eq!(
            outcome(&login("secret"), "client"),
            Ok(format!("{user} true"))
        );
        let clear = login("secret").general("tls_verify", "\"disabled\"");
        assert_eq!(outcome(&clear, "client"), Ok(format!("{user} false")));
        let told = outcome(&login("wrong"), "client").expect_err("the password is wrong");
        assert!(
            told.starts_with("E FATAL 28P01") && told.contains(user),
            "{told}"
        );
        let told = outcome(
            &one_user(&postgres, &format!("server_user = \"{user}\"")),
            "client",
        )
        .expect_err("the client's password is wrong");
        assert!(told.starts_with("E FATAL 28P01"), "{told}");
    }
    let rotated = "server_user = \"by_scram\"\npasswords = [\"secret\"]";
    assert_eq!(
        outcome(&one_user(&postgres, rotated), "client"),
        Ok("by_scram true".to_owned()),
        "the second password is tried too"
    );
    let of_database = asking(&postgres, "trust")
        .database_with("postgres", &["user = \"by_md5\"", "password = \"secret\""])
        .user("client", "other");
    assert_eq!(
        outcome(&of_database, "client"),
        Ok("by_md5 true".to_owned())
    );
    let told = outcome(&one_user(&postgres, "server_user = \"nobody\""), "client")
        .expect_err("there is no such role");
    assert!(
        told.starts_with("E FATAL 28000") && told.contains("nobody"),
        "{told}"
    );
}

#[test]
fn tls_is_used_as_far_as_the_mode_says() {
    if !Postgres::installed() {
        return;
    }
    let postgres = strict();
    let (authority, stranger) = (Authority::new(), Authority::new());
    certify(&postgres, &authority, &["elsewhere.example"]);
    let login = |user: &str, mode: &str, ca: Option<&Authority>| {
        let config = one_user(&postgres, &format!("server_user = \"{user}\""))
            .general("tls_verify", &format!("\"{mode}\""));
        let config = ca.iter().fold(config, |config, ca| {
            config.general("tls_server_ca_certificate", &quoted(&ca.certificate()))
        });
        outcome(&config, "client")
    };
    let tls = Ok("only_tls true".to_owned());
    assert_eq!(login("only_tls", "prefer", None), tls);
    assert_eq!(login("only_tls", "verify_ca", Some(&authority)), tls);
    let told = login("only_tls", "disabled", None).expect_err("Postgres rejects it without TLS");
    assert!(
        told.starts_with("E FATAL 28000") && told.contains("pg_hba.conf"),
        "{told}"
    );
    assert_eq!(
        login("only_clear", "disabled", None),
        Ok("only_clear false".to_owned())
    );
    let told = login("only_tls", "verify_ca", Some(&stranger)).expect_err("another authority");
    assert!(
        told.starts_with("E FATAL 08001: cannot connect to server 127.0.0.1:")
            && told.contains("certificate is not signed by a CA in tls_server_ca_certificate"),
        "{told}"
    );
    let told = login("only_tls", "verify_full", Some(&authority)).expect_err("another name");
    assert!(
        told.starts_with("E FATAL 08")
            && told.contains("is for elsewhere.example, and not for 127.0.0.1"),
        "{told}"
    );

    certify(&postgres, &authority, &["127.0.0.1"]);
    assert_eq!(login("only_tls", "verify_full", Some(&authority)), tls);
}

#[test]
fn a_certificate_of_the_proxys_own_logs_it_in() {
    if !Postgres::installed() {
        return;
    }
    let postgres = strict();
    let authority = Authority::new();
    certify(&postgres, &authority, &["127.0.0.1"]);
    let own = authority.issue("by_cert", &[]);
    let with = |pair: &pgdog_tests::certificates::Pair| {
        one_user(&postgres, "server_user = \"by_cert\"")
            .general("tls_server_certificate", &quoted(&pair.certificate))
            .general("tls_server_private_key", &quoted(&pair.key))
    };
    assert_eq!(
        outcome(&with(&own), "client"),
        Ok("by_cert true".to_owned())
    );
    let told = outcome(&with(&authority.issue("other", &[])), "client")
        .expect_err("the name in it is another");
    assert!(told.starts_with("E FATAL 28000"), "{told}");
    let told = outcome(&one_user(&postgres, "server_user = \"by_cert\""), "client")
        .expect_err("there is no certificate");
    assert!(told.starts_with("E FATAL 28"), "{told}");
}

#[test]
fn the_authority_of_servers_is_read_again_on_reload() {
    if !Postgres::installed() {
        return;
    }
    let postgres = strict();
    let (authority, stranger) = (Authority::new(), Authority::new());
    certify(&postgres, &authority, &["127.0.0.1"]);
    let file = stranger.certificate();
    let config = one_user(&postgres, "server_user = \"only_tls\"")
        .general("tls_verify", "\"verify_full\"")
        .general("checkout_timeout", "400")
        .general("tls_server_ca_certificate", &quoted(&file));
    let proxy = Proxy::start(&config);
    RawClient::try_login(proxy.port(), "client", "postgres").expect_err("another authority");
    std::fs::copy(authority.certificate(), &file).expect("the file is ours");
    proxy.reload();
    assert!(
        wait::until(PATIENCE, || RawClient::try_login(
            proxy.port(),
            "client",
            "postgres"
        )
        .is_ok()),
        "{}",
        proxy.log()
    );
}

#[test]
fn a_server_is_reached_over_its_unix_socket() {
    if !Postgres::installed() {
        return;
    }
    let postgres = Postgres::start(
        &PostgresOptions::default()
            .hba("local all by_socket scram-sha-256")
            .hba("host all by_socket all reject"),
    );
    postgres.run("postgres", "create role by_socket login password 'secret'");
    let database = format!(
        "[[databases]]\nname = \"d\"\ndatabase_name = \"postgres\"\nhost = {}\nport = {}",
        quoted(postgres.socket_directory()),
        postgres.port()
    );
    let users = "[[users]]\nname = \"client\"\ndatabase = \"d\"\npassword = \"x\"\nserver_user = \"by_socket\"\nserver_password = \"secret\"";
    let proxy = Proxy::start(
        &asking(&postgres, "trust")
            .append(&database)
            .append_users(users),
    );
    let mut client = proxy.client("client", "d");
    assert_eq!(
        client.query_value("select current_user || coalesce(inet_client_addr()::text, '')"),
        "by_socket"
    );
    // Cancel requests take the same way.
    client.send(&[Message::query("select pg_sleep(60)")]);
    pgdog_tests::Activity::new(&postgres, "postgres")
        .wait(1, "state = 'active' and query like 'select pg_sleep%'");
    let mut canceller = RawClient::open(proxy.port()).expect("the proxy accepts");
    canceller.send(&[client.cancel_request().expect("there is a key")]);
    let frames = client.until_ready();
    assert!(
        frames
            .iter()
            .any(|frame| frame.field(b'C').as_deref() == Some("57014")),
        "{frames:?}"
    );
}

#[test]
fn a_server_without_tls_is_refused_where_verification_is_wanted() {
    if !Postgres::installed() {
        return;
    }
    let authority = Authority::new();
    let config = asking(Postgres::shared(), "trust")
        .general("tls_verify", "\"verify_ca\"")
        .general(
            "tls_server_ca_certificate",
            &quoted(&authority.certificate()),
        )
        .database("postgres")
        .user("pgdog", "pgdog");
    let told = outcome(&config, "pgdog").expect_err("it has no TLS");
    assert!(
        told.starts_with("E FATAL 08001") && told.contains("does not support TLS"),
        "{told}"
    );
    let prefer = asking(Postgres::shared(), "trust")
        .database("postgres")
        .user("pgdog", "pgdog");
    assert_eq!(outcome(&prefer, "pgdog"), Ok("pgdog false".to_owned()));
}

#[test]
fn a_database_that_postgres_does_not_have_is_named() {
    if !Postgres::installed() {
        return;
    }
    let proxy = Proxy::start(
        &asking(Postgres::shared(), "trust")
            .database("gone")
            .user("pgdog", "pgdog"),
    );
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    client.send(&[Message::startup(&[("user", "pgdog"), ("database", "gone")])]);
    let told = refusal(&client.until_ready());
    assert!(
        told.starts_with("E FATAL 3D000") && told.contains("gone"),
        "{told}"
    );
}
