//! Peers that come with the topology: a cancel request reaches its query from wherever in the fleet it lands.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::transcript::lines;
use pgdog_tests::{Activity, Database, Message, Postgres, Proxy, RawClient, wait};
use serde_json::{Value, json};

use super::{admin, config, topology, with_admin};

const TOPOLOGY: &str = "/v1/config/topology";
const SLEEP: &str = "select pg_sleep(60)";

type Key = (i32, Vec<u8>);

fn start(database: &Database<'_>, pod: &str) -> Proxy {
    let config = with_admin(config(database), "state_dir = \"state\"\n");
    Proxy::start_with(&config, &["--pod-uid", pod])
}

/// A list of peers: number, proxy, uid of its pod.
fn peers(of: &[(u16, &Proxy, &str)]) -> Value {
    let peer = |(id, proxy, pod): &(u16, &Proxy, &str)| json!({ "id": id, "host": "127.0.0.1", "port": proxy.port(), "pod_uid": pod });
    of.iter().map(peer).collect()
}

/// Gives all of them the same topology.
fn push(database: &Database<'_>, revision: u64, fleet: &[(u16, &Proxy, &str)]) {
    let mut document = topology(database, database.name());
    document["peers"] = peers(fleet);
    for (id, proxy, pod) in fleet {
        let push = json!({ "pod_uid": pod, "epoch": 1, "revision": revision, "config": document });
        admin(proxy).put(TOPOLOGY, &push).expect(200);
        let status = admin(proxy).get("/v1/status").expect(200).json();
        assert_eq!(status["peer_id"], *id);
    }
}

fn login(proxy: &Proxy, database: &Database<'_>, version: (u16, u16)) -> (RawClient, Key) {
    let mut client = RawClient::open(proxy.port()).expect("the proxy accepts");
    let parameters = vec![
        ("user".to_owned(), "pgdog".to_owned()),
        ("database".to_owned(), database.name().to_owned()),
    ];
    client.send(&[Message::Startup {
        version,
        parameters,
    }]);
    client.until_ready();
    match client.cancel_request() {
        Some(Message::CancelRequest { pid, secret }) => (client, (pid, secret)),
        other => panic!("no key: {other:?}"),
    }
}

fn cancel(at: &Proxy, key: &Key) {
    let mut canceller = RawClient::open(at.port()).expect("the proxy accepts");
    canceller.send(&[Message::CancelRequest {
        pid: key.0,
        secret: key.1.clone(),
    }]);
    assert_eq!(canceller.until_eof(), Some(Vec::new()));
}

/// A query of the client is cancelled by a request sent to `at`; one with a wrong secret is not.
fn reaches(activity: &mut Activity, client: &mut RawClient, key: &Key, at: &Proxy) {
    client.send(&[Message::query(SLEEP)]);
    activity.wait(1, "state = 'active'");
    let mut wrong = key.clone();
    wrong.1[0] ^= 1;
    cancel(at, &wrong);
    assert_eq!(activity.count("state = 'active'"), 1, "a wrong secret");
    cancel(at, key);
    let told = lines(&client.until_ready());
    assert!(
        told.iter().any(|line| line.starts_with("E ERROR 57014")),
        "{told:?}"
    );
    activity.wait(0, "state = 'active'");
}

fn number(key: &Key) -> i32 {
    key.0 >> 17
}

#[test]
fn a_cancel_request_reaches_its_query_through_any_proxy_of_a_pushed_fleet() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let (one, two, three) = (
        start(&database, "a"),
        start(&database, "b"),
        start(&database, "c"),
    );
    let mut activity = Activity::of(Postgres::shared(), &database);
    let (mut before, old) = login(&one, &database, (3, 0));
    assert_eq!(number(&old), 0);
    push(&database, 1, &[(1, &one, "a"), (16_383, &two, "b")]);
    for version in [(3, 0), (3, 2)] {
        let (mut client, key) = login(&one, &database, version);
        assert_eq!(number(&key), 1);
        reaches(&mut activity, &mut client, &key, &two);
        reaches(&mut activity, &mut client, &key, &one);
        let (mut client, key) = login(&two, &database, version);
        assert_eq!(number(&key), 16_383);
        reaches(&mut activity, &mut client, &key, &one);
        cancel(&three, &key);
    }
    // It logged in when there was no fleet yet.
    reaches(&mut activity, &mut before, &old, &one);
    // A third one comes.
    push(
        &database,
        2,
        &[(1, &one, "a"), (16_383, &two, "b"), (3, &three, "c")],
    );
    let (mut client, key) = login(&three, &database, (3, 0));
    for at in [&one, &two, &three] {
        reaches(&mut activity, &mut client, &key, at);
    }
    let (mut client, key) = login(&one, &database, (3, 2));
    reaches(&mut activity, &mut client, &key, &three);
}

