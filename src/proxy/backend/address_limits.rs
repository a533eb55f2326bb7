//! What one client address may hold: connections, open requests, and new sessions a minute.
//!
//! The client of a trusted proxy has no connection here: its open requests count in their place. IPv6
//! addresses count by /64, which one host has as a whole.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use crate::mutex::lock;

use tokio::time::Instant;

/// Addresses that are tracked, for each of the two bounds. Where more are active, no single one is
/// the trouble: further ones are not bounded.
const ADDRESSES_MAX: usize = 65_536;
/// The time in which new sessions count.
const MINUTE: Duration = Duration::from_mins(1);

/// What all addresses hold at one service.
#[derive(Debug, Default)]
pub(in crate::proxy) struct AddressLimits {
    connections: Mutex<BTreeMap<IpAddr, AddressUse>>,
    /// When the new sessions of an address are paid for, at the rate that is allowed: a generic cell
    /// rate algorithm (ITU-T I.371), whose burst is a minute.
    sessions: Mutex<BTreeMap<IpAddr, Instant>>,
    end_slow: OnceLock<EndSlow>,
}

/// Ends a request of an address whose client is too slow. Returns whether there was one.
pub(in crate::proxy) struct EndSlow(pub Box<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl fmt::Debug for EndSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndSlow")
    }
}

/// What one address holds.
#[derive(Debug, Default)]
struct AddressUse {
    /// Connections, or requests of a client of a trusted proxy.
    places: usize,
    /// Its further references are requests that are open on the connections: HTTP/2 has many on one.
    requests: Arc<OpenBySource>,
}

/// Open requests of an address by their source: a session, else credentials; `None` has neither. Only
/// those that began while the address had half of its requests open, so that others cost no lock.
#[derive(Debug, Default)]
struct OpenBySource(Mutex<BTreeMap<Option<u64>, usize>>);

impl AddressUse {
    fn open_requests(&self) -> usize {
        Arc::strong_count(&self.requests) - 1
    }
}

/// The open requests on all connections of an address.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct AddressRequests(Weak<OpenBySource>);

/// An open request of an address; it counts until it is dropped.
#[derive(Debug, Default)]
pub(in crate::proxy) struct AddressRequest {
    of: Option<Arc<OpenBySource>>,
    /// The source under which it counts, if it does.
    source: Option<Option<u64>>,
}

impl AddressRequests {
    /// Counts a request; `None` where the address has `max` open, or its source too many of them.
    ///
    /// Once half are open, a source may have as many of the rest as are free: dynamic thresholds
    /// (Choudhury and Hahne, 1998). However many one source opens, some stay free for the others.
    pub(in crate::proxy) fn begin(
        &self,
        max: usize,
        source: impl FnOnce() -> Option<u64>,
    ) -> Option<AddressRequest> {
        let open = self.0.strong_count().saturating_sub(1);
        if open >= max {
            return None;
        }
        let Some(of) = self.0.upgrade() else { return Some(AddressRequest::default()) };
        if open < max / 2 {
            return Some(AddressRequest { of: Some(of), source: None });
        }
        Self::begin_counted(of, source(), max - open)
    }

    /// Counts the only request of a session or of credentials, on a connection that the address may not
    /// have: `None` for what others of its source have open.
    pub(in crate::proxy) fn begin_first(&self, source: Option<u64>) -> Option<AddressRequest> {
        source?;
        Self::begin_counted(self.0.upgrade()?, source, 1)
    }

    fn begin_counted(
        of: Arc<OpenBySource>,
        source: Option<u64>,
        max: usize,
    ) -> Option<AddressRequest> {
        let mut sources = lock(&of.0);
        let own = sources.get(&source).copied().unwrap_or_default();
        if own >= max {
            return None;
        }
        sources.insert(source, own + 1);
        drop(sources);
        Some(AddressRequest { of: Some(of), source: Some(source) })
    }
}

impl Drop for AddressRequest {
    fn drop(&mut self) {
        let (Some(of), Some(source)) = (&self.of, self.source) else { return };
        let mut sources = lock(&of.0);
        match sources.get_mut(&source) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(sources.remove(&source)),
        }
    }
}

/// A connection or request of an address, until it is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct AddressPlace {
    /// `None` where it is not counted.
    address: Option<IpAddr>,
    requests: AddressRequests,
    limits: Arc<AddressLimits>,
}

impl AddressPlace {
    /// The open requests of the address.
    pub(in crate::proxy) fn requests(&self) -> AddressRequests {
        self.requests.clone()
    }
}

