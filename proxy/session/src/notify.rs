//! LISTEN outside of transactions, without a server of one's own: the pool's listening connection does it for all clients.
//!
//! LISTEN is the server's: it is passed on, and what a rollback, a savepoint or a function makes of it, PostgreSQL knows.
//! When the client's server is at rest and listens, its channels are handed over: the pool's listener joins them, both hear
//! the mark, and from there on the one speaks and the other is silent (see [`pgdog_backend::listener`]).
//!
//! UNLISTEN and `pg_listening_channels()` need the channels where they run: before them they are fetched, that is, the
//! client's server listens to all of them; when that server is at rest again, what it then listens to is what the client
//! does. Meanwhile the listener goes on, and what the server says of the same channels is dropped.
//!
//! Caveats: an UNLISTEN in the body of a function is not seen. Where the pool's listener cannot be had, the client keeps its
//! server, as it does for anything else that outlives a transaction.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use pgdog_backend::listener::{Mail, Mailbox};
use pgdog_backend::probe::Reasons;
use pgdog_backend::{Pool, Server, ServerError, Value};
use pgdog_config::PoolerMode;
use pgdog_sql::Effects;
use pgdog_wire::backend::TransactionStatus;
use pgdog_wire::write::identifier;
use pgdog_wire::{ClientError as _, ErrorResponse, Severity, frame, sqlstate};

use crate::active::{Active, Event};
use crate::client::{Client, Ended};
use crate::handle::Signal;
use crate::requests::Step;
use crate::settle::ASK_TIMEOUT;

/// So many bytes of notifications are written at once.
const CHUNK: usize = 16 * 1024;
/// The names of what a session listens to, in hexadecimal: whatever its encoding is, ours they are in UTF-8.
const NAMES: &str = "SELECT pg_catalog.encode(pg_catalog.convert_to(c, 'UTF8'), 'hex') FROM pg_catalog.pg_listening_channels() c";
/// A setting of ours tells, by the rules of transactions and savepoints, whether what was fetched within one still is there.
const IS_FETCHED: &str = "SELECT pg_catalog.current_setting('pgdog.fetched', true)";
const NOW_FETCHED: &str = "SELECT pg_catalog.set_config('pgdog.fetched', 'on', false)";
const NOT_FETCHED: &str = "SELECT pg_catalog.set_config('pgdog.fetched', '', false)";

/// What a client listens to over its pool's listener.
#[derive(Debug)]
pub(crate) struct Channels {
    pool: Arc<Pool>,
    mailbox: Arc<Mailbox>,
    names: Vec<Box<str>>,
    fetched: Fetched,
}

/// Whether the client's server listens as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    /// It does not.
    No,
    /// It has begun to outside of a transaction.
    Yes,
    /// It has begun to within a transaction, which may be taken back.
    Within {
        /// For a statement that has not been passed on yet.
        now: bool,
    },
}

/// Whether a statement may be passed on, as far as channels are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// It may.
    Fine,
    /// When the server has answered all.
    Later,
    /// The channels can be fetched no more: its batch has begun.
    Late,
}

/// What ended the delivery of notifications, and what was not written of them.
pub(crate) struct Stopped {
    pub(crate) event: Event,
    pub(crate) rest: Vec<u8>,
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.pool.listener.leave(&self.mailbox, &self.names);
    }
}

impl Channels {
    fn new(client: &Client, pool: Arc<Pool>, size: usize) -> Box<Self> {
        let handle = client.registered.handle.clone();
        Box::new(Self {
            pool,
            mailbox: Mailbox::new(size, move || handle.signal(Signal::NOTIFIED)),
            names: Vec::new(),
            fetched: Fetched::No,
        })
    }
}

impl Active {
    /// Looks at a statement before it is passed on; `runs` is false for one that is only prepared.
    ///
    /// # Errors
    ///
    /// [`Event::FetchChannels`] when the server is to listen to the client's channels first; the message is looked at again
    /// after that.
    pub(crate) fn fetches(
        &self,
        client: &mut Client,
        found: Effects,
        runs: bool,
    ) -> Result<Fetch, Event> {
        let (Some(channels), Some(server)) = (&mut client.channels, &self.server) else {
            return Ok(Fetch::Fine);
        };
        let owed = &server.owed;
        let nothing_to_do = !found.any(Effects::CHANNELS)
            || self.mode == PoolerMode::Session
            || owed.copy_in
            || owed.status == TransactionStatus::Failed;
        if nothing_to_do {
            return Ok(Fetch::Fine);
        }
        // Those that are joined within a transaction are shown when it has ended.
        if found.any(Effects::ASKS_CHANNELS)
            && owed.status == TransactionStatus::InTransaction
            && !matches!(channels.fetched, Fetched::Yes)
        {
            return Ok(Fetch::Late);
        }
        match &mut channels.fetched {
            Fetched::Yes => return Ok(Fetch::Fine),
            Fetched::Within { now } if *now => {
                *now = !runs;
                return Ok(Fetch::Fine);
            }
            Fetched::No | Fetched::Within { .. } => {}
        }
        if owed.settled() {
            Err(Event::FetchChannels)
        } else if owed.unsynced {
            Ok(Fetch::Late)
        } else {
            Ok(Fetch::Later)
        }
    }

