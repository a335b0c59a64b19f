//! Hosts by name: a name that has another address leads elsewhere.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::scratch::Scratch;
use pgdog_tests::{Postgres, PostgresOptions, Proxy, ProxyConfig, wait};

/// The name; nobody can own it.
const NAME: &str = "database.pgdog.invalid";

/// Makes a file the list of hosts for what is started by it.
const WITH_HOSTS: &str = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";

/// Whether a process may have an `/etc/hosts` of its own here; says so on the terminal when not.
fn may_have_own_hosts() -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "mount", "--bind", "/dev/null", "/etc/hosts"])
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        let why = "SKIPPED: a name that changes its address (no user namespaces here)";
        writeln!(std::io::stderr(), "{why}").ok();
    }
    may
}

/// Has connections to a port of 127.0.0.2 go to another one of 127.0.0.1, as long as the tests run.
fn lead(from: u16, to: u16) {
    let listener = TcpListener::bind(("127.0.0.2", from)).expect("a port of the loopback is free");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                continue;
            };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let pair = (from.try_clone(), to.try_clone());
                let (Ok(mut from), Ok(mut to)) = pair else {
                    continue;
                };
                thread::spawn(move || {
                    std::io::copy(&mut from, &mut to).ok();
                    to.shutdown(Shutdown::Both).ok();
                });
            }
        }
    });
}

#[test]
fn connections_follow_a_name_that_has_another_address() {
    if !Postgres::installed() || !may_have_own_hosts() {
        return;
    }
    let options = PostgresOptions::default();
    let (old, new) = (Postgres::start(&options), Postgres::start(&options));
    lead(old.port(), new.port());
    let scratch = Scratch::new("hosts");
    let hosts = scratch.path().join("hosts");
    // In its place, as the mount is of the file and not of its name.
    let points_to = |address: &str| {
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} {NAME}\n"))
            .expect("the scratch directory is writable");
    };
    points_to("127.0.0.1");
    let config = ProxyConfig::transaction(&old)
        .general("dns_ttl", "200")
        .general("client_connection_recovery", "\"recover\"")
        .append(&format!(
            "[[databases]]\nname = \"postgres\"\nhost = \"{NAME}\"\nport = {}\n",
            old.port()
        ))
        .append_users(
            "[[users]]\nname = \"pgdog\"\ndatabase = \"postgres\"\npassword = \"pgdog\"\n",
        );
    let file = hosts.to_str().expect("a path in UTF-8");
    let with_hosts = ["unshare", "-rm", "sh", "-c", WITH_HOSTS, "sh", file];
    let proxy = Proxy::start_by(&with_hosts, &config, &[]);
    let mut client = proxy.client("pgdog", "postgres");
    let mut port = || client.query_value("select current_setting('port')");
    assert_eq!(port(), old.port().to_string());
    points_to("127.0.0.2");
    let moved = || port() == new.port().to_string();
    assert!(wait::until(PATIENCE, moved), "{}", proxy.log());
    assert!(
        proxy.log().contains("the name has other addresses"),
        "{}",
        proxy.log()
    );
    for _ in 0..20 {
        assert_eq!(port(), new.port().to_string());
    }
    // And back, with a transaction under way that ends where it began.
    let mut inside = proxy.client("pgdog", "postgres");
    inside.run("begin");
    points_to("127.0.0.1");
    let back = || port() == old.port().to_string();
    assert!(wait::until(PATIENCE, back), "{}", proxy.log());
    let within = inside.query_value("select current_setting('port')");
    assert_eq!(within, new.port().to_string());
    inside.run("commit");
    let after = inside.query_value("select current_setting('port')");
    assert_eq!(after, old.port().to_string());
}
