//! A load whose every statement is accounted for: what was sent, what was answered, by which host, and what the database
//! holds of it afterwards.
//!
//! Each client writes rows under its own number, counted up, and reads back the greatest of them. Every statement goes into
//! the [`Book`], whatever becomes of it.

mod book;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::postgres::Postgres;
use crate::raw::{RawClient, Received};
use crate::transcript::Frame;
use crate::wait;

pub use book::{Book, Entry, Kind, Outcome};

/// Longer than any wait that the proxy is configured for: who is not answered by then has been forgotten.
const PATIENCE: Duration = Duration::from_secs(30);
/// Readers are numbered from here on.
const READERS: u32 = 1000;

/// Who does what.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients that write.
    pub writers: u32,
    /// After each of its writes, a writer reads its own rows so often.
    pub own_reads: u32,
    /// Clients that only read.
    pub readers: u32,
    /// The pause after each statement.
    pub pace: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            writers: 4,
            own_reads: 1,
            readers: 4,
            pace: Duration::from_millis(4),
        }
    }
}

#[derive(Debug, Default)]
struct Progress {
    over: AtomicBool,
    writes: AtomicUsize,
    reads: AtomicUsize,
}

/// A load that runs.
#[derive(Debug)]
pub struct Ledger {
    progress: Arc<Progress>,
    clients: Vec<JoinHandle<Vec<Entry>>>,
    database: String,
}

impl Ledger {
    /// Makes the table in a database of the primary. The replicas must have it before [`Ledger::start`].
    pub fn prepare(primary: &Postgres, database: &str) {
        primary.run(
            database,
            "create table ledger (client int, number bigint, host int not null, at timestamptz not null default clock_timestamp(), \
             primary key (client, number))",
        );
    }

    /// Starts the load as user `pgdog` on a port, the proxy's or a server's.
    pub fn start(port: u16, database: &str, load: Load) -> Self {
        let progress = Arc::new(Progress::default());
        let numbers = (0..load.writers).chain(READERS..READERS + load.readers);
        let clients = numbers
            .map(|number| {
                let client = Client {
                    port,
                    database: database.to_owned(),
                    number,
                    load,
                    progress: progress.clone(),
                    entries: Vec::new(),
                    acknowledged: 0,
                    prepared: BTreeSet::new(),
                };
                spawn(move || client.run())
            })
            .collect();
        Self {
            progress,
            clients,
            database: database.to_owned(),
        }
    }

    /// Waits until so many more writes were acknowledged.
    pub fn wait_writes(&self, count: usize) {
        let goal = self.progress.writes.load(Ordering::SeqCst) + count;
        let done = || self.progress.writes.load(Ordering::SeqCst) >= goal;
        assert!(wait::until(PATIENCE, done), "the writes stand still");
    }

    /// Waits until so many more reads were answered.
    pub fn wait_reads(&self, count: usize) {
        let goal = self.progress.reads.load(Ordering::SeqCst) + count;
        let done = || self.progress.reads.load(Ordering::SeqCst) >= goal;
        assert!(wait::until(PATIENCE, done), "the reads stand still");
    }

    /// Ends the load and gives its book.
    pub fn stop(mut self) -> Book {
        self.progress.over.store(true, Ordering::SeqCst);
        let mut entries: Vec<Entry> = Vec::new();
        for client in self.clients.drain(..) {
            entries.extend(client.join().expect("a client of the load does not panic"));
        }
        entries.sort_by_key(|entry| entry.ended);
        Book {
            entries,
            database: self.database.clone(),
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.progress.over.store(true, Ordering::SeqCst);
    }
}

/// One thread of the load.
struct Client {
    port: u16,
    database: String,
    number: u32,
    load: Load,
    progress: Arc<Progress>,
    entries: Vec<Entry>,
    acknowledged: u64,
    /// Names of statements that this connection has prepared.
    prepared: BTreeSet<String>,
}

/// What the server said to a statement.
enum Said {
    Rows(Vec<Vec<String>>),
    Error(Outcome),
}

impl Client {
    fn run(mut self) -> Vec<Entry> {
        let mut connection = None;
        let mut next = 1;
        while !self.over() {
            let Some(client) = &mut connection else {
                connection = self.connect();
                continue;
            };
            let usable = if self.number >= READERS {
                self.read(client, self.number % self.load.writers.max(1), None)
            } else {
                next += 1;
                self.write(client, next - 1)
                    && (0..self.load.own_reads)
                        .all(|_| self.read(client, self.number, Some(self.acknowledged)))
            };
            if !usable {
                connection = None;
            }
        }
        if let Some(client) = connection {
            client.goodbye();
        }
        self.entries
    }

    fn over(&self) -> bool {
        self.progress.over.load(Ordering::SeqCst)
    }

    fn enter(&mut self, kind: Kind, sent: Instant, own: Option<u64>, outcome: Outcome) {
        self.entries.push(Entry {
            client: self.number,
            kind,
            sent,
            ended: Instant::now(),
            own,
            outcome,
        });
    }

