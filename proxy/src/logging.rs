//! The log: lines of text or JSON on standard error.
//!
//! Which level is in force: at the start `RUST_LOG`, else `general.log_level`. From then on whoever spoke last: a reload
//! that changes `general.log_level`, or [`Control::set_level`]. A reload that leaves the key as it was changes nothing, so
//! that neither `RUST_LOG` nor a level set by hand is lost when something else is configured.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgdog_config::{Log, LogFormat};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

mod dedup;

use dedup::{Dedup, DedupLayer};

/// Changes the log while it is written.
#[derive(Debug, Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    filter: reload::Handle<EnvFilter, Registry>,
    dedup: Arc<Dedup>,
    level: Mutex<Level>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("level", &self.level).finish()
    }
}

#[derive(Debug)]
struct Level {
    /// What the configuration says.
    configured: String,
    /// What is in force.
    current: String,
}

/// Begins logging as configured; `RUST_LOG` wins over the configured level.
///
/// A second call in one process keeps the first log, and what it returns has no effect.
pub fn init(log: &Log) -> Control {
    let environment = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let refused = environment
        .as_deref()
        .and_then(|text| parse(text).err())
        .map(|error| format!("RUST_LOG = {error}; general.log_level counts"));
    let current = environment
        .filter(|_| refused.is_none())
        .unwrap_or_else(|| log.level.clone());
    let filter = parse(&current).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let dedup = Arc::new(Dedup::default());
    dedup.configure(log.dedup);
    let begun = tracing_subscriber::registry()
        .with(filter)
        .with(DedupLayer(dedup.clone()))
        .with(lines(log.format))
        .try_init();
    // A second call, in a test, keeps the first log.
    drop(begun);
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
    Control(Arc::new(Inner {
        filter: handle,
        dedup,
        level: Mutex::new(Level {
            configured: log.level.clone(),
            current,
        }),
    }))
}

/// Whether the configured level can be understood.
///
/// # Errors
///
/// When it cannot: what is wrong, and what would be right.
pub fn check(log: &Log) -> Result<(), String> {
    parse(&log.level)
        .map(drop)
        .map_err(|error| format!("general.log_level = {error}"))
}

impl Control {
    /// Puts another level, or a filter as in `RUST_LOG`, in force: until the next call, or a reload that changes it.
    ///
    /// # Errors
    ///
    /// When it cannot be understood; then the level stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = parse(level)?;
        let mut now = self.level_now();
        self.0
            .filter
            .reload(filter)
            .map_err(|error| format!("failed to change the log's level: {error}"))?;
        level.clone_into(&mut now.current);
        Ok(())
    }

    /// The level or filter in force, as it was written.
    #[must_use]
    pub fn level(&self) -> String {
        self.level_now().current.clone()
    }

    /// Puts in force what a reload changed: the level, and what counts as a repetition.
    pub fn apply(&self, log: &Log) {
        if self.level_now().configured != log.level {
            match self.set_level(&log.level) {
                Ok(()) => self.level_now().configured.clone_from(&log.level),
                Err(error) => tracing::error!("{error}"),
            }
        }
        self.0.dedup.configure(log.dedup);
    }

    /// Writes how often lines were repeated whenever their time is over. Never ends; cancel safe.
    pub async fn tell_repetitions(self) {
        self.0.dedup.tell_repetitions().await;
    }

    /// Writes how often lines were repeated so far, before the process ends.
    pub fn flush(&self) {
        self.0.dedup.flush();
    }

    fn level_now(&self) -> MutexGuard<'_, Level> {
        self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A level, or directives as in `RUST_LOG`.
///
/// `EnvFilter` takes any word for the name of a module, so a level that is spelled wrongly would switch the log off.
fn parse(text: &str) -> Result<EnvFilter, String> {
    let known = |part: &&str| {
        part.contains(['=', '[', ']', '{', '}', ':'])
            || part.starts_with("pgdog")
            || part.parse::<LevelFilter>().is_ok()
    };
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    if let Some(part) = parts.iter().find(|part| part.is_empty() || !known(part)) {
        return Err(format!(
            "{text:?}: {part:?} is neither a level (off, error, warn, info, debug, trace) nor target=level"
        ));
    }
    EnvFilter::try_new(parts.join(",")).map_err(|error| format!("{text:?}: {error}"))
}

/// What writes the lines.
fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
        LogFormat::JsonFlattened => lines.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn levels_and_directives_are_understood() {
        for text in [
            "info",
            "TRACE",
            "off",
            "warn,pgdog_net=debug",
            "pgdog_backend",
            "info, hyper=off",
            "pgdog[login]=trace",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn a_level_spelled_wrongly_is_refused_and_named() {
        for text in ["inof", "", "warning", "info,", "info,debgu", "a=b"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        let error = parse("info,debgu").expect_err("it is no level");
        assert!(
            error.contains("\"debgu\" is neither a level (off, error"),
            "{error}"
        );
    }
}
