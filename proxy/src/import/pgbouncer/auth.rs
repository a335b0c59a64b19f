//! How clients prove who they are.

use pgdog_config::{Problem, ProblemCode};

use super::settings::Settings;
use super::userlist::{Listed, Secret};
use crate::import::Written;
use crate::import::emit::{Table, Value};

/// `auth_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    Any,
    Trust,
    Plain,
    Md5,
    Scram,
    Cert,
    Hba,
    /// Something that asks another program: LDAP, PAM.
    Foreign,
}

impl Auth {
    pub(super) fn new(settings: &Settings, problems: &mut Vec<Problem>) -> Self {
        let Some(written) = settings.get("auth_type") else {
            return Self::Md5;
        };
        match written.value.as_str() {
            "any" => Self::Any,
            "trust" => Self::Trust,
            "plain" => Self::Plain,
            "md5" => Self::Md5,
            "scram-sha-256" => Self::Scram,
            "cert" => Self::Cert,
            "hba" => Self::Hba,
            "ldap" | "pam" => Self::Foreign,
            _ => {
                let message =
                    "expected one of any, trust, plain, md5, scram-sha-256, cert, hba, ldap, pam";
                problems.push(written.error(ProblemCode::BadValue, message));
                Self::Md5
            }
        }
    }

    /// Whether somebody may log in without a password.
    pub(super) fn needs_no_password(self) -> bool {
        matches!(self, Self::Any | Self::Trust | Self::Cert)
    }

    /// `general.auth_type` and what is to be said about the keys around it.
    pub(super) fn describe(self, settings: &Settings, listed: &[Listed], general: &mut Table) {
        let say = |general: &mut Table, text: &str| {
            general.remark(match settings.get("auth_type") {
                Some(written) => written.remark(text),
                None => format!("auth_type (default): {text}"),
            });
        };
        let hashed = listed
            .iter()
            .any(|user| matches!(user.secret, Secret::Md5(_)));
        let auth_type = match self {
            Self::Any => {
                say(
                    general,
                    "the name of the client counts here: users have to be listed in users.toml",
                );
                "trust"
            }
            Self::Trust => "trust",
            Self::Plain => {
                general.set("plain_without_tls", Value::Flag(true));
                "plain"
            }
            Self::Md5 => {
                if !hashed && !listed.is_empty() {
                    say(
                        general,
                        "no user has an MD5 hash, so \"scram\" works as well and is safer",
                    );
                }
                "md5"
            }
            Self::Scram => "scram",
            Self::Cert => {
                say(
                    general,
                    "each user has its name as identity and has to show a certificate",
                );
                "scram"
            }
            Self::Hba => {
                for key in ["auth_hba_file", "auth_ident_file"] {
                    if let Some(file) = settings.text(key) {
                        general.set(key, file.into());
                    }
                }
                "hba"
            }
            Self::Foreign => {
                say(
                    general,
                    "no counterpart: give every user a password or password_hash in users.toml",
                );
                "scram"
            }
        };
        general.set("auth_type", auth_type.into());
        if self != Self::Hba {
            for key in ["auth_hba_file", "auth_ident_file"] {
                let unused = settings
                    .get(key)
                    .filter(|written| !written.value.is_empty());
                if let Some(remark) = unused
                    .and_then(|written| written.explain("only looked at with auth_type = hba"))
                {
                    general.remark(remark);
                }
            }
        }
        let ldap = settings.get("auth_ldap_options");
        if let Some(remark) = ldap.and_then(|w| w.explain("no counterpart: see auth_type")) {
            general.remark(remark);
        }
        look_up(|key| settings.get(key), listed, general);
    }
}

/// `auth_user`, `auth_query` and `auth_dbname`, of all databases or of one: where users are found who are not listed.
pub(super) fn look_up<'a>(
    get: impl Fn(&str) -> Option<&'a Written>,
    listed: &[Listed],
    table: &mut Table,
) {
    for key in ["auth_user", "auth_query", "auth_dbname"] {
        let meant = |written: &&Written| written.place.is_some() && !written.value.is_empty();
        let Some(written) = get(key).filter(meant) else {
            continue;
        };
        let known = |name: &str| listed.iter().any(|user| user.name == name);
        if key == "auth_user" && !known(&written.value) {
            table.remark(written.remark(
                "the user who runs auth_query has to be in users.toml: add it there, then write this key",
            ));
            continue;
        }
        table.set(key, written.value.as_str().into());
    }
}
