//! The judge and its peers on one bench. Tests use parts of it.

pub mod confidence_bound;
pub mod cpu_cost;
pub mod detection_delay;
pub mod false_rollbacks;
pub mod mann_whitney;
pub mod oracle;
pub mod parallel;
pub mod peers;
pub mod rng;
pub mod rollbackd_judge;
pub mod traffic;
pub mod trial;
