//! What all clients of the process share: the configuration in force, the pools, statements, the registry.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use pgdog_backend::{Clock, Cluster, Interner, Member, Params, Pool, ReadNeed, Store};
use pgdog_config::hba::{Maps, Rules};
use pgdog_config::{Admin, Credentials, LoginLimits, Settings, User};
use pgdog_net::{ServerTls, TcpOptions};
use pgdog_sql::Planner;
use pgdog_wire::scram::{Params as ScramParams, Verifier, Verifiers};
use pgdog_wire::startup::CancelKey;
use pgdog_wire::{ErrorResponse, sqlstate};
use tokio_util::task::TaskTracker;

use crate::catalogue::{Catalogue, Catalogues};
use crate::gates::Gates;
use crate::guard::{Guard, Limits};
use crate::guests::{Entrance, Guests};
use crate::handle::Identity;
use crate::insight::QueryStats;
use crate::metrics::Metrics;
use crate::mirror::Mirrors;
use crate::registry::Registry;

/// What somebody has to know to be let in.
#[derive(Debug)]
pub struct Secrets {
    /// The user's name.
    pub user: String,
    /// As configured.
    pub credentials: Credentials,
    verifiers: OnceLock<Option<Arc<Verifiers>>>,
}

impl Secrets {
    /// Secrets that are derived when they are first needed.
    #[must_use]
    pub fn new(user: String, credentials: Credentials) -> Self {
        Self {
            user,
            credentials,
            verifiers: OnceLock::new(),
        }
    }

    /// What [`Secrets::verifiers`] gives, where that has been derived already.
    #[must_use]
    pub fn derived(&self) -> Option<Option<Arc<Verifiers>>> {
        self.verifiers.get().cloned()
    }

    /// What SCRAM proofs are checked against; `None` when there is no password. Slow at the first call (PBKDF2).
    pub fn verifiers(&self, secret: &[u8; 32]) -> Option<Arc<Verifiers>> {
        let make = || {
            let stored = self
                .credentials
                .verifier
                .as_deref()
                .and_then(|v| Verifier::parse(v).ok());
            // Of an MD5 hash no SCRAM verifier can be made; and the hash itself is not the password.
            let passwords = self.credentials.passwords.iter();
            let passwords: Vec<_> = passwords
                .filter(|p| pgdog_wire::md5::Secret::parse(p).is_none())
                .collect();
            Verifiers::new(
                &passwords,
                stored.as_ref(),
                &ScramParams::for_user(secret, &self.user),
            )
            .ok()
            .map(Arc::new)
        };
        self.verifiers.get_or_init(make).clone()
    }

    /// Whether SCRAM is the only proof that the password is known by.
    #[must_use]
    pub fn has_only_a_verifier(&self) -> bool {
        self.credentials.passwords.is_empty() && self.credentials.verifier.is_some()
    }

    /// Whether no more than MD5 hashes of the passwords are known.
    #[must_use]
    pub fn has_only_hashes(&self) -> bool {
        let mut passwords = self.credentials.passwords.iter();
        self.credentials.verifier.is_none()
            && passwords.all(|p| pgdog_wire::md5::Secret::parse(p).is_some())
    }
}

/// A user in one database, ready to be logged in.
#[derive(Debug)]
pub struct Account {
    /// As configured.
    pub user: User,
    /// Its name and database, as its clients carry them.
    pub identity: Arc<Identity>,
    /// Its server connections: those of the first of its hosts, which is the primary where one is configured.
    pub pool: Arc<Pool>,
    /// Its server connections to all hosts.
    pub cluster: Arc<Cluster>,
    /// The same account, as views have it, at the other hosts.
    pub others: Vec<Arc<Account>>,
    /// What its clients have to know.
    pub secrets: Arc<Secrets>,
    /// A number that stands for its name and database.
    pub number: u64,
    catalogue: OnceLock<Arc<Catalogue>>,
}

