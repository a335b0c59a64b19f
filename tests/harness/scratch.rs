//! Directories that vanish and ports that are free.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::id;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

use crate::guardian;

/// A directory that is removed when the value is dropped or the process ends.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory; `purpose` becomes part of its name.
    pub fn new(purpose: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root().join(format!("{purpose}-{}-{number}", id()));
        fs::create_dir_all(&path)
            .unwrap_or_else(|e| panic!("failed to create {}: {e}", path.display()));
        guardian::watch_directory(&path);
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if fs::remove_dir_all(&self.0).is_ok() {
            guardian::forget_directory(&self.0);
        }
    }
}

/// The directory that all scratch directories and the cached cluster templates of this user are in. It is
/// under the system's temporary directory since the `postgres` user must be able to reach it.
pub fn root() -> PathBuf {
    let path = env::temp_dir().join(format!("pgdog-tests-{}", current_uid()));
    if !path.is_dir() {
        fs::create_dir_all(&path)
            .unwrap_or_else(|e| panic!("failed to create {}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .expect("the directory is ours");
    }
    path
}

/// The user id this process runs as.
pub fn current_uid() -> u32 {
    // The owner of one's own /proc entry; elsewhere, of a file just made.
    if let Ok(metadata) = fs::metadata("/proc/self") {
        return metadata.uid();
    }
    let probe = env::temp_dir().join(format!("pgdog-tests-uid-{}", id()));
    fs::write(&probe, "").expect("the temporary directory is writable");
    let uid = fs::metadata(&probe)
        .map(|m| m.uid())
        .expect("the file was just written");
    fs::remove_file(&probe).ok();
    uid
}

/// A port nobody listens on just now. It may be taken before its use: whoever uses it tries again.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on the loopback");
    listener
        .local_addr()
        .expect("a bound socket has an address")
        .port()
}
