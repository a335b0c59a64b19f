//! Leaves nothing behind, however the test process ends.
//!
//! One small shell per test process reads from a pipe which processes and directories are in use. When the test
//! process ends, even by `kill -9`, the pipe closes: the shell kills what is left and removes the directories.
//! (`PR_SET_PDEATHSIG` would not do: it fires when the *thread* that started the child ends, and test threads end
//! long before the shared Postgres may.)

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

const SCRIPT: &str = r#"
trap '' INT HUP TERM
pids=' ' dirs=' '
without() { # $1 = list, $2 = word
    kept=' '
    for word in $1; do [ "$word" = "$2" ] || kept="$kept$word "; done
    echo "$kept"
}
while read -r verb what; do
    case $verb in
    +process) pids="$pids$what " ;;
    -process) pids=$(without "$pids" "$what") ;;
    +directory) dirs="$dirs$what " ;;
    -directory) dirs=$(without "$dirs" "$what") ;;
    esac
done
# QUIT is the immediate shutdown of Postgres, which takes its children along; KILL would leave them.
# CONT wakes those that a test has frozen.
[ -z "${pids# }" ] || { kill -QUIT $pids; kill -CONT $pids; sleep 0.3; kill -KILL $pids; }
for dir in $dirs; do rm -rf "$dir"; done
"#;

fn tell(verb: &str, what: &str) {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| {
        let child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh is there");
        Mutex::new(child)
    });
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    // A guardian that is gone only means that leftovers stay; the tests themselves are not wrong.
    if let Some(pipe) = shell.stdin.as_mut() {
        writeln!(pipe, "{verb} {what}").ok();
    }
}

/// Has the process killed when the test process ends before [`forget_process`].
pub fn watch_process(pid: u32) {
    tell("+process", &pid.to_string());
}

/// Says that the process has ended and its id may belong to somebody else.
pub fn forget_process(pid: u32) {
    tell("-process", &pid.to_string());
}

/// Has the directory removed when the test process ends.
pub fn watch_directory(path: &Path) {
    tell("+directory", &path.display().to_string());
}

/// Says that the directory is gone.
pub fn forget_directory(path: &Path) {
    tell("-directory", &path.display().to_string());
}
