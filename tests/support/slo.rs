//! The objectives of a simulated service.
#![expect(unreachable_pub, reason = "shared by tests")]

use rollbackd::judge::{Indicator, Objective, SloSettings};

use crate::simulated_host::policy;

pub fn slo_settings() -> SloSettings {
    let objective =
        |about, budget, weight| Objective { indicator: about, error_budget: budget, weight };
    SloSettings {
        objectives: vec![
            objective(Indicator::Availability, 0.005, 0.6),
            objective(Indicator::Latency, 0.01, 0.2),
            objective(Indicator::Tools, 0.05, 0.2),
        ],
        bake: policy().bake,
        ..SloSettings::default()
    }
}
