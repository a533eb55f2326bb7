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
    /// Why the last delivery failed, if it did.
    last_error: Option<String>,
    /// Since when its deliveries fail.
    failing: Option<Moment>,
    /// Since when its secret cannot be used, and why.
    unusable: Option<(Moment, String)>,
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
    /// Why its secret cannot be used, or else why the last delivery failed.
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
        self.change(|state| {
            state.delivered += 1;
            (state.in_a_row, state.last_error) = (0, None);
            (state.failing, state.unusable) = (None, None);
        })
    }

    /// Its secret cannot be used: the first page would be the first to show it.
    pub(super) fn on_unusable(&mut self, now: Moment, because: &str) -> Change {
        self.change(|state| {
            let since = state.unusable.take().map_or(now, |(since, _)| since);
            state.unusable = Some((since, because.to_owned()));
        })
    }

    /// Its secret can be used. Deliveries that fail are another matter.
    pub(super) fn on_usable(&mut self) -> Change {
        self.change(|state| state.unusable = None)
    }

    pub(super) fn on_failed(&mut self, now: Moment, because: &str, is_final: bool) -> Change {
        self.change(|state| {
            state.failed += 1;
            state.in_a_row += 1;
            state.last_error = Some(because.to_owned());
            if is_final || state.in_a_row >= FAILURES_TOLERATED {
                state.failing.get_or_insert(now);
            }
        })
    }

    fn change(&mut self, apply: impl FnOnce(&mut Self)) -> Change {
        let failed_before = self.failing_since().is_some();
        apply(self);
        match (failed_before, self.failing_since().is_some()) {
            (false, true) => Change::BeganToFail,
            (true, false) => Change::WorksAgain,
            _ => Change::None,
        }
    }

    fn failing_since(&self) -> Option<Moment> {
        let unusable = self.unusable.as_ref().map(|(since, _)| *since);
        self.failing.into_iter().chain(unusable).min()
    }

    pub(super) fn report(&self, name: &str, channel_type: &str, waiting: usize) -> ChannelReport {
        ChannelReport {
            name: name.to_owned(),
            channel_type: channel_type.to_owned(),
            waiting: waiting as u64,
            delivered: self.delivered,
            failed: self.failed,
            failing_since: self.failing_since(),
            error: self.unusable.as_ref().map(|(_, why)| why.clone()).or(self.last_error.clone()),
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
    fn a_channel_with_two_troubles_works_again_after_both() {
        for unusable_first in [false, true] {
            let mut state = ChannelState::default();
            let mut change = |unusable| match unusable {
                true => state.on_unusable(Moment(3), "no such file"),
                false => state.on_failed(Moment(3), "404", true),
            };
            assert_eq!(change(unusable_first), Change::BeganToFail);
            assert_eq!(change(!unusable_first), Change::None);
            assert_eq!(state.on_usable(), Change::None, "it still answers 404");
            assert_eq!(state.report("chat", "slack", 0).error.as_deref(), Some("404"));
            assert_eq!(state.on_accepted(), Change::WorksAgain);
        }
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
