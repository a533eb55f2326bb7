use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};

use crate::config::Address;
use crate::mcp::Said;
use crate::signal::http_client;
use crate::signal::http_client::{ProbeError, shorten};

/// Bytes of one answer, all events of its stream together.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an error's body that are read for its JSON-RPC error.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// JSON-RPC over HTTP POST, one message at a time.
#[derive(Debug)]
pub(super) struct RpcClient {
    client: Client,
    url: Url,
    last_id: u64,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct RpcResult {
    pub(super) result: Value,
    /// The session that the server opened with it.
    pub(super) session_id: Option<HeaderValue>,
}

impl RpcClient {
    pub(super) fn new(address: &Address, path: &str, timeout: Duration) -> Result<Self, String> {
        let client = http_client::client_for(address, timeout)?;
        Ok(Self { client, url: http_client::url_for(address, path)?, last_id: 0 })
    }

    /// Sends a request and reads until its answer.
    pub(super) async fn call(
        &mut self,
        method: &str,
        params: Value,
        headers: HeaderMap,
    ) -> Result<RpcResult, ProbeError> {
        self.last_id += 1;
        let id = self.last_id;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut response = self.post(&message, headers).await?;
        if response.status().as_u16() == 202 {
            return Err(ProbeError::Other(format!("status 202 without an answer to {method}")));
        }
        let session = response.headers().get("mcp-session-id").cloned();
        let result = if is_event_stream(&response) {
            result_from_stream(&mut response, id).await?
        } else {
            let body = http_client::read_body(&mut response, RESPONSE_BYTES_MAX).await?;
            match_response(&body, id)?.ok_or_else(|| wrong_id(&body, id))?
        };
        Ok(RpcResult { result, session_id: session })
    }

    /// Sends a notification.
    pub(super) async fn notify(&self, method: &str, headers: HeaderMap) -> Result<(), ProbeError> {
        self.post(&json!({"jsonrpc": "2.0", "method": method}), headers).await.map(drop)
    }

    /// Ends a session. A server may refuse it; that is its right.
    pub(super) async fn delete_session(&self, headers: HeaderMap) {
        let _ = self.client.delete(self.url.clone()).headers(headers).send().await;
    }

    async fn post(&self, message: &Value, headers: HeaderMap) -> Result<Response, ProbeError> {
        let request = self.client.post(self.url.clone()).headers(headers);
        let mut response = request
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(message.to_string())
            .send()
            .await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(error_from_response(&mut response).await)
        }
    }
}

async fn error_from_response(response: &mut Response) -> ProbeError {
    let status = response.status().as_u16();
    // An error page may be long, cut off or no JSON: the status alone says enough.
    let body = if is_event_stream(response) {
        Vec::new()
    } else {
        http_client::read_body(response, ERROR_BODY_MAX).await.unwrap_or_default()
    };
    ProbeError::Status { status, said: Said::of(&body) }
}

fn is_event_stream(response: &Response) -> bool {
    response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Reads events until the one that answers; the rest of the stream is not waited for.
async fn result_from_stream(response: &mut Response, id: u64) -> Result<Value, ProbeError> {
    let mut events = SseDataReader::default();
    let mut read = 0;
    while let Some(chunk) = response.chunk().await? {
        read += chunk.len();
        if read > RESPONSE_BYTES_MAX {
            return Err(ProbeError::Other(format!(
                "{} KiB without an answer",
                RESPONSE_BYTES_MAX / 1024
            )));
        }
        for data in events.push(&chunk) {
            if let Some(result) = match_response(&data, id)? {
                return Ok(result);
            }
        }
    }
    Err(ProbeError::Other("the stream ended without an answer".into()))
}

/// The result in a message; `None` when the message does not answer this request.
fn match_response(message: &[u8], id: u64) -> Result<Option<Value>, ProbeError> {
    let mut message: Value = serde_json::from_slice(message)
        .map_err(|error| ProbeError::Other(format!("the answer is no JSON: {error}")))?;
    let answers = message.get("id").and_then(Value::as_u64) == Some(id);
    if let Some(error) = message.get("error").filter(|error| error.is_object()) {
        // An error that can not name its request is still the answer to the only one.
        if answers || message.get("id").is_none_or(Value::is_null) {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
            let said = error.get("message").and_then(Value::as_str).unwrap_or_default();
            return Err(ProbeError::RpcError { code, message: said.to_owned() });
        }
    }
    Ok(message.get_mut("result").filter(|_| answers).map(Value::take))
}

fn wrong_id(body: &[u8], id: u64) -> ProbeError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let theirs = value.get("id").map_or_else(|| "none".to_owned(), Value::to_string);
    ProbeError::Other(format!("an answer with id {} to the request with id {id}", shorten(&theirs)))
}

/// Takes the data of whole events out of a stream of bytes.
#[derive(Debug, Default)]
struct SseDataReader {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl SseDataReader {
    fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.take_line(line.trim_ascii_end()));
            }
        }
        events
    }

    fn take_line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        if line.is_empty() {
            // An event without data only carries an id or a retry.
            return Some(std::mem::take(&mut self.data))
                .filter(|data| !data.trim_ascii().is_empty());
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(data);
            self.data.push(b'\n');
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::SseDataReader;

    #[test]
    fn events_are_put_together_from_any_cut() {
        let stream =
            b"id: 1\ndata:\n\n: hello\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata: 2\n\ndata: 3\n";
        for cut in 1..stream.len() {
            let mut events = SseDataReader::default();
            let whole: Vec<_> = stream.chunks(cut).flat_map(|chunk| events.push(chunk)).collect();
            assert_eq!(whole, [b" {\"a\":\n 1}\n".to_vec(), b" 2\n".to_vec()], "cut {cut}");
        }
    }
}
