//! A client's prepared statements: its names for statements of the store.
//!
//! A name counts from when its Parse is passed on; an error that makes the server skip the Parse takes it back. The
//! journal holds what is not confirmed yet, in the order in which the answers will come.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use pgdog_backend::statements::{FastHasher, PREFIX, Shape, Statement};
use pgdog_wire::frame::HEADER;
use pgdog_wire::frontend::Parse;

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
    unnamed: Unnamed,
    /// What executing the unnamed statement makes, when that is a PREPARE in SQL.
    pub(crate) making: Option<Making>,
    /// The server has statements of SQL under the client's own names, and keeps them for it.
    pub(crate) passes_prepare: bool,
    /// What names stand for that pass to the server unchanged, as far as somebody watches.
    pub(crate) shapes: HashMap<Box<[u8]>, Arc<Shape>, BuildHasherDefault<FastHasher>>,
}

/// The unnamed statement, or none.
#[derive(Debug, Default, Clone)]
pub(crate) struct Unnamed {
    /// Its Parse, whole, in case it is used again on another server; empty when that was too large to keep.
    message: Vec<u8>,
    /// Which of all unnamed Parses it is; 0 when there is none.
    token: u64,
    /// What executing it may change.
    effects: u16,
    /// Itself, when it is one of the store's.
    stored: Option<Arc<Statement>>,
}

