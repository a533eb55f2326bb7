//! The release never became ready: it ended, did not answer, or answered its probes with something else.

use crate::incident::cause::was_aborted;
use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::model::TimelineEvent;

/// What a probe of a release that does not answer says. It may need more time.
const SILENT: [&str; 2] = ["connection refused", "no answer in time"];

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let failed = facts.find(|event| matches!(event, TimelineEvent::Failed))?;
    let refused = ["does not support", "--strict refuses it"];
    if was_aborted(&failed.because) || refused.iter().any(|it| failed.because.contains(it)) {
        return None;
    }
    let mut observation: String = failed.because.chars().take(240).collect();
    if let Some(group) = facts.output.iter().find(|it| it.is_error) {
        observation.push_str(&format!("; it printed \"{}\"", group.example));
    }
    let does_not_start = format!("{release} does not start");
    let (title, setting) = match failed.because.split_once("its last probe: ") {
        Some((_, result)) if SILENT.iter().all(|it| !result.starts_with(it)) => {
            (format!("{release} starts, and fails its probes"), Some("[service.NAME.probe]"))
        }
        None if !failed.because.contains("not ready") => (does_not_start, None),
        _ => (does_not_start, Some("start_timeout")),
    };
    let offer = Offer::new("does-not-start", 85, title, observation);
    Some(match setting {
        Some(setting) => offer.setting(setting),
        None => offer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn the_reason_of_the_failed_start_is_the_observation() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        facts.timeline =
            example::failed_start("v2 never became ready: exit code 1; v1 kept the traffic");
        let offer = rule(&facts).unwrap();
        assert!(offer.observation.contains("exit code 1"));
        assert_eq!(offer.setting, None, "no setting lets a process live that ends");
        facts.timeline =
            example::failed_start("v2 does not support 2025-03-26, which live sessions use");
        assert_eq!(rule(&facts), None);
    }

    #[test]
    fn a_release_that_answers_its_probes_otherwise_has_started() {
        let mut facts = example::facts();
        let mut offered = |probe: &str| {
            let because = "v2 never became ready: not ready within 60 s, its last probe: ";
            facts.timeline =
                example::failed_start(&format!("{because}{probe}; v1 kept the traffic"));
            let offer = rule(&facts).unwrap();
            (offer.title, offer.setting.unwrap())
        };
        let starts = ("v2 starts, and fails its probes".into(), "[service.NAME.probe]".into());
        assert_eq!(offered("status 401: a probe has no token; v1 passes its probes"), starts);
        let silent = ("v2 does not start".into(), "start_timeout".into());
        assert_eq!(offered("connection refused"), silent);
    }
}
