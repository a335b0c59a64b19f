//! Figures of the process, by the names that Prometheus' own libraries give them. What the system does not tell is left out.

use std::fs;
use std::time::UNIX_EPOCH;

use rustix::time::{ClockId, clock_gettime};

use super::{Kind, Metric};
use crate::admin::Admin;

pub(super) fn metrics(admin: &Admin) -> Vec<Metric> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name| of_status(&status, name).map(|value| value * 1024.0);
    let began = admin.began().duration_since(UNIX_EPOCH);
    let gauge = |name, help, value: Option<f64>| {
        value.map(|value| Metric::single(name, help, Kind::Gauge, value))
    };
    let cpu = Metric::single(
        "process_cpu_seconds_total",
        "Time that the process has used on processors, user and system.",
        Kind::Counter,
        cpu_seconds(),
    );
    let gauges = [
        gauge(
            "process_start_time_seconds",
            "When the process began, seconds since 1970.",
            began.ok().map(|since| since.as_secs_f64()),
        ),
        gauge(
            "process_resident_memory_bytes",
            "Memory of the process that is in use.",
            kilobytes("VmRSS:"),
        ),
        gauge(
            "process_virtual_memory_bytes",
            "Memory that the process has asked for.",
            kilobytes("VmSize:"),
        ),
        gauge(
            "process_threads",
            "Threads of the process.",
            of_status(&status, "Threads:"),
        ),
        gauge(
            "process_open_fds",
            "Open files and sockets.",
            open_files().map(|n| n as f64),
        ),
        gauge(
            "process_max_fds",
            "Most open files and sockets that the process may have.",
            most_files(&fs::read_to_string("/proc/self/limits").unwrap_or_default()),
        ),
    ];
    std::iter::once(cpu)
        .chain(gauges.into_iter().flatten())
        .collect()
}

fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// A number of `/proc/self/status`.
fn of_status(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<usize> {
    // The one that the list itself is read from is not counted.
    Some(
        fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1),
    )
}

/// The soft limit in `/proc/self/limits`.
fn most_files(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_what_the_system_writes() {
        let status = "Name:\tpgdog\nVmSize:\t  123456 kB\nVmRSS:\t    2048 kB\nThreads:\t5\n";
        assert_eq!(of_status(status, "VmRSS:"), Some(2048.0));
        assert_eq!(of_status(status, "Threads:"), Some(5.0));
        assert_eq!(of_status(status, "VmSwap:"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(most_files(limits), Some(1024.0));
    }

    #[test]
    fn a_process_has_used_a_processor() {
        assert!(cpu_seconds() > 0.0);
    }
}
