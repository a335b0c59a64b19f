//! The grammar of the four messages: text in, borrowed parts out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::verifier::Params;
use super::{KEY_LENGTH, ScramError};

/// The longest message taken from a client, as in Postgres (`PG_MAX_SASL_MESSAGE_LENGTH`).
pub(super) const MAX_CLIENT_MESSAGE: usize = 1024;
/// The longest message taken from a server: room for the longest salt and nonce.
pub(super) const MAX_SERVER_MESSAGE: usize = 4096;
/// What is kept of an error that a server sent.
const MAX_ERROR: usize = 128;

/// What a client says about channel binding in the gs2 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BindingFlag {
    /// `n`: it cannot, or does not want to.
    NotUsed,
    /// `y`: it could, but thinks that the server cannot.
    NotOffered,
    /// `p=tls-server-end-point`.
    EndPoint,
}

impl BindingFlag {
    /// The gs2 header that carries this flag, always without an authorization identity.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::NotUsed => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint => "p=tls-server-end-point,,",
        }
    }

    /// The content of `c=`: the header that was sent and, with `p`, the data of the channel.
    pub(super) fn channel(self, data: &[u8]) -> String {
        let mut bytes = self.header().as_bytes().to_vec();
        if self == Self::EndPoint {
            bytes.extend_from_slice(data);
        }
        STANDARD.encode(bytes)
    }
}

/// `flag,,n=user,r=nonce`
#[derive(Debug)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: BindingFlag,
    /// Everything behind the gs2 header: the part that is signed.
    pub(super) bare: &'a str,
    pub(super) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, ScramError> {
        let text = text(data, MAX_CLIENT_MESSAGE)?;
        let (flag, rest) = text
            .split_once(',')
            .ok_or(ScramError::Malformed("no gs2 header"))?;
        let flag = match flag {
            "n" => BindingFlag::NotUsed,
            "y" => BindingFlag::NotOffered,
            "p=tls-server-end-point" => BindingFlag::EndPoint,
            other if other.starts_with("p=") => return Err(ScramError::BindingType),
            _ => return Err(ScramError::Malformed("unknown channel-binding flag")),
        };
        let (identity, bare) = rest
            .split_once(',')
            .ok_or(ScramError::Malformed("no gs2 header"))?;
        if identity.starts_with("a=") {
            return Err(ScramError::AuthorizationIdentity);
        } else if !identity.is_empty() {
            return Err(ScramError::Malformed("unexpected text in the gs2 header"));
        }

        let mut attributes = Attributes::new(bare);
        // The user is the one of the startup message; the name in here is ignored, as Postgres does.
        attributes.required('n')?;
        let nonce = check_nonce(attributes.required('r')?)?;
        attributes.skip_extensions()?;
        Ok(Self { flag, bare, nonce })
    }
}

/// `r=nonce,s=salt,i=iterations`
#[derive(Debug)]
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) params: Params,
}

impl<'a> ServerFirst<'a> {
    /// Reads a message whose text was checked with [`text`].
    pub(super) fn parse(text: &'a str) -> Result<Self, ScramError> {
        let mut attributes = Attributes::new(text);
        let nonce = check_nonce(attributes.required('r')?)?;
        let salt = STANDARD
            .decode(attributes.required('s')?)
            .map_err(|_| ScramError::Malformed("the salt is not base64"))?;
        if salt.is_empty() {
            return Err(ScramError::Malformed("the salt is empty"));
        }
        let iterations = attributes.required('i')?;
        if iterations.is_empty() || !iterations.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ScramError::Malformed("the iteration count is not a number"));
        }
        let params = Params {
            salt,
            iterations: iterations.parse().unwrap_or(u32::MAX),
        };
        params.check()?;
        attributes.skip_extensions()?;
        Ok(Self { nonce, params })
    }
}

