//! How each release serves, by its last seconds: a session that was left on the warm release moves to
//! the active one when the warm one fails and the active one serves well.

use std::collections::{BTreeMap, VecDeque};

use crate::model::{Counts, Observation, ReleaseNumber, Signal};

/// The blocks of 250 ms that count: ten seconds.
const BLOCKS: usize = 40;
/// Fewer judged requests say nothing.
const REQUESTS_MIN: u64 = 6;

/// What was seen of the releases lately.
#[derive(Debug, Default)]
pub(super) struct ReleaseHealth {
    releases: BTreeMap<ReleaseNumber, Recent>,
    /// The release that sessions leave because it fails.
    left: Option<ReleaseNumber>,
    /// The release whose failure was reported, until it is calm: its sessions may leave it in several
    /// steps, while the active one serves well.
    reported: Option<ReleaseNumber>,
    /// Blocks since the warm release last failed.
    calm_blocks: usize,
}

#[derive(Debug, Default)]
struct Recent {
    blocks: VecDeque<Counts>,
    /// Probes that failed in a row; `None` before the first probe.
    failed_probes: Option<u32>,
    /// Whether its process exited, and no probe has passed since.
    exited: bool,
}

impl ReleaseHealth {
    /// Takes a signal.
    pub(super) fn observe(&mut self, signal: &Signal) {
        let recent = self.releases.entry(signal.release).or_default();
        match &signal.observation {
            Observation::Block(_, counts) => {
                if recent.blocks.len() == BLOCKS {
                    recent.blocks.pop_front();
                }
                recent.blocks.push_back(*counts);
            }
            Observation::Probe(result) if result.is_ok() => {
                (recent.failed_probes, recent.exited) = (Some(0), false);
            }
            Observation::Probe(_) => {
                let before = recent.failed_probes.unwrap_or_default();
                recent.failed_probes = Some(before.saturating_add(1));
            }
            Observation::Exited(_) => recent.exited = true,
            _ => (),
        }
    }

    /// Decides at the end of a block whether sessions leave the warm release. Returns the reason when
    /// they begin to, once for each failure. From `failed_probes_max` failed probes in a row it is down.
    pub(super) fn end_block(
        &mut self,
        warm: Option<ReleaseNumber>,
        active: Option<ReleaseNumber>,
        failed_probes_max: u32,
    ) -> Option<String> {
        let required = [warm, active];
        self.releases.retain(|number, _| required.contains(&Some(*number)));
        let serves_well = |it: &Recent| it.serves_well();
        let target = active.and_then(|it| self.releases.get(&it)).is_some_and(serves_well);
        // No session moves onto a release that fails.
        self.left = self.left.filter(|it| Some(*it) == warm && target);
        self.reported = self.reported.filter(|it| Some(*it) == warm);
        let failure = self.releases.get(&warm?)?.failure(failed_probes_max);
        self.calm_blocks = if failure.is_some() { 0 } else { self.calm_blocks + 1 };
        if self.calm_blocks > BLOCKS {
            (self.left, self.reported) = (None, None);
        }
        let failure = failure.filter(|_| target && self.left.is_none())?;
        self.left = warm;
        let is_reported = std::mem::replace(&mut self.reported, warm).is_some();
        (!is_reported).then_some(failure)
    }

    /// The release that sessions leave because it fails.
    pub(super) fn left(&self) -> Option<ReleaseNumber> {
        self.left
    }
}

impl Recent {
    fn failure(&self, failed_probes_max: u32) -> Option<String> {
        let failed_probes = self.failed_probes.unwrap_or_default();
        let (bad, judged) = self.requests();
        if self.exited {
            Some("its process ended".to_owned())
        } else if failed_probes >= failed_probes_max {
            Some(format!("{failed_probes} probes failed in a row"))
        } else if judged >= REQUESTS_MIN && bad * 2 >= judged {
            Some(format!("{bad} of {judged} requests failed in 10 s"))
        } else {
            None
        }
    }

    fn serves_well(&self) -> bool {
        let (bad, judged) = self.requests();
        let few_fail = judged < REQUESTS_MIN || bad * 10 < judged;
        self.failed_probes == Some(0) && !self.exited && few_fail
    }

