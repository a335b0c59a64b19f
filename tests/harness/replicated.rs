//! A primary and its replicas by streaming replication, and what may happen to them: they die, hang, fall behind, are
//! promoted and come back.
//!
//! Hosts have numbers that stay: 0 is the first primary, the others begin as its replicas.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::postgres::{Database, Postgres, PostgresOptions, StopMode};
use crate::raw::RawClient;
use crate::{binaries, guardian, processes, template, wait};

/// How long a condition may take to come true.
const LIMIT: Duration = Duration::from_secs(30);

/// On top of what every cluster of the harness has. A commit waits for its WAL to be written, which costs little without
/// `fsync`, and sends it to the replicas at once.
const SETTINGS: &[(&str, &str)] = &[
    ("synchronous_commit", "on"),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "on"),
    ("wal_keep_size", "256MB"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("max_standby_streaming_delay", "5s"),
];

/// How an old primary is kept from writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It goes on to answer reads: `default_transaction_read_only`, and all clients are terminated.
    ReadOnly,
    /// It is shut down.
    Stop,
}

/// When the steps of a switchover had happened.
#[derive(Clone, Copy, Debug)]
pub struct Switchover {
    /// The old primary began to be fenced: from here on writes may wait.
    pub begun: Instant,
    /// The old primary takes no writes any more.
    pub fenced: Instant,
    /// The new primary takes writes.
    pub promoted: Instant,
}

impl Switchover {
    /// How long there was no primary.
    pub fn gap(&self) -> Duration {
        self.promoted - self.begun
    }
}

#[derive(Debug)]
struct Host {
    postgres: Postgres,
    /// The processes that are stopped.
    frozen: Mutex<Vec<u32>>,
}

