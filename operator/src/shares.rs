//! The budget of one cluster over time: what each proxy may have, what it was told, and what of that stands in the status, so
//! that another leader knows it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use pgdog_config::documents;
use pgdog_operator_api::{ConditionType, Mode, PgDogCluster, UpdateType};
use serde_json::{Map, Value, json};

use crate::budget::{Bound, Fleet, Member, Shares, Terms, divide};
use crate::fleet::{Document, Share};
use crate::render::children::Hold;
use crate::status::Finding;
use crate::world::is_leaving;

/// Sidecars that are thought to start at once, at least: nobody says how many there will be.
const SIDECARS: u32 = 4;

/// For so long a pod may be given the file that its proxies started with before: a kubelet looks about once a minute.
const LATE: Duration = Duration::from_secs(3 * 60);

/// What each proxy may have, and what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    proxies: BTreeMap<String, Entry>,
    targets: BTreeMap<String, u32>,
    /// The highest revision so far.
    revision: u64,
    /// What stands in the file that proxies start with, `None` where that is any number, and when it was last known to stand
    /// there: the last one is that of now.
    starts: Vec<(Option<u32>, Instant)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    bound: Bound,
    /// What it was told last, and in which revision.
    told: Option<(Option<u32>, u64)>,
}

/// A pod as far as the budget goes.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// How it stands to what it was told.
    pub share: Share,
    /// What it needs.
    pub demand: u32,
    /// Whether its container has not run yet: it will start with what stands in its file.
    pub starts: bool,
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How much there is.
    pub terms: Terms,
    /// Who is to have how much.
    pub shares: Shares,
    /// Whether everybody has acknowledged, and nobody may have more than that.
    pub held: bool,
    /// How many more proxies may start with what nobody can have; nothing where that is not known.
    pub room: Option<u32>,
    /// Whether pods of another template wait until others have given something back.
    pub crowded: bool,
    /// Whether what all may have, also those on their way out, is divisible on these terms: as long as it is not, no further
    /// database may come, for each proxy looks after its hosts with one connection more.
    pub fits: bool,
}

/// How much there is to divide, where the cluster has a budget. `now` is how many sidecars there are, `databases` how many
/// databases a proxy may have: those of before too, until all have acknowledged that they are fewer.
#[must_use]
pub fn terms(cluster: &PgDogCluster, now: usize, databases: usize) -> Option<Terms> {
    let spec = &cluster.spec;
    let budget = spec.pooling.as_ref()?.budget.as_ref()?;
    let databases = u32::try_from(databases).unwrap_or(u32::MAX);
    let proxies = match spec.mode {
        Mode::Deployment => {
            let most = spec.autoscaling.as_ref().map(|to| to.max_replicas);
            let most = u32::try_from(most.or(spec.replicas).unwrap_or(2)).unwrap_or_default();
            most.saturating_add(surge(cluster, most))
        }
        // In a rollout there are twice as many.
        Mode::Sidecar => u32::try_from(now).unwrap_or(u32::MAX).max(SIDECARS),
    };
    Some(Terms {
        fleet: fleet(cluster),
        ..Terms::of(budget, proxies, databases)
    })
}

/// How far pods are held back with so many now; nothing where it is not known what they have.
#[must_use]
pub fn hold(now: usize, standing: &Standing) -> Option<Hold> {
    let now = u32::try_from(now).unwrap_or(u32::MAX);
    Some(Hold {
        most: i32::try_from(standing.terms.most(now, standing.room?)).ok()?,
        paused: standing.crowded,
    })
}

/// How many proxies the operator makes. Nobody says how many sidecars there are to be.
fn fleet(cluster: &PgDogCluster) -> Fleet {
    if cluster.spec.mode == Mode::Sidecar {
        return Fleet::default();
    }
    let strategy = cluster.spec.strategy.clone().unwrap_or_default();
    let proxies = u32::try_from(cluster.spec.replicas.unwrap_or(2)).unwrap_or_default();
    let surge = surge(cluster, proxies);
    // Those that are missing leave slowly, and others come at once for them.
    let missing = hundredths(strategy.max_unavailable.as_ref(), 0, proxies) / 100;
    let at_once = surge.saturating_add(missing).max(1);
    Fleet {
        proxies,
        surge,
        replacing: match strategy.kind {
            UpdateType::Recreate => 0,
            // One more, for a pod that is lost meanwhile; but all at once are all that come.
            UpdateType::RollingUpdate => at_once.saturating_add(1).min(proxies + surge),
        },
    }
}

