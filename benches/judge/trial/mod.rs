//! Bakes of the trial: users by name, arms by chance, request by request.

pub mod hold_out;
pub mod population;
pub mod scene;
pub mod scenes;
