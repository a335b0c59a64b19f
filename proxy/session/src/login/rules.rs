//! What the rules of `pg_hba.conf` ask of a client, told in PostgreSQL's words where it does not get in.

use pgdog_config::hba::{
    CertificateCheck, CertificateName, From, Method, Network, Place, Request, Rule,
};
use pgdog_net::{Peer, Stream, machine};
use pgdog_wire::startup::Startup;
use pgdog_wire::{ErrorResponse, sqlstate};

use super::{Fail, Session};

/// What the rule that fits asks for.
pub(super) struct Demand {
    pub(super) method: Method,
    map: Option<String>,
    certificate: CertificateCheck,
    certificate_name: CertificateName,
    place: Place,
}

impl Session {
    /// What a client has to do; `None` where there are no rules.
    pub(super) fn demand(&mut self, startup: &Startup) -> Result<Option<Demand>, Fail> {
        let live = self.live.clone();
        let Some(rules) = &live.rules else {
            return Ok(None);
        };
        let tls = self.stream()?.is_tls();
        let interfaces = if rules.rules.need_interfaces() {
            interfaces()
        } else {
            Vec::new()
        };
        let request = Request {
            from: match self.peer {
                Peer::Unix => From::Local,
                Peer::Tcp(address) => From::Tcp {
                    address: address.ip(),
                    tls,
                    interfaces: &interfaces,
                },
            },
            database: &startup.database,
            user: &startup.user,
            replication: super::proof::is_physical(startup),
        };
        let rule = rules.rules.find(&request);
        match rule {
            Some(rule) if rule.method != Method::Reject => Ok(Some(Demand {
                method: rule.method,
                map: rule.map.clone(),
                certificate: rule.certificate,
                certificate_name: rule.certificate_name,
                place: rule.place.clone(),
            })),
            _ => Err(self.rejected(rule, &request)),
        }
    }

    fn rejected(&mut self, rule: Option<&Rule>, request: &Request<'_>) -> Fail {
        self.why = Some(match rule {
            Some(rule) => format!("rejected by {}: {rule}", rule.place),
            None => "no rule of auth_hba_file fits".to_owned(),
        });
        let (host, encryption) = match request.from {
            From::Local => ("[local]".to_owned(), "no encryption"),
            From::Tcp { address, tls, .. } => (
                address.to_canonical().to_string(),
                if tls {
                    "SSL encryption"
                } else {
                    "no encryption"
                },
            ),
        };
        let Request { database, user, .. } = request;
        let text = match (rule, request.replication) {
            (Some(_), false) => format!(
                "pg_hba.conf rejects connection for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
            ),
            (None, false) => format!(
                "no pg_hba.conf entry for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
            ),
            (Some(_), true) => format!(
                "pg_hba.conf rejects replication connection for host \"{host}\", user \"{user}\", {encryption}"
            ),
            (None, true) => format!(
                "no pg_hba.conf entry for replication connection from host \"{host}\", user \"{user}\", {encryption}"
            ),
        };
        ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).into()
    }

    /// Whether there is a certificate where the rule wants one.
    pub(super) fn has_certificate(&mut self, demand: &Demand) -> Result<(), Fail> {
        let presented = self.stream()?.peer_identity().is_some();
        if demand.certificate == CertificateCheck::None || presented {
            return Ok(());
        }
        self.why = Some(format!("{} asks for a certificate", demand.place));
        let text = "connection requires a valid client certificate";
        Err(ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).into())
    }

    /// `clientcert=verify-full`, besides the method.
    pub(super) fn is_named_as_demanded(&mut self, demand: &Demand, user: &str) -> Result<(), Fail> {
        match (demand.certificate, demand.method) {
            (_, Method::Cert) | (CertificateCheck::None | CertificateCheck::VerifyCa, _) => Ok(()),
            (CertificateCheck::VerifyFull, _) => self.is_named_by_certificate(demand, user),
        }
    }

    /// Whether the certificate's name may be this user.
    pub(super) fn is_named_by_certificate(
        &mut self,
        demand: &Demand,
        user: &str,
    ) -> Result<(), Fail> {
        let presented = self.stream.as_ref().and_then(Stream::peer_identity);
        let name = presented.and_then(|identity| match demand.certificate_name {
            CertificateName::Cn => identity.common_name,
            CertificateName::Dn => identity.distinguished_name,
        });
        self.is_mapped(demand, name.as_deref(), user, "certificate")
    }

    /// Whether the process at the other end of the unix socket may be this user.
    pub(super) async fn is_user_of_machine(
        &mut self,
        demand: &Demand,
        user: &str,
    ) -> Result<(), Fail> {
        let name = match self.stream()?.peer_user() {
            Ok(Some(id)) => tokio::task::spawn_blocking(move || machine::user_name(id))
                .await
                .map_err(std::io::Error::other)
                .flatten(),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let name = name.unwrap_or_else(|error| {
            tracing::warn!("failed to find out who is at the other end of a unix socket: {error}");
            None
        });
        self.is_mapped(demand, name.as_deref(), user, "Peer")
    }

    fn is_mapped(
        &mut self,
        demand: &Demand,
        name: Option<&str>,
        user: &str,
        what: &str,
    ) -> Result<(), Fail> {
        let map = demand.map.as_deref();
        let maps = self.live.rules.as_ref().map(|rules| &rules.maps);
        if let (Some(name), Some(maps)) = (name, maps)
            && maps.allows(map, name, user)
        {
            return Ok(());
        }
        self.why = Some(match (name, map) {
            (None, _) => format!("{}: the name of the client is not known", demand.place),
            (Some(name), None) => format!("{}: the client is \"{name}\"", demand.place),
            (Some(name), Some(map)) => format!(
                "{}: map \"{map}\" does not let \"{name}\" be this user",
                demand.place
            ),
        });
        let text = format!("{what} authentication failed for user \"{user}\"");
        Err(ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).into())
    }
}

/// The networks of this machine; none, so that no rule about them fits, when the system does not tell.
fn interfaces() -> Vec<Network> {
    match machine::interfaces() {
        Ok(all) => all
            .into_iter()
            .filter_map(|(address, mask)| Network::new(address, mask))
            .collect(),
        Err(error) => {
            tracing::warn!("failed to find out the addresses of this machine: {error}");
            Vec::new()
        }
    }
}
