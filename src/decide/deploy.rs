//! A deploy command: its guards, what it replaces, and where its release runs.

use crate::decide::commands::{CommandRefused, refused};
use crate::decide::phase::Phase;
use crate::decide::watch::Watch;
use crate::model::{
    Actor, CarriedOver, Decision, DeployRequest, Guard, Moment, Release, ReleaseNumber, Slot,
    TimelineEvent, Waiver,
};

/// Releases that a quarantine remembers, newest last.
const QUARANTINE_MAX: usize = 100;

impl Watch {
    pub(super) fn on_deploy(
        &self,
        now: Moment,
        by: Actor,
        deploy: DeployRequest,
        probe_passed: impl Fn(ReleaseNumber) -> Option<bool>,
    ) -> Result<Decision, CommandRefused> {
        self.refuse_unchanged(&deploy)?;
        let mut guards = DeployGuards { deploy: &deploy, waived: Vec::new() };
        self.check_trial(&mut guards)?;
        self.check_net(now, &mut guards)?;
        let replaces_trial = self.replaces_trial(probe_passed)?;
        let mut base = Box::new(self.carried_over(now));
        if replaces_trial {
            self.replace_trial(&mut base);
        }
        let slot = self.free_slot(deploy.slot.as_ref(), base.active.as_ref())?;
        base.warm = self.phase.warm().filter(|_| !replaces_trial).cloned();
        base.warm.take_if(|warm| warm.slot == slot || Some(&*warm) == base.active.as_ref());
        let release = self.release_of(&deploy, slot);
        let identity = release.quarantine_key();
        if base.quarantine.contains(&identity) {
            guards.waive(Waiver::Quarantined, || {
                format!(
                    "{identity} was rolled back before and is in quarantine; --allow-quarantined \
                     deploys it again"
                )
            })?;
        }
        let traffic = match &base.active {
            Some(active) if replaces_trial => format!("traffic first back to {active}"),
            Some(active) => format!("{active} keeps the traffic"),
            None => "it is the first release".to_owned(),
        };
        let (waived, net) = (guards.describe(), self.net(now, &base));
        let links = match &deploy.outside_links {
            links if links.is_empty() => String::new(),
            links => format!("; {links}"),
        };
        let because = format!("{release} deployed by {by}; {traffic}{waived}{net}{links}");
        let fact = TimelineEvent::Deployed {
            release,
            frozen: deploy.freeze,
            forced: deploy.waives(Waiver::VersionDrop),
            waived: guards.waived,
            strict: deploy.strict,
            outside_links: deploy.outside_links,
            by,
            carried_over: base,
        };
        Ok(self.decide(now, fact, because))
    }

    fn release_of(&self, deploy: &DeployRequest, slot: Slot) -> Release {
        let DeployRequest { version, artifact, digest, environment, .. } = deploy.clone();
        let number = self.next_number();
        let same_version = self.phase.required_releases().iter().any(|it| it.version == version);
        Release { version, number, slot, artifact, digest, environment, same_version }
    }

    /// A trial that is not over ends by itself, or an operator waives it.
    fn check_trial(&self, guards: &mut DeployGuards<'_>) -> Result<(), CommandRefused> {
        if matches!(self.phase, Phase::Empty | Phase::Steady { .. }) {
            return Ok(());
        }
        let (phase, number) = (&self.phase, self.deploy);
        let busy = format!("deploy {number} is not over: {phase}");
        // A blocked bake does not end by itself, so a fix may replace it.
        match &self.phase {
            Phase::Baking { blocked, .. } if blocked.is_some() || self.is_held() => {
                guards.waive(Waiver::OverBreach, String::new).map_err(|_| {
                    CommandRefused::Busy(format!("{busy}; --over-breach deploys over it"))
                })
            }
            _ => Err(CommandRefused::Busy(busy)),
        }
    }

    /// A deploy without an automatic rollback needs the operator's word.
    fn check_net(&self, now: Moment, guards: &mut DeployGuards<'_>) -> Result<(), CommandRefused> {
        let limit = self.policy.rollbacks_per_day_max;
        // Without a release before it, and in observe mode, there is never an automatic rollback.
        let can_roll_back = !self.policy.observe && self.phase.active().is_some();
        let Some(left) = self.rollback_limit_ends_in(now).filter(|_| can_roll_back) else {
            return Ok(());
        };
        let left = left.as_secs_f64() / 3_600.0;
        guards.waive(Waiver::WithoutNet, || {
            format!(
                "rollback limit: {limit} of {limit} in 24 h, for {left:.1} h more; the new release \
                 would not be rolled back; --without-net deploys it, `rollbackd resume` resets the count"
            )
        })
    }

