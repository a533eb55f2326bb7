//! Tells people what happened, over the channels of the configuration.
//!
//! 1. The daemon gives a [`Notice`](crate::incident::Notice) to the [`Notifier`]. It goes to the outbox
//!    on disk, once for each channel that takes it. Nothing waits for a delivery.
//! 2. Each channel has a task of its own, which takes its notices from the outbox in order. A channel that
//!    hangs delays no other.
//! 3. A channel renders the notice for its receiver ([`webhook`], [`slack`], ...) and sends it. What text
//!    of a release could do at the receiver, such as a link or a mention, is taken from it
//!    ([`plain_text`]).
//! 4. A failed delivery is repeated with [`backoff`](retry::backoff) for [`DELIVERY_TIME`](retry::DELIVERY_TIME). Every
//!    delivery has the id of its notice, so that a receiver recognises a repetition.
//!
//! A channel that fails is in the status, the metrics and the log, and the other channels tell of it.

mod alertmanager;
mod channel;
mod channel_state;
mod channel_task;
mod command;
mod email;
#[cfg(test)]
mod example;
mod http_client;
mod json;
mod mail_chart;
mod notifier;
mod ntfy;
mod pagerduty;
mod plain_text;
mod retry;
mod shared;
mod shared_outbox;
mod slack;
mod webhook;

pub use crate::notify::channel_state::ChannelReport;
pub use crate::notify::notifier::{Notifier, secret_problems};
pub use crate::notify::shared::Delivered;
