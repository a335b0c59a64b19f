//! Where query strings may run: parsed once, remembered without their constants.
//!
//! A text is looked up by its fingerprint, which leaves constants, comments and white space out; nothing that decides a route
//! may depend on them. Where it does (an identifier written with `UESCAPE`, a text that does not parse), the text is
//! remembered with its constants, under another key. The fingerprints begin with a secret number, so that nobody can make a
//! text that is taken for another one.
//!
//! Each thread has a small table of its own in front of the shared one: what all workers ask for again and again costs no
//! lock and no write to memory that others read. There a text is looked up by its outline first, which is found much faster.

mod cache;

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cache::{Cache, Entry, Front};

use crate::facts::{Facts, LONGEST};
use crate::fingerprint;
use crate::functions::Functions;
use crate::hints;
use crate::lexer::Lexer;
use crate::route::{Place, Route, Why, is_one};

/// Routes query strings. One is shared by all workers.
#[derive(Debug)]
pub struct Planner {
    /// Where fingerprints begin.
    seed: u64,
    cache: Cache,
    misses: AtomicU64,
    parse_nanoseconds: AtomicU64,
}

/// What has been counted since the planner was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Texts that were known. One that is just being forgotten may be missed: no lock is worth it.
    pub hits: u64,
    /// Texts that had to be parsed.
    pub misses: u64,
    /// How long parsing took, in nanoseconds.
    pub parse_nanoseconds: u64,
}

/// One remembered text, for people to look at.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// The text without its constants, cut when it is long.
    pub text: String,
    /// How often it was asked for, the first time left out.
    pub hits: u64,
    /// How long parsing it took, in nanoseconds.
    pub parse_nanoseconds: u64,
    /// What is known of it.
    pub facts: Arc<Facts>,
}

thread_local! {
    static FRONT: RefCell<Front> = RefCell::new(Front::default());
}

impl Planner {
    /// Remembers up to `limit` texts; with 0, each is parsed anew.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            seed: RandomState::new().build_hasher().finish(),
            cache: Cache::new(limit),
            misses: AtomicU64::new(0),
            parse_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Where this query string may run on a database with these functions.
    #[must_use]
    pub fn route(&self, text: &[u8], functions: &Functions) -> Route {
        if std::str::from_utf8(text).is_err() {
            // Where its constants end is not known either.
            return Route {
                place: Place::Primary,
                why: Why::Encoding,
                hint: hints::hints(text).role,
                begins: None,
                lone: false,
            };
        }
        let outline = fingerprint::outline(text, self.seed);
        // Comments would have left it without an outline.
        let hint = match outline {
            Some(_) => None,
            None => hints::hints(text).role,
        };
        self.with_entry(text, outline, |entry| {
            let (place, why) = entry.place(functions);
            Route {
                place,
                why,
                hint,
                begins: entry.facts.begins(),
                lone: match entry.facts.error() {
                    None => entry.facts.statements().len() <= 1,
                    Some(_) => is_one(text),
                },
            }
        })
    }

    /// All that is known of it.
    #[must_use]
    pub fn facts(&self, text: &[u8]) -> Arc<Facts> {
        let outline = fingerprint::outline(text, self.seed);
        self.with_entry(text, outline, |entry| Arc::clone(&entry.facts))
    }

    /// Remembers up to another number of texts from now on.
    pub fn set_limit(&self, limit: usize) {
        self.cache.set_limit(limit);
    }

    /// Forgets all texts. The counters go on.
    pub fn clear(&self) {
        self.cache.clear();
    }

    /// How many texts are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            hits: self.cache.hits(),
            misses: self.misses.load(Ordering::Relaxed),
            parse_nanoseconds: self.parse_nanoseconds.load(Ordering::Relaxed),
        }
    }

    /// All texts that are remembered, in no order.
    pub fn entries(&self) -> impl Iterator<Item = Remembered> {
        self.cache.entries().into_iter().map(|entry| Remembered {
            text: entry.text.to_string(),
            hits: entry.hits(),
            parse_nanoseconds: entry.parse_nanoseconds,
            facts: Arc::clone(&entry.facts),
        })
    }

    fn with_entry<T>(
        &self,
        text: &[u8],
        outline: Option<u64>,
        answer: impl FnOnce(&Entry) -> T,
    ) -> T {
        FRONT.with_borrow_mut(|front| {
            if let Some(entry) = outline.and_then(|key| front.get(&self.cache, key)) {
                return answer(entry);
            }
            let general = fingerprint::seeded(text, self.seed);
            if let Some(entry) = front.get(&self.cache, general) {
                let Some(key) = outline else {
                    return answer(entry);
                };
                let entry = Arc::clone(entry);
                return answer(front.keep(&self.cache, key, entry));
            }
            // A text that is remembered with its constants is in front under that key.
            let exact = fingerprint::of_bytes(text, self.seed);
            if let Some(entry) = front.get(&self.cache, exact) {
                return answer(entry);
            }
            for key in [general, exact] {
                if let Some(entry) = self.cache.get(key) {
                    return answer(front.put(&self.cache, key, entry));
                }
            }
            let (key, entry) = self.parse(text, general, exact);
            let entry = Arc::new(entry);
            if self.cache.insert(key, &entry) {
                answer(front.keep(&self.cache, key, entry))
            } else {
                answer(&entry)
            }
        })
    }

    fn parse(&self, text: &[u8], general: u64, exact: u64) -> (u64, Entry) {
        let began = Instant::now();
        let facts = Facts::parse(text);
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.parse_nanoseconds.fetch_add(took, Ordering::Relaxed);
        let key = if depends_on_constants(text, &facts) {
            exact
        } else {
            general
        };
        let shown = if text.len() > LONGEST {
            String::from("(too long)")
        } else {
            fingerprint::normalise(text)
        };
        (key, Entry::new(Arc::new(facts), &shown, took))
    }
}

/// Whether another text with the same fingerprint may have another route.
fn depends_on_constants(text: &[u8], facts: &Facts) -> bool {
    // `selec 1` and `select 'a` fail, their like may not. The escape character of U&"…" decides what name it is.
    facts.error().is_some() || Lexer::new(text).any(|token| token.is("uescape"))
}

#[cfg(test)]
mod tests;
