//! Databases and users.

use kube::KubeSchema;
use pgdog_config::PoolerMode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A database that clients may connect to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSpec {
    /// Name that clients connect to.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its name on the servers, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database_name: Option<String>,
    /// Most server connections of one user to one host. Default: that of `pooling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub pool_size: Option<i32>,
    /// Server connections of one user to one host that are kept open. Default: that of `pooling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min_pool_size: Option<i32>,
    /// When a server connection goes back to its pool. Default: that of `pooling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler_mode: Option<PoolerMode>,
    /// Whether transactions are read-only unless they say otherwise. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// `statement_timeout` of server connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub statement_timeout: Option<Duration>,
    /// `lock_timeout` of server connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub lock_timeout: Option<Duration>,
}

/// How the proxy logs in to the servers for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ServerLogin {
    /// With the password of the user's Secret.
    #[default]
    Password,
    /// With the certificate of `tls.server.clientSecretRef`, where the server asks for no password. The user's Secret still says
    /// what the client has to know.
    Certificate,
}

/// The names of the keys in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeys {
    /// Key of the name. Default: `username`, else `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub username: Option<String>,
    /// Key of the password. Default: `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub password: Option<String>,
    /// Key of the SCRAM-SHA-256 verifier. Default: `verifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub verifier: Option<String>,
}

/// A Secret that holds a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSecret {
    /// Name of the Secret, in the namespace of this resource.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its keys, where they have other names than those that the providers of Postgres use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<SecretKeys>,
}

/// A user that may connect.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) || has(self.secretRef)").message("a user needs a name, or a secretRef whose Secret holds one"),
    validation = Rule::new("!has(self.minPoolSize) || !has(self.poolSize) || self.minPoolSize <= self.poolSize").message("minPoolSize is above poolSize"),
)]
pub struct UserSpec {
    /// Name that clients log in with. Default: the one in the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,
    /// Databases of `databases` that the user may connect to. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub databases: Vec<String>,
    /// Secret with the password (or the verifier) that the client has to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<UserSecret>,
    /// Secret with the login to the servers, where it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_secret_ref: Option<UserSecret>,
    /// How the proxy logs in to the servers.
    #[serde(default)]
    pub server_login: ServerLogin,
    /// Time for which the former password is accepted as well, once the Secret holds another one. Default: 10m; 0s switches
    /// it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 16, "pattern" = "^([0-9]+([.][0-9]+)?(ms|us|ns|s|m|h))+$"))]
    pub rotation_overlap: Option<Duration>,
    /// Most server connections of this user to one host. Default: that of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub pool_size: Option<i32>,
    /// Server connections of this user to one host that are kept open. Default: that of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub min_pool_size: Option<i32>,
    /// When a server connection goes back to its pool. Default: that of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler_mode: Option<PoolerMode>,
    /// Whether transactions are read-only unless they say otherwise. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Whether a client certificate is the only way in. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_client_certificate_required: Option<bool>,
}
