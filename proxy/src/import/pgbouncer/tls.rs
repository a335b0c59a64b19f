//! TLS on both sides: keys that mean something only together.

use pgdog_config::{Problem, ProblemCode};

use super::settings::Settings;
use crate::import::Written;
use crate::import::emit::{Table, Value};

/// Where Debian keeps the authorities of the system, which PgBouncer uses when no file is named.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

const MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

fn mode<'s>(
    settings: &'s Settings,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Option<(&'static str, &'s Written)> {
    let written = settings.get(key).filter(|w| !w.value.is_empty())?;
    let mode = MODES.iter().find(|mode| **mode == written.value);
    if mode.is_none() {
        let message = format!("expected one of {}", MODES.join(", "));
        problems.push(written.error(ProblemCode::BadValue, message));
    }
    mode.map(|mode| (*mode, written))
}

pub(super) fn clients(settings: &Settings, general: &mut Table, problems: &mut Vec<Problem>) {
    let Some((mode, written)) = mode(settings, "client_tls_sslmode", problems) else {
        return;
    };
    if mode == "disable" {
        return;
    }
    let files = (
        settings.text("client_tls_cert_file"),
        settings.text("client_tls_key_file"),
    );
    let (Some(certificate), Some(key)) = files else {
        let message = "needs client_tls_cert_file and client_tls_key_file";
        problems.push(written.error(ProblemCode::MissingKey, message));
        return;
    };
    general.set("tls_certificate", certificate.into());
    general.set("tls_private_key", key.into());
    general.set(
        "tls_client_required",
        Value::Flag(!matches!(mode, "allow" | "prefer")),
    );
    if mode.starts_with("verify") {
        general.remark(written.remark(
            "a certificate that a client shows is checked, but only users with an identity in users.toml have to show one",
        ));
        authority(
            settings,
            "client_tls_ca_file",
            "tls_client_ca_certificate",
            general,
        );
    }
}

pub(super) fn servers(settings: &Settings, general: &mut Table, problems: &mut Vec<Problem>) {
    if let Some(certificate) = settings.text("server_tls_cert_file") {
        general.set("tls_server_certificate", certificate.into());
    }
    if let Some(key) = settings.text("server_tls_key_file") {
        general.set("tls_server_private_key", key.into());
    }
    let Some((mode, written)) = mode(settings, "server_tls_sslmode", problems) else {
        return;
    };
    let verify = match mode {
        "disable" => "disabled",
        "prefer" => "prefer",
        "allow" => {
            general.remark(
                written
                    .remark("TLS is used where the server offers it, there only where it insists"),
            );
            "prefer"
        }
        "require" if settings.text("server_tls_ca_file").is_some() => {
            general.remark(written.remark("there is no TLS without a check of the certificate here: it has to come from server_tls_ca_file"));
            "verify_ca"
        }
        "require" => {
            general.remark(written.remark(
                "WEAKER HERE: a server that offers no TLS is spoken to without it. Set tls_verify = \"verify_ca\" or \"verify_full\" with tls_server_ca_certificate to insist on TLS",
            ));
            "prefer"
        }
        "verify-ca" => "verify_ca",
        _ => "verify_full",
    };
    general.set("tls_verify", verify.into());
    if verify.starts_with("verify") {
        authority(
            settings,
            "server_tls_ca_file",
            "tls_server_ca_certificate",
            general,
        );
    }
}

fn authority(settings: &Settings, theirs: &str, ours: &'static str, general: &mut Table) {
    if settings.text(theirs).is_none() {
        general.remark(format!(
            "{theirs} is not set, so PgBouncer takes the authorities of the system; correct the path where they are elsewhere"
        ));
    }
    general.set(
        ours,
        settings.text(theirs).unwrap_or(SYSTEM_AUTHORITIES).into(),
    );
}
