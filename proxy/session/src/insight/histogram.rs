//! Times in buckets that grow with the time: a quantile is off by a share of it, however long it is.

/// Parts of each doubling. Four make a bucket a quarter wider than its beginning; its middle is then 12.5 % off at most.
const PARTS: usize = 4;
const PART_BITS: u32 = PARTS.trailing_zeros();

/// As many as make the last one begin above an hour. 64 would do for a quarter of a second only.
const BUCKETS: usize = 128;

/// Counts of times, in µs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: [u32; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
        }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn add(&mut self, value: u64) {
        let count = &mut self.counts[bucket(value)];
        *count = count.saturating_add(1);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
    }

    /// The time that this share of all did not exceed: the middle of the bucket it fell into. Zero when nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let total: u64 = self.counts.iter().copied().map(u64::from).sum();
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                let (low, width) = (low(index), low(index + 1) - low(index));
                return low + (width - 1) / 2;
            }
        }
        0
    }

    /// Where each bucket ends (µs, exclusive) and what it holds; the last one holds everything longer as well.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u32)> {
        let ends = (1..=BUCKETS).map(low);
        ends.zip(self.counts)
    }
}

/// The bucket of a value: its highest bit and the two behind it.
#[inline]
fn bucket(value: u64) -> usize {
    if value < PARTS as u64 {
        return value as usize;
    }
    let doubling = value.ilog2() - PART_BITS;
    let part = (value >> doubling) as usize - PARTS;
    ((doubling as usize + 1) * PARTS + part).min(BUCKETS - 1)
}

/// Where a bucket begins.
fn low(index: usize) -> u64 {
    if index < PARTS {
        return index as u64;
    }
    let doubling = index / PARTS - 1;
    ((PARTS + index % PARTS) as u64) << doubling
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, low};

    #[test]
    fn buckets_join_without_a_gap() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(low(index)), index);
            if index > 0 {
                assert_eq!(bucket(low(index) - 1), index - 1);
            }
        }
        assert!(low(BUCKETS - 1) > 3_600_000_000, "an hour has its bucket");
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_quantile_is_off_by_an_eighth_at_most() {
        let mut value = 1_u64;
        while value < 3_600_000_000 {
            let mut times = Histogram::default();
            times.add(value);
            let told = times.quantile(0.5);
            assert!(
                told.abs_diff(value) as f64 <= value as f64 * 0.125,
                "{value}: {told}"
            );
            value += (value / 37).max(1);
        }
    }

    #[test]
    fn quantiles_of_many_values_are_where_they_should_be() {
        let mut times = Histogram::default();
        (1..=100_000).for_each(|value| times.add(value));
        for (share, exact) in [(0.5, 50_000.0), (0.9, 90_000.0), (0.99, 99_000.0)] {
            let told = times.quantile(share) as f64;
            assert!((told - exact).abs() <= exact * 0.125, "{share}: {told}");
        }
        assert_eq!(times.quantile(0.0), 1);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    #[test]
    fn merging_is_counting_together() {
        let (mut one, mut other, mut both) = (
            Histogram::default(),
            Histogram::default(),
            Histogram::default(),
        );
        for value in [0, 3, 17, 1000, 1_000_000] {
            one.add(value);
            other.add(value * 3);
            both.add(value);
            both.add(value * 3);
        }
        one.merge(&other);
        assert_eq!(one, both);
        assert_eq!(one.buckets().map(|(_, count)| count).sum::<u32>(), 10);
    }
}
