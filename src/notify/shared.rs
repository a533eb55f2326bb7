//! What the channels share: the outbox, and how each channel is doing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::ChannelSettings;
use crate::incident::{Notice, NoticeKind};
use crate::model::{Moment, ReleaseNumber};
use crate::mutex::lock;
use crate::notify::channel::Channel;
use crate::notify::channel_state::{Change, ChannelState};
use crate::notify::shared_outbox::SharedOutbox;
use crate::record::Queued;

/// A notice that a receiver accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// The channel.
    pub channel: String,
    /// The notice.
    pub notice: Notice,
}

/// What the channels share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) state_dir: PathBuf,
    pub(super) host: String,
    pub(super) outbox: SharedOutbox,
    pub(super) channels: Mutex<Channels>,
    pub(super) last_queued: Mutex<Option<NoticeKind>>,
    pub(super) delivered: mpsc::Sender<Delivered>,
}

#[derive(Debug, Default)]
pub(super) struct Channels {
    pub(super) page_url: Option<String>,
    pub(super) running: BTreeMap<String, RunningChannel>,
    pub(super) states: BTreeMap<String, ChannelState>,
}

#[derive(Debug)]
pub(super) struct RunningChannel {
    pub(super) channel: Arc<Channel>,
    pub(super) wakeup: Arc<Notify>,
    pub(super) task: Option<JoinHandle<()>>,
}

impl Drop for RunningChannel {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    pub(super) fn with_state(
        &self,
        channel: &str,
        apply: impl FnOnce(&mut ChannelState, Moment) -> Change,
    ) -> Change {
        let now = self.clock.now();
        apply(lock(&self.channels).states.entry(channel.to_owned()).or_default(), now)
    }

    /// The task that records deliveries can be slow, and never stops.
    pub(super) async fn report_delivered(&self, delivered: Delivered) {
        let _ = self.delivered.send(delivered).await;
    }

    pub(super) fn last_queued_kind(&self) -> Option<NoticeKind> {
        *lock(&self.last_queued)
    }

    /// A channel that begins to fail is an alarm: in the log, and to the other channels.
    pub(super) fn on_change(&self, channel: &str, change: Change, because: &str) {
        let now = self.clock.now();
        let (kind, what) = match change {
            Change::None => return,
            Change::BeganToFail => {
                (NoticeKind::Warn, format!("channel {channel} fails: {because}"))
            }
            Change::WorksAgain => (NoticeKind::Resolved, format!("channel {channel} works again")),
        };
        match kind {
            NoticeKind::Warn => tracing::error!(channel, page = true, "notification {what}"),
            _ => tracing::info!(channel, "notification {what}"),
        }
        let mut notice = Notice::new(kind, "", ReleaseNumber(0), &now.0.to_string())
            .text(&what, &format!("rollbackd: notification {what}"))
            .at(&self.clock.wall_time(), now)
            .command("rollbackd notify test".to_owned());
        notice.id = format!("channel/{channel}/{}", now.0);
        notice.group = format!("channel/{channel}");
        if kind == NoticeKind::Resolved {
            notice.resolves = vec![NoticeKind::Warn];
        }
        tokio::task::block_in_place(|| self.queue(notice, Some(channel)));
    }

    /// Puts a notice into the outbox for every channel that takes it, except one.
    pub(super) fn queue(&self, mut notice: Notice, except: Option<&str>) {
        let channels = lock(&self.channels);
        if channels.running.is_empty() {
            return;
        }
        self.complete(&mut notice, channels.page_url.as_deref());
        let takes = |it: &&ChannelSettings| {
            notice.is_for(&it.kinds)
                && it.is_for_service(&notice.service)
                && except != Some(it.name.as_str())
        };
        let settings = channels.running.values().map(|it| &it.channel.settings);
        let names: Vec<_> = settings.filter(takes).map(|it| it.name.clone()).collect();
        *lock(&self.last_queued) = Some(notice.kind);
        let wakeups: Vec<_> = names
            .iter()
            .filter_map(|name| channels.running.get(name).map(|it| Arc::clone(&it.wakeup)))
            .collect();
        drop(channels);
        if self.outbox.queue(&notice, names) == Some(Queued::Full) {
            let id = &notice.id;
            tracing::error!(notice = id, "the outbox is full, a notice is lost: {}", notice.text);
        }
        wakeups.iter().for_each(|it| it.notify_one());
    }

    /// Adds what only the daemon knows: the host, and the address of the page.
    pub(super) fn complete(&self, notice: &mut Notice, page_url: Option<&str>) {
        notice.host.clone_from(&self.host);
        notice.id = format!("{}/{}", self.host, notice.id);
        notice.url = page_url.map(|url| match notice.service.as_str() {
            "" => format!("{url}/"),
            service => format!("{url}/service/{service}"),
        });
    }
}
