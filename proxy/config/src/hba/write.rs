//! Rules and maps as text: for people to look at, and for reading it again.

use std::fmt;

use super::{
    Addresses, CertificateCheck, CertificateName, Connection, DatabaseName, Map, MapUser, Method,
    Rule, SystemUser, UserName,
};

impl fmt::Display for Rule {
    /// The line as it could stand in the file. Options that are implied are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.connection.as_str())?;
        list(f, &self.databases)?;
        f.write_str(" ")?;
        list(f, &self.users)?;
        match (self.connection, self.addresses) {
            (Connection::Local, _) => {}
            (_, Addresses::All) => f.write_str(" all")?,
            (_, Addresses::SameHost) => f.write_str(" samehost")?,
            (_, Addresses::SameNet) => f.write_str(" samenet")?,
            (_, Addresses::Network(network)) => write!(f, " {network}")?,
        }
        write!(f, " {}", self.method.as_str())?;
        if let Some(map) = &self.map {
            write!(f, " {}", Quoted(&format!("map={map}")))?;
        }
        match self.certificate {
            CertificateCheck::None => {}
            // Implied.
            CertificateCheck::VerifyFull if self.method == Method::Cert => {}
            CertificateCheck::VerifyCa => f.write_str(" clientcert=verify-ca")?,
            CertificateCheck::VerifyFull => f.write_str(" clientcert=verify-full")?,
        }
        match self.certificate_name {
            CertificateName::Cn => Ok(()),
            CertificateName::Dn => f.write_str(" clientname=DN"),
        }
    }
}

impl fmt::Display for Map {
    /// The line as it could stand in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", Quoted(&self.name))?;
        match &self.system {
            SystemUser::Name(name) => write!(f, "{} ", Quoted(name))?,
            SystemUser::Pattern(pattern) => {
                write!(f, "{} ", Quoted(&format!("/{}", pattern.as_str())))?;
            }
        }
        match &self.user {
            MapUser::All => f.write_str("all"),
            MapUser::Name(name) => Quoted(name).fmt(f),
            MapUser::Group { before, after } => Quoted(&format!(r"{before}\1{after}")).fmt(f),
            MapUser::Pattern(pattern) => Quoted(&format!("/{}", pattern.as_str())).fmt(f),
        }
    }
}

impl Connection {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Host => "host",
            Self::HostSsl => "hostssl",
            Self::HostNoSsl => "hostnossl",
            Self::HostGssEnc => "hostgssenc",
            Self::HostNoGssEnc => "hostnogssenc",
        }
    }
}

impl Method {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Reject => "reject",
            Self::Md5 => "md5",
            Self::Password => "password",
            Self::ScramSha256 => "scram-sha-256",
            Self::Cert => "cert",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::SameUser => f.write_str("sameuser"),
            Self::Replication => f.write_str("replication"),
            Self::Name(name) => Quoted(name).fmt(f),
            Self::Pattern(pattern) => Quoted(&format!("/{}", pattern.as_str())).fmt(f),
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Name(name) => Quoted(name).fmt(f),
            Self::Pattern(pattern) => Quoted(&format!("/{}", pattern.as_str())).fmt(f),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, values: &[impl fmt::Display]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            f.write_str(",")?;
        }
        value.fmt(f)?;
    }
    Ok(())
}

/// A value in quotes, so that no sign in it has a meaning.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}
