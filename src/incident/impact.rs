//! What clients met, and what it would have been without the rollback.

use crate::incident::document::Impact;
use crate::incident::facts::Facts;
use crate::incident::traffic::bad;
use crate::incident::utc::format_ms;
use crate::model::{DrainCost, Finding, TimelineEvent, Verdict};

/// Computes the impact from the facts.
pub fn impact(facts: &Facts) -> Impact {
    if !facts.is_gathered() {
        return Impact { uncounted: true, ..Impact::default() };
    }
    if let Some(verdict) = facts.verdict_after_bake() {
        return impact_of_verdict(facts, verdict);
    }
    if facts.record_ends_early() {
        let verdict = facts.reaction().and_then(|(found, _)| found.event.verdict());
        let unknown = || Impact { uncounted: true, ..impact_of_rollback(facts) };
        return verdict.map_or_else(unknown, |it| impact_of_verdict(facts, it));
    }
    let trial = facts.trial();
    let counts = trial.map(|it| it.counts).unwrap_or_default();
    let control = facts.control().map(|it| it.counts).unwrap_or_default();
    // What the previous release failed is harm of this incident only if both failed.
    let shared = facts.both_failed().then_some(facts.control()).flatten();
    let failed = shared.map_or(counts, |it| counts + it.counts);
    let failing = || trial.into_iter().chain(shared);
    let first = failing().filter_map(|it| it.first_bad).min();
    let last = failing().filter_map(|it| it.last_bad).max();
    Impact {
        server_faults: failed.server_fault,
        tool_faults: failed.tool_fault,
        client_faults: failed.client_fault,
        requests: counts.total() + control.judged(),
        duration_ms: first.zip(last).map(|(first, last)| last.0.saturating_sub(first.0)),
        budget_burned: budget_burned(facts),
        counterfactual: counterfactual(facts),
        ..impact_of_rollback(facts)
    }
}

/// What is known without a record of the traffic, such as after the bake: the requests that the verdict is
/// about.
fn impact_of_verdict(facts: &Facts, verdict: &Verdict) -> Impact {
    let basis = verdict.basis.as_ref();
    let of_objective = basis.and_then(|it| it.objective.as_ref()).map(|it| (it.bad, it.requests));
    let of_ramp = || {
        let [control, trial] = basis?.arms.as_ref()?;
        Some((trial.failed, trial.requests + control.requests))
    };
    let numbers = of_objective.or_else(of_ramp);
    let (bad, requests) = numbers.unwrap_or_default();
    let is_rollback = facts.is_rollback();
    let share = bad as f64 / requests.max(1) as f64;
    let counterfactual = further_minutes(is_rollback, verdict.request_rate, share);
    Impact {
        server_faults: bad,
        requests,
        uncounted: numbers.is_none(),
        until_verdict: numbers.is_some(),
        counterfactual: counterfactual.filter(|_| 0 < bad),
        ..impact_of_rollback(facts)
    }
}

/// What the rollback cost.
fn impact_of_rollback(facts: &Facts) -> Impact {
    let cost = drain_cost(facts);
    Impact {
        sessions_moved: cost.map_or(0, |it| it.sessions_migrated + it.sessions_to_migrate),
        sessions_ended: cost.map_or(0, |it| it.sessions_ended),
        requests_interrupted: cost.map_or(0, |it| it.error_responses + it.responses_lost),
        ..Impact::default()
    }
}

/// What leaving the release cost.
pub(super) fn drain_cost(facts: &Facts) -> Option<&DrainCost> {
    facts.timeline.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Drained { cost } | TimelineEvent::Cut { cost } => Some(cost),
        _ => None,
    })
}

/// The faults as a multiple of what the objective allows in an hour at the rate of this bake.
fn budget_burned(facts: &Facts) -> Option<f64> {
    let traffic = facts.traffic.as_ref()?;
    let seconds = traffic.last.since(traffic.opened).as_secs_f64();
    let objective = facts.setting("objective")?.trim_end_matches('%').parse::<f64>().ok()?;
    let judged: u64 = traffic.releases.iter().map(|it| it.counts.judged()).sum();
    let allowed = (100.0 - objective) / 100.0 * judged as f64 / seconds.max(1.0) * 3_600.0;
    let burned = bad(&facts.trial()?.counts) as f64;
    (allowed > 0.0).then_some(burned / allowed)
}

fn counterfactual(facts: &Facts) -> Option<String> {
    // Where both fail, the rate is that of one release only.
    if facts.both_failed() {
        return None;
    }
    let verdict = facts.timeline.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Detected { trigger, .. } => trigger.verdict(),
        TimelineEvent::Blocked { verdict, .. }
            if !matches!(verdict.finding, Finding::OneUser | Finding::Differs) =>
        {
            Some(verdict)
        }
        _ => None,
    })?;
    let trial = facts.trial()?;
    let from = trial.first_bad?;
    let judged_after = trial
        .series
        .iter()
        .filter(|it| facts.traffic.as_ref().is_some_and(|t| t.opened.0 + it.ms + 1_000 > from.0))
        .fold((0, 0), |(n, k), it| (n + it.judged, k + it.bad));
    let (judged, failed) = judged_after;
    if judged == 0 {
        return None;
    }
    let share = failed as f64 / judged as f64;
    further_minutes(facts.is_rollback(), verdict.request_rate, share)
}

/// What each further minute costs, or would have cost without the rollback: `share` of the requests fail.
fn further_minutes(is_rollback: bool, request_rate: f64, share: f64) -> Option<String> {
    if request_rate <= 0.0 {
        return None;
    }
    let per_minute = (request_rate * 60.0 * share).round();
    let (begin, would_fail) = match is_rollback {
        true => ("Without the rollback: at", "would have failed"),
        // It goes on.
        false => ("At", "fails"),
    };
    Some(format!(
        "{begin} the measured rate ({:.1} requests a second, {:.1} % of them failing) each further \
         minute {would_fail} {per_minute:.0} requests; this assumes that traffic and fault stay the same",
        request_rate,
        100.0 * share
    ))
}

