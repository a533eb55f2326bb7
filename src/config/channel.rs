//! The settings of a channel that tells people.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::config::secret::SecretSource;
use crate::incident::NoticeKind;

/// One channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelSettings {
    /// Its name, as in `[notify.NAME]`.
    pub name: String,
    /// Where its notices go.
    pub target: ChannelTarget,
    /// The kinds that it takes.
    pub kinds: Vec<NoticeKind>,
    /// The services that it takes; all if empty.
    pub services: BTreeSet<String>,
    /// How long one delivery may take.
    pub timeout: Duration,
}

/// Where the notices of a channel go.
#[derive(Debug, Clone, PartialEq)]
pub enum ChannelTarget {
    /// JSON to any server.
    Webhook {
        /// The address.
        url: String,
        /// The key of the signature.
        key: Option<SecretSource>,
        /// CloudEvents in headers, not in the body.
        binary: bool,
    },
    /// An incoming webhook of Slack, Mattermost or Rocket.Chat. The address is the secret.
    Slack {
        /// The address.
        url: SecretSource,
    },
    /// `PagerDuty` Events API v2.
    PagerDuty {
        /// The address.
        url: String,
        /// The integration key.
        key: SecretSource,
    },
    /// Alertmanager API v2.
    Alertmanager {
        /// The address of the server.
        url: String,
        /// A bearer token.
        token: Option<SecretSource>,
    },
    /// A topic of ntfy.
    Ntfy {
        /// The address of the topic.
        url: String,
        /// An access token.
        token: Option<SecretSource>,
    },
    /// Mail over SMTP.
    Email(EmailSettings),
    /// A program, with JSON on its standard input.
    Command(Vec<String>),
}

/// A mail channel.
#[derive(Debug, Clone, PartialEq)]
pub struct EmailSettings {
    /// The host of the SMTP server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// The user of the login, if the server wants one.
    pub user: Option<String>,
    /// The password of the login.
    pub password: Option<SecretSource>,
    /// The sender: `Name <user@host>` or `user@host`.
    pub from: String,
    /// The receivers.
    pub to: Vec<String>,
}

/// How a connection to an SMTP server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// STARTTLS, which the server must offer.
    StartTls,
    /// From the first byte.
    Tls,
    /// Not at all; only on this host.
    Off,
}

impl ChannelSettings {
    /// Whether it takes the notices of a service. Those about the daemon go to every channel.
    pub fn is_for_service(&self, service: &str) -> bool {
        service.is_empty() || self.services.is_empty() || self.services.contains(service)
    }
}

impl ChannelTarget {
    /// Where its secret is, if it has one.
    pub fn secret(&self) -> Option<&SecretSource> {
        match self {
            Self::Slack { url: secret } | Self::PagerDuty { key: secret, .. } => Some(secret),
            Self::Webhook { key: secret, .. }
            | Self::Alertmanager { token: secret, .. }
            | Self::Ntfy { token: secret, .. } => secret.as_ref(),
            Self::Email(email) => email.password.as_ref(),
            Self::Command(_) => None,
        }
    }
}

impl fmt::Display for ChannelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::PagerDuty { .. } => "pagerduty",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Ntfy { .. } => "ntfy",
            Self::Email(_) => "email",
            Self::Command(_) => "command",
        })
    }
}
