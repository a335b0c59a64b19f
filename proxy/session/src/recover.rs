//! A server whose client has gone: drained, rolled back and reset for the next one, or closed.

use std::sync::Arc;
use std::time::Duration;

use pgdog_backend::{Pool, Server, ServerError, Target};
use pgdog_config::Recovery;
use pgdog_wire::backend::TransactionStatus;
use pgdog_wire::buffer::Buffer;
use pgdog_wire::frame;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::settle::finish_request;

/// An abandoned server.
#[derive(Debug)]
pub(crate) struct Abandoned {
    pub(crate) server: Box<Server>,
    /// A message to the server was cut off in the middle.
    pub(crate) partial_request: bool,
    /// Bytes of a message of the server that are still to come.
    pub(crate) answer_left: usize,
    /// What was read from the server and not looked at.
    pub(crate) input: Buffer,
    pub(crate) cancelling: Option<JoinHandle<bool>>,
}

/// Puts the server into order in a task of its own, or closes it.
pub(crate) fn spawn(left: Abandoned, client: &Client) {
    let owed = &left.server.owed;
    let clean = owed.at_rest()
        && !left.server.tainted
        && left.cancelling.is_none()
        && left.input.is_empty()
        && left.answer_left == 0;
    let pool = client.pool().clone();
    if clean && !left.partial_request {
        pool.release(left.server);
        return;
    }
    let reading = !owed.settled() || left.answer_left > 0;
    let possible = !left.partial_request
        && match client.live.settings.recovery {
            Recovery::Recover => true,
            Recovery::RollbackOnly => !reading,
            Recovery::Drop => false,
        };
    let target = pool.target();
    if !possible {
        stop(left.server, target, &client.runtime.tidying);
        return;
    }
    client.runtime.metrics.count(|m| &m.recoveries);
    let tidying = &client.runtime.tidying;
    tidying.spawn(recover(
        left,
        pool,
        target,
        client.live.settings.rollback_timeout,
        tidying.clone(),
    ));
}

async fn recover(
    left: Abandoned,
    pool: Arc<Pool>,
    target: Arc<Target>,
    limit: Duration,
    tidying: TaskTracker,
) {
    let Abandoned {
        mut server,
        answer_left,
        input,
        cancelling,
        ..
    } = left;
    // Nobody wants the answer: a long query is cancelled rather than read to its end.
    let cancelling =
        match (cancelling, server.key.clone()) {
            (None, Some(key)) if !server.owed.settled() && !server.owed.copy_in => {
                let target = target.clone();
                Some(tidying.spawn(async move {
                    pgdog_backend::cancel::cancel(&target, &key).await.is_ok()
                }))
            }
            (cancelling, _) => cancelling,
        };
    let work = async {
        drain(&mut server, answer_left, input).await?;
        if let Some(cancelling) = cancelling {
            // It may hit whoever runs next until the server has closed its connection.
            if !matches!(cancelling.await, Ok(true)) {
                return Err(ServerError::Closed);
            }
        }
        if server.owed.status != TransactionStatus::Idle {
            server.query("ROLLBACK", limit).await?;
        }
        if server.tainted {
            server.discard_all(limit).await?;
            if server.has_temp_schema(limit).await? {
                // As no new session has: the next client could tell.
                return Err(ServerError::Closed);
            }
            server.flush_statistics(limit).await?;
        }
        Ok::<_, ServerError>(())
    };
    match pgdog_net::timer::timeout(limit, work).await {
        Ok(Ok(())) if server.owed.at_rest() => pool.release(server),
        _ => stop(server, target, &tidying),
    }
}

/// Reads and drops all that the server owes.
async fn drain(server: &mut Server, mut skip: usize, mut input: Buffer) -> Result<(), ServerError> {
    let mut out = Vec::new();
    finish_request(server, &mut out);
    server.send(&out).await?;
    while !server.owed.settled() {
        if skip > 0 {
            if input.is_empty()
                && std::future::poll_fn(|cx| server.poll_fill(cx, &mut input)).await? == 0
            {
                return Err(ServerError::Closed);
            }
            let count = skip.min(input.len());
            input.consume(count);
            skip -= count;
            continue;
        }
        let len = server.next_message(&mut input).await?;
        let message = &input.data()[..len];
        let (kind, body) = (message[0], message[frame::HEADER..].to_vec());
        input.consume(len);
        server.owed.answer(kind, &body)?;
        match kind {
            b'S' => {
                // A setting that no text showed: only a reset undoes it.
                server.note_parameter(&body);
                server.tainted = true;
            }
            b'G' => {
                let mut out = Vec::new();
                finish_request(server, &mut out);
                server.send(&out).await?;
            }
            b'E' => {
                for id in std::mem::take(&mut server.owed.lost) {
                    server.prepared.remove(id);
                }
                for id in std::mem::take(&mut server.owed.kept) {
                    server.prepared.insert(id);
                }
                let mut out = Vec::new();
                finish_request(server, &mut out);
                server.send(&out).await?;
            }
            _ => {}
        }
        server.owed.due(|_| {});
    }
    // Of the one that has gone, not of the next one.
    server.owed.forget_client();
    server.unnamed = 0;
    Ok(())
}

/// Closes a server in the middle of its work, and sees to it that the work ends: PostgreSQL notices a closed connection only
/// when it writes to it.
fn stop(server: Box<Server>, target: Arc<Target>, tidying: &TaskTracker) {
    if !server.owed.settled()
        && let Some(key) = server.key.clone()
    {
        tidying.spawn(async move {
            let _ = pgdog_backend::cancel::cancel(&target, &key).await;
        });
    }
    drop(server);
}
