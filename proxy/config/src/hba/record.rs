//! A line of `pg_hba.conf` → a rule.

use std::net::IpAddr;
use std::slice::Iter;

use super::lines::Line;
use super::pattern::{Pattern, Refusal};
use super::tokens::{Field, Token};
use super::{
    Addresses, CertificateCheck, CertificateName, Connection, DatabaseName, Method, Network, Place,
    Rule, UserName,
};
use crate::problem::{Problem, ProblemCode};

/// What is wrong with a line.
pub(super) type Wrong = (ProblemCode, String);

/// The methods of PostgreSQL that this proxy does not have.
const OTHER_METHODS: &[&str] = &[
    "bsd", "gss", "ident", "ldap", "oauth", "pam", "radius", "sspi",
];

/// How their options begin; none of ours has them.
const OTHER_OPTIONS: &[&str] = &["ldap", "pam", "radius", "krb_", "include_realm"];

pub(super) fn syntax<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err((ProblemCode::Syntax, message.into()))
}

fn bad_value<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err((ProblemCode::BadValue, message.into()))
}

fn unsupported<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err((ProblemCode::NotImplemented, message.into()))
}

/// The rule of a line; `None` with at least one problem.
pub(super) fn rule(line: &Line, problems: &mut Vec<Problem>) -> Option<Rule> {
    let mut record = Record {
        place: &line.place,
        fields: line.fields.iter(),
        problems,
    };
    record.rule()
}

struct Record<'a> {
    place: &'a Place,
    fields: Iter<'a, Field>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Record<'a> {
    fn rule(&mut self) -> Option<Rule> {
        // Without a field the fields behind it cannot be told apart, so the line ends here; a bad value is only told.
        let connection = self.single("connection type").and_then(connection);
        let connection = self.told(connection)?;
        let databases = self.field("database");
        let databases = self.told(databases)?;
        let databases = self.each(databases, database);
        let users = self.field("user");
        let users = self.told(users)?;
        let users = self.each(users, user);
        let addresses = match connection {
            Connection::Local => Some(Addresses::All),
            _ => {
                let addresses = self.addresses();
                // After a bad address nobody knows whether a mask comes next.
                self.told(addresses)?
            }
        };
        let name = self.single("authentication method");
        let name = self.told(name)?;
        let method = method(&name.text, connection);
        let method = self.told(method)?;
        let options = self.options(connection, method)?;
        Some(Rule {
            place: self.place.clone(),
            connection,
            databases: databases?,
            users: users?,
            addresses: addresses?,
            method,
            map: options.map,
            certificate: options.certificate,
            certificate_name: options.certificate_name,
        })
    }

    /// Everything that is left; `None` when some of it was told as a problem.
    fn options(&mut self, connection: Connection, method: Method) -> Option<Options> {
        let mut options = Options {
            map: None,
            certificate: match method {
                Method::Cert => CertificateCheck::VerifyFull,
                _ => CertificateCheck::None,
            },
            certificate_name: CertificateName::Cn,
        };
        let before = self.problems.len();
        for token in self.fields.by_ref().flatten() {
            if let Err((code, message)) = options.add(&token.text, connection, method) {
                self.problems.push(self.place.problem(code, message));
            }
        }
        (self.problems.len() == before).then_some(options)
    }

    fn told<T>(&mut self, value: Result<T, Wrong>) -> Option<T> {
        value
            .map_err(|(code, message)| self.problems.push(self.place.problem(code, message)))
            .ok()
    }

    /// What each value means; `None` when one of them was told as a problem.
    fn each<T>(
        &mut self,
        field: &[Token],
        meaning: impl Fn(&Token) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let values: Vec<_> = field
            .iter()
            .filter_map(|token| self.told(meaning(token)))
            .collect();
        (values.len() == field.len()).then_some(values)
    }

    fn field(&mut self, what: &str) -> Result<&'a Field, Wrong> {
        match self.fields.next() {
            Some(field) => Ok(field),
            None => syntax(format!("the line ends before the {what}")),
        }
    }

    fn single(&mut self, what: &str) -> Result<&'a Token, Wrong> {
        match self.field(what)?.as_slice() {
            [token] => Ok(token),
            _ => syntax(format!("more than one {what}; write a line for each")),
        }
    }

    /// The addresses; `None` for the name of a host, which was told: no mask follows it.
    fn addresses(&mut self) -> Result<Option<Addresses>, Wrong> {
        let token = self.single("address")?;
        if token.is_keyword("all") {
            return Ok(Some(Addresses::All));
        }
        if token.is_keyword("samehost") {
            return Ok(Some(Addresses::SameHost));
        }
        if token.is_keyword("samenet") {
            return Ok(Some(Addresses::SameNet));
        }
        let (address, bits) = match token.text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (token.text.as_str(), None),
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            if bits.is_some() {
                return bad_value(format!(
                    "expected an address in front of the /, found \"{}\"",
                    token.text
                ));
            }
            let told = unsupported(format!(
                "host names are not supported, write the address of \"{address}\" or \"all\""
            ));
            return Ok(self.told(told));
        };
        let addresses = match bits {
            Some(bits) => prefix(address, bits),
            None => self.mask(address),
        };
        addresses.map(Some)
    }

    fn mask(&mut self, address: IpAddr) -> Result<Addresses, Wrong> {
        let token = self.single("mask of the address, as in 10.0.0.0/8 or 10.0.0.0 255.0.0.0")?;
        let Ok(mask) = token.text.parse::<IpAddr>() else {
            return bad_value(format!(
                "expected the mask of {address}, found \"{}\"; write it as 10.0.0.0/8 or 10.0.0.0 255.0.0.0",
                token.text
            ));
        };
        match Network::new(address, mask) {
            Some(network) => Ok(Addresses::Network(network)),
            None => bad_value(format!(
                "address {address} and mask {mask} are of different families"
            )),
        }
    }
}

