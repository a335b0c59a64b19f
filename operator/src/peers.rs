//! Which proxies are told to each other, so that a cancel request that the Service hands to another one reaches its query.
//!
//! A fleet that starts has another peer each moment, and each makes another topology for all: the larger it is, the longer it
//! is waited for more of them.

use std::time::{Duration, Instant};

use crate::render::topology::Peer;

/// So long for each peer there is.
const EACH: Duration = Duration::from_millis(2);

/// The peers as they were told last.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    told: Vec<Peer>,
    at: Option<Instant>,
    /// There are others, which are told at that time.
    due: Option<Instant>,
}

impl Peers {
    /// The peers to tell now, of those that there are.
    pub fn tell(&mut self, there: Vec<Peer>, now: Instant) -> &[Peer] {
        let wait = EACH * u32::try_from(there.len()).unwrap_or(u32::MAX);
        self.due = match self.at.map(|at| at + wait) {
            _ if there == self.told => None,
            Some(due) if due > now => Some(due),
            _ => {
                self.told = there;
                self.at = Some(now);
                None
            }
        };
        &self.told
    }

    /// How long until those that have come since are to be told.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: usize) -> Vec<Peer> {
        let peer = |number| Peer {
            pod_uid: format!("pod-{number}"),
            address: "10.0.0.1".to_owned(),
            port: 6432,
        };
        (0..count).map(peer).collect()
    }

    #[test]
    fn the_first_are_told_at_once_and_those_that_follow_together() {
        let (mut known, begun) = (Peers::default(), Instant::now());
        assert_eq!(known.tell(peers(1), begun), peers(1));
        assert_eq!(known.left(begun), None);
        for count in 2..=500 {
            assert_eq!(known.tell(peers(count), begun), peers(1));
        }
        let left = known.left(begun).expect("some are to be told");
        assert_eq!(left, EACH * 500);
        assert_eq!(known.tell(peers(500), begun + left), peers(500));
        assert_eq!(known.left(begun + left), None);
    }

    #[test]
    fn what_is_taken_back_meanwhile_is_never_told() {
        let (mut known, begun) = (Peers::default(), Instant::now());
        known.tell(peers(2), begun);
        known.tell(peers(3), begun);
        assert_eq!(known.tell(peers(2), begun), peers(2));
        assert_eq!(known.left(begun), None);
    }
}
