//! The proxy as users run it: the built program, two files, one process.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::postgres::{signal, wait_for};
use crate::proxy_config::ProxyConfig;
use crate::raw::RawClient;
use crate::scratch::{Scratch, free_port};
use crate::{binaries, guardian, wait};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running proxy, stopped when dropped.
#[derive(Debug)]
pub struct Proxy {
    scratch: Scratch,
    port: u16,
    process: Option<Child>,
    /// The program that starts it, with its arguments; empty where nothing has to be done before.
    by: Vec<String>,
}

impl Proxy {
    /// Starts the proxy and waits until it accepts connections.
    pub fn start(config: &ProxyConfig) -> Self {
        Self::start_with(config, &[])
    }

    /// Starts the proxy with further command-line arguments.
    pub fn start_with(config: &ProxyConfig, arguments: &[&str]) -> Self {
        Self::start_by(&[], config, arguments)
    }

    /// Starts the proxy by a program, which gets the proxy's command as further arguments and becomes the proxy.
    pub fn start_by(program: &[&str], config: &ProxyConfig, arguments: &[&str]) -> Self {
        for attempt in 1.. {
            let port = free_port();
            let mut proxy = Self::launch_by(program, config, port, arguments);
            let mut ended = false;
            let accepts = wait::until(START_LIMIT, || {
                ended = proxy.has_ended();
                ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            if accepts && !ended {
                return proxy;
            }
            let log = proxy.log();
            assert!(
                attempt < 5 && log.contains("in use"),
                "the proxy does not start:\n{log}"
            );
        }
        unreachable!("the loop returns or panics")
    }

    /// Starts the proxy without waiting for anything, for configurations that it shall refuse.
    pub fn launch(config: &ProxyConfig, port: u16, arguments: &[&str]) -> Self {
        Self::launch_by(&[], config, port, arguments)
    }

    fn launch_by(program: &[&str], config: &ProxyConfig, port: u16, arguments: &[&str]) -> Self {
        let scratch = Scratch::new("proxy");
        let mut proxy = Self {
            scratch,
            port,
            process: None,
            by: program.iter().map(|&word| word.to_owned()).collect(),
        };
        proxy.write_config(config);
        proxy.spawn(arguments, &[]);
        proxy
    }

    /// Starts it once more in the same directory, with the files that are there now, and waits for nothing. A process that
    /// still runs is killed. The log begins anew.
    pub fn start_again(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        if let Some(mut child) = self.process.take() {
            child.kill().ok();
            child.wait().ok();
            guardian::forget_process(child.id());
        }
        self.spawn(arguments, environment);
    }

    fn spawn(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let log = fs::File::create(self.path("log")).expect("the scratch directory is writable");
        let log_too = log.try_clone().expect("a file handle can be cloned");
        let mut command = match self.by.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binaries::pgdog());
                command
            }
            None => Command::new(binaries::pgdog()),
        };
        // Those of the tests are none of the proxy's.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PGDOG_")) {
            command.env_remove(name);
        }
        let child = command
            .arg("run")
            .arg("--config")
            .arg(self.path("pgdog.toml"))
            .arg("--users")
            .arg(self.path("users.toml"))
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .expect("the proxy runs");
        guardian::watch_process(child.id());
        self.process = Some(child);
    }

    /// The port of an HTTP endpoint by its key, as the log tells it; waits for it.
    pub fn http_port(&self, key: &str) -> u16 {
        let said = format!("{key}: ");
        let port = || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| line.contains(&said) && line.contains(" on "))?;
            line.rsplit(':').next()?.trim().parse().ok()
        };
        assert!(
            wait::until(START_LIMIT, || port().is_some()),
            "no {key}:\n{}",
            self.log()
        );
        port().expect("it was there")
    }

    /// The port clients connect to on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process
            .as_ref()
            .expect("it has not been waited for")
            .id()
    }

    /// A file in its own directory: `pgdog.toml`, `users.toml`, `log`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Logs a client in.
    pub fn client(&self, user: &str, database: &str) -> RawClient {
        RawClient::login(self.port, user, database)
    }

    /// Writes another configuration; it counts after [`Proxy::reload`].
    pub fn write_config(&self, config: &ProxyConfig) {
        fs::write(self.path("pgdog.toml"), config.pgdog_toml(self.port))
            .expect("the scratch directory is writable");
        fs::write(self.path("users.toml"), config.users_toml())
            .expect("the scratch directory is writable");
    }

    /// Sends SIGHUP.
    pub fn reload(&self) {
        signal(self.pid(), "HUP");
    }

    /// Sends SIGTERM: drain and leave.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Sends a signal by name, such as `STOP` or `USR1`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Whether the process is gone.
    pub fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Waits for the end and returns the exit code; none when a signal (or, after `limit`, this call) ended it.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.process.take().expect("it is waited for once");
        wait_for(&mut child, limit)?.code()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().ok();
            child.wait().ok();
            guardian::forget_process(child.id());
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- end of the proxy's log ---");
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
