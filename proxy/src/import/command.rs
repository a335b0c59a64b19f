//! The files around it: reading what is imported, writing what came out.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::{Imported, pgbouncer, pgcat};

/// What to import, and where the result goes.
#[derive(Debug, Clone, Args)]
pub struct Import {
    /// The configuration of the other pooler: pgbouncer.ini or pgcat.toml.
    pub file: PathBuf,
    /// PgBouncer's list of users; the one that auth_file names when it is not given.
    pub userlist: Option<PathBuf>,
    /// Whose configuration it is; PgCat's when its name ends with .toml, else PgBouncer's.
    #[arg(long, value_enum)]
    pub from: Option<Pooler>,
    /// Directory to write pgdog.toml and users.toml to, for the owner's eyes only; standard output when it is not given.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Overwrite these files when they are there.
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// A pooler whose configuration can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooler {
    /// pgbouncer.ini and userlist.txt.
    Pgbouncer,
    /// pgcat.toml.
    Pgcat,
}

/// Imports, and prints or writes the result. What is to be told besides goes to `say`, line by line.
///
/// # Errors
///
/// A file that cannot be read, understood or written, or a result that does not start without further work.
pub fn run(import: &Import, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let imported = read(import)?;
    match &import.out {
        Some(dir) => {
            write(&imported, dir, import.force)?;
            imported.notes.iter().for_each(|note| say(note));
            say(&format!(
                "wrote pgdog.toml and users.toml to {}; {} comments in them say what differs",
                dir.display(),
                imported.notes.len()
            ));
        }
        None => {
            let text = format!(
                "# ---- pgdog.toml ----\n{}\n# ---- users.toml ----\n{}",
                imported.toml, imported.users
            );
            let mut out = std::io::stdout();
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .context("write the result")?;
        }
    }
    match imported.errors() {
        Some(errors) => bail!("what came out does not start as it is:\n{errors}"),
        None => Ok(()),
    }
}

fn read(import: &Import) -> anyhow::Result<Imported> {
    let text = read_file(&import.file)?;
    // Comments name the file only: they go where the path means nothing.
    let name = import.file.file_name().unwrap_or(import.file.as_os_str());
    let file = name.to_string_lossy();
    let toml = import
        .file
        .extension()
        .is_some_and(|extension| extension == "toml");
    let from = import.from.unwrap_or(if toml {
        Pooler::Pgcat
    } else {
        Pooler::Pgbouncer
    });
    let imported = match from {
        Pooler::Pgcat if import.userlist.is_some() => {
            bail!("a list of users goes with pgbouncer.ini; PgCat's users are in pgcat.toml")
        }
        Pooler::Pgcat => pgcat::import(&text, &file),
        Pooler::Pgbouncer => {
            let userlist = match &import.userlist {
                Some(path) => Some((path.display().to_string(), read_file(path)?)),
                None => None,
            };
            let beside = import.file.parent().unwrap_or(Path::new("."));
            pgbouncer::import(&pgbouncer::Sources {
                file: &file,
                text: &text,
                userlist: userlist
                    .as_ref()
                    .map(|(name, text)| (name.as_str(), text.as_str())),
                read: &|name| read_named(name, beside),
            })
        }
    };
    imported.with_context(|| {
        format!(
            "{} is not understood, nothing was written",
            import.file.display()
        )
    })
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// A file that another one names: relative to the working directory, as PgBouncer has it, or else beside that file.
fn read_named(name: &str, beside: &Path) -> Result<String, String> {
    fs::read_to_string(name)
        .or_else(|error| fs::read_to_string(beside.join(name)).map_err(|_| error))
        .map_err(|error| error.to_string())
}

fn write(imported: &Imported, dir: &Path, force: bool) -> anyhow::Result<()> {
    let files = [
        (dir.join("pgdog.toml"), &imported.toml),
        (dir.join("users.toml"), &imported.users),
    ];
    if !force
        && let Some((path, _)) = files
            .iter()
            .find(|(path, _)| path.symlink_metadata().is_ok())
    {
        bail!(
            "{} is there already: choose another directory, or overwrite it with --force",
            path.display()
        );
    }
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    for (path, text) in files {
        write_private(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Writes a new file that only its owner can read, then puts it in place of an old one.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}
