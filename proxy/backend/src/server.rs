//! One connection to a server, and the queries that the proxy itself runs on it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pgdog_net::{Address, Stream};
use pgdog_wire::backend::{read_parameter_status, read_row};
use pgdog_wire::buffer::{self, Buffer};
use pgdog_wire::startup::CancelKey;
use pgdog_wire::{ErrorResponse, Header, frame, frontend};
use tokio_util::io::poll_read_buf;

use crate::error::ServerError;
use crate::expect::{Expect, Owed};
use crate::handle::ServerHandle;
use crate::params::Params;
use crate::pool::Permit;
use crate::statements::Prepared;

/// How long a server may take to close after a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// A logged-in connection to a server.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub stream: Stream,
    /// What it still owes.
    pub owed: Owed,
    /// What it has prepared.
    pub prepared: Prepared,
    /// The settings that its session has now.
    pub params: Arc<Params>,
    /// The settings that its session began with, above those of the pool: what RESET goes back to.
    pub base: Arc<Params>,
    /// Clients that do not keep it have had it: what they leave (statements under our names, an unnamed one, sequence values) is
    /// not for one that takes it for a session of its own.
    pub shared: bool,
    /// Which unnamed statement it holds; 0 is none that a client may use.
    pub unnamed: u64,
    /// How to cancel its query. Some services give no key.
    pub key: Option<CancelKey>,
    /// Its ParameterStatus values, as they stand now.
    pub reported: Vec<Reported>,
    /// Where it is.
    pub address: Arc<Address>,
    /// What others see of it; stands for nothing until [`Pool::list`](crate::Pool::list) has made it known.
    pub handle: Arc<ServerHandle>,
    /// Coarse time when it was last known to answer, ms.
    pub used: u64,
    /// Coarse time after which it is not to be used again, ms.
    pub expires: Option<u64>,
    /// The worker whose reactor it is registered with.
    pub worker: usize,
    /// Which RECONNECT or configuration it belongs to.
    pub generation: u64,
    /// It has asked for a secret at the login, so that the one who gave it has proven to know it.
    pub asked: bool,
    /// Its session holds something that must be discarded before another client may have it.
    pub tainted: bool,
    /// Its place in the pool.
    pub permit: Option<Permit>,
    /// Notifications that came between the answers to a query of ours: messages, whole, for the client.
    pub notifications: Vec<u8>,
}

/// The setting that decides how the text of queries is read.
const ENCODING: &str = "client_encoding";

/// A setting as a server reported it: its name and value.
pub type Reported = (Box<[u8]>, Box<[u8]>);

/// Rows of a query of ours: columns in text format.
pub type Rows = Vec<Vec<Option<String>>>;

