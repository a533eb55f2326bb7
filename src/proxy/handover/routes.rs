//! A snapshot of the routing table, for the predecessor. That one may still get a request on a
//! connection that its client kept, and its open requests must leave a release like all others.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Address;
use crate::model::ReleaseNumber;
use crate::proxy::routing::assignment::AssignmentPlan;
use crate::proxy::routing::view::RoutingView;
use crate::proxy::session::SessionLocation;

/// The active release, and the releases that are not cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutesSnapshot {
    active: Option<ReleaseNumber>,
    releases: Vec<ReleaseRoute>,
    /// How subjects are assigned, during a ramp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assignment: Option<AssignmentPlan>,
    /// Requests that clients cancelled at the successor, each with its session: they may be open here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::proxy) cancelled: Vec<(String, String)>,
    /// The sessions that moved last at the successor: a request of one may come here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::proxy) moved: Vec<SessionLocation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::proxy) struct ReleaseRoute {
    pub(in crate::proxy) number: ReleaseNumber,
    #[serde(rename = "at")]
    address: RouteAddress,
    /// Whether the release is draining.
    #[serde(rename = "left")]
    pub(in crate::proxy) draining: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RouteAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl RoutesSnapshot {
    /// The snapshot of a routing table, with the cancelled requests and the sessions that moved.
    pub(in crate::proxy) fn of(
        view: &RoutingView,
        cancelled: Vec<(String, String)>,
        moved: Vec<SessionLocation>,
    ) -> Self {
        let routes = &view.routes;
        let open = routes.backends().iter().filter(|backend| backend.is_open());
        let releases = open.map(|backend| ReleaseRoute {
            number: backend.number,
            address: match &backend.address {
                Address::Tcp(address) => RouteAddress::Tcp(*address),
                Address::Unix(path) => RouteAddress::Unix(path.clone()),
            },
            draining: backend.draining.is_cancelled(),
        });
        let active = routes.active().map(|active| active.number);
        let assignment = view.assignment.as_ref().map(|it| it.plan.clone());
        Self { active, releases: releases.collect(), assignment, cancelled, moved }
    }

    /// The active release.
    pub(in crate::proxy) fn active(&self) -> Option<ReleaseNumber> {
        self.active
    }

    /// How subjects are assigned, during a ramp.
    pub(in crate::proxy) fn assignment(&self) -> Option<&AssignmentPlan> {
        self.assignment.as_ref()
    }

    /// The releases that are not cut.
    pub(in crate::proxy) fn releases(&self) -> &[ReleaseRoute] {
        &self.releases
    }
}

impl ReleaseRoute {
    /// The address of the release.
    pub(in crate::proxy) fn address(&self) -> Address {
        match &self.address {
            RouteAddress::Tcp(address) => Address::Tcp(*address),
            RouteAddress::Unix(path) => Address::Unix(path.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/each.rs"));
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/lines.rs"));

    const MOVED: &str = r#"{"k":"c2l4dGVlbiBieXRlcy4uLg","r":7,"g":1,"b":"at-the-release"}"#;

    fn routes() -> Vec<(&'static str, RoutesSnapshot)> {
        let addresses = one_of_each!(RouteAddress;
            RouteAddress::Tcp(_) => "" RouteAddress::Tcp(([127, 0, 0, 1], 9001).into());
            RouteAddress::Unix(_) => "" RouteAddress::Unix("/run/weather.sock".into());
        );
        let route = |((_, address), number)| ReleaseRoute {
            number: ReleaseNumber(number),
            address,
            draining: number == 6,
        };
        let releases = addresses.into_iter().zip(6..).map(route).collect();
        vec![
            (
                "routes",
                RoutesSnapshot {
                    active: Some(ReleaseNumber(7)),
                    releases,
                    ..RoutesSnapshot::default()
                },
            ),
            (
                "sessions",
                RoutesSnapshot {
                    cancelled: vec![("c2l4dGVlbiBieXRlcy4uLg".to_owned(), "7".to_owned())],
                    moved: vec![serde_json::from_str(MOVED).unwrap()],
                    ..RoutesSnapshot::default()
                },
            ),
            ("none", RoutesSnapshot::default()),
        ]
    }

    #[test]
    fn every_snapshot_keeps_its_wire_form() {
        hold("handover-routes.txt", &lines(&routes()));
    }

    #[test]
    fn snapshots_of_0_1_0_are_read() {
        still_read(
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/wire/0.1.0/handover-routes.txt"
            )),
            &routes(),
        );
    }
}
