//! `[[users]]` and `[[databases]]` → one entry for each user and database, user over database over general.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::build::{Report, count, limit, millis};
use super::credentials;
use super::{Address, Credentials, Host, PoolSettings, ServerTls, User};
use crate::check::nearest;
use crate::modes::{PassthroughAuth, Role};
use crate::problem::ProblemCode;
use crate::secret::Secret;
use crate::{Config, databases, users};

/// The hosts of one database with their indexes in the configuration. The one that matters most comes first: where hosts
/// say different things about the pool, the primary is right.
struct Cluster<'a> {
    hosts: Vec<(usize, &'a databases::Database)>,
    /// Which of them matters most.
    lead: usize,
}

impl<'a> Cluster<'a> {
    /// What the host that matters most says. A replica's timeout or login is not one of the primary.
    fn lead<T>(&self, key: impl Fn(&'a databases::Database) -> Option<T>) -> Option<T> {
        self.hosts.get(self.lead).and_then(|(_, host)| key(host))
    }

    /// The same cluster as the host with this index in the configuration sees it.
    fn led_by(&self, index: usize) -> Self {
        let lead = self.hosts.iter().position(|(of, _)| *of == index);
        Self {
            hosts: self.hosts.clone(),
            lead: lead.unwrap_or(self.lead),
        }
    }

    /// The indexes of the hosts, in the order they were written.
    fn written(&self) -> Vec<usize> {
        let mut indexes: Vec<usize> = self.hosts.iter().map(|(index, _)| *index).collect();
        indexes.sort_unstable();
        indexes
    }

    /// What the first host says that says something, for keys that are about the database as a whole.
    fn pick<T>(&self, key: impl Fn(&'a databases::Database) -> Option<T>) -> Option<T> {
        self.hosts.iter().find_map(|(_, host)| key(host))
    }

    fn role(&self) -> Role {
        self.hosts
            .get(self.lead)
            .map(|(_, host)| host.role)
            .unwrap_or_default()
    }

    /// A key that has a variant for each role.
    fn by_role<T>(&self, plain: Option<T>, primary: Option<T>, replica: Option<T>) -> Option<T> {
        match self.role() {
            Role::Primary => primary.or(plain),
            Role::Replica => replica.or(plain),
            Role::Auto => plain,
        }
    }
}

/// The users with their pools, and the pools of users who are not listed, one for each database.
pub(super) fn users(report: &mut Report<'_>) -> (Vec<User>, Vec<PoolSettings>) {
    let config = report.config;
    let clusters = clusters(report);
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    for (index, user) in config.users.iter().enumerate() {
        credentials::check(report, index, user);
        if user.name.is_empty() {
            report.error(
                &format!("users[{index}].name"),
                ProblemCode::BadValue,
                "expected a name, found an empty string",
            );
        }
        for database in databases_of(report, index, user, &clusters) {
            if !seen.insert((&user.name, database)) {
                let message = format!(
                    "user \"{}\" a second time in database \"{database}\"",
                    user.name
                );
                report.error(
                    &format!("users[{index}].name"),
                    ProblemCode::Duplicate,
                    message,
                );
                continue;
            }
            let Some(cluster) = clusters.get(database) else {
                continue;
            };
            let pool = pool_with_members(config, user, database, cluster);
            for (host, member) in cluster.written().into_iter().zip(&pool.members) {
                size_problems(report, index, user, &cluster.led_by(host), member);
            }
            entries.push(User {
                name: user.name.clone(),
                database: database.to_owned(),
                credentials: Credentials {
                    passwords: credentials::passwords(user),
                    verifier: user
                        .password_hash
                        .as_ref()
                        .map(|hash| hash.reveal().to_owned()),
                },
                identity: user.identity.clone(),
                certificate_required: user
                    .tls_client_certificate_required
                    .unwrap_or(user.identity.is_some()),
                auth: user.auth_type,
                max_clients: count(
                    user.max_user_client_connections
                        .unwrap_or(config.general.max_user_client_connections),
                ),
                pool,
            });
        }
    }
    for (name, cluster) in &clusters {
        let used = entries.iter().any(|entry| entry.database == *name);
        let asked_for = cluster
            .pick(|host| host.auth_user.as_ref())
            .or(config.general.auth_user.as_ref());
        let guests = config.general.passthrough_auth != PassthroughAuth::Disabled
            || asked_for.is_some_and(|user| !user.is_empty());
        if let (false, false, Some((index, _))) = (used, guests, cluster.hosts.first()) {
            let message = format!("no user may connect to database \"{name}\"");
            report.warning(
                &format!("databases[{index}].name"),
                ProblemCode::UnknownName,
                message,
            );
        }
    }
    let nobody = users::User::default();
    let of_guests = clusters
        .iter()
        .map(|(name, cluster)| pool_with_members(config, &nobody, name, cluster));
    (entries, of_guests.collect())
}

fn clusters<'a>(report: &mut Report<'a>) -> BTreeMap<&'a str, Cluster<'a>> {
    let mut clusters: BTreeMap<&str, Cluster<'_>> = BTreeMap::new();
    for (index, host) in report.config.databases.iter().enumerate() {
        clusters
            .entry(&host.name)
            .or_insert_with(|| Cluster {
                hosts: Vec::new(),
                lead: 0,
            })
            .hosts
            .push((index, host));
    }
    for (name, cluster) in &mut clusters {
        cluster
            .hosts
            .sort_by_key(|(_, host)| (host.resharding_only, host.role != Role::Primary));
        for (index, host) in &cluster.hosts {
            let differs = [
                (
                    "pooler_mode",
                    host.pooler_mode.is_some()
                        && host.pooler_mode != cluster.pick(|host| host.pooler_mode),
                ),
                (
                    "user",
                    host.user.is_some()
                        && host.user.as_ref() != cluster.lead(|host| host.user.as_ref()),
                ),
            ];
            for (key, _) in differs.iter().filter(|(_, differs)| *differs) {
                let message = format!(
                    "another host of database \"{name}\" says something else and is followed"
                );
                report.warning(
                    &format!("databases[{index}].{key}"),
                    ProblemCode::Conflict,
                    message,
                );
            }
        }
    }
    clusters
}

/// The databases of a user, each once; those that do not exist are reported and left out.
fn databases_of<'a>(
    report: &mut Report<'_>,
    index: usize,
    user: &'a users::User,
    clusters: &BTreeMap<&'a str, Cluster<'a>>,
) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let single = user
        .database
        .as_ref()
        .filter(|database| !database.is_empty());
    let named = single.map(|name| (format!("users[{index}].database"), name));
    let listed = user
        .databases
        .iter()
        .enumerate()
        .map(|(position, name)| (format!("users[{index}].databases[{position}]"), name));
    let named: Vec<_> = named.into_iter().chain(listed).collect();
    if user.all_databases {
        found.extend(clusters.keys());
    } else if named.is_empty() {
        match clusters.get_key_value(user.name.as_str()) {
            Some((name, _)) => {
                found.insert(*name);
            }
            None => {
                let message = format!(
                    "user \"{}\" has no database: set database, databases or all_databases",
                    user.name
                );
                report.error(
                    &format!("users[{index}].database"),
                    ProblemCode::MissingKey,
                    message,
                );
            }
        }
    }
    for (path, name) in named {
        if clusters.contains_key(name.as_str()) {
            found.insert(name.as_str());
            continue;
        }
        let message = match nearest(name, clusters.keys().copied()) {
            Some(near) => format!("no database \"{name}\", did you mean \"{near}\"?"),
            None => format!("no database \"{name}\" in [[databases]]"),
        };
        report.error(&path, ProblemCode::UnknownName, message);
    }
    found
}

