use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use zbus::message::Type;
use zbus::{MatchRule, MessageStream};

use crate::systemd::{
    MANAGER_INTERFACE, MANAGER_PATH, PROPERTIES_INTERFACE, SystemdManager, UnitState, error_help,
};

/// Signals about one unit that wait to be looked at. More say nothing more: the state is read anew.
const SIGNAL_QUEUE_MAX: usize = 64;
/// How often a unit is looked at that nobody told of.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Follows one unit.
#[derive(Debug)]
pub struct UnitWatcher {
    manager: SystemdManager,
    unit: String,
    signals: Option<SignalStreams>,
    /// Something was told, and the state was not read since.
    state_outdated: bool,
    /// A job of the unit ended, and that was not told since.
    job_ended: bool,
}

/// Where systemd tells of a unit.
#[derive(Debug)]
struct SignalStreams {
    properties: MessageStream,
    jobs: MessageStream,
}

impl UnitWatcher {
    /// Follows a unit, from the first call of [`Self::next`] on.
    pub fn new(manager: SystemdManager, unit: String) -> Self {
        Self { manager, unit, signals: None, state_outdated: true, job_ended: false }
    }

    /// Waits until something may have changed, five seconds at most, and tells how the unit stands,
    /// and whether a job of it ended since the last time: somebody started, stopped or restarted it.
    /// At the first call, and after an error, at once. May be dropped and asked again.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer. It may be called again, after a wait of the caller's.
    pub async fn next(&mut self) -> Result<(UnitState, bool), String> {
        if let Some(told) = self.signals.as_mut().filter(|_| !self.state_outdated) {
            let lost = tokio::select! {
                told = told.properties.next() => !matches!(told, Some(Ok(_))),
                told = told.jobs.next() => {
                    self.job_ended = true;
                    !matches!(told, Some(Ok(_)))
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
                Ok((state, std::mem::take(&mut self.job_ended)))
            }
            Err(why) => {
                self.signals = None;
                Err(why)
            }
        }
    }

    /// Takes the jobs that ended until now for our own.
    pub fn ignore_finished_jobs(&mut self) {
        self.drain_job_signals();
        self.job_ended = false;
    }

    /// What was told before the state that was read last belongs to that state.
    fn drain_job_signals(&mut self) {
        let mut jobs = self.signals.as_mut().map(|told| &mut told.jobs);
        for _ in 0..SIGNAL_QUEUE_MAX {
            match jobs.as_mut().and_then(|jobs| jobs.next().now_or_never()) {
                Some(Some(Ok(_))) => self.job_ended = true,
                _ => return,
            }
        }
    }

    async fn subscribe(&self) -> zbus::Result<SignalStreams> {
        // Without it systemd forgets a unit that stopped, and with it how it ended. Where it is not
        // allowed, the stop itself is still seen.
        let _ = self.manager.call_manager("RefUnit", &self.unit.as_str()).await;
        let path = self.manager.unit_path(&self.unit).await?;
        let connection = self.manager.connection().await?;
        let queue = NonZeroUsize::new(SIGNAL_QUEUE_MAX);
        let properties = MatchRule::builder()
            .msg_type(Type::Signal)
            .path(path)
            .interface(PROPERTIES_INTERFACE)
            .member("PropertiesChanged")
            .build()?;
        let jobs = MatchRule::builder()
            .msg_type(Type::Signal)
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
