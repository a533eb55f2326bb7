//! What an operator has to do about a service, in one sentence.

use crate::decide::{Phase, SteadyWatch};
use crate::model::{Guard, Moment, Release};
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// What an operator has to do, most urgent first.
    pub(super) fn attention(&self, now: Moment) -> Option<String> {
        let name = &self.service.name;
        if self.recorder.write_error().is_some() {
            return Some(
                "the daemon makes no decisions until the timeline can be written".to_owned(),
            );
        }
        let phase = self.watch().phase();
        match phase {
            Phase::Baking { active, blocked: Some(guard), .. } if *guard != Guard::Observe => {
                return Some(breach_in_bake(name, active, *guard));
            }
            Phase::Steady { active, warm, watch: SteadyWatch::Breach { guard, .. } } => {
                return breach_after_bake(name, active, warm.as_ref(), *guard);
            }
            Phase::Returning(back) | Phase::Emptying(back) if 1 < back.tries => {
                return Some(format!("the rollback from {} does not complete", back.bad));
            }
            _ => (),
        }
        let outcome = self.recorder.last_outcome(now);
        let outcome = outcome.as_ref().map_or("", |it| it.kind.as_str());
        // The hold that follows from it is the smaller trouble.
        unfinished_rollback(name, phase.active(), outcome).or_else(|| {
            self.watch().hold().map(|_| {
                format!("automatic rollback is stopped: `rollbackd resume {name}` allows it again")
            })
        })
    }
}

/// What to do after a rollback that could not finish.
fn unfinished_rollback(service: &str, active: Option<&Release>, outcome: &str) -> Option<String> {
    let active = active?;
    match outcome {
        "abandoned" => Some(format!(
            "repair the service: the rollback was not possible, {active} keeps the traffic; \
             `rollbackd rollback {service}` tries again"
        )),
        "unrecovered" => Some(format!(
            "repair the service: {active} has the traffic and does not meet its objectives"
        )),
        _ => None,
    }
}

/// What to do about a bake that a guard holds.
fn breach_in_bake(service: &str, active: &Release, guard: Guard) -> String {
    match guard {
        Guard::NoData => format!("repair the metrics of {active}: the bake waits for them"),
        Guard::Ramp => format!(
            "the bake is over before the ramp: `rollbackd promote {service}` accepts {active}, \
             `rollbackd rollback {service}` goes back"
        ),
        Guard::SharedOutage | Guard::NoWarm => {
            format!("repair the service: {active} stays ({guard})")
        }
        Guard::OneUser => format!(
            "one user fails on {active}, others are served: look at its calls; \
             `rollbackd rollback {service}` goes back"
        ),
        Guard::Differs => format!(
            "{active} answers, but not as the release before: compare them; `rollbackd rollback \
             {service}` goes back"
        ),
        Guard::Observe
        | Guard::Hold
        | Guard::Freeze
        | Guard::Limit
        | Guard::NoBaseline
        | Guard::AfterBake => format!(
            "{active} is in breach and stays ({guard}): `rollbackd rollback {service}` moves the \
             traffic back"
        ),
    }
}

/// What an operator has to do about a breach after the bake.
fn breach_after_bake(
    service: &str,
    active: &Release,
    warm: Option<&Release>,
    guard: Guard,
) -> Option<String> {
    Some(match (guard, warm) {
        (Guard::Observe, _) => return None,
        (Guard::SharedOutage, _) | (_, None) => {
            format!("repair the service: {active} is in breach ({guard})")
        }
        (_, Some(warm)) => format!(
            "{active} is in breach ({guard}): `rollbackd rollback {service}` goes back to {warm}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_to_repair_what_no_rollback_could() {
        let json = r#"{"version": "v1", "number": 1, "slot": "blue"}"#;
        let active: Release = serde_json::from_str(json).unwrap();
        let todo = |outcome| unfinished_rollback("weather", Some(&active), outcome);
        let retry = todo("abandoned").unwrap();
        assert!(retry.contains("v1 keeps the traffic; `rollbackd rollback weather` tries again"));
        assert!(todo("unrecovered").unwrap().starts_with("repair the service: v1 has the traffic"));
        assert_eq!(todo("rolled_back"), None);
    }
}
