//! Prepared statements: one name for each text, on whatever server, for whatever client.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What the names of our statements on servers begin with.
pub const PREFIX: &str = "__pgdog_";

/// Identifies a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatementId {
    number: NonZeroU32,
    /// The number of the store's statement that it is, or stands for.
    original: NonZeroU32,
}

impl StatementId {
    /// The id with this number.
    ///
    /// # Panics
    ///
    /// When `number` is zero.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        let number = NonZeroU32::new(number).expect("ids begin at one");
        Self {
            number,
            original: number,
        }
    }

    /// The number in the statement's name.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number.get()
    }

    /// The statement's name on servers.
    fn name(self) -> Box<[u8]> {
        format!("{PREFIX}{}", self.number).into_bytes().into()
    }

    /// The statement of the store that it stands for, when it was made instead of that; itself, else.
    #[must_use]
    pub fn original(self) -> Self {
        Self {
            number: self.original,
            original: self.original,
        }
    }
}

impl Hash for StatementId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// What texts have in common that differ in their constants only.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number that stands for it.
    pub fingerprint: u64,
    /// The text without its constants, for people.
    pub text: Arc<str>,
}

/// A statement as clients gave it.
#[derive(Debug)]
pub struct Statement {
    /// Its id.
    pub id: StatementId,
    /// Its name on servers.
    pub name: Box<[u8]>,
    /// The query text. Of one that SQL's PREPARE makes, the whole PREPARE without its name.
    pub text: Box<[u8]>,
    /// Where the name belongs in the text, when SQL's PREPARE makes it.
    pub name_at: Option<usize>,
    /// Parameter types as on the wire (a count and OIDs).
    pub types: Box<[u8]>,
    /// What executing it may change, as bits of `sql::Effects`.
    pub effects: u16,
    /// What its text is without constants, once somebody has asked.
    pub shape: OnceLock<Arc<Shape>>,
    /// Where its text may run, once somebody has asked: a number in the caller's terms; 0 is no answer.
    pub place: AtomicU64,
}

impl Statement {
    /// The PREPARE that makes it under this name, written as an identifier; `None` when a Parse makes it.
    #[must_use]
    pub fn prepare_as(&self, name: &[u8]) -> Option<Vec<u8>> {
        let (before, after) = self.text.split_at_checked(self.name_at?)?;
        Some([before, name, after].concat())
    }

    /// Its name on servers as an identifier, which may stand next to anything.
    #[must_use]
    pub fn identifier(&self) -> Vec<u8> {
        [b"\"", &*self.name, b"\""].concat()
    }
}

/// What makes two clients' statements the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    text: Box<[u8]>,
    types: Box<[u8]>,
    /// As in [`Statement::name_at`]: a PREPARE is never the same as a Parse.
    name_at: Option<usize>,
    /// The search path it was prepared under, when the client has set one: names mean other things elsewhere.
    scope: Option<Box<str>>,
}

/// All statements of the process.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    /// Above this many, those that no client holds are forgotten.
    limit: usize,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<Key, Arc<Statement>>,
    last: u32,
    /// Size at which unused statements are looked for again.
    sweep_at: usize,
    counts: StoreCounts,
}

/// What the store was asked for, since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreCounts {
    /// Statements that were there.
    pub hits: u64,
    /// Statements that were made.
    pub misses: u64,
    /// Statements that were forgotten, because no client had them.
    pub evictions: u64,
}

impl Inner {
    /// Forgets those that are not to be kept, and says how many those were.
    fn keep(&mut self, keep: impl Fn(&Arc<Statement>) -> bool) -> usize {
        let before = self.by_key.len();
        self.by_key.retain(|_, s| keep(s));
        let gone = before - self.by_key.len();
        self.counts.evictions += gone as u64;
        gone
    }

