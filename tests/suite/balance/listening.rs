//! Who listens over the pool's connection is told by the primary, whoever that is.

use pgdog_tests::raw::PATIENCE;
use pgdog_tests::replicated::Fence;
use pgdog_tests::{Frame, Postgres, Proxy, RawClient, Received, Replicated, wait};

use super::{CHECK, Roles, config, wait_readers};

/// What comes within a moment.
fn heard(client: &mut RawClient) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Received::Frame(frame) = client.receive(CHECK) {
        frames.push(frame);
    }
    frames
}

fn says(frames: &[Frame], payload: &str) -> bool {
    let holds = |frame: &Frame| String::from_utf8_lossy(&frame.body).contains(payload);
    frames.iter().any(|frame| frame.tag == b'A' && holds(frame))
}

#[test]
fn who_listens_hears_the_new_primary_after_a_switchover() {
    if !Postgres::installed() {
        return;
    }
    for how in [Fence::ReadOnly, Fence::Stop] {
        let cluster = Replicated::start(1);
        let database = cluster.fresh_database();
        cluster.settle();
        let config = config(&cluster, database.name(), Roles::Auto)
            .general("pub_sub_channel_size", "100")
            .general("hold_timeout", "20000");
        let proxy = Proxy::start(&config);
        wait_readers(&cluster, &proxy, database.name(), &[0, 1]);
        let mut listener = proxy.client("pgdog", database.name());
        listener.run("listen news");
        let mut speaker = proxy.client("pgdog", database.name());
        speaker.run("notify news, 'before'");
        let mut frames = Vec::new();
        let told = || {
            frames.extend(heard(&mut listener));
            says(&frames, "before")
        };
        assert!(wait::until(PATIENCE, told), "{how:?}: {}", proxy.log());
        cluster.switch_over(1, how);
        // What is said before it listens there is lost, and it is told so.
        let mut frames = Vec::new();
        let told = || {
            speaker.query("notify news, 'after'");
            frames.extend(heard(&mut listener));
            says(&frames, "after")
        };
        assert!(wait::until(PATIENCE, told), "{how:?}: {}", proxy.log());
        let first = frames.iter().position(|frame| frame.tag == b'A');
        let warned = frames.iter().position(|frame| frame.tag == b'N');
        assert!(warned.is_some() && warned < first, "{how:?}");
        // It still is a client as any other, and what it said it listens to is what it listens to.
        listener.run("unlisten news; listen other");
        speaker.run("notify news, 'unheard'; notify other, 'heard'");
        let mut frames = Vec::new();
        let told = || {
            frames.extend(heard(&mut listener));
            says(&frames, "heard")
        };
        assert!(wait::until(PATIENCE, told), "{how:?}: {}", proxy.log());
        assert!(!says(&frames, "unheard"), "{how:?}");
    }
}
