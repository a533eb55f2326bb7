use std::time::Duration;

use reqwest::{Client, Url};
use serde_json::Value;

use super::exchange::{self, Fault};
use crate::config::Address;
use crate::model::Reply;

/// Bytes of an answer that are read for its field.
const BODY_MAX: usize = 64 * 1024;

/// A GET request and what its answer must be.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    url: Url,
    status: u16,
    field: Option<(String, String)>,
}

impl Http {
    pub(super) fn new(
        address: &Address,
        path: &str,
        status: u16,
        field: Option<(String, String)>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let client = exchange::client(address, timeout)?;
        Ok(Self { client, url: exchange::url(address, path)?, status, field })
    }

    pub(super) async fn ask(&self) -> Reply {
        self.get().await.map_or_else(|fault| fault.reply(), |()| Reply::Ok)
    }

    async fn get(&self) -> Result<(), Fault> {
        let mut answer = self.client.get(self.url.clone()).send().await?;
        let status = answer.status().as_u16();
        if status != self.status {
            return Err(Fault::Wrong(format!("status {status}, not {}", self.status)));
        }
        let Some((pointer, want)) = &self.field else { return Ok(()) };
        let body = exchange::body(&mut answer, BODY_MAX).await?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| Fault::Wrong(format!("the answer is no JSON: {error}")))?;
        match value.pointer(pointer).map(text) {
            Some(have) if have == *want => Ok(()),
            Some(have) => {
                let have = exchange::brief(&have);
                Err(Fault::Wrong(format!("{pointer} is {have:?}, not {want:?}")))
            }
            None => Err(Fault::Wrong(format!("the answer has no {pointer}"))),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
