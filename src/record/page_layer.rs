//! Log messages that need a person and are in no timeline. The daemon makes notices of them.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::mutex::lock;
use crate::record::journal_entry::{KIND_FIELD, PAGE_FIELD};

/// Messages that wait. A flood of them says nothing new.
const QUEUE_MAX: usize = 64;
/// A message with one of these has its notice already: as an event of a timeline, or of a channel.
const NOTIFIED_ELSEWHERE: [&str; 3] = [KIND_FIELD, "deploy", "channel"];

static QUEUE: Mutex<VecDeque<PagedMessage>> = Mutex::new(VecDeque::new());
static ARRIVED: Notify = Notify::const_new();

/// A log message with `page=true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PagedMessage {
    /// The service; empty where it is about the daemon.
    pub service: String,
    /// The message.
    pub text: String,
}

/// Copies the messages with `page=true`.
#[derive(Debug, Clone, Copy)]
pub struct PageLayer;

impl<S: Subscriber> Layer<S> for PageLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let fields = event.metadata().fields();
        let is_known = NOTIFIED_ELSEWHERE.iter().any(|name| fields.field(name).is_some());
        if fields.field(PAGE_FIELD).is_none() || is_known {
            return;
        }
        let mut read = PageFields::default();
        event.record(&mut read);
        let mut queue = queue();
        if read.is_page && queue.len() < QUEUE_MAX {
            queue.push_back(read.message);
            ARRIVED.notify_one();
        }
    }
}

/// Waits for the next message with `page=true`. Cancel safe. There is one reader.
pub async fn next_page() -> PagedMessage {
    loop {
        if let Some(message) = queue().pop_front() {
            return message;
        }
        ARRIVED.notified().await;
    }
}

fn queue() -> MutexGuard<'static, VecDeque<PagedMessage>> {
    lock(&QUEUE)
}

#[derive(Debug, Default)]
struct PageFields {
    is_page: bool,
    message: PagedMessage,
}

impl Visit for PageFields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.is_page |= field.name() == PAGE_FIELD && value;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "service" {
            value.clone_into(&mut self.message.service);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message.text = format!("{value:?}"),
            "service" => self.message.service = format!("{value:?}"),
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[tokio::test]
    async fn only_pages_without_a_notice_of_their_own_wait_here() {
        let subscriber = tracing_subscriber::registry().with(PageLayer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("no page");
            tracing::error!(page = false, "no page");
            tracing::error!(page = true, deploy = 7, "of a timeline");
            tracing::error!(page = true, kind = "blocked", "of a timeline");
            tracing::error!(page = true, channel = "chat", "of a channel");
            for number in 0..QUEUE_MAX + 5 {
                tracing::error!(page = true, service = "weather", "disk {number}");
            }
        });
        for number in 0..QUEUE_MAX {
            let PagedMessage { service, text } = next_page().await;
            assert_eq!((service.as_str(), text), ("weather", format!("disk {number}")));
        }
        assert!(queue().is_empty());
    }
}