fn size_problems(
    report: &mut Report<'_>,
    index: usize,
    user: &users::User,
    cluster: &Cluster<'_>,
    pool: &PoolSettings,
) {
    // The problem belongs to the one who said it last.
    let place = |of_user: bool, of_host: Option<usize>, key: &str, general: &str| match of_host {
        _ if of_user => format!("users[{index}].{key}"),
        Some(host) => format!("databases[{host}].{key}"),
        None => format!("general.{general}"),
    };
    let owner = |says: fn(&databases::Database) -> bool| {
        cluster
            .hosts
            .get(cluster.lead)
            .filter(|(_, host)| says(host))
            .map(|(index, _)| *index)
    };
    if pool.size == 0 {
        let sized = owner(|host| {
            host.pool_size.is_some()
                || host.pool_size_primary.is_some()
                || host.pool_size_replica.is_some()
        });
        let path = place(
            user.pool_size.is_some(),
            sized,
            "pool_size",
            "default_pool_size",
        );
        let message = "a pool needs at least one server connection";
        report.error_once(&path, ProblemCode::BadValue, message.to_owned());
    } else if pool.min_size > pool.size {
        let sized = owner(|host| {
            host.min_pool_size.is_some()
                || host.min_pool_size_primary.is_some()
                || host.min_pool_size_replica.is_some()
        });
        let path = place(
            user.min_pool_size.is_some(),
            sized,
            "min_pool_size",
            "min_pool_size",
        );
        let message = format!(
            "{} connections kept open for user \"{}\" in database \"{}\", but the pool holds {} only",
            pool.min_size, pool.user, pool.database, pool.size
        );
        report.error_once(&path, ProblemCode::Conflict, message);
    }
}

