use pgdog_config::Role as Configured;
use pgdog_net::Address;

use std::time::Duration;

use super::plan::{AWAITED, RECHECK, URGENT};
use super::*;
use crate::host::Role;
use crate::hosts::{HostSpec, Hosts};

/// A database with so many hosts, and a clock that stands still.
pub(crate) struct Scene {
    pub(crate) clock: Arc<Clock>,
    pub(crate) registry: Hosts,
    pub(crate) database: Arc<DatabaseState>,
    pub(crate) hosts: Vec<Arc<HostState>>,
}

pub(crate) fn specs(roles: &[Configured]) -> Vec<HostSpec> {
    let specs = roles.iter().enumerate();
    specs
        .map(|(index, role)| HostSpec {
            address: Arc::new(Address::new("h", 5432 + index as u16)),
            dbname: "d".to_owned(),
            options: HostOptions {
                role: *role,
                weight: 255,
                zone: None,
            },
        })
        .collect()
}

impl Scene {
    pub(crate) fn new(roles: &[Configured]) -> Self {
        Self::with(roles, &Balancing::default(), &Checks::default())
    }

    pub(crate) fn with(roles: &[Configured], balancing: &Balancing, checks: &Checks) -> Self {
        let clock = Arc::new(Clock::default());
        clock.set(10_000);
        let registry = Hosts::new(clock.clone());
        let prepared = registry.prepare("d", &specs(roles), balancing, checks);
        let (database, hosts) = (prepared.database.clone(), prepared.hosts.clone());
        prepared.commit();
        Self {
            clock,
            registry,
            database,
            hosts,
        }
    }

    pub(crate) fn primary_says(&self, index: usize, lsn: u64, timeline: u32) {
        let look = Look {
            lsn,
            timeline,
            ..Look::default()
        };
        self.database
            .learn(&self.hosts[index], &look, self.clock.now());
    }

    pub(crate) fn replica_says(&self, index: usize, lsn: u64, timeline: u32) {
        let look = Look {
            in_recovery: true,
            lsn,
            timeline,
            lag_ms: Some(60_000),
            ..Look::default()
        };
        self.database
            .learn(&self.hosts[index], &look, self.clock.now());
    }

    pub(crate) fn is_silent(&self, index: usize) {
        let error = ServerError::Timeout(Duration::from_secs(1));
        self.database.failed(&self.hosts[index], &error);
    }

    fn writer(&self) -> Result<usize, NoPrimary> {
        match self.database.writer() {
            Writer::Host(id) => Ok(self.hosts.iter().position(|h| h.id == id).unwrap()),
            Writer::None(why) => Err(why),
        }
    }

    fn roles(&self) -> Vec<Role> {
        self.hosts.iter().map(|h| h.role()).collect()
    }
}

const AUTO: Configured = Configured::Auto;
const FIXED: [Configured; 3] = [
    Configured::Primary,
    Configured::Replica,
    Configured::Replica,
];

#[test]
fn roles_are_found_out_and_a_promotion_is_followed() {
    let scene = Scene::new(&[AUTO; 3]);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    let mut changes = scene.database.changes();
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 100, 1);
    // The third one may be the primary.
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    scene.replica_says(2, 100, 1);
    assert_eq!(scene.writer(), Ok(0));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(scene.roles(), [Role::Primary, Role::Replica, Role::Replica]);
    assert_eq!(scene.database.epoch(), 0);
    // The old primary hangs and has not been heard yet.
    scene.primary_says(1, 110, 2);
    assert_eq!(scene.writer(), Ok(1));
    assert_eq!(scene.roles(), [Role::Unknown, Role::Primary, Role::Replica]);
    assert_eq!(scene.database.epoch(), 1);
    assert!(changes.has_changed().unwrap());
    // It wakes up and takes itself for the primary, also when the newer one is gone.
    scene.primary_says(0, 130, 1);
    assert_eq!(scene.writer(), Ok(1));
    scene.is_silent(1);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    scene.primary_says(0, 140, 1);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    scene.replica_says(0, 110, 2);
    scene.primary_says(1, 120, 2);
    assert_eq!((scene.writer(), scene.database.epoch()), (Ok(1), 1));
    assert_eq!(scene.roles(), [Role::Replica, Role::Primary, Role::Replica]);
}

#[test]
fn a_primary_that_says_it_is_none_is_demoted_at_once() {
    let scene = Scene::new(&[AUTO; 2]);
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 100, 1);
    scene.replica_says(0, 100, 1);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    assert_eq!(scene.database.epoch(), 1);
    scene.primary_says(1, 100, 2);
    assert_eq!((scene.writer(), scene.database.epoch()), (Ok(1), 1));
    // A primary that went away and came back is the same one.
    scene.is_silent(1);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    scene.primary_says(1, 100, 2);
    assert_eq!((scene.writer(), scene.database.epoch()), (Ok(1), 1));
}

