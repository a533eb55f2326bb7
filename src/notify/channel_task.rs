//! The task of one channel: takes its notices from the outbox in order, until each is delivered, rejected
//! or too old.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::Secret;
use crate::incident::{Notice, NoticeKind};
use crate::notify::channel::Channel;
use crate::notify::channel_state::Change;
use crate::notify::retry::{DELIVERY_TIME, Delivery, backoff};
use crate::notify::shared::{Delivered, Shared};

/// Runs until the task is aborted. `wakeup` is notified when a notice was queued.
pub(super) async fn run(shared: Arc<Shared>, channel: Arc<Channel>, wakeup: Arc<Notify>) {
    let name = &channel.settings.name;
    let _ = read_secret(&shared, &channel).await;
    loop {
        let queued = wakeup.notified();
        let next = tokio::task::block_in_place(|| shared.outbox.next(name));
        let Some((number, notice)) = next else {
            queued.await;
            continue;
        };
        deliver(&shared, &channel, &notice, &wakeup).await;
        tokio::task::block_in_place(|| shared.outbox.done(number, name));
    }
}

/// The secret of a channel, if it has one. One that cannot be used is reported, and one that can be used
/// again.
///
/// # Errors
/// Why it cannot be used.
pub(super) async fn read_secret(
    shared: &Shared,
    channel: &Channel,
) -> Result<Option<Secret>, String> {
    let name = &channel.settings.name;
    let secret = channel.secret().await;
    let error = secret.as_ref().err();
    let change = shared.with_state(name, |state, now| match error {
        Some(because) => state.on_unusable(now, because),
        None => state.on_usable(),
    });
    shared.on_change(name, change, error.map_or("", String::as_str));
    secret
}

/// Delivers a notice: returns when it is delivered, rejected or given up.
async fn deliver(shared: &Shared, channel: &Channel, notice: &Notice, wakeup: &Notify) {
    let name = &channel.settings.name;
    let mut failures = 0;
    loop {
        if shared.clock.now().since(notice.moment) > DELIVERY_TIME {
            let because = "not delivered within a day, given up";
            tracing::error!(channel = name, notice = notice.id, page = true, "{because}");
            return;
        }
        match channel.deliver(notice, channel.secret().await).await {
            Delivery::Accepted(answer) => {
                tracing::info!(channel = name, notice = notice.id, "notified: {answer}");
                let change = shared.with_state(name, |state, _| state.on_accepted());
                shared.on_change(name, change, "");
                let (channel, notice) = (name.clone(), notice.clone());
                shared.report_delivered(Delivered { channel, notice }).await;
                return;
            }
            Delivery::Rejected(because) => {
                tracing::error!(channel = name, notice = notice.id, "rejected: {because}");
                let change =
                    shared.with_state(name, |state, now| state.on_failed(now, &because, true));
                shared.on_change(name, change, &because);
                return;
            }
            Delivery::Failed { because, wait } => {
                failures += 1;
                let change =
                    shared.with_state(name, |state, now| state.on_failed(now, &because, false));
                if change == Change::None && failures == 1 {
                    tracing::warn!(channel = name, notice = notice.id, "not delivered: {because}");
                }
                shared.on_change(name, change, &because);
                pause(shared, failures, wait, notice, wakeup).await;
            }
        }
    }
}

/// Waits before the next try. A page that is queued meanwhile ends the wait, unless the receiver asked
/// for it.
async fn pause(
    shared: &Shared,
    failures: u32,
    asked: Option<std::time::Duration>,
    notice: &Notice,
    wakeup: &Notify,
) {
    let end = tokio::time::sleep(backoff(failures, asked, &notice.id));
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            () = wakeup.notified(), if asked.is_none() => {
                if shared.last_queued_kind() == Some(NoticeKind::Page) {
                    return;
                }
            }
        }
    }
}
