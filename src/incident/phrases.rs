//! Sentences about an incident: title, headline, summary.

use crate::incident::cause::{Cause, cause_of};
use crate::incident::document::Impact;
use crate::incident::facts::Facts;
use crate::incident::impact::{in_words, sessions_in_words};
use crate::incident::life::Incident;
use crate::incident::rows;
use crate::incident::text::clean_text;
use crate::incident::utc::{format_date, format_ms};
use crate::model::{Moment, TimelineEvent};

/// How long a review may take, when the headline names a day.
pub const REVIEW_DAYS: u64 = 3;

/// What happened, in a few words.
pub(super) fn title(facts: &Facts, incident: &Incident) -> String {
    let version = &incident.version;
    let previous = facts.previous_release();
    // The same version may have been deployed again, such as with another artifact.
    let (version, previous) = match previous {
        Some(it) if it.version == *version => {
            let of = |deploy| format!("{version} (deploy {deploy})");
            (of(incident.number), Some(of(it.number)))
        }
        _ => (version.clone(), previous.map(|it| it.version.clone())),
    };
    match (final_cause(incident), previous) {
        (Cause::Rollback, Some(previous)) => format!("{version} rolled back to {previous}"),
        (Cause::OrderedRollback, Some(previous)) => {
            format!("{version} rolled back to {previous} by an operator")
        }
        (cause, _) => format!("{version}: {}", cause.label()),
    }
}

/// The cause that tells how it stands: the last one if a person has to act on it, else the first one that
/// needs none. A rollback settles what a person was asked to do before it.
pub(super) fn final_cause(incident: &Incident) -> Cause {
    let causes = || incident.causes.iter().map(|(cause, ..)| *cause);
    let open = causes().next_back().filter(|it| it.needs_person());
    open.or(causes().find(|it| !it.needs_person())).unwrap_or(Cause::Rollback)
}

/// Service, what happened, who is affected, what the daemon did, whether a person is needed.
pub(super) fn headline(facts: &Facts, incident: &Incident, impact: &Impact) -> String {
    let time = switch_ms(facts).map_or(String::new(), |ms| format!(" in {}", format_ms(ms)));
    let what = format!("{}: {}{time}", incident.service, title(facts, incident));
    let harm = match facts.is_gathered() {
        true => {
            let goes_on = final_cause(incident).needs_person() && !facts.is_over();
            let is_open = goes_on && !impact.uncounted && !impact.until_verdict;
            let so_far = if is_open { " so far" } else { "" };
            format!("{}{so_far}, {}", in_words(impact), sessions_in_words(impact))
        }
        false => "the facts are being gathered".to_owned(),
    };
    format!("{what}, {harm}. {}", what_to_do(facts, incident))
}

/// Whether a person is needed, and by when.
fn what_to_do(facts: &Facts, incident: &Incident) -> String {
    let due = Moment(incident.opened.0 + REVIEW_DAYS * 24 * 60 * 60 * 1000);
    let (cause, service) = (final_cause(incident), &incident.service);
    if cause.needs_person() && facts.is_over() {
        return format!("It is over; review by {}.", format_date(due));
    }
    match cause {
        Cause::Rollback | Cause::OrderedRollback => {
            format!("Nothing to do tonight; review by {}.", format_date(due))
        }
        Cause::NeverReady => {
            format!("The traffic did not move; review by {}.", format_date(due))
        }
        Cause::GuardHeld => "A person is needed now: the bad release keeps the traffic.".to_owned(),
        Cause::AfterBake => match facts.previous_release() {
            Some(previous) => format!(
                "A person is needed now: it keeps the traffic. `rollbackd rollback {service}` goes back \
                 to {previous}."
            ),
            None => "A person is needed now: it keeps the traffic.".to_owned(),
        },
        Cause::OneUser => {
            "Nothing was rolled back: the others are served. A person has to look at \
                           the calls of that user."
                .to_owned()
        }
        Cause::DifferentAnswers => {
            "Nothing was rolled back: it answers, but not as the release before. A person has to compare \
             the answers."
                .to_owned()
        }
        Cause::RampIncomplete => format!(
            "A person decides: `rollbackd promote {service}` accepts it, `rollbackd rollback \
             {service}` goes back."
        ),
        Cause::SharedOutage => {
            "A person is needed now: both releases fail, so a rollback would not help.".to_owned()
        }
        Cause::RollbackIncomplete | Cause::ArtifactChanged => {
            "A person is needed now: the daemon cannot restore the service.".to_owned()
        }
    }
}

/// From the verdict to the switch.
pub(super) fn switch_ms(facts: &Facts) -> Option<u64> {
    let detected = facts.find(|event| matches!(event, TimelineEvent::Detected { .. }))?;
    let switched = facts.timeline.iter().find(|entry| {
        detected.seq < entry.seq && matches!(entry.event, TimelineEvent::Switched { .. })
    })?;
    Some(switched.since_deploy_ms.saturating_sub(detected.since_deploy_ms))
}

/// One paragraph for a reader outside of the team.
pub(super) fn summary(facts: &Facts, incident: &Incident, impact: &Impact) -> String {
    let (service, version) = (&incident.service, &incident.version);
    let mut sentences = vec![format!(
        "On {} release {version} of the service {service} was deployed.",
        format_date(incident.opened)
    )];
    for (cause, at, because) in &incident.causes {
        let because = clean_text(because, 200);
        let found = format!("{} ({because}).", cause.label());
        sentences.push(match facts.is_gathered() {
            true => {
                // An incident can be recorded later than what opened it, such as after a full disk.
                let event = facts.timeline.iter().find(|it| cause_of(it) == Some(*cause));
                let at = event.map_or(*at, |it| it.moment);
                let after = at.0.saturating_sub(rows::started_at(facts).0);
                format!("After {}: {found}", format_ms(after))
            }
            false => capital(&found),
        });
    }
    sentences.push(match facts.is_gathered() {
        true => format!("{}; {}.", capital(&in_words(impact)), sessions_in_words(impact)),
        false => "What clients met is not known yet: the facts are being gathered.".to_owned(),
    });
    let recovered = facts.find(|event| matches!(event, TimelineEvent::Recovered));
    if let Some((recovered, previous)) = recovered.zip(facts.previous_release()) {
        let after = format_ms(recovered.since_deploy_ms);
        sentences.push(format!("{previous} met its objectives again {after} after the deploy."));
    }
    if let Some(earlier) = incident.recurrence_of.first() {
        sentences.insert(0, format!("This happened before, in incident {earlier}."));
    }
    sentences.join(" ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}
