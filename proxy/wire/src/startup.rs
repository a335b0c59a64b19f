//! The first packet of a connection: startup, SSLRequest, GSSENCRequest, CancelRequest.

use thiserror::Error;

use crate::error::{ClientError, ErrorResponse, sqlstate};
use crate::frame::cstr;
use crate::write::{self, untyped};

/// Largest first packet, as in PostgreSQL (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_PACKET: usize = 10_000;
/// Protocol 3.0.
pub const VERSION_3_0: u32 = 3 << 16;
/// Protocol 3.2: cancel keys of variable length.
pub const VERSION_3_2: u32 = (3 << 16) | 2;

const SSL_REQUEST: u32 = (1234 << 16) | 5679;
const GSS_REQUEST: u32 = (1234 << 16) | 5680;
const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;

/// A first packet, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI encryption.
    Gss,
    /// Another session's query is to be cancelled.
    Cancel(CancelKey),
    /// A session begins.
    Startup(Startup),
}

/// The key that a server gives at login and a CancelRequest brings back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// Process id.
    pub pid: u32,
    /// Secret: 4 bytes in protocol 3.0, up to 256 in 3.2.
    pub secret: Vec<u8>,
}

/// A StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Startup {
    /// The minor version that the client asked for; the major one is 3.
    pub minor: u16,
    /// `user`.
    pub user: String,
    /// `database`; the user's name when the client gave none.
    pub database: String,
    /// `replication`, when it is not off.
    pub replication: Option<String>,
    /// Server parameters, those within `options` included, in the order given, names as given.
    pub parameters: Vec<(String, String)>,
    /// Names of `_pq_.` protocol options, none of which is known here.
    pub protocol_options: Vec<String>,
    /// What is wrong with `options`, to be told when the client has proven who it is.
    pub bad_options: Option<StartupError>,
}

/// What is wrong with a first packet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartupError {
    /// The length word is impossible.
    #[error("invalid length of startup packet")]
    Length,
    /// The body does not read as pairs of strings.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// Major version other than 3.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// As asked.
        major: u16,
        /// As asked.
        minor: u16,
    },
    /// No user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// `options` holds something other than settings.
    #[error("invalid command-line argument for server process: {0}")]
    Options(String),
    /// A setting within `options` lacks its value.
    #[error("-c {0} requires a value")]
    OptionValue(String),
    /// A string that is not UTF-8.
    #[error("invalid byte sequence for encoding \"UTF8\" in startup packet")]
    Encoding,
}

impl ClientError for StartupError {
    fn response(&self) -> ErrorResponse {
        let code = match self {
            Self::Length | Self::Layout => sqlstate::PROTOCOL_VIOLATION,
            Self::Version { .. } => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::NoUser => sqlstate::INVALID_AUTHORIZATION,
            Self::Options(_) | Self::OptionValue(_) => sqlstate::SYNTAX_ERROR,
            Self::Encoding => "22021",
        };
        let error = ErrorResponse::fatal(code, self.to_string());
        match self {
            Self::Options(_) => error.hint("Only settings can be given: -c name=value."),
            _ => error,
        }
    }
}

/// Size of the first packet from its first four bytes, checked before anything is allocated.
///
/// # Errors
///
/// [`StartupError::Length`] when it is below 8 or above [`MAX_PACKET`].
pub fn packet_len(word: [u8; 4]) -> Result<usize, StartupError> {
    let length = usize::try_from(i32::from_be_bytes(word)).map_err(|_| StartupError::Length)?;
    if (8..=MAX_PACKET).contains(&length) {
        Ok(length)
    } else {
        Err(StartupError::Length)
    }
}

/// Reads a whole first packet, its length word included.
///
/// # Errors
///
/// Whatever PostgreSQL would refuse, see [`StartupError`].
pub fn read(packet: &[u8]) -> Result<FirstPacket, StartupError> {
    let (_, rest) = packet
        .split_first_chunk::<4>()
        .ok_or(StartupError::Length)?;
    let (code, body) = rest.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    match u32::from_be_bytes(*code) {
        SSL_REQUEST => Ok(FirstPacket::Ssl),
        GSS_REQUEST => Ok(FirstPacket::Gss),
        CANCEL_REQUEST => {
            let (pid, secret) = body.split_first_chunk::<4>().ok_or(StartupError::Length)?;
            if secret.is_empty() || secret.len() > 256 {
                return Err(StartupError::Length);
            }
            Ok(FirstPacket::Cancel(CancelKey {
                pid: u32::from_be_bytes(*pid),
                secret: secret.to_vec(),
            }))
        }
        version => {
            let (major, minor) = ((version >> 16) as u16, version as u16);
            if major != 3 {
                return Err(StartupError::Version { major, minor });
            }
            read_startup(minor, body).map(FirstPacket::Startup)
        }
    }
}

