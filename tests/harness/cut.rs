//! A network between the proxy and a server that can fail: a forwarder on a port of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// How often those who wait for a socket look whether all is over.
const TICK: Duration = Duration::from_millis(20);

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It carries everything, each piece so much later.
    Open(Duration),
    /// It carries nothing and says nothing: connections are taken, and what comes on them is kept until the way is open again.
    Black,
    /// Nobody listens.
    Refused,
    /// The forwarder has been dropped.
    Gone,
}

#[derive(Debug)]
struct State {
    way: Way,
    links: Vec<Weak<Link>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    target: u16,
    accepted: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the way is open; false when it will never be again.
    fn pass(&self, link: &Link) -> bool {
        let mut state = self.lock();
        loop {
            if link.reset.load(Ordering::SeqCst) {
                return false;
            }
            match state.way {
                Way::Gone => return false,
                Way::Open(delay) => {
                    drop(state);
                    sleep(delay);
                    return !link.reset.load(Ordering::SeqCst);
                }
                Way::Black | Way::Refused => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// Both sides of one connection. When the last owner lets go after a cut, the sockets are reset.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: Mutex<Option<Arc<TcpStream>>>,
    reset: AtomicBool,
}

impl Link {
    fn server(&self) -> Option<Arc<TcpStream>> {
        let server = self.server.lock();
        server.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cut(&self) {
        self.reset.store(true, Ordering::SeqCst);
        let server = self.server();
        for stream in [Some(&self.client), server.as_deref()]
            .into_iter()
            .flatten()
        {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
            // Wakes whoever reads here, and tells the other side nothing yet.
            stream.shutdown(Shutdown::Read).ok();
        }
    }
}

/// A port that leads to another one on 127.0.0.1, as long as the test lets it.
#[derive(Debug)]
pub struct Cut {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Cut {
    /// An open way to a port of 127.0.0.1.
    pub fn before(target: u16) -> Self {
        let listener = listen(0);
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                way: Way::Open(Duration::ZERO),
                links: Vec::new(),
            }),
            changed: Condvar::new(),
            target,
            accepted: AtomicUsize::new(0),
        });
        let mut cut = Self {
            port,
            shared,
            acceptor: None,
        };
        cut.accept_on(listener);
        cut
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        let mut state = self.shared.lock();
        state.links.retain(|link| link.strong_count() > 0);
        state.links.len()
    }

    /// Connections that have ever been made.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Everything gets through; what was kept back comes now.
    pub fn open(&mut self) {
        self.delay(Duration::ZERO);
    }

    /// Everything gets through, each piece so much later in each direction.
    pub fn delay(&mut self, delay: Duration) {
        self.go(Way::Open(delay));
        if self.acceptor.is_none() {
            self.accept_on(listen(self.port));
        }
    }

    /// Resets all connections there are; new ones can be made.
    pub fn cut(&self) {
        let links: Vec<_> = self.shared.lock().links.drain(..).collect();
        for link in links.iter().filter_map(Weak::upgrade) {
            link.cut();
        }
        self.shared.changed.notify_all();
    }

    /// From now on nothing gets through, and nobody is told: neither a byte nor the end of a connection.
    pub fn blackhole(&mut self) {
        self.go(Way::Black);
        if self.acceptor.is_none() {
            self.accept_on(listen(self.port));
        }
    }

    /// Resets all connections and refuses new ones.
    pub fn refuse(&mut self) {
        self.go(Way::Refused);
        self.stop_accepting();
        self.cut();
    }

    fn go(&self, way: Way) {
        self.shared.lock().way = way;
        self.shared.changed.notify_all();
    }

    fn accept_on(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.acceptor = Some(spawn(move || accept(&listener, &shared)));
    }

    fn stop_accepting(&mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.go(Way::Gone);
        self.stop_accepting();
        self.cut();
    }
}

fn listen(port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // The port was ours before: connections of then may still linger on it.
    socket.set_reuse_address(true).expect("a fresh socket");
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())
        .unwrap_or_else(|e| panic!("failed to bind port {port}: {e}"));
    socket.listen(1024).expect("a bound socket listens");
    socket.set_nonblocking(true).expect("a fresh socket");
    socket.into()
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        if matches!(shared.lock().way, Way::Refused | Way::Gone) {
            return;
        }
        let Ok((client, _)) = listener.accept() else {
            sleep(Duration::from_millis(2));
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        client.set_nonblocking(false).ok();
        let link = Arc::new(Link {
            client,
            server: Mutex::default(),
            reset: AtomicBool::new(false),
        });
        shared.lock().links.push(Arc::downgrade(&link));
        let shared = shared.clone();
        spawn(move || forward(&link, &shared));
    }
}

/// Connects to the server, as soon as the way is open, and carries both directions.
fn forward(link: &Arc<Link>, shared: &Arc<Shared>) {
    if !shared.pass(link) {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.target)) else {
        // What listens here refuses only a moment later than the server itself would.
        link.cut();
        return;
    };
    let server = Arc::new(server);
    link.server
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(server.clone());
    if link.reset.load(Ordering::SeqCst) {
        link.cut();
        return;
    }
    let (other_link, other_shared, other_server) = (link.clone(), shared.clone(), server.clone());
    let back = spawn(move || {
        carry(
            &other_server,
            &other_link.client,
            &other_link,
            &other_shared,
        );
    });
    carry(&link.client, &server, link, shared);
    drop(server);
    back.join().ok();
}

fn carry(from: &TcpStream, to: &TcpStream, link: &Link, shared: &Shared) {
    to.set_nodelay(true).ok();
    to.set_write_timeout(Some(TICK)).ok();
    let (mut from, mut to) = (from, to);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let count = match from.read(&mut piece) {
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(_) => {
                // It was reset: so is the other side.
                link.cut();
                return;
            }
        };
        if !shared.pass(link) {
            return;
        }
        if count == 0 {
            to.shutdown(Shutdown::Write).ok();
            return;
        }
        let mut rest = &piece[..count];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    if link.reset.load(Ordering::SeqCst) {
                        return;
                    }
                }
                Err(_) => {
                    link.cut();
                    return;
                }
            }
        }
    }
}
