//! What has become of every statement of a load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::postgres::Postgres;

/// What a statement was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Inserts the row of this number.
    Write(u64),
    /// Reads the greatest number of a client.
    Read,
    /// Logs in.
    Connect,
}

/// What became of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A write was acknowledged; a transaction's, by its COMMIT.
    Acknowledged {
        /// The port of the host that did it.
        host: u16,
    },
    /// A read was answered.
    Answered {
        /// The port of the host that did it.
        host: u16,
        /// The number that it gave; 0 when there was no row.
        seen: u64,
    },
    /// An error came instead.
    Failed {
        /// Its SQLSTATE.
        code: String,
        /// Its line in a transcript.
        text: String,
    },
    /// The connection ended, or nothing came for very long.
    Lost,
    /// A login worked.
    Connected,
}

/// One statement.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whose it is.
    pub client: u32,
    /// What it was for.
    pub kind: Kind,
    /// When it was sent.
    pub sent: Instant,
    /// When its fate was known.
    pub ended: Instant,
    /// For a read of one's own rows: the number that had been acknowledged to this client before it was sent.
    pub own: Option<u64>,
    /// Its fate.
    pub outcome: Outcome,
}

impl Entry {
    /// How long it took.
    pub fn took(&self) -> Duration {
        self.ended - self.sent
    }

    fn host(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Acknowledged { host } | Outcome::Answered { host, .. } => Some(host),
            _ => None,
        }
    }
}

/// All that has happened, in the order in which it became known.
#[derive(Clone, Debug)]
pub struct Book {
    /// The statements.
    pub entries: Vec<Entry>,
    pub(super) database: String,
}

impl Book {
    /// Writes that were acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Entry> {
        self.outcomes(|outcome| matches!(outcome, Outcome::Acknowledged { .. }))
    }

    /// Reads that were answered.
    pub fn answered(&self) -> impl Iterator<Item = &Entry> {
        self.outcomes(|outcome| matches!(outcome, Outcome::Answered { .. }))
    }

    fn outcomes(&self, which: fn(&Outcome) -> bool) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |e| which(&e.outcome))
    }

    fn bad(&self, which: fn(Kind) -> bool) -> Vec<&Entry> {
        let bad = |e: &&Entry| matches!(e.outcome, Outcome::Failed { .. } | Outcome::Lost);
        let entries = self.entries.iter().filter(|e| which(e.kind));
        entries.filter(bad).collect()
    }

    /// Reads that got an error, or nothing.
    pub fn failed_reads(&self) -> Vec<&Entry> {
        self.bad(|kind| kind == Kind::Read)
    }

    /// Writes that got an error, or nothing.
    pub fn failed_writes(&self) -> Vec<&Entry> {
        self.bad(|kind| matches!(kind, Kind::Write(_)))
    }

    /// Logins that failed.
    pub fn failed_connects(&self) -> Vec<&Entry> {
        self.bad(|kind| kind == Kind::Connect)
    }

    /// Reads of a client's own rows that did not see its own last acknowledged write.
    pub fn stale_reads(&self) -> Vec<&Entry> {
        let stale = |e: &&Entry| match (&e.outcome, e.own) {
            (Outcome::Answered { seen, .. }, Some(own)) => *seen < own,
            _ => false,
        };
        self.entries.iter().filter(stale).collect()
    }

    /// Acknowledged writes whose row is not there; with their clients.
    pub fn acknowledged_but_missing(&self, postgres: &Postgres) -> Vec<(u32, u64)> {
        let present = self.present(postgres);
        self.acknowledged()
            .filter_map(number_of)
            .filter(|row| !present.contains(row))
            .collect()
    }

    /// Writes that were refused and are there all the same. Those that were lost, or whose server was, may be: nobody knows.
    pub fn refused_but_present(&self, postgres: &Postgres) -> Vec<(u32, u64)> {
        let present = self.present(postgres);
        let certain = |e: &&Entry| match &e.outcome {
            Outcome::Failed { code, .. } => {
                !["08", "57"].iter().any(|class| code.starts_with(class))
            }
            _ => false,
        };
        let refused = self.entries.iter().filter(certain);
        refused
            .filter_map(number_of)
            .filter(|row| present.contains(row))
            .collect()
    }

    fn present(&self, postgres: &Postgres) -> BTreeSet<(u32, u64)> {
        let rows = postgres
            .client(&self.database)
            .query_rows("select client, number from ledger");
        let number = |text: &String| text.parse().expect("a number");
        rows.iter()
            .map(|row| (number(&row[0]) as u32, number(&row[1])))
            .collect()
    }

    /// Writes that the host of this port has acknowledged.
    pub fn writes_on(&self, host: u16) -> usize {
        let here = self.acknowledged().filter(|e| e.host() == Some(host));
        here.count()
    }

    /// Of these, those that were sent after a moment.
    pub fn writes_on_after(&self, host: u16, moment: Instant) -> usize {
        let here = self.acknowledged().filter(|e| e.host() == Some(host));
        here.filter(|e| e.sent > moment).count()
    }

    /// How many reads each host has answered, by its port.
    pub fn reads_by_host(&self) -> BTreeMap<u16, usize> {
        self.reads_between(None, None)
    }

    /// The same for reads that were sent after one moment and answered before the other.
    pub fn reads_between(
        &self,
        from: Option<Instant>,
        to: Option<Instant>,
    ) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.answered() {
            let within =
                from.is_none_or(|from| entry.sent > from) && to.is_none_or(|to| entry.ended < to);
            if let Some(host) = entry.host().filter(|_| within) {
                *counts.entry(host).or_default() += 1;
            }
        }
        counts
    }

    /// The longest time in which no write was acknowledged, from the first of them to the last.
    pub fn longest_stall(&self) -> Duration {
        let ends: Vec<Instant> = self.acknowledged().map(|e| e.ended).collect();
        let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// The longest that one write took which was acknowledged.
    pub fn slowest_write(&self) -> Duration {
        let times = self.acknowledged().map(Entry::took);
        times.max().unwrap_or_default()
    }

    /// The longest that one read took which was answered.
    pub fn slowest_read(&self) -> Duration {
        self.answered().map(Entry::took).max().unwrap_or_default()
    }

    /// Counts, and the errors by SQLSTATE with an example of each: for the message of a failed assertion.
    pub fn summary(&self) -> String {
        let mut errors: BTreeMap<(String, &str), (usize, String)> = BTreeMap::new();
        for entry in &self.entries {
            let (code, text) = match &entry.outcome {
                Outcome::Failed { code, text } => (code.clone(), text.clone()),
                Outcome::Lost => ("lost".to_owned(), String::new()),
                _ => continue,
            };
            let kind = match entry.kind {
                Kind::Write(_) => "write",
                Kind::Read => "read",
                Kind::Connect => "connect",
            };
            let known = errors.entry((code, kind)).or_insert((0, text));
            known.0 += 1;
        }
        let mut text = format!(
            "{} writes, {} reads, by host {:?}; longest stall {:?}, slowest write {:?}, slowest read {:?}",
            self.acknowledged().count(),
            self.answered().count(),
            self.reads_by_host(),
            self.longest_stall(),
            self.slowest_write(),
            self.slowest_read(),
        );
        for ((code, kind), (count, example)) in errors {
            text.push_str(&format!("\n  {count} {kind}: {code} {example}"));
        }
        text
    }
}

fn number_of(entry: &Entry) -> Option<(u32, u64)> {
    match entry.kind {
        Kind::Write(number) => Some((entry.client, number)),
        _ => None,
    }
}
