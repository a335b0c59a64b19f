//! The HTTP admin API: what is asked and what is answered. Shared by the proxy that answers and whoever asks.
//!
//! A configuration is pushed in two halves, each with a version of its own, so that one that is rejected never holds up the
//! other: the settings ([`Half::Settings`]), which are everything but hosts, and the topology ([`Half::Topology`]), which is
//! nothing but hosts. What the halves look like is in [`documents`](crate::documents).
//!
//! The budget of server connections is pushed apart from both, with a version of its own.
//!
//! Guarantees: a push is applied as a whole or not at all; an answer of 200 means that it is in force and, where there is a
//! state directory, on disk; a version that is not higher than the one in force never replaces it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::problem::{Problem, Problems, Severity};

/// One of the two halves of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// Everything but hosts.
    Settings,
    /// Hosts, their roles and shards.
    Topology,
}

impl Half {
    /// Its name, as in paths.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Topology => "topology",
        }
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which of two configurations is the later one: the higher epoch, and within an epoch the higher revision.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub struct Version {
    /// Rises with each change of who pushes.
    pub epoch: u64,
    /// Rises with each change of the half.
    pub revision: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}, revision {}", self.epoch, self.revision)
    }
}

/// The body of a `PUT`: a half of the configuration, and what it is meant for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Uid of the cluster that the configuration is for. Required where the proxy knows its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Uid of the pod that the configuration is for. Required where the proxy knows its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Rises with each change of who pushes.
    pub epoch: u64,
    /// Rises with each change of this half.
    pub revision: u64,
    /// SHA-256 of `config` as JSON without spaces, keys sorted, in hexadecimal digits. Checked where it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The half itself.
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl Push {
    /// Its version.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version {
            epoch: self.epoch,
            revision: self.revision,
        }
    }
}

/// What became of a push that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushState {
    /// It is in force.
    Applied,
    /// The same was in force already; its version counts from now on.
    Unchanged,
    /// It would be applied: this was a dry run.
    Valid,
}

/// The answer 200 to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pushed {
    /// What became of it.
    pub state: PushState,
    /// Which half it was.
    pub half: Half,
    /// Its version.
    #[serde(flatten)]
    pub version: Version,
    /// SHA-256 of its `config`.
    pub sha256: String,
    /// Whether it is on disk for the next start; false without a state directory.
    pub persisted: bool,
    /// What is odd about it.
    pub warnings: Vec<Finding>,
}

/// Some pools, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pools {
    /// Only those of this database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Only this user's of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What can be prepared on all proxies of a fleet and is then committed on all or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A pause, as by `POST /v1/pause`.
    Pause(#[serde(deserialize_with = "object")] Pools),
    /// The end of a pause, as by `POST /v1/resume`.
    Resume(#[serde(deserialize_with = "object")] Pools),
    /// A push of settings.
    Settings(Push),
    /// A push of a topology.
    Topology(Push),
}

/// Reads fields by their names alone: a list of their values would be taken as well.
fn object<'de, D: Deserializer<'de>>(from: D) -> Result<Pools, D::Error> {
    let fields = serde_json::Map::deserialize(from)?;
    Pools::deserialize(serde_json::Value::Object(fields)).map_err(D::Error::custom)
}

impl Change {
    /// Which it is.
    #[must_use]
    pub const fn kind(&self) -> ChangeKind {
        match self {
            Self::Pause(_) => ChangeKind::Pause,
            Self::Resume(_) => ChangeKind::Resume,
            Self::Settings(_) => ChangeKind::Settings,
            Self::Topology(_) => ChangeKind::Topology,
        }
    }
}

/// Which change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A pause.
    Pause,
    /// The end of a pause.
    Resume,
    /// A push of settings.
    Settings,
    /// A push of a topology.
    Topology,
}

impl ChangeKind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Settings => "settings",
            Self::Topology => "topology",
        }
    }
}

/// The body of `POST /v1/prepare`. Clients' next transactions wait from now on, except before the end of a pause; the answer
/// comes when those that run have ended, and the change takes effect at `POST /v1/commit` or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// Uid of the cluster that it is for. Required where the proxy knows its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_uid: Option<String>,
    /// Uid of the pod that it is for. Required where the proxy knows its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Rises with each change of who asks; a change of a higher epoch takes the place of one that is prepared.
    pub epoch: u64,
    /// A name for the change, the same on all proxies and never used again.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// So many ms from now it is undone, unless it is committed before.
    #[schemars(range(min = 1, max = 600_000))]
    pub deadline_ms: u64,
    /// What is to change.
    pub change: Change,
}

/// The body of `POST /v1/commit` and `POST /v1/abort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    /// The epoch that it was prepared with.
    pub epoch: u64,
    /// The name that it was prepared under.
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
}

/// How far a change has come that is made on all proxies of a fleet or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// It is checked, and transactions are waited for.
    Preparing,
    /// It may be committed, or aborted.
    Prepared,
    /// It is being put in force.
    Committing,
    /// It is in force.
    Committed,
    /// It is undone, or was never known.
    Aborted,
}

