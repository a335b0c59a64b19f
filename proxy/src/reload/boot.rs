//! The first configuration of a process: what was pushed last, else the files, else nothing until it is pushed.

use pgdog_backend::HostLimits;
use pgdog_config::api::{Half, HalfStatus, Origin, Version};
use pgdog_config::{Config, Problem, Problems, Settings, Source, documents};
use serde_json::Value as Json;

use super::halves::Halves;
use super::state_dir::StateDir;
use super::{Identity, now_ms};

/// What to begin with.
pub(crate) struct Boot {
    pub(super) halves: Halves,
    /// What it means.
    pub(crate) settings: Settings,
    pub(crate) warnings: Vec<Problem>,
    /// Where it came from, for the log.
    pub(crate) notes: Vec<String>,
    /// What went wrong on the way, for the log.
    pub(crate) errors: Vec<String>,
    pub(super) store: Option<StateDir>,
    pub(super) process: Json,
    /// Whether everything is paused from the start.
    pub(crate) paused: bool,
}

/// Finds the first configuration. `wait` means that nothing at all is fine.
///
/// # Errors
///
/// When there is none that can be used.
pub(crate) fn boot(source: &Source, identity: &Identity, wait: bool) -> anyhow::Result<Boot> {
    let absent = !source.config.exists() && source.database_urls.is_empty();
    let files = Config::load(source);
    // Without files the environment says where to look.
    let base = match &files {
        Ok(config) => config.clone(),
        Err(_) => Config::from_environment().map_err(|problems| wrong(&problems))?,
    };
    let (process, _) = documents::split(&base);
    let paused = base.snapshot.paused;
    let (mut errors, mut notes) = (Vec::new(), Vec::new());
    let store = base.admin.state_dir.as_ref().filter(|dir| !dir.is_empty());
    let store = store.map(|dir| {
        let (store, said) = StateDir::open(dir.as_ref());
        errors.extend(said.err());
        store
    });
    let kept = store.as_ref().and_then(|store| {
        let read = store.read();
        read.unwrap_or_else(|error| {
            errors.push(error);
            None
        })
    });
    let budget = store.as_ref().and_then(|store| {
        store.read_budget().unwrap_or_else(|error| {
            errors.push(error);
            None
        })
    });
    if let Some(budget) = &budget {
        notes.push(format!(
            "the budget as pushed last ({})",
            budget.status.version
        ));
    }
    // Of files and pushes the later one.
    let with_budget = |mut halves: Halves| {
        let now = halves.budget.status.version;
        if let Some(kept) = budget.as_ref().filter(|kept| kept.status.version >= now) {
            halves.budget = kept.clone();
        }
        halves
    };
    if let Some(kept) = kept {
        let merged = merge(
            kept,
            files.as_ref().ok().filter(|_| !absent),
            &process,
            absent,
        );
        let merged = with_budget(merged);
        match merged.meaning(identity) {
            Ok((settings, warnings)) => {
                if let (Err(problems), false) = (&files, absent) {
                    errors.push(format!("the files are wrong and are not used:\n{problems}"));
                }
                notes.extend(origins(&merged));
                let (process, _) =
                    documents::split(&merged.config().map_err(|problems| wrong(&problems))?);
                return Ok(Boot {
                    halves: merged,
                    settings,
                    warnings,
                    notes,
                    errors,
                    store,
                    process,
                    paused,
                });
            }
            Err(problems) => errors.push(format!(
                "what was pushed last does not fit any more, the files are used:\n{problems}"
            )),
        }
    }
    // A start without anything is one in the wrong folder, unless a push is to come.
    let pushed_to = wait || base.admin.http_port.is_some();
    if let Some(nothing) = source.nothing_found().filter(|_| !pushed_to) {
        anyhow::bail!(nothing);
    }
    let halves = match files {
        Ok(config) => Halves::of_files(config, now_ms()),
        Err(_) if wait && absent => nothing(base),
        Err(problems) => return Err(wrong(&problems)),
    };
    let halves = with_budget(halves);
    let (settings, warnings) = halves
        .meaning(identity)
        .map_err(|problems| wrong(&problems))?;
    Ok(Boot {
        halves,
        settings,
        warnings,
        notes,
        errors,
        store,
        process,
        paused,
    })
}

fn wrong(problems: &Problems) -> anyhow::Error {
    anyhow::anyhow!("the configuration is wrong:\n{problems}")
}

/// Of each half the later one. Keys that belong to the process are those of its files, or of the environment.
fn merge(mut kept: Halves, files: Option<&Config>, process: &Json, absent: bool) -> Halves {
    let mut settings = Json::clone(&kept.settings.json);
    documents::overrule(&mut settings, process, !absent);
    kept.settings.json = settings.into();
    let Some(files) = files else { return kept };
    let files = Halves::of_files(files.clone(), now_ms());
    let pushed: Vec<Half> = [Half::Settings, Half::Topology]
        .into_iter()
        .filter(|&half| {
            let of = kept.half(half);
            of.is_pushed() && of.status.version >= files.half(half).status.version
        })
        .collect();
    files.with_kept(&pushed, &kept)
}

impl Boot {
    /// How many server connections each host may have.
    pub(crate) fn host_limits(&self) -> HostLimits {
        self.halves.host_limits()
    }
}

/// What there is before anything was pushed.
fn nothing(environment: Config) -> Halves {
    let mut halves = Halves::of_files(environment, now_ms());
    for half in [Half::Settings, Half::Topology] {
        halves.half_mut(half).status = HalfStatus {
            source: Origin::Nowhere,
            version: Version::default(),
            sha256: None,
            since_ms: now_ms(),
        };
    }
    halves
}

fn origins(halves: &Halves) -> impl Iterator<Item = String> {
    [Half::Settings, Half::Topology]
        .into_iter()
        .filter_map(|half| {
            let of = halves.half(half);
            of.is_pushed()
                .then(|| format!("{half} as pushed last ({})", of.status.version))
        })
}
