//! Against guessing of passwords: who fails too often waits, and nobody holds many connections that have not logged in.
//!
//! Flow: [`Guard::enter`] when a client connects, [`Guard::failed`] or [`Guard::succeeded`] when its login ends; the answer
//! to a failed login is sent after the delay that `failed` gives.
//!
//! Guarantees: the memory is bounded, and a login takes two short looks under one lock. IPv4 clients count by their address,
//! IPv6 clients by their network of 64 bits, which is what one customer gets.
//!
//! Caveats: clients behind one translated address share its failures, so the delay is for answers to failures only and is
//! never a ban. Whoever has more addresses than are remembered pushes his own failures out of memory.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Addresses whose failures are remembered.
const REMEMBERED: usize = 10_000;

/// What is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Failures of one address that cost nothing.
    pub free: u32,
    /// Delay of the first failure after those, ms; each further one doubles it. 0 switches delays off.
    pub delay: u64,
    /// Longest delay, ms. In each time as long as this without a failure, one is forgotten.
    pub delay_max: u64,
    /// Clients of one address that are logging in at once.
    pub logging_in: Option<u32>,
}

/// How long the answer to a failed login has to wait, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Delay(pub u64);

/// Keeps the books of a process.
#[derive(Debug)]
pub struct Guard {
    books: Mutex<Books>,
}

/// The place of a client that is logging in; dropped when it is logged in or gone.
#[derive(Debug)]
pub struct Place {
    guard: Arc<Guard>,
    from: Origin,
}

/// An IPv4 address, or the upper 64 bits of one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

#[derive(Debug)]
struct Books {
    limits: Limits,
    /// Those who are logging in: never more entries than connections.
    logging_in: HashMap<Origin, u32>,
    failures: HashMap<Origin, Failures>,
    /// The same, oldest first, by the number of their last failure.
    order: BTreeMap<u64, Origin>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// When the last one was, or when the last one was forgotten, ms.
    since: u64,
    number: u64,
}

impl Guard {
    /// Empty books.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            books: Mutex::new(Books {
                limits,
                logging_in: HashMap::new(),
                failures: HashMap::new(),
                order: BTreeMap::new(),
                next: 0,
            }),
        })
    }

    /// Changes the limits; what was written down stays.
    pub fn set_limits(&self, limits: Limits) {
        self.books().limits = limits;
    }

    /// A place for a client that wants to log in; `None` when its address has too many of them.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let from = Origin::of(address);
        self.books().enter(from).then(|| Place {
            guard: self.clone(),
            from,
        })
    }

    /// Writes a failed login down. `now` are milliseconds of a clock that does not go back.
    pub fn failed(&self, address: IpAddr, now: u64) -> Delay {
        self.books().failed(Origin::of(address), now)
    }

    /// Takes one failure back. Not all: else whoever has a password of his own could wipe his guesses out.
    pub fn succeeded(&self, address: IpAddr, now: u64) {
        self.books().succeeded(Origin::of(address), now);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guard.books().leave(self.from);
    }
}

impl Origin {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

impl Books {
    fn enter(&mut self, from: Origin) -> bool {
        let count = self.logging_in.get(&from).copied().unwrap_or(0);
        if self.limits.logging_in.is_some_and(|limit| count >= limit) {
            return false;
        }
        self.logging_in.insert(from, count + 1);
        true
    }

