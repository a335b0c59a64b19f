//! The command line: configcheck, hash, URLs, YAML, and the warnings at start.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::scratch::{Scratch, free_port};
use pgdog_tests::{Postgres, Proxy, Psql, RawClient, binaries, guardian, wait};

use super::config;

/// The program, far from any configuration file or variable.
fn pgdog(directory: &Scratch) -> Command {
    let mut command = Command::new(binaries::pgdog());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("PGDOG_") || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    command.current_dir(directory.path()).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A proxy that was started by hand.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, port: u16) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgdog runs");
        guardian::watch_process(child.id());
        let accepts = wait::until(Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let ended = child.try_wait().ok().flatten();
        let this = Self(child);
        assert!(accepts && ended.is_none(), "it does not start: {ended:?}");
        this
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
        guardian::forget_process(self.0.id());
    }
}

#[test]
fn configcheck_finds_everything_that_is_wrong_at_once() {
    let directory = Scratch::new("configcheck");
    let write = |name: &str, content: &str| {
        fs::write(directory.path().join(name), content).expect("it is writable")
    };
    write(
        "pgdog.toml",
        "[general]\nport = 1\n\n[[databases]]\nname = \"d\"\nhost = \"h\"\n",
    );
    write(
        "users.toml",
        "[[users]]\nname = \"u\"\ndatabase = \"d\"\npassword = \"secret123\"\n",
    );
    let check = || {
        pgdog(&directory)
            .arg("configcheck")
            .output()
            .expect("pgdog runs")
    };
    let output = check();
    assert!(
        output.status.success() && text(&output).contains("valid"),
        "{}",
        text(&output)
    );

    write(
        "pgdog.toml",
        "[general]\nport = 1\nworker = 2\ndefault_pool_size = \"x\"\n\n[[databases]]\nname = \"d\"\nhost = \"h\"\npools = 1\n",
    );
    write(
        "users.toml",
        "[[users]]\nname = \"u\"\ndatabase = \"d\"\npasword = \"secret123\"\n",
    );
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    for expected in [
        "pgdog.toml:3",
        "\"workers\"",
        "pgdog.toml:4",
        "pgdog.toml:9",
        "users.toml:4",
        "\"password\"",
    ] {
        assert!(told.contains(expected), "no {expected} in:\n{told}");
    }
    assert!(!told.contains("secret123"), "{told}");
    let output = pgdog(&directory)
        .args(["configcheck", "--config", "missing.toml"])
        .output()
        .expect("pgdog runs");
    assert!(
        output.status.code() == Some(1) && text(&output).contains("missing.toml"),
        "{}",
        text(&output)
    );
}

#[test]
fn configcheck_reads_the_files_that_are_named() {
    let directory = Scratch::new("configcheck-files");
    let general = "[general]\nport = 1\nauth_type = \"hba\"\nauth_hba_file = \"/nonexistent/hba\"\n\
        tls_certificate = \"/nonexistent/crt\"\ntls_private_key = \"/nonexistent/key\"\n";
    let config = format!("{general}\n[[databases]]\nname = \"d\"\nhost = \"h\"\n");
    fs::write(directory.path().join("pgdog.toml"), config).expect("it is writable");
    let users = "[[users]]\nname = \"u\"\ndatabase = \"d\"\npassword = \"x\"\n";
    fs::write(directory.path().join("users.toml"), users).expect("it is writable");
    let output = pgdog(&directory)
        .arg("configcheck")
        .output()
        .expect("pgdog runs");
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("/nonexistent/hba") && told.contains("/nonexistent/crt"),
        "{told}"
    );
}

