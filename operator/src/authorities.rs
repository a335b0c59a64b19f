//! The Secret with the operator's authority, and how one authority follows another: the next one is trusted for a while before it
//! signs, and the last one for as long as something may be left that it signed.
//!
//! Guarantee: at no moment is there a proxy whose certificate nobody trusts, or that trusts nobody, as long as the Secret stays.
//! A Secret that was deleted is made again by the leader, which has its content. Where nobody has, there is a new authority; proxies
//! trust it from the moment at which kubelet has brought them its certificate.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::authority::{Authority, Pair, VALIDITY, not_after, not_before};

/// The Secret.
const AUTHORITY: &str = "pgdog-operator-ca";
/// How long before the end of an authority there is the next one.
const BEFORE_ITS_END: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long an authority is trusted before it signs: all proxies have its certificate then.
const OVERLAP: Duration = Duration::from_secs(2 * 24 * 3600);

/// The authorities there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// The one that signs.
    pub signer: Pair,
    /// The one that will sign.
    next: Option<Pair>,
    /// The certificate of the one that signed before.
    previous: Option<String>,
}

impl Authorities {
    /// A first one.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn generate() -> anyhow::Result<Self> {
        Ok(Self {
            signer: Authority::generate()?,
            next: None,
            previous: None,
        })
    }

    /// The certificates that are trusted: the signer's first.
    #[must_use]
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        [
            Some(self.signer.certificate.as_str()),
            next,
            self.previous.as_deref(),
        ]
        .into_iter()
        .flatten()
        .map(|certificate| format!("{}\n", certificate.trim_end()))
        .collect()
    }

    /// Goes on to what is due now. Returns whether something was.
    ///
    /// # Errors
    ///
    /// When the system has no random numbers.
    pub fn advance(&mut self, now: Timestamp) -> anyhow::Result<bool> {
        let is_past = |time: Option<Timestamp>| time.is_none_or(|time| time <= now);
        let end = not_after(&self.signer.certificate);
        let age = |certificate: &str, of: Duration| {
            is_past(not_before(certificate).and_then(|begin| begin.checked_add(of).ok()))
        };
        let before = self.clone();
        let due = is_past(end.and_then(|end| end.checked_sub(BEFORE_ITS_END).ok()));
        let is_new = self.next.is_none() && due;
        if is_new {
            self.next = Some(Authority::generate()?);
        }
        let is_known = |next: &mut Pair| !is_new && age(&next.certificate, OVERLAP);
        if let Some(next) = self.next.take_if(|next| is_past(end) || is_known(next)) {
            let last = std::mem::replace(&mut self.signer, next);
            self.previous = Some(last.certificate);
        } else if self.previous.as_ref().is_some_and(|last| {
            is_past(not_after(last)) || age(&self.signer.certificate, OVERLAP + VALIDITY)
        }) {
            self.previous = None;
        }
        Ok(*self != before)
    }

    fn read(data: &BTreeMap<String, ByteString>) -> Option<Self> {
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        let pair = |certificate: &str, key: &str| {
            Some(Pair {
                certificate: text(certificate)?,
                key: text(key)?,
            })
        };
        Some(Self {
            signer: pair("tls.crt", "tls.key")?,
            next: pair("next.crt", "next.key"),
            previous: text("previous.crt"),
        })
    }

    fn write(&self) -> BTreeMap<String, ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: &str| {
            data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        put("tls.crt", &self.signer.certificate);
        put("tls.key", &self.signer.key);
        if let Some(next) = &self.next {
            put("next.crt", &next.certificate);
            put("next.key", &next.key);
        }
        if let Some(previous) = &self.previous {
            put("previous.crt", previous);
        }
        data
    }
}

/// The authorities; the first replica makes them. Of a leader, whatever is due is done.
///
/// # Errors
///
/// When the API server does not answer, or the Secret holds something else.
pub async fn load(client: &Client, namespace: &str, leads: bool) -> anyhow::Result<Authorities> {
    keep(client, namespace, leads, None).await
}

/// The authorities as they are. A Secret that is not there is nobody's business but the leader's, which has its content.
///
/// # Errors
///
/// When the API server does not answer, or the Secret is not there or holds something else.
pub async fn present(client: &Client, namespace: &str) -> anyhow::Result<Authorities> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = read(&api).await?;
    let secret =
        secret.with_context(|| format!("Secret {namespace}/{AUTHORITY} is not there yet"))?;
    authorities(namespace, &secret)
}