/// The impact in a few words: `62 of 358 requests failed within 5.4 s`.
pub(super) fn in_words(impact: &Impact) -> String {
    let failed = impact.server_faults + impact.tool_faults;
    let within =
        impact.duration_ms.map_or(String::new(), |ms| format!(" within {}", format_ms(ms)));
    let mut words = match (failed, impact.requests) {
        _ if impact.uncounted => "the requests of that time are not counted".to_owned(),
        (_, 0) => "no client request was served by the new release".to_owned(),
        (failed, all) if impact.until_verdict => {
            format!(
                "{failed} of {all} requests failed up to the verdict, later ones are not counted"
            )
        }
        (0, all) => format!("none of {all} requests failed"),
        (failed, all) => format!("{failed} of {all} requests failed{within}"),
    };
    if impact.requests_interrupted > 0 {
        words.push_str(&format!(", the rollback interrupted {}", impact.requests_interrupted));
    }
    if impact.client_faults > 0 {
        words.push_str(&format!(", {} calls were rejected", impact.client_faults));
    }
    words
}

/// What became of the sessions.
pub(super) fn sessions_in_words(impact: &Impact) -> String {
    match (impact.sessions_moved, impact.sessions_ended) {
        _ if impact.uncounted && impact.sessions_moved + impact.sessions_ended == 0 => {
            "no session is known to be lost".to_owned()
        }
        (0, 0) => "no session was lost".to_owned(),
        (moved, 0) => format!("no session was lost ({moved} moved)"),
        (0, ended) => format!("{ended} sessions ended"),
        (moved, ended) => format!("{ended} sessions ended, {moved} moved"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{HumanParts, build, example};
    use crate::model::{ArmNumbers, Basis, Guard, Moment, Rule, Trigger};

    #[test]
    fn the_impact_is_that_of_the_signals() {
        let facts = example::facts();
        let impact = impact(&facts);
        let words = "62 of 358 requests failed within 5.4 s, the rollback interrupted 1";
        assert_eq!(in_words(&impact), words);
        let only_interrupted = Impact { server_faults: 0, duration_ms: None, ..impact.clone() };
        let words = "none of 358 requests failed, the rollback interrupted 1";
        assert_eq!(in_words(&only_interrupted), words);
        assert_eq!(sessions_in_words(&impact), "no session was lost (9 moved)");
        assert_eq!((impact.requests_interrupted, impact.duration_ms), (1, Some(5_400)));
        let text = impact.counterfactual.unwrap();
        assert!(text.contains("each further minute would have failed 853 requests"), "{text}");
        let mut held = example::facts();
        example::block(&mut held, Guard::Hold);
        let text = super::impact(&held).counterfactual.unwrap();
        assert!(text.starts_with("At the measured rate") && text.contains("fails 853"), "{text}");
        example::fail_for_one_user(&mut held);
        assert_eq!(super::impact(&held).counterfactual, None);
        // A rollback ends what a guard held first.
        let mut ended = example::facts();
        let blocked = {
            let mut facts = example::facts();
            example::block(&mut facts, Guard::Hold);
            facts.timeline.pop().unwrap()
        };
        ended.timeline.insert(3, blocked);
        let text = super::impact(&ended).counterfactual.unwrap();
        assert!(text.starts_with("Without the rollback"), "{text}");
        let burned = impact.budget_burned.unwrap();
        // 62 / (0.005 * 358 / 9.617 s * 3600 s)
        assert!((burned - 0.0925).abs() < 0.001, "{burned}");
    }

    #[test]
    fn a_shared_outage_counts_what_both_releases_failed() {
        let mut facts = example::facts();
        example::block(&mut facts, Guard::SharedOutage);
        let control = &mut facts.traffic.as_mut().unwrap().releases[0];
        (control.counts.ok, control.counts.server_fault) = (10, 30);
        let first = Moment(example::BEGAN + 2_000);
        (control.first_bad, control.last_bad) = (Some(first), Some(first));
        let impact = impact(&facts);
        assert_eq!(in_words(&impact), "92 of 358 requests failed within 6.7 s");
        assert_eq!(impact.counterfactual, None);
    }

    #[test]
    fn a_record_that_ends_before_the_verdict_claims_nothing() {
        let mut facts = example::facts();
        facts.traffic.as_mut().unwrap().last = Moment(example::BEGAN + 3_000);
        example::trial(&mut facts).counts.server_fault = 0;
        assert_eq!(impact(&facts).requests_interrupted, 1);
        let words = in_words(&impact(&facts));
        assert!(words.starts_with("the requests of that time are not counted"), "{words}");
        if let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } =
            &mut facts.timeline[3].event
        {
            let arm = |users, requests, failed| ArmNumbers { users, requests, failed };
            let arms = Some([arm(21, 675, 0), arm(3, 64, 37)]);
            verdict.basis = Some(Box::new(Basis { arms, ..Basis::of(Rule::TrialUsers) }));
        }
        let words = in_words(&impact(&facts));
        assert!(words.starts_with("37 of 739 requests failed up to the verdict"), "{words}");
        let document = build(&example::incident(), &facts, HumanParts::default(), &[]);
        assert!(document.failures_unknown.is_some_and(|it| it.contains("ends before the verdict")));
        assert!(!document.went_well.iter().any(|it| it.contains("meanwhile")));
        assert_eq!(document.durations[0].part, "detect: burst, evidence and blame");
    }
}
