//! What a server stores instead of a password.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::keys::{self, Keys};
use super::message::decode_key;
use super::{DEFAULT_ITERATIONS, KEY_LENGTH, MAX_ITERATIONS, SCRAM_SHA_256, ScramError};

/// Bytes of a salt that we make, as in Postgres.
const SALT_LENGTH: usize = 16;
/// Bytes of the longest salt that fits into a message next to a nonce.
const MAX_SALT_LENGTH: usize = 1024;

/// How a password is salted: what a server tells every client before it proves anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Params {
    /// The salt, not encoded.
    pub salt: Vec<u8>,
    /// The rounds of PBKDF2.
    pub iterations: u32,
}

impl Params {
    /// The salt of a user whose password is known as text, and of a user who does not exist.
    ///
    /// It depends on `secret` and the name alone, so it is the same after a reload, and nobody can tell from it which
    /// users exist. Proxies that stand behind one address should share the secret.
    #[must_use]
    pub fn for_user(secret: &[u8; 32], user: &str) -> Self {
        let digest = keys::hmac(secret, &[b"scram salt\0", user.as_bytes()]);
        Self {
            salt: digest[..SALT_LENGTH].to_vec(),
            iterations: DEFAULT_ITERATIONS,
        }
    }

    /// A random salt and the usual iterations: for a verifier to be printed and stored.
    #[must_use]
    pub fn random() -> Self {
        Self {
            salt: rand::random::<[u8; SALT_LENGTH]>().to_vec(),
            iterations: DEFAULT_ITERATIONS,
        }
    }

    pub(super) fn check(&self) -> Result<(), ScramError> {
        if (1..=MAX_ITERATIONS).contains(&self.iterations) {
            Ok(())
        } else {
            Err(ScramError::Iterations(self.iterations))
        }
    }
}

/// One stored verifier, `SCRAM-SHA-256$iterations:salt$stored:server` when printed.
///
/// Knowing it is enough to check a client and to pose as the server, but not to log in as the client.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The rounds of PBKDF2.
    pub iterations: u32,
    /// The salt, not encoded.
    pub salt: Vec<u8>,
    /// The hash of the client key.
    pub stored_key: [u8; KEY_LENGTH],
    /// Signs the server's answer.
    pub server_key: [u8; KEY_LENGTH],
}

impl Verifier {
    /// Reads the form that Postgres keeps in `pg_authid.rolpassword`.
    ///
    /// # Errors
    ///
    /// [`ScramError::Verifier`] for any other text, [`ScramError::Iterations`] for a count out of bounds.
    pub fn parse(text: &str) -> Result<Self, ScramError> {
        let rest = text
            .strip_prefix(SCRAM_SHA_256)
            .and_then(|rest| rest.strip_prefix('$'))
            .ok_or(ScramError::Verifier(
                "it does not begin with SCRAM-SHA-256$",
            ))?;
        let (params, keys) = rest
            .split_once('$')
            .ok_or(ScramError::Verifier("the keys are missing"))?;
        let (iterations, salt) = params
            .split_once(':')
            .ok_or(ScramError::Verifier("the salt is missing"))?;
        let (stored, server) = keys
            .split_once(':')
            .ok_or(ScramError::Verifier("the server key is missing"))?;

        if iterations.is_empty() || !iterations.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ScramError::Verifier("the iteration count is not a number"));
        }
        let iterations = iterations.parse().unwrap_or(u32::MAX);
        let salt = STANDARD
            .decode(salt)
            .map_err(|_| ScramError::Verifier("the salt is not base64"))?;
        if salt.is_empty() || salt.len() > MAX_SALT_LENGTH {
            return Err(ScramError::Verifier("the salt is empty or too long"));
        }
        let params = Params { salt, iterations };
        params.check()?;

        let bad_key = ScramError::Verifier("a key is not 32 bytes of base64");
        Ok(Self {
            iterations: params.iterations,
            salt: params.salt,
            stored_key: decode_key(stored).ok_or_else(|| bad_key.clone())?,
            server_key: decode_key(server).ok_or(bad_key)?,
        })
    }

    /// The verifier of a password. Runs PBKDF2.
    ///
    /// # Errors
    ///
    /// [`ScramError::Iterations`] when the count is out of bounds.
    pub fn from_password(password: &str, params: &Params) -> Result<Self, ScramError> {
        Ok(Self::from_keys(&Keys::derive(password, params)?, params))
    }

    /// The verifier that belongs to keys derived with `params`.
    #[must_use]
    pub fn from_keys(keys: &Keys, params: &Params) -> Self {
        Self {
            iterations: params.iterations,
            salt: params.salt.clone(),
            stored_key: keys.stored_key(),
            server_key: keys.server_key,
        }
    }

    /// A verifier for a user who does not exist: looks and costs like a real one, and fits no password.
    ///
    /// The stored key is no hash of any key that anybody could find, so the exchange fails at its end, as with a
    /// wrong password.
    #[must_use]
    pub fn mock(secret: &[u8; 32], user: &str) -> Self {
        let Params { salt, iterations } = Params::for_user(secret, user);
        Self {
            iterations,
            salt,
            stored_key: keys::hmac(secret, &[b"scram stored key\0", user.as_bytes()]),
            server_key: keys::hmac(secret, &[b"scram server key\0", user.as_bytes()]),
        }
    }

    /// Whether this is the password: for clients that send it as text. Runs PBKDF2.
    #[must_use]
    pub fn matches(&self, password: &str) -> bool {
        Keys::derive(password, &self.params())
            .is_ok_and(|keys| bool::from(keys.stored_key().ct_eq(&self.stored_key)))
    }

    /// The salt and the iterations.
    #[must_use]
    pub fn params(&self) -> Params {
        Params {
            salt: self.salt.clone(),
            iterations: self.iterations,
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCRAM_SHA_256}${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key),
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(redacted)")
    }
}

