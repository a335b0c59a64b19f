//! Everything that is wrong with a configuration, at once and with its place.

use std::fmt;

use serde::Serialize;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The configuration is used all the same.
    Warning,
    /// The configuration is rejected.
    Error,
}

/// What kind of problem it is, for programs that read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// A file could not be read.
    Unreadable,
    /// A file is not valid TOML or YAML.
    Syntax,
    /// A key that does not exist.
    UnknownKey,
    /// A key that has to be there and is not.
    MissingKey,
    /// A value of the wrong type.
    WrongType,
    /// A value outside of what the key allows.
    BadValue,
    /// A database URL that cannot be understood.
    BadUrl,
    /// Something that may be there only once is there twice.
    Duplicate,
    /// Two keys that contradict each other.
    Conflict,
    /// A name of something that is not in the configuration.
    UnknownName,
    /// A user without any way to log in.
    MissingPassword,
    /// Shards that are not numbered 0, 1, 2 …
    ShardGap,
    /// A key that has no effect in this version.
    NotImplemented,
    /// A key that cannot change while the process runs.
    RequiresRestart,
    /// A checksum that is not the one of what came with it.
    WrongHash,
}

impl ProblemCode {
    /// The name of the code in APIs; it never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown_key",
            Self::MissingKey => "missing_key",
            Self::WrongType => "wrong_type",
            Self::BadValue => "bad_value",
            Self::BadUrl => "bad_url",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::UnknownName => "unknown_name",
            Self::MissingPassword => "missing_password",
            Self::ShardGap => "shard_gap",
            Self::NotImplemented => "not_implemented",
            Self::RequiresRestart => "requires_restart",
            Self::WrongHash => "wrong_hash",
        }
    }
}

/// One thing that is wrong. Messages never contain secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, or what else the value came from.
    pub file: Option<String>,
    /// The line in it, beginning with 1.
    pub line: Option<u32>,
    /// The path of the key, as `databases[1].port`; empty when it is about the whole file.
    pub path: String,
    /// The kind of problem.
    pub code: ProblemCode,
    /// Whether the configuration is rejected.
    pub severity: Severity,
    /// What is wrong, for people.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            _ => {}
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All problems that were found; as an error it shows one a line.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