impl Account {
    /// An account whose secrets are derived when they are first needed.
    ///
    /// # Panics
    ///
    /// When the cluster has no host.
    #[must_use]
    pub fn new(user: &User, cluster: &Arc<Cluster>) -> Self {
        let identity = Arc::new(Identity {
            user: user.name.clone(),
            database: user.database.clone(),
        });
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        let secrets = Arc::new(Secrets::new(user.name.clone(), user.credentials.clone()));
        let at = |member: &Member, number| Self {
            user: user.clone(),
            identity: identity.clone(),
            pool: member.pool.clone(),
            cluster: cluster.clone(),
            others: Vec::new(),
            secrets: secrets.clone(),
            number,
            catalogue: OnceLock::new(),
        };
        let members = cluster.members();
        let mut account = at(&members[0], hasher.finish());
        for member in &members[1..] {
            let mut hasher = hasher.clone();
            member.pool.target().address.to_string().hash(&mut hasher);
            account.others.push(Arc::new(at(member, hasher.finish())));
        }
        account
    }

    /// Why nobody is served: no query is routed to the shard that has its rows, and an answer of one shard would be a wrong one.
    pub(crate) fn unroutable(&self) -> Option<ErrorResponse> {
        let shards = self.user.pool.shards();
        let database = &self.identity.database;
        (shards > 1).then(|| {
            let text = format!(
                "database \"{database}\" is divided into {shards} shards, and this version routes to none of them"
            );
            ErrorResponse::fatal(sqlstate::FEATURE_NOT_SUPPORTED, text).hint(
                "Give it the hosts of one shard, or name each shard as a database of its own.",
            )
        })
    }

    /// What is known of the functions of its database.
    pub(crate) fn catalogue(&self, runtime: &Runtime) -> &Arc<Catalogue> {
        let of = || runtime.catalogues.of(&self.identity.database);
        self.catalogue.get_or_init(of)
    }

    /// Its server connections to the host that takes writes, as far as one is known.
    pub(crate) fn writer(&self) -> &Arc<Pool> {
        let members = self.cluster.members();
        self.cluster
            .for_write()
            .map_or(&self.pool, |i| &members[i].pool)
    }

    /// Its server connections to any host that answers.
    pub(crate) fn anyone(&self) -> &Arc<Pool> {
        if self.cluster.is_single() {
            return &self.pool;
        }
        let members = self.cluster.members();
        let free = || self.cluster.for_read(ReadNeed::default());
        let chosen = self.cluster.for_write().ok().or_else(free);
        chosen.map_or(&self.pool, |i| &members[i].pool)
    }

    /// The account at each of its hosts.
    pub fn everywhere(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(&self.others)
    }

    /// Takes over what another of the same user has derived, when their secrets are the same.
    pub fn adopt(&self, other: &Self) {
        if self.secrets.credentials == other.secrets.credentials
            && let Some(verifiers) = other.secrets.verifiers.get()
        {
            let _ = self.secrets.verifiers.set(verifiers.clone());
        }
    }
}

/// One configuration in force.
#[derive(Debug)]
pub struct Live {
    /// The settings.
    pub settings: Settings,
    /// Accounts by user and database.
    pub accounts: HashMap<String, HashMap<String, Arc<Account>>>,
    /// How users come in who are not in the configuration, by database.
    pub entrances: HashMap<String, Entrance>,
    /// The rules that choose how clients prove who they are; `None` where the settings do.
    pub rules: Option<LoginRules>,
    /// TLS towards clients.
    pub tls: Option<ServerTls>,
    /// Socket options.
    pub tcp: TcpOptions,
}

/// The rules of a configuration, as its files had them when it was put in force.
#[derive(Debug)]
pub struct LoginRules {
    /// Who may log in from where and how.
    pub rules: Rules,
    /// Which names of certificates and of this machine's users stand for which users.
    pub maps: Maps,
}

impl Live {
    /// The account of a user in a database.
    #[must_use]
    pub fn account(&self, user: &str, database: &str) -> Option<&Arc<Account>> {
        self.accounts.get(user)?.get(database)
    }

