use std::sync::Mutex;

use pgdog_config::{Balancing, Checks, Role as Configured};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::clock::Clock;
use crate::cluster::tests::over;
use crate::cluster::{Cluster, ReadNeed};
use crate::database::tests::{Scene, specs};
use crate::host::{Reason, Role};
use crate::hosts::Hosts;

fn rows(cells: &[Option<&str>]) -> Rows {
    vec![cells.iter().map(|c| c.map(str::to_owned)).collect()]
}

#[test]
fn a_primary_tells_its_position_and_its_timeline() {
    let primary = rows(&[
        Some("f"),
        Some("16/B374D848"),
        Some("0000000A00000016000000B3"),
        None,
        None,
    ]);
    let look = Look::read(&primary).unwrap();
    assert_eq!(
        (look.in_recovery, look.timeline, look.lag_ms),
        (false, 10, None)
    );
    assert_eq!(look.lsn, 0x16_B374_D848);
}

#[test]
fn a_replica_tells_what_it_has_replayed_and_when() {
    let replica = rows(&[Some("t"), Some("0/3000060"), None, Some("2"), Some("1.25")]);
    let look = Look::read(&replica).unwrap();
    assert_eq!(
        (look.in_recovery, look.timeline, look.lag_ms),
        (true, 2, Some(1250))
    );
    let silent = rows(&[Some("t"), None, None, None, Some("-0.5")]);
    let look = Look::read(&silent).unwrap();
    assert_eq!((look.lsn, look.timeline, look.lag_ms), (0, 0, Some(0)));
    for wrong in [&[][..], &[None], &[Some("t"), Some("x")]] {
        assert_eq!(Look::read(&rows(wrong)), None);
    }
    assert_eq!(Look::read(&Vec::new()), None);
}

#[test]
fn aurora_tells_its_lag_itself() {
    let reader = Look::read_aurora(&rows(&[Some("t"), Some("123"), Some("17.5")])).unwrap();
    assert_eq!(
        (reader.in_recovery, reader.lsn, reader.lag_ms),
        (true, 123, Some(17))
    );
    let writer = Look::read_aurora(&rows(&[Some("f"), Some("125"), None])).unwrap();
    assert!(!writer.in_recovery && writer.lag_ms.is_none() && writer.aurora);
}

/// What a fake server answers when it is asked for its role; `None` is nothing at all.
type Answer = Arc<Mutex<Option<String>>>;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn data_row(cells: &str) -> Vec<u8> {
    let cells: Vec<&str> = cells.split('|').collect();
    let mut body = u16::try_from(cells.len()).unwrap().to_be_bytes().to_vec();
    for cell in cells {
        if cell.is_empty() {
            body.extend((-1i32).to_be_bytes());
        } else {
            body.extend(u32::try_from(cell.len()).unwrap().to_be_bytes());
            body.extend(cell.as_bytes());
        }
    }
    message(b'D', &body)
}

/// Lets everybody in, and answers what a monitor asks.
async fn serve(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    stream.read_exact(&mut vec![0; length as usize - 4]).await?;
    let ready = message(b'Z', b"I");
    let welcome = [message(b'R', &0u32.to_be_bytes()), ready.clone()].concat();
    stream.write_all(&welcome).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await?;
        if kind != b'Q' {
            return Ok(());
        }
        let Some(look) = answer.lock().unwrap().clone() else {
            std::future::pending::<()>().await;
            return Ok(());
        };
        let text = String::from_utf8(body).unwrap();
        let row = if text.contains("pg_is_in_recovery") {
            look
        } else {
            "f".to_owned()
        };
        let description = message(b'T', &[0, 0]);
        let done = message(b'C', b"SELECT 1\0");
        let reply = [description, data_row(&row), done, ready.clone()].concat();
        stream.write_all(&reply).await?;
    }
}

async fn fake(look: &str) -> (Arc<Address>, Answer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer: Answer = Arc::new(Mutex::new(Some(look.to_owned())));
    let given = answer.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, given.clone()));
        }
    });
    (Arc::new(Address::new("127.0.0.1", port)), answer)
}

async fn until(what: &str, cluster: &Cluster, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            let changed = cluster.changed();
            // Not everything that is waited for here is a change of roles or bans.
            let _ = pgdog_net::timer::timeout(Duration::from_millis(10), changed).await;
        }
    };
    let reached = pgdog_net::timer::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "{what}");
}

const PRIMARY: &str = "f|0/100|000000010000000000000001||";
const REPLICA: &str = "t|0/100||1|0.5";
const PROMOTED: &str = "f|0/200|000000020000000000000001||";
const FOLLOWER: &str = "t|0/200||2|0.5";

#[tokio::test]
async fn a_hanging_primary_is_replaced_by_the_promoted_one_and_comes_back_as_a_replica() {
    let (one, first) = fake(PRIMARY).await;
    let (two, second) = fake(REPLICA).await;
    let clock = Arc::new(Clock::default());
    let ticking = clock.clone();
    tokio::spawn(async move {
        loop {
            ticking.tick();
            pgdog_net::timer::sleep(Duration::from_millis(5)).await;
        }
    });
    let checks = Checks {
        look_interval: Duration::from_millis(20),
        look_timeout: Duration::from_millis(300),
        ban_timeout: Duration::from_millis(100),
        ..Checks::default()
    };
    let registry = Hosts::new(clock.clone());
    let mut specs = specs(&[Configured::Auto; 2]);
    (specs[0].address, specs[1].address) = (one, two);
    let prepared = registry.prepare("d", &specs, &Balancing::default(), &checks);
    let (database, hosts) = (prepared.database.clone(), prepared.hosts.clone());
    prepared.commit();
    registry.watch_on(tokio::runtime::Handle::current());
    let scene = Scene {
        clock,
        registry,
        database,
        hosts,
    };
    let cluster = over(&scene);
    let hosts = &scene.hosts;
    until("the roles", &cluster, || cluster.for_write() == Ok(0)).await;
    assert_eq!(hosts[1].role(), Role::Replica);
    assert!(hosts[0].latency() > 0);

    *first.lock().unwrap() = None;
    *second.lock().unwrap() = Some(PROMOTED.to_owned());
    until("the new primary", &cluster, || cluster.for_write() == Ok(1)).await;
    until("the ban", &cluster, || {
        hosts[0]
            .ban()
            .is_some_and(|ban| ban.reason == Reason::Failed)
    })
    .await;
    assert_eq!(cluster.for_read(ReadNeed::default()), Some(1));
    assert!(scene.database.epoch() == 1 && cluster.members()[0].pool.generation() == 1);

    *first.lock().unwrap() = Some(FOLLOWER.to_owned());
    until("the return", &cluster, || {
        hosts[0].is_free() && hosts[0].role() == Role::Replica
    })
    .await;
    let wrote = scene.clock.now();
    let need = ReadNeed {
        after: Some(wrote),
        ..ReadNeed::default()
    };
    assert_eq!(cluster.replayed(need).await, 0);
    assert!(hosts[0].counters.failed_probes.load(Ordering::Relaxed) > 0);
    scene.registry.keep(|_| false);
}
