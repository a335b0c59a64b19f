//! Files that change by themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::{Postgres, Proxy, ProxyConfig, wait};

use super::{admin, also, config, envelope, logs_in, settings, with_admin};

fn reloads(proxy: &Proxy) -> usize {
    proxy.log().matches("configuration reloaded").count()
}

/// Lays the files out as Kubernetes mounts a Secret: links to links to a directory of this version.
fn mount(root: &Path, version: &str, config: &ProxyConfig, port: u16) {
    let directory = root.join(version);
    fs::create_dir(&directory).expect("it is ours");
    fs::write(directory.join("pgdog.toml"), config.pgdog_toml(port)).expect("it is ours");
    fs::write(directory.join("users.toml"), config.users_toml()).expect("it is ours");
    symlink(version, root.join("..new")).expect("it is ours");
    fs::rename(root.join("..new"), root.join("..data")).expect("it is ours");
}

#[test]
fn a_mounted_secret_that_is_swapped_is_a_reload() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let with =
        |user: &str| also(config(&database), user, &database).general("watch_config", "true");
    let mut proxy = Proxy::start(&with("one"));
    let root = proxy
        .path("pgdog.toml")
        .parent()
        .expect("it is in a directory")
        .to_owned();
    mount(&root, "..1", &with("one"), proxy.port());
    for file in ["pgdog.toml", "users.toml"] {
        fs::remove_file(root.join(file)).expect("it is there");
        symlink(format!("..data/{file}"), root.join(file)).expect("it is ours");
    }
    proxy.start_again(&[], &[]);
    assert!(wait::until(PATIENCE, || logs_in(&proxy, "one", &database)));
    mount(&root, "..2", &with("two"), proxy.port());
    fs::remove_dir_all(root.join("..1")).expect("it is there");
    assert!(
        wait::until(PATIENCE, || logs_in(&proxy, "two", &database)),
        "{}",
        proxy.log()
    );
    assert!(!logs_in(&proxy, "one", &database));
    assert_eq!(reloads(&proxy), 1, "one swap is one reload");
    // A wrong one changes nothing, the next right one does.
    mount(
        &root,
        "..3",
        &with("three").general("defaul_pool_size", "1"),
        proxy.port(),
    );
    assert!(wait::until(PATIENCE, || proxy
        .log()
        .contains("failed to reload")));
    assert!(logs_in(&proxy, "two", &database));
    mount(&root, "..4", &with("four"), proxy.port());
    assert!(
        wait::until(PATIENCE, || logs_in(&proxy, "four", &database)),
        "{}",
        proxy.log()
    );
}

#[test]
fn nothing_is_read_unasked_unless_it_is_switched_on() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let with = |user: &str, watch: &str| {
        also(config(&database), user, &database).general("watch_config", watch)
    };
    let watched = Proxy::start(&with("one", "true"));
    let other = Proxy::start(&with("one", "false"));
    watched.write_config(&with("two", "true"));
    other.write_config(&with("two", "true"));
    assert!(wait::until(PATIENCE, || logs_in(
        &watched, "two", &database
    )));
    assert_eq!(reloads(&other), 0);
    assert!(!logs_in(&other, "two", &database));
    other.reload();
    assert!(wait::until(PATIENCE, || logs_in(&other, "two", &database)));
}

#[test]
fn a_reload_of_files_leaves_what_was_pushed_and_says_so() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let proxy = Proxy::start(&with_admin(config(&database), ""));
    let http = admin(&proxy);
    http.put(
        "/v1/config/settings",
        &envelope(1, 1, &settings(&database, &["pgdog", "pushed"])),
    )
    .expect(200);
    proxy.write_config(&with_admin(also(config(&database), "filed", &database), ""));
    let answer = http.post("/v1/reload").expect(200).json();
    assert_eq!(answer["kept"], serde_json::json!(["settings"]));
    assert!(logs_in(&proxy, "pushed", &database) && !logs_in(&proxy, "filed", &database));
    assert!(
        proxy
            .log()
            .contains("settings stays as pushed (epoch 1, revision 1)"),
        "{}",
        proxy.log()
    );
    proxy.write_config(&with_admin(config(&database), "").general("no_such_key", "1"));
    let refused = http.post("/v1/reload").expect(422).json();
    assert_eq!(refused["problems"][0]["path"], "general.no_such_key");
}
