use std::time::Duration;

use crate::judge::{Baseline, Indicator, Judge, Objective, SloSettings};
use crate::model::{
    Finding, History, Moment, Observation, ProbeResult, ReleaseNumber, Severity, Signal,
};

#[test]
fn when_the_warm_release_answers_first_after_a_shared_outage_the_other_gets_a_fresh_look() {
    let objective =
        Objective { indicator: Indicator::Availability, error_budget: 0.005, weight: 1.0 };
    let limits = SloSettings {
        objectives: vec![objective],
        max_false_rollback: 1e-3,
        min_effect: 2.0,
        burst: Duration::from_secs(5),
        bake: Duration::from_secs(1800),
        failed_probes_max: 3,
        baseline: Baseline::Probes,
        shadow_calls: true,
        scrape: None,
    };
    let (new, warm) = (ReleaseNumber(2), ReleaseNumber(1));
    let mut judge = Judge::new(new, Some(warm), limits, History::default(), Moment(0));
    let mut probe = |at, release, reply| {
        judge.observe(Moment(at), &Signal { release, observation: Observation::Probe(reply) });
        judge.verdict(Moment(at)).finding
    };
    for at in 0..3 {
        probe(200 * at, warm, ProbeResult::Refused);
        probe(200 * at, new, ProbeResult::Refused);
    }
    assert_eq!(probe(700, new, ProbeResult::Refused), Finding::SharedOutage);
    assert_eq!(probe(800, warm, ProbeResult::Ok), Finding::Undecided);
    assert_eq!(probe(900, new, ProbeResult::Ok), Finding::Undecided);
    for at in [1_100, 1_300] {
        assert_eq!(probe(at, new, ProbeResult::Refused), Finding::Undecided);
    }
    assert_eq!(probe(1_500, new, ProbeResult::Refused), Finding::Breach(Severity::Down));
}
