//! Writes the decisions of one service: timeline, journal, counters, followers.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::clock::{Clock, monotonic};
use crate::control::Counters;
use crate::decide::Watch;
use crate::machine::Proposal;
use crate::model::{Moment, Release, TimelineEntry, TimelineEvent};
use crate::record::Timeline;
use crate::service::counters::EventCounters;

/// The timeline of one service, and who reads its new entries.
#[derive(Debug)]
pub(crate) struct Recorder {
    timeline: Timeline,
    followers: broadcast::Sender<Arc<TimelineEntry>>,
    counters: EventCounters,
    write_error: Option<String>,
}

impl Recorder {
    /// A recorder for an open timeline.
    pub(crate) fn new(
        timeline: Timeline,
        followers: broadcast::Sender<Arc<TimelineEntry>>,
    ) -> Self {
        Self { timeline, followers, counters: EventCounters::new(), write_error: None }
    }

    /// Why the timeline cannot be written, if so.
    pub(crate) fn write_error(&self) -> Option<&String> {
        self.write_error.as_ref()
    }

    /// Sums over the timeline.
    pub(crate) fn totals(&self) -> Counters {
        self.counters.totals()
    }

    /// Appends a proposal to the timeline and the journal. `watch` is the state before it.
    pub(crate) fn append(
        &mut self,
        now: Moment,
        clock: Clock,
        service: &str,
        (watch, proposal): (&Watch, &Proposal),
    ) -> Result<Arc<TimelineEntry>, String> {
        let (because, event) = (proposal.because().to_owned(), proposal.event().clone());
        let (wall, effects) = (clock.wall_time(), proposal.planned_effects());
        let began = monotonic();
        let timeline = &mut self.timeline;
        let written =
            tokio::task::block_in_place(|| timeline.append(now, wall, because, event, effects));
        let entry = match written {
            Ok(entry) => Arc::new(entry),
            Err(error) => {
                self.counters.record_write_failure();
                let message = format!("cannot write the timeline, so no decision is made: {error}");
                if self.write_error.as_ref() != Some(&message) {
                    tracing::error!(service, page = true, "{message}");
                }
                self.write_error = Some(message.clone());
                return Err(message);
            }
        };
        self.counters.record(&entry, began.elapsed());
        if self.write_error.take().is_some() {
            tracing::info!(service, "the timeline is writable again");
        }
        log_entry(service, watch, &entry, proposal.pages());
        Ok(entry)
    }

    /// Sends an entry to the clients that follow the timeline.
    pub(crate) fn publish(&self, entry: &Arc<TimelineEntry>) {
        // An error means that no client follows.
        let _ = self.followers.send(Arc::clone(entry));
    }
}

/// The system's journal gets the same entry.
fn log_entry(service: &str, watch: &Watch, entry: &TimelineEntry, pages: bool) {
    let TimelineEntry { event, deploy, seq, because, .. } = entry;
    let release: Option<&Release> = match event {
        TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. } => {
            Some(release)
        }
        _ => watch.phase().release(*deploy),
    };
    let release = release.map(|it| it.version.as_str());
    let severity = event.severity().map(|it| it.to_string());
    let (severity, kind) = (severity.as_deref(), event.kind());
    let page = pages.then_some(true);
    tracing::info!(service, deploy = deploy.0, release, severity, seq, page, kind, "{because}");
}
