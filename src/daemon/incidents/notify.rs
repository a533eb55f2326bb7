//! Tells people of the events of the timelines, and records what was delivered.

use tokio::sync::mpsc;

use crate::control::ChannelStatus;
use crate::daemon::incidents::Incidents;
use crate::daemon::incidents::follow::version_of;
use crate::daemon::services::ServiceHandles;
use crate::incident::{
    DraftText, Incident, IncidentEvent, Notice, NoticeKind, notice_of, notice_of_draft,
    notice_of_page,
};
use crate::model::{Moment, TimelineEntry, TimelineEvent};
use crate::notify::{ChannelReport, Delivered};
use crate::record::{self, PagedMessage};
use crate::service::handle::ServiceHandle;

impl Incidents {
    /// Makes a notice of an event. One that is read again after a crash makes no second one.
    pub(super) async fn notify(&self, handle: &ServiceHandle, entry: &TimelineEntry) {
        if !self.is_after_first_channel(entry) || notice_of(entry, "").is_none() {
            return;
        }
        let version = version_of(handle, entry.deploy).await;
        notice_of(entry, &version).into_iter().for_each(|it| self.send(it));
    }

    /// Tells people of the draft, with its numbers. Without a draft, the event has to do.
    pub(super) fn notify_draft(&self, name: &str, entry: &TimelineEntry) {
        if !self.is_after_first_channel(entry) {
            return;
        }
        let notice = {
            let Some(incidents) = self.service(name) else { return };
            let Some(incident) = incidents.get(entry.deploy) else { return };
            // Something new went wrong while the draft was written: the trouble is not over.
            if entry.seq < incident.last_seq {
                return;
            }
            let document = tokio::task::block_in_place(|| incidents.document(entry.deploy));
            let draft = match &document {
                Ok(document) if incident.is_drafted => DraftText::from(document),
                _ => DraftText {
                    title: incident.version.clone(),
                    headline: entry.because.clone(),
                    error_rate: None,
                },
            };
            notice_of_draft(incident, entry, draft)
        };
        notice.into_iter().for_each(|it| self.send(it));
    }

    /// Tells people what happened to an incident. `notice` makes the text, if there is one.
    pub(super) fn notify_of(
        &self,
        name: &str,
        incident: crate::model::ReleaseNumber,
        notice: impl FnOnce(&Incident, (&str, Moment)) -> Option<Notice>,
    ) {
        let (now, wall_time) = (self.0.clock.now(), self.0.clock.wall_time());
        let notice = {
            let Some(incidents) = self.service(name) else { return };
            incidents.get(incident).and_then(|it| notice(it, (&wall_time, now)))
        };
        notice.into_iter().for_each(|it| self.send(it));
    }

    /// Tells people of each log message that needs a person and is no event of a timeline. Never
    /// returns.
    pub(in crate::daemon) async fn notify_of_pages(self) {
        loop {
            let PagedMessage { service, text } = record::next_page().await;
            let (now, wall_time) = (self.0.clock.now(), self.0.clock.wall_time());
            self.send(notice_of_page(&service, &text, (&wall_time, now)));
        }
    }

    fn send(&self, notice: Notice) {
        tokio::task::block_in_place(|| self.notifier().send(notice));
    }

    /// An event from before the first channel makes no notice.
    fn is_after_first_channel(&self, entry: &TimelineEntry) -> bool {
        self.notifier().since().is_some_and(|since| since <= entry.moment)
    }

    /// Records every delivery about an incident. Never returns.
    pub(in crate::daemon) async fn record_deliveries(
        self,
        mut delivered: mpsc::Receiver<Delivered>,
        handles: ServiceHandles,
    ) {
        while let Some(Delivered { channel, notice }) = delivered.recv().await {
            let (name, number) = (&notice.service, notice.incident);
            let is_drafted = match self.service(name) {
                Some(incidents) => match incidents.get(number) {
                    Some(incident) => incident.is_drafted,
                    None => continue,
                },
                None => continue,
            };
            let event =
                IncidentEvent::Notified { channel: channel.clone(), key: notice.id.clone() };
            if self.record(name, number, event) && is_drafted {
                self.rewrite(name, number);
            }
            if matches!(notice.kind, NoticeKind::Info | NoticeKind::Reminder) {
                continue;
            }
            if let Some(handle) = handles.get(name) {
                let because = format!("channel {channel} accepted: {}", notice.title);
                let event = TimelineEvent::Notified { channel, notice: notice.id.clone() };
                handle.record_fact(number, event, because).await;
            }
        }
        // The notifier has the sender, and lives as long as this.
        std::future::pending::<()>().await;
    }
}

/// A channel in the status.
pub(super) fn channel_status(report: ChannelReport, now: Moment) -> ChannelStatus {
    let ChannelReport { name, channel_type, waiting, delivered, failed, failing_since, error } =
        report;
    let failing_s = failing_since.map(|it| now.since(it).as_secs());
    ChannelStatus { name, channel_type, waiting, delivered, failed, failing_s, error }
}
