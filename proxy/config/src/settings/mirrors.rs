//! `[[mirroring]]`: which databases are repeated where, and that this can work.

use std::collections::BTreeSet;

use super::build::Report;
use super::{Mirror, User};
use crate::check::nearest;
use crate::modes::PoolerMode;
use crate::problem::ProblemCode;
use crate::sharding::Mirroring;

/// All mirrors.
pub(super) fn all(report: &mut Report<'_>, users: &[User]) -> Vec<Mirror> {
    let config = report.config;
    let general = &config.general;
    exposure(report, "general.mirror_exposure", general.mirror_exposure);
    queue_length(report, "general.mirror_queue", general.mirror_queue);
    let mut seen = BTreeSet::new();
    let mut mirrors = Vec::new();
    for (index, entry) in config.mirroring.iter().enumerate() {
        let path = |key: &str| format!("mirroring[{index}].{key}");
        if let Some(share) = entry.exposure {
            exposure(report, &path("exposure"), share);
        }
        if let Some(length) = entry.queue_length {
            queue_length(report, &path("queue_length"), length);
        }
        let known = is_database(report, &path("source_db"), &entry.source_db)
            & is_database(report, &path("destination_db"), &entry.destination_db);
        if known {
            goes_somewhere(report, index, entry);
            same_users(report, &path("destination_db"), entry, users);
        }
        if !seen.insert((&entry.source_db, &entry.destination_db)) {
            let message = format!(
                "\"{}\" is mirrored to \"{}\" already",
                entry.source_db, entry.destination_db
            );
            report.error(&path("destination_db"), ProblemCode::Duplicate, message);
        }
        mirrors.push(Mirror {
            source: entry.source_db.clone(),
            destination: entry.destination_db.clone(),
            queue_length: entry.queue_length.unwrap_or(general.mirror_queue),
            exposure: entry.exposure.unwrap_or(general.mirror_exposure),
            level: entry.level,
        });
    }
    mirrors
}

fn exposure(report: &mut Report<'_>, path: &str, share: f64) {
    if !(0.0..=1.0).contains(&share) {
        let message = format!("expected a share from 0.0 to 1.0, found {share}");
        report.error(path, ProblemCode::BadValue, message);
    }
}

fn queue_length(report: &mut Report<'_>, path: &str, length: usize) {
    if length == 0 {
        let message = "a queue needs room for one at least; for no mirroring leave [[mirroring]] out, or set exposure = 0.0";
        report.error(path, ProblemCode::BadValue, message);
    }
}

fn is_database(report: &mut Report<'_>, path: &str, name: &str) -> bool {
    let config = report.config;
    let names = || config.databases.iter().map(|host| host.name.as_str());
    if names().any(|known| known == name) {
        return true;
    }
    let message = match nearest(name, names()) {
        Some(near) => format!("no database \"{name}\", did you mean \"{near}\"?"),
        None => format!("no database \"{name}\" in [[databases]]"),
    };
    report.error(path, ProblemCode::UnknownName, message);
    false
}

/// What comes back to where it began would be in doubt about what is the original.
fn goes_somewhere(report: &mut Report<'_>, index: usize, entry: &Mirroring) {
    let path = format!("mirroring[{index}].destination_db");
    if entry.source_db == entry.destination_db {
        let message = format!("database \"{}\" cannot mirror itself", entry.source_db);
        report.error(&path, ProblemCode::Conflict, message);
        return;
    }
    let mut reached = BTreeSet::from([entry.destination_db.as_str()]);
    let mut before = 0;
    while reached.len() > before {
        before = reached.len();
        for next in &report.config.mirroring {
            if next.source_db != next.destination_db && reached.contains(next.source_db.as_str()) {
                reached.insert(&next.destination_db);
            }
        }
    }
    if reached.contains(entry.source_db.as_str()) {
        let message = format!(
            "a circle: database \"{}\" is mirrored back to \"{}\"",
            entry.destination_db, entry.source_db
        );
        report.error(&path, ProblemCode::Conflict, message);
    }
}

/// The mirror logs in as the same user. Sessions are told apart by what pooling knows of them, so both sides need pools
/// that know it.
fn same_users(report: &mut Report<'_>, path: &str, entry: &Mirroring, users: &[User]) {
    let Mirroring {
        source_db: source,
        destination_db: destination,
        ..
    } = entry;
    for user in users.iter().filter(|user| user.database == *source) {
        let name = &user.name;
        let other = users
            .iter()
            .find(|other| other.name == *name && other.database == *destination);
        let Some(other) = other else {
            let message = format!(
                "user \"{name}\" of database \"{source}\" is not a user of database \"{destination}\": add it there, a mirror logs in as the same user"
            );
            report.error(path, ProblemCode::UnknownName, message);
            continue;
        };
        for side in [user, other] {
            if side.pool.mode == PoolerMode::Session {
                let message = format!(
                    "user \"{name}\" has pooler_mode = \"session\" in database \"{}\": mirroring needs transaction or statement",
                    side.database
                );
                report.error(path, ProblemCode::Conflict, message);
            }
        }
    }
}
