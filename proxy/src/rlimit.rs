//! The limit on open files: raised to what the system allows.

/// Raises the soft limit to the hard one; gives both, before and after.
pub(crate) fn raise() -> Option<(u64, u64)> {
    let (soft, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).ok()?;
    if soft < hard {
        rlimit::setrlimit(rlimit::Resource::NOFILE, hard, hard).ok()?;
    }
    Some((soft, hard))
}
