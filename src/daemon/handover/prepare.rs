//! The next daemon is started, and makes sure that it can take over.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::JoinHandle;

use crate::config::Settings;

use super::super::reign::Reign;
use super::parcel::Parcel;
use super::word::{Ear, Hello, Mouth, PROTOCOL, Word, talk};
use super::{program, who};

/// How long the next daemon may take to make sure.
const PREPARE_MAX: Duration = Duration::from_secs(10);
/// How long one that was killed may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// A daemon that can take over.
#[derive(Debug)]
pub(in crate::daemon) struct Heir {
    pub(super) ear: Ear,
    pub(super) mouth: Mouth,
    pub(super) pid: u32,
    pub(super) version: String,
    /// What was passed on to it.
    pub(super) parcel: Parcel,
    process: OwnedFd,
}

/// One that makes sure that it can. Dropping this gives it up.
#[derive(Debug)]
pub(in crate::daemon) struct Preparing(JoinHandle<Result<Heir, String>>);

impl Preparing {
    /// Starts it.
    pub(in crate::daemon) fn begin(reign: &Reign, settings: &Settings, config: &Path) -> Self {
        let parcel = reign.parcel();
        let (state_dir, control) = (settings.state_dir.clone(), settings.control_socket.clone());
        let config = config.to_owned();
        Self(tokio::spawn(async move {
            let parcel =
                parcel.map_err(|error| format!("the listeners can not be passed: {error}"));
            let parcel = parcel?;
            let hello = Hello {
                protocol: PROTOCOL,
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                state_dir,
                control,
                listeners: parcel.0.iter().map(|(of, _)| of.clone()).collect(),
            };
            prepare(parcel, hello, config).await
        }))
    }

    /// How that ended. May be dropped and asked again.
    pub(in crate::daemon) async fn done(&mut self) -> Result<Heir, String> {
        (&mut self.0).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn prepare(parcel: Parcel, hello: Hello, config: PathBuf) -> Result<Heir, String> {
    let stream = program::begin(&config).await?;
    let sent = tokio::task::spawn_blocking(move || {
        parcel.send(&stream, &hello).map(|()| (stream, parcel)).map_err(|error| error.to_string())
    });
    let sent = sent.await.unwrap_or_else(|error| Err(error.to_string()));
    let (stream, parcel) = sent.map_err(|why| format!("it does not listen: {why}"))?;
    let (mut ear, mouth) = talk(stream).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(PREPARE_MAX, ear.next()).await;
    match answer {
        Ok(Ok(Some(Word::Prepared { pid, version }))) => {
            tracing::info!("{} is ready to take over", who(pid, &version));
            let process = open(pid).map_err(|why| format!("it is not to be found: {why}"))?;
            Ok(Heir { ear, mouth, pid, version, parcel, process })
        }
        Ok(Ok(Some(Word::Failed(why)))) => Err(why),
        Ok(Ok(Some(_))) => Err("what it says makes no sense".to_owned()),
        Ok(Ok(None)) => Err("it ended, its words are above".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PREPARE_MAX.as_secs())),
    }
}

fn open(pid: u32) -> Result<OwnedFd, String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no number of a process")?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())
}

impl Heir {
    /// It is not waited for any more: nothing of it is left afterwards. What was passed on to it.
    ///
    /// # Errors
    /// When it can not be killed: then nobody may touch the state.
    pub(super) async fn kill(self) -> Result<Parcel, String> {
        // It may be dead already.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        let gone = async {
            while !is_dead(&self.process) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let gone = tokio::time::timeout(KILL_MAX, gone).await;
        gone.map_err(|_| format!("{} does not end", who(self.pid, &self.version)))?;
        Ok(self.parcel)
    }
}

fn is_dead(process: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}
