use std::time::Duration;

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::{MatchRule, MessageStream, OwnedObjectPath};

use crate::systemd::{
    MANAGER_INTERFACE, MANAGER_PATH, SYSTEMD_BUS_NAME, SystemdManager, error_help,
};

/// Signals about jobs that wait to be looked at: all jobs of the host pass here.
const JOB_SIGNAL_QUEUE_MAX: usize = 1024;

impl SystemdManager {
    /// Starts a unit, and waits for what comes of it. One that is up stays as it is.
    ///
    /// # Errors
    /// What systemd says against it, or that it took longer than `timeout`.
    pub async fn start(&self, unit: &str, timeout: Duration) -> Result<(), String> {
        self.run_job("StartUnit", "start", unit, timeout).await
    }

    /// Stops a unit, and waits until nothing of it runs.
    ///
    /// # Errors
    /// What systemd says against it, or that it took longer than `timeout`; it goes on stopping.
    pub async fn stop(&self, unit: &str, timeout: Duration) -> Result<(), String> {
        self.run_job("StopUnit", "stop", unit, timeout).await
    }

    /// Forgets that a unit failed, and how often it was started: a unit that reached its limit of
    /// starts would not start again.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or does not let us.
    pub async fn reset(&self, unit: &str) -> Result<(), String> {
        let reset_failed = self.call_manager("ResetFailedUnit", &unit).await;
        reset_failed.map(drop).map_err(|error| error_help::describe_failure("reset", unit, &error))
    }

    async fn run_job(
        &self,
        method: &str,
        what: &str,
        unit: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let done = async {
            // Before the call: the job may be over before its number is known here.
            let mut removed_jobs = self.subscribe_job_removed().await?;
            let reply = self.call_manager(method, &(unit, "replace")).await?;
            let job: OwnedObjectPath = reply.body().deserialize()?;
            while let Some(signal) = removed_jobs.next().await {
                let signal = signal?;
                let ended: (u32, OwnedObjectPath, String, String) = signal.body().deserialize()?;
                if ended.1 == job {
                    return Ok(ended.3);
                }
            }
            Err(zbus::Error::Failure("the connection to D-Bus ended".to_owned()))
        };
        let limit = timeout.as_secs();
        match tokio::time::timeout(timeout, done).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => {
                Err(format!("failed to {what} {unit}: its job ended as \"{result}\""))
            }
            Ok(Err(error)) => Err(error_help::describe_failure(what, unit, &error)),
            Err(_) => Err(format!("failed to {what} {unit}: not done within {limit} s")),
        }
    }

    async fn subscribe_job_removed(&self) -> zbus::Result<MessageStream> {
        let connection = self.connection().await?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD_BUS_NAME)
            .path(MANAGER_PATH)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .build()?;
        let queue = std::num::NonZeroUsize::new(JOB_SIGNAL_QUEUE_MAX);
        MessageStream::for_match_rule(rule, &connection, queue).await
    }
}
