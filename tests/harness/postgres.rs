//! A throwaway PostgreSQL cluster: own data directory, own port, gone when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rcgen::generate_simple_self_signed;

use crate::raw::RawClient;
use crate::scratch::{Scratch, free_port};
use crate::{binaries, guardian, template, wait};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Quick rather than safe, and the same answers everywhere.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("autovacuum", "off"),
    ("jit", "off"),
    ("shared_buffers", "32MB"),
    ("max_connections", "300"),
    ("max_prepared_transactions", "50"),
    ("wal_level", "logical"),
    ("max_wal_size", "512MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %u@%d %a "),
];

/// What a cluster shall be like; the default suits most tests.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    tls: bool,
}

impl PostgresOptions {
    /// Adds a line to `postgresql.conf`, after (so: above) the harness's own.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a line to the top of `pg_hba.conf`; below them everybody is trusted.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// With everything that `other` asks for on top.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.settings.extend_from_slice(&other.settings);
        self.hba.extend_from_slice(&other.hba);
        self.tls |= other.tls;
        self
    }

    /// Offers TLS with a self-signed certificate for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }
}

/// How to shut a cluster down; the names are `pg_ctl`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until every client has left.
    Smart,
    /// Ends the clients with 57P01, then shuts down.
    Fast,
    /// Ends everything at once, as if it had crashed; clients get 57P02.
    Immediate,
    /// `kill -9`: nobody is told anything.
    Kill,
}

/// A running cluster. User `postgres` and user `pgdog` are superusers; everybody is trusted unless asked otherwise.
#[derive(Debug)]
pub struct Postgres {
    scratch: Scratch,
    port: u16,
    process: Mutex<Option<Child>>,
}

impl Postgres {
    /// Whether tests that need PostgreSQL can run; says so on the terminal when they cannot.
    pub fn installed() -> bool {
        if binaries::postgres().is_some() {
            return true;
        }
        use std::io::Write;
        // Past libtest's capture, which swallows what a passing test prints.
        writeln!(
            std::io::stderr(),
            "SKIPPED: PostgreSQL is not installed (or set PGDOG_TEST_PG_BIN)"
        )
        .ok();
        false
    }

    /// Starts a cluster.
    pub fn start(options: &PostgresOptions) -> Self {
        let this = Self::start_from(options, template::copy_to);
        this.client("postgres")
            .run("create role pgdog superuser login password 'pgdog'");
        this
    }

    /// Starts a cluster on the data directory that `fill` makes.
    pub(crate) fn start_from(options: &PostgresOptions, fill: impl FnOnce(&Path)) -> Self {
        let scratch = Scratch::new("postgres");
        template::hand_over(scratch.path());
        fill(&scratch.path().join("data"));
        for attempt in 1.. {
            let port = free_port();
            configure(scratch.path(), port, options);
            match launch(scratch.path(), port) {
                Ok(child) => {
                    return Self {
                        scratch,
                        port,
                        process: Mutex::new(Some(child)),
                    };
                }
                Err(log) if attempt < 5 && log.contains("Address already in use") => {}
                Err(log) => panic!("Postgres does not start:\n{log}"),
            }
        }
        unreachable!("the loop returns or panics")
    }

    /// The instance of this test process for tests that do not disturb it; give each a database of its own
    /// ([`Postgres::fresh_database`]).
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&PostgresOptions::default()))
    }

    /// The port on 127.0.0.1, which stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The data directory.
    pub fn data_directory(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The certificate to trust when it was started with [`PostgresOptions::tls`].
    pub fn certificate(&self) -> PathBuf {
        self.data_directory().join("server.crt")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        read_log(self.scratch.path())
    }

    /// A connection of the superuser, straight to Postgres.
    pub fn client(&self, database: &str) -> RawClient {
        RawClient::login(self.port, "postgres", database)
    }

    /// Runs SQL as the superuser; panics on errors.
    pub fn run(&self, database: &str, sql: &str) {
        self.client(database).run(sql);
    }

    /// The first value of the first row, as the superuser.
    pub fn value(&self, database: &str, sql: &str) -> String {
        self.client(database).query_value(sql)
    }

    /// Makes an empty database, dropped with the returned value.
    pub fn fresh_database(&self) -> Database<'_> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        self.database(&format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes an empty database of this name, dropped with the returned value.
    pub fn database(&self, name: &str) -> Database<'_> {
        self.run(
            "postgres",
            &format!("create database \"{name}\" template template0"),
        );
        Database {
            postgres: self,
            name: name.to_owned(),
        }
    }

    /// Shuts it down and waits for the end. It can be started again.
    pub fn stop(&self, mode: StopMode) {
        let Some(mut child) = self.lock().take() else {
            return;
        };
        match mode {
            StopMode::Smart => signal(child.id(), "TERM"),
            StopMode::Fast => signal(child.id(), "INT"),
            StopMode::Immediate => signal(child.id(), "QUIT"),
            StopMode::Kill => child.kill().expect("the child is ours"),
        }
        wait_for(&mut child, START_LIMIT);
    }

    /// Starts it again after a stop, on the same port.
    pub fn start_again(&self) {
        let mut process = self.lock();
        assert!(process.is_none(), "it is running");
        let start = Instant::now();
        loop {
            match launch(self.scratch.path(), self.port) {
                Ok(child) => {
                    *process = Some(child);
                    return;
                }
                // After a kill -9 the children need a moment to notice and to let go of shared memory and port.
                Err(_) if start.elapsed() < START_LIMIT => {
                    std::thread::sleep(Duration::from_millis(100))
                }
                Err(log) => panic!("Postgres does not start again:\n{log}"),
            }
        }
    }

    /// Starts it after a stop on another data directory, the one that `fill` makes, on the same port.
    pub(crate) fn start_over(&self, options: &PostgresOptions, fill: impl FnOnce(&Path)) {
        let data = self.data_directory();
        fs::remove_dir_all(&data).expect("the data directory is ours");
        fill(&data);
        configure(self.scratch.path(), self.port, options);
        self.start_again();
    }

    /// The process id of the postmaster; none when it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }

    /// Fast shutdown and start.
    pub fn restart(&self) {
        self.stop(StopMode::Fast);
        self.start_again();
    }

    /// Rereads its configuration.
    pub fn reload(&self) {
        self.run("postgres", "select pg_reload_conf()");
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop(StopMode::Immediate);
    }
}

