//! Channels that clients of a pool listen to, over one server connection for all of them.
//!
//! Flow: a client [joins](Listener::join) channels with a [`Mailbox`]; the first one has the connection opened, by a task of
//! its own. Each notification goes into the mailboxes of those who listen to its channel. Who has left the last channel
//! leaves the connection to others, or for a while to nobody.
//!
//! Guarantees: PostgreSQL hands notifications to every session in one order. To join is to send a notification on a channel
//! of the proxy's own, the marker, in the transaction that listens: a client gets exactly what comes behind its mark. Another
//! session that listens to the marker knows by the same mark where to stop, so that nothing is missed and nothing comes twice.
//!
//! Caveats: at most once. What does not fit into a mailbox is lost, and so is what is said while the connection is broken;
//! the mailbox tells of both. The connection is none of the pool's own and takes no place of `pool_size`, but it counts
//! against the limits above pools.

mod mailbox;
mod task;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgdog_wire::buffer::Buffer;
use pgdog_wire::{ErrorResponse, frame};
use tokio::sync::{mpsc, oneshot};

pub use self::mailbox::{Mail, Mailbox, Notification};
use crate::error::ServerError;
use crate::pool::Pool;
use crate::server::Server;

/// How long a client waits until it is taken in, or is told that it cannot be.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A pool's channels.
#[derive(Debug)]
pub struct Listener {
    /// What has come and gone.
    pub counters: ListenerCounters,
    /// The channel of marks.
    marker: String,
    book: Mutex<Book>,
}

/// Counters, since the pool was made.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Notifications that came from the server.
    pub received: AtomicU64,
    /// Notifications that were put into clients' mailboxes.
    pub delivered: AtomicU64,
    /// Notifications that did not fit into them.
    pub dropped: AtomicU64,
    /// Times that the connection was lost or could not be had.
    pub disconnects: AtomicU64,
}

/// A channel at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFigures {
    /// Its name.
    pub channel: String,
    /// Clients that listen to it.
    pub clients: usize,
    /// Notifications that came on it since the first of them joined.
    pub received: u64,
    /// Those that did not fit into a client's mailbox, each client counted.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Book {
    channels: HashMap<Box<str>, Channel>,
    /// Who waits for a mark.
    joining: HashMap<u64, Joining>,
    /// The way to the task, while there is one.
    orders: Option<mpsc::UnboundedSender<Order>>,
    last: u64,
}

#[derive(Debug, Default)]
struct Channel {
    mailboxes: Vec<Arc<Mailbox>>,
    received: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Joining {
    channels: Vec<Box<str>>,
    mailbox: Arc<Mailbox>,
    done: oneshot::Sender<Result<(), ServerError>>,
}

/// What the task is to do.
#[derive(Debug)]
enum Order {
    /// Take somebody in, under this mark.
    Join(u64, Joining),
    /// Channels may have nobody left.
    Tidy,
    /// Open another connection.
    Reconnect,
    /// End.
    Close,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            counters: ListenerCounters::default(),
            marker: format!("pgdog_mark_{:016x}", rand::random::<u64>()),
            book: Mutex::default(),
        }
    }
}

