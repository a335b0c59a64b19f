//! Changes that take effect on all proxies of a fleet or on none: prepared on each, then committed on each or aborted.
//!
//! While one is prepared, clients' next transactions wait, and those that run have ended: no two proxies of the fleet serve
//! the state before and the state after at once. Whoever asks may vanish at any moment: at its deadline a change that is not
//! committed is undone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pgdog_config::api::{
    Change, ChangeState, ChangeStatus, Changed, Decide, Half, Pools, Prepare, Pushed, Refused,
    RefusedBecause,
};
use pgdog_session::{Runtime, Scope};
use tokio::sync::Notify;

use crate::reload::{Reloader, now_ms};

/// The longest deadline, ms.
const DEADLINE_MAX: u64 = 600_000;
/// The longest name of a change.
const ID_MAX: usize = 128;
/// How often it is looked whether transactions have ended.
const STEP: Duration = Duration::from_millis(10);

/// The change that is prepared, if there is one.
#[derive(Debug)]
pub(crate) struct Changes {
    reloader: Arc<Reloader>,
    runtime: Arc<Runtime>,
    state: Mutex<State>,
    /// There is another deadline to keep.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    now: Option<Pending>,
    /// The highest epoch that anybody has asked with.
    epoch: u64,
    /// What was committed last, for who has not heard the answer.
    committed: Option<Changed>,
}

#[derive(Debug)]
struct Pending {
    epoch: u64,
    id: String,
    change: Change,
    until: Instant,
    until_ms: u64,
    step: Step,
}

/// How far it has come.
#[derive(Debug)]
enum Step {
    Preparing,
    Prepared(Option<Pushed>),
    Committing,
}

impl Pending {
    fn is(&self, epoch: u64, id: &str) -> bool {
        self.epoch == epoch && self.id == id
    }

    fn answer(&self, state: ChangeState, pushed: Option<Pushed>) -> Changed {
        Changed {
            state,
            epoch: self.epoch,
            id: self.id.clone(),
            pushed,
        }
    }
}

fn scope(pools: &Pools) -> Scope {
    Scope {
        database: pools.database.clone(),
        user: pools.user.clone(),
    }
}

/// Whose transactions wait while a change is prepared.
fn held(change: &Change) -> Option<Scope> {
    match change {
        Change::Pause(pools) => Some(scope(pools)),
        Change::Resume(_) => None,
        Change::Settings(_) | Change::Topology(_) => Some(Scope::default()),
    }
}

