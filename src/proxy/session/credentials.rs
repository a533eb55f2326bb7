//! Whose a session is: keyed hashes of the credentials that opened it.
//!
//! Another client that learns the id of a session must not have it opened again. Tokens change during
//! a session, so the subject of a JWT counts as well. The release checks its signature; here it only
//! has to be the same one.

use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::proxy::session::id::SessionIdSecret;

/// The headers that identify a client.
const CREDENTIAL_HEADERS: [HeaderName; 2] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];

/// The credentials of one request as keyed hashes; empty without credentials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::proxy) struct Owner(pub(super) Vec<u64>);

/// The claims of a JWT that do not change when it is renewed.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    sub: String,
}

impl Owner {
    /// The credentials of a request.
    pub(super) fn of(headers: &HeaderMap, secret: &SessionIdSecret) -> Self {
        let mut hasher = None;
        for (number, name) in CREDENTIAL_HEADERS.iter().enumerate() {
            let Some(value) = headers.get(name) else { continue };
            let hasher = hasher.get_or_insert_with(|| SipHasher13::new_with_key(secret));
            hasher.write_usize(number);
            hasher.write_usize(value.len());
            hasher.write(value.as_bytes());
        }
        let credentials = hasher.map(|hasher| hasher.finish());
        Self(credentials.into_iter().chain(subject_hash(headers, secret)).collect())
    }

    /// Whether the request has no credentials.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what it opened is also that of these credentials. What was opened without credentials
    /// belongs to all who know its id.
    pub(super) fn includes(&self, other: &Self) -> bool {
        self.0.is_empty() || other.0.iter().any(|hash| self.0.contains(hash))
    }
}

/// The hash of the issuer and subject of a JWT.
fn subject_hash(headers: &HeaderMap, secret: &SessionIdSecret) -> Option<u64> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let claims =
        token.trim().split('.').nth(1).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    let claims: Claims = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    let mut hasher = SipHasher13::new_with_key(secret);
    hasher.write(b"subject");
    hasher.write_usize(claims.iss.len());
    hasher.write(claims.iss.as_bytes());
    hasher.write(claims.sub.as_bytes());
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(authorization: &str) -> Owner {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        Owner::of(&headers, &[7; 16])
    }

    fn jwt(claims: &str) -> Owner {
        owner(&format!("Bearer e30.{}.sig", BASE64.encode(claims)))
    }

    #[test]
    fn a_session_belongs_to_the_credentials_that_opened_it() {
        let alice = owner("Bearer alice");
        assert!(alice.includes(&owner("Bearer alice")));
        assert!(!alice.includes(&owner("Bearer bob")) && !alice.includes(&owner("")));
        let unnamed = owner("");
        assert!(unnamed.is_empty() && unnamed.includes(&alice) && unnamed.includes(&unnamed));
    }

    #[test]
    fn a_renewed_jwt_is_the_same_owner() {
        let alice = jwt(r#"{"iss":"i","sub":"alice","exp":1}"#);
        assert!(alice.includes(&jwt(r#"{"iss":"i","sub":"alice","exp":2}"#)));
        assert!(!alice.includes(&jwt(r#"{"iss":"i","sub":"bob","exp":1}"#)));
        assert!(!alice.includes(&jwt(r#"{"iss":"x","sub":"alice","exp":1}"#)));
        assert!(!alice.includes(&jwt("{}")) && !alice.includes(&owner("Bearer a.b.c")));
    }
}