impl AddressLimits {
    /// A place for a connection of an address; `None` where it has `max`.
    pub(in crate::proxy) fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        max: usize,
    ) -> Option<AddressPlace> {
        let address = counted_address(address);
        let mut connections = lock(&self.connections);
        let is_tracked = connections.contains_key(&address) || connections.len() < ADDRESSES_MAX;
        let mut requests = AddressRequests::default();
        if is_tracked {
            let in_use = connections.entry(address).or_default();
            if in_use.places >= max {
                return None;
            }
            in_use.places += 1;
            requests = AddressRequests(Arc::downgrade(&in_use.requests));
        }
        let address = is_tracked.then_some(address);
        Some(AddressPlace { address, requests, limits: Arc::clone(self) })
    }

    /// Sets what makes room where an address has too many requests open. Only the first call has an effect.
    pub(in crate::proxy) fn set_end_slow(&self, end_slow: EndSlow) {
        let _ = self.end_slow.set(end_slow);
    }

    /// Ends a request of this address whose client is too slow. Returns whether there was one.
    pub(in crate::proxy) fn end_slow_request(&self, address: IpAddr) -> bool {
        self.end_slow.get().is_some_and(|EndSlow(end)| end(address))
    }

    /// How long an address has to wait until it may open another session; `None` if it may now.
    pub(in crate::proxy) fn session_wait(
        &self,
        address: IpAddr,
        max: u32,
        now: Instant,
    ) -> Option<Duration> {
        let sessions = lock(&self.sessions);
        let paid_at = sessions.get(&counted_address(address))?;
        let paid_at = paid_at.checked_duration_since(now)? + interval(max);
        paid_at.checked_sub(MINUTE).filter(|wait| !wait.is_zero())
    }

    /// An address has opened a session.
    pub(in crate::proxy) fn session_opened(&self, address: IpAddr, max: u32, now: Instant) {
        let address = counted_address(address);
        let mut sessions = lock(&self.sessions);
        if sessions.len() >= ADDRESSES_MAX {
            sessions.retain(|_, paid_at| *paid_at > now);
        }
        if sessions.len() < ADDRESSES_MAX || sessions.contains_key(&address) {
            let paid_at = sessions.entry(address).or_insert(now);
            // A burst is at most a minute; more would keep the address out for longer.
            *paid_at = ((*paid_at).max(now) + interval(max)).min(now + MINUTE);
        }
    }

    /// The address with the most connections or open requests, and how many it has.
    pub(in crate::proxy) fn most_connections(&self) -> Option<(IpAddr, usize)> {
        let connections = lock(&self.connections);
        let used =
            connections.iter().map(|(it, used)| (*it, used.places.max(used.open_requests())));
        used.max_by_key(|(_, count)| *count)
    }

    /// The address with the most new sessions, and how many of `max` a minute it has used. Forgets
    /// those that opened none for a minute.
    pub(in crate::proxy) fn most_sessions(
        &self,
        max: u32,
        now: Instant,
    ) -> Option<(IpAddr, usize)> {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, paid_at| *paid_at > now);
        let (address, paid_at) = sessions.iter().max_by_key(|(_, paid_at)| **paid_at)?;
        let used = paid_at.duration_since(now).div_duration_f64(interval(max));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        Some((*address, used.round() as usize))
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut connections = lock(&self.limits.connections);
        if let Some(in_use) = connections.get_mut(&address) {
            in_use.places -= 1;
            if in_use.places == 0 {
                connections.remove(&address);
            }
        }
    }
}

/// The time that one session costs where `max` a minute are allowed.
fn interval(max: u32) -> Duration {
    MINUTE / max.max(1)
}