/// A database that lives as long as this value.
#[derive(Debug)]
pub struct Database<'a> {
    postgres: &'a Postgres,
    name: String,
}

impl Database<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A superuser's connection to it, straight to Postgres.
    pub fn client(&self) -> RawClient {
        self.postgres.client(&self.name)
    }

    /// Runs SQL in it as the superuser; panics on errors.
    pub fn run(&self, sql: &str) {
        self.client().run(sql);
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() || self.postgres.lock().is_none() {
            return;
        }
        let sql = format!("drop database if exists \"{}\" with (force)", self.name);
        if let Ok(mut client) = RawClient::try_login(self.postgres.port, "postgres", "postgres") {
            client.query(&sql);
        }
    }
}

fn configure(root: &Path, port: u16, options: &PostgresOptions) {
    let data = root.join("data");
    let mut conf = format!(
        "port = {port}\nunix_socket_directories = '{}'\n",
        root.display()
    );
    let quoted = |value: &str| value.replace('\'', "''");
    for (name, value) in SETTINGS {
        conf.push_str(&format!("{name} = '{value}'\n"));
    }
    if options.tls {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let pair = generate_simple_self_signed(names).expect("a certificate for two plain names");
        write_owned(&data.join("server.crt"), &pair.cert.pem());
        write_owned(&data.join("server.key"), &pair.signing_key.serialize_pem());
        conf.push_str("ssl = on\n");
    }
    for (name, value) in &options.settings {
        conf.push_str(&format!("{name} = '{}'\n", quoted(value)));
    }
    write_owned(&data.join("postgresql.auto.conf"), &conf);
    let mut hba = options.hba.join("\n");
    hba.push_str("\nlocal all all trust\nhost all all all trust\nlocal replication all trust\nhost replication all all trust\n");
    write_owned(&data.join("pg_hba.conf"), &hba);
}

fn write_owned(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content).unwrap_or_else(|e| panic!("failed to write {}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    template::hand_over(path);
}

/// Starts the server and waits until it answers; on failure, its log.
fn launch(root: &Path, port: u16) -> Result<Child, String> {
    let bin = binaries::postgres().expect("PostgreSQL is installed");
    let log = fs::File::create(root.join("log")).expect("the scratch directory is writable");
    let log_too = log.try_clone().expect("a file handle can be cloned");
    let mut child = template::unprivileged(&bin.join("postgres"))
        .arg("-D")
        .arg(root.join("data"))
        .stdout(log)
        .stderr(log_too)
        .spawn()
        .expect("postgres runs");
    guardian::watch_process(child.id());
    let mut ended = false;
    let ready = wait::until(START_LIMIT, || {
        ended = matches!(child.try_wait(), Ok(Some(_)));
        ended || RawClient::try_login(port, "postgres", "postgres").is_ok()
    });
    if ready && !ended {
        return Ok(child);
    }
    child.kill().ok();
    child.wait().ok();
    guardian::forget_process(child.id());
    Err(read_log(root))
}

fn read_log(root: &Path) -> String {
    String::from_utf8_lossy(&fs::read(root.join("log")).unwrap_or_default()).into_owned()
}

/// Sends a signal by name. Through the shell: the system call would need unsafe code.
pub(crate) fn signal(pid: u32, name: &str) {
    Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .stderr(Stdio::null())
        .status()
        .expect("sh runs");
}

/// Waits for the end of a child and kills it when it takes longer than `limit`.
pub(crate) fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut status = None;
    wait::until(limit, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if status.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
    guardian::forget_process(child.id());
    status
}