    fn next_id(&mut self) -> StatementId {
        self.last = self.last.checked_add(1).unwrap_or(1);
        StatementId::new(self.last)
    }
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                sweep_at: limit,
                ..Inner::default()
            }),
            limit,
        }
    }

    /// The statement with this text; made when it is new. `effects` is asked for then only.
    pub fn get(
        &self,
        text: &[u8],
        types: &[u8],
        scope: Option<&str>,
        effects: impl FnOnce() -> u16,
    ) -> Arc<Statement> {
        let key = Key {
            text: text.into(),
            types: types.into(),
            name_at: None,
            scope: scope.map(Into::into),
        };
        self.of_key(key, effects)
    }

    /// The statement that a PREPARE makes whose text, without its name, is this; made when it is new.
    pub fn get_sql(
        &self,
        text: &[u8],
        name_at: usize,
        scope: Option<&str>,
        effects: impl FnOnce() -> u16,
    ) -> Arc<Statement> {
        let key = Key {
            text: text.into(),
            types: Box::default(),
            name_at: Some(name_at),
            scope: scope.map(Into::into),
        };
        self.of_key(key, effects)
    }

    fn of_key(&self, key: Key, effects: impl FnOnce() -> u16) -> Arc<Statement> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = inner.by_key.get(&key) {
            let statement = statement.clone();
            inner.counts.hits += 1;
            return statement;
        }
        inner.counts.misses += 1;
        if inner.by_key.len() >= inner.sweep_at {
            inner.keep(|s| Arc::strong_count(s) > 1);
            inner.sweep_at = self.limit.max(inner.by_key.len() * 2);
        }
        let id = inner.next_id();
        let statement = Arc::new(Statement {
            id,
            name: id.name(),
            text: key.text.clone(),
            types: key.types.clone(),
            name_at: key.name_at,
            effects: effects(),
            shape: OnceLock::new(),
            place: AtomicU64::new(0),
        });
        inner.by_key.insert(key, statement.clone());
        statement
    }

    /// A statement like this one of the store, under a name of its own. It is the caller's to keep.
    pub fn renew(&self, statement: &Statement) -> Arc<Statement> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let id = StatementId {
            original: statement.id.original,
            ..inner.next_id()
        };
        Arc::new(Statement {
            id,
            name: id.name(),
            text: statement.text.clone(),
            types: statement.types.clone(),
            name_at: statement.name_at,
            effects: statement.effects,
            shape: statement.shape.clone(),
            place: AtomicU64::new(statement.place.load(Ordering::Relaxed)),
        })
    }

    /// How many statements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .by_key
            .len()
    }

    /// All statements.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Statement>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.by_key.values().cloned().collect()
    }

    /// Forgets the statements that no client has, and says how many those were.
    pub fn sweep(&self) -> usize {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.keep(|s| Arc::strong_count(s) > 1)
    }

    /// What it was asked for.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counts
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The statements that one server connection has prepared, with their last use.
#[derive(Debug, Default)]
pub struct Prepared {
    last_use: HashMap<StatementId, u64, BuildHasherDefault<FastHasher>>,
    clock: u64,
    /// How many there are, for those who look at the connection from elsewhere.
    count: Arc<AtomicU32>,
    /// Some of them may have been made by SQL's PREPARE.
    pub by_sql: bool,
}

impl Prepared {
    /// Whether it is there; counts as a use.
    #[inline]
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        match self.last_use.get_mut(&id) {
            Some(at) => {
                *at = self.clock;
                true
            }
            None => false,
        }
    }

    /// Notes one that was just prepared.
    pub fn insert(&mut self, id: StatementId) {
        self.clock += 1;
        self.last_use.insert(id, self.clock);
        self.tell();
    }

    /// Forgets one.
    pub fn remove(&mut self, id: StatementId) -> bool {
        let was_there = self.last_use.remove(&id).is_some();
        self.tell();
        was_there
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.last_use.clear();
        self.by_sql = false;
        self.tell();
    }

    fn tell(&self) {
        self.count
            .store(self.last_use.len() as u32, Ordering::Relaxed);
    }

    /// How many there are, to be looked at from elsewhere.
    pub(crate) fn shared_count(&self) -> Arc<AtomicU32> {
        self.count.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.last_use.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last_use.is_empty()
    }

    /// The one unused for longest, when there are more than `limit`. Statements used within the last `spare` uses stay:
    /// they may stand in messages that were not sent yet.
    #[must_use]
    pub fn oldest_above(&self, limit: usize, spare: u64) -> Option<StatementId> {
        if self.last_use.len() <= limit {
            return None;
        }
        self.last_use
            .iter()
            .min_by_key(|(_, at)| **at)
            .filter(|(_, at)| **at + spare < self.clock + 1)
            .map(|(id, _)| *id)
    }
}

/// A hasher for small keys that no client chooses freely, or whose tables are the client's own.
#[derive(Debug, Default, Clone, Copy)]
pub struct FastHasher(u64);

impl Hasher for FastHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        for &byte in chunks.remainder() {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_and_types_are_one_statement() {
        let store = Store::new(10);
        let get = |text: &[u8], types: &[u8], scope| store.get(text, types, scope, || 0).id;
        assert_eq!(get(b"a", b"\0\0", None), get(b"a", b"\0\0", None));
        assert_ne!(
            get(b"a", b"\0\0", None),
            get(b"a", b"\0\x01\0\0\0\x17", None)
        );
        assert_ne!(get(b"a", b"\0\0", None), get(b"a", b"\0\0", Some("x")));
    }

    #[test]
    fn a_prepare_in_sql_is_another_statement_and_takes_any_name() {
        let store = Store::new(10);
        let parsed = store.get(b"prepare  as select 1", b"", None, || 0);
        let made = store.get_sql(b"prepare  as select 1", 8, None, || 0);
        assert_ne!(parsed.id, made.id);
        assert_eq!(parsed.prepare_as(b"x"), None);
        assert_eq!(
            made.prepare_as(b"\"x\"").as_deref(),
            Some(&b"prepare \"x\" as select 1"[..])
        );
    }

    #[test]
    fn unused_statements_are_swept_above_the_limit() {
        let store = Store::new(4);
        let held = store.get(b"held", b"", None, || 0);
        for i in 0..100u8 {
            store.get(&[i], b"", None, || 0);
        }
        assert!(store.len() < 10, "{}", store.len());
        assert_eq!(store.get(b"held", b"", None, || 0).id, held.id);
    }

    #[test]
    fn the_oldest_goes_first_and_the_newest_never() {
        let mut prepared = Prepared::default();
        for n in 1..=3 {
            prepared.insert(StatementId::new(n));
        }
        assert!(prepared.touch(StatementId::new(1)));
        assert_eq!(prepared.oldest_above(2, 1), Some(StatementId::new(2)));
        assert_eq!(prepared.oldest_above(3, 1), None);
        assert_eq!(prepared.oldest_above(0, 100), None);
    }
}
