//! `pg_ident.conf`: which names that a client proved to have may be which user.

use std::path::Path;

use super::lines::{self, Line};
use super::pattern::Pattern;
use super::record::{self, Wrong, syntax};
use super::tokens::Token;
use super::{Place, all_or_nothing};
use crate::problem::{Problem, ProblemCode, Problems};

/// What the user field writes for the first group of the pattern before it.
const GROUP: &str = r"\1";

/// The lines of all maps, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maps(Vec<Map>);

/// One line: who may be who in the map of this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Where it stands.
    pub place: Place,
    /// The map it belongs to.
    pub name: String,
    /// The name that was proven.
    pub system: SystemUser,
    /// The users it may be.
    pub user: MapUser,
}

/// The second field: names that were proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SystemUser {
    /// This one.
    Name(String),
    /// Those that a pattern matches.
    Pattern(Pattern),
}

/// The third field: users that such a name may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapUser {
    /// `all`.
    All,
    /// This one.
    Name(String),
    /// The one whose name is what the first group of the system user's pattern matched, between these two.
    Group {
        /// What stands before `\1`.
        before: String,
        /// What stands behind it.
        after: String,
    },
    /// Those that a pattern matches.
    Pattern(Pattern),
}

impl Maps {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its file and line. As in PostgreSQL no line counts then.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::of_lines(lines::load(path))
    }

    /// Reads a text. `path` is where it would stand: for messages, and for the names of the files that it includes.
    ///
    /// # Errors
    ///
    /// As [`Maps::load`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Problems> {
        Self::of_lines(lines::parse(path, text))
    }

    fn of_lines((lines, mut problems): (Vec<Line>, Vec<Problem>)) -> Result<Self, Problems> {
        let mut maps = Vec::new();
        for line in &lines {
            match map(line) {
                Ok(map) => maps.push(map),
                Err((code, message)) => problems.push(line.place.problem(code, message)),
            }
        }
        all_or_nothing(Self(maps), problems)
    }

    /// Whether somebody who proved to be `system` may be `user`. Without a map the names have to be the same.
    pub fn allows(&self, map: Option<&str>, system: &str, user: &str) -> bool {
        let Some(map) = map.filter(|map| !map.is_empty()) else {
            return system == user;
        };
        for line in self.0.iter().filter(|line| line.name == map) {
            match line.allows(system, user) {
                Answer::Yes => return true,
                Answer::No => {}
                Answer::Broken => return false,
            }
        }
        false
    }

    /// All lines in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Map> {
        self.0.iter()
    }

    /// Whether there is a line of this map: a rule that names another lets nobody in.
    pub fn contains(&self, map: &str) -> bool {
        self.0.iter().any(|line| line.name == map)
    }
}

enum Answer {
    Yes,
    No,
    /// `\1` without a match of the group: PostgreSQL looks no further.
    Broken,
}

impl Map {
    fn allows(&self, system: &str, user: &str) -> Answer {
        let group = match &self.system {
            SystemUser::Name(name) if name != system => return Answer::No,
            SystemUser::Name(_) => None,
            SystemUser::Pattern(pattern) => match pattern.first_group(system) {
                Some(group) => group,
                None => return Answer::No,
            },
        };
        let yes = match &self.user {
            MapUser::All => true,
            MapUser::Name(name) => name == user,
            MapUser::Pattern(pattern) => pattern.matches(user),
            MapUser::Group { before, after } => {
                let Some(group) = group else {
                    return Answer::Broken;
                };
                user.strip_prefix(before.as_str())
                    .and_then(|rest| rest.strip_suffix(after.as_str()))
                    == Some(group)
            }
        };
        if yes { Answer::Yes } else { Answer::No }
    }
}

fn map(line: &Line) -> Result<Map, Wrong> {
    let mut fields = Vec::new();
    for field in &line.fields {
        match field.as_slice() {
            [token] => fields.push(token),
            _ => return syntax("more than one value in a field; write a line for each"),
        }
    }
    let [name, system, user] = fields.as_slice() else {
        return syntax(format!(
            "expected three fields, map, system user and user, found {}",
            fields.len()
        ));
    };
    let system = match record::pattern(system)? {
        Some(pattern) => SystemUser::Pattern(pattern),
        None => SystemUser::Name(system.text.clone()),
    };
    let user = map_user(user, &system)?;
    Ok(Map {
        place: line.place.clone(),
        name: name.text.clone(),
        system,
        user,
    })
}

fn map_user(token: &Token, system: &SystemUser) -> Result<MapUser, Wrong> {
    record::no_group(token)?;
    if token.is_keyword("all") {
        return Ok(MapUser::All);
    }
    if let Some(pattern) = record::pattern(token)? {
        return Ok(MapUser::Pattern(pattern));
    }
    let SystemUser::Pattern(pattern) = system else {
        return Ok(MapUser::Name(token.text.clone()));
    };
    let Some((before, after)) = token.text.split_once(GROUP) else {
        return Ok(MapUser::Name(token.text.clone()));
    };
    let shown = pattern.as_str();
    if !pattern.has_group() {
        let message = format!("\\1 needs a group in the regular expression \"{shown}\"");
        return Err((ProblemCode::BadValue, message));
    }
    if after.contains(GROUP) {
        let message = "more than one \\1 is not supported: versions of PostgreSQL differ over it";
        return Err((ProblemCode::NotImplemented, message.to_owned()));
    }
    if !pattern.is_plain() {
        let message = format!(
            "\\1 is not supported with alternatives or shortest matches in the regular expression \"{shown}\"; write a line for each"
        );
        return Err((ProblemCode::NotImplemented, message));
    }
    Ok(MapUser::Group {
        before: before.to_owned(),
        after: after.to_owned(),
    })
}
