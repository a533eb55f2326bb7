//! How much of a bound of the proxy is in use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Client connections of a service.
    Connections,
    /// Connections of one client address, or its open requests behind a trusted proxy.
    ConnectionsPerAddress,
    /// Sessions that one client address opened, a minute.
    NewSessionsPerAddress,
    /// Sessions of a service.
    Sessions,
    /// KiB of sessions of a service.
    SessionMemory,
    /// Streams on one connection of HTTP/2.
    Streams,
    /// KiB of events that wait for their end, or for their client.
    WaitingEvents,
    /// Files for client connections of this process.
    ClientFiles,
    /// Files for connections to releases of this process.
    ReleaseFiles,
    /// One that a newer daemon has.
    #[serde(other)]
    Other,
}

/// How much of a bound is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundUse {
    /// The bound.
    pub bound: Bound,
    /// How much is in use.
    pub used: u64,
    /// How much there is.
    pub limit: u64,
    /// The client address, where the bound is one of each address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// A bound is near from this share on, in percent.
const NEAR_PERCENT: u64 = 90;
/// It is no longer near below this share, in percent.
const CLEAR_PERCENT: u64 = 80;

impl BoundUse {
    /// The use of a bound that has no address.
    pub fn new(bound: Bound, used: usize, limit: usize) -> Self {
        let whole = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Self { bound, used: whole(used), limit: whole(limit), address: None }
    }

    /// Whether at least 90 % are in use.
    pub fn is_near(&self) -> bool {
        self.reaches(NEAR_PERCENT)
    }

    /// Whether less than 80 % are in use.
    pub fn is_clear(&self) -> bool {
        !self.reaches(CLEAR_PERCENT)
    }

    fn reaches(&self, percent: u64) -> bool {
        self.used.saturating_mul(100) >= self.limit.saturating_mul(percent)
    }
}

impl Bound {
    fn noun(self) -> &'static str {
        match self {
            Self::Connections => "client connections",
            Self::ConnectionsPerAddress => "connections",
            Self::NewSessionsPerAddress => "sessions a minute",
            Self::Sessions => "sessions",
            Self::SessionMemory => "KiB of sessions",
            Self::Streams => "streams of one HTTP/2 connection",
            Self::WaitingEvents => "KiB of events that wait",
            Self::ClientFiles => "files for client connections",
            Self::ReleaseFiles => "files for connections to releases",
            Self::Other => "of a bound that this program does not know",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Connections => "raise limits.connections",
            Self::ConnectionsPerAddress => {
                "trusted_proxies for a proxy, else limits.connections_per_address"
            }
            Self::NewSessionsPerAddress => {
                "trusted_proxies for a proxy, else limits.new_sessions_per_address"
            }
            Self::Sessions => "then unused ones go; raise limits.sessions",
            Self::SessionMemory => "then unused ones go; raise limits.session_memory",
            Self::Streams => "then its requests wait; raise limits.streams",
            Self::WaitingEvents => "then the largest stream ends",
            Self::ClientFiles | Self::ReleaseFiles => "raise LimitNOFILE",
            Self::Other => "ask the daemon's version",
        }
    }
}

impl fmt::Display for BoundUse {
    /// `9100 of 10000 client connections: raise limits.connections`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bound, used, limit, address } = self;
        write!(f, "{used} of {limit} {}", bound.noun())?;
        if let Some(address) = address {
            write!(f, " of {address}")?;
        }
        write!(f, ": {}", bound.advice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_near_at_nine_tenths_and_clear_below_eight() {
        let of = |used| BoundUse::new(Bound::Sessions, used, 100);
        assert!(of(90).is_near() && !of(89).is_near());
        assert!(of(79).is_clear() && !of(80).is_clear());
    }

    #[test]
    fn a_bound_of_an_address_says_which_setting_to_change_in_one_line() {
        let mut bound = BoundUse::new(Bound::NewSessionsPerAddress, 540, 600);
        bound.address = Some("2001:db8:1234:5678::".to_owned());
        assert_eq!(
            bound.to_string(),
            "540 of 600 sessions a minute of 2001:db8:1234:5678::: trusted_proxies for a proxy, \
             else limits.new_sessions_per_address"
        );
        assert!(bound.to_string().len() <= 120);
    }

    #[test]
    fn an_unknown_bound_is_read() {
        let json = r#"{"bound": "of_tomorrow", "used": 9, "limit": 10}"#;
        let read: BoundUse = serde_json::from_str(json).unwrap();
        assert_eq!(read, BoundUse::new(Bound::Other, 9, 10));
    }
}
