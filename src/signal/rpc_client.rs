//! JSON-RPC over HTTP for the probes: sends one message at a time and reads its response.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Collected, Limited};
use reqwest::{Body, Client, StatusCode, Url};
use serde_json::Value;

use crate::content_coding;
use crate::mcp::client::{OutgoingMessage, ReadError, ResponseCollector};
use crate::mcp::{ResponseContent, headers, jsonrpc};
use crate::signal::http_client;
use crate::signal::http_client::{Endpoint, ProbeError, shorten};

/// The longest response, with all events of its stream.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// The longest body of an error status that is read for its JSON-RPC error.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// The body of a response.
type ReadBody = content_coding::PlainBody<Body>;

/// Sends messages to one endpoint.
#[derive(Debug)]
pub(super) struct RpcClient {
    http: Client,
    url: Url,
    last_id: u64,
}

/// A response without an error.
#[derive(Debug)]
pub(super) struct RpcResult {
    pub(super) result: Value,
    pub(super) headers: HeaderMap,
}

impl RpcClient {
    pub(super) fn new(endpoint: Endpoint<'_>, timeout: Duration) -> Result<Self, String> {
        let http = http_client::client_for(endpoint, timeout)?;
        Ok(Self { http, url: http_client::url_for(endpoint)?, last_id: 0 })
    }

    /// A client of any URL.
    pub(super) fn with_url(url: Url, timeout: Duration) -> Result<Self, String> {
        let http = http_client::client_builder(timeout)?.build();
        Ok(Self { http: http.map_err(|error| error.to_string())?, url, last_id: 0 })
    }

    /// Builds a request with the next id, sends it, and reads until its response.
    pub(super) async fn call(
        &mut self,
        build: impl FnOnce(&Value) -> OutgoingMessage,
    ) -> Result<RpcResult, ProbeError> {
        self.last_id += 1;
        let id = Value::from(self.last_id);
        let (head, mut response) = self.send(build(&id)).await?.into_parts();
        if head.status == StatusCode::ACCEPTED {
            return Err(ProbeError::Other("status 202 without a response to a request".into()));
        }
        let headers = head.headers;
        let mut collector = ResponseCollector::new(&headers, id.clone(), RESPONSE_BYTES_MAX);
        let message = loop {
            let Some(frame) = response.frame().await else {
                break collector.finish().map_err(|error| read_error(error, &id))?;
            };
            let Ok(data) = frame.map_err(ProbeError::from_body)?.into_data() else { continue };
            let found = collector.feed(&data).map_err(|error| read_error(error, &id))?;
            if let Some(message) = found {
                break message;
            }
        };
        match jsonrpc::into_result(message) {
            Ok(result) => Ok(RpcResult { result, headers }),
            Err(error) => Err(ProbeError::RpcError { code: error.code, message: error.message }),
        }
    }

    /// Sends a message that has no response but its status.
    pub(super) async fn notify(&self, message: OutgoingMessage) -> Result<(), ProbeError> {
        self.send(message).await.map(drop)
    }

    /// The response, decoded where the server compressed it unasked.
    async fn send(&self, message: OutgoingMessage) -> Result<http::Response<ReadBody>, ProbeError> {
        let OutgoingMessage { method, headers, body } = message;
        let request = self.http.request(method, self.url.clone()).headers(headers).body(body);
        let (mut head, body) = http::Response::<Body>::from(request.send().await?).into_parts();
        let body = content_coding::decode(head.status, &mut head.headers, body);
        let response = http::Response::from_parts(head, body);
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(error_from_response(response).await)
        }
    }
}

async fn error_from_response(response: http::Response<ReadBody>) -> ProbeError {
    let status = response.status().as_u16();
    // An error page may be long, truncated or not JSON: then the status alone is reported.
    let body = if headers::is_event_stream(response.headers()) {
        Bytes::new()
    } else {
        let body = Limited::new(response.into_body(), ERROR_BODY_MAX).collect().await;
        body.map(Collected::to_bytes).unwrap_or_default()
    };
    ProbeError::Status { status, content: ResponseContent::of(&body) }
}

fn read_error(error: ReadError, id: &Value) -> ProbeError {
    ProbeError::Other(match error {
        ReadError::TooLong { max } => format!("the response is longer than {} KiB", max / 1024),
        ReadError::NotJson(error) => format!("the response is not JSON: {error}"),
        ReadError::OtherId(other) => {
            format!("the response has id {}, the request has id {id}", shorten(&other))
        }
        ReadError::NoResponse => "the body ended without a response to the request".to_owned(),
    })
}
