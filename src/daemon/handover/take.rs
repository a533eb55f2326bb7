//! The next daemon takes over from one that runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::decide::Watch;
use crate::model::Moment;
use crate::proxy::{Change, Proxy};
use crate::record::{self, State};

use super::super::inherited::Inherited;
use super::super::listeners::Listeners;
use super::super::reign::{Proxies, Reign};
use super::super::{StartError, herald};
use super::parcel::Parcel;
use super::who;
use super::word::{Ear, Hello, Mouth, Of, Word, talk};

/// How long the old daemon may take to let go.
const YIELD_MAX: Duration = Duration::from_secs(60);
/// Changes that the old daemon may tell before it lets go. Those beyond are lost.
const EARLY_MAX: usize = 1_000_000;
/// Changes that are not taken up yet.
const CHANGES_MAX: usize = 1024;
/// How often it is looked whether requests go elsewhere.
const SHOW: Duration = Duration::from_millis(20);
/// Bytes of what is said when it fails.
const WHY_MAX: usize = 8 * 1024;

/// What a daemon that runs passes on.
#[derive(Debug)]
pub struct Taking {
    stream: UnixStream,
    hello: Hello,
    inherited: Inherited,
}

/// The daemon before this one, which ends what is open in it.
#[derive(Debug)]
pub(in crate::daemon) struct Before(JoinHandle<()>);

impl Taking {
    /// Hears what is passed on, over the standard input. Only before any thread is started.
    ///
    /// # Errors
    /// When nobody passes anything on there.
    pub fn begin() -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Or the other end would not see that this one lets go of it.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (hello, parcel) = Parcel::receive(&stream)?;
        let inherited = Inherited::try_from(parcel)?;
        Ok(Self { stream, hello, inherited })
    }

    /// Says why this one can not take over, before [`crate::daemon::run`].
    pub fn fail(&self, why: &str) {
        if let Ok(line) = failed(why).line() {
            // One that is gone needs no reason.
            let _ = (&self.stream).write_all(&line);
        }
    }

    /// Takes over; returns when this daemon is in charge.
    ///
    /// # Errors
    /// When it can not. The old one heard why, and goes on.
    pub(in crate::daemon) async fn take_over(
        self,
        settings: &Settings,
    ) -> Result<Reign, StartError> {
        let Self { stream, hello, inherited } = self;
        let broken = |error| StartError::new("failed to take over".into(), error);
        let (mut ear, mut mouth) = talk(stream).map_err(broken)?;
        let taken = take(settings, &hello, inherited, &mut ear, &mut mouth).await;
        let mut reign = match taken {
            Ok(reign) => reign,
            Err(error) => {
                let _ = mouth.say(&failed(&error.whole())).await;
                return Err(error);
            }
        };
        let proxies = Arc::clone(&reign.proxies);
        let main = lead(&mut ear, &proxies).await.map_err(broken)?;
        if !main && herald::is_managed() {
            // The service manager saw the main process end, and starts another one.
            let what = "the daemon that hands over ended in the middle".to_owned();
            return Err(StartError::new(what, "the service manager starts another one"));
        }
        let (tell, told) = mpsc::channel(CHANGES_MAX);
        let lead = show(mouth, Arc::clone(&proxies));
        tokio::spawn(async move {
            // The old one takes a channel that is closed for the end of this one.
            tokio::select! {
                () = hear(ear, tell) => (),
                never = lead => never,
            }
        });
        reign.before = Some(Before::listen(told, proxies));
        Ok(reign)
    }
}

fn failed(why: &str) -> Word {
    Word::Failed(why.chars().take(WHY_MAX).collect())
}

async fn take(
    settings: &Settings,
    hello: &Hello,
    inherited: Inherited,
    ear: &mut Ear,
    mouth: &mut Mouth,
) -> Result<Reign, StartError> {
    let broken = |error| StartError::new("failed to take over".into(), error);
    let listeners = prepare(settings, hello, inherited)?;
    let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION").to_owned());
    mouth.say(&Word::Prepared { pid, version }).await.map_err(broken)?;
    let early = tokio::time::timeout(YIELD_MAX, until_yours(ear)).await;
    let early = early.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(broken)?;
    let state = State::open(&settings.state_dir)?;
    let before = who(hello.pid, &hello.version);
    let began = format!("rollbackd {} took over from {before}", env!("CARGO_PKG_VERSION"));
    let mut reign = Reign::new(settings, state, listeners, &began)?;
    for (service, change) in early {
        reign.proxies.get(&service).into_iter().for_each(|proxy| proxy.hear(change.clone()));
    }
    reign.open();
    reign.began().await;
    mouth.say(&Word::Ready).await.map_err(broken)?;
    if settings.control_socket != hello.control {
        // Nobody answers there any more.
        let _ = std::fs::remove_file(&hello.control);
    }
    Ok(reign)
}

