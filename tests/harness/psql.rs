//! `psql`, for what only libpq does: SCRAM, channel binding, client certificates, unix sockets.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::binaries;

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PsqlOutput {
    /// Whether it exited with 0.
    pub success: bool,
    /// Rows, unaligned, without headers.
    pub stdout: String,
    /// Errors.
    pub stderr: String,
}

impl PsqlOutput {
    /// Its rows; panics when it failed.
    pub fn expect(&self, what: &str) -> &str {
        assert!(self.success, "{what}: {}", self.stderr);
        self.stdout.trim_end()
    }

    /// Its errors; panics when it succeeded.
    pub fn expect_error(&self, what: &str) -> &str {
        assert!(!self.success, "{what}: succeeded with {}", self.stdout);
        self.stderr.trim_end()
    }
}

/// A connection string in the making.
#[derive(Clone, Debug)]
pub struct Psql {
    parameters: Vec<(String, String)>,
}

impl Psql {
    /// Connects to a port of 127.0.0.1 without TLS, as long as nothing else is said.
    pub fn new(port: u16, user: &str, database: &str) -> Self {
        Self {
            parameters: Vec::new(),
        }
        .with("host", "127.0.0.1")
        .with("port", &port.to_string())
        .with("user", user)
        .with("dbname", database)
        .with("sslmode", "disable")
        .with("connect_timeout", "20")
    }

    /// Sets a parameter of the connection string; the last one wins.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(n, _)| n != name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn password(self, password: &str) -> Self {
        self.with("password", password)
    }

    /// Shows a certificate, and with it asks for TLS.
    #[must_use]
    pub fn certificate(self, certificate: &Path, key: &Path) -> Self {
        self.with("sslmode", "require")
            .with("sslcert", &certificate.display().to_string())
            .with("sslkey", &key.display().to_string())
    }

    /// Runs SQL and waits for the end.
    pub fn run(&self, sql: &str) -> PsqlOutput {
        let mut conninfo = String::new();
        for (name, value) in &self.parameters {
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            conninfo.push_str(&format!("{name}='{value}' "));
        }
        let bin = binaries::postgres().expect("PostgreSQL is installed");
        let mut command = Command::new(bin.join("psql"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        // Without a home there are no default certificates either.
        let output: Output = command
            .args([
                "-X",
                "-A",
                "-t",
                "-w",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                sql,
                &conninfo,
            ])
            .env("HOME", "/nonexistent")
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        PsqlOutput {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
