//! Clients that write and read through the proxies, and account for each statement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Each row keeps which server wrote it, and the timeline that this one believed to be on.
const TABLE: &str = "create table if not exists ledger (id bigserial primary key, client int, \
    host inet default inet_server_addr(), \
    timeline text default substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))";

/// What became of all statements.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// Writes that were acknowledged.
    pub(crate) written: u64,
    /// Reads that were answered.
    pub(crate) read: u64,
    /// Errors, by SQLSTATE; `connection` where there was none.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The longest time a write took.
    pub(crate) longest_write: Duration,
    /// The longest time a read took.
    pub(crate) longest_read: Duration,
    /// The longest time in which one client had no write acknowledged.
    pub(crate) longest_stall: Duration,
    /// The writes that were acknowledged.
    pub(crate) acked: Vec<Acked>,
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Acked {
    /// When it was sent.
    pub(crate) sent: Instant,
    /// When it was acknowledged.
    pub(crate) at: Instant,
    /// Which of the ways in it took.
    pub(crate) way: usize,
    /// The timeline that this one was on.
    pub(crate) timeline: u32,
}

impl Ledger {
    fn add(&mut self, other: Self) {
        self.written += other.written;
        self.read += other.read;
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.longest_write = self.longest_write.max(other.longest_write);
        self.longest_read = self.longest_read.max(other.longest_read);
        self.longest_stall = self.longest_stall.max(other.longest_stall);
    }

    /// Errors other than these.
    pub(crate) fn errors_but(&self, codes: &[&str]) -> u64 {
        let others = self.errors.iter();
        let others = others.filter(|(code, _)| !codes.contains(&code.as_str()));
        others.map(|(_, count)| count).sum()
    }

    /// Writes that went to a server on a lower timeline, sent after the same way in had acknowledged one on a higher timeline.
    pub(crate) fn wrong_host(&self) -> usize {
        let risen = |acked: &Acked| {
            let later = self.acked.iter().filter(|other| {
                other.way == acked.way && other.timeline > acked.timeline && other.at < acked.sent
            });
            later.count() > 0
        };
        let highest = self.acked.iter().map(|a| a.timeline).max();
        let lower = self.acked.iter().filter(|a| Some(a.timeline) < highest);
        lower.filter(|acked| risen(acked)).count()
    }

    /// When each way in had its first write on this timeline acknowledged.
    pub(crate) fn first_on(&self, timeline: u32) -> BTreeMap<usize, Instant> {
        let mut first = BTreeMap::new();
        for acked in self.acked.iter().filter(|a| a.timeline == timeline) {
            let at = first.entry(acked.way).or_insert(acked.at);
            *at = (*at).min(acked.at);
        }
        first
    }

    /// In words.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} writes, {} reads, errors {:?}, {} to a wrong host, longest stall {} ms, write {} ms, read {} ms",
            self.written,
            self.read,
            self.errors,
            self.wrong_host(),
            self.longest_stall.as_millis(),
            self.longest_write.as_millis(),
            self.longest_read.as_millis()
        )
    }
}

/// How clients connect.
pub(crate) fn config((host, port): &(String, u16), password: &str) -> Config {
    let mut config = Config::new();
    config
        .host(host)
        .port(*port)
        .user("postgres")
        .password(password)
        .dbname("app")
        .connect_timeout(Duration::from_secs(10));
    config
}

/// One value of one query over a new connection.
pub(crate) async fn ask(config: &Config, sql: &str) -> anyhow::Result<String> {
    let (client, connection) = config.connect(NoTls).await.context("connect")?;
    let connection = tokio::spawn(connection);
    let answer = ask_over(&client, sql).await;
    connection.abort();
    Ok(answer?.into_iter().next().unwrap_or_default())
}

