//! Follows the timeline of one service: opens incidents, and tells people at once. What takes its time is
//! left to [`drafting`](super::drafting).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::daemon::incidents::Incidents;
use crate::daemon::incidents::drafting::{DRAFT_JOBS_MAX, DraftJob};
use crate::incident::{Cause, IncidentEvent, cause_of, completes_draft};
use crate::model::{ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::record;
use crate::service::handle::ServiceHandle;

/// An entry that is older when the daemon starts opens no incident: an upgrade reports nothing old.
const CATCH_UP_MAX: Duration = Duration::from_hours(24);
/// After so long, what could not be written is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

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
        let (jobs, queue) = mpsc::channel(DRAFT_JOBS_MAX);
        tokio::join!(
            self.follow_timeline(&name, &handle, jobs),
            self.write_drafts(&name, &handle, queue)
        );
    }

    async fn follow_timeline(
        &self,
        name: &str,
        handle: &ServiceHandle,
        jobs: mpsc::Sender<DraftJob>,
    ) {
        let mut entries = handle.subscribe();
        self.catch_up(name, handle, &jobs).await;
        loop {
            match tokio::time::timeout(RETRY_INTERVAL, entries.recv()).await {
                Ok(Ok(entry)) => self.on_entry(name, handle, entry, &jobs).await,
                Ok(Err(RecvError::Lagged(_))) => self.catch_up(name, handle, &jobs).await,
                Ok(Err(RecvError::Closed)) => return,
                // A disk that was full: the timeline knows what is missing.
                Err(_) if self.service(name).is_some_and(|it| it.is_behind()) => {
                    self.catch_up(name, handle, &jobs).await;
                }
                Err(_) => (),
            }
        }
    }

    /// Takes up what was recorded while no daemon ran, or too quickly.
    async fn catch_up(&self, name: &str, handle: &ServiceHandle, jobs: &mpsc::Sender<DraftJob>) {
        let dir = handle.dir().to_owned();
        let read = tokio::task::spawn_blocking(move || record::read_latest(&dir)).await;
        // A timeline that cannot be read stops the service, which reports it.
        let Ok(Ok(entries)) = read else { return };
        let now = self.0.clock.now();
        for entry in entries.into_iter().filter(|it| now.since(it.moment) < CATCH_UP_MAX) {
            self.on_entry(name, handle, Arc::new(entry), jobs).await;
        }
    }

    async fn on_entry(
        &self,
        name: &str,
        handle: &ServiceHandle,
        entry: Arc<TimelineEntry>,
        jobs: &mpsc::Sender<DraftJob>,
    ) {
        if let TimelineEvent::Deployed { release, carried_over, .. } = &entry.event {
            self.keep_deploy_facts(name, release, carried_over.active.as_ref());
        }
        let mut capture = None;
        if let Some(cause) = cause_of(&entry) {
            // First of all: the proxy removes the release when its traffic is gone.
            let failed = self.failed_calls(name);
            let is_new = self.open_or_join(name, handle, &entry, cause).await;
            capture = is_new.then_some(DraftJob::Capture { deploy: entry.deploy, failed });
        }
        self.notify(handle, &entry).await;
        let draft = completes_draft(&entry.event).then_some(DraftJob::Write(entry));
        for job in capture.into_iter().chain(draft) {
            // The other end is polled as long as this one.
            let _ = jobs.send(job).await;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use tokio::sync::broadcast;

    use super::*;
    use crate::clock::Clock;
    use crate::config;
    use crate::model::Moment;

    const DEPLOY: ReleaseNumber = ReleaseNumber(2);

    fn entry(seq: u64, kind: &str, data: Option<Value>) -> Arc<TimelineEntry> {
        let mut line = json!({
            "seq": seq, "at": "2023-11-14T22:13:20.000000Z", "moment": 1_700_000_000_000_u64 + seq,
            "ms": seq, "service": "weather", "deploy": DEPLOY, "because": "v2 fails", "kind": kind,
        });
        data.into_iter().for_each(|data| line["data"] = data);
        Arc::new(serde_json::from_value(line).unwrap())
    }

    /// A deploy of an image in place of another one.
    fn deployed() -> Arc<TimelineEntry> {
        let image = |digit: &str| format!("localhost/weather@sha256:{}", digit.repeat(64));
        let release = |number: u32, digit: &str| {
            json!({
                "version": format!("v{number}"), "number": number, "slot": "green",
                "artifact": image(digit),
            })
        };
        let by = json!({"uid": 0, "pid": 7});
        let data = json!({
            "release": release(2, "b"), "frozen": false, "forced": false, "by": by,
            "base": {"active": release(1, "a")},
        });
        entry(1, "deployed", Some(data))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_podman_that_does_not_answer_delays_no_further_event() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("podman.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = format!(
            "[daemon]\nstate_dir = {:?}\npodman = {socket:?}\n[service.weather]\n\
             listen = \"127.0.0.1:8080\"\nruntime = \"external\"\n\
             slots = {{ blue = \"127.0.0.1:8401\", green = \"127.0.0.1:8402\" }}\n",
            home.path()
        );
        let settings = config::parse("test", &text).unwrap().settings;
        let dir = home.path().join("weather");
        std::fs::create_dir(&dir).unwrap();
        let line = serde_json::to_string(&*deployed()).unwrap() + "\n";
        std::fs::write(dir.join("000002.jsonl"), line).unwrap();
        let (entries, _) = broadcast::channel(8);
        let handle =
            ServiceHandle::new(mpsc::channel(1).0, entries.clone(), dir, Default::default());
        let handles = Arc::new(BTreeMap::from([("weather".to_owned(), handle.clone())]));
        let clock = Clock::start(Moment(0));
        let (incidents, _delivered) = Incidents::new(&settings, &handles, Arc::default(), clock);
        let follower = incidents.spawn_follower("weather", &handle);
        let until = async |reached: &dyn Fn() -> bool| {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let causes =
            || incidents.service("weather").and_then(|it| Some(it.get(DEPLOY)?.causes.len()));
        let events = async {
            until(&|| entries.receiver_count() == 1).await;
            for event in [entry(2, "failed", None), entry(3, "abandoned", None)] {
                entries.send(event).unwrap();
            }
            until(&|| causes() == Some(2)).await;
        };
        tokio::time::timeout(Duration::from_mins(1), events).await.unwrap();
        let kept = incidents.service("weather").unwrap().store.read_facts(DEPLOY).unwrap();
        assert_eq!(kept, None, "podman has not answered yet");
        follower.abort();
    }
}