    /// Answers a statement that comes too late in its batch.
    pub(crate) fn refuse_late(&mut self, len: usize, is_query: bool) -> Step {
        let error = ErrorResponse::error(
            sqlstate::FEATURE_NOT_SUPPORTED,
            "UNLISTEN and pg_listening_channels() must be the first statement of their batch, the latter outside of a transaction",
        )
        .detail("This session listens over a connection that it shares with others (pub_sub_channel_size).")
        .hint("Send a Sync before it.");
        self.fail_here(error, len, is_query)
    }

    /// Has the server listen to the client's channels.
    pub(crate) async fn fetch_channels(&mut self, client: &mut Client) -> Result<(), Ended> {
        let (Some(server), Some(channels)) = (&mut self.server, &mut client.channels) else {
            return Ok(());
        };
        let within = server.owed.status != TransactionStatus::Idle;
        let foreign = !speaks_utf8(server);
        let asked = async {
            if within && is_on(&server.query(IS_FETCHED, ASK_TIMEOUT).await?) {
                return Ok(());
            }
            let mut sql = String::new();
            for name in &channels.names {
                sql.push_str("LISTEN ");
                write_name(&mut sql, name, foreign);
                sql.push(';');
            }
            if within {
                sql.push_str(NOW_FETCHED);
            }
            server.query(&sql, ASK_TIMEOUT).await.map(|_| ())
        };
        let result = asked.await;
        channels.fetched = if within {
            Fetched::Within { now: true }
        } else {
            Fetched::Yes
        };
        // At rest it is asked what it listens to.
        self.effects = self.effects.with(Effects::HOLDS);
        if let Err(error) = result {
            self.drop_server(client);
            return self.refuse(client, error.response().into_fatal()).await;
        }
        Ok(())
    }

    /// A notification of the client's own server: whether the client hears of it by the listener.
    pub(crate) fn heard_twice(&self, client: &Client, body: &[u8]) -> bool {
        let channels = client.channels.as_ref();
        channels.is_some_and(|c| channel_of(body).is_some_and(|name| c.has(name)))
    }
}

impl Channels {
    fn has(&self, name: &[u8]) -> bool {
        self.names.iter().any(|n| n.as_bytes() == name)
    }
}

/// Hands what the server listens to over to the pool's listener, if that is wanted and can be. The server is at rest.
pub(crate) async fn hand_over(server: &mut Server, client: &mut Client) -> Result<(), ServerError> {
    let fetched = client.channels.as_ref().map(|c| c.fetched);
    let listens = client.reasons.has(Reasons::LISTEN);
    let wanted = client.live.settings.pub_sub.is_some() && speaks_utf8(server);
    if !listens && fetched.is_none_or(|f| f == Fetched::No) || fetched.is_none() && !wanted {
        return Ok(());
    }
    let complete = match fetched {
        None | Some(Fetched::No) => false,
        Some(Fetched::Yes) => true,
        Some(Fetched::Within { .. }) => {
            let complete = is_on(&server.query(IS_FETCHED, ASK_TIMEOUT).await?);
            server.query(NOT_FETCHED, ASK_TIMEOUT).await?;
            complete
        }
    };
    let mut channels = match client.channels.take() {
        Some(channels) if Arc::ptr_eq(&channels.pool, client.pool()) => channels,
        Some(channels) => {
            // Its pool is closed, as the client will hear in its turn.
            client.channels = Some(channels);
            return Ok(());
        }
        None => Channels::new(
            client,
            client.pool().clone(),
            client.live.settings.pub_sub.unwrap_or(1),
        ),
    };
    let moved = channels.take_from(server, client.worker, complete).await;
    channels.fetched = match moved {
        Ok(true) => Fetched::No,
        _ if complete => Fetched::Yes,
        _ => Fetched::No,
    };
    if matches!(moved, Ok(true)) {
        client.reasons.put(Reasons::LISTEN, false);
    }
    if !channels.names.is_empty() {
        client.channels = Some(channels);
    }
    moved.map(|_| ())
}

