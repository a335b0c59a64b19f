//! The task that keeps the connection.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgdog_wire::buffer::Buffer;
use pgdog_wire::write::{identifier, literal};
use pgdog_wire::{ErrorResponse, Severity, frame};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Joining, Mail, Order};
use crate::budget::Places;
use crate::error::{CheckoutError, ServerError};
use crate::handle::ServerState;
use crate::pool::Pool;
use crate::server::Server;

/// Limit for one question to the server.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it waits for a place in the limits above the pool: a client waits with it.
const PLACE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the connection stays when nobody listens.
const LINGER: Duration = Duration::from_secs(10);
/// Pause after the first loss of the connection; it doubles with each failure to open another one.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How often it looks whether a paused pool goes on.
const PAUSED_STEP: Duration = Duration::from_millis(50);

/// Why a connection is not used any more.
enum End {
    /// It broke, or could not be opened.
    Lost(ServerError),
    /// Another one is to take its place.
    Renewed,
    /// Nobody listens, and nobody can have come since: the task is forgotten.
    Unused,
    /// The pool is closed.
    Closed,
}

/// An open connection.
struct Open {
    server: Server,
    input: Buffer,
    /// What it listens to.
    channels: HashSet<Box<str>>,
    _places: Places,
}

/// Keeps a connection as long as somebody listens.
pub(super) async fn run(pool: Arc<Pool>, mut orders: UnboundedReceiver<Order>, worker: usize) {
    let mut pause = BACKOFF;
    loop {
        if pool.is_paused() || pool.is_held() {
            let paused = ErrorResponse::error(
                pgdog_wire::sqlstate::CANNOT_CONNECT_NOW,
                "the pool is paused",
            );
            let error = ServerError::Refused(Box::new(paused));
            match wait(&pool, &mut orders, &error, PAUSED_STEP).await {
                None => continue,
                Some(End::Closed) => return end_all(&pool, &mut orders),
                Some(_) => return,
            }
        }
        let end = match open(&pool, worker).await {
            Ok(mut open) => {
                pause = BACKOFF;
                let end = serve(&pool, &mut open, &mut orders).await;
                open.server.close();
                end
            }
            Err(end) => end,
        };
        match end {
            End::Renewed => pool.listener.fail_all(None),
            End::Unused => return,
            End::Closed => return end_all(&pool, &mut orders),
            End::Lost(error) => {
                tracing::warn!(user = %pool.user, database = %pool.database, "failed to listen for notifications: {error}");
                pool.listener
                    .counters
                    .disconnects
                    .fetch_add(1, Ordering::Relaxed);
                pool.listener.fail_all(Some(&error));
                match wait(&pool, &mut orders, &error, pause).await {
                    None => {}
                    Some(End::Closed) => return end_all(&pool, &mut orders),
                    Some(_) => return,
                }
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Tells all that nothing will come any more.
fn end_all(pool: &Pool, orders: &mut UnboundedReceiver<Order>) {
    let mailboxes = {
        let mut book = pool.listener.book();
        book.orders = None;
        book.joining.clear();
        let mailboxes = book.mailboxes();
        book.channels.clear();
        mailboxes
    };
    // Who waits to be taken in hears that by its end.
    orders.close();
    while orders.try_recv().is_ok() {}
    mailboxes.iter().for_each(|m| m.tell(Mail::Closed));
}

/// Waits until it is time to try again. `Some`: that is not worth it. Who wants in meanwhile is told why he cannot.
async fn wait(
    pool: &Pool,
    orders: &mut UnboundedReceiver<Order>,
    error: &ServerError,
    pause: Duration,
) -> Option<End> {
    let mut sleep = std::pin::pin!(pgdog_net::timer::sleep(pause));
    loop {
        // What came while the connection was being opened has failed with it.
        while let Ok(order) = orders.try_recv() {
            if refuse(order, error) {
                return Some(End::Closed);
            }
        }
        if pool.listener.forgets_task(orders) {
            return Some(End::Unused);
        }
        tokio::select! {
            () = &mut sleep => return None,
            order = orders.recv() => if order.is_none_or(|order| refuse(order, error)) {
                return Some(End::Closed);
            },
        }
    }
}

/// Tells who wants in that it fails. Whether this was the order to end.
fn refuse(order: Order, error: &ServerError) -> bool {
    match order {
        Order::Join(_, joining) => {
            let _ = joining.done.send(Err(error.clone()));
            false
        }
        Order::Tidy | Order::Reconnect => false,
        Order::Close => true,
    }
}

/// Opens a connection that listens to all that is listened to.
async fn open(pool: &Arc<Pool>, worker: usize) -> Result<Open, End> {
    let places = match pgdog_net::timer::timeout(PLACE_TIMEOUT, pool.reserve(worker)).await {
        Ok(Ok(places)) => places,
        Ok(Err(CheckoutError::Closed)) => return Err(End::Closed),
        Ok(Err(CheckoutError::Server(error) | CheckoutError::Unreachable { cause: error, .. })) => {
            return Err(End::Lost(error));
        }
        Ok(Err(CheckoutError::Timeout { .. })) | Err(_) => {
            let full = "no place is free for it in max_db_connections, max_user_connections or the budget of its host";
            let error = ErrorResponse::error(pgdog_wire::sqlstate::TOO_MANY_CONNECTIONS, full);
            return Err(End::Lost(ServerError::Refused(Box::new(error))));
        }
    };
    let (target, generation) = (pool.target(), pool.generation());
    let mut parameters = target.parameters.clone();
    if !parameters
        .iter()
        .any(|(name, _)| name == "application_name")
    {
        let name = "pgdog listener".to_owned();
        parameters.push(("application_name".to_owned(), name));
    }
    // In which names and payloads are compared and handed out.
    parameters.retain(|(name, _)| name != "client_encoding");
    parameters.push(("client_encoding".to_owned(), "UTF8".to_owned()));
    let mut server = target
        .with_parameters(parameters)
        .connect()
        .await
        .map_err(End::Lost)?;
    server.worker = worker;
    server.generation = generation;
    pool.list(&mut server);
    server.handle.does(ServerState::Active, 0, pool.clock.now());
    let channels: HashSet<_> = pool.listener.book().channels.keys().cloned().collect();
    let mut sql = String::from("LISTEN ");
    identifier(&mut sql, &pool.listener.marker);
    for name in &channels {
        sql.push_str(";LISTEN ");
        identifier(&mut sql, name);
    }
    server.query(&sql, ASK_TIMEOUT).await.map_err(End::Lost)?;
    // Only now: who looks again what it may have missed misses nothing after that.
    pool.listener.tell(&Mail::Gap);
    let heard = std::mem::take(&mut server.notifications);
    pool.listener.sort(&heard);
    Ok(Open {
        server,
        input: Buffer::new(),
        channels,
        _places: places,
    })
}

/// Hands notifications out and takes clients in, until something ends that.
async fn serve(pool: &Pool, open: &mut Open, orders: &mut UnboundedReceiver<Order>) -> End {
    loop {
        let unused = pool.listener.book().channels.is_empty();
        let step = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => open.obey(pool, order, orders).await,
                None => Err(End::Closed),
            },
            len = open.server.next_message(&mut open.input) => open.hear(pool, len),
            () = pgdog_net::timer::sleep(LINGER), if unused => {
                if pool.listener.forgets_task(orders) { Err(End::Unused) } else { Ok(()) }
            }
        };
        if let Err(end) = step {
            return end;
        }
    }
}

impl Open {
    /// Deals with a message of the server.
    fn hear(&mut self, pool: &Pool, len: Result<usize, ServerError>) -> Result<(), End> {
        let message = &self.input.data()[..len.map_err(End::Lost)?];
        match message[0] {
            b'A' => pool.listener.sort(message),
            b'E' => {
                let error = ErrorResponse::read(&message[frame::HEADER..]);
                return Err(End::Lost(ServerError::Refused(Box::new(error))));
            }
            b'S' | b'N' => {}
            _ => {
                let what = "unexpected message to a connection that only listens";
                return Err(End::Lost(ServerError::Protocol(what)));
            }
        }
        let len = message.len();
        self.input.consume(len);
        Ok(())
    }

    /// Does what it is told, and all that it was told besides: one round trip serves many.
    async fn obey(
        &mut self,
        pool: &Pool,
        order: Order,
        orders: &mut UnboundedReceiver<Order>,
    ) -> Result<(), End> {
        let (mut joining, mut renew) = (Vec::new(), false);
        let mut next = Some(order);
        while let Some(order) = next {
            match order {
                Order::Join(mark, who) => joining.push((mark, who)),
                Order::Tidy => {}
                Order::Reconnect => renew = true,
                Order::Close => return Err(End::Closed),
            }
            next = orders.try_recv().ok();
        }
        if renew {
            // The next connection takes them in.
            let book = pool.listener.book();
            for (mark, who) in joining {
                book.order(Order::Join(mark, who));
            }
            return Err(End::Renewed);
        }
        let sql = self.statements(pool, joining);
        if sql.is_empty() {
            return Ok(());
        }
        // The rest of a message that has come in part would be taken for an answer.
        while !self.input.is_empty() {
            let len = self.server.next_message(&mut self.input);
            let len = pgdog_net::timer::timeout(ASK_TIMEOUT, len).await;
            self.hear(pool, len.unwrap_or(Err(ServerError::Timeout(ASK_TIMEOUT))))?;
        }
        let result = self.server.query(&sql, ASK_TIMEOUT).await;
        let heard = std::mem::take(&mut self.server.notifications);
        pool.listener.sort(&heard);
        match result {
            Ok(_) => Ok(()),
            Err(ServerError::Refused(error)) if error.severity != Severity::Fatal => {
                // Nothing of it was done. What is listened to in truth, the next connection knows.
                pool.listener.fail_all(Some(&ServerError::Refused(error)));
                Err(End::Renewed)
            }
            Err(error) => Err(End::Lost(error)),
        }
    }

    /// What makes the server listen to what it should, and to nothing else, with the marks of those who join.
    fn statements(&mut self, pool: &Pool, joining: Vec<(u64, Joining)>) -> String {
        let mut book = pool.listener.book();
        let mut sql = String::new();
        let wanted = joining.iter().flat_map(|(_, who)| &who.channels);
        for name in wanted.clone() {
            if self.channels.insert(name.clone()) {
                sql.push_str("LISTEN ");
                identifier(&mut sql, name);
                sql.push(';');
            }
        }
        let wanted: HashSet<_> = wanted.collect();
        self.channels.retain(|name| {
            let kept = book.channels.contains_key(name) || wanted.contains(name);
            if !kept {
                sql.push_str("UNLISTEN ");
                identifier(&mut sql, name);
                sql.push(';');
            }
            kept
        });
        for (mark, who) in joining {
            sql.push_str("NOTIFY ");
            identifier(&mut sql, &pool.listener.marker);
            sql.push(',');
            literal(&mut sql, &mark.to_string());
            sql.push(';');
            book.joining.insert(mark, who);
        }
        sql
    }
}

impl super::Listener {
    /// Who waits for a mark that will not come is told so.
    fn fail_all(&self, error: Option<&ServerError>) {
        let joining = std::mem::take(&mut self.book().joining);
        for (_, who) in joining {
            let _ = who
                .done
                .send(Err(error.cloned().unwrap_or(ServerError::Closed)));
        }
    }

    /// Whether nobody listens and nobody wants to: then the task is forgotten, and the next client starts another one.
    fn forgets_task(&self, orders: &UnboundedReceiver<Order>) -> bool {
        let mut book = self.book();
        let unused = book.channels.is_empty() && book.joining.is_empty() && orders.is_empty();
        if unused {
            book.orders = None;
        }
        unused
    }
}
