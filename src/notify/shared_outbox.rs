//! The outbox as the tasks of a daemon share it. A task that changes it holds its lock while it is written;
//! what is reported of it is a copy, so that a status never waits for a disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::incident::Notice;
use crate::model::Moment;
use crate::mutex::lock;
use crate::record::{Outbox, Queued};

/// The outbox, which exists while there are channels: a daemon without channels writes no file.
#[derive(Debug, Default)]
pub(super) struct SharedOutbox {
    outbox: Mutex<Option<Outbox>>,
    report: watch::Sender<OutboxReport>,
}

/// How the outbox was after its last change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OutboxReport {
    /// Events before this moment make no notice. None without an outbox.
    pub(super) since: Option<Moment>,
    /// How many notices wait for each channel.
    pub(super) waiting: BTreeMap<String, usize>,
    /// Why notices can be lost, if so.
    pub(super) error: Option<String>,
}

impl SharedOutbox {
    /// How it was after the last change. It never waits for a disk.
    pub(super) fn report(&self) -> watch::Ref<'_, OutboxReport> {
        self.report.borrow()
    }

    /// Opens it, if it is not open. It blocks on the disk, as all that follow.
    pub(super) fn open(&self, state_dir: &Path, now: Moment) {
        self.change(|outbox| {
            outbox.get_or_insert_with(|| {
                let (open, damage) = Outbox::open(state_dir, now);
                damage
                    .iter()
                    .for_each(|it| tracing::error!(page = true, "notices can be lost: {it}"));
                open
            });
        });
    }

    /// Closes it. What waits is in the file.
    pub(super) fn close(&self) {
        self.change(|outbox| *outbox = None);
    }

    /// Drops what waits for channels that do not exist any more. Returns how many notices.
    pub(super) fn retain_channels(&self, exists: impl Fn(&str) -> bool) -> usize {
        self.change(|outbox| outbox.as_mut().map_or(0, |it| it.retain_channels(exists)))
    }

    /// Queues a notice for channels. None without an outbox.
    pub(super) fn queue(&self, notice: &Notice, channels: Vec<String>) -> Option<Queued> {
        self.change(|outbox| outbox.as_mut().map(|it| it.queue(notice, channels)))
    }

    /// The next notice of a channel: its number, and the notice.
    pub(super) fn next(&self, channel: &str) -> Option<(u64, Arc<Notice>)> {
        self.lock().as_ref()?.next(channel)
    }

    /// A channel delivered a notice, or gave up.
    pub(super) fn done(&self, number: u64, channel: &str) {
        self.change(|outbox| outbox.iter_mut().for_each(|it| it.done(number, channel)));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Outbox>> {
        lock(&self.outbox)
    }

    fn change<T>(&self, apply: impl FnOnce(&mut Option<Outbox>) -> T) -> T {
        let mut outbox = self.lock();
        let result = apply(&mut outbox);
        self.report.send_replace(outbox.as_ref().map(OutboxReport::of).unwrap_or_default());
        result
    }
}

impl OutboxReport {
    fn of(outbox: &Outbox) -> Self {
        let lost = (outbox.lost() > 0)
            .then(|| format!("{} notices were lost: too many waited", outbox.lost()));
        Self {
            since: Some(outbox.since()),
            waiting: outbox.waiting(),
            error: outbox.error().map(str::to_owned).or(lost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    #[test]
    fn a_report_waits_for_no_write() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = SharedOutbox::default();
        assert_eq!(outbox.queue(&hostile(), vec!["chat".to_owned()]), None);
        assert_eq!(*outbox.report(), OutboxReport::default());
        outbox.open(dir.path(), Moment(7));
        outbox.queue(&hostile(), vec!["chat".to_owned()]);
        let writing = outbox.lock();
        let expected = OutboxReport {
            since: Some(Moment(7)),
            waiting: [("chat".to_owned(), 1)].into(),
            error: None,
        };
        assert_eq!(*outbox.report(), expected);
        drop(writing);
        let (number, _) = outbox.next("chat").unwrap();
        outbox.done(number, "chat");
        assert_eq!(outbox.report().waiting, BTreeMap::new());
        outbox.close();
        assert_eq!(outbox.report().since, None);
    }
}
