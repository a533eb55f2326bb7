//! The judge and its peers on one bench. Tests use parts of it.

pub mod bound;
pub mod cost;
pub mod delays;
pub mod dice;
pub mod mann_whitney;
pub mod nulls;
pub mod oracle;
pub mod ours;
pub mod peers;
pub mod stream;
pub mod work;
