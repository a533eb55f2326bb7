//! The timeline of a post-mortem: events, milestones that are no events, notifications; and the parts of
//! the time to detect and to resolve.

use crate::incident::document::{Duration, TimelineRow};
use crate::incident::facts::Facts;
use crate::incident::life::Incident;
use crate::incident::text::clean_text;
use crate::incident::utc::format_time;
use crate::model::{Moment, Rule, TimelineEntry, TimelineEvent, Verdict};

/// A step of a rollback: its name, what would make it faster, and the event that ends it.
type Step = (&'static str, &'static str, fn(&TimelineEvent) -> bool);

/// Longest text of a row, in characters.
const TEXT_MAX: usize = 300;

/// All rows in the order of time.
pub(super) fn rows(facts: &Facts, incident: &Incident) -> Vec<TimelineRow> {
    // Without the timeline it is not known when the deploy began.
    if !facts.is_gathered() {
        return Vec::new();
    }
    let start = started_at(facts);
    let row = |at: Moment, kind: &str, text: String, is_milestone| TimelineRow {
        at: format_time(at),
        ms: i64::try_from(at.0).unwrap_or(i64::MAX) - i64::try_from(start.0).unwrap_or(0),
        kind: kind.to_owned(),
        text,
        is_milestone,
    };
    let mut rows: Vec<_> = facts
        .timeline
        .iter()
        // The record of the incident has these, also after the draft.
        .filter(|entry| {
            let kind = &entry.event;
            !matches!(kind, TimelineEvent::Notified { .. } | TimelineEvent::Acknowledged { .. })
        })
        .map(|entry| {
            let text = clean_text(&entry.because, TEXT_MAX);
            row(entry.moment, entry.event.kind(), text, is_milestone(&entry.event))
        })
        .collect();
    if let Some(verdict) = verdict_of(facts) {
        let text = "estimated begin of the trouble, by the evidence".to_owned();
        rows.push(row(verdict.onset, "onset", text, true));
    }
    if let Some(trial) = facts.trial() {
        let bad = [("first bad", trial.first_bad), ("last bad", trial.last_bad)];
        for (kind, at) in bad.into_iter().filter_map(|(kind, at)| Some((kind, at?))) {
            rows.push(row(at, kind, format!("{kind} answer to a client"), true));
        }
    }
    for (at, channel, _) in &incident.notified {
        rows.push(row(*at, "notified", format!("channel {channel} accepted a notification"), true));
    }
    if let Some((at, _)) = &incident.acknowledged {
        // Who did is in the record; the document is about the system.
        rows.push(row(*at, "acknowledged", "a person acknowledged the incident".to_owned(), true));
    }
    rows.sort_by_key(|row| row.ms);
    rows
}

/// When the deploy began.
pub(super) fn started_at(facts: &Facts) -> Moment {
    facts
        .timeline
        .first()
        .map_or(Moment(0), |first| Moment(first.moment.0.saturating_sub(first.since_deploy_ms)))
}

fn is_milestone(event: &TimelineEvent) -> bool {
    matches!(
        event,
        TimelineEvent::Deployed { .. }
            | TimelineEvent::Switched { .. }
            | TimelineEvent::Detected { .. }
            | TimelineEvent::Decided { .. }
            | TimelineEvent::Blocked { .. }
            | TimelineEvent::Abandoned
            | TimelineEvent::Drained { .. }
            | TimelineEvent::Cut { .. }
            | TimelineEvent::Recovered
            | TimelineEvent::Unrecovered
            | TimelineEvent::Failed
            | TimelineEvent::Accepted { .. }
    )
}

/// The first verdict against the release.
pub(super) fn verdict_of(facts: &Facts) -> Option<&Verdict> {
    facts.timeline.iter().find_map(|entry| entry.event.verdict())
}

/// The parts of the time to detect and to resolve.
pub(super) fn durations(facts: &Facts) -> Vec<Duration> {
    let first_after = |from: u64, fits: &dyn Fn(&TimelineEvent) -> bool| {
        facts.timeline.iter().find(|it| from <= it.seq && fits(&it.event))
    };
    let Some((found, rollback)) = facts.reaction() else { return Vec::new() };
    let mut parts = Vec::new();
    if let Some(verdict) = found.event.verdict() {
        parts.extend(detection_parts(facts, verdict, found));
    }
    if let Some(rollback) = rollback {
        let faster = "a guard that does not hold it back, or a person who decides sooner";
        let (from, to) = (found.moment, rollback.moment);
        parts.push(duration("resolve: held back until the rollback began", from, to, faster));
    }
    let mut last = rollback.unwrap_or(found);
    let steps: [Step; 4] = [
        ("check of the previous release", "a warm release that answers its probe", |it| {
            matches!(it, TimelineEvent::Decided { .. })
        }),
        ("switch", "nothing: it is one write of the routing table", |it| {
            matches!(it, TimelineEvent::Switched { .. })
        }),
        ("drain or cut", "a shorter drain_timeout, or a lower session_cost", |it| {
            matches!(it, TimelineEvent::Drained { .. } | TimelineEvent::Cut { .. })
        }),
        ("proof of recovery", "more traffic, or more frequent probes", |it| {
            matches!(it, TimelineEvent::Recovered | TimelineEvent::Unrecovered)
        }),
    ];
    for (part, faster, fits) in steps {
        let Some(next) = first_after(last.seq + 1, &fits) else { break };
        parts.push(duration(&format!("resolve: {part}"), last.moment, next.moment, faster));
        last = next;
    }
    parts
}

