//! What the consoles, HTTP and SQL, show and do of the process as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgdog_admin::control::{Ordered, Outcome};
use pgdog_admin::http::Control;
use pgdog_admin::metrics::{Kind, Metric};
use pgdog_admin::{Order, Process, Shutdown};
use pgdog_backend::host::Role;
use pgdog_backend::{HostState, Target};
use pgdog_config::api::{
    BudgetPushed, Cause, Changed, ConfigInForce, Decide, DrainBegun, Finding, Half, HalfInForce,
    HostBudget, HostRole, HostStatus, Phase, PoolSums, Prepare, Push, Pushed, Refused,
    RefusedBecause, Reloaded, Status, findings,
};
use pgdog_config::{Config, PoolSettings, Problems, Severity, documents};
use pgdog_session::Runtime;

use crate::changes::Changes;
use crate::lifecycle::Lifecycle;
use crate::reload::{Reloader, now_ms};

/// The clock is moved on ten times a second: when it stands this long, nothing else goes on either.
const WEDGED: Duration = Duration::from_secs(15);

/// Ties the endpoints to the process.
#[derive(Debug)]
pub(crate) struct Panel {
    reloader: Arc<Reloader>,
    changes: Arc<Changes>,
    runtime: Arc<Runtime>,
    lifecycle: Arc<Lifecycle>,
    boot_id: String,
    started_ms: u64,
}

impl Panel {
    pub(crate) fn new(
        (reloader, changes): (Arc<Reloader>, Arc<Changes>),
        runtime: Arc<Runtime>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        Self {
            reloader,
            changes,
            runtime,
            lifecycle,
            boot_id: format!("{:032x}", rand::random::<u128>()),
            started_ms: now_ms(),
        }
    }

    fn takes_changes(&self) -> Result<(), Refused> {
        self.stays()
            .map_err(|message| Refused::new(RefusedBecause::Draining, message))
    }

    /// Refuses changes when the process is about to end.
    fn stays(&self) -> Result<(), &'static str> {
        if self.lifecycle.phase() == Phase::Draining {
            return Err("the proxy is shutting down and takes no configuration");
        }
        Ok(())
    }

    /// The hosts of all pools, each once: several databases may be on one.
    fn hosts(&self) -> BTreeMap<String, HostStatus> {
        let mut hosts: BTreeMap<String, HostStatus> = BTreeMap::new();
        for account in self.runtime.accounts() {
            let Some(host) = account.pool.host() else {
                continue;
            };
            let trouble = host.trouble();
            if trouble.is_none() && host.role() == Role::Unknown && host.seen().is_none() {
                // Nobody has looked yet.
                continue;
            }
            let seen = hosts.entry(host.address.to_string()).or_default();
            seen.role = seen.role.max(role(host));
            // It is up when it is for one of them.
            seen.up |= trouble.is_none();
            seen.trouble = if seen.up { None } else { trouble };
        }
        hosts
    }

    fn pools(&self) -> PoolSums {
        let mut sums = PoolSums::default();
        for account in self.runtime.accounts() {
            let figures = account.pool.figures();
            sums.pools += 1;
            sums.idle += u64::from(figures.idle);
            sums.active += u64::from(figures.active);
            sums.connecting += u64::from(figures.connecting);
            sums.waiting += u64::from(figures.waiting);
            sums.pinned += u64::from(figures.pinned);
        }
        sums
    }
}

fn role(host: &HostState) -> HostRole {
    match host.role() {
        Role::Primary => HostRole::Primary,
        Role::Replica => HostRole::Replica,
        Role::Unknown => match host.is_rival() {
            true => HostRole::Split,
            false => HostRole::Unknown,
        },
    }
}

impl Process for Panel {
    fn order(&self, order: Order) -> Ordered {
        if let Order::Shutdown(how) = order {
            tracing::info!("asked to shut down");
            self.lifecycle.end(how);
            return Box::pin(async { Ok(Vec::new()) });
        }
        let (reloader, stays) = (self.reloader.clone(), self.stays());
        Box::pin(async move {
            stays?;
            // Files are read and certificates loaded: not on the thread that serves others.
            let changed = tokio::task::spawn_blocking(move || change(&reloader, order)).await;
            changed.map_err(|_| "a defect")?
        })
    }

    fn config(&self) -> Result<Arc<Config>, String> {
        let config = self.reloader.halves().config();
        config
            .map(Arc::new)
            .map_err(|problems| problems.to_string())
    }

    fn target(&self, pool: &PoolSettings) -> Result<Target, String> {
        self.reloader
            .target(pool)
            .map_err(|problem| problem.to_string())
    }
}

/// Changes the configuration.
fn change(reloader: &Reloader, order: Order) -> Outcome {
    match order {
        Order::Reload => reloader
            .reload(Cause::Console)
            .map(|reloaded| reloaded.warnings)
            .map_err(|problems| problems.to_string()),
        Order::Set { key, value } => reloader
            .set(&key, value.as_deref())
            .map(|warnings| warnings.iter().map(Finding::from).collect())
            .map_err(|problems| problems.to_string()),
        Order::Shutdown(_) => Ok(Vec::new()),
    }
}

impl Control for Panel {
    fn push(&self, half: Half, push: Push, dry_run: bool) -> Result<Pushed, Refused> {
        self.takes_changes()?;
        self.reloader.push(half, push, dry_run)
    }

    fn push_budget(&self, push: Push, dry_run: bool) -> Result<BudgetPushed, Refused> {
        self.takes_changes()?;
        self.reloader.push_budget(push, dry_run)
    }

