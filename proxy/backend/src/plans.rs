//! What has become of statements in one pool: its tables change, and with them the results of statements.
//!
//! PostgreSQL refuses to run a statement whose result has another shape than when it was prepared ("cached plan must not
//! change result type"), for as long as that is so; who prepares the same text anew has the new shape. Many clients share a
//! statement here. So those who hold it keep it, and the next Parse of its text in this pool makes another one.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::statements::{FastHasher, Statement, StatementId, Store};

/// Above this many, those that no client holds are forgotten.
const LIMIT: usize = 100;

/// The statements of a pool that are not those of the store any more.
#[derive(Debug, Default)]
pub struct Plans {
    /// There are some.
    any: AtomicBool,
    renewed: Mutex<HashMap<StatementId, Renewal, BuildHasherDefault<FastHasher>>>,
}

/// What stands for a statement of the store.
#[derive(Debug)]
enum Renewal {
    /// The next Parse makes it.
    Due,
    Made(Arc<Statement>),
}

impl Plans {
    /// A server has refused to run the statement, because its result has another shape by now.
    pub fn outdated(&self, id: StatementId) {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.len() >= LIMIT && !renewed.contains_key(&id.original()) {
            renewed.retain(|_, r| matches!(r, Renewal::Made(s) if Arc::strong_count(s) > 1));
        }
        renewed.insert(id.original(), Renewal::Due);
        self.any.store(true, Ordering::Release);
    }

    /// What a Parse in this pool means that is this statement of the store.
    pub fn current(&self, store: &Store, statement: Arc<Statement>) -> Arc<Statement> {
        if !self.any.load(Ordering::Acquire) {
            return statement;
        }
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        match renewed.get_mut(&statement.id) {
            None => statement,
            Some(Renewal::Made(made)) => made.clone(),
            Some(due) => {
                let made = store.renew(&statement);
                *due = Renewal::Made(made.clone());
                made
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outdated_statement_is_another_one_for_who_prepares_it_anew_in_the_same_pool() {
        let (store, plans, others) = (Store::new(10), Plans::default(), Plans::default());
        let parse = |plans: &Plans| plans.current(&store, store.get(b"a", b"", None, || 0));
        let old = parse(&plans);
        plans.outdated(old.id);
        let new = parse(&plans);
        assert_ne!(new.id, old.id);
        assert_ne!(new.name, old.name);
        assert_eq!(new.text, old.text);
        assert_eq!(parse(&plans).id, new.id);
        assert_eq!(parse(&others).id, old.id);
    }

    #[test]
    fn whichever_of_them_is_outdated_the_next_parse_makes_one_that_is_not() {
        let (store, plans) = (Store::new(10), Plans::default());
        let parse = || plans.current(&store, store.get(b"a", b"", None, || 0));
        let first = parse();
        plans.outdated(first.id);
        let second = parse();
        for outdated in [first.id, second.id, first.id] {
            let before = parse().id;
            plans.outdated(outdated);
            assert_ne!(parse().id, before);
        }
    }

    #[test]
    fn those_that_nobody_holds_are_forgotten() {
        let (store, plans) = (Store::new(10 * LIMIT), Plans::default());
        let parse = |text: &[u8]| plans.current(&store, store.get(text, b"", None, || 0));
        plans.outdated(parse(b"held").id);
        let held = parse(b"held");
        for n in 0..2 * LIMIT {
            let text = n.to_string();
            plans.outdated(parse(text.as_bytes()).id);
            parse(text.as_bytes());
        }
        assert!(plans.renewed.lock().unwrap().len() <= LIMIT);
        assert_eq!(parse(b"held").id, held.id);
    }
}
