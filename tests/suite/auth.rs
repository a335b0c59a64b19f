//! Who is let in where the configuration leaves that to others: rules of a file, and what is done about guessing.

mod guessing;
mod passthrough;
mod queries;
mod rules;

use std::fs;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Postgres, Proxy, ProxyConfig, wait};

/// Where a proxy listens on a unix socket, too: its own directory.
fn by_rules(rules: &str, maps: &str) -> (pgdog_tests::scratch::Scratch, ProxyConfig) {
    let scratch = pgdog_tests::scratch::Scratch::new("rules");
    let file = |name: &str| format!("\"{}\"", scratch.path().join(name).display());
    fs::write(scratch.path().join("hba"), rules).expect("the directory is writable");
    fs::write(scratch.path().join("ident"), maps).expect("the directory is writable");
    let config = ProxyConfig::transaction(Postgres::shared())
        .general("auth_type", "\"hba\"")
        .general("auth_hba_file", &file("hba"))
        .general("auth_ident_file", &file("ident"))
        .general("unix_socket_dir", &file(""))
        .database("postgres");
    (scratch, config)
}

/// Users of the database `postgres`, each with its name as password, that are `pgdog` on the server.
fn users(config: ProxyConfig, names: &[&str]) -> ProxyConfig {
    names.iter().fold(config, |config, name| {
        config.append_users(&format!(
            "[[users]]\nname = \"{name}\"\ndatabase = \"postgres\"\npassword = \"{name}\"\nserver_user = \"pgdog\"\nserver_password = \"pgdog\"\n"
        ))
    })
}

/// Waits until the log has said something so many times.
fn logs(proxy: &Proxy, text: &str, times: usize) {
    let seen = wait::until(PATIENCE, || proxy.log().matches(text).count() >= times);
    assert!(seen, "{text}:\n{}", proxy.log());
}