/// The first row of a query over a connection that is there.
pub(crate) async fn ask_over(
    client: &Client,
    sql: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client.simple_query(sql).await?;
    let row = rows.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let values = row.map(|row| {
        (0..row.len())
            .map(|i| row.get(i).unwrap_or("").to_owned())
            .collect()
    });
    Ok(values.unwrap_or_default())
}

/// Clients under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<Vec<Acked>>>,
    clients: Vec<JoinHandle<Ledger>>,
}

impl Load {
    /// Starts so many writers and as many readers, over connections that they keep. They write into the table `ledger`.
    pub(crate) async fn start(config: &Config, clients: usize) -> anyhow::Result<Self> {
        Self::over(std::slice::from_ref(config), clients).await
    }

    /// The same with so many for each of several ways in.
    pub(crate) async fn over(ways: &[Config], clients: usize) -> anyhow::Result<Self> {
        let first = ways.first().context("there is no way in")?;
        ask(first, TABLE).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::default();
        let clients = (0..clients * 2 * ways.len())
            .map(|index| {
                let way = index / 2 % ways.len();
                let client = One {
                    config: ways[way].clone(),
                    index,
                    way,
                    stop: Arc::clone(&stop),
                    acked: Arc::clone(&acked),
                    ledger: Ledger::default(),
                };
                tokio::spawn(client.run())
            })
            .collect();
        Ok(Self {
            stop,
            acked,
            clients,
        })
    }

    /// The ways in that have had a write acknowledged since then.
    pub(crate) fn served_since(&self, then: Instant) -> usize {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        let ways: std::collections::BTreeSet<_> = acked
            .iter()
            .rev()
            .take_while(|a| a.at > then)
            .filter(|a| a.sent > then)
            .map(|a| a.way)
            .collect();
        ways.len()
    }

    /// Ends them; says what became of their statements.
    pub(crate) async fn end(self) -> anyhow::Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for client in self.clients {
            ledger.add(client.await?);
        }
        ledger.acked =
            std::mem::take(&mut *self.acked.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(ledger)
    }
}

/// One client: every second one writes, the others read.
struct One {
    config: Config,
    index: usize,
    way: usize,
    stop: Arc<AtomicBool>,
    acked: Arc<Mutex<Vec<Acked>>>,
    ledger: Ledger,
}

impl One {
    async fn run(mut self) -> Ledger {
        let mut last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((client, connection)) = self.config.connect(NoTls).await else {
                self.count("connect");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let connection = tokio::spawn(connection);
            while !self.stop.load(Ordering::Relaxed) && !client.is_closed() {
                let result = if self.index.is_multiple_of(2) {
                    self.write(&client, &mut last).await
                } else {
                    self.read(&client).await
                };
                if let Err(error) = result {
                    let code = error.code().map_or("connection", |code| code.code());
                    self.count(code);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            connection.abort();
        }
        self.ledger
    }

    fn count(&mut self, error: &str) {
        *self.ledger.errors.entry(error.to_owned()).or_default() += 1;
    }

    async fn write(
        &mut self,
        client: &Client,
        last: &mut Instant,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = format!(
            "insert into ledger (client) values ({}) returning timeline",
            self.index
        );
        let sent = Instant::now();
        let row = ask_over(client, &sql).await;
        let at = Instant::now();
        self.ledger.longest_write = self.ledger.longest_write.max(at - sent);
        let row = row?;
        self.ledger.longest_stall = self.ledger.longest_stall.max(at - *last);
        *last = at;
        self.ledger.written += 1;
        let [timeline] = row.as_slice() else {
            return Ok(());
        };
        let acked = Acked {
            sent,
            at,
            way: self.way,
            timeline: u32::from_str_radix(timeline, 16).unwrap_or_default(),
        };
        let mut all = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(acked);
        Ok(())
    }

    async fn read(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let sent = Instant::now();
        let answer = client.simple_query("select count(*) from pg_class").await;
        self.ledger.longest_read = self.ledger.longest_read.max(sent.elapsed());
        answer?;
        self.ledger.read += 1;
        Ok(())
    }
}
