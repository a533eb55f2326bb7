//! The old daemon gives all it has to the next one, and ends what is open in it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use signal_hook::consts::SIGHUP;
use signal_hook_tokio::Signals;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::proxy::{Change, Proxy};
use crate::record::State;

use super::super::desk::Handles;
use super::super::inherited::Inherited;
use super::super::input::Input;
use super::super::listeners::Listeners;
use super::super::reign::{Proxies, Reign, longest_drain};
use super::super::{Outcome, StartError, herald};
use super::prepare::Heir;
use super::take::Before;
use super::who;
use super::word::{Ear, Word};

/// Changes that are not sent yet.
const CHANGES_MAX: usize = 1024;
/// How long the next daemon may take to take up what it is given.
const TAKE_MAX: Duration = Duration::from_secs(10);
/// How long sessions may take to be on disk.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// How often the watchdog is fed meanwhile.
const FEED: Duration = Duration::from_millis(500);
/// How often it is looked whether requests go elsewhere.
const FOLLOW: Duration = Duration::from_millis(20);
/// How long the end of what is open may take beyond the time it is given.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What changes in the proxies from now on, by service.
type Changes = mpsc::Receiver<(String, Change)>;

/// Hands over to a daemon that is prepared. One that does not take it is killed, and the state is
/// taken back.
///
/// # Errors
/// When neither the next daemon nor this one can go on.
pub(in crate::daemon) async fn give(
    mut reign: Reign,
    mut heir: Heir,
    settings: &Settings,
    signals: &mut Signals,
) -> Result<Outcome, StartError> {
    let to = who(heir.pid, &heir.version);
    tracing::info!("hands over to {to}");
    reign.leave_desk();
    let_go(&reign.handles, &to).await;
    reign.hush();
    let (tell, mut told) = mpsc::channel(CHANGES_MAX);
    let given = tokio::select! {
        given = pass(&reign.proxies, tell, &mut told, &mut heir) => given,
        never = feed() => never,
    };
    let Reign { state, proxies, before, .. } = reign;
    drop(state);
    let taken = match given {
        Ok(()) => tokio::select! {
            taken = yield_to(&mut heir, &mut told) => taken,
            never = feed() => never,
        },
        Err(why) => Err(why),
    };
    let taken = match taken {
        Ok(()) => herald::main_is(heir.pid).await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    if let Err(why) = taken {
        tracing::error!("{to} did not take over, this one takes it back: {why}");
        return take_back(heir, told, proxies, before, settings).await;
    }
    tracing::info!("{to} took over; what is open here may finish");
    drain(heir, told, proxies, before, settings, signals).await
}

/// Feeds the watchdog. Never returns.
async fn feed<T>() -> T {
    loop {
        herald::alive().await;
        tokio::time::sleep(FEED).await;
    }
}

/// Every keeper stops, between two decisions.
async fn let_go(handles: &Handles, to: &str) {
    let mut all = Vec::new();
    for handle in handles.values() {
        let (done, let_go) = oneshot::channel();
        if handle.inbox.send(Input::HandOver(to.to_owned(), done)).await.is_ok() {
            all.push(let_go);
        }
    }
    join_all(all).await;
}

/// Lets nobody in any more, and tells how things stand in the proxies.
async fn pass(
    proxies: &Proxies,
    tell: mpsc::Sender<(String, Change)>,
    told: &mut Changes,
    heir: &mut Heir,
) -> Result<(), String> {
    let closed = join_all(proxies.values().map(|proxy| proxy.hand_over(tell.clone())));
    let closed = tokio::time::timeout(CLOSE_MAX, closed);
    let mut closed = std::pin::pin!(closed);
    loop {
        tokio::select! {
            closed = closed.as_mut() => {
                closed.map_err(|_| "sessions could not be written in time")?;
                break;
            }
            Some((service, change)) = told.recv() => say(heir, Word::Change(service, change)).await?,
        }
    }
    while let Ok((service, change)) = told.try_recv() {
        say(heir, Word::Change(service, change)).await?;
    }
    Ok(())
}

async fn say(heir: &mut Heir, word: Word) -> Result<(), String> {
    let said = tokio::time::timeout(TAKE_MAX, heir.mouth.say(&word)).await;
    match said {
        Ok(said) => said.map_err(|error| format!("it is gone: {error}")),
        Err(_) => Err("it does not listen".to_owned()),
    }
}

/// The state is the next one's; waits until it says that it is in charge.
async fn yield_to(heir: &mut Heir, told: &mut Changes) -> Result<(), String> {
    say(heir, Word::Yours).await?;
    let taken = async {
        loop {
            tokio::select! {
                word = heir.ear.next() => match word {
                    Ok(Some(Word::Ready)) => return Ok(()),
                    Ok(Some(Word::Failed(why))) => return Err(why),
                    Ok(Some(_)) => (),
                    Ok(None) => return Err("it ended".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                Some((service, change)) = told.recv() => {
                    let word = Word::Change(service, change);
                    heir.mouth.say(&word).await.map_err(|error| format!("it is gone: {error}"))?;
                }
            }
        }
    };
    let taken = tokio::time::timeout(TAKE_MAX, taken).await;
    taken.unwrap_or_else(|_| Err(format!("not ready within {} s", TAKE_MAX.as_secs())))
}

/// Takes the state up again, as a daemon that starts would.
async fn take_back(
    heir: Heir,
    told: Changes,
    proxies: Proxies,
    before: Option<Before>,
    settings: &Settings,
) -> Result<Outcome, StartError> {
    let failed = |source: String| StartError::new("failed to take the state back".into(), source);
    let parcel = heir.kill().await.map_err(failed)?;
    let inherited = Inherited::try_from(parcel).map_err(|error| failed(error.to_string()))?;
    let state = State::open(&settings.state_dir)?;
    let listeners = Listeners::open(settings, inherited)?;
    let began = "rollbackd took it back, since the next one failed,";
    let mut reign = Reign::new(settings, state, listeners, began)?;
    proxies.values().for_each(Proxy::tell_again);
    reign.before = Some(Before::listen(told, Arc::clone(&reign.proxies)));
    reign.open();
    // Before that, there are no ways to follow.
    reign.began().await;
    let (patience, new) = (longest_drain(settings), Arc::clone(&reign.proxies));
    tokio::spawn(async move {
        let never = CancellationToken::new();
        tokio::select! {
            () = leave(&proxies, before, patience, &never) => (),
            () = follow_own(&new, &proxies) => (),
        }
    });
    Ok(Outcome::Back(Box::new(reign)))
}

/// Ends what is open here, while the next daemon is in charge.
async fn drain(
    heir: Heir,
    mut told: Changes,
    proxies: Proxies,
    before: Option<Before>,
    settings: &Settings,
    signals: &mut Signals,
) -> Result<Outcome, StartError> {
    let Heir { ear, mut mouth, .. } = heir;
    let soon = CancellationToken::new();
    let patience = longest_drain(settings);
    let tell = async {
        let mut said = mouth.say(&Word::Main).await;
        while let Some((service, change)) = told.recv().await {
            // One that is gone is not told; what is open goes on all the same.
            if said.is_ok() {
                said = mouth.say(&Word::Change(service, change)).await;
            }
        }
        said.is_ok() && mouth.say(&Word::Gone).await.is_ok()
    };
    let work = async { tokio::join!(leave(&proxies, before, patience, &soon), tell).1 };
    let work = tokio::time::timeout(patience + LAST_WORDS, work);
    let mut work = std::pin::pin!(work);
    let mut followed = std::pin::pin!(follow(ear, &proxies));
    let (mut gone, mut hurried) = (false, false);
    let heard = loop {
        tokio::select! {
            heard = work.as_mut() => break heard.unwrap_or(!gone),
            signal = signals.next(), if !hurried => if signal != Some(SIGHUP) {
                tracing::info!("ends soon");
                hurried = true;
                soon.cancel();
            },
            () = followed.as_mut(), if !gone => gone = true,
        }
    };
    if !heard {
        // If the service manager did not hear of it, it still takes this process for the main one.
        let what = "the daemon that took over is gone".to_owned();
        return Err(StartError::new(what, "what was open here has ended"));
    }
    tracing::info!("nothing is open here any more");
    Ok(Outcome::Over)
}

/// What is open here leaves a release as it does in the daemon that took over, until that is gone.
async fn follow(mut ear: Ear, proxies: &Proxies) {
    while let Ok(Some(word)) = ear.next().await {
        if let Word::Ways(service, ways) = word
            && let Some(proxy) = proxies.get(&service)
        {
            proxy.follow(&ways).await;
        }
    }
}

/// The same, where this daemon itself took the state back. Never returns.
async fn follow_own(new: &Proxies, old: &Proxies) {
    loop {
        for (service, proxy) in old.iter() {
            if let Some(ways) = new.get(service).and_then(Proxy::ways) {
                proxy.follow(&ways).await;
            }
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// Lets those go who are in, and tells the last of it.
async fn leave(
    proxies: &Proxies,
    before: Option<Before>,
    patience: Duration,
    soon: &CancellationToken,
) {
    join_all(proxies.values().map(|proxy| proxy.see_off(patience, soon))).await;
    if let Some(before) = before {
        tokio::select! {
            () = before.gone(patience) => (),
            () = soon.cancelled() => (),
        }
    }
    join_all(proxies.values().map(Proxy::fall_silent)).await;
}
