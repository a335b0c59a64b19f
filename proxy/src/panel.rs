//! What the HTTP endpoints show and do.

use std::sync::Arc;
use std::time::Duration;

use pgdog_admin::http::{Control, Kind, Metric};
use pgdog_config::api::{
    Cause, ConfigInForce, DrainBegun, Finding, Half, HalfInForce, Phase, PoolSums, Push, Pushed,
    Refused, RefusedBecause, Reloaded, Status, findings,
};
use pgdog_config::{Problems, Severity, documents};
use pgdog_session::Runtime;
use tokio::sync::{Notify, watch};

use crate::reload::{Reloader, now_ms};

/// The clock is moved on ten times a second: when it stands this long, nothing else goes on either.
const WEDGED: Duration = Duration::from_secs(15);

/// What the process is doing, and that it shall end.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// Somebody asks for the end.
    pub(crate) stop: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Starting),
            stop: Notify::new(),
        }
    }
}

impl Lifecycle {
    /// Begins another part of its life. Draining is the last one.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let changes = *now != phase && *now != Phase::Draining;
            if changes {
                *now = phase;
            }
            changes
        });
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// Ties the endpoints to the process.
#[derive(Debug)]
pub(crate) struct Panel {
    reloader: Arc<Reloader>,
    runtime: Arc<Runtime>,
    lifecycle: Arc<Lifecycle>,
    boot_id: String,
    started_ms: u64,
}

impl Panel {
    pub(crate) fn new(
        reloader: Arc<Reloader>,
        runtime: Arc<Runtime>,
        lifecycle: Arc<Lifecycle>,
    ) -> Self {
        Self {
            reloader,
            runtime,
            lifecycle,
            boot_id: format!("{:032x}", rand::random::<u128>()),
            started_ms: now_ms(),
        }
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

impl Control for Panel {
    fn push(&self, half: Half, push: Push, dry_run: bool) -> Result<Pushed, Refused> {
        if self.lifecycle.phase() == Phase::Draining {
            let message = "the process is on its way out and takes no configuration";
            return Err(Refused::new(RefusedBecause::Draining, message));
        }
        self.reloader.push(half, push, dry_run)
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
        self.lifecycle.enter(Phase::Draining);
        self.lifecycle.stop.notify_one();
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
            settings: halves.settings.status,
            topology: halves.topology.status,
            persistent: self.reloader.is_persistent(),
            clients: self.runtime.registry.len().into(),
            pools: self.pools(),
            attempts: self.reloader.attempts(),
            capabilities: ["settings", "topology", "dry_run", "drain"]
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
        let pools = self.pools();
        let by = |label: &'static str, values: &[(&str, f64)]| {
            let sample = |(of, value): &(&str, f64)| (vec![(label, (*of).to_owned())], *value);
            values.iter().map(sample).collect::<Vec<_>>()
        };
        let gauge = |name, help, samples| Metric {
            name,
            help,
            kind: Kind::Gauge,
            samples,
        };
        let version = |pick: fn(&pgdog_config::api::Version) -> u64| {
            let of = [
                (Half::Settings, &halves.settings),
                (Half::Topology, &halves.topology),
            ];
            let values =
                of.map(|(half, document)| (half.as_str(), pick(&document.status.version) as f64));
            by("half", &values)
        };
        vec![
            Metric {
                name: "config_changes_total",
                help: "Attempts to change the configuration.",
                kind: Kind::Counter,
                samples: by(
                    "outcome",
                    &[("applied", applied as f64), ("refused", refused as f64)],
                ),
            },
            gauge(
                "config_epoch",
                "Epoch of the configuration in force.",
                version(|v| v.epoch),
            ),
            gauge(
                "config_revision",
                "Revision of the configuration in force.",
                version(|v| v.revision),
            ),
            Metric::single(
                "clients",
                "Clients that are connected.",
                Kind::Gauge,
                self.runtime.registry.len().into(),
            ),
            gauge(
                "servers",
                "Server connections over all pools.",
                by(
                    "state",
                    &[
                        ("idle", pools.idle as f64),
                        ("active", pools.active as f64),
                        ("connecting", pools.connecting as f64),
                    ],
                ),
            ),
            Metric::single(
                "clients_waiting",
                "Clients that wait for a server connection.",
                Kind::Gauge,
                pools.waiting as f64,
            ),
        ]
    }
}
