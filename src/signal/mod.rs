//! The world, in: what a release answers when it is asked.
//!
//! A prober asks one release at one address and says what it saw; a scraper reads its counters.
//! Neither decides what that means.

mod command_probe;
mod contract_discovery;
mod http_client;
mod http_probe;
mod mcp_probe;
mod probe;
mod prometheus_text;
mod rpc_client;
mod scrape;
mod tcp_probe;
mod unit_monitor;

pub use probe::Prober;
pub use scrape::Scraper;

pub use crate::signal::unit_monitor::{UnitEvent, UnitMonitor};