    /// Whether what clients ask is to be watched.
    pub(crate) fn watches(&self) -> bool {
        self.settings.query_stats.is_some() || self.settings.log.min_duration_query.is_some()
    }
}

/// What a server tells a client with given settings at login: ParameterStatus messages, ready to be sent.
#[derive(Debug)]
struct Welcome {
    messages: Arc<[u8]>,
    at: u64,
}

/// Shared by everything that serves clients.
#[derive(Debug)]
pub struct Runtime {
    live: RwLock<Arc<Live>>,
    /// Counts configurations, so that clients notice a new one by one load.
    generation: AtomicU64,
    /// Coarse time.
    pub clock: Arc<Clock>,
    /// Prepared statements.
    pub store: Store,
    /// Settings of sessions.
    pub interner: Interner,
    /// Clients.
    pub registry: Arc<Registry>,
    /// Users who are not in the configuration.
    pub guests: Guests,
    /// Slows down who guesses passwords.
    pub guard: Arc<Guard>,
    /// Counters.
    pub metrics: Metrics,
    /// What an administrator has switched off.
    pub gates: Gates,
    /// What is mirrored, and what becomes of it.
    pub mirrors: Mirrors,
    /// What clients ask and how long it takes.
    pub insight: QueryStats,
    /// Where query strings may go, for databases with several hosts.
    pub planner: Planner,
    /// What is known of the functions of these.
    pub catalogues: Catalogues,
    /// What is still done for clients that have gone: queries that are cancelled, servers that are put into order. The
    /// process waits for it before it ends, or PostgreSQL would go on with what nobody waits for.
    pub tidying: TaskTracker,
    /// Makes salts of unknown users stable, and cancel keys unguessable.
    pub secret: [u8; 32],
    welcomes: Mutex<HashMap<(usize, Arc<Params>), Welcome>>,
    next_client: AtomicU64,
    /// The password of the admin console where none is configured.
    pub console_password: String,
    console: Mutex<Option<Arc<Secrets>>>,
}

/// Above this many remembered greetings, all are forgotten.
const WELCOMES: usize = 1024;
/// How long a greeting is remembered, ms: a server may have been upgraded since.
const WELCOME_AGE: u64 = 60_000;

impl Runtime {
    /// So many kinds of query strings are remembered with what they do.
    pub const PLANS: usize = 10_000;

    /// The runtime of one process.
    #[must_use]
    pub fn new(live: Arc<Live>, clock: Arc<Clock>) -> Self {
        Self {
            guard: Guard::new(limits(&live.settings.login_limits)),
            insight: QueryStats::new(
                live.settings.workers,
                live.settings.query_stats.unwrap_or(0),
            ),
            planner: Planner::new(live.settings.balancing.plans),
            live: RwLock::new(live),
            guests: Guests::default(),
            generation: AtomicU64::new(1),
            clock,
            tidying: TaskTracker::new(),
            store: Store::new(10_000),
            interner: Interner::default(),
            registry: Arc::default(),
            metrics: Metrics::default(),
            gates: Gates::default(),
            mirrors: Mirrors::default(),
            catalogues: Catalogues::default(),
            secret: rand::random(),
            welcomes: Mutex::default(),
            next_client: AtomicU64::new(0),
            console_password: format!("{:032x}", rand::random::<u128>()),
            console: Mutex::default(),
        }
    }