/// The pool of a user with those of its single hosts.
fn pool_with_members(
    config: &Config,
    user: &users::User,
    database: &str,
    cluster: &Cluster<'_>,
) -> PoolSettings {
    let whole = pool(config, user, database, cluster);
    let written = cluster.written().into_iter().zip(&whole.hosts);
    let members = written.map(|(index, host)| PoolSettings {
        hosts: vec![host.clone()],
        ..pool(config, user, database, &cluster.led_by(index))
    });
    PoolSettings {
        members: members.collect(),
        ..whole
    }
}

fn pool(
    config: &Config,
    user: &users::User,
    database: &str,
    cluster: &Cluster<'_>,
) -> PoolSettings {
    let general = &config.general;
    let defaults = of_general(config);
    let lifetime = user
        .server_lifetime
        .or_else(|| cluster.lead(|host| host.server_lifetime));
    let jitter = user
        .server_lifetime_jitter
        .or_else(|| cluster.lead(|host| host.server_lifetime_jitter));
    let max_pinned = user
        .max_pinned_connections
        .or_else(|| cluster.lead(|host| host.max_pinned_connections));
    let idle = cluster
        .by_role(
            user.idle_timeout,
            user.idle_timeout_primary,
            user.idle_timeout_replica,
        )
        .or_else(|| {
            cluster.lead(|host| {
                cluster.by_role(
                    host.idle_timeout,
                    host.idle_timeout_primary,
                    host.idle_timeout_replica,
                )
            })
        });
    let min_size = cluster
        .by_role(
            user.min_pool_size,
            user.min_pool_size_primary,
            user.min_pool_size_replica,
        )
        .or_else(|| {
            cluster.lead(|host| {
                cluster.by_role(
                    host.min_pool_size,
                    host.min_pool_size_primary,
                    host.min_pool_size_replica,
                )
            })
        });
    let size = cluster
        .by_role(
            user.pool_size,
            user.pool_size_primary,
            user.pool_size_replica,
        )
        .or_else(|| {
            cluster.lead(|host| {
                cluster.by_role(
                    host.pool_size,
                    host.pool_size_primary,
                    host.pool_size_replica,
                )
            })
        });
    PoolSettings {
        user: user.name.clone(),
        database: database.to_owned(),
        hosts: hosts(cluster),
        server_user: cluster
            .lead(|host| host.user.as_ref())
            .or(user.server_user.as_ref())
            .unwrap_or(&user.name)
            .clone(),
        server_passwords: server_passwords(user, cluster),
        mode: user
            .pooler_mode
            .or_else(|| cluster.pick(|host| host.pooler_mode))
            .unwrap_or(defaults.mode),
        size: size.unwrap_or(defaults.size),
        min_size: min_size.unwrap_or(defaults.min_size),
        reserve_size: user
            .reserve_pool_size
            .or_else(|| cluster.lead(|host| host.reserve_pool_size))
            .unwrap_or(defaults.reserve_size),
        reserve_timeout: cluster
            .lead(|host| host.reserve_pool_timeout)
            .map_or(defaults.reserve_timeout, millis),
        max_pinned: count(max_pinned.unwrap_or(general.max_pinned_connections)),
        database_max: count(
            cluster
                .pick(|host| host.max_db_connections)
                .unwrap_or(general.max_db_connections),
        ),
        user_max: count(
            user.max_user_connections
                .unwrap_or(general.max_user_connections),
        ),
        database_max_clients: count(
            cluster
                .pick(|host| host.max_db_client_connections)
                .unwrap_or(general.max_db_client_connections),
        ),
        idle_timeout: idle.map_or(defaults.idle_timeout, limit),
        lifetime: lifetime.map_or(defaults.lifetime, limit),
        lifetime_jitter: jitter.map_or(defaults.lifetime_jitter, millis),
        parameters: parameters(user, cluster),
        ..defaults
    }
}