#[test]
fn two_primaries_on_one_timeline_take_no_writes() {
    let scene = Scene::new(&[AUTO; 2]);
    scene.primary_says(0, 100, 1);
    scene.primary_says(1, 100, 1);
    assert_eq!(scene.writer(), Err(NoPrimary::Split));
    assert_eq!(scene.roles(), [Role::Unknown; 2]);
    scene.replica_says(0, 100, 1);
    assert_eq!(scene.writer(), Ok(1));
}

#[test]
fn a_host_that_never_answers_is_not_waited_for_for_long() {
    let scene = Scene::new(&[AUTO; 2]);
    scene.primary_says(0, 100, 1);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    scene.clock.set(12_000);
    scene.primary_says(0, 100, 1);
    assert_eq!(scene.writer(), Ok(0));
}

#[test]
fn fixed_roles_hold_from_the_start_and_the_primary_takes_writes_though_banned() {
    let scene = Scene::new(&FIXED);
    assert_eq!(scene.writer(), Ok(0));
    assert_eq!(scene.roles(), [Role::Primary, Role::Replica, Role::Replica]);
    scene.is_silent(0);
    assert_eq!(scene.writer(), Ok(0));
    assert_eq!(scene.hosts[0].ban().unwrap().reason, Reason::Failed);
    scene.replica_says(0, 5, 1);
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    let replicas = Scene::new(&FIXED[1..]);
    assert_eq!(replicas.writer(), Err(NoPrimary::ReplicasOnly));
}

#[test]
fn a_ban_lasts_for_its_time_and_until_checks_pass() {
    let scene = Scene::new(&FIXED);
    let host = &scene.hosts[1];
    host.failed(&ServerError::Closed);
    assert!(host.is_free(), "one failure is none");
    host.failed(&ServerError::Closed);
    let ban = host.ban().unwrap();
    assert_eq!((ban.reason, ban.until), (Reason::Failed, Some(310_000)));
    assert!(!host.is_healthy() && host.ban_detail().unwrap().contains("closed"));
    scene.database.passed(host);
    scene.database.passed(host);
    assert!(
        host.is_healthy() && !host.is_free(),
        "it is healthy too early"
    );
    scene.is_silent(1);
    scene.clock.set(320_000);
    scene.database.passed(host);
    assert!(
        !host.is_free(),
        "its time is over and it is not healthy yet"
    );
    scene.database.passed(host);
    assert!(host.is_free());
    // It comes back slowly.
    assert!(host.share() < 32);
    scene.clock.set(330_000);
    assert_eq!(host.share(), crate::host::WHOLE);
}

#[test]
fn the_only_host_is_never_banned() {
    let scene = Scene::new(&FIXED[..1]);
    scene.is_silent(0);
    assert!(scene.hosts[0].is_free() && !scene.hosts[0].is_healthy());
    assert_eq!(scene.writer(), Ok(0));
}

#[test]
fn a_new_host_gets_nothing_before_a_check_where_that_is_asked_for() {
    let checks = Checks {
        required: true,
        ..Checks::default()
    };
    let scene = Scene::with(&FIXED, &Balancing::default(), &checks);
    assert_eq!(scene.hosts[2].ban().unwrap().reason, Reason::Unchecked);
    scene.database.passed(&scene.hosts[2]);
    assert!(scene.hosts[2].is_free());
    assert_eq!(scene.hosts[2].share(), crate::host::WHOLE);
}

#[test]
fn a_replica_over_its_lag_is_banned_until_it_has_caught_up() {
    let checks = Checks {
        max_lag: Some(Duration::from_secs(2)),
        max_lag_bytes: Some(1000),
        ..Checks::default()
    };
    let scene = Scene::with(&FIXED, &Balancing::default(), &checks);
    let host = &scene.hosts[1];
    scene.primary_says(0, 5000, 1);
    scene.replica_says(1, 5000, 1);
    assert_eq!((host.lag_bytes(), host.lag_ms()), (Some(0), Some(0)));
    // Too many bytes.
    scene.primary_says(0, 6001, 1);
    scene.replica_says(1, 5000, 1);
    assert_eq!(host.lag_bytes(), Some(1001));
    assert_eq!(host.ban().unwrap().reason, Reason::Lag);
    scene.replica_says(1, 6001, 1);
    assert!(!host.is_free(), "once is not enough");
    scene.replica_says(1, 6001, 1);
    assert!(host.is_free());
    // Too late: the server speaks of a minute, but it had everything 3 s ago.
    scene.primary_says(0, 6100, 1);
    scene.clock.set(13_000);
    scene.primary_says(0, 6200, 1);
    scene.replica_says(1, 6100, 1);
    assert_eq!(
        (host.lag_ms(), host.ban().unwrap().reason),
        (Some(3_000), Reason::Lag)
    );
    assert!(host.ban_detail().unwrap().contains("3000 ms"));
    // The limits are gone, and with them the ban.
    let prepared = scene.registry.prepare(
        "d",
        &specs(&FIXED),
        &Balancing::default(),
        &Checks::default(),
    );
    prepared.commit();
    scene.replica_says(1, 6100, 1);
    assert!(host.is_free());
}

