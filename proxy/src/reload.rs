//! Every new configuration comes this way: files (SIGHUP, `RELOAD`, a changed file) and pushes by HTTP.
//!
//! One configuration is two halves, settings and topology, each with a version (`halves.rs`). A change of either is checked
//! and built aside, with the other half as it is in force, and then swapped in at once; whatever is wrong with it, nothing
//! changes. One change is made after the other.
//!
//! Between files and pushes the higher version decides. Files without `[snapshot]` have none, so what was pushed stays.

mod boot;
mod budget;
mod halves;
mod history;
mod push;
mod state_dir;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pgdog_backend::Target;
use pgdog_config::api::{Attempt, Cause, Finding, Half, Reloaded, findings};
use pgdog_config::{Config, PoolSettings, Problem, ProblemCode, Problems, Severity, Source};
use pgdog_net::ServerTls;
use pgdog_session::Runtime;
use serde_json::Value as Json;
use tokio::sync::{Notify, watch as channel};

use crate::app::tell_password;
use crate::build::{Builder, retire};
use crate::logging::Control;

pub(crate) use boot::{Boot, boot};
use halves::Halves;
use history::History;
use state_dir::StateDir;

/// Who this process is, for pushes that are meant for another, and where it runs.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// Uid of the cluster.
    pub cluster_uid: Option<String>,
    /// Uid of the pod.
    pub pod_uid: Option<String>,
    /// Zone of the pod.
    pub pod_zone: Option<String>,
}

/// Puts configurations in force.
#[derive(Debug)]
pub struct Reloader {
    source: Source,
    /// The files that were there at the last look: one that is gone is no empty one.
    there: Mutex<Vec<PathBuf>>,
    identity: Identity,
    builder: Builder,
    runtime: Arc<Runtime>,
    log: Control,
    store: Option<StateDir>,
    /// The settings that the process started with: where keys that need a restart come from.
    process: Json,
    /// Held while a configuration is checked, built and swapped in.
    work: Mutex<Halves>,
    /// What status shows, never held for long.
    seen: Mutex<Halves>,
    history: History,
    admin_tls: channel::Sender<Option<ServerTls>>,
    /// Told of each configuration that is put in force.
    pub(crate) applied: Notify,
}

/// What made a change impossible.
enum Failure {
    Problems(Problems),
    /// The state directory did not take it.
    NotPersisted(String),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl Reloader {
    pub(crate) fn new(
        boot: Boot,
        (source, identity): (Source, Identity),
        (builder, runtime, log): (Builder, Arc<Runtime>, Control),
        admin_tls: Option<ServerTls>,
    ) -> Self {
        let history = History::default();
        history.add(Attempt {
            at_ms: now_ms(),
            took_ms: 0,
            cause: Cause::Start,
            version: None,
            sha256: None,
            applied: true,
            message: boot.notes.join("; "),
            problems: Vec::new(),
        });
        Self {
            there: Mutex::new(there(&source)),
            source,
            identity,
            builder,
            runtime,
            log,
            store: boot.store,
            process: boot.process,
            seen: Mutex::new(boot.halves.clone()),
            work: Mutex::new(boot.halves),
            history,
            admin_tls: channel::Sender::new(admin_tls),
            applied: Notify::new(),
        }
    }

    /// Reads the files again. Blocks: for threads that may.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them; the configuration before stays in force then.
    pub fn reload(&self, cause: Cause) -> Result<Reloaded, Problems> {
        let begun = Instant::now();
        let mut work = lock(&self.work);
        let result = self.reload_files(&mut work);
        let (message, problems) = match &result {
            Ok(reloaded) => {
                let kept = kept(&reloaded.kept, &work);
                tracing::info!("configuration reloaded{kept}");
                (format!("reloaded{kept}"), Vec::new())
            }
            Err(problems) => {
                tracing::error!(
                    "failed to reload, the configuration before stays in force: the configuration is wrong:\n{problems}"
                );
                let message = "the configuration is wrong".to_owned();
                (message, findings(problems, Severity::Error))
            }
        };
        self.history.add(Attempt {
            at_ms: now_ms(),
            took_ms: millis(begun),
            cause,
            version: None,
            sha256: None,
            applied: result.is_ok(),
            message,
            problems,
        });
        result
    }

    /// Changes one key of `[general]` until the next reload, or the next push of settings; `None` is its default. Blocks.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn set(&self, key: &str, value: Option<&str>) -> Result<Vec<Problem>, Problems> {
        let mut work = lock(&self.work);
        let halves = work.clone().with(key, value)?;
        let warnings = match self.put_in_force(&halves, false, false) {
            Ok(warnings) => warnings,
            Err(Failure::Problems(problems)) => return Err(problems),
            // Nothing was to be written.
            Err(Failure::NotPersisted(_)) => Vec::new(),
        };
        *work = halves;
        self.show(&work);
        Ok(warnings)
    }

    /// How the servers of a pool would be reached.
    ///
    /// # Errors
    ///
    /// What stands against it, a certificate that cannot be read for instance.
    pub(crate) fn target(&self, pool: &PoolSettings) -> Result<Target, Problem> {
        self.builder.target(pool, self.runtime.live().tcp)
    }

    /// A file that was read before and is missing now is being replaced, or its folder is not mounted: nobody means by it
    /// that all users are to go.
    fn none_gone(&self) -> Result<(), Problems> {
        let mut before = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        let now = there(&self.source);
        let gone: Vec<_> = before
            .iter()
            .filter(|file| !now.contains(file))
            .map(|file| Problem {
                file: Some(file.display().to_string()),
                line: None,
                path: String::new(),
                code: ProblemCode::Unreadable,
                severity: Severity::Error,
                message:
                    "the file was there before and is gone: put it back, or start anew without it"
                        .to_owned(),
            })
            .collect();
        if !gone.is_empty() {
            return Err(Problems(gone));
        }
        *before = now;
        Ok(())
    }

