//! From settings to what serves clients: TLS loaded, a pool for each account; and, at a reload, what stays of the one before.

use std::collections::HashMap;
use std::sync::Arc;

use pgdog_backend::budget::Budget;
use pgdog_backend::{Budgets, Clock, Cluster, HostSpec, Hosts, Member, Pool, Prepared, Target};
use pgdog_config::hba::{CertificateCheck, Maps, Rules};
use pgdog_config::{
    self as config, PassthroughAuth, PoolSettings, Problem, ProblemCode, Problems, Role, Settings,
    Severity, TlsMode,
};
use pgdog_net::{
    Address, Alpn, ClientTls, ClientTlsOptions, NetError, ServerTls, ServerTlsOptions, TcpOptions,
    TlsVerify,
};
use pgdog_session::{Account, Entrance, EntranceHost, Live, LoginRules};
use pgdog_shard::{Shard, ShardId, Topology};
use pgdog_wire::scram::KeyCache;

/// What outlives one configuration.
#[derive(Debug)]
pub struct Builder {
    clock: Arc<Clock>,
    keys: Arc<KeyCache>,
    workers: usize,
    /// Limits over several pools, by what they limit.
    budgets: Arc<Budgets>,
    /// What is known of hosts.
    hosts: Hosts,
}

impl Builder {
    /// For a process with this many workers.
    #[must_use]
    pub fn new(clock: Arc<Clock>, workers: usize) -> Self {
        Self {
            hosts: Hosts::new(clock.clone()),
            clock,
            keys: Arc::new(KeyCache::new(4096)),
            workers,
            budgets: Arc::default(),
        }
    }

    /// What is known of hosts.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Limits over several pools.
    #[must_use]
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Builds a configuration aside. Nothing of `old` is changed until [`Built::commit`].
    ///
    /// # Errors
    ///
    /// When certificates, keys or files of rules cannot be read: all of them, naming the files.
    pub fn build(&self, settings: Settings, old: Option<&Live>) -> Result<Built, Problems> {
        let mut problems = Vec::new();
        let tls = client_tls(&settings, &mut problems);
        let admin_tls = admin_tls(&settings, &mut problems);
        let rules = settings
            .hba
            .as_ref()
            .and_then(|files| login_rules(files, &settings, &mut problems));
        let tcp = tcp_options(&settings.tcp);
        let mut limits = Vec::new();
        let mut accounts: HashMap<String, HashMap<String, Arc<Account>>> = HashMap::new();
        let mut updates = Vec::new();
        let mut databases: HashMap<String, Prepared> = HashMap::new();
        for user in &settings.users {
            let serving = primary_first(&user.pool);
            if serving.is_empty() {
                add(&mut problems, no_host(&user.database));
                continue;
            }
            let prepared = databases
                .entry(user.database.clone())
                .or_insert_with(|| self.prepare(&user.pool, &settings));
            let before = old.and_then(|old| old.account(&user.name, &user.database));
            let mut members = Vec::new();
            for (index, host) in serving.into_iter().zip(&prepared.hosts) {
                let settings = user.pool.of_host(index);
                let target = match self.target(&settings, tcp) {
                    Ok(target) => Arc::new(target),
                    Err(problem) => {
                        add(&mut problems, problem);
                        continue;
                    }
                };
                let budgets = self.budgets.of(&settings);
                limits.extend(budgets.iter().cloned());
                let budgets = budgets.into_iter().map(|(budget, _)| budget);
                let budgets = budgets
                    .chain(self.budgets.of_host_of(&settings))
                    .collect::<Vec<_>>();
                let known = before.and_then(|before| {
                    let mut pools = before.everywhere().map(|a| &a.pool);
                    pools.find(|pool| pool.settings().same_servers(&settings))
                });
                let settings = Arc::new(settings);
                let pool = match known {
                    Some(pool) => {
                        updates.push(Update {
                            pool: pool.clone(),
                            settings,
                            target,
                            budgets,
                        });
                        pool.clone()
                    }
                    None => Pool::new(settings, target, budgets, self.workers, self.clock.clone()),
                };
                let host = host.clone();
                members.push(Member { pool, host });
            }
            if members.is_empty() {
                continue;
            }
            let cluster = Cluster::new(members, prepared.database.clone());
            let account = Account::new(user, &cluster);
            if let Some(before) = before {
                account.adopt(before);
            }
            accounts
                .entry(user.name.clone())
                .or_default()
                .insert(user.database.clone(), Arc::new(account));
        }
        let entrances = self.entrances(&settings, tcp, &mut databases, &mut problems);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        Ok(Built {
            live: Arc::new(Live {
                settings,
                accounts,
                entrances,
                rules,
                tls,
                tcp,
            }),
            admin_tls,
            updates,
            limits,
            databases: databases.into_values().collect(),
            hosts: self.hosts.clone(),
        })
    }