#[test]
fn between_two_looks_a_replica_answers_until_it_may_be_over_its_limit() {
    let limits = |ms, bytes| Checks {
        max_lag: Some(Duration::from_millis(ms)),
        max_lag_bytes: bytes,
        ..Checks::default()
    };
    let scene = Scene::with(&FIXED, &Balancing::default(), &limits(2_000, None));
    let (host, late) = (&scene.hosts[1], |scene: &Scene| {
        scene.database.may_be_late(&scene.hosts[1])
    });
    // Nothing is known of it yet.
    assert!(late(&scene));
    scene.primary_says(0, 5_000, 1);
    scene.replica_says(1, 5_000, 1);
    assert_eq!(host.lag_ms(), Some(0));
    assert!(!late(&scene));
    // As long as the clocks are sure of it, and no longer.
    scene.clock.set(10_000 + 2_000 - COARSE);
    assert!(!late(&scene));
    scene.clock.set(10_000 + 2_000 - COARSE + 1);
    assert!(late(&scene));
    // What it lagged by when it was asked counts too.
    scene.primary_says(0, 6_000, 1);
    scene.replica_says(1, 5_000, 1);
    let lag = host.lag_ms().unwrap();
    assert!(lag > 0 && lag < 2_000, "{lag}");
    let now = scene.clock.now();
    scene.clock.set(now + 2_000 - COARSE - lag);
    assert!(!late(&scene));
    scene.clock.set(now + 2_000 - COARSE - lag + 1);
    assert!(late(&scene));
    assert!(host.is_free(), "it is out, and not banned");
    // Smaller limits, and those in bytes, count at looks.
    for checks in [
        limits(STRICT - 1, None),
        limits(0, Some(1)),
        Checks::default(),
    ] {
        let scene = Scene::with(&FIXED, &Balancing::default(), &checks);
        scene.primary_says(0, 5_000, 1);
        scene.replica_says(1, 5_000, 1);
        scene.clock.set(60_000);
        assert!(!late(&scene), "{checks:?}");
    }
}

#[test]
fn a_replica_has_a_write_when_it_has_a_later_position() {
    let scene = Scene::new(&FIXED);
    let host = &scene.hosts[1];
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 100, 1);
    assert!(host.has_replayed_since(9_999) && !host.has_replayed_since(10_000));
    // A write at 10,000 that the primary is asked for later.
    scene.clock.set(10_100);
    scene.primary_says(0, 200, 1);
    scene.replica_says(1, 199, 1);
    assert!(!host.has_replayed_since(10_000));
    scene.replica_says(1, 200, 1);
    assert!(host.has_replayed_since(10_000));
    // After a failure it may be behind where it was.
    host.failed(&ServerError::Closed);
    assert!(!host.has_replayed_since(0));
    scene.replica_says(1, 200, 1);
    assert!(host.has_replayed_since(10_000));
    // Another history says nothing.
    scene.replica_says(1, 300, 2);
    assert!(!host.has_replayed_since(0));
}

#[test]
fn another_primary_has_another_history() {
    let scene = Scene::new(&[AUTO; 3]);
    scene.primary_says(0, 500, 1);
    scene.replica_says(1, 400, 1);
    scene.replica_says(2, 500, 1);
    assert!(scene.hosts[2].has_replayed_since(0));
    scene.clock.set(11_000);
    scene.primary_says(1, 410, 2);
    assert!(!scene.hosts[2].has_replayed_since(0));
    // It still follows the old one, and is further than the new one.
    scene.replica_says(2, 600, 1);
    assert!(!scene.hosts[2].has_replayed_since(0));
    scene.replica_says(2, 410, 2);
    assert!(scene.hosts[2].has_replayed_since(10_999));
}

