//! How a channel is doing, for the status, the metrics and the log.

use crate::model::Moment;

/// Failed deliveries in a row after which a channel counts as failing. A rejection counts at once.
const FAILURES_TOLERATED: u32 = 3;

/// The history of one channel since the daemon started.
#[derive(Debug, Clone, Default)]
pub(super) struct ChannelState {
    delivered: u64,
    failed: u64,
    in_a_row: u32,
    /// Since when it fails, and why.
    failing: Option<(Moment, String)>,
    /// Whether it fails because its secret cannot be used.
    is_unusable: bool,
    last_error: Option<String>,
}

/// How a channel is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelReport {
    /// Its name.
    pub name: String,
    /// Its type.
    pub channel_type: String,
    /// Notices that wait.
    pub waiting: u64,
    /// Deliveries that succeeded.
    pub delivered: u64,
    /// Deliveries that failed.
    pub failed: u64,
    /// Since when it fails.
    pub failing_since: Option<Moment>,
    /// Why the last delivery failed, if it did.
    pub error: Option<String>,
}

/// What changed with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    BeganToFail,
    WorksAgain,
}

impl ChannelState {
    pub(super) fn on_accepted(&mut self) -> Change {
        self.delivered += 1;
        self.in_a_row = 0;
        self.end_failure()
    }

    /// Its secret cannot be used: the first page would be the first to show it.
    pub(super) fn on_unusable(&mut self, now: Moment, because: &str) -> Change {
        self.is_unusable = true;
        self.last_error = Some(because.to_owned());
        if self.failing.is_some() {
            return Change::None;
        }
        self.failing = Some((now, because.to_owned()));
        Change::BeganToFail
    }

    /// Its secret can be used. Deliveries that failed for another reason are not forgotten.
    pub(super) fn on_usable(&mut self) -> Change {
        if self.is_unusable { self.end_failure() } else { Change::None }
    }

    fn end_failure(&mut self) -> Change {
        (self.is_unusable, self.last_error) = (false, None);
        if self.failing.take().is_some() { Change::WorksAgain } else { Change::None }
    }

    pub(super) fn on_failed(&mut self, now: Moment, because: &str, is_final: bool) -> Change {
        self.failed += 1;
        self.in_a_row += 1;
        self.last_error = Some(because.to_owned());
        let begins = is_final || self.in_a_row >= FAILURES_TOLERATED;
        if !begins || self.failing.is_some() {
            return Change::None;
        }
        self.failing = Some((now, because.to_owned()));
        Change::BeganToFail
    }

    pub(super) fn report(&self, name: &str, channel_type: &str, waiting: usize) -> ChannelReport {
        ChannelReport {
            name: name.to_owned(),
            channel_type: channel_type.to_owned(),
            waiting: waiting as u64,
            delivered: self.delivered,
            failed: self.failed,
            failing_since: self.failing.as_ref().map(|(since, _)| *since),
            error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_secret_is_an_alarm_before_the_first_delivery() {
        let mut state = ChannelState::default();
        assert_eq!(state.on_usable(), Change::None);
        assert_eq!(state.on_unusable(Moment(3), "no such file"), Change::BeganToFail);
        assert_eq!(state.on_unusable(Moment(4), "no such file"), Change::None);
        let report = state.report("chat", "slack", 0);
        assert_eq!((report.failed, report.failing_since), (0, Some(Moment(3))));
        assert_eq!(state.on_usable(), Change::WorksAgain);
        assert_eq!(state.on_failed(Moment(5), "404", true), Change::BeganToFail);
        assert_eq!(state.on_usable(), Change::None, "it still answers 404");
    }

    #[test]
    fn three_failures_in_a_row_or_one_rejection_are_an_alarm_once() {
        let mut state = ChannelState::default();
        let changes: Vec<_> =
            (0..5).map(|ms| state.on_failed(Moment(ms), "refused", false)).collect();
        let began = changes.iter().position(|it| *it == Change::BeganToFail);
        assert_eq!((began, changes.iter().filter(|it| **it != Change::None).count()), (Some(2), 1));
        let report = state.report("chat", "slack", 4);
        assert_eq!((report.failed, report.failing_since), (5, Some(Moment(2))));
        assert_eq!(state.on_accepted(), Change::WorksAgain);
        assert_eq!(state.on_accepted(), Change::None);
        assert_eq!(state.on_failed(Moment(9), "404", true), Change::BeganToFail);
    }
}
