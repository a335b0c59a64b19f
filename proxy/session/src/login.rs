//! From an accepted socket to a client that may query: TLS, startup packet, authentication, greeting.

mod first;
mod proof;
mod replicate;
mod welcome;

use std::sync::Arc;

use pgdog_net::{Peer, Stream};
use pgdog_wire::backend::Authentication;
use pgdog_wire::startup::{CancelKey, FirstPacket};
use pgdog_wire::{ErrorResponse, sqlstate};
use tokio::io::AsyncWriteExt;

use crate::client::{Client, write_all};
use crate::runtime::{Live, Runtime};

/// What became of a connection.
#[derive(Debug)]
pub enum Login {
    /// A client.
    Client(Box<Client>),
    /// A cancel request, dealt with by the caller, who closes the connection after that: drivers take the end of it for
    /// the sign that their next statement is safe.
    Cancel(CancelKey, Box<Stream>),
    /// A logical replication connection, served to its end.
    Replication,
    /// It was told why not, and is closed.
    Refused(ErrorResponse),
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
        peer,
        live,
        generation,
        runtime: runtime.clone(),
        worker,
    };
    let result = pgdog_net::timer::timeout(limit, session.run()).await;
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
    if let Some(stream) = &mut session.stream {
        let mut out = Vec::new();
        error.write(&mut out);
        let _ =
            pgdog_net::timer::timeout(std::time::Duration::from_secs(1), write_all(stream, &out))
                .await;
        let _ =
            pgdog_net::timer::timeout(std::time::Duration::from_secs(1), stream.shutdown()).await;
    }
    Login::Refused(error)
}

struct Session {
    stream: Option<Stream>,
    peer: Peer,
    live: Arc<Live>,
    generation: u64,
    runtime: Arc<Runtime>,
    worker: usize,
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
        self.negotiate(&startup).await?;
        let account = self.authenticate(&startup).await?;
        if startup.replication.is_some() {
            return self.replicate(&startup, &account).await;
        }
        self.greet(startup, account)
            .await
            .map(|client| Login::Client(Box::new(client)))
    }

    async fn ask(&mut self, request: Authentication<'_>) -> Result<(), Fail> {
        let mut out = Vec::new();
        request.write(&mut out);
        Ok(write_all(self.stream()?, &out).await?)
    }
}

fn violation(message: &str) -> Fail {
    ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, message).into()
}
