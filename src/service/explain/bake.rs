//! Why the release on trial is not accepted yet, and what ends its bake.

use crate::config::{Service, availability};
use crate::control::Status;
use crate::judge::detectability::requests_to_verify;
use crate::model::{Evidence, Finding, Guard, Release, format_evidence, format_seconds};
use crate::service::explain::points::Points;

/// A bake, and what is known of it.
pub(super) struct Bake<'a> {
    pub(super) status: &'a Status,
    pub(super) active: &'a Release,
    pub(super) warm: Option<&'a Release>,
    pub(super) blocked: Option<Guard>,
    pub(super) finding: Option<Finding>,
}

impl Bake<'_> {
    pub(super) fn explain(&self, points: &mut Points, service: &Service) {
        points.push("why not accepted", self.why_not_accepted());
        if let Some(rule) = &self.status.rule {
            points.push("rule", rule);
        }
        points.push("accepted", self.accepted_when());
        self.explain_evidence(points, service);
        if let Some(trial) = &self.status.trial {
            let percent = (1e6 * trial.share).round() / 1e4;
            let missing = trial.missing.as_deref().unwrap_or("nothing is missing");
            points.push(
                "ramp",
                format!("step {} of {}, {percent} % of the users: {missing}", trial.step, trial.of),
            );
        }
        points.extend("chosen ramp", self.status.ramp.as_ref());
        if let Some(guard) = self.blocked {
            points.push("no rollback", self.explain_guard(guard));
        }
        let (service, active) = (&self.status.service, self.active);
        match self.warm {
            Some(warm) => points.push(
                "by a person",
                format!(
                    "`rollbackd promote {service}` accepts {active} now, `rollbackd rollback \
                     {service}` goes back to {warm}"
                ),
            ),
            None => points.push("to go back", "there is no previous release"),
        }
    }

    fn why_not_accepted(&self) -> String {
        let active = self.active;
        let judged = self.status.evidence.as_ref().map_or(0, |evidence| evidence.judged);
        if let Some(hold) = &self.status.hold {
            return format!("a hold stops the end of the bake: {hold}");
        }
        match self.finding {
            Some(Finding::Healthy) => {
                format!("the bake is not over; {active} meets its objectives so far")
            }
            Some(Finding::Undecided) if judged == 0 => {
                format!("no request was judged yet; only probes say that {active} answers")
            }
            Some(Finding::Undecided) => {
                format!("{judged} requests are too few to say that {active} is good")
            }
            Some(Finding::Measuring) => {
                format!("{active} misses an objective; the comparison with the previous one runs")
            }
            Some(Finding::SharedOutage) => {
                format!("{active} and the previous release fail alike: it is not the deploy")
            }
            Some(Finding::Unattributed) => {
                format!("{active} misses an objective, and there is nothing to compare it with")
            }
            Some(Finding::OneUser) => {
                format!("one user fails on {active} and others are served; the bake goes on")
            }
            Some(Finding::Differs) => format!(
                "{active} answers, but not as the release before; at the end of the bake it is \
                 accepted (unverified)"
            ),
            Some(Finding::NoData) => format!("the counters of {active} cannot be read"),
            Some(finding @ Finding::Breach(_)) => format!("{active} is {finding}"),
            None => format!("the judge of {active} has not started yet"),
        }
    }

    fn accepted_when(&self) -> String {
        if self.status.hold.is_some() {
            let service = &self.status.service;
            return format!(
                "after `rollbackd resume {service}`, which starts the evidence again, and the bake"
            );
        }
        match (self.blocked, self.status.remaining_s) {
            (Some(Guard::Ramp), _) => "by a person: the bake is over before the ramp".to_owned(),
            (Some(Guard::NoData), _) => {
                "when the counters can be read again; that time is added to the bake".to_owned()
            }
            (Some(_), _) => "not while the breach lasts".to_owned(),
            (None, Some(left)) if 0.0 < left => {
                format!("in {}, if no breach is found until then", format_seconds(left))
            }
            (None, _) => "with the next verdict that finds no breach".to_owned(),
        }
    }

    fn explain_evidence(&self, points: &mut Points, service: &Service) {
        let Some(evidence) = &self.status.evidence else { return };
        let needed = availability(service).map(|it| requests_to_verify(it, service.slo.min_effect));
        if let (Some(needed), Some(Finding::Undecided)) = (needed, self.finding) {
            points.push(
                "verified",
                format!(
                    "with {needed} requests without a server fault, {} so far; with fewer it is \
                     accepted (unverified)",
                    evidence.judged
                ),
            );
        }
        if self.warm.is_some() {
            points.push("rolled back", self.rolled_back_when(evidence, service.policy.observe));
        }
    }

    fn rolled_back_when(&self, evidence: &Evidence, observe: bool) -> String {
        if self.status.hold.is_some() {
            return "not while the hold lasts, only by a person".to_owned();
        }
        if observe {
            return "never: mode = \"observe\" only records".to_owned();
        }
        // More evidence changes nothing here.
        match self.blocked {
            Some(Guard::SharedOutage) => return "not while both releases fail".to_owned(),
            Some(Guard::NoBaseline) => return "not while nothing compares the releases".to_owned(),
            Some(Guard::Ramp) => return "only by a person: the bake is over".to_owned(),
            _ => (),
        }
        let Evidence { objective, e_value, threshold, judged, bad } = evidence;
        let now = match judged {
            0 => "no request was judged yet".to_owned(),
            _ => format!(
                "it is {}: {objective}, {bad} of {judged} requests bad",
                format_evidence(*e_value)
            ),
        };
        let active = self.active;
        format!(
            "when the evidence reaches {threshold:.0} ({now}), or when {active} ends or fails its probes"
        )
    }

    fn explain_guard(&self, guard: Guard) -> String {
        let service = &self.status.service;
        match guard {
            Guard::Observe => "mode = \"observe\" only records; write mode = \"act\"".to_owned(),
            Guard::Hold => format!("a hold; `rollbackd resume {service}` ends it"),
            Guard::Freeze => {
                format!("deployed with --freeze; `rollbackd resume {service}` ends it")
            }
            Guard::Limit => format!(
                "rollbacks_per_day is reached; `rollbackd resume {service}` resets the count"
            ),
            Guard::SharedOutage => "both releases fail: going back would not help".to_owned(),
            Guard::NoBaseline => {
                "baseline = \"required\", and no traffic reaches the previous release".to_owned()
            }
            Guard::NoData => "missing data is neither good nor bad: repair the metrics".to_owned(),
            Guard::NoWarm => "there is no previous release".to_owned(),
            Guard::OneUser => "one user fails and others are served".to_owned(),
            Guard::Differs => "its answers differ, and its requests do not fail; `shape` and \
                               `slowdown` say what follows"
                .to_owned(),
            Guard::AfterBake => "the bake is over: a person decides".to_owned(),
            Guard::Ramp => "most users have not met the release: a person decides".to_owned(),
        }
    }
}
