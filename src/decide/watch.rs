//! The state of one service, and what every decision shares.

use std::time::Duration;

use crate::decide::after_bake::AfterBake;
use crate::decide::phase::Phase;
use crate::decide::ramp::{RampSettings, RampShares, RampSteps};
use crate::decide::ramp_choice::AUTO_SHARES_PPM;
use crate::model::{
    CarriedOver, Decision, Effect, Hold, Moment, RampChoice, ReleaseNumber, Slot, Ticket,
    TimelineEvent,
};

/// The operator's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Decide and record, but never roll back.
    pub observe: bool,
    /// How long a new release may take to become ready.
    pub start_timeout: Duration,
    /// How long a new release is watched while the old one stays warm.
    pub bake: Duration,
    /// How long requests in flight may take to finish.
    pub drain_timeout: Duration,
    /// From the verdict to the end of the drain; a retry may follow it.
    pub rollback_timeout: Duration,
    /// How long the warm release may take to answer before a rollback.
    pub target_check_timeout: Duration,
    /// How long to wait for the proxy before a retry; doubles each time.
    pub retry_interval: Duration,
    /// After how many tries the operator is paged.
    pub page_after_tries: u32,
    /// How long to wait for recovery before the operator is paged.
    pub recovery_timeout: Duration,
    /// Automatic rollbacks in 24 hours; beyond them the operator is paged instead.
    pub rollbacks_per_day_max: usize,
    /// What breaking a session costs, in failed requests.
    pub session_cost: f64,
    /// What happens about a breach after the bake.
    pub after_bake: AfterBake,
    /// How a new release gets its users.
    pub ramp: RampSettings,
    /// The slots, in the order in which they are filled.
    pub slots: Vec<Slot>,
}

/// One service and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    pub(super) policy: Policy,
    pub(super) phase: Phase,
    pub(super) since: Moment,
    pub(super) carried_over: CarriedOver,
    pub(super) deploy: ReleaseNumber,
    pub(super) frozen: bool,
    pub(super) forced: bool,
    pub(super) strict: bool,
    /// The ramp that the newest deploy chose, once its release was ready.
    pub(super) ramp_choice: Option<RampChoice>,
    pub(super) ticket: Ticket,
    /// How long the daemon did not run before the timeline was read.
    pub(super) downtime: Duration,
    /// When the last hold ended: what was seen before is no evidence.
    pub(super) evidence_since: Option<Moment>,
}

