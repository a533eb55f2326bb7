//! The world, in: what a release answers when it is asked.
//!
//! A prober asks one release at one address and says what it saw. It never decides what that means.

mod command;
mod contract;
mod exchange;
mod http;
mod mcp;
mod probe;
mod rpc;
mod tcp;

pub use probe::Prober;