/// The answer 200 about such a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// How far it has come.
    pub state: ChangeState,
    /// Its epoch.
    pub epoch: u64,
    /// Its name.
    pub id: String,
    /// What became of the push in it; of a dry run while it is prepared.
    pub pushed: Option<Pushed>,
}

/// A change that waits for its commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeStatus {
    /// How far it has come.
    pub state: ChangeState,
    /// Its epoch.
    pub epoch: u64,
    /// Its name.
    pub id: String,
    /// Which change it is.
    pub change: ChangeKind,
    /// When it is undone, ms since 1970.
    pub deadline_at_ms: u64,
    /// Whether clients' next transactions wait for it.
    pub holds: bool,
}

/// How it stands with the budget of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostBudget {
    /// Server connections that this process may have there, over all users and databases; none is any number.
    pub limit: Option<u32>,
    /// Those that it has, with those being opened and those that were told to go and have not gone yet.
    pub open: u32,
    /// Clients that wait because it may have no more.
    pub waiting: u32,
}

/// The answer 200 to a push of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetPushed {
    /// What became of it.
    pub state: PushState,
    /// Its version.
    #[serde(flatten)]
    pub version: Version,
    /// SHA-256 of its `config`.
    pub sha256: String,
    /// Whether it is on disk for the next start; false without a state directory.
    pub persisted: bool,
    /// How it stands with each host, by address and port. The limit is never exceeded from now on; it is reached when
    /// `open` is not above it.
    pub hosts: BTreeMap<String, HostBudget>,
}

/// Which budget is in force, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetStatus {
    /// Which it is.
    #[serde(flatten)]
    pub status: HalfStatus,
    /// How it stands with each host, by address and port.
    pub hosts: BTreeMap<String, HostBudget>,
}

/// What a host is, as the proxy has found.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HostRole {
    /// Nobody knows.
    #[default]
    Unknown,
    /// It takes no writes.
    Replica,
    /// It takes writes.
    Primary,
    /// It takes writes, and is not the one that they go to: the other one is later, or nobody can tell.
    Split,
}

/// What the proxy knows of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HostStatus {
    /// What it is.
    pub role: HostRole,
    /// Whether it answers, and somebody can log in.
    pub up: bool,
    /// Why it is not up.
    pub trouble: Option<String>,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBecause {
    /// 400: it cannot be read.
    Malformed,
    /// 401: it does not say who it comes from.
    Unauthorized,
    /// 403: who it comes from may not ask this.
    Forbidden,
    /// 404: there is no such path, database or user.
    NotFound,
    /// 405: the path takes other methods.
    MethodNotAllowed,
    /// 409: a later version is in force, or the same one with another content.
    Stale,
    /// 409: it is so already: paused, or not paused.
    WrongState,
    /// 409: clients have not come to their ends in time.
    Busy,
    /// 412: it is for another cluster or pod.
    WrongTarget,
    /// 413: it is too large.
    TooLarge,
    /// 415: its body is not said to be JSON.
    NotJson,
    /// 422: something is wrong with it; all of it is in `problems`.
    Rejected,
    /// 503: the process is on its way out.
    Draining,
    /// 507: it could not be written to the state directory.
    NotPersisted,
    /// 500: a defect of the proxy.
    Internal,
}

impl RefusedBecause {
    /// The status of the HTTP answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Stale | Self::WrongState | Self::Busy => 409,
            Self::WrongTarget => 412,
            Self::TooLarge => 413,
            Self::NotJson => 415,
            Self::Rejected => 422,
            Self::Internal => 500,
            Self::Draining => 503,
            Self::NotPersisted => 507,
        }
    }
}

/// The answer to a request that changed nothing because it could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// Why.
    pub error: RefusedBecause,
    /// Why, for people.
    pub message: String,
    /// Everything that is wrong with the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Finding>,
    /// What stays in force, where it was about a half of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeping: Option<HalfStatus>,
}

impl Refused {
    /// A refusal that needs no more than a sentence.
    #[must_use]
    pub fn new(error: RefusedBecause, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
            problems: Vec::new(),
            keeping: None,
        }
    }
}

/// Something that is wrong or odd with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The key, as `databases[1].port`; empty when it is about the whole.
    pub path: String,
    /// What kind of problem it is: `unknown_key`, `bad_value`, …
    pub code: String,
    /// What is wrong, for people. Never a secret.
    pub message: String,
}

