//! What the clients saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::model::Moment;
use crate::mutex::lock;

/// Most requests that are recorded; far more than a demo sends.
const REQUESTS_MAX: usize = 500_000;
/// A response this late is bad, even if it is right: twice the latency objective of the demo.
const LATE_AFTER: Duration = Duration::from_secs(1);
/// Most kinds of bad responses that are counted separately.
const REASONS_MAX: usize = 20;

/// The outcomes of all requests and sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficReport {
    /// Requests that were sent, streams included.
    pub requests: u64,
    /// Requests among them with a wrong response or none.
    pub failed: u64,
    /// Requests that were not sent because too many were in flight.
    pub not_sent: u64,
    /// When the first request with a bad response, wrong or late, was sent; not before the deploy.
    /// The response of a slow or silent release arrives much later than its fault began.
    pub first_bad: Option<Moment>,
    /// When the last bad response arrived, or its client stopped waiting.
    pub last_bad: Option<Moment>,
    /// The longest time of a good response after the deploy.
    pub slowest: Duration,
    /// The outcomes of the sessions.
    pub sessions: SessionCounts,
    /// The number of bad responses of each kind.
    pub reasons: BTreeMap<String, u64>,
}

/// The outcomes of the sessions that were open at the deploy, or began after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCounts {
    /// Kept their id until the client or the traffic ended.
    pub kept: u64,
    /// Kept sessions that were served by more than one release.
    pub migrated: u64,
    /// The server lost their id.
    pub broken: u64,
}

/// A request with a wrong response or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRequest {
    /// When it was sent.
    pub start: Moment,
    /// When its response arrived, or its client stopped waiting.
    pub end: Moment,
    /// What was wrong.
    pub reason: String,
}

/// What the clients saw until now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveCounts {
    /// Requests with a response, or without one within their time.
    pub requests: u64,
    /// Requests among them with a wrong response or none.
    pub failed: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Sessions among them that the server lost.
    pub broken: u64,
}

/// Records what the clients see.
#[derive(Debug)]
pub(crate) struct Statistics {
    clock: Clock,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    requests: Vec<RequestRecord>,
    sessions: Vec<SessionRecord>,
    not_sent: u64,
}

#[derive(Debug)]
struct RequestRecord {
    start: Moment,
    end: Moment,
    bad: Option<String>,
}

#[derive(Debug, Default)]
struct SessionRecord {
    closed: Option<Moment>,
    broken: Option<Moment>,
    releases: BTreeSet<String>,
}

impl Statistics {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, records: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Records a request that ended now.
    pub(crate) fn record_request(&self, start: Moment, bad: Option<String>) {
        let end = self.now();
        let mut records = self.lock_records();
        if records.requests.len() < REQUESTS_MAX {
            records.requests.push(RequestRecord { start, end, bad });
        }
    }

    /// Records a request that was not sent.
    pub(crate) fn record_not_sent(&self) {
        self.lock_records().not_sent += 1;
    }

    /// Records a new session and returns its number.
    pub(crate) fn open_session(&self) -> usize {
        let mut records = self.lock_records();
        records.sessions.push(SessionRecord::default());
        records.sessions.len() - 1
    }

    /// Records that this release served the session.
    pub(crate) fn record_session_release(&self, number: usize, release: String) {
        if let Some(session) = self.lock_records().sessions.get_mut(number) {
            session.releases.insert(release);
        }
    }

    /// Records that the client ended the session.
    pub(crate) fn record_session_closed(&self, number: usize) {
        let now = self.now();
        if let Some(session) = self.lock_records().sessions.get_mut(number) {
            session.closed = Some(now);
        }
    }

    /// Records that the server lost the session.
    pub(crate) fn record_session_broken(&self, number: usize) {
        let now = self.now();
        if let Some(session) = self.lock_records().sessions.get_mut(number) {
            session.broken.get_or_insert(now);
        }
    }

