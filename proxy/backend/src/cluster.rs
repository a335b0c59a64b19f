//! One account's pools over the hosts of its database, and which of them a client gets.

use std::future::Future;
use std::sync::Arc;

use pgdog_config::ReadWriteSplit;

use crate::balance::{HostSet, Turns, View, choose};
use crate::database::{DatabaseState, NoPrimary, Writer};
use crate::host::{HostState, Role};
use crate::pool::Pool;

/// A pool and the host that it is to.
#[derive(Debug, Clone)]
pub struct Member {
    /// The account's connections to the host.
    pub pool: Arc<Pool>,
    /// What is known of the host.
    pub host: Arc<HostState>,
}

/// The pools of one account.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    database: Arc<DatabaseState>,
    turns: Turns,
}

/// What a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadNeed {
    /// Whether only a replica may answer it, whatever `read_write_split` says.
    pub replica_only: bool,
    /// Coarse time of the end of a write that it has to see, ms of the pools' clock.
    pub after: Option<u64>,
}

impl Cluster {
    /// Over these pools, in the order of the hosts. There is at least one.
    #[must_use]
    pub fn new(members: Vec<Member>, database: Arc<DatabaseState>) -> Arc<Self> {
        let many = members.len() > 1;
        for member in &members {
            member.pool.attach(&member.host, many);
            if member.host.join(&member.pool) && many {
                // Now there is a login to watch it with.
                database.alarm();
            }
        }
        Arc::new(Self {
            members,
            database,
            turns: Turns::default(),
        })
    }

    /// The pools.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// What is known of the hosts together.
    #[must_use]
    pub fn database(&self) -> &Arc<DatabaseState> {
        &self.database
    }

    /// Whether there is one host, so that nothing has to be chosen.
    #[inline]
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.members.len() == 1
    }

    /// The host that takes writes. Bans do not count here.
    ///
    /// # Errors
    ///
    /// Why there is none. [`NoPrimary::Unknown`] may pass: see [`Cluster::changed`].
    #[inline]
    pub fn for_write(&self) -> Result<usize, NoPrimary> {
        if self.is_single() {
            return Ok(0);
        }
        match self.database.writer() {
            Writer::Host(id) => self.position(id).ok_or(NoPrimary::Unknown),
            Writer::None(why) => Err(why),
        }
    }

    /// A host for a read: one that may answer it by `read_write_split`, is not banned, and has replayed what the client has
    /// written, chosen by `load_balancing_strategy`. Where all such hosts are banned, none is, but for those that lag and
    /// those that an administrator has banned. `None`: nobody may answer it, or not yet.
    #[inline]
    #[must_use]
    pub fn for_read(&self, need: ReadNeed) -> Option<usize> {
        if self.is_single() {
            return Some(0);
        }
        let (mut free, mut yielding) = (HostSet::EMPTY, HostSet::EMPTY);
        let (mut dead, mut banned) = (HostSet::EMPTY, false);
        for (index, member) in self.members.iter().enumerate() {
            let host = &member.host;
            if host.role() != Role::Replica {
                continue;
            }
            let ban = host.ban();
            banned |= ban.is_some();
            if need.after.is_some_and(|ms| !host.has_replayed_since(ms))
                || self.database.may_be_late(host)
            {
                continue;
            }
            match ban {
                None => free.add(index),
                Some(ban) if ban.reason.yields() && host.is_healthy() => yielding.add(index),
                Some(ban) if ban.reason.yields() => dead.add(index),
                Some(_) => {}
            }
        }
        if !need.replica_only
            && let Ok(primary) = self.for_write()
        {
            let split = self.database.split();
            let joins = match split {
                ReadWriteSplit::IncludePrimary | ReadWriteSplit::PreferPrimary => true,
                ReadWriteSplit::ExcludePrimary => false,
                // Without a replica that could answer, none is left that is not banned.
                ReadWriteSplit::IncludePrimaryIfReplicaBanned => banned || free.is_empty(),
            };
            match self.members[primary].host.ban() {
                _ if !joins => {}
                None if split == ReadWriteSplit::PreferPrimary => return Some(primary),
                None => free.add(primary),
                Some(ban) if ban.reason.yields() && self.members[primary].host.is_healthy() => {
                    yielding.add(primary);
                }
                Some(ban) if ban.reason.yields() => dead.add(primary),
                Some(_) => {}
            }
        }
        // Whoever answers his checks comes before who does not.
        let sets = [free, yielding, dead];
        let among = sets.into_iter().find(|set| !set.is_empty());
        let among = among.unwrap_or(HostSet::EMPTY);
        let strategy = self.database.strategy();
        choose(strategy, among, |i| self.view(i), &self.turns)
    }

    /// A replica for a read that has to see the client's own write, as soon as one has replayed it. Never ends while none
    /// has: the caller bounds it. Cancel safe.
    pub async fn replayed(&self, need: ReadNeed) -> usize {
        let need = ReadNeed {
            replica_only: true,
            ..need
        };
        loop {
            let changed = self.changed();
            if let Some(index) = self.for_read(need) {
                return index;
            }
            self.database.hurry();
            changed.await;
        }
    }

    /// Resolves with the next change of roles or bans after this call: call it, then look, then wait. Wakes its task from
    /// any thread, and needs no timer. Cancel safe.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.database.changes();
        async move {
            if changes.changed().await.is_err() {
                // Nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    fn position(&self, id: u32) -> Option<usize> {
        self.members.iter().position(|m| m.host.id == id)
    }

    #[inline]
    fn view(&self, index: usize) -> View {
        let host = &self.members[index].host;
        View {
            weight: host.weight(),
            active: host.active(),
            latency: host.latency(),
            share: host.share(),
            near: host.is_near(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
