//! What a process has used so far, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks of /proc are hundredths of a second on every Linux.
const TICK_US: f64 = 10_000.0;

/// CPU and context switches of a process with all its threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) user_us: f64,
    pub(crate) sys_us: f64,
    /// Of the threads that still live.
    pub(crate) switches: f64,
}

impl Usage {
    /// Nothing for no process: "direct" has no proxy.
    pub(crate) fn of(pid: Option<u32>) -> Result<Self> {
        let Some(pid) = pid else {
            return Ok(Self::default());
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .context("read the CPU time of the proxy")?;
        // The program's name comes second, in parentheses, and may hold anything.
        let (_, after_name) = stat
            .rsplit_once(')')
            .context("read the CPU time of the proxy")?;
        let ticks = |field: usize| -> Result<f64> {
            let text = after_name
                .split_whitespace()
                .nth(field)
                .context("read the CPU time of the proxy")?;
            text.parse().context("read the CPU time of the proxy")
        };
        Ok(Self {
            user_us: ticks(11)? * TICK_US,
            sys_us: ticks(12)? * TICK_US,
            switches: switches(pid)?,
        })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user_us: self.user_us - earlier.user_us,
            sys_us: self.sys_us - earlier.sys_us,
            switches: self.switches - earlier.switches,
        }
    }

    pub(crate) fn cpu_us(self) -> f64 {
        self.user_us + self.sys_us
    }
}

fn switches(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for task in
        fs::read_dir(format!("/proc/{pid}/task")).context("list the threads of the proxy")?
    {
        let path = task
            .context("list the threads of the proxy")?
            .path()
            .join("status");
        // A thread may end between the listing and here.
        let Ok(status) = fs::read_to_string(path) else {
            continue;
        };
        sum += status
            .lines()
            .filter(|line| line.contains("ctxt_switches:"))
            .filter_map(number)
            .sum::<f64>();
    }
    Ok(sum)
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .context("read the memory of the proxy")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("read the memory of the proxy")?;
    Ok(number(line).context("read the memory of the proxy")? * 1024.0)
}

fn number(line: &str) -> Option<f64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_used() {
        let pid = std::process::id();
        assert!(Usage::of(Some(pid)).unwrap().switches > 0.0);
        assert!(resident(pid).unwrap() > 100_000.0);
        assert!(Usage::of(None).unwrap().cpu_us() == 0.0);
    }
}
