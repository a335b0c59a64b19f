//! Texts by their keys: a shared table in parts, each with its lock, and a small one per thread in front of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::facts::{Culprit, Facts};
use crate::functions::{Functions, Verdict};
use crate::route::{Place, Why};

/// Parts of the shared table, when it is not small.
const PARTS: usize = 16;

/// Places in a thread's own table.
const FRONT: usize = 512;

/// What is kept of a text for people to look at.
const SHOWN: usize = 1000;

/// A text that is remembered.
pub(super) struct Entry {
    pub(super) facts: Arc<Facts>,
    pub(super) text: Box<str>,
    pub(super) parse_nanoseconds: u64,
    /// The last answer about its functions: the [`Functions`] it was for in the upper half, then an answer. 0: none yet.
    answered: AtomicU64,
    /// It has been taken out of the table: threads that still have it let it go.
    gone: AtomicBool,
    hits: Hits,
}

/// Hits, counted by each thread for itself.
#[derive(Default)]
struct Hits {
    counters: Mutex<Vec<Arc<AtomicU64>>>,
    /// Those of counters that are no longer used.
    before: AtomicU64,
}

impl Hits {
    fn sum(&self) -> u64 {
        let counters = lock(&self.counters);
        let now: u64 = counters.iter().map(|c| c.load(Ordering::Relaxed)).sum();
        now + self.before.load(Ordering::Relaxed)
    }

    fn counter(&self) -> Arc<AtomicU64> {
        let counter = Arc::default();
        lock(&self.counters).push(Arc::clone(&counter));
        counter
    }

    fn ends(&self, counter: &Arc<AtomicU64>) {
        let mut counters = lock(&self.counters);
        if let Some(at) = counters.iter().position(|c| Arc::ptr_eq(c, counter)) {
            counters.swap_remove(at);
            let counted = counter.load(Ordering::Relaxed);
            self.before.fetch_add(counted, Ordering::Relaxed);
        }
    }
}

/// What was guarded is whole after a panic as well: counters and finished entries.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.text).finish()
    }
}

impl Entry {
    pub(super) fn new(facts: Arc<Facts>, text: &str, parse_nanoseconds: u64) -> Self {
        let shown = text.floor_char_boundary(SHOWN);
        Self {
            facts,
            text: text[..shown].into(),
            parse_nanoseconds,
            answered: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            hits: Hits::default(),
        }
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.sum()
    }

    /// The facts' answer, remembered for one [`Functions`] at a time.
    #[inline]
    pub(super) fn place(&self, functions: &Functions) -> (Place, Why) {
        let otherwise = self.facts.without_functions();
        if !self.facts.asks(functions) {
            return otherwise;
        }
        let answered = self.answered.load(Ordering::Relaxed);
        let why = if answered >> 32 == u64::from(functions.id()) {
            ANSWERS[(answered & 15) as usize]
        } else {
            let why = self.facts.culprit(functions).map(Culprit::why);
            let at = ANSWERS.iter().position(|a| *a == why).unwrap_or(0);
            let answer = u64::from(functions.id()) << 32 | at as u64;
            self.answered.store(answer, Ordering::Relaxed);
            why
        };
        why.map_or(otherwise, |why| (Place::Primary, why))
    }
}

/// By their numbers in [`Entry::answered`]. What has none would count as the first.
const ANSWERS: [Option<Why>; 16] = {
    let mut answers = [Some(Why::Calls(Verdict::Unknown)); 16];
    answers[1] = None;
    answers[2] = Some(Why::Calls(Verdict::Volatile));
    answers[3] = Some(Why::Calls(Verdict::Bound));
    answers[4] = Some(Why::Calls(Verdict::Configured));
    answers[5] = Some(Why::Reaches(Verdict::Unknown));
    answers[6] = Some(Why::Reaches(Verdict::Volatile));
    answers[7] = Some(Why::Reaches(Verdict::Bound));
    answers[8] = Some(Why::Reaches(Verdict::Configured));
    answers
};

/// The shared table.
pub(super) struct Cache {
    /// Tells it from other tables, of which a thread may have entries as well.
    id: u64,
    parts: Vec<Mutex<Part>>,
    /// Hits of entries that are gone.
    hits_of_gone: AtomicU64,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("len", &self.len()).finish()
    }
}

struct Part {
    limit: usize,
    entries: HashMap<u64, Arc<Entry>>,
    /// The keys in a ring, with the hits their entries had when the hand last passed.
    ring: Vec<(u64, u64)>,
    hand: usize,
}

