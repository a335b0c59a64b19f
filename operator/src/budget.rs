//! How the server connections that a Postgres host may have are divided among the proxies. Pure.
//!
//! What holds at every moment: the sum of what proxies may have open, with what is kept aside, is no more than the budget. So a
//! share grows only by what others have given back and acknowledged, and what is not known counts as the most that it can be.
//! A proxy that starts may have the small share that stands in its file, before anybody has seen it.

use std::collections::BTreeMap;

use pgdog_operator_api::{Budget, Distribution};

/// Part of the budget for proxies that are about to start, where nothing is said, per cent.
const RESERVE: u32 = 10;

/// What a proxy may have, in the order of how much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// So many at most, whatever became of what it was told last.
    AtMost(u32),
    /// Nobody has told it anything yet: any number.
    Unknown,
}

/// A proxy as far as its share goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Uid of its pod.
    pub pod: String,
    /// What it may have now.
    pub bound: Bound,
    /// What it was told last, if anything.
    pub told: Option<u32>,
    /// Connections that it has to the host it uses most, and clients that wait for one.
    pub demand: u32,
    /// Whether it is on its way out: it keeps what it has until it is gone.
    pub leaving: bool,
}

/// How many proxies there are to be, where it is the operator who makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fleet {
    /// So many.
    pub proxies: u32,
    /// So many more while they are replaced.
    pub surge: u32,
    /// For so many there has to be room before any is replaced; none where they go before others come.
    pub replacing: u32,
}

/// How much there is to divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Server connections to one host, over all.
    pub total: u32,
    /// How they are divided.
    pub distribution: Distribution,
    /// What a proxy may have that has just started.
    pub start: u32,
    /// What is kept for those that start while nobody looks.
    pub aside: u32,
    /// Connections to each host by which each proxy looks how the host is, beside its share.
    pub checks: u32,
    /// Over how many proxies it is to go.
    pub fleet: Fleet,
}

impl Terms {
    /// Of a budget over at most so many proxies that run at once, each of so many databases.
    #[must_use]
    pub fn of(budget: &Budget, proxies: u32, databases: u32) -> Self {
        let total = u32::try_from(budget.max_server_connections).unwrap_or(1);
        let percent = budget.reserve_percent.and_then(|p| u32::try_from(p).ok());
        let proxies = proxies.max(1);
        let start = match percent {
            // Nobody opens anything before the operator has seen it.
            Some(0) => 0,
            percent => (total * percent.unwrap_or(RESERVE).min(50) / 100 / proxies).max(1),
        };
        let kept = |start: u32| proxies.saturating_mul(start + databases);
        // Where that took most of it, those that start get theirs from the operator alone.
        let (start, aside) = if kept(start) <= total / 2 {
            (start, kept(start))
        } else {
            let half = total / 2;
            // A part of what one has that starts would be of use to nobody.
            (0, kept(0).min(half - half % databases.max(1)))
        };
        Self {
            total,
            distribution: budget.distribution,
            start,
            aside,
            checks: databases,
            fleet: Fleet::default(),
        }
    }

    /// What a proxy has before it is given anything.
    fn each(&self) -> u32 {
        (self.start + self.checks).max(1)
    }

    /// Whether proxies with these bounds leave what is kept, with their connections to look after the hosts.
    #[must_use]
    pub fn fits(&self, bounds: impl IntoIterator<Item = Bound>) -> bool {
        let sum = bounds
            .into_iter()
            .try_fold(self.aside, |sum, bound| match bound {
                Bound::AtMost(bound) => sum.checked_add(bound)?.checked_add(self.checks),
                Bound::Unknown => None,
            });
        sum.is_some_and(|sum| sum <= self.total)
    }

    /// How many proxies there may be with so many now and room for so many more: further ones start only with what the others
    /// have given back. One that is to be replaced while there are more is counted on, but not before there is any.
    #[must_use]
    pub fn most(&self, now: u32, room: u32) -> u32 {
        let more = room.saturating_sub(self.fleet.surge);
        match now {
            0 => more.max(room.min(1)),
            _ => now.saturating_add(more),
        }
    }