fn connection(token: &Token) -> Result<Connection, Wrong> {
    Ok(match token.text.as_str() {
        "local" => Connection::Local,
        "host" => Connection::Host,
        "hostssl" => Connection::HostSsl,
        "hostnossl" => Connection::HostNoSsl,
        "hostgssenc" => Connection::HostGssEnc,
        "hostnogssenc" => Connection::HostNoGssEnc,
        other => {
            return bad_value(format!(
                "unknown connection type \"{other}\", expected one of local, host, hostssl, hostnossl, hostgssenc, hostnogssenc"
            ));
        }
    })
}

fn database(token: &Token) -> Result<DatabaseName, Wrong> {
    if token.is_keyword("all") {
        return Ok(DatabaseName::All);
    }
    if token.is_keyword("sameuser") {
        return Ok(DatabaseName::SameUser);
    }
    if token.is_keyword("replication") {
        return Ok(DatabaseName::Replication);
    }
    if token.is_keyword("samerole") || token.is_keyword("samegroup") {
        return unsupported(format!(
            "\"{}\" is not supported, it needs a role lookup; name the databases",
            token.text
        ));
    }
    Ok(match pattern(token)? {
        Some(pattern) => DatabaseName::Pattern(pattern),
        None => DatabaseName::Name(token.text.clone()),
    })
}

fn user(token: &Token) -> Result<UserName, Wrong> {
    if token.is_keyword("all") {
        return Ok(UserName::All);
    }
    no_group(token)?;
    Ok(match pattern(token)? {
        Some(pattern) => UserName::Pattern(pattern),
        None => UserName::Name(token.text.clone()),
    })
}

/// Refuses `+group`.
pub(super) fn no_group(token: &Token) -> Result<(), Wrong> {
    match token.group() {
        Some(_) => unsupported(format!(
            "\"{}\" is not supported, it needs a role lookup; name the users",
            token.text
        )),
        None => Ok(()),
    }
}

/// The pattern of a value that begins with a slash.
pub(super) fn pattern(token: &Token) -> Result<Option<Pattern>, Wrong> {
    let Some(text) = token.pattern() else {
        return Ok(None);
    };
    match Pattern::new(text) {
        Ok(pattern) => Ok(Some(pattern)),
        Err(Refusal::Invalid(reason)) => {
            bad_value(format!("invalid regular expression \"{text}\": {reason}"))
        }
        Err(Refusal::Unsupported(reason)) => {
            unsupported(format!("regular expression \"{text}\": {reason}"))
        }
    }
}