#[test]
fn an_empty_folder_is_no_configuration() {
    let directory = Scratch::new("empty");
    for command in [&["configcheck"][..], &["run"], &[]] {
        let output = pgdog(&directory)
            .args(command)
            .output()
            .expect("pgdog runs");
        let told = text(&output);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {told}");
        let file = |name: &str| directory.path().join(name).display().to_string();
        for expected in [
            &file("pgdog.toml"),
            &file("users.toml"),
            "--config",
            "--database-url",
        ] {
            assert!(told.contains(expected), "no {expected} in: {told}");
        }
    }
    let output = pgdog(&directory)
        .args(["configcheck", "--database-url", "postgres://u:p@h/d"])
        .output()
        .expect("pgdog runs");
    assert!(
        output.status.success() && text(&output).contains("valid"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_misspelt_variable_is_told_by_configcheck_and_at_the_start() {
    let directory = Scratch::new("variables");
    let check = |name: &str| {
        let output = pgdog(&directory)
            .args(["configcheck", "--database-url", "postgres://u:p@h/d"])
            .env(name, "1")
            .output()
            .expect("pgdog runs");
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let told = check("PGDOG_WORKRES");
    assert!(
        told.contains("PGDOG_WORKRES") && told.contains("did you mean PGDOG_WORKERS?"),
        "{told}"
    );
    for name in ["PGDOG_WORKERS", "PGDOG_CLUSTER_UID", "PGDOG_POD_UID"] {
        assert!(!check(name).contains("environment"), "{name}");
    }
    if !Postgres::installed() {
        return;
    }
    let mut proxy = Proxy::start(&config(&Postgres::shared().fresh_database()));
    proxy.start_again(&[], &[("PGDOG_WORKRES", "1")]);
    let warned = |line: &str| line.contains("WARN") && line.contains("did you mean PGDOG_WORKERS?");
    assert!(
        wait::until(PATIENCE, || proxy.log().lines().any(warned)),
        "{}",
        proxy.log()
    );
}

#[test]
fn sslmode_in_a_url_is_refused_with_the_key_that_does_the_same() {
    let directory = Scratch::new("sslmode");
    let output = pgdog(&directory)
        .args([
            "configcheck",
            "--database-url",
            "postgres://u:secret123@h/d?sslmode=verify-full",
        ])
        .output()
        .expect("pgdog runs");
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("sslmode") && told.contains("general.tls_verify = \"verify_full\""),
        "{told}"
    );
    assert!(!told.contains("secret123"), "{told}");
}

#[test]
fn keys_without_effect_are_named_once_at_start() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let config = config(&database)
        .general("dry_run", "true")
        .general("broadcast_port", "9090")
        .append("[[sharded_tables]]\ndatabase = \"x\"\nname = \"t\"\ncolumn = \"id\"\ndata_type = \"bigint\"");
    let proxy = Proxy::start(&config);
    proxy.client("pgdog", database.name()).run("select 1");
    let log = proxy.log();
    for key in [
        "general.dry_run",
        "general.broadcast_port",
        "sharded_tables",
    ] {
        let named = log
            .lines()
            .filter(|line| line.contains(key) && line.contains("no effect"))
            .count();
        assert_eq!(named, 1, "{key}:\n{log}");
    }
    assert!(!log.contains("default_pool_size: has no effect"), "{log}");
}

#[test]
fn hash_makes_verifiers_that_log_in() {
    if !Postgres::installed() {
        return;
    }
    let directory = Scratch::new("hash");
    let output = pgdog(&directory)
        .args(["hash", "pass word"])
        .output()
        .expect("pgdog runs");
    let verifier = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && verifier.starts_with("SCRAM-SHA-256$4096:"),
        "{}",
        text(&output)
    );
    let mut asked = pgdog(&directory)
        .arg("hash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pgdog runs");
    asked
        .stdin
        .take()
        .expect("it is piped")
        .write_all(b"pass word\n")
        .expect("it reads");
    let output = asked.wait_with_output().expect("it ends");
    assert!(
        output.status.success() && output.stdout.starts_with(b"SCRAM-SHA-256$"),
        "{}",
        text(&output)
    );
    assert_ne!(
        output.stdout,
        format!("{verifier}\n").as_bytes(),
        "a salt of its own each time"
    );

    let database = Postgres::shared().fresh_database();
    let config = pgdog_tests::ProxyConfig::transaction(Postgres::shared())
        .general("auth_type", "\"scram\"")
        .database(database.name())
        .append_users(&format!(
            "[[users]]\nname = \"pgdog\"\ndatabase = \"{}\"\npassword_hash = \"{verifier}\"",
            database.name()
        ));
    let proxy = Proxy::start(&config);
    let psql = Psql::new(proxy.port(), "pgdog", database.name());
    assert_eq!(
        psql.clone()
            .password("pass word")
            .run("select 1")
            .expect("the right password"),
        "1"
    );
    psql.password("password")
        .run("select 1")
        .expect_error("the wrong password");
    // Postgres takes it as well.
    let mut superuser = Postgres::shared().client("postgres");
    superuser.run(&format!(
        "create role of_hash password '{verifier}'; drop role of_hash"
    ));
}

#[test]
fn a_url_is_all_it_needs() {
    if !Postgres::installed() {
        return;
    }
    let directory = Scratch::new("url");
    let database = Postgres::shared().fresh_database();
    let (port, postgres) = (free_port(), Postgres::shared().port());
    let url = format!(
        "postgres://pgdog:pg%64og@127.0.0.1:{postgres}/{}?pool_size=2&pooler_mode=session",
        database.name()
    );
    let mut command = pgdog(&directory);
    command
        .args(["--database-url", &url])
        .env("PGDOG_PORT", port.to_string())
        .env("PGDOG_HOST", "127.0.0.1");
    let _running = Running::start(&mut command, port);
    let psql = Psql::new(port, "pgdog", database.name());
    assert_eq!(
        psql.clone()
            .password("pgdog")
            .run("select current_database()")
            .expect("over the URL"),
        database.name()
    );
    psql.password("wrong")
        .run("select 1")
        .expect_error("a wrong password");
}

#[test]
fn one_yaml_file_holds_everything() {
    if !Postgres::installed() {
        return;
    }
    let directory = Scratch::new("yaml");
    let database = Postgres::shared().fresh_database();
    let port = free_port();
    let (name, postgres) = (database.name(), Postgres::shared().port());
    let yaml = format!(
        "general:\n  host: 127.0.0.1\n  port: {port}\n  auth_type: trust\ndatabases:\n  - name: {name}\n    host: 127.0.0.1\n    port: {postgres}\n\
         users:\n  - name: pgdog\n    database: {name}\n    password: pgdog\n"
    );
    fs::write(directory.path().join("pgdog.yaml"), &yaml).expect("it is writable");
    let mut running = Running::start(
        pgdog(&directory).args(["run", "--config", "pgdog.yaml"]),
        port,
    );
    let mut client = RawClient::login(port, "pgdog", name);
    assert_eq!(client.query_value("select 1"), "1");
    // It is what a reload reads, too.
    fs::write(
        directory.path().join("pgdog.yaml"),
        yaml.replace("name: pgdog", "name: postgres"),
    )
    .expect("it is writable");
    Command::new("kill")
        .args(["-HUP", &running.0.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(wait::until(PATIENCE, || RawClient::try_login(
        port, "postgres", name
    )
    .is_ok()));
    assert!(running.0.try_wait().ok().flatten().is_none());
    fs::write(directory.path().join("wrong.yaml"), "general:\n  prot: 1\n")
        .expect("it is writable");
    let output = pgdog(&directory)
        .args(["configcheck", "--config", "wrong.yaml"])
        .output()
        .expect("pgdog runs");
    assert!(
        output.status.code() == Some(1) && text(&output).contains("\"port\""),
        "{}",
        text(&output)
    );
}

#[test]
fn the_version_is_told() {
    let output = pgdog(&Scratch::new("version"))
        .arg("--version")
        .output()
        .expect("pgdog runs");
    assert!(
        output.status.success() && text(&output).starts_with("pgdog "),
        "{}",
        text(&output)
    );
}
