//! The MD5 password method: kept for servers and clients that still ask for it.

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// Bytes of the hexadecimal form of a digest.
const HEX_LENGTH: usize = 32;

/// What Postgres stores for an MD5 user: `md5` and the digest of password and name.
///
/// As good as the password: it is all that a client needs to log in.
#[derive(Clone)]
pub struct Secret([u8; HEX_LENGTH]);

impl Secret {
    /// The secret of a password given as text.
    #[must_use]
    pub fn from_password(user: &str, password: &str) -> Self {
        Self(hex(&[password.as_bytes(), user.as_bytes()]))
    }

    /// Reads the stored form; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; HEX_LENGTH] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        // Postgres compares the digits as text and writes small ones: a secret with capitals would never fit.
        digits
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            .then_some(Self(digits))
    }

    /// Whether it is the secret of this password.
    #[must_use]
    pub fn fits(&self, user: &str, password: &str) -> bool {
        Self::from_password(user, password).0.ct_eq(&self.0).into()
    }

    /// What a client answers to a server that sent this salt.
    #[must_use]
    pub fn response(&self, salt: [u8; 4]) -> String {
        let mut text = String::with_capacity(3 + HEX_LENGTH);
        text.push_str("md5");
        text.extend(hex(&[&self.0, &salt]).map(char::from));
        text
    }

    /// Whether a client that was sent this salt knows the secret. Takes the same time wherever they differ.
    #[must_use]
    pub fn verify(&self, salt: [u8; 4], response: &[u8]) -> bool {
        self.response(salt).as_bytes().ct_eq(response).into()
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("md5")?;
        self.0
            .iter()
            .try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The answer of a client to a server that sent this salt; `password` is text, or the stored form `md5…` of it.
#[must_use]
pub fn hash_password(user: &str, password: &str, salt: [u8; 4]) -> String {
    secret(user, password).response(salt)
}

/// Checks the answer of a client; `password` is text, or the stored form `md5…` of it as in Postgres.
#[must_use]
pub fn verify(user: &str, password: &str, salt: [u8; 4], response: &[u8]) -> bool {
    secret(user, password).verify(salt, response)
}

fn secret(user: &str, password: &str) -> Secret {
    Secret::parse(password).unwrap_or_else(|| Secret::from_password(user, password))
}

fn hex(parts: &[&[u8]]) -> [u8; HEX_LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    let digest = hasher.finalize();
    std::array::from_fn(|i| {
        let byte = digest[i / 2];
        let nibble = if i % 2 == 0 { byte >> 4 } else { byte & 0xf };
        DIGITS[usize::from(nibble)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 4] = [0x2a, 0x3d, 0x8f, 0xe0];

    #[test]
    fn a_known_answer() {
        assert_eq!(
            hash_password("md5_user", "password", SALT),
            "md562af4dd09bbb41884907a838a3233294"
        );
    }

    #[test]
    fn a_password_verifies_as_text_and_as_stored() {
        let response = hash_password("alice", "pencil", SALT);
        let stored = Secret::from_password("alice", "pencil").to_string();
        assert!(verify("alice", "pencil", SALT, response.as_bytes()));
        assert!(verify("alice", &stored, SALT, response.as_bytes()));
        assert_eq!(Secret::parse(&stored).unwrap().response(SALT), response);
        assert_eq!(hash_password("alice", &stored, SALT), response);
    }

    #[test]
    fn anything_else_does_not_verify() {
        let response = hash_password("alice", "pencil", SALT);
        assert!(!verify("alice", "pencils", SALT, response.as_bytes()));
        assert!(!verify("bob", "pencil", SALT, response.as_bytes()));
        assert!(!verify("alice", "pencil", [0; 4], response.as_bytes()));
        for end in 0..response.len() {
            assert!(!verify(
                "alice",
                "pencil",
                SALT,
                &response.as_bytes()[..end]
            ));
        }
        assert!(!verify(
            "alice",
            "pencil",
            SALT,
            format!("{response}0").as_bytes()
        ));
    }

    #[test]
    fn the_stored_form_itself_is_no_answer() {
        let stored = Secret::from_password("alice", "pencil").to_string();
        assert!(!verify("alice", "pencil", SALT, stored.as_bytes()));
        assert!(!verify("alice", &stored, SALT, stored.as_bytes()));
    }

    #[test]
    fn a_password_that_only_resembles_the_stored_form_is_text() {
        for text in [
            "md5",
            "md5abc",
            "MD5d41d8cd98f00b204e9800998ecf8427e",
            "md5D41D8CD98F00B204E9800998ECF8427E",
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
            assert!(verify(
                "alice",
                text,
                SALT,
                hash_password("alice", text, SALT).as_bytes()
            ));
        }
    }
}