    /// The hosts of a database, as they will be known.
    fn prepare(&self, pool: &PoolSettings, settings: &Settings) -> Prepared {
        let specs: Vec<_> = primary_first(pool)
            .into_iter()
            .map(|index| HostSpec::from(&pool.hosts[index]))
            .collect();
        let (balancing, checks) = (&settings.balancing, &settings.checks);
        self.hosts
            .prepare(&pool.database, &specs, balancing, checks)
    }

    /// Where users may come in who are not in the configuration.
    fn entrances(
        &self,
        settings: &Settings,
        tcp: TcpOptions,
        databases: &mut HashMap<String, Prepared>,
        problems: &mut Vec<Problem>,
    ) -> HashMap<String, Entrance> {
        let mut entrances = HashMap::new();
        for pool in &settings.guest_pools {
            let queries = &settings.auth_queries;
            let query = queries.iter().find(|query| query.database == pool.database);
            if query.is_none() && settings.passthrough == PassthroughAuth::Disabled {
                continue;
            }
            let prepared = databases
                .entry(pool.database.clone())
                .or_insert_with(|| self.prepare(pool, settings));
            let mut hosts = Vec::new();
            for (index, host) in primary_first(pool).into_iter().zip(&prepared.hosts) {
                let pool = pool.of_host(index);
                match self.target(&pool, tcp) {
                    Ok(target) => hosts.push(EntranceHost {
                        host: host.clone(),
                        target,
                        pool,
                    }),
                    Err(problem) => add(problems, problem),
                }
            }
            if hosts.is_empty() {
                continue;
            }
            let entrance = Entrance {
                database: prepared.database.clone(),
                hosts,
                pool: pool.clone(),
                query: query.cloned(),
                passthrough: settings.passthrough,
                max_clients: settings.guest_max_clients,
                budgets: self.budgets.clone(),
                workers: self.workers,
                clock: self.clock.clone(),
            };
            entrances.insert(pool.database.clone(), entrance);
        }
        entrances
    }

    /// How the servers of a pool are reached.
    pub(crate) fn target(&self, pool: &PoolSettings, tcp: TcpOptions) -> Result<Target, Problem> {
        // One server a pool until routing chooses among them: the primary of the only shard, else what there is.
        let topology = Topology::new(&pool.hosts);
        let host = topology
            .shard(ShardId::ONLY)
            .and_then(Shard::primary)
            .or_else(|| pool.hosts.first())
            .ok_or_else(|| no_host(&pool.database))?;
        let tls = &pool.server_tls;
        let options = ClientTlsOptions {
            verify: match tls.mode {
                TlsMode::Disabled => TlsVerify::Disabled,
                TlsMode::Prefer => TlsVerify::Prefer,
                TlsMode::VerifyCa => TlsVerify::VerifyCa,
                TlsMode::VerifyFull => TlsVerify::VerifyFull,
            },
            ca: tls.ca.clone(),
            identity: tls.certificate.clone().zip(tls.private_key.clone()),
        };
        let address = match &host.address {
            config::Address::Tcp { host, port } => Address::Tcp {
                host: host.clone(),
                port: *port,
            },
            config::Address::Unix { dir, port } => Address::Unix {
                dir: dir.clone(),
                port: *port,
            },
        };
        Ok(Target {
            address: Arc::new(address),
            tls: ClientTls::load(&options)
                .map_err(|error| unreadable("general.tls_server_ca_certificate", error))?,
            user: pool.server_user.clone(),
            passwords: pool.server_passwords.clone(),
            passed: None,
            database: host.database.clone(),
            parameters: pool.parameters.clone(),
            tcp,
            timeout: pool.connect_timeout,
            keys: self.keys.clone(),
        })
    }
}

/// A pool that stays, with what changes for it.
#[derive(Debug)]
struct Update {
    pool: Arc<Pool>,
    settings: Arc<PoolSettings>,
    target: Arc<Target>,
    budgets: Vec<Arc<Budget>>,
}

/// A configuration that is ready to be put in force.
#[derive(Debug)]
pub struct Built {
    live: Arc<Live>,
    admin_tls: Option<ServerTls>,
    updates: Vec<Update>,
    limits: Vec<(Arc<Budget>, u32)>,
    databases: Vec<Prepared>,
    hosts: Hosts,
}

impl Built {
    /// TLS of the HTTP admin API.
    #[must_use]
    pub fn admin_tls(&self) -> Option<ServerTls> {
        self.admin_tls.clone()
    }

