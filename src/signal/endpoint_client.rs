//! A client of any MCP endpoint, for a person who wants to see what clients see.

use std::time::Duration;

use http::HeaderValue;
use reqwest::Url;
use serde_json::{Value, json};

use crate::model::Era;
use crate::signal::http_client::{ProbeError, shorten};
use crate::signal::mcp_probe::McpProbe;

/// Keeps its session from one call to the next, as clients do.
#[derive(Debug)]
pub struct EndpointClient {
    probe: McpProbe,
    timeout: Duration,
    /// The session of the last call.
    session: Option<HeaderValue>,
    sessions_lost: u64,
}

/// What the client asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum EndpointRequest {
    /// The list of tools, or what the server offers instead.
    Probe,
    /// A call of a tool.
    Call {
        /// Its name.
        tool: String,
        /// The arguments, an object.
        arguments: Value,
    },
}

impl EndpointClient {
    /// A client of this URL. Sends nothing yet.
    ///
    /// # Errors
    /// If the URL is not one of HTTP without TLS.
    pub fn new(url: &str, timeout: Duration) -> Result<Self, String> {
        let example = "write one such as http://127.0.0.1:8080/mcp";
        let parsed = Url::parse(url).map_err(|error| format!("{url:?}: {error}; {example}"))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            return Err(format!("{url:?} is not a URL of HTTP without TLS; {example}"));
        }
        let probe = McpProbe::with_url(parsed, timeout)?;
        Ok(Self { probe, timeout, session: None, sessions_lost: 0 })
    }

    /// Sends a request and waits for its response, at most the timeout, or twice the timeout where a
    /// session must be opened first.
    ///
    /// # Errors
    /// Why the response is not a good one.
    pub async fn request(&mut self, request: &EndpointRequest) -> Result<String, String> {
        let answered = match request {
            EndpointRequest::Probe => self.probe().await,
            EndpointRequest::Call { tool, arguments } => {
                let params = json!({ "name": tool, "arguments": arguments });
                self.call(&params).await
            }
        };
        self.count_lost_session();
        answered
    }

    /// How many sessions the server lost.
    pub fn sessions_lost(&self) -> u64 {
        self.sessions_lost
    }

    /// Ends its session.
    pub async fn close(&mut self) {
        // A server that does not answer expires the session by itself.
        let _ = tokio::time::timeout(self.timeout, self.probe.close()).await;
        self.session = None;
    }

    async fn probe(&mut self) -> Result<String, String> {
        let probing = tokio::time::timeout(self.timeout, self.probe.probe());
        match probing.await.unwrap_or(Err(ProbeError::TimedOut)) {
            Ok(()) => Ok(self.probe.server_identity.clone().unwrap_or_default()),
            Err(error) => Err(error.to_reply().to_string()),
        }
    }

    /// Calls a tool. Where the era is not known, or the session is not open, a probe comes first.
    async fn call(&mut self, params: &Value) -> Result<String, String> {
        if self.probe.era() != Some(Era::Modern) && self.probe.session_id().is_none() {
            self.probe().await?;
        }
        let calling = tokio::time::timeout(self.timeout, self.probe.call_tool(params));
        let called = calling.await.unwrap_or(Err(ProbeError::TimedOut));
        let result = called.map_err(|error| error.to_reply().to_string())?;
        let text = shorten(result_text(&result));
        if result.get("isError") == Some(&Value::Bool(true)) {
            return Err(format!("the result has isError: {text}"));
        }
        Ok(text)
    }

    fn count_lost_session(&mut self) {
        let now = self.probe.session_id();
        if self.session.is_some() && self.session.as_ref() != now {
            self.sessions_lost += 1;
        }
        self.session = now.cloned();
    }
}

/// The first text of a tool's result.
fn result_text(result: &Value) -> &str {
    let content = result.get("content").and_then(Value::as_array).map(Vec::as_slice);
    let mut texts = content.unwrap_or_default().iter();
    texts.find_map(|part| part.get("text")?.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_host_or_with_tls_is_refused_with_an_example() {
        for url in ["127.0.0.1:8080", "https://example.org/mcp", "", "unix:/run/x", "http://"] {
            let error = EndpointClient::new(url, Duration::from_secs(1)).unwrap_err();
            assert!(error.contains("http://127.0.0.1:8080/mcp"), "{error}");
        }
        assert!(EndpointClient::new("http://[::1]:80/mcp", Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn the_text_of_a_result_is_its_first_text() {
        let image = json!({ "type": "image", "data": "" });
        let text = json!({ "type": "text", "text": "hi" });
        assert_eq!(result_text(&json!({ "content": [image, text] })), "hi");
        assert_eq!(result_text(&json!({})), "");
    }
}