    /// What the user of the admin console has to know.
    pub(crate) fn console_secrets(&self, admin: &Admin) -> Arc<Secrets> {
        let password = admin.password.as_ref().unwrap_or(&self.console_password);
        let credentials = Credentials {
            passwords: vec![password.clone()],
            verifier: None,
        };
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        match &*console {
            Some(known) if known.user == admin.user && known.credentials == credentials => {
                known.clone()
            }
            _ => {
                let secrets = Arc::new(Secrets::new(admin.user.clone(), credentials));
                *console = Some(secrets.clone());
                secrets
            }
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Which configuration is in force.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts another configuration in force.
    pub fn replace(&self, live: Arc<Live>) {
        self.guard.set_limits(limits(&live.settings.login_limits));
        self.insight
            .set_max_entries(live.settings.query_stats.unwrap_or(0));
        self.planner.set_limit(live.settings.balancing.plans);
        let gone = self.gates.apply_and(live, |live| {
            let mut now = self.live.write().unwrap_or_else(PoisonError::into_inner);
            *now = live;
            self.guests.follow(&now)
        });
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.lock_welcomes().clear();
        gone.iter().for_each(|pool| pool.close());
    }

    /// The account of a user in a database, be it in a configuration or not.
    #[must_use]
    pub fn account(&self, live: &Live, user: &str, database: &str) -> Option<Arc<Account>> {
        let listed = live.account(user, database).cloned();
        listed.or_else(|| self.guests.account(user, database))
    }

    /// All accounts, each at each of its hosts: those of the configuration in force, and those of guests.
    #[must_use]
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        let live = self.live();
        let listed = live.accounts.values().flat_map(HashMap::values);
        let listed = listed.flat_map(Account::everywhere).cloned();
        listed.chain(self.guests.accounts()).collect()
    }

    /// Has guests follow the configuration in force, where that is not `live`, under which `guest` was just admitted, and
    /// what is switched off.
    pub(crate) fn recheck_guests(&self, live: &Arc<Live>, guest: &Account) {
        self.gates.begin(guest);
        let now = self.live();
        if !Arc::ptr_eq(live, &now) {
            self.guests.follow(&now).iter().for_each(|p| p.close());
        }
    }

    /// Takes guests out that have not been here for a while.
    pub fn sweep_guests(&self) {
        for pool in self.guests.sweep(self.clock.now()) {
            pool.close();
            // Another pool may come to lie in the same place.
            let place = Arc::as_ptr(&pool) as usize;
            self.lock_welcomes().retain(|(of, _), _| *of != place);
        }
    }

    /// A number that no other client of this process has had.
    pub fn next_client(&self) -> u64 {
        self.next_client.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A cancel key: this process' number among its peers in the upper bits of the process id, the rest random.
    #[must_use]
    pub fn cancel_key(&self, peer_id: u16, long: bool) -> CancelKey {
        let pid = (u32::from(peer_id) << 17 | rand::random::<u32>() & 0x1_ffff) & 0x7fff_ffff;
        let secret = if long {
            rand::random::<[u8; 32]>().to_vec()
        } else {
            rand::random::<[u8; 4]>().to_vec()
        };
        CancelKey { pid, secret }
    }

    /// Which of the peers gave a key with this process id.
    #[must_use]
    pub fn peer_of(pid: u32) -> u16 {
        (pid >> 17) as u16
    }

    fn lock_welcomes(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, Arc<Params>), Welcome>> {
        self.welcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last said to a client of this pool with these settings.
    pub(crate) fn welcome(&self, pool: &Arc<Pool>, params: &Arc<Params>) -> Option<Arc<[u8]>> {
        let key = (Arc::as_ptr(pool) as usize, params.clone());
        let welcomes = self.lock_welcomes();
        let welcome = welcomes.get(&key)?;
        (self.clock.now().saturating_sub(welcome.at) < WELCOME_AGE)
            .then(|| welcome.messages.clone())
    }

    /// Remembers what to say.
    pub(crate) fn remember_welcome(
        &self,
        pool: &Arc<Pool>,
        params: Arc<Params>,
        messages: Arc<[u8]>,
    ) {
        let mut welcomes = self.lock_welcomes();
        if welcomes.len() >= WELCOMES {
            welcomes.clear();
        }
        welcomes.insert(
            (Arc::as_ptr(pool) as usize, params),
            Welcome {
                messages,
                at: self.clock.now(),
            },
        );
    }
}

fn limits(settings: &LoginLimits) -> Limits {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Limits {
        free: settings.free_failures,
        delay: settings.failure_delay.map_or(0, millis),
        delay_max: millis(settings.failure_delay_max),
        logging_in: settings.per_address,
    }
}