/// What `[general]` says about every pool.
pub(super) fn of_general(config: &Config) -> PoolSettings {
    let general = &config.general;
    let path = |text: &Option<String>| {
        text.as_ref()
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    };
    PoolSettings {
        user: String::new(),
        database: String::new(),
        hosts: Vec::new(),
        server_user: String::new(),
        server_passwords: Vec::new(),
        server_tls: ServerTls {
            mode: general.tls_verify,
            ca: path(&general.tls_server_ca_certificate),
            certificate: path(&general.tls_server_certificate),
            private_key: path(&general.tls_server_private_key),
        },
        mode: general.pooler_mode,
        size: general.default_pool_size,
        min_size: general.min_pool_size,
        reserve_size: general.reserve_pool_size,
        reserve_timeout: millis(general.reserve_pool_timeout),
        max_connecting: general.max_connecting.max(1),
        max_pinned: count(general.max_pinned_connections),
        database_max: count(general.max_db_connections),
        user_max: count(general.max_user_connections),
        database_max_clients: count(general.max_db_client_connections),
        checkout_timeout: millis(general.checkout_timeout),
        connect_timeout: millis(general.connect_timeout),
        connect_attempts: general.connect_attempts.max(1),
        connect_attempt_delay: millis(general.connect_attempt_delay),
        idle_timeout: limit(general.idle_timeout),
        lifetime: limit(general.server_lifetime),
        lifetime_jitter: millis(general.server_lifetime_jitter),
        // Unlike elsewhere, 0 is not "off": it is a check at every checkout.
        healthcheck_interval: match general.healthcheck_interval {
            0 => Some(Duration::ZERO),
            interval => limit(interval),
        },
        healthcheck_timeout: millis(general.healthcheck_timeout),
        parameters: Vec::new(),
        members: Vec::new(),
    }
}

fn hosts(cluster: &Cluster<'_>) -> Vec<Host> {
    let mut hosts: Vec<_> = cluster.hosts.iter().collect();
    hosts.sort_by_key(|(index, _)| *index);
    hosts
        .into_iter()
        .map(|(_, host)| Host {
            address: if host.host.starts_with('/') {
                Address::Unix {
                    dir: PathBuf::from(&host.host),
                    port: host.port,
                }
            } else {
                Address::Tcp {
                    host: host.host.clone(),
                    port: host.port,
                }
            },
            shard: host.shard,
            role: host.role,
            weight: host.lb_weight,
            zone: host.zone.clone(),
            database: host.database_name.as_ref().unwrap_or(&host.name).clone(),
            resharding_only: host.resharding_only,
        })
        .collect()
}

fn server_passwords(user: &users::User, cluster: &Cluster<'_>) -> Vec<String> {
    let single: Option<&Secret> = cluster
        .lead(|host| host.password.as_ref())
        .or(user.server_password.as_ref());
    match single {
        Some(password) => vec![password.reveal().to_owned()],
        None => credentials::passwords(user),
    }
}

fn parameters(user: &users::User, cluster: &Cluster<'_>) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut push = |name: &str, value: String| parameters.push((name.to_owned(), value));
    if let Some(timeout) = user
        .statement_timeout
        .or_else(|| cluster.lead(|host| host.statement_timeout))
    {
        push("statement_timeout", timeout.to_string());
    }
    if let Some(timeout) = user
        .lock_timeout
        .or_else(|| cluster.lead(|host| host.lock_timeout))
    {
        push("lock_timeout", timeout.to_string());
    }
    if let Some(read_only) = user
        .read_only
        .or_else(|| cluster.lead(|host| host.read_only))
    {
        push(
            "default_transaction_read_only",
            if read_only { "on" } else { "off" }.to_owned(),
        );
    }
    if user.replication_mode {
        push("replication", "database".to_owned());
    }
    parameters
}
