//! What a configuration means: precedence applied, names resolved, "off" values turned into `None`.

mod auth_query;
mod balancing;
mod build;
mod credentials;
mod http;
mod mirrors;
mod pools;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use balancing::{Balancing, Checks};

use crate::Config;
use crate::modes::{
    AuthType, ClientRecovery, LogFormat, MirrorLevel, PassthroughAuth, PoolerMode, PreparedLevel,
    QuerySizeAction, Recovery, Role, TlsMode,
};
use crate::problem::{Problem, Problems};
use crate::secret::Secret;

/// The validated configuration that the proxy runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where clients connect to.
    pub listen: Listen,
    /// Worker threads, at least one.
    pub workers: usize,
    /// How clients prove who they are, where their user does not say otherwise.
    pub auth: AuthType,
    /// The files of rules that choose how clients prove it; `None` means that `auth` is for all.
    pub hba: Option<Hba>,
    /// What slows down those who guess passwords.
    pub login_limits: LoginLimits,
    /// Where passwords of users come from that are not in `users`; one entry for each database that has it.
    pub auth_queries: Vec<AuthQuery>,
    /// Whether users who are not in `users` are tried against the server.
    pub passthrough: PassthroughAuth,
    /// What the pool of a user is like who is not in `users`, one entry for each database. The user's name is empty, and so
    /// are the names and passwords for the servers that are the user's own.
    pub guest_pools: Vec<PoolSettings>,
    /// Clients of such a user at once, over all its databases.
    pub guest_max_clients: Option<u32>,
    /// Whether passwords may be asked for in plain text without TLS.
    pub plain_without_tls: bool,
    /// TLS towards clients; `None` means it is refused.
    pub client_tls: Option<ClientTls>,
    /// Limits on the time of clients.
    pub timeouts: ClientTimeouts,
    /// Time that clients get to finish at shutdown.
    pub shutdown_timeout: Duration,
    /// Further time in which running queries are cancelled.
    pub shutdown_termination_timeout: Option<Duration>,
    /// Clients at once.
    pub max_client_conn: Option<u32>,
    /// Which prepared statements are managed.
    pub prepared: PreparedLevel,
    /// Prepared statements on one server connection.
    pub prepared_limit: Option<usize>,
    /// Notifications that may wait for one client, where clients listen over a connection that they share; else they pin.
    pub pub_sub: Option<usize>,
    /// Largest query in bytes, and what happens above it.
    pub query_size_limit: Option<(usize, QuerySizeAction)>,
    /// What happens to a server connection that its client left unfinished.
    pub recovery: Recovery,
    /// What happens to a client that lost its server connection.
    pub client_recovery: ClientRecovery,
    /// Time to bring an abandoned server connection back into order.
    pub rollback_timeout: Duration,
    /// What is logged and how.
    pub log: Log,
    /// Queries that statistics are kept of, for each worker; `None` when they are not kept.
    pub query_stats: Option<usize>,
    /// Time over which averages are taken.
    pub stats_period: Duration,
    /// Options of sockets.
    pub tcp: Tcp,
    /// Number of this proxy among its peers; 0 when there are none.
    pub peer_id: u16,
    /// The other proxies of the fleet.
    pub peers: Vec<Peer>,
    /// The admin console.
    pub admin: Admin,
    /// The HTTP admin API.
    pub admin_http: Option<AdminHttp>,
    /// The endpoints for health and metrics.
    pub plain_http: PlainHttp,
    /// Directory that keeps what was pushed last.
    pub state_dir: Option<PathBuf>,
    /// Whether a changed file is a reload.
    pub watch: bool,
    /// How reads are spread over the hosts of a database, and what happens to writes without a primary.
    pub balancing: Balancing,
    /// How hosts are watched.
    pub checks: Checks,
    /// What is mirrored, and where to.
    pub mirrors: Vec<Mirror>,
    /// One entry for each user and database.
    pub users: Vec<User>,
}

impl Settings {
    /// Checks a configuration and works out what it means.
    ///
    /// Gives the settings and warnings, among them those that loading the configuration gave, or everything that is wrong
    /// (with the warnings). Paths of files are not looked at: they are read when they are used.
    pub fn build(config: &Config) -> Result<(Self, Vec<Problem>), Problems> {
        build::build(config, None)
    }

    /// As [`Settings::build`], for the proxy of this pod: it finds itself among the peers.
    pub fn build_in_pod(
        config: &Config,
        pod_uid: Option<&str>,
    ) -> Result<(Self, Vec<Problem>), Problems> {
        build::build(config, pod_uid)
    }

