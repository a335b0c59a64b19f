//! Clients that write and read through the proxies, and account for each statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_postgres::{Config, NoTls};

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
    }

    /// In words.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} writes, {} reads, errors {:?}, longest write {} ms, read {} ms",
            self.written,
            self.read,
            self.errors,
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
    let rows = client.simple_query(sql).await?;
    connection.abort();
    let value = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    });
    Ok(value.unwrap_or_default())
}

/// Clients under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Ledger>>,
}

impl Load {
    /// Starts so many writers and as many readers, over connections that they keep. They write into the table `ledger`.
    pub(crate) async fn start(config: &Config, clients: usize) -> anyhow::Result<Self> {
        ask(
            config,
            "create table if not exists ledger (id bigserial primary key, client int)",
        )
        .await?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients * 2)
            .map(|index| tokio::spawn(client(config.clone(), index, stop.clone())))
            .collect();
        Ok(Self { stop, clients })
    }

    /// Ends them; says what became of their statements.
    pub(crate) async fn end(self) -> anyhow::Result<Ledger> {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        for client in self.clients {
            ledger.add(client.await?);
        }
        Ok(ledger)
    }
}

async fn client(config: Config, index: usize, stop: Arc<AtomicBool>) -> Ledger {
    let mut ledger = Ledger::default();
    let writes = index.is_multiple_of(2);
    let write = format!("insert into ledger (client) values ({index})");
    while !stop.load(Ordering::Relaxed) {
        let Ok((client, connection)) = config.connect(NoTls).await else {
            *ledger.errors.entry("connect".to_owned()).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let connection = tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) && !client.is_closed() {
            let begun = Instant::now();
            let sql = if writes {
                write.as_str()
            } else {
                "select count(*) from pg_class"
            };
            let result = client.simple_query(sql).await;
            let took = begun.elapsed();
            if writes {
                ledger.longest_write = ledger.longest_write.max(took);
            } else {
                ledger.longest_read = ledger.longest_read.max(took);
            }
            match result {
                Ok(_) if writes => ledger.written += 1,
                Ok(_) => ledger.read += 1,
                Err(error) => {
                    let code = error.code().map_or("connection", |code| code.code());
                    *ledger.errors.entry(code.to_owned()).or_default() += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        connection.abort();
    }
    ledger
}
