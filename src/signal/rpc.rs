use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};

use super::exchange::{self, Fault, brief};
use crate::config::Address;
use crate::mcp::Said;

/// Bytes of one answer, all events of its stream together.
const ANSWER_MAX: usize = 1024 * 1024;

/// Bytes of an error's body that are read for its JSON-RPC error.
const ERROR_MAX: usize = 64 * 1024;

/// JSON-RPC over HTTP POST, one message at a time.
#[derive(Debug)]
pub(super) struct Wire {
    client: Client,
    url: Url,
    asked: u64,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Value,
    /// The session that the server opened with it.
    pub(super) session: Option<HeaderValue>,
}

impl Wire {
    pub(super) fn new(address: &Address, path: &str, timeout: Duration) -> Result<Self, String> {
        let client = exchange::client(address, timeout)?;
        Ok(Self { client, url: exchange::url(address, path)?, asked: 0 })
    }

    /// Sends a request and reads until its answer.
    pub(super) async fn call(
        &mut self,
        method: &str,
        params: Value,
        headers: HeaderMap,
    ) -> Result<Answer, Fault> {
        self.asked += 1;
        let id = self.asked;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let mut answer = self.post(&message, headers).await?;
        if answer.status().as_u16() == 202 {
            return Err(Fault::Wrong(format!("status 202 without an answer to {method}")));
        }
        let session = answer.headers().get("mcp-session-id").cloned();
        let result = if is_stream(&answer) {
            from_stream(&mut answer, id).await?
        } else {
            let body = exchange::body(&mut answer, ANSWER_MAX).await?;
            settle(&body, id)?.ok_or_else(|| other_id(&body, id))?
        };
        Ok(Answer { result, session })
    }

    /// Sends a notification.
    pub(super) async fn tell(&self, method: &str, headers: HeaderMap) -> Result<(), Fault> {
        self.post(&json!({"jsonrpc": "2.0", "method": method}), headers).await.map(drop)
    }

    /// Ends a session. A server may refuse it; that is its right.
    pub(super) async fn delete(&self, headers: HeaderMap) {
        let _ = self.client.delete(self.url.clone()).headers(headers).send().await;
    }

    async fn post(&self, message: &Value, headers: HeaderMap) -> Result<Response, Fault> {
        let request = self.client.post(self.url.clone()).headers(headers);
        let mut answer = request
            .header(ACCEPT, "application/json, text/event-stream")
            .header(CONTENT_TYPE, "application/json")
            .body(message.to_string())
            .send()
            .await?;
        if answer.status().is_success() { Ok(answer) } else { Err(failure(&mut answer).await) }
    }
}

async fn failure(answer: &mut Response) -> Fault {
    let status = answer.status().as_u16();
    // An error page may be long, cut off or no JSON: the status alone says enough.
    let body = if is_stream(answer) {
        Vec::new()
    } else {
        exchange::body(answer, ERROR_MAX).await.unwrap_or_default()
    };
    Fault::Status { status, said: Said::of(&body) }
}

fn is_stream(answer: &Response) -> bool {
    answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// Reads events until the one that answers; the rest of the stream is not waited for.
async fn from_stream(answer: &mut Response, id: u64) -> Result<Value, Fault> {
    let mut events = Events::default();
    let mut read = 0;
    while let Some(chunk) = answer.chunk().await? {
        read += chunk.len();
        if read > ANSWER_MAX {
            return Err(Fault::Wrong(format!("{} KiB without an answer", ANSWER_MAX / 1024)));
        }
        for data in events.push(&chunk) {
            if let Some(result) = settle(&data, id)? {
                return Ok(result);
            }
        }
    }
    Err(Fault::Wrong("the stream ended without an answer".into()))
}

/// The result in a message; `None` when the message does not answer this request.
fn settle(message: &[u8], id: u64) -> Result<Option<Value>, Fault> {
    let mut message: Value = serde_json::from_slice(message)
        .map_err(|error| Fault::Wrong(format!("the answer is no JSON: {error}")))?;
    let answers = message.get("id").and_then(Value::as_u64) == Some(id);
    if let Some(error) = message.get("error").filter(|error| error.is_object()) {
        // An error that can not name its request is still the answer to the only one.
        if answers || message.get("id").is_none_or(Value::is_null) {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
            let said = error.get("message").and_then(Value::as_str).unwrap_or_default();
            return Err(Fault::Error { code, said: said.to_owned() });
        }
    }
    Ok(message.get_mut("result").filter(|_| answers).map(Value::take))
}

fn other_id(body: &[u8], id: u64) -> Fault {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let theirs = value.get("id").map_or_else(|| "none".to_owned(), Value::to_string);
    Fault::Wrong(format!("an answer with id {} to the request with id {id}", brief(&theirs)))
}

/// Takes the data of whole events out of a stream of bytes.
#[derive(Debug, Default)]
struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                whole.extend(self.take_line(line.trim_ascii_end()));
            }
        }
        whole
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
    use super::Events;

    #[test]
    fn events_are_put_together_from_any_cut() {
        let stream =
            b"id: 1\ndata:\n\n: hello\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata: 2\n\ndata: 3\n";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            let whole: Vec<_> = stream.chunks(cut).flat_map(|chunk| events.push(chunk)).collect();
            assert_eq!(whole, [b" {\"a\":\n 1}\n".to_vec(), b" 2\n".to_vec()], "cut {cut}");
        }
    }
}