    /// The entry of a user in a database.
    pub fn user(&self, name: &str, database: &str) -> Option<&User> {
        self.users
            .iter()
            .find(|user| user.name == name && user.database == database)
    }
}

/// Where clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Address of the TCP socket.
    pub host: String,
    /// Port of the TCP socket, and number in the name of the unix socket; 0 lets the system choose.
    pub port: u16,
    /// Directory of the unix socket.
    pub unix_socket_dir: Option<PathBuf>,
    /// Permissions of the unix socket.
    pub unix_socket_mode: u32,
    /// Connections the kernel queues.
    pub backlog: u32,
}

/// Files of rules, read with [`crate::hba::Rules::load`] and [`crate::hba::Maps::load`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hba {
    /// Rules as in `pg_hba.conf`.
    pub rules: PathBuf,
    /// Maps as in `pg_ident.conf`.
    pub maps: Option<PathBuf>,
}

/// What slows down those who guess passwords, for each address of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginLimits {
    /// Failures that cost nothing.
    pub free_failures: u32,
    /// Delay of the first failure after those; `None` means no delays.
    pub failure_delay: Option<Duration>,
    /// Longest delay, and the time after which a failure is forgotten.
    pub failure_delay_max: Duration,
    /// Clients that may be logging in at once.
    pub per_address: Option<u32>,
}

/// How the password of a user is found who is not in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthQuery {
    /// The database that the client asks for.
    pub database: String,
    /// User of the configuration that runs the query.
    pub user: String,
    /// Database of the configuration that it runs in.
    pub runs_in: String,
    /// The query; `$1` is the name of the user.
    pub query: String,
}

/// A database whose transactions are repeated in another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// The database that clients ask for.
    pub source: String,
    /// The one that their transactions are repeated in, as the same users.
    pub destination: String,
    /// Transactions of one client that may wait, at least one.
    pub queue_length: usize,
    /// Share of the transactions, 0 to 1.
    pub exposure: f64,
    /// Which of them.
    pub level: MirrorLevel,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub private_key: PathBuf,
    /// Authority that signs certificates of clients, PEM.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without TLS are refused.
    pub required: bool,
}

/// Limits on the time of clients; `None` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// To log in.
    pub login: Duration,
    /// Idle outside of a transaction.
    pub idle: Option<Duration>,
    /// Idle inside of a transaction.
    pub idle_in_transaction: Option<Duration>,
    /// For a whole transaction.
    pub transaction: Option<Duration>,
    /// For one query.
    pub query: Option<Duration>,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// A level, or a filter as in `RUST_LOG`.
    pub level: String,
    /// Whether connecting clients are logged.
    pub connections: bool,
    /// Whether disconnecting clients are logged.
    pub disconnections: bool,
    /// Characters of a query in a line.
    pub query_sample_length: usize,
    /// Time above which a query is logged.
    pub min_duration_query: Option<Duration>,
    /// Which repetitions are counted instead of logged.
    pub dedup: Option<Dedup>,
}

/// When a log line is a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedup {
    /// Times that it appears within the window.
    pub threshold: usize,
    /// The window, from the first appearance on.
    pub window: Duration,
}

/// Options of sockets; `None` leaves them to the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Whether keepalive probes are sent.
    pub keepalive: bool,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Lost probes that end a connection.
    pub retries: Option<u32>,
    /// Time that sent data may go unconfirmed.
    pub user_timeout: Option<Duration>,
}

/// Another proxy of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number, never 0.
    pub id: u16,
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Uid of its pod, where it is known.
    pub pod_uid: Option<String>,
}

/// The admin console.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// Name of its database.
    pub name: String,
    /// Its user.
    pub user: String,
    /// The password of this user; `None` means that a random one is to be made.
    pub password: Option<String>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            user,
            password,
        } = self;
        f.debug_struct("Admin")
            .field("name", name)
            .field("user", user)
            .field("password", &redacted(password))
            .finish()
    }
}

/// Where the HTTP admin API is, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminHttp {
    /// Address of the socket.
    pub host: String,
    /// Its port; 0 lets the system choose.
    pub port: u16,
    /// Certificate chain and private key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Authority that signs certificates of clients, PEM.
    pub client_ca: Option<PathBuf>,
    /// Name that such a certificate has to carry.
    pub client_name: Option<String>,
    /// File that holds the token.
    pub token_file: Option<PathBuf>,
}

impl AdminHttp {
    /// Whether a request has to prove who it comes from.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.client_ca.is_some() || self.token_file.is_some()
    }
}