impl From<&Problem> for Finding {
    fn from(problem: &Problem) -> Self {
        let place = match (&problem.file, problem.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            _ => String::new(),
        };
        Self {
            path: problem.path.clone(),
            code: problem.code.as_str().to_owned(),
            message: format!("{place}{}", problem.message),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// Those of the problems that matter this much.
#[must_use]
pub fn findings(problems: &Problems, severity: Severity) -> Vec<Finding> {
    let of = problems.0.iter().filter(|p| p.severity == severity);
    of.map(Finding::from).collect()
}

/// Where a half of the configuration came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It has not come yet.
    Nowhere,
    /// The configuration files, and the environment.
    Files,
    /// A push to this process.
    Push,
    /// The state directory: a push to a process before this one.
    LastKnownGood,
}

impl Origin {
    /// Whether it was pushed, to this process or to one before it.
    #[must_use]
    pub const fn is_pushed(self) -> bool {
        matches!(self, Self::Push | Self::LastKnownGood)
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nowhere => "nowhere",
            Self::Files => "files",
            Self::Push => "push",
            Self::LastKnownGood => "last_known_good",
        }
    }
}

/// Which half is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HalfStatus {
    /// Where it came from.
    pub source: Origin,
    /// Its version; zeros for files without `[snapshot]`.
    #[serde(flatten)]
    pub version: Version,
    /// SHA-256 of its `config`, where it was pushed.
    pub sha256: Option<String>,
    /// Since when it is in force, ms since 1970.
    pub since_ms: u64,
}

/// In which part of its life the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has not come to listening yet.
    Starting,
    /// There is nothing to serve yet: it waits for a push.
    Waiting,
    /// It serves clients.
    Running,
    /// It lets clients finish, and ends.
    Draining,
}

/// What asked for another configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The start of the process.
    Start,
    /// SIGHUP.
    Signal,
    /// A file changed.
    Watch,
    /// `RELOAD` of the admin console.
    Console,
    /// `POST /v1/reload`.
    Request,
    /// A push of settings.
    PushSettings,
    /// A push of a topology.
    PushTopology,
    /// A push of a budget.
    PushBudget,
}

/// An attempt to change the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// When it ended, ms since 1970.
    pub at_ms: u64,
    /// How long it took, ms.
    pub took_ms: u64,
    /// What asked for it.
    pub cause: Cause,
    /// The version that was pushed.
    pub version: Option<Version>,
    /// SHA-256 of the `config` that was pushed.
    pub sha256: Option<String>,
    /// Whether it is in force now.
    pub applied: bool,
    /// Why not, or what was said about it.
    pub message: String,
    /// Everything that was wrong.
    pub problems: Vec<Finding>,
}

/// Sums over all pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PoolSums {
    /// Pools.
    pub pools: u64,
    /// Server connections that wait for use.
    pub idle: u64,
    /// Server connections in use.
    pub active: u64,
    /// Server connections being opened.
    pub connecting: u64,
    /// Clients that wait for a server connection.
    pub waiting: u64,
    /// Clients that keep a server connection outside of a transaction.
    pub pinned: u64,
}

/// The answer to an order that is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// What is to be said besides.
    pub notices: Vec<String>,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Another one at each start.
    pub boot_id: String,
    /// When the process started, ms since 1970.
    pub started_ms: u64,
    /// In which part of its life it is.
    pub phase: Phase,
    /// Uid of the cluster it belongs to, where it knows.
    pub cluster_uid: Option<String>,
    /// Uid of its pod, where it knows.
    pub pod_uid: Option<String>,
    /// Its number among the peers, which cancel keys of clients carry that log in now; 0 where it has none.
    #[serde(default)]
    pub peer_id: u16,
    /// The settings in force.
    pub settings: HalfStatus,
    /// The topology in force.
    pub topology: HalfStatus,
    /// The budget in force; none of a version that knows of no budgets.
    pub budget: Option<BudgetStatus>,
    /// The change that is prepared and neither committed nor aborted.
    pub prepared: Option<ChangeStatus>,
    /// Whether everything is paused.
    #[serde(default)]
    pub paused: bool,
    /// Whether pushes are kept on disk.
    pub persistent: bool,
    /// Clients that are connected.
    pub clients: u64,
    /// Sums over all pools.
    pub pools: PoolSums,
    /// What is known of each host that a user has a pool to, by address and port.
    #[serde(default)]
    pub hosts: BTreeMap<String, HostStatus>,
    /// The last attempts to change the configuration, the latest first.
    pub attempts: Vec<Attempt>,
    /// What this version can do, for who pushes to proxies of several versions.
    pub capabilities: Vec<String>,
}

/// A half that is in force, and its content without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HalfInForce {
    /// Which it is.
    #[serde(flatten)]
    pub status: HalfStatus,
    /// Its content; secrets are blacked out.
    pub config: serde_json::Value,
}

/// The answer to `GET /v1/config`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigInForce {
    /// Everything but hosts.
    pub settings: HalfInForce,
    /// Hosts.
    pub topology: HalfInForce,
    /// How many server connections each host may have; none of a version that knows of no budgets.
    pub budget: Option<HalfInForce>,
}

/// The answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Halves that stay as they were pushed, since the files are not later.
    pub kept: Vec<Half>,
    /// The settings in force now.
    pub settings: HalfStatus,
    /// The topology in force now.
    pub topology: HalfStatus,
    /// What is odd about the configuration.
    pub warnings: Vec<Finding>,
}

/// The answer to `POST /v1/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainBegun {
    /// In which part of its life the process is.
    pub phase: Phase,
    /// Clients that are still connected.
    pub clients: u64,
}