/// Every password that one user may log in with, at least one.
///
/// A server names one salt and one count before the client proves anything, so all of them share these two.
#[derive(Debug, Clone)]
pub struct Verifiers {
    params: Params,
    all: Vec<StoredKeys>,
}

#[derive(Clone)]
struct StoredKeys {
    stored_key: [u8; KEY_LENGTH],
    server_key: [u8; KEY_LENGTH],
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredKeys(redacted)")
    }
}

impl Verifiers {
    /// Salts the passwords of a user: with the salt of the stored verifier if there is one, else with `params`
    /// (see [`Params::for_user`]). The verifiers keep the order of the passwords, the stored one comes last.
    ///
    /// Runs PBKDF2 once for each password: make it once for each user and keep it.
    ///
    /// # Errors
    ///
    /// [`ScramError::NoPassword`] when there is neither a password nor a verifier, [`ScramError::Iterations`] when
    /// the count is out of bounds.
    pub fn new<P: AsRef<str>>(
        passwords: &[P],
        stored: Option<&Verifier>,
        params: &Params,
    ) -> Result<Self, ScramError> {
        let params = stored.map_or_else(|| params.clone(), Verifier::params);
        params.check()?;
        let mut all = Vec::with_capacity(passwords.len() + 1);
        for password in passwords {
            let keys = Keys::derive(password.as_ref(), &params)?;
            all.push(StoredKeys {
                stored_key: keys.stored_key(),
                server_key: keys.server_key,
            });
        }
        all.extend(stored.map(StoredKeys::from));
        if all.is_empty() {
            return Err(ScramError::NoPassword);
        }
        Ok(Self { params, all })
    }

    /// What a user who does not exist is checked against; see [`Verifier::mock`].
    #[must_use]
    pub fn mock(secret: &[u8; 32], user: &str) -> Self {
        Self::from(&Verifier::mock(secret, user))
    }

    /// The salt and the iterations that all of them share.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Finds the verifier that a proof fits; `signature` signs the exchange with a key.
    ///
    /// All of them are tried whatever the outcome, so that time tells nothing about which one fits.
    pub(super) fn find(
        &self,
        proof: &[u8; KEY_LENGTH],
        sign: impl Fn(&[u8]) -> [u8; KEY_LENGTH],
    ) -> Option<(usize, Keys)> {
        let mut found = Choice::from(0);
        let mut index = 0_u64;
        let mut keys = Keys {
            client_key: [0; KEY_LENGTH],
            server_key: [0; KEY_LENGTH],
        };
        for (i, verifier) in (0_u64..).zip(&self.all) {
            let client_key = keys::xor(proof, &sign(&verifier.stored_key));
            let hashed: [u8; KEY_LENGTH] = Sha256::digest(client_key).into();
            let first_fit = hashed.ct_eq(&verifier.stored_key) & !found;
            index.conditional_assign(&i, first_fit);
            assign(&mut keys.client_key, &client_key, first_fit);
            assign(&mut keys.server_key, &verifier.server_key, first_fit);
            found |= first_fit;
        }
        let index = usize::try_from(index).expect("an index into a vector fits");
        bool::from(found).then_some((index, keys))
    }
}