impl Host {
    fn frozen(&self) -> MutexGuard<'_, Vec<u32>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Running hosts; all of them end with the value.
#[derive(Debug)]
pub struct Replicated {
    hosts: Vec<Host>,
    primary: AtomicUsize,
    options: PostgresOptions,
}

impl Replicated {
    /// Starts a primary and so many replicas, and waits until all have replayed all.
    pub fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &PostgresOptions::default())
    }

    /// Starts them with further settings, the same for all, as the roles may change.
    pub fn start_with(replicas: usize, options: &PostgresOptions) -> Self {
        let base = SETTINGS
            .iter()
            .fold(PostgresOptions::default(), |base, (name, value)| {
                base.setting(name, value)
            });
        let options = base.and(options);
        let host = |postgres| Host {
            postgres,
            frozen: Mutex::default(),
        };
        let primary = Postgres::start(&options);
        let port = primary.port();
        for number in 1..=replicas {
            make_slot(&primary, number);
        }
        // All begin from the same stopped cluster, the template: what the primary has done since then it still can tell.
        let start = |number| {
            let options = standby(&options, number, port);
            Postgres::start_from(&options, |data| {
                template::copy_to(data);
                mark_standby(data);
            })
        };
        let mut hosts = vec![host(primary)];
        thread::scope(|scope| {
            let starting: Vec<_> = (1..=replicas)
                .map(|number| scope.spawn(move || start(number)))
                .collect();
            let started = starting.into_iter().map(|thread| thread.join());
            hosts.extend(started.map(|postgres| host(postgres.expect("a replica starts"))));
        });
        let this = Self {
            hosts,
            primary: AtomicUsize::new(0),
            options,
        };
        (1..=replicas).for_each(|number| this.wait_replayed(number));
        this
    }

    /// One primary and three replicas of this test process, for tests that only read and write; give each a database of its own
    /// ([`Replicated::fresh_database`]).
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Replicated> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(3))
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// A host by its number.
    pub fn host(&self, number: usize) -> &Postgres {
        &self.hosts[number].postgres
    }

    /// A host's port on 127.0.0.1, which stays the same.
    pub fn port(&self, number: usize) -> u16 {
        self.host(number).port()
    }

    /// The number of the primary: the first one, or the one promoted last.
    pub fn primary_number(&self) -> usize {
        self.primary.load(Ordering::SeqCst)
    }

    /// The primary.
    pub fn primary(&self) -> &Postgres {
        self.host(self.primary_number())
    }

    /// The numbers of all that are not the primary.
    pub fn others(&self) -> Vec<usize> {
        let primary = self.primary_number();
        (0..self.len()).filter(|&n| n != primary).collect()
    }

    /// Makes an empty database and waits until all running replicas have it.
    pub fn fresh_database(&self) -> Database<'_> {
        let database = self.primary().fresh_database();
        self.settle();
        database
    }

    /// Waits until all running replicas have replayed what the primary has written so far.
    pub fn settle(&self) {
        for number in self.others() {
            if self.host(number).pid().is_some() && self.hosts[number].frozen().is_empty() {
                self.wait_replayed(number);
            }
        }
    }

    /// The end of the WAL: of what a primary has written, or of what a replica has replayed.
    pub fn lsn(&self, number: usize) -> u64 {
        let sql = "select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
                   else pg_current_wal_lsn() end - '0/0'::pg_lsn";
        let lsn = self.host(number).value("postgres", sql);
        lsn.parse().expect("a difference of LSNs is a number")
    }

    /// Waits until a replica has replayed what the primary has written so far.
    pub fn wait_replayed(&self, number: usize) {
        self.wait_lsn(number, self.lsn(self.primary_number()));
    }

    /// Waits until a replica has replayed so far.
    pub fn wait_lsn(&self, number: usize, lsn: u64) {
        assert!(
            wait::until(LIMIT, || self.lsn(number) >= lsn),
            "host {number} is at {} and not at {lsn}:\n{}",
            self.lsn(number),
            self.host(number).log()
        );
    }

    /// Ends all processes of a host at once, as a power cut does.
    pub fn kill(&self, number: usize) {
        let Some(pid) = self.host(number).pid() else {
            return;
        };
        self.freeze(number);
        let mut frozen = self.hosts[number].frozen();
        let children: Vec<u32> = frozen.drain(..).filter(|&child| child != pid).collect();
        processes::signal(&children, "KILL");
        children.into_iter().for_each(guardian::forget_process);
        self.host(number).stop(StopMode::Kill);
    }

    /// Starts a host again that was killed or stopped, as what it was.
    pub fn start_again(&self, number: usize) {
        self.host(number).start_again();
    }

    /// Stops all processes of a host: connections stay and new ones are taken by the kernel, but nobody answers.
    pub fn freeze(&self, number: usize) {
        let pid = self.host(number).pid().expect("it runs");
        let mut frozen = self.hosts[number].frozen();
        if frozen.is_empty() {
            *frozen = processes::freeze(pid);
            // Or they would outlive a test process that ends now: a process that is stopped hears nothing but KILL.
            let children = frozen.iter().filter(|&&child| child != pid);
            children.for_each(|&child| guardian::watch_process(child));
        }
    }

    /// Lets a frozen host go on.
    pub fn thaw(&self, number: usize) {
        let mut frozen = self.hosts[number].frozen();
        processes::signal(&frozen, "CONT");
        let pid = self.host(number).pid();
        for child in frozen.drain(..).filter(|&child| Some(child) != pid) {
            guardian::forget_process(child);
        }
    }

    /// Makes a replica the primary, and waits until it takes writes. The others do not follow by themselves.
    pub fn promote(&self, number: usize) {
        let host = self.host(number);
        assert_eq!(host.value("postgres", "select pg_promote(true, 30)"), "t");
        assert!(wait::until(LIMIT, || host
            .value("postgres", "select pg_is_in_recovery()")
            == "f"));
        self.primary.store(number, Ordering::SeqCst);
    }

    /// Has a replica stream from the primary from now on.
    pub fn follow(&self, number: usize) {
        let primary = self.primary();
        make_slot(primary, number);
        let mut client = self.host(number).client("postgres");
        client.run(&format!(
            "alter system set primary_conninfo = '{}'",
            conninfo(number, primary.port())
        ));
        client.run("select pg_reload_conf()");
        self.wait_streaming(number);
    }

    /// Makes any host a replica of the primary with a copy of its data; what the host had is gone.
    pub fn rejoin(&self, number: usize) {
        let primary = self.primary();
        assert_ne!(number, self.primary_number(), "it is the primary");
        self.thaw(number);
        self.host(number).stop(StopMode::Immediate);
        make_slot(primary, number);
        let options = standby(&self.options, number, primary.port());
        self.host(number).start_over(&options, |data| {
            base_backup(primary.port(), data);
            mark_standby(data);
        });
        self.wait_streaming(number);
    }

    fn wait_streaming(&self, number: usize) {
        let sql = format!(
            "select count(*) from pg_stat_replication where application_name = '{}' and state = 'streaming'",
            name(number)
        );
        assert!(
            wait::until(LIMIT, || self.primary().value("postgres", &sql) == "1"),
            "host {number} does not stream:\n{}",
            self.host(number).log()
        );
    }

    /// From now on the primary acknowledges a write only when some replica has it too: then nothing that was acknowledged is
    /// lost with the primary, when [`Replicated::most_advanced`] takes its place.
    pub fn make_synchronous(&self) {
        let mut client = self.primary().client("postgres");
        client.run("alter system set synchronous_standby_names = 'ANY 1 (*)'");
        client.run("select pg_reload_conf()");
        let known = || {
            let sql = "select count(*) > 0 from pg_stat_replication where sync_state = 'quorum'";
            client.query_value(sql) == "t"
        };
        assert!(wait::until(LIMIT, known));
    }

    /// Has a replica receive, but not replay.
    pub fn pause_replay(&self, number: usize) {
        let mut client = self.host(number).client("postgres");
        client.run("select pg_wal_replay_pause()");
        let paused = || client.query_value("select pg_get_wal_replay_pause_state()") == "paused";
        assert!(wait::until(LIMIT, paused));
    }

    /// Has it replay again.
    pub fn resume_replay(&self, number: usize) {
        self.host(number)
            .run("postgres", "select pg_wal_replay_resume()");
    }

    /// Keeps a host from writing; returns when nobody writes there any more.
    pub fn fence(&self, number: usize, how: Fence) {
        let host = self.host(number);
        if how == Fence::Stop {
            host.stop(StopMode::Fast);
            return;
        }
        let mut client = host.client("postgres");
        client.run("alter system set default_transaction_read_only = on");
        client.run("select pg_reload_conf()");
        // Whoever came before the postmaster knew may write; whoever comes after that may not.
        let known = || host.value("postgres", "show default_transaction_read_only") == "on";
        assert!(wait::until(LIMIT, known));
        let before = client.query_value("select clock_timestamp()");
        let old = format!(
            "from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and backend_start < '{before}'"
        );
        client.run(&format!("select pg_terminate_backend(pid) {old}"));
        let gone = || client.query_value(&format!("select count(*) {old}")) == "0";
        assert!(wait::until(LIMIT, gone), "some client does not go");
    }

    /// Lets a host write that was fenced by [`Fence::ReadOnly`].
    pub fn unfence(&self, number: usize) {
        let mut client = self.host(number).client("postgres");
        client.run("alter system reset default_transaction_read_only");
        client.run("select pg_reload_conf()");
        drop(client);
        let host = self.host(number);
        let known = || host.value("postgres", "show default_transaction_read_only") == "off";
        assert!(wait::until(LIMIT, known));
    }

    /// Hands the role of the primary over without losing anything: fences the old one, promotes another that has replayed
    /// everything, and has the rest follow. The old one is left fenced.
    pub fn switch_over(&self, to: usize, how: Fence) -> Switchover {
        let old = self.primary_number();
        let begun = Instant::now();
        self.fence(old, how);
        let fenced = Instant::now();
        if how == Fence::ReadOnly {
            self.wait_lsn(to, self.lsn(old));
        } else {
            // A shutdown waits until all replicas have received all; they have replayed all when nothing is left of it.
            let sql = "select pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn()";
            assert!(wait::until(LIMIT, || self.host(to).value("postgres", sql) == "t"));
        }
        self.promote(to);
        let promoted = Instant::now();
        for number in self.others() {
            if number != old && self.host(number).pid().is_some() {
                self.follow(number);
            }
        }
        Switchover {
            begun,
            fenced,
            promoted,
        }
    }

    /// Of the running replicas, the one that has received most: the one to promote when the primary has died.
    pub fn most_advanced(&self) -> usize {
        let received = |&number: &usize| -> u64 {
            let sql = "select greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn";
            let lsn = self.host(number).value("postgres", sql);
            lsn.parse().expect("a difference of LSNs is a number")
        };
        let running = |number: &usize| {
            self.host(*number).pid().is_some() && self.hosts[*number].frozen().is_empty()
        };
        let candidates = self.others().into_iter().filter(running);
        candidates.max_by_key(received).expect("a replica runs")
    }

    /// As if the disk were full but for the WAL's segments: no file of a host grows beyond their size any more.
    pub fn fill_disk(&self, number: usize) {
        self.limit_files(number, "16777216");
    }

    /// There is room on the disk again.
    pub fn empty_disk(&self, number: usize) {
        self.limit_files(number, "unlimited");
    }

    fn limit_files(&self, number: usize, limit: &str) {
        for pid in processes::tree(self.host(number).pid().expect("it runs")) {
            // The hard limit stays, as only root may raise it again. Even root may need to be the server's user for this.
            let status = template::unprivileged(Path::new("prlimit"))
                .args(["--pid", &pid.to_string(), &format!("--fsize={limit}:")])
                .stderr(Stdio::null())
                .status();
            let done = status.is_ok_and(|status| status.success());
            let gone = !Path::new("/proc").join(pid.to_string()).exists();
            assert!(done || gone, "prlimit of {pid} fails");
        }
    }

    /// A connection of the user `pgdog` straight to a host.
    pub fn client(&self, number: usize, database: &str) -> RawClient {
        RawClient::login(self.port(number), "pgdog", database)
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        (0..self.len()).for_each(|number| self.thaw(number));
    }
}

