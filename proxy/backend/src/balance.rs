//! Choosing one host among several: pure, without locks and without allocation.

use std::sync::atomic::{AtomicU64, Ordering};

use pgdog_config::LoadBalancingStrategy;

use crate::host::WHOLE;

/// A step that spreads the turns evenly over the range of a `u64`: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hosts, as indexes below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostSet(u64);

impl HostSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// Adds one; those above 63 are no hosts that could be chosen.
    #[inline]
    pub fn add(&mut self, index: usize) {
        if index < 64 {
            self.0 |= 1 << index;
        }
    }

    /// The same without one.
    #[inline]
    #[must_use]
    pub fn without(self, index: usize) -> Self {
        Self(self.0 & !(1u64.checked_shl(index as u32).unwrap_or(0)))
    }

    /// Whether one is in it.
    #[must_use]
    pub fn has(self, index: usize) -> bool {
        self.0 & 1u64.checked_shl(index as u32).unwrap_or(0) != 0
    }

    /// Whether none is in it.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[inline]
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The one with `n` others before it.
    #[inline]
    fn nth(self, n: u32) -> usize {
        let mut bits = self.0;
        for _ in 0..n {
            bits &= bits.wrapping_sub(1);
        }
        bits.trailing_zeros() as usize
    }

    /// All, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let index = (bits != 0).then(|| bits.trailing_zeros() as usize);
            bits &= bits.wrapping_sub(1);
            index
        })
    }

    /// Those that pass; all of them where none does.
    #[inline]
    fn prefer(self, good: impl Fn(usize) -> bool) -> Self {
        let mut best = Self::EMPTY;
        self.iter().filter(|i| good(*i)).for_each(|i| best.add(i));
        if best.is_empty() { self } else { best }
    }
}

impl FromIterator<usize> for HostSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indexes: I) -> Self {
        let mut set = Self::EMPTY;
        indexes.into_iter().for_each(|i| set.add(i));
        set
    }
}

/// One host as a choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Its share; 0 is nothing while there are others.
    pub weight: u8,
    /// Servers on loan.
    pub active: u32,
    /// Its latency, µs; 0 where it is not known.
    pub latency: u32,
    /// How much of its share it gets, up to [`WHOLE`]: less while it starts slowly.
    pub share: u32,
    /// Whether it is in the zone of the proxy.
    pub near: bool,
}

/// Whose turn it is. Shared by all that choose; each choice takes one step.
#[derive(Debug)]
pub struct Turns(AtomicU64);

impl Default for Turns {
    /// Somewhere, so that many that begin at once do not all begin with the same host.
    fn default() -> Self {
        Self(AtomicU64::new(rand::random()))
    }
}

impl Turns {
    /// Begins at a number.
    #[must_use]
    pub fn from(number: u64) -> Self {
        Self(AtomicU64::new(number))
    }

    #[inline]
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Chooses one of `among`; `None` only where that is empty. Hosts with a weight of 0 are left out while there are others,
/// then those of other zones.
#[inline]
pub fn choose(
    strategy: LoadBalancingStrategy,
    among: HostSet,
    view: impl Fn(usize) -> View,
    turns: &Turns,
) -> Option<usize> {
    let among = among.prefer(|i| view(i).weight > 0);
    let mut among = among.prefer(|i| view(i).near);
    match among.len() {
        0 => return None,
        1 => return Some(among.nth(0)),
        _ => {}
    }
    let turn = turns.next();
    let mut dice = Dice(turn.wrapping_mul(STEP));
    Some(match strategy {
        LoadBalancingStrategy::LeastActiveConnections => least_active(among, view, &mut dice),
        LoadBalancingStrategy::WeightedRoundRobin => by_weight(among, view, turn),
        LoadBalancingStrategy::LeastLatency => two_choices(among, view, &mut dice),
        LoadBalancingStrategy::Random | LoadBalancingStrategy::RoundRobin => loop {
            let count = among.len();
            let position = match strategy {
                LoadBalancingStrategy::Random => dice.below(count),
                _ => (turn % u64::from(count)) as u32,
            };
            let index = among.nth(position);
            // Who starts slowly passes most of its turns on.
            let share = view(index).share;
            if count == 1 || share >= WHOLE || dice.below(WHOLE) < share {
                break index;
            }
            among = among.without(index);
        },
    })
}

/// The one with the fewest servers on loan; of several such, one by chance.
fn least_active(among: HostSet, view: impl Fn(usize) -> View, dice: &mut Dice) -> usize {
    let (mut best, mut least, mut equals) = (among.nth(0), u64::MAX, 0);
    for index in among.iter() {
        let view = view(index);
        let load = u64::from(view.active + 1) * u64::from(WHOLE) / u64::from(view.share.max(1));
        match load.cmp(&least) {
            std::cmp::Ordering::Less => (best, least, equals) = (index, load, 1),
            std::cmp::Ordering::Equal => {
                equals += 1;
                if dice.below(equals) == 0 {
                    best = index;
                }
            }
            std::cmp::Ordering::Greater => {}
        }
    }
    best
}

/// In proportion to the weights. The turns are spread evenly (by the golden ratio) over a line on which each host has a piece
/// of its weight's length: that is as smooth as keeping accounts for each host, and needs one counter for all.
fn by_weight(among: HostSet, view: impl Fn(usize) -> View, turn: u64) -> usize {
    let weight = |index: usize| {
        let view = view(index);
        // Of a set without weights each has the same.
        u64::from(view.weight.max(1)) * u64::from(view.share.max(1))
    };
    let total: u64 = among.iter().map(weight).sum();
    let place = turn.wrapping_mul(STEP) >> 32;
    let mut left = (place * total) >> 32;
    for index in among.iter() {
        let weight = weight(index);
        if left < weight {
            return index;
        }
        left -= weight;
    }
    among.nth(0)
}

/// The better one of two taken by chance: by servers on loan times latency. To look at all and take the best one would send
/// everybody to the same host until its figures have changed.
fn two_choices(among: HostSet, view: impl Fn(usize) -> View, dice: &mut Dice) -> usize {
    let first = among.nth(dice.below(among.len()));
    let rest = among.without(first);
    let second = rest.nth(dice.below(rest.len()));
    let (a, b) = (view(first), view(second));
    let cost = |own: View, other: View| {
        // Nothing is known of a new host: it is as fast as the other one.
        let latency = [own.latency, other.latency, 1];
        let latency = latency.into_iter().find(|l| *l > 0).unwrap_or(1);
        u128::from(own.active + 1) * u128::from(latency) * u128::from(WHOLE)
            / u128::from(own.share.max(1))
    };
    if cost(a, b) <= cost(b, a) {
        first
    } else {
        second
    }
}

/// Chance enough for spreading load: the mixing step of splitmix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (((z >> 32) * u64::from(limit)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests;
