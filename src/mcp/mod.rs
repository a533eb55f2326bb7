//! The Model Context Protocol, without I/O: for the proxy, the probes and the demo.
//!
//! A request goes to the [`endpoint`]. A message has [`headers`] of one of the [`versions`], a
//! [`jsonrpc`] envelope and one of the [`methods`]. The proxy reads it as a [`message`] with [`scan`],
//! or with [`sse`] in a stream, while it passes; [`sse_splitter`] serves where events are rewritten, and [`lenient_json`] where whole
//! messages are read.
//! [`outcome`] and [`session_lost`] classify the response; [`request_check`] and [`large_body`] find
//! requests that no server has to answer well. [`messages`] are those that the proxy sends itself, and
//! [`client`] is for everything that rollbackd asks a server on its own: probes, migrations and shadow
//! calls.

pub(super) mod capabilities;
pub(super) mod client;
mod content;
pub(super) mod endpoint;
pub(super) mod error_text;
pub(super) mod headers;
pub(super) mod jsonrpc;
pub(super) mod large_body;
pub(super) mod lenient_json;
pub(super) mod message;
pub(super) mod messages;
pub(super) mod methods;
pub(super) mod outcome;
pub(super) mod request_check;
pub(super) mod scan;
mod scan_keys;
mod session_lost;
pub(super) mod sse;
pub(super) mod sse_endpoint;
pub(super) mod sse_splitter;
pub(super) mod ttl_clamp;
pub(super) mod versions;

pub use session_lost::{Answered, ResponseContent, session_lost};