/// Where health and metrics are, in the clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainHttp {
    /// Address of the sockets.
    pub host: String,
    /// Port for health.
    pub health: Option<u16>,
    /// Port for metrics.
    pub metrics: Option<u16>,
    /// What the names of metrics begin with.
    pub namespace: String,
}

/// One user in one database.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Name that clients log in with.
    pub name: String,
    /// Name of the database that clients ask for.
    pub database: String,
    /// What the client has to know.
    pub credentials: Credentials,
    /// Name in the client certificate that stands for this user.
    pub identity: Option<String>,
    /// Whether a client certificate is the only way in.
    pub certificate_required: bool,
    /// How this user proves who it is; `None` means as all others.
    pub auth: Option<AuthType>,
    /// Clients of this user at once, over all its databases.
    pub max_clients: Option<u32>,
    /// The server connections behind it.
    pub pool: PoolSettings,
}

/// What a client has to know.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// Passwords, any of which is right; the first one is the current one.
    pub passwords: Vec<String>,
    /// SCRAM-SHA-256 verifier.
    pub verifier: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passwords,
            verifier,
        } = self;
        f.debug_struct("Credentials")
            .field("passwords", &redacted(passwords))
            .field("verifier", &redacted(verifier))
            .finish()
    }
}

/// Identity and behaviour of the pool behind one user in one database.
#[derive(Clone, PartialEq)]
pub struct PoolSettings {
    /// Name that clients log in with.
    pub user: String,
    /// Name of the database that clients ask for.
    pub database: String,
    /// The hosts, in the order they were written.
    pub hosts: Vec<Host>,
    /// User to log in to the servers with.
    pub server_user: String,
    /// Passwords to try there, in this order; empty when the servers ask for none.
    pub server_passwords: Vec<String>,
    /// TLS towards the servers.
    pub server_tls: ServerTls,
    /// When a server connection goes back to the pool.
    pub mode: PoolerMode,
    /// Most server connections.
    pub size: u32,
    /// Server connections that are kept open.
    pub min_size: u32,
    /// Server connections above `size` when clients wait too long.
    pub reserve_size: u32,
    /// The wait after which they are opened.
    pub reserve_timeout: Duration,
    /// Server connections that are opened at the same time.
    pub max_connecting: u32,
    /// Server connections that may be pinned to clients outside of a transaction.
    pub max_pinned: Option<u32>,
    /// Server connections of the database over all users.
    pub database_max: Option<u32>,
    /// Server connections of the user over all databases.
    pub user_max: Option<u32>,
    /// Clients of the database over all users.
    pub database_max_clients: Option<u32>,
    /// Time a client waits for a server connection.
    pub checkout_timeout: Duration,
    /// Time for one attempt to connect.
    pub connect_timeout: Duration,
    /// Attempts to connect, at least one.
    pub connect_attempts: u32,
    /// Pause between them.
    pub connect_attempt_delay: Duration,
    /// Idle time after which a server connection is closed.
    pub idle_timeout: Option<Duration>,
    /// Age at which a server connection is closed.
    pub lifetime: Option<Duration>,
    /// Spread of `lifetime`.
    pub lifetime_jitter: Duration,
    /// Idle time after which a server connection is checked before use: zero means always, `None` never.
    pub healthcheck_interval: Option<Duration>,
    /// Time for such a check.
    pub healthcheck_timeout: Duration,
    /// Startup parameters of the server connections.
    pub parameters: Vec<(String, String)>,
    /// The pools of the single hosts, one for each of `hosts`; none in such a pool itself. The sizes, timeouts and logins
    /// above are those of the host that matters most.
    pub members: Vec<PoolSettings>,
}

impl PoolSettings {
    /// Whether server connections that were opened for `self` may be used for `other`: same hosts, same login, same TLS,
    /// same parameters. Sizes and timeouts may differ.
    pub fn same_servers(&self, other: &Self) -> bool {
        let identity = |host: &Host| (host.address.clone(), host.database.clone(), host.shard);
        self.user == other.user
            && self.database == other.database
            && self
                .hosts
                .iter()
                .map(identity)
                .eq(other.hosts.iter().map(identity))
            && self.server_user == other.server_user
            && self.server_passwords == other.server_passwords
            && self.server_tls == other.server_tls
            && self.parameters == other.parameters
    }
}

impl PoolSettings {
    /// How many shards its hosts are divided into, without those that are kept for resharding.
    #[must_use]
    pub fn shards(&self) -> usize {
        let hosts = self.hosts.iter().filter(|host| !host.resharding_only);
        let last = hosts.map(|host| host.shard).max();
        last.map_or(1, |last| last + 1)
    }

