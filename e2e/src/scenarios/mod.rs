//! What is tried.

mod budget;
mod config;
mod failover;
mod leader;
mod life;
mod nodes;
mod outage;
mod pause;
mod sidecar;
mod sources;
mod tls;

use std::pin::Pin;
use std::time::Duration;

use crate::cluster::Stage;

type Run = fn(Stage) -> Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>>;

/// Something that is tried; its result is the figures that it measured.
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether it is one of the few that show that everything hangs together.
    pub(crate) smoke: bool,
    /// What is done.
    pub(crate) run: Run,
}

macro_rules! scenario {
    ($name:literal, $smoke:literal, $run:path) => {
        Scenario {
            name: $name,
            smoke: $smoke,
            run: |stage| Box::pin($run(stage)),
        }
    };
}

/// Time for what takes a while.
const MINUTE: Duration = Duration::from_secs(60);

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    scenario!("install", true, life::install),
    scenario!("rules", false, config::rules),
    scenario!("config-change", true, config::change),
    scenario!("config-invalid", false, config::invalid),
    scenario!("config-refused", false, config::refused),
    scenario!("password-rotation", false, config::rotation),
    scenario!("cancel", false, life::cancel),
    scenario!("pause", false, pause::pause),
    scenario!("rollout", false, life::rollout),
    scenario!("drift", false, life::drift),
    scenario!("foreign-service", false, life::foreign),
    scenario!("pod-security", false, life::restricted),
    scenario!("failover", true, failover::promotion),
    scenario!("switchover", false, failover::switchover),
    scenario!("promotions", false, failover::promotions),
    scenario!("split-brain", false, failover::split_brain),
    scenario!("operator-down", false, failover::without_operator),
    scenario!("newcomer", false, outage::newcomer),
    scenario!("leader-killed", false, leader::killed),
    scenario!("leader-stopped", false, leader::stopped),
    scenario!("operator-upgrade", false, leader::upgraded),
    scenario!("admin-api", false, tls::admin),
    scenario!("tls-renewed", false, tls::renewed),
    scenario!("tls-added", false, tls::added),
    scenario!("budget", false, budget::scaling),
    scenario!("zalando", false, sources::zalando),
    scenario!("headless", false, sources::headless),
    scenario!("static-hosts", false, sources::outside),
    scenario!("hibernated", false, sources::hibernated),
    scenario!("shards", false, sources::shards),
    scenario!("cut-from-operator", false, nodes::cut_from_operator),
    scenario!("cut-from-primary", false, nodes::cut_from_primary),
    scenario!("node-drained", false, nodes::drained),
    scenario!("node-killed", false, nodes::killed),
    scenario!("sidecar", false, sidecar::sidecar),
    scenario!("webhook-down", false, sidecar::webhook_down),
    scenario!("api-server-down", false, outage::alone),
    scenario!("delete", false, life::delete),
];