    /// Why there are fewer proxies than there are to be, or none is ever replaced, whatever becomes of those that run now.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        let Fleet {
            proxies,
            surge,
            replacing,
        } = self.fleet;
        let most = self.most(0, self.total / self.each());
        if most < proxies {
            return Some(format!(
                "pooling.budget.maxServerConnections {} is not enough for {proxies} proxies and {surge} more while they are \
                 replaced: each has {} before it is given any, one of them for looking after each database; so there are {most}: \
                 raise it, or ask for fewer replicas, fewer databases or a smaller strategy.maxSurge",
                self.total,
                self.each(),
            ));
        }
        // When all have given back what they have too much.
        let checks = proxies.saturating_mul(self.checks);
        let room = self.aside.min(self.total.saturating_sub(checks)) / self.each();
        (room < replacing).then(|| {
            format!(
                "pooling.budget.maxServerConnections {} is not enough to replace any of {proxies} proxies: beside them there is room \
                 for {room} with {} before they are given any, one of them for looking after each database, and it has to be for \
                 {replacing}; so a change of the pods waits: raise it, ask for fewer databases, or set strategy.type to Recreate",
                self.total,
                self.each(),
            )
        })
    }

    /// What is there to divide among so many.
    fn divisible(&self, members: usize) -> u32 {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        self.total
            .saturating_sub(self.aside)
            .saturating_sub(members.saturating_mul(self.checks))
    }
}

/// What each proxy is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    /// What it may have from now on, by uid of its pod; nothing for those that are on their way out.
    pub grants: BTreeMap<String, u32>,
    /// Where it is to come, when others have given back what they have too much.
    pub targets: BTreeMap<String, u32>,
    /// Why there is less than everybody needs.
    pub shortage: Option<String>,
}

impl Shares {
    /// Whether everybody has what it is to have.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.grants == self.targets
    }
}

/// Divides. `former` are the targets of before: they stay where nothing asks for others.
#[must_use]
pub fn divide(terms: &Terms, members: &[Member], former: &BTreeMap<String, u32>) -> Shares {
    let divisible = terms.divisible(members.len());
    let staying: Vec<_> = members.iter().filter(|member| !member.leaving).collect();
    let of_leaving: u32 = members
        .iter()
        .filter(|member| member.leaving)
        .map(|member| match member.bound {
            Bound::AtMost(bound) => bound,
            // From before there was a budget: nothing can be done about it, and nobody grows meanwhile.
            Bound::Unknown => 0,
        })
        .fold(0, u32::saturating_add);
    let targets = targets(terms, &staying, divisible.saturating_sub(of_leaving));
    let targets = match settles(former, &targets) {
        true => former.clone(),
        false => targets,
    };
    let mut free = free(divisible, members);
    let mut unsaid = unsaid(divisible, members);
    let mut grants = BTreeMap::new();
    for member in &staying {
        let target = targets.get(&member.pod).copied().unwrap_or_default();
        let grant = match member.bound {
            // Whatever it has: less than any number. But it may have little, and shall not get what others still have.
            Bound::Unknown => member.told.unwrap_or_else(|| {
                let grant = target.min(unsaid);
                unsaid -= grant;
                grant
            }),
            Bound::AtMost(bound) if target <= bound => target,
            Bound::AtMost(bound) => {
                let more = (target - bound).min(free);
                free -= more;
                bound + more
            }
        };
        grants.insert(member.pod.clone(), grant);
    }
    let least = targets.values().copied().min();
    let shortage = (least == Some(0)).then(|| {
        format!(
            "pooling.budget.maxServerConnections {} is not enough for {} proxies: {} stay beside those that look after the hosts \
             ({} for each proxy) and those that are kept for proxies that start ({}); some proxies have none, and their clients wait",
            terms.total,
            members.len(),
            divisible,
            terms.checks,
            terms.aside,
        )
    });
    Shares {
        grants,
        targets,
        shortage,
    }
}

/// What nobody can have now.
fn free(divisible: u32, members: &[Member]) -> u32 {
    let mut free = divisible;
    for member in members {
        match member.bound {
            Bound::Unknown => return 0,
            Bound::AtMost(bound) => free = free.saturating_sub(bound),
        }
    }
    free
}

