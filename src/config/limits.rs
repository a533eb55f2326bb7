//! The limits of the proxy.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use crate::config::problem::Problems;
use crate::config::range::{in_range, saturating_u32, size_in_range};
use crate::config::slo::{OutcomeLimits, ShadowSettings};
use crate::config::toml_table::TomlTable;
use crate::config::value::{Raw, byte_size, duration, unsigned_integer};

/// The proxy closes a connection of a client that takes longer for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// A client that reads nothing of a response for this long is not there.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than proxies in front keep an idle connection (nginx 60 s, Go 90 s, Caddy 120 s), so that
/// their requests do not meet the close.
const CLIENT_IDLE: Duration = Duration::from_mins(3);
/// Proxies in front end a stream that is silent for longer, often after 30 or 60 s.
const SSE_PING: Duration = Duration::from_secs(25);

/// The limits of the proxy for one service.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyLimits {
    /// A request without its response is bad after this.
    pub deadline: Duration,
    /// A request is slow after this: the threshold of the latency objective, or the timeout of a
    /// probe.
    pub slow_after: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections of one client address at once, or its open requests behind a trusted proxy.
    pub address_connections_max: usize,
    /// Sessions that one client address may open in a minute.
    pub address_sessions_max: u32,
    /// Bytes a second that a client must send of a body, and take of a response.
    pub min_rate: u64,
    /// Longest time for the head of a request.
    pub header_timeout: Duration,
    /// Longest time between two requests of a connection.
    pub client_idle: Duration,
    /// A stream of events without one for this long gets a comment; `None` is never.
    pub sse_ping: Option<Duration>,
    /// Bytes of a request's body.
    pub body_max: u64,
    /// Sessions at once.
    pub sessions_max: usize,
    /// Bytes of all sessions together, in memory and about as much in their file.
    pub session_bytes_max: usize,
    /// Streams at once on a connection of HTTP/2.
    pub streams_max: u32,
    /// A response that its client does not read for this long ends.
    pub unread_timeout: Duration,
    /// A session without requests for this long is forgotten.
    pub session_idle: Duration,
    /// Longest time to migrate a session to another release. Its requests wait meanwhile.
    pub migration_timeout: Duration,
    /// Requests a second that fail on the new release and are repeated on the warm one, at most;
    /// 0 is off.
    pub shadow_calls_per_second: u32,
    /// Tools that may be repeated, besides those that the warm release annotates as read-only.
    pub repeatable_tools: BTreeSet<String>,
}

/// `[service.NAME.limits]`.
pub(super) struct RawLimits {
    pub(super) client_idle: Raw<Duration>,
    pub(super) connections: Raw<u64>,
    pub(super) connections_per_address: Raw<u64>,
    pub(super) new_sessions_per_address: Raw<u64>,
    pub(super) min_rate: Raw<u64>,
    pub(super) body: Raw<u64>,
    pub(super) sessions: Raw<u64>,
    pub(super) session_memory: Raw<u64>,
    pub(super) streams: Raw<u64>,
    pub(super) session_idle: Raw<Duration>,
    pub(super) migration_timeout: Raw<Duration>,
}

pub(super) fn read(mut table: TomlTable<'_>, problems: &mut Problems) -> RawLimits {
    let limits = RawLimits {
        client_idle: table.read("client_idle", duration, problems),
        connections: table.read("connections", unsigned_integer, problems),
        connections_per_address: table.read("connections_per_address", unsigned_integer, problems),
        new_sessions_per_address: table.read(
            "new_sessions_per_address",
            unsigned_integer,
            problems,
        ),
        min_rate: table.read("min_rate", byte_size, problems),
        body: table.read("body", byte_size, problems),
        sessions: table.read("sessions", unsigned_integer, problems),
        session_memory: table.read("session_memory", byte_size, problems),
        streams: table.read("streams", unsigned_integer, problems),
        session_idle: table.read("session_idle", duration, problems),
        migration_timeout: table.read("session_move", duration, problems),
    };
    table.reject_unknown_keys(problems);
    limits
}

fn sse_ping_interval(raw: &Raw<Option<Duration>>, problems: &mut Problems) -> Option<Duration> {
    let range = Duration::from_secs(1)..=Duration::from_hours(1);
    let given = match raw.as_ref().map(|given| (given.span(), *given.get_ref())) {
        Some((_, None)) => return None,
        Some((span, Some(every))) => Some(Spanned::new(span, every)),
        None => None,
    };
    Some(in_range("sse_ping", &given, SSE_PING, range, problems))
}

fn count(
    name: &str,
    raw: &Raw<u64>,
    default: u64,
    range: RangeInclusive<u64>,
    problems: &mut Problems,
) -> usize {
    saturating_usize(in_range(name, raw, default, range, problems))
}

fn saturating_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Checks the limits, and adds those that follow from the objectives.
pub(super) fn check(
    raw: &RawLimits,
    sse_ping: &Raw<Option<Duration>>,
    probe_timeout: Duration,
    outcome_limits: OutcomeLimits,
    shadow_settings: ShadowSettings,
    problems: &mut Problems,
) -> ProxyLimits {
    const MIB: u64 = 1 << 20;
    let idle = Duration::from_mins(1)..=Duration::from_hours(7 * 24);
    let hour = Duration::from_hours(1);
    ProxyLimits {
        deadline: outcome_limits.deadline,
        slow_after: outcome_limits.slow_after.unwrap_or(probe_timeout.min(outcome_limits.deadline)),
        connections_max: count("connections", &raw.connections, 10_000, 1..=1_000_000, problems),
        address_connections_max: count(
            "connections_per_address",
            &raw.connections_per_address,
            5_000,
            1..=1_000_000,
            problems,
        ),
        address_sessions_max: saturating_u32(in_range(
            "new_sessions_per_address",
            &raw.new_sessions_per_address,
            10_000,
            1..=1_000_000,
            problems,
        )),
        min_rate: size_in_range("min_rate", &raw.min_rate, 64, 1..=MIB, problems),
        header_timeout: HEADER_TIMEOUT,
        client_idle: in_range(
            "client_idle",
            &raw.client_idle,
            CLIENT_IDLE,
            Duration::from_secs(5)..=hour,
            problems,
        ),
        sse_ping: sse_ping_interval(sse_ping, problems),
        body_max: size_in_range("body", &raw.body, 64 * MIB, 1_024..=4_096 * MIB, problems),
        sessions_max: count("sessions", &raw.sessions, 100_000, 1..=10_000_000, problems),
        session_bytes_max: saturating_usize(size_in_range(
            "session_memory",
            &raw.session_memory,
            128 * MIB,
            MIB..=65_536 * MIB,
            problems,
        )),
        streams_max: saturating_u32(in_range("streams", &raw.streams, 64, 1..=1_000, problems)),
        unread_timeout: UNREAD_TIMEOUT,
        session_idle: in_range("session_idle", &raw.session_idle, hour, idle, problems),
        migration_timeout: in_range(
            "session_move",
            &raw.migration_timeout,
            Duration::from_secs(10),
            Duration::from_millis(100)..=Duration::from_mins(2),
            problems,
        ),
        shadow_calls_per_second: shadow_settings.calls_per_second,
        repeatable_tools: shadow_settings.repeatable_tools,
    }
}