/// How many more there are while pods are replaced.
fn surge(cluster: &PgDogCluster, replicas: u32) -> u32 {
    let strategy = cluster.spec.strategy.clone().unwrap_or_default();
    match strategy.kind {
        UpdateType::Recreate => 0,
        UpdateType::RollingUpdate => {
            hundredths(strategy.max_surge.as_ref(), 1, replicas).div_ceil(100)
        }
    }
}

/// A number of pods or a part of these replicas, times a hundred.
fn hundredths(pods: Option<&IntOrString>, default: u32, replicas: u32) -> u32 {
    match pods {
        None => default.saturating_mul(100),
        Some(IntOrString::Int(count)) => u32::try_from(*count)
            .unwrap_or_default()
            .saturating_mul(100),
        Some(IntOrString::String(text)) => {
            let percent = text.trim_end_matches('%').parse::<u32>().unwrap_or(25);
            replicas.saturating_mul(percent)
        }
    }
}

impl Ledger {
    /// What was written down by a former leader, by name of pod. Where it has written nothing of those that there are, there was
    /// no budget.
    #[must_use]
    pub fn recall(written: &BTreeMap<String, i32>, pods: &[&Pod]) -> Self {
        let mut ledger = Self::default();
        if written.is_empty() && !pods.is_empty() {
            ledger.starts.push((None, Instant::now()));
        }
        for pod in pods {
            let bound = written.get(&pod.name_any()).copied();
            let bound = bound.and_then(|bound| u32::try_from(bound).ok());
            if let (Some(uid), Some(bound)) = (pod.uid(), bound) {
                let entry = Entry {
                    bound: Bound::AtMost(bound),
                    told: None,
                };
                ledger.proxies.insert(uid, entry);
            }
        }
        ledger
    }

