//! Which subjects meet the release on trial.
//!
//! A subject is a session, or where there is none the client's credentials, or its address. Its coin is a
//! keyed hash: on trial iff it is below the share of the step. The key comes from the secret of this
//! host and the number of the deploy, so each deploy draws again, and a restart draws the same.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use http::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::model::{Arm, Moment, RampStep, ReleaseNumber};
use crate::mutex::lock;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::identity::Identity;
use crate::proxy::backend::recent_subjects::RecentSubjects;
use crate::proxy::backend::trial_cells::TrialCells;
use crate::proxy::backend::trial_subject::TrialSubject;
use crate::proxy::session::{Session, SessionKey};

/// A session that a client opens so soon after another one, in milliseconds, takes its arm: a client
/// that opens a new one after each error gets no new coin.
const REOPEN_MS: u64 = 60_000;
/// Clients whose last new session is kept.
const CLIENTS_MAX: usize = 4_096;
/// What of a subject's hash is kept: enough for its coin, and short in the record.
const SUBJECT_BITS: u64 = !0 << 24;

/// What the proxy needs to assign subjects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentPlan {
    /// The release on trial.
    pub trial: ReleaseNumber,
    /// The release that has all others.
    pub control: ReleaseNumber,
    /// The step of the ramp.
    pub step: RampStep,
    /// Since when subjects are assigned.
    pub since: Moment,
    /// Whether live sessions take part.
    pub moves_sessions: bool,
    /// Whether a failed answer of a tool is a failure.
    pub counts_tools: bool,
}

/// A plan in force.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Assignment {
    /// The plan.
    pub plan: AssignmentPlan,
    key: [u8; 16],
    cells: Arc<TrialCells>,
    recent: Arc<RecentSubjects>,
    /// Subjects and calls that mostly failed on the control before, until they are taken.
    known_failing: Arc<Mutex<Vec<(u64, u64)>>>,
    /// The last new session of clients with credentials: its subject, and when it was opened.
    reopened: Arc<Mutex<BTreeMap<u64, (u64, Moment)>>>,
}

impl Assignment {
    /// Assigns by this plan, with the secret key of the deploy.
    pub(in crate::proxy) fn new(
        plan: AssignmentPlan,
        key: [u8; 16],
        cells: TrialCells,
        recent: Arc<RecentSubjects>,
    ) -> Self {
        let failing = recent.failing(plan.control);
        let assignment = Self {
            plan,
            key,
            cells: Arc::new(cells),
            recent,
            known_failing: Arc::default(),
            reopened: Arc::default(),
        };
        let pairs = failing.into_iter().map(|(of, call)| (assignment.subject_of(of), call));
        let known_failing = Arc::new(Mutex::new(pairs.collect()));
        Self { known_failing, ..assignment }
    }

