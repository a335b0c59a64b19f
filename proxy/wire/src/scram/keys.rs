//! The two keys that a password becomes, and a cache of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::verifier::Params;
use super::{KEY_LENGTH, ScramError};
use crate::saslprep;

/// What a client needs to log in: as good as the password for every server with the same salt and iterations.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Signs the client's proof.
    pub client_key: [u8; KEY_LENGTH],
    /// Signs the server's answer.
    pub server_key: [u8; KEY_LENGTH],
}

impl Keys {
    /// Salts a password. Costs `params.iterations` HMACs: milliseconds at 4096, a second at the maximum.
    ///
    /// # Errors
    ///
    /// [`ScramError::Iterations`] when the count is out of bounds.
    pub fn derive(password: &str, params: &Params) -> Result<Self, ScramError> {
        params.check()?;
        let mut salted = [0; KEY_LENGTH];
        pbkdf2::pbkdf2_hmac::<Sha256>(
            saslprep::prepare(password).as_bytes(),
            &params.salt,
            params.iterations,
            &mut salted,
        );
        Ok(Self {
            client_key: hmac(&salted, &[b"Client Key"]),
            server_key: hmac(&salted, &[b"Server Key"]),
        })
    }

    /// The hash of the client key, which is what a server stores.
    #[must_use]
    pub fn stored_key(&self) -> [u8; KEY_LENGTH] {
        Sha256::digest(self.client_key).into()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(redacted)")
    }
}

/// Remembers derived keys, so that many logins with one password cost one PBKDF2.
///
/// Entries are found by a keyed digest of password, salt and iterations: the cache holds no password. A full cache
/// forgets an arbitrary entry, which costs time but never correctness.
pub struct KeyCache {
    capacity: usize,
    /// Makes the digests useless outside this process.
    secret: [u8; KEY_LENGTH],
    entries: Mutex<HashMap<[u8; KEY_LENGTH], Keys>>,
}

impl KeyCache {
    /// A cache of at most `capacity` entries; zero switches it off.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            secret: rand::random(),
            entries: Mutex::default(),
        }
    }

    /// The keys, if they were derived before. Cheap.
    #[must_use]
    pub fn get(&self, password: &str, params: &Params) -> Option<Keys> {
        let id = self.id(password, params);
        self.lock().get(&id).cloned()
    }

    /// The keys, derived now unless they were before. The lock is not held while deriving.
    ///
    /// # Errors
    ///
    /// [`ScramError::Iterations`] when the count is out of bounds.
    pub fn get_or_derive(&self, password: &str, params: &Params) -> Result<Keys, ScramError> {
        if let Some(keys) = self.get(password, params) {
            return Ok(keys);
        }
        let keys = Keys::derive(password, params)?;
        if self.capacity > 0 {
            let id = self.id(password, params);
            let mut entries = self.lock();
            if entries.len() >= self.capacity
                && let Some(victim) = entries.keys().next().copied()
            {
                entries.remove(&victim);
            }
            entries.insert(id, keys.clone());
        }
        Ok(keys)
    }

    fn id(&self, password: &str, params: &Params) -> [u8; KEY_LENGTH] {
        // The length of the salt keeps (salt, password) pairs apart that read the same when joined.
        hmac(
            &self.secret,
            &[
                &params.iterations.to_be_bytes(),
                &params.salt.len().to_be_bytes(),
                &params.salt,
                password.as_bytes(),
            ],
        )
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; KEY_LENGTH], Keys>> {
        // A panic cannot leave the map half-changed, so a poisoned lock is still good.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// HMAC-SHA-256 of the parts, joined.
pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; KEY_LENGTH] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// What both sides sign: the three messages that they saw.
pub(super) fn sign(
    key: &[u8],
    client_first_bare: &str,
    server_first: &str,
    client_final: &str,
) -> [u8; KEY_LENGTH] {
    hmac(
        key,
        &[
            client_first_bare.as_bytes(),
            b",",
            server_first.as_bytes(),
            b",",
            client_final.as_bytes(),
        ],
    )
}

/// Bytewise exclusive or: turns a client key into a proof, and a proof back into the key.
pub(super) fn xor(left: &[u8; KEY_LENGTH], right: &[u8; KEY_LENGTH]) -> [u8; KEY_LENGTH] {
    std::array::from_fn(|i| left[i] ^ right[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(salt: &[u8], iterations: u32) -> Params {
        Params {
            salt: salt.to_vec(),
            iterations,
        }
    }

    #[test]
    fn a_cache_gives_what_was_derived() {
        let cache = KeyCache::new(4);
        let params = params(b"salt", 3);
        assert_eq!(cache.get("pencil", &params), None);
        let keys = cache.get_or_derive("pencil", &params).unwrap();
        assert_eq!(keys, Keys::derive("pencil", &params).unwrap());
        assert_eq!(cache.get("pencil", &params), Some(keys));
    }

    #[test]
    fn a_cache_tells_password_salt_and_iterations_apart() {
        let cache = KeyCache::new(4);
        cache.get_or_derive("ab", &params(b"c", 3)).unwrap();
        for (password, params) in [
            ("aB", params(b"c", 3)),
            ("b", params(b"ca", 3)),
            ("ab", params(b"c", 4)),
        ] {
            assert_eq!(cache.get(password, &params), None);
        }
    }

    #[test]
    fn a_cache_stays_within_its_capacity() {
        let cache = KeyCache::new(2);
        for password in ["a", "b", "c", "d"] {
            cache.get_or_derive(password, &params(b"salt", 1)).unwrap();
            assert!(cache.get(password, &params(b"salt", 1)).is_some());
        }
        assert_eq!(cache.lock().len(), 2);

        let off = KeyCache::new(0);
        off.get_or_derive("a", &params(b"salt", 1)).unwrap();
        assert_eq!(off.lock().len(), 0);
    }

    #[test]
    fn unbounded_work_is_refused() {
        for iterations in [0, super::super::MAX_ITERATIONS + 1, u32::MAX] {
            let derived = Keys::derive("pencil", &params(b"salt", iterations));
            assert_eq!(derived, Err(ScramError::Iterations(iterations)));
        }
    }

    #[test]
    fn keys_do_not_show_themselves() {
        let keys = Keys::derive("pencil", &params(b"salt", 1)).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(redacted)");
    }
}