    /// Gives pools that stay their new sizes, and hands the configuration over to be put in force.
    #[must_use]
    pub fn commit(self) -> Arc<Live> {
        for (budget, limit) in self.limits {
            budget.set_limit(limit);
        }
        for Update {
            pool,
            settings,
            target,
            budgets,
        } in self.updates
        {
            pool.configure(settings, target, &budgets);
        }
        let names: Vec<_> = self
            .databases
            .iter()
            .map(|d| d.database.name.clone())
            .collect();
        self.hosts.keep(|name| names.iter().any(|n| n == name));
        self.databases.into_iter().for_each(Prepared::commit);
        self.live
    }
}

/// Closes the pools of `old` that `new` does not have. Only when `new` is in force, so that who waited in one of them
/// finds its successor.
pub fn retire(old: &Live, new: &Live) {
    for account in old.accounts.values().flat_map(HashMap::values) {
        let after = new.account(&account.user.name, &account.user.database);
        for Account { pool, .. } in account.everywhere().map(Arc::as_ref) {
            let mut kept = after.into_iter().flat_map(Account::everywhere);
            if !kept.any(|a| Arc::ptr_eq(&a.pool, pool)) {
                pool.close();
            }
        }
    }
}

/// The hosts that serve, as indexes: the configured primary first, as the one that is asked where any will do.
fn primary_first(pool: &PoolSettings) -> Vec<usize> {
    let mut serving = pool.serving();
    serving.sort_by_key(|&index| match pool.hosts[index].role {
        Role::Primary => 0,
        Role::Auto => 1,
        Role::Replica => 2,
    });
    serving
}

fn no_host(database: &str) -> Problem {
    let message = format!("database \"{database}\" has no host");
    problem("databases", ProblemCode::MissingKey, message)
}

fn client_tls(settings: &Settings, problems: &mut Vec<Problem>) -> Option<ServerTls> {
    let tls = settings.client_tls.as_ref()?;
    let options = ServerTlsOptions {
        client_ca: tls.client_ca.clone(),
        ..ServerTlsOptions::new(&tls.certificate, &tls.private_key)
    };
    ServerTls::load(&options)
        .map_err(|error| problems.push(unreadable("general.tls_certificate", error)))
        .ok()
}

fn admin_tls(settings: &Settings, problems: &mut Vec<Problem>) -> Option<ServerTls> {
    let http = settings.admin_http.as_ref()?;
    let (certificate, private_key) = http.tls.as_ref()?;
    let options = ServerTlsOptions {
        client_ca: http.client_ca.clone(),
        // A token may take the place of a certificate.
        client_certificate_required: http.client_ca.is_some() && http.token_file.is_none(),
        alpn: Alpn::Http,
        ..ServerTlsOptions::new(certificate, private_key)
    };
    ServerTls::load(&options)
        .map_err(|error| problems.push(unreadable("admin.http_tls_certificate", error)))
        .ok()
}

fn unreadable(path: &str, error: NetError) -> Problem {
    let message = format!("{:#}", anyhow::Error::from(error));
    problem(path, ProblemCode::Unreadable, message)
}

fn problem(path: &str, code: ProblemCode, message: String) -> Problem {
    Problem {
        file: None,
        line: None,
        path: path.to_owned(),
        code,
        severity: Severity::Error,
        message,
    }
}

/// Adds a problem. Many pools read the same files.
fn add(problems: &mut Vec<Problem>, problem: Problem) {
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

/// Reads the files of rules. What nobody could fulfil is an error, or a warning where it is safe to live with.
fn login_rules(
    files: &config::Hba,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Option<LoginRules> {
    let before = problems.len();
    let rules = Rules::load(&files.rules).map_err(|wrong| problems.extend(wrong.0));
    let maps = match &files.maps {
        Some(path) => Maps::load(path).map_err(|wrong| problems.extend(wrong.0)),
        None => Ok(Maps::default()),
    };
    let (rules, maps) = (rules.ok()?, maps.ok()?);
    let authority = settings
        .client_tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    for rule in rules.iter() {
        let place = &rule.place;
        if !authority && rule.certificate != CertificateCheck::None {
            let message =
                format!("{place}: certificates of clients need general.tls_client_ca_certificate");
            let code = ProblemCode::MissingKey;
            problems.push(problem("general.auth_hba_file", code, message));
        }
        if let Some(map) = &rule.map
            && !maps.contains(map)
        {
            tracing::warn!(
                "{place}: no line of auth_ident_file has the map \"{map}\", so this rule lets nobody in"
            );
        }
    }
    (problems.len() == before).then_some(LoginRules { rules, maps })
}

fn tcp_options(tcp: &config::Tcp) -> TcpOptions {
    TcpOptions {
        keepalive: tcp.keepalive,
        time: tcp.time,
        interval: tcp.interval,
        retries: tcp.retries,
        user_timeout: tcp.user_timeout,
    }
}