async fn read(api: &Api<Secret>) -> anyhow::Result<Option<Secret>> {
    let secret = api.get_opt(AUTHORITY).await;
    secret.context("read the operator's authority")
}

fn authorities(namespace: &str, secret: &Secret) -> anyhow::Result<Authorities> {
    let data = secret.data.as_ref();
    data.and_then(Authorities::read).with_context(|| {
        format!("Secret {namespace}/{AUTHORITY} has no keys tls.crt and tls.key: delete it, and it is made anew")
    })
}

/// Makes the Secret where it is not there: of what it held, where that is known.
async fn keep(
    client: &Client,
    namespace: &str,
    leads: bool,
    known: Option<&Authorities>,
) -> anyhow::Result<Authorities> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        let Some(mut secret) = read(&api).await? else {
            let made = known.map_or_else(Authorities::generate, |known| Ok(known.clone()))?;
            create(&api, &made).await?;
            continue;
        };
        let mut authorities = authorities(namespace, &secret)?;
        if !leads || !authorities.advance(Timestamp::now())? {
            return Ok(authorities);
        }
        secret.data = Some(authorities.write());
        match api
            .replace(AUTHORITY, &PostParams::default(), &secret)
            .await
        {
            // Somebody else has written it meanwhile.
            Err(kube::Error::Api(error)) if error.code == 409 => {}
            Err(error) => return Err(error).context("keep the operator's authority"),
            Ok(_) => {
                tracing::info!("one authority follows another: Secret {namespace}/{AUTHORITY}");
                return Ok(authorities);
            }
        }
    }
}

/// Waits until there are others than these. A Secret that was deleted is made again. Cancel safe.
pub async fn superseded(client: &Client, namespace: &str, own: &Authorities, look: Duration) {
    loop {
        tokio::time::sleep(look).await;
        match keep(client, namespace, true, Some(own)).await {
            Ok(present) if present != *own => return,
            Ok(_) => {}
            Err(error) => tracing::warn!("failed to look after the authority: {error:#}"),
        }
    }
}

async fn create(api: &Api<Secret>, authorities: &Authorities) -> anyhow::Result<()> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(AUTHORITY.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(authorities.write()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        // Another replica was faster.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
        Err(error) => Err(error).context("keep the operator's authority"),
        Ok(_) => {
            tracing::info!("made the operator's authority: Secret {AUTHORITY}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_trusted_before_it_signs_and_after() {
        let mut all = Authorities::generate().unwrap();
        let begin = Timestamp::now();
        let first = all.signer.clone();
        assert!(!all.advance(begin).unwrap());
        assert_eq!(all.bundle().matches("BEGIN").count(), 1);

        let late = not_after(&first.certificate).unwrap() - BEFORE_ITS_END;
        assert!(all.advance(late).unwrap());
        assert_eq!(
            all.signer, first,
            "nobody may have heard of the next one yet"
        );
        assert_eq!(all.bundle().matches("BEGIN").count(), 2);
        assert!(Authorities::read(&all.write()).unwrap() == all);

        // The next one is of today, and the clock here is years ahead: that is how its time has come.
        let next = all.next.clone().unwrap();
        assert!(all.advance(late).unwrap());
        assert_eq!(all.signer, next);
        assert_eq!(all.previous.as_ref(), Some(&first.certificate));
        assert!(all.bundle().starts_with(next.certificate.trim_end()));

        assert!(!all.advance(begin + OVERLAP).unwrap());
        assert!(all.advance(begin + OVERLAP + VALIDITY).unwrap());
        assert_eq!(all.previous, None);
        assert!(!all.advance(begin + OVERLAP + VALIDITY).unwrap());
    }

    #[test]
    fn what_the_next_one_signs_is_taken_by_who_trusts_the_bundle() {
        let mut all = Authorities::generate().unwrap();
        all.next = Some(Authority::generate().unwrap());
        let bundle = all.bundle();
        let next = Authority::of(all.next.as_ref().unwrap()).unwrap();
        for authority in [&Authority::of(&all.signer).unwrap(), &next] {
            assert!(bundle.contains(authority.certificate().trim_end()));
        }
        assert!(
            !Authorities::generate()
                .unwrap()
                .advance(Timestamp::now())
                .unwrap()
        );
    }
}
