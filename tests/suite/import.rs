//! `pgdog import`: what comes out is run, in front of the Postgres that the other pooler's file names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use pgdog_tests::scratch::Scratch;
use pgdog_tests::{Postgres, PostgresOptions, Proxy, ProxyConfig, Psql, binaries};

fn import(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binaries::pgdog())
        .arg("import")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the proxy runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A Postgres that asks for passwords, with a role for each kind of secret.
fn asking() -> Postgres {
    let options = PostgresOptions::default()
        .hba("host all plain_user 127.0.0.1/32 scram-sha-256")
        .hba("host all hashed_user 127.0.0.1/32 md5")
        .hba("host all scram_user 127.0.0.1/32 scram-sha-256");
    let postgres = Postgres::start(&options);
    postgres.run(
        "postgres",
        "set password_encryption = 'scram-sha-256'; create role plain_user login password 'pl''a\"in'; \
         create role scram_user login password 'scrammed'; \
         set password_encryption = 'md5'; create role hashed_user login password 'hashed'",
    );
    postgres
}

fn stored(postgres: &Postgres, role: &str) -> String {
    let query = format!("select rolpassword from pg_authid where rolname = '{role}'");
    postgres.value("postgres", &query)
}

#[test]
fn clients_of_an_imported_pgbouncer_log_in_with_every_kind_of_secret() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let scratch = Scratch::new("import");
    let userlist = format!(
        "\"plain_user\" \"pl'a\"\"in\"\n\"hashed_user\" \"{}\"\n\"scram_user\" \"{}\"\n",
        stored(&postgres, "hashed_user"),
        stored(&postgres, "scram_user"),
    );
    let port = postgres.port();
    let ini = format!(
        "[databases]\napp = host=127.0.0.1 port={port} dbname=postgres pool_size=2\n\
         forced = host=127.0.0.1 port={port} dbname=postgres user=plain_user password='pl''a\"in'\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 6432\nunix_socket_dir =\nauth_type = md5\n\
         auth_file = userlist.txt\npool_mode = transaction\nquery_wait_timeout = 10\nadmin_users = plain_user\n"
    );
    fs::write(scratch.path().join("pgbouncer.ini"), ini).expect("the directory is writable");
    fs::write(scratch.path().join("userlist.txt"), userlist).expect("the directory is writable");
    let output = import(scratch.path(), &["pgbouncer.ini", "--out", "new"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("userlist.txt:3: user \"scram_user\": a verifier"),
        "{}",
        stderr(&output)
    );

    let read = |name: &str| {
        let path = scratch.path().join("new").join(name);
        let mode = fs::metadata(&path).map(|m| m.permissions().mode() & 0o777);
        assert_eq!(mode.ok(), Some(0o600), "{name}");
        fs::read_to_string(&path).expect("it was written")
    };
    let config = ProxyConfig::written(&postgres, &read("pgdog.toml"), &read("users.toml"));
    let proxy = Proxy::start(&config);
    let login = |user: &str, database: &str, password: &str| {
        let psql = Psql::new(proxy.port(), user, database).password(password);
        psql.run("select current_user")
    };
    for (user, database, password, server_user) in [
        ("plain_user", "app", "pl'a\"in", "plain_user"),
        // The hash serves both sides: the password itself is nowhere in the files.
        ("hashed_user", "app", "hashed", "hashed_user"),
        ("scram_user", "forced", "scrammed", "plain_user"),
        ("hashed_user", "forced", "hashed", "plain_user"),
    ] {
        let right = login(user, database, password);
        assert_eq!(right.expect(&format!("{user} in {database}")), server_user);
        let wrong = login(user, database, "wrong");
        let told = wrong.expect_error(&format!("{user} with a wrong password"));
        assert!(told.contains("password authentication failed"), "{told}");
    }
    // What the note says: nothing is known with which the proxy could log in for this user.
    let refused = login("scram_user", "app", "scrammed");
    let told = refused.expect_error("a verifier towards the server");
    assert!(told.contains("could not log in to the server"), "{told}");
}

#[test]
fn an_imported_pgcat_serves_its_pools() {
    if !Postgres::installed() {
        return;
    }
    let postgres = asking();
    let scratch = Scratch::new("import");
    let toml = format!(
        "[general]\nhost = \"127.0.0.1\"\nport = 6432\nadmin_username = \"admin\"\nadmin_password = \"admin\"\n\
         [pools.app]\npool_mode = \"transaction\"\n[pools.app.users.0]\nusername = \"client\"\npassword = \"of client\"\n\
         server_username = \"plain_user\"\nserver_password = \"pl'a\\\"in\"\npool_size = 3\nstatement_timeout = 4000\n\
         [pools.app.shards.0]\ndatabase = \"postgres\"\nservers = [[\"127.0.0.1\", {}, \"primary\"]]\n",
        postgres.port()
    );
    fs::write(scratch.path().join("pgcat.toml"), toml).expect("the directory is writable");
    let output = import(scratch.path(), &["pgcat.toml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let (pgdog, users) = text
        .split_once("# ---- users.toml ----\n")
        .expect("two documents");
    let proxy = Proxy::start(&ProxyConfig::written(&postgres, pgdog, users));
    let psql = Psql::new(proxy.port(), "client", "app").password("of client");
    let answer = psql.run("select current_user || ' ' || current_setting('statement_timeout')");
    assert_eq!(answer.expect("the pool"), "plain_user 4s");
    psql.password("wrong")
        .run("select 1")
        .expect_error("a wrong password");
}

#[test]
fn files_that_are_there_are_not_overwritten_by_accident() {
    let scratch = Scratch::new("import");
    let path = |name: &str| scratch.path().join(name);
    fs::write(path("pgbouncer.ini"), "[pgbouncer]\nlisten_port = 7000\n").expect("writable");
    fs::write(path("users.toml"), "mine").expect("writable");

    let refused = import(scratch.path(), &["pgbouncer.ini", "--out", "."]);
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("users.toml is there already"),
        "{}",
        stderr(&refused)
    );
    assert!(!path("pgdog.toml").exists());
    assert_eq!(
        fs::read_to_string(path("users.toml")).ok().as_deref(),
        Some("mine")
    );

    let forced = import(scratch.path(), &["pgbouncer.ini", "--out", ".", "--force"]);
    assert!(forced.status.success(), "{}", stderr(&forced));
    let mode = fs::metadata(path("users.toml")).map(|m| m.permissions().mode() & 0o777);
    assert_eq!(mode.ok(), Some(0o600));
    let toml = fs::read_to_string(path("pgdog.toml")).unwrap_or_default();
    assert!(toml.contains("\nport = 7000\n"), "{toml}");
}

#[test]
fn nothing_is_written_for_a_file_that_is_not_understood() {
    let scratch = Scratch::new("import");
    let ini = scratch.path().join("pgbouncer.ini");
    fs::write(
        ini,
        "[pgbouncer]\npol_mode = session\nauth_type = kerberos\n",
    )
    .expect("writable");
    let output = import(scratch.path(), &["pgbouncer.ini", "--out", "new"]);
    assert!(!output.status.success());
    let told = stderr(&output);
    assert!(
        told.contains(
            "pgbouncer.ini:2: pol_mode: unknown key in [pgbouncer], did you mean \"pool_mode\"?"
        ),
        "{told}"
    );
    assert!(
        told.contains("pgbouncer.ini:3: auth_type: expected"),
        "{told}"
    );
    assert!(!scratch.path().join("new").exists());
}
