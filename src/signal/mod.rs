//! The world, in: what a release answers when it is asked.
//!
//! A prober asks one release at one address and says what it saw; a scraper reads its counters.
//! Neither decides what that means.

mod command;
mod contract;
mod exchange;
mod exposition;
mod http;
mod mcp;
mod probe;
mod rpc;
mod scrape;
mod tcp;
mod unit;

pub use probe::Prober;
pub use scrape::Scraper;
pub use unit::{UnitEvent, UnitMonitor};
