//! Why a service is where it is, what it waits for, what would change that, and which settings decide.

mod bake;
mod points;
mod settings;

use crate::config::Service;
use crate::control::{Explanation, Status};
use crate::decide::{AfterBake, Phase, SteadyWatch};
use crate::model::{Finding, Release, format_seconds};
use crate::service::explain::bake::Bake;
use crate::service::explain::points::Points;
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// The explanation now.
    pub(super) fn explanation(&self) -> Explanation {
        let finding = self.machine.verdict(self.clock.now()).map(|it| it.finding);
        explain(&self.status(), self.watch().phase(), finding, &self.service)
    }
}

/// What explains a phase: the points of the phase, then what holds in every phase.
fn explain(
    status: &Status,
    phase: &Phase,
    finding: Option<Finding>,
    service: &Service,
) -> Explanation {
    let mut points = Points::default();
    match phase {
        Phase::Empty => {
            push_last(&mut points, status);
            points.push("next", format!("`rollbackd deploy {} VERSION`", status.service));
        }
        Phase::Steady { active, warm, watch } => {
            let warm = warm.as_ref();
            let after_bake = service.policy.after_bake;
            explain_steady(&mut points, status, SteadyRelease { active, warm, watch, after_bake });
        }
        Phase::Starting { .. } => explain_start(&mut points, status, service),
        Phase::Baking { active, warm, blocked, .. } => {
            let bake = Bake { status, active, warm: warm.as_ref(), blocked: *blocked, finding };
            bake.explain(&mut points, service);
        }
        _ => explain_switch(&mut points, status, phase),
    }
    explain_limits(&mut points, status, phase);
    Explanation {
        service: status.service.clone(),
        state: format!("{}: {}", status.phase, status.waits_for),
        points: points.0,
        settings: settings::values(status, phase, service),
    }
}

/// The release that has the traffic, and what happens if it fails.
struct SteadyRelease<'a> {
    active: &'a Release,
    warm: Option<&'a Release>,
    watch: &'a SteadyWatch,
    after_bake: AfterBake,
}

fn push_last(points: &mut Points, status: &Status) {
    let Some(last) = &status.last else { return };
    points.push("last", format!("{} ago: {}", format_seconds(last.since_s), last.text));
    if let Some(rule) = &last.rule {
        points.push("rule", rule);
    }
}

fn explain_steady(points: &mut Points, status: &Status, release: SteadyRelease<'_>) {
    let SteadyRelease { active, warm, watch, after_bake } = release;
    let service = &status.service;
    if let SteadyWatch::Breach { guard, .. } = watch {
        let found = status.verdict.as_deref().unwrap_or("it was in breach within the last minutes");
        points.push("in breach", format!("{active}, whose bake is over: {found}"));
        points.push("no rollback", guard.to_string());
    } else {
        points.push("nothing on trial", format!("{active} is accepted and has the traffic"));
    }
    push_last(points, status);
    let in_charge = status.releases.iter().find(|it| it.number == active.number);
    if in_charge.is_some_and(|it| it.recent_requests == Some(0)) {
        let text = match status.budget_requests {
            Some(0) => "no request was judged in the last hour".to_owned(),
            Some(hour) => format!("none judged in the last minute, {hour} in the last hour"),
            None => "no request was judged in the last minute".to_owned(),
        };
        points.push("no traffic", text);
    }
    let notice = match after_bake {
        AfterBake::Off => "no one is paged (after_bake = \"off\")",
        AfterBake::Page | AfterBake::Act => "the operator is paged",
    };
    let if_it_fails = match warm {
        Some(warm) if after_bake == AfterBake::Act => {
            format!("the traffic goes back to {warm} (after_bake = \"act\")")
        }
        Some(warm) => format!(
            "{notice}; no automatic rollback, its bake is over: `rollbackd rollback {service}` goes back to {warm}"
        ),
        None => format!("{notice}; a rollback is not possible: no previous release runs"),
    };
    points.push("if it fails now", if_it_fails);
    points.extend("next deploy", status.ramp.as_ref());
}

