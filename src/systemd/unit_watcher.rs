use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use zbus::MessageStream;

use crate::systemd::error_help;
use crate::systemd::manager::{
    MANAGER_INTERFACE, MANAGER_PATH, PROPERTIES_INTERFACE, SystemdManager, systemd_signals,
};
use crate::systemd::unit_state::UnitState;

/// Signals about one unit that may be queued. Lost ones do no harm: each makes the watcher read
/// the whole state.
const SIGNAL_QUEUE_MAX: usize = 64;
/// How often the state is read without a signal.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Reports the state of one unit whenever it may have changed.
#[derive(Debug)]
pub struct UnitWatcher {
    manager: SystemdManager,
    unit: String,
    signals: Option<SignalStreams>,
    /// A signal arrived, and the state was not read since.
    state_outdated: bool,
    /// A job of the unit ended, and that was not reported yet.
    job_ended: bool,
}

/// The signals of systemd about a unit.
#[derive(Debug)]
struct SignalStreams {
    properties: MessageStream,
    jobs: MessageStream,
}

/// The state of a unit, and what happened since the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitChange {
    /// The state now.
    pub state: UnitState,
    /// Whether a job of the unit ended: an operator or a dependency started, stopped or restarted it.
    pub job_ended: bool,
}

impl UnitWatcher {
    /// Watches a unit from the first call of [`Self::next`] on.
    pub fn new(manager: SystemdManager, unit: String) -> Self {
        Self { manager, unit, signals: None, state_outdated: true, job_ended: false }
    }

    /// Waits for a signal about the unit, or five seconds, then reads the state. The first call, and
    /// the first after an error, do not wait. Cancel safe.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer. The caller may call again after a pause.
    pub async fn next(&mut self) -> Result<UnitChange, String> {
        if let Some(signals) = self.signals.as_mut().filter(|_| !self.state_outdated) {
            let lost = tokio::select! {
                signal = signals.properties.next() => !matches!(signal, Some(Ok(_))),
                signal = signals.jobs.next() => {
                    self.job_ended = true;
                    !matches!(signal, Some(Ok(_)))
                }
                () = tokio::time::sleep(POLL_INTERVAL) => false,
            };
            if lost {
                self.signals = None;
            }
        }
        self.state_outdated = true;
        if self.signals.is_none() {
            let subscribed = self.subscribe().await;
            self.signals = Some(
                subscribed
                    .map_err(|error| error_help::describe_failure("follow", &self.unit, &error))?,
            );
        }
        match self.manager.unit_state(&self.unit).await {
            Ok(state) => {
                self.state_outdated = false;
                self.drain_job_signals();
                Ok(UnitChange { state, job_ended: std::mem::take(&mut self.job_ended) })
            }
            Err(why) => {
                self.signals = None;
                Err(why)
            }
        }
    }

    /// Ignores the jobs that ended until now: the daemon started them.
    pub fn ignore_finished_jobs(&mut self) {
        self.drain_job_signals();
        self.job_ended = false;
    }

    /// Signals that arrived before the last read of the state belong to that state.
    fn drain_job_signals(&mut self) {
        let mut jobs = self.signals.as_mut().map(|signals| &mut signals.jobs);
        for _ in 0..SIGNAL_QUEUE_MAX {
            match jobs.as_mut().and_then(|jobs| jobs.next().now_or_never()) {
                Some(Some(Ok(_))) => self.job_ended = true,
                _ => return,
            }
        }
    }

    async fn subscribe(&self) -> zbus::Result<SignalStreams> {
        // Without a reference systemd unloads a unit that stopped, and its exit status with it. Where
        // the call is denied, the watcher still sees the stop.
        let _ = self.manager.call_manager("RefUnit", &self.unit.as_str()).await;
        let path = self.manager.unit_path(&self.unit).await?;
        let connection = self.manager.connection().await?;
        let queue = NonZeroUsize::new(SIGNAL_QUEUE_MAX);
        let properties = systemd_signals()
            .path(path)
            .interface(PROPERTIES_INTERFACE)
            .member("PropertiesChanged")
            .build()?;
        let jobs = systemd_signals()
            .path(MANAGER_PATH)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .arg(2, self.unit.as_str())
            .build()?;
        Ok(SignalStreams {
            properties: MessageStream::for_match_rule(properties, &connection, queue).await?,
            jobs: MessageStream::for_match_rule(jobs, &connection, queue).await?,
        })
    }
}