impl Cache {
    pub(super) fn new(limit: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Small parts would be full long before the whole is.
        let parts = if limit < PARTS * PARTS { 1 } else { PARTS };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            parts: (0..parts)
                .map(|at| Mutex::new(Part::new(share(limit, at, parts))))
                .collect(),
            hits_of_gone: AtomicU64::new(0),
        }
    }

    /// A part that has more than its share of the new limit forgets all.
    pub(super) fn set_limit(&self, limit: usize) {
        for (at, part) in self.parts.iter().enumerate() {
            let mut part = lock(part);
            part.limit = share(limit, at, self.parts.len());
            if part.ring.len() > part.limit {
                self.forget_all(&mut part);
            }
        }
    }

    fn part(&self, key: u64) -> MutexGuard<'_, Part> {
        lock(&self.parts[(key >> 60) as usize % self.parts.len()])
    }

    pub(super) fn get(&self, key: u64) -> Option<Arc<Entry>> {
        self.part(key).entries.get(&key).cloned()
    }

    /// Whether there was a place for it.
    pub(super) fn insert(&self, key: u64, entry: &Arc<Entry>) -> bool {
        let mut part = self.part(key);
        if part.limit == 0 {
            return false;
        }
        // Another thread may have parsed it meanwhile.
        let replaced = part.entries.insert(key, Arc::clone(entry));
        if replaced.is_none() {
            if part.ring.len() < part.limit {
                part.ring.push((key, 0));
            } else if let Some(gone) = part.evict(key) {
                self.forget(&gone);
            }
        }
        if let Some(gone) = replaced {
            self.forget(&gone);
        }
        true
    }

    fn forget(&self, entry: &Entry) {
        entry.gone.store(true, Ordering::Relaxed);
        self.hits_of_gone.fetch_add(entry.hits(), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        for part in &self.parts {
            self.forget_all(&mut lock(part));
        }
    }

    fn forget_all(&self, part: &mut Part) {
        part.ring.clear();
        part.hand = 0;
        for (_, entry) in part.entries.drain() {
            self.forget(&entry);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|p| lock(p).entries.len()).sum()
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        let all = |part: &Mutex<Part>| lock(part).entries.values().cloned().collect::<Vec<_>>();
        self.parts.iter().flat_map(all).collect()
    }

    pub(super) fn hits(&self) -> u64 {
        let remembered: u64 = self.entries().iter().map(|entry| entry.hits()).sum();
        remembered + self.hits_of_gone.load(Ordering::Relaxed)
    }
}

/// What one part may have, so that together it is exactly as many as asked for.
fn share(limit: usize, at: usize, parts: usize) -> usize {
    limit / parts + usize::from(at < limit % parts)
}

impl Part {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: HashMap::new(),
            ring: Vec::new(),
            hand: 0,
        }
    }

    /// Gives the place of an entry to this key: of the first that nobody has asked for since the hand came by.
    fn evict(&mut self, key: u64) -> Option<Arc<Entry>> {
        // All may have been asked for: then the first of them goes, on the second round.
        for _ in 0..=self.ring.len() {
            let hand = self.hand;
            self.hand = (hand + 1) % self.ring.len();
            let (old, seen) = self.ring[hand];
            let hits = self.entries.get(&old).map_or(0, |entry| entry.hits());
            if hits == seen {
                self.ring[hand] = (key, 0);
                return self.entries.remove(&old);
            }
            self.ring[hand].1 = hits;
        }
        let (old, _) = std::mem::replace(&mut self.ring[self.hand], (key, 0));
        self.entries.remove(&old)
    }
}

/// A thread's own table: each key has one place in it.
pub(super) struct Front {
    slots: Vec<Option<Slot>>,
}

struct Slot {
    cache: u64,
    key: u64,
    entry: Arc<Entry>,
    hits: Arc<AtomicU64>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.entry.hits.ends(&self.hits);
    }
}

impl Default for Front {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(|| None).take(FRONT).collect(),
        }
    }
}

impl Front {
    /// The entry, and counts a hit.
    #[inline]
    pub(super) fn get(&self, cache: &Cache, key: u64) -> Option<&Arc<Entry>> {
        let slot = self.slots[key as usize % FRONT].as_ref()?;
        if slot.key != key || slot.cache != cache.id || slot.entry.gone.load(Ordering::Relaxed) {
            return None;
        }
        // No other thread writes it.
        let hits = slot.hits.load(Ordering::Relaxed);
        slot.hits.store(hits + 1, Ordering::Relaxed);
        Some(&slot.entry)
    }

    /// Takes an entry of the shared table, and counts a hit.
    pub(super) fn put(&mut self, cache: &Cache, key: u64, entry: Arc<Entry>) -> &Entry {
        self.slot(cache, key, entry, 1)
    }

    /// Takes an entry that is new, or under another key as well.
    pub(super) fn keep(&mut self, cache: &Cache, key: u64, entry: Arc<Entry>) -> &Entry {
        self.slot(cache, key, entry, 0)
    }

    fn slot(&mut self, cache: &Cache, key: u64, entry: Arc<Entry>, hits: u64) -> &Entry {
        let counter = entry.hits.counter();
        counter.store(hits, Ordering::Relaxed);
        let slot = Slot {
            cache: cache.id,
            key,
            entry,
            hits: counter,
        };
        &self.slots[key as usize % FRONT].insert(slot).entry
    }
}