    /// The hosts that may get traffic, as indexes of `hosts`: those of the first shard that are not kept for resharding, or
    /// the first one where there is none of these.
    #[must_use]
    pub fn serving(&self) -> Vec<usize> {
        let serves = |host: &Host| host.shard == 0 && !host.resharding_only;
        let all = self.hosts.iter().enumerate();
        let serving: Vec<usize> = all.filter(|(_, h)| serves(h)).map(|(i, _)| i).collect();
        if serving.is_empty() {
            (0..self.hosts.len()).take(1).collect()
        } else {
            serving
        }
    }

    /// The pool of one host: its own sizes, timeouts and login. Who the user is comes from `self`, so that it may have been
    /// filled in since the settings were built.
    #[must_use]
    pub fn of_host(&self, index: usize) -> Self {
        let Some(member) = self.members.get(index) else {
            let hosts = self.hosts.get(index).cloned().into_iter().collect();
            return Self {
                hosts,
                members: Vec::new(),
                ..self.clone()
            };
        };
        let mut member = member.clone();
        self.user.clone_into(&mut member.user);
        if member.server_user.is_empty() {
            self.server_user.clone_into(&mut member.server_user);
        }
        if member.server_passwords.is_empty() {
            self.server_passwords
                .clone_into(&mut member.server_passwords);
        }
        member
    }
}

impl Default for PoolSettings {
    /// A pool without hosts, with the defaults of `[general]`.
    fn default() -> Self {
        pools::of_general(&Config::default())
    }
}

impl fmt::Debug for PoolSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            database,
            hosts,
            server_user,
            server_passwords,
            server_tls,
            mode,
            size,
            min_size,
            reserve_size,
            reserve_timeout,
            max_connecting,
            max_pinned,
            database_max,
            user_max,
            database_max_clients,
            checkout_timeout,
            connect_timeout,
            connect_attempts,
            connect_attempt_delay,
            idle_timeout,
            lifetime,
            lifetime_jitter,
            healthcheck_interval,
            healthcheck_timeout,
            parameters,
            members,
        } = self;
        f.debug_struct("PoolSettings")
            .field("user", user)
            .field("database", database)
            .field("hosts", hosts)
            .field("server_user", server_user)
            .field("server_passwords", &redacted(server_passwords))
            .field("server_tls", server_tls)
            .field("mode", mode)
            .field("size", size)
            .field("min_size", min_size)
            .field("reserve_size", reserve_size)
            .field("reserve_timeout", reserve_timeout)
            .field("max_connecting", max_connecting)
            .field("max_pinned", max_pinned)
            .field("database_max", database_max)
            .field("user_max", user_max)
            .field("database_max_clients", database_max_clients)
            .field("checkout_timeout", checkout_timeout)
            .field("connect_timeout", connect_timeout)
            .field("connect_attempts", connect_attempts)
            .field("connect_attempt_delay", connect_attempt_delay)
            .field("idle_timeout", idle_timeout)
            .field("lifetime", lifetime)
            .field("lifetime_jitter", lifetime_jitter)
            .field("healthcheck_interval", healthcheck_interval)
            .field("healthcheck_timeout", healthcheck_timeout)
            .field("parameters", parameters)
            .field("members", members)
            .finish()
    }
}

/// One host of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub address: Address,
    /// The shard it belongs to.
    pub shard: usize,
    /// What it is in its shard.
    pub role: Role,
    /// Its share when hosts are chosen by weight.
    pub weight: u8,
    /// The zone it is in.
    pub zone: Option<String>,
    /// Name of the database on the server.
    pub database: String,
    /// Whether it is only a source for resharding.
    pub resharding_only: bool,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Behind a TCP port.
    Tcp {
        /// Name or IP address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Behind the unix socket `.s.PGSQL.{port}` in a directory.
    Unix {
        /// Directory of the socket.
        dir: PathBuf,
        /// Number in the name of the socket.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}/.s.PGSQL.{port}", dir.display()),
        }
    }
}

/// TLS towards servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Whether it is used and what is checked.
    pub mode: TlsMode,
    /// Authority that signs certificates of servers, PEM.
    pub ca: Option<PathBuf>,
    /// Certificate shown to servers, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub private_key: Option<PathBuf>,
}

/// The same number of secrets, none of them readable.
fn redacted<'a>(secrets: impl IntoIterator<Item = &'a String>) -> Vec<Secret> {
    secrets.into_iter().map(|_| Secret::default()).collect()
}
