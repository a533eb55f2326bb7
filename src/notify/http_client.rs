//! Posts to receivers: one request, bounded, without redirects. Errors never show the URL, which can be
//! a secret.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use crate::clock::Clock;
use crate::incident::text::clean_text;
use crate::notify::retry::{Delivery, parse_retry_after};
use crate::tls;

/// The most that is read of an answer, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// The most characters of an answer that are shown.
const SHOWN_MAX: usize = 120;

/// A request to a receiver.
#[derive(Debug)]
pub(super) struct Post<'a> {
    pub(super) url: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// A client for one channel. It reads the certificate authorities of the system.
///
/// # Errors
/// There are none.
pub(super) fn client(timeout: Duration) -> Result<Client, String> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls::system_roots()?)
        .user_agent(concat!("rollbackd/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        // A connection that stayed idle for hours is often dead, and notices are rare.
        .pool_max_idle_per_host(0)
        .connect_timeout(timeout)
        .timeout(timeout);
    builder.build().map_err(|error| format!("cannot prepare the client: {error}"))
}

/// Sends a request and reads the answer.
pub(super) async fn post(client: &Client, request: Post<'_>) -> Delivery {
    let Ok(url) = Url::parse(request.url) else {
        return Delivery::Rejected("the URL of the channel is not valid".to_owned());
    };
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers {
        let Ok(mut value) = HeaderValue::from_str(&value) else {
            return Delivery::Rejected(format!("the value of the header {name} is not valid"));
        };
        value.set_sensitive(name == "authorization");
        headers.insert(HeaderName::from_static(name), value);
    }
    let sent = client.post(url).headers(headers).body(request.body).send().await;
    match sent {
        Ok(response) => read_answer(response).await,
        Err(error) => Delivery::failed(describe(error)),
    }
}

async fn read_answer(mut response: Response) -> Delivery {
    let status = response.status();
    if status.is_success() {
        // What it says does not matter, and can be long.
        return Delivery::Accepted(status.to_string());
    }
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|it| parse_retry_after(it, Clock::wall_moment().0));
    let mut body = Vec::new();
    while body.len() < ANSWER_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend(chunk.iter().take(ANSWER_MAX - body.len())),
            Ok(None) | Err(_) => break,
        }
    }
    let answer = clean_text(&String::from_utf8_lossy(&body), SHOWN_MAX);
    let separator = if answer.is_empty() { "" } else { ": " };
    let because = format!("{status}{separator}{answer}");
    if status.is_redirection() {
        return Delivery::Rejected(format!(
            "{status}: redirects are not followed; write the final address"
        ));
    }
    let may_pass = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    if may_pass { Delivery::Failed { because, wait } } else { Delivery::Rejected(because) }
}

/// The innermost cause, which names the refused connection, the wrong certificate, the unknown host.
fn describe(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    clean_text(&cause.to_string(), 2 * SHOWN_MAX)
}
