//! The session ids that the proxy mints.
//!
//! An id contains the release and the id of the backend, so that the proxy can route a request even
//! when it knows nothing else about the session:
//!
//! ```text
//! base64url( 1 | release number (4 bytes) | nonce (8) | mac (16) | the backend's id )
//! ```
//!
//! The mac (SipHash-2-4, 128 bits, with a secret of this host) covers the service and all other
//! fields. So a client cannot guess an id or change it into that of another session. An id contains
//! no secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::model::ReleaseNumber;

/// The key of the mac in session ids.
pub type SessionIdSecret = [u8; 16];
/// Identifies a session: the mac of its id.
pub(crate) type SessionKey = [u8; 16];

const VERSION: u8 = 1;
/// Keys that are drawn for one session, until one fits: for a share of 1 %, all miss once in 10^8.
const DRAWS_MAX: u64 = 2_000;
const HEADER_LEN: usize = 1 + 4 + 8;
/// The longest backend id that a session id can carry.
pub(crate) const BACKEND_ID_MAX: usize = 8 * 1024;

/// The content of a session id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionId {
    /// The release that opened the session.
    pub release: ReleaseNumber,
    /// The id that its backend gave the session; empty if it gave none.
    pub backend_id: String,
    /// Identifies the session, also after it has moved.
    pub(super) key: SessionKey,
}

/// Mints and decodes the session ids of one service.
#[derive(Debug)]
pub(crate) struct SessionIdCodec {
    service: String,
    secret: SessionIdSecret,
}

impl SessionIdCodec {
    /// A codec with the secret of this host.
    pub(crate) fn new(service: &str, secret: SessionIdSecret) -> Self {
        Self { service: service.to_owned(), secret }
    }

    /// Mints an id for a session that a backend has just opened; the id of the backend is empty if it keeps
    /// none. `None` when that is too long, or the system has no random numbers. Its key fits, if one that
    /// does is found in [`DRAWS_MAX`] draws.
    pub(crate) fn mint(
        &self,
        release: ReleaseNumber,
        backend_id: &str,
        fits: impl Fn(&SessionKey) -> bool,
    ) -> Option<(String, SessionId)> {
        if backend_id.len() > BACKEND_ID_MAX {
            return None;
        }
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).ok()?;
        let (mut bytes, mut mac) = (Vec::new(), [0; 16]);
        let first = u64::from_le_bytes(nonce);
        for draw in 0..DRAWS_MAX {
            bytes.clear();
            bytes.push(VERSION);
            bytes.extend_from_slice(&release.0.to_be_bytes());
            bytes.extend_from_slice(&first.wrapping_add(draw).to_le_bytes());
            mac = self.mac(&bytes, backend_id.as_bytes());
            if fits(&mac) {
                break;
            }
        }
        bytes.extend_from_slice(&mac);
        bytes.extend_from_slice(backend_id.as_bytes());
        let session_id = SessionId { release, backend_id: backend_id.to_owned(), key: mac };
        Some((BASE64.encode(&bytes), session_id))
    }

    /// Decodes an id; `None` for one that is forged, truncated, or of another service.
    pub(crate) fn decode(&self, id: &str) -> Option<SessionId> {
        if id.len() > 2 * (HEADER_LEN + 16 + BACKEND_ID_MAX) {
            return None;
        }
        let bytes = BASE64.decode(id).ok()?;
        let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
        let (mac, backend_id) = rest.split_first_chunk::<16>()?;
        let (version, numbers) = header.split_first()?;
        let valid = *version == VERSION && constant_time_eq(mac, &self.mac(header, backend_id));
        let release = ReleaseNumber(u32::from_be_bytes(*numbers.first_chunk()?));
        let backend_id = String::from_utf8(backend_id.to_vec()).ok()?;
        valid.then_some(SessionId { release, backend_id, key: *mac })
    }

    /// A key for another purpose, from the secret of this host.
    pub(crate) fn derive_key(&self, purpose: &str, number: u32) -> [u8; 16] {
        // Ids begin with their version, so no header is like this one.
        let mut header = vec![0];
        header.extend_from_slice(&number.to_be_bytes());
        self.mac(&header, purpose.as_bytes())
    }

    fn mac(&self, header: &[u8], backend_id: &[u8]) -> SessionKey {
        use std::hash::Hasher as _;
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        // The length separates the name of the service from the next field.
        hasher.write_usize(self.service.len());
        hasher.write(self.service.as_bytes());
        hasher.write(header);
        hasher.write(backend_id);
        hasher.finish128().as_bytes()
    }
}

/// Compares in constant time: the duration does not depend on the position of the first difference.
fn constant_time_eq(a: &SessionKey, b: &SessionKey) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(service: &str) -> SessionIdCodec {
        SessionIdCodec::new(service, [7; 16])
    }

    #[test]
    fn an_id_decodes_to_its_release_after_a_restart() {
        let (id, session_id) =
            codec("weather").mint(ReleaseNumber(42), "backend-1", |_| true).unwrap();
        assert_eq!(codec("weather").decode(&id), Some(session_id.clone()));
        assert_eq!(
            (session_id.release, session_id.backend_id.as_str()),
            (ReleaseNumber(42), "backend-1")
        );
    }

    #[test]
    fn a_backend_may_give_no_id() {
        let (id, session_id) = codec("weather").mint(ReleaseNumber(42), "", |_| true).unwrap();
        assert_eq!(codec("weather").decode(&id), Some(session_id));
        assert_eq!(codec("mail").decode(&id), None);
    }

    #[test]
    fn every_forged_truncated_or_foreign_id_is_rejected() {
        let (id, _) = codec("weather").mint(ReleaseNumber(42), "backend-1", |_| true).unwrap();
        assert_eq!(codec("mail").decode(&id), None);
        assert_eq!(SessionIdCodec::new("weather", [8; 16]).decode(&id), None);
        for end in 0..id.len() {
            assert_eq!(codec("weather").decode(&id[..end]), None, "{}", &id[..end]);
        }
        let bytes = BASE64.decode(&id).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.clone();
                forged[at] ^= 1 << bit;
                assert_eq!(codec("weather").decode(&BASE64.encode(&forged)), None);
            }
        }
    }

    #[test]
    fn the_same_backend_id_gets_different_ids() {
        let codec = codec("weather");
        assert_ne!(
            codec.mint(ReleaseNumber(1), "1", |_| true).unwrap().0,
            codec.mint(ReleaseNumber(1), "1", |_| true).unwrap().0
        );
    }
}
