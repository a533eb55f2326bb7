//! Where a proxy sends what, told to the one before it: that may still get a request, on a
//! connection that its client kept, and what is open in it has to leave a release as all others do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Address;
use crate::model::Number;

use super::Proxy;

/// Where requests go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    active: Option<Number>,
    releases: Vec<Way>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Way {
    number: Number,
    at: At,
    /// Nothing new should stay there.
    left: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum At {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Proxy {
    /// Where requests go now. Releases that were cut are left out. `None` at the end, when all are.
    pub fn ways(&self) -> Option<Ways> {
        if self.door.stop.is_cancelled() {
            return None;
        }
        let routes = self.front.routes.load();
        let open = routes.all().iter().filter(|upstream| upstream.is_open());
        let releases = open.map(|upstream| Way {
            number: upstream.number,
            at: match &upstream.address {
                Address::Tcp(address) => At::Tcp(*address),
                Address::Unix(path) => At::Unix(path.clone()),
            },
            left: upstream.left.is_cancelled(),
        });
        let active = routes.active().map(|active| active.number);
        Some(Ways { active, releases: releases.collect() })
    }

    /// Goes the same ways as the proxy that took over: releases that it does not know are cut.
    pub async fn follow(&self, ways: &Ways) {
        for way in &ways.releases {
            let address = match &way.at {
                At::Tcp(address) => Address::Tcp(*address),
                At::Unix(path) => Address::Unix(path.clone()),
            };
            self.add(way.number, &address);
            if way.left
                && let Some(upstream) = self.upstream(way.number)
            {
                upstream.left.cancel();
            }
        }
        if let Some(active) = ways.active {
            self.route(active);
        }
        let known: BTreeSet<_> = ways.releases.iter().map(|way| way.number).collect();
        let routes = self.front.routes.load_full();
        for upstream in routes.all() {
            if !known.contains(&upstream.number) && upstream.is_open() {
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

    fn routes() -> Vec<(&'static str, Ways)> {
        let places = one_of_each!(At;
            At::Tcp(_) => "" At::Tcp(([127, 0, 0, 1], 9001).into());
            At::Unix(_) => "" At::Unix("/run/weather.sock".into());
        );
        let way = |((_, at), number)| Way { number: Number(number), at, left: number == 6 };
        let releases = places.into_iter().zip(6..).map(way).collect();
        vec![
            ("routes", Ways { active: Some(Number(7)), releases }),
            ("none", Ways { active: None, releases: Vec::new() }),
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