    /// Subjects and calls that mostly failed on the control before the trial, once.
    pub(in crate::proxy) fn take_known_failing(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut lock(&self.known_failing))
    }

    /// The same trial with another step; None if the plan is for another trial.
    pub(in crate::proxy) fn with_plan(&self, plan: &AssignmentPlan) -> Option<Self> {
        let is_same = (self.plan.trial, self.plan.control) == (plan.trial, plan.control);
        is_same.then(|| Self { plan: plan.clone(), ..self.clone() })
    }

    /// Where its requests are counted.
    pub(in crate::proxy) fn cells(&self) -> &TrialCells {
        &self.cells
    }

    /// The arm of a subject.
    pub(in crate::proxy) fn arm(&self, subject: u64) -> Arm {
        if self.plan.step.includes(subject) { Arm::Trial } else { Arm::Control }
    }

    /// The arm of a release.
    pub(in crate::proxy) fn arm_of(&self, release: ReleaseNumber) -> Option<Arm> {
        match release {
            it if it == self.plan.trial => Some(Arm::Trial),
            it if it == self.plan.control => Some(Arm::Control),
            _ => None,
        }
    }

    /// The subject of a session.
    pub(in crate::proxy) fn of_session(&self, key: &SessionKey) -> u64 {
        self.subject_of(Identity::Session(*key))
    }

    /// The subject of a request without a session, and the client of any: its credentials, else its
    /// address.
    pub(in crate::proxy) fn of_client(&self, request: &ClientRequest) -> u64 {
        self.subject_of(Identity::Client(client_identity(request, &self.recent)))
    }

    fn subject_of(&self, identity: Identity) -> u64 {
        match identity {
            Identity::Session(key) => self.hash(b's', &key),
            Identity::Client(client) => self.hash(b'c', &client.to_be_bytes()),
        }
    }

    /// A fresh subject for a session that is about to be opened. Its key is drawn to match.
    pub(in crate::proxy) fn of_new_session(&self, request: &ClientRequest, now: Moment) -> u64 {
        let client = self.of_client(request);
        let mut nonce = [0; 8];
        let is_random = getrandom::fill(&mut nonce).is_ok();
        let fresh = if is_random { self.hash(b'n', &nonce) } else { client };
        if !request.head.headers.contains_key(AUTHORIZATION) {
            return fresh;
        }
        let mut clients = lock(&self.reopened);
        let is_recent = |opened: Moment| now.0.saturating_sub(opened.0) < REOPEN_MS;
        let last = clients.get(&client).filter(|(_, opened)| is_recent(*opened));
        let subject = last.map_or(fresh, |(subject, _)| *subject);
        if CLIENTS_MAX <= clients.len() {
            clients.retain(|_, (_, opened)| is_recent(*opened));
        }
        if clients.len() < CLIENTS_MAX {
            clients.insert(client, (subject, now));
        }
        subject
    }

    /// Whether a session with this key belongs where it was opened.
    pub(in crate::proxy) fn fits(&self, key: &SessionKey, release: ReleaseNumber) -> bool {
        self.arm_of(release).is_none_or(|arm| arm == self.arm(self.of_session(key)))
    }

    /// Whether the coin of a session can decide its arm: it was opened since, or it can move.
    pub(in crate::proxy) fn takes_part(&self, session: &Session, is_pinned: bool) -> bool {
        self.plan.since <= session.opened_at() || (self.plan.moves_sessions && !is_pinned)
    }

    /// The subject of a request to this release, if it counts: only where its coin put it there.
    pub(in crate::proxy) fn counted(
        &self,
        (subject, client): (u64, u64),
        release: ReleaseNumber,
    ) -> Option<TrialSubject> {
        let arm = self.arm_of(release).filter(|arm| *arm == self.arm(subject))?;
        let (cells, counts_tools) = (Arc::clone(&self.cells), self.plan.counts_tools);
        Some(TrialSubject { cells, arm, subject, client, counts_tools })
    }

    fn hash(&self, kind: u8, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write_u8(kind);
        hasher.write(bytes);
        hasher.finish() & SUBJECT_BITS
    }
}

