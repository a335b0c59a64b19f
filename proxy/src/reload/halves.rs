//! The two halves of the configuration in force, and the budget beside them.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgdog_backend::HostLimits;
use pgdog_config::api::{Half, HalfStatus, Origin, Version};
use pgdog_config::{Config, Problem, ProblemCode, Problems, Settings, Severity, documents};
use serde_json::Value as Json;

use super::Identity;
use crate::logging;

/// A half and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    pub(crate) json: Arc<Json>,
    pub(crate) status: HalfStatus,
}

impl Document {
    pub(crate) const fn is_pushed(&self) -> bool {
        self.status.source.is_pushed()
    }
}

/// Both.
#[derive(Debug, Clone)]
pub(crate) struct Halves {
    pub(crate) settings: Document,
    pub(crate) topology: Document,
    /// How many server connections each host may have: no half, but pushed and kept like one.
    pub(crate) budget: Document,
    /// The files as they were read, while both halves are theirs: it knows the lines.
    whole: Option<Arc<Config>>,
    /// Keys of `[general]` that the console has set, and their values; `None` is the default. Never written down.
    set: BTreeMap<String, Option<String>>,
}

impl Halves {
    pub(crate) fn new(settings: Document, topology: Document) -> Self {
        Self {
            budget: no_budget(settings.status.since_ms),
            settings,
            topology,
            whole: None,
            set: BTreeMap::new(),
        }
    }

    /// Both halves of files.
    pub(crate) fn of_files(config: Config, since_ms: u64) -> Self {
        let (settings, topology) = documents::split(&config);
        let half = |json, revision| Document {
            json: Arc::new(json),
            status: HalfStatus {
                source: Origin::Files,
                version: Version {
                    epoch: config.snapshot.epoch,
                    revision,
                },
                sha256: None,
                since_ms,
            },
        };
        // Numbers by names always become JSON.
        let budget = serde_json::to_value(&config.budget).unwrap_or_default();
        Self {
            settings: half(settings, config.snapshot.settings_revision),
            topology: half(topology, config.snapshot.topology_revision),
            budget: half(budget, config.snapshot.budget_revision),
            whole: Some(Arc::new(config)),
            set: BTreeMap::new(),
        }
    }

    /// These, but with some halves of others.
    pub(crate) fn with_kept(mut self, kept: &[Half], of: &Self) -> Self {
        for half in kept {
            self.replace(*half, of.half(*half).clone());
        }
        self
    }

    /// These, but with the budget of others where that was pushed and is no older.
    pub(crate) fn with_later_budget(mut self, of: &Self) -> Self {
        if of.budget.is_pushed() && of.budget.status.version >= self.budget.status.version {
            self.budget = of.budget.clone();
        }
        self
    }

    /// What the budget says.
    pub(crate) fn host_limits(&self) -> HostLimits {
        // It was read when it came.
        let budget = documents::read_budget(&self.budget.json).unwrap_or_default();
        HostLimits {
            default: budget.default,
            hosts: budget.hosts,
        }
    }

    pub(crate) const fn half(&self, half: Half) -> &Document {
        match half {
            Half::Settings => &self.settings,
            Half::Topology => &self.topology,
        }
    }

    pub(crate) const fn half_mut(&mut self, half: Half) -> &mut Document {
        match half {
            Half::Settings => &mut self.settings,
            Half::Topology => &mut self.topology,
        }
    }

    pub(crate) fn replace(&mut self, half: Half, document: Document) {
        *self.half_mut(half) = document;
        self.whole = None;
        if half == Half::Settings {
            self.set.clear();
        }
    }

    /// These, with another value for a key of `[general]`.
    ///
    /// # Errors
    ///
    /// When there is no such key, the value does not fit, or a running proxy cannot change it.
    pub(crate) fn with(mut self, key: &str, value: Option<&str>) -> Result<Self, Problems> {
        self.config()?.with(key, value)?;
        self.set.insert(key.to_owned(), value.map(str::to_owned));
        Ok(self)
    }

    /// Whether a push may replace a half: `true` when its content is in force already, and nothing was set since.
    ///
    /// # Errors
    ///
    /// When what is in force is later, or is another content of the same version.
    pub(crate) fn order(&self, half: Half, pushed: &HalfStatus) -> Result<bool, String> {
        let set = half == Half::Settings && !self.set.is_empty();
        self.order_of(&self.half(half).status, pushed, set)
    }

    /// The same for the budget.
    pub(crate) fn order_of_budget(&self, pushed: &HalfStatus) -> Result<bool, String> {
        self.order_of(&self.budget.status, pushed, false)
    }

    /// The highest epoch that anything in force is of.
    pub(crate) fn epoch(&self) -> u64 {
        let all = [&self.settings, &self.topology, &self.budget];
        let epochs = all.map(|document| document.status.version.epoch);
        epochs.into_iter().max().unwrap_or_default()
    }

    fn order_of(
        &self,
        now: &HalfStatus,
        pushed: &HalfStatus,
        set_since: bool,
    ) -> Result<bool, String> {
        let epoch = self.epoch();
        if pushed.version.epoch < epoch {
            return Err(format!(
                "epoch {} is over, somebody has pushed with epoch {epoch}",
                pushed.version.epoch
            ));
        }
        if pushed.version < now.version {
            return Err(format!(
                "{} is in force, which is later than {}",
                now.version, pushed.version
            ));
        }
        let same = now.source.is_pushed() && now.sha256 == pushed.sha256;
        if same && set_since {
            return Ok(false);
        }
        if pushed.version == now.version && now.source.is_pushed() && !same {
            return Err(format!(
                "{} is in force with another content: push a higher revision",
                now.version
            ));
        }
        Ok(same)
    }

    /// One configuration of both halves.
    pub(crate) fn config(&self) -> Result<Config, Problems> {
        let mut config = match &self.whole {
            Some(config) => Config::clone(config),
            None => Config::from_json(
                &documents::join(&self.settings.json, &self.topology.json),
                "pushed configuration",
            )?,
        };
        for (key, value) in &self.set {
            config = config.with(key, value.as_deref())?;
        }
        Ok(config)
    }

    /// What it means for the proxy of a pod, and warnings; or everything that is wrong.
    pub(crate) fn meaning(
        &self,
        identity: &Identity,
    ) -> Result<(Settings, Vec<Problem>), Problems> {
        let mut built = Settings::build_in_pod(&self.config()?, identity.pod_uid.as_deref())?;
        let zone = &mut built.0.balancing.zone;
        if zone.is_none() {
            zone.clone_from(&identity.pod_zone);
        }
        logging::check(&built.0.log).map_err(|message| {
            Problems(vec![Problem {
                file: None,
                line: None,
                path: "general.log_level".to_owned(),
                code: ProblemCode::BadValue,
                severity: Severity::Error,
                message,
            }])
        })?;
        Ok(built)
    }
}

/// What there is where none was ever given.
fn no_budget(since_ms: u64) -> Document {
    Document {
        json: Arc::new(Json::Object(serde_json::Map::new())),
        status: HalfStatus {
            source: Origin::Nowhere,
            version: Version::default(),
            sha256: None,
            since_ms,
        },
    }
}