impl Watch {
    /// A service without a deploy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            phase: Phase::Empty,
            since: Moment(0),
            carried_over: CarriedOver::default(),
            deploy: ReleaseNumber(0),
            frozen: false,
            forced: false,
            strict: false,
            ramp_choice: None,
            ticket: Ticket(0),
            downtime: Duration::ZERO,
            evidence_since: None,
        }
    }

    /// The current phase.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// When the phase began.
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The hold on it, if there is one.
    pub fn hold(&self) -> Option<&Hold> {
        self.carried_over.hold.as_ref()
    }

    /// Identities of releases that were rolled back and need `--allow-quarantined`.
    pub fn quarantine(&self) -> &[String] {
        &self.carried_over.quarantine
    }

    /// The newest deploy.
    pub fn deploy(&self) -> ReleaseNumber {
        self.deploy
    }

    /// The ramp of the newest deploy, once its release was ready beside another one.
    pub fn ramp_choice(&self) -> Option<&RampChoice> {
        self.ramp_choice.as_ref()
    }

    /// The steps of the newest deploy: those that it chose, whatever the configuration says by now.
    pub fn ramp_steps(&self) -> RampSteps<'_> {
        let settings = &self.policy.ramp;
        let shares_ppm: &[u32] = match (&self.ramp_choice, &settings.shares) {
            (Some(choice), _) => &choice.shares_ppm,
            // The ramp of a daemon that did not record its shares.
            (None, RampShares::Listed(shares_ppm)) => shares_ppm,
            (None, RampShares::Auto) => &AUTO_SHARES_PPM,
        };
        RampSteps { shares_ppm, control_min: settings.control_min }
    }

    /// Whether the release that has the traffic got it by a ramp.
    pub fn is_ramped(&self) -> bool {
        self.carried_over.ramped
    }

    /// The ticket of the newest effects; an answer to an older one is refused.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When the last hold ended, if one did: evidence counts from then on.
    pub fn evidence_since(&self) -> Option<Moment> {
        self.evidence_since
    }

    /// How long this release took to become ready at its deploy, if that is known.
    pub fn ready_after(&self, number: ReleaseNumber) -> Option<Duration> {
        let mut known = self.carried_over.ready_ms.iter().rev();
        known.find(|(known, _)| *known == number).map(|(_, ms)| Duration::from_millis(*ms))
    }

    /// The daemon did not run for `gap`, until now. A deadline that runs moves by that: the
    /// release was not watched.
    pub fn on_pause(&self, now: Moment, gap: Duration) -> Option<Decision> {
        let has_deadline = self.phase.deadline().is_some();
        // One that is recorded late, because the disk was full, may belong to the phase before.
        let is_of_this_phase = gap <= now.since(self.since);
        if !is_of_this_phase || (!has_deadline && !matches!(self.phase, Phase::Baking { .. })) {
            return None;
        }
        let seconds = gap.as_secs_f64();
        let because = format!(
            "the daemon stood still for {seconds:.1} s (pause of the host, or overload); deadlines move"
        );
        Some(self.decide(now, TimelineEvent::Paused { ms: millis(gap) }, because))
    }

    /// When to send [`crate::model::Event::DeadlinePassed`].
    pub fn deadline(&self) -> Option<Moment> {
        self.phase
            .deadline()
            .filter(|_| !(self.is_held() && matches!(self.phase, Phase::Baking { .. })))
    }

    /// Takes new settings. A running bake takes the new length; other deadlines that run stay.
    pub fn set_policy(&mut self, policy: Policy) {
        if let Phase::Baking { warm: Some(_), until, .. } = &mut self.phase {
            let begun = until.0.saturating_sub(millis(self.policy.bake));
            *until = Moment(begun.saturating_add(millis(policy.bake)));
        }
        self.policy = policy;
    }

    /// The first decision after a restart: it repeats the effects of the phase.
    pub fn restored(&self, now: Moment, truncated_bytes: u64) -> Decision {
        self.restored_by("rollbackd started", now, truncated_bytes)
    }

    /// The same; `source` begins a sentence.
    pub fn restored_by(&self, source: &str, now: Moment, truncated_bytes: u64) -> Decision {
        let cut = if truncated_bytes > 0 {
            format!("; truncated an incomplete last line of {truncated_bytes} bytes")
        } else {
            String::new()
        };
        let because = format!("{source} and read the timeline: {}{cut}", self.phase);
        let unobserved_ms = u64::try_from(self.downtime.as_millis()).ok();
        self.decide(now, TimelineEvent::Restored { truncated_bytes, unobserved_ms }, because)
    }

    pub(super) fn is_held(&self) -> bool {
        self.carried_over.hold.is_some()
    }

    /// A decision: the event, and the effects of the phase that it leads to.
    pub(super) fn decide(&self, now: Moment, fact: TimelineEvent, because: String) -> Decision {
        let mut after = self.clone();
        after.apply(now, &fact);
        let still_required = after.phase.required_releases();
        let replaced_in_place = matches!(fact, TimelineEvent::Replaced { .. });
        let previously_required = self.phase.required_releases().into_iter().cloned();
        // First, so that a slot is free before the next release starts in it.
        let mut effects: Vec<_> = previously_required
            .filter(|old| !still_required.iter().any(|new| new.number == old.number))
            .map(if replaced_in_place { Effect::Detach } else { Effect::Retire })
            .collect();
        // A release that has the traffic stops once another one has it.
        let had_traffic = self.phase.active().filter(|_| !replaced_in_place);
        let last = effects.extract_if(
            ..,
            |effect| matches!(effect, Effect::Retire(release) if Some(&*release) == had_traffic),
        );
        let last: Vec<_> = last.collect();
        if after.ticket != self.ticket {
            effects.extend(after.phase.effects());
        }
        let start = effects.iter().position(|effect| matches!(effect, Effect::Start(_)));
        let at = start.unwrap_or(effects.len());
        effects.splice(at..at, last);
        Decision { because, event: fact, effects }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
