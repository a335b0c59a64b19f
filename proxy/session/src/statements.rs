//! A client's prepared statements: its names for statements of the store.
//!
//! A name counts from when its Parse is passed on; an error that makes the server skip the Parse takes it back. The
//! journal holds what is not confirmed yet, in the order in which the answers will come.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use pgdog_backend::statements::{FastHasher, PREFIX, Statement};

/// Largest unnamed Parse that is remembered beyond its transaction, in bytes.
const UNNAMED_MAX: usize = 16 * 1024;

/// So many names that an error took back are remembered.
const UNDONE_MAX: usize = 8;

/// The names of one client.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    named: HashMap<Box<[u8]>, Arc<Statement>, BuildHasherDefault<FastHasher>>,
    journal: VecDeque<Change>,
    /// Names that an error took back: answers to what was already sent may still speak of them.
    undone: VecDeque<(Box<[u8]>, Arc<Statement>)>,
    /// The last unnamed Parse, whole, in case it is used again on another server; empty when there is none.
    unnamed: Vec<u8>,
    /// Which of all unnamed Parses it is; 0 when there is none.
    pub(crate) unnamed_token: u64,
    /// What executing the unnamed statement may change.
    pub(crate) unnamed_effects: u16,
    /// The unnamed statement, when it is one of the store's.
    pub(crate) unnamed_stored: Option<Arc<Statement>>,
    /// What executing the unnamed statement makes, when that is a PREPARE in SQL.
    pub(crate) making: Option<Making>,
    /// The server has statements of SQL under the client's own names, and keeps them for it.
    pub(crate) passes_prepare: bool,
}

/// An unnamed statement that is a PREPARE in SQL.
#[derive(Debug)]
pub(crate) struct Making {
    /// Which of all unnamed statements it is.
    pub(crate) token: u64,
    /// The client's name for what it makes.
    pub(crate) name: Box<[u8]>,
    pub(crate) statement: Arc<Statement>,
}

/// Something that an error takes back.
#[derive(Debug)]
enum Change {
    Added(Box<[u8]>),
    Removed(Box<[u8]>, Arc<Statement>),
    /// A change that leaves nothing to take back.
    Nothing,
}

