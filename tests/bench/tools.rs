//! Figures that do not depend on how busy the machine is: instructions (valgrind) and system calls (strace).

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::client::Client;
use crate::host;
use crate::load::{Length, Load, Protocol};
use crate::peer::{Login, Peer, Running, Surroundings};
use crate::report::{Figures, Metric};
use crate::rows;

/// User-mode instructions per transaction of one client: the difference of two runs, so that start and end drop out.
pub(crate) fn instructions(
    peer: &Peer,
    at: &Surroundings<'_>,
    protocol: Protocol,
    runs: [u64; 2],
) -> Result<Figures> {
    anyhow::ensure!(host::has_program("valgrind"), "valgrind is not installed");
    let mut counted = [0.0; 2];
    for (count, transactions) in counted.iter_mut().zip(runs) {
        *count = callgrind(peer, at, protocol, transactions)?;
    }
    let [few, many] = counted;
    let [fewer, more] = runs;
    Ok(vec![(
        Metric::Instructions,
        (many - few) / (more - fewer) as f64,
    )])
}

fn callgrind(
    peer: &Peer,
    at: &Surroundings<'_>,
    protocol: Protocol,
    transactions: u64,
) -> Result<f64> {
    let out = at.folder.join("callgrind.out");
    fs::write(&out, "").context("create callgrind's output")?;
    // A peer that changes its user opens the file again when it ends, as that user.
    fs::set_permissions(&out, fs::Permissions::from_mode(0o666))
        .context("create callgrind's output")?;
    // Children: a peer may be a shell script that starts the program.
    let wrapper: [OsString; 5] = [
        "valgrind".into(),
        "--quiet".into(),
        "--tool=callgrind".into(),
        "--trace-children=yes".into(),
        format!("--callgrind-out-file={}", out.display()).into(),
    ];
    let mut running = peer.start(at, Login::Trust, &wrapper)?;
    Load::select(protocol, 1, Length::Transactions(transactions)).run(
        at.postgres,
        running.port,
        None,
    )?;
    at.replica.map_or(Ok(()), rows::has_answered)?;
    running.stop();
    let text = fs::read_to_string(&out).context("read callgrind's output")?;
    let total = text.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or_else(|| line.strip_prefix("summary: "))
    });
    total
        .context("find the total of callgrind")?
        .trim()
        .parse()
        .context("read the total of callgrind")
}

/// Sends of the proxy for one pipeline of ten queries that the client wrote at once. Two are the least: one to each side.
pub(crate) fn sends(running: &Running, folder: &Path, pipelines: usize) -> Result<Figures> {
    anyhow::ensure!(host::has_program("strace"), "strace is not installed");
    let pid = running.pid().context("find the proxy")?;
    let mut client = Client::connect(running.port, None)?;
    client.pipeline(10)?;
    let out = folder.join("strace.out");
    let mut strace = Command::new("strace");
    // -y names what a descriptor is: writes to an eventfd wake a thread, they send nothing.
    strace
        .args([
            "-f",
            "-y",
            "-e",
            "trace=sendto,sendmsg,write,writev",
            "-p",
            &pid.to_string(),
            "-o",
        ])
        .arg(&out);
    let mut strace = strace
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("run strace")?;
    let attached = wait_for_tracer(pid);
    let done =
        attached.and_then(|()| (0..pipelines).try_for_each(|_| client.pipeline(10).map(drop)));
    host::signal(strace.id(), "INT");
    drop(strace.wait());
    done?;
    let text = fs::read_to_string(&out).context("read what strace saw")?;
    let socket = |line: &&str| line.contains("<socket:") || line.contains("<TCP");
    let sends = text
        .lines()
        .filter(|line| !line.contains("resumed>"))
        .filter(socket)
        .count();
    Ok(vec![(Metric::Sends, sends as f64 / pipelines as f64)])
}

fn wait_for_tracer(pid: u32) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .context("list the threads of the proxy")?
            .flatten();
        let traced = tasks.all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|line| {
                line.strip_prefix("TracerPid:")
                    .is_some_and(|tracer| tracer.trim() != "0")
            })
        });
        if traced {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "strace may not look at the proxy");
        std::thread::sleep(Duration::from_millis(20));
    }
}