fn name(number: usize) -> String {
    format!("host{number}")
}

fn conninfo(number: usize, port: u16) -> String {
    format!(
        "host=127.0.0.1 port={port} user=postgres application_name={} sslmode=disable gssencmode=disable connect_timeout=5",
        name(number)
    )
}

fn standby(options: &PostgresOptions, number: usize, port: u16) -> PostgresOptions {
    options
        .clone()
        .setting("primary_conninfo", &conninfo(number, port))
        .setting("primary_slot_name", &name(number))
}

/// Keeps WAL on this primary for a host, from now on.
fn make_slot(primary: &Postgres, number: usize) {
    let name = name(number);
    let sql = format!(
        "select pg_create_physical_replication_slot('{name}', true) \
         where not exists (select from pg_replication_slots where slot_name = '{name}')"
    );
    primary.run("postgres", &sql);
}

fn mark_standby(data: &Path) {
    let signal = data.join("standby.signal");
    std::fs::write(&signal, "")
        .unwrap_or_else(|e| panic!("failed to write {}: {e}", signal.display()));
    template::hand_over(&signal);
}

fn base_backup(port: u16, data: &Path) {
    let bin = binaries::postgres().expect("PostgreSQL is installed");
    let output = template::unprivileged(&bin.join("pg_basebackup"))
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p"])
        .arg(port.to_string())
        .args(["-c", "fast", "--no-sync", "--no-manifest", "-D"])
        .arg(data)
        .output()
        .expect("pg_basebackup runs");
    assert!(
        output.status.success(),
        "pg_basebackup failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
