//! One channel: renders a notice for its receiver and delivers it.

use std::sync::OnceLock;

use reqwest::Client;

use crate::clock::Clock;
use crate::config::{ChannelSettings, ChannelTarget, Secret, SecretSource};
use crate::incident::Notice;
use crate::notify::http_client::{self, Post};
use crate::notify::retry::Delivery;
use crate::notify::{alertmanager, command, email, ntfy, pagerduty, slack, webhook};

/// A channel with its client.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) settings: ChannelSettings,
    client: OnceLock<Client>,
}

/// What a target needs for a request: the address, the headers, the body.
type Request = (String, Vec<(&'static str, String)>, Vec<u8>);

impl Channel {
    pub(super) fn new(settings: ChannelSettings) -> Self {
        Self { settings, client: OnceLock::new() }
    }

    /// Delivers a notice, once, with the secret as it could be read.
    pub(super) async fn deliver(
        &self,
        notice: &Notice,
        secret: Result<Option<Secret>, String>,
    ) -> Delivery {
        if let ChannelTarget::Command(words) = &self.settings.target {
            return command::run(words, notice, self.settings.timeout).await;
        }
        let secret = match secret {
            Ok(secret) => secret,
            // An operator can put it right.
            Err(because) => return Delivery::failed(because),
        };
        if let ChannelTarget::Email(settings) = &self.settings.target {
            return email::send(settings, secret.as_ref(), notice, self.settings.timeout).await;
        }
        let request = match render(&self.settings.target, notice, secret.as_ref()) {
            Ok(Some(request)) => request,
            Ok(None) => return Delivery::Accepted("nothing to send".to_owned()),
            Err(because) => return Delivery::Rejected(because),
        };
        let client = match self.client().await {
            Ok(client) => client,
            Err(because) => return Delivery::failed(because),
        };
        let (url, headers, body) = request;
        http_client::post(client, Post { url: &url, headers, body }).await
    }

    /// The authorities of the system are read with the first delivery.
    async fn client(&self) -> Result<&Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let timeout = self.settings.timeout;
        let built = tokio::task::spawn_blocking(move || http_client::client(timeout)).await;
        let built = built.map_err(|error| error.to_string())??;
        Ok(self.client.get_or_init(|| built))
    }

    /// The secret, if it has one.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) async fn secret(&self) -> Result<Option<Secret>, String> {
        let Some(source) = self.settings.target.secret().cloned() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || SecretSource::read(&source)).await;
        read.map_err(|error| error.to_string())?.map(Some)
    }
}

/// The request of a notice. None where the receiver has no such message.
fn render(
    target: &ChannelTarget,
    notice: &Notice,
    secret: Option<&Secret>,
) -> Result<Option<Request>, String> {
    let secret = secret.map(Secret::expose);
    let json = |value: &serde_json::Value| {
        let mut headers = vec![("content-type", "application/json".to_owned())];
        if matches!(target, ChannelTarget::Alertmanager { .. } | ChannelTarget::Ntfy { .. }) {
            headers.extend(secret.map(|it| ("authorization", format!("Bearer {it}"))));
        }
        (headers, value.to_string().into_bytes())
    };
    let (url, (headers, body)) = match target {
        ChannelTarget::Webhook { url, binary, .. } => {
            let now_s = Clock::wall_moment().0 / 1000;
            let request = webhook::request(notice, *binary, secret, now_s);
            let request = request.map_err(|error| error.to_string())?;
            (url.clone(), (request.headers, request.body))
        }
        ChannelTarget::Slack { .. } => {
            (secret.unwrap_or_default().to_owned(), json(&slack::message(notice)))
        }
        ChannelTarget::PagerDuty { url, .. } => {
            (url.clone(), json(&pagerduty::event(notice, secret.unwrap_or_default())))
        }
        ChannelTarget::Alertmanager { url, .. } => {
            let alerts = alertmanager::alerts(notice);
            if alerts.is_empty() {
                return Ok(None);
            }
            let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
            (url, json(&alerts.into()))
        }
        ChannelTarget::Ntfy { url, .. } => {
            let (server, topic) = ntfy::split_topic(url).ok_or("the URL has no topic")?;
            (server.to_owned(), json(&ntfy::message(notice, topic)))
        }
        ChannelTarget::Email(_) | ChannelTarget::Command(_) => return Ok(None),
    };
    Ok(Some((url, headers, body)))
}
