//! What the bench needs from the operating system: limits, an unprivileged user, ports, scratch folders.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Ten thousand clients are as many descriptors here, and somewhat more in a proxy; children inherit the limit.
const DESCRIPTORS: u32 = 12_000;

/// Raises the limit of open files as far as needed. Where that is refused, the idle rows fail and say so.
pub(crate) fn raise_descriptor_limit() {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .unwrap_or_default();
    let mut words = line
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(u32::MAX));
    let (soft, hard) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
    if soft >= DESCRIPTORS {
        return;
    }
    // Only root may raise the hard limit.
    let limit = format!("--nofile={DESCRIPTORS}:{}", hard.max(DESCRIPTORS));
    drop(
        Command::new("prlimit")
            .args(["--pid", &std::process::id().to_string(), &limit])
            .status(),
    );
}

/// The user that Postgres and pgbouncer run as when we are root, whom both refuse.
#[derive(Clone, Debug)]
pub(crate) struct Unprivileged {
    /// Its name, for programs that change user by themselves.
    pub(crate) name: String,
    uid: u32,
    gid: u32,
}

impl Unprivileged {
    /// `None` when we are not root and can stay who we are.
    pub(crate) fn find() -> Result<Option<Self>> {
        if fs::metadata("/proc/self").context("read /proc")?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("read the list of users")?;
        let user = |wanted: &str| {
            users.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, uid, gid, ..] = fields[..] else {
                    return None;
                };
                Some(Self {
                    name: name.to_owned(),
                    uid: uid.parse().ok()?,
                    gid: gid.parse().ok()?,
                })
                .filter(|_| name == wanted)
            })
        };
        user("postgres")
            .or_else(|| user("nobody"))
            .context("find an unprivileged user")
            .map(Some)
    }

    /// Makes the command run as this user.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Makes this user the owner of a folder.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("give away {}", path.display()))
    }
}

/// A folder that goes with its value.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pgdog-bench-{}", std::process::id()));
        fs::create_dir_all(&path).context("create a scratch folder")?;
        let scratch = Self(path);
        scratch.open_to_all(scratch.path())?;
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A folder below this one that every user may write to: programs change user while they run.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        self.open_to_all(&path)?;
        Ok(path)
    }

    fn open_to_all(&self, path: &Path) -> Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))
            .with_context(|| format!("open {} to all", path.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A port that nobody listens on right now.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    drop(
        Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status(),
    );
}

/// Whether a program is in the PATH.
pub(crate) fn has_program(name: &str) -> bool {
    program(name).is_some()
}

/// Where a program of the PATH lies; pgbouncer lies in sbin, which is not in everyone's.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
