//! A crate depends only on crates of strictly lower rows.

use std::env;
use std::process::Command;

use serde_json::Value;

const ROWS: &[&[&str]] = &[
    &["pgdog-config", "pgdog-wire", "pgdog-plugin"],
    &["pgdog-shard", "pgdog-net"],
    &["pgdog-sql", "pgdog-fanout", "pgdog-backend"],
    &["pgdog-session", "pgdog-replication", "pgdog-operator-api"],
    &["pgdog-admin"],
    &["pgdog", "pgdog-operator"],
];

fn row(package: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&package))
}

fn metadata() -> Value {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

#[test]
fn a_crate_depends_only_on_lower_rows() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in array(&metadata, "packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(own) = row(name) else { continue };
        for dependency in array(package, "dependencies") {
            let other = dependency["name"].as_str().unwrap_or_default();
            if row(other).is_some_and(|row| row >= own) {
                wrong.push(format!("{name} (row {own}) depends on {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_crate_of_the_proxy_has_a_row() {
    let metadata = metadata();
    let missing: Vec<&str> = array(&metadata, "packages")
        .iter()
        .filter(|package| {
            package["manifest_path"]
                .as_str()
                .is_some_and(|path| path.contains("/proxy/"))
        })
        .filter(|package| {
            !package["manifest_path"]
                .as_str()
                .is_some_and(|path| path.contains("/examples/"))
        })
        .filter_map(|package| package["name"].as_str())
        .filter(|name| row(name).is_none())
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}