/// What those can be told that may have any number and were told nothing yet. Who was told something is told nothing else before
/// it has acknowledged that: it may have either meanwhile.
fn unsaid(divisible: u32, members: &[Member]) -> u32 {
    members.iter().fold(divisible, |left, member| {
        left.saturating_sub(match member.bound {
            Bound::Unknown => member.told.unwrap_or_default(),
            Bound::AtMost(bound) => bound,
        })
    })
}

/// Whether the former targets may stay: they are for the same proxies, as many in all, and nobody's is far off.
fn settles(former: &BTreeMap<String, u32>, targets: &BTreeMap<String, u32>) -> bool {
    former.len() == targets.len()
        && former.values().sum::<u32>() == targets.values().sum::<u32>()
        && targets.iter().all(|(pod, target)| {
            former.get(pod).is_some_and(|before| {
                before.abs_diff(*target) <= (before / 5).max(1) && (*before == 0) == (*target == 0)
            })
        })
}

/// Where each is to come.
fn targets(terms: &Terms, staying: &[&Member], divisible: u32) -> BTreeMap<String, u32> {
    let count = u32::try_from(staying.len()).unwrap_or(u32::MAX).max(1);
    let equal = divisible / count;
    let sure = match terms.distribution {
        Distribution::Equal => equal,
        // The other half goes where it is needed; who has nothing to do today may have a rush in a moment.
        Distribution::Demand => equal.div_ceil(2),
    };
    let rest = divisible - sure * count;
    let needs: Vec<u32> = staying
        .iter()
        .map(|member| match terms.distribution {
            Distribution::Equal => 0,
            // A little more than it has, so that it can be seen to need more.
            Distribution::Demand => {
                (member.demand.saturating_add(member.demand / 4 + 1)).saturating_sub(sure)
            }
        })
        .collect();
    let needed: u32 = needs.iter().copied().fold(0, u32::saturating_add);
    let mut given: Vec<u32> = needs
        .iter()
        .map(|need| match needed > rest {
            true => {
                let part = u64::from(rest) * u64::from(*need) / u64::from(needed.max(1));
                u32::try_from(part).unwrap_or(rest)
            }
            false => *need,
        })
        .collect();
    // What nobody needs is everybody's.
    let over = rest - given.iter().sum::<u32>();
    let (each, odd) = (over / count, over % count);
    for (index, given) in given.iter_mut().enumerate() {
        *given += each + u32::from(index < odd as usize);
    }
    staying
        .iter()
        .zip(given)
        .map(|(member, given)| (member.pod.clone(), sure + given))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};

    fn terms(total: u32, distribution: Distribution) -> Terms {
        Terms {
            total,
            distribution,
            start: 1,
            aside: 8,
            checks: 1,
            fleet: Fleet::default(),
        }
    }

    fn member(pod: &str, bound: u32, demand: u32) -> Member {
        Member {
            pod: pod.to_owned(),
            bound: Bound::AtMost(bound),
            told: None,
            demand,
            leaving: false,
        }
    }

    fn grants(shares: &Shares) -> Vec<u32> {
        shares.grants.values().copied().collect()
    }

    #[test]
    fn without_a_reserve_who_starts_opens_nothing_of_its_own_accord() {
        let of = |percent: Option<i32>| {
            let budget = Budget {
                max_server_connections: 60,
                reserve_percent: percent,
                distribution: Distribution::Demand,
            };
            Terms::of(&budget, 4, 1).start
        };
        assert_eq!((of(Some(0)), of(Some(1)), of(None)), (0, 1, 1));
    }

    fn equal(members: &[Member]) -> Shares {
        divide(&terms(60, Distribution::Equal), members, &BTreeMap::new())
    }

    #[test]
    fn a_newcomer_gets_its_share_when_the_others_have_given_it_back() {
        let two = equal(&[member("a", 25, 0), member("b", 25, 0)]);
        assert_eq!(grants(&two), [25, 25]);
        let three = equal(&[member("a", 25, 0), member("b", 25, 0), member("c", 1, 0)]);
        assert_eq!(three.targets.values().sum::<u32>(), 60 - 8 - 3);
        assert_eq!(
            grants(&three),
            [17, 16, 1],
            "those that have too much are first"
        );
        assert!(!three.is_settled());
        let half = equal(&[member("a", 17, 0), member("b", 25, 0), member("c", 1, 0)]);
        assert_eq!(grants(&half), [17, 16, 7], "what one has given back");
        let all = equal(&[member("a", 17, 0), member("b", 16, 0), member("c", 7, 0)]);
        assert_eq!(grants(&all), [17, 16, 16]);
        assert!(all.is_settled());
    }

    #[test]
    fn who_leaves_keeps_what_it_has_until_it_is_gone() {
        let mut leaving = member("a", 25, 0);
        leaving.leaving = true;
        let shares = equal(&[leaving, member("b", 25, 0)]);
        assert_eq!(shares.grants.get("a"), None);
        assert_eq!(shares.grants["b"], 25);
        assert_eq!(grants(&equal(&[member("b", 25, 0)])), [51]);
    }

    #[test]
    fn nobody_grows_while_one_may_have_any_number() {
        let mut unknown = member("a", 0, 0);
        unknown.bound = Bound::Unknown;
        let shares = equal(&[unknown, member("b", 5, 0)]);
        assert_eq!(grants(&shares), [25, 5]);
    }

    #[test]
    fn who_may_have_any_number_gets_nothing_that_others_still_have() {
        let unknown = |pod: &str, told| Member {
            bound: Bound::Unknown,
            told,
            ..member(pod, 0, 0)
        };
        // It has run before anybody saw it, and may have the little that it started with.
        let mut leaving = member("a", 25, 0);
        leaving.leaving = true;
        let shares = equal(&[leaving, member("b", 20, 0), unknown("c", None)]);
        assert_eq!(shares.targets["c"], 12);
        assert_eq!(grants(&shares), [12, 4], "49 are there for three");
        // What it was told stays until it has said that it has it.
        let shares = equal(&[member("b", 20, 0), unknown("c", Some(4))]);
        assert_eq!(grants(&shares), [20, 4]);
        assert_eq!(
            grants(&equal(&[unknown("b", None), unknown("c", None)])),
            [25, 25]
        );
    }

    #[test]
    fn shares_follow_the_demand_and_half_of_an_equal_one_is_sure() {
        let terms = terms(60, Distribution::Demand);
        let of = |demands: [u32; 2]| {
            let members = [member("a", 25, demands[0]), member("b", 25, demands[1])];
            let shares = divide(&terms, &members, &BTreeMap::new());
            shares.targets.values().copied().collect::<Vec<_>>()
        };
        assert_eq!(of([0, 0]), [25, 25]);
        assert_eq!(of([100, 0]), [37, 13]);
        assert_eq!(of([100, 100]), [25, 25]);
        assert_eq!(
            of([0, 20]),
            [19, 31],
            "a little more than it needs, the rest is everybody's"
        );
    }

    #[test]
    fn small_changes_of_demand_move_nothing() {
        let terms = terms(60, Distribution::Demand);
        let members = |demand| [member("a", 25, demand), member("b", 25, 10)];
        let first = divide(&terms, &members(10), &BTreeMap::new());
        let second = divide(&terms, &members(14), &first.targets);
        assert_eq!(first.targets, second.targets);
        let third = divide(&terms, &members(40), &first.targets);
        assert_ne!(first.targets, third.targets);
    }

    #[test]
    fn a_budget_too_small_is_told() {
        let budget = Budget {
            max_server_connections: 6,
            reserve_percent: None,
            distribution: Distribution::Equal,
        };
        let terms = Terms::of(&budget, 4, 1);
        assert_eq!(terms.start, 0, "nothing is given that is not there");
        let members: Vec<_> = ["a", "b", "c"].map(|pod| member(pod, 0, 0)).into();
        let shares = divide(&terms, &members, &BTreeMap::new());
        assert!(
            shares
                .shortage
                .unwrap()
                .contains("maxServerConnections 6 is not enough for 3 proxies")
        );
    }

    #[test]
    fn what_is_kept_is_of_use_to_those_that_start_or_to_the_others() {
        let aside = |total: i32| {
            let budget = Budget {
                max_server_connections: total,
                reserve_percent: None,
                distribution: Distribution::Equal,
            };
            Terms::of(&budget, 2, 12).aside
        };
        assert_eq!([20, 30, 40, 60].map(aside), [0, 12, 12, 30]);
    }

    /// A proxy as it really is: what it was told arrives later, or never.
    struct Real {
        pod: String,
        limit: u32,
        open: u32,
        told: Option<u32>,
        leaving: bool,
    }

    /// What the operator knows of it.
    struct Known {
        bound: Bound,
        granted: Option<u32>,
    }

    /// Proxies come, are told, answer, answer not, use what they may, leave slowly; the sum is looked at after each step.
    #[test]
    fn the_budget_holds_at_every_moment() {
        for seed in 0..300 {
            let mut random = StdRng::seed_from_u64(seed);
            let distribution = if seed % 2 == 0 {
                Distribution::Demand
            } else {
                Distribution::Equal
            };
            let budget = Budget {
                max_server_connections: random.random_range(10..200),
                reserve_percent: None,
                distribution,
            };
            let most = random.random_range(1..8_u32);
            let terms = Terms::of(&budget, most, 1);
            let mut real: Vec<Real> = Vec::new();
            let mut known: BTreeMap<String, Known> = BTreeMap::new();
            let mut former = BTreeMap::new();
            for step in 0..300 {
                live(&mut random, &mut real, &terms, most, step);
                let open: u32 = real.iter().map(|proxy| proxy.open + terms.checks).sum();
                assert!(
                    open <= terms.total,
                    "seed {seed}, step {step}: {open} of {}",
                    terms.total
                );
                if random.random_bool(0.7) {
                    former = operate(&mut random, &terms, &mut real, &mut known, &former);
                }
            }
        }
    }

    fn live(random: &mut StdRng, real: &mut Vec<Real>, terms: &Terms, most: u32, step: u32) {
        let running = real.iter().filter(|proxy| !proxy.leaving).count();
        match random.next_u32() % 6 {
            // One at a time, as far as nobody has seen it: more have their place as long as `most` are not there.
            0 if running < most as usize && real.len() < most as usize => real.push(Real {
                pod: format!("pod-{step}"),
                limit: terms.start,
                open: 0,
                told: None,
                leaving: false,
            }),
            1 if running > 1 => {
                let one = random.random_range(0..real.len());
                real[one].leaving = true;
            }
            2 => real.retain(|proxy| !proxy.leaving),
            _ => {}
        }
        for proxy in real {
            if random.random_bool(0.5)
                && let Some(told) = proxy.told.take()
            {
                proxy.limit = told;
            }
            match random.random_bool(0.5) {
                true => proxy.open = proxy.open.max(proxy.limit),
                false => proxy.open = proxy.open.saturating_sub(random.random_range(0..4)),
            }
        }
    }

    fn operate(
        random: &mut StdRng,
        terms: &Terms,
        real: &mut [Real],
        known: &mut BTreeMap<String, Known>,
        former: &BTreeMap<String, u32>,
    ) -> BTreeMap<String, u32> {
        known.retain(|pod, _| real.iter().any(|proxy| proxy.pod == *pod));
        let mut members = Vec::new();
        for proxy in real.iter() {
            let known = known.entry(proxy.pod.clone()).or_insert(Known {
                // Nobody looked when it started.
                bound: match random.random_bool(0.1) {
                    true => Bound::Unknown,
                    false => Bound::AtMost(terms.start),
                },
                granted: None,
            });
            // It has acknowledged, and has no more than that.
            if let Some(granted) = known.granted
                && proxy.limit == granted
                && proxy.told.is_none()
                && proxy.open <= granted
            {
                known.bound = Bound::AtMost(granted);
            }
            members.push(Member {
                pod: proxy.pod.clone(),
                bound: known.bound,
                told: known.granted,
                demand: proxy.open,
                leaving: proxy.leaving,
            });
        }
        let shares = divide(terms, &members, former);
        for (pod, grant) in &shares.grants {
            let Some(known) = known.get_mut(pod) else {
                continue;
            };
            known.bound = known.bound.max(Bound::AtMost(*grant));
            if known.granted != Some(*grant) {
                known.granted = Some(*grant);
                if let Some(proxy) = real.iter_mut().find(|proxy| proxy.pod == *pod) {
                    proxy.told = Some(*grant);
                }
            }
        }
        shares.targets
    }
}