impl Statements {
    /// The statement behind a name.
    #[inline]
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.named.get(name)
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.named.len()
    }

    /// A Parse was passed on or answered.
    pub(crate) fn add(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.named.insert(name.into(), statement);
        self.journal.push_back(Change::Added(name.into()));
    }

    /// A Close was answered.
    pub(crate) fn close(&mut self, name: &[u8]) {
        let change = self
            .named
            .remove_entry(name)
            .map_or(Change::Nothing, |(name, s)| Change::Removed(name, s));
        self.journal.push_back(change);
    }

    /// A Parse of a stored statement was passed on or answered, under a name or as the unnamed one.
    pub(crate) fn add_or_set_unnamed(
        &mut self,
        named: bool,
        name: &[u8],
        statement: Arc<Statement>,
    ) {
        if named {
            self.add(name, statement);
        } else {
            self.unnamed_stored = Some(statement);
            self.journal.push_back(Change::Nothing);
        }
    }

    /// A Close of a stored statement was answered.
    pub(crate) fn close_or_unset_unnamed(&mut self, unnamed: bool, name: &[u8]) {
        if unnamed {
            self.unnamed_stored = None;
            self.journal.push_back(Change::Nothing);
        } else {
            self.close(name);
        }
    }

    /// The oldest change has been confirmed.
    pub(crate) fn confirm(&mut self) {
        self.journal.pop_front();
    }

    /// The oldest `count` changes did not take place.
    pub(crate) fn undo(&mut self, count: usize) {
        let undone: Vec<_> = self
            .journal
            .drain(..count.min(self.journal.len()))
            .collect();
        for change in undone.into_iter().rev() {
            match change {
                Change::Added(name) => {
                    if let Some(entry) = self.named.remove_entry(&name) {
                        self.undone.truncate(UNDONE_MAX - 1);
                        self.undone.push_front(entry);
                    }
                }
                Change::Removed(name, statement) => {
                    self.named.insert(name, statement);
                }
                Change::Nothing => {}
            }
        }
    }

    /// PREPARE in SQL took place.
    pub(crate) fn set(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.named.insert(name.into(), statement);
    }

    /// Takes out what SQL's PREPARE has made, with the client's names.
    pub(crate) fn take_sql(&mut self) -> Vec<(Box<[u8]>, Arc<Statement>)> {
        let of_sql = |s: &Arc<Statement>| s.name_at.is_some();
        self.named.extract_if(|_, s| of_sql(s)).collect()
    }

    /// DEALLOCATE of one name took place.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        self.named.remove(name);
    }

    /// DEALLOCATE ALL or DISCARD ALL took place.
    pub(crate) fn forget_all(&mut self) {
        self.named.clear();
        self.passes_prepare = false;
    }

    /// Remembers the unnamed Parse, given whole.
    pub(crate) fn set_unnamed(&mut self, message: &[u8], effects: u16, token: u64) {
        self.unnamed_token = token;
        self.unnamed.clear();
        if message.len() <= UNNAMED_MAX {
            self.unnamed.extend_from_slice(message);
        }
        self.unnamed_effects = effects;
    }

    /// There is no unnamed statement any more.
    #[inline]
    pub(crate) fn clear_unnamed(&mut self) {
        self.unnamed.clear();
        self.unnamed_token = 0;
        self.unnamed_stored = None;
    }

    /// Whether the unnamed statement was too large to keep, so that it is gone with its server.
    pub(crate) fn only_on_server(&self) -> bool {
        self.unnamed_token != 0 && self.unnamed.is_empty() && self.unnamed_stored.is_none()
    }

    /// The last unnamed Parse.
    pub(crate) fn unnamed(&self) -> Option<&[u8]> {
        (!self.unnamed.is_empty()).then_some(&self.unnamed)
    }

    /// Replaces our names for statements in a server's error text by the client's own: those of `first` before any other.
    /// `None`: there is none in it.
    pub(crate) fn unmask(
        &self,
        body: &[u8],
        first: &[(Box<[u8]>, Arc<Statement>)],
    ) -> Option<Vec<u8>> {
        let prefix = PREFIX.as_bytes();
        let mut at = body.windows(prefix.len()).position(|w| w == prefix)?;
        let mut out = body[..at].to_vec();
        loop {
            let digits = body[at + prefix.len()..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            let end = at + prefix.len() + digits;
            let ours = &body[at..end];
            let theirs = {
                let mut all = first
                    .iter()
                    .map(|(n, s)| (n, s))
                    .chain(&self.named)
                    .chain(self.undone.iter().map(|(n, s)| (n, s)));
                all.find(|(_, s)| &*s.name == ours).map(|(n, _)| &**n)
            };
            out.extend_from_slice(theirs.unwrap_or(ours));
            match body[end..].windows(prefix.len()).position(|w| w == prefix) {
                Some(next) => {
                    out.extend_from_slice(&body[end..end + next]);
                    at = end + next;
                }
                None => {
                    out.extend_from_slice(&body[end..]);
                    return Some(out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pgdog_backend::Store;

    use super::*;

    #[test]
    fn what_was_not_confirmed_is_taken_back() {
        let store = Store::new(10);
        let get = |text: &[u8]| store.get(text, b"\0\0", None, || 0);
        let mut names = Statements::default();
        names.add(b"a", get(b"1"));
        names.confirm();
        names.close(b"a");
        names.add(b"a", get(b"2"));
        names.add(b"b", get(b"3"));
        names.undo(3);
        assert_eq!(&*names.get(b"a").unwrap().text, b"1");
        assert!(names.get(b"b").is_none());
    }

    #[test]
    fn errors_name_the_clients_statement() {
        let store = Store::new(10);
        let mut names = Statements::default();
        let statement = store.get(b"x", b"\0\0", None, || 0);
        let ours = String::from_utf8_lossy(&statement.name).into_owned();
        names.add(b"mine", statement);
        assert_eq!(
            names
                .unmask(format!("\"{ours}\" and {ours}0").as_bytes(), &[])
                .unwrap(),
            format!("\"mine\" and {ours}0").into_bytes()
        );
        assert_eq!(names.unmask(b"nothing here", &[]), None);
    }
}
