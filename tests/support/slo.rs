//! The objectives of a simulated service.
#![expect(unreachable_pub, reason = "shared by tests")]

use rollbackd::judge::{Baseline, Indicator, Objective, SloSettings};

use crate::simulated_host::{policy, secs};

pub fn slo_settings() -> SloSettings {
    let objective =
        |about, budget, weight| Objective { indicator: about, error_budget: budget, weight };
    SloSettings {
        objectives: vec![
            objective(Indicator::Availability, 0.005, 0.6),
            objective(Indicator::Latency, 0.01, 0.2),
            objective(Indicator::Tools, 0.05, 0.2),
        ],
        max_false_rollback: 0.001,
        min_effect: 2.0,
        burst: secs(5),
        bake: policy().bake,
        failed_probes_max: 3,
        probe_interval: secs(1),
        baseline: Baseline::Probes,
        shadow_calls: true,
        scrape: None,
    }
}
