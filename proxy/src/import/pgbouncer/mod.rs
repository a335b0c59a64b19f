//! `pgbouncer.ini` and `userlist.txt`, as PgBouncer 1.26 documents them.

mod auth;
mod databases;
mod ini;
mod keys;
mod settings;
mod tls;
mod userlist;
mod users;

pub use ini::Include;

use pgdog_config::{Problem, ProblemCode, Problems};

use self::auth::Auth;
use self::settings::Settings;
use self::userlist::Listed;
use super::emit::Table;
use super::{Imported, Written};

/// What there is to read.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Name of the `.ini` file, for messages.
    pub file: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Name and text of the user list, in place of the one that `auth_file` names.
    pub userlist: Option<(&'a str, &'a str)>,
    /// Reads the files that it names: includes and `auth_file`.
    pub read: Include<'a>,
}

/// The sections as they were written, each key once.
#[derive(Default)]
struct Sections {
    settings: Vec<Written>,
    databases: Vec<Written>,
    users: Vec<Written>,
    peers: Vec<Written>,
}

/// Turns PgBouncer's configuration into ours.
///
/// # Errors
///
/// Everything that PgBouncer would not understand either, all of it at once.
pub fn import(sources: &Sources<'_>) -> Result<Imported, Problems> {
    let (sections, mut problems) = ini::read(sources.text, sources.file, sources.read);
    let sections = sort(sections, &mut problems);
    let settings = Settings::new(sections.settings, &mut problems);
    let auth = Auth::new(&settings, &mut problems);
    let mut general = settings.tables(&mut problems);
    tls::clients(&settings, &mut general.general, &mut problems);
    tls::servers(&settings, &mut general.general, &mut problems);

    let listed = list(sources, &settings, &mut general.general, &mut problems);
    auth.describe(&settings, &listed, &mut general.general);
    let databases = databases::tables(
        &sections.databases,
        &databases::Around {
            general: &general.general,
            listed: &listed,
        },
        &mut problems,
    );
    let users = users::tables(
        &sections.users,
        &users::Around {
            auth,
            general: &general.general,
            databases: &databases,
            listed: &listed,
        },
        &mut problems,
    );
    let peers = databases::peers(&sections.peers, &mut problems);
    let admin = users::admin(&settings, &listed);
    if !problems.is_empty() {
        problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        return Err(Problems(problems));
    }

    let mut toml = vec![general.general, general.tcp];
    toml.extend(databases);
    toml.extend(peers);
    let people: Vec<Table> = admin.into_iter().chain(users).collect();
    Ok(Imported::new(sources.file, &toml, &people))
}

/// Puts the lines of each section together; the last line of a key wins, as in PgBouncer.
fn sort(sections: Vec<ini::Section>, problems: &mut Vec<Problem>) -> Sections {
    let mut sorted = Sections::default();
    for section in sections {
        let into = match section.name.as_str() {
            "pgbouncer" => &mut sorted.settings,
            "databases" => &mut sorted.databases,
            "users" => &mut sorted.users,
            "peers" => &mut sorted.peers,
            name => {
                let known = ["pgbouncer", "databases", "users", "peers"];
                let message = match pgdog_config::nearest(name, known.into_iter()) {
                    Some(near) => format!("unknown section [{name}], did you mean [{near}]?"),
                    None => format!("unknown section [{name}]: remove it, or correct its name"),
                };
                let code = ProblemCode::UnknownKey;
                problems.push(section.place.error("", code, message));
                continue;
            }
        };
        for line in section.lines {
            into.retain(|known| known.key != line.key);
            into.push(line);
        }
    }
    sorted
}

/// The users, from the list that was given or from the one that the settings name.
fn list(
    sources: &Sources<'_>,
    settings: &Settings,
    general: &mut Table,
    problems: &mut Vec<Problem>,
) -> Vec<Listed> {
    let written = settings.get("auth_file").filter(|w| !w.value.is_empty());
    let (users, more) = match (sources.userlist, written) {
        (Some((file, text)), _) => userlist::read(text, file),
        (None, Some(written)) => match (sources.read)(&written.value) {
            Ok(text) => userlist::read(&text, &written.value),
            Err(error) => {
                let text = format!(
                    "no users are imported, the file cannot be read ({error}): give the list as the second argument"
                );
                general.remark(written.remark(&text));
                return Vec::new();
            }
        },
        (None, None) => return Vec::new(),
    };
    problems.extend(more);
    users
}

#[cfg(test)]
mod tests;
