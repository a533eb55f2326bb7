//! Shows a rollback from end to end, on this machine, with real processes and real clients.

mod fault;
pub mod load;
pub mod server;

pub use fault::Fault;
