//! The Postgres behind all peers: one throwaway cluster without fsync.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host::{self, Unprivileged};

/// The role all load runs as.
pub(crate) const USER: &str = "bench";
/// Its password, where a login asks for one.
pub(crate) const PASSWORD: &str = "bench";
/// The database with pgbench's tables.
pub(crate) const DATABASE: &str = "bench";

/// A SCRAM verifier of one iteration. libpq derives its key anew for each login, and with the usual 4096 iterations that is
/// all that a login costs; what the proxies do with a verifier does not depend on the count.
const VERIFIER: &str = "
WITH salted AS (SELECT hmac('sixteen salty by'::bytea || '\\x00000001'::bytea, '@PASSWORD@'::bytea, 'sha256') AS key)
SELECT format('SCRAM-SHA-256$1:%s$%s:%s', encode('sixteen salty by'::bytea, 'base64'),
  encode(sha256(hmac('Client Key'::bytea, key, 'sha256')), 'base64'), encode(hmac('Server Key'::bytea, key, 'sha256'), 'base64'))
FROM salted";

/// A running server; it ends with its value.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) port: u16,
    /// The SCRAM verifier of [`USER`]: proxies get it instead of a password, so that none computes one per login.
    pub(crate) verifier: String,
    programs: PathBuf,
    child: Child,
}

impl Postgres {
    /// Creates a cluster and fills it with pgbench's tables.
    pub(crate) fn start(folder: &Path, user: Option<&Unprivileged>, scale: u32) -> Result<Self> {
        let programs = programs()?;
        let data = folder.join("data");
        if let Some(user) = user {
            user.own(folder)?;
        }
        let made = as_user(&programs.join("initdb"), folder, user)
            .arg("-D")
            .arg(&data)
            .args([
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .status();
        anyhow::ensure!(made.context("run initdb")?.success(), "initdb failed");
        let mut postgres = Self::run(programs, folder, user)?;
        postgres.fill(scale)?;
        Ok(postgres)
    }

    /// Makes a streaming replica of this cluster, and waits until it has everything.
    pub(crate) fn replicate(&self, folder: &Path, user: Option<&Unprivileged>) -> Result<Self> {
        if let Some(user) = user {
            user.own(folder)?;
        }
        let copied = as_user(&self.programs.join("pg_basebackup"), folder, user)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER])
            .args(["-c", "fast", "--no-sync", "-R", "-D"])
            .arg(folder.join("data"))
            .status();
        anyhow::ensure!(
            copied.context("run pg_basebackup")?.success(),
            "pg_basebackup failed"
        );
        let replica = Self::run(self.programs.clone(), folder, user)?;
        let end = Instant::now() + Duration::from_secs(30);
        let written = self.sql("postgres", "SELECT pg_current_wal_lsn()")?;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        while replica.sql("postgres", &replayed)? != "t" {
            anyhow::ensure!(Instant::now() < end, "the replica does not catch up");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Reads from disk would count as the proxy's. By the index: a scan of the table alone leaves no trace in the buffers.
        let all =
            "SET enable_seqscan = off; SELECT sum(abalance) FROM pgbench_accounts WHERE aid > 0";
        replica.sql(DATABASE, all)?;
        Ok(replica)
    }

    /// Starts the cluster in a folder and waits until it answers.
    fn run(programs: PathBuf, folder: &Path, user: Option<&Unprivileged>) -> Result<Self> {
        let port = host::free_port()?;
        let log =
            fs::File::create(folder.join("postgres.log")).context("create the log of Postgres")?;
        let mut command = as_user(&programs.join("postgres"), folder, user);
        command
            .arg("-D")
            .arg(folder.join("data"))
            .args(["-p", &port.to_string(), "-k", ""])
            .stderr(log);
        for setting in [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "shared_buffers=256MB",
            "max_connections=400",
            "max_wal_size=4GB",
            "autovacuum=off",
        ] {
            command.args(["-c", setting]);
        }
        let child = command.spawn().context("start Postgres")?;
        let mut postgres = Self {
            port,
            verifier: String::new(),
            programs,
            child,
        };
        postgres.wait()?;
        Ok(postgres)
    }

    /// A program of this Postgres, with the surroundings that connect it to a port.
    pub(crate) fn program(&self, name: &str, port: u16) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .stdin(Stdio::null())
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port.to_string());
        command
            .env("PGUSER", USER)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", DATABASE);
        // libpq would try both by itself, which costs round trips and, where TLS is offered, encryption.
        command
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", "disable");
        command
    }

    /// Runs SQL directly, without any proxy.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let output = self
            .program("psql", self.port)
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])
            .output()
            .context("run psql")?;
        anyhow::ensure!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        while self.sql("postgres", "SELECT 1").is_err() {
            if let Some(status) = self.child.try_wait().context("wait for Postgres")? {
                bail!("Postgres ended with {status}");
            }
            anyhow::ensure!(Instant::now() < end, "Postgres does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn fill(&mut self, scale: u32) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        self.sql(DATABASE, "CREATE EXTENSION pgcrypto")?;
        self.verifier = self.sql(DATABASE, &VERIFIER.replace("@PASSWORD@", PASSWORD))?;
        let filled = self
            .program("pgbench", self.port)
            .args(["-i", "-q", "-s", &scale.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        anyhow::ensure!(
            filled.context("run pgbench")?.success(),
            "pgbench -i failed"
        );
        self.sql(
            DATABASE,
            "CREATE UNLOGGED TABLE copy_target (id bigint, name text, note text)",
        )?;
        self.sql(DATABASE, "VACUUM ANALYZE")?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate: nobody wants the data.
        host::signal(self.child.id(), "QUIT");
        drop(self.child.wait());
    }
}

/// A program in a folder, as the user that Postgres accepts.
fn as_user(program: &Path, folder: &Path, user: Option<&Unprivileged>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(user) = user {
        user.apply(&mut command);
    }
    command
}

/// Debian keeps all but the client's programs out of the PATH.
fn programs() -> Result<PathBuf> {
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
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    if let Some((_, bin)) = versions.pop() {
        return Ok(bin);
    }
    let initdb =
        host::program("initdb").context("find initdb: is the PostgreSQL server installed?")?;
    initdb
        .parent()
        .map(Path::to_owned)
        .context("find the programs of PostgreSQL")
}