impl Server {
    /// Reads what is there into `input`. 0 bytes: the server has closed. Cancel safe.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        input: &mut Buffer,
    ) -> Poll<std::io::Result<usize>> {
        input.reserve(buffer::SIZE / 4);
        poll_read_buf(std::pin::Pin::new(&mut self.stream), cx, &mut input.bytes)
    }

    /// Notes a ParameterStatus. Servers send few, so a list does.
    pub fn note_parameter(&mut self, body: &[u8]) {
        let Some((name, value)) = read_parameter_status(body) else {
            return;
        };
        match self.reported.iter_mut().find(|(n, _)| &**n == name) {
            Some(entry) => entry.1 = value.into(),
            None => self.reported.push((name.into(), value.into())),
        }
    }

    /// The value of a setting as the server has last reported it; names are compared as PostgreSQL does, without regard
    /// to case.
    #[must_use]
    pub fn reported(&self, name: &[u8]) -> Option<&[u8]> {
        self.reported
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// Whether an idle connection is still good: nothing unexpected has come. Takes no system call when nothing has.
    pub fn still_idle(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.stream.may_have_input() {
            return true;
        }
        match self.stream.poll_read_ready(cx) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => self.idle_messages(cx),
        }
    }

    /// Something came while nobody used the connection: notices and settings are fine, anything else is its end.
    fn idle_messages(&mut self, cx: &mut Context<'_>) -> bool {
        let mut input = Buffer {
            bytes: Vec::with_capacity(1024),
            start: 0,
        };
        loop {
            match poll_read_buf(std::pin::Pin::new(&mut self.stream), cx, &mut input.bytes) {
                Poll::Pending => return input.is_empty(),
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return false,
            }
            while let Ok(Some((message, len))) = frame::split(input.data()) {
                match message.kind {
                    b'S' => {
                        let body = message.body.to_vec();
                        self.note_parameter(&body);
                    }
                    b'N' | b'A' => {}
                    _ => return false,
                }
                input.consume(len);
            }
        }
    }

    /// Writes all of `bytes`. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`ServerError::Io`] when the connection broke.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        let mut sent = 0;
        while sent < bytes.len() {
            let n = poll_fn(|cx| self.stream.poll_write_slice(cx, &bytes[sent..])).await?;
            if n == 0 {
                return Err(ServerError::Closed);
            }
            sent += n;
        }
        poll_fn(|cx| self.stream.poll_flush_all(cx)).await?;
        Ok(())
    }

    /// Reads until a whole message lies at the start of `input`; its size. Not cancel safe for the connection's use.
    ///
    /// # Errors
    ///
    /// [`ServerError::Closed`] or [`ServerError::Io`] when the connection broke, [`ServerError::Protocol`] on a bad length.
    pub async fn next_message(&mut self, input: &mut Buffer) -> Result<usize, ServerError> {
        loop {
            let header = Header::peek(input.data())
                .map_err(|_| ServerError::Protocol("invalid message length"))?;
            if let Some(header) = header
                && input.len() >= header.len
            {
                return Ok(header.len);
            }
            if poll_fn(|cx| self.poll_fill(cx, input)).await? == 0 {
                return Err(ServerError::Closed);
            }
        }
    }

    /// Runs a query string of the proxy's own on a connection that owes nothing, and gives its rows.
    /// Not cancel safe: a connection on which it was dropped must be closed.
    ///
    /// # Errors
    ///
    /// [`ServerError::Refused`] when the server said so (the connection is usable), any other when it is not.
    pub async fn query(&mut self, sql: &str, timeout: Duration) -> Result<Rows, ServerError> {
        pgdog_net::timer::timeout(timeout, self.query_now(sql))
            .await
            .map_err(|_| ServerError::Timeout(timeout))?
    }

    /// The same with parameters in text, so that none of them can be taken for SQL.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn query_with(
        &mut self,
        sql: &str,
        parameters: &[&str],
        timeout: Duration,
    ) -> Result<Rows, ServerError> {
        let mut out = Vec::new();
        frontend::parse(&mut out, b"", sql.as_bytes(), &[0, 0]);
        frontend::bind_texts(&mut out, parameters);
        frontend::execute(&mut out);
        frontend::bare(&mut out, b'S');
        let expected = [
            Expect::Parse(None),
            Expect::Bind(None),
            Expect::Execute,
            Expect::Sync,
        ];
        pgdog_net::timer::timeout(timeout, self.ask(&out, expected))
            .await
            .map_err(|_| ServerError::Timeout(timeout))?
    }

    async fn query_now(&mut self, sql: &str) -> Result<Rows, ServerError> {
        let mut out = Vec::with_capacity(sql.len() + 6);
        frontend::query(&mut out, sql.as_bytes());
        self.ask(&out, [Expect::Query]).await
    }

    /// Sends messages of the proxy's own, and gives the rows up to the ReadyForQuery.
    async fn ask(
        &mut self,
        out: &[u8],
        expected: impl IntoIterator<Item = Expect>,
    ) -> Result<Rows, ServerError> {
        expected.into_iter().for_each(|e| self.owed.push(e));
        self.unnamed = 0;
        self.send(out).await?;
        let mut input = Buffer::new();
        let mut rows = Rows::new();
        let (mut failure, mut ready) = (None, false);
        loop {
            // What came behind the ReadyForQuery in the same read, a notification for instance, is not there to be read again.
            if ready && input.is_empty() {
                return match failure {
                    Some(error) => Err(ServerError::Refused(Box::new(error))),
                    None => Ok(rows),
                };
            }
            let len = self.next_message(&mut input).await?;
            let message = &input.data()[..len];
            let (kind, body) = (message[0], message[frame::HEADER..].to_vec());
            input.consume(len);
            self.owed.answer(kind, &body)?;
            match kind {
                b'D' => rows.push(
                    read_row(&body)
                        .into_iter()
                        .map(|c| c.map(|c| String::from_utf8_lossy(c).into_owned()))
                        .collect(),
                ),
                b'S' => self.note_parameter(&body),
                b'A' => pgdog_wire::write::message(&mut self.notifications, b'A', |b| {
                    b.extend_from_slice(&body)
                }),
                b'E' => {
                    let error = ErrorResponse::read(&body);
                    if error.severity == pgdog_wire::Severity::Fatal {
                        return Err(ServerError::Refused(Box::new(error)));
                    }
                    failure = Some(error);
                }
                b'Z' => ready = true,
                _ => {}
            }
        }
    }

    /// Brings the session's settings to `target`. What the server refuses is told, and nothing has changed then.
    /// Not cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn set_params(
        &mut self,
        target: &Arc<Params>,
        timeout: Duration,
    ) -> Result<(), ServerError> {
        let sql = self.params.statements_to(target);
        if !sql.is_empty() {
            if self.params.get(ENCODING).is_some() {
                // A query string is read in the encoding that holds when it begins.
                self.query("SET client_encoding = 'UTF8'", timeout).await?;
                let mut params = (*self.params).clone();
                params.set(ENCODING, crate::params::Value::Plain("UTF8".into()));
                self.params = Arc::new(params);
            }
            self.query(&sql, timeout).await?;
        }
        self.params = target.clone();
        Ok(())
    }

    /// Makes the session as good as new. Not cancel safe.
    ///
    /// # Errors
    ///
    /// As [`Server::query`].
    pub async fn discard_all(&mut self, timeout: Duration) -> Result<(), ServerError> {
        self.query("DISCARD ALL", timeout).await?;
        self.prepared.clear();
        self.params = self.base.clone();
        // They were for the client that listened.
        self.notifications.clear();
        self.unnamed = 0;
        self.tainted = false;
        self.shared = false;
        Ok(())
    }

    /// The same connection on the calling thread's reactor, which is that of `worker`. `None` when it broke on the way.
    #[must_use]
    pub fn moved_to(self: Box<Self>, worker: usize) -> Option<Box<Self>> {
        let mut server = *self;
        let stream = server
            .stream
            .detach()
            .and_then(pgdog_net::Detached::attach)
            .ok()?;
        server.stream = stream;
        server.worker = worker;
        Some(Box::new(server))
    }

    /// Closes, with a goodbye or without, and waits for as long as a server may take until it has gone. Cancel safe in that a
    /// connection is closed in any case.
    pub async fn gone(mut self, goodbye: bool) {
        let gone = async {
            if goodbye {
                let mut out = Vec::new();
                frontend::bare(&mut out, b'X');
                let _ = poll_fn(|cx| self.stream.poll_write_slice(cx, &out)).await;
                let _ = poll_fn(|cx| self.stream.poll_flush_all(cx)).await;
            } else {
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.stream).await;
            }
            let mut rest = Buffer::new();
            while matches!(poll_fn(|cx| self.poll_fill(cx, &mut rest)).await, Ok(1..)) {
                rest.clear();
            }
        };
        let _ = pgdog_net::timer::timeout(GOODBYE, gone).await;
    }

    /// Says goodbye and closes. Never waits; but its place in the pool is free only when the server has gone, because the
    /// server's own limits count it until then.
    pub fn close(mut self) {
        let mut out = Vec::new();
        frontend::bare(&mut out, b'X');
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = self.stream.poll_write_slice(&mut cx, &out);
        let _ = self.stream.poll_flush_all(&mut cx);
        if let (Some(mut permit), Ok(runtime)) =
            (self.permit.take(), tokio::runtime::Handle::try_current())
        {
            permit.going();
            runtime.spawn(async move {
                let gone = async {
                    let mut rest = Buffer::new();
                    while matches!(poll_fn(|cx| self.poll_fill(cx, &mut rest)).await, Ok(1..)) {
                        rest.clear();
                    }
                };
                let _ = pgdog_net::timer::timeout(GOODBYE, gone).await;
                drop(self);
                drop(permit);
            });
        }
    }
}