    fn reload_files(&self, work: &mut Halves) -> Result<Reloaded, Problems> {
        let (mut halves, mut kept) = (work.clone(), Vec::new());
        let gone =
            !self.source.config.exists() && work.settings.is_pushed() && work.topology.is_pushed();
        if gone {
            // It has started without them. Certificates are read again all the same.
            kept = vec![Half::Settings, Half::Topology];
        } else {
            self.none_gone()?;
            let files = Halves::of_files(Config::load(&self.source)?, now_ms());
            for half in [Half::Settings, Half::Topology] {
                let now = work.half(half);
                if now.is_pushed() && now.status.version >= files.half(half).status.version {
                    kept.push(half);
                }
            }
            halves = files.with_kept(&kept, work).with_later_budget(work);
        }
        let warnings = match self.put_in_force(&halves, false, false) {
            Ok(warnings) => warnings,
            Err(Failure::Problems(problems)) => return Err(problems),
            // Nothing was to be written.
            Err(Failure::NotPersisted(_)) => Vec::new(),
        };
        self.builder.budgets().limit_hosts(&halves.host_limits());
        report(&warnings);
        *work = halves;
        self.show(work);
        Ok(Reloaded {
            kept,
            settings: work.settings.status.clone(),
            topology: work.topology.status.clone(),
            warnings: warnings.iter().map(Finding::from).collect(),
        })
    }

    /// Checks and builds a configuration aside; then (unless it is a dry run) writes it to the state directory where asked
    /// to, and swaps it in. Gives the warnings.
    fn put_in_force(
        &self,
        halves: &Halves,
        keep: bool,
        dry_run: bool,
    ) -> Result<Vec<Problem>, Failure> {
        let (settings, mut warnings) = halves.meaning(&self.identity)?;
        let old = self.runtime.live();
        warnings.extend(needs_restart(&old.settings, &settings));
        let built = self.builder.build(settings, Some(&old))?;
        if dry_run {
            return Ok(warnings);
        }
        if keep {
            self.keep(halves)?;
        }
        // Whether the admin API speaks TLS changes at the next start only.
        if let Some(tls) = built.admin_tls() {
            self.admin_tls.send_replace(Some(tls));
        }
        let live = built.commit();
        self.log.apply(&live.settings.log);
        self.runtime.replace(live.clone());
        if old.settings.admin.password.is_some() {
            tell_password(&self.runtime);
        }
        retire(&old, &live);
        self.applied.notify_waiters();
        Ok(warnings)
    }

    fn keep(&self, halves: &Halves) -> Result<(), Failure> {
        match &self.store {
            Some(store) => store.write(halves).map_err(Failure::NotPersisted),
            None => Ok(()),
        }
    }

    fn show(&self, halves: &Halves) {
        *lock(&self.seen) = halves.clone();
    }

    /// The halves in force.
    pub(crate) fn halves(&self) -> Halves {
        lock(&self.seen).clone()
    }

    /// The last attempts, the latest first.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.history.latest()
    }

    /// Attempts since the start: those that were applied, and those that were not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.history.counts()
    }

    /// Whether pushes are kept on disk.
    pub(crate) fn is_persistent(&self) -> bool {
        self.store.is_some()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// TLS of the HTTP admin API, as it changes.
    pub(crate) fn admin_tls(&self) -> channel::Receiver<Option<ServerTls>> {
        self.admin_tls.subscribe()
    }

    /// Reloads whenever a file changes, where `general.watch_config` is on. Never ends; cancel safe.
    pub(crate) async fn watch(self: Arc<Self>) {
        watch::run(&self).await;
    }
}

/// `; settings stay as pushed (epoch 1, revision 2)`
fn kept(kept: &[Half], halves: &Halves) -> String {
    kept.iter()
        .map(|half| {
            format!(
                "; {half} stays as pushed ({})",
                halves.half(*half).status.version
            )
        })
        .collect()
}

/// The files of a configuration that exist.
fn there(source: &Source) -> Vec<PathBuf> {
    [source.config.clone(), source.users_file()]
        .into_iter()
        .filter(|file| file.exists())
        .collect()
}

pub(crate) fn report(warnings: &[Problem]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// What a new configuration wants and only another start gives it.
fn needs_restart(old: &pgdog_config::Settings, new: &pgdog_config::Settings) -> Vec<Problem> {
    let listening = new.listen != old.listen || new.workers != old.workers;
    let http = new.admin_http != old.admin_http
        || new.plain_http != old.plain_http
        || new.state_dir != old.state_dir;
    let format = new.log.format != old.log.format;
    [
        (
            listening,
            "general",
            "host, port, workers and the unix socket change at the next start only",
        ),
        (
            http,
            "admin",
            "admin.http_*, admin.state_dir, general.healthcheck_port and openmetrics_* change at the next start only",
        ),
        (
            format,
            "general.log_format",
            "changes at the next start only",
        ),
    ]
    .into_iter()
    .filter(|(differs, ..)| *differs)
    .map(|(_, path, message)| Problem {
        file: None,
        line: None,
        path: path.to_owned(),
        code: ProblemCode::RequiresRestart,
        severity: Severity::Warning,
        message: message.to_owned(),
    })
    .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
