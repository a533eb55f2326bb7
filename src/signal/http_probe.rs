use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::Value;

use crate::signal::http_client;
use crate::signal::http_client::{Endpoint, ProbeError};

/// Bytes of a response that are read for its field.
const BODY_MAX: usize = 64 * 1024;

/// A GET request and the response it must get.
#[derive(Debug)]
pub(super) struct HttpProbe {
    client: Client,
    url: Url,
    status: u16,
    field: Option<(String, String)>,
}

impl HttpProbe {
    pub(super) fn new(
        endpoint: Endpoint<'_>,
        status: u16,
        field: Option<(String, String)>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let client = http_client::client_for(endpoint, timeout)?;
        Ok(Self { client, url: http_client::url_for(endpoint)?, status, field })
    }

    pub(super) async fn probe(&self) -> Result<(), ProbeError> {
        let mut response = self.client.get(self.url.clone()).send().await?;
        let status = response.status().as_u16();
        if status != self.status {
            return Err(ProbeError::Other(format!("status {status}, not {}", self.status)));
        }
        let Some((pointer, want)) = &self.field else { return Ok(()) };
        let body = http_client::read_body(&mut response, BODY_MAX).await?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| ProbeError::Other(format!("the response is not JSON: {error}")))?;
        match value.pointer(pointer).map(as_text) {
            Some(have) if have == *want => Ok(()),
            Some(have) => {
                let have = http_client::shorten(&have);
                Err(ProbeError::Other(format!("{pointer} is {have:?}, not {want:?}")))
            }
            None => Err(ProbeError::Other(format!("the response has no {pointer}"))),
        }
    }
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
