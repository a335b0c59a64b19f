//! `Config` → `Settings`, with everything that is wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Admin, ClientTimeouts, ClientTls, Dedup, Hba, Listen, Log, LoginLimits, Peer, Settings, Tcp,
    auth_query, balancing, http, mirrors, pools,
};
use crate::general::General;
use crate::modes::{AuthType, ClientAuth, Role, TlsMode};
use crate::net;
use crate::problem::{Problem, ProblemCode, Problems, Severity};
use crate::unsupported;
use crate::{Config, documents};

/// The configuration and what was found wrong with it so far.
pub(super) struct Report<'a> {
    pub(super) config: &'a Config,
    problems: Vec<Problem>,
}

impl Report<'_> {
    pub(super) fn error(&mut self, path: &str, code: ProblemCode, message: impl Into<String>) {
        self.problems
            .push(self.config.origin.place(path).error(path, code, message));
    }

    /// An error that several places may find.
    pub(super) fn error_once(&mut self, path: &str, code: ProblemCode, message: String) {
        let problem = self.config.origin.place(path).error(path, code, message);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn warning(&mut self, path: &str, code: ProblemCode, message: impl Into<String>) {
        self.error(path, code, message);
        if let Some(problem) = self.problems.last_mut() {
            problem.severity = Severity::Warning;
        }
    }
}

/// Averages over no time cannot be taken.
const STATS_PERIOD: Duration = Duration::from_secs(15);

pub(super) fn build(
    config: &Config,
    pod_uid: Option<&str>,
) -> Result<(Settings, Vec<Problem>), Problems> {
    let mut report = Report {
        config,
        problems: config.warnings.clone(),
    };
    let general = &config.general;
    let (peer_id, peers) = peers(&mut report, pod_uid);
    budget(&mut report);
    databases(&mut report);
    server_tls(&mut report);
    auth(&mut report);
    let (users, guest_pools) = pools::users(&mut report);
    let settings = Settings {
        listen: listen(&mut report),
        workers: general.workers.max(1),
        // Where rules choose the method there is none for all; nobody may get by with less than this one.
        auth: general.auth_type.method().unwrap_or(AuthType::Scram),
        hba: hba(&mut report),
        login_limits: LoginLimits {
            free_failures: general.auth_failure_free,
            failure_delay: limit(general.auth_failure_delay),
            failure_delay_max: millis(general.auth_failure_delay_max),
            per_address: count(general.max_logins_per_address),
        },
        auth_queries: auth_query::all(&mut report),
        passthrough: general.passthrough_auth,
        guest_pools,
        guest_max_clients: count(general.max_user_client_connections),
        plain_without_tls: general.plain_without_tls,
        client_tls: client_tls(&mut report),
        timeouts: ClientTimeouts {
            login: millis(general.client_login_timeout),
            idle: general.client_idle_timeout.and_then(limit),
            idle_in_transaction: general.client_idle_in_transaction_timeout.and_then(limit),
            transaction: general.transaction_timeout.and_then(limit),
            query: general.query_timeout.and_then(limit),
        },
        shutdown_timeout: millis(general.shutdown_timeout),
        shutdown_termination_timeout: general.shutdown_termination_timeout.and_then(limit),
        max_client_conn: count(general.max_client_conn),
        prepared: general.prepared_statements,
        prepared_limit: general.prepared_statements_limit.and_then(size),
        pub_sub: Some(general.pub_sub_channel_size).filter(|size| *size > 0),
        query_size_limit: general
            .query_size_limit
            .and_then(size)
            .map(|limit| (limit, general.query_size_limit_action)),
        recovery: general.connection_recovery,
        client_recovery: general.client_connection_recovery,
        rollback_timeout: millis(general.rollback_timeout),
        log: Log {
            format: general.log_format,
            level: general.log_level.clone(),
            connections: general.log_connections,
            disconnections: general.log_disconnections,
            query_sample_length: general.log_query_sample_length,
            min_duration_query: general
                .log_min_duration_query
                .filter(|&time| time < i64::MAX as u64)
                .map(millis),
            dedup: dedup(general),
        },
        query_stats: Some(config.query_stats.max_entries)
            .filter(|&entries| config.query_stats.enabled && entries > 0),
        stats_period: limit(general.stats_period).unwrap_or(STATS_PERIOD),
        tcp: Tcp {
            keepalive: config.tcp.keepalive,
            time: config.tcp.time.and_then(limit),
            interval: config.tcp.interval.and_then(limit),
            retries: config.tcp.retries,
            user_timeout: config.tcp.user_timeout.and_then(limit),
        },
        peer_id,
        peers,
        admin: Admin {
            name: config.admin.name.clone(),
            user: config.admin.user.clone(),
            password: config
                .admin
                .password
                .as_ref()
                .map(|password| password.reveal().to_owned()),
        },
        admin_http: http::admin(&mut report),
        plain_http: http::plain(&mut report),
        state_dir: path(config.admin.state_dir.as_ref()),
        watch: general.watch_config,
        balancing: balancing::balancing(config),
        checks: balancing::checks(config),
        mirrors: mirrors::all(&mut report, &users),
        users,
    };
    unsupported::warn(config, &mut report.problems);
    let mut problems = Problems(report.problems);
    problems
        .0
        .sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if problems.has_errors() {
        Err(problems)
    } else {
        Ok((settings, problems.0))
    }
}