/// A keyed hash of the client of a request: its credentials, else its address.
pub(in crate::proxy) fn client_identity(request: &ClientRequest, recent: &RecentSubjects) -> u64 {
    if let Some(credentials) = request.head.headers.get(AUTHORIZATION) {
        return recent.hash(b'c', credentials.as_bytes());
    }
    match request.client.unwrap_or(request.peer.address) {
        IpAddr::V4(address) => recent.hash(b'4', &address.octets()),
        // One host has a whole /64.
        IpAddr::V6(address) => {
            recent.hash(b'6', address.octets().first_chunk::<8>().unwrap_or(&[0; 8]))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::Request;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::proxy::backend::client_request::Peer;
    use crate::proxy::session::{SessionLimits, Sessions};

    fn assignment(below_ppm: u32, key: u8) -> Assignment {
        let plan = AssignmentPlan {
            trial: ReleaseNumber(2),
            control: ReleaseNumber(1),
            step: RampStep { step: 1, of: 3, share_ppm: below_ppm, below_ppm },
            since: Moment(0),
            moves_sessions: true,
            counts_tools: true,
        };
        let clock = Clock::start(Moment(0));
        let recent = Arc::new(RecentSubjects::new(clock, [9; 16]));
        Assignment::new(plan, [key; 16], TrialCells::new(clock), recent)
    }

    fn request(address: [u8; 4], credentials: Option<&str>) -> ClientRequest {
        let address = IpAddr::V4(Ipv4Addr::from(address));
        let peer = Peer { address, is_trusted_proxy: false, local_port: 80 };
        let mut head = Request::new(()).into_parts().0;
        if let Some(credentials) = credentials {
            head.headers.insert(AUTHORIZATION, credentials.parse().unwrap());
        }
        ClientRequest::of(peer, head)
    }

    proptest! {
        /// A subject that is on trial stays there in every later step, also after a restart, and is
        /// counted in one arm only.
        #[test]
        fn arms_are_monotone_in_the_share(key in any::<[u8; 16]>(), shares in any::<[u32; 2]>()) {
            let [low, high] = shares.map(|it| it % 1_000_001);
            let (low, high) = (low.min(high), low.max(high));
            let (before, after) = (assignment(low, 7), assignment(high, 7));
            let subject = before.of_session(&key);
            prop_assert_eq!(subject, after.of_session(&key));
            prop_assert!(before.arm(subject) <= after.arm(subject));
            let counted = [1, 2, 3].map(|it| before.counted((subject, 1), ReleaseNumber(it)).is_some());
            prop_assert_eq!(counted.iter().filter(|it| **it).count(), 1);
        }
    }

    #[test]
    fn shares_are_those_of_the_step_and_each_deploy_draws_anew() {
        let (first, second) = (assignment(250_000, 1), assignment(250_000, 2));
        let keys = (0..20_000_u128).map(u128::to_le_bytes);
        let arms: Vec<_> = keys
            .map(|key| [&first, &second].map(|it| it.arm(it.of_session(&key)) == Arm::Trial))
            .collect();
        let part = |of: &dyn Fn(&[bool; 2]) -> bool| {
            arms.iter().filter(|it| of(it)).count() as f64 / arms.len() as f64
        };
        assert!((part(&|it| it[0]) - 0.25).abs() < 0.02);
        assert!((part(&|it| it[0] && it[1]) - 0.0625).abs() < 0.02, "the draws are independent");
    }

    #[test]
    fn credentials_come_before_addresses() {
        let assignment = assignment(500_000, 3);
        let of = |address, credentials| assignment.of_client(&request(address, credentials));
        assert_ne!(of([10, 0, 0, 1], None), of([10, 0, 0, 2], None));
        assert_eq!(of([10, 0, 0, 1], Some("Bearer a")), of([10, 0, 0, 2], Some("Bearer a")));
        assert_ne!(of([10, 0, 0, 1], Some("Bearer a")), of([10, 0, 0, 1], Some("Bearer b")));
    }

    #[test]
    fn a_client_that_opens_sessions_again_and_again_gets_one_coin() {
        let assignment = assignment(500_000, 4);
        let client = request([10, 0, 0, 1], Some("Bearer a"));
        let first = assignment.of_new_session(&client, Moment(0));
        for minute in 0..20 {
            let now = Moment(minute * 59_000);
            assert_eq!(assignment.of_new_session(&client, now), first, "at {now}");
        }
        assert_ne!(assignment.of_new_session(&client, Moment(3_000_000)), first);
        // Without credentials, many clients may share an address.
        let anonymous = request([10, 0, 0, 1], None);
        let fresh: std::collections::BTreeSet<_> =
            (0..20).map(|_| assignment.of_new_session(&anonymous, Moment(0))).collect();
        assert_eq!(fresh.len(), 20);
    }

    #[test]
    fn a_new_session_gets_a_key_of_the_arm_that_it_was_opened_in() {
        let sessions =
            Sessions::new("weather", [7; 16], SessionLimits { count: 10, bytes: 1 << 20 });
        for below_ppm in [10_000, 500_000] {
            let assignment = assignment(below_ppm, 5);
            for (release, arm) in [(1, Arm::Control), (2, Arm::Trial)] {
                let release = ReleaseNumber(release);
                let fits = |key: &SessionKey| assignment.fits(key, release);
                let (id, _) = sessions.mint(release, "b", fits).unwrap();
                let key = *sessions.decode(&id).unwrap().key();
                assert_eq!(assignment.arm(assignment.of_session(&key)), arm);
            }
        }
    }
}