/// From the onset to the verdict: until the first bad answer, the burst that may be healthy, the evidence.
fn detection_parts(facts: &Facts, verdict: &Verdict, detected: &TimelineEntry) -> Vec<Duration> {
    let onset = verdict.onset;
    let rule = verdict.basis.as_ref().map(|it| it.rule);
    // Neither the burst nor the evidence of requests had a part in these.
    let seen_at_once = match rule {
        Some(Rule::FailedProbes) => {
            Some(("detect: probes", "more frequent probes, or fewer failures in a row"))
        }
        Some(Rule::CrashLoop) => Some(("detect: exits", "nothing: it is the second exit")),
        Some(Rule::Hang) => Some(("detect: requests without an answer", "more traffic")),
        _ => None,
    };
    if let Some((part, faster)) = seen_at_once {
        return vec![duration(part, onset, detected.moment, faster)];
    }
    let Some(first_bad) = facts.trial().and_then(|it| it.first_bad) else {
        let (part, faster) = match rule {
            Some(_) => ("detect: burst, evidence and blame", "a shorter burst, or more traffic"),
            None => ("detect: probes", "more frequent probes, or fewer failures in a row"),
        };
        return vec![duration(part, onset, detected.moment, faster)];
    };
    let first_bad = first_bad.min(detected.moment);
    let burst_ms = facts.setting("burst").and_then(parse_ms).unwrap_or(5_000);
    let burst_end = Moment(first_bad.0.saturating_add(burst_ms)).min(detected.moment);
    let faster = ["a shorter burst", "more traffic, or shadow calls on the previous release"];
    let mut parts = Vec::new();
    if onset < first_bad {
        parts.push(duration(
            "detect: until the first bad answer",
            onset,
            first_bad,
            "more traffic",
        ));
    }
    let [burst, evidence] = faster;
    parts.push(duration("detect: burst that could still be healthy", first_bad, burst_end, burst));
    parts.push(duration("detect: evidence and blame", burst_end, detected.moment, evidence));
    parts
}

fn duration(part: &str, from: Moment, to: Moment, faster: &str) -> Duration {
    Duration { part: part.to_owned(), ms: to.0.saturating_sub(from.0), faster: faster.to_owned() }
}

/// A time as the configuration prints it, such as `5s` or `1m30s`, in milliseconds.
fn parse_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::{Basis, Guard, Trigger};

    #[test]
    fn rows_are_in_order_and_name_what_is_no_event() {
        let rows = rows(&example::facts(), &Incident::default());
        let kinds: Vec<_> = rows.iter().map(|it| (it.ms, it.kind.as_str())).collect();
        assert_eq!(kinds.len(), 11);
        assert_eq!(
            kinds.get(3..6),
            Some(&[(3_000, "onset"), (3_250, "first bad"), (8_650, "last bad")][..])
        );
        assert_eq!(rows[0].at, "2023-11-14 22:13:20Z");
    }

    #[test]
    fn a_time_of_the_configuration_is_read() {
        let cases = [("5s", 5_000), ("1m30s", 90_000), ("1s500ms", 1_500), ("1h", 3_600_000)];
        for (text, ms) in cases {
            assert_eq!(parse_ms(text), Some(ms), "{text}");
        }
        for text in ["", "5", "s", "5x", "99999999999999999h"] {
            assert_eq!(parse_ms(text), None, "{text}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let facts = example::facts();
        let parts = durations(&facts);
        let sum: u64 = parts.iter().map(|it| it.ms).sum();
        assert_eq!(sum, 9_931 - 3_000, "from the onset to the recovery: {parts:?}");
        assert_eq!(parts.len(), 7);
    }

    #[test]
    fn what_waited_for_a_person_is_a_part_of_its_own() {
        let mut facts = example::facts();
        let mut held = example::facts();
        example::block(&mut held, Guard::Hold);
        facts.timeline.insert(3, held.timeline.pop().unwrap());
        for entry in facts.timeline.iter_mut().skip(4) {
            entry.seq += 1;
            (entry.moment.0, entry.since_deploy_ms) =
                (entry.moment.0 + 60_000, entry.since_deploy_ms + 60_000);
        }
        let parts = durations(&facts);
        let times: Vec<_> = parts.iter().map(|it| (it.part.as_str(), it.ms)).collect();
        assert!(
            times.contains(&("resolve: held back until the rollback began", 60_000)),
            "{times:?}"
        );
        assert!(times.contains(&("resolve: check of the previous release", 9)), "{times:?}");
        let sum: u64 = parts.iter().map(|it| it.ms).sum();
        assert_eq!(sum, 69_931 - 3_000);
    }

    #[test]
    fn what_the_probes_found_had_no_burst() {
        for (rule, part) in [
            (Rule::FailedProbes, "detect: probes"),
            (Rule::CrashLoop, "detect: exits"),
            (Rule::Hang, "detect: requests without an answer"),
        ] {
            let mut facts = example::facts();
            if let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } =
                &mut facts.timeline[3].event
            {
                verdict.basis = Some(Box::new(Basis::of(rule)));
            }
            let parts = durations(&facts);
            assert_eq!((parts[0].part.as_str(), parts[0].ms), (part, 5_681));
            assert!(parts[1].part.starts_with("resolve"), "{parts:?}");
        }
    }
}
