//! A server that does what no PostgreSQL does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// What it does with one connection, once the startup packet has been read.
type Play = dyn Fn(&mut TcpStream) + Send + Sync;

/// Listens on a port of its own until dropped.
pub(super) struct FakeServer {
    port: u16,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// Plays this for every connection.
    pub(super) fn start(play: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let ended = Arc::new(AtomicBool::new(false));
        let (over, play): (_, Arc<Play>) = (ended.clone(), Arc::new(play));
        let thread = spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let play = play.clone();
                spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(20))).ok();
                    if startup(&mut stream).is_some() {
                        play(&mut stream);
                    }
                    stream.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Self {
            port,
            ended,
            thread: Some(thread),
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener up.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Reads the startup packet and declines encryption before it; `None` for a request to cancel.
fn startup(stream: &mut TcpStream) -> Option<()> {
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let mut rest = vec![0; length.checked_sub(8)?];
        stream.read_exact(&mut rest).ok()?;
        match head[4..8] {
            [0, 3, _, _] => return Some(()),
            // SSLRequest: 1234, 5679.
            [0x04, 0xd2, 0x16, 0x2f] => say(stream, b"N"),
            _ => return None,
        }
    }
}

/// The type of the next message, which is read whole.
pub(super) fn next(stream: &mut TcpStream) -> Option<u8> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut body = vec![0; length.checked_sub(4)?];
    stream.read_exact(&mut body).ok()?;
    Some(head[0])
}

/// Writes bytes; a proxy that has closed is no failure here.
pub(super) fn say(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).ok();
}

/// One message.
pub(super) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A login that succeeds.
pub(super) fn welcome() -> Vec<u8> {
    let status = |name: &str, value: &str| frame(b'S', format!("{name}\0{value}\0").as_bytes());
    [
        frame(b'R', &[0; 4]),
        status("server_version", "15.0"),
        status("client_encoding", "UTF8"),
        frame(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]),
        frame(b'Z', b"I"),
    ]
    .concat()
}

/// The answer to `select`: one row with one column.
pub(super) fn one_row() -> Vec<u8> {
    let mut columns = b"\0\x01a\0".to_vec();
    columns.extend([
        0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0,
    ]);
    [
        frame(b'T', &columns),
        frame(b'D', b"\0\x01\0\0\0\x011"),
        frame(b'C', b"SELECT 1\0"),
        frame(b'Z', b"I"),
    ]
    .concat()
}
