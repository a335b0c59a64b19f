//! What is tried.

mod config;
mod failover;
mod life;
mod sidecar;

use std::pin::Pin;

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

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    scenario!("install", true, life::install),
    scenario!("rules", false, config::rules),
    scenario!("config-change", true, config::change),
    scenario!("config-invalid", false, config::invalid),
    scenario!("password-rotation", false, config::rotation),
    scenario!("cancel", false, life::cancel),
    scenario!("rollout", false, life::rollout),
    scenario!("failover", true, failover::promotion),
    scenario!("operator-down", false, failover::without_operator),
    scenario!("sidecar", false, sidecar::sidecar),
    scenario!("webhook-down", false, sidecar::webhook_down),
    scenario!("delete", false, life::delete),
];
