//! How many clients of the control socket are served at a time, by user.
//!
//! Root and the daemon's own user have places of their own, so that no reader keeps out who must act. Each
//! other user has a share. A client beyond the places gets the reply "busy", as many again; beyond
//! those the connection is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::mutex::lock;

/// Clients of root and of the daemon's own user.
const PRIVILEGED_MAX: usize = 64;
/// Clients of each other user.
const USER_MAX: usize = 16;
/// Clients of all other users.
const USERS_MAX: usize = 128;

/// The connected clients.
#[derive(Debug, Default)]
pub(super) struct ClientPlaces(Arc<Mutex<BTreeMap<u32, usize>>>);

/// The place of one client; it is free again after a drop.
#[derive(Debug)]
pub(super) struct ClientPlace {
    uid: u32,
    counts: Arc<Mutex<BTreeMap<u32, usize>>>,
    refused_above: Option<usize>,
}

impl ClientPlaces {
    /// A place for a client of this user; `None` where not even a refusal has one.
    pub(super) fn enter(&self, uid: u32) -> Option<ClientPlace> {
        let max = if is_privileged(uid) { PRIVILEGED_MAX } else { USER_MAX };
        let mut counts = lock(&self.0);
        let others = counts.iter().filter(|(uid, _)| !is_privileged(**uid)).map(|(_, it)| it);
        let has_room = is_privileged(uid) || others.sum::<usize>() < USERS_MAX;
        let count = counts.get(&uid).copied().unwrap_or_default();
        if count >= 2 * max || !has_room {
            return None;
        }
        counts.insert(uid, count + 1);
        let refused_above = (count >= max).then_some(max);
        Some(ClientPlace { uid, counts: Arc::clone(&self.0), refused_above })
    }
}

impl ClientPlace {
    /// How many clients of this user are served, if this one is not.
    pub(super) fn refused_above(&self) -> Option<usize> {
        self.refused_above
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

fn is_privileged(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_floods_keeps_out_only_itself() {
        let places = ClientPlaces::default();
        let mut flood: Vec<_> = (0..200).filter_map(|_| places.enter(1_000)).collect();
        assert_eq!(flood.len(), 2 * USER_MAX);
        let served = flood.iter().filter(|place| place.refused_above().is_none()).count();
        assert_eq!(served, USER_MAX);
        assert!(places.enter(1_001).unwrap().refused_above().is_none());
        assert!(places.enter(0).unwrap().refused_above().is_none());
        flood.truncate(USER_MAX - 1);
        assert!(places.enter(1_000).unwrap().refused_above().is_none());
    }

    #[test]
    fn many_users_leave_the_places_of_root_alone() {
        let places = ClientPlaces::default();
        let all: Vec<_> = (1_000..2_000).filter_map(|uid| places.enter(uid)).collect();
        assert_eq!(all.len(), USERS_MAX);
        let root: Vec<_> = (0..PRIVILEGED_MAX).filter_map(|_| places.enter(0)).collect();
        assert!(root.iter().all(|place| place.refused_above().is_none()));
        drop((all, root));
        assert!(lock(&places.0).is_empty());
    }
}
