//! Counts what the admin API refuses: who asks in vain, and what does not fit.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pgdog_config::api::RefusedBecause;

use crate::metrics::{Kind, Metric};

/// A connection that ended in its TLS handshake: without a certificate, with one of a foreign authority, or an expired one.
const HANDSHAKE: &str = "handshake";

/// Refused requests since the start, by reason.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<BTreeMap<String, u64>>);

impl Default for Refusals {
    /// A counter that is not there has no rate: the usual ones begin with nothing.
    fn default() -> Self {
        let usual = [
            RefusedBecause::Unauthorized,
            RefusedBecause::Forbidden,
            RefusedBecause::Stale,
            RefusedBecause::Rejected,
        ];
        let names = usual.iter().map(word).chain([HANDSHAKE.to_owned()]);
        Self(Mutex::new(names.map(|name| (name, 0)).collect()))
    }
}

impl Refusals {
    /// A request was refused.
    pub(super) fn request(&self, because: RefusedBecause) {
        self.count(word(&because));
    }

    /// A connection was.
    pub(super) fn handshake(&self) {
        self.count(HANDSHAKE.to_owned());
    }

    fn count(&self, reason: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(reason).or_insert(0) += 1;
    }

    /// For Prometheus.
    #[allow(clippy::cast_precision_loss, reason = "as all its figures")]
    pub(super) fn metric(&self) -> Metric {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let values = all
            .iter()
            .map(|(reason, count)| (reason.as_str(), *count as f64));
        Metric::by(
            "admin_requests_refused_total",
            "Requests that the HTTP admin API refused, and connections that ended in their TLS handshake.",
            Kind::Counter,
            "reason",
            values,
        )
    }
}

/// As answers have it.
fn word(because: &RefusedBecause) -> String {
    let word = serde_json::to_value(because).unwrap_or_default();
    word.as_str().unwrap_or_default().to_owned()
}
