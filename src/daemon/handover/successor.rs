//! The next daemon is started, and makes sure that it can take over.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::daemon::handover::fd_passing::ListenerFds;
use crate::daemon::handover::protocol::{
    HandoverMessage, Hello, MessageReader, MessageWriter, PROTOCOL, split,
};
use crate::daemon::handover::{describe, spawn};
use crate::daemon::instance::Instance;

/// How long the next daemon may take to make sure.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one that was killed may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A daemon that can take over.
#[derive(Debug)]
pub(in crate::daemon) struct Successor {
    pub(super) reader: MessageReader,
    pub(super) writer: MessageWriter,
    pub(super) pid: u32,
    pub(super) version: String,
    /// What was passed on to it.
    pub(super) listener_fds: ListenerFds,
    pidfd: OwnedFd,
}

/// One that makes sure that it can. Dropping this gives it up.
#[derive(Debug)]
pub(in crate::daemon) struct SuccessorStarting(JoinHandle<Result<Successor, String>>);

impl SuccessorStarting {
    /// Starts it.
    pub(in crate::daemon) fn spawn(
        instance: &Instance,
        settings: &Settings,
        config: &Path,
    ) -> Self {
        let listener_fds = instance.duplicate_listeners();
        let (state_dir, control) = (settings.state_dir.clone(), settings.control_socket.clone());
        let config = config.to_owned();
        Self(tokio::spawn(async move {
            let listener_fds =
                listener_fds.map_err(|error| format!("the listeners can not be passed: {error}"));
            let listener_fds = listener_fds?;
            let hello = Hello {
                protocol: PROTOCOL,
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                state_dir,
                control,
                listeners: listener_fds.0.iter().map(|(of, _)| of.clone()).collect(),
            };
            prepare(listener_fds, hello, config).await
        }))
    }

    /// How that ended. May be dropped and asked again.
    pub(in crate::daemon) async fn wait(&mut self) -> Result<Successor, String> {
        (&mut self.0).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Drop for SuccessorStarting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn prepare(
    listener_fds: ListenerFds,
    hello: Hello,
    config: PathBuf,
) -> Result<Successor, String> {
    let stream = spawn::spawn_detached(&config).await?;
    let sent = tokio::task::spawn_blocking(move || {
        listener_fds
            .send(&stream, &hello)
            .map(|()| (stream, listener_fds))
            .map_err(|error| error.to_string())
    });
    let sent = sent.await.unwrap_or_else(|error| Err(error.to_string()));
    let (stream, listener_fds) = sent.map_err(|error| format!("it does not listen: {error}"))?;
    let (mut reader, writer) = split(stream).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(PREPARE_TIMEOUT, reader.next()).await;
    match answer {
        Ok(Ok(Some(HandoverMessage::Prepared { pid, version }))) => {
            tracing::info!("{} is ready to take over", describe(pid, &version));
            let pidfd =
                open_pidfd(pid).map_err(|error| format!("it is not to be found: {error}"))?;
            Ok(Successor { reader, writer, pid, version, listener_fds, pidfd })
        }
        Ok(Ok(Some(HandoverMessage::Failed(error)))) => Err(error),
        Ok(Ok(Some(_))) => Err("what it says makes no sense".to_owned()),
        Ok(Ok(None)) => Err("it ended, its words are above".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PREPARE_TIMEOUT.as_secs())),
    }
}

fn open_pidfd(pid: u32) -> Result<OwnedFd, String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no number of a process")?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())
}

impl Successor {
    /// It is not waited for any more: nothing of it is left afterwards. What was passed on to it.
    ///
    /// # Errors
    /// When it can not be killed: then nobody may touch the state.
    pub(super) async fn kill(self) -> Result<ListenerFds, String> {
        // It may be dead already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let exited = async {
            while !is_dead(&self.pidfd) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let gone = tokio::time::timeout(KILL_TIMEOUT, exited).await;
        gone.map_err(|_| format!("{} does not end", describe(self.pid, &self.version)))?;
        Ok(self.listener_fds)
    }
}

fn is_dead(process: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
}