/// Finds all that stands against it, while the old daemon is in charge.
fn prepare(
    settings: &Settings,
    hello: &Hello,
    mut inherited: Inherited,
) -> Result<Listeners, StartError> {
    if settings.state_dir != hello.state_dir {
        let (old, new) = (hello.state_dir.display(), settings.state_dir.display());
        let what = format!("the state folder changes only with a restart, from {old} to {new}");
        return Err(StartError::new(what, "a daemon runs on the old one"));
    }
    for service in settings.services.values() {
        let dir = settings.state_dir.join(&service.name);
        if dir.exists() {
            let entries = record::peek(&dir)?;
            let last = entries.last().map_or(Moment(0), |last| last.moment);
            // As far as it can be tried without an effect.
            let _ = Watch::restore(service.policy.clone(), &entries, last);
        }
    }
    if settings.control_socket != hello.control {
        drop(inherited.claim_control());
    }
    Listeners::open(settings, inherited)
}

/// What the old daemon tells until it lets go.
async fn until_yours(ear: &mut Ear) -> io::Result<Vec<(String, Change)>> {
    let mut early = Vec::new();
    loop {
        match ear.next().await? {
            Some(Word::Yours) => return Ok(early),
            Some(Word::Change(service, change)) if early.len() < EARLY_MAX => {
                early.push((service, change));
            }
            Some(_) => (),
            None => return Err(io::Error::other("the daemon that runs goes on")),
        }
    }
}

/// Waits until the service manager knows; `false` when the old daemon ended before.
async fn lead(ear: &mut Ear, proxies: &Proxies) -> io::Result<bool> {
    loop {
        match ear.next().await? {
            Some(Word::Main) => return Ok(true),
            Some(Word::Change(service, change)) => {
                if let Some(proxy) = proxies.get(&service) {
                    proxy.hear(change);
                }
            }
            Some(_) => (),
            None => return Ok(false),
        }
    }
}

/// Passes on what the old daemon tells, until its end.
async fn hear(mut ear: Ear, tell: mpsc::Sender<(String, Change)>) {
    loop {
        match ear.next().await {
            Ok(Some(Word::Change(service, change))) => {
                let _ = tell.send((service, change)).await;
            }
            Ok(Some(Word::Gone)) => {
                tracing::info!("the daemon before this one has left");
                break;
            }
            Ok(Some(_)) => (),
            Ok(None) | Err(_) => {
                tracing::warn!("the daemon before this one ended in the middle of what was open");
                break;
            }
        }
    }
}

/// Shows the old daemon where requests go, whenever that changes. Never returns.
async fn show(mut mouth: Mouth, proxies: Proxies) {
    let mut shown = BTreeMap::new();
    loop {
        for (service, proxy) in proxies.iter() {
            let Some(ways) = proxy.ways() else { continue };
            if shown.get(service) != Some(&ways) {
                // One that is gone needs no way.
                let _ = mouth.say(&Word::Ways(service.clone(), ways.clone())).await;
                shown.insert(service.clone(), ways);
            }
        }
        tokio::time::sleep(SHOW).await;
    }
}

impl Before {
    /// Takes up what is told, as long as it is.
    pub(super) fn listen(mut told: mpsc::Receiver<(String, Change)>, proxies: Proxies) -> Self {
        Self(tokio::spawn(async move {
            while let Some((service, change)) = told.recv().await {
                if let Some(proxy) = proxies.get(&service) {
                    proxy.hear(change);
                }
            }
            proxies.values().for_each(Proxy::is_alone);
        }))
    }

    /// Waits until it is gone, so long at most.
    pub(in crate::daemon) async fn gone(self, patience: Duration) {
        if tokio::time::timeout(patience, self.0).await.is_err() {
            tracing::warn!("the daemon before this one takes too long to leave");
        }
    }
}

impl TryFrom<Parcel> for Inherited {
    type Error = io::Error;

    fn try_from(parcel: Parcel) -> io::Result<Self> {
        let mut inherited = Self::default();
        for (of, listener) in parcel.0 {
            match of {
                Of::Service(name) => inherited.add(&name, TcpListener::from(listener))?,
                Of::Control => inherited.add_control(listener)?,
                Of::Metrics => inherited.add_metrics(listener)?,
            }
        }
        Ok(inherited)
    }
}
