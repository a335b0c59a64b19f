//! TLS without IO: ciphertext in, plaintext out, and back.
//!
//! Built on rustls' unbuffered connections, so that the buffers are ours: an idle connection has none. Between calls
//! `incoming` holds at most one unfinished record (or an unfinished handshake message), never a complete one:
//! whatever can be decrypted has been.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error as TlsError};

/// The most ciphertext held. One record is 18 KiB at most; handshake messages, which may span records, 64 KiB.
const MAX_INCOMING: usize = 128 * 1024;

/// Room for what a record adds to its plaintext: header, nonce, tag, content type.
const RECORD_OVERHEAD: usize = 64;

/// A rustls connection of either side.
pub(super) enum Session {
    Client {
        connection: UnbufferedClientConnection,
    },
    Server {
        connection: UnbufferedServerConnection,
        end_point: Option<Arc<[u8]>>,
    },
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client { .. } => "Client",
            Self::Server { .. } => "Server",
        })
    }
}

impl Session {
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Client { connection } => connection,
            Self::Server { connection, .. } => connection,
        }
    }
}

/// What the peer may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Open,
    /// It has said goodbye. Terminal.
    Closed,
    /// A record was bad; an alert has been queued. Terminal.
    Failed,
}

/// How far the session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The handshake needs more from the peer.
    Handshaking,
    /// Application data can flow.
    Established,
}

/// What to do once rustls lets us write.
#[derive(Clone, Copy)]
enum Action<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    CloseNotify,
}

/// One step of rustls' state machine.
enum Step {
    Again,
    /// The handshake waits for the peer.
    Blocked,
    /// All input is used up, and the action is done.
    Done,
    PeerClosed,
}

#[derive(Debug)]
pub(super) struct Engine {
    session: Session,
    receiving: Receiving,
    close_queued: bool,
    incoming: Incoming,
    plain: Queue,
    pub(super) outgoing: Queue,
}

impl Engine {
    /// `preread` is ciphertext that came with other bytes.
    pub(super) fn new(session: Session, preread: &[u8]) -> Self {
        Self {
            session,
            receiving: Receiving::Open,
            close_queued: false,
            incoming: Incoming {
                buf: preread.to_vec(),
                start: 0,
                end: preread.len(),
            },
            plain: Queue::default(),
            outgoing: Queue::default(),
        }
    }

    pub(super) const fn session(&self) -> &Session {
        &self.session
    }

    /// Whether decrypted bytes are waiting.
    pub(super) fn has_plaintext(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Whether the peer will send no more, so that a read has its answer already.
    pub(super) fn is_read_closed(&self) -> bool {
        self.receiving != Receiving::Open
    }

    /// Whether the ciphertext ends inside a record.
    pub(super) const fn has_partial_record(&self) -> bool {
        self.incoming.start < self.incoming.end
    }

    /// Bytes decrypted earlier.
    pub(super) fn take_plaintext(&mut self, dst: &mut [u8]) -> usize {
        let count = self.plain.pending().len().min(dst.len());
        dst[..count].copy_from_slice(&self.plain.pending()[..count]);
        self.plain.consume(count);
        count
    }

    /// Space for about `wanted` bytes of ciphertext, to be followed by [`Engine::received`].
    pub(super) fn space(&mut self, wanted: usize) -> io::Result<&mut [u8]> {
        self.incoming.space(wanted)
    }

    /// Counts ciphertext put into [`Engine::space`].
    pub(super) const fn received(&mut self, count: usize) {
        self.incoming.end += count;
    }

    /// Gives back the memory of empty buffers.
    pub(super) fn release(&mut self) {
        self.incoming.release();
        self.plain.release();
        self.outgoing.release();
    }

    /// Uses up the ciphertext: plaintext goes to `dst`, and past its end to a buffer for the next read. Answers how
    /// many bytes went to `dst`. May queue ciphertext.
    pub(super) fn decrypt(&mut self, dst: &mut [u8]) -> io::Result<(usize, Progress)> {
        if self.receiving == Receiving::Failed {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "TLS has failed before",
            ));
        }
        let mut filled = 0;
        let progress = self.drive(Action::Nothing, dst, &mut filled)?;
        Ok((filled, progress))
    }

    /// Queues `src`, encrypted.
    pub(super) fn encrypt(&mut self, src: &[u8]) -> io::Result<()> {
        if self.close_queued || self.receiving == Receiving::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.write(Action::Encrypt(src))
    }

    /// Queues our goodbye, once.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if mem::replace(&mut self.close_queued, true) || self.receiving == Receiving::Failed {
            return Ok(());
        }
        self.write(Action::CloseNotify)
    }

    fn write(&mut self, action: Action<'_>) -> io::Result<()> {
        match self.drive(action, &mut [], &mut 0)? {
            Progress::Established => Ok(()),
            Progress::Handshaking => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "TLS handshake is not finished",
            )),
        }
    }

    fn drive(
        &mut self,
        action: Action<'_>,
        dst: &mut [u8],
        filled: &mut usize,
    ) -> io::Result<Progress> {
        loop {
            match self.step(action, dst, filled) {
                Ok(Step::Again) => {}
                Ok(Step::PeerClosed) => self.receiving = Receiving::Closed,
                Ok(Step::Blocked) => return Ok(Progress::Handshaking),
                // A server may write before it has heard the client's last word; nobody here does.
                Ok(Step::Done) if self.session.state().is_handshaking() => {
                    return Ok(Progress::Handshaking);
                }
                Ok(Step::Done) => return Ok(Progress::Established),
                Err(error) => {
                    self.receiving = Receiving::Failed;
                    // rustls has queued the alert that tells the peer why. One step takes it out; another would look
                    // at the bad record again, which rustls does not allow.
                    drop(self.step(Action::Nothing, dst, filled));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
    }

    fn step(
        &mut self,
        action: Action<'_>,
        dst: &mut [u8],
        filled: &mut usize,
    ) -> Result<Step, TlsError> {
        let mut sink = Sink {
            dst,
            filled,
            overflow: &mut self.plain,
        };
        let ciphertext = &mut self.incoming.buf[self.incoming.start..self.incoming.end];
        let (discard, step) = match &mut self.session {
            Session::Client { connection } => handle(
                connection.process_tls_records(ciphertext),
                action,
                &mut sink,
                &mut self.outgoing,
            ),
            Session::Server { connection, .. } => handle(
                connection.process_tls_records(ciphertext),
                action,
                &mut sink,
                &mut self.outgoing,
            ),
        };
        self.incoming.start += discard;
        step
    }
}

/// Serves one state of rustls. Answers how much ciphertext is used up as well.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    action: Action<'_>,
    sink: &mut Sink<'_>,
    outgoing: &mut Queue,
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Step::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    sink.put(record.payload);
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let first = outgoing.buf.len();
            let encoded = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => {
                    outgoing.buf.resize(first + size.required_size, 0);
                    data.encode(&mut outgoing.buf[first..])
                }
                other => other,
            };
            match encoded {
                Ok(count) => {
                    outgoing.buf.truncate(first + count);
                    Ok(Step::Again)
                }
                Err(error) => Err(TlsError::General(error.to_string())),
            }
        }
        // What was encoded stands in `outgoing`, and all that follows goes out behind it.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => {
            write(traffic, action, outgoing).map(|()| Step::Done)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Step::PeerClosed),
        // Both sides have said goodbye.
        Ok(ConnectionState::Closed) => match action {
            Action::Nothing | Action::CloseNotify => Ok(Step::Done),
            Action::Encrypt(_) => Err(TlsError::General(
                "write after the end of the TLS session".to_owned(),
            )),
        },
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        // Early data is never enabled, and there are no other states.
        Ok(_) => Err(TlsError::HandshakeNotComplete),
    };
    (discard, step)
}