/// `c=channel,r=nonce,p=proof`
#[derive(Debug)]
pub(super) struct ClientFinal<'a> {
    pub(super) channel: &'a str,
    pub(super) nonce: &'a str,
    pub(super) proof: [u8; KEY_LENGTH],
    /// Everything before the proof: the part that is signed.
    pub(super) without_proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, ScramError> {
        let text = text(data, MAX_CLIENT_MESSAGE)?;
        // Base64 has no comma: the last attribute is the proof, and nothing may follow it.
        let (without_proof, proof) = text
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("no proof"))?;
        let proof = decode_key(proof)
            .ok_or(ScramError::Malformed("the proof is not 32 bytes of base64"))?;
        let mut attributes = Attributes::new(without_proof);
        let channel = attributes.required('c')?;
        let nonce = attributes.required('r')?;
        attributes.skip_extensions()?;
        Ok(Self {
            channel,
            nonce,
            proof,
            without_proof,
        })
    }
}

/// `v=signature`, or `e=error`
pub(super) fn parse_server_final(data: &[u8]) -> Result<[u8; KEY_LENGTH], ScramError> {
    let text = text(data, MAX_SERVER_MESSAGE)?;
    let mut attributes = Attributes::new(text);
    if text.starts_with("e=") {
        let error = attributes.required('e')?;
        let clean = error
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_ERROR)
            .collect();
        return Err(ScramError::Rejected(clean));
    }
    let signature = decode_key(attributes.required('v')?).ok_or(ScramError::Malformed(
        "the server signature is not 32 bytes of base64",
    ))?;
    attributes.skip_extensions()?;
    Ok(signature)
}

/// Checks the length before anything else looks at the bytes.
pub(super) fn text(data: &[u8], max: usize) -> Result<&str, ScramError> {
    if data.len() > max {
        return Err(ScramError::TooLong);
    }
    let text = std::str::from_utf8(data).map_err(|_| ScramError::Malformed("not UTF-8"))?;
    if text.contains('\0') {
        return Err(ScramError::Malformed("a zero byte"));
    }
    Ok(text)
}

/// Decodes a key, a proof or a signature.
pub(super) fn decode_key(text: &str) -> Option<[u8; KEY_LENGTH]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn check_nonce(nonce: &str) -> Result<&str, ScramError> {
    // The grammar says "printable"; the comma ended the attribute already.
    if nonce.is_empty() || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ScramError::Malformed("the nonce is empty or not printable"));
    }
    Ok(nonce)
}

