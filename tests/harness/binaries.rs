//! Where PostgreSQL's and the proxy's programs are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

/// The directory with `initdb` and `postgres`: `PGDOG_TEST_PG_BIN`, else the newest installation found.
pub fn postgres() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(find_postgres).as_deref()
}

fn find_postgres() -> Option<PathBuf> {
    let usable = |dir: &PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
    if let Some(dir) = env::var_os("PGDOG_TEST_PG_BIN") {
        return Some(PathBuf::from(dir)).filter(usable);
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, dir)| usable(dir))
        .collect();
    versions.sort();
    if let Some((_, newest)) = versions.pop() {
        return Some(newest);
    }
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    Some(dir).filter(usable)
}

/// The proxy: `PGDOG_BIN`, else the `pgdog` of the profile this test runs in, brought up to date first, since
/// `cargo test` builds a program only for tests of the program's own package.
pub fn pgdog() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(find_pgdog)
}

fn find_pgdog() -> PathBuf {
    if let Some(path) = env::var_os("PGDOG_BIN") {
        return PathBuf::from(path);
    }
    let test = env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/suite-<hash>
    let profile = test
        .ancestors()
        .nth(2)
        .expect("a test is built into target/<profile>/deps");
    if let Some(cargo) = env::var_os("CARGO") {
        let name = profile.file_name().unwrap_or(OsStr::new("debug"));
        let name = if name == "debug" {
            OsStr::new("dev")
        } else {
            name
        };
        let status = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "pgdog",
                "--bin",
                "pgdog",
                "--profile",
            ])
            .arg(name)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the proxy does not build");
    }
    let path = profile.join("pgdog");
    assert!(
        path.is_file(),
        "no {}: build it, or set PGDOG_BIN",
        path.display()
    );
    path
}
