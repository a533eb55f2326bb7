//! The ids of sessions, which the proxy mints.
//!
//! An id tells the release and the backend's own id by itself, so that it leads to the right place
//! also when nothing else is known of the session:
//!
//! ```text
//! base64url( 1 | release number (4 bytes) | nonce (8) | mac (16) | the backend's id )
//! ```
//!
//! The mac (SipHash-2-4, 128 bits, with a secret of this host) covers the service and all other
//! fields: an id can not be guessed or bent to another session, and carries nothing secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::model::Number;

/// The secret behind session ids.
pub type Key = [u8; 16];
/// What tells sessions apart.
pub(crate) type Mac = [u8; 16];

const VERSION: u8 = 1;
const HEAD: usize = 1 + 4 + 8;
/// Longest id of a backend that is passed on.
const BACKEND_ID_MAX: usize = 1024;

/// What an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The release that made the session.
    pub release: Number,
    /// Its id there.
    pub backend_id: String,
    /// Which session it is, wherever that is now.
    pub(super) mac: Mac,
}

/// The ids of one service.
#[derive(Debug)]
pub(crate) struct Ids {
    service: String,
    key: Key,
}

impl Ids {
    /// With the secret of this host.
    pub(crate) fn new(service: &str, key: Key) -> Self {
        Self { service: service.to_owned(), key }
    }

    /// Makes an id for a session that a backend has just opened. `None` when the backend's id can
    /// not be carried, or the system has no random numbers.
    pub(crate) fn mint(&self, release: Number, backend_id: &str) -> Option<(String, Claim)> {
        if backend_id.is_empty() || backend_id.len() > BACKEND_ID_MAX {
            return None;
        }
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).ok()?;
        let mut bytes = Vec::with_capacity(HEAD + 16 + backend_id.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&release.0.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        let mac = self.mac(&bytes, backend_id.as_bytes());
        bytes.extend_from_slice(&mac);
        bytes.extend_from_slice(backend_id.as_bytes());
        let claim = Claim { release, backend_id: backend_id.to_owned(), mac };
        Some((BASE64.encode(&bytes), claim))
    }

    /// Reads an id; `None` for one that is forged, cut, or of another service.
    pub(crate) fn read(&self, id: &str) -> Option<Claim> {
        if id.len() > 2 * (HEAD + 16 + BACKEND_ID_MAX) {
            return None;
        }
        let bytes = BASE64.decode(id).ok()?;
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let (mac, backend) = rest.split_first_chunk::<16>()?;
        let (version, numbers) = head.split_first()?;
        let good = *version == VERSION && same(mac, &self.mac(head, backend));
        let release = Number(u32::from_be_bytes(*numbers.first_chunk()?));
        let backend_id = String::from_utf8(backend.to_vec()).ok()?;
        (good && !backend_id.is_empty()).then_some(Claim { release, backend_id, mac: *mac })
    }

    fn mac(&self, head: &[u8], backend: &[u8]) -> Mac {
        use std::hash::Hasher as _;
        let mut hasher = SipHasher24::new_with_key(&self.key);
        // The length keeps the service's name and what follows apart.
        hasher.write_usize(self.service.len());
        hasher.write(self.service.as_bytes());
        hasher.write(head);
        hasher.write(backend);
        hasher.finish128().as_bytes()
    }
}

/// Compares in a time that does not depend on where the first difference is.
fn same(a: &Mac, b: &Mac) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(service: &str) -> Ids {
        Ids::new(service, [7; 16])
    }

    #[test]
    fn an_id_leads_back_to_its_release_after_a_restart() {
        let (id, claim) = table("weather").mint(Number(42), "backend-1").unwrap();
        assert_eq!(table("weather").read(&id), Some(claim.clone()));
        assert_eq!((claim.release, claim.backend_id.as_str()), (Number(42), "backend-1"));
    }

    #[test]
    fn every_forged_cut_or_foreign_id_is_refused() {
        let (id, _) = table("weather").mint(Number(42), "backend-1").unwrap();
        assert_eq!(table("mail").read(&id), None);
        assert_eq!(Ids::new("weather", [8; 16]).read(&id), None);
        for end in 0..id.len() {
            assert_eq!(table("weather").read(&id[..end]), None, "{}", &id[..end]);
        }
        let bytes = BASE64.decode(&id).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.clone();
                forged[at] ^= 1 << bit;
                assert_eq!(table("weather").read(&BASE64.encode(&forged)), None);
            }
        }
    }

    #[test]
    fn the_same_backend_id_never_makes_the_same_id_twice() {
        let table = table("weather");
        assert_ne!(table.mint(Number(1), "1").unwrap().0, table.mint(Number(1), "1").unwrap().0);
    }
}
