//! Bakes of the trial: users by name, arms by chance, request by request.

pub mod bake;
pub mod hold_out;
pub mod intervals;
pub mod peers;
pub mod population;
pub mod report;
pub mod scene;
pub mod scenes;
