//! The rows of the table: what is measured, on whom, and how often.

use std::cell::OnceCell;

use anyhow::Result;

use crate::args::Args;
use crate::host::{Scratch, Unprivileged};
use crate::load::{Length, Load, Protocol};
use crate::peer::{Kind, Login, Peer, Running, Surroundings};
use crate::postgres::Postgres;
use crate::report::Figures;
use crate::tls::Tls;
use crate::{bulk, host, idle, tools};

/// One thing to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Row {
    /// Reads by primary key.
    Select { protocol: Protocol, clients: u32 },
    /// The same reads with and without a second host that answers half of them.
    Split(Protocol),
    /// The TPC-B-like script, seven statements a transaction.
    TpcB,
    /// A login per transaction.
    Connect { tls: bool },
    /// COPY FROM STDIN.
    CopyIn,
    /// A SELECT of many rows.
    WideResult,
    /// Memory per client that waits.
    Idle { tls: bool },
    /// Instructions per transaction.
    Instructions(Protocol),
    /// The same with a second host that answers half of them.
    SplitInstructions(Protocol),
    /// Send calls for a pipeline of ten queries.
    Sends,
}

impl Row {
    pub(crate) fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for clients in [1, 16, 64, 256] {
            rows.extend(Protocol::ALL.map(|protocol| Self::Select { protocol, clients }));
        }
        rows.extend(Protocol::ALL.map(Self::Split));
        rows.extend([
            Self::TpcB,
            Self::Connect { tls: false },
            Self::Connect { tls: true },
            Self::CopyIn,
            Self::WideResult,
        ]);
        rows.extend([Self::Idle { tls: false }, Self::Idle { tls: true }]);
        rows.extend([
            Self::Instructions(Protocol::Simple),
            Self::Instructions(Protocol::Prepared),
        ]);
        rows.extend(Protocol::ALL.map(Self::SplitInstructions));
        rows.push(Self::Sends);
        rows
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Select { protocol, clients } => format!("S-{}-{clients}", protocol.name()),
            Self::Split(protocol) => format!("split-{}-16", protocol.name()),
            Self::TpcB => "tpcb-simple-16".to_owned(),
            Self::Connect { tls: false } => "connect-scram".to_owned(),
            Self::Connect { tls: true } => "connect-scram-tls".to_owned(),
            Self::CopyIn => "copy-in".to_owned(),
            Self::WideResult => "wide-result".to_owned(),
            Self::Idle { tls: false } => "idle-plain".to_owned(),
            Self::Idle { tls: true } => "idle-tls".to_owned(),
            Self::Instructions(protocol) => format!("instructions-{}", protocol.name()),
            Self::SplitInstructions(protocol) => format!("instructions-split-{}", protocol.name()),
            Self::Sends => "sends-pipeline".to_owned(),
        }
    }

    /// Figures that do not depend on the machine's load are taken once.
    pub(crate) fn rounds(&self, wanted: usize) -> usize {
        match self {
            Self::Idle { .. }
            | Self::Instructions(_)
            | Self::SplitInstructions(_)
            | Self::Sends => 1,
            _ => wanted,
        }
    }

    pub(crate) fn runs_on(&self, kind: Kind) -> bool {
        match (self, kind) {
            // What choosing a host costs is what the same proxy costs more than with one host: nobody else is asked.
            (Self::Split(_) | Self::SplitInstructions(_), kind) => {
                matches!(kind, Kind::PgDog { workers: 1 } | Kind::PgDogSplit)
            }
            (_, Kind::PgDogSplit) => false,
            // Two workers are about throughput; what one transaction costs is judged on one.
            (Self::Select { clients, .. }, Kind::PgDog { workers: 2 }) => *clients == 16,
            (_, Kind::PgDog { workers }) => workers == 1,
            // Postgres trusts its clients here, so there is no login to compare with, and no proxy to look into.
            (
                Self::Connect { .. } | Self::Idle { .. } | Self::Instructions(_) | Self::Sends,
                Kind::Direct,
            ) => false,
            _ => true,
        }
    }
}

/// Sizes of what is not measured by time.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    copy_megabytes: u64,
    wide_rows: u64,
    idle: [usize; 2],
    instructions: [u64; 2],
    pipelines: usize,
}

/// Everything the measurements share.
pub(crate) struct Bench {
    pub(crate) peers: Vec<Peer>,
    // Before the primary: it ends first.
    replica: OnceCell<Postgres>,
    postgres: Postgres,
    tls: Tls,
    user: Option<Unprivileged>,
    length: Length,
    sizes: Sizes,
    facts: Vec<(&'static str, String)>,
    // Last: the folder goes when all that lives in it is gone.
    scratch: Scratch,
}

impl Bench {
    /// Finds the peers and starts Postgres.
    pub(crate) fn start(args: &Args) -> Result<Self> {
        let peers = find_peers(args);
        let scratch = Scratch::new()?;
        let user = Unprivileged::find()?;
        let (scale, sizes) = if args.quick {
            (
                1,
                Sizes {
                    copy_megabytes: 20,
                    wide_rows: 100_000,
                    idle: [100, 1_000],
                    instructions: [200, 1_200],
                    pipelines: 10,
                },
            )
        } else {
            (
                10,
                Sizes {
                    copy_megabytes: 200,
                    wide_rows: 1_000_000,
                    idle: [1_000, 10_000],
                    instructions: [1_000, 6_000],
                    pipelines: 50,
                },
            )
        };
        let postgres = Postgres::start(&scratch.folder("postgres")?, user.as_ref(), scale)?;
        let tls = Tls::create(scratch.path())?;
        let mut facts = vec![
            ("postgres", postgres.sql("postgres", "SHOW server_version")?),
            (
                "machine",
                format!(
                    "{} CPUs, Linux {}",
                    cpus(),
                    std::fs::read_to_string("/proc/sys/kernel/osrelease")
                        .unwrap_or_default()
                        .trim()
                ),
            ),
            (
                "setting",
                format!(
                    "{} s a run, scale {scale}, fsync off, 20 servers a pool, transaction mode, one worker unless named",
                    args.duration().as_secs()
                ),
            ),
        ];
        facts.extend(
            peers
                .iter()
                .filter(|peer| peer.kind != Kind::Direct)
                .map(|peer| (peer.name, peer.version())),
        );
        Ok(Self {
            peers,
            replica: OnceCell::new(),
            postgres,
            tls,
            user,
            length: Length::Time(args.duration()),
            sizes,
            facts,
            scratch,
        })
    }

