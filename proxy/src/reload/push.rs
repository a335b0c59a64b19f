//! One half of a configuration, pushed by HTTP.

use std::sync::Arc;
use std::time::Instant;

use pgdog_config::api::{
    Attempt, Cause, Finding, Half, HalfStatus, Origin, Push, PushState, Pushed, Refused,
    RefusedBecause, Version, findings,
};
use pgdog_config::{Problem, ProblemCode, Problems, Severity, documents};
use serde_json::Value as Json;

use super::halves::{Document, Halves};
use super::{Failure, Reloader, lock, millis, now_ms};

/// So many problems are told in one answer.
const PROBLEMS_MAX: usize = 100;

impl Reloader {
    /// Takes one half of a configuration, or (`dry_run`) says what would become of it. Blocks: for threads that may.
    ///
    /// # Errors
    ///
    /// When it is for somebody else, is not later than what is in force, is wrong, or cannot be kept: nothing changes.
    pub fn push(&self, half: Half, push: Push, dry_run: bool) -> Result<Pushed, Refused> {
        let begun = Instant::now();
        let version = push.version();
        let document = Json::Object(push.config);
        let sha256 = documents::sha256(&document);
        let pushed = Candidate {
            half,
            document,
            said: push.sha256,
            status: HalfStatus {
                source: Origin::Push,
                version,
                sha256: Some(sha256.clone()),
                since_ms: now_ms(),
            },
        };
        let target = self.check_target(push.cluster_uid.as_deref(), push.pod_uid.as_deref());
        let result = target.and_then(|()| self.take(pushed, dry_run));
        if !dry_run {
            let cause = match half {
                Half::Settings => Cause::PushSettings,
                Half::Topology => Cause::PushTopology,
            };
            let state = result.as_ref().map(|pushed| pushed.state);
            self.record(half.as_str(), cause, (version, sha256), begun, state);
        }
        result
    }

    /// Tells the log and the history what became of a push of `what`: its version, its hash, since when it was looked at.
    pub(super) fn record(
        &self,
        what: &str,
        cause: Cause,
        (version, sha256): (Version, String),
        begun: Instant,
        result: Result<PushState, &Refused>,
    ) {
        let (message, problems) = match result {
            Ok(PushState::Unchanged) => ("unchanged", Vec::new()),
            Ok(_) => ("applied", Vec::new()),
            Err(refused) => (refused.message.as_str(), refused.problems.clone()),
        };
        match result {
            Ok(_) => tracing::info!("push of {what} ({version}): {message}"),
            Err(_) => tracing::warn!("push of {what} ({version}) refused: {message}"),
        }
        self.history.add(Attempt {
            at_ms: now_ms(),
            took_ms: millis(begun),
            cause,
            version: Some(version),
            sha256: Some(sha256),
            applied: result.is_ok(),
            message: message.to_owned(),
            problems,
        });
    }

    /// An address may have come to another pod since it was looked up.
    pub(crate) fn check_target(
        &self,
        cluster: Option<&str>,
        pod: Option<&str>,
    ) -> Result<(), Refused> {
        for (what, own, meant) in [
            ("cluster", &self.identity.cluster_uid, cluster),
            ("pod", &self.identity.pod_uid, pod),
        ] {
            let Some(own) = own else { continue };
            if meant != Some(own) {
                let message = match meant {
                    Some(meant) => format!("meant for {what} {meant:?}, this is {own:?}"),
                    None => format!(
                        "{what}_uid is missing: this proxy knows that it belongs to {what} {own:?}"
                    ),
                };
                return Err(Refused::new(RefusedBecause::WrongTarget, message));
            }
        }
        Ok(())
    }

    fn take(&self, pushed: Candidate, dry_run: bool) -> Result<Pushed, Refused> {
        let mut work = lock(&self.work);
        let (half, now) = (pushed.half, work.half(pushed.half).status.clone());
        let refuse = |because, message: String, problems| Refused {
            error: because,
            message,
            problems,
            keeping: Some(now.clone()),
        };
        let rejected = |problems| rejected(half.as_str(), now.clone(), &problems);
        if pushed
            .said
            .as_ref()
            .is_some_and(|said| !said.eq_ignore_ascii_case(pushed.sha256()))
        {
            return Err(rejected(wrong_hash(pushed.sha256())));
        }
        let unchanged = work
            .order(half, &pushed.status)
            .map_err(|message| refuse(RefusedBecause::Stale, message, Vec::new()))?;
        let failed = |failure| match failure {
            Failure::Problems(problems) => rejected(problems),
            Failure::NotPersisted(message) => {
                refuse(RefusedBecause::NotPersisted, message, Vec::new())
            }
        };
        let (mut state, mut warnings) = (PushState::Unchanged, Vec::new());
        let sha256 = pushed.sha256().to_owned();
        let version = pushed.status.version;
        if unchanged {
            let mut halves = work.clone();
            halves.half_mut(half).status.version = version;
            if !dry_run && halves.half(half).status != now {
                self.keep(&halves).map_err(failed)?;
                *work = halves;
                self.show(&work);
            }
        } else {
            let halves = self.with(&work, pushed).map_err(rejected)?;
            let found = self.put_in_force(&halves, true, dry_run).map_err(failed)?;
            warnings = found.iter().map(Finding::from).collect();
            state = PushState::Valid;
            if !dry_run {
                *work = halves;
                self.show(&work);
                state = PushState::Applied;
            }
        }
        Ok(Pushed {
            state,
            half,
            version,
            sha256,
            persisted: self.store.is_some() && !dry_run,
            warnings,
        })
    }

    /// What would be in force with a half that was pushed.
    fn with(&self, work: &Halves, mut pushed: Candidate) -> Result<Halves, Problems> {
        documents::check(pushed.half, &pushed.document)?;
        if pushed.half == Half::Settings {
            documents::inherit(&mut pushed.document, &self.process)?;
        }
        let mut halves = work.clone();
        halves.replace(
            pushed.half,
            Document {
                json: Arc::new(pushed.document),
                status: pushed.status,
            },
        );
        Ok(halves)
    }
}

/// A half that was pushed and is not yet looked into.
struct Candidate {
    half: Half,
    document: Json,
    /// The checksum that came with it.
    said: Option<String>,
    status: HalfStatus,
}

impl Candidate {
    fn sha256(&self) -> &str {
        self.status.sha256.as_deref().unwrap_or_default()
    }
}

/// A checksum that came with a push is not that of its content.
pub(super) fn wrong_hash(sha256: &str) -> Problems {
    let message = format!(
        "is not that of config, which has {sha256}: hash its JSON without spaces, keys sorted"
    );
    Problems(vec![Problem {
        file: None,
        line: None,
        path: "sha256".to_owned(),
        code: ProblemCode::WrongHash,
        severity: Severity::Error,
        message,
    }])
}

/// The answer to a push that is wrong; `now` stays.
pub(super) fn rejected(what: &str, now: HalfStatus, problems: &Problems) -> Refused {
    let mut problems = findings(problems, Severity::Error);
    let message = match problems.len() {
        1 => format!(
            "{what} is wrong: {}: {}",
            problems[0].path, problems[0].message
        ),
        n => format!("{what} is wrong in {n} places"),
    };
    problems.truncate(PROBLEMS_MAX);
    Refused {
        error: RefusedBecause::Rejected,
        message,
        problems,
        keeping: Some(now),
    }
}
