//! The configuration of the service was reloaded shortly before the trouble began.

use std::time::Duration;

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::incident::facts::Reload;
use crate::incident::rows::{started_at, verdict_of};
use crate::incident::utc::format_ms;
use crate::model::Moment;

/// How long before the onset a reload counts.
const NEAR: Duration = Duration::from_mins(30);
/// The onset is an estimate: a reload that seems to be this much later still counts.
const TOLERANCE: Duration = Duration::from_secs(5);
/// Settings that are named.
const KEYS_MAX: usize = 8;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let facts = context.facts;
    let (onset, deployed) = (verdict_of(facts)?.onset, started_at(facts));
    let near = |it: &&Reload| it.at <= onset + TOLERANCE && onset.since(it.at) <= NEAR;
    let counts = |it: &&Reload| !keys(it, deployed).is_empty();
    let reload = facts.reloads.iter().filter(near).filter(counts).max_by_key(|it| it.at)?;
    let keys = keys(reload, deployed);
    let before = u64::try_from(onset.since(reload.at).as_millis()).unwrap_or(u64::MAX);
    let title = match before {
        0 => "the configuration was reloaded when the trouble began".to_owned(),
        ms => format!("the configuration was reloaded {} before the onset", format_ms(ms)),
    };
    let mut named = keys.iter().take(KEYS_MAX).copied().collect::<Vec<_>>().join(", ");
    let surplus = keys.len().saturating_sub(KEYS_MAX);
    if surplus > 0 {
        named.push_str(&format!(" and {surplus} more"));
    }
    let observation = format!("it changed {named}");
    let action = format!("find whether {named} has a part in it, and test such a change alone");
    Some(Offer::new("reload", 62, title, observation).setting(named).action(action))
}

/// What a reload changed for the release on trial. What waits for the next deploy was in effect if that
/// deploy came later.
fn keys(reload: &Reload, deployed: Moment) -> Vec<&str> {
    let waited = reload.next_deploy.iter().filter(|_| reload.at <= deployed);
    reload.now.iter().chain(waited).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    fn reload(after_ms: i64, now: &[&str], next_deploy: &[&str]) -> Reload {
        let owned = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
        let at = Moment(example::BEGAN.checked_add_signed(after_ms).unwrap());
        Reload { at, now: owned(now), next_deploy: owned(next_deploy) }
    }

    fn offered(reloads: Vec<Reload>) -> Option<Offer> {
        let facts = crate::incident::Facts { reloads, ..example::facts() };
        super::super::check(rule, &facts)
    }

    #[test]
    fn a_reload_before_the_onset_is_a_factor_with_its_keys() {
        // The onset is 3 s after the deploy.
        let offer = offered(vec![reload(1_000, &["limits.body"], &["objective"])]).unwrap();
        assert_eq!(offer.title, "the configuration was reloaded 2.0 s before the onset");
        assert_eq!(offer.observation, "it changed limits.body");
        assert_eq!(offer.setting.as_deref(), Some("limits.body"));
        let offer = offered(vec![reload(-60_000, &[], &["env"])]).unwrap();
        assert_eq!(offer.observation, "it changed env");
    }

    #[test]
    fn what_came_later_or_waits_for_another_deploy_is_none() {
        for reloads in [
            vec![],
            vec![reload(9_000, &["limits.body"], &[])],
            vec![reload(1_000, &[], &["objective"])],
            vec![reload(-31 * 60_000, &["limits.body"], &[])],
        ] {
            assert_eq!(offered(reloads.clone()), None, "{reloads:?}");
        }
    }
}
