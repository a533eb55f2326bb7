use std::time::Duration;

use futures_util::StreamExt as _;
use zbus::{MessageStream, OwnedObjectPath};

use crate::systemd::error_help;
use crate::systemd::manager::{MANAGER_INTERFACE, MANAGER_PATH, SystemdManager, systemd_signals};

/// Job signals that may be queued. The signals of all jobs of the host arrive here.
const JOB_SIGNAL_QUEUE_MAX: usize = 1024;

/// The signal's job id, job, unit and result.
type JobRemoved = (u32, OwnedObjectPath, String, String);

/// A job's id, unit, type and state, and the paths of job and unit.
type ListedJob = (u32, String, String, String, OwnedObjectPath, OwnedObjectPath);

impl SystemdManager {
    /// Starts a unit and waits for the result of the job. A unit that is up does not change.
    ///
    /// # Errors
    /// The reason of systemd, or that the job took longer than `timeout`.
    pub async fn start(&self, unit: &str, timeout: Duration) -> Result<(), String> {
        self.run_job("StartUnit", "start", unit, timeout).await
    }

    /// Stops a unit and waits until none of its processes runs.
    ///
    /// # Errors
    /// The reason of systemd, or that the job took longer than `timeout`; the job then continues.
    pub async fn stop(&self, unit: &str, timeout: Duration) -> Result<(), String> {
        self.run_job("StopUnit", "stop", unit, timeout).await
    }

    /// Resets the failed state and the start counter of a unit: at its start limit, systemd would
    /// reject another start.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or denies the call.
    pub async fn reset(&self, unit: &str) -> Result<(), String> {
        let reset_failed = self.call_manager("ResetFailedUnit", &unit).await;
        reset_failed.map(drop).map_err(|error| error_help::describe_failure("reset", unit, &error))
    }

    /// Whether systemd has a job that restarts the unit: it starts the unit again as soon as it stopped.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer.
    pub async fn is_restarting(&self, unit: &str) -> Result<bool, String> {
        let listed = async {
            let reply = self.call_manager("ListJobs", &()).await?;
            reply.body().deserialize::<Vec<ListedJob>>()
        };
        let jobs = listed.await;
        let jobs = jobs.map_err(|error| error_help::describe_failure("list jobs of", unit, &error));
        // A job of another kind, such as reload-or-restart, has become one of these before it runs.
        Ok(jobs?.iter().any(|(_, of, kind, ..)| of == unit && kind == "restart"))
    }

    async fn run_job(
        &self,
        method: &str,
        verb: &str,
        unit: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let done = async {
            // Subscribed before the call: the job may end before its reply arrives.
            let mut removed_jobs = self.subscribe_job_removed().await?;
            let reply = self.call_manager(method, &(unit, "replace")).await?;
            let job: OwnedObjectPath = reply.body().deserialize()?;
            while let Some(signal) = removed_jobs.next().await {
                let signal = signal?;
                let (_, removed, _, result): JobRemoved = signal.body().deserialize()?;
                if removed == job {
                    return Ok(result);
                }
            }
            Err(zbus::Error::Failure("the connection to D-Bus ended".to_owned()))
        };
        let limit = timeout.as_secs();
        match tokio::time::timeout(timeout, done).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => {
                Err(format!("failed to {verb} {unit}: its job ended as \"{result}\""))
            }
            Ok(Err(error)) => Err(error_help::describe_failure(verb, unit, &error)),
            Err(_) => Err(format!("failed to {verb} {unit}: not done within {limit} s")),
        }
    }

    async fn subscribe_job_removed(&self) -> zbus::Result<MessageStream> {
        let connection = self.connection().await?;
        let rule = systemd_signals()
            .path(MANAGER_PATH)
            .interface(MANAGER_INTERFACE)
            .member("JobRemoved")
            .build()?;
        let queue = std::num::NonZeroUsize::new(JOB_SIGNAL_QUEUE_MAX);
        MessageStream::for_match_rule(rule, &connection, queue).await
    }
}