impl Changes {
    pub(crate) fn new(reloader: Arc<Reloader>, runtime: Arc<Runtime>) -> Self {
        Self {
            reloader,
            runtime,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a change. Blocks until the transactions have ended that run: for threads that may.
    ///
    /// # Errors
    ///
    /// When it is for somebody else, its epoch is over, another one is prepared, it is wrong, or transactions have not ended
    /// at its deadline: nothing changes, and clients go on.
    pub(crate) fn prepare(&self, asked: Prepare) -> Result<Changed, Refused> {
        let target = (asked.cluster_uid.as_deref(), asked.pod_uid.as_deref());
        self.reloader.check_target(target.0, target.1)?;
        self.check(&asked)?;
        let (epoch, id, change) = (asked.epoch, asked.id.clone(), asked.change.clone());
        if self.begin(asked)? {
            let pushed = match self.dry_run(&change) {
                Ok(pushed) => pushed,
                Err(refused) => {
                    self.undo(|now| now.is(epoch, &id), "it was refused");
                    return Err(refused);
                }
            };
            self.hold(epoch, &id);
            tracing::info!(
                "preparing a change of the fleet, {id}: {}",
                change.kind().as_str()
            );
            self.wait(epoch, &id, Some(pushed))
        } else {
            // Somebody asks again who has not heard the answer.
            self.wait(epoch, &id, None)
        }
    }

    /// Whether what is asked makes sense by itself.
    fn check(&self, asked: &Prepare) -> Result<(), Refused> {
        let malformed = |message: &str| Err(Refused::new(RefusedBecause::Malformed, message));
        if !(1..=DEADLINE_MAX).contains(&asked.deadline_ms) {
            return malformed("deadline_ms is from 1 to 600000");
        }
        check_id(&asked.id)?;
        let (Change::Pause(pools) | Change::Resume(pools)) = &asked.change else {
            return Ok(());
        };
        let Some(database) = &pools.database else {
            if pools.user.is_some() {
                return malformed("a user is one of a database: name it as well");
            }
            return Ok(());
        };
        let live = self.runtime.live();
        let guests = live.entrances.contains_key(database);
        let mut users = live.settings.users.iter();
        if !guests && !users.any(|user| user.database == *database) {
            let message = format!("there is no database {database:?}");
            return Err(Refused::new(RefusedBecause::NotFound, message));
        }
        let accounts = self.runtime.accounts();
        let mut identities = accounts.iter().map(|account| &account.identity);
        match &pools.user {
            Some(user) if !identities.any(|of| of.database == *database && of.user == *user) => {
                let message = format!("there is no user {user:?} of database {database:?}");
                Err(Refused::new(RefusedBecause::NotFound, message))
            }
            _ => Ok(()),
        }
    }

    /// Takes the place of the one prepared change. `false`: it is there already.
    fn begin(&self, asked: Prepare) -> Result<bool, Refused> {
        let mut state = self.lock();
        let epoch = state.epoch.max(self.reloader.halves().epoch());
        if asked.epoch < epoch {
            return Err(stale(asked.epoch, epoch));
        }
        let done = state.committed.as_ref();
        if done.is_some_and(|done| done.epoch == asked.epoch && done.id == asked.id) {
            let message = format!("{:?} is committed already: take another id", asked.id);
            return Err(Refused::new(RefusedBecause::WrongState, message));
        }
        match &state.now {
            Some(now) if now.is(asked.epoch, &asked.id) && now.change == asked.change => {
                return Ok(false);
            }
            Some(now) if asked.epoch > now.epoch && !matches!(now.step, Step::Committing) => {
                self.undo_in(&mut state, "a higher epoch has taken over");
            }
            Some(now) => {
                let message = format!(
                    "{:?} is prepared, with epoch {}: commit or abort it first",
                    now.id, now.epoch
                );
                return Err(Refused::new(RefusedBecause::Busy, message));
            }
            None => {}
        }
        state.epoch = asked.epoch;
        state.now = Some(Pending {
            epoch: asked.epoch,
            id: asked.id,
            change: asked.change,
            until: Instant::now() + Duration::from_millis(asked.deadline_ms),
            until_ms: now_ms().saturating_add(asked.deadline_ms),
            step: Step::Preparing,
        });
        drop(state);
        self.changed.notify_one();
        Ok(true)
    }

    /// What would become of a push.
    fn dry_run(&self, change: &Change) -> Result<Option<Pushed>, Refused> {
        self.push(change, true)
    }

    fn push(&self, change: &Change, dry_run: bool) -> Result<Option<Pushed>, Refused> {
        let (half, push) = match change {
            Change::Settings(push) => (Half::Settings, push),
            Change::Topology(push) => (Half::Topology, push),
            Change::Pause(_) | Change::Resume(_) => return Ok(None),
        };
        self.reloader.push(half, push.clone(), dry_run).map(Some)
    }

    /// Holds back the transactions that shall wait.
    fn hold(&self, epoch: u64, id: &str) {
        let state = self.lock();
        if let Some(now) = state.now.as_ref().filter(|now| now.is(epoch, id))
            && let Some(scope) = held(&now.change)
        {
            let runtime = &self.runtime;
            runtime.gates.prepare(Some(scope), || runtime.accounts());
        }
    }

    /// Waits until the transactions have ended that the change holds, then says that it is prepared; `pushed` is what a dry
    /// run said, of whoever made it.
    fn wait(
        &self,
        epoch: u64,
        id: &str,
        mut pushed: Option<Option<Pushed>>,
    ) -> Result<Changed, Refused> {
        loop {
            {
                let mut state = self.lock();
                let Some(now) = state.now.as_mut().filter(|now| now.is(epoch, id)) else {
                    let message = "it was undone: transactions have not ended in time, or somebody else has decided";
                    return Err(Refused::new(RefusedBecause::Busy, message));
                };
                if let Step::Prepared(pushed) = &now.step {
                    return Ok(now.answer(ChangeState::Prepared, pushed.clone()));
                }
                let idle = held(&now.change).is_none_or(|scope| self.is_idle(&scope));
                if idle && let Some(pushed) = pushed.take() {
                    now.step = Step::Prepared(pushed.clone());
                    return Ok(now.answer(ChangeState::Prepared, pushed));
                }
                if Instant::now() >= now.until {
                    self.undo_in(&mut state, "transactions have not ended in time");
                    continue;
                }
            }
            thread::sleep(STEP);
        }
    }

    /// Whether nobody has a server.
    fn is_idle(&self, scope: &Scope) -> bool {
        let accounts = self.runtime.accounts();
        let mut within = accounts.iter().filter(|account| {
            let identity = &account.identity;
            scope.covers(&identity.user, &identity.database)
        });
        within.all(|account| account.pool.figures().active == 0)
    }

    /// Puts the prepared change in force. Blocks: for threads that may.
    ///
    /// # Errors
    ///
    /// When it is not prepared (any more), or can be put in force no longer: nothing changes, and clients go on.
    pub(crate) fn commit(&self, asked: &Decide) -> Result<Changed, Refused> {
        check_id(&asked.id)?;
        let change = {
            let mut state = self.lock();
            if let Some(done) = &state.committed
                && (done.epoch, done.id.as_str()) == (asked.epoch, asked.id.as_str())
            {
                return Ok(done.clone());
            }
            if asked.epoch < state.epoch {
                return Err(stale(asked.epoch, state.epoch));
            }
            let late = |now: &Pending| Instant::now() >= now.until;
            if state
                .now
                .as_ref()
                .is_some_and(|now| late(now) && !matches!(now.step, Step::Committing))
            {
                self.undo_in(&mut state, "its deadline has passed");
            }
            let now = state.now.as_mut();
            let Some(now) = now.filter(|now| now.is(asked.epoch, &asked.id)) else {
                let message = format!(
                    "{:?} is not prepared: it never was, was aborted, or its deadline has passed",
                    asked.id
                );
                return Err(Refused::new(RefusedBecause::WrongState, message));
            };
            if !matches!(now.step, Step::Prepared(_)) {
                let message = format!("{:?} is still being prepared or put in force", asked.id);
                return Err(Refused::new(RefusedBecause::Busy, message));
            }
            now.step = Step::Committing;
            now.change.clone()
        };
        let result = self.put_in_force(&change);
        let mut state = self.lock();
        state.now = None;
        let pushed = result?;
        tracing::info!("committed a change of the fleet, {}", asked.id);
        let done = Changed {
            state: ChangeState::Committed,
            epoch: asked.epoch,
            id: asked.id.clone(),
            pushed,
        };
        state.committed = Some(done.clone());
        Ok(done)
    }

    /// Clients go on when it returns, unless it was a pause.
    fn put_in_force(&self, change: &Change) -> Result<Option<Pushed>, Refused> {
        let runtime = &self.runtime;
        match change {
            Change::Pause(pools) => {
                let accounts = || runtime.accounts();
                runtime.gates.commit_pause(scope(pools), accounts);
                Ok(None)
            }
            Change::Resume(pools) => {
                runtime.gates.resume(&scope(pools), || runtime.accounts());
                Ok(None)
            }
            Change::Settings(_) | Change::Topology(_) => {
                let result = self.push(change, false);
                runtime.gates.prepare(None, || runtime.accounts());
                result
            }
        }
    }

    /// Undoes the prepared change. One that is not known counts as undone: an order that comes twice does no harm.
    ///
    /// # Errors
    ///
    /// When it is in force already, or its epoch is over.
    pub(crate) fn abort(&self, asked: &Decide) -> Result<Changed, Refused> {
        check_id(&asked.id)?;
        {
            let state = self.lock();
            let is = |epoch: u64, id: &str| (epoch, id) == (asked.epoch, asked.id.as_str());
            let committing =
                |now: &Pending| is(now.epoch, &now.id) && matches!(now.step, Step::Committing);
            let done = state.committed.as_ref();
            if done.is_some_and(|done| is(done.epoch, &done.id))
                || state.now.as_ref().is_some_and(committing)
            {
                let message = format!("{:?} is committed: it cannot be undone", asked.id);
                return Err(Refused::new(RefusedBecause::WrongState, message));
            }
            if asked.epoch < state.epoch {
                return Err(stale(asked.epoch, state.epoch));
            }
        }
        self.undo(|now| now.is(asked.epoch, &asked.id), "it was aborted");
        Ok(Changed {
            state: ChangeState::Aborted,
            epoch: asked.epoch,
            id: asked.id.clone(),
            pushed: None,
        })
    }

    fn undo(&self, which: impl FnOnce(&Pending) -> bool, why: &str) {
        let mut state = self.lock();
        if state.now.as_ref().is_some_and(which) {
            self.undo_in(&mut state, why);
        }
    }

    /// Clients go on as before.
    fn undo_in(&self, state: &mut State, why: &str) {
        let Some(now) = state
            .now
            .take_if(|now| !matches!(now.step, Step::Committing))
        else {
            return;
        };
        let runtime = &self.runtime;
        runtime.gates.prepare(None, || runtime.accounts());
        tracing::warn!(
            "a change of the fleet is undone, {} ({}): {why}",
            now.id,
            now.change.kind().as_str()
        );
    }

    /// Keeps deadlines. Never ends; cancel safe.
    pub(crate) async fn keep_deadlines(self: Arc<Self>) {
        loop {
            let until = {
                let state = self.lock();
                let waits = |now: &&Pending| !matches!(now.step, Step::Committing);
                state.now.as_ref().filter(waits).map(|now| now.until)
            };
            let Some(until) = until else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {
                    self.undo(|now| now.until <= Instant::now(), "its deadline has passed");
                    // It may be under way to being in force, which takes no longer for being watched.
                    pgdog_net::timer::sleep(STEP).await;
                }
                () = self.changed.notified() => {}
            }
        }
    }

    /// What is prepared now.
    pub(crate) fn status(&self) -> Option<ChangeStatus> {
        let state = self.lock();
        let now = state.now.as_ref()?;
        Some(ChangeStatus {
            state: match now.step {
                Step::Preparing => ChangeState::Preparing,
                Step::Prepared(_) => ChangeState::Prepared,
                Step::Committing => ChangeState::Committing,
            },
            epoch: now.epoch,
            id: now.id.clone(),
            change: now.change.kind(),
            deadline_at_ms: now.until_ms,
            holds: held(&now.change).is_some(),
        })
    }
}

fn check_id(id: &str) -> Result<(), Refused> {
    if (1..=ID_MAX).contains(&id.chars().count()) {
        return Ok(());
    }
    let message = "id has from 1 to 128 characters";
    Err(Refused::new(RefusedBecause::Malformed, message))
}

fn stale(asked: u64, now: u64) -> Refused {
    let message = format!("epoch {asked} is over, somebody has asked with epoch {now}");
    Refused::new(RefusedBecause::Stale, message)
}
