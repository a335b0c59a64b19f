//! The budget of server connections, pushed by HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgdog_config::api::{
    BudgetPushed, BudgetStatus, Cause, HalfStatus, HostBudget, Origin, Push, PushState, Refused,
    RefusedBecause,
};
use pgdog_config::documents;
use serde_json::Value as Json;

use super::halves::Document;
use super::push::{rejected, wrong_hash};
use super::{Reloader, lock, now_ms};

impl Reloader {
    /// Takes a budget, or (`dry_run`) says what would become of it. Blocks: for threads that may. When it returns, no
    /// connection is opened above it.
    ///
    /// # Errors
    ///
    /// As [`Reloader::push`].
    pub fn push_budget(&self, push: Push, dry_run: bool) -> Result<BudgetPushed, Refused> {
        let begun = Instant::now();
        let version = push.version();
        let target = self.check_target(push.cluster_uid.as_deref(), push.pod_uid.as_deref());
        let json = Json::Object(push.config);
        let sha256 = documents::sha256(&json);
        let pushed = Document {
            json: Arc::new(json),
            status: HalfStatus {
                source: Origin::Push,
                version,
                sha256: Some(sha256.clone()),
                since_ms: now_ms(),
            },
        };
        let result = target.and_then(|()| self.take_budget(pushed, push.sha256, dry_run));
        if !dry_run {
            let state = result.as_ref().map(|pushed| pushed.state);
            self.record(
                "the budget",
                Cause::PushBudget,
                (version, sha256),
                begun,
                state,
            );
        }
        result
    }

    fn take_budget(
        &self,
        pushed: Document,
        said: Option<String>,
        dry_run: bool,
    ) -> Result<BudgetPushed, Refused> {
        let mut work = lock(&self.work);
        let now = work.budget.status.clone();
        let refuse = |because, message: String| Refused {
            keeping: Some(now.clone()),
            ..Refused::new(because, message)
        };
        let rejected = |problems| rejected("budget", now.clone(), &problems);
        let sha256 = pushed.status.sha256.clone().unwrap_or_default();
        if said.is_some_and(|said| !said.eq_ignore_ascii_case(&sha256)) {
            return Err(rejected(wrong_hash(&sha256)));
        }
        let unchanged = work
            .order_of_budget(&pushed.status)
            .map_err(|message| refuse(RefusedBecause::Stale, message))?;
        documents::read_budget(&pushed.json).map_err(rejected)?;
        let version = pushed.status.version;
        let mut halves = work.clone();
        if unchanged {
            halves.budget.status.version = version;
        } else {
            halves.budget = pushed;
        }
        if !dry_run && halves.budget.status != now {
            if let Some(store) = &self.store {
                store
                    .write_budget(&halves.budget)
                    .map_err(|message| refuse(RefusedBecause::NotPersisted, message))?;
            }
            self.builder.budgets().limit_hosts(&halves.host_limits());
            *work = halves;
            self.show(&work);
        }
        Ok(BudgetPushed {
            state: match (unchanged, dry_run) {
                (true, _) => PushState::Unchanged,
                (false, true) => PushState::Valid,
                (false, false) => PushState::Applied,
            },
            version,
            sha256,
            persisted: self.store.is_some() && !dry_run,
            hosts: self.host_budgets(),
        })
    }

    /// Which budget is in force, and how it stands.
    pub(crate) fn budget_status(&self) -> BudgetStatus {
        BudgetStatus {
            status: self.halves().budget.status,
            hosts: self.host_budgets(),
        }
    }

    /// How it stands with each host.
    pub(crate) fn host_budgets(&self) -> BTreeMap<String, HostBudget> {
        let figures = self.builder.budgets().host_figures();
        let of = |(host, figures): (String, pgdog_backend::HostBudget)| {
            let budget = HostBudget {
                limit: figures.limit,
                open: figures.open,
                waiting: figures.waiting,
            };
            (host, budget)
        };
        figures.into_iter().map(of).collect()
    }
}