    pub(crate) fn report(&self, deployed: Moment) -> TrafficReport {
        let records = self.lock_records();
        let mut report = TrafficReport { not_sent: records.not_sent, ..TrafficReport::default() };
        for request in &records.requests {
            report.requests += 1;
            match &request.bad {
                Some(bad) => {
                    report.failed += 1;
                    if report.reasons.len() < REASONS_MAX || report.reasons.contains_key(bad) {
                        *report.reasons.entry(bad.clone()).or_default() += 1;
                    }
                }
                None if request.end >= deployed => {
                    report.slowest = report.slowest.max(request.end.since(request.start));
                }
                None => {}
            }
            let bad = request.bad.is_some() || request.end.since(request.start) >= LATE_AFTER;
            if bad && request.end >= deployed {
                let sent = request.start.max(deployed);
                report.first_bad = Some(report.first_bad.map_or(sent, |first| first.min(sent)));
                report.last_bad = report.last_bad.max(Some(request.end));
            }
        }
        for session in &records.sessions {
            let ended_at = session.closed.or(session.broken);
            if ended_at.is_some_and(|over| over < deployed) {
                continue;
            }
            if session.broken.is_some() {
                report.sessions.broken += 1;
            } else {
                report.sessions.kept += 1;
                report.sessions.migrated += u64::from(session.releases.len() > 1);
            }
        }
        report
    }

    /// What the live picture shows.
    pub(crate) fn counts(&self) -> LiveCounts {
        let records = self.lock_records();
        LiveCounts {
            requests: records.requests.len() as u64,
            failed: records.requests.iter().filter(|it| it.bad.is_some()).count() as u64,
            sessions: records.sessions.len() as u64,
            broken: records.sessions.iter().filter(|it| it.broken.is_some()).count() as u64,
        }
    }

    pub(crate) fn failures(&self) -> Vec<FailedRequest> {
        let records = self.lock_records();
        let failed = |it: &RequestRecord| {
            let reason = it.bad.clone()?;
            Some(FailedRequest { start: it.start, end: it.end, reason })
        };
        records.requests.iter().filter_map(failed).collect()
    }

    fn lock_records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_ended_before_the_deploy_do_not_count() {
        let statistics = Statistics::new(Clock::start(Moment(0)));
        let (early, kept, lost, migrated) = (
            statistics.open_session(),
            statistics.open_session(),
            statistics.open_session(),
            statistics.open_session(),
        );
        statistics.lock_records().sessions[early].closed = Some(Moment(5));
        statistics.record_session_release(kept, "v1".to_owned());
        statistics.record_session_broken(lost);
        statistics.record_session_release(migrated, "v1".to_owned());
        statistics.record_session_release(migrated, "v2".to_owned());
        statistics.record_session_closed(migrated);
        let report = statistics.report(Moment(10));
        assert_eq!(report.sessions, SessionCounts { kept: 2, migrated: 1, broken: 1 });
    }

    #[test]
    fn only_bad_responses_after_the_deploy_set_first_and_last() {
        let statistics = Statistics::new(Clock::start(Moment(0)));
        let seen = |start, end, bad: Option<&str>| RequestRecord {
            start: Moment(start),
            end: Moment(end),
            bad: bad.map(str::to_owned),
        };
        statistics.lock_records().requests = vec![
            seen(1, 2, Some("HTTP 500")),
            seen(5, 30, Some("HTTP 500")),
            seen(12, 20, Some("no response")),
            seen(7, 11, None),
        ];
        let report = statistics.report(Moment(10));
        assert_eq!((report.requests, report.failed), (4, 3));
        assert_eq!((report.first_bad, report.last_bad), (Some(Moment(10)), Some(Moment(30))));
        assert_eq!(report.slowest, Duration::from_millis(4));
        assert_eq!(report.reasons.get("HTTP 500"), Some(&2));
    }

    #[test]
    fn a_late_response_is_bad_but_not_failed() {
        let statistics = Statistics::new(Clock::start(Moment(0)));
        let seen = |start, end| RequestRecord { start: Moment(start), end: Moment(end), bad: None };
        statistics.lock_records().requests = vec![seen(0, 999), seen(0, 1_000), seen(500, 2_000)];
        let report = statistics.report(Moment(0));
        assert_eq!((report.requests, report.failed), (3, 0));
        assert_eq!((report.first_bad, report.last_bad), (Some(Moment(0)), Some(Moment(2_000))));
    }
}