impl Unnamed {
    /// Its text, where that is known.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match &self.stored {
            Some(stored) => Some(&stored.text),
            None => Parse::read(self.message.get(HEADER..)?).map(|parse| parse.query),
        }
    }

    /// Bytes that a copy takes.
    pub(crate) fn size(&self) -> usize {
        self.message.len()
    }
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
    /// The unnamed statement was another one, or none, before.
    Unnamed(Unnamed),
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
            self.change_unnamed();
            self.unnamed.stored = Some(statement);
        }
    }

    /// A Close of a stored statement was answered.
    pub(crate) fn close_or_unset_unnamed(&mut self, unnamed: bool, name: &[u8]) {
        if unnamed {
            self.change_unnamed();
        } else {
            self.close(name);
        }
    }

    /// The oldest change has been confirmed.
    pub(crate) fn confirm(&mut self) {
        self.journal.pop_front();
    }

    /// The oldest `count` changes did not take place; `failed`: the first of them was tried.
    pub(crate) fn undo(&mut self, count: usize, failed: bool) {
        let mut undone: Vec<_> = self
            .journal
            .drain(..count.min(self.journal.len()))
            .collect();
        if failed && let Some(Change::Unnamed(before)) = undone.first_mut() {
            *before = Unnamed::default();
        }
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
                Change::Unnamed(before) => self.put_back_unnamed(before),
                Change::Nothing => {}
            }
        }
    }

    /// None of the changes that are not confirmed took place.
    pub(crate) fn undo_all(&mut self) {
        self.undo(self.journal.len(), false);
    }

    /// The text of the unnamed statement, where that is known.
    pub(crate) fn unnamed_text(&self) -> Option<&[u8]> {
        self.unnamed.text()
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

    /// Whether a change of this name, or one that ended it, may be taken back.
    #[inline]
    pub(crate) fn unconfirmed(&self, name: &[u8]) -> bool {
        !self.journal.is_empty()
            && self.journal.iter().any(|change| match change {
                Change::Added(changed) | Change::Removed(changed, _) => **changed == *name,
                Change::Unnamed(_) | Change::Nothing => false,
            })
    }

    /// The unnamed statement is about to change, and that may be taken back: there is none for now.
    pub(crate) fn change_unnamed(&mut self) {
        let before = std::mem::take(&mut self.unnamed);
        self.journal.push_back(Change::Unnamed(before));
    }

    /// What came before the changes that are not confirmed was this.
    fn put_back_unnamed(&mut self, unnamed: Unnamed) {
        let later = self.journal.iter_mut().find_map(|change| match change {
            Change::Unnamed(before) => Some(before),
            _ => None,
        });
        *later.unwrap_or(&mut self.unnamed) = unnamed;
    }

    /// The Parse of the unnamed statement has failed: there is none, unless a later one was sent.
    pub(crate) fn unnamed_failed(&mut self) {
        self.put_back_unnamed(Unnamed::default());
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
        self.unnamed.token = token;
        self.unnamed.message.clear();
        if message.len() <= UNNAMED_MAX {
            self.unnamed.message.extend_from_slice(message);
        }
        self.unnamed.effects = effects;
        self.unnamed.stored = None;
    }

    /// Which of all unnamed Parses the last one is; 0 when there is none.
    #[inline]
    pub(crate) fn unnamed_token(&self) -> u64 {
        self.unnamed.token
    }

    /// What executing the unnamed statement may change.
    #[inline]
    pub(crate) fn unnamed_effects(&self) -> u16 {
        self.unnamed.effects
    }

    /// The unnamed statement, when it is one of the store's.
    #[inline]
    pub(crate) fn unnamed_stored(&self) -> Option<&Arc<Statement>> {
        self.unnamed.stored.as_ref()
    }

    /// Whether there is an unnamed statement, or one may be put back.
    #[inline]
    pub(crate) fn has_unnamed(&self) -> bool {
        self.unnamed.token != 0 || self.unnamed.stored.is_some() || !self.journal.is_empty()
    }

    /// There is no unnamed statement any more.
    #[inline]
    pub(crate) fn clear_unnamed(&mut self) {
        self.unnamed.message.clear();
        self.unnamed.token = 0;
        self.unnamed.stored = None;
    }

    /// Whether the unnamed statement was too large to keep, so that it is gone with its server.
    pub(crate) fn only_on_server(&self) -> bool {
        self.unnamed.token != 0 && self.unnamed.message.is_empty() && self.unnamed.stored.is_none()
    }

    /// The last unnamed Parse.
    pub(crate) fn unnamed(&self) -> Option<&[u8]> {
        (!self.unnamed.message.is_empty()).then_some(&self.unnamed.message)
    }

    /// The unnamed statement, for another session of the same settings.
    pub(crate) fn copy_unnamed(&self) -> Unnamed {
        self.unnamed.clone()
    }

    /// Takes over another session's unnamed statement, which becomes the one of this token here.
    pub(crate) fn take_over_unnamed(&mut self, other: &Unnamed, token: u64) {
        let there = other.token != 0 || other.stored.is_some();
        self.unnamed = Unnamed {
            token: if there { token } else { 0 },
            ..other.clone()
        };
    }

    /// The client's name for what we call `ours`, now or when it was sent.
    fn theirs(&self, ours: &[u8]) -> Option<&[u8]> {
        let closed = self.journal.iter().filter_map(|change| match change {
            Change::Removed(name, statement) => Some((name, statement)),
            _ => None,
        });
        let undone = self
            .undone
            .iter()
            .map(|(name, statement)| (name, statement));
        let mut all = self.named.iter().chain(closed).chain(undone);
        all.find(|(_, s)| &*s.name == ours).map(|(name, _)| &**name)
    }

    /// Replaces our names for statements in a server's error text by the client's own: those of `first` before any other.
    /// `None`: there is none in it.
    pub(crate) fn unmask(
        &self,
        body: &[u8],
        first: &[(Box<[u8]>, Arc<Statement>)],
    ) -> Option<Vec<u8>> {
        unmask(body, |ours| {
            let known = first.iter().find(|(_, s)| &*s.name == ours);
            known.map(|(name, _)| &**name).or_else(|| self.theirs(ours))
        })
    }
}

/// The text with any of our names for statements replaced by the client's, which is known. `None`: there is none in it.
pub(crate) fn unmask_as(body: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    unmask(body, |_| Some(name))
}

/// The text with each of our names for statements replaced by what `theirs` knows for it. `None`: there is none in it.
fn unmask<'a>(body: &[u8], theirs: impl Fn(&[u8]) -> Option<&'a [u8]>) -> Option<Vec<u8>> {
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
        out.extend_from_slice(theirs(ours).unwrap_or(ours));
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
        names.undo(3, false);
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