/// A time that has to be there.
pub(super) fn millis(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// A time that is off when it is 0 or as large as a number can be.
pub(super) fn limit(value: u64) -> Option<Duration> {
    (value != 0 && value < i64::MAX as u64).then(|| Duration::from_millis(value))
}

/// A number where 0 means unlimited.
pub(super) fn count(value: u32) -> Option<u32> {
    (value != 0).then_some(value)
}

fn size(value: u64) -> Option<usize> {
    if value >= i64::MAX as u64 {
        None
    } else {
        usize::try_from(value).ok()
    }
}

pub(super) fn path(text: Option<&String>) -> Option<PathBuf> {
    text.filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn listen(report: &mut Report<'_>) -> Listen {
    let general = &report.config.general;
    let mode = &general.unix_socket_mode;
    let digits = mode.strip_prefix("0o").unwrap_or(mode);
    let unix_socket_mode = u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o777);
    if unix_socket_mode.is_none() {
        let message = format!("expected octal permissions as \"0777\", found \"{mode}\"");
        report.error("general.unix_socket_mode", ProblemCode::BadValue, message);
    }
    if general.host.is_empty() {
        report.error(
            "general.host",
            ProblemCode::BadValue,
            "expected an address, found an empty string",
        );
    }
    Listen {
        host: general.host.clone(),
        port: general.port,
        unix_socket_dir: path(general.unix_socket_dir.as_ref()),
        unix_socket_mode: unix_socket_mode.unwrap_or(0),
        backlog: general.listen_backlog,
    }
}

fn client_tls(report: &mut Report<'_>) -> Option<ClientTls> {
    let general = &report.config.general;
    let certificate = path(general.tls_certificate.as_ref());
    let private_key = path(general.tls_private_key.as_ref());
    let client_ca = path(general.tls_client_ca_certificate.as_ref());
    pair(
        report,
        [
            ("tls_certificate", certificate.is_some()),
            ("tls_private_key", private_key.is_some()),
        ],
    );
    if certificate.is_none() {
        let needs = "needs tls_certificate and tls_private_key";
        if general.tls_client_required {
            report.error("general.tls_client_required", ProblemCode::Conflict, needs);
        }
        if client_ca.is_some() {
            report.error(
                "general.tls_client_ca_certificate",
                ProblemCode::Conflict,
                needs,
            );
        }
    }
    let (Some(certificate), Some(private_key)) = (certificate, private_key) else {
        return None;
    };
    Some(ClientTls {
        certificate,
        private_key,
        client_ca,
        required: general.tls_client_required,
    })
}

fn auth(report: &mut Report<'_>) {
    let config = report.config;
    if config
        .admin
        .password
        .as_ref()
        .is_some_and(|password| password.reveal().is_empty())
    {
        let message = "an empty password; leave the key out for a random one";
        report.error("admin.password", ProblemCode::BadValue, message);
    }
    let general = &config.general;
    if general.auth_type == ClientAuth::Plain
        && !general.plain_without_tls
        && general.tls_certificate.is_none()
    {
        let message =
            "plain needs TLS, so nobody can log in: set tls_certificate or plain_without_tls";
        report.warning("general.auth_type", ProblemCode::Conflict, message);
    }
}

fn hba(report: &mut Report<'_>) -> Option<Hba> {
    let general = &report.config.general;
    let rules = path(general.auth_hba_file.as_ref());
    let maps = path(general.auth_ident_file.as_ref());
    if general.auth_type != ClientAuth::Hba {
        for (key, file) in [("auth_hba_file", &rules), ("auth_ident_file", &maps)] {
            if file.is_some() {
                let message = "only looked at with auth_type = \"hba\"";
                report.warning(&format!("general.{key}"), ProblemCode::Conflict, message);
            }
        }
        return None;
    }
    let Some(rules) = rules else {
        let message = "hba needs auth_hba_file";
        report.error("general.auth_type", ProblemCode::Conflict, message);
        return None;
    };
    Some(Hba { rules, maps })
}

fn server_tls(report: &mut Report<'_>) {
    let general = &report.config.general;
    pair(
        report,
        [
            (
                "tls_server_certificate",
                path(general.tls_server_certificate.as_ref()).is_some(),
            ),
            (
                "tls_server_private_key",
                path(general.tls_server_private_key.as_ref()).is_some(),
            ),
        ],
    );
    let checked = matches!(general.tls_verify, TlsMode::VerifyCa | TlsMode::VerifyFull);
    if checked && path(general.tls_server_ca_certificate.as_ref()).is_none() {
        let message = "checking the certificates of servers needs tls_server_ca_certificate";
        report.error("general.tls_verify", ProblemCode::Conflict, message);
    }
}

/// A certificate and its key: both or none.
fn pair(report: &mut Report<'_>, keys: [(&str, bool); 2]) {
    let ([(set, true), (missing, false)] | [(missing, false), (set, true)]) = keys else {
        return;
    };
    report.error(
        &format!("general.{set}"),
        ProblemCode::Conflict,
        format!("needs {missing}"),
    );
}

fn budget(report: &mut Report<'_>) {
    for (host, message) in documents::wrong_hosts(&report.config.budget) {
        let path = format!("budget.hosts.{host}");
        report.error(&path, ProblemCode::BadValue, message);
    }
}

fn dedup(general: &General) -> Option<Dedup> {
    let window = limit(general.log_dedup_window).filter(|_| general.log_dedup_threshold > 0)?;
    Some(Dedup {
        threshold: general.log_dedup_threshold,
        window,
    })
}

/// Bits that a cancel key has for the number of a proxy: 14.
const PEER_MAX: u16 = (1 << 14) - 1;

/// The number of this proxy, and the other ones of the fleet.
fn peers(report: &mut Report<'_>, pod_uid: Option<&str>) -> (u16, Vec<Peer>) {
    let config = report.config;
    if config.general.peer_id > PEER_MAX {
        let message = format!("expected a number up to {PEER_MAX}");
        report.error("general.peer_id", ProblemCode::BadValue, message);
    }
    let (mut seen, mut pods) = (BTreeSet::new(), BTreeSet::new());
    for (index, peer) in config.peers.iter().enumerate() {
        if let Some(pod) = peer.pod_uid.as_ref().filter(|pod| !pods.insert(*pod)) {
            report.error(
                &format!("peers[{index}].pod_uid"),
                ProblemCode::Duplicate,
                format!("a second peer in pod {pod:?}"),
            );
        }
        let path = format!("peers[{index}].id");
        if peer.id == 0 {
            report.error(
                &path,
                ProblemCode::BadValue,
                "0 is not the number of a peer",
            );
        } else if peer.id > PEER_MAX {
            let message = format!("expected a number up to {PEER_MAX}");
            report.error(&path, ProblemCode::BadValue, message);
        } else if !seen.insert(peer.id) {
            report.error(
                &path,
                ProblemCode::Duplicate,
                format!("a second peer {}", peer.id),
            );
        }
        if peer.port == 0 {
            report.error(
                &format!("peers[{index}].port"),
                ProblemCode::BadValue,
                "0 is not a port",
            );
        }
        if peer.host.is_empty() {
            report.error(
                &format!("peers[{index}].host"),
                ProblemCode::BadValue,
                "expected an address",
            );
        }
    }
    let fleet = config.peers.iter().any(|peer| peer.pod_uid.is_some());
    if !config.peers.is_empty() && config.general.peer_id == 0 && !fleet {
        report.error(
            "general.peer_id",
            ProblemCode::MissingKey,
            "needed where there are peers",
        );
    }
    let own = own_number(report, pod_uid);
    let others = config.peers.iter().filter(|peer| peer.id != own);
    let others = others.map(|peer| Peer {
        id: peer.id,
        host: peer.host.clone(),
        port: peer.port,
        pod_uid: peer.pod_uid.clone(),
    });
    (own, others.collect())
}

/// A fleet may share one list of peers, so a proxy finds itself in it: by the uid of its pod, else by its `peer_id`.
fn own_number(report: &mut Report<'_>, pod_uid: Option<&str>) -> u16 {
    let config = report.config;
    let own = config.general.peer_id;
    let Some(pod_uid) = pod_uid else { return own };
    let of_pod = |peer: &&net::Peer| peer.pod_uid.as_deref() == Some(pod_uid);
    if let Some(found) = config.peers.iter().find(of_pod) {
        return found.id;
    }
    let taken = |peer: &net::Peer| peer.id == own && peer.pod_uid.is_some();
    if config.peers.iter().any(taken) {
        let message = format!("{own} is that of another pod in the list of peers: not used");
        report.warning("general.peer_id", ProblemCode::Conflict, message);
        return 0;
    }
    own
}

fn databases(report: &mut Report<'_>) {
    let config = report.config;
    let mut shards: BTreeMap<&str, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut hosts = BTreeMap::new();
    let mut primaries = BTreeMap::new();
    for (index, database) in config.databases.iter().enumerate() {
        let path = |key: &str| format!("databases[{index}].{key}");
        if database.port == 0 {
            report.error(&path("port"), ProblemCode::BadValue, "0 is not a port");
        }
        for (key, text) in [("name", &database.name), ("host", &database.host)] {
            if text.is_empty() {
                report.error(
                    &path(key),
                    ProblemCode::BadValue,
                    "expected a name, found an empty string",
                );
            }
        }
        if database.name == config.admin.name {
            let message = format!(
                "\"{}\" is the name of the admin database, see admin.name",
                database.name
            );
            report.error(&path("name"), ProblemCode::Conflict, message);
        }
        shards
            .entry(&database.name)
            .or_default()
            .entry(database.shard)
            .or_insert(index);
        let host = (
            &database.name,
            &database.host,
            database.port,
            &database.database_name,
            database.shard,
        );
        if hosts.insert(host, index).is_some() {
            let message = format!(
                "the same host a second time in database \"{}\"",
                database.name
            );
            report.error(&path("host"), ProblemCode::Duplicate, message);
        } else if database.role == Role::Primary
            && !database.resharding_only
            && primaries
                .insert((&database.name, database.shard), index)
                .is_some()
        {
            let message = format!(
                "a second primary in shard {} of database \"{}\"",
                database.shard, database.name
            );
            report.error(&path("role"), ProblemCode::Conflict, message);
        }
    }
    balancing::roles(report);
    for (name, shards) in shards {
        let gap = shards
            .iter()
            .enumerate()
            .find(|(expected, (shard, _))| expected != *shard);
        if let Some((expected, (_, index))) = gap {
            let message = format!(
                "database \"{name}\" has no shard {expected}; shards are numbered from 0 without a gap"
            );
            report.error(
                &format!("databases[{index}].shard"),
                ProblemCode::ShardGap,
                message,
            );
        }
    }
}