fn explain_start(points: &mut Points, status: &Status, service: &Service) {
    let starting = status.releases.iter().find(|it| it.role == "starting");
    let probe = starting.map_or("none yet", |it| it.probe.as_str());
    let ready = service.probe.ready_after;
    points.push(
        "why not accepted",
        format!("it has no traffic before {ready} good probes in a row; the last one: {probe}"),
    );
    let left = status.remaining_s.map(|left| format!(" in {}", format_seconds(left)));
    points.push(
        "if that fails",
        format!("the deploy fails{} and the traffic has not moved", left.unwrap_or_default()),
    );
    points.push("next", "then it gets the traffic, and the bake begins");
    points.extend("ramp", status.ramp.as_ref());
    points.push("to stop it", format!("`rollbackd rollback {}`", status.service));
}

/// The steps between two releases, forward and back.
fn explain_switch(points: &mut Points, status: &Status, phase: &Phase) {
    let next = match phase {
        Phase::Promoting { .. } => "the bake begins when the proxy confirms the route",
        Phase::Confirming(_) => "the traffic goes back if the previous release answers a probe",
        Phase::Reviving(_) => "the traffic goes back when the previous release answers again",
        Phase::Returning(_) => "open requests finish once the proxy confirms the route",
        Phase::Emptying(_) => "the rollback is complete when nothing is in flight",
        Phase::Recovering { .. } => "a second of good requests ends the rollback",
        _ => return,
    };
    let left = status.remaining_s.map(|left| format!(", within {}", format_seconds(left)));
    points.push("next", format!("{next}{}", left.unwrap_or_default()));
    let otherwise = match phase {
        Phase::Confirming(_) => "it is restarted",
        Phase::Reviving(_) => "the traffic stays, and an operator is paged",
        Phase::Emptying(_) => "what is still open is cut",
        Phase::Recovering { .. } => "an operator is paged; the traffic stays",
        _ => "it is tried again, and an operator is paged",
    };
    points.push("otherwise", otherwise);
}