/// The address under which a client counts.
pub(in crate::proxy) fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_a_limit_of_connections_and_others_are_free() {
        let limits = Arc::<AddressLimits>::default();
        let enter = |text| limits.enter(address(text), 2);
        let first = enter("192.0.2.1").unwrap();
        let _second = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some());
        assert_eq!(limits.most_connections(), Some((address("192.0.2.1"), 2)));
        drop(first);
        assert!(enter("192.0.2.1").is_some());
    }

    #[test]
    fn the_requests_on_all_connections_of_an_address_count_together() {
        let limits = Arc::<AddressLimits>::default();
        let [first, second] = [(); 2].map(|()| limits.enter(address("192.0.2.1"), 2).unwrap());
        let begin = |place: &AddressPlace, source| place.requests().begin(3, || Some(source));
        let open = [begin(&first, 1), begin(&second, 2)];
        let third = begin(&first, 3);
        assert!(open.iter().all(Option::is_some) && third.is_some());
        assert!(begin(&second, 4).is_none());
        assert_eq!(limits.most_connections(), Some((address("192.0.2.1"), 3)));
        drop(third);
        assert!(begin(&second, 4).is_some());
        // A request may outlive the connection.
        drop((first, second));
        assert!(lock(&limits.connections).is_empty());
        drop(open);
    }

    /// Behind a proxy that names no client, all clients have one address.
    #[test]
    fn sources_that_open_many_requests_leave_some_to_the_others_of_their_address() {
        let limits = Arc::<AddressLimits>::default();
        let place = limits.enter(address("192.0.2.1"), 1).unwrap();
        for greedy in 1..5_u64 {
            let begin = |source| place.requests().begin(120, || source);
            // Anonymous requests are one source.
            let sources: Vec<_> = (0..greedy).map(|it| (it > 0).then_some(it)).collect();
            let mut open = Vec::new();
            for source in sources.iter().cycle().take(120 * sources.len()) {
                open.extend(begin(*source));
            }
            let free = 120 - open.len();
            assert!(free >= 60 / (sources.len() + 1), "{free} free of {greedy}");
            let honest: Vec<_> = (100..103).map(|it| begin(Some(it))).collect();
            assert!(honest.iter().all(Option::is_some));
            drop((open, honest));
            let all = lock(&limits.connections);
            assert!(all.values().all(|it| lock(&it.requests.0).is_empty()), "nothing stays");
        }
    }

    #[test]
    fn beyond_the_connections_of_an_address_a_session_has_one_request() {
        let limits = Arc::<AddressLimits>::default();
        let place = limits.enter(address("192.0.2.1"), 1).unwrap();
        assert!(place.requests().begin_first(None).is_none());
        let first = place.requests().begin_first(Some(1));
        assert!(first.is_some() && place.requests().begin_first(Some(2)).is_some());
        assert!(place.requests().begin_first(Some(1)).is_none());
        drop(first);
        assert!(place.requests().begin_first(Some(1)).is_some());
    }

    #[test]
    fn a_host_with_a_network_of_ipv6_counts_once() {
        let limits = Arc::<AddressLimits>::default();
        let _one = limits.enter(address("2001:db8::1"), 1).unwrap();
        assert!(limits.enter(address("2001:db8::2:1"), 1).is_none());
        assert!(limits.enter(address("2001:db8:0:1::1"), 1).is_some());
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_left() {
        let limits = Arc::<AddressLimits>::default();
        drop(limits.enter(address("192.0.2.1"), 2));
        assert!(lock(&limits.connections).is_empty());
        let now = crate::clock::monotonic();
        limits.session_opened(address("192.0.2.1"), 60, now);
        assert!(limits.most_sessions(60, now + MINUTE).is_none());
        assert!(lock(&limits.sessions).is_empty());
    }

    #[test]
    fn sessions_are_a_rate_with_the_burst_of_a_minute() {
        let (limits, start) = (AddressLimits::default(), crate::clock::monotonic());
        let client = address("192.0.2.1");
        for _ in 0..60 {
            assert_eq!(limits.session_wait(client, 60, start), None);
            limits.session_opened(client, 60, start);
        }
        assert_eq!(limits.most_sessions(60, start), Some((client, 60)));
        assert_eq!(limits.session_wait(client, 60, start), Some(Duration::from_secs(1)));
        assert_eq!(limits.session_wait(client, 60, start + Duration::from_secs(1)), None);
        assert_eq!(limits.session_wait(address("192.0.2.2"), 60, start), None);
        // Sessions that open without being asked about cost no more than a minute.
        (0..600).for_each(|_| limits.session_opened(client, 60, start));
        assert_eq!(limits.session_wait(client, 60, start), Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_maps_are_bounded() {
        let (limits, now) = (Arc::<AddressLimits>::default(), crate::clock::monotonic());
        let all = (0..70_000_u32).map(|it| IpAddr::V4(it.into()));
        let places: Vec<_> = all.clone().filter_map(|it| limits.enter(it, 1)).collect();
        all.for_each(|it| limits.session_opened(it, 60, now));
        assert_eq!(places.len(), 70_000);
        assert_eq!(lock(&limits.connections).len(), ADDRESSES_MAX);
        assert_eq!(lock(&limits.sessions).len(), ADDRESSES_MAX);
        drop(places);
        assert!(lock(&limits.connections).is_empty());
    }
}
