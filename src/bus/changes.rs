use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use zbus::message::Type;
use zbus::{MatchRule, MessageStream};

use super::{Bus, MANAGER, MANAGER_PATH, PROPERTIES, State, trouble};

/// Signals about one unit that wait to be looked at. More say nothing more: the state is read anew.
const QUEUE_MAX: usize = 64;
/// How often a unit is looked at that nobody told of.
const LOOK: Duration = Duration::from_secs(5);

/// Follows one unit.
#[derive(Debug)]
pub struct Changes {
    bus: Bus,
    unit: String,
    told: Option<Told>,
    /// Something was told, and the state was not read since.
    behind: bool,
    /// A job of the unit ended, and that was not told since.
    job: bool,
}

/// Where systemd tells of a unit.
#[derive(Debug)]
struct Told {
    properties: MessageStream,
    jobs: MessageStream,
}

impl Changes {
    /// Follows a unit, from the first call of [`Self::next`] on.
    pub fn new(bus: Bus, unit: String) -> Self {
        Self { bus, unit, told: None, behind: true, job: false }
    }

    /// Waits until something may have changed, five seconds at most, and tells how the unit stands,
    /// and whether a job of it ended since the last time: somebody started, stopped or restarted it.
    /// At the first call, and after an error, at once. May be dropped and asked again.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer. It may be called again, after a wait of the caller's.
    pub async fn next(&mut self) -> Result<(State, bool), String> {
        if let Some(told) = self.told.as_mut().filter(|_| !self.behind) {
            let lost = tokio::select! {
                told = told.properties.next() => !matches!(told, Some(Ok(_))),
                told = told.jobs.next() => {
                    self.job = true;
                    !matches!(told, Some(Ok(_)))
                }
                () = tokio::time::sleep(LOOK) => false,
            };
            if lost {
                self.told = None;
            }
        }
        self.behind = true;
        if self.told.is_none() {
            let follow = self.follow().await;
            self.told = Some(follow.map_err(|error| trouble::words("follow", &self.unit, &error))?);
        }
        match self.bus.state(&self.unit).await {
            Ok(state) => {
                self.behind = false;
                self.look_for_jobs();
                Ok((state, std::mem::take(&mut self.job)))
            }
            Err(why) => {
                self.told = None;
                Err(why)
            }
        }
    }

    /// Takes the jobs that ended until now for our own.
    pub fn own_jobs(&mut self) {
        self.look_for_jobs();
        self.job = false;
    }

    /// What was told before the state that was read last belongs to that state.
    fn look_for_jobs(&mut self) {
        let mut jobs = self.told.as_mut().map(|told| &mut told.jobs);
        for _ in 0..QUEUE_MAX {
            match jobs.as_mut().and_then(|jobs| jobs.next().now_or_never()) {
                Some(Some(Ok(_))) => self.job = true,
                _ => return,
            }
        }
    }

    async fn follow(&self) -> zbus::Result<Told> {
        // Without it systemd forgets a unit that stopped, and with it how it ended. Where it is not
        // allowed, the stop itself is still seen.
        let _ = self.bus.manager("RefUnit", &self.unit.as_str()).await;
        let path = self.bus.path(&self.unit).await?;
        let connection = self.bus.connection().await?;
        let queue = NonZeroUsize::new(QUEUE_MAX);
        let properties = MatchRule::builder()
            .msg_type(Type::Signal)
            .path(path)
            .interface(PROPERTIES)
            .member("PropertiesChanged")
            .build()?;
        let jobs = MatchRule::builder()
            .msg_type(Type::Signal)
            .path(MANAGER_PATH)
            .interface(MANAGER)
            .member("JobRemoved")
            .arg(2, self.unit.as_str())
            .build()?;
        Ok(Told {
            properties: MessageStream::for_match_rule(properties, &connection, queue).await?,
            jobs: MessageStream::for_match_rule(jobs, &connection, queue).await?,
        })
    }
}
