//! The configuration as a whole: its two halves, checked with the proxy's own parser.

use pgdog_config::api::{Finding, Half, findings};
use pgdog_config::{Config, Settings, Severity, documents};
use pgdog_operator_api::{Mode, PgDogCluster, SecretStatus};
use serde_json::{Map, Value};

use super::users::Users;
use super::{children, process, settings, tls, topology, users};
use crate::discover::Found;
use crate::world::World;

/// Both halves of a configuration, and what belongs to the process.
#[derive(Clone, PartialEq)]
pub struct Rendered {
    /// What a proxy is started with; a change of it makes new pods.
    pub process: Map<String, Value>,
    /// Everything but hosts.
    pub settings: Map<String, Value>,
    /// Nothing but hosts.
    pub topology: Map<String, Value>,
    /// The Secrets it was made of.
    pub secrets: Vec<SecretStatus>,
}

impl std::fmt::Debug for Rendered {
    // Passwords stand in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendered")
            .field("process", &self.process)
            .field("topology", &self.topology)
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It is not there.
    Secret,
    /// It has not the key.
    Key,
    /// Nothing stands in the key.
    Value,
    /// What stands in the key is no certificate.
    Certificate,
}

impl Lack {
    /// The same for programs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Secret => "SecretNotFound",
            Self::Key => "KeyMissing",
            Self::Value => "KeyEmpty",
            Self::Certificate => "NoCertificate",
        }
    }
}

/// A Secret that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is wrong with it.
    pub what: Lack,
    /// Whether pods mount it: new ones would wait for it.
    pub mounted: bool,
    /// The same for people.
    pub message: String,
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unrenderable {
    /// Secrets or keys of Secrets are missing.
    Secrets(Vec<Missing>),
    /// What is written makes no configuration.
    Invalid(Vec<Finding>),
}

impl Unrenderable {
    /// Whether the pods that there are have to stay as they are: none of another template could start.
    #[must_use]
    pub fn keeps_pods(&self) -> bool {
        matches!(self, Self::Secrets(missing) if missing.iter().any(|one| one.mounted))
    }
}

/// Makes the configuration of a cluster.
///
/// # Errors
///
/// [`Unrenderable`], with everything that is wrong: then what is in force stays in force.
pub fn render(
    cluster: &PgDogCluster,
    found: &Found,
    world: &World,
    former: &users::Former,
) -> Result<Rendered, Unrenderable> {
    check_pods(cluster).map_err(Unrenderable::Invalid)?;
    let users = users::render(&cluster.spec, world, former);
    let of_tls = tls::missing(cluster, world);
    let Users { entries, secrets } = match users {
        Ok(users) if of_tls.is_empty() => users,
        users => {
            let mut missing = users.err().unwrap_or_default();
            missing.extend(of_tls);
            return Err(Unrenderable::Secrets(missing));
        }
    };
    let (process, settings) = {
        let mut process = process::render(cluster, world.ipv6);
        let (own, live) = settings::render(cluster, entries).map_err(Unrenderable::Invalid)?;
        merge(&mut process, own);
        (process, live)
    };
    let topology = topology::render(&cluster.spec, found);
    let rendered = Rendered {
        process,
        settings,
        topology,
        secrets,
    };
    rendered.check().map_err(Unrenderable::Invalid)?;
    Ok(rendered)
}

/// What the proxies of a cluster are started with, on a network of IPv4.
///
/// # Errors
///
/// Keys that belong to the operator.
pub fn process(cluster: &PgDogCluster) -> Result<Map<String, Value>, Vec<Finding>> {
    let mut process = process::render(cluster, false);
    let (own, _) = settings::render(cluster, Vec::new())?;
    merge(&mut process, own);
    Ok(process)
}

/// What is wrong with the pods that are asked for.
fn check_pods(cluster: &PgDogCluster) -> Result<(), Vec<Finding>> {
    let pod = cluster.spec.pod.as_ref();
    if pod.is_none_or(|pod| pod.template.is_none()) {
        return Ok(());
    }
    if cluster.spec.mode == Mode::Sidecar {
        return Err(vec![Finding {
            path: "spec.pod.template".to_owned(),
            code: "bad_value".to_owned(),
            message: "is for mode Deployment: sidecars stand in the application's own template"
                .to_owned(),
        }]);
    }
    children::template(cluster, "", &Map::new()).map(|_| ())
}

impl Rendered {
    /// What the proxy would say of it.
    fn check(&self) -> Result<(), Vec<Finding>> {
        let halves = [
            (Half::Settings, Value::Object(self.settings.clone())),
            (Half::Topology, Value::Object(self.topology.clone())),
        ];
        for (half, document) in &halves {
            documents::check(*half, document).map_err(|p| findings(&p, Severity::Error))?;
        }
        let whole = self.whole();
        let config = Config::from_json(&whole, "the rendered configuration")
            .map_err(|p| findings(&p, Severity::Error))?;
        Settings::build(&config)
            .map(|_| ())
            .map_err(|p| findings(&p, Severity::Error))
    }

    /// All of it as one configuration, as in a file.
    fn whole(&self) -> Value {
        let mut settings = self.settings.clone();
        merge(&mut settings, self.process.clone());
        documents::join(
            &Value::Object(settings),
            &Value::Object(self.topology.clone()),
        )
    }
}

/// Lays sections over sections, key by key.
pub(super) fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (section, value) in over {
        match (under.get_mut(&section), value) {
            (Some(Value::Object(keys)), Value::Object(more)) => keys.extend(more),
            (_, value) => {
                under.insert(section, value);
            }
        }
    }
}
