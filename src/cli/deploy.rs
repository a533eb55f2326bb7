//! `rollbackd deploy`

use std::collections::BTreeMap;

use clap::Args;

use crate::control::{Client, Request, Response};
use crate::model::{Entry, Fact, Guard};

use super::exit::Exit;
use super::progress::Progress;
use super::{Daemon, say, timeline};

/// Start a new release, prove it ready, and give it the traffic.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// What to call the release.
    version: String,
    /// What it runs from: a path or an image reference.
    #[arg(long)]
    artifact: Option<String>,
    /// A setting for its environment; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Where to run it; a free slot by default.
    #[arg(long)]
    slot: Option<String>,
    /// On a breach page and hold, but never go back: for changes that can not be undone.
    #[arg(long)]
    freeze: bool,
    /// Despite a quarantine, a dropped protocol version, or a trial that is held.
    #[arg(long)]
    force: bool,
    /// Not if it drops a tool, a prompt or a capability that clients used in the last hour, or asks
    /// more of them; the deploy then fails before it gets traffic.
    #[arg(long, conflicts_with = "force")]
    strict: bool,
    /// Follow until the release is accepted, failed, or rolled back.
    #[arg(long)]
    wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(options: Options, daemon: &Daemon) -> Exit {
    let Options { service, version, artifact, set, slot, freeze, force, strict, wait, json } =
        options;
    let mut all = BTreeMap::new();
    for (key, value) in set {
        if all.contains_key(&key) {
            say::error(&format!("{key} is set twice; write it once"));
            return Exit::BadArguments;
        }
        all.insert(key, value);
    }
    let set = all;
    let request =
        Request::Deploy { service, version, artifact, set, slot, freeze, force, strict, wait };
    match daemon.ask(&request).await {
        Ok(client) => follow(client, wait, json).await,
        Err(exit) => exit,
    }
}

/// Prints what follows from a command, and tells how it ended.
pub(super) async fn follow(mut client: Client, wait: bool, json: bool) -> Exit {
    let (mut ended, mut went_back) = ((!wait).then_some(Exit::Done), false);
    let mut progress = Progress::new();
    loop {
        let response = match client.next().await {
            Ok(Some(response)) => response,
            Ok(None) => return ended.unwrap_or_else(unseen),
            Err(error) => {
                say::error(&format!("the daemon went away: {error}"));
                return Exit::NoDaemon;
            }
        };
        progress.clear();
        if json && !matches!(response, Response::Status(_)) {
            say::json(&response);
        }
        match response {
            Response::Accepted { deploy, because } if !wait && !json => {
                say::line(&format!("deploy {deploy}: {because}"));
            }
            Response::Refused { code, because } => {
                say::error(&because);
                return code.into();
            }
            Response::Entry(entry) => {
                if !json {
                    say::line(&timeline::line(&entry));
                }
                went_back |= matches!(entry.fact, Fact::Decided { .. });
                ended = outcome(&entry, went_back).or(ended);
            }
            Response::Status(status) => progress.show(&status),
            Response::Accepted { .. } => (),
        }
    }
}

fn unseen() -> Exit {
    say::error(
        "the end was not seen: the daemon went away, or another deploy began; `rollbackd timeline` \
         tells how it goes on",
    );
    Exit::Failed
}

/// What an entry means for whoever waits, if it is an end.
fn outcome(entry: &Entry, went_back: bool) -> Option<Exit> {
    match entry.fact {
        Fact::Accepted { .. } => Some(Exit::Done),
        Fact::Failed => Some(Exit::NotReady),
        Fact::Recovered if went_back => Some(Exit::RolledBack),
        Fact::Blocked { guard: Guard::NoData, .. } => None,
        Fact::Unrecovered | Fact::Abandoned | Fact::Blocked { .. } => Some(Exit::Held),
        _ => None,
    }
}
