//! A fresh cluster in a tenth of a second: `initdb` runs once per machine, every cluster is a copy of its result.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::binaries;
use crate::scratch::{Scratch, current_uid, root};

/// A command that runs as a user Postgres accepts: it refuses to run as root.
pub fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = drop_to() {
        command.uid(uid).gid(gid);
    }
    command
        .stdin(Stdio::null())
        .current_dir("/")
        .env_remove("PGHOST")
        .env_remove("PGPORT")
        .env_remove("PGDATA");
    command
}

/// The user and group to become, when this process is root's.
fn drop_to() -> Option<(u32, u32)> {
    if current_uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    ["postgres", "nobody"].iter().find_map(|wanted| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == *wanted).then_some(())?;
            Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
        })
    })
}

/// Gives a path to the user [`unprivileged`] commands run as.
pub fn hand_over(path: &Path) {
    if let Some((uid, gid)) = drop_to() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .unwrap_or_else(|e| panic!("failed to chown {}: {e}", path.display()));
    }
}

/// Copies the template to `target`, which must not exist.
pub fn copy_to(target: &Path) {
    let template = template();
    let status = Command::new("cp")
        .arg("-a")
        .arg(&template)
        .arg(target)
        .status()
        .expect("cp runs");
    assert!(
        status.success(),
        "failed to copy {} to {}",
        template.display(),
        target.display()
    );
}

fn template() -> PathBuf {
    let bin = binaries::postgres().expect("PostgreSQL is installed");
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .expect("postgres runs");
    let version: String = String::from_utf8_lossy(&output.stdout)
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let path = root().join(format!("template-{}", version.trim_matches('-')));
    if path.is_dir() {
        return path;
    }
    let scratch = Scratch::new("initdb");
    hand_over(scratch.path());
    let fresh = scratch.path().join("data");
    let output = unprivileged(&bin.join("initdb"))
        .args([
            "-U",
            "postgres",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "-D",
        ])
        .arg(&fresh)
        .output()
        .expect("initdb runs");
    assert!(
        output.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    match fs::rename(&fresh, &path) {
        // Another test process was quicker; its template is as good.
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
            ) => {}
        result => result.expect("a directory can be renamed within one file system"),
    }
    path
}
