//! Who may log in from where and how: the rules of `pg_hba.conf` and the name maps of `pg_ident.conf`.
//!
//! Both files are read as PostgreSQL 17 documents them, with their includes, and everything that is wrong with them is told
//! at once. What this proxy cannot do (a method that needs another program, a group of roles, the name of a host) is a
//! problem too: a line that is passed over lets in whoever a later line lets in.
//!
//! Stricter than in PostgreSQL, which passes over them: an `@file` without a value, an include directive with more than one,
//! and a name map with more than three fields.

mod address;
mod lines;
mod maps;
mod pattern;
mod record;
#[cfg(test)]
mod tests;
mod tokens;
mod write;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

pub use address::{Addresses, Network};
pub use maps::{Map, MapUser, Maps, SystemUser};
pub use pattern::Pattern;

use crate::problem::{Problem, ProblemCode, Problems, Severity};

/// The rules, in the order of the file: the first that fits decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub place: Place,
    /// The connections it is about.
    pub connection: Connection,
    /// The databases it is about, any of these.
    pub databases: Vec<DatabaseName>,
    /// The users it is about, any of these.
    pub users: Vec<UserName>,
    /// The addresses it is about.
    pub addresses: Addresses,
    /// What the client has to do.
    pub method: Method,
    /// The map between the name that was proven and the user, with [`Method::Cert`] and [`Method::Peer`].
    pub map: Option<String>,
    /// What is asked of the client's certificate besides.
    pub certificate: CertificateCheck,
    /// Which name in the certificate counts.
    pub certificate_name: CertificateName,
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// The line, beginning with 1.
    pub line: u32,
}

/// Kinds of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Over the unix socket.
    Local,
    /// Over TCP.
    Host,
    /// Over TCP with TLS.
    HostSsl,
    /// Over TCP without TLS.
    HostNoSsl,
    /// Over TCP with GSSAPI encryption, which this proxy does not offer: such a rule never fits.
    HostGssEnc,
    /// Over TCP without GSSAPI encryption: as [`Connection::Host`].
    HostNoGssEnc,
}

/// A value of the second field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseName {
    /// `all`: every database, but no physical replication.
    All,
    /// `sameuser`: the database that has the name of the user.
    SameUser,
    /// `replication`: physical replication, which asks for no database.
    Replication,
    /// This one.
    Name(String),
    /// Those that a pattern matches.
    Pattern(Pattern),
}

/// A value of the third field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserName {
    /// `all`.
    All,
    /// This one.
    Name(String),
    /// Those that a pattern matches.
    Pattern(Pattern),
}

/// What a client has to do to get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing.
    Trust,
    /// It does not get in.
    Reject,
    /// To prove that it knows the password by MD5, or by SCRAM-SHA-256 where there is only a verifier for that.
    Md5,
    /// To tell the password.
    Password,
    /// To prove that it knows the password by SCRAM-SHA-256.
    ScramSha256,
    /// To show a certificate with its name.
    Cert,
    /// To be the user of the operating system.
    Peer,
}

/// What is asked of a client's certificate besides the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateCheck {
    /// Nothing.
    #[default]
    None,
    /// `clientcert=verify-ca`: there has to be one that the authority signed.
    VerifyCa,
    /// `clientcert=verify-full`: and its name has to be that of the user.
    VerifyFull,
}

/// Which name in a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateName {
    /// The common name.
    #[default]
    Cn,
    /// The whole distinguished name, as RFC 2253 writes it.
    Dn,
}

/// A client that wants to log in.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where it comes from.
    pub from: From<'a>,
    /// The database it asked for.
    pub database: &'a str,
    /// The user it wants to be.
    pub user: &'a str,
    /// Whether it asked for physical replication (`replication=true`). Logical replication (`replication=database`) is a
    /// connection to a database as any other.
    pub replication: bool,
}

/// Where a client comes from.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// The unix socket.
    Local,
    /// A TCP socket.
    Tcp {
        /// The address of the client.
        address: IpAddr,
        /// Whether it uses TLS.
        tls: bool,
        /// The addresses of this machine and the networks they are in. Only rules with `samehost` and `samenet` look at
        /// them: see [`Rules::need_interfaces`].
        interfaces: &'a [Network],
    },
}

impl Rules {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, each with its file and line. As in PostgreSQL no rule counts then.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::of_lines(lines::load(path))
    }

    /// Reads a text. `path` is where it would stand: for messages, and for the names of the files that it includes.
    ///
    /// # Errors
    ///
    /// As [`Rules::load`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Problems> {
        Self::of_lines(lines::parse(path, text))
    }

    fn of_lines((lines, mut problems): (Vec<lines::Line>, Vec<Problem>)) -> Result<Self, Problems> {
        let rules = lines
            .into_iter()
            .filter_map(|line| record::rule(&line, &mut problems));
        let rules = Self(rules.collect());
        all_or_nothing(rules, problems)
    }

    /// The rule for a client: the first that fits. A client without a rule is refused.
    pub fn find(&self, request: &Request<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.fits(request))
    }

    /// All rules in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.0.iter()
    }

    /// Whether a rule asks for the addresses or networks of this machine.
    pub fn need_interfaces(&self) -> bool {
        self.0
            .iter()
            .any(|rule| matches!(rule.addresses, Addresses::SameHost | Addresses::SameNet))
    }
}

impl Rule {
    /// Whether it is about a client.
    pub fn fits(&self, request: &Request<'_>) -> bool {
        self.fits_connection(&request.from)
            && self.databases.iter().any(|name| name.fits(request))
            && self.users.iter().any(|name| name.fits(request.user))
    }

    fn fits_connection(&self, from: &From<'_>) -> bool {
        let From::Tcp {
            address,
            tls,
            interfaces,
        } = from
        else {
            return self.connection == Connection::Local;
        };
        let kind = match self.connection {
            Connection::Local | Connection::HostGssEnc => false,
            Connection::Host | Connection::HostNoGssEnc => true,
            Connection::HostSsl => *tls,
            Connection::HostNoSsl => !tls,
        };
        // A socket of both families tells the address of an IPv4 client as one of IPv6.
        kind && self.addresses.contain(address.to_canonical(), interfaces)
    }
}

impl DatabaseName {
    fn fits(&self, request: &Request<'_>) -> bool {
        match self {
            Self::Replication => request.replication,
            _ if request.replication => false,
            Self::All => true,
            Self::SameUser => request.database == request.user,
            Self::Name(name) => name == request.database,
            Self::Pattern(pattern) => pattern.matches(request.database),
        }
    }
}

impl UserName {
    fn fits(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => name == user,
            Self::Pattern(pattern) => pattern.matches(user),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Place {
    /// The beginning of a file.
    fn of_file(path: &Path) -> Self {
        Self {
            file: path.display().to_string().into(),
            line: 0,
        }
    }

    fn problem(&self, code: ProblemCode, message: impl Into<String>) -> Problem {
        Problem {
            file: Some(self.file.to_string()),
            line: (self.line > 0).then_some(self.line),
            path: String::new(),
            code,
            severity: Severity::Error,
            message: message.into(),
        }
    }
}

fn all_or_nothing<T>(all: T, mut problems: Vec<Problem>) -> Result<T, Problems> {
    if problems.is_empty() {
        return Ok(all);
    }
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Err(Problems(problems))
}
