//! Writes the decisions of one service: timeline, journal, counters, followers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::clock::{Clock, monotonic};
use crate::control::{Counters, LastOutcome};
use crate::decide::Watch;
use crate::machine::Proposal;
use crate::model::{Moment, Release, TimelineEntry, TimelineEvent};
use crate::record::{NewEntry, Room, Timeline};
use crate::service::counters::EventCounters;
use crate::service::last_outcome::OutcomeTracker;

/// Entries that took effect and could not be written yet: some rollbacks.
const UNWRITTEN_MAX: usize = 64;

/// The timeline of one service, and who reads its new entries.
#[derive(Debug)]
pub(crate) struct Recorder {
    timeline: Timeline,
    followers: broadcast::Sender<Arc<TimelineEntry>>,
    counters: EventCounters,
    outcomes: OutcomeTracker,
    write_error: Option<String>,
    /// Entries that took effect and are not on disk.
    unwritten: VecDeque<Arc<TimelineEntry>>,
}

impl Recorder {
    /// A recorder for an open timeline.
    pub(crate) fn new(
        timeline: Timeline,
        followers: broadcast::Sender<Arc<TimelineEntry>>,
    ) -> Self {
        Self {
            timeline,
            followers,
            counters: EventCounters::new(),
            outcomes: OutcomeTracker::default(),
            write_error: None,
            unwritten: VecDeque::new(),
        }
    }

    /// Takes in what was recorded before this daemon started.
    pub(crate) fn restore_outcomes(&mut self, entries: &[TimelineEntry]) {
        entries.iter().for_each(|entry| self.outcomes.record(entry));
    }

    /// What happened last.
    pub(crate) fn last_outcome(&self, now: Moment) -> Option<LastOutcome> {
        self.outcomes.last(now)
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
        (now, clock): (Moment, Clock),
        service: &str,
        (watch, proposal): (&Watch, &Proposal),
        room: Room,
    ) -> Result<Arc<TimelineEntry>, String> {
        let new = new_entry(now, clock, proposal);
        let began = monotonic();
        let timeline = &mut self.timeline;
        let unwritten = &mut self.unwritten;
        let written = tokio::task::block_in_place(|| {
            write_late_entries(timeline, unwritten)?;
            timeline.append(new, room)
        });
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
        self.outcomes.record(&entry);
        self.mark_writable(service);
        log_entry(service, watch, &entry, proposal.pages());
        Ok(entry)
    }

    /// Keeps a proposal that could not be appended and takes effect all the same. Its entry is in the
    /// journal now, and in the timeline when that can be written. `None`: too many wait already.
    pub(crate) fn append_later(
        &mut self,
        (now, clock): (Moment, Clock),
        service: &str,
        (watch, proposal): (&Watch, &Proposal),
    ) -> Option<Arc<TimelineEntry>> {
        if self.unwritten.len() >= UNWRITTEN_MAX {
            return None;
        }
        let waiting = u64::try_from(self.unwritten.len()).unwrap_or(u64::MAX);
        let mut new = new_entry(now, clock, proposal);
        new.because.push_str("; recorded late: the timeline could not be written");
        let entry = Arc::new(self.timeline.next_entry(new, waiting));
        self.unwritten.push_back(Arc::clone(&entry));
        self.outcomes.record(&entry);
        log_entry(service, watch, &entry, true);
        Some(entry)
    }

    /// Writes the entries that wait, if it can.
    pub(crate) fn write_late_entries(&mut self, service: &str) {
        if self.unwritten.is_empty() {
            return;
        }
        let (timeline, unwritten) = (&mut self.timeline, &mut self.unwritten);
        if tokio::task::block_in_place(|| write_late_entries(timeline, unwritten)).is_ok() {
            self.mark_writable(service);
        }
    }

    fn mark_writable(&mut self, service: &str) {
        if self.write_error.take().is_some() {
            tracing::info!(service, "the timeline is writable again");
        }
    }

    /// Sends an entry to the clients that follow the timeline.
    pub(crate) fn publish(&self, entry: &Arc<TimelineEntry>) {
        // An error means that no client follows.
        let _ = self.followers.send(Arc::clone(entry));
    }
}

fn new_entry(now: Moment, clock: Clock, proposal: &Proposal) -> NewEntry {
    NewEntry {
        moment: now,
        wall_time: clock.wall_time(),
        because: proposal.because().to_owned(),
        event: proposal.event().clone(),
        planned_effects: proposal.planned_effects(),
    }
}

/// Writes in order, up to the first failure.
fn write_late_entries(
    timeline: &mut Timeline,
    unwritten: &mut VecDeque<Arc<TimelineEntry>>,
) -> io::Result<()> {
    while let Some(entry) = unwritten.front() {
        timeline.write(entry, Room::Rollback)?;
        unwritten.pop_front();
    }
    Ok(())
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
