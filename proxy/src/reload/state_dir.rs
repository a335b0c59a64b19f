//! The last configuration that was pushed, on disk for the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgdog_config::api::{HalfStatus, Origin};
use pgdog_config::documents;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::halves::{Document, Halves};

/// Its name in the directory.
const FILE: &str = "last-known-good.json";
/// The name of the budget.
const BUDGET: &str = "budget.json";
/// Where they are written first. One process writes, one push after the other.
const TEMPORARY: &str = ".last-known-good.json.new";
/// What this version writes and reads.
const FORMAT: u32 = 1;

/// The directory of `admin.state_dir`.
#[derive(Debug, Clone)]
pub(crate) struct StateDir(PathBuf);

/// The file. That of the budget has its one document under the same name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    /// SHA-256 of `halves`, so that half a file is not taken for a whole one.
    sha256: String,
    halves: Json,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    settings: One,
    topology: One,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    status: HalfStatus,
    config: Json,
}

impl StateDir {
    /// The directory, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// When nothing can be written to it, naming it. Pushes are refused then, until that is repaired.
    pub(crate) fn open(path: &Path) -> (Self, Result<(), String>) {
        let made = fs::create_dir_all(path).and_then(|()| {
            let probe = path.join(TEMPORARY);
            create(&probe).and_then(|_| fs::remove_file(&probe))
        });
        let said = made.map_err(|error| {
            format!(
                "cannot write to admin.state_dir = {}: {error}; pushes are refused until it is writable",
                path.display()
            )
        });
        (Self(path.to_owned()), said)
    }

    /// What is kept; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is not whole, naming the file.
    pub(crate) fn read(&self) -> Result<Option<Halves>, String> {
        self.read_file(FILE, parse)
    }

    /// The budget that is kept; `None` when none is.
    ///
    /// # Errors
    ///
    /// As [`StateDir::read`].
    pub(crate) fn read_budget(&self) -> Result<Option<Document>, String> {
        self.read_file(BUDGET, parse_budget)
    }

    fn read_file<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let path = self.0.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        parse(&text).map(Some).map_err(|reason| {
            format!(
                "{} is damaged ({reason}) and is skipped; the next push replaces it",
                path.display()
            )
        })
    }

    /// Writes both halves: when it returns they are on disk.
    ///
    /// # Errors
    ///
    /// When that is not possible, naming the file; the one before is still there.
    pub(crate) fn write(&self, halves: &Halves) -> Result<(), String> {
        self.write_file(FILE, || render(halves))
    }

    /// Writes the budget, as [`StateDir::write`] does the halves.
    ///
    /// # Errors
    ///
    /// As [`StateDir::write`].
    pub(crate) fn write_budget(&self, budget: &Document) -> Result<(), String> {
        self.write_file(BUDGET, || sealed(serde_json::to_value(one(budget))?))
    }

    fn write_file(
        &self,
        name: &str,
        render: impl FnOnce() -> io::Result<String>,
    ) -> Result<(), String> {
        let (path, temporary) = (self.0.join(name), self.0.join(TEMPORARY));
        let write = || {
            let text = render()?;
            let mut file = create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            // The new name is on disk only when the directory is.
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            format!(
                "cannot write {}: {error}; what was in force stays: make room or repair admin.state_dir, and push again",
                path.display()
            )
        })
    }
}

/// For the owner's eyes only: it holds passwords.
fn create(path: &Path) -> io::Result<File> {
    // One that a process left behind may have other permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn one(document: &Document) -> One {
    One {
        status: document.status.clone(),
        config: Json::clone(&document.json),
    }
}

fn render(halves: &Halves) -> io::Result<String> {
    sealed(serde_json::to_value(Both {
        settings: one(&halves.settings),
        topology: one(&halves.topology),
    })?)
}

fn sealed(halves: Json) -> io::Result<String> {
    let written = Written {
        format: FORMAT,
        sha256: documents::sha256(&halves),
        halves,
    };
    Ok(serde_json::to_string(&written)?)
}

/// Errors of the JSON reader may quote what they read, so only their place is told.
fn unsealed(text: &str) -> Result<Json, String> {
    let place =
        |error: serde_json::Error| format!("line {} column {}", error.line(), error.column());
    let written: Written = serde_json::from_str(text).map_err(place)?;
    if written.format != FORMAT {
        return Err(format!("its format is {}, not {FORMAT}", written.format));
    }
    if written.sha256 != documents::sha256(&written.halves) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(written.halves)
}

fn document(one: One) -> Document {
    Document {
        json: Arc::new(one.config),
        status: HalfStatus {
            source: match one.status.source {
                Origin::Push => Origin::LastKnownGood,
                other => other,
            },
            ..one.status
        },
    }
}

fn parse_budget(text: &str) -> Result<Document, String> {
    let one: One =
        serde_json::from_value(unsealed(text)?).map_err(|_| "it is no budget".to_owned())?;
    documents::read_budget(&one.config).map_err(|_| "it is no budget".to_owned())?;
    Ok(document(one))
}

fn parse(text: &str) -> Result<Halves, String> {
    let both: Both =
        serde_json::from_value(unsealed(text)?).map_err(|_| "a half is missing".to_owned())?;
    Ok(Halves::new(
        document(both.settings),
        document(both.topology),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use pgdog_config::Config;

    use super::*;

    fn halves(size: u32) -> Halves {
        let toml = format!(
            "[general]\ndefault_pool_size = {size}\n[[databases]]\nname = \"a\"\nhost = \"h\"\n"
        );
        Halves::of_files(Config::from_toml(&toml, "").unwrap(), 7)
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pgdog-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn what_was_written_is_read_and_nobody_else_may_read_it() {
        let path = directory("round");
        let (dir, said) = StateDir::open(&path);
        said.unwrap();
        assert!(dir.read().unwrap().is_none());
        for size in [3, 4] {
            dir.write(&halves(size)).unwrap();
            let read = dir.read().unwrap().unwrap();
            assert_eq!(read.settings, halves(size).settings);
            assert_eq!(read.topology, halves(size).topology);
        }
        let mode = fs::metadata(path.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(&path).unwrap().count(),
            1,
            "nothing else is left"
        );
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn no_part_of_a_file_is_taken_for_the_whole() {
        let text = render(&halves(3)).unwrap();
        assert!(parse(&text).is_ok());
        for length in 0..text.len() {
            assert!(parse(&text[..length]).is_err(), "{length} bytes");
        }
        let other = text.replace("\"default_pool_size\":3", "\"default_pool_size\":9");
        assert_ne!(text, other);
        assert_eq!(parse(&other).unwrap_err(), "its checksum is wrong");
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_named() {
        let path = directory("file");
        fs::write(&path, "").unwrap();
        let (dir, said) = StateDir::open(&path);
        assert!(said.unwrap_err().contains(&path.display().to_string()));
        assert!(
            dir.write(&halves(3))
                .unwrap_err()
                .contains("last-known-good.json")
        );
        fs::remove_file(&path).unwrap();
    }
}
