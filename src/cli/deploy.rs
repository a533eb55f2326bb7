//! `rollbackd deploy`

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::{Followed, Goal, follow};
use crate::cli::output;
use crate::control::Request;

/// Start a new release, wait until it is ready, and give it the traffic.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// The version of the release.
    version: String,
    /// What it runs from: a path or an image reference.
    #[arg(long)]
    artifact: Option<String>,
    /// A variable for its environment; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// The slot where it runs; by default a free one.
    #[arg(long)]
    slot: Option<String>,
    /// After a breach, page and hold, but never roll back: for changes that cannot be undone.
    #[arg(long)]
    freeze: bool,
    /// Deploy despite a quarantine, a dropped protocol version, or a bake that is held.
    #[arg(long)]
    force: bool,
    /// Fail before the release gets traffic if it drops a tool, a prompt or a capability that
    /// clients used in the last hour, or requires more arguments.
    #[arg(long, conflicts_with = "force")]
    strict: bool,
    /// Follow until the release is accepted, failed, or rolled back.
    #[arg(long)]
    wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, version, artifact, set, slot, freeze, force, strict, wait, json } =
        options;
    let mut environment = BTreeMap::new();
    for (key, value) in set {
        if environment.contains_key(&key) {
            output::error_line(&format!("{key} is set twice; write it once"));
            return Exit::InvalidArguments;
        }
        environment.insert(key, value);
    }
    let set = environment;
    let followed = Followed { service: service.clone(), goal: Goal::Deploy, wait, json };
    let request =
        Request::Deploy { service, version, artifact, set, slot, freeze, force, strict, wait };
    match daemon.send_request(&request).await {
        Ok(client) => follow(client, daemon, &followed).await,
        Err(exit) => exit,
    }
}