impl From<&Verifier> for StoredKeys {
    fn from(verifier: &Verifier) -> Self {
        Self {
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
        }
    }
}

impl From<&Verifier> for Verifiers {
    fn from(verifier: &Verifier) -> Self {
        Self {
            params: verifier.params(),
            all: vec![verifier.into()],
        }
    }
}

/// Copies a key or does not, in the same time.
fn assign(to: &mut [u8; KEY_LENGTH], from: &[u8; KEY_LENGTH], choice: Choice) {
    for (to, from) in to.iter_mut().zip(from) {
        to.conditional_assign(from, choice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by PostgreSQL 15 for the password `pencil`.
    const FROM_POSTGRES: &str = "SCRAM-SHA-256$4096:D+HzChWb2fESK4V4pKk/NQ==$V8PjQ8r8vAQ3ZwWxv90kYg+1dTFlDe81jwF20t3z+mc=:VddIjCHHbtpaM4Lb++r1TagIAK56JDibhsBQoo3bFqA=";

    #[test]
    fn a_verifier_printed_by_postgres_parses_and_prints_the_same() {
        let verifier = Verifier::parse(FROM_POSTGRES).unwrap();
        assert_eq!(verifier.iterations, 4096);
        assert_eq!(verifier.to_string(), FROM_POSTGRES);
        assert!(verifier.matches("pencil"));
        assert!(!verifier.matches("pencils"));
        assert_eq!(
            Verifier::from_password("pencil", &verifier.params()),
            Ok(verifier)
        );
    }

    #[test]
    fn every_truncation_of_a_verifier_is_an_error() {
        for end in 0..FROM_POSTGRES.len() {
            assert!(
                Verifier::parse(&FROM_POSTGRES[..end]).is_err(),
                "{}",
                &FROM_POSTGRES[..end]
            );
        }
    }

    #[test]
    fn iterations_out_of_bounds_are_refused() {
        let with = |count: &str| Verifier::parse(&FROM_POSTGRES.replacen("4096", count, 1));
        assert_eq!(with("0"), Err(ScramError::Iterations(0)));
        assert_eq!(with("1000001"), Err(ScramError::Iterations(1_000_001)));
        assert_eq!(
            with("99999999999999999999"),
            Err(ScramError::Iterations(u32::MAX))
        );
        assert_eq!(
            with("+1"),
            Err(ScramError::Verifier("the iteration count is not a number"))
        );
        assert!(with("1").is_ok());
        assert!(with("1000000").is_ok());
    }

    #[test]
    fn an_overlong_salt_is_refused() {
        let salt = STANDARD.encode([0; MAX_SALT_LENGTH + 1]);
        let text = FROM_POSTGRES.replacen("D+HzChWb2fESK4V4pKk/NQ==", &salt, 1);
        assert_eq!(
            Verifier::parse(&text),
            Err(ScramError::Verifier("the salt is empty or too long"))
        );
    }

    #[test]
    fn a_mock_is_the_same_each_time_and_differs_between_users() {
        let secret = [7; 32];
        assert_eq!(
            Verifier::mock(&secret, "alice"),
            Verifier::mock(&secret, "alice")
        );
        assert_ne!(
            Verifier::mock(&secret, "alice").salt,
            Verifier::mock(&secret, "bob").salt
        );
        assert_ne!(
            Verifier::mock(&secret, "alice").salt,
            Verifier::mock(&[8; 32], "alice").salt
        );
    }

    #[test]
    fn a_mock_is_salted_like_a_user_with_a_plain_password() {
        let secret = [7; 32];
        let real = Verifiers::new(&["pencil"], None, &Params::for_user(&secret, "alice")).unwrap();
        assert_eq!(real.params(), Verifiers::mock(&secret, "alice").params());
    }

    #[test]
    fn a_user_without_any_password_has_no_verifiers() {
        let none = Verifiers::new::<&str>(&[], None, &Params::random());
        assert_eq!(none.err(), Some(ScramError::NoPassword));
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let verifier = Verifier::parse(FROM_POSTGRES).unwrap();
        assert_eq!(format!("{verifier:?}"), "Verifier(redacted)");
        assert!(format!("{:?}", Verifiers::from(&verifier)).contains("redacted"));
    }
}
