//! Where a proxy sends what, told to the one before it: that may still get a request, on a
//! connection that its client kept, and what is open in it has to leave a release as all others do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Address;
use crate::model::ReleaseNumber;
use crate::proxy::Proxy;

/// Where requests go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesSnapshot {
    active: Option<ReleaseNumber>,
    releases: Vec<ReleaseRoute>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReleaseRoute {
    number: ReleaseNumber,
    #[serde(rename = "at")]
    address: RouteAddress,
    /// Nothing new should stay there.
    #[serde(rename = "left")]
    draining: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RouteAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Proxy {
    /// Where requests go now. Releases that were cut are left out. `None` at the end, when all are.
    pub fn routes_snapshot(&self) -> Option<RoutesSnapshot> {
        if self.lifecycle.shutdown.is_cancelled() {
            return None;
        }
        let routes = self.state.routes.load();
        let reachable = routes.backends().iter().filter(|upstream| upstream.is_open());
        let releases = reachable.map(|upstream| ReleaseRoute {
            number: upstream.number,
            address: match &upstream.address {
                Address::Tcp(address) => RouteAddress::Tcp(*address),
                Address::Unix(path) => RouteAddress::Unix(path.clone()),
            },
            draining: upstream.draining.is_cancelled(),
        });
        let active = routes.active().map(|active| active.number);
        Some(RoutesSnapshot { active, releases: releases.collect() })
    }

    /// Goes the same ways as the proxy that took over: releases that it does not know are cut.
    pub async fn apply_routes(&self, snapshot: &RoutesSnapshot) {
        for route in &snapshot.releases {
            let address = match &route.address {
                RouteAddress::Tcp(address) => Address::Tcp(*address),
                RouteAddress::Unix(path) => Address::Unix(path.clone()),
            };
            self.add_release(route.number, &address);
            if route.draining
                && let Some(upstream) = self.backend(route.number)
            {
                upstream.draining.cancel();
            }
        }
        if let Some(active) = snapshot.active {
            self.set_active(active);
        }
        let in_snapshot: BTreeSet<_> = snapshot.releases.iter().map(|way| way.number).collect();
        let routes = self.state.routes.load_full();
        for upstream in routes.backends() {
            if !in_snapshot.contains(&upstream.number) && upstream.is_open() {
                self.cut(upstream.number).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    fn routes() -> Vec<(&'static str, RoutesSnapshot)> {
        let places = one_of_each!(RouteAddress;
            RouteAddress::Tcp(_) => "" RouteAddress::Tcp(([127, 0, 0, 1], 9001).into());
            RouteAddress::Unix(_) => "" RouteAddress::Unix("/run/weather.sock".into());
        );
        let way = |((_, at), number)| ReleaseRoute {
            number: ReleaseNumber(number),
            address: at,
            draining: number == 6,
        };
        let releases = places.into_iter().zip(6..).map(way).collect();
        vec![
            ("routes", RoutesSnapshot { active: Some(ReleaseNumber(7)), releases }),
            ("none", RoutesSnapshot { active: None, releases: Vec::new() }),
        ]
    }

    #[test]
    fn every_route_is_as_it_was() {
        hold("handover-routes.txt", &lines(&routes()));
    }

    #[test]
    fn old_routes_are_still_read() {
        still_read(
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/wire/0.1.0/handover-routes.txt"
            )),
            &routes(),
        );
    }
}
