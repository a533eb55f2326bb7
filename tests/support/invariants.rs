//! What holds after every decision of a simulated host.

use std::collections::BTreeSet;
use std::time::Duration;

use rollbackd::decide::{AfterBake, Phase, Watch};
use rollbackd::model::{Effect, Guard, Release, TimelineEntry, TimelineEvent};

use super::{SimulatedHost, secs};

impl SimulatedHost {
    pub(super) fn check_decision(
        &mut self,
        before: &Watch,
        entry: &TimelineEntry,
        effects: &[Effect],
    ) {
        let now = self.now;
        match &entry.event {
            TimelineEvent::Deployed { frozen, .. } => {
                (self.frozen, self.automatic_rollbacks) = (*frozen, 0)
            }
            // The new release has the same address, so it already receives the traffic. Effects
            // that are still pending concern the replaced release.
            TimelineEvent::Replaced { release, .. } => {
                (self.frozen, self.automatic_rollbacks) = (false, 0);
                self.releases.newest_ticket = self.watch().ticket();
                self.releases.routed = self.releases.routed.map(|_| release.number);
            }
            // At the limit a resume resets the count.
            TimelineEvent::Resumed { .. } if before.rollback_limit_ends_in(now).is_some() => {
                self.automatic_rollback_times.clear();
            }
            TimelineEvent::Detected { trigger, .. } => {
                assert!(trigger.is_operator() || self.may_roll_back(before), "{}", entry.because);
                assert!(trigger.is_operator() || self.may_leave(before), "{}", entry.because);
                self.detected = Some((now, trigger.is_operator()));
            }
            TimelineEvent::Decided { .. } => {
                let (_, ordered) = self.detected.unwrap();
                if !ordered {
                    assert!(self.may_roll_back(before), "{}", entry.because);
                    self.automatic_rollbacks += 1;
                    assert_eq!(self.automatic_rollbacks, 1, "rolled back twice in one deploy");
                    self.automatic_rollback_times.push(now);
                }
            }
            _ => (),
        }
        self.check_bake(&entry.event, &entry.because);
        for effect in effects {
            let needed = |number| self.watch().phase().release(number).is_some();
            match effect {
                Effect::Retire(it) | Effect::Detach(it) => {
                    assert!(!needed(it.number), "{it} is retired but needed")
                }
                Effect::KeepRunning(it)
                | Effect::Start(it)
                | Effect::Route(it)
                | Effect::Cut(it) => {
                    assert!(needed(it.number), "{effect}: nothing needs it");
                }
                Effect::Assign(it, control, _) => {
                    assert!(needed(it.number) && needed(control.number), "{effect}");
                }
                Effect::Drain(it, _) | Effect::Probe(it) => assert!(needed(it.number), "{effect}"),
                Effect::Page(_) => (),
            }
        }
        // The daemon must report a switch only after the traffic moved.
        if let TimelineEvent::Switched { to } = &entry.event {
            let on_trial = self.releases.assigned.map(|(on_trial, _)| on_trial);
            assert!(
                [self.releases.routed, on_trial].contains(&Some(*to)),
                "switched, but the traffic is elsewhere"
            );
        }
    }

    /// A bake takes at least the configured time, without the time that had no data, unless an operator
    /// ends it.
    fn check_bake(&mut self, fact: &TimelineEvent, because: &str) {
        match fact {
            TimelineEvent::Switched { .. } | TimelineEvent::Replaced { .. } => {
                (self.bake_started, self.no_data_since) = (self.now, None);
                (self.no_data_total, self.hidden) = (Duration::ZERO, Duration::ZERO);
            }
            // A verdict needs data.
            TimelineEvent::Blocked { .. }
            | TimelineEvent::Detected { .. }
            | TimelineEvent::Cleared
            | TimelineEvent::Resumed { .. } => {
                self.no_data_total +=
                    self.no_data_since.map_or(Duration::ZERO, |since| self.now.since(since));
                self.no_data_since = None;
                if let TimelineEvent::Blocked { guard: Guard::NoData, .. } = fact {
                    self.no_data_since = Some(self.now);
                }
            }
            TimelineEvent::Accepted { .. }
                if self.watch().phase().warm().is_some() && !because.contains("promoted by") =>
            {
                assert_eq!(self.no_data_since, None, "accepted without data");
                let seen = self.now.since(self.bake_started) + self.hidden;
                let seen = seen.saturating_sub(self.no_data_total);
                assert!(self.policy.bake <= seen, "accepted after {seen:?} that were seen");
            }
            _ => (),
        }
    }

    /// Whether the daemon may roll back automatically.
    fn may_roll_back(&self, watch: &Watch) -> bool {
        let today = self
            .automatic_rollback_times
            .iter()
            .filter(|then| self.now.since(**then) < secs(24 * 3600))
            .count();
        let limit = today < self.policy.rollbacks_per_day_max;
        watch.hold().is_none() && !self.frozen && !self.policy.observe && limit
    }

    /// Whether a verdict may lead away from this phase: after the bake only where the operator says so, and
    /// never to a release that was rolled back.
    fn may_leave(&self, watch: &Watch) -> bool {
        let Phase::Steady { warm, .. } = watch.phase() else { return true };
        let good = |warm: &Release| !watch.quarantine().contains(&warm.quarantine_key());
        self.policy.after_bake == AfterBake::Act && warm.as_ref().is_some_and(good)
    }

    pub(super) fn check_releases(&self) {
        let phase = self.watch().phase();
        let needed = phase.required_releases();
        let slots: BTreeSet<_> = needed.iter().map(|release| &release.slot).collect();
        let numbers: BTreeSet<_> = needed.iter().map(|release| release.number).collect();
        assert_eq!(slots.len(), numbers.len(), "two releases in one slot: {needed:?}");
        for release in phase.required_releases() {
            assert!(
                !self.releases.retired.contains(&release.number),
                "{release} is gone, but {phase}"
            );
        }
        if let Some(routed) = self.releases.routed {
            assert!(phase.release(routed).is_some(), "traffic on {routed}, but {phase}");
        }
    }
}