impl Channels {
    /// Makes the server's channels those of the listener: all of them when `complete`, else besides those that it has.
    /// Whether that could be done.
    async fn take_from(
        &mut self,
        server: &mut Server,
        worker: usize,
        complete: bool,
    ) -> Result<bool, ServerError> {
        let pool = self.pool.clone();
        let marker = pool.listener.marker();
        let mut sql = format!("{NAMES};LISTEN ");
        identifier(&mut sql, marker);
        let rows = match server.query(&sql, ASK_TIMEOUT).await {
            Ok(rows) => rows,
            Err(ServerError::Refused(error)) if error.severity != Severity::Fatal => {
                tracing::warn!("failed to learn the names of channels: {}", error.message);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let there: Vec<Box<str>> = rows.iter().filter_map(|row| unhex(row)).collect();
        let (mut joins, mut leaves) = (there.clone(), Vec::new());
        joins.retain(|name| !self.names.contains(name));
        if complete {
            leaves.clone_from(&self.names);
            leaves.retain(|name| !there.contains(name));
        }
        if !joins.is_empty() {
            match pool
                .listener
                .join(&pool, worker, &joins, &self.mailbox)
                .await
            {
                Ok(mark) => server.until_mark(marker, mark, ASK_TIMEOUT).await?,
                Err(error) => {
                    tracing::warn!(user = %pool.user, database = %pool.database, "a client keeps its server, which listens for it: {error}");
                    let mut sql = "UNLISTEN ".to_owned();
                    identifier(&mut sql, marker);
                    server.query(&sql, ASK_TIMEOUT).await?;
                    self.silence(server, marker);
                    return Ok(false);
                }
            }
        }
        // What comes behind the mark comes from the listener.
        let heard = server.notifications.len();
        server.query("UNLISTEN *", ASK_TIMEOUT).await?;
        server.notifications.truncate(heard);
        self.silence(server, marker);
        pool.listener.leave(&self.mailbox, &leaves);
        self.names.retain(|name| !leaves.contains(name));
        self.names.append(&mut joins);
        Ok(true)
    }

    /// Drops what the server has said of channels whose notifications come from the listener, and marks.
    fn silence(&self, server: &mut Server, marker: &str) {
        let heard = std::mem::take(&mut server.notifications);
        let mut rest = &heard[..];
        while let Ok(Some((message, len))) = frame::split(rest) {
            let name = channel_of(message.body).unwrap_or_default();
            if name != marker.as_bytes() && !self.has(name) {
                server.notifications.extend_from_slice(&rest[..len]);
            }
            rest = &rest[len..];
        }
    }
}

impl Client {
    /// Tells the client, which is idle, what it has got. `Some`: why it must go. Not cancel safe.
    pub(crate) async fn deliver(&mut self) -> Option<Box<Stopped>> {
        loop {
            let mail = self.channels.as_ref()?.mailbox.take(CHUNK);
            if mail.is_empty() {
                return None;
            }
            let closed = mail.contains(&Mail::Closed);
            let mut out = self.spell_out(&mail);
            if closed && let Err(error) = self.listen_anew(&mut out).await {
                let event = Event::Refuse(Box::new(error));
                return Some(Box::new(Stopped { event, rest: out }));
            }
            if let Err(stopped) = self.say(out).await {
                return Some(stopped);
            }
        }
    }

    /// The messages that tell it.
    fn spell_out(&self, mail: &[Mail]) -> Vec<u8> {
        let foreign = self
            .params
            .get("client_encoding")
            .is_some_and(|v| !is_utf8(v));
        let (mut out, mut unreadable) = (Vec::new(), 0);
        for mail in mail {
            match mail {
                Mail::Notification(n) if foreign && !n.message[frame::HEADER + 4..].is_ascii() => {
                    unreadable += 1;
                }
                Mail::Notification(n) => out.extend_from_slice(&n.message),
                Mail::Lost(count) => warning(format!("{count} notifications were lost"))
                    .detail("They came faster than this session took them.")
                    .hint("Raise pub_sub_channel_size.")
                    .write(&mut out),
                Mail::Gap => gap().write(&mut out),
                Mail::Closed => {}
            }
        }
        if unreadable > 0 {
            warning(format!("{unreadable} notifications were lost"))
                .detail("They are not in ASCII, and this session's client_encoding is not UTF8.")
                .write(&mut out);
        }
        out
    }

    /// The pool is gone, or its host takes no writes any more: listens over the one that has taken its place.
    async fn listen_anew(&mut self, out: &mut Vec<u8>) -> Result<(), ErrorResponse> {
        let ended = |why: &str| {
            ErrorResponse::fatal(
                sqlstate::ADMIN_SHUTDOWN,
                "this session cannot listen any more",
            )
            .detail(why)
        };
        let old = self.channels.take();
        let Some(old) = old else { return Ok(()) };
        // Not `refresh`: it may keep a server of the pool that it was served by.
        let (live, user) = (self.runtime.live(), &self.account.user);
        let Some(account) = self.runtime.account(&live, &user.name, &user.database) else {
            return Err(ended("Its user was taken out of the configuration."));
        };
        let pool = account.writer().clone();
        let size = live.settings.pub_sub;
        let Some(size) = size else {
            return Err(ended(
                "A new configuration has changed pub_sub_channel_size.",
            ));
        };
        let mut new = Channels::new(self, pool.clone(), size);
        let joined = pool
            .listener
            .join(&pool, self.worker, &old.names, &new.mailbox);
        joined.await.map_err(|error| ended(&error.to_string()))?;
        new.names.clone_from(&old.names);
        self.channels = Some(new);
        gap().write(out);
        Ok(())
    }

    /// Writes to the client for as long as nobody wants it to go.
    async fn say(&mut self, out: Vec<u8>) -> Result<(), Box<Stopped>> {
        let mut sent = 0;
        loop {
            let (stream, handle) = (&mut self.stream, &self.registered.handle);
            let step = poll_fn(|cx| {
                let signals = handle.take_urgent();
                if signals.0 != 0 {
                    return Poll::Ready(Ok(Some(signals)));
                }
                while sent < out.len() {
                    match std::task::ready!(stream.poll_write_slice(cx, &out[sent..])) {
                        Ok(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                        Ok(count) => sent += count,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                stream.poll_flush_all(cx).map_ok(|()| None)
            });
            let event = match step.await {
                Ok(None) => {
                    self.registered.handle.counters.sent.add(out.len() as u64);
                    return Ok(());
                }
                Ok(Some(signals)) => match self.heed_idle(signals) {
                    Some(error) => Event::Refuse(Box::new(error)),
                    None => continue,
                },
                Err(error) => Event::ClientBroke(error),
            };
            let rest = out[sent..].to_vec();
            return Err(Box::new(Stopped { event, rest }));
        }
    }
}

fn warning(text: String) -> ErrorResponse {
    ErrorResponse {
        severity: Severity::Warning,
        ..ErrorResponse::error("01000", text)
    }
}

fn gap() -> ErrorResponse {
    warning("notifications may have been lost".to_owned())
        .detail("The server connection that listens for this session was replaced by another one.")
}

/// The channel of a NotificationResponse.
fn channel_of(body: &[u8]) -> Option<&[u8]> {
    Some(frame::cstr(body.get(4..)?)?.0)
}

fn speaks_utf8(server: &Server) -> bool {
    server.reported(b"client_encoding") == Some(b"UTF8")
}

/// Whether a client's setting says UTF-8, which has several names.
fn is_utf8(value: &Value) -> bool {
    let (Value::Plain(text) | Value::Statement(text)) = value;
    let text = text.to_ascii_lowercase();
    ["utf8", "utf-8", "unicode"]
        .iter()
        .any(|name| text.contains(name))
}

pub(crate) fn is_on(rows: &pgdog_backend::Rows) -> bool {
    rows.first()
        .and_then(|row| row.first())
        .is_some_and(|v| matches!(v.as_deref(), Some("on" | "t")))
}

/// A channel's name, in ASCII where the text is read in another encoding.
fn write_name(sql: &mut String, name: &str, foreign: bool) {
    if !foreign || name.is_ascii() {
        return identifier(sql, name);
    }
    sql.push_str("U&\"");
    for c in name.chars() {
        match c {
            '"' => sql.push_str("\"\""),
            '\\' => sql.push_str("\\\\"),
            ' '..='~' => sql.push(c),
            _ => sql.push_str(&format!("\\+{:06x}", u32::from(c))),
        }
    }
    sql.push('"');
}

fn unhex(row: &[Option<String>]) -> Option<Box<str>> {
    let text = row.first()?.as_deref()?;
    let bytes: Option<Vec<u8>> = (0..text.len() / 2)
        .map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok())
        .collect();
    Some(String::from_utf8(bytes?).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        let row = |text: &str| vec![Some(text.to_owned())];
        assert_eq!(
            unhex(&row("5765697264202278")).as_deref(),
            Some("Weird \"x")
        );
        assert_eq!(unhex(&row("c3a9")).as_deref(), Some("é"));
        assert_eq!(unhex(&row("ff")), None);
    }

    #[test]
    fn names_are_written_for_any_encoding() {
        let written = |name: &str, foreign: bool| {
            let mut sql = String::new();
            write_name(&mut sql, name, foreign);
            sql
        };
        assert_eq!(written("a\"é", false), "\"a\"\"é\"");
        assert_eq!(written("a\"b", true), "\"a\"\"b\"");
        assert_eq!(written("\\\"é\n", true), "U&\"\\\\\"\"\\+0000e9\\+00000a\"");
    }
}
