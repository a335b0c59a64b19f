//! What a proxy is to have.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::{Map, Value};

/// A half of a configuration, ready to be pushed.
pub struct Document {
    /// The epoch of this leader.
    pub epoch: u64,
    /// Its revision.
    pub revision: u64,
    /// SHA-256 of it.
    pub sha256: String,
    /// The half itself.
    pub config: Map<String, Value>,
    /// The same as JSON, made when it is first sent: all proxies are sent one text.
    text: OnceLock<String>,
}

impl Document {
    /// This half in this version.
    #[must_use]
    pub fn new(epoch: u64, revision: u64, sha256: String, config: Map<String, Value>) -> Self {
        Self {
            epoch,
            revision,
            sha256,
            config,
            text: OnceLock::new(),
        }
    }

    /// As the body of a push to a proxy; it says whom it is for.
    pub(super) fn body(&self, cluster: &str, pod: &str) -> Bytes {
        let config = self
            .text
            .get_or_init(|| serde_json::to_string(&self.config).unwrap_or_default());
        // The fields of a `Push`.
        let whom = serde_json::json!({
            "cluster_uid": cluster,
            "pod_uid": pod,
            "epoch": self.epoch,
            "revision": self.revision,
            "sha256": self.sha256,
        });
        let whom = whom.to_string();
        let open = whom.trim_end_matches('}');
        format!(r#"{open},"config":{config}}}"#).into()
    }
}

impl PartialEq for Document {
    // A large fleet is compared often: another content has another hash.
    fn eq(&self, other: &Self) -> bool {
        (self.epoch, self.revision, &self.sha256) == (other.epoch, other.revision, &other.sha256)
    }
}

impl std::fmt::Debug for Document {
    // Passwords stand in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            epoch, revision, ..
        } = self;
        write!(f, "Document(epoch {epoch}, revision {revision})")
    }
}

/// Whether a proxy holds its clients' next transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Whether it does.
    pub paused: bool,
    /// The epoch of this leader: what a former one orders is refused.
    pub epoch: u64,
    /// How often all proxies were told otherwise so far: each time some may have heard it and others not.
    pub attempt: u64,
}

/// What a proxy is to have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Want {
    /// Uid of the cluster.
    pub cluster_uid: String,
    /// The settings; `None` leaves those that it has.
    pub settings: Option<Arc<Document>>,
    /// The topology; `None` leaves the one that it has.
    pub topology: Option<Arc<Document>>,
    /// What it may open to each host; `None` leaves what it has.
    pub budget: Option<Arc<Document>>,
    /// Whether it is to be paused; `None` leaves it as it is.
    pub paused: Option<Hold>,
    /// Whether it is asked what it knows of Postgres: a few are enough.
    pub observes: bool,
    /// Time that it has to take settings.
    pub patience: Duration,
}

#[cfg(test)]
mod tests {
    use pgdog_config::api::Push;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent_is_a_push_and_another_version_is_another_document() {
        let config = Map::from_iter([("general".to_owned(), json!({"host": "}\"{"}))]);
        let document = Document::new(3, 7, "abc".to_owned(), config.clone());
        let push: Push = serde_json::from_slice(&document.body("cluster", "pod")).unwrap();
        let wanted = Push {
            cluster_uid: Some("cluster".to_owned()),
            pod_uid: Some("pod".to_owned()),
            epoch: 3,
            revision: 7,
            sha256: Some("abc".to_owned()),
            config: config.clone(),
        };
        assert_eq!(push, wanted);
        assert_eq!(document, Document::new(3, 7, "abc".to_owned(), Map::new()));
        assert_ne!(document, Document::new(3, 8, "abc".to_owned(), config));
    }
}
