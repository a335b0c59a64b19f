//! All hosts of a process, by database: what is known of them outlives configurations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use pgdog_config::{self as config, Balancing, Checks};
use pgdog_net::Address;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::database::DatabaseState;
use crate::host::{HostOptions, HostState};
use crate::monitor;

/// The registry. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Hosts(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    clock: Arc<Clock>,
    databases: Mutex<HashMap<String, Arc<DatabaseState>>>,
    next: AtomicU32,
    keeper: OnceLock<Handle>,
}

/// One host as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Where it is.
    pub address: Arc<Address>,
    /// The database on the server.
    pub dbname: String,
    /// What else is said of it.
    pub options: HostOptions,
}

impl From<&config::Host> for HostSpec {
    fn from(host: &config::Host) -> Self {
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
        Self {
            address: Arc::new(address),
            dbname: host.database.clone(),
            options: HostOptions {
                role: host.role,
                weight: host.weight,
                zone: host.zone.clone(),
            },
        }
    }
}

/// The hosts of a database in a configuration that is not in force yet.
#[derive(Debug)]
pub struct Prepared {
    /// The database.
    pub database: Arc<DatabaseState>,
    /// Its hosts, in the order of the specifications.
    pub hosts: Vec<Arc<HostState>>,
    options: Vec<HostOptions>,
    balancing: Balancing,
    checks: Checks,
    registry: Arc<Registry>,
}

impl Hosts {
    /// None yet.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        Self(Arc::new(Registry {
            clock,
            databases: Mutex::default(),
            next: AtomicU32::new(1),
            keeper: OnceLock::new(),
        }))
    }

    /// Has hosts watched by tasks on this runtime, which must have timers and be running: that of the control thread. Until
    /// then, and where this is never called, nobody is watched.
    pub fn watch_on(&self, keeper: Handle) {
        // The first one is the right one.
        let _ = self.0.keeper.set(keeper);
        for database in self.databases() {
            self.0.watch(&database, database.unwatched());
        }
    }

    /// Works out the hosts of a database. What is in force stays as it is until [`Prepared::commit`].
    #[must_use]
    pub fn prepare(
        &self,
        name: &str,
        specs: &[HostSpec],
        balancing: &Balancing,
        checks: &Checks,
    ) -> Prepared {
        let registry = &self.0;
        let known = registry.lock().get(name).cloned();
        let database =
            known.unwrap_or_else(|| Arc::new(DatabaseState::new(name, registry.clock.clone())));
        let before = database.hosts();
        let hosts = specs.iter().map(|spec| {
            let same =
                |host: &&Arc<HostState>| host.address == spec.address && host.dbname == spec.dbname;
            before.iter().find(same).cloned().unwrap_or_else(|| {
                let id = registry.next.fetch_add(1, Ordering::Relaxed);
                let (address, clock) = (spec.address.clone(), registry.clock.clone());
                let host = HostState::new(id, name, address, &spec.dbname, clock);
                host.belongs_to(&Arc::downgrade(&database));
                Arc::new(host)
            })
        });
        Prepared {
            hosts: hosts.collect(),
            database,
            options: specs.iter().map(|spec| spec.options.clone()).collect(),
            balancing: balancing.clone(),
            checks: checks.clone(),
            registry: registry.clone(),
        }
    }

    /// Takes out the databases that are no longer in the configuration.
    pub fn keep(&self, names: impl Fn(&str) -> bool) {
        let mut databases = self.0.lock();
        databases.retain(|name, database| {
            let kept = names(name);
            if !kept {
                database.retire();
            }
            kept
        });
    }

    /// One database.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<Arc<DatabaseState>> {
        self.0.lock().get(name).cloned()
    }

    /// All databases, in the order of their names.
    #[must_use]
    pub fn databases(&self) -> Vec<Arc<DatabaseState>> {
        let mut all: Vec<_> = self.0.lock().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<DatabaseState>>> {
        self.databases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, database: &Arc<DatabaseState>, hosts: Vec<Arc<HostState>>) {
        let Some(keeper) = self.keeper.get() else {
            database.unwatch();
            return;
        };
        for host in hosts {
            keeper.spawn(monitor::watch(host, database.clone()));
        }
    }
}

impl Prepared {
    /// Puts it in force, and has new hosts watched.
    pub fn commit(self) {
        let name = self.database.name.clone();
        self.registry.lock().insert(name, self.database.clone());
        let hosts: Vec<_> = self.hosts.into_iter().zip(self.options).collect();
        let new = self
            .database
            .configure(&hosts, &self.balancing, &self.checks);
        self.registry.watch(&self.database, new);
    }
}