    fn prepare(&self, asked: Prepare) -> Result<Changed, Refused> {
        self.takes_changes()?;
        self.changes.prepare(asked)
    }

    // Also when it drains: what it has prepared is in force on all others, and its last clients must not differ from theirs.
    fn commit(&self, asked: &Decide) -> Result<Changed, Refused> {
        self.changes.commit(asked)
    }

    fn abort(&self, asked: &Decide) -> Result<Changed, Refused> {
        self.changes.abort(asked)
    }

    fn reload(&self) -> Result<Reloaded, Refused> {
        self.reloader
            .reload(Cause::Request)
            .map_err(|problems| Refused {
                problems: findings(&problems, Severity::Error),
                ..Refused::new(
                    RefusedBecause::Rejected,
                    "the files are wrong, the configuration before stays in force",
                )
            })
    }

    fn drain(&self) -> DrainBegun {
        tracing::info!("asked to drain");
        self.lifecycle.end(Shutdown::Drain);
        DrainBegun {
            phase: self.lifecycle.phase(),
            clients: self.runtime.registry.len().into(),
        }
    }

    fn status(&self) -> Status {
        let halves = self.reloader.halves();
        let identity = self.reloader.identity();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.clone(),
            started_ms: self.started_ms,
            phase: self.lifecycle.phase(),
            cluster_uid: identity.cluster_uid.clone(),
            pod_uid: identity.pod_uid.clone(),
            peer_id: self.runtime.live().settings.peer_id,
            settings: halves.settings.status,
            topology: halves.topology.status,
            budget: Some(self.reloader.budget_status()),
            prepared: self.changes.status(),
            paused: self.runtime.gates.all_paused(),
            persistent: self.reloader.is_persistent(),
            clients: self.runtime.registry.len().into(),
            pools: self.pools(),
            hosts: self.hosts(),
            attempts: self.reloader.attempts(),
            capabilities: [
                "settings", "topology", "dry_run", "drain", "peers", "budget", "prepare",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }

    fn config(&self) -> Result<ConfigInForce, Refused> {
        let halves = self.reloader.halves();
        let defect = |problems: Problems| Refused {
            problems: problems.0.iter().map(Finding::from).collect(),
            ..Refused::new(
                RefusedBecause::Internal,
                "a defect: what is in force cannot be shown",
            )
        };
        let config = halves.config().map_err(defect)?.redacted();
        let (settings, topology) = documents::split(&config);
        Ok(ConfigInForce {
            settings: HalfInForce {
                status: halves.settings.status,
                config: documents::without_hosts(&settings),
            },
            topology: HalfInForce {
                status: halves.topology.status,
                config: topology,
            },
            budget: Some(HalfInForce {
                status: halves.budget.status,
                config: serde_json::Value::clone(&halves.budget.json),
            }),
        })
    }

    fn phase(&self) -> Phase {
        self.lifecycle.phase()
    }

    fn wedged(&self) -> Option<String> {
        let clock = &self.runtime.clock;
        let stands = Duration::from_nanos(clock.precise())
            .saturating_sub(Duration::from_millis(clock.now()));
        (stands > WEDGED).then(|| format!("nothing has moved for {} s", stands.as_secs()))
    }

    fn metrics(&self) -> Vec<Metric> {
        let halves = self.reloader.halves();
        let (applied, refused) = self.reloader.counts();
        let version = |name, help, pick: fn(&pgdog_config::api::Version) -> u64| {
            let of = [
                (Half::Settings.as_str(), &halves.settings),
                (Half::Topology.as_str(), &halves.topology),
                ("budget", &halves.budget),
            ];
            let values = of.map(|(half, document)| (half, pick(&document.status.version) as f64));
            Metric::by(name, help, Kind::Gauge, "half", values)
        };
        let mut all = vec![
            Metric::by(
                "config_changes_total",
                "Attempts to change the configuration.",
                Kind::Counter,
                "outcome",
                [("applied", applied as f64), ("refused", refused as f64)],
            ),
            version(
                "config_epoch",
                "Epoch of the configuration in force.",
                |v| v.epoch,
            ),
            version(
                "config_revision",
                "Revision of the configuration in force.",
                |v| v.revision,
            ),
        ];
        all.extend(budgets(&self.reloader.host_budgets()));
        if let Some(last) = self.reloader.attempts().first() {
            let gauge = |name, help, value| Metric::single(name, help, Kind::Gauge, value);
            all.extend([
                gauge(
                    "config_last_change_applied",
                    "1 when the last attempt to change the configuration was not refused.",
                    f64::from(last.applied),
                ),
                gauge(
                    "config_last_change_timestamp_seconds",
                    "When that was, seconds since 1970.",
                    last.at_ms as f64 / 1e3,
                ),
            ]);
        }
        all
    }
}

/// Figures of the budgets of hosts.
fn budgets(hosts: &BTreeMap<String, HostBudget>) -> [Metric; 3] {
    let by = |name, help, pick: fn(&HostBudget) -> Option<u32>| {
        let values = hosts
            .iter()
            .filter_map(|(host, budget)| Some((host.as_str(), f64::from(pick(budget)?))));
        Metric::by(name, help, Kind::Gauge, "host", values)
    };
    [
        by(
            "host_budget_limit",
            "Server connections that this process may have to a host, over all users and databases; absent where any number.",
            |budget| budget.limit,
        ),
        by(
            "host_budget_open",
            "Server connections that count against the budget of a host.",
            |budget| Some(budget.open),
        ),
        by(
            "host_budget_waiting",
            "Clients that wait for a server connection because the budget of a host is spent.",
            |budget| Some(budget.waiting),
        ),
    ]
}