    /// Divides the budget among these pods; also those that are on their way out have something. Without a budget those that
    /// had a share are told that there is no limit any more. What proxies start with from now on is that of these terms.
    pub fn settle(
        &mut self,
        terms: Option<&Terms>,
        seen: &[Seen<'_>],
        now: Instant,
    ) -> Option<Standing> {
        let start = self.starts_with(terms.map(|terms| terms.start), now);
        let uid = |seen: &Seen<'_>| seen.pod.uid().unwrap_or_default();
        self.proxies
            .retain(|pod, _| seen.iter().any(|seen| uid(seen) == *pod));
        let Some(terms) = terms else {
            self.lift(seen);
            return None;
        };
        let mut members = Vec::new();
        for seen in seen {
            let entry = self.proxies.entry(uid(seen)).or_insert(Entry {
                bound: match seen.starts {
                    true => start,
                    false => Bound::Unknown,
                },
                told: None,
            });
            if seen.starts {
                // Its file is read when it runs, and may be a later one than when it was first seen.
                entry.bound = entry.bound.max(start);
            }
            // It has no more than that, and opens no more.
            if let Some((Some(limit), revision)) = entry.told
                && seen.share == Share::Held(revision)
            {
                entry.bound = Bound::AtMost(limit);
            }
            members.push(Member {
                pod: uid(seen),
                bound: entry.bound,
                told: entry.told.and_then(|(told, _)| told),
                demand: seen.demand,
                leaving: is_leaving(seen.pod),
            });
        }
        let shares = divide(terms, &members, &self.targets);
        let mut held = shares.is_settled();
        for (pod, grant) in &shares.grants {
            let Some(entry) = self.proxies.get_mut(pod) else {
                continue;
            };
            if entry.told.is_none_or(|(told, _)| told != Some(*grant)) {
                entry.told = Some((Some(*grant), next(&mut self.revision)));
            }
            entry.bound = match entry.bound {
                // From now on it may have got it, whatever it says.
                Bound::AtMost(bound) => Bound::AtMost(bound.max(*grant)),
                Bound::Unknown => Bound::Unknown,
            };
            held &= entry.bound == Bound::AtMost(*grant);
        }
        self.targets.clone_from(&shares.targets);
        let room = self.room(terms, &members);
        // Where there is no pod there is nothing to wait for, and a Deployment that never made one makes none while it is paused.
        let crowded = !members.is_empty() && room.is_some_and(|room| room < terms.fleet.replacing);
        Some(Standing {
            terms: *terms,
            shares,
            held,
            room,
            crowded,
            fits: terms.fits(self.proxies.values().map(|entry| entry.bound)),
        })
    }

    /// How many more may start with what nobody can have: nothing is said of it while a proxy has any number.
    fn room(&self, terms: &Terms, members: &[Member]) -> Option<u32> {
        let mut free = terms.total;
        for member in members {
            match self.proxies.get(&member.pod)?.bound {
                Bound::Unknown => return None,
                Bound::AtMost(bound) => {
                    free = free.saturating_sub(bound).saturating_sub(terms.checks);
                }
            }
        }
        let start = match self.highest_start() {
            Bound::AtMost(start) => start,
            // Those that come are seen to have any number: then nothing is said of it.
            Bound::Unknown => terms.start,
        };
        Some(free / (start + terms.checks).max(1))
    }

    /// Notes what stands in the file that proxies start with, and tells what one may have that starts now.
    fn starts_with(&mut self, start: Option<u32>, now: Instant) -> Bound {
        if let Some((_, until)) = self.starts.last_mut() {
            *until = now;
        }
        self.starts
            .retain(|(former, until)| *former != start && now.duration_since(*until) < LATE);
        self.starts.push((start, now));
        self.highest_start()
    }

    /// The most of what stands in the file that proxies start with, or has stood there a short while ago.
    fn highest_start(&self) -> Bound {
        let starts = self.starts.iter();
        starts
            .map(|(start, _)| start.map_or(Bound::Unknown, Bound::AtMost))
            .max()
            .unwrap_or(Bound::Unknown)
    }

    /// There is no budget any more.
    fn lift(&mut self, seen: &[Seen<'_>]) {
        self.targets.clear();
        for seen in seen {
            let pod = seen.pod.uid().unwrap_or_default();
            let Some(entry) = self.proxies.get_mut(&pod) else {
                continue;
            };
            match entry.told {
                Some((None, revision)) if seen.share == Share::Held(revision) => {
                    self.proxies.remove(&pod);
                }
                Some((None, _)) => {}
                _ => {
                    entry.told = Some((None, next(&mut self.revision)));
                    // From now on it may have got it: any number, also where the budget comes back before it has answered.
                    entry.bound = Bound::Unknown;
                }
            }
        }
    }

    /// What a proxy is to be told.
    #[must_use]
    pub fn document(&self, pod: &str, epoch: u64) -> Option<Arc<Document>> {
        let (limit, revision) = self.proxies.get(pod)?.told?;
        let config = Map::from_iter([("default".to_owned(), json!(limit))]);
        let sha256 = documents::sha256(&Value::Object(config.clone()));
        Some(Arc::new(Document::new(epoch, revision, sha256, config)))
    }

    /// The most that each may have, by name of pod: written down before it is told.
    #[must_use]
    pub fn written(&self, seen: &[Seen<'_>]) -> BTreeMap<String, i32> {
        seen.iter()
            .filter_map(|seen| {
                let entry = self.proxies.get(&seen.pod.uid()?)?;
                match entry.bound {
                    Bound::AtMost(bound) => Some((seen.pod.name_any(), i32::try_from(bound).ok()?)),
                    Bound::Unknown => None,
                }
            })
            .collect()
    }
}

/// Another one, higher than any that a former leader of this epoch may have used.
fn next(revision: &mut u64) -> u64 {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    *revision = (*revision + 1).max(now);
    *revision
}

/// How the budget stands, for people.
#[must_use]
pub fn finding(standing: &Standing) -> Finding {
    let kind = ConditionType::BudgetHeld;
    let Standing {
        terms,
        shares,
        held,
        room: _,
        crowded,
        fits,
    } = standing;
    // The first one says what can be done.
    let shortage = terms.shortage().or_else(|| shares.shortage.clone());
    let (reason, mut told) = match (shortage, held) {
        (Some(shortage), _) => ("BudgetTooSmall", shortage),
        (None, true) => ("Held", divided(terms, shares)),
        (None, false) => (
            "Dividing",
            format!("{}; not all have their share yet", divided(terms, shares)),
        ),
    };
    if *crowded {
        told.push_str(
            "; a change of the pods waits until others have given back what they have too much",
        );
    }
    if !fits {
        told.push_str("; settings with another database wait until the shares leave room for it");
    }
    Finding::new(kind, reason == "Held", reason, told)
}

/// How much goes where.
fn divided(terms: &Terms, shares: &Shares) -> String {
    format!(
        "{} server connections to each host over {} proxies: {} in shares, {} for looking after the hosts, {} kept for proxies that start",
        terms.total,
        shares.targets.len(),
        shares.targets.values().sum::<u32>(),
        u32::try_from(shares.targets.len()).unwrap_or_default() * terms.checks,
        terms.aside,
    )
}