fn write<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    action: Action<'_>,
    outgoing: &mut Queue,
) -> Result<(), TlsError> {
    let first = outgoing.buf.len();
    let plain = match action {
        Action::Nothing => return Ok(()),
        Action::Encrypt(src) => src.len(),
        Action::CloseNotify => 0,
    };
    let records = plain / (super::MAX_RECORD - RECORD_OVERHEAD) + 1;
    // One record more, for a key update that may go first.
    let mut room = plain + (records + 1) * RECORD_OVERHEAD;
    loop {
        outgoing.buf.resize(first + room, 0);
        let space = &mut outgoing.buf[first..];
        let written = match action {
            Action::Nothing => Ok(0),
            Action::Encrypt(src) => traffic.encrypt(src, space),
            Action::CloseNotify => traffic.queue_close_notify(space),
        };
        match written {
            Ok(count) => {
                outgoing.buf.truncate(first + count);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size
            }
            Err(error) => {
                outgoing.buf.truncate(first);
                return Err(TlsError::General(error.to_string()));
            }
        }
    }
}

/// Where plaintext goes: to the reader's slice, then to a buffer.
struct Sink<'a> {
    dst: &'a mut [u8],
    filled: &'a mut usize,
    overflow: &'a mut Queue,
}

impl Sink<'_> {
    fn put(&mut self, payload: &[u8]) {
        let room = &mut self.dst[*self.filled..];
        // Bytes that overflowed come before these.
        let count = if self.overflow.is_empty() {
            payload.len().min(room.len())
        } else {
            0
        };
        room[..count].copy_from_slice(&payload[..count]);
        *self.filled += count;
        self.overflow.buf.extend_from_slice(&payload[count..]);
    }
}

/// Bytes to be taken from the front.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buf: Vec<u8>,
    start: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.buf.len()
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.buf.clear();
            self.start = 0;
        }
    }

    fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

/// Ciphertext in `buf[start..end]`; the rest of `buf` is zeroed once and then reused.
#[derive(Debug)]
struct Incoming {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    fn space(&mut self, wanted: usize) -> io::Result<&mut [u8]> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end >= MAX_INCOMING {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "TLS handshake message is too long",
            ));
        }
        let limit = (self.end + wanted).min(MAX_INCOMING);
        if self.buf.len() < limit {
            self.buf.resize(limit, 0);
        }
        Ok(&mut self.buf[self.end..limit])
    }

    fn release(&mut self) {
        if self.start == self.end {
            *self = Self {
                buf: Vec::new(),
                start: 0,
                end: 0,
            };
        }
    }
}
