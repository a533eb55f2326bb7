//! One request and its response, from the client's first byte to the last byte of the response.

pub(super) mod error_response;
pub(super) mod handler;
pub(super) mod header_check;
pub(super) mod host_check;
pub(super) mod id_rewrite;
pub(super) mod in_flight;
pub(super) mod pending;
pub(super) mod request_body;
pub(super) mod response;
pub(super) mod response_body;
pub(super) mod resumable_stream;
pub(super) mod subscription;
