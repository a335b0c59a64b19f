//! The proxies: how each is configured, started and stopped.

use std::ffi::OsString;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host::{self, Unprivileged};
use crate::postgres::{DATABASE, PASSWORD, Postgres, USER};
use crate::tls::Tls;

/// Server connections of every pool.
const POOL_SIZE: u32 = 20;

/// What stands between the clients and Postgres.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Nothing.
    Direct,
    PgBouncer,
    Odyssey,
    PgDog {
        workers: u32,
    },
    /// One worker in front of a primary and a replica, with reads on both.
    PgDogSplit,
}

/// One column of the table.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
}

/// How clients log in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Login {
    Trust,
    Scram,
}

/// What a peer is configured with.
pub(crate) struct Surroundings<'a> {
    pub(crate) postgres: &'a Postgres,
    /// The second host of [`Kind::PgDogSplit`].
    pub(crate) replica: Option<&'a Postgres>,
    pub(crate) tls: &'a Tls,
    /// For the peer's files; all users may write to it.
    pub(crate) folder: &'a Path,
    pub(crate) user: Option<&'a Unprivileged>,
}

impl Peer {
    /// What the program says it is.
    pub(crate) fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default()
            .lines()
            .next()
            .unwrap_or("unknown")
            .trim()
            .to_owned()
    }

    /// Starts the peer below `wrapper` (valgrind and its arguments, or nothing) and waits until it listens.
    pub(crate) fn start(
        &self,
        at: &Surroundings<'_>,
        login: Login,
        wrapper: &[OsString],
    ) -> Result<Running> {
        if self.kind == Kind::Direct {
            return Ok(Running {
                port: at.postgres.port,
                stop_signal: "TERM",
                child: None,
            });
        }
        let port = host::free_port()?;
        let arguments = self
            .configure(at, login, port)
            .context("write the configuration")?;
        let mut words: Vec<OsString> = wrapper.to_vec();
        words.push(self.program.clone().into_os_string());
        words.extend(arguments);
        let log_path = at.folder.join(format!("{}.log", self.name));
        let log = fs::File::create(&log_path).context("create the proxy's log")?;
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("create the proxy's log")?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let stop_signal = if self.kind == Kind::PgBouncer {
            "INT"
        } else {
            "TERM"
        };
        let mut running = Running {
            port,
            stop_signal,
            child: Some(child),
        };
        running.wait_until_listening().with_context(|| {
            let log = fs::read_to_string(&log_path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!(
                "{}: {}",
                self.name,
                lines[lines.len().saturating_sub(5)..].join(" | ")
            )
        })?;
        Ok(running)
    }

    /// Writes the configuration; gives the arguments that name it.
    fn configure(&self, at: &Surroundings<'_>, login: Login, port: u16) -> Result<Vec<OsString>> {
        let write = |name: &str, text: String| -> Result<OsString> {
            let path = at.folder.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(path.into_os_string())
        };
        let verifier = &at.postgres.verifier;
        let known = [
            ("@PORT@", port.to_string()),
            ("@POSTGRES@", at.postgres.port.to_string()),
            ("@POOL@", POOL_SIZE.to_string()),
            ("@USER@", USER.to_owned()),
            ("@DATABASE@", DATABASE.to_owned()),
            ("@CERT@", at.tls.certificate.display().to_string()),
            ("@KEY@", at.tls.key.display().to_string()),
            ("@VERIFIER@", verifier.clone()),
            // Odyssey takes no verifier of so few iterations, so it has to derive its own.
            ("@PASSWORD@", PASSWORD.to_owned()),
            ("@FOLDER@", at.folder.display().to_string()),
        ];
        let fill = |template: &str| {
            known
                .iter()
                .fold(template.to_owned(), |text, (mark, value)| {
                    text.replace(mark, value)
                })
        };
        match self.kind {
            Kind::Direct => Ok(Vec::new()),
            Kind::PgBouncer => {
                write("userlist.txt", fill("\"@USER@\" \"@VERIFIER@\"\n"))?;
                let auth = if login == Login::Trust {
                    "trust"
                } else {
                    "scram-sha-256"
                };
                let mut ini = fill(include_str!("pgbouncer.ini")).replace("@AUTH@", auth);
                if manages_statements(&self.version()) {
                    ini.push_str(
                        "max_prepared_statements = 200
",
                    );
                }
                let ini = write("pgbouncer.ini", ini)?;
                // It refuses to run as root, and changes user itself: so it may lie where only root can read.
                let user = at.user.map(|user| ["-u".into(), user.name.clone().into()]);
                Ok(user.into_iter().flatten().chain([ini]).collect())
            }
            Kind::Odyssey => {
                let auth = if login == Login::Trust {
                    "authentication \"none\"".to_owned()
                } else {
                    fill("authentication \"scram-sha-256\"\n    password \"@PASSWORD@\"")
                };
                Ok(vec![write(
                    "odyssey.conf",
                    fill(include_str!("odyssey.conf")).replace("@AUTH@", &auth),
                )?])
            }
            Kind::PgDog { .. } | Kind::PgDogSplit => {
                let workers = match self.kind {
                    Kind::PgDog { workers } => workers,
                    _ => 1,
                };
                let auth = if login == Login::Trust {
                    "trust"
                } else {
                    "scram"
                };
                let mut config = fill(include_str!("pgdog.toml"))
                    .replace("@AUTH@", auth)
                    .replace("@WORKERS@", &workers.to_string());
                if let Some(replica) = at.replica {
                    let template = fill(include_str!("pgdog-split.toml"));
                    config.push_str(&template.replace("@REPLICA@", &replica.port.to_string()));
                }
                let secret = if login == Login::Trust {
                    String::new()
                } else {
                    fill("password_hash = \"@VERIFIER@\"\n")
                };
                let config = write("pgdog.toml", config)?;
                let users = write(
                    "users.toml",
                    fill("[[users]]\nname = \"@USER@\"\ndatabase = \"@DATABASE@\"\n") + &secret,
                )?;
                Ok(vec![
                    "run".into(),
                    "--config".into(),
                    config,
                    "--users".into(),
                    users,
                ])
            }
        }
    }
}

/// pgbouncer does so since 1.21, and refuses to start when an older one finds the key. Debian 12 still has 1.18.
fn manages_statements(version: &str) -> bool {
    let minor = version
        .split_once(" 1.")
        .and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_none_or(|minor| minor >= 21)
}

/// A started peer; it ends with its value.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) port: u16,
    stop_signal: &'static str,
    child: Option<Child>,
}

impl Running {
    /// The proxy's process; none when there is no proxy.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        // Generous, because of valgrind.
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()
                .context("wait for the proxy")?
                .flatten()
            {
                bail!("ended with {status}");
            }
            anyhow::ensure!(Instant::now() < end, "does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks the peer to end, and makes it end if it does not.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        host::signal(child.id(), self.stop_signal);
        let end = Instant::now() + Duration::from_secs(20);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(child.kill());
        drop(child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_pgbouncer_does_not_manage_prepared_statements() {
        assert!(!manages_statements("PgBouncer 1.18.0"));
        assert!(manages_statements("PgBouncer 1.26.1"));
        assert!(manages_statements("PgBouncer 2.0.0"));
    }
}
