//! Users, with what their Secrets hold.

use std::collections::BTreeMap;

use kube::ResourceExt;
use pgdog_operator_api::{PgDogClusterSpec, SecretStatus, UserSecret, UserSpec};
use serde_json::Value;

use super::config::{Lack, Missing};
use super::settings::Keys;
use crate::rotation::key;
use crate::world::World;

/// Passwords that are accepted besides the present ones, by [`key`]: those that were replaced a short while ago.
pub type Former = BTreeMap<String, Vec<String>>;

/// Users, and the Secrets they came from.
#[derive(Clone, PartialEq, Default)]
pub struct Users {
    /// Entries of `[[users]]`.
    pub entries: Vec<Value>,
    /// The Secrets.
    pub secrets: Vec<SecretStatus>,
}

impl std::fmt::Debug for Users {
    // Passwords stand in their entries.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({} of {:?})", self.entries.len(), self.secrets)
    }
}

/// What a Secret says.
#[derive(Clone, PartialEq, Eq, Default)]
struct Login {
    name: Option<String>,
    password: Option<String>,
    verifier: Option<String>,
}

/// Makes the users of a cluster.
///
/// # Errors
///
/// Every Secret and key that is missing or empty.
pub fn render(
    spec: &PgDogClusterSpec,
    world: &World,
    former: &Former,
) -> Result<Users, Vec<Missing>> {
    let mut users = Users::default();
    let mut missing = Vec::new();
    for (index, user) in spec.users.iter().enumerate() {
        match entry(user, index, world, former, &mut users.secrets) {
            Ok(entry) => users.entries.push(entry),
            Err(error) => missing.push(error),
        }
    }
    if missing.is_empty() {
        Ok(users)
    } else {
        Err(missing)
    }
}

fn entry(
    user: &UserSpec,
    index: usize,
    world: &World,
    former: &Former,
    secrets: &mut Vec<SecretStatus>,
) -> Result<Value, Missing> {
    let place = format!("spec.users[{index}]");
    let login = match &user.secret_ref {
        Some(secret) => read(secret, &format!("{place}.secretRef"), world, secrets)?,
        None => Login::default(),
    };
    let name = user.name.clone().or(login.name).ok_or_else(|| {
        lack(
            Lack::Key,
            format!("{place}: its Secret holds no name (username, user), and there is no spec.users[{index}].name"),
        )
    })?;
    let mut keys = Keys::default();
    keys.set("name", Some(&name));
    if user.databases.is_empty() {
        keys.set("all_databases", Some(true));
    } else {
        keys.set("databases", Some(&user.databases));
    }
    let password = login.password;
    // A verifier alone proves clients; servers ask for the password.
    if password.is_none() {
        keys.set("password_hash", login.verifier);
    }
    let old = former.get(&key(keys.map())).into_iter().flatten();
    let old: Vec<_> = old.filter(|one| Some(*one) != password.as_ref()).collect();
    if !old.is_empty() {
        keys.set("passwords", Some(old));
    }
    keys.set("password", password);
    if let Some(secret) = &user.server_secret_ref {
        let login = read(secret, &format!("{place}.serverSecretRef"), world, secrets)?;
        keys.set("server_user", login.name);
        keys.set("server_password", login.password);
    }
    keys.set("pool_size", user.pool_size);
    keys.set("min_pool_size", user.min_pool_size);
    keys.set("pooler_mode", user.pooler_mode);
    keys.set("read_only", user.read_only);
    keys.set(
        "tls_client_certificate_required",
        user.tls_client_certificate_required,
    );
    Ok(keys.into_value())
}

const fn lack(what: Lack, message: String) -> Missing {
    Missing {
        what,
        mounted: false,
        message,
    }
}

fn read(
    of: &UserSecret,
    place: &str,
    world: &World,
    secrets: &mut Vec<SecretStatus>,
) -> Result<Login, Missing> {
    let secret = world.secrets.get(&of.name).ok_or_else(|| {
        lack(
            Lack::Secret,
            format!("{place}: there is no Secret {}", of.name),
        )
    })?;
    let keys = of.keys.clone().unwrap_or_default();
    let first = |own: &Option<String>, known: &[&str]| match own {
        Some(key) => world.secret_text(&of.name, key),
        None => known
            .iter()
            .find_map(|key| world.secret_text(&of.name, key)),
    };
    let login = Login {
        name: first(&keys.username, &["username", "user"]),
        password: first(&keys.password, &["password"]),
        verifier: first(&keys.verifier, &["verifier"]),
    };
    let password = keys.password.as_deref().unwrap_or("password");
    let verifier = keys.verifier.as_deref().unwrap_or("verifier");
    if login.password.is_none() && login.verifier.is_none() {
        let message = format!("{place}: Secret {} has no key {password}", of.name);
        return Err(lack(Lack::Key, message));
    }
    for (key, value) in [(password, &login.password), (verifier, &login.verifier)] {
        if value.as_deref() == Some("") {
            let message = format!("{place}: key {key} of Secret {} is empty", of.name);
            return Err(lack(Lack::Value, message));
        }
    }
    let status = SecretStatus {
        name: of.name.clone(),
        resource_version: secret.resource_version().unwrap_or_default(),
    };
    if !secrets.contains(&status) {
        secrets.push(status);
    }
    Ok(login)
}
