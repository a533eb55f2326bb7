//! Writes the drafts of one service, beside its follower: a slow journal, disk or image store delays no
//! notice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::daemon::incidents::{Incidents, gather};
use crate::incident::{Facts, IncidentEvent, signature};
use crate::model::{FailedCall, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::service::handle::ServiceHandle;

/// Jobs that wait. The follower waits where there are more.
pub(super) const DRAFT_JOBS_MAX: usize = 64;
/// The recording of signals is written once a second; the draft waits for it while the bake goes on.
const RECORDING_DELAY: Duration = Duration::from_millis(1_200);

/// What takes its time, in the order of the timeline.
#[derive(Debug)]
pub(super) enum DraftJob {
    /// An incident opened, or got another cause: keep what would be lost.
    Capture {
        /// The deploy.
        deploy: ReleaseNumber,
        /// The error answers that the proxy had at that moment.
        failed: Vec<(ReleaseNumber, FailedCall)>,
    },
    /// The facts are complete after this entry.
    Write(Arc<TimelineEntry>),
}

impl Incidents {
    /// Does the jobs, until there are no more.
    pub(super) async fn write_drafts(
        &self,
        name: &str,
        handle: &ServiceHandle,
        mut jobs: mpsc::Receiver<DraftJob>,
    ) {
        while let Some(job) = jobs.recv().await {
            match job {
                DraftJob::Capture { deploy, failed } => {
                    self.capture(name, handle, deploy, failed).await;
                }
                DraftJob::Write(entry) => {
                    self.draft(name, handle, &entry).await;
                    self.notify_draft(name, &entry);
                }
            }
        }
    }

    /// Writes the draft, if the incident of this deploy has none that contains the entry.
    async fn draft(&self, name: &str, handle: &ServiceHandle, entry: &TimelineEntry) {
        let is_due = |this: &Self| {
            let incidents = this.service(name)?;
            let incident = incidents.get(entry.deploy)?;
            (incident.drafted_seq < entry.seq).then(|| incident.cause())
        };
        let Some(cause) = is_due(self) else { return };
        if matches!(entry.event, TimelineEvent::Blocked { .. }) {
            tokio::time::sleep(RECORDING_DELAY).await;
        }
        let (dir, deploy) = (handle.dir().to_owned(), entry.deploy);
        let settings = self.service_settings(name);
        let all: Vec<_> = self.0.services.values().map(|it| it.dir.clone()).collect();
        let gathered = tokio::task::spawn_blocking(move || {
            gather::gather(&dir, deploy, settings.as_ref(), &all)
        });
        let Ok(mut facts) = gathered.await else { return };
        if let Some(kept) = self.captured(name, handle, deploy).await {
            (facts.samples, facts.output) = (kept.samples, kept.output);
            (facts.changes, facts.output_unknown) = (kept.changes, kept.output_unknown);
        }
        let signature = signature(&facts, cause);
        let impact = crate::incident::impact(&facts);
        let failed = impact.server_faults + impact.tool_faults;
        let recurrence_of = match self.service(name) {
            Some(mut incidents) => {
                let write = || incidents.store.write_facts(deploy, &facts);
                if let Err(error) = tokio::task::block_in_place(write) {
                    return incidents.on_write_error(&error);
                }
                incidents.recurrences(deploy, &signature)
            }
            None => return,
        };
        self.reopen_earlier(name, deploy, recurrence_of.first().copied());
        let (seq, requests) = (entry.seq, impact.requests);
        let is_over = facts.is_over();
        let drafted =
            IncidentEvent::Drafted { seq, signature, recurrence_of, failed, requests, is_over };
        self.record(name, deploy, drafted);
        self.rewrite(name, deploy);
    }

    /// What was kept when the incident opened. What a daemon that ended meanwhile did not keep is kept
    /// now, as far as it is there.
    async fn captured(
        &self,
        name: &str,
        handle: &ServiceHandle,
        deploy: ReleaseNumber,
    ) -> Option<Facts> {
        let read = || {
            let incidents = self.service(name)?;
            match tokio::task::block_in_place(|| incidents.store.read_facts(deploy)) {
                Ok(kept) => kept,
                Err(error) => {
                    tracing::warn!(service = name, "a draft without its samples: {error}");
                    None
                }
            }
        };
        match read() {
            Some(kept) => Some(kept),
            None => {
                self.capture(name, handle, deploy, self.failed_calls(name)).await;
                read()
            }
        }
    }

    /// The same incident came back: the review of the last one is open again.
    fn reopen_earlier(&self, name: &str, deploy: ReleaseNumber, earlier: Option<ReleaseNumber>) {
        let Some(earlier) = earlier else { return };
        let closed_actions = match self.service(name) {
            Some(incidents) => match incidents.get(earlier) {
                Some(incident) if !incident.is_open() => incident
                    .actions
                    .iter()
                    .filter(|it| it.done)
                    .map(|it| it.item)
                    .collect::<Vec<_>>(),
                _ => return,
            },
            None => return,
        };
        let because = format!("incident {deploy} has the same signature");
        for item in closed_actions {
            let because = because.clone();
            self.record(name, earlier, IncidentEvent::ActionReopened { item, because });
        }
        self.record(name, earlier, IncidentEvent::Reopened { because });
    }
}
