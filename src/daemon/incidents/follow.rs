//! Follows the timeline of one service: opens incidents, writes drafts.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use crate::daemon::incidents::{Incidents, gather};
use crate::incident::{Cause, Facts, IncidentEvent, cause_of, completes_draft, signature};
use crate::model::{ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::record;
use crate::service::handle::ServiceHandle;

/// An entry that is older when the daemon starts opens no incident: an upgrade reports nothing old.
const CATCH_UP_MAX: Duration = Duration::from_hours(24);
/// The recording of signals is written once a second; the draft waits for it while the bake goes on.
const RECORDING_DELAY: Duration = Duration::from_millis(1_200);

impl Incidents {
    /// Starts to follow a service. A defect here must not end the daemon: the next start would meet the
    /// same entry, and the service would be without its guard.
    pub(in crate::daemon) fn spawn_follower(
        &self,
        name: &str,
        handle: &ServiceHandle,
    ) -> JoinHandle<()> {
        let (service, follow) =
            (name.to_owned(), self.clone().follow(name.to_owned(), handle.clone()));
        tokio::spawn(async move {
            if AssertUnwindSafe(follow).catch_unwind().await.is_err() {
                let what =
                    "incidents are no longer recorded: a defect; the timeline has everything";
                tracing::error!(service, page = true, "{what}");
            }
        })
    }

    /// Follows a service until its loop ends.
    async fn follow(self, name: String, handle: ServiceHandle) {
        let mut entries = handle.subscribe();
        self.catch_up(&name, &handle).await;
        loop {
            match entries.recv().await {
                Ok(entry) => self.on_entry(&name, &handle, &entry).await,
                Err(RecvError::Lagged(_)) => self.catch_up(&name, &handle).await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Takes up what was recorded while no daemon ran, or too quickly.
    async fn catch_up(&self, name: &str, handle: &ServiceHandle) {
        let dir = handle.dir().to_owned();
        let read = tokio::task::spawn_blocking(move || record::read_latest(&dir)).await;
        // A timeline that cannot be read stops the service, which reports it.
        let Ok(Ok(entries)) = read else { return };
        let now = self.0.clock.now();
        for entry in entries.iter().filter(|it| now.since(it.moment) < CATCH_UP_MAX) {
            self.on_entry(name, handle, entry).await;
        }
    }

    async fn on_entry(&self, name: &str, handle: &ServiceHandle, entry: &TimelineEntry) {
        if let TimelineEvent::Deployed { release, .. } = &entry.event {
            self.keep_deploy_facts(name, release);
        }
        let mut failed = None;
        if let Some(cause) = cause_of(entry) {
            // First of all: the proxy removes the release when its traffic is gone.
            let calls = self.failed_calls(name);
            failed = self.open_or_join(name, handle, entry, cause).await.then_some(calls);
        }
        self.notify(handle, entry).await;
        if let Some(failed) = failed {
            self.capture(name, handle, entry.deploy, failed).await;
        }
        if completes_draft(&entry.event) {
            self.draft(name, handle, entry).await;
            self.notify_draft(name, entry);
        }
    }

    /// Opens an incident, or adds to the one of this deploy. False if the record knows the entry.
    async fn open_or_join(
        &self,
        name: &str,
        handle: &ServiceHandle,
        entry: &TimelineEntry,
        cause: Cause,
    ) -> bool {
        let Some(known) = self.service(name).map(|it| it.get(entry.deploy).map(|it| it.last_seq))
        else {
            return false;
        };
        let (seq, because) = (entry.seq, entry.because.clone());
        let event = match known {
            Some(last) if seq <= last => return false,
            Some(_) => IncidentEvent::Joined { cause, seq, because },
            None => {
                let version = version_of(handle, entry.deploy).await;
                let (service, deploy) = (name.to_owned(), entry.deploy);
                IncidentEvent::Opened { service, deploy, version, cause, seq, because }
            }
        };
        self.record(name, entry.deploy, event)
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
        let gathered =
            tokio::task::spawn_blocking(move || gather::gather(&dir, deploy, settings.as_ref()));
        let Ok(mut facts) = gathered.await else { return };
        self.keep_captured(name, deploy, &mut facts);
        let signature = signature(&facts, cause);
        let impact = crate::incident::impact(&facts);
        let failed = impact.server_faults + impact.tool_faults;
        let recurrence_of = match self.service(name) {
            Some(incidents) => {
                if let Err(error) = incidents.store.write_facts(deploy, &facts) {
                    tracing::error!(service = name, "cannot write the facts of {deploy}: {error}");
                    return;
                }
                incidents.recurrences(deploy, &signature)
            }
            None => return,
        };
        self.reopen_earlier(name, deploy, recurrence_of.first().copied());
        let (seq, requests) = (entry.seq, impact.requests);
        let drafted = IncidentEvent::Drafted { seq, signature, recurrence_of, failed, requests };
        self.record(name, deploy, drafted);
        self.rewrite(name, deploy);
    }

    /// Takes over what was kept when the incident opened.
    fn keep_captured(&self, name: &str, deploy: ReleaseNumber, facts: &mut Facts) {
        let Some(incidents) = self.service(name) else { return };
        match tokio::task::block_in_place(|| incidents.store.read_facts(deploy)) {
            Ok(Some(kept)) => {
                (facts.samples, facts.output) = (kept.samples, kept.output);
                (facts.changes, facts.output_unknown) = (kept.changes, kept.output_unknown);
            }
            Ok(None) => (),
            Err(error) => tracing::warn!(service = name, "a draft without its samples: {error}"),
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

    /// Appends to the record of an incident. A failure is in the status and the log.
    pub(super) fn record(&self, name: &str, number: ReleaseNumber, event: IncidentEvent) -> bool {
        let at = (self.0.clock.now(), self.0.clock.wall_time());
        let Some(mut incidents) = self.service(name) else { return false };
        tokio::task::block_in_place(|| incidents.record(number, at, event)).is_ok()
    }

    /// Writes the document again, with what people wrote.
    pub(super) fn rewrite(&self, name: &str, number: ReleaseNumber) {
        let Some(incidents) = self.service(name) else { return };
        let written = tokio::task::block_in_place(|| {
            let human = incidents.human(number)?;
            incidents.write_document(number, human)
        });
        if let Err(error) = written {
            tracing::error!(service = name, "cannot write post-mortem {number}: {error}");
        }
    }
}

/// The version of a deploy, from the first line of its timeline.
pub(super) async fn version_of(handle: &ServiceHandle, deploy: ReleaseNumber) -> String {
    let dir = handle.dir().to_owned();
    let read = tokio::task::spawn_blocking(move || record::read_deploy(&dir, Some(deploy))).await;
    let entries = read.ok().and_then(Result::ok).unwrap_or_default();
    let version = entries.into_iter().find_map(|entry| match entry.event {
        TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. } => {
            Some(release.version)
        }
        _ => None,
    });
    version.unwrap_or_else(|| format!("deploy {deploy}"))
}
