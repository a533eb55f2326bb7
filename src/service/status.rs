//! The status of one service.

use crate::control::{CallStatus, ReleaseStatus, RollbackCount, Status};
use crate::decide::{Phase, SteadyWatch};
use crate::judge::{Indicator, Judge};
use crate::model::{Counts, Moment, Release, ReleaseNumber};
use crate::record;
use crate::service::service_loop::ServiceLoop;
use crate::service::traffic_window::{TrafficWindow, to_f64};

/// Methods and tools that a status lists.
const CALLS_MAX: usize = 50;

impl ServiceLoop {
    /// The status now.
    pub(crate) fn status(&self) -> Status {
        let now = self.clock.now();
        let phase = self.watch().phase();
        let hold = self.watch().hold().map(|hold| match &hold.by {
            Some(by) => format!("{} ({by})", hold.because),
            None => format!("{} (set by the daemon)", hold.because),
        });
        let since = if *phase == Phase::Empty { now } else { self.watch().since() };
        let left = self.watch().deadline().map(|until| until.since(now).as_secs_f64());
        let warm = phase.warm().filter(|warm| phase.active() != Some(warm));
        // Without trouble after the bake, there is nothing to say about a verdict.
        let is_judged =
            !matches!(phase, Phase::Steady { watch: SteadyWatch::On | SteadyWatch::Off, .. });
        let verdict = self.machine.verdict(now).filter(|_| is_judged);
        Status {
            service: self.service.name.clone(),
            listen: self.service.listen.to_string(),
            mode: if self.service.policy.observe { "observe" } else { "act" }.to_owned(),
            deploy: self.watch().deploy(),
            phase: phase.name().to_owned(),
            waits_for: phase.to_string(),
            since_s: now.since(since).as_secs_f64(),
            remaining_s: left,
            hold,
            active: phase.active().map(|it| it.version.clone()),
            warm: warm.map(|it| it.version.clone()),
            releases: phase
                .required_releases()
                .into_iter()
                .map(|release| self.release_status(release))
                .collect(),
            objective: 1.0 - self.availability_budget(),
            evidence: self.judge().filter(|_| is_judged).map(Judge::evidence),
            finding: verdict.as_ref().map(|it| it.finding.to_string()),
            rule: verdict.as_ref().and_then(|it| it.basis.as_ref()).map(ToString::to_string),
            verdict: verdict.map(|it| format!("{}: {}", it.finding, it.because)),
            budget_remaining: self.budget_left(),
            rollbacks: Some(self.rollback_count(now)),
            awaits_deploy: self.awaits_deploy.iter().map(|it| (*it).to_owned()).collect(),
            awaits_restart: Vec::new(),
            quarantine: self.watch().quarantine().to_vec(),
            error: self.recorder.write_error().cloned(),
            mcp_paths: self.proxy.mcp_paths(),
            near_limits: self.proxy.near_bounds(),
            counters: self.recorder.totals(),
            journal_lost: record::lost_messages(),
            last: self.recorder.last_outcome(now),
            attention: self.attention(now),
            budget_requests: Some(self.hour().judged()),
            trial: self.trial_status(now),
            ramp: self.ramp_text(),
            // The daemon adds them: they are no part of the loop.
            incidents: None,
            channels: Vec::new(),
            notify_error: None,
        }
    }

    fn rollback_count(&self, now: Moment) -> RollbackCount {
        let none_left = self.watch().rollback_limit_ends_in(now);
        RollbackCount {
            today: self.watch().rollbacks_today(now),
            limit: self.service.policy.rollbacks_per_day_max,
            none_left_s: none_left.map(|wait| wait.as_secs_f64()),
        }
    }

    fn release_status(&self, release: &Release) -> ReleaseStatus {
        let number = release.number;
        let window = self.traffic.get(&number);
        let load = self.proxy.load(number, self.clock.now());
        ReleaseStatus {
            version: release.version.clone(),
            number,
            slot: release.slot.to_string(),
            role: self.role(release).to_owned(),
            probe: self
                .machine
                .probe(number)
                .map_or_else(|| "none yet".to_owned(), ToString::to_string),
            sessions: load.sessions,
            sse_sessions: self.proxy.sse_sessions(number),
            in_flight: load.in_flight,
            rate: window.map(TrafficWindow::rate).unwrap_or_default(),
            error_rate: window.map(TrafficWindow::error_rate).unwrap_or_default(),
            // Without a window there were no requests, and no share of them failed.
            recent_requests: Some(window.map_or(0, TrafficWindow::recent_requests)),
            counts: window.map(TrafficWindow::total).unwrap_or_default(),
            unjudged: self.proxy.unjudged(number),
            calls: self.calls(number),
        }
    }

    fn calls(&self, release: ReleaseNumber) -> Vec<CallStatus> {
        let calls =
            self.proxy.counts_by_call(release).into_iter().map(|((method, name), counts)| {
                CallStatus { method: method.into(), name: name.into(), counts }
            });
        let mut calls: Vec<_> = calls.collect();
        let faults = |it: &CallStatus| it.counts.server_fault + it.counts.tool_fault;
        calls.sort_by_key(|it| std::cmp::Reverse((faults(it), it.counts.total())));
        calls.truncate(CALLS_MAX);
        calls
    }

    fn role(&self, release: &Release) -> &'static str {
        let phase = self.watch().phase();
        let has_number =
            |other: Option<&Release>| other.is_some_and(|it| it.number == release.number);
        match phase {
            _ if phase.ramp().is_some() && phase.on_trial() == Some(release.number) => "trial",
            _ if has_number(phase.active()) => "active",
            _ if has_number(phase.warm()) => "warm",
            Phase::Starting { .. } | Phase::Promoting { .. } => "starting",
            _ => "leaving",
        }
    }

    /// The share of requests that may fail under the availability objective.
    fn availability_budget(&self) -> f64 {
        let objectives = self.service.slo.objectives.iter();
        let mut budgets = objectives.filter(|it| it.indicator == Indicator::Availability);
        budgets.next().map_or(0.0, |objective| objective.error_budget)
    }

    /// The requests of the last hour, at all releases that run.
    fn hour(&self) -> Counts {
        let hours = self.traffic.values().map(TrafficWindow::hour);
        hours.fold(Counts::default(), |sum, hour| sum + hour)
    }

    fn budget_left(&self) -> f64 {
        let hour = self.hour();
        self.availability_budget() * to_f64(hour.judged()) - to_f64(hour.server_fault)
    }
}
