use std::time::Duration;

use pgdog_config::{Balancing, Checks, LoadBalancingStrategy, PoolSettings, Role as Configured};
use pgdog_net::TcpOptions;

use super::*;
use crate::database::tests::Scene;
use crate::error::ServerError;
use crate::login::Target;

const ROLES: [Configured; 3] = [
    Configured::Primary,
    Configured::Replica,
    Configured::Replica,
];

/// The pools of an account over the hosts of a scene.
pub(crate) fn over(scene: &Scene) -> Arc<Cluster> {
    let member = |host: &Arc<HostState>| {
        let target = Target {
            address: host.address.clone(),
            tls: None,
            user: "u".to_owned(),
            passwords: Vec::new(),
            passed: None,
            database: host.dbname.clone(),
            parameters: Vec::new(),
            tcp: TcpOptions::default(),
            timeout: Duration::from_secs(1),
            keys: Arc::new(pgdog_wire::scram::KeyCache::new(1)),
        };
        let settings = Arc::new(PoolSettings::default());
        let clock = scene.clock.clone();
        Member {
            pool: Pool::new(settings, Arc::new(target), Vec::new(), 1, clock),
            host: host.clone(),
        }
    };
    Cluster::new(
        scene.hosts.iter().map(member).collect(),
        scene.database.clone(),
    )
}

fn split(split: ReadWriteSplit) -> Scene {
    let balancing = Balancing {
        split,
        strategy: LoadBalancingStrategy::RoundRobin,
        ..Balancing::default()
    };
    Scene::with(&ROLES, &balancing, &Checks::default())
}

/// The hosts that get reads.
fn readers(cluster: &Cluster, need: ReadNeed) -> Vec<usize> {
    let mut all: Vec<usize> = (0..12).filter_map(|_| cluster.for_read(need)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

const ANY: ReadNeed = ReadNeed {
    replica_only: false,
    after: None,
};
const REPLICA: ReadNeed = ReadNeed {
    replica_only: true,
    after: None,
};

#[test]
fn the_split_says_whether_the_primary_serves_reads() {
    for (way, usual, banned) in [
        (ReadWriteSplit::IncludePrimary, &[0, 1, 2][..], &[0, 2][..]),
        (ReadWriteSplit::ExcludePrimary, &[1, 2], &[2]),
        (
            ReadWriteSplit::IncludePrimaryIfReplicaBanned,
            &[1, 2],
            &[0, 2],
        ),
        (ReadWriteSplit::PreferPrimary, &[0], &[0]),
    ] {
        let scene = split(way);
        let cluster = over(&scene);
        assert_eq!(cluster.for_write(), Ok(0));
        assert_eq!(readers(&cluster, ANY), usual, "{way:?}");
        assert_eq!(readers(&cluster, REPLICA), [1, 2], "{way:?}");
        scene.is_silent(1);
        assert_eq!(readers(&cluster, ANY), banned, "{way:?}");
        assert_eq!(readers(&cluster, REPLICA), [2], "{way:?}");
    }
}

#[test]
fn where_all_are_banned_none_is() {
    let scene = split(ReadWriteSplit::ExcludePrimary);
    let cluster = over(&scene);
    scene.is_silent(1);
    scene.is_silent(2);
    assert_eq!(readers(&cluster, ANY), [1, 2]);
    scene.hosts[1].ban_manually("maintenance");
    assert_eq!(readers(&cluster, ANY), [2]);
    scene.hosts[2].ban_manually("maintenance");
    assert_eq!(cluster.for_read(ANY), None);
    assert_eq!(cluster.for_write(), Ok(0));
}

#[test]
fn replicas_that_lag_answer_nothing_even_if_all_do() {
    let checks = Checks {
        max_lag_bytes: Some(10),
        ..Checks::default()
    };
    let scene = Scene::with(&ROLES, &Balancing::default(), &checks);
    let cluster = over(&scene);
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 50, 1);
    assert_eq!(readers(&cluster, ANY), [0, 2]);
    scene.replica_says(2, 50, 1);
    assert_eq!(readers(&cluster, ANY), [0]);
    assert_eq!(cluster.for_read(REPLICA), None);
}

#[test]
fn a_read_after_a_write_goes_where_the_write_is() {
    let scene = split(ReadWriteSplit::IncludePrimary);
    let cluster = over(&scene);
    let own = ReadNeed {
        after: Some(10_000),
        ..ANY
    };
    assert_eq!(readers(&cluster, own), [0]);
    scene.clock.set(10_100);
    scene.primary_says(0, 100, 1);
    scene.replica_says(2, 100, 1);
    assert_eq!(readers(&cluster, own), [0, 2]);
    assert_eq!(
        readers(
            &cluster,
            ReadNeed {
                replica_only: true,
                ..own
            }
        ),
        [2]
    );
}

#[tokio::test]
async fn a_read_waits_for_the_first_replica_that_has_the_write() {
    let scene = split(ReadWriteSplit::IncludePrimary);
    let cluster = over(&scene);
    let need = ReadNeed {
        after: Some(10_000),
        ..ANY
    };
    let waiting = cluster.clone();
    let waiter = tokio::spawn(async move { waiting.replayed(need).await });
    tokio::task::yield_now().await;
    scene.clock.set(10_100);
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 99, 1);
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    scene.replica_says(1, 100, 1);
    assert_eq!(waiter.await.unwrap(), 1);
}

