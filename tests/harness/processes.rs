//! All processes of a server at once: its postmaster and what that has forked.

use std::fs;
use std::process::{Command, Stdio};

/// The process, and its children as `/proc` has them at this moment.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    pids.extend(children(pid));
    pids
}

/// The children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The program's name comes second, in parentheses, and may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(&*parent.to_string())
    };
    fs::read_dir("/proc")
        .expect("this is Linux")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}

/// Sends a signal by name. Those that have gone meanwhile are no error.
pub fn signal(pids: &[u32], name: &str) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    if pids.is_empty() {
        return;
    }
    Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", pids.join(" "))])
        .stderr(Stdio::null())
        .status()
        .expect("sh runs");
}

/// Stops a process and its children, and gives their ids. The parent first: it can fork no more while the others are looked for.
pub fn freeze(pid: u32) -> Vec<u32> {
    signal(&[pid], "STOP");
    let children = children(pid);
    signal(&children, "STOP");
    let mut frozen = vec![pid];
    frozen.extend(children);
    frozen
}
