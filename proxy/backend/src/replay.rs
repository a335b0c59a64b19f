//! Which moments a replica has replayed: positions of the primary with the times at which they were read.

use std::collections::VecDeque;

/// How many are kept: a replica that is further behind has no credit before it has caught up.
const KEPT: usize = 512;
/// Bytes of a page of the log, and of the header that most of them begin with.
const PAGE: u64 = 8192;
const HEADER: u64 = 24;

/// One position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Coarse time before the primary was asked, ms.
    at: u64,
    lsn: u64,
}

/// Positions of the primary, in order.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    all: VecDeque<Sample>,
    timeline: u32,
}

impl Samples {
    /// Forgets all: another primary has another history.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
    }

    /// Adds a position that was read after the time `at`.
    pub(crate) fn add(&mut self, at: u64, lsn: u64, timeline: u32) {
        let lsn = end_of_record(lsn);
        if timeline != self.timeline || self.all.back().is_some_and(|last| lsn < last.lsn) {
            self.clear();
            self.timeline = timeline;
        }
        match self.all.back_mut() {
            // Of one position the latest time says most.
            Some(last) if last.lsn == lsn => last.at = last.at.max(at),
            _ => {
                if self.all.len() == KEPT {
                    self.all.pop_front();
                }
                self.all.push_back(Sample { at, lsn });
            }
        }
    }

    /// The latest time such that everything before it has been replayed up to `lsn`.
    pub(crate) fn replayed(&self, lsn: u64, timeline: u32) -> Option<u64> {
        if timeline != self.timeline {
            return None;
        }
        let found = self.all.iter().rev().find(|s| s.lsn <= lsn);
        found.map(|sample| sample.at)
    }

    /// How far `lsn` is behind the primary, bytes.
    pub(crate) fn behind(&self, lsn: u64) -> Option<u64> {
        self.all.back().map(|last| last.lsn.saturating_sub(lsn))
    }
}

/// Where the next record will be inserted is behind a page's header when the last one has filled the page before. A replica
/// stands at the page's start then, until there is more to replay.
fn end_of_record(lsn: u64) -> u64 {
    if lsn % PAGE == HEADER {
        lsn - HEADER
    } else {
        lsn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_timeline_has_another_history() {
        let mut samples = Samples::default();
        samples.add(10, 100, 1);
        assert_eq!(
            (samples.replayed(100, 1), samples.behind(90)),
            (Some(10), Some(10))
        );
        assert_eq!(samples.replayed(100, 2), None);
        samples.add(20, 100, 2);
        assert_eq!(
            (samples.replayed(100, 1), samples.replayed(100, 2)),
            (None, Some(20))
        );
    }

    #[test]
    fn a_replica_at_the_end_of_a_page_has_replayed_it() {
        let mut samples = Samples::default();
        samples.add(10, 3 * PAGE + HEADER, 1);
        assert_eq!(samples.replayed(3 * PAGE, 1), Some(10));
        assert_eq!(samples.behind(3 * PAGE), Some(0));
        samples.add(20, 3 * PAGE + 2 * HEADER, 1);
        assert_eq!(samples.replayed(3 * PAGE, 1), Some(10));
    }

    proptest! {
        /// A primary that writes, and now and then is asked; a replica is asked, too. Whatever it is said to have replayed,
        /// it has.
        #[test]
        fn nothing_is_said_to_be_replayed_that_is_not(steps in prop::collection::vec((0u8..4, 1u64..60), 1..1500)) {
            let mut samples = Samples::default();
            let (mut time, mut lsn, mut replica) = (1u64, 1u64, 1u64);
            let mut written: Vec<(u64, u64)> = Vec::new();
            for (what, amount) in steps {
                match what {
                    0 => time += amount,
                    1 => {
                        lsn += amount * 8;
                        written.push((time, lsn));
                    }
                    2 => samples.add(time, lsn, 1),
                    _ => replica = lsn.min(replica + amount * 4),
                }
                if let Some(until) = samples.replayed(replica, 1) {
                    for (at, end) in &written {
                        // The question of a client that wrote at `at`: `until > at`.
                        prop_assert!(until <= *at || replica >= *end, "{until} {at} {end} {replica}");
                    }
                }
            }
            samples.add(time, lsn, 1);
            prop_assert_eq!(samples.replayed(lsn, 1), Some(time));
        }
    }
}