    /// What an operator has to know about the automatic rollback of this deploy.
    fn net(&self, now: Moment, base: &CarriedOver) -> String {
        let (today, limit) = (self.rollbacks_today(now), self.policy.rollbacks_per_day_max);
        let mut words = match today {
            0 => String::new(),
            today => format!("; rollbacks in 24 h: {today} of {limit}"),
        };
        if base.hold.is_some() {
            words.push_str("; held: no rollback before `rollbackd resume`");
        }
        words
    }

    /// A deploy of what is active already does nothing. An artifact that is not resolved yet is
    /// compared once it is. A release on trial is not accepted yet, so it is not active.
    fn refuse_unchanged(&self, deploy: &DeployRequest) -> Result<(), CommandRefused> {
        let Phase::Steady { active, .. } = &self.phase else { return Ok(()) };
        let is_same = active.version == deploy.version
            && active.artifact == deploy.artifact
            && active.digest == deploy.digest
            && active.environment == deploy.environment
            && deploy.slot.as_ref().is_none_or(|slot| *slot == active.slot);
        if !is_same || deploy.restart {
            return Ok(());
        }
        let (version, number) = (&active.version, active.number);
        let because = format!(
            "{version} (deploy {number}) is active already, nothing was done; --restart deploys it \
             again"
        );
        Err(CommandRefused::Unchanged(number, because))
    }

    /// Whether a deploy replaces the release on trial: the traffic goes back to the last accepted
    /// release first. A frozen trial cannot go back, and one whose warm release does not answer stays.
    fn replaces_trial(
        &self,
        probe_passed: impl Fn(ReleaseNumber) -> Option<bool>,
    ) -> Result<bool, CommandRefused> {
        match &self.phase {
            Phase::Baking { warm: Some(warm), .. } if !self.frozen => {
                let unknown = || CommandRefused::Busy(format!("{warm} was not probed yet; retry"));
                probe_passed(warm.number).ok_or_else(unknown)
            }
            _ => Ok(false),
        }
    }

    /// The last accepted release gets the traffic back. A trial in breach is quarantined, as after a
    /// rollback; one that was only held is not.
    fn replace_trial(&self, base: &mut CarriedOver) {
        let Phase::Baking { active, warm: Some(warm), blocked, .. } = &self.phase else { return };
        base.active = Some(warm.clone());
        let in_breach =
            matches!(blocked, Some(Guard::Hold | Guard::Limit | Guard::Freeze | Guard::Observe));
        if in_breach {
            quarantine(&mut base.quarantine, active, warm);
        }
    }

    /// A slot that the active release does not use. Another release loses its slot only if none is
    /// free.
    fn free_slot(
        &self,
        wanted: Option<&Slot>,
        active: Option<&Release>,
    ) -> Result<Slot, CommandRefused> {
        let used = active.map(|active| &active.slot);
        let running = self.phase.required_releases();
        let slots = &self.policy.slots;
        match wanted {
            Some(slot) if Some(slot) == used => Err(CommandRefused::Refused(format!(
                "slot {slot} has the traffic, or gets it back; name another one"
            ))),
            Some(slot) if slots.contains(slot) => Ok(slot.clone()),
            Some(slot) => {
                let known: Vec<_> = slots.iter().map(ToString::to_string).collect();
                Err(CommandRefused::Refused(format!(
                    "no slot {slot}; there are {}",
                    known.join(", ")
                )))
            }
            None => slots
                .iter()
                .find(|slot| !running.iter().any(|it| it.slot == **slot))
                .or_else(|| slots.iter().find(|slot| Some(*slot) != used))
                .cloned()
                .ok_or_else(|| refused("no free slot")),
        }
    }
}

/// Remembers a release that has to go, and never the one that gets the traffic.
pub(super) fn quarantine(known: &mut Vec<String>, bad: &Release, target: &Release) {
    let (bad, target) = (bad.quarantine_key(), target.quarantine_key());
    known.retain(|it| *it != bad && *it != target);
    if bad != target {
        known.push(bad);
    }
    let over = known.len().saturating_sub(QUARANTINE_MAX);
    known.drain(..over);
}

/// The guards of one deploy, and which of them its options had to waive.
struct DeployGuards<'a> {
    deploy: &'a DeployRequest,
    waived: Vec<Waiver>,
}

impl DeployGuards<'_> {
    /// A guard blocks the deploy, unless the operator waives it.
    fn waive(
        &mut self,
        waiver: Waiver,
        why: impl FnOnce() -> String,
    ) -> Result<(), CommandRefused> {
        if !self.deploy.waives(waiver) {
            return Err(CommandRefused::Waivable(waiver, why()));
        }
        self.waived.push(waiver);
        Ok(())
    }

    /// Which options the deploy needed.
    fn describe(&self) -> String {
        let needed: Vec<_> = self.waived.iter().map(|waiver| waiver.option()).collect();
        match needed.is_empty() {
            true => String::new(),
            false => format!("; needed {}", needed.join(", ")),
        }
    }
}