#[test]
fn a_writer_on_another_thread_wakes_when_there_is_a_primary() {
    let scene = Scene::new(&[Configured::Auto; 2]);
    let cluster = over(&scene);
    assert_eq!(cluster.for_write(), Err(NoPrimary::Unknown));
    let held = cluster;
    let (waits, waiting) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        // As a worker: a runtime without timers.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            loop {
                let changed = held.changed();
                if let Ok(index) = held.for_write() {
                    return index;
                }
                let _ = waits.send(());
                changed.await;
            }
        })
    });
    waiting.recv().unwrap();
    scene.replica_says(0, 1, 1);
    scene.primary_says(1, 1, 1);
    assert_eq!(writer.join().unwrap(), 1);
}

#[test]
fn a_failover_renews_the_connections_of_the_old_primary_only() {
    let scene = Scene::new(&[Configured::Auto; 2]);
    let cluster = over(&scene);
    scene.primary_says(0, 100, 1);
    scene.replica_says(1, 100, 1);
    let generations = || [0, 1].map(|i| cluster.members()[i].pool.generation());
    assert_eq!((cluster.for_write(), generations()), (Ok(0), [0, 0]));
    scene.primary_says(1, 100, 2);
    assert_eq!((cluster.for_write(), generations()), (Ok(1), [1, 0]));
    assert_eq!(readers(&cluster, ANY), [1]);
}

#[test]
fn a_host_that_is_no_longer_there_is_no_primary_of_an_older_cluster() {
    let scene = split(ReadWriteSplit::IncludePrimary);
    let old = over(&scene);
    let specs = crate::database::tests::specs(&[Configured::Primary; 4]);
    let prepared =
        scene
            .registry
            .prepare("d", &specs[3..], &Balancing::default(), &Checks::default());
    prepared.commit();
    assert_eq!(old.for_write(), Err(NoPrimary::Unknown));
}

#[test]
fn one_host_takes_everything() {
    let scene = Scene::new(&[Configured::Replica]);
    let cluster = over(&scene);
    scene.hosts[0].failed(&ServerError::Closed);
    scene.hosts[0].failed(&ServerError::Closed);
    assert!(cluster.is_single());
    assert_eq!(
        (cluster.for_write(), cluster.for_read(REPLICA)),
        (Ok(0), Some(0))
    );
}

#[test]
fn pools_tell_the_monitor_how_to_log_in() {
    let scene = split(ReadWriteSplit::IncludePrimary);
    let cluster = over(&scene);
    let again = over(&scene);
    assert_eq!(scene.hosts[1].pools().len(), 2);
    cluster.members()[1].pool.close();
    drop(again);
    assert!(scene.hosts[1].pools().is_empty());
}