    fn connect(&mut self) -> Option<RawClient> {
        let sent = Instant::now();
        match RawClient::try_login(self.port, "pgdog", &self.database) {
            Ok(client) => {
                self.prepared.clear();
                self.enter(Kind::Connect, sent, None, Outcome::Connected);
                Some(client)
            }
            Err(text) => {
                let code = text.split_whitespace().nth(2).unwrap_or_default();
                let code = code.trim_end_matches(':').to_owned();
                self.enter(Kind::Connect, sent, None, Outcome::Failed { code, text });
                sleep(Duration::from_millis(20));
                None
            }
        }
    }

    /// One client in three each speaks simple queries, unnamed statements, and named ones.
    fn ask(&mut self, client: &mut RawClient, sql: &str, values: &[&str]) -> Said {
        let name = match self.number % 3 {
            0 => {
                let mut text = sql.to_owned();
                for (index, value) in values.iter().enumerate() {
                    text = text.replace(&format!("${}", index + 1), value);
                }
                client.send(&[Message::query(&text)]);
                return answer(client);
            }
            1 => String::new(),
            _ => format!("s{}", sql.len()),
        };
        let mut messages = Vec::new();
        if !self.prepared.contains(&name) {
            // What has failed before may have been prepared all the same.
            messages.push(Message::CloseStatement(name.clone().into_bytes()));
            messages.push(Message::parse(&name, sql));
        }
        messages.extend([
            Message::bind(&name, values),
            Message::execute(),
            Message::Sync,
        ]);
        client.send(&messages);
        let said = answer(client);
        if matches!(said, Said::Rows(_)) && !name.is_empty() {
            self.prepared.insert(name);
        }
        said
    }

    fn read(&mut self, client: &mut RawClient, whose: u32, own: Option<u64>) -> bool {
        let sql = "select current_setting('port'), coalesce(max(number), 0) from ledger where client = $1::int";
        let sent = Instant::now();
        let said = self.ask(client, sql, &[&whose.to_string()]);
        let (outcome, usable) = match said {
            Said::Rows(rows) => {
                let host = rows[0][0].parse().expect("a port");
                let seen = rows[0][1].parse().expect("a number");
                self.progress.reads.fetch_add(1, Ordering::SeqCst);
                (Outcome::Answered { host, seen }, true)
            }
            Said::Error(outcome) => {
                let usable = recover(client, &outcome);
                (outcome, usable)
            }
        };
        self.enter(Kind::Read, sent, own, outcome);
        sleep(self.load.pace);
        usable
    }

    /// Every third write is a transaction of its own, in three steps.
    fn write(&mut self, client: &mut RawClient, number: u64) -> bool {
        let sql = "insert into ledger (client, number, host) values ($1::int, $2::bigint, current_setting('port')::int) returning host";
        let values = [&*self.number.to_string(), &number.to_string()];
        let sent = Instant::now();
        let said = if number.is_multiple_of(3) {
            client.send(&[Message::query("begin")]);
            match answer(client) {
                Said::Rows(_) => match self.ask(client, sql, &values) {
                    Said::Rows(rows) => {
                        client.send(&[Message::query("commit")]);
                        match answer(client) {
                            Said::Rows(none) if none.is_empty() => Said::Rows(rows),
                            Said::Rows(_) => Said::Error(Outcome::Failed {
                                code: "25P02".to_owned(),
                                text: "the COMMIT was a ROLLBACK".to_owned(),
                            }),
                            error => error,
                        }
                    }
                    error => error,
                },
                error => error,
            }
        } else {
            self.ask(client, sql, &values)
        };
        let (outcome, usable) = match said {
            Said::Rows(rows) => {
                let host = rows[0][0].parse().expect("a port");
                self.acknowledged = number;
                self.progress.writes.fetch_add(1, Ordering::SeqCst);
                (Outcome::Acknowledged { host }, true)
            }
            Said::Error(outcome) => {
                let usable = recover(client, &outcome);
                (outcome, usable)
            }
        };
        self.enter(Kind::Write(number), sent, None, outcome);
        sleep(self.load.pace);
        usable
    }
}

/// Ends what may be left of a transaction; false when the connection is of no more use.
fn recover(client: &mut RawClient, outcome: &Outcome) -> bool {
    if *outcome == Outcome::Lost {
        return false;
    }
    client.send(&[Message::query("rollback")]);
    matches!(answer(client), Said::Rows(_))
}

/// The answer up to ReadyForQuery. An error that ends the connection is an error and not a loss: its SQLSTATE is known.
fn answer(client: &mut RawClient) -> Said {
    let (mut rows, mut failed) = (Vec::new(), None);
    loop {
        let frame = match client.receive(PATIENCE) {
            Received::Frame(frame) => frame,
            Received::Eof | Received::Silence => {
                return Said::Error(failed.unwrap_or(Outcome::Lost));
            }
        };
        match frame.tag {
            b'E' => failed = Some(failure(&frame)),
            // A COMMIT that was answered by ROLLBACK has kept nothing.
            b'C' if frame.line() == "C ROLLBACK" && failed.is_none() => {
                rows.push(vec!["rolled back".to_owned()]);
            }
            b'D' => {
                let text = |value: Option<Vec<u8>>| {
                    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
                };
                rows.push(frame.columns().into_iter().map(text).collect());
            }
            b'Z' => return failed.map_or(Said::Rows(rows), Said::Error),
            _ => {}
        }
    }
}

fn failure(frame: &Frame) -> Outcome {
    Outcome::Failed {
        code: frame.field(b'C').unwrap_or_default(),
        text: frame.line(),
    }
}
