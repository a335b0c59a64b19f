//! How the hosts of a database share its traffic, and how they are watched.

use std::collections::BTreeMap;
use std::time::Duration;

use super::build::{Report, limit, millis};
use crate::modes::{
    LoadBalancingStrategy, ReadWriteSplit, ReadWriteStrategy, ReadYourWrites, Role,
};
use crate::problem::ProblemCode;
use crate::{Config, databases};

/// How many hosts of one shard can be chosen among.
const HOSTS_MAX: usize = 64;

/// How reads are spread over the hosts of a database, and what happens to writes without a primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancing {
    /// How a host is chosen for a read.
    pub strategy: LoadBalancingStrategy,
    /// Whether the primary serves reads.
    pub split: ReadWriteSplit,
    /// Where explicit transactions go.
    pub transactions: ReadWriteStrategy,
    /// The zone that the proxy runs in.
    pub zone: Option<String>,
    /// Time in which the share of a host grows that is back.
    pub slow_start: Option<Duration>,
    /// Where the reads of a client go that has written.
    pub read_your_writes: ReadYourWrites,
    /// Time that such a read waits for a replica before it goes to the primary; zero is not at all.
    pub read_your_writes_timeout: Duration,
    /// Time that a write waits while there is no primary; zero is not at all.
    pub hold_timeout: Duration,
    /// Whether EXPLAIN tells where its statement goes.
    pub expanded_explain: bool,
    /// Query strings that are remembered with where they may go.
    pub plans: usize,
    /// Functions that only read, whatever the database says.
    pub read_functions: Vec<String>,
    /// Functions that write, whatever the database says.
    pub write_functions: Vec<String>,
}

/// How hosts are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks {
    /// Time between two checks of a host; `None` means none.
    pub interval: Option<Duration>,
    /// Time before the first check of a database with one host.
    pub delay: Duration,
    /// Time for a check.
    pub timeout: Duration,
    /// Time before the first look at roles and replication positions; `None` means none where nothing needs them.
    pub look_delay: Option<Duration>,
    /// Time between two such looks.
    pub look_interval: Duration,
    /// Time for such a look.
    pub look_timeout: Duration,
    /// Lag at which a replica is banned.
    pub max_lag: Option<Duration>,
    /// The same in bytes.
    pub max_lag_bytes: Option<u64>,
    /// Time a banned host gets no reads.
    pub ban_timeout: Duration,
    /// Whether a new host gets no reads before it passed a check.
    pub required: bool,
    /// Time between two look-ups of a host's name; `None` means none.
    pub dns_ttl: Option<Duration>,
}

impl Default for Balancing {
    /// The defaults of `[general]`.
    fn default() -> Self {
        balancing(&Config::default())
    }
}

impl Default for Checks {
    /// The defaults of `[general]`.
    fn default() -> Self {
        checks(&Config::default())
    }
}

pub(super) fn balancing(config: &Config) -> Balancing {
    let general = &config.general;
    Balancing {
        strategy: general.load_balancing_strategy,
        split: general.read_write_split,
        transactions: general.read_write_strategy,
        zone: general.zone.clone().filter(|zone| !zone.is_empty()),
        slow_start: limit(general.slow_start),
        read_your_writes: general.read_your_writes,
        read_your_writes_timeout: millis(general.read_your_writes_timeout),
        hold_timeout: millis(general.hold_timeout),
        expanded_explain: general.expanded_explain,
        plans: general.query_cache_limit,
        read_functions: general.read_functions.clone(),
        write_functions: general.write_functions.clone(),
    }
}

pub(super) fn checks(config: &Config) -> Checks {
    let general = &config.general;
    let defaults = crate::general::General::default();
    // The older section counts where nobody has said anything in the newer keys.
    let older = config.replica_lag.as_ref();
    let look_interval = match older {
        Some(older) if general.lsn_check_interval == defaults.lsn_check_interval => {
            older.check_interval
        }
        _ => general.lsn_check_interval,
    };
    let max_lag = general.ban_replica_lag.or(older.map(|older| older.max_age));
    Checks {
        interval: limit(general.idle_healthcheck_interval),
        delay: millis(general.idle_healthcheck_delay),
        timeout: limit(general.healthcheck_timeout).unwrap_or(millis(defaults.healthcheck_timeout)),
        look_delay: match general.lsn_check_delay {
            None => Some(Duration::ZERO),
            Some(delay) if delay >= i64::MAX as u64 => None,
            Some(delay) => Some(millis(delay)),
        },
        // Without a pause a look would follow upon the other.
        look_interval: limit(look_interval).unwrap_or(millis(defaults.lsn_check_interval)),
        look_timeout: limit(general.lsn_check_timeout)
            .unwrap_or(millis(defaults.lsn_check_timeout)),
        max_lag: max_lag.and_then(limit),
        max_lag_bytes: general
            .ban_replica_lag_bytes
            .filter(|bytes| *bytes != 0 && *bytes < i64::MAX as u64),
        ban_timeout: millis(general.ban_timeout),
        required: general.require_healthcheck_on_discovery,
        dns_ttl: general.dns_ttl.and_then(limit),
    }
}

/// What is odd about the roles of hosts that belong together.
pub(super) fn roles(report: &mut Report<'_>) {
    let config = report.config;
    let mut shards: BTreeMap<(&str, usize), Vec<(usize, &databases::Database)>> = BTreeMap::new();
    for (index, host) in config.databases.iter().enumerate() {
        if !host.resharding_only {
            let shard = shards.entry((&host.name, host.shard)).or_default();
            shard.push((index, host));
        }
    }
    for ((name, shard), hosts) in shards {
        let of = |role: Role| hosts.iter().find(|(_, host)| host.role == role);
        let path = |index: usize, key: &str| format!("databases[{index}].{key}");
        if let (Some(_), Some((index, _))) = (of(Role::Primary), of(Role::Auto)) {
            let message = format!(
                "shard {shard} of database \"{name}\" has a fixed primary, so hosts with role = \"auto\" are its replicas; \
                 for a failover all of them have to be \"auto\""
            );
            report.warning(&path(*index, "role"), ProblemCode::Conflict, message);
        }
        if let [(index, _), _, ..] = hosts[..]
            && of(Role::Primary).is_none()
            && of(Role::Auto).is_none()
        {
            let message = format!(
                "shard {shard} of database \"{name}\" has replicas only: writes will be refused"
            );
            report.warning(&path(index, "role"), ProblemCode::Conflict, message);
        }
        if let Some((index, _)) = hosts.get(HOSTS_MAX) {
            let message = format!(
                "host {} of shard {shard} of database \"{name}\", and there may be {HOSTS_MAX}",
                HOSTS_MAX + 1
            );
            report.error(&path(*index, "host"), ProblemCode::BadValue, message);
        }
    }
}