/// Holds, quarantine, the limit of rollbacks, and what a person has to do.
fn explain_limits(points: &mut Points, status: &Status, phase: &Phase) {
    let service = &status.service;
    if let Some(hold) = status.hold.as_ref().filter(|_| !matches!(phase, Phase::Baking { .. })) {
        points.push("held", format!("{hold}; `rollbackd resume {service}` ends it"));
    }
    if !status.quarantine.is_empty() {
        let (verb, of_it) = match status.quarantine.len() {
            1 => ("was", "it"),
            _ => ("were", "one of them"),
        };
        let versions = status.quarantine.join(", ");
        points.push(
            "quarantine",
            format!("{versions} {verb} rolled back: a deploy of {of_it} needs --allow-quarantined"),
        );
    }
    if let Some(count) = status.rollbacks.as_ref().filter(|it| it.none_left_s.is_some()) {
        let left = format_seconds(count.none_left_s.unwrap_or_default());
        points.push(
            "no rollback left",
            format!("{} of {} in 24 h; the next one in {left}", count.today, count.limit),
        );
    }
    if let Some(error) = &status.error {
        points.push("error", error.clone());
    }
    if let Some(attention) = &status.attention {
        points.push("action needed", attention.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Response;
    use crate::model::{Guard, Moment, Severity};

    const REPLIES: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/control-replies.txt"));
    const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml.example"));

    fn status() -> Status {
        let line = REPLIES.lines().find_map(|line| line.strip_prefix("status  "));
        match serde_json::from_str(line.unwrap()).unwrap() {
            Response::Status(status) => Status { hold: None, attention: None, ..*status },
            other => panic!("{other:?}"),
        }
    }

    fn release(version: &str) -> Release {
        let json = format!("{{\"version\":\"{version}\",\"number\":7,\"slot\":\"green\"}}");
        serde_json::from_str(&json).unwrap()
    }

    fn baking(blocked: Option<Guard>) -> Phase {
        let (active, warm) = (release("v7"), Some(release("v6")));
        let (until, no_data_since, ramp) = (Moment(9), None, None);
        Phase::Baking { active, warm, until, blocked, no_data_since, ramp }
    }

    fn text(status: &Status, phase: &Phase, finding: Option<Finding>) -> String {
        let loaded = crate::config::parse("x", EXAMPLE).unwrap_or_else(|it| panic!("{it}"));
        let service = loaded.settings.services.get("weather").unwrap();
        let Explanation { points, settings, .. } = explain(status, phase, finding, service);
        let points = points.iter().map(|it| format!("{}: {}", it.topic, it.text));
        let settings = settings.iter().map(|it| format!("{} = {}", it.name, it.value));
        points.chain(settings).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_bake_says_what_it_waits_for_and_which_settings_decide() {
        let shown = text(&status(), &baking(None), Some(Finding::Undecided));
        for part in [
            "why not accepted: 318 requests are too few",
            "accepted: in 2.5 s, if no breach is found until then",
            "299 requests without a server fault, 318 so far",
            "evidence reaches 2000 (it is 2.5: availability, 62 of 318 requests bad)",
            "`rollbackd rollback weather` goes back to v6",
            "bake = \"30m\"",
            "objective = \"99.5%\"",
        ] {
            assert!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
        let held = Status { hold: Some("a migration".to_owned()), ..status() };
        let shown = text(&held, &baking(None), Some(Finding::Healthy));
        assert!(shown.contains("why not accepted: a hold stops the end of the bake: a migration"));
        assert!(shown.contains("rolled back: not while the hold lasts"), "{shown}");
    }

    #[test]
    fn every_finding_and_every_guard_has_its_reason() {
        for finding in [
            Finding::Undecided,
            Finding::Healthy,
            Finding::Breach(Severity::Down),
            Finding::SharedOutage,
            Finding::Measuring,
            Finding::Unattributed,
            Finding::OneUser,
            Finding::Differs,
            Finding::NoData,
        ] {
            let shown = text(&status(), &baking(None), Some(finding));
            let why = shown.lines().next().unwrap();
            assert!(
                why.starts_with("why not accepted: ") && why.contains("v7") || why.contains("bake")
            );
        }
        for guard in [
            Guard::Observe,
            Guard::Hold,
            Guard::Freeze,
            Guard::Limit,
            Guard::SharedOutage,
            Guard::NoBaseline,
            Guard::OneUser,
            Guard::Differs,
            Guard::AfterBake,
            Guard::NoData,
            Guard::NoWarm,
            Guard::Ramp,
        ] {
            let shown = text(&status(), &baking(Some(guard)), Some(Finding::Healthy));
            let accepted = shown.lines().find_map(|it| it.strip_prefix("accepted: "));
            assert!(accepted.is_some_and(|it| !it.starts_with("in ")), "{guard:?}: {shown}");
            assert!(shown.contains("\nno rollback: "), "{guard:?}: {shown}");
            let waits = matches!(guard, Guard::SharedOutage | Guard::NoBaseline | Guard::Ramp);
            let back = shown.lines().find_map(|it| it.strip_prefix("rolled back: ")).unwrap();
            assert_eq!(!back.starts_with("when the evidence"), waits, "{guard:?}: {back}");
        }
    }

    #[test]
    fn a_steady_service_says_what_happened_and_what_is_in_quarantine() {
        let steady = Phase::Steady { active: release("v7"), warm: None, watch: SteadyWatch::On };
        let mut status = status();
        status.releases.iter_mut().for_each(|it| it.recent_requests = Some(0));
        status.budget_requests = Some(0);
        status.quarantine.push("v4".to_owned());
        let two = text(&status, &steady, None);
        assert!(two.contains("v4 were rolled back: a deploy of one of them needs"), "{two}");
        // Whether it is paged or rolled back is what decides here.
        assert!(two.contains("after_bake = \"page\""), "{two}");
        status.quarantine.pop();
        let shown = text(&status, &steady, None);
        for part in [
            "v7 is accepted",
            "last: 60.5 s ago: rolled back from v6 to v5",
            "no traffic: no request was judged in the last hour",
            "no previous release runs",
            "quarantine: v5 was rolled back",
            "no rollback left: 3 of 3 in 24 h; the next one in 2.0 h",
        ] {
            assert!(shown.contains(part), "no {part:?} in:\n{shown}");
        }
    }
}