    fn leave(&mut self, from: Origin) {
        if let Some(count) = self.logging_in.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.logging_in.remove(&from);
            }
        }
    }

    fn failed(&mut self, from: Origin, now: u64) -> Delay {
        if self.limits.delay == 0 {
            return Delay::default();
        }
        let before = self.take(from, now);
        if self.failures.len() >= REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.failures.remove(&oldest);
        }
        let count = before
            .map_or(0, |failures| failures.count)
            .saturating_add(1);
        self.put(from, count, now);
        self.delay(count)
    }

    fn succeeded(&mut self, from: Origin, now: u64) {
        if let Some(failures) = self.take(from, now)
            && failures.count > 1
        {
            self.put(from, failures.count - 1, failures.since);
        }
    }

    /// Doubles from failure to failure up to the longest.
    fn delay(&self, count: u32) -> Delay {
        let Some(doublings) = count.checked_sub(self.limits.free.saturating_add(1)) else {
            return Delay::default();
        };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        let delay = self.limits.delay.saturating_mul(factor);
        Delay(delay.min(self.limits.delay_max))
    }

    /// Takes an entry out, without the failures that are forgotten by now.
    fn take(&mut self, from: Origin, now: u64) -> Option<Failures> {
        let mut failures = self.failures.remove(&from)?;
        self.order.remove(&failures.number);
        let time = self.limits.delay_max.max(1);
        let forgotten = now.saturating_sub(failures.since) / time;
        failures.since += forgotten * time;
        // More than free and the doublings up to the longest delay would only take longer to forget.
        let count = u64::from(failures.count.min(self.most())).saturating_sub(forgotten);
        failures.count = u32::try_from(count).unwrap_or(u32::MAX);
        (failures.count > 0).then_some(failures)
    }

    /// The failures that bring about the longest delay.
    fn most(&self) -> u32 {
        let steps = self.limits.delay_max / self.limits.delay.max(1);
        // As many doublings as the quotient has digits in base two.
        let doublings = u64::BITS - steps.leading_zeros();
        self.limits.free.saturating_add(doublings).saturating_add(1)
    }

    fn put(&mut self, from: Origin, count: u32, since: u64) {
        let number = self.next;
        self.next += 1;
        let entry = Failures {
            count,
            since,
            number,
        };
        self.failures.insert(from, entry);
        self.order.insert(number, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        free: 3,
        delay: 100,
        delay_max: 1_000,
        logging_in: Some(2),
    };

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fail(guard: &Guard, address: &str, times: usize, now: u64) -> Vec<u64> {
        (0..times)
            .map(|_| guard.failed(at(address), now).0)
            .collect()
    }

    #[test]
    fn after_the_free_failures_the_delay_doubles_up_to_the_longest() {
        let guard = Guard::new(LIMITS);
        assert_eq!(
            fail(&guard, "1.1.1.1", 9, 5),
            [0, 0, 0, 100, 200, 400, 800, 1_000, 1_000]
        );
        assert_eq!(fail(&guard, "1.1.1.2", 1, 5), [0], "another address");
    }

    #[test]
    fn the_delay_never_overflows() {
        let guard = Guard::new(Limits {
            delay: u64::MAX,
            delay_max: u64::MAX,
            ..LIMITS
        });
        assert_eq!(fail(&guard, "1.1.1.1", 200, 5)[199], u64::MAX);
        let guard = Guard::new(Limits {
            free: u32::MAX,
            ..LIMITS
        });
        assert_eq!(fail(&guard, "1.1.1.1", 9, 5), [0; 9]);
        let guard = Guard::new(Limits {
            delay_max: 0,
            ..LIMITS
        });
        assert_eq!(fail(&guard, "1.1.1.1", 9, u64::MAX), [0; 9]);
    }

    #[test]
    fn without_a_delay_nothing_is_written_down() {
        let guard = Guard::new(Limits { delay: 0, ..LIMITS });
        assert_eq!(fail(&guard, "1.1.1.1", 9, 5), [0; 9]);
        assert!(guard.books().failures.is_empty());
    }

    #[test]
    fn failures_are_forgotten_one_by_one() {
        let guard = Guard::new(LIMITS);
        assert_eq!(fail(&guard, "1.1.1.1", 5, 0).last(), Some(&200));
        assert_eq!(fail(&guard, "1.1.1.1", 1, 999), [400]);
        // Six are written down; after two times of the longest delay there are four, and this one.
        assert_eq!(fail(&guard, "1.1.1.1", 1, 2_999), [200]);
        assert_eq!(fail(&guard, "1.1.1.1", 1, 100_000), [0]);
        assert_eq!(guard.books().failures[&Origin::of(at("1.1.1.1"))].count, 1);
    }

    #[test]
    fn a_long_attack_is_forgotten_as_soon_as_a_short_one() {
        let guard = Guard::new(LIMITS);
        fail(&guard, "1.1.1.1", 1_000, 0);
        assert_eq!(fail(&guard, "1.1.1.1", 1, 9_000), [0]);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_forgets_nothing() {
        let guard = Guard::new(LIMITS);
        fail(&guard, "1.1.1.1", 4, 5_000);
        assert_eq!(fail(&guard, "1.1.1.1", 1, 4_000), [200]);
    }

    #[test]
    fn a_login_that_succeeds_takes_one_failure_back() {
        let guard = Guard::new(LIMITS);
        fail(&guard, "1.1.1.1", 4, 0);
        guard.succeeded(at("1.1.1.1"), 0);
        assert_eq!(fail(&guard, "1.1.1.1", 1, 0), [100]);
        guard.succeeded(at("2.2.2.2"), 0);
        fail(&guard, "3.3.3.3", 1, 0);
        guard.succeeded(at("3.3.3.3"), 0);
        assert_eq!(guard.books().failures.len(), 1);
        assert_eq!(guard.books().order.len(), 1);
    }

    #[test]
    fn clients_of_ipv6_count_by_their_network() {
        let guard = Guard::new(LIMITS);
        fail(&guard, "2001:db8:0:1::1", 3, 0);
        assert_eq!(fail(&guard, "2001:db8:0:1:ffff::9", 1, 0), [100]);
        assert_eq!(fail(&guard, "2001:db8:0:2::1", 1, 0), [0]);
        fail(&guard, "10.0.0.1", 3, 0);
        assert_eq!(
            fail(&guard, "::ffff:10.0.0.1", 1, 0),
            [100],
            "the same client on a socket of both families"
        );
    }

    #[test]
    fn the_address_that_failed_longest_ago_is_forgotten_first() {
        let guard = Guard::new(LIMITS);
        let address = |number: u32| IpAddr::V4(number.into());
        for number in 0..REMEMBERED as u32 {
            guard.failed(address(number), 0);
        }
        // The first is now the last, so the second has to go.
        guard.failed(address(0), 0);
        guard.failed(address(u32::MAX), 0);
        let books = guard.books();
        assert_eq!(
            (books.failures.len(), books.order.len()),
            (REMEMBERED, REMEMBERED)
        );
        assert!(books.failures.contains_key(&Origin(address(0))));
        assert!(!books.failures.contains_key(&Origin(address(1))));
    }

    #[test]
    fn an_address_has_so_many_clients_that_are_logging_in() {
        let guard = Guard::new(LIMITS);
        let first = guard.enter(at("1.1.1.1")).unwrap();
        let second = guard.enter(at("1.1.1.1"));
        assert!(second.is_some());
        assert!(guard.enter(at("1.1.1.1")).is_none());
        assert!(guard.enter(at("1.1.1.2")).is_some(), "another address");
        drop(first);
        assert!(guard.enter(at("1.1.1.1")).is_some());
        drop(second);
        assert!(guard.books().logging_in.is_empty());
    }

    #[test]
    fn new_limits_hold_for_those_who_come_later() {
        let guard = Guard::new(Limits {
            logging_in: None,
            ..LIMITS
        });
        let places: Vec<_> = (0..5).map(|_| guard.enter(at("1.1.1.1"))).collect();
        assert!(places.iter().all(Option::is_some));
        guard.set_limits(LIMITS);
        assert!(guard.enter(at("1.1.1.1")).is_none());
        drop(places);
        assert!(guard.enter(at("1.1.1.1")).is_some());
    }
}
