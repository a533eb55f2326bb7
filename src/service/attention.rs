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
        if self.watch().hold().is_some() {
            return Some(format!(
                "automatic rollback is stopped: `rollbackd resume {name}` allows it again"
            ));
        }
        let active = phase.active().map(ToString::to_string).unwrap_or_default();
        match self.recorder.last_outcome(now)?.kind.as_str() {
            "abandoned" => {
                Some(format!("{active} is in breach, and the rollback was not possible"))
            }
            "unrecovered" => {
                Some(format!("{active} has the traffic and does not meet its objectives"))
            }
            _ => None,
        }
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