#[test]
fn a_proxy_that_lets_its_last_clients_finish_still_cancels_their_queries() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let (one, two) = (start(&database, "a"), start(&database, "b"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    push(&database, 1, &[(1, &one, "a"), (2, &two, "b")]);
    let (mut last, key) = login(&one, &database, (3, 2));
    last.run("begin; savepoint a");
    last.send(&[Message::query(SLEEP)]);
    activity.wait(1, "state = 'active'");
    one.signal("TERM");
    assert!(
        wait::until(PATIENCE, || one.log().contains("shutting down")),
        "{}",
        one.log()
    );
    // Nobody else is let in.
    let mut late = RawClient::open(one.port()).expect("it still listens");
    late.send(&[Message::startup(&[
        ("user", "pgdog"),
        ("database", database.name()),
    ])]);
    let told = lines(&late.until_eof().expect("it is closed"));
    assert!(
        told.last()
            .is_some_and(|line| line.starts_with("E FATAL 57P03")),
        "{told:?}"
    );
    cancel(&two, &key);
    let told = lines(&last.until_ready());
    assert!(
        told.iter().any(|line| line.starts_with("E ERROR 57014")),
        "{told:?}"
    );
    last.run("rollback to a");
    reaches(&mut activity, &mut last, &key, &one);
    last.send(&[Message::query("rollback")]);
    let told = lines(&last.until_eof().expect("it is sent away"));
    assert!(told.iter().any(|line| line == "C ROLLBACK"), "{told:?}");
}

#[test]
fn keys_from_before_a_change_of_numbers_still_work_where_they_were_given() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let (one, two) = (start(&database, "a"), start(&database, "b"));
    let mut activity = Activity::of(Postgres::shared(), &database);
    push(&database, 1, &[(1, &one, "a"), (2, &two, "b")]);
    let (mut early, first) = login(&one, &database, (3, 2));
    push(&database, 2, &[(2, &one, "a"), (1, &two, "b")]);
    let (mut late, second) = login(&one, &database, (3, 2));
    assert_eq!((number(&first), number(&second)), (1, 2));
    reaches(&mut activity, &mut early, &first, &one);
    reaches(&mut activity, &mut late, &second, &one);
    reaches(&mut activity, &mut late, &second, &two);
    // One of them goes: its number is nobody's, and the other's clients notice nothing.
    push(&database, 3, &[(2, &one, "a")]);
    cancel(&one, &(1 << 17 | 5, vec![1, 2, 3, 4]));
    reaches(&mut activity, &mut late, &second, &one);
    // A reload changes none of it.
    admin(&one).post("/v1/reload").expect(200);
    let (mut client, key) = login(&one, &database, (3, 0));
    assert_eq!(number(&key), 2);
    reaches(&mut activity, &mut client, &key, &one);
}

#[test]
fn the_fleet_is_known_again_after_a_restart_and_from_files() {
    if !Postgres::installed() {
        return;
    }
    let database = Postgres::shared().fresh_database();
    let (mut one, two) = (start(&database, "a"), start(&database, "b"));
    push(&database, 1, &[(5, &one, "a"), (6, &two, "b")]);
    one.start_again(&["--pod-uid", "a"], &[]);
    assert!(
        pgdog_tests::wait::until(pgdog_tests::raw::PATIENCE, || one
            .log()
            .contains("listening on")),
        "{}",
        one.log()
    );
    let mut activity = Activity::of(Postgres::shared(), &database);
    let (mut client, key) = login(&two, &database, (3, 2));
    reaches(&mut activity, &mut client, &key, &one);
    let (_client, key) = login(&one, &database, (3, 2));
    assert_eq!(number(&key), 5);
    // The file form, as a snapshot has it.
    let file = |id: u16, port: u16, pod: &str| {
        format!("[[peers]]\nid = {id}\nhost = \"127.0.0.1\"\nport = {port}\npod_uid = \"{pod}\"\n")
    };
    let config = with_admin(config(&database), "")
        .append("[snapshot]\nepoch = 1\ntopology_revision = 1\n")
        .append(&file(6, two.port(), "b"))
        .append(&file(9, 1, "c"));
    let third = Proxy::start_with(&config, &["--pod-uid", "c"]);
    let status = admin(&third).get("/v1/status").expect(200).json();
    assert_eq!(status["peer_id"], 9);
    assert_eq!(status["topology"]["revision"], 1);
    let shown = admin(&third).get("/v1/config").expect(200).json();
    assert_eq!(shown["topology"]["config"]["peers"][0]["pod_uid"], "b");
    let (mut client, key) = login(&two, &database, (3, 0));
    reaches(&mut activity, &mut client, &key, &third);
    // The same fleet without this one: what is pushed counts, and the number goes.
    let mut document = topology(&database, database.name());
    document["peers"] = peers(&[(6, &two, "b")]);
    let next = json!({ "pod_uid": "c", "epoch": 1, "revision": 2, "config": document });
    admin(&third).put(TOPOLOGY, &next).expect(200);
    let status = admin(&third).get("/v1/status").expect(200).json();
    assert_eq!(status["peer_id"], 0);
    let twice = peers(&[(6, &two, "b"), (6, &one, "a")]);
    document["peers"] = twice;
    let next = json!({ "pod_uid": "c", "epoch": 1, "revision": 3, "config": document });
    let refused = admin(&third).put(TOPOLOGY, &next).expect(422).json();
    assert_eq!(refused["problems"][0]["path"], "peers[1].id");
    document["peers"][1]["id"] = json!(16_384);
    let next = json!({ "pod_uid": "c", "epoch": 1, "revision": 3, "config": document });
    admin(&third).put(TOPOLOGY, &next).expect(422);
}
