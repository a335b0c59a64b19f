//! From settings to what serves clients: TLS loaded, a pool for each account; and, at a reload, what stays of the one before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use pgdog_backend::budget::Budget;
use pgdog_backend::{Clock, Pool, Target};
use pgdog_config::{self as config, PoolSettings, Settings, TlsMode};
use pgdog_net::{
    Address, ClientTls, ClientTlsOptions, ServerTls, ServerTlsOptions, TcpOptions, TlsVerify,
};
use pgdog_session::{Account, Live};
use pgdog_shard::{Shard, ShardId, Topology};
use pgdog_wire::scram::KeyCache;

/// What outlives one configuration.
#[derive(Debug)]
pub struct Builder {
    clock: Arc<Clock>,
    keys: Arc<KeyCache>,
    workers: usize,
    /// Limits over several pools, by what they limit.
    budgets: Mutex<HashMap<String, Arc<Budget>>>,
}

impl Builder {
    /// For a process with this many workers.
    #[must_use]
    pub fn new(clock: Arc<Clock>, workers: usize) -> Self {
        Self {
            clock,
            keys: Arc::new(KeyCache::new(4096)),
            workers,
            budgets: Mutex::default(),
        }
    }

    /// Builds a configuration aside. Nothing of `old` is changed until [`Built::commit`].
    ///
    /// # Errors
    ///
    /// When a certificate or key cannot be read, naming the file.
    pub fn build(&self, settings: Settings, old: Option<&Live>) -> anyhow::Result<Built> {
        let tls = match &settings.client_tls {
            None => None,
            Some(tls) => {
                let options = ServerTlsOptions {
                    client_ca: tls.client_ca.clone(),
                    ..ServerTlsOptions::new(&tls.certificate, &tls.private_key)
                };
                Some(ServerTls::load(&options).context("load TLS for clients")?)
            }
        };
        let tcp = tcp_options(&settings.tcp);
        let mut accounts: HashMap<String, HashMap<String, Arc<Account>>> = HashMap::new();
        let mut updates = Vec::new();
        for user in &settings.users {
            let target = Arc::new(self.target(&user.pool, tcp)?);
            let budgets = self.budgets(&user.pool);
            let before = old.and_then(|old| old.account(&user.name, &user.database));
            let wanted = Arc::new(user.pool.clone());
            let pool = match before {
                Some(before) if before.pool.settings().same_servers(&user.pool) => {
                    updates.push(Update {
                        pool: before.pool.clone(),
                        settings: wanted,
                        target,
                        budgets,
                    });
                    before.pool.clone()
                }
                _ => Pool::new(wanted, target, budgets, self.workers, self.clock.clone()),
            };
            let account = Account::new(user.clone(), pool);
            if let Some(before) = before {
                account.adopt(before);
            }
            accounts
                .entry(user.name.clone())
                .or_default()
                .insert(user.database.clone(), Arc::new(account));
        }
        Ok(Built {
            live: Arc::new(Live {
                settings,
                accounts,
                tls,
                tcp,
            }),
            updates,
        })
    }

    fn budgets(&self, pool: &PoolSettings) -> Vec<Arc<Budget>> {
        let limits = [
            (format!("database {}", pool.database), pool.database_max),
            (format!("user {}", pool.user), pool.user_max),
        ];
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        limits
            .into_iter()
            .filter_map(|(what, limit)| {
                let limit = limit?;
                let budget = budgets
                    .entry(what)
                    .or_insert_with(|| Budget::new(limit))
                    .clone();
                budget.set_limit(limit);
                Some(budget)
            })
            .collect()
    }

    /// How the servers of a pool are reached.
    pub(crate) fn target(&self, pool: &PoolSettings, tcp: TcpOptions) -> anyhow::Result<Target> {
        // One server a pool until routing chooses among them: the primary of the only shard, else what there is.
        let topology = Topology::new(&pool.hosts);
        let host = topology
            .shard(ShardId::ONLY)
            .and_then(Shard::primary)
            .or_else(|| pool.hosts.first())
            .with_context(|| format!("database \"{}\" has no host", pool.database))?;
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
            tls: ClientTls::load(&options).context("load TLS for servers")?,
            user: pool.server_user.clone(),
            passwords: pool.server_passwords.clone(),
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
    updates: Vec<Update>,
}

impl Built {
    /// Gives pools that stay their new sizes, and hands the configuration over to be put in force.
    #[must_use]
    pub fn commit(self) -> Arc<Live> {
        for Update {
            pool,
            settings,
            target,
            budgets,
        } in self.updates
        {
            pool.configure(settings, target, &budgets);
        }
        self.live
    }
}

/// Closes the pools of `old` that `new` does not have. Only when `new` is in force, so that who waited in one of them
/// finds its successor.
pub fn retire(old: &Live, new: &Live) {
    for account in old.accounts.values().flat_map(HashMap::values) {
        let kept = new
            .account(&account.user.name, &account.user.database)
            .is_some_and(|a| Arc::ptr_eq(&a.pool, &account.pool));
        if !kept {
            account.pool.close();
        }
    }
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