#[test]
fn who_waits_for_a_replica_hears_when_it_has_replayed_something() {
    let scene = Scene::new(&FIXED);
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 90, 1);
    let mut changes = scene.database.changes();
    let usual = scene.database.plan(&scene.hosts[1]).interval;
    scene.database.hurry();
    assert_eq!(usual, Some(Duration::from_secs(5)));
    assert_eq!(scene.database.plan(&scene.hosts[1]).interval, Some(AWAITED));
    scene.replica_says(1, 95, 1);
    assert!(!changes.has_changed().unwrap());
    scene.replica_says(1, 100, 1);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(scene.database.plan(&scene.hosts[1]).interval, usual);
}

#[test]
fn hosts_are_kept_across_reloads_and_changed_by_the_commit_only() {
    let scene = Scene::new(&FIXED[..2]);
    scene.hosts[1].ban_manually("why not");
    let (balancing, checks) = (Balancing::default(), Checks::default());
    let more = [
        Configured::Replica,
        Configured::Primary,
        Configured::Replica,
    ];
    let prepared = scene
        .registry
        .prepare("d", &specs(&more), &balancing, &checks);
    assert!(Arc::ptr_eq(&prepared.database, &scene.database));
    assert!(Arc::ptr_eq(&prepared.hosts[1], &scene.hosts[1]));
    assert_eq!((scene.writer(), scene.database.hosts().len()), (Ok(0), 2));
    prepared.commit();
    assert_eq!((scene.writer(), scene.database.hosts().len()), (Ok(1), 3));
    assert_eq!(scene.hosts[1].ban().unwrap().reason, Reason::Manual);
    // The first host goes.
    let prepared = scene
        .registry
        .prepare("d", &specs(&more)[1..], &balancing, &checks);
    prepared.commit();
    assert!(scene.hosts[0].retired.load(Ordering::Relaxed));
    assert!(!scene.hosts[1].retired.load(Ordering::Relaxed));
    scene.registry.keep(|_| false);
    assert!(scene.registry.databases().is_empty());
    assert!(scene.hosts[1].retired.load(Ordering::Relaxed));
}

#[test]
fn looks_are_as_frequent_as_their_purpose_needs() {
    let plan = |scene: &Scene| scene.database.plan(&scene.hosts[scene.hosts.len() - 1]);
    let single = plan(&Scene::new(&[AUTO]));
    assert!(!single.look && single.interval == Some(Duration::from_secs(30)));
    assert_eq!(single.delay, Duration::from_secs(5));
    let scene = Scene::new(&[AUTO; 2]);
    assert_eq!(plan(&scene).interval, Some(URGENT));
    scene.primary_says(0, 1, 1);
    scene.replica_says(1, 1, 1);
    assert!(plan(&scene).look && plan(&scene).interval == Some(Duration::from_secs(5)));
    scene.is_silent(1);
    assert_eq!(plan(&scene).interval, Some(RECHECK));
    let off = Checks {
        look_delay: None,
        ..Checks::default()
    };
    assert!(!plan(&Scene::with(&FIXED, &Balancing::default(), &off)).look);
    assert!(plan(&Scene::with(&[AUTO; 2], &Balancing::default(), &off)).look);
    let lag = Checks {
        max_lag: Some(Duration::from_millis(500)),
        ..off
    };
    let limited = plan(&Scene::with(&FIXED, &Balancing::default(), &lag));
    assert!(limited.look && limited.interval == Some(Duration::from_millis(250)));
}

#[test]
fn only_the_primary_s_removal_lets_an_older_one_back() {
    let (balancing, checks) = (Balancing::default(), Checks::default());
    let scene = Scene::new(&[AUTO; 4]);
    scene.replica_says(0, 100, 1);
    scene.primary_says(1, 100, 2);
    scene.replica_says(3, 100, 2);
    scene.replica_says(2, 100, 2);
    assert_eq!(scene.writer(), Ok(1));
    assert!(scene.hosts[2].has_replayed_since(0));
    scene.is_silent(1);
    scene.primary_says(0, 90, 1);
    let all = specs(&[AUTO; 4]);
    let without_replica = scene.registry.prepare("d", &all[..3], &balancing, &checks);
    without_replica.commit();
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    let without_primary =
        scene
            .registry
            .prepare("d", &[all[0].clone(), all[2].clone()], &balancing, &checks);
    without_primary.commit();
    scene.primary_says(0, 90, 1);
    scene.clock.set(12_000);
    scene.primary_says(0, 90, 1);
    // The one that is left still follows it.
    assert_eq!(scene.writer(), Err(NoPrimary::Unknown));
    assert!(!scene.hosts[2].has_replayed_since(0));
    scene.replica_says(2, 90, 1);
    assert_eq!(scene.writer(), Ok(0));
}
