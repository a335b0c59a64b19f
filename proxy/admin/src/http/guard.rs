//! Who may use the admin API.

use std::path::PathBuf;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, ORIGIN};
use pgdog_config::AdminHttp;
use pgdog_config::api::{Refused, RefusedBecause};
use pgdog_net::PeerIdentity;
use subtle::ConstantTimeEq;

/// Who is at the other end of a connection, as far as TLS has proved it.
#[derive(Debug, Clone, Default)]
pub(super) struct Who(pub(super) Option<PeerIdentity>);

/// The rule: a certificate of the right authority (and name), or the token; neither is asked for where none is configured,
/// which is possible on loopback addresses only.
#[derive(Debug)]
pub(super) struct Guard {
    certificates: bool,
    name: Option<String>,
    token_file: Option<PathBuf>,
}

impl Guard {
    pub(super) fn new(admin: &AdminHttp) -> Self {
        Self {
            certificates: admin.client_ca.is_some(),
            name: admin.client_name.clone(),
            token_file: admin.token_file.clone(),
        }
    }

    /// Whether a token is one of the ways in.
    pub(super) fn check(&self, who: &Who, headers: &HeaderMap) -> Result<(), Refused> {
        // A web page that somebody looks at on this machine reaches loopback addresses as well; browsers say so.
        if headers.contains_key(ORIGIN) {
            let message = "requests of web pages are not taken";
            return Err(Refused::new(RefusedBecause::Forbidden, message));
        }
        if !self.certificates && self.token_file.is_none() {
            return Ok(());
        }
        if self.token_file.is_some() && self.has_token(headers) {
            return Ok(());
        }
        match &who.0 {
            Some(identity) if self.certificates => self.check_name(identity),
            _ => {
                let message = match (self.certificates, self.token_file.is_some()) {
                    (true, true) => "neither a client certificate nor a valid token",
                    (true, false) => "no client certificate",
                    (false, _) => {
                        "no valid token: send Authorization: Bearer and the content of admin.http_token_file"
                    }
                };
                Err(Refused::new(RefusedBecause::Unauthorized, message))
            }
        }
    }

    fn check_name(&self, identity: &PeerIdentity) -> Result<(), Refused> {
        let Some(wanted) = &self.name else {
            return Ok(());
        };
        let mut names = identity.dns_names.iter().chain(&identity.uris);
        // As everywhere: the common name counts only where there is no other.
        let common = identity
            .common_name
            .as_ref()
            .filter(|_| !identity.has_alternative_names);
        if names.any(|name| name == wanted) || common == Some(wanted) {
            return Ok(());
        }
        let message = format!(
            "the client certificate does not carry the name {wanted:?} (admin.http_client_name)"
        );
        Err(Refused::new(RefusedBecause::Forbidden, message))
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let said = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let said = said.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let (Some(said), Some(file)) = (said, &self.token_file) else {
            return false;
        };
        match std::fs::read_to_string(file) {
            Ok(token) if token.trim().is_empty() => {
                tracing::error!(
                    "admin.http_token_file = {}: the file is empty, nobody gets in",
                    file.display()
                );
                false
            }
            Ok(token) => token.trim().as_bytes().ct_eq(said.as_bytes()).into(),
            Err(error) => {
                tracing::error!(
                    "failed to read admin.http_token_file = {}: {error}",
                    file.display()
                );
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(entries: &[(axum::http::HeaderName, &str)]) -> HeaderMap {
        entries
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    fn because(result: Result<(), Refused>) -> Option<RefusedBecause> {
        result.err().map(|refused| refused.error)
    }

    #[test]
    fn a_certificate_has_to_carry_the_configured_name() {
        let guard = Guard {
            certificates: true,
            name: Some("spiffe://cluster/operator".to_owned()),
            token_file: None,
        };
        let with = |uri: &str| {
            Who(Some(PeerIdentity {
                common_name: Some("spiffe://cluster/operator".to_owned()),
                uris: vec![uri.to_owned()],
                has_alternative_names: true,
                ..PeerIdentity::default()
            }))
        };
        let none = HeaderMap::new();
        assert_eq!(
            because(guard.check(&with("spiffe://cluster/operator"), &none)),
            None
        );
        assert_eq!(
            because(guard.check(&with("spiffe://other"), &none)),
            Some(RefusedBecause::Forbidden)
        );
        assert_eq!(
            because(guard.check(&Who(None), &none)),
            Some(RefusedBecause::Unauthorized)
        );
    }

    #[test]
    fn the_token_is_that_of_the_file_at_this_moment() {
        let file = std::env::temp_dir().join(format!("pgdog-token-{}", std::process::id()));
        let guard = Guard {
            certificates: false,
            name: None,
            token_file: Some(file.clone()),
        };
        let ask =
            |value: &str| because(guard.check(&Who(None), &headers(&[(AUTHORIZATION, value)])));
        let refused = Some(RefusedBecause::Unauthorized);
        assert_eq!(ask("Bearer one"), refused, "no file");
        std::fs::write(&file, "one\n").unwrap();
        assert_eq!(ask("Bearer one"), None);
        assert_eq!(ask("Bearer two"), refused);
        assert_eq!(ask("one"), refused);
        assert_eq!(because(guard.check(&Who(None), &HeaderMap::new())), refused);
        std::fs::write(&file, "two\n").unwrap();
        assert_eq!(ask("bearer two"), None);
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(ask("Bearer "), refused, "an empty token is none");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn web_pages_are_refused_where_everybody_else_is_taken() {
        let guard = Guard {
            certificates: false,
            name: None,
            token_file: None,
        };
        assert_eq!(because(guard.check(&Who(None), &HeaderMap::new())), None);
        let page = headers(&[(ORIGIN, "http://example.org")]);
        assert_eq!(
            because(guard.check(&Who(None), &page)),
            Some(RefusedBecause::Forbidden)
        );
    }
}