fn prefix(address: IpAddr, bits: &str) -> Result<Addresses, Wrong> {
    let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let network = bits
        .parse()
        .ok()
        .filter(|_| digits)
        .and_then(|bits| Network::of_prefix(address, bits));
    match network {
        Some(network) => Ok(Addresses::Network(network)),
        None => {
            let most = if address.is_ipv4() { 32 } else { 128 };
            bad_value(format!(
                "expected 0 to {most} bits behind the / of {address}, found \"{bits}\""
            ))
        }
    }
}

fn method(name: &str, connection: Connection) -> Result<Method, Wrong> {
    let method = match name {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "md5" => Method::Md5,
        "password" => Method::Password,
        "scram-sha-256" => Method::ScramSha256,
        "cert" => Method::Cert,
        "peer" => Method::Peer,
        // PostgreSQL's older name for the same thing.
        "ident" if connection == Connection::Local => Method::Peer,
        _ if OTHER_METHODS.contains(&name) => {
            return unsupported(format!(
                "method \"{name}\" is not supported; {}",
                "use scram-sha-256, md5, password, cert, peer, trust or reject"
            ));
        }
        _ => {
            return bad_value(format!(
                "unknown method \"{name}\", expected one of {}",
                "scram-sha-256, md5, password, cert, peer, trust, reject"
            ));
        }
    };
    match (method, connection) {
        (Method::Peer, Connection::Local) | (Method::Cert, Connection::HostSsl) => Ok(method),
        (Method::Peer, _) => bad_value("method \"peer\" is for local connections only"),
        (Method::Cert, _) => bad_value("method \"cert\" is for hostssl connections only"),
        _ => Ok(method),
    }
}

/// What stands behind the method.
struct Options {
    map: Option<String>,
    certificate: CertificateCheck,
    certificate_name: CertificateName,
}

impl Options {
    /// Takes in one `name=value`. The last of two wins, as in PostgreSQL.
    fn add(&mut self, text: &str, connection: Connection, method: Method) -> Result<(), Wrong> {
        let Some((name, value)) = text.split_once('=') else {
            return syntax(format!(
                "expected an option as name=value, found \"{text}\""
            ));
        };
        match name {
            "map" if matches!(method, Method::Cert | Method::Peer) => {
                self.map = Some(value.to_owned());
            }
            "map" => return bad_value("option \"map\" is for methods cert and peer only"),
            "clientcert" | "clientname" if connection != Connection::HostSsl => {
                return bad_value(format!("option \"{name}\" is for hostssl connections only"));
            }
            "clientcert" => self.certificate = certificate(value, method)?,
            "clientname" => self.certificate_name = certificate_name(value)?,
            _ if OTHER_OPTIONS.iter().any(|other| name.starts_with(other)) => {
                return bad_value(format!("option \"{name}\" is not one of this method"));
            }
            _ => {
                return bad_value(format!(
                    "unknown option \"{name}\", expected one of map, clientcert, clientname"
                ));
            }
        }
        Ok(())
    }
}

fn certificate_name(value: &str) -> Result<CertificateName, Wrong> {
    match value {
        "CN" => Ok(CertificateName::Cn),
        "DN" => Ok(CertificateName::Dn),
        _ => bad_value(format!("expected clientname=CN or DN, found \"{value}\"")),
    }
}

fn certificate(value: &str, method: Method) -> Result<CertificateCheck, Wrong> {
    match value {
        "verify-full" => Ok(CertificateCheck::VerifyFull),
        "verify-ca" if method == Method::Cert => {
            bad_value("method \"cert\" checks the name as well: clientcert=verify-full or nothing")
        }
        "verify-ca" => Ok(CertificateCheck::VerifyCa),
        _ => bad_value(format!(
            "expected clientcert=verify-ca or verify-full, found \"{value}\""
        )),
    }
}