    /// What a reader must know to judge the figures.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        self.facts.clone()
    }

    /// A streaming replica, made when a row first needs it: it costs the others' figures nothing.
    fn replica(&self) -> Result<&Postgres> {
        if let Some(replica) = self.replica.get() {
            return Ok(replica);
        }
        let folder = self.scratch.folder("replica")?;
        let replica = self.postgres.replicate(&folder, self.user.as_ref())?;
        Ok(self.replica.get_or_init(|| replica))
    }

    /// Measures one row on one peer, which is started and stopped for it.
    pub(crate) fn measure(&self, row: &Row, peer: &Peer) -> Result<Figures> {
        let folder = self.scratch.folder("run")?;
        let replica = match row {
            // It is there for both, used or not.
            Row::Split(_) | Row::SplitInstructions(_) => Some(self.replica()?),
            _ => None,
        };
        let replica = replica.filter(|_| peer.kind == Kind::PgDogSplit);
        let at = Surroundings {
            postgres: &self.postgres,
            replica,
            tls: &self.tls,
            folder: &folder,
            user: self.user.as_ref(),
        };
        let start = |login| -> Result<Running> { peer.start(&at, login, &[]) };
        match *row {
            Row::Select { protocol, clients } => Load::select(protocol, clients, self.length)
                .measure(&self.postgres, &start(Login::Trust)?, &folder),
            Row::Split(protocol) => {
                let running = start(Login::Trust)?;
                let load = Load::select(protocol, 16, self.length);
                let figures = load.measure(&self.postgres, &running, &folder)?;
                replica.map_or(Ok(()), has_answered)?;
                Ok(figures)
            }
            Row::TpcB => {
                let load = Load {
                    script: "tpcb-like",
                    ..Load::select(Protocol::Simple, 16, self.length)
                };
                load.measure(&self.postgres, &start(Login::Trust)?, &folder)
            }
            Row::Connect { tls } => {
                let load = Load {
                    reconnect: true,
                    tls,
                    ..Load::select(Protocol::Simple, 8, self.length)
                };
                load.measure(&self.postgres, &start(Login::Scram)?, &folder)
            }
            Row::CopyIn => bulk::copy_in(
                &self.postgres,
                &start(Login::Trust)?,
                &folder,
                self.sizes.copy_megabytes,
            ),
            Row::WideResult => bulk::wide_result(&start(Login::Trust)?, self.sizes.wide_rows),
            Row::Idle { tls } => {
                let [few, many] = self.sizes.idle;
                idle::clients(
                    &start(Login::Trust)?,
                    tls.then_some(&self.tls.client),
                    few,
                    many,
                )
            }
            Row::Instructions(protocol) | Row::SplitInstructions(protocol) => {
                tools::instructions(peer, &at, protocol, self.sizes.instructions)
            }
            Row::Sends => tools::sends(&start(Login::Trust)?, &folder, self.sizes.pipelines),
        }
    }
}

/// A second host that answers nothing costs nothing, and would make a fine figure.
pub(crate) fn has_answered(replica: &Postgres) -> Result<()> {
    let reads = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT abalance%'";
    anyhow::ensure!(
        replica.sql("postgres", reads)? != "0",
        "the replica has answered no read"
    );
    Ok(())
}

/// The columns: what is not there is left out, and said.
fn find_peers(args: &Args) -> Vec<Peer> {
    let named = |path: &Option<String>| {
        path.clone()
            .filter(|path| !path.is_empty())
            .map(std::path::PathBuf::from)
    };
    let mut peers = vec![Peer {
        name: "direct",
        kind: Kind::Direct,
        program: std::path::PathBuf::new(),
    }];
    let mut add = |name, kind, program: Option<std::path::PathBuf>| match program
        .filter(|program| program.is_file())
    {
        Some(program) => peers.push(Peer {
            name,
            kind,
            program,
        }),
        None => eprintln!("no {name}: that column is left out"),
    };
    add(
        "pgbouncer",
        Kind::PgBouncer,
        named(&args.pgbouncer).or_else(|| host::program("pgbouncer")),
    );
    if let Some(program) = named(&args.odyssey) {
        add("odyssey", Kind::Odyssey, Some(program));
    }
    add("pgdog", Kind::PgDog { workers: 1 }, Some(args.pgdog()));
    add("pgdog-split", Kind::PgDogSplit, Some(args.pgdog()));
    add("pgdog-2w", Kind::PgDog { workers: 2 }, Some(args.pgdog()));
    peers
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}
