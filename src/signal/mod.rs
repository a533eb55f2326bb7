//! Observations of one release: a prober sends it probes, a scraper reads its counters, and a monitor
//! follows its unit. None of them judges what it observes.

mod command_probe;
mod contract_discovery;
mod counter_sum;
mod endpoint_client;
mod http_client;
mod http_probe;
mod mcp_probe;
mod metrics_page;
mod metrics_value;
mod probe;
mod rpc_client;
mod scrape;
mod tcp_probe;
mod text_format;
mod unit_monitor;

pub use endpoint_client::{EndpointClient, EndpointRequest};
pub use http_client::Endpoint;
pub use probe::Prober;
pub use scrape::Scraper;

pub use crate::signal::unit_monitor::{UnitEvent, UnitMonitor};