fn read_startup(minor: u16, mut body: &[u8]) -> Result<Startup, StartupError> {
    let mut startup = Startup {
        minor,
        ..Startup::default()
    };
    let mut options = String::new();
    loop {
        let (name, rest) = cstr(body).ok_or(StartupError::Layout)?;
        if name.is_empty() {
            if !rest.is_empty() {
                return Err(StartupError::Layout);
            }
            break;
        }
        let (value, rest) = cstr(rest).ok_or(StartupError::Layout)?;
        body = rest;
        let name = std::str::from_utf8(name).map_err(|_| StartupError::Encoding)?;
        let value = std::str::from_utf8(value).map_err(|_| StartupError::Encoding)?;
        match name {
            "user" => startup.user = value.to_owned(),
            "database" => startup.database = value.to_owned(),
            "options" => options = value.to_owned(),
            "replication" => startup.replication = replication(value),
            _ if name.starts_with("_pq_.") => startup.protocol_options.push(name.to_owned()),
            _ => set(&mut startup.parameters, name, value),
        }
    }
    if startup.user.is_empty() {
        return Err(StartupError::NoUser);
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    // Options come before the packet's own settings in PostgreSQL, so that the latter win.
    let named = std::mem::take(&mut startup.parameters);
    startup.bad_options = read_options(&options, &mut startup.parameters).err();
    for (name, value) in named {
        set(&mut startup.parameters, &name, &value);
    }
    Ok(startup)
}

fn replication(value: &str) -> Option<String> {
    let off = ["false", "off", "no", "0", "f", "n"]
        .iter()
        .any(|o| value.eq_ignore_ascii_case(o));
    (!off).then(|| value.to_owned())
}

/// The last value of a name wins; names of settings are compared as PostgreSQL does, without regard to case.
fn set(parameters: &mut Vec<(String, String)>, name: &str, value: &str) {
    match parameters
        .iter_mut()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
    {
        Some(entry) => value.clone_into(&mut entry.1),
        None => parameters.push((name.to_owned(), value.to_owned())),
    }
}

/// `-c name=value`, `-cname=value` and `--name=value`, split at blanks that no backslash escapes
/// (PostgreSQL's `pg_split_opts` and `process_postgres_switches`).
fn read_options(options: &str, into: &mut Vec<(String, String)>) -> Result<(), StartupError> {
    let words = split_words(options);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words
                .next()
                .ok_or_else(|| StartupError::Options(word.clone()))?
                .as_str()
        } else {
            word.strip_prefix("--")
                .or_else(|| word.strip_prefix("-c"))
                .ok_or_else(|| StartupError::Options(word.clone()))?
        };
        let Some((name, value)) = setting.split_once('=') else {
            return Err(StartupError::OptionValue(setting.to_owned()));
        };
        // As PostgreSQL's ParseLongOption: dashes in the name stand for underscores.
        set(into, &name.replace('-', "_"), value);
    }
    Ok(())
}

fn split_words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Appends a StartupMessage of protocol 3.0.
pub fn write_startup<'a>(
    out: &mut Vec<u8>,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    untyped(out, |b| {
        b.extend_from_slice(&VERSION_3_0.to_be_bytes());
        for (name, value) in parameters {
            write::cstr(b, name.as_bytes());
            write::cstr(b, value.as_bytes());
        }
        b.push(0);
    });
}

/// Appends an SSLRequest.
pub fn write_ssl_request(out: &mut Vec<u8>) {
    untyped(out, |b| b.extend_from_slice(&SSL_REQUEST.to_be_bytes()));
}

/// Appends a CancelRequest.
pub fn write_cancel(out: &mut Vec<u8>, key: &CancelKey) {
    untyped(out, |b| {
        b.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
        b.extend_from_slice(&key.pid.to_be_bytes());
        b.extend_from_slice(&key.secret);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> Result<Startup, StartupError> {
        let mut out = Vec::new();
        write_startup(&mut out, parameters.iter().copied());
        match read(&out)? {
            FirstPacket::Startup(startup) => Ok(startup),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        assert_eq!(startup(&[("user", "u")]).unwrap().database, "u");
        assert_eq!(startup(&[("database", "d")]), Err(StartupError::NoUser));
    }

    #[test]
    fn options_are_settings_with_escaped_blanks() {
        let read = |options| {
            let startup = startup(&[("user", "u"), ("options", options)]).unwrap();
            startup.bad_options.map_or(Ok(startup.parameters), Err)
        };
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(
            read("-c a=b -cc=d --e-f=g"),
            Ok(vec![pair("a", "b"), pair("c", "d"), pair("e_f", "g")])
        );
        assert_eq!(
            read(r"-c search_path=a\ b\\c"),
            Ok(vec![pair("search_path", r"a b\c")])
        );
        assert_eq!(read("-c a=1 -c A=2"), Ok(vec![pair("a", "2")]));
        assert_eq!(read("-c"), Err(StartupError::Options("-c".into())));
        assert_eq!(read("-c="), Ok(vec![pair("", "")]));
        assert_eq!(read("-c a"), Err(StartupError::OptionValue("a".into())));
        assert_eq!(read("-e"), Err(StartupError::Options("-e".into())));
    }

    #[test]
    fn lengths_are_checked_first() {
        assert_eq!(packet_len(7i32.to_be_bytes()), Err(StartupError::Length));
        assert_eq!(packet_len((-1i32).to_be_bytes()), Err(StartupError::Length));
        assert_eq!(
            packet_len(10_001i32.to_be_bytes()),
            Err(StartupError::Length)
        );
        assert_eq!(packet_len(8i32.to_be_bytes()), Ok(8));
    }

    #[test]
    fn other_major_versions_are_refused() {
        let mut out = Vec::new();
        untyped(&mut out, |b| {
            b.extend_from_slice(&(4u32 << 16).to_be_bytes())
        });
        assert_eq!(
            read(&out),
            Err(StartupError::Version { major: 4, minor: 0 })
        );
    }

    #[test]
    fn torn_packets_are_errors() {
        let mut out = Vec::new();
        write_startup(&mut out, [("user", "u"), ("x", "y")]);
        for end in 8..out.len() {
            assert!(read(&out[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_cancel_reads_back() {
        let key = CancelKey {
            pid: 7,
            secret: vec![1, 2, 3, 4],
        };
        let mut out = Vec::new();
        write_cancel(&mut out, &key);
        assert_eq!(read(&out), Ok(FirstPacket::Cancel(key)));
    }
}
