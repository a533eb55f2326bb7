use std::time::Duration;

use futures_util::StreamExt as _;
use zbus::message::Type;
use zbus::{MatchRule, MessageStream, OwnedObjectPath};

use super::{Bus, MANAGER, MANAGER_PATH, SYSTEMD, trouble};

/// Signals about jobs that wait to be looked at: all jobs of the host pass here.
const QUEUE_MAX: usize = 1024;

impl Bus {
    /// Starts a unit, and waits for what comes of it. One that is up stays as it is.
    ///
    /// # Errors
    /// What systemd says against it, or that it took longer than `patience`.
    pub async fn start(&self, unit: &str, patience: Duration) -> Result<(), String> {
        self.job("StartUnit", "start", unit, patience).await
    }

    /// Stops a unit, and waits until nothing of it runs.
    ///
    /// # Errors
    /// What systemd says against it, or that it took longer than `patience`; it goes on stopping.
    pub async fn stop(&self, unit: &str, patience: Duration) -> Result<(), String> {
        self.job("StopUnit", "stop", unit, patience).await
    }

    /// Forgets that a unit failed, and how often it was started: a unit that reached its limit of
    /// starts would not start again.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or does not let us.
    pub async fn reset(&self, unit: &str) -> Result<(), String> {
        let reset = self.manager("ResetFailedUnit", &unit).await;
        reset.map(drop).map_err(|error| trouble::words("reset", unit, &error))
    }

    async fn job(
        &self,
        method: &str,
        what: &str,
        unit: &str,
        patience: Duration,
    ) -> Result<(), String> {
        let done = async {
            // Before the call: the job may be over before its number is known here.
            let mut ends = self.ends().await?;
            let reply = self.manager(method, &(unit, "replace")).await?;
            let job: OwnedObjectPath = reply.body().deserialize()?;
            while let Some(signal) = ends.next().await {
                let signal = signal?;
                let ended: (u32, OwnedObjectPath, String, String) = signal.body().deserialize()?;
                if ended.1 == job {
                    return Ok(ended.3);
                }
            }
            Err(zbus::Error::Failure("the connection to D-Bus ended".to_owned()))
        };
        let limit = patience.as_secs();
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(result)) if result == "done" => Ok(()),
            Ok(Ok(result)) => {
                Err(format!("failed to {what} {unit}: its job ended as \"{result}\""))
            }
            Ok(Err(error)) => Err(trouble::words(what, unit, &error)),
            Err(_) => Err(format!("failed to {what} {unit}: not done within {limit} s")),
        }
    }

    async fn ends(&self) -> zbus::Result<MessageStream> {
        let connection = self.connection().await?;
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SYSTEMD)
            .path(MANAGER_PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let queue = std::num::NonZeroUsize::new(QUEUE_MAX);
        MessageStream::for_match_rule(rule, &connection, queue).await
    }
}
