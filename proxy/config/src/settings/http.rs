//! The HTTP endpoints: where they are, and that nobody gets at the admin API who should not.

use std::net::IpAddr;

use super::build::{Report, path};
use super::{AdminHttp, PlainHttp};
use crate::problem::ProblemCode;

pub(super) fn admin(report: &mut Report<'_>) -> Option<AdminHttp> {
    let admin = &report.config.admin;
    let certificate = path(admin.http_tls_certificate.as_ref());
    let private_key = path(admin.http_tls_private_key.as_ref());
    let http = AdminHttp {
        host: admin.http_host.clone(),
        port: admin.http_port?,
        tls: certificate.clone().zip(private_key.clone()),
        client_ca: path(admin.http_client_ca.as_ref()),
        client_name: admin
            .http_client_name
            .clone()
            .filter(|name| !name.is_empty()),
        token_file: path(admin.http_token_file.as_ref()),
    };
    for (set, missing, key) in [
        (&certificate, &private_key, "http_tls_certificate"),
        (&private_key, &certificate, "http_tls_private_key"),
    ] {
        if set.is_some() && missing.is_none() {
            let message = "needs both http_tls_certificate and http_tls_private_key";
            report.error(&format!("admin.{key}"), ProblemCode::Conflict, message);
        }
    }
    if http.client_ca.is_some() && http.tls.is_none() {
        let message = "needs http_tls_certificate and http_tls_private_key";
        report.error("admin.http_client_ca", ProblemCode::Conflict, message);
    }
    if http.client_name.is_some() && http.client_ca.is_none() {
        let message = "needs http_client_ca, for names in unchecked certificates prove nothing";
        report.error("admin.http_client_name", ProblemCode::Conflict, message);
    }
    if !is_loopback(&http.host) {
        if !http.is_guarded() {
            let message = format!(
                "\"{}\" is not a loopback address: anybody could change the configuration; set http_client_ca or http_token_file",
                http.host
            );
            report.error("admin.http_host", ProblemCode::Conflict, message);
        } else if http.tls.is_none() {
            let message = "passwords and the token go over the network in the clear; set http_tls_certificate and http_tls_private_key";
            report.warning("admin.http_host", ProblemCode::Conflict, message);
        }
    }
    Some(http)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn plain(report: &mut Report<'_>) -> PlainHttp {
    let general = &report.config.general;
    let namespace = general.openmetrics_namespace.clone().unwrap_or_default();
    let name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    if !namespace.bytes().all(name) || namespace.starts_with(|c: char| c.is_ascii_digit()) {
        let message =
            format!("\"{namespace}\" cannot begin the name of a metric: letters, digits, _ and :");
        report.error(
            "general.openmetrics_namespace",
            ProblemCode::BadValue,
            message,
        );
    }
    PlainHttp {
        host: general.openmetrics_host.clone(),
        health: general.healthcheck_port,
        metrics: general.openmetrics_port,
        namespace,
    }
}