impl Listener {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel of marks. Whoever hands a session's channels over listens to it there, until the mark that
    /// [`Listener::join`] gives has come.
    #[must_use]
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Has notifications of these channels put into the mailbox from now on: from the mark on that it gives.
    ///
    /// # Errors
    ///
    /// [`ServerError`] when there is no connection to listen with; then nothing is put into the mailbox.
    pub async fn join(
        &self,
        pool: &Arc<Pool>,
        worker: usize,
        channels: &[Box<str>],
        mailbox: &Arc<Mailbox>,
    ) -> Result<u64, ServerError> {
        let (done, joined) = oneshot::channel();
        let joining = Joining {
            channels: channels.to_vec(),
            mailbox: mailbox.clone(),
            done,
        };
        let mark = self.send_join(pool, worker, joining);
        let result = match pgdog_net::timer::timeout(JOIN_TIMEOUT, joined).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ServerError::Closed),
            Err(_) => Err(ServerError::Timeout(JOIN_TIMEOUT)),
        };
        if result.is_err() {
            self.leave(mailbox, channels);
        }
        result.map(|()| mark)
    }

    /// Hands it to the task, which is started where there is none.
    fn send_join(&self, pool: &Arc<Pool>, worker: usize, joining: Joining) -> u64 {
        let mut book = self.book();
        book.last += 1;
        let (mark, mut order) = (book.last, Order::Join(book.last, joining));
        if let Some(orders) = &book.orders {
            match orders.send(order) {
                Ok(()) => return mark,
                Err(back) => order = back.0,
            }
        }
        let (orders, received) = mpsc::unbounded_channel();
        // Its receiver is at hand.
        let _ = orders.send(order);
        book.orders = Some(orders);
        tokio::spawn(task::run(pool.clone(), received, worker));
        mark
    }

    /// Has nothing of these channels put into the mailbox any more, and what lies there thrown away.
    pub fn leave(&self, mailbox: &Arc<Mailbox>, channels: &[Box<str>]) {
        let mut book = self.book();
        let mut tidy = false;
        for name in channels {
            let Some(channel) = book.channels.get_mut(name) else {
                continue;
            };
            channel.mailboxes.retain(|m| !Arc::ptr_eq(m, mailbox));
            if channel.mailboxes.is_empty() {
                book.channels.remove(name);
                tidy = true;
            }
        }
        if tidy {
            book.order(Order::Tidy);
        }
        drop(book);
        mailbox.forget(channels);
    }

    /// Has another connection opened in place of the one there is.
    pub(crate) fn reconnect(&self) {
        self.book().order(Order::Reconnect);
    }

    /// Ends it; who listens is told, and looks for the host that takes writes now.
    pub fn close(&self) {
        self.book().order(Order::Close);
    }

    /// The channels that are listened to, by name.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelFigures> {
        let book = self.book();
        let mut channels = Vec::with_capacity(book.channels.len());
        for (name, channel) in &book.channels {
            channels.push(ChannelFigures {
                channel: name.to_string(),
                clients: channel.mailboxes.len(),
                received: channel.received,
                dropped: channel.dropped,
            });
        }
        channels.sort_by(|a, b| a.channel.cmp(&b.channel));
        channels
    }

    /// Sorts what the server has said, messages in a row.
    fn sort(&self, mut messages: &[u8]) {
        while let Ok(Some((message, len))) = frame::split(messages) {
            if message.kind == b'A'
                && let Some((channel, payload)) = read(message.body)
            {
                if channel == self.marker {
                    self.take_in(payload);
                } else {
                    self.hand_out(channel, &messages[..len]);
                }
            }
            messages = &messages[len..];
        }
    }

    /// A mark has come: from here on, its client gets what comes.
    fn take_in(&self, mark: &str) {
        let mut book = self.book();
        let Some(joining) = mark
            .parse()
            .ok()
            .and_then(|mark| book.joining.remove(&mark))
        else {
            return;
        };
        for name in &joining.channels {
            let channel = book.channels.entry(name.clone()).or_default();
            if !channel
                .mailboxes
                .iter()
                .any(|m| Arc::ptr_eq(m, &joining.mailbox))
            {
                channel.mailboxes.push(joining.mailbox.clone());
            }
        }
        // Within the lock: who has given up leaves the channels when this is done.
        let waits = joining.done.send(Ok(())).is_ok();
        drop(book);
        if !waits {
            self.leave(&joining.mailbox, &joining.channels);
        }
    }

    fn hand_out(&self, name: &str, message: &[u8]) {
        self.counters.received.fetch_add(1, Ordering::Relaxed);
        let mut book = self.book();
        let Some(channel) = book.channels.get_mut(name) else {
            return;
        };
        let notification = Arc::new(Notification {
            channel: name.into(),
            message: message.into(),
        });
        channel.received += 1;
        let count = channel.mailboxes.len();
        let fit = channel
            .mailboxes
            .iter()
            .filter(|m| m.push(&notification))
            .count();
        let dropped = (count - fit) as u64;
        channel.dropped += dropped;
        drop(book);
        self.counters
            .delivered
            .fetch_add(fit as u64, Ordering::Relaxed);
        self.counters.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Tells all who listen.
    fn tell(&self, word: &Mail) {
        for mailbox in self.book().mailboxes() {
            mailbox.tell(word.clone());
        }
    }
}

impl Book {
    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A task that has just ended needs none.
            let _ = orders.send(order);
        }
    }

    /// Each one once.
    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        let mut all: Vec<_> = self
            .channels
            .values()
            .flat_map(|c| c.mailboxes.clone())
            .collect();
        all.sort_by_key(|m| Arc::as_ptr(m) as usize);
        all.dedup_by(|a, b| Arc::ptr_eq(a, b));
        all
    }
}

impl Server {
    /// Waits until the mark has come, and forgets what came behind it. The server listens to the marker and owes nothing.
    /// Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`ServerError`]; the connection is of no more use then.
    pub async fn until_mark(
        &mut self,
        marker: &str,
        mark: u64,
        timeout: Duration,
    ) -> Result<(), ServerError> {
        let mark = mark.to_string();
        let waited = self.hear_until(marker, &mark);
        pgdog_net::timer::timeout(timeout, waited)
            .await
            .map_err(|_| ServerError::Timeout(timeout))?
    }

    async fn hear_until(&mut self, marker: &str, mark: &str) -> Result<(), ServerError> {
        let mut input = Buffer::new();
        let mut end = end_of(&self.notifications, marker, mark);
        // What has been read must be whole messages: the rest would be taken for an answer.
        while end.is_none() || !input.is_empty() {
            let len = self.next_message(&mut input).await?;
            let message = &input.data()[..len];
            match message[0] {
                b'A' => self.notifications.extend_from_slice(message),
                b'S' => {
                    let body = message[frame::HEADER..].to_vec();
                    self.note_parameter(&body);
                }
                b'N' => {}
                b'E' => {
                    let error = ErrorResponse::read(&message[frame::HEADER..]);
                    return Err(ServerError::Refused(Box::new(error)));
                }
                kind => return Err(crate::expect::OutOfSync { kind }.into()),
            }
            input.consume(len);
            end = end.or_else(|| end_of(&self.notifications, marker, mark));
        }
        self.notifications.truncate(end.unwrap_or_default());
        Ok(())
    }
}

/// Where the mark ends among messages.
fn end_of(messages: &[u8], marker: &str, mark: &str) -> Option<usize> {
    let mut at = 0;
    while let Ok(Some((message, len))) = frame::split(&messages[at..]) {
        at += len;
        if read(message.body) == Some((marker, mark)) {
            return Some(at);
        }
    }
    None
}

/// The channel and the payload of a NotificationResponse's body, in UTF-8.
fn read(body: &[u8]) -> Option<(&str, &str)> {
    let (channel, rest) = frame::cstr(body.get(4..)?)?;
    let (payload, _) = frame::cstr(rest)?;
    Some((
        std::str::from_utf8(channel).ok()?,
        std::str::from_utf8(payload).ok()?,
    ))
}
