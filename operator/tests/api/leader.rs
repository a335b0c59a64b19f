//! Several operators, of which one leads.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use pgdog_config::api::Half;
use serde_json::json;

use crate::harness::operator::Operator;
use crate::harness::proxies::Proxies;
use crate::harness::stage::{Stage, until};
use crate::operator;

async fn lease(stage: &Stage) -> LeaseSpec {
    let lease: Lease = stage.there("pgdog-operator").await;
    lease.spec.unwrap()
}

#[tokio::test]
async fn the_second_takes_over_from_a_killed_leader_in_a_higher_epoch() {
    let Some(stage) = Stage::open("leader").await else {
        return;
    };
    let mut first = Operator::start(operator(), &stage, "first").await;
    let mut proxies = Proxies::of_shop(&stage).await;
    let all = proxies.add(&stage, 2).await;
    let before = stage
        .status_when("shop", "2/2", |status| status.config.summary == "2/2")
        .await;
    let led = lease(&stage).await;
    assert_eq!(led.holder_identity.as_deref(), Some("first"));
    let epoch = all[0].version(Half::Settings).unwrap().epoch;

    let _second = Operator::start(operator(), &stage, "second").await;
    first.kill();
    stage
        .change("shop", json!({"pooling": {"defaultPoolSize": 15}}))
        .await
        .unwrap();
    until("the second leads", || async {
        let holder = lease(&stage).await.holder_identity;
        (holder.as_deref() == Some("second")).then_some(())
    })
    .await;
    let after = stage
        .status_when("shop", "the change is acknowledged", |status| {
            status.config.summary == "2/2" && status.observed_generation == Some(2)
        })
        .await;
    assert!(lease(&stage).await.lease_transitions > led.lease_transitions);
    assert_eq!(
        after.config.settings.revision,
        before.config.settings.revision + 1,
        "numbers go on"
    );
    assert_eq!(
        after.config.topology.revision, before.config.topology.revision,
        "nothing was new in it"
    );
    for proxy in &all {
        assert_eq!(
            proxy.config(Half::Settings)["general"]["default_pool_size"],
            15
        );
        assert!(proxy.version(Half::Settings).unwrap().epoch > epoch);
    }
}

#[tokio::test]
async fn a_leader_that_ends_gives_its_lease_up() {
    let Some(stage) = Stage::open("handover").await else {
        return;
    };
    let first = Operator::start(operator(), &stage, "first").await;
    until("the first leads", || async {
        (lease(&stage).await.holder_identity.as_deref() == Some("first")).then_some(())
    })
    .await;
    let _second = Operator::start(operator(), &stage, "second").await;
    first.terminate();
    let begun = std::time::Instant::now();
    until("the second leads", || async {
        (lease(&stage).await.holder_identity.as_deref() == Some("second")).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(
        took.as_secs() < 12,
        "{took:?}: the lease ran out and was not given up"
    );
}
