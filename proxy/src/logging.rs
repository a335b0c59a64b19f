//! The log: lines of text or JSON on standard error.

use pgdog_config::{Log, LogFormat};
use tracing_subscriber::EnvFilter;

/// Begins logging as configured; `RUST_LOG` wins over the configured level.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let result = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
        LogFormat::JsonFlattened => builder.json().flatten_event(true).try_init(),
    };
    // A second call, in a test, keeps the first log.
    drop(result);
}
