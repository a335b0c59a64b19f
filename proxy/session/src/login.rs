//! From an accepted socket to a client that may query: TLS, startup packet, authentication, greeting.

mod console;
mod first;
mod guesses;
mod guests;
pub(crate) mod password;
mod proof;
mod replicate;
mod rules;
mod welcome;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgdog_net::{Peer, Stream};
use pgdog_wire::backend::Authentication;
use pgdog_wire::buffer::Buffer;
use pgdog_wire::startup::{CancelKey, FirstPacket};
use pgdog_wire::{ErrorResponse, sqlstate};
use tokio::io::AsyncWriteExt;
use tokio_util::io::poll_read_buf;

use crate::client::{Client, write_all};
use crate::guard::{Delay, Place};
use crate::replication::Replication;
use crate::runtime::{Live, Runtime};

pub use console::Console;

/// Room for what a client says at once during a login; more is made for those that say more.
const INPUT: usize = 1024;
/// How long a client that is refused may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What became of a connection.
#[derive(Debug)]
pub enum Login {
    /// A client.
    Client(Box<Client>),
    /// A cancel request, dealt with by the caller, who closes the connection after that: drivers take the end of it for
    /// the sign that their next statement is safe.
    Cancel(CancelKey, Box<Stream>),
    /// A replication connection.
    Replication(Box<Replication>),
    /// Somebody on the admin console, which the caller serves.
    Admin(Box<Console>),
    /// It was told why not, and is closed. The second is the true reason, where it was told another.
    Refused(ErrorResponse, Option<String>),
    /// It went away before it said who it is; health checks of load balancers do.
    Gone,
}

/// Why a login ended early.
enum Fail {
    Io,
    Told(Box<ErrorResponse>),
}

impl From<std::io::Error> for Fail {
    fn from(_: std::io::Error) -> Self {
        Self::Io
    }
}

impl From<ErrorResponse> for Fail {
    fn from(error: ErrorResponse) -> Self {
        Self::Told(Box::new(error))
    }
}

/// Logs a client in, within `client_login_timeout`. Not cancel safe.
pub async fn login(stream: Stream, peer: Peer, runtime: &Arc<Runtime>, worker: usize) -> Login {
    // Read before the configuration: a client that was let in under an old one must notice.
    let generation = runtime.generation();
    let live = runtime.live();
    let limit = live.settings.timeouts.login;
    let mut session = Session {
        stream: Some(stream),
        input: Buffer {
            bytes: Vec::with_capacity(INPUT),
            start: 0,
        },
        out: Vec::new(),
        peer,
        live,
        generation,
        runtime: runtime.clone(),
        worker,
        place: None,
        delay: Delay::default(),
        why: None,
        began: None,
    };
    let result = match session.enter() {
        Ok(()) => pgdog_net::timer::timeout(limit, session.run()).await,
        Err(fail) => Ok(Err(fail)),
    };
    let error = match result {
        Ok(Ok(login)) => return login,
        Ok(Err(Fail::Io)) => return Login::Gone,
        Ok(Err(Fail::Told(error))) => *error,
        Err(_) => ErrorResponse::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "canceling authentication due to client_login_timeout",
        ),
    };
    runtime.metrics.count(|m| &m.login_failures);
    if !session.wait_for_answer().await {
        return Login::Refused(error, session.why);
    }
    error.write(&mut session.out);
    let told = async {
        if session.flush().await.is_ok()
            && let Some(stream) = &mut session.stream
        {
            let _ = stream.shutdown().await;
        }
    };
    let _ = pgdog_net::timer::timeout(LAST_WORDS, told).await;
    Login::Refused(error, session.why)
}

/// A login under way.
struct Session {
    /// Taken away during a TLS handshake, and when the login is over.
    stream: Option<Stream>,
    /// What the client has said and nobody has looked at yet.
    input: Buffer,
    /// What it is to be told with the next flush.
    out: Vec<u8>,
    peer: Peer,
    live: Arc<Live>,
    generation: u64,
    runtime: Arc<Runtime>,
    worker: usize,
    /// Its place among those of its address that are logging in.
    place: Option<Place>,
    /// How long it waits to hear that it was wrong.
    delay: Delay,
    /// Why it does not get in, for the log.
    why: Option<String>,
    /// When its first bytes came, ns.
    began: Option<u64>,
}

impl Session {
    fn stream(&mut self) -> Result<&mut Stream, Fail> {
        self.stream.as_mut().ok_or(Fail::Io)
    }

    async fn run(&mut self) -> Result<Login, Fail> {
        let startup = match self.first_packets().await? {
            FirstPacket::Cancel(key) => {
                return Ok(Login::Cancel(
                    key,
                    Box::new(self.stream.take().ok_or(Fail::Io)?),
                ));
            }
            FirstPacket::Startup(startup) => startup,
            FirstPacket::Ssl | FirstPacket::Gss => {
                return Err(violation("repeated encryption request"));
            }
        };
        self.negotiate(&startup);
        if self.runtime.registry.draining() {
            let message = "the proxy is shutting down";
            return Err(ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, message).into());
        }
        if startup.database == self.live.settings.admin.name {
            let console = self.admin(&startup).await?;
            return Ok(Login::Admin(Box::new(console)));
        }
        let account = self.authenticate(&startup).await?;
        if startup.replication.is_some() {
            let replication = self.replicate(&startup, account).await?;
            return Ok(Login::Replication(Box::new(replication)));
        }
        self.greet(startup, account)
            .await
            .map(|client| Login::Client(Box::new(client)))
    }

    /// Has at least `count` bytes of the client's in `input`. Takes all that is there: a packet costs one system call, not
    /// one for its length and one for the rest.
    async fn fill(&mut self, count: usize) -> Result<&[u8], Fail> {
        let Self {
            stream,
            input,
            began,
            runtime,
            ..
        } = self;
        let stream = stream.as_mut().ok_or(Fail::Io)?;
        while input.len() < count {
            input.reserve(count - input.len());
            let read = poll_fn(|cx| poll_read_buf(Pin::new(stream), cx, &mut input.bytes));
            if read.await? == 0 {
                return Err(Fail::Io);
            }
            began.get_or_insert_with(|| runtime.clock.precise());
        }
        Ok(input.data())
    }

    /// Sends what the client is to be told, and `request`, which it is to answer.
    async fn ask(&mut self, request: Authentication<'_>) -> Result<(), Fail> {
        request.write(&mut self.out);
        self.flush().await
    }

    /// Sends what the client is to be told.
    async fn flush(&mut self) -> Result<(), Fail> {
        let out = std::mem::take(&mut self.out);
        Ok(write_all(self.stream()?, &out).await?)
    }
}

fn violation(message: &str) -> Fail {
    ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, message).into()
}
