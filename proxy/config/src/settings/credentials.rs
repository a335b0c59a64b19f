//! What a client has to know to log in, and whether that is enough.

use super::build::Report;
use crate::modes::{AuthType, ServerAuth};
use crate::problem::ProblemCode;
use crate::users;

/// Reports what is wrong with the ways a user may log in.
pub(super) fn check(report: &mut Report<'_>, index: usize, user: &users::User) {
    let general = &report.config.general;
    let general_method = general.auth_type.method();
    let auth = general_method.map(|method| user.auth_type.unwrap_or(method));
    let path = |key: &str| format!("users[{index}].{key}");
    if user.auth_type.is_some() && general_method.is_none() {
        let message = "not looked at: general.auth_type is hba, so the rules choose the method";
        report.warning(&path("auth_type"), ProblemCode::Conflict, message);
    }
    let verifier = user.password_hash.as_ref();
    if let Some(hash) = verifier
        && !is_scram_verifier(hash.reveal())
    {
        let message = "expected a verifier as SCRAM-SHA-256$4096:salt$stored key:server key";
        report.error(&path("password_hash"), ProblemCode::BadValue, message);
    }
    let passwords = passwords(user);
    let certificate_only =
        user.identity.is_some() && user.tls_client_certificate_required.unwrap_or(true);
    if auth == Some(AuthType::Md5) && passwords.is_empty() && verifier.is_some() {
        let message = "auth_type md5 needs the password itself, a verifier is for scram and plain";
        report.error(&path("password_hash"), ProblemCode::Conflict, message);
    } else if passwords.is_empty()
        && verifier.is_none()
        // Rules may let in a user without a password.
        && !matches!(auth, None | Some(AuthType::Trust))
        && !certificate_only
    {
        let message = format!(
            "user \"{}\" needs a password, passwords or password_hash to log in",
            user.name
        );
        report.error(&path("password"), ProblemCode::MissingPassword, message);
    }
    if user.identity.is_some() && general.tls_client_ca_certificate.is_none() {
        report.error(
            &path("identity"),
            ProblemCode::Conflict,
            "needs general.tls_client_ca_certificate",
        );
    }
    if user.tls_client_certificate_required == Some(true) && user.identity.is_none() {
        report.error(
            &path("tls_client_certificate_required"),
            ProblemCode::Conflict,
            "needs an identity",
        );
    }
    if user.server_auth != ServerAuth::Password && user.server_password.is_some() {
        let message = "not used together with this server_auth";
        report.warning(&path("server_password"), ProblemCode::Conflict, message);
    }
}

/// `SCRAM-SHA-256$iterations:salt$stored key:server key`, the three in base64, the keys 32 bytes long.
fn is_scram_verifier(text: &str) -> bool {
    let parts = || {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some((iterations.parse::<u32>().ok()?, salt, stored, server))
    };
    let base64 = |text: &str| {
        let digits = text.trim_end_matches('=');
        text.len().is_multiple_of(4)
            && text.len() - digits.len() <= 2
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    };
    // 32 bytes are 44 characters with one = at the end.
    let key = |text: &str| text.len() == 44 && text.ends_with('=') && base64(text);
    parts().is_some_and(|(iterations, salt, stored, server)| {
        iterations > 0 && !salt.is_empty() && base64(salt) && key(stored) && key(server)
    })
}

/// Passwords of the client. An empty one is none: Postgres knows no empty passwords either.
pub(super) fn passwords(user: &users::User) -> Vec<String> {
    let written = user.password.iter().chain(&user.passwords);
    written
        .map(|password| password.reveal().to_owned())
        .filter(|password| !password.is_empty())
        .collect()
}
