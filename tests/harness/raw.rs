//! A client that speaks the protocol message by message over a blocking socket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::message::{Message, encode_all};
use crate::transcript::{Frame, lines};

/// How long a test waits for an answer before it takes it for lost.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Longer sends go through a thread of their own: the other side may not read before we do.
const BLOCKING_SEND: usize = 16 * 1024;

/// What came, or did not come, from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Frame(Frame),
    /// The server has closed the connection.
    Eof,
    /// Nothing came in time.
    Silence,
}

/// A connection to Postgres or to the proxy.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    buffer: Vec<u8>,
    sender: Option<JoinHandle<()>>,
    key: Option<(i32, Vec<u8>)>,
}

impl RawClient {
    /// Connects without saying anything yet.
    pub fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            sender: None,
            key: None,
        })
    }

    /// Connects from another address of this machine, such as 127.0.0.2, without saying anything yet.
    pub fn open_from(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((address, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            sender: None,
            key: None,
        })
    }

    /// Connects and logs in without a password; panics when that fails.
    pub fn login(port: u16, user: &str, database: &str) -> Self {
        Self::try_login(port, user, database)
            .unwrap_or_else(|e| panic!("failed to log {user} in to {database} on port {port}: {e}"))
    }

    /// Connects and logs in without a password; on failure, the last line of the transcript.
    pub fn try_login(port: u16, user: &str, database: &str) -> Result<Self, String> {
        let (client, frames) = Self::login_with(port, &[("user", user), ("database", database)])?;
        match frames.last() {
            Some(frame) if frame.tag == b'Z' => Ok(client),
            last => Err(last.map_or_else(|| "closed without a word".to_owned(), Frame::line)),
        }
    }

    /// Connects and sends a startup packet with these parameters; returns the answer, whatever it is.
    pub fn login_with(
        port: u16,
        parameters: &[(&str, &str)],
    ) -> Result<(Self, Vec<Frame>), String> {
        let mut client = Self::open(port).map_err(|e| e.to_string())?;
        client.send(&[Message::startup(parameters)]);
        let frames = client.until_ready();
        Ok((client, frames))
    }

    /// Sends messages in one write.
    pub fn send(&mut self, messages: &[Message]) {
        self.send_bytes(encode_all(messages));
    }

    /// Sends bytes in one write. A closed connection is not an error here: it shows when reading.
    pub fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.sent();
        if bytes.len() <= BLOCKING_SEND {
            self.stream.write_all(&bytes).ok();
            return;
        }
        let mut stream = self
            .stream
            .try_clone()
            .expect("a socket handle can be cloned");
        self.sender = Some(spawn(move || {
            stream.write_all(&bytes).ok();
        }));
    }

    /// Sends bytes in pieces of `size`, each in a write of its own.
    pub fn send_pieces(&mut self, bytes: &[u8], size: usize) {
        self.sent();
        for piece in bytes.chunks(size.max(1)) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }

    fn sent(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.join().ok();
        }
    }

    /// The next message, waiting for `limit` at most.
    pub fn receive(&mut self, limit: Duration) -> Received {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(frame) = self.buffered() {
                if frame.tag == b'K' && frame.body.len() > 4 {
                    let (pid, secret) = frame.body.split_at(4);
                    let pid = i32::from_be_bytes([pid[0], pid[1], pid[2], pid[3]]);
                    self.key = Some((pid, secret.to_vec()));
                }
                return Received::Frame(frame);
            }
            match self.fill(deadline) {
                Ok(0) => return Received::Eof,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Received::Silence;
                }
                // A reset tells the client the same thing as a close.
                Err(_) => return Received::Eof,
            }
        }
    }

    /// The next byte without a frame around it: the answer to SSLRequest and GSSENCRequest.
    pub fn receive_byte(&mut self, limit: Duration) -> Option<u8> {
        let deadline = Instant::now() + limit;
        while self.buffer.is_empty() {
            if !matches!(self.fill(deadline), Ok(1..)) {
                return None;
            }
        }
        Some(self.buffer.remove(0))
    }

    fn fill(&mut self, deadline: Instant) -> io::Result<usize> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 64 * 1024];
        let count = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn buffered(&mut self) -> Option<Frame> {
        let head = self.buffer.first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        // A length below its own size would never end; one byte of progress shows the garbage in the transcript.
        let end = usize::try_from(length).ok()?.max(4) + 1;
        if self.buffer.len() < end {
            return None;
        }
        let rest = self.buffer.split_off(end);
        let whole = std::mem::replace(&mut self.buffer, rest);
        Some(Frame {
            tag: whole[0],
            body: whole[5..].to_vec(),
        })
    }

    /// Messages up to and with the next ReadyForQuery, or up to the end of the connection, or until nothing
    /// comes any more.
    pub fn until_ready(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Received::Frame(frame) = self.receive(PATIENCE) {
            let done = frame.tag == b'Z';
            frames.push(frame);
            if done {
                break;
            }
        }
        frames
    }

    /// Messages until `count` have come or nothing came for [`PATIENCE`].
    pub fn take(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < count {
            let Received::Frame(frame) = self.receive(PATIENCE) else {
                break;
            };
            frames.push(frame);
        }
        frames
    }

    /// Messages until the server closes the connection; none when it does not.
    pub fn until_eof(&mut self) -> Option<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            match self.receive(PATIENCE) {
                Received::Frame(frame) => frames.push(frame),
                Received::Eof => return Some(frames),
                Received::Silence => return None,
            }
        }
    }

    /// Sends messages and returns the transcript up to ReadyForQuery.
    pub fn transcript(&mut self, messages: &[Message]) -> Vec<String> {
        self.send(messages);
        lines(&self.until_ready())
    }

    /// Runs a simple query and returns its whole answer.
    pub fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send(&[Message::query(sql)]);
        self.until_ready()
    }

    /// Runs SQL that must succeed.
    pub fn run(&mut self, sql: &str) {
        let frames = self.query(sql);
        let failed = frames.iter().find(|frame| frame.tag == b'E');
        assert!(
            failed.is_none(),
            "{sql}: {}",
            failed.map(Frame::line).unwrap_or_default()
        );
        assert!(
            frames.last().is_some_and(|frame| frame.tag == b'Z'),
            "{sql}: no ReadyForQuery"
        );
    }

    /// The rows of a query that must succeed, as text; NULL is `NULL`.
    pub fn query_rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let frames = self.query(sql);
        let failed = frames.iter().find(|frame| frame.tag == b'E');
        assert!(
            failed.is_none(),
            "{sql}: {}",
            failed.map(Frame::line).unwrap_or_default()
        );
        let text = |value: Option<Vec<u8>>| {
            value.map_or_else(
                || "NULL".to_owned(),
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        let rows = frames.iter().filter(|frame| frame.tag == b'D');
        rows.map(|row| row.columns().into_iter().map(text).collect())
            .collect()
    }

    /// The first value of the first row of a query that must return one.
    pub fn query_value(&mut self, sql: &str) -> String {
        let first = self
            .query_rows(sql)
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        first.unwrap_or_else(|| panic!("{sql}: no row"))
    }

    /// The SQLSTATE of a query that must fail.
    pub fn query_error(&mut self, sql: &str) -> String {
        let frames = self.query(sql);
        let failed = frames.iter().find(|frame| frame.tag == b'E');
        failed
            .and_then(|frame| frame.field(b'C'))
            .unwrap_or_else(|| panic!("{sql}: succeeded"))
    }

    /// The request that cancels what this connection runs; none when the server sent no key.
    pub fn cancel_request(&self) -> Option<Message> {
        self.key
            .clone()
            .map(|(pid, secret)| Message::CancelRequest { pid, secret })
    }

    /// Says goodbye and waits for the server to close.
    pub fn goodbye(mut self) {
        self.send(&[Message::Terminate]);
        self.until_eof();
    }
}
