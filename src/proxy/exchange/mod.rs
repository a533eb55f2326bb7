//! One request and its response, from the client's first byte to the last byte of the response.

mod body_error;
mod cancellation;
pub(super) mod client_body;
mod client_messages;
mod cors;
mod error_response;
mod handler;
mod header_check;
pub(in crate::proxy) mod host_check;
mod id_rewrite;
mod in_flight;
pub(super) mod mcp_paths;
mod other_requests;
mod pace;
mod parsed_body;
mod pending;
mod public_url;
mod replay;
mod request_body;
mod response;
mod response_body;
mod resumable_stream;
mod send;
mod spliced_response;
pub(super) mod state;
mod subscription;