    /// Requests that failed, and all that were judged.
    fn requests(&self) -> (u64, u64) {
        let sum = |of: fn(&Counts) -> u64| self.blocks.iter().map(of).sum();
        (sum(|counts| counts.server_fault), sum(Counts::judged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProbeResult;

    const WARM: ReleaseNumber = ReleaseNumber(1);
    const ACTIVE: ReleaseNumber = ReleaseNumber(2);

    #[derive(Default)]
    struct Scene(ReleaseHealth);

    impl Scene {
        fn serving() -> Self {
            let mut scene = Self::default();
            scene.probe(WARM, true);
            scene.probe(ACTIVE, true);
            scene
        }

        fn see(&mut self, release: ReleaseNumber, observation: Observation) {
            self.0.observe(&Signal { release, observation });
        }

        fn probe(&mut self, release: ReleaseNumber, ok: bool) {
            let result = if ok { ProbeResult::Ok } else { ProbeResult::Refused };
            self.see(release, Observation::Probe(result));
        }

        fn requests(&mut self, release: ReleaseNumber, ok: u64, server_fault: u64) {
            let counts = Counts { ok, server_fault, ..Counts::default() };
            self.see(release, Observation::Block(250, counts));
        }

        fn end(&mut self) -> Option<String> {
            self.0.end_block(Some(WARM), Some(ACTIVE), 3)
        }
    }

    #[test]
    fn sessions_leave_a_warm_release_that_fails_for_one_that_serves() {
        let failures: [fn(&mut Scene); 3] = [
            |scene| (0..3).for_each(|_| scene.probe(WARM, false)),
            |scene| scene.see(WARM, Observation::Exited("signal 9".to_owned())),
            |scene| scene.requests(WARM, 3, 3),
        ];
        for fail in failures {
            let mut scene = Scene::serving();
            assert_eq!((scene.end(), scene.0.left()), (None, None));
            fail(&mut scene);
            assert!(scene.end().is_some());
            assert_eq!((scene.end(), scene.0.left()), (None, Some(WARM)), "reported once");
        }
    }

    #[test]
    fn a_little_trouble_moves_nothing() {
        let mut scene = Scene::serving();
        scene.probe(WARM, false);
        scene.probe(WARM, false);
        scene.requests(WARM, 0, 5);
        scene.requests(WARM, 10, 4);
        assert_eq!((scene.end(), scene.0.left()), (None, None));
    }

    #[test]
    fn nothing_moves_onto_a_release_that_fails() {
        let failures: [fn(&mut Scene); 3] = [
            |scene| scene.probe(ACTIVE, false),
            |scene| scene.see(ACTIVE, Observation::Exited("signal 9".to_owned())),
            |scene| scene.requests(ACTIVE, 8, 2),
        ];
        for fail in failures {
            let mut scene = Scene::serving();
            scene.see(WARM, Observation::Exited("signal 9".to_owned()));
            fail(&mut scene);
            assert_eq!((scene.end(), scene.0.left()), (None, None));
            // Also not those that still wait, when it begins to fail.
            let mut scene = Scene::serving();
            scene.see(WARM, Observation::Exited("signal 9".to_owned()));
            scene.end();
            fail(&mut scene);
            assert_eq!((scene.end(), scene.0.left()), (None, None));
        }
    }

    #[test]
    fn a_failure_is_reported_once_however_the_active_release_flaps() {
        let mut scene = Scene::serving();
        scene.see(WARM, Observation::Exited("signal 9".to_owned()));
        assert!(scene.end().is_some());
        for _ in 0..3 {
            scene.probe(ACTIVE, false);
            assert_eq!((scene.end(), scene.0.left()), (None, None));
            scene.probe(ACTIVE, true);
            assert_eq!((scene.end(), scene.0.left()), (None, Some(WARM)));
        }
        scene.probe(WARM, true);
        (0..=BLOCKS).for_each(|_| assert_eq!(scene.end(), None));
        scene.see(WARM, Observation::Exited("signal 9".to_owned()));
        assert!(scene.end().is_some(), "the next failure");
    }

    #[test]
    fn a_release_that_serves_again_for_a_while_keeps_its_sessions() {
        let mut scene = Scene::serving();
        scene.see(WARM, Observation::Exited("signal 9".to_owned()));
        assert!(scene.end().is_some());
        scene.probe(WARM, true);
        for _ in 0..BLOCKS {
            assert_eq!((scene.end(), scene.0.left()), (None, Some(WARM)));
        }
        assert_eq!((scene.end(), scene.0.left()), (None, None));
    }
}
