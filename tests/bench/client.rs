//! A Postgres client of a few lines: enough to log in without a password, ask, and count what comes back.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::postgres::{DATABASE, USER};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const PROTOCOL_3_0: u32 = 196_608;

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection which is logged in.
pub(crate) struct Client {
    stream: Stream,
}

impl Client {
    /// Connects, and logs in where no password is asked for.
    pub(crate) fn connect(port: u16, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        socket.set_nodelay(true).context("connect")?;
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .context("connect")?;
        let stream = match tls {
            None => Stream::Plain(socket),
            Some(config) => {
                socket.write_all(&SSL_REQUEST).context("ask for TLS")?;
                let mut answer = [0];
                socket.read_exact(&mut answer).context("ask for TLS")?;
                anyhow::ensure!(answer == *b"S", "the server refuses TLS");
                let name = ServerName::try_from("localhost").context("ask for TLS")?;
                let session =
                    ClientConnection::new(Arc::clone(config), name).context("start TLS")?;
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        };
        let mut client = Self { stream };
        let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
        body.extend_from_slice(format!("user\0{USER}\0database\0{DATABASE}\0\0").as_bytes());
        let mut startup = length(&body).to_vec();
        startup.append(&mut body);
        client.send(&startup)?;
        client.until_ready(1).context("log in")?;
        Ok(client)
    }

    /// Runs one query by the simple protocol and gives the number of bytes of the answer.
    pub(crate) fn query(&mut self, sql: &str) -> Result<u64> {
        let message = message(b'Q', format!("{sql}\0").as_bytes());
        self.send(&message)?;
        self.until_ready(1)
    }

    /// Sends `queries` unnamed extended queries and a single Sync in one write, and reads all answers.
    pub(crate) fn pipeline(&mut self, queries: usize) -> Result<u64> {
        let mut bytes = Vec::new();
        for _ in 0..queries {
            bytes.extend(message(b'P', b"\0SELECT 1\0\0\0"));
            bytes.extend(message(b'B', b"\0\0\0\0\0\0\0\0"));
            bytes.extend(message(b'D', b"P\0"));
            bytes.extend(message(b'E', b"\0\0\0\0\0"));
        }
        bytes.extend(message(b'S', b""));
        self.send(&bytes)?;
        self.until_ready(1)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
        .context("send")
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = match &mut self.stream {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
        .context("receive")?;
        anyhow::ensure!(read > 0, "the server closed the connection");
        Ok(read)
    }

    /// Reads and drops messages until so many ReadyForQuery have come; gives their bytes.
    fn until_ready(&mut self, mut wanted: usize) -> Result<u64> {
        // On the heap, and only while reading: ten thousand clients of ours hold nothing.
        let mut buffer = vec![0; 64 * 1024];
        let (mut header, mut filled) = ([0_u8; 5], 0);
        let (mut skip, mut total) = (0_usize, 0_u64);
        while wanted > 0 {
            let read = self.receive(&mut buffer)?;
            total += read as u64;
            let mut rest = &buffer[..read];
            while !rest.is_empty() {
                if skip > 0 {
                    let step = skip.min(rest.len());
                    (skip, rest) = (skip - step, &rest[step..]);
                    continue;
                }
                header[filled] = rest[0];
                (filled, rest) = (filled + 1, &rest[1..]);
                if filled < header.len() {
                    continue;
                }
                filled = 0;
                let [kind, size @ ..] = header;
                skip = (u32::from_be_bytes(size) as usize).saturating_sub(4);
                match kind {
                    b'Z' => wanted = wanted.saturating_sub(1),
                    b'E' => bail!(
                        "the server reports an error: {}",
                        String::from_utf8_lossy(&rest[..skip.min(rest.len())]).replace('\0', " ")
                    ),
                    _ => {}
                }
            }
        }
        Ok(total)
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&length(body));
    message.extend_from_slice(body);
    message
}

/// The length word of a message counts itself.
fn length(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len() + 4)
        .unwrap_or(u32::MAX)
        .to_be_bytes()
}
