//! Which bounds of the proxy are near. The log says so once, and again after it fell well below.

use crate::clock::monotonic;
use crate::model::{Bound, BoundUse};
use crate::open_files;
use crate::proxy::Proxy;

impl Proxy {
    /// The bounds of which at least 90 % are in use.
    pub fn near_bounds(&self) -> Vec<BoundUse> {
        self.bounds().into_iter().filter(BoundUse::is_near).collect()
    }

    /// Logs each bound that came near since the last call.
    pub fn log_near_bounds(&self) {
        let service = self.view().service.name.clone();
        for near in self.bound_watch.newly_near(&self.bounds()) {
            tracing::warn!(service, "near a limit: {near}");
        }
    }

    fn bounds(&self) -> Vec<BoundUse> {
        let view = self.view();
        let limits = &view.service.limits;
        let addresses = &self.state.addresses;
        let sessions = self.state.router.sessions.usage();
        let (waiting, waiting_max) = self.state.held_events.usage();
        let (connections, streams) = self.open_connections.usage();
        let mut bounds = vec![
            BoundUse::new(Bound::Connections, connections, self.connections_max),
            BoundUse::new(
                Bound::Streams,
                streams,
                usize::try_from(limits.streams_max).unwrap_or(usize::MAX),
            ),
            BoundUse::new(Bound::Sessions, sessions.count, sessions.limits.count),
            BoundUse::new(
                Bound::SessionMemory,
                sessions.bytes / 1024,
                sessions.limits.bytes / 1024,
            ),
            BoundUse::new(Bound::WaitingEvents, waiting / 1024, waiting_max / 1024),
        ];
        if let Some([clients, releases]) = open_files::usage() {
            bounds.push(BoundUse::new(Bound::ClientFiles, clients.0, clients.1));
            bounds.push(BoundUse::new(Bound::ReleaseFiles, releases.0, releases.1));
        }
        let of_address = |bound, used: Option<(std::net::IpAddr, usize)>, max: usize| {
            let (address, used) = used?;
            let address = Some(address.to_string());
            Some(BoundUse { address, ..BoundUse::new(bound, used, max) })
        };
        let sessions_max = limits.address_sessions_max;
        let (max, share) = (limits.address_connections_max, open_files::address_share());
        bounds.extend(match share < max {
            true => of_address(Bound::ClientFiles, addresses.most_connections(), share),
            false => of_address(Bound::ConnectionsPerAddress, addresses.most_connections(), max),
        });
        bounds.extend(of_address(
            Bound::NewSessionsPerAddress,
            addresses.most_sessions(sessions_max, monotonic()),
            usize::try_from(sessions_max).unwrap_or(usize::MAX),
        ));
        bounds
    }
}