/// Walks over `k=value,k=value`.
struct Attributes<'a> {
    rest: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }

    fn next(&mut self) -> Result<Option<(char, &'a str)>, ScramError> {
        let Some(rest) = self.rest else {
            return Ok(None);
        };
        let (attribute, rest) = match rest.split_once(',') {
            Some((attribute, rest)) => (attribute, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        match attribute.split_once('=') {
            Some((name, value)) if name.len() == 1 && name.as_bytes()[0].is_ascii_alphabetic() => {
                Ok(Some((char::from(name.as_bytes()[0]), value)))
            }
            _ => Err(ScramError::Malformed(
                "an attribute is not of the form x=value",
            )),
        }
    }

    fn required(&mut self, name: char) -> Result<&'a str, ScramError> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            Some(('m', _)) => Err(ScramError::MandatoryExtension),
            Some(_) => Err(ScramError::Malformed(
                "an attribute is missing or out of order",
            )),
            None => Err(ScramError::Malformed("an attribute is missing")),
        }
    }

    /// Optional extensions are ignored, but have to look like attributes.
    fn skip_extensions(&mut self) -> Result<(), ScramError> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_first_message_is_ignored() {
        let message = ClientFirst::parse(b"n,,n=some=2Cbody,r=abc,x=extension").unwrap();
        assert_eq!(message.flag, BindingFlag::NotUsed);
        assert_eq!(message.nonce, "abc");
        assert_eq!(message.bare, "n=some=2Cbody,r=abc,x=extension");
    }

    #[test]
    fn first_messages_of_a_client_that_are_refused() {
        let cases: [(&[u8], ScramError); 12] = [
            (b"", ScramError::Malformed("no gs2 header")),
            (b"n", ScramError::Malformed("no gs2 header")),
            (b"n,", ScramError::Malformed("no gs2 header")),
            (
                b"x,,n=,r=abc",
                ScramError::Malformed("unknown channel-binding flag"),
            ),
            (b"p=tls-unique,,n=,r=abc", ScramError::BindingType),
            (b"n,a=root,n=,r=abc", ScramError::AuthorizationIdentity),
            (
                b"n,b,n=,r=abc",
                ScramError::Malformed("unexpected text in the gs2 header"),
            ),
            (b"n,,m=ext,n=,r=abc", ScramError::MandatoryExtension),
            (b"n,,n=", ScramError::Malformed("an attribute is missing")),
            (
                b"n,,n=,r=",
                ScramError::Malformed("the nonce is empty or not printable"),
            ),
            (
                b"n,,n=,r=a\x07",
                ScramError::Malformed("the nonce is empty or not printable"),
            ),
            (b"n,,n=,r=\xff", ScramError::Malformed("not UTF-8")),
        ];
        for (message, error) in cases {
            assert_eq!(
                ClientFirst::parse(message).unwrap_err(),
                error,
                "{}",
                message.escape_ascii()
            );
        }
    }

    #[test]
    fn a_very_long_nonce_is_refused() {
        let mut message = b"n,,n=,r=".to_vec();
        message.resize(MAX_CLIENT_MESSAGE, b'a');
        assert!(ClientFirst::parse(&message).is_ok());
        message.push(b'a');
        assert_eq!(
            ClientFirst::parse(&message).unwrap_err(),
            ScramError::TooLong
        );
    }

    #[test]
    fn final_messages_of_a_client_that_are_refused() {
        let proof = STANDARD.encode([0; 32]);
        assert!(ClientFinal::parse(format!("c=biws,r=abc,x=ext,p={proof}").as_bytes()).is_ok());
        for message in [
            format!("c=biws,p={proof}"),
            format!("r=abc,p={proof}"),
            format!("p={proof}"),
            format!("c=biws,r=abc,p={proof},x=ext"),
            format!("c=biws,r=abc,p={proof}\0"),
            "c=biws,r=abc,p=AAAA".to_owned(),
            "c=biws,r=abc".to_owned(),
        ] {
            assert!(
                matches!(
                    ClientFinal::parse(message.as_bytes()),
                    Err(ScramError::Malformed(_))
                ),
                "{message}"
            );
        }
    }

    #[test]
    fn the_iterations_of_a_server_are_bounded() {
        assert!(ServerFirst::parse("r=abc,s=AAAA,i=1000000").is_ok());
        for (count, named) in [("0", 0), ("1000001", 1_000_001), ("99999999999", u32::MAX)] {
            let message = format!("r=abc,s=AAAA,i={count}");
            assert_eq!(
                ServerFirst::parse(&message).unwrap_err(),
                ScramError::Iterations(named)
            );
        }
        for message in [
            "r=abc,s=AAAA,i=-1",
            "r=abc,s=AAAA,i=",
            "r=abc,s=,i=1",
            "m=x,r=abc,s=AAAA,i=1",
            "r=abc",
        ] {
            assert!(ServerFirst::parse(message).is_err(), "{message}");
        }
    }

    #[test]
    fn an_error_of_a_server_is_cut_and_cleaned() {
        let message = format!("e=other\x1b-error{}", "x".repeat(1000));
        let Err(ScramError::Rejected(error)) = parse_server_final(message.as_bytes()) else {
            panic!("not an error");
        };
        assert!(error.starts_with("other-error"));
        assert_eq!(error.len(), MAX_ERROR);
    }
}
