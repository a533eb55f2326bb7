//! What the daemon uses: gives notices to the outbox, runs the channels, reports on them.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::config::{ChannelSettings, Settings};
use crate::incident::{Notice, NoticeKind};
use crate::model::{Moment, ReleaseNumber};
use crate::mutex::lock;
use crate::notify::channel::Channel;
use crate::notify::channel_state::ChannelReport;
use crate::notify::channel_task;
use crate::notify::retry::Delivery;
use crate::notify::shared::{Delivered, RunningChannel, Shared};
use crate::notify::shared_outbox::SharedOutbox;

/// Deliveries that wait to be recorded.
const DELIVERED_MAX: usize = 1_024;

/// Tells people. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<Shared>);

impl Notifier {
    /// A notifier without channels; [`Self::configure`] adds them. The receiver gets what was delivered.
    pub fn new(state_dir: &Path, clock: Clock) -> (Self, mpsc::Receiver<Delivered>) {
        let (delivered, receiver) = mpsc::channel(DELIVERED_MAX);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String = host.chars().filter(|it| !it.is_control()).take(64).collect();
        let shared = Shared {
            clock,
            state_dir: state_dir.to_owned(),
            host,
            outbox: SharedOutbox::default(),
            channels: Mutex::default(),
            last_queued: Mutex::default(),
            delivered,
        };
        (Self(Arc::new(shared)), receiver)
    }

    /// Starts the channels of these settings, in place of those before. Needs a tokio runtime. It reads
    /// the outbox.
    pub fn configure(&self, settings: &Settings) {
        let shared = &self.0;
        let has_channels = !settings.channels.is_empty();
        if has_channels {
            shared.outbox.open(&shared.state_dir, shared.clock.now());
        }
        {
            let mut channels = lock(&shared.channels);
            channels.page_url.clone_from(&settings.page_url);
            channels.states.retain(|name, _| settings.channels.contains_key(name));
            // Dropping a channel ends its task; what it was sending is sent again.
            channels.running.clear();
            let started = settings.channels.iter();
            channels.running.extend(started.map(|(name, it)| (name.clone(), start(shared, it))));
        }
        // The last: nothing is queued for the channels of before any more.
        if !has_channels {
            shared.outbox.close();
            return;
        }
        let gone = shared.outbox.retain_channels(|name| settings.channels.contains_key(name));
        if gone > 0 {
            tracing::warn!("{gone} notices waited for channels that are not configured any more");
        }
    }

    /// Stops all channels and closes the outbox. What waits is in the file.
    pub fn stop(&self) {
        lock(&self.0.channels).running.clear();
        self.0.outbox.close();
    }

    /// Tells people. It returns when the notice is on disk, or cannot be. It blocks on the disk.
    pub fn send(&self, notice: Notice) {
        self.0.queue(notice, None);
    }

    /// Events before this moment make no notice: no channel was there. None without channels.
    pub fn since(&self) -> Option<Moment> {
        self.0.outbox.report().since
    }

    /// How the channels are doing that take the notices of a service.
    pub fn reports(&self, service: &str) -> Vec<ChannelReport> {
        let waiting = self.0.outbox.report().waiting.clone();
        let channels = lock(&self.0.channels);
        let running = channels.running.iter();
        let running = running.filter(|(_, it)| it.channel.settings.is_for_service(service));
        running
            .map(|(name, it)| {
                let waiting = waiting.get(name).copied().unwrap_or_default();
                let state = channels.states.get(name).cloned().unwrap_or_default();
                state.report(name, &it.channel.settings.target.to_string(), waiting)
            })
            .collect()
    }

    /// Why notices can be lost, if so.
    pub fn error(&self) -> Option<String> {
        self.0.outbox.report().error.clone()
    }

    /// Sends an example over one channel, or all: each with what came back. None: no such channel.
    pub async fn test(
        &self,
        channel: Option<&str>,
    ) -> Option<Vec<(String, Result<String, String>)>> {
        let (selected, page_url) = {
            let channels = lock(&self.0.channels);
            let running = channels.running.iter();
            let selected = running.filter(|(name, _)| channel.is_none_or(|it| it == *name));
            let selected: Vec<_> = selected.map(|(_, it)| Arc::clone(&it.channel)).collect();
            (selected, channels.page_url.clone())
        };
        if selected.is_empty() && channel.is_some() {
            return None;
        }
        let now = self.0.clock.now();
        let mut notice = Notice::new(NoticeKind::Info, "", ReleaseNumber(0), "")
            .text("a test", "rollbackd: this is a test of the channel. Nothing to do.")
            .at(&self.0.clock.wall_time(), now)
            .command("rollbackd status".to_owned());
        (notice.id, notice.group) = (format!("test/{}", now.0), "test".to_owned());
        notice.test = true;
        self.0.complete(&mut notice, page_url.as_deref());
        let notice = &notice;
        let shared = &self.0;
        let tests = selected.into_iter().map(|channel| async move {
            let secret = channel_task::read_secret(shared, &channel).await;
            let result = match channel.deliver(notice, secret).await {
                Delivery::Accepted(answer) => Ok(answer),
                Delivery::Failed { because, .. } | Delivery::Rejected(because) => Err(because),
            };
            (channel.settings.name.clone(), result)
        });
        Some(join_all(tests).await)
    }
}

/// What `check` reports about secrets that cannot be used. The daemon starts all the same: a guard that
/// cannot tell is better than none.
pub fn secret_problems(settings: &Settings) -> Vec<String> {
    let channels = settings.channels.values();
    let problems = channels.filter_map(|it| {
        let error = it.target.secret()?.read().err()?;
        Some(format!("warning: [notify.{}] cannot use its secret: {error}", it.name))
    });
    problems.collect()
}

fn start(shared: &Arc<Shared>, settings: &ChannelSettings) -> RunningChannel {
    let channel = Arc::new(Channel::new(settings.clone()));
    let wakeup = Arc::new(Notify::new());
    let task = channel_task::run(Arc::clone(shared), Arc::clone(&channel), Arc::clone(&wakeup));
    let task = Some(tokio::spawn(contain_panic(settings.name.clone(), task)));
    RunningChannel { channel, wakeup, task }
}

/// A defect in a channel ends that channel and nothing else.
async fn contain_panic(name: String, task: impl Future<Output = ()>) {
    if AssertUnwindSafe(task).catch_unwind().await.is_err() {
        tracing::error!(channel = name, page = true, "notification channel {name} ended: a defect");
    }
}
